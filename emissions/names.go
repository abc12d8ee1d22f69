package emissions

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// ErrUnknownCountry is returned when no figure is known under that name.
	ErrUnknownCountry = errors.New("unknown country")
	// ErrUnknownSubdivision is returned for a subdivision without figures.
	ErrUnknownSubdivision = errors.New("unknown subdivision")
	// ErrUnknownProvider is returned for a cloud provider without figures.
	ErrUnknownProvider = errors.New("unknown cloud provider")
	// ErrUnknownRegion is returned for a region that the provider does not
	// have in the tables, and for a region without a provider.
	ErrUnknownRegion = errors.New("unknown cloud region")
	// ErrUnknownSite is returned for a [SiteKind] that is none.
	ErrUnknownSite = errors.New("unknown kind of machine")
	// ErrConflict is returned when two statements exclude each other, such as
	// a country and a cloud region elsewhere.
	ErrConflict = errors.New("contradictory location")
)

// An UnknownError says that a name is not in the tables and which names come
// close. It wraps one of the ErrUnknown errors.
type UnknownError struct {
	What, Value string
	// Suggestions are valid values, the nearest first.
	Suggestions []string
	// Hint is what else can be done.
	Hint   string
	reason error
}

// Error returns up to three lines: what is unknown, what was meant perhaps,
// what else can be done.
func (e *UnknownError) Error() string {
	s := fmt.Sprintf("unknown %s %q", e.What, e.Value)
	if len(e.Suggestions) > 0 {
		s += "\n  did you mean " + strings.Join(e.Suggestions, ", ") + "?"
	}
	if e.Hint != "" {
		s += "\n  " + e.Hint
	}
	return s
}

// Unwrap returns the reason.
func (e *UnknownError) Unwrap() error { return e.reason }

// country returns the ISO 3166-1 alpha-2 code of a country, or world.
func (t *tables) country(name string) (string, error) {
	key := fold(name)
	if key == world {
		return world, nil
	}
	if code, ok := t.countryOf[key]; ok {
		return code, nil
	}
	keys := make([]string, 0, len(t.countryOf))
	for k := range t.countryOf {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var suggestions []string
	for _, k := range nearest(key, keys) {
		if s := t.countryName(t.countryOf[k]); !slices.Contains(suggestions, s) {
			suggestions = append(suggestions, s)
		}
	}
	return "", &UnknownError{What: "country", Value: name, Suggestions: suggestions,
		Hint: fmt.Sprintf("there are figures for %d countries and territories, by ISO 3166 code (FR, FRA) or English name; elsewhere state the intensity", len(t.countries)), reason: ErrUnknownCountry}
}

// countryName returns "France (FR)".
func (t *tables) countryName(code string) string {
	i := slices.IndexFunc(t.countries, func(p place) bool { return p.code == code })
	if i < 0 {
		return code
	}
	return t.countries[i].name + " (" + code + ")"
}

// subdivision returns the subdivision of a code or name. The country may be
// empty; then a code needs its prefix, and a name must be the only one.
func (t *tables) subdivision(name, country string) (place, error) {
	key := fold(name)
	if p, ok := t.subdivisionOf(key, country); ok {
		return p, nil
	}
	var candidates, same []string
	for _, p := range t.subdivisions {
		candidates = append(candidates, p.code)
		if fold(p.name) == key || strings.HasSuffix(fold(p.code), " "+key) {
			same = append(same, p.code)
		}
	}
	e := &UnknownError{What: "subdivision", Value: name, Suggestions: same, reason: ErrUnknownSubdivision}
	// "DE-BY" names a country as well.
	if prefix, _, ok := strings.Cut(name, "-"); ok && country == "" {
		country = t.countryOf[fold(prefix)]
	}
	if country != "" && country != world {
		candidates = slices.DeleteFunc(candidates, func(code string) bool {
			i := slices.IndexFunc(t.subdivisions, func(p place) bool { return p.code == code })
			return t.subdivisions[i].country != country
		})
		switch {
		case len(candidates) == 0:
			e.Hint = t.countryName(country) + " has no figures below the country: leave the subdivision out and give the country alone to use " + country
		case len(candidates) <= 13:
			e.Hint = t.countryName(country) + " has " + strings.Join(candidates, ", ") + "; the country alone uses the figure of " + country
		default:
			e.Hint = t.countryName(country) + " has " + fmt.Sprint(len(candidates)) + " from " + candidates[0] + " to " + candidates[len(candidates)-1] + "; the country alone uses the figure of " + country
		}
	} else {
		e.Hint = "there are figures for US states and eGRID subregions, Canada, Australia and the Nordic bidding zones; elsewhere give the country"
	}
	if len(e.Suggestions) == 0 {
		e.Suggestions = t.nearestSubdivisions(key, candidates)
	}
	return place{}, e
}

// subdivisionOf finds a subdivision by folded code or name.
func (t *tables) subdivisionOf(key, country string) (place, bool) {
	var found []place
	for _, p := range t.subdivisions {
		code := fold(p.code)
		prefix, short, _ := strings.Cut(code, " ")
		// eGRID and bidding zone names are unique without a country.
		own := prefix == "egrid" || prefix == "bz"
		switch {
		case code == key:
			return p, true
		case country != "" && p.country != country:
		case fold(p.name) == key, short == key && (own || country != ""):
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return place{}, false
	}
	return found[0], true
}

func (t *tables) nearestSubdivisions(key string, codes []string) []string {
	var names []string
	for _, p := range t.subdivisions {
		if slices.Contains(codes, p.code) {
			names = append(names, p.name)
		}
	}
	var found []string
	for _, n := range nearest(key, append(codes, names...)) {
		i := slices.IndexFunc(t.subdivisions, func(p place) bool { return p.code == n || p.name == n })
		if code := t.subdivisions[i].code; !slices.Contains(found, code) {
			found = append(found, code)
		}
	}
	return found
}

// provider returns the name that the tables use for a provider.
func (t *tables) provider(name string) (string, error) {
	key := strings.ToLower(strings.TrimSpace(name))
	if alias, ok := providerAliases[key]; ok {
		key = alias
	}
	known := t.providers()
	if slices.Contains(known, key) {
		return key, nil
	}
	return "", &UnknownError{What: "cloud provider", Value: name, Suggestions: nearest(key, known),
		Hint: "there are figures for " + strings.Join(known, ", ") + "; for any other give the country", reason: ErrUnknownProvider}
}

// providers returns whom there are regions or fleet figures for.
func (t *tables) providers() []string {
	var names []string
	for _, r := range t.regions {
		names = append(names, r.provider)
	}
	for _, p := range t.pue {
		if p.operator != industry {
			names = append(names, p.operator)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// providerAliases are other names of providers; "gcp", "aws" and "azure" are
// the values that OpenTelemetry defines for cloud.provider.
var providerAliases = map[string]string{
	"amazon":       "aws",
	"google":       "gcp",
	"google_cloud": "gcp",
	"microsoft":    "azure",
	"ovhcloud":     "ovh",
}

// findRegion returns a region; without a provider its name must have one:
// "aws/us-east-1". A bare region is not looked up even where only one provider
// in the tables has it, because others outside them use the same names.
func (t *tables) findRegion(provider, name string) (region, error) {
	given := name
	if provider != "" {
		given = provider + "/" + name
	} else if p, n, ok := strings.Cut(name, "/"); ok {
		provider, name = p, n
	}
	// Azure's display names differ from its names by their spaces: "East US".
	name = strings.ToLower(strings.ReplaceAll(name, " ", ""))
	if provider == "" {
		var same, names []string
		for _, r := range t.regions {
			if names = append(names, r.name); r.name == name {
				same = append(same, r.provider+"/"+r.name)
			}
		}
		if len(same) == 0 {
			for _, n := range nearest(name, names) {
				for _, r := range t.regions {
					if r.name == n {
						same = append(same, r.provider+"/"+n)
					}
				}
			}
		}
		return region{}, &UnknownError{What: "cloud region", Value: given, Suggestions: same,
			Hint: "a region is given as provider/region", reason: ErrUnknownRegion}
	}
	provider, err := t.provider(provider)
	if err != nil {
		return region{}, err
	}
	if i, ok := t.regionOf[provider+"/"+name]; ok {
		return t.regions[i], nil
	}
	var names, suggestions []string
	for _, r := range t.regions {
		if r.provider == provider {
			names = append(names, r.name)
		}
	}
	for _, n := range nearest(name, names) {
		suggestions = append(suggestions, provider+"/"+n)
	}
	hint := "if the region is new, give its country"
	if len(names) == 0 {
		hint = "no region of " + provider + " has figures: give the country"
	}
	return region{}, &UnknownError{What: "cloud region", Value: given, Suggestions: suggestions,
		Hint: hint, reason: ErrUnknownRegion}
}

// countryAliases are what people write besides the ISO codes and the names in
// data/countries.csv, folded.
var countryAliases = map[string]string{
	"america":                          "US",
	"bolivarian republic of venezuela": "VE",
	"britain":                          "GB",
	"brunei":                           "BN",
	"british virgin islands":           "VG",
	"burma":                            "MM",
	"cape verde":                       "CV",
	"congo brazzaville":                "CG",
	"congo kinshasa":                   "CD",
	"czech republic":                   "CZ",
	"democratic republic of the congo": "CD",
	"dr congo":                         "CD",
	"drc":                              "CD",
	"east timor":                       "TL",
	"el":                               "GR", // the European Union's code
	"england":                          "GB",
	"falkland islands":                 "FK",
	"great britain":                    "GB",
	"holland":                          "NL",
	"ivory coast":                      "CI",
	"macau":                            "MO",
	"northern ireland":                 "GB",
	"palestine":                        "PS",
	"republic of korea":                "KR",
	"republic of the congo":            "CG",
	"russia":                           "RU",
	"saint helena":                     "SH",
	"scotland":                         "GB",
	"swaziland":                        "SZ",
	"the netherlands":                  "NL",
	"turkey":                           "TR",
	"uae":                              "AE",
	"uk":                               "GB", // reserved in ISO 3166 for this
	"united states of america":         "US",
	"us virgin islands":                "VI",
	"viet nam":                         "VN",
	"wales":                            "GB",
}

// fold brings a name into the form in which names are compared: lower case,
// without accents, with one space for anything else.
func fold(s string) string {
	var b strings.Builder
	space := false
	for _, r := range strings.ToLower(s) {
		switch r {
		case 'é', 'è', 'ê':
			r = 'e'
		case 'ô', 'ö':
			r = 'o'
		case 'ü':
			r = 'u'
		case 'ç':
			r = 'c'
		case 'å', 'ä', 'ã':
			r = 'a'
		case '.', '\'', '’':
			continue // U.S., Côte d'Ivoire
		}
		if r < 'a' || r > 'z' {
			if r < '0' || r > '9' {
				space = b.Len() > 0
				continue
			}
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// nearest returns up to three candidates that a mistyped value may have meant,
// the nearest first.
func nearest(value string, candidates []string) []string {
	const most = 3
	v := fold(value)
	if len(v) < 3 || len(v) > 64 {
		return nil // everything is near, or nothing
	}
	type match struct {
		name     string
		distance int
	}
	var found []match
	for _, c := range candidates {
		f := fold(c)
		d := distance(v, f)
		if strings.HasPrefix(f, v) {
			d = min(d, 1) // an unfinished name
		}
		if d <= max(1, len(v)/3) {
			found = append(found, match{c, d})
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return a.distance - b.distance })
	var names []string
	for _, m := range found {
		// What is further than the best is noise beside it.
		if m.distance == found[0].distance && !slices.Contains(names, m.name) && len(names) < most {
			names = append(names, m.name)
		}
	}
	return names
}

// distance is the number of insertions, deletions, substitutions and
// transpositions of neighbours between two strings of ASCII (optimal string
// alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
