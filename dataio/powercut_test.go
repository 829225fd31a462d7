package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// combinations is how many ways of losing power are drawn for each moment.
const combinations = 8

// history is what was done to a drive and recorded.
type history struct {
	*datatest.Recorder
	drive *dataio.Drive
	acked map[dataio.ID][]version
}

// version is a content that a payload had from an operation on; nil is none.
type version struct {
	begun   int // operations that had ended when it was begun
	acked   int // and when it was acknowledged
	content []byte
}

// record has do change a drive that is set up by before.
func record(t *testing.T, before func(d *dataio.Drive), do func(h *history)) *history {
	t.Helper()
	dir := t.TempDir()
	d, err := dataio.Open(t.Context(), dir, options())
	if err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(d)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := datatest.NewRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Interceptor = r
	h := &history{Recorder: r, drive: open(t, dir, o), acked: map[dataio.ID][]version{}}
	do(h)
	return h
}

// does records an acknowledged change of a payload.
func (h *history) does(t *testing.T, id dataio.ID, content []byte, change func() error) {
	t.Helper()
	v := version{begun: h.Ops(), content: content}
	if err := change(); err != nil {
		t.Fatal(err)
	}
	v.acked = h.Ops()
	h.acked[id] = append(h.acked[id], v)
}

func (h *history) puts(t *testing.T, id dataio.ID, content []byte) {
	h.does(t, id, content, func() error { return write(t.Context(), h.drive, id, content, int64(len(content))) })
}

func (h *history) replaces(t *testing.T, id dataio.ID, content []byte) {
	h.does(t, id, content, func() error { return replace(t.Context(), h.drive, id, content) })
}

// legal are the contents that a payload may have after a crash; nil is none.
func legal(versions []version, after int) [][]byte {
	contents := [][]byte{nil}
	for _, v := range versions {
		switch {
		case v.acked <= after && v.content != nil:
			contents = [][]byte{v.content}
		case v.begun < after: // or a removal, which isn't synced
			contents = append(contents, v.content)
		}
	}
	return contents
}

// check opens what each crash left, and compares. It returns how many there
// were, and the first thing that is wrong.
func (h *history) check(t *testing.T, seed uint64) (states int, wrong error) {
	t.Helper()
	parent := t.TempDir()
	for c := range h.Crashes(rand.New(rand.NewPCG(seed, 0)), combinations) {
		states++
		dir := filepath.Join(parent, "crashed")
		if err := errors.Join(os.Mkdir(dir, 0o700), c.Restore(dir)); err != nil {
			t.Fatal(err)
		}
		if err := h.checkOne(t.Context(), c, dir); err != nil {
			return states, fmt.Errorf("power lost after %d operations, the last %s (seed %d): %w", c.After, c.Last, seed, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	return states, nil
}

func (h *history) checkOne(ctx context.Context, c datatest.Crash, dir string) error {
	d, err := dataio.Open(ctx, dir, options())
	if err != nil {
		return err
	}
	defer d.Close()
	var seen []dataio.ID
	err = d.Walk(ctx, func(id dataio.ID, _ time.Time) error {
		seen = append(seen, id)
		return nil
	})
	if err != nil {
		return err
	}
	for id, versions := range h.acked {
		contents := legal(versions, c.After)
		got, err := whole(ctx, d, id)
		switch {
		case err == nil && !slices.ContainsFunc(contents, func(c []byte) bool { return c != nil && bytes.Equal(c, got) }):
			return fmt.Errorf("%s has %d bytes that it may not have", id, len(got))
		case errors.Is(err, dataio.ErrNotFound), errors.Is(err, dataio.ErrCorrupted):
			if !slices.ContainsFunc(contents, func(c []byte) bool { return c == nil }) {
				return fmt.Errorf("%s was acknowledged: %w", id, err)
			}
			// Torn: found, and removed by who knows better.
			if errors.Is(err, dataio.ErrCorrupted) {
				if !slices.Contains(seen, id) {
					return fmt.Errorf("%s is torn, and Walk doesn't find it", id)
				}
				if err := d.Remove(ctx, id); err != nil {
					return err
				}
			}
			if err := write(ctx, d, id, []byte("again"), 5); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "payload", "*", "*.new"))
	if err != nil || len(left) > 0 {
		return fmt.Errorf("replacements were left: %q (%w)", left, err)
	}
	return nil
}

// whole reads a payload and compares it with its checksums.
func whole(ctx context.Context, d *dataio.Drive, id dataio.ID) ([]byte, error) {
	f, err := d.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(f.Verified(ctx, 0, -1))
	return b.Bytes(), err
}

// TestPowerCut loses power at every operation of what a drive can do. What was
// acknowledged is there whole, what wasn't is there whole or not at all, and a
// payload that was being replaced is the old one or the new.
func TestPowerCut(t *testing.T) {
	a, b, c := dataio.ID{0xab, 1}, dataio.ID{0xab, 2}, dataio.ID{0xcd, 1}
	old := random(2000, 9)
	before := func(d *dataio.Drive) {
		if err := write(t.Context(), d, c, old, int64(len(old))); err != nil {
			t.Fatal(err)
		}
	}
	kept := version{content: old}
	for name, do := range map[string]func(h *history){
		"put": func(h *history) { h.puts(t, a, random(3000, 1)) },
		"puts": func(h *history) {
			h.puts(t, a, random(1000, 1))
			h.puts(t, b, random(1<<20+5, 2))
			h.puts(t, dataio.ID{0xcd, 2}, random(1, 3))
		},
		"unknown size": func(h *history) {
			content := random(3000, 1)
			h.does(t, a, content, func() error { return write(t.Context(), h.drive, a, content, -1) })
		},
		"replace":       func(h *history) { h.replaces(t, c, random(3000, 2)) },
		"replace twice": func(h *history) { h.replaces(t, c, random(3000, 2)); h.replaces(t, c, random(100, 3)) },
		"put and replace": func(h *history) {
			h.puts(t, a, random(1000, 1))
			h.replaces(t, a, random(1000, 2))
			h.puts(t, b, random(10, 3))
		},
		"remove": func(h *history) {
			h.does(t, c, nil, func() error { return h.drive.Remove(t.Context(), c) })
		},
		"abort": func(h *history) {
			w, err := h.drive.CreateReplacement(t.Context(), c, 5)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write([]byte("12345"))
			if err := errors.Join(err, w.Abort()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := record(t, before, func(h *history) {
				h.acked[c] = []version{kept}
				do(h)
			})
			states, err := h.check(t, rand.Uint64())
			if err != nil {
				t.Error(err)
			}
			if states < h.Ops() {
				t.Errorf("%d states of %d operations", states, h.Ops())
			}
			t.Logf("%d states of %d operations", states, h.Ops())
		})
	}
}

// TestEverySyncIsNeeded has the disk lie about one sync of a put or of a
// replacement at a time: then something acknowledged gets lost, which shows
// that the sync is needed, and that these tests would see it missing.
func TestEverySyncIsNeeded(t *testing.T) {
	id := dataio.ID{0xab, 1}
	for _, c := range []struct {
		name    string
		replace bool
		op      dataio.OpKind
		of      string
	}{
		{"content", false, dataio.OpSync, id.String()},
		{"name", false, dataio.OpSyncDir, "payload/ab"},
		{"directory's name", false, dataio.OpSyncDir, "payload"},
		{"content of a replacement", true, dataio.OpSync, id.String() + ".new"},
		{"name of a replacement", true, dataio.OpSyncDir, "payload/ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := func(d *dataio.Drive) {
				if c.replace {
					if err := write(t.Context(), d, id, random(2000, 1), 2000); err != nil {
						t.Fatal(err)
					}
				}
			}
			h := record(t, before, func(h *history) {
				h.Lies = func(op dataio.Op) bool { return op.Kind == c.op && strings.HasSuffix(op.Name, c.of) }
				if c.replace {
					h.acked[id] = []version{{content: random(2000, 1)}}
					h.replaces(t, id, random(3000, 2))
				} else {
					h.puts(t, id, random(3000, 2))
				}
			})
			if states, err := h.check(t, 1); err == nil {
				t.Errorf("in %d states nothing is missing", states)
			} else {
				t.Log(err)
			}
		})
	}
}
