package sensors

import (
	"math"
	"time"
)

// Counter turns the readings of a hardware energy counter, which starts
// anywhere, wraps, restarts and now and then returns nonsense, into a [Tally]
// from zero. It is a pure function of the readings given to [Counter.Add] and
// their times. The zero value counts microjoules, never wraps and believes
// everything.
//
// What it does with a reading:
//
//   - more than the last: the difference is energy;
//   - less, and the counter wraps: the difference across the wrap is energy if
//     it is physically possible, else the counter has restarted;
//   - less, and the counter does not wrap: it has restarted, and what it shows
//     has been used since. The energy between the last reading and the restart
//     is unknown, and that time is not counted as observed;
//   - physically impossible: the reading is set aside. If the next one
//     continues from before, it was a glitch and nothing is lost; if it
//     continues from the impossible value, the counter has moved for good and
//     is re-based there.
type Counter struct {
	// Unit is the number of microjoules in one unit of the raw counter;
	// 0 means 1.
	Unit uint64
	// Period is the number of raw units after which the counter starts at 0
	// again; 0 means that it never wraps.
	Period uint64
	// MaxPower is the most the device can draw; what implies more is an error
	// of the reading. 0 means that no bound is known.
	MaxPower Watts
	// Refresh is the time between two updates of the counter by the hardware.
	// A reading can bring that much energy in no time at all.
	Refresh time.Duration

	tally   Tally
	primed  bool
	last    uint64
	lastAt  time.Time
	suspect bool
	odd     uint64
	oddAt   time.Time
}

// Add takes the counter's value at a time, and returns the tally up to it.
func (c *Counter) Add(at time.Time, raw uint64) Tally {
	if !c.primed {
		c.primed = true
		c.settle(at, raw)
		return c.tally
	}
	dt := max(at.Sub(c.lastAt), 0)
	delta, possible := c.step(c.last, raw, dt)
	switch {
	case possible:
		c.tally.Energy += c.energy(delta)
		if !c.ambiguous(dt) {
			c.tally.Observed += dt
		}
	case c.suspect && c.continues(at, raw):
		// Two readings agree with each other and not with what was before.
		delta, _ = c.step(c.odd, raw, at.Sub(c.oddAt))
		c.tally.Energy += c.energy(delta)
		c.tally.Observed += max(at.Sub(c.oddAt), 0)
		c.tally.Resets++
	case raw < c.last && c.MaxPower > 0 && c.plausible(raw, dt):
		c.tally.Energy += c.energy(raw)
		c.tally.Resets++
	case raw < c.last && c.MaxPower <= 0:
		c.tally.Resets++
	default:
		c.tally.Rejected++
		c.suspect, c.odd, c.oddAt = true, raw, at
		return c.tally
	}
	c.settle(at, raw)
	return c.tally
}

// Rebase makes the next reading a new origin, without counting what lies
// between: for a device that was lost and came back.
func (c *Counter) Rebase() {
	if c.primed {
		c.tally.Resets++
	}
	c.primed, c.suspect = false, false
}

// Tally returns what has been accumulated so far.
func (c *Counter) Tally() Tally { return c.tally }

func (c *Counter) settle(at time.Time, raw uint64) {
	c.last, c.lastAt, c.suspect = raw, at, false
}

// step returns the raw units between two readings and whether the step is one
// that the device can have made: forward, or across one wrap.
func (c *Counter) step(from, to uint64, dt time.Duration) (delta uint64, possible bool) {
	switch {
	case to >= from:
		delta = to - from
	case c.Period > from && c.Period > to:
		delta = to + (c.Period - from)
	default:
		return 0, false
	}
	return delta, c.plausible(delta, dt)
}

// continues reports whether raw goes on from the reading that was set aside.
func (c *Counter) continues(at time.Time, raw uint64) bool {
	_, possible := c.step(c.odd, raw, max(at.Sub(c.oddAt), 0))
	return possible
}

func (c *Counter) plausible(delta uint64, dt time.Duration) bool {
	if c.MaxPower <= 0 {
		return true
	}
	return float64(delta)*float64(c.unit()) <= float64(c.MaxPower)*1e6*(dt+c.Refresh).Seconds()
}

// ambiguous reports whether the counter can have gone round more than once in
// dt. The difference is then the least that was used.
func (c *Counter) ambiguous(dt time.Duration) bool {
	return c.Period > 0 && c.MaxPower > 0 &&
		float64(c.MaxPower)*1e6*dt.Seconds() > float64(c.Period)*float64(c.unit())
}

func (c *Counter) unit() uint64 { return max(c.Unit, 1) }

// energy converts raw units, and saturates rather than overflows: only a
// counter without a bound can return such a thing.
func (c *Counter) energy(delta uint64) Microjoules {
	if delta > (math.MaxUint64>>1-uint64(c.tally.Energy))/c.unit() {
		c.tally.Rejected++
		return 0
	}
	return Microjoules(delta * c.unit())
}
