package sensors_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// raplRange is the common max_energy_range_uj, and its period: one unit more.
const raplPeriod = 262143328850 + 61

func TestCounter(t *testing.T) {
	type reading struct {
		at  float64 // seconds
		raw uint64
	}
	tests := []struct {
		name     string
		counter  sensors.Counter
		readings []reading
		want     sensors.Tally
	}{
		{
			name:     "starts anywhere",
			readings: []reading{{0, 5_000_000_000}, {1, 5_000_000_100}},
			want:     sensors.Tally{Energy: 100, Observed: time.Second},
		},
		{
			name:     "unit",
			counter:  sensors.Counter{Unit: 1000},
			readings: []reading{{0, 7}, {2, 9}},
			want:     sensors.Tally{Energy: 2000, Observed: 2 * time.Second},
		},
		{
			name:     "wraps",
			counter:  sensors.Counter{Period: raplPeriod, MaxPower: 1050},
			readings: []reading{{0, raplPeriod - 100e6}, {1, 50e6}},
			want:     sensors.Tally{Energy: 150e6, Observed: time.Second},
		},
		{
			name:     "wraps exactly at zero",
			counter:  sensors.Counter{Period: raplPeriod, MaxPower: 1050},
			readings: []reading{{0, raplPeriod - 1}, {1, 0}},
			want:     sensors.Tally{Energy: 1, Observed: time.Second},
		},
		{
			// A suspend or kexec: across a "wrap" it would be 200 kJ in a second.
			name:     "a decrease that cannot be a wrap is a restart",
			counter:  sensors.Counter{Period: raplPeriod, MaxPower: 1050},
			readings: []reading{{0, 60e9}, {1, 60.1e9}, {2, 20e6}, {3, 120e6}},
			want:     sensors.Tally{Energy: 220e6, Observed: 2 * time.Second, Resets: 1},
		},
		{
			name:     "a driver reload restarts a counter that never wraps",
			counter:  sensors.Counter{Unit: 1000, MaxPower: 700},
			readings: []reading{{0, 1e9}, {1, 1e9 + 300e3}, {2, 100e3}, {3, 400e3}},
			want:     sensors.Tally{Energy: 700e6, Observed: 2 * time.Second, Resets: 1},
		},
		{
			// codecarbon: one unreadable sample added 162 kJ.
			name:     "a glitch to zero costs one interval at most and adds nothing",
			counter:  sensors.Counter{MaxPower: 700},
			readings: []reading{{0, 162e9}, {1, 162.1e9}, {2, 0}, {3, 162.3e9}, {4, 162.4e9}},
			want:     sensors.Tally{Energy: 200e6, Observed: 2 * time.Second, Resets: 2, Rejected: 1},
		},
		{
			name:     "a spike costs nothing",
			counter:  sensors.Counter{MaxPower: 700},
			readings: []reading{{0, 1e9}, {1, 1.1e9}, {2, 900e9}, {3, 1.3e9}},
			want:     sensors.Tally{Energy: 300e6, Observed: 3 * time.Second, Rejected: 1},
		},
		{
			// scaphandre #147: 53 kW as the first value after chmod.
			name:     "a jump that stays is re-based, not counted",
			counter:  sensors.Counter{MaxPower: 700},
			readings: []reading{{0, 1e9}, {1, 900e9}, {2, 900.1e9}, {3, 900.2e9}},
			want:     sensors.Tally{Energy: 200e6, Observed: 2 * time.Second, Rejected: 1, Resets: 1},
		},
		{
			name:     "a restart without a known bound adds nothing",
			readings: []reading{{0, 1e9}, {1, 5e8}, {2, 6e8}},
			want:     sensors.Tally{Energy: 1e8, Observed: time.Second, Resets: 1},
		},
		{
			name:     "after a time in which it may have gone round twice, the least is counted and the time is not",
			counter:  sensors.Counter{Period: raplPeriod, MaxPower: 1050},
			readings: []reading{{0, 0}, {1000, 5e9}},
			want:     sensors.Tally{Energy: 5e9},
		},
		{
			name:     "one update's worth may arrive in no time",
			counter:  sensors.Counter{MaxPower: 700, Refresh: 100 * time.Millisecond},
			readings: []reading{{0, 0}, {0.001, 60e6}},
			want:     sensors.Tally{Energy: 60e6, Observed: time.Millisecond},
		},
		{
			name:     "a clock that goes back costs no energy",
			counter:  sensors.Counter{},
			readings: []reading{{10, 0}, {5, 100}, {6, 200}},
			want:     sensors.Tally{Energy: 200, Observed: time.Second},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := test.counter
			for _, r := range test.readings {
				c.Add(t0.Add(time.Duration(r.at*1e9)), r.raw)
			}
			if got := c.Tally(); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// A counter's energy does not depend on when or how often it is read, across
// wraps too: that is what makes it better than any power reading.
func TestCounterIsIndependentOfTheSamplingRate(t *testing.T) {
	script := sensortest.Script{
		Curve: sensortest.Curve{
			{At: 0, Power: 80}, {At: 20 * time.Second, Power: 350}, {At: 50 * time.Second, Power: 350}, {At: 50 * time.Second, Power: 120},
		},
		Start: 65532e6, Period: 65532610987, MaxPower: 1050,
	}
	const end = 3600 * time.Second
	rng := rand.New(rand.NewPCG(1, 2))
	for _, mean := range []time.Duration{50 * time.Millisecond, time.Second, 7 * time.Second, 30 * time.Second} {
		c := sensors.Counter{Period: script.Period, MaxPower: script.MaxPower}
		for at := time.Duration(0); at < end; at += time.Duration(rng.Int64N(int64(2 * mean))) {
			c.Add(t0.Add(at), script.Raw(at))
		}
		got := c.Add(t0.Add(end), script.Raw(end))
		// Each end can be off by the rounding of one microjoule.
		if want := script.Curve.Energy(end); diff(got.Energy, want) > 2 || got.Observed != end {
			t.Errorf("read every %v: %d µJ in %v, want %d µJ", mean, got.Energy, got.Observed, want)
		}
	}
}

func diff(a, b sensors.Microjoules) sensors.Microjoules { return max(a, b) - min(a, b) }

// Whatever a counter shows, its energy never decreases, never exceeds what the
// device can have drawn, and never accounts for more time than has passed.
func FuzzCounter(f *testing.F) {
	f.Add(uint64(0), uint64(1), uint64(2), uint64(3), uint32(1000), uint64(raplPeriod))
	f.Add(uint64(5), uint64(math.MaxUint64), uint64(0), uint64(9), uint32(1), uint64(0))
	f.Fuzz(func(t *testing.T, a, b, c, d uint64, ms uint32, period uint64) {
		const bound = 1000
		counter := sensors.Counter{Unit: 1, Period: period, MaxPower: bound}
		dt := time.Duration(ms%60_000) * time.Millisecond
		var last sensors.Tally
		for i, raw := range []uint64{a, b, c, d, a, a} {
			got := counter.Add(t0.Add(time.Duration(i)*dt), raw)
			elapsed := time.Duration(i) * dt
			if got.Energy < last.Energy || got.Observed < last.Observed {
				t.Fatalf("decreases from %+v to %+v", last, got)
			}
			if float64(got.Energy) > bound*1e6*elapsed.Seconds()+1 {
				t.Fatalf("%d µJ in %v at no more than %d W", got.Energy, elapsed, bound)
			}
			if got.Observed > elapsed {
				t.Fatalf("observed %v of %v", got.Observed, elapsed)
			}
			last = got
		}
	})
}

func TestCounterAndIntegratorAllocateNothing(t *testing.T) {
	var c sensors.Counter
	var g sensors.Integrator
	now := t0
	var raw uint64
	if n := testing.AllocsPerRun(100, func() {
		now = now.Add(time.Second)
		raw += 1000
		c.Add(now, raw)
		g.Add(now, 100)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
