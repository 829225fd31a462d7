package observability

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"pgregory.net/rapid"
)

// parseText parses Prometheus text, strictly: families once, types known.
func parseText(t testing.TB, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return families
}

// values returns a family's values by their labels, "a=1,b=2".
func values(f *dto.MetricFamily) map[string]float64 {
	values := make(map[string]float64)
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		slices.Sort(labels)
		v := m.GetGauge().GetValue()
		if f.GetType() == dto.MetricType_COUNTER {
			v = m.GetCounter().GetValue()
		}
		values[strings.Join(labels, ",")] = v
	}
	return values
}

// exampleResources fills in every field, each with a value of its own.
func exampleResources(node string) *Resources {
	n := 0.0
	next := func() float64 { n++; return n }
	gauge := func() Gauge {
		return Gauge{Current: next(), Average: next() / 10, Maximum: next() * 10, AverageHour: next() / 20, MaximumHour: next() * 5}
	}
	network := func(name string) Network {
		return Network{name, gauge(), gauge(), gauge(), gauge(), gauge(), gauge()}
	}
	return &Resources{
		Node: node, Up: true, SampledAtUnixNano: 1_800_000_000_000_000_000,
		Drives: []Drive{
			{ID: "d1", Path: "/mnt/1", State: "online", TotalBytes: 1 << 50, UsedBytes: 3, FreeBytes: 4, TotalInodes: 5, UsedInodes: 6, FreeInodes: 7,
				Device: "sda1", ReadsPerSecond: 8, WritesPerSecond: 9, ReadBytesPerSecond: 10, WrittenBytesPerSecond: 11, AwaitSeconds: 0.0125, UtilizationRatio: 0.5, Errors: 12, Timeouts: 13},
			{ID: "d2", Path: "/mnt/2", State: "offline", Errors: 1},
		},
		Networks: []Network{network("eth0"), network("lo")},
		CPU:      CPU{4, gauge(), gauge(), gauge(), gauge(), gauge(), gauge(), gauge(), gauge(), gauge()},
		Memory:   Memory{gauge(), gauge(), gauge(), gauge(), gauge(), gauge(), gauge(), gauge(), gauge(), gauge()},
		Cores:    []Core{{0, gauge()}, {3, gauge()}},
		Mesh:     []MeshTraffic{{ViaBulk, gauge(), gauge()}, {ViaGrid, gauge(), gauge()}},
		Peers: []Peer{{Node: "z", Up: true, RTTSeconds: 0.001, ReceivedBytesPerSecond: 1, SentBytesPerSecond: 2, ReceivedMessagesPerSecond: 3,
			SentMessagesPerSecond: 4, QueuedBytes: 5, CallsOut: 6, CallsIn: 7, Sessions: 8}},
		APIs: []APICalls{{Name: "GetObject", Proto: "http", RequestsPerSecond: 1, ClientErrorsPerSecond: 2, ServerErrorsPerSecond: 3,
			TTFBP50Seconds: 0.25, TTFBP99Seconds: 0.5}},
	}
}

func TestWriteResources(t *testing.T) {
	var b bytes.Buffer
	a, c := exampleResources("a"), exampleResources("c")
	down := Down("b", errors.New("connection refused"))
	if err := WriteResources(&b, nil, []*Resources{a, down, c}); err != nil {
		t.Fatal(err)
	}
	got := parseText(t, b.Bytes())

	check := func(family, labels string, want float64) {
		t.Helper()
		value, ok := values(got[family])[labels]
		if !ok || value != want {
			t.Errorf("%s{%s} = %g (there: %v), want %g", family, labels, value, ok, want)
		}
	}
	check("gridloom_node_up", "node=a", 1)
	check("gridloom_node_up", "node=b", 0)
	check("gridloom_node_up", "node=c", 1)
	check("gridloom_drive_total_bytes", "drive=d1,node=a,path=/mnt/1", 1<<50)
	check("gridloom_drive_state", "drive=d2,node=c,path=/mnt/2,state=offline", 1)
	check("gridloom_drive_errors_total", "drive=d2,node=a,path=/mnt/2", 1)
	check("gridloom_drive_await_seconds", "device=sda1,drive=d1,node=a,path=/mnt/1", 0.0125)
	if _, ok := values(got["gridloom_drive_reads_per_second"])["drive=d2,node=a,path=/mnt/2"]; ok {
		t.Error("a drive without a device has rates")
	}
	check("gridloom_network_received_bytes_per_second", "interface=eth0,node=a", a.Networks[0].ReceivedBytes.Current)
	check("gridloom_network_received_bytes_per_second_avg", "interface=eth0,node=c", c.Networks[0].ReceivedBytes.Average)
	check("gridloom_network_drops_per_second_max", "interface=lo,node=c", c.Networks[1].Drops.Maximum)
	check("gridloom_network_drops_per_second_max_1h", "interface=lo,node=c", c.Networks[1].Drops.MaximumHour)
	check("gridloom_network_mesh_sent_bytes_per_second", "node=a,via=bulk", a.Mesh[0].SentBytes.Current)
	check("gridloom_network_mesh_received_bytes_per_second_avg_1h", "node=a,via=grid", a.Mesh[1].ReceivedBytes.AverageHour)
	check("gridloom_cpu_core_busy_ratio_max", "core=3,node=a", a.Cores[1].BusyRatio.Maximum)
	check("gridloom_drive_timeouts_total", "drive=d1,node=a,path=/mnt/1", 13)
	check("gridloom_drive_healthy", "drive=d1,node=a,path=/mnt/1", 1)
	check("gridloom_drive_healthy", "drive=d2,node=a,path=/mnt/2", 0)
	check("gridloom_cpu_cores", "node=a", 4)
	check("gridloom_cpu_steal_ratio_max", "node=a", a.CPU.StealRatio.Maximum)
	check("gridloom_cpu_load15_avg", "node=a", a.CPU.Load15.Average)
	check("gridloom_api_requests_per_second", "api=GetObject,node=a,proto=http", 1)
	check("gridloom_api_ttfb_p99_seconds", "api=GetObject,node=c,proto=http", 0.5)
	check("gridloom_peer_up", "node=a,peer=z", 1)
	check("gridloom_peer_sessions_total", "node=c,peer=z", 8)
	check("gridloom_memory_process_heap_bytes", "node=c", c.Memory.ProcessHeap.Current)

	suffixes := []string{"_avg_1h", "_max_1h", "_avg", "_max"}
	for name, f := range got {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		for labels := range values(f) {
			if strings.Contains(labels, "node=b") && name != "gridloom_node_up" {
				t.Errorf("%s{%s} of a node that is down", name, labels)
			}
		}
		// Average and maximum beside every value but the drives', APIs' and peers'.
		base := name
		for _, suffix := range suffixes {
			base = strings.TrimSuffix(base, suffix)
		}
		folded := true
		for _, plain := range []string{"gridloom_drive_", "gridloom_node_", "gridloom_api_", "gridloom_peer_"} {
			folded = folded && !strings.HasPrefix(name, plain)
		}
		for _, suffix := range suffixes {
			if (got[base+suffix] != nil) != folded {
				t.Errorf("%s%s: there %v, want %v", base, suffix, !folded, folded)
			}
		}
		if n := strings.Count(b.String(), "# TYPE "+name+" "); n != 1 {
			t.Errorf("%d times TYPE of %s", n, name)
		}
	}
	if len(got) < 70 {
		t.Errorf("%d metrics", len(got))
	}
}

// TestEveryFieldIsExported changes each number of a Resources in turn and
// expects the text to change: no field is left out of the table.
func TestEveryFieldIsExported(t *testing.T) {
	text := func(r *Resources) string {
		var b bytes.Buffer
		if err := WriteResources(&b, nil, []*Resources{r}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	r := exampleResources("a")
	before := text(r)
	d, n, c, m := &r.Drives[0], &r.Networks[0], &r.CPU, &r.Memory
	gauges := []*Gauge{
		&n.ReceivedBytes, &n.SentBytes, &n.ReceivedPackets, &n.SentPackets, &n.Errors, &n.Drops,
		&c.BusyRatio, &c.UserRatio, &c.SystemRatio, &c.IdleRatio, &c.IowaitRatio, &c.StealRatio, &c.Load1, &c.Load5, &c.Load15,
		&m.Total, &m.Used, &m.Free, &m.Available, &m.Buffers, &m.Cache, &m.SwapTotal, &m.SwapUsed, &m.ProcessResident, &m.ProcessHeap,
		&r.Cores[0].BusyRatio, &r.Mesh[0].ReceivedBytes, &r.Mesh[0].SentBytes, &r.Mesh[1].ReceivedBytes, &r.Mesh[1].SentBytes,
	}
	floats := []*float64{&d.ReadsPerSecond, &d.WritesPerSecond, &d.ReadBytesPerSecond, &d.WrittenBytesPerSecond, &d.AwaitSeconds, &d.UtilizationRatio}
	p, a := &r.Peers[0], &r.APIs[0]
	floats = append(floats, &p.RTTSeconds, &p.ReceivedBytesPerSecond, &p.SentBytesPerSecond, &p.ReceivedMessagesPerSecond, &p.SentMessagesPerSecond,
		&a.RequestsPerSecond, &a.ClientErrorsPerSecond, &a.ServerErrorsPerSecond, &a.TTFBP50Seconds, &a.TTFBP99Seconds)
	for _, g := range gauges {
		floats = append(floats, &g.Current, &g.Average, &g.Maximum, &g.AverageHour, &g.MaximumHour)
	}
	for i, f := range floats {
		old := *f
		*f += 0.25
		if text(r) == before {
			t.Errorf("number %d is not in the text", i)
		}
		*f = old
	}
	for i, f := range []*int64{&d.TotalBytes, &d.UsedBytes, &d.FreeBytes, &d.TotalInodes, &d.UsedInodes, &d.FreeInodes, &d.Errors, &d.Timeouts, &p.QueuedBytes, &p.CallsOut, &p.CallsIn, &p.Sessions} {
		*f++
		if text(r) == before {
			t.Errorf("integer %d of drive and peer is not in the text", i)
		}
		*f--
	}
}

func TestSubsystems(t *testing.T) {
	prefixes := map[string]string{"drive": "gridloom_drive_", "network": "gridloom_network_", "cpu": "gridloom_cpu_", "memory": "gridloom_memory_", "api": "gridloom_api_", "peer": "gridloom_peer_"}
	for _, selected := range [][]string{{"drive"}, {"network"}, {"cpu"}, {"memory"}, {"api"}, {"peer"}, {"memory", "drive"}, {"peer", "api", "cpu"}} {
		var b bytes.Buffer
		if err := WriteResources(&b, selected, []*Resources{exampleResources("a")}); err != nil {
			t.Fatal(err)
		}
		got := parseText(t, b.Bytes())
		if got["gridloom_node_up"] == nil {
			t.Errorf("%v: gridloom_node_up is missing", selected)
		}
		for subsystem, prefix := range prefixes {
			there := false
			for name := range got {
				there = there || strings.HasPrefix(name, prefix)
			}
			if want := slices.Contains(selected, subsystem); there != want {
				t.Errorf("%v: %s there: %v", selected, subsystem, there)
			}
		}
	}
	var b bytes.Buffer
	err := WriteResources(&b, []string{"cpu", "gpu"}, []*Resources{exampleResources("a")})
	if err == nil || !strings.Contains(err.Error(), `"gpu"`) || b.Len() != 0 {
		t.Errorf("unknown subsystem: %v, %d bytes written", err, b.Len())
	}
}

func TestNoNodes(t *testing.T) {
	var b bytes.Buffer
	if err := WriteResources(&b, nil, nil); err != nil || b.Len() != 0 {
		t.Errorf("%v, %q", err, b.String())
	}
}

// TestLabelsSurvive writes names with anything in them and reads them back.
func TestLabelsSurvive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		node, path := rapid.String().Draw(rt, "node"), string(rapid.SliceOf(rapid.Byte()).Draw(rt, "path"))
		value := rapid.Float64().Draw(rt, "value")
		r := &Resources{Node: node, Up: true, Drives: []Drive{{Path: path, Device: "x", AwaitSeconds: value}}}
		var b bytes.Buffer
		if err := WriteResources(&b, []string{"drive"}, []*Resources{r}); err != nil {
			rt.Fatal(err)
		}
		want := fmt.Sprintf("device=x,drive=,node=%s,path=%s", node, strings.ToValidUTF8(path, "\uFFFD"))
		got, ok := values(parseText(t, b.Bytes())["gridloom_drive_await_seconds"])[want]
		if !ok || got != value && !(math.IsNaN(got) && math.IsNaN(value)) {
			rt.Fatalf("%q = %g is missing in:\n%s", want, value, b.String())
		}
	})
}

func BenchmarkWriteResources(b *testing.B) {
	rs := []*Resources{exampleResources("a"), exampleResources("b"), exampleResources("c")}
	var out bytes.Buffer
	for b.Loop() {
		out.Reset()
		if err := WriteResources(&out, nil, rs); err != nil {
			b.Fatal(err)
		}
	}
}
