package node

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b), 1e-9) }

func TestModel(t *testing.T) {
	p := Profile{Base: 45, Efficiency: 0.9}
	for _, test := range []struct{ sensed, want sensors.Watts }{{0, 50}, {45, 100}, {450, 550}} {
		if got := p.Power(test.sensed); !near(float64(got), float64(test.want)) {
			t.Errorf("%v sensed: %v at the plug, want %v", test.sensed, got, test.want)
		}
	}
	if got := p.Energy(3600*45, time.Hour); !near(float64(got), 360000) {
		t.Errorf("45 W for an hour: %v J, want 100 W", float64(got))
	}
}

// What is not known stays so, and is not the base alone.
func TestUnknown(t *testing.T) {
	if got := profiles[1].Power(sensors.Watts(math.NaN())); !math.IsNaN(float64(got)) {
		t.Errorf("of an unknown power: %v", got)
	}
	var none Profile
	if w, e := none.Power(100), none.Energy(100, time.Second); !math.IsNaN(float64(w)) || !math.IsNaN(float64(e)) {
		t.Errorf("of no profile: %v, %v", w, e)
	}
}

// The laws of the model, for each profile and any load: an energy is the power
// times the time, windows add up, more is never less, and the plug never less than
// the sensors.
func TestModelLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range Profiles() {
		for range 1000 {
			w := sensors.Watts(r.Float64() * 10e3)
			a, b := time.Duration(r.Int64N(int64(time.Hour))), time.Duration(r.Int64N(int64(time.Hour)))
			joules := func(d time.Duration) sensors.Joules { return sensors.Joules(float64(w) * d.Seconds()) }
			if e := float64(p.Energy(joules(a), a)); !near(e, float64(p.Power(w))*a.Seconds()) {
				t.Fatalf("%s: %v for %v is %v J", p.Name, w, a, e)
			}
			parts, whole := p.Energy(joules(a), a)+p.Energy(joules(b), b), p.Energy(joules(a)+joules(b), a+b)
			if !near(float64(parts), float64(whole)) {
				t.Fatalf("%s: %v and %v are %v in parts and %v together", p.Name, a, b, parts, whole)
			}
			if p.Power(w) <= w || p.Power(w+1) <= p.Power(w) || p.Energy(joules(a), a+1e6) <= p.Energy(joules(a), a) {
				t.Fatalf("%s is not monotone at %v", p.Name, w)
			}
		}
	}
}

func TestRel(t *testing.T) {
	p := Profile{Base: 45, Efficiency: 0.9, BaseBand: 0.4, EfficiencyBand: 0.04}
	// 450 W sensed for 100 s: 55 kJ at the plug.
	for _, test := range []struct {
		name             string
		base, efficiency float64
		sensed           float64
		want             float64
	}{
		{"of what was sensed alone", 0, 0, 0.05, 0.05 * 45e3 / 0.9 / 55e3},
		{"of the base alone", 0.4, 0, 0, 0.4 * 4500 / 0.9 / 55e3},
		{"of the efficiency alone", 0, 0.04, 0, 0.04},
		{"of all, in quadrature", 0.4, 0.04, 0.05, math.Sqrt(2500*2500+2000*2000+2200*2200) / 55e3},
	} {
		p.BaseBand, p.EfficiencyBand = test.base, test.efficiency
		if got := p.Rel(45e3, test.sensed, 100*time.Second); !near(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if got := (Profile{Efficiency: 1, EfficiencyBand: 1}).Rel(0, 1, time.Second); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// Rel is the error that the model really has where its parameters are off by
// their bands.
func TestRelIsTheErrorOfTheModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	p := Profile{Base: 45, Efficiency: 0.9, BaseBand: 0.2, EfficiencyBand: 0.03}
	const sensed, relSensed, d = 20e3, 0.04, 100 * time.Second
	var sum float64
	const n = 20000
	for range n {
		other := p
		other.Base *= sensors.Watts(1 + p.BaseBand*r.NormFloat64())
		other.Efficiency *= 1 + p.EfficiencyBand*r.NormFloat64()
		off := float64(other.Energy(sensors.Joules(sensed*(1+relSensed*r.NormFloat64())), d)/p.Energy(sensed, d)) - 1
		sum += off * off
	}
	got, want := p.Rel(sensed, relSensed, d), math.Sqrt(sum/n)
	if math.Abs(got/want-1) > 0.03 {
		t.Errorf("%v, but the model is off by %v", got, want)
	}
}

func TestProfiles(t *testing.T) {
	for _, p := range Profiles() {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.Sensed == "" || p.Source == "" || !strings.Contains(p.Note, "judgement") || p.BaseBand == 0 || p.EfficiencyBand == 0 {
			t.Errorf("%s does not say where it is from: %+v", p.Name, p)
		}
		for _, name := range []string{p.Name, strings.ToUpper(p.Name)} {
			if got, err := Named(name); err != nil || got != p {
				t.Errorf("Named(%q): %v, %v", name, got, err)
			}
		}
	}
	if p, err := Named(Desktop); err != nil || p.Base != 45 || p.Efficiency != 0.90 {
		t.Errorf("the published fit is 45 W and 0.90, not %v and %v", p.Base, p.Efficiency)
	}
	Profiles()[0].Base = 1e6
	if Profiles()[0].Base == 1e6 {
		t.Error("the profiles can be changed by their users")
	}
}

// The GPU server is what its source derives: 8.4 kW at the peak of an 8×H100 node,
// with 72 to 77 % of it sensed, and 23 to 28 % unseen.
func TestGPUServerDerivation(t *testing.T) {
	p, err := Named(GPUServer)
	if err != nil {
		t.Fatal(err)
	}
	const peak = 8400
	least, most := float64(p.Power(0.72*peak)), float64(p.Power(0.77*peak))
	if least > peak || most < peak {
		t.Errorf("the peak of %v W is outside %v to %v", peak, least, most)
	}
	middle := 0.745 * peak
	if unseen := 1 - middle/float64(p.Power(sensors.Watts(middle))); unseen < 0.23 || unseen > 0.28 {
		t.Errorf("%v of it is unseen", unseen)
	}
}

func TestNamedSuggests(t *testing.T) {
	for given, want := range map[string]string{
		"desctop": "did you mean desktop?", "gpuserver": "did you mean gpu-server?", "labtop": "did you mean laptop?",
		"serv": "did you mean server?", "GPU": "did you mean gpu-server?", "Sever": "did you mean server?",
		"mainframe": "", "": "", "x": "", "la": "", strings.Repeat("desktop", 1000): "",
	} {
		_, err := Named(given)
		if !errors.Is(err, ErrUnknownProfile) {
			t.Fatalf("%q: %v", given, err)
		}
		for _, p := range profiles {
			if !strings.Contains(err.Error(), p.Name) {
				t.Errorf("%q: %v does not list %s", given, err, p.Name)
			}
		}
		if !strings.HasSuffix(err.Error(), want) || want == "" && strings.Contains(err.Error(), "mean") || len(err.Error()) > 200 {
			t.Errorf("%q: %v, want %q", given, err, want)
		}
	}
}

func TestFor(t *testing.T) {
	for _, test := range []struct {
		name    string
		machine host.Machine
		gpus    int
		want    string
		base    sensors.Watts
		reason  string
	}{
		{"a laptop", host.Machine{Kind: host.Laptop}, 1, Laptop, 6, "laptop"},
		{"a desktop", host.Machine{Kind: host.Desktop}, 1, Desktop, 45, "desktop"},
		{"a desktop without GPUs", host.Machine{Kind: host.Desktop}, 0, Desktop, 45, "desktop"},
		{"a workstation", host.Machine{Kind: host.Desktop}, 4, Desktop, 45, "with 4 GPUs, where the profile was fitted with one"},
		{"a server", host.Machine{Kind: host.Server}, 0, Server, 60, "fewer than 4 GPUs"},
		{"a server with 3 GPUs", host.Machine{Kind: host.Server}, 3, Server, 60, "fewer than 4 GPUs"},
		{"a server with 4 GPUs", host.Machine{Kind: host.Server}, 4, GPUServer, 400, "for 8, is scaled"},
		{"a server with 8 GPUs", host.Machine{Kind: host.Server}, 8, GPUServer, 800, "with 8 GPUs"},
		{"a server with 16 GPUs", host.Machine{Kind: host.Server}, 16, GPUServer, 1600, "scaled"},
		{"a virtual machine", host.Machine{Kind: host.VirtualMachine, Hypervisor: "kvm"}, 8, "", 0, "virtual machine"},
		{"a guest that looks like a desktop", host.Machine{Kind: host.Desktop, Hypervisor: "kvm"}, 1, "", 0, "virtual machine"},
		{"a machine that does not tell", host.Machine{}, 1, "", 0, "calibrate"},
		{"a kind that is new", host.Machine{Kind: "toaster"}, 1, "", 0, "does not tell"},
	} {
		p, reason, ok := For(test.machine, test.gpus)
		if ok != (test.want != "") || p.Name != test.want || p.Base != test.base || !strings.Contains(reason, test.reason) {
			t.Errorf("%s: %s %v, %q, %v; want %s %v, %q", test.name, p.Name, p.Base, reason, ok, test.want, test.base, test.reason)
		}
		// Nothing is scaled silently.
		if listed, err := Named(test.want); err == nil && listed.Base != p.Base &&
			(p.BaseBand <= listed.BaseBand || !strings.Contains(p.Note, "guess") || !strings.Contains(reason, "scaled")) {
			t.Errorf("%s: scaled silently: %+v, %q", test.name, p, reason)
		}
	}
}

func TestProfileJSON(t *testing.T) {
	data, err := json.Marshal(profiles[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"desktop"`, `"base_w":45`, `"efficiency":0.9`, `"base_band":0.4`, `"efficiency_band":0.04`, `"source":`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s has no %s", data, want)
		}
	}
}

func TestValidate(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, p := range []Profile{
		{}, {Efficiency: 0.49}, {Efficiency: 1.01}, {Efficiency: nan}, {Efficiency: 1, Base: -1},
		{Efficiency: 1, Base: sensors.Watts(nan)}, {Efficiency: 1, Base: sensors.Watts(inf)},
		{Efficiency: 1, BaseBand: -1}, {Efficiency: 1, EfficiencyBand: inf}, {Efficiency: 1, BaseBand: nan},
	} {
		if p.Validate() == nil {
			t.Errorf("%+v is valid", p)
		}
	}
	for _, p := range []Profile{{Efficiency: 0.5}, {Efficiency: 1, Base: 1, BaseBand: 1}} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
