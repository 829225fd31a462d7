package node

import (
	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/observability"
)

// sampleDrives gives the collector the drives.
func (n *Node) sampleDrives() []observability.DriveSource {
	drives := n.drivesNow()
	out := make([]observability.DriveSource, 0, len(drives.open)+len(drives.closed))
	for _, d := range drives.open {
		out = append(out, openDrive{d})
	}
	for _, d := range drives.closed {
		if d.ID == "" { // nothing was ever there
			continue
		}
		out = append(out, closedDrive{d.ID, d.Path})
	}
	return out
}

type openDrive struct{ drive *dataio.Drive }

// Now reads counters and a state, and nothing of the file system.
func (o openDrive) Now() observability.Drive {
	d := o.drive
	return observability.Drive{ID: d.ID(), Path: d.Path(), State: d.State().String(), Errors: d.Errors(), Timeouts: d.Timeouts()}
}

func (o openDrive) Usage() observability.DriveUsage {
	u, err := o.drive.Usage()
	if err != nil {
		return observability.DriveUsage{}
	}
	return observability.DriveUsage(u)
}

type closedDrive struct{ id, path string }

func (c closedDrive) Now() observability.Drive {
	return observability.Drive{ID: c.id, Path: c.path, State: dataio.Offline.String()}
}

func (closedDrive) Usage() observability.DriveUsage { return observability.DriveUsage{} }
