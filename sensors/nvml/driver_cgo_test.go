//go:build linux && cgo

package nvml

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// child is set in the environment of a test that runs over a fake driver. Each
// has a process of its own: LD_LIBRARY_PATH is read when a process starts, and
// go-nvml keeps what it finds in a library in variables of its package.
const child = "WATTSPAN_NVML_TEST_CHILD"

// onFake runs body in a new process over a fake driver.
func onFake(t *testing.T, script sensortest.NVMLScript, body func(t *testing.T, r *real)) {
	t.Helper()
	if os.Getenv(child) != "" {
		body(t, &real{Clock: sensortest.NewClock(), driver: sensortest.NVMLClock{Path: os.Getenv("FAKE_NVML_CLOCK")}})
		return
	}
	env, _ := sensortest.FakeNVML(t, script)
	rerun(t, env...)
}

// rerun runs the calling test again, in a new process.
func rerun(t *testing.T, env ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.v", "-test.timeout=60s",
		"-test.run=^"+strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^")+"$")
	// Under -race a process sleeps for a second before it ends.
	cmd.Env = append(append(os.Environ(), child+"=1", "GORACE=atexit_sleep_ms=0"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("the test did not run in its process:\n%s", out)
	}
}

// real is a sensor over the fake driver by way of go-nvml, with both clocks
// moved by hand.
type real struct {
	*sensortest.Clock
	driver  sensortest.NVMLClock
	elapsed time.Duration
	sensor  sensors.Sensor
	omitted []sensors.Omission
	dst     []sensors.Reading
}

func (r *real) open(t *testing.T) {
	t.Helper()
	d, _ := newDriver()
	r.sensor, r.omitted = open(context.Background(), d, sensors.Roots{}, r.Now)
	if r.sensor == nil {
		t.Fatalf("no sensor: %+v", r.omitted)
	}
	t.Cleanup(func() {
		if err := r.sensor.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	r.dst = make([]sensors.Reading, len(r.sensor.Devices()))
	r.sensor.Read(r.dst)
}

// after moves both clocks and reads.
func (r *real) after(t *testing.T, d time.Duration) []sensors.Reading {
	t.Helper()
	r.move(t, d)
	r.sensor.Read(r.dst)
	return r.dst
}

func (r *real) move(t *testing.T, d time.Duration) {
	t.Helper()
	r.Advance(d)
	r.elapsed += d
	if err := r.driver.Set(r.elapsed); err != nil {
		t.Fatal(err)
	}
}

func TestFakeDriver(t *testing.T) {
	const every, reset, end = 100 * time.Millisecond, 10 * time.Second, 30 * time.Second
	steps := sensortest.Steps(1700*time.Millisecond, 80, 600, 120, 640, 90, 500, 300)
	gpus := []sensortest.GPU{
		card(sensortest.Constant(350)),
		card(sensortest.Curve{{At: 0, Power: 70}, {At: time.Second, Power: 70}, {At: time.Second, Power: 650}}),
		card(sensortest.Curve{{At: 0, Power: 650}, {At: end, Power: 50}}),
		card(steps), // has restarted
		card(steps), // is lost for a while
		card(steps), // average power only
		card(steps), // instantaneous power only
		card(steps), // a module
	}
	gpus[2].Start = 1 << 40
	gpus[3].Start, gpus[3].Resets = 12345, []time.Duration{reset}
	gpus[4].Lost = []sensortest.Span{{From: 5050 * time.Millisecond, To: 8 * time.Second}}
	gpus[5].Faults = powerOnly
	gpus[6].Faults, gpus[6].Major, gpus[6].Minor = instantOnly, 6, 1
	gpus[7].Module, gpus[7].Update, gpus[7].Duty, gpus[7].Gain = true, 100*time.Millisecond, 0.25, 1.04
	onFake(t, sensortest.NVMLScript{GPUs: gpus}, func(t *testing.T, r *real) {
		r.open(t)
		var lost, back time.Duration
		for r.elapsed < end {
			got := r.after(t, every)
			for i := range 4 {
				want := millijoules(gpus[i].Curve, r.elapsed)
				if i == 3 && r.elapsed >= reset {
					// What was used between the last read and the restart is
					// not known.
					want -= steps.Energy(reset) - steps.Energy(reset-every)
				}
				if got[i].Energy != want || got[i].Err != nil {
					t.Fatalf("GPU %d at %v: %d µJ, want %d: %v", i, r.elapsed, got[i].Energy, want, got[i].Err)
				}
			}
			module := gpus[7].WithDefaults(7)
			if want := sensors.Microjoules(module.Raw(r.elapsed)) * 1000; got[7].Energy != want {
				t.Fatalf("module at %v: %d µJ, want %d", r.elapsed, got[7].Energy, want)
			}
			switch gone := errors.Is(got[4].Err, sensors.ErrLost); {
			case gone && lost == 0:
				lost = r.elapsed
			case !gone && lost > 0 && back == 0:
				back = r.elapsed
			}
		}
		got := r.dst
		if got[3].Resets != 1 {
			t.Errorf("restarted: %+v", got[3])
		}
		if want := 5100 * time.Millisecond; lost != want || back != 8100*time.Millisecond {
			t.Errorf("lost at %v and back at %v", lost, back)
		}
		before, after := millijoules(steps, lost-every), steps.Energy(end)-steps.Energy(back)
		if d := int64(got[4].Energy) - int64(before+after); d < -2000 || d > 2000 {
			t.Errorf("lost: %d µJ, want %d", got[4].Energy, before+after)
		}
		// An average lags by half its window: 0.5 s of (300-80) W, of 9.4 kJ.
		within(t, "average", got[5].Energy, steps.Energy(end), 0.012)
		within(t, "instantaneous", got[6].Energy, steps.Energy(end), 0.01)
		for i, want := range []sensors.Method{5: sensors.MethodPowerAverage, 6: sensors.MethodPower, 7: sensors.MethodCounter} {
			if m := r.sensor.Devices()[i].Method; want != "" && m != want {
				t.Errorf("GPU %d: method %s, want %s", i, m, want)
			}
		}
		if d := r.sensor.Devices()[7]; d.Scope != sensors.ScopeModule {
			t.Errorf("module: %+v", d)
		}
		if r.sensor.Timing().MaxInterval != 100*time.Millisecond {
			t.Errorf("timing %+v", r.sensor.Timing())
		}
	})
}

func TestFakeDriverConforms(t *testing.T) {
	power := card(sensortest.Constant(200))
	power.Faults = powerOnly
	script := sensortest.NVMLScript{GPUs: []sensortest.GPU{card(sensortest.Constant(300)), power}}
	onFake(t, script, func(t *testing.T, r *real) {
		sensortest.Conform(t, sensortest.Conformance{
			Open: func(testing.TB) sensors.Sensor {
				d, _ := newDriver()
				s, omitted := open(context.Background(), d, sensors.Roots{}, r.Now)
				if s == nil {
					t.Fatal(omitted)
				}
				return s
			},
			Advance:  func(d time.Duration) { r.move(t, d) },
			Supports: supports,
		})
	})
}

// A driver without nvmlDeviceGetFieldValues and the energy counter must cost
// accuracy, not the process.
func TestOldDriver(t *testing.T) {
	if os.Getenv(child) == "" {
		env, _ := sensortest.FakeOldNVML(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{card(sensortest.Constant(250))}})
		rerun(t, env...)
		return
	}
	r := &real{Clock: sensortest.NewClock(), driver: sensortest.NVMLClock{Path: os.Getenv("FAKE_NVML_CLOCK")}}
	r.open(t)
	if d := r.sensor.Devices()[0]; d.Method != sensors.MethodPowerAverage || d.Name == "" || d.ID == "" {
		t.Errorf("%+v", d)
	}
	if pids, err := r.sensor.(sensors.ProcessLister).Processes(0); !errors.Is(err, sensors.ErrUnsupported) {
		t.Errorf("processes %v, %v", pids, err)
	}
	// Each would end the process if it were called.
	h, l := r.sensor.(*sensor).gpus[0].device.(*handle), r.sensor.(*sensor).driver.(*library)
	for what, ret := range map[string]func() code{
		"computing":   func() code { _, ret := h.Contexts(computing); return ret },
		"mps":         func() code { _, ret := h.Contexts(mps); return ret },
		"drawing":     func() code { _, ret := h.Contexts(drawing); return ret },
		"utilization": func() code { _, ret := h.Utilization(0); return ret },
		"name":        func() code { _, ret := l.ProcessName(1); return ret },
		"instances":   func() code { _, ret := h.Instances(); return ret },
		"instance":    func() code { _, ret := h.Instance(0); return ret },
		"in":          func() code { _, ret := h.GPUInstance(); return ret },
		"slices":      func() code { _, _, ret := h.Slices(); return ret },
		"profile":     func() code { _, ret := h.ProfileSlices(0); return ret },
	} {
		if got := ret(); got != functionNotFound {
			t.Errorf("%s: %v", what, got)
		}
	}
	for range 10 {
		r.after(t, time.Second)
	}
	if got := r.dst[0]; got.Err != nil || got.Energy != 2500e6 {
		t.Errorf("%+v", got)
	}
}

func TestNoDriver(t *testing.T) {
	for name, test := range map[string]struct {
		ret    code
		status sensors.Status
	}{
		"not loaded": {driverNotLoaded, sensors.Absent},
		"mismatch":   {versionMismatch, sensors.Unreadable},
		"permission": {noPermission, sensors.Unreadable},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, sensortest.NVMLScript{FailInit: int(test.ret)}, func(t *testing.T, _ *real) {
				d, _ := newDriver()
				s, omitted := open(context.Background(), d, sensors.Roots{}, time.Now)
				if s != nil || len(omitted) != 1 || omitted[0].Status != test.status ||
					!strings.Contains(omitted[0].Err.Error(), test.ret.String()) {
					t.Errorf("%v, %+v", s, omitted)
				}
			})
		})
	}
	t.Run("no library", func(t *testing.T) {
		if os.Getenv(child) == "" {
			rerun(t, "LD_LIBRARY_PATH="+t.TempDir())
			return
		}
		d, _ := newDriver()
		s, omitted := open(context.Background(), d, sensors.Roots{}, time.Now)
		if s != nil {
			t.Skip("this machine has an NVIDIA driver")
		}
		if len(omitted) != 1 || omitted[0].Status != sensors.Absent {
			t.Errorf("%+v", omitted)
		}
	})
}

func TestFakeDriverGoesAway(t *testing.T) {
	t.Run("upgraded", func(t *testing.T) {
		script := sensortest.NVMLScript{GPUs: []sensortest.GPU{card(sensortest.Constant(250))}, MismatchAt: 3 * time.Second}
		onFake(t, script, func(t *testing.T, r *real) {
			r.open(t)
			r.after(t, 2*time.Second)
			if got := r.after(t, 2*time.Second)[0]; !errors.Is(got.Err, sensors.ErrLost) || got.Energy != 500e6 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("shut down by another", func(t *testing.T) {
		script := sensortest.NVMLScript{GPUs: []sensortest.GPU{card(sensortest.Constant(250))}, ShutdownAt: 3 * time.Second}
		onFake(t, script, func(t *testing.T, r *real) {
			r.open(t)
			r.after(t, 2*time.Second)
			if got := r.after(t, 2*time.Second)[0]; got.Err != nil || got.Energy != 1000e6 {
				t.Errorf("%+v", got)
			}
		})
	})
}

// A call that hangs is late, and costs nothing when it comes back.
func TestHungDriver(t *testing.T) {
	hung := card(sensortest.Constant(250))
	hung.Hang = []sensortest.Span{{From: 2 * time.Second, To: 5 * time.Second}}
	onFake(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{hung}}, func(t *testing.T, r *real) {
		r.open(t)
		r.move(t, 2*time.Second)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.sensor.Read(r.dst)
		}()
		select {
		case <-done:
			t.Fatal("the driver does not hang")
		case <-time.After(20 * time.Millisecond):
		}
		r.move(t, 3*time.Second)
		<-done
		if got := r.dst[0]; got.Err != nil || got.Energy != 1250e6 {
			t.Errorf("%+v", got)
		}
	})
}

func TestReadThroughGoNVMLDoesNotAllocate(t *testing.T) {
	instant, lost := card(sensortest.Constant(100)), card(sensortest.Constant(100))
	instant.Faults, instant.Major, instant.Minor = instantOnly, 6, 1
	lost.Lost = []sensortest.Span{{From: time.Second, To: time.Hour}}
	gpus := []sensortest.GPU{card(sensortest.Constant(100)), instant, lost}
	onFake(t, sensortest.NVMLScript{GPUs: gpus}, func(t *testing.T, r *real) {
		r.open(t)
		r.after(t, 2*time.Second)
		if n := testing.AllocsPerRun(100, func() { r.sensor.Read(r.dst) }); n != 0 {
			t.Errorf("%v allocations per read", n)
		}
	})
}

// Everything a script can say is understood by the library, which ends the
// process otherwise.
func TestFullScript(t *testing.T) {
	full := card(sensortest.Constant(300))
	full.ID, full.Name = "GPU-full", "NVIDIA H100 80GB HBM3"
	full.Start, full.Update, full.Averaging, full.Duty, full.Gain = 7, 100*time.Millisecond, 2*time.Second, 0.5, 1.1
	full.Noise, full.Garbage = 1<<60, []sensortest.Span{{From: time.Hour, To: 2 * time.Hour}}
	full.Hang = []sensortest.Span{{From: time.Hour, To: 2 * time.Hour}}
	full.Lost = []sensortest.Span{{From: 3 * time.Hour, To: 4 * time.Hour}}
	full.Resets = []time.Duration{4 * time.Hour}
	full.Faults = []sensortest.Fault{{On: "limit"}, {On: "190", Code: 999, During: sensortest.Span{From: time.Hour, To: 2 * time.Hour}}}
	full.MIG, full.Lazy, full.Utilization, full.Latency = true, true, 0.5, time.Microsecond
	full.Slices, full.Instances = 4, []sensortest.GPUInstance{{ID: "MIG-full", In: 3, InSlices: 2, Slices: 1}}
	full.Processes = []sensortest.GPUProcess{{PID: 1234, Memory: 1 << 30, SM: 0.25, Instance: "MIG-full"}}
	full.CounterGain, full.Frozen = 1, []sensortest.Span{{From: time.Hour, To: 2 * time.Hour}}
	script := sensortest.NVMLScript{
		GPUs: []sensortest.GPU{full}, MismatchAt: 24 * time.Hour, ShutdownAt: 23 * time.Hour,
	}
	onFake(t, script, func(t *testing.T, r *real) {
		r.open(t)
		d := r.sensor.Devices()[0]
		if d.ID != full.ID || d.Name != full.Name || !strings.Contains(d.Note, "MIG") || !strings.Contains(d.Note, "persistence") {
			t.Errorf("%+v", d)
		}
		if got := r.after(t, 10*time.Second)[0]; got.Energy != 3300e6 || got.Power != 330 {
			t.Errorf("%+v", got)
		}
		if pids, err := r.sensor.(sensors.ProcessLister).Processes(0); err != nil || len(pids) != 1 || pids[0].PID != 1234 || pids[0].Part != "MIG-full" {
			t.Errorf("processes %v, %v", pids, err)
		}
		h := r.sensor.(*sensor).gpus[0].device.(*handle).device
		if p, ret := h.GetComputeRunningProcesses(); ret != nvml.SUCCESS || len(p) != 1 || p[0].Pid != 1234 || p[0].UsedGpuMemory != 1<<30 {
			t.Errorf("processes %+v, %v", p, ret)
		}
		if p, ret := h.GetProcessUtilization(0); ret != nvml.ERROR_NOT_SUPPORTED {
			t.Errorf("process utilization %+v, %v", p, ret)
		}
		if u, ret := h.GetUtilizationRates(); ret != nvml.SUCCESS || u.Gpu != 50 {
			t.Errorf("utilization %+v, %v", u, ret)
		}
	})
}

// The tests of processes and instances, over the real go-nvml.
func TestFakeDriverProcesses(t *testing.T) {
	for name, test := range processTests {
		t.Run(name, func(t *testing.T) {
			onFake(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{test.gpu()}}, func(t *testing.T, r *real) {
				r.open(t)
				test.check(t, &asker{r.sensor.(*sensor), func(d time.Duration) { r.move(t, d) }})
			})
		})
	}
}

// go-nvml panics when samples have come since it counted them.
func TestFakeDriverMoreSamples(t *testing.T) {
	g := card(sensortest.Constant(100))
	g.Processes = []sensortest.GPUProcess{{PID: 1, SM: 0.5}, {PID: 2, SM: 0.5}}
	g.Faults = []sensortest.Fault{{On: "more_samples", During: sensortest.Span{To: 5 * time.Second}}}
	onFake(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{g}}, func(t *testing.T, r *real) {
		r.open(t)
		a := &asker{r.sensor.(*sensor), func(d time.Duration) { r.move(t, d) }}
		a.move(3 * time.Second)
		a.wants(t, "1 ? 2 ?")
		a.move(3 * time.Second)
		a.wants(t, "1 0.5 2 0.5")
	})
}

func TestFakeDriverInstances(t *testing.T) {
	g := divided()
	onFake(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{g}}, func(t *testing.T, r *real) {
		r.open(t)
		checkParts(t, r.sensor.Devices(), map[string]float64{"MIG-4g": 4. / 7, "MIG-1c": 1. / 7, "MIG-2c": 2. / 7})
		if got := r.after(t, 10*time.Second)[0]; got.Energy != 1000e6 {
			t.Errorf("%+v", got)
		}
	})
}

func TestOldDriverInstances(t *testing.T) {
	if os.Getenv(child) == "" {
		env, _ := sensortest.FakeOldNVML(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{divided()}})
		rerun(t, env...)
		return
	}
	d, _ := newDriver()
	if s, omitted := open(context.Background(), d, sensors.Roots{}, time.Now); s == nil || s.Devices()[0].Parts != nil {
		t.Errorf("%v, %v", s, omitted)
	}
}

func TestFakeDriverDisagrees(t *testing.T) {
	g := card(sensortest.Constant(65.4))
	g.CounterGain = 187. / 327
	frozen := card(sensortest.Constant(200))
	frozen.Frozen = []sensortest.Span{{To: time.Hour}}
	onFake(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{g, frozen, card(sensortest.Constant(200))}}, func(t *testing.T, r *real) {
		r.open(t)
		for range 31 {
			r.after(t, time.Second)
		}
		if got := r.dst[0]; !errors.Is(got.Doubt, sensors.ErrDisagreement) || got.Err != nil || got.ErrorBand < 0.37 {
			t.Errorf("%+v", got)
		}
		if got := r.dst[1]; !errors.Is(got.Doubt, sensors.ErrDisagreement) || got.Energy != 0 || got.ErrorBand != 1 {
			t.Errorf("%+v", got)
		}
		if got := r.dst[2]; got.Doubt != nil || got.ErrorBand != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// The whole way, as a program takes it, in real time.
func TestDetect(t *testing.T) {
	if os.Getenv(child) == "" {
		gpus := make([]sensortest.GPU, 8)
		env, _ := sensortest.FakeNVML(t, sensortest.NVMLScript{GPUs: gpus})
		rerun(t, append(env, "FAKE_NVML_CLOCK=")...)
		return
	}
	set, err := sensors.Detect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.Devices()); n != 8 {
		t.Fatalf("%d devices, omissions %+v", n, set.Omissions())
	}
	dst := make([]sensors.Reading, 8)
	set.Read(dst)
	from := dst[0].At
	time.Sleep(50 * time.Millisecond)
	set.Read(dst)
	got := dst[0]
	// 100 W by the driver's clock, which its timestamps tell to the
	// microsecond; the counter counts whole millijoules.
	within(t, "50 ms", got.Energy, sensors.Microjoules(100*got.At.Sub(from).Microseconds()), 0.02)
	if err := set.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkRead8(b *testing.B) {
	dir := sensortest.BuildFakeNVML(b)
	script := filepath.Join(b.TempDir(), "script")
	gpus := make([]sensortest.GPU, 8)
	if err := sensortest.WriteNVMLScript(script, gpus); err != nil {
		b.Fatal(err)
	}
	b.Setenv("FAKE_NVML_SCRIPT", script)
	d := &library{api: nvml.New(nvml.WithLibraryPath(filepath.Join(dir, "libnvidia-ml.so.1")))}
	s, omitted := open(context.Background(), d, sensors.Roots{}, time.Now)
	if s == nil {
		b.Fatal(omitted)
	}
	defer s.Close()
	dst := make([]sensors.Reading, 8)
	b.ReportAllocs()
	for b.Loop() {
		s.Read(dst)
	}
}
