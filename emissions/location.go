package emissions

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// A Location is where a job runs, as far as its electricity is concerned.
// Filled in by a user, with any subset of the first four fields, it is a
// statement that [Locate] checks and completes.
type Location struct {
	// Country is an ISO 3166-1 alpha-2 code. From a user it may also be an
	// alpha-3 code or an English name, in any case, or "world".
	Country string `json:"country,omitempty"`
	// Subdivision is an ISO 3166-2 code ("US-CA"), an eGRID subregion
	// ("eGRID-CAMX") or a Nordic bidding zone ("BZ-SE3"). From a user it may
	// also be the name, or the code without its prefix where Country is given.
	Subdivision string `json:"subdivision,omitempty"`
	// Provider and Region are a cloud's: "aws" and "us-east-1". From a user
	// Region may be "aws/us-east-1" with Provider left empty.
	Provider string `json:"provider,omitempty"`
	Region   string `json:"region,omitempty"`

	// Source is how the location was found, and Detail the same in words.
	Source LocationSource `json:"source"`
	Detail string         `json:"detail,omitempty"`
	// Guess is set when nobody has stated the location.
	Guess bool `json:"guess,omitempty"`
}

// LocationSource is how a location was found.
type LocationSource string

// The sources of a location, in their order.
const (
	FromOption      LocationSource = "option"
	FromEnvironment LocationSource = "environment"
	FromAttributes  LocationSource = "resource_attributes"
	FromTimeZone    LocationSource = "time_zone"
	// FromNothing is a location that could not be found: the world.
	FromNothing LocationSource = "world"
)

// Environment variables that state the location.
const (
	EnvCountry     = "WATTSPAN_COUNTRY"
	EnvSubdivision = "WATTSPAN_SUBDIVISION"
	EnvRegion      = "WATTSPAN_REGION" // provider/region
)

// Zone returns the most local name of the location: "aws/us-east-1", "US-CA",
// "FR" or "world".
func (l Location) Zone() string {
	switch {
	case l.Region != "":
		return l.Provider + "/" + l.Region
	default:
		return cmp.Or(l.Subdivision, l.Country, world)
	}
}

// String returns the zone and how it was found.
func (l Location) String() string {
	s := l.Zone()
	if how := cmp.Or(l.Detail, string(l.Source)); how != "" {
		s += " (" + how + ")"
	}
	return s
}

func (l Location) stated() bool {
	return l.Country != "" || l.Subdivision != "" || l.Provider != "" || l.Region != ""
}

// An Environment is what [Locate] may look at. The zero value is the process's
// own environment and file system.
type Environment struct {
	// LookupEnv looks up an environment variable; nil means [os.LookupEnv].
	LookupEnv func(name string) (value string, ok bool)
	// Attributes are OpenTelemetry resource attributes, of which cloud.provider
	// and cloud.region are used. They take precedence over those in
	// OTEL_RESOURCE_ATTRIBUTES.
	Attributes map[string]string
	// Root is where the file system begins; empty means "/".
	Root string
}

func (e Environment) lookup(name string) string {
	lookup := e.LookupEnv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	v, ok := lookup(name)
	if !ok {
		return ""
	}
	return strings.TrimSpace(v)
}

// Locate finds out where this machine's electricity comes from, without any
// network call. The first of these that names a place decides, alone:
//
//  1. what the user states in code or on the command line;
//  2. the environment: WATTSPAN_COUNTRY, WATTSPAN_SUBDIVISION, WATTSPAN_REGION;
//  3. the resource attributes cloud.provider and cloud.region;
//  4. the country of the machine's time zone, a guess;
//  5. nothing: the world.
//
// AWS_REGION and its like are not consulted: they say where a client sends its
// requests, and are set on laptops all over the world. A detector of the
// OpenTelemetry SDK that has asked the machine itself fills cloud.region.
//
// A statement that makes no sense is an error, an [*UnknownError] or one that
// wraps [ErrConflict]; it is never replaced by a guess. A place that only the
// machine has stated, and for which there are no figures, is not an error: the
// location is then the world, and Detail says why.
func Locate(stated Location, env Environment) (Location, error) {
	t, err := load()
	if err != nil {
		return Location{}, err
	}
	if stated.stated() {
		stated.Source, stated.Detail, stated.Guess = FromOption, "", false
		return t.complete(stated)
	}
	loc := Location{
		Country:     env.lookup(EnvCountry),
		Subdivision: env.lookup(EnvSubdivision),
		Region:      env.lookup(EnvRegion),
		Source:      FromEnvironment,
	}
	if loc.stated() {
		var set []string
		for _, name := range []string{EnvCountry, EnvSubdivision, EnvRegion} {
			if env.lookup(name) != "" {
				set = append(set, name)
			}
		}
		loc.Detail = strings.Join(set, ", ")
		if loc, err = t.complete(loc); err != nil {
			return Location{}, fmt.Errorf("%s: %w", strings.Join(set, ", "), err)
		}
		return loc, nil
	}
	loc, why := t.fromAttributes(env)
	if loc.stated() || loc.Source != "" {
		return loc, nil
	}
	country, how := guessCountry(env)
	if country != "" && t.zones[country] != nil {
		return Location{Country: country, Source: FromTimeZone, Detail: how, Guess: true}, nil
	}
	if country != "" {
		how += ", for which there is no figure"
	}
	return Location{Source: FromNothing, Detail: joinNotes(why, how), Guess: true}, nil
}

// Places returns every place that there are figures for: countries,
// subdivisions, then cloud regions.
func Places() ([]Location, error) {
	t, err := load()
	if err != nil {
		return nil, err
	}
	all := make([]Location, 0, len(t.countries)+len(t.subdivisions)+len(t.regions))
	for _, p := range t.countries {
		all = append(all, Location{Country: p.code, Detail: p.name})
	}
	for _, p := range t.subdivisions {
		all = append(all, Location{Country: p.country, Subdivision: p.code, Detail: p.name})
	}
	for _, r := range t.regions {
		all = append(all, r.location())
	}
	return all, nil
}

// location returns where a region is.
func (r region) location() Location {
	l := Location{Country: r.country, Provider: r.provider, Region: r.name, Detail: r.city}
	if r.zone != r.country {
		l.Subdivision = r.zone
	}
	return l
}

// fromAttributes reads the location from resource attributes. An empty
// location comes with the reason, if there is one worth telling.
func (t *tables) fromAttributes(env Environment) (loc Location, why string) {
	attributes, origin := env.Attributes, "cloud attributes"
	if attributes["cloud.provider"] == "" && attributes["cloud.region"] == "" {
		var err error
		origin = "OTEL_RESOURCE_ATTRIBUTES"
		// The variable is the SDK's, which reports what is wrong with it.
		if attributes, err = parseResourceAttributes(env.lookup(origin)); err != nil {
			return Location{}, origin + " is malformed"
		}
	}
	provider, name := attributes["cloud.provider"], attributes["cloud.region"]
	if provider == "" {
		if name != "" {
			why = "cloud.region=" + name + " without cloud.provider"
		}
		return Location{}, why
	}
	detail := origin + ": cloud.provider=" + provider
	if name != "" {
		detail += ", cloud.region=" + name
	}
	if r, err := t.findRegion(provider, name); err == nil {
		loc := r.location()
		loc.Source, loc.Detail = FromAttributes, detail
		return loc, ""
	}
	// The machine is in a cloud, and where is not known. Its time zone would
	// be what its operator chose, so there is no guess to make; the provider
	// still tells the PUE of its fleet.
	loc = Location{Source: FromNothing, Detail: detail + ": no such region in the tables", Guess: true}
	if p, err := t.provider(provider); err == nil {
		loc.Provider = p
	}
	return loc, ""
}

// parseResourceAttributes parses OTEL_RESOURCE_ATTRIBUTES: key=value pairs
// separated by commas, percent-encoded as in W3C baggage. As the specification
// wants it, an error anywhere discards everything.
func parseResourceAttributes(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	attributes := make(map[string]string)
	for pair := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(pair) == "" {
			continue // a trailing comma
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("%q has no =", pair)
		}
		// PathUnescape, not QueryUnescape: a plus sign is a plus sign.
		key, err := url.PathUnescape(strings.TrimSpace(key))
		if err != nil {
			return nil, err
		}
		if key == "" {
			return nil, fmt.Errorf("%q has no key", pair)
		}
		if value, err = url.PathUnescape(strings.TrimSpace(value)); err != nil {
			return nil, err
		}
		attributes[key] = value
	}
	return attributes, nil
}

// complete checks a location, brings its names into their canonical form, and
// fills in what follows from them. A complete location stays as it is.
func (t *tables) complete(loc Location) (Location, error) {
	var err error
	if loc.Country = strings.TrimSpace(loc.Country); loc.Country != "" {
		if loc.Country, err = t.country(loc.Country); err != nil {
			return Location{}, err
		}
	}
	var subdivision string // of the region
	if loc.Region == "" && strings.Contains(loc.Provider, "/") {
		loc.Provider, loc.Region = "", loc.Provider
	}
	switch {
	case loc.Region != "":
		r, err := t.findRegion(loc.Provider, loc.Region)
		if err != nil {
			return Location{}, err
		}
		at := r.location()
		if loc.Country != "" && loc.Country != at.Country {
			return Location{}, fmt.Errorf("%w: %s is in %s, not in %s", ErrConflict, at.Zone(), at.Country, loc.Country)
		}
		loc.Provider, loc.Region, loc.Country = at.Provider, at.Region, at.Country
		subdivision = at.Subdivision
	case loc.Provider != "":
		if loc.Provider, err = t.provider(loc.Provider); err != nil {
			return Location{}, err
		}
	}
	if loc.Subdivision != "" {
		p, err := t.subdivision(loc.Subdivision, loc.Country)
		if err != nil {
			return Location{}, err
		}
		if loc.Country != "" && loc.Country != p.country {
			return Location{}, fmt.Errorf("%w: subdivision %s is in %s, not in %s", ErrConflict, p.code, p.country, loc.Country)
		}
		// An eGRID subregion lies across states, and may be known better than
		// from the state that the tables put the region in.
		if subdivision != "" && p.code != subdivision && !strings.HasPrefix(p.code, "eGRID-") {
			return Location{}, fmt.Errorf("%w: %s/%s is in %s, not in %s", ErrConflict, loc.Provider, loc.Region, subdivision, p.code)
		}
		subdivision, loc.Country = p.code, p.country
	}
	loc.Subdivision = subdivision
	if loc.Country == world {
		loc.Country = ""
	}
	return loc, nil
}
