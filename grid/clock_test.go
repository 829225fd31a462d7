package grid

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

// TestClockIsReadOncePerBatch pins what deadlines mean on the wire: what
// remains when the batch leaves, from when it arrives, be it now or after an
// hour in a queue.
func TestClockIsReadOncePerBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deadline := time.Now().Add(time.Minute)
		var b batch
		encode := func() time.Duration {
			m := outMessage{typ: frameRequest, deadline: deadline, payload: []byte("x")}
			at := len(b.buf)
			b.appendMessage(&m, chunkLen)
			return time.Duration(binary.LittleEndian.Uint64(b.buf[at+headerLen:])) * time.Microsecond
		}
		for _, want := range []time.Duration{time.Minute, 59 * time.Second, 58 * time.Second} {
			b.reset()
			if first, second := encode(), encode(); first != want || second != want {
				t.Errorf("%v and %v remain, not %v", first, second, want)
			}
			time.Sleep(time.Second) // of the bubble's time
		}
		time.Sleep(time.Hour)
		b.reset()
		if left := encode(); left != time.Microsecond {
			t.Errorf("%v remain of a deadline that has passed", left)
		}

		var s session
		start := time.Now()
		first := s.deadlineIn(uint64(time.Minute.Microseconds()))
		time.Sleep(time.Second)
		if second := s.deadlineIn(uint64(time.Minute.Microseconds())); !first.Equal(start.Add(time.Minute)) || !second.Equal(first) {
			t.Errorf("deadlines are %v and %v after the batch", first.Sub(start), second.Sub(start))
		}
		s.count = new(counters)
		if err := s.readBatch(nil); err != nil {
			t.Fatal(err)
		}
		if next := s.deadlineIn(uint64(time.Minute.Microseconds())); !next.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("the next batch's deadline is off by %v", time.Until(next)-time.Minute)
		}
		if !s.deadlineIn(0).IsZero() {
			t.Error("a deadline for a call without one")
		}
	})
}
