// Command bench measures Gridloom's grid beside the stacks that it would
// replace, over loopback TCP.
//
// Every row is a kind of work; every stack does it in its own idiom. A
// measurement starts this program again as the far end (or serves from the
// same process, in the rows named one-…), connects, warms up, measures and
// ends both ends. The runs of a row are interleaved, each beginning with
// another stack, so that whatever else the machine does hits all of them
// alike; a ratio is the median of the ratios within each run. Processor time
// for each round trip, both ends together, is the figure that a busy machine
// disturbs least.
//
//	go run . -list
//	go run . -rows 'req-.*' -stacks 'grid,rawmux,grpc' -runs 3 -time 1s
//	go run . -rows req-32 -stacks grid -profile /tmp/profiles
//
// It ends by itself: each measurement has a time limit, and -limit bounds
// them all.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == peerArgument {
		if err := runPeer(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench peer:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is what the flags ask for.
type plan struct {
	bench
	rows   []row
	stacks []string // nil: all
	runs   int
	limit  time.Duration
	list   bool
}

func parsePlan(args []string, out io.Writer) (*plan, error) {
	p := new(plan)
	var rowPattern, stackList string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&rowPattern, "rows", ".*", "regular expression of the rows to measure; see -list")
	fs.StringVar(&stackList, "stacks", "", "comma-separated stacks to measure; all without")
	fs.IntVar(&p.runs, "runs", 5, "runs of each measurement")
	fs.DurationVar(&p.time, "time", 400*time.Millisecond, "how long each is measured")
	fs.DurationVar(&p.warm, "warm", 100*time.Millisecond, "how long it runs before that")
	fs.DurationVar(&p.limit, "limit", 20*time.Minute, "all ends after this")
	fs.IntVar(&p.idle, "idle", 5000, "connections in the idle row")
	fs.IntVar(&p.inFlight, "inflight", 100000, "requests in the inflight row")
	fs.IntVar(&p.base.Heap, "heap", 0, "MiB of memory that each process holds besides, as programs do: with next to none the garbage collector never rests")
	fs.StringVar(&p.profiles, "profile", "", "directory for CPU profiles of both ends, ROW.STACK.{near,far}.pprof; the last run's stay")
	fs.BoolVar(&p.list, "list", false, "list rows and stacks")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	pattern, err := regexp.Compile("^(?:" + rowPattern + ")$")
	switch {
	case err != nil:
		return nil, fmt.Errorf("-rows: %w", err)
	case fs.NArg() > 0:
		return nil, fmt.Errorf("no argument is taken, %q was given", fs.Arg(0))
	case p.runs < 1 || p.runs > 1000 || p.time <= 0 || p.warm <= 0 || p.idle < 1 || p.inFlight < 1 || p.limit <= 0 || p.base.Heap < 0 || p.base.Heap > 1<<12:
		return nil, errors.New("-runs is not within 1 to 1000, or another number is not positive")
	}
	for _, r := range rows() {
		if pattern.MatchString(r.id) {
			p.rows = append(p.rows, r)
		}
	}
	if len(p.rows) == 0 {
		return nil, fmt.Errorf("-rows %q names none; see -list", rowPattern)
	}
	if stackList != "" {
		p.stacks = strings.Split(stackList, ",")
		for _, name := range p.stacks {
			if _, ok := stackNamed(name); !ok {
				return nil, fmt.Errorf("-stacks: there is no %q; see -list", name)
			}
		}
	}
	if p.profiles != "" {
		if err := os.MkdirAll(p.profiles, 0o755); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	p, err := parsePlan(args, out)
	if err != nil {
		return err
	}
	if p.list {
		list(out)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	if err := p.base.prove(); err != nil {
		return err
	}
	defer holdHeap(p.base.Heap)()
	start := time.Now()
	for _, fact := range machineFacts() {
		fmt.Fprintln(out, "- "+fact)
	}
	fmt.Fprintf(out, "- medians of %d runs of %v; %d MiB of memory held besides; load average at the start %s\n", p.runs, p.time, p.base.Heap, loadAverage())
	var all []*results
	for i := range p.rows {
		r, err := p.measure(ctx, &p.rows[i])
		if err != nil {
			return err
		}
		r.print(out)
		all = append(all, r)
	}
	printGoals(out, all)
	fmt.Fprintf(out, "\nTook %v; load average at the end %s.\n", time.Since(start).Round(time.Second), loadAverage())
	return nil
}

func list(out io.Writer) {
	fmt.Fprintln(out, "rows:")
	for _, r := range rows() {
		fmt.Fprintf(out, "  %-12s %s\n", r.id, r.title)
	}
	fmt.Fprintln(out, "stacks:")
	for _, st := range stacks() {
		fmt.Fprintf(out, "  %-12s %s\n", st.name, st.about)
	}
}

// prove makes the secret and the certificate of both ends.
func (s *setup) prove() (err error) {
	s.Secret = make([]byte, 32)
	rand.Read(s.Secret)
	s.Cert, s.Key, err = makeCertificate()
	return err
}

// measure runs a row: every stack once in each run, starting with another
// each time. A stack that fails is reported and the others go on.
func (p *plan) measure(ctx context.Context, r *row) (*results, error) {
	res := newResults(r)
	var names []string
	for _, name := range r.stacks {
		if p.stacks == nil || slices.Contains(p.stacks, name) {
			names = append(names, name)
		}
	}
	runs := p.runs
	if r.once {
		runs = 1
	}
	for i := range runs {
		for j := range names {
			name := names[(i+j)%len(names)]
			s, err := r.runs(ctx, &p.bench, r, name)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				res.errs[name] = err
				s = nil
			}
			res.samples[name] = append(res.samples[name], s)
		}
	}
	return res, nil
}
