// Package controltest is for tests that run meshes of several indexes in one
// process: Snapshots brings the files of a snapshot from one to another, as the
// bulk port does between nodes. A node that hears of a mesh which has begun
// without it needs that, however few entries there are.
//
// It has no goroutine, and is used by those of the indexes.
package controltest

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/gridloom/gridloom/node/control"
)

// Snapshots are the indexes of a mesh, by node. The zero value has none.
type Snapshots struct{ nodes sync.Map }

// Offer has a node's snapshots fetched from c, whose data directory is on the
// system's own files.
func (s *Snapshots) Offer(node string, c *control.Control) { s.nodes.Store(node, c) }

// Fetch is for control.Options.
func (s *Snapshots) Fetch(_ context.Context, node, path string, offset, size int64, to io.Writer) error {
	from, ok := s.nodes.Load(node)
	if !ok {
		return fmt.Errorf("controltest: node %s has not been offered", node)
	}
	name, release, err := from.(*control.Control).SnapshotFile(path)
	if err != nil {
		return err
	}
	defer release()
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(to, io.NewSectionReader(f, offset, size))
	return err
}
