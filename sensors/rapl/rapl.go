// Package rapl reads the energy counters of processors and their memory from
// the Linux powercap tree, /sys/class/powercap. Intel calls them RAPL, running
// average power limit; AMD processors since Zen have them under the same names.
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
// # Caveats
//
// Since Linux 5.10 the counters can be read by root only, as they leak what
// other users compute (CVE-2020-8694). Reading them needs a change of the
// files' mode, or the capability CAP_DAC_READ_SEARCH; the omission says how.
// A container usually hides the tree from root, too: mount the host's /sys
// elsewhere and name it in HOST_SYS.
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
)

const source = "rapl"

// maxInterval is the longest time between two reads, whatever the counter.
const maxInterval = 30 * time.Second

func init() { sensors.Register(sensors.Backend{Name: source, Open: Open}) }

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
	return open(roots, openFile, time.Now)
}

func open(roots sensors.Roots, openFile func(string) (file, error), now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	cpu := readProcessor(roots.Proc)
	zones, err := readZones(roots.Sys)
	if o := whole(roots, cpu, zones, err); o != nil {
		return nil, []sensors.Omission{*o}
	}
	s := &sensor{now: now, interval: maxInterval}
	var omitted []sensors.Omission
	for _, z := range zones {
		if z.err != nil {
			omitted = append(omitted, nameless(z))
		}
	}
	groups, twins := cut(zones)
	for _, d := range twins {
		omitted = append(omitted, sensors.Omission{
			Source: source, Component: d.Component, Device: d.zone.id, Status: sensors.Superseded,
			Reason: fmt.Sprintf("%s is the memory-mapped view of %s, which its MSR shows", d.zone.id, d.id()),
		})
	}
	for _, g := range groups {
		omitted = append(omitted, s.add(g, cpu, openFile)...)
	}
	if !slices.ContainsFunc(s.devices, func(d sensors.Device) bool { return d.Component == sensors.Memory }) &&
		!slices.ContainsFunc(omitted, func(o sensors.Omission) bool { return o.Component == sensors.Memory }) {
		omitted = append(omitted, sensors.Omission{
			Source: source, Component: sensors.Memory, Status: sensors.Absent,
			Reason: "RAPL has no dram zone on this processor",
			Err:    sensors.ErrAbsent,
		})
	}
	if len(s.devices) == 0 {
		return nil, omitted
	}
	return s, omitted
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
func nameless(z *zone) sensors.Omission {
	o := sensors.Omission{
		Source: source, Component: sensors.CPU, Device: z.id, Status: sensors.Unreadable,
		Reason: "the name of " + z.path + " cannot be read",
		Err:    fmt.Errorf("rapl: %s: %w: %w", z.path, sentinel(z.err), z.err),
	}
	if z.parent != nil {
		o.Component = sensors.Memory
	}
	return o
}

// unreadable is the omission of a zone whose counter cannot be read.
func unreadable(d domain, err error) sensors.Omission {
	o := sensors.Omission{
		Source: source, Component: d.Component, Device: d.id(), Status: sensors.Unreadable,
		Reason: fmt.Sprintf("%s, the energy of %s, cannot be read", filepath.Join(d.path, "energy_uj"), d.id()),
		Err:    err,
	}
	if errors.Is(err, sensors.ErrPermission) {
		o.Reason = fmt.Sprintf("%s, the energy of %s, is for root only", filepath.Join(d.path, "energy_uj"), d.id())
		o.Remedy = chmod(d.control)
	}
	return o
}

// chmod is the remedy where counters are for root only. It names the host's
// /sys, where it has to be done, whatever the root.
func chmod(control string) string {
	return fmt.Sprintf("sudo chmod a+r /sys/class/powercap/%[1]s:*/energy_uj; to keep that across restarts: "+
		`echo 'ACTION=="add", SUBSYSTEM=="powercap", KERNEL=="%[1]s:*", RUN+="/bin/chmod a+r /sys%%p/energy_uj"' | sudo tee /etc/udev/rules.d/70-rapl.rules && sudo udevadm control --reload`, control)
}

// sensor reads the counters.
type sensor struct {
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

// add opens the zones of one component of one package.
func (s *sensor) add(g []domain, cpu processor, openFile func(string) (file, error)) (omitted []sensors.Omission) {
	var meters []*meter
	for _, d := range g {
		m, err := newMeter(d, openFile)
		if err != nil {
			omitted = append(omitted, unreadable(d, err))
			continue
		}
		meters = append(meters, m)
	}
	for _, set := range divide(meters) {
		leader := set[0]
		d := sensors.Device{
			ID: leader.id(), Component: leader.Component,
			Method: sensors.MethodCounter, Scope: sensors.ScopeDevice,
			Source: source + " " + leader.path, Refresh: refresh,
		}
		switch leader.Component {
		case sensors.CPU:
			d.Name, d.Vendor, d.ErrorBand = cpu.model, cpu.vendor, 0.05
		case sensors.Memory:
			d.Name, d.ErrorBand = "DRAM", 0.10
		}
		var notes []string
		if len(set) > 1 {
			if len(set) == len(g) {
				d.ID = leader.socket()
			}
			notes = append(notes, fmt.Sprintf("%d zones show this one counter", len(set)))
		}
		if leader.counter.Period == 0 {
			notes = append(notes, "where the counter wraps is not known: what it counts just before a wrap is lost")
		}
		d.Note = strings.Join(notes, "; ")
		if s.has(d.ID) { // two zones of one name that are not one counter
			d.ID += "-" + leader.zone.id
		}
		for _, m := range set[1:] {
			omitted = append(omitted, sensors.Omission{
				Source: source, Component: m.Component, Device: m.id(), Status: sensors.Superseded,
				Reason: fmt.Sprintf("%s shows the same counter as %s", m.zone.id, leader.zone.id),
			})
		}
		for _, m := range set {
			s.interval = min(s.interval, m.interval())
		}
		s.devices = append(s.devices, d)
		s.states = append(s.states, state{
			mirrors: mirrors{leader: leader, twins: set[1:]},
			power:   sensors.Watts(math.NaN()),
		})
	}
	return omitted
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
