package emissions

import (
	"fmt"
	"strconv"
)

// Relative errors of an intensity, one standard deviation.
const (
	// yearlyBand: a yearly average used for some hours of it. Studies of
	// hourly series find 20–50 %; the lower end holds for jobs of a day or
	// more, which see nights and noons.
	yearlyBand = 0.25
	// guessBand: a country guessed from the time zone may be the neighbour's.
	// The tables state the same band for a figure that stands in for another.
	guessBand = 0.5
	// worldBand: countries scatter around the world average by σ = 0.65 in the
	// logarithm, weighted by generation, which is a relative error of 0.73.
	worldBand = 0.75
)

// maxIntensity is above any grid or generator: the worst country has 1306
// g/kWh, a small diesel generator about 1500.
const maxIntensity = 3000

// world is the zone of last resort.
const world = "world"

// DeclaredIntensity returns the intensity that the user states, in grams of
// CO2 equivalent per kWh. Zero is a value. A negative one, one above 3000, or
// what is no number is refused with [ErrImplausible].
func DeclaredIntensity(gramsPerKWh float64) (Factor, error) {
	switch {
	case !finite(gramsPerKWh) || gramsPerKWh < 0:
		return Factor{}, implausible("intensity", gramsPerKWh, "it must be a number of grams per kWh from 0 up")
	case gramsPerKWh > maxIntensity:
		return Factor{}, implausible("intensity", gramsPerKWh, fmt.Sprintf("it is in grams of CO2e per kWh; no source of electricity reaches %d", maxIntensity))
	}
	f := declared(gramsPerKWh, UnitIntensity)
	if gramsPerKWh > 0 && gramsPerKWh < 1 {
		f.Note = "below 1 g/kWh: multiply by 1000 if it was meant in kg/kWh"
	}
	return f, nil
}

// GridIntensity returns the intensity of a place. The most local figure wins:
// the one a provider publishes for the region, else the subdivision's, else
// the country's, else the world average. Where a place has figures of several
// kinds the life-cycle average is taken. When the figure taken is of another
// kind, its Note says so and gives the nearest life-cycle average.
//
// What the user knows better goes to [DeclaredIntensity].
func GridIntensity(loc Location) (Factor, error) {
	t, err := load()
	if err != nil {
		return Factor{}, err
	}
	if loc, err = t.complete(loc); err != nil {
		return Factor{}, err
	}
	f, notes, err := t.mostLocal(loc)
	if err != nil {
		return Factor{}, err
	}
	switch {
	case f.Zone == world:
		f.Band = worldBand
	case loc.Guess:
		f.Band = max(f.Band, guessBand)
		notes = append(notes, "country guessed from the time zone")
	}
	if f.Kind != LifecycleAverage {
		notes = append(notes, "not a life-cycle figure")
		if alt, ok := t.lifecycle(loc); ok {
			notes = append(notes, "life-cycle average of "+alt.Zone+": "+threeDigits(alt.Value)+" "+UnitIntensity)
		}
	}
	f.Note = joinNotes(append([]string{f.Note}, notes...)...)
	return f, nil
}

// mostLocal returns the factor of the most local zone that has one, and what
// there is to say about the choice.
func (t *tables) mostLocal(loc Location) (Factor, []string, error) {
	var notes []string
	if loc.Region != "" {
		r, err := t.findRegion(loc.Provider, loc.Region)
		if err != nil {
			return Factor{}, nil, err
		}
		if r.intensity.Unit != "" {
			return r.intensity, nil, nil
		}
		notes = append(notes, "grid of "+loc.Zone())
	}
	for _, z := range []string{loc.Subdivision, loc.Country, world} {
		figures := t.zones[z]
		if z == "" || len(figures) == 0 {
			continue
		}
		// The life-cycle figure comes first in the tables.
		chosen := figures[0]
		for _, other := range figures[1:] {
			notes = append(notes, other.describeKind()+" of the same zone: "+threeDigits(other.Value)+" "+UnitIntensity)
		}
		if z == world {
			notes = append(notes, "place unknown: world average")
			if loc.Provider != "" {
				notes[len(notes)-1] = "region of " + loc.Provider + " unknown: world average"
			}
		}
		return chosen, notes, nil
	}
	return Factor{}, nil, fmt.Errorf("data/countries.csv: no %s row", world)
}

// lifecycle returns the life-cycle average nearest to a place.
func (t *tables) lifecycle(loc Location) (Factor, bool) {
	for _, z := range []string{loc.Subdivision, loc.Country, world} {
		for _, f := range t.zones[z] {
			if f.Kind == LifecycleAverage {
				return f, true
			}
		}
	}
	return Factor{}, false
}

func (f Factor) describeKind() string {
	switch f.Kind {
	case LifecycleAverage:
		return "life-cycle average"
	case DirectAverage:
		return "direct average"
	}
	return string(f.Kind)
}

// threeDigits rounds for a note: 1306.3 becomes 1310, not 1.31e+03.
func threeDigits(v float64) string {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	return strconv.FormatFloat(r, 'f', -1, 64)
}
