package node

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/observability"
)

//go:generate go test -count=1 -run ^TestMetricsDocument$ . -update

var update = flag.Bool("update", false, "write the document anew")

// shape is what a metric's declaration doesn't say.
type shape struct {
	labels string // beside node, in the order of the alphabet
	series string // of one node, at most; a histogram has that for each of its buckets, and two more
	when   string // it is there; "": always
}

// shapes are those of the metrics whose Prometheus names begin so: the longest
// counts.
var shapes = map[string]shape{
	"gridloom_request_ttfb_":                 {"api, class, proto", "A × 5", "there was a request"},
	"gridloom_request_duration_":             {"api, class, proto", "A × 5", "there was a request"},
	"gridloom_request_in_flight":             {"proto", "2", "there was a request"},
	"gridloom_request_bytes_":                {"api, proto", "A", "there was a request"},
	"gridloom_response_bytes_":               {"api, proto", "A", "there was a request"},
	"gridloom_request_errors_":               {"api, kind, proto", "A × 27", "there was an error"},
	"gridloom_bucket_request_ttfb_":          {"api, bucket, class, proto", "A × 5 × 32", asked},
	"gridloom_bucket_request_duration_":      {"api, bucket, class, proto", "A × 5 × 32", asked},
	"gridloom_bucket_request_bytes_":         {"api, bucket, proto", "A × 32", asked},
	"gridloom_bucket_response_bytes_":        {"api, bucket, proto", "A × 32", asked},
	"gridloom_bucket_request_errors_":        {"api, bucket, kind, proto", "A × 27 × 32", asked},
	"gridloom_limited_":                      {"limit, listener", "14", ""},
	"gridloom_audit_":                        {"", "1", ""},
	"gridloom_certificate_":                  {"listener", "3", "a listener has TLS"},
	"gridloom_certificate_expiry_timestamp_": {"issuer, listener", "3 at a time", "a listener has TLS"},

	"gridloom_node_":         {"", "1", ""},
	"gridloom_cpu_":          {"", "1", ""},
	"gridloom_cpu_core_":     {"core", "C", ""},
	"gridloom_memory_":       {"", "1", ""},
	"gridloom_network_":      {"interface", "I", ""},
	"gridloom_network_mesh_": {"via", "2", ""},

	"gridloom_grid_":         {"peer", "N", ""},
	"gridloom_grid_credits_": {"of, peer", "N × 3", ""},
	"gridloom_bulk_":         {"peer", "N", "there are peers"},

	"gridloom_raft_":                {"group", "G", "the node is a member of the group"},
	"gridloom_raft_leader":          {"group", "G", ""},
	"gridloom_raft_entries_":        {"group", "G", ""},
	"gridloom_raft_commit_duration": {"group", "G", "the node has led the group"},
	"gridloom_raft_members":         {"group, role", "G × 3", "the node is a member of the group"},
	"gridloom_raft_lag":             {"group, peer", "G × N", "the node leads the group"},
	"gridloom_raft_member_":         {"group, peer", "G × N", "the node leads the group"},
	"gridloom_raft_clock_":          {"", "1", ""},
	"gridloom_raft_may_":            {"", "1", ""},
	"gridloom_raft_disk_":           {"", "1", ""},

	"gridloom_payload_":        {"", "1", ""},
	"gridloom_payload_sent_":   {"path", "5", ""},
	"gridloom_put_":            {"", "1", ""},
	"gridloom_read_failovers_": {"reason", "27", ""},
	"gridloom_bad_copies_":     {"found_by", "2", ""},
	"gridloom_orphans_":        {"", "1", ""},
	"gridloom_gc_":             {"", "1", ""},
	"gridloom_heal_":           {"", "1", "the node coordinates healing"},
	"gridloom_heal_phase":      {"phase", "5", "the node coordinates healing"},
	"gridloom_heal_copies_":    {"", "1", ""},
	"gridloom_heal_bytes_":     {"", "1", ""},
	"gridloom_heal_failed_":    {"", "1", ""},
	"gridloom_scrub_":          {"", "1", "the node coordinates healing"},

	"gridloom_drive_":                         {"drive, path", "D", ""},
	"gridloom_drive_state":                    {"drive, path, state", "D", ""},
	"gridloom_drive_failures_":                {"drive, operation", "D × 12", ""},
	"gridloom_drive_reads_per_second":         {"device, drive, path", "D", ofDevice},
	"gridloom_drive_writes_per_second":        {"device, drive, path", "D", ofDevice},
	"gridloom_drive_read_bytes_per_second":    {"device, drive, path", "D", ofDevice},
	"gridloom_drive_written_bytes_per_second": {"device, drive, path", "D", ofDevice},
	"gridloom_drive_await_seconds":            {"device, drive, path", "D", ofDevice},
	"gridloom_drive_utilization_ratio":        {"device, drive, path", "D", ofDevice},

	"gridloom_process_":   {"", "1", ""},
	"gridloom_telemetry_": {"signal, reason", "6", "there is an OTLP endpoint"},
	"go_":                 {"", "1", ""},
	"go_memory_used_":     {"go_memory_type", "2", ""},
	"process_":            {"", "1", ""},
	"process_cpu_":        {"cpu_mode", "2", ""},
}

// ofDevice is the one condition that a test can't see to: it depends on what the
// machine has below its temporary directory.
const ofDevice = "the drive's block device is known"

// asked is the condition of the view of buckets.
const asked = "the bucket is named in the settings"

// shapeOf gives the shape of a metric, by its Prometheus name.
func shapeOf(series string) (shape, bool) {
	longest := ""
	for prefix := range shapes {
		if strings.HasPrefix(series, prefix) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	return shapes[longest], longest != ""
}

// declaredMetrics opens a node that has everything, and lists its metrics.
func declaredMetrics(t *testing.T) []observability.Instrument {
	t.Helper()
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	cfg.GRPC.Auto, cfg.OTLP, cfg.MetricsBuckets = true, otlpSink(t), []string{"photos"}
	n, err := Open(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	return n.telemetry.Instruments()
}

// TestMetricsDocument: the document says what the program declares.
func TestMetricsDocument(t *testing.T) {
	t.Parallel()
	want := metricsDocument(t, declaredMetrics(t))
	name := filepath.Join("..", "docs", "metrics.md")
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the program makes of it; run make generate", name)
	}
}

// metricsDocument is docs/metrics.md.
func metricsDocument(t *testing.T, all []observability.Instrument) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(metricsHead)
	groups := observability.Groups()
	for _, group := range groups {
		count := 0
		for _, i := range all {
			if i.Group == group {
				count++
			}
		}
		fmt.Fprintf(&b, "| [`/v3/metrics/%s`](#%s) | %s | %d |\n", group, group, groupMeaning[group], count)
	}
	b.WriteString(metricsLabels)
	for _, group := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n%s At `/metrics`, `/v3/metrics` and `/v3/metrics/%s`.\n\n", group, upper(groupMeaning[group])+".", group)
		b.WriteString("| metric | OpenTelemetry | kind | unit | labels | series | meaning |\n| --- | --- | --- | --- | --- | --- | --- |\n")
		for _, i := range all {
			if i.Group != group {
				continue
			}
			s, ok := shapeOf(i.Series)
			if !ok {
				t.Errorf("%s: say in shapes, in metricsdoc_test.go, which labels it has", i.Series)
			}
			meaning := i.Description
			if i.Resource {
				meaning += " Also at `/v2/metrics/resource`."
			}
			if s.when != "" {
				meaning += " There when " + s.when + "."
			}
			series := s.series
			if len(i.Buckets) > 0 {
				series += fmt.Sprintf(" × %d", len(i.Buckets)+3)
				meaning += fmt.Sprintf(" Buckets up to %s.", bounds(i.Buckets))
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s | %s |\n", i.Series, i.Name, i.Kind, unit(i.Unit), coded(s.labels), series, meaning)
		}
	}
	b.WriteString(metricsResourceOnly)
	for _, i := range observability.ResourceOnly() {
		labels := "api, proto"
		if strings.HasPrefix(i.Series, "gridloom_peer_") {
			labels = "peer"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", i.Series, i.Kind, unit(i.Unit), coded(labels), i.Description)
	}
	return b.String()
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// unit spells a unit of UCUM; {…} is its way to name what is counted.
func unit(u string) string {
	if u = strings.NewReplacer("{", "", "}", "").Replace(u); u == "" {
		return "—"
	}
	return u
}

func coded(labels string) string {
	if labels == "" {
		return "—"
	}
	return "`" + strings.ReplaceAll(labels, ", ", "`, `") + "`"
}

func bounds(of []float64) string {
	texts := make([]string, len(of))
	for i, b := range of {
		texts[i] = strconv.FormatFloat(b, 'f', -1, 64)
	}
	return strings.Join(texts, ", ")
}

// labelNames splits what a shape says.
func labelNames(labels string) []string {
	if labels == "" {
		return nil
	}
	names := strings.Split(labels, ", ")
	slices.Sort(names)
	return names
}

var groupMeaning = map[string]string{
	"api":     "requests, what was refused, certificates and the audit log",
	"system":  "CPU, memory and network of the host",
	"grid":    "the connections with the other nodes",
	"control": "the replicated index: its raft groups",
	"objects": "payload on its way, healing, the scrub, garbage",
	"drives":  "the drives and their block devices",
	"process": "the process, the Go runtime, and telemetry itself",
}

const metricsHead = `<!-- Made from what the program declares by make generate. -->
# Metrics

Every node serves its own metrics at ` + "`/metrics`" + ` of its HTTP listener, in
Prometheus' text format or, to who asks for it, in OpenMetrics, which has exemplars
too; ` + "`/v3/metrics`" + ` is the same, and below it are the groups that follow. Whoever
asks needs the permission ` + "`metrics.read`" + `, as the role ` + "`metrics`" + ` has it. With an
OTLP endpoint the same metrics are pushed, under their OpenTelemetry names.
` + "`/v2/metrics/resource`" + ` gives the resources of all nodes at once, from any one of
them; [operations.md](operations.md) says which metrics to alert on, and
[deploy](../deploy/README.md) has rules and dashboards.

| path | what | metrics |
| --- | --- | --- |
`

const metricsResourceOnly = `
## At /v2/metrics/resource alone

The calls of each node by API and its connections with the others, as of the last
sample: ` + "`subsystem=api`" + ` and ` + "`subsystem=peer`" + `. At ` + "`/metrics`" + ` the same are counters and
histograms, ` + "`gridloom_request_…` and `gridloom_grid_…`" + `, of which a server makes rates.

| metric | kind | unit | labels | meaning |
| --- | --- | --- | --- | --- |
`

const metricsLabels = `
Each series has the label ` + "`node`" + `, the node's name (OTLP has it in the resource, as
` + "`service.instance.id`" + `). A histogram's series end in ` + "`_bucket`, `_sum` and `_count`" + `.
A ratio goes from 0 to 1.

## Labels and cost

No label has a key or a client's address, and none a bucket but those that the
settings name: values are from lists in the program, or are nodes, drives and
interfaces.

| label | values | at most |
| --- | --- | --- |
| ` + "`api`, `proto`" + ` | the API's name (` + "`GetObject`" + `, ` + "`other`" + ` where there is none) and how it was called: ` + "`http`, `grpc`" + ` | A = 130 pairs |
| ` + "`class`" + ` | of the answer: ` + "`1xx` … `5xx`" + `, for gRPC by the HTTP status that its code stands for | 5 |
| ` + "`kind`, `reason`" + ` | the kind of an error; of what telemetry has dropped: ` + "`export`, `queue`" + ` | 27; 2 |
| ` + "`bucket`" + ` | a bucket that ` + "`--metrics-bucket`" + ` names, and no other | 32 |
| ` + "`listener`" + ` | ` + "`grpc`, `http`, `peer`; `any`" + ` for what all share | 4 |
| ` + "`limit`" + ` | the limit that was met, see [configuration.md](configuration.md) | 10 |
| ` + "`issuer`" + ` | who has signed the certificate | one a certificate |
| ` + "`peer`" + ` | another node, or this one | N nodes |
| ` + "`of`" + ` | what ran out: ` + "`stream`, `session`, `queue`" + ` | 3 |
| ` + "`group`" + ` | raft group: ` + "`system`, `data-1`" + ` | G = 2 |
| ` + "`role`" + ` | of a member: ` + "`voter`, `learner`, `leaving`" + ` | 3 |
| ` + "`drive`" + ` | id of a drive | D drives of the node |
| ` + "`path`" + ` | of a drive: where it is mounted; of payload: ` + "`inline`, `sendfile`, `splice`, `copy`, `grid`" + ` | with the drive; 5 |
| ` + "`device`" + ` | block device of a drive | with the drive |
| ` + "`state`" + ` | of a drive: ` + "`online`, `degraded`, `read_only`, `suspect`, `offline`" + `; one at a time | 1 |
| ` + "`operation`" + ` | on a drive | 12 |
| ` + "`found_by`" + ` | ` + "`read`, `check`" + ` | 2 |
| ` + "`phase`" + ` | of healing: ` + "`idle`, `copying`, `draining`, `rebalancing`, `scrubbing`" + ` | 5 |
| ` + "`interface`" + ` | network interface | I, 64 at most |
| ` + "`via`" + ` | ` + "`grid`, `bulk`" + ` | 2 |
| ` + "`core`" + ` | number of a logical CPU | C |
| ` + "`signal`" + ` | ` + "`metrics`, `traces`, `logs`" + ` | 3 |
| ` + "`go_memory_type`, `cpu_mode`" + ` | as the semantic conventions have them | 2 |

The column *series* is what one node has at most, in these letters. An instrument
that would get more than 2,000 puts the rest into one series with
` + "`otel_metric_overflow=\"true\"`" + `. Eight scrapes of a node are served at a time; one more
gets 503. A group costs what the whole costs, but for the writing: nothing but
what is in the process's memory is looked at, besides three files of ` + "`/proc`" + ` on Linux.
`
