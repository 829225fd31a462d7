package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// replace writes a replacement and commits it.
func replace(ctx context.Context, d *dataio.Drive, id dataio.ID, content []byte) error {
	w, err := d.CreateReplacement(ctx, id, int64(len(content)))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		return err
	}
	_, err = w.Commit(ctx)
	return err
}

func TestReplacement(t *testing.T) {
	d := open(t, t.TempDir(), options())
	id := put(t, d, []byte("old"))
	before, err := d.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	w, err := d.CreateReplacement(t.Context(), id, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, d, id); string(got) != "old" || err != nil {
		t.Errorf("before it was committed the payload is %q (%v)", got, err)
	}
	if got := payloads(t, d); !slices.Equal(got, []dataio.ID{id}) {
		t.Errorf("Walk sees %v", got)
	}
	_, again := d.CreateReplacement(t.Context(), id, 3)
	_, create := d.Create(t.Context(), id, 3)
	wantErr(t, again, id.String(), dataio.ErrExists)
	wantErr(t, create, id.String(), dataio.ErrExists)
	if again == nil || create == nil {
		t.Error("it is written twice at a time")
	}
	written, err := w.Commit(t.Context())
	if err != nil || written.SizeBytes != 3 {
		t.Fatalf("committed %+v (%v)", written, err)
	}
	if got, err := get(t, d, id); string(got) != "new" || err != nil {
		t.Errorf("the payload is %q (%v)", got, err)
	}
	old := make([]byte, 3)
	if _, err := before.ReadAt(old, 0); string(old) != "old" || err != nil {
		t.Errorf("who had it open reads %q (%v)", old, err)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if left := files(t, d); len(left) != 1 {
		t.Errorf("left behind: %q", left)
	}
}

// TestReplacementOfDamage replaces what is damaged, cut off, or gone.
func TestReplacementOfDamage(t *testing.T) {
	d := open(t, t.TempDir(), options())
	content := random(1000, 1)
	for name, damage := range map[string]func(path string) error{
		"a bit":  func(path string) error { flip(t, path, 5); return nil },
		"footer": func(path string) error { return os.Truncate(path, 1010) },
		"empty":  func(path string) error { return os.Truncate(path, 0) },
		"gone":   os.Remove,
	} {
		id := put(t, d, content)
		if err := damage(payloadPath(d, id)); err != nil {
			t.Fatal(err)
		}
		if err := replace(t.Context(), d, id, content); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := get(t, d, id); !bytes.Equal(got, content) || err != nil {
			t.Errorf("%s: %d bytes came back (%v)", name, len(got), err)
		}
	}
	// In a directory that isn't there either.
	if err := replace(t.Context(), d, dataio.ID{0xee, 1}, content); err != nil {
		t.Error(err)
	}
}

// TestFailingReplacement fails each operation of a replacement in turn: what
// was there is still there, or, from the rename on, the new one is.
func TestFailingReplacement(t *testing.T) {
	id := dataio.ID{0xab, 7}
	name := "payload/ab/" + id.String() + ".new"
	for _, c := range []struct {
		fault datatest.Fault
		kind  error
		state dataio.State
		want  string
	}{
		{datatest.Fault{Op: dataio.OpRemove, Name: name, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, "old"},
		{datatest.Fault{Op: dataio.OpCreate, Name: name, Err: syscall.EROFS}, dataio.ErrReadOnly, dataio.ReadOnly, "old"},
		{datatest.Fault{Op: dataio.OpAllocate, Name: name, Err: syscall.ENOSPC}, dataio.ErrNoSpace, dataio.Online, "old"},
		{datatest.Fault{Op: dataio.OpWrite, Name: name, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, "old"},
		{datatest.Fault{Op: dataio.OpWrite, Name: name, Skip: 1, Err: syscall.ENOSPC}, dataio.ErrNoSpace, dataio.Online, "old"},
		{datatest.Fault{Op: dataio.OpSync, Name: name, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, "old"},
		{datatest.Fault{Op: dataio.OpRename, Name: name, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, "old"},
		{datatest.Fault{Op: dataio.OpRename, Name: name, Err: syscall.ENOSPC}, dataio.ErrNoSpace, dataio.Online, "old"},
		{datatest.Fault{Op: dataio.OpSyncDir, Name: "payload/ab", Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, "new"},
	} {
		t.Run(fmt.Sprintf("%v by %v after %d", c.fault.Op, c.fault.Err, c.fault.Skip), func(t *testing.T) {
			d, faults := faulty(t)
			if err := write(t.Context(), d, id, []byte("old"), 3); err != nil {
				t.Fatal(err)
			}
			faults.Add(c.fault)
			err := replace(t.Context(), d, id, []byte("new"))
			if err == nil {
				t.Error("it was committed")
			}
			wantErr(t, err, id.String(), c.kind, c.fault.Err)
			if d.State() != c.state {
				t.Errorf("the drive is %v", d.State())
			}
			if got, err := get(t, d, id); string(got) != c.want || err != nil {
				t.Errorf("the payload is %q (%v), want %q", got, err, c.want)
			}
			if left := files(t, d); len(left) != 1 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestOrderOfReplacement pins the recipe: what is renamed was synced before.
func TestOrderOfReplacement(t *testing.T) {
	d, faults := faulty(t)
	id := dataio.ID{0xab, 1}
	if err := write(t.Context(), d, id, []byte("old"), 3); err != nil {
		t.Fatal(err)
	}
	faults.Ops()
	if err := replace(t.Context(), d, id, []byte("new")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, op := range faults.Ops() {
		if op.Kind != dataio.OpUsage {
			got = append(got, fmt.Sprintf("%v %s %s", op.Kind, op.Name, op.To))
		}
	}
	name := "payload/ab/" + id.String()
	want := []string{
		"remove " + name + ".new ", // what a crash may have left
		"create " + name + ".new ",
		"allocate " + name + ".new ",
		"write " + name + ".new ",
		"write " + name + ".new ",
		"sync " + name + ".new ",
		"rename " + name + ".new " + name,
		"syncdir payload/ab ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// TestRemoveWhileReplacing: what was removed doesn't come back.
func TestRemoveWhileReplacing(t *testing.T) {
	d := open(t, t.TempDir(), options())
	id := put(t, d, []byte("old"))
	w, err := d.CreateReplacement(t.Context(), id, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(t.Context())
	if err == nil {
		t.Error("what was removed is back")
	}
	wantErr(t, err, id.String(), dataio.ErrNotFound)
	if left := files(t, d); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestLeftoverOfReplacement: a crash left the beginning of one, which is never
// seen, and which Walk or the next replacement removes.
func TestLeftoverOfReplacement(t *testing.T) {
	d := open(t, t.TempDir(), options())
	id, other := put(t, d, []byte("old")), put(t, d, []byte("old"))
	busy, err := d.CreateReplacement(t.Context(), other, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Abort()
	for range 2 {
		if err := os.WriteFile(payloadPath(d, id)+".new", []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
		seen := 0
		if err := d.Walk(t.Context(), func(dataio.ID, time.Time) error { seen++; return nil }); err != nil || seen != 2 {
			t.Errorf("Walk sees %d payloads (%v)", seen, err)
		}
		if left := files(t, d); len(left) != 3 { // the one that is being written among them
			t.Errorf("left: %q", left)
		}
	}
	if err := os.WriteFile(payloadPath(d, id)+".new", []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replace(t.Context(), d, id, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, d, id); string(got) != "new" || err != nil {
		t.Errorf("the payload is %q (%v)", got, err)
	}
	if _, err := busy.Write([]byte("new")); err != nil {
		t.Error(err)
	}
	if _, err := busy.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	// A name that only looks like one stays.
	if err := errors.Join(os.WriteFile(payloadPath(d, id)+".new.new", nil, 0o600), d.Close()); err != nil {
		t.Fatal(err)
	}
	d = open(t, d.Path(), options())
	if n := len(payloads(t, d)); n != 2 {
		t.Errorf("%d payloads", n)
	}
	if left := files(t, d); len(left) != 3 {
		t.Errorf("left: %q", left)
	}
}
