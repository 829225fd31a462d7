package dataio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// MaxPayloadBytes is the largest payload that one file holds. Objects are cut
// into smaller segments long before; the limit bounds the footer at 256 KiB.
const MaxPayloadBytes = 64 << 30

// payloadName is the directory of the payload files below the drive's.
const payloadName = "payload"

// Options say whose drive it is and how it is used.
type Options struct {
	// Deployment and Node are the ids that drive.json must carry, and that a
	// blank directory is formatted with. Both are required.
	Deployment string
	Node       string

	// DriveID, if set, is the id that the drive at this path is known to have.
	// A blank directory is then refused instead of formatted: a file system
	// that isn't mounted looks just like a new drive.
	DriveID string

	// ReserveBytes stay free: a payload that would take of them is refused
	// with ErrNoSpace. 0 is 1/128 of the drive, at most 1 GiB; negative is
	// none.
	ReserveBytes int64

	// Slow says when the drive counts as slow.
	Slow Slow

	// Set, if not nil, is that of the drives that are used together: a second
	// one with the same id is refused.
	Set *Set

	// Events tell what happens on the drive.
	Events Events

	// Interceptor, if set, stands between the drive and its file system.
	Interceptor Interceptor
}

// Events are called by the goroutine to which it happened; calls may overlap.
// They must not call Drive.Close nor a Writer, which may be what calls them.
// Any of them may be nil.
type Events struct {
	// StateChanged tells of a drive's new state and its cause; nil if it is
	// well again.
	StateChanged func(d *Drive, from, to State, cause error)
	// Failed tells of an operation that failed in a way that counts for
	// Drive.Errors.
	Failed func(d *Drive, op Op, err error)
}

// State is what a drive can be used for.
type State uint8

// The states. They cross the wire, so a new one comes last.
const (
	Online   State = iota // everything works
	ReadOnly              // no new payload: full up to the reserve, or mounted read-only
	Suspect               // no new payload: a write or sync failed; until opened again
	Offline               // closed, stalled, or the path leads elsewhere; the last two can heal
	Degraded              // everything works, but slowly: better use another
)

// String returns the state's name, in lower case.
func (s State) String() string {
	switch s {
	case Online:
		return "online"
	case ReadOnly:
		return "read_only"
	case Suspect:
		return "suspect"
	case Offline:
		return "offline"
	case Degraded:
		return "degraded"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// A Drive is a directory that holds payload files, open for the use of one
// node. Its methods may be called from several goroutines at once. The package
// documentation tells how it is laid out and what fails how.
type Drive struct {
	path    string
	id      string
	options Options
	reserve int64
	held    *held    // the drive's directory and its lock
	payload *os.Root // payload/, for everything below it
	entries *os.File // payload/ again, to sync its entries

	errors     atomic.Int64
	operations operations
	asked      atomic.Bool // Probe is at it
	idle       idle
	// durable tells which directories below payload/ have a synced entry.
	durable [256]atomic.Bool

	// mu guards what follows. No I/O and no events under it; a Writer's mutex
	// is taken before it, never after.
	mu       sync.Mutex
	writers  map[ID]*Writer // created and neither committed nor aborted
	claimed  int64          // promised to writers, not yet allocated
	full     bool           // no more free than the reserve
	readOnly bool           // the file system said EROFS
	suspect  bool           // a write or sync failed
	astray   bool           // the path leads elsewhere
	stalled  bool           // an operation takes longer than Slow.Offline
	slow     bool           // or than Slow.Degraded
	closed   bool
}

// Open opens the drive in the directory dir, which is created if there is none,
// and formatted if it is blank: drive.json gets a new drive id, and the
// deployment and node of o. Until Close no other Open of it succeeds, in any
// process.
//
// It fails with ErrForeign if the drive belongs to another deployment or node,
// isn't the one with o.DriveID, or is a directory that holds other files;
// with ErrUnknownFormat if drive.json can't be understood; with ErrLocked if
// it is in use; with ErrDuplicate if another of o.Set has its id. Such a directory is left as it was.
func Open(ctx context.Context, dir string, o Options) (*Drive, error) {
	if o.Deployment == "" || o.Node == "" {
		return nil, errors.New("dataio: open: Options.Deployment and Options.Node are required")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var id identity
	h, err := hold("open", dir, func(h *held) (blank bool, err error) {
		id, blank, err = readIdentity(h, o)
		return blank, err
	})
	if err != nil {
		return nil, err
	}
	d := &Drive{path: h.path, options: o, held: h, writers: make(map[ID]*Writer)}
	d.operations.slow = o.Slow.orDefaults()
	if id.ID != "" {
		if err := o.Set.add(id.ID, h.path); err != nil {
			h.discard()
			return nil, err
		}
	}
	if err := d.start(id); err != nil {
		d.closeFiles()
		o.Set.remove(d.id)
		h.discard()
		return nil, err
	}
	return d, nil
}

// start formats the held directory if id is that of a blank one, and opens
// what the drive keeps open.
func (d *Drive) start(id identity) error {
	fail := func(kind, err error) error {
		return &Error{Op: "open", Path: d.path, Kind: kind, Err: err}
	}
	if id.ID == "" {
		id = identity{Version: identityVersion, ID: NewID().String(), Deployment: d.options.Deployment, Node: d.options.Node}
		if err := d.held.replaceFile(identityName, id.encode(), 0o600); err != nil {
			return fail(nil, err)
		}
		d.held.keep()
		if err := d.options.Set.add(id.ID, d.path); err != nil {
			return err
		}
	}
	d.id = id.ID
	if err := d.held.root.Mkdir(payloadName, 0o700); err == nil {
		if err := syncDir(d.held.dir); err != nil {
			return fail(nil, err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fail(nil, err)
	}
	var err error
	if d.payload, err = d.held.root.OpenRoot(payloadName); err != nil {
		return fail(nil, err)
	}
	if d.entries, err = d.payload.Open("."); err != nil {
		return fail(nil, err)
	}
	if same, err := sameDevice(d.held.dir, d.entries); err != nil {
		return fail(nil, err)
	} else if !same {
		return fail(ErrForeign, fmt.Errorf("%s is on another device than %s", payloadName, identityName))
	}
	usage, err := d.Usage()
	if err != nil {
		return err
	}
	d.reserve = max(d.options.ReserveBytes, 0)
	if d.options.ReserveBytes == 0 {
		d.reserve = min(usage.TotalBytes/128, 1<<30)
	}
	d.update(nil, func() { d.full = usage.FreeBytes <= d.reserve })
	return nil
}

// ID returns the drive's id, a UUID that it was given when it was formatted.
func (d *Drive) ID() string { return d.id }

// Path returns the drive's directory, absolute.
func (d *Drive) Path() string { return d.path }

// Errors returns how many operations of the file system have failed since the
// drive was opened. A payload that isn't there, one that exists already, and
// a lack of space are not errors of the drive.
func (d *Drive) Errors() int64 { return d.errors.Load() }

// Timeouts returns how many operations since the drive was opened took longer
// than Slow.Degraded allows; one that is still under way counts as soon as
// Monitor has seen it.
func (d *Drive) Timeouts() int64 { return d.operations.late.Load() }

// State returns what the drive can be used for, as last known: nothing is
// asked of the file system.
func (d *Drive) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stateLocked()
}

func (d *Drive) stateLocked() State {
	switch {
	case d.closed, d.astray, d.stalled:
		return Offline
	case d.suspect:
		return Suspect
	case d.readOnly, d.full:
		return ReadOnly
	case d.slow:
		return Degraded
	}
	return Online
}

// reasonLocked is why the drive is in its state, where nothing better is known:
// it may have been worse, so that the reason lies further back.
func (d *Drive) reasonLocked() error {
	switch {
	case d.closed, d.stateLocked() == Online:
		return nil
	case d.astray:
		return errAstray
	case d.stalled:
		return errStalled
	case d.suspect:
		return ErrSuspect
	case d.readOnly:
		return ErrReadOnly
	case d.full:
		return ErrNoSpace
	}
	return errSlow
}

// update makes change under the lock and tells of a new state, with its cause
// unless it is Online.
func (d *Drive) update(cause error, change func()) {
	d.mu.Lock()
	from := d.stateLocked()
	change()
	to := d.stateLocked()
	if cause == nil || to == Online {
		cause = d.reasonLocked()
	}
	d.mu.Unlock()
	if from != to && d.options.Events.StateChanged != nil {
		d.options.Events.StateChanged(d, from, to, cause)
	}
}

// Close aborts what is being written, waiting for calls under way, and gives
// the directory free. Open Files stay usable. A second Close does nothing. If
// the file system doesn't answer for Slow.Offline, Close fails with ErrOffline,
// and the rest is done when it does.
func (d *Drive) Close() error {
	var writers []*Writer
	again := false
	d.update(nil, func() {
		again = d.closed
		d.closed = true
		for _, w := range d.writers {
			writers = append(writers, w)
		}
	})
	if again {
		return nil
	}
	closed := make(chan error, 1)
	go func() {
		var errs []error
		d.idle.close()
		for _, w := range writers {
			errs = append(errs, w.Abort())
		}
		errs = append(errs, d.closeFiles(), d.held.release())
		d.options.Set.remove(d.id)
		closed <- errors.Join(errs...)
	}()
	slow := d.operations.slow
	tick := time.NewTicker(slow.Degraded)
	defer tick.Stop()
	for {
		select {
		case err := <-closed:
			return err
		case now := <-tick.C:
			if what, over, _ := d.operations.slowest(now); over > slow.Offline {
				return &Error{Op: "close", Path: d.path, Kind: ErrOffline, Err: fmt.Errorf("%w: %s", errStalled, what)}
			}
		}
	}
}

// closeFiles closes what start opened.
func (d *Drive) closeFiles() error {
	var errs []error
	if d.payload != nil {
		errs = append(errs, d.payload.Close())
	}
	if d.entries != nil {
		errs = append(errs, d.entries.Close())
	}
	return errors.Join(errs...)
}

// fail turns the error of an operation that changes the drive into one for the
// caller, and the drive's state into what it says. Whatever a sync returns,
// the kernel may have dropped the dirty pages, and the next sync would say
// that all is well: hence no retry, and no more trust in the drive.
func (d *Drive) fail(op string, id ID, kind OpKind, err error) error {
	e := &Error{Op: op, Path: d.path, ID: id, Err: err}
	var inner *Error
	switch {
	case errors.As(err, &inner): // refused before the file system was asked
		e.Kind, e.Err = inner.Kind, inner.Err
	case kind == OpSync || kind == OpSyncDir || isDeviceError(err):
		e.Kind = ErrSuspect
		d.update(e, func() { d.suspect = true })
	case isNoSpace(err):
		e.Kind = ErrNoSpace
	case isReadOnly(err):
		e.Kind = ErrReadOnly
		d.update(e, func() { d.readOnly = true })
	case errors.Is(err, fs.ErrExist):
		e.Kind = ErrExists
	case errors.Is(err, fs.ErrNotExist):
		e.Kind = ErrNotFound
	case errors.Is(err, fs.ErrClosed):
		e.Kind = ErrOffline
	}
	return e
}

// present fails if the drive was closed.
func (d *Drive) present(op string, id ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return &Error{Op: op, Path: d.path, ID: id, Kind: ErrOffline, Err: fs.ErrClosed}
	}
	return nil
}

// trusted fails if the drive has become suspect.
func (d *Drive) trusted(op string, id ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.suspect {
		return &Error{Op: op, Path: d.path, ID: id, Kind: ErrSuspect}
	}
	return nil
}

// names returns the directory of a payload file below payload/, and the name
// under which the file's operations are told.
func names(id ID) (sub, full string) {
	file := id.String()
	sub = file[:2]
	return sub, path.Join(payloadName, sub, file)
}

// below returns the name of a payload file below payload/.
func below(id ID) string {
	file := id.String()
	return filepath.Join(file[:2], file)
}
