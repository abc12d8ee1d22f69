package emissions

import (
	"fmt"
)

// SiteKind is the kind of machine a job runs on.
type SiteKind string

// The kinds of machine that PUE depends on.
const (
	UnknownSite    SiteKind = ""
	Laptop         SiteKind = "laptop"
	Desktop        SiteKind = "desktop"
	Server         SiteKind = "server"
	VirtualMachine SiteKind = "virtual_machine"
)

// Relative errors of a PUE, one standard deviation.
const (
	// publishedPUEBand: a yearly mean of one site hides its seasons and its
	// load. Judgement.
	publishedPUEBand = 0.05
	// fleetPUEBand: the regional figures in the tables scatter by 8.5 % (root
	// mean square of the logarithm) around their operator's fleet figure.
	fleetPUEBand = 0.10
	// industryPUEBand: the band of a default PUE, docs/METHODOLOGY.md.
	industryPUEBand = 0.15
)

// maxPUE is where a PUE stops to be believable. Surveys find no site above 3;
// a figure like 115 is a percentage.
const maxPUE = 5

// DeclaredPUE returns the PUE that the user states. A value below 1, which
// would be a facility that uses less than the machines in it, above 5, or that
// is no number is refused with [ErrImplausible].
func DeclaredPUE(value float64) (Factor, error) {
	switch {
	case !finite(value):
		return Factor{}, implausible("PUE", value, "it must be a number from 1 up")
	case value < 1:
		return Factor{}, implausible("PUE", value, "it is facility energy / IT energy, which cannot be below 1 (DCiE is its inverse)")
	case value > maxPUE:
		return Factor{}, implausible("PUE", value, fmt.Sprintf("it is a ratio, such as 1.2; no site is known above %d", maxPUE))
	}
	return declared(value, UnitPUE), nil
}

// SitePUE returns the PUE of a place: what the provider publishes for the
// region, else the provider's fleet, else 1.0 for a laptop or desktop, else an
// industry average. What the user knows better goes to [DeclaredPUE].
func SitePUE(loc Location, site SiteKind) (Factor, error) {
	switch site {
	case UnknownSite, Laptop, Desktop, Server, VirtualMachine:
	default:
		return Factor{}, &UnknownError{What: "kind of machine", Value: string(site),
			Suggestions: nearest(string(site), []string{string(Laptop), string(Desktop), string(Server), string(VirtualMachine)}),
			reason:      ErrUnknownSite}
	}
	if loc.Provider == "" && loc.Region == "" && (site == Laptop || site == Desktop) {
		return noFacility(site), nil
	}
	t, err := load()
	if err != nil {
		return Factor{}, err
	}
	if loc, err = t.complete(loc); err != nil {
		return Factor{}, err
	}
	if loc.Region != "" {
		r, err := t.findRegion(loc.Provider, loc.Region)
		if err != nil {
			return Factor{}, err
		}
		if r.pue.Value != 0 {
			return r.pue, nil
		}
	}
	if f, ok := t.latestPUE(loc.Provider); ok && loc.Provider != "" {
		return f, nil
	}
	if site == Laptop || site == Desktop {
		return noFacility(site), nil
	}
	f, ok := t.latestPUE(industry)
	if !ok {
		return Factor{}, fmt.Errorf("data/pue.csv: no %s", IndustryAveragePUE)
	}
	switch {
	case loc.Provider != "":
		f.Note = joinNotes("no figure of "+loc.Provider, f.Note)
	case site == VirtualMachine:
		f.Note = joinNotes("virtual machine of an unknown provider", f.Note)
	case site == UnknownSite:
		f.Note = joinNotes("kind of machine unknown: 1.0 if it is a laptop or desktop", f.Note)
	}
	return f, nil
}

// noFacility is the PUE of a machine that stands on a desk. Its charger or
// power supply is inside the plug, and therefore not in the PUE.
func noFacility(site SiteKind) Factor {
	return Factor{Value: 1, Unit: UnitPUE, Zone: string(site), Kind: NoPUE, Source: "definition",
		Note: string(site) + ": no facility around it"}
}

// latestPUE returns the most recent figure of an operator that has been
// verified, or the most recent one if none has.
func (t *tables) latestPUE(operator string) (Factor, bool) {
	var best Factor
	better := func(f Factor) bool {
		if v, b := f.Verified != recall, best.Verified != recall; v != b {
			return v
		}
		return f.Year > best.Year
	}
	for _, row := range t.pue {
		if row.operator == operator && (best.Unit == "" || better(row.Factor)) {
			best = row.Factor
		}
	}
	return best, best.Unit != ""
}
