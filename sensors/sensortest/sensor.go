package sensortest

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// Sensor is a sensors.Sensor that reads scripted devices.
type Sensor struct {
	now     func() time.Time
	start   time.Time
	scripts []Script
	devices []sensors.Device
	timing  sensors.Timing
	states  []state
	closed  atomic.Bool
}

var _ sensors.Sensor = (*Sensor)(nil)

type state struct {
	counter    sensors.Counter
	integrator sensors.Integrator
	power      sensors.Watts
	tally      sensors.Tally
	at         time.Time
	lost       bool
}

// NewSensor makes a sensor of scripted devices. Their time begins now; now is
// time.Now where it is nil. Fields of a script's Device that are empty get
// sensible values.
func NewSensor(now func() time.Time, timing sensors.Timing, scripts ...Script) *Sensor {
	if now == nil {
		now = time.Now
	}
	s := &Sensor{now: now, start: now(), timing: timing, scripts: scripts}
	for i := range scripts {
		d := &scripts[i].Device
		d.ID = or(d.ID, fmt.Sprintf("sim-%d", i))
		d.Name = or(d.Name, "simulated device")
		d.Component = or(d.Component, sensors.CPU)
		d.Method = or(d.Method, sensors.MethodCounter)
		d.Scope = or(d.Scope, sensors.ScopeDevice)
		d.Source = or(d.Source, "sensortest")
		if d.ErrorBand == 0 {
			d.ErrorBand = 0.05
		}
		s.devices = append(s.devices, *d)
		s.states = append(s.states, state{
			counter: sensors.Counter{
				Unit: scripts[i].Unit, Period: scripts[i].Period,
				MaxPower: scripts[i].MaxPower, Refresh: scripts[i].Update,
			},
			integrator: sensors.Integrator{
				Period: timing.MaxInterval, Averaging: scripts[i].Averaging, MaxPower: scripts[i].MaxPower,
			},
			power: sensors.Watts(math.NaN()),
		})
	}
	return s
}

func or[T ~string](v, otherwise T) T {
	if v == "" {
		return otherwise
	}
	return v
}

// Elapsed returns the scripts' time.
func (s *Sensor) Elapsed() time.Duration { return s.now().Sub(s.start) }

// Devices implements sensors.Sensor.
func (s *Sensor) Devices() []sensors.Device { return s.devices }

// Timing implements sensors.Sensor.
func (s *Sensor) Timing() sensors.Timing { return s.timing }

// Close implements sensors.Sensor.
func (s *Sensor) Close() error {
	s.closed.Store(true)
	return nil
}

// Closed reports whether the sensor has been closed.
func (s *Sensor) Closed() bool { return s.closed.Load() }

// Read implements sensors.Sensor.
func (s *Sensor) Read(dst []sensors.Reading) {
	for i := range s.scripts {
		script, st := &s.scripts[i], &s.states[i]
		for _, h := range script.Hang {
			if t := s.Elapsed(); h.Contains(t) {
				time.Sleep(h.To - t)
			}
		}
		at := s.now()
		t := at.Sub(s.start)
		r := sensors.Reading{At: at, Utilization: script.Utilization}
		switch {
		case script.lost(t):
			st.lost = true
			r.Err = sensors.ErrLost
			r.At = st.at
		case script.Method == sensors.MethodCounter:
			if st.lost {
				st.counter.Rebase()
			}
			st.lost = false
			before := st.tally.Energy
			st.tally = st.counter.Add(at, script.Raw(t))
			if dt := at.Sub(st.at); !st.at.IsZero() && dt > 0 {
				st.power = sensors.Watts(float64(st.tally.Energy-before) / 1e6 / dt.Seconds())
			}
			st.at = at
		default:
			if st.lost {
				st.integrator.Rebase()
			}
			st.lost = false
			st.power = script.Watts(t)
			st.tally = st.integrator.Add(at, st.power)
			st.at = at
		}
		r.Tally, r.Power = st.tally, st.power
		dst[i] = r
	}
}
