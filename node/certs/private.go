package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrExposed is what ReadPrivate's errors about a file's mode wrap.
var ErrExposed = errors.New("others can read it")

// ReadPrivate reads a file that holds a secret, at most limit bytes of it, and
// refuses one that others than its owner can read or change. Its group may read
// it in two cases, in which nobody is let in by that: the group is root's (as
// systemd's credentials have it), or the file is root's and this process isn't,
// so that the group is the way by which it was given the file (as Kubernetes'
// fsGroup has it). What isn't a regular file, a pipe for instance, has no mode
// that means anything.
func ReadPrivate(name string, limit int64) ([]byte, error) {
	return readFile(name, limit, func(info fs.FileInfo) error {
		if !info.Mode().IsRegular() {
			return nil
		}
		return checkOwner(name, info)
	})
}

// checkMode is ReadPrivate's rule, for a file with these owners and a process
// with that effective user.
func checkMode(name string, mode fs.FileMode, owner, group, self int) error {
	perm := mode.Perm()
	groupMayRead := group == 0 || owner == 0 && self != 0
	switch {
	case perm&0o007 != 0, perm&0o030 != 0, perm&0o040 != 0 && !groupMayRead:
		return fmt.Errorf("%s holds a secret and has mode %04o: %w; make it 0600", name, perm, ErrExposed)
	}
	return nil
}

// readBounded reads a file that is no secret.
func readBounded(name string, limit int64) ([]byte, error) {
	return readFile(name, limit, func(fs.FileInfo) error { return nil })
}

// readFile reads a file if check has nothing against it.
func readFile(name string, limit int64, check func(fs.FileInfo) error) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of what is open: the name may be another file's by now
	if err != nil {
		return nil, err
	}
	if err := check(info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}
