package control

import (
	"context"
	"sync"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

const (
	// linkBytes bounds what waits for one node; raft does without the rest.
	linkBytes = 16 << 20
	// linkBatch bounds a message of the stream that is put together of several,
	// for the sake of those without entries: what is larger goes as it is.
	linkBatch = 1 << 10
	// linkTimeout bounds the sending of one, and the opening of the stream.
	linkTimeout = 2 * time.Second
	// linkPause is between two tries to open a stream.
	linkPause = 20 * time.Millisecond
	// raftWindow is how many messages of raft's may be on their way to a node.
	raftWindow = 256
)

// links are the ways of raft's messages to other nodes: a stream of the grid's
// control class to each, and a goroutine that sends what has gathered.
type links struct {
	c *Control

	mu     sync.Mutex // guards what follows
	byID   map[uint64]*link
	closed bool
}

// link is the way to one node. Batches that don't fit are dropped, and so are
// those that wait while there is no connection.
type link struct {
	id   uint64
	wake chan struct{} // has room for one: there is something to send

	mu    sync.Mutex // guards what follows
	queue [][]byte
	bytes int
}

func (l *links) open(c *Control) { l.c, l.byID = c, map[uint64]*link{} }

// send passes a batch on to a node. It never blocks.
func (l *links) send(to uint64, batch []byte) {
	if way := l.to(to); way != nil {
		way.put(batch)
	}
}

// to gives the way to a node, nil once the links are closed.
func (l *links) to(id uint64) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	way := l.byID[id]
	if way == nil && !l.closed {
		way = &link{id: id, wake: make(chan struct{}, 1)}
		l.byID[id] = way
		l.c.joined.Go(func() { l.run(way) })
	}
	return way
}

// close keeps new links from being made. Those there are end with the node.
func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (w *link) put(batch []byte) {
	w.mu.Lock()
	if w.bytes+len(batch) <= linkBytes {
		w.queue = append(w.queue, batch)
		w.bytes += len(batch)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take gives what waits, as few messages as may be.
func (w *link) take() [][]byte {
	w.mu.Lock()
	queue := w.queue
	w.queue, w.bytes = nil, 0
	w.mu.Unlock()
	out := queue[:0]
	for _, b := range queue {
		if n := len(out); n > 0 && len(out[n-1])+len(b) <= linkBatch {
			out[n-1] = append(out[n-1], b...)
			continue
		}
		out = append(out, b)
	}
	return out
}

// run sends what is put.
func (l *links) run(w *link) {
	var pipe *grid.Pipe
	drop := func() {
		if pipe != nil {
			pipe.Cancel()
			pipe = nil
		}
	}
	defer drop()
	for {
		select {
		case <-w.wake:
		case <-l.c.ctx.Done():
			return
		}
		for _, batch := range w.take() {
			// A stream may have ended since it was last used, with the other
			// node's restart: what it doesn't take goes by a new one. Raft sends
			// a vote once.
			if pipe != nil && l.deliver(pipe, batch) != nil {
				drop()
			} else if pipe != nil {
				continue
			}
			var err error
			if pipe, err = l.dial(w.id); err == nil {
				err = l.deliver(pipe, batch)
			}
			if err != nil {
				drop()
				l.c.engine.Load().Unreachable(w.id)
				if !l.c.rest(linkPause, nil) {
					return
				}
				break
			}
		}
	}
}

// dial opens a stream to a node.
func (l *links) dial(id uint64) (*grid.Pipe, error) {
	name := l.c.nameOf(id)
	if name == "" {
		return nil, fault.New(fault.NotFound, "node", "none has the raft id %x", id)
	}
	hello, err := (&opening{From: l.c.raftID, To: id}).MarshalMsg(nil)
	if err != nil {
		return nil, err
	}
	conn := l.c.conn(name)
	if conn.State() != grid.StateConnected {
		return nil, grid.ErrDisconnected
	}
	return conn.OpenPipe(l.c.ctx, raftID, hello)
}

func (l *links) deliver(pipe *grid.Pipe, batch []byte) error {
	ctx, cancel := context.WithTimeout(l.c.ctx, linkTimeout)
	defer cancel()
	return pipe.SendOwned(ctx, batch)
}

// raftHandler takes in the other nodes' messages.
func (c *Control) raftHandler() grid.Handler {
	return grid.Handler{
		ID: raftID, Name: "control.raft", Class: grid.ClassControl,
		Stream: &grid.StreamHandler{Pull: c.receiveRaft, InCapacity: raftWindow, OutCapacity: 1},
	}
}

// receiveRaft delivers what a node sends, until either ends.
func (c *Control) receiveRaft(ctx context.Context, payload []byte, p *grid.Pipe) error {
	if err := c.enter(); err != nil {
		return ToWire(err)
	}
	c.leave() // the stream is no call that Close waits for: it ends it
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	var hello opening
	if _, err := hello.UnmarshalMsg(payload); err != nil {
		return ToWire(fault.Wrap(fault.InvalidArgument, "stream", err))
	}
	engine := c.engine.Load()
	if engine == nil {
		return ToWire(fault.New(fault.Waiting, nodeSubject(c.self), "has no part in the mesh yet"))
	}
	if hello.To != c.raftID {
		return ToWire(fault.New(fault.WrongMesh, nodeSubject(c.self), "isn't the one that had the raft id %x", hello.To))
	}
	// A node that is only about to join knows the raft ids that it was told of.
	name := c.nameOf(hello.From)
	if name == "" && c.vouched.Load() != nil && c.Topology().Epoch == 0 {
		return ToWire(fault.New(fault.Waiting, nodeSubject(c.self), "knows none with the raft id %x yet", hello.From))
	}
	if name != "" && !c.isAt(name, grid.PeerFrom(ctx)) {
		return ToWire(fault.New(fault.PermissionDenied, nodeSubject(name), "isn't the one at %s", grid.PeerFrom(ctx)))
	}
	for {
		batch, err := p.Recv(ctx)
		if err != nil {
			return nil // the stream has ended
		}
		if err := engine.Deliver(hello.From, batch); err != nil {
			c.log.Warn("malformed messages of raft were refused", "from", c.nameOf(hello.From), "error", err)
			return ToWire(fault.Wrap(fault.InvalidArgument, "batch", err))
		}
	}
}
