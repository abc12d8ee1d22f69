package sensortest

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// Conformance says how the sensor under test is opened and how its hardware
// moves on.
type Conformance struct {
	// Open returns a fresh sensor over hardware that works.
	Open func(t testing.TB) sensors.Sensor
	// Advance lets d pass for the sensor's clock and its hardware. Devices
	// that draw power must have drawn some after it.
	Advance func(d time.Duration)
	// Supports is what the back-end says it reads: every device must be of one of
	// these kinds, as docs/HARDWARE.md tells them. Nil where nothing is said.
	Supports []sensors.Support
}

// Conform checks that a sensor keeps the promises of sensors.Sensor. It reads
// the sensor for about a minute of its own time.
func Conform(t *testing.T, c Conformance) {
	t.Helper()

	t.Run("devices", func(t *testing.T) {
		s := c.Open(t)
		defer closeSensor(t, s)
		checkDevices(t, s)
		checkSupported(t, s, c.Supports)
	})

	t.Run("cumulative", func(t *testing.T) {
		s := c.Open(t)
		defer closeSensor(t, s)
		checkCumulative(t, s, c.Advance)
	})

	t.Run("overwrites", func(t *testing.T) {
		s := c.Open(t)
		defer closeSensor(t, s)
		checkOverwrites(t, s, c.Advance)
	})

	t.Run("allocations", func(t *testing.T) {
		s := c.Open(t)
		defer closeSensor(t, s)
		dst := make([]sensors.Reading, len(s.Devices()))
		s.Read(dst)
		c.Advance(time.Second)
		s.Read(dst)
		if n := testing.AllocsPerRun(100, func() { s.Read(dst) }); n != 0 {
			t.Errorf("Read allocates %v times in steady state, want 0", n)
		}
	})
}

func closeSensor(t *testing.T, s sensors.Sensor) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func checkDevices(t *testing.T, s sensors.Sensor) {
	devices := s.Devices()
	if len(devices) == 0 {
		t.Fatal("no device: a back-end without devices returns no sensor")
	}
	seen := map[string]bool{}
	for _, d := range devices {
		if d.ID == "" || seen[d.ID] {
			t.Errorf("device ID %q is empty or not unique", d.ID)
		}
		seen[d.ID] = true
		if d.Source == "" {
			t.Errorf("%s: no source", d.ID)
		}
		if !slices.Contains([]sensors.Component{sensors.GPU, sensors.CPU, sensors.Memory, sensors.Node}, d.Component) {
			t.Errorf("%s: component %q", d.ID, d.Component)
		}
		if !slices.Contains([]sensors.Method{sensors.MethodCounter, sensors.MethodPowerAverage,
			sensors.MethodPower, sensors.MethodModel, sensors.MethodConstant}, d.Method) {
			t.Errorf("%s: method %q", d.ID, d.Method)
		}
		if !slices.Contains([]sensors.Scope{sensors.ScopeDevice, sensors.ScopeModule, sensors.ScopeShare, sensors.ScopeNode}, d.Scope) {
			t.Errorf("%s: scope %q", d.ID, d.Scope)
		}
		if !(d.ErrorBand > 0 && d.ErrorBand <= 1) {
			t.Errorf("%s: error band %v: no figure is exact, and none here is off by more than its own size", d.ID, d.ErrorBand)
		}
		if d.Refresh < 0 {
			t.Errorf("%s: refresh %v", d.ID, d.Refresh)
		}
	}
	if !slices.EqualFunc(devices, s.Devices(), sameDevice) {
		t.Error("Devices changes between two calls")
	}
	if s.Timing().MaxInterval < 0 {
		t.Errorf("Timing: MaxInterval %v", s.Timing().MaxInterval)
	}
}

// checkSupported checks that the devices are what the back-end says it reads.
func checkSupported(t *testing.T, s sensors.Sensor, supports []sensors.Support) {
	if supports == nil {
		return
	}
	for _, d := range s.Devices() {
		if !slices.ContainsFunc(supports, func(u sensors.Support) bool {
			return u.Component == d.Component && u.Method == d.Method && u.ErrorBand <= d.ErrorBand
		}) {
			t.Errorf("%s: no Support of the back-end is a %s by %s with a band of %v or less", d.ID, d.Component, d.Method, d.ErrorBand)
		}
	}
}

func sameDevice(a, b sensors.Device) bool { return a.ID == b.ID && a.Method == b.Method }

func checkCumulative(t *testing.T, s sensors.Sensor, advance func(time.Duration)) {
	devices := s.Devices()
	first := make([]sensors.Reading, len(devices))
	s.Read(first)
	for i, r := range first {
		if r.Err != nil {
			t.Errorf("%s: first read: %v", devices[i].ID, r.Err)
		}
		if r.Tally != (sensors.Tally{}) {
			t.Errorf("%s: the first read is the origin, got %+v", devices[i].ID, r.Tally)
		}
		if r.At.IsZero() {
			t.Errorf("%s: no time", devices[i].ID)
		}
	}
	last := slices.Clone(first)
	now := make([]sensors.Reading, len(devices))
	for _, d := range []time.Duration{time.Second, 10 * time.Millisecond, 2 * time.Second, 20 * time.Second, time.Second} {
		advance(d)
		s.Read(now)
		for i, r := range now {
			id := devices[i].ID
			was := last[i]
			if r.Err != nil {
				t.Errorf("%s: %v", id, r.Err)
			}
			if r.At.Before(was.At) {
				t.Errorf("%s: time went back from %v to %v", id, was.At, r.At)
			}
			if r.Energy < was.Energy || r.Observed < was.Observed || r.Estimated < was.Estimated || r.Variance < was.Variance ||
				r.Resets < was.Resets || r.Rejected < was.Rejected {
				t.Errorf("%s: the tally decreases: %+v, then %+v", id, was.Tally, r.Tally)
			}
			if elapsed := r.At.Sub(first[i].At); r.Observed > elapsed+time.Millisecond {
				t.Errorf("%s: observed %v of %v", id, r.Observed, elapsed)
			}
			if r.Estimated > r.Observed {
				t.Errorf("%s: estimated %v of %v observed", id, r.Estimated, r.Observed)
			}
			if r.Power < 0 || math.IsInf(float64(r.Power), 0) {
				t.Errorf("%s: power %v", id, float64(r.Power))
			}
			if r.Utilization < 0 || r.Utilization > 1 {
				t.Errorf("%s: utilization %v", id, r.Utilization)
			}
		}
		copy(last, now)
	}
	for i, r := range last {
		if r.Energy == 0 {
			t.Errorf("%s: no energy after %v", devices[i].ID, r.At.Sub(first[i].At))
		}
		if r.Observed == 0 {
			t.Errorf("%s: nothing observed", devices[i].ID)
		}
	}
}

// checkOverwrites fills the destination with nonsense: a reading that keeps any
// of it would depend on what its caller did before.
func checkOverwrites(t *testing.T, s sensors.Sensor, advance func(time.Duration)) {
	devices := s.Devices()
	nonsense := sensors.Reading{
		Tally:  sensors.Tally{Energy: 1 << 60, Observed: 1 << 60, Estimated: 1 << 60, Resets: 99, Rejected: 99},
		Power:  -1,
		Method: "nonsense", Utilization: -1, Err: errors.New("nonsense"),
	}
	dst := make([]sensors.Reading, len(devices)+1)
	for range 2 {
		for i := range dst {
			dst[i] = nonsense
		}
		s.Read(dst)
		for i, d := range devices {
			if r := dst[i]; r.Energy >= nonsense.Energy || r.Observed == nonsense.Observed || r.Resets == 99 ||
				r.Power < 0 || r.Utilization < 0 || r.Method == nonsense.Method || r.Err == nonsense.Err {
				t.Errorf("%s: Read leaves what was in dst: %+v", d.ID, r)
			}
		}
		if got := dst[len(devices)]; got.Err != nonsense.Err {
			t.Error("Read writes beyond its devices")
		}
		advance(time.Second)
	}
}
