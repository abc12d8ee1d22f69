package sensors_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

func TestIntegrator(t *testing.T) {
	type reading struct {
		at float64
		w  sensors.Watts
	}
	tests := []struct {
		name       string
		integrator sensors.Integrator
		readings   []reading
		want       sensors.Tally
	}{
		{
			name:     "a ramp is exact",
			readings: []reading{{0, 0}, {1, 100}, {3, 300}},
			want:     sensors.Tally{Energy: 450e6, Observed: 3 * time.Second, Variance: (100*100 + 400*400) / 2},
		},
		{
			// alumet counted only when the power rises.
			name:     "falling and constant power count",
			readings: []reading{{0, 200}, {1, 100}, {2, 100}},
			want:     sensors.Tally{Energy: 250e6, Observed: 2 * time.Second, Variance: 100 * 100 / 2},
		},
		{
			name:       "real time, not the nominal interval",
			integrator: sensors.Integrator{Period: time.Second},
			readings:   []reading{{0, 100}, {1.7, 100}},
			want:       sensors.Tally{Energy: 170e6, Observed: 1700 * time.Millisecond},
		},
		{
			name:       "a late reading is estimated",
			integrator: sensors.Integrator{Period: time.Second},
			readings:   []reading{{0, 100}, {1, 100}, {11, 100}},
			want:       sensors.Tally{Energy: 1100e6, Observed: 11 * time.Second, Estimated: 10 * time.Second},
		},
		{
			name:     "a gap is not known",
			readings: []reading{{0, 100}, {1, 100}, {61, 100}, {62, 100}},
			want:     sensors.Tally{Energy: 200e6, Observed: 2 * time.Second},
		},
		{
			name:     "nor is what a step across a gap may have meant",
			readings: []reading{{0, 100}, {1, 100}, {61, 500}, {62, 500}},
			want:     sensors.Tally{Energy: 600e6, Observed: 2 * time.Second},
		},
		{
			name:       "nonsense is rejected, and bridged",
			integrator: sensors.Integrator{MaxPower: 700},
			readings:   []reading{{0, 100}, {1, 300_000}, {2, -5}, {3, sensors.Watts(math.NaN())}, {4, 100}},
			want:       sensors.Tally{Energy: 400e6, Observed: 4 * time.Second, Rejected: 3},
		},
		{
			name:     "no time, no energy",
			readings: []reading{{0, 100}, {0, 100}, {-1, 100}},
			want:     sensors.Tally{},
		},
		{
			name:       "an average stands for its window",
			integrator: sensors.Integrator{Averaging: time.Second},
			// The step lies between the readings; only the second window has it.
			readings: []reading{{0, 100}, {1, 600}, {2, 600}},
			want:     sensors.Tally{Energy: 1200e6, Observed: 2 * time.Second},
		},
		{
			name:       "what no window covers is bridged",
			integrator: sensors.Integrator{Averaging: time.Second},
			readings:   []reading{{0, 100}, {3, 400}},
			want:       sensors.Tally{Energy: 400e6 + 500e6, Observed: 3 * time.Second, Variance: 600 * 600 / 2},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := test.integrator
			for _, r := range test.readings {
				g.Add(t0.Add(time.Duration(r.at*1e9)), r.w)
			}
			if got := g.Tally(); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// What lies between two readings of a device that was lost is not known, and no
// variance makes up for it.
func TestIntegratorRebase(t *testing.T) {
	var g sensors.Integrator
	g.Add(t0, 100)
	g.Add(t0.Add(time.Second), 100)
	g.Rebase()
	g.Add(t0.Add(5*time.Second), 500)
	want := sensors.Tally{Energy: 100e6, Observed: time.Second}
	if got := g.Tally(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	g.Add(t0.Add(6*time.Second), 400)
	want = sensors.Tally{Energy: 550e6, Observed: 2 * time.Second, Variance: 100 * 100 / 2}
	if got := g.Tally(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Independent samples of a load: the variance is that of the energies they give.
func TestIntegratorVarianceOfRandomSamples(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const runs, readings = 2000, 100
	var squares, predicted float64
	for range runs {
		var g sensors.Integrator
		for i := range readings + 1 {
			w := sensors.Watts(100)
			if rng.IntN(2) == 1 {
				w = 600
			}
			g.Add(t0.Add(time.Duration(i)*time.Second), w)
		}
		off := float64(g.Tally().Energy.Joules()) - 350*readings
		squares += off * off / runs
		predicted += g.Tally().Variance / runs
	}
	if ratio := predicted / squares; math.Abs(ratio-1) > 0.15 {
		t.Errorf("predicted a variance of %.0f J², found %.0f J²", predicted, squares)
	}
}

// Fractions of a microjoule are carried, not dropped: a million readings of a
// milliwatt add up.
func TestIntegratorLosesNoFractions(t *testing.T) {
	var g sensors.Integrator
	for i := range 1_000_001 {
		g.Add(t0.Add(time.Duration(i)*time.Millisecond), 0.0001)
	}
	if got := g.Tally().Energy; diff(got, 100_000) > 1 {
		t.Errorf("%d µJ, want 100000 µJ", got)
	}
}

// The documented bounds: an instantaneous reading is off by at most half an
// interval's worth of each step; a window average read once a window is exact.
func TestIntegratorBounds(t *testing.T) {
	curve := sensortest.Steps(1700*time.Millisecond, 100, 600, 150, 500, 90, 700, 100)
	const sumOfSteps = 500 + 450 + 350 + 410 + 610 + 600
	const end = 15 * time.Second
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		phase := time.Duration(rng.Int64N(int64(time.Second)))
		for _, h := range []time.Duration{100 * time.Millisecond, time.Second} {
			bound := sumOfSteps * h.Seconds() / 2
			if off := integrationError(curve, 0, phase, h, end); math.Abs(off) > bound {
				t.Fatalf("instant power every %v: off by %.1f J, bound %.1f J", h, off, bound)
			}
		}
		if off := integrationError(curve, time.Second, phase, time.Second, end); math.Abs(off) > 1e-3 {
			t.Fatalf("1 s average every 1 s: off by %.4f J", off)
		}
	}
}

// integrationError returns by how many joules the integral of readings every h
// differs from the truth between the first and the last of them.
func integrationError(curve sensortest.Curve, averaging, phase, h, length time.Duration) float64 {
	script := sensortest.Script{Curve: curve, Averaging: averaging}
	g := sensors.Integrator{Averaging: averaging}
	last := phase
	for at := phase; at <= phase+length; at += h {
		g.Add(t0.Add(at), script.Watts(at))
		last = at
	}
	return float64(g.Tally().Energy)/1e6 - float64(curve.Joules(last)-curve.Joules(phase))
}

func FuzzIntegrator(f *testing.F) {
	f.Add(1.0, 2.0, 3.0, int64(1e9), int64(1e9))
	f.Add(math.Inf(1), -1.0, 1e300, int64(-5), int64(60e9))
	f.Fuzz(func(t *testing.T, a, b, c float64, d1, d2 int64) {
		g := sensors.Integrator{Period: time.Second, MaxPower: 2000}
		var last sensors.Tally
		at := t0
		for i, w := range []float64{a, b, c, a, b} {
			got := g.Add(at, sensors.Watts(w))
			if got.Energy < last.Energy || got.Observed < last.Observed || got.Estimated > got.Observed || !(got.Variance >= last.Variance) {
				t.Fatalf("from %+v to %+v", last, got)
			}
			if float64(got.Energy) > 2000e6*got.Observed.Seconds()+1 {
				t.Fatalf("%d µJ in %v observed at no more than 2000 W", got.Energy, got.Observed)
			}
			last = got
			step := d1
			if i%2 == 1 {
				step = d2
			}
			at = at.Add(time.Duration(step % int64(2*time.Minute)))
		}
	})
}
