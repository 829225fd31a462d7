package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// traceCommand begins the command line of a process whose sync system calls
// are written to a file, one a line with its time. --seccomp-bpf leaves all
// other system calls at their speed.
func traceCommand(file string) []string {
	return []string{"strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-e", "signal=none", "-e", "trace=" + strings.Join(tracedCalls, ","), "-o", file}
}

// tracedCalls are those that wait for the disk. sync_file_range is not among
// them: it starts writing, and makes nothing durable.
var tracedCalls = []string{"fsync", "fdatasync", "syncfs", "sync", "msync"}

// errNoTrace says why the syncs are not known.
var errNoTrace = errors.New("not measured: it takes strace in PATH, 5.3 or later")

// measureTraced is a row whose figure is the number of syncs: on meshes of
// its own, one system after the other, each in the rounds that the row has.
func (p *plan) measureTraced(ctx context.Context, r *row) (*results, error) {
	res := newResults(r)
	for _, sys := range p.systems {
		if _, err := exec.LookPath("strace"); err != nil {
			res.Add(sys.name, nil, errNoTrace)
			continue
		}
		samples, err := p.traced(ctx, r, sys)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			res.Add(sys.name, nil, err)
		}
		for _, s := range samples {
			res.Add(sys.name, s, nil)
		}
	}
	return res, nil
}

func (p *plan) traced(ctx context.Context, r *row, sys *system) (samples []sample, err error) {
	m, err := openMesh(ctx, sys, meshOptions{dir: p.dir, trace: true})
	if err != nil {
		return nil, err
	}
	var rounds []*outcome
	for range min(p.runs, 3) {
		o, err := m.run(ctx, p.work(r), []*mesh{m})
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		rounds = append(rounds, o)
	}
	if err := m.close(); err != nil { // the traces are whole from here on
		return nil, err
	}
	for _, o := range rounds {
		o.sample[syncsAll] = 0
		for i, member := range m.members {
			n, err := countSyncs(member.trace, o.from, o.to)
			if err != nil {
				return nil, err
			}
			each := float64(n) / float64(o.done)
			o.sample[syncsAll] += each
			if i == o.leader {
				o.sample[syncsLeader] = each
			}
		}
		samples = append(samples, o.sample)
	}
	return samples, nil
}

// countSyncs counts the calls in a trace that began within a time.
func countSyncs(file string, from, to time.Time) (n int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		at, ok, err := parseSync(sc.Text())
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		if ok && !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n, sc.Err()
}

// parseSync tells when the call began that a line of strace's is about. A line
// that resumes a call, or tells of a thread's end, is not of one's beginning.
//
//	4711  1795324135.967531 fdatasync(3) = 0
//	4711  1795324135.967531 fdatasync(3 <unfinished ...>
//	4711  1795324135.968000 <... fdatasync resumed>) = 0
func parseSync(line string) (at time.Time, ok bool, err error) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return at, false, fmt.Errorf("strace wrote %q", line)
	}
	name, _, call := strings.Cut(fields[2], "(")
	if !call || strings.HasPrefix(name, "<") || strings.HasPrefix(name, "+") {
		return at, false, nil
	}
	seconds, fraction, _ := strings.Cut(fields[1], ".")
	s, err1 := strconv.ParseInt(seconds, 10, 64)
	us, err2 := strconv.ParseInt(fraction, 10, 64)
	if err := errors.Join(err1, err2); err != nil || len(fraction) != 6 {
		return at, false, fmt.Errorf("strace wrote %q: %w", line, err)
	}
	return time.Unix(s, us*1000), true, nil
}
