package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The log of all groups is one Pebble store. A key is the group, four bytes
// big-endian, a kind and for entries their index, eight bytes big-endian:
//
//	h         HardState
//	t         base: index and term of what came before the first entry
//	e index   Entry
//
// HardState and Entry are raft's protobuf messages, base two uint64.
const (
	logHard  = 'h'
	logBase  = 't'
	logEntry = 'e'
)

func logKey(g GroupID, kind byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 13), uint32(g)), kind)
}

func entryKey(g GroupID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(logKey(g, logEntry), index)
}

// storage is one group's log as raft reads it: in memory, in step with what is
// on disk. Only the goroutine that writes the log changes it.
type storage struct {
	*raft.MemoryStorage
	hard pb.HardState // as on disk when the group was opened
	conf pb.ConfState // of the machine, when the group was opened

	// offer gives a snapshot of the machine, or ErrSnapshotTemporarilyUnavailable
	// and sees to it that there will be one. It is called by run.
	offer func() (*pb.Snapshot, error)

	term, vote uint64       // as last written; the writer's
	bytes      atomic.Int64 // of the entries held; changed by the writer
}

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	return proto.CloneOf(&s.hard), proto.CloneOf(&s.conf), nil
}

// Snapshot implements raft.Storage.
func (s *storage) Snapshot() (*pb.Snapshot, error) {
	if s.offer == nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return s.offer()
}

// spare is the last entry that the log can do without: it is durable in the
// state, and as much as is to be kept follows it. 0 where there is none.
func (s *storage) spare(durable uint64, keep int64) uint64 {
	first, _ := s.FirstIndex() // the memory's: no error comes of it
	last, _ := s.LastIndex()
	if durable = min(durable, last); durable < first {
		return 0
	}
	entries, err := s.Entries(first, durable+1, noLimit)
	if err != nil {
		return 0
	}
	index, left := uint64(0), s.bytes.Load()
	for _, entry := range entries {
		if left <= keep {
			break
		}
		left -= size([]*pb.Entry{entry})
		index = entry.GetIndex()
	}
	return index
}

// logbook writes the log. Its methods are for one goroutine at a time, but for
// stalled.
type logbook struct {
	db     *pebble.DB
	failed func() error // what has become of a write

	opened time.Time
	began  atomic.Int64 // when the write that is going on began, ns after opened; 0: none
}

func newLogbook(db *pebble.DB, failed func() error) *logbook {
	return &logbook{db: db, failed: failed, opened: time.Now()}
}

// stalled tells whether a write has been going on for longer than limit.
func (l *logbook) stalled(limit time.Duration) bool {
	began := l.began.Load()
	return began != 0 && time.Since(l.opened)-time.Duration(began) > limit
}

// commit writes a batch. What returns no error here is on disk, if it was to be
// synced.
func (l *logbook) commit(b *pebble.Batch, sync bool) error {
	l.began.Store(max(1, int64(time.Since(l.opened))))
	defer l.began.Store(0)
	if err := b.Commit(&pebble.WriteOptions{Sync: sync}); err != nil {
		return err
	}
	return l.failed()
}

// open reads a group's log, and brings it in line with the machine: that may
// be ahead of the log after a crash, when a snapshot had been installed or the
// commit index wasn't on disk yet. Whatever is applied was committed.
func (l *logbook) open(g GroupID, at Position) (*storage, error) {
	s := &storage{MemoryStorage: raft.NewMemoryStorage()}
	if err := proto.Unmarshal(at.Conf, &s.conf); err != nil {
		return nil, fmt.Errorf("membership of group %d: %w", g, err)
	}
	if _, err := l.get(logKey(g, logHard), func(b []byte) error { return proto.Unmarshal(b, &s.hard) }); err != nil {
		return nil, err
	}
	var index, term uint64
	if _, err := l.get(logKey(g, logBase), func(b []byte) error {
		if len(b) != 16 {
			return errors.New("has not 16 bytes")
		}
		index, term = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
		return nil
	}); err != nil {
		return nil, err
	}
	entries, err := l.entries(g, index, term)
	if err != nil {
		return nil, err
	}
	if at.Index > s.hard.GetCommit() {
		if !matches(entries, index, term, at) {
			index, term, entries = at.Index, at.Term, nil
		}
		if s.hard.GetTerm() < at.Term {
			s.hard.Term, s.hard.Vote = new(at.Term), nil
		}
		s.hard.Commit = new(at.Index)
		if err := l.reset(g, index, term, &s.hard, len(entries) == 0); err != nil {
			return nil, err
		}
	}
	if at.Index < index {
		return nil, fmt.Errorf("raft log of group %d: begins after entry %d, and the state has only %d", g, index, at.Index)
	}
	if index > 0 {
		if err := s.ApplySnapshot(&pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(index), Term: new(term)}}); err != nil {
			return nil, err
		}
	}
	s.term, s.vote = s.hard.GetTerm(), s.hard.GetVote()
	return s, s.append(entries)
}

// matches tells whether the log holds the entry at which the machine is.
func matches(entries []*pb.Entry, base, baseTerm uint64, at Position) bool {
	if at.Index == base {
		return at.Term == baseTerm
	}
	if at.Index < base || at.Index-base > uint64(len(entries)) {
		return false
	}
	return entries[at.Index-base-1].GetTerm() == at.Term
}

// reset makes a log begin after index, durably. With drop it holds nothing.
func (l *logbook) reset(g GroupID, index, term uint64, hard *pb.HardState, drop bool) (err error) {
	b := l.db.NewBatch()
	defer closeInto(&err, b)
	if drop {
		err = b.DeleteRange(entryKey(g, 0), logKey(g, logEntry+1), nil)
	}
	err = errors.Join(err, setBase(b, g, index, term), b.Set(logKey(g, logHard), marshal(hard), nil))
	if err != nil {
		return err
	}
	return l.commit(b, true)
}

func setBase(b *pebble.Batch, g GroupID, index, term uint64) error {
	value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, index), term)
	return b.Set(logKey(g, logBase), value, nil)
}

func (l *logbook) get(key []byte, read func([]byte) error) (found bool, err error) {
	value, closer, err := l.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer closeInto(&err, closer)
	if err := read(value); err != nil {
		return false, fmt.Errorf("raft log at %q: %w", key, err)
	}
	return true, nil
}

// entries reads what follows index. A gap, or a term that is lower than the one
// before, means that the file isn't what was written.
func (l *logbook) entries(g GroupID, index, term uint64) (all []*pb.Entry, err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: entryKey(g, index+1), UpperBound: logKey(g, logEntry+1)})
	if err != nil {
		return nil, err
	}
	defer closeInto(&err, it)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		e := new(pb.Entry)
		if err := proto.Unmarshal(value, e); err != nil {
			return nil, fmt.Errorf("raft log at %q: %w", it.Key(), err)
		}
		if e.GetIndex() != index+1 || e.GetTerm() < term {
			return nil, fmt.Errorf("raft log of group %d: entry %d of term %d follows %d of term %d", g, e.GetIndex(), e.GetTerm(), index, term)
		}
		index, term = e.GetIndex(), e.GetTerm()
		all = append(all, e)
	}
	return all, it.Error()
}

// append adds entries in memory, in the place of those they overwrite.
func (s *storage) append(entries []*pb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	first := entries[0].GetIndex()
	if last, _ := s.LastIndex(); first <= last {
		old, err := s.Entries(first, last+1, noLimit)
		if err != nil {
			return err
		}
		s.bytes.Add(-size(old))
	}
	s.bytes.Add(size(entries))
	return s.Append(entries)
}

const noLimit = ^uint64(0)

func size(entries []*pb.Entry) (n int64) {
	for _, e := range entries {
		n += int64(len(e.GetData())) + entryOverhead
	}
	return n
}

// entryOverhead is about what an entry takes in memory beside its data.
const entryOverhead = 96

// write makes what groups want in the log durable, with one sync, and then
// returns the responses. A snapshot is installed first: with it in place and
// the log not yet reset, open finds its way.
//
// Raft looks at what it has handed out in its own memory until it is told that
// it is stable, so that the copy here may run ahead of the disk.
func (l *logbook) write(all []appending, install func(g *group, s *pb.Snapshot) error) (responses []outgoing, err error) {
	b := l.db.NewBatch()
	defer closeInto(&err, b)
	durable := false
	for _, a := range all {
		if s := a.message.GetSnapshot(); !raft.IsEmptySnap(s) {
			if err := install(a.group, s); err != nil {
				return nil, err
			}
			durable = true
			if err := a.group.restart(b, s.GetMetadata()); err != nil {
				return nil, err
			}
		}
		must, err := a.group.add(b, a.message)
		if err != nil {
			return nil, err
		}
		durable = durable || must || a.secret != 0
		for _, r := range a.message.GetResponses() {
			responses = append(responses, outgoing{a.group.id, r})
		}
	}
	if b.Empty() {
		return responses, nil
	}
	return responses, l.commit(b, durable)
}

// restart makes the log begin behind a snapshot, with nothing in it.
func (g *group) restart(b *pebble.Batch, at *pb.SnapshotMetadata) error {
	err := errors.Join(
		b.DeleteRange(entryKey(g.id, 0), logKey(g.id, logEntry+1), nil),
		setBase(b, g.id, at.GetIndex(), at.GetTerm()))
	if err != nil {
		return err
	}
	g.storage.bytes.Store(0)
	return g.storage.ApplySnapshot(&pb.Snapshot{Metadata: at})
}

// add puts entries and HardState into the batch and into the memory, and tells
// whether a promise rests on them. None does on the commit index.
func (g *group) add(b *pebble.Batch, m *pb.Message) (must bool, err error) {
	s := g.storage
	for _, e := range m.GetEntries() {
		if err := setEntry(b, g.id, e); err != nil {
			return false, err
		}
	}
	if n := len(m.GetEntries()); n > 0 {
		must = true
		// Whatever follows in the log is of a term that lost. Where nothing
		// does, a tombstone isn't worth its place.
		last, err := s.LastIndex()
		if err != nil {
			return false, err
		}
		if next := m.GetEntries()[n-1].GetIndex() + 1; next <= last {
			if err := b.DeleteRange(entryKey(g.id, next), entryKey(g.id, last+1), nil); err != nil {
				return false, err
			}
		}
		if err := s.append(m.GetEntries()); err != nil {
			return false, err
		}
	}
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		must = must || m.GetTerm() != s.term || m.GetVote() != s.vote
		s.term, s.vote = m.GetTerm(), m.GetVote()
		hard := &pb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}
		return must, b.Set(logKey(g.id, logHard), marshal(hard), nil)
	}
	return must, nil
}

// setEntry encodes an entry right into the batch.
func setEntry(b *pebble.Batch, g GroupID, e *pb.Entry) error {
	key, n := entryKey(g, e.GetIndex()), sizeEntry(e)
	op := b.SetDeferred(len(key), n)
	copy(op.Key, key)
	if value := appendEntry(op.Value[:0], e); len(value) != n {
		return fmt.Errorf("raft log: entry %d has %d bytes, not %d", e.GetIndex(), len(value), n)
	}
	return op.Finish()
}

// cut drops the entries up to index, which the machine has made durable. It is
// not synced: what a crash brings back is dropped again.
func (l *logbook) cut(g *group, index uint64) (err error) {
	first, err := g.storage.FirstIndex()
	if err != nil || index < first {
		return err
	}
	term, err := g.storage.Term(index)
	if err != nil {
		return err
	}
	gone, err := g.storage.Entries(first, index+1, noLimit)
	if err != nil {
		return err
	}
	b := l.db.NewBatch()
	defer closeInto(&err, b)
	err = errors.Join(setBase(b, g.id, index, term), b.DeleteRange(entryKey(g.id, first), entryKey(g.id, index+1), nil))
	if err != nil {
		return err
	}
	if err := l.commit(b, false); err != nil {
		return err
	}
	g.storage.bytes.Add(-size(gone))
	return g.storage.Compact(index)
}

// closeInto closes c and keeps its error where there is none yet.
func closeInto(err *error, c io.Closer) {
	if e := c.Close(); *err == nil {
		*err = e
	}
}
