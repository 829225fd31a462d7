package dataio

import (
	"errors"
	"io/fs"
	"strings"
)

// The kinds of errors, for errors.Is. Every error of a Drive, a Writer, a File
// or a Dir is an *Error that wraps one of them where one fits.
var (
	// ErrNotFound: there is no committed payload with this id. It is also
	// fs.ErrNotExist.
	ErrNotFound error = &kind{"payload not found", fs.ErrNotExist}
	// ErrExists: the id was used before; a payload is written once. It is also
	// fs.ErrExist.
	ErrExists error = &kind{"payload exists already", fs.ErrExist}
	// ErrNoSpace: writing it would leave less than the reserve free, or the
	// file system said that it, or a quota, is full.
	ErrNoSpace = errors.New("no space left")
	// ErrReadOnly: the drive takes no new payload; reading and removing work.
	// With ErrNoSpace it is full, without it the file system is read-only.
	ErrReadOnly = errors.New("drive is read-only")
	// ErrSuspect: a sync or a write failed, on this call or since the drive
	// was opened. What was being written is lost; the drive takes no new
	// payload until it is opened again.
	ErrSuspect = errors.New("drive is suspect")
	// ErrOffline: the drive was closed, it has stalled, or its path no longer
	// leads to it.
	ErrOffline = errors.New("drive is offline")
	// ErrCorrupted: what is stored is not what was written.
	ErrCorrupted = errors.New("corrupted")
	// ErrForeign: the directory belongs to another deployment or node, or
	// holds files that are not ours.
	ErrForeign = errors.New("directory is not ours")
	// ErrDuplicate: a drive with the same id is open in another directory.
	ErrDuplicate = errors.New("drive is open in another directory")
	// ErrLocked: another process, or this one, has the directory open.
	ErrLocked = errors.New("directory is in use by another process")
	// ErrUnknownFormat: written by a version that this one can't read.
	ErrUnknownFormat = errors.New("unknown format")
	// ErrSize: more or fewer bytes were written than Create was told, or more
	// than MaxPayloadBytes.
	ErrSize = errors.New("wrong payload size")
	// ErrRange: an offset or length that the payload doesn't have.
	ErrRange = errors.New("range is outside the payload")
)

// kind is a sentinel that is also one of the standard library's.
type kind struct {
	text string
	is   error
}

func (k *kind) Error() string        { return k.text }
func (k *kind) Is(target error) bool { return target == k.is }

// Error says which operation failed, on which directory, about which payload,
// and why.
type Error struct {
	Op   string // what was called: "create", "commit", "open", …
	Path string // the drive's or the data directory
	ID   ID     // the payload; zero where it is about the whole directory
	Kind error  // one of the Err… above; nil where none fits
	Err  error  // the cause; nil where the kind says it all
}

// Error returns, for example, "create 6fa4…: /mnt/a: no space left: 10 bytes
// needed, 4 free above the reserve".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if !e.ID.IsZero() {
		b.WriteString(" " + e.ID.String())
	}
	b.WriteString(": " + e.Path)
	if e.Kind != nil {
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the kind and the cause, those that are set.
func (e *Error) Unwrap() []error {
	switch {
	case e.Kind == nil && e.Err == nil:
		return nil
	case e.Kind == nil:
		return []error{e.Err}
	case e.Err == nil:
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
