package grid

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// session is one socket and everything that lives and dies with it: ids,
// queues, pending calls, contexts. Nothing crosses to the next session.
type session struct {
	m    *Manager
	c    *Connection
	conn net.Conn
	info SessionInfo
	peer peerParams

	origin  uint64 // of our ids; the peer's have the other one
	crc     bool   // batches end in CRC32C: plaintext links
	maskOut bool   // we dialled
	maskKey [4]byte
	refs    bool // batches may reference large buffers

	// Our calls and the peer's.
	slots   slotTable
	inbound inboundTable
	serving atomic.Int64 // the peer's calls whose answers, or ends, are not queued yet
	accepts atomic.Int64 // open replies that are not written yet
	budget  atomic.Int64 // bytes of the requests being served

	// Writing; see write.go. Everything from lists on belongs to the role.
	pushed     [laneCount]pushStack
	room       queueRoom
	role       atomic.Uint32
	writerWake chan struct{}
	rawOut     atomic.Pointer[rawFrames]
	bulkCredit atomic.Int64
	blocked    atomic.Bool   // flows wait for bulkCredit
	writeMark  atomic.Uint64 // odd while a write blocks
	direct     *directWriter // nil where a write can't be tried
	lists      [laneCount]itemList
	parked     [2]itemList // of the stream and the bulk lane: messages that wait for the peer's reassembly budget
	batch      batch
	rest       []byte // of a batch that was begun directly
	restLen    int
	flowSent   [2]int
	partialOut int    // bytes of messages begun and not ended
	openedOut  uint64 // calls begun

	// Reading; belongs to the reader.
	in        batchReader
	partials  map[uint64]*partial
	partialIn int
	openedIn  atomic.Uint64 // the peer's calls that began to arrive
	tasks     []*servedCall
	bulkOwed  control
	reading   atomic.Bool // the reader is, or is about to be, in a read that may block
	arrived   time.Time   // when the batch did, once somebody had to know
	kicked    bool

	// Life.
	going    atomic.Bool   // the peer takes no new calls
	refusing atomic.Bool   // we take none
	goneAt   atomic.Uint64 // 1 + the peer's count of our calls, after goAwayFinal
	ackCh    chan struct{} // closed when the peer acknowledges goAwaySoon
	ackOnce  sync.Once
	quiet    chan struct{} // while refusing, a token whenever something ends
	dead     chan struct{}
	failOnce sync.Once
	cause    error // set before dead closes
	keep     keepalive
	count    *counters
}

// peerParams is what the handshake tells about the other end.
type peerParams struct {
	name       string
	instance   string
	attempt    uint64
	maxMessage int
	reassembly int
	window     int // bulk bytes we may have on their way to it
}

func newSession(m *Manager, c *Connection, conn net.Conn, info SessionInfo, peer peerParams, features uint64) *session {
	s := &session{
		m: m, c: c, conn: conn, info: info, peer: peer,
		crc:        features&featureCRC != 0,
		writerWake: make(chan struct{}, 1),
		dead:       make(chan struct{}),
		ackCh:      make(chan struct{}),
		quiet:      make(chan struct{}, 1),
		count:      &c.count,
	}
	s.slots.limit = maxCallsInFlight
	if info.Dialled {
		s.maskOut = true
		if features&featureZeroMask == 0 {
			s.maskKey = newMaskKey()
		}
	} else {
		s.origin = originAcceptor
	}
	s.slots.released = s.noteQuiet
	_, isTCP := conn.(*net.TCPConn)
	s.refs = isTCP && s.maskKey == [4]byte{}
	if isTCP {
		s.direct = newDirectWriter(conn)
	}
	boundKernelQueue(conn)
	s.bulkCredit.Store(int64(peer.window))
	s.room.limit = int64(m.o.QueueLimit)
	s.bulkOwed.init(laneControl)
	s.bulkOwed.typ = frameSessionCredit
	s.in.init(s)
	return s
}

// run reads until the session ends, and returns when nothing of it is left
// but handlers that have not returned yet. It runs in a goroutine of the
// connection; the writer is the only other one.
func (s *session) run() error {
	var writer sync.WaitGroup
	writer.Go(s.writeLoop)
	s.keep.start(s)
	unwatch := context.AfterFunc(s.c.life, func() { s.fail(ErrClosed) })
	defer unwatch()
	err := s.readLoop()
	s.fail(err)
	s.keep.stop()
	s.teardown()
	writer.Wait()
	return s.cause
}

// fail ends the session with its cause; the first one counts.
func (s *session) fail(cause error) {
	s.failOnce.Do(func() {
		s.cause = cause
		close(s.dead)
		s.conn.Close()
		s.c.lost(s, cause)
	})
}

// noteQuiet lets a drain look again. It costs a load otherwise.
func (s *session) noteQuiet() {
	if s.refusing.Load() {
		signal(s.quiet)
	}
}

func (s *session) isDead() bool {
	select {
	case <-s.dead:
		return true
	default:
		return false
	}
}

// teardown ends every call of both ends. New calls see dead after they have
// taken a slot, so that none is forgotten.
func (s *session) teardown() {
	s.slots.each(func(sl *slot) {
		word := sl.word.Load()
		switch word & 0xff {
		case slotWaiting:
			if sl.word.CompareAndSwap(word, word&^0xff|slotDelivering) {
				sl.err = s.deathOf(sl)
				sl.deliver()
			}
		case slotStream:
			if p := sl.pipe.Load(); p != nil {
				p.abort(s.deathError("stream", p.handler, false))
			}
		}
	})
	s.inbound.each(func(ctx *callContext) {
		ctx.abandon()
		if ctx.pipe != nil {
			ctx.pipe.abort(s.cause)
		}
	})
	s.partials = nil
}

// deathOf is the error of a call that dies with its session.
func (s *session) deathOf(sl *slot) error {
	gone := s.goneAt.Load()
	state := sl.item.state.Load()
	unwritten := state == itemQueued || state == itemPartial // or not to its end: it can't have been executed
	refused := state == itemSent && gone != 0 && sl.seq >= gone
	return s.deathError("request", sl.out.handler, unwritten || refused)
}

func (s *session) deathError(op string, h HandlerID, notExecuted bool) error {
	return &Error{Op: op, Host: s.peer.name, Handler: h, Err: s.cause, notExecuted: notExecuted}
}

// lost makes the cause of a session's death from what happened to its socket.
func lost(what string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrDisconnected, what, err)
}

// errProtocol is the cause where the peer breaks the protocol.
var errProtocol = errors.New("protocol error")

func violation(format string, args ...any) error {
	return lost("read", fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, args...)))
}

// counters of a connection, over all its sessions.
type counters struct {
	bytesIn, bytesOut       atomic.Uint64
	messagesIn, messagesOut atomic.Uint64
	batchesIn, batchesOut   atomic.Uint64

	streamWaits, windowWaits, queueWaits atomic.Uint64 // see ConnectionStats
}
