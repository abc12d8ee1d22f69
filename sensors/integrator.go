package sensors

import (
	"math"
	"time"
)

// MaxGap is the longest time between two power readings across which an
// [Integrator] draws a line. What lies further apart is not known, and is not
// counted.
const MaxGap = 30 * time.Second

// Integrator turns power readings into a [Tally] from zero. It is a pure
// function of the readings given to [Integrator.Add] and their times.
//
// Instantaneous readings are joined by the trapezoidal rule. A reading that the
// hardware has averaged over a window (Averaging) says what was drawn in that
// window exactly, so it stands for the window before it, and the trapezoidal
// rule only bridges what no window covers: at one reading a window the result
// is exact, and has no lag.
//
// What happened between two readings was not seen. How far they spread says how
// far it can have strayed: two readings that differ by D over a bridged time h add
// D²·h²/2 to [Tally.Variance], which is what independent samples of a load would
// have (their successive differences estimate twice its variance). It is more
// than a single step of height D at a random moment leaves open, D²·h²/12, which
// would be true of loads that change seldom and is too little for all others. A load in
// step with the readings shows always the same side: no estimate can see that.
type Integrator struct {
	// Period is the time at which readings are expected. A reading that comes
	// later than three periods after the last counts as estimated. 0 disables
	// that.
	Period time.Duration
	// Averaging is the window over which the hardware averages; 0 for
	// instantaneous power.
	Averaging time.Duration
	// MaxPower is the most the device can draw; a reading above it is
	// rejected. 0 means that no bound is known.
	MaxPower Watts

	tally  Tally
	primed bool
	last   Watts
	lastAt time.Time
	carry  float64 // the part of a microjoule not yet in tally.Energy
}

// Add takes the power at a time, and returns the tally up to it.
func (g *Integrator) Add(at time.Time, power Watts) Tally {
	if !(power >= 0) || math.IsInf(float64(power), 1) || g.MaxPower > 0 && power > g.MaxPower {
		g.tally.Rejected++
		return g.tally
	}
	dt := at.Sub(g.lastAt)
	switch {
	case !g.primed:
		g.primed = true
	case dt <= 0:
		// The same moment again, or a clock that went back: no time passed.
		g.last = power
		return g.tally
	case dt <= MaxGap:
		averaged := min(dt, g.Averaging)
		bridged := dt - averaged
		off := float64(power-g.last) * bridged.Seconds()
		g.tally.Variance += off * off / 2
		e := float64(power)*averaged.Seconds() + float64(g.last+power)/2*bridged.Seconds()
		e = e*1e6 + g.carry
		whole := math.Floor(e)
		g.carry = e - whole
		g.tally.Energy += Microjoules(whole)
		g.tally.Observed += dt
		if g.Period > 0 && dt > 3*g.Period {
			g.tally.Estimated += dt
		}
	}
	g.last, g.lastAt = power, at
	return g.tally
}

// Rebase makes the next reading a new origin, without counting what lies
// between: for a device that was lost and came back.
func (g *Integrator) Rebase() { g.primed = false }

// Tally returns what has been accumulated so far.
func (g *Integrator) Tally() Tally { return g.tally }
