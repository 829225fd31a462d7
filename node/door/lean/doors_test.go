package lean

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// ways are the answers that the handler of these tests has.
var ways = []string{
	"plain", "silent", "guess", "typed", "none", "unchanged", "short", "long", "abort", "late", "last", "file", "large", "error",
}

// TestSameAnswers: each answer, to GET and HEAD, alone, before and behind another
// request, is that of net/http, and so is what becomes of the connection.
func TestSameAnswers(t *testing.T) {
	d := open(t, answers(t), nil)
	for _, way := range ways {
		for _, method := range []string{"GET", "HEAD"} {
			one := get(method, "/data/b/"+way, "Authorization: Bearer x", "Range: bytes=0-1")
			other := get("GET", "/data/b/plain/second")
			before := d.plain.Load()
			for _, text := range []string{one, one + other, other + one + other, one + "PUT /data/b/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"} {
				if answer := d.same(t, []byte(text)); way != "abort" && !strings.HasPrefix(answer, "HTTP/1.1 ") {
					t.Errorf("%s %s: %q", method, way, answer)
				}
			}
			if d.plain.Load() < before+5 {
				t.Errorf("%s %s isn't served here", method, way)
			}
		}
	}
}

// TestSameFate: whatever is in doubt has the answer of net/http, whole or in
// pieces, before plain requests and behind them.
func TestSameFate(t *testing.T) {
	d := open(t, answers(t), nil)
	for _, list := range [][]string{plainHeads, doubtfulHeads} {
		for _, text := range list {
			p := []byte(text)
			d.same(t, p)
			d.same(t, p[:len(p)/2], p[len(p)/2:])
			d.same(t, []byte(get("GET", "/data/b/first")), p)
			d.same(t, append([]byte(get("GET", "/data/b/first")), p...))
			d.same(t, append(p, get("GET", "/data/b/second")...))
			d.same(t, p[:len(p)-1])
			d.same(t, append([]byte(get("GET", "/data/b/first")), p[:min(len(p), 3)]...))
		}
	}
}

// TestHandedOverForGood: behind the first request that isn't plain, everything is
// net/http's.
func TestHandedOverForGood(t *testing.T) {
	d := open(t, answers(t), nil)
	plain := get("GET", "/data/b/k")
	d.same(t, []byte(plain+plain+get("GET", "/v1/x")+plain+plain))
	if n := d.plain.Load(); n != 2 {
		t.Errorf("%d requests were served here, 2 stood before the one that wasn't plain", n)
	}
	d.same(t, []byte(get("GET", "/data/b/k", "Cookie: x")+plain))
	if n := d.plain.Load(); n != 2 {
		t.Errorf("%d requests were served here", n)
	}
}

// TestLargeHeads: what fits into the buffer is served here, and what doesn't by
// net/http, as far as that goes.
func TestLargeHeads(t *testing.T) {
	d := open(t, answers(t), nil)
	for _, n := range []int{bufferBytes - 1, bufferBytes, bufferBytes + 1, 3 * bufferBytes, 100 << 10} {
		text := get("GET", "/data/b/k", "User-Agent: ")
		text = strings.Replace(text, "Agent: ", "Agent: "+strings.Repeat("u", n-len(text)), 1)
		before := d.plain.Load()
		answer := d.same(t, []byte(text))
		if strings.HasPrefix(answer, "HTTP/1.1 431") != (n > 64<<10) {
			t.Errorf("a head of %d bytes: %.100q", n, answer)
		}
		if here := d.plain.Load() > before; here != (n <= bufferBytes) {
			t.Errorf("a head of %d bytes is served here: %v", n, here)
		}
	}
}

// TestPipeline: requests that come unasked are answered in their order, however
// they are cut.
func TestPipeline(t *testing.T) {
	d := open(t, answers(t), nil)
	var all bytes.Buffer
	for i := range 300 {
		way := "plain"
		if i%100 == 30 {
			way = "file"
		}
		all.WriteString(get([]string{"GET", "HEAD"}[i%3/2], fmt.Sprintf("/data/b/%s/%d", way, i), fmt.Sprint("User-Agent: ", i/7)))
	}
	p := all.Bytes()
	var pieces [][]byte
	for i, n := 0, 1; i < len(p); i, n = i+n, n*7%4001+1 {
		pieces = append(pieces, p[i:min(len(p), i+n)])
	}
	d.same(t, p)
	answer := d.same(t, pieces...)
	if n := strings.Count(answer, "HTTP/1.1 200 OK\r\n"); n != 300 {
		t.Errorf("%d answers to 300 requests", n)
	}
	if n := d.plain.Load(); n != 600 {
		t.Errorf("%d of 600 requests were served here", n)
	}
}

// FuzzBothDoors sends the same bytes, in two pieces, to the lean door and to
// net/http alone.
func FuzzBothDoors(f *testing.F) {
	for i, list := range [][]string{plainHeads, doubtfulHeads} {
		for _, text := range list {
			f.Add([]byte(text), uint16(i*len(text)/3))
			f.Add([]byte(get("HEAD", "/data/b/typed")+text+get("GET", "/data/b/last")), uint16(20))
		}
	}
	for _, way := range ways {
		f.Add([]byte(get("GET", "/data/b/"+way)+get("GET", "/data/b/k")), uint16(0))
	}
	d := open(f, answers(f), nil)
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		if bytes.Contains(data, []byte("guess")) && len(data) > guessBytes/4 {
			return // see writer.complete
		}
		at := min(int(cut), len(data))
		d.same(t, data[:at], data[at:])
	})
}
