package dataio

import (
	"errors"
	"fmt"
	"os"
)

// Usage is what the file system of a drive says of itself. Free is what this
// process may use; file systems keep some for root, so Used and Free need not
// add up to Total. Inodes are 0 where the file system doesn't count them.
type Usage struct {
	TotalBytes, UsedBytes, FreeBytes    int64
	TotalInodes, UsedInodes, FreeInodes int64
}

// errAstray is why a drive is offline that wasn't closed.
var errAstray = errors.New("the path no longer leads to the directory that was opened: was it unmounted?")

// Usage asks the file system for its free space. It also looks where the
// drive's path leads: elsewhere, the drive is Offline, and Online again when
// it leads back.
func (d *Drive) Usage() (Usage, error) { return d.usage(false) }

// usage is Usage; a probe asks also on a drive that has stalled.
func (d *Drive) usage(probe bool) (Usage, error) {
	if err := d.present("usage", ID{}); err != nil {
		return Usage{}, err
	}
	var usage Usage
	err := d.doMoving(Op{Kind: OpUsage}, 0, probe, func() error {
		held, err := d.held.dir.Stat()
		if err != nil {
			return err
		}
		if there, err := os.Stat(d.path); err != nil {
			return fmt.Errorf("%w (%w)", errAstray, err)
		} else if !os.SameFile(held, there) {
			return errAstray
		}
		usage, err = usageOf(d.held.dir)
		return err
	})
	if errors.Is(err, errAstray) {
		e := &Error{Op: "usage", Path: d.path, Kind: ErrOffline, Err: err}
		d.update(e, func() { d.astray = true })
		return Usage{}, e
	}
	if err != nil {
		return Usage{}, d.readError("usage", ID{}, err)
	}
	d.update(nil, func() {
		d.astray = false
		d.full = usage.FreeBytes <= d.reserve
	})
	return usage, nil
}

// admit asks for at least so many bytes of w's drive, at most so many,
// checking that it takes new payload. On success they are claimed: no other
// writer is promised the same bytes until they are allocated, when the file
// system counts them itself, or given back.
func (d *Drive) admit(w *Writer, least, most int64) error {
	usage, err := d.Usage()
	if err != nil {
		var e *Error
		errors.As(err, &e)
		return &Error{Op: "create", Path: d.path, ID: w.id, Kind: e.Kind, Err: e.Err}
	}
	refuse := func(kind, err error) error {
		return &Error{Op: "create", Path: d.path, ID: w.id, Kind: kind, Err: err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	left := usage.FreeBytes - d.claimed - d.reserve
	switch {
	case d.closed:
		return refuse(ErrOffline, os.ErrClosed)
	case d.suspect:
		return refuse(ErrSuspect, nil)
	case d.readOnly:
		return refuse(ErrReadOnly, nil)
	case d.full:
		return refuse(ErrNoSpace, fmt.Errorf("%w: %d bytes free, %d kept in reserve", ErrReadOnly, usage.FreeBytes, d.reserve))
	case left < least:
		return refuse(ErrNoSpace, fmt.Errorf("%d bytes needed, %d free above the reserve", least, left))
	case d.writers[w.id] != nil && d.writers[w.id] != w:
		return refuse(ErrExists, errors.New("it is being written"))
	}
	d.writers[w.id] = w
	bytes := min(most, left)
	d.claimed += bytes
	w.claimed += bytes
	return nil
}

// settle gives back up to bytes of w's claim.
func (d *Drive) settle(w *Writer, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	bytes = min(bytes, w.claimed)
	w.claimed -= bytes
	d.claimed -= bytes
}

// forget gives back all of w's claim, and its id.
func (d *Drive) forget(w *Writer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.claimed -= w.claimed
	w.claimed = 0
	delete(d.writers, w.id)
}

// lease keeps others from w's id, if nobody has it.
func (d *Drive) lease(w *Writer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.writers[w.id] != nil {
		return false
	}
	d.writers[w.id] = w
	return true
}

// writing reports whether id is being written, so is not there yet.
func (d *Drive) writing(id ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.writers[id]
	return w != nil && !w.replaces
}

// replacing returns who is writing a replacement of id.
func (d *Drive) replacing(id ID) *Writer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.writers[id]; w != nil && w.replaces {
		return w
	}
	return nil
}
