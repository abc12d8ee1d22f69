package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// line is what there is to say about an epoch.
type line struct {
	epoch, characters int
	loss              float64 // mean over the training examples, in nats; NaN of none
	bits              float64 // per character of the validation text; NaN where interrupted
	took              time.Duration
	used              *energy        // nil where it is not known
	report            tracker.Report // up to the end of the epoch
}

// energy is what the machine drew between two reports of one run.
type energy struct {
	joules  sensors.Joules
	seconds float64 // between their last samples
}

// between returns the energy from one report to a later one. It is nil where
// nothing can be read, and where no sample was taken between the two, because
// they are less than 100 ms apart: the next report then has it. Unknown is not 0.
func between(before, after tracker.Report) *energy {
	e := energy{seconds: after.Run.Duration - before.Run.Duration}
	if after.Energy.Device == nil || e.seconds <= 0 {
		return nil
	}
	e.joules = *after.Energy.Device
	if before.Energy.Device != nil { // else it is the first sample, the origin
		e.joules -= *before.Energy.Device
	}
	return &e
}

func (e *energy) power() sensors.Watts { return sensors.Watts(float64(e.joules) / e.seconds) }

// describe puts the figures on the epoch's span. What is not known is left out.
func (l line) describe(span trace.Span) {
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Int("training.characters", l.characters))
	if !math.IsNaN(l.loss) {
		span.SetAttributes(attribute.Float64("training.loss", l.loss))
	}
	if !math.IsNaN(l.bits) {
		span.SetAttributes(attribute.Float64("training.validation.bits_per_character", l.bits))
	}
	if l.used != nil {
		span.SetAttributes(
			attribute.Float64("wattspan.energy.device_j", float64(l.used.joules)),
			attribute.String("wattspan.energy.method", strings.Join(methods(l.report), ",")),
		)
	}
}

// The columns are explained in README.md.
const columns = "%5s  %5s  %9s  %7s  %8s  %7s  %12s  %10s  %s\n"

func writeHeader(w io.Writer) {
	fmt.Fprintf(w, columns, "epoch", "loss", "bits/char", "seconds", "energy", "power", "emitted", "1000 chars", "energy is")
}

func writeLine(w io.Writer, l line) {
	const unknown = "–"
	loss, bits, joules, power, each, emitted := unknown, unknown, unknown, unknown, unknown, unknown
	if !math.IsNaN(l.loss) {
		loss = fmt.Sprintf("%.3f", l.loss)
	}
	if !math.IsNaN(l.bits) {
		bits = fmt.Sprintf("%.3f", l.bits)
	}
	if l.used != nil {
		joules, power = inJoules(l.used.joules), l.used.power().String()
		if l.characters > 0 {
			each = inJoules(l.used.joules * 1000 / sensors.Joules(l.characters))
		}
	}
	if l.report.Emissions != nil {
		emitted = l.report.Emissions.Operational.String()
	}
	fmt.Fprintf(w, columns, fmt.Sprint(l.epoch), loss, bits,
		fmt.Sprintf("%.1f", l.took.Seconds()), joules, power, emitted, each, provenance(l.report))
}

// inJoules formats an energy in J: that of an epoch is small, and Joules.String
// gives Wh.
func inJoules(j sensors.Joules) string { return sensors.Quantity(float64(j), "J") }

// provenance says in a word whether the energies of a report were measured.
// Readers take a number for a measurement unless it says otherwise.
func provenance(r tracker.Report) string {
	var measured, estimated bool
	for _, d := range r.Devices {
		if d.Energy != nil {
			measured = measured || d.Method.Measured()
			estimated = estimated || !d.Method.Measured()
		}
	}
	switch {
	case measured && estimated:
		return "partly estimated"
	case measured:
		return "measured"
	case estimated:
		return "estimated"
	default:
		return "unknown"
	}
}

// methods returns how the energies of a report were obtained, each way once.
func methods(r tracker.Report) []string {
	var all []string
	for _, d := range r.Devices {
		if d.Energy != nil {
			all = append(all, string(d.Method))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// writeReport writes what the run took: by device, in total, the job's own
// share, and what is missing.
func writeReport(w io.Writer, r tracker.Report) {
	row := func(label, value, remark string) {
		fmt.Fprintf(w, "%-9s  %12s  %s\n", label, value, remark)
	}
	for _, d := range r.Devices {
		if d.Energy == nil {
			continue // it is among the missing
		}
		how := "measured: " + string(d.Method) + " of " + d.Source
		if !d.Method.Measured() {
			how = "estimated: " + d.Note
		}
		if d.Status != tracker.StatusOK {
			how += "; " + d.Status + ": " + d.Reason
		}
		row(string(d.Component), inJoules(*d.Energy), how)
	}
	if r.Emissions == nil {
		row("machine", "–", "nothing could be measured or estimated")
	} else {
		row("machine", inJoules(*r.Energy.Device), fmt.Sprintf("%s, %s to %s; mean power %s",
			provenance(r), inJoules(r.Bounds.Device.Low), inJoules(r.Bounds.Device.High), r.Run.Power(*r.Energy.Device)))
		row("facility", inJoules(*r.Energy.Facility), fmt.Sprintf("× PUE %v: %s", r.Factors.PUE.Value, origin(r.Factors.PUE)))
		row("emitted", r.Emissions.Operational.String(), fmt.Sprintf("%s to %s; × %s: %s", r.Emissions.Low, r.Emissions.High,
			sensors.Quantity(r.Factors.Intensity.Value, r.Factors.Intensity.Unit), origin(r.Factors.Intensity)))
		row("", "", "place: "+r.Location.String())
	}
	if r.Job.Energy != nil {
		var shares []string
		for _, s := range r.Job.Shares {
			shares = append(shares, fmt.Sprintf("%s %s by %s", inJoules(s.Energy), s.Component, strings.ReplaceAll(s.Method, "_", " ")))
		}
		row("this job", inJoules(*r.Job.Energy), "its share of the machine: "+strings.Join(shares, ", "))
	}
	for _, m := range r.Missing {
		row("no "+string(m.Component), "–", hint(m))
	}
	for _, o := range r.LeftOut {
		// A counter that would have measured what a model had to estimate.
		if o.Status == sensors.Unreadable {
			row("not used", "–", o.Source+": "+hint(o.Missing))
		}
	}
	if r.Partial {
		fmt.Fprintln(w, "The totals are partial: something that draws power could not be read.")
	}
	if r.Run.Within != "" {
		fmt.Fprintf(w, "Run %s measures this machine too: do not add the two.\n", r.Run.Within)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, "Note:", note)
	}
}

// origin says where a factor is from. The JSON report has all there is to say.
func origin(f emissions.Factor) string {
	words := []string{strings.ReplaceAll(string(f.Kind), "_", " ")}
	for _, word := range []string{f.Zone, f.Publisher} {
		if word != "" {
			words = append(words, word)
		}
	}
	if f.Year != 0 {
		words = append(words, fmt.Sprint(f.Year))
	}
	return strings.Join(words, ", ")
}

// hint says why there is no figure, and what would give one.
func hint(m tracker.Missing) string {
	text := string(m.Status) + ": " + m.Reason
	if m.Remedy != "" {
		text += "; to change that: " + m.Remedy
	}
	return text
}
