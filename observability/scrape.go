package observability

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

const (
	// maxScrapes bounds the scrapes being made, of whatever group; one more gets 503.
	maxScrapes = 8

	// maxAnswers bounds the scrapes being made and those that are on their way to
	// their readers, which may be slow; one more gets 503.
	maxAnswers = 32

	// maxHeld bounds what is kept of one answer until it leaves, and so all of them
	// to 256 MiB, as a buffer grows by doubling; compressed, as Prometheus asks for
	// it, 4 MiB are half a million series. What is longer leaves as it is made, and
	// is being made until then.
	maxHeld = 4 << 20
)

// scrapes serves the registry, whole or a group of it.
type scrapes struct {
	making  chan struct{}
	answers chan struct{}
	whole   http.Handler
	groups  map[string]http.Handler
}

func newScrapes(from prometheus.Gatherer, failed func(signal string, err error)) *scrapes {
	s := &scrapes{making: make(chan struct{}, maxScrapes), answers: make(chan struct{}, maxAnswers), groups: make(map[string]http.Handler, len(groups))}
	handler := func(g prometheus.Gatherer) http.Handler {
		return s.bounded(promhttp.HandlerFor(g, promhttp.HandlerOpts{
			EnableOpenMetrics: true,
			ErrorHandling:     promhttp.ContinueOnError,
			ErrorLog:          scrapeLog(failed),
		}))
	}
	s.whole = handler(from)
	for _, group := range groups {
		s.groups[group] = handler(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			all, err := from.Gather()
			return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return groupOf(f.GetName()) != group }), err
		}))
	}
	return s
}

// bounded has next make its answer while there is a place for that, and then leave
// at its reader's pace, which is bounded by the listener, without one.
func (s *scrapes) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !enter(w, s.answers, "scrapes are on their way to slow readers") {
			return
		}
		defer func() { <-s.answers }()
		if !enter(w, s.making, "scrapes are under way") {
			return
		}
		answer := &heldAnswer{ResponseWriter: w, status: http.StatusOK}
		func() {
			defer func() { <-s.making }()
			next.ServeHTTP(answer, r)
		}()
		answer.leave()
	})
}

// enter takes one of places, or says that there is none.
func enter(w http.ResponseWriter, places chan struct{}, what string) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%d %s already", cap(places), what), http.StatusServiceUnavailable)
		return false
	}
}

// heldAnswer keeps an answer until it is whole, up to maxHeld.
type heldAnswer struct {
	http.ResponseWriter
	status  int
	body    bytes.Buffer
	leaving bool // it grew too long: what is written leaves at once
}

// WriteHeader implements http.ResponseWriter.
func (a *heldAnswer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *heldAnswer) Write(p []byte) (int, error) {
	if !a.leaving && a.body.Len()+len(p) <= maxHeld {
		return a.body.Write(p)
	}
	if !a.leaving {
		a.leaving = true
		a.ResponseWriter.WriteHeader(a.status)
		_, err := a.ResponseWriter.Write(a.body.Bytes())
		a.body = bytes.Buffer{}
		if err != nil {
			return 0, err
		}
	}
	return a.ResponseWriter.Write(p)
}

// leave sends what is kept.
func (a *heldAnswer) leave() {
	if a.leaving {
		return
	}
	a.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	a.ResponseWriter.WriteHeader(a.status)
	_, _ = a.ResponseWriter.Write(a.body.Bytes()) // a reader who has left has no use for it
}

// scrapeLog hands promhttp's errors to Options.Failed.
type scrapeLog func(signal string, err error)

func (l scrapeLog) Println(v ...any) {
	if l != nil {
		l("scrape", errors.New(strings.TrimSpace(fmt.Sprintln(v...))))
	}
}

// MetricsHandler serves all metrics as Prometheus text, or as OpenMetrics
// (with exemplars) to scrapers that ask for it. Every series has the label
// node, so no instrument may have an attribute of that name: its series would
// be left out.
func (t *Telemetry) MetricsHandler() http.Handler { return t.scrapes.whole }

// GroupHandler serves those of one of Groups likewise; nil where there is no
// such group. It costs what a whole scrape costs but for the writing.
func (t *Telemetry) GroupHandler(group string) http.Handler {
	if h, ok := t.scrapes.groups[group]; ok {
		return h
	}
	return nil
}

// Instruments lists every metric of the product that was declared so far, by
// group and name, whether it has had a value or not.
func (t *Telemetry) Instruments() []Instrument { return t.catalogue.instruments() }
