//go:build linux

package rapl

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

func TestParsePackage(t *testing.T) {
	for name, want := range map[string]string{
		"package-0": "0 -1", "package-15": "15 -1", "package-3-die-12": "3 12",
		"package": "", "package-": "", "package--1": "", "package-+1": "", "package-0-die-": "", "package-0-die-x": "",
		"package-0-die--1": "", "core": "", "psys": "", "dram": "", "": "", "package-99999999999": "", "Package-0": "",
	} {
		got := ""
		if pkg, die, ok := parsePackage(name); ok {
			got = fmt.Sprint(pkg, " ", die)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestParseZoneID(t *testing.T) {
	for id, want := range map[string]string{
		"intel-rapl:0": "intel-rapl [0]", "intel-rapl:10:2": "intel-rapl [10 2]", "intel-rapl-mmio:0": "intel-rapl-mmio [0]",
		"intel-rapl": "", "intel-rapl:": "", "intel-rapl:0:": "", "intel-rapl:-1": "", "dtpm:0": "", "": "", "intel-rapl:a": "",
	} {
		got := ""
		if control, numbers, ok := parseZoneID(id); ok {
			got = fmt.Sprint(control, " ", numbers)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

func TestMaxPower(t *testing.T) {
	for name, c := range map[string]struct {
		component sensors.Component
		zone      sensortest.Zone
		want      sensors.Watts
	}{
		"nothing known":                {sensors.CPU, sensortest.Zone{}, 2000},
		"nothing known of memory":      {sensors.Memory, sensortest.Zone{}, 1000},
		"long term":                    {sensors.CPU, sensortest.Zone{LongTerm: 205}, 615},
		"a laptop bursts":              {sensors.CPU, sensortest.Zone{LongTerm: 15, ShortTerm: 64}, 250},
		"short term above three times": {sensors.CPU, sensortest.Zone{LongTerm: 35, ShortTerm: 157}, 471},
		"capped for now":               {sensors.CPU, sensortest.Zone{LongTerm: 60, ShortTerm: 60, Design: 350}, 1050},
		"firmware's unlimited":         {sensors.CPU, sensortest.Zone{LongTerm: 4095, Design: 225}, 675},
		"nothing but unlimited":        {sensors.CPU, sensortest.Zone{LongTerm: 4095}, 2000},
		"memory, understated":          {sensors.Memory, sensortest.Zone{Design: 41.25}, 250},
		"memory, limit of zero":        {sensors.Memory, sensortest.Zone{Design: 122}, 366},
	} {
		t.Run(name, func(t *testing.T) {
			c.zone.ID, c.zone.Name = "intel-rapl:0", "package-0"
			tree := sensortest.NewSysfs(t, sensortest.Machine{Zones: []sensortest.Zone{c.zone}})
			d := domain{Component: c.component, zone: &zone{path: tree.ZoneDir("intel-rapl:0")}}
			if got := d.maxPower(); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestPeriod(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.Machine{Zones: []sensortest.Zone{{ID: "intel-rapl:0", Name: "package-0"}}})
	d := domain{zone: &zone{path: tree.ZoneDir("intel-rapl:0")}}
	if p, err := d.period(); err == nil {
		t.Errorf("period %d without a file", p)
	}
	for text, want := range map[string]uint64{
		"262143328850\n": 262143328911, // 61 µJ
		"65532610987\n":  65532611002,  // 15 µJ
		"65712999613\n":  65712999628,
		"4294967295\n":   4294967296, // 1 µJ
		"1000\n":         1001,
		"1":              2,
		"0\n":            0, "-1\n": 0, "": 0, "18446744073709551615\n": 0, "18446744073709551616\n": 0, "unknown\n": 0,
	} {
		tree.Write(strings.TrimPrefix(d.path, tree.Root)+"/max_energy_range_uj", text)
		got, err := d.period()
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestProcessor(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want processor
	}{
		"intel":  {"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon @ 3: GHz\nflags\t\t: fpu vme\n\nmodel name : other\n", processor{model: "Xeon @ 3: GHz", vendor: "Intel"}},
		"guest":  {"vendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor lahf_lm\n", processor{vendor: "AMD", virtual: true}},
		"hygon":  {"vendor_id : HygonGenuine", processor{vendor: "Hygon"}},
		"others": {"vendor_id : CentaurHauls\n", processor{vendor: "CentaurHauls"}},
		"arm":    {"processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n", processor{}},
		"empty":  {"", processor{}},
	} {
		if got := parseProcessor(strings.NewReader(c.text)); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := readProcessor(t.TempDir()); got != (processor{}) {
		t.Errorf("without a file: %+v", got)
	}
}

func FuzzZoneNames(f *testing.F) {
	for _, s := range []string{"package-0", "package-15-die-3", "intel-rapl:0:1", "intel-rapl-mmio:12", "package-00", "dram"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if pkg, die, ok := parsePackage(s); ok {
			// What is understood has one meaning: but for leading zeros, it is
			// what the parts print as.
			back := fmt.Sprintf("package-%d", pkg)
			if die >= 0 {
				back += fmt.Sprintf("-die-%d", die)
			}
			if p, d, ok := parsePackage(back); !ok || p != pkg || d != die || len(back) > len(s) {
				t.Errorf("%q: %d, %d", s, pkg, die)
			}
		}
		if control, numbers, ok := parseZoneID(s); ok {
			if len(numbers) == 0 || !strings.HasPrefix(s, control+":") || strings.Count(s, ":") != len(numbers) {
				t.Errorf("%q: %q, %v", s, control, numbers)
			}
			_ = parentID(s, "")
		}
	})
}

func FuzzProcessor(f *testing.F) {
	f.Add("vendor_id\t: GenuineIntel\nmodel name\t: x\nflags : hypervisor\n\n")
	f.Fuzz(func(t *testing.T, s string) {
		if p := parseProcessor(strings.NewReader(s)); len(p.model) > len(s) || strings.Contains(p.model, "\n") {
			t.Errorf("%q: %+v", s, p)
		}
	})
}
