package tracker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// Most programs need two calls. The sensors are simulated here, so that the
// figures are the same everywhere: leave WithSensors away and they are those of
// the machine.
func Example() {
	clock := sensortest.NewClock()
	simulated := sensors.NewSet(sensortest.NewSensor(clock.Now, sensors.Timing{}, // 500 W in two devices
		sensortest.Script{Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU}, Curve: sensortest.Constant(400)},
		sensortest.Script{Device: sensors.Device{ID: "package-0", Component: sensors.CPU}, Curve: sensortest.Constant(100)},
	))

	ctx := context.Background()
	t, err := tracker.Start(ctx, tracker.WithName("finetune"), tracker.WithSensors(simulated),
		tracker.WithIntensity(56), tracker.WithPUE(1.2))
	if err != nil {
		fmt.Println(err) // a bad option; t does nothing, and the job goes on
	}

	clock.Advance(time.Hour) // the job

	report, err := t.Stop(ctx)
	if err != nil {
		fmt.Println(err) // what the report lacks, or what was not delivered
	}
	fmt.Println("devices:", *report.Energy.Device)
	fmt.Println("facility:", *report.Energy.Facility)
	fmt.Println("emissions:", report.Emissions.Operational)
	// Output:
	// devices: 500 Wh
	// facility: 600 Wh
	// emissions: 33.6 g CO2e
}

// The place decides on the emissions, and is best said: what is found without it
// is labelled as what it is, in the worst case the average of the world.
func ExampleWithLocation() {
	t, err := tracker.Start(context.Background(), tracker.WithSensors(sensors.NewSet()),
		tracker.WithLocation(emissions.Location{Region: "gcp/europe-west9"}))
	if err != nil {
		fmt.Println(err)
	}
	report, _ := t.Stop(context.Background())
	fmt.Println(report.Location)
	fmt.Println(report.Location.Guess)
	// Output:
	// gcp/europe-west9 (option)
	// false
}

// An option that means nothing is an error, and the job goes on without being
// measured: all methods of the tracker work.
func ExampleStart() {
	t, err := tracker.Start(context.Background(), tracker.WithPUE(0.9))
	fmt.Println(errors.Is(err, emissions.ErrImplausible))
	t.Span().SetAttributes(attribute.Int("epoch", 1))
	report, err := t.Stop(context.Background())
	fmt.Println(errors.Is(err, tracker.ErrNotStarted), report.Energy.Device == nil)
	// Output:
	// true
	// true true
}

// A sample at the boundaries of the job's parts tells what each took.
func ExampleTracker_Sample() {
	clock := sensortest.NewClock()
	ctx := context.Background()
	simulated := sensors.NewSet(sensortest.NewSensor(clock.Now, sensors.Timing{},
		sensortest.Script{Curve: sensortest.Steps(time.Minute, 90, 250)}))
	t, err := tracker.Start(ctx, tracker.WithSensors(simulated), tracker.WithInterval(tracker.MaxInterval))
	if err != nil {
		fmt.Println(err)
	}
	var last sensors.Joules
	for _, part := range []string{"load", "train"} {
		// Samples are at least 100 ms apart: here that is the length of a minute.
		time.Sleep(110 * time.Millisecond)
		clock.Advance(time.Minute)
		report, err := t.Sample(ctx)
		if err != nil || report.Energy.Device == nil {
			fmt.Println(part, "is not known:", err)
			continue
		}
		fmt.Printf("%s: %.0f J\n", part, float64(*report.Energy.Device-last))
		last = *report.Energy.Device
	}
	_, _ = t.Stop(ctx)
	// Output:
	// load: 5400 J
	// train: 15000 J
}

// What could not be read is listed with the reason, and is never 0.
func ExampleReport() {
	clock := sensortest.NewClock()
	gone := sensortest.Script{
		Device: sensors.Device{ID: "GPU-1", Component: sensors.GPU}, Curve: sensortest.Constant(300),
		Lost: []sensortest.Span{{From: 0, To: 24 * time.Hour}},
	}
	simulated := sensors.NewSet(sensortest.NewSensor(clock.Now, sensors.Timing{}, gone,
		sensortest.Script{Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU}, Curve: sensortest.Constant(300)},
		sensortest.Script{Device: sensors.Device{ID: "package-0", Component: sensors.CPU}, Curve: sensortest.Constant(80)}))
	t, err := tracker.Start(context.Background(), tracker.WithSensors(simulated))
	if err != nil {
		fmt.Println(err)
	}
	clock.Advance(time.Minute)
	report, _ := t.Stop(context.Background())

	for _, d := range report.Devices {
		if d.Energy == nil {
			fmt.Printf("%s %s: %s\n", d.ID, d.Status, d.Reason)
			continue
		}
		fmt.Printf("%s %s: %.0f J, %.0f to %.0f J, by %s\n", d.ID, d.Status, float64(*d.Energy), float64(*d.Low), float64(*d.High), d.Method)
	}
	for _, m := range report.Missing {
		fmt.Printf("missing: %s, %s: %s\n", m.Component, m.Status, m.Reason)
	}
	fmt.Println("partial:", report.Partial)
	// Output:
	// GPU-1 unseen: device lost
	// GPU-0 ok: 18000 J, 16288 to 19892 J, by counter
	// package-0 ok: 4800 J, 4343 to 5304 J, by counter
	// missing: memory, unreadable: no back-end of this program reads the memory
	// missing: gpu, unreadable: device lost
	// partial: true
}
