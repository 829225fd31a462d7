package node

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gridloom/gridloom/observability"
)

// otlpSink is an OTLP endpoint that takes everything.
func otlpSink(t testing.TB) observability.OTLP {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		return stream.SendMsg(&emptypb.Empty{})
	}))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	p := observability.Push{Protocol: observability.GRPC, Endpoint: "http://" + l.Addr().String()}
	return observability.OTLP{Metrics: p, Traces: p, Logs: p}
}

// scraped are a scrape's metrics, by their names.
func scraped(t testing.TB, r *running, path string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(expect(t, http.StatusOK, http.MethodGet, r.url(path), nil)))
	if err != nil {
		t.Fatalf("%s of %s: %v", path, r.cfg.Name, err)
	}
	return families
}

// value is that of a gauge or a counter, or the count of a histogram.
func value(m *dto.Metric) float64 {
	if h := m.GetHistogram(); h != nil {
		return float64(h.GetSampleCount())
	}
	return m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
}

// sum adds up what the nodes say of a metric, in the series with the label.
func sum(all []map[string]*dto.MetricFamily, name, label, is string) (total float64, series int) {
	for _, of := range all {
		for _, m := range of[name].GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && (is == "" || l.GetValue() == is) {
					total += value(m)
					series++
				}
			}
		}
	}
	return total, series
}

// TestMetricsAreDocumented: the nodes of a mesh have the metrics that they
// declare, which are those of docs/metrics.md, with the labels that it says, and
// no others.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	configs := meshConfigs(t, t.TempDir(), 3)
	configs[0].GRPC.Auto, configs[0].OTLP, configs[0].MetricsBuckets = true, otlpSink(t), []string{"photos"}
	nodes := startNodes(t, configs)
	makeBucket(t, nodes[0], "photos")
	expect(t, http.StatusCreated, http.MethodPut, nodes[0].url("/data/photos/a"), bytes.NewReader(randomBytes(100<<10)))
	for _, r := range nodes {
		expect(t, http.StatusOK, http.MethodGet, r.url("/data/photos/a"), nil)
		expect(t, http.StatusNotFound, http.MethodGet, r.url("/data/photos/nothing"), nil)
	}
	declared := map[string]observability.Instrument{}
	for _, i := range nodes[0].telemetry.Instruments() {
		declared[i.Series] = i
	}
	var all []map[string]*dto.MetricFamily
	waitFor(t, "all metrics", func() bool { // the resources have rates from the second sample on
		all = nil
		missing := maps.Clone(declared)
		for _, r := range nodes {
			of := scraped(t, r, "/metrics")
			all = append(all, of)
			for name := range of {
				delete(missing, name)
			}
		}
		for name := range missing {
			if s, _ := shapeOf(name); s.when == ofDevice {
				delete(missing, name)
			}
		}
		if len(missing) > 0 {
			t.Logf("%d metrics aren't there yet, such as %s", len(missing), slices.Sorted(maps.Keys(missing))[0])
		}
		if len(missing) > 0 {
			return false
		}
		problem := checkValues(all) // leadership may have changed between two nodes' scrapes
		if problem != "" {
			t.Log(problem)
		}
		return problem == ""
	})
	for i, of := range all {
		for name, family := range of {
			if name == "target_info" { // the resource, as Prometheus has it
				continue
			}
			if _, ok := declared[name]; !ok {
				t.Errorf("%s has %s, which it hasn't declared", nodes[i].cfg.Name, name)
			}
			checkLabels(t, family, nodes[i].cfg.Name)
		}
	}
	checkGroups(t, nodes[0], declared)
}

// checkLabels compares the labels of a metric with what the document says.
func checkLabels(t *testing.T, family *dto.MetricFamily, node string) {
	t.Helper()
	s, _ := shapeOf(family.GetName())
	want := append([]string{"node"}, labelNames(s.labels)...)
	slices.Sort(want)
	for _, m := range family.GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName())
			if l.GetName() == "node" && l.GetValue() != node {
				t.Errorf("%s of %s says node=%q", family.GetName(), node, l.GetValue())
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s has the labels %q, documented are %q", family.GetName(), got, want)
			return
		}
	}
}

// checkValues looks at what is known of a mesh of three that has seen one
// bucket, and one object of 100 KiB that was read once through each node.
// "" is that all is as it should be.
func checkValues(all []map[string]*dto.MetricFamily) string {
	for _, c := range []struct {
		name, label, is string
		total           float64
		series          int
	}{
		{"gridloom_raft_leader", "group", "system", 1, 3},
		{"gridloom_raft_leader", "group", "data-1", 1, 3},
		{"gridloom_raft_leader_known", "group", "data-1", 3, 3},
		{"gridloom_raft_members", "role", "voter", 18, 6},
		{"gridloom_raft_lag", "group", "data-1", 0, 3},
		{"gridloom_raft_member_active", "group", "system", 3, 3},
		{"gridloom_raft_may_lead", "node", "", 3, 3},
		{"gridloom_grid_up_ratio", "peer", "", 9, 9},
		{"gridloom_heal_phase", "node", "", 1, 5},
		{"gridloom_heal_unrecoverable", "node", "", 0, 1},
		{"gridloom_certificate_expiry_seconds", "listener", "http", 0, 0},
	} {
		if total, series := sum(all, c.name, c.label, c.is); total != c.total || series != c.series {
			return fmt.Sprintf("%s{%s=%q} is %v in %d series, want %v in %d", c.name, c.label, c.is, total, series, c.total, c.series)
		}
	}
	for name, least := range map[string]float64{
		"gridloom_raft_commit_duration_seconds": 2, "gridloom_raft_entries_total": 6, "gridloom_raft_term": 6,
		"gridloom_grid_rtt_seconds": 1e-6, "gridloom_grid_received_messages_total": 6, "gridloom_payload_sent_bytes_total": 3 * 100 << 10,
		"gridloom_certificate_expiry_seconds": 24 * 3600, "gridloom_scrub_round": 1, "process_cpu_time_seconds_total": 0.01,
	} {
		if total, _ := sum(all, name, "node", ""); total < least {
			return fmt.Sprintf("%s is %v, want %v at least", name, total, least)
		}
	}
	return ""
}

// checkGroups: each group has its own metrics and no others, and those of the
// whole that don't come and go are in one.
func checkGroups(t *testing.T, r *running, declared map[string]observability.Instrument) {
	t.Helper()
	whole := scraped(t, r, "/v3/metrics")
	for _, group := range observability.Groups() {
		of := scraped(t, r, "/v3/metrics/"+group)
		if len(of) == 0 {
			t.Errorf("group %s is empty", group)
		}
		for name := range of {
			if got := declared[name].Group; got != group && name != "target_info" {
				t.Errorf("%s is in group %s, declared is %q", name, group, got)
			}
			delete(whole, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		if s, _ := shapeOf(name); s.when == "" {
			t.Errorf("%s is in no group", name)
		}
	}
	reply := expect(t, http.StatusNotFound, http.MethodGet, r.url("/v3/metrics/drive"), nil)
	if !strings.Contains(string(reply), "there are api, system, grid,") {
		t.Errorf("a group that isn't there: %s", reply)
	}
	paths := []string{"/metrics", "/v3/metrics", "/v3/metrics/grid", "/v2/metrics/resource"}
	for grant, status := range map[string]int{"readwrite:photos": http.StatusForbidden, "metrics": http.StatusOK} {
		who := "Bearer " + someone(t, r, "with-"+grant[:7], grant).String()
		for _, path := range paths {
			expect(t, status, http.MethodGet, r.url(path), nil, "Authorization", who)
		}
	}
	for _, path := range paths {
		expect(t, http.StatusMethodNotAllowed, http.MethodPost, r.url(path), nil)
	}
}
