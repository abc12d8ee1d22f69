package sensors

import (
	"time"
)

// Component is the kind of hardware a device is, in the values that
// OpenTelemetry defines for hw.type.
type Component string

// The components Wattspan tells apart.
const (
	GPU    Component = "gpu"
	CPU    Component = "cpu"
	Memory Component = "memory"
	// Node is the machine as a whole, as a power meter at its input sees it. It
	// contains all other components and is never added to them.
	Node Component = "node"
)

// Method says how the joules of a device were obtained.
type Method string

// The methods, from the best to the least.
const (
	// MethodCounter is an energy counter of the hardware or its driver:
	// differences are exact whatever the sampling interval.
	MethodCounter Method = "counter"
	// MethodPowerAverage integrates a power that the hardware has already
	// averaged, over 1 s on NVIDIA GPUs.
	MethodPowerAverage Method = "power_average"
	// MethodPower integrates instantaneous power readings.
	MethodPower Method = "power"
	// MethodModel computes a power from a load and a table, and integrates it.
	MethodModel Method = "model"
	// MethodConstant multiplies a constant power with time.
	MethodConstant Method = "constant"
)

// rank orders methods: a lower rank is preferred where two sources see the
// same hardware.
func (m Method) rank() int {
	switch m {
	case MethodCounter:
		return 0
	case MethodPowerAverage:
		return 1
	case MethodPower:
		return 2
	case MethodModel:
		return 3
	default:
		return 4
	}
}

// Measured reports whether the method reads the hardware rather than a model
// of it.
func (m Method) Measured() bool { return m.rank() <= MethodPower.rank() }

// Scope says what a device's figure encloses.
type Scope string

// The scopes of a figure.
const (
	// ScopeDevice is the device and nothing else.
	ScopeDevice Scope = "device"
	// ScopeModule is a superchip's module: the GPU with the CPU and memory
	// that share its package.
	ScopeModule Scope = "module"
	// ScopeShare is a part of a larger device, as a virtual machine's threads
	// are of the host's processor.
	ScopeShare Scope = "share"
	// ScopeNode is the whole machine, with what no other sensor sees: fans,
	// disks, network, the loss of the power supplies.
	ScopeNode Scope = "node"
)

// Device describes one thing whose energy a sensor reads.
type Device struct {
	// ID is the stable identity: the UUID of a GPU, "package-0", "dram-0".
	// Two devices with one ID are the same hardware seen by two sources.
	ID string
	// Index is the place among the devices of its kind by which the vendor's
	// tools and the users' environment variables name it, from 0. Everything
	// else goes by ID.
	Index int
	// Name is the model, as the hardware gives it.
	Name   string
	Vendor string

	Component Component
	Method    Method
	Scope     Scope

	// Source names the back-end, and where it reads: "nvml",
	// "rapl /sys/class/powercap/intel-rapl:0".
	Source string
	// Note explains a figure that needs explaining, in one line: the terms of
	// a model, the limits of a reading.
	Note string

	// ErrorBand is the relative systematic error of the figure, one standard
	// deviation: 0.05 for ±5 %.
	ErrorBand float64
	// Refresh is how stale a value can be. It is the error in time at either
	// end of an interval.
	Refresh time.Duration

	// Parent is the ID of the device this one is a part of, if any.
	Parent string
	// Whole is set when the figure stands for all the hardware of its
	// component, as a model of "the CPU" does.
	Whole bool
	// Includes lists further components that are inside the figure: CPU and
	// memory in the module reading of a superchip.
	Includes []Component
	// Declared is set where the user named the source: it is preferred to what
	// was found.
	Declared bool
	// Parts are the instances that the device is divided into, as a GPU in MIG
	// mode is; empty for a device that is not. They have no energy of their own.
	Parts []Part
}

// Part is an instance of a device that is divided, such as a MIG instance.
type Part struct {
	// ID is what the vendor's tools call it: the UUID of a MIG instance.
	ID string
	// Share is its part of the device, 0 to 1: of a MIG instance its compute
	// slices over those of the GPU. Those of a device need not add up to 1.
	Share float64
}

// Tally is what has been accumulated for one device since its first reading.
// Every field only grows.
type Tally struct {
	// Energy is the cumulative energy, from 0.
	Energy Microjoules
	// Observed is the time that Energy accounts for. Against the elapsed time
	// it gives the coverage.
	Observed time.Duration
	// Estimated is the part of Observed that was bridged between readings
	// further apart than the sensor asks for.
	Estimated time.Duration
	// Resets counts restarts of the hardware's counter.
	Resets uint32
	// Rejected counts readings that were physically impossible.
	Rejected uint32
	// Variance is that of Energy, in J², for what happened between two readings
	// of a power and was not seen, as [Integrator] estimates it. A counter has
	// none.
	Variance float64
}

// Plus returns the sum of two tallies, for a device whose method changed.
func (t Tally) Plus(u Tally) Tally {
	return Tally{
		Energy:    t.Energy + u.Energy,
		Observed:  t.Observed + u.Observed,
		Estimated: t.Estimated + u.Estimated,
		Resets:    t.Resets + u.Resets,
		Rejected:  t.Rejected + u.Rejected,
		Variance:  t.Variance + u.Variance,
	}
}

// Reading is the state of one device at one moment.
type Reading struct {
	// At is the time at which the value was valid, with a monotonic clock
	// reading where the system has one.
	At time.Time
	Tally
	// Power is the latest known power; NaN where it is not known.
	Power Watts
	// Utilization is the share of time the device was busy, 0 to 1; NaN where
	// it is not known.
	Utilization float64
	// Method is how the energy since the last reading was obtained; empty
	// means as Device.Method says. It differs once a driver has stopped to
	// support the better method.
	Method Method
	// ErrorBand is that of Method, where it is not the device's own.
	ErrorBand float64
	// Doubt says why the figure should be doubted although the device could be
	// read, nil where nothing speaks against it: two readings of one device that
	// disagree, say. It wraps ErrDisagreement.
	Doubt error
	// Err says why the device could not be read this time. The tally then
	// holds its last value. Test it with errors.Is against the sentinels of
	// this package.
	Err error
}

// Sensor reads the cumulative energy of one or more devices.
//
// All methods are called from one goroutine at a time, not always the same
// one; the sensor needs no lock of its own. A Sensor must not write to standard
// output or standard error, start goroutines that outlive Close, or panic.
type Sensor interface {
	// Devices describes what Read fills, in its order. It may be called at
	// any time; neither the slice nor its elements change after opening.
	Devices() []Device

	// Read stores into dst[i] the reading of device i; dst is at least as
	// long as Devices, and what it holds on entry means nothing. The first
	// Read gives zero energy: it is the origin. Energy and the other fields
	// of Tally never decrease. A device that cannot be read says so in Err and
	// keeps its tally; it never prevents the others from being read.
	//
	// Read is called about once a second for weeks: it allocates nothing in
	// steady state.
	Read(dst []Reading)

	// Timing says how the sensor wants to be read.
	Timing() Timing

	// Close releases what the sensor holds. Read is not called again.
	Close() error
}

// ProcessLister is a Sensor that can say which processes use its devices. The
// question costs a driver milliseconds under its lock: it is asked every now and
// then, and never at a tick.
type ProcessLister interface {
	Sensor
	// Processes returns the processes that use device i of Devices at this
	// moment. It is called from the goroutine that reads. A process that uses
	// several parts of the device is there once for each.
	Processes(i int) ([]ProcessUse, error)
}

// ProcessUse is what one process makes of a device.
type ProcessUse struct {
	// PID is its number in the initial PID namespace.
	PID int
	// Busy is the part of the time since the last question in which the process
	// kept the device busy, 0 to 1; NaN where that is not known.
	Busy float64
	// Part is the ID of the part of the device that it uses; empty where the
	// device is not divided.
	Part string
}

// Timing says how a sensor wants to be read.
type Timing struct {
	// MaxInterval is the longest time two reads may be apart before the
	// figures suffer: half the wrap period of a counter, the sampling period
	// of a power reading. 0 means any.
	MaxInterval time.Duration
	// MayBlock is set where Read calls into a driver or a network and can
	// hang. Such a sensor is read by a goroutine of its own, with a deadline.
	MayBlock bool
}
