//go:build linux

// Command bench measures what Gridloom adds to storing payload on three drives:
// puts through a mesh of three processes, beside the bare recipe that does the
// same to the disk and nothing else.
//
// The bare recipe makes the same files of the same bytes: for each object three,
// one below each of three directories, each created, allocated, written, synced,
// and its directory synced, the three side by side. It has no network, no
// checksums, no index and no second process; its bytes are in memory at the
// start. The mesh has its bytes from this program by PUT over loopback, hashes
// them, brings them to two more processes, syncs them there and commits the
// record. All files of both are below one directory of one file system (-dir).
//
// The runs are interleaved, and every second one begins with the other, so that
// whatever else the machine does hits both alike. A ratio is the median of the
// ratios within the runs. After each run a sample of the objects is read back
// through another node, byte for byte; a failed put fails the run.
//
// Heal is a row without a ratio: of a mesh of three nodes with R = 3 one loses
// its data directory and its drive; the time counts from its replacement's start
// until the last copy is on its drive.
//
//	make bench-store
//	go run . -list
//	go run . -rows 'put-.*' -runs 9 -dir /mnt/disk
//
// It builds the program that it measures, ends by itself, at the latest after
// -limit, and removes what it wrote.
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
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is what the flags ask for.
type plan struct {
	rows    []row
	dir     string // everything is below it, and removed with it
	program string // gridloom
	module  string // its module's directory, where it is to be built
	runs    int
	files   int // to heal
	limit   time.Duration
	list    bool
}

// row is one kind of work.
type row struct {
	id, title string
	bytes     int
	clients   int
	puts      int     // in each run, of all clients together
	least     float64 // ratio that is the goal
}

const mib = 1 << 20

func putRows() []row {
	return []row{
		{"put-64MiB", "1 client, 64 MiB: PUT, R = 3", 64 * mib, 1, 8, 0.7},
		{"put-64KiB", "64 clients, 64 KiB: PUT, R = 3", 64 << 10, 64, 1500, 0.6},
		{"put-4KiB", "64 clients, 4 KiB: PUT, R = 3", 4 << 10, 64, 4000, 0.6},
	}
}

const healRow = "heal"

func parsePlan(args []string, out io.Writer) (*plan, error) {
	p := new(plan)
	var pattern string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&pattern, "rows", ".*", "regular expression of the rows to measure; see -list")
	fs.StringVar(&p.dir, "dir", "", "directory on the disk to measure; a temporary directory without")
	fs.StringVar(&p.program, "gridloom", "", "the program to measure; without, it is built from -module")
	fs.StringVar(&p.module, "module", "../../..", "directory of Gridloom's module")
	fs.IntVar(&p.runs, "runs", 5, "runs of each row")
	fs.IntVar(&p.files, "files", 10_000, "objects of 64 KiB to heal")
	fs.DurationVar(&p.limit, "limit", 20*time.Minute, "all ends after this")
	fs.BoolVar(&p.list, "list", false, "list rows")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("no argument is taken, %q was given", fs.Arg(0))
	}
	if p.runs < 1 || p.runs > 1000 || p.files < 1 || p.files > 1e6 || p.limit <= 0 {
		return nil, errors.New("-runs, -files or -limit is out of bounds")
	}
	re, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return nil, fmt.Errorf("-rows: %w", err)
	}
	for _, r := range append(putRows(), row{id: healRow, title: fmt.Sprintf("heal of %d files of 64 KiB", p.files)}) {
		if re.MatchString(r.id) {
			p.rows = append(p.rows, r)
		}
	}
	if len(p.rows) == 0 {
		return nil, fmt.Errorf("-rows %q names none; see -list", pattern)
	}
	return p, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	p, err := parsePlan(args, out)
	if err != nil {
		return err
	}
	if p.list {
		for _, r := range p.rows {
			fmt.Fprintf(out, "%-10s %s\n", r.id, r.title)
		}
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.limit, fmt.Errorf("not done within -limit %v", p.limit))
	defer cancel()
	if p.dir, err = os.MkdirTemp(p.dir, "gridloom-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.dir)) }()
	if p.program == "" {
		p.program = filepath.Join(p.dir, "gridloom")
		build := exec.CommandContext(ctx, "go", "build", "-C", p.module, "-o", p.program, "./cmd/gridloom")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, text)
		}
	}
	start := time.Now()
	if err := printMachine(out, p.dir); err != nil {
		return err
	}
	m, err := startMesh(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	for i := range p.rows {
		r := &p.rows[i]
		if r.id == healRow {
			err = m.measureHeal(ctx, out, p)
		} else {
			err = p.measure(ctx, out, r, m)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.id, errors.Join(err, context.Cause(ctx)))
		}
	}
	fmt.Fprintf(out, "\nTook %v; load average at the end %s.\n", time.Since(start).Round(time.Second), loadAverage())
	return nil
}
