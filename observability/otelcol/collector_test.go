//go:build real

package otelcol

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/debugexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

func factories() (f otelcol.Factories, err error) {
	if f.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory()); err != nil {
		return f, err
	}
	if f.Processors, err = otelcol.MakeFactoryMap[processor.Factory](memorylimiterprocessor.NewFactory()); err != nil {
		return f, err
	}
	f.Exporters, err = otelcol.MakeFactoryMap[exporter.Factory](debugexporter.NewFactory(), otlphttpexporter.NewFactory())
	f.Telemetry = otelconftelemetry.NewFactory()
	return f, err
}

// newCollector makes one with a configuration: "file:path" or "yaml:text".
func newCollector(t *testing.T, uri string) *otelcol.Collector {
	t.Helper()
	c, err := otelcol.NewCollector(otelcol.CollectorSettings{
		Factories:               factories,
		BuildInfo:               component.BuildInfo{Command: "otelcol", Description: "Gridloom's tests", Version: "0.162.0"},
		DisableGracefulShutdown: true,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs:              []string{uri},
			ProviderFactories: []confmap.ProviderFactory{envprovider.NewFactory(), fileprovider.NewFactory(), yamlprovider.NewFactory()},
			DefaultScheme:     "env",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// running is a Collector that receives, and hands on what it got.
type running struct {
	grpc, http string // where it receives
	stop       func()
}

// startCollector runs one until it is stopped or the test ends. It hands all
// on to a sink, as OTLP over HTTP.
func startCollector(t *testing.T, sink string) *running {
	t.Helper()
	r := &running{grpc: freeAddr(t), http: freeAddr(t)}
	c := newCollector(t, fmt.Sprintf(`yaml:
receivers:
  otlp:
    protocols:
      grpc: {endpoint: %q}
      http: {endpoint: %q}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 512}
exporters:
  debug: {}
  otlp_http: {endpoint: %q, compression: none}
service:
  telemetry:
    logs: {level: warn}
    metrics: {level: none}
  pipelines:
    metrics: {receivers: [otlp], processors: [memory_limiter], exporters: [debug, otlp_http]}
    traces: {receivers: [otlp], processors: [memory_limiter], exporters: [debug, otlp_http]}
    logs: {receivers: [otlp], processors: [memory_limiter], exporters: [debug, otlp_http]}
`, r.grpc, r.http, sink))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background()) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		c.Shutdown()
		if err := <-ended; err != nil {
			t.Errorf("the Collector: %v", err)
		}
	}
	t.Cleanup(r.stop)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(time.Minute)
	for c.GetState() != otelcol.StateRunning {
		select {
		case err := <-ended:
			stopped = true
			t.Fatalf("the Collector didn't start: %v", err)
		case <-deadline:
			t.Fatalf("the Collector isn't running after a minute: %v", c.GetState())
		case <-poll.C:
		}
	}
	return r
}

// freeAddr is one that nobody listens on. It may be another's a moment later,
// but for the range: systems give those below 32768 to nobody who dials.
func freeAddr(t *testing.T) string {
	t.Helper()
	for ; nextPort < 32000; nextPort++ {
		addr := fmt.Sprintf("127.0.0.1:%d", nextPort)
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			nextPort++
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}
