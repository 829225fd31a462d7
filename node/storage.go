package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/heal"
	"github.com/gridloom/gridloom/node/object"
)

// storage is api.Storage: what this node knows of drives, pools and copies, and
// the changes that an operator asks for. refuse.go has what is refused.
type storage struct {
	mesh     *mesh
	index    control.Index
	topology func() *control.Topology
	health   func() []object.DriveHealth
	heal     healer
	replicas int // copies of a segment, where its pool has so many drives
}

// healer is what storage needs of package heal.
type healer interface {
	Status(ctx context.Context) (*heal.Status, error)
	Start(ctx context.Context, req heal.StartRequest) error
	Rebalance(ctx context.Context, start bool) error
}

// Drives implements api.Storage. The nodes are asked, all at once.
func (s *storage) Drives(ctx context.Context) ([]api.DriveInfo, error) {
	c, err := s.mesh.Describe(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.DriveInfo
	for i := range c.Nodes {
		of := slices.Clone(c.Nodes[i].Drives)
		slices.SortFunc(of, func(a, b api.DriveInfo) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Path, b.Path)) })
		all = append(all, of...)
	}
	return all, nil
}

// Pools implements api.Storage.
func (s *storage) Pools(context.Context) ([]api.PoolInfo, error) {
	pools := map[string]*api.PoolInfo{}
	of := func(name string) *api.PoolInfo {
		if pools[name] == nil {
			pools[name] = &api.PoolInfo{Name: name}
		}
		return pools[name]
	}
	for _, n := range s.topology().Nodes {
		if n.Pool == "" { // it has yet to come
			continue
		}
		p := of(n.Pool)
		p.Nodes = append(p.Nodes, n.Name)
		if n.Zone != "" && !slices.Contains(p.Zones, n.Zone) {
			p.Zones = append(p.Zones, n.Zone)
		}
	}
	for _, d := range s.health() {
		p := of(d.Pool)
		p.Drives++
		if d.Draining {
			p.DrainingDrives++
		}
		if takesPayload(&d) {
			p.Usable++
		}
		p.TotalBytes, p.UsedBytes, p.FreeBytes = p.TotalBytes+d.TotalBytes, p.UsedBytes+d.UsedBytes, p.FreeBytes+d.FreeBytes
	}
	all := make([]api.PoolInfo, 0, len(pools))
	for _, name := range sortedKeys(pools) {
		p := pools[name]
		slices.Sort(p.Zones)
		p.Copies = min(s.replicas, p.Drives-p.DrainingDrives)
		p.Draining = p.Drives > 0 && p.DrainingDrives == p.Drives
		all = append(all, *p)
	}
	return all, nil
}

// takesPayload tells whether new payload may go to a drive.
func takesPayload(d *object.DriveHealth) bool {
	return d.Reachable && !d.Draining && (d.State == dataio.Online || d.State == dataio.Degraded)
}

// DrainDrive implements api.Storage.
func (s *storage) DrainDrive(ctx context.Context, id string, undo, force bool) error {
	if !undo && !force {
		if err := s.checkDrain(ctx, "drive "+id, drivesByID(id)); err != nil {
			return err
		}
	}
	return s.markDrive(ctx, &control.MarkDrive{Drive: id, Drain: !undo, Undo: undo})
}

// ReplaceDrive implements api.Storage.
func (s *storage) ReplaceDrive(ctx context.Context, id string, force bool) error {
	if !force {
		if err := s.checkRemoval(ctx, "drive "+id, drivesByID(id)); err != nil {
			return err
		}
	}
	return s.markDrive(ctx, &control.MarkDrive{Drive: id, Remove: true})
}

func (s *storage) markDrive(ctx context.Context, m *control.MarkDrive) error {
	_, err := s.index.Propose(ctx, &control.Command{MarkDrive: m})
	return err
}

// DrainPool implements api.Storage. Drives are marked one after the other: who
// is told of an error repeats it.
func (s *storage) DrainPool(ctx context.Context, name string, undo, force bool) error {
	subject := "pool " + name
	t, err := s.newest(ctx)
	if err != nil {
		return err
	}
	var drives []string
	for _, n := range t.Nodes {
		if n.Pool == name {
			drives = append(drives, n.Drives...)
		}
	}
	if len(drives) == 0 {
		return fault.New(fault.NotFound, subject, "has no drives: there is no such pool")
	}
	if !undo && !force {
		if err := s.checkDrain(ctx, subject, func(d *object.DriveHealth) bool { return d.Pool == name }); err != nil {
			return err
		}
	}
	for _, id := range drives {
		err := s.markDrive(ctx, &control.MarkDrive{Drive: id, Drain: !undo, Undo: undo})
		if err != nil && fault.KindOf(err) != fault.NotFound { // taken out meanwhile
			return err
		}
	}
	return nil
}

// Rebalance implements api.Storage.
func (s *storage) Rebalance(ctx context.Context, stop bool) error {
	return s.heal.Rebalance(ctx, !stop)
}

// StartHeal implements api.Storage.
func (s *storage) StartHeal(ctx context.Context, verify bool) error {
	return s.heal.Start(ctx, heal.StartRequest{Verify: verify})
}

// HealStatus implements api.Storage.
func (s *storage) HealStatus(ctx context.Context) (*api.HealInfo, error) {
	st, err := s.heal.Status(ctx)
	if err != nil {
		return nil, err
	}
	info := &api.HealInfo{
		Leader: st.Leader, Phase: st.Phase, Since: st.Since, Pass: int64(st.Pass), Passing: st.Passing,
		Scanned: st.Scanned, Total: st.Total, Done: st.Done, Failed: st.Failed, Bytes: st.Bytes,
		BytesPerSecond: float64(st.RatePerSecond), ETA: st.ETA,
		Pending: st.Pending, Endangered: st.Endangered, LostCount: st.UnrecoverableCount,
		Scrub: api.ScrubInfo{
			Round: int64(st.Scrub.Round), Running: st.Scrub.Running, Fast: st.Scrub.Fast, StartedAt: st.Scrub.Started, EndedAt: st.Scrub.Ended,
			Segments: st.Scrub.Segments, Bytes: st.Scrub.Bytes, Bad: st.Scrub.Bad, ETA: st.Scrub.ETA,
		},
		Rebalance: api.RebalanceInfo{
			Running: st.Rebalance.Running, StartedAt: st.Rebalance.Started, EndedAt: st.Rebalance.Ended,
			Scanned: st.Rebalance.Scanned, MovedSegments: st.Rebalance.Moved, MovedBytes: st.Rebalance.Bytes,
			Failed: st.Rebalance.Failed, ETA: st.Rebalance.ETA, Stopped: st.Rebalance.Why,
		},
	}
	for _, l := range st.Unrecoverable {
		info.Lost = append(info.Lost, api.LostInfo{Bucket: l.Bucket, Key: l.Key, Segment: dataio.ID(l.Segment).String(), Why: l.Why})
	}
	for _, t := range st.Stuck {
		info.Stuck = append(info.Stuck, api.StuckInfo{What: t.What, Why: t.Why})
	}
	info.Draining, err = s.draining(ctx, st)
	return info, err
}

// draining describes all that drains by the topology, with the progress that
// healing knows of. Whether it is at its end, the index says.
func (s *storage) draining(ctx context.Context, st *heal.Status) ([]api.DrainInfo, error) {
	progress := map[[2]string]*heal.DrainProgress{}
	for i := range st.Draining {
		p := &st.Draining[i]
		progress[[2]string{p.Kind, p.Name}] = p
	}
	t, err := s.newest(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.DrainInfo
	for _, d := range drainsOf(t) {
		info := api.DrainInfo{Kind: d.kind, Name: d.name}
		if p := progress[[2]string{d.kind, d.name}]; p != nil {
			info.Counted, info.LeftSegments, info.LeftBytes = p.Counted, p.LeftSegments, p.LeftBytes
			info.ETA, info.Blocked = p.ETA, p.Blocked
		}
		if !info.Counted || info.LeftSegments == 0 {
			used, err := s.holds(ctx, d.drives, false)
			if err != nil {
				return nil, err
			}
			info.Done = !used
			if info.Done {
				info.Counted, info.Blocked, info.ETA = true, "", 0
			}
		}
		all = append(all, info)
	}
	return all, nil
}

// newest gives the topology with every change that was acknowledged before.
func (s *storage) newest(ctx context.Context) (*control.Topology, error) {
	a, err := s.index.Read(ctx, &control.Query{Topology: &control.TopologyQuery{}})
	if err != nil {
		return nil, err
	}
	return a.Topology, nil
}

// drain is something that is to be emptied.
type drain struct {
	kind, name string
	drives     []string
}

// drainsOf lists what drains: nodes, then drives that do so by themselves, then
// pools of which every drive does.
func drainsOf(t *control.Topology) []drain {
	var nodes, drives, pools []drain
	byPool := map[string]*drain{}
	stays := map[string]bool{}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.Draining || n.Leaving {
			nodes = append(nodes, drain{api.DrainsNode, n.Name, n.Drives})
		}
		for _, id := range n.Drives {
			if byPool[n.Pool] == nil {
				byPool[n.Pool] = &drain{kind: api.DrainsPool, name: n.Pool}
			}
			byPool[n.Pool].drives = append(byPool[n.Pool].drives, id)
			_, draining := t.Drive(id)
			stays[n.Pool] = stays[n.Pool] || !draining
			if _, own := slices.BinarySearch(n.DrainingDrives, id); own {
				drives = append(drives, drain{api.DrainsDrive, id, []string{id}})
			}
		}
	}
	slices.SortFunc(drives, func(a, b drain) int { return cmp.Compare(a.name, b.name) })
	for _, name := range sortedKeys(byPool) {
		if !stays[name] {
			pools = append(pools, *byPool[name])
		}
	}
	return slices.Concat(nodes, drives, pools)
}

// holds tells whether a record has a segment on one of the drives, or one that
// is nowhere else.
func (s *storage) holds(ctx context.Context, drives []string, sole bool) (bool, error) {
	if len(drives) == 0 {
		return false, nil
	}
	for some := range slices.Chunk(drives, control.MaxDrives) {
		if sole && len(drives) > control.MaxDrives {
			return false, fault.New(fault.InvalidArgument, "drives", "are %d; at most %d can be looked at together", len(drives), control.MaxDrives)
		}
		for after := ""; ; {
			a, err := s.index.Read(ctx, &control.Query{Usage: &control.UsageQuery{Drives: some, After: after, Sole: sole}})
			if err != nil {
				return false, err
			}
			if a.Used {
				return true, nil
			}
			if !a.More {
				break
			}
			after = a.Next
		}
	}
	return false, nil
}

// BucketUsage implements api.Storage.
func (s *storage) BucketUsage(ctx context.Context, bucket string) (*api.BucketUsage, error) {
	a, err := s.index.Read(ctx, &control.Query{BucketUsage: &control.BucketUsageQuery{Bucket: bucket}})
	if err != nil {
		return nil, err
	}
	u := a.BucketUsage
	if u == nil {
		return nil, errors.New("the index gave no usage")
	}
	return &api.BucketUsage{Bucket: bucket, Objects: u.Objects, Bytes: u.Bytes, MaxObjects: u.MaxObjects, MaxBytes: u.MaxBytes}, nil
}

// SetQuota implements api.Storage.
func (s *storage) SetQuota(ctx context.Context, bucket string, maxObjects, maxBytes int64) error {
	_, err := s.index.Propose(ctx, &control.Command{SetQuota: &control.SetQuota{Bucket: bucket, MaxObjects: maxObjects, MaxBytes: maxBytes}})
	return err
}

// sizeText writes a number of bytes for people.
func sizeText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, unit := float64(n), -1
	for f >= 1024 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[unit])
}
