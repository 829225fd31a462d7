package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// knownDrivesFile is where the data directory remembers which drive is at which
// path: a file system that isn't mounted looks like a blank drive, and must not
// be formatted in the place of a known one.
const knownDrivesFile = "drives.json"

// driveRow is what is remembered of a path.
type driveRow struct {
	ID string `json:"id"`
	// Joined: the index was told of the drive. One that it doesn't know any
	// more was taken out of the mesh.
	Joined bool `json:"joined,omitempty"`
	// Removed: it was, and whatever else is at the path may be used.
	Removed bool `json:"removed,omitempty"`
	// Mounted: the drive was a file system of its own. What comes after it must
	// be one, too: a mount point is no drive while nothing is mounted there.
	Mounted bool `json:"mounted,omitempty"`
}

// knownDrives maps the paths of drives that were opened before to what is
// known of them.
func (n *Node) knownDrives() (map[string]driveRow, error) {
	rows := map[string]driveRow{}
	b, err := n.dir.ReadFile(knownDrivesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return rows, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, fmt.Errorf("%s: %w", knownDrivesFile, err)
	}
	for path, row := range rows {
		if row.ID == "" {
			return nil, fmt.Errorf("%s: there is no id for %s", knownDrivesFile, path)
		}
	}
	return rows, nil
}

// rememberDrives writes down what is known of the configuration's paths; one
// that was taken from it is forgotten.
func (n *Node) rememberDrives() error {
	rows := map[string]driveRow{}
	for _, p := range n.paths {
		if p.row.ID != "" {
			rows[p.path] = p.row
		}
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return n.dir.WriteFile(knownDrivesFile, append(b, '\n'), 0o600)
}
