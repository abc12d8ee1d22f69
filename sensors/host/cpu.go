package host

import (
	"fmt"
	"math"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// Error bands of the processor model, relative, one standard deviation. They
// are judgement, from the spread between published models of one processor;
// nothing here was calibrated against a meter.
const (
	knownBand   = 0.35 // TDP and curve of a known model
	classBand   = 0.50 // the spread of models within a class on top
	unknownBand = 0.70 // the spread of all processors on top
	// shareBand is what a share of a host adds, in quadrature: its idle power is
	// split by threads whoever else is on it, whether it has SMT is assumed, and
	// a vCPU may be oversubscribed.
	shareBand = 0.20
)

// curve gives the power of a processor as a fraction of its TDP at a load of
// 0, 10, 50 and 100 %, joined by straight lines. The points are those that
// Teads Engineering measured with RAPL on Intel servers ("Building an AWS EC2
// Carbon Emissions Dataset", B. Davy, 2021) and that the Impact Framework of the
// Green Software Foundation publishes as the Teads curve, with linear
// interpolation, and with the warning that it does not generalise well: hence
// the bands. Idle is not zero, and full load is a little more than the TDP.
var curve = [...]struct{ load, fraction float64 }{
	{0, 0.12}, {0.10, 0.32}, {0.50, 0.75}, {1, 1.02},
}

// fraction interpolates the curve. A load outside 0 to 1 counts as the nearer
// end.
func fraction(load float64) float64 {
	for i := 1; i < len(curve); i++ {
		a, b := curve[i-1], curve[i]
		if load <= b.load {
			return a.fraction + (b.fraction-a.fraction)*max(load-a.load, 0)/(b.load-a.load)
		}
	}
	return curve[len(curve)-1].fraction
}

// cpu models the processor: rated power × curve(load).
type cpu struct {
	meter
	rated sensors.Watts
	clock *CPUClock

	primed bool
	times  CPUTimes
	load   float64
}

func newCPU(m Machine, clock *CPUClock) (sensors.Device, *cpu) {
	r := rate(m)
	d := sensors.Device{
		ID: "cpu", Name: m.Model, Vendor: m.Vendor,
		Component: sensors.CPU, Method: sensors.MethodModel, Scope: sensors.ScopeDevice,
		Source: clock.source(), Note: r.note, ErrorBand: r.band, Refresh: statUnit, Whole: true,
	}
	if m.Virtual() {
		d.Scope = sensors.ScopeShare
	}
	return d, &cpu{meter: newMeter(), rated: r.watts, clock: clock, load: math.NaN()}
}

// read returns the power at the mean load since the last read.
func (c *cpu) read() (sensors.Watts, float64, error) {
	now, err := c.clock.Read()
	if err != nil {
		return 0, 0, err
	}
	// Within one tick nothing is known to have changed, and the last load holds.
	if total := now.Total - c.times.Total; c.primed && total > 0 {
		c.load = float64(now.Busy-c.times.Busy) / float64(total)
	}
	c.primed, c.times = true, now
	if math.IsNaN(c.load) {
		return sensors.Watts(math.NaN()), c.load, nil
	}
	return c.rated * sensors.Watts(fraction(c.load)), c.load, nil
}

// rating is the power that the curve multiplies, and how it was found.
type rating struct {
	watts sensors.Watts
	band  float64
	note  string
}

// rate finds the rated power of a machine's processors: by their model, else by
// the class they belong to, and in a virtual machine the guest's share of it.
//
// A guest is charged for its vCPUs as threads of the host. The host is taken to
// run two threads a core, as cloud hosts do, except where the class has no SMT.
// This counts the idle power of the host in proportion, whoever else is on it.
func rate(m Machine) rating {
	var r rating
	name := clean(m.Model)
	row, known := lookup(name)
	switch {
	case known && !m.Virtual():
		r.watts, r.band = row.tdp*sensors.Watts(max(m.Sockets, 1)), knownBand
		r.note = fmt.Sprintf("model: TDP %v of %s", row.tdp, row.name)
		if m.Sockets > 1 {
			r.note += fmt.Sprintf(" × %d sockets", m.Sockets)
		}
	case known && row.cores > 0:
		threads := row.cores * threadsPerCore(m, row.name)
		vcpus := max(m.Threads, 1)
		r.watts, r.band = row.tdp*sensors.Watts(vcpus)/sensors.Watts(threads), knownBand
		r.note = fmt.Sprintf("model: TDP %v of %s × %d of %d threads", row.tdp, row.name, vcpus, threads)
		if vcpus > threads { // of several sockets
			r.note = fmt.Sprintf("model: TDP %v of %s × %d threads at %d per socket", row.tdp, row.name, vcpus, threads)
		}
	default:
		c := classify(m, name)
		r.band = classBand
		subject := "the median of " + c.name
		if c.unknown {
			r.band = unknownBand
			subject += ", as the model is unknown"
			if name != "" {
				subject += " (" + name + ")"
			}
		}
		perThread := threadsPerCore(m, name)
		switch {
		case m.Virtual():
			vcpus := max(m.Threads, 1)
			r.watts = c.perCore * sensors.Watts(vcpus) / sensors.Watts(perThread)
			r.note = fmt.Sprintf("model: %v per core, %s, × %d of the host's threads at %d per core",
				c.perCore, subject, vcpus, perThread)
		default:
			cores := m.Cores
			if cores <= 0 {
				cores = max(m.Threads/perThread, 1)
			}
			r.watts = c.perCore * sensors.Watts(cores)
			r.note = fmt.Sprintf("model: %v per core, %s, × %d cores", c.perCore, subject, cores)
		}
	}
	r.note += " × load"
	if m.Virtual() {
		r.band = math.Round(math.Hypot(r.band, shareBand)*100) / 100
	}
	return r
}

// threadsPerCore is what a host is assumed to run where it cannot be seen.
func threadsPerCore(m Machine, name string) int {
	if m.arm || strings.HasPrefix(name, "Ampere ") || strings.HasPrefix(name, "NVIDIA ") || matches("Intel Xeon 6???E*", name) ||
		m.Vendor == "Intel" && m.Family == 6 && m.ModelNumber == sierraForest {
		return 1
	}
	return 2
}
