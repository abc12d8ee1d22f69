package sensors_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// meter is a source of two devices, one with a counter and one with a power.
func meter(clock *sensortest.Clock, poll func(context.Context, []sensors.Value)) sensors.Polling {
	return sensors.Polling{
		Devices: []sensors.Device{
			{ID: "a", Component: sensors.Node, Method: sensors.MethodCounter, Scope: sensors.ScopeNode, Source: "test", ErrorBand: 0.05},
			{ID: "b", Component: sensors.CPU, Method: sensors.MethodPower, Scope: sensors.ScopeDevice, Source: "test", ErrorBand: 0.05},
		},
		Poll: poll, Unit: 1000, MaxPower: 10000, Now: clock.Now,
	}
}

func TestPolledConforms(t *testing.T) {
	clock := sensortest.NewClock()
	began := clock.Now()
	var polled *sensors.Polled
	sensortest.Conform(t, sensortest.Conformance{
		Open: func(testing.TB) sensors.Sensor {
			polled, _ = sensors.NewPolled(t.Context(), meter(clock, func(_ context.Context, values []sensors.Value) {
				values[0] = sensors.Value{Raw: uint64(clock.Now().Sub(began).Milliseconds()) * 100}
				values[1] = sensors.Value{Power: 50}
			}))
			return polled
		},
		Advance: func(d time.Duration) {
			clock.Advance(d)
			polled.Poll(context.Background())
		},
	})
}

// A counter bridges what was not polled; a power does not bridge more than MaxGap.
func TestPolledTally(t *testing.T) {
	clock := sensortest.NewClock()
	var raw uint64
	var failure error
	p, errs := sensors.NewPolled(t.Context(), meter(clock, func(_ context.Context, values []sensors.Value) {
		values[0] = sensors.Value{Raw: raw, Err: failure}
		values[1] = sensors.Value{Power: 50, Err: failure}
	}))
	if errors.Join(errs...) != nil {
		t.Fatal(errs)
	}
	step := func(seconds int, mJ uint64, err error) {
		clock.Advance(time.Duration(seconds) * time.Second)
		raw, failure = raw+mJ, err
		p.Poll(t.Context())
	}
	away := errors.New("away")
	step(10, 1000_000, nil)
	step(10, 1000_000, away)
	r := make([]sensors.Reading, 2)
	p.Read(r)
	if r[0].Err != away || r[0].Energy != 1000e6 || !math.IsNaN(float64(r[0].Power)) || r[0].Observed != 10*time.Second {
		t.Errorf("while it is away: %+v", r[0])
	}
	step(40, 4000_000, nil)
	p.Read(r)
	if r[0].Err != nil || r[0].Energy != 6000e6 || r[0].Observed != time.Minute || math.Abs(float64(r[0].Power)-100) > 1e-9 {
		t.Errorf("the counter after a gap: %+v", r[0])
	}
	if r[1].Err != nil || r[1].Energy != 500e6 || r[1].Observed != 10*time.Second || r[1].Power != 50 {
		t.Errorf("the power after a gap of 50 s: %+v", r[1])
	}
}

// A source that says nothing of a device, or panics, has failed for that poll.
func TestPolledSurvives(t *testing.T) {
	clock := sensortest.NewClock()
	polls := 0
	p, errs := sensors.NewPolled(t.Context(), meter(clock, func(_ context.Context, values []sensors.Value) {
		polls++
		if polls == 2 {
			panic("no")
		}
		values[1] = sensors.Value{Power: 1}
	}))
	if !errors.Is(errs[0], sensors.ErrTransient) || errs[1] != nil {
		t.Errorf("first poll: %v", errs)
	}
	r := make([]sensors.Reading, 2)
	for i, want := range []error{sensors.ErrTransient, nil} {
		p.Poll(t.Context())
		p.Read(r)
		if !errors.Is(r[1].Err, want) {
			t.Errorf("poll %d: %v, want %v", i+2, r[1].Err, want)
		}
	}
}

// The source is polled at its own pace, with a deadline, until Close, which leaves
// no goroutine.
func TestPolledPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		var polls, cut atomic.Int32
		p, _ := sensors.NewPolled(t.Context(), sensors.Polling{
			Devices: []sensors.Device{{ID: "a", Method: sensors.MethodPower}},
			Every:   5 * time.Second, Timeout: time.Second,
			Poll: func(ctx context.Context, values []sensors.Value) {
				if polls.Add(1) == 3 {
					<-ctx.Done() // a source that does not answer
					cut.Add(1)
					return
				}
				values[0] = sensors.Value{Power: 10}
			},
		})
		time.Sleep(9 * time.Second)
		r := make([]sensors.Reading, 1)
		p.Read(r)
		if r[0].Err != nil || r[0].Observed != 5*time.Second {
			t.Errorf("%+v", r[0])
		}
		time.Sleep(5 * time.Second) // the third poll has given up after 11 s
		p.Read(r)
		if cut.Load() != 1 || !errors.Is(r[0].Err, sensors.ErrTransient) {
			t.Errorf("%d polls were cut; %v", cut.Load(), r[0].Err)
		}
		time.Sleep(2 * time.Second)
		p.Read(r)
		if got := polls.Load(); got != 4 || r[0].Err != nil || r[0].Energy != 150e6 {
			t.Errorf("%d polls in 16 s; %+v", got, r[0])
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if polls.Load() != 4 {
			t.Error("polled after Close")
		}
		if after := runtime.NumGoroutine(); after > before {
			buf := make([]byte, 1<<16)
			t.Errorf("%d goroutines, %d before:\n%s", after, before, strings.TrimSpace(string(buf[:runtime.Stack(buf, true)])))
		}
	})
}

// A source is polled from its opening on; its tallies begin when the run does. A
// power goes on from the last poll, a counter's first interval is divided.
func TestPolledBegins(t *testing.T) {
	clock := sensortest.NewClock()
	began := clock.Now()
	p, _ := sensors.NewPolled(t.Context(), meter(clock, func(_ context.Context, values []sensors.Value) {
		values[0] = sensors.Value{Raw: uint64(clock.Now().Sub(began).Milliseconds()) * 100} // 100 W in mJ
		values[1] = sensors.Value{Power: 50}
	}))
	pass := func(seconds int) {
		clock.Advance(time.Duration(seconds) * time.Second)
	}
	pass(5)
	p.Poll(t.Context())
	pass(3)
	p.Begin() // 3 s after a poll, 8 s after the opening
	r := make([]sensors.Reading, 2)
	p.Read(r)
	if r[0].Tally != (sensors.Tally{}) || r[1].Tally != (sensors.Tally{}) {
		t.Errorf("at the beginning: %+v", r)
	}
	pass(2)
	p.Poll(t.Context())
	p.Read(r)
	if r[0].Energy != 200e6 || r[0].Observed != 2*time.Second || r[1].Energy != 100e6 || r[1].Observed != 2*time.Second {
		t.Errorf("2 s later: %+v, %+v", r[0].Tally, r[1].Tally)
	}
	pass(5)
	p.Poll(t.Context())
	p.Read(r)
	if r[0].Energy != 700e6 || r[0].Power != 100 || r[1].Energy != 350e6 {
		t.Errorf("7 s later: %+v, %+v", r[0], r[1])
	}
}
