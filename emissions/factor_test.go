package emissions

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

// The report's contract: factors: {intensity, pue: {value, unit, zone, kind,
// source, year}}. The keys are there even where they have nothing to say.
func TestFactorJSON(t *testing.T) {
	declared, err := DeclaredPUE(1.2)
	if err != nil {
		t.Fatal(err)
	}
	model, err := NewModel(Location{Country: "FR"}, Server, declared)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(model)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"intensity", "pue"} {
		for _, key := range []string{"value", "unit", "zone", "kind", "source", "year", "band"} {
			if _, ok := got[role][key]; !ok {
				t.Errorf("%s has no %q: %s", role, key, b)
			}
		}
	}
	for key, want := range map[string]any{
		"value": 44.18, "unit": "g/kWh", "zone": "FR", "kind": "lifecycle_average",
		"source": "ember-yearly-2025", "year": 2024.0, "publisher": "Ember", "verified": "relay", "band": 0.25,
	} {
		if got["intensity"][key] != want {
			t.Errorf("intensity %s = %v, want %v", key, got["intensity"][key], want)
		}
	}
	if _, ok := got["pue"]["note"]; ok {
		t.Errorf("an empty note is written: %s", b)
	}
	var back Model
	if err := json.Unmarshal(b, &back); err != nil || back != model {
		t.Errorf("read back as %+v, %v", back, err)
	}
}

func TestFactorString(t *testing.T) {
	fleet, err := SitePUE(Location{Provider: "gcp"}, Server)
	if err != nil {
		t.Fatal(err)
	}
	own, err := DeclaredIntensity(12.5)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		factor Factor
		want   string
	}{
		{fleet, "1.09 gcp 2024, fleet, Google: Data centre efficiency page, campus PUE 2024 [not verified]"},
		{own, "12.5 g/kWh, declared, user"},
		{noFacility(Laptop), "1 laptop, none, definition"},
	} {
		if got := c.factor.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestSameKind(t *testing.T) {
	direct := Factor{Unit: UnitIntensity, Zone: "US-CA", Kind: DirectAverage}
	lifecycle := Factor{Unit: UnitIntensity, Zone: "FR", Kind: LifecycleAverage}
	if kind, err := SameKind(direct, direct); kind != DirectAverage || err != nil {
		t.Errorf("alike: %v, %v", kind, err)
	}
	if kind, err := SameKind(); kind != "" || err != nil {
		t.Errorf("none: %v, %v", kind, err)
	}
	_, err := SameKind(lifecycle, lifecycle, direct)
	if !errors.Is(err, ErrMixedKinds) || !strings.Contains(err.Error(), "US-CA") {
		t.Errorf("mixed: %v", err)
	}
	if _, err := SameKind(Factor{Unit: UnitPUE, Kind: Declared}, Factor{Unit: UnitIntensity, Kind: Declared}); !errors.Is(err, ErrMixedKinds) {
		t.Errorf("an intensity with a PUE: %v", err)
	}
}

func TestDeclaredValues(t *testing.T) {
	pue := func(v float64) (Factor, error) { return DeclaredPUE(v) }
	intensity := func(v float64) (Factor, error) { return DeclaredIntensity(v) }
	for _, c := range []struct {
		name   string
		parse  func(float64) (Factor, error)
		value  float64
		refuse string // a part of the message; empty if it is accepted
	}{
		{"PUE", pue, 1, ""},
		{"PUE", pue, 1.58, ""},
		{"PUE", pue, 5, ""},
		{"PUE", pue, 0.99, "below 1"},
		{"PUE", pue, 0, "below 1"},
		{"PUE", pue, -1.2, "below 1"},
		{"PUE", pue, 115, "ratio"},
		{"PUE", pue, math.NaN(), "number"},
		{"PUE", pue, math.Inf(1), "number"},
		{"intensity", intensity, 0, ""},
		{"intensity", intensity, 57, ""},
		{"intensity", intensity, 3000, ""},
		{"intensity", intensity, -1, "from 0"},
		{"intensity", intensity, 429_000, "grams"},
		{"intensity", intensity, math.NaN(), "number"},
		{"intensity", intensity, math.Inf(-1), "number"},
	} {
		f, err := c.parse(c.value)
		switch {
		case c.refuse == "":
			if err != nil || f.Value != c.value || f.Kind != Declared || f.Source != "user" || f.Band != 0 || f.Note != "" {
				t.Errorf("%s %v: %+v, %v", c.name, c.value, f, err)
			}
		case !errors.Is(err, ErrImplausible) || !strings.Contains(err.Error(), c.refuse) || f != (Factor{}):
			t.Errorf("%s %v: %+v, %v", c.name, c.value, f, err)
		}
	}
	if f, err := DeclaredIntensity(0.429); err != nil || !strings.Contains(f.Note, "kg/kWh") {
		t.Errorf("0.429 is most likely in kg: %+v, %v", f, err)
	}
}
