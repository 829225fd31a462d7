package node

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// TestClockOffsets: a clock that is off is told from the others, of three as well.
func TestClockOffsets(t *testing.T) {
	const s = time.Second
	ahead := map[string]time.Duration{"a": 0, "b": 12 * s, "c": 1 * s, "d": -1 * s, "e": 2 * s}
	for nodes, want := range map[string]map[string]time.Duration{
		"a":     {},
		"ab":    {"a": -12 * s, "b": 12 * s},
		"abc":   {"a": -s, "b": 11 * s, "c": 0},
		"abcd":  {"a": -s / 2, "b": 11*s + s/2, "c": s / 2, "d": -s - s/2},
		"abcde": {"a": -s, "b": 11 * s, "c": 0, "d": -2 * s, "e": s},
	} {
		known := map[string]time.Duration{}
		for _, r := range nodes {
			known[string(r)] = ahead[string(r)]
		}
		if got := clockOffsets(known); !maps.Equal(got, want) {
			t.Errorf("of %s: %v, want %v", nodes, got, want)
		}
	}
}

// describedMesh is what the tests below read of /v1/cluster.
type describedMesh struct {
	Nodes []struct {
		Name, State, NotReady string
		Index                 bool
		ClockOffsetSeconds    *float64
	}
	Groups []struct {
		Name, Leader string
		Members      []struct{ Node, Role string }
	}
	Warnings []string
}

func describe(t testing.TB, r *running) (c describedMesh) {
	t.Helper()
	if err := json.Unmarshal(expect(t, http.StatusOK, http.MethodGet, r.url("/v1/cluster"), nil), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDescribe: every node tells who leads, and what is wrong.
func TestDescribe(t *testing.T) {
	nodes := startMesh(t, t.TempDir(), 2)
	for _, r := range nodes {
		c := describe(t, r)
		if len(c.Nodes) != 2 || len(c.Groups) == 0 {
			t.Fatalf("%s describes %+v", r.cfg.Name, c)
		}
		for _, n := range c.Nodes {
			if n.State != "NODE_STATE_UP" || n.NotReady != "" || n.ClockOffsetSeconds == nil || *n.ClockOffsetSeconds > 5 || *n.ClockOffsetSeconds < -5 {
				t.Errorf("%s describes %+v", r.cfg.Name, n)
			}
		}
		for _, g := range c.Groups {
			leads := false
			for _, m := range g.Members {
				leads = leads || m.Node == g.Leader && m.Role == "MEMBER_ROLE_VOTER"
			}
			if !leads {
				t.Errorf("%s: group %+v is not led by a voter", r.cfg.Name, g)
			}
		}
		if len(c.Warnings) != 1 || c.Warnings[0] != "2 nodes, 1 voter: the index survives no loss of node a" {
			t.Errorf("%s warns of %q", r.cfg.Name, c.Warnings)
		}
	}
	nodes[1].stop(t)
	if n := describe(t, nodes[0]).Nodes[1]; n.State != "NODE_STATE_DOWN" || n.NotReady == "" || n.ClockOffsetSeconds != nil {
		t.Errorf("a node that is away: %+v", n)
	}
}

// TestNodeNames: the API takes the names and addresses that a configuration
// may have, and no others.
func TestNodeNames(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	ask := func(name, url string) fault.Problem {
		t.Helper()
		body, err := json.Marshal(map[string]string{"name": name, "peerUrl": url})
		if err != nil {
			t.Fatal(err)
		}
		resp, answer := call(t, http.MethodPost, r.url("/v1/cluster/nodes"), bytes.NewReader(body))
		var p fault.Problem
		if err := json.Unmarshal(answer, &p); err != nil && resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", resp.Status, answer)
		}
		return p
	}
	const url, name = "http://10.0.0.4:7402", "d"
	for _, n := range []string{"d", "0", "d-1", "d--1", "-d", "d-", "D", "d.1", "d_1", "d\n", "", "ä"} {
		if p := ask(n, url); (p.Subject == "name") == nodeName.MatchString(n) {
			t.Errorf("the name %q: %+v", n, p)
		}
	}
	for _, u := range []string{
		"http://10.0.0.4:7402", "http://h/", "https://h", "http://[::1]:1", "ftp://h", "h:1", "http://", "http://h/x", "http://h:x", "",
	} {
		cfg := meshConfigs(t, t.TempDir(), 1)[0]
		cfg.Peers = []Peer{{Name: cfg.Name, URL: u}}
		if strings.HasPrefix(u, "https:") { // a mesh is plaintext or TLS as a whole
			cfg.Peer.CertFile, cfg.Peer.KeyFile = "cert", "key"
		}
		if p := ask(name, u); (p.Subject == "peer_url") == (cfg.Validate() == nil) {
			t.Errorf("the address %q: %+v, and as a peer %v", u, p, cfg.Validate())
		}
	}
}
