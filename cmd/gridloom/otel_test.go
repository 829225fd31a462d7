package main

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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
