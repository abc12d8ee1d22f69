package rapl

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// The kernel shows the same counters as events of the PMU "power", which it opens
// for whoever has CAP_PERFMON. Only energy-pkg and energy-ram are read:
// energy-cores and energy-gpu are parts of the package, and energy-psys contains
// it.
//
// An event counts from 0 since it was opened, in 64 bits. The kernel extends the
// register by taking 32 bits of difference for a signed number whenever the event
// is read, and by a timer of its own that is made for 200 W: a processor that
// uses half of the register's range between two reads makes the event go down.
// Hence the same longest interval as for a zone, at half the range.

// eventFile is an open perf event.
type eventFile interface {
	// read fills buf with the count and the time that it was running, in ns.
	read(buf []byte) (int, error)
	Close() error
}

// halfRange is half the range in µJ of a register of the finest unit in use,
// 15.3 µJ.
const halfRange = 1 << 31 * 1_000_000 >> 16

// pmu is the power PMU of this machine.
type pmu struct {
	sys, dir string
	kind     uint32
	// socketwide is set where all dies of a socket show one register, whatever
	// the cpumask says: those of AMD do, and some kernels since Linux 6.9 list a
	// processor for each die. Events count from their opening, so that it cannot
	// be seen in their values, as in those of zones; the vendor is what the
	// kernel itself goes by.
	socketwide bool
	events     []pmuEvent
	open       func(kind uint32, config uint64, cpu int) (eventFile, error)
}

// pmuEvent is one event of the PMU.
type pmuEvent struct {
	sensors.Component
	name   string
	config uint64
	scale  scale
}

// readPMU returns the power PMU, nil where there is none that is understood.
func readPMU(sys string, cpu processor, open func(uint32, uint64, int) (eventFile, error)) *pmu {
	dir := filepath.Join(sys, "bus", "event_source", "devices", "power")
	p := &pmu{sys: sys, dir: dir, open: open, socketwide: cpu.vendor == "AMD" || cpu.vendor == "Hygon"}
	kind, err := strconv.ParseUint(readText(filepath.Join(dir, "type")), 10, 32)
	// What an event's number means is said by its format.
	if err != nil || readText(filepath.Join(dir, "format", "event")) != "config:0-7" {
		return nil
	}
	p.kind = uint32(kind)
	for _, e := range []pmuEvent{{Component: sensors.CPU, name: "energy-pkg"}, {Component: sensors.Memory, name: "energy-ram"}} {
		path := filepath.Join(dir, "events", e.name)
		var known, scaled bool
		e.config, known = parseEvent(readText(path))
		e.scale, scaled = parseScale(readText(path + ".scale"))
		if known && scaled && readText(path+".unit") == "Joules" {
			p.events = append(p.events, e)
		}
	}
	if len(p.events) == 0 {
		return nil
	}
	return p
}

// readText returns what a file holds, without the newline; nothing where it cannot
// be read.
func readText(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// parseEvent understands an event of 8 bits: "event=0x02".
func parseEvent(text string) (config uint64, ok bool) {
	number, ok := strings.CutPrefix(text, "event=0x")
	if !ok {
		return 0, false
	}
	config, err := strconv.ParseUint(number, 16, 8)
	return config, err == nil
}

// scale is a factor from counts to µJ, mul / 2^shift.
type scale struct {
	mul   uint64
	shift uint
}

// parseScale reads the joules in one count, a decimal fraction. It takes what is
// finer than 1 µJ: the kernel's is 2^-32 J, which is then exact.
func parseScale(text string) (s scale, ok bool) {
	joules, err := strconv.ParseFloat(text, 64)
	if err != nil || !(joules >= 1e-13 && joules <= 1e-6) {
		return scale{}, false
	}
	const mantissa = 53
	fraction, exponent := math.Frexp(joules * 1e6)
	return scale{uint64(math.Ldexp(fraction, mantissa)), uint(mantissa - exponent)}, true
}

// microjoules converts a count. The product has 128 bits, so that nothing is lost
// and a higher count is never less.
func (s scale) microjoules(count uint64) uint64 {
	hi, lo := bits.Mul64(count, s.mul)
	if s.shift >= 64 {
		return hi >> (s.shift - 64)
	}
	return hi<<(64-s.shift) | lo>>s.shift
}

// die is what one register counts, and a processor in it.
type die struct {
	pkg, die int // die is 0 where the register is the package's
	cpu      int
}

// dies reads where the PMU can be read now: the processors in its cpumask, which
// changes when one goes off line.
func (p *pmu) dies() ([]die, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "cpumask"))
	if err != nil {
		return nil, err
	}
	cpus, ok := parseCPUList(strings.TrimSpace(string(text)))
	if !ok {
		return nil, fmt.Errorf("cpumask is %q", text)
	}
	var dies []die
	for _, cpu := range cpus {
		topology := filepath.Join(p.sys, "devices", "system", "cpu", fmt.Sprintf("cpu%d", cpu), "topology")
		pkg, ok := parseNumber(readText(filepath.Join(topology, "physical_package_id")))
		if !ok {
			return nil, fmt.Errorf("%s does not say which package it is in", topology)
		}
		d := die{pkg: pkg, cpu: cpu}
		if !p.socketwide {
			d.die, _ = parseNumber(readText(filepath.Join(topology, "die_id"))) // since Linux 5.2
		}
		if !slices.ContainsFunc(dies, func(other die) bool { return other.pkg == d.pkg && other.die == d.die }) {
			dies = append(dies, d)
		}
	}
	slices.SortFunc(dies, func(a, b die) int { return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.die, b.die)) })
	return dies, nil
}

// parseCPUList reads a list of processors: "0,18" or "0-3,8".
func parseCPUList(text string) (cpus []int, ok bool) {
	const most = 1 << 16 // eight times what Linux can have
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, ok := parseNumber(first)
		to := from
		if ok && isRange {
			to, ok = parseNumber(last)
		}
		if !ok || to < from || to >= most {
			return nil, false
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, cpu)
		}
		if len(cpus) > most {
			return nil, false
		}
	}
	return cpus, true
}

// domains returns what the PMU can read, grouped as the zones are.
func (p *pmu) domains() (groups [][]domain, err error) {
	if p == nil {
		return nil, nil
	}
	dies, err := p.dies()
	if err != nil {
		return nil, err
	}
	for _, e := range p.events {
		for _, d := range dies {
			at := domain{e.Component, d.pkg, d.die, &zone{path: filepath.Join(p.dir, "events", e.name)}}
			if last := len(groups) - 1; last >= 0 && groups[last][0].Component == e.Component && groups[last][0].pkg == d.pkg {
				groups[last] = append(groups[last], at)
			} else {
				groups = append(groups, []domain{at})
			}
		}
	}
	for _, g := range groups {
		if len(g) == 1 {
			g[0].die = -1
		}
	}
	return groups, nil
}

// meters opens the events of a component of a package: all of them, as half a
// package is no better than none.
func (p *pmu) meters(c sensors.Component, pkg int, maxPower sensors.Watts) ([]*meter, error) {
	groups, err := p.domains()
	if err != nil {
		return nil, fmt.Errorf("rapl: %s: %w: %w", p.dir, sentinel(err), err)
	}
	i := slices.IndexFunc(groups, func(g []domain) bool { return g[0].Component == c && g[0].pkg == pkg })
	if i < 0 {
		return nil, fmt.Errorf("rapl: no perf event: %w", sensors.ErrAbsent)
	}
	var meters []*meter
	for _, d := range groups[i] {
		m := &meter{domain: d, open: func() (register, error) { return p.event(d) }}
		if err := m.start(); err != nil {
			closeAll(meters)
			return nil, err
		}
		// The period only says when a reading comes too late: see [event.sample]
		// on why a count never wraps.
		m.counter = sensors.Counter{Unit: 1, Period: halfRange, MaxPower: maxPower, Refresh: slack}
		meters = append(meters, m)
	}
	return meters, nil
}

func closeAll(meters []*meter) {
	for _, m := range meters {
		_ = m.close()
	}
}

// event opens the event of a domain, on the processor that stands for its die now.
func (p *pmu) event(d domain) (register, error) {
	dies, err := p.dies()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(dies, func(at die) bool { return at.pkg == d.pkg && (d.die < 0 || at.die == d.die) })
	if i < 0 {
		return nil, fmt.Errorf("no processor of %s is on line: %w", d.id(), io.EOF)
	}
	e := p.events[slices.IndexFunc(p.events, func(e pmuEvent) bool { return e.Component == d.Component })]
	f, err := p.open(p.kind, e.config, dies[i].cpu)
	if err != nil {
		return nil, fmt.Errorf("perf_event_open on processor %d: %w", dies[i].cpu, err)
	}
	return &event{file: f, scale: e.scale, running: math.MaxUint64}, nil
}

// event is the counter of an event.
type event struct {
	file    eventFile
	scale   scale
	running uint64 // ns, at the last sample
	stopped bool   // it was not running since the sample before
	buf     [16]byte
}

// sample returns the count with an offset of 2^63 counts, 2.1 GJ. An event can go
// down, when the register was reset in a suspend, and even below 0. So far from 0
// that is never taken for a restart from there, nor for a wrap, and is set aside.
func (e *event) sample() (uint64, error) {
	n, err := e.file.read(e.buf[:])
	switch {
	case err != nil:
		return 0, err
	case n == 0: // the event is in an error state: its processor has gone
		return 0, io.EOF
	case n != len(e.buf):
		return 0, fmt.Errorf("%d bytes of an event", n)
	}
	count, running := binary.NativeEndian.Uint64(e.buf[:8]), binary.NativeEndian.Uint64(e.buf[8:])
	if running == e.running {
		// An event whose processor went off line can be read for ever, and
		// stands still. Twice, as clocks can be coarse.
		if e.stopped {
			return 0, io.EOF
		}
		e.stopped = true
		return 0, errStopped
	}
	e.running, e.stopped = running, false
	return e.scale.microjoules(count ^ 1<<63), nil
}

func (e *event) Close() error { return e.file.Close() }

var errStopped = errors.New("the event is not counting")
