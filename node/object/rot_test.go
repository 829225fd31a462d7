package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// flip flips one bit of a file, and returns how to flip it back.
func flip(t testing.TB, path string, at int64) (back func()) {
	t.Helper()
	do := func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		_, rerr := f.ReadAt(b[:], at)
		b[0] ^= 1 << (at % 8)
		_, werr := f.WriteAt(b[:], at)
		if err := errors.Join(rerr, werr, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	do()
	return do
}

// readVerified reads a range with verification.
func (n *testNode) readVerified(ctx context.Context, key string, off, length int64) ([]byte, error) {
	r, err := n.Open(ctx, "copies", key, Conditions{}, 0)
	if err != nil {
		return nil, err
	}
	r.Verify = true
	return receive(ctx, r, off, length)
}

// TestBitRot: with one bit flipped in one copy, whichever, a read that verifies
// gives the right bytes through every node, whole and in ranges around the bit;
// the copy is reported where it was met.
func TestBitRot(t *testing.T) {
	m, _, w := replicated(t, meshConfig{options: func(_ int, o *Options) { o.SegmentBytes = 2 << 20 }})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 7))
	for _, size := range []int{InlineMaxBytes + 1, GridMaxBytes, 5<<20 + 5} {
		key, data := fmt.Sprint(size), randomBytes(size)
		segments := putCopies(t, m, key, data)
		for _, seg := range segments {
			base := int64(slices.IndexFunc(segments, func(s control.Segment) bool { return s.ID == seg.ID })) * 2 << 20
			for i, drive := range seg.Drives {
				at := r.Int64N(seg.SizeBytes)
				if i == 2 { // its footer
					info, err := os.Stat(m.payloadFile(t, payloadRef{drive, seg.ID}))
					must(t, err)
					at = seg.SizeBytes + r.Int64N(info.Size()-seg.SizeBytes)
				}
				back := flip(t, m.payloadFile(t, payloadRef{drive, seg.ID}), at)
				for _, n := range m.nodes {
					m.neverHedge()
					got, err := n.readVerified(testContext(t), key, 0, -1)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s, %s of %s: %d bytes, %v", n.name, drive, key, len(got), err)
					}
					at := base + min(at, seg.SizeBytes-1)
					for _, rng := range [][2]int64{{at, 1}, {max(0, at-1000), min(2000, int64(size)-max(0, at-1000))}} {
						got, err := n.readVerified(testContext(t), key, rng[0], rng[1])
						if err != nil || !bytes.Equal(got, data[rng[0]:rng[0]+rng[1]]) {
							t.Errorf("%s, %s of %s, %d bytes at %d: %d, %v", n.name, drive, key, rng[1], rng[0], len(got), err)
						}
					}
				}
				_, bad := w.take()
				if len(bad) != 1 || bad[payloadRef{drive, seg.ID}] != badCorrupted {
					t.Errorf("%s of %s: reported %v", drive, key, bad)
				}
				back()
			}
		}
	}
}

// TestFooterRot: a flipped bit in whichever byte of a footer makes its copy a bad
// one, verified or not.
func TestFooterRot(t *testing.T) {
	m, _, w := replicated(t, meshConfig{})
	data := randomBytes(GridMaxBytes + 1)
	seg := putCopies(t, m, "k", data)[0]
	n := m.nodes[1]
	ref := payloadRef{n.drives[0].ID(), seg.ID}
	info, err := os.Stat(m.payloadFile(t, ref))
	must(t, err)
	for at := seg.SizeBytes; at < info.Size(); at++ {
		back := flip(t, m.payloadFile(t, ref), at)
		for _, verify := range []bool{false, true} {
			m.neverHedge()
			read := func() ([]byte, error) { return n.read(testContext(t), "copies", "k", -1, 0) }
			if verify {
				read = func() ([]byte, error) { return n.readVerified(testContext(t), "k", 0, -1) }
			}
			got, err := read()
			_, bad := w.take()
			if err != nil || !bytes.Equal(got, data) || bad[ref] != badCorrupted {
				t.Errorf("byte %d of %d, verify %v: %d bytes, %v, reported %v", at-seg.SizeBytes, info.Size()-seg.SizeBytes, verify, len(got), err, bad)
			}
		}
		back()
	}
}

// TestAllCopiesBad: where every copy is bad at a place, a read that verifies
// gives what comes before it and then fails as corrupted; never a bad byte, and
// never a short success. What is bad from the beginning has not one byte sent.
func TestAllCopiesBad(t *testing.T) {
	m, _, w := replicated(t, meshConfig{options: func(_ int, o *Options) { o.SegmentBytes = 2 << 20 }})
	for _, c := range []struct{ size, at, good int64 }{
		{GridMaxBytes, 100, 0},
		{GridMaxBytes + 1, 100, 0},
		{4 << 20, 1<<20 - 1, 0},         // the first MiB
		{4 << 20, 1 << 20, 1 << 20},     // the last of the first segment
		{4 << 20, 2 << 20, 2 << 20},     // the first of the second
		{4 << 20, 4<<20 - 1, 3 << 20},   // the last of all
		{4<<20 + 5, 4<<20 + 4, 4 << 20}, // a small last one, over the grid
	} {
		key, data := fmt.Sprint(c), randomBytes(int(c.size))
		segments := putCopies(t, m, key, data)
		seg := segments[c.at/(2<<20)]
		for i, drive := range seg.Drives {
			// Not the same byte in each.
			flip(t, m.payloadFile(t, payloadRef{drive, seg.ID}), max(c.good, c.at-int64(i))%(2<<20))
		}
		m.neverHedge()
		for _, n := range m.nodes {
			got, err := n.readVerified(testContext(t), key, 0, -1)
			if fault.KindOf(err) != fault.Corrupted || int64(len(got)) != c.good || !bytes.Equal(got, data[:len(got)]) {
				t.Errorf("%s, %+v: %d bytes, %v", n.name, c, len(got), err)
			}
			// What isn't touched by it can be read.
			if off := c.at + 1<<20; off < c.size {
				got, err := n.readVerified(testContext(t), key, off, -1)
				if err != nil || !bytes.Equal(got, data[off:]) {
					t.Errorf("%s, %+v, behind it: %d bytes, %v", n.name, c, len(got), err)
				}
			}
		}
		if _, bad := w.take(); len(bad) != 3 {
			t.Errorf("%+v: reported %v", c, bad)
		}
	}
}

// TestDamagedCopies: a copy that is gone, cut short or another payload's is
// passed by, verified or not, and reported for what it is.
func TestDamagedCopies(t *testing.T) {
	m, _, w := replicated(t, meshConfig{})
	for name, c := range map[string]struct {
		damage func(path string) error
		why    string
	}{
		"gone":      {os.Remove, badMissing},
		"truncated": {func(path string) error { return os.Truncate(path, 1000) }, badCorrupted},
		"empty":     {func(path string) error { return os.Truncate(path, 0) }, badCorrupted},
	} {
		for _, size := range []int{GridMaxBytes, GridMaxBytes + 100} {
			for i := range 3 {
				key, data := fmt.Sprint(name, size, i), randomBytes(size)
				seg := putCopies(t, m, key, data)[0]
				w.take()
				ref := payloadRef{seg.Drives[i], seg.ID}
				must(t, c.damage(m.payloadFile(t, ref)))
				for _, n := range m.nodes {
					m.neverHedge()
					if got := n.get(t, "copies", key, -1, 0); !bytes.Equal(got, data) {
						t.Errorf("%s: other bytes of %s", n.name, key)
					}
					if got, err := n.readVerified(testContext(t), key, 0, -1); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s: %s: %v", n.name, key, err)
					}
				}
				failovers, bad := w.take()
				if failovers["corrupted"] == 0 || len(bad) != 1 || bad[ref] != c.why {
					t.Errorf("%s: failovers %v, reported %v, want %s", key, failovers, bad, c.why)
				}
			}
		}
	}
}

// TestTruncatedWhileOpen: a file that is open for its next reader, who has no
// reason to look at it again yet, is passed by likewise, and where every copy is
// cut short so is the answer: corrupted, and not that it may be tried again.
func TestTruncatedWhileOpen(t *testing.T) {
	m, _, w := replicated(t, meshConfig{})
	for _, size := range []int{GridMaxBytes, GridMaxBytes + 100, 1 << 20} {
		for i := range 3 {
			for _, left := range []int64{0, 1000} {
				key, data := fmt.Sprint(size, i, left), randomBytes(size)
				seg := putCopies(t, m, key, data)[0]
				w.take()
				m.neverHedge()
				reader := m.nodes[i]
				for _, n := range m.nodes {
					_ = n.get(t, "copies", key, -1, 0)
				}
				own := payloadRef{seg.Drives[i], seg.ID}
				must(t, os.Truncate(m.payloadFile(t, own), left))
				if got := reader.get(t, "copies", key, -1, 0); !bytes.Equal(got, data) {
					t.Errorf("%s: %d other bytes", key, len(got))
				}
				if _, bad := w.take(); len(bad) > 1 || len(bad) == 1 && bad[own] != badCorrupted {
					t.Errorf("%s: reported %v", key, bad)
				}
				for _, drive := range seg.Drives {
					must(t, os.Truncate(m.payloadFile(t, payloadRef{drive, seg.ID}), left))
				}
				if got, err := reader.read(testContext(t), "copies", key, -1, 0); fault.KindOf(err) != fault.Corrupted {
					t.Errorf("%s, all %d bytes long: %d bytes, %v", key, left, len(got), err)
				}
			}
		}
	}
}

// TestTruncatedInTheMiddle: a file that is cut short while it is being sent is
// passed by at the exact byte, though nobody has read it since it was opened.
func TestTruncatedInTheMiddle(t *testing.T) {
	m, _, w := replicated(t, meshConfig{options: func(_ int, o *Options) { o.SegmentBytes = 0 }})
	const size = 24 << 20
	data := randomBytes(size)
	for _, n := range m.nodes[:2] {
		seg := putCopies(t, m, n.name, data)[0]
		m.neverHedge()
		first := n.replicasOf(part{&seg, 0, size}, false).all[0].drive
		w.take()
		var once sync.Once
		got, err := sendTo(t, n, n.name, size, false, func(int64) {
			once.Do(func() {
				if err := os.Truncate(m.payloadFile(t, payloadRef{first, seg.ID}), 1<<20); err != nil {
					t.Error(err)
				}
			})
		})
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d of %d bytes, %v", n.name, len(got), size, err)
		}
		failovers, bad := w.take()
		if len(failovers) == 0 || bad[payloadRef{first, seg.ID}] != badCorrupted {
			t.Errorf("%s: failovers %v, reported %v", n.name, failovers, bad)
		}
	}
}

// TestAnotherPayload: a file with a valid footer that isn't what the record says
// is bad, though nothing in it is damaged.
func TestAnotherPayload(t *testing.T) {
	m, _, w := replicated(t, meshConfig{})
	ctx := testContext(t)
	for _, size := range []int{GridMaxBytes, testSegment} {
		key, data := fmt.Sprint(size), randomBytes(size)
		seg := putCopies(t, m, key, data)[0]
		other := bytes.Clone(data)
		other[size/2] ^= 1
		for _, wrong := range [][]byte{other, data[:size-1]} {
			owner := m.nodes[1]
			ref := payloadRef{owner.drives[0].ID(), seg.ID}
			must(t, owner.drives[0].Remove(ctx, seg.ID))
			_, err := owner.writeOwn(ctx, owner.drives[0], seg.ID, wrong)
			must(t, err)
			w.take()
			for _, n := range m.nodes {
				m.neverHedge()
				for _, length := range []int64{10, int64(size)} {
					if got := n.get(t, "copies", key, 0, length); !bytes.Equal(got, data[:length]) {
						t.Errorf("%s: other bytes of %s", n.name, key)
					}
				}
			}
			why := badCorrupted
			if len(wrong) < size {
				why = badSize
			}
			if _, bad := w.take(); len(bad) != 1 || bad[ref] != why {
				t.Errorf("%s: reported %v, want %s", key, bad, why)
			}
		}
	}
}

// TestInlineDamaged: a record whose bytes aren't those of its checksum.
func TestInlineDamaged(t *testing.T) {
	m := onlyOn(t, 1, meshConfig{})
	m.bucket("copies")
	m.nodes[0].put(t, "copies", "k", []byte("hello"), true)
	if got, err := m.nodes[0].readVerified(testContext(t), "k", 0, -1); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	r, err := m.nodes[0].Open(testContext(t), "copies", "k", Conditions{}, 0)
	must(t, err)
	r.Verify = true
	r.record.Inline[0] ^= 1
	var buf bytes.Buffer
	if _, err := r.Send(testContext(t), &buf, 0, -1, dataio.Windows{}); fault.KindOf(err) != fault.Corrupted || buf.Len() > 0 {
		t.Errorf("%d bytes, %v", buf.Len(), err)
	}
}
