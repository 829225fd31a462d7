package iam

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stream is something open.
type stream struct {
	mu     sync.Mutex
	ended  []error
	looked int
	stop   func()
}

// open follows p for as long as it may do a.
func (w *world) open(p Principal, a Action, bucket, key string) *stream {
	s := new(stream)
	s.stop = w.gate.Follow(p, func(now Principal) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.looked++
		return Authorize(now, a, bucket, key)
	}, func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = append(s.ended, err)
	})
	return s
}

// end gives why the stream has ended; nil: it hasn't.
func (s *stream) end(t *testing.T) error {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ended) > 1 {
		t.Errorf("cancelled %d times", len(s.ended))
	}
	if len(s.ended) == 0 {
		return nil
	}
	return s.ended[0]
}

// waysIn are bob's, who has a stream through each.
func (w *world) waysIn(t *testing.T) map[string]Principal {
	t.Helper()
	cert, err := w.gate.Verify(Request{Certificate: []string{"bob.example"}, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	link, err := w.use("GET", w.signed(t, w.keys["bob"], LinkRequest{Method: "GET", Bucket: "photos", Key: "2026/a"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Principal{
		ViaKey: w.mustBearer(t, w.keys["bob"].String()), ViaToken: w.mustBearer(t, w.token(t, w.keys["bob"])),
		ViaCertificate: cert, ViaLink: link,
	}
}

func TestFollow(t *testing.T) {
	all := []string{ViaKey, ViaToken, ViaCertificate, ViaLink}
	byKey := []string{ViaKey, ViaToken, ViaLink}
	for name, tc := range map[string]struct {
		change func(w *world)
		ends   []string
		kind   error
	}{
		"nothing":       {change: func(*world) {}},
		"other user":    {change: func(w *world) { w.user("alice").Disabled = true }},
		"more rights":   {change: func(w *world) { w.user("bob").Grants = grants("admin:*") }},
		"time passes":   {change: func(w *world) { w.now = w.now.Add(24 * time.Hour) }},
		"longer":        {change: func(w *world) { w.key("bob").Expires = w.now.Add(time.Hour).UnixNano() }},
		"rights gone":   {func(w *world) { w.user("bob").Grants = nil }, all, ErrPermissionDenied},
		"other rights":  {func(w *world) { w.user("bob").Grants = grants("readonly:photos/2025/") }, all, ErrPermissionDenied},
		"user disabled": {func(w *world) { w.user("bob").Disabled = true }, all, ErrUnauthenticated},
		"user gone":     {func(w *world) { w.rows.Users = w.rows.Users[:1] }, all, ErrUnauthenticated},
		"key disabled":  {func(w *world) { w.key("bob").Disabled = true }, byKey, ErrUnauthenticated},
		"key gone":      {func(w *world) { w.rows.Keys = nil }, byKey, ErrUnauthenticated},
		"key ended":     {func(w *world) { w.key("bob").Expires = w.now.UnixNano() }, byKey, ErrUnauthenticated},
		"key replaced":  {func(w *world) { w.key("bob").Sealed = w.master.SealKey(Generate("bob"), "bob") }, byKey, ErrUnauthenticated},
		"key's user":    {func(w *world) { w.key("bob").User = "alice" }, byKey, ErrUnauthenticated},
		"name gone":     {func(w *world) { w.user("bob").Certificates = nil }, []string{ViaCertificate}, ErrUnauthenticated},
		"name moved": {func(w *world) {
			w.user("bob").Certificates, w.user("alice").Certificates = nil, []string{"bob.example"}
		}, []string{ViaCertificate}, ErrUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			streams, late := map[string]*stream{}, map[string]*stream{}
			ways := w.waysIn(t)
			for via, p := range ways {
				streams[via] = w.open(p, ObjectRead, "photos", "2026/a")
			}
			tc.change(w)
			w.publish(t)
			for via, p := range ways { // let in before the change, and open after it
				late[via] = w.open(p, ObjectRead, "photos", "2026/a")
			}
			open := 0
			for _, via := range all {
				want := error(nil)
				for _, ended := range tc.ends {
					if ended == via {
						want = tc.kind
					}
				}
				if want == nil {
					open += 2
				}
				still := w.gate.Still(ways[via], func(now Principal) error { return Authorize(now, ObjectRead, "photos", "2026/a") })
				if !errors.Is(still, want) || (still == nil) != (want == nil) {
					t.Errorf("%s, looked at once: %v, want %v", via, still, want)
				}
				for when, s := range map[string]*stream{"open": streams[via], "late": late[via]} {
					if err := s.end(t); !errors.Is(err, want) || (err == nil) != (want == nil) {
						t.Errorf("%s, %s: %v, want %v", via, when, err, want)
					}
				}
			}
			if n := w.gate.Following(); n != open {
				t.Errorf("%d are followed, want %d", n, open)
			}
			for _, s := range streams {
				s.stop()
				s.stop()
			}
			for _, s := range late {
				s.stop()
			}
			if n := w.gate.Following(); n != 0 {
				t.Errorf("%d are followed once all have stopped", n)
			}
		})
	}
}

// TestFollowExpiry: what has begun goes on when its time is up, and changes that
// don't concern it are no reason to end it then.
func TestFollowExpiry(t *testing.T) {
	w := newWorld(t)
	w.key("bob").Expires = w.now.Add(time.Hour).UnixNano()
	w.publish(t)
	streams := map[string]*stream{}
	for via, p := range w.waysIn(t) {
		streams[via] = w.open(p, ObjectRead, "photos", "2026/a")
	}
	for range 2 {
		w.now = w.now.Add(2 * time.Hour)
		w.publish(t)
		w.gate.Recheck()
	}
	for via, s := range streams {
		if err := s.end(t); err != nil || s.looked == 0 {
			t.Errorf("%s: %v, looked at %d times", via, err, s.looked)
		}
	}
}

// TestFollowStopped: who is being looked at while it stops isn't ended any more,
// nor twice.
func TestFollowStopped(t *testing.T) {
	w := newWorld(t)
	p := w.mustBearer(t, w.keys["bob"].String())
	stopped, ended := w.open(p, ObjectRead, "photos", "2026/a"), w.open(p, ObjectRead, "photos", "2026/a")
	var both []*follower
	for f := range w.gate.followers {
		both = append(both, f)
	}
	stopped.stop()
	for range 2 {
		for _, f := range both {
			w.gate.look(f, ErrStale)
		}
	}
	if err := stopped.end(t); err != nil {
		t.Error(err)
	}
	if err := ended.end(t); !errors.Is(err, ErrStale) {
		t.Error(err)
	}
}

// TestFollowStopWaits: once stop has returned, nothing of it is ended any more.
func TestFollowStopWaits(t *testing.T) {
	w := newWorld(t)
	p := w.mustBearer(t, w.keys["bob"].String())
	ending, goOn, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var canceled atomic.Bool
	stop := w.gate.Follow(p, func(Principal) error { return nil }, func(error) {
		close(ending)
		<-goOn
		canceled.Store(true)
	})
	w.age = MaxAge + 1
	var wg sync.WaitGroup
	wg.Go(w.gate.Recheck)
	<-ending
	wg.Go(func() {
		stop()
		close(stopped)
	})
	for range 1000 { // where it doesn't wait, it is done by now
		runtime.Gosched()
	}
	select {
	case <-stopped:
		t.Error("stop hasn't waited")
	default:
	}
	close(goOn)
	<-stopped
	if !canceled.Load() {
		t.Error("it was ended after stop")
	}
	wg.Wait()
}

// TestFollowRoot: the streams of a root key end with it, and not with another's.
func TestFollowRoot(t *testing.T) {
	w := newWorld(t)
	next := Generate(RootID)
	if err := w.gate.SetRoots(w.root, next); err != nil {
		t.Fatal(err)
	}
	old, token := w.mustBearer(t, w.root.String()), w.mustBearer(t, w.token(t, w.root))
	streams := []*stream{w.open(old, ClusterRead, "", ""), w.open(token, ClusterRead, "", ""),
		w.open(w.mustBearer(t, next.String()), ClusterRead, "", "")}
	if err := w.gate.SetRoots(next, w.root); err != nil {
		t.Fatal(err)
	}
	w.publish(t)
	w.age = MaxAge + 1
	w.gate.Recheck()
	for i, s := range streams {
		if err := s.end(t); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := w.gate.SetRoots(next); err != nil {
		t.Fatal(err)
	}
	for i, s := range streams {
		if err := s.end(t); (i < 2) != errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestFollowStale: what is open ends when a revocation might not be heard of.
func TestFollowStale(t *testing.T) {
	w := newWorld(t)
	streams := map[string]*stream{}
	for via, p := range w.waysIn(t) {
		streams[via] = w.open(p, ObjectRead, "photos", "2026/a")
	}
	w.age = MaxAge
	w.gate.Recheck()
	for via, s := range streams {
		if err := s.end(t); err != nil {
			t.Errorf("%s: %v", via, err)
		}
	}
	w.age = MaxAge + 1
	w.gate.Recheck()
	w.gate.Recheck()
	for via, s := range streams {
		if err := s.end(t); !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v", via, err)
		}
	}
}

// TestFollowByHand: a principal that no gate made has nothing to follow.
func TestFollowByHand(t *testing.T) {
	w := newWorld(t)
	w.open(Principal{ID: RootID, Root: true}, ClusterRead, "", "").stop()
	if n := w.gate.Following(); n != 0 {
		t.Error(n)
	}
}

// TestFollowAtOnce has streams come and go while the rows change, for the race
// detector, and a revocation at the end that reaches all of them.
func TestFollowAtOnce(t *testing.T) {
	w := newWorld(t)
	bob := w.keys["bob"]
	var wg sync.WaitGroup
	streams := make(chan *stream, 1000)
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				p, err := w.gate.Verify(Request{Authorization: "Bearer " + bob.String(), Now: time.Unix(1_800_000_000, 0)})
				if err != nil {
					panic(fmt.Sprint("bob is refused: ", err))
				}
				if s := w.open(p, ObjectRead, "photos", "2026/a"); i%2 == 0 {
					s.stop()
				} else {
					streams <- s
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			w.user("alice").Disabled = !w.user("alice").Disabled
			w.publish(t)
			w.gate.Recheck()
			w.gate.Used()
		}
	})
	wg.Wait()
	w.user("bob").Disabled = true
	w.publish(t)
	close(streams)
	n := 0
	for s := range streams {
		if err := s.end(t); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("still open: %v", err)
		}
		n++
	}
	if n != 400 || w.gate.Following() != 0 {
		t.Errorf("%d streams, %d followed", n, w.gate.Following())
	}
}
