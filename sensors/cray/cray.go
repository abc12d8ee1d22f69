// Package cray reads the power management counters of HPE Cray nodes, the plain
// files in /sys/cray/pm_counters that the controller of a blade updates ten times
// a second: the energy of the node, of its processors, memory and accelerators.
//
// # Basics
//
// Importing the package is enough: it registers itself with package sensors. The
// file energy is a device of component node. It contains the others, which are
// devices of their own: cpu_energy, memory_energy, and the sum of accel0_energy,
// accel1_energy, … Every user may read them.
//
// # Caveats
//
// Each component is one device that stands for the whole of it: nothing in the
// files says which accelerator or socket a number belongs to, so that the energy
// of one GPU cannot be told, and none that another source reads is ever added to
// it.
//
// What the cabinet loses in its rectifiers, and its cooling, is not in the node's
// figure. A counter that stands at 0 is taken for one that the node does not have,
// as the files are there without an accelerator, too. On nodes of superchips, whose
// processors and accelerators share a module, nothing says what the counter of
// either includes: only the node is read.
//
// A value counts only if the file freshness has changed since the last. While the
// controller hangs, readings stand still, with an error after five seconds, and the
// first value after it brings the energy and the time. When the controller
// restarts, its counters begin at 0 again: what was used since the last value
// before that is lost, and its time is not counted as observed.
package cray

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
)

const source = "cray"

func init() { sensors.Register(backend) }

var backend = sensors.Backend{Name: source, Component: sensors.Node, Open: Open, Supports: []sensors.Support{
	support("HPE Cray EX and Cray XC nodes", "energy", sensors.Node, nodeBand),
	support("processors of HPE Cray EX nodes", "cpu_energy", sensors.CPU, partBand),
	support("memory of HPE Cray EX nodes", "memory_energy", sensors.Memory, partBand),
	support("accelerators of HPE Cray EX and Cray XC nodes", "accel*_energy", sensors.GPU, partBand),
}}

func support(hardware, file string, c sensors.Component, band float64) sensors.Support {
	return sensors.Support{
		Hardware: hardware, Source: "/sys/cray/pm_counters/" + file, Component: c,
		Unit: "J", Method: sensors.MethodCounter, ErrorBand: band,
		Privileges: "every user", Tested: "simulated",
	}
}

// The systematic errors, one standard deviation: a judgement, as no study of these
// counters has one.
const (
	nodeBand = 0.03
	partBand = 0.05
)

const (
	// refresh is how often the controller updates the counters.
	refresh = 100 * time.Millisecond
	// patience is how long the counters may go without an update before they
	// count as unreadable.
	patience = 5 * time.Second
	// slack is what the time of an update may be off by: it comes over a network,
	// and the counters are in whole joules.
	slack = time.Second
)

// Bounds of what can be drawn, far above any node there is.
const (
	nodeBound sensors.Watts = 20_000
	partBound sensors.Watts = 15_000
)

// Open opens the counters of this node. It returns nil where there are none.
func Open(_ context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
	if runtime.GOOS != "linux" {
		return nil, []sensors.Omission{absent("the counters of Cray nodes are read on Linux only")}
	}
	return open(roots, time.Now)
}

func absent(reason string) sensors.Omission {
	return sensors.Omission{
		Source: source, Component: sensors.Node, Status: sensors.Absent, Reason: reason,
		Err: fmt.Errorf("cray: %w", sensors.ErrAbsent),
	}
}

func open(roots sensors.Roots, now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	dir := filepath.Join(roots.Sys, "cray", "pm_counters")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, []sensors.Omission{absent("this is no Cray node: there is no " + dir)}
	}
	if err != nil {
		return nil, []sensors.Omission{{
			Source: source, Component: sensors.Node, Status: sensors.Unreadable,
			Reason: dir + " cannot be listed", Err: fmt.Errorf("cray: %w: %w", keptfile.Sentinel(err), err),
		}}
	}
	s := &sensor{now: now}
	s.fresh, _ = keptfile.Open(filepath.Join(dir, "freshness")) // old systems have none
	var omitted []sensors.Omission
	cpus, accels := numbered(entries, "cpu"), numbered(entries, "accel")
	superchips := len(cpus) > 1 && len(cpus) == len(accels)
	if len(accels) == 0 {
		accels = []string{"accel_energy"} // of Cray XC
	}
	for _, c := range []struct {
		sensors.Device
		files []string
		bound sensors.Watts
	}{
		{sensors.Device{ID: "cray-node", Name: "node", Component: sensors.Node, Scope: sensors.ScopeNode, ErrorBand: nodeBand,
			Note: "without the losses of the cabinet's rectifiers"}, []string{"energy"}, nodeBound},
		{sensors.Device{ID: "cray-cpu", Name: "processors", Component: sensors.CPU}, []string{"cpu_energy"}, partBound},
		{sensors.Device{ID: "cray-memory", Name: "memory", Component: sensors.Memory}, []string{"memory_energy"}, partBound},
		{sensors.Device{ID: "cray-accel", Name: "accelerators", Component: sensors.GPU,
			Note: "all accelerators of the node together"}, accels, partBound},
	} {
		if superchips && c.Component != sensors.Node {
			omitted = append(omitted, sensors.Omission{
				Source: source, Component: c.Component, Device: c.ID, Status: sensors.Superseded,
				Reason: "nothing says what " + c.files[0] + " includes of a superchip",
			})
			continue
		}
		c.Vendor, c.Method, c.Whole, c.Refresh = "HPE", sensors.MethodCounter, true, refresh
		if c.Scope == "" {
			c.Scope, c.ErrorBand = sensors.ScopeDevice, partBand
		}
		c.Source = source + " " + filepath.Join(dir, strings.ReplaceAll(c.files[0], "accel0", "accel*"))
		m, err := newMeter(dir, c.files, c.bound)
		switch {
		case err == nil:
			s.devices, s.meters = append(s.devices, c.Device), append(s.meters, m)
		case !errors.Is(err, sensors.ErrAbsent) || c.Component == sensors.Node:
			omitted = append(omitted, sensors.Omission{
				Source: source, Component: c.Component, Device: c.ID, Status: sensors.Unreadable,
				Reason: "the energy of the " + c.Name + " cannot be read in " + dir, Err: err,
			})
		}
	}
	if len(s.devices) == 0 {
		_ = s.Close()
		return nil, omitted
	}
	return s, omitted
}

// numbered returns the names of the counters of a kind that are numbered, such as
// accel0_energy.
func numbered(entries []os.DirEntry, kind string) (names []string) {
	for _, e := range entries {
		if isNumbered(e.Name(), kind) {
			names = append(names, e.Name())
		}
	}
	return names
}

func isNumbered(name, kind string) bool {
	number, ok := strings.CutPrefix(name, kind)
	if !ok {
		return false
	}
	number, ok = strings.CutSuffix(number, "_energy")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// sensor reads the counters of a node.
type sensor struct {
	now     func() time.Time
	devices []sensors.Device
	meters  []*meter

	fresh     *keptfile.File // nil where there is no such file
	freshness uint64
	freshAt   time.Time // of the last change
}

var _ sensors.Sensor = (*sensor)(nil)

// Devices implements sensors.Sensor.
func (s *sensor) Devices() []sensors.Device { return s.devices }

// Timing implements sensors.Sensor. What the driver does to get at the values of
// another computer is not known.
func (s *sensor) Timing() sensors.Timing { return sensors.Timing{MayBlock: true} }

var errStale = fmt.Errorf("cray: the controller of the blade has not updated its counters for %v: %w", patience, sensors.ErrTransient)

// Read implements sensors.Sensor.
func (s *sensor) Read(dst []sensors.Reading) {
	fresh, err := s.updated(s.now())
	for i, m := range s.meters {
		if fresh {
			m.read(s.now)
		}
		at := m.at
		if at.IsZero() {
			at = s.now()
		}
		dst[i] = sensors.Reading{At: at, Tally: m.tally(), Power: m.power, Utilization: math.NaN(), Err: m.err}
		if err != nil && m.err == nil {
			dst[i].Err = err
		}
		if dst[i].Err != nil {
			dst[i].Power = sensors.Watts(math.NaN())
		}
	}
}

// updated reports whether the counters have been updated since the last reading,
// and an error if they have not been for long. Where it cannot be known, they
// have.
func (s *sensor) updated(at time.Time) (bool, error) {
	if s.fresh == nil {
		return true, nil
	}
	text, err := s.fresh.Text(at)
	if err != nil {
		return true, nil
	}
	n, _, ok := keptfile.ParseUint(text)
	if !ok || s.freshAt.IsZero() || n != s.freshness {
		s.freshness, s.freshAt = n, at
		return true, nil
	}
	if at.Sub(s.freshAt) > patience {
		return false, errStale
	}
	return false, nil
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error {
	var errs []error
	if s.fresh != nil {
		errs = append(errs, s.fresh.Close())
	}
	for _, m := range s.meters {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

// meter follows the counters of one device, which are read together or not at
// all: half of the accelerators are not the accelerators.
type meter struct {
	parts []part
	at    time.Time
	last  sensors.Tally
	power sensors.Watts
	err   error
}

// part is one file.
type part struct {
	file     *keptfile.File
	openings int
	raw      uint64
	counter  sensors.Counter
}

// newMeter opens files. Those that stand at 0 are not there; ErrAbsent says that
// none is.
func newMeter(dir string, files []string, bound sensors.Watts) (*meter, error) {
	m := &meter{power: sensors.Watts(math.NaN())}
	for _, name := range files {
		f, err := keptfile.Open(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case f == nil:
			_ = m.close()
			return nil, fmt.Errorf("cray: %w", err)
		}
		p := part{file: f, openings: f.Openings(), counter: sensors.Counter{Unit: 1e6, MaxPower: bound, Refresh: slack}}
		m.parts = append(m.parts, p)
		if err != nil {
			continue // the file is busy, and will not always be
		}
		switch err := p.sample(time.Time{}); {
		case err != nil && !errors.Is(err, errFormat):
		case err != nil:
			_ = m.close()
			return nil, fmt.Errorf("cray: %w", err)
		case p.raw == 0:
			_ = f.Close()
			m.parts = m.parts[:len(m.parts)-1]
		}
	}
	if len(m.parts) == 0 {
		return nil, fmt.Errorf("cray: %s: %w", dir, sensors.ErrAbsent)
	}
	return m, nil
}

// sample reads the counter, in J.
func (p *part) sample(at time.Time) error {
	text, err := p.file.Text(at)
	if err != nil {
		return err
	}
	joules, ok := parseEnergy(text)
	if !ok {
		return fmt.Errorf("%s: %w: %q", p.file.Path(), errFormat, text)
	}
	p.raw = joules
	return nil
}

var errFormat = fmt.Errorf("%w: these are no joules", sensors.ErrTransient)

// read takes a reading, or sets err.
func (m *meter) read(now func() time.Time) {
	for i := range m.parts {
		if err := m.parts[i].sample(now()); err != nil {
			m.err = fmt.Errorf("cray: %w", err)
			return
		}
	}
	m.at, m.err = now(), nil
	for i := range m.parts {
		p := &m.parts[i]
		if n := p.file.Openings(); n != p.openings {
			p.counter.Rebase() // what it did meanwhile is not known
			p.openings = n
		}
		p.counter.Add(m.at, p.raw)
	}
	tally := m.tally()
	if observed := tally.Observed - m.last.Observed; observed > 0 {
		m.power = sensors.Watts(float64((tally.Energy - m.last.Energy).Joules()) / observed.Seconds())
	}
	m.last = tally
}

// tally is the sum of the parts over the time that all of them were seen.
func (m *meter) tally() sensors.Tally {
	t := m.parts[0].counter.Tally()
	for i := range m.parts[1:] {
		u := m.parts[i+1].counter.Tally()
		u.Observed = min(u.Observed, t.Observed) - t.Observed
		t = t.Plus(u)
	}
	return t
}

func (m *meter) close() error {
	var errs []error
	for _, p := range m.parts {
		errs = append(errs, p.file.Close())
	}
	return errors.Join(errs...)
}

// parseEnergy reads a counter: "12345 J", with a time behind it on newer systems,
// "12345 J 1690000000000000 us".
func parseEnergy(text []byte) (joules uint64, ok bool) {
	joules, rest, ok := keptfile.ParseUint(text)
	if !ok {
		return 0, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(" J")); !ok {
		return 0, false
	}
	rest = bytes.TrimRight(rest, " \n")
	if len(rest) == 0 {
		return joules, true
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(" ")); !ok {
		return 0, false
	}
	_, rest, ok = keptfile.ParseUint(rest)
	return joules, ok && string(rest) == " us"
}
