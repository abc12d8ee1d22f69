package tracker

import (
	"math"
	"os"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// Idle says who is charged with what a device draws whether it works or not. It
// decides about the job's figures, never about the machine's.
type Idle string

const (
	// IdleProportional divides idle power as all the rest: by use. A job alone
	// on its machine is charged with all of it, and what jobs are charged with
	// never adds up to more than there is. It is the default.
	IdleProportional Idle = "proportional"
	// IdleWhole charges the job with all of the idle power of what it uses, and
	// with its share of the rest: for a machine that is kept for the job.
	IdleWhole Idle = "whole"
	// IdleReserved charges the job with the part of the idle power that is
	// reserved for it, by a control group's limit or a batch system. What
	// nothing reserves is divided as by IdleProportional.
	IdleReserved Idle = "reserved"
	// IdleNone charges the job with nothing of it: the idle power is the
	// machine's.
	IdleNone Idle = "none"
)

// idleWindow is the time over which a mean power is taken for what a device draws
// idle, if it is the least of the run. Over a shorter one a dip would do.
const idleWindow = 10 * time.Second

// charge is what the job is charged with of one device.
//
// With s the job's share of what a device does and r the part of its idle power
// that falls to the job, it is
//
//	Σ s·(E − P·t) + r·P·t  =  Σ s·E − P·Σ (s − r)·t
//
// over the windows, P being the idle power: the least mean power of the device over
// idleWindow in the run. Both sums are kept, so that P may be known late.
type charge struct {
	due    sensors.Microjoules // what the formula says now
	energy sensors.Microjoules // the most that it has said: a total never decreases
	shared sensors.Microjoules // Σ s·E
	excess float64             // Σ (s − r)·t, in seconds

	idle         sensors.Watts // P; NaN where it is not known yet
	sinceEnergy  sensors.Microjoules
	sinceObserve time.Duration
}

// newCharge is the charge at the first sample.
func newCharge() charge { return charge{idle: sensors.Watts(math.NaN())} }

// add charges the job with a window: of the energy, which was drawn in the time,
// the shares s and r. Rounded down: the remainder stays with the machine.
func (c *charge) add(energy sensors.Microjoules, t time.Duration, s, r float64) {
	c.shared += min(sensors.Microjoules(float64(energy)*s), energy)
	c.excess += (s - r) * t.Seconds()
}

// settle computes the charge from the sums, given what the device has drawn. While
// the idle power is not known, the total is charged with the less of what it would
// be without one and of what it would be if the mean power so far were it: what is
// charged once is not taken back. At the end of a run it is the former.
func (c *charge) settle(drawn sensors.Tally, ending bool) {
	if t := drawn.Observed - c.sinceObserve; t >= idleWindow {
		p := sensors.Watts((drawn.Energy - c.sinceEnergy).Joules()) / sensors.Watts(t.Seconds())
		if !(c.idle <= p) {
			c.idle = p
		}
		c.sinceEnergy, c.sinceObserve = drawn.Energy, drawn.Observed
	}
	known := !math.IsNaN(float64(c.idle))
	c.due = c.shared
	if known {
		c.due = c.at(c.idle, drawn)
	}
	charged := c.due
	if !known && !ending && drawn.Observed > 0 {
		mean := sensors.Watts(float64(drawn.Energy.Joules()) / drawn.Observed.Seconds())
		charged = min(charged, c.at(mean, drawn))
	}
	c.energy = max(c.energy, charged)
}

// at returns the charge with an idle power.
func (c *charge) at(idle sensors.Watts, drawn sensors.Tally) sensors.Microjoules {
	e := float64(c.shared) - float64(idle)*1e6*c.excess
	return sensors.Microjoules(min(max(e, 0), float64(drawn.Energy)))
}

// reserved is the part of the machine that is reserved for the job, 0 to 1; NaN
// where nothing is.
type reserved struct {
	cpu, memory float64
	source      string
}

// unreserved is a job for which nothing is reserved.
var unreserved = reserved{cpu: math.NaN(), memory: math.NaN()}

// reservation returns what is reserved of a machine for this process and those it
// starts.
func reservation(machine host.Machine) reserved {
	found := host.DetectReservation("/", os.LookupEnv, machine)
	r := unreserved
	var sources []string
	if found.CPU != nil {
		r.cpu, sources = found.CPU.Share, append(sources, found.CPU.Source)
	}
	if found.Memory != nil {
		r.memory, sources = found.Memory.Share, append(sources, found.Memory.Source)
	}
	r.source = strings.Join(sources, "; ")
	return r
}

// idleShare returns the part of a device's idle power that falls to the job, given
// its share of what the device does and the part that is reserved for it.
func (p Idle) idleShare(share, reserved float64) float64 {
	switch {
	case p == IdleNone:
		return 0
	case p == IdleWhole:
		return 1
	case p == IdleReserved && !math.IsNaN(reserved):
		return reserved
	default:
		return share
	}
}

// attribute charges the job with its share of device i in the window from last to
// next.
func (s *sampler) attribute(i int, last, next *sample, cpu, memory float64) {
	was, now := &last.devices[i], &next.devices[i]
	now.charge = was.charge
	energy, t := now.Energy-was.Energy, now.Observed-was.Observed
	switch s.shareOf(i, next) {
	case "":
		return
	case shareCPUTime:
		now.charge.add(energy, t, cpu, s.idle.idleShare(cpu, s.reserved.cpu))
	case shareMemory:
		now.charge.add(energy, t, memory, s.idle.idleShare(memory, s.reserved.memory))
	case shareVisible:
		part := s.rules[i].part
		now.charge.add(energy, t, part, s.ofDevice(i, part, part))
	default:
		// By the look that is latest now: it was taken as the window began.
		if use := &now.use; use.used {
			if !was.use.used {
				// Seen for the first time: charged from the look that did not see it.
				energy = now.Energy - max(min(use.before, now.Energy), was.charge.shared)
				t = max(now.Observed-use.since, 0)
			}
			now.charge.add(energy, t, use.share, s.ofDevice(i, use.share, use.reserved))
		}
	}
	now.charge.settle(now.Tally, next.ending)
}

// ofDevice is idleShare for a device of which the job has a part: of one that is
// divided, the whole of the idle power is not the job's.
func (s *sampler) ofDevice(i int, share, part float64) float64 {
	if s.idle == IdleWhole && len(s.devices[i].Parts) > 0 || s.idle == IdleWhole && part == 0 {
		return part
	}
	return s.idle.idleShare(share, part)
}
