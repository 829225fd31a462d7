package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/iam"
)

// TestRequestsCountOnce: a GET counts once for its caller, whether the short way
// answers it or leaves it to the handlers, and so does what is refused.
func TestRequestsCountOnce(t *testing.T) {
	const perSecond = 20 // and twice as many at once
	r := runLimited(t, Limits{Requests: perSecond})
	makeBucket(t, r, "photos")
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/photos/a"), bytes.NewReader(randomBytes(4<<10)))
	eve := someone(t, r, "eve", "readonly:photos")
	get := func(key string) int {
		t.Helper()
		resp, _ := call(t, http.MethodGet, r.url("/data/photos/"+key), nil, "Authorization", "Bearer "+eve.String())
		return resp.StatusCode
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
