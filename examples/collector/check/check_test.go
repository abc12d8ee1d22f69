package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// recording is what is in testdata, by name, to be changed by a test.
type recording map[string]string

func record(t *testing.T) recording {
	t.Helper()
	r := recording{}
	for _, name := range []string{"traces.jsonl", "metrics.jsonl", "received.prom", "grpc.json", "exit7.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		// The recording is as good for later conventions.
		r[name] = strings.ReplaceAll(string(data), "https://opentelemetry.io/schemas/1.43.0", tracker.SchemaURL)
	}
	return r
}

// run runs the program on the recording.
func (r recording) run(t *testing.T, flags ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range r {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"-dir", dir, "-page", filepath.Join(dir, "received.prom")}, flags...)
	args = append(args, filepath.Join(dir, "grpc.json"), filepath.Join(dir, "exit7.json"))
	var out, err bytes.Buffer
	code = execute(args, &out, &err)
	return code, out.String(), err.String()
}

func TestRecording(t *testing.T) {
	code, stdout, stderr := record(t).run(t, "-secret", "s3cr3t")
	want := `ok   grpc: span "sleep" of 1.002 s with 24 attributes, exit code 0, 12.120 J at the facility
ok   grpc: 10 metrics, 14 series, wattspan.energy adds up to the facility's
ok   grpc: prometheus: 27 samples
ok   exit7: span "sh" of 0.504 s with 25 attributes, exit code 7, 6.054 J at the facility
ok   exit7: 10 metrics, 14 series, wattspan.energy adds up to the facility's
ok   exit7: prometheus: 27 samples
`
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit code %d\n%s%s\nwant 0 and\n%s", code, stdout, stderr, want)
	}
}

// TestDifferences changes the recording in one place at a time, and wants to be
// told, with what was expected and what is there.
func TestDifferences(t *testing.T) {
	const all = -1
	for _, c := range []struct {
		name, file string
		old, new   string // a regular expression, and what replaces it
		times      int    // how often; all of them with -1
		want       string // a regular expression that a line matches
	}{
		{"the span has another name", "traces.jsonl", `"name":"sleep"`, `"name":"nap"`, 1, `grpc: span: name: want "sleep", got "nap"`},
		{"the span has another kind", "traces.jsonl", `"kind":1`, `"kind":3`, 1, `grpc: span: kind: want 1, got 3`},
		{"the span has a parent", "traces.jsonl", `"flags":`, `"parentSpanId":"00000000000000ab","flags":`, 1, `span: parent: want "", got "00000000000000ab"`},
		{"the IDs are base64", "traces.jsonl", `"spanId":"[^"]*"`, `"spanId":"q83vEjRWeJA="`, 1, `IDs of a trace and a span, got .* and "q83vEjRWeJA="`},
		{"the span begins later", "traces.jsonl", `"startTimeUnixNano":"(\d+)\d"`, `"startTimeUnixNano":"${1}9"`, 1, `grpc: span: start: want 20\S* \S*\.320726995 .*, got 20\S* \S*\.320726999 `},
		{"the span ends in another year", "traces.jsonl", `"endTimeUnixNano":"1`, `"endTimeUnixNano":"2`, 1, `grpc: span: end: want 20.*, got 2`},
		{"an event", "traces.jsonl", `"status":{}`, `"events":[{"name":"x"}],"status":{}`, 1, `grpc: span: events and links: want 0, got 1`},
		{"attributes were dropped", "traces.jsonl", `"status":{}`, `"droppedAttributesCount":2,"status":{}`, 1, `dropped attributes, events and links: want 0, got 2`},
		{"an energy differs in the last digit", "traces.jsonl", `("wattspan.energy.facility_j","value":{"doubleValue":[\d.]+)1`, `${1}5`, 1, `grpc: span: wattspan.energy.facility_j: want 12\.120090840000001, got 12\.120090840000005`},
		{"a number is a string", "traces.jsonl", `"wattspan.pue","value":{"doubleValue":1.56}`, `"wattspan.pue","value":{"stringValue":"1.56"}`, 1, `wattspan.pue: want 1.56, got "1.56"`},
		{"an attribute is missing", "traces.jsonl", `{"key":"wattspan.energy.coverage","value":{"doubleValue":1}},`, ``, 1, `wattspan.energy.coverage: want 1, got nothing`},
		{"an attribute too many", "traces.jsonl", `{"key":"wattspan.scope"`, `{"key":"process.command_args","value":{"arrayValue":{}}},{"key":"wattspan.scope"`, 1, `grpc: span: unexpected attribute process.command_args="{}"`},
		{"another exit code", "traces.jsonl", `"process.exit.code","value":{"intValue":"7"}`, `"process.exit.code","value":{"intValue":"0"}`, 1, `exit7: span: process.exit.code: want 7, got 0`},
		{"no process ID", "traces.jsonl", `{"key":"process.pid","value":{"intValue":"\d+"}},`, ``, 1, `grpc: span: want a process.pid, got nothing`},
		{"a failure without its status", "traces.jsonl", `"status":{[^}]+}`, `"status":{}`, 1, `exit7: span: status: want 2, got 0`},
		{"a failure without a message", "traces.jsonl", `"status":{"message":"[^"]*",`, `"status":{`, 1, `exit7: span: status: want a message with the exit code 7, got ""`},
		{"a failure without its error.type", "traces.jsonl", `{"key":"error.type","value":{"stringValue":"[^"]*"}},`, ``, 1, `exit7: span: want an error.type, got nothing`},
		{"a success with the status of a failure", "traces.jsonl", `"status":{}`, `"status":{"code":2}`, 1, `grpc: span: status: want 0, got 2`},
		{"a success with an error.type", "traces.jsonl", `{"key":"wattspan.scope"`, `{"key":"error.type","value":{"stringValue":"x"}},{"key":"wattspan.scope"`, 1, `grpc: span: unexpected attribute error.type="x"`},
		{"a span is missing", "traces.jsonl", `\A.*\n`, ``, 1, `grpc: span: want 1, got 0`},
		{"a span came twice", "traces.jsonl", `\A(.*\n)`, `$1$1`, 1, `grpc: span: want 1, got 2 \[sleep sleep\]`},
		{"another service", "traces.jsonl", `{"key":"service.name","value":{"stringValue":"wattspan"}}`, `{"key":"service.name","value":{"stringValue":"x"}}`, 1, `grpc: resource of the spans: service.name: want "wattspan", got "x"`},
		{"no host name", "metrics.jsonl", `{"key":"host.name","value":{"stringValue":"node-a"}},`, ``, all, `exit7: resource of the metrics: want a host.name, got nothing`},
		{"no instance", "traces.jsonl", `{"key":"service.instance.id","value":{"stringValue":"[^"]*"}},`, ``, 1, `grpc: resource of the spans: want a service.instance.id, got nothing`},
		{"a resource with more", "traces.jsonl", `{"key":"host.name"`, `{"key":"process.owner","value":{"stringValue":"me"}},{"key":"host.name"`, 1, `grpc: resource of the spans: unexpected attribute process.owner="me"`},
		{"somebody else's run", "traces.jsonl", `"wattspan.run.id","value":{"stringValue":"example-grpc"}`, `"wattspan.run.id","value":{"stringValue":"other"}`, all, `spans of the unknown run "other": nothing else should be here`},
		{"the resource without a schema", "traces.jsonl", `"schemaUrl":"[^"]*"}\]}\n`, `"schemaUrl":""}]}` + "\n", 1, `grpc: resource of the spans: schema URL: want "https://[^"]*", got ""`},
		{"the scope without a schema", "metrics.jsonl", `\],"schemaUrl":"[^"]*"}\],`, `]}],`, 1, `grpc: metrics: schema URL of the scope: want "https://[^"]*", got ""`},
		{"another scope", "metrics.jsonl", `"scope":{"name":"[^"]*"`, `"scope":{"name":"x"`, 1, `grpc: metrics: scope: want "github.com/wattspan/wattspan/tracker", got "x"`},
		{"another version", "traces.jsonl", `"version":"0.1.0"`, `"version":"0.0.1"`, 1, `grpc: spans: version of the scope: want "0.1.0", got "0.0.1"`},

		{"a metric is missing", "metrics.jsonl", `"name":"wattspan.emissions"`, `"name":"wattspan.water"`, all, `exit7: metric wattspan.emissions{wattspan.emissions.scope=operational}: want it, got nothing`},
		{"a metric too many", "metrics.jsonl", `"name":"wattspan.emissions"`, `"name":"wattspan.water"`, all, `exit7: unexpected metric wattspan.water`},
		{"another unit", "metrics.jsonl", `"unit":"g",`, `"unit":"g{CO2e}",`, all, `grpc: metric wattspan.emissions.*: unit: want "g", got "g{CO2e}"`},
		{"delta temporality", "metrics.jsonl", `"aggregationTemporality":2,"isMonotonic":true`, `"aggregationTemporality":1,"isMonotonic":true`, all, `hw.energy.*: kind: want "cumulative monotonic sum", got "sum of temporality 1, monotonic true"`},
		{"a sum that may fall", "metrics.jsonl", `"aggregationTemporality":2,"isMonotonic":true`, `"aggregationTemporality":2`, all, `hw.energy.*: kind: want "cumulative monotonic sum", got "sum of temporality 2, monotonic false"`},
		{"a histogram of deltas", "metrics.jsonl", `"aggregationTemporality":2}`, `"aggregationTemporality":1}`, all, `tick.duration{}: kind: want "cumulative histogram", got "histogram of temporality 1"`},
		{"a counter that falls", "metrics.jsonl", `"asDouble":0`, `"asDouble":9999`, 1, `grpc: metric \S+.* is no counter: 9999`},
		{"a counter that began twice", "metrics.jsonl", `"startTimeUnixNano":"(\d{9})`, `"startTimeUnixNano":"100000000`, 1, `grpc: metric \S+.* is no counter: .* since 100000000`},
		{"an energy at the end", "metrics.jsonl", `("key":"wattspan.component","value":{"stringValue":"cpu"}}.*?"asDouble":)`, `${1}77`, all, `exit7: metric wattspan.energy{wattspan.component=cpu, wattspan.method=model}: want 0\.33\d+, got 770\.33`},
		{"and the sum", "metrics.jsonl", `("key":"wattspan.component","value":{"stringValue":"cpu"}}.*?"asDouble":)`, `${1}77`, all, `exit7: sum of wattspan.energy: want the facility's 6\.\d+, got 77`},
		{"a device of another type", "metrics.jsonl", `"hw.type","value":{"stringValue":"memory"}`, `"hw.type","value":{"stringValue":"ram"}`, all, `exit7: metric hw.energy{hw.id=memory, hw.type=memory}: want it, got nothing; there is .*hw.type=ram`},
		{"a device too many", "metrics.jsonl", `"hw.type","value":{"stringValue":"memory"}`, `"hw.type","value":{"stringValue":"ram"}`, all, `exit7: unexpected series hw.power{hw.id=memory, hw.type=ram}`},
		{"a negative power", "metrics.jsonl", `"asDouble":7.05`, `"asDouble":-7.05`, all, `exit7: metric hw.power.*: want a number that is not negative, got -7.05`},
		{"no ticks", "metrics.jsonl", `"count":"\d+"`, `"count":"0"`, all, `exit7: metric wattspan.sampler.tick.duration{}: want up to 2 times, each above 0, got 0`},
		{"a point without a value", "metrics.jsonl", `,"asDouble":1.56`, ``, all, `exit7: metric wattspan.pue.*: want a number, got none`},
		{"points before the run", "metrics.jsonl", `"timeUnixNano":"1`, `"timeUnixNano":"0`, all, `exit7: metric wattspan.pue.*: want a time after the start`},
		{"no metrics of a run", "metrics.jsonl", `[^\n]*\n\z`, ``, 1, `exit7: metric hw.energy{hw.id=cpu, .*}: want it, got nothing`},

		{"a report of other numbers", "grpc.json", `("facility": )1`, `${1}3`, 1, `grpc: span: wattspan.energy.facility_j: want 32\.\d+, got 12\.`},
		{"two reports of one run", "exit7.json", `"example-exit7"`, `"example-grpc"`, 1, `exit7: has the run ID example-grpc of grpc`},
		{"another zone", "exit7.json", `"zone": "FR"`, `"zone": "DE"`, 1, `exit7: span: wattspan.grid.zone: want "DE", got "FR"`},

		{"Prometheus has another name", "received.prom", `wattspan_energy_joules_total`, `wattspan_energy_total`, all, `grpc: prometheus: series of wattspan_energy_joules_total: want 3, got 0`},
		{"and it is unexpected", "received.prom", `wattspan_energy_joules_total`, `wattspan_energy_total`, all, `grpc: prometheus: unexpected name wattspan_energy_total`},
		{"Prometheus has another type", "received.prom", `wattspan_energy_joules_total counter`, `wattspan_energy_joules_total gauge`, 1, `prometheus: type of wattspan_energy_joules_total: want "counter", got "gauge"`},
		{"Prometheus has another number", "received.prom", `(?m)^(hw_energy_joules_total{.*} )`, `${1}5`, all, `grpc: prometheus: sum of hw_energy_joules_total: want 7\.\d+, got`},
		{"Prometheus cannot join", "received.prom", `target_info{`, `other_info{`, all, `grpc: prometheus: want 1 target_info with instance "[0-9a-f-]{36}", got 0`},
		{"Prometheus joins another run", "received.prom", `wattspan_run_id="example-grpc"`, `wattspan_run_id="x"`, 1, `target_info: wattspan_run_id: want "example-grpc", got "x"`},
		{"Prometheus has nothing", "received.prom", `(?s).+`, ``, 1, `exit7: prometheus: want samples with instance "[0-9a-f-]{36}", got none`},
		{"Prometheus has no instance", "received.prom", `instance="[^"]*"`, `instance=""`, all, `exit7: prometheus: want samples with instance`},

		{"a secret in the spans", "traces.jsonl", `"name":"sh"`, `"name":"sh --token s3cr3t"`, 1, `traces\.jsonl: holds the secret "s3cr3t"`},
		{"a secret in the metrics", "metrics.jsonl", `"name":"wattspan.pue"`, `"name":"s3cr3t"`, 1, `metrics\.jsonl: holds the secret`},
		{"a secret in a report", "grpc.json", `"name": "sleep"`, `"name": "s3cr3t"`, 1, `grpc\.json: holds the secret`},
		{"a secret on the page", "received.prom", `example-grpc`, `s3cr3t`, 1, `received\.prom: holds the secret`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := record(t)
			old := regexp.MustCompile(c.old)
			left := c.times
			r[c.file] = old.ReplaceAllStringFunc(r[c.file], func(found string) string {
				if left == 0 {
					return found
				}
				left--
				return old.ReplaceAllString(found, c.new)
			})
			if r[c.file] == record(t)[c.file] {
				t.Fatal("nothing was changed")
			}
			code, stdout, stderr := r.run(t, "-secret", "s3cr3t")
			if code != 1 || stderr != "" {
				t.Errorf("exit code %d, want 1; %s", code, stderr)
			}
			if !regexp.MustCompile(`(?m)^FAIL .*` + c.want).MatchString(stdout) {
				t.Errorf("want a line that matches\n%s\ngot\n%s", c.want, stdout)
			}
		})
	}
}

// TestNoPraise shows that what differs is not said to be right too.
func TestNoPraise(t *testing.T) {
	r := record(t)
	r["traces.jsonl"] = strings.Replace(r["traces.jsonl"], `"name":"sleep"`, `"name":"nap"`, 1)
	_, stdout, _ := r.run(t)
	if strings.Contains(stdout, "ok   grpc: span") || !strings.Contains(stdout, "ok   exit7: span") || !strings.Contains(stdout, "\n1 differences\n") {
		t.Errorf("want one difference, and all but the span of grpc to be right; got\n%s", stdout)
	}
}

// TestOneInstance shows that two runs of one instance are found out: to
// Prometheus they are one, and only the later one's energy is kept.
func TestOneInstance(t *testing.T) {
	r := record(t)
	instances := regexp.MustCompile(`"service.instance.id","value":{"stringValue":"[^"]*"`)
	for _, file := range []string{"traces.jsonl", "metrics.jsonl"} {
		r[file] = instances.ReplaceAllString(r[file], `"service.instance.id","value":{"stringValue":"one"`)
	}
	code, stdout, _ := r.run(t)
	if want := `FAIL exit7: service.instance.id: want one of its own, got that of grpc, "one"`; code != 1 || !strings.Contains(stdout, want) {
		t.Errorf("exit code %d, want 1 and %q\n%s", code, want, stdout)
	}
}

func TestUnreadable(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(recording)
		want string
	}{
		{"no traces", func(r recording) { delete(r, "traces.jsonl") }, `traces.jsonl: no such file|cannot find`},
		{"no report", func(r recording) { delete(r, "exit7.json") }, `exit7.json: no such file|cannot find`},
		{"no page", func(r recording) { delete(r, "received.prom") }, `received.prom: no such file|cannot find`},
		{"a report with half of its energy", func(r recording) {
			r["grpc.json"] = strings.Replace(r["grpc.json"], `"facility": 1`, `"other": 1`, 1)
		}, `grpc.json: .*emissions without the energy`},
		{"half a line", func(r recording) { r["metrics.jsonl"] += `{"resourceMetrics":` }, `metrics.jsonl: line 5: unexpected end`},
		{"an attribute twice", func(r recording) {
			r["traces.jsonl"] = strings.Replace(r["traces.jsonl"], `"wattspan.scope"`, `"wattspan.pue"`, 1)
		}, `traces.jsonl: line 1: two attributes "wattspan.pue"`},
		{"an attribute of two values", func(r recording) {
			r["traces.jsonl"] = strings.Replace(r["traces.jsonl"], `{"intValue":"7"}`, `{"intValue":"7","boolValue":true}`, 1)
		}, `traces.jsonl: line 2: attribute "process.exit.code" has 2 values`},
		{"no integer", func(r recording) {
			r["traces.jsonl"] = strings.Replace(r["traces.jsonl"], `{"intValue":"7"}`, `{"intValue":"seven"}`, 1)
		}, `attribute "process.exit.code": .*"seven"`},
		{"a page that is none", func(r recording) { r["received.prom"] = "a 1\n<html>\n" }, `received.prom: line 2: "<html>" is no sample`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := record(t)
			c.edit(r)
			code, stdout, stderr := r.run(t)
			if code != 2 || stdout != "" || !regexp.MustCompile(c.want).MatchString(stderr) {
				t.Errorf("exit code %d, want 2 and a line that matches %s; got %s%s", code, c.want, stdout, stderr)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"-nonsense"}} {
		var stdout, stderr bytes.Buffer
		if code := execute(args, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), "usage: check") {
			t.Errorf("%q: exit code %d, want 2 and the usage; got %s", args, code, &stderr)
		}
	}
}

// sent is what a run would send that reports these numbers.
func sent(r report) *run {
	out := &run{report: r, series: map[string]map[string]observed{}}
	for _, e := range expectations(r) {
		series := map[string]observed{}
		for _, s := range e.series {
			v, _ := s.value.(float64)
			p := point{Attributes: s.attributes, Start: 1, Time: 2, Double: &v, Count: 1, Sum: 1}
			m := metric{Name: e.name, Unit: e.unit}
			switch d := (&data{Temporality: temporalityCumulative, Monotonic: true}); e.kind {
			case counter:
				m.Sum = d
			case gauge:
				m.Gauge = d
			case histogram:
				m.Histogram = d
			}
			series[s.attributes.String()] = observed{m, s.attributes, p}
		}
		if len(series) > 0 {
			out.series[e.name] = series
		}
	}
	return out
}

// TestDevices shows what is expected of hardware that the recording lacks.
func TestDevices(t *testing.T) {
	joules := func(v sensors.Joules) *sensors.Joules { return &v }
	gpu := func(id string, energy *sensors.Joules) tracker.Device {
		return tracker.Device{ID: id, Name: "H100", Vendor: "nvidia", Component: sensors.GPU, Method: "counter", Energy: energy, Attributed: energy}
	}
	r := report{file: "gpus"}
	r.Sampling.Samples = 2
	r.Devices = []tracker.Device{gpu("GPU-1", joules(10)), gpu("GPU-2", joules(20)), gpu("GPU-3", nil)}
	r.Energy = tracker.Energy{GPU: joules(30), Device: joules(30), Facility: joules(45)}
	r.Bounds.Facility = &tracker.Interval{Low: 40, High: 50}
	r.Emissions = &tracker.Emissions{Operational: 1}
	series := func(x *run, metric string) []string { return slices.Sorted(maps.Keys(x.series[metric])) }

	x := sent(r)
	c := &comparison{}
	c.compareMetrics(x)
	if len(c.differences) > 0 {
		t.Errorf("differences where there are none: %q", c.differences)
	}
	// One series a device, and none of a device that could not be read.
	devices := []string{"{hw.id=GPU-1, hw.name=H100, hw.type=gpu, hw.vendor=nvidia}", "{hw.id=GPU-2, hw.name=H100, hw.type=gpu, hw.vendor=nvidia}"}
	for _, metric := range []string{"hw.energy", "hw.power", "hw.gpu.utilization"} {
		if got := series(x, metric); !slices.Equal(got, devices) {
			t.Errorf("%s: %q, want %q", metric, got, devices)
		}
	}
	// One series a component, with the devices' sum.
	want := []string{"{wattspan.component=gpu, wattspan.method=counter}", "{wattspan.component=overhead, wattspan.method=}"}
	if got := series(x, "wattspan.energy"); !slices.Equal(got, want) {
		t.Errorf("wattspan.energy: %q, want %q", got, want)
	}
	if got, _ := x.series["wattspan.energy"][want[0]].point.value(); got != 30 {
		t.Errorf("the energy of the gpus is %v, want 30", got)
	}
	if got := spanAttributes(r)["wattspan.energy.method"]; got != "counter" {
		t.Errorf("the method is %v, want counter", got)
	}

	// A slice of a GPU names its GPU, which the report does not. Nothing else.
	o := x.series["hw.energy"][devices[0]]
	for key, wrong := range map[string]bool{"hw.parent": false, "hw.model": true} {
		o.attributes = maps.Clone(o.point.Attributes)
		o.attributes[key] = "GPU-0"
		x.series["hw.energy"][devices[0]] = o
		c = &comparison{}
		c.compareMetrics(x)
		if (len(c.differences) > 0) != wrong {
			t.Errorf("with %s: differences %q, want them: %t", key, c.differences, wrong)
		}
	}

	// A machine of which nothing can be read has no energy: not 0.
	none := report{file: "none"}
	none.Devices = []tracker.Device{gpu("GPU-3", nil)}
	for _, metric := range []string{"hw.energy", "wattspan.energy", "wattspan.emissions"} {
		if got := sent(none).series[metric]; got != nil {
			t.Errorf("%s of a machine that cannot be read: %v", metric, got)
		}
	}
	for key := range spanAttributes(none) {
		if strings.HasSuffix(key, "_j") || strings.HasSuffix(key, "_g") {
			t.Errorf("%s of a machine that cannot be read", key)
		}
	}
}

func TestParseSample(t *testing.T) {
	for _, c := range []struct {
		line string
		want promSample
		ok   bool
	}{
		{`up 1`, promSample{"up", map[string]string{}, 1}, true},
		{`up{} 1.5e-05`, promSample{"up", map[string]string{}, 1.5e-05}, true},
		{`up{a="1",b="x y, \"z\" \\ \n}"} 2`, promSample{"up", map[string]string{"a": "1", "b": "x y, \"z\" \\ \n}"}, 2}, true},
		{`up{a="1",} 2`, promSample{"up", map[string]string{"a": "1"}, 2}, true},
		{`up`, promSample{}, false},
		{`up one`, promSample{}, false},
		{`up{a} 1`, promSample{}, false},
		{`up{a=1} 1`, promSample{}, false},
		{"up{a=`1`} 1", promSample{}, false},
		{`up{a="1"`, promSample{}, false},
		{` {a="1"} 1`, promSample{}, false},
	} {
		got, err := parseSample(c.line)
		if (err == nil) != c.ok || c.ok && fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, %v; want %v, %t", c.line, got, err, c.want, c.ok)
		}
	}
}

// FuzzPage shows that what is read can be written and read again.
func FuzzPage(f *testing.F) {
	f.Add("# TYPE up gauge\nup{a=\"1\",b=\"\\\"\"} 1.5\n")
	f.Add("up 1")
	f.Add("up{")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := readPage(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range p.samples {
			line := s.name + "{"
			for name, value := range s.labels {
				line += fmt.Sprintf("%s=%q,", name, value)
			}
			again, err := parseSample(fmt.Sprintf("%s} %v", line, s.value))
			if err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
				t.Errorf("%q: %v, then %v, %v", text, s, again, err)
			}
		}
	})
}

// FuzzLines shows that whatever a file holds is read or refused, and compared.
func FuzzLines(f *testing.F) {
	for _, file := range []string{"traces.jsonl", "metrics.jsonl"} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		first, _, _ := bytes.Cut(data, []byte("\n"))
		f.Add(first)
	}
	data, err := os.ReadFile(filepath.Join("testdata", "grpc.json"))
	if err != nil {
		f.Fatal(err)
	}
	r := report{file: "grpc"}
	if err := json.Unmarshal(data, &r.Report); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := input{reports: []report{r}, page: &page{}}
		var err error
		if in.traces, err = readLines[traces](bytes.NewReader(data)); err != nil {
			return
		}
		if in.metrics, err = readLines[metrics](bytes.NewReader(data)); err != nil {
			return
		}
		if c := check(in, ""); len(c.differences) == 0 {
			t.Error("no difference to an empty page")
		}
	})
}
