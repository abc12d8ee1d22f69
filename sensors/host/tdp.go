package host

import (
	_ "embed"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// table has one processor a line: name, TDP in W, cores, launch year, vendor,
// source; data/README.md describes it. It is scanned, not parsed: one lookup per
// process does not pay for an index.
//
//go:embed data/cpu_tdp.csv
var table string

// processor is a line of the table. cores and year are 0 where the vendor does
// not say.
type processor struct {
	name  string
	tdp   sensors.Watts
	cores int
	year  int
}

// processors iterates over the table, as names with the rest of their lines:
// most of them are not what is looked for, and need no parsing.
func processors() iter.Seq2[string, string] {
	return func(yield func(name, fields string) bool) {
		_, rest, _ := strings.Cut(table, "\n") // the header
		for rest != "" {
			var line string
			line, rest, _ = strings.Cut(rest, "\n")
			name, fields, ok := strings.Cut(line, ",")
			if ok && !yield(name, fields) {
				return
			}
		}
	}
}

func parseProcessor(name, fields string) processor {
	tdp, fields, _ := strings.Cut(fields, ",")
	cores, fields, _ := strings.Cut(fields, ",")
	year, _, _ := strings.Cut(fields, ",")
	p := processor{name: name}
	w, _ := strconv.ParseFloat(tdp, 64)
	p.tdp = sensors.Watts(w)
	p.cores, _ = strconv.Atoi(cores)
	p.year, _ = strconv.Atoi(year)
	return p
}

// lookup finds a processor by its clean name, exactly but for the case: a
// suffix of one letter can halve or double the TDP, so that a name which is
// nearly right is wrong.
func lookup(name string) (processor, bool) {
	for n, fields := range processors() {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return parseProcessor(n, fields), true
		}
	}
	return processor{}, false
}

// clean reduces the name a processor gives of itself to the model, as it stands
// in the table: "Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz" to
// "Intel Xeon E5-2670", "AMD EPYC 7763 64-Core Processor" to "AMD EPYC 7763".
func clean(name string) string {
	// Marks go without leaving a space, "FX(tm)-8350"; other brackets hold
	// remarks, "(Skylake, IBRS)".
	for {
		open := strings.IndexByte(name, '(')
		if open < 0 {
			break
		}
		end := strings.IndexByte(name[open:], ')')
		if end < 0 {
			name = name[:open]
			break
		}
		name = name[:open] + name[open+end+1:]
	}
	name = strings.NewReplacer("®", "", "™", "").Replace(name)
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ",")

	words := strings.Fields(name)
	kept := words[:0]
	for _, w := range words {
		switch lower := strings.ToLower(w); {
		case lower == "with", lower == "w/", lower == "radeon":
			// What follows is the graphics.
			return strings.Join(kept, " ")
		case lower == "cpu", lower == "processor", lower == "apu",
			lower == "x-series",
			strings.HasSuffix(lower, "-core"), strings.HasSuffix(lower, "-cores"):
		case lower == "gen" && len(kept) > 0 && ordinal(kept[len(kept)-1]):
			kept = kept[:len(kept)-1]
		case lower == "edition" && len(kept) > 0 && strings.EqualFold(kept[len(kept)-1], "Extreme"):
			// But "Ryzen Z1 Extreme" is another model than "Ryzen Z1".
			kept = kept[:len(kept)-1]
		case len(kept) > 0 && w == kept[len(kept)-1]:
			// "AMD 7th Gen AMD A10-9700".
		default:
			kept = append(kept, w)
		}
	}
	// Intel's first E5 say "E5-2670 0" where the later ones say "v2".
	if n := len(kept); n > 2 && kept[n-1] == "0" {
		kept = kept[:n-1]
	}
	return strings.Join(kept, " ")
}

// ordinal recognises the "12th" of "12th Gen".
func ordinal(w string) bool {
	return len(w) > 2 && w[0] >= '0' && w[0] <= '9' &&
		slices.Contains([]string{"st", "nd", "rd", "th"}, strings.ToLower(w[len(w)-2:]))
}

// class is a group of processors that one cannot tell apart.
type class struct {
	name string
	// perCore is the TDP per core of the median core: each model counts as
	// often as it has cores. The plain median over models is up to 1.7 times
	// higher, pulled up by the many models with few fast cores, of which few
	// are deployed and none is rented out.
	perCore sensors.Watts
	unknown bool
}

// sierraForest has a number here because it has no SMT.
const sierraForest = 0xAF

// generations are the server processors by CPUID, which survives where a cloud
// or a hypervisor hides the model: "AMD EPYC", "Intel Xeon Processor
// (Icelake)", and the models that are made for one cloud and are in no list,
// "Xeon Platinum 8481C", "EPYC 7R13".
var generations = []struct {
	name     string
	vendor   string
	family   int
	models   []int
	patterns []string
}{
	{"AMD EPYC 7001", "AMD", 0x17, []int{0x01}, []string{"AMD EPYC 7??1*"}},
	{"AMD EPYC 7002", "AMD", 0x17, []int{0x31}, []string{"AMD EPYC 7??2*"}},
	{"AMD EPYC 7003", "AMD", 0x19, []int{0x01}, []string{"AMD EPYC 7??3*"}},
	{"AMD EPYC 9004", "AMD", 0x19, []int{0x10, 0x11, 0xA0}, []string{"AMD EPYC 9??4*", "AMD EPYC 8??4*"}},
	{"AMD EPYC 9005", "AMD", 0x1A, []int{0x02, 0x10, 0x11}, []string{"AMD EPYC 9??5*"}},
	{"Intel Xeon E5", "Intel", 6, []int{0x2D}, []string{"Intel Xeon E5-????", "Intel Xeon E5-????L"}},
	{"Intel Xeon v2", "Intel", 6, []int{0x3E}, []string{"Intel Xeon E[57]-* v2"}},
	{"Intel Xeon v3", "Intel", 6, []int{0x3F}, []string{"Intel Xeon E[57]-* v3"}},
	{"Intel Xeon v4", "Intel", 6, []int{0x4F}, []string{"Intel Xeon E[57]-* v4"}},
	{"Intel Xeon Scalable, 1st and 2nd generation", "Intel", 6, []int{0x55}, scalable("[12]")},
	// 0x86 is what QEMU calls an Ice Lake server.
	{"Intel Xeon Scalable, 3rd generation", "Intel", 6, []int{0x6A, 0x6C, 0x86}, scalable("3")},
	{"Intel Xeon Scalable, 4th generation", "Intel", 6, []int{0x8F}, scalable("4")},
	{"Intel Xeon Scalable, 5th generation", "Intel", 6, []int{0xCF}, scalable("5")},
	{"Intel Xeon 6 (P-cores)", "Intel", 6, []int{0xAD, 0xAE}, []string{"Intel Xeon 6???P*"}},
	{"Intel Xeon 6 (E-cores)", "Intel", 6, []int{sierraForest}, []string{"Intel Xeon 6???E*"}},
}

func scalable(generation string) []string {
	return []string{
		"Intel Xeon Platinum ?" + generation + "*",
		"Intel Xeon Gold ?" + generation + "*",
		"Intel Xeon Silver ?" + generation + "*",
	}
}

// classify finds the class of a processor that is not in the table: its server
// generation, else the models whose names begin like its own, else all Arm
// servers or, for lack of anything, all that is recent.
func classify(m Machine, name string) class {
	for _, g := range generations {
		// A client or workstation of the same silicon keeps its own line.
		server := strings.Contains(name, "EPYC") || strings.Contains(strings.ToLower(name), "xeon")
		if server && g.vendor == m.Vendor && g.family == m.Family && slices.Contains(g.models, m.ModelNumber) {
			w, _ := medianPerCore(func(p processor) bool {
				return slices.ContainsFunc(g.patterns, func(pattern string) bool { return matches(pattern, p.name) })
			})
			return class{name: g.name, perCore: w}
		}
	}
	if l := line(name); l != "" {
		w, models := medianPerCore(func(p processor) bool {
			return len(p.name) >= len(l) && strings.EqualFold(p.name[:len(l)], l)
		})
		if models >= 3 {
			return class{name: strings.TrimRight(l, " -"), perCore: w}
		}
	}
	if m.arm {
		w, _ := medianPerCore(func(p processor) bool {
			return strings.HasPrefix(p.name, "Ampere ") || strings.HasPrefix(p.name, "NVIDIA ")
		})
		return class{name: "Arm servers", perCore: w, unknown: !strings.Contains(name, "Neoverse")}
	}
	w, _ := medianPerCore(func(p processor) bool { return p.year >= 2017 })
	return class{name: "all processors since 2017", perCore: w, unknown: true}
}

// line is what the models of one line share: the name up to the model's number,
// "Intel Core i9-" and "AMD Ryzen 9 ". It is empty for a name without a number.
func line(name string) string {
	at := 0
	for w := range strings.SplitSeq(name, " ") {
		digits := 0
		for _, r := range w {
			if r >= '0' && r <= '9' {
				digits++
			}
		}
		if digits >= 3 {
			return name[:at+strings.LastIndexByte(w, '-')+1]
		}
		at += len(w) + 1
	}
	return ""
}

func matches(pattern, name string) bool {
	ok, _ := path.Match(pattern, name)
	return ok
}

// medianPerCore returns the TDP per core of the median core of the processors
// that are in, and how many models there are.
func medianPerCore(in func(processor) bool) (sensors.Watts, int) {
	type perCore struct {
		watts sensors.Watts
		cores int
	}
	var all []perCore
	total := 0
	for name, fields := range processors() {
		if p := parseProcessor(name, fields); p.cores > 0 && in(p) {
			all = append(all, perCore{p.tdp / sensors.Watts(p.cores), p.cores})
			total += p.cores
		}
	}
	slices.SortFunc(all, func(a, b perCore) int {
		switch {
		case a.watts < b.watts:
			return -1
		case a.watts > b.watts:
			return 1
		}
		return 0
	})
	seen := 0
	for _, p := range all {
		if seen += p.cores; 2*seen >= total {
			return p.watts, len(all)
		}
	}
	return 0, 0
}
