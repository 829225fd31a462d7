//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/gridloom/gridloom/internal/bench"
	"github.com/gridloom/gridloom/node/iam"
)

// bucket is the one that all keys are in.
const bucket = "bench"

// cluster is one node or three, and a client for what isn't measured.
type cluster struct {
	configs []serverConfig
	nodes   []*server
	key     string
	client  *http.Client
}

// clusterOptions say what kind.
type clusterOptions struct {
	dir   string
	nodes int
	tls   bool
	// apart gives every node a pool of its own, the first with twice as much
	// room: an object then has one copy, and two nodes have none.
	apart bool
}

// openCluster starts its processes, waits until all are ready, and makes the
// bucket.
func openCluster(ctx context.Context, o clusterOptions) (_ *cluster, err error) {
	c := &cluster{
		key: iam.Generate(iam.RootID).String(),
		client: &http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: 64, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}},
	}
	addrs, err := bench.Reserve(3 * o.nodes)
	if err != nil {
		return nil, err
	}
	secret, peers := iam.NewMeshSecret(), map[string]string{}
	for i := range o.nodes {
		name := fmt.Sprintf("n%d", i+1)
		cfg := serverConfig{
			Kind: "gridloom", Name: name, Dir: filepath.Join(o.dir, name), Key: c.key, Secret: secret,
			HTTP: addrs[3*i], GRPC: addrs[3*i+1], Peer: addrs[3*i+2], Peers: peers, Drives: 1, TLS: o.tls,
		}
		if o.apart {
			cfg.Pool, cfg.Drives = name, 2-min(i, 1)
		}
		if peers[name] = cfg.Peer; o.nodes == 1 {
			cfg.Peers = nil
		}
		c.configs = append(c.configs, cfg)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := c.request(ctx, http.MethodPost, 0, "/v1/buckets", []byte(`{"bucket":"`+bucket+`"}`), nil); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cluster) start(ctx context.Context) error {
	for _, cfg := range c.configs {
		s, err := startServer(ctx, cfg)
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, s)
	}
	for _, s := range c.nodes {
		if _, err := s.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// close ends the nodes at the same time: one alone would wait for the others.
// What they have stored stays, and start may be called again.
func (c *cluster) close() error {
	c.client.CloseIdleConnections()
	errs := make([]error, len(c.nodes))
	var wg sync.WaitGroup
	for i, s := range c.nodes {
		wg.Go(func() { errs[i] = s.Close() })
	}
	wg.Wait()
	c.nodes = nil
	return errors.Join(errs...)
}

func (c *cluster) processes() (all []process, err error) {
	for _, s := range c.nodes {
		all = append(all, process(s.PID))
	}
	return all, nil
}

func (c *cluster) url(node int, path string) string {
	scheme := "http"
	if c.configs[node].TLS {
		scheme = "https"
	}
	return scheme + "://" + c.configs[node].HTTP + path
}

// request asks a node's HTTP listener; what it answers goes to into. body is
// nil, []byte or *content.
func (c *cluster) request(ctx context.Context, method string, node int, path string, body any, into io.Writer) error {
	var from io.Reader
	var size int64
	switch b := body.(type) {
	case []byte:
		from, size = bytes.NewReader(b), int64(len(b))
	case *content:
		from, size = b, b.size
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url(node, path), from)
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Gridloom-Authorization", "Bearer "+c.key)
	return do(c.client, req, into)
}

// do makes a request that has to succeed.
func do(client *http.Client, req *http.Request, into io.Writer) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s %s: %s: %s", req.Method, req.URL, resp.Status, text)
	}
	if into == nil {
		into = io.Discard
	}
	_, err = io.Copy(into, resp.Body)
	return err
}

// follower is a node that doesn't lead the records' group.
func (c *cluster) follower(ctx context.Context) (int, error) {
	var body bytes.Buffer
	if err := c.request(ctx, http.MethodGet, 0, "/v1/cluster", nil, &body); err != nil {
		return 0, err
	}
	var said struct {
		Groups []struct{ Name, Leader string }
	}
	if err := json.Unmarshal(body.Bytes(), &said); err != nil {
		return 0, err
	}
	for _, g := range said.Groups {
		for i := range c.configs {
			if g.Name == "data-1" && g.Leader != "" && g.Leader != c.configs[i].Name {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("no follower: %s", body.Bytes())
}

// sent are the payload bytes that a node has sent, by the way they took.
type sent map[string]float64

// sentPrefix begins the lines of /metrics that count them.
const sentPrefix = "gridloom_payload_sent_bytes_total{"

func (c *cluster) sent(ctx context.Context, node int) (sent, error) {
	var body bytes.Buffer
	if err := c.request(ctx, http.MethodGet, node, "/metrics", nil, &body); err != nil {
		return nil, err
	}
	return parseSent(body.String())
}

func parseSent(metrics string) (sent, error) {
	all := sent{}
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, sentPrefix) {
			continue
		}
		labels, value, ok := strings.Cut(strings.TrimSpace(line[len(sentPrefix):]), "} ")
		_, path, ok2 := strings.Cut(labels, `path="`)
		path, _, ok3 := strings.Cut(path, `"`)
		n, err := strconv.ParseFloat(value, 64)
		if !ok || !ok2 || !ok3 || err != nil {
			return nil, fmt.Errorf("/metrics: %q", line)
		}
		all[path] += n
	}
	return all, nil
}

// since is what came after an earlier look: all of it, and what of it came
// through user space.
func (s sent) since(before sent) (all, copied float64) {
	for path, n := range s {
		n -= before[path]
		if all += n; path != "sendfile" && path != "splice" {
			copied += n
		}
	}
	return all, copied
}

// profile begins a profile of the processors' time in each node. What it returns
// ends them.
func (c *cluster) profile(dir, row, contender string) (stop func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	for _, s := range c.nodes {
		if _, err := s.Ask(bench.Request{Profile: profileName(dir, row, contender, s.Name, "cpu")}); err != nil {
			return nil, err
		}
	}
	return func() error {
		var errs []error
		for _, s := range c.nodes {
			_, err := s.Ask(bench.Request{StopProfile: true})
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, nil
}

func profileName(dir, row, contender, node, kind string) string {
	name := strings.Join([]string{row, strings.ReplaceAll(contender, " ", "-"), node, kind, "pprof"}, ".")
	return filepath.Join(dir, name)
}
