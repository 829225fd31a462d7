package api

import (
	"cmp"
	"context"
	"slices"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// Storage is where payload is kept: drives, pools and the copies on them, and
// what buckets hold. What is asked of it are valid names and ids; whether there
// is such a thing, and what a change would lose, is its to say. Its errors are
// *fault.Error or the context's.
type Storage interface {
	// Drives describes every drive of the mesh, in the order of their nodes'
	// names and then of their ids.
	Drives(ctx context.Context) ([]DriveInfo, error)
	// DrainDrive has a drive emptied, or ends that.
	DrainDrive(ctx context.Context, id string, undo, force bool) error
	// ReplaceDrive takes a drive out of the mesh.
	ReplaceDrive(ctx context.Context, id string, force bool) error
	// Pools describes the pools in the order of their names.
	Pools(ctx context.Context) ([]PoolInfo, error)
	// DrainPool has a pool emptied, or ends that.
	DrainPool(ctx context.Context, name string, undo, force bool) error
	// Rebalance begins to even out the drives, or ends that.
	Rebalance(ctx context.Context, stop bool) error

	// HealStatus says how the copies are.
	HealStatus(ctx context.Context) (*HealInfo, error)
	// StartHeal has all copies looked at now, and read where verify says so.
	StartHeal(ctx context.Context, verify bool) error

	// BucketUsage says what a bucket holds. BucketNotFound.
	BucketUsage(ctx context.Context, bucket string) (*BucketUsage, error)
	// SetQuota sets what a bucket may hold; 0 is no limit. BucketNotFound.
	SetQuota(ctx context.Context, bucket string, maxObjects, maxBytes int64) error
}

// PoolInfo describes one pool.
type PoolInfo struct {
	Name                             string
	Nodes, Zones                     []string // in their order; zones that have a name
	Drives, Usable, DrainingDrives   int
	TotalBytes, UsedBytes, FreeBytes int64 // of the drives whose sizes are known
	Copies                           int   // that new payload gets
	Draining                         bool  // all its drives are
}

// BucketUsage is what a bucket holds and what it may hold; a limit of 0 is none.
type BucketUsage struct {
	Bucket               string
	Objects, Bytes       int64
	MaxObjects, MaxBytes int64
}

// storageService implements pb.StorageServiceServer; healing is in heal.go.
type storageService struct {
	pb.UnimplementedStorageServiceServer
	storage Storage
}

// The listings of the storage service, as their tokens name them.
const (
	drivesListing = "drives\x00"
	poolsListing  = "pools"
)

func (s *storageService) ListDrives(ctx context.Context, r *pb.ListDrivesRequest) (*pb.ListDrivesResponse, error) {
	for _, name := range []struct{ field, value string }{{"node", r.GetNode()}, {"pool", r.GetPool()}} {
		if name.value == "" {
			continue
		}
		if err := validateName(name.field, name.value); err != nil {
			return nil, err
		}
	}
	listing := drivesListing + r.GetNode() + "\x00" + r.GetPool()
	limit, after, err := pageOf(r, listing)
	if err != nil {
		return nil, err
	}
	all, err := s.storage.Drives(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(d DriveInfo) bool {
		return r.GetNode() != "" && d.Node != r.GetNode() || r.GetPool() != "" && d.Pool != r.GetPool()
	})
	page, next := pageOfSorted(all, drivePosition, after, limit)
	resp := &pb.ListDrivesResponse{Drives: make([]*pb.Drive, len(page)), NextPageToken: tokenOf(next, listing)}
	for i := range page {
		resp.Drives[i] = protoDrive(&page[i])
	}
	return resp, nil
}

// drivePosition orders drives as they are listed: the space sorts before all that
// a node's name may have.
func drivePosition(d *DriveInfo) string { return d.Node + " " + d.ID }

// pageOfSorted cuts one page out of what is sorted by position, and gives the
// position of its last where there is more.
func pageOfSorted[T any](all []T, position func(*T) string, after string, limit int) (page []T, next string) {
	from := 0
	if after != "" {
		from = len(all)
		if i := slices.IndexFunc(all, func(v T) bool { return cmp.Compare(position(&v), after) > 0 }); i >= 0 {
			from = i
		}
	}
	page = all[from:]
	if len(page) > limit {
		page = page[:limit]
		next = position(&page[limit-1])
	}
	return page, next
}

func protoDrive(d *DriveInfo) *pb.Drive {
	return &pb.Drive{
		Id: d.ID, Path: d.Path, State: driveState(d.State), Node: d.Node, Pool: d.Pool, Zone: d.Zone,
		TotalBytes: d.TotalBytes, UsedBytes: d.UsedBytes, FreeBytes: d.FreeBytes,
		Draining: d.Draining, Reachable: d.Reachable, UnwellSince: protoTime(d.UnwellSince), Error: d.Error,
	}
}

// driveIDMaxBytes is more than the 36 of a UUID.
const driveIDMaxBytes = 64

// validateDriveID checks that an id can be one: whether there is such a drive
// the index knows.
func validateDriveID(id string) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, "id", format, args...)
	}
	switch {
	case id == "":
		return bad("is empty")
	case len(id) > driveIDMaxBytes:
		return bad("is %d bytes long; %d are allowed", len(id), driveIDMaxBytes)
	}
	for i, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return bad("has something else than a-z, 0-9 and - at byte %d", i)
		}
	}
	return nil
}

func (s *storageService) DrainDrive(ctx context.Context, r *pb.DrainDriveRequest) (*pb.DrainDriveResponse, error) {
	if err := validateDriveID(r.GetId()); err != nil {
		return nil, err
	}
	if err := s.storage.DrainDrive(ctx, r.GetId(), r.GetUndo(), r.GetForce()); err != nil {
		return nil, err
	}
	return &pb.DrainDriveResponse{}, nil
}

func (s *storageService) ReplaceDrive(ctx context.Context, r *pb.ReplaceDriveRequest) (*pb.ReplaceDriveResponse, error) {
	if err := validateDriveID(r.GetId()); err != nil {
		return nil, err
	}
	if err := s.storage.ReplaceDrive(ctx, r.GetId(), r.GetForce()); err != nil {
		return nil, err
	}
	return &pb.ReplaceDriveResponse{}, nil
}

func (s *storageService) ListPools(ctx context.Context, r *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	limit, after, err := pageOf(r, poolsListing)
	if err != nil {
		return nil, err
	}
	all, err := s.storage.Pools(ctx)
	if err != nil {
		return nil, err
	}
	page, next := pageOfSorted(all, func(p *PoolInfo) string { return p.Name }, after, limit)
	resp := &pb.ListPoolsResponse{Pools: make([]*pb.Pool, len(page)), NextPageToken: tokenOf(next, poolsListing)}
	for i := range page {
		p := &page[i]
		resp.Pools[i] = &pb.Pool{
			Name: p.Name, Nodes: p.Nodes, Zones: p.Zones, Drives: int32(p.Drives), UsableDrives: int32(p.Usable),
			DrainingDrives: int32(p.DrainingDrives), TotalBytes: p.TotalBytes, UsedBytes: p.UsedBytes, FreeBytes: p.FreeBytes,
			Copies: int32(p.Copies), Draining: p.Draining,
		}
	}
	return resp, nil
}

func (s *storageService) DrainPool(ctx context.Context, r *pb.DrainPoolRequest) (*pb.DrainPoolResponse, error) {
	if err := validateName("name", r.GetName()); err != nil {
		return nil, err
	}
	if err := s.storage.DrainPool(ctx, r.GetName(), r.GetUndo(), r.GetForce()); err != nil {
		return nil, err
	}
	return &pb.DrainPoolResponse{}, nil
}

func (s *storageService) Rebalance(ctx context.Context, r *pb.RebalanceRequest) (*pb.RebalanceResponse, error) {
	if err := s.storage.Rebalance(ctx, r.GetStop()); err != nil {
		return nil, err
	}
	return &pb.RebalanceResponse{}, nil
}
