package grid_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/grid/gridtest"
)

// second is another implementation of the dialling end, as small as it can be
// and written from SPEC.md alone: it uses nothing of package grid.
type second struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	mask [4]byte

	instance string
	attempt  uint64
}

// write sends one WebSocket message (section 3).
func (s *second) write(payload []byte) {
	s.t.Helper()
	head := []byte{0x82, 0x80 | 127}
	head = binary.BigEndian.AppendUint64(head, uint64(len(payload)))
	head = append(head, s.mask[:]...)
	for i, b := range payload {
		head = append(head, b^s.mask[i%4])
	}
	if _, err := s.conn.Write(head); err != nil {
		s.t.Fatal(err)
	}
}

func (s *second) read() []byte {
	s.t.Helper()
	head := make([]byte, 2)
	s.full(head)
	if head[0] != 0x82 || head[1]&0x80 != 0 {
		s.t.Fatalf("WebSocket header % x", head)
	}
	n := uint64(head[1])
	switch n {
	case 126:
		b := make([]byte, 2)
		s.full(b)
		n = uint64(binary.BigEndian.Uint16(b))
	case 127:
		b := make([]byte, 8)
		s.full(b)
		n = binary.BigEndian.Uint64(b)
	}
	payload := make([]byte, n)
	s.full(payload)
	return payload
}

func (s *second) full(b []byte) {
	s.t.Helper()
	if _, err := io.ReadFull(s.r, b); err != nil {
		s.t.Fatal(err)
	}
}

// proof is section 4's.
func secondProof(secret, label string, hello, welcome []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	for _, x := range [][]byte{[]byte(label), hello, welcome} {
		mac.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(x))))
		mac.Write(x)
	}
	return mac.Sum(nil)
}

// step reads a handshake step (section 4).
func (s *second) step() (welcome, proof []byte, ready bool, refused string) {
	s.t.Helper()
	v, rest, err := msgp.ReadMapStrIntfBytes(s.read(), nil)
	if err != nil || len(rest) > 0 {
		s.t.Fatal(err)
	}
	refused, _ = v["refused"].(string)
	welcome, _ = v["welcome"].([]byte)
	proof, _ = v["proof"].([]byte)
	ready, _ = v["ready"].(bool)
	return welcome, proof, ready, refused
}

// batch sends frames with their checksum (section 5).
func (s *second) batch(frames ...[]byte) {
	s.t.Helper()
	var b []byte
	for _, f := range frames {
		b = append(b, f...)
	}
	s.write(binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

// secondFrame encodes a frame (section 6).
func secondFrame(typ, flags byte, handler uint16, id uint64, body []byte) []byte {
	b := []byte{typ, flags}
	b = binary.LittleEndian.AppendUint16(b, handler)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint64(b, id)
	return append(b, body...)
}

// await reads frames until one of the type for the id has come, answering
// pings on the way.
func (s *second) await(typ byte, id uint64) []byte {
	s.t.Helper()
	for {
		b := s.read()
		n := len(b) - 4
		if crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[n:]) {
			s.t.Fatal("checksum")
		}
		var found []byte
		for b = b[:n]; len(b) > 0; {
			length := binary.LittleEndian.Uint32(b[4:])
			body := b[16 : 16+length]
			switch {
			case b[0] == typ && binary.LittleEndian.Uint64(b[8:]) == id:
				found = append([]byte{}, body...)
			case b[0] == 12:
				s.batch(secondFrame(13, 0, 0, 0, body))
			case b[0] == 3:
				s.t.Fatalf("error %x", body)
			}
			b = b[16+length:]
		}
		if found != nil {
			return found
		}
	}
}

// diallingName gives a name that dials local (section 1).
func diallingName(local string) string {
	for port := 1; ; port++ {
		name := fmt.Sprintf("http://127.0.0.1:%d", port)
		a, b := name, local
		if b < a {
			a, b = b, a
		}
		sum := sha256.Sum256([]byte(a + "\x00" + b))
		if (sum[0]&1 == 0) == (a == name) {
			return name
		}
	}
}

// newSecond connects to a node, without a word so far, and closes with the test.
func newSecond(t *testing.T, m *grid.Manager) *second {
	t.Helper()
	conn, err := net.Dial("tcp", m.Local()[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &second{t: t, conn: conn, r: bufio.NewReader(conn), mask: [4]byte{1, 2, 3, 4}, instance: "0123456789abcdef", attempt: 1}
}

// closed waits for the other end to close.
func (s *second) closed() {
	s.t.Helper()
	if _, err := io.Copy(io.Discard, s.r); errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Error("the connection stays open")
	}
}

func TestSecondImplementation(t *testing.T) {
	onTCP(t, 1, nil, nil, func(b *bed) {
		m := b.Node(0)
		name := diallingName(m.Local())
		if err := m.AddHost(name); err != nil {
			t.Fatal(err)
		}
		b.serve(0, echo(), channels(sinkID, 4, 4, func(ctx context.Context, payload []byte, in <-chan []byte, out chan<- []byte) error {
			for msg := range in {
				out <- append(payload, msg...)
			}
			return ctx.Err()
		}))
		s := newSecond(t, m)
		s.connect(name, m.Local())
		s.talk(m, name)
	})
}

// upgrade is section 2.
func (s *second) upgrade(name, peer string) {
	s.t.Helper()
	fmt.Fprintf(s.conn, "GET /grid/v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nGridloom-Grid-From: %s\r\nGridloom-Grid-To: %s\r\n\r\n", name, peer)
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil || resp.StatusCode != 101 {
		s.t.Fatal(resp, err)
	}
}

// connect upgrades and shakes hands, and fails where that is refused.
func (s *second) connect(name, peer string) {
	s.t.Helper()
	s.upgrade(name, peer)
	if refused := s.shake(name, peer); refused != "" {
		s.t.Fatal("refused: ", refused)
	}
}

// shake is section 4, with a mask key that is not zero.
func (s *second) shake(name, peer string) (refused string) {
	t := s.t
	t.Helper()
	nonce := make([]byte, 32)
	rand.Read(nonce)
	hello, err := msgp.AppendMapStrIntf(nil, map[string]any{
		"protocol": "/grid/v1", "from": name, "to": peer, "instance": s.instance, "attempt": s.attempt,
		"nonce": nonce, "realm": "", "features": uint64(1), "max_message": uint32(1 << 20), "reassembly": uint32(1 << 20),
		"window": uint32(1 << 20), "unix_us": int64(0), "from the future": "ignored",
	})
	if err != nil {
		t.Fatal(err)
	}
	s.write(hello)
	welcome, proof, _, refused := s.step()
	if refused != "" {
		return refused
	}
	if !hmac.Equal(proof, secondProof(gridtest.Secret, "gridloom grid v1 acceptor", hello, welcome)) {
		t.Fatal("the peer's proof is wrong")
	}
	answer, err := msgp.AppendMapStrIntf(nil, map[string]any{"proof": secondProof(gridtest.Secret, "gridloom grid v1 dialler", hello, welcome)})
	if err != nil {
		t.Fatal(err)
	}
	s.write(answer)
	_, _, ready, refused := s.step()
	if refused == "" && !ready {
		t.Fatal("not ready")
	}
	return refused
}

// talk makes a request, a request in two frames and a stream (sections 6 to 8).
func (s *second) talk(m *grid.Manager, name string) {
	t := s.t
	id := uint64(1) << 32
	s.batch(secondFrame(1, 0, uint16(echoID), id, []byte("hello")))
	if got := s.await(2, id); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	id = uint64(2) << 32
	s.batch(secondFrame(1, 1, uint16(echoID), id, append([]byte{6, 0, 0, 0}, "cut"...)), secondFrame(8, 0, 0, id, []byte("two")))
	if got := s.await(2, id); string(got) != "cuttwo" {
		t.Errorf("got %q", got)
	}
	id = uint64(1)<<32 | 7
	s.batch(secondFrame(5, 0, uint16(sinkID), id, append([]byte{0, 0, 1, 0, 0, 0, 0, 0}, "re: "...)))
	accept := s.await(6, id)
	if binary.LittleEndian.Uint32(accept[4:]) != 4 || binary.LittleEndian.Uint32(accept[8:]) != 4 {
		t.Errorf("accept % x", accept)
	}
	s.batch(secondFrame(7, 0, 0, id, []byte("one")))
	if got := s.await(7, id); string(got) != "re: one" {
		t.Errorf("got %q", got)
	}
	s.batch(secondFrame(9, 0, 0, id, nil))
	s.await(9, id)

	// The other way: the grid's end calls this one.
	errs := make(chan error, 1)
	go func() {
		resp, err := m.Connection(name).Request(context.Background(), 77, []byte("ping?"))
		if err == nil && string(resp) != "pong!" {
			err = fmt.Errorf("got %q", resp)
		}
		errs <- err
	}()
	for called := false; !called; {
		b := s.read()
		for b = b[:len(b)-4]; len(b) > 0; {
			length := binary.LittleEndian.Uint32(b[4:])
			if b[0] == 1 && binary.LittleEndian.Uint16(b[2:]) == 77 {
				if binary.LittleEndian.Uint64(b[8:])>>63 != 1 || string(b[16:16+length]) != "ping?" {
					t.Errorf("request % x", b)
				}
				s.batch(secondFrame(2, 0, 0, binary.LittleEndian.Uint64(b[8:]), []byte("pong!")))
				called = true
			}
			b = b[16+length:]
		}
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
}
