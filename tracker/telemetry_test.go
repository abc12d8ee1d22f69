package tracker_test

import (
	"context"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// point is one data point, found by its attributes.
type point struct {
	value float64
	attrs attribute.Set
}

// collected is what a reader has collected: the metric and its points.
type collected map[string]struct {
	metricdata.Metrics
	points []point
}

func collect(t *testing.T, reader sdkmetric.Reader) (collected, metricdata.ResourceMetrics) {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &rm); err != nil {
		t.Fatal(err)
	}
	found := collected{}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			entry := found[m.Name]
			entry.Metrics = m
			switch data := m.Data.(type) {
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					entry.points = append(entry.points, point{p.Value, p.Attributes})
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					entry.points = append(entry.points, point{p.Value, p.Attributes})
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					entry.points = append(entry.points, point{float64(p.Value), p.Attributes})
				}
			}
			found[m.Name] = entry
		}
	}
	return found, rm
}

// value returns the point of a metric whose attributes contain those given.
func (c collected) value(t *testing.T, name string, attrs ...attribute.KeyValue) float64 {
	t.Helper()
next:
	for _, p := range c[name].points {
		for _, a := range attrs {
			if v, ok := p.attrs.Value(a.Key); !ok || v != a.Value {
				continue next
			}
		}
		return p.value
	}
	t.Errorf("no %s with %v", name, attrs)
	return math.NaN()
}

func testSet() *sensors.Set {
	gpu := counter("GPU-0", sensors.GPU, sensortest.Constant(300))
	gpu.Name, gpu.Vendor, gpu.Utilization = "NVIDIA H100", "nvidia", 0.75
	gpu.Update = 0
	unseen := counter("GPU-1", sensors.GPU, sensortest.Constant(300))
	unseen.Lost = []sensortest.Span{{From: 0, To: time.Hour}}
	return sensors.NewSet(
		sensortest.NewSensor(nil, slow, gpu, unseen),
		sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(100)), counter("dram-0", sensors.Memory, sensortest.Constant(20))),
	)
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		tr := start(t, testSet(), tracker.WithMeterProvider(provider))
		time.Sleep(10*time.Second + 500*time.Millisecond)
		got, rm := collect(t, reader)
		if len(rm.ScopeMetrics) != 1 {
			t.Fatalf("%d scopes", len(rm.ScopeMetrics))
		}
		if s := rm.ScopeMetrics[0].Scope; s.Name != tracker.ScopeName || s.Version != tracker.Version || s.SchemaURL != tracker.SchemaURL {
			t.Errorf("scope %+v", s)
		}
		const sum, gauge, histogram = "sum", "gauge", "histogram"
		want := map[string]struct{ unit, kind string }{
			"hw.energy":                      {"J", sum},
			"hw.power":                       {"W", gauge},
			"hw.gpu.utilization":             {"1", gauge},
			"wattspan.energy":                {"J", sum},
			"wattspan.emissions":             {"g", sum},
			"wattspan.grid.intensity":        {"g/kW.h", gauge},
			"wattspan.pue":                   {"1", gauge},
			"wattspan.sampler.ticks":         {"{tick}", sum},
			"wattspan.sampler.missed":        {"{tick}", sum},
			"wattspan.sampler.errors":        {"{error}", sum},
			"wattspan.sampler.tick.duration": {"s", histogram},
		}
		for name, w := range want {
			m, ok := got[name]
			if !ok {
				t.Errorf("no %s", name)
				continue
			}
			if m.Unit != w.unit || m.Description == "" {
				t.Errorf("%s: unit %q, description %q", name, m.Unit, m.Description)
			}
			var kind string
			switch d := m.Data.(type) {
			case metricdata.Sum[float64]:
				kind = sum
				if !d.IsMonotonic || d.Temporality != metricdata.CumulativeTemporality {
					t.Errorf("%s is not a cumulative counter", name)
				}
			case metricdata.Sum[int64]:
				kind = sum
			case metricdata.Gauge[float64]:
				kind = gauge
			case metricdata.Histogram[float64]:
				kind = histogram
			}
			if kind != w.kind {
				t.Errorf("%s is a %T", name, m.Data)
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				t.Errorf("%s is not documented", name)
			}
		}
		id := attribute.Key("hw.id")
		near(t, "hw.energy of the GPU", got.value(t, "hw.energy", id.String("GPU-0"), attribute.String("hw.type", "gpu"),
			attribute.String("hw.name", "NVIDIA H100"), attribute.String("hw.vendor", "nvidia")), 3000, 1e-9)
		near(t, "hw.power", got.value(t, "hw.power", id.String("package-0"), attribute.String("hw.type", "cpu")), 100, 1e-9)
		near(t, "utilization", got.value(t, "hw.gpu.utilization", id.String("GPU-0")), 0.75, 1e-9)
		for _, p := range got["hw.energy"].points {
			if v, _ := p.attrs.Value(id); v.AsString() == "GPU-1" {
				t.Errorf("a device that never answered reports %v J", p.value)
			}
		}
		component := attribute.Key("wattspan.component")
		counterMethod := attribute.String("wattspan.method", "counter")
		near(t, "gpu", got.value(t, "wattspan.energy", component.String("gpu"), counterMethod), 3000, 1e-9)
		near(t, "cpu", got.value(t, "wattspan.energy", component.String("cpu"), counterMethod), 1000, 1e-9)
		near(t, "memory", got.value(t, "wattspan.energy", component.String("memory"), counterMethod), 200, 1e-9)
		near(t, "overhead", got.value(t, "wattspan.energy", component.String("overhead")), 4200*0.25, 1e-9)
		// The sum over the components is the facility's energy.
		var facility float64
		for _, p := range got["wattspan.energy"].points {
			facility += p.value
		}
		near(t, "facility", facility, 4200*1.25, 1e-9)
		near(t, "emissions", got.value(t, "wattspan.emissions", attribute.String("wattspan.emissions.scope", "operational")), facility/3.6e6*400, 1e-9)
		near(t, "intensity", got.value(t, "wattspan.grid.intensity", attribute.String("wattspan.grid.kind", "declared")), 400, 1e-9)
		near(t, "pue", got.value(t, "wattspan.pue"), 1.25, 1e-9)
		near(t, "ticks", got.value(t, "wattspan.sampler.ticks"), 11, 1e-9)
		near(t, "errors", got.value(t, "wattspan.sampler.errors"), 11, 1e-9) // of GPU-1
		stop(t, tr)
	})
}

// exporter keeps what a periodic reader exports.
type exporter struct {
	sdkmetric.Exporter
	mu      sync.Mutex
	exports []collected
	t       *testing.T
}

func (e *exporter) all() []collected {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.exports)
}

func (e *exporter) Export(_ context.Context, rm *metricdata.ResourceMetrics) error {
	reader := fixed{rm: rm}
	got, _ := collect(e.t, reader)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exports = append(e.exports, got)
	return nil
}
func (e *exporter) Temporality(sdkmetric.InstrumentKind) metricdata.Temporality {
	return metricdata.CumulativeTemporality
}
func (e *exporter) Aggregation(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return sdkmetric.DefaultAggregationSelector(k)
}
func (e *exporter) ForceFlush(context.Context) error { return nil }
func (e *exporter) Shutdown(context.Context) error   { return nil }

type fixed struct {
	sdkmetric.Reader
	rm *metricdata.ResourceMetrics
}

func (f fixed) Collect(_ context.Context, rm *metricdata.ResourceMetrics) error {
	*rm = *f.rm
	return nil
}

// Stop delivers the final values of a job shorter than the reader's interval,
// and nothing goes on being reported after it.
func TestStopFlushesTheFinalValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &exporter{t: t}
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(e, sdkmetric.WithInterval(time.Minute))))
		tr := start(t, testSet(), tracker.WithMeterProvider(provider))
		time.Sleep(7 * time.Second)
		r := stop(t, tr)
		exports := e.all()
		if len(exports) != 1 {
			t.Fatalf("%d exports", len(exports))
		}
		near(t, "final hw.energy", exports[0].value(t, "hw.energy", attribute.String("hw.id", "GPU-0")), joules(t, r.Energy.GPU), 1e-12)
		time.Sleep(10 * time.Minute)
		for _, x := range e.all()[1:] {
			if len(x["hw.energy"].points) > 0 {
				t.Error("hw.energy is reported after Stop")
			}
		}
		_ = provider.Shutdown(context.Background())
	})
}

// Where the provider cannot be flushed the final values stay, for its next
// collection.
func TestStopLeavesTheFinalValuesWhereItCannotFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		provider := struct{ metric.MeterProvider }{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}
		tr := start(t, testSet(), tracker.WithMeterProvider(provider))
		time.Sleep(7 * time.Second)
		r := stop(t, tr)
		time.Sleep(time.Minute)
		got, _ := collect(t, reader)
		near(t, "hw.energy", got.value(t, "hw.energy", attribute.String("hw.id", "GPU-0")), joules(t, r.Energy.GPU), 1e-12)
	})
}

func TestRunSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		ctx, parent := provider.Tracer("test").Start(context.Background(), "parent")
		tr, err := tracker.Start(ctx, tracker.WithSensors(testSet()), tracker.WithName("finetune"), tracker.WithRunID("r1"),
			tracker.WithIntensity(400), tracker.WithPUE(1.25), tracker.WithTracerProvider(provider),
			tracker.WithAttributes(attribute.String("team", "vision")))
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		time.Sleep(10 * time.Second)
		r := stop(t, tr)
		parent.End()
		span := spans.Ended()[0]
		if span.Name() != "finetune" || span.Parent().SpanID() != parent.SpanContext().SpanID() || span.SpanKind() != trace.SpanKindInternal {
			t.Errorf("span %s, kind %v", span.Name(), span.SpanKind())
		}
		if s := span.InstrumentationScope(); s.Name != tracker.ScopeName || s.Version != tracker.Version || s.SchemaURL != tracker.SchemaURL {
			t.Errorf("scope %+v", s)
		}
		if !span.StartTime().Equal(begin) || span.EndTime().Sub(span.StartTime()) != 10*time.Second {
			t.Errorf("from %v to %v", span.StartTime(), span.EndTime())
		}
		got := attribute.NewSet(span.Attributes()...)
		number := func(key string) float64 {
			v, ok := got.Value(attribute.Key(key))
			if !ok {
				t.Errorf("no %s", key)
			}
			return v.AsFloat64()
		}
		near(t, "device_j", number("wattspan.energy.device_j"), 4200, 1e-9)
		near(t, "facility_j", number("wattspan.energy.facility_j"), 5250, 1e-9)
		near(t, "gpu_j", number("wattspan.energy.gpu_j"), 3000, 1e-9)
		near(t, "cpu_j", number("wattspan.energy.cpu_j"), 1000, 1e-9)
		near(t, "memory_j", number("wattspan.energy.memory_j"), 200, 1e-9)
		near(t, "overhead_j", number("wattspan.energy.overhead_j"), 1050, 1e-9)
		near(t, "operational_g", number("wattspan.emissions.operational_g"), 5250/3.6e6*400, 1e-9)
		near(t, "intensity", number("wattspan.grid.intensity_g_per_kwh"), 400, 1e-9)
		near(t, "pue", number("wattspan.pue"), 1.25, 1e-9)
		if lo, hi := number("wattspan.energy.low_j"), number("wattspan.energy.high_j"); !(lo < 5250 && 5250 < hi) {
			t.Errorf("bounds %v to %v", lo, hi)
		}
		for key, want := range map[string]string{
			"wattspan.run.id": "r1", "wattspan.scope": "machine", "wattspan.attribution": "whole_machine",
			"wattspan.energy.method": "counter", "wattspan.energy.method.gpu": "counter",
			"wattspan.grid.kind": "declared", "wattspan.grid.source": "user", "team": "vision",
		} {
			if v, _ := got.Value(attribute.Key(key)); v.AsString() != want {
				t.Errorf("%s = %q, want %q", key, v.AsString(), want)
			}
		}
		if v, ok := got.Value("wattspan.energy.partial"); !ok || v.AsBool() != r.Partial || !r.Partial {
			t.Error("GPU-1 never answered: the span must say that it is partial")
		}
		for _, a := range span.Attributes() {
			if k := string(a.Key); !strings.HasPrefix(k, "wattspan.") && k != "team" {
				t.Errorf("attribute %s is outside our prefix", k)
			}
		}
	})
}

// Under a runner that measures the machine, the accounting is the runner's alone.
func TestMetricsUnderARunner(t *testing.T) {
	for _, test := range []struct {
		name   string
		runner string
		within string
	}{
		{"a runner that lives", tracker.Runner(os.Getppid(), "run-7"), "run-7"},
		{"one without a name", strconv.Itoa(os.Getppid()), "unnamed"},
		{"one that is gone", tracker.Runner(1<<30, "run-7"), ""},
		{"a value that means nothing", "yes", ""},
		{"none", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(tracker.EnvRunner, test.runner)
			t.Setenv(tracker.EnvRunID, "run-8")
			synctest.Test(t, func(t *testing.T) {
				reader := sdkmetric.NewManualReader()
				tr := start(t, testSet(), tracker.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
				time.Sleep(5 * time.Second)
				got, _ := collect(t, reader)
				for _, name := range []string{"hw.energy", "hw.power", "wattspan.energy", "wattspan.emissions", "wattspan.grid.intensity", "wattspan.pue"} {
					if _, there := got[name]; there != (test.within == "") {
						t.Errorf("%s: published %v", name, there)
					}
				}
				if _, there := got["wattspan.sampler.ticks"]; !there {
					t.Error("what the sampler says of itself is not published")
				}
				r := stop(t, tr)
				if r.Run.Within != test.within || r.Run.ID != "run-8" || r.Energy.Device == nil {
					t.Errorf("run %+v, energy %v", r.Run, r.Energy.Device)
				}
			})
		})
	}
}

// The run's span is a child of the one that the environment names, if asked for,
// and if the program has none of its own.
func TestParentFromEnvironment(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	own := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	for _, test := range []struct {
		name        string
		traceparent string
		ctx         context.Context
		opts        []tracker.Option
		want        string // the parent's span ID
	}{
		{"asked for", parent, t.Context(), []tracker.Option{tracker.WithParentFromEnvironment()}, "b7ad6b7169203331"},
		{"not asked for", parent, t.Context(), nil, "0000000000000000"},
		{"asked for, and a span of its own", parent, trace.ContextWithSpanContext(t.Context(), own),
			[]tracker.Option{tracker.WithParentFromEnvironment()}, "0200000000000000"},
		{"nonsense", "00-xyz", t.Context(), []tracker.Option{tracker.WithParentFromEnvironment()}, "0000000000000000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("TRACEPARENT", test.traceparent)
			spans := tracetest.NewSpanRecorder()
			provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
			tr, err := tracker.Start(test.ctx, append(test.opts, tracker.WithSensors(sensors.NewSet()), tracker.WithTracerProvider(provider))...)
			if err != nil {
				t.Fatal(err)
			}
			stop(t, tr)
			if got := spans.Ended()[0].Parent().SpanID().String(); got != test.want {
				t.Errorf("parent %s, want %s", got, test.want)
			}
		})
	}
}

// Equal devices are measured in one way, which is named once.
func TestRunSpanOfEqualDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		set := sensors.NewSet(sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(100)),
			counter("package-1", sensors.CPU, sensortest.Constant(100)), counter("package-2", sensors.CPU, sensortest.Constant(100))))
		tr := start(t, set, tracker.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))))
		time.Sleep(time.Second)
		stop(t, tr)
		got := attribute.NewSet(spans.Ended()[0].Attributes()...)
		for _, key := range []attribute.Key{"wattspan.energy.method", "wattspan.energy.method.cpu"} {
			if v, _ := got.Value(key); v.AsString() != "counter" {
				t.Errorf("%s is %q, want counter", key, v.AsString())
			}
		}
	})
}
