package observability

import (
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// TestBatching: the SDK's batching is all Push's, with what a value below 1 can't
// say by default.
func TestBatching(t *testing.T) {
	set := sdktrace.BatchSpanProcessorOptions{MaxQueueSize: 9, MaxExportBatchSize: 8, BatchTimeout: 7, ExportTimeout: 6}
	small := defaults()
	small.MaxQueueSize, small.MaxExportBatchSize = 3, 3
	for _, c := range []struct {
		push Push
		want sdktrace.BatchSpanProcessorOptions
	}{
		{Push{}, defaults()},
		{Push{Queue: -5, Batch: -5, Delay: -5, BatchTimeout: -5}, defaults()},
		{Push{Queue: 9, Batch: 8, Delay: 7, BatchTimeout: 6}, set},
		{Push{Queue: 3}, small},
		{Push{Queue: 3, Batch: 4}, small},
	} {
		// What the SDK has from elsewhere counts for nothing.
		got := sdktrace.BatchSpanProcessorOptions{MaxQueueSize: -1, MaxExportBatchSize: -1, BatchTimeout: -1, ExportTimeout: -1}
		for _, option := range c.push.spans() {
			option(&got)
		}
		if got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.push, got, c.want)
		}
	}
}

func defaults() sdktrace.BatchSpanProcessorOptions {
	return sdktrace.BatchSpanProcessorOptions{
		MaxQueueSize:       sdktrace.DefaultMaxQueueSize,
		MaxExportBatchSize: sdktrace.DefaultMaxExportBatchSize,
		BatchTimeout:       sdktrace.DefaultScheduleDelay * time.Millisecond,
		ExportTimeout:      sdktrace.DefaultExportTimeout * time.Millisecond,
	}
}

// TestBadEnvironment: sizes and times of the environment that nobody has checked
// change nothing. The SDK would panic for some of them, spin for others, and not
// allocate the greatest.
func TestBadEnvironment(t *testing.T) {
	for _, value := range []string{"-5", "0", "x", "4294967297", "9223372036854775807"} {
		for _, name := range []string{
			"OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT",
			"OTEL_BLRP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "OTEL_BLRP_SCHEDULE_DELAY", "OTEL_BLRP_EXPORT_TIMEOUT",
			"OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT",
		} {
			t.Setenv(name, value)
		}
		c := &collector{}
		server := httptest.NewServer(c)
		logs := NewLogs(slog.DiscardHandler)
		tel := newTelemetry(t, Options{Node: "n1", OTLP: pushed(HTTPProtobuf, server.URL), Logs: logs})
		_, span := tel.TracerProvider().Tracer("test").Start(t.Context(), "part")
		span.End()
		slog.New(enabled{logs.Handler()}).Info("hello")
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Errorf("%s: %v", value, err)
		}
		server.Close()
		if len(c.metrics) != 1 || len(c.spans) != 1 || len(c.logs) != 1 {
			t.Errorf("%s: %d pushes of metrics, %d of spans, %d of logs; want one each", value, len(c.metrics), len(c.spans), len(c.logs))
		}
	}
}
