package datatest_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// TestRecorder records a few operations by hand and looks at every state that
// they could have left.
func TestRecorder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kept"), []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := datatest.NewRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	ok := func() error { return nil }
	for _, op := range []dataio.Op{
		{Kind: dataio.OpMkdir, Name: "d"},
		{Kind: dataio.OpCreate, Name: "d/a"},
		{Kind: dataio.OpWrite, Name: "d/a", Bytes: 2, Data: []byte("aa")},
		{Kind: dataio.OpSync, Name: "d/a"},
		{Kind: dataio.OpSyncDir, Name: "d"},
		{Kind: dataio.OpRead, Name: "d/a"}, // leaves nothing
		{Kind: dataio.OpSyncDir, Name: "."},
		{Kind: dataio.OpRename, Name: "d/a", To: "d/b"},
		{Kind: dataio.OpRemove, Name: "d/b"},
	} {
		if err := r.Intercept(op, ok); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Intercept(dataio.Op{Kind: dataio.OpSync, Name: "d/a"}, func() error { return syscall.EIO }); err != syscall.EIO {
		t.Errorf("an error became %v", err)
	}
	if r.Ops() != 8 {
		t.Errorf("%d operations were recorded, want 8", r.Ops())
	}
	got := make([]map[string]bool, r.Ops()+1)
	for c := range r.Crashes(rand.New(rand.NewPCG(1, 2)), 100) {
		var state []string
		for _, name := range slices.Sorted(maps.Keys(c.Files)) {
			if name != "kept" {
				state = append(state, fmt.Sprintf("%s=%s", name, c.Files[name]))
			}
		}
		if string(c.Files["kept"]) != "k" {
			t.Errorf("%d: what was there is %q", c.After, c.Files["kept"])
		}
		if got[c.After] == nil {
			got[c.After] = map[string]bool{}
		}
		got[c.After][strings.Join(state, " ")] = true
	}
	for after, want := range [][]string{
		{""},
		{"", "d="},
		{"", "d=", "d= d/a="},
		{"", "d=", "d= d/a=", "d= d/a=aa"},
		{"", "d=", "d= d/a=aa"},
		{"", "d= d/a=aa"},
		{"d= d/a=aa"},
		{"d= d/a=aa", "d= d/b=aa"},
		{"d=", "d= d/a=aa", "d= d/b=aa"},
	} {
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got[after]))); diff != "" {
			t.Errorf("after %d operations (-want +got):\n%s", after, diff)
		}
	}
}

// TestTornWrite: a write of several sectors is there by sectors, and what isn't
// is as it was.
func TestTornWrite(t *testing.T) {
	r, err := datatest.NewRecorder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data := []byte(strings.Repeat("x", 1000))
	for _, op := range []dataio.Op{
		{Kind: dataio.OpCreate, Name: "f"},
		{Kind: dataio.OpSyncDir, Name: "."},
		{Kind: dataio.OpWrite, Name: "f", Offset: 100, Bytes: 1000, Data: data}, // sectors end at 512 and 1024
	} {
		if err := r.Intercept(op, func() error { clear(data[:0]); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	clear(data) // a Recorder has its own
	states := map[string]bool{}
	for c := range r.Crashes(rand.New(rand.NewPCG(1, 2)), 200) {
		if c.After == 3 {
			states[string(c.Files["f"])] = true
		}
		if err := c.Restore(t.TempDir()); err != nil {
			t.Error(err)
		}
	}
	gap := strings.Repeat("\x00", 100)
	x := func(n int) string { return strings.Repeat("x", n) }
	zero := func(n int) string { return strings.Repeat("\x00", n) }
	for _, want := range []string{
		"", gap + x(412), gap + zero(412) + x(512), gap + zero(412+512) + x(76), gap + x(412+512), gap + x(1000),
		gap + x(412) + zero(512) + x(76), gap + zero(412) + x(512+76),
	} {
		if !states[want] {
			t.Errorf("a state of %d bytes is missing", len(want))
		}
		delete(states, want)
	}
	if len(states) > 0 {
		t.Errorf("%d states that can't be", len(states))
	}
}

// TestLies: a sync that the disk only acknowledges promises nothing.
func TestLies(t *testing.T) {
	r, err := datatest.NewRecorder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r.Lies = func(op dataio.Op) bool { return op.Kind == dataio.OpSync }
	for _, op := range []dataio.Op{
		{Kind: dataio.OpCreate, Name: "f"},
		{Kind: dataio.OpWrite, Name: "f", Bytes: 1, Data: []byte("x")},
		{Kind: dataio.OpSync, Name: "f"},
		{Kind: dataio.OpSyncDir, Name: "."},
	} {
		if err := r.Intercept(op, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	states := map[string]bool{}
	for c := range r.Crashes(rand.New(rand.NewPCG(1, 2)), 20) {
		if c.After == 4 {
			states[string(c.Files["f"])] = true
		}
	}
	if len(states) != 2 || !states[""] || !states["x"] {
		t.Errorf("states %q, want that the content is there, and that it isn't", slices.Collect(maps.Keys(states)))
	}
}
