package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gridloom/gridloom/observability"
)

const otelPrefix = "OTEL_"

// otel is what the standard variables of OpenTelemetry say beside the settings.
// Some are the SDK's to read, and this only looks at their values: those that
// are ignored here forgetOTel keeps from it.
//
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
// has it that numbers and words that can't be read are ignored with a warning.
// What would send telemetry elsewhere, or to somebody unproven (endpoints,
// certificates, headers, protocols), is an error.
type otel struct {
	values  map[string]string // those that are set and not empty
	ignored []ignoredVariable
}

func readOTel(env []string) *otel {
	o := &otel{values: map[string]string{}}
	for _, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, otelPrefix) && strings.TrimSpace(value) != "" {
			o.values[name] = strings.TrimSpace(value)
		}
	}
	for _, v := range otelVariables() {
		if value, set := o.values[v.name]; set && v.check != nil {
			if err := v.check(value); err != nil {
				o.ignore(v.name, err)
			}
		}
	}
	return o
}

// forgetOTel unsets those of a process's variables that readOTel ignores: the
// SDK reads the environment itself, and checks little of it.
func forgetOTel(env []string, unset func(name string) error) error {
	var all []error
	for _, ignored := range readOTel(env).ignored {
		all = append(all, unset(ignored.name))
	}
	return errors.Join(all...)
}

// inheritOTel sets what log records have from the variables for all attributes:
// the SDK reads those for spans alone.
func inheritOTel(env []string, set func(name, value string) error) error {
	const general, records = otelPrefix + "ATTRIBUTE_", otelPrefix + "LOGRECORD_ATTRIBUTE_"
	o := readOTel(env)
	var all []error
	for _, limit := range []string{"COUNT_LIMIT", "VALUE_LENGTH_LIMIT"} {
		if value := o.values[general+limit]; value != "" && o.values[records+limit] == "" {
			all = append(all, set(records+limit, value))
		}
	}
	return errors.Join(all...)
}

// ignoredVariable is a variable that is left out, and why.
type ignoredVariable struct {
	name string
	err  error
}

func (i ignoredVariable) Error() string { return i.name + ": " + i.err.Error() }

// ignore leaves a variable out, and its user will be told.
func (o *otel) ignore(name string, err error) {
	o.ignored = append(o.ignored, ignoredVariable{name, err})
	delete(o.values, name)
}

// warn tells which variables were ignored.
func (o *otel) warn(log *slog.Logger) {
	for _, err := range o.ignored {
		log.Warn("a variable is ignored", "error", err)
	}
}

// of returns the variable of one signal, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or
// that of all, OTEL_EXPORTER_OTLP_ENDPOINT; value is empty where neither is set.
func (o *otel) of(signal, what string) (name, value string) {
	const prefix = otelPrefix + "EXPORTER_OTLP_"
	if name = prefix + strings.ToUpper(signal) + "_" + what; o.values[name] != "" {
		return name, o.values[name]
	}
	name = prefix + what
	return name, o.values[name]
}

// otlp is what is pushed, by settings and variables.
func (s *settings) otlp(o *otel) (out observability.OTLP, err error) {
	if o.isTrue("OTEL_SDK_DISABLED") {
		return out, nil
	}
	for _, signal := range []struct {
		name string
		push *observability.Push
	}{{"metrics", &out.Metrics}, {"traces", &out.Traces}, {"logs", &out.Logs}} {
		if *signal.push, err = s.pushOf(o, signal.name); err != nil {
			return observability.OTLP{}, err
		}
	}
	o.batches("OTEL_BSP_", &out.Traces)
	o.batches("OTEL_BLRP_", &out.Logs)
	out.Interval = o.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")
	out.Metrics.BatchTimeout = o.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT")
	out.Exemplars = observability.Exemplars(o.values["OTEL_METRICS_EXEMPLAR_FILTER"])
	return out, nil
}

// batches sets how a signal is batched.
func (o *otel) batches(prefix string, p *observability.Push) {
	p.Queue = o.number(prefix + "MAX_QUEUE_SIZE")
	p.Batch = o.number(prefix + "MAX_EXPORT_BATCH_SIZE")
	p.Delay = o.milliseconds(prefix + "SCHEDULE_DELAY")
	p.BatchTimeout = o.milliseconds(prefix + "EXPORT_TIMEOUT")
}

// pushOf is how one signal is pushed.
func (s *settings) pushOf(o *otel, signal string) (p observability.Push, err error) {
	if !s.pushes(o, signal) {
		return p, nil
	}
	protocol, from := s.OTLP.Protocol, "otlp.protocol"
	if protocol == "" {
		from, protocol = o.of(signal, "PROTOCOL")
	}
	if protocol == "" {
		protocol = string(observability.GRPC)
	}
	p.Protocol = observability.Protocol(protocol)
	if p.Protocol != observability.GRPC && p.Protocol != observability.HTTPProtobuf {
		return p, s.wrong(from, fmt.Errorf("%q is neither %s nor %s", protocol, observability.GRPC, observability.HTTPProtobuf))
	}
	if from, err = s.receiver(o, signal, &p); err != nil {
		return p, s.wrong(from, err)
	}
	if err := p.Validate(); err != nil {
		return p, s.wrong(from, err)
	}
	if p.TLS, err = o.tls(signal); err != nil {
		return p, &usageError{err}
	}
	if name, headers := o.of(signal, "HEADERS"); headers != "" {
		if err := checkHeaders(headers); err != nil {
			return p, usageErrorf("%s: %w", name, err)
		}
	}
	name, _ := o.of(signal, "TIMEOUT")
	p.Timeout = o.milliseconds(name)
	return p, nil
}

// pushes says whether a signal is pushed: where the variable of its exporters
// says so, or, without one, where there is a receiver.
func (s *settings) pushes(o *otel, signal string) bool {
	name := otelPrefix + strings.ToUpper(signal) + "_EXPORTER"
	if exporters := o.values[name]; exporters != "" {
		return slices.Contains(splitList(exporters), "otlp")
	}
	_, endpoint := o.of(signal, "ENDPOINT")
	return s.OTLP.Endpoint != "" || endpoint != ""
}

// receiver sets where p goes, and returns who said so: a setting's path or a
// variable's name.
func (s *settings) receiver(o *otel, signal string, p *observability.Push) (from string, err error) {
	byHTTP := p.Protocol == observability.HTTPProtobuf
	base := true // the signals' paths are below it
	if s.OTLP.Endpoint != "" {
		from, p.Endpoint, p.Insecure = "otlp.endpoint", s.OTLP.Endpoint, s.OTLP.Insecure
	} else {
		from, p.Endpoint = o.of(signal, "ENDPOINT")
		base = !strings.Contains(from, strings.ToUpper(signal))
		switch {
		case p.Endpoint == "" && byHTTP:
			p.Endpoint = "http://localhost:4318"
		case p.Endpoint == "":
			p.Endpoint = "http://localhost:4317"
		case !strings.Contains(p.Endpoint, "://") && byHTTP:
			return from, fmt.Errorf("%q is no URL", p.Endpoint)
		case !strings.Contains(p.Endpoint, "://"):
			insecure, _ := o.of(signal, "INSECURE")
			p.Insecure = o.isTrue(insecure)
		}
	}
	u, err := url.Parse(p.Endpoint)
	if err != nil || u.Host == "" {
		return from, nil // HOST:PORT, or what Validate refuses
	}
	if u.Port() == "" {
		u.Host += map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	}
	if byHTTP {
		u.Path = path.Join("/", u.Path)
	}
	if byHTTP && base {
		u.Path = path.Join(u.Path, "v1", signal)
	}
	p.Endpoint = u.String()
	return from, nil
}

// wrong lays an error at the door of a setting or a variable.
func (s *settings) wrong(from string, err error) error {
	if strings.HasPrefix(from, otelPrefix) {
		return usageErrorf("%s: %w", from, err)
	}
	return s.blame(from, err)
}

// tls is what the variables say of certificates; nil: nothing.
func (o *otel) tls(signal string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	caName, ca := o.of(signal, "CERTIFICATE")
	certName, cert := o.of(signal, "CLIENT_CERTIFICATE")
	keyName, key := o.of(signal, "CLIENT_KEY")
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", caName, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: there is no certificate in %s", caName, ca)
		}
	}
	switch {
	case cert != "" && key == "":
		return nil, fmt.Errorf("%s: the key for it, %s, is missing", certName, keyName)
	case cert == "" && key != "":
		return nil, fmt.Errorf("%s: the certificate for it, %s, is missing", keyName, certName)
	case cert != "":
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", certName, keyName, err)
		}
		c.Certificates = []tls.Certificate{pair}
	case ca == "":
		return nil, nil
	}
	return c, nil
}

// number is the value of a variable that was checked; 0: it isn't set.
func (o *otel) number(name string) int {
	n, err := strconv.Atoi(o.values[name])
	if err != nil {
		return 0
	}
	return n
}

func (o *otel) milliseconds(name string) time.Duration {
	return time.Duration(o.number(name)) * time.Millisecond
}

func (o *otel) isTrue(name string) bool { return strings.EqualFold(o.values[name], "true") }

// propagators are nil where the variable isn't set, which is the default.
func (o *otel) propagators() []string {
	if list := o.values["OTEL_PROPAGATORS"]; list != "" {
		return splitList(list)
	}
	return nil
}

func splitList(list string) []string {
	parts := strings.Split(list, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// checkHeaders repeats no value: one may be a password.
func checkHeaders(list string) error {
	for i, pair := range strings.Split(list, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if _, err := url.PathUnescape(value); !ok || strings.TrimSpace(name) == "" || err != nil {
			return fmt.Errorf("header %d is not NAME=VALUE, with the value in URL encoding", i+1)
		}
	}
	return nil
}

// Checks of values that are ignored when they are wrong.

func checkRange(least, most int) func(string) error {
	return func(value string) error {
		if n, err := strconv.Atoi(value); err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", value, least, most)
		}
		return nil
	}
}

func checkLimit(value string) error { return checkRange(0, math.MaxInt32)(value) }
func checkSize(value string) error  { return checkRange(1, 1<<20)(value) }

// checkMilliseconds keeps zero out, for which the SDK would not wait at all, and
// what is no time.Duration any more.
func checkMilliseconds(value string) error { return checkRange(1, math.MaxInt32)(value) }

func checkBool(value string) error {
	if strings.EqualFold(value, "true") || strings.EqualFold(value, "false") {
		return nil
	}
	return fmt.Errorf("%q is neither true nor false", value)
}

func checkRatio(value string) error {
	if f, err := strconv.ParseFloat(value, 64); err != nil || !(f >= 0 && f <= 1) {
		return fmt.Errorf("%q is not a number from 0 to 1", value)
	}
	return nil
}

func checkOneOf(words ...string) func(string) error {
	return func(value string) error {
		if slices.Contains(words, value) {
			return nil
		}
		return fmt.Errorf("%q is none of %s", value, strings.Join(words, ", "))
	}
}

// notUsed has a variable ignored whatever it says: who sets it is told why.
func notUsed(why string) func(string) error {
	return func(string) error { return errors.New("it is not used: " + why) }
}

// checkList wants words, all of them: a list that is understood in part would be
// half of what its author meant.
func checkList(words ...string) func(string) error {
	one := checkOneOf(words...)
	return func(value string) error {
		parts := splitList(value)
		for _, part := range parts {
			if err := one(part); err != nil {
				return err
			}
		}
		if len(parts) > 1 && slices.Contains(parts, "none") {
			return errors.New("none goes with no other")
		}
		return nil
	}
}
