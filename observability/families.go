package observability

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// family is one metric of resources and where its values are. This table is
// the only place that knows names: the text of WriteResources and the
// instruments of Register are made from it, so that /v2, /metrics and OTLP
// agree.
type family struct {
	subsystem string // "" for the node itself
	name      string // Prometheus'
	unit      string // OpenTelemetry's (UCUM); must not change the name, see instrument
	help      string
	counter   bool
	folded    bool // has _avg, _max, _avg_1h and _max_1h
	values    func(r *Resources, emit func(g Gauge, labels ...label))
}

type label struct{ name, value string }

// statistic is one of the metrics that a family with folded has.
type statistic struct {
	suffix, help string
	of           func(Gauge) float64
}

func (f *family) statistics() []statistic {
	all := []statistic{
		{"", "", func(g Gauge) float64 { return g.Current }},
		{"_avg", " Average since the node's start.", func(g Gauge) float64 { return g.Average }},
		{"_max", " Maximum since the node's start.", func(g Gauge) float64 { return g.Maximum }},
		{"_avg_1h", " Average of the last hour.", func(g Gauge) float64 { return g.AverageHour }},
		{"_max_1h", " Maximum of the last hour.", func(g Gauge) float64 { return g.MaximumHour }},
	}
	if !f.folded {
		return all[:1]
	}
	return all
}

// subsystems are those that can be selected, in the order of their output.
var subsystems = [...]string{"drive", "network", "cpu", "memory", "api", "peer"}

// CheckSubsystems returns an error that names the first unknown subsystem.
// Known are "drive", "network", "cpu", "memory", "api" and "peer".
func CheckSubsystems(names []string) error {
	for _, name := range names {
		if !slices.Contains(subsystems[:], name) {
			return fmt.Errorf("unknown subsystem %q, want %s", name, strings.Join(subsystems[:], ", "))
		}
	}
	return nil
}

// families returns the table.
func families() []family {
	fs := []family{{
		name: "gridloom_node_up",
		help: "Whether the node answered, 1 or 0. A node that did not has no other metrics.",
		values: func(r *Resources, emit func(Gauge, ...label)) {
			if r.Up {
				emit(Gauge{Current: 1})
			} else {
				emit(Gauge{})
			}
		},
	}}
	fs = append(fs, driveFamilies()...)
	fs = append(fs, networkFamilies()...)
	fs = append(fs, cpuFamilies()...)
	return append(fs, memoryFamilies()...)
}

func driveFamilies() []family {
	labels := func(d *Drive) []label { return []label{{"drive", d.ID}, {"path", d.Path}} }
	value := func(name, unit, help string, of func(*Drive) float64) family {
		return family{subsystem: "drive", name: name, unit: unit, help: help,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.Drives {
					d := &r.Drives[i]
					emit(Gauge{Current: of(d)}, labels(d)...)
				}
			}}
	}
	// Of the block device; absent where it is not known.
	device := func(name, unit, help string, of func(*Drive) float64) family {
		return family{subsystem: "drive", name: name, unit: unit, help: help,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.Drives {
					if d := &r.Drives[i]; d.Device != "" {
						emit(Gauge{Current: of(d)}, append(labels(d), label{"device", d.Device})...)
					}
				}
			}}
	}
	errors := value("gridloom_drive_errors_total", "{error}", "Errors of reads and writes since the node's start.",
		func(d *Drive) float64 { return float64(d.Errors) })
	errors.counter = true
	timeouts := value("gridloom_drive_timeouts_total", "{operation}", "Operations that took longer than a healthy drive may, since the node's start.",
		func(d *Drive) float64 { return float64(d.Timeouts) })
	timeouts.counter = true
	return []family{
		{subsystem: "drive", name: "gridloom_drive_state", help: "1 for the state that the drive is in: online, degraded, read_only, suspect or offline.",
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.Drives {
					d := &r.Drives[i]
					emit(Gauge{Current: 1}, append(labels(d), label{"state", d.State})...)
				}
			}},
		value("gridloom_drive_total_bytes", "By", "Size of the drive's file system.", func(d *Drive) float64 { return float64(d.TotalBytes) }),
		value("gridloom_drive_used_bytes", "By", "Used bytes of the drive's file system.", func(d *Drive) float64 { return float64(d.UsedBytes) }),
		value("gridloom_drive_free_bytes", "By", "Bytes that can still be written to the drive.", func(d *Drive) float64 { return float64(d.FreeBytes) }),
		value("gridloom_drive_total_inodes", "{inode}", "Inodes of the drive's file system; 0 where it has no fixed number.", func(d *Drive) float64 { return float64(d.TotalInodes) }),
		value("gridloom_drive_used_inodes", "{inode}", "Used inodes of the drive's file system.", func(d *Drive) float64 { return float64(d.UsedInodes) }),
		value("gridloom_drive_free_inodes", "{inode}", "Free inodes of the drive's file system.", func(d *Drive) float64 { return float64(d.FreeInodes) }),
		device("gridloom_drive_reads_per_second", "{read}", "Reads of the block device, a second.", func(d *Drive) float64 { return d.ReadsPerSecond }),
		device("gridloom_drive_writes_per_second", "{write}", "Writes of the block device, a second.", func(d *Drive) float64 { return d.WritesPerSecond }),
		device("gridloom_drive_read_bytes_per_second", "{By}/{s}", "Bytes read of the block device, a second.", func(d *Drive) float64 { return d.ReadBytesPerSecond }),
		device("gridloom_drive_written_bytes_per_second", "{By}/{s}", "Bytes written to the block device, a second.", func(d *Drive) float64 { return d.WrittenBytesPerSecond }),
		device("gridloom_drive_await_seconds", "s", "Mean time of a request to the block device, waiting included.", func(d *Drive) float64 { return d.AwaitSeconds }),
		device("gridloom_drive_utilization_ratio", "1", "Share of the time in which the block device had work, 0 to 1.", func(d *Drive) float64 { return d.UtilizationRatio }),
		errors,
		timeouts,
		value("gridloom_drive_healthy", "{bool}", "1 for a drive that is online, 0 for one in any other state.", func(d *Drive) float64 {
			if d.Healthy() {
				return 1
			}
			return 0
		}),
	}
}

func networkFamilies() []family {
	rate := func(what, unit, help string, of func(*Network) Gauge) family {
		return family{subsystem: "network", name: "gridloom_network_" + what + "_per_second", unit: unit, help: help, folded: true,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.Networks {
					n := &r.Networks[i]
					emit(of(n), label{"interface", n.Interface})
				}
			}}
	}
	mesh := func(what, help string, of func(*MeshTraffic) Gauge) family {
		return family{subsystem: "network", name: "gridloom_network_mesh_" + what + "_bytes_per_second", unit: "{By}/{s}", help: help, folded: true,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.Mesh {
					m := &r.Mesh[i]
					emit(of(m), label{"via", m.Via})
				}
			}}
	}
	return []family{
		rate("received_bytes", "{By}/{s}", "Bytes received by the interface, a second.", func(n *Network) Gauge { return n.ReceivedBytes }),
		rate("sent_bytes", "{By}/{s}", "Bytes sent by the interface, a second.", func(n *Network) Gauge { return n.SentBytes }),
		rate("received_packets", "{packet}/{s}", "Packets received by the interface, a second.", func(n *Network) Gauge { return n.ReceivedPackets }),
		rate("sent_packets", "{packet}/{s}", "Packets sent by the interface, a second.", func(n *Network) Gauge { return n.SentPackets }),
		rate("errors", "{error}/{s}", "Errors of the interface in both directions, a second.", func(n *Network) Gauge { return n.Errors }),
		rate("drops", "{packet}/{s}", "Packets dropped by the interface in both directions, a second.", func(n *Network) Gauge { return n.Drops }),
		mesh("received", "Bytes received from the other nodes, a second, by the grid or the bulk port, without what TLS and TCP add.",
			func(m *MeshTraffic) Gauge { return m.ReceivedBytes }),
		mesh("sent", "Bytes sent to the other nodes, a second, by the grid or the bulk port, without what TLS and TCP add.",
			func(m *MeshTraffic) Gauge { return m.SentBytes }),
	}
}

func cpuFamilies() []family {
	value := func(what, unit, help string, of func(*CPU) Gauge) family {
		return family{subsystem: "cpu", name: "gridloom_cpu_" + what, unit: unit, help: help, folded: true,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				if r.Up {
					emit(of(&r.CPU))
				}
			}}
	}
	return []family{
		value("cores", "{cpu}", "Logical CPUs.", func(c *CPU) Gauge {
			n := float64(c.Cores)
			return Gauge{n, n, n, n, n}
		}),
		{subsystem: "cpu", name: "gridloom_cpu_core_busy_ratio", unit: "{ratio}", folded: true,
			help: "Share of one logical CPU's time that was neither idle nor waiting for I/O, 0 to 1.",
			values: func(r *Resources, emit func(Gauge, ...label)) {
				for i := range r.Cores {
					emit(r.Cores[i].BusyRatio, label{"core", strconv.Itoa(int(r.Cores[i].Core))})
				}
			}},
		value("busy_ratio", "{ratio}", "Share of CPU time that was neither idle nor waiting for I/O, 0 to 1.", func(c *CPU) Gauge { return c.BusyRatio }),
		value("user_ratio", "{ratio}", "Share of CPU time in programs, 0 to 1.", func(c *CPU) Gauge { return c.UserRatio }),
		value("system_ratio", "{ratio}", "Share of CPU time in the kernel, 0 to 1.", func(c *CPU) Gauge { return c.SystemRatio }),
		value("idle_ratio", "{ratio}", "Share of idle CPU time, 0 to 1.", func(c *CPU) Gauge { return c.IdleRatio }),
		value("iowait_ratio", "{ratio}", "Share of CPU time that was idle with I/O outstanding, 0 to 1.", func(c *CPU) Gauge { return c.IowaitRatio }),
		value("steal_ratio", "{ratio}", "Share of CPU time that the hypervisor gave to others, 0 to 1.", func(c *CPU) Gauge { return c.StealRatio }),
		value("load1", "{process}", "Load average over one minute.", func(c *CPU) Gauge { return c.Load1 }),
		value("load5", "{process}", "Load average over five minutes.", func(c *CPU) Gauge { return c.Load5 }),
		value("load15", "{process}", "Load average over fifteen minutes.", func(c *CPU) Gauge { return c.Load15 }),
	}
}

func memoryFamilies() []family {
	value := func(what, help string, of func(*Memory) Gauge) family {
		return family{subsystem: "memory", name: "gridloom_memory_" + what + "_bytes", unit: "By", help: help, folded: true,
			values: func(r *Resources, emit func(Gauge, ...label)) {
				if r.Up {
					emit(of(&r.Memory))
				}
			}}
	}
	return []family{
		value("total", "Memory of the host.", func(m *Memory) Gauge { return m.Total }),
		value("used", "Memory in use by programs.", func(m *Memory) Gauge { return m.Used }),
		value("free", "Memory that nothing uses.", func(m *Memory) Gauge { return m.Free }),
		value("available", "Memory that programs could get without swapping.", func(m *Memory) Gauge { return m.Available }),
		value("buffers", "Memory of the kernel's buffers.", func(m *Memory) Gauge { return m.Buffers }),
		value("cache", "Memory of the page cache.", func(m *Memory) Gauge { return m.Cache }),
		value("swap_total", "Swap space of the host.", func(m *Memory) Gauge { return m.SwapTotal }),
		value("swap_used", "Swap space in use.", func(m *Memory) Gauge { return m.SwapUsed }),
		value("process_resident", "Resident set of the node's process.", func(m *Memory) Gauge { return m.ProcessResident }),
		value("process_heap", "Heap of the node's process: live objects and those not yet swept.", func(m *Memory) Gauge { return m.ProcessHeap }),
	}
}

// Register makes the resources observable instruments of meter, under the
// names that WriteResources gives them. They carry no label node: the meter's
// resource, or its exporter, says whose they are.
func (c *Collector) Register(meter metric.Meter) error {
	type registered struct {
		family  family
		stats   []statistic
		gauges  []metric.Float64ObservableGauge
		counter metric.Int64ObservableCounter
	}
	var all []registered
	var instruments []metric.Observable
	for _, f := range families() {
		r := registered{family: f, stats: f.statistics()}
		if f.counter {
			i, err := meter.Int64ObservableCounter(instrument(strings.TrimSuffix(f.name, "_total")),
				metric.WithUnit(f.unit), metric.WithDescription(f.help))
			if err != nil {
				return err
			}
			r.counter = i
			instruments = append(instruments, i)
		} else {
			for _, s := range r.stats {
				i, err := meter.Float64ObservableGauge(instrument(f.name+s.suffix),
					metric.WithUnit(f.unit), metric.WithDescription(f.help+s.help))
				if err != nil {
					return err
				}
				r.gauges = append(r.gauges, i)
				instruments = append(instruments, i)
			}
		}
		all = append(all, r)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := c.Resources()
		for _, r := range all {
			r.family.values(now, func(g Gauge, labels ...label) {
				attributes := metric.WithAttributeSet(attributeSet(labels))
				if r.family.counter {
					o.ObserveInt64(r.counter, int64(g.Current), attributes)
					return
				}
				for i, s := range r.stats {
					o.ObserveFloat64(r.gauges[i], s.of(g), attributes)
				}
			})
		}
		return nil
	}, instruments...)
	return err
}

// instrument returns the OpenTelemetry name that the Prometheus exporter makes
// name of again. That also appends what it makes of the unit, where the name
// doesn't have it: in the middle for bytes and seconds, but at the end for
// ratios and "per second", where _avg and _max stand. Units of those are
// written as annotations ({…}), which it leaves alone.
func instrument(name string) string { return strings.ReplaceAll(name, "_", ".") }

func attributeSet(labels []label) attribute.Set {
	kvs := make([]attribute.KeyValue, len(labels))
	for i, l := range labels {
		kvs[i] = attribute.String(l.name, l.value)
	}
	return attribute.NewSet(kvs...)
}
