package tracker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// fast is the timing of a sensor that never blocks, slow that of a driver.
var (
	fast = sensors.Timing{MaxInterval: 30 * time.Second}
	slow = sensors.Timing{MayBlock: true}
)

// load is a curve with steps and ramps, and a changing second half.
var load = sensortest.Curve{
	{At: 0, Power: 70}, {At: 2 * time.Second, Power: 70}, {At: 2 * time.Second, Power: 650},
	{At: 12 * time.Second, Power: 400}, {At: 20 * time.Second, Power: 90},
}

func counter(id string, c sensors.Component, curve sensortest.Curve) sensortest.Script {
	return sensortest.Script{
		Device: sensors.Device{ID: id, Component: c, ErrorBand: 0.05},
		Curve:  curve, MaxPower: 2000, Utilization: math.NaN(),
	}
}

// start starts a tracker on scripted sensors in a known place.
func start(t *testing.T, set *sensors.Set, opts ...tracker.Option) *tracker.Tracker {
	t.Helper()
	opts = append([]tracker.Option{
		tracker.WithSensors(set), tracker.WithIntensity(400), tracker.WithPUE(1.25),
		tracker.WithNodeProfile(tracker.NodeNone), // whatever machine this is
	}, opts...)
	tr, err := tracker.Start(context.Background(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func stop(t *testing.T, tr *tracker.Tracker) tracker.Report {
	t.Helper()
	report, err := tr.Stop(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func device(t *testing.T, r tracker.Report, id string) tracker.Device {
	t.Helper()
	for _, d := range r.Devices {
		if d.ID == id {
			return d
		}
	}
	t.Fatalf("no device %s in the report", id)
	return tracker.Device{}
}

func joules(t *testing.T, j *sensors.Joules) float64 {
	t.Helper()
	if j == nil {
		t.Fatal("no energy")
	}
	return float64(*j)
}

// near fails unless got is within tolerance of want, relatively.
func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*math.Abs(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// On virtual time a counter's energy is the integral of the script, to the
// microjoule, at any interval; wraps and restarts included.
func TestCountersAreExactAtAnyInterval(t *testing.T) {
	for _, interval := range []time.Duration{100 * time.Millisecond, time.Second, 7 * time.Second, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			wrapping := counter("package-0", sensors.CPU, load)
			wrapping.Start, wrapping.Period = 65532e6, 65532610987
			gpu := counter("GPU-0", sensors.GPU, load)
			gpu.Unit = 1000
			set := sensors.NewSet(
				sensortest.NewSensor(nil, fast, wrapping, counter("dram-0", sensors.Memory, sensortest.Constant(12))),
				sensortest.NewSensor(nil, slow, gpu),
			)
			tr := start(t, set, tracker.WithInterval(interval))
			time.Sleep(45*time.Second + 123*time.Millisecond)
			r := stop(t, tr)
			const length = 45*time.Second + 123*time.Millisecond
			near(t, "duration", r.Run.Duration, length.Seconds(), 1e-9)
			want := float64(load.Joules(length))
			if got := joules(t, r.Energy.CPU); math.Abs(got-want) > 2e-6 {
				t.Errorf("every %v: cpu %v J, want %v J", interval, got, want)
			}
			if got := joules(t, r.Energy.GPU); math.Abs(got-want) > 2e-3 {
				t.Errorf("every %v: gpu %v J, want %v J, to its millijoule", interval, got, want)
			}
			near(t, "memory", joules(t, r.Energy.Memory), 12*length.Seconds(), 1e-9)
			if r.Partial {
				t.Errorf("partial: %+v", r.Missing)
			}
			for _, d := range r.Devices {
				if d.Status != tracker.StatusOK || d.Coverage < 0.9999 {
					t.Errorf("%s: %s, coverage %v: %s", d.ID, d.Status, d.Coverage, d.Reason)
				}
			}
		})
	}
}

// A device that only shows its power is read at its own pace, whatever the tick,
// and keeps within the documented bound: half a pace of each step.
func TestPowerOnlyDevicesKeepTheirBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		instant := counter("GPU-0", sensors.GPU, load)
		instant.Method = sensors.MethodPower
		averaged := counter("GPU-1", sensors.GPU, load)
		averaged.Method, averaged.Averaging = sensors.MethodPowerAverage, time.Second
		set := sensors.NewSet(
			sensortest.NewSensor(nil, sensors.Timing{MayBlock: true, MaxInterval: 100 * time.Millisecond}, instant),
			sensortest.NewSensor(nil, sensors.Timing{MayBlock: true, MaxInterval: time.Second}, averaged),
		)
		tr := start(t, set, tracker.WithInterval(5*time.Second))
		time.Sleep(25 * time.Second)
		r := stop(t, tr)
		want := float64(load.Joules(25 * time.Second))
		const step = 580 // W, and two ramps that a line joins exactly
		if got := joules(t, device(t, r, "GPU-0").Energy); math.Abs(got-want) > step*0.1/2+1e-3 {
			t.Errorf("instant power: %v J, want %v J ± %v J", got, want, step*0.1/2)
		}
		if got := joules(t, device(t, r, "GPU-1").Energy); math.Abs(got-want) > 1e-3*want {
			t.Errorf("averaged power: %v J, want %v J", got, want)
		}
	})
}

// Everything in the report follows from the rest of it. The test reads the JSON,
// as somebody else would.
func TestReportAddsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(
			sensortest.NewSensor(nil, fast,
				counter("package-0", sensors.CPU, sensortest.Constant(111)), counter("package-1", sensors.CPU, sensortest.Constant(97)),
				counter("dram-0", sensors.Memory, sensortest.Constant(13))),
			sensortest.NewSensor(nil, slow, counter("GPU-0", sensors.GPU, load), counter("GPU-1", sensors.GPU, load)),
		)
		tr := start(t, set)
		time.Sleep(17 * time.Second)
		data, err := json.Marshal(stop(t, tr))
		if err != nil {
			t.Fatal(err)
		}
		var r struct {
			Energy  map[string]*float64 `json:"energy_j"`
			Devices []struct {
				Component string
				Energy    *float64 `json:"energy_j"`
				Low       *float64 `json:"low_j"`
				High      *float64 `json:"high_j"`
				Charged   *float64 `json:"attributed_j"`
			}
			Factors map[string]struct {
				Value float64
				Unit  string
			}
			Emissions map[string]float64 `json:"emissions_g"`
		}
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		sum := map[string]float64{}
		for _, d := range r.Devices {
			sum[d.Component] += *d.Charged
			sum["device"] += *d.Charged
			if !(*d.Low < *d.Energy && *d.Energy < *d.High) {
				t.Errorf("bounds %v to %v around %v", *d.Low, *d.High, *d.Energy)
			}
		}
		for _, c := range []string{"gpu", "cpu", "memory", "device"} {
			near(t, "energy_j."+c, *r.Energy[c], sum[c], 1e-12)
		}
		near(t, "facility", *r.Energy["facility"], sum["device"]*r.Factors["pue"].Value, 1e-9)
		near(t, "operational", r.Emissions["operational"], *r.Energy["facility"]/3.6e6*r.Factors["intensity"].Value, 1e-9)
		if lo, hi := r.Emissions["low"], r.Emissions["high"]; !(lo < r.Emissions["operational"] && r.Emissions["operational"] < hi) {
			t.Errorf("emissions %v between %v and %v", r.Emissions["operational"], lo, hi)
		}
		if r.Factors["intensity"].Unit != "g/kWh" || r.Factors["pue"].Unit != "1" {
			t.Errorf("factors: %+v", r.Factors)
		}
	})
}

// What was not measured is null, never 0, and says whether it is absent or
// unreadable.
func TestUnavailableIsNotZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(50)))))
		time.Sleep(3 * time.Second)
		r := stop(t, tr)
		data, _ := json.Marshal(r.Energy)
		if s := string(data); !strings.Contains(s, `"gpu":null`) || !strings.Contains(s, `"memory":null`) {
			t.Errorf("energy_j: %s", s)
		}
		status := map[sensors.Component]sensors.Status{}
		for _, m := range r.Missing {
			status[m.Component] = m.Status
			if m.Reason == "" {
				t.Errorf("%s is missing without a reason", m.Component)
			}
		}
		if status[sensors.GPU] != sensors.Absent || status[sensors.Memory] != sensors.Unreadable {
			t.Errorf("missing: %v", status)
		}
		if !r.Partial {
			t.Error("memory exists and was not read: the total is partial")
		}
	})
}

// A machine without any sensor has a report that says so, not zeros.
func TestNoSensorAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := start(t, sensors.NewSet())
		time.Sleep(2 * time.Second)
		r := stop(t, tr)
		if r.Energy != (tracker.Energy{}) || r.Emissions != nil || !r.Partial {
			t.Errorf("energy %+v, emissions %+v, partial %v", r.Energy, r.Emissions, r.Partial)
		}
	})
}

// A GPU lost half-way costs itself only.
func TestLostDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := counter("GPU-1", sensors.GPU, sensortest.Constant(300))
		lost.Lost = []sensortest.Span{{From: 10 * time.Second, To: time.Hour}}
		back := counter("GPU-2", sensors.GPU, sensortest.Constant(300))
		back.Lost = []sensortest.Span{{From: 5 * time.Second, To: 10 * time.Second}}
		back.Resets = []time.Duration{8 * time.Second}
		set := sensors.NewSet(
			sensortest.NewSensor(nil, slow, counter("GPU-0", sensors.GPU, sensortest.Constant(300)), lost, back),
			sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(100)), counter("dram-0", sensors.Memory, sensortest.Constant(10))),
		)
		tr := start(t, set)
		time.Sleep(20*time.Second + 500*time.Millisecond)
		r := stop(t, tr)
		near(t, "gpu 0", joules(t, device(t, r, "GPU-0").Energy), 300*20.5, 1e-9)
		near(t, "cpu", joules(t, r.Energy.CPU), 100*20.5, 1e-9)
		d := device(t, r, "GPU-1")
		near(t, "the lost GPU", joules(t, d.Energy), 300*9, 1e-9)
		near(t, "its coverage", d.Coverage, 9/20.5, 1e-9)
		if d.Status != tracker.StatusFailed || !strings.Contains(d.Reason, "lost") {
			t.Errorf("the lost GPU: %s, %q", d.Status, d.Reason)
		}
		d = device(t, r, "GPU-2")
		// Seen until 4 s and again from 10 s on.
		near(t, "the GPU that came back", joules(t, d.Energy), 300*(4+10.5), 1e-9)
		if d.Status != tracker.StatusGaps || d.Resets != 1 {
			t.Errorf("the GPU that came back: %s, %d resets", d.Status, d.Resets)
		}
		if !r.Partial {
			t.Error("not partial")
		}
	})
}

// A driver that hangs costs itself only: the others are sampled as before, and
// what the counter missed lands in a later window.
func TestHungDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := counter("GPU-0", sensors.GPU, sensortest.Constant(300))
		hung.Hang = []sensortest.Span{{From: 5 * time.Second, To: 15 * time.Second}}
		set := sensors.NewSet(
			sensortest.NewSensor(nil, slow, hung),
			sensortest.NewSensor(nil, slow, counter("GPU-9", sensors.GPU, sensortest.Constant(200))),
			sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(100)), counter("dram-0", sensors.Memory, sensortest.Constant(10))),
		)
		tr := start(t, set)
		time.Sleep(10*time.Second + 600*time.Millisecond)
		mid := tr.Snapshot()
		if d := device(t, mid, "GPU-0"); d.Status != tracker.StatusFailed {
			t.Errorf("while it hangs: %s", d.Status)
		}
		if mid.Run.Duration < 9 {
			t.Errorf("the tick stands still: %v s", mid.Run.Duration)
		}
		near(t, "the other driver", joules(t, device(t, mid, "GPU-9").Energy), 200*mid.Run.Duration, 0.06)
		time.Sleep(10 * time.Second)
		r := stop(t, tr)
		near(t, "gpu", joules(t, device(t, r, "GPU-0").Energy), 300*20.6, 1e-9)
		if d := device(t, r, "GPU-0"); d.Status != tracker.StatusOK || d.Coverage < 0.999 {
			t.Errorf("afterwards: %s, coverage %v", d.Status, d.Coverage)
		}
	})
}

// A driver that never answers delays Stop by no more than its deadline, and the
// report is there.
func TestStopDoesNotWaitForAHungDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := counter("GPU-0", sensors.GPU, sensortest.Constant(300))
		hung.Hang = []sensortest.Span{{From: 5 * time.Second, To: time.Hour}}
		sensor := sensortest.NewSensor(nil, slow, hung)
		set := sensors.NewSet(sensor,
			sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(100))))
		tr := start(t, set)
		time.Sleep(10 * time.Second)
		before := time.Now()
		r := stop(t, tr)
		if waited := time.Since(before); waited > 3*time.Second {
			t.Errorf("Stop took %v", waited)
		}
		d := device(t, r, "GPU-0")
		near(t, "what was seen before", joules(t, d.Energy), 300*4, 1e-9)
		if d.Status != tracker.StatusFailed || !r.Partial {
			t.Errorf("%s, partial %v", d.Status, r.Partial)
		}
		time.Sleep(2 * time.Hour) // the driver lets go, and its goroutine ends
	})
}

// A device that does not answer from the start has no figure.
func TestDeviceThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := counter("GPU-0", sensors.GPU, sensortest.Constant(300))
		hung.Hang = []sensortest.Span{{From: 0, To: time.Hour}}
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, slow, hung)))
		time.Sleep(5 * time.Second)
		r := stop(t, tr)
		if r.Energy.GPU != nil || device(t, r, "GPU-0").Status != tracker.StatusUnseen || !r.Partial {
			t.Errorf("gpu %v, %+v, partial %v", r.Energy.GPU, device(t, r, "GPU-0"), r.Partial)
		}
		time.Sleep(2 * time.Hour)
	})
}

// A run shorter than a counter's refresh has not been measured by it.
func TestRunShorterThanTheRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gpu := counter("GPU-0", sensors.GPU, sensortest.Constant(300))
		gpu.Update, gpu.Refresh = 100*time.Millisecond, 100*time.Millisecond
		cpu := counter("package-0", sensors.CPU, sensortest.Constant(100))
		late := counter("package-1", sensors.CPU, sensortest.Constant(100))
		late.Refresh = time.Second // shows its energy all the same
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, fast, gpu, cpu, late)))
		time.Sleep(3 * time.Millisecond)
		r := stop(t, tr)
		if r.Energy.GPU != nil {
			t.Errorf("%v J in 3 ms from a counter that moves every 100 ms", *r.Energy.GPU)
		}
		// What has no figure is in no total either.
		near(t, "device", joules(t, r.Energy.Device), 0.3, 1e-9)
		near(t, "facility", joules(t, r.Energy.Facility), 0.3*1.25, 1e-9)
	})
}

type panicking struct{ *sensortest.Sensor }

func (panicking) Read([]sensors.Reading) { panic("index out of range") }

// Somebody else's sensor cannot end the user's program.
func TestPanickingSensor(t *testing.T) {
	for _, timing := range []sensors.Timing{fast, slow} {
		synctest.Test(t, func(t *testing.T) {
			bad := panicking{sensortest.NewSensor(nil, timing, counter("GPU-0", sensors.GPU, sensortest.Constant(300)))}
			tr := start(t, sensors.NewSet(bad, sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(100)))))
			time.Sleep(5 * time.Second)
			r := stop(t, tr)
			near(t, "cpu", joules(t, r.Energy.CPU), 500, 1e-9)
			if d := device(t, r, "GPU-0"); d.Energy != nil || !strings.Contains(d.Reason, "index out of range") {
				t.Errorf("%+v", d)
			}
		})
	}
}

// A RAPL counter must be read before it can wrap twice.
func TestIntervalIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sensortest.NewSensor(nil, sensors.Timing{MaxInterval: 12 * time.Second}, counter("package-0", sensors.CPU, sensortest.Constant(1)))
		tr := start(t, sensors.NewSet(s), tracker.WithInterval(30*time.Second))
		time.Sleep(time.Minute + time.Second)
		if r := stop(t, tr); r.Sampling.Interval != 12 || r.Sampling.Samples != 7 {
			t.Errorf("%+v", r.Sampling)
		}
	})
}

// A configuration that means nothing is an error and a tracker that does nothing.
func TestBadConfiguration(t *testing.T) {
	for name, o := range map[string]tracker.Option{
		"negative interval": tracker.WithInterval(-time.Second),
		"tiny interval":     tracker.WithInterval(time.Microsecond),
		"long interval":     tracker.WithInterval(time.Hour),
		"PUE below 1":       tracker.WithPUE(0.9),
		"no number":         tracker.WithPUE(math.NaN()),
		"intensity":         tracker.WithIntensity(-1),
		"scope":             tracker.WithScope("galaxy"),
		"country":           tracker.WithLocation(emissions.Location{Country: "Atlantis"}),
		"region":            tracker.WithLocation(emissions.Location{Region: "aws/us-esat-1"}),
	} {
		t.Run(name, func(t *testing.T) {
			tr, err := tracker.Start(context.Background(), tracker.WithSensors(sensors.NewSet()), o)
			if err == nil {
				t.Fatal("accepted")
			}
			checkHarmless(t, tr)
		})
	}
	t.Run("context ended", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		tr, err := tracker.Start(ctx)
		if err == nil {
			t.Fatal("started")
		}
		checkHarmless(t, tr)
	})
	checkHarmless(t, nil)
}

func checkHarmless(t *testing.T, tr *tracker.Tracker) {
	t.Helper()
	tr.Span().End()
	if r := tr.Snapshot(); r.Energy.Device != nil || r.Schema == "" {
		t.Errorf("snapshot: %+v", r)
	}
	if _, err := tr.Stop(context.Background()); err == nil {
		t.Error("Stop of a tracker that never started returns no error")
	}
}

// Stop can be called from many goroutines, again, and returns one report.
func TestStopIsIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, slow, counter("GPU-0", sensors.GPU, sensortest.Constant(100)))))
		time.Sleep(time.Second)
		var wait sync.WaitGroup
		reports := make([]tracker.Report, 8)
		for i := range reports {
			wait.Go(func() { reports[i], _ = tr.Stop(context.Background()) })
		}
		wait.Wait()
		time.Sleep(time.Minute)
		again, _ := tr.Stop(context.Background())
		for _, r := range reports {
			if r.Run != again.Run || *r.Energy.GPU != *again.Energy.GPU {
				t.Errorf("%+v and %+v", r.Run, again.Run)
			}
		}
		if after := tr.Snapshot(); after.Run.End != again.Run.End {
			t.Error("the tracker goes on after Stop")
		}
	})
}

// Snapshots never go back, whoever takes them.
func TestSnapshotsAreMonotone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, slow, counter("GPU-0", sensors.GPU, load))), tracker.WithInterval(100*time.Millisecond))
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				var last sensors.Joules
				for range 200 {
					time.Sleep(37 * time.Millisecond)
					if e := tr.Snapshot().Energy.GPU; e != nil {
						if *e < last {
							t.Errorf("%v after %v", *e, last)
						}
						last = *e
					}
				}
				if last == 0 {
					t.Error("no energy in any snapshot")
				}
			})
		}
		wait.Wait()
		stop(t, tr)
	})
}

// usage is a job whose usage a test sets.
type usage struct{ cpu, memory atomic.Int64 }

func (u *usage) Read() (tracker.Usage, error) {
	return tracker.Usage{CPU: time.Duration(u.cpu.Load()), Memory: uint64(u.memory.Load()), HasMemory: u.memory.Load() >= 0}, nil
}

func (u *usage) Accounting() string { return tracker.AccountingCgroup }

// machine is a procfs whose load a test sets.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	m := machine{t: t, root: t.TempDir()}
	m.busy(1000 * time.Second)
	m.inUse(0)
	return m
}

func (m machine) busy(total time.Duration) {
	m.write("stat", "cpu  "+ticks(total)+" 0 0 100000000 0 0 0 0 0 0\n")
}

func (m machine) inUse(gib int) {
	m.write("meminfo", fmt.Sprintf("MemTotal: %d kB\nMemAvailable: %d kB\n", 100<<20, (100-gib)<<20))
}

func (m machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.root, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// The job's part of the processors' energy is its share of their busy time, that
// of the memory its share of what is in use, each in each window; GPUs are the
// job's that it can see.
func TestJobShare(t *testing.T) {
	m := newMachine(t)
	m.inUse(40)
	t.Setenv("CUDA_VISIBLE_DEVICES", "1")
	synctest.Test(t, func(t *testing.T) {
		gpus := []sensortest.Script{counter("GPU-a", sensors.GPU, sensortest.Constant(300)), counter("GPU-b", sensors.GPU, sensortest.Constant(500))}
		gpus[1].Device.Index = 1
		set := sensors.NewSet(sensortest.NewSensor(nil, fast, append(gpus,
			counter("package-0", sensors.CPU, sensortest.Steps(10*time.Second, 100, 200)), counter("dram-0", sensors.Memory, sensortest.Constant(10)))...))
		job := new(usage)
		job.cpu.Store(int64(time.Hour)) // what it used before does not count
		job.memory.Store(10 << 30)
		tr := start(t, set, tracker.WithScope(tracker.Job), tracker.WithJob(job), tracker.WithInterval(10*time.Second),
			tracker.WithDetection(sensors.WithProcRoot(m.root)))
		time.Sleep(9 * time.Second)
		m.busy(1008 * time.Second) // busy for 8 s until 10 s,
		job.cpu.Add(int64(2 * time.Second))
		job.memory.Store(30 << 30) // of 40 from 10 s on, so half in the mean until then
		time.Sleep(10 * time.Second)
		m.busy(1012 * time.Second) // for 4 s more until 20 s
		job.cpu.Add(int64(3 * time.Second))
		time.Sleep(time.Second)
		r := stop(t, tr)
		// 2/8 of 1000 J, and 3/4 of 2000 J.
		const cpu = 250 + 1500
		// 40/80 of 100 J, and 60/80 of 100 J.
		const memory = 50 + 75
		const gpu = 500 * 20
		near(t, "job", joules(t, r.Job.Energy), cpu+memory+gpu, 1e-6)
		near(t, "scope", joules(t, r.Energy.Device), cpu+memory+gpu, 1e-6)
		near(t, "cpu of the scope", joules(t, r.Energy.CPU), cpu, 1e-6)
		near(t, "memory of the scope", joules(t, r.Energy.Memory), memory, 1e-6)
		near(t, "gpu of the scope", joules(t, r.Energy.GPU), gpu, 1e-6)
		near(t, "cpu of the machine", joules(t, device(t, r, "package-0").Energy), 3000, 1e-6)
		near(t, "cpu seconds", *r.Job.CPUSeconds, 5, 1e-9)
		near(t, "emissions", float64(r.Emissions.Operational), (cpu+memory+gpu)*1.25/3.6e6*400, 1e-6)
		if a := device(t, r, "GPU-a"); a.Attributed == nil || *a.Attributed != 0 {
			t.Errorf("a GPU that the job cannot see is charged with %v", a.Attributed)
		}
		if r.Partial || r.Job.Accounting != tracker.AccountingCgroup ||
			r.Job.Method != "cpu_time_share,resident_memory_share,visible_devices" {
			t.Errorf("partial %v, accounting %q, method %q", r.Partial, r.Job.Accounting, r.Job.Method)
		}
		var sum sensors.Joules
		for _, s := range r.Job.Shares {
			sum += s.Energy
		}
		near(t, "the shares", float64(sum), cpu+memory+gpu, 1e-6)
	})
}

// A job that begins after the first sample and ends before the last holds memory
// in between, and is charged for that.
func TestJobShareOfMemoryWhileItLives(t *testing.T) {
	m := newMachine(t)
	m.inUse(40)
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(sensortest.NewSensor(nil, fast, counter("dram-0", sensors.Memory, sensortest.Constant(10))))
		job := new(usage)
		job.memory.Store(-1)
		tr := start(t, set, tracker.WithJob(job), tracker.WithInterval(10*time.Second), tracker.WithDetection(sensors.WithProcRoot(m.root)))
		time.Sleep(5 * time.Second)
		if r := tr.Snapshot(); len(r.Job.Components) != 0 {
			t.Errorf("before it is known: %v", r.Job.Components)
		}
		job.memory.Store(10 << 30)
		time.Sleep(10 * time.Second) // a sample at 10 s sees it
		job.memory.Store(-1)
		time.Sleep(5 * time.Second)
		r := stop(t, tr)
		near(t, "job", joules(t, r.Job.Energy), 10*20/4, 1e-6)
	})
}

// Where the machine's use cannot be read for a while, the job is charged with
// nothing for that time: not with everything.
func TestJobShareWhileTheMachineIsUnreadable(t *testing.T) {
	m := newMachine(t)
	m.inUse(40)
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(sensortest.NewSensor(nil, fast,
			counter("package-0", sensors.CPU, sensortest.Constant(100)), counter("dram-0", sensors.Memory, sensortest.Constant(10))))
		job := new(usage)
		job.memory.Store(10 << 30)
		tr := start(t, set, tracker.WithJob(job), tracker.WithInterval(10*time.Second), tracker.WithDetection(sensors.WithProcRoot(m.root)))
		step := func(seconds int) { // busy for 8 s, of which 2 are the job's
			job.cpu.Add(int64(2 * time.Second))
			m.busy(1000*time.Second + time.Duration(seconds)*800*time.Millisecond)
		}
		time.Sleep(9 * time.Second)
		step(10)
		time.Sleep(10 * time.Second)
		step(20)
		m.write("stat", "cpu  nonsense\n") // at 20 s
		m.write("meminfo", "MemTotal: nonsense\n")
		time.Sleep(10 * time.Second)
		step(30)
		m.inUse(40)
		time.Sleep(10 * time.Second)
		step(40)
		time.Sleep(time.Second)
		r := stop(t, tr)
		for _, s := range r.Job.Shares {
			switch s.Component {
			case sensors.CPU: // a quarter of 1 kJ in the first and the last window, nothing in the two around 20 s
				near(t, "cpu", float64(s.Energy), 500, 1e-6)
			case sensors.Memory: // a quarter throughout, by the ends that are known
				near(t, "memory", float64(s.Energy), 100, 1e-6)
			}
		}
		if len(r.Job.Shares) != 2 {
			t.Errorf("%+v", r.Job.Shares)
		}
	})
}

// A share that is not known is missing, not nothing.
func TestJobShareUnknown(t *testing.T) {
	m := newMachine(t)
	t.Setenv("CUDA_VISIBLE_DEVICES", "MIG-7a1d3c1e-aaaa-bbbb-cccc-0123456789ab")
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(sensortest.NewSensor(nil, fast,
			counter("GPU-a", sensors.GPU, sensortest.Constant(300)),
			counter("package-0", sensors.CPU, sensortest.Constant(100)), counter("dram-0", sensors.Memory, sensortest.Constant(10))))
		job := new(usage)
		job.memory.Store(-1)
		tr := start(t, set, tracker.WithScope(tracker.Job), tracker.WithJob(job), tracker.WithDetection(sensors.WithProcRoot(m.root)))
		time.Sleep(10 * time.Second)
		r := stop(t, tr)
		if !slices.Equal(r.Job.Components, []sensors.Component{sensors.CPU}) || !r.Partial ||
			r.Energy.GPU != nil || r.Energy.Memory != nil || r.Energy.CPU == nil || *r.Energy.CPU != 0 {
			t.Errorf("components %v, partial %v, energy %+v", r.Job.Components, r.Partial, r.Energy)
		}
		near(t, "gpu of the machine", joules(t, device(t, r, "GPU-a").Energy), 3000, 1e-6)
	})
}

// Whoever asks gets a sample of now, unless there has just been one.
func TestSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(100))))
		tr := start(t, set, tracker.WithInterval(10*time.Second))
		time.Sleep(2500 * time.Millisecond)
		near(t, "before", tr.Snapshot().Run.Duration, 0, 1e-9)
		r, err := tr.Sample(t.Context())
		if err != nil {
			t.Error(err)
		}
		near(t, "duration", r.Run.Duration, 2.5, 1e-9)
		near(t, "energy", joules(t, r.Energy.CPU), 250, 1e-6)
		time.Sleep(50 * time.Millisecond)
		if r, err = tr.Sample(t.Context()); err != nil || r.Run.Duration != 2.5 {
			t.Errorf("50 ms later: a sample at %v, %v; want that of 2.5 s", r.Run.Duration, err)
		}
		time.Sleep(50 * time.Millisecond)
		r, _ = tr.Sample(t.Context())
		near(t, "100 ms later", r.Run.Duration, 2.6, 1e-9)
		if r.Sampling.Samples != 3 || r.Sampling.Missed != 0 {
			t.Errorf("%d samples, %d missed", r.Sampling.Samples, r.Sampling.Missed)
		}
		time.Sleep(time.Second)
		final := stop(t, tr)
		if r, err = tr.Sample(t.Context()); err != nil || r.Run.Duration != final.Run.Duration {
			t.Errorf("after Stop: %v, %v; want the final report", r.Run.Duration, err)
		}
		var none *tracker.Tracker
		if _, err := none.Sample(t.Context()); !errors.Is(err, tracker.ErrNotStarted) {
			t.Errorf("of no tracker: %v", err)
		}
	})
}

// A driver that hangs does not hold up whoever asks for longer than a context.
func TestSampleOfAHungDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := counter("GPU-0", sensors.GPU, sensortest.Constant(300))
		hung.Hang = []sensortest.Span{{From: time.Second, To: time.Minute}}
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, slow, hung)), tracker.WithInterval(20*time.Second))
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := tr.Sample(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 150*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		stop(t, tr)
		time.Sleep(time.Minute)
	})
}

// What a sensor says of its error can be nonsense; the report is written all the
// same.
func TestNonsensicalErrorBand(t *testing.T) {
	for _, band := range []float64{math.NaN(), math.Inf(1), 1e200, -1} {
		synctest.Test(t, func(t *testing.T) {
			script := counter("package-0", sensors.CPU, sensortest.Constant(100))
			script.Device.ErrorBand = band
			tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, fast, script)))
			time.Sleep(10 * time.Second)
			r := stop(t, tr)
			if _, err := json.Marshal(r); err != nil {
				t.Errorf("%v: %v", band, err)
			}
			if b := r.Bounds.Device; !(b.Low > 0 && b.Low < 500 && b.High > 2000) {
				t.Errorf("%v: %v to %v around 1 kJ", band, b.Low, b.High)
			}
		})
	}
}

func ticks(d time.Duration) string {
	return string(appendInt(nil, int64(d/(10*time.Millisecond))))
}

func appendInt(b []byte, n int64) []byte {
	data, _ := json.Marshal(n)
	return append(b, data...)
}

// The library writes to nobody's standard streams.
func TestWritesNothing(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr := os.Stdout, os.Stderr
	defer func() { os.Stdout, os.Stderr = stdout, stderr }()
	var files []*os.File
	for _, stream := range []**os.File{&os.Stdout, &os.Stderr} {
		f, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		*stream = f
	}
	tr, err := tracker.Start(context.Background())
	if err != nil {
		t.Error(err)
	}
	time.Sleep(150 * time.Millisecond)
	_, _ = tr.Stop(context.Background())
	_, _ = tracker.Start(context.Background(), tracker.WithPUE(0))
	for _, f := range files {
		if info, err := f.Stat(); err != nil || info.Size() != 0 {
			t.Errorf("%d bytes written", info.Size())
		}
		f.Close()
	}
}
