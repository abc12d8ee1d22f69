package host

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func TestCurve(t *testing.T) {
	for _, test := range []struct{ load, want float64 }{
		{0, 0.12}, {0.05, 0.22}, {0.10, 0.32}, {0.30, 0.535}, {0.50, 0.75}, {0.75, 0.885}, {1, 1.02},
		{-1, 0.12}, {1.7, 1.02}, // alumet, ceems: CPU percentages above 100
	} {
		if got := fraction(test.load); math.Abs(got-test.want) > 1e-12 {
			t.Errorf("fraction(%v) = %v, want %v", test.load, got, test.want)
		}
	}
	last := 0.0
	for load := 0.0; load <= 1; load += 0.001 {
		if f := fraction(load); f < last || f > 1.02 {
			t.Fatalf("fraction(%v) = %v after %v", load, f, last)
		} else {
			last = f
		}
	}
}

// The figure in the package's caveats: what a load that jumps between idle and
// full draws less than the model says at its mean.
func TestCurveIsConcave(t *testing.T) {
	worst := 0.0
	for load := 0.0; load <= 1; load += 0.001 {
		chord := fraction(0) + (fraction(1)-fraction(0))*load
		if d := fraction(load) - chord; d < -1e-12 {
			t.Fatalf("convex at %v", load)
		} else {
			worst = max(worst, d)
		}
	}
	if math.Abs(worst-0.18) > 0.001 {
		t.Errorf("the caveat is %.3f of the TDP", worst)
	}
}

func TestRate(t *testing.T) {
	for _, test := range []struct {
		name  string
		m     Machine
		watts sensors.Watts // 0: not checked
		band  float64
		note  string
	}{
		{
			"known", Machine{Model: "AMD EPYC 7763 64-Core Processor", Vendor: "AMD", Sockets: 1, Cores: 64, Threads: 128},
			280, 0.35, "model: TDP 280 W of AMD EPYC 7763 × load",
		},
		{
			"two sockets", Machine{Model: "AMD EPYC 7763 64-Core Processor", Vendor: "AMD", Sockets: 2, Cores: 128, Threads: 256},
			560, 0.35, "model: TDP 280 W of AMD EPYC 7763 × 2 sockets × load",
		},
		{
			"two vCPUs are not charged the host", Machine{Hypervisor: "kvm", Model: "AMD EPYC 7713 64-Core Processor", Vendor: "AMD", Sockets: 2, Cores: 2, Threads: 2},
			225.0 * 2 / 128, 0.40, "model: TDP 225 W of AMD EPYC 7713 × 2 of 128 threads × load",
		},
		{
			"guest across two sockets", Machine{Hypervisor: "kvm", Model: "AMD EPYC 7763 64-Core Processor", Vendor: "AMD", Sockets: 2, Cores: 120, Threads: 240},
			525, 0.40, "model: TDP 280 W of AMD EPYC 7763 × 240 threads at 128 per socket × load",
		},
		{
			"hidden host", Machine{Hypervisor: "kvm", Model: "AMD EPYC", Vendor: "AMD", Family: 25, ModelNumber: 1, Sockets: 1, Cores: 2, Threads: 2},
			300.0 / 64, 0.54, "model: 4.69 W per core, the median of AMD EPYC 7003, × 2 of the host's threads at 2 per core × load",
		},
		{
			"cloud-only model, whole machine", Machine{Model: "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", Vendor: "Intel", Family: 6, ModelNumber: 143, Sockets: 2, Cores: 112, Threads: 224},
			225.0 / 32 * 112, 0.50, "model: 7.03 W per core, the median of Intel Xeon Scalable, 4th generation, × 112 cores × load",
		},
		{
			"unlisted hybrid", Machine{Model: "12th Gen Intel(R) Core(TM) i9-12900K", Vendor: "Intel", Family: 6, ModelNumber: 151, Sockets: 1, Cores: 16, Threads: 24},
			0, 0.50, "the median of Intel Core i9, × 16 cores",
		},
		{
			// CodeCarbon: 85 W, silently.
			"unknown is said", Machine{Model: "Vortex86 SoC", Sockets: 1, Cores: 2, Threads: 2},
			0, 0.70, "the median of all processors since 2017, as the model is unknown (Vortex86 SoC), × 2 cores × load",
		},
		{
			"QEMU", Machine{Hypervisor: "kvm", Model: "QEMU Virtual CPU version 2.5+", Vendor: "AMD", Family: 15, ModelNumber: 107, Sockets: 4, Cores: 4, Threads: 4},
			0, 0.73, "as the model is unknown (QEMU Virtual version 2.5+), × 4 of the host's threads at 2 per core",
		},
		{
			"Graviton has a core per vCPU", Machine{Hypervisor: "kvm", Model: "Neoverse-N1", Vendor: "Arm", arm: true, Threads: 64},
			210.0 / 80 * 64, 0.54, "model: 2.62 W per core, the median of Arm servers, × 64 of the host's threads at 1 per core × load",
		},
		{
			"nothing", Machine{}, 0, 0.70, "× 1 cores",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := rate(test.m)
			if test.watts != 0 && math.Abs(float64(r.watts/test.watts-1)) > 1e-9 || !(r.watts > 0) {
				t.Errorf("%v, want %v", r.watts, test.watts)
			}
			if r.band != test.band {
				t.Errorf("band %v, want %v", r.band, test.band)
			}
			if !strings.Contains(r.note, test.note) {
				t.Errorf("note %q, want %q", r.note, test.note)
			}
		})
	}
}

// At a constant load, the energy does not depend on how often it is read; at any
// load, it grows by no less than idle power and by no more than full.
func TestEnergyIsIndependentOfRate(t *testing.T) {
	const seconds = 600
	energy := func(every time.Duration) sensors.Joules {
		m := newMeter()
		at := time.Unix(0, 0)
		m.tally(at, sensors.Watts(math.NaN()))
		for passed := time.Duration(0); passed < seconds*time.Second; passed += every {
			at = at.Add(every)
			m.tally(at, 200*sensors.Watts(fraction(0.3)))
		}
		return m.last().Energy.Joules()
	}
	want := sensors.Joules(200 * 0.535 * seconds)
	for _, every := range []time.Duration{10 * time.Millisecond, time.Second, 15 * time.Second, 30 * time.Second} {
		if got := energy(every); math.Abs(float64(got-want)) > 1e-5 {
			t.Errorf("read every %v: %v, want %v", every, float64(got), float64(want))
		}
	}

	r := rand.New(rand.NewPCG(1, 2))
	m := newMeter()
	at := time.Unix(0, 0)
	m.tally(at, sensors.Watts(math.NaN()))
	for range 1000 {
		before := m.last()
		dt := time.Duration(r.Int64N(int64(sensors.MaxGap)))
		at = at.Add(dt)
		after := m.tally(at, 200*sensors.Watts(fraction(r.Float64()*2-0.5)))
		e := float64(after.Energy-before.Energy) / 1e6
		if low, high := 200*0.12*dt.Seconds(), 200*1.02*dt.Seconds(); e < low-2e-6 || e > high+2e-6 {
			t.Fatalf("%v J in %v, want %v to %v", e, dt, low, high)
		}
	}
}
