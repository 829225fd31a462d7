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
	"sync"
	"time"
)

// memberArgument makes this program a member. Its configuration is the first
// line of its standard input; it answers that one and each request after it
// with a line, and ends when its input does: with the harness at the latest.
const memberArgument = "member"

// Times that bound a member's beginning and end.
const (
	startTimeout = time.Minute
	stopTimeout  = 20 * time.Second
)

// endpoint is where a member is to be found.
type endpoint struct{ Name, Client, Peer string } // host:port

// memberConfig is what a member is told.
type memberConfig struct {
	System      string
	Self        endpoint
	All         []endpoint
	Dir         string
	Key, Secret string // of a Gridloom mesh
}

type request struct {
	Profile     string // begins one, into this file
	StopProfile bool
}

type answer struct {
	Err string
	CPU time.Duration // used so far
}

// served is a member that runs in this process.
type served struct {
	ready  <-chan struct{}
	failed <-chan error // it has ended by itself
	close  func() error
}

func runMember(in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	var cfg memberConfig
	if err := dec.Decode(&cfg); err != nil {
		return err
	}
	sys, ok := systemNamed(cfg.System)
	if !ok {
		return fmt.Errorf("there is no system %q", cfg.System)
	}
	m, err := sys.serve(&cfg)
	if err != nil {
		return errors.Join(err, enc.Encode(answer{Err: err.Error()}))
	}
	asked := make(chan error, 1)
	go func() { asked <- answerAll(dec, enc) }() // nothing is asked before ready has been said
	select {
	case <-m.ready:
		err = enc.Encode(answer{})
	case err = <-m.failed:
		err = errors.Join(err, enc.Encode(answer{Err: err.Error()}))
	case <-time.After(startTimeout):
		err = enc.Encode(answer{Err: fmt.Sprint("not ready within ", startTimeout)})
	case err = <-asked:
		return errors.Join(err, m.end())
	}
	if err == nil {
		select {
		case err = <-m.failed:
			err = fmt.Errorf("ended by itself: %w", err)
		case err = <-asked:
		}
	}
	return errors.Join(err, m.end())
}

// end closes the member. Whatever hangs on its way out must not outlive the
// harness by much.
func (m *served) end() error {
	watchdog := time.AfterFunc(stopTimeout, func() {
		fmt.Fprintln(os.Stderr, "bench member: not closed within", stopTimeout)
		os.Exit(2)
	})
	defer watchdog.Stop()
	return m.close()
}

// answerAll answers requests until there are no more.
func answerAll(dec *json.Decoder, enc *json.Encoder) error {
	var profile *os.File
	for {
		var req request
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
		}
		a := answer{CPU: processCPU()}
		if err != nil {
			a.Err = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

// member is a member's process, from the harness.
type member struct {
	endpoint
	cmd   *exec.Cmd
	in    io.WriteCloser
	enc   *json.Encoder
	dec   *json.Decoder
	log   string
	trace string // strace's output; "" without
}

// startMember starts a process, and does not wait until it is ready: members
// wait for each other.
func startMember(ctx context.Context, cfg *memberConfig, trace bool) (*member, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	m := &member{endpoint: cfg.Self, log: filepath.Join(cfg.Dir, "log")}
	args := []string{exe, memberArgument}
	if trace {
		m.trace = filepath.Join(cfg.Dir, "trace")
		args = append(traceCommand(m.trace), args...)
	}
	m.cmd = exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...) // close ends it, not ctx
	m.cmd.WaitDelay = stopTimeout
	log, err := os.Create(m.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	m.cmd.Stderr = log
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	m.enc, m.dec = json.NewEncoder(m.in), json.NewDecoder(stdout)
	if err := m.enc.Encode(cfg); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// wait is for the answer to what was sent. It ends with the process, which
// bounds its own start.
func (m *member) wait() (answer, error) {
	var a answer
	err := m.dec.Decode(&a)
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w%s", m.Name, err, logTail(m.log))
	}
	return a, err
}

func (m *member) ask(req request) (answer, error) {
	if err := m.enc.Encode(req); err != nil {
		return answer{}, fmt.Errorf("%s: %w%s", m.Name, err, logTail(m.log))
	}
	return m.wait()
}

func (m *member) close() error {
	m.in.Close()
	kill := time.AfterFunc(stopTimeout+5*time.Second, func() { m.cmd.Process.Kill() })
	defer kill.Stop()
	if err := m.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w%s", m.Name, err, logTail(m.log))
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
// members need to know each other's before one of them listens.
func reserve(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// closeAll closes members at the same time: one alone would wait for peers.
func closeAll(members []*member) error {
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
