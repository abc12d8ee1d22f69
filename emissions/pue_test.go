package emissions

import (
	"errors"
	"strings"
	"testing"
)

func TestSitePUE(t *testing.T) {
	for _, c := range []struct {
		name  string
		loc   Location
		site  SiteKind
		value float64
		zone  string
		kind  Kind
		year  int
		band  float64
		note  string
	}{
		{"published for the region", Location{Provider: "aws", Region: "us-east-1"}, VirtualMachine, 1.15, "aws/us-east-1", PublishedPUE, 2024, 0.05, ""},
		{"published for a site", Location{Region: "scaleway/fr-par-2"}, Server, 1.15, "scaleway/fr-par-2", PublishedPUE, 2020, 0.05, "DC5"},
		{"fleet", Location{Provider: "aws", Region: "eu-west-3"}, VirtualMachine, 1.14, "aws", FleetPUE, 2025, 0.10, ""},
		{"fleet: the latest that was verified", Location{Provider: "azure", Region: "uksouth"}, Server, 1.18, "azure", FleetPUE, 2022, 0.10, ""},
		{"fleet: verified before recent", Location{Provider: "ovh"}, Server, 1.29, "ovh", FleetPUE, 2023, 0.10, ""},
		{"provider under another name", Location{Provider: "Google"}, Server, 1.09, "gcp", FleetPUE, 2024, 0.10, ""},
		{"laptop", Location{Country: "FR"}, Laptop, 1, "laptop", NoPUE, 0, 0, "no facility"},
		{"desktop", Location{}, Desktop, 1, "desktop", NoPUE, 0, 0, "no facility"},
		{"laptop of a provider without figures", Location{Provider: "genci"}, Laptop, 1, "laptop", NoPUE, 0, 0, ""},
		{"server", Location{Country: "DE"}, Server, 1.56, "world", IndustryAveragePUE, 2024, 0.15, "survey"},
		{"virtual machine", Location{Country: "DE"}, VirtualMachine, 1.56, "world", IndustryAveragePUE, 2024, 0.15, "unknown provider"},
		{"unknown machine", Location{}, UnknownSite, 1.56, "world", IndustryAveragePUE, 2024, 0.15, "kind of machine unknown"},
		{"provider without a fleet figure", Location{Provider: "scaleway"}, Server, 1.56, "world", IndustryAveragePUE, 2024, 0.15, "no figure of scaleway"},
	} {
		f, err := SitePUE(c.loc, c.site)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.Value != c.value || f.Zone != c.zone || f.Kind != c.kind || f.Year != c.year || f.Band != c.band || f.Unit != UnitPUE {
			t.Errorf("%s: %v ± %v", c.name, f, f.Band)
		}
		if !strings.Contains(f.Note, c.note) {
			t.Errorf("%s: note %q lacks %q", c.name, f.Note, c.note)
		}
	}
	var unknown *UnknownError
	if _, err := SitePUE(Location{}, "sever"); !errors.Is(err, ErrUnknownSite) || !errors.As(err, &unknown) || unknown.Suggestions[0] != "server" {
		t.Errorf("a kind of machine that is none: %v", err)
	}
	if _, err := SitePUE(Location{Provider: "gpc"}, Server); !errors.Is(err, ErrUnknownProvider) {
		t.Errorf("a provider that is none: %v", err)
	}
}

// A figure written from knowledge is used only where there is no other, and
// then shows it.
func TestRecallIsVisible(t *testing.T) {
	f, err := SitePUE(Location{Provider: "gcp"}, Server)
	if err != nil || f.Verified != "recall" || !strings.Contains(f.String(), "not verified") {
		t.Errorf("%v, %v", f, err)
	}
	for _, provider := range []string{"aws", "azure", "ovh", "meta", "equinix"} {
		if f, err := SitePUE(Location{Provider: provider}, Server); err != nil || f.Verified == "recall" {
			t.Errorf("%s: %v, %v", provider, f, err)
		}
	}
	if f, err := SitePUE(Location{}, Server); err != nil || f.Verified == "recall" {
		t.Errorf("industry: %v, %v", f, err)
	}
}
