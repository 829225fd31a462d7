package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tinylib/msgp/msgp"

	"github.com/gridloom/gridloom/node/control/replica"
)

const (
	// replyWindow is how long a command's outcome is remembered for retries,
	// in log time. Nobody retries for as long as this.
	replyWindow = 10 * time.Minute
	// trimPerEntry is how many outcomes an entry may forget. Every entry
	// remembers at most one, so what is beyond the window always shrinks.
	trimPerEntry = 4
)

// entry is a command in its place in the log: what it is applied with, on
// every node alike.
type entry struct {
	Index, Term uint64
	Stamp       int64    // unix ns by the clock of the leader that put it into the log
	Command     *Command // nil in an entry of raft's own
	Conf        []byte   // membership from here on; nil where it stays
}

// encodeEntry is what goes into the log for a command: the stamp, eight bytes
// big-endian, and the command.
func encodeEntry(stamp int64, c *Command) ([]byte, error) {
	b := make([]byte, 8, 8+c.Msgsize())
	binary.BigEndian.PutUint64(b, uint64(stamp))
	return c.MarshalMsg(b)
}

// decodeEntry reads an entry of the log.
func decodeEntry(in *replica.Entry) (*entry, error) {
	e := &entry{Index: in.Index, Term: in.Term, Conf: in.Conf}
	if len(in.Data) == 0 {
		return e, nil
	}
	if len(in.Data) < 8 {
		return nil, fmt.Errorf("control: entry %d has %d bytes", in.Index, len(in.Data))
	}
	e.Stamp = int64(binary.BigEndian.Uint64(in.Data))
	e.Command = new(Command)
	if rest, err := e.Command.UnmarshalMsg(in.Data[8:]); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("control: entry %d isn't a command: %d bytes too many, %w", in.Index, len(rest), err)
	}
	return e, nil
}

// machine applies entries. It is deterministic: what an entry does follows
// from the rows and the entry alone, and the fields below are a copy of rows.
// It is used by one goroutine; a failed apply leaves it and its batch
// unusable, and the index ends.
type machine struct {
	group    replica.GroupID
	meta     metaRow
	slots    slotTable
	identity identityRow
	topology *Topology // replaced as a whole, never changed: views share it
	iam      iamState  // the system group's

	// lastClosed is the index of the last CloseBucket, or where the machine was
	// loaded: it says how far back a bucket that was seen open still is. open
	// are those that were looked at since.
	lastClosed uint64
	open       map[[16]byte]bool

	// before is an iterator over the rows as they were before the batch, and
	// written are the prefixes of replies, records and segments that the batch has
	// changed: what isn't among them is looked for there, where filters answer.
	// Where before is nil, all of it is looked for in the batch.
	before  *pebble.Iterator
	written map[string]bool

	// usage is what is in some of the buckets, among them all that the batch has
	// changed; their rows, and that of totals, are written at its end. changed
	// are those buckets, in the order of their first change.
	usage   map[[16]byte]*BucketUsage
	totals  totalsRow
	changed [][16]byte

	// oldest is the log time of the first remembered outcome, 0 where it
	// isn't known; recent knows which commands are new. They only save looking.
	oldest int64
	recent recent
}

// loadMachine takes up where the rows of r stand.
func loadMachine(group replica.GroupID, r pebble.Reader) (*machine, error) {
	m := &machine{group: group, topology: &Topology{}}
	if _, err := get(r, metaKey(), &m.meta); err != nil {
		return nil, err
	}
	if _, err := get(r, identityKey(), &m.identity); err != nil {
		return nil, err
	}
	if _, err := get(r, slotsKey(), &m.slots); err != nil {
		return nil, err
	}
	if _, err := get(r, totalsKey(), &m.totals); err != nil {
		return nil, err
	}
	m.lastClosed, m.open, m.written = m.meta.Applied, map[[16]byte]bool{}, map[string]bool{}
	m.usage, m.recent = map[[16]byte]*BucketUsage{}, newRecent(m.meta.Applied)
	if group == systemGroup {
		if err := m.iam.load(r); err != nil {
			return nil, err
		}
	}
	return m, m.loadTopology(r)
}

// loadTopology makes a new view of the nodes' rows.
func (m *machine) loadTopology(r pebble.Reader) (err error) {
	t := &Topology{Epoch: m.identity.Epoch}
	err = scan(r, []byte{kindNode}, func(_, value []byte) error {
		var n Node
		if err := decodeRow(rowVersion, value, &n); err != nil {
			return err
		}
		t.Nodes = append(t.Nodes, n)
		return nil
	})
	m.topology = t
	return err
}

// apply carries out one entry. A refusal is an outcome, and changes nothing
// but what every entry does; an error is the store's and ends the index. An
// entry of raft's own has no outcome.
func (m *machine) apply(b *pebble.Batch, e *entry) (*outcome, error) {
	if e.Index != m.meta.Applied+1 {
		return nil, fmt.Errorf("control: entry %d after entry %d", e.Index, m.meta.Applied)
	}
	m.meta.Applied, m.meta.Term = e.Index, e.Term
	if e.Conf != nil {
		m.meta.Conf = e.Conf
	}
	if e.Command == nil {
		return nil, nil
	}
	if v := e.Command.Version; v < oldestCommand || v > CommandVersion {
		// Propose refuses it, so it was put into the log by a newer program.
		return nil, fmt.Errorf("control: entry %d: command version %d is not known here, only %d to %d", e.Index, v, oldestCommand, CommandVersion)
	}
	m.meta.LogTime = max(m.meta.LogTime, e.Stamp)
	if err := m.trim(b); err != nil {
		return nil, err
	}
	if !m.recent.none(e.Command.RequestID, m.meta.Trimmed) {
		var known replyRow
		switch found, err := m.row(b, replyKey(e.Command.RequestID), &known); {
		case err != nil:
			return nil, err
		case found:
			return &known.Outcome, nil
		}
	}
	out, err := m.execute(b, e)
	if err != nil {
		refused, ok := refusal(err)
		if !ok {
			return nil, fmt.Errorf("control: entry %d: %w", e.Index, err)
		}
		out = refused
	}
	out.LogTime = m.meta.LogTime
	out.Epoch = m.identity.Epoch
	if out.passes() {
		return out, nil
	}
	return out, m.remember(b, e, out)
}

// seal adds to a batch what it does to the usage of buckets, and how far it
// takes the state.
func (m *machine) seal(b *pebble.Batch) error {
	return errors.Join(m.sealUsage(b), put(b, metaKey(), &m.meta))
}

// look begins a batch: before is an iterator over the rows as they are. The
// machine has no use for it beyond the end of the batch.
func (m *machine) look(before *pebble.Iterator) {
	m.before = before
	clear(m.written)
}

// wrote notes that the batch changes rows with that prefix.
func (m *machine) wrote(prefix []byte) {
	if m.before != nil {
		m.written[string(prefix)] = true
	}
}

// row is get, of a reply or a segment.
func (m *machine) row(b *pebble.Batch, key []byte, row msgp.Unmarshaler) (found bool, err error) {
	if m.before == nil || m.written[string(key)] {
		return get(b, key, row)
	}
	if !m.before.SeekPrefixGE(key) {
		return false, m.before.Error()
	}
	value, err := m.before.ValueAndErr()
	if err != nil {
		return false, err
	}
	return true, decodeRow(rowVersion, value, row)
}

// setSegment writes a segment's row, or removes it where it says nothing.
func (m *machine) setSegment(b *pebble.Batch, id [16]byte, row *segmentRow) error {
	key := segmentKey(id)
	m.wrote(key)
	if row.Key == "" && len(row.Garbage) == 0 {
		return remove(b, key)
	}
	return put(b, key, row)
}

// find is findRecord.
func (m *machine) find(b *pebble.Batch, bucket [16]byte, key string) (*foundRecord, error) {
	if m.before == nil || m.written[string(recordPrefix(bucket, key))] {
		return findRecord(b, bucket, key)
	}
	return seekRecord(m.before, bucket, key)
}

// remember keeps an outcome for retries.
func (m *machine) remember(b *pebble.Batch, e *entry, out *outcome) error {
	key := replyKey(e.Command.RequestID)
	if err := put(b, key, &replyRow{Index: e.Index, Outcome: *out}); err != nil {
		return err
	}
	m.wrote(key)
	m.recent.add(e.Command.RequestID, e.Index, m.meta.Trimmed)
	return put(b, issuedKey(e.Index), &issuedRow{RequestID: e.Command.RequestID, LogTime: m.meta.LogTime})
}

// trim forgets outcomes that are older than the window. They are found by
// their index, one by one: a scan would run over the tombstones of all that
// was forgotten before.
func (m *machine) trim(b *pebble.Batch) error {
	horizon := m.meta.LogTime - int64(replyWindow)
	for range trimPerEntry {
		if m.oldest >= horizon && m.oldest != 0 || m.meta.Trimmed+1 >= m.meta.Applied {
			return nil
		}
		next := m.meta.Trimmed + 1
		var row issuedRow
		found, err := get(b, issuedKey(next), &row)
		if err != nil {
			return err
		}
		if found { // a retry's entry has no row
			if m.oldest = row.LogTime; m.oldest >= horizon {
				return nil
			}
			key := replyKey(row.RequestID)
			if err := errors.Join(remove(b, key), remove(b, issuedKey(next))); err != nil {
				return err
			}
			m.wrote(key)
		}
		m.meta.Trimmed, m.oldest = next, 0
	}
	return nil
}
