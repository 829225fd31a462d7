package dataio

import (
	"errors"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readNowBytes is up to where reading bytes is cheaper than mapping the file to
// ask for its pages (2 µs and 11 µs for 16 KiB), and still next to nothing where
// bytes are to be sent without being read.
const readNowBytes = 16 << 10

// readNow reads, if it can be done without waiting for the disk, and reports
// whether it could be and whether the file system knows. This is not how bytes
// are sent: what was read is of no use.
func readNow(f *os.File, b []byte, off int64) (got, known bool) {
	var n int
	err := control(f, func(fd int) (err error) {
		n, err = unix.Preadv2(fd, [][]byte{b}, off, unix.RWF_NOWAIT)
		return err
	})
	if err != nil {
		return false, errors.Is(err, unix.EAGAIN)
	}
	return n == len(b), true
}

// resolveCached is RESOLVE_CACHED of openat2(2), since Linux 5.12.
const resolveCached = 0x20

// openNow opens a file below a directory for reading, if the names on the way
// to it are in memory; nil if not, or if there is another reason.
func openNow(dir *os.File, name string) *os.File {
	var fd int
	err := control(dir, func(at int) (err error) {
		fd, err = unix.Openat2(at, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_CLOEXEC,
			Resolve: resolveCached | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		return err
	})
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

// advise asks the kernel to read a range into its cache. It doesn't wait for
// the bytes, but may for the file system to find where they are.
func advise(f *os.File, off, n int64) {
	// Only advice: what goes wrong here goes wrong again when it is read.
	_ = control(f, func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED) })
}

// pageStates bounds what cached asks for in one call: 4 MiB in pages of 4 KiB.
const pageStates = 1024 + 1

// pages is a file mapped for nothing but to ask mincore(2) which of its pages
// are in memory and read: those that are on their way, which sendfile would
// wait for, are none. cachestat(2) counts them in. The mapping is never
// touched, and can't be: it has no permissions.
type pages struct {
	mu     sync.Mutex // guards what follows
	mapped unsafe.Pointer
	bytes  uintptr
	closed bool // or can't be mapped
}

// cached reports whether all of a range is in memory, and false if that isn't
// known.
func (p *pages) cached(f *os.File, fileBytes, off, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || int64(uintptr(fileBytes)) != fileBytes {
		return false
	}
	if p.mapped == nil {
		p.bytes = uintptr(fileBytes)
		err := control(f, func(fd int) (err error) {
			p.mapped, err = unix.MmapPtr(fd, 0, nil, p.bytes, unix.PROT_NONE, unix.MAP_SHARED)
			return err
		})
		if err != nil {
			p.mapped, p.closed = nil, true
			return false
		}
	}
	page := int64(os.Getpagesize())
	n += off % page
	off -= off % page
	var states [pageStates]byte
	for n > 0 {
		count := min((n+page-1)/page, pageStates)
		bytes := min(n, count*page)
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(p.mapped)+uintptr(off), uintptr(bytes),
			uintptr(unsafe.Pointer(&states)))
		if errno != 0 {
			return false
		}
		for _, state := range states[:count] {
			if state&1 == 0 {
				return false
			}
		}
		off += bytes
		n -= bytes
	}
	return true
}

// close gives the mapping back.
func (p *pages) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.mapped != nil {
		_ = unix.MunmapPtr(p.mapped, p.bytes) // it is one that MmapPtr made
		p.mapped = nil
	}
}
