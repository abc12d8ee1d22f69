package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-logr/logr"
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

// exportBudget bounds a delivery, and with it what is done for a collector once
// the command has ended.
const exportBudget = 5 * time.Second

// exportGrace is how much later the providers give up, which say only that time
// was up: the exporter knows why.
const exportGrace = 500 * time.Millisecond

// retries fit the budget, of which the SDK's own first wait of about 5 s is all.
// The last attempt, up to 1.5 times MaxInterval later, ends within it too: one
// that is cut off knows no reason.
var retries = otlptracehttp.RetryConfig{
	Enabled:         true,
	InitialInterval: 250 * time.Millisecond,
	MaxInterval:     time.Second,
	MaxElapsedTime:  exportBudget - 2*time.Second,
}

// export sends the run's span and metrics by OTLP, where the environment asks
// for it. A signal that nobody asked for has no exporter: no connection is
// attempted.
type export struct {
	traces  *sdktrace.TracerProvider // nil: not asked for
	metrics *sdkmetric.MeterProvider

	mu       sync.Mutex
	problems []string
	failures map[string]error // why a signal was not delivered
}

// newExport creates the exporters that the environment asks for. What the
// environment says is often meant for the command, so that nothing in it is a
// reason not to run: what we cannot do becomes a problem to report at the end.
func newExport(ctx context.Context, getenv func(string) string, runID string) *export {
	e := &export{failures: map[string]error{}}
	trimmed := func(name string) string { return strings.TrimSpace(getenv(name)) } // as the exporters do
	traces, metrics := e.destination(trimmed, "TRACES"), e.destination(trimmed, "METRICS")
	if traces == nil && metrics == nil {
		return e
	}
	// The exporters and the SDK would write to standard error, which is the
	// command's, and the log shows values of the environment, secrets among them.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	otel.SetLogger(logr.Discard())
	res := e.resource(ctx, runID)
	if traces != nil {
		exporter, err := newSpanExporter(ctx, *traces)
		if err != nil {
			e.problem("spans cannot be exported: %v", err)
		} else {
			e.traces = sdktrace.NewTracerProvider(sdktrace.WithResource(res),
				sdktrace.WithBatcher(watchedSpans{exporter, e}))
		}
	}
	if metrics != nil {
		exporter, err := newMetricExporter(ctx, *metrics)
		if err != nil {
			e.problem("metrics cannot be exported: %v", err)
		} else {
			e.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithResource(res),
				sdkmetric.WithReader(sdkmetric.NewPeriodicReader(boundedMetrics{exporter})))
		}
	}
	return e
}

// The protocols of OTLP that we speak.
const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// destination is where a signal is exported to, as far as it is not the
// exporters that read it in the environment.
type destination struct {
	protocol string
	// local is set where no endpoint is named. The specification's default is
	// http://localhost, the exporters' is https.
	local bool
}

// destination returns where a signal is exported to; nil where nobody asks for
// it. An endpoint or an exporter must be named: the defaults of the
// specification would have every run dial localhost.
func (e *export) destination(getenv func(string) string, signal string) *destination {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return nil
	}
	name := strings.ToLower(signal)
	setting := func(what string) (variable, value string) { // the signal's own, else the general one
		variable = "OTEL_EXPORTER_OTLP_" + signal + "_" + what
		if value = getenv(variable); value == "" {
			variable = "OTEL_EXPORTER_OTLP_" + what
			value = getenv(variable)
		}
		return variable, value
	}
	variable, endpoint := setting("ENDPOINT")
	switch exporter := getenv("OTEL_" + signal + "_EXPORTER"); exporter {
	case "otlp":
	case "":
		if endpoint == "" {
			return nil
		}
	case "none":
		return nil
	default:
		e.problem("%s not exported: OTEL_%s_EXPORTER=%s; wattspan knows otlp and none", name, signal, exporter)
		return nil
	}
	_, stated := setting("PROTOCOL")
	protocol := cmp.Or(stated, protocolHTTP)
	if protocol != protocolHTTP && protocol != protocolGRPC {
		e.problem("%s not exported: OTLP protocol %q; wattspan speaks %s and %s", name, protocol, protocolGRPC, protocolHTTP)
		return nil
	}
	// What the exporters cannot parse they replace by localhost. The endpoint is
	// not shown: there may be a password in it. To gRPC "collector:4317" is one.
	at, err := url.Parse(endpoint)
	if err != nil || endpoint != "" && at.Host == "" && protocol == protocolHTTP {
		e.problem("%s not exported: %s is not a URL; write it like http://collector:4318", name, variable)
		return nil
	}
	return &destination{protocol: protocol, local: endpoint == ""}
}

func newSpanExporter(ctx context.Context, to destination) (sdktrace.SpanExporter, error) {
	if to.protocol == protocolGRPC {
		opts := []otlptracegrpc.Option{otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig(retries))}
		if to.local {
			opts = append(opts, otlptracegrpc.WithInsecure())
		}
		return otlptracegrpc.New(ctx, opts...)
	}
	opts := []otlptracehttp.Option{otlptracehttp.WithRetry(retries)}
	if to.local {
		opts = append(opts, otlptracehttp.WithInsecure())
	}
	return otlptracehttp.New(ctx, opts...)
}

func newMetricExporter(ctx context.Context, to destination) (sdkmetric.Exporter, error) {
	if to.protocol == protocolGRPC {
		opts := []otlpmetricgrpc.Option{otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig(retries))}
		if to.local {
			opts = append(opts, otlpmetricgrpc.WithInsecure())
		}
		return otlpmetricgrpc.New(ctx, opts...)
	}
	opts := []otlpmetrichttp.Option{otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig(retries))}
	if to.local {
		opts = append(opts, otlpmetrichttp.WithInsecure())
	}
	return otlpmetrichttp.New(ctx, opts...)
}

// resource says who sends: the host, and the run that the nodes of a
// distributed job share. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
func (e *export) resource(ctx context.Context, runID string) *resource.Resource {
	res, err := resource.New(ctx,
		resource.WithSchemaURL(semconv.SchemaURL),
		// An instance of its own keeps one run's series apart from the next's;
		// the name that follows wins.
		resource.WithService(),
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
	ctx, cancel := context.WithTimeout(ctx, exportBudget+exportGrace)
	defer cancel()
	var wait sync.WaitGroup
	if e.traces != nil {
		wait.Go(func() { e.fail("spans", e.traces.Shutdown(ctx)) })
	}
	if e.metrics != nil {
		wait.Go(func() { e.fail("metrics", e.metrics.Shutdown(ctx)) })
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(exportBudget + 2*exportGrace):
		// An exporter that does not heed its context is left behind.
		e.problem("the collector did not answer within %v", exportBudget)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, signal := range []string{"spans", "metrics"} {
		if err := e.failures[signal]; err != nil {
			e.problems = append(e.problems, line(fmt.Sprintf("%s were not delivered: %v", signal, err)))
		}
	}
	return e.problems
}

func (e *export) problem(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.problems = append(e.problems, line(fmt.Sprintf(format, args...)))
}

// line makes one line to read of what can be a page of HTML that a collector
// answered.
func line(text string) string {
	const most = 400 // runes
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) })
	runes := []rune(strings.Join(words, " "))
	if len(runes) > most {
		runes = append(runes[:most], '…')
	}
	return string(runes)
}

// fail records why a signal was not delivered; the first reason is kept.
func (e *export) fail(signal string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failures[signal] == nil && err != nil {
		e.failures[signal] = err
	}
}

// watchedSpans bounds every export, and notes its failure: the provider ends
// well all the same.
type watchedSpans struct {
	sdktrace.SpanExporter
	export *export
}

// ExportSpans implements sdktrace.SpanExporter.
func (w watchedSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithTimeout(ctx, exportBudget)
	defer cancel()
	err := w.SpanExporter.ExportSpans(ctx, spans)
	w.export.fail("spans", err)
	return err
}

// boundedMetrics bounds every export. Its failures need no note: a later success
// makes up for them, as the metrics are cumulative, and the provider returns the
// last.
type boundedMetrics struct{ sdkmetric.Exporter }

// Export implements sdkmetric.Exporter.
func (b boundedMetrics) Export(ctx context.Context, m *metricdata.ResourceMetrics) error {
	if len(m.ScopeMetrics) == 0 {
		return nil // of a run that never began
	}
	ctx, cancel := context.WithTimeout(ctx, exportBudget)
	defer cancel()
	return b.Exporter.Export(ctx, m)
}
