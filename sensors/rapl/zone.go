package rapl

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

const (
	msrControl  = "intel-rapl" // on AMD processors as well
	mmioControl = "intel-rapl-mmio"
)

// zone is one directory of the powercap tree.
type zone struct {
	id      string // its directory: "intel-rapl:0:1"
	control string // the driver's register interface: msrControl or mmioControl
	numbers []int  // of its id: 0, 1
	path    string // <sys>/class/powercap/<id>
	name    string // what it counts: "package-0", "dram"
	parent  *zone
	err     error // why the name is not known

	dangling bool // sysfs links to it, and there is nothing
}

// compare orders zones as their drivers number them.
func (z *zone) compare(other *zone) int {
	return cmp.Or(strings.Compare(z.control, other.control), slices.Compare(z.numbers, other.numbers))
}

// parseZoneID splits the name of a zone's directory: "intel-rapl:0:1".
func parseZoneID(id string) (control string, numbers []int, ok bool) {
	control, rest, ok := strings.Cut(id, ":")
	if !ok || control != msrControl && control != mmioControl {
		return "", nil, false
	}
	for s := range strings.SplitSeq(rest, ":") {
		n, ok := parseNumber(s)
		if !ok {
			return "", nil, false
		}
		numbers = append(numbers, n)
	}
	return control, numbers, true
}

// parsePackage splits the name of a package zone, "package-1" or, where the
// kernel sees several dies in a package, "package-1-die-0"; die is -1 for the
// former.
func parsePackage(name string) (pkg, die int, ok bool) {
	rest, ok := strings.CutPrefix(name, "package-")
	if !ok {
		return 0, 0, false
	}
	p, d, multi := strings.Cut(rest, "-die-")
	if pkg, ok = parseNumber(p); !ok {
		return 0, 0, false
	}
	if !multi {
		return pkg, -1, true
	}
	die, ok = parseNumber(d)
	return pkg, die, ok
}

// parseNumber accepts what the kernel prints for an index, and no sign.
func parseNumber(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

// readZones reads the tree of powercap zones, in the order of their numbers.
// A zone whose name cannot be read is among them with its error.
func readZones(sys string) ([]*zone, error) {
	dir := filepath.Join(sys, "class", "powercap")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	byID := map[string]*zone{}
	var zones []*zone
	linked := map[string]string{}
	for _, e := range entries {
		control, numbers, ok := parseZoneID(e.Name())
		if !ok {
			continue
		}
		z := &zone{id: e.Name(), control: control, numbers: numbers, path: filepath.Join(dir, e.Name())}
		if e.Type()&fs.ModeSymlink != 0 {
			linked[z.id], z.err = filepath.EvalSymlinks(z.path)
			z.dangling = errors.Is(z.err, fs.ErrNotExist)
		}
		if z.err == nil {
			z.name, z.err = readName(z.path)
		}
		byID[z.id] = z
		zones = append(zones, z)
	}
	for _, z := range zones {
		z.parent = byID[parentID(z.id, linked[z.id])]
	}
	slices.SortFunc(zones, (*zone).compare)
	return zones, nil
}

// parentID returns the directory above a zone: that of the resolved path where
// sysfs links to one, else the number without its last part.
func parentID(id, resolved string) string {
	if resolved != "" {
		return filepath.Base(filepath.Dir(resolved))
	}
	return id[:strings.LastIndexByte(id, ':')]
}

func readName(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join(path, "name"))
	return strings.TrimSpace(string(text)), err
}

// domain is what a zone counts.
type domain struct {
	sensors.Component
	pkg, die int // die is -1 for the whole package
	*zone
}

// group is what a device, or the dies of one, count: a component of a package.
type group struct {
	sensors.Component
	pkg int
}

func (d domain) group() group { return group{d.Component, d.pkg} }

// id is the device's: "package-0", "dram-1", "package-0-die-1".
func (d domain) id() string {
	if d.die < 0 {
		return d.socket()
	}
	return fmt.Sprintf("%s-die-%d", d.socket(), d.die)
}

// socket is the ID of the whole that a die is in.
func (d domain) socket() string {
	if d.Component == sensors.Memory {
		return fmt.Sprintf("dram-%d", d.pkg)
	}
	return fmt.Sprintf("package-%d", d.pkg)
}

// cut chooses from the tree the zones that together count each joule once:
// packages, which contain core and uncore, and dram, which no package contains
// although it stands below one. psys contains the packages and an unknown part
// of the board. What is chosen is grouped by component and package; a group
// has several zones where the kernel sees several dies.
//
// A memory-mapped zone is a second view of the package that the MSR shows, and
// is chosen only where the MSR does not show it.
func cut(zones []*zone) (groups [][]domain, twins []domain) {
	var all []domain
	loose := 0 // dram zones that stand below no package
	for _, z := range zones {
		if z.err != nil {
			continue
		}
		if pkg, die, ok := parsePackage(z.name); ok {
			all = append(all, domain{sensors.CPU, pkg, die, z})
			continue
		}
		if z.name != "dram" {
			continue
		}
		d := domain{sensors.Memory, loose, -1, z}
		if pkg, die, ok := z.parent.pkg(); ok {
			d.pkg, d.die = pkg, die
		} else {
			loose++
		}
		all = append(all, d)
	}
	same := func(a domain) func(domain) bool {
		return func(b domain) bool { return a.group() == b.group() }
	}
	for _, d := range all {
		// MSR zones come first: their control sorts before the other.
		i := slices.IndexFunc(groups, func(g []domain) bool { return same(d)(g[0]) })
		switch {
		case i < 0:
			groups = append(groups, []domain{d})
		case groups[i][0].control != d.control:
			twins = append(twins, d)
		default:
			groups[i] = append(groups[i], d)
		}
	}
	for _, g := range groups {
		slices.SortStableFunc(g, func(a, b domain) int { return cmp.Compare(a.die, b.die) })
	}
	slices.SortStableFunc(groups, func(a, b []domain) int {
		return cmp.Or(strings.Compare(string(a[0].Component), string(b[0].Component)), cmp.Compare(a[0].pkg, b[0].pkg))
	})
	return groups, twins
}

// pkg returns the package that z, or the zone it stands in, counts.
func (z *zone) pkg() (pkg, die int, ok bool) {
	for ; z != nil; z = z.parent {
		if pkg, die, ok = parsePackage(z.name); ok {
			return pkg, die, true
		}
	}
	return 0, 0, false
}

// Bounds of what a processor or its memory draws. A limit above saneLimit is a
// firmware's way to say that there is none. A bound below leastBound would be
// finer than the limits are honest: firmware understates that of memory, and a
// laptop exceeds its long-term limit severalfold for seconds.
const (
	packageBound sensors.Watts = 2000
	dramBound    sensors.Watts = 1000
	leastBound   sensors.Watts = 250
	saneLimit    sensors.Watts = 1500
)

// maxPower returns the most that a domain can plausibly draw: three times the
// largest of its long-term and short-term limits and its thermal design power,
// whichever it has. Limits can be lowered and raised while a job runs, and the
// bound must hold then too: it is there to tell nonsense from energy, not to
// be close.
func (d domain) maxPower() sensors.Watts {
	var limit sensors.Watts
	for i := range 2 { // long_term, short_term; what follows is for milliseconds
		for _, what := range []string{"power_limit", "max_power"} {
			uw, err := readNumber(filepath.Join(d.path, fmt.Sprintf("constraint_%d_%s_uw", i, what)))
			if w := sensors.Watts(float64(uw) / 1e6); err == nil && w <= saneLimit {
				limit = max(limit, w)
			}
		}
	}
	switch {
	case limit >= 1:
		return max(3*limit, leastBound)
	case d.Component == sensors.Memory:
		return dramBound
	default:
		return packageBound
	}
}

// period returns the number of microjoules after which the counter of a domain
// starts again: the largest value and one unit, as the hardware counts 2³²
// units.
func (d domain) period() (uint64, error) {
	largest, err := readNumber(filepath.Join(d.path, "max_energy_range_uj"))
	if err != nil {
		return 0, err
	}
	if largest == 0 || largest > 1<<62 {
		return 0, fmt.Errorf("max_energy_range_uj is %d", largest)
	}
	return largest + max((largest+1<<31)/(1<<32-1), 1), nil
}

func readNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, ok := parseEnergy(text)
	if !ok {
		return 0, fmt.Errorf("%s: %q is not a number", path, text)
	}
	return n, nil
}
