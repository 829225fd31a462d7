package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fleet is a mesh of one process a node, with a network in between that can
// fail. Nodes are counted from 1; their names are n1, n2 and so on.
type fleet struct {
	meshUnderTest
	dir     string
	size    int
	program string // the build that runs
	network *network
	urls    []string                // by which the nodes know each other
	more    []string                // arguments of every node
	own     func(node int) []string // and of one; nil for none
	running []*process
}

// newFleet prepares a mesh, and starts none of it.
func newFleet(t *testing.T, size int) *fleet {
	t.Helper()
	f := &fleet{
		meshUnderTest: meshUnderTest{key: strings.TrimSpace(mustRun(t, nil, "keygen")), base: freeBase(t, size)},
		dir:           t.TempDir(), size: size, program: binary, network: newNetwork(t),
		urls: make([]string, size), running: make([]*process, size),
	}
	f.write(t, "root.key", f.key)
	f.write(t, "mesh.secret", mustRun(t, nil, "keygen", "--mesh-secret"))
	for i := range f.urls {
		f.urls[i] = f.network.listen(t, f.name(i+1), f.peerAddr(i+1))
	}
	return f
}

// startFleet starts a mesh, and waits until all of it is ready.
func startFleet(t *testing.T, size int) *fleet {
	t.Helper()
	f := newFleet(t, size)
	f.startAll(t)
	return f
}

// startAll starts every node, and waits until all are ready.
func (f *fleet) startAll(t *testing.T) {
	t.Helper()
	for node := range f.all() {
		f.start(t, node)
	}
	f.waitReady(t)
}

func (f *fleet) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) name(node int) string { return fmt.Sprintf("n%d", node) }

func (f *fleet) peerAddr(node int) string { return fmt.Sprintf("127.0.0.1:%d", f.base+10*(node-1)+2) }

func (f *fleet) data(node int) string { return filepath.Join(f.dir, "data-"+f.name(node)) }

// all yields every node.
func (f *fleet) all() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for node := 1; node <= f.size && yield(node); node++ {
		}
	}
}

// others are the names of all nodes but some.
func (f *fleet) others(but ...string) []string {
	var names []string
	for node := range f.all() {
		if !slices.Contains(but, f.name(node)) {
			names = append(names, f.name(node))
		}
	}
	return names
}

// peers is --peers of the founding nodes.
func (f *fleet) peers() string {
	var list []string
	for node := range f.all() {
		list = append(list, f.name(node)+"="+f.urls[node-1])
	}
	return strings.Join(list, ",")
}

// args is the command line of a node.
func (f *fleet) args(node int, peers string) []string {
	var own []string
	if f.own != nil {
		own = f.own(node)
	}
	return slices.Concat([]string{"serve", "--name", f.name(node), "--peers", peers,
		"--key-file", filepath.Join(f.dir, "root.key"), "--mesh-secret-file", filepath.Join(f.dir, "mesh.secret"),
		"--data", f.data(node),
		"--grpc-addr", f.grpc(node), "--http-addr", f.http(node), "--peer-addr", f.peerAddr(node)}, f.more, own)
}

// start starts a node that isn't running.
func (f *fleet) start(t *testing.T, node int) *process {
	t.Helper()
	p := startProgram(t, f.program, nil, f.args(node, f.peers())...)
	f.running[node-1] = p
	return p
}

// kill ends a node with SIGKILL.
func (f *fleet) kill(node int) { f.running[node-1].kill() }

// stop ends a node as planned, with SIGTERM.
func (f *fleet) stop(t *testing.T, node int) {
	t.Helper()
	p := f.running[node-1]
	p.terminate(t)
	select {
	case <-p.done:
		if p.err != nil {
			t.Errorf("n%d after SIGTERM: %v", node, p.err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatalf("n%d is still running two minutes after SIGTERM", node)
	}
}

// waitReady waits until every node is.
func (f *fleet) waitReady(t *testing.T) {
	t.Helper()
	for node := range f.all() {
		waitReady(t, f.running[node-1], f.http(node))
	}
}

// cluster is what a node says of the mesh, as far as is of interest here.
type cluster struct {
	DeploymentID string `json:"deploymentId"`
	Nodes        []struct {
		Name  string `json:"name"`
		Index bool   `json:"index"`
	} `json:"nodes"`
	Groups []struct {
		Name   string `json:"name"`
		Leader string `json:"leader"`
		Term   string `json:"term"`

		Members []struct {
			Role string  `json:"role"`
			Lag  *string `json:"lag"` // which the leader knows
		} `json:"members"`
	} `json:"groups"`
}

// describe asks a node about the mesh.
func (f *fleet) describe(ctx context.Context, node int) (*cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.http(node)+"/v1/cluster", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, b)
	}
	c := &cluster{}
	return c, json.Unmarshal(b, c)
}
