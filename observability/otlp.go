package observability

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Protocol is how OTLP is spoken, in the words of OTEL_EXPORTER_OTLP_PROTOCOL.
type Protocol string

// The protocols. There is no http/json.
const (
	GRPC         Protocol = "grpc"
	HTTPProtobuf Protocol = "http/protobuf"
)

// OTLP says what is pushed and where; each signal has a receiver of its own,
// which is mostly the same one. The zero value pushes nothing.
//
// Beside it the SDK honours the standard environment: OTEL_EXPORTER_OTLP_HEADERS
// and _COMPRESSION, OTEL_TRACES_SAMPLER and so on, but not the sizes, delays and
// timeouts that are here: it would take some that make it panic or spin.
type OTLP struct {
	Metrics, Traces, Logs Push
	// Interval is the time between two pushes of metrics; 0: 60 s.
	Interval time.Duration
	// Exemplars says which requests leave the id of their trace with metrics,
	// those that are pulled, too.
	Exemplars Exemplars
}

// Push is how one signal is pushed. Sizes and times below 1 are as good as 0.
type Push struct {
	// Protocol is that of the receiver; empty: the signal isn't pushed.
	Protocol Protocol
	// Endpoint is the receiver: "host:port", or a URL whose scheme says
	// whether it is TLS ("https://host:port", "http://host:port"). By HTTP
	// the URL may have a path, which is used as it is; without one it is
	// /v1/metrics, /v1/traces or /v1/logs.
	Endpoint string
	// Insecure speaks plaintext to a "host:port".
	Insecure bool
	// TLS is used when the endpoint speaks TLS; nil: the system's roots.
	TLS *tls.Config
	// Timeout bounds one export; 0: 10 s.
	Timeout time.Duration
	// Queue is how many spans or log records wait, at most, for the receiver
	// to take them; what is over it is dropped and counted. 0: 2,048.
	// Metrics have no queue.
	Queue int
	// Batch is how many spans or log records go at once; 0: 512. It is never
	// more than Queue.
	Batch int
	// Delay is how long spans or log records wait for others before they go;
	// 0: 5 s for spans, 1 s for log records.
	Delay time.Duration
	// BatchTimeout bounds the work on one batch, in which Timeout bounds the
	// export; for metrics that is collecting them, too. 0: 30 s.
	BatchTimeout time.Duration
}

const (
	defaultPushTimeout = 10 * time.Second
	defaultQueue       = 2048

	// Those of the specification, given to the SDK always: what it isn't given
	// it reads from the environment, unchecked.
	defaultBatch        = 512
	defaultSpanDelay    = 5 * time.Second
	defaultLogDelay     = time.Second
	defaultBatchTimeout = 30 * time.Second
	defaultInterval     = time.Minute

	maxPushConns = 4 // to a receiver, by HTTP; an exporter uses one at a time
)

// positive is v, or otherwise where v is none.
func positive[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

func (p Push) timeout() time.Duration      { return positive(p.Timeout, defaultPushTimeout) }
func (p Push) batchTimeout() time.Duration { return positive(p.BatchTimeout, defaultBatchTimeout) }
func (p Push) queue() int                  { return positive(p.Queue, defaultQueue) }
func (p Push) batch() int                  { return min(positive(p.Batch, defaultBatch), p.queue()) }

// reader is when metrics are pushed.
func (o OTLP) reader() []sdkmetric.PeriodicReaderOption {
	return []sdkmetric.PeriodicReaderOption{
		sdkmetric.WithInterval(positive(o.Interval, defaultInterval)),
		sdkmetric.WithTimeout(o.Metrics.batchTimeout()),
	}
}

// spans is how spans are batched.
func (p Push) spans() []sdktrace.BatchSpanProcessorOption {
	return []sdktrace.BatchSpanProcessorOption{
		sdktrace.WithMaxQueueSize(p.queue()),
		sdktrace.WithMaxExportBatchSize(p.batch()),
		sdktrace.WithBatchTimeout(positive(p.Delay, defaultSpanDelay)),
		sdktrace.WithExportTimeout(p.batchTimeout()),
	}
}

// records is how log records are batched.
func (p Push) records() []sdklog.BatchProcessorOption {
	return []sdklog.BatchProcessorOption{
		sdklog.WithMaxQueueSize(p.queue()),
		sdklog.WithExportMaxBatchSize(p.batch()),
		sdklog.WithExportInterval(positive(p.Delay, defaultLogDelay)),
		sdklog.WithExportTimeout(p.batchTimeout()),
	}
}

// Validate says what is wrong with o.
func (o OTLP) Validate() error {
	for _, signal := range []struct {
		name string
		push Push
	}{{"metrics", o.Metrics}, {"traces", o.Traces}, {"logs", o.Logs}} {
		if signal.push.Protocol == "" {
			continue
		}
		if err := signal.push.Validate(); err != nil {
			return fmt.Errorf("%s: %w", signal.name, err)
		}
	}
	switch o.Exemplars {
	case "", TraceBased, AlwaysOn, AlwaysOff:
		return nil
	default:
		return fmt.Errorf("exemplars %q: want %s, %s or %s", o.Exemplars, TraceBased, AlwaysOn, AlwaysOff)
	}
}

// Validate says what is wrong with p, which is to be pushed.
func (p Push) Validate() error {
	_, err := p.target("")
	return err
}

// target is where a signal goes, taken apart.
type target struct {
	hostPort  string
	url       string // by HTTP: all of it
	plaintext bool
}

// target understands Endpoint. signal is the last part of the default path.
func (p Push) target(signal string) (target, error) {
	bad := func(why string) (target, error) {
		return target{}, fmt.Errorf("OTLP endpoint %q: %s", p.Endpoint, why)
	}
	if p.Protocol != GRPC && p.Protocol != HTTPProtobuf {
		return target{}, fmt.Errorf("OTLP protocol %q: want %s or %s", p.Protocol, GRPC, HTTPProtobuf)
	}
	t, path := target{hostPort: p.Endpoint, plaintext: p.Insecure}, ""
	if u, err := url.Parse(p.Endpoint); err == nil && u.Host != "" {
		switch {
		case u.Scheme != "http" && u.Scheme != "https":
			return bad("the scheme must be http or https")
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			return bad("want no more than scheme://host:port and a path")
		case p.Protocol == GRPC && u.Path != "" && u.Path != "/":
			return bad("by gRPC there is no path")
		case u.Scheme == "https" && p.Insecure:
			return bad("https and insecure contradict each other")
		}
		t.hostPort, t.plaintext, path = u.Host, u.Scheme == "http", u.EscapedPath()
	}
	host, port, err := net.SplitHostPort(t.hostPort)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" || strings.ContainsAny(host, " \t\r\n/@?#") {
		return bad("want host:port or http(s)://host:port")
	}
	if path == "" {
		path = "/v1/" + signal
	}
	scheme := "https"
	if t.plaintext {
		scheme = "http"
	}
	t.url = scheme + "://" + t.hostPort + path
	return t, nil
}

// credentials are those by gRPC. They are always given, so that no certificate
// of the environment turns a plaintext endpoint into one with TLS.
func (p Push) credentials(t target) credentials.TransportCredentials {
	switch {
	case t.plaintext:
		return insecure.NewCredentials()
	case p.TLS != nil:
		return credentials.NewTLS(p.TLS)
	default:
		return credentials.NewTLS(&tls.Config{})
	}
}

// client is one exporter's. The exporters' own share connections that outlive
// them; these end with hangUp.
func (p Push) client() (c *http.Client, hangUp func()) {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: p.timeout()}).DialContext,
		TLSClientConfig:       p.TLS.Clone(),
		TLSHandshakeTimeout:   p.timeout(),
		ForceAttemptHTTP2:     true,
		MaxConnsPerHost:       maxPushConns,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: p.timeout(),
	}
	return &http.Client{Transport: transport, Timeout: p.timeout()}, transport.CloseIdleConnections
}

func nothing() {}

// newMetricExporter returns with what is left to do after its Shutdown.
func newMetricExporter(ctx context.Context, p Push) (sdkmetric.Exporter, func(), error) {
	t, err := p.target("metrics")
	if err != nil {
		return nil, nil, err
	}
	if p.Protocol == GRPC {
		e, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpoint(t.hostPort),
			otlpmetricgrpc.WithTLSCredentials(p.credentials(t)), otlpmetricgrpc.WithTimeout(p.timeout()))
		return e, nothing, err
	}
	client, hangUp := p.client()
	e, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(t.url),
		otlpmetrichttp.WithTLSClientConfig(nil), otlpmetrichttp.WithHTTPClient(client), otlpmetrichttp.WithTimeout(p.timeout()))
	return e, hangUp, err
}

func newSpanExporter(ctx context.Context, p Push) (sdktrace.SpanExporter, func(), error) {
	t, err := p.target("traces")
	if err != nil {
		return nil, nil, err
	}
	if p.Protocol == GRPC {
		e, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(t.hostPort),
			otlptracegrpc.WithTLSCredentials(p.credentials(t)), otlptracegrpc.WithTimeout(p.timeout()))
		return e, nothing, err
	}
	client, hangUp := p.client()
	e, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(t.url),
		otlptracehttp.WithTLSClientConfig(nil), otlptracehttp.WithHTTPClient(client), otlptracehttp.WithTimeout(p.timeout()))
	return e, hangUp, err
}

func newLogExporter(ctx context.Context, p Push) (sdklog.Exporter, func(), error) {
	t, err := p.target("logs")
	if err != nil {
		return nil, nil, err
	}
	if p.Protocol == GRPC {
		e, err := otlploggrpc.New(ctx, otlploggrpc.WithEndpoint(t.hostPort),
			otlploggrpc.WithTLSCredentials(p.credentials(t)), otlploggrpc.WithTimeout(p.timeout()))
		return e, nothing, err
	}
	client, hangUp := p.client()
	e, err := otlploghttp.New(ctx, otlploghttp.WithEndpointURL(t.url),
		otlploghttp.WithTLSClientConfig(nil), otlploghttp.WithHTTPClient(client), otlploghttp.WithTimeout(p.timeout()))
	return e, hangUp, err
}

// errNoLogs is said to who pushes logs and has none.
var errNoLogs = errors.New("OTLP.Logs without Options.Logs: there is no log to push")
