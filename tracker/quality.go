package tracker

import (
	"fmt"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// Flag is a doubt about a figure: something was seen that speaks against it. A
// report without flags is one that nothing was held against.
type Flag struct {
	Kind FlagKind `json:"flag"`
	// Device is what the doubt is about; empty for the run as a whole.
	Device string `json:"device,omitempty"`
	// Reason is one sentence, with the figures that disagree.
	Reason string `json:"reason"`
}

// FlagKind is the kind of a doubt.
type FlagKind string

// The kinds of doubt.
const (
	// FlagDisagreement: two ways to read one device differ by more than their
	// errors, its counter and its power for example.
	FlagDisagreement FlagKind = "disagreement"
	// FlagNodeBelowSum: the meter of the node shows less than its components.
	FlagNodeBelowSum FlagKind = "node_below_sum"
	// FlagUnexplained: most of what the node draws is in no component.
	FlagUnexplained FlagKind = "unexplained"
	// FlagBound: readings that were physically impossible were left out.
	FlagBound FlagKind = "bound"
	// FlagReset: a counter has restarted, and what was used before is lost.
	FlagReset FlagKind = "reset"
	// FlagCoverage: a part of the run could not be observed.
	FlagCoverage FlagKind = "coverage"
	// FlagEstimated: readings were so far apart that what lies between is a
	// guess.
	FlagEstimated FlagKind = "estimated"
	// FlagLost: the device has gone during the run.
	FlagLost FlagKind = "lost"
	// FlagMethod: the device had to be read in a lesser way during the run.
	FlagMethod FlagKind = "method_changed"
	// FlagSuspended: the machine slept.
	FlagSuspended FlagKind = "suspended"
	// FlagClock: the wall clock was moved.
	FlagClock FlagKind = "clock_jump"
	// FlagHandover: the process that read the hardware for this one ended, and
	// another took over.
	FlagHandover FlagKind = "handover"
)

// minJump is the least step of the wall clock that is one: below, it is a clock
// that is being disciplined.
const minJump = time.Second

// clockJump returns by how much the wall clock was moved between two times that
// have a monotonic reading, in either direction. What the machine slept between them
// moves it too, and is told by another flag.
func clockJump(from, to time.Time, slept time.Duration) time.Duration {
	moved := to.Round(0).Sub(from.Round(0)) - to.Sub(from) - slept
	if moved = moved.Abs(); moved < minJump {
		return 0
	}
	return moved
}

// unexplained is the part of a node's energy above which a residual is a doubt: no
// node of the published measurements has more than half of its energy outside its
// GPUs, processors and memory.
const unexplained = 0.6

// flags returns the doubts about a report.
func (t *Tracker) flags(now *sample, r Report) []Flag {
	flags := []Flag{}
	add := func(kind FlagKind, device, format string, args ...any) {
		flags = append(flags, Flag{Kind: kind, Device: device, Reason: fmt.Sprintf(format, args...)})
	}
	components := r.Devices
	for i, desc := range t.sampler.devices {
		state := &now.devices[i]
		var d Device
		if i == t.sampler.node.meter {
			d = *r.Node.Meter
		} else {
			d, components = components[0], components[1:]
		}
		if state.Doubt != nil {
			add(FlagDisagreement, d.ID, "%v", state.Doubt)
		}
		if state.Rejected > 0 {
			add(FlagBound, d.ID, "%d readings were physically impossible and are left out", state.Rejected)
		}
		if state.Resets > 0 {
			add(FlagReset, d.ID, "its counter restarted %d times; what was used just before is not known", state.Resets)
		}
		if state.lost {
			add(FlagLost, d.ID, "the device went away during the run")
		}
		if d.Energy != nil && d.Coverage < fullCoverage {
			add(FlagCoverage, d.ID, "%.0f %% of the run was observed", 100*d.Coverage)
		}
		if d.Estimated > 0 {
			add(FlagEstimated, d.ID, "%.1f s were bridged between readings too far apart", d.Estimated)
		}
		if state.Method != "" && state.Method != desc.Method {
			add(FlagMethod, d.ID, "it was read by its %s at first, and by its %s at the end", desc.Method, state.Method)
		}
	}
	if e := now.energies; r.Node.Meter != nil && r.Node.Residual != nil && t.metersNode(now) {
		switch {
		case *r.Node.Residual < 0 && r.Node.Coverage >= fullCoverage && *r.Node.High < leastSensed(r.Devices):
			add(FlagNodeBelowSum, r.Node.Meter.ID, "the meter shows %v and the components together %v, beyond its error", e.node.Joules(), e.sensed.Joules())
		case *r.Node.Residual > sensors.Joules(unexplained)**r.Node.Energy:
			add(FlagUnexplained, r.Node.Meter.ID, "%.0f %% of what the machine drew is in no component that was read", 100*float64(*r.Node.Residual / *r.Node.Energy))
		}
	}
	if now.suspended > minSuspension {
		add(FlagSuspended, "", "the machine slept for %v, of which no energy is known", now.suspended.Round(time.Second))
	}
	if now.jumped > 0 {
		add(FlagClock, "", "the wall clock was moved by %v; durations are not affected, the time of day of the figures is", now.jumped.Round(time.Second))
	}
	if n, gap := t.sampler.handovers(); n > 0 {
		add(FlagHandover, "", "another run read the hardware for this one and ended; it was taken over %d times, and %v were not observed", n, gap.Round(time.Millisecond))
	}
	return flags
}

// leastSensed is what the components drew at the least: a meter speaks against
// another, and not against a model that may be off by more.
func leastSensed(components []Device) (sum sensors.Joules) {
	for _, d := range components {
		switch {
		case d.Energy == nil:
		case d.Method.Measured():
			sum += *d.Energy
		default:
			sum += *d.Low
		}
	}
	return sum
}

// metersNode reports whether the meter of the node has a figure.
func (t *Tracker) metersNode(now *sample) bool {
	m := t.sampler.node.meter
	return m >= 0 && now.devices[m].seen(t.sampler.devices[m])
}
