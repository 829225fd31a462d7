package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/iam"
)

// TestShortWay: plain GETs of what is in the record and of what is on a drive here
// take the short way, and what asks for more doesn't.
func TestShortWay(t *testing.T) {
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	n, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var short atomic.Int64
	measure := n.direct.measure
	n.direct.measure = func(ctx context.Context, w http.ResponseWriter, began time.Time) answer {
		if a := measure(ctx, w, began); a != nil {
			return countedAnswer{a, &short}
		}
		return nil
	}
	r := run(t, n)
	r.await(t)
	makeBucket(t, r, "photos")
	ask := onOneConn(t)
	for key, size := range map[string]int{"record": 4 << 10, "window": 60_000, "windows": 300_000} {
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/"+key), bytes.NewReader(randomBytes(size)))
		for range 10 {
			if code := ask(http.MethodGet, r.url("/data/photos/"+key), testKey); code != http.StatusOK {
				t.Fatalf("%s: %d", key, code)
			}
		}
	}
	// The last is counted after its client has it.
	waitFor(t, "30 of 30 plain GETs took the short way", func() bool { return short.Load() >= 30 })
	partial := ask(http.MethodGet, r.url("/data/photos/record"), testKey, "Range", "bytes=0-9")
	none := ask(http.MethodGet, r.url("/data/photos/none"), testKey)
	head := ask(http.MethodHead, r.url("/data/photos/record"), testKey)
	if partial != http.StatusPartialContent || none != http.StatusNotFound || head != http.StatusOK {
		t.Errorf("%d, %d, %d", partial, none, head)
	}
	if got := short.Load(); got != 30 {
		t.Errorf("%d other requests took it, too", got-30)
	}
}

// onOneConn makes requests over a connection that is kept, as the short way is for
// no others, and gives their status.
func onOneConn(t *testing.T) func(method, url string, by iam.Credential, header ...string) int {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	return func(method, url string, by iam.Credential, header ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+by.String())
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
}

// countedAnswer counts those that have been given.
type countedAnswer struct {
	answer
	given *atomic.Int64
}

func (a countedAnswer) End(whole bool) {
	a.given.Add(1)
	a.answer.End(whole)
}

// TestRequestsCountOnce: a GET counts once for its caller, whether the short way
// answers it or leaves it to the handlers, and so does what is refused.
func TestRequestsCountOnce(t *testing.T) {
	const perSecond = 20 // and twice as many at once
	r := runLimited(t, Limits{Requests: perSecond})
	makeBucket(t, r, "photos")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), bytes.NewReader(randomBytes(4<<10)))
	eve := someone(t, r, "eve", "readonly:photos")
	ask := onOneConn(t)
	get := func(key string) int {
		t.Helper()
		return ask(http.MethodGet, r.url("/data/photos/"+key), eve)
	}
	for i := range perSecond - 1 {
		if code := get("missing"); code != http.StatusNotFound {
			t.Fatalf("request %d: %d", 2*i, code)
		}
		if code := get("a"); code != http.StatusOK {
			t.Fatalf("request %d: %d", 2*i+1, code)
		}
	}
	refused := 0
	for range 100 * perSecond {
		if get("a") == http.StatusTooManyRequests {
			refused++
		}
	}
	if n := limitedCount(t, r, "any", "requests"); refused == 0 || n != refused {
		t.Errorf("%d were refused, and %d counted", refused, n)
	}
}

// TestRevokedWhileItWaits: a small file whose client doesn't take it is not given
// to somebody who may not have it any more.
func TestRevokedWhileItWaits(t *testing.T) {
	r := startMesh(t, t.TempDir(), 1)[0]
	makeBucket(t, r, "photos")
	body := randomBytes(60_000) // a file, and one window
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), bytes.NewReader(body))
	eve := someone(t, r, "eve", "readonly:photos")
	conn := dialListener(t, r.Addrs().HTTP)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	request := fmt.Appendf(nil, "GET /data/photos/a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n\r\n", eve.String())
	const requests = 2000 // far more than fits between the two
	asked := make(chan error, 1)
	go func() {
		_, err := conn.Write(bytes.Repeat(request, requests))
		asked <- err
	}()
	awaitFollowers(t, r, 1)
	if _, err := r.identities.UpdateUser(t.Context(), iam.User{Name: "eve"}, 0); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) || n >= requests*int64(len(body)) {
		t.Errorf("%d bytes came, %v", n, err)
	}
	_ = conn.Close()
	<-asked
}
