package object

import (
	"context"
	"time"

	"github.com/gridloom/gridloom/dataio"
)

// DriveHealth is how a drive of the mesh was when it was last looked at.
type DriveHealth struct {
	ID, Node, Pool, Zone string
	State                dataio.State
	Reachable            bool // its node has answered, and has it open
	Draining             bool // it or its node is, or its node leaves
	TotalBytes           int64
	UsedBytes            int64
	FreeBytes            int64
	Since                time.Time // since when it hasn't been well; zero: it is
}

// Health returns all drives of the topology, as they were at the last look.
func (s *Service) Health() []DriveHealth { return nil }

func (s *Service) serveDrives(context.Context, *drivesRequest) (*drivesResponse, error) {
	resp := &drivesResponse{}
	for _, d := range s.ownDrives() {
		resp.Drives = append(resp.Drives, reportOf(d))
	}
	return resp, nil
}

// reportOf looks at a drive of this node.
func reportOf(d *dataio.Drive) driveReport {
	r := driveReport{ID: d.ID()}
	if u, err := d.Usage(); err == nil {
		r.Total, r.Used, r.Free = u.TotalBytes, u.UsedBytes, u.FreeBytes
	}
	r.State = uint8(d.State()) // which Usage may have changed
	return r
}
