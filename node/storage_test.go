package node

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/control"
)

// get decodes the JSON of a path.
func get[T any](t *testing.T, r *running, path string) (v T) {
	t.Helper()
	if err := json.Unmarshal(expect(t, http.StatusOK, http.MethodGet, r.url(path), nil), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func post(t *testing.T, status int, r *running, path, body string) string {
	t.Helper()
	return string(expect(t, status, http.MethodPost, r.url(path), strings.NewReader(body)))
}

type listedPools struct {
	Pools []struct {
		Name                                string
		Nodes, Zones                        []string
		Drives, UsableDrives, DrainingDrive int
		Copies                              int
		Draining                            bool
	}
}

type healStatus struct {
	Leader, Phase    string
	Pass             string
	Passing          bool
	Pending          string
	Unrecoverable    []any
	Draining         []healDrain
	Scrub, Rebalance map[string]any
}

type healDrain struct {
	Kind, Name, Blocked string
	LeftSegments        *string
	Done                bool
}

// TestStorageOverHTTP takes every path of StorageService, and those of usage and
// quota, on a mesh of two pools.
func TestStorageOverHTTP(t *testing.T) {
	cfgs := meshConfigs(t, t.TempDir(), 4)
	for i := range cfgs {
		cfgs[i].Pool, cfgs[i].Zone = []string{"cold", "warm"}[i%2], []string{"z1", "z1", "z2", "z2"}[i]
		cfgs[i].Drives = cfgs[i].Drives[:1]
	}
	nodes := startNodes(t, cfgs)
	r := nodes[1]
	waitFor(t, "the drives to be known to be well", func() bool {
		p := get[listedPools](t, r, "/v1/pools")
		return len(p.Pools) == 2 && p.Pools[0].UsableDrives == 2 && p.Pools[1].UsableDrives == 2
	})
	pools := get[listedPools](t, r, "/v1/pools").Pools
	if p := pools[0]; p.Name != "cold" || strings.Join(p.Nodes, " ") != "a c" || strings.Join(p.Zones, " ") != "z1 z2" || p.Drives != 2 || p.Copies != 2 || p.Draining {
		t.Errorf("%+v", p)
	}
	makeBucket(t, r, "photos")
	body := randomBytes(100 << 10)
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/"+key), bytes.NewReader(body))
	}

	// Usage and quota.
	type usage struct {
		Usage struct{ Bucket, Objects, Bytes, MaxObjects, MaxBytes string }
	}
	if u := get[usage](t, nodes[2], "/v1/buckets/photos/usage").Usage; u.Bucket != "photos" || u.Objects != "6" || u.Bytes != "614400" || u.MaxObjects != "0" {
		t.Errorf("%+v", u)
	}
	post(t, http.StatusOK, r, "/v1/buckets/photos:setQuota", `{"maxObjects":6}`)
	over := expect(t, http.StatusTooManyRequests, http.MethodPut, r.url("/data/photos/g"), bytes.NewReader(body))
	if !strings.Contains(string(over), `"urn:gridloom:error:quota_exceeded"`) {
		t.Errorf("%s", over)
	}
	expect(t, http.StatusNoContent, http.MethodPut, r.url("/data/photos/a"), bytes.NewReader(body))
	expect(t, http.StatusOK, http.MethodGet, r.url("/data/photos/a?verify=always"), nil)

	// Each drive, with its node's pool and zone.
	drives := listDrives(t, r)
	if len(drives) != 4 || drives[2].Node != "c" || drives[2].Pool != "cold" || drives[2].Zone != "z2" || drives[2].State != "DRIVE_STATE_ONLINE" {
		t.Errorf("%+v", drives)
	}

	// A pool is emptied into the other.
	post(t, http.StatusOK, r, "/v1/pools/cold:drain", "")
	drained := func(kind, name string) bool {
		for _, d := range get[healStatus](t, r, "/v1/heal").Draining {
			if d.Kind == kind && d.Name == name {
				return d.Done
			}
		}
		t.Errorf("%s %s isn't drained", kind, name)
		return true
	}
	waitFor(t, "the pool to be empty", func() bool { return drained("DRAIN_KIND_POOL", "cold") })
	if refusal := post(t, http.StatusConflict, r, "/v1/pools/warm:drain", ""); !strings.Contains(refusal, "pool warm: has the only drives that new payload can go to") {
		t.Errorf("%s", refusal)
	}
	post(t, http.StatusOK, r, "/v1/pools/cold:drain", `{"undo":true}`)
	if refusal := post(t, http.StatusConflict, r, "/v1/drives/"+drives[1].ID+":drain", ""); !strings.Contains(refusal, "has the only drives of zone z1 in pool warm") {
		t.Errorf("%s", refusal)
	}
	post(t, http.StatusOK, r, "/v1/drives/"+drives[1].ID+":drain", `{"force":true}`)
	waitFor(t, "the drive to be empty", func() bool { return drained("DRAIN_KIND_DRIVE", drives[1].ID) })
	post(t, http.StatusOK, r, "/v1/drives/"+drives[1].ID+":drain", `{"undo":true}`)

	// Healing and rebalancing, on request.
	before := get[healStatus](t, r, "/v1/heal")
	post(t, http.StatusOK, r, "/v1/heal:start", `{"verify":true}`)
	waitFor(t, "all copies to be looked at", func() bool {
		s := get[healStatus](t, r, "/v1/heal")
		return s.Pass != before.Pass && !s.Passing && s.Phase == "HEAL_PHASE_IDLE" && s.Scrub["running"] == false && s.Pending == "0"
	})
	if s := get[healStatus](t, r, "/v1/heal"); len(s.Unrecoverable) > 0 || s.Leader == "" || s.Scrub["bad"] != "0" {
		t.Errorf("%+v", s)
	}
	post(t, http.StatusOK, r, "/v1/pools:rebalance", "")
	waitFor(t, "the rebalance to end", func() bool { return get[healStatus](t, r, "/v1/heal").Rebalance["running"] == false })
	post(t, http.StatusOK, r, "/v1/pools:rebalance", `{"stop":true}`)

	for path, want := range map[string]string{
		"/v1/pools/nosuch:drain":                                  "pool nosuch: has no drives: there is no such pool",
		"/v1/drives/00000000-0000-4000-8000-000000000000:drain":   "drive 00000000-0000-4000-8000-000000000000: is on no node of the mesh",
		"/v1/drives/00000000-0000-4000-8000-000000000000:replace": "drive 00000000-0000-4000-8000-000000000000: is on no node of the mesh",
		"/v1/cluster/nodes/nosuch:drain":                          "node nosuch: isn't part of the mesh",
		"/v1/cluster/nodes/nosuch:replace":                        "node nosuch: isn't part of the mesh",
	} {
		if text := post(t, http.StatusNotFound, r, path, ""); !strings.Contains(text, want) {
			t.Errorf("%s: %s", path, text)
		}
	}
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		if got := expect(t, http.StatusOK, http.MethodGet, nodes[3].url("/data/photos/"+key), nil); !bytes.Equal(got, body) {
			t.Errorf("%s came back with %d bytes", key, len(got))
		}
	}
	checkStorageMetrics(t, nodes)
}

// checkStorageMetrics looks for what is exported of drives and copies: what one
// node coordinates, once in the mesh.
func checkStorageMetrics(t *testing.T, nodes []*running) {
	t.Helper()
	count := map[string]int{}
	names := []string{
		`gridloom_drive_state\{[^}]*state="online"[^}]*\} 1`, `gridloom_heal_pending\{?[^}]*\}? 0`, `gridloom_heal_unrecoverable\{?[^}]*\}? 0`,
		`gridloom_heal_endangered\{?[^}]*\}? \d+`, `gridloom_heal_copies_total\{?[^}]*\}? [1-9]`, `gridloom_heal_bytes_total\{?[^}]*\}? [1-9]`,
	}
	for _, r := range nodes {
		text, err := io.ReadAll(bytes.NewReader(expect(t, http.StatusOK, http.MethodGet, r.url("/metrics"), nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if regexp.MustCompile(`(?m)^` + name).Match(text) {
				count[name]++
			}
		}
	}
	for i, name := range names {
		switch n := count[name]; {
		case i == 0 && n != len(nodes), i > 0 && i < 4 && n != 1, i >= 4 && n < 1:
			t.Errorf("%s: on %d nodes", name, n)
		}
	}
}

// TestDrainsOf: what drains is told by nodes, drives of their own and whole pools.
func TestDrainsOf(t *testing.T) {
	got := drainsOf(&control.Topology{Nodes: []control.Node{
		{Name: "a", Pool: "p", Drives: []string{"a1", "a2"}, Draining: true},
		{Name: "b", Pool: "p", Drives: []string{"b1"}, DrainingDrives: []string{"b1"}},
		{Name: "c", Pool: "q", Drives: []string{"c1", "c2"}, DrainingDrives: []string{"c2"}},
		{Name: "d", Pool: "q", Leaving: true},
		{Name: "e", Pool: ""},
	}})
	var text []string
	for _, d := range got {
		text = append(text, d.kind+" "+d.name+": "+strings.Join(d.drives, " "))
	}
	want := []string{
		api.DrainsNode + " a: a1 a2", api.DrainsNode + " d: ", api.DrainsDrive + " b1: b1", api.DrainsDrive + " c2: c2", api.DrainsPool + " p: a1 a2 b1",
	}
	if strings.Join(text, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, want %q", text, want)
	}
}
