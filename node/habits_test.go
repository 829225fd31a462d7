package node

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// said is one answer of a listener, read to its end.
type said struct {
	*http.Response
	body string
}

// converse sends text over one connection and reads an answer to each of
// methods. stays says that the connection can be used for another request.
func converse(t *testing.T, addr, text string, methods ...string) (answers []said, stays bool) {
	t.Helper()
	return converseOn(t, dialListener(t, addr), text, methods...)
}

// converseOn does that over a connection of the caller's.
func converseOn(t *testing.T, conn net.Conn, text string, methods ...string) (answers []said, stays bool) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(conn)
	read := func(method string) (said, error) {
		resp, err := http.ReadResponse(from, &http.Request{Method: method})
		if err != nil {
			return said{}, err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return said{resp, string(body)}, err
	}
	for _, m := range methods {
		a, err := read(m)
		if err != nil {
			t.Errorf("%.60q: answer %d to %s: %v", text, len(answers)+1, m, err)
			return answers, false
		}
		answers = append(answers, a)
	}
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		return answers, false
	}
	a, err := read("GET")
	return answers, err == nil && a.StatusCode == http.StatusOK && a.body == "ok\n"
}

// TestHabits: what a node's HTTP listener makes of the ways in which clients talk,
// byte by byte. docs/http.md has the rows.
func TestHabits(t *testing.T) {
	r := runLimited(t, Limits{})
	makeBucket(t, r, "habits")
	large := string(randomBytes(300_000))
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/habits/a"), strings.NewReader("hello"))
	expect(t, http.StatusCreated, http.MethodPut, r.url("/data/habits/large"), strings.NewReader(large))
	auth := "Authorization: Bearer " + testKey.String() + "\r\n"
	const host = "Host: h\r\n"
	get, put := "GET /data/habits/a HTTP/1.1\r\n"+host+auth, "PUT /data/habits/new HTTP/1.1\r\n"+host+auth
	for _, c := range []struct {
		what, text, methods string
		statuses            string
		last                string // the body of the last answer; "*" is any
		stays               bool
	}{
		{"HTTP/1.0", "GET /data/habits/a HTTP/1.0\r\n" + auth + "\r\n", "GET", "200", "hello", false},
		{"HTTP/1.0 that stays", "GET /data/habits/a HTTP/1.0\r\nConnection: keep-alive\r\n" + auth + "\r\n", "GET", "200", "hello", true},
		{"HTTP/1.0, from a file, that stays", "GET /data/habits/large HTTP/1.0\r\nConnection: keep-alive\r\n" + auth + "\r\n", "GET", "200", large, true},
		{"HTTP/1.0, again and again", strings.Repeat("HEAD /data/habits/a HTTP/1.0\r\nConnection: keep-alive\r\n"+auth+"\r\n", 3), "HEAD HEAD HEAD", "200 200 200", "", true},
		{"HTTP/1.0 uploads, and would stay", "PUT /data/habits/new HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n" + auth + "\r\nx", "PUT", "201", "", false},
		{"HTTP/1.0 deletes", "DELETE /data/habits/new HTTP/1.0\r\nConnection: keep-alive\r\n" + auth + "\r\n", "DELETE", "204", "", true},
		{"HTTP/1.0 uploads", "PUT /data/habits/new HTTP/1.0\r\nContent-Length: 1\r\n" + auth + "\r\nx", "PUT", "201", "", false},
		{"HTTP/1.0 expects", "PUT /data/habits/new HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n" + auth + "\r\nx", "PUT", "204", "", false},
		{"HTTP/1.1", get + "\r\n", "GET", "200", "hello", true},
		{"HTTP/1.1 that ends", get + "Connection: close\r\n\r\n", "GET", "200", "hello", false},
		{"HTTP/1.1 without a host", "GET /data/habits/a HTTP/1.1\r\n" + auth + "\r\n", "GET", "400", "*", false},
		{"one after the other", get + "\r\n" + get + "Range: bytes=1-2\r\n\r\n" + get + "If-None-Match: *\r\n\r\n" + get + "\r\n", "GET GET GET GET", "200 206 304 200", "hello", true},
		{"an error in between", "GET /data/habits/none HTTP/1.1\r\n" + host + auth + "\r\n" + get + "\r\n", "GET GET", "404 200", "hello", true},
		{"HEAD", "HEAD /data/habits/a HTTP/1.1\r\n" + host + auth + "\r\n" + get + "\r\n", "HEAD GET", "200 200", "hello", true},
		{"trailers are welcome", get + "TE: trailers\r\nConnection: TE\r\n\r\n", "GET", "200", "hello", true},
		{"another protocol is offered", get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "GET", "200", "hello", true},
		{"any coding and type", get + "Accept-Encoding: gzip, br;q=1.0, identity;q=0\r\nAccept: text/x\r\nAccept-Language: x\r\n\r\n", "GET", "200", "hello", true},
		{"GET with a body", get + "Content-Length: 5\r\n\r\nxxxxx", "GET", "200", "hello", true},
		{"GET with chunks", get + "Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n0\r\n\r\n", "GET", "200", "hello", false},
		{"HEAD with a body", "HEAD /data/habits/a HTTP/1.1\r\n" + host + auth + "Content-Length: 5\r\n\r\nxxxxx", "HEAD", "200", "", true},
		{"DELETE with a body", "DELETE /data/habits/new HTTP/1.1\r\n" + host + auth + "Content-Length: 5\r\n\r\nxxxxx", "DELETE", "204", "", true},
		{"expects another thing", put + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", "PUT", "417", "*", false},
		{"expects, and has nothing to send", put + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", "PUT", "201", "", true},
		{"expects, and is refused", put + "Expect: 100-continue\r\nContent-Length: 5\r\nIf-Match: \"x\"\r\n\r\n", "PUT", "412", "*", false},
		{"expects, as nobody", "PUT /data/habits/new HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", "PUT", "401", "*", false},
		{"a length of nothing", put + "Content-Length: 0\r\n\r\n", "PUT", "204", "", true},
		{"no length at all", put + "\r\n", "PUT", "204", "", true},
		{"more than declared", put + "Content-Length: 5\r\n\r\nhello, world\r\n\r\n", "PUT PUT", "204 400", "*", false},
		{"chunks", put + "Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", "PUT", "204", "", false},
		{"chunks with a trailer of no meaning", put + "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n5\r\nhello\r\n0\r\nX-A: 1\r\nContent-Length: 9\r\n\r\n", "PUT", "204", "", false},
		{"chunks with a sum that nobody announced", put + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nRepr-Digest: crc32c=:AAAAAA==:\r\n\r\n", "PUT", "400", "*", false},
		{"a coding of the transfer's", put + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "PUT", "501", "*", false},
		{"a Range of an upload", put + "Range: bytes=0-0\r\nContent-Length: 5\r\n\r\nhello", "PUT", "204", "", true},
		{"a part of an upload", put + "Content-Range: bytes 0-4/10\r\nContent-Length: 5\r\n\r\nhello", "PUT", "400", "*", true},
		{"two types", put + "Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 5\r\n\r\nhello", "PUT", "400", "*", true},
		{"OPTIONS", "OPTIONS /data/habits/a HTTP/1.1\r\n" + host + auth + "\r\n", "OPTIONS", "405", "*", true},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "OPTIONS", "200", "", true},
		{"POST", "POST /data/habits/a HTTP/1.1\r\n" + host + auth + "Content-Length: 0\r\n\r\n", "POST", "405", "*", true},
		{"a method in small letters", "get /data/habits/a HTTP/1.1\r\n" + host + auth + "\r\n", "GET", "405", "*", true},
		{"TRACE", "TRACE /data/habits/a HTTP/1.1\r\n" + host + auth + "\r\n", "TRACE", "405", "*", true},
		{"a method that is none", "G@T /data/habits/a HTTP/1.1\r\n" + host + auth + "\r\n", "GET", "400", "*", false},
	} {
		methods := strings.Fields(c.methods)
		answers, stays := converse(t, r.Addrs().HTTP, c.text, methods...)
		var statuses []string
		for _, a := range answers {
			statuses = append(statuses, strconv.Itoa(a.StatusCode))
			if a.Header.Get("Date") == "" && a.StatusCode != 400 && a.StatusCode != 417 && a.StatusCode != 501 {
				t.Errorf("%s: %s without a date", c.what, a.Status)
			}
			if a.StatusCode == 405 && a.Header.Get("Allow") != "GET, HEAD, PUT, DELETE" {
				t.Errorf("%s: 405 that allows %q", c.what, a.Header.Get("Allow"))
			}
		}
		if got := strings.Join(statuses, " "); got != c.statuses || stays != c.stays {
			t.Errorf("%s: %s, stays %t; want %s, %t", c.what, got, stays, c.statuses, c.stays)
			continue
		}
		if last := answers[len(answers)-1]; c.last != "*" && last.body != c.last {
			t.Errorf("%s: %d bytes: %.60q", c.what, len(last.body), last.body)
		}
	}
	if got := string(expect(t, http.StatusOK, http.MethodGet, r.url("/data/habits/new"), nil)); got != "hello" {
		t.Errorf("the last upload left %q", got)
	}
}

// TestHeadIsGet: HEAD has the fields of GET, whatever the request's are.
func TestHeadIsGet(t *testing.T) {
	r := runLimited(t, Limits{})
	makeBucket(t, r, "habits")
	for key, size := range map[string]int{"small": 10, "large": 300_000, "empty": 0} {
		expect(t, http.StatusCreated, http.MethodPut, r.url("/data/habits/"+key), bytes.NewReader(randomBytes(size)),
			"Content-Type", "image/x", "Content-Language", "de", "Cache-Control", "no-cache", "Gridloom-Meta-A", "b", "Content-Disposition", "inline")
		for _, header := range [][]string{
			nil, {"If-None-Match", "*"}, {"If-Match", `"x"`}, {"If-Modified-Since", "Fri, 01 Dec 2034 16:00:00 GMT"},
			{"Want-Repr-Digest", "crc64nvme=1"}, {"Accept-Encoding", "gzip"}, {"Authorization", ""}, {"Authorization", "Bearer x"}, {"If-Match", "x"},
		} {
			auth := []string{"Authorization", "Bearer " + testKey.String()}
			if len(header) > 0 && header[0] == "Authorization" {
				auth = nil
			}
			get, _ := callRaw(t, r.Addrs().HTTP, "GET", "/data/habits/"+key, "", append(auth, header...)...)
			head, body := callRaw(t, r.Addrs().HTTP, "HEAD", "/data/habits/"+key, "", append(auth, header...)...)
			get.Header.Del("Date")
			head.Header.Del("Date")
			if fmt.Sprint(get.Header) != fmt.Sprint(head.Header) || get.StatusCode != head.StatusCode || body != "" {
				t.Errorf("%s, %q:\nGET  %s %v\nHEAD %s %v", key, header, get.Status, get.Header, head.Status, head.Header)
			}
		}
	}
}

// TestCodingsAreKept: content that is coded is stored and sent as it is, whatever
// a client would take, and the field says so, also if it took several lines.
func TestCodingsAreKept(t *testing.T) {
	r := runLimited(t, Limits{})
	makeBucket(t, r, "habits")
	var coded bytes.Buffer
	w := gzip.NewWriter(&coded)
	_, _ = w.Write(bytes.Repeat([]byte("hello, world "), 1000))
	_ = w.Close()
	for _, data := range []string{coded.String(), "this was never gzip"} {
		for _, lines := range [][]string{{"gzip"}, {"br, gzip"}, {"br", "gzip"}} {
			var header []string
			for _, l := range lines {
				header = append(header, "Content-Encoding", l, "Content-Language", l, "Cache-Control", l)
			}
			header = append(header, "Authorization", "Bearer "+testKey.String())
			if resp, text := callRaw(t, r.Addrs().HTTP, "PUT", "/data/habits/coded", data, header...); resp.StatusCode/100 != 2 {
				t.Fatalf("%s %s", resp.Status, text)
			}
			for _, accept := range []string{"", "identity", "gzip", "*;q=0"} {
				header := []string{"Authorization", "Bearer " + testKey.String()}
				if accept != "" {
					header = append(header, "Accept-Encoding", accept)
				}
				resp, text := callRaw(t, r.Addrs().HTTP, "GET", "/data/habits/coded", "", header...)
				want := strings.Join(lines, ", ")
				if resp.StatusCode != 200 || text != data || resp.ContentLength != int64(len(data)) {
					t.Errorf("%q for %q: %s, %d bytes", lines, accept, resp.Status, len(text))
				}
				for _, field := range []string{"Content-Encoding", "Content-Language", "Cache-Control"} {
					if got := strings.Join(resp.Header.Values(field), "|"); got != want {
						t.Errorf("%q for %q: %s is %q", lines, accept, field, got)
					}
				}
			}
		}
	}
}

// TestHTTP2OnTheWire: the same over HTTP/2 and TLS, with a sum behind the body.
func TestHTTP2OnTheWire(t *testing.T) {
	r, client := runSecured(t)
	base := "https://" + r.Addrs().HTTP
	mustRequest(t, client, 200, "POST", base+"/v1/buckets", []byte(`{"bucket":"habits"}`))
	data := randomBytes(300_000)
	sum := md5.Sum(data)
	for _, c := range []struct {
		field, value string
		want         int
	}{
		{"Content-MD5", base64.StdEncoding.EncodeToString(sum[:]), 201},
		{"Content-MD5", base64.StdEncoding.EncodeToString(make([]byte, 16)), 400},
		{"Repr-Digest", "crc32c=:AAAAAA==:", 400},
		{"Repr-Digest", "unixsum=:AAAAAA==:", 400},
	} {
		key := fmt.Sprintf("/data/habits/%s-%d", c.field, c.want)
		req, err := http.NewRequest("PUT", base+key, struct{ io.Reader }{bytes.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testKey.String())
		req.Trailer = http.Header{http.CanonicalHeaderKey(c.field): {c.value}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != c.want {
			t.Errorf("%s %s: %s %s %s", c.field, c.value, resp.Proto, resp.Status, text)
		}
		got, want := mustGet(t, client, base+key), string(data)
		if c.want != 201 {
			want = ""
		}
		if got != want {
			t.Errorf("%s %s: %d bytes are stored", c.field, c.value, len(got))
		}
	}
	// A client that knows HTTP/1.1 alone has that.
	old := &http.Transport{TLSClientConfig: client.Transport.(*http.Transport).TLSClientConfig.Clone(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	old.TLSClientConfig.NextProtos = []string{"http/1.1"}
	defer old.CloseIdleConnections()
	if got := mustGet(t, &http.Client{Transport: old}, base+"/data/habits/Content-MD5-201"); got != string(data) {
		t.Errorf("HTTP/1.1 on TLS: %d bytes", len(got))
	}
}

// mustGet is what a GET has, "" if it isn't there.
func mustGet(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	status, body, err := request(client, "GET", url, nil)
	switch {
	case err != nil || status != 200 && status != 404:
		t.Fatalf("%s: %d, %v", url, status, err)
	case status == 404:
		return ""
	}
	return string(body)
}

// TestOddKeys: a key of any characters is stored and read again byte for byte, in
// the listing too, and beside others that look the same; or it is refused.
func TestOddKeys(t *testing.T) {
	r := runLimited(t, Limits{})
	makeBucket(t, r, "odd")
	auth := []string{"Authorization", "Bearer " + testKey.String()}
	want := map[string]string{} // contents by key
	for target, key := range map[string]string{
		"caf%C3%A9":  "caf\u00e9",  // NFC
		"cafe%CC%81": "cafe\u0301", // NFD, another key
		"%E2%84%AB":  "\u212b",     // Ångström, which NFC would change
		"%C3%85":     "\u00c5", "A%CC%8A": "A\u030a",
		"%EF%AC%81": "\ufb01", "fi": "fi", // a ligature, which NFKC would take apart
		"%EF%BC%8E%EF%BC%8E": "\uff0e\uff0e",                        // full-width dots are no dots
		"a%E2%88%95b":        "a\u2215b", "a%EF%BC%8Fb": "a\uff0fb", // nor those slashes
		"a%E2%80%8Bb": "a\u200bb", "ab": "ab", "a%E2%80%8Cb": "a\u200cb", "a%E2%80%8Db": "a\u200db", "a%E2%81%A0b": "a\u2060b", // zero width
		"%EF%BB%BFa": "\ufeffa", "a": "a", // a BOM
		"%E2%80%8Fa": "\u200fa", "%E2%80%AEgpj.exe": "\u202egpj.exe", "%E2%81%A7x%E2%81%A9": "\u2067x\u2069", // to be read from the right
		"%D7%A9%D7%9C%D7%95%D7%9D": "שלום", "%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB": "👩\u200d💻",
		"%E2%80%A8": "\u2028", "%E2%80%A9": "\u2029", "%C2%A0": "\u00a0", "%E3%80%80": "\u3000", "%20": " ", "x%20": "x ", "%20x": " x",
		"%EF%BF%BD": "\ufffd", "%EF%BF%BE": "\ufffe", "%F4%8F%BF%BF": "\U0010ffff", "%F3%A0%81%81": "\U000e0041", "%EE%80%80": "\ue000",
		"%C4%B0": "İ", "%C4%B1": "ı", "%C3%9F": "ß", "SS": "SS", "ss": "ss",
		"a%2Fb": "a/b", "a%252Fb": "a%2Fb", "a%2500": "a%00", "%252e": "%2e", "...": "...", ".a": ".a", "a.": "a.", "a../b": "a../b",
		"%5C..%5C": `\..\`, "a%3Fb%23c": "a?b#c", "a+b": "a+b", "a;b=c": "a;b=c", "a:b": "a:b", "~!$&'()*,@": "~!$&'()*,@", "%22%3C%3E%5E%60%7B%7C%7D": "\"<>^`{|}",
		"caf\u00e8":                         "caf\u00e8", // sent as it is
		strings.Repeat("%F0%9F%98%80", 256): strings.Repeat("😀", 256),
	} {
		if twin := want[key]; twin != "" {
			t.Fatalf("%q is here twice", key)
		}
		content := "content of " + target[:min(40, len(target))]
		if resp, text := callRaw(t, r.Addrs().HTTP, "PUT", "/data/odd/"+target, content, auth...); resp.StatusCode != http.StatusCreated {
			t.Errorf("PUT %q: %s %s", target, resp.Status, text)
			continue
		}
		want[key] = content
	}
	for key, content := range want {
		all := "" // every byte escaped, which is the same key
		for _, b := range []byte(key) {
			if b == '/' {
				all += "/"
			} else {
				all += fmt.Sprintf("%%%02x", b)
			}
		}
		for _, target := range []string{url.PathEscape(key), all} {
			if resp, text := callRaw(t, r.Addrs().HTTP, "GET", "/data/odd/"+target, "", auth...); resp.StatusCode != http.StatusOK || text != content {
				t.Errorf("GET %q: %s %q, want %q", target, resp.Status, text, content)
			}
		}
	}
	listed := keysOf(t, r, "odd")
	for _, key := range listed {
		if _, ok := want[key]; !ok {
			t.Errorf("the listing has %q", key)
		}
	}
	if len(listed) != len(want) {
		t.Errorf("%d keys are listed, %d are stored", len(listed), len(want))
	}
	for _, target := range []string{
		"%ED%A0%80", "%ED%BF%BF", "%ED%A0%BD%ED%B8%80", // lone surrogates, and two of them (CESU-8)
		"%C0%AF", "%C0%AE%C0%AE", "%E0%80%AF", "%F0%80%80%AF", "%C1%81", // overlong
		"%F4%90%80%80", "%F8%88%80%80%80", "%FE", "%FF", "%80", "a%C3", "%E2%82", "\xff", "a\xc3", // no UTF-8
		"%00", "a%00b", "%01", "%1F", "%7F", "%C2%80", "%C2%9F", "%0D%0AX:1", "%09", "%C2%85", // control characters
		".", "..", "%2e", "%2E%2e", "a/../b", "a/%2e%2e/b", "a%2F..%2Fb", "a%2F%2E%2Fb", "./a", "a/.", // segments
		"", "/", "%2F", "/a", "%2Fa", "a/", "a%2F", "a//b", "a%2F%2Fb",
		"%", "%4", "%zz", "a%", "%u00e9", // no escape
		strings.Repeat("k", 1025), strings.Repeat("%F0%9F%98%80", 257), strings.Repeat("a/", 513) + "a",
	} {
		for _, method := range []string{"PUT", "GET", "DELETE"} {
			resp, text := callRaw(t, r.Addrs().HTTP, method, "/data/odd/"+target, "", auth...)
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s %.40q: %s %s", method, target, resp.Status, text)
			}
		}
	}
	if after := keysOf(t, r, "odd"); len(after) != len(want) {
		t.Errorf("what was refused has changed the listing: %d keys, %d are stored", len(after), len(want))
	}
}

// TestHTTPDocument: docs/http.md names tests that are there.
func TestHTTPDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "http.md"))
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{"": "door", "node": ".", "iam": "iam", "api": "api", "lean": filepath.Join("door", "lean"), "e2e": filepath.Join("..", "internal", "e2e")}
	named := regexp.MustCompile("`(?:([a-z0-9]+):)?((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
	if len(named) < 50 {
		t.Fatalf("it names %d tests", len(named))
	}
	code := map[string]string{}
	for _, name := range named {
		dir, known := dirs[string(name[1])]
		if !known {
			t.Errorf("%s is no directory", name[1])
			continue
		}
		if code[dir] == "" {
			files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				one, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				code[dir] += string(one)
			}
		}
		if !strings.Contains(code[dir], "\nfunc "+string(name[2])+"(") {
			t.Errorf("%s has no %s", dir, name[2])
		}
	}
}
