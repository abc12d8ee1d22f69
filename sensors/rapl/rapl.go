// Package rapl reads the energy counters of processors and their memory, from
// the Linux powercap tree, /sys/class/powercap, or as perf events where that is
// closed. Intel calls them RAPL, running average power limit; AMD processors
// since Zen have them under the same names.
//
// # Basics
//
// Importing the package is enough: it registers itself with package sensors.
// It reads one disjoint cut of the zones: every package, which contains the
// cores and, on client processors, the graphics, and every dram zone, which no
// package contains. The zones core, uncore and psys overlap with these and are
// not read, and a memory-mapped zone (intel-rapl-mmio) only where there is no
// MSR zone of the same package. AMD processors have no dram zone.
//
// Device IDs are package-0, package-1, … and dram-0, …, with -die-0, … behind
// them where a package has several dies that count themselves. Where the dies
// of a socket all show the counter of the socket, they are one device,
// package-0; how the two are told apart is described in mirror.go.
//
// The counter wraps, after a few minutes at full load. Read it at the interval
// that Timing asks for, and nothing is lost. Where max_energy_range_uj cannot be
// read it is not known where the counter wraps: a decrease is then taken for a
// restart from 0, and what was used before it, since the last reading, is lost.
// The device's Note says so.
//
// Where a zone cannot be read, is not there, or does not say where it wraps, the
// same counter is read as an event of the power PMU, energy-pkg or energy-ram, if
// perf_event_open allows it. Its device has the ID that the zone would have. The
// choice is made for each component of each package, when the sensor is opened.
//
// # Caveats
//
// Since Linux 5.10 the zones can be read by root only, as they leak what other
// users compute (CVE-2020-8694). Reading them needs a change of the files' mode,
// or the capability CAP_DAC_READ_SEARCH; events need CAP_PERFMON, which a program
// file can be given, or a kernel.perf_event_paranoid of 0 or less. The omission
// says how. A container usually hides the zones from root, too: mount the host's
// /sys elsewhere and name it in HOST_SYS, or give it the capability CAP_PERFMON.
//
// An event is counted by the kernel in 64 bits, from 32 bits of the hardware. That
// is sound only if it is read before the hardware has used half of its range, so
// Timing asks for the same or a shorter interval than of a zone. When the
// processor that stands for a package goes off line, the kernel moves the event to
// another; an event that has ended or stands still is opened again where the
// cpumask then says.
//
// A zone that goes away, because its driver is unloaded or its processor taken
// off line, costs that zone alone. It is looked for again after 1, 2, 4 and up
// to 60 seconds, and what it counted meanwhile is not included.
package rapl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
)

const source = "rapl"

// maxInterval is the longest time between two reads, whatever the counter.
const maxInterval = 30 * time.Second

func init() { sensors.Register(backend) }

var backend = sensors.Backend{Name: source, Component: sensors.CPU, Open: Open, Supports: []sensors.Support{{
	Hardware: "packages of Intel processors since Sandy Bridge, and of AMD's since Zen (Linux 5.11)",
	Source:   "/sys/class/powercap/intel-rapl*/energy_uj", Component: sensors.CPU,
	Unit: "µJ", Method: sensors.MethodCounter, ErrorBand: packageBand,
	Privileges: "root since Linux 5.10; every user after a chmod", Tested: "simulated",
}, {
	Hardware: "memory of Intel servers, and of some of its clients",
	Source:   "/sys/class/powercap/intel-rapl*/energy_uj, of zones named dram", Component: sensors.Memory,
	Unit: "µJ", Method: sensors.MethodCounter, ErrorBand: dramBand,
	Privileges: "root since Linux 5.10; every user after a chmod", Tested: "simulated",
}, {
	Hardware: "packages of Intel processors since Sandy Bridge, and of AMD's since Zen (Linux 5.8)",
	Source:   "perf_event_open: power/energy-pkg/", Component: sensors.CPU,
	Unit: "2⁻³² J", Method: sensors.MethodCounter, ErrorBand: packageBand,
	Privileges: "CAP_PERFMON, or every user with kernel.perf_event_paranoid=0", Tested: "simulated; the system call is real",
}, {
	Hardware: "memory of Intel servers, and of some of its clients",
	Source:   "perf_event_open: power/energy-ram/", Component: sensors.Memory,
	Unit: "2⁻³² J", Method: sensors.MethodCounter, ErrorBand: dramBand,
	Privileges: "CAP_PERFMON, or every user with kernel.perf_event_paranoid=0", Tested: "simulated; the system call is real",
}}}

// The systematic errors of packages and of memory: a judgement, as no study holds
// for all processors.
const (
	packageBand = 0.05
	dramBand    = 0.10
)

// Open opens the counters of this machine. It returns nil where there are none,
// and an omission for each that it cannot read.
func Open(_ context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
	if runtime.GOOS != "linux" {
		return nil, []sensors.Omission{{
			Source: source, Component: sensors.CPU, Status: sensors.Absent,
			Reason: "RAPL is read on Linux only",
			Err:    sensors.ErrUnsupported,
		}}
	}
	return open(roots, kernel{keptfile.OpenHandle, openEvent}, time.Now)
}

// kernel opens what the kernel shows.
type kernel struct {
	openFile  func(path string) (file, error)
	openEvent func(kind uint32, config uint64, cpu int) (eventFile, error)
}

func open(roots sensors.Roots, k kernel, now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	cpu := readProcessor(roots.Proc)
	zones, err := readZones(roots.Sys)
	s := &sensor{now: now, interval: maxInterval, cpu: cpu, seen: map[group]bool{}, pmu: readPMU(roots.Sys, cpu, k.openEvent)}
	if o := whole(roots, cpu, zones, err); o != nil {
		s.addEvents()
		if len(s.devices) > 0 {
			return s, s.noMemory(nil)
		}
		return nil, []sensors.Omission{s.closed(*o)}
	}
	var omitted []sensors.Omission
	groups, twins := cut(zones)
	for _, d := range twins {
		omitted = append(omitted, sensors.Omission{
			Source: source, Component: d.Component, Device: d.zone.id, Status: sensors.Superseded,
			Reason: fmt.Sprintf("%s is the memory-mapped view of %s, which its MSR shows", d.zone.id, d.id()),
		})
	}
	for _, g := range groups {
		omitted = append(omitted, s.add(g, k.openFile)...)
	}
	s.addEvents()
	for _, z := range zones {
		if z.err != nil {
			omitted = append(omitted, s.nameless(z))
		}
	}
	omitted = s.noMemory(omitted)
	if len(s.devices) == 0 {
		return nil, omitted
	}
	return s, omitted
}

// noMemory adds that there is no counter of the memory, where there is none.
func (s *sensor) noMemory(omitted []sensors.Omission) []sensors.Omission {
	if !slices.ContainsFunc(s.devices, func(d sensors.Device) bool { return d.Component == sensors.Memory }) &&
		!slices.ContainsFunc(omitted, func(o sensors.Omission) bool { return o.Component == sensors.Memory }) {
		omitted = append(omitted, sensors.Omission{
			Source: source, Component: sensors.Memory, Status: sensors.Absent,
			Reason: "RAPL has no dram zone on this processor",
			Err:    sensors.ErrAbsent,
		})
	}
	return omitted
}

// whole explains why there is nothing to read, if there is nothing.
func whole(roots sensors.Roots, cpu processor, zones []*zone, err error) *sensors.Omission {
	dir := filepath.Join(roots.Sys, "class", "powercap")
	o := &sensors.Omission{Source: source, Component: sensors.CPU, Status: sensors.Unreadable}
	hidden, listErr := os.ReadDir(filepath.Join(roots.Sys, "devices", "virtual", "powercap"))
	dangling := len(zones) > 0 && !slices.ContainsFunc(zones, func(z *zone) bool { return !z.dangling })
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		o.Reason = fmt.Sprintf("%s cannot be listed", dir)
		o.Err = fmt.Errorf("rapl: %w: %w", sentinel(err), err)
	case dangling, len(zones) == 0 && listErr == nil && len(hidden) == 0:
		// What a container engine hides is an empty folder in the way, whereas
		// a machine without powercap zones has no such folder.
		o.Reason = "RAPL is hidden from this container: " + filepath.Join(roots.Sys, "devices", "virtual", "powercap") + " is empty"
		o.Remedy = "start the container with -v /sys:/host/sys:ro -e HOST_SYS=/host/sys, and as root unless the host lets every user read the counters"
		o.Err = fmt.Errorf("rapl: %w", sensors.ErrPermission)
	case len(zones) == 0:
		o.Status = sensors.Absent
		o.Reason = "no RAPL: " + dir + " has no intel-rapl zone; in a virtual machine that is normal"
		if !cpu.virtual && (cpu.vendor == "Intel" || cpu.vendor == "AMD") {
			o.Remedy = "sudo modprobe intel_rapl_msr"
		}
		o.Err = fmt.Errorf("rapl: %w", sensors.ErrAbsent)
	default:
		return unmeasured(zones, o)
	}
	return o
}

// unmeasured completes o if all zones have names and none of them is one that
// is read. A name that is not known is otherwise no reason to say anything:
// what it counts may well be in the others.
func unmeasured(zones []*zone, o *sensors.Omission) *sensors.Omission {
	var names []string
	for _, z := range zones {
		if z.err != nil {
			return nil
		}
		names = append(names, fmt.Sprintf("%s (%s)", z.name, z.id))
	}
	if groups, _ := cut(zones); len(groups) > 0 {
		return nil
	}
	o.Reason = "RAPL has no package zone and no dram zone, only " + strings.Join(names, ", ")
	o.Err = fmt.Errorf("rapl: %w", sensors.ErrUnsupported)
	return o
}

// nameless is the omission of a zone that does not say what it counts. Below a
// package, it may be the dram.
func (s *sensor) nameless(z *zone) sensors.Omission {
	o := sensors.Omission{
		Source: source, Component: sensors.CPU, Device: z.id, Status: sensors.Unreadable,
		Reason: "the name of " + z.path + " cannot be read",
		Err:    fmt.Errorf("rapl: %s: %w: %w", z.path, sentinel(z.err), z.err),
	}
	if z.parent != nil {
		o.Component = sensors.Memory
	}
	if s.complete(o.Component) {
		o.Status = sensors.Superseded
	}
	return o
}

// complete reports whether all that the PMU has of a component is read, by zones
// or by events.
func (s *sensor) complete(c sensors.Component) bool {
	groups, _ := s.pmu.domains()
	groups = slices.DeleteFunc(groups, func(g []domain) bool { return g[0].Component != c })
	return len(groups) > 0 && !slices.ContainsFunc(groups, func(g []domain) bool { return !s.seen[g[0].group()] })
}

// unreadable is the omission of a zone whose counter cannot be read, and perfErr
// why there is no event in its stead.
func unreadable(d domain, err, perfErr error) sensors.Omission {
	o := sensors.Omission{
		Source: source, Component: d.Component, Device: d.id(), Status: sensors.Unreadable,
		Reason: fmt.Sprintf("%s, the energy of %s, cannot be read", filepath.Join(d.path, "energy_uj"), d.id()),
		Err:    err,
	}
	if errors.Is(err, sensors.ErrPermission) {
		o.Reason = fmt.Sprintf("%s, the energy of %s, is for root only", filepath.Join(d.path, "energy_uj"), d.id())
		o.Remedy = chmod(d.control)
		if errors.Is(perfErr, sensors.ErrPermission) {
			o.Remedy += "; or, for this program alone: " + setcap()
		}
	}
	return o
}

// chmod is the remedy where counters are for root only. It names the host's
// /sys, where it has to be done, whatever the root.
func chmod(control string) string {
	return fmt.Sprintf("sudo chmod a+r /sys/class/powercap/%[1]s:*/energy_uj; to keep that across restarts: "+
		`echo 'ACTION=="add", SUBSYSTEM=="powercap", KERNEL=="%[1]s:*", RUN+="/bin/chmod a+r /sys%%p/energy_uj"' | sudo tee /etc/udev/rules.d/70-rapl.rules && sudo udevadm control --reload`, control)
}

// setcap is the remedy where perf events are closed. Linux before 5.8 has
// cap_sys_admin in its stead.
func setcap() string {
	program, err := os.Executable()
	if err != nil {
		program = "./wattspan"
	}
	return "sudo setcap cap_perfmon=ep '" + program + "'"
}

// closed completes why no zone can be read with why no event can.
func (s *sensor) closed(o sensors.Omission) sensors.Omission {
	denied := errors.Is(s.perfErr, sensors.ErrPermission)
	switch {
	case s.perfErr == nil:
	case o.Status == sensors.Absent: // the PMU is there, and so is the hardware
		o.Status, o.Err, o.Remedy = sensors.Unreadable, s.perfErr, ""
		o.Reason = "RAPL has no zone in /sys/class/powercap, and its perf events cannot be opened"
		if denied {
			o.Reason = "RAPL has no zone in /sys/class/powercap, and its perf events are for root only"
			o.Remedy = setcap() + " (in a container: --cap-add PERFMON); or, for every user until the machine restarts: sudo sysctl kernel.perf_event_paranoid=0"
		}
	case denied && o.Remedy != "":
		o.Remedy += "; or add --cap-add PERFMON"
	}
	return o
}

// sensor reads the counters.
type sensor struct {
	cpu     processor
	pmu     *pmu
	perfErr error          // why events that were wanted could not be opened
	seen    map[group]bool // what was looked for, and whether it is read

	now      func() time.Time
	interval time.Duration
	devices  []sensors.Device
	states   []state
}

var _ sensors.Sensor = (*sensor)(nil)

// state is what is kept of a device from one read to the next.
type state struct {
	mirrors
	last  sensors.Tally
	power sensors.Watts
}

// add opens the counters of one component of one package. Zones come first: they
// count from the start of the machine, which tells dies that show one counter from
// dies that have one each, and the longest interval makes their wraps sound. Where
// one of them is closed, or does not say where it wraps, all are read by events,
// if those can be opened.
func (s *sensor) add(g []domain, openFile func(string) (file, error)) (omitted []sensors.Omission) {
	s.seen[g[0].group()] = false
	var meters []*meter
	failed := map[string]error{}
	wraps := true // it is known where
	for _, d := range g {
		m, err := newMeter(d, openFile)
		if err != nil {
			failed[d.zone.id] = err
			continue
		}
		wraps = wraps && m.counter.Period > 0
		meters = append(meters, m)
	}
	if len(failed) > 0 || !wraps {
		events, err := s.events(g[0].Component, g[0].pkg, g[0].maxPower())
		if err == nil {
			closeAll(meters)
			s.addMeters(events)
			return nil
		}
		for _, d := range g {
			if e := failed[d.zone.id]; e != nil {
				omitted = append(omitted, unreadable(d, e, err))
			}
		}
	}
	for _, set := range divide(meters) {
		d := s.device(set[0])
		if len(set) > 1 {
			if len(set) == len(g) {
				d.ID = set[0].socket()
			}
			d.Note = fmt.Sprintf("%d zones show this one counter", len(set))
		}
		if set[0].counter.Period == 0 {
			if d.Note != "" {
				d.Note += "; "
			}
			d.Note += "where the counter wraps is not known: what it counts just before a wrap is lost"
		}
		if s.has(d.ID) { // two zones of one name that are not one counter
			d.ID += "-" + set[0].zone.id
		}
		for _, m := range set[1:] {
			omitted = append(omitted, sensors.Omission{
				Source: source, Component: m.Component, Device: m.id(), Status: sensors.Superseded,
				Reason: fmt.Sprintf("%s shows the same counter as %s", m.zone.id, set[0].zone.id),
			})
		}
		s.follow(d, set)
	}
	return omitted
}

// events opens the events of a component of a package, and keeps why it could not.
func (s *sensor) events(c sensors.Component, pkg int, maxPower sensors.Watts) ([]*meter, error) {
	meters, err := s.pmu.meters(c, pkg, maxPower)
	if err != nil && !errors.Is(err, sensors.ErrAbsent) {
		s.perfErr = err
	}
	return meters, err
}

// addEvents adds the events of what no zone counts, readable or not.
func (s *sensor) addEvents() {
	groups, _ := s.pmu.domains()
	for _, g := range groups {
		if _, ok := s.seen[g[0].group()]; ok {
			continue
		}
		if meters, err := s.events(g[0].Component, g[0].pkg, g[0].maxPower()); err == nil {
			s.addMeters(meters)
		}
	}
}

// addMeters adds each meter as a device.
func (s *sensor) addMeters(meters []*meter) {
	for _, m := range meters {
		s.follow(s.device(m), []*meter{m})
	}
}

// device describes what a meter reads.
func (s *sensor) device(m *meter) sensors.Device {
	d := sensors.Device{
		ID: m.id(), Component: m.Component,
		Method: sensors.MethodCounter, Scope: sensors.ScopeDevice,
		Source: source + " " + m.path, Refresh: refresh,
	}
	switch m.Component {
	case sensors.CPU:
		d.Name, d.Vendor, d.ErrorBand = s.cpu.model, s.cpu.vendor, packageBand
	case sensors.Memory:
		d.Name, d.ErrorBand = "DRAM", dramBand
	}
	return d
}

// follow reads the meters from now on, as one device.
func (s *sensor) follow(d sensors.Device, set []*meter) {
	for _, m := range set {
		s.interval = min(s.interval, m.interval())
		s.seen[m.group()] = true
	}
	s.devices = append(s.devices, d)
	s.states = append(s.states, state{
		mirrors: mirrors{leader: set[0], twins: set[1:]},
		power:   sensors.Watts(math.NaN()),
	})
}

func (s *sensor) has(id string) bool {
	return slices.ContainsFunc(s.devices, func(d sensors.Device) bool { return d.ID == id })
}

// Devices implements sensors.Sensor.
func (s *sensor) Devices() []sensors.Device { return s.devices }

// Timing implements sensors.Sensor. Reading a counter is a read of a register:
// it does not block.
func (s *sensor) Timing() sensors.Timing { return sensors.Timing{MaxInterval: s.interval} }

// Read implements sensors.Sensor.
func (s *sensor) Read(dst []sensors.Reading) {
	for i := range s.states {
		dst[i] = s.states[i].reading(s.now)
	}
}

func (s *state) reading(now func() time.Time) sensors.Reading {
	s.mirrors.read(now)
	tally, err := s.tally()
	switch observed := tally.Observed - s.last.Observed; {
	case s.leader.lost():
		s.power = sensors.Watts(math.NaN())
	case observed > 0:
		// Over the time that the energy accounts for: a reading that was set
		// aside moves neither.
		s.power = sensors.Watts(float64((tally.Energy - s.last.Energy).Joules()) / observed.Seconds())
	}
	s.last = tally
	at := s.leader.at
	if at.IsZero() {
		at = now()
	}
	return sensors.Reading{At: at, Tally: tally, Power: s.power, Utilization: math.NaN(), Err: err}
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error {
	var errs []error
	for i := range s.states {
		errs = append(errs, s.states[i].leader.close(), s.states[i].dismiss())
	}
	return errors.Join(errs...)
}
