// Package host models the power of the processor and the memory where no
// counter of the hardware can be read: in most virtual machines, in containers,
// on macOS and Windows, and on Linux without permission for RAPL. Its two
// devices stand for the whole of their component, so [sensors.Detect] uses them
// only where nothing better was found.
//
//	device    power                                        error band
//	cpu       TDP of the model × curve(load)               35 %, 50 % by class, 70 % unknown
//	memory    4 W per module, else 0.3 W per GB            50 %, 60 %
//
// In a virtual machine both are the guest's share of a host that cannot be
// seen, and the bands are wider. The Note of each device prints the terms that
// its figure was computed from.
//
// The package also tells the tracker what the machine is ([Describe]), and
// reads the processor time of the machine ([CPUClock]), of this process
// ([SelfCPU]) and of another one ([ProcessCPU]), without allocating.
//
// # Caveats
//
// A model cannot see what a counter sees: clock frequency, vector units, the
// silicon lottery. The load is the mean over the interval between two reads, and
// the curve is concave, so that a load that changes within the interval draws a
// little less than the model says (Jensen's inequality): at most 0.18 of the TDP, for
// one that jumps between idle and full many times in an interval.
package host

import (
	"context"
	"math"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func init() {
	sensors.Register(sensors.Backend{Name: "host", Component: sensors.CPU, Open: Open, Supports: []sensors.Support{
		{
			Hardware: "any processor, where nothing measures it", Source: "/proc/stat × TDP of the model; the system's own on macOS and Windows",
			Component: sensors.CPU, Unit: "load", Method: sensors.MethodModel, ErrorBand: 0.35,
			Privileges: "every user", Tested: "simulated; real (this model on virtual machines)",
		},
		{
			Hardware: "any memory, where nothing measures it", Source: "MemTotal of /proc/meminfo, modules of /sys/devices/system/edac/mc",
			Component: sensors.Memory, Unit: "bytes", Method: sensors.MethodModel, ErrorBand: 0.50,
			Privileges: "every user", Tested: "simulated; real (virtual machines)",
		},
	}})
}

var _ sensors.Sensor = (*sensor)(nil)

// sensor models the processor and the memory of this machine.
type sensor struct {
	devices []sensors.Device
	models  []model // one per device
	clock   *CPUClock
}

// model is a device's power as a function of what can be read.
type model interface {
	// read returns the power since the last call, and the load that made it.
	// Both are NaN where they are not known yet.
	read() (power sensors.Watts, load float64, err error)
	// tally integrates: power has been drawn since the last call.
	tally(at time.Time, power sensors.Watts) sensors.Tally
	// last returns what was integrated so far.
	last() sensors.Tally
}

// meter integrates the power of a model. What a model returns is the mean since
// the read before, not an instantaneous power, and so it stands for all of that
// interval: a rectangle, which an averaging window as long as the longest gap
// makes of the integrator.
type meter struct {
	integrator sensors.Integrator
	primed     bool
}

func newMeter() meter {
	return meter{integrator: sensors.Integrator{Averaging: sensors.MaxGap}}
}

func (m *meter) tally(at time.Time, power sensors.Watts) sensors.Tally {
	if math.IsNaN(float64(power)) {
		if m.primed {
			return m.last() // still no load: the next interval holds this one
		}
		power = 0 // the origin, before which there is no interval
	}
	m.primed = true
	return m.integrator.Add(at, power)
}

func (m *meter) last() sensors.Tally { return m.integrator.Tally() }

// Open models what this machine is made of. It is the back-end's
// [sensors.Backend] Open, for programs that choose their sensors themselves. The
// sensor is nil where neither processor nor memory can be modelled.
func Open(ctx context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
	machine := Describe(ctx, roots)
	s := &sensor{}
	var omitted []sensors.Omission

	clock, err := OpenCPUClock(roots)
	if err == nil {
		s.clock = clock
		s.add(newCPU(machine, clock))
	} else {
		omitted = append(omitted, sensors.Omission{
			Source: "host", Component: sensors.CPU, Device: "cpu", Status: sensors.Unreadable,
			Reason: "the processor's busy time cannot be read",
			Remedy: "mount the host's procfs and name it in HOST_PROC",
			Err:    err,
		})
	}
	if machine.Memory > 0 {
		s.add(newMemory(machine))
	} else {
		omitted = append(omitted, sensors.Omission{
			Source: "host", Component: sensors.Memory, Device: "memory", Status: sensors.Unreadable,
			Reason: "the size of the memory cannot be read",
			Remedy: "mount the host's procfs and name it in HOST_PROC",
			Err:    sensors.ErrUnsupported,
		})
	}
	if len(s.devices) == 0 {
		return nil, omitted
	}
	return s, omitted
}

func (s *sensor) add(d sensors.Device, m model) {
	s.devices = append(s.devices, d)
	s.models = append(s.models, m)
}

// Devices returns the devices "cpu" and "memory", less what Open left out.
func (s *sensor) Devices() []sensors.Device { return s.devices }

// Read fills one reading per device. It costs one pread of /proc/stat on Linux.
func (s *sensor) Read(dst []sensors.Reading) {
	for i, m := range s.models {
		r := sensors.Reading{Tally: m.last(), Power: sensors.Watts(math.NaN()), Utilization: math.NaN()}
		power, load, err := m.read()
		r.At = time.Now()
		if err != nil {
			r.Err = err
		} else {
			r.Tally, r.Power, r.Utilization = m.tally(r.At, power), power, load
		}
		dst[i] = r
	}
}

// Timing asks for half of [sensors.MaxGap]: one read that comes late, or not at
// all, then does not open a gap.
func (s *sensor) Timing() sensors.Timing {
	return sensors.Timing{MaxInterval: sensors.MaxGap / 2}
}

// Close releases the processor clock.
func (s *sensor) Close() error {
	if s.clock == nil {
		return nil
	}
	return s.clock.Close()
}
