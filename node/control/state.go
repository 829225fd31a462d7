package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/fault"
)

// stateOptions are those of a group's state. It has no log of its own: the raft
// log has all that isn't flushed, and a memtable of it at most.
func stateOptions(g replica.GroupID) disk.Options {
	if g == systemGroup {
		return disk.Options{CacheBytes: 8 << 20, MemTableBytes: 4 << 20, NoWAL: true, Comparer: rowOrder}
	}
	return disk.Options{
		CacheBytes: 64 << 20, MemTableBytes: 16 << 20, NoWAL: true, Comparer: rowOrder,
		TableBytes: 32 << 20, SeparateBytes: 1 << 10,
	}
}

// state is one group's state on this node: the store, the machine that applies
// entries to it, and the present view, which readers take. It implements
// replica.Machine.
//
// The store is in a directory of its own below dir, named by a number: a
// snapshot comes as the next, and takes over when it is whole. The highest
// number counts, others are removed.
type state struct {
	group   replica.GroupID
	fs      vfs.FS
	dir     string // DATA/state/<group>
	log     *slog.Logger
	observe func(*view)                           // is told every view as it becomes present; may be nil
	applied func(entries int, took time.Duration) // may be nil
	iam     *iamFeed                              // shows users and keys, before the view that has them; may be nil

	open    openBuckets
	machine *machine // the applier's
	number  int      // of the store's directory; the applier's

	// mu guards what follows, and nothing slow.
	mu      sync.Mutex
	store   *openStore
	present *view
	changed chan struct{}            // closed and replaced with every view
	awaited map[[16]byte][]*proposal // by request id: who waits for an outcome
	closed  bool
}

// openStore is a store that views share. The last to leave one that was
// replaced by a snapshot closes it and removes its files.
type openStore struct {
	*disk.Store
	refs int  // guarded by state.mu: views, and being the present one
	gone bool // it was replaced
}

// proposal is a command that was put into the log and waits for its outcome.
type proposal struct {
	done chan *outcome // has room for one; nil: leadership was lost, and nobody knows
}

// openState opens a group's state, or makes an empty one.
func openState(f vfs.FS, dir string, group replica.GroupID, log *slog.Logger, observe func(*view), users *iamFeed) (*state, error) {
	s := &state{
		group: group, fs: f, dir: dir, log: log, observe: observe, iam: users,
		changed: make(chan struct{}), awaited: map[[16]byte][]*proposal{},
	}
	numbers, err := s.numbers()
	if err != nil {
		return nil, fmt.Errorf("state of group %s: %w", groupName(group), err)
	}
	if s.number = 1; len(numbers) > 0 {
		s.number = numbers[len(numbers)-1]
	}
	for _, n := range numbers {
		if n != s.number {
			if err := f.RemoveAll(s.path(n)); err != nil {
				return nil, err
			}
		}
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *state) path(number int) string { return s.fs.PathJoin(s.dir, strconv.Itoa(number)) }

// numbers lists the stores there are, in order.
func (s *state) numbers() (all []int, err error) {
	names, err := s.fs.List(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s: %q is none of a state's names", s.dir, name)
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return all, nil
}

// load opens the store of the present number and takes up where it stands.
func (s *state) load() error {
	store, err := disk.Open(s.fs, s.path(s.number), stateOptions(s.group), s.log)
	if err != nil {
		return err
	}
	m, err := loadMachine(s.group, store)
	if err != nil {
		return errors.Join(fmt.Errorf("index %s: %w", store.Dir(), err), store.Close())
	}
	s.machine = m
	s.mu.Lock()
	old := s.store
	s.store = &openStore{Store: store, refs: 1}
	s.mu.Unlock()
	s.publish()
	if old != nil {
		s.mu.Lock()
		old.gone = true
		s.mu.Unlock()
		s.leave(old)
	}
	return nil
}

// bootstrap makes the state that a group begins with on all its founders.
func (s *state) bootstrap(conf []byte, founders []Node) error {
	b := s.store.NewIndexedBatch()
	m := s.machine
	m.meta.Applied, m.meta.Term, m.meta.Conf = 1, 1, conf
	m.slots = firstSlots()
	err := errors.Join(m.seal(b), put(b, slotsKey(), &m.slots))
	if s.group == systemGroup {
		for i := range founders {
			err = errors.Join(err, put(b, nodeKey(founders[i].Name), &founders[i]))
		}
		m.identity.Epoch = 1
		err = errors.Join(err, put(b, identityKey(), &m.identity), m.loadTopology(b))
	}
	if err != nil {
		return errors.Join(err, b.Close())
	}
	if err := errors.Join(s.commit(b), s.Sync()); err != nil {
		return err
	}
	s.publish()
	return nil
}

// commit writes a batch. What a store can't write is told to its logger, and
// not always to us.
func (s *state) commit(b *pebble.Batch) (err error) {
	defer closeInto(&err, b)
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	return s.store.Err()
}

// Position implements replica.Machine.
func (s *state) Position() replica.Position {
	m := &s.machine.meta
	return replica.Position{Index: m.Applied, Term: m.Term, Conf: m.Conf}
}

// Apply implements replica.Machine: it applies to one batch, shows the new
// state, and then tells the outcomes to those who wait for them here.
func (s *state) Apply(entries []replica.Entry) (err error) {
	began := time.Now()
	before, err := s.store.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return err
	}
	defer closeInto(&err, before)
	s.machine.look(before)
	defer s.machine.look(nil)
	b := s.store.NewIndexedBatch()
	outcomes := make([]*outcome, len(entries))
	ids := make([][16]byte, len(entries))
	for i := range entries {
		e, err := decodeEntry(&entries[i])
		if err == nil {
			outcomes[i], err = s.machine.apply(b, e)
		}
		if err != nil {
			return errors.Join(err, b.Close())
		}
		if e.Command != nil {
			ids[i] = e.Command.RequestID
		}
	}
	if err := s.machine.seal(b); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := s.commit(b); err != nil {
		return err
	}
	s.publish()
	if s.applied != nil {
		s.applied(len(entries), time.Since(began))
	}
	s.tell(ids, outcomes)
	return nil
}

// Sync implements replica.Machine.
func (s *state) Sync() error {
	switch durable, err := s.Durable(); {
	case err != nil:
		return err
	case durable == s.machine.meta.Applied: // an empty memtable would be flushed, too
		return s.store.Err()
	}
	return s.store.Flush()
}

// Durable implements replica.Machine.
func (s *state) Durable() (index uint64, err error) {
	it, err := s.store.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		return 0, err
	}
	defer closeInto(&err, it)
	if !it.SeekGE(metaKey()) || !bytes.Equal(it.Key(), metaKey()) {
		return 0, it.Error()
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return 0, err
	}
	var meta metaRow
	err = decodeRow(rowVersion, value, &meta)
	return meta.Applied, err
}

// Checkpoint implements replica.Machine.
func (s *state) Checkpoint(dir string) (replica.Position, error) {
	if err := s.Sync(); err != nil {
		return replica.Position{}, err
	}
	return s.Position(), s.store.Checkpoint(dir)
}

// Install implements replica.Machine: the copy becomes the store of the next
// number. Readers of the old one stay with it.
func (s *state) Install(dir string) error {
	next := s.path(s.number + 1)
	if err := s.fs.RemoveAll(next); err != nil {
		return err
	}
	if err := s.fs.Rename(dir, next); err != nil {
		return err
	}
	parent, err := s.fs.OpenDir(s.dir)
	if err != nil {
		return err
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		return err
	}
	s.number++
	return s.load()
}

// publish makes the machine's state the present view.
func (s *state) publish() {
	m := s.machine
	v := &view{
		rows:       s.store.NewSnapshot(),
		store:      s.store,
		applied:    m.meta.Applied,
		logTime:    m.meta.LogTime,
		deployment: m.identity.Deployment,
		encoded:    m.meta.Conf,
		slots:      m.slots,
		open:       &s.open,
		lastClosed: m.lastClosed,
		topology:   m.topology,
		limited:    m.totals.Limited,
		boxes:      m.iam.row.Boxes, boxRevision: m.iam.row.Revision,
		refs: 1,
	}
	if s.iam != nil {
		s.iam.show(&m.iam)
	}
	s.mu.Lock()
	old := s.present
	if old != nil && bytes.Equal(old.encoded, v.encoded) {
		v.conf = old.conf
	} else if v.conf = new(pb.ConfState); proto.Unmarshal(v.encoded, v.conf) != nil {
		v.conf = new(pb.ConfState) // raft wrote it: the engine has refused it before
	}
	s.present = v
	v.store.refs++
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if s.observe != nil {
		s.observe(v)
	}
	if old != nil {
		s.release(old)
	}
}

// acquire gives the present view, which its user releases.
func (s *state) acquire() *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.present.refs++
	return s.present
}

// at gives a view that has applied index.
func (s *state) at(ctx context.Context, index uint64) (*view, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, errStopping()
		}
		if v := s.present; v.applied >= index {
			v.refs++
			s.mu.Unlock()
			return v, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *state) release(v *view) {
	s.mu.Lock()
	v.refs--
	last := v.refs == 0
	s.mu.Unlock()
	if !last {
		return
	}
	if err := v.close(); err != nil {
		v.store.Fail(err)
	}
	s.leave(v.store)
}

// leave gives up a reference to a store.
func (s *state) leave(o *openStore) {
	s.mu.Lock()
	o.refs--
	last, gone := o.refs == 0, o.gone
	s.mu.Unlock()
	if !last {
		return
	}
	if err := o.Close(); err != nil {
		s.log.Error("a state couldn't be closed", "dir", o.Dir(), "error", err)
	}
	if gone {
		if err := s.fs.RemoveAll(o.Dir()); err != nil {
			s.log.Warn("an old state can't be removed", "dir", o.Dir(), "error", err)
		}
	}
}

// expect notes that the outcome of a request is waited for here.
func (s *state) expect(id [16]byte) *proposal {
	p := &proposal{done: make(chan *outcome, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited[id] = append(s.awaited[id], p)
	return p
}

// forget ends expect.
func (s *state) forget(id [16]byte, p *proposal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.DeleteFunc(s.awaited[id], func(q *proposal) bool { return q == p })
	if len(left) == 0 {
		delete(s.awaited, id)
	} else {
		s.awaited[id] = left
	}
}

// tell gives outcomes to those who wait for them.
func (s *state) tell(ids [][16]byte, outcomes []*outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.awaited) == 0 {
		return
	}
	for i, id := range ids {
		for _, p := range s.awaited[id] {
			select {
			case p.done <- outcomes[i]:
			default: // it has one, and waits no longer
			}
		}
	}
}

// lose tells all who wait that this node doesn't lead any more: their commands
// may be carried out or not, and another leader knows.
func (s *state) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, all := range s.awaited {
		for _, p := range all {
			select {
			case p.done <- nil:
			default:
			}
		}
	}
}

// remembered gives the outcome of a command that was carried out before, nil
// where none is known.
func (s *state) remembered(id [16]byte) (*outcome, error) {
	v := s.acquire()
	defer s.release(v)
	var known replyRow
	switch found, err := get(v.rows, replyKey(id), &known); {
	case err != nil:
		return nil, s.unreadable(err)
	case !found:
		return nil, nil
	}
	return &known.Outcome, nil
}

// room tells whether the disk has room for more, as NoSpace where it hasn't.
func (s *state) room() error {
	s.mu.Lock()
	store := s.store
	s.mu.Unlock()
	return store.Room()
}

// unreadable is the answer where a row can't be read.
func (s *state) unreadable(err error) error {
	s.log.Error("the index can't be read", "dir", s.dir, "error", err)
	return &fault.Error{Kind: fault.Corrupted, Subject: "index", Detail: "a part of it can't be read", Err: err}
}

// close closes the store. It comes after the engine and the last reader. What
// isn't flushed would have to be applied again.
func (s *state) close() {
	if err := s.Sync(); err != nil {
		s.log.Warn("a state couldn't be flushed", "dir", s.store.Dir(), "error", err)
	}
	s.mu.Lock()
	s.closed = true
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.release(s.present)
	s.leave(s.store)
}
