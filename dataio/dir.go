package dataio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

const (
	lockName   = "lock"
	formatName = "FORMAT"
	// format is the content of FORMAT. A version that lays out a data
	// directory differently writes another number.
	format = "gridloom 2\n"
	// newSuffix marks a file that was about to replace another.
	newSuffix = ".new"
)

// A Dir is a node's data directory, held by this process:
//
//	DATA/FORMAT  "gridloom 2\n"
//	DATA/lock    locked while the directory is open; its content has no meaning
//
// What else is in it belongs to those who put it there.
type Dir struct {
	held *held
}

// OpenDir opens the data directory dir for this process alone. It is created if
// there is none, and given its FORMAT if it is blank. A directory with another
// FORMAT, or with files but no FORMAT, fails with ErrUnknownFormat, one that is
// in use with ErrLocked; both are left as they were.
func OpenDir(dir string) (*Dir, error) {
	h, err := hold("open data directory", dir, checkFormat)
	if err != nil {
		return nil, err
	}
	if h.blank {
		if err := h.replaceFile(formatName, []byte(format), 0o600); err != nil {
			h.discard()
			return nil, &Error{Op: "open data directory", Path: h.path, Err: err}
		}
		h.keep()
	}
	return &Dir{held: h}, nil
}

// Path returns the directory, absolute.
func (d *Dir) Path() string { return d.held.path }

// ReadFile reads a file below the directory. It is fs.ErrNotExist if there is
// none.
func (d *Dir) ReadFile(name string) ([]byte, error) { return d.held.root.ReadFile(name) }

// WriteFile replaces a file right below the directory by one with this
// content: after a crash it is the old one or the new one, and after the
// return, the new one.
func (d *Dir) WriteFile(name string, content []byte, perm fs.FileMode) error {
	if err := d.held.replaceFile(name, content, perm); err != nil {
		return &Error{Op: "write " + name, Path: d.held.path, Err: err}
	}
	return nil
}

// Close gives the directory free. A second Close does nothing.
func (d *Dir) Close() error { return d.held.release() }

// checkFormat decides whether a directory may be used as a data directory.
func checkFormat(h *held) (blank bool, err error) {
	content, err := readSmall(h.root, formatName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		foreign, err := h.firstForeign()
		if err != nil || foreign == "" {
			return err == nil, err
		}
		return false, &Error{Kind: ErrUnknownFormat, Err: fmt.Errorf("it holds %q but no %s", foreign, formatName)}
	case err != nil:
		return false, err
	case string(content) != format:
		return false, &Error{Kind: ErrUnknownFormat, Err: fmt.Errorf("%s says %.40q, this version reads %q", formatName, content, format)}
	}
	return false, nil
}

// held is a directory that this process alone uses. Its root is open for as
// long, so that nothing is written beneath a mount point whose file system
// went away.
type held struct {
	path  string // absolute
	root  *os.Root
	dir   *os.File // root again, to sync its entries and ask for its usage
	lock  *os.File
	blank bool // nothing of ours or anybody's was in it
	made  bool // hold made the directory itself

	once sync.Once // for release
}

// hold opens and locks a directory, after check has said that it may be used:
// once before the lock, so that a foreign directory isn't even given a lock
// file, and once under it, as another process may have formatted it meanwhile.
func hold(op, path string, check func(*held) (blank bool, err error)) (_ *held, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, &Error{Op: op, Path: path, Err: err}
	}
	h := &held{path: abs}
	defer func() {
		var e *Error
		if err == nil {
			return
		} else if errors.As(err, &e) {
			e.Op, e.Path = op, abs
		} else {
			err = &Error{Op: op, Path: abs, Err: err}
		}
		h.discard()
	}()
	if h.made, err = makeDirs(abs); err != nil {
		return nil, err
	}
	if h.root, err = os.OpenRoot(abs); err != nil {
		return nil, err
	}
	if h.dir, err = h.root.Open("."); err != nil {
		return nil, err
	}
	if h.blank, err = check(h); err != nil {
		return nil, err
	}
	// Only for reading: a file system can't be remounted read-only, nor used when
	// it was, with a file in it that is open for writing.
	if h.lock, err = h.root.OpenFile(lockName, os.O_RDONLY|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if locked, err := h.tryLock(); err != nil {
		return nil, fmt.Errorf("%s: %w", lockName, err)
	} else if !locked {
		h.keep() // it is somebody's
		return nil, &Error{Kind: ErrLocked}
	}
	if h.blank, err = check(h); err != nil {
		h.keep()
		return nil, err
	}
	// A process that was killed may have made entries and not synced them.
	if err := syncDir(h.dir); err != nil {
		return nil, err
	}
	return h, nil
}

// makeDirs makes a directory and those above it, durably, and reports whether
// there was none.
func makeDirs(path string) (made bool, err error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	parent := filepath.Dir(path)
	if _, err := makeDirs(parent); err != nil {
		return false, err
	}
	if err := os.Mkdir(path, 0o700); errors.Is(err, fs.ErrExist) {
		return false, nil // another node of this process was quicker
	} else if err != nil {
		return false, err
	}
	dir, err := os.Open(parent)
	if err != nil {
		return true, err
	}
	defer dir.Close()
	return true, syncDir(dir)
}

// tryLock locks the lock file, if it still has its name: a first start that
// failed removes its own.
func (h *held) tryLock() (bool, error) {
	if locked, err := lockFile(h.lock); err != nil || !locked {
		return false, err
	}
	locked, err := h.lock.Stat()
	if err != nil {
		return false, err
	}
	named, err := h.root.Stat(lockName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, named), err
}

// keep tells that the directory is not blank any more, so nothing of it is to
// be removed.
func (h *held) keep() { h.blank, h.made = false, false }

// discard releases the directory after a failure; a blank one is left blank.
func (h *held) discard() {
	if h.blank && h.lock != nil {
		h.root.Remove(lockName)
	}
	h.release()
	if h.made {
		os.Remove(h.path)
	}
}

// release unlocks and closes the directory. Again, it does nothing.
func (h *held) release() error {
	var errs []error
	h.once.Do(func() {
		for _, f := range []*os.File{h.lock, h.dir} {
			if f != nil {
				errs = append(errs, f.Close())
			}
		}
		if h.root != nil {
			errs = append(errs, h.root.Close())
		}
	})
	return errors.Join(errs...)
}

// firstForeign returns the name of an entry that keeps the directory from
// being blank, "" if there is none. What file systems put into their root
// doesn't count, nor what an interrupted first start left.
func (h *held) firstForeign() (string, error) {
	if _, err := h.dir.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	for {
		entries, err := h.dir.ReadDir(16)
		for _, e := range entries {
			ours := []string{lockName, formatName + newSuffix, identityName + newSuffix}
			if !slices.Contains(ours, e.Name()) && !slices.Contains(fileSystemsOwn, e.Name()) {
				return e.Name(), nil
			}
		}
		if err == io.EOF {
			return "", nil
		}
		if err != nil {
			return "", err
		}
	}
}

// fileSystemsOwn are entries in the root of a new file system.
var fileSystemsOwn = []string{"lost+found", "System Volume Information", "$RECYCLE.BIN"}

// replaceFile writes a file durably in the place of another or of none.
func (h *held) replaceFile(name string, content []byte, perm fs.FileMode) error {
	if filepath.Base(name) != name {
		return fmt.Errorf("%q is not the name of a file right below", name)
	}
	temporary := name + newSuffix
	if err := h.root.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := h.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(content))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = h.root.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, h.root.Remove(temporary))
	}
	return syncDir(h.dir)
}

// smallFileBytes bounds FORMAT and drive.json, which take far less.
const smallFileBytes = 64 << 10

// readSmall reads a file that has at most smallFileBytes.
func readSmall(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, smallFileBytes+1))
	if err == nil && len(content) > smallFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", name, smallFileBytes)
	}
	return content, err
}
