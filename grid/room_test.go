package grid

import (
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func (w *roomWaiter) has() bool {
	select {
	case <-w.granted:
		return true
	default:
		return false
	}
}

// TestRoomIsServedInLine runs random operations against a model: the line is
// served from its head, nobody overtakes it, no room is lost, and the head
// never waits while it fits.
func TestRoomIsServedInLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 100
		r := queueRoom{limit: limit}
		var held []int64       // what was taken and not released
		var line []*roomWaiter // the model's line
		size := rapid.OneOf(rapid.Int64Range(1, limit/3), rapid.Int64Range(1, 2*limit))
		fits := func(used, n int64) bool { return used == 0 || used+n <= limit }
		sum := func() (n int64) {
			for _, h := range held {
				n += h
			}
			return n
		}
		// settle moves the head of the model's line on as far as it goes.
		settle := func() {
			for len(line) > 0 && fits(sum(), line[0].n) {
				if !line[0].has() {
					t.Fatalf("the head waits for %d, used are %d", line[0].n, sum())
				}
				held, line = append(held, line[0].n), line[1:]
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n := size.Draw(t, "n")
				want := len(line) == 0 && fits(sum(), n)
				if got := r.tryTake(n); got != want {
					t.Fatalf("taking %d beside %d with %d in line: %v", n, sum(), len(line), got)
				} else if got {
					held = append(held, n)
				}
			},
			"enter": func(t *rapid.T) {
				line = append(line, r.enter(size.Draw(t, "n")))
				settle()
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				n := held[i]
				held = append(held[:i], held[i+1:]...)
				r.release(n)
				settle()
			},
			"give up in line": func(t *rapid.T) {
				if len(line) == 0 {
					t.Skip("nobody waits")
				}
				i := rapid.IntRange(0, len(line)-1).Draw(t, "which")
				w := line[i]
				line = append(line[:i:i], line[i+1:]...)
				r.giveUp(w)
				settle()
			},
			"give up what is granted": func(t *rapid.T) {
				w := r.enter(size.Draw(t, "n"))
				line = append(line, w)
				settle()
				if !w.has() {
					t.Skip("it was not granted")
				}
				held = held[:len(held)-1]
				r.giveUp(w)
				settle()
			},
			"": func(t *rapid.T) {
				if got := r.used.Load(); got != sum() {
					t.Fatalf("%d bytes are used, %d are held", got, sum())
				}
				if got := int(r.waiting.Load()); got != len(line) || got != r.line.Len() {
					t.Fatalf("%d wait, %d are in line, not %d", got, r.line.Len(), len(line))
				}
				for _, w := range line {
					if w.has() {
						t.Fatal("somebody in the line was served before its head")
					}
				}
			},
		})
	})
}

// TestRoomLosesNothing has many goroutines take, wait, give up and release at
// once: whoever waits for good gets its turn, and nothing stays behind.
func TestRoomLosesNothing(t *testing.T) {
	r := queueRoom{limit: 1000}
	var wg sync.WaitGroup
	for g := range int64(16) {
		wg.Go(func() {
			for i := range int64(2000) {
				n := 1 + (g*131+i*37)%700
				if r.tryTake(n) {
					r.release(n)
					continue
				}
				w := r.enter(n)
				if (g+i)%3 == 0 {
					r.giveUp(w)
					continue
				}
				<-w.granted
				yield()
				r.release(n)
			}
		})
	}
	wg.Wait()
	if r.used.Load() != 0 || r.waiting.Load() != 0 {
		t.Errorf("%d bytes and %d waiters are left", r.used.Load(), r.waiting.Load())
	}
}
