package emissions

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

// sealed is an environment with these variables and an empty file system.
func sealed(t testing.TB, variables map[string]string) Environment {
	return Environment{
		LookupEnv: func(name string) (string, bool) { v, ok := variables[name]; return v, ok },
		Root:      t.TempDir(),
	}
}

func TestLocateOrder(t *testing.T) {
	// Every level names another place; the first that is left decides.
	stated := Location{Country: "France"}
	variables := map[string]string{
		EnvCountry:                 "de",
		"OTEL_RESOURCE_ATTRIBUTES": "cloud.provider=azure,cloud.region=uksouth",
		"TZ":                       "Japan",
		"AWS_REGION":               "us-east-1",
		"AWS_DEFAULT_REGION":       "us-east-1",
	}
	env := sealed(t, variables)
	env.Attributes = map[string]string{"cloud.provider": "gcp", "cloud.region": "europe-west6"}
	for _, c := range []struct {
		zone, detail string
		source       LocationSource
		guess        bool
		drop         func() // what makes way for the next level
	}{
		{"FR", "", FromOption, false, func() { stated = Location{} }},
		{"DE", EnvCountry, FromEnvironment, false, func() { delete(variables, EnvCountry) }},
		{"gcp/europe-west6", "cloud attributes", FromAttributes, false, func() { env.Attributes = nil }},
		{"azure/uksouth", "OTEL_RESOURCE_ATTRIBUTES", FromAttributes, false, func() { delete(variables, "OTEL_RESOURCE_ATTRIBUTES") }},
		{"JP", "time zone Japan", FromTimeZone, true, func() { delete(variables, "TZ") }},
		// AWS_REGION is still set, and says nothing about this machine.
		{"world", "time zone is not known", FromNothing, true, func() {}},
	} {
		loc, err := Locate(stated, env)
		if err != nil || loc.Zone() != c.zone || loc.Source != c.source || loc.Guess != c.guess || !strings.Contains(loc.Detail, c.detail) {
			t.Errorf("want %s from %s, got %+v, %v", c.zone, c.source, loc, err)
		}
		c.drop()
	}
}

func TestLocateCompletes(t *testing.T) {
	for _, c := range []struct{ stated, want Location }{
		{Location{Country: "fr"}, Location{Country: "FR"}},
		{Location{Country: "FRA"}, Location{Country: "FR"}},
		{Location{Country: " united  kingdom "}, Location{Country: "GB"}},
		{Location{Country: "UK"}, Location{Country: "GB"}},
		{Location{Country: "Great Britain"}, Location{Country: "GB"}},
		{Location{Country: "U.S.A."}, Location{Country: "US"}},
		{Location{Country: "cote d'ivoire"}, Location{Country: "CI"}},
		{Location{Country: "Türkiye"}, Location{Country: "TR"}},
		{Location{Country: "Turkey"}, Location{Country: "TR"}},
		{Location{Country: "NA"}, Location{Country: "NA"}}, // Namibia, not a missing value
		{Location{Country: "World"}, Location{}},
		{Location{Subdivision: "us-ca"}, Location{Country: "US", Subdivision: "US-CA"}},
		{Location{Subdivision: "California"}, Location{Country: "US", Subdivision: "US-CA"}},
		{Location{Country: "US", Subdivision: "wa"}, Location{Country: "US", Subdivision: "US-WA"}},
		{Location{Country: "AU", Subdivision: "wa"}, Location{Country: "AU", Subdivision: "AU-WA"}},
		{Location{Subdivision: "camx"}, Location{Country: "US", Subdivision: "eGRID-CAMX"}},
		{Location{Subdivision: "se3"}, Location{Country: "SE", Subdivision: "BZ-SE3"}},
		{Location{Region: "AWS/us-east-1"}, Location{Country: "US", Subdivision: "US-VA", Provider: "aws", Region: "us-east-1"}},
		{Location{Provider: "google", Region: "europe-west9"}, Location{Country: "FR", Provider: "gcp", Region: "europe-west9"}},
		{Location{Region: "azure/East US"}, Location{Country: "US", Subdivision: "US-VA", Provider: "azure", Region: "eastus"}},
		{Location{Provider: "aws/eu-west-3"}, Location{Country: "FR", Provider: "aws", Region: "eu-west-3"}},
		{Location{Country: "FR", Region: "aws/eu-west-3"}, Location{Country: "FR", Provider: "aws", Region: "eu-west-3"}},
		{Location{Country: "CA", Provider: "aws"}, Location{Country: "CA", Provider: "aws"}},
	} {
		c.want.Source = FromOption
		got, err := Locate(c.stated, sealed(t, nil))
		if err != nil || !equalPlace(got, c.want) {
			t.Errorf("%+v is completed to %+v, %v; want %+v", c.stated, got, err, c.want)
		}
		if again, err := Locate(got, sealed(t, nil)); got.stated() && (err != nil || again != got) {
			t.Errorf("%+v is completed again to %+v, %v", got, again, err)
		}
	}
}

func equalPlace(a, b Location) bool {
	a.Detail, b.Detail = "", ""
	return a == b
}

func TestLocateRefuses(t *testing.T) {
	for _, c := range []struct {
		stated      Location
		reason      error
		suggestions string
		text        string
	}{
		{Location{Country: "Frnace"}, ErrUnknownCountry, "France (FR)", "did you mean"},
		{Location{Country: "germani"}, ErrUnknownCountry, "Germany (DE)", ""},
		{Location{Country: "United Stat"}, ErrUnknownCountry, "United States (US)", ""},
		{Location{Country: "XX"}, ErrUnknownCountry, "", "213 countries"},
		{Location{Country: "-"}, ErrUnknownCountry, "", ""},
		{Location{Subdivision: "DE-BY"}, ErrUnknownSubdivision, "", "give the country alone to use DE"},
		{Location{Country: "FR", Subdivision: "IDF"}, ErrUnknownSubdivision, "", "France (FR) has no figures below the country"},
		{Location{Country: "CA", Subdivision: "ZZ"}, ErrUnknownSubdivision, "", "CA-AB, CA-BC"},
		{Location{Country: "US", Subdivision: "Texsa"}, ErrUnknownSubdivision, "US-TX", "the country alone uses"},
		{Location{Subdivision: "WA"}, ErrUnknownSubdivision, "AU-WA US-WA", ""},
		{Location{Subdivision: "Bavaria"}, ErrUnknownSubdivision, "", "elsewhere give the country"},
		{Location{Provider: "hetzner"}, ErrUnknownProvider, "", "give the country"},
		{Location{Provider: "gpc", Region: "us-east1"}, ErrUnknownProvider, "gcp", ""},
		{Location{Region: "aws/us-esat-1"}, ErrUnknownRegion, "aws/us-east-1", "did you mean aws/us-east-1?"},
		{Location{Region: "aws/"}, ErrUnknownRegion, "", ""},
		{Location{Region: "meta/prineville"}, ErrUnknownRegion, "", "no region of meta"},
		{Location{Region: "us-east-1"}, ErrUnknownRegion, "aws/us-east-1", "provider/region"},
		{Location{Region: "europe-wset9"}, ErrUnknownRegion, "gcp/europe-west9", ""},
		{Location{Country: "FR", Region: "aws/us-east-1"}, ErrConflict, "", "is in US, not in FR"},
		{Location{Country: "world", Region: "aws/us-east-1"}, ErrConflict, "", ""},
		{Location{Country: "FR", Subdivision: "US-CA"}, ErrConflict, "", "is in US, not in FR"},
		{Location{Region: "aws/us-east-1", Subdivision: "US-CA"}, ErrConflict, "", "US-VA, not in US-CA"},
		{Location{Region: "aws/eu-west-3", Subdivision: "CAMX"}, ErrUnknownSubdivision, "eGRID-CAMX", ""},
	} {
		loc, err := Locate(c.stated, sealed(t, nil))
		if !errors.Is(err, c.reason) || loc != (Location{}) {
			t.Errorf("%+v: %+v, %v; want %v", c.stated, loc, err, c.reason)
			continue
		}
		if !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %q lacks %q", c.stated, err, c.text)
		}
		if lines := strings.Count(err.Error(), "\n") + 1; lines > 3 {
			t.Errorf("%+v: %d lines", c.stated, lines)
		}
		var unknown *UnknownError
		if errors.As(err, &unknown) && strings.Join(unknown.Suggestions, " ") != c.suggestions {
			t.Errorf("%+v: suggests %q, not %q", c.stated, unknown.Suggestions, c.suggestions)
		}
	}
}

// What the user has put into the environment is a statement as well.
func TestLocateEnvironment(t *testing.T) {
	loc, err := Locate(Location{}, sealed(t, map[string]string{EnvCountry: "us", EnvSubdivision: "tx"}))
	if err != nil || loc.Subdivision != "US-TX" || loc.Source != FromEnvironment || loc.Detail != "WATTSPAN_COUNTRY, WATTSPAN_SUBDIVISION" {
		t.Errorf("%+v, %v", loc, err)
	}
	loc, err = Locate(Location{}, sealed(t, map[string]string{EnvRegion: "ovh/gra"}))
	if err != nil || loc.Zone() != "ovh/gra" || loc.Country != "FR" {
		t.Errorf("%+v, %v", loc, err)
	}
	if _, err = Locate(Location{}, sealed(t, map[string]string{EnvRegion: "aws/us-esat-1", "TZ": "Japan"})); !errors.Is(err, ErrUnknownRegion) || !strings.HasPrefix(err.Error(), EnvRegion) {
		t.Errorf("a mistake is replaced by a guess: %v", err)
	}
	if loc, err = Locate(Location{}, sealed(t, map[string]string{EnvCountry: " "})); err != nil || loc.Source != FromNothing {
		t.Errorf("an empty variable states something: %+v, %v", loc, err)
	}
	if loc, err = Locate(Location{}, sealed(t, map[string]string{EnvCountry: "world", "TZ": "Japan"})); err != nil || loc.Zone() != world || loc.Guess {
		t.Errorf("the world cannot be stated: %+v, %v", loc, err)
	}
}

// What only the machine has stated never ends a job.
func TestLocateAttributes(t *testing.T) {
	for _, c := range []struct {
		variable, zone, provider, detail string
	}{
		{"cloud.provider=aws,cloud.region=eu-north-1", "aws/eu-north-1", "aws", "cloud.region=eu-north-1"},
		{"service.name=a%2Cb,cloud.region=eastus,cloud.provider=azure,", "azure/eastus", "azure", ""},
		{"cloud.provider=aws,cloud.region=mars-north-1", "world", "aws", "no such region"},
		{"cloud.provider=gcp", "world", "gcp", "no such region"},
		{"cloud.provider=alibaba_cloud,cloud.region=cn-hangzhou", "world", "", "no such region"},
		{"cloud.region=us-east-1", "world", "", "without cloud.provider"},
		{"cloud.provider=aws,cloud.region=%zz", "world", "", "malformed"},
		{"cloud.provider", "world", "", "malformed"},
		{"service.name=train", "world", "", "time zone"},
	} {
		loc, err := Locate(Location{}, sealed(t, map[string]string{"OTEL_RESOURCE_ATTRIBUTES": c.variable}))
		if err != nil || loc.Zone() != c.zone || loc.Provider != c.provider || !strings.Contains(loc.Detail, c.detail) {
			t.Errorf("%s: %+v, %v", c.variable, loc, err)
		}
		if (loc.Source == FromNothing) != (c.zone == world) {
			t.Errorf("%s: source %s", c.variable, loc.Source)
		}
	}
	// In a cloud the time zone is somebody's preference.
	loc, err := Locate(Location{}, sealed(t, map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "cloud.provider=aws", "TZ": "Japan"}))
	if err != nil || loc.Zone() != world {
		t.Errorf("%+v, %v", loc, err)
	}
}

func TestParseResourceAttributes(t *testing.T) {
	for _, c := range []struct {
		in   string
		want map[string]string
		bad  bool
	}{
		{"", nil, false},
		{"a=b", map[string]string{"a": "b"}, false},
		{" a = b , c = d ,", map[string]string{"a": "b", "c": "d"}, false},
		{"a=b%3Dc%2Cd%20e", map[string]string{"a": "b=c,d e"}, false},
		{"a=b=c", map[string]string{"a": "b=c"}, false},
		{"a=1+1", map[string]string{"a": "1+1"}, false},
		{"a=", map[string]string{"a": ""}, false},
		{"cloud%2Eregion=x", map[string]string{"cloud.region": "x"}, false},
		{"a=1,a=2", map[string]string{"a": "2"}, false},
		{"a=1,b", nil, true},
		{"a=1,=b", nil, true},
		{"a=1,b=%g0", nil, true},
		{"a=1,b=%4", nil, true},
	} {
		got, err := parseResourceAttributes(c.in)
		if (err != nil) != c.bad || !maps.Equal(got, c.want) {
			t.Errorf("%q: %v, %v", c.in, got, err)
		}
	}
}

// Whatever is stated gives a place with figures or a typed error.
func FuzzLocate(f *testing.F) {
	f.Add("France", "", "", "")
	f.Add("us", "ca", "", "")
	f.Add("", "DE-BY", "", "")
	f.Add("", "", "aws", "us-esat-1")
	f.Add("", "", "", "azure/East US")
	f.Add("world", "", "/", "//")
	f.Add("\xff", "é", "ſ", "K/K")
	tab := tablesOf(f)
	f.Fuzz(func(t *testing.T, country, subdivision, provider, region string) {
		stated := Location{Country: country, Subdivision: subdivision, Provider: provider, Region: region}
		loc, err := tab.complete(stated)
		if err != nil {
			var unknown *UnknownError
			if !errors.As(err, &unknown) && !errors.Is(err, ErrConflict) {
				t.Fatalf("%+v: %v has no type", stated, err)
			}
			return
		}
		if again, err := tab.complete(loc); err != nil || again != loc {
			t.Fatalf("%+v: complete, and then %+v, %v", loc, again, err)
		}
		if m, err := NewModel(loc, Server); err != nil || m.Intensity.Unit == "" || m.PUE.Value < 1 {
			t.Fatalf("%+v: %+v, %v", loc, m, err)
		}
	})
}

func FuzzResourceAttributes(f *testing.F) {
	f.Add("cloud.provider=aws,cloud.region=us-east-1")
	f.Add("a=%2C,b=%3D,")
	f.Add("=,=%")
	f.Fuzz(func(t *testing.T, s string) {
		attributes, err := parseResourceAttributes(s)
		if err != nil && attributes != nil {
			t.Fatalf("%q: both %v and %v", s, attributes, err)
		}
		if _, ok := attributes[""]; ok {
			t.Fatalf("%q: a key is empty", s)
		}
		loc, err := Locate(Location{}, Environment{Root: t.TempDir(), LookupEnv: func(name string) (string, bool) {
			return s, name == "OTEL_RESOURCE_ATTRIBUTES"
		}})
		if err != nil {
			t.Fatalf("%q ends a job: %+v, %v", s, loc, err)
		}
	})
}
