package nvml

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// powerOnly and instantOnly are the faults of GPUs that lack the better
// methods.
var (
	powerOnly   = []sensortest.Fault{{On: "energy"}}
	instantOnly = []sensortest.Fault{{On: "energy"}, {On: "185"}}
)

func card(curve sensortest.Curve) sensortest.GPU {
	return sensortest.GPU{Script: sensortest.Script{Curve: curve, MaxPower: 700}}
}

// millijoules is what a counter that began at 0 shows of a curve.
func millijoules(c sensortest.Curve, t time.Duration) sensors.Microjoules {
	return c.Energy(t) / 1000 * 1000
}

func within(t *testing.T, what string, got, want sensors.Microjoules, relative float64) {
	t.Helper()
	if e := math.Abs(float64(got)-float64(want)) / float64(want); !(e <= relative) {
		t.Errorf("%s: %d µJ, want %d µJ within %g %%: it is %.3f %% off",
			what, got, want, relative*100, e*100)
	}
}

var curves = map[string]sensortest.Curve{
	"constant": sensortest.Constant(350),
	"step":     {{At: 0, Power: 70}, {At: time.Second, Power: 70}, {At: time.Second, Power: 650}},
	"falling":  {{At: 0, Power: 650}, {At: 60 * time.Second, Power: 50}},
	"steps":    sensortest.Steps(1700*time.Millisecond, 80, 600, 120, 640, 90, 500, 300),
}

func TestCounterIsExactAtAnyInterval(t *testing.T) {
	for name, curve := range curves {
		for _, every := range []time.Duration{70 * time.Millisecond, time.Second, 7 * time.Second, time.Minute} {
			g := card(curve)
			g.Start = 987654321
			r := start(t, g)
			var got sensors.Reading
			for r.elapsed() < time.Minute {
				got = r.after(min(every, time.Minute-r.elapsed()))[0]
			}
			if want := millijoules(curve, time.Minute); got.Energy != want || got.Observed != time.Minute {
				t.Errorf("%s every %v: %d µJ in %v, want %d µJ in 1m", name, every, got.Energy, got.Observed, want)
			}
			if r.sensor.Timing() != (sensors.Timing{MayBlock: true}) {
				t.Errorf("a counter asks for no interval, got %+v", r.sensor.Timing())
			}
		}
	}
}

// A power that only falls must count as much as one that rises.
func TestPowerAverage(t *testing.T) {
	for name, curve := range curves {
		g := card(curve)
		g.Faults = powerOnly
		r := start(t, g)
		if d := r.sensor.Devices()[0]; d.Method != sensors.MethodPowerAverage || d.ErrorBand != 0.07 {
			t.Fatalf("device %+v", d)
		}
		if got := r.sensor.Timing().MaxInterval; got != time.Second {
			t.Errorf("MaxInterval %v, want 1s", got)
		}
		got := r.every(time.Second, 60)[0]
		within(t, name, got.Energy, curve.Energy(time.Minute), 1e-6)
		if got.Observed != time.Minute || got.Estimated != 0 {
			t.Errorf("%s: observed %v, estimated %v", name, got.Observed, got.Estimated)
		}
	}
}

// A GPU older than Volta has no counter and no averaged power. It must never
// come out as zero.
func TestInstantPower(t *testing.T) {
	for name, curve := range curves {
		g := card(curve)
		g.Major, g.Minor, g.Faults = 6, 1, instantOnly
		r := start(t, g)
		if d := r.sensor.Devices()[0]; d.Method != sensors.MethodPower || d.ErrorBand != 0.20 {
			t.Fatalf("device %+v", d)
		}
		if got := r.sensor.Timing().MaxInterval; got != 100*time.Millisecond {
			t.Errorf("MaxInterval %v, want 100ms", got)
		}
		// A step of D at the edge of an interval h costs D·h/2: 290 J/s · 0.1 s.
		within(t, name, r.every(100*time.Millisecond, 600)[0].Energy, curve.Energy(time.Minute), 0.01)
	}
}

func TestWhatPowerUsageMeans(t *testing.T) {
	for _, test := range []struct {
		model        string
		major, minor int
		want         sensors.Method
	}{
		{"Pascal", 6, 0, sensors.MethodPower},
		{"Volta", 7, 0, sensors.MethodPower},
		{"GA100", 8, 0, sensors.MethodPower},
		{"GA10x", 8, 6, sensors.MethodPowerAverage},
		{"Hopper", 9, 0, sensors.MethodPowerAverage},
		{"Blackwell", 12, 0, sensors.MethodPowerAverage},
	} {
		g := card(sensortest.Constant(200))
		g.Major, g.Minor = test.major, test.minor
		d := newScripted(g)
		d.old = true
		r := startOn(t, d)
		if got := r.sensor.Devices()[0].Method; got != test.want {
			t.Errorf("%s without fields: %s, want %s", test.model, got, test.want)
		}
		within(t, test.model, r.every(100*time.Millisecond, 10)[0].Energy, 200e6, 1e-6)
	}
}

func TestSourcesInOrder(t *testing.T) {
	off := func(on ...string) (faults []sensortest.Fault) {
		for _, o := range on {
			faults = append(faults, sensortest.Fault{On: o})
		}
		return faults
	}
	for name, test := range map[string]struct {
		faults []sensortest.Fault
		want   source
		power  sensors.Watts // shown at the second read
	}{
		"everything":          {nil, source{sensors.MethodCounter, fieldTotalEnergy}, 200},
		"older energy field":  {off("83"), source{sensors.MethodCounter, fieldEnergy}, 200},
		"energy function":     {off("83", "191"), source{sensors.MethodCounter, 0}, 200},
		"no power":            {off("power"), source{sensors.MethodCounter, fieldTotalEnergy}, 200},
		"no average":          {off("185"), source{sensors.MethodCounter, fieldTotalEnergy}, 300},
		"average field":       {off("energy"), source{sensors.MethodPowerAverage, fieldPowerAverage}, 200},
		"average by function": {off("energy", "185", "186"), source{sensors.MethodPowerAverage, 0}, 200},
		"instant field":       {off("energy", "185", "nvmlDeviceGetPowerUsage"), source{sensors.MethodPower, fieldPowerInstant}, 300},
		"field not known": {[]sensortest.Fault{{On: "83", Code: 2}, {On: "191", Code: 2}},
			source{sensors.MethodCounter, 0}, 200},
	} {
		// 100 W, then 300 W from 0.5 s on: on average 200 W at 1 s.
		g := card(sensortest.Steps(500*time.Millisecond, 100, 300))
		g.Major, g.Minor, g.Faults = 8, 9, test.faults
		r := start(t, g)
		if got := r.sensor.(*sensor).gpus[0].source; got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		if got := r.after(time.Second)[0].Power; math.Abs(float64(got-test.power)) > 1e-9 {
			t.Errorf("%s: shows %v W, want %v", name, float64(got), float64(test.power))
		}
	}
}

func TestErrorBandOfPartTimeSensors(t *testing.T) {
	for _, test := range []struct {
		major, minor int
		want         float64
	}{{7, 0, 0.05}, {8, 0, 0.12}, {8, 6, 0.05}, {9, 0, 0.12}, {10, 0, 0.05}} {
		g := card(sensortest.Constant(200))
		g.Major, g.Minor = test.major, test.minor
		if got := start(t, g).sensor.Devices()[0].ErrorBand; got != test.want {
			t.Errorf("%d.%d: error band %v, want %v", test.major, test.minor, got, test.want)
		}
	}
}

func TestLostAndBack(t *testing.T) {
	curve := sensortest.Constant(300)
	g := card(curve)
	g.Start = 5e6
	g.Lost = []sensortest.Span{{From: 10 * time.Second, To: 20 * time.Second}}
	g.Resets = []time.Duration{20 * time.Second}
	r := start(t, g, card(curve))
	r.every(time.Second, 9)

	var attempts []time.Duration
	var back time.Duration
	for r.elapsed() < 40*time.Second {
		before := r.lookUps
		got := r.after(time.Second)
		if r.lookUps > before {
			attempts = append(attempts, r.elapsed())
		}
		if t1 := r.elapsed(); t1 < 20*time.Second || back == 0 && got[0].Err != nil {
			if !errors.Is(got[0].Err, sensors.ErrLost) || got[0].Energy != 2700e6 || !math.IsNaN(float64(got[0].Power)) {
				t.Fatalf("at %v: %+v", t1, got[0])
			}
		} else if back == 0 {
			back = t1
		}
		if got[1].Err != nil || got[1].Energy != millijoules(curve, r.elapsed()) {
			t.Fatalf("the other GPU suffers at %v: %+v", r.elapsed(), got[1])
		}
	}
	// Lost at 10 s; 1, 2, 4 and 8 s later.
	if want := []time.Duration{11e9, 13e9, 17e9, 25e9}; !equal(attempts, want) {
		t.Errorf("attempts at %v, want %v", attempts, want)
	}
	got := r.dst[0]
	if want := 2700e6 + curve.Energy(40*time.Second-back); got.Energy != want || back != 25*time.Second {
		t.Errorf("back at %v with %d µJ, want %d", back, got.Energy, want)
	}
	if got.Observed != 9*time.Second+15*time.Second || got.Err != nil || got.Resets != 1 {
		t.Errorf("after it: %+v", got)
	}
}

func equal(a, b []time.Duration) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestBackoffIsBounded(t *testing.T) {
	g := card(sensortest.Constant(300))
	g.Lost = []sensortest.Span{{From: time.Second, To: 24 * time.Hour}}
	r := start(t, g)
	r.every(time.Second, 3600)
	// 1+2+4+8+16+32, then once a minute.
	if r.lookUps < 60 || r.lookUps > 66 {
		t.Errorf("%d attempts in an hour", r.lookUps)
	}
}

func TestDemotion(t *testing.T) {
	curve := sensortest.Constant(250)
	gone := sensortest.Span{From: 10500 * time.Millisecond, To: 60 * time.Second}
	g := card(curve)
	g.Faults = []sensortest.Fault{{On: "energy", During: gone}}
	r := start(t, g)
	got := r.every(time.Second, 10)[0]
	if got.Method != "" || got.ErrorBand != 0 || got.Energy != 2500e6 {
		t.Fatalf("before: %+v", got)
	}
	got = r.after(time.Second)[0]
	if got.Method != sensors.MethodPowerAverage || got.ErrorBand != 0.07 || got.Energy != 2500e6 || got.Err != nil {
		t.Fatalf("the tally goes on from where it was: %+v", got)
	}
	if p := r.sensor.Timing().MaxInterval; p != time.Second {
		t.Errorf("MaxInterval %v after the demotion, want 1s", p)
	}
	before := r.calls
	got = r.every(time.Second, 20)[0]
	within(t, "demoted", got.Energy, 30*250e6, 1e-6)
	if n := r.calls - before; n != 20 {
		t.Errorf("%d calls for 20 reads: what is not supported is asked for again and again", n)
	}
	// The counter is back at 60 s, and noticed within a minute.
	got = r.every(time.Second, 100)[0]
	if got.Method != "" || got.Err != nil {
		t.Fatalf("not promoted: %+v", got)
	}
	// The two intervals in which the method changed are not observed.
	if missing := r.elapsed() - got.Observed; missing != 2*time.Second {
		t.Errorf("%v not observed", missing)
	}
	within(t, "observed time", got.Energy, curve.Energy(got.Observed), 1e-6)
	if r.sensor.Devices()[0].Method != sensors.MethodCounter {
		t.Error("Devices changed")
	}
}

func TestDemotionToInstant(t *testing.T) {
	from := sensortest.Span{From: 3 * time.Second}
	g := card(sensortest.Constant(250))
	g.Faults = []sensortest.Fault{{On: "energy", During: from}, {On: "185", During: from}, {On: "nvmlDeviceGetPowerUsage", During: from}}
	r := start(t, g)
	if got := r.every(time.Second, 3)[0]; got.Method != sensors.MethodPower || got.Err != nil {
		t.Errorf("%+v", got)
	}
	if p := r.sensor.Timing().MaxInterval; p != 100*time.Millisecond {
		t.Errorf("MaxInterval %v", p)
	}
}

func TestNothingSupportedAnyMore(t *testing.T) {
	g := card(sensortest.Constant(250))
	gone := sensortest.Span{From: 3 * time.Second, To: 5 * time.Second}
	g.Faults = []sensortest.Fault{{On: "energy", During: gone}, {On: "power", During: gone}}
	r := start(t, g)
	got := r.every(time.Second, 3)[0]
	if !errors.Is(got.Err, sensors.ErrUnsupported) || got.Energy != 500e6 || !math.IsNaN(float64(got.Power)) {
		t.Fatalf("%+v", got)
	}
	// The counter was not lost, so nothing of it is.
	if got = r.every(time.Second, 7)[0]; got.Err != nil || got.Energy != 2500e6 || got.Resets != 0 {
		t.Errorf("%+v", got)
	}
}

func TestUninitialized(t *testing.T) {
	d := newScripted(card(sensortest.Constant(250)), card(sensortest.Constant(100)))
	d.shutdownAt = 3 * time.Second
	r := startOn(t, d)
	got := r.every(time.Second, 10)
	if got[0].Err != nil || got[1].Err != nil || got[0].Energy != 2500e6 || got[1].Energy != 1000e6 {
		t.Errorf("%+v", got)
	}
	if d.inits != 2 {
		t.Errorf("%d times initialised, want twice", d.inits)
	}
	if err := r.sensor.Close(); err != nil || d.shutdowns != 1 || d.references != 0 {
		t.Errorf("Close: %v, %d shutdowns, %d references left", err, d.shutdowns, d.references)
	}
}

func TestVersionMismatchIsForGood(t *testing.T) {
	d := newScripted(card(sensortest.Constant(250)))
	d.mismatchAt = 3 * time.Second
	r := startOn(t, d)
	got := r.every(time.Second, 3)[0]
	calls := r.calls + r.lookUps
	got = r.every(time.Second, 600)[0]
	if !errors.Is(got.Err, sensors.ErrLost) || !strings.Contains(got.Err.Error(), "MISMATCH") || got.Energy != 500e6 {
		t.Errorf("%+v", got)
	}
	if n := r.calls + r.lookUps - calls; n != 0 {
		t.Errorf("%d calls into a driver that is gone", n)
	}
}

func TestTransientErrorsAreLossless(t *testing.T) {
	for _, c := range []code{timeout, notReady, unknown} {
		g := card(sensortest.Constant(250))
		g.Faults = []sensortest.Fault{{On: "*", Code: int(c), During: sensortest.Span{From: 3 * time.Second, To: 6 * time.Second}}}
		r := start(t, g)
		got := r.every(time.Second, 3)[0]
		if !errors.Is(got.Err, sensors.ErrTransient) || got.Energy != 500e6 {
			t.Errorf("%v: %+v", c, got)
		}
		if got = r.every(time.Second, 3)[0]; got.Err != nil || got.Energy != 1500e6 || got.Observed != 6*time.Second {
			t.Errorf("%v: after it: %+v", c, got)
		}
	}
}

func TestFifthTransientErrorDemotes(t *testing.T) {
	g := card(sensortest.Constant(250))
	g.Faults = []sensortest.Fault{{On: "energy", Code: int(unknown), During: sensortest.Span{From: 500 * time.Millisecond}}}
	r := start(t, g)
	for i := range 5 {
		if got := r.after(time.Second)[0]; !errors.Is(got.Err, sensors.ErrTransient) || got.Method != "" && i < 4 {
			t.Fatalf("read %d: %+v", i, got)
		}
	}
	if got := r.every(time.Second, 11)[0]; got.Err != nil || got.Method != sensors.MethodPowerAverage || got.Energy != 2500e6 {
		t.Errorf("%+v", got)
	}
}

// Only failures in a row count.
func TestOccasionalErrorsDoNotDemote(t *testing.T) {
	g := card(sensortest.Constant(250))
	for i := range 20 {
		at := time.Duration(2*i+1) * time.Second
		g.Faults = append(g.Faults, sensortest.Fault{On: "energy", Code: int(unknown), During: sensortest.Span{From: at, To: at + 1}})
	}
	r := start(t, g)
	if got := r.every(time.Second, 40)[0]; got.Err != nil || got.Method != "" || got.Energy != 10000e6 || got.Resets != 0 {
		t.Errorf("%+v", got)
	}
}

// A power that is only shown is not asked for any more once it is not
// supported, and is derived from the counter.
func TestShownPowerVanishes(t *testing.T) {
	g := card(sensortest.Constant(250))
	g.Faults = []sensortest.Fault{{On: "power", During: sensortest.Span{From: 5 * time.Second}}}
	r := start(t, g)
	got := r.every(time.Second, 10)[0]
	if got.Power != 250 || got.Energy != 2500e6 || got.Method != "" {
		t.Errorf("%+v", got)
	}
	if n := len(r.sensor.(*sensor).gpus[0].fields); n != 1 {
		t.Errorf("%d fields are asked for, want the counter alone", n)
	}
}

func TestTransientErrorsBackOff(t *testing.T) {
	g := card(sensortest.Constant(250))
	g.Faults = []sensortest.Fault{{On: "*", Code: int(timeout), During: sensortest.Span{From: time.Second, To: time.Hour}}}
	r := start(t, g)
	calls := r.calls
	r.every(time.Second, 3599)
	if n := r.calls - calls; n > 150 {
		t.Errorf("%d calls in an hour into a driver that does not answer", n)
	}
	// The counter has gone on, so nothing is lost.
	got := r.every(time.Second, 120)[0]
	if got.Err != nil || got.Energy != millijoules(g.Curve, r.elapsed()) || got.Resets != 0 {
		t.Errorf("%+v", got)
	}
}

func TestPermissionWithdrawn(t *testing.T) {
	g := card(sensortest.Constant(250))
	g.Faults = []sensortest.Fault{{On: "*", Code: int(noPermission), During: sensortest.Span{From: time.Second, To: 2 * time.Second}}}
	r := start(t, g)
	if got := r.after(time.Second)[0]; !errors.Is(got.Err, sensors.ErrPermission) {
		t.Errorf("%+v", got)
	}
	if got := r.every(time.Second, 9)[0]; got.Err != nil || got.Energy != 2500e6 {
		t.Errorf("%+v", got)
	}
}

func TestCounterRestartAndNonsense(t *testing.T) {
	reset := card(sensortest.Constant(200))
	reset.Start = 1e9
	reset.Resets = []time.Duration{4500 * time.Millisecond}
	noisy := card(sensortest.Constant(200))
	noisy.Garbage, noisy.Noise = []sensortest.Span{{From: 4500 * time.Millisecond, To: 5500 * time.Millisecond}}, 1<<63
	got := start(t, reset, noisy).every(time.Second, 10)
	// 0.5 s between the last reading and the restart are not known.
	if got[0].Energy != 1900e6 || got[0].Resets != 1 || got[0].Observed != 9*time.Second {
		t.Errorf("reset: %+v", got[0])
	}
	if got[1].Energy != 2000e6 || got[1].Rejected != 1 {
		t.Errorf("nonsense: %+v", got[1])
	}
}

func TestPlausibleBound(t *testing.T) {
	for _, test := range []struct{ limit, want sensors.Watts }{{400, 600}, {0, 4500}, {0.5, 4500}} {
		g := card(sensortest.Constant(100))
		g.MaxPower = test.limit
		if got := start(t, g).sensor.(*sensor).gpus[0].counter.MaxPower; got != test.want {
			t.Errorf("limit %v: bound %v, want %v", test.limit, got, test.want)
		}
	}
}

func TestSuperchipModule(t *testing.T) {
	for method, faults := range map[sensors.Method][]sensortest.Fault{
		sensors.MethodCounter:      nil,
		sensors.MethodPowerAverage: powerOnly,
		sensors.MethodPower:        instantOnly,
	} {
		g := card(sensortest.Constant(800))
		g.Name, g.Module, g.MaxPower, g.Faults = "NVIDIA GH200 480GB", true, 0, faults
		r := start(t, g)
		d := r.sensor.Devices()[0]
		if d.Method != method || d.Scope != sensors.ScopeModule || len(d.Includes) != 2 ||
			d.Includes[0] != sensors.CPU || d.Includes[1] != sensors.Memory || !strings.Contains(d.Note, "module") {
			t.Errorf("%s: %+v", method, d)
		}
		// The older energy field has no scope: it would be the GPU's, if anything.
		if got := r.sensor.(*sensor).gpus[0].source.field; got == fieldTotalEnergy || got == 0 {
			t.Errorf("%s: field %d has no scope", method, got)
		}
		within(t, string(method), r.every(100*time.Millisecond, 100)[0].Energy, 8000e6, 1e-6)
	}
}

func TestNotes(t *testing.T) {
	g := card(sensortest.Constant(100))
	g.Name, g.MIG, g.Lazy, g.Major, g.Minor = "NVIDIA A100", true, true, 8, 0
	d := start(t, g).sensor.Devices()[0]
	for _, want := range []string{"MIG", "persistence mode is off", "quarter"} {
		if !strings.Contains(d.Note, want) {
			t.Errorf("note %q lacks %q", d.Note, want)
		}
	}
	if d.Name != "NVIDIA A100" || d.Vendor != "nvidia" || d.Component != sensors.GPU || !strings.HasPrefix(d.ID, "GPU-") {
		t.Errorf("%+v", d)
	}
}

// A virtual GPU without sensors is unreadable, not a GPU of 0 W, and costs the
// others nothing.
func TestVirtualGPU(t *testing.T) {
	virtual := card(sensortest.Constant(0))
	virtual.ID = "GPU-virtual"
	virtual.Faults = []sensortest.Fault{{On: "energy"}, {On: "power"}}
	r := start(t, virtual, card(sensortest.Constant(100)))
	if got := r.sensor.Devices(); len(got) != 1 || got[0].ID == "GPU-virtual" {
		t.Errorf("devices %+v", got)
	}
	if len(r.omitted) != 1 || r.omitted[0].Device != "GPU-virtual" || r.omitted[0].Status != sensors.Unreadable ||
		!errors.Is(r.omitted[0].Err, sensors.ErrUnsupported) || r.omitted[0].Remedy == "" {
		t.Errorf("omissions %+v", r.omitted)
	}
	if got := r.after(time.Second)[0]; got.Energy != 100e6 {
		t.Errorf("%+v", got)
	}
}

func TestNoGPUReadable(t *testing.T) {
	g := card(sensortest.Constant(0))
	g.Faults = []sensortest.Fault{{On: "*", Code: int(operatingSystem)}}
	d := newScripted(g, g)
	s, omitted := open(context.Background(), d, sensors.Roots{}, d.clock.Now)
	if s != nil || len(omitted) != 2 || d.shutdowns != 1 || omitted[0].Device != "nvidia-0" ||
		!errors.Is(omitted[0].Err, sensors.ErrPermission) || !strings.Contains(omitted[0].Remedy, "/dev/nvidia") {
		t.Errorf("sensor %v, %d shutdowns, omissions %+v", s, d.shutdowns, omitted)
	}
}

func TestGPUWithoutUUID(t *testing.T) {
	g := card(sensortest.Constant(100))
	g.Faults = []sensortest.Fault{{On: "nvmlDeviceGetUUID"}}
	g.Lost = []sensortest.Span{{From: 3 * time.Second, To: 3500 * time.Millisecond}}
	r := start(t, g)
	if id := r.sensor.Devices()[0].ID; id != "nvidia-0" {
		t.Errorf("ID %q", id)
	}
	if got := r.every(time.Second, 10)[0]; got.Err != nil || got.Energy != 800e6 {
		t.Errorf("%+v", got)
	}
}

// A driver that is not ready at opening must not cost the counter for good.
func TestNotReadyAtOpening(t *testing.T) {
	g := card(sensortest.Constant(100))
	d := newScripted(g)
	d.gpus[0].Faults = []sensortest.Fault{{On: "energy", Code: int(notReady)}}
	time.AfterFunc(50*time.Millisecond, func() { d.clock.Advance(time.Second) })
	d.gpus[0].Faults[0].During = sensortest.Span{To: time.Second}
	if m := startOn(t, d).sensor.Devices()[0].Method; m != sensors.MethodCounter {
		t.Errorf("method %s", m)
	}
}

func TestOpening(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "driver/nvidia/gpus/0000:01:00.0"), 0o700); err != nil {
		t.Fatal(err)
	}
	visible, bare := sensors.Roots{Proc: root}, sensors.Roots{Proc: t.TempDir(), Sys: t.TempDir()}
	for _, test := range []struct {
		ret    code
		roots  sensors.Roots
		status sensors.Status
		err    error
		remedy string
	}{
		{libraryNotFound, bare, sensors.Absent, sensors.ErrAbsent, ""},
		{driverNotLoaded, bare, sensors.Absent, sensors.ErrAbsent, ""},
		{gpuNotFound, bare, sensors.Absent, sensors.ErrAbsent, ""},
		{libraryNotFound, visible, sensors.Unreadable, sensors.ErrUnsupported, "--gpus all"},
		{driverNotLoaded, visible, sensors.Unreadable, sensors.ErrUnsupported, "nvidia-smi"},
		{versionMismatch, bare, sensors.Unreadable, sensors.ErrLost, "reboot"},
		{noPermission, bare, sensors.Unreadable, sensors.ErrPermission, "/dev/nvidia"},
		{operatingSystem, bare, sensors.Unreadable, sensors.ErrPermission, "NVIDIA_DRIVER_CAPABILITIES"},
		{unknown, bare, sensors.Unreadable, sensors.ErrTransient, "dmesg"},
		{success, bare, sensors.Absent, sensors.ErrAbsent, ""}, // and no GPU
		{success, visible, sensors.Unreadable, sensors.ErrUnsupported, "--gpus all"},
	} {
		d := newScripted()
		d.failInit = test.ret
		s, omitted := open(context.Background(), d, test.roots, d.clock.Now)
		if s != nil || len(omitted) != 1 {
			t.Fatalf("%v: sensor %v, %+v", test.ret, s, omitted)
		}
		o := omitted[0]
		if o.Status != test.status || !errors.Is(o.Err, test.err) || !strings.Contains(o.Remedy, test.remedy) ||
			o.Source != "nvml" || o.Component != sensors.GPU || o.Reason == "" {
			t.Errorf("%v: %+v", test.ret, o)
		}
		if want := map[bool]int{true: 1}[test.ret == success]; d.shutdowns != want {
			t.Errorf("%v: %d shutdowns, want %d", test.ret, d.shutdowns, want)
		}
	}
}

func TestOpeningIsGivenUp(t *testing.T) {
	d := newScripted(card(sensortest.Constant(100)))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, omitted := open(ctx, d, sensors.Roots{}, d.clock.Now)
	if s != nil || len(omitted) != 1 || !errors.Is(omitted[0].Err, sensors.ErrTimeout) || d.shutdowns != 1 {
		t.Errorf("sensor %v, %d shutdowns, %+v", s, d.shutdowns, omitted)
	}
}

func TestNVIDIAPresent(t *testing.T) {
	for name, test := range map[string]struct {
		vendor, class string
		want          bool
	}{
		"GPU":            {"0x10de\n", "0x030200\n", true},
		"its sound card": {"0x10de\n", "0x040300\n", false},
		"another GPU":    {"0x1002\n", "0x030000\n", false},
	} {
		sys := t.TempDir()
		dir := filepath.Join(sys, "bus/pci/devices/0000:01:00.0")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"vendor": test.vendor, "class": test.class} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := sensors.NVIDIAPresent(sensors.Roots{Sys: sys}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestBuiltWithout(t *testing.T) {
	if o := unavailable("built without cgo", false); o.Status != sensors.Absent || !errors.Is(o.Err, sensors.ErrAbsent) {
		t.Errorf("%+v", o)
	}
	if o := unavailable("built without cgo", true); o.Status != sensors.Unreadable || o.Remedy == "" ||
		!errors.Is(o.Err, sensors.ErrUnsupported) || !strings.Contains(o.Reason, "built without cgo") {
		t.Errorf("%+v", o)
	}
}

func TestDriverTimestamps(t *testing.T) {
	for name, test := range map[string]struct{ lag, want time.Duration }{
		"none":              {-1, 0},
		"now":               {0, 0},
		"a moment ago":      {30 * time.Millisecond, 30 * time.Millisecond},
		"too long ago":      {2 * time.Second, 0},
		"another epoch":     {40 * 365 * 24 * time.Hour, 0},
		"a second ago":      {time.Second, time.Second},
		"over a second ago": {1001 * time.Millisecond, 0},
	} {
		d := newScripted(card(sensortest.Constant(100)))
		d.lag = test.lag
		r := startOn(t, d)
		if got := r.clock.Now().Sub(r.dst[0].At); got != test.want {
			t.Errorf("%s: read as of %v ago, want %v", name, got, test.want)
		}
	}
	// In the future: the wall clock was set back between the two.
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := valid(now, now.Add(2*time.Second), now.Add(time.Minute).UnixMicro()); !got.Equal(now.Add(time.Second)) {
		t.Errorf("between the two: %v", got)
	}
}

// A wall clock that is set must not take the readings back in time.
func TestTimeDoesNotGoBack(t *testing.T) {
	d := newScripted(card(sensortest.Constant(100)))
	d.lag = 0
	r := startOn(t, d)
	last := r.after(time.Second)[0].At
	d.lag = 900 * time.Millisecond
	if got := r.after(100 * time.Millisecond)[0].At; got.Before(last) {
		t.Errorf("from %v to %v", last, got)
	}
}

func TestDerivedPower(t *testing.T) {
	g := card(sensortest.Steps(10*time.Second, 100, 500))
	g.Faults = []sensortest.Fault{{On: "power"}}
	r := start(t, g)
	if p := r.dst[0].Power; !math.IsNaN(float64(p)) {
		t.Errorf("first: %v", float64(p))
	}
	if p := r.every(time.Second, 10)[0].Power; math.Abs(float64(p)-100) > 0.1 {
		t.Errorf("%v W, want 100", float64(p))
	}
	// Reads closer together than the counter moves show what was derived last.
	if p := r.every(10*time.Millisecond, 10)[0].Power; math.Abs(float64(p)-100) > 0.1 {
		t.Errorf("%v W, want 100", float64(p))
	}
	if p := r.every(time.Second, 2)[0].Power; math.Abs(float64(p)-500) > 0.1 {
		t.Errorf("%v W, want 500", float64(p))
	}
}

// On an idle card of Zeus issue 181 the counter saw 187 J where the power was
// 327 J.
func TestCounterAgainstPower(t *testing.T) {
	for _, test := range []struct {
		name    string
		gpu     func(g *sensortest.GPU)
		every   time.Duration
		quiet   time.Duration // no doubt until then
		doubted time.Duration // 0: never
		band    float64
	}{
		{"agreement", func(*sensortest.GPU) {}, time.Second, time.Hour, 0, 0},
		{"idle", func(g *sensortest.GPU) { g.CounterGain = 187. / 327 }, time.Second, 29 * time.Second, 30 * time.Second, 0.374},
		{"a module", func(g *sensortest.GPU) { g.CounterGain, g.Module, g.MaxPower = 187./327, true, 0 }, time.Second, 29 * time.Second, 30 * time.Second, 0.374},
		{"a counter that stands still", func(g *sensortest.GPU) { g.Frozen = []sensortest.Span{{To: time.Hour}} },
			time.Second, 29 * time.Second, 30 * time.Second, 1},
		{"less than the error of the device", func(g *sensortest.GPU) { g.CounterGain = 0.9 }, time.Second, time.Hour, 0, 0},
		// 16 %, and the device has ±10 %: half of it is less.
		{"a little", func(g *sensortest.GPU) { g.CounterGain = 0.84 }, time.Second, 29 * time.Second, 30 * time.Second, 0},
		{"read faster", func(g *sensortest.GPU) { g.CounterGain = 0.5 }, 100 * time.Millisecond, 29 * time.Second, 30 * time.Second, 0.5},
		{"read too seldom", func(g *sensortest.GPU) { g.CounterGain = 0.5 }, 2 * time.Second, time.Hour, 0, 0},
		{"instantaneous power, a little", func(g *sensortest.GPU) { g.CounterGain, g.Faults = 0.8, []sensortest.Fault{{On: "185"}} },
			time.Second, time.Hour, 0, 0},
		{"instantaneous power", func(g *sensortest.GPU) { g.CounterGain, g.Faults = 0.5, []sensortest.Fault{{On: "185"}} },
			time.Second, 59 * time.Second, time.Minute, 0.5},
		{"no power beside it", func(g *sensortest.GPU) { g.CounterGain, g.Faults = 0.5, []sensortest.Fault{{On: "power"}} },
			time.Second, time.Hour, 0, 0},
		// Of which the integral would be wrong, not the counter.
		{"an impossible power", func(g *sensortest.GPU) { g.CounterGain, g.MaxPower = 0.2, 40 }, time.Second, time.Hour, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := card(sensortest.Constant(65.4))
			test.gpu(&g)
			r := start(t, g)
			for r.elapsed() < min(test.quiet, 5*time.Minute) {
				if got := r.after(test.every)[0]; got.Doubt != nil || got.ErrorBand != 0 {
					t.Fatalf("doubts at %v: %v, band %v", r.elapsed(), got.Doubt, got.ErrorBand)
				}
			}
			if test.doubted == 0 {
				return
			}
			got := r.after(test.doubted - r.elapsed())[0]
			if !errors.Is(got.Doubt, sensors.ErrDisagreement) || got.Err != nil || math.Abs(got.ErrorBand-test.band) > 0.001 {
				t.Fatalf("at %v: %v, band %v, want %v", r.elapsed(), got.Doubt, got.ErrorBand, test.band)
			}
			if text := got.Doubt.Error(); !strings.HasPrefix(text, "nvml: GPU-") {
				t.Errorf("%q", text)
			}
			// It costs no call, and nothing is allocated while it lasts.
			calls := r.calls
			if n := testing.AllocsPerRun(100, func() { r.after(test.every) }); n != 0 || r.calls-calls != 101 || r.dst[0].Doubt != got.Doubt {
				t.Errorf("%v allocations and %d calls in 101 reads, then %v", n, r.calls-calls, r.dst[0].Doubt)
			}
		})
	}
}

// A GPU that was lost and is back is not believed for that.
func TestDoubtSurvivesALoss(t *testing.T) {
	g := card(sensortest.Constant(200))
	g.Frozen = []sensortest.Span{{To: time.Hour}}
	g.Lost = []sensortest.Span{{From: 35 * time.Second, To: 35500 * time.Millisecond}}
	r := start(t, g)
	if got := r.every(time.Second, 40)[0]; got.Err != nil || got.Doubt == nil {
		t.Errorf("%+v", got)
	}
}

// A doubt is over when both agree for a span, and with the counter.
func TestDoubtEnds(t *testing.T) {
	g := card(sensortest.Constant(200))
	g.Frozen = []sensortest.Span{{To: 60 * time.Second}}
	g.Faults = []sensortest.Fault{{On: "energy", During: sensortest.Span{From: 130 * time.Second, To: time.Hour}}}
	g.Frozen = append(g.Frozen, sensortest.Span{From: 90 * time.Second, To: time.Hour})
	r := start(t, g)
	if got := r.every(time.Second, 60)[0]; got.Doubt == nil || got.ErrorBand != 1 {
		t.Errorf("it stands still: %+v", got)
	}
	if got := r.every(time.Second, 29)[0]; got.Doubt == nil {
		t.Error("believed before a span has passed")
	}
	if got := r.every(time.Second, 1)[0]; got.Doubt != nil || got.ErrorBand != 0 {
		t.Errorf("it counts again: %+v", got)
	}
	if got := r.every(time.Second, 31)[0]; got.Doubt == nil {
		t.Errorf("it stands still again: %+v", got)
	}
	if got := r.every(time.Second, 20)[0]; got.Method != sensors.MethodPowerAverage || got.Doubt != nil || got.ErrorBand != 0.07 {
		t.Errorf("it is not the counter's any more: %+v", got)
	}
}

func TestFieldNumber(t *testing.T) {
	bytes := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, test := range []struct {
		field field
		want  uint64
		ret   code
	}{
		{field{kind: kindUint32, value: bytes}, 0x04030201, success},
		{field{kind: kindUint64, value: bytes}, 0x0807060504030201, success},
		{field{kind: kindUlong, value: bytes}, 0x0807060504030201, success},
		{field{kind: 0, value: bytes}, 0, notSupported},
		{field{kind: kindUint32, value: bytes, ret: gpuIsLost}, 0, gpuIsLost},
		{field{ret: invalidArgument}, 0, notSupported},
	} {
		if got, ret := test.field.number(); got != test.want || ret != test.ret {
			t.Errorf("%+v: %#x, %v", test.field, got, ret)
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	lost := card(sensortest.Constant(100))
	lost.Lost = []sensortest.Span{{From: time.Second, To: time.Hour}}
	power := card(sensortest.Constant(100))
	power.Faults, power.Major, power.Minor = instantOnly, 6, 1
	r := start(t, card(sensortest.Constant(100)), power, lost)
	r.every(time.Second, 3)
	if n := testing.AllocsPerRun(100, func() { r.sensor.Read(r.dst) }); n != 0 {
		t.Errorf("%v allocations per read", n)
	}
}

func TestConformance(t *testing.T) {
	for name, faults := range map[string][]sensortest.Fault{"counter": nil, "average": powerOnly, "instant": instantOnly} {
		t.Run(name, func(t *testing.T) {
			var clock *sensortest.Clock
			sensortest.Conform(t, sensortest.Conformance{
				Open: func(t testing.TB) sensors.Sensor {
					g := card(sensortest.Steps(3*time.Second, 100, 400, 200))
					g.Faults, g.Major, g.Minor = faults, 7, 5
					d := newScripted(g, g)
					d.gpus[1].ID += "1"
					clock = d.clock
					s, omitted := open(context.Background(), d, sensors.Roots{}, d.clock.Now)
					if s == nil {
						t.Fatal(omitted)
					}
					return s
				},
				Advance:  func(d time.Duration) { clock.Advance(d) },
				Supports: supports,
			})
		})
	}
}

// What the code does is what the list says.
func TestSupports(t *testing.T) {
	for _, module := range []bool{false, true} {
		for method, faults := range map[sensors.Method][]sensortest.Fault{
			sensors.MethodCounter: nil, sensors.MethodPowerAverage: powerOnly, sensors.MethodPower: instantOnly,
		} {
			g := card(sensortest.Constant(200))
			g.Major, g.Minor, g.Module, g.Faults = 7, 0, module, faults
			d := start(t, g).sensor.Devices()[0]
			if !slices.ContainsFunc(supports, func(s sensors.Support) bool {
				return s.Component == d.Component && s.Method == d.Method && s.ErrorBand == d.ErrorBand &&
					strings.Contains(s.Source, "scope module") == module && s.Tested == "simulated"
			}) {
				t.Errorf("nothing in the list is a %s by %s, module %v, with a band of %v", d.Component, method, module, d.ErrorBand)
			}
		}
	}
}
