package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

const someDrive = "01234567-89ab-4def-8123-456789abcdef"

// TestStorageChanges: each change reaches the mesh as it was asked for, over
// gRPC and as JSON, and what the mesh refuses comes back as it was said.
func TestStorageChanges(t *testing.T) {
	s := serve(t, nil)
	storage, ctx := pb.NewStorageServiceClient(s.conn), t.Context()
	for _, c := range []struct {
		want       string
		call       func() error
		path, body string
	}{
		{"drain drive " + someDrive + ", undo false, force false", func() error {
			return second(storage.DrainDrive(ctx, &pb.DrainDriveRequest{Id: someDrive}))
		}, "drives/" + someDrive + ":drain", ``},
		{"drain drive " + someDrive + ", undo true, force true", func() error {
			return second(storage.DrainDrive(ctx, &pb.DrainDriveRequest{Id: someDrive, Undo: true, Force: true}))
		}, "drives/" + someDrive + ":drain", `{"undo":true,"force":true}`},
		{"replace drive " + someDrive + ", force false", func() error {
			return second(storage.ReplaceDrive(ctx, &pb.ReplaceDriveRequest{Id: someDrive}))
		}, "drives/" + someDrive + ":replace", `{}`},
		{"replace drive " + someDrive + ", force true", func() error {
			return second(storage.ReplaceDrive(ctx, &pb.ReplaceDriveRequest{Id: someDrive, Force: true}))
		}, "drives/" + someDrive + ":replace", `{"force":true}`},
		{"drain pool cold, undo false, force false", func() error {
			return second(storage.DrainPool(ctx, &pb.DrainPoolRequest{Name: "cold"}))
		}, "pools/cold:drain", `{}`},
		{"drain pool cold, undo true, force true", func() error {
			return second(storage.DrainPool(ctx, &pb.DrainPoolRequest{Name: "cold", Undo: true, Force: true}))
		}, "pools/cold:drain", `{"undo":true,"force":true}`},
		{"rebalance, stop false", func() error {
			return second(storage.Rebalance(ctx, &pb.RebalanceRequest{}))
		}, "pools:rebalance", ``},
		{"rebalance, stop true", func() error {
			return second(storage.Rebalance(ctx, &pb.RebalanceRequest{Stop: true}))
		}, "pools:rebalance", `{"stop":true}`},
		{"heal, verify false", func() error {
			return second(storage.StartHeal(ctx, &pb.StartHealRequest{}))
		}, "heal:start", `{}`},
		{"heal, verify true", func() error {
			return second(storage.StartHeal(ctx, &pb.StartHealRequest{Verify: true}))
		}, "heal:start", `{"verify":true}`},
	} {
		s.mesh.changes, s.mesh.refuse = nil, nil
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.want, err)
		}
		resp, body := s.call(t, "POST", "/v1/"+c.path, c.body)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", c.want, resp.Status, body)
			continue
		}
		checkJSON(t, body, `{}`)
		if !slices.Equal(s.mesh.changes, []string{c.want, c.want}) {
			t.Errorf("asked of the mesh: %q, want %q twice", s.mesh.changes, c.want)
		}
		for _, kind := range []fault.Kind{fault.Conflict, fault.NoSpace, fault.NotFound, fault.Waiting} {
			s.mesh.refuse = fault.New(kind, "drive x", "has the last copy of something")
			checkStatus(t, c.want, c.call(), kind, "drive x")
			resp, body = s.call(t, "POST", "/v1/"+c.path, c.body)
			checkProblem(t, c.want, resp, body, kind, "drive x")
		}
	}
}

// TestStorageRefuses: what can't be an id or a name does not reach the mesh,
// and neither does a field or a parameter that there isn't.
func TestStorageRefuses(t *testing.T) {
	s := serve(t, nil)
	storage, ctx := pb.NewStorageServiceClient(s.conn), t.Context()
	for _, id := range []string{"", "A", "a b", "../x", "a.b", "ä", "a\x00", strings.Repeat("a", driveIDMaxBytes+1)} {
		checkStatus(t, "drain "+id, second(storage.DrainDrive(ctx, &pb.DrainDriveRequest{Id: id})), fault.InvalidArgument, "id")
		checkStatus(t, "replace "+id, second(storage.ReplaceDrive(ctx, &pb.ReplaceDriveRequest{Id: id})), fault.InvalidArgument, "id")
	}
	for _, name := range []string{"", "-a", "a-", "A", "a b", "a.b", strings.Repeat("a", 64)} {
		checkStatus(t, "drain "+name, second(storage.DrainPool(ctx, &pb.DrainPoolRequest{Name: name})), fault.InvalidArgument, "name")
		if name != "" {
			checkStatus(t, "of node "+name, second(storage.ListDrives(ctx, &pb.ListDrivesRequest{Node: name})), fault.InvalidArgument, "node")
			checkStatus(t, "of pool "+name, second(storage.ListDrives(ctx, &pb.ListDrivesRequest{Pool: name})), fault.InvalidArgument, "pool")
		}
	}
	for _, size := range []int32{-1, 1001} {
		checkStatus(t, "drives", second(storage.ListDrives(ctx, &pb.ListDrivesRequest{PageSize: size})), fault.InvalidArgument, "page_size")
		checkStatus(t, "pools", second(storage.ListPools(ctx, &pb.ListPoolsRequest{PageSize: size})), fault.InvalidArgument, "page_size")
	}
	for _, token := range []string{"x", "====", tokenOf("a", poolsListing+"x"), tokenOf("a", drivesListing+"n\x00")} {
		checkStatus(t, token, second(storage.ListDrives(ctx, &pb.ListDrivesRequest{PageToken: token})), fault.InvalidArgument, "page_token")
		checkStatus(t, token, second(storage.ListPools(ctx, &pb.ListPoolsRequest{PageToken: token})), fault.InvalidArgument, "page_token")
	}
	for _, c := range []struct{ method, path, body, subject string }{
		{"GET", "drives?name=a", ``, "name"},
		{"GET", "drives?node=A", ``, "node"},
		{"GET", "pools?pageSize=x", ``, "query"},
		{"GET", "heal?verify=true", ``, "verify"},
		{"GET", "heal", `{}`, "body"},
		{"POST", "heal:start", `{"verify":1}`, "body"},
		{"POST", "heal:start?verify=true", ``, "verify"},
		{"POST", "drives/X:drain", ``, "id"},
		{"POST", "pools:rebalance", `{"stop":true} {}`, "body"},
		{"POST", "pools/a:drain", `{"id":"x"}`, "body"},
	} {
		resp, body := s.call(t, c.method, "/v1/"+c.path, c.body)
		checkProblem(t, c.path+" "+c.body, resp, body, fault.InvalidArgument, c.subject)
	}
	for _, c := range [][2]string{{"DELETE", "drives"}, {"GET", "heal:start"}, {"POST", "pools"}} {
		resp, body := s.call(t, c[0], "/v1/"+c[1], "")
		checkProblem(t, c[0]+" "+c[1], resp, body, fault.MethodNotAllowed, "method")
	}
	if len(s.mesh.changes) > 0 {
		t.Errorf("reached the mesh: %q", s.mesh.changes)
	}
}

func TestListDrives(t *testing.T) {
	s := serve(t, nil)
	storage, ctx := pb.NewStorageServiceClient(s.conn), t.Context()
	for n := range 3 {
		for d := range 4 {
			s.mesh.drives = append(s.mesh.drives, DriveInfo{ID: fmt.Sprintf("d%d%d", n, d), Node: []string{"a", "a-b", "b"}[n], Pool: []string{"p", "q", "p"}[n]})
		}
	}
	s.mesh.drives[0] = DriveInfo{
		ID: "d00", Path: "/mnt/1", Node: "a", Pool: "p", Zone: "z", State: "degraded", TotalBytes: 3, UsedBytes: 1, FreeBytes: 2,
		Draining: true, Reachable: true, UnwellSince: time.Unix(1000, 0), Error: "slow",
	}
	for _, c := range []struct {
		node, pool, want string
	}{
		{"", "", "d00 d01 d02 d03 d10 d11 d12 d13 d20 d21 d22 d23"},
		{"a", "", "d00 d01 d02 d03"},
		{"", "p", "d00 d01 d02 d03 d20 d21 d22 d23"},
		{"b", "p", "d20 d21 d22 d23"},
		{"b", "q", ""},
		{"nobody", "", ""},
	} {
		for _, size := range []int32{0, 1, 3, 4, 5, 12} {
			var got []string
			r := &pb.ListDrivesRequest{Node: c.node, Pool: c.pool, PageSize: size}
			for {
				page, err := storage.ListDrives(ctx, r)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range page.GetDrives() {
					got = append(got, d.GetId())
				}
				if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
					break
				}
				if len(page.GetDrives()) != int(size) {
					t.Errorf("a page of %d that isn't the last, in pages of %d", len(page.GetDrives()), size)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("node %q, pool %q, pages of %d: %q, want %s", c.node, c.pool, size, got, c.want)
			}
		}
	}
	resp, body := s.call(t, "GET", "/v1/drives?pageSize=1", "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	checkJSON(t, body, `{"drives":[{"id":"d00","path":"/mnt/1","state":"DRIVE_STATE_DEGRADED","totalBytes":"3","usedBytes":"1","freeBytes":"2",
		"node":"a","pool":"p","zone":"z","draining":true,"reachable":true,"unwellSince":"1970-01-01T00:16:40Z","error":"slow"}],
		"nextPageToken":"`+tokenOf("a d00", drivesListing+"\x00")+`"}`)
	s.mesh.refuse = fault.New(fault.Waiting, "group system", "has no leader")
	resp, body = s.call(t, "GET", "/v1/drives", "")
	checkProblem(t, "drives", resp, body, fault.Waiting, "group system")
}

func TestListPools(t *testing.T) {
	s := serve(t, nil)
	s.mesh.pools = []PoolInfo{
		{Name: "cold", Nodes: []string{"a", "b"}, Zones: []string{"z1"}, Drives: 4, Usable: 3, DrainingDrives: 1, TotalBytes: 9, UsedBytes: 4, FreeBytes: 5, Copies: 3},
		{Name: "warm", Nodes: []string{"c"}, Drives: 1, DrainingDrives: 1, Draining: true, Copies: 0},
	}
	resp, body := s.call(t, "GET", "/v1/pools?page_size=1", "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	token := tokenOf("cold", poolsListing)
	checkJSON(t, body, `{"pools":[{"name":"cold","nodes":["a","b"],"zones":["z1"],"drives":4,"usableDrives":3,"drainingDrives":1,
		"totalBytes":"9","usedBytes":"4","freeBytes":"5","copies":3,"draining":false}],"nextPageToken":"`+token+`"}`)
	resp, body = s.call(t, "GET", "/v1/pools?pageToken="+token, "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	checkJSON(t, body, `{"pools":[{"name":"warm","nodes":["c"],"zones":[],"drives":1,"usableDrives":0,"drainingDrives":1,
		"totalBytes":"0","usedBytes":"0","freeBytes":"0","copies":0,"draining":true}],"nextPageToken":""}`)
}

func TestHealStatus(t *testing.T) {
	s := serve(t, nil)
	s.mesh.heal = &HealInfo{Phase: HealIdle}
	resp, body := s.call(t, "GET", "/v1/heal", "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	checkJSON(t, body, `{"leader":"","phase":"HEAL_PHASE_IDLE","scanned":"0","total":"0","done":"0","failed":"0","bytes":"0",
		"bytesPerSecond":0,"pending":"0","endangered":"0","unrecoverable":[],"unrecoverableCount":"0","stuck":[],"draining":[],
		"pass":"0","passing":false,"scrub":{"round":"0","segments":"0","bytes":"0","bad":"0","running":false,"fast":false},
		"rebalance":{"running":false,"scanned":"0","movedSegments":"0","movedBytes":"0","failed":"0","stopped":""}}`)
	s.mesh.heal = &HealInfo{
		Leader: "a", Phase: HealDraining, Since: time.Unix(1000, 0), Scanned: 1, Total: 2, Done: 3, Failed: 4, Bytes: 5, BytesPerSecond: 6.5,
		ETA: 90 * time.Second, Pending: 7, Endangered: 8, Pass: 9, Passing: true, Lost: []LostInfo{{"photos", "a", "s", "rotten"}}, LostCount: 101, Stuck: []StuckInfo{{"w", "y"}},
		Draining: []DrainInfo{
			{Kind: DrainsNode, Name: "n"},
			{Kind: DrainsDrive, Name: "d", Counted: true, LeftSegments: 1, LeftBytes: 2, ETA: time.Second},
			{Kind: DrainsPool, Name: "p", Counted: true, ETA: 0, Blocked: "no room", Done: true},
		},
		Scrub:     ScrubInfo{Round: 2, StartedAt: time.Unix(1000, 0), EndedAt: time.Unix(2000, 0), Segments: 3, Bytes: 4, Bad: 5, Running: true, Fast: true, ETA: time.Minute},
		Rebalance: RebalanceInfo{Running: true, StartedAt: time.Unix(1000, 0), EndedAt: time.Unix(2000, 0), Scanned: 1, MovedSegments: 2, MovedBytes: 3, Failed: 4, ETA: time.Hour, Stopped: "b"},
	}
	_, body = s.call(t, "GET", "/v1/heal", "")
	checkJSON(t, body, `{"leader":"a","phase":"HEAL_PHASE_DRAINING","since":"1970-01-01T00:16:40Z","scanned":"1","total":"2","done":"3","failed":"4","bytes":"5",
		"bytesPerSecond":6.5,"eta":"90s","pending":"7","endangered":"8","unrecoverable":[{"bucket":"photos","key":"a","segment":"s","why":"rotten"}],
		"unrecoverableCount":"101","stuck":[{"what":"w","why":"y"}],
		"draining":[{"kind":"DRAIN_KIND_NODE","name":"n","blocked":"","done":false},
			{"kind":"DRAIN_KIND_DRIVE","name":"d","leftSegments":"1","leftBytes":"2","eta":"1s","blocked":"","done":false},
			{"kind":"DRAIN_KIND_POOL","name":"p","leftSegments":"0","leftBytes":"0","blocked":"no room","done":true}],
		"scrub":{"round":"2","startedAt":"1970-01-01T00:16:40Z","endedAt":"1970-01-01T00:33:20Z","segments":"3","bytes":"4","bad":"5","running":true,"fast":true,"eta":"60s"},"pass":"9","passing":true,
		"rebalance":{"running":true,"startedAt":"1970-01-01T00:16:40Z","endedAt":"1970-01-01T00:33:20Z","scanned":"1","movedSegments":"2","movedBytes":"3","failed":"4","eta":"3600s","stopped":"b"}}`)
	for phase, want := range map[string]string{HealCopying: "COPYING", HealRebalancing: "REBALANCING", HealScrubbing: "SCRUBBING", "x": "UNSPECIFIED"} {
		s.mesh.heal.Phase = phase
		if _, body = s.call(t, "GET", "/v1/heal", ""); !strings.Contains(body, `"HEAL_PHASE_`+want+`"`) {
			t.Errorf("%s: %s", phase, body)
		}
	}
}

func TestBucketUsage(t *testing.T) {
	s := serve(t, nil)
	buckets, ctx := pb.NewBucketServiceClient(s.conn), t.Context()
	if _, err := buckets.CreateBucket(ctx, &pb.CreateBucketRequest{Bucket: "photos"}); err != nil {
		t.Fatal(err)
	}
	s.mesh.usage = BucketUsage{Objects: 3, Bytes: 1 << 40}
	resp, body := s.call(t, "GET", "/v1/buckets/photos/usage", "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	checkJSON(t, body, `{"usage":{"bucket":"photos","objects":"3","bytes":"1099511627776","maxObjects":"0","maxBytes":"0"}}`)
	resp, body = s.call(t, "POST", "/v1/buckets/photos:setQuota", `{"maxObjects":5,"maxBytes":"70"}`)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	checkJSON(t, body, `{"usage":{"bucket":"photos","objects":"3","bytes":"1099511627776","maxObjects":"5","maxBytes":"70"}}`)
	if _, err := buckets.SetBucketQuota(ctx, &pb.SetBucketQuotaRequest{Bucket: "photos"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"quota of photos: 5 objects, 70 bytes", "quota of photos: 0 objects, 0 bytes"}
	if !slices.Equal(s.mesh.changes, want) {
		t.Errorf("asked of the mesh: %q, want %q", s.mesh.changes, want)
	}
	s.mesh.changes = nil
	for _, c := range []struct {
		path, body string
		kind       fault.Kind
		subject    string
	}{
		{"photos:setQuota", `{"maxObjects":-1}`, fault.InvalidArgument, "max_objects"},
		{"photos:setQuota", `{"maxBytes":-1}`, fault.InvalidArgument, "max_bytes"},
		{"photos:setQuota", `{"maxBytes":"1GiB"}`, fault.InvalidArgument, "body"},
		{"photos:setQuota", `{"maxBytes":9223372036854775808}`, fault.InvalidArgument, "body"},
		{"nosuch:setQuota", `{"maxBytes":1}`, fault.BucketNotFound, `bucket "nosuch"`},
		{"NoSuch:setQuota", `{"maxBytes":1}`, fault.InvalidArgument, "bucket"},
	} {
		resp, body := s.call(t, "POST", "/v1/buckets/"+c.path, c.body)
		checkProblem(t, c.path+" "+c.body, resp, body, c.kind, c.subject)
	}
	_, err := buckets.GetBucketUsage(ctx, &pb.GetBucketUsageRequest{Bucket: "nosuch"})
	checkStatus(t, "nosuch", err, fault.BucketNotFound, `bucket "nosuch"`)
	_, err = buckets.GetBucketUsage(ctx, &pb.GetBucketUsageRequest{})
	checkStatus(t, "no name", err, fault.InvalidArgument, "bucket")
	if len(s.mesh.changes) > 0 {
		t.Errorf("reached the mesh: %q", s.mesh.changes)
	}
}
