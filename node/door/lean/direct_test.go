package lean

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// directly answers what is below /data/direct/ with "direct", its path and what
// its caller has shown.
type directly struct{ served *atomic.Int64 }

func (d directly) ServeGet(_ context.Context, g *Get) (served, again bool) {
	if !strings.HasPrefix(g.Path, "/data/direct/") {
		return false, false
	}
	d.served.Add(1)
	body := "direct " + g.Path + " " + g.Credential
	g.Answer.Begin(time.Now(), int64(len(body)), AppendHeader(nil, http.Header{
		"Content-Type": {"text/plain"}, "Content-Length": {fmt.Sprint(len(body))}, "Accept-Ranges": {"bytes"},
	}))
	_, err := g.Answer.Write([]byte(body))
	return true, err == nil
}

// TestDirect: what is served directly asks for nothing but an object, by a target
// that stands for itself; the handler has everything else, and what was left to it.
func TestDirect(t *testing.T) {
	var served atomic.Int64
	d := openDirect(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "handler ", r.URL.Path)
	}), nil, func(net.Conn) Direct { return directly{&served} })
	conn := dialled(t, d.lean)
	in := bufio.NewReader(conn)
	for _, c := range []struct {
		target, lines, want string
	}{
		{"/data/direct/a", "", "direct /data/direct/a "},
		{"/data/direct/a", "Authorization: x", "direct /data/direct/a x"},
		{"/data/direct/a", "Authorization: x\r\nGridloom-Authorization: y", "direct /data/direct/a y"},
		{"/data/direct/a", "Gridloom-Authorization: y\r\nAuthorization: x", "direct /data/direct/a y"},
		{"/data/direct/b", "Gridloom-Authorization: y\r\nAuthorization: x", "direct /data/direct/b y"},
		{"/data/direct/a", "Accept: */*\r\nUser-Agent: z\r\nConnection: keep-alive\r\nCache-Control: no-cache", "direct /data/direct/a "},
		{"/data/direct/a", "Range: bytes=0-1", "handler /data/direct/a"},
		{"/data/direct/a", "If-Range: x", "handler /data/direct/a"},
		{"/data/direct/a", "If-Match: x", "handler /data/direct/a"},
		{"/data/direct/a", "If-None-Match: x", "handler /data/direct/a"},
		{"/data/direct/a", "If-Modified-Since: x", "handler /data/direct/a"},
		{"/data/direct/a", "If-Unmodified-Since: x", "handler /data/direct/a"},
		{"/data/direct/a", "Origin: x", "handler /data/direct/a"},
		{"/data/direct/a", "Traceparent: x", "handler /data/direct/a"},
		{"/data/direct/a", "Want-Repr-Digest: x", "handler /data/direct/a"},
		{"/data/direct/a", "Want-Content-Digest: x", "handler /data/direct/a"},
		{"/data/direct/a?", "", "handler /data/direct/a"},
		{"/data/direct/a?x", "", "handler /data/direct/a"},
		{"/data/direct/%61", "", "handler /data/direct/a"},
		{"/data/other", "Authorization: x", "handler /data/other"},
		{"/data/direct/a", "", "direct /data/direct/a "},
	} {
		lines := []string(nil)
		if c.lines != "" {
			lines = strings.Split(c.lines, "\r\n")
		}
		write(t, conn, get(http.MethodGet, c.target, lines...))
		resp, body := read(t, in, http.MethodGet)
		if resp.StatusCode != http.StatusOK || body != c.want || resp.Header.Get("Date") == "" {
			t.Errorf("%s with %q: %s, %q, want %q", c.target, c.lines, resp.Status, body, c.want)
		}
	}
	if n := served.Load(); n != 7 {
		t.Errorf("%d were served directly, want 7", n)
	}
	write(t, conn, get(http.MethodHead, "/data/direct/a"))
	if resp, _ := read(t, in, http.MethodHead); resp.StatusCode != http.StatusOK || served.Load() != 7 {
		t.Errorf("HEAD: %s", resp.Status)
	}
}
