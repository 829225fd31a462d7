package grid

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// scriptConn plays bytes to a reader and swallows what is written.
type scriptConn struct {
	net.Conn
	in *bytes.Reader
}

func (c *scriptConn) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *scriptConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scriptConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

func fuzzManager(f *testing.F) *Manager {
	m, err := NewManager(f.Context(), ManagerOptions{Local: "http://127.0.0.1:1", Insecure: true, MaxMessage: 1 << 20, ReassemblyBudget: 4 << 20})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = m.Close(f.Context()) })
	registerAll(f, m)
	return m
}

// FuzzSession plays a stream of bytes to a live session. It must end, without
// a panic and without allocating what the bytes only announce.
func FuzzSession(f *testing.F) {
	m := fuzzManager(f)
	batch := func(frames ...[]byte) []byte {
		payload := bytes.Join(frames, nil)
		payload = binary.LittleEndian.AppendUint32(payload, crc32.Checksum(payload, castagnoli))
		b, err := ws.CompileFrame(ws.NewBinaryFrame(payload))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	frame := func(h header, body string) []byte {
		h.length = uint32(len(body))
		return append(appendHeader(nil, h), body...)
	}
	peer := originAcceptor
	f.Add(batch(frame(header{typ: frameRequest, handler: uint16(echoID), id: peer | 1<<32}, "hello")))
	f.Add(batch(frame(header{typ: frameRequest, flags: flagMore, handler: uint16(echoID), id: peer | 1<<32}, "\x00\x00\x01\x00xx"),
		frame(header{typ: frameMore, id: peer | 1<<32}, "yy")))
	f.Add(batch(frame(header{typ: frameOpen, handler: uint16(pullID), id: peer | 5}, "\x00\x00\x01\x00\x00\x00\x00\x00p"),
		frame(header{typ: frameData, id: peer | 5}, "abc"), frame(header{typ: frameEnd, id: peer | 5}, "")))
	f.Add(batch(frame(header{typ: frameReply, id: 1 << 32}, ""), frame(header{typ: frameError, id: 1 << 32}, "\x80")))
	f.Add(batch(frame(header{typ: frameGoAway, handler: 1}, ""), frame(header{typ: framePing}, "12345678")))
	f.Add([]byte{0x88, 0x02, 0x03, 0xe8})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newConnection(m, host{name: "http://peer:1"})
		conn := &scriptConn{in: bytes.NewReader(data)}
		params := peerParams{name: "http://peer:1", maxMessage: 1 << 20, reassembly: 4 << 20, window: 1 << 20}
		s := newSession(m, c, conn, SessionInfo{Dialled: true}, params, ourFeatures)
		_ = s.run()
	})
}

// FuzzFrames reaches the dispatcher with batches whose checksum is right.
func FuzzFrames(f *testing.F) {
	m := fuzzManager(f)
	f.Add(appendHeader(nil, header{typ: frameCredit, length: 0, id: 7}))
	f.Add(appendHeader(nil, header{typ: frameOpen, handler: uint16(countID), id: originAcceptor}))
	f.Fuzz(func(t *testing.T, frames []byte) {
		if len(frames) > maxBatchLen-crcLen {
			return
		}
		c := newConnection(m, host{name: "http://peer:1"})
		payload := binary.LittleEndian.AppendUint32(bytes.Clone(frames), crc32.Checksum(frames, castagnoli))
		b, err := ws.CompileFrame(ws.NewBinaryFrame(payload))
		if err != nil {
			t.Fatal(err)
		}
		params := peerParams{name: "http://peer:1", maxMessage: 1 << 20, reassembly: 4 << 20, window: 1 << 20}
		s := newSession(m, c, &scriptConn{in: bytes.NewReader(b)}, SessionInfo{Dialled: true}, params, ourFeatures)
		_ = s.run()
	})
}

// FuzzHandshake plays bytes to the accepting end's handshake.
func FuzzHandshake(f *testing.F) {
	m := fuzzManager(f)
	good := hello{Protocol: RoutePath, From: "http://peer:1", To: m.local, Instance: "0123456789abcdef", Nonce: make([]byte, nonceLen), MaxMessage: 1, Reassembly: 1, Window: 1 << 20}
	msg, err := good.MarshalMsg(nil)
	if err != nil {
		f.Fatal(err)
	}
	b, err := ws.CompileFrame(ws.MaskFrame(ws.NewBinaryFrame(msg)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := &scriptConn{in: bytes.NewReader(data)}
		h := newHandshaker(m, conn, false, nil)
		_, _ = h.accept("http://peer:1", false, func(peerParams) error { return nil })
	})
}

// FuzzMessages decodes every msgpack message of the protocol.
func FuzzMessages(f *testing.F) {
	w := wireError{Kind: kindOverloaded, Message: "m", RetryAfterMS: 5}
	f.Add(w.encode())
	f.Add([]byte{0x81, 0xa1, 'a', 0xa1, 'b'})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxHandshake {
			return
		}
		var w wireError
		if w.decode(data) == nil {
			_ = w.error("request", "h", 1).Error()
		}
		var h hello
		_, _ = h.UnmarshalMsg(data)
		var wl welcome
		_, _ = wl.UnmarshalMsg(data)
		var st step
		_, _ = st.UnmarshalMsg(data)
		_, _ = decodeMetadata(data)
		_ = checkDepth(data)
	})
}

// FuzzCipher checks the mask against RFC 6455, section 5.3, byte by byte.
func FuzzCipher(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"), uint32(0x01020304), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, key uint32, start uint8) {
		var mask [4]byte
		binary.BigEndian.PutUint32(mask[:], key)
		data = data[min(int(start), len(data)):]
		want := bytes.Clone(data)
		for i := range want {
			want[i] ^= mask[i%4]
		}
		ws.Cipher(data, mask, 0)
		if !bytes.Equal(data, want) {
			t.Fatalf("got %x, want %x", data, want)
		}
	})
}
