//go:build linux

package rapl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// faults makes the files of zones fail, as file modes do not for root and as a
// file outside sysfs never does.
type faults struct {
	open, read map[string]error // by the zone's directory
	opened     map[string]int
}

func newFaults() *faults {
	return &faults{open: map[string]error{}, read: map[string]error{}, opened: map[string]int{}}
}

func (f *faults) openFile(path string) (file, error) {
	id := filepath.Base(filepath.Dir(path))
	f.opened[id]++
	if err := f.open[id]; err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	real, err := keptfile.OpenHandle(path)
	return faulty{real, f, id}, err
}

type faulty struct {
	file
	*faults
	id string
}

func (f faulty) Pread(buf []byte) (int, error) {
	if err := f.faults.read[f.id]; err != nil {
		return 0, err
	}
	return f.file.Pread(buf)
}

// machine is a sensor over a fake tree, a clock and faults.
type machine struct {
	*testing.T
	tree    *sensortest.Sysfs
	clock   *sensortest.Clock
	faults  *faults
	sensor  sensors.Sensor
	omitted []sensors.Omission
	dst     []sensors.Reading
}

func start(t *testing.T, m sensortest.Machine, f *faults) *machine {
	t.Helper()
	if f == nil {
		f = newFaults()
	}
	x := &machine{T: t, tree: sensortest.NewSysfs(t, m), clock: sensortest.NewClock(), faults: f}
	x.sensor, x.omitted = open(x.tree.Roots(), kernel{f.openFile, noEvent}, x.clock.Now)
	if x.sensor != nil {
		x.dst = make([]sensors.Reading, len(x.sensor.Devices()))
		t.Cleanup(func() {
			if err := x.sensor.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return x
}

// read lets d pass and reads the sensor.
func (x *machine) read(d time.Duration) {
	x.clock.Advance(d)
	x.sensor.Read(x.dst)
}

func (x *machine) index(id string) int {
	x.Helper()
	for i, d := range x.sensor.Devices() {
		if d.ID == id {
			return i
		}
	}
	x.Fatalf("no device %s", id)
	return 0
}

func (x *machine) device(id string) sensors.Device   { return x.sensor.Devices()[x.index(id)] }
func (x *machine) reading(id string) sensors.Reading { return x.dst[x.index(id)] }

func (x *machine) ids() string {
	if x.sensor == nil {
		return ""
	}
	var ids []string
	for _, d := range x.sensor.Devices() {
		ids = append(ids, d.ID)
	}
	return strings.Join(ids, " ")
}

func (x *machine) omissions() string {
	var all []string
	for _, o := range x.omitted {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", o.Status, o.Component, o.Device)))
	}
	return strings.Join(all, ", ")
}

func (x *machine) wantEnergy(id string, want sensors.Microjoules) {
	x.Helper()
	if got := x.reading(id).Energy; got != want {
		x.Errorf("%s: %d µJ, want %d", id, got, want)
	}
}

func TestEachJouleIsCountedOnce(t *testing.T) {
	duplicate := sensortest.AMDServer()
	duplicate.Zones[2].Name = "package-0"
	mmioOnly := sensortest.IntelClient()
	mmioOnly.Zones = mmioOnly.Zones[4:]
	mmioForOne := sensortest.IntelServer()
	mmioForOne.Zones = append(mmioForOne.Zones[:2:2], mmioForOne.Zones[5:]...)
	looseDRAM := sensortest.IntelServer()
	looseDRAM.Zones[1].ID, looseDRAM.Zones[3].ID = "intel-rapl:3", "intel-rapl:4"
	large := sensortest.AMDServer()
	large.Zones = nil
	for i := range 16 {
		large.Zones = append(large.Zones, sensortest.Zone{
			ID: fmt.Sprintf("intel-rapl:%d", i), Name: fmt.Sprintf("package-%d", i), Energy: 1, Range: 65532610987,
		})
	}
	newDomain := sensortest.IntelClient()
	newDomain.Zones = append(newDomain.Zones, sensortest.Zone{ID: "intel-rapl:2", Name: "npu", Energy: 5, Range: 262143328850})

	pairs := sensortest.AMDMultiDie()
	for i, name := range map[int]string{0: "package-0-die-0", 2: "package-0-die-1", 4: "package-0-die-2", 5: "package-0-die-3"} {
		pairs.Zones[i].Name = name
	}

	for name, c := range map[string]struct {
		machine          sensortest.Machine
		devices, omitted string
	}{
		"one socket": {sensortest.IntelClient(), "package-0", "superseded cpu intel-rapl-mmio:0, absent memory"},
		// The DRAM of each socket is its own, whatever the zones' numbers.
		"two sockets":   {sensortest.IntelServer(), "package-0 package-1 dram-0 dram-1", "superseded cpu intel-rapl-mmio:0, superseded cpu intel-rapl-mmio:1"},
		"no dram":       {sensortest.AMDServer(), "package-0 package-1", "absent memory"},
		"dies as parts": {sensortest.IntelMultiDie(), "package-0-die-0 package-0-die-1 dram-0-die-0 dram-0-die-1", ""},
		"dies as mirrors": {sensortest.AMDMultiDie(), "package-0 package-1",
			"superseded cpu package-0-die-1, superseded cpu package-1-die-1, absent memory"},
		"two pairs of mirrors": {pairs, "package-0-die-0 package-0-die-2",
			"superseded cpu package-0-die-1, superseded cpu package-0-die-3, absent memory"},
		"one name twice":             {duplicate, "package-0 package-0-intel-rapl:1", "absent memory"},
		"memory-mapped zone alone":   {mmioOnly, "package-0", "absent memory"},
		"memory-mapped zone for one": {mmioForOne, "package-0 package-1 dram-1", "superseded cpu intel-rapl-mmio:1"},
		"dram at the top level": {looseDRAM, "package-0 package-1 dram-0 dram-1",
			"superseded cpu intel-rapl-mmio:0, superseded cpu intel-rapl-mmio:1"},
		"sixteen sockets": {large, "package-0 package-1 package-2 package-3 package-4 package-5 package-6 package-7 " +
			"package-8 package-9 package-10 package-11 package-12 package-13 package-14 package-15", "absent memory"},
		"unknown domain": {newDomain, "package-0", "superseded cpu intel-rapl-mmio:0, absent memory"},
	} {
		for _, flat := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/flat=%v", name, flat), func(t *testing.T) {
				c.machine.Flat = flat
				x := start(t, c.machine, nil)
				if got := x.ids(); got != c.devices {
					t.Errorf("devices %q, want %q", got, c.devices)
				}
				if got := x.omissions(); got != c.omitted {
					t.Errorf("omitted %q, want %q", got, c.omitted)
				}
			})
		}
	}
}

func TestLinksSayWhatAZoneIsIn(t *testing.T) {
	// The numbers of the directory say package 0, the link says package 1.
	m := sensortest.IntelServer()
	m.Zones = m.Zones[:4]
	tree := sensortest.NewSysfs(t, m)
	tree.Remove("intel-rapl:0:0")
	tree.Write("sys/devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:9:0/name", "dram\n")
	link := filepath.Join(tree.Root, "sys/class/powercap/intel-rapl:9:0")
	if err := syscall.Symlink("../../devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:9:0", link); err != nil {
		t.Fatal(err)
	}
	zones, err := readZones(tree.Roots().Sys)
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range zones {
		if z.id == "intel-rapl:9:0" {
			if z.parent == nil || z.parent.name != "package-1" {
				t.Errorf("in %+v, want package-1", z.parent)
			}
			return
		}
	}
	t.Error("zone not found")
}

func TestDevices(t *testing.T) {
	x := start(t, sensortest.IntelServer(), nil)
	sys := x.tree.Roots().Sys
	want := []sensors.Device{{
		ID: "package-1", Name: "Intel(R) Xeon(R) Gold 6354 CPU @ 3.00GHz", Vendor: "Intel",
		Component: sensors.CPU, Method: sensors.MethodCounter, Scope: sensors.ScopeDevice,
		Source: "rapl " + sys + "/class/powercap/intel-rapl:0", ErrorBand: 0.05, Refresh: time.Millisecond,
	}, {
		ID: "dram-0", Name: "DRAM",
		Component: sensors.Memory, Method: sensors.MethodCounter, Scope: sensors.ScopeDevice,
		Source: "rapl " + sys + "/class/powercap/intel-rapl:1:0", ErrorBand: 0.10, Refresh: time.Millisecond,
	}}
	for _, w := range want {
		if got := x.device(w.ID); fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("got  %+v\nwant %+v", got, w)
		}
	}
	if note := start(t, sensortest.AMDMultiDie(), nil).device("package-1").Note; !strings.Contains(note, "2 zones show this one counter") {
		t.Errorf("note of mirrors: %q", note)
	}
}

func TestDetectFindsIt(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.AMDServer())
	set, err := sensors.Detect(context.Background(),
		sensors.WithSysRoot(tree.Roots().Sys), sensors.WithProcRoot(tree.Roots().Proc))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	dst := make([]sensors.Reading, len(set.Devices()))
	set.Read(dst)
	tree.Draw("intel-rapl:1", 12)
	set.Read(dst)
	if len(dst) != 2 || dst[1].Energy != 12 {
		t.Errorf("read %+v", dst)
	}
}

func TestConformance(t *testing.T) {
	for name, m := range map[string]sensortest.Machine{
		"server": sensortest.IntelServer(), "mirrors": sensortest.AMDMultiDie(), "parts": sensortest.IntelMultiDie(),
	} {
		t.Run(name, func(t *testing.T) {
			clock := sensortest.NewClock()
			var tree *sensortest.Sysfs
			sensortest.Conform(t, sensortest.Conformance{
				Open: func(t testing.TB) sensors.Sensor {
					tree = sensortest.NewSysfs(t, m)
					s, _ := open(tree.Roots(), kernel{keptfile.OpenHandle, noEvent}, clock.Now)
					return s
				},
				Advance: func(d time.Duration) {
					clock.Advance(d)
					for i, z := range m.Zones {
						if z.Mirrors == "" {
							tree.Draw(z.ID, sensors.Microjoules(float64(50+i)*d.Seconds()*1e6))
						}
					}
				},
			})
		})
	}
}

// The energy of the devices is that of the zones that count, to the microjoule,
// however often they are read, and whatever the zones that overlap do.
func TestConservation(t *testing.T) {
	for name, c := range map[string]struct {
		machine sensortest.Machine
		counts  map[string]string // zone → device
	}{
		"client": {sensortest.IntelClient(), map[string]string{"intel-rapl:0": "package-0"}},
		"server": {sensortest.IntelServer(), map[string]string{"intel-rapl:0": "package-1", "intel-rapl:1": "package-0",
			"intel-rapl:0:0": "dram-1", "intel-rapl:1:0": "dram-0"}},
		"parts": {sensortest.IntelMultiDie(), map[string]string{"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1",
			"intel-rapl:0:0": "dram-0-die-0", "intel-rapl:1:0": "dram-0-die-1"}},
		"mirrors": {sensortest.AMDMultiDie(), map[string]string{"intel-rapl:0": "package-0", "intel-rapl:2": "package-1"}},
		"amd":     {sensortest.AMDServer(), map[string]string{"intel-rapl:0": "package-0", "intel-rapl:1": "package-1"}},
	} {
		for _, every := range []int{1, 3, 10} {
			t.Run(fmt.Sprintf("%s/every %d s", name, every), func(t *testing.T) {
				x := start(t, c.machine, nil)
				random := rand.New(rand.NewPCG(1, 2))
				x.read(0)
				want := map[string]sensors.Microjoules{}
				wraps := 0
				for i := range 900 {
					for _, z := range c.machine.Zones {
						if z.Mirrors != "" {
							continue
						}
						before := x.tree.Energy(z.ID)
						e := sensors.Microjoules(random.Uint64N(240e6))
						x.tree.Draw(z.ID, e)
						if id := c.counts[z.ID]; id != "" {
							want[id] += e
							if x.tree.Energy(z.ID) < before {
								wraps++
							}
						}
					}
					x.clock.Advance(time.Second)
					if (i+1)%every == 0 {
						x.read(0)
					}
				}
				for id, w := range want {
					x.wantEnergy(id, w)
					if r := x.reading(id); r.Observed != 900*time.Second || r.Resets+r.Rejected > 0 || r.Err != nil {
						t.Errorf("%s: %+v", id, r)
					}
				}
				if name == "amd" && wraps < 2 {
					t.Errorf("%d wraps: the test is too short", wraps)
				}
			})
		}
	}
}

func TestCounter(t *testing.T) {
	const p = 65532610987 + 15 // the period
	type step struct {
		raw  uint64
		want sensors.Microjoules
	}
	for name, c := range map[string]struct {
		unknownPeriod    bool
		steps            []step // a second apart
		resets, rejected uint32
	}{
		"the first value is the origin, however large": {steps: []step{{53_000_000_000, 0}, {53_000_000_007, 7}}},
		"wrap": {steps: []step{{p - 10, 0}, {90, 100}, {100, 110}}},
		"wrap without a maximum is a restart": {unknownPeriod: true, resets: 1,
			steps: []step{{p - 10, 0}, {90, 90}, {100, 100}}},
		"restart of the counter":          {resets: 1, steps: []step{{30_000_000_000, 0}, {30_100_000_000, 100_000_000}, {50, 100_000_050}, {70, 100_000_070}}},
		"glitch to zero":                  {resets: 1, steps: []step{{30_000_000_000, 0}, {0, 0}, {0, 0}, {10, 10}}},
		"spike":                           {rejected: 1, steps: []step{{30_000_000_000, 0}, {60_000_000_000, 0}, {30_000_000_100, 100}}},
		"unsigned underflow":              {rejected: 1, steps: []step{{30_000_000_000, 0}, {math.MaxUint64 - 5, 0}, {30_000_000_100, 100}}},
		"unsigned underflow, no maximum":  {unknownPeriod: true, rejected: 1, steps: []step{{30_000_000_000, 0}, {math.MaxUint64 - 5, 0}, {30_000_000_100, 100}}},
		"no energy when it does not move": {steps: []step{{5, 0}, {5, 0}, {6, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := sensortest.AMDServer()
			if c.unknownPeriod {
				m.Zones[0].Range = 0
			}
			x := start(t, m, nil)
			if note := x.device("package-0").Note; c.unknownPeriod != strings.Contains(note, "wrap") {
				t.Errorf("note %q", note)
			}
			for _, s := range c.steps {
				x.tree.SetEnergy("intel-rapl:0", s.raw)
				x.read(time.Second)
				x.wantEnergy("package-0", s.want)
				x.wantEnergy("package-1", 0)
			}
			if r := x.reading("package-0"); r.Resets != c.resets || r.Rejected != c.rejected {
				t.Errorf("%d resets, %d rejected, want %d, %d", r.Resets, r.Rejected, c.resets, c.rejected)
			}
		})
	}
}

func TestPower(t *testing.T) {
	x := start(t, sensortest.AMDServer(), nil)
	const id, zone = "package-0", "intel-rapl:0"
	check := func(want float64) {
		t.Helper()
		r := x.reading(id)
		if got := float64(r.Power); math.Abs(got-want) > 1e-9 || math.IsNaN(got) != math.IsNaN(want) {
			t.Errorf("%v W, want %v", got, want)
		}
		if !math.IsNaN(r.Utilization) {
			t.Errorf("utilization %v, which RAPL does not know", r.Utilization)
		}
	}
	x.read(time.Second)
	check(math.NaN())
	x.tree.Draw(zone, 300e6)
	x.read(2 * time.Second)
	check(150)
	x.read(0) // no time has passed
	check(150)
	x.read(time.Second) // idle
	check(0)
	raw := x.tree.Energy(zone)
	x.tree.SetEnergy(zone, raw-30e9) // nonsense says nothing of the power
	x.read(time.Second)
	check(0)
	x.tree.SetEnergy(zone, raw+200e6)
	x.read(time.Second)
	check(100)
	x.tree.Corrupt(zone, "garbage")
	x.read(time.Second)
	check(100)
	x.faults.read[zone] = syscall.ENODEV
	x.read(time.Second)
	check(math.NaN())
}

func TestOneFailingZoneCostsThatZone(t *testing.T) {
	const zone, id, beside = "intel-rapl:1", "package-0", "package-1"
	for name, c := range map[string]struct {
		fail, heal func(*machine)
		want       error
		rebased    bool
	}{
		"driver unloaded": {want: sensors.ErrLost, rebased: true,
			fail: func(x *machine) { x.faults.read[zone], x.faults.open[zone] = syscall.ENODEV, syscall.ENOENT },
			heal: func(x *machine) { clear(x.faults.read); clear(x.faults.open) }},
		"processor off line": {want: sensors.ErrLost, rebased: true,
			fail: func(x *machine) { x.faults.read[zone] = syscall.EIO },
			heal: func(x *machine) { clear(x.faults.read) }},
		"no such device": {want: sensors.ErrLost, rebased: true,
			fail: func(x *machine) { x.faults.read[zone] = syscall.ENXIO },
			heal: func(x *machine) { clear(x.faults.read) }},
		"tree removed": {want: sensors.ErrLost, rebased: true,
			fail: func(x *machine) { x.tree.Remove(zone) },
			heal: func(x *machine) { x.tree.Restore(zone) }},
		"permission taken away": {want: sensors.ErrPermission, rebased: true,
			fail: func(x *machine) { x.faults.read[zone], x.faults.open[zone] = syscall.EACCES, syscall.EACCES },
			heal: func(x *machine) { clear(x.faults.read); clear(x.faults.open) }},
		"EINVAL": {want: sensors.ErrTransient,
			fail: func(x *machine) { x.faults.read[zone] = syscall.EINVAL },
			heal: func(x *machine) { clear(x.faults.read) }},
		"ENODATA": {want: sensors.ErrTransient,
			fail: func(x *machine) { x.faults.read[zone] = syscall.ENODATA },
			heal: func(x *machine) { clear(x.faults.read) }},
		"garbage": {want: sensors.ErrTransient,
			fail: func(x *machine) { x.tree.Corrupt(zone, "-1") },
			heal: func(*machine) {}},
		"empty": {want: sensors.ErrTransient,
			fail: func(x *machine) { x.tree.Write(strings.TrimPrefix(x.tree.EnergyFile(zone), x.tree.Root), "") },
			heal: func(*machine) {}},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, sensortest.IntelServer(), nil)
			x.read(0)
			x.tree.Draw(zone, 100e6)
			x.tree.Draw("intel-rapl:0", 100e6)
			x.read(time.Second)
			x.wantEnergy(id, 100e6)
			before := x.reading(id)

			c.fail(x)
			x.tree.Draw("intel-rapl:0", 100e6)
			x.read(time.Second)
			r := x.reading(id)
			if !errors.Is(r.Err, c.want) || !strings.Contains(r.Err.Error(), zone) {
				t.Errorf("error %v, want %v with the zone", r.Err, c.want)
			}
			if r.Tally != before.Tally || !r.At.Equal(before.At) {
				t.Errorf("%+v, want the last value %+v", r, before)
			}
			for _, other := range []string{beside, "dram-0", "dram-1"} {
				if name == "tree removed" && other == "dram-0" {
					continue // it is in what was removed
				}
				if err := x.reading(other).Err; err != nil {
					t.Errorf("%s: %v", other, err)
				}
			}
			x.wantEnergy(beside, 200e6)

			// It counts on behind our back, and is back: no spike.
			c.heal(x)
			x.tree.Draw(zone, 53_000e6)
			if !c.rebased {
				x.tree.SetEnergy(zone, x.tree.Energy(zone)-53_000e6+300e6)
			}
			x.read(4 * time.Second)
			if err := x.reading(id).Err; err != nil {
				t.Fatalf("still %v", err)
			}
			want := sensors.Microjoules(100e6)
			if !c.rebased {
				want = 400e6 // a read that fails loses nothing
			}
			x.wantEnergy(id, want)
			x.tree.Draw(zone, 7)
			x.read(time.Second)
			x.wantEnergy(id, want+7)
			if r := x.reading(id); (r.Resets > 0) != c.rebased {
				t.Errorf("%d resets", r.Resets)
			}
		})
	}
}

func TestLostZoneIsLookedForLessAndLess(t *testing.T) {
	const zone = "intel-rapl:0"
	x := start(t, sensortest.AMDServer(), nil)
	x.read(0)
	x.faults.read[zone], x.faults.open[zone] = syscall.ENODEV, syscall.ENOENT
	x.read(time.Second)
	var at []int
	for second := 1; second <= 200; second++ {
		before := x.faults.opened[zone]
		x.tree.Draw(zone, 50e6) // it may or may not be this: unknown, not guessed
		x.read(time.Second)
		if x.faults.opened[zone] > before {
			at = append(at, second)
		}
		if err := x.reading("package-0").Err; !errors.Is(err, sensors.ErrLost) {
			t.Fatalf("after %d s: %v", second, err)
		}
	}
	if want := []int{1, 3, 7, 15, 31, 63, 123, 183}; !slices.Equal(at, want) {
		t.Errorf("looked for after %v s, want %v", at, want)
	}
	clear(x.faults.read)
	clear(x.faults.open)
	x.read(43 * time.Second)
	x.tree.Draw(zone, 9)
	x.read(time.Second)
	x.wantEnergy("package-0", 9)
	// Once it has been read, the next loss starts from a second again.
	x.faults.read[zone] = syscall.ENODEV
	x.read(time.Second)
	clear(x.faults.read)
	x.read(time.Second)
	if err := x.reading("package-0").Err; err != nil {
		t.Error(err)
	}
}

func TestRenumberedZoneStaysLost(t *testing.T) {
	// A driver that is loaded again gives the number to another socket. The
	// dram's own name is the same, and it is not the same DRAM.
	x := start(t, sensortest.IntelServer(), nil)
	x.read(0)
	x.tree.Remove("intel-rapl:0")
	x.read(time.Second)
	x.tree.Restore("intel-rapl:0")
	x.tree.Write("sys/class/powercap/intel-rapl:0/name", "package-0\n")
	x.tree.Draw("intel-rapl:0", 5)
	x.read(time.Minute)
	for _, id := range []string{"package-1", "dram-1"} {
		if err := x.reading(id).Err; !errors.Is(err, sensors.ErrLost) {
			t.Errorf("%s: %v, want lost", id, err)
		}
		x.wantEnergy(id, 0)
	}
	x.tree.Write("sys/class/powercap/intel-rapl:0/name", "package-1\n")
	x.read(time.Minute)
	x.read(time.Minute)
	if err := x.reading("dram-1").Err; err != nil {
		t.Error(err)
	}
}

func TestUnreadable(t *testing.T) {
	denied := func(zones ...string) *faults {
		f := newFaults()
		for _, z := range zones {
			f.open[z] = syscall.EACCES
		}
		return f
	}
	broken := newFaults()
	broken.read["intel-rapl:0"] = syscall.EIO
	for name, c := range map[string]struct {
		faults           *faults
		machine          sensortest.Machine
		devices, omitted string
		err              error
		remedy           string
	}{
		"one zone": {denied("intel-rapl:0:0"), sensortest.IntelServer(), "package-0 package-1 dram-0", "unreadable memory dram-1",
			sensors.ErrPermission, "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"},
		"all": {denied("intel-rapl:0", "intel-rapl:1"), sensortest.AMDServer(), "", "unreadable cpu package-0, unreadable cpu package-1",
			sensors.ErrPermission, "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"},
		// Without its twin a die is what its name says.
		"one of two mirrors": {denied("intel-rapl:1"), sensortest.AMDMultiDie(), "package-0-die-0 package-1", "unreadable cpu package-0-die-1",
			sensors.ErrPermission, "chmod"},
		"memory-mapped alone": {denied("intel-rapl-mmio:0"), sensortest.Machine{Zones: sensortest.IntelClient().Zones[4:]}, "", "unreadable cpu package-0",
			sensors.ErrPermission, "/intel-rapl-mmio:*/energy_uj"},
		"broken": {broken, sensortest.AMDServer(), "package-1", "unreadable cpu package-0", sensors.ErrLost, ""},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, c.machine, c.faults)
			if got := x.ids(); got != c.devices {
				t.Errorf("devices %q, want %q", got, c.devices)
			}
			if got := x.omissions(); !strings.HasPrefix(got, c.omitted) && !strings.HasSuffix(got, c.omitted) {
				t.Errorf("omitted %q, want %q", got, c.omitted)
			}
			for _, o := range x.omitted {
				if o.Status == sensors.Unreadable && (!errors.Is(o.Err, c.err) || !strings.Contains(o.Remedy, c.remedy) || o.Reason == "") {
					t.Errorf("%+v, want %v and %q", o, c.err, c.remedy)
				}
			}
		})
	}
}

func TestNameThatCannotBeRead(t *testing.T) {
	x := &machine{T: t, tree: sensortest.NewSysfs(t, sensortest.IntelServer())}
	for _, zone := range []string{"intel-rapl:0:0", "intel-rapl:2"} {
		if err := syscall.Unlink(filepath.Join(x.tree.ZoneDir(zone), "name")); err != nil {
			t.Fatal(err)
		}
	}
	x.sensor, x.omitted = open(x.tree.Roots(), kernel{keptfile.OpenHandle, noEvent}, time.Now)
	defer x.sensor.Close()
	if got, want := x.ids(), "package-0 package-1 dram-0"; got != want {
		t.Errorf("devices %q, want %q", got, want)
	}
	if got, want := x.omissions(), "unreadable memory intel-rapl:0:0, unreadable cpu intel-rapl:2"; !strings.HasSuffix(got, want) {
		t.Errorf("omitted %q, want %q", got, want)
	}
}

func TestNothingToRead(t *testing.T) {
	masked := sensortest.IntelServer()
	masked.Masked = true
	unknown := sensortest.IntelClient()
	unknown.Zones = []sensortest.Zone{{ID: "intel-rapl:0", Name: "psys", Range: 262143328850}}
	bare := sensortest.AMDServer()
	bare.Zones = nil
	for name, c := range map[string]struct {
		machine sensortest.Machine
		prepare func(*sensortest.Sysfs)
		status  sensors.Status
		err     error
		reason  string
		remedy  string
	}{
		"virtual machine": {machine: sensortest.VirtualMachine(), status: sensors.Absent, err: sensors.ErrAbsent,
			reason: "no intel-rapl zone; in a virtual machine that is normal"},
		"driver not loaded": {machine: bare, status: sensors.Absent, err: sensors.ErrAbsent,
			reason: "no intel-rapl zone", remedy: "sudo modprobe intel_rapl_msr"},
		"no zones": {machine: sensortest.VirtualMachine(), status: sensors.Absent, err: sensors.ErrAbsent, reason: "no intel-rapl zone",
			prepare: func(s *sensortest.Sysfs) { s.Write("sys/class/powercap/dtpm/enabled", "0\n") }},
		"masked": {machine: masked, status: sensors.Unreadable, err: sensors.ErrPermission,
			reason: "hidden from this container", remedy: "HOST_SYS=/host/sys"},
		"only zones that overlap": {machine: unknown, status: sensors.Unreadable, err: sensors.ErrUnsupported, reason: "psys (intel-rapl:0)"},
		"not a directory": {machine: sensortest.VirtualMachine(), status: sensors.Unreadable, err: sensors.ErrTransient, reason: "cannot be listed",
			prepare: func(s *sensortest.Sysfs) { s.Write("sys/class/powercap", "") }},
	} {
		t.Run(name, func(t *testing.T) {
			tree := sensortest.NewSysfs(t, c.machine)
			if c.prepare != nil {
				c.prepare(tree)
			}
			s, omitted := Open(context.Background(), tree.Roots())
			if s != nil {
				t.Errorf("a sensor of %v", s.Devices())
			}
			if len(omitted) != 1 {
				t.Fatalf("omitted %+v", omitted)
			}
			o := omitted[0]
			if o.Source != "rapl" || o.Component != sensors.CPU || o.Status != c.status || !errors.Is(o.Err, c.err) {
				t.Errorf("%+v", o)
			}
			if !strings.Contains(o.Reason, c.reason) || !strings.Contains(o.Remedy, c.remedy) || (o.Remedy != "") != (c.remedy != "") {
				t.Errorf("reason %q, remedy %q", o.Reason, o.Remedy)
			}
		})
	}
}

func TestTiming(t *testing.T) {
	for name, c := range map[string]struct {
		zone sensortest.Zone
		want time.Duration
	}{
		"no limit known":      {sensortest.Zone{Range: 65532610987}, 30 * time.Second},
		"wraps soon":          {sensortest.Zone{Range: 65532610987, LongTerm: 1000}, 21844203667},
		"wraps late":          {sensortest.Zone{Range: 262143328850, LongTerm: 350}, 30 * time.Second},
		"no range":            {sensortest.Zone{LongTerm: 350}, 30 * time.Second},
		"absurdly small":      {sensortest.Zone{Range: 1}, time.Second},
		"absurdly large":      {sensortest.Zone{Range: math.MaxUint64 / 8}, 30 * time.Second},
		"not a range at all":  {sensortest.Zone{Range: math.MaxUint64}, 30 * time.Second},
		"limit out of bounds": {sensortest.Zone{Range: 65532610987, LongTerm: 4095}, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c.zone.ID, c.zone.Name = "intel-rapl:0", "package-0"
			x := start(t, sensortest.Machine{Zones: []sensortest.Zone{c.zone}}, nil)
			if got := x.sensor.Timing(); got != (sensors.Timing{MaxInterval: c.want}) {
				t.Errorf("%+v, want %v", got, c.want)
			}
		})
	}
}

// At the interval that Timing asks for the counter cannot go round unseen, so
// that all of the time counts as observed.
func TestTimingKeepsTheCounterSound(t *testing.T) {
	m := sensortest.AMDServer()
	m.Zones[0].LongTerm = 1400
	x := start(t, m, nil)
	x.read(0)
	interval := x.sensor.Timing().MaxInterval
	for range 20 {
		x.tree.Draw("intel-rapl:0", sensors.Microjoules(1400e6*interval.Seconds()))
		x.read(interval)
	}
	if r := x.reading("package-0"); r.Observed != 20*interval || r.Rejected > 0 {
		t.Errorf("observed %v of %v: %+v", r.Observed, 20*interval, r)
	}
}

// Trap 1: in an interval that allows for a whole round of the counter, what was
// used is at least the difference, and the time is not counted as observed.
func TestZoneThatWasReadTooLate(t *testing.T) {
	m := sensortest.AMDServer()
	m.Zones[0].LongTerm = 280 // a bound of 840 W: 78 s for a round
	x := start(t, m, nil)
	x.read(0)
	x.tree.Draw("intel-rapl:0", 20_000e6)
	x.read(time.Minute)
	if r := x.reading("package-0"); r.Energy != 20_000e6 || r.Observed != time.Minute {
		t.Errorf("in time: %+v", r)
	}
	x.tree.Draw("intel-rapl:0", 65532611002+5e6) // a round and 5 J
	x.read(10 * time.Minute)
	if r := x.reading("package-0"); r.Energy != 20_005e6 || r.Observed != time.Minute {
		t.Errorf("too late: %+v, want the least it can be and no time", r)
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	for name, m := range map[string]sensortest.Machine{"server": sensortest.IntelServer(), "mirrors": sensortest.AMDMultiDie()} {
		tree := sensortest.NewSysfs(t, m)
		s, _ := Open(context.Background(), tree.Roots())
		dst := make([]sensors.Reading, len(s.Devices()))
		s.Read(dst)
		if n := testing.AllocsPerRun(200, func() { s.Read(dst) }); n != 0 {
			t.Errorf("%s: %v allocations a read", name, n)
		}
		if dst[0].Err != nil {
			t.Error(dst[0].Err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseLeavesNothingOpen(t *testing.T) {
	open := func() int {
		entries, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	tree := sensortest.NewSysfs(t, sensortest.AMDMultiDie())
	before := open()
	s, _ := Open(context.Background(), tree.Roots())
	if open() <= before {
		t.Fatal("no file is kept open")
	}
	for range 2 { // the second time there is nothing left to close
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := open(); after != before {
		t.Errorf("%d files open, %d before", after, before)
	}
}

func BenchmarkRead(b *testing.B) {
	tree := sensortest.NewSysfs(b, sensortest.IntelServer()) // four zones
	s, _ := Open(context.Background(), tree.Roots())
	defer s.Close()
	dst := make([]sensors.Reading, len(s.Devices()))
	b.ReportAllocs()
	for b.Loop() {
		s.Read(dst)
	}
}
