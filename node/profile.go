package node

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/observability"
)

// profilePrefix is where profiles of the process are, as Go's tools look for them.
const profilePrefix = "/debug/pprof/"

// The two that take a while, and for how long at the most.
const (
	cpuProfile       = "profile"
	executionTrace   = "trace"
	profileSecondMax = 300
)

// profiler gives profiles of the process to those who may change the mesh, one at
// a time: a profile costs, and CPU profiles and traces there is one of in a
// process. It is not net/http/pprof, which adds itself to a global mux.
type profiler struct {
	busy sync.Mutex // held while a profile is taken; only tried, never waited for
}

// ServeHTTP implements http.Handler.
func (p *profiler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	observability.SetAPI(r.Context(), "Profile")
	if err := p.serve(w, r); err != nil {
		fault.WriteProblem(w, err)
	}
}

// serve returns an error only while nothing was written.
func (p *profiler) serve(w http.ResponseWriter, r *http.Request) error {
	caller, ok := iam.FromContext(r.Context())
	if !ok {
		return fault.New(fault.Unauthenticated, "", "no credential was given")
	}
	if err := iam.Authorize(caller, iam.ClusterWrite, "", ""); err != nil {
		return fault.Wrap(fault.PermissionDenied, "", err)
	}
	if r.Method != http.MethodGet {
		fault.RefuseMethod(w, r.Method, http.MethodGet)
		return nil
	}
	name := strings.TrimPrefix(r.URL.EscapedPath(), profilePrefix)
	kinds := profileKinds()
	kind := slices.IndexFunc(kinds, func(k profileKind) bool { return k.name == name })
	switch {
	case name == "":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, k := range kinds {
			_, _ = fmt.Fprintf(w, "%-13s %s\n", k.name, k.help)
		}
		return nil
	case kind < 0:
		return fault.New(fault.NotFound, name, "is no profile; %s lists them", profilePrefix)
	}
	of := &kinds[kind]
	value, err := of.read(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if !p.busy.TryLock() {
		return errProfiling()
	}
	defer p.busy.Unlock()
	return of.take(w, r, value)
}

func errProfiling() error {
	return fault.New(fault.Overloaded, "profile", "another one is being taken; there is one at a time")
}

// profileKind is a kind of profile, with the one parameter that it takes.
type profileKind struct {
	name, help string
	parameter  string
	otherwise  int // its value where it isn't given
	most       int
	take       func(w http.ResponseWriter, r *http.Request, value int) error
}

// profileKinds are those that there are, in the order of their names.
func profileKinds() []profileKind {
	kinds := []profileKind{
		{cpuProfile, "processor time, over ?seconds=N, of 30 (1 to 300)", "seconds", 30, profileSecondMax, takeCPUProfile},
		{executionTrace, "what goroutines do and wait for, over ?seconds=N, of 1 (1 to 300)", "seconds", 1, profileSecondMax, takeTrace},
	}
	for _, p := range pprof.Profiles() {
		help := map[string]string{
			"allocs": "all memory that was allocated", "heap": "memory in use, after a collection with ?gc=1",
			"goroutine": "where all goroutines are; as text with ?debug=1 or 2", "threadcreate": "what made threads of the system",
		}[p.Name()]
		if help == "" {
			continue // block and mutex measure nothing here, as that would cost every request
		}
		k := profileKind{name: p.Name(), help: help, parameter: "debug", most: 2, take: func(w http.ResponseWriter, _ *http.Request, debug int) error {
			profileHeader(w, p.Name(), debug > 0)
			_ = p.WriteTo(w, debug)
			return nil
		}}
		if p.Name() == "heap" {
			k.parameter, k.most = "gc", 1
			k.take = func(w http.ResponseWriter, _ *http.Request, gc int) error {
				if gc > 0 {
					runtime.GC()
				}
				profileHeader(w, p.Name(), false)
				_ = p.WriteTo(w, 0)
				return nil
			}
		}
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b profileKind) int { return strings.Compare(a.name, b.name) })
	return kinds
}

// read reads the kind's parameter from a query.
func (k *profileKind) read(query string) (int, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return 0, fault.Wrap(fault.InvalidArgument, "query", err)
	}
	value := k.otherwise
	for name, values := range q {
		if name != k.parameter || len(values) != 1 {
			return 0, fault.New(fault.InvalidArgument, name, "is no parameter of this, or is given twice; %s is", k.parameter)
		}
		least := min(k.otherwise, 1)
		if value, err = strconv.Atoi(values[0]); err != nil || value < least || value > k.most {
			return 0, fault.New(fault.InvalidArgument, name, "%q is not within %d to %d", values[0], least, k.most)
		}
	}
	return value, nil
}

// profileHeader says what is sent.
func profileHeader(w http.ResponseWriter, profile string, text bool) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if text {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		return
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+profile+`"`)
}

func takeCPUProfile(w http.ResponseWriter, r *http.Request, seconds int) error {
	return during(w, r, cpuProfile, seconds, pprof.StartCPUProfile, pprof.StopCPUProfile)
}

func takeTrace(w http.ResponseWriter, r *http.Request, seconds int) error {
	return during(w, r, executionTrace, seconds, trace.Start, trace.Stop)
}

// during takes a profile for a while, or until its client is gone.
func during(w http.ResponseWriter, r *http.Request, profile string, seconds int, start func(io.Writer) error, stop func()) error {
	d := time.Duration(seconds) * time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + answerTimeout))
	profileHeader(w, profile, false)
	if err := start(w); err != nil {
		return errProfiling() // of another node in this process
	}
	defer stop()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	return nil
}
