//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// mesh is three processes of the program.
type mesh struct {
	dir, program, key string
	base              int // port of the first listener
	nodes             [copies]*exec.Cmd
	logs              [copies]*os.File
	client            *http.Client
	turn              atomic.Int64
	run               string // of the present run: what its keys begin with
}

const startTimeout = time.Minute

func startMesh(ctx context.Context, p *plan) (_ *mesh, err error) {
	m := &mesh{
		dir: p.dir, program: p.program,
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	for file, args := range map[string][]string{"root.key": {"keygen"}, "mesh.secret": {"keygen", "--mesh-secret"}} {
		text, err := exec.CommandContext(ctx, p.program, args...).Output()
		if err != nil {
			return nil, fmt.Errorf("gridloom %s: %w", strings.Join(args, " "), err)
		}
		if err := os.WriteFile(filepath.Join(p.dir, file), text, 0o600); err != nil {
			return nil, err
		}
		if file == "root.key" {
			m.key = strings.TrimSpace(string(text))
		}
	}
	if m.base, err = freePorts(3 * copies); err != nil {
		return nil, err
	}
	for i := range m.nodes {
		if err := m.start(i); err != nil {
			return nil, err
		}
	}
	for i := range m.nodes {
		if err := m.waitReady(ctx, i); err != nil {
			return nil, err
		}
	}
	return m, m.request(ctx, http.MethodPost, 0, "/v1/buckets", []byte(`{"bucket":"bench"}`), nil)
}

func freePorts(n int) (int, error) {
	for base := 21000 + os.Getpid()%500*20; base < 60000; base += n {
		free := true
		for i := range n {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(base+i))
			if err != nil {
				free = false
				break
			}
			_ = l.Close()
		}
		if free {
			return base, nil
		}
	}
	return 0, errors.New("no free range of ports")
}

func name(i int) string { return "n" + strconv.Itoa(i+1) }

func (m *mesh) addr(i, listener int) string { return fmt.Sprintf("127.0.0.1:%d", m.base+3*i+listener) }

func (m *mesh) data(i int) string { return filepath.Join(m.dir, "data-"+name(i)) }

// start starts a node.
func (m *mesh) start(i int) error {
	var peers []string
	for k := range m.nodes {
		peers = append(peers, name(k)+"=http://"+m.addr(k, 2))
	}
	cmd := exec.Command(m.program, "serve", "--name", name(i), "--peers", strings.Join(peers, ","),
		"--key-file", filepath.Join(m.dir, "root.key"), "--mesh-secret-file", filepath.Join(m.dir, "mesh.secret"),
		"--data", m.data(i), "--grpc-addr", m.addr(i, 0), "--http-addr", m.addr(i, 1), "--peer-addr", m.addr(i, 2))
	log, err := os.OpenFile(filepath.Join(m.dir, name(i)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.logs[i], m.nodes[i] = log, cmd
	return cmd.Start()
}

// stop kills a node.
func (m *mesh) stop(i int) {
	if cmd := m.nodes[i]; cmd != nil && cmd.Process != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if m.logs[i] != nil {
		_ = m.logs[i].Close()
	}
	m.nodes[i], m.logs[i] = nil, nil
}

func (m *mesh) close() error {
	for i := range m.nodes {
		m.stop(i)
	}
	m.client.CloseIdleConnections()
	return nil
}

func (m *mesh) waitReady(ctx context.Context, i int) error {
	limit := time.Now().Add(startTimeout)
	for {
		err := m.request(ctx, http.MethodGet, i, "/readyz", nil, nil)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			log, _ := os.ReadFile(filepath.Join(m.dir, name(i)+".log"))
			return fmt.Errorf("%s isn't ready: %w\n%s", name(i), err, log)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// request asks a node's HTTP listener; what it answers goes to into.
func (m *mesh) request(ctx context.Context, method string, node int, path string, body []byte, into io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+m.addr(node, 1)+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	resp, err := m.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s %s at %s: %s: %s", method, path, name(node), resp.Status, text)
	}
	if into == nil {
		into = io.Discard
	}
	_, err = io.Copy(into, resp.Body)
	return err
}

func (m *mesh) path(i int) string { return "/data/bench/" + m.run + strconv.Itoa(i) }

// put stores an object through one of the nodes, in turn.
func (m *mesh) put(ctx context.Context, i int, content []byte) error {
	return m.request(ctx, http.MethodPut, int(m.turn.Add(1))%copies, m.path(i), content, nil)
}

// check reads a sample of a run's objects through another node than the first
// choice of its put, and removes all of them.
func (m *mesh) check(ctx context.Context, r *row, content func(i int) []byte) error {
	for i := 0; i < r.puts; i += max(1, r.puts/16) {
		var got bytes.Buffer
		if err := m.request(ctx, http.MethodGet, i%copies, m.path(i), nil, &got); err != nil {
			return err
		}
		if !bytes.Equal(got.Bytes(), content(i)) {
			return fmt.Errorf("%s has other bytes than were put", m.path(i))
		}
	}
	return nil
}

// cpu is the processor time that the nodes have used so far.
func (m *mesh) cpu() (total time.Duration) {
	for _, cmd := range m.nodes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(b), ") ") // the name may hold blanks
		if fields := strings.Fields(after); len(fields) > 12 {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			total += time.Duration(user+system) * 10 * time.Millisecond
		}
	}
	return total
}

// allPayloads counts the payload files of all nodes.
func (m *mesh) allPayloads() (n int) {
	for i := range m.nodes {
		n += m.payloads(i)
	}
	return n
}

// payloads counts the payload files of a node.
func (m *mesh) payloads(i int) (n int) {
	_ = filepath.WalkDir(m.data(i), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Base(filepath.Dir(filepath.Dir(path))) == "payload" && !strings.Contains(e.Name(), ".") {
			n++
		}
		return nil
	})
	return n
}
