package limit

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// flooded is a watched connection whose server reads everything, and its client.
type flooded struct {
	*Flood
	count  tally
	client *http2.Framer
	wire   net.Conn
	ended  chan error // of the server's reading
}

func flood(t *testing.T, o FloodOptions) *flooded {
	t.Helper()
	f := &flooded{ended: make(chan error, 1)}
	o.Refused = f.count.refused
	server, client := net.Pipe()
	f.Flood, f.wire, f.client = NewFlood(server, o), client, http2.NewFramer(client, client)
	go func() {
		// In odd pieces, so that heads are cut in all places.
		var err error
		for p := make([]byte, 7); err == nil; {
			_, err = f.Read(p)
		}
		f.ended <- err
	}()
	if _, err := io.WriteString(client, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	return f
}

// stop ends both ends.
func (f *flooded) stop() {
	_ = f.wire.Close()
	_ = f.Close()
	<-f.ended
}

// TestIdleFrames: so many frames that ask for nothing end a connection, others
// don't.
func TestIdleFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, send := range map[string]func(c *http2.Framer, i uint32) error{
			"settings":     func(c *http2.Framer, _ uint32) error { return c.WriteSettings() },
			"resets":       func(c *http2.Framer, i uint32) error { return c.WriteRSTStream(2*i+1, http2.ErrCodeCancel) },
			"empty data":   func(c *http2.Framer, _ uint32) error { return c.WriteData(1, false, nil) },
			"continuation": func(c *http2.Framer, _ uint32) error { return c.WriteContinuation(1, false, []byte("x")) },
			"unknown":      func(c *http2.Framer, _ uint32) error { return c.WriteRawFrame(77, 0, 0, nil) },
		} {
			f := flood(t, FloodOptions{Frames: 10, Untaken: time.Second})
			var err error
			n := uint32(0)
			for ; err == nil && n < 1000; n++ {
				err = send(f.client, n)
			}
			if n != 42 && n != 41 || f.count.of("frames") != 1 {
				t.Errorf("%s: ended after %d, counted %d; want 41, 1", name, n, f.count.of("frames"))
			}
			f.stop()
		}
		f := flood(t, FloodOptions{Frames: 10, Untaken: time.Second})
		for i := range uint32(1000) {
			for _, err := range []error{
				f.client.WriteData(1, false, []byte("payload")), f.client.WriteWindowUpdate(0, 1),
				f.client.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, EndHeaders: true}), f.client.WriteData(2*i+1, true, nil),
			} {
				if err != nil {
					t.Fatalf("after %d: %v", i, err)
				}
			}
		}
		f.stop()
	})
}

// TestUntaken: an answer that is ready and doesn't leave ends the connection;
// one that leaves in pieces, and a handler that takes its time, don't.
func TestUntaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := flood(t, FloodOptions{Frames: 10, Untaken: time.Second})
		go func() { _, _ = io.Copy(io.Discard, f.wire) }()
		out := http2.NewFramer(f.Flood, nil)
		must := func(errs ...error) {
			t.Helper()
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		open := func(stream uint32) {
			must(f.client.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: true}))
			f.Begin()
		}
		open(1)
		time.Sleep(time.Hour) // a handler that waits
		f.End()
		for range 5 {
			time.Sleep(900 * time.Millisecond)
			must(out.WriteData(1, false, []byte("a piece")))
		}
		must(out.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true}))
		time.Sleep(time.Hour) // nothing is open
		open(3)
		open(5)
		f.End()
		must(out.WriteRSTStream(3, http2.ErrCodeNo))
		time.Sleep(time.Hour) // 5 is being served
		if f.count.of("untaken") != 0 {
			t.Fatal("ended too soon")
		}
		f.End()
		time.Sleep(1100 * time.Millisecond)
		if err := out.WriteData(5, false, []byte("x")); err == nil || f.count.of("untaken") != 1 {
			t.Errorf("still open, counted %d", f.count.of("untaken"))
		}
		f.stop()
	})
}

// TestServersResets: what the server has to reset counts, more where it was wrong.
func TestServersResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for code, want := range map[http2.ErrCode]int{http2.ErrCodeCancel: 201, http2.ErrCodeFrameSize: 5, http2.ErrCodeProtocol: 5} {
			f := flood(t, FloodOptions{Frames: 50, Untaken: time.Second})
			go func() { _, _ = io.Copy(io.Discard, f.wire) }()
			out := http2.NewFramer(f.Flood, nil)
			n := 0
			for err := error(nil); err == nil && n < 1000; n++ {
				err = out.WriteRSTStream(uint32(2*n+1), code)
			}
			if n != want || f.count.of("frames") != 1 {
				t.Errorf("%v: ended after %d, want %d", code, n, want)
			}
			f.stop()
		}
	})
}

// TestStreamsWaiting: a client that opens more than the server can serve.
func TestStreamsWaiting(t *testing.T) {
	f := flood(t, FloodOptions{Frames: 10, Streams: 4, Untaken: time.Second})
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = f.client.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), EndHeaders: true})
	}
	if n > 6 || f.count.of("streams") != 1 {
		t.Errorf("ended after %d, counted %d", n, f.count.of("streams"))
	}
	f.stop()
}
