package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gridloom/gridloom/internal/bench"
)

// TestMain is also what a member begins with: the harness starts the program
// that it is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == bench.ServeArgument {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// TestPuts has clients put through all three members of each system, and reads
// every put that was acknowledged back through another member than its own.
func TestPuts(t *testing.T) {
	const clients, size = 6, 512
	for _, sys := range systems() {
		t.Run(sys.name, func(t *testing.T) {
			m, err := openMesh(t.Context(), sys, meshOptions{dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := m.close(); err != nil {
					t.Error(err)
				}
			}()
			w := work{op: opPut, at: spread, clients: clients, conns: members, size: size}
			d, err := m.startDriver(t.Context(), w, m.targets(w.at, 0))
			if err != nil {
				t.Fatal(err)
			}
			d.timed.Store(true)
			err = pause(t.Context(), 200*time.Millisecond, d.failed)
			if err := errors.Join(err, d.stop()); err != nil {
				t.Fatal(err)
			}
			puts := d.all()
			if len(puts) < clients || len(d.last()) != clients {
				t.Fatalf("%d puts, the last ones of %d clients", len(puts), len(d.last()))
			}
			if n := len(d.times()); n > len(puts) || n < len(puts)-clients {
				t.Errorf("%d times of %d puts", n, len(puts))
			}
			var through [members]int
			keys := map[string]bool{}
			for _, p := range puts {
				through[p.member]++
				keys[p.key] = true
			}
			if slices.Min(through[:]) == 0 || len(keys) != len(puts) {
				t.Errorf("%v puts through the members, of %d keys", through, len(keys))
			}
			if err := m.verify(t.Context(), puts, size); err != nil {
				t.Error(err)
			}
			never := []acknowledged{{0, "put/never"}}
			if err := m.verify(t.Context(), never, size); err == nil {
				t.Error("what was never put was read back")
			}
			if err := m.verify(t.Context(), puts[:1], size+1); err == nil {
				t.Error("another value passed")
			}
		})
	}
}

// TestRun has the program do its smallest, and looks for what it leaves.
func TestRun(t *testing.T) {
	dir, profiles := t.TempDir(), t.TempDir()
	args := "-rows (put-lone|get-many|stat-many) -runs 2 -time 100ms -warm 20ms -clients 4 -keys 20 -size 512 -limit 3m -dir " + dir + " -profile " + profiles
	var out strings.Builder
	if err := run(t.Context(), strings.Fields(args), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"(`put-lone`)", "(`get-many`)", "(`stat-many`)", "p50 ≤ 1.5 × etcd", "reads/s ≥ 1.0 × etcd"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, not := range []string{"failed", "not measured"} {
		if strings.Contains(out.String(), not) {
			t.Errorf("%q in\n%s", not, out.String())
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	for _, name := range []string{"put-lone.gridloom.n1.pprof", "get-many.etcd.n3.pprof"} {
		if info, err := os.Stat(filepath.Join(profiles, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLimit sees that the program ends by itself, and cleans up then too.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	args := "-rows put-lone -systems etcd -keys 1 -time 1h -limit 3s -dir " + dir
	err := run(t.Context(), strings.Fields(args), new(strings.Builder))
	if err == nil || !strings.Contains(err.Error(), "-limit") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// TestFailure sees that a member that can't start says why, and that those
// that could are ended.
func TestFailure(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "gridloom", "n2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "gridloom", "n2", "data"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	sys, _ := systemNamed("gridloom")
	if m, err := openMesh(t.Context(), sys, meshOptions{dir: dir}); err == nil {
		t.Error("a data directory that is a file", m.close())
	} else if !strings.Contains(err.Error(), "n2: ") || !strings.Contains(err.Error(), "not a directory") {
		t.Error(err)
	}
}

func TestReport(t *testing.T) {
	all := rows()
	r := newResults(&all[0])
	for _, v := range []float64{10, 40, 90} {
		r.Add("gridloom", sample{rate: v, cpuEach: 100}, nil)
	}
	r.Add("etcd", sample{rate: 10, cpuEach: 50}, nil)
	r.Add("etcd", nil, errors.New("the reason"))
	r.Add("etcd", sample{rate: 30, cpuEach: 50}, nil)
	if v, ok := r.Median("gridloom", "", rate); !ok || v != 40 {
		t.Error(v, ok)
	}
	if v, ok := r.Median("gridloom", "etcd", rate); !ok || v != 2 { // of 1 and 3
		t.Error(v, ok)
	}
	if v, ok := r.Median("etcd", "", p99); ok {
		t.Error("never measured, and", v)
	}
	p, err := parsePlan(nil, new(strings.Builder))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r.print(&out, p)
	printGoals(&out, p, []*results{r})
	for _, want := range []string{"| ratio | 2.00 (1.00–3.00) |", "etcd: of 3 runs 1 failed, the last: the reason", "| puts/s ≥ 1.0 × etcd | 40.0 | 2.00 | 0.50 | met |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, c := range []struct {
		g    goal
		want string
	}{
		{goal{metric: rate, most: 39}, "**not met**"},
		{goal{metric: rate, most: 40}, "met"},
		{goal{metric: rate, below: 40}, "**not met**"},
		{goal{metric: rate, ofEtcd: true, most: 2}, "met"},
		{goal{metric: rate, ofEtcd: true, least: 2.1}, "**not met**"},
		{goal{metric: p50, most: 1}, "not measured"},
	} {
		if got := r.judge(&c.g); got[3] != c.want {
			t.Errorf("%+v: %q", c.g, got)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, args := range []string{"-rows nothing", "-systems nobody", "-runs 0", "-time -1s", "-rows (", "-clients 0", "-conns -1", "extra"} {
		if _, err := parsePlan(strings.Fields(args), new(strings.Builder)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
	p, err := parsePlan(strings.Fields("-rows put-.* -systems etcd -clients 5 -conns 9"), new(strings.Builder))
	if err != nil || len(p.rows) != 3 || len(p.systems) != 1 || p.conns != 5 {
		t.Error(p, err)
	}
}

// TestCountSyncs reads what strace 6.1 wrote, with what it also may.
func TestCountSyncs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trace")
	trace := `4711  1795324135.967531 fdatasync(3)    = 0
4711  1795324135.968151 fdatasync(3 <unfinished ...>
4712  1795324135.968160 fsync(12)         = 0
4711  1795324135.968452 <... fdatasync resumed>) = 0
4713  1795324136.000000 +++ exited with 0 +++
4711  1795324136.000001 fdatasync(3)    = -1 EIO (Input/output error)
`
	if err := os.WriteFile(name, []byte(trace), 0o644); err != nil {
		t.Fatal(err)
	}
	at := func(us int64) time.Time { return time.UnixMicro(1795324135_000000 + us) }
	for _, c := range []struct {
		from, to int64
		want     int
	}{{0, 2_000000, 4}, {967531, 968151, 1}, {967532, 968452, 2}, {968161, 1_000001, 0}} {
		if n, err := countSyncs(name, at(c.from), at(c.to)); err != nil || n != c.want {
			t.Errorf("%+v: %d, %v", c, n, err)
		}
	}
	for _, line := range []string{"", "4711 fdatasync(3) = 0", "4711 12.5 fdatasync(3) = 0", "4711 a.123456 fdatasync(3) = 0"} {
		if _, ok, err := parseSync(line); err == nil && ok {
			t.Errorf("%q is taken for a call", line)
		}
	}
}

func TestQuantile(t *testing.T) {
	var times []time.Duration
	for us := range 1001 {
		times = append(times, time.Duration(us)*time.Microsecond)
	}
	for q, want := range map[float64]float64{0: 0, 0.5: 500, 0.99: 990, 1: 1000} {
		if got := quantile(times, q); math.Abs(got-want) > 1e-6 {
			t.Errorf("quantile %v: %v", q, got)
		}
	}
}

func TestValues(t *testing.T) {
	if got := fmt.Sprint(valueOf("a", 8)); got == fmt.Sprint(valueOf("b", 8)) || got != fmt.Sprint(valueOf("a", 8)) {
		t.Error("values of keys")
	}
}
