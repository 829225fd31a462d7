package door

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// unsized hides the length of a body, so that it goes out in chunks.
type unsized struct{ io.Reader }

func TestPut(t *testing.T) {
	s := serve(t, nil)
	for _, size := range sizes {
		data, key := pattern(size), fmt.Sprintf("put/%d", size)
		first := s.put(t, key, data, http.StatusCreated)
		if first.Header.Get("Etag") == "" || first.Header.Get("Last-Modified") == "" || first.Header.Get("Repr-Digest") != digestOf(data) || len(first.body) > 0 {
			t.Errorf("201 with %v and %q", first.Header, first.body)
		}
		again := s.do(t, "PUT", key, unsized{strings.NewReader(data + "!")})
		if again.StatusCode != http.StatusNoContent || again.Header.Get("Etag") == first.Header.Get("Etag") {
			t.Errorf("replaced in chunks: %s, %v", again.Status, again.Header)
		}
		if a := s.do(t, "GET", key, nil); string(a.body) != data+"!" || a.Header.Get("Etag") != again.Header.Get("Etag") {
			t.Errorf("%d bytes came back as %d", size+1, len(a.body))
		}
	}
}

// TestPutConditions is RFC 9110, 13.2.2, for the methods that write.
func TestPutConditions(t *testing.T) {
	s := serve(t, nil)
	tag := s.put(t, "a", "1", http.StatusCreated).Header.Get("Etag")
	for _, c := range []struct {
		key, match, noneMatch string
		want                  int
	}{
		{"a", tag, "", 204},
		{"a", "*", "", 204},
		{"a", `"other",` + tag, "", 204},
		{"a", `"other"`, "", 412},
		{"a", "W/" + tag, "", 412},
		{"a", "", `"other"`, 204},
		{"a", "", tag, 412},
		{"a", "", "W/" + tag, 412},
		{"a", "", "*", 412},
		{"a", tag, `"other"`, 204},
		{"a", tag, tag, 412},
		{"a", "unquoted", "", 400},
		{"new", tag, "", 412},
		{"new", "*", "", 412},
		{"new", "", "unquoted", 400},
		{"new", "", "*", 201},
		{"new", "", "*", 412},
	} {
		what := fmt.Sprintf("PUT %+v", c)
		a := s.do(t, "PUT", c.key, strings.NewReader("1"), "If-Match", c.match, "If-None-Match", c.noneMatch)
		if a.StatusCode != c.want {
			t.Errorf("%s: %s %s", what, a.Status, a.body)
		}
		if c.want == 412 {
			checkProblem(t, what, a, fault.PreconditionFailed, problemOf(a).Subject)
		}
	}
	past := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	if a := s.do(t, "PUT", "a", strings.NewReader("1"), "If-Unmodified-Since", past); a.StatusCode != 412 {
		t.Errorf("PUT with If-Unmodified-Since: %s", a.Status)
	}
	future := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		key, match, noneMatch, unmodified string
		want                              int
	}{
		{"nothing", tag, "", "", 404},
		{"nothing", "", "*", "", 404},
		{"a", `"other"`, "", "", 412},
		{"a", "W/" + tag, "", "", 412},
		{"a", "unquoted", "", "", 400},
		{"a", "", "*", "", 412},
		{"a", "", tag, "", 412},
		{"a", "", "W/" + tag, "", 412},
		{"a", "", "unquoted", "", 400},
		{"a", "", "", past, 412},
		{"a", tag, tag, "", 412},
		{"a", tag, `"other"`, past, 204}, // If-Match goes before the date
		{"a", "", "", "", 404},
		{"new", "", `"other"`, future, 204},
	} {
		a := s.do(t, "DELETE", c.key, nil, "If-Match", c.match, "If-None-Match", c.noneMatch, "If-Unmodified-Since", c.unmodified)
		if a.StatusCode != c.want || a.StatusCode == 204 && len(a.body) > 0 {
			t.Errorf("DELETE %+v: %s %s", c, a.Status, a.body)
		}
	}
}

func TestPutDigest(t *testing.T) {
	s := serve(t, nil)
	for _, size := range []int{10, 300_000} {
		data := pattern(size)
		good, bad := digestOf(data), digestOf(data+"x")
		for _, field := range []string{"Repr-Digest", "Content-Digest"} {
			before := s.payloads(t)
			what := fmt.Sprintf("%s of %d bytes", field, size)
			checkProblem(t, what, s.do(t, "PUT", "a", strings.NewReader(data), field, bad), fault.ChecksumMismatch, "checksum")
			checkProblem(t, what, s.do(t, "PUT", "a", strings.NewReader(data), field, "md5=:AAAA:"), fault.InvalidArgument, field)
			checkProblem(t, what, s.do(t, "PUT", "a", strings.NewReader(data), field, "nonsense"), fault.InvalidArgument, field)
			s.checkGone(t, what, "a", before)
			s.put(t, "a", data, http.StatusCreated, field, good)
			if a := s.do(t, "DELETE", "a", nil); a.StatusCode != 204 {
				t.Fatal(a.Status)
			}
		}
		checkProblem(t, "one of two", s.do(t, "PUT", "b", strings.NewReader(data), "Repr-Digest", good, "Content-Digest", bad), fault.ChecksumMismatch, "checksum")
	}
}

// TestPutTrailer sends the digest behind the body.
func TestPutTrailer(t *testing.T) {
	s := serve(t, nil)
	data := pattern(300_000)
	for digest, want := range map[string]int{digestOf(data): 201, digestOf("x"): 400, "nonsense": 400} {
		r, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL+"/data/photos/"+fmt.Sprint(want, len(digest)), unsized{strings.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"Content-Digest": {digest}}
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", digest, resp.Status)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	s := serve(t, func(o *Options) { o.MaxObjectBytes = 100_000 })
	fits, over := pattern(100_000), pattern(100_001)
	s.put(t, "fits", fits, http.StatusCreated)
	s.put(t, "fits", fits, http.StatusNoContent)
	if a := s.do(t, "DELETE", "fits", nil); a.StatusCode != 204 {
		t.Fatal(a.Status)
	}
	before := s.payloads(t)
	checkProblem(t, "too large", s.do(t, "PUT", "a", strings.NewReader(over)), fault.TooLarge, "body")
	checkProblem(t, "too large, in chunks", s.do(t, "PUT", "a", unsized{strings.NewReader(over)}), fault.TooLarge, "body")
	checkProblem(t, "a part", s.do(t, "PUT", "a", strings.NewReader("x"), "Content-Range", "bytes 0-0/2"), fault.InvalidArgument, "Content-Range")
	checkProblem(t, "metadata too large", s.do(t, "PUT", "a", strings.NewReader("x"), "Gridloom-Meta-A", strings.Repeat("x", 9<<10)), fault.InvalidArgument, "metadata")
	checkProblem(t, "a bad name", s.do(t, "PUT", "a", strings.NewReader("x"), "Gridloom-Meta-a_b", "x"), fault.InvalidArgument, "metadata")
	s.checkGone(t, "refused", "a", before)
	s.put(t, "a", "x", http.StatusCreated, "Gridloom-Meta-A", "1", "Gridloom-Meta-A", "2")
	if a := s.do(t, "HEAD", "a", nil); a.Header.Get("Gridloom-Meta-A") != "1, 2" {
		t.Errorf("a field given twice is %q", a.Header.Get("Gridloom-Meta-A"))
	}
}

// TestExpect: a body is asked for when nothing speaks against it, and not else.
func TestExpect(t *testing.T) {
	s := serve(t, func(o *Options) { o.MaxObjectBytes = 1 << 20 })
	s.put(t, "there", "x", http.StatusCreated)
	for _, c := range []struct {
		key, more string
		want      int
	}{
		{"new", "", 100},
		{"there", "If-None-Match: *\r\n", 412},
		{"nothing", "If-Match: \"x\"\r\n", 412},
		{"a//b", "", 400},
		{"new", "As: stranger\r\n", 403},
		{"new", "As: nobody\r\n", 401},
		{"new", "Repr-Digest: nonsense\r\n", 400},
		{"new", "Content-Range: bytes 0-0/1\r\n", 400},
		{"../nowhere/new", "", 400},
		{"new?x=y", "", 400},
	} {
		a, err := s.raw(t, "PUT", "PUT /data/photos/"+c.key+" HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"+c.more+"\r\n")
		if err != nil || a.StatusCode != c.want {
			t.Errorf("%+v: %v, %v", c, a, err)
		}
	}
	a, err := s.raw(t, "PUT", "PUT /data/photos/new HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n")
	if err != nil || a.StatusCode != 413 {
		t.Errorf("too large: %v, %v", a, err)
	}
	// A whole exchange.
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /data/photos/whole HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(c)
	for _, want := range []int{100, 201} {
		resp, err := http.ReadResponse(r, &http.Request{Method: "PUT"})
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%v, %v, want %d", resp, err, want)
		}
		if want == 100 {
			fmt.Fprint(c, "hello")
		}
	}
}

// TestCutOff: an upload that ends before its end leaves nothing behind,
// however it ends.
func TestCutOff(t *testing.T) {
	s := serve(t, nil)
	for i, c := range []struct{ what, head, body string }{
		{"shorter than declared", "Content-Length: 400000\r\n", pattern(300_000)},
		{"without its last chunk", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n", 300_000, pattern(300_000))},
		{"within a chunk", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s", 400_000, pattern(300_000))},
		{"with a broken chunk", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%sxx\r\n0\r\n\r\n", 300_000, pattern(300_000))},
		{"small", "Content-Length: 10\r\n", "123"},
	} {
		for _, how := range []string{"half-closed", "closed", "reset"} {
			what, key := c.what+", "+how, fmt.Sprintf("%d/%s", i, how)
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			tcp := conn.(*net.TCPConn)
			fmt.Fprintf(tcp, "PUT /data/photos/%s HTTP/1.1\r\nHost: h\r\n%s\r\n%s", key, c.head, c.body)
			switch how {
			case "half-closed":
				_ = tcp.CloseWrite()
				resp, err := http.ReadResponse(bufio.NewReader(tcp), &http.Request{Method: "PUT"})
				if err != nil {
					t.Errorf("%s: %v", what, err)
					break
				}
				a := &answer{Response: resp}
				a.body, _ = io.ReadAll(resp.Body)
				checkProblem(t, what, a, fault.IncompleteBody, "body")
			case "reset":
				_ = tcp.SetLinger(0)
			}
			_ = tcp.Close()
			s.waitEnd("PUT /data/photos/" + key)
			s.checkGone(t, what, key, nil)
		}
	}
}

// TestStalledUpload: a client that stops sending is cut off, and one that is
// merely slow is not.
func TestStalledUpload(t *testing.T) {
	const stall = 200 * time.Millisecond
	s := serve(t, func(o *Options) { o.Stall = stall })
	a, err := s.raw(t, "PUT", "PUT /data/photos/a HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n"+pattern(290_000))
	if err != nil {
		t.Fatal(err)
	}
	checkProblem(t, "stalled", a, fault.IncompleteBody, "body")
	s.checkGone(t, "stalled", "a", nil)
	// All of the body is there, and the checksum behind it isn't.
	a, err = s.raw(t, "PUT", fmt.Sprintf("PUT /data/photos/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: Repr-Digest\r\n\r\n%x\r\n%s\r\n0\r\nRepr-", 290_000, pattern(290_000)))
	if err != nil {
		t.Fatal(err)
	}
	checkProblem(t, "stalled in the trailer", a, fault.IncompleteBody, "body")
	if !strings.Contains(string(a.body), "stalled: no byte came") {
		t.Errorf("stalled in the trailer: %s", a.body)
	}
	s.checkGone(t, "stalled in the trailer", "a", nil)

	body, feed := io.Pipe()
	go func() {
		ticks := time.NewTicker(stall / 4)
		defer ticks.Stop()
		for range 8 {
			<-ticks.C
			_, _ = feed.Write([]byte(pattern(50_000)))
		}
		_ = feed.Close()
	}()
	if a := s.do(t, "PUT", "slow", body); a.StatusCode != http.StatusCreated {
		t.Errorf("slow: %s %s", a.Status, a.body)
	}

	// What is not read by the handler has an end, too, and the answer comes after it.
	s.put(t, "small", "x", http.StatusCreated)
	for request, status := range map[string]string{
		"DELETE /data/photos/nothing": "404", "GET /data/photos/small": "200", "HEAD /data/photos/small": "200",
		"GET /data/photos/nothing": "404", "PUT /data/PHOTOS/a": "400",
	} {
		for range 2 {
			a, err := s.raw(t, request[:strings.Index(request, " ")], request+" HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nx")
			if err != nil {
				t.Errorf("%s with a body that nobody wants: %v", request, err)
			} else if !strings.HasPrefix(a.Status, status) || a.err != nil {
				t.Errorf("%s with a body that nobody wants: %s, %v", request, a.Status, a.err)
			}
		}
	}
}
