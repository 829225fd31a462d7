//go:build real

package otelcol

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is Gridloom as users have it, built by TestMain.
var program string

// nextPort is where the search for a free one goes on.
var nextPort = 21000 + os.Getpid()%1000*10

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gridloom-otelcol-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "gridloom")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./cmd/gridloom")
	build.Dir, build.Stderr = filepath.Join("..", ".."), os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	code := 1
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the program:", err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// mesh is three processes.
type mesh struct {
	t    *testing.T
	dir  string
	key  string
	http []string // addresses
	grpc []string
	all  []*process
}

type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // once ended is closed
	log   output
}

// output is what a process has written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func name(i int) string { return fmt.Sprintf("n%d", i+1) }

// startMesh starts three nodes, each with variables of its own, and waits
// until they are ready.
func startMesh(t *testing.T, env [3][]string) *mesh {
	t.Helper()
	m := &mesh{t: t, dir: t.TempDir()}
	m.key = strings.TrimSpace(m.run("keygen"))
	m.write("root.key", m.key)
	m.write("mesh.secret", m.run("keygen", "--mesh-secret"))
	var peers, peerAddrs []string
	for i := range 3 {
		peer := freeAddr(t)
		m.grpc, m.http, peerAddrs = append(m.grpc, freeAddr(t)), append(m.http, freeAddr(t)), append(peerAddrs, peer)
		peers = append(peers, name(i)+"=http://"+peer)
	}
	for i := range 3 {
		p := &process{ended: make(chan struct{}), cmd: exec.Command(program, "serve", "--name", name(i), "--peers", strings.Join(peers, ","),
			"--key-file", filepath.Join(m.dir, "root.key"), "--mesh-secret-file", filepath.Join(m.dir, "mesh.secret"),
			"--data", m.data(i), "--grpc-addr", m.grpc[i], "--http-addr", m.http[i], "--peer-addr", peerAddrs[i])}
		p.cmd.Env = append(cleanEnv(), env[i]...)
		p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			p.err = p.cmd.Wait()
			close(p.ended)
		}()
		t.Cleanup(func() {
			_ = p.cmd.Process.Kill()
			<-p.ended
			if t.Failed() {
				t.Logf("%s:\n%s", name(i), &p.log)
			}
		})
		m.all = append(m.all, p)
	}
	for i := range 3 {
		m.waitReady(i)
	}
	return m
}

// cleanEnv is the environment without what would configure the program.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GRIDLOOM_") && !strings.HasPrefix(kv, "OTEL_") {
			env = append(env, kv)
		}
	}
	return env
}

func (m *mesh) data(i int) string { return filepath.Join(m.dir, name(i)) }

func (m *mesh) write(name, content string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// run runs a command to its end.
func (m *mesh) run(args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(cleanEnv(), "GRIDLOOM_KEY="+m.key)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("gridloom %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

func (m *mesh) waitReady(i int) {
	m.t.Helper()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		if status, _, err := m.do(i, http.MethodGet, "/readyz", "", nil); err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-m.all[i].ended:
			m.t.Fatalf("%s ended: %v", name(i), m.all[i].err)
		case <-deadline:
			m.t.Fatalf("%s isn't ready after two minutes", name(i))
		case <-poll.C:
		}
	}
}

// do makes a request of a node, in a trace unless traceparent is empty.
func (m *mesh) do(i int, method, path, traceparent string, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+m.http[i]+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+m.key)
	if traceparent != "" {
		r.Header.Set("Traceparent", traceparent)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// must is do for what has to work.
func (m *mesh) must(i int, method, path, traceparent string, body []byte) []byte {
	m.t.Helper()
	status, answer, err := m.do(i, method, path, traceparent, body)
	if err != nil || status/100 != 2 {
		m.t.Fatalf("%s %s of %s: %d %s %v", method, path, name(i), status, answer, err)
	}
	return answer
}

// stop ends the nodes as planned, all at once: each has to end well.
func (m *mesh) stop() {
	m.t.Helper()
	for _, p := range m.all {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			m.t.Error(err)
		}
	}
	deadline := time.After(2 * time.Minute)
	for i, p := range m.all {
		select {
		case <-p.ended:
			if p.err != nil {
				m.t.Errorf("%s after SIGTERM: %v", name(i), p.err)
			}
		case <-deadline:
			m.t.Fatalf("%s is still running two minutes after SIGTERM", name(i))
		}
	}
}

// truncatePayload spoils every copy on the nodes' drives, and returns how many
// there were.
func (m *mesh) truncatePayload() (n int) {
	m.t.Helper()
	for i := range 3 {
		files, err := filepath.Glob(filepath.Join(m.data(i), "drives", "*", "payload", "*", "*"))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, file := range files {
			if err := os.Truncate(file, 10); err != nil {
				m.t.Fatal(err)
			}
			n++
		}
	}
	return n
}
