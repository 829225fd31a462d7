//go:build linux

// Command bench measures how Gridloom moves the bytes of files: GETs beside
// nginx, PUTs beside a bare file with the same hashes, gRPC beside a bare
// grpc-go server, and the memory that many large transfers at once take.
//
// Every server is a process of its own: nodes are this program again, by
// node.Open and Run, nginx is what is installed, with nginx.conf.tmpl. This
// process has the clients, and its processor time is counted apart. One server
// at a time is under load, the runs are interleaved, and every run begins with
// another, so that whatever else the machine does hits all alike. A ratio is the
// median of the ratios within the runs.
//
//	go run . -list
//	go run . -rows 'get-4KiB-.*' -runs 9 -time 3s
//	go run . -rows get-64KiB-8 -profile /tmp/profiles
//	go run . -rows 'get-64MiB-.*' -congestion cubic
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
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"github.com/gridloom/gridloom/internal/bench"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == bench.ServeArgument {
		if err := bench.Serve(os.Stdin, os.Stdout, serve); err != nil {
			fmt.Fprintln(os.Stderr, "bench server:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE) // whoever reads the output may go
	defer stop()
	args, parents := os.Args[1:], ""
	if len(args) >= 2 && args[0] == apartArgument {
		args, parents = args[2:], args[1]
	}
	if err := run(ctx, args, parents, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		if exit := new(exec.ExitError); !errors.As(err, &exit) { // or it has said why
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

// plan is what the flags ask for.
type plan struct {
	rows       []row
	dir        string // everything is below it, and removed with it
	runs       int
	threads    int
	files      int
	puts       int
	download   int // MiB
	upload     int // MiB
	warm       time.Duration
	time       time.Duration
	limit      time.Duration
	profiles   string
	congestion string // "": the machine's
	list       bool
}

func parsePlan(args []string, out io.Writer) (*plan, error) {
	p := new(plan)
	var rowPattern string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&rowPattern, "rows", ".*", "regular expression of the rows to measure; see -list")
	fs.StringVar(&p.dir, "dir", "", "directory on the disk to measure; a temporary directory without")
	fs.IntVar(&p.runs, "runs", 5, "runs of each row")
	fs.IntVar(&p.threads, "threads", max(1, runtime.NumCPU()/2), "threads of the clients that GET")
	fs.IntVar(&p.files, "files", 64, "files of a size that the reads go round, of 1 GiB together at most")
	fs.IntVar(&p.puts, "puts", 2, "PUTs in a run, of which that row has three times as many")
	fs.IntVar(&p.download, "download", 1024, "MiB of each download in the rows of memory")
	fs.IntVar(&p.upload, "upload", 128, "MiB of each upload in the rows of memory")
	fs.DurationVar(&p.time, "time", time.Second, "how long each run is measured")
	fs.DurationVar(&p.warm, "warm", 300*time.Millisecond, "how long it goes before that")
	fs.DurationVar(&p.limit, "limit", 30*time.Minute, "all ends after this")
	fs.StringVar(&p.profiles, "profile", "", "directory for profiles of the nodes, ROW.SYSTEM.NODE.cpu.pprof or .heap.pprof; the last run's stay")
	fs.StringVar(&p.congestion, "congestion", "", "congestion control of all connections, in a network namespace of its own, which takes root; the machine's without")
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
	case p.runs < 1 || p.runs > 1000 || p.threads < 1 || p.threads > 1000 || p.files < 1 || p.files > 1000:
		return nil, errors.New("-runs, -threads or -files is out of bounds")
	case p.puts < 1 || p.puts > 1000 || p.download < 1 || p.download > 64<<10 || p.upload < 1 || p.upload > 64<<10:
		return nil, errors.New("-puts, -download or -upload is out of bounds")
	case p.time <= 0 || p.warm <= 0 || p.limit <= 0:
		return nil, errors.New("a time is not positive")
	}
	for _, r := range rows() {
		if pattern.MatchString(r.id) {
			p.rows = append(p.rows, r)
		}
	}
	if len(p.rows) == 0 {
		return nil, fmt.Errorf("-rows %q names none; see -list", rowPattern)
	}
	if p.profiles != "" {
		if p.profiles, err = filepath.Abs(p.profiles); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(p.profiles, 0o755); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// run does what the flags ask for. parents is the network namespace of the process
// that has started this one in another; "": it wasn't started so.
func run(ctx context.Context, args []string, parents string, out io.Writer) (err error) {
	p, err := parsePlan(args, out)
	if err != nil {
		return err
	}
	if p.list {
		for i := range p.rows {
			fmt.Fprintf(out, "%-20s %s\n", p.rows[i].id, p.rows[i].title)
		}
		return nil
	}
	switch {
	case parents != "":
		if err := enterApart(parents, p.congestion); err != nil {
			return err
		}
	case p.congestion != "":
		return runApart(ctx, args, out)
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
	fmt.Fprintf(out, "- medians of %d runs of %v, each after %v of the same load; threads of the clients that GET: %d\n", p.runs, p.time, p.warm, p.threads)
	all, err := p.measure(ctx, out)
	if err != nil {
		return err
	}
	printGoals(out, all)
	fmt.Fprintf(out, "\nTook %v; load average at the end %s.\n", time.Since(start).Round(time.Second), bench.LoadAverage())
	return nil
}

// measure runs the rows, a lab for each group of them, and prints each as it
// comes.
func (p *plan) measure(ctx context.Context, out io.Writer) (all []*results, err error) {
	var l *lab
	defer func() {
		if l != nil {
			err = errors.Join(err, l.close())
		}
	}()
	for i := range p.rows {
		r := &p.rows[i]
		if i == 0 || r.group != p.rows[i-1].group {
			if l != nil {
				last := l
				l = nil
				if err := last.close(); err != nil {
					return nil, err
				}
			}
			if l, err = p.newLab(r.group); err != nil {
				return nil, err
			}
		}
		res, err := p.measureRow(ctx, r, l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.id, err)
		}
		var before *row
		if i > 0 {
			before = &p.rows[i-1]
		}
		res.print(out, before)
		all = append(all, res)
	}
	return all, nil
}
