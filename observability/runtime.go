package observability

import (
	"context"
	"runtime/metrics"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// What is read of the Go runtime: cheap counters, none of which stops it.
const (
	runtimeTotal      = "/memory/classes/total:bytes"
	runtimeReleased   = "/memory/classes/heap/released:bytes"
	runtimeStacks     = "/memory/classes/heap/stacks:bytes"
	runtimeAllocBytes = "/gc/heap/allocs:bytes"
	runtimeAllocs     = "/gc/heap/allocs:objects"
	runtimeGoal       = "/gc/heap/goal:bytes"
	runtimeGoroutines = "/sched/goroutines:goroutines"
	runtimeProcs      = "/sched/gomaxprocs:threads"
)

// observeRuntime registers metrics of the Go runtime under the names of the
// OpenTelemetry semantic conventions
// (https://opentelemetry.io/docs/specs/semconv/runtime/go-metrics/). They are
// the process's: in a process of several nodes each node shows the same.
func observeRuntime(m metric.Meter) error {
	var failed error
	keep := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	upDown := func(name, unit, help string) metric.Int64ObservableUpDownCounter {
		i, err := m.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		keep(err)
		return i
	}
	counter := func(name, unit, help string) metric.Int64ObservableCounter {
		i, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		keep(err)
		return i
	}
	used := upDown("go.memory.used", "By", "Memory used by the Go runtime.")
	allocated := counter("go.memory.allocated", "By", "Memory allocated to the heap by the application.")
	allocations := counter("go.memory.allocations", "{allocation}", "Count of allocations to the heap by the application.")
	goal := upDown("go.memory.gc.goal", "By", "Heap size target for the end of the GC cycle.")
	goroutines := upDown("go.goroutine.count", "{goroutine}", "Count of live goroutines.")
	procs := upDown("go.processor.limit", "{thread}", "The number of OS threads that can execute user-level Go code simultaneously.")
	if failed != nil {
		return failed
	}

	stack := metric.WithAttributeSet(attribute.NewSet(attribute.String("go.memory.type", "stack")))
	other := metric.WithAttributeSet(attribute.NewSet(attribute.String("go.memory.type", "other")))
	samples := make([]metrics.Sample, 0, 8)
	for _, name := range []string{runtimeTotal, runtimeReleased, runtimeStacks, runtimeAllocBytes,
		runtimeAllocs, runtimeGoal, runtimeGoroutines, runtimeProcs} {
		samples = append(samples, metrics.Sample{Name: name})
	}
	var mu sync.Mutex // guards samples: two readers may collect at once
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		mu.Lock()
		defer mu.Unlock()
		metrics.Read(samples)
		value := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
		total, released, stacks := value(0), value(1), value(2)
		o.ObserveInt64(used, stacks, stack)
		o.ObserveInt64(used, total-released-stacks, other)
		o.ObserveInt64(allocated, value(3))
		o.ObserveInt64(allocations, value(4))
		o.ObserveInt64(goal, value(5))
		o.ObserveInt64(goroutines, value(6))
		o.ObserveInt64(procs, value(7))
		return nil
	}, used, allocated, allocations, goal, goroutines, procs)
	return err
}
