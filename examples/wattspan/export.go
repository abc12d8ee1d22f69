package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// exportBudget bounds all that is done for a collector once the command has
// ended.
const exportBudget = 5 * time.Second

// export sends the run's span and metrics by OTLP, where the environment asks
// for it. A signal that nobody asked for has no exporter: no connection is
// attempted.
type export struct {
	traces  *sdktrace.TracerProvider // nil: not asked for
	metrics *sdkmetric.MeterProvider

	mu       sync.Mutex
	problems []string
	failures map[string]error // the last failure to deliver, by signal
}

// newExport creates the exporters that the environment asks for. What the
// environment says is often meant for the command, so that nothing in it is a
// reason not to run: what we cannot do becomes a problem to report at the end.
func newExport(ctx context.Context, getenv func(string) string, runID string) *export {
	e := &export{failures: map[string]error{}}
	tracesBy := e.protocol(getenv, "TRACES")
	metricsBy := e.protocol(getenv, "METRICS")
	if tracesBy == "" && metricsBy == "" {
		return e
	}
	// The exporters and the SDK report here what would go to standard error,
	// which is the command's.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	res := e.resource(ctx, runID)
	if tracesBy != "" {
		exporter, err := newSpanExporter(ctx, tracesBy)
		if err != nil {
			e.problem("spans cannot be exported: %v", err)
		} else {
			e.traces = sdktrace.NewTracerProvider(sdktrace.WithResource(res),
				sdktrace.WithBatcher(watchedSpans{exporter, e}))
		}
	}
	if metricsBy != "" {
		exporter, err := newMetricExporter(ctx, metricsBy)
		if err != nil {
			e.problem("metrics cannot be exported: %v", err)
		} else {
			e.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithResource(res),
				sdkmetric.WithReader(sdkmetric.NewPeriodicReader(watchedMetrics{exporter, e})))
		}
	}
	return e
}

// The protocols of OTLP that we speak.
const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// protocol returns the protocol by which a signal is exported; empty where
// nobody asks for it. An endpoint or an exporter must be named: the defaults of
// the specification would have every run dial localhost.
func (e *export) protocol(getenv func(string) string, signal string) string {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return ""
	}
	name := strings.ToLower(signal)
	switch exporter := getenv("OTEL_" + signal + "_EXPORTER"); exporter {
	case "otlp":
	case "":
		if getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") == "" {
			return ""
		}
	case "none":
		return ""
	default:
		e.problem("%s not exported: OTEL_%s_EXPORTER=%s; wattspan knows otlp and none", name, signal, exporter)
		return ""
	}
	protocol := getenv("OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "", protocolHTTP:
		return protocolHTTP
	case protocolGRPC:
		return protocolGRPC
	default:
		e.problem("%s not exported: OTLP protocol %q; wattspan speaks %s and %s", name, protocol, protocolGRPC, protocolHTTP)
		return ""
	}
}

func newSpanExporter(ctx context.Context, protocol string) (sdktrace.SpanExporter, error) {
	if protocol == protocolGRPC {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

func newMetricExporter(ctx context.Context, protocol string) (sdkmetric.Exporter, error) {
	if protocol == protocolGRPC {
		return otlpmetricgrpc.New(ctx)
	}
	return otlpmetrichttp.New(ctx)
}

// resource says who sends: the host, and the run that the nodes of a
// distributed job share. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
func (e *export) resource(ctx context.Context, runID string) *resource.Resource {
	res, err := resource.New(ctx,
		resource.WithSchemaURL(semconv.SchemaURL),
		resource.WithAttributes(semconv.ServiceName("wattspan"), attribute.String("wattspan.run.id", runID)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithOSType(), resource.WithFromEnv(),
	)
	if err != nil {
		e.problem("resource attributes: %v", err)
	}
	return res
}

// tracers returns the provider for the tracker. It does not show that it can be
// flushed: we do that ourselves, after the report has been kept.
func (e *export) tracers() trace.TracerProvider {
	if e.traces == nil {
		return tracenoop.NewTracerProvider()
	}
	return struct{ trace.TracerProvider }{e.traces}
}

// meters returns the provider for the tracker, like tracers.
func (e *export) meters() metric.MeterProvider {
	if e.metrics == nil {
		return metricnoop.NewMeterProvider()
	}
	return struct{ metric.MeterProvider }{e.metrics}
}

// shutdown delivers what is left, within the budget, and returns what went
// wrong in one line each.
func (e *export) shutdown(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, exportBudget)
	defer cancel()
	var wait sync.WaitGroup
	if e.traces != nil {
		wait.Go(func() { e.note("spans", e.traces.Shutdown(ctx)) })
	}
	if e.metrics != nil {
		wait.Go(func() { e.note("metrics", e.metrics.Shutdown(ctx)) })
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(exportBudget + time.Second):
		// An exporter that does not heed its context is left behind.
		e.problem("the collector did not answer within %v", exportBudget)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, signal := range []string{"spans", "metrics"} {
		if err := e.failures[signal]; err != nil {
			e.problems = append(e.problems, fmt.Sprintf("%s were not delivered: %v", signal, err))
		}
	}
	return e.problems
}

func (e *export) problem(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.problems = append(e.problems, fmt.Sprintf(format, args...))
}

// note records the outcome of a delivery. Shutdown returns nil where a delivery
// over HTTP was refused, so that the exporters are watched as well; a later
// success makes up for an earlier failure of cumulative metrics, not for lost
// spans.
func (e *export) note(signal string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err != nil:
		if e.failures[signal] == nil || !errors.Is(err, context.DeadlineExceeded) {
			e.failures[signal] = err
		}
	case signal == "metrics":
		delete(e.failures, signal)
	}
}

// watchedSpans notes the outcome of every export.
type watchedSpans struct {
	sdktrace.SpanExporter
	export *export
}

// ExportSpans implements sdktrace.SpanExporter.
func (w watchedSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := w.SpanExporter.ExportSpans(ctx, spans)
	w.export.note("spans", err)
	return err
}

// watchedMetrics notes the outcome of every export.
type watchedMetrics struct {
	sdkmetric.Exporter
	export *export
}

// Export implements sdkmetric.Exporter.
func (w watchedMetrics) Export(ctx context.Context, m *metricdata.ResourceMetrics) error {
	err := w.Exporter.Export(ctx, m)
	w.export.note("metrics", err)
	return err
}
