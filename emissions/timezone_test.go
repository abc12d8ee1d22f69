package emissions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	zoneTab = "# tzdb\nFR\t+4852+00220\tEurope/Paris\nSE\t+5920+01803\tEurope/Stockholm\n" +
		"US\t+404251-0740023\tAmerica/New_York\tEastern (most areas)\nLI\t+4709+00931\tEurope/Vaduz\n"
	zone1970Tab = "DE,DK,NO,SE,SJ\t+5230+01322\tEurope/Berlin\tmost of Germany\n" +
		"FR,MC\t+4852+00220\tEurope/Paris\nJP,AU\t+353916+1394441\tAsia/Tokyo\tEyre Bird Observatory\nPL\t+5215+02100\tEurope/Warsaw\n"
)

// tree writes files, and links where the text begins with "->".
func tree(t *testing.T, files map[string]string) string {
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			if err = os.Symlink(target, path); err != nil {
				t.Skip("no symbolic links here:", err)
			}
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestGuessCountry(t *testing.T) {
	const tab, tab1970 = "usr/share/zoneinfo/zone.tab", "usr/share/zoneinfo/zone1970.tab"
	for _, c := range []struct {
		name, tz string
		files    map[string]string
		country  string
		how      string
	}{
		{"TZ", "Europe/Paris", map[string]string{tab: zoneTab}, "FR", "Europe/Paris of TZ"},
		{"TZ with a colon", ":Europe/Paris", map[string]string{tab: zoneTab}, "FR", ""},
		{"TZ with a path", "/usr/share/zoneinfo/right/Europe/Paris", map[string]string{tab: zoneTab}, "FR", ""},
		{"link", "", map[string]string{tab: zoneTab, "etc/localtime": "->/usr/share/zoneinfo/Europe/Stockholm"}, "SE", "of /etc/localtime"},
		{"relative link", "", map[string]string{tab: zoneTab, "etc/localtime": "->../usr/share/zoneinfo/America/New_York"}, "US", ""},
		{"link of macOS", "", map[string]string{tab: zoneTab, "etc/localtime": "->/var/db/timezone/zoneinfo/Europe/Paris"}, "FR", ""},
		{"copy, with timezone beside it", "", map[string]string{tab: zoneTab, "etc/localtime": "TZif2", "etc/timezone": "Europe/Paris\n"}, "FR", "of /etc/timezone"},
		{"link before a stale timezone", "", map[string]string{tab: zoneTab, "etc/localtime": "->/usr/share/zoneinfo/Europe/Paris", "etc/timezone": "Europe/Stockholm\n"}, "FR", ""},
		{"UTC is no place", "UTC", map[string]string{tab: zoneTab, "etc/timezone": "Etc/UTC"}, "", "Etc/UTC of /etc/timezone names no country"},
		{"a process in UTC on a machine in France", "UTC", map[string]string{tab: zoneTab, "etc/timezone": "Europe/Paris"}, "FR", ""},
		{"POSIX rule", "CET-1CEST,M3.5.0,M10.5.0/3", map[string]string{tab: zoneTab}, "", "not known"},
		{"zone.tab before zone1970.tab", "Europe/Paris", map[string]string{tab: zoneTab, tab1970: zone1970Tab}, "FR", ""},
		{"one country in zone1970.tab", "Europe/Warsaw", map[string]string{tab1970: zone1970Tab}, "PL", ""},
		{"several countries: no guess", "Europe/Berlin", map[string]string{tab1970: zone1970Tab}, "", "names no country"},
		{"several countries by rows: no guess", "A/B", map[string]string{tab: "FR\t+0+0\tA/B\nDE\t+0+0\tA/B\n"}, "", ""},
		{"no table", "Europe/Paris", nil, "", "names no country"},
		{"old name", "Asia/Calcutta", map[string]string{tab: zoneTab}, "IN", ""},
		{"old area", "US/Pacific", nil, "US", ""},
		{"nothing at all", "", nil, "", "not known"},
		{"garbage", "\x00\n../../etc/passwd", map[string]string{tab: "FR\n\t\t\nFRA\t+0+0\tx\n"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := sealed(t, map[string]string{"TZ": c.tz})
			env.Root = tree(t, c.files)
			country, how := guessCountry(env)
			if country != c.country || !strings.Contains(how, c.how) {
				t.Errorf("%q, %q; want %q, %q", country, how, c.country, c.how)
			}
		})
	}
}

// A guess that the tables have no figure for is not a place.
func TestGuessWithoutFigure(t *testing.T) {
	env := sealed(t, map[string]string{"TZ": "Europe/Vaduz"})
	env.Root = tree(t, map[string]string{"usr/share/zoneinfo/zone.tab": zoneTab})
	loc, err := Locate(Location{}, env)
	if err != nil || loc.Zone() != world || loc.Source != FromNothing || !strings.Contains(loc.Detail, "is in LI, for which there is no figure") {
		t.Errorf("%+v, %v", loc, err)
	}
}

func TestLegacyZones(t *testing.T) {
	tab := tablesOf(t)
	for _, m := range []map[string]string{legacyZones, legacyAreas} {
		for zone, code := range m {
			if tab.zones[code] == nil {
				t.Errorf("%s: %s has no figure", zone, code)
			}
		}
	}
}

func FuzzZoneTab(f *testing.F) {
	f.Add(zoneTab, "Europe/Paris")
	f.Add(zone1970Tab, "Europe/Berlin")
	f.Add("FR\t\t\n,\t\t", "")
	f.Fuzz(func(t *testing.T, table, zone string) {
		for _, code := range countriesOfZone(strings.NewReader(table), zone) {
			if !isAlpha2(code) {
				t.Fatalf("%q is no country code", code)
			}
		}
		if name := zoneName(zone); strings.ContainsAny(name, ". \n\x00") {
			t.Fatalf("%q is no name of a zone", name)
		}
	})
}
