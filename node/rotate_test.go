package node

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/iam"
)

// TestRotateMeshSecret changes the mesh secret of three nodes at work, step by
// step and node by node, as docs/operations.md has it. No request fails, and
// between the steps all connections are made anew by whoever is left.
func TestRotateMeshSecret(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plaintext", true: "auto"}[secure], func(t *testing.T) {
			t.Parallel()
			rotateMeshSecret(t, secure)
		})
	}
}

func rotateMeshSecret(t *testing.T, secure bool) {
	before, after := newSecret(t), newSecret(t)
	var boxes []*secretBox
	var cuts []*cutListener
	configs := meshConfigs(t, t.TempDir(), 3)
	for i := range configs {
		box, cut := &secretBox{}, &cutListener{Listener: configs[i].Peer.Listener}
		box.set(before)
		boxes, cuts = append(boxes, box), append(cuts, cut)
		configs[i].MeshSecrets, configs[i].Peer.Listener = box.get, cut
	}
	if secure {
		configs = secured(configs, auto)
	}
	var nodes []*running
	for _, cfg := range configs {
		nodes = append(nodes, runNode(t, cfg))
	}
	for _, r := range nodes {
		r.await(t)
	}
	// A client that follows the rotation trusts both while it lasts.
	ca := append(authority(t, before), authority(t, after)...)
	l := startLoad(t, nodes, ca)
	for _, step := range [][][]byte{{before, after}, {after, before}, {after}} {
		for _, box := range boxes {
			box.set(step...)
			l.progress(t)
		}
		l.pause(func() {
			reconnect(t, nodes, cuts)
			checkAuthority(t, nodes, secure, step)
		})
		l.progress(t)
	}
	l.stop()
	t.Logf("%d requests", l.done.Load())
	refuseOld(t, nodes, before)
}

// refuseOld tries to be one of the nodes, with a secret that is no longer theirs.
func refuseOld(t *testing.T, nodes []*running, old []byte) {
	t.Helper()
	as, to := nodes[0], nodes[1]
	if !as.conn(to.cfg.Name).Stats().Dialler {
		as, to = to, as
	}
	stranger, err := grid.NewManager(t.Context(), grid.ManagerOptions{
		Local: as.grid.Local(), Hosts: []string{to.grid.Local()}, Secrets: func() [][]byte { return [][]byte{old} },
		TLS: as.dialTLS(), CertificateName: as.certificateName, BackoffMax: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close(t.Context())
	c := stranger.Connection(to.grid.Local())
	waitFor(t, "a refusal", func() bool { return c.Stats().DialAttempts > 2 })
	if st := c.Stats(); st.Sessions != 0 {
		t.Errorf("the old secret still opens the mesh: %v", st.LastError)
	}
}

func authority(t *testing.T, secret []byte) []byte {
	t.Helper()
	a, err := certs.NewAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	return a.PEM()
}

// reconnect ends every connection between the nodes, and waits until all are
// there again.
func reconnect(t *testing.T, nodes []*running, cuts []*cutListener) {
	t.Helper()
	sessions := func(from, to *running) uint64 { return from.conn(to.cfg.Name).Stats().Sessions }
	before := map[[2]int]uint64{}
	for i, from := range nodes {
		for j, to := range nodes {
			before[[2]int{i, j}] = sessions(from, to)
		}
	}
	for _, c := range cuts {
		c.cut()
	}
	for i, from := range nodes {
		for j, to := range nodes {
			if i != j {
				waitFor(t, fmt.Sprintf("%s and %s to meet again", from.cfg.Name, to.cfg.Name), func() bool {
					return sessions(from, to) > before[[2]int{i, j}] && from.conn(to.cfg.Name).State() == grid.StateConnected
				})
			}
		}
		waitFor(t, from.cfg.Name+" to have its index", func() bool { return from.state() == nil })
	}
}

// checkAuthority: what clients are to trust follows the secrets.
func checkAuthority(t *testing.T, nodes []*running, secure bool, secrets [][]byte) {
	t.Helper()
	if !secure {
		return
	}
	var want []byte
	for _, s := range secrets {
		want = append(want, authority(t, s)...)
	}
	for _, r := range nodes {
		waitFor(t, "ca.pem of "+r.cfg.Name, func() bool {
			got, err := os.ReadFile(CAFile(r.cfg.DataDir))
			return err == nil && bytes.Equal(got, want)
		})
	}
}

// load is requests through all nodes, none of which may fail.
type load struct {
	wg      sync.WaitGroup
	done    atomic.Int64
	ended   chan struct{}
	running sync.RWMutex // held for reading by a request, for writing by a pause
}

func startLoad(t *testing.T, nodes []*running, ca []byte) *load {
	t.Helper()
	l := &load{ended: make(chan struct{})}
	mustRequest(t, trusting(t, ca), http.StatusOK, http.MethodPost, nodes[0].url("/v1/buckets"), []byte(`{"bucket":"load"}`))
	for w := range 3 {
		client := trusting(t, ca)
		l.wg.Go(func() {
			small, large := randomBytes(100), randomBytes(300<<10) // in the record; over the bulk port
			for i := 0; ; i++ {
				body := small
				if i%2 == 1 {
					body = large
				}
				path := fmt.Sprintf("/data/load/%d/%d", w, i%20)
				if !l.one(t, client, nodes[(w+i)%3], nodes[(w+i+1)%3], path, body) {
					return
				}
				if i%5 == 0 { // who comes anew
					client.CloseIdleConnections()
				}
				select {
				case <-l.ended:
					return
				default:
				}
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// one puts through one node, and gets through another.
func (l *load) one(t *testing.T, client *http.Client, put, get *running, path string, body []byte) bool {
	l.running.RLock()
	defer l.running.RUnlock()
	if status, b, err := request(client, http.MethodPut, put.url(path), body); err != nil || status != http.StatusCreated && status != http.StatusNoContent && status != http.StatusOK {
		t.Errorf("put through %s: %d, %v, %s", put.cfg.Name, status, err, b)
		return false
	}
	status, b, err := request(client, http.MethodGet, get.url(path), nil)
	if err != nil || status != http.StatusOK || !bytes.Equal(b, body) {
		t.Errorf("get through %s: %d, %v, %d bytes", get.cfg.Name, status, err, len(b))
		return false
	}
	l.done.Add(2)
	return true
}

// progress waits until some more requests have been made.
func (l *load) progress(t *testing.T) {
	t.Helper()
	more := l.done.Load() + 12
	waitFor(t, "requests", func() bool { return l.done.Load() >= more || t.Failed() })
}

// pause does something while no request is on its way.
func (l *load) pause(do func()) {
	l.running.Lock()
	defer l.running.Unlock()
	do()
}

// stop ends the load; again it does nothing.
func (l *load) stop() {
	select {
	case <-l.ended:
	default:
		close(l.ended)
	}
	l.wg.Wait()
}

// TestRotateRootKey: every node takes a change of the root keys over in time.
func TestRotateRootKey(t *testing.T) {
	t.Parallel()
	old, next := iam.Generate(iam.RootID), iam.Generate(iam.RootID)
	var keys atomic.Pointer[[]iam.Credential]
	set := func(k ...iam.Credential) { keys.Store(&k) }
	set(old)
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.Peers, cfg.RootKeys = nil, func() []iam.Credential { return *keys.Load() }
	r := runNode(t, cfg)
	r.await(t)
	in := func(c iam.Credential) bool {
		req, err := http.NewRequest(http.MethodGet, r.url("/v1/buckets"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.String())
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	if !in(old) || in(next) {
		t.Fatal("the first key isn't the one that is accepted")
	}
	for _, step := range []struct {
		keys      []iam.Credential
		old, next bool
	}{
		{[]iam.Credential{old, next}, true, true}, {[]iam.Credential{next, old}, true, true}, {[]iam.Credential{next}, false, true},
	} {
		set(step.keys...)
		began := time.Now()
		waitFor(t, "the change", func() bool { return in(old) == step.old && in(next) == step.next })
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	}
}
