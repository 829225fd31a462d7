package datatest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/gridloom/gridloom/dataio"
)

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

// A Recorder is a dataio.Interceptor that has the operations done and remembers
// them with their data, to tell what a loss of power could have left at any
// time: only what was synced is certain. Of what wasn't, each change of a
// directory, and each sector of a write, may be on the disk or not, in any
// combination; a rename is there whole or not at all. That is more than a
// journaling file system allows, and what POSIX promises.
type Recorder struct {
	// Lies says which syncs the disk acknowledges without doing them. May be
	// nil.
	Lies func(op dataio.Op) bool

	base map[string][]byte // files, and directories (nil), that are certain

	mu  sync.Mutex // guards what follows
	ops []dataio.Op
}

var _ dataio.Interceptor = (*Recorder)(nil)

// NewRecorder returns a Recorder for the drive in a directory, of which
// everything is taken to be on the disk by now: a drive that was opened and
// closed again.
func NewRecorder(dir string) (*Recorder, error) {
	r := &Recorder{base: map[string][]byte{}}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if e.IsDir() {
			r.base[name] = nil
			return nil
		}
		content, err := fs.ReadFile(root, name)
		r.base[name] = append([]byte{}, content...)
		return err
	})
	return r, err
}

// Intercept implements dataio.Interceptor.
func (r *Recorder) Intercept(op dataio.Op, do func() error) error {
	// The data may be changed after the call. What fails may have been done in
	// part, which for a write is what the disk may have of it anyhow.
	op.Data = bytes.Clone(op.Data)
	err := do()
	if err != nil && op.Kind != dataio.OpWrite {
		return err
	}
	if op.Kind > dataio.OpRemove { // reads
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ops) == maxOps {
		return errors.Join(err, fmt.Errorf("datatest: more than %d operations", maxOps))
	}
	r.ops = append(r.ops, op)
	return err
}

// Ops returns how many operations have ended that change the drive: the number
// of a moment, to compare with Crash.After.
func (r *Recorder) Ops() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ops)
}

// A Crash is what a loss of power left.
type Crash struct {
	After int    // operations that had ended
	Last  string // the last of them
	Files map[string][]byte
}

// Restore writes what is left into a directory, which must be empty.
func (c Crash) Restore(dir string) error {
	for _, name := range slices.Sorted(maps.Keys(c.Files)) { // parents first
		to, content := filepath.Join(dir, filepath.FromSlash(name)), c.Files[name]
		var err error
		if content == nil {
			err = os.Mkdir(to, 0o700)
		} else {
			err = os.WriteFile(to, content, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sum tells what is left from what else could be.
func (c Crash) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		fmt.Fprintf(h, "%q %d ", name, len(c.Files[name]))
		h.Write(c.Files[name])
	}
	h.Sum(sum[:0])
	return sum
}

// Crashes yields what a loss of power could have left, before the first
// operation and after each: nothing that wasn't synced, all of it, and for the
// rest at most so many combinations, drawn with rng. Equal ones after the same
// operation come once.
func (r *Recorder) Crashes(rng *rand.Rand, combinations int) iter.Seq[Crash] {
	return func(yield func(Crash) bool) {
		r.mu.Lock()
		ops := slices.Clone(r.ops)
		r.mu.Unlock()
		disk := newDisk(r.base)
		for after := 0; ; after++ {
			c := Crash{After: after, Last: "the beginning"}
			if after > 0 {
				op := ops[after-1]
				c.Last = fmt.Sprintf("%v %s", op.Kind, op.Name)
				disk.do(op, r.Lies)
			}
			seen := map[[sha256.Size]byte]bool{}
			for i := range combinations + 2 {
				chance := map[int]func() bool{0: func() bool { return false }, 1: func() bool { return true }}[i]
				if chance == nil {
					chance = func() bool { return rng.IntN(2) == 0 }
				}
				c.Files = disk.left(chance)
				if sum := c.sum(); !seen[sum] {
					seen[sum] = true
					if !yield(c) {
						return
					}
				}
			}
			if after == len(ops) {
				return
			}
		}
	}
}

// disk is a file system with what is certain of it and what isn't.
type disk struct {
	dirs  map[string]*directory
	files map[string]*inode // by the name that a program sees
}

// directory is the entries of one, as far as they are certain, and their
// changes since.
type directory struct {
	certain map[string]*inode
	pending []change
}

// change is one of a directory: to, if set, is what the name refers to now, and
// from, if set, a name that is gone by the same change.
type change struct {
	name, from string
	to         *inode
}

// inode is a file, or a directory by its full name.
type inode struct {
	dir     string
	certain []byte
	pending []write
}

// write is one of a file, not certain; without data it makes room.
type write struct {
	offset, bytes int64
	data          []byte
}

func newDisk(base map[string][]byte) *disk {
	d := &disk{dirs: map[string]*directory{".": {certain: map[string]*inode{}}}, files: map[string]*inode{}}
	for _, name := range slices.Sorted(maps.Keys(base)) {
		i := &inode{certain: base[name]}
		if base[name] == nil {
			i.dir = name
			d.dirs[name] = &directory{certain: map[string]*inode{}}
		} else {
			d.files[name] = i
		}
		d.dirs[path.Dir(name)].certain[path.Base(name)] = i
	}
	return d
}

// do applies an operation.
func (d *disk) do(op dataio.Op, lies func(dataio.Op) bool) {
	parent := d.dirs[path.Dir(op.Name)]
	switch op.Kind {
	case dataio.OpMkdir:
		d.dirs[op.Name] = &directory{certain: map[string]*inode{}}
		parent.pending = append(parent.pending, change{name: path.Base(op.Name), to: &inode{dir: op.Name}})
	case dataio.OpCreate:
		i := &inode{certain: []byte{}}
		d.files[op.Name] = i
		parent.pending = append(parent.pending, change{name: path.Base(op.Name), to: i})
	case dataio.OpAllocate, dataio.OpWrite:
		i := d.files[op.Name]
		i.pending = append(i.pending, write{op.Offset, op.Bytes, op.Data})
	case dataio.OpRename:
		i := d.files[op.Name]
		delete(d.files, op.Name)
		d.files[op.To] = i
		parent.pending = append(parent.pending, change{name: path.Base(op.To), from: path.Base(op.Name), to: i})
	case dataio.OpRemove:
		delete(d.files, op.Name)
		parent.pending = append(parent.pending, change{name: path.Base(op.Name)})
	case dataio.OpSync:
		if lies == nil || !lies(op) {
			i := d.files[op.Name]
			i.certain, i.pending = i.left(func() bool { return true }), nil
		}
	case dataio.OpSyncDir:
		if lies == nil || !lies(op) {
			dir := d.dirs[op.Name]
			dir.certain, dir.pending = dir.left(func() bool { return true }), nil
		}
	}
}

// left returns the files that are left; chance says of each thing that isn't
// certain whether it is there.
func (d *disk) left(chance func() bool) map[string][]byte {
	files := map[string][]byte{}
	content := map[*inode][]byte{} // one may have two names
	var walk func(name string)
	walk = func(name string) {
		entries := d.dirs[name].left(chance)
		for _, entry := range slices.Sorted(maps.Keys(entries)) {
			i, full := entries[entry], path.Join(name, entry)
			if i.dir != "" {
				files[full] = nil
				walk(i.dir)
				continue
			}
			if content[i] == nil {
				content[i] = i.left(chance)
			}
			files[full] = content[i]
		}
	}
	walk(".")
	return files
}

// left returns the entries that are left.
func (d *directory) left(chance func() bool) map[string]*inode {
	entries := maps.Clone(d.certain)
	for _, c := range d.pending {
		if !chance() {
			continue
		}
		delete(entries, c.from)
		if c.to == nil {
			delete(entries, c.name)
		} else {
			entries[c.name] = c.to
		}
	}
	return entries
}

// left returns the content that is left, by sectors.
func (i *inode) left(chance func() bool) []byte {
	content := append([]byte{}, i.certain...)
	grow := func(to int64) {
		if more := to - int64(len(content)); more > 0 {
			content = append(content, make([]byte, more)...)
		}
	}
	for _, w := range i.pending {
		if w.data == nil {
			if chance() {
				grow(w.offset + w.bytes)
			}
			continue
		}
		for from := int64(0); from < w.bytes; {
			to := min((w.offset+from)/sectorBytes*sectorBytes+sectorBytes-w.offset, w.bytes)
			if chance() {
				grow(w.offset + to)
				copy(content[w.offset+from:], w.data[from:to])
			}
			from = to
		}
	}
	return content
}
