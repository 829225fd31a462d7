package dataio_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/dataio"
)

// TestCopyOfADrive opens a drive and a copy of it.
func TestCopyOfADrive(t *testing.T) {
	parent := t.TempDir()
	first, second := filepath.Join(parent, "first"), filepath.Join(parent, "second")
	var set dataio.Set
	o := options()
	o.Set = &set
	d := open(t, first, o)
	id := put(t, d, []byte("kept"))
	if err := os.CopyFS(second, os.DirFS(first)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, second)
	if _, err := dataio.Open(t.Context(), second, o); err == nil {
		t.Fatal("a drive and its copy are open")
	} else {
		wantErr(t, err, second, dataio.ErrDuplicate)
		wantErr(t, err, first)
		wantErr(t, err, d.ID())
	}
	if diff := cmp.Diff(before, tree(t, second)); diff != "" {
		t.Errorf("the copy was changed (-before +after):\n%s", diff)
	}
	if got, err := get(t, d, id); string(got) != "kept" || err != nil {
		t.Errorf("payload is %q (%v)", got, err)
	}
	// Another drive is welcome, and the copy is when it is the only one.
	open(t, filepath.Join(parent, "third"), o)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	copied := open(t, second, o)
	if _, err := dataio.Open(t.Context(), first, o); err == nil {
		t.Error("a drive and its copy are open")
	}
	// Without a Set nobody looks.
	open(t, first, options())
	if err := copied.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSetForgetsWhatFailed: a drive that couldn't be opened doesn't keep others
// from its id.
func TestSetForgetsWhatFailed(t *testing.T) {
	dir := t.TempDir()
	var set dataio.Set
	o := options()
	o.Set = &set
	d := open(t, dir, o)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	payload := filepath.Join(dir, "payload")
	if err := os.Remove(payload); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(payload, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dataio.Open(t.Context(), dir, o); err == nil {
		t.Fatal("a file for the payload was accepted")
	}
	if err := os.Remove(payload); err != nil {
		t.Fatal(err)
	}
	open(t, dir, o)
}
