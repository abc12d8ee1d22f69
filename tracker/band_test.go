package tracker

import (
	"math"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func TestRelativeError(t *testing.T) {
	end := math.Sqrt(2. / 12)
	tests := []struct {
		name   string
		device sensors.Device
		tally  sensors.Tally
		band   float64 // of the reading
		want   float64
	}{
		{
			name:   "the band of the source",
			device: sensors.Device{ErrorBand: 0.05},
			tally:  sensors.Tally{Energy: 1e9, Observed: time.Minute},
			want:   0.05,
		},
		{
			name:   "the wider band of a lesser method",
			device: sensors.Device{ErrorBand: 0.05},
			tally:  sensors.Tally{Energy: 1e9, Observed: time.Minute},
			band:   0.2, want: 0.2,
		},
		{
			name:   "stale ends, in a run of five updates",
			device: sensors.Device{Method: sensors.MethodCounter, Refresh: 100 * time.Millisecond},
			tally:  sensors.Tally{Energy: 1e9, Observed: 500 * time.Millisecond},
			want:   2 * end / 5,
		},
		{
			name:   "stale ends, of which a long run takes no notice",
			device: sensors.Device{Method: sensors.MethodCounter, Refresh: 100 * time.Millisecond},
			tally:  sensors.Tally{Energy: 1e9, Observed: 1000 * time.Second},
			want:   2 * end / 10000,
		},
		{
			name:   "the window of an average hides no peak",
			device: sensors.Device{Method: sensors.MethodPowerAverage, Refresh: time.Second},
			tally:  sensors.Tally{Energy: 1e9, Observed: 2 * time.Second},
			want:   end / 2,
		},
		{
			name:   "what was not seen",
			device: sensors.Device{Method: sensors.MethodPower},
			tally:  sensors.Tally{Energy: 1000e6, Observed: time.Minute, Variance: 90000},
			want:   0.3,
		},
		{
			name:   "no energy, nothing relative to it",
			device: sensors.Device{ErrorBand: 0.1},
			tally:  sensors.Tally{Observed: time.Minute, Variance: 90000},
			want:   0.1,
		},
		{
			name:   "half of the time bridged",
			device: sensors.Device{Method: sensors.MethodPower},
			tally:  sensors.Tally{Energy: 1e9, Observed: time.Minute, Estimated: 30 * time.Second},
			want:   0.175,
		},
		{
			name:   "all of them are independent",
			device: sensors.Device{Method: sensors.MethodPower, ErrorBand: 0.2, Refresh: time.Second},
			tally:  sensors.Tally{Energy: 1000e6, Observed: 10 * time.Second, Estimated: 10 * time.Second, Variance: 10000},
			want:   math.Sqrt(0.2*0.2 + 4*2./12/100 + 0.35*0.35 + 0.01),
		},
		{
			name:   "a sensor that says nothing sensible",
			device: sensors.Device{ErrorBand: math.NaN()},
			tally:  sensors.Tally{Energy: 1e9, Observed: time.Minute},
			want:   1,
		},
		{
			name:   "nothing observed",
			device: sensors.Device{ErrorBand: 0.05, Refresh: time.Second},
			want:   0.05,
		},
		{
			name:   "an interval that ends",
			device: sensors.Device{ErrorBand: 0.05},
			tally:  sensors.Tally{Energy: 1, Observed: time.Minute, Variance: math.Inf(1)},
			want:   widest,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			now := deviceState{Reading: sensors.Reading{Tally: test.tally, ErrorBand: test.band}}
			if got := relativeError(test.device, &now); math.Abs(got-test.want) > 1e-12 {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
