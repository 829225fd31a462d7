package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKills kills a mesh under load, a few times; make soak does it twenty.
func TestKills(t *testing.T) { killUnderLoad(t, 2) }

// killUnderLoad puts objects of mixed sizes through all nodes from eight
// clients, kills the mesh with SIGKILL in the middle, starts it again on the
// same data, and does so again and again: whatever was acknowledged must be
// back, hash for hash, and whatever wasn't must be whole or absent.
func killUnderLoad(t *testing.T, kills int) {
	m := meshUnderTest{key: strings.TrimSpace(mustRun(t, nil, "keygen")), base: freeBase(t, 3)}
	args := []string{"dev", "--nodes", "3", "--port", fmt.Sprint(m.base), "--data", t.TempDir(), "--key", m.key}
	p := start(t, nil, args...)
	ready := func() {
		for node := 1; node <= 3; node++ {
			waitReady(t, p, m.http(node))
		}
	}
	ready()
	mustRun(t, m.env(1), "mb", "kills")
	load := newLoad(m, 3)
	for round := range kills {
		stop := load.start(round)
		load.waitAcknowledged(t, 20)
		wait(t, time.Duration(rand.IntN(900))*time.Millisecond) // any moment will do
		p.kill()
		stop()
		p = start(t, nil, args...)
		ready()
		load.check(t, 1+round%3)
	}
	t.Logf("%d kills, %d puts tried, %d acknowledged", kills, len(load.tried), len(load.acknowledged))
	if len(load.acknowledged) < 10*kills {
		t.Errorf("only %d puts were acknowledged: this shows nothing", len(load.acknowledged))
	}
}

// load is what was put.
type load struct {
	mesh meshUnderTest
	size int // nodes

	clients int
	sizes   []int // of the objects, to which up to 99 bytes are added

	mu           sync.Mutex        // guards the rest
	tried        map[string]string // key to SHA-256
	acknowledged map[string]bool
}

func newLoad(m meshUnderTest, size int) *load {
	return &load{mesh: m, size: size, clients: 8, sizes: []int{100, 9 << 10, 100 << 10, 600 << 10}, tried: map[string]string{}, acknowledged: map[string]bool{}}
}

// start begins to put; the function it returns ends that and waits.
func (l *load) start(round int) (stop func()) {
	done := make(chan struct{})
	var clients sync.WaitGroup
	for c := range l.clients {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(round), uint64(c)))
			content := rand.NewChaCha8([32]byte{byte(round), byte(c)})
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				body := make([]byte, l.sizes[random.IntN(len(l.sizes))]+random.IntN(100))
				_, _ = content.Read(body) // it always fills it
				l.put(client, 1+random.IntN(l.size), fmt.Sprintf("%d/%d/%d", round, c, i), body)
			}
		})
	}
	return func() {
		close(done)
		clients.Wait()
	}
}

// waitAcknowledged waits until so many more puts were acknowledged.
func (l *load) waitAcknowledged(t *testing.T, more int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acknowledged)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(5 * time.Minute)
	for before := count(); count() < before+more; {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("only %d puts were acknowledged in five minutes", count()-before)
		}
	}
}

// put tries one put; that it fails is what a kill is for.
func (l *load) put(client *http.Client, node int, key string, body []byte) {
	sum := sha256.Sum256(body)
	l.mu.Lock()
	l.tried[key] = hex.EncodeToString(sum[:])
	l.mu.Unlock()
	req, err := http.NewRequest(http.MethodPut, dataDoor{l.mesh}.at(node, "kills", key), bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+l.mesh.key)
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		l.mu.Lock()
		l.acknowledged[key] = true
		l.mu.Unlock()
	}
}

// check gets everything that was tried through a node.
func (l *load) check(t *testing.T, node int) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 3 * time.Minute}
	defer client.CloseIdleConnections()
	for _, key := range slices.Sorted(maps.Keys(l.tried)) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, dataDoor{l.mesh}.at(node, "kills", key), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+l.mesh.key)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		_, err = io.Copy(h, resp.Body)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			t.Fatalf("%s: %v", key, err)
		case resp.StatusCode == http.StatusNotFound && !l.acknowledged[key]:
		case resp.StatusCode != http.StatusOK:
			t.Errorf("%s, acknowledged %t: %s", key, l.acknowledged[key], resp.Status)
		case hex.EncodeToString(h.Sum(nil)) != l.tried[key]:
			t.Errorf("%s, acknowledged %t: other bytes came back", key, l.acknowledged[key])
		}
	}
}
