package sensortest

import (
	"math"
	"sort"
	"sync/atomic"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// Clock is a clock that only moves when it is told to. It can be read and moved
// from several goroutines. Create it with [NewClock].
type Clock struct{ ns atomic.Int64 }

// NewClock returns a clock that stands at a fixed moment.
func NewClock() *Clock {
	c := new(Clock)
	c.ns.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time { return time.Unix(0, c.ns.Load()).UTC() }

// Advance moves the clock; a negative d moves it back.
func (c *Clock) Advance(d time.Duration) { c.ns.Add(int64(d)) }

// Point is a power at a time.
type Point struct {
	At    time.Duration
	Power sensors.Watts
}

// Curve is a power over time, piecewise linear between its points, constant
// before the first and after the last. Two points at the same time make a step,
// and the later one holds from then on. The times must not decrease.
type Curve []Point

// Constant is a curve of one power.
func Constant(w sensors.Watts) Curve { return Curve{{0, w}} }

// Steps is a curve that changes every period from one of the powers to the
// next, and stays at the last.
func Steps(period time.Duration, powers ...sensors.Watts) Curve {
	var c Curve
	for i, w := range powers {
		if i > 0 {
			c = append(c, Point{time.Duration(i) * period, powers[i-1]})
		}
		c = append(c, Point{time.Duration(i) * period, w})
	}
	return c
}

// Power returns the power at t.
func (c Curve) Power(t time.Duration) sensors.Watts {
	if len(c) == 0 {
		return 0
	}
	// The last point at or before t; of two at the same time, the later one.
	i := len(c) - 1
	for i > 0 && c[i].At > t {
		i--
	}
	a := c[i]
	if i == len(c)-1 || t <= a.At {
		return a.Power
	}
	b := c[i+1]
	return a.Power + (b.Power-a.Power)*sensors.Watts(t-a.At)/sensors.Watts(b.At-a.At)
}

// Joules returns the integral of the power from 0 to t, exact but for the
// rounding of float64; negative for a negative t.
func (c Curve) Joules(t time.Duration) sensors.Joules {
	if len(c) == 0 {
		return 0
	}
	return c.integral(t) - c.integral(0)
}

// Energy returns the integral of the power from 0 to t in whole microjoules.
func (c Curve) Energy(t time.Duration) sensors.Microjoules {
	// The nudge keeps an integral that is a whole number whole.
	return sensors.Microjoules(math.Floor(float64(c.Joules(t))*1e6 + 1e-3))
}

// integral returns the energy from the first point to t.
func (c Curve) integral(t time.Duration) sensors.Joules {
	if t <= c[0].At {
		return sensors.Joules(float64(c[0].Power) * (t - c[0].At).Seconds())
	}
	var sum float64
	for i, a := range c {
		end, endPower := t, a.Power
		if i+1 < len(c) {
			if b := c[i+1]; b.At < t {
				end, endPower = b.At, b.Power
			} else {
				endPower = c.Power(t)
				if b.At == t {
					endPower = b.Power
				}
			}
		}
		sum += float64(a.Power+endPower) / 2 * (end - a.At).Seconds()
		if end == t {
			break
		}
	}
	return sensors.Joules(sum)
}

// Load is a power over time of which the energy is known exactly.
type Load interface {
	// Power returns the power at t.
	Power(t time.Duration) sensors.Watts
	// Joules returns the integral of the power from 0 to t, negative for a
	// negative t.
	Joules(t time.Duration) sensors.Joules
}

// Trace is a [Curve] of many points, prepared so that its power and energy are
// found by bisection. It does not change, and can be used by several goroutines.
type Trace struct {
	curve  Curve
	before []sensors.Joules // the energy from the first point to each
	origin sensors.Joules   // the energy from the first point to 0
}

var (
	_ Load = Curve(nil)
	_ Load = (*Trace)(nil)
)

// NewTrace prepares a curve of at least one point. The curve must not change
// afterwards.
func NewTrace(c Curve) *Trace {
	t := &Trace{curve: c, before: make([]sensors.Joules, len(c))}
	for i := 1; i < len(c); i++ {
		t.before[i] = t.before[i-1] +
			sensors.Joules(float64(c[i-1].Power+c[i].Power)/2*(c[i].At-c[i-1].At).Seconds())
	}
	t.origin = t.integral(0)
	return t
}

// piece returns the last point at or before t, and those after it.
func (t *Trace) piece(at time.Duration) (i int, rest Curve) {
	i = max(sort.Search(len(t.curve), func(i int) bool { return t.curve[i].At > at })-1, 0)
	return i, t.curve[i:min(i+2, len(t.curve))]
}

// Power implements [Load].
func (t *Trace) Power(at time.Duration) sensors.Watts {
	_, rest := t.piece(at)
	return rest.Power(at)
}

// Joules implements [Load].
func (t *Trace) Joules(at time.Duration) sensors.Joules { return t.integral(at) - t.origin }

func (t *Trace) integral(at time.Duration) sensors.Joules {
	i, rest := t.piece(at)
	return t.before[i] + rest.integral(at)
}

// Span is an interval of time, from From up to but not including To.
type Span struct{ From, To time.Duration }

// Contains reports whether t is in the span.
func (s Span) Contains(t time.Duration) bool { return s.From <= t && t < s.To }

// Script describes one simulated device. The device's Method decides what its
// sensor offers: a counter, or a power. Its methods are for one goroutine at a
// time.
type Script struct {
	sensors.Device
	Curve Curve
	// Load is what the device draws, in place of Curve, where it is not nil.
	Load Load

	// Start is the counter's value at time 0, Unit its microjoules per unit
	// (0: 1), Period the units after which it wraps (0: never).
	Start, Unit, Period uint64
	// MaxPower is the bound that the sensor knows of the device; 0: none.
	MaxPower sensors.Watts
	// Update is the time between two updates of the hardware's register; 0: at
	// once.
	Update time.Duration
	// Averaging is the window over which a power reading is averaged.
	Averaging time.Duration
	// Duty is the share of each Update period in which the sensor looks; it
	// takes what it sees for the whole period. 0 means always.
	Duty float64
	// Gain multiplies what the sensor shows; 0 means 1.
	Gain float64
	// Resets are the times at which the counter starts again at 0.
	Resets []time.Duration
	// Lost are the spans in which the device does not answer.
	Lost []Span
	// Garbage are the spans in which the raw counter reads as Noise.
	Garbage []Span
	Noise   uint64
	// Hang are the spans in which a read blocks until the span's end.
	Hang []Span
	// Utilization is what the device reports at all times.
	Utilization float64

	// What a part-time sensor has seen in the periods until looked, so that it is
	// not added up anew at each reading.
	looked time.Duration
	sum    float64
}

// power and joules are those of what the device draws. A Curve is not made a
// Load for them, which would allocate.
func (s *Script) power(t time.Duration) sensors.Watts {
	if s.Load != nil {
		return s.Load.Power(t)
	}
	return s.Curve.Power(t)
}

func (s *Script) joules(t time.Duration) sensors.Joules {
	if s.Load != nil {
		return s.Load.Joules(t)
	}
	return s.Curve.Joules(t)
}

// seen returns the energy in µJ that the sensor has accounted for at t, with
// its gain and its part-time view, before any reset.
func (s *Script) seen(t time.Duration) float64 {
	gain := s.Gain
	if gain == 0 {
		gain = 1
	}
	if s.Update > 0 {
		t = t.Truncate(s.Update)
	}
	if s.Duty <= 0 || s.Duty >= 1 || s.Update <= 0 {
		return gain * float64(s.joules(t)) * 1e6
	}
	if t <= 0 {
		return 0
	}
	if t < s.looked {
		s.looked, s.sum = 0, 0
	}
	look := time.Duration(s.Duty * float64(s.Update))
	for ; s.looked < t; s.looked += s.Update {
		s.sum += float64(s.joules(s.looked+look)-s.joules(s.looked)) / s.Duty
	}
	return gain * s.sum * 1e6
}

// Raw returns what the hardware's counter shows at t.
func (s *Script) Raw(t time.Duration) uint64 {
	for _, g := range s.Garbage {
		if g.Contains(t) {
			return s.Noise
		}
	}
	unit := float64(max(s.Unit, 1))
	raw, since := float64(s.Start), time.Duration(0)
	for _, r := range s.Resets {
		if r <= t {
			raw, since = 0, r
		}
	}
	raw += math.Floor((s.seen(t)-s.seen(since))/unit + 1e-3)
	if s.Period > 0 {
		raw = math.Mod(raw, float64(s.Period))
	}
	return uint64(raw)
}

// Watts returns what the hardware's power sensor shows at t.
func (s *Script) Watts(t time.Duration) sensors.Watts {
	if s.Update > 0 {
		t = t.Truncate(s.Update)
	}
	gain := sensors.Watts(s.Gain)
	if gain == 0 {
		gain = 1
	}
	if s.Averaging <= 0 {
		return gain * s.power(t)
	}
	j := s.joules(t) - s.joules(t-s.Averaging)
	return gain * sensors.Watts(float64(j)/s.Averaging.Seconds())
}

// lost reports whether the device does not answer at t.
func (s *Script) lost(t time.Duration) bool {
	for _, l := range s.Lost {
		if l.Contains(t) {
			return true
		}
	}
	return false
}
