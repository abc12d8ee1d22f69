package tracker

import (
	"testing"
	"time"
	"unsafe"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
)

// moved is a time whose wall clock was moved by d, of which its monotonic clock
// knows nothing.
func moved(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	was := at
	// The seconds of a time with a monotonic reading are above 30 bits.
	*(*uint64)(unsafe.Pointer(&at)) += uint64(d/time.Second) << 30
	if at.Round(0).Sub(was.Round(0)) != d || at.Sub(was) != 0 {
		t.Skipf("a time is not what it was: %v from %v", at, was)
	}
	return at
}

// A wall clock that is moved changes no duration and no energy, and is seen.
func TestClockJump(t *testing.T) {
	for name, test := range map[string]struct {
		jump, seen time.Duration
	}{
		"an hour forward":  {time.Hour, time.Hour},
		"an hour backward": {-time.Hour, time.Hour},
		"not at all":       {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sampler{
				node:     nodeModel{meter: -1},
				interval: time.Second, scope: Machine,
				devices: []sensors.Device{{ID: "a", Component: sensors.GPU}}, rules: make([]rule, 1),
				model: emissions.Model{PUE: emissions.Factor{Value: 1, Unit: emissions.UnitPUE}},
			}
			begin := time.Now()
			last := &sample{at: begin, devices: make([]deviceState, 1)}
			for i := range 10 {
				at := begin.Add(time.Duration(i+1) * time.Second)
				if i >= 4 {
					at = moved(t, at, test.jump)
				}
				next := &sample{at: at, devices: make([]deviceState, 1)}
				next.counts.samples = 1
				next.devices[0].Energy = sensors.Microjoules(i+1) * 300e6
				next.devices[0].Observed = time.Duration(i+1) * time.Second
				s.settle(last, next)
				last = next
			}
			if last.jumped != test.seen || last.elapsed != 10*time.Second || last.counts.missed != 0 {
				t.Errorf("jumped %v, elapsed %v, missed %d", last.jumped, last.elapsed, last.counts.missed)
			}
		})
	}
}
