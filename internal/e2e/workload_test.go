package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// opsOfGroup is how many operations a group of keys gets before the
	// clients go on to fresh ones: a history is checked group by group, and the
	// check of one with many open ends takes exponential time.
	opsOfGroup = 100
	// groupsAtOnce are worked on at a time.
	groupsAtOnce = 2
	// opTime is how long a client waits for an answer before it goes on.
	opTime = 4 * time.Second
	// inlineMax is the largest payload that is kept in the index.
	inlineMax = 8 << 10
)

// workload is a number of clients that put, get, copy, move, delete and list a few
// keys through all nodes, and write down what happens.
type workload struct {
	mesh    *fleet
	bucket  string
	clients int
	pace    time.Duration // between two operations of all clients together
	least   int           // operations that were answered or are open, however long they take
	large   bool          // some payload is too large for the index
	seed    uint64

	history *history
	issued  atomic.Int64
	acked   atomic.Int64 // writes that were acknowledged

	mu       sync.Mutex          // guards the rest
	contents map[string]content  // by entity tag
	tags     []string            // by content; 0 is none
	known    map[[2]int][]string // entity tags that were seen, by group and key
	odd      map[string]int      // answers that nobody should get
}

func newWorkload(f *fleet, bucket string, seed uint64) *workload {
	return &workload{
		mesh: f, bucket: bucket, clients: 10, seed: seed, history: newHistory(),
		contents: map[string]content{}, tags: []string{""}, known: map[[2]int][]string{}, odd: map[string]int{},
	}
}

// start starts the clients. The function it returns ends them, once they have
// done their least, and waits; at the test's end they end in any case.
func (w *workload) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	enough := make(chan struct{})
	var clients sync.WaitGroup
	for i := range w.clients {
		clients.Go(func() { w.client(ctx, enough, rand.New(rand.NewPCG(w.seed, uint64(i)))) })
	}
	stop = sync.OnceFunc(func() {
		close(enough)
		clients.Wait()
		cancel()
	})
	t.Cleanup(func() {
		cancel()
		clients.Wait()
	})
	return stop
}

// client is one client: one operation after the other, each through a node of
// its own choice.
func (w *workload) client(ctx context.Context, enough <-chan struct{}, random *rand.Rand) {
	h := &http.Client{Transport: &http.Transport{}, Timeout: opTime}
	defer h.CloseIdleConnections()
	begun := time.Now()
	id := w.history.newClient()
	for {
		i := int(w.issued.Add(1)) - 1
		select {
		case <-ctx.Done():
			return
		case <-enough:
			if total, _ := w.history.counts(); total >= w.least {
				return
			}
		case <-time.After(time.Until(begun.Add(time.Duration(i) * w.pace))):
		}
		o := &op{w: w, ctx: ctx, http: h, random: random, client: id}
		o.group = i/(opsOfGroup*groupsAtOnce)*groupsAtOnce + i%groupsAtOnce
		o.key, o.node = random.IntN(keysOfGroup), 1+random.IntN(w.mesh.size)
		o.any()
		if o.open {
			id = w.history.newClient()
		}
	}
}

// op is one operation of a client.
type op struct {
	w          *workload
	ctx        context.Context
	http       *http.Client
	random     *rand.Rand
	client     int
	group, key int
	node       int
	open       bool // its outcome isn't known
}

func (o *op) any() {
	switch n := o.random.IntN(100); {
	case n < 35:
		o.put()
	case n < 54:
		o.get()
	case n < 62:
		o.head()
	case n < 70:
		o.delete()
	case n < 77:
		o.copy()
	case n < 88:
		o.move()
	default:
		o.list()
	}
}

// body makes up a body that no other operation has.
func (w *workload) body(random *rand.Rand) (content, []byte) {
	size := 20 + random.IntN(100)
	switch n := random.IntN(10); {
	case n == 0:
		size = inlineMax
	case n == 1 && w.large:
		size = inlineMax + 1 + random.IntN(64<<10)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := content(len(w.tags))
	b := bytes.Repeat(fmt.Appendf(nil, "%d of %d in %s. ", c, w.seed, w.bucket), 1+size/10)[:size]
	sum := sha256.Sum256(b)
	tag := hex.EncodeToString(sum[:])
	w.contents[tag] = c
	w.tags = append(w.tags, tag)
	return c, b
}

// seen gives an entity tag that the key had at some time, as a client has it
// that wants to change what it has read; "" where there is none.
func (o *op) seen() (content, string) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	tags := o.w.known[[2]int{o.group, o.key}]
	if len(tags) == 0 {
		return 0, ""
	}
	tag := tags[len(tags)-1-o.random.IntN(min(2, len(tags)))]
	return o.w.contents[tag], tag
}

// content is what an entity tag stands for, which the key is then known by.
func (o *op) content(resp *http.Response, tag string) content {
	tag = strings.Trim(tag, `"`)
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	c := o.w.contents[tag]
	if c == 0 {
		o.w.odd[fmt.Sprintf("%s %s: entity tag %q, which nobody has put", resp.Request.Method, resp.Request.URL.Path, tag)]++
		return -1
	}
	at := [2]int{o.group, o.key}
	if n := len(o.w.known[at]); n == 0 || o.w.known[at][n-1] != tag {
		o.w.known[at] = append(o.w.known[at], tag)
	}
	return c
}

func (o *op) keyName(key int) string { return fmt.Sprintf("g%d/%d", o.group, key) }

func (o *op) call(k kind, how string) call {
	return call{kind: k, group: o.group, key: o.key, through: o.node, how: how}
}

// send asks the node. Without an answer resp is nil, and never says that the
// request can't have reached the node.
func (o *op) send(method, path string, query url.Values, header http.Header, body []byte) (resp *http.Response, got []byte, never bool) {
	u := url.URL{Scheme: "http", Host: o.w.mesh.http(o.node), Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(o.ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, true
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Authorization", "Bearer "+o.w.mesh.key)
	resp, err = o.http.Do(req)
	if err != nil {
		var dial *net.OpError
		return nil, nil, errors.As(err, &dial) && dial.Op == "dial"
	}
	defer func() { _ = resp.Body.Close() }()
	if got, err = io.ReadAll(resp.Body); err != nil {
		return nil, nil, false
	}
	return resp, got, false
}

func (o *op) data(method string, header http.Header, body []byte) (*http.Response, []byte, bool) {
	return o.send(method, "/data/"+o.w.bucket+"/"+o.keyName(o.key), nil, header, body)
}

// undecided records a write without a clear answer: it stays open. That a node
// waits says nothing of what it has tried before.
func (o *op) undecided(called int64, c call, resp *http.Response, got []byte, never bool) {
	if never {
		return
	}
	o.oddStatus(resp, got)
	o.open = true
	o.w.history.add(o.client, called, c, answer{})
}

// oddStatus keeps an answer that is neither clear nor a wait.
func (o *op) oddStatus(resp *http.Response, got []byte) {
	if resp == nil || resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusGatewayTimeout {
		return
	}
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.odd[fmt.Sprintf("%s %s: %s: %.300s", resp.Request.Method, resp.Request.URL.Path, resp.Status, got)]++
}

func (o *op) put() {
	value, body := o.w.body(o.random)
	c, header := o.call(opPut, "PUT"), http.Header{}
	c.content = value
	switch o.random.IntN(4) {
	case 0:
		c.ifNone = true
		header.Set("If-None-Match", "*")
	case 1, 2:
		if m, tag := o.seen(); m != 0 {
			c.ifMatch = m
			header.Set("If-Match", `"`+tag+`"`)
		}
	}
	called := o.w.history.now()
	resp, got, never := o.data(http.MethodPut, header, body)
	if resp == nil {
		o.undecided(called, c, nil, nil, never)
		return
	}
	a := answer{is: done, says: true, replaced: resp.StatusCode == http.StatusNoContent}
	switch resp.StatusCode {
	case http.StatusCreated, http.StatusNoContent:
		o.w.acked.Add(1)
		if o.content(resp, resp.Header.Get("Etag")) != value {
			o.oddStatus(resp, []byte("another entity tag than that of the body"))
		}
	case http.StatusPreconditionFailed:
		a = answer{is: differs}
	default:
		o.undecided(called, c, resp, got, false)
		return
	}
	o.w.history.add(o.client, called, c, a)
}

func (o *op) get() {
	c, header := o.call(opRead, "GET"), http.Header{}
	if m, tag := o.seen(); m != 0 && o.random.IntN(4) == 0 {
		c.ifMatch = m
		header.Set("If-None-Match", `"`+tag+`"`)
	}
	called := o.w.history.now()
	resp, got, _ := o.data(http.MethodGet, header, nil)
	if resp == nil {
		return
	}
	if resp.StatusCode == http.StatusOK {
		if sum := sha256.Sum256(got); strings.Trim(resp.Header.Get("Etag"), `"`) != hex.EncodeToString(sum[:]) {
			o.oddStatus(resp, []byte("the body isn't that of the entity tag"))
			return
		}
	}
	o.read(called, c, resp, got)
}

func (o *op) head() {
	called := o.w.history.now()
	if resp, got, _ := o.data(http.MethodHead, nil, nil); resp != nil {
		o.read(called, o.call(opRead, "HEAD"), resp, got)
	}
}

// read records the answer of a read; one that gives none says nothing.
func (o *op) read(called int64, c call, resp *http.Response, got []byte) {
	a := answer{is: missing}
	switch resp.StatusCode {
	case http.StatusOK:
		a = answer{is: done, content: o.content(resp, resp.Header.Get("Etag"))}
	case http.StatusNotModified:
		a = answer{is: unchanged}
	case http.StatusNotFound:
		if bytes.Contains(got, []byte("bucket_not_found")) {
			o.oddStatus(resp, got)
			return
		}
	default:
		o.oddStatus(resp, got)
		return
	}
	o.w.history.add(o.client, called, c, a)
}

func (o *op) delete() {
	c, header := o.call(opDelete, "DELETE"), http.Header{}
	if m, tag := o.seen(); m != 0 && o.random.IntN(2) == 0 {
		c.ifMatch = m
		header.Set("If-Match", `"`+tag+`"`)
	}
	called := o.w.history.now()
	resp, got, never := o.data(http.MethodDelete, header, nil)
	if resp == nil {
		o.undecided(called, c, nil, nil, never)
		return
	}
	a := answer{is: done}
	switch resp.StatusCode {
	case http.StatusNoContent:
		o.w.acked.Add(1)
	case http.StatusNotFound:
		a.is = missing
	case http.StatusPreconditionFailed:
		a.is = differs
	default:
		o.undecided(called, c, resp, got, false)
		return
	}
	o.w.history.add(o.client, called, c, a)
}

// copy copies an object that was seen to another key of the group, by JSON. It
// is a read and then a put, each at a moment of its own, so it is recorded as
// these two. The condition on the source says what an open one puts.
func (o *op) copy() {
	value, tag := o.seen()
	if value == 0 {
		o.get()
		return
	}
	from := o.call(opRead, "copy, reading")
	from.ifMatch = value
	to := o.call(opPut, fmt.Sprintf("copy from %d", o.key))
	to.key, to.content = (o.key+1)%keysOfGroup, value
	body, err := json.Marshal(map[string]any{
		"key": o.keyName(to.key), "sourceKey": o.keyName(o.key),
		"sourceConditions": map[string]any{"ifMatch": []string{tag}},
	})
	if err != nil {
		return
	}
	called := o.w.history.now()
	resp, got, never := o.send(http.MethodPost, "/v1/buckets/"+o.w.bucket+"/objects:copy", nil, http.Header{"Content-Type": {"application/json"}}, body)
	if resp == nil {
		o.undecided(called, to, nil, nil, never)
		return
	}
	h := o.w.history
	switch resp.StatusCode {
	case http.StatusOK:
		o.w.acked.Add(1)
		h.add(o.client, called, to, answer{is: done})
		h.add(h.newClient(), called, from, answer{is: unchanged})
	case http.StatusPreconditionFailed:
		h.add(o.client, called, from, answer{is: differs})
	case http.StatusNotFound:
		h.add(o.client, called, from, answer{is: missing})
	default:
		o.undecided(called, to, resp, got, false)
	}
}

// list lists the group, which is one page.
func (o *op) list() {
	c := o.call(opList, "list")
	called := o.w.history.now()
	resp, got, _ := o.send(http.MethodGet, "/v1/buckets/"+o.w.bucket+"/objects", url.Values{"prefix": {fmt.Sprintf("g%d/", o.group)}}, nil, nil)
	if resp == nil {
		return
	}
	if resp.StatusCode != http.StatusOK {
		o.oddStatus(resp, got)
		return
	}
	var page struct {
		Objects []struct{ Key, Etag string }
	}
	if err := json.Unmarshal(got, &page); err != nil {
		o.oddStatus(resp, got)
		return
	}
	a := answer{is: done}
	for _, object := range page.Objects {
		if _, err := fmt.Sscanf(object.Key, fmt.Sprintf("g%d/%%d", o.group), &o.key); err != nil || o.key < 0 || o.key >= keysOfGroup {
			o.oddStatus(resp, got)
			return
		}
		a.state[o.key] = o.content(resp, object.Etag)
	}
	o.w.history.add(o.client, called, c, a)
}

// finish reads every group once more through every node, and holds all of it
// to the model.
func (w *workload) finish(t *testing.T) {
	t.Helper()
	h := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer h.CloseIdleConnections()
	groups := (int(w.issued.Load())/(opsOfGroup*groupsAtOnce) + 1) * groupsAtOnce
	for group := range groups {
		for node := range w.mesh.all() {
			before, _ := w.history.counts()
			o := &op{w: w, ctx: t.Context(), http: h, client: w.history.newClient(), group: group, node: node}
			o.list()
			if after, _ := w.history.counts(); after == before {
				t.Errorf("group %d can't be listed through node %d, with every node up", group, node)
			}
		}
	}
	for what, n := range w.odd {
		t.Errorf("%d times: %s", n, what)
	}
	total, open := w.history.counts()
	begun := time.Now()
	w.history.check(t)
	moved := w.history.moves()
	t.Logf("seed %d: %d operations in %d groups, %d of them open, %d writes acknowledged, %d of them moves, checked in %v",
		w.seed, total, groups, open, w.acked.Load(), moved, time.Since(begun).Round(time.Millisecond))
	if int(w.acked.Load()) < w.least/10 {
		t.Errorf("only %d of %d operations were acknowledged writes: this shows nothing", w.acked.Load(), total)
	}
	if moved == 0 {
		t.Errorf("nothing was moved")
	}
}
