package emissions

import (
	"encoding/csv"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func tablesOf(t testing.TB) *tables {
	tab, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// The loader has checked headers, numbers, years, kinds, sources and
// duplicates when this passes; the counts keep rows from being lost.
func TestTables(t *testing.T) {
	tab := tablesOf(t)
	lifecycle := 0
	for _, p := range tab.countries {
		if tab.zones[p.code][0].Kind == LifecycleAverage {
			lifecycle++
		}
		if !regexp.MustCompile(`^[A-Z]{2}$`).MatchString(p.code) || !regexp.MustCompile(`^[A-Z]{3}$`).MatchString(p.iso3) {
			t.Errorf("%s: no ISO codes: %q, %q", p.name, p.code, p.iso3)
		}
	}
	kinds := map[Kind]int{}
	for _, figures := range tab.zones {
		for _, f := range figures {
			kinds[f.Kind]++
		}
	}
	published := map[string]int{}
	for _, r := range tab.regions {
		if r.intensity.Unit != "" {
			published["intensity"]++
		}
		if r.pue.Unit != "" {
			published["pue"]++
		}
	}
	for _, c := range []struct {
		what      string
		got, want int
	}{
		{"countries", len(tab.countries), 213},
		{"countries with a life-cycle average", lifecycle, 213},
		{"life-cycle averages", kinds[LifecycleAverage], 213 + 1 + 13 + 12},
		{"direct averages", kinds[DirectAverage], 31 + 51 + 27 + 13 + 8},
		{"subdivisions", len(tab.subdivisions), 51 + 27 + 13 + 8 + 12},
		{"regions", len(tab.regions), 168},
		{"regions with an intensity of their own", published["intensity"], 44},
		{"regions with a PUE of their own", published["pue"], 46 + 6},
		{"PUE figures", len(tab.pue), 21},
		{"world averages", len(tab.zones[world]), 1},
	} {
		if c.got != c.want {
			t.Errorf("%d %s, want %d", c.got, c.what, c.want)
		}
	}
	for zone, figures := range tab.zones {
		for _, f := range figures {
			if f.Value < 1 || f.Value > 1400 {
				t.Errorf("%s: %v", zone, f)
			}
			if f.Band < yearlyBand {
				t.Errorf("%s: a band of %v", zone, f.Band)
			}
		}
	}
}

// A source that no row uses would be printed in attributions for nothing.
func TestSourcesAreUsed(t *testing.T) {
	tab := tablesOf(t)
	used := map[string]bool{}
	for _, figures := range tab.zones {
		for _, f := range figures {
			used[f.Source] = true
		}
	}
	for _, r := range tab.regions {
		used[r.intensity.Source], used[r.pue.Source] = true, true
	}
	for _, p := range tab.pue {
		used[p.Source] = true
	}
	for id := range tab.sources {
		if !used[id] {
			t.Errorf("source %s is used nowhere", id)
		}
	}
}

// A life-cycle figure below the direct one of the same zone cannot be right
// where it is our own computation; the band then has to reach the other.
func TestDerivedBandsReachTheDirectFigure(t *testing.T) {
	for zone, figures := range tablesOf(t).zones {
		if len(figures) != 2 || !strings.HasPrefix(figures[0].Source, "derived") {
			continue
		}
		if _, high := Bounds(figures[0].Value, figures[0].Band); high < figures[1].Value {
			t.Errorf("%s: at most %.0f, and %v directly", zone, high, figures[1].Value)
		}
	}
}

func TestReadTableRefuses(t *testing.T) {
	for _, c := range []struct{ name, table, text string }{
		{"nothing", "", "EOF"},
		{"another header", "a,c\n1,2\n", "header"},
		{"a field too few", "a,b\nx\n", "wrong number"},
		{"a field too many", "a,b\nx,1,2\n", "wrong number"},
		{"no number", "a,b\nx,1\ny,z\n", "line 3"},
		{"not finite", "a,b\nx,NaN\n", "no number"},
		{"out of range", "a,b\nx,11\n", "from 0 to 10"},
		{"empty", "a,b\n,1\n", "a is empty"},
		{"spaces", "a,b\nx ,1\n", "spaces"},
		{"quotes", "a,b\n\"x,1\n", "quote"},
	} {
		err := readTable(strings.NewReader(c.table), []string{"a", "b"}, func(r *record) {
			r.required("a")
			r.number("b", 0, 10)
		})
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// edited parses the tables with one of them changed.
func edited(name string, edit func(string) string) error {
	_, err := parseTables(func(file string) (io.ReadCloser, error) {
		b, err := data.ReadFile(file)
		text := string(b)
		if file == "data/"+name {
			text = edit(text)
		}
		return io.NopCloser(strings.NewReader(text)), err
	})
	return err
}

func TestParseTablesRefuses(t *testing.T) {
	if err := edited("", nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, table, old, new, text string }{
		{"unknown source", "countries.csv", "FR,FRA,France,44.18,lifecycle_average,2024,ember-yearly-2025", "FR,FRA,France,44.18,lifecycle_average,2024,ember", "not in sources.csv"},
		{"unknown kind", "countries.csv", "44.18,lifecycle_average", "44.18,marginal", "kind"},
		{"unknown grade", "sources.csv", ",relay\n", ",seen\n", "verified"},
		{"duplicate country", "countries.csv", "FR,FRA,France,50,direct_average", "FR,FRA,France,50,lifecycle_average", "twice"},
		{"direct first", "countries.csv", "AT,AUT,Austria,102.62,", "AT,AUT,Austria,85,direct_average,2023,eea-2024,,\nAT,AUT,Austria,102.62,", "first"},
		{"two countries with one code", "countries.csv", "FI,FIN,", "FI,FRO,", "twice"},
		{"duplicate source", "sources.csv", "owid-energy-2024,", "ember-yearly-2025,", "twice"},
		{"duplicate region", "regions.csv", "aws,us-east-2,", "aws,us-east-1,", "twice"},
		{"region in no zone", "regions.csv", "Ashburn,US,US-VA", "Ashburn,US,US-XX", "no figure"},
		{"subdivision of no country", "subdivisions.csv", "AU-NSW,AU", "AU-NSW,QQ", "not in countries.csv"},
		{"PUE below 1", "pue.csv", "2024,1.56", "2024,0.56", "pue"},
		{"PUE twice", "pue.csv", "industry_average,2021", "industry_average,2020", "twice"},
		{"unknown scope", "pue.csv", "fleet", "best_site", "scope"},
		{"unknown scope of a region", "regions.csv", "1.15,region", "1.15,fleet", "pue_scope"},
		{"no year", "countries.csv", "44.18,lifecycle_average,2024", "44.18,lifecycle_average,24", "year"},
	} {
		changed := false
		err := edited(c.table, func(s string) string {
			r := strings.Replace(s, c.old, c.new, 1)
			changed = r != s
			return r
		})
		if !changed {
			t.Errorf("%s: the table has no %q", c.name, c.old)
		}
		if err == nil || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.table) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A program that looks one place up must not notice. It takes about 1 ms; the
// limit leaves room for a slow machine and the race detector.
func TestLoadIsCheap(t *testing.T) {
	best := time.Hour
	for range 5 {
		start := time.Now()
		if _, err := parseTables(data.Open); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	if best > 50*time.Millisecond {
		t.Errorf("parsing all tables takes %v", best)
	}
}

// Whatever a table holds, the loader returns rows or an error that names the
// line, as many rows as a plain CSV reader finds.
func FuzzReadTable(f *testing.F) {
	for _, name := range []string{"countries.csv", "pue.csv"} {
		b, err := data.ReadFile("data/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(strings.Join(strings.SplitAfter(string(b), "\n")[:4], ""))
	}
	f.Add("a,b\nx,1\n")
	f.Add("a,b\n\"x\ny\",1e999\n")
	f.Fuzz(func(t *testing.T, table string) {
		rows := 0
		err := readTable(strings.NewReader(table), []string{"a", "b"}, func(r *record) {
			rows++
			if v := r.number("b", 0, 10); !(v >= 0 && v <= 10) {
				t.Fatalf("%v is out of range", v)
			}
			r.required("a")
			r.year("b")
		})
		if err != nil {
			return
		}
		all, err := csv.NewReader(strings.NewReader(table)).ReadAll()
		if err != nil || len(all) != rows+1 || !slices.Equal(all[0], []string{"a", "b"}) {
			t.Fatalf("%d rows of %q, %v", rows, all, err)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseTables(data.Open); err != nil {
			b.Fatal(err)
		}
	}
}
