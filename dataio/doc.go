// Package dataio keeps payloads as plain files on drives and hands them to the
// network without copying them.
//
// # On disk
//
//	DATA/FORMAT                     a node's data directory (Dir)
//	DATA/lock
//	DRIVE/drive.json                a drive: version, drive id, deployment, node
//	DRIVE/lock
//	DRIVE/probe, DRIVE/asked        there for a moment, written and read by Monitor and Probe
//	DRIVE/payload/<2 hex>/<uuid>    one payload, then its footer (footer.go)
//	DRIVE/payload/<2 hex>/<uuid>.new  what is to replace one, or a crash left of it
//
// Both kinds of directory are locked for as long as they are open, by the
// kernel, so that no crash leaves them locked; a second process is refused. A
// drive is used through the directory's descriptor from Open to Close: a file
// system that is unmounted from its path meanwhile is not written beneath.
// Before each new payload the path is looked at, and a drive that it doesn't
// lead to any more is Offline. What must not be formatted by mistake, a mount
// point without its mount, is told by Options.DriveID; that a drive and a copy of
// it aren't used together, by Options.Set.
//
// # The life of a payload
//
// Create checks the state, claims the space above the reserve, makes the file
// under its final name with O_EXCL below the held directory, and has the file
// system allocate it. Write appends and adds to the checksums. Commit appends
// the footer with a CRC32C for each MiB, and syncs the file, then its
// directory, and the directory above if it may be new. Only then is there a
// payload; whoever is to know it (the index) is told after Commit has
// returned. It is never renamed or changed. Open reads and checks the footer
// in one read; Section gives a LimitedReader over the *os.File, and Send moves
// it to a connection in windows, which on Linux is sendfile(2) for plaintext.
// Prefetch, before a window, waits for the drive instead of the sender, as long
// as a context says; Verified reads what it has compared with the checksums.
// Remove unlinks it; files that are open stay readable.
//
// On Linux a File that was closed is kept open for the next reader of the
// payload, for one at a time, with its footer, up to 512 on a drive and 30
// seconds. Before it is given out its inode is looked at, which shows whatever
// was done to it behind the drive's back; Remove, a replacement and Close let go
// of it, and a drive that has stalled, or has an Interceptor, gives none.
//
// A payload that turned out damaged is written again by CreateReplacement,
// under another name, synced, and renamed over the old file: whoever opens it
// gets the one or the other, also after a crash.
//
// After a crash a file without a valid footer may be left, which Open calls
// ErrCorrupted. Walk lists it like the others, and the one who compares with
// the index removes it. What is left of a replacement Walk removes itself.
//
// # What fails, and how
//
//	free space below the reserve    ReadOnly; Create: ErrNoSpace and ErrReadOnly; heals by itself
//	not enough space for a payload  Create or Write: ErrNoSpace; the file is removed
//	file system is read-only        ReadOnly until a probe could be written; ErrReadOnly
//	a sync fails, or a write by EIO Suspect until opened again; the copy is lost; ErrSuspect
//	the path leads elsewhere        Offline until it leads back; Create: ErrOffline
//	operations take long (Slow)     Degraded until three probes didn't; all works
//	one is under way for too long   Offline until three probes were quick; ErrOffline
//	64 are, or were given up        what would be one more: ErrOffline
//	a read fails                    that error; the state stays, other payloads may be well
//	bytes differ from their sums    Open or Verify: ErrCorrupted
//
// A failed sync is never tried again: the kernel has marked the pages clean,
// and the second try would succeed without them. Reading and removing work in
// every state but closed and stalled. What heals by itself does so when the drive
// is used, or within a second or two by Monitor, which a node runs for each of
// its drives. Drive.Errors counts what the file system refused; Events tells of
// it and of each new state. An Interceptor sees every single operation, and can
// be what fails.
//
// # Goroutines, locks, costs
//
// A system call can't be interrupted: one that hangs holds its goroutine. All
// work is done in the caller's, and ends when the kernel's call ends, but for
// Open, Prefetch and Verified: what they would have to wait for is done by a
// goroutine of its own, which the caller leaves behind when its context ends,
// one of at most StalledMax. Monitor has one that looks at the drive, and Close
// one that ends what is under way; both are waited for, unless the drive has
// stalled. Monitor also closes what was kept for too long. Else a context is looked at before each operation, and between the
// windows of Send. Lock order: Writer.mu, then Drive.mu, which is held for a few
// assignments only; operations.mu and idle.mu, the same, and pages.mu stand alone, but that inMemory.mu, the
// same again, may follow idle.mu.
//
// A payload costs one open file while it is written or read, 4 bytes of memory
// for each MiB, and on disk a footer of 48 bytes and 4 for each MiB. A put
// makes some 25 system calls besides its writes, two of which wait for the
// disk; opening one for reading makes 1 if it was kept, 5 if it is in memory, and
// three times as many if not. To find that a window is in memory takes one call, by which the
// kernel looks at each page: 75 µs for 4 MiB, 3 for 128 KiB; 1 µs where it did so within
// ten seconds, and has all of them still. The checksums cost
// 0.1 ms per MiB. Monitor writes a file of 4 KiB every 10 s.
//
// An ext4 that finds itself damaged gives its journal up a moment before it
// refuses writes, and an fsync within that moment returns 0: what was acknowledged
// then may be missing, as if this copy had been lost.
//
// On Windows a directory can't be synced, and FreeBSD isn't asked to allocate;
// elsewhere than on Linux fdatasync is the system's fsync (F_FULLFSYNC on
// macOS), and what is in memory isn't known, so that each Prefetch is a read.
package dataio
