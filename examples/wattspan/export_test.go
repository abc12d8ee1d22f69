package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// TestExportDelivers shows what a collector gets of a run: one span and the
// metrics, which say what the report says.
func TestExportDelivers(t *testing.T) {
	for _, protocol := range protocols {
		for _, c := range []struct {
			name     string
			env      []string
			flags    []string
			exit     int
			span     string            // its name
			resource map[string]string // beyond the defaults
		}{
			{name: "a command that succeeds", span: "sh"},
			{name: "a command that fails", exit: 7, span: "sh"},
			{name: "a name for the run", flags: []string{"--name", "finetune"}, span: "finetune"},
			{
				name: "an identity from the environment",
				env: []string{"WATTSPAN_RUN_ID=run-42", "OTEL_SERVICE_NAME=trainer",
					"OTEL_RESOURCE_ATTRIBUTES=team=vision,service.name=overruled,note=two%20words"},
				span: "sh",
				resource: map[string]string{"wattspan.run.id": "run-42", "service.name": "trainer",
					"team": "vision", "note": "two words"},
			},
			{
				name: "a service name among the resource attributes",
				env:  []string{"OTEL_RESOURCE_ATTRIBUTES=service.name=trainer"},
				span: "sh", resource: map[string]string{"service.name": "trainer"},
			},
		} {
			t.Run(protocol+"/"+c.name, func(t *testing.T) {
				to := newCollector(t, protocol, anyPort, accept)
				env := append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint,
					"OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol, "OTEL_EXPORTER_OTLP_HEADERS=x-token=open%20sesame"}, c.env...)
				got := start(t, env, c.flags, speaker(c.exit)...).wait(t)
				got.unaffected(t, c.exit)
				got.complains(t)

				resource := map[string]string{"service.name": "wattspan", "wattspan.run.id": got.report.Run.ID}
				maps.Copy(resource, c.resource)
				spans, metrics := to.of("spans"), to.of("metrics")
				if len(spans) != 1 || len(metrics) != 1 {
					t.Fatalf("%d deliveries of spans and %d of metrics, want one each", len(spans), len(metrics))
				}
				checkSpan(t, spans[0], got.report, resource, c.span)
				checkMetrics(t, metrics[0], got.report, resource)
				for _, d := range []delivery{spans[0], metrics[0]} {
					if d.token != "[open sesame]" {
						t.Errorf("%s came with the header x-token %s, want that of OTEL_EXPORTER_OTLP_HEADERS", d.signal, d.token)
					}
				}
				// Neither the command's arguments nor its environment.
				for _, m := range []proto.Message{spans[0].spans, metrics[0].metrics} {
					if raw, err := proto.Marshal(m); err != nil || bytes.Contains(raw, []byte(secret)) {
						t.Errorf("a secret leaks: %v %v", m, err)
					}
				}
			})
		}
	}
}

// checkSpan compares a delivery with the report of the run.
func checkSpan(t *testing.T, d delivery, r tracker.Report, resource map[string]string, name string) {
	t.Helper()
	if n := len(d.spans.ResourceSpans); n != 1 {
		t.Fatalf("spans of %d resources, want 1", n)
	}
	rs := d.spans.ResourceSpans[0]
	checkResource(t, rs.Resource, rs.SchemaUrl, resource)
	if n := len(rs.ScopeSpans); n != 1 {
		t.Fatalf("spans of %d scopes, want 1", n)
	}
	checkScope(t, rs.ScopeSpans[0].Scope, rs.ScopeSpans[0].SchemaUrl)
	if n := len(rs.ScopeSpans[0].Spans); n != 1 {
		t.Fatalf("%d spans, want 1", n)
	}
	span := rs.ScopeSpans[0].Spans[0]
	if span.Name != name || span.Kind != tracepb.Span_SPAN_KIND_INTERNAL || len(span.ParentSpanId) != 0 {
		t.Errorf("span %q of kind %v with parent %x, want %q, internal, and none", span.Name, span.Kind, span.ParentSpanId, name)
	}
	if from, to := r.Run.Start.UnixNano(), r.Run.End.UnixNano(); span.StartTimeUnixNano != uint64(from) || span.EndTimeUnixNano != uint64(to) {
		t.Errorf("span from %d to %d, want the report's %d to %d", span.StartTimeUnixNano, span.EndTimeUnixNano, from, to)
	}

	exit := *r.Run.ExitCode
	want := map[string]any{
		"process.executable.name":           "sh",
		"process.exit.code":                 int64(exit),
		"wattspan.run.id":                   r.Run.ID,
		"wattspan.scope":                    "machine",
		"wattspan.attribution":              "whole_machine",
		"wattspan.energy.partial":           r.Partial,
		"wattspan.grid.intensity_g_per_kwh": r.Factors.Intensity.Value,
		"wattspan.grid.zone":                r.Factors.Intensity.Zone,
		"wattspan.grid.source":              r.Factors.Intensity.Source,
		"wattspan.grid.kind":                string(r.Factors.Intensity.Kind),
		"wattspan.pue":                      r.Factors.PUE.Value,
	}
	status := tracepb.Status_STATUS_CODE_UNSET
	if exit != 0 {
		status = tracepb.Status_STATUS_CODE_ERROR
		want["error.type"] = fmt.Sprintf("exit code %d", exit)
	}
	if got := span.GetStatus().GetCode(); got != status {
		t.Errorf("status %v, want %v", got, status)
	}
	if r.Energy.Device != nil {
		want["wattspan.energy.device_j"] = float64(*r.Energy.Device)
		want["wattspan.energy.facility_j"] = float64(*r.Energy.Facility)
		want["wattspan.energy.overhead_j"] = float64(*r.Energy.Facility - plugOf(r))
		if r.Energy.Node != nil {
			want["wattspan.energy.node_j"] = float64(*r.Energy.Node)
			want["wattspan.energy.unseen_j"] = float64(*r.Energy.Unseen)
			want["wattspan.energy.method.node"] = r.Node.Method
		}
		want["wattspan.energy.low_j"] = float64(r.Bounds.Facility.Low)
		want["wattspan.energy.high_j"] = float64(r.Bounds.Facility.High)
		want["wattspan.energy.coverage"] = r.Coverage()
		want["wattspan.emissions.operational_g"] = float64(r.Emissions.Operational)
	}
	var methods []string
	for component, energy := range energiesOf(r) {
		if energy == nil {
			continue
		}
		of := methodsOf(r, component)
		methods = append(methods, of...)
		want["wattspan.energy."+component+"_j"] = *energy
		want["wattspan.energy.method."+component] = joined(of)
	}
	if len(methods) > 0 {
		want["wattspan.energy.method"] = joined(methods)
	}
	var flags []string
	for _, f := range r.Quality {
		flags = append(flags, string(f.Kind))
	}
	if flags != nil {
		want["wattspan.energy.quality"] = joined(flags)
	}
	got := attributes(span.Attributes)
	if pid, _ := got["process.pid"].(int64); pid <= 1 {
		t.Errorf("process.pid is %v", got["process.pid"])
	}
	delete(got, "process.pid")
	if !maps.Equal(got, want) {
		t.Errorf("attributes of the span\n got %v\nwant %v", got, want)
	}
}

// energiesOf returns the energies of the report's components, nil where there
// is no figure.
func energiesOf(r tracker.Report) map[string]*float64 {
	return map[string]*float64{
		"gpu": (*float64)(r.Energy.GPU), "cpu": (*float64)(r.Energy.CPU), "memory": (*float64)(r.Energy.Memory),
	}
}

func methodsOf(r tracker.Report, component string) []string {
	var methods []string
	for _, d := range r.Devices {
		if string(d.Component) == component && d.Energy != nil {
			methods = append(methods, string(d.Method))
		}
	}
	return methods
}

func joined(words []string) string {
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ",")
}

// metricSpecs are all the metrics of a run: the table in the tracker's
// documentation.
var metricSpecs = map[string]struct {
	unit, kind string
	attributes string // of every point; those in brackets where they are known
	// sum returns what the points add up to; nil where the report does not say.
	sum func(tracker.Report) float64
}{
	"hw.energy": {"J", counter, "hw.id hw.type [hw.name] [hw.vendor] [hw.parent]", func(r tracker.Report) float64 {
		var sum float64
		for _, d := range r.Devices {
			if d.Energy != nil {
				sum += float64(*d.Energy)
			}
		}
		return sum
	}},
	"hw.power":           {"W", gauge, "hw.id hw.type [hw.name] [hw.vendor] [hw.parent]", nil},
	"hw.gpu.utilization": {"1", gauge, "hw.id hw.type [hw.name] [hw.vendor] [hw.parent]", nil},
	"wattspan.energy": {"J", counter, "wattspan.component wattspan.method", func(r tracker.Report) float64 {
		return float64(*r.Energy.Facility)
	}},
	"wattspan.emissions": {"g", counter, "wattspan.emissions.scope", func(r tracker.Report) float64 {
		return float64(r.Emissions.Operational)
	}},
	"wattspan.grid.intensity": {"g/kW.h", gauge, "wattspan.grid.zone wattspan.grid.source wattspan.grid.kind",
		func(r tracker.Report) float64 { return r.Factors.Intensity.Value }},
	"wattspan.pue": {"1", gauge, "wattspan.pue.source", func(r tracker.Report) float64 { return r.Factors.PUE.Value }},
	"wattspan.sampler.ticks": {"{tick}", counter, "", func(r tracker.Report) float64 {
		return float64(r.Sampling.Samples)
	}},
	"wattspan.sampler.missed": {"{tick}", counter, "", func(r tracker.Report) float64 {
		return float64(r.Sampling.Missed)
	}},
	"wattspan.sampler.errors": {"{error}", counter, "", func(r tracker.Report) float64 {
		return float64(r.Sampling.Errors)
	}},
	// The first sample is taken before the run, and not timed.
	"wattspan.sampler.tick.duration": {"s", histogram, "", func(r tracker.Report) float64 {
		return float64(r.Sampling.Samples - 1)
	}},
}

// The kinds of metric.
const (
	counter   = "cumulative monotonic sum"
	gauge     = "gauge"
	histogram = "cumulative histogram"
)

// checkMetrics compares a delivery with the report of the run.
func checkMetrics(t *testing.T, d delivery, r tracker.Report, resource map[string]string) {
	t.Helper()
	got := series(t, d, resource)
	for name, spec := range metricSpecs {
		ofHardware := strings.HasPrefix(name, "hw.") || spec.unit == "J" || spec.unit == "g"
		if got[name] == nil && (!ofHardware || spec.sum != nil && r.Energy.Device != nil) {
			t.Errorf("no metric %s", name)
		}
	}
	for name, m := range got {
		spec, ok := metricSpecs[name]
		if !ok {
			t.Errorf("a metric %s that is not documented", name)
			continue
		}
		if m.unit != spec.unit || m.kind != spec.kind {
			t.Errorf("%s is a %s in %q, want a %s in %q", name, m.kind, m.unit, spec.kind, spec.unit)
		}
		var sum float64
		for _, p := range m.points {
			sum += p.value
			words := strings.Fields(spec.attributes)
			for key := range p.attributes {
				if !slices.Contains(words, key) && !slices.Contains(words, "["+key+"]") {
					t.Errorf("%s has an attribute %s", name, key)
				}
			}
			for _, word := range words {
				if _, ok := p.attributes[word]; !ok && word[0] != '[' {
					t.Errorf("a point of %s has no attribute %s", name, word)
				}
			}
		}
		if spec.sum == nil {
			continue
		}
		if want := spec.sum(r); math.Abs(sum-want) > 1e-9*want {
			t.Errorf("%s is %v, want the report's %v", name, sum, want)
		}
	}
	if r.Energy.Device == nil {
		return
	}
	// Component by component, too; what is left is the PUE's part.
	parts := map[any]float64{}
	for _, p := range got["wattspan.energy"].points {
		parts[p.attributes["wattspan.component"]] += p.value
	}
	want := map[any]float64{"overhead": float64(*r.Energy.Facility - plugOf(r))}
	if r.Energy.Unseen != nil {
		want["unseen"] = float64(*r.Energy.Unseen)
	}
	for component, energy := range energiesOf(r) {
		if energy != nil {
			want[component] = *energy
		}
	}
	if !maps.EqualFunc(parts, want, func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*b }) {
		t.Errorf("wattspan.energy by component is %v, want %v", parts, want)
	}
}

// plugOf is what was drawn at the plug, as far as that is known.
func plugOf(r tracker.Report) sensors.Joules {
	if r.Energy.Node != nil {
		return *r.Energy.Node
	}
	return *r.Energy.Device
}

// delivered is one metric of a delivery.
type delivered struct {
	unit, kind string
	points     []point
}

// point is one data point; of a histogram, how many values it holds.
type point struct {
	attributes map[string]any
	value      float64
	start, at  uint64
}

// series returns the metrics of a delivery by name.
func series(t *testing.T, d delivery, resource map[string]string) map[string]*delivered {
	t.Helper()
	if n := len(d.metrics.ResourceMetrics); n != 1 {
		t.Fatalf("metrics of %d resources, want 1", n)
	}
	rm := d.metrics.ResourceMetrics[0]
	checkResource(t, rm.Resource, rm.SchemaUrl, resource)
	if n := len(rm.ScopeMetrics); n != 1 {
		t.Fatalf("metrics of %d scopes, want 1", n)
	}
	checkScope(t, rm.ScopeMetrics[0].Scope, rm.ScopeMetrics[0].SchemaUrl)
	const cumulative = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	found := map[string]*delivered{}
	for _, m := range rm.ScopeMetrics[0].Metrics {
		f := &delivered{unit: m.Unit}
		if found[m.Name] != nil {
			t.Errorf("%s twice", m.Name)
		}
		found[m.Name] = f
		var numbers []*metricspb.NumberDataPoint
		switch data := m.Data.(type) {
		case *metricspb.Metric_Sum:
			f.kind, numbers = "sum", data.Sum.DataPoints
			if data.Sum.IsMonotonic && data.Sum.AggregationTemporality == cumulative {
				f.kind = counter
			}
		case *metricspb.Metric_Gauge:
			f.kind, numbers = gauge, data.Gauge.DataPoints
		case *metricspb.Metric_Histogram:
			f.kind = "histogram"
			if data.Histogram.AggregationTemporality == cumulative {
				f.kind = histogram
			}
			for _, p := range data.Histogram.DataPoints {
				f.points = append(f.points, point{attributes(p.Attributes), float64(p.Count), p.StartTimeUnixNano, p.TimeUnixNano})
			}
		}
		for _, p := range numbers {
			value := p.GetAsDouble()
			if whole, ok := p.Value.(*metricspb.NumberDataPoint_AsInt); ok {
				value = float64(whole.AsInt)
			}
			f.points = append(f.points, point{attributes(p.Attributes), value, p.StartTimeUnixNano, p.TimeUnixNano})
		}
	}
	return found
}

func checkScope(t *testing.T, scope *common.InstrumentationScope, schema string) {
	t.Helper()
	if scope.GetName() != tracker.ScopeName || scope.GetVersion() != tracker.Version || schema != tracker.SchemaURL {
		t.Errorf("scope %s %s with schema %q, want %s %s with %q", scope.GetName(), scope.GetVersion(), schema,
			tracker.ScopeName, tracker.Version, tracker.SchemaURL)
	}
}

func checkResource(t *testing.T, r *resourcepb.Resource, schema string, want map[string]string) {
	t.Helper()
	if schema != tracker.SchemaURL {
		t.Errorf("resource with schema %q, want %q", schema, tracker.SchemaURL)
	}
	got := attributes(r.GetAttributes())
	for key, value := range want {
		if got[key] != value {
			t.Errorf("resource attribute %s is %v, want %q", key, got[key], value)
		}
	}
	for _, key := range []string{"service.instance.id", "host.name", "os.type", "telemetry.sdk.name", "telemetry.sdk.language", "telemetry.sdk.version"} {
		if got[key] == nil {
			t.Errorf("no resource attribute %s", key)
		}
	}
}

func attributes(kvs []*common.KeyValue) map[string]any {
	m := map[string]any{}
	for _, kv := range kvs {
		switch v := kv.Value.GetValue().(type) {
		case *common.AnyValue_StringValue:
			m[kv.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			m[kv.Key] = v.IntValue
		case *common.AnyValue_DoubleValue:
			m[kv.Key] = v.DoubleValue
		case *common.AnyValue_BoolValue:
			m[kv.Key] = v.BoolValue
		default:
			m[kv.Key] = v
		}
	}
	return m
}

// TestExportMetricsAsTheyGo shows that a long run delivers its metrics while it
// lasts, as counters that only grow, and that a delivery which fails on the way
// is made up for by the next.
func TestExportMetricsAsTheyGo(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			to := newCollector(t, protocol, anyPort, func(d delivery) answer {
				if d.signal == "metrics" && d.number == 0 {
					return answer{http: 400, grpc: codes.InvalidArgument, message: "not now"}
				}
				return answer{}
			})
			env := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
				"OTEL_METRIC_EXPORT_INTERVAL=100"}
			// The command ends when it is told to, after three deliveries.
			running := start(t, env, []string{"--interval", "100ms"}, "cat")
			for range 3 {
				select {
				case <-to.received:
				case <-running.ended:
					t.Fatal("the run ended before its command")
				}
			}
			if n := len(to.of("spans")); n != 0 {
				t.Errorf("%d spans while the run lasts", n)
			}
			if err := running.stdin.Close(); err != nil {
				t.Fatal(err)
			}
			got := running.wait(t)
			got.complains(t)

			deliveries := to.of("metrics")
			if len(deliveries) < 4 {
				t.Fatalf("%d deliveries of metrics, want three and the last", len(deliveries))
			}
			resource := map[string]string{"wattspan.run.id": got.report.Run.ID}
			checkMetrics(t, deliveries[len(deliveries)-1], got.report, resource)
			last := map[string]point{}
			for _, d := range deliveries {
				for name, m := range series(t, d, resource) {
					for _, p := range m.points {
						key := fmt.Sprint(name, p.attributes)
						before, ok := last[key]
						if ok && m.kind == counter && (p.value < before.value || p.start != before.start || p.at <= before.at) {
							t.Errorf("%s was %v and is %v", key, before, p)
						}
						last[key] = p
					}
				}
			}
		})
	}
}

// TestExportUnasked shows that nothing is sent anywhere, where nobody asks for
// it. Each trap is shown to work, by a run that is asked.
func TestExportUnasked(t *testing.T) {
	for _, c := range []struct {
		name, protocol, address string
		asked                   []string
	}{
		{"the default collector over gRPC", protocolGRPC, "127.0.0.1:4317",
			[]string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_METRICS_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}},
		{"the default collector over HTTP", protocolHTTP, "127.0.0.1:4318",
			[]string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_METRICS_EXPORTER=otlp"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			trap := newCollector(t, c.protocol, c.address, accept)
			got := start(t, nil, nil, speaker(0)...).wait(t)
			got.unaffected(t, 0)
			got.complains(t)
			if n := trap.listener.count.Load(); n != 0 {
				t.Errorf("%d connections that nobody asked for", n)
			}
			got = start(t, c.asked, nil, speaker(0)...).wait(t)
			got.unaffected(t, 0)
			got.complains(t)
			if spans, metrics := len(trap.of("spans")), len(trap.of("metrics")); spans != 1 || metrics != 1 {
				t.Errorf("an exporter without an endpoint delivered spans %d and metrics %d times to its default, want once", spans, metrics)
			}
		})
	}
	t.Run("anywhere, by a proxy", func(t *testing.T) {
		proxy := newCollector(t, protocolHTTP, anyPort, accept)
		var env []string
		for _, scheme := range []string{"HTTP", "HTTPS", "ALL"} {
			env = append(env, scheme+"_PROXY="+proxy.endpoint, strings.ToLower(scheme)+"_proxy="+proxy.endpoint)
		}
		got := start(t, env, nil, speaker(0)...).wait(t)
		got.unaffected(t, 0)
		got.complains(t)
		if n := proxy.listener.count.Load(); n != 0 {
			t.Errorf("%d connections that nobody asked for", n)
		}
		env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.invalid:4318")
		start(t, env, nil, speaker(0)...).wait(t)
		if proxy.listener.count.Load() == 0 {
			t.Error("the proxy is no trap")
		}
	})
}

// TestExportBySignal shows what the variables of the environment mean, for each
// signal. Where nothing is said of a signal, no connection is made for it.
func TestExportBySignal(t *testing.T) {
	const grpcURL, httpURL = "{grpc}", "{http}"
	for _, c := range []struct {
		name       string
		env        []string
		grpc, http string // the signals that each collector gets
		complaints []string
	}{
		{"an endpoint", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL}, "", "spans metrics", nil},
		{"an endpoint with a slash", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL + "/"}, "", "spans metrics", nil},
		{"an endpoint with space around it", []string{"OTEL_EXPORTER_OTLP_ENDPOINT= " + httpURL + " "}, "", "spans metrics", nil},
		{"an endpoint and a protocol", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + grpcURL, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
			"spans metrics", "", nil},
		{"only for traces", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + httpURL + "/v1/traces"}, "", "spans", nil},
		{"only for metrics", []string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=" + grpcURL, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=grpc"},
			"metrics", "", nil},
		{"one of each", []string{
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + grpcURL, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
			"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=" + httpURL + "/v1/metrics"}, "spans", "metrics", nil},
		{"a signal's protocol before the general one", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL,
			"OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
			"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/protobuf"}, "", "spans metrics", nil},
		{"a signal's endpoint before the general one", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=127.0.0.1:no-url",
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + httpURL + "/v1/traces", "OTEL_METRICS_EXPORTER=none"}, "", "spans", nil},
		{"traces not wanted", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_TRACES_EXPORTER=none"}, "", "metrics", nil},
		{"metrics not wanted", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_METRICS_EXPORTER=none"}, "", "spans", nil},
		{"nothing wanted", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_TRACES_EXPORTER=none",
			"OTEL_METRICS_EXPORTER=none"}, "", "", nil},
		{"the SDK disabled", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_TRACES_EXPORTER=otlp",
			"OTEL_SDK_DISABLED=True"}, "", "", nil},
		{"the SDK not disabled", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_SDK_DISABLED=1"}, "", "spans metrics", nil},

		// What we cannot do is said, and costs neither the other signal nor
		// the command.
		{"another exporter of traces", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_TRACES_EXPORTER=zipkin"},
			"", "metrics", []string{`^traces not exported: OTEL_TRACES_EXPORTER=zipkin\b`}},
		{"another exporter of metrics", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_METRICS_EXPORTER=console"},
			"", "spans", []string{`^metrics not exported: OTEL_METRICS_EXPORTER=console\b`}},
		{"another protocol", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"},
			"", "", []string{`^traces not exported: .*"http/json"`, `^metrics not exported: .*"http/json"`}},
		{"another protocol for traces", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + httpURL, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"},
			"", "metrics", []string{`^traces not exported: .*"http/json"`}},
		// The exporters would take their default for it, which nobody named.
		{"an endpoint that is no URL", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=127.0.0.1:4318"},
			"", "", []string{`^traces not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not a URL`, `^metrics not exported: .* is not a URL`}},
		{"an endpoint without http://", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318"},
			"", "", []string{`^traces not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not a URL`, `^metrics not exported: .* is not a URL`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			grpc, http := newCollector(t, protocolGRPC, anyPort, accept), newCollector(t, protocolHTTP, anyPort, accept)
			urls := strings.NewReplacer(grpcURL, grpc.endpoint, httpURL, http.endpoint)
			var env []string
			for _, variable := range c.env {
				env = append(env, urls.Replace(variable))
			}
			got := start(t, env, nil, speaker(3)...).wait(t)
			got.unaffected(t, 3)
			got.complains(t, c.complaints...)
			for _, w := range []struct {
				at   *collector
				want string
			}{{grpc, c.grpc}, {http, c.http}} {
				for _, signal := range []string{"spans", "metrics"} {
					want := 0
					if strings.Contains(w.want, signal) {
						want = 1
					}
					if n := len(w.at.of(signal)); n != want {
						t.Errorf("%s delivered %d times over %s, want %d", signal, n, w.at.protocol, want)
					}
				}
				if n := w.at.listener.count.Load(); w.want == "" && n != 0 {
					t.Errorf("%d connections over %s that nobody asked for", n, w.at.protocol)
				}
			}
		})
	}
}

// TestExportUndelivered shows that a collector which does not do its part costs
// the command nothing, and the user a line for each signal and no more time than
// the budget: once, however many signals wait.
func TestExportUndelivered(t *testing.T) {
	page := "<html>\n<head><title>\x1b[31mForbidden</title></head>\n" + strings.Repeat("<p>No.</p>\n", 10_000)
	type undelivered struct {
		name    string
		env     []string
		spans   string // what is said of the spans
		metrics string
		waits   bool // until the budget is spent
	}
	var cases []undelivered
	for _, protocol := range protocols {
		by := func(endpoint string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol}
		}
		answers := func(a answer) []string { return by(newCollector(t, protocol, anyPort, always(a)).endpoint) }
		refused := undelivered{protocol + ": connections are refused", by("http://" + refusing),
			"127.0.0.1:1: .*connection refused", "127.0.0.1:1: .*connection refused", protocol == protocolGRPC}
		cases = append(cases, refused,
			undelivered{protocol + ": connections are accepted, and that is all", by("http://" + silent(t).Addr().String()),
				"deadline exceeded", "deadline exceeded", true},
			undelivered{protocol + ": the collector is busy all the time",
				answers(answer{http: 503, grpc: codes.Unavailable, message: "come again"}), "come again", "come again", true},
			undelivered{protocol + ": the collector says no, at length",
				answers(answer{http: 403, grpc: codes.PermissionDenied, message: page}), "403|PermissionDenied", "403|PermissionDenied", false},
			undelivered{protocol + ": the collector drops what it accepts",
				answers(answer{rejected: 1, message: "over quota"}), "over quota", "over quota", false},
			undelivered{protocol + ": only the spans are lost", []string{
				"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://" + refusing, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=" + protocol,
				"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=" + newCollector(t, protocolGRPC, anyPort, accept).endpoint,
				"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=grpc"}, "connection refused", "", refused.waits},
			undelivered{protocol + ": only the metrics are lost", []string{
				"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://" + refusing, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=" + protocol,
				"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + newCollector(t, protocolGRPC, anyPort, accept).endpoint,
				"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc"}, "", "connection refused", refused.waits},
		)
	}
	// All at once: most of them only wait.
	runs := make([]*running, len(cases))
	for i, c := range cases {
		runs[i] = start(t, c.env, nil, speaker(3)...)
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := runs[i].wait(t)
			got.unaffected(t, 3)
			var want []string
			if c.spans != "" {
				want = append(want, "^spans were not delivered: .*("+c.spans+")")
			}
			if c.metrics != "" {
				want = append(want, "^metrics were not delivered: .*("+c.metrics+")")
			}
			got.complains(t, want...)
			limit := exportBudget / 2
			if c.waits {
				limit = exportBudget + 2*time.Second
			}
			if got.took > limit {
				t.Errorf("the run took %v, want no more than %v", got.took, limit)
			}
		})
	}
}

// TestExportAgain shows that a collector which is busy for a moment gets
// everything all the same.
func TestExportAgain(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			to := newCollector(t, protocol, anyPort, func(d delivery) answer {
				if d.number == 0 {
					return answer{http: 503, grpc: codes.Unavailable, message: "come again"}
				}
				return answer{}
			})
			got := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol},
				nil, speaker(0)...).wait(t)
			got.complains(t)
			if spans, metrics := len(to.of("spans")), len(to.of("metrics")); spans != 2 || metrics != 2 {
				t.Errorf("%d attempts to deliver spans and %d metrics, want 2 each", spans, metrics)
			}
		})
	}
}

// TestExportAfterTheReport shows that the report is kept before anything is
// sent: whoever loses patience with a collector has it.
func TestExportAfterTheReport(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			hangs := silent(t)
			running := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + hangs.Addr().String(),
				"OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol}, nil, speaker(3)...)
			select {
			case <-hangs.accepted:
			case <-running.ended:
				t.Fatal("the run ended without a connection")
			}
			report := running.readReport(t)
			select {
			case <-running.ended:
				t.Fatal("the run did not wait for the collector: this shows nothing")
			default:
			}
			if report.Schema != tracker.Schema || report.Run.ExitCode == nil || *report.Run.ExitCode != 3 || report.Sampling.Samples < 2 {
				t.Errorf("the report is not complete: %+v", report)
			}
		})
	}
}

// TestExportWithoutARun shows that nothing is sent of a run that never began:
// whoever mistypes a flag does not wait for a dead collector.
func TestExportWithoutARun(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			to := newCollector(t, protocol, anyPort, accept)
			running := start(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol},
				[]string{"--country", "Narnia"}, speaker(0)...)
			<-running.ended
			if got := running.cmd.ProcessState.ExitCode(); got != exitFailure {
				t.Errorf("exit code %d, want %d", got, exitFailure)
			}
			if n := to.listener.count.Load(); n != 0 {
				t.Errorf("%d connections about a run that never began", n)
			}
		})
	}
}

// TestExportQuietly shows that the OpenTelemetry SDK, which logs what it does
// not understand, secrets among it, does not write to the command's streams.
func TestExportQuietly(t *testing.T) {
	nonsense := []string{
		"OTEL_EXPORTER_OTLP_HEADERS=" + secret, "OTEL_EXPORTER_OTLP_TIMEOUT=soon", "OTEL_EXPORTER_OTLP_CERTIFICATE=/nonexistent/ca.pem",
		"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=/nonexistent/c.pem", "OTEL_EXPORTER_OTLP_CLIENT_KEY=/nonexistent/k.pem",
		"OTEL_EXPORTER_OTLP_COMPRESSION=lz77", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=never",
		"OTEL_METRIC_EXPORT_INTERVAL=often", "OTEL_METRIC_EXPORT_TIMEOUT=-1", "OTEL_BSP_SCHEDULE_DELAY=late",
		"OTEL_TRACES_SAMPLER=coin", "OTEL_BSP_MAX_QUEUE_SIZE=many", "OTEL_RESOURCE_ATTRIBUTES=nothing",
		// Not the OTEL_*_LIMIT variables: the API's own packages read them, and
		// log what they do not understand, before main begins.
	}
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			to := newCollector(t, protocol, anyPort, accept)
			got := start(t, append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint,
				"OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol}, nonsense...), nil, speaker(3)...).wait(t)
			got.unaffected(t, 3)
			got.complains(t, "^resource attributes: ")
			if spans, metrics := len(to.of("spans")), len(to.of("metrics")); spans != 1 || metrics != 1 {
				t.Errorf("%d deliveries of spans and %d of metrics, want one each", spans, metrics)
			}
		})
	}
}

var protocols = []string{protocolGRPC, protocolHTTP}

// secret is in the arguments and in the environment of the command.
const secret = "s3cr3t"

// What the command of [speaker] writes. Neither is text that a runner could touch
// and leave as it is.
const (
	jobStdout = "out\x00\xff no newline"
	jobStderr = "a word from the command"
)

// speaker is a command that ends with an exit code, after long enough for every
// sensor to be seen.
func speaker(exit int) []string {
	return []string{"sh", "-c", `printf 'out\000\377 no newline'; echo 'a word from the command' >&2; sleep 0.05; exit "$1"`,
		secret, fmt.Sprint(exit)}
}

// running is a runner that has been started.
type running struct {
	cmd            *exec.Cmd
	stdin          io.Closer
	stdout, stderr bytes.Buffer
	reportFile     string
	took           time.Duration
	ended          chan struct{}
}

// start runs a command under the runner, in an environment of which only what
// is given concerns it.
func start(t *testing.T, env, flags []string, command ...string) *running {
	t.Helper()
	return startAs(t, nil, env, flags, command...)
}

// startAs starts a runner with attributes of the system's.
func startAs(t *testing.T, as *syscall.SysProcAttr, env, flags []string, command ...string) *running {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Skipf("no %s here: %v", command[0], err)
	}
	binary, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{reportFile: filepath.Join(t.TempDir(), "report.json"), ended: make(chan struct{})}
	args := append(append([]string{"run", "--json", r.reportFile}, flags...), "--")
	r.cmd = exec.Command(binary, append(args, command...)...)
	r.cmd.Env = append(append(cleanEnvironment(), "TOKEN="+secret), env...)
	r.cmd.SysProcAttr = as
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait() // its exit code is looked at by the test
		r.took = time.Since(began)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	return r
}

// cleanEnvironment is this process's environment, without what the runner, the
// exporters or their transports read in it, the files of whoever tests included.
func cleanEnvironment() []string {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(strings.ToUpper(variable), "=")
		return strings.HasPrefix(name, "OTEL_") || strings.HasPrefix(name, "WATTSPAN_") ||
			strings.HasPrefix(name, "GRPC_") || strings.HasSuffix(name, "_PROXY") ||
			name == "TRACEPARENT" || name == "TRACESTATE" || name == "XDG_CONFIG_HOME"
	})
	// Nor does it meet the runs of others.
	return append(env, "XDG_CONFIG_HOME="+filepath.Join(runnerFolder, "none"), "WATTSPAN_SHARE="+tracker.SharingOff)
}

// result is a run that is over.
type result struct {
	*running
	report tracker.Report
}

// wait waits for the end of the run.
func (r *running) wait(t *testing.T) result {
	t.Helper()
	<-r.ended
	return result{r, r.readReport(t)}
}

func (r *running) readReport(t *testing.T) tracker.Report {
	t.Helper()
	var report tracker.Report
	data, err := os.ReadFile(r.reportFile)
	if err == nil {
		err = json.Unmarshal(data, &report)
	}
	if err != nil {
		t.Fatalf("the report: %v", err)
	}
	return report
}

// unaffected checks that the command had its streams and its exit code, and
// that the report is complete.
func (r result) unaffected(t *testing.T, exit int) {
	t.Helper()
	if got := r.cmd.ProcessState.ExitCode(); got != exit {
		t.Errorf("exit code %d, want the command's %d", got, exit)
	}
	if got := r.stdout.String(); got != jobStdout {
		t.Errorf("standard output is %q, want the command's %q", got, jobStdout)
	}
	if !strings.HasPrefix(r.stderr.String(), jobStderr+"\n") {
		t.Errorf("standard error is %q, want the command's %q at first", &r.stderr, jobStderr)
	}
	report := r.report
	if report.Schema != tracker.Schema || report.Run.ExitCode == nil || *report.Run.ExitCode != exit || report.Sampling.Samples < 2 {
		t.Errorf("the report is not complete: %+v", report)
	}
}

// complains checks what the runner says after its summary: one line that
// matches for each of the patterns, and not a word more. All that it writes is
// labelled or indented, so that whatever else is there comes from a library.
func (r result) complains(t *testing.T, patterns ...string) {
	t.Helper()
	var said, foreign []string
	titled := false
	for line := range strings.Lines(r.stderr.String()) {
		line = strings.TrimSuffix(line, "\n")
		words, ours := strings.CutPrefix(line, "wattspan: ")
		switch {
		case ours && !titled:
			titled = true // the first line of the summary
		case ours:
			said = append(said, words)
		case line != "" && line != jobStderr && !strings.HasPrefix(line, "  "):
			foreign = append(foreign, line)
		}
	}
	if len(foreign) > 0 {
		t.Errorf("%d lines that are not the runner's, the first of them %q", len(foreign), foreign[0])
	}
	if strings.Contains(r.stderr.String(), secret) {
		t.Errorf("a secret is shown: %s", &r.stderr)
	}
	slices.Sort(said)
	slices.Sort(patterns)
	ok := len(said) == len(patterns)
	for i := 0; ok && i < len(said); i++ {
		ok = regexp.MustCompile(patterns[i]).MatchString(said[i])
	}
	if !ok {
		t.Errorf("the runner says %q, want a line for each of %q", said, patterns)
	}
	for _, line := range said {
		if len(line) > 500 || strings.ContainsRune(line, '\x1b') {
			t.Errorf("not a line to read: %q", line)
		}
	}
}

var runnerFolder string

// runner builds the program, once.
var runner = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(runnerFolder, "wattspan")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	build := exec.Command("go", "build", "-o", binary, ".")
	// go-nvml binds functions that NVIDIA has deprecated; its warnings are not ours.
	build.Env = append(os.Environ(), "CGO_CFLAGS=-O2 -g -Wno-deprecated-declarations")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, said)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	// What the tests run does not meet what else runs here.
	_ = os.Setenv("WATTSPAN_SHARE", tracker.SharingOff)
	folder, err := os.MkdirTemp("", "wattspan")
	if err != nil {
		panic(err)
	}
	runnerFolder = folder
	// The go command keeps results until the test binary changes, and does not
	// see what runner builds: with this, which never runs, the program is in both.
	if len(os.Args) == 0 {
		main()
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}
