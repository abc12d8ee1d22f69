package host

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// fake is a machine of eight threads whose processor is at a load that the test
// sets.
type fake struct {
	t     testing.TB
	roots sensors.Roots
	load  float64
	busy  float64 // ticks
	total float64
}

const fakeTDP, fakeThreads = 280, 8

func newFake(t testing.TB) *fake {
	f := &fake{t: t, roots: sensors.Roots{Proc: t.TempDir(), Sys: t.TempDir()}, load: 0.5}
	write(t, f.roots.Proc, "cpuinfo", cpuinfo("AuthenticAMD", "AMD EPYC 7763 64-Core Processor", 25, 1, 1, 4, 2, ""))
	write(t, f.roots.Proc, "meminfo", "MemTotal: 67108864 kB\n")
	f.advance(0)
	return f
}

func (f *fake) advance(d time.Duration) {
	time.Sleep(d)
	f.busy += f.load * d.Seconds() * 100 * fakeThreads
	f.total += d.Seconds() * 100 * fakeThreads
	busy, total := strconv.Itoa(int(f.busy)), strconv.Itoa(int(f.total-f.busy))
	write(f.t, f.roots.Proc, "stat", "cpu  "+busy+" 0 0 "+total+" 0 0 0 0 0 0\ncpu0 0 0 0 0\n")
}

func (f *fake) open(t testing.TB) sensors.Sensor {
	s, omitted := Open(t.Context(), f.roots)
	if s == nil || len(omitted) != 0 {
		t.Fatalf("%v, omitted %v", s, omitted)
	}
	return s
}

func TestConform(t *testing.T) {
	f := newFake(t)
	sensortest.Conform(t, sensortest.Conformance{
		Open: f.open,
		// The kit runs subtests, which a bubble of virtual time cannot hold: real
		// time passes, cut short. TestRead has the long intervals.
		Advance: func(d time.Duration) { f.advance(min(d, 20*time.Millisecond)) },
	})
}

func TestRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		s := f.open(t)
		defer s.Close()
		dst := make([]sensors.Reading, 2)
		cpu, memory := &dst[0], &dst[1]

		s.Read(dst)
		if cpu.Energy != 0 || !math.IsNaN(float64(cpu.Power)) || !math.IsNaN(cpu.Utilization) {
			t.Errorf("the first read knows no load: %+v", *cpu)
		}
		if memory.Energy != 0 || memory.Power != 64*wattsPerGB || !math.IsNaN(memory.Utilization) {
			t.Errorf("memory: %+v", *memory)
		}

		// Before the first tick nothing is known, and nothing is lost.
		s.Read(dst)
		time.Sleep(time.Millisecond)
		s.Read(dst)
		if cpu.Tally != (sensors.Tally{}) || cpu.Err != nil {
			t.Errorf("before the first tick: %+v", *cpu)
		}

		// The load is that of the whole interval, and so is the power: no
		// trapezoid with what was before.
		want := fakeTDP * 0.75 * 0.001
		for _, step := range []struct {
			load float64
			d    time.Duration
		}{{0.5, time.Second}, {0, 5 * time.Second}, {1, 15 * time.Second}, {0.1, 100 * time.Millisecond}, {0.25, 10 * time.Second}} {
			f.load = step.load
			f.advance(step.d)
			s.Read(dst)
			want += fakeTDP * fraction(step.load) * step.d.Seconds()
			if math.Abs(cpu.Utilization-step.load) > 0.02 || math.Abs(float64(cpu.Power)-fakeTDP*fraction(step.load)) > 2 {
				t.Errorf("load %v: %v, %v", step.load, cpu.Utilization, cpu.Power)
			}
			if e := float64(cpu.Energy.Joules()); math.Abs(e-want) > 0.001*want {
				t.Errorf("%v J, want %v", e, want)
			}
		}
		if e := float64(memory.Energy.Joules()); math.Abs(e-19.2*31.101) > 1e-3 {
			t.Errorf("memory: %v J", e)
		}
		if cpu.Observed != 31101*time.Millisecond || cpu.Estimated != 0 {
			t.Errorf("%+v", cpu.Tally)
		}

		// Two reads within a tick: the load holds.
		time.Sleep(time.Millisecond)
		before := cpu.Energy
		s.Read(dst)
		if math.Abs(cpu.Utilization-0.25) > 0.02 || cpu.Energy <= before {
			t.Errorf("within a tick: %+v", *cpu)
		}
	})
}

// A failing read costs the processor only, and what it missed comes with the
// next one.
func TestReadError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		s := f.open(t)
		defer s.Close()
		dst := make([]sensors.Reading, 2)
		s.Read(dst)
		f.advance(time.Second)
		s.Read(dst)
		before := dst[0].Energy

		write(t, f.roots.Proc, "stat", "nonsense\n")
		time.Sleep(time.Second)
		s.Read(dst)
		if !errors.Is(dst[0].Err, sensors.ErrTransient) || dst[0].Energy != before || dst[1].Err != nil || dst[1].Observed != 2*time.Second {
			t.Errorf("%+v", dst)
		}
		f.busy, f.total = f.busy+400, f.total+800
		f.advance(time.Second)
		s.Read(dst)
		want := fakeTDP * 0.75 * 3
		if dst[0].Err != nil || math.Abs(float64(dst[0].Energy.Joules())-want) > 1e-3 || dst[0].Observed != 3*time.Second {
			t.Errorf("%+v", dst[0])
		}
	})
}

// Past the longest gap the integrator draws no line; the longest interval asked
// for leaves room for a late read.
func TestTiming(t *testing.T) {
	if timing := (&sensor{}).Timing(); timing.MaxInterval > sensors.MaxGap/2 || timing.MayBlock {
		t.Errorf("%+v", timing)
	}
}

func TestOpenPartly(t *testing.T) {
	f := newFake(t)
	if err := os.Remove(filepath.Join(f.roots.Proc, "stat")); err != nil {
		t.Fatal(err)
	}
	s, omitted := Open(t.Context(), f.roots)
	if s == nil || len(s.Devices()) != 1 || s.Devices()[0].ID != "memory" ||
		len(omitted) != 1 || omitted[0].Component != sensors.CPU || omitted[0].Status != sensors.Unreadable || omitted[0].Remedy == "" {
		t.Errorf("%v, omitted %+v", s, omitted)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	s, omitted = Open(t.Context(), sensors.Roots{Proc: t.TempDir(), Sys: t.TempDir()})
	if s != nil || len(omitted) != 2 {
		t.Errorf("%v, omitted %+v", s, omitted)
	}
}

// A better source replaces the models, component by component.
func TestSuperseded(t *testing.T) {
	if !slices.Contains(sensors.Registered(), "host") {
		t.Error("not registered")
	}
	f := newFake(t)
	set, err := sensors.Detect(t.Context(), sensors.WithProcRoot(f.roots.Proc), sensors.WithSysRoot(f.roots.Sys),
		sensors.WithBackends(sensors.Backend{Name: "host", Open: Open}))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	for _, d := range set.Devices() {
		if !d.Whole || d.Method.Measured() {
			t.Errorf("%+v would not give way", d)
		}
	}
	if missing := set.Missing(); slices.ContainsFunc(missing, func(o sensors.Omission) bool { return o.Component != sensors.GPU }) {
		t.Errorf("missing %+v", missing)
	}
}

// What this very machine is, for people who look: go test -v -run ThisMachine.
func TestThisMachine(t *testing.T) {
	t.Logf("%+v", Describe(t.Context(), realRoots))
	s, omitted := Open(t.Context(), realRoots)
	if s == nil {
		t.Skipf("no model here: %+v", omitted)
	}
	defer s.Close()
	dst := make([]sensors.Reading, len(s.Devices()))
	s.Read(dst)
	spin(100 * time.Millisecond)
	s.Read(dst)
	for i, d := range s.Devices() {
		t.Logf("%s: %v, load %.2f, ±%.0f %%, %s, %s", d.ID, dst[i].Power, dst[i].Utilization, d.ErrorBand*100, d.Scope, d.Note)
		if dst[i].Err != nil || dst[i].Energy == 0 {
			t.Errorf("%s: %+v", d.ID, dst[i])
		}
	}
	if n := testing.AllocsPerRun(100, func() { s.Read(dst) }); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

func BenchmarkRead(b *testing.B) {
	s, _ := Open(b.Context(), realRoots)
	if s == nil {
		b.Skip("no model here")
	}
	defer s.Close()
	dst := make([]sensors.Reading, len(s.Devices()))
	b.ReportAllocs()
	for b.Loop() {
		s.Read(dst)
	}
}

func BenchmarkOpen(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		s, _ := Open(b.Context(), realRoots)
		if s == nil {
			b.Skip("no model here")
		}
		_ = s.Close()
	}
}
