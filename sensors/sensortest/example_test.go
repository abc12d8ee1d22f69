package sensortest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// A device is described by its power over time, and from that follows what its
// sensor must say, whenever it is asked: this one has a counter in mJ.
func Example() {
	clock := sensortest.NewClock()
	gpu := sensortest.Script{
		Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU},
		Curve:  sensortest.Steps(10*time.Second, 70, 400, 90), // idle, busy, idle
		Unit:   1000,
	}
	s := sensortest.NewSensor(clock.Now, sensors.Timing{}, gpu)
	r := make([]sensors.Reading, 1)
	s.Read(r) // the origin
	for range 3 {
		clock.Advance(10 * time.Second)
		s.Read(r)
		fmt.Printf("read %.0f J, true %.0f J\n", float64(r[0].Energy.Joules()), float64(gpu.Curve.Joules(s.Elapsed())))
	}
	// Output:
	// read 700 J, true 700 J
	// read 4700 J, true 4700 J
	// read 5600 J, true 5600 J
}

// A script has the flaws of real sensors. This GPU falls off the bus for two
// seconds: the reading says so and keeps what was counted before, and what was
// used meanwhile is not known.
func ExampleScript() {
	clock := sensortest.NewClock()
	s := sensortest.NewSensor(clock.Now, sensors.Timing{}, sensortest.Script{
		Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU},
		Curve:  sensortest.Constant(100),
		Lost:   []sensortest.Span{{From: 3 * time.Second, To: 5 * time.Second}},
	})
	r := make([]sensors.Reading, 1)
	for ; s.Elapsed() <= 8*time.Second; clock.Advance(2 * time.Second) {
		s.Read(r)
		if errors.Is(r[0].Err, sensors.ErrLost) {
			fmt.Print("lost; ")
		}
		fmt.Printf("%.0f J of %v\n", float64(r[0].Energy.Joules()), r[0].Observed)
	}
	// Output:
	// 0 J of 0s
	// 200 J of 2s
	// lost; 200 J of 2s
	// 200 J of 2s
	// 400 J of 4s
}

func ExampleCurve() {
	ramp := sensortest.Curve{{At: 0, Power: 50}, {At: 10 * time.Second, Power: 250}}
	fmt.Println(ramp.Power(5*time.Second), float64(ramp.Joules(10*time.Second)))
	fmt.Println(ramp.Power(time.Hour)) // constant after the last point
	// Output:
	// 150 W 1500
	// 250 W
}

// The whole test of a sensor of your own, in your package's tests.
func ExampleConform() {
	_ = func(t *testing.T) { // func TestMeterConforms(t *testing.T)
		clock := sensortest.NewClock()
		sensortest.Conform(t, sensortest.Conformance{
			Open: func(testing.TB) sensors.Sensor {
				// Yours, on hardware that your test moves.
				return sensortest.NewSensor(clock.Now, sensors.Timing{},
					sensortest.Script{Curve: sensortest.Constant(50)})
			},
			Advance: clock.Advance,
		})
	}
}

// A fake tree of files stands for the counters of a machine; another process, such
// as the runner, reads it with HOST_SYS and HOST_PROC set.
func ExampleNewSysfs() {
	_ = func(t *testing.T) { // func TestOnAServer(t *testing.T)
		tree := sensortest.NewSysfs(t, sensortest.IntelServer())
		set, err := sensors.Detect(t.Context(),
			sensors.WithSysRoot(tree.Roots().Sys), sensors.WithProcRoot(tree.Roots().Proc))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = set.Close() }()
		tree.Draw("intel-rapl:0", 205e6) // the first package uses 205 J
	}
}
