package main

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/observability"
)

// TestOTel: settings and OpenTelemetry's variables together say what is pushed
// where.
func TestOTel(t *testing.T) {
	grpc := func(endpoint string) observability.Push {
		return observability.Push{Protocol: observability.GRPC, Endpoint: endpoint}
	}
	byHTTP := func(endpoint string) observability.Push {
		return observability.Push{Protocol: observability.HTTPProtobuf, Endpoint: endpoint}
	}
	all := func(p observability.Push) observability.OTLP {
		return observability.OTLP{Metrics: p, Traces: p, Logs: p}
	}
	below := func(base string) observability.OTLP {
		return observability.OTLP{Metrics: byHTTP(base + "/v1/metrics"), Traces: byHTTP(base + "/v1/traces"), Logs: byHTTP(base + "/v1/logs")}
	}
	insecure := grpc("h:1")
	insecure.Insecure = true
	for _, c := range []struct {
		name, yaml string
		env        []string
		want       observability.OTLP
		ignored    string
	}{
		{"nothing", "", nil, observability.OTLP{}, ""},
		{"setting", "otlp: {endpoint: 'h:1'}", nil, all(grpc("h:1")), ""},
		{"setting, insecure", "otlp: {endpoint: 'h:1', insecure: true}", nil, all(insecure), ""},
		{"setting, by HTTP", "otlp: {endpoint: 'https://h:1/x/', protocol: http/protobuf}", nil, below("https://h:1/x"), ""},
		{"variable", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://h:1"}, all(grpc("http://h:1")), ""},
		{"variable without scheme", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=h:1", "OTEL_EXPORTER_OTLP_INSECURE=True"}, all(insecure), ""},
		{"variable, by HTTP", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://h:1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}, below("http://h:1"), ""},
		{"default port", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://h", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}, below("https://h:443"), ""},
		{"default port, by gRPC", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://h"}, all(grpc("http://h:80")), ""},
		{"setting before variable", "otlp: {endpoint: 'h:1'}", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://g:2", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://g:3"}, all(grpc("h:1")), ""},
		{"one signal's", "", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://h:1/as/it/is", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"},
			observability.OTLP{Traces: byHTTP("http://h:1/as/it/is")}, ""},
		{"one signal's root", "", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://h:1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"},
			observability.OTLP{Traces: byHTTP("http://h:1/")}, ""},
		{"one signal's before all", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://h:1", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://h:2"},
			observability.OTLP{Metrics: grpc("http://h:1"), Traces: grpc("http://h:1"), Logs: grpc("http://h:2")}, ""},
		{"disabled", "otlp: {endpoint: 'h:1'}", []string{"OTEL_SDK_DISABLED=TRUE"}, observability.OTLP{}, ""},
		{"not disabled", "otlp: {endpoint: 'h:1'}", []string{"OTEL_SDK_DISABLED=yes"}, all(grpc("h:1")), "OTEL_SDK_DISABLED"},
		{"exporters", "otlp: {endpoint: 'h:1'}", []string{"OTEL_METRICS_EXPORTER=prometheus", "OTEL_TRACES_EXPORTER=none", "OTEL_LOGS_EXPORTER=otlp, console"},
			observability.OTLP{Logs: grpc("h:1")}, ""},
		{"by name, to the default", "", []string{"OTEL_TRACES_EXPORTER=otlp"}, observability.OTLP{Traces: grpc("http://localhost:4317")}, ""},
		{"by name, to the default by HTTP", "", []string{"OTEL_LOGS_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"},
			observability.OTLP{Logs: byHTTP("http://localhost:4318/v1/logs")}, ""},
		{"unknown exporter", "otlp: {endpoint: 'h:1'}", []string{"OTEL_TRACES_EXPORTER=zipkin"}, all(grpc("h:1")), "OTEL_TRACES_EXPORTER"},
		{"queues and timeouts", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://h:1", "OTEL_EXPORTER_OTLP_TIMEOUT=2000", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT=500", "OTEL_BSP_MAX_QUEUE_SIZE=7", "OTEL_BLRP_MAX_QUEUE_SIZE=0"},
			observability.OTLP{
				Metrics: observability.Push{Protocol: observability.GRPC, Endpoint: "http://h:1", Timeout: 2 * time.Second},
				Traces:  observability.Push{Protocol: observability.GRPC, Endpoint: "http://h:1", Timeout: 2 * time.Second, Queue: 7},
				Logs:    observability.Push{Protocol: observability.GRPC, Endpoint: "http://h:1", Timeout: 500 * time.Millisecond},
			}, "OTEL_BLRP_MAX_QUEUE_SIZE"},
		{"batches and delays", "", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=3", "OTEL_BSP_SCHEDULE_DELAY=40", "OTEL_BSP_EXPORT_TIMEOUT=50",
			"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE=6", "OTEL_BLRP_SCHEDULE_DELAY=70", "OTEL_BLRP_EXPORT_TIMEOUT=80", "OTEL_METRIC_EXPORT_INTERVAL=90", "OTEL_METRIC_EXPORT_TIMEOUT=100"},
			observability.OTLP{
				Metrics:  observability.Push{BatchTimeout: 100 * time.Millisecond},
				Traces:   observability.Push{Protocol: observability.GRPC, Endpoint: "http://localhost:4317", Batch: 3, Delay: 40 * time.Millisecond, BatchTimeout: 50 * time.Millisecond},
				Logs:     observability.Push{Batch: 6, Delay: 70 * time.Millisecond, BatchTimeout: 80 * time.Millisecond},
				Interval: 90 * time.Millisecond,
			}, ""},
		{"exemplars", "", []string{"OTEL_METRICS_EXEMPLAR_FILTER=always_on"}, observability.OTLP{Exemplars: observability.AlwaysOn}, ""},
		{"unknown exemplars", "", []string{"OTEL_METRICS_EXEMPLAR_FILTER=some"}, observability.OTLP{}, "OTEL_METRICS_EXEMPLAR_FILTER"},
		{"empty", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_TRACES_EXPORTER="}, observability.OTLP{}, ""},
		{"ratio", "", []string{"OTEL_TRACES_SAMPLER_ARG=2"}, observability.OTLP{}, "OTEL_TRACES_SAMPLER_ARG"},
	} {
		s, err := loadSettings(t, forServe, c.yaml, c.env, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		cfg := s.nodeConfig()
		if diff := cmp.Diff(c.want, cfg.OTLP); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if err := cfg.OTLP.Validate(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var ignored string
		for _, err := range s.otel.ignored {
			ignored += strings.SplitN(err.Error(), ":", 2)[0]
		}
		if ignored != c.ignored {
			t.Errorf("%s: ignored %q, want %q", c.name, ignored, c.ignored)
		}
	}
}

// TestIgnoredOTel: a number that is ignored changes nothing that is pushed, and
// the SDK, which reads the environment itself, doesn't see it.
func TestIgnoredOTel(t *testing.T) {
	var exports atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { exports.Add(1) }))
	defer receiver.Close()
	endpoint := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}
	plain, err := loadSettings(t, forServe, "", endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, v := range otelVariables() {
		if v.check == nil || v.check("7") != nil { // no number
			continue
		}
		for _, value := range []string{"-5", "0", "x", "4294967297", "9223372036855", "9223372036854775807", "99999999999999999999"} {
			if v.check(value) == nil {
				if value != "0" || !strings.HasSuffix(v.name, "_LIMIT") {
					t.Errorf("%s=%s is not ignored", v.name, value)
				}
				continue
			}
			tried++
			t.Setenv(v.name, value)
			env := append([]string{v.name + "=" + value}, endpoint...)
			if err := forgetOTel(env, os.Unsetenv); err != nil {
				t.Error(err)
			}
			if _, set := os.LookupEnv(v.name); set {
				t.Errorf("%s=%s: the SDK sees it", v.name, value)
			}
			s, err := loadSettings(t, forServe, "", env, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.otel.ignored) != 1 || s.otel.ignored[0].name != v.name {
				t.Errorf("%s=%s: ignored %v", v.name, value, s.otel.ignored)
			}
			if diff := cmp.Diff(plain.nodeConfig().OTLP, s.nodeConfig().OTLP); diff != "" {
				t.Errorf("%s=%s (-want +got):\n%s", v.name, value, diff)
			}
		}
	}
	if tried < 100 {
		t.Errorf("%d values were tried", tried)
	}

	// All of them at once, and telemetry as it is then.
	env := slices.Clone(endpoint)
	for _, v := range otelVariables() {
		if v.check != nil && v.check("7") == nil {
			t.Setenv(v.name, "-5")
			env = append(env, v.name+"=-5")
		}
	}
	if err := forgetOTel(env, os.Unsetenv); err != nil {
		t.Error(err)
	}
	s, err := loadSettings(t, forServe, "", env, nil)
	if err != nil {
		t.Fatal(err)
	}
	logs := observability.NewLogs(slog.DiscardHandler)
	tel, err := observability.New(t.Context(), observability.Options{Node: "n1", OTLP: s.nodeConfig().OTLP, Logs: logs})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.TracerProvider().Tracer("test").Start(t.Context(), "part")
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n := exports.Load(); n != 2 {
		t.Errorf("%d exports, want one of metrics and one of spans", n)
	}
}

// TestOTelPropagators: how clients' spans are looked for comes from the variable
// alone, and not from half of it.
func TestOTelPropagators(t *testing.T) {
	for _, c := range []struct {
		env, ignored string
		want         []string
	}{
		{"", "", nil},
		{"OTEL_PROPAGATORS=", "", nil},
		{"OTEL_PROPAGATORS=none", "", []string{"none"}},
		{"OTEL_PROPAGATORS=b3, tracecontext,baggage,b3multi,jaeger", "", []string{"b3", "tracecontext", "baggage", "b3multi", "jaeger"}},
		{"OTEL_PROPAGATORS=tracecontext,xray", `OTEL_PROPAGATORS: "xray" is none of tracecontext, baggage, b3, b3multi, jaeger, none`, nil},
		{"OTEL_PROPAGATORS=b3,none", "OTEL_PROPAGATORS: none goes with no other", nil},
	} {
		s, err := loadSettings(t, forServe, "", []string{c.env, "OTEL_SDK_DISABLED=true"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.nodeConfig()
		if !slices.Equal(cfg.Propagators, c.want) {
			t.Errorf("%s: %q, want %q", c.env, cfg.Propagators, c.want)
		}
		if err := observability.ValidatePropagators(cfg.Propagators); err != nil {
			t.Errorf("%s: %v", c.env, err)
		}
		var ignored []string
		for _, err := range s.otel.ignored {
			ignored = append(ignored, err.Error())
		}
		if got := strings.Join(ignored, "; "); got != c.ignored {
			t.Errorf("%s: ignored %q, want %q", c.env, got, c.ignored)
		}
	}
}

// TestUnusedOTel: who sets a variable that changes nothing is told so.
func TestUnusedOTel(t *testing.T) {
	for _, name := range []string{"OTEL_LOG_LEVEL", "OTEL_CONFIG_FILE", "OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"} {
		o := readOTel([]string{name + "=7"})
		if len(o.ignored) != 1 || !strings.HasPrefix(o.ignored[0].Error(), name+": it is not used: ") {
			t.Errorf("%s: %v", name, o.ignored)
		}
	}
}

// TestInheritOTel: log records have the limits of all attributes, but for those of
// their own.
func TestInheritOTel(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want map[string]string
	}{
		{nil, map[string]string{}},
		{[]string{"OTEL_ATTRIBUTE_COUNT_LIMIT=7", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT=0"},
			map[string]string{"OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "7", "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0"}},
		{[]string{"OTEL_ATTRIBUTE_COUNT_LIMIT=7", "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT=3", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=5"}, map[string]string{}},
		{[]string{"OTEL_ATTRIBUTE_COUNT_LIMIT=-7"}, map[string]string{}},
		{[]string{"OTEL_ATTRIBUTE_COUNT_LIMIT=7", "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT=x"}, map[string]string{"OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "7"}},
	} {
		got := map[string]string{}
		if err := inheritOTel(c.env, func(name, value string) error { got[name] = value; return nil }); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.env, diff)
		}
	}
}

// TestBadOTel: what would send telemetry elsewhere is an error that names the
// variable, and repeats no header.
func TestBadOTel(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=https://h:1"
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=ftp://h:1"}, `OTEL_EXPORTER_OTLP_ENDPOINT: OTLP endpoint "ftp://h:1": the scheme must be http or https`},
		{[]string{"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=nowhere"}, `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: OTLP endpoint "nowhere": want host:port or http(s)://host:port`},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=h:1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}, `OTEL_EXPORTER_OTLP_ENDPOINT: "h:1" is no URL`},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"}, `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http/json" is neither grpc nor http/protobuf`},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE=/no/such/file"}, "OTEL_EXPORTER_OTLP_CERTIFICATE: open /no/such/file"},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE=" + empty}, "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE: there is no certificate in "},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=x"}, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: the key for it, OTEL_EXPORTER_OTLP_CLIENT_KEY, is missing"},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_CLIENT_KEY=x"}, "OTEL_EXPORTER_OTLP_CLIENT_KEY: the certificate for it, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, is missing"},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_HEADERS=a=b,sesame"}, "OTEL_EXPORTER_OTLP_HEADERS: header 2 is not NAME=VALUE"},
		{[]string{"GRIDLOOM_OTLP_ENDPOINT=sesame"}, "--otlp-endpoint (from GRIDLOOM_OTLP_ENDPOINT): OTLP endpoint"},
		{[]string{"GRIDLOOM_OTLP_PROTOCOL=udp"}, `--otlp-protocol (from GRIDLOOM_OTLP_PROTOCOL): "udp" is none of grpc, http/protobuf`},
	} {
		_, err := loadSettings(t, forServe, "", c.env, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.env, err, c.want)
		}
		if err != nil && strings.Contains(c.want, "HEADERS") && strings.Contains(err.Error(), "sesame") {
			t.Errorf("a header is repeated: %v", err)
		}
	}
	if _, err := loadSettings(t, forClient, "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=ftp://h"}, nil); err != nil {
		t.Errorf("a client minds: %v", err)
	}
}

// TestOTelCertificates: the variables' files become the exporter's TLS.
func TestOTelCertificates(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	s, err := loadSettings(t, forServe, "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://h:1", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=" + ca}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := s.push.Traces.TLS; c == nil || !c.RootCAs.Equal(roots) {
		t.Errorf("traces: %+v", c)
	}
	if s.push.Logs.TLS != nil {
		t.Error("logs have the traces' authority")
	}
}

// TestOTelDown: a node whose receiver is down stops well, and has said which
// variable it ignores.
func TestOTelDown(t *testing.T) {
	s := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_TRACES_SAMPLER=some", "OTEL_METRIC_EXPORT_INTERVAL=10"},
		"serve", "--data", t.TempDir(), "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--peer-addr", "127.0.0.1:0")
	r := s.stop()
	if r.code != exitDone || !strings.Contains(r.errOut, `msg="a variable is ignored" error="OTEL_TRACES_SAMPLER: \"some\" is none of parentbased_always_on, `) {
		t.Errorf("exit code %d:\n%s", r.code, r.errOut)
	}
	if n := strings.Count(r.errOut, `msg="telemetry was dropped" node=node1 signal=metrics`); n != 1 {
		t.Errorf("it says %d times that metrics were dropped:\n%s", n, r.errOut)
	}
}
