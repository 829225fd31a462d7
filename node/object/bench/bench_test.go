//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestRecipe: the bare recipe writes what it is compared for.
func TestRecipe(t *testing.T) {
	dir := t.TempDir()
	bare, err := newRecipe(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := row{bytes: mib + 1, clients: 3, puts: 5}
	content := contentOf(&r)
	if _, err := load(t.Context(), &r, content, bare.put); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, drive := range bare.drives {
		names, err := filepath.Glob(filepath.Join(drive, "*", "*"))
		if err != nil || len(names) != r.puts {
			t.Fatalf("%s has %d files (%v), want %d", drive, len(names), err, r.puts)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil || len(b) != r.bytes+48+8 {
				t.Fatalf("%s: %d bytes, %v", name, len(b), err)
			}
			for i := range r.puts {
				if bytes.Equal(b[:r.bytes], content(i)) {
					seen[filepath.Base(name)]++
				}
			}
		}
	}
	for name, n := range seen {
		if n != copies {
			t.Errorf("%s is there %d times", name, n)
		}
	}
	if len(seen) != r.puts {
		t.Errorf("%d objects are whole, want %d", len(seen), r.puts)
	}
}

func TestLoadEndsWithAFailure(t *testing.T) {
	bad := errors.New("no disk")
	r := row{bytes: 1, clients: 4, puts: 1 << 30}
	_, err := load(t.Context(), &r, contentOf(&r), func(_ context.Context, i int, _ []byte) error {
		if i == 100 {
			return bad
		}
		return nil
	})
	if !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
}

func TestPlan(t *testing.T) {
	for _, args := range [][]string{{"-rows", "("}, {"-rows", "none"}, {"-runs", "0"}, {"-limit", "0s"}, {"more"}} {
		if p, err := parsePlan(args, io.Discard); err == nil {
			t.Errorf("%q: %+v", args, p)
		}
	}
	if p, err := parsePlan([]string{"-rows", "put-.*"}, io.Discard); err != nil || len(p.rows) != len(putRows()) {
		t.Errorf("%+v, %v", p, err)
	}
}
