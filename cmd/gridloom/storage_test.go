package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// userOf are the variables for a client of one of a mesh's nodes.
func userOf(b banner, node int) []string {
	return []string{"GRIDLOOM_ENDPOINT=" + b.Nodes[node].GRPC, "GRIDLOOM_KEY=" + b.Key, "GRIDLOOM_TIMEOUT=60s"}
}

// must runs a command that has to succeed, and gives its output.
func must(t *testing.T, env []string, args string) string {
	t.Helper()
	r := try(t, env, "", strings.Fields(args)...)
	if r.code != exitDone {
		t.Fatalf("gridloom %s: exit code %d: %s%s", args, r.code, r.out, r.errOut)
	}
	return r.out
}

// refused runs a command that has to fail, and looks for words in its error.
func refused(t *testing.T, env []string, args string, words ...string) {
	t.Helper()
	r := try(t, env, "", strings.Fields(args)...)
	if r.code != exitFailed || r.out != "" {
		t.Errorf("gridloom %s: exit code %d: %s%s; want it refused", args, r.code, r.out, r.errOut)
	}
	for _, w := range words {
		if !strings.Contains(r.errOut, w) {
			t.Errorf("gridloom %s: %q has no %q", args, r.errOut, w)
		}
	}
}

// until waits for something to become true that no event tells of.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !there(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// lines parses an output of one JSON object a line.
func lines[T any](t *testing.T, out string) (all []T) {
	t.Helper()
	for line := range strings.Lines(out) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

// storeFiles stores files in the bucket files, each with its own content.
func storeFiles(t *testing.T, env []string, count, sizeBytes int) (folder string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "files")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		content := []byte(strings.Repeat(fmt.Sprintf("%08d", i), sizeBytes/8))
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(t, env, "mb files")
	must(t, env, "put -r "+folder+" files/")
	return folder
}

// sameFiles fetches what storeFiles has stored, every byte compared with its
// checksum on the drives.
func sameFiles(t *testing.T, env []string, folder string) {
	t.Helper()
	got := filepath.Join(t.TempDir(), "got")
	must(t, env, "get -r --verify files "+got)
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		want, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(filepath.Join(got, "files", e.Name())); err != nil || string(have) != string(want) {
			t.Errorf("%s came back with %d bytes, %v", e.Name(), len(have), err)
		}
	}
}

// payloadFiles counts the payload files of a drive.
func payloadFiles(t *testing.T, dir string) (count int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "payload", "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// TestDrainAndReplace takes a mesh through what an operator does: nodes, drives
// and pools are emptied and replaced, and everything stays readable.
func TestDrainAndReplace(t *testing.T) {
	const files = 24
	data := filepath.Join(t.TempDir(), "mesh")
	b, _ := startDev(t, "--nodes", "5", "--drives", "1", "--data", data)
	env, other := userOf(b, 0), userOf(b, 2)
	folder := storeFiles(t, env, files, 100<<10)
	drives := lines[jsonDrive](t, must(t, env, "drive ls --json"))
	if len(drives) != 5 {
		t.Fatalf("%d drives: %+v", len(drives), drives)
	}
	for i, d := range drives {
		if d.Type != "drive" || d.Node != fmt.Sprintf("node%d", i+1) || d.Pool != "default" || d.State != "online" || !d.Reachable || d.Draining || d.Total == 0 {
			t.Errorf("%+v", d)
		}
	}
	text := must(t, env, "drive ls --node node2")
	if want := regexp.MustCompile(`(?m)^DRIVE +NODE +POOL +ZONE +STATE +USED +FREE +TOTAL +PATH +NOTES\n` + drives[1].ID + ` +node2 +default +- +online +[\d.]+ \wiB +[\d.]+ \wiB +[\d.]+ \wiB +` + regexp.QuoteMeta(drives[1].Path)); !want.MatchString(text) {
		t.Errorf("%s", text)
	}
	until(t, "all drives to be known to be well", func() bool {
		pools := lines[jsonPool](t, must(t, other, "pool ls --json"))
		return len(pools) == 1 && pools[0].Name == "default" && pools[0].Drives == 5 && pools[0].Usable == 5 && pools[0].Copies == 3 && len(pools[0].Nodes) == 5
	})

	// A drive is emptied.
	if out := must(t, env, "drive drain node3:"+drives[2].Path+" --wait"); !strings.HasSuffix(out, "drive "+drives[2].ID+" is empty\n") {
		t.Errorf("%q", out)
	}
	sameFiles(t, env, folder)

	// A drive is lost, and replaced without a restart.
	if out := must(t, env, "drive replace "+drives[1].ID); out != "drive "+drives[1].ID+" is out of the mesh: another may take its place\n" {
		t.Errorf("%q", out)
	}
	until(t, "the node to give up the drive", func() bool {
		d := lines[jsonDrive](t, must(t, env, "drive ls --node node2 --json"))
		return len(d) == 1 && strings.Contains(d[0].Error, "was taken out of the mesh")
	})
	if err := os.RemoveAll(drives[1].Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(drives[1].Path, 0o700); err != nil {
		t.Fatal(err)
	}
	until(t, "another drive to be there", func() bool {
		d := lines[jsonDrive](t, must(t, env, "drive ls --node node2 --json"))
		return len(d) == 1 && d[0].State == "online" && d[0].ID != drives[1].ID && d[0].Path == drives[1].Path
	})
	must(t, env, "heal start --verify --wait")
	sameFiles(t, other, folder)

	// A node is emptied, with what the index says as the witness.
	if out := must(t, env, "node drain node4 --wait"); out != "node4 is being emptied\nnode node4 is empty\n" {
		t.Errorf("%q", out)
	}
	if d := lines[jsonDrive](t, must(t, env, "drive ls --node node4 --json")); len(d) != 1 || !d[0].Draining {
		t.Errorf("%+v", d)
	}
	var heal jsonHeal
	if err := json.Unmarshal([]byte(must(t, other, "heal status --json")), &heal); err != nil {
		t.Fatal(err)
	}
	if len(heal.Draining) != 2 || heal.Draining[0].Kind != "node" || heal.Draining[0].Name != "node4" || !heal.Draining[0].Done ||
		heal.Draining[1].Kind != "drive" || heal.Draining[1].Name != drives[2].ID || !heal.Draining[1].Done || heal.Unrecoverable != 0 || heal.Pending != 0 {
		t.Errorf("%+v", heal)
	}
	if text := must(t, env, "heal status"); !regexp.MustCompile(`(?m)^node +node4 +nothing *$`).MatchString(text) {
		t.Errorf("%s", text)
	}
	sameFiles(t, env, folder)
	must(t, env, "node drain node4 --undo")
	must(t, env, "drive drain "+drives[2].ID[:8]+" --undo")

	count := 0
	for _, d := range drives {
		count += payloadFiles(t, d.Path)
	}
	if count < 3*files {
		t.Errorf("there are %d payload files, want 3 for each of %d", count, files)
	}
	must(t, env, "pool rebalance --wait")
	must(t, env, "pool rebalance --stop")

	// What there isn't.
	for _, args := range []string{"drive drain nosuch:/d", "drive replace 00000000-0000-4000-8000-000000000000", "drive drain zzz", "pool drain nosuch", "node drain nosuch"} {
		if r := try(t, env, "", strings.Fields(args)...); r.code != exitNotFound || r.out != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// TestPoolsOfDev: a pool is emptied into another, and is the last one then.
func TestPoolsOfDev(t *testing.T) {
	b, _ := startDev(t, "--nodes", "4", "--drives", "1", "--pools", "2")
	env := userOf(b, 1)
	folder := storeFiles(t, env, 12, 64<<10)
	pools := lines[jsonPool](t, must(t, env, "pool ls --json"))
	if len(pools) != 2 || pools[0].Name != "pool1" || pools[1].Name != "pool2" || strings.Join(pools[0].Nodes, " ") != "node1 node3" || pools[0].Copies != 2 {
		t.Fatalf("%+v", pools)
	}
	well := func(pool string) { // drives that are slow just now take no payload
		until(t, pool+" to be known to be well", func() bool {
			return slices.ContainsFunc(lines[jsonPool](t, must(t, env, "pool ls --json")), func(p jsonPool) bool {
				return p.Name == pool && p.Usable == 2
			})
		})
	}
	well("pool2")
	if out := must(t, env, "pool drain pool1 --wait"); out != "pool pool1 is being emptied\npool pool1 is empty\n" {
		t.Errorf("%q", out)
	}
	if text := must(t, env, "pool ls"); !regexp.MustCompile(`(?m)^pool1 +node1,node3 +- +2 +0 +0 .* draining$`).MatchString(text) {
		t.Errorf("%s", text)
	}
	sameFiles(t, env, folder)
	well("pool2") // or it would be no worse
	refused(t, env, "pool drain pool2", "pool pool2: has the only drives that new payload can go to")
	must(t, env, "pool drain pool1 --undo")
	if pools = lines[jsonPool](t, must(t, env, "pool ls --json")); pools[0].Draining || pools[0].Leaving != 0 {
		t.Errorf("%+v", pools)
	}
	if r := try(t, nil, "", "dev", "--nodes", "2", "--pools", "3", "--port", "0"); r.code != exitUsage || !strings.Contains(r.errOut, "--pools: 2 nodes are not enough for 3 pools") {
		t.Errorf("%+v", r)
	}
}

// TestQuotas: what a bucket holds is told exactly, and limited.
func TestQuotas(t *testing.T) {
	b, _ := startDev(t, "--nodes", "1", "--drives", "1")
	env := userOf(b, 0)
	folder := storeFiles(t, env, 4, 16<<10)
	usage := func() jsonUsage {
		t.Helper()
		return lines[jsonUsage](t, must(t, env, "bucket usage files --json"))[0]
	}
	if u := usage(); u != (jsonUsage{Type: "usage", Bucket: "files", Objects: 4, Bytes: 64 << 10}) {
		t.Errorf("%+v", u)
	}
	if text := trimmed(must(t, env, "bucket usage")); text != "BUCKET  OBJECTS  OF  SIZE    OF\ndemo    0        -   0       -\nfiles   4        -   64 KiB  -\n" {
		t.Errorf("%s", text)
	}
	if text := trimmed(must(t, env, "bucket quota files --objects 5")); text != "BUCKET  OBJECTS  OF  SIZE    OF\nfiles   4        5   64 KiB  -\n" {
		t.Errorf("%s", text)
	}
	file := filepath.Join(folder, "0")
	must(t, env, "put "+file+" files/fifth")
	refused(t, env, "put "+file+" files/sixth", "has 5 objects, and its quota is 5")
	must(t, env, "put "+file+" files/fifth") // in its own place
	must(t, env, "bucket quota files --size 81KiB --objects none")
	refused(t, env, "put "+file+" files/sixth")
	if r := try(t, env, "", "put", "--json", file, "files/sixth"); !strings.Contains(r.errOut, `"reason":"quota_exceeded"`) {
		t.Errorf("%+v", r)
	}
	if u := usage(); u.Objects != 5 || u.Bytes != 80<<10 || u.MaxObjects != 0 || u.MaxBytes != 81<<10 {
		t.Errorf("%+v", u)
	}
	must(t, env, "bucket quota files --size none")
	must(t, env, "put "+file+" files/sixth")
	must(t, env, "rm -r files")
	if u := usage(); u.Objects != 0 || u.Bytes != 0 {
		t.Errorf("%+v", u)
	}
	for _, args := range []string{"bucket usage nosuch", "bucket quota nosuch --size 1"} {
		if r := try(t, env, "", strings.Fields(args)...); r.code != exitNotFound || !strings.Contains(r.errOut, "nosuch") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	// The only drive there is.
	var d []jsonDrive
	until(t, "the drive to be known to be well", func() bool {
		d = lines[jsonDrive](t, must(t, env, "drive ls --json"))
		return len(d) == 1 && d[0].State == "online"
	})
	refused(t, env, "drive drain "+d[0].ID, "drive "+d[0].ID+": has the only drives that new payload can go to")
	refused(t, env, "drive replace "+d[0].ID, "drive "+d[0].ID+": has the only drives that new payload can go to")
}
