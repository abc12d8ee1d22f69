package emissions

import (
	"errors"
	"strings"
	"testing"
)

func TestGridIntensity(t *testing.T) {
	for _, c := range []struct {
		name  string
		loc   Location
		value float64
		zone  string
		kind  Kind
		band  float64
		notes []string
	}{
		{"nothing known", Location{}, 472.94, "world", LifecycleAverage, worldBand, []string{"place unknown"}},
		{"provider without region", Location{Provider: "aws"}, 472.94, "world", LifecycleAverage, worldBand, []string{"region of aws unknown"}},
		{"country: life cycle before direct", Location{Country: "FR"}, 44.18, "FR", LifecycleAverage, yearlyBand, []string{"direct average of the same zone: 50 g/kWh"}},
		{"country guessed", Location{Country: "FR", Guess: true}, 44.18, "FR", LifecycleAverage, guessBand, []string{"guessed from the time zone"}},
		{"subdivision: direct only", Location{Country: "US", Subdivision: "US-CA"}, 179.1, "US-CA", DirectAverage, yearlyBand,
			[]string{"not a life-cycle figure", "life-cycle average of US: 384 g/kWh", "not consumption"}},
		{"subdivision: both", Location{Country: "CA", Subdivision: "CA-QC"}, 27.95, "CA-QC", LifecycleAverage, 0.5,
			[]string{"direct average of the same zone: 1.9 g/kWh", "imports ignored"}},
		{"bidding zone: national figure", Location{Country: "SE", Subdivision: "BZ-SE3"}, 35.89, "BZ-SE3", LifecycleAverage, 0.5, []string{"national figure"}},
		{"region: the provider's own", Location{Provider: "gcp", Region: "europe-west9"}, 16.3, "gcp/europe-west9", HourlyAverage, yearlyBand,
			[]string{"not a life-cycle figure", "life-cycle average of FR: 44.2 g/kWh"}},
		{"region: its country's", Location{Provider: "aws", Region: "eu-west-3"}, 44.18, "FR", LifecycleAverage, yearlyBand, []string{"grid of aws/eu-west-3"}},
		{"region: its subdivision's", Location{Provider: "aws", Region: "us-east-1"}, 244.8, "US-VA", DirectAverage, yearlyBand, []string{"grid of aws/us-east-1"}},
		// The same grid gives the same figure, asked for by region or by
		// subdivision.
		{"region: as its subdivision", Location{Provider: "aws", Region: "ca-central-1"}, 27.95, "CA-QC", LifecycleAverage, 0.5, nil},
		{"region and eGRID subregion", Location{Provider: "aws", Region: "us-east-1", Subdivision: "SRVC"}, 284.02, "eGRID-SRVC", DirectAverage, yearlyBand, nil},
	} {
		f, err := GridIntensity(c.loc)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.Value != c.value || f.Zone != c.zone || f.Kind != c.kind || f.Band != c.band || f.Unit != UnitIntensity {
			t.Errorf("%s: %v ± %v", c.name, f, f.Band)
		}
		for _, n := range c.notes {
			if !strings.Contains(f.Note, n) {
				t.Errorf("%s: note %q lacks %q", c.name, f.Note, n)
			}
		}
		if f.Kind == LifecycleAverage && strings.Contains(f.Note, "not a life-cycle") {
			t.Errorf("%s: note %q", c.name, f.Note)
		}
	}
	if f, err := GridIntensity(Location{Country: "Atlantis"}); !errors.Is(err, ErrUnknownCountry) {
		t.Errorf("a country that is none gives %v, %v", f, err)
	}
}

// Every place that is offered has factors, and says where they come from.
func TestEveryPlaceHasFactors(t *testing.T) {
	places, err := Places()
	if err != nil {
		t.Fatal(err)
	}
	for _, loc := range places {
		m, err := NewModel(loc, Server)
		if err != nil {
			t.Errorf("%v: %v", loc, err)
			continue
		}
		for _, f := range []Factor{m.Intensity, m.PUE} {
			if f.Unit == "" || f.Zone == "" || f.Zone == world && f.Unit == UnitIntensity || f.Kind == "" || f.Source == "" ||
				f.Publisher == "" || f.Title == "" || f.Year == 0 || f.Verified == "" || f.Band <= 0 {
				t.Errorf("%v: incomplete factor %+v", loc, f)
			}
		}
		again, err := Locate(loc, Environment{})
		if err != nil || again.Zone() != loc.Zone() {
			t.Errorf("%v is completed to %v, %v", loc, again, err)
		}
	}
}
