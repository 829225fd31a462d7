package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestHostileHTTP1 sends what two servers might read in two ways, and what is
// meant to cost a lot, to the HTTP and the peer listener: each is refused or
// cut, and nothing behind it is read as a request.
func TestHostileHTTP1(t *testing.T) {
	b := besiege(t, hasty...)
	auth := "Authorization: Bearer " + b.key + "\r\n"
	// What comes behind the first request's end, as one reading has it. It would
	// leave an object.
	smuggled := "PUT /data/siege/smuggled HTTP/1.1\r\nHost: h\r\n" + auth + "Content-Length: 1\r\n\r\nx"
	const put = "PUT /data/siege/hostile HTTP/1.1\r\nHost: h\r\n"
	const old = "PUT /data/siege/hostile HTTP/1.0\r\nConnection: keep-alive\r\n"
	const get = "GET /data/siege/honest HTTP/1.1\r\nHost: h\r\n"
	var wg sync.WaitGroup
	for name, c := range map[string]struct {
		raw string
		ok  bool // to answer it is right, RFC 9112 says how; then the connection ends
	}{
		"both lengths":              {put + auth + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, true},
		"both lengths, other order": {put + auth + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + smuggled, true},
		"two lengths":               {put + auth + "Content-Length: 1\r\nContent-Length: 60\r\n\r\nx" + smuggled, false},
		"a list of lengths":         {put + auth + "Content-Length: 1, 60\r\n\r\nx" + smuggled, false},
		"a signed length":           {put + auth + "Content-Length: +1\r\n\r\nx" + smuggled, false},
		"two codings":               {put + auth + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled, false},
		"an unknown coding":         {put + auth + "Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\nx" + smuggled, false},
		"a coding behind a fold":    {put + auth + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + smuggled, true},
		"a space before the colon":  {put + auth + "Transfer-Encoding : chunked\r\nContent-Length: 1\r\n\r\nx" + smuggled, false},
		"bare LF in a chunk":        {put + auth + "Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n" + smuggled, false},
		"a huge chunk extension":    {put + auth + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 1<<20) + "\r\nx\r\n0\r\n\r\n" + smuggled, false},
		"many chunk extensions":     {put + auth + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 4000)+"\r\nx\r\n", 100) + "0\r\n\r\n" + smuggled, false},
		"a negative chunk":          {put + auth + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n" + smuggled, false},
		"an endless chunk size":     {put + auth + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("0", 1<<16) + "1\r\nx\r\n0\r\n\r\n" + smuggled, false},
		"a trailer without end":     {put + auth + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("A: b\r\n", 1<<17), false},
		"chunks of HTTP/1.0":        {old + auth + "Transfer-Encoding: chunked\r\n\r\n" + smuggled, false},
		"both lengths, HTTP/1.0":    {old + auth + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + smuggled, false},
		"no length, HTTP/1.0":       {old + auth + "\r\n" + smuggled, false},
		"no host":                   {"GET /data/siege/honest HTTP/1.1\r\n" + auth + "\r\n", false},
		"two hosts":                 {get + auth + "Host: i\r\n\r\n", false},
		"NUL in the path":           {"GET /data/siege/hon\x00est HTTP/1.1\r\nHost: h\r\n" + auth + "\r\n", false},
		"NUL in a field":            {get + auth + "A: b\x00c\r\n\r\n", false},
		"absolute form":             {"GET http://other/data/siege/honest HTTP/1.1\r\nHost: other\r\n" + auth + "\r\n", false},
		"connect":                   {"CONNECT other:443 HTTP/1.1\r\nHost: other\r\n" + auth + "\r\n", false},
		"no version":                {"GET /data/siege/honest\r\n\r\n", false},
		"HTTP/2's preface":          {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00", 100), false},
		"noise":                     {strings.Repeat("\xff\x00\x16", 1000), false},
		"a large field":             {get + auth + "A: " + strings.Repeat("b", 1<<20) + "\r\n\r\n", false},
		"many fields":               {get + auth + strings.Repeat("a:b\r\n", 1<<18) + "\r\n", false},
		"a long path":               {"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: h\r\n\r\n", false},
	} {
		for listener, addr := range map[string]string{"http": b.http(1), "peer": b.peerAddr(1)} {
			conn := dialRaw(t, addr)
			wg.Go(func() { _, _ = io.WriteString(conn, c.raw) })
			wg.Go(func() { checkRaw(t, listener+", "+name, conn, c.ok && listener == "http") })
		}
	}
	wg.Wait()
	if status, text := b.request(t.Context(), &http.Transport{DisableKeepAlives: true}, http.MethodHead, "/data/siege/smuggled", ""); status != http.StatusNotFound {
		t.Errorf("a request that was smuggled in was served: %d %s", status, text)
	}
	b.lifted(t)
}

// checkRaw wants the node to end the connection in time, after one answer at
// most, which is a refusal unless an answer is right.
func checkRaw(t *testing.T, name string, conn net.Conn, ok bool) {
	got, took, cut := toEnd(conn)
	defer func() { _ = conn.Close() }()
	if !cut || took > cutWithin {
		t.Errorf("%s: still there after %v", name, took)
		return
	}
	answers, err := statuses(got)
	if err != nil || len(answers) > 1 || len(answers) == 1 && answers[0] < 400 && !ok {
		t.Errorf("%s: answered %v, %v: %.200q", name, answers, err, got)
	}
}

// TestHostileFolds: a line that goes on in the next, and lines that end with LF
// alone, have one meaning (RFC 9112, 5.2 and 2.2), and are served with it.
func TestHostileFolds(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	f.startAll(t)
	mustRun(t, f.env(1), "mb", "siege")
	for _, raw := range []string{
		"PUT /data/siege/folded HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + f.key + "\r\nConnection: close\r\nGridloom-Meta-A: one\r\n two\r\nContent-Length: 1\r\n\r\nx",
		"PUT /data/siege/folded HTTP/1.1\nHost: h\nAuthorization: Bearer " + f.key + "\nConnection: close\nGridloom-Meta-A: one two\nContent-Length: 1\n\nx",
	} {
		conn := dialRaw(t, f.http(1))
		if _, err := io.WriteString(conn, raw); err != nil {
			t.Fatal(err)
		}
		got, _, _ := toEnd(conn)
		if s, err := statuses(got); err != nil || len(s) != 1 || s[0]/100 != 2 {
			t.Fatalf("%v, %v: %s", s, err, got)
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+f.http(1)+"/data/siege/folded", nil)
		req.Header.Set("Authorization", "Bearer "+f.key)
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if a := resp.Header.Get("Gridloom-Meta-A"); a != "one two" {
			t.Errorf("stored as %q", a)
		}
	}
}

// slowClients opens n connections at once to an address and lets each write a
// first part, then a byte now and then, until the node cuts it. It returns how
// long the longest lasted, and how many weren't cut.
func slowClients(ctx context.Context, addr string, n int, first string) (longest time.Duration, left int) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range n {
		wg.Go(func() {
			took, cut := slowClient(ctx, addr, first)
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, took)
			if !cut {
				left++
			}
		})
	}
	wg.Wait()
	return longest, left
}

func slowClient(ctx context.Context, addr, first string) (took time.Duration, cut bool) {
	begin := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return time.Since(begin), true // refused
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(begin.Add(cutWithin + 5*time.Second))
	if _, err := io.WriteString(conn, first); err != nil {
		return time.Since(begin), true
	}
	ended := make(chan bool, 1)
	go func() {
		_, _, cut := toEnd(conn)
		ended <- cut
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case cut := <-ended:
			return time.Since(begin), cut
		case <-tick.C:
			_, _ = conn.Write([]byte("a"))
		}
	}
}

// slowloris lets n clients with slow headers come at once, and a tenth as many of
// every other slow kind.
func slowloris(t *testing.T, n int, more ...string) {
	b := besiege(t, more...)
	var wg sync.WaitGroup
	for name, c := range map[string]struct{ addr, first string }{
		"slow header, HTTP":  {b.http(1), "GET / HTTP/1.1\r\nHost: h\r\nA: "},
		"slow header, peer":  {b.peerAddr(1), "GET /grid/v1 HTTP/1.1\r\nHost: h\r\nA: "},
		"slow body, HTTP":    {b.http(1), "PUT /data/siege/k HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"},
		"slow body, peer":    {b.peerAddr(1), "PUT /bulk/v1/payload/d/e HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"},
		"slow body, grid":    {b.peerAddr(1), "GET /grid/v1 HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"},
		"slow chunks":        {b.http(1), "PUT /data/siege/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1"},
		"slow preface, gRPC": {b.grpc(1), "PRI * HTTP/2"},
		"nothing, gRPC":      {b.grpc(1), ""},
	} {
		clients := n
		if name != "slow header, HTTP" {
			clients = max(10, n/10)
		}
		wg.Go(func() { checkSlow(t, name, c.addr, clients, c.first) })
	}
	wg.Wait()
	b.lifted(t)
}

func checkSlow(t *testing.T, name, addr string, n int, first string) {
	longest, left := slowClients(t.Context(), addr, n, first)
	if left > 0 || longest > cutWithin {
		t.Errorf("%s: %d of %d weren't cut, the longest lasted %v", name, left, n, longest)
	}
	t.Logf("%s: %d clients, the longest lasted %v", name, n, longest.Round(time.Millisecond))
}

// TestHostileSlow is slowloris with few clients.
func TestHostileSlow(t *testing.T) { slowloris(t, 300, hasty...) }
