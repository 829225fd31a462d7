package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// stock is objects that were put and acknowledged, each with a payload file of
// its own on every drive that has a copy.
type stock struct {
	f      *fleet
	bucket string
	client *http.Client
	keys   []string
	sums   map[string][32]byte
}

// newStock makes a bucket and puts so many objects of least to most bytes into
// it, through the nodes that are given.
func newStock(t *testing.T, f *fleet, bucket string, objects, least, most int, nodes ...int) *stock {
	t.Helper()
	s := &stock{f: f, bucket: bucket, sums: map[string][32]byte{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 3 * time.Minute}}
	t.Cleanup(s.client.CloseIdleConnections)
	mustRun(t, f.env(nodes[0]), "mb", bucket)
	random := rand.New(rand.NewPCG(6, uint64(objects)))
	var all errgroup.Group
	all.SetLimit(16)
	for i := range objects {
		body := make([]byte, least+random.IntN(most-least+1))
		for j := 0; j < len(body); j += 64 { // enough for each to be another
			body[j] = byte(random.Uint32())
		}
		key, node := fmt.Sprintf("%05d", i), nodes[i%len(nodes)]
		s.keys = append(s.keys, key)
		s.sums[key] = sha256.Sum256(body)
		all.Go(func() error {
			_, err := s.request(context.Background(), http.MethodPut, node, key, "", body)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	return s
}

// request makes a request for an object; an answer that isn't 2xx is an error.
func (s *stock) request(ctx context.Context, method string, node int, key, query string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, dataDoor{s.f.meshUnderTest}.at(node, s.bucket, key)+query, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.f.key)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, got)
	}
	if err != nil {
		err = fmt.Errorf("%s %s through n%d: %w", method, key, node, err)
	}
	return got, err
}

// check gets every object through a node, and gives how long the answers took.
func (s *stock) check(t *testing.T, node int, query string) (took []time.Duration) {
	t.Helper()
	took = make([]time.Duration, len(s.keys))
	var bad atomic.Int64
	var all errgroup.Group
	all.SetLimit(8)
	for i, key := range s.keys {
		all.Go(func() error {
			start := time.Now()
			got, err := s.request(context.Background(), http.MethodGet, node, key, query, nil)
			took[i] = time.Since(start)
			if err != nil {
				return err
			}
			if sha256.Sum256(got) != s.sums[key] {
				bad.Add(1)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if n := bad.Load(); n > 0 {
		t.Errorf("n%d%s: %d objects of %d have other bytes than were put", node, query, n, len(s.keys))
	}
	slices.Sort(took)
	return took
}

// payloads are a node's payload files by their name, which is the same for all
// copies of one.
func (f *fleet) payloads(t *testing.T, node int) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(f.data(node), func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !e.IsDir() && filepath.Base(filepath.Dir(filepath.Dir(path))) == "payload" && filepath.Ext(path) == "" {
			found[e.Name()] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// until waits until done says so, within limit.
func until(t *testing.T, limit time.Duration, what string, done func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
	return time.Since(start)
}

// TestNodeLost loses all that one of three nodes has.
func TestNodeLost(t *testing.T) {
	t.Parallel()
	nodeLost(t, 80, 3*time.Minute)
}

// nodeLost: reads go on without the node, it isn't let in again as if nothing
// had happened, and once it is replaced its copies are there again, within limit.
func nodeLost(t *testing.T, objects int, limit time.Duration) {
	f := startFleet(t, 3)
	s := newStock(t, f, "loss", objects, 64<<10, 64<<10, 1, 2, 3)
	before := f.payloads(t, 3)
	if len(before) != objects {
		t.Fatalf("n3 has %d copies of %d objects", len(before), objects)
	}
	f.kill(3)
	if err := os.RemoveAll(f.data(3)); err != nil {
		t.Fatal(err)
	}
	for _, node := range []int{1, 2} {
		s.check(t, node, "")
	}
	f.start(t, 3)
	f.waitRefusal(t, 3, "n3", "gridloom node replace")
	mustRun(t, f.env(1), "node", "replace", "n3")
	if !f.alive(3) {
		f.start(t, 3)
	}
	took := until(t, limit, "the copies are back", func() bool { return len(f.payloads(t, 3)) >= objects })
	t.Logf("%d copies are back after %v", objects, took.Round(time.Millisecond))
	f.waitReady(t)
	f.sameCopies(t)
	until(t, time.Minute, "n3 votes again, in the place of what it was", func() bool { return f.allVote(t, 3) })
	f.kill(1) // n2 and n3 are a majority, and have everything
	s.check(t, 3, "")
}

// allVote reports whether each group has so many members, all of them voters
// that have what their leader has, which only the leader knows.
func (f *fleet) allVote(t *testing.T, members int) bool {
	t.Helper()
	groups := map[string]bool{} // whether it is so
	for node := range f.all() {
		c, err := f.describe(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range c.Groups {
			all := len(g.Members) == members
			for _, m := range g.Members {
				all = all && m.Role == "MEMBER_ROLE_VOTER" && m.Lag != nil && *m.Lag == "0"
			}
			groups[g.Name] = groups[g.Name] || all
		}
	}
	for _, all := range groups {
		if !all {
			return false
		}
	}
	return len(groups) > 0
}

// sameCopies checks that every payload has three copies which are the same.
func (f *fleet) sameCopies(t *testing.T) {
	t.Helper()
	first := f.payloads(t, 1)
	for node := range f.all() {
		copies := f.payloads(t, node)
		if len(copies) != len(first) {
			t.Errorf("n%d has %d payloads, n1 %d", node, len(copies), len(first))
		}
		for name, path := range copies {
			if a, b := fileSum(t, path), fileSum(t, first[name]); a != b {
				t.Errorf("payload %s isn't the same on n%d and n1", name, node)
			}
		}
	}
}

func fileSum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// TestBitRot flips one bit in one of three copies of each object, somewhere in
// payload or footer.
func TestBitRot(t *testing.T) {
	t.Parallel()
	bitRot(t, 40, 1200<<10, 10*time.Minute) // up to two of the parts that have a checksum each
}

// bitRot: not one wrong byte leaves on a verifying read, and what was asked for
// finds and heals all of them within limit. The objects have up to most bytes.
func bitRot(t *testing.T, objects, most int, limit time.Duration) {
	f := startFleet(t, 3)
	s := newStock(t, f, "rot", objects, 9<<10, most, 1, 2, 3)
	until(t, time.Minute, "each node has its copy, late ones by healing", func() bool {
		return len(f.payloads(t, 1)) == objects && len(f.payloads(t, 2)) == objects && len(f.payloads(t, 3)) == objects
	})
	random := rand.New(rand.NewPCG(7, 7))
	for name := range f.payloads(t, 1) {
		node := 1 + random.IntN(3)
		path := f.payloads(t, node)[name]
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for node := range f.all() {
		s.check(t, node, "?verify=always")
	}
	start := time.Now()
	mustRun(t, f.env(2), "heal", "start", "--verify", "--wait")
	took := time.Since(start)
	t.Logf("%d flipped bits were found and healed in %v", objects, took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("it took %v", took)
	}
	f.sameCopies(t)
	for node := range f.all() {
		s.check(t, node, "")
	}
}

// TestPoolLate starts the second of two pools a few seconds after the first.
func TestPoolLate(t *testing.T) {
	t.Parallel()
	poolLate(t, 3*time.Second, 30*time.Second)
}

// poolLate: what is in the pool that is there is served at once; what is in the
// late one waits, and is served when it comes, or is told when to come again. What
// doesn't need the late one is served within limit.
func poolLate(t *testing.T, late, limit time.Duration) {
	f := newFleet(t, 5)
	f.own = func(node int) []string {
		if node <= 3 {
			return []string{"--pool", "early"}
		}
		return []string{"--pool", "late"}
	}
	f.startAll(t)
	// Of nothing, so that new payload goes elsewhere. It is refused for as long as
	// nobody has heard of the other pool's drives.
	until(t, time.Minute, "the early pool can be drained", func() bool {
		return run(t, f.env(1), nil, "pool", "drain", "early").code == 0
	})
	inLate := f.stockOff(t, "late", 1, 2, 3)
	mustRun(t, f.env(1), "pool", "drain", "early", "--undo")
	inEarly := f.stockOff(t, "early", 4, 5) // three drives have more free than two
	for node := range f.all() {
		f.kill(node)
	}
	for node := 1; node <= 3; node++ {
		f.start(t, node)
	}
	for node := 1; node <= 3; node++ {
		waitReady(t, f.running[node-1], f.http(node))
	}
	took := inEarly.check(t, 2, "")
	t.Logf("the pool that is there: slowest answer %v", took[len(took)-1])
	if took[len(took)-1] > limit {
		t.Errorf("requests that don't need the late pool took up to %v", took[len(took)-1])
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), late+2*time.Minute)
	defer cancel()
	go func() {
		served <- f.again(ctx, http.MethodGet, dataDoor{f.meshUnderTest}.at(1, inLate.bucket, inLate.keys[0]), "")
	}()
	wait(t, late)
	select {
	case err := <-served:
		t.Fatalf("an object of a pool that isn't there was answered: %v", err)
	default:
	}
	for node := 4; node <= 5; node++ {
		f.start(t, node)
	}
	came := time.Now()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	t.Logf("served %v after the late pool was started", time.Since(came).Round(time.Millisecond))
	f.waitReady(t)
	inLate.check(t, 2, "")
}

// stockOff puts a few objects of which some nodes have no copy. Where they go is up
// to what the node that is asked has heard of drives, which takes it a moment.
func (f *fleet) stockOff(t *testing.T, bucket string, nodes ...int) *stock {
	t.Helper()
	count := func() (n int) {
		for _, node := range nodes {
			n += len(f.payloads(t, node))
		}
		return n
	}
	for try := range 20 {
		before := count()
		s := newStock(t, f, fmt.Sprintf("%s-%d", bucket, try), 5, 100<<10, 400<<10, 1)
		if count() == before {
			return s
		}
		wait(t, 200*time.Millisecond)
	}
	t.Fatalf("payload goes to nodes %v, twenty times over", nodes)
	return nil
}

// TestNodeEmptied drains a node and takes it out of the mesh.
func TestNodeEmptied(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 4)
	s := newStock(t, f, "moving", 100, 64<<10, 64<<10, 1, 2, 3, 4)
	held := len(f.payloads(t, 4))
	if held == 0 {
		t.Fatal("n4 has no copy of a hundred objects")
	}
	mustRun(t, f.env(1), "node", "drain", "n4", "--wait")
	mustRun(t, f.env(1), "node", "leave", "n4")
	f.kill(4)
	if err := os.RemoveAll(f.data(4)); err != nil {
		t.Fatal(err)
	}
	copies := 0
	for node := 1; node <= 3; node++ {
		copies += len(f.payloads(t, node))
		s.check(t, node, "")
	}
	if copies < 3*len(s.keys) {
		t.Errorf("the three nodes that are left have %d copies of %d objects", copies, len(s.keys))
	}
	t.Logf("%d copies were moved off n4", held)
}

// TestReadsGoOn reads everything while one of three nodes is down.
func TestReadsGoOn(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	s := newStock(t, f, "down", 50, 20<<10, 600<<10, 1, 2, 3)
	f.kill(2)
	for _, node := range []int{1, 3} {
		took := s.check(t, node, "")
		t.Logf("n%d: p50 %v, slowest %v", node, took[len(took)/2], took[len(took)-1])
	}
	_, err := s.request(t.Context(), http.MethodPut, 1, "meanwhile", "", make([]byte, 1<<20))
	if err != nil {
		t.Errorf("a put while one of three is down: %v", err)
	}
	if mode := strings.TrimSpace(mustRun(t, f.env(1), "heal", "status")); mode == "" {
		t.Error("heal status says nothing")
	}
	f.start(t, 2)
	f.waitReady(t)
	until(t, 3*time.Minute, "the copy of what was put meanwhile", func() bool {
		return len(f.payloads(t, 2)) == len(f.payloads(t, 1)) && len(f.payloads(t, 3)) == len(f.payloads(t, 1))
	})
	f.sameCopies(t)
}

// TestQuota: what is over a bucket's quota is refused by name, and the usage is
// exact.
func TestQuota(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1)
	s := newStock(t, f, "quota", 10, 30_000, 30_000, 1)
	mustRun(t, f.env(1), "bucket", "quota", "quota", "--size", strconv.Itoa(350_000))
	if _, err := s.request(t.Context(), http.MethodPut, 1, "fits", "", make([]byte, 50_000)); err != nil {
		t.Error(err)
	}
	_, err := s.request(t.Context(), http.MethodPut, 1, "over", "", make([]byte, 1))
	if err == nil || !strings.Contains(err.Error(), "429") || !strings.Contains(err.Error(), "quota_exceeded") {
		t.Errorf("a byte too many: %v", err)
	}
	usage := mustRun(t, f.env(1), "bucket", "usage", "quota", "--json")
	if !strings.Contains(usage, "350000") || !strings.Contains(usage, "11") {
		t.Errorf("usage: %s", usage)
	}
}
