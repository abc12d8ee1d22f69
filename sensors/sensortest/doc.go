// Package sensortest simulates hardware whose energy is known exactly.
//
// It is a product, not a private helper: programs that depend on energy figures
// can be tested on it without a GPU, a RAPL zone or privileges.
//
//   - [Script] describes a device by a power [Curve] over time, from which its
//     energy follows by integration, and by the flaws of its sensor: units,
//     wraps, restarts, refresh periods, averaging windows, part-time sensors,
//     losses. A [Load], such as a long [Trace], can stand for the curve.
//     [NewSensor] makes a sensors.Sensor of scripts.
//   - [Sysfs] builds trees of files as the kernel shows them.
//   - [BuildFakeNVML] compiles a libnvidia-ml.so.1 that is scripted in the same
//     way and is opened by the unmodified go-nvml.
//   - [Conform] is the conformance kit that every sensors.Sensor passes.
//
// Time is whatever the now function says: time.Now inside a testing/synctest
// bubble, or a [Clock] that only the test moves.
package sensortest
