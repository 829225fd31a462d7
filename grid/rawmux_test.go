package grid

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// rawMux is the limit the grid is measured against: length-prefixed frames
// over TCP, one reader, one batching writer, a map of pending calls, and none
// of the features.
type rawMux struct {
	conn    net.Conn
	mu      sync.Mutex
	cond    *sync.Cond
	buf     []byte
	closed  bool
	pendMu  sync.Mutex
	pending map[uint32]chan []byte
	next    uint32
	serve   func(id uint32, req []byte)
}

func newRawMux(conn net.Conn) *rawMux {
	m := &rawMux{conn: conn, pending: map[uint32]chan []byte{}}
	m.cond = sync.NewCond(&m.mu)
	return m
}

func (m *rawMux) send(id uint32, payload []byte) {
	m.mu.Lock()
	for len(m.buf) > 1<<20 {
		m.cond.Wait()
	}
	m.buf = binary.LittleEndian.AppendUint32(m.buf, uint32(len(payload)))
	m.buf = binary.LittleEndian.AppendUint32(m.buf, id)
	m.buf = append(m.buf, payload...)
	m.cond.Broadcast()
	m.mu.Unlock()
}

func (m *rawMux) writeLoop() {
	var spare []byte
	for {
		m.mu.Lock()
		for len(m.buf) == 0 && !m.closed {
			m.cond.Wait()
		}
		if m.closed {
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		runtime.Gosched()
		m.mu.Lock()
		out := m.buf
		m.buf = spare[:0]
		m.cond.Broadcast()
		m.mu.Unlock()
		if _, err := m.conn.Write(out); err != nil {
			return
		}
		spare = out
	}
}

func (m *rawMux) readLoop() {
	r := bufio.NewReaderSize(m.conn, 256<<10)
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		payload := make([]byte, binary.LittleEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, payload); err != nil {
			return
		}
		id := binary.LittleEndian.Uint32(head[4:])
		if m.serve != nil {
			m.serve(id, payload)
			continue
		}
		m.pendMu.Lock()
		ch := m.pending[id]
		delete(m.pending, id)
		m.pendMu.Unlock()
		ch <- payload
	}
}

func (m *rawMux) call(req []byte) []byte {
	ch := make(chan []byte, 1)
	m.pendMu.Lock()
	m.next++
	id := m.next
	m.pending[id] = ch
	m.pendMu.Unlock()
	m.send(id, req)
	return <-ch
}

func newRawPair(b *testing.B) (client, server *rawMux) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	client, server = newRawMux(near), newRawMux(far)
	var wg sync.WaitGroup
	b.Cleanup(func() {
		for _, m := range []*rawMux{client, server} {
			m.conn.Close()
			m.mu.Lock()
			m.closed = true
			m.cond.Broadcast()
			m.mu.Unlock()
		}
		wg.Wait()
	})
	wg.Go(client.writeLoop)
	wg.Go(server.writeLoop)
	wg.Go(client.readLoop)
	wg.Go(func() { server.readLoop() })
	return client, server
}

func BenchmarkRawMux(b *testing.B) {
	for _, callers := range []int{1, 32, 128, 1024} {
		for _, spawn := range []bool{false, true} {
			b.Run(fmt.Sprintf("callers=%d/go=%v", callers, spawn), func(b *testing.B) {
				client, server := newRawPair(b)
				server.serve = func(id uint32, req []byte) { server.send(id, req) }
				if spawn {
					server.serve = func(id uint32, req []byte) { go server.send(id, req) }
				}
				req := make([]byte, 512)
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							client.call(req)
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
			})
		}
	}
}

func BenchmarkRawStream(b *testing.B) {
	for _, size := range []int{512, 64 << 10} {
		b.Run(fmt.Sprint("size=", size), func(b *testing.B) {
			client, server := newRawPair(b)
			got, done := 0, make(chan struct{})
			server.serve = func(uint32, []byte) {
				if got++; got == b.N {
					close(done)
				}
			}
			msg := make([]byte, size)
			b.SetBytes(int64(size))
			b.ResetTimer()
			for range b.N {
				client.send(0, msg)
			}
			<-done
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
