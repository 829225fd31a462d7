package main

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStacks has every stack carry an echo and a flow, small and large, in
// one process: what is measured must work before it is measured.
func TestStacks(t *testing.T) {
	var s setup
	if err := s.prove(); err != nil {
		t.Fatal(err)
	}
	for _, st := range stacks() {
		t.Run(st.name, func(t *testing.T) {
			b := &bench{warm: time.Millisecond, time: 20 * time.Millisecond, base: s}
			l, err := b.open(t.Context(), st.name, "test", true)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			for _, ld := range []load{{1, 512}, {8, 512}, {2, 1 << 20}} {
				got, err := b.requests(t.Context(), l, ld)
				if err != nil {
					t.Fatalf("%+v: %v", ld, err)
				}
				if got[rate] <= 0 || got[p50] <= 0 || got[p99] < got[p50] {
					t.Errorf("%+v: %v", ld, got)
				}
			}
			for _, size := range []int{512, 64 << 10} {
				got, err := b.stream(t.Context(), l, size)
				if errors.Is(err, errNoFlow) {
					continue
				}
				if err != nil {
					t.Fatalf("flow of %d: %v", size, err)
				}
				if got[rate] <= 0 {
					t.Errorf("flow of %d: %v", size, got)
				}
			}
		})
	}
}

// TestGridRows runs the rows that are the grid's own, in small.
func TestGridRows(t *testing.T) {
	var s setup
	if err := s.prove(); err != nil {
		t.Fatal(err)
	}
	b := &bench{warm: time.Millisecond, time: 20 * time.Millisecond, base: s}
	l, err := b.open(t.Context(), "grid", "test", true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	got, err := b.beside(t.Context(), l, load{8, 512}, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	if got[p99Ratio] <= 0 || got[streamRatio] <= 0 {
		t.Error(got)
	}
}

func TestHistogram(t *testing.T) {
	h := new(histogram)
	for us := 1; us <= 1000; us++ {
		h.add(time.Duration(us) * time.Microsecond)
	}
	h.add(-time.Second)         // a clock that went back
	h.add(100 * 24 * time.Hour) // and one that stood still
	for q, want := range map[float64]float64{0.5: 500, 0.99: 990} {
		if got := h.quantile(q); math.Abs(got-want) > want/25 {
			t.Errorf("quantile %v is %v µs, want about %v", q, got, want)
		}
	}
}

func TestMedians(t *testing.T) {
	r := newResults(&row{stacks: []string{"a", "b"}})
	r.samples["a"] = []sample{{rate: 10}, {rate: 40}, {rate: 90}}
	r.samples["b"] = []sample{{rate: 10}, nil, {rate: 30}} // a run failed
	if v, ok := r.median("a", "", rate); !ok || v != 40 {
		t.Error(v, ok)
	}
	if v, ok := r.median("a", "b", rate); !ok || v != 2 { // of 1 and 3
		t.Error(v, ok)
	}
	if _, ok := r.median("b", "a", p99); ok {
		t.Error("a figure that was never measured")
	}
	if _, ok := r.median("c", "a", rate); ok {
		t.Error("a stack that was never measured")
	}
}

func TestFlags(t *testing.T) {
	for _, args := range []string{"-rows nothing", "-stacks nobody", "-runs 0", "-time -1s", "-rows (", "extra"} {
		if _, err := parsePlan(strings.Fields(args), new(strings.Builder)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
	p, err := parsePlan([]string{"-rows", "req-.*", "-stacks", "grid,grpc"}, new(strings.Builder))
	if err != nil || len(p.rows) != 5 || len(p.stacks) != 2 {
		t.Error(p, err)
	}
}

// TestFailure sees that a stack that fails is reported, and nothing hangs.
func TestFailure(t *testing.T) {
	r := row{id: "failing", stacks: []string{"grid"}, main: requestRate, runs: func(context.Context, *bench, *row, string) (sample, error) {
		return nil, errors.New("the reason")
	}}
	p := &plan{runs: 2}
	res, err := p.measure(t.Context(), &r)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	res.print(&out)
	printGoals(&out, []*results{res})
	if !strings.Contains(out.String(), "the reason") {
		t.Error(out.String())
	}
}
