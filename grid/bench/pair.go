package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"time"
)

// The far end of a measurement: a process of its own, which is this program
// again, or this process. The peer process takes commands as lines of JSON on
// its standard input, answers each with a line, and ends with its input.

// peerArgument makes this program a peer.
const peerArgument = "peer"

type command struct {
	Op    string // "serve", "usage", "profile", "stop-profile"
	GC    bool   // usage: collect garbage before
	Path  string // profile
	Setup setup
}

type reply struct {
	Err   string
	Addr  string
	Usage usage
}

// usage is what a process has used since it began, and holds now.
type usage struct {
	CPU        time.Duration // user and system
	Mallocs    uint64
	HeapBytes  uint64 // live objects, exact after a collection
	StackBytes uint64
	Goroutines int
}

func readUsage(gc bool) usage {
	if gc {
		runtime.GC()
		runtime.GC() // what pools held goes with the second
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{
		CPU: processCPU(), Mallocs: m.Mallocs, HeapBytes: m.HeapAlloc,
		StackBytes: m.StackInuse, Goroutines: runtime.NumGoroutine(),
	}
}

func (u usage) add(v usage) usage {
	return usage{u.CPU + v.CPU, u.Mallocs + v.Mallocs, u.HeapBytes + v.HeapBytes, u.StackBytes + v.StackBytes, u.Goroutines + v.Goroutines}
}

// runPeer is the peer process.
func runPeer(in io.Reader, out io.Writer) error {
	lines, answers := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	p := new(peer)
	for {
		var c command
		if err := lines.Decode(&c); err != nil {
			if err == io.EOF {
				err = nil
			}
			return errors.Join(err, p.stopProfile())
		}
		r, err := p.do(c)
		if err != nil {
			r.Err = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

type peer struct {
	heap    func() // lets go of what holdHeap holds
	end     farEnd
	profile *os.File
}

func (p *peer) do(c command) (r reply, err error) {
	switch c.Op {
	case "serve":
		p.heap = holdHeap(c.Setup.Heap)
		if p.end, err = serveStack(c.Setup); err == nil {
			r.Addr = p.end.addr()
		}
	case "usage":
		r.Usage = readUsage(c.GC)
	case "profile":
		p.profile, err = startProfile(c.Path)
	case "stop-profile":
		err = p.stopProfile()
	default:
		err = fmt.Errorf("command %q", c.Op)
	}
	return r, err
}

func (p *peer) stopProfile() error {
	if p.profile == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err := p.profile.Close()
	p.profile = nil
	return err
}

func startProfile(path string) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func serveStack(s setup) (farEnd, error) {
	if s.Stack == leavesStack {
		return serveLeaves(s)
	}
	st, ok := stackNamed(s.Stack)
	if !ok {
		return nil, fmt.Errorf("there is no stack %q", s.Stack)
	}
	return st.serve(s)
}

// far is the far end as the near one sees it.
type far interface {
	addr() string
	// usage is zero where the far end is in this process.
	usage(gc bool) (usage, error)
	profile(path string) (stop func() error, err error)
	close() error
}

// startFar starts the far end, in this process or in one of its own, which
// ctx ends the hard way.
func startFar(ctx context.Context, s setup, inProcess bool) (far, error) {
	if inProcess {
		end, err := serveStack(s)
		if err != nil {
			return nil, err
		}
		return &localFar{end}, nil
	}
	return startPeer(ctx, s)
}

type localFar struct{ farEnd }

func (*localFar) usage(bool) (usage, error) { return usage{}, nil }

func (*localFar) profile(string) (func() error, error) { return func() error { return nil }, nil }

// peerProcess is a far end in a process of its own.
type peerProcess struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
	at      string
}

func startPeer(ctx context.Context, s setup) (*peerProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &peerProcess{cmd: exec.CommandContext(ctx, self, peerArgument)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(bufio.NewReader(out))
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	r, err := p.ask(command{Op: "serve", Setup: s})
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.at = r.Addr
	return p, nil
}

func (p *peerProcess) ask(c command) (reply, error) {
	line, err := json.Marshal(c)
	if err != nil {
		return reply{}, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return reply{}, fmt.Errorf("peer: %w", err)
	}
	var r reply
	if err := p.answers.Decode(&r); err != nil {
		return reply{}, fmt.Errorf("peer: %w", err)
	}
	if r.Err != "" {
		return r, fmt.Errorf("peer: %s", r.Err)
	}
	return r, nil
}

func (p *peerProcess) addr() string { return p.at }

func (p *peerProcess) usage(gc bool) (usage, error) {
	r, err := p.ask(command{Op: "usage", GC: gc})
	return r.Usage, err
}

func (p *peerProcess) profile(path string) (func() error, error) {
	_, err := p.ask(command{Op: "profile", Path: path})
	return func() error {
		_, err := p.ask(command{Op: "stop-profile"})
		return err
	}, err
}

// close ends the process: politely, and after two seconds the other way.
func (p *peerProcess) close() error {
	p.in.Close()
	kill := time.AfterFunc(2*time.Second, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	return p.cmd.Wait()
}
