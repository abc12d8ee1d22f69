package sensors

import (
	"fmt"
	"math"
	"time"
)

// CrossCheck compares an energy counter with the power that the same driver
// shows beside it. Counters have been seen to lag, to stand still while power is
// drawn, and to miss a large part of it; two readings that agree can still both
// be wrong, and two that do not cannot both be right. It is a pure function of the
// readings given to [CrossCheck.Add] and their times, and allocates only when a
// doubt arises.
//
// It compares what both saw over a span: 30 s for an averaged power, which leaves
// nothing out, and 60 s for an instantaneous one, which is a sample of the load.
// Time that either did not see belongs to no span. A verdict stands until that of
// the next span.
type CrossCheck struct {
	// Name begins the text of a doubt: the source and the device.
	Name string
	// Averaging is the window over which the hardware averages the power; 0
	// for an instantaneous one.
	Averaging time.Duration

	primed  bool
	at      time.Time
	last    Tally // of the counter
	power   Integrator
	counted Microjoules // by the counter, in the span
	drawn   Microjoules // by the power, in the span
	covered time.Duration

	doubt error
	band  float64
}

const (
	// maxCheckInterval is the longest time between two readings that are
	// compared: a power says little of a longer one.
	maxCheckInterval = 1500 * time.Millisecond

	averageSpan, instantSpan           = 30 * time.Second, time.Minute
	averageTolerance, instantTolerance = 0.15, 0.30
)

// Add takes the tally of the counter and the power at a time. A power that is not
// known is NaN.
func (c *CrossCheck) Add(at time.Time, counter Tally, power Watts) {
	if !(power >= 0) || math.IsInf(float64(power), 1) {
		return
	}
	dt := at.Sub(c.at)
	if c.primed && dt < c.Averaging*9/10 {
		// Readings that are closer together than the window they are averages
		// of would lag behind the counter by half of it.
		return
	}
	if !c.primed || dt > maxCheckInterval || counter.Observed-c.last.Observed != dt {
		c.power.Rebase()
	}
	c.power.Averaging = c.Averaging
	before := c.power.Tally()
	now := c.power.Add(at, power)
	if dt := now.Observed - before.Observed; dt > 0 {
		c.counted += counter.Energy - c.last.Energy
		c.drawn += now.Energy - before.Energy
		c.covered += dt
	}
	c.primed, c.at, c.last = true, at, counter
	c.judge()
}

// judge compares the two when a span is full.
func (c *CrossCheck) judge() {
	span, tolerance := averageSpan, averageTolerance
	if c.Averaging == 0 {
		span, tolerance = instantSpan, instantTolerance
	}
	if c.covered < span {
		return
	}
	less, more := float64(min(c.counted, c.drawn)), float64(max(c.counted, c.drawn))
	if more-less > tolerance*more {
		c.band = min((more/less-1)/2, 1)
		if c.doubt == nil {
			c.doubt = fmt.Errorf("%s: %w: in %v the counter saw %s and the power beside it %s", c.Name, ErrDisagreement,
				c.covered.Round(time.Second), Quantity(float64(c.counted.Joules()), "J"), Quantity(float64(c.drawn.Joules()), "J"))
		}
	} else {
		c.doubt, c.band = nil, 0
	}
	c.counted, c.drawn, c.covered = 0, 0, 0
}

// Doubt returns nil while the two agree, or have not been compared yet, else an
// error that wraps [ErrDisagreement]. It is made once, when they cease to agree.
func (c *CrossCheck) Doubt() error { return c.doubt }

// ErrorBand returns the least relative error of one standard deviation that is
// wide enough for the two: half of what the greater exceeds the lesser by, no more
// than 1; 0 while they agree.
func (c *CrossCheck) ErrorBand() float64 { return c.band }
