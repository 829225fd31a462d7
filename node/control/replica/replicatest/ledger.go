package replicatest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/gridloom/gridloom/node/control/replica"
)

// Ledger is a small machine: keys with values, the requests that have taken
// effect, and a sum over all that was applied. It is a file that entries are
// appended to, synced only where a Machine has to be. Beside the calls of
// replica.Machine, which don't overlap, its methods may be called at any time.
type Ledger struct {
	disk vfs.FS
	dir  string

	mu   sync.Mutex // guards what follows; not held across I/O
	book book

	file       vfs.File // where entries are appended
	generation int      // of the file
	durable    uint64   // the last entry in it that is synced
}

// book is a ledger's content.
type book struct {
	at       replica.Position
	sum      uint64
	values   map[string]uint64 // key to the request that set it last
	requests map[uint64]uint64 // request to the entry by which it took effect
}

// Proposal makes an entry's data: request sets key.
func Proposal(request uint64, key string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, request), key...)
}

// Ledgers is a Model.
type Ledgers struct{}

var _ Model = Ledgers{}

// Open implements Model.
func (Ledgers) Open(disk vfs.FS, dir string, _ replica.GroupID, first replica.Position) (Machine, error) {
	return OpenLedger(disk, dir, first)
}

// Propose implements Model.
func (Ledgers) Propose(_ replica.GroupID, request uint64, _ int64) []byte {
	return Proposal(request, fmt.Sprint("key", request%7))
}

// Request implements Model.
func (Ledgers) Request(data []byte) uint64 { return binary.BigEndian.Uint64(data) }

const (
	nameCurrent = "CURRENT" // says which generation is the state
	nameState   = "state"   // in a checkpoint
)

// OpenLedger opens the ledger in dir, which is made where there is none; first
// is where a new one begins.
func OpenLedger(disk vfs.FS, dir string, first replica.Position) (*Ledger, error) {
	l := &Ledger{disk: disk, dir: dir}
	current, err := readFile(disk, disk.PathJoin(dir, nameCurrent))
	if errors.Is(err, fs.ErrNotExist) {
		l.book = book{at: first, values: map[string]uint64{}, requests: map[uint64]uint64{}}
		return l, errors.Join(disk.MkdirAll(dir, 0o700), syncDir(disk, disk.PathDir(dir)), l.begin(l.book.encode()))
	}
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Sscan(string(current), &l.generation); err != nil {
		return nil, fmt.Errorf("%s: %w", nameCurrent, err)
	}
	content, err := readFile(disk, l.path())
	if err != nil {
		return nil, err
	}
	if err := l.book.decode(content); err != nil {
		return nil, err
	}
	return l, l.begin(l.book.encode()) // nothing could be read behind a torn end
}

func (l *Ledger) path() string {
	return l.disk.PathJoin(l.dir, fmt.Sprintf("%s-%d", nameState, l.generation))
}

// begin makes content, durably, what is on disk.
func (l *Ledger) begin(content []byte) error {
	old := l.path()
	l.generation++
	file, err := l.disk.Create(l.path(), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return errors.Join(err, file.Close())
	}
	next := l.disk.PathJoin(l.dir, nameCurrent+".next")
	err = errors.Join(file.Sync(),
		writeFile(l.disk, next, fmt.Append(nil, l.generation)),
		syncDir(l.disk, l.dir)) // the state's name before the one that says it
	if err == nil {
		err = l.disk.Rename(next, l.disk.PathJoin(l.dir, nameCurrent))
	}
	err = errors.Join(err, syncDir(l.disk, l.dir))
	if l.file != nil {
		err = errors.Join(err, l.file.Close(), l.disk.Remove(old))
	}
	l.file, l.durable = file, l.book.at.Index
	return err
}

// Position implements replica.Machine.
func (l *Ledger) Position() replica.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.at
}

// Apply implements replica.Machine.
func (l *Ledger) Apply(entries []replica.Entry) error {
	var record []byte
	for i := range entries {
		record = appendEntry(record, &entries[i])
	}
	if _, err := l.file.Write(frame(record)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range entries {
		if err := l.book.apply(&entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *book) apply(e *replica.Entry) error {
	if e.Index != b.at.Index+1 || e.Term < b.at.Term {
		return fmt.Errorf("ledger: entry %d of term %d after %d of term %d", e.Index, e.Term, b.at.Index, b.at.Term)
	}
	b.at.Index, b.at.Term = e.Index, e.Term
	if e.Conf != nil {
		b.at.Conf = e.Conf
	}
	b.sum = xxh3.HashSeed(appendEntry(nil, e), b.sum)
	if len(e.Data) < 8 {
		return nil
	}
	request := binary.BigEndian.Uint64(e.Data)
	if b.requests[request] == 0 {
		b.requests[request] = e.Index
		b.values[string(e.Data[8:])] = request
	}
	return nil
}

// Sync implements replica.Machine.
func (l *Ledger) Sync() error {
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.durable = l.book.at.Index
	return nil
}

// Durable implements replica.Machine.
func (l *Ledger) Durable() (uint64, error) { return l.durable, nil }

// Checkpoint implements replica.Machine.
func (l *Ledger) Checkpoint(dir string) (replica.Position, error) {
	if err := l.disk.MkdirAll(dir, 0o700); err != nil {
		return replica.Position{}, err
	}
	l.mu.Lock()
	content, at := l.book.encode(), l.book.at
	l.mu.Unlock()
	return at, writeFile(l.disk, l.disk.PathJoin(dir, nameState), content)
}

// Install implements replica.Machine.
func (l *Ledger) Install(dir string) error {
	content, err := readFile(l.disk, l.disk.PathJoin(dir, nameState))
	if err != nil {
		return err
	}
	var b book
	if err := b.decode(content); err != nil {
		return err
	}
	if err := errors.Join(l.begin(content), l.disk.RemoveAll(dir)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book, l.durable = b, b.at.Index
	return nil
}

// Sum implements Machine: it is of everything that was applied, in its order.
func (l *Ledger) Sum() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.sum, nil
}

// Times implements Machine.
func (l *Ledger) Times(request uint64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.book.requests[request] != 0 {
		return 1, nil
	}
	return 0, nil
}

// Value is the request that has set a key.
func (l *Ledger) Value(key string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book.values[key]
}

// Close closes the file.
func (l *Ledger) Close() error { return l.file.Close() }

// encode makes the content of a file that begins with a book.
func (b *book) encode() []byte {
	var c []byte
	c = binary.BigEndian.AppendUint64(c, b.at.Index)
	c = binary.BigEndian.AppendUint64(c, b.at.Term)
	c = appendBytes(c, b.at.Conf)
	c = binary.BigEndian.AppendUint64(c, b.sum)
	c = binary.AppendUvarint(c, uint64(len(b.values)))
	for _, key := range slices.Sorted(maps.Keys(b.values)) {
		c = appendBytes(c, []byte(key))
		c = binary.BigEndian.AppendUint64(c, b.values[key])
	}
	c = binary.AppendUvarint(c, uint64(len(b.requests)))
	for _, request := range slices.Sorted(maps.Keys(b.requests)) {
		c = binary.BigEndian.AppendUint64(c, request)
		c = binary.BigEndian.AppendUint64(c, b.requests[request])
	}
	return frame(c)
}

// decode reads a file. What was written when the machine stopped may be there
// in part: then the book ends before that.
func (b *book) decode(content []byte) error {
	record, content, ok := unframe(content)
	if !ok {
		return errors.New("ledger: no state")
	}
	r := reader{record}
	*b = book{values: map[string]uint64{}, requests: map[uint64]uint64{}}
	b.at = replica.Position{Index: r.uint64(), Term: r.uint64(), Conf: bytes.Clone(r.bytes())}
	b.sum = r.uint64()
	for range r.uvarint() {
		key := string(r.bytes())
		b.values[key] = r.uint64()
	}
	for range r.uvarint() {
		request := r.uint64()
		b.requests[request] = r.uint64()
	}
	for {
		if record, content, ok = unframe(content); !ok {
			return nil
		}
		for r := (reader{record}); len(r.b) > 0; {
			e := replica.Entry{Index: r.uint64(), Term: r.uint64(), Data: r.bytes()}
			if conf := r.bytes(); len(conf) > 0 {
				e.Conf = bytes.Clone(conf)
			}
			if err := b.apply(&e); err != nil {
				return err
			}
		}
	}
}

func appendEntry(b []byte, e *replica.Entry) []byte {
	b = binary.BigEndian.AppendUint64(b, e.Index)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	return appendBytes(appendBytes(b, e.Data), e.Conf)
}

func appendBytes(b, s []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }

// frame puts a record's length and checksum before it.
func frame(record []byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 8+len(record)), uint32(len(record)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(record))
	return append(b, record...)
}

// unframe takes the first record off b.
func unframe(b []byte) (record, rest []byte, ok bool) {
	if len(b) < 8 {
		return nil, nil, false
	}
	n, sum := int(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
	if n == 0 || n > len(b)-8 || crc32.ChecksumIEEE(b[8:8+n]) != sum {
		return nil, nil, false
	}
	return b[8 : 8+n], b[8+n:], true
}

// reader reads a record that is whole: its checksum was right.
type reader struct{ b []byte }

func (r *reader) uint64() uint64 {
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func readFile(disk vfs.FS, path string) (content []byte, err error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(f)
}

// writeFile makes a file, whose content is durable then, though its name may
// not be.
func writeFile(disk vfs.FS, path string, content []byte) error {
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(disk vfs.FS, dir string) error {
	d, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// CopyDir copies the files in a directory into another, which is made.
func CopyDir(from vfs.FS, source string, to vfs.FS, dir string) error {
	names, err := from.List(source)
	if err != nil {
		return err
	}
	if err := to.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		content, err := readFile(from, from.PathJoin(source, name))
		if err != nil {
			return err
		}
		if err := writeFile(to, to.PathJoin(dir, name), content); err != nil {
			return err
		}
	}
	return syncDir(to, dir)
}
