package sensortest_test

import (
	"math"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

func TestCurveIntegrals(t *testing.T) {
	curves := map[string]struct {
		curve sensortest.Curve
		want  map[time.Duration]sensors.Joules
	}{
		"constant": {sensortest.Constant(100), map[time.Duration]sensors.Joules{0: 0, time.Second: 100, 90 * time.Second: 9000}},
		"step": {sensortest.Curve{{At: 0, Power: 70}, {At: time.Second, Power: 70}, {At: time.Second, Power: 650}},
			map[time.Duration]sensors.Joules{time.Second: 70, 10 * time.Second: 5920}},
		"ramp": {sensortest.Curve{{At: 0, Power: 0}, {At: 10 * time.Second, Power: 100}},
			map[time.Duration]sensors.Joules{5 * time.Second: 125, 10 * time.Second: 500, 20 * time.Second: 1500}},
		"late start": {sensortest.Curve{{At: 5 * time.Second, Power: 10}, {At: 15 * time.Second, Power: 30}},
			map[time.Duration]sensors.Joules{5 * time.Second: 50, 15 * time.Second: 250}},
		"steps": {sensortest.Steps(time.Second, 100, 200, 300),
			map[time.Duration]sensors.Joules{time.Second: 100, 2 * time.Second: 300, 5 * time.Second: 1200}},
	}
	for name, c := range curves {
		for at, want := range c.want {
			if got := c.curve.Joules(at); math.Abs(float64(got-want)) > 1e-9 {
				t.Errorf("%s: energy at %v is %v J, want %v J", name, at, float64(got), float64(want))
			}
			// The power is the derivative of the energy.
			h := time.Microsecond
			slope := float64(c.curve.Joules(at+2*h)-c.curve.Joules(at+h)) / h.Seconds()
			if got := float64(c.curve.Power(at + h)); math.Abs(got-slope) > 1e-2 {
				t.Errorf("%s: power at %v is %v W, the energy grows by %v W", name, at, got, slope)
			}
		}
	}
}

// A trace is its curve, found faster.
func TestTraceIsItsCurve(t *testing.T) {
	curve := append(sensortest.Curve{{At: -2 * time.Second, Power: 50}},
		sensortest.Steps(700*time.Millisecond, 100, 600, 150)...)
	curve = append(curve, sensortest.Point{At: 4 * time.Second, Power: 400}, sensortest.Point{At: 5 * time.Second, Power: 0})
	trace := sensortest.NewTrace(curve)
	for at := -3 * time.Second; at < 7*time.Second; at += 50 * time.Millisecond {
		if got, want := trace.Power(at), curve.Power(at); got != want {
			t.Errorf("%v: %v, want %v", at, got, want)
		}
		if got, want := float64(trace.Joules(at)), float64(curve.Joules(at)); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v: %v J, want %v J", at, got, want)
		}
	}
}

// A script draws its load, where it has one, whatever its sensor offers.
func TestScriptOfALoad(t *testing.T) {
	load := sensortest.NewTrace(sensortest.Steps(time.Second, 100, 500))
	s := sensortest.Script{Load: load, Curve: sensortest.Constant(7)}
	if got := s.Watts(1500 * time.Millisecond); got != 500 {
		t.Errorf("%v, want 500 W", got)
	}
	if got := s.Raw(2 * time.Second); got != 600e6 {
		t.Errorf("%v µJ, want 600 J", got)
	}
	s.Averaging = 2 * time.Second
	if got := s.Watts(2 * time.Second); got != 300 {
		t.Errorf("%v on average, want 300 W", got)
	}
}

// What a part-time sensor has seen does not depend on when it was asked before.
func TestPartTimeSensorForgetsNothing(t *testing.T) {
	curve := sensortest.Steps(270*time.Millisecond, 100, 400, 50, 700, 10, 300)
	asked := sensortest.Script{Curve: curve, Update: 100 * time.Millisecond, Duty: 0.25}
	for _, at := range []time.Duration{time.Second, 300 * time.Millisecond, 0, 1200 * time.Millisecond, time.Second, -time.Second, 2 * time.Second} {
		fresh := sensortest.Script{Curve: curve, Update: 100 * time.Millisecond, Duty: 0.25}
		if got, want := asked.Raw(at), fresh.Raw(at); got != want {
			t.Errorf("%v: %d µJ, asked for the first time %d µJ", at, got, want)
		}
	}
}

// A sensor that looks 25 % of the time sees a load in step with it wholly or
// not at all: the flaw must be there for others to be tested against.
func TestPartTimeSensorAliases(t *testing.T) {
	var c sensortest.Curve
	for i := range 100 {
		at := time.Duration(i) * 100 * time.Millisecond
		c = append(c,
			sensortest.Point{At: at, Power: 400}, sensortest.Point{At: at + 25*time.Millisecond, Power: 400},
			sensortest.Point{At: at + 25*time.Millisecond}, sensortest.Point{At: at + 100*time.Millisecond})
	}
	s := sensortest.Script{Curve: c, Update: 100 * time.Millisecond, Duty: 0.25}
	if got, truth := float64(s.Raw(10*time.Second))/1e6, float64(c.Joules(10*time.Second)); math.Abs(got/truth-4) > 0.01 {
		t.Errorf("sensor saw %v J of %v J, want four times as much", got, truth)
	}
}

func TestScriptedSensorConforms(t *testing.T) {
	clock := sensortest.NewClock()
	sensortest.Conform(t, sensortest.Conformance{
		Open: func(testing.TB) sensors.Sensor {
			return sensortest.NewSensor(clock.Now, sensors.Timing{MaxInterval: 10 * time.Second},
				sensortest.Script{Curve: sensortest.Steps(time.Second, 100, 300), Start: 1e6, MaxPower: 700},
				sensortest.Script{Device: sensors.Device{Method: sensors.MethodPower}, Curve: sensortest.Constant(50)},
				sensortest.Script{Device: sensors.Device{Method: sensors.MethodPowerAverage, Component: sensors.GPU},
					Curve: sensortest.Constant(50), Averaging: time.Second},
			)
		},
		Advance: clock.Advance,
	})
}
