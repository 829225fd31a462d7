// Package otelcol holds Gridloom's telemetry to a real OpenTelemetry Collector,
// which it builds from the Collector's own modules: a mesh of three nodes pushes
// to it, and what comes out of it at the other end is what the test reads. It
// also has the Collector check the configurations in deploy/otelcol.
//
// It is a module of its own, so that nobody else has to build a Collector: some
// three minutes on two cores, once, as Go caches it. Its tests are behind the
// build tag real; make test-real runs them.
package otelcol
