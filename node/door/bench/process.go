//go:build linux

package main

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

// serverArgument makes this program a server. Its configuration is the first
// line of its standard input; it answers that one and each request after it
// with a line, and ends when its input does: with the harness at the latest.
const serverArgument = "server"

// Times that bound a server's beginning and end.
const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// serverConfig is what a server is told.
type serverConfig struct {
	Kind        string // "gridloom", or "grpc" for the bare one
	Name        string
	Dir         string
	HTTP, GRPC  string // host:port
	Key, Secret string // of a Gridloom mesh
	Peer        string
	Peers       map[string]string // addresses by name; empty: it is alone
	Pool        string
	Drives      int
	TLS         bool  // on HTTP
	Size        int64 // of what the bare one streams
}

type serverRequest struct {
	Profile     string // begins one of the processors, into this file
	StopProfile bool
	Heap        string // writes a profile of the heap, as it is, into this file
}

type serverAnswer struct{ Err string }

// served is a server that runs in this process.
type served struct {
	ready  <-chan struct{}
	failed <-chan error // it has ended by itself
	close  func() error
}

func runServer(in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	var cfg serverConfig
	if err := dec.Decode(&cfg); err != nil {
		return err
	}
	serve := serveGridloom
	if cfg.Kind == "grpc" {
		serve = serveBareGRPC
	}
	s, err := serve(&cfg)
	if err != nil {
		return errors.Join(err, enc.Encode(serverAnswer{Err: err.Error()}))
	}
	asked := make(chan error, 1)
	go func() { asked <- answerAll(dec, enc) }() // nothing is asked before ready has been said
	select {
	case <-s.ready:
		err = enc.Encode(serverAnswer{})
	case err = <-s.failed:
		err = errors.Join(err, enc.Encode(serverAnswer{Err: err.Error()}))
	case <-time.After(startTimeout):
		err = enc.Encode(serverAnswer{Err: fmt.Sprint("not ready within ", startTimeout)})
	case err = <-asked:
		return errors.Join(err, s.end())
	}
	if err == nil {
		select {
		case err = <-s.failed:
			err = fmt.Errorf("ended by itself: %w", err)
		case err = <-asked:
		}
	}
	return errors.Join(err, s.end())
}

// end closes the server. Whatever hangs on its way out must not outlive the
// harness by much.
func (s *served) end() error {
	watchdog := time.AfterFunc(stopTimeout, func() {
		fmt.Fprintln(os.Stderr, "bench server: not closed within", stopTimeout)
		os.Exit(2)
	})
	defer watchdog.Stop()
	return s.close()
}

// answerAll answers requests until there are no more.
func answerAll(dec *json.Decoder, enc *json.Encoder) error {
	var profile *os.File
	for {
		var req serverRequest
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
		var a serverAnswer
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

// server is a server's process, from the harness.
type server struct {
	serverConfig
	process
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
	log string
}

func (s *server) processes() ([]process, error) { return []process{s.process}, nil }

// startServer starts a process, and does not wait until it is ready: the nodes
// of a mesh wait for each other.
func startServer(ctx context.Context, cfg serverConfig) (*server, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	s := &server{serverConfig: cfg, log: filepath.Join(cfg.Dir, "log")}
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), exe, serverArgument) // close ends it, not ctx
	s.cmd.WaitDelay = stopTimeout
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	s.cmd.Stderr = log
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.process = process(s.cmd.Process.Pid)
	s.enc, s.dec = json.NewEncoder(s.in), json.NewDecoder(stdout)
	if err := s.enc.Encode(cfg); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// wait is for the answer to what was sent. It ends with the process, which
// bounds its own start.
func (s *server) wait() error {
	var a serverAnswer
	err := s.dec.Decode(&a)
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w%s", s.Name, err, logTail(s.log))
	}
	return err
}

func (s *server) ask(req serverRequest) error {
	if err := s.enc.Encode(req); err != nil {
		return fmt.Errorf("%s: %w%s", s.Name, err, logTail(s.log))
	}
	return s.wait()
}

func (s *server) close() error {
	_ = s.in.Close()
	kill := time.AfterFunc(stopTimeout+5*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w%s", s.Name, err, logTail(s.log))
	}
	return nil
}

// logTail is the end of what a process has said.
func logTail(name string) string {
	b, err := os.ReadFile(name)
	if err != nil || len(b) == 0 {
		return ""
	}
	return "\n" + string(b[max(0, len(b)-2000):])
}

// reserve finds free ports. They are taken all at once, and given back: the
// nodes need to know each other's before one of them listens.
func reserve(n int) (addrs []string, err error) {
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
