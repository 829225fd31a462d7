// Command bench measures Gridloom's index beside a three-member etcd: small
// puts and linearizable reads through the public gRPC API of each.
//
// Each system has three members on loopback, every one of them this program
// again in a process of its own, with its files in one directory on one file
// system. This process has the clients. Both systems stay up; one at a time
// is under load, the runs are interleaved, and every second run begins with
// the other, so that whatever else the machine does hits both alike. A ratio
// is the median of the ratios within the runs.
//
//	go run . -list
//	go run . -rows 'put-.*' -runs 9 -time 5s
//	go run . -rows put-64 -systems gridloom -profile /tmp/profiles
//
// It ends by itself, at the latest after -limit, and removes what it wrote.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/gridloom/gridloom/internal/bench"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == bench.ServeArgument {
		if err := bench.Serve(os.Stdin, os.Stdout, serve); err != nil {
			fmt.Fprintln(os.Stderr, "bench member:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is what the flags ask for.
type plan struct {
	rows     []row
	systems  []*system
	dir      string // directory to make the systems' directories in
	runs     int
	clients  int
	conns    int // connections that they share
	size     int // bytes of a value
	keys     int // written for the reads
	warm     time.Duration
	time     time.Duration
	limit    time.Duration
	profiles string
	list     bool
}

func parsePlan(args []string, out io.Writer) (*plan, error) {
	p := new(plan)
	var rowPattern, systemList string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&rowPattern, "rows", ".*", "regular expression of the rows to measure; see -list")
	fs.StringVar(&systemList, "systems", "gridloom,etcd", "comma-separated systems to measure")
	fs.StringVar(&p.dir, "dir", "", "directory on the disk to measure; a temporary directory without")
	fs.IntVar(&p.runs, "runs", 5, "runs of each row")
	fs.IntVar(&p.clients, "clients", 64, "clients in the rows named …-many")
	fs.IntVar(&p.conns, "conns", 0, "gRPC connections that they share; 0: each has its own")
	fs.IntVar(&p.size, "size", 4<<10, "bytes of a value")
	fs.IntVar(&p.keys, "keys", 1000, "keys that the reads pick from")
	fs.DurationVar(&p.time, "time", 2*time.Second, "how long each run is measured")
	fs.DurationVar(&p.warm, "warm", 500*time.Millisecond, "how long it goes before that")
	fs.DurationVar(&p.limit, "limit", 15*time.Minute, "all ends after this")
	fs.StringVar(&p.profiles, "profile", "", "directory for CPU profiles, ROW.SYSTEM.MEMBER.pprof; the last run's stay")
	fs.BoolVar(&p.list, "list", false, "list rows")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	pattern, err := regexp.Compile("^(?:" + rowPattern + ")$")
	switch {
	case err != nil:
		return nil, fmt.Errorf("-rows: %w", err)
	case fs.NArg() > 0:
		return nil, fmt.Errorf("no argument is taken, %q was given", fs.Arg(0))
	case p.runs < 1 || p.runs > 1000 || p.clients < 1 || p.clients > 10_000 || p.size < 1 || p.size > 1<<20 || p.keys < 1 || p.keys > 1e6:
		return nil, errors.New("-runs, -clients, -size or -keys is out of bounds")
	case p.conns < 0 || p.time <= 0 || p.warm <= 0 || p.limit <= 0:
		return nil, errors.New("-conns is negative, or a time is not positive")
	}
	if p.conns == 0 || p.conns > p.clients {
		p.conns = p.clients
	}
	for _, r := range rows() {
		if pattern.MatchString(r.id) {
			p.rows = append(p.rows, r)
		}
	}
	if len(p.rows) == 0 {
		return nil, fmt.Errorf("-rows %q names none; see -list", rowPattern)
	}
	for name := range strings.SplitSeq(systemList, ",") {
		sys, ok := systemNamed(name)
		if !ok {
			return nil, fmt.Errorf("-systems: there is no %q", name)
		}
		p.systems = append(p.systems, sys)
	}
	if p.profiles != "" {
		if err := os.MkdirAll(p.profiles, 0o755); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	p, err := parsePlan(args, out)
	if err != nil {
		return err
	}
	if p.list {
		for _, r := range rows() {
			fmt.Fprintf(out, "%-14s %s\n", r.id, r.title(p))
		}
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.limit, fmt.Errorf("not done within -limit %v", p.limit))
	defer cancel()
	if p.dir, err = os.MkdirTemp(p.dir, "gridloom-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.dir)) }()
	start := time.Now()
	facts, err := machineFacts(p.dir)
	if err != nil {
		return err
	}
	for _, fact := range facts {
		fmt.Fprintln(out, "- "+fact)
	}
	fmt.Fprintf(out, "- %d clients over %d connections; medians of %d runs of %v, each after %v of the same load\n", p.clients, p.conns, p.runs, p.time, p.warm)
	all, err := p.measure(ctx, out)
	if err != nil {
		return err
	}
	printGoals(out, p, all)
	fmt.Fprintf(out, "\nTook %v; load average at the end %s.\n", time.Since(start).Round(time.Second), bench.LoadAverage())
	return nil
}

// measure runs the rows, and prints each as it comes.
func (p *plan) measure(ctx context.Context, out io.Writer) (all []*results, err error) {
	var meshes []*mesh
	defer func() {
		for _, m := range meshes {
			err = errors.Join(err, m.close())
		}
	}()
	for i := range p.rows {
		r := &p.rows[i]
		if !r.traced && meshes == nil {
			if meshes, err = p.openAll(ctx); err != nil {
				return nil, err
			}
		}
		var res *results
		if r.traced {
			res, err = p.measureTraced(ctx, r)
		} else {
			res, err = p.measureRow(ctx, r, meshes)
		}
		if err != nil {
			return nil, err
		}
		res.print(out, p)
		all = append(all, res)
	}
	return all, nil
}

func (p *plan) openAll(ctx context.Context) (meshes []*mesh, err error) {
	for _, sys := range p.systems {
		m, err := openMesh(ctx, sys, meshOptions{dir: p.dir})
		if err == nil {
			meshes = append(meshes, m)
			err = m.load(ctx, p.keys, p.size)
		}
		if err != nil {
			for _, m := range meshes {
				err = errors.Join(err, m.close())
			}
			return nil, err
		}
	}
	return meshes, nil
}

// measureRow runs a row: each system once in each run. A run that fails is
// reported and the others go on.
func (p *plan) measureRow(ctx context.Context, r *row, meshes []*mesh) (*results, error) {
	res := newResults(r)
	for i := range p.runs {
		for j := range meshes {
			m := meshes[(i+j)%len(meshes)]
			s, err := p.once(ctx, r, m, meshes)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			res.Add(m.sys.name, s, err)
		}
	}
	return res, nil
}

// once is one run of one system.
func (p *plan) once(ctx context.Context, r *row, m *mesh, all []*mesh) (sample, error) {
	stop := func() error { return nil }
	if p.profiles != "" {
		var err error
		if stop, err = m.profile(p.profiles, r.id); err != nil {
			return nil, err
		}
	}
	o, err := m.run(ctx, p.work(r), all)
	if err := errors.Join(err, stop()); err != nil {
		return nil, err
	}
	return o.sample, nil
}

// work is a row's load, in the plan's numbers.
func (p *plan) work(r *row) work {
	w := work{op: r.op, at: r.at, clients: 1, conns: 1, size: p.size, warm: p.warm, time: p.time}
	if r.many {
		w.clients, w.conns = p.clients, p.conns
	}
	return w
}
