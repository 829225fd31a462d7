package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
)

// lookOften is how often nodes of these tests look at their paths.
const lookOften = 50 * time.Millisecond

// runLooking starts a node that looks at its paths often, and waits for it.
func runLooking(t *testing.T, cfg Config, log *slog.Logger) *running {
	t.Helper()
	n, err := Open(context.Background(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	n.drivesEvery = lookOften
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Node: n, cancel: cancel, done: make(chan struct{})}
	go func() {
		r.err = n.Run(ctx)
		close(r.done)
	}()
	t.Cleanup(func() { r.stop(t) })
	r.await(t)
	return r
}

// again makes a configuration of a lone node that can be started once more, at
// other addresses: its old ones may be somebody else's by now.
func again(t *testing.T, cfg Config) Config {
	t.Helper()
	for _, l := range []*ListenerConfig{&cfg.GRPC, &cfg.HTTP, &cfg.Peer} {
		l.Listener = openListener(t)
	}
	if len(cfg.Peers) != 1 {
		t.Fatalf("%d peers know the old address", len(cfg.Peers))
	}
	cfg.Peers = []Peer{{Name: cfg.Name, URL: "http://" + cfg.Peer.Listener.Addr().String()}}
	return cfg
}

// listedDrive is a drive as /v1/drives has it.
type listedDrive struct {
	ID, Path, State, Node, Pool, Zone, Error string
	Draining, Reachable                      bool
}

func listDrives(t *testing.T, r *running) []listedDrive {
	t.Helper()
	var page struct{ Drives []listedDrive }
	if err := json.Unmarshal(expect(t, http.StatusOK, http.MethodGet, r.url("/v1/drives"), nil), &page); err != nil {
		t.Fatal(err)
	}
	return page.Drives
}

// atPath gives the drive at a path, and fails where there isn't one.
func atPath(t *testing.T, r *running, path string) listedDrive {
	t.Helper()
	all := listDrives(t, r)
	i := slices.IndexFunc(all, func(d listedDrive) bool { return d.Path == path })
	if i < 0 {
		t.Fatalf("nothing is at %s: %+v", path, all)
	}
	return all[i]
}

// TestBrokenDriveDoesNotStopANode: a node with another drive runs, says what is
// wrong with the one, and takes it when it is well.
func TestBrokenDriveDoesNotStopANode(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Zone = "rack-1"
	first := runLooking(t, cfg, slog.New(slog.DiscardHandler))
	broken := atPath(t, first, cfg.Drives[1])
	if broken.State != "DRIVE_STATE_ONLINE" || broken.Pool != "default" || broken.Zone != "rack-1" || broken.Node != "a" || !broken.Reachable {
		t.Errorf("%+v", broken)
	}
	makeBucket(t, first, "things")
	first.stop(t)

	aside := cfg.Drives[1] + "-aside"
	foreign := `{"version":1,"id":"` + dataio.NewID().String() + `","deployment":"5e0f8a43-0000-4000-8000-000000000000","node":"a"}`
	for _, c := range []struct {
		what, file, says string
	}{
		{"not mounted", "", "it is blank, where drive " + broken.ID + " is expected: is it mounted? (if drive " + broken.ID + " is gone for good: gridloom drive replace " + broken.ID + ")"},
		{"of another mesh", foreign, "it is a drive of deployment 5e0f8a43-0000-4000-8000-000000000000"},
		{"not a drive's", "{}", "drive.json: version 0"},
	} {
		if err := os.Rename(cfg.Drives[1], aside); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(cfg.Drives[1], 0o700); err != nil {
			t.Fatal(err)
		}
		if c.file != "" {
			if err := os.WriteFile(filepath.Join(cfg.Drives[1], "drive.json"), []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg = again(t, cfg)
		var said textLog
		r := runLooking(t, cfg, slog.New(slog.NewTextHandler(&said, nil)))
		if d := atPath(t, r, cfg.Drives[1]); d.State != "DRIVE_STATE_OFFLINE" || d.ID != broken.ID || d.Reachable || !strings.Contains(d.Error, c.says) {
			t.Errorf("%s: %+v; want %s", c.what, d, c.says)
		}
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/things/"+strings.ReplaceAll(c.what, " ", "-")), bytes.NewReader(randomBytes(1000)))
		if left, err := os.ReadDir(cfg.Drives[1]); err != nil || c.file == "" && len(left) > 0 || len(left) > 1 {
			t.Errorf("%s: %v, %v", c.what, left, err)
		}
		if err := os.RemoveAll(cfg.Drives[1]); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, cfg.Drives[1]); err != nil {
			t.Fatal(err)
		}
		waitFor(t, c.what+": the drive to be used", func() bool {
			d := atPath(t, r, cfg.Drives[1])
			return d.State == "DRIVE_STATE_ONLINE" && d.ID == broken.ID
		})
		if n := strings.Count(said.String(), "a drive can't be used"); n != 1 {
			t.Errorf("%s: said %d times: %s", c.what, n, said.String())
		}
		r.stop(t)
	}

	// Without another it is the reason to stop.
	cfg = again(t, cfg)
	cfg.Drives = cfg.Drives[1:]
	if err := os.Rename(cfg.Drives[0], aside); err != nil {
		t.Fatal(err)
	}
	n, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var ce *ConfigError
	if err := n.Run(t.Context()); !errors.As(err, &ce) || ce.Field != "Drives" || !strings.Contains(err.Error(), "is it mounted?") {
		t.Errorf("Run: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestDriveAndItsCopy: of two directories with one drive's id the first is used.
func TestDriveAndItsCopy(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	second := cfg.Drives[1]
	cfg.Drives = cfg.Drives[:1]
	runLooking(t, cfg, slog.New(slog.DiscardHandler)).stop(t)
	if err := os.CopyFS(second, os.DirFS(cfg.Drives[0])); err != nil {
		t.Fatal(err)
	}
	cfg = again(t, cfg)
	cfg.Drives = append(cfg.Drives, second)
	r := runLooking(t, cfg, slog.New(slog.DiscardHandler))
	all := listDrives(t, r)
	if len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	used := atPath(t, r, cfg.Drives[0])
	if used.State != "DRIVE_STATE_ONLINE" || used.Error != "" {
		t.Errorf("%+v", used)
	}
	if d := atPath(t, r, second); d.State != "DRIVE_STATE_OFFLINE" || !strings.Contains(d.Error, second+": drive is open in another directory: drive "+used.ID+" is open at "+cfg.Drives[0]) {
		t.Errorf("%+v", d)
	}
}

// TestReplacedDrive: a drive that was taken out of the mesh is closed and never
// used again, also not by a node that starts anew; what else is at its path is,
// but a mount point without a mount isn't.
func TestReplacedDrive(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	r := runLooking(t, cfg, slog.New(slog.DiscardHandler))
	path := cfg.Drives[1]
	old := atPath(t, r, path)
	replace := func(id, body string) {
		t.Helper()
		expect(t, http.StatusOK, http.MethodPost, r.url("/v1/drives/"+id+":replace"), strings.NewReader(body))
	}
	replace(old.ID, "")
	out := func() bool {
		d := atPath(t, r, path)
		return d.ID == old.ID && !d.Reachable && strings.Contains(d.Error, path+": drive "+old.ID+" was taken out of the mesh; empty the directory, or mount another drive there")
	}
	waitFor(t, "the drive to be given up", out)
	r.stop(t)
	cfg = again(t, cfg)
	r = runLooking(t, cfg, slog.New(slog.DiscardHandler))
	if !out() {
		t.Errorf("%+v", atPath(t, r, path))
	}
	r.stop(t)

	// It was a file system of its own, and nothing is mounted there.
	rows, err := os.ReadFile(filepath.Join(cfg.DataDir, knownDrivesFile))
	if err != nil {
		t.Fatal(err)
	}
	mounted := strings.Replace(string(rows), `"removed": true`, `"removed": true, "mounted": true`, 1)
	if mounted == string(rows) {
		t.Fatalf("%s", rows)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, knownDrivesFile), []byte(mounted), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg = again(t, cfg)
	r = runLooking(t, cfg, slog.New(slog.DiscardHandler))
	if d := atPath(t, r, path); !strings.Contains(d.Error, "it was mounted there, and nothing is now") {
		t.Errorf("%+v", d)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	r.stop(t)

	if err := os.WriteFile(filepath.Join(cfg.DataDir, knownDrivesFile), rows, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg = again(t, cfg)
	r = runLooking(t, cfg, slog.New(slog.DiscardHandler))
	waitFor(t, "another drive to be used", func() bool {
		d := atPath(t, r, path)
		return d.ID != old.ID && d.State == "DRIVE_STATE_ONLINE" && d.Reachable
	})
	if all := listDrives(t, r); len(all) != 2 {
		t.Errorf("%+v", all)
	}
}

// TestDriveFromAnotherDevice: a path that leads to the drive at another place,
// as after a mount from another device, has it opened there.
func TestDriveFromAnotherDevice(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	r := runLooking(t, cfg, slog.New(slog.DiscardHandler))
	path := cfg.Drives[1]
	before := atPath(t, r, path)
	open := r.openDrives()[1]
	if err := os.Rename(path, path+"-gone"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the drive to be missed", func() bool { return atPath(t, r, path).State == "DRIVE_STATE_OFFLINE" })
	// All of it at once, as a mount is: the node looks there all the time.
	if err := os.CopyFS(path+"-other", os.DirFS(path+"-gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"-other", path); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the drive to be used again", func() bool {
		d := atPath(t, r, path)
		return d.State == "DRIVE_STATE_ONLINE" && d.ID == before.ID
	})
	if slices.Contains(r.openDrives(), open) {
		t.Error("the directory that was moved away is still open")
	}
}

// textLog is a log that is read while it is written.
type textLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *textLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *textLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
