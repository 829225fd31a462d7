package lean

import (
	"bufio"
	"bytes"
	"maps"
	"net/http"
	"strings"
	"testing"
)

const request = "GET /data/b/k HTTP/1.1\r\nHost: node:80\r\n"

// plainHeads are served here.
var plainHeads = []string{
	request + "\r\n",
	request + "Authorization: Bearer gl_x\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
	"HEAD /data/b/a/b/c.txt HTTP/1.1\r\nhost: [::1]:80\r\nconnection: Keep-Alive\r\n\r\n",
	"GET /data/b/k%20%C3%A9+&$=:@?stale=5s&verify=always HTTP/1.1\r\nHost:node\r\nRANGE:  bytes=0-1,5- \r\nIf-None-Match: \"a\", W/\"b\"\r\n\r\n",
	"GET /data// HTTP/1.1\r\nHost: a\r\naccept-Encoding: gzip, deflate\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
	"GET /data/b/../../v1/x HTTP/1.1\r\nHost: a\r\n\r\n", // a key that is refused, as by net/http
}

// doubtfulHeads are for net/http: smuggling, framing, upgrades, and whatever is
// merely not in the list.
var doubtfulHeads = []string{
	"\r\n" + request + "\r\n",
	"GET /data/b/k HTTP/1.0\r\nHost: node\r\n\r\n",
	"GET /data/b/k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"GET /data/b/k HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"PUT /data/b/k HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET /data/b/k HTTP/1.1 \r\nHost: node\r\n\r\n",
	"GET /data/b/k HTTP/2.0\r\nHost: node\r\n\r\n",
	"GET /data/b/k http/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/k\r\nHost: node\r\n\r\n",
	"GET  /data/b/k HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET\t/data/b/k HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/k  HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/k x HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/k#f HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/%zz HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/k\x00 HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/k\x7f HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data/b/\xc3\xa9 HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET http://node/data/b/k HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET //node/data/b/k HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /v1/buckets HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET /data HTTP/1.1\r\nHost: node\r\n\r\n",
	"GET * HTTP/1.1\r\nHost: node\r\n\r\n",
	"get /data/b/k HTTP/1.1\r\nHost: node\r\n\r\n",
	"PUT /data/b/k HTTP/1.1\r\nHost: node\r\nContent-Length: 1\r\n\r\nx",
	"DELETE /data/b/k HTTP/1.1\r\nHost: node\r\n\r\n",
	"OPTIONS /data/b/k HTTP/1.1\r\nHost: node\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
	request + "Content-Length: 0\r\n\r\n",
	request + "Content-Length: 5\r\n\r\nhello",
	request + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	request + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/x HTTP/1.1\r\n\r\n",
	request + "Transfer-Encoding : chunked\r\n\r\n",
	request + "Transfer_Encoding: chunked\r\n\r\n",
	request + "Expect: 100-continue\r\n\r\n",
	request + "Upgrade: h2c\r\n\r\n",
	request + "Connection: close\r\n\r\n",
	request + "Connection: keep-alive, Upgrade\r\n\r\n",
	request + "Connection: Authorization\r\n\r\n",
	request + "Trailer: Content-MD5\r\n\r\n",
	request + "TE: trailers\r\n\r\n",
	request + "Proxy-Connection: keep-alive\r\n\r\n",
	request + "X-Forwarded-For: 1.2.3.4\r\n\r\n",
	request + "Gridloom-Meta-A: b\r\n\r\n",
	request + "Cookie: a=b\r\n\r\n",
	request + "Pragma: no-cache\r\n\r\n",
	request + "Host: other\r\n\r\n",
	request + "Authorization: a\r\nAuthorization: b\r\n\r\n",
	request + "Range: bytes=0-1\r\nrange: bytes=2-3\r\n\r\n",
	request + "Accept : */*\r\n\r\n",
	request + " Accept: */*\r\n\r\n",
	request + "Accept: a\r\n b\r\n\r\n",
	request + "Accept: a\r\n\tb\r\n\r\n",
	request + "Accept: a\tb\r\n\r\n",
	request + "Accept: a\x00b\r\n\r\n",
	request + "Accept: a\rb\r\n\r\n",
	request + "Accept: \xff\r\n\r\n",
	request + "Accept:\r\n\r\n",
	request + "Accept\r\n\r\n",
	request + ": x\r\n\r\n",
	request + "Accept: a\n\r\n",
	request + "Accept: a\r\n\n",
	request + "\n",
	"GET /data/b/k HTTP/1.1\nHost: node\n\n",
	"GET /data/b/k HTTP/1.1\r\n\r\n",
	"GET /data/b/k HTTP/1.1\r\nHost:\r\n\r\n",
	"GET /data/b/k HTTP/1.1\r\nHost: a b\r\n\r\n",
	"GET /data/b/k HTTP/1.1\r\nHost: a,b\r\n\r\n",
	"GET /data/b/k HTTP/1.1\r\nHost: user@node\r\n\r\n",
	"GET /data/b/k HTTP/1.1\r\nAccept: a\r\n\r\n",
}

// agree checks that net/http understands a head that is plain in the same way,
// and takes as many bytes for it.
func agree(t *testing.T, data []byte, h *head, n int) {
	t.Helper()
	from := bytes.NewReader(data)
	buffered := bufio.NewReaderSize(from, 64<<10)
	r, err := http.ReadRequest(buffered)
	if err != nil {
		t.Fatalf("%q is plain, and net/http says %v", data[:n], err)
	}
	if took := len(data) - from.Len() - buffered.Buffered(); took != n {
		t.Fatalf("%q: %d bytes, net/http takes %d", data, n, took)
	}
	header := http.Header{}
	for _, f := range h.fields {
		header[f.name] = f.value
	}
	delete(r.Header, "Host")
	if r.Method != h.method || r.RequestURI != h.target || r.Host != h.host || *r.URL != h.url || r.URL.EscapedPath() != h.url.EscapedPath() ||
		!maps.EqualFunc(r.Header, header, func(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }) {
		t.Fatalf("%q is\n%+v, net/http has\n%+v with URL %+v", data[:n], h, r, r.URL)
	}
	if r.ContentLength != 0 || r.Close || len(r.TransferEncoding) > 0 || r.Trailer != nil || r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.Body != http.NoBody ||
		!strings.HasPrefix(r.URL.EscapedPath(), prefix) || r.URL.Host != "" || r.Header.Get("Expect") != "" {
		t.Fatalf("%q is plain, and isn't for net/http: %+v", data[:n], r)
	}
}

// TestPlain: what is plain is what net/http has, and is known as soon as it is
// whole and not before.
func TestPlain(t *testing.T) {
	var again head // used for all of them
	for _, text := range plainHeads {
		for range 2 {
			data := []byte(text + "GET /data/next")
			n, v := again.parse(data)
			if v != plain || n != len(text) {
				t.Fatalf("%q is %d, of %d bytes", text, v, n)
			}
			agree(t, data, &again, n)
		}
		for i := range len(text) {
			h := head{}
			if n, v := h.parse([]byte(text[:i])); v != unended || n != 0 {
				t.Fatalf("%q is %d, of %d bytes", text[:i], v, n)
			}
		}
	}
}

// TestDoubtful: nothing that could be understood in two ways is served here,
// whatever was before it.
func TestDoubtful(t *testing.T) {
	for _, text := range doubtfulHeads {
		h := head{}
		if _, v := h.parse([]byte(text)); v != doubtful {
			t.Errorf("%q is %d", text, v)
		}
		if n, v := h.parse([]byte(request + "\r\n")); v != plain || n != len(request)+2 {
			t.Errorf("after %q a plain one is %d", text, v)
		}
		if _, v := h.parse([]byte(text)); v != doubtful {
			t.Errorf("%q after a plain one is %d", text, v)
		}
	}
}

// FuzzParse holds what is plain to what net/http makes of it.
func FuzzParse(f *testing.F) {
	for _, list := range [][]string{plainHeads, doubtfulHeads} {
		for _, text := range list {
			f.Add([]byte(text), []byte(request+"\r\n"))
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var h head
		for _, data := range [][]byte{first, second, first} {
			kept := bytes.Clone(data)
			n, v := h.parse(data)
			if v == plain {
				agree(t, kept, &h, n)
			}
			if !bytes.Equal(kept, data) {
				t.Fatal("what was read has changed")
			}
			for i := range data { // nothing refers to it
				data[i] = '!'
			}
			if v == plain {
				agree(t, kept, &h, n)
			}
			copy(data, kept)
		}
	})
}
