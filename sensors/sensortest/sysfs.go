package sensortest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

// Machine describes what a fake tree shows of a computer. The functions that
// return one give common computers; change what a test needs changed.
type Machine struct {
	Vendor  string // as CPUID has it: "GenuineIntel"
	Model   string
	Sockets int
	Threads int    // of all sockets
	Memory  uint64 // in bytes
	// Product is the computer's name in its firmware; Virtual is set where
	// that is a hypervisor.
	Product string
	Virtual bool

	// Zones are its powercap zones, each after the one it stands in.
	Zones []Zone
	// Masked hides the zones as container engines do: what
	// /sys/class/powercap links to is an empty folder.
	Masked bool
	// Flat puts the zones into class/powercap itself. The kernel has links
	// there.
	Flat bool
}

// Zone is one powercap zone.
type Zone struct {
	// ID is the name of its directory: "intel-rapl:0:1" is in "intel-rapl:0".
	ID   string
	Name string
	// Energy is what its counter shows at first, Range the most it can show;
	// 0 leaves max_energy_range_uj away.
	Energy, Range uint64
	// LongTerm and ShortTerm are the limits of its power, Design what it is
	// made for; 0 leaves the file away.
	LongTerm, ShortTerm, Design sensors.Watts
	// Mirrors is the ID of the zone whose counter this one shows.
	Mirrors string
}

// The largest values of common counters, in µJ: 2³² - 1 units.
const (
	rangeIntel = 262143328850 // of 61 µJ
	rangeAMD   = 65532610987  // of 15.3 µJ
	rangeDRAM  = 65712999613  // of 15.3 µJ, on servers
)

// IntelClient is a desktop with one package, the core and graphics in it, the
// platform's psys beside it and a memory-mapped view of the package.
func IntelClient() Machine {
	return Machine{
		Vendor: "GenuineIntel", Model: "12th Gen Intel(R) Core(TM) i7-12700K",
		Sockets: 1, Threads: 20, Memory: 32 << 30, Product: "OptiPlex 7000",
		Zones: []Zone{
			{ID: "intel-rapl:0", Name: "package-0", Energy: 81_234_567_890, Range: rangeIntel, LongTerm: 125, ShortTerm: 190, Design: 125},
			{ID: "intel-rapl:0:0", Name: "core", Energy: 51_234_567_890, Range: rangeIntel},
			{ID: "intel-rapl:0:1", Name: "uncore", Energy: 1_234_567_890, Range: rangeIntel},
			{ID: "intel-rapl:1", Name: "psys", Energy: 181_234_567_890, Range: rangeIntel, LongTerm: 200, ShortTerm: 300},
			{ID: "intel-rapl-mmio:0", Name: "package-0", Energy: 81_234_500_000, Range: rangeIntel, LongTerm: 125, ShortTerm: 190},
		},
	}
}

// IntelServer has two sockets with the DRAM of each, a psys and memory-mapped
// views of the packages. The zones are not numbered as the sockets are.
func IntelServer() Machine {
	return Machine{
		Vendor: "GenuineIntel", Model: "Intel(R) Xeon(R) Gold 6354 CPU @ 3.00GHz",
		Sockets: 2, Threads: 72, Memory: 512 << 30, Product: "PowerEdge R750",
		Zones: []Zone{
			{ID: "intel-rapl:0", Name: "package-1", Energy: 120_000_000_061, Range: rangeIntel, LongTerm: 205, ShortTerm: 246, Design: 205},
			{ID: "intel-rapl:0:0", Name: "dram", Energy: 31_000_000_015, Range: rangeDRAM, Design: 41.25},
			{ID: "intel-rapl:1", Name: "package-0", Energy: 110_000_000_061, Range: rangeIntel, LongTerm: 205, ShortTerm: 246, Design: 205},
			{ID: "intel-rapl:1:0", Name: "dram", Energy: 30_000_000_015, Range: rangeDRAM, Design: 41.25},
			{ID: "intel-rapl:2", Name: "psys", Energy: 0, Range: rangeIntel},
			{ID: "intel-rapl-mmio:0", Name: "package-0", Energy: 110_000_000_000, Range: rangeIntel},
			{ID: "intel-rapl-mmio:1", Name: "package-1", Energy: 120_000_000_000, Range: rangeIntel},
		},
	}
}

// IntelMultiDie has one package of two dies, each with a counter and DRAM of
// its own.
func IntelMultiDie() Machine {
	return Machine{
		Vendor: "GenuineIntel", Model: "Intel(R) Xeon(R) Platinum 9242 CPU @ 2.30GHz",
		Sockets: 1, Threads: 96, Memory: 384 << 30, Product: "S9200WK",
		Zones: []Zone{
			{ID: "intel-rapl:0", Name: "package-0-die-0", Energy: 90_000_000_061, Range: rangeIntel, LongTerm: 175, ShortTerm: 210, Design: 175},
			{ID: "intel-rapl:0:0", Name: "dram", Energy: 21_000_000_015, Range: rangeDRAM},
			{ID: "intel-rapl:1", Name: "package-0-die-1", Energy: 91_000_000_061, Range: rangeIntel, LongTerm: 175, ShortTerm: 210, Design: 175},
			{ID: "intel-rapl:1:0", Name: "dram", Energy: 20_000_000_015, Range: rangeDRAM},
		},
	}
}

// AMDMultiDie has two sockets of two dies, and both dies of a socket show the
// socket's counter.
func AMDMultiDie() Machine {
	return Machine{
		Vendor: "AuthenticAMD", Model: "AMD EPYC 7251 8-Core Processor",
		Sockets: 2, Threads: 32, Memory: 128 << 30, Product: "H11DSi",
		Zones: []Zone{
			{ID: "intel-rapl:0", Name: "package-0-die-0", Energy: 12_345_678_901, Range: rangeAMD},
			{ID: "intel-rapl:0:0", Name: "core", Energy: 345_678_901, Range: rangeAMD},
			{ID: "intel-rapl:1", Name: "package-0-die-1", Range: rangeAMD, Mirrors: "intel-rapl:0"},
			{ID: "intel-rapl:1:0", Name: "core", Energy: 445_678_901, Range: rangeAMD},
			{ID: "intel-rapl:2", Name: "package-1-die-0", Energy: 9_876_543_210, Range: rangeAMD},
			{ID: "intel-rapl:3", Name: "package-1-die-1", Range: rangeAMD, Mirrors: "intel-rapl:2"},
		},
	}
}

// AMDServer has two sockets, one counter for each and none for memory.
func AMDServer() Machine {
	return Machine{
		Vendor: "AuthenticAMD", Model: "AMD EPYC 7763 64-Core Processor",
		Sockets: 2, Threads: 256, Memory: 1 << 40, Product: "PowerEdge R7525",
		Zones: []Zone{
			{ID: "intel-rapl:0", Name: "package-0", Energy: 65_000_000_000, Range: rangeAMD},
			{ID: "intel-rapl:0:0", Name: "core", Energy: 1_000_000_000, Range: rangeAMD},
			{ID: "intel-rapl:1", Name: "package-1", Energy: 3_000_000_000, Range: rangeAMD},
			{ID: "intel-rapl:1:0", Name: "core", Energy: 2_000_000_000, Range: rangeAMD},
		},
	}
}

// VirtualMachine has no powercap at all.
func VirtualMachine() Machine {
	return Machine{
		Vendor: "GenuineIntel", Model: "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz",
		Sockets: 1, Threads: 8, Memory: 32 << 30, Product: "m6i.2xlarge", Virtual: true,
	}
}

// Sysfs is a fake /sys and /proc in a temporary folder, which goes away with
// the test. A zone's counter moves when it is told to, from any goroutine;
// everything else is for the test's own. Windows has no names for such files.
//
// Another process reads it with HOST_SYS and HOST_PROC set to the Roots, and
// can move it with [WriteEnergy] on an [Sysfs.EnergyFile], which is no more
// than a decimal number and a newline written in place. To truncate the file
// first, as a shell's > does, or to rename another over it, does not do: a
// reader that keeps it open would for a moment see an empty file, or for ever
// the old one.
type Sysfs struct {
	Root string

	t       testing.TB
	machine Machine
	mu      sync.Mutex
	energy  map[string]uint64
}

// NewSysfs builds the tree of a machine.
func NewSysfs(t testing.TB, m Machine) *Sysfs {
	t.Helper()
	s := &Sysfs{Root: t.TempDir(), t: t, machine: m, energy: map[string]uint64{}}
	for _, z := range m.Zones {
		s.energy[z.ID] = z.Energy
		if z.Mirrors != "" {
			s.energy[z.ID] = s.energy[z.Mirrors]
		}
		s.build(z)
	}
	if m.Masked {
		s.must(os.RemoveAll(s.path("sys/devices/virtual/powercap")))
		s.must(os.MkdirAll(s.path("sys/devices/virtual/powercap"), 0o755))
	}
	s.Write("sys/class/dmi/id/product_name", m.Product+"\n")
	s.Write("proc/cpuinfo", m.cpuinfo())
	s.Write("proc/meminfo", m.meminfo())
	s.Write("proc/stat", m.stat())
	return s
}

// Roots returns the folders that stand for /sys and /proc.
func (s *Sysfs) Roots() sensors.Roots {
	return sensors.Roots{Sys: s.path("sys"), Proc: s.path("proc")}
}

// Write puts text into a file of the tree, such as "proc/stat": in place where
// there is one, for readers that keep it open.
func (s *Sysfs) Write(name, text string) {
	s.t.Helper()
	path := s.path(name)
	if !exists(path) {
		s.must(os.MkdirAll(filepath.Dir(path), 0o755))
		s.must(os.WriteFile(path, []byte(text), 0o644))
		return
	}
	s.must(writeInPlace(path, text))
	s.must(os.Truncate(path, int64(len(text))))
}

// ZoneDir returns the directory of a zone. It is the real one, not the link in
// class/powercap.
func (s *Sysfs) ZoneDir(zone string) string {
	if s.machine.Flat {
		return s.path("sys/class/powercap", zone)
	}
	control, numbers, _ := strings.Cut(zone, ":")
	dir := s.path("sys/devices/virtual/powercap", control)
	for n := range strings.SplitSeq(numbers, ":") {
		control += ":" + n
		dir = filepath.Join(dir, control)
	}
	return dir
}

// EnergyFile returns the path of a zone's counter.
func (s *Sysfs) EnergyFile(zone string) string {
	return filepath.Join(s.ZoneDir(zone), "energy_uj")
}

// Energy returns what a zone's counter was last set to, in µJ.
func (s *Sysfs) Energy(zone string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.energy[zone]
}

// SetEnergy sets a zone's counter, and those that mirror it, in µJ.
func (s *Sysfs) SetEnergy(zone string, raw uint64) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(zone, raw)
}

// Draw moves a zone's counter, and those that mirror it, on by an energy. It
// wraps where the hardware's does: one unit after its largest value.
func (s *Sysfs) Draw(zone string, energy sensors.Microjoules) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	raw := s.energy[zone] + uint64(energy)
	if period := s.zone(zone).Period(); period > 0 {
		raw %= period
	}
	s.set(zone, raw)
}

// Period returns the energy in µJ after which the zone's counter starts again
// at 0; 0 where it has no range.
func (z Zone) Period() uint64 {
	if z.Range == 0 {
		return 0
	}
	const units = 1<<32 - 1
	return z.Range + max((z.Range+units/2)/units, 1)
}

func (s *Sysfs) set(zone string, raw uint64) {
	s.t.Helper()
	for _, z := range s.machine.Zones {
		if z.ID != zone && z.Mirrors != zone {
			continue
		}
		s.energy[z.ID] = raw
		if path := s.EnergyFile(z.ID); exists(path) {
			s.must(WriteEnergy(path, raw))
		}
	}
}

// Corrupt puts text that is no number into a zone's counter, until it is set
// again. An empty text stands for nothing.
func (s *Sysfs) Corrupt(zone, text string) {
	s.t.Helper()
	s.must(writeInPlace(s.EnergyFile(zone), pad(text)))
}

// Deny takes the permission to read a zone's counter away. The superuser reads
// it all the same.
func (s *Sysfs) Deny(zone string) {
	s.t.Helper()
	s.must(os.Chmod(s.EnergyFile(zone), 0))
}

// Remove takes a zone away, and those in it, as the unloading of its driver
// does. A reader that has the counter open then reads an empty file, where the
// kernel would say ENODEV.
func (s *Sysfs) Remove(zone string) {
	s.t.Helper()
	for _, z := range s.within(zone) {
		s.must(os.Truncate(s.EnergyFile(z.ID), 0))
		s.must(os.RemoveAll(s.path("sys/class/powercap", z.ID)))
	}
	s.must(os.RemoveAll(s.ZoneDir(zone)))
}

// Restore brings back what Remove took away, with the counters as they were
// last set.
func (s *Sysfs) Restore(zone string) {
	s.t.Helper()
	for _, z := range s.within(zone) {
		s.build(z)
	}
}

func (s *Sysfs) within(zone string) []Zone {
	var in []Zone
	for _, z := range s.machine.Zones {
		if z.ID == zone || strings.HasPrefix(z.ID, zone+":") {
			in = append(in, z)
		}
	}
	return in
}

func (s *Sysfs) zone(id string) Zone {
	s.t.Helper()
	i := slices.IndexFunc(s.machine.Zones, func(z Zone) bool { return z.ID == id })
	if i < 0 {
		s.t.Fatalf("sensortest: the machine has no zone %q", id)
	}
	return s.machine.Zones[i]
}

// build writes the files of a zone, and the links to it.
func (s *Sysfs) build(z Zone) {
	s.t.Helper()
	dir := s.ZoneDir(z.ID)
	s.must(os.MkdirAll(dir, 0o755))
	put := func(name, text string) { s.must(os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644)) }
	put("name", z.Name)
	put("enabled", "1")
	if z.Range > 0 {
		put("max_energy_range_uj", strconv.FormatUint(z.Range, 10))
	}
	for i, c := range []struct {
		name          string
		limit, design sensors.Watts
	}{{"long_term", z.LongTerm, z.Design}, {"short_term", z.ShortTerm, 0}} {
		if c.limit == 0 && c.design == 0 {
			continue
		}
		put(fmt.Sprintf("constraint_%d_name", i), c.name)
		put(fmt.Sprintf("constraint_%d_power_limit_uw", i), microwatts(c.limit))
		if c.design > 0 {
			put(fmt.Sprintf("constraint_%d_max_power_uw", i), microwatts(c.design))
		}
	}
	put("energy_uj", "")
	s.must(WriteEnergy(s.EnergyFile(z.ID), s.Energy(z.ID)))

	class := s.path("sys/class/powercap")
	s.must(os.MkdirAll(class, 0o755))
	if s.machine.Flat {
		return
	}
	control, _, _ := strings.Cut(z.ID, ":")
	for _, to := range []string{s.path("sys/devices/virtual/powercap", control), dir} {
		link := filepath.Join(class, filepath.Base(to))
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		relative, err := filepath.Rel(class, to)
		s.must(err)
		s.must(os.Symlink(relative, link))
	}
}

func microwatts(w sensors.Watts) string { return strconv.FormatFloat(float64(w)*1e6, 'f', 0, 64) }

func (s *Sysfs) path(parts ...string) string {
	return filepath.Join(append([]string{s.Root}, parts...)...)
}

func (s *Sysfs) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("sensortest: %v", err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// WriteEnergy sets the counter in an energy_uj file of a fake tree, in µJ, from
// whatever process. A reader that has the file open sees the old value or the
// new one: it is one write, and as long as every other, as newlines fill it up
// to the longest number.
func WriteEnergy(path string, raw uint64) error {
	return writeInPlace(path, pad(strconv.FormatUint(raw, 10)))
}

func pad(text string) string {
	const longest = len("18446744073709551615")
	return text + strings.Repeat("\n", max(longest+1-len(text), 1))
}

// writeInPlace overwrites a file that may be open elsewhere.
func writeInPlace(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// cpuinfo has the lines that programs look at, for every thread.
func (m Machine) cpuinfo() string {
	var b strings.Builder
	flags := "fpu vme de pse tsc msr pae mce cx8 apic sse4_2 x2apic aes avx2"
	if m.Virtual {
		flags += " hypervisor"
	}
	sockets := max(m.Sockets, 1)
	perSocket := max(m.Threads/sockets, 1)
	for i := range m.Threads {
		fmt.Fprintf(&b, "processor\t: %d\nvendor_id\t: %s\ncpu family\t: 6\nmodel\t\t: 106\nmodel name\t: %s\nstepping\t: 6\n"+
			"cpu MHz\t\t: 3000.000\nphysical id\t: %d\nsiblings\t: %d\ncore id\t\t: %d\ncpu cores\t: %d\nflags\t\t: %s\n\n",
			i, m.Vendor, m.Model, min(i/perSocket, sockets-1), perSocket, i%perSocket/2, max(perSocket/2, 1), flags)
	}
	return b.String()
}

func (m Machine) meminfo() string {
	kib := m.Memory / 1024
	return fmt.Sprintf("MemTotal:       %d kB\nMemFree:        %d kB\nMemAvailable:   %d kB\nBuffers:        %d kB\n"+
		"Cached:         %d kB\nSwapCached:     0 kB\nSwapTotal:      0 kB\nSwapFree:       0 kB\n",
		kib, kib/2, kib*3/4, kib/64, kib/4)
}

// stat shows threads that have been a quarter busy for an hour, in ticks of
// 10 ms.
func (m Machine) stat() string {
	var b strings.Builder
	line := func(name string, n int) {
		fmt.Fprintf(&b, "%s %d 0 %d %d 0 0 0 0 0 0\n", name, 72000*n, 18000*n, 270000*n)
	}
	line("cpu ", m.Threads)
	for i := range m.Threads {
		line(fmt.Sprintf("cpu%d", i), 1)
	}
	b.WriteString("intr 0\nctxt 0\nbtime 1767225600\nprocesses 1000\nprocs_running 1\nprocs_blocked 0\n")
	return b.String()
}
