package sensors_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// bench is a CrossCheck over a simulated load, with the counter that the test
// describes.
type bench struct {
	sensors.CrossCheck
	load    sensortest.Curve
	counted func(t time.Duration) sensors.Microjoules
	every   time.Duration
	at      time.Duration
	// The counter did not observe so much of the time.
	unobserved time.Duration
	changes    int // of the verdict
}

// run reads until the time, and returns how often the verdict has changed so far.
func (b *bench) run(until time.Duration) int {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for ; b.at <= until; b.at += b.every {
		was := b.Doubt()
		b.Add(start.Add(b.at), b.reading(), b.watts())
		if (b.Doubt() == nil) != (was == nil) {
			b.changes++
		}
	}
	return b.changes
}

func (b *bench) reading() sensors.Tally {
	return sensors.Tally{Energy: b.counted(b.at), Observed: b.at - b.unobserved}
}

func (b *bench) watts() sensors.Watts {
	if b.Averaging == 0 {
		return b.load.Power(b.at)
	}
	return sensors.Watts(float64(b.load.Joules(b.at)-b.load.Joules(b.at-b.Averaging)) / b.Averaging.Seconds())
}

func averaged(load sensortest.Curve) *bench {
	b := &bench{load: load, counted: load.Energy, every: time.Second}
	b.Name, b.Averaging = "test: GPU-0", time.Second
	return b
}

func instant(load sensortest.Curve) *bench {
	b := averaged(load)
	b.Averaging = 0
	return b
}

var (
	falling = sensortest.Curve{{At: 0, Power: 650}, {At: 5 * time.Minute, Power: 50}}
	square  = func() (c sensortest.Curve) {
		for t := time.Duration(0); t < 5*time.Minute; t += 1400 * time.Millisecond {
			c = append(c, sensortest.Point{At: t, Power: 60}, sensortest.Point{At: t + 900*time.Millisecond, Power: 60},
				sensortest.Point{At: t + 900*time.Millisecond, Power: 650}, sensortest.Point{At: t + 1400*time.Millisecond, Power: 650})
		}
		return c
	}()
	// Idle but for a burst at the very end of each span.
	late = func() (c sensortest.Curve) {
		for t := 30 * time.Second; t <= 5*time.Minute; t += 30 * time.Second {
			c = append(c, sensortest.Point{At: t - 700*time.Millisecond, Power: 20}, sensortest.Point{At: t - 700*time.Millisecond, Power: 700},
				sensortest.Point{At: t, Power: 700}, sensortest.Point{At: t, Power: 20})
		}
		return c
	}()
)

// What a counter and a power see of the same load agrees, whatever the load, and
// at any interval at which they can be compared. A load that is constant or falls
// counts as one that rises does: one tool counted only a power that rose.
func TestCrossCheckAgrees(t *testing.T) {
	for name, load := range map[string]sensortest.Curve{
		"constant": sensortest.Constant(300), "falling": falling, "bursts": square, "late bursts": late,
		"nothing": sensortest.Constant(0),
		"steps":   sensortest.Steps(17*time.Second, 80, 600, 120, 640, 90, 500, 300),
	} {
		for _, every := range []time.Duration{100 * time.Millisecond, 970 * time.Millisecond, time.Second, 1250 * time.Millisecond} {
			b := averaged(load)
			b.every = every
			if n := b.run(5 * time.Minute); n != 0 || b.ErrorBand() != 0 {
				t.Errorf("%s every %v: %d changes, %v", name, every, n, b.Doubt())
			}
		}
		b := instant(load)
		b.every = 300 * time.Millisecond
		if n := b.run(5 * time.Minute); n != 0 {
			t.Errorf("%s, instantaneous: %v", name, b.Doubt())
		}
	}
}

// A counter that the hardware refreshes every 100 ms lags, and is right.
func TestCrossCheckLaggingCounter(t *testing.T) {
	for name, load := range map[string]sensortest.Curve{"bursts": square, "falling": falling, "late bursts": late} {
		b := averaged(load)
		b.counted = func(t time.Duration) sensors.Microjoules {
			return load.Energy(max(t-30*time.Millisecond, 0).Truncate(100 * time.Millisecond))
		}
		if n := b.run(5 * time.Minute); n != 0 {
			t.Errorf("%s: %v", name, b.Doubt())
		}
	}
}

// On an idle card of Zeus issue 181 the counter saw 187 J where the power was
// 327 J.
func TestCrossCheckIdle(t *testing.T) {
	b := averaged(sensortest.Constant(65.4))
	b.counted = func(t time.Duration) sensors.Microjoules { return sensors.Microjoules(t.Seconds() * 37.4e6) }
	b.run(29 * time.Second)
	if b.Doubt() != nil {
		t.Errorf("doubts after 29 s: %v", b.Doubt())
	}
	b.run(30 * time.Second)
	doubt := b.Doubt()
	if !errors.Is(doubt, sensors.ErrDisagreement) {
		t.Fatalf("no doubt of 187 J against 327 J: %v", doubt)
	}
	for _, want := range []string{"test: GPU-0", "30s", "1.12 kJ", "1.96 kJ"} {
		if !strings.Contains(doubt.Error(), want) {
			t.Errorf("%q does not say %q", doubt, want)
		}
	}
	if want := (327.0/187 - 1) / 2; math.Abs(b.ErrorBand()-want) > 1e-3 {
		t.Errorf("error band %v, want %v, which holds the other figure at two standard deviations", b.ErrorBand(), want)
	}
	if b.run(2 * time.Minute); b.Doubt() != doubt {
		t.Errorf("the error is made anew: %v", b.Doubt())
	}
}

func TestCrossCheckFrozen(t *testing.T) {
	b := averaged(sensortest.Constant(200))
	b.counted = func(t time.Duration) sensors.Microjoules {
		return b.load.Energy(min(t, time.Minute)) + b.load.Energy(max(t, 2*time.Minute)) - b.load.Energy(2*time.Minute)
	}
	if b.run(time.Minute); b.Doubt() != nil {
		t.Errorf("doubts a counter that counts: %v", b.Doubt())
	}
	if b.run(90 * time.Second); !errors.Is(b.Doubt(), sensors.ErrDisagreement) || b.ErrorBand() != 1 {
		t.Errorf("a counter that stands still: band %v, %v", b.ErrorBand(), b.Doubt())
	}
	if b.run(2*time.Minute + 29*time.Second); b.Doubt() == nil {
		t.Error("believed again before a span has passed")
	}
	if b.run(2*time.Minute + 30*time.Second); b.Doubt() != nil || b.ErrorBand() != 0 {
		t.Errorf("they agree again: band %v, %v", b.ErrorBand(), b.Doubt())
	}
}

// A counter that counts what was not drawn is no better.
func TestCrossCheckTolerance(t *testing.T) {
	for _, test := range []struct {
		of      func(sensortest.Curve) *bench
		gain    float64
		after   time.Duration
		doubted bool
	}{
		{averaged, 1.16, 30 * time.Second, false}, // 14 % of the greater
		{averaged, 1.20, 30 * time.Second, true},
		{averaged, 0.86, 30 * time.Second, false},
		{averaged, 0.84, 30 * time.Second, true},
		{instant, 0.84, 10 * time.Minute, false},
		{instant, 0.72, 10 * time.Minute, false},
		{instant, 0.68, 59 * time.Second, false},
		{instant, 0.68, time.Minute, true},
		{instant, 1.50, time.Minute, true},
	} {
		b := test.of(sensortest.Constant(200))
		b.counted = func(t time.Duration) sensors.Microjoules {
			return sensors.Microjoules(float64(b.load.Energy(t)) * test.gain)
		}
		if b.run(test.after); (b.Doubt() != nil) != test.doubted {
			t.Errorf("%v × what the power says, averaged over %v, after %v: %v", test.gain, b.Averaging, test.after, b.Doubt())
		}
	}
}

// What one of the two did not see is compared with nothing: in the minute after
// the first 20 s the counter tells of 1 kW, and the power knows nothing of it.
func TestCrossCheckGaps(t *testing.T) {
	from, to := 20*time.Second, 80*time.Second
	counted := func(t time.Duration) sensors.Microjoules {
		return sensortest.Constant(200).Energy(t) + sensortest.Constant(800).Energy(max(min(t, to)-from, 0))
	}
	unknown := func(w sensors.Watts) func(*bench) {
		return func(b *bench) {
			b.load = sensortest.Constant(w)
			b.run(to)
			b.load = sensortest.Constant(200)
		}
	}
	for name, gap := range map[string]func(*bench){
		"no power":  unknown(sensors.Watts(math.NaN())),
		"nonsense":  unknown(sensors.Watts(math.Inf(1))),
		"negative":  unknown(-1),
		"no answer": func(b *bench) { b.at = to },
		"too far apart": func(b *bench) {
			b.every = 2 * time.Second
			b.run(to)
			b.every = time.Second
		},
	} {
		b := averaged(sensortest.Constant(200))
		b.counted = counted
		b.run(from)
		gap(b)
		if n := b.run(3 * time.Minute); n != 0 {
			t.Errorf("%s: the verdict changes %d times, to %v", name, n, b.Doubt())
		}
		b.counted = func(t time.Duration) sensors.Microjoules { return counted(3 * time.Minute) }
		if b.run(4 * time.Minute); b.Doubt() == nil {
			t.Errorf("%s: nothing is compared any more", name)
		}
	}
}

// Where every other power is missing, the rest of them stand for twice the time.
func TestCrossCheckMissingPowers(t *testing.T) {
	b := averaged(sensortest.Constant(200))
	for b.at < 5*time.Minute {
		b.load = sensortest.Constant(200)
		b.run(b.at)
		b.load = sensortest.Constant(sensors.Watts(math.NaN()))
		b.counted = sensortest.Constant(200).Energy
		b.run(b.at)
	}
	if b.changes != 0 {
		t.Errorf("%d changes, to %v", b.changes, b.Doubt())
	}
}

// A counter that restarts brings, in an interval that it did not observe, what it
// shows since.
func TestCrossCheckRestart(t *testing.T) {
	b := averaged(sensortest.Constant(200))
	b.counted = func(t time.Duration) sensors.Microjoules {
		if t > 15*time.Second {
			return b.load.Energy(t) + 10e9
		}
		return b.load.Energy(t)
	}
	b.run(15 * time.Second)
	b.unobserved = time.Second
	if n := b.run(time.Minute); n != 0 {
		t.Errorf("compares what the counter did not observe: %d changes, to %v", n, b.Doubt())
	}
}

func TestCrossCheckDoesNotAllocate(t *testing.T) {
	b := averaged(sensortest.Constant(200))
	b.counted = func(t time.Duration) sensors.Microjoules { return b.load.Energy(t) / 2 }
	b.run(time.Minute)
	if b.Doubt() == nil {
		t.Fatal("no doubt")
	}
	if n := testing.AllocsPerRun(100, func() { b.run(b.at) }); n != 0 {
		t.Errorf("%v allocations per reading", n)
	}
}
