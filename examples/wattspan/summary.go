package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// writeSummary writes the report for people: three significant digits, a band
// on every total, and where each number comes from.
func writeSummary(w io.Writer, r tracker.Report) {
	var b strings.Builder
	duration := time.Duration(r.Run.Duration * float64(time.Second))
	fmt.Fprintf(&b, "\nwattspan: %s ran for %s", r.Run.Name, roundDuration(duration))
	if r.Run.ExitCode != nil && *r.Run.ExitCode != 0 {
		fmt.Fprintf(&b, " and ended with exit code %d", *r.Run.ExitCode)
	}
	b.WriteString("\n\n")
	for _, c := range []struct {
		component sensors.Component
		energy    *sensors.Joules
	}{{sensors.GPU, r.Energy.GPU}, {sensors.CPU, r.Energy.CPU}, {sensors.Memory, r.Energy.Memory}} {
		writeComponent(&b, r, c.component, c.energy)
	}
	if r.Energy.Device != nil {
		writeTotals(&b, r)
	} else {
		row(&b, "total", "–", "nothing could be measured or estimated on this machine")
	}
	writeJob(&b, r)
	writeQuality(&b, r)
	writeRemedies(&b, r)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "  note: %s\n", n)
	}
	_, _ = io.WriteString(w, b.String())
}

// row writes one line: a label, a value, and what there is to say about it.
func row(b *strings.Builder, label, value, remark string) {
	fmt.Fprintf(b, "  %-10s %12s   %s\n", label, value, remark)
}

func writeComponent(b *strings.Builder, r tracker.Report, c sensors.Component, energy *sensors.Joules) {
	if energy == nil {
		row(b, string(c), "–", absence(r, c))
		return
	}
	var devices []tracker.Device
	for _, d := range r.Devices {
		if d.Component == c && d.Energy != nil {
			devices = append(devices, d)
		}
	}
	remark := describe(devices)
	for _, m := range r.Missing {
		if m.Component == c {
			remark += "; without " + m.Device + ": " + m.Reason
		}
	}
	row(b, string(c), energy.String(), remark)
}

// absence says why there is no figure.
func absence(r tracker.Report, c sensors.Component) string {
	for _, m := range r.Missing {
		if m.Component == c {
			return string(m.Status) + ": " + m.Reason
		}
	}
	for _, d := range r.Devices {
		if d.Scope == sensors.ScopeModule {
			return "inside the gpu's figure, which is the module's"
		}
	}
	return "no figure"
}

// methods says in words how joules are obtained.
var methods = map[sensors.Method]string{
	sensors.MethodCounter:      "energy counter",
	sensors.MethodPowerAverage: "averaged power, integrated",
	sensors.MethodPower:        "power, integrated",
	sensors.MethodModel:        "model, not measured",
	sensors.MethodConstant:     "constant, not measured",
}

// describe says how a component's devices were measured.
func describe(devices []tracker.Device) string {
	var parts []string
	counts := map[string]int{}
	var order []string
	for _, d := range devices {
		what := methods[d.Method]
		if d.Note != "" {
			what += ": " + strings.TrimPrefix(d.Note, "model: ")
		}
		if counts[what] == 0 {
			order = append(order, what)
		}
		counts[what]++
	}
	for _, what := range order {
		if counts[what] > 1 {
			what = fmt.Sprintf("%d × %s", counts[what], what)
		}
		parts = append(parts, what)
	}
	return strings.Join(parts, "; ")
}

func writeTotals(b *strings.Builder, r tracker.Report) {
	total := "devices"
	if r.Partial {
		total = "part" // partial is not total
	}
	row(b, total, r.Energy.Device.String(), fmt.Sprintf("%s; mean power %s",
		between(r.Bounds.Device.Low, r.Bounds.Device.High), r.Run.Power(*r.Energy.Device)))
	row(b, "facility", r.Energy.Facility.String(), fmt.Sprintf("%s; PUE %s",
		between(r.Bounds.Facility.Low, r.Bounds.Facility.High), factor(r.Factors.PUE)))
	row(b, "emissions", r.Emissions.Operational.String(), fmt.Sprintf("%s; %s",
		between(r.Emissions.Low, r.Emissions.High), factor(r.Factors.Intensity)))
	row(b, "", "", "place: "+r.Location.String())
}

func between[T fmt.Stringer](low, high T) string { return fmt.Sprintf("%s to %s", low, high) }

// factor says a factor and where it is from, in a line; the report has the rest.
func factor(f emissions.Factor) string {
	value := sensors.Quantity(f.Value, f.Unit)
	if f.Unit == emissions.UnitPUE {
		value = strconv.FormatFloat(f.Value, 'g', -1, 64)
	}
	from := []string{strings.ReplaceAll(string(f.Kind), "_", " ")}
	if f.Zone != "" {
		from[0] += " of " + f.Zone
	}
	if f.Year != 0 {
		from[0] += fmt.Sprintf(" in %d", f.Year)
	}
	if f.Publisher != "" {
		from = append(from, f.Publisher)
	}
	if f.Note != "" {
		from = append(from, f.Note)
	}
	return value + " (" + strings.Join(from, "; ") + ")"
}

func writeJob(b *strings.Builder, r tracker.Report) {
	if r.Job.CPUSeconds == nil {
		return
	}
	cpu := time.Duration(*r.Job.CPUSeconds * float64(time.Second))
	if r.Job.Energy == nil {
		row(b, "job", "–", roundDuration(cpu)+" of CPU time")
		return
	}
	row(b, "job", r.Job.Energy.String(), "of the cpu energy, by its "+roundDuration(cpu)+" of CPU time")
}

// writeQuality says in one line how much of this is measured.
func writeQuality(b *strings.Builder, r tracker.Report) {
	var measured, modelled []string
	var troubled []string
	for _, d := range r.Devices {
		if d.Energy != nil {
			if d.Method.Measured() {
				measured = append(measured, string(d.Component))
			} else {
				modelled = append(modelled, string(d.Component))
			}
		}
		if d.Status != tracker.StatusOK || d.Reason != "" {
			troubled = append(troubled, fmt.Sprintf("%s %s (%s)", d.ID, d.Status, d.Reason))
		}
	}
	var parts []string
	if m := distinct(measured); m != "" {
		parts = append(parts, "measured: "+m)
	}
	if m := distinct(modelled); m != "" {
		parts = append(parts, "estimated by a model: "+m)
	}
	if len(parts) > 0 {
		parts = append(parts, fmt.Sprintf("coverage %.3g %%", 100*r.Coverage()))
	}
	if r.Partial {
		parts = append(parts, "PARTIAL, see above")
	}
	fmt.Fprintf(b, "\n  quality: %s\n", strings.Join(parts, "; "))
	for _, t := range troubled {
		fmt.Fprintf(b, "  device %s\n", t)
	}
}

func distinct(words []string) string {
	var kept []string
	for _, w := range words {
		if !strings.Contains(strings.Join(kept, " "), w) {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, ", ")
}

// writeRemedies says what would make the result better.
func writeRemedies(b *strings.Builder, r tracker.Report) {
	said := map[string]bool{}
	remedy := func(what, how string) {
		if how != "" && !said[how] {
			said[how] = true
			fmt.Fprintf(b, "  to improve %s: %s\n", what, how)
		}
	}
	for _, m := range r.Missing {
		remedy(string(m.Component), m.Remedy)
	}
	for _, o := range r.LeftOut {
		if o.Status == sensors.Unreadable {
			remedy(string(o.Component), o.Remedy)
		}
	}
	if r.Location.Guess && r.Factors.Intensity.Kind != emissions.Declared {
		remedy("the emissions", "say where the machine is: --country FR, or --region provider/region in a cloud")
	}
}

// roundDuration rounds a duration to three digits or so.
func roundDuration(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
