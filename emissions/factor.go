package emissions

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Units of factors.
const (
	// UnitIntensity is the unit of a grid intensity: grams of CO2 equivalent
	// per kilowatt-hour.
	UnitIntensity = "g/kWh"
	// UnitPUE is the unit of a PUE, a ratio.
	UnitPUE = "1"
)

// Kind says what a factor's figure means. Figures of different kinds answer
// different questions and are never combined.
type Kind string

// The kinds of intensity.
const (
	// LifecycleAverage is a yearly average that includes building the plants
	// and extracting their fuel. It is the default.
	LifecycleAverage Kind = "lifecycle_average"
	// DirectAverage is a yearly average of what leaves the chimneys.
	DirectAverage Kind = "direct_average"
	// HourlyAverage is a cloud provider's yearly mean of hourly averages.
	HourlyAverage Kind = "hourly_average"
	// Marginal is what one more kilowatt-hour causes. No table here has it; a
	// live source may.
	Marginal Kind = "marginal"
)

// The kinds of PUE.
const (
	// PublishedPUE is published by the operator for this region or site.
	PublishedPUE Kind = "published"
	// FleetPUE is the operator's average over all of its sites.
	FleetPUE Kind = "fleet"
	// IndustryAveragePUE is a survey's mean, for a site nobody knows.
	IndustryAveragePUE Kind = "industry_average"
	// NoPUE is the 1.0 of a laptop or desktop, which has no facility around it.
	NoPUE Kind = "none"
)

// Declared is the kind of an intensity or PUE that the user has stated.
const Declared Kind = "declared"

// A Factor is a number that energy is multiplied with, and all that is needed
// to defend it.
type Factor struct {
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Zone is the place or fleet whose figure this is, which need not be the
	// one asked for: "FR", "US-CA", "gcp/us-central1", "world". It is empty
	// for a declared figure.
	Zone string `json:"zone"`
	Kind Kind   `json:"kind"`
	// Source is the id of the publication in data/sources.csv, "user" for a
	// declared figure, "definition" for the 1.0 of a laptop.
	Source string `json:"source"`
	// Year is the year that the figure describes; 0 where it has none.
	Year int `json:"year"`

	Publisher string `json:"publisher,omitempty"`
	Title     string `json:"title,omitempty"`
	Licence   string `json:"licence,omitempty"` // of the figure
	// Verified says how the figure was checked against its source, as
	// explained in data/README.md. "recall" means it was not.
	Verified string `json:"verified,omitempty"`

	// Band is the relative error for the use made of the figure, one standard
	// deviation. [Bounds] turns it into an interval.
	Band float64 `json:"band"`
	// Note says what a reader should know before quoting the figure.
	Note string `json:"note,omitempty"`
}

// recall marks figures written from knowledge and not read again.
const recall = "recall"

// String returns the factor on one line, with its provenance.
func (f Factor) String() string {
	var b strings.Builder
	b.WriteString(strconv.FormatFloat(f.Value, 'g', -1, 64))
	if f.Unit != UnitPUE {
		b.WriteString(" " + f.Unit)
	}
	if f.Zone != "" {
		b.WriteString(" " + f.Zone)
	}
	if f.Year != 0 {
		b.WriteString(" " + strconv.Itoa(f.Year))
	}
	b.WriteString(", " + string(f.Kind) + ", ")
	if f.Publisher != "" {
		b.WriteString(f.Publisher + ": " + f.Title)
	} else {
		b.WriteString(f.Source)
	}
	if f.Verified == recall {
		b.WriteString(" [not verified]")
	}
	return b.String()
}

var (
	// ErrImplausible is returned when a declared value cannot be what it says
	// it is: no number, outside the physical range, or most likely in another
	// unit.
	ErrImplausible = errors.New("implausible value")
	// ErrMixedKinds is returned when figures of different kinds or units were
	// about to be combined or compared.
	ErrMixedKinds = errors.New("figures of different kinds cannot be combined")
)

// SameKind returns the kind that all factors share, or an error that wraps
// [ErrMixedKinds] and names the first two that differ. It guards every
// comparison and every sum across places.
func SameKind(factors ...Factor) (Kind, error) {
	if len(factors) == 0 {
		return "", nil
	}
	first := factors[0]
	for _, f := range factors[1:] {
		if f.Kind != first.Kind || f.Unit != first.Unit {
			return "", fmt.Errorf("%w: %s (%s, %s) and %s (%s, %s)", ErrMixedKinds,
				first.Zone, first.Kind, first.Unit, f.Zone, f.Kind, f.Unit)
		}
	}
	return first.Kind, nil
}

// declared returns the factor for a value that the user states. Its band is 0:
// bands cover what is unknown about a figure that we chose, and the user may
// set Band to what they know of theirs.
func declared(value float64, unit string) Factor {
	return Factor{Value: value, Unit: unit, Kind: Declared, Source: "user"}
}

func implausible(what string, value float64, why string) error {
	return fmt.Errorf("%s %s: %w: %s", what, strconv.FormatFloat(value, 'g', -1, 64), ErrImplausible, why)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// joinNotes joins what is not empty.
func joinNotes(notes ...string) string {
	var kept []string
	for _, n := range notes {
		if n != "" {
			kept = append(kept, n)
		}
	}
	return strings.Join(kept, "; ")
}
