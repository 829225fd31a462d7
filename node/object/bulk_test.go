package object

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// bulkDo makes a signed bulk request with net/http's client: the port is plain
// HTTP to whoever implements the other end.
func (n *testNode) bulkDo(t *testing.T, to *testNode, method, path string, body io.Reader, length int64, change func(*http.Request)) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(testContext(t), method, to.url+path, body)
	must(t, err)
	r.ContentLength = length
	if change != nil {
		change(r)
	}
	n.sign(r.Header, method, pathAndQuery(r.URL), length, to.name)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: 10 * time.Second}}
	resp, err := client.Do(r)
	must(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestBulkPort: the wire as bulk.go describes it.
func TestBulkPort(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 1}})
	a, b := m.nodes[0], m.nodes[1]
	data := randomBytes(5000)
	ref := payloadRef{b.drives[0].ID(), dataio.NewID()}
	resp := a.bulkDo(t, b, http.MethodPut, bulkPath(ref), bytes.NewReader(data), int64(len(data)), nil)
	if resp.StatusCode != http.StatusCreated || resp.Header.Get(headerSize) != "5000" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	if crc := newSums(); resp.Header.Get(headerCRC32C) == "" {
		t.Errorf("no checksum, want %08x", crc.crc32c)
	}
	resp = a.bulkDo(t, b, http.MethodGet, bulkPath(ref), nil, 0, nil)
	if got, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !bytes.Equal(got, data) || resp.ContentLength != 5000 {
		t.Fatalf("%d, %d bytes", resp.StatusCode, len(got))
	}
	resp = a.bulkDo(t, b, http.MethodGet, bulkPath(ref), nil, 0, func(r *http.Request) { r.Header.Set("Range", "bytes=10-19") })
	if got, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusPartialContent || !bytes.Equal(got, data[10:20]) ||
		resp.Header.Get("Content-Range") != "bytes 10-19/5000" || resp.Header.Get(headerSize) != "5000" {
		t.Fatalf("%d, %d bytes, %v", resp.StatusCode, len(got), resp.Header)
	}
	resp = a.bulkDo(t, b, http.MethodGet, bulkPath(ref)+bulkQuery(manner{verify: true, hedge: true}), nil, 0, nil)
	if got, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !bytes.Equal(got, data) || resp.Header.Get(headerCRC32C) != fmt.Sprintf("%08x", crc32.Checksum(data, castagnoli)) {
		t.Fatalf("verified: %d, %d bytes, %v", resp.StatusCode, len(got), resp.Header)
	}
	away := payloadRef{"not-open", ref.id}
	for name, c := range map[string]struct {
		method, path string
		length       int64
		change       func(*http.Request)
		kind         fault.Kind
	}{
		"query":     {http.MethodGet, bulkPath(ref) + "?x=1", 0, nil, fault.InvalidArgument},
		"verify":    {http.MethodGet, bulkPath(ref) + "?verify=2", 0, nil, fault.InvalidArgument},
		"twice":     {http.MethodGet, bulkPath(ref) + "?hedge=1&hedge=1", 0, nil, fault.InvalidArgument},
		"away":      {http.MethodGet, bulkPath(away) + "?hedge=1", 0, nil, fault.Waiting},
		"exists":    {http.MethodPut, bulkPath(ref), 5000, nil, fault.Conflict},
		"too large": {http.MethodPut, bulkPath(payloadRef{ref.drive, dataio.NewID()}), SegmentMaxBytes + 1, nil, fault.TooLarge},
		"method":    {http.MethodDelete, bulkPath(ref), 0, nil, fault.Unimplemented},
		"path":      {http.MethodGet, "/bulk/v1/other", 0, nil, fault.NotFound},
		"missing":   {http.MethodGet, bulkPath(payloadRef{ref.drive, dataio.NewID()}), 0, nil, fault.Corrupted},
		"range":     {http.MethodGet, bulkPath(ref), 0, func(r *http.Request) { r.Header.Set("Range", "bytes=10-5000") }, fault.RangeInvalid},
		"two":       {http.MethodGet, bulkPath(ref), 0, func(r *http.Request) { r.Header.Set("Range", "bytes=1-2,4-5") }, fault.RangeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			var body io.Reader
			if c.length > 0 {
				body = io.LimitReader(zeros{}, c.length)
			}
			resp := a.bulkDo(t, b, c.method, c.path, body, c.length, func(r *http.Request) {
				r.Header.Set("Expect", "100-continue")
				if c.change != nil {
					c.change(r)
				}
			})
			if resp.StatusCode != c.kind.Status() || resp.Header.Get(headerError) != c.kind.Reason() || resp.Header.Get(headerDetail) == "" {
				t.Errorf("%d, %v", resp.StatusCode, resp.Header)
			}
		})
	}
	t.Run("query unsigned", func(t *testing.T) {
		resp := a.bulkDo(t, b, http.MethodGet, bulkPath(ref), nil, 0, nil)
		resp.Request.URL.RawQuery = "hedge=1"
		again, err := http.DefaultClient.Do(resp.Request)
		must(t, err)
		defer again.Body.Close()
		if again.StatusCode != http.StatusUnauthorized {
			t.Errorf("%d", again.StatusCode)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	t.Run("unsigned", func(t *testing.T) {
		resp, err := http.Get(b.url + bulkPath(ref))
		must(t, err)
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%d", resp.StatusCode)
		}
	})
	m.wantFiles(1)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestBulkReuse: one after the other takes one connection; one that the peer
// has closed meanwhile is noticed without anybody else noticing.
func TestBulkReuse(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("reuse")
	n := m.nodes[0]
	data := randomBytes(GridMaxBytes + 1)
	for i := range 5 {
		n.put(t, "reuse", fmt.Sprint(i), data, i%2 == 0)
		n.get(t, "reuse", fmt.Sprint(i), -1, 0)
	}
	if open, opened := n.recorded.conns(); open != 1 || opened != 1 {
		t.Errorf("%d connections, %d opened", open, opened)
	}
	for i := range 3 {
		n.bulk.mu.Lock()
		for _, p := range n.bulk.peers {
			for _, c := range p.idle {
				// As if the peer had closed it: reads and writes fail.
				c.Conn.Close()
			}
		}
		n.bulk.mu.Unlock()
		if i%2 == 0 {
			n.get(t, "reuse", "0", -1, 0)
		} else {
			n.put(t, "reuse", "again", data, true)
		}
	}
	// A range that is not read to its end leaves nothing to reuse.
	r, err := n.Open(testContext(t), "reuse", "0", Conditions{}, 0)
	must(t, err)
	local, remote := pair(t)
	remote.Close()
	if _, err := r.Send(testContext(t), local, 0, -1, dataio.Windows{}); err == nil {
		t.Error("sent to nobody")
	}
	n.bulk.closeAll(time.Now().Add(time.Hour))
	if open, _ := n.recorded.conns(); open != 0 {
		t.Errorf("%d connections are open", open)
	}
	n.get(t, "reuse", "1", -1, 0)
}

// TestBulkBounded: what is over the limits is told so, and served elsewhere or
// later.
func TestBulkBounded(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{options: func(_ int, o *Options) {
		o.BulkConns, o.BulkUploads, o.WaitTimeout = 2, 1, 200*time.Millisecond
	}})
	m.bucket("bounded")
	n := m.nodes[0]
	data := randomBytes(GridMaxBytes + 1)
	n.put(t, "bounded", "k", data, true)

	// Two readers that don't read hold both connections.
	ctx := testContext(t)
	node, err := n.locate(ctx, m.nodes[1].drives[0].ID())
	must(t, err)
	a, err := n.Index().Read(ctx, &control.Query{Record: &control.RecordQuery{Bucket: "bounded", Key: "k"}})
	must(t, err)
	seg := a.Record.Segments[0]
	ref := payloadRef{seg.Drives[0], seg.ID}
	var held []*bulkSource
	for range 2 {
		src, err := n.bulk.open(ctx, node, ref, part{&seg, 0, seg.SizeBytes}, manner{patience: time.Second})
		must(t, err)
		held = append(held, src)
	}
	if _, err := n.read(ctx, "bounded", "k", -1, 0); fault.KindOf(err) != fault.Overloaded {
		t.Errorf("a third connection: %v", err)
	}
	for _, src := range held {
		src.close()
	}
	n.get(t, "bounded", "k", -1, 0)

	// One upload is all that the owner takes at a time.
	w, err := n.bulk.create(ctx, node, ref.drive, dataio.NewID(), -1)
	must(t, err)
	_, err = n.Put(ctx, PutRequest{Bucket: "bounded", Key: "second", SizeBytes: int64(len(data))}, unread{t}, nil)
	if fault.KindOf(err) != fault.Overloaded {
		t.Errorf("a second upload: %v", err)
	}
	w.Abort()
	m.wantFiles(1)
	for fault.KindOf(err) == fault.Overloaded {
		_, err = n.Put(ctx, PutRequest{Bucket: "bounded", Key: "second", SizeBytes: int64(len(data))}, bytes.NewReader(data), nil)
	}
	must(t, err)
}

// TestRemoveEndsUpload: a removal that meets an upload ends it.
func TestRemoveEndsUpload(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	n, ctx := m.nodes[0], testContext(t)
	node, err := n.locate(ctx, m.nodes[1].drives[0].ID())
	must(t, err)
	id := dataio.NewID()
	w, err := n.bulk.create(ctx, node, node.Drives[0], id, testSegment)
	must(t, err)
	defer w.Abort()
	if _, err := w.Write(randomBytes(1000)); err != nil {
		t.Fatal(err)
	}
	if len(m.files()) != 1 {
		t.Fatal("no file was begun")
	}
	must(t, n.removeAt(ctx, node.Name, []payloadRef{{node.Drives[0], id}}))
	if files := m.files(); len(files) != 0 {
		t.Errorf("%v", files)
	}
	for {
		if _, err = w.Write(randomBytes(1000)); err != nil {
			break
		}
	}
	if kind := fault.KindOf(err); kind != fault.Canceled && kind != fault.Unavailable {
		t.Errorf("%v", err)
	}
}

// TestTLS: the same over TLS with certificates instead of secrets, without
// splice.
func TestTLS(t *testing.T) {
	cert := selfSigned(t, "n0", "n1", "n2", "localhost")
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	m := onlyOn(t, 1, meshConfig{tls: &tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}})
	m.bucket("tls")
	n := m.nodes[0]
	for i, size := range boundaries {
		data := randomBytes(size)
		n.put(t, "tls", strconv.Itoa(i), data, i%2 == 0)
		if got := m.nodes[2].get(t, "tls", strconv.Itoa(i), -1, 0); !bytes.Equal(got, data) {
			t.Fatalf("%d bytes: other bytes", size)
		}
	}
	if sent := m.nodes[2].recorded.take(); sent[PathSplice] != 0 || sent[PathCopy] == 0 {
		t.Errorf("sent %v", sent)
	}
	if _, opened := m.nodes[2].recorded.conns(); opened > 2 {
		t.Errorf("%d connections opened", opened)
	}
}

// TestBulkWrongCertificate: a peer whose certificate is another node's is not
// spoken to, though it is at the right address.
func TestBulkWrongCertificate(t *testing.T) {
	cert := selfSigned(t, "n1")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	defer func() { <-served }()
	defer l.Close()
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	s := &Service{o: Options{TLS: &tls.Config{RootCAs: pool}}}
	for _, tc := range []struct {
		node  string
		hosts bool
		ok    bool
	}{{"n1", false, true}, {"n2", false, false}, {"127.0.0.1", false, true}, {"n2", true, true}} {
		s.o.HostCertificates = tc.hosts
		c, err := newBulkClient(s).dial(testContext(t), control.Node{Name: tc.node, URL: "https://" + l.Addr().String()})
		if (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

// TestWaitLog: many that wait write one line.
func TestWaitLog(t *testing.T) {
	var w waitLog
	var lines countLines
	w.log = lines.logger()
	var wg sync.WaitGroup
	release := make(chan struct{})
	var entered sync.WaitGroup
	for range 10 {
		entered.Add(1)
		wg.Go(func() {
			leave := w.enter("node b", "not connected")
			entered.Done()
			<-release
			leave()
		})
	}
	entered.Wait()
	close(release)
	wg.Wait()
	if n := lines.count(); n != 2 {
		t.Errorf("%d lines, want one for the first and one for the last", n)
	}
	if len(w.waiting) != 0 {
		t.Errorf("%v", w.waiting)
	}
}
