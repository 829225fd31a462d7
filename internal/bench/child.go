package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// ServeArgument makes a benchmark's program one of its servers: it then calls
// Serve instead of measuring.
const ServeArgument = "serve"

// Times that bound a server's beginning and end.
const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// Request is what a server is asked once it runs.
type Request struct {
	Profile     string // begins a profile of the processors, into this file
	StopProfile bool
	Heap        string // writes a profile of the heap, as it is, into this file
}

// Answer is a server's, to its configuration and to each request.
type Answer struct {
	Err string
	CPU time.Duration // that the process has used so far
}

// Served is a server that runs in this process.
type Served struct {
	Ready  <-chan struct{}
	Failed <-chan error // it has ended by itself
	Close  func() error
}

// Serve runs a server whose configuration, as JSON, is the first line of in. It
// answers that line and each request after it with a line, and ends when in
// does: with the harness at the latest.
func Serve[C any](in io.Reader, out io.Writer, open func(*C) (*Served, error)) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	cfg := new(C)
	if err := dec.Decode(cfg); err != nil {
		return err
	}
	s, err := open(cfg)
	if err != nil {
		return errors.Join(err, enc.Encode(Answer{Err: err.Error()}))
	}
	asked := make(chan error, 1)
	go func() { asked <- answerAll(dec, enc) }() // nothing is asked before ready has been said
	select {
	case <-s.Ready:
		err = enc.Encode(Answer{})
	case err = <-s.Failed:
		err = errors.Join(err, enc.Encode(Answer{Err: err.Error()}))
	case <-time.After(startTimeout):
		err = enc.Encode(Answer{Err: fmt.Sprint("not ready within ", startTimeout)})
	case err = <-asked:
		return errors.Join(err, s.end())
	}
	if err == nil {
		select {
		case err = <-s.Failed:
			err = fmt.Errorf("ended by itself: %w", err)
		case err = <-asked:
		}
	}
	return errors.Join(err, s.end())
}

// end closes the server. What hangs on its way out is left behind, for the end
// of the process.
func (s *Served) end() error {
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(stopTimeout):
		return fmt.Errorf("not closed within %v", stopTimeout)
	}
}

// answerAll answers requests until there are no more.
func answerAll(dec *json.Decoder, enc *json.Encoder) error {
	var profile *os.File
	for {
		var req Request
		if err := dec.Decode(&req); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var err error
		switch {
		case req.Profile != "":
			if profile, err = os.Create(req.Profile); err == nil {
				err = pprof.StartCPUProfile(profile)
			}
		case req.StopProfile && profile != nil:
			pprof.StopCPUProfile()
			err = profile.Close()
		case req.Heap != "":
			err = writeHeap(req.Heap)
		}
		a := Answer{CPU: CPUTime()}
		if err != nil {
			a.Err = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

// writeHeap writes what there was at the last collection. It makes none: that
// would change what is measured.
func writeHeap(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

// Child is a server's process, from the harness.
type Child struct {
	PID int

	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	enc  *json.Encoder
	dec  *json.Decoder
	log  string
}

// Start runs this program as a server with that configuration, and doesn't wait
// until it is ready (Wait): the nodes of a mesh wait for each other. What it says
// goes into dir, which is made. The words of wrap come before the program's own.
func Start(ctx context.Context, name, dir string, cfg any, wrap ...string) (*Child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &Child{name: name, log: filepath.Join(dir, "log")}
	args := append(wrap, exe, ServeArgument)
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...) // Close ends it, not ctx
	c.cmd.WaitDelay = stopTimeout
	log, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	c.cmd.Stderr = log
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.PID = c.cmd.Process.Pid
	c.enc, c.dec = json.NewEncoder(c.in), json.NewDecoder(stdout)
	if err := c.enc.Encode(cfg); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Wait is for the answer to what was sent: after Start, that the server is
// ready. It ends with the process, which bounds its own start.
func (c *Child) Wait() (Answer, error) {
	var a Answer
	err := c.dec.Decode(&a)
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	return a, c.failed(err)
}

// Ask sends a request and waits for its answer.
func (c *Child) Ask(req Request) (Answer, error) {
	if err := c.enc.Encode(req); err != nil {
		return Answer{}, c.failed(err)
	}
	return c.Wait()
}

// Close ends the process, and kills it if that takes too long.
func (c *Child) Close() error {
	_ = c.in.Close()
	kill := time.AfterFunc(stopTimeout+5*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	return c.failed(c.cmd.Wait())
}

func (c *Child) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w%s", c.name, err, LogTail(c.log))
}

// LogTail is the end of what a process has said, on a line of its own; "" where
// it has said nothing.
func LogTail(name string) string {
	b, err := os.ReadFile(name)
	if err != nil || len(b) == 0 {
		return ""
	}
	return "\n" + string(b[max(0, len(b)-2000):])
}

// Reserve finds free ports on 127.0.0.1. They are taken all at once, and given
// back: the nodes need to know each other's before one of them listens.
func Reserve(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
