package node

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestOldFraming: what HTTP/1.0 sends in chunks, or without a length, is never taken
// for an empty body, nor what comes behind it for a request, over plaintext and TLS.
// There net/http is the only one that sees a head, and hides the field.
func TestOldFraming(t *testing.T) {
	plain := runLimited(t, Limits{})
	secure, client := runSecured(t)
	base := "https://" + secure.Addrs().HTTP
	mustRequest(t, client, 200, "POST", base+"/v1/buckets", []byte(`{"bucket":"old"}`))
	mustRequest(t, client, 201, "PUT", base+"/data/old/kept", []byte("hello"))
	makeBucket(t, plain, "old")
	expect(t, http.StatusCreated, http.MethodPut, plain.url("/data/old/kept"), strings.NewReader("hello"))

	auth := "Authorization: Bearer " + testKey.String() + "\r\n"
	const stay, coded = "Connection: keep-alive\r\n", "Transfer-Encoding: chunked\r\n"
	head := func(method, path string, lines ...string) string {
		return method + " " + path + " HTTP/1.0\r\n" + auth + strings.Join(lines, "") + "\r\n"
	}
	smuggled := "PUT /data/old/smuggled HTTP/1.1\r\nHost: h\r\n" + auth + "Content-Length: 1\r\n\r\nx"
	kept, buckets := "/data/old/kept", "/v1/buckets"
	many := strings.Repeat("10000\r\n"+strings.Repeat("x", 1<<16)+"\r\n", 16) + "0\r\n\r\n"
	for _, c := range []struct {
		what, text    string
		plain, secure int
		reason        string // of plain
	}{
		{"chunks", head("PUT", kept, coded) + "5\r\nabcde\r\n0\r\n\r\n", 400, 411, "invalid_argument"},
		{"many chunks", head("PUT", kept, coded) + many, 400, 411, "invalid_argument"},
		{"no length", head("PUT", kept) + "abcde", 411, 411, "length_required"},
		{"a length and chunks", head("PUT", kept, "Content-Length: 5\r\n", coded) + "5\r\nab", 400, 204, "invalid_argument"},
		{"chunks that are a request", head("PUT", kept, stay, coded) + smuggled, 400, 411, "invalid_argument"},
		{"in other letters", head("PUT", kept, stay, "tRANSFER-eNCODING:chunked\r\n") + smuggled, 400, 411, "invalid_argument"},
		{"LF alone", strings.ReplaceAll(head("PUT", kept, stay, coded), "\r", "") + smuggled, 400, 411, "invalid_argument"},
		{"another coding", head("PUT", kept, stay, "Transfer-Encoding: identity\r\n") + smuggled, 400, 411, "invalid_argument"},
		{"behind a fold", head("PUT", kept, stay, "Transfer-Encoding:\r\n chunked\r\n") + smuggled, 400, 411, "invalid_argument"},
		{"GET", head("GET", kept, stay, coded) + smuggled, 400, 200, "invalid_argument"},
		{"HEAD", head("HEAD", kept, stay, coded) + smuggled, 400, 200, "invalid_argument"},
		{"DELETE", head("DELETE", "/data/old/none", stay, coded) + smuggled, 400, 404, "invalid_argument"},
		{"OPTIONS *", head("OPTIONS", "*", stay, coded) + smuggled, 400, 200, "invalid_argument"},
		{"OPTIONS * with both", "OPTIONS * HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" + coded + "\r\n0\r\n\r\n" + smuggled, 200, 200, ""},
		{"behind one that's clear", head("GET", "/livez", stay) + head("GET", kept, stay, coded) + smuggled, 400, 200, "invalid_argument"},
		{"a length of nothing, and chunks", head("GET", kept, stay, "Content-Length: 0\r\n", coded) + smuggled, 400, 200, "invalid_argument"},
		{"a call in chunks", head("POST", buckets, stay, coded) + "10\r\n{\"bucket\":\"old2\"}\r\n0\r\n\r\n" + smuggled, 400, 411, "invalid_argument"},
		{"a call without a length", head("POST", buckets) + `{"bucket":"old2"}`, 411, 411, "length_required"},
		{"behind a long line", head("PUT", kept, stay, "A: "+strings.Repeat("a", 8<<10)+"\r\n", coded) + smuggled, 411, 411, "length_required"},
	} {
		method, _, _ := strings.Cut(c.text, " ")
		answers, stays := converse(t, plain.Addrs().HTTP, c.text, method)
		checkLast(t, c.what, answers, stays, c.plain)
		if len(answers) == 1 && answers[0].Header.Get("Gridloom-Error") != c.reason {
			t.Errorf("%s: %v", c.what, answers[0].Header)
		}
		answers, stays = converseOn(t, dialOldTLS(t, client, secure.Addrs().HTTP), c.text, method)
		checkLast(t, c.what+" over TLS", answers, stays, c.secure)
		got, stored := string(expect(t, http.StatusOK, http.MethodGet, plain.url(kept), nil)), mustGet(t, client, base+kept)
		if want := map[bool]string{false: "hello", true: "5\r\nab"}[c.secure == 204]; got != "hello" || stored != want {
			t.Errorf("%s: left %.20q; over TLS %.20q", c.what, got, stored)
		}
		mustRequest(t, client, 204, "PUT", base+kept, []byte("hello"))
		expect(t, http.StatusNotFound, http.MethodGet, plain.url("/data/old/smuggled"), nil)
		if mustGet(t, client, base+"/data/old/smuggled") != "" {
			t.Errorf("%s over TLS: what came behind it was read as a request", c.what)
		}
	}
	// On TLS nobody has looked, and a connection is for one request.
	_, stays := converseOn(t, dialOldTLS(t, client, secure.Addrs().HTTP), head("GET", kept, stay), "GET")
	if stays {
		t.Error("a connection of HTTP/1.0 stays over TLS")
	}
}

// checkLast wants an answer with a status, and the connection to end with it.
func checkLast(t *testing.T, what string, answers []said, stays bool, status int) {
	t.Helper()
	if stays || len(answers) != 1 || answers[0].StatusCode != status || !answers[0].Close {
		t.Errorf("%s: %v, stays %t; want %d and the end", what, answers, stays, status)
	}
}

// dialOldTLS dials a listener with TLS for HTTP/1.
func dialOldTLS(t *testing.T, client *http.Client, addr string) net.Conn {
	t.Helper()
	cfg := client.Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.NextProtos, cfg.ServerName = []string{"http/1.1"}, "127.0.0.1"
	conn := tls.Client(dialListener(t, addr), cfg)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestOldFramingFirst: a body of HTTP/1.0 that is a head with a coding is a body,
// also where it is read together with its head.
func TestOldFramingFirst(t *testing.T) {
	r := runLimited(t, Limits{})
	makeBucket(t, r, "old")
	body := "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
	text := fmt.Sprintf("PUT /data/old/head HTTP/1.0\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", testKey.String(), len(body), body)
	conn := dialListener(t, r.Addrs().HTTP)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 201 ") {
		t.Fatalf("%v %q", err, answer)
	}
	if got := expect(t, http.StatusOK, http.MethodGet, r.url("/data/old/head"), nil); string(got) != body {
		t.Errorf("%q is stored", got)
	}
}
