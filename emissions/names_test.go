package emissions

import (
	"math/rand/v2"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"esat", "east", 1},
		{"kitten", "sitting", 3}, {"ab", "ba", 1}, {"us-east-1", "us-east-2", 1},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
	letters := func(r *rand.Rand) string {
		b := make([]byte, r.IntN(8))
		for i := range b {
			b[i] = "abc"[r.IntN(3)]
		}
		return string(b)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		a, b := letters(r), letters(r)
		d := distance(a, b)
		if d != distance(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) || d < len(a)-len(b) {
			t.Fatalf("distance(%q, %q) = %d, reversed %d", a, b, d, distance(b, a))
		}
	}
}

// An alias must not hide an ISO code or a name of the tables.
func TestCountryAliases(t *testing.T) {
	tab := tablesOf(t)
	for alias, code := range countryAliases {
		if alias != fold(alias) {
			t.Errorf("%q is not folded", alias)
		}
		if tab.zones[code] == nil {
			t.Errorf("%q is %s, which has no figure", alias, code)
		}
		for _, p := range tab.countries {
			for _, name := range []string{p.code, p.iso3, p.name} {
				if fold(name) == alias {
					t.Errorf("%q is in the tables already, as %s", alias, p.code)
				}
			}
		}
	}
}
