package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// printSummary puts the report on a page, for people: first what it comes to,
// then how it adds up, from the components to the emissions, each total with its
// band, and how much of it was measured. Numbers have three significant digits:
// no sensor here knows more. Verbose adds each device, factor and source.
func printSummary(p *page, r tracker.Report, verbose bool) {
	p.blank()
	p.text(0, "wattspan: "+headline(p, r))
	p.blank()
	for _, c := range inOrder {
		printComponent(p, r, c)
	}
	printTotals(p, r)
	printJob(p, r, verbose)
	p.blank()
	p.text(2, "quality: "+quality(p, r))
	printTroubles(p, r)
	for _, f := range r.Quality {
		p.text(2, p.warn("doubt: "+strings.TrimPrefix(f.Device+": ", ": ")+f.Reason))
	}
	printRemedies(p, r, verbose)
	if r.Run.Within != "" {
		p.text(2, "note: run "+r.Run.Within+" measures this machine already: its figures contain these, and the two are not to be added")
	}
	if r.Run.ReadBy != "" {
		p.text(2, "note: run "+r.Run.ReadBy+" reads this machine's hardware and reports what is the machine's; this run reports what is its own")
	}
	for _, n := range r.Notes {
		p.text(2, "note: "+n)
	}
	if verbose {
		printDevices(p, r)
		printFactors(p, r)
		printSampling(p, r)
		printLeftOut(p, r)
	}
}

// inOrder are the components that have a figure of their own, in the order of their
// usual weight.
var inOrder = []sensors.Component{sensors.GPU, sensors.CPU, sensors.Memory}

func energyOf(r tracker.Report, c sensors.Component) *sensors.Joules {
	switch c {
	case sensors.GPU:
		return r.Energy.GPU
	case sensors.CPU:
		return r.Energy.CPU
	default:
		return r.Energy.Memory
	}
}

// headline is the whole report in a sentence.
func headline(p *page, r tracker.Report) string {
	s := r.Run.Name + " ran for " + span(seconds(r.Run.Duration))
	if r.Run.ExitCode != nil && *r.Run.ExitCode != 0 {
		s += fmt.Sprintf(" and ended with exit code %d", *r.Run.ExitCode)
	}
	if r.Energy.Device == nil && r.Energy.Node == nil {
		return s + ": its energy is not known"
	}
	s += ": "
	if r.Partial {
		s += "at least "
	}
	if share, _ := measuredShare(r); share < 0.5 {
		s += "an estimated "
	}
	switch {
	case r.Energy.Device == nil:
		s += p.strong(r.Energy.Node.String()) + " at the plug"
	case r.Energy.Node == nil:
		s += p.strong(r.Energy.Device.String())
	default:
		s += p.strong(r.Energy.Device.String()) + " in its devices, " + r.Energy.Node.String() + " at the plug"
	}
	if r.Energy.Facility != nil && r.Factors.PUE.Value != 1 {
		s += ", " + r.Energy.Facility.String() + " with the facility"
	}
	if r.Emissions != nil {
		s += ", " + p.strong(r.Emissions.Operational.String())
	}
	return s
}

func printComponent(p *page, r tracker.Report, c sensors.Component) {
	energy := energyOf(r, c)
	if energy == nil {
		p.row(string(c), "–", absence(p, r, c))
		return
	}
	remark := describe(charged(r, c))
	if reasons := unreadable(r, c); len(reasons) > 0 {
		remark += "; " + p.warn("without "+strings.Join(reasons, "; "))
	}
	p.row(string(c), energy.String(), remark)
}

// charged returns the devices whose energy is in the figure of a component.
func charged(r tracker.Report, c sensors.Component) []tracker.Device {
	var devices []tracker.Device
	for _, d := range r.Devices {
		if d.Component == c && d.Attributed != nil {
			devices = append(devices, d)
		}
	}
	return devices
}

// absence says why there is no figure.
func absence(p *page, r tracker.Report, c sensors.Component) string {
	if reasons := unreadable(r, c); len(reasons) > 0 {
		return p.warn("unreadable: " + strings.Join(reasons, "; "))
	}
	for _, m := range r.Missing {
		if m.Component == c {
			return string(m.Status) + ": " + m.Reason
		}
	}
	return cmp.Or(inside(r, c), "no figure")
}

// inside says in which figure a component is included; empty where it is in none.
func inside(r tracker.Report, c sensors.Component) string {
	for _, d := range r.Devices {
		switch {
		case !slices.Contains(d.Includes, c):
		case d.Scope == sensors.ScopeModule:
			return "inside the " + string(d.Component) + "'s figure, which is the module's"
		default:
			return "inside the " + string(d.Component) + "'s figure"
		}
	}
	return ""
}

// unreadable says what of a component could not be read and why, equal reasons
// once: eight GPUs of one machine mostly have the same trouble.
func unreadable(r tracker.Report, c sensors.Component) []string {
	var reasons tally[string]
	devices := map[string]string{}
	for _, m := range r.Missing {
		if m.Component == c && m.Status == sensors.Unreadable {
			reasons.add(m.Reason)
			devices[m.Reason] = m.Device
		}
	}
	return reasons.each(func(reason string, n int) string {
		switch device := devices[reason]; {
		case n > 1:
			return fmt.Sprintf("%d devices: %s", n, reason)
		case device != "" && device != string(c):
			return device + ": " + reason
		default:
			return reason
		}
	})
}

// tally counts equal things, and keeps their order.
type tally[T comparable] struct {
	order  []T
	counts map[T]int
}

func (t *tally[T]) add(x T) {
	if t.counts == nil {
		t.counts = map[T]int{}
	}
	if t.counts[x] == 0 {
		t.order = append(t.order, x)
	}
	t.counts[x]++
}

func (t *tally[T]) each(describe func(x T, n int) string) []string {
	var all []string
	for _, x := range t.order {
		all = append(all, describe(x, t.counts[x]))
	}
	return all
}

// methods says in words how joules are obtained.
var methods = map[sensors.Method]string{
	sensors.MethodCounter:      "energy counter",
	sensors.MethodPowerAverage: "averaged power, integrated",
	sensors.MethodPower:        "power, integrated",
	sensors.MethodModel:        "model, not measured",
	sensors.MethodConstant:     "constant, not measured",
}

func methodOf(d tracker.Device) string { return cmp.Or(methods[d.Method], string(d.Method)) }

// describe says how a component's devices were measured, equal ones once.
func describe(devices []tracker.Device) string {
	type way struct{ method, name string }
	var ways tally[way]
	for _, d := range devices {
		w := way{method: methodOf(d)}
		if d.Component == sensors.GPU {
			w.name = d.Name
		}
		ways.add(w)
	}
	return remarks(ways.each(func(w way, n int) string {
		s := w.method
		switch {
		case n > 1 && w.name == "":
			s += fmt.Sprintf(", %d devices", n)
		case n > 1:
			s += fmt.Sprintf(", %d × %s", n, w.name)
		case w.name != "":
			s += ", " + w.name
		}
		return s
	})...)
}

func printTotals(p *page, r tracker.Report) {
	if r.Energy.Device == nil {
		p.row("devices", "–", p.warn("nothing could be measured or estimated on this machine"))
		if r.Energy.Node == nil {
			return
		}
	}
	partial, also := "", ""
	if r.Partial {
		partial, also = p.warn(strings.TrimSuffix("PARTIAL: without "+list(lacks(r)), ": without ")), p.warn("PARTIAL")
	}
	scope, mean := "", ""
	if r.Scope == tracker.Job {
		scope = "the job's share"
	}
	if r.Energy.Device != nil {
		if r.Run.Duration > 0 {
			mean = r.Run.Power(*r.Energy.Device).String() + " on average"
		}
		p.row("devices", p.strong(r.Energy.Device.String()), remarks(partial, scope, bounds(r.Bounds.Device), mean))
	}
	printNode(p, r, also)
	if r.Energy.Facility != nil {
		p.row("facility", r.Energy.Facility.String(), remarks(also, bounds(r.Bounds.Facility), brief(r.Factors.PUE)))
	}
	if r.Emissions != nil {
		p.row("emissions", p.strong(r.Emissions.Operational.String()),
			remarks(also, between(r.Emissions.Low, r.Emissions.High), brief(r.Factors.Intensity)))
	}
	if r.Factors.Intensity.Kind != emissions.Declared {
		p.row("place", r.Location.Zone(), placed(p, r.Location))
	}
}

// printNode says what was drawn at the plug, and how that is known.
func printNode(p *page, r tracker.Report, partial string) {
	n := r.Node
	// A meter that was named and cannot be read, or a stored profile that is
	// damaged: what stands in for it must not hide that.
	lost := ""
	for _, o := range r.LeftOut {
		if o.Component == sensors.Node && o.Status == sensors.Unreadable {
			lost = o.Reason
		}
	}
	if r.Energy.Node == nil {
		if why := remarks(lost, n.Reason); why != "" {
			p.row("node", "–", why)
		}
		return
	}
	if n.Profile != nil {
		lost = remarks(lost, n.Reason)
	}
	unseen := ""
	if u := r.Energy.Unseen; u != nil && *u >= 0 {
		unseen = u.String() + " of it in no sensor"
	}
	p.row("node", r.Energy.Node.String(), remarks(partial, bounds(r.Bounds.Node), unseen, plugged(n), lost))
}

// plugged says how the energy at the plug is known.
func plugged(n tracker.Node) string {
	var how []string
	for method := range strings.SplitSeq(n.Method, ",") {
		switch {
		case method != string(sensors.MethodModel):
			how = append(how, "meter "+cmp.Or(n.Meter.Name, n.Meter.ID)+" ("+n.Meter.Source+"), "+methodOf(tracker.Device{Method: sensors.Method(method)}))
		case n.Profile != nil:
			how = append(how, fmt.Sprintf("model, not measured: profile %s, (devices + %v) / %.2f", n.Profile.Name, n.Profile.Base, n.Profile.Efficiency))
		}
	}
	return remarks(how...)
}

// lacks says of what a partial total is without.
func lacks(r tracker.Report) []string {
	var all []string
	for _, c := range inOrder {
		gaps := slices.ContainsFunc(charged(r, c), func(d tracker.Device) bool {
			return d.Status == tracker.StatusGaps || d.Status == tracker.StatusFailed
		})
		switch {
		case len(unreadable(r, c)) > 0 && energyOf(r, c) == nil:
			all = append(all, "the "+string(c))
		case len(unreadable(r, c)) > 0:
			all = append(all, "part of the "+string(c))
		case gaps:
			all = append(all, "some of the "+string(c)+"'s time")
		}
	}
	return all
}

func bounds(i *tracker.Interval) string {
	if i == nil {
		return ""
	}
	return between(i.Low, i.High)
}

// between returns an interval in words. One without an end says nothing, and
// one without a width would claim that there is no error.
func between[T interface {
	~float64
	fmt.Stringer
}](low, high T) string {
	if math.IsInf(float64(high), 0) || math.IsNaN(float64(high)) {
		return "error not known"
	}
	a, b := low.String(), high.String()
	if a == b {
		return ""
	}
	if number, unit, _ := strings.Cut(a, " "); strings.HasSuffix(b, " "+unit) {
		a = number
	}
	return a + " to " + b
}

// remarks joins what there is to say.
func remarks(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

// value returns a factor's number.
func value(f emissions.Factor) string {
	if f.Unit == emissions.UnitPUE {
		return strconv.FormatFloat(f.Value, 'g', 3, 64)
	}
	return sensors.Quantity(f.Value, f.Unit)
}

// kinds says in words what a factor is, given its zone.
var kinds = map[emissions.Kind]string{
	emissions.LifecycleAverage:   "life-cycle average of %s",
	emissions.DirectAverage:      "direct average of %s, not life-cycle",
	emissions.HourlyAverage:      "yearly mean of hourly averages of %s",
	emissions.Marginal:           "marginal intensity of %s",
	emissions.PublishedPUE:       "published for %s",
	emissions.FleetPUE:           "fleet average of %s",
	emissions.IndustryAveragePUE: "industry average",
	emissions.NoPUE:              "%s, with no facility around it",
	emissions.Declared:           "as you stated",
}

// meaning says what a factor is, of which year, and by whom.
func meaning(f emissions.Factor) string {
	s, known := kinds[f.Kind]
	if !known {
		s = strings.ReplaceAll(string(f.Kind), "_", " ") + " of %s"
	}
	zone := f.Zone
	if zone == "world" {
		zone = "the world"
	}
	s = strings.ReplaceAll(s, "%s", cmp.Or(zone, "an unknown place"))
	if f.Year != 0 {
		s += fmt.Sprintf(" in %d", f.Year)
	}
	if f.Publisher != "" {
		s += " (" + f.Publisher + ")"
	}
	if f.Verified == unverified {
		s += ", not verified"
	}
	return s
}

// unverified is how the tables mark figures that were not compared with their
// source. The mark goes with the figure wherever it is shown.
const unverified = "recall"

// brief says a factor in a few words.
func brief(f emissions.Factor) string {
	if f.Unit == emissions.UnitPUE {
		return "PUE " + value(f) + ", " + meaning(f)
	}
	return value(f) + ", " + meaning(f)
}

// placed says how the place of the run was found.
func placed(p *page, l emissions.Location) string {
	switch l.Source {
	case emissions.FromOption:
		return "as you stated"
	case emissions.FromEnvironment:
		return "from " + cmp.Or(l.Detail, "the environment")
	case emissions.FromAttributes:
		return "from " + cmp.Or(l.Detail, "resource attributes")
	case emissions.FromTimeZone:
		return p.warn("a guess from the time zone")
	case emissions.FromNothing:
		return p.warn(remarks("the place is not known", l.Detail))
	default:
		return l.Detail
	}
}

const cpuTimeShare = "cpu_time_share"

// ways says in words how the job's share of a component is found.
var ways = map[string]string{
	cpuTimeShare:            "CPU time",
	"resident_memory_share": "resident memory",
	"used_devices":          "GPUs in use",
	"visible_devices":       "visible GPUs",
	"sm_utilization_share":  "SM utilisation",
	"gpu_process_share":     "processes on the GPUs",
	"mig_slice_share":       "MIG slices",
}

func printJob(p *page, r tracker.Report, verbose bool) {
	counted := ""
	if verbose && r.Job.Accounting != "" {
		counted = "processes counted by " + strings.ReplaceAll(r.Job.Accounting, "_", " ")
	}
	switch {
	case r.Job.Energy == nil && r.Job.CPUSeconds == nil:
		return
	case r.Job.Energy == nil:
		p.row("job", "–", remarks("its share is not known", span(seconds(*r.Job.CPUSeconds))+" of CPU time", counted))
		return
	}
	var of []string
	for _, c := range r.Job.Components {
		of = append(of, string(c))
	}
	var by tally[string]
	for _, s := range r.Job.Shares {
		way := cmp.Or(ways[s.Method], strings.ReplaceAll(s.Method, "_", " "))
		if s.Method == cpuTimeShare && r.Job.CPUSeconds != nil {
			way += " (" + span(seconds(*r.Job.CPUSeconds)) + ")"
		}
		by.add(way)
	}
	share := "of the " + list(of) + " energy"
	if len(by.order) > 0 {
		share += ", by " + list(by.order)
	}
	idle := ""
	if r.Job.Idle != "" && r.Job.Idle != tracker.IdleProportional {
		idle = "idle power: " + string(r.Job.Idle)
	}
	rest := ""
	if u := r.Job.Unattributed; u != nil && *u > 0 {
		rest = u.String() + " is not the job's"
	}
	p.row("job", r.Job.Energy.String(), remarks(share, rest, idle, counted))
}

// list joins words as a sentence does.
func list(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// measuredShare returns the share of the energy that was measured, 0 to 1, and
// of how many devices there is an energy. Where all of them used nothing, it is
// the share of the devices.
func measuredShare(r tracker.Report) (share float64, energies int) {
	var measured, all sensors.Joules
	meters := 0
	for _, d := range r.Devices {
		if d.Attributed == nil {
			continue
		}
		energies++
		all += *d.Attributed
		if d.Method.Measured() {
			meters++
			measured += *d.Attributed
		}
	}
	switch {
	case energies == 0:
		return 0, 0
	case all == 0:
		return float64(meters) / float64(energies), energies
	default:
		return float64(measured / all), energies
	}
}

// quality says in one line how much of this is measured.
func quality(p *page, r tracker.Report) string {
	var how string
	switch share, energies := measuredShare(r); {
	case energies == 0:
		return "no figure"
	case share == 1:
		how = "all of it measured"
	case share == 0:
		how = "nothing measured, all by models"
	default:
		how = percent(share) + " measured, the rest by models"
	}
	if r.Energy.Node != nil {
		at := "a meter"
		switch {
		case r.Node.Method == string(sensors.MethodModel):
			at = "a model"
		case strings.Contains(r.Node.Method, string(sensors.MethodModel)):
			at = "a meter and a model"
		}
		how = strings.NewReplacer("all of it", "all of the devices", "nothing measured, all", "no device measured, all").Replace(how) + "; at the plug by " + at
	}
	partial := ""
	if r.Partial {
		partial = p.warn("PARTIAL")
	}
	return remarks(how, "covers "+percent(r.Coverage())+" of the run", partial)
}

// percent returns a share with three digits, of which rounding makes neither
// everything nor nothing.
func percent(share float64) string {
	s := strconv.FormatFloat(100*share, 'g', 3, 64)
	switch {
	case share < 1 && s == "100":
		return "over 99.9 %"
	case share > 0 && share < 0.001:
		return "under 0.1 %"
	}
	return s + " %"
}

// printTroubles names the devices that have a figure, and something wrong with it.
func printTroubles(p *page, r tracker.Report) {
	type trouble struct {
		component sensors.Component
		status    string
	}
	var troubles tally[trouble]
	first := map[trouble]tracker.Device{}
	for _, d := range r.Devices {
		if d.Energy == nil || d.Status == tracker.StatusOK && d.Reason == "" {
			continue
		}
		t := trouble{d.Component, d.Status}
		troubles.add(t)
		if troubles.counts[t] == 1 {
			first[t] = d
		}
	}
	for _, line := range troubles.each(func(t trouble, n int) string {
		d := first[t]
		s := "device " + d.ID
		if n > 1 {
			s = fmt.Sprintf("%d %s devices, the first of them %s", n, t.component, d.ID)
		}
		if t.status != tracker.StatusOK {
			s += " (" + t.status + ")"
		}
		return s + ": " + d.Reason
	}) {
		p.text(2, p.warn(line))
	}
}

// shortRemedies is how many remedies a short summary has: what is most wrong
// comes first, and a list is not read.
const shortRemedies = 3

// printRemedies says what would make the result better.
func printRemedies(p *page, r tracker.Report, verbose bool) {
	said := map[string]bool{}
	var lines []string
	remedy := func(what, how string) {
		if how != "" && !said[how] {
			said[how] = true
			lines = append(lines, "to improve "+what+": "+how)
		}
	}
	for _, m := range r.Missing {
		if m.Status == sensors.Unreadable {
			remedy(string(m.Component), m.Remedy)
		}
	}
	if r.Location.Guess && r.Factors.Intensity.Kind != emissions.Declared {
		remedy("the emissions", "say where the machine is: --country FR, or --region provider/region in a cloud")
	}
	for _, m := range r.Missing {
		remedy(string(m.Component), m.Remedy)
	}
	for _, o := range r.LeftOut {
		if o.Status == sensors.Unreadable {
			remedy(string(o.Component), o.Remedy)
		}
	}
	for i, line := range lines {
		if i == shortRemedies && !verbose {
			p.text(2, fmt.Sprintf("and %d more: --verbose", len(lines)-i))
			break
		}
		p.text(2, line)
	}
}

func section(p *page, title string) {
	p.blank()
	p.text(2, p.strong(title))
}

// printDevices writes each device with its figure, band and source.
func printDevices(p *page, r tracker.Report) {
	if len(r.Devices) == 0 {
		return
	}
	section(p, "devices")
	note := ""
	for _, d := range r.Devices {
		energy, band, job := "–", "", ""
		if d.Energy != nil {
			energy = d.Energy.String()
			if d.Low != nil && d.High != nil {
				band = between(*d.Low, *d.High)
			}
			if d.Attributed == nil {
				job = "the job's share is not known"
			} else if r.Scope == tracker.Job {
				job = d.Attributed.String() + " the job's"
			}
		}
		scope := ""
		if d.Scope != sensors.ScopeDevice {
			scope = "scope " + string(d.Scope)
		}
		p.row(string(d.Component), energy, remarks(d.ID, d.Name, "by "+d.Source))
		p.row("", "", remarks(methodOf(d), scope, band, job, "covers "+percent(d.Coverage)))
		if d.Note == note {
			d.Note = "" // eight GPUs have one
		} else {
			note = d.Note
		}
		if more := remarks(strings.TrimPrefix(d.Note, "model: "), events(d), d.Reason); more != "" {
			p.row("", "", more)
		}
	}
}

// events says what happened to a device's readings.
func events(d tracker.Device) string {
	var s []string
	if d.Estimated > 0 {
		s = append(s, span(seconds(d.Estimated))+" bridged between readings too far apart")
	}
	if d.Resets > 0 {
		s = append(s, fmt.Sprintf("counter restarts: %d", d.Resets))
	}
	if d.Rejected > 0 {
		s = append(s, fmt.Sprintf("impossible readings set aside: %d", d.Rejected))
	}
	return remarks(s...)
}

// printFactors writes the factors with all that is needed to defend them.
func printFactors(p *page, r tracker.Report) {
	section(p, "factors")
	for _, f := range []struct {
		label string
		emissions.Factor
	}{{"PUE", r.Factors.PUE}, {"intensity", r.Factors.Intensity}} {
		band := ""
		if f.Band > 0 {
			band = "±" + percent(f.Band) + "\u00A0(1\u00A0σ)"
		}
		p.row(f.label, value(f.Factor), remarks(meaning(f.Factor), band))
		checked := ""
		if f.Verified != "" {
			checked = "checked: " + f.Verified
		}
		if source := remarks(f.Title, f.Source, checked); source != "" {
			p.row("", "", "source: "+source)
		}
		if f.Licence != "" {
			p.row("", "", "licence: "+f.Licence)
		}
		if f.Note != "" {
			p.row("", "", "note: "+f.Note)
		}
	}
	p.row("place", "", r.Location.String())
}

// printSampling writes how and on what the run was measured.
func printSampling(p *page, r tracker.Report) {
	section(p, "run")
	p.row("id", "", r.Run.ID)
	p.row("scope", "", string(r.Scope))
	s := r.Sampling
	suspended := ""
	if s.Suspended > 0 {
		suspended = "suspended for " + span(seconds(s.Suspended))
	}
	p.row("sampling", "", remarks("every "+span(seconds(s.Interval)), fmt.Sprintf("samples: %d, missed: %d, failed readings: %d",
		s.Samples, s.Missed, s.Errors), suspended))
	m := r.Machine
	kind := strings.ReplaceAll(string(m.Kind), "_", " ")
	if m.Hypervisor != "" {
		kind += " (" + m.Hypervisor + ")"
	}
	p.row("machine", "", remarks(kind, m.Model, fmt.Sprintf("%d threads", m.Threads), sensors.Quantity(float64(m.Memory), "B")))
	p.row("wattspan", "", r.Version)
}

// printLeftOut writes the sources that were looked for and are not in use.
func printLeftOut(p *page, r tracker.Report) {
	if len(r.LeftOut) == 0 {
		return
	}
	section(p, "sources not in use")
	for _, o := range r.LeftOut {
		what := strings.TrimSpace(o.Source + " " + o.Device)
		remedy := ""
		if o.Remedy != "" {
			remedy = "remedy: " + o.Remedy
		}
		p.row(string(o.Component), string(o.Status), remarks(what+": "+o.Reason, remedy))
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// span returns a duration with about three digits.
func span(d time.Duration) string {
	d = max(d, 0)
	const day = 24 * time.Hour
	switch {
	case d < 999500*time.Microsecond:
		return strconv.FormatFloat(float64(d)/1e6, 'g', 3, 64) + " ms"
	case d < 59950*time.Millisecond:
		return strconv.FormatFloat(d.Seconds(), 'g', 3, 64) + " s"
	case d < time.Hour-time.Second/2:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day-time.Minute/2:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		d = d.Round(time.Hour)
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}
