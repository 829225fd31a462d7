//go:build amd64 || arm64

package datatest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// childVariable makes the test that it names the traced child.
	childVariable = "GRIDLOOM_TRACED_CHILD"
	// skipVariable allows to go without ptrace where it is forbidden.
	skipVariable = "GRIDLOOM_NO_PTRACE"
	// patience is how long a child may take.
	patience = 2 * time.Minute
)

// Traced runs child in a process of its own and parent in this one, side by
// side, and returns what child's process asked of the kernel, from its start to
// its end. The two talk through the Link; what both need to know beforehand
// (a directory) parent tells child.
//
//	trace := datatest.Traced(t, func(t *testing.T, l *datatest.Link) {
//		…listen…
//		l.Say(address)
//		l.Wait() // until parent has returned
//	}, func(t *testing.T, l *datatest.Link) {
//		address := l.Hear()
//		…
//	})
//
// The child is this test's binary, started again with -test.run for this test
// alone: what the test does before Traced is done in the child too, and what
// comes after it is not. Therefore call it first. The child ends by os.Exit when
// its function returns, without its t.Cleanup: a directory for it comes from
// the parent. It is killed if it hasn't ended after two minutes, or when the
// test does.
//
// Without permission to trace, the test fails, unless GRIDLOOM_NO_PTRACE=1
// says that this is known: then it is skipped. It takes Linux 5.3.
func Traced(t *testing.T, child, parent func(t *testing.T, l *Link)) *Trace {
	t.Helper()
	if os.Getenv(childVariable) == t.Name() {
		runChild(t, child)
	}
	if os.Getenv(skipVariable) == "1" {
		t.Skipf("%s=1: what the kernel is asked to do is not looked at", skipVariable)
	}
	down, toChild := pipe(t)
	fromChild, up := pipe(t)
	output, err := os.CreateTemp(t.TempDir(), "output")
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()

	tr := &tracer{}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		ended <- tr.run(func() (*os.Process, error) { return startChild(t.Name(), output, down, up) }, started)
	}()
	if err := <-started; err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Fatalf("ptrace is forbidden here (%v): allow it, or set %s=1 to go without this proof", err, skipVariable)
		}
		t.Fatalf("start a traced child: %v", err)
	}
	down.Close()
	up.Close()
	// Whichever way the test ends, the child and the goroutine end before it.
	timer := time.AfterFunc(patience, func() { tr.process.Kill() })
	join := sync.OnceValue(func() error { return <-ended })
	t.Cleanup(func() { timer.Stop(); tr.process.Kill(); join(); tr.process.Release() })

	link := &Link{t: t, in: bufio.NewReader(fromChild), out: toChild}
	if err := fromChild.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the traced child said:\n%s", tail(output.Name()))
		}
	})
	parent(t, link)
	toChild.Close()
	if err := join(); err != nil {
		t.Fatalf("trace: %v", err)
	}
	if !tr.status.Exited() || tr.status.ExitStatus() != 0 {
		t.Fatalf("the traced child ended with status %#x", int(tr.status))
	}
	return &tr.trace
}

// startChild starts this binary for one test, to be traced by this thread.
func startChild(test string, output, down, up *os.File) (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pattern := strings.Split(test, "/")
	for i, part := range pattern {
		pattern[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess(self, []string{self, "-test.run=" + strings.Join(pattern, "/"), "-test.count=1", "-test.v"}, &os.ProcAttr{
		Env:   append(os.Environ(), childVariable+"="+test),
		Files: []*os.File{null, output, output, down, up},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
}

// runChild is the child: it runs the function and ends the process.
func runChild(t *testing.T, child func(t *testing.T, l *Link)) {
	returned := false
	defer func() {
		if t.Failed() || t.Skipped() {
			os.Exit(1)
		}
		if returned {
			os.Exit(0)
		}
		// A panic goes on.
	}()
	child(t, &Link{t: t, in: bufio.NewReader(os.NewFile(3, "link")), out: os.NewFile(4, "link")})
	returned = true
}

// pipe returns the two ends of a pipe, which are closed with the test.
func pipe(t *testing.T) (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// tail returns the end of a file.
func tail(name string) string {
	const most = 16 << 10
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}

// A Link is one end of the connection between a traced child and its parent.
type Link struct {
	t   *testing.T
	in  *bufio.Reader
	out io.WriteCloser
}

// Say sends a line.
func (l *Link) Say(line string) {
	l.t.Helper()
	if _, err := fmt.Fprintf(l.out, "%s\n", line); err != nil {
		l.t.Fatalf("say %q: %v", line, err)
	}
}

// Hear returns the next line that the other end has said.
func (l *Link) Hear() string {
	l.t.Helper()
	line, err := l.in.ReadString('\n')
	if err != nil {
		l.t.Fatalf("hear: the other end said %q and no more: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// Wait returns when the other end has returned.
func (l *Link) Wait() {
	l.t.Helper()
	if rest, err := io.ReadAll(l.in); err != nil || len(rest) > 0 {
		l.t.Fatalf("wait: the other end said %q (%v)", rest, err)
	}
}
