package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
)

// rawmux is the limit that the others are measured against: length-prefixed
// frames on a TCP connection, one reader, one writer that sends whatever has
// gathered, a map of pending calls. Large messages are written by their sender
// and read into their place without a copy. It has no deadlines, no
// cancellation, no checksums, no flow control but a bounded buffer and the
// socket's, and forgives nothing.
type rawmux struct {
	conn net.Conn
	wg   sync.WaitGroup

	writing sync.Mutex // one write at a time; not held together with mu

	mu     sync.Mutex
	filled sync.Cond // buf has become non-empty, or closed
	taken  sync.Cond // buf was taken, or closed
	buf    []byte
	closed bool

	pendMu  sync.Mutex
	pending map[uint32]chan []byte // nil: closed
	lastID  uint32
}

// A frame is length, kind and id, then the payload.
const (
	rawHeader = 4 + 1 + 4
	rawMax    = 256 << 10 // bytes that may gather before senders wait
	rawLarge  = 16 << 10  // bytes from which a message is not copied
)

const (
	rawRequest byte = iota + 1
	rawReply
	rawData  // one message of the flow
	rawCount // at the end of the flow: how many were there? A reply follows.
)

var errRawClosed = errors.New("rawmux: closed")

// newRawmux starts both loops. handle runs in the reader. The payload is its
// for good, as everywhere here.
func newRawmux(conn net.Conn, handle func(m *rawmux, kind byte, id uint32, payload []byte)) *rawmux {
	m := &rawmux{conn: conn, pending: make(map[uint32]chan []byte)}
	m.filled.L, m.taken.L = &m.mu, &m.mu
	m.wg.Go(m.writeLoop)
	m.wg.Go(func() {
		m.readLoop(handle)
		m.shut()
	})
	return m
}

func (m *rawmux) send(kind byte, id uint32, payload []byte) error {
	if len(payload) >= rawLarge {
		m.writing.Lock()
		defer m.writing.Unlock()
		vector := net.Buffers{appendRawHeader(make([]byte, 0, rawHeader), kind, id, len(payload)), payload}
		_, err := vector.WriteTo(m.conn)
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.buf) >= rawMax && !m.closed {
		m.taken.Wait()
	}
	if m.closed {
		return errRawClosed
	}
	if len(m.buf) == 0 {
		m.filled.Signal()
	}
	m.buf = append(appendRawHeader(m.buf, kind, id, len(payload)), payload...)
	return nil
}

func appendRawHeader(b []byte, kind byte, id uint32, n int) []byte {
	b = append(binary.LittleEndian.AppendUint32(b, uint32(n)), kind)
	return binary.LittleEndian.AppendUint32(b, id)
}

func (m *rawmux) writeLoop() {
	var out []byte
	for {
		m.mu.Lock()
		for len(m.buf) == 0 && !m.closed {
			m.filled.Wait()
		}
		if m.closed {
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		runtime.Gosched() // let those run who are about to send: one write for all
		m.mu.Lock()
		m.buf, out = out[:0], m.buf
		m.taken.Broadcast()
		m.mu.Unlock()
		m.writing.Lock()
		_, err := m.conn.Write(out)
		m.writing.Unlock()
		if err != nil {
			m.shut()
			return
		}
	}
}

func (m *rawmux) readLoop(handle func(m *rawmux, kind byte, id uint32, payload []byte)) {
	r := bufio.NewReaderSize(m.conn, 256<<10)
	for {
		head, err := r.Peek(rawHeader)
		if err != nil {
			return
		}
		n, kind, id := int(binary.LittleEndian.Uint32(head)), head[4], binary.LittleEndian.Uint32(head[5:])
		if _, err := r.Discard(rawHeader); err != nil {
			return
		}
		payload := make([]byte, n)
		buffered := min(n, r.Buffered())
		if n < rawLarge {
			buffered = n
		}
		if _, err := io.ReadFull(r, payload[:buffered]); err != nil {
			return
		}
		if _, err := io.ReadFull(m.conn, payload[buffered:]); err != nil {
			return
		}
		if kind != rawReply {
			handle(m, kind, id, payload)
			continue
		}
		m.pendMu.Lock()
		answer := m.pending[id]
		delete(m.pending, id)
		m.pendMu.Unlock()
		if answer != nil {
			answer <- payload
		}
	}
}

// shut ends both loops and every call.
func (m *rawmux) shut() {
	m.conn.Close()
	m.mu.Lock()
	m.closed = true
	m.filled.Broadcast()
	m.taken.Broadcast()
	m.mu.Unlock()
	m.pendMu.Lock()
	for _, answer := range m.pending {
		close(answer)
	}
	m.pending = nil
	m.pendMu.Unlock()
}

func (m *rawmux) call(kind byte, req []byte) ([]byte, error) {
	answer := make(chan []byte, 1)
	m.pendMu.Lock()
	if m.pending == nil {
		m.pendMu.Unlock()
		return nil, errRawClosed
	}
	m.lastID++
	id := m.lastID
	m.pending[id] = answer
	m.pendMu.Unlock()
	if err := m.send(kind, id, req); err != nil {
		return nil, err
	}
	resp, ok := <-answer
	if !ok {
		return nil, errRawClosed
	}
	return resp, nil
}

// serveRaw serves rawmux, with the echo in the reader or in a goroutine.
func serveRaw(spawn bool) func(setup) (farEnd, error) {
	return func(s setup) (farEnd, error) {
		ln, err := loopback()
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(s.Stack, "-tls") {
			config, err := serverTLS(s)
			if err != nil {
				return nil, err
			}
			ln = tls.NewListener(ln, config)
		}
		return accept(ln, func(conn net.Conn) {
			var wg sync.WaitGroup
			count := uint64(0) // the reader's
			m := newRawmux(conn, func(m *rawmux, kind byte, id uint32, payload []byte) {
				switch {
				case kind == rawData:
					count++
				case kind == rawCount:
					m.send(rawReply, id, binary.LittleEndian.AppendUint64(nil, count))
					count = 0
				case spawn:
					wg.Go(func() { m.send(rawReply, id, payload) })
				default:
					m.send(rawReply, id, payload)
				}
			})
			m.wg.Wait()
			wg.Wait()
		}), nil
	}
}

type rawClient struct{ m *rawmux }

func dialRaw(ctx context.Context, s setup, addr string) (client, error) {
	conn, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(s.Stack, "-tls") {
		conn = tls.Client(conn, clientTLS(s))
	}
	return &rawClient{newRawmux(conn, func(*rawmux, byte, uint32, []byte) {})}, nil
}

func (c *rawClient) caller(context.Context) (caller, error) {
	return func(_ context.Context, req []byte) ([]byte, error) { return c.m.call(rawRequest, req) }, nil
}

func (c *rawClient) flow(context.Context) (flow, error) { return c, nil }

func (c *rawClient) send(msg []byte) error { return c.m.send(rawData, 0, msg) }

func (c *rawClient) finish() (int64, error) {
	resp, err := c.m.call(rawCount, nil)
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(resp)), nil
}

func (c *rawClient) close() error {
	c.m.shut()
	c.m.wg.Wait()
	return nil
}
