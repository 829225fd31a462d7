package grid

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestHostileConnections throws malformed connections at a live listener while
// an honest peer works: it keeps its session, and memory stays small.
// GRIDLOOM_SOAK makes them 100,000.
func TestHostileConnections(t *testing.T) {
	n := 2000
	if os.Getenv("GRIDLOOM_SOAK") != "" {
		n = 100_000
	}
	var impostor string // a known host that is not up, and would dial
	nodes := newTestMesh(t, 2, func(o *ManagerOptions) {
		o.HandshakeTimeout = 2 * time.Second
	})
	victim := nodes[1]
	for port := 1; impostor == ""; port++ {
		if name := fmt.Sprintf("http://127.0.0.9:%d", port); dials(name, victim.Local()) {
			impostor = name
		}
	}
	if err := victim.AddHost(impostor); err != nil {
		t.Fatal(err)
	}
	registerAll(t, victim.Manager)
	target, err := url.Parse(victim.Local())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContextLong(t))
	var honest sync.WaitGroup
	c := nodes[0].Connection(victim.Local())
	calls := 0
	honest.Go(func() {
		for ctx.Err() == nil {
			if _, err := c.Request(ctx, echoID, make([]byte, 512)); err != nil && ctx.Err() == nil {
				t.Errorf("the honest peer: %v", err)
				return
			}
			calls++
		}
	})
	var attackers sync.WaitGroup
	for worker := range 16 {
		attackers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(worker), 1))
			for range n / 16 {
				attack(t, rng, target.Host, impostor, victim.Local())
			}
		})
	}
	attackers.Wait()
	cancel()
	honest.Wait()
	if sessions := c.Stats().Sessions; sessions != 1 || calls == 0 {
		t.Errorf("the honest peer needed %d sessions for %d calls", sessions, calls)
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	if ms.HeapInuse > 256<<20 {
		t.Errorf("%d MiB of heap", ms.HeapInuse>>20)
	}
	for deadline := testContextLong(t); victim.shaking.Load() > 0; {
		select {
		case <-deadline.Done():
			t.Fatalf("%d handshakes never ended", victim.shaking.Load())
		default:
			yield()
		}
	}
}

func testContextLong(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// attack opens one connection, says something wrong and resets it.
func attack(t *testing.T, rng *rand.Rand, addr, from, to string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetLinger(0) // RST, so that ports do not run out
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	garbage := make([]byte, rng.IntN(2000))
	for i := range garbage {
		garbage[i] = byte(rng.Uint32())
	}
	kind := rng.IntN(6)
	if kind == 0 {
		_, _ = conn.Write(garbage)
		return
	}
	switch kind {
	case 1:
		from = "http://127.0.0.1:1" // unknown
	case 2:
		to = from
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s: %s\r\n%s: %s\r\n\r\n",
		RoutePath, headerFrom, from, headerTo, to)
	switch kind {
	case 3:
		_, _ = conn.Write(garbage)
	case 4: // a frame that announces 2^62 bytes
		_, _ = conn.Write(binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<62))
	case 5: // a hello without a proof after it
		h := hello{Protocol: RoutePath, From: from, To: to, Instance: "0123456789abcdef", Nonce: make([]byte, nonceLen), MaxMessage: 1, Reassembly: 1, Window: 1 << 20}
		if msg, err := h.MarshalMsg(nil); err == nil {
			_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewBinaryFrame(msg)))
			_ = ws.WriteFrame(conn, ws.MaskFrame(ws.NewBinaryFrame(garbage[:len(garbage)/2])))
		}
	}
	_, _ = conn.Read(make([]byte, 4096))
}
