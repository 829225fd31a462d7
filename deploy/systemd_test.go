//go:build real && linux

package deploy_test

//real:needs systemd-analyze strace

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exposure is the most that systemd-analyze security may say, in tenths. Of
// the 1.2 that it says, 1.1 are the network, /proc and the host's root
// directory, which a node needs.
const exposure = "15"

// install lays the unit and its drop-ins in a folder of their own, with a
// program that exists in place of /usr/bin/gridloom, and returns the unit's
// path.
func install(t *testing.T, edit func(unit string) string) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := strings.Replace(read(t, "gridloom.service"), "ExecStart=/usr/bin/gridloom ", "ExecStart="+program+" ", 1)
	path := filepath.Join(dir, "gridloom.service")
	if err := os.CopyFS(path+".d", os.DirFS("gridloom.service.d")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(edit(unit)), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func asItIs(unit string) string { return unit }

// analyze runs systemd-analyze and returns what it printed.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
	return string(out), err
}

func TestVerify(t *testing.T) {
	if out, err := analyze(t, "verify", install(t, asItIs)); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// It would say so: an unknown key, in the unit and in a drop-in.
	if out, _ := analyze(t, "verify", install(t, func(unit string) string {
		return strings.Replace(unit, "PrivateTmp=", "PrivateTemp=", 1)
	})); !strings.Contains(out, "PrivateTemp") {
		t.Errorf("systemd-analyze verify let an unknown key pass: %q", out)
	}
	bad := install(t, asItIs)
	if err := os.WriteFile(filepath.Join(bad+".d", "bad.conf"), []byte("[Service]\nLoadCredentials=a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := analyze(t, "verify", bad); !strings.Contains(out, "LoadCredentials") {
		t.Errorf("systemd-analyze verify did not read the drop-ins: %q", out)
	}
}

func TestExposure(t *testing.T) {
	security := func(unit string) (string, error) {
		return analyze(t, "security", "--offline=true", "--no-pager", "--threshold="+exposure, unit)
	}
	if out, err := security(install(t, asItIs)); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	if _, err := security(install(t, func(unit string) string {
		return strings.Replace(unit, "NoNewPrivileges=yes", "", 1) + "\n[Service]\nPrivateUsers=no\nUser=root\n"
	})); err == nil {
		t.Error("systemd-analyze security found a node that runs as root good enough")
	}
}

// TestSystemCalls runs a node at work, and compares the system calls that it
// makes with those that the unit allows.
func TestSystemCalls(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "gridloom")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "./cmd/gridloom")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	trace := filepath.Join(dir, "trace")
	work(t, program, dir, trace)

	allowed := allowedCalls(t)
	used := map[string]bool{}
	call := regexp.MustCompile(`(?m)^\d+ +(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed)`)
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range call.FindAllSubmatch(data, -1) {
		used[string(m[1])] = true
	}
	for _, name := range []string{"execve", "accept4", "sendfile", "fdatasync", "fsync"} {
		if !used[name] {
			t.Errorf("the node never called %s: it was not at work", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if !allowed[name] {
			t.Errorf("the node calls %s, which the unit forbids", name)
		}
	}
}

// work starts a node under strace with the unit's environment, puts a payload
// and gets it back, and stops the node.
func work(t *testing.T, program, dir, trace string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	key, err := exec.CommandContext(ctx, program, "keygen").Output()
	if err != nil {
		t.Fatalf("gridloom keygen: %v", err)
	}
	secret := strings.TrimSpace(string(key))
	// With -D the tracer is the child, so that the signal reaches the node.
	node := exec.CommandContext(ctx, "strace", "-D", "-f", "-o", trace, program, "serve",
		"--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0")
	node.Env = append(os.Environ(), "GRIDLOOM_DATA="+filepath.Join(dir, "data"), "GRIDLOOM_KEY="+secret)
	var log bytes.Buffer
	node.Stderr = &log
	banner, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	node.Cancel = func() error { return node.Process.Signal(syscall.SIGTERM) }
	node.WaitDelay = 20 * time.Second
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	for lines := bufio.NewScanner(banner); address == "" && lines.Scan(); {
		if word := strings.Fields(lines.Text()); len(word) == 2 && word[0] == "HTTP" {
			address = word[1]
		}
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	do := func(method, path, body string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, method, address+path, strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		res, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return res.StatusCode, string(text), err
	}
	workErr := func() error {
		if err := ready(ctx, do); err != nil {
			return err
		}
		payload := strings.Repeat("gridloom ", 100_000)
		for _, step := range []struct {
			method, path, body string
			status             int
			want               string
		}{
			{"POST", "/v1/buckets", `{"bucket":"bucket"}`, 200, ""},
			{"PUT", "/data/bucket/small", "small", 201, ""},
			{"PUT", "/data/bucket/k", payload, 201, ""},
			{"GET", "/data/bucket/k", "", 200, payload},
			{"GET", "/metrics", "", 200, ""},
			{"GET", "/v2/metrics/resource", "", 200, ""},
			{"DELETE", "/data/bucket/k", "", 204, ""},
		} {
			status, text, err := do(step.method, step.path, step.body)
			if err != nil {
				return err
			}
			if status != step.status || step.want != "" && text != step.want {
				return fmt.Errorf("%s %s: %d %.300s", step.method, step.path, status, text)
			}
		}
		return nil
	}()
	cancel()
	if err := node.Wait(); err != nil && node.ProcessState.ExitCode() != 0 {
		t.Errorf("the node ended with %v", err)
	}
	if workErr != nil || t.Failed() {
		t.Fatalf("%v\n%s", workErr, log.String())
	}
}

// ready waits until the node says that it is.
func ready(ctx context.Context, do func(method, path, body string) (int, string, error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, text, err := do("GET", "/readyz", "")
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %d %.300s %v", status, text, err)
		case <-tick.C:
		}
	}
}

// allowedCalls evaluates the unit's SystemCallFilter= lines.
func allowedCalls(t *testing.T) map[string]bool {
	t.Helper()
	allowed := map[string]bool{"execve": true} // systemd's own, before the filter holds
	for line := range strings.Lines(read(t, "gridloom.service")) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		rest, deny := strings.CutPrefix(rest, "~")
		for _, name := range strings.Fields(rest) {
			for _, call := range expand(t, name) {
				if deny {
					delete(allowed, call)
				} else {
					allowed[call] = true
				}
			}
		}
	}
	if len(allowed) < 100 {
		t.Fatalf("the unit allows only %d system calls: its filter was not read", len(allowed))
	}
	return allowed
}

// expand is the system calls of a set, or the one that is named.
func expand(t *testing.T, name string) []string {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	out, err := analyze(t, "syscall-filter", "--no-pager", name)
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v\n%s", name, err, out)
	}
	var calls []string
	for i, line := range strings.Split(out, "\n") {
		line = strings.TrimSpace(line)
		if i == 0 || line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		calls = append(calls, expand(t, line)...)
	}
	return calls
}
