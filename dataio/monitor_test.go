package dataio_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// journal is the states that a drive had, and since when.
type journal struct {
	began time.Time

	mu     sync.Mutex // guards what follows
	states []string
	causes []error
}

func (j *journal) changed(_ *dataio.Drive, _, to dataio.State, cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.states = append(j.states, fmt.Sprintf("%v after %v", to, time.Since(j.began)))
	j.causes = append(j.causes, cause)
}

// want compares the states, and begins anew.
func (j *journal) want(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if diff := cmp.Diff(want, j.states); diff != "" {
		t.Errorf("states (-want +got):\n%s\ncauses: %v", diff, j.causes)
	}
	j.states, j.causes = nil, nil
	j.began = time.Now()
}

// monitored runs a test on the virtual clock with a drive and its Monitor.
func monitored(t *testing.T, change func(*dataio.Options), test func(t *testing.T, d *dataio.Drive, faults *datatest.Faults, j *journal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{began: time.Now()}
		faults := new(datatest.Faults)
		o := options()
		o.Interceptor = faults
		o.Events.StateChanged = j.changed
		if change != nil {
			change(&o)
		}
		d := open(t, t.TempDir(), o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Monitor(ctx) }()
		test(t, d, faults, j)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Monitor returned %v", err)
		}
		if _, err := os.Stat(filepath.Join(d.Path(), "probe")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a probe is left: %v", err)
		}
	})
}

// TestStall has a drive hang for 10 s, which makes it Degraded, and for a
// minute, which makes it Offline: nothing is let wait for it then, and it is
// back by itself.
func TestStall(t *testing.T) {
	for _, c := range []struct {
		hangs time.Duration
		want  []string
		while dataio.State
	}{
		{10 * time.Second, []string{"degraded after 2s"}, dataio.Degraded},
		{time.Minute, []string{"degraded after 2s", "offline after 31s"}, dataio.Offline},
	} {
		t.Run(c.hangs.String(), func(t *testing.T) {
			monitored(t, nil, func(t *testing.T, d *dataio.Drive, faults *datatest.Faults, j *journal) {
				time.Sleep(20*time.Second + 500*time.Millisecond)
				id := put(t, d, random(100, 1))
				j.want(t)
				time.Sleep(500 * time.Millisecond)
				j.want(t)
				release := make(chan struct{})
				for op := dataio.OpMkdir; op <= dataio.OpUsage; op++ {
					faults.Add(datatest.Fault{Op: op, Times: -1, Wait: release, Done: true})
				}
				hung := make(chan error, 1)
				go func() { hung <- write(t.Context(), d, dataio.NewID(), random(100, 2), 100) }()
				time.Sleep(c.hangs - time.Second)
				j.want(t, c.want...)
				if d.State() != c.while {
					t.Errorf("it is %v", d.State())
				}
				if c.while == dataio.Offline {
					_, createErr := d.Create(t.Context(), dataio.NewID(), 1)
					_, openErr := d.Open(t.Context(), id)
					for _, err := range []error{createErr, openErr, d.Remove(t.Context(), id)} {
						if err == nil {
							t.Error("a drive that has stalled did something")
						}
						wantErr(t, err, "stalled", dataio.ErrOffline)
					}
				}
				time.Sleep(time.Second)
				close(release)
				faults.Clear()
				err := <-hung
				if c.while == dataio.Degraded && err != nil {
					t.Errorf("the put that had to wait: %v", err)
				}
				if c.while == dataio.Offline {
					wantErr(t, err, "stalled", dataio.ErrOffline)
				}
				began := time.Now()
				for d.State() != dataio.Online && time.Since(began) < time.Minute {
					time.Sleep(time.Second)
				}
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("it was well again after %v", took)
				}
				if got, err := get(t, d, id); len(got) != 100 || err != nil {
					t.Errorf("%d bytes came back (%v)", len(got), err)
				}
				put(t, d, random(100, 3))
			})
		})
	}
}

// slowly makes each operation of a kind on a payload take a while.
type slowly struct {
	dataio.Interceptor
	op   dataio.OpKind
	took time.Duration
	mu   sync.Mutex // guards on
	on   bool
}

func (s *slowly) Intercept(op dataio.Op, do func() error) error {
	s.mu.Lock()
	slow := s.on && op.Kind == s.op && op.Name != "probe"
	s.mu.Unlock()
	if slow {
		<-time.After(s.took)
	}
	return s.Interceptor.Intercept(op, do)
}

func (s *slowly) turn(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
}

// TestSlow has a drive's syncs take long, none of them long enough to be seen
// under way but together.
func TestSlow(t *testing.T) {
	slow := &slowly{op: dataio.OpSync, took: 400 * time.Millisecond}
	change := func(o *dataio.Options) {
		slow.Interceptor = o.Interceptor
		o.Interceptor = slow
		o.Slow.Degraded = 300 * time.Millisecond
	}
	monitored(t, change, func(t *testing.T, d *dataio.Drive, _ *datatest.Faults, j *journal) {
		slow.turn(true)
		for range 40 {
			put(t, d, nil)
		}
		if d.State() != dataio.Degraded {
			t.Errorf("it is %v", d.State())
		}
		put(t, d, nil) // it works nevertheless
		slow.turn(false)
		time.Sleep(30 * time.Second)
		if d.State() != dataio.Online {
			t.Errorf("it is %v", d.State())
		}
		if n := len(j.states); n != 2 {
			t.Errorf("%d changes of state: %q", n, j.states)
		}
	})
}

// TestLargeSyncsAreNotSlow syncs what takes a disk a while.
func TestLargeSyncsAreNotSlow(t *testing.T) {
	slow := &slowly{op: dataio.OpSync, took: 1900 * time.Millisecond, on: true}
	change := func(o *dataio.Options) {
		slow.Interceptor = o.Interceptor
		o.Interceptor = slow
	}
	monitored(t, change, func(t *testing.T, d *dataio.Drive, faults *datatest.Faults, j *journal) {
		time.Sleep(time.Millisecond)
		slow.turn(true)
		large := make([]byte, 32<<20)
		if err := write(t.Context(), d, dataio.NewID(), large, int64(len(large))); err != nil {
			t.Fatal(err)
		}
		j.want(t)
	})
}

// TestIdleDriveFails has the disk of a drive that nobody uses fail.
func TestIdleDriveFails(t *testing.T) {
	for _, c := range []struct {
		fault datatest.Fault
		want  dataio.State
		after dataio.State // when it works again
	}{
		{datatest.Fault{Op: dataio.OpSync, Name: "probe", Err: syscall.EIO}, dataio.Suspect, dataio.Suspect},
		{datatest.Fault{Op: dataio.OpWrite, Name: "probe", Err: syscall.EIO}, dataio.Suspect, dataio.Suspect},
		{datatest.Fault{Op: dataio.OpRead, Name: "probe", Times: 1}, dataio.Suspect, dataio.Suspect}, // other bytes
		{datatest.Fault{Op: dataio.OpCreate, Name: "probe", Err: syscall.EROFS, Times: 5}, dataio.ReadOnly, dataio.Online},
		{datatest.Fault{Op: dataio.OpWrite, Name: "probe", Err: syscall.ENOSPC, Times: 5}, dataio.Online, dataio.Online},
		{datatest.Fault{Op: dataio.OpCreate, Name: "probe", Err: syscall.EMFILE, Times: 5}, dataio.Online, dataio.Online},
	} {
		t.Run(fmt.Sprintf("%v %v", c.fault.Op, c.fault.Err), func(t *testing.T) {
			monitored(t, nil, func(t *testing.T, d *dataio.Drive, faults *datatest.Faults, j *journal) {
				time.Sleep(500 * time.Millisecond)
				faults.Add(c.fault)
				time.Sleep(11 * time.Second)
				if d.State() != c.want {
					t.Errorf("it is %v, want %v", d.State(), c.want)
				}
				time.Sleep(time.Minute)
				if d.State() != c.after {
					t.Errorf("then it is %v, want %v", d.State(), c.after)
				}
				if len(j.causes) > 0 && c.fault.Err != nil && !errors.Is(j.causes[0], c.fault.Err) {
					t.Errorf("the cause is %v", j.causes[0])
				}
			})
		})
	}
}

// TestMountComesBack has the drive's path lead elsewhere for a while, with
// nobody using it.
func TestMountComesBack(t *testing.T) {
	monitored(t, nil, func(t *testing.T, d *dataio.Drive, _ *datatest.Faults, j *journal) {
		time.Sleep(500 * time.Millisecond)
		dir := d.Path()
		if err := errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if left := tree(t, dir); len(left) != 1 {
			t.Errorf("something was written beneath: %v", left)
		}
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		j.want(t, "offline after 1s", "online after 21s")
	})
}

// TestStalledProbe ends Monitor, and closes the drive, while a probe hangs.
func TestStalledProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := new(datatest.Faults)
		o := options()
		o.Interceptor = faults
		d, err := dataio.Open(t.Context(), t.TempDir(), o)
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		faults.Add(datatest.Fault{Op: dataio.OpSync, Name: "probe", Times: -1, Wait: release, Done: true})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Monitor(ctx) }()
		time.Sleep(time.Minute)
		if d.State() != dataio.Offline {
			t.Errorf("it is %v", d.State())
		}
		probes := 0
		for _, op := range faults.Ops() {
			if op.Kind == dataio.OpSync {
				probes++
			}
		}
		if probes != 1 {
			t.Errorf("%d probes are waiting", probes)
		}
		cancel()
		began := time.Now()
		<-ended
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Monitor ended after %v", took)
		}
		if err := d.Close(); err != nil {
			t.Errorf("close, where no payload is being written: %v", err)
		}
		if err := d.Monitor(t.Context()); !errors.Is(err, dataio.ErrOffline) {
			t.Errorf("the monitor of a closed drive: %v", err)
		}
		close(release)
		synctest.Wait()
	})
}

// TestCloseOfAStalledDrive closes a drive that doesn't answer: Close gives up,
// and the directory stays locked until the call has ended.
func TestCloseOfAStalledDrive(t *testing.T) {
	faults := new(datatest.Faults)
	o := options()
	o.Interceptor = faults
	o.Slow = dataio.Slow{Degraded: 10 * time.Millisecond, Offline: 100 * time.Millisecond}
	dir := t.TempDir()
	d, err := dataio.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	release, syncing := make(chan struct{}), make(chan struct{})
	faults.Add(datatest.Fault{Op: dataio.OpWrite, Skip: 2, Wait: notify(syncing), Done: true})
	faults.Add(datatest.Fault{Op: dataio.OpSync, Wait: release, Done: true})
	committed := make(chan error, 1)
	go func() { committed <- write(t.Context(), d, dataio.NewID(), nil, 0) }()
	<-syncing
	err = d.Close()
	if err == nil {
		t.Error("Close left a call under way and didn't say so")
	}
	wantErr(t, err, "sync payload/", dataio.ErrOffline)
	_, err = dataio.Open(t.Context(), dir, options())
	wantErr(t, err, dir, dataio.ErrLocked)
	close(release)
	if err := <-committed; err != nil {
		t.Error(err)
	}
	// What Close had begun ends now, and gives the directory free.
	for {
		again, err := dataio.Open(t.Context(), dir, options())
		if err == nil {
			if err := again.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, dataio.ErrLocked) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// TestTimeouts counts each operation that takes too long once: while it is under
// way, where it hangs, and when it ends, where nobody has looked meanwhile.
func TestTimeouts(t *testing.T) {
	monitored(t, nil, func(t *testing.T, d *dataio.Drive, faults *datatest.Faults, j *journal) {
		time.Sleep(500 * time.Millisecond)
		put(t, d, random(100, 1))
		if n := d.Timeouts(); n != 0 {
			t.Errorf("%d timeouts of a drive that is well", n)
		}
		release := make(chan struct{})
		faults.Add(datatest.Fault{Op: dataio.OpSync, Name: "payload/*/*", Wait: release, Done: true})
		hung := make(chan error, 1)
		go func() { hung <- write(t.Context(), d, dataio.NewID(), random(100, 2), 100) }()
		time.Sleep(5 * time.Second)
		if n := d.Timeouts(); n != 1 {
			t.Errorf("%d timeouts while a sync hangs", n)
		}
		close(release)
		if err := <-hung; err != nil {
			t.Error(err)
		}
		if n := d.Timeouts(); n != 1 || d.Errors() != 0 {
			t.Errorf("%d timeouts and %d errors when it has ended", n, d.Errors())
		}
	})
}

// TestProbe is told how long a drive takes, what is wrong with it, and doesn't
// wait for one that hangs.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := new(datatest.Faults)
		o := options()
		o.Interceptor = faults
		d := open(t, t.TempDir(), o)
		delay := make(chan struct{})
		faults.Add(datatest.Fault{Op: dataio.OpSync, Name: "asked", Wait: delay, Done: true})
		time.AfterFunc(70*time.Millisecond, func() { close(delay) })
		if took, err := d.Probe(t.Context()); took != 70*time.Millisecond || err != nil {
			t.Errorf("it took %v, %v", took, err)
		}
		if _, err := os.Stat(filepath.Join(d.Path(), "asked")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its file is left: %v", err)
		}
		faults.Add(datatest.Fault{Op: dataio.OpRead, Name: "asked", Err: syscall.EIO})
		_, err := d.Probe(t.Context())
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("of a drive that can't be read: %v", err)
		}

		release := make(chan struct{})
		faults.Add(datatest.Fault{Op: dataio.OpWrite, Name: "asked", Wait: release, Done: true})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := d.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of a drive that hangs: %v", err)
		}
		_, err = d.Probe(t.Context())
		wantErr(t, err, "another probe", dataio.ErrOffline)
		close(release)
		synctest.Wait()
		if took, err := d.Probe(t.Context()); err != nil {
			t.Errorf("when it is back: %v, %v", took, err)
		}
	})
}
