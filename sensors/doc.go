// Package sensors is the contract between the hardware and everything else in
// Wattspan: what a sensor is, what a reading means, and how the best disjoint
// set of sensors is found on a machine. It imports the standard library only.
//
// # Basics
//
// A [Sensor] reads one or more devices, and every reading is cumulative:
// microjoules since the first Read, never a power that somebody else has to
// integrate. Above this package there is only subtraction, so that a tick that
// comes late, or not at all, changes nothing for a device with a counter.
//
// [Detect] asks every registered back-end what it can read, keeps the best
// source for each piece of hardware and says, for each source it left out, why
// and what to do about it. Back-ends register themselves when imported, like
// database drivers:
//
//	import (
//		"github.com/wattspan/wattspan/sensors"
//		_ "github.com/wattspan/wattspan/sensors/host" // CPU and memory models, every system
//		_ "github.com/wattspan/wattspan/sensors/nvml" // NVIDIA GPUs, Linux with cgo
//		_ "github.com/wattspan/wattspan/sensors/rapl" // CPU and DRAM counters, Linux
//	)
//
// The tracker imports rapl and host by itself. nvml is left to the program,
// because it brings cgo and lazily bound symbols into it.
//
// # Writing a sensor
//
// A back-end for a new device is a type with the four methods of [Sensor] and
// an init function that calls [Register]. [Counter] turns a raw hardware
// counter into microjoules from zero, whatever it starts at and however it
// wraps or restarts; [Integrator] does the same for power readings. Both are
// pure functions of (time, reading). Package sensortest has scripted devices
// and a conformance kit that every Sensor must pass.
//
// # Caveats
//
// Unavailable is not zero: hardware that is not there is [Absent], hardware
// that is there and cannot be read is [Unreadable], and only the latter makes
// a total partial.
package sensors
