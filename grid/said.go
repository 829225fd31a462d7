package grid

import (
	"strings"
	"sync"
	"time"
)

const (
	// maxSaid is of how many peers is known what the log says of them, and
	// saidAgain when room is made for more: whoever comes under many names gets
	// as many lines in that time, and no more.
	maxSaid   = 256
	saidAgain = time.Minute
)

// said is the last reason that the log gives for the lack of a connection, by
// peer. What is tried several times a second is said once, until the reason
// changes or the connection is made.
type said struct {
	mu    sync.Mutex // guards what follows
	by    map[string]string
	since time.Time // that by has its first
}

// first tells whether a reason is another than the one said last of a peer.
// Numbers don't count: they are ports, attempts and times.
func (s *said) first(peer string, err error) bool {
	reason := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, err.Error())
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.by[peer]
	switch {
	case known && before == reason:
		return false
	case !known && len(s.by) >= maxSaid:
		if time.Since(s.since) < saidAgain {
			return false
		}
		s.by = nil
	}
	if len(s.by) == 0 {
		s.by, s.since = map[string]string{}, time.Now()
	}
	s.by[peer] = reason
	return true
}

// forget is for a peer whose connection is made.
func (s *said) forget(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, peer)
}
