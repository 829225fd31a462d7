//go:build real && linux

//real:needs mkfs.ext4 mount umount

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio/datatest"
)

// TestHungDrive: a drive whose file system answers no write any more is seen by
// everybody who watches, from its own node and from others, within their
// deadlines; puts go on; and when it answers again all is well again.
func TestHungDrive(t *testing.T) {
	ownMounts(t)
	f := newFleet(t, 3)
	hung := filepath.Join(f.dir, "hung")
	if err := os.Mkdir(hung, 0o700); err != nil {
		t.Fatal(err)
	}
	volume := datatest.NewVolume(t, hung, 512<<20, "")
	f.own = func(node int) []string {
		if node == 2 {
			return []string{"--drive", hung}
		}
		return nil
	}
	f.startAll(t)
	mustRun(t, f.env(1), "mb", "files")
	content := strings.Repeat("gridloom! ", 2000)
	f.write(t, "in", content)
	put := func(name string) {
		t.Helper()
		began := time.Now()
		mustRun(t, f.env(1), "put", filepath.Join(f.dir, "in"), "files/"+name)
		t.Logf("%s: put in %v", name, time.Since(began).Round(time.Millisecond))
	}
	put("before")
	healthy := fmt.Sprintf("gridloom_drive_healthy{node=%q,", f.name(2))
	await := func(what, series, value string) {
		t.Helper()
		for _, node := range []int{1, 2} { // its own, and another
			tick, limit := time.NewTicker(200*time.Millisecond), time.Now().Add(30*time.Second)
			for seen := ""; !strings.HasSuffix(seen, " "+value); seen = f.series(t, node, series) {
				if <-tick.C; time.Now().After(limit) {
					t.Fatalf("%s, by n%d: %q", what, node, seen)
				}
			}
			tick.Stop()
		}
	}
	await("well", healthy, "1")

	thaw, err := volume.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	frozen := true
	t.Cleanup(func() { // or nothing that has the file system open could end
		if frozen {
			_ = thaw()
		}
	})
	put("first") // finds out
	await("hung", healthy, "0")
	for i := range 5 {
		put(fmt.Sprint("while-it-hangs-", i))
	}
	timeouts := fmt.Sprintf("gridloom_drive_timeouts_total{node=%q,", f.name(2))
	if seen := f.series(t, 1, timeouts); seen == "" || strings.HasSuffix(seen, " 0") {
		t.Errorf("operations that take too long: %q", seen)
	}

	began := time.Now()
	r := run(t, f.env(1), nil, "doctor", "--json")
	var report struct {
		Findings []struct {
			Severity, Check, Node, Message string
		} `json:"findings"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("doctor: %v, exit code %d\n%s%s", err, r.code, r.stdout, r.stderr)
	}
	named := false
	for _, finding := range report.Findings {
		named = named || finding.Check == "drive" && finding.Node == f.name(2)
		t.Logf("%s: %s", finding.Severity, finding.Message)
	}
	if took := time.Since(began); !named || took > 20*time.Second {
		t.Errorf("doctor found %d things in %v, the drive among them: %v", len(report.Findings), took, named)
	}

	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	frozen = false
	await("well again", healthy, "1")
	put("after")
	for node := range f.all() {
		if got := mustRun(t, f.env(node), "get", "files/first", "-"); got != content {
			t.Errorf("n%d gives %d other bytes", node, len(got))
		}
	}
}

// TestHungData: a node whose data directory's disk answers no write any more exits
// and says why, as far as the kernel lets it; a put in flight gets an answer, and the
// audit log, which is on the same disk, holds up neither.
func TestHungData(t *testing.T) {
	ownMounts(t)
	f := newFleet(t, 1)
	hung := filepath.Join(f.dir, "hung")
	if err := os.Mkdir(hung, 0o700); err != nil {
		t.Fatal(err)
	}
	volume := datatest.NewVolume(t, hung, 1<<30, "")
	f.own = func(int) []string {
		return []string{"--data", filepath.Join(hung, "data"), "--drive", filepath.Join(f.dir, "drive")}
	}
	f.startAll(t)
	mustRun(t, f.env(1), "mb", "files")
	request := func(key, bearer string) (status int, text string, err error) {
		client := http.Client{Timeout: 30 * time.Second}
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+f.http(1)+"/data/files/"+key, strings.NewReader("content"))
		if err != nil {
			return 0, "", err
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		res, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, string(body), err
	}
	if status, text, err := request("before", f.key); status != http.StatusCreated {
		t.Fatalf("%d %s, %v", status, text, err)
	}
	thaw, err := volume.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	frozen := true
	t.Cleanup(func() { // or the process could not end, and nor could the test
		if frozen {
			_ = thaw()
		}
	})
	began := time.Now()
	type answer struct {
		status int
		text   string
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		a.status, a.text, a.err = request("in-flight", f.key)
		answers <- a
	}()
	if status, text, err := request("stranger", "nobody"); status != http.StatusUnauthorized { // and a line for the audit log
		t.Errorf("a stranger: %d %s, %v", status, text, err)
	}
	select {
	case a := <-answers:
		if a.status != http.StatusServiceUnavailable || !strings.Contains(a.text, "not known whether it was stored") {
			t.Errorf("the put in flight: %d %s, %v", a.status, a.text, a.err)
		}
		t.Logf("the put has its answer after %v", time.Since(began).Round(time.Millisecond))
	case <-time.After(20 * time.Second):
		t.Error("the put in flight has no answer after 20 s")
	}
	p := f.running[0]
	exited := func() bool { // the kernel keeps a thread that hangs in a write, and the process with it as a zombie
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		return err != nil || strings.Contains(string(status), "State:\tZ")
	}
	tick, limit := time.NewTicker(50*time.Millisecond), began.Add(15*time.Second)
	defer tick.Stop()
	for !exited() {
		if <-tick.C; time.Now().After(limit) {
			t.Fatal("it is still running 15 s after its disk has hung")
		}
	}
	t.Logf("it has exited after %v", time.Since(began).Round(time.Millisecond))
	if reason := "gridloom serve: the index stopped: raft log: a write to its disk"; !strings.Contains(p.out.String(), reason) {
		t.Errorf("no %q", reason)
	}
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	frozen = false
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	f.start(t, 1)
	f.waitReady(t)
	if got := mustRun(t, f.env(1), "get", "files/before", "-"); got != "content" {
		t.Errorf("what was acknowledged is %q", got)
	}
}

// series is the first line of /v2/metrics/resource, as a node gives it, that has a
// prefix; "" where there is none. That it says nothing at all within its deadline
// fails the test.
func (f *fleet) series(t *testing.T, node int, prefix string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.http(node)+"/v2/metrics/resource", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("n%d: %s, %v", node, res.Status, err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
