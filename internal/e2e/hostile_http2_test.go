package e2e

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw2 is an HTTP/2 client that does as it is told.
type raw2 struct {
	conn net.Conn
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

// dial2 opens a connection and says what a client says first.
func dial2(t *testing.T, addr string, settings ...http2.Setting) *raw2 {
	t.Helper()
	c := &raw2{conn: dialRaw(t, addr)}
	c.Framer = http2.NewFramer(c.conn, c.conn)
	c.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.block)
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

// fields encodes a header block.
func (c *raw2) fields(list ...hpack.HeaderField) []byte {
	c.block.Reset()
	for _, f := range list {
		_ = c.enc.WriteField(f) // into memory
	}
	return bytes.Clone(c.block.Bytes())
}

// callFields is the header of a gRPC call.
func callFields(path, authority, key string) []hpack.HeaderField {
	list := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}
	if authority != "" {
		list = append(list[:3], append([]hpack.HeaderField{{Name: ":authority", Value: authority}}, list[3:]...)...)
	}
	if key != "" {
		list = append(list, hpack.HeaderField{Name: "authorization", Value: "Bearer " + key})
	}
	return list
}

// open begins a stream, without its end.
func (c *raw2) open(stream uint32, list ...hpack.HeaderField) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.fields(list...), EndHeaders: true})
}

// message is an empty gRPC message.
var message = make([]byte, 5)

// answer reads until a stream has ended, and gives the fields of its headers;
// none if it was reset, and an error if the connection ended.
func (c *raw2) answer(stream uint32) (map[string]string, error) {
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	got := map[string]string{}
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return got, err
		}
		if f.Header().StreamID != stream {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				got[field.Name] = field.Value
			}
			if f.StreamEnded() {
				return got, nil
			}
		case *http2.RSTStreamFrame:
			return nil, nil
		case *http2.DataFrame:
			got["data"] += string(f.Data())
		}
	}
}

const (
	listBuckets = "/gridloom.v1.BucketService/ListBuckets"
	healthCheck = "/grpc.health.v1.Health/Check"
)

// TestHostileCalls: calls that are wrong, with the right key, are refused, and
// the connection goes on for those that are right.
func TestHostileCalls(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	f.startAll(t)
	right := callFields(listBuckets, "h", f.key)
	for name, list := range map[string][]hpack.HeaderField{
		"no authority":         callFields(listBuckets, "", f.key),
		"two authorities":      append([]hpack.HeaderField{{Name: ":authority", Value: "other"}}, right...),
		"no slash":             callFields(listBuckets[1:], "h", f.key),
		"one slash":            callFields(strings.ReplaceAll(listBuckets, "/", ""), "h", f.key),
		"no path":              append(right[:2:2], right[3:]...),
		"two slashes":          callFields("/"+listBuckets, "h", f.key),
		"an escape":            callFields(strings.Replace(listBuckets, "List", "%4cist", 1), "h", f.key),
		"another case":         callFields(strings.ToLower(listBuckets), "h", f.key),
		"GET":                  append([]hpack.HeaderField{{Name: ":method", Value: "GET"}}, right[1:]...),
		"connection":           append(right[:len(right):len(right)], hpack.HeaderField{Name: "connection", Value: "close"}),
		"no content type":      append(right[:4:4], right[5:]...),
		"upper case in a name": append(right[:len(right):len(right)], hpack.HeaderField{Name: "X-Upper", Value: "x"}),
		"no key":               callFields(listBuckets, "h", ""),
	} {
		c := dial2(t, f.grpc(1))
		if err := errors.Join(c.open(1, list...), c.WriteData(1, true, message)); err != nil {
			t.Fatal(err)
		}
		got, err := c.answer(1)
		if err == nil && got != nil && (got["grpc-status"] == "" || got["grpc-status"] == "0") && got[":status"] == "200" {
			t.Errorf("%s: served: %v", name, got)
		}
		_ = c.conn.Close()
	}
	c := dial2(t, f.grpc(1))
	if err := errors.Join(c.open(1, callFields("no/slash", "h", f.key)...), c.WriteData(1, true, message),
		c.open(3, right...), c.WriteData(3, true, message)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.answer(3); err != nil || got["grpc-status"] != "0" {
		t.Errorf("what is right behind what is wrong: %v, %v", got, err)
	}
}

// hostileFrames are ways to keep a gRPC server busy, with n frames at most. Each
// is to be cut in time.
var hostileFrames = map[string]func(c *raw2, n int) error{
	"rapid reset": func(c *raw2, n int) error {
		for i := range uint32(n) {
			if err := errors.Join(c.open(2*i+1, callFields(healthCheck, "h", "")...), c.WriteRSTStream(2*i+1, http2.ErrCodeCancel)); err != nil {
				return err
			}
		}
		return nil
	},
	"rapid wrong key": func(c *raw2, n int) error {
		for i := range uint32(n) {
			if err := c.open(2*i+1, callFields(listBuckets, "h", "wrong")...); err != nil {
				return err
			}
		}
		return nil
	},
	"streams without end": func(c *raw2, n int) error {
		for i := range uint32(n) {
			if err := c.open(2*i+1, callFields(healthCheck, "h", "")...); err != nil {
				return err
			}
		}
		return nil
	},
	"continuation": func(c *raw2, n int) error {
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(callFields(healthCheck, "h", "")...)}); err != nil {
			return err
		}
		for range n {
			if err := c.WriteContinuation(1, false, bytes.Repeat([]byte{0x82}, 1000)); err != nil { // :method GET, again and again
				return err
			}
		}
		return nil
	},
	"empty continuation": func(c *raw2, n int) error {
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(callFields(healthCheck, "h", "")...)}); err != nil {
			return err
		}
		for range n {
			if err := c.WriteContinuation(1, false, nil); err != nil {
				return err
			}
		}
		return nil
	},
	"HPACK bomb": func(c *raw2, n int) error {
		for i := range uint32(n) {
			bomb := c.fields(append(callFields(healthCheck, "h", ""), hpack.HeaderField{Name: "a", Value: strings.Repeat("b", 3900)})...)
			bomb = append(bomb, bytes.Repeat([]byte{0x80 | 62}, 10_000)...) // 39 MB of the newest entry
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: bomb, EndHeaders: true, EndStream: true}); err != nil {
				return err
			}
		}
		return nil
	},
	"settings": func(c *raw2, n int) error {
		for range n {
			if err := c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}); err != nil {
				return err
			}
		}
		return nil
	},
	"pings": func(c *raw2, n int) error {
		for range n {
			if err := c.WritePing(false, [8]byte{}); err != nil {
				return err
			}
		}
		return nil
	},
	"priorities": func(c *raw2, n int) error {
		for range n {
			if err := c.WritePriority(1, http2.PriorityParam{StreamDep: 3}); err != nil {
				return err
			}
		}
		return nil
	},
	"unknown frames": func(c *raw2, n int) error {
		for range n {
			if err := c.WriteRawFrame(0xee, 0, 0, []byte("x")); err != nil {
				return err
			}
		}
		return nil
	},
	"empty data": func(c *raw2, n int) error {
		if err := c.open(1, callFields(healthCheck, "h", "")...); err != nil {
			return err
		}
		for range n {
			if err := c.WriteData(1, false, nil); err != nil {
				return err
			}
		}
		return nil
	},
	"a window of zero": func(c *raw2, _ int) error {
		// The answers of 200 calls stay where they are.
		err := c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for i := range uint32(200) {
			err = errors.Join(err, c.open(2*i+1, callFields(healthCheck, "h", "")...), c.WriteData(2*i+1, true, message))
		}
		return err
	},
	"half a message": func(c *raw2, _ int) error {
		return errors.Join(c.open(1, callFields(healthCheck, "h", "")...), c.WriteData(1, false, []byte{0, 0, 0x3f, 0xff, 0xff, 'x'}))
	},
	"a huge frame": func(c *raw2, _ int) error {
		return c.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20))
	},
}

// hostileHTTP2 lets clients of each kind do n of their frames each.
func hostileHTTP2(t *testing.T, clients, n int, more ...string) {
	b := besiege(t, more...)
	var wg sync.WaitGroup
	for name, attack := range hostileFrames {
		for range clients {
			c := dial2(t, b.grpc(1))
			wg.Go(func() {
				begin := time.Now()
				if problem := withstood(c, n, attack, name == "half a message"); problem != "" {
					t.Errorf("%s: %s", name, problem)
				}
				t.Logf("%s: over after %v", name, time.Since(begin).Round(time.Millisecond))
			})
		}
	}
	wg.Wait()
	for _, limit := range []string{"frames", "streams", "untaken"} {
		if b.limited(t, "grpc", limit) == 0 {
			t.Errorf("the node says that nothing met the limit %q", limit)
		}
	}
	b.lifted(t)
}

// withstood says what is wrong with how a node took it; "" is nothing. The client
// must be cut; one that asks for something only once, answered.
func withstood(c *raw2, n int, attack func(*raw2, int) error, once bool) string {
	defer func() { _ = c.conn.Close() }()
	begin := time.Now()
	cut := make(chan struct{})
	go func() {
		// What the node says; a client that doesn't read is another attack.
		defer close(cut)
		for {
			f, err := c.ReadFrame()
			if err != nil {
				return
			}
			h := f.Header()
			if h.Type == http2.FrameGoAway || once && (h.Type == http2.FrameRSTStream || h.Type == http2.FrameHeaders && h.Flags.Has(http2.FlagHeadersEndStream)) {
				return
			}
		}
	}()
	sent := make(chan error, 1)
	go func() { sent <- attack(c, n) }()
	timer := time.NewTimer(cutWithin)
	defer timer.Stop()
	problem := ""
	select {
	case <-cut:
	case <-timer.C:
		problem = "still there after " + time.Since(begin).String()
	}
	_ = c.conn.Close()
	<-sent
	<-cut
	return problem
}

// TestHostileHTTP2 is hostileHTTP2 with few clients and frames.
func TestHostileHTTP2(t *testing.T) { hostileHTTP2(t, 2, 5_000, hasty...) }
