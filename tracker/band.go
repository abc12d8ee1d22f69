package tracker

import (
	"math"

	"github.com/wattspan/wattspan/sensors"
)

const (
	// peak is how much above its mean the power at the ends of a time is taken to
	// be. A register that has not been updated yet hides what is drawn then, which
	// for a load of bursts is more than the mean.
	peak = 2
	// bridgedError is the relative error of what lies between readings further
	// apart than a sensor asks for: that of a poll every 15 s (docs/ACCURACY.md).
	bridgedError = 0.35
	// widest bounds an error relative to a figure: what may be wrong by ten times
	// is unknown, and an interval without end could not be written as JSON.
	widest = 10
)

// relativeError returns the relative error of a device's energy since its first
// reading, one standard deviation. It adds in quadrature:
//
//   - the systematic band of the source;
//   - the staleness of the readings at both ends, each uniformly distributed
//     over a refresh period: an RMS of √(2/12) of a period;
//   - what was not seen between readings of a power, by the tally's variance;
//   - the part of the time that was bridged between readings too far apart.
func relativeError(d sensors.Device, now *deviceState) float64 {
	band := d.ErrorBand
	if now.ErrorBand > max(band, 0) { // it is 0 where the method is the device's own
		band = now.ErrorBand
	}
	if !(band >= 0 && band <= 1) {
		// A sensor that says nothing sensible may be wrong by anything.
		band = 1
	}
	if now.Observed <= 0 {
		return band
	}
	observed := now.Observed.Seconds()
	ends := math.Sqrt(2./12) * d.Refresh.Seconds() / observed
	if d.Method != sensors.MethodPowerAverage { // whose refresh is its window: it hides no peak
		ends *= peak
	}
	bridged := bridgedError * now.Estimated.Seconds() / observed
	rel := math.Hypot(math.Hypot(band, ends), bridged)
	if energy := float64(now.Energy.Joules()); energy > 0 && now.Variance > 0 {
		rel = math.Hypot(rel, math.Sqrt(now.Variance)/energy)
	}
	return min(rel, widest)
}
