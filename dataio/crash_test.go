package dataio_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

func TestNothingIsThereBeforeCommit(t *testing.T) {
	d := open(t, t.TempDir(), options())
	id := dataio.NewID()
	w, err := d.Create(t.Context(), id, 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	_, openErr := d.Open(t.Context(), id)
	_, createErr := d.Create(t.Context(), id, 4)
	wantErr(t, openErr, id.String(), dataio.ErrNotFound, fs.ErrNotExist)
	wantErr(t, d.Remove(t.Context(), id), id.String(), dataio.ErrNotFound)
	wantErr(t, createErr, id.String(), dataio.ErrExists)
	if got := payloads(t, d); len(got) > 0 {
		t.Errorf("Walk sees %v", got)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := payloads(t, d); !slices.Equal(got, []dataio.ID{id}) {
		t.Errorf("Walk sees %v, want %v", got, id)
	}
	_, createErr = d.Create(t.Context(), id, 4)
	wantErr(t, createErr, id.String(), dataio.ErrExists, fs.ErrExist)
	if err := errors.Join(w.Abort(), w.Abort()); err != nil {
		t.Error(err)
	}
	_, writeErr := w.Write([]byte("more"))
	_, commitErr := w.Commit(t.Context())
	if writeErr == nil || commitErr == nil {
		t.Errorf("a committed writer went on: %v, %v", writeErr, commitErr)
	}
	if got, err := get(t, d, id); string(got) != "data" || err != nil {
		t.Errorf("payload is %q (%v)", got, err)
	}
}

func TestCommitInAnEndedContext(t *testing.T) {
	d := open(t, t.TempDir(), options())
	w, err := d.Create(t.Context(), dataio.NewID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if left := files(t, d); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestCloseWaitsForACommit closes the drive while the disk hangs in a sync.
func TestCloseWaitsForACommit(t *testing.T) {
	d, faults := faulty(t)
	release, syncing := make(chan struct{}), make(chan struct{})
	faults.Add(datatest.Fault{Op: dataio.OpWrite, Skip: 2, Wait: notify(syncing), Done: true})
	faults.Add(datatest.Fault{Op: dataio.OpSync, Wait: release, Done: true})
	id := dataio.NewID()
	committed := make(chan error, 1)
	go func() { committed <- write(t.Context(), d, id, nil, 0) }()
	<-syncing
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("Close returned (%v) in the middle of a commit", err)
	default:
	}
	close(release)
	if err := errors.Join(<-committed, <-closed); err != nil {
		t.Fatal(err)
	}
	if got := payloads(t, open(t, d.Path(), options())); !slices.Equal(got, []dataio.ID{id}) {
		t.Errorf("the drive holds %v, want %v", got, id)
	}
}

func TestTornFileIsNoPayload(t *testing.T) {
	d := open(t, t.TempDir(), options())
	whole := put(t, d, random(100_000, 3))
	name := filepath.Join(d.Path(), "payload", whole.String()[:2], whole.String())
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		kind error
		file []byte
	}{
		{"empty", dataio.ErrCorrupted, nil},
		{"shorter than a footer", dataio.ErrCorrupted, content[:47]},
		{"cut off", dataio.ErrCorrupted, content[:len(content)-1]},
		{"allocated, not written", dataio.ErrCorrupted, make([]byte, len(content))},
		{"continued", dataio.ErrCorrupted, append(slices.Clone(content), 0)},
		{"shifted", dataio.ErrCorrupted, content[1:]},
		{"another version", dataio.ErrUnknownFormat, append(slices.Clone(content[:len(content)-1]), '2')},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(name, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := d.Open(t.Context(), whole)
			if err == nil {
				f.Close()
				t.Fatal("it was opened")
			}
			wantErr(t, err, whole.String(), c.kind)
		})
	}
	if got := payloads(t, d); !slices.Equal(got, []dataio.ID{whole}) {
		t.Errorf("Walk sees %v: a torn file must be found to be removed", got)
	}
	if err := d.Remove(t.Context(), whole); err != nil || len(files(t, d)) > 0 {
		t.Errorf("remove: %v, left %q", err, files(t, d))
	}
	wantErr(t, d.Remove(t.Context(), whole), whole.String(), dataio.ErrNotFound)
}
