package sensors_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/wattspan/wattspan/sensors"
)

// moved is a time whose wall clock was moved by d, of which its monotonic clock
// knows nothing.
func moved(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	// With a monotonic reading, a time begins with its seconds since 1885, above
	// 30 bits of nanoseconds. No function makes such a time.
	was := at
	*(*uint64)(unsafe.Pointer(&at)) += uint64(d/time.Second) << 30
	if at.Round(0).Sub(was.Round(0)) != d || at.Sub(was) != 0 {
		t.Skipf("a time is not what it was: %v from %v", at, was)
	}
	return at
}

// Peers that take durations from the wall clock count an hour of power, or a
// negative energy, when NTP or a user moves it.
func TestWallClockJumps(t *testing.T) {
	start := time.Now()
	for name, jump := range map[string]time.Duration{"forward": time.Hour, "backward": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			c := sensors.Counter{MaxPower: 700}
			g := sensors.Integrator{Period: time.Second, MaxPower: 700}
			for i := range 11 {
				at := start.Add(time.Duration(i) * time.Second)
				if i > 5 {
					at = moved(t, at, jump)
				}
				c.Add(at, uint64(i)*300e6)
				g.Add(at, 300)
			}
			want := sensors.Tally{Energy: 3000e6, Observed: 10 * time.Second}
			if got := c.Tally(); got != want {
				t.Errorf("counter: %+v", got)
			}
			if got := g.Tally(); got != want {
				t.Errorf("power: %+v", got)
			}
		})
	}
}

// A machine that sleeps for eight hours draws a few watts that nobody asked for,
// while the clock that measures durations stands still. Its counters go on, or
// start anew.
func TestSuspend(t *testing.T) {
	const asleep = 8 * 3600 * 2e6 // 2 W for eight hours
	for name, test := range map[string]struct {
		resumed uint64 // what the counter shows a second later
		want    sensors.Tally
	}{
		"it has gone on": {10e9 + 1000e6 + asleep, sensors.Tally{
			Energy: 1900e6, Observed: 19 * time.Second, Rejected: 1, Resets: 1,
		}},
		"it has started anew": {50e6, sensors.Tally{
			Energy: 1950e6, Observed: 19 * time.Second, Resets: 1,
		}},
		"it has stood still": {10e9 + 1000e6, sensors.Tally{
			Energy: 1900e6, Observed: 20 * time.Second,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := sensors.Counter{Period: raplPeriod, MaxPower: 1050}
			raw, second := uint64(10e9), 0
			tick := func() {
				c.Add(t0.Add(time.Duration(second)*time.Second), raw)
				raw += 100e6
				second++
			}
			for range 11 {
				tick()
			}
			raw = test.resumed
			for range 10 {
				tick()
			}
			if got := c.Tally(); got != test.want {
				t.Errorf("%+v\nwant %+v", got, test.want)
			}
		})
	}
}

// A counter that may have gone round more than once says the least that was used,
// and does not claim to have seen the time: wraps are never guessed.
func TestUnknownWraps(t *testing.T) {
	c := sensors.Counter{Period: raplPeriod, MaxPower: 1050}
	c.Add(t0, 0)
	c.Add(t0.Add(10*time.Minute), 120e9) // 200 W, or 200 W and a round at 1050 W
	if got := c.Tally(); got.Energy != 120e9 || got.Observed != 0 {
		t.Errorf("%+v", got)
	}
	// A minute is too short for a round.
	c.Add(t0.Add(11*time.Minute), 132e9)
	if got := c.Tally(); got.Energy != 132e9 || got.Observed != time.Minute {
		t.Errorf("%+v", got)
	}
}
