package tracker

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// Schema names the version of the machine-readable report. Fields may be added
// under the same name; none is removed or changes its meaning.
const Schema = "wattspan.report/v1"

// Report is what is known of a run. Marshalled as JSON it is the contract that
// docs/REPORT.md documents: a value that was not measured is null, never 0, and
// every total can be recomputed from the other numbers in it.
type Report struct {
	Schema   string             `json:"schema"`
	Version  string             `json:"version"` // of Wattspan
	Run      Run                `json:"run"`
	Scope    Scope              `json:"scope"`
	Machine  host.Machine       `json:"machine"`
	Energy   Energy             `json:"energy_j"`
	Bounds   Bounds             `json:"bounds_j"`
	Node     Node               `json:"node"`
	Job      JobEnergy          `json:"job"`
	Devices  []Device           `json:"devices"`
	Missing  []Missing          `json:"missing"`
	LeftOut  []LeftOut          `json:"left_out"`
	Location emissions.Location `json:"location"`
	Factors  emissions.Model    `json:"factors"`
	// Emissions is nil where no energy was measured.
	Emissions *Emissions `json:"emissions_g"`
	// Partial is set when something that draws power could not be read.
	Partial bool `json:"partial"`
	// Quality are the doubts about the figures; empty where there are none.
	Quality  []Flag   `json:"quality"`
	Sampling Sampling `json:"sampling"`
	// Notes are remarks on the run as a whole, one sentence each.
	Notes []string `json:"notes,omitempty"`
}

// Run identifies what was measured. Start and End are the times of the first
// and the last sample: every figure of the report is about that interval.
type Run struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Duration float64   `json:"duration_s"`
	// Within is the ID of the run whose runner measures this machine already:
	// what this report says is contained in that run's, and is not to be added
	// to it. Empty where there is none.
	Within string `json:"within,omitempty"`
	// ReadBy is the ID of the run whose tracker reads this machine's hardware, and
	// hands it to this one: the figures of that run for the machine contain this
	// one's. Empty where this one reads it itself.
	ReadBy string `json:"read_by,omitempty"`
	// ExitCode is that of the process that was run; nil where there is none.
	ExitCode *int `json:"exit_code"`
}

// Energy is the energy of the tracked scope, in joules. What was not measured
// is nil. Device is the sum of the components; Node is what was drawn at the
// machine's plug, Unseen being what no component has of it; Facility is Node × PUE,
// Device × PUE where the node is not known.
type Energy struct {
	Device   *sensors.Joules `json:"device"`
	Node     *sensors.Joules `json:"node"`
	Facility *sensors.Joules `json:"facility"`
	GPU      *sensors.Joules `json:"gpu"`
	CPU      *sensors.Joules `json:"cpu"`
	Memory   *sensors.Joules `json:"memory"`
	Unseen   *sensors.Joules `json:"unseen"`
}

// Interval is a low and a high value, k = 2: about 95 %.
type Interval struct {
	Low  sensors.Joules `json:"low"`
	High sensors.Joules `json:"high"`
}

// Bounds are the intervals of the totals in Energy; nil where those are.
type Bounds struct {
	Device   *Interval `json:"device"`
	Node     *Interval `json:"node"`
	Facility *Interval `json:"facility"`
}

// JobEnergy is what falls to the job itself, whatever the scope of the report.
type JobEnergy struct {
	// Energy is the job's share of the components listed, the sum of Shares;
	// nil where there are none.
	Energy *sensors.Joules `json:"energy_j"`
	// CPUSeconds is the CPU time the job used; nil where it is not known.
	CPUSeconds *float64 `json:"cpu_seconds"`
	// Accounting says how the job's processes were counted: process,
	// process_tree or cgroup.
	Accounting string `json:"accounting"`
	// Components are those that Energy contains a share of.
	Components []sensors.Component `json:"components"`
	// Method says how the shares were computed, each way once.
	Method string `json:"method"`
	// Shares are the shares by component.
	Shares []JobShare `json:"shares"`
	// Unattributed is what the components listed drew and the job is not
	// charged with.
	Unattributed *sensors.Joules `json:"unattributed_j"`
	// Node is the job's part of what the machine drew at its plug, in
	// proportion to Energy; nil where the node is not known.
	Node *sensors.Joules `json:"node_j"`
	// Idle says who is charged with idle power.
	Idle Idle `json:"idle"`
	// Reserved is what is reserved for the job; nil where nothing is.
	Reserved *Reserved `json:"reserved,omitempty"`
}

// Reserved is the part of the machine that is reserved for the job, 0 to 1.
type Reserved struct {
	CPU    *float64 `json:"cpu"`
	Memory *float64 `json:"memory"`
	Source string   `json:"source"`
}

// JobShare is the job's share of one component.
type JobShare struct {
	Component sensors.Component `json:"component"`
	Energy    sensors.Joules    `json:"energy_j"`
	Method    string            `json:"method"`
	// IdlePower is what the devices draw idle: the least mean power over 10 s of
	// the run; nil where the run was shorter.
	IdlePower *sensors.Watts `json:"idle_w"`
}

// attributionMachine charges the whole machine.
const attributionMachine = "whole_machine"

// Device is one device of the report.
type Device struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Vendor    string            `json:"vendor,omitempty"`
	Component sensors.Component `json:"component"`
	Method    sensors.Method    `json:"method"`
	Scope     sensors.Scope     `json:"scope"`
	// Includes are further components that are inside the figure, as memory is in
	// that of a Grace socket.
	Includes []sensors.Component `json:"includes,omitempty"`
	Source   string              `json:"source"`
	Note     string              `json:"note,omitempty"`
	// Energy is what the device drew, nil where nothing could be observed;
	// Low and High are its interval, k = 2.
	Energy *sensors.Joules `json:"energy_j"`
	Low    *sensors.Joules `json:"low_j"`
	High   *sensors.Joules `json:"high_j"`
	// Attributed is the part of Energy that the report's scope is charged
	// with: all of it for the machine, the job's share for the job.
	Attributed *sensors.Joules `json:"attributed_j"`
	// Coverage is the share of the run that Energy accounts for, 0 to 1.
	Coverage float64 `json:"coverage"`
	Status   string  `json:"status"`
	// Reason explains a status that is not "ok".
	Reason string `json:"reason,omitempty"`
	// Estimated is the time bridged between readings that were too far apart.
	Estimated float64 `json:"estimated_s,omitempty"`
	Resets    uint32  `json:"resets,omitempty"`
	Rejected  uint32  `json:"rejected,omitempty"`
}

// The values of Device.Status.
const (
	StatusOK     = "ok"     // read to the end, and covered
	StatusGaps   = "gaps"   // read to the end, with time that is not covered
	StatusFailed = "failed" // not readable at the end; Energy is what was seen before
	StatusUnseen = "unseen" // nothing could be observed; Energy is nil
)

// Missing is hardware of which the report has no figure.
type Missing struct {
	Component sensors.Component `json:"component"`
	Device    string            `json:"device,omitempty"`
	// Status is absent, where the machine has no such hardware, or
	// unreadable, where it has and could not be read.
	Status sensors.Status `json:"status"`
	Reason string         `json:"reason"`
	Remedy string         `json:"remedy,omitempty"`
}

// LeftOut is a source that was looked for and is not used.
type LeftOut struct {
	Source string `json:"source"`
	Missing
}

// Emissions are grams of CO2 equivalent, with the interval, k = 2.
type Emissions struct {
	Operational emissions.GramsCO2e `json:"operational"`
	Low         emissions.GramsCO2e `json:"low"`
	High        emissions.GramsCO2e `json:"high"`
}

// Sampling is how the run was sampled.
type Sampling struct {
	Interval float64 `json:"interval_s"`
	Samples  uint64  `json:"samples"`
	Missed   uint64  `json:"missed"`
	Errors   uint64  `json:"errors"`
	// Suspended is the time the machine slept during the run, in seconds. It
	// is not part of the run's duration, and its energy is not known.
	Suspended float64 `json:"suspended_s,omitempty"`
}

// Power returns the mean power of an energy of the report over its run.
func (r Run) Power(j sensors.Joules) sensors.Watts {
	return sensors.Watts(float64(j) / r.Duration)
}

// minSuspension is what the machine must have slept to be worth a word: the two
// clocks that tell are not read at one moment.
const minSuspension = 500 * time.Millisecond

// fullCoverage is the coverage below which a device has a gap worth a status,
// and the total is partial. Its tolerance is for readings that are not taken at
// the very moment of the sample.
const fullCoverage = 0.99

// report computes the report at a sample.
func (t *Tracker) report(now *sample) Report {
	first := t.sampler.first.Load()
	r := t.blank
	r.Run.Start, r.Run.End = first.at.Round(0), now.at.Round(0)
	r.Run.Duration = now.at.Sub(first.at).Seconds()
	r.Sampling = Sampling{
		Interval: t.sampler.interval.Seconds(),
		Samples:  now.counts.samples,
		Missed:   now.counts.missed,
		Errors:   now.counts.errors,
	}
	if now.suspended > minSuspension {
		r.Sampling.Suspended = now.suspended.Seconds()
		r.Notes = append(slices.Clone(t.blank.Notes), fmt.Sprintf(
			"the machine was suspended for %v; that time and its energy are not in the figures", now.suspended.Round(time.Second)))
	}
	r.Missing = append([]Missing{}, t.blank.Missing...)
	r.Devices = make([]Device, 0, len(now.devices))
	var parts, all []emissions.Part
	var total sums
	for i := range now.devices {
		if i == t.sampler.node.meter {
			continue
		}
		d := t.device(i, first, now)
		r.Devices = append(r.Devices, d)
		if d.Energy == nil {
			r.Missing = append(r.Missing, Missing{Component: d.Component, Device: d.ID, Status: sensors.Unreadable, Reason: d.Reason})
		} else {
			all = append(all, t.part(i, now, *d.Energy))
		}
		if d.Status != StatusOK && d.Coverage < fullCoverage {
			r.Partial = true
		}
		if d.Attributed == nil {
			continue
		}
		total.add(d.Component, now.devices[i].charged(t.sampler.devices[i], r.Scope))
		parts = append(parts, t.part(i, now, *d.Attributed))
	}
	if r.Scope == Job {
		r.Missing = append(r.Missing, notAttributable(r.Devices)...)
	}
	for _, m := range r.Missing {
		r.Partial = r.Partial || m.Status == sensors.Unreadable
	}
	_, relAll := emissions.Sum(all...)
	var relNode float64
	r.Node, relNode = t.nodeReport(first, now, relAll)
	r.Job = t.jobEnergy(now, r.Devices)
	r.Quality = t.flags(now, r)
	_, rel := emissions.Sum(parts...)
	if len(parts) > 0 {
		r.Energy = total.energy()
		r.Bounds.Device = interval(*r.Energy.Device, rel)
	}
	if plug := now.energies.plug.Joules(); r.Node.Energy != nil && (r.Scope == Machine || len(parts) > 0) {
		r.Energy.Node = &plug
		if r.Scope == Job {
			// A share of the node is as wrong as the node and the share are.
			relNode = emissions.Quadrature(relNode, rel)
		}
		rel = relNode
		r.Bounds.Node = interval(plug, rel)
		// What a meter did not see, and no model stands in for, is missing.
		r.Partial = r.Partial || r.Node.Profile == nil && r.Node.Coverage < fullCoverage
		if r.Energy.Device != nil {
			unseen := plug - *r.Energy.Device
			r.Energy.Unseen = &unseen
		}
	} else if len(parts) == 0 {
		return r
	}
	facility := now.footprint.Facility
	r.Energy.Facility = &facility
	r.Bounds.Facility = interval(facility, emissions.Quadrature(rel, now.footprint.FacilityRel))
	g := now.footprint.Operational
	low, high := emissions.Bounds(g, emissions.Quadrature(rel, now.footprint.Rel))
	r.Emissions = &Emissions{Operational: g, Low: low, High: high}
	return r
}

// part is a device's energy with its error, as a part of a total.
func (t *Tracker) part(i int, now *sample, energy sensors.Joules) emissions.Part {
	return emissions.Part{
		Value: float64(energy),
		Rel:   relativeError(t.sampler.devices[i], &now.devices[i]),
		Group: string(t.sampler.devices[i].Component),
	}
}

// device describes device i at a sample.
func (t *Tracker) device(i int, begin, end *sample) Device {
	first, now, elapsed := &begin.devices[i], &end.devices[i], end.at.Sub(begin.at)
	desc := t.sampler.devices[i]
	d := Device{
		ID: desc.ID, Name: desc.Name, Vendor: desc.Vendor, Component: desc.Component,
		Method: desc.Method, Scope: desc.Scope, Includes: desc.Includes, Source: desc.Source, Note: desc.Note,
		Estimated: now.Estimated.Seconds(), Resets: now.Resets, Rejected: now.Rejected,
		Status: StatusOK,
	}
	if now.Method != "" {
		d.Method = now.Method
	}
	if elapsed > 0 {
		// Readings are taken a little after their sample's time, and not
		// always equally so: more than all is all.
		d.Coverage = min(now.Observed.Seconds()/elapsed.Seconds(), 1)
	}
	switch {
	case !now.seen(desc):
		d.Status, d.Coverage = StatusUnseen, 0
		switch {
		case now.Err != nil:
			d.Reason = now.Err.Error()
		case first.Err != nil:
			d.Reason = first.Err.Error()
		case now.stuck(desc):
			d.Reason = fmt.Sprintf("its counter stood still for %v, which no running hardware does", now.Observed.Round(time.Second))
		default:
			d.Reason = fmt.Sprintf("the run was shorter than the %v between two updates of its sensor", desc.Refresh)
		}
		return d
	case now.Err != nil && !errors.Is(now.Err, sensors.ErrTransient) || now.Err != nil && d.Coverage < fullCoverage:
		d.Status, d.Reason = StatusFailed, now.Err.Error()
	case d.Coverage < fullCoverage:
		d.Status = StatusGaps
		d.Reason = fmt.Sprintf("%v of the run could not be observed", (elapsed - now.Observed).Round(time.Millisecond))
	case now.Resets > 0:
		d.Reason = fmt.Sprintf("its counter restarted %d times", now.Resets)
	}
	e := now.Energy.Joules()
	d.Energy = &e
	low, high := emissions.Bounds(e, relativeError(desc, now))
	d.Low, d.High = &low, &high
	switch {
	case t.sampler.scope == Machine:
		d.Attributed = &e
	case t.sampler.attributable(i, end):
		job := now.charge.energy.Joules()
		d.Attributed = &job
	}
	return d
}

func interval(v sensors.Joules, rel float64) *Interval {
	low, high := emissions.Bounds(v, rel)
	return &Interval{Low: low, High: high}
}

// sums adds device energies in whole microjoules, so that a total is exactly the
// sum of its parts whatever their order.
type sums struct {
	component [3]sensors.Microjoules
	known     [3]bool
}

func (s *sums) add(c sensors.Component, e sensors.Microjoules) {
	i := slices.Index([]sensors.Component{sensors.GPU, sensors.CPU, sensors.Memory}, c)
	if i < 0 {
		return
	}
	s.component[i] += e
	s.known[i] = true
}

func (s *sums) energy() Energy {
	var e Energy
	var total sensors.Microjoules
	for i, to := range []**sensors.Joules{&e.GPU, &e.CPU, &e.Memory} {
		if s.known[i] {
			j := s.component[i].Joules()
			*to = &j
			total += s.component[i]
		}
	}
	j := total.Joules()
	e.Device = &j
	return e
}

// notAttributable lists the components that were measured and of which the
// job's share is not known.
func notAttributable(devices []Device) []Missing {
	var missing []Missing
	seen := map[sensors.Component]bool{}
	for _, d := range devices {
		if d.Energy != nil && d.Attributed == nil && !seen[d.Component] {
			seen[d.Component] = true
			missing = append(missing, Missing{
				Component: d.Component, Status: sensors.Unreadable,
				Reason: fmt.Sprintf("the job's share of the %s energy is not known", d.Component),
				Remedy: "use scope machine, which charges all of it",
			})
		}
	}
	return missing
}

// jobEnergy computes the job's own figures.
func (t *Tracker) jobEnergy(now *sample, devices []Device) JobEnergy {
	job := JobEnergy{Components: []sensors.Component{}, Shares: []JobShare{}}
	if t.sampler.job != nil {
		job.Accounting = t.sampler.job.Accounting()
	}
	if now.usageKnown {
		seconds := now.usage.CPU.Seconds()
		job.CPUSeconds = &seconds
	}
	job.Idle = t.sampler.idle
	job.Reserved = t.sampler.reserved.report()
	var total, drawn sensors.Microjoules
	var ways []string
	for _, c := range []sensors.Component{sensors.GPU, sensors.CPU, sensors.Memory} {
		var sum sensors.Microjoules
		var method share
		var methods []string // of the devices that the job is on
		var idle sensors.Watts
		k := 0
		for i := range now.devices {
			if i == t.sampler.node.meter {
				continue
			}
			d := devices[k]
			k++
			if d.Component == c && d.Energy != nil && t.sampler.attributable(i, now) {
				sum += now.devices[i].charge.due
				drawn += now.devices[i].Energy
				idle += now.devices[i].charge.idle
				method = t.sampler.shareOf(i, now)
				if use := now.devices[i].use; !use.known || use.used {
					methods = append(methods, string(method))
				}
			}
		}
		if method == "" {
			continue
		}
		total += sum
		if len(methods) == 0 {
			methods = []string{string(method)}
		}
		ways = append(ways, methods...)
		job.Components = append(job.Components, c)
		share := JobShare{Component: c, Energy: sum.Joules(), Method: join(methods)}
		if !math.IsNaN(float64(idle)) {
			share.IdlePower = &idle
		}
		job.Shares = append(job.Shares, share)
	}
	if len(job.Shares) > 0 {
		j, rest := total.Joules(), (drawn - min(total, drawn)).Joules()
		job.Energy, job.Unattributed, job.Method = &j, &rest, join(ways)
		if e := now.energies; e.nodeKnown {
			plug := sensors.Joules(e.job / 1e6)
			job.Node = &plug
		}
	}
	return job
}

// report returns what is reserved as the report has it.
func (r reserved) report() *Reserved {
	if math.IsNaN(r.cpu) && math.IsNaN(r.memory) {
		return nil
	}
	known := func(v float64) *float64 {
		if math.IsNaN(v) {
			return nil
		}
		return &v
	}
	return &Reserved{CPU: known(r.cpu), Memory: known(r.memory), Source: r.source}
}

// Coverage returns the share of the run that the energies account for, the mean
// over the devices that were charged, 0 to 1.
func (r Report) Coverage() float64 {
	var sum float64
	var n int
	for _, d := range r.Devices {
		if d.Energy != nil {
			sum += d.Coverage
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// methodsOf returns the methods by which a component was measured, each once.
func methodsOf(devices []Device, c sensors.Component) []string {
	var methods []string
	for _, d := range devices {
		if d.Component == c && d.Energy != nil {
			methods = append(methods, string(d.Method))
		}
	}
	return methods
}

// join joins distinct words, sorted. It leaves the words themselves as they are.
func join(words []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(words))), ",")
}
