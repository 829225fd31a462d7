package observability

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// toldDrive is a drive that answers at once, as it is.
type toldDrive struct{ drive Drive }

func (d toldDrive) Now() Drive { return withoutUsage(d.drive) }

func (d toldDrive) Usage() DriveUsage {
	return DriveUsage{d.drive.TotalBytes, d.drive.UsedBytes, d.drive.FreeBytes, d.drive.TotalInodes, d.drive.UsedInodes, d.drive.FreeInodes}
}

func withoutUsage(d Drive) Drive {
	d.answered(driveAnswer{})
	return d
}

func told(drives ...Drive) []DriveSource {
	sources := make([]DriveSource, len(drives))
	for i, d := range drives {
		sources[i] = toldDrive{d}
	}
	return sources
}

// livelyDrive counts its questions: UsedBytes is how often it was asked, Errors
// how often it was looked at. From its third question on it waits for release,
// unless that is nil.
type livelyDrive struct {
	id            string
	release       chan struct{}
	looked, asked atomic.Int64
}

func (d *livelyDrive) Now() Drive {
	return Drive{ID: d.id, Path: "/mnt/" + d.id, State: "online", Errors: d.looked.Add(1)}
}

func (d *livelyDrive) Usage() DriveUsage {
	asked := d.asked.Add(1)
	if asked > 2 && d.release != nil {
		<-d.release
	}
	return DriveUsage{UsedBytes: asked}
}

// TestDriveThatHangs stops neither the others nor what is known of it without
// asking, is asked once until it answers, and doesn't keep Run.
func TestDriveThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		well, hung := &livelyDrive{id: "well"}, &livelyDrive{id: "hung", release: make(chan struct{})}
		c := NewCollector(CollectorOptions{
			Node: "n1",
			Host: newHost(&scripted{
				devices: map[string]string{"/mnt/well": "sda1", "/mnt/hung": "sdb1"},
				script: func(n int, r *reading) {
					r.memory = &memoryBytes{used: float64(n)}
					r.disks = map[string]diskCounters{"sda1": {reads: uint64(5 * n)}, "sdb1": {reads: uint64(7 * n)}}
				},
			}),
			Drives: func() []DriveSource { return []DriveSource{hung, well} },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()

		time.Sleep(10*time.Second + 500*time.Millisecond)
		synctest.Wait()
		r := c.Resources()
		if r.Memory.Used.Current != 10 || len(r.Drives) != 2 {
			t.Fatalf("resources %+v", r)
		}
		looks := hung.looked.Load()
		if looks < 11 {
			t.Errorf("looked %d times at the one that hangs, in 10 s", looks)
		}
		if d := r.Drives[0]; d.UsedBytes != 2 || d.State != "online" || d.Errors != looks || d.Device != "sdb1" || d.ReadsPerSecond != 7 {
			t.Errorf("the one that hangs: %+v, want its last usage, and the rest of now", d)
		}
		if n := hung.asked.Load(); n != 3 {
			t.Errorf("the one that hangs was asked %d times, want 3", n)
		}
		if d := r.Drives[1]; d.UsedBytes != 11 || d.Device != "sda1" || d.ReadsPerSecond != 5 {
			t.Errorf("the other: %+v, want the usage of now", d)
		}

		// It answers once, and hangs again.
		hung.release <- struct{}{}
		advance(1)
		if d := c.Resources().Drives[0]; d.UsedBytes != 3 || hung.asked.Load() != 4 {
			t.Errorf("after its answer: %+v, asked %d times", d, hung.asked.Load())
		}

		ended := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(ended); took > time.Second {
			t.Errorf("Run returned after %s", took)
		}
		close(hung.release) // or its goroutine would be left behind
	})
}

// TestDriveOpenedAnew is asked, whatever the question to the one before it does
// (which hangs).
func TestDriveOpenedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		first, second := &livelyDrive{id: "a", release: release}, &livelyDrive{id: "a"}
		var now atomic.Pointer[livelyDrive]
		now.Store(first)
		c := runCollector(t, CollectorOptions{Node: "n1", Host: newHost(&scripted{}), Drives: func() []DriveSource {
			return []DriveSource{now.Load()}
		}})
		time.Sleep(5*time.Second + 500*time.Millisecond)
		if d := c.Resources().Drives[0]; d.UsedBytes != 2 {
			t.Errorf("%+v, want what it said before it hung", d)
		}
		now.Store(second)
		advance(4)
		if d := c.Resources().Drives[0]; d.UsedBytes != 4 {
			t.Errorf("%+v, want the usage of the new one", d)
		}
	})
}
