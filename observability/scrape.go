package observability

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// maxScrapes bounds the scrapes under way, of whatever group; one more gets 503.
const maxScrapes = 8

// scrapes serves the registry, whole or a group of it.
type scrapes struct {
	slots  chan struct{}
	whole  http.Handler
	groups map[string]http.Handler
}

func newScrapes(from prometheus.Gatherer, failed func(signal string, err error)) *scrapes {
	s := &scrapes{slots: make(chan struct{}, maxScrapes), groups: make(map[string]http.Handler, len(groups))}
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

func (s *scrapes) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, fmt.Sprintf("%d scrapes are under way already", maxScrapes), http.StatusServiceUnavailable)
		}
	})
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
