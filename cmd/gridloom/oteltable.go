package main

import (
	"strings"

	"github.com/gridloom/gridloom/observability"
)

// otelVariable is one of OpenTelemetry's standard variables, or, with {} in its
// name, four: one for all signals and one for each.
type otelVariable struct {
	name  string
	means string
	// check says why a value is ignored; nil: there is none that is.
	check func(value string) error
}

// otelTable is the list for documents.
var otelTable = []otelVariable{
	{"OTEL_SDK_DISABLED", "`true`: nothing is pushed and no spans are made, whatever else is set; `/metrics` stays", checkBool},
	{"OTEL_SERVICE_NAME", "`service.name` of the resource, in place of `gridloom`", nil},
	{"OTEL_RESOURCE_ATTRIBUTES", "further attributes of the resource, `key=value,…`; not `service.instance.id`, which is the node's name, nor `service.version`", nil},
	{"OTEL_PROPAGATORS", "how clients name their spans, below which their requests' then are: a list of `tracecontext` (`traceparent`, `tracestate`), `b3` and `b3multi` (either reads both forms of it), `jaeger` (`uber-trace-id`) and `baggage`, which changes nothing, as nodes call no other service to hand it on to; or `none`. Of several in one request the later of the list counts. Default `tracecontext,baggage`. `xray` and `ottrace` there are not. Nodes tell each other by `traceparent` whatever is set, and `OTEL_SDK_DISABLED` leaves this as it is: log lines still have the caller's trace", checkList(observability.Propagators()...)},
	{"OTEL_METRICS_EXPORTER", "`otlp`, `prometheus` (`/metrics`, which is there anyway) or `none`, or a list; without it metrics are pushed when there is an endpoint", checkList("otlp", "prometheus", "none")},
	{"OTEL_TRACES_EXPORTER", "`otlp` or `none`; without it spans are made and pushed when there is an endpoint", checkList("otlp", "none")},
	{"OTEL_LOGS_EXPORTER", "`otlp`, `console` (standard error, which is there anyway) or `none`, or a list; without it logs are pushed when there is an endpoint", checkList("otlp", "console", "none")},
	{"OTEL_EXPORTER_OTLP_{}ENDPOINT", "the receiver: a URL; by gRPC also `HOST:PORT`. By HTTP the signals' paths (`/v1/traces`) come below the path of the one for all, and that for one signal is used as it is. Default `http://localhost:4317`, by HTTP 4318, where an exporter is asked for by name. `--otlp-endpoint` overrides all four", nil},
	{"OTEL_EXPORTER_OTLP_{}PROTOCOL", "`grpc` (the default) or `http/protobuf`; `--otlp-protocol` overrides all four", nil},
	{"OTEL_EXPORTER_OTLP_{}INSECURE", "`true`: no TLS with a `HOST:PORT` without scheme", checkBool},
	{"OTEL_EXPORTER_OTLP_{}HEADERS", "headers of each export, `name=value,…` with the values in URL encoding", nil},
	{"OTEL_EXPORTER_OTLP_{}COMPRESSION", "`gzip` or `none` (the default)", checkOneOf("gzip", "none")},
	{"OTEL_EXPORTER_OTLP_{}TIMEOUT", "how long an export may take, in milliseconds (10000)", checkMilliseconds},
	{"OTEL_EXPORTER_OTLP_{}CERTIFICATE", "file with the authorities (PEM) that the receiver's certificate may be from, in place of the system's", nil},
	{"OTEL_EXPORTER_OTLP_{}CLIENT_CERTIFICATE", "file with the certificate (PEM) to show the receiver", nil},
	{"OTEL_EXPORTER_OTLP_{}CLIENT_KEY", "file with its private key", nil},
	{"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "`explicit_bucket_histogram` (the default) or `base2_exponential_bucket_histogram`, for what is pushed; `/metrics` keeps its buckets", checkOneOf("explicit_bucket_histogram", "base2_exponential_bucket_histogram")},
	{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "`cumulative` (the default), `delta` or `lowmemory`", checkOneOf("cumulative", "delta", "lowmemory")},
	{"OTEL_METRIC_EXPORT_INTERVAL", "between two pushes of metrics, in milliseconds (60000)", checkMilliseconds},
	{"OTEL_METRIC_EXPORT_TIMEOUT", "how long collecting and pushing them may take, in milliseconds (30000)", checkMilliseconds},
	{"OTEL_METRICS_EXEMPLAR_FILTER", "`trace_based` (the default), `always_on`, which has empty ids outside of a trace, or `always_off`", checkOneOf("trace_based", "always_on", "always_off")},
	{"OTEL_TRACES_SAMPLER", "`parentbased_always_on` (the default), `parentbased_always_off`, `parentbased_traceidratio`, `always_on`, `always_off` or `traceidratio`; those that ask a server (`jaeger_remote`, `xray`) there are not", checkOneOf("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio", "always_on", "always_off", "traceidratio")},
	{"OTEL_TRACES_SAMPLER_ARG", "the ratio, 0 to 1, for the two samplers that have one", checkRatio},
	{"OTEL_BSP_SCHEDULE_DELAY", "how long spans wait for others before they are pushed, in milliseconds (5000)", checkMilliseconds},
	{"OTEL_BSP_EXPORT_TIMEOUT", "how long pushing them may take, in milliseconds (30000)", checkMilliseconds},
	{"OTEL_BSP_MAX_QUEUE_SIZE", "how many spans wait at most (2048); what is over it is dropped and counted", checkSize},
	{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "how many spans go at once (512)", checkSize},
	{"OTEL_BLRP_SCHEDULE_DELAY", "the same for log records (1000)", checkMilliseconds},
	{"OTEL_BLRP_EXPORT_TIMEOUT", "the same for log records (30000)", checkMilliseconds},
	{"OTEL_BLRP_MAX_QUEUE_SIZE", "the same for log records (2048)", checkSize},
	{"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "the same for log records (512)", checkSize},
	{"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "longer values of attributes, of spans and log records, are cut", checkLimit},
	{"OTEL_ATTRIBUTE_COUNT_LIMIT", "further attributes, of spans and log records, are left out (128)", checkLimit},
	{"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "the same for spans alone", checkLimit},
	{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "the same for spans alone", checkLimit},
	{"OTEL_SPAN_EVENT_COUNT_LIMIT", "events of a span (128)", checkLimit},
	{"OTEL_SPAN_LINK_COUNT_LIMIT", "links of a span (128)", checkLimit},
	{"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "attributes of an event (128)", checkLimit},
	{"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "attributes of a link (128)", checkLimit},
	{"OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "the same for log records alone", checkLimit},
	{"OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "the same for log records alone (128)", checkLimit},
	{"OTEL_LOG_LEVEL", "not used, with a warning: the level of the node's log is `--log-level`", notUsed("the level of the log is --log-level's")},
	{"OTEL_CONFIG_FILE", "not used, with a warning: there are these variables and `--config`", notUsed("there is no declarative configuration; set variables, or --config")},
	{"OTEL_EXPORTER_PROMETHEUS_HOST", "not used, with a warning: `/metrics` is at the HTTP listener, `--http-addr`", notUsed("/metrics is at --http-addr")},
	{"OTEL_EXPORTER_PROMETHEUS_PORT", "not used, with a warning, for the same reason", notUsed("/metrics is at --http-addr")},
}

// otelVariables has every name by itself.
func otelVariables() []otelVariable {
	var all []otelVariable
	for _, v := range otelTable {
		if !strings.Contains(v.name, "{}") {
			all = append(all, v)
			continue
		}
		for _, signal := range []string{"", "METRICS_", "TRACES_", "LOGS_"} {
			one := v
			one.name = strings.Replace(v.name, "{}", signal, 1)
			all = append(all, one)
		}
	}
	return all
}
