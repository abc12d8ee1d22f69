package host

import (
	"slices"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

// What processors say of themselves, and the row that is theirs; "" where the
// table has none, and nothing similar may be taken instead.
var models = []struct {
	says string
	row  string
	tdp  sensors.Watts
}{
	{"AMD EPYC 7763 64-Core Processor", "AMD EPYC 7763", 280},
	{"AMD EPYC 7713 64-Core Processor", "AMD EPYC 7713", 225},
	{"AMD EPYC 7702P 64-Core Processor", "AMD EPYC 7702P", 200},
	{"AMD EPYC 7702 64-Core Processor", "AMD EPYC 7702", 200},
	{"AMD EPYC 9654 96-Core Processor", "AMD EPYC 9654", 360},
	{"AMD EPYC 7401P 24-Core Processor", "AMD EPYC 7401P", 170},
	{"AMD Opteron(tm) Processor 6376", "AMD Opteron 6376", 115},
	{"AMD FX(tm)-8350 Eight-Core Processor", "AMD FX-8350", 125},
	{"AMD Ryzen 9 5950X 16-Core Processor", "AMD Ryzen 9 5950X", 105},
	{"AMD Ryzen 7 5800X3D 8-Core Processor", "AMD Ryzen 7 5800X3D", 105},
	{"AMD Ryzen 7 5800X 8-Core Processor", "AMD Ryzen 7 5800X", 105},
	{"AMD Ryzen 3 PRO 5350GE with Radeon Graphics", "AMD Ryzen 3 PRO 5350GE", 35},
	{"AMD Ryzen 9 7940HS w/ Radeon 780M Graphics", "AMD Ryzen 9 7940HS", 54},
	{"AMD RYZEN AI MAX+ PRO 395 w/ Radeon 8060S", "AMD Ryzen AI Max+ PRO 395", 55},
	{"AMD Ryzen AI 9 HX 370 w/ Radeon 890M", "AMD Ryzen AI 9 HX 370", 28},
	{"AMD Ryzen Threadripper 3990X 64-Core Processor", "AMD Ryzen Threadripper 3990X", 280},
	{"AMD Ryzen Threadripper PRO 5995WX 64-Cores", "AMD Ryzen Threadripper PRO 5995WX", 280},
	{"AMD Ryzen Z1 Extreme", "AMD Ryzen Z1 Extreme", 28},
	{"AMD A10-8700P Radeon R6, 10 Compute Cores 4C+6G", "AMD A10-8700P", 15},
	{"AMD Phenom(tm) II 1045T Processor", "AMD Phenom II 1045T", 95},

	{"Intel(R) Core(TM) i7-4790 CPU @ 3.60GHz", "Intel Core i7-4790", 84},
	{"Intel(R) Core(TM) i5-8259U CPU @ 2.30GHz", "Intel Core i5-8259U", 28},
	{"11th Gen Intel(R) Core(TM) i9-11900K @ 3.50GHz", "Intel Core i9-11900K", 125},
	{"11th Gen Intel(R) Core(TM) i9-11900 @ 2.50GHz", "Intel Core i9-11900", 65},
	{"Intel(R) Core(TM) i9-10980XE CPU @ 3.00GHz", "Intel Core i9-10980XE", 165},
	{"Intel(R) Core(TM) m3-7Y30 CPU @ 1.00GHz", "Intel Core m3-7Y30", 4.5},
	{"Intel(R) N100", "Intel N100", 6},
	{"Intel(R) Celeron(R) CPU G1820T @ 2.40GHz", "Intel Celeron G1820T", 35},
	{"Intel(R) Pentium(R) Gold 5405U CPU @ 2.30GHz", "Intel Pentium Gold 5405U", 15},
	{"Intel(R) Pentium(R) Silver N5030 CPU @ 1.10GHz", "Intel Pentium Silver N5030", 6},
	{"Intel(R) Atom(TM) CPU E3805 @ 1.33GHz", "Intel Atom E3805", 3},
	{"Intel(R) Xeon Phi(TM) CPU 7210 @ 1.30GHz", "Intel Xeon Phi 7210", 215},
	{"Intel(R) Xeon(R) CPU           X5660  @ 2.80GHz", "Intel Xeon X5660", 95},
	{"Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz", "Intel Xeon E5-2670", 115},
	{"Intel(R) Xeon(R) CPU E5-2670 v2 @ 2.50GHz", "Intel Xeon E5-2670 v2", 115},
	{"Intel(R) Xeon(R) CPU E5-2670 v3 @ 2.30GHz", "Intel Xeon E5-2670 v3", 120},
	{"Intel(R) Xeon(R) CPU E3-1260L @ 2.40GHz", "Intel Xeon E3-1260L", 45},
	{"Intel(R) Xeon(R) E-2186M  CPU @ 2.90GHz", "Intel Xeon E-2186M", 45},
	{"Intel(R) Xeon(R) W-1370P @ 3.60GHz", "Intel Xeon W-1370P", 125},
	{"Intel(R) Xeon(R) D-2141I CPU @ 2.20GHz", "Intel Xeon D-2141I", 65},
	{"Intel(R) Xeon(R) Gold 6338T CPU @ 2.10GHz", "Intel Xeon Gold 6338T", 165},
	{"Intel(R) Xeon(R) Silver 4416+", "Intel Xeon Silver 4416+", 165},
	{"INTEL(R) XEON(R) PLATINUM 8460Y+", "Intel Xeon Platinum 8460Y+", 300},
	{"Intel(R) Xeon(R) CPU Max 9468", "Intel Xeon Max 9468", 350},
	{"Intel(R) Xeon(R) 6740E", "Intel Xeon 6740E", 250},

	// Cloud-only, hidden, unlisted, or one letter off.
	{"Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "", 0},
	{"Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", "", 0},
	{"Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", "", 0},
	{"AMD EPYC 7R13 Processor", "", 0},
	{"AMD EPYC 7B12", "", 0},
	{"AMD EPYC", "", 0},
	{"AMD EPYC Processor", "", 0},
	{"AMD EPYC-Milan Processor", "", 0},
	{"Intel Xeon Processor (Skylake, IBRS)", "", 0},
	{"Intel(R) Xeon(R) Processor @ 2.20GHz", "", 0},
	{"QEMU Virtual CPU version 2.5+", "", 0},
	{"Common KVM processor", "", 0},
	{"12th Gen Intel(R) Core(TM) i9-12900K", "", 0},
	{"Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", "", 0}, // the table has i7-1185G7E
	{"Intel(R) Core(TM) i7-4790X CPU @ 3.60GHz", "", 0},
	{"Intel(R) Core(TM) i7-479 CPU @ 3.60GHz", "", 0},
	{"Neoverse-N1", "", 0},
	{"", "", 0},
}

func TestLookup(t *testing.T) {
	for _, m := range models {
		got, ok := lookup(clean(m.says))
		if ok != (m.row != "") || got.name != m.row || got.tdp != m.tdp {
			t.Errorf("%q (%q) is taken for %q, %v; want %q, %v", m.says, clean(m.says), got.name, got.tdp, m.row, m.tdp)
		}
	}
}

func TestTable(t *testing.T) {
	last, n := "", 0
	for name, fields := range processors() {
		n++
		p := parseProcessor(name, fields)
		if clean(name) != name {
			t.Errorf("%q: clean makes %q of it", name, clean(name))
		}
		if l := strings.ToLower(name); l <= last {
			t.Errorf("%q is not after %q", name, last)
		} else {
			last = l
		}
		if !(p.tdp > 0 && p.tdp <= 1000) || p.cores < 0 || p.cores > 512 || p.year != 0 && (p.year < 1990 || p.year > 2040) {
			t.Errorf("%+v is not a processor", p)
		}
	}
	if n < 2800 {
		t.Errorf("%d processors", n)
	}
	for l := range strings.Lines(table) {
		f := strings.Split(strings.TrimSuffix(l, "\n"), ",")
		if len(f) != 6 || !slices.Contains([]string{"source", "intel-ark-2025", "amd-specs-2025", "vendor-arm-specs"}, f[5]) {
			t.Errorf("line %q", l)
		}
	}
}

// Every generation has models in the table, and a plausible TDP per core.
func TestGenerations(t *testing.T) {
	for _, g := range generations {
		name := "AMD EPYC"
		if g.vendor == "Intel" {
			name = "Intel Xeon"
		}
		c := classify(Machine{Vendor: g.vendor, Family: g.family, ModelNumber: g.models[0]}, name)
		if c.name != g.name || c.unknown || c.perCore < 2 || c.perCore > 15 {
			t.Errorf("%s: %+v", g.name, c)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		says    string
		m       Machine
		class   string
		unknown bool
	}{
		{"AMD EPYC", Machine{Vendor: "AMD", Family: 25, ModelNumber: 1}, "AMD EPYC 7003", false},
		{"AMD EPYC 7R13 Processor", Machine{Vendor: "AMD", Family: 25, ModelNumber: 1}, "AMD EPYC 7003", false},
		{"AMD EPYC 7R13 Processor", Machine{}, "AMD EPYC", false},
		{"Intel(R) Xeon(R) Processor @ 2.20GHz", Machine{Vendor: "Intel", Family: 6, ModelNumber: 143}, "Intel Xeon Scalable, 4th generation", false},
		{"Intel Xeon Processor (Skylake, IBRS)", Machine{Vendor: "Intel", Family: 6, ModelNumber: 85}, "Intel Xeon Scalable, 1st and 2nd generation", false},
		{"Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", Machine{Vendor: "Intel", Family: 6, ModelNumber: 79}, "Intel Xeon v4", false},
		{"Intel(R) Core(TM) i9-7999X CPU @ 2.30GHz", Machine{Vendor: "Intel", Family: 6, ModelNumber: 85}, "Intel Core i9", false},
		{"12th Gen Intel(R) Core(TM) i9-12900K", Machine{Vendor: "Intel", Family: 6, ModelNumber: 151}, "Intel Core i9", false},
		{"AMD Ryzen 9 9999X 16-Core Processor", Machine{Vendor: "AMD"}, "AMD Ryzen 9", false},
		{"Neoverse-V1", Machine{Vendor: "Arm", arm: true}, "Arm servers", false},
		{"Cortex-A72", Machine{Vendor: "Arm", arm: true}, "Arm servers", true},
		{"Apple M2", Machine{Vendor: "Apple", arm: true}, "Arm servers", true},
		{"QEMU Virtual CPU version 2.5+", Machine{Vendor: "AMD", Family: 15, ModelNumber: 107}, "all processors since 2017", true},
		{"", Machine{}, "all processors since 2017", true},
	} {
		if c := classify(test.m, clean(test.says)); c.name != test.class || c.unknown != test.unknown || !(c.perCore > 1 && c.perCore < 15) {
			t.Errorf("%q: %+v, want %s, unknown %v", test.says, c, test.class, test.unknown)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, m := range models {
		f.Add(m.says)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c := clean(name)
		if len(c) > len(name) {
			t.Errorf("clean(%q) = %q is longer", name, c)
		}
		if strings.ContainsAny(c, "@(,") || strings.TrimSpace(c) != c {
			t.Errorf("clean(%q) = %q", name, c)
		}
		if p, ok := lookup(c); ok && !strings.EqualFold(p.name, c) {
			t.Errorf("%q is taken for %q", name, p.name)
		}
		_ = line(c)
	})
}

func BenchmarkLookup(b *testing.B) {
	for b.Loop() {
		lookup("Intel Xeon X7560")
	}
}

func BenchmarkClassify(b *testing.B) {
	for b.Loop() {
		classify(Machine{}, "")
	}
}
