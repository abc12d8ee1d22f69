package emissions

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// GramsCO2e is a mass of greenhouse gases, in grams of CO2 equivalent.
type GramsCO2e float64

// String returns the mass in g, kg or t with three significant digits.
func (g GramsCO2e) String() string {
	// Rounded first, so that 999,999 g is a tonne: SI would make it 1.00 Mg,
	// which nobody reads.
	v, err := strconv.ParseFloat(strconv.FormatFloat(float64(g), 'e', 2, 64), 64)
	if err == nil && math.Abs(v) >= 1e6 {
		return sensors.Quantity(v/1e6, "t CO2e")
	}
	return sensors.Quantity(float64(g), "g CO2e")
}

// A Model turns energy into emissions with one intensity and one PUE. The zero
// Model is not usable; [NewModel] looks the factors up, and a program that
// knows both of its factors can fill the fields itself.
type Model struct {
	Intensity Factor `json:"intensity"`
	PUE       Factor `json:"pue"`
}

// NewModel returns the model for a place and a kind of machine. Declared
// factors, from [DeclaredIntensity] and [DeclaredPUE], replace what would be
// looked up, each in the role that its unit gives it.
func NewModel(loc Location, site SiteKind, declared ...Factor) (Model, error) {
	var m Model
	for _, f := range declared {
		var role *Factor
		switch f.Unit {
		case UnitIntensity:
			role = &m.Intensity
		case UnitPUE:
			role = &m.PUE
		default:
			return Model{}, fmt.Errorf("a factor in %q is neither an intensity (%s) nor a PUE (%s)", f.Unit, UnitIntensity, UnitPUE)
		}
		if role.Unit != "" {
			return Model{}, fmt.Errorf("two factors in %s were declared, %v and %v", f.Unit, role.Value, f.Value)
		}
		*role = f
	}
	var err error
	if m.Intensity.Unit == "" {
		if m.Intensity, err = GridIntensity(loc); err != nil {
			return Model{}, err
		}
	}
	if m.PUE.Unit == "" {
		if m.PUE, err = SitePUE(loc, site); err != nil {
			return Model{}, err
		}
	}
	return m, nil
}

// Apply returns the footprint of the energy that was used from start to end:
//
//	facility = energy × PUE
//	operational = facility / 3.6e6 J/kWh × intensity
//
// Energy is what the machine used, without PUE; rel is its relative error, one
// standard deviation. The interval selects the intensity that was valid then;
// the yearly figures of the tables are valid always.
//
// A model without a usable factor yields NaN, which prints as "unknown": a
// missing factor must not look like a clean grid.
func (m Model) Apply(start, end time.Time, energy sensors.Joules, rel float64) Footprint {
	pue, intensity := m.PUE.Value, m.Intensity.Value
	if m.PUE.Unit != UnitPUE || !(pue >= 1) {
		pue = math.NaN()
	}
	if m.Intensity.Unit != UnitIntensity || !(intensity >= 0) {
		intensity = math.NaN()
	}
	facility := sensors.Joules(float64(energy) * pue)
	return Footprint{
		Facility:    facility,
		Operational: GramsCO2e(facility.KWh() * intensity),
		FacilityRel: math.Hypot(rel, m.PUE.Band),
		Rel:         math.Hypot(math.Hypot(rel, m.PUE.Band), m.Intensity.Band),
	}
}

// A Footprint is the impact of some energy. Footprints of consecutive windows
// are added with [Footprint.Plus].
type Footprint struct {
	// Facility is the energy with PUE.
	Facility sensors.Joules
	// Operational is what generating that energy emitted.
	Operational GramsCO2e
	// FacilityRel and Rel are the relative errors of Facility and of
	// Operational, one standard deviation.
	FacilityRel, Rel float64
}

// Bounds returns the interval, k = 2, of the operational emissions.
func (f Footprint) Bounds() (low, high GramsCO2e) { return Bounds(f.Operational, f.Rel) }

// Plus returns the footprint of two windows. Their errors are systematic, the
// same sensor and the same factors being wrong in both, and therefore add
// linearly: splitting a window changes neither value nor band.
func (f Footprint) Plus(g Footprint) Footprint {
	return Footprint{
		Facility:    f.Facility + g.Facility,
		Operational: f.Operational + g.Operational,
		FacilityRel: meanRel(float64(f.Facility), f.FacilityRel, float64(g.Facility), g.FacilityRel),
		Rel:         meanRel(float64(f.Operational), f.Rel, float64(g.Operational), g.Rel),
	}
}

// meanRel is the relative error of a+b with fully correlated errors. A term of
// zero has no error to contribute, even where its own is unknown.
func meanRel(a, ra, b, rb float64) float64 {
	switch {
	case a == 0:
		return rb
	case b == 0:
		return ra
	}
	return (a*ra + b*rb) / (a + b)
}
