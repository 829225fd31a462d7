//go:build amd64 || arm64

package datatest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Call is one system call of a traced process.
type Call struct {
	Thread int       // the thread that made it
	Name   string    // "sendfile", "write", …: see traced
	Args   [6]uint64 // as the kernel got them
	Return int64     // what it returned; -errno is in Err instead
	Err    error     // a unix.Errno, or nil
	In     string    // what is read from: "socket:[4711]", "/tmp/x", "pipe:[5]"; "" if nothing is
	Out    string    // what is written to
}

// A Trace is what a process asked of the kernel, in the order of the returns.
// Calls that can't move or sync bytes are left out, but for those by which a
// process finds out whether they would wait for a disk.
type Trace struct {
	Calls []Call
}

// Select returns the calls with one of the names, and for which match, unless
// it is nil, is true.
func (t *Trace) Select(match func(Call) bool, names ...string) []Call {
	var found []Call
	for _, c := range t.Calls {
		for _, name := range names {
			if c.Name == name && (match == nil || match(c)) {
				found = append(found, c)
			}
		}
	}
	return found
}

// Bytes adds up what the calls that Select returns have moved.
func (t *Trace) Bytes(match func(Call) bool, names ...string) int64 {
	var sum int64
	for _, c := range t.Select(match, names...) {
		sum += c.moved()
	}
	return sum
}

// moved returns how many bytes the call moved, or mapped so that they can be
// read.
func (c Call) moved() int64 {
	switch {
	case c.Err != nil:
		return 0
	case c.Name == "mincore", c.Name == "cachestat", c.Name == "openat2", c.Name == "mmap" && c.Args[2] == unix.PROT_NONE:
		return 0
	case c.Name == "mmap":
		return int64(c.Args[1])
	}
	return c.Return
}

// ToSocket reports whether a call writes to a socket.
func ToSocket(c Call) bool { return strings.HasPrefix(c.Out, "socket:") }

// FromSocket reports whether a call reads from a socket.
func FromSocket(c Call) bool { return strings.HasPrefix(c.In, "socket:") }

// String counts the calls and their bytes by name and direction, a line each.
func (t *Trace) String() string {
	type row struct{ name, in, out string }
	class := func(s string) string {
		if i := strings.Index(s, ":["); i > 0 {
			return s[:i]
		}
		if strings.HasPrefix(s, "/") {
			return "file"
		}
		return s
	}
	var order []row
	count, bytes := map[row]int{}, map[row]int64{}
	for _, c := range t.Calls {
		r := row{c.Name, class(c.In), class(c.Out)}
		if count[r] == 0 {
			order = append(order, r)
		}
		count[r]++
		bytes[r] += c.moved()
	}
	var b strings.Builder
	for _, r := range order {
		fmt.Fprintf(&b, "%-16s %8d calls %12d bytes  %s -> %s\n", r.name, count[r], bytes[r], r.in, r.out)
	}
	return b.String()
}

// traced are the calls that are recorded, with the arguments that are the
// descriptors read from and written to; -1 is none.
var traced = map[uint64]struct {
	name    string
	in, out int
}{
	unix.SYS_SENDFILE:        {"sendfile", 1, 0},
	unix.SYS_SPLICE:          {"splice", 0, 2},
	unix.SYS_TEE:             {"tee", 0, 1},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", 0, 2},
	unix.SYS_READ:            {"read", 0, -1},
	unix.SYS_READV:           {"readv", 0, -1},
	unix.SYS_PREAD64:         {"pread64", 0, -1},
	unix.SYS_PREADV:          {"preadv", 0, -1},
	unix.SYS_PREADV2:         {"preadv2", 0, -1},
	unix.SYS_RECVFROM:        {"recvfrom", 0, -1},
	unix.SYS_RECVMSG:         {"recvmsg", 0, -1},
	unix.SYS_RECVMMSG:        {"recvmmsg", 0, -1},
	unix.SYS_WRITE:           {"write", -1, 0},
	unix.SYS_WRITEV:          {"writev", -1, 0},
	unix.SYS_PWRITE64:        {"pwrite64", -1, 0},
	unix.SYS_PWRITEV:         {"pwritev", -1, 0},
	unix.SYS_PWRITEV2:        {"pwritev2", -1, 0},
	unix.SYS_SENDTO:          {"sendto", -1, 0},
	unix.SYS_SENDMSG:         {"sendmsg", -1, 0},
	unix.SYS_SENDMMSG:        {"sendmmsg", -1, 0},
	unix.SYS_VMSPLICE:        {"vmsplice", -1, 0},
	unix.SYS_MMAP:            {"mmap", 4, -1},
	unix.SYS_IO_URING_ENTER:  {"io_uring_enter", -1, 0},
	unix.SYS_FSYNC:           {"fsync", -1, 0},
	unix.SYS_FDATASYNC:       {"fdatasync", -1, 0},
	unix.SYS_SYNC_FILE_RANGE: {"sync_file_range", -1, 0},
	unix.SYS_FALLOCATE:       {"fallocate", -1, 0},
	unix.SYS_FADVISE64:       {"fadvise64", 0, -1},
	unix.SYS_MINCORE:         {"mincore", -1, -1},
	unix.SYS_CACHESTAT:       {"cachestat", 0, -1},
	unix.SYS_OPENAT2:         {"openat2", -1, -1},
}

// maxCalls bounds a Trace; more is an error.
const maxCalls = 1 << 20

// tracer follows a process from its start to its end. All of it happens on one
// thread: the kernel takes ptrace requests from the tracing thread alone.
type tracer struct {
	process *os.Process
	threads map[int]*Call // by thread: in a call that is recorded, nil outside
	trace   Trace
	status  unix.WaitStatus // how the process ended
}

// run starts a process by start, tells started how that went, and follows it
// until it and all its threads have ended.
func (t *tracer) run(start func() (*os.Process, error), started chan<- error) error {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	err := t.attach(start)
	started <- err
	if err != nil {
		return nil // told already
	}
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ECHILD {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("wait4", err)
		}
		if err := t.stopped(tid, status); err != nil {
			t.process.Kill()
			return errors.Join(err, t.drain())
		}
	}
}

// attach starts the process, which waits at its first instruction.
func (t *tracer) attach(start func() (*os.Process, error)) error {
	var err error
	if t.process, err = start(); err != nil {
		return err
	}
	t.threads = map[int]*Call{t.process.Pid: nil}
	var status unix.WaitStatus
	if _, err := unix.Wait4(t.process.Pid, &status, unix.WALL, nil); err != nil {
		return os.NewSyscallError("wait4", err)
	}
	if !status.Stopped() {
		return fmt.Errorf("the process ended with status %#x before it was traced", int(status))
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	err = unix.PtraceSetOptions(t.process.Pid, options)
	if err == nil {
		err = unix.PtraceSyscall(t.process.Pid, 0)
	}
	if err != nil {
		t.process.Kill()
		return errors.Join(os.NewSyscallError("ptrace", err), t.drain())
	}
	return nil
}

// drain reaps a process that was killed.
func (t *tracer) drain() error {
	for {
		_, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOTHREAD, nil)
		if err == unix.ECHILD {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("wait4", err)
		}
	}
}

// stopped deals with a change of a thread's state and lets it go on.
func (t *tracer) stopped(tid int, status unix.WaitStatus) error {
	if !status.Stopped() {
		delete(t.threads, tid)
		if tid == t.process.Pid {
			t.status = status
		}
		return nil
	}
	deliver := 0
	_, known := t.threads[tid]
	switch signal := status.StopSignal(); {
	case signal == unix.SIGTRAP|0x80: // at the begin or the end of a system call
		if err := t.syscall(tid); err != nil {
			return err
		}
	case signal == unix.SIGTRAP && status.TrapCause() > 0: // it made a thread, or exec
	case signal == unix.SIGSTOP && !known: // a new thread, before its first instruction
		t.threads[tid] = nil
	default:
		deliver = int(signal)
	}
	// ESRCH: it was killed while it was stopped; its end is reported next.
	if err := unix.PtraceSyscall(tid, deliver); err != nil && err != unix.ESRCH {
		return os.NewSyscallError("ptrace", err)
	}
	return nil
}

// The layout of struct ptrace_syscall_info, linux/ptrace.h, since Linux 5.3; it
// is the same on every architecture.
const (
	ptraceGetSyscallInfo = 0x420e
	syscallInfoBytes     = 88
	syscallInfoEntry     = 1  // in byte 0
	syscallInfoExit      = 2  // in byte 0
	syscallInfoNumber    = 24 // entry: number, then six arguments, 8 bytes each
	syscallInfoReturn    = 24 // exit: the result, then a byte that is 1 if it is -errno
)

// syscall records the begin or the end of a call.
func (t *tracer) syscall(tid int) error {
	var info [syscallInfoBytes]byte
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), syscallInfoBytes,
		uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno == unix.ESRCH {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("PTRACE_GET_SYSCALL_INFO (Linux 5.3): %w", errno)
	}
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(info[at:]) }
	switch info[0] {
	case syscallInfoEntry:
		call, ok := traced[word(syscallInfoNumber)]
		if !ok {
			return nil
		}
		c := &Call{Thread: tid, Name: call.name}
		for i := range c.Args {
			c.Args[i] = word(syscallInfoNumber + 8 + 8*i)
		}
		c.In, c.Out = t.descriptor(c, call.in), t.descriptor(c, call.out)
		t.threads[tid] = c
	case syscallInfoExit:
		c := t.threads[tid]
		t.threads[tid] = nil
		if c == nil || c.Name == "mmap" && c.In == "" {
			return nil
		}
		c.Return = int64(word(syscallInfoReturn))
		if info[syscallInfoReturn+8] != 0 {
			c.Err = unix.Errno(-c.Return)
		}
		if len(t.trace.Calls) == maxCalls {
			return fmt.Errorf("more than %d calls", maxCalls)
		}
		t.trace.Calls = append(t.trace.Calls, *c)
	}
	return nil
}

// descriptor says what the descriptor in an argument refers to.
func (t *tracer) descriptor(c *Call, argument int) string {
	if argument < 0 || int32(c.Args[argument]) < 0 {
		return ""
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.process.Pid, int32(c.Args[argument])))
	if err != nil {
		return "unknown"
	}
	return name
}
