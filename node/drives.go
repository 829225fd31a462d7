package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
)

const (
	// drivesEvery is how often the paths are looked at where there is no drive
	// that can be used.
	drivesEvery = 5 * time.Second
	// openPatience is how long a drive may take to be opened before the node
	// goes on without it.
	openPatience = 10 * time.Second
)

// drivePath is one path of the configuration, and what is there. form's
// goroutine alone changes it.
type drivePath struct {
	path string   // as it is configured, and remembered
	full string   // absolute, for people
	row  driveRow // what the data directory knows of it

	drive *dataio.Drive      // nil: none is open
	stop  context.CancelFunc // of its monitor; with drive
	err   error              // why none is open, or another than should be
	told  string             // err as it was last logged

	opening chan opened // has a buffer; not nil while an opening takes too long
}

// opened is what came of opening a drive.
type opened struct {
	drive *dataio.Drive
	err   error
}

// bringUpDrives opens the drives, now that it is known what mesh they must
// belong to. One that is foreign, broken, or blank where a known one was, is
// reported, and looked at again by keepDrives; it stops a node that has no
// other.
func (n *Node) bringUpDrives(ctx context.Context) error {
	n.waitFor(errors.New("opening the drives"))
	rows, err := n.knownDrives()
	if err != nil {
		return &ConfigError{Field: "DataDir", Err: err}
	}
	for _, path := range n.cfg.Drives {
		full, err := filepath.Abs(path)
		if err != nil {
			full = path
		}
		n.paths = append(n.paths, &drivePath{path: path, full: full, row: rows[path]})
	}
	if err := n.noteRemoved(ctx); err != nil {
		return err
	}
	awaited := false
	for _, p := range n.paths {
		n.openPath(ctx, p)
		n.publishDrives() // from here on Close closes it
		awaited = awaited || p.row.Removed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(n.openDrives()) == 0 && !awaited {
		return &ConfigError{Field: "Drives", Err: n.paths[0].err}
	}
	if err := n.rememberDrives(); err != nil {
		return &ConfigError{Field: "DataDir", Err: err}
	}
	n.tellTroubles()
	return nil
}

// openPath opens the drive at a path, if there is one that may be used, and has
// it serve. Otherwise p.err says why not.
func (n *Node) openPath(ctx context.Context, p *drivePath) {
	o := dataio.Options{
		Deployment: n.control.Deployment(), Node: n.cfg.Name, DriveID: p.row.ID,
		ReserveBytes: n.cfg.ReserveBytes, Events: n.driveEvents(), Set: &n.driveSet,
	}
	if p.row.Removed {
		if p.row.Mounted && !mountPoint(p.path) {
			p.err = fmt.Errorf("%s: drive %s was taken out of the mesh; it was mounted there, and nothing is now", p.full, p.row.ID)
			return
		}
		o.DriveID = "" // any other will do
	}
	d, err := p.open(ctx, o)
	if err == nil && p.row.Removed && d.ID() == p.row.ID {
		_ = d.Close()
		err = fmt.Errorf("%s: drive %s was taken out of the mesh; empty the directory, or mount another drive there", p.full, p.row.ID)
	}
	if err != nil {
		if p.err = err; errors.Is(err, dataio.ErrForeign) && p.row.Joined {
			p.err = fmt.Errorf("%w (if drive %s is gone for good: gridloom drive replace %s)", err, p.row.ID, p.row.ID)
		}
		return
	}
	if d.ID() != p.row.ID || p.row.Removed {
		p.row = driveRow{ID: d.ID()}
	}
	p.row.Mounted = mountPoint(p.path)
	n.instruments.driveOpened(d.ID())
	p.drive, p.err, p.told = d, nil, ""
	watching, stop := context.WithCancel(n.life)
	p.stop = stop
	n.monitors.Go(func() { _ = d.Monitor(watching) })
	n.objects.AddDrive(d)
}

// open opens what is at the path, or goes on waiting for the kernel, which may
// never return from a drive that hangs.
func (p *drivePath) open(ctx context.Context, o dataio.Options) (*dataio.Drive, error) {
	if p.opening == nil {
		p.opening = make(chan opened, 1)
		go func(to chan<- opened) {
			d, err := dataio.Open(ctx, p.path, o)
			to <- opened{d, err}
		}(p.opening)
	}
	patience := time.NewTimer(openPatience)
	defer patience.Stop()
	select {
	case got := <-p.opening:
		p.opening = nil
		return got.drive, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, fmt.Errorf("%s: it can't be opened: the drive has not answered for %s", p.full, openPatience)
	}
}

// keepDrives looks at the paths again and again: for drives that were taken out
// of the mesh, and for some that can be used where there was none. It ends with
// ctx.
func (n *Node) keepDrives(ctx context.Context) error {
	tick := time.NewTicker(n.drivesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := n.lookAtDrives(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("the drives can't be looked at", "error", err)
		}
	}
}

// lookAtDrives is one look. What it can't do is left to the next.
func (n *Node) lookAtDrives(ctx context.Context) error {
	before := n.openDrives()
	if err := n.noteRemoved(ctx); err != nil {
		return err
	}
	for _, p := range n.paths {
		if p.drive != nil {
			n.swapPath(ctx, p)
		}
		if p.drive == nil {
			n.openPath(ctx, p)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n.publishDrives()
	n.tellTroubles()
	now := n.openDrives()
	for _, d := range now {
		if !slices.Contains(before, d) {
			n.log.Info("a drive is used from now on", "drive", d.ID(), "path", d.Path())
		}
	}
	if slices.Equal(before, now) && !slices.ContainsFunc(n.paths, unjoined) {
		return nil
	}
	if err := n.rememberDrives(); err != nil {
		return err
	}
	return n.join(ctx)
}

// unjoined tells of a drive that is open and that the index doesn't know yet.
func unjoined(p *drivePath) bool { return p.drive != nil && !p.row.Joined }

// swapPath closes a drive whose path leads to it at another place: its file
// system was mounted anew from another device. One that stalls, or that isn't
// there, is left alone.
func (n *Node) swapPath(ctx context.Context, p *drivePath) {
	if p.drive.State() != dataio.Offline {
		return
	}
	// Where the path still leads to the open drive, this fails: it is locked.
	d, err := p.open(ctx, dataio.Options{
		Deployment: n.control.Deployment(), Node: n.cfg.Name, DriveID: p.row.ID, ReserveBytes: n.cfg.ReserveBytes,
	})
	if err != nil {
		return
	}
	_ = d.Close()
	n.log.Info("a drive came back from another device", "drive", p.row.ID, "path", p.path)
	n.closePath(p)
}

// closePath has a drive serve no more.
func (n *Node) closePath(p *drivePath) {
	p.stop()
	n.objects.RemoveDrive(p.drive.ID())
	if err := p.drive.Close(); err != nil {
		n.log.Warn("a drive could not be closed", "drive", p.drive.ID(), "path", p.path, "error", err)
	}
	p.drive, p.stop = nil, nil
}

// noteRemoved finds the drives that were taken out of the mesh, and closes
// those that are open.
func (n *Node) noteRemoved(ctx context.Context) error {
	missing := func(t *control.Topology, p *drivePath) bool {
		self := t.Node(n.cfg.Name)
		return p.row.Joined && self != nil && !slices.Contains(self.Drives, p.row.ID)
	}
	view := n.control.Topology()
	if !slices.ContainsFunc(n.paths, func(p *drivePath) bool { return missing(view, p) }) {
		return nil
	}
	// This node's own view may be of before its drives came.
	a, err := n.control.Read(ctx, &control.Query{Topology: &control.TopologyQuery{}})
	if err != nil {
		return err
	}
	for _, p := range n.paths {
		if !missing(a.Topology, p) {
			continue
		}
		n.log.Warn("a drive was taken out of the mesh", "drive", p.row.ID, "path", p.full)
		p.row.Joined, p.row.Removed = false, true
		if p.drive != nil {
			n.closePath(p)
		}
	}
	return n.rememberDrives()
}

// tellTroubles logs why drives can't be used, each reason once.
func (n *Node) tellTroubles() {
	for _, p := range n.paths {
		if p.err != nil && p.err.Error() != p.told {
			p.told = p.err.Error()
			n.log.Warn("a drive can't be used; it is looked at again", "path", p.full, "every", n.drivesEvery, "error", p.err)
		}
	}
}

// driveSets are a node's drives at one moment: those that are open, and what is
// known of the paths whose drives can't be used.
type driveSets struct {
	open   []*dataio.Drive
	closed []driveStatus
}

// publishDrives makes known which drives are open, and which aren't, in one
// step: a drive that changes sides is seen on one of them.
func (n *Node) publishDrives() {
	var now driveSets
	for _, p := range n.paths {
		switch {
		case p.drive != nil:
			now.open = append(now.open, p.drive)
		case p.err != nil:
			now.closed = append(now.closed, driveStatus{ID: p.row.ID, Path: p.full, State: uint8(dataio.Offline), Error: p.err.Error()})
		}
	}
	n.drives.Store(&now)
}

// drivesNow are the drives: none before the mesh is known.
func (n *Node) drivesNow() driveSets {
	if drives := n.drives.Load(); drives != nil {
		return *drives
	}
	return driveSets{}
}

// openDrives are those that are open.
func (n *Node) openDrives() []*dataio.Drive { return n.drivesNow().open }

// closeDrives closes the drives, and those that come late, as far as they do.
func (n *Node) closeDrives() error {
	n.endLife()
	n.monitors.Wait()
	var errs []error
	for _, d := range n.openDrives() {
		errs = append(errs, d.Close())
	}
	var late sync.WaitGroup
	for _, p := range n.paths {
		if p.opening == nil {
			continue
		}
		late.Go(func() {
			patience := time.NewTimer(drainTimeout)
			defer patience.Stop()
			select {
			case got := <-p.opening:
				if got.drive != nil {
					_ = got.drive.Close()
				}
			case <-patience.C:
			}
		})
	}
	late.Wait()
	return errors.Join(errs...)
}
