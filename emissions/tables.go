package emissions

import (
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The tables are described in data/README.md.
//
//go:embed data/*.csv
var data embed.FS

// tables are the parsed contents of data. They are immutable.
type tables struct {
	sources      map[string]source
	countries    []place
	subdivisions []place
	regions      []region
	pue          []pueRow

	// zones holds the figures of countries and subdivisions, the life-cycle
	// average first where there is one.
	zones map[string][]Factor
	// countryOf finds an ISO 3166-1 alpha-2 code by folded code, name or alias.
	countryOf map[string]string
	// regionOf finds an index into regions by "provider/region".
	regionOf map[string]int
}

// A source is a publication that figures were taken from.
type source struct {
	id, publisher, title, licence, verified string
}

// A place is a country or a subdivision of one.
type place struct {
	code, iso3, name string
	country          string // of a subdivision
}

// A region is a cloud provider's region or a computing centre.
type region struct {
	provider, name, city string
	country, zone        string
	// intensity and pue are the provider's own figures. Without one the
	// intensity is the zone's and the PUE the fleet's: they are not repeated
	// here, so that they cannot drift apart.
	intensity, pue Factor
}

type pueRow struct {
	operator string
	Factor
}

// industry is the operator of the averages over all operators in data/pue.csv.
const industry = "industry"

// load parses the embedded tables at the first call, in about a millisecond.
// Its error can only come from a table that was edited without running the
// tests; it is returned and not a panic, as a library must not end a job.
var load = sync.OnceValues(func() (*tables, error) { return parseTables(data.Open) })

// parseTables parses all tables, opening each by its name.
func parseTables[F io.ReadCloser](open func(name string) (F, error)) (*tables, error) {
	t := &tables{
		sources:   make(map[string]source),
		zones:     make(map[string][]Factor),
		countryOf: make(map[string]string),
		regionOf:  make(map[string]int),
	}
	for _, table := range []struct {
		name    string
		columns []string
		row     func(*record)
	}{
		// Sources come first: every other row names one.
		{"sources.csv", []string{"id", "publisher", "title", "year", "licence", "verified"}, t.addSource},
		{"countries.csv", []string{"iso2", "iso3", "name", "g_per_kwh", "kind", "year", "source", "band", "note"}, t.addCountry},
		{"subdivisions.csv", []string{"code", "country", "name", "g_per_kwh", "kind", "year", "source", "band", "note"}, t.addSubdivision},
		{"regions.csv", []string{"provider", "region", "city", "country", "zone", "g_per_kwh", "kind", "year", "source", "pue", "pue_scope", "pue_year", "pue_source"}, t.addRegion},
		{"pue.csv", []string{"operator", "scope", "year", "pue", "source", "verified", "note"}, t.addPUE},
	} {
		f, err := open("data/" + table.name)
		if err != nil {
			return nil, err
		}
		err = readTable(f, table.columns, table.row)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("data/%s: %w", table.name, err)
		}
	}
	for alias, code := range countryAliases {
		t.countryOf[alias] = code
	}
	return t, nil
}

// readTable is the one loader of tables. It reads CSV with exactly the given
// header, and calls row for each record. It fails at the first record that
// does not parse, naming its line.
func readTable(r io.Reader, columns []string, row func(*record)) error {
	cr := csv.NewReader(r)
	cr.FieldsPerRecord = len(columns)
	cr.ReuseRecord = true
	header, err := cr.Read()
	if err != nil {
		return err
	}
	if !slices.Equal(header, columns) {
		return fmt.Errorf("the header is %q, not %q", header, columns)
	}
	rec := &record{columns: columns}
	for {
		rec.fields, err = cr.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		row(rec)
		if rec.err != nil {
			line, _ := cr.FieldPos(0)
			return fmt.Errorf("line %d: %w", line, rec.err)
		}
	}
}

// A record is one row of a table. Its methods return the value of a column and
// keep the first error.
type record struct {
	columns, fields []string
	err             error
}

func (r *record) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// text returns a column, which may be empty.
func (r *record) text(column string) string {
	i := slices.Index(r.columns, column)
	if i < 0 {
		r.fail("no column %q", column)
		return ""
	}
	s := r.fields[i]
	if s != strings.TrimSpace(s) {
		r.fail("%s %q has spaces around it", column, s)
	}
	return s
}

// required returns a column that must not be empty.
func (r *record) required(column string) string {
	s := r.text(column)
	if s == "" {
		r.fail("%s is empty", column)
	}
	return s
}

// number returns a column as a number within [lo, hi].
func (r *record) number(column string, lo, hi float64) float64 {
	s := r.required(column)
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= lo && v <= hi) {
		r.fail("%s %q is no number from %v to %v", column, s, lo, hi)
		return 0
	}
	return v
}

// year returns a column as a year.
func (r *record) year(column string) int {
	s := r.required(column)
	v, err := strconv.Atoi(s)
	if err != nil || v < 1990 || v > 2100 {
		r.fail("%s %q is no year", column, s)
	}
	return v
}

// unique fails where a key is there already.
func unique[V any](r *record, m map[string]V, key string) {
	if _, ok := m[key]; ok {
		r.fail("%s is there twice", key)
	}
}

// attribute fills in where a factor comes from.
func (t *tables) attribute(r *record, f Factor, yearColumn, sourceColumn string) Factor {
	id := r.required(sourceColumn)
	s, ok := t.sources[id]
	if !ok {
		r.fail("%s %q is not in sources.csv", sourceColumn, id)
	}
	f.Year = r.year(yearColumn)
	f.Source, f.Publisher, f.Title, f.Licence, f.Verified = s.id, s.publisher, s.title, s.licence, s.verified
	return f
}

// intensity reads the columns that all intensities share.
func (t *tables) intensity(r *record, zone string) Factor {
	kind := Kind(r.required("kind"))
	switch kind {
	case LifecycleAverage, DirectAverage, HourlyAverage:
	default:
		r.fail("kind %q is none of %s, %s, %s", kind, LifecycleAverage, DirectAverage, HourlyAverage)
	}
	return t.attribute(r, Factor{
		Value: r.number("g_per_kwh", 0, maxIntensity),
		Unit:  UnitIntensity,
		Zone:  zone,
		Kind:  kind,
		Band:  yearlyBand,
	}, "year", "source")
}

// addZone reads one figure of a country or subdivision.
func (t *tables) addZone(r *record, code string) {
	f := t.intensity(r, code)
	f.Note = r.text("note")
	if r.text("band") != "" {
		f.Band = r.number("band", 0, 2)
	}
	for _, other := range t.zones[code] {
		if other.Kind == f.Kind {
			r.fail("%s %s is there twice", code, f.Kind)
		}
		if f.Kind == LifecycleAverage {
			r.fail("%s %s must come first", code, f.Kind)
		}
	}
	t.zones[code] = append(t.zones[code], f)
}

func (t *tables) addSource(r *record) {
	s := source{
		id:        r.required("id"),
		publisher: r.required("publisher"),
		title:     r.required("title"),
		licence:   r.required("licence"),
		verified:  verification(r, r.required("verified")),
	}
	r.year("year") // for the reader of the table
	unique(r, t.sources, s.id)
	t.sources[s.id] = s
}

// verification checks a grade of verification.
func verification(r *record, grade string) string {
	switch grade {
	case "file", "relay", "excerpt", "paper", recall:
	default:
		r.fail("verified %q is none of file, relay, excerpt, paper, recall", grade)
	}
	return grade
}

func (t *tables) addCountry(r *record) {
	p := place{code: r.required("iso2"), iso3: r.required("iso3"), name: r.required("name")}
	t.addZone(r, p.code)
	if p.code == world || len(t.zones[p.code]) > 1 {
		return
	}
	t.countries = append(t.countries, p)
	for _, key := range []string{fold(p.code), fold(p.iso3), fold(p.name)} {
		unique(r, t.countryOf, key)
		t.countryOf[key] = p.code
	}
}

func (t *tables) addSubdivision(r *record) {
	p := place{code: r.required("code"), name: r.required("name"), country: r.required("country")}
	if t.zones[p.country] == nil {
		r.fail("country %q is not in countries.csv", p.country)
	}
	t.addZone(r, p.code)
	if len(t.zones[p.code]) == 1 {
		t.subdivisions = append(t.subdivisions, p)
	}
}

func (t *tables) addRegion(r *record) {
	g := region{
		provider: r.required("provider"),
		name:     r.required("region"),
		city:     r.required("city"),
		country:  r.required("country"),
		zone:     r.required("zone"),
	}
	id := g.provider + "/" + g.name
	if t.zones[g.country] == nil || t.zones[g.zone] == nil {
		r.fail("country %q or zone %q has no figure", g.country, g.zone)
	}
	if r.text("g_per_kwh") != "" {
		g.intensity = t.intensity(r, id)
	}
	if r.text("pue") != "" {
		g.pue = t.attribute(r, Factor{
			Value: r.number("pue", 1, maxPUE),
			Unit:  UnitPUE,
			Zone:  id,
			Kind:  PublishedPUE,
			Band:  publishedPUEBand,
		}, "pue_year", "pue_source")
		// A site is one of several buildings that a region may have.
		switch scope := r.required("pue_scope"); scope {
		case "region":
		case "site":
			g.pue.Note = "site " + g.city
		default:
			r.fail("pue_scope %q is neither region nor site", scope)
		}
	}
	unique(r, t.regionOf, id)
	t.regionOf[id] = len(t.regions)
	t.regions = append(t.regions, g)
}

func (t *tables) addPUE(r *record) {
	row := pueRow{operator: r.required("operator"), Factor: Factor{
		Value: r.number("pue", 1, maxPUE),
		Unit:  UnitPUE,
		Kind:  Kind(r.required("scope")),
		Note:  r.text("note"),
	}}
	switch row.Kind {
	case FleetPUE:
		row.Zone, row.Band = row.operator, fleetPUEBand
	case IndustryAveragePUE:
		row.Zone, row.Band = world, industryPUEBand
	default:
		r.fail("scope %q is neither %s nor %s", row.Kind, FleetPUE, IndustryAveragePUE)
	}
	row.Factor = t.attribute(r, row.Factor, "year", "source")
	// One publication can have figures that were read and figures that were
	// remembered.
	if grade := r.text("verified"); grade != "" {
		row.Verified = verification(r, grade)
	}
	for _, other := range t.pue {
		if other.operator == row.operator && other.Year == row.Year {
			r.fail("%s %d is there twice", row.operator, row.Year)
		}
	}
	t.pue = append(t.pue, row)
}
