package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// model is what a drive should hold, beside the drive.
type model struct {
	t       *testing.T
	options dataio.Options
	faults  *datatest.Faults
	noise   []byte // content to write
	drive   *dataio.Drive

	payloads map[dataio.ID][]byte
	writers  map[dataio.ID]*modelWriter
	removed  []dataio.ID
	suspect  bool
}

// modelWriter is a payload being written.
type modelWriter struct {
	*dataio.Writer
	announced int64
	content   []byte
	ended     bool // by an error
}

// TestRandomOperations runs random sequences of everything a drive can do, on a
// disk that fails now and then, beside a map that can't fail. Payloads stay as
// they were committed, whatever happens to others, across Close and Open; what
// wasn't committed is never seen; and nothing else is left on the disk.
func TestRandomOperations(t *testing.T) {
	noise := random(3<<20, 8)
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "drive")
		if err != nil {
			rt.Fatal(err)
		}
		m := &model{
			t: t, options: options(), faults: new(datatest.Faults), noise: noise,
			payloads: map[dataio.ID][]byte{}, writers: map[dataio.ID]*modelWriter{},
		}
		m.options.Interceptor = m.faults
		m.clear()
		if m.drive, err = dataio.Open(t.Context(), dir, m.options); err != nil {
			rt.Fatal(err)
		}
		defer func() { m.drive.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"create":  m.create,
			"write":   m.write,
			"write2":  m.write,
			"commit":  m.commit,
			"abort":   m.abort,
			"read":    m.read,
			"remove":  m.remove,
			"replace": m.replace,
			"missing": m.missing,
			"reopen":  m.reopen,
			"fault":   m.fault,
		})
	})
}

// clear removes the faults but one: syncs are acknowledged at once, as this
// test's subject isn't the disk's speed.
func (m *model) clear() {
	m.faults.Clear()
	m.faults.Add(datatest.Fault{Op: dataio.OpSyncDir, Times: -1})
}

// fault has one of the next operations fail.
func (m *model) fault(rt *rapid.T) {
	m.faults.Clear()
	m.faults.Add(datatest.Fault{
		Op:   rapid.SampledFrom([]dataio.OpKind{dataio.OpCreate, dataio.OpAllocate, dataio.OpWrite, dataio.OpSync}).Draw(rt, "op"),
		Skip: rapid.IntRange(0, 2).Draw(rt, "skip"),
		Err:  rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC}).Draw(rt, "error"),
		Done: rapid.Bool().Draw(rt, "done"),
	})
	m.faults.Add(datatest.Fault{Op: dataio.OpSyncDir, Times: -1})
}

// failed checks that an operation had a reason to fail, and learns from it.
func (m *model) failed(rt *rapid.T, err error) {
	switch {
	case errors.Is(err, dataio.ErrSuspect):
		m.suspect = true
	case errors.Is(err, dataio.ErrNoSpace), errors.Is(err, syscall.EIO):
	default:
		rt.Fatalf("failed for no reason: %v", err)
	}
}

func (m *model) create(rt *rapid.T) {
	id := m.pick(rt, slices.Concat(slices.Collect(maps.Keys(m.payloads)), slices.Collect(maps.Keys(m.writers)),
		[]dataio.ID{{rapid.ByteRange(0, 2).Draw(rt, "directory"), rapid.ByteRange(1, 255).Draw(rt, "name")}}))
	size := int64(rapid.SampledFrom([]int{-1, 0, 1, 1000, 1 << 20, 1<<20 + 1}).Draw(rt, "size"))
	_, committed := m.payloads[id]
	writing := m.writers[id] != nil && !m.writers[id].ended
	w, err := m.drive.Create(m.t.Context(), id, size)
	switch {
	case err == nil && (committed || writing || m.suspect):
		rt.Fatalf("%s was created (committed %t, being written %t, suspect %t)", id, committed, writing, m.suspect)
	case err == nil:
		m.writers[id] = &modelWriter{Writer: w, announced: size}
	case errors.Is(err, dataio.ErrExists):
		if !committed && !writing {
			rt.Fatalf("%s doesn't exist: %v", id, err)
		}
	default:
		m.failed(rt, err)
	}
}

func (m *model) write(rt *rapid.T) {
	w := m.writers[m.pick(rt, slices.Collect(maps.Keys(m.writers)))]
	limit := int64(2 << 20)
	if w.announced >= 0 && rapid.IntRange(0, 9).Draw(rt, "careless") > 0 {
		limit = w.announced - int64(len(w.content))
	}
	n := rapid.Int64Range(0, limit).Draw(rt, "bytes")
	if rapid.Bool().Draw(rt, "all") {
		n = limit
	}
	part := m.noise[n%4096:][:n]
	_, err := w.Write(part)
	tooMuch := w.announced >= 0 && int64(len(w.content))+n > w.announced
	switch {
	case err == nil && (tooMuch || w.ended):
		rt.Fatalf("%d bytes were written (too much %t, ended %t)", n, tooMuch, w.ended)
	case err == nil:
		w.content = append(w.content, part...)
	case w.ended:
	case errors.Is(err, dataio.ErrSize) && tooMuch:
		w.ended = true
	default:
		m.failed(rt, err)
		w.ended = true
	}
}

func (m *model) commit(rt *rapid.T) {
	id := m.pick(rt, slices.Collect(maps.Keys(m.writers)))
	w := m.writers[id]
	delete(m.writers, id)
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	gone := rapid.IntRange(0, 9).Draw(rt, "client") == 0
	if gone {
		cancel()
	}
	wrongSize := w.announced >= 0 && int64(len(w.content)) != w.announced
	got, err := w.Commit(ctx)
	switch {
	case err == nil && (wrongSize || w.ended || gone || m.suspect || got.SizeBytes != int64(len(w.content))):
		rt.Fatalf("%s was committed with %+v (wrong size %t, ended %t, gone %t, suspect %t)", id, got, wrongSize, w.ended, gone, m.suspect)
	case err == nil:
		m.payloads[id] = w.content
	case w.ended, gone && errors.Is(err, context.Canceled), wrongSize && errors.Is(err, dataio.ErrSize):
	default:
		m.failed(rt, err)
	}
}

func (m *model) abort(rt *rapid.T) {
	id := m.pick(rt, slices.Collect(maps.Keys(m.writers)))
	if err := m.writers[id].Abort(); err != nil {
		rt.Fatal(err)
	}
	delete(m.writers, id)
}

func (m *model) read(rt *rapid.T) {
	id := m.pick(rt, slices.Collect(maps.Keys(m.payloads)))
	want := m.payloads[id]
	f, err := m.drive.Open(m.t.Context(), id)
	if err != nil {
		rt.Fatal(err)
	}
	defer f.Close()
	off := rapid.IntRange(0, len(want)).Draw(rt, "offset")
	n := rapid.IntRange(0, len(want)-off).Draw(rt, "bytes")
	section, err := f.Section(int64(off), int64(n))
	if err != nil {
		rt.Fatal(err)
	}
	var got bytes.Buffer
	_, err = dataio.Send(m.t.Context(), &got, section, dataio.Windows{FirstBytes: 1000, NextBytes: 300_000})
	if err != nil || !bytes.Equal(got.Bytes(), want[off:off+n]) {
		rt.Fatalf("%s: %d bytes from %d came back as %d others (%v)", id, n, off, got.Len(), err)
	}
	if err := f.Verify(m.t.Context(), int64(off), int64(n)); err != nil {
		rt.Fatal(err)
	}
}

func (m *model) remove(rt *rapid.T) {
	m.removeID(rt, m.pick(rt, slices.Collect(maps.Keys(m.payloads))))
}

func (m *model) removeID(rt *rapid.T, id dataio.ID) {
	if err := m.drive.Remove(m.t.Context(), id); err != nil {
		rt.Fatal(err)
	}
	delete(m.payloads, id)
	m.removed = append(m.removed, id)
}

// replace replaces a payload, or doesn't get to it: then it is what it was.
func (m *model) replace(rt *rapid.T) {
	id := m.pick(rt, slices.Collect(maps.Keys(m.payloads)))
	content := m.noise[rapid.IntRange(0, 4096).Draw(rt, "from"):][:rapid.IntRange(0, 2<<20).Draw(rt, "bytes")]
	w, err := m.drive.CreateReplacement(m.t.Context(), id, int64(len(content)))
	if err != nil {
		m.failed(rt, err)
		return
	}
	if _, err := w.Write(content); err != nil {
		m.failed(rt, err)
		return
	}
	end := rapid.SampledFrom([]string{"commit", "abort", "remove"}).Draw(rt, "end")
	switch end {
	case "abort":
		if err := w.Abort(); err != nil {
			rt.Fatal(err)
		}
		return
	case "remove":
		m.removeID(rt, id)
	}
	switch _, err := w.Commit(m.t.Context()); {
	case err == nil && (end == "remove" || m.suspect):
		rt.Fatalf("%s was replaced after %s (suspect %t)", id, end, m.suspect)
	case err == nil:
		m.payloads[id] = content
	case end == "remove" && errors.Is(err, dataio.ErrNotFound):
	default:
		m.failed(rt, err)
	}
}

// missing asks for what isn't there: removed, being written, or never was.
func (m *model) missing(rt *rapid.T) {
	id := m.pick(rt, slices.Concat(m.removed, slices.Collect(maps.Keys(m.writers)), []dataio.ID{{0xff, 0xff}}))
	if _, there := m.payloads[id]; there {
		rt.Skip("it was written again")
	}
	_, err := m.drive.Open(m.t.Context(), id)
	if !errors.Is(err, dataio.ErrNotFound) || !errors.Is(m.drive.Remove(m.t.Context(), id), dataio.ErrNotFound) {
		rt.Fatalf("%s is there: %v", id, err)
	}
}

func (m *model) reopen(rt *rapid.T) {
	m.clear()
	id := m.drive.ID()
	err := m.drive.Close()
	if err != nil {
		rt.Fatal(err)
	}
	for _, w := range m.writers {
		if _, err := w.Commit(m.t.Context()); err == nil {
			rt.Fatal("a writer outlived the drive")
		}
	}
	clear(m.writers)
	if m.drive, err = dataio.Open(m.t.Context(), m.drive.Path(), m.options); err != nil {
		rt.Fatal(err)
	}
	if m.drive.ID() != id {
		rt.Fatalf("drive %s is now %s", id, m.drive.ID())
	}
	m.suspect = false
}

// check compares what the drive lists, and what is on the disk, with the model.
func (m *model) check(rt *rapid.T) {
	m.faults.Ops() // not needed here
	var want []dataio.ID
	for id := range m.payloads {
		want = append(want, id)
	}
	slices.SortFunc(want, func(a, b dataio.ID) int { return strings.Compare(a.String(), b.String()) })
	if got := payloads(m.t, m.drive); !slices.Equal(got, want) {
		rt.Fatalf("Walk sees %v, want %v", got, want)
	}
	writing := 0
	for _, w := range m.writers {
		if !w.ended {
			writing++
		}
	}
	if n := len(files(m.t, m.drive)); n != len(want)+writing {
		rt.Fatalf("%d files are there, want %d payloads and %d being written", n, len(want), writing)
	}
	state := dataio.Online
	if m.suspect {
		state = dataio.Suspect
	}
	if m.drive.State() != state {
		rt.Fatalf("the drive is %v, want %v", m.drive.State(), state)
	}
}

// pick draws one of the ids, in an order that doesn't depend on a map's.
func (m *model) pick(rt *rapid.T, ids []dataio.ID) dataio.ID {
	if len(ids) == 0 {
		rt.Skip("there is none")
	}
	slices.SortFunc(ids, func(a, b dataio.ID) int { return bytes.Compare(a[:], b[:]) })
	return rapid.SampledFrom(ids).Draw(rt, "id")
}
