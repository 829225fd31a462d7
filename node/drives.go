package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/observability"
)

// knownDrivesFile is where the data directory remembers which drive is at which
// path: a file system that isn't mounted looks like a blank drive, and must not
// be formatted in the place of a known one.
const knownDrivesFile = "drives.json"

// bringUpDrives opens the drives, now that it is known what mesh they must
// belong to. A drive that is foreign, blank where a known one was, or broken
// stops the node: it says which.
func (n *Node) bringUpDrives(ctx context.Context) error {
	n.waitFor(errors.New("opening the drives"))
	known, err := n.knownDrives()
	if err != nil {
		return &ConfigError{Field: "DataDir", Err: err}
	}
	var drives []*dataio.Drive
	for _, path := range n.cfg.Drives {
		d, err := dataio.Open(ctx, path, dataio.Options{
			Deployment: n.control.Deployment(), Node: n.cfg.Name, DriveID: known[path],
			ReserveBytes: n.cfg.ReserveBytes, Events: n.driveEvents(),
		})
		if err != nil {
			return &ConfigError{Field: "Drives", Err: err}
		}
		known[path] = d.ID()
		drives = append(drives, d)
		opened := slices.Clone(drives)
		n.drives.Store(&opened) // from here on Close closes it
	}
	if err := n.rememberDrives(known); err != nil {
		return &ConfigError{Field: "DataDir", Err: err}
	}
	for _, d := range drives {
		n.objects.AddDrive(d)
	}
	return nil
}

// knownDrives maps the paths of drives that were opened before to their ids.
func (n *Node) knownDrives() (map[string]string, error) {
	known := map[string]string{}
	b, err := n.dir.ReadFile(knownDrivesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &known); err != nil {
		return nil, fmt.Errorf("%s: %w", knownDrivesFile, err)
	}
	return known, nil
}

// rememberDrives writes down the drives that are in use; a path that was taken
// from the configuration is forgotten.
func (n *Node) rememberDrives(known map[string]string) error {
	for path := range known {
		if !slices.Contains(n.cfg.Drives, path) {
			delete(known, path)
		}
	}
	b, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return err
	}
	return n.dir.WriteFile(knownDrivesFile, append(b, '\n'), 0o600)
}

// openDrives are the drives that are open: none before the mesh is known.
func (n *Node) openDrives() []*dataio.Drive {
	if drives := n.drives.Load(); drives != nil {
		return *drives
	}
	return nil
}

func (n *Node) closeDrives() error {
	var errs []error
	for _, d := range n.openDrives() {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// sampleDrives gives the collector the drives' current values.
func (n *Node) sampleDrives() []observability.Drive {
	drives := n.openDrives()
	out := make([]observability.Drive, 0, len(drives))
	for _, d := range drives {
		s := observability.Drive{ID: d.ID(), Path: d.Path(), State: d.State().String(), Errors: d.Errors()}
		if u, err := d.Usage(); err == nil {
			s.TotalBytes, s.UsedBytes, s.FreeBytes = u.TotalBytes, u.UsedBytes, u.FreeBytes
			s.TotalInodes, s.UsedInodes, s.FreeInodes = u.TotalInodes, u.UsedInodes, u.FreeInodes
		}
		out = append(out, s)
	}
	return out
}
