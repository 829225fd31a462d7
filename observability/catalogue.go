package observability

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/metric"
)

// Instrument is a metric that was declared, whether it has had a value or not.
type Instrument struct {
	Name        string // OpenTelemetry's: "gridloom.request.ttfb"
	Kind        string // "counter", "up-down counter", "gauge" or "histogram"
	Unit        string // UCUM
	Description string
	Series      string    // Prometheus': "gridloom_request_ttfb_seconds"
	Group       string    // one of Groups
	Buckets     []float64 // upper bounds of a histogram's, but for the last, which has none
	Resource    bool      // WriteResources has it too
}

// Groups are the parts of a node that can be scraped by themselves.
func Groups() []string { return slices.Clone(groups[:]) }

var groups = [...]string{"api", "system", "grid", "control", "objects", "drives", "process"}

// prefixes say which group a metric belongs to. The longest counts; what has
// none is the process's.
var prefixes = map[string]string{
	"gridloom_request_": "api", "gridloom_response_": "api", "gridloom_limited_": "api", "gridloom_bucket_": "api",
	"gridloom_certificate_": "api", "gridloom_audit_": "api",

	"gridloom_node_": "system", "gridloom_cpu_": "system", "gridloom_memory_": "system", "gridloom_network_": "system",

	"gridloom_grid_": "grid", "gridloom_bulk_": "grid",

	"gridloom_raft_": "control",

	"gridloom_payload_": "objects", "gridloom_put_": "objects", "gridloom_read_": "objects", "gridloom_bad_": "objects",
	"gridloom_orphans_": "objects", "gridloom_heal_": "objects", "gridloom_scrub_": "objects", "gridloom_gc_": "objects",

	"gridloom_drive_": "drives",
}

// groupOf gives the group of a metric by its Prometheus name.
func groupOf(series string) string {
	longest, group := 0, "process"
	for prefix, of := range prefixes {
		if len(prefix) > longest && strings.HasPrefix(series, prefix) {
			longest, group = len(prefix), of
		}
	}
	return group
}

// catalogue is a meter that remembers what was declared on it.
type catalogue struct {
	metric.Meter
	namer otlptranslator.MetricNamer

	mu  sync.Mutex // guards all
	all map[string]Instrument
}

func newCatalogue(m metric.Meter) *catalogue {
	return &catalogue{
		Meter: m,
		namer: otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes),
		all:   make(map[string]Instrument),
	}
}

// instruments lists what was declared, by group and name.
func (c *catalogue) instruments() []Instrument {
	c.mu.Lock()
	defer c.mu.Unlock()
	resources := make(map[string]bool)
	for _, f := range families() {
		for _, s := range f.statistics() {
			resources[f.name+s.suffix] = true
		}
	}
	all := make([]Instrument, 0, len(c.all))
	for _, i := range c.all {
		i.Resource = resources[i.Series]
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b Instrument) int {
		return cmp.Or(cmp.Compare(slices.Index(groups[:], a.Group), slices.Index(groups[:], b.Group)), cmp.Compare(a.Series, b.Series))
	})
	return all
}

// kind is how an instrument's values are to be read.
type kind struct {
	name string
	of   otlptranslator.MetricType
}

var (
	kindCounter   = kind{"counter", otlptranslator.MetricTypeMonotonicCounter}
	kindUpDown    = kind{"up-down counter", otlptranslator.MetricTypeNonMonotonicCounter}
	kindGauge     = kind{"gauge", otlptranslator.MetricTypeGauge}
	kindHistogram = kind{"histogram", otlptranslator.MetricTypeHistogram}
)

// declared is what every instrument's configuration has.
type declared interface {
	Unit() string
	Description() string
}

// note remembers an instrument, unless the SDK refuses it.
func note[I any](c *catalogue, k kind, name string, d declared, i I, err error) (I, error) {
	if err != nil {
		return i, err
	}
	series, err := c.namer.Build(otlptranslator.Metric{Name: name, Unit: d.Unit(), Type: k.of})
	if err != nil {
		return i, err
	}
	all := Instrument{Name: name, Kind: k.name, Unit: d.Unit(), Description: d.Description(), Series: series, Group: groupOf(series)}
	if h, ok := d.(interface{ ExplicitBucketBoundaries() []float64 }); ok {
		all.Buckets = h.ExplicitBucketBoundaries()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[name] = all
	return i, nil
}

func (c *catalogue) Int64Counter(name string, o ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	i, err := c.Meter.Int64Counter(name, o...)
	return note(c, kindCounter, name, metric.NewInt64CounterConfig(o...), i, err)
}

func (c *catalogue) Int64UpDownCounter(name string, o ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	i, err := c.Meter.Int64UpDownCounter(name, o...)
	return note(c, kindUpDown, name, metric.NewInt64UpDownCounterConfig(o...), i, err)
}

func (c *catalogue) Int64Histogram(name string, o ...metric.Int64HistogramOption) (metric.Int64Histogram, error) {
	i, err := c.Meter.Int64Histogram(name, o...)
	return note(c, kindHistogram, name, metric.NewInt64HistogramConfig(o...), i, err)
}

func (c *catalogue) Int64Gauge(name string, o ...metric.Int64GaugeOption) (metric.Int64Gauge, error) {
	i, err := c.Meter.Int64Gauge(name, o...)
	return note(c, kindGauge, name, metric.NewInt64GaugeConfig(o...), i, err)
}

func (c *catalogue) Int64ObservableCounter(name string, o ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	i, err := c.Meter.Int64ObservableCounter(name, o...)
	return note(c, kindCounter, name, metric.NewInt64ObservableCounterConfig(o...), i, err)
}

func (c *catalogue) Int64ObservableUpDownCounter(name string, o ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	i, err := c.Meter.Int64ObservableUpDownCounter(name, o...)
	return note(c, kindUpDown, name, metric.NewInt64ObservableUpDownCounterConfig(o...), i, err)
}

func (c *catalogue) Int64ObservableGauge(name string, o ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	i, err := c.Meter.Int64ObservableGauge(name, o...)
	return note(c, kindGauge, name, metric.NewInt64ObservableGaugeConfig(o...), i, err)
}

func (c *catalogue) Float64Counter(name string, o ...metric.Float64CounterOption) (metric.Float64Counter, error) {
	i, err := c.Meter.Float64Counter(name, o...)
	return note(c, kindCounter, name, metric.NewFloat64CounterConfig(o...), i, err)
}

func (c *catalogue) Float64UpDownCounter(name string, o ...metric.Float64UpDownCounterOption) (metric.Float64UpDownCounter, error) {
	i, err := c.Meter.Float64UpDownCounter(name, o...)
	return note(c, kindUpDown, name, metric.NewFloat64UpDownCounterConfig(o...), i, err)
}

func (c *catalogue) Float64Histogram(name string, o ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	i, err := c.Meter.Float64Histogram(name, o...)
	return note(c, kindHistogram, name, metric.NewFloat64HistogramConfig(o...), i, err)
}

func (c *catalogue) Float64Gauge(name string, o ...metric.Float64GaugeOption) (metric.Float64Gauge, error) {
	i, err := c.Meter.Float64Gauge(name, o...)
	return note(c, kindGauge, name, metric.NewFloat64GaugeConfig(o...), i, err)
}

func (c *catalogue) Float64ObservableCounter(name string, o ...metric.Float64ObservableCounterOption) (metric.Float64ObservableCounter, error) {
	i, err := c.Meter.Float64ObservableCounter(name, o...)
	return note(c, kindCounter, name, metric.NewFloat64ObservableCounterConfig(o...), i, err)
}

func (c *catalogue) Float64ObservableUpDownCounter(name string, o ...metric.Float64ObservableUpDownCounterOption) (metric.Float64ObservableUpDownCounter, error) {
	i, err := c.Meter.Float64ObservableUpDownCounter(name, o...)
	return note(c, kindUpDown, name, metric.NewFloat64ObservableUpDownCounterConfig(o...), i, err)
}

func (c *catalogue) Float64ObservableGauge(name string, o ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	i, err := c.Meter.Float64ObservableGauge(name, o...)
	return note(c, kindGauge, name, metric.NewFloat64ObservableGaugeConfig(o...), i, err)
}
