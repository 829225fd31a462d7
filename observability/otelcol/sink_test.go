//go:build real

package otelcol

import (
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// sink is what the Collector hands all on to. It keeps it.
type sink struct {
	mu      sync.Mutex
	metrics []pmetric.Metrics
	traces  []ptrace.Traces
	logs    []plog.Logs
	came    chan struct{} // has room for one: something came
}

func newSink() *sink { return &sink{came: make(chan struct{}, 1)} }

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = s.take(r.URL.Path, body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case s.came <- struct{}{}:
	default:
	}
}

func (s *sink) take(path string, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch path {
	case "/v1/metrics":
		r := pmetricotlp.NewExportRequest()
		if err := r.UnmarshalProto(body); err != nil {
			return err
		}
		s.metrics = append(s.metrics, r.Metrics())
	case "/v1/traces":
		r := ptraceotlp.NewExportRequest()
		if err := r.UnmarshalProto(body); err != nil {
			return err
		}
		s.traces = append(s.traces, r.Traces())
	case "/v1/logs":
		r := plogotlp.NewExportRequest()
		if err := r.UnmarshalProto(body); err != nil {
			return err
		}
		s.logs = append(s.logs, r.Logs())
	}
	return nil
}

// wait returns when done says so of what came until then. It gives up after a
// minute and tells what is missing.
func (s *sink) wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		s.mu.Lock()
		ok := done()
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-s.came:
		case <-deadline:
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("after a minute: no %s; %d exports of metrics, %d of traces and %d of logs came", what, len(s.metrics), len(s.traces), len(s.logs))
		}
	}
}

// node is which one a resource is about, "" where it isn't Gridloom's.
func node(r pcommon.Resource) string {
	if text(r.Attributes(), "service.name") != "gridloom" || text(r.Attributes(), "service.version") == "" {
		return ""
	}
	return text(r.Attributes(), "service.instance.id")
}

func text(m pcommon.Map, key string) string {
	v, ok := m.Get(key)
	if !ok {
		return ""
	}
	return v.AsString()
}

// eachMetric yields all that came of a node.
func (s *sink) eachMetric(of string) func(yield func(pmetric.Metric) bool) {
	return func(yield func(pmetric.Metric) bool) {
		for _, export := range s.metrics {
			for _, r := range export.ResourceMetrics().All() {
				if node(r.Resource()) != of {
					continue
				}
				for _, scope := range r.ScopeMetrics().All() {
					for _, m := range scope.Metrics().All() {
						if !yield(m) {
							return
						}
					}
				}
			}
		}
	}
}

func (s *sink) eachSpan(of string) func(yield func(ptrace.Span) bool) {
	return func(yield func(ptrace.Span) bool) {
		for _, export := range s.traces {
			for _, r := range export.ResourceSpans().All() {
				if node(r.Resource()) != of {
					continue
				}
				for _, scope := range r.ScopeSpans().All() {
					for _, span := range scope.Spans().All() {
						if !yield(span) {
							return
						}
					}
				}
			}
		}
	}
}

func (s *sink) eachLog(of string) func(yield func(plog.LogRecord) bool) {
	return func(yield func(plog.LogRecord) bool) {
		for _, export := range s.logs {
			for _, r := range export.ResourceLogs().All() {
				if node(r.Resource()) != of {
					continue
				}
				for _, scope := range r.ScopeLogs().All() {
					for _, record := range scope.LogRecords().All() {
						if !yield(record) {
							return
						}
					}
				}
			}
		}
	}
}
