package observability

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// served has a request served whose handler says all that there is.
func served(t testing.TB, r *Requests, status int) {
	t.Helper()
	r.HTTP(http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		SetAPI(hr.Context(), "GetObject")
		SetTarget(hr.Context(), "photos", "a/b")
		SetUser(hr.Context(), "eve")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "hello")
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
}

// TestCalls: who watches sees what he wants to; who is slow loses what is over the
// bound, is told so, and holds nobody up.
func TestCalls(t *testing.T) {
	p := newProbe(t)
	served(t, p.Requests, 200) // nobody watches
	all := p.Calls().Watch(func(*Call) bool { return true })
	bad := p.Calls().Watch(func(c *Call) bool { return c.Class == "4xx" })
	served(t, p.Requests, 200)
	served(t, p.Requests, 404)
	want := Call{API: "GetObject", Proto: "http", Method: "GET", Status: "200", Class: "2xx", Sent: 5, Bucket: "photos", Key: "a/b", User: "eve"}
	got := *<-all.C()
	if got.Start.IsZero() || got.Duration <= 0 || got.TTFB <= 0 || got.TTFB > got.Duration {
		t.Errorf("times %v", got)
	}
	got.Start, got.Duration, got.TTFB = want.Start, want.Duration, want.TTFB
	if got != want {
		t.Errorf("call %+v, want %+v", got, want)
	}
	if c := <-bad.C(); c.Status != "404" || c.Kind != "not_found" {
		t.Errorf("call %+v", c)
	}
	bad.Close()
	bad.Close() // again
	<-all.C()
	const over = 7
	for range callsQueued + over {
		served(t, p.Requests, 404)
	}
	if len(all.C()) != callsQueued || all.Dropped() != over || len(bad.C()) != 0 {
		t.Errorf("%d calls wait and %d are dropped, want %d and %d; %d after the end", len(all.C()), all.Dropped(), callsQueued, over, len(bad.C()))
	}
	all.Close()
	if p.Calls().watches.Load() != nil {
		t.Error("somebody is left who watches")
	}

	var watches []*CallWatch
	for range MaxWatches {
		watches = append(watches, p.Calls().Watch(func(*Call) bool { return false }))
	}
	if p.Calls().Watch(func(*Call) bool { return true }) != nil {
		t.Error("there is no bound of those who watch")
	}
	for _, w := range watches {
		w.Close()
	}
}

// TestUnwatchedCallsCostNothing: nothing is allocated for those who aren't there.
func TestUnwatchedCallsCostNothing(t *testing.T) {
	p := newProbe(t)
	q := p.begin(&p.http)
	if n := testing.AllocsPerRun(100, func() { p.calls.publish(t.Context(), q, outcome{class: classSuccess, status: 200}) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}
