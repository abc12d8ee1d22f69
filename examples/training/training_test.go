package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// TestMain takes away what the environment says of runs and collectors.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "OTEL_") || strings.HasPrefix(name, "WATTSPAN_") || strings.HasPrefix(name, "TRACE") {
			_ = os.Unsetenv(name)
		}
	}
	_ = os.Setenv("WATTSPAN_SHARE", tracker.SharingOff) // nor do its runs meet others
	os.Exit(m.Run())
}

func excerpt(t *testing.T, characters, context int) *corpus {
	t.Helper()
	c, err := newCorpus(first(opticks, characters), context)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tiny(c *corpus, batch int, seed uint64) *network {
	return newNetwork(shape{alphabet: len(c.alphabet), context: c.context, embedding: 3, hidden: 5}, batch,
		rand.New(rand.NewPCG(seed, 0)))
}

// What is validated is never trained on, nor seen as the context of what is.
func TestSplitHasNoOverlap(t *testing.T) {
	c := excerpt(t, 2000, 7)
	used := make([]string, len(c.text))
	mark := func(positions []int, part string) {
		for _, at := range positions {
			before, next := c.example(at)
			if len(before) != 7 || next != c.text[at] || !slices.Equal(before, c.text[at-7:at]) {
				t.Fatalf("example %d is %v, %d", at, before, next)
			}
			for i := at - 7; i <= at; i++ {
				if used[i] != "" && used[i] != part {
					t.Fatalf("character %d is used for %s and for %s", i, used[i], part)
				}
				used[i] = part
			}
		}
	}
	mark(c.training(), "training")
	mark(c.validation(), "validation")
	for i, part := range used {
		if part == "" {
			t.Errorf("character %d is used for nothing", i)
		}
	}
	if got := len(c.validation()); got != 200-7 {
		t.Errorf("%d validation examples of 2000 characters, want a tenth less the first context", got)
	}
	if got := c.decode(c.text); got != first(opticks, 2000) {
		t.Error("the text does not survive its numbers")
	}
	if _, err := newCorpus("too short", 8); err == nil {
		t.Error("a text without room for validation is taken")
	}
}

// The data are what data/README.md says they are.
func TestTextIsNewtonsOwn(t *testing.T) {
	for _, foreign := range []string{"Gutenberg", "ranscriber", "Proofread", "Illustration", "_", "|", "sqrt"} {
		if i := strings.Index(opticks, foreign); i >= 0 {
			t.Errorf("the text has %q: %q", foreign, opticks[max(i-40, 0):min(i+40, len(opticks))])
		}
	}
	if n := len(opticks); n < 150_000 || n > 250_000 {
		t.Errorf("%d bytes of text", n)
	}
}

// The gradient is that of the loss: central differences in every direction, with
// several shards, of which the last is not full.
func TestGradientMatchesFiniteDifferences(t *testing.T) {
	c := excerpt(t, 600, 3)
	n := tiny(c, 3*shardSize, 1)
	for _, bias := range [][]float64{n.hiddenBias, n.outBias} {
		for i := range bias { // they are 0 at first, where a mistake might not show
			bias[i] = 0.1 * float64(i%7-3)
		}
	}
	n.backward(c, c.training()[100:190]) // of which nothing may be left
	batch := c.training()[:2*shardSize+6]
	sum := n.backward(c, batch)
	if got := n.loss(c, batch); math.Abs(got-sum) > 1e-9 {
		t.Errorf("backward returns a loss of %v, loss %v", sum, got)
	}
	gradient := slices.Clone(n.gradient.all)
	const h = 1e-5
	for i := range n.all {
		was := n.all[i]
		n.all[i] = was + h
		above := n.loss(c, batch)
		n.all[i] = was - h
		below := n.loss(c, batch)
		n.all[i] = was
		want := (above - below) / (2 * h) / float64(len(batch))
		if math.Abs(gradient[i]-want) > 1e-7+1e-5*math.Abs(want) {
			t.Fatalf("weight %d: gradient %v, the loss changes by %v", i, gradient[i], want)
		}
	}
}

// The largest logit is taken out before it is exponentiated.
func TestLogSumExpIsStable(t *testing.T) {
	for _, v := range []struct {
		logits []float64
		want   float64
	}{
		{[]float64{0, 0}, math.Ln2},
		{[]float64{1000, 1000}, 1000 + math.Ln2},
		{[]float64{-1000, -1000}, -1000 + math.Ln2},
		{[]float64{5, -1e6}, 5},
	} {
		if got := logSumExp(v.logits); math.Abs(got-v.want) > 1e-9 {
			t.Errorf("logSumExp(%v) = %v, want %v", v.logits, got, v.want)
		}
	}
}

// A network that knows nothing needs log2 of the alphabet for a character, and
// one whose weights favour the right answer less.
func TestBitsPerCharacter(t *testing.T) {
	c := excerpt(t, 900, 3)
	n := tiny(c, 64, 1)
	clear(n.all)
	want := math.Log2(float64(len(c.alphabet)))
	if got := n.bitsPerCharacter(c, c.training()); math.Abs(got-want) > 1e-9 {
		t.Errorf("uniform: %v bits, want %v", got, want)
	}
	space, _ := slices.BinarySearch(c.alphabet, ' ')
	n.outBias[space] = 2
	if got := n.bitsPerCharacter(c, c.training()); got >= want {
		t.Errorf("with a preference for spaces: %v bits, more than %v", got, want)
	}
}

// It learns: in a few steps the loss of what it is trained on falls well below
// that of the most likely guess without a context.
func TestLossFalls(t *testing.T) {
	c := excerpt(t, 1500, 4)
	n := newNetwork(shape{len(c.alphabet), 4, 8, 32}, 64, rand.New(rand.NewPCG(1, 0)))
	optimiser := newAdam(len(n.all))
	positions := c.training()
	before := n.bitsPerCharacter(c, positions)
	plan := schedule{rate: 0.02, batches: 10 * batches(len(positions), 64)}
	for range 10 {
		if _, done := trainEpoch(t.Context(), n, optimiser, &plan, c, positions, 64); done != len(positions) {
			t.Fatalf("trained on %d of %d examples", done, len(positions))
		}
	}
	counts := make([]float64, len(c.alphabet))
	for _, at := range positions {
		counts[c.text[at]]++
	}
	var entropy float64
	for _, n := range counts {
		if p := n / float64(len(positions)); p > 0 {
			entropy -= p * math.Log2(p)
		}
	}
	if after := n.bitsPerCharacter(c, positions); after > 0.6*entropy || after > before {
		t.Errorf("%.2f bits before and %.2f after training; the characters alone have %.2f", before, after, entropy)
	}
}

// Adam's first step moves every weight against its gradient by the rate, however
// large the gradient.
func TestAdamsFirstStep(t *testing.T) {
	weights := []float64{1, 1, 1}
	newAdam(3).step(0.1, weights, []float64{1e-3, -50, 0})
	for i, want := range []float64{0.9, 1.1, 1} {
		if math.Abs(weights[i]-want) > 1e-4 {
			t.Errorf("weight %d is %v, want %v", i, weights[i], want)
		}
	}
}

func TestScheduleFallsToNothing(t *testing.T) {
	s := schedule{rate: 0.5, batches: 4}
	for _, want := range []float64{0.5, 0.375, 0.25, 0.125} {
		if got := s.next(); got != want {
			t.Errorf("rate %v, want %v", got, want)
		}
	}
	if n := batches(65, 32); n != 3 {
		t.Errorf("65 examples are %d batches of 32", n)
	}
}

// The same seed gives the same network and the same text, another seed another.
func TestSeedDecides(t *testing.T) {
	c := excerpt(t, 1500, 4)
	trained := func(seed uint64) (*network, string) {
		s := settings{epochs: 1, hidden: 5, context: 4, batch: 96, rate: 0.01, seed: seed, sample: 60}
		n := train(t.Context(), new(tracker.Tracker), s, c, io.Discard)
		var text strings.Builder
		writeSample(&text, n, c, s)
		return n, text.String()
	}
	one, text := trained(1)
	again, textAgain := trained(1)
	other, otherText := trained(2)
	if !slices.Equal(one.all, again.all) || text != textAgain {
		t.Errorf("seed 1 gives %q, then %q", text, textAgain)
	}
	if slices.Equal(one.all, other.all) || text == otherText {
		t.Error("seed 2 gives what seed 1 does")
	}
}

// At a low temperature the network writes what it finds most likely, whatever the
// dice, and at a high one anything.
func TestTemperature(t *testing.T) {
	c := excerpt(t, 1500, 4)
	n := tiny(c, 32, 1)
	texts := func(temperature float64) map[string]bool {
		different := map[string]bool{}
		for seed := range uint64(5) {
			text := c.decode(n.sample(c, c.split+c.context, 40, temperature, rand.New(rand.NewPCG(seed, 1))))
			if length := len([]rune(text)); length != 40 {
				t.Errorf("%d characters, want 40", length)
			}
			different[text] = true
		}
		return different
	}
	if got := len(texts(1e-6)); got != 1 {
		t.Errorf("%d different texts at no temperature", got)
	}
	if got := len(texts(1)); got != 5 {
		t.Errorf("%d different texts of 5 at temperature 1", got)
	}
}

// Characters are drawn as often as the network finds them likely.
func TestDrawFollowsProbabilities(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var counts [3]int
	for range 10000 {
		counts[draw([]float64{math.Log(1), math.Log(2), math.Log(7)}, random)]++
	}
	for i, want := range []int{1000, 2000, 7000} {
		if math.Abs(float64(counts[i]-want)) > 250 {
			t.Errorf("%v of 10000, want about 1000, 2000, 7000", counts)
		}
	}
}

// countdown is a context that ends after it has been asked so often.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// Ctrl-C stops after the batch under way.
func TestInterruptedEpochKeepsWhatWasDone(t *testing.T) {
	c := excerpt(t, 2000, 4)
	n := tiny(c, 32, 1)
	loss, done := trainEpoch(&countdown{t.Context(), 3}, n, newAdam(len(n.all)), &schedule{0.01, 0, 100}, c, c.training(), 32)
	if done != 3*32 || !(loss > 0) {
		t.Errorf("interrupted after three batches of 32: loss %v of %d examples", loss, done)
	}
}

// slowly is an output that takes longer than the 100 ms that samples are apart at
// least, so that every epoch gets a sample of its own.
type slowly struct{ bytes.Buffer }

func (s *slowly) Write(p []byte) (int, error) {
	time.Sleep(110 * time.Millisecond)
	return s.Buffer.Write(p)
}

// The energies of the epochs are what the sensors counted between their ends. Here
// every sample finds 100 J more than the one before.
func TestEpochsShareTheEnergyOfTheRun(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	install(t, spans)
	clock := sensortest.NewClock()
	everyRead := func() time.Time { clock.Advance(time.Second); return clock.Now() }
	sensor := sensortest.NewSensor(everyRead, sensors.Timing{},
		sensortest.Script{Device: sensors.Device{ID: "package-0"}, Curve: sensortest.Constant(100)})
	tr, err := tracker.Start(t.Context(), tracker.WithSensors(sensors.NewSet(sensor)),
		tracker.WithInterval(tracker.MaxInterval), tracker.WithIntensity(360), tracker.WithPUE(1))
	if err != nil {
		t.Fatal(err)
	}
	var out slowly
	s := settings{epochs: 3, hidden: 4, context: 3, batch: 32, rate: 0.01, seed: 1}
	train(t.Context(), tr, s, excerpt(t, 1100, 3), &out)
	report, err := tr.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := float64(*report.Energy.Device); got != 400 {
		t.Fatalf("the run took %v J, want 100 J for each epoch and for the end", got)
	}

	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	lines = lines[len(lines)-3:]
	for i, want := range []string{"10.0 mg CO2e", "20.0 mg CO2e", "30.0 mg CO2e"} {
		// 100 J at 360 g/kWh are 10 mg, and 987 characters were trained on.
		for _, figure := range []string{" 100 J ", want, " 101 J ", " measured"} {
			if !strings.Contains(lines[i], figure) {
				t.Errorf("epoch %d does not say %q: %s", i+1, figure, lines[i])
			}
		}
	}

	var epochs int
	for _, span := range spans.GetSpans() {
		if span.Name != "epoch" {
			continue
		}
		epochs++
		if span.Parent.SpanID() != tr.Span().SpanContext().SpanID() || span.SpanContext.TraceID() != tr.Span().SpanContext().TraceID() {
			t.Errorf("epoch %d is not a child of the run", epochs)
		}
		attributes := map[string]any{}
		for _, a := range span.Attributes {
			attributes[string(a.Key)] = a.Value.AsInterface()
		}
		if attributes["training.epoch"] != int64(epochs) || attributes["wattspan.energy.device_j"] != 100.0 ||
			attributes["wattspan.energy.method"] != "counter" || attributes["training.characters"] != int64(987) {
			t.Errorf("epoch %d: %v", epochs, attributes)
		}
	}
	if epochs != 3 {
		t.Errorf("%d epoch spans, want 3", epochs)
	}
}

// install makes an exporter that of the global provider, for the time of a test.
func install(t *testing.T, e sdktrace.SpanExporter) {
	t.Helper()
	restore(t)
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(e)))
}

// restore leaves providers behind that do nothing.
func restore(t *testing.T) {
	t.Cleanup(func() {
		otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())))
		otel.SetMeterProvider(metric.NewMeterProvider())
	})
}

// What is not known is said to be unknown, never 0.
func TestUnknownEnergyIsNotZero(t *testing.T) {
	joules := func(j sensors.Joules) *sensors.Joules { return &j }
	at := func(seconds float64, device *sensors.Joules) tracker.Report {
		return tracker.Report{Run: tracker.Run{Duration: seconds}, Energy: tracker.Energy{Device: device}}
	}
	for name, c := range map[string]struct {
		before, after tracker.Report
		want          *energy
	}{
		"the first epoch": {at(0, nil), at(2, joules(50)), &energy{50, 2}},
		"a later one":     {at(2, joules(50)), at(6, joules(90)), &energy{40, 4}},
		"no sensor":       {at(2, nil), at(4, nil), nil},
		"no new sample":   {at(2, joules(50)), at(2, joules(50)), nil},
		"not started":     {tracker.Report{}, tracker.Report{}, nil},
	} {
		got := between(c.before, c.after)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var out strings.Builder
	writeLine(&out, line{epoch: 1, loss: math.NaN(), bits: math.NaN()})
	if got := strings.Count(out.String(), "–"); got != 6 || !strings.Contains(out.String(), "unknown") {
		t.Errorf("an epoch of which nothing is known: %s", out.String())
	}
}

// A figure of a model is never shown as a measurement.
func TestProvenance(t *testing.T) {
	one := sensors.Joules(1)
	counter := tracker.Device{Component: sensors.GPU, Method: sensors.MethodCounter, Source: "nvml", Energy: &one, Status: tracker.StatusOK}
	model := tracker.Device{Component: sensors.CPU, Method: sensors.MethodModel, Note: "model: TDP", Energy: &one, Status: tracker.StatusOK}
	unseen := tracker.Device{Component: sensors.Memory, Method: sensors.MethodModel, Status: tracker.StatusUnseen}
	for _, c := range []struct {
		devices []tracker.Device
		want    string
	}{
		{[]tracker.Device{counter}, "measured"},
		{[]tracker.Device{counter, unseen}, "measured"},
		{[]tracker.Device{model}, "estimated"},
		{[]tracker.Device{counter, model}, "partly estimated"},
		{[]tracker.Device{unseen}, "unknown"},
	} {
		if got := provenance(tracker.Report{Devices: c.devices}); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	var out strings.Builder
	writeReport(&out, tracker.Report{
		Run:     tracker.Run{Within: "outer"},
		Devices: []tracker.Device{counter, model, unseen}, Partial: true,
		Missing: []tracker.Missing{{Component: sensors.Memory, Status: sensors.Unreadable, Reason: "no dram zone", Remedy: "chmod"}},
		LeftOut: []tracker.LeftOut{{Source: "rapl", Missing: tracker.Missing{Status: sensors.Unreadable, Reason: "root only"}},
			{Source: "rapl", Missing: tracker.Missing{Status: sensors.Superseded, Reason: "twin"}}},
	})
	for _, want := range []string{"measured: counter of nvml", "estimated: model: TDP",
		"no memory", "unreadable: no dram zone; to change that: chmod", "rapl: unreadable: root only", "partial", "Run outer measures this machine too"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "twin") {
		t.Errorf("what a better source reads is not worth a line:\n%s", out.String())
	}
}

// small are flags for a run that takes a moment.
var small = []string{"--epochs", "2", "--characters", "1500", "--hidden", "4", "--context", "3", "--sample", "50", "--country", "FR"}

func TestProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	var out, problems strings.Builder
	if code := run(t.Context(), append(small, "--json", path), &out, &problems); code != exitOK || problems.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, problems.String())
	}
	for _, want := range []string{"bits/char", "\n    1 ", "\n    2 ", "the network writes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	var report tracker.Report
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatalf("the report: %v\n%s", err, data)
	}
	if report.Schema != tracker.Schema || report.Run.Name != "training" || report.Location.Country != "FR" || !(report.Run.Duration > 0) {
		t.Errorf("report of %q in %q, %v s, schema %q", report.Run.Name, report.Location.Country, report.Run.Duration, report.Schema)
	}
}

// interrupter ends a context once it has been written a text.
type interrupter struct {
	strings.Builder
	after  string
	cancel func()
}

func (i *interrupter) Write(p []byte) (int, error) {
	n, err := i.Builder.Write(p)
	if strings.Contains(i.String(), i.after) {
		i.cancel()
	}
	return n, err
}

// After Ctrl-C there is a report, and the exit code says that not all was done.
func TestInterruptStillReports(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := filepath.Join(t.TempDir(), "report.json")
	out := &interrupter{after: "\n    1 ", cancel: cancel}
	var problems strings.Builder
	code := run(ctx, append(small, "--epochs", "1000", "--json", path), out, &problems)
	if code != exitInterrupted || problems.Len() > 0 {
		t.Errorf("exit code %d: %s", code, problems.String())
	}
	if text := out.String(); !strings.Contains(text, "interrupted") || strings.Contains(text, "\n    2 ") {
		t.Errorf("the output of an interrupted training:\n%s", text)
	}
	var report tracker.Report
	data, _ := os.ReadFile(path)
	if err := json.Unmarshal(data, &report); err != nil || !(report.Run.Duration > 0) {
		t.Errorf("the report: %v\n%s", err, data)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"--epochs", "0"}, {"--epochs", "many"}, {"--hidden", "-1"}, {"--hidden", "100000"}, {"--context", "0"},
		{"--batch", "0"}, {"--rate", "0"}, {"--rate", "NaN"}, {"--rate", "2"}, {"--seed", "-1"}, {"--sample", "-5"},
		{"--characters", "-1"}, {"--characters", "40"}, {"--country", "Atlantis"}, {"--colour"}, {"now"},
		{"--json", filepath.Join(t.TempDir(), "no", "such", "folder")},
	} {
		var out, problems strings.Builder
		if code := run(t.Context(), args, &out, &problems); code != exitUsage {
			t.Errorf("%q: exit code %d, want %d", args, code, exitUsage)
		}
		if out.Len() > 0 || !strings.HasPrefix(problems.String(), "training: ") || strings.Count(problems.String(), "\n") > 4 {
			t.Errorf("%q: output %q, error %q", args, out.String(), problems.String())
		}
	}
	var help strings.Builder
	if code := run(t.Context(), []string{"--help"}, io.Discard, &help); code != exitOK || !strings.Contains(help.String(), "-epochs") {
		t.Errorf("--help: exit code %d, %q", code, help.String())
	}
}

// collector receives OTLP over HTTP.
type collector struct {
	mu      sync.Mutex
	traces  []*tracepb.ExportTraceServiceRequest
	metrics []*metricspb.ExportMetricsServiceRequest
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	var traces tracepb.ExportTraceServiceRequest
	var metrics metricspb.ExportMetricsServiceRequest
	switch {
	case r.URL.Path == "/v1/traces" && proto.Unmarshal(body, &traces) == nil:
		c.traces = append(c.traces, &traces)
	case r.URL.Path == "/v1/metrics" && proto.Unmarshal(body, &metrics) == nil:
		c.metrics = append(c.metrics, &metrics)
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

// Where the environment names a collector, the run, its epochs and the metrics go
// there, below the span that the environment names.
func TestExport(t *testing.T) {
	const parent = "b7ad6b7169203331"
	t.Setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-"+parent+"-01")
	c := export(t)
	var run []byte
	var epochs, parents [][]byte
	for _, request := range c.traces {
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					switch span.Name {
					case "training":
						run = span.SpanId
						if got := hex.EncodeToString(span.ParentSpanId); got != parent {
							t.Errorf("the run's parent is %q, want %s", got, parent)
						}
					case "epoch":
						epochs, parents = append(epochs, span.SpanId), append(parents, span.ParentSpanId)
					}
				}
			}
		}
	}
	if len(run) == 0 || len(epochs) != 2 {
		t.Errorf("a run %x with %d epochs arrived, want 2", run, len(epochs))
	}
	for i := range epochs {
		if !bytes.Equal(parents[i], run) {
			t.Errorf("epoch %x is a child of %x, not of the run %x", epochs[i], parents[i], run)
		}
	}
	var names []string
	for _, request := range c.metrics {
		for _, resource := range request.ResourceMetrics {
			for _, scope := range resource.ScopeMetrics {
				for _, m := range scope.Metrics {
					names = append(names, m.Name)
				}
			}
		}
	}
	if !slices.Contains(names, "wattspan.sampler.ticks") {
		t.Errorf("metrics: %q", names)
	}
}

func TestNothingIsSentWhereTheSDKIsDisabled(t *testing.T) {
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if c := export(t); len(c.traces)+len(c.metrics) > 0 {
		t.Errorf("%d traces and %d metrics were sent", len(c.traces), len(c.metrics))
	}
}

// export runs the program with a collector, and returns that.
func export(t *testing.T) *collector {
	t.Helper()
	restore(t)
	c := new(collector)
	server := httptest.NewServer(c)
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	var problems strings.Builder
	if code := run(t.Context(), small, io.Discard, &problems); code != exitOK || problems.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, problems.String())
	}
	return c
}
