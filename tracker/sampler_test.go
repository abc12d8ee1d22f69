package tracker

import (
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// server is a set like that of a two-socket server with eight GPUs.
func server() *sensors.Set {
	gpus := make([]sensortest.Script, 8)
	for i := range gpus {
		gpus[i] = sensortest.Script{
			Device: sensors.Device{ID: "GPU-" + string(rune('0'+i)), Component: sensors.GPU},
			Curve:  sensortest.Constant(500), Unit: 1000, MaxPower: 1050,
		}
	}
	cpus := make([]sensortest.Script, 4)
	for i, id := range []string{"package-0", "package-1", "dram-0", "dram-1"} {
		c := sensors.CPU
		if i > 1 {
			c = sensors.Memory
		}
		cpus[i] = sensortest.Script{Device: sensors.Device{ID: id, Component: c}, Curve: sensortest.Constant(100), MaxPower: 1050}
	}
	return sensors.NewSet(
		sensortest.NewSensor(nil, sensors.Timing{MayBlock: true}, gpus...),
		sensortest.NewSensor(nil, sensors.Timing{}, cpus...),
	)
}

func nodeSampler(tb testing.TB) *sampler {
	s := newSampler(server(), true, time.Hour)
	s.scope, s.job = Machine, newSelfJob()
	s.model = emissions.Model{
		Intensity: emissions.Factor{Value: 50, Unit: emissions.UnitIntensity},
		PUE:       emissions.Factor{Value: 1.2, Unit: emissions.UnitPUE},
	}
	s.clocks = openClocks(sensors.DefaultRoots(), s.devices)
	s.rules = rules(s.devices, s.clocks, os.LookupEnv)
	s.start()
	tb.Cleanup(func() {
		close(s.quit)
		<-s.done
	})
	return s
}

// A tick allocates the sample that it publishes: the struct and its devices.
func TestTickAllocations(t *testing.T) {
	s := nodeSampler(t)
	// The sampling goroutine sleeps for an hour: the ticks are ours.
	if n := testing.AllocsPerRun(100, func() { s.tick(time.Second) }); n > 2 {
		t.Errorf("a tick allocates %v objects, want 2 at most", n)
	}
}

func BenchmarkTick(b *testing.B) {
	s := nodeSampler(b)
	b.ReportAllocs()
	for b.Loop() {
		s.tick(time.Second)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	t := &Tracker{sampler: nodeSampler(b)}
	b.ReportAllocs()
	for b.Loop() {
		t.Snapshot()
	}
}

// A sensor whose tally goes back, which it must not, takes nothing back from the
// totals.
func TestTotalsNeverDecrease(t *testing.T) {
	s := &sampler{
		node:     nodeModel{meter: -1},
		interval: time.Second, scope: Machine,
		devices: []sensors.Device{{ID: "a", Component: sensors.GPU}}, rules: make([]rule, 1),
		model: emissions.Model{
			Intensity: emissions.Factor{Value: 50, Unit: emissions.UnitIntensity},
			PUE:       emissions.Factor{Value: 1, Unit: emissions.UnitPUE},
		},
	}
	at := func(second int, energy sensors.Microjoules) *sample {
		n := &sample{at: time.Unix(int64(second), 0), devices: make([]deviceState, 1)}
		n.devices[0].Energy = energy
		return n
	}
	last := at(0, 100)
	for i, e := range []sensors.Microjoules{200, 50, 0, 300} {
		next := at(i+1, e)
		s.settle(last, next)
		if next.devices[0].Energy < last.devices[0].Energy || next.footprint.Facility < last.footprint.Facility {
			t.Errorf("from %d to %d", last.devices[0].Energy, next.devices[0].Energy)
		}
		last = next
	}
}

// Ticks that come too late are counted.
func TestMissedTicks(t *testing.T) {
	s := &sampler{interval: time.Second, node: nodeModel{meter: -1}}
	last := &sample{at: time.Unix(0, 0), counts: counts{samples: 1}}
	for _, late := range []struct {
		after  time.Duration
		missed uint64
	}{{time.Second, 0}, {1400 * time.Millisecond, 0}, {4 * time.Second, 3}, {300 * time.Millisecond, 3}} {
		next := &sample{at: last.at.Add(late.after), counts: counts{samples: 1}}
		s.settle(last, next)
		if next.counts.missed != late.missed {
			t.Errorf("after %v: %d missed, want %d", late.after, next.counts.missed, late.missed)
		}
		last = next
	}
	if last.counts.samples != 5 {
		t.Errorf("%d samples", last.counts.samples)
	}
}

// The time a machine sleeps is said, and is in no figure.
func TestSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slept atomic.Int64
		slept.Store(int64(5 * time.Hour)) // before the run
		set := sensors.NewSet(sensortest.NewSensor(nil, sensors.Timing{},
			sensortest.Script{Device: sensors.Device{ID: "package-0", Component: sensors.CPU}, Curve: sensortest.Constant(100), MaxPower: 1050}))
		s := newSampler(set, true, time.Second)
		s.scope = Machine
		s.model.PUE.Value = 1
		s.suspendedSinceBoot = func() (time.Duration, bool) { return time.Duration(slept.Load()), true }
		tr := &Tracker{sampler: s}
		s.start()
		time.Sleep(10 * time.Second)
		slept.Add(int64(100 * time.Millisecond)) // two clocks that are read one after the other
		time.Sleep(10 * time.Second)
		if r := tr.Snapshot(); r.Sampling.Suspended != 0 || r.Notes != nil {
			t.Errorf("awake: %v s, %q", r.Sampling.Suspended, r.Notes)
		}
		slept.Add(int64(8 * time.Hour))
		time.Sleep(10 * time.Second)
		s.stop(t.Context())
		r := tr.Snapshot()
		if r.Sampling.Suspended != 8*3600+0.1 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "8h0m0s") {
			t.Errorf("suspended for %v s: %q", r.Sampling.Suspended, r.Notes)
		}
		if r.Run.Duration != 30 || *r.Energy.CPU != 3000 {
			t.Errorf("%v in %v s, want 3 kJ in 30 s", *r.Energy.CPU, r.Run.Duration)
		}
	})
}

// restless is a sensor that wants to be read faster from some time on.
type restless struct {
	sensors.Sensor
	from  time.Time
	reads atomic.Int64
}

func (r *restless) Timing() sensors.Timing {
	t := sensors.Timing{MayBlock: true}
	if time.Now().After(r.from) {
		t.MaxInterval = 100 * time.Millisecond
	}
	return t
}

func (r *restless) Read(dst []sensors.Reading) {
	r.reads.Add(1)
	r.Sensor.Read(dst)
}

// A GPU that loses its counter is read by its power from then on, at the pace
// that takes.
func TestPaceFollowsTheSensor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sensor := &restless{Sensor: sensortest.NewSensor(nil, sensors.Timing{},
			sensortest.Script{Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU}, Curve: sensortest.Constant(100), MaxPower: 1050})}
		sensor.from = time.Now().Add(10*time.Second + time.Millisecond)
		s := newSampler(sensors.NewSet(sensor), true, time.Second)
		s.scope = Machine
		s.start()
		time.Sleep(10*time.Second + 2*time.Millisecond)
		synctest.Wait()
		before := sensor.reads.Load()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		after := sensor.reads.Load() - before
		s.stop(t.Context())
		if before != 11 || after < 95 || after > 115 {
			t.Errorf("%d reads in the first 10 s, %d in the next; want 11 and about 100", before, after)
		}
	})
}

// demoted is a sensor that is read by a worse method for a while.
type demoted struct {
	sensors.Sensor
	from, to time.Time
}

func (d demoted) Read(dst []sensors.Reading) {
	d.Sensor.Read(dst)
	if now := time.Now(); now.After(d.from) && now.Before(d.to) {
		dst[0].Method, dst[0].ErrorBand = sensors.MethodPower, 0.2
	}
}

// A figure is as uncertain as the worst method that it was made by.
func TestBandOfTheWorstMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		sensor := demoted{Sensor: sensortest.NewSensor(nil, sensors.Timing{}, sensortest.Script{
			Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU, ErrorBand: 0.05}, Curve: sensortest.Constant(100), MaxPower: 1050,
		}), from: begin.Add(1500 * time.Millisecond), to: begin.Add(3500 * time.Millisecond)}
		tr, s := &Tracker{blank: Report{Scope: Machine}}, newSampler(sensors.NewSet(sensor), true, time.Second)
		tr.sampler, s.scope = s, Machine
		s.start()
		width := func() float64 {
			d := tr.Snapshot().Devices[0]
			return float64(*d.High / *d.Energy)
		}
		time.Sleep(1200 * time.Millisecond)
		before := width()
		time.Sleep(8 * time.Second)
		after := width()
		s.stop(t.Context())
		if before > 1.15 || after < 1.4 {
			t.Errorf("up to %.2f times the figure before, %.2f times after; want about 1.1 and 1.5", before, after)
		}
	})
}

// A device that another tracker reads is taken to go on as it was, from that
// tracker's sample to this one's, so that a run has neither too little at its end
// nor too much at its beginning; what follows puts it right.
func TestExtend(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }
	d := sensors.Device{ID: "package-0", Refresh: time.Second}
	f := &following{devices: []followed{{published: true, read: true}}}
	read := func(sampled float64, energy sensors.Microjoules, observed time.Duration, power sensors.Watts) sensors.Reading {
		return sensors.Reading{At: at(sampled), Tally: sensors.Tally{Energy: energy, Observed: observed}, Power: power}
	}
	for i, test := range []struct {
		reading  sensors.Reading
		now      float64
		owner    bool
		energy   sensors.Microjoules
		observed time.Duration
	}{
		// The other's last sample was at 9.6 s; this one begins at 10 s.
		{read(9.6, 0, 0, 100), 10, false, 0, 0},
		// At 11 s it is known until 10.6 s: 100 J, of which 40 J were before 10 s.
		{read(10.6, 100e6, time.Second, 100), 11, false, 100e6, time.Second},
		// The power has doubled since 10.6 s.
		{read(11.6, 300e6, 2*time.Second, 200), 12, false, 340e6, 2 * time.Second},
		// The other says nothing more: the guess ends after an interval and a half.
		{read(11.6, 300e6, 2*time.Second, 200), 20, false, 560e6, 3100 * time.Millisecond},
		// A failed reading and one whose power is not known are not continued.
		{sensors.Reading{At: at(11.6), Tally: sensors.Tally{Energy: 300e6, Observed: 2 * time.Second}, Power: 200, Err: sensors.ErrLost}, 12, false, 260e6, 1600 * time.Millisecond},
		{read(11.6, 300e6, 2*time.Second, sensors.Watts(math.NaN())), 12, false, 260e6, 1600 * time.Millisecond},
		// This tracker reads the device itself now.
		{read(20, 400e6, 3*time.Second, 200), 21, true, 360e6, 2600 * time.Millisecond},
	} {
		r := test.reading
		f.extend(0, d, &r, at(test.now), i == 0, test.owner)
		if r.Energy != test.energy || r.Observed != test.observed {
			t.Errorf("%d: %v J over %v, want %v J over %v", i, r.Energy.Joules(), r.Observed, test.energy.Joules(), test.observed)
		}
	}
	// Its own devices are as they are.
	own := &following{devices: []followed{{}}}
	for _, f := range []*following{nil, own} {
		r := read(9, 5, time.Second, 100)
		if f.extend(0, d, &r, at(10), false, false); r.Energy != 5 || r.Observed != time.Second {
			t.Errorf("%+v", r)
		}
	}
}

// The other tracker began less than an interval before this one, and had no power to
// tell: what it saw before this one began is found out by its next sample.
func TestExtendFromTheFirstSample(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }
	d := sensors.Device{ID: "package-0", Refresh: time.Second}
	f := &following{devices: []followed{{published: true, read: true}}}
	for i, test := range []struct {
		sampled, now float64
		energy       sensors.Microjoules
		power        float64
		want         sensors.Microjoules
		observed     time.Duration
	}{
		{0, 0.75, 0, math.NaN(), 0, 0},
		{0, 0.9, 0, math.NaN(), 0, 0},
		{1, 1.75, 100e6, 100, 100e6, time.Second},
		{2, 2.75, 200e6, 100, 200e6, 2 * time.Second},
	} {
		r := sensors.Reading{At: at(test.sampled), Power: sensors.Watts(test.power), Tally: sensors.Tally{
			Energy: test.energy, Observed: time.Duration(test.sampled * float64(time.Second))}}
		f.extend(0, d, &r, at(test.now), i == 0, false)
		if r.Energy != test.want || r.Observed != test.observed {
			t.Errorf("%d: %d µJ in %v, want %d in %v", i, r.Energy, r.Observed, test.want, test.observed)
		}
	}
}

// A counter that stands still measures nothing: 0 is not its figure. A sleeping GPU
// and a counter that has just begun have one.
func TestStuck(t *testing.T) {
	for _, test := range []struct {
		device   sensors.Device
		energy   sensors.Microjoules
		observed time.Duration
		seen     bool
	}{
		{sensors.Device{Component: sensors.CPU, Method: sensors.MethodCounter}, 0, 2 * time.Second, false},
		{sensors.Device{Component: sensors.Memory, Method: sensors.MethodCounter}, 0, 2 * time.Second, false},
		{sensors.Device{Component: sensors.CPU, Method: sensors.MethodCounter}, 1, 2 * time.Second, true},
		{sensors.Device{Component: sensors.CPU, Method: sensors.MethodCounter}, 0, 500 * time.Millisecond, true},
		{sensors.Device{Component: sensors.CPU, Method: sensors.MethodCounter, Refresh: 5 * time.Second}, 0, 9 * time.Second, true},
		{sensors.Device{Component: sensors.CPU, Method: sensors.MethodModel}, 0, 2 * time.Second, true},
		{sensors.Device{Component: sensors.GPU, Method: sensors.MethodCounter}, 0, 2 * time.Second, true},
	} {
		s := deviceState{Reading: sensors.Reading{Tally: sensors.Tally{Energy: test.energy, Observed: test.observed}}}
		if s.seen(test.device) != test.seen {
			t.Errorf("%+v with %v J in %v: seen %v", test.device, test.energy.Joules(), test.observed, !test.seen)
		}
	}
}
