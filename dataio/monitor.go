package dataio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

const (
	// monitorEvery is how often Monitor looks at the operations under way and
	// at the free space.
	monitorEvery = time.Second
	// probeEvery is how often it has the drive write and read a small file,
	// and probeSoon how often if the drive isn't well.
	probeEvery = 10 * time.Second
	probeSoon  = 2 * time.Second
	// goodProbes in a row make a drive that was slow well again.
	goodProbes = 3

	probeName  = "probe"
	askedName  = "asked" // Probe's, which doesn't wait for Monitor's
	probeBytes = 4 << 10
)

// Monitor keeps the drive's state up to date until the context ends, whose
// error it returns, or the drive is closed. It looks at the free space and at
// where the path leads every second, so that a drive to which space, or its
// mount, came back is used again; it marks a drive as Degraded and then Offline
// by Slow, by the operations under way and those that ended; and it has the
// drive write, sync, read and remove a small file now and then, DRIVE/probe, so
// that a drive that nobody uses is known to work, and one that was slow is well
// after three of them in a row that weren't. A drive that was read-only is well
// when one could be written; one that is Suspect stays so.
//
// One Monitor runs for a drive. Without it nothing of this happens, but the
// bound StalledMax holds. A look that the kernel doesn't return from holds one
// goroutine, which outlives Monitor.
func (d *Drive) Monitor(ctx context.Context) error {
	m := monitor{d: d, looked: make(chan look, 1)}
	tick := time.NewTicker(monitorEvery)
	defer tick.Stop()
	for {
		if err := d.present("monitor", ID{}); err != nil {
			m.leave()
			return err
		}
		m.watch(time.Now())
		m.d.idle.expire(time.Now())
		m.send(time.Now())
		select {
		case <-ctx.Done():
			m.leave()
			return ctx.Err()
		case l := <-m.looked:
			m.away = false
			m.judge(l)
			// The next look is for the next tick.
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		case <-tick.C:
		}
	}
}

// monitor is what one Monitor knows. One goroutine uses it.
type monitor struct {
	d      *Drive
	looked chan look
	away   bool // a look is under way
	probed time.Time
	good   int // probes in a row
}

// look is what came of a look at the drive.
type look struct {
	probed bool
	took   time.Duration
	err    error // of the probe
}

// watch marks the drive by how long its operations take.
func (m *monitor) watch(now time.Time) {
	d, slow := m.d, m.d.operations.slow
	what, over, p90 := d.operations.slowest(now)
	switch {
	case over > slow.Offline:
		m.good = 0
		d.mark(true, errors.New(what))
	case over > slow.Degraded:
		m.good = 0
		d.mark(false, errors.New(what))
	case p90 > slow.Degraded:
		// Probes push out what was slow, where nothing else does.
		m.good = 0
		d.mark(false, fmt.Errorf("of the last %d operations a tenth took %s or more", tookMost, p90.Round(time.Millisecond)))
	}
}

// mark makes the drive Degraded or, if it has stalled, Offline.
func (d *Drive) mark(stalled bool, why error) {
	e := &Error{Op: "monitor", Path: d.path, Err: why}
	if stalled {
		e.Kind, e.Err = ErrOffline, fmt.Errorf("%w: %w", errStalled, why)
	}
	d.update(e, func() {
		d.slow = true
		d.stalled = d.stalled || stalled
		d.operations.refuse.Store(d.stalled)
	})
}

// send has a goroutine look at the drive, if none does.
func (m *monitor) send(now time.Time) {
	if m.away {
		return
	}
	m.away = true
	m.d.mu.Lock()
	well, hopeless := m.d.stateLocked() == Online, m.d.suspect
	m.d.mu.Unlock()
	every := probeEvery
	if !well {
		every = probeSoon
	}
	probe := !hopeless && now.Sub(m.probed) >= every
	if probe {
		m.probed = now
	}
	go func() {
		var l look
		_, err := m.d.usage(true)
		if probe && err == nil {
			began := time.Now()
			l = look{probed: true, err: m.d.probe(probeName)}
			l.took = time.Since(began)
		}
		m.looked <- l
	}()
}

// leave waits for a look under way, but not for a drive that has stalled.
func (m *monitor) leave() {
	if !m.away {
		return
	}
	patience := time.NewTimer(m.d.operations.slow.Degraded)
	defer patience.Stop()
	select {
	case <-m.looked:
	case <-patience.C:
	}
}

// judge makes the drive well, or not, by a look.
func (m *monitor) judge(l look) {
	d, slow := m.d, m.d.operations.slow
	if !l.probed {
		return
	}
	if l.err == nil {
		d.update(nil, func() { d.readOnly = false })
	}
	_, over, p90 := d.operations.slowest(time.Now())
	switch {
	case l.took > slow.Degraded:
		m.good = 0
		d.mark(false, fmt.Errorf("writing and reading a file of %d bytes took %s", probeBytes, l.took.Round(time.Millisecond)))
	case max(over, p90) > slow.Degraded, l.err != nil && !errors.Is(l.err, ErrNoSpace) && !errors.Is(l.err, ErrReadOnly):
		m.good = 0
	default:
		m.good++
	}
	if m.good < goodProbes {
		return
	}
	d.update(nil, func() {
		d.slow, d.stalled = false, false
		d.operations.refuse.Store(false)
	})
}

// Probe has the drive write, sync, read and remove a small file, DRIVE/asked,
// and returns how long that took. One runs at a time; a second one is ErrOffline,
// as the first may never come back. It returns the context's error once that has
// ended, and leaves the file system to it.
func (d *Drive) Probe(ctx context.Context) (took time.Duration, err error) {
	if err := d.present("probe", ID{}); err != nil {
		return 0, err
	}
	if !d.asked.CompareAndSwap(false, true) {
		return 0, &Error{Op: "probe", Path: d.path, Kind: ErrOffline, Err: errors.New("another probe is under way")}
	}
	var measured time.Duration // read once await says that the call has ended
	err = d.await(ctx, func() error {
		defer d.asked.Store(false)
		began := time.Now()
		err := d.probe(askedName)
		measured = time.Since(began)
		return err
	}, nil)
	if err != nil {
		return 0, err
	}
	return measured, nil
}

// probe has the drive write, sync, read and remove a small file.
func (d *Drive) probe(name string) error {
	var f *os.File
	content, back := bytes.Repeat([]byte("gridloom"), probeBytes/8), make([]byte, probeBytes)
	remove := func() error {
		err := d.held.root.Remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, step := range []struct {
		op   Op
		call func() error
	}{
		// What a crash left of an earlier one.
		{Op{Kind: OpRemove, Name: name}, remove},
		{Op{Kind: OpCreate, Name: name}, func() (err error) {
			f, err = d.held.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			return err
		}},
		{Op{Kind: OpWrite, Name: name, Bytes: probeBytes, Data: content}, func() error {
			_, err := f.Write(content)
			return err
		}},
		{Op{Kind: OpSync, Name: name}, func() error { return syncData(f) }},
		{Op{Kind: OpRead, Name: name, Bytes: probeBytes}, func() error {
			_, err := f.ReadAt(back, 0)
			return err
		}},
		{Op{Kind: OpRemove, Name: name}, remove},
	} {
		if err := d.doMoving(step.op, step.op.Bytes, true, step.call); err != nil {
			if f != nil {
				f.Close()
				remove() // else the next probe does
			}
			return d.fail("probe", ID{}, step.op.Kind, err)
		}
	}
	if err := f.Close(); err != nil {
		return d.fail("probe", ID{}, OpSync, err)
	}
	if !bytes.Equal(content, back) {
		e := &Error{Op: "probe", Path: d.path, Kind: ErrCorrupted, Err: errors.New("what was read is not what was written")}
		d.update(e, func() { d.suspect = true })
		return e
	}
	return nil
}
