package observability

import (
	"context"
	"os"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// What is read of Go's garbage collector beside observeRuntime's.
const (
	collectorCycles = "/gc/cycles/total:gc-cycles"
	collectorCPU    = "/cpu/classes/gc/total:cpu-seconds"
	collectorShare  = "/gc/gogc:percent"
)

// observeProcess registers what the process costs its host, under the names of
// the semantic conventions where there are any
// (https://opentelemetry.io/docs/specs/semconv/system/process-metrics/): some
// 0.1 ms a collection on Linux. What can't be read is left out.
func observeProcess(m metric.Meter) error {
	var failed error
	keep := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	cpu, err := m.Float64ObservableCounter("process.cpu.time", metric.WithUnit("s"),
		metric.WithDescription("CPU time of the process, by mode."))
	keep(err)
	memory, err := m.Int64ObservableUpDownCounter("process.memory.usage", metric.WithUnit("By"),
		metric.WithDescription("Physical memory in use by the process."))
	keep(err)
	uptime, err := m.Float64ObservableGauge("process.uptime", metric.WithUnit("s"),
		metric.WithDescription("Time since the node was started."))
	keep(err)
	gogc, err := m.Int64ObservableUpDownCounter("go.config.gogc", metric.WithUnit("%"),
		metric.WithDescription("Heap growth at which a garbage collection begins, as configured."))
	keep(err)
	cycles, err := m.Int64ObservableCounter("gridloom.process.gc.cycles", metric.WithUnit("{cycle}"),
		metric.WithDescription("Garbage collections that were completed."))
	keep(err)
	gcCPU, err := m.Float64ObservableCounter("gridloom.process.gc.cpu.time", metric.WithUnit("s"),
		metric.WithDescription("CPU time that garbage collection took, about, idle time that it used included."))
	keep(err)
	if failed != nil {
		return failed
	}

	user := metric.WithAttributeSet(attribute.NewSet(attribute.String("cpu.mode", "user")))
	system := metric.WithAttributeSet(attribute.NewSet(attribute.String("cpu.mode", "system")))
	self, started := process.Process{Pid: int32(os.Getpid())}, time.Now()
	samples := []metrics.Sample{{Name: collectorCycles}, {Name: collectorCPU}, {Name: collectorShare}}
	var mu sync.Mutex // guards samples: two readers may collect at once
	_, err = m.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		o.ObserveFloat64(uptime, time.Since(started).Seconds())
		if times, err := self.TimesWithContext(ctx); err == nil {
			o.ObserveFloat64(cpu, times.User, user)
			o.ObserveFloat64(cpu, times.System, system)
		}
		if info, err := self.MemoryInfoWithContext(ctx); err == nil {
			o.ObserveInt64(memory, int64(info.RSS))
		}
		mu.Lock()
		defer mu.Unlock()
		metrics.Read(samples)
		o.ObserveInt64(cycles, int64(samples[0].Value.Uint64()))
		o.ObserveFloat64(gcCPU, samples[1].Value.Float64())
		o.ObserveInt64(gogc, int64(samples[2].Value.Uint64()))
		return nil
	}, cpu, memory, uptime, gogc, cycles, gcCPU)
	return err
}
