package disk

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// bufferBytes is how much of a table is written at once. Pebble writes every
// block, of 4 KiB, by itself, and the five bytes behind it again.
const bufferBytes = 128 << 10

// buffered is a file system on which the tables of a store, and the files of
// their values, are written in large pieces. Nobody reads one before it is
// synced, and until then a crash may take it anyway. Logs are as they were: they
// are synced so often that there is nothing to put together.
type buffered struct{ vfs.FS }

// Create implements vfs.FS.
func (b buffered) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := b.FS.Create(name, category)
	if err == nil && (strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")) {
		f = &bufferedFile{File: f}
	}
	return f, err
}

// Unwrap implements vfs.FS.
func (b buffered) Unwrap() vfs.FS { return b.FS }

// bufferedFile is a file that is written from its begin to its end, and then
// synced. It is for one goroutine at a time.
type bufferedFile struct {
	vfs.File
	buf []byte
	err error // of an earlier write: what follows must not take its place
}

// Write implements vfs.File.
func (f *bufferedFile) Write(p []byte) (n int, err error) {
	if f.buf == nil {
		f.buf = make([]byte, 0, bufferBytes)
	}
	for len(p) > 0 && f.err == nil {
		m := copy(f.buf[len(f.buf):cap(f.buf)], p)
		f.buf, p, n = f.buf[:len(f.buf)+m], p[m:], n+m
		if len(f.buf) == cap(f.buf) {
			_ = f.flush()
		}
	}
	return n, f.err
}

func (f *bufferedFile) flush() error {
	if f.err == nil && len(f.buf) > 0 {
		_, f.err = f.File.Write(f.buf)
		f.buf = f.buf[:0]
	}
	return f.err
}

// Sync implements vfs.File.
func (f *bufferedFile) Sync() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f *bufferedFile) SyncData() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.File.SyncData()
}

// SyncTo implements vfs.File.
func (f *bufferedFile) SyncTo(length int64) (fullSync bool, err error) {
	if err := f.flush(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// Stat implements vfs.File.
func (f *bufferedFile) Stat() (vfs.FileInfo, error) {
	if err := f.flush(); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

// Close implements vfs.File.
func (f *bufferedFile) Close() error {
	err := f.flush()
	if e := f.File.Close(); err == nil {
		err = e
	}
	return err
}
