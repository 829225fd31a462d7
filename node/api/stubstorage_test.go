package api

import "context"

// What stubMesh is of a Storage: it gives what it was given, and writes down
// what it is asked to change.

func (m *stubMesh) Drives(context.Context) ([]DriveInfo, error) { return m.drives, m.refuse }

func (m *stubMesh) Pools(context.Context) ([]PoolInfo, error) { return m.pools, m.refuse }

func (m *stubMesh) HealStatus(context.Context) (*HealInfo, error) { return m.heal, m.refuse }

func (m *stubMesh) DrainDrive(_ context.Context, id string, undo, force bool) error {
	return m.change("drain drive %s, undo %v, force %v", id, undo, force)
}

func (m *stubMesh) ReplaceDrive(_ context.Context, id string, force bool) error {
	return m.change("replace drive %s, force %v", id, force)
}

func (m *stubMesh) DrainPool(_ context.Context, name string, undo, force bool) error {
	return m.change("drain pool %s, undo %v, force %v", name, undo, force)
}

func (m *stubMesh) Rebalance(_ context.Context, stop bool) error {
	return m.change("rebalance, stop %v", stop)
}

func (m *stubMesh) StartHeal(_ context.Context, verify bool) error {
	return m.change("heal, verify %v", verify)
}

func (m *stubMesh) BucketUsage(_ context.Context, bucket string) (*BucketUsage, error) {
	u := m.usage
	u.Bucket = bucket
	return &u, m.refuse
}

func (m *stubMesh) SetQuota(_ context.Context, bucket string, maxObjects, maxBytes int64) error {
	m.usage.MaxObjects, m.usage.MaxBytes = maxObjects, maxBytes
	return m.change("quota of %s: %d objects, %d bytes", bucket, maxObjects, maxBytes)
}
