//go:build linux

package rapl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

func noEvent(uint32, uint64, int) (eventFile, error) { return nil, syscall.ENOENT }

// powerPMU is a fake PMU: what the kernel counts, and the tree that says so.
type powerPMU struct {
	tree *sensortest.Sysfs
	// registers are the counts of 2⁻³² J since boot, by the event's number and
	// the processor that stands for a die.
	registers map[[2]int]uint64
	// denied, ended and frozen are what becomes of events.
	denied error
	broken map[int]error // by processor, when it is opened
	ended  map[int]error // by processor; io.EOF reads nothing
	frozen map[int]bool
	opened []string
	open   int
}

const (
	pkgEvent  = 2
	ramEvent  = 3
	fakeType  = 23
	perJoule  = 1 << 32
	hundredJ  = 100 * perJoule
	perfDir   = "sys/bus/event_source/devices/power/"
	scaleText = "2.3283064365386962890625e-10\n"
)

// newPMU puts a PMU into a tree. Each die is "package:die:processor".
func newPMU(tree *sensortest.Sysfs, dies ...string) *powerPMU {
	p := &powerPMU{tree: tree, registers: map[[2]int]uint64{}, ended: map[int]error{}, frozen: map[int]bool{}}
	for name, text := range map[string]string{
		"type": "23\n", "format/event": "config:0-7\n",
		"events/energy-cores": "event=0x01\n", "events/energy-cores.scale": scaleText, "events/energy-cores.unit": "Joules\n",
		"events/energy-pkg": "event=0x02\n", "events/energy-pkg.scale": scaleText, "events/energy-pkg.unit": "Joules\n",
		"events/energy-ram": "event=0x03\n", "events/energy-ram.scale": scaleText, "events/energy-ram.unit": "Joules\n",
		"events/energy-gpu": "event=0x04\n", "events/energy-gpu.scale": scaleText, "events/energy-gpu.unit": "Joules\n",
		"events/energy-psys": "event=0x05\n", "events/energy-psys.scale": scaleText, "events/energy-psys.unit": "Joules\n",
	} {
		tree.Write(perfDir+name, text)
	}
	p.online(dies...)
	return p
}

// online says which processors stand for which dies.
func (p *powerPMU) online(dies ...string) {
	var cpus []string
	for _, d := range dies {
		part := strings.Split(d, ":")
		topology := "sys/devices/system/cpu/cpu" + part[2] + "/topology/"
		p.tree.Write(topology+"physical_package_id", part[0]+"\n")
		p.tree.Write(topology+"die_id", part[1]+"\n")
		cpus = append(cpus, part[2])
	}
	p.tree.Write(perfDir+"cpumask", strings.Join(cpus, ",")+"\n")
}

// noMemory is a PMU without an event for it, as AMD's.
func (p *powerPMU) noMemory() *powerPMU {
	for _, file := range []string{"energy-ram", "energy-ram.scale", "energy-ram.unit"} {
		if err := os.Remove(p.tree.Root + "/" + perfDir + "events/" + file); err != nil {
			panic(err)
		}
	}
	return p
}

func (p *powerPMU) openEvent(kind uint32, config uint64, cpu int) (eventFile, error) {
	p.opened = append(p.opened, fmt.Sprintf("%d/%d@%d", kind, config, cpu))
	if p.denied != nil {
		return nil, p.denied
	}
	if err := p.broken[cpu]; err != nil {
		return nil, err
	}
	p.open++
	return &fakeEvent{pmu: p, at: [2]int{int(config), cpu}, from: p.registers[[2]int{int(config), cpu}]}, nil
}

// fakeEvent counts from 0 since it was opened.
type fakeEvent struct {
	pmu     *powerPMU
	at      [2]int
	from    uint64
	running uint64
	last    uint64
}

func (e *fakeEvent) read(buf []byte) (int, error) {
	switch err := e.pmu.ended[e.at[1]]; err {
	case nil:
	case io.EOF:
		return 0, nil
	default:
		return 0, err
	}
	if !e.pmu.frozen[e.at[1]] {
		e.running++
		e.last = e.pmu.registers[e.at] - e.from
	}
	binary.NativeEndian.PutUint64(buf, e.last)
	binary.NativeEndian.PutUint64(buf[8:], e.running)
	return 16, nil
}

func (e *fakeEvent) Close() error { e.pmu.open--; return nil }

// startPMU opens a sensor over a machine with a PMU; faults close its zones.
func startPMU(t *testing.T, m sensortest.Machine, f *faults, prepare func(*sensortest.Sysfs) *powerPMU) (*machine, *powerPMU) {
	t.Helper()
	if f == nil {
		f = newFaults()
	}
	x := &machine{T: t, tree: sensortest.NewSysfs(t, m), clock: sensortest.NewClock(), faults: f}
	p := prepare(x.tree)
	x.sensor, x.omitted = open(x.tree.Roots(), kernel{f.openFile, p.openEvent}, x.clock.Now)
	if x.sensor != nil {
		x.dst = make([]sensors.Reading, len(x.sensor.Devices()))
		t.Cleanup(func() {
			if err := x.sensor.Close(); err != nil {
				t.Error(err)
			}
			if p.open != 0 {
				t.Errorf("%d events are left open", p.open)
			}
		})
	}
	return x, p
}

// closedZones is the default since Linux 5.10, for a user.
func closedZones(m sensortest.Machine) *faults {
	f := newFaults()
	for _, z := range m.Zones {
		f.open[z.ID] = syscall.EACCES
	}
	return f
}

func twoSockets(tree *sensortest.Sysfs) *powerPMU { return newPMU(tree, "0:0:0", "1:0:18") }
func twoDies(tree *sensortest.Sysfs) *powerPMU    { return newPMU(tree, "0:0:0", "0:1:24") }
func oneSocket(tree *sensortest.Sysfs) *powerPMU  { return newPMU(tree, "0:0:0") }

func TestZoneOrEvent(t *testing.T) {
	hidden := sensortest.IntelServer()
	hidden.Masked = true
	bare := sensortest.IntelServer()
	bare.Zones = nil
	psys := sensortest.IntelClient()
	psys.Zones = psys.Zones[3:4]
	endless := sensortest.IntelServer() // no zone says where it wraps
	for i := range endless.Zones {
		endless.Zones[i].Range = 0
	}
	noDRAM := sensortest.IntelServer()
	noDRAM.Zones = slices.DeleteFunc(slices.Clone(noDRAM.Zones), func(z sensortest.Zone) bool { return z.Name == "dram" })
	one := newFaults()
	one.open["intel-rapl:1"] = syscall.EACCES
	broken := newFaults()
	broken.read["intel-rapl:0:0"] = syscall.EIO

	const all = "package-0 package-1 dram-0 dram-1"
	const twins = "superseded cpu intel-rapl-mmio:0, superseded cpu intel-rapl-mmio:1"
	for name, c := range map[string]struct {
		machine          sensortest.Machine
		faults           *faults
		pmu              func(*sensortest.Sysfs) *powerPMU
		devices, omitted string
		events           string // the devices that are read by events
	}{
		"zones that can be read":   {sensortest.IntelServer(), nil, twoSockets, all, twins, ""},
		"zones for root only":      {sensortest.IntelServer(), closedZones(sensortest.IntelServer()), twoSockets, all, twins, all},
		"one zone for root only":   {sensortest.IntelServer(), one, twoSockets, all, twins, "package-0"},
		"one zone broken":          {sensortest.IntelServer(), broken, twoSockets, all, twins, "dram-1"},
		"no maximum":               {endless, nil, twoSockets, all, twins, all},
		"zones hidden":             {hidden, nil, twoSockets, all, "", all},
		"no zones":                 {bare, nil, twoSockets, all, "", all},
		"only psys":                {psys, nil, oneSocket, "package-0 dram-0", "", "package-0 dram-0"},
		"no zone of the memory":    {noDRAM, nil, twoSockets, all, twins, "dram-0 dram-1"},
		"dies that count for them": {sensortest.IntelMultiDie(), closedZones(sensortest.IntelMultiDie()), twoDies, "package-0-die-0 package-0-die-1 dram-0-die-0 dram-0-die-1", "", "package-0-die-0 package-0-die-1 dram-0-die-0 dram-0-die-1"},
		// Trap: some kernels list a processor for each die of AMD's, and all
		// show the register of the socket.
		"dies that show one register": {sensortest.AMDMultiDie(), closedZones(sensortest.AMDMultiDie()), func(tree *sensortest.Sysfs) *powerPMU {
			return newPMU(tree, "0:0:0", "0:1:8", "1:0:16", "1:1:24").noMemory()
		}, "package-0 package-1", "absent memory", "package-0 package-1"},
	} {
		t.Run(name, func(t *testing.T) {
			x, p := startPMU(t, c.machine, c.faults, c.pmu)
			ids := strings.Fields(x.ids())
			slices.Sort(ids)
			want := strings.Fields(c.devices)
			slices.Sort(want)
			if !slices.Equal(ids, want) {
				t.Fatalf("devices %q, want %q", x.ids(), c.devices)
			}
			if got := x.omissions(); got != c.omitted {
				t.Errorf("omitted %q, want %q", got, c.omitted)
			}
			byEvent := strings.Fields(c.events)
			for _, d := range x.sensor.Devices() {
				kept := strings.Contains(d.Source, "/event_source/")
				if kept != slices.Contains(byEvent, d.ID) || d.Note != "" {
					t.Errorf("%s is read by %q: %q", d.ID, d.Source, d.Note)
				}
			}
			if p.open != len(byEvent) {
				t.Errorf("%d events are open, want %d", p.open, len(byEvent))
			}
		})
	}
}

// Trap 3: energy-cores and energy-gpu are in energy-pkg, energy-psys contains it.
func TestEventsThatOverlapAreNotOpened(t *testing.T) {
	_, p := startPMU(t, sensortest.Machine{}, nil, twoSockets)
	if got, want := strings.Join(p.opened, " "), "23/2@0 23/2@18 23/3@0 23/3@18"; got != want {
		t.Errorf("opened %s, want %s", got, want)
	}
	alone := func(tree *sensortest.Sysfs) *powerPMU {
		p := newPMU(tree, "0:0:0").noMemory()
		if err := os.Remove(tree.Root + "/" + perfDir + "events/energy-pkg"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if x, p := startPMU(t, sensortest.Machine{}, nil, alone); x.sensor != nil || len(p.opened) > 0 {
		t.Errorf("opened %v", p.opened)
	}
}

func TestEventsCount(t *testing.T) {
	m := sensortest.IntelServer()
	x, p := startPMU(t, m, closedZones(m), twoSockets)
	p.registers[[2]int{pkgEvent, 18}] = 1 << 62 // whatever it was before
	x.read(0)
	random := rand.New(rand.NewPCG(3, 4))
	sum := map[[2]int]uint64{}
	for range 900 {
		for _, at := range [][2]int{{pkgEvent, 0}, {pkgEvent, 18}, {ramEvent, 0}, {ramEvent, 18}} {
			n := random.Uint64N(240 * perJoule)
			p.registers[at] += n
			sum[at] += n
		}
		x.read(time.Second)
	}
	for at, id := range map[[2]int]string{{pkgEvent, 0}: "package-0", {pkgEvent, 18}: "package-1", {ramEvent, 0}: "dram-0", {ramEvent, 18}: "dram-1"} {
		want := new(big.Int).Mul(new(big.Int).SetUint64(sum[at]), big.NewInt(1_000_000))
		want.Rsh(want, 32)
		r := x.reading(id)
		if diff := int64(r.Energy) - want.Int64(); diff < -1 || diff > 1 || r.Observed != 900*time.Second || r.Resets+r.Rejected > 0 || r.Err != nil {
			t.Errorf("%s: %+v, want %v µJ", id, r, want)
		}
	}
}

func TestEventConformance(t *testing.T) {
	for name, c := range map[string]struct {
		machine sensortest.Machine
		pmu     func(*sensortest.Sysfs) *powerPMU
	}{
		"sockets": {sensortest.Machine{}, twoSockets}, "dies": {sensortest.Machine{}, twoDies},
		"beside zones": {sensortest.IntelServer(), twoSockets},
	} {
		t.Run(name, func(t *testing.T) {
			clock := sensortest.NewClock()
			var p *powerPMU
			sensortest.Conform(t, sensortest.Conformance{
				Open: func(t testing.TB) sensors.Sensor {
					p = c.pmu(sensortest.NewSysfs(t, c.machine))
					s, _ := open(p.tree.Roots(), kernel{closedZones(c.machine).openFile, p.openEvent}, clock.Now)
					return s
				},
				Advance: func(d time.Duration) {
					clock.Advance(d)
					for cpu := range 32 {
						p.registers[[2]int{pkgEvent, cpu}] += uint64(90 * d.Seconds() * perJoule)
						p.registers[[2]int{ramEvent, cpu}] += uint64(20 * d.Seconds() * perJoule)
					}
				},
				Supports: backend.Supports,
			})
		})
	}
}

// docs/HARDWARE.md is made of these.
func TestSupports(t *testing.T) {
	for _, u := range backend.Supports {
		if u.Hardware == "" || u.Source == "" || u.Unit == "" || u.Privileges == "" || !strings.HasPrefix(u.Tested, "simulated") || u.Method != sensors.MethodCounter {
			t.Errorf("%+v", u)
		}
	}
	if n := len(backend.Supports); n != 4 {
		t.Errorf("%d kinds of source, want zones and events of two components", n)
	}
}

// Traps 1 and 2: the kernel takes 32 bits of the register for a signed number, so
// that an event goes down where the register was reset, or has used more than half
// of its range since it was last read.
func TestEventThatGoesDown(t *testing.T) {
	const id = "package-0"
	at := [2]int{pkgEvent, 0}
	for name, change := range map[string]int64{ // of the count, in a second
		"far from 0":                    -500 * perJoule,
		"to just above 0":               -990 * perJoule,
		"below 0":                       -100_000 * perJoule,
		"up by what no processor draws": 100_000 * perJoule,
	} {
		t.Run(name, func(t *testing.T) {
			x, p := startPMU(t, sensortest.Machine{}, nil, oneSocket)
			x.read(0)
			for range 10 {
				p.registers[at] += hundredJ
				x.read(time.Second)
			}
			x.wantEnergy(id, 1000e6)
			p.registers[at] += uint64(change)
			x.read(time.Second)
			x.wantEnergy(id, 1000e6) // nothing yet: it may be a glitch
			for range 3 {
				p.registers[at] += hundredJ
				x.read(time.Second)
			}
			x.wantEnergy(id, 1300e6)
			if r := x.reading(id); r.Resets != 1 || r.Err != nil || r.Observed > 13*time.Second {
				t.Errorf("%+v, want one reset", r)
			}
		})
	}
}

// Trap 1: an interval in which the register can have used half of its range is
// said to be unknown, whatever the event shows.
func TestEventThatWasReadTooLate(t *testing.T) {
	x, p := startPMU(t, sensortest.Machine{}, nil, oneSocket)
	at := [2]int{pkgEvent, 0}
	interval := x.sensor.Timing().MaxInterval
	if most := 32_768 * time.Second / time.Duration(packageBound); interval > most || interval < time.Second { // 2³¹ units of 2⁻¹⁶ J
		t.Fatalf("asks to be read every %v, and half of the range can be used in %v", interval, most)
	}
	x.read(0)
	p.registers[at] += hundredJ
	x.read(interval)
	if r := x.reading("package-0"); r.Observed != interval || r.Energy != 100e6 {
		t.Errorf("in time: %+v", r)
	}
	p.registers[at] += hundredJ
	x.read(5 * time.Minute)
	if r := x.reading("package-0"); r.Observed != interval || r.Energy != 200e6 {
		t.Errorf("too late: %+v, want the least it can be and no time observed", r)
	}
}

// The limits of a zone can be read where its counter cannot.
func TestEventTakesTheBoundOfItsZone(t *testing.T) {
	m := sensortest.IntelServer()
	x, _ := startPMU(t, m, closedZones(m), twoSockets)
	for i, d := range x.sensor.Devices() {
		want := sensors.Watts(738) // three times its limit
		if d.Component == sensors.Memory {
			want = leastBound
		}
		if got := x.sensor.(*sensor).states[i].leader.counter.MaxPower; got != want {
			t.Errorf("%s: %v, want %v", d.ID, got, want)
		}
	}
}

// Trap 14: a processor that goes off line takes its events with it, or leaves them
// readable and still; the cpumask says where to go on.
func TestProcessorOffLine(t *testing.T) {
	const id = "package-1"
	for name, c := range map[string]struct {
		fail  func(*powerPMU)
		ticks int // until it is noticed
	}{
		"no such device":  {func(p *powerPMU) { p.ended[18] = syscall.ENODEV }, 1},
		"input or output": {func(p *powerPMU) { p.ended[18] = syscall.EIO }, 1},
		"end of file":     {func(p *powerPMU) { p.ended[18] = io.EOF }, 1},
		"it stands still": {func(p *powerPMU) { p.frozen[18] = true }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			x, p := startPMU(t, sensortest.Machine{}, nil, twoSockets)
			tick := func() {
				for _, cpu := range []int{0, 18, 19} {
					p.registers[[2]int{pkgEvent, cpu}] += hundredJ
				}
				x.read(time.Second)
			}
			x.read(0)
			tick()
			x.wantEnergy(id, 100e6)

			c.fail(p)
			for range c.ticks {
				tick()
				if r := x.reading(id); r.Err == nil || r.Observed != time.Second {
					t.Fatalf("%+v, want an error and no time", r)
				}
			}
			if err := x.reading(id).Err; !errors.Is(err, sensors.ErrLost) || !strings.Contains(err.Error(), "energy-pkg") {
				t.Errorf("%v, want lost", err)
			}
			x.wantEnergy("package-0", sensors.Microjoules(1+c.ticks)*100e6)
			if err := x.reading("package-0").Err; err != nil {
				t.Errorf("the other socket: %v", err)
			}

			p.online("0:0:0", "1:0:19")
			tick() // opens it again: an origin
			tick()
			r := x.reading(id)
			if r.Err != nil || r.Observed != 2*time.Second || r.Resets != 1 {
				t.Errorf("%+v, want it back", r)
			}
			x.wantEnergy(id, 200e6)
			if last := p.opened[len(p.opened)-1]; !strings.HasSuffix(last, "@19") {
				t.Errorf("opened %s, want processor 19", last)
			}
			if p.open != 4 {
				t.Errorf("%d events are open, want 4", p.open)
			}
		})
	}
}

// Each die is counted where it is, before and after its processor goes off line.
func TestDieOffLine(t *testing.T) {
	x, p := startPMU(t, sensortest.Machine{}, nil, twoDies)
	tick := func() {
		p.registers[[2]int{pkgEvent, 0}] += 70 * perJoule
		p.registers[[2]int{pkgEvent, 24}] += 30 * perJoule
		p.registers[[2]int{pkgEvent, 25}] += 30 * perJoule
		x.read(time.Second)
	}
	x.read(0)
	tick()
	x.wantEnergy("package-0-die-0", 70e6)
	x.wantEnergy("package-0-die-1", 30e6)
	p.ended[24] = syscall.ENODEV
	p.online("0:0:0", "0:1:25")
	tick()
	tick()
	tick()
	x.wantEnergy("package-0-die-0", 280e6)
	x.wantEnergy("package-0-die-1", 60e6)
}

// Half of a package is no better than none: what cannot be read whole by events
// stays with its zones, and nothing is left open.
func TestHalfOfAPackage(t *testing.T) {
	m := sensortest.IntelMultiDie()
	f := newFaults()
	f.open["intel-rapl:1"] = syscall.EACCES
	x, p := startPMU(t, m, f, func(tree *sensortest.Sysfs) *powerPMU {
		p := twoDies(tree)
		p.broken = map[int]error{24: syscall.EMFILE}
		return p
	})
	if got, want := x.ids(), "package-0-die-0 dram-0-die-0 dram-0-die-1"; got != want {
		t.Errorf("devices %q, want %q", got, want)
	}
	if got, want := x.omissions(), "unreadable cpu package-0-die-1"; got != want {
		t.Errorf("omitted %q, want %q", got, want)
	}
	if p.open != 0 {
		t.Errorf("%d events are left open", p.open)
	}
}

// Where events take the place of zones, the zones that could be read are closed.
func TestZonesThatEventsReplaceAreClosed(t *testing.T) {
	closed := 0
	f := newFaults()
	f.open["intel-rapl:1"] = syscall.EACCES
	tree := sensortest.NewSysfs(t, sensortest.IntelMultiDie())
	p := twoDies(tree)
	s, _ := open(tree.Roots(), kernel{func(path string) (file, error) {
		zone, err := f.openFile(path)
		return counted{zone, &closed}, err
	}, p.openEvent}, time.Now)
	if closed != 1 {
		t.Errorf("%d zones are closed, want the other die's", closed)
	}
	if err := s.Close(); err != nil || closed != 3 || p.open != 0 {
		t.Errorf("%v: %d zones are closed, want 3; %d events open", err, closed, p.open)
	}
}

type counted struct {
	file
	closed *int
}

func (c counted) Close() error { *c.closed++; return c.file.Close() }

func TestSocketOffLine(t *testing.T) {
	x, p := startPMU(t, sensortest.Machine{}, nil, twoSockets)
	x.read(0)
	p.ended[18] = syscall.ENODEV
	p.online("0:0:0")
	for range 3 {
		x.read(time.Minute)
		if err := x.reading("package-1").Err; !errors.Is(err, sensors.ErrLost) {
			t.Fatalf("%v, want lost", err)
		}
	}
	// What is left is not taken for the socket that went.
	if n := len(p.opened); n != 4 {
		t.Errorf("opened %v", p.opened)
	}
}

func TestEventSample(t *testing.T) {
	s, _ := parseScale(strings.TrimSpace(scaleText))
	for name, c := range map[string]struct {
		n   int
		err error
		is  error
	}{
		"short":       {n: 8, is: sensors.ErrTransient},
		"interrupted": {err: syscall.EINVAL, is: sensors.ErrTransient},
		"gone":        {err: syscall.ENODEV, is: sensors.ErrLost},
		"nothing":     {n: 0, is: sensors.ErrLost},
	} {
		e := &event{file: reads{c.n, c.err}, scale: s, running: math.MaxUint64}
		if _, err := e.sample(); !errors.Is(sentinel(err), c.is) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type reads struct {
	n   int
	err error
}

func (r reads) read([]byte) (int, error) { return r.n, r.err }
func (r reads) Close() error             { return nil }

// Trap 10: one sentence says what opens the counters, and it depends on what is
// closed.
func TestBothAreClosed(t *testing.T) {
	bare := sensortest.AMDServer()
	bare.Zones = nil
	hidden := sensortest.AMDServer()
	hidden.Masked = true
	for name, c := range map[string]struct {
		machine sensortest.Machine
		denied  error
		err     error
		remedy  []string
		not     string
	}{
		"zones for root only":            {sensortest.AMDServer(), syscall.EACCES, sensors.ErrPermission, []string{"sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj", "sudo setcap cap_perfmon=ep '/"}, ""},
		"seccomp":                        {sensortest.AMDServer(), syscall.EPERM, sensors.ErrPermission, []string{"sudo chmod a+r", "sudo setcap cap_perfmon=ep"}, ""},
		"zones for root only, no events": {sensortest.AMDServer(), syscall.ENOENT, sensors.ErrPermission, []string{"sudo chmod a+r"}, "setcap"},
		"no zones":                       {bare, syscall.EACCES, sensors.ErrPermission, []string{"sudo setcap cap_perfmon=ep '/", "--cap-add PERFMON", "sudo sysctl kernel.perf_event_paranoid=0"}, "modprobe"},
		"no zones, events broken":        {bare, syscall.EINVAL, sensors.ErrTransient, nil, "sudo"},
		"no zones, no system call":       {bare, syscall.ENOSYS, sensors.ErrUnsupported, nil, "sudo"},
		"zones hidden":                   {hidden, syscall.EPERM, sensors.ErrPermission, []string{"-v /sys:/host/sys:ro -e HOST_SYS=/host/sys", "; or add --cap-add PERFMON"}, "chmod"},
	} {
		t.Run(name, func(t *testing.T) {
			x, _ := startPMU(t, c.machine, closedZones(c.machine), func(tree *sensortest.Sysfs) *powerPMU {
				p := newPMU(tree, "0:0:0", "1:0:64").noMemory()
				p.denied = c.denied
				return p
			})
			if x.sensor != nil {
				t.Fatalf("a sensor of %v", x.ids())
			}
			found := false
			for _, o := range x.omitted {
				if o.Component != sensors.CPU {
					continue
				}
				found = true
				if o.Status != sensors.Unreadable || !errors.Is(o.Err, c.err) || o.Reason == "" {
					t.Errorf("%+v", o)
				}
				for _, want := range c.remedy {
					if !strings.Contains(o.Remedy, want) {
						t.Errorf("remedy %q, want %q", o.Remedy, want)
					}
				}
				if c.not != "" && strings.Contains(o.Remedy, c.not) {
					t.Errorf("remedy %q has %q", o.Remedy, c.not)
				}
			}
			if !found {
				t.Errorf("omitted %v", x.omissions())
			}
		})
	}
}

// A zone without a name leaves nothing out where the events are complete.
func TestNamelessZoneBesideEvents(t *testing.T) {
	x := &machine{T: t, tree: sensortest.NewSysfs(t, sensortest.IntelServer()), clock: sensortest.NewClock()}
	if err := os.Remove(x.tree.ZoneDir("intel-rapl:0:0") + "/name"); err != nil {
		t.Fatal(err)
	}
	p := twoSockets(x.tree)
	x.sensor, x.omitted = open(x.tree.Roots(), kernel{keptfile.OpenHandle, p.openEvent}, x.clock.Now)
	defer x.sensor.Close()
	if got, want := x.ids(), "package-0 package-1 dram-0 dram-1"; got != want {
		t.Errorf("devices %q, want %q", got, want)
	}
	if got, want := x.omissions(), "superseded memory intel-rapl:0:0"; !strings.HasSuffix(got, want) {
		t.Errorf("omitted %q, want %q", got, want)
	}
}

func TestPMUThatIsNotUnderstood(t *testing.T) {
	for file, text := range map[string]string{
		"type": "power\n", "format/event": "config:8-15\n", "cpumask": "all\n",
		"events/energy-pkg": "event=0x02,umask=0x01\n", "events/energy-pkg.scale": "1e-3\n", "events/energy-pkg.unit": "Watts\n",
	} {
		x, p := startPMU(t, sensortest.VirtualMachine(), nil, func(tree *sensortest.Sysfs) *powerPMU {
			p := newPMU(tree, "0:0:0").noMemory()
			tree.Write(perfDir+file, text)
			return p
		})
		if x.sensor != nil || len(p.opened) > 0 {
			t.Errorf("%s of %q: opened %v", file, text, p.opened)
		}
		if got := x.omissions(); got != "absent cpu" {
			t.Errorf("%s of %q: omitted %q", file, text, got)
		}
	}
	// A processor that says nothing of itself can be in any package.
	x, p := startPMU(t, sensortest.VirtualMachine(), nil, func(tree *sensortest.Sysfs) *powerPMU {
		p := newPMU(tree, "0:0:0")
		tree.Write(perfDir+"cpumask", "0,1\n")
		return p
	})
	if x.sensor != nil || len(p.opened) > 0 {
		t.Errorf("opened %v", p.opened)
	}
}

func TestParseScale(t *testing.T) {
	for text, c := range map[string]struct {
		count, want uint64
	}{
		"2.3283064365386962890625e-10": {1 << 32, 1_000_000},
		"2.32830643653869628906e-10":   {1 << 32, 1_000_000},
		"1e-6":                         {math.MaxUint64, math.MaxUint64},
		"1e-9":                         {1_000_000_999, 1_000_000},
	} {
		s, ok := parseScale(text)
		if !ok {
			t.Errorf("%q is not understood", text)
		}
		if got := s.microjoules(c.count); got != c.want && got != c.want-1 {
			t.Errorf("%q: %d µJ, want %d", text, got, c.want)
		}
	}
	for _, text := range []string{"", "0", "-1e-9", "1e-3", "1e-20", "NaN", "Inf", "x", "1e-9 J", "1e400"} {
		if s, ok := parseScale(text); ok {
			t.Errorf("%q is taken for %v", text, s)
		}
	}
}

// The kernel's scale is exact over all of the count, and never goes down.
func TestScaleIsExact(t *testing.T) {
	s, _ := parseScale(strings.TrimSpace(scaleText))
	random := rand.New(rand.NewPCG(5, 6))
	for range 10000 {
		n := random.Uint64() >> random.UintN(64)
		want := new(big.Int).Mul(new(big.Int).SetUint64(n), big.NewInt(1_000_000))
		want.Rsh(want, 32)
		if got := s.microjoules(n); got != want.Uint64() {
			t.Fatalf("%d counts are %d µJ, want %v", n, got, want)
		}
		if n > 0 && s.microjoules(n-1) > s.microjoules(n) {
			t.Fatalf("%d counts are more than %d", n-1, n)
		}
	}
}

func TestParseCPUList(t *testing.T) {
	for text, want := range map[string]string{
		"0": "[0]", "0,18": "[0 18]", "0-3,8": "[0 1 2 3 8]", "7-7": "[7]",
		"": "", "a": "", "3-1": "", "-1": "", "0-": "", "0,": "", "0-4000000000": "", "65536": "", "+1": "",
	} {
		got := ""
		if cpus, ok := parseCPUList(text); ok {
			got = fmt.Sprint(cpus)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzPMU(f *testing.F) {
	f.Add("event=0x02", "2.3283064365386962890625e-10", "0-3,8", uint64(1<<40))
	f.Add("event=0x", "1e-6", "0,0,0", uint64(math.MaxUint64))
	f.Add("config=2", "0x1p-32", "1-", uint64(0))
	f.Fuzz(func(t *testing.T, event, scale, list string, count uint64) {
		if config, ok := parseEvent(event); ok && (config > 0xff || !strings.HasPrefix(event, "event=0x")) {
			t.Errorf("%q: %#x", event, config)
		}
		if s, ok := parseScale(scale); ok {
			if a, b := s.microjoules(count), s.microjoules(count|1); a > b || b > count|1 {
				t.Errorf("%q: %d counts are %d µJ, one more %d", scale, count, a, b)
			}
		}
		if cpus, ok := parseCPUList(list); ok && (len(cpus) == 0 || len(cpus) > 1<<17 || slices.Min(cpus) < 0 || slices.Max(cpus) >= 1<<16) {
			t.Errorf("%q: %d processors", list, len(cpus))
		}
	})
}

// This machine need not have a power PMU: the clock of a processor goes the same
// way through the kernel.
func openClock(t testing.TB) eventFile {
	t.Helper()
	f, err := openEvent(unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CPU_CLOCK, 0)
	switch {
	case errors.Is(sentinel(err), sensors.ErrPermission), errors.Is(err, errors.ErrUnsupported):
		t.Skipf("the kernel opens no event of a whole processor for this user: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestRealEvent(t *testing.T) {
	e := &event{file: openClock(t), scale: scale{1, 0}, running: math.MaxUint64}
	first, err := e.sample()
	if err != nil {
		t.Fatal(err)
	}
	if first < 1<<63 {
		t.Errorf("%d: no offset", first)
	}
	before := e.running
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		last, err := e.sample()
		if err != nil && err != errStopped {
			t.Fatal(err)
		}
		if err == nil && last > first {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the clock of processor 0 stands still")
		}
	}
	if e.running <= before {
		t.Error("and the event was not running")
	}
	if fd, err := unix.FcntlInt(uintptr(e.file.(perfEvent)), unix.F_GETFD, 0); err != nil || fd&unix.FD_CLOEXEC == 0 {
		t.Errorf("the descriptor is left to children: %v, %v", fd, err)
	}
}

func TestReadingAnEventDoesNotAllocate(t *testing.T) {
	e := &event{file: openClock(t), scale: scale{15625 << 20, 46}, running: math.MaxUint64}
	m := &meter{domain: domain{zone: &zone{}}, file: e, counter: sensors.Counter{Period: halfRange}}
	s := &sensor{now: time.Now, states: []state{{mirrors: mirrors{leader: m}}}}
	dst := make([]sensors.Reading, 1)
	s.Read(dst)
	if n := testing.AllocsPerRun(200, func() { s.Read(dst) }); n != 0 {
		t.Errorf("%v allocations a read", n)
	}
}

func TestOpenEventFails(t *testing.T) {
	openClock(t) // or skip
	if f, err := openEvent(unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CPU_CLOCK, 1<<20); !errors.Is(sentinel(err), sensors.ErrLost) && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a processor that is not there: %v, %v", f, err)
	}
	if f, err := openEvent(1<<30, 2, 0); !errors.Is(sentinel(err), sensors.ErrLost) {
		t.Errorf("a PMU that is not there: %v, %v", f, err)
	}
}

func BenchmarkEvent(b *testing.B) {
	e := &event{file: openClock(b), scale: scale{15625 << 20, 46}, running: math.MaxUint64}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.sample(); err != nil {
			b.Fatal(err)
		}
	}
}
