package emissions

import (
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// declaredModel is a model of two stated values.
func declaredModel(t testing.TB, pue, intensity float64) Model {
	p, err := DeclaredPUE(pue)
	if err != nil {
		t.Fatal(err)
	}
	i, err := DeclaredIntensity(intensity)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewModel(Location{}, UnknownSite, p, i)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m Model) hour(e sensors.Joules, rel float64) Footprint {
	return m.Apply(t0, t0.Add(time.Hour), e, rel)
}

func TestApply(t *testing.T) {
	m := declaredModel(t, 1.2, 57)
	m.PUE.Band, m.Intensity.Band = 0.15, 0.25
	f := m.hour(10*sensors.JoulesPerKWh, 0.05)
	if f.Facility != 12*sensors.JoulesPerKWh {
		t.Errorf("facility %v: PUE applies once", f.Facility)
	}
	if !near(float64(f.Operational), 684) {
		t.Errorf("operational %v, want 684 g", f.Operational)
	}
	if !near(f.FacilityRel, math.Sqrt(0.025)) || !near(f.Rel, math.Sqrt(0.0875)) {
		t.Errorf("errors %v, %v", f.FacilityRel, f.Rel)
	}
	low, high := f.Bounds()
	if wantLow, wantHigh := Bounds(GramsCO2e(684), f.Rel); !near(float64(low), float64(wantLow)) || !near(float64(high), float64(wantHigh)) {
		t.Errorf("bounds %v, %v", low, high)
	}
}

// A model that nobody has filled in must not look like a clean grid.
func TestApplyWithoutFactors(t *testing.T) {
	whole := declaredModel(t, 1.2, 57)
	for _, m := range []Model{{}, {PUE: whole.PUE}, {Intensity: whole.Intensity}, {PUE: whole.Intensity, Intensity: whole.PUE}} {
		if f := m.hour(1000, 0); !math.IsNaN(float64(f.Operational)) || f.Operational.String() != "unknown" {
			t.Errorf("%+v: %v", m, f)
		}
	}
	if f := declaredModel(t, 1, 0).hour(1000, 0); f.Operational != 0 {
		t.Errorf("an intensity of zero is a value: %v", f)
	}
}

func TestApplyProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 5000 {
		m := declaredModel(t, 1+r.Float64()*2, r.Float64()*1000)
		m.PUE.Band, m.Intensity.Band = r.Float64()*0.3, r.Float64()
		e, rel := sensors.Joules(r.ExpFloat64()*1e9), r.Float64()*0.5
		whole := m.hour(e, rel)

		low, high := whole.Bounds()
		if !(0 <= low && low <= whole.Operational && whole.Operational <= high) {
			t.Fatalf("%v is not within %v and %v", float64(whole.Operational), float64(low), float64(high))
		}
		if zero := m.hour(0, rel); zero.Operational != 0 || zero.Facility != 0 {
			t.Fatalf("nothing emits %v", zero)
		}
		if more := m.hour(e*1.01+1, rel); !(more.Operational > whole.Operational) {
			t.Fatalf("more energy emits %v instead of %v", more.Operational, whole.Operational)
		}
		// Windows add up, however many there are, in value and in band.
		var sum Footprint
		left := e
		for i := range 20 {
			part := left
			if i < 19 {
				part = left * sensors.Joules(r.Float64())
			}
			left -= part
			sum = sum.Plus(m.hour(part, rel))
		}
		for _, c := range [][2]float64{
			{float64(sum.Facility), float64(whole.Facility)}, {float64(sum.Operational), float64(whole.Operational)},
			{sum.FacilityRel, whole.FacilityRel}, {sum.Rel, whole.Rel},
		} {
			if math.Abs(c[0]-c[1]) > 1e-9*math.Abs(c[1]) {
				t.Fatalf("split: %+v\nwhole: %+v", sum, whole)
			}
		}
	}
}

// Plus weighs errors with what they apply to, in either order.
func TestFootprintPlus(t *testing.T) {
	a := Footprint{Facility: 300, Operational: 100, FacilityRel: 0.1, Rel: 0.2}
	b := Footprint{Facility: 100, Operational: 300, FacilityRel: 0.3, Rel: 0.4}
	want := Footprint{Facility: 400, Operational: 400, FacilityRel: 0.15, Rel: 0.35}
	for _, got := range []Footprint{a.Plus(b), b.Plus(a)} {
		if got.Facility != want.Facility || got.Operational != want.Operational || !near(got.FacilityRel, want.FacilityRel) || !near(got.Rel, want.Rel) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if got := a.Plus(Footprint{}); got != a {
		t.Errorf("with nothing: %+v", got)
	}
	if got := (Footprint{Rel: math.NaN()}).Plus(a); got != a {
		t.Errorf("with nothing of an unknown error: %+v", got)
	}
}

func TestNewModelDeclared(t *testing.T) {
	pue, _ := DeclaredPUE(1.3)
	intensity, _ := DeclaredIntensity(100)
	m, err := NewModel(Location{Country: "FR"}, Server, pue)
	if err != nil || m.PUE != pue || m.Intensity.Value != 44.18 {
		t.Errorf("declared PUE: %+v, %v", m, err)
	}
	m, err = NewModel(Location{Country: "FR"}, Server, intensity)
	if err != nil || m.Intensity != intensity || m.PUE.Kind != IndustryAveragePUE {
		t.Errorf("declared intensity: %+v, %v", m, err)
	}
	for _, bad := range [][]Factor{{pue, pue}, {intensity, intensity}, {{Value: 1, Unit: "kg/kWh"}}, {{}}} {
		if m, err := NewModel(Location{}, Server, bad...); err == nil {
			t.Errorf("%v is accepted: %+v", bad, m)
		}
	}
	if _, err := NewModel(Location{Country: "Atlantis"}, Server); err == nil {
		t.Error("a country that is none is accepted")
	}
}

// The cases that the methodology promises to reproduce.
func TestPublishedCases(t *testing.T) {
	f, err := os.Open("testdata/published_cases.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cases := 0
	err = readTable(f, []string{"case", "energy_mwh", "pue", "g_per_kwh", "published_t", "tolerance", "source", "note"}, func(r *record) {
		name := r.required("case")
		m := declaredModel(t, r.number("pue", 1, 2), r.number("g_per_kwh", 1, 1000))
		energy := sensors.Joules(r.number("energy_mwh", 1, 1e6) * 1000 * sensors.JoulesPerKWh)
		got := float64(m.hour(energy, 0).Operational) / 1e6
		want, tolerance := r.number("published_t", 1, 1e6), r.number("tolerance", 0, 0.01)
		if math.Abs(got-want) > tolerance*want {
			t.Errorf("%s: %.2f t, published %v t", name, got, want)
		}
		cases++
	})
	if err != nil || cases != 11 {
		t.Errorf("%d cases, %v", cases, err)
	}
	// The trap of GPT-3: 1287 MWh contains the PUE, and applying it again
	// gives 607 t.
	if twice := declaredModel(t, 1.1, 429).hour(1287e3*sensors.JoulesPerKWh, 0).Operational; twice.String() != "607 t CO2e" {
		t.Errorf("PUE twice gives %v", twice)
	}
}

func TestGramsString(t *testing.T) {
	for _, c := range []struct {
		g    GramsCO2e
		want string
	}{
		{0, "0 g CO2e"},
		{0.0123, "12.3 mg CO2e"},
		{9.994, "9.99 g CO2e"},
		{684, "684 g CO2e"},
		{999.9, "1.00 kg CO2e"},
		{29_617.2, "29.6 kg CO2e"},
		{999_499, "999 kg CO2e"},
		{999_501, "1.00 t CO2e"},
		{552_123_000, "552 t CO2e"},
		{9_867_000_000, "9.87 kt CO2e"},
		{-1_500_000, "-1.50 t CO2e"},
		{GramsCO2e(math.NaN()), "unknown"},
	} {
		if got := c.g.String(); got != c.want {
			t.Errorf("%s: %q, want %q", strconv.FormatFloat(float64(c.g), 'g', -1, 64), got, c.want)
		}
	}
}

var sink Footprint

// One window costs no allocation: windows come once a second for weeks.
func TestApplyAllocates(t *testing.T) {
	m := declaredModel(t, 1.2, 57)
	if n := testing.AllocsPerRun(1000, func() {
		sink = sink.Plus(m.hour(1234, 0.05))
		_, high := sink.Bounds()
		_ = high
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkApply(b *testing.B) {
	m := declaredModel(b, 1.2, 57)
	b.ReportAllocs()
	for b.Loop() {
		sink = m.hour(1234, 0.05)
	}
}
