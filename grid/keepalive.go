package grid

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// keepalive watches a session from a timer, without a goroutine and without a
// clock on the paths it watches: reads and writes leave marks, the timer sees
// whether they have moved.
type keepalive struct {
	life atomic.Uint64 // counts reads

	mu      sync.Mutex
	s       *session
	timer   *time.Timer
	stopped bool
	every   time.Duration
	lives   uint64 // life when last looked at
	silent  time.Duration
	asked   bool // a ping is out for this silence
	write   uint64
	stuck   time.Duration
	realm   string // last told to the peer on this session; "" after the handshake
	epoch   time.Time
}

func (k *keepalive) start(s *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.s, k.epoch = s, time.Now()
	k.every = max(min(s.m.o.PingInterval/2, s.m.o.DeadAfter/4, s.m.o.WriteTimeout/2), time.Millisecond)
	k.timer = time.AfterFunc(k.every, k.tick)
	k.ping() // the first round trip time
}

func (k *keepalive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	if k.timer != nil {
		k.timer.Stop()
	}
}

func (k *keepalive) tick() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	k.watchReads()
	k.watchWrites()
	k.watchRealm()
	k.timer.Reset(k.every)
}

func (k *keepalive) watchReads() {
	o := &k.s.m.o
	if lives := k.life.Load(); lives != k.lives {
		k.lives, k.silent, k.asked = lives, 0, false
		return
	}
	k.silent += k.every
	switch {
	case k.silent >= o.DeadAfter:
		k.s.fail(fmt.Errorf("%w: silent for %v", ErrDisconnected, k.silent))
	case k.silent >= o.PingInterval && !k.asked:
		k.asked = true
		k.ping()
	}
}

// watchWrites ends the session when one write has hung for too long.
func (k *keepalive) watchWrites() {
	mark := k.s.writeMark.Load()
	if mark&1 == 0 || mark != k.write {
		k.write, k.stuck = mark, 0
		return
	}
	if k.stuck += k.every; k.stuck >= k.s.m.o.WriteTimeout {
		k.s.fail(fmt.Errorf("%w: a write has made no progress for %v", ErrDisconnected, k.stuck))
	}
}

// watchRealm tells the peer when our realm has been agreed or has changed.
func (k *keepalive) watchRealm() {
	if realm := k.s.m.realm(); realm != k.realm {
		k.realm = realm
		k.s.push(&newControl(frameRealm, 0, []byte(realm)).item)
		k.s.kickWriter()
	}
}

// ping asks for a sign of life. It must not run into the socket from the
// timer: the writer goroutine sends it.
func (k *keepalive) ping() {
	body := binary.LittleEndian.AppendUint64(nil, uint64(time.Since(k.epoch)))
	k.s.push(&newControl(framePing, 0, body).item)
	k.s.kickWriter()
}

func (k *keepalive) pong(body []byte) {
	if len(body) != 8 {
		return
	}
	rtt := time.Since(k.epoch) - time.Duration(binary.LittleEndian.Uint64(body))
	if rtt >= 0 {
		k.s.c.rtt.Store(int64(rtt))
	}
}

// onRealm is the peer's realm, told on a live session.
func (s *session) onRealm(theirs string) error {
	if err := s.m.checkRealm(theirs); err != nil {
		return lost("realm", err)
	}
	return nil
}
