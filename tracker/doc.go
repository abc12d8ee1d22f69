// Package tracker measures the energy of a job, computes its emissions and
// publishes both as OpenTelemetry spans and metrics.
//
// # Basics
//
//	t, err := tracker.Start(ctx, tracker.WithName("finetune"))
//	if err != nil {
//		log.Print(err) // a bad option; the job can go on, t does nothing
//	}
//	train()
//	report, err := t.Stop(ctx)
//
// Start finds the sensors of the machine, takes a first sample and starts one
// sampling goroutine. Stop takes the last sample, ends the run's span and returns
// a [Report], which says of every number how it was obtained. In between,
// [Tracker.Snapshot] returns the report so far.
//
// The processor and the memory are read on every system. For NVIDIA GPUs the
// program imports their back-end, which needs cgo:
//
//	import _ "github.com/wattspan/wattspan/sensors/nvml"
//
// # Telemetry
//
// Spans and metrics go to the global providers of OpenTelemetry, or to those
// given. Where nobody has installed any, nothing is emitted and nothing is
// allocated for it. Only the OpenTelemetry API is imported.
//
//	metric                         instrument  unit     attributes
//	hw.energy                      counter     J        hw.id hw.type hw.name hw.vendor hw.parent
//	hw.power                       gauge       W        the same
//	hw.gpu.utilization             gauge       1        the same
//	wattspan.energy                counter     J        wattspan.component wattspan.method
//	wattspan.emissions             counter     g        wattspan.emissions.scope
//	wattspan.grid.intensity        gauge       g/kW.h   wattspan.grid.zone .source .kind
//	wattspan.pue                   gauge       1        wattspan.pue.source
//	wattspan.sampler.ticks         counter     {tick}
//	wattspan.sampler.missed        counter     {tick}
//	wattspan.sampler.errors        counter     {error}
//	wattspan.sampler.tick.duration histogram   s
//
// The sum of wattspan.energy over its components, among them the overhead that
// the PUE adds, is the facility's energy. It contains the energy of hw.energy:
// never add the two.
//
// # Caveats
//
// The job comes first. The tracker never panics, exits, logs by default or
// writes to standard output or error; a driver that hangs costs its own devices
// and delays Stop by a few seconds at most.
//
// Every figure is about the interval from the first to the last sample.
package tracker
