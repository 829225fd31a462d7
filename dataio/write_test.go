package dataio_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// faulty opens a drive with a file system that fails on request.
func faulty(t testing.TB) (*dataio.Drive, *datatest.Faults) {
	t.Helper()
	faults := new(datatest.Faults)
	o := options()
	o.Interceptor = faults
	return open(t, t.TempDir(), o), faults
}

// files lists the names below payload/, directories excepted.
func files(t testing.TB, d *dataio.Drive) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(d.Path(), "payload", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWriteAndRead(t *testing.T) {
	d := open(t, t.TempDir(), options())
	const mib = 1 << 20
	for _, size := range []int{0, 1, 511, mib - 1, mib, mib + 1, 3 * mib, 3*mib + 12345} {
		for _, announced := range []int64{int64(size), -1} {
			t.Run(fmt.Sprintf("%d of %d", size, announced), func(t *testing.T) {
				content := random(size, byte(size))
				id := dataio.NewID()
				w, err := d.Create(t.Context(), id, announced)
				if err != nil {
					t.Fatal(err)
				}
				defer w.Abort()
				for rest := content; len(rest) > 0; {
					n := min(len(rest), 300_007)
					if _, err := w.Write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				got, err := w.Commit(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				want := dataio.Written{SizeBytes: int64(size), CRC32C: crc32.Checksum(content, castagnoli)}
				if got != want {
					t.Errorf("committed %+v, want %+v", got, want)
				}
				f, err := d.Open(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if f.SizeBytes() != want.SizeBytes || f.CRC32C() != want.CRC32C || f.ID() != id || f.ModTime().IsZero() {
					t.Errorf("opened %d bytes, CRC32C %08x, id %s, %s", f.SizeBytes(), f.CRC32C(), f.ID(), f.ModTime())
				}
				if back, err := get(t, d, id); !bytes.Equal(back, content) || err != nil {
					t.Errorf("%d other bytes came back (%v)", len(back), err)
				}
			})
		}
	}
}

// TestOrderOfDurability pins the recipe: content before name before the
// directory's name, the last only once for each directory.
func TestOrderOfDurability(t *testing.T) {
	d, faults := faulty(t)
	ids := []dataio.ID{{0xab, 1}, {0xab, 2}}
	var got [][]string
	for _, id := range ids {
		if err := write(t.Context(), d, id, make([]byte, 10), 10); err != nil {
			t.Fatal(err)
		}
		var ops []string
		for _, op := range faults.Ops() {
			if op.Kind != dataio.OpUsage {
				ops = append(ops, fmt.Sprintf("%v %s %d+%d", op.Kind, op.Name, op.Offset, op.Bytes))
			}
		}
		got = append(got, ops)
	}
	name := func(i int) string { return "payload/ab/" + ids[i].String() }
	common := func(i int) []string {
		return []string{
			"create " + name(i) + " 0+0",
			"allocate " + name(i) + " 0+62",
			"write " + name(i) + " 0+5",
			"write " + name(i) + " 5+5",
			"write " + name(i) + " 10+52",
			"sync " + name(i) + " 0+0",
			"syncdir payload/ab 0+0",
		}
	}
	want := [][]string{
		slices.Concat([]string{"mkdir payload/ab 0+0"}, common(0), []string{"syncdir payload 0+0"}),
		common(1),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// TestFailingFileSystem fails each operation of a put in turn. Whichever it is,
// nothing remains, the error says what and where, and the drive's state is what
// the package documentation promises.
func TestFailingFileSystem(t *testing.T) {
	id := dataio.ID{0xab, 7}
	sub, name := "payload/ab", "payload/ab/"+id.String()
	for _, c := range []struct {
		fault  datatest.Fault
		kind   error
		state  dataio.State
		counts bool
	}{
		{datatest.Fault{Op: dataio.OpMkdir, Name: sub, Err: syscall.ENOSPC}, dataio.ErrNoSpace, dataio.Online, false},
		{datatest.Fault{Op: dataio.OpMkdir, Name: sub, Err: syscall.EROFS}, dataio.ErrReadOnly, dataio.ReadOnly, true},
		{datatest.Fault{Op: dataio.OpCreate, Name: name, Err: syscall.EMFILE}, syscall.EMFILE, dataio.Online, true},
		{datatest.Fault{Op: dataio.OpCreate, Name: name, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, true},
		{datatest.Fault{Op: dataio.OpAllocate, Name: name, Err: syscall.ENOSPC}, dataio.ErrNoSpace, dataio.Online, false},
		{datatest.Fault{Op: dataio.OpWrite, Name: name, Err: syscall.ENOSPC}, dataio.ErrNoSpace, dataio.Online, false},
		{datatest.Fault{Op: dataio.OpWrite, Name: name, Skip: 1, Err: syscall.ENOSPC}, dataio.ErrNoSpace, dataio.Online, false},
		{datatest.Fault{Op: dataio.OpWrite, Name: name, Skip: 1, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, true},
		{datatest.Fault{Op: dataio.OpWrite, Name: name, Skip: 2, Err: syscall.EDQUOT}, dataio.ErrNoSpace, dataio.Online, false},
		{datatest.Fault{Op: dataio.OpSync, Name: name, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, true},
		{datatest.Fault{Op: dataio.OpSync, Name: name, Err: syscall.EIO, Done: true}, dataio.ErrSuspect, dataio.Suspect, true},
		{datatest.Fault{Op: dataio.OpSyncDir, Name: sub, Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, true},
		{datatest.Fault{Op: dataio.OpSyncDir, Name: "payload", Err: syscall.EIO}, dataio.ErrSuspect, dataio.Suspect, true},
	} {
		t.Run(fmt.Sprintf("%v %s by %v after %d", c.fault.Op, c.fault.Name, c.fault.Err, c.fault.Skip), func(t *testing.T) {
			d, faults := faulty(t)
			faults.Add(c.fault)
			err := write(t.Context(), d, id, random(100, 1), 100)
			if err == nil {
				t.Fatal("the payload was committed")
			}
			wantErr(t, err, id.String(), c.kind, c.fault.Err)
			wantErr(t, err, d.Path())
			if left := files(t, d); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if d.State() != c.state || d.Errors() > 0 != c.counts {
				t.Errorf("state %v and %d errors, want %v and errors: %t", d.State(), d.Errors(), c.state, c.counts)
			}
			if n := count(faults.Ops(), c.fault); n != c.fault.Skip+1 {
				t.Errorf("the operation was tried %d times, want %d", n, c.fault.Skip+1)
			}
			err = write(t.Context(), d, id, random(100, 1), 100)
			if c.state == dataio.Online && err != nil {
				t.Errorf("the next put failed: %v", err)
			}
			if c.state != dataio.Online {
				wantErr(t, err, id.String(), c.kind)
				if err == nil {
					t.Errorf("a drive that is %v took a payload", c.state)
				}
			}
		})
	}
}

// count counts the operations that a fault is about.
func count(ops []dataio.Op, f datatest.Fault) int {
	n := 0
	for _, op := range ops {
		if op.Kind == f.Op && op.Name == f.Name {
			n++
		}
	}
	return n
}

func TestSuspectDriveReadsAndRemoves(t *testing.T) {
	dir := t.TempDir()
	faults := new(datatest.Faults)
	o := options()
	o.Interceptor = faults
	var states []string
	o.Events.StateChanged = func(_ *dataio.Drive, from, to dataio.State, cause error) {
		states = append(states, fmt.Sprintf("%v %v %t", from, to, errors.Is(cause, syscall.EIO)))
	}
	var failed []dataio.OpKind
	o.Events.Failed = func(_ *dataio.Drive, op dataio.Op, _ error) { failed = append(failed, op.Kind) }
	d, err := dataio.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	kept, removed := put(t, d, []byte("kept")), put(t, d, []byte("removed"))
	faults.Add(datatest.Fault{Op: dataio.OpSync, Err: syscall.EIO})
	if err := write(t.Context(), d, dataio.NewID(), []byte("lost"), 4); !errors.Is(err, dataio.ErrSuspect) {
		t.Fatalf("a failed sync is %v", err)
	}
	if got, err := get(t, d, kept); string(got) != "kept" || err != nil {
		t.Errorf("payload is %q (%v)", got, err)
	}
	if err := d.Remove(t.Context(), removed); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(states, []string{"online suspect true", "suspect offline false"}) || !slices.Equal(failed, []dataio.OpKind{dataio.OpSync}) {
		t.Errorf("events: states %q, failed %v", states, failed)
	}
	again := open(t, dir, options())
	if got := payloads(t, again); !slices.Equal(got, []dataio.ID{kept}) || again.State() != dataio.Online {
		t.Errorf("opened again it is %v and holds %v, want %v", again.State(), got, kept)
	}
}

// TestSuspectSpreads has one sync fail while another writer waits for its own,
// which succeeds.
func TestSuspectSpreads(t *testing.T) {
	d, faults := faulty(t)
	idle, err := d.Create(t.Context(), dataio.NewID(), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Abort()
	slow, release := make(chan struct{}), make(chan struct{})
	faults.Add(datatest.Fault{Op: dataio.OpSyncDir, Wait: notify(slow), Done: true})
	faults.Add(datatest.Fault{Op: dataio.OpSyncDir, Name: "payload", Wait: release, Done: true})
	faults.Add(datatest.Fault{Op: dataio.OpSync, Skip: 1, Err: syscall.EIO})
	committed := make(chan error, 1)
	go func() { committed <- write(t.Context(), d, dataio.NewID(), nil, 0) }()
	<-slow
	if err := write(t.Context(), d, dataio.NewID(), nil, 0); !errors.Is(err, dataio.ErrSuspect) {
		t.Errorf("a failed sync is %v", err)
	}
	close(release)
	if err := <-committed; !errors.Is(err, dataio.ErrSuspect) {
		t.Errorf("a commit beside a failed sync is %v", err)
	}
	if _, err := idle.Write([]byte("x")); !errors.Is(err, dataio.ErrSuspect) {
		t.Errorf("a write after a failed sync is %v", err)
	}
	if left := files(t, d); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestWrongSize(t *testing.T) {
	d := open(t, t.TempDir(), options())
	for _, n := range []int{0, 9, 11} {
		err := write(t.Context(), d, dataio.NewID(), make([]byte, n), 10)
		if err == nil {
			t.Errorf("%d bytes of 10 were committed", n)
		}
		wantErr(t, err, "10", dataio.ErrSize)
	}
	_, err := d.Create(t.Context(), dataio.NewID(), dataio.MaxPayloadBytes+1)
	wantErr(t, err, "", dataio.ErrSize)
	_, err = d.Create(t.Context(), dataio.NewID(), math.MaxInt64)
	wantErr(t, err, "", dataio.ErrSize)
	if _, err := d.Create(t.Context(), dataio.ID{}, 1); err == nil {
		t.Error("the zero id was accepted")
	}
	if left := files(t, d); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestFullDrive(t *testing.T) {
	probe := open(t, t.TempDir(), options())
	usage, err := probe.Usage()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("up to the reserve", func(t *testing.T) {
		o := options()
		o.ReserveBytes = usage.TotalBytes
		d := open(t, t.TempDir(), o)
		for _, size := range []int64{0, 1, 1 << 30, -1} {
			_, err := d.Create(t.Context(), dataio.NewID(), size)
			if err == nil {
				t.Fatal("a payload was created")
			}
			wantErr(t, err, d.Path(), dataio.ErrNoSpace, dataio.ErrReadOnly)
		}
		if d.State() != dataio.ReadOnly || d.Errors() != 0 || len(files(t, d)) > 0 {
			t.Errorf("state %v, %d errors, files %q", d.State(), d.Errors(), files(t, d))
		}
	})
	t.Run("for this payload", func(t *testing.T) {
		// However large the drive is, about 32 GiB of it can be used.
		o := options()
		o.ReserveBytes = max(0, usage.FreeBytes-32<<30)
		d := open(t, t.TempDir(), o)
		_, err := d.Create(t.Context(), dataio.NewID(), dataio.MaxPayloadBytes)
		if err == nil {
			t.Fatal("a payload was created")
		}
		wantErr(t, err, "needed", dataio.ErrNoSpace)
		if errors.Is(err, dataio.ErrReadOnly) || d.State() != dataio.Online || len(files(t, d)) > 0 {
			t.Errorf("error %v, state %v, files %q", err, d.State(), files(t, d))
		}
		put(t, d, []byte("small"))
	})
	t.Run("claims", func(t *testing.T) {
		// Without allocation, what is promised to one isn't promised to another.
		faults := new(datatest.Faults)
		o := options()
		o.Interceptor = faults
		o.ReserveBytes = max(0, usage.FreeBytes-32<<30)
		d := open(t, t.TempDir(), o)
		free := min(usage.FreeBytes, 32<<30)
		faults.Add(datatest.Fault{Op: dataio.OpAllocate, Times: -1})
		first, err := d.Create(t.Context(), dataio.NewID(), free*3/4)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Create(t.Context(), dataio.NewID(), free*3/4)
		if err == nil {
			t.Fatal("the same space was promised twice")
		}
		wantErr(t, err, "needed", dataio.ErrNoSpace)
		if err := first.Abort(); err != nil {
			t.Fatal(err)
		}
		second, err := d.Create(t.Context(), dataio.NewID(), free*3/4)
		if err != nil {
			t.Fatalf("an aborted writer kept its claim: %v", err)
		}
		if err := second.Abort(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestConcurrentPuts has writers meet in the same directory and on the same id.
func TestConcurrentPuts(t *testing.T) {
	d, faults := faulty(t)
	faults.Add(datatest.Fault{Op: dataio.OpSync, Times: -1}) // for speed
	const workers, ids = 8, 24
	var mu sync.Mutex
	won := map[dataio.ID]int{}
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := range ids {
				id := dataio.ID{1 + byte(i/8), byte(i)}
				err := write(t.Context(), d, id, bytes.Repeat([]byte{byte(worker)}, 1000), 1000)
				if err != nil {
					wantErr(t, err, id.String(), dataio.ErrExists)
					continue
				}
				mu.Lock()
				won[id]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(won) != ids || len(payloads(t, d)) != ids {
		t.Errorf("%d ids were committed and %d are there, want %d", len(won), len(payloads(t, d)), ids)
	}
	for id, times := range won {
		content, err := get(t, d, id)
		if times != 1 || err != nil || len(content) != 1000 || !bytes.Equal(content, bytes.Repeat(content[:1], 1000)) {
			t.Errorf("%s was committed %d times and reads %d bytes (%v)", id, times, len(content), err)
		}
	}
}

// notify returns a channel from which the first receive closes c.
func notify(c chan struct{}) <-chan struct{} {
	n := make(chan struct{})
	go func() {
		n <- struct{}{}
		close(c)
	}()
	return n
}
