package sensors_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// A program that samples by itself reads the set twice and subtracts. The sensors
// are simulated here: with [sensors.Detect] in place of NewSet they are those of
// the machine.
func Example() {
	clock := sensortest.NewClock()
	set := sensors.NewSet(
		sensortest.NewSensor(clock.Now, sensors.Timing{},
			sensortest.Script{Device: sensors.Device{ID: "package-0"}, Curve: sensortest.Constant(65)}),
		sensortest.NewSensor(clock.Now, sensors.Timing{},
			sensortest.Script{Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU}, Curve: sensortest.Constant(300)}),
	)
	defer func() { _ = set.Close() }()

	devices := set.Devices()
	before, after := make([]sensors.Reading, len(devices)), make([]sensors.Reading, len(devices))
	set.Read(before)
	clock.Advance(time.Minute) // the work
	set.Read(after)
	for i, d := range devices {
		if after[i].Err != nil {
			fmt.Println(d.ID, after[i].Err)
			continue
		}
		energy := (after[i].Energy - before[i].Energy).Joules()
		fmt.Printf("%s (%s, by %s): %.0f J in %v\n", d.ID, d.Component, d.Method, float64(energy), after[i].Observed)
	}
	// Output:
	// package-0 (cpu, by counter): 3900 J in 1m0s
	// GPU-0 (gpu, by counter): 18000 J in 1m0s
}

// Detect says of everything that is not measured why, and what would change
// that. This program contains one back-end, and it may not read what it found.
func ExampleDetect() {
	rapl := sensors.Backend{Name: "rapl", Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
		return nil, []sensors.Omission{{
			Source: "rapl", Component: sensors.CPU, Status: sensors.Unreadable,
			Reason: "the counters are for root only", Remedy: "sudo chmod a+r …/energy_uj", Err: sensors.ErrPermission,
		}}
	}}
	set, err := sensors.Detect(context.Background(), sensors.WithBackends(rapl),
		sensors.WithSysRoot("testdata/none"), sensors.WithProcRoot("testdata/none"))
	if err != nil {
		fmt.Println(err) // the context has ended
		return
	}
	fmt.Println(len(set.Devices()), "devices")
	for _, m := range set.Missing() {
		fmt.Printf("%s %s: %s\n", m.Component, m.Status, m.Reason)
		if errors.Is(m.Err, sensors.ErrPermission) {
			fmt.Println("  try:", m.Remedy)
		}
	}
	// Output:
	// 0 devices
	// gpu absent: no gpu found
	// cpu unreadable: the counters are for root only
	//   try: sudo chmod a+r …/energy_uj
	// memory unreadable: no back-end of this program reads the memory
}

// Of two sources for one piece of hardware the better is used, so that nothing is
// counted twice.
func ExampleNewSet() {
	model := sensortest.NewSensor(nil, sensors.Timing{}, sensortest.Script{
		Device: sensors.Device{ID: "cpu", Method: sensors.MethodModel, Source: "model", Whole: true}})
	counter := sensortest.NewSensor(nil, sensors.Timing{}, sensortest.Script{
		Device: sensors.Device{ID: "package-0", Method: sensors.MethodCounter, Source: "counter"}})
	set := sensors.NewSet(model, counter)
	for _, d := range set.Devices() {
		fmt.Println("used:", d.ID)
	}
	for _, o := range set.Omissions() {
		fmt.Printf("%s: %s\n", o.Status, o.Reason)
	}
	// Output:
	// used: package-0
	// superseded: cpu is read as package-0 by counter
}

// A counter of 61 µJ to the unit, as Intel's, that wraps after 2³² of them. Where
// it stands at first does not matter.
func ExampleCounter() {
	c := sensors.Counter{Unit: 61, Period: 1 << 32, MaxPower: 200}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, raw := range []uint64{
		1<<32 - 500_000,
		1<<32 - 100_000, // 400,000 units later
		300_000,         // across the wrap: another 400,000
		4_000_000_000,   // 244 kJ in a second: no processor draws as much
		700_000,         // and the counter goes on as if it had not been
	} {
		t := c.Add(start.Add(time.Duration(i)*time.Second), raw)
		fmt.Printf("%.1f J in %v, %d rejected\n", float64(t.Energy.Joules()), t.Observed, t.Rejected)
	}
	// Output:
	// 0.0 J in 0s, 0 rejected
	// 24.4 J in 1s, 0 rejected
	// 48.8 J in 2s, 0 rejected
	// 48.8 J in 2s, 1 rejected
	// 73.2 J in 4s, 1 rejected
}

// A device that only shows its power. What lies between two readings that are too
// far apart is not known, and not counted.
func ExampleIntegrator() {
	g := sensors.Integrator{Period: time.Second}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, r := range []struct {
		at    time.Duration
		power sensors.Watts
	}{
		{0, 100},
		{time.Second, 300},     // 200 W on the average
		{11 * time.Second, 50}, // late: 175 W, and said to be estimated
		{time.Hour, 80},        // after a gap of an hour nobody knows
		{time.Hour + time.Second, 80},
	} {
		t := g.Add(start.Add(r.at), r.power)
		fmt.Printf("%v in %v, of which %v estimated\n", float64(t.Energy.Joules()), t.Observed, t.Estimated)
	}
	// Output:
	// 0 in 0s, of which 0s estimated
	// 200 in 1s, of which 0s estimated
	// 1950 in 11s, of which 10s estimated
	// 1950 in 11s, of which 10s estimated
	// 2030 in 12s, of which 10s estimated
}

func ExampleQuantity() {
	fmt.Println(sensors.Quantity(0.04567, "L"))
	fmt.Println(sensors.Watts(1234567))
	fmt.Println(sensors.Joules(5400)) // as people read it: in Wh
	fmt.Println(sensors.Joules(5400).KWh())
	// Output:
	// 45.7 mL
	// 1.23 MW
	// 1.50 Wh
	// 0.0015
}
