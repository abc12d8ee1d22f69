package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// schemaURL is that of the conventions that names and resources follow.
const schemaURL = tracker.SchemaURL

// comparison collects what differs, and what was seen to be right.
type comparison struct {
	differences []string
	facts       []string
}

func (c *comparison) fail(format string, args ...any) {
	c.differences = append(c.differences, fmt.Sprintf(format, args...))
}

// note adds what was seen to be right, unless there is a difference since before.
func (c *comparison) note(before int, format string, args ...any) {
	if len(c.differences) == before {
		c.facts = append(c.facts, fmt.Sprintf(format, args...))
	}
}

// expect compares one thing.
func (c *comparison) expect(what string, want, got any) {
	if want != got {
		c.fail("%s: want %v, got %v", what, show(want), show(got))
	}
}

// show shows a value that is not there as such, and a string with quotes: an
// empty one would read like none.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return strconv.Quote(v)
	}
	return fmt.Sprint(v)
}

// run is what the collector has of one run.
type run struct {
	report
	spans  []span
	series map[string]map[string]observed // by metric, and by attributes
	// instance is service.instance.id, Prometheus' instance.
	instance string
}

// observed is the last point of a series.
type observed struct {
	metric     metric
	attributes attributes
	point      point
}

// check compares everything.
func check(in input, secret string) *comparison {
	c := &comparison{}
	runs := map[string]*run{}
	for _, r := range in.reports {
		if other := runs[r.Run.ID]; other != nil {
			c.fail("%s: has the run ID %s of %s", r.file, r.Run.ID, other.file)
		}
		runs[r.Run.ID] = &run{report: r, series: map[string]map[string]observed{}}
	}
	c.collectSpans(runs, in.traces)
	c.collectMetrics(runs, in.metrics)
	c.compareInstances(in.reports, runs)
	for _, r := range in.reports {
		run := runs[r.Run.ID]
		c.compareSpan(run)
		c.compareMetrics(run)
		if in.page != nil {
			c.comparePage(run, *in.page)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(in.files)) {
		if secret != "" && bytes.Contains(in.files[file], []byte(secret)) {
			c.fail("%s: holds the secret %q", file, secret)
		}
	}
	return c
}

// collectSpans gives each run its spans.
func (c *comparison) collectSpans(runs map[string]*run, all []traces) {
	for _, request := range all {
		for _, rs := range request.ResourceSpans {
			r := c.owner(runs, "spans", rs.Resource, rs.SchemaURL)
			if r == nil {
				continue
			}
			for _, ss := range rs.ScopeSpans {
				c.compareScope(r.file+": spans", ss.Scope, ss.SchemaURL, r.Version)
				r.spans = append(r.spans, ss.Spans...)
			}
		}
	}
}

// collectMetrics gives each run the last point of its series, as Prometheus
// would keep it.
func (c *comparison) collectMetrics(runs map[string]*run, all []metrics) {
	for _, request := range all {
		for _, rm := range request.ResourceMetrics {
			r := c.owner(runs, "metrics", rm.Resource, rm.SchemaURL)
			if r == nil {
				continue
			}
			for _, sm := range rm.ScopeMetrics {
				c.compareScope(r.file+": metrics", sm.Scope, sm.SchemaURL, r.Version)
				for _, m := range sm.Metrics {
					c.collectPoints(r, m)
				}
			}
		}
	}
}

func (c *comparison) collectPoints(r *run, m metric) {
	kind, data := m.kind()
	if data == nil {
		c.fail("%s: metric %s is %s", r.file, m.Name, kind)
		return
	}
	if r.series[m.Name] == nil {
		r.series[m.Name] = map[string]observed{}
	}
	for _, p := range data.Points {
		key := p.Attributes.String()
		before, again := r.series[m.Name][key]
		if again && m.Sum != nil {
			// What makes a counter: one beginning, never less than before.
			old, _ := before.point.value()
			now, _ := p.value()
			if p.Start != before.point.Start || p.Time < before.point.Time || now < old {
				c.fail("%s: metric %s%s is no counter: %v at %d since %d, then %v at %d since %d", r.file, m.Name, key,
					old, before.point.Time, before.point.Start, now, p.Time, p.Start)
			}
		}
		r.series[m.Name][key] = observed{m, p.Attributes, p}
	}
}

// owner returns the run that a resource names, nil where it names none of ours.
func (c *comparison) owner(runs map[string]*run, what string, res resource, schema string) *run {
	id := res.Attributes.text("wattspan.run.id")
	r := runs[id]
	if r == nil {
		c.fail("%s of the unknown run %q: nothing else should be here", what, id)
		return nil
	}
	what = r.file + ": resource of the " + what
	c.expect(what+": schema URL", schemaURL, schema)
	c.expect(what+": service.name", any("wattspan"), res.Attributes["service.name"])
	c.expect(what+": telemetry.sdk.language", any("go"), res.Attributes["telemetry.sdk.language"])
	c.expect(what+": dropped attributes", 0, res.Dropped)
	for _, key := range []string{"host.name", "os.type", "service.instance.id"} {
		if res.Attributes.text(key) == "" {
			c.fail("%s: want a %s, got %s", what, key, show(res.Attributes[key]))
		}
	}
	for key := range res.Attributes {
		family, _, _ := strings.Cut(key, ".")
		if key != "wattspan.run.id" && !slices.Contains([]string{"service", "host", "os", "telemetry"}, family) {
			c.fail("%s: unexpected attribute %s=%v", what, key, show(res.Attributes[key]))
		}
	}
	instance := res.Attributes.text("service.instance.id")
	if r.instance != "" {
		c.expect(what+": service.instance.id, as before", r.instance, instance)
	}
	r.instance = instance
	return r
}

func (c *comparison) compareScope(what string, s scope, schema, version string) {
	c.expect(what+": scope", tracker.ScopeName, s.Name)
	c.expect(what+": version of the scope", version, s.Version)
	c.expect(what+": schema URL of the scope", schemaURL, schema)
}

// compareInstances shows that no two runs share an instance: to Prometheus they
// would be one, and the energy of all but the last would be lost.
func (c *comparison) compareInstances(reports []report, runs map[string]*run) {
	seen := map[string]string{}
	for _, r := range reports {
		instance := runs[r.Run.ID].instance
		if instance == "" {
			continue // said already
		}
		if other, twice := seen[instance]; twice {
			c.fail("%s: service.instance.id: want one of its own, got that of %s, %q", r.file, other, instance)
		}
		seen[instance] = r.file
	}
}

// compareSpan compares the run's span with its report.
func (c *comparison) compareSpan(r *run) {
	what, before := r.file+": span", len(c.differences)
	if len(r.spans) != 1 {
		var names []string
		for _, s := range r.spans {
			names = append(names, s.Name)
		}
		c.fail("%s: want 1, got %d %v", what, len(r.spans), names)
	}
	if len(r.spans) == 0 {
		return
	}
	s := r.spans[0]
	c.expect(what+": name", r.Run.Name, s.Name)
	c.expect(what+": kind", kindInternal, s.Kind)
	c.expect(what+": parent", "", s.ParentSpanID)
	c.expect(what+": start", r.Run.Start.UTC(), at(s.Start))
	c.expect(what+": end", r.Run.End.UTC(), at(s.End))
	c.expect(what+": events and links", 0, len(s.Events)+len(s.Links))
	c.expect(what+": dropped attributes, events and links", 0, s.DroppedAttributes+s.DroppedEvents+s.DroppedLinks)
	if !isID(s.TraceID, 32) || !isID(s.SpanID, 16) {
		c.fail("%s: want the IDs of a trace and a span, got %q and %q", what, s.TraceID, s.SpanID)
	}

	want := spanAttributes(r.report)
	got := maps.Clone(s.Attributes)
	if pid, ok := got["process.pid"].(int64); !ok || pid < 2 {
		c.fail("%s: want a process.pid, got %v", what, show(got["process.pid"]))
	}
	delete(got, "process.pid")
	exit := 0
	if r.Run.ExitCode != nil {
		exit = *r.Run.ExitCode
	}
	if exit == 0 {
		c.expect(what+": status", statusUnset, s.Status.Code)
	} else {
		c.expect(what+": status", statusError, s.Status.Code)
		if !strings.Contains(s.Status.Message, strconv.Itoa(exit)) {
			c.fail("%s: status: want a message with the exit code %d, got %q", what, exit, s.Status.Message)
		}
		if got.text("error.type") == "" {
			c.fail("%s: want an error.type, got %v", what, show(got["error.type"]))
		}
		delete(got, "error.type")
	}
	c.compareAttributes(what, want, got)
	c.note(before, "%s: span %q of %.3f s with %d attributes, exit code %d, %s",
		r.file, s.Name, time.Duration(s.End-s.Start).Seconds(), len(s.Attributes), exit, facility(r.report))
}

func (c *comparison) compareAttributes(what string, want, got attributes) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		c.expect(what+": "+key, want[key], got[key])
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, known := want[key]; !known {
			c.fail("%s: unexpected attribute %s=%v", what, key, show(got[key]))
		}
	}
}

// spanAttributes returns what a report says in the words of the span. Numbers
// are the very same: JSON carries a double without loss.
func spanAttributes(r report) attributes {
	a := attributes{
		"wattspan.run.id":                   r.Run.ID,
		"wattspan.scope":                    string(r.Scope),
		"wattspan.energy.partial":           r.Partial,
		"wattspan.grid.intensity_g_per_kwh": r.Factors.Intensity.Value,
		"wattspan.grid.zone":                r.Factors.Intensity.Zone,
		"wattspan.grid.source":              r.Factors.Intensity.Source,
		"wattspan.grid.kind":                string(r.Factors.Intensity.Kind),
		"wattspan.pue":                      r.Factors.PUE.Value,
		"wattspan.attribution":              "whole_machine",
		"process.executable.name":           r.Run.Name,
	}
	if r.Scope == tracker.Job {
		a["wattspan.attribution"] = r.Job.Method
	}
	if r.Run.ExitCode != nil {
		a["process.exit.code"] = int64(*r.Run.ExitCode)
	}
	joules := func(key string, v *sensors.Joules) {
		if v != nil { // what was not measured is not there, rather than 0
			a["wattspan.energy."+key] = float64(*v)
		}
	}
	joules("gpu_j", r.Energy.GPU)
	joules("cpu_j", r.Energy.CPU)
	joules("memory_j", r.Energy.Memory)
	joules("device_j", r.Energy.Device)
	joules("node_j", r.Energy.Node)
	joules("unseen_j", r.Energy.Unseen)
	joules("facility_j", r.Energy.Facility)
	if r.Node.Method != "" {
		a["wattspan.energy.method.node"] = r.Node.Method
	}
	var flags []string
	for _, f := range r.Quality {
		flags = append(flags, string(f.Kind))
	}
	if flags != nil {
		a["wattspan.energy.quality"] = join(flags)
	}
	if r.Emissions == nil {
		return a
	}
	a["wattspan.energy.overhead_j"] = float64(*r.Energy.Facility - r.plug())
	a["wattspan.energy.low_j"] = float64(r.Bounds.Facility.Low)
	a["wattspan.energy.high_j"] = float64(r.Bounds.Facility.High)
	a["wattspan.energy.coverage"] = r.Coverage()
	a["wattspan.emissions.operational_g"] = float64(r.Emissions.Operational)
	var all []string
	for component, methods := range methodsOf(r) {
		a["wattspan.energy.method."+component] = join(methods)
		all = append(all, methods...)
	}
	a["wattspan.energy.method"] = join(all)
	return a
}

// plug is what was drawn at the plug, as far as that is known.
func (r report) plug() sensors.Joules {
	if r.Energy.Node != nil {
		return *r.Energy.Node
	}
	return *r.Energy.Device
}

// methodsOf returns how the components were measured, as far as they were.
func methodsOf(r report) map[string][]string {
	methods := map[string][]string{}
	for _, d := range r.Devices {
		if d.Energy != nil {
			methods[string(d.Component)] = append(methods[string(d.Component)], string(d.Method))
		}
	}
	return methods
}

// join joins distinct words, sorted. It leaves its argument as it is.
func join(words []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(words))), ",")
}

// expectation is one metric.
type expectation struct {
	name, unit, kind string
	// prometheus is its name in Prometheus.
	prometheus string
	// series are the values by attributes. A nil value is any that is not
	// negative: the report has no such number.
	series []expectedSeries
	// sparse is set where a series may be missing.
	sparse bool
}

type expectedSeries struct {
	attributes attributes
	value      any
}

// Kinds of metrics.
const (
	counter   = "cumulative monotonic sum"
	gauge     = "gauge"
	histogram = "cumulative histogram"
)

// expectations returns all metrics of a run, with the values that its report has.
func expectations(r report) []expectation {
	one := func(v any, a attributes) []expectedSeries { return []expectedSeries{{a, v}} }
	none := attributes{}
	var energy, power, utilization, parts, emissions []expectedSeries
	sums := map[[2]string]float64{}
	for _, d := range r.Devices {
		if d.Energy == nil {
			continue
		}
		a := attributes{"hw.id": d.ID, "hw.type": string(d.Component)}
		if d.Name != "" {
			a["hw.name"] = d.Name
		}
		if d.Vendor != "" {
			a["hw.vendor"] = d.Vendor
		}
		energy = append(energy, expectedSeries{a, float64(*d.Energy)})
		power = append(power, expectedSeries{a, nil})
		if d.Component == sensors.GPU {
			utilization = append(utilization, expectedSeries{a, nil})
		}
		if d.Attributed != nil {
			sums[[2]string{string(d.Component), string(d.Method)}] += float64(*d.Attributed)
		}
	}
	for key, sum := range sums {
		parts = append(parts, expectedSeries{attributes{"wattspan.component": key[0], "wattspan.method": key[1]}, sum})
	}
	var host, hostPower []expectedSeries
	unseenMethod := string(sensors.MethodModel)
	if m := r.Node.Meter; m != nil {
		unseenMethod = string(m.Method)
		a := attributes{"hw.id": m.ID, "hw.type": string(m.Component)}
		for key, value := range map[string]string{"hw.name": m.Name, "hw.vendor": m.Vendor} {
			if value != "" {
				a[key] = value
			}
		}
		if m.Energy != nil {
			host, hostPower = one(float64(*m.Energy), a), one(nil, a)
		}
	}
	if r.Emissions != nil {
		if r.Energy.Unseen != nil {
			parts = append(parts, expectedSeries{
				attributes{"wattspan.component": "unseen", "wattspan.method": unseenMethod}, float64(*r.Energy.Unseen)})
		}
		parts = append(parts, expectedSeries{
			attributes{"wattspan.component": "overhead", "wattspan.method": string(r.Factors.PUE.Kind)},
			float64(*r.Energy.Facility - r.plug())})
		emissions = one(float64(r.Emissions.Operational), attributes{"wattspan.emissions.scope": "operational"})
	}
	grid, pue := r.Factors.Intensity, r.Factors.PUE
	return []expectation{
		{"hw.energy", "J", counter, "hw_energy_joules_total", energy, false},
		{"hw.power", "W", gauge, "hw_power_watts", power, true},
		{"hw.host.energy", "J", counter, "hw_host_energy_joules_total", host, false},
		{"hw.host.power", "W", gauge, "hw_host_power_watts", hostPower, true},
		{"hw.gpu.utilization", "1", gauge, "hw_gpu_utilization_ratio", utilization, true},
		{"wattspan.energy", "J", counter, "wattspan_energy_joules_total", parts, false},
		{"wattspan.emissions", "g", counter, "wattspan_emissions_grams_total", emissions, false},
		{"wattspan.grid.intensity", "g/kW.h", gauge, "wattspan_grid_intensity_grams_per_kW_h", one(grid.Value, attributes{
			"wattspan.grid.zone": grid.Zone, "wattspan.grid.source": grid.Source, "wattspan.grid.kind": string(grid.Kind)}), false},
		{"wattspan.pue", "1", gauge, "wattspan_pue_ratio", one(pue.Value, attributes{"wattspan.pue.source": pue.Source}), false},
		{"wattspan.sampler.ticks", "{tick}", counter, "wattspan_sampler_ticks_total", one(float64(r.Sampling.Samples), none), false},
		{"wattspan.sampler.missed", "{tick}", counter, "wattspan_sampler_missed_total", one(float64(r.Sampling.Missed), none), false},
		{"wattspan.sampler.errors", "{error}", counter, "wattspan_sampler_errors_total", one(float64(r.Sampling.Errors), none), false},
		{"wattspan.sampler.tick.duration", "s", histogram, "wattspan_sampler_tick_duration_seconds", one(nil, none), false},
	}
}

// compareMetrics compares the run's metrics with its report.
func (c *comparison) compareMetrics(r *run) {
	rest := maps.Clone(r.series)
	before, series := len(c.differences), 0
	for _, want := range expectations(r.report) {
		got := maps.Clone(rest[want.name])
		delete(rest, want.name)
		for _, s := range want.series {
			what := fmt.Sprintf("%s: metric %s%s", r.file, want.name, s.attributes)
			key, seen := find(got, s.attributes)
			if !seen {
				if !want.sparse {
					c.fail("%s: want it, got nothing; there is %v", what, slices.Sorted(maps.Keys(got)))
				}
				continue
			}
			series++
			o := got[key]
			delete(got, key)
			kind, _ := o.metric.kind()
			c.expect(what+": kind", want.kind, kind)
			c.expect(what+": unit", want.unit, o.metric.Unit)
			c.comparePoint(what, r.report, s.value, o)
		}
		for _, key := range slices.Sorted(maps.Keys(got)) {
			c.fail("%s: unexpected series %s%s", r.file, want.name, key)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		c.fail("%s: unexpected metric %s", r.file, name)
	}
	c.compareSum(r)
	c.note(before, "%s: %d metrics, %d series, wattspan.energy adds up to the facility's", r.file, len(r.series), series)
}

// find returns the series with these attributes. hw.parent is not in the
// report, and may be there.
func find(series map[string]observed, want attributes) (string, bool) {
	for key, o := range series {
		a := maps.Clone(o.attributes)
		if a.text("hw.parent") != "" {
			delete(a, "hw.parent")
		}
		if maps.Equal(a, want) {
			return key, true
		}
	}
	return "", false
}

func (c *comparison) comparePoint(what string, r report, want any, o observed) {
	p := o.point
	if o.metric.Histogram != nil {
		if p.Count <= 0 || uint64(p.Count) > r.Sampling.Samples || !(p.Sum > 0) {
			c.fail("%s: want up to %d times, each above 0, got %d with the sum %v", what, r.Sampling.Samples, p.Count, p.Sum)
		}
	} else if got, ok := p.value(); !ok {
		c.fail("%s: want a number, got none", what)
	} else if want == nil {
		if !(got >= 0) {
			c.fail("%s: want a number that is not negative, got %v", what, got)
		}
	} else if !near(want.(float64), got) {
		c.fail("%s: want %v, got %v", what, want, got)
	}
	// A gauge has no beginning.
	if o.metric.Gauge == nil && (p.Start <= 0 || p.Start >= p.Time) {
		c.fail("%s: want a beginning before %v, got %v", what, at(p.Time), at(p.Start))
	}
	if at(p.Time).Before(r.Run.Start) {
		c.fail("%s: want a time after the start %v, got %v", what, r.Run.Start, at(p.Time))
	}
}

// compareSum compares the law that README.md states: the components and the
// overhead are the facility.
func (c *comparison) compareSum(r *run) {
	if r.Energy.Facility == nil {
		return
	}
	var sum float64
	for _, o := range r.series["wattspan.energy"] {
		v, _ := o.point.value()
		sum += v
	}
	if want := float64(*r.Energy.Facility); !near(want, sum) {
		c.fail("%s: sum of wattspan.energy: want the facility's %v, got %v", r.file, want, sum)
	}
}

// comparePage compares what Prometheus sees of a run.
func (c *comparison) comparePage(r *run, p page) {
	what, before := r.file+": prometheus", len(c.differences)
	var mine []promSample
	targets := 0
	for _, s := range p.samples {
		if s.labels["job"] != "wattspan" || r.instance == "" || s.labels["instance"] != r.instance {
			continue
		}
		if s.name == "target_info" {
			targets++
			c.expect(what+": target_info: wattspan_run_id", r.Run.ID, s.labels["wattspan_run_id"])
			continue
		}
		mine = append(mine, s)
	}
	if targets != 1 {
		c.fail("%s: want 1 target_info with instance %q, got %d", what, r.instance, targets)
	}
	if len(mine) == 0 {
		c.fail("%s: want samples with instance %q, got none", what, r.instance)
		return
	}
	names := map[string]bool{}
	for _, want := range expectations(r.report) {
		kind := map[string]string{counter: "counter", gauge: "gauge", histogram: "histogram"}[want.kind]
		sample := want.prometheus
		if want.kind == histogram {
			sample += "_count"
			names[want.prometheus+"_sum"], names[want.prometheus+"_bucket"] = true, true
		}
		names[sample] = true
		var sum, expected float64
		series := 0
		for _, s := range mine {
			if s.name == sample {
				sum += s.value
				series++
			}
		}
		if len(want.series) == 0 || want.sparse && series == 0 {
			continue
		}
		c.expect(what+": type of "+want.prometheus, kind, p.types[want.prometheus])
		if !want.sparse {
			c.expect(what+": series of "+sample, len(want.series), series)
		}
		for _, s := range want.series {
			v, ok := s.value.(float64)
			if !ok {
				expected = math.NaN()
				break
			}
			expected += v
		}
		if !math.IsNaN(expected) && !near(expected, sum) {
			c.fail("%s: sum of %s: want %v, got %v", what, sample, expected, sum)
		}
	}
	for _, s := range mine {
		if !names[s.name] {
			c.fail("%s: unexpected name %s", what, s.name)
			names[s.name] = true // once
		}
	}
	c.note(before, "%s: %d samples", what, len(mine))
}

// near says whether two numbers are equal but for the order in which their parts
// were added.
func near(a, b float64) bool {
	return a == b || math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b))
}

func at(t nanoseconds) time.Time { return time.Unix(0, int64(t)).UTC() }

// isID says whether text is an ID of so many hexadecimal digits, not all 0.
func isID(text string, digits int) bool {
	return len(text) == digits && strings.Trim(text, "0123456789abcdef") == "" && strings.Trim(text, "0") != ""
}

func facility(r report) string {
	if r.Energy.Facility == nil {
		return "no energy"
	}
	return fmt.Sprintf("%.3f J at the facility", float64(*r.Energy.Facility))
}
