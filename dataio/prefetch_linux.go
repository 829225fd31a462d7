package dataio

import (
	"io/fs"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// askNowBytes is up to where reading a byte of each page is cheaper than mapping
// the file to ask for them (2 µs and 11 µs for 16 KiB).
const askNowBytes = 16 << 10

// readNow reads, if it can be done without waiting for the disk, and reports
// whether it could be. This is not how bytes are sent: what was read is of no
// use.
func readNow(f *os.File, b []byte, off int64) bool {
	var n int
	err := control(f, func(fd int) (err error) {
		n, err = unix.Preadv2(fd, [][]byte{b}, off, unix.RWF_NOWAIT)
		return err
	})
	return err == nil && n == len(b)
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

// cached reports whether the kernel has each page of a range, be it read or on its
// way. That tells little alone, but takes a look at each folio and not at each page.
// It needs Linux 6.5.
func cached(f *os.File, off, n int64) bool {
	page := int64(os.Getpagesize())
	asked := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}
	var found unix.Cachestat_t
	err := control(f, func(fd int) error { return unix.Cachestat(uint(fd), &asked, &found, 0) })
	return err == nil && int64(found.Cache) >= (off+n+page-1)/page-off/page
}

// pageStates bounds what missing asks for in one call: 4 MiB in pages of 4 KiB.
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

// missing returns from where to where pages of a range aren't in memory; what is
// between may be. It is unknown if the kernel can't say.
func (p *pages) missing(f *os.File, fileBytes, off, n int64) (from, to int64, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mapLocked(f, fileBytes) {
		return 0, 0, false
	}
	page, end := int64(os.Getpagesize()), off+n
	from, to = end, end
	var states [pageStates]byte
	for at := off - off%page; at < end; {
		count := min((end-at+page-1)/page, pageStates)
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(p.mapped)+uintptr(at), uintptr(count*page),
			uintptr(unsafe.Pointer(&states)))
		if errno != 0 {
			return 0, 0, false
		}
		for _, state := range states[:count] {
			if state&1 == 0 {
				if from == end {
					from = max(at, off)
				}
				to = min(at+page, end)
			}
			at += page
		}
	}
	return from, to, true
}

// mapLocked maps the file, if it isn't yet and can be.
func (p *pages) mapLocked(f *os.File, fileBytes int64) bool {
	if p.closed || p.mapped != nil {
		return !p.closed
	}
	p.bytes = uintptr(fileBytes)
	p.closed = int64(p.bytes) != fileBytes // of 32 bits
	if p.closed {
		return false
	}
	err := control(f, func(fd int) error {
		mapped, err := unix.MmapPtr(fd, 0, nil, p.bytes, unix.PROT_NONE, unix.MAP_SHARED)
		if err == nil {
			p.mapped = mapped
		}
		return err
	})
	p.closed = err != nil
	return !p.closed
}

// unmapLocked gives the mapping back, for good.
func (p *pages) unmapLocked() {
	p.closed = true
	if p.mapped != nil {
		_ = unix.MunmapPtr(p.mapped, p.bytes) // it is one that MmapPtr made
		p.mapped = nil
	}
}

// close gives the mapping back.
func (p *pages) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unmapLocked()
}

// marks says that a fileMark tells whether a file is what it was.
const marks = true

// fileMark changes with whatever is done to a file: bytes, length, names.
type fileMark struct {
	inode, links     uint64
	size             int64
	changed, written unix.Timespec
}

// markFrom gives what a file was when it was looked at.
func markFrom(info fs.FileInfo) (m fileMark) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		m = fileMark{s.Ino, uint64(s.Nlink), s.Size, unix.Timespec(s.Ctim), unix.Timespec(s.Mtim)}
	}
	return m
}

// markOf looks at an open file. It doesn't read anything from the disk.
func markOf(f *os.File) (m fileMark, ok bool) {
	var s unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &s) }); err != nil || s.Nlink == 0 {
		return m, false
	}
	return fileMark{s.Ino, uint64(s.Nlink), s.Size, s.Ctim, s.Mtim}, true
}
