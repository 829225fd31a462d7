package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWipedNode: a node that comes back under its name without its data is not
// let in, and says how it can be; the mesh goes on without it.
func TestWipedNode(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	mustRun(t, f.env(1), "mb", "wiped")
	f.mustPut(t, 3, "wiped", "before")
	id := f.deployment(t)
	f.kill(3)
	if err := os.RemoveAll(f.data(3)); err != nil {
		t.Fatal(err)
	}
	f.start(t, 3)
	f.waitRefusal(t, 3, "n3", "gridloom node replace")
	f.mustPut(t, 1, "wiped", "meanwhile")
	if _, err := os.Stat(filepath.Join(f.data(3), "deployment")); err == nil {
		t.Error("the node has taken over the mesh's id")
	}

	mustRun(t, f.env(1), "node", "replace", "n3")
	if !f.alive(3) {
		f.start(t, 3)
	}
	f.waitReady(t)
	f.mustHave(t, 3, "wiped", "before", "meanwhile")
	if now := f.deployment(t); now != id {
		t.Errorf("the id was %s, and is %s", id, now)
	}
}

// TestForeignNode: a node with another mesh's data is not let in, though it
// has the name, the address and the secret, and changes nothing on either side.
func TestForeignNode(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	foreign := f.deployment(t)
	aside := t.TempDir()
	for node := range f.all() {
		f.kill(node)
		f.move(t, f.data(node), filepath.Join(aside, f.name(node)))
	}
	f.startAll(t)
	mustRun(t, f.env(1), "mb", "ours")
	f.mustPut(t, 3, "ours", "before")
	id := f.deployment(t)
	if id == foreign {
		t.Fatalf("two meshes have the id %s", id)
	}
	f.kill(3)
	f.move(t, f.data(3), filepath.Join(aside, "ours"))
	f.move(t, filepath.Join(aside, "n3"), f.data(3))
	f.start(t, 3)
	f.waitRefusal(t, 3, id, foreign)
	f.mustPut(t, 1, "ours", "meanwhile")

	f.kill(3)
	f.move(t, f.data(3), filepath.Join(aside, "n3"))
	f.move(t, filepath.Join(aside, "ours"), f.data(3))
	f.start(t, 3)
	f.waitReady(t)
	f.mustHave(t, 3, "ours", "before", "meanwhile")
	if now := f.deployment(t); now != id {
		t.Errorf("the id was %s, and is %s", id, now)
	}
}

func (f *fleet) move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestFoundersDisagree: nodes with different lists of founders form no mesh,
// and say so, until the lists are the same.
func TestFoundersDisagree(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	wrong := f.peers() + ",n4=http://127.0.0.1:1,n5=http://127.0.0.1:2"
	f.start(t, 1)
	f.start(t, 2)
	f.running[2] = start(t, nil, f.args(3, wrong)...)
	f.waitRefusal(t, 1, "n3")
	f.waitRefusal(t, 3, "n1")
	for node := range f.all() {
		if kept, err := os.ReadFile(filepath.Join(f.data(node), "deployment")); err == nil {
			t.Errorf("n%d belongs to a mesh already: %s", node, kept)
		}
	}
	f.kill(3)
	f.start(t, 3)
	f.waitReady(t)
	f.deployment(t)
}

// TestEvenFounders: of four founders three vote, so that any one may go.
func TestEvenFounders(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 4)
	mustRun(t, f.env(1), "mb", "even")
	f.deployment(t)
	for _, node := range []int{1, 4} {
		f.kill(node)
		through := 1 + node%f.size
		f.insistPut(t, through, "even", fmt.Sprintf("without-%d", node))
		f.start(t, node)
		f.waitReady(t)
	}
	f.mustHave(t, 2, "even", "without-1", "without-4")
}

// TestMinority: a minority that is asked to write refuses, names what is
// missing and says when to come again; what was acknowledged is there when the
// others are.
func TestMinority(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	mustRun(t, f.env(1), "mb", "minority")
	f.mustPut(t, 2, "minority", "before")
	f.kill(1)
	f.kill(2)
	var both sync.WaitGroup
	for _, method := range []string{http.MethodPut, http.MethodGet} {
		both.Go(func() {
			code, header, body, err := f.object(t, 3, method, "minority", map[string]string{http.MethodPut: "refused", http.MethodGet: "before"}[method], nil, []byte("value"))
			if err != nil || code != http.StatusServiceUnavailable {
				t.Errorf("%s through a minority: %d, %v, %s", method, code, err, body)
			}
			if seconds, err := strconv.Atoi(header.Get("Retry-After")); err != nil || seconds < 1 {
				t.Errorf("%s through a minority: Retry-After is %q", method, header.Get("Retry-After"))
			}
			if !strings.Contains(string(body), "n1") || !strings.Contains(string(body), "n2") {
				t.Errorf("the refusal of %s doesn't name the nodes that are missing: %s", method, body)
			}
		})
	}
	// The reason comes before the caller's deadline.
	for _, deadline := range []string{"2s", "4s"} {
		for _, args := range [][]string{{"ls", "minority"}, {"stat", "minority/before"}} {
			both.Go(func() {
				r := run(t, f.env(3), nil, append(args, "--timeout", deadline)...)
				if r.code == 0 || !strings.Contains(r.stderr, "n1") || !strings.Contains(r.stderr, "n2") {
					t.Errorf("%v within %s doesn't name the nodes that are missing: %s", args, deadline, r.stderr)
				}
			})
		}
		both.Go(func() {
			code, body := f.within(t, 3, deadline, "/v1/buckets/minority/objects")
			if code != http.StatusServiceUnavailable || !strings.Contains(body, "n1") || !strings.Contains(body, "n2") {
				t.Errorf("a list over HTTP within %s: %d %s", deadline, code, body)
			}
		})
	}
	both.Wait()
	f.waitRefusal(t, 3)
	f.start(t, 1)
	f.start(t, 2)
	f.waitReady(t)
	f.mustHave(t, 3, "minority", "before")
	if code, _, body, err := f.object(t, 1, http.MethodGet, "minority", "refused", nil, nil); code != http.StatusNotFound && string(body) != "value" {
		t.Errorf("what was refused is neither absent nor whole: %d, %v, %s", code, err, body)
	}
	f.mustPut(t, 3, "minority", "after")
}

// within gets a path of /v1 with a deadline.
func (f *fleet) within(t *testing.T, node int, deadline, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.http(node)+path, nil)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	req.Header.Set("Grpc-Timeout", strings.ToUpper(deadline))
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b)
}

// alive says whether a node's process runs.
func (f *fleet) alive(node int) bool {
	select {
	case <-f.running[node-1].done:
		return false
	default:
		return true
	}
}

// waitRefusal waits until a node that isn't ready says all of that: in the
// answer of /readyz, or as it ends.
func (f *fleet) waitRefusal(t *testing.T, node int, says ...string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	all := func(text string) bool {
		for _, part := range says {
			if !strings.Contains(text, part) {
				return false
			}
		}
		return true
	}
	last := ""
	for {
		resp, err := client.Get("http://" + f.http(node) + "/readyz")
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			last = resp.Status + " " + string(b)
			if resp.StatusCode == http.StatusServiceUnavailable && all(last) {
				return
			}
		}
		select {
		case <-f.running[node-1].done:
			if last = f.running[node-1].out.String(); f.running[node-1].err == nil || !all(last) {
				t.Fatalf("n%d ended with %v, and doesn't say %q:\n%s", node, f.running[node-1].err, says, last)
			}
			return
		case <-limit:
			t.Fatalf("n%d doesn't refuse and say %q: %s", node, says, last)
		case <-tick.C:
		}
	}
}

// mustPut puts an object that holds its own name.
func (f *fleet) mustPut(t *testing.T, node int, bucket, key string) {
	t.Helper()
	if code, _, body, err := f.object(t, node, http.MethodPut, bucket, key, nil, []byte(key)); code != http.StatusCreated {
		t.Fatalf("put %s/%s through n%d: %d, %v, %s", bucket, key, node, code, err, body)
	}
}

// insistPut is mustPut through a mesh that may be looking for a leader.
func (f *fleet) insistPut(t *testing.T, node int, bucket, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := f.again(ctx, http.MethodPut, dataDoor{f.meshUnderTest}.at(node, bucket, key), key); err != nil {
		t.Fatalf("put %s/%s through n%d: %v", bucket, key, node, err)
	}
}

// mustHave gets objects that mustPut has put.
func (f *fleet) mustHave(t *testing.T, node int, bucket string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if code, _, body, err := f.object(t, node, http.MethodGet, bucket, key, nil, nil); code != http.StatusOK || string(body) != key {
			t.Errorf("get %s/%s through n%d: %d, %v, %s", bucket, key, node, code, err, body)
		}
	}
}
