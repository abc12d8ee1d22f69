package emissions

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// guessCountry returns the country of the machine's time zone, as an ISO
// 3166-1 alpha-2 code, and how it was found; or nothing, and why. It reads
// files only: the zone's name from TZ, /etc/localtime or /etc/timezone, its
// country from the table that the system has. A system without these, as
// Windows is, has no guess.
func guessCountry(env Environment) (country, how string) {
	root := env.Root
	if root == "" {
		root = "/"
	}
	how = "the time zone is not known"
	for _, source := range []struct{ name, zone string }{
		{"TZ", env.lookup("TZ")},
		// The link is what the C library follows. /etc/timezone is written
		// beside it and can be stale, but is all there is where localtime is a
		// copy, as in many containers.
		{"/etc/localtime", readLink(filepath.Join(root, "etc/localtime"))},
		{"/etc/timezone", readLine(filepath.Join(root, "etc/timezone"))},
	} {
		zone := zoneName(source.zone)
		if zone == "" {
			continue
		}
		// UTC is a choice of whoever set up the machine, not a place. It and
		// POSIX rules such as CET-1CEST are in no table, and the next source
		// may know more.
		if country := countryOfZone(root, zone); country != "" {
			return country, "time zone " + zone + " of " + source.name + " is in " + country
		}
		how = "time zone " + zone + " of " + source.name + " names no country"
	}
	return "", how
}

// zoneName extracts the name of a zone from a TZ variable, a path or a line.
func zoneName(s string) string {
	s = strings.TrimPrefix(strings.TrimSpace(s), ":")
	// On Windows a link comes with the other slashes.
	s = strings.ReplaceAll(s, `\`, "/")
	const dir = "zoneinfo/"
	if i := strings.LastIndex(s, dir); i >= 0 {
		s = s[i+len(dir):]
	}
	s = strings.TrimPrefix(s, "posix/")
	s = strings.TrimPrefix(s, "right/")
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_+-/", r) {
			return ""
		}
	}
	return s
}

// countryOfZone returns the only country of a zone, or nothing.
func countryOfZone(root, zone string) string {
	for _, path := range []string{
		// zone.tab has one row per country and zone. zone1970.tab merges zones
		// across countries, Stockholm into Berlin, and comes second.
		"usr/share/zoneinfo/zone.tab",
		"usr/share/zoneinfo/zone1970.tab",
		"usr/share/lib/zoneinfo/tab/zone_sun.tab", // illumos
	} {
		f, err := os.Open(filepath.Join(root, path))
		if err != nil {
			continue
		}
		countries := countriesOfZone(f, zone)
		f.Close()
		switch len(countries) {
		case 0:
		case 1:
			return countries[0]
		default:
			// The first one has the largest city, and the machine may well be
			// in another.
			return ""
		}
	}
	if country, ok := legacyZones[zone]; ok {
		return country
	}
	area, _, _ := strings.Cut(zone, "/")
	return legacyAreas[area]
}

// countriesOfZone returns the countries of a zone in a zone table: lines of
// country codes separated by commas, coordinates and zone, separated by tabs.
func countriesOfZone(r io.Reader, zone string) []string {
	var countries []string
	lines := bufio.NewScanner(io.LimitReader(r, 1<<20))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) < 3 || fields[2] != zone {
			continue
		}
		for code := range strings.SplitSeq(fields[0], ",") {
			if isAlpha2(code) && !slices.Contains(countries, code) {
				countries = append(countries, code)
			}
		}
	}
	return countries
}

func isAlpha2(s string) bool {
	return len(s) == 2 && 'A' <= s[0] && s[0] <= 'Z' && 'A' <= s[1] && s[1] <= 'Z'
}

// legacyZones are old names of zones that zone tables no longer list and
// machines still use. The links of the time zone database do not help: since
// 2022 it links Iceland to Abidjan.
var legacyZones = map[string]string{
	"America/Buenos_Aires": "AR",
	"America/Indianapolis": "US",
	"Asia/Calcutta":        "IN",
	"Asia/Chongqing":       "CN",
	"Asia/Dacca":           "BD",
	"Asia/Katmandu":        "NP",
	"Asia/Macao":           "MO",
	"Asia/Rangoon":         "MM",
	"Asia/Saigon":          "VN",
	"Asia/Tel_Aviv":        "IL",
	"Atlantic/Faeroe":      "FO",
	"Cuba":                 "CU",
	"Egypt":                "EG",
	"Eire":                 "IE",
	"Europe/Belfast":       "GB",
	"Europe/Kiev":          "UA",
	"GB":                   "GB",
	"Hongkong":             "HK",
	"Iceland":              "IS",
	"Iran":                 "IR",
	"Israel":               "IL",
	"Jamaica":              "JM",
	"Japan":                "JP",
	"Libya":                "LY",
	"NZ":                   "NZ",
	"PRC":                  "CN",
	"Poland":               "PL",
	"Portugal":             "PT",
	"ROC":                  "TW",
	"ROK":                  "KR",
	"Singapore":            "SG",
	"Turkey":               "TR",
	"W-SU":                 "RU",
}

// legacyAreas are the countries that once had an area of their own:
// US/Pacific.
var legacyAreas = map[string]string{
	"Brazil": "BR",
	"Canada": "CA",
	"Chile":  "CL",
	"Mexico": "MX",
	"US":     "US",
}

func readLink(path string) string {
	target, err := os.Readlink(path)
	if err != nil || !strings.Contains(strings.ReplaceAll(target, `\`, "/"), "zoneinfo/") {
		return "" // a copy, or a link to one
	}
	return target
}

// readLine returns the first line of a small file, or nothing.
func readLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 4096))
	lines.Scan()
	return lines.Text()
}
