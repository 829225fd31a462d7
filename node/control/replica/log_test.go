package replica

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// book is a logbook on a disk that can crash.
type book struct {
	t    *testing.T
	disk *vfs.MemFS
	db   *pebble.DB
	log  *logbook
}

func newBook(t *testing.T) *book {
	b := &book{t: t, disk: vfs.NewCrashableMem()}
	b.start()
	t.Cleanup(func() {
		if err := b.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *book) start() {
	b.t.Helper()
	var err error
	if b.db, err = pebble.Open("log", &pebble.Options{FS: b.disk, Logger: quietLog{b.t}}); err != nil {
		b.t.Fatal(err)
	}
	b.log = newLogbook(b.db, func() error { return nil })
}

// crash loses what isn't synced.
func (b *book) crash() { b.crashed(b.disk.CrashClone(vfs.CrashCloneCfg{})) }

// crashed goes on with a disk as it was left by a crash.
func (b *book) crashed(clone *vfs.MemFS) {
	b.t.Helper()
	if err := b.db.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.disk = clone
	b.start()
}

// open opens the group's log for a machine that is at an entry.
func (b *book) open(index, term uint64) *group {
	b.t.Helper()
	s, err := b.log.open(7, Position{Index: index, Term: term})
	if err != nil {
		b.t.Fatal(err)
	}
	return &group{id: 7, name: "test", storage: s}
}

// write writes entries of the given terms, from an index on, and a hard state.
func (b *book) write(g *group, hard *pb.HardState, first uint64, terms ...uint64) {
	b.t.Helper()
	m := &pb.Message{Entries: entriesOf(first, terms...)}
	if hard != nil {
		m.Term, m.Vote, m.Commit = hard.Term, hard.Vote, hard.Commit
	}
	if _, err := b.log.write([]appending{{group: g, message: m}}, nil); err != nil {
		b.t.Fatal(err)
	}
}

func entriesOf(first uint64, terms ...uint64) (all []*pb.Entry) {
	for i, term := range terms {
		all = append(all, &pb.Entry{Index: new(first + uint64(i)), Term: new(term), Data: []byte("data")})
	}
	return all
}

func hardState(term, vote, commit uint64) *pb.HardState {
	return &pb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

// expect compares what is in the log with the terms of its entries: base's
// first, and with a hard state.
func (b *book) expect(g *group, hard *pb.HardState, base uint64, terms ...uint64) {
	b.t.Helper()
	s := g.storage
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if first != base+1 || last != base+uint64(len(terms))-1 {
		b.t.Fatalf("the log goes from %d to %d", first, last)
	}
	for i, want := range terms {
		if term, err := s.Term(base + uint64(i)); err != nil || term != want {
			b.t.Errorf("entry %d is of term %d, %v", base+uint64(i), term, err)
		}
	}
	var held int64
	if last >= first {
		all, err := s.Entries(first, last+1, noLimit)
		if err != nil {
			b.t.Fatal(err)
		}
		held = size(all)
	}
	if got := s.bytes.Load(); got != held {
		b.t.Errorf("%d bytes are counted, and %d held", got, held)
	}
	got := &s.hard
	if got.GetTerm() != hard.GetTerm() || got.GetVote() != hard.GetVote() || got.GetCommit() != hard.GetCommit() {
		b.t.Errorf("the hard state is %v, not %v", got, hard)
	}
}

// What a promise rests on is there after a crash; the commit index need not be.
func TestLogCrash(t *testing.T) {
	b := newBook(t)
	g := b.open(0, 0)
	b.write(g, hardState(3, 2, 0), 0)
	b.crash()
	g = b.open(0, 0)
	b.expect(g, hardState(3, 2, 0), 0, 0)

	b.write(g, nil, 1, 3, 3, 3)
	b.write(g, hardState(3, 2, 2), 0) // the commit index alone isn't synced
	b.crash()
	g = b.open(0, 0)
	b.expect(g, hardState(3, 2, 0), 0, 0, 3, 3, 3)

	b.write(g, hardState(3, 2, 2), 0)
	b.write(g, hardState(4, 0, 2), 0)
	b.crash()
	g = b.open(0, 0)
	b.expect(g, hardState(4, 0, 2), 0, 0, 3, 3, 3)
}

// Entries take the place of those they overwrite, and of all that follow.
func TestLogOverwrites(t *testing.T) {
	b := newBook(t)
	g := b.open(0, 0)
	b.write(g, hardState(2, 1, 0), 1, 1, 1, 2, 2, 2, 2)
	b.write(g, hardState(3, 1, 0), 3, 3)
	b.expect(g, &pb.HardState{}, 0, 0, 1, 1, 3) // hard is what it was when opened
	b.crash()
	g = b.open(0, 0)
	b.expect(g, hardState(3, 1, 0), 0, 0, 1, 1, 3)
}

// A machine may be ahead of what the log says is committed.
func TestLogBehindMachine(t *testing.T) {
	for _, c := range []struct {
		name        string
		index, term uint64
		hard        *pb.HardState
		base        uint64
		terms       []uint64
	}{
		{"same entries", 3, 2, hardState(2, 1, 3), 0, []uint64{0, 1, 1, 2, 2}},
		{"another entry there", 3, 5, hardState(5, 0, 3), 3, []uint64{5}},
		{"beyond the log", 9, 2, hardState(2, 1, 9), 9, []uint64{2}},
		{"beyond the log, of a later term", 9, 4, hardState(4, 0, 9), 9, []uint64{4}},
		{"at what is known to be committed", 1, 1, hardState(2, 1, 1), 0, []uint64{0, 1, 1, 2, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(t)
			b.write(b.open(0, 0), hardState(2, 1, 1), 1, 1, 1, 2, 2)
			b.expect(b.open(c.index, c.term), c.hard, c.base, c.terms...)
			b.crash() // it was durable
			g := b.open(c.index, c.term)
			b.expect(g, c.hard, c.base, c.terms...)
			b.write(g, nil, c.base+uint64(len(c.terms)), 7) // and goes on
			b.crash()
			b.expect(b.open(c.index, c.term), c.hard, c.base, append(c.terms, 7)...)
		})
	}
}

// A snapshot takes the place of all entries, those behind it too.
func TestLogSnapshot(t *testing.T) {
	for _, crash := range []string{"before", "between", "after"} {
		t.Run(crash, func(t *testing.T) {
			b := newBook(t)
			g := b.open(0, 0)
			b.write(g, hardState(2, 1, 1), 1, 1, 1, 2, 2, 2, 2)
			at := &pb.SnapshotMetadata{Index: new(uint64(4)), Term: new(uint64(3))}
			m := &pb.Message{
				Snapshot: &pb.Snapshot{Metadata: at}, Entries: entriesOf(5, 3),
				Term: new(uint64(3)), Vote: new(uint64(0)), Commit: new(uint64(4)),
			}
			var left *vfs.MemFS
			_, err := b.log.write([]appending{{group: g, message: m}}, func(*group, *pb.Snapshot) error {
				left = b.disk.CrashClone(vfs.CrashCloneCfg{})
				if crash == "before" {
					return errEmpty
				}
				return nil
			})
			if (err != nil) != (crash == "before") {
				t.Fatal(err)
			}
			switch crash {
			case "before":
				b.crash()
				b.expect(b.open(1, 1), hardState(2, 1, 1), 0, 0, 1, 1, 2, 2, 2, 2)
			case "between": // the machine has it
				b.crashed(left)
				b.expect(b.open(4, 3), hardState(3, 0, 4), 4, 3)
			default:
				b.crash()
				b.expect(b.open(4, 3), hardState(3, 0, 4), 4, 3, 3)
			}
		})
	}
}

// What is cut is what the state has; the rest stays, as much as wanted.
func TestLogCut(t *testing.T) {
	b := newBook(t)
	g := b.open(0, 0)
	b.write(g, hardState(1, 1, 8), 1, 1, 1, 1, 1, 1, 1, 1, 1)
	one := size(entriesOf(1, 1))
	if got := g.storage.spare(6, 0); got != 6 {
		t.Errorf("of 8 entries, of which 6 are durable, %d can go", got)
	}
	if got := g.storage.spare(100, 3*one); got != 5 {
		t.Errorf("of 8 entries, of which 3 are to stay, %d can go", got)
	}
	if err := b.log.cut(g, 5); err != nil {
		t.Fatal(err)
	}
	b.expect(g, &pb.HardState{}, 5, 1, 1, 1, 1)
	if got := g.storage.spare(5, 0); got != 0 {
		t.Errorf("%d can go twice", got)
	}
	if err := b.log.cut(g, 3); err != nil {
		t.Errorf("cutting what is cut: %v", err)
	}
	b.crash() // nobody has synced it
	g = b.open(5, 1)
	b.expect(g, hardState(1, 1, 8), 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
	if err := b.log.cut(g, 5); err != nil {
		t.Fatal(err)
	}
	b.write(g, nil, 9, 1) // and with the next write it is
	b.crash()
	b.expect(b.open(5, 1), hardState(1, 1, 8), 5, 1, 1, 1, 1, 1)
	if _, err := b.log.open(7, Position{Index: 4, Term: 1}); err == nil || !strings.Contains(err.Error(), "begins after") {
		t.Errorf("a state that needs what was cut: %v", err)
	}
}

// A log that isn't what was written is refused.
func TestLogBroken(t *testing.T) {
	for name, spoil := range map[string]func(*pebble.DB) error{
		"gap":             func(db *pebble.DB) error { return db.Delete(entryKey(7, 2), nil) },
		"terms backwards": func(db *pebble.DB) error { return db.Set(entryKey(7, 3), marshal(entriesOf(3, 1)[0]), nil) },
		"wrong index":     func(db *pebble.DB) error { return db.Set(entryKey(7, 2), marshal(entriesOf(3, 2)[0]), nil) },
		"no entry":        func(db *pebble.DB) error { return db.Set(entryKey(7, 2), []byte{0xff}, nil) },
		"no hard state":   func(db *pebble.DB) error { return db.Set(logKey(7, logHard), []byte{0xff}, nil) },
		"short base":      func(db *pebble.DB) error { return db.Set(logKey(7, logBase), []byte{1}, nil) },
	} {
		b := newBook(t)
		b.write(b.open(0, 0), hardState(2, 1, 0), 1, 2, 2, 2)
		if err := spoil(b.db); err != nil {
			t.Fatal(err)
		}
		if _, err := b.log.open(7, Position{}); err == nil {
			t.Errorf("%s: it was opened", name)
		}
	}
}

// Groups share a store and a sync, and nothing else.
func TestLogGroups(t *testing.T) {
	b := newBook(t)
	g := b.open(0, 0)
	s, err := b.log.open(8, Position{})
	if err != nil {
		t.Fatal(err)
	}
	other := &group{id: 8, name: "other", storage: s}
	_, err = b.log.write([]appending{
		{group: g, message: &pb.Message{Entries: entriesOf(1, 1, 1)}},
		{group: other, message: &pb.Message{Entries: entriesOf(1, 2)}},
		{group: g, message: &pb.Message{Entries: entriesOf(2, 3, 3, 3)}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.crash()
	b.expect(b.open(0, 0), &pb.HardState{}, 0, 0, 1, 3, 3, 3)
	if s, err = b.log.open(8, Position{}); err != nil {
		t.Fatal(err)
	}
	b.expect(&group{storage: s}, &pb.HardState{}, 0, 0, 2)
}

// quietLog is a logger for a store that must not fail.
type quietLog struct{ t *testing.T }

// Infof implements pebble.Logger.
func (quietLog) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (l quietLog) Errorf(format string, args ...any) { l.t.Errorf(format, args...) }

// Fatalf implements pebble.Logger.
func (l quietLog) Fatalf(format string, args ...any) { l.t.Errorf(format, args...) }
