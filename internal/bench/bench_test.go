package bench

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also what a child begins with: Start runs the program that it is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == ServeArgument {
		if err := Serve(os.Stdin, os.Stdout, openPlace); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// place is a server's configuration: a file that there is while it runs.
type place struct{ File string }

func openPlace(p *place) (*Served, error) {
	ready := make(chan struct{})
	close(ready)
	return &Served{Ready: ready, Failed: make(chan error), Close: func() error { return os.Remove(p.File) }}, os.WriteFile(p.File, nil, 0o600)
}

// TestChild starts processes: one that runs until it is closed, and one that
// can't begin.
func TestChild(t *testing.T) {
	dir := t.TempDir()
	c, err := Start(t.Context(), "n1", dir+"/n1", place{dir + "/here"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/here"); err != nil {
		t.Error("it is ready, and", err)
	}
	heap := dir + "/heap"
	a, err := c.Ask(Request{Heap: heap})
	if info, statErr := os.Stat(heap); err != nil || statErr != nil || info.Size() == 0 || a.CPU < 0 {
		t.Errorf("%+v, %v, %v", a, err, statErr)
	}
	if _, err := c.Ask(Request{Profile: dir + "/none/cpu"}); err == nil || !strings.Contains(err.Error(), "n1: ") {
		t.Errorf("a profile in a folder that isn't there: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/here"); err == nil {
		t.Error("it was not closed")
	}

	c, err = Start(t.Context(), "n2", dir+"/n2", place{dir + "/none/here"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(); err == nil || !strings.Contains(err.Error(), "n2: open ") {
		t.Errorf("a server that can't begin: %v", err)
	}
	if err := c.Close(); err == nil {
		t.Error("it has ended well")
	}
}

// TestServedFails: a server that ends by itself is not waited for.
func TestServedFails(t *testing.T) {
	in, harness := io.Pipe()
	answers, out := io.Pipe()
	failed := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(in, out, func(*place) (*Served, error) {
			ready := make(chan struct{})
			close(ready)
			return &Served{Ready: ready, Failed: failed, Close: func() error { return nil }}, nil
		})
	}()
	var a Answer
	if err := errors.Join(json.NewEncoder(harness).Encode(place{}), json.NewDecoder(answers).Decode(&a)); err != nil || a.Err != "" {
		t.Fatal(a, err)
	}
	failed <- errors.New("the reason")
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "ended by itself: the reason") {
		t.Error(err)
	}
	_ = harness.Close()
}

func TestRuns(t *testing.T) {
	r := NewRuns[string]()
	for i, v := range []float64{30, 10, 20} {
		r.Add("a", map[string]float64{"rate": v}, nil)
		if i == 1 {
			r.Add("b", nil, errors.New("the reason"))
		} else {
			r.Add("b", map[string]float64{"rate": 10}, nil)
		}
	}
	if got := r.Values("a", "", "rate"); !slices.Equal(got, []float64{10, 20, 30}) {
		t.Error(got)
	}
	if got := r.Cell("a", "b", "rate"); got != "2.50 (2.00–3.00)" { // within the first and the third
		t.Error(got)
	}
	if got := r.Cell("a", "", "none"); got != "" {
		t.Error(got)
	}
	if got := r.Trouble("a") + r.Trouble("b"); got != "of 3 runs 1 failed, the last: the reason" {
		t.Error(got)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.061: "0.061", 0.61: "0.61", 12.34: "12.3", 2363.4: "2363", 23_800: "23.8 k", 123_456: "123 k"} {
		if got := Figure(v); got != want {
			t.Errorf("%v: %s", v, got)
		}
	}
}

func TestMachine(t *testing.T) {
	if p := Platform(); !strings.Contains(p, "processors: ") || !strings.Contains(p, "go1.") {
		t.Error(p)
	}
	if d, err := Disk(t.TempDir()); err != nil || !strings.Contains(d, "a sync of 4 KiB more in a file takes ") {
		t.Error(d, err)
	}
	addrs, err := Reserve(3)
	if err != nil || len(addrs) != 3 || len(slices.Compact(slices.Sorted(slices.Values(addrs)))) != 3 {
		t.Error(addrs, err)
	}
}
