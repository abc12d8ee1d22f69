//go:build linux

package cray

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// node is a sensor over fake pm_counters, and a clock.
type node struct {
	testing.TB
	tree    *sensortest.Sysfs
	clock   *sensortest.Clock
	joules  map[string]uint64 // by file
	format  string
	fresh   uint64
	sensor  sensors.Sensor
	omitted []sensors.Omission
	dst     []sensors.Reading
}

const (
	withTime = "%d J 1690000000000000 us\n" // Cray EX
	plain    = "%d J\n"                     // Cray XC
)

// The counters of common nodes, in J.
func exCPU() map[string]uint64 {
	return map[string]uint64{"energy": 204183423, "cpu_energy": 150000000, "memory_energy": 20000000, "accel_energy": 0}
}

func exGPU() map[string]uint64 {
	c := exCPU()
	delete(c, "accel_energy")
	for i := range 4 {
		c[fmt.Sprintf("accel%d_energy", i)] = uint64(300000000 + i)
	}
	return c
}

func superchips() map[string]uint64 {
	c := exGPU()
	delete(c, "memory_energy")
	for i := range 4 {
		c[fmt.Sprintf("cpu%d_energy", i)] = uint64(40000000 + i)
	}
	return c
}

func newNode(t testing.TB, joules map[string]uint64, format string) *node {
	t.Helper()
	x := &node{TB: t, tree: sensortest.NewSysfs(t, sensortest.AMDServer()), clock: sensortest.NewClock(), joules: maps.Clone(joules), format: format}
	x.write("generation", "7\n")
	x.write("startup", "1690000000000000\n")
	x.write("raw_scan_hz", "10\n")
	x.write("power", "1200 W 1690000000000000 us\n")
	x.write("power_cap", "0 W 1690000000000000 us\n")
	x.write("accel0_power", "300 W\n")
	x.update()
	return x
}

func start(t testing.TB, joules map[string]uint64, format string) *node {
	t.Helper()
	x := newNode(t, joules, format)
	x.open()
	return x
}

func (x *node) open() {
	x.sensor, x.omitted = open(x.tree.Roots(), x.clock.Now)
	if x.sensor != nil {
		x.dst = make([]sensors.Reading, len(x.sensor.Devices()))
		x.Cleanup(func() {
			if err := x.sensor.Close(); err != nil {
				x.Error(err)
			}
		})
	}
}

func (x *node) write(file, text string) {
	x.Helper()
	x.tree.Write("sys/cray/pm_counters/"+file, text)
}

// update is what the controller does ten times a second.
func (x *node) update() {
	x.Helper()
	for file, j := range x.joules {
		x.write(file, fmt.Sprintf(x.format, j))
	}
	x.fresh++
	x.write("freshness", fmt.Sprintf("%d\n", x.fresh))
}

// draw moves counters on and updates them.
func (x *node) draw(joules uint64, files ...string) {
	x.Helper()
	for _, f := range files {
		x.joules[f] += joules
	}
	x.update()
}

// read lets d pass and reads the sensor.
func (x *node) read(d time.Duration) {
	x.clock.Advance(d)
	x.sensor.Read(x.dst)
}

func (x *node) reading(id string) sensors.Reading {
	x.Helper()
	for i, d := range x.sensor.Devices() {
		if d.ID == id {
			return x.dst[i]
		}
	}
	x.Fatalf("no device %s", id)
	return sensors.Reading{}
}

func (x *node) ids() string {
	if x.sensor == nil {
		return ""
	}
	var ids []string
	for _, d := range x.sensor.Devices() {
		ids = append(ids, d.ID)
	}
	return strings.Join(ids, " ")
}

func (x *node) omissions() string {
	var all []string
	for _, o := range x.omitted {
		all = append(all, fmt.Sprintf("%s %s %s", o.Status, o.Component, o.Device))
	}
	return strings.Join(all, ", ")
}

func TestWhatANodeHas(t *testing.T) {
	xc := map[string]uint64{"energy": 5, "accel_energy": 7}
	idleXC := map[string]uint64{"energy": 5, "accel_energy": 0}
	both := exGPU() // the sum beside its parts
	both["accel_energy"] = 1200000006
	oneAccel := exGPU()
	for i := range 3 {
		oneAccel[fmt.Sprintf("accel%d_energy", i+1)] = 0
	}
	twoSockets := exGPU()
	twoSockets["cpu0_energy"], twoSockets["cpu1_energy"] = 1, 1
	parts := exGPU()
	delete(parts, "energy")
	for name, c := range map[string]struct {
		joules           map[string]uint64
		devices, omitted string
	}{
		"processors":        {exCPU(), "cray-node cray-cpu cray-memory", ""},
		"accelerators":      {exGPU(), "cray-node cray-cpu cray-memory cray-accel", ""},
		"two sockets":       {twoSockets, "cray-node cray-cpu cray-memory cray-accel", ""},
		"XC":                {xc, "cray-node cray-accel", ""},
		"XC without":        {idleXC, "cray-node", ""},
		"a sum and parts":   {both, "cray-node cray-cpu cray-memory cray-accel", ""},
		"empty slots":       {oneAccel, "cray-node cray-cpu cray-memory cray-accel", ""},
		"no node":           {parts, "cray-cpu cray-memory cray-accel", "unreadable node cray-node"},
		"all at 0":          {map[string]uint64{"energy": 0, "cpu_energy": 0}, "", "unreadable node cray-node"},
		"nothing of energy": {nil, "", "unreadable node cray-node"},
		// Nothing says whether the counter of a module is in that of its parts.
		"superchips": {superchips(), "cray-node", "superseded cpu cray-cpu, superseded memory cray-memory, superseded gpu cray-accel"},
	} {
		for _, format := range []string{withTime, plain} {
			x := start(t, c.joules, format)
			if got := x.ids(); got != c.devices {
				t.Errorf("%s: devices %q, want %q", name, got, c.devices)
			}
			if got := x.omissions(); got != c.omitted {
				t.Errorf("%s: omitted %q, want %q", name, got, c.omitted)
			}
			if x.sensor == nil {
				continue
			}
			for _, d := range x.sensor.Devices() {
				if !d.Whole || d.Vendor != "HPE" || d.Refresh != 100*time.Millisecond || (d.Component == sensors.Node) != (d.Scope == sensors.ScopeNode) {
					t.Errorf("%s: %+v", name, d)
				}
			}
		}
	}
}

func TestCountersCount(t *testing.T) {
	for _, format := range []string{withTime, plain} {
		x := start(t, exGPU(), format)
		x.read(0)
		for range 100 {
			x.draw(1500, "energy")
			x.draw(200, "cpu_energy")
			x.draw(30, "memory_energy")
			x.draw(250, "accel0_energy", "accel2_energy")
			x.draw(300, "accel1_energy")
			x.read(time.Second)
		}
		for id, watts := range map[string]uint64{"cray-node": 1500, "cray-cpu": 200, "cray-memory": 30, "cray-accel": 800} {
			r := x.reading(id)
			if r.Energy != sensors.Microjoules(watts*100e6) || r.Observed != 100*time.Second || r.Power != sensors.Watts(watts) ||
				r.Resets+r.Rejected > 0 || r.Err != nil || !math.IsNaN(r.Utilization) {
				t.Errorf("%s: %+v, want %d W", id, r, watts)
			}
		}
	}
}

// A counter that stands still because nobody updates it is no idle node.
func TestStaleCountersAreNotIdle(t *testing.T) {
	x := start(t, exGPU(), withTime)
	x.read(0)
	x.draw(1000, "energy")
	x.read(time.Second)
	before := x.reading("cray-node")
	for i := range 10 {
		x.read(time.Second)
		r := x.reading("cray-node")
		if r.Tally != before.Tally || !r.At.Equal(before.At) {
			t.Fatalf("after %d s: %+v, want %+v", i+1, r, before)
		}
		if late := i+1 > 5; late != (r.Err != nil) || late && !errors.Is(r.Err, sensors.ErrTransient) || late != math.IsNaN(float64(r.Power)) {
			t.Errorf("after %d s: %v, %v", i+1, r.Err, r.Power)
		}
	}
	x.draw(10000, "energy")
	x.read(time.Second)
	if r := x.reading("cray-node"); r.Err != nil || r.Energy != 11_000e6 || r.Observed != 12*time.Second || r.Rejected > 0 {
		t.Errorf("updated again: %+v", r)
	}
}

// Trap 2: the controller restarts, and its counters with it.
func TestControllerRestarts(t *testing.T) {
	x := start(t, exGPU(), withTime)
	x.read(0)
	x.draw(1000, "energy")
	x.read(time.Second)
	x.joules["energy"] = 40
	x.update()
	x.read(time.Second)
	x.draw(1000, "energy")
	x.read(time.Second)
	if r := x.reading("cray-node"); r.Energy != 2040e6 || r.Resets != 1 || r.Observed != 2*time.Second || r.Err != nil {
		t.Errorf("%+v", r)
	}
	// A value that no node can have used is set aside.
	x.joules["energy"] = 1 << 40
	x.update()
	x.read(time.Second)
	x.joules["energy"] = 2040
	x.update()
	x.read(time.Second)
	if r := x.reading("cray-node"); r.Energy != 3040e6 || r.Rejected != 1 {
		t.Errorf("%+v", r)
	}
}

// One accelerator that cannot be read makes no sum of the others; the other
// components are read.
func TestOneFailingCounter(t *testing.T) {
	x := start(t, exGPU(), withTime)
	x.read(0)
	all := []string{"energy", "accel0_energy", "accel1_energy", "accel2_energy", "accel3_energy"}
	x.draw(100, all...)
	x.read(time.Second)
	for _, text := range []string{"nonsense\n", "12 W\n", ""} {
		for _, f := range all {
			x.joules[f] += 100
		}
		x.update()
		x.write("accel2_energy", text)
		before := x.reading("cray-accel").Tally
		x.read(time.Second)
		if r := x.reading("cray-accel"); r.Err == nil || !strings.Contains(r.Err.Error(), "accel2_energy") || r.Tally != before || !math.IsNaN(float64(r.Power)) {
			t.Errorf("%q: %+v", text, r)
		}
		if r := x.reading("cray-node"); r.Err != nil {
			t.Errorf("the node: %v", r.Err)
		}
		x.draw(100, all...)
		x.read(time.Minute) // a file that was lost is looked for again
	}
	x.draw(100, all...)
	x.read(time.Second)
	x.draw(100, all...)
	x.read(time.Second)
	if r := x.reading("cray-accel"); r.Err != nil || r.Energy == 0 {
		t.Errorf("%+v", r)
	}
}

// Trap 15 of its kind: a counter that was gone goes on from where it is.
func TestCounterThatComesBack(t *testing.T) {
	x := start(t, exCPU(), withTime)
	x.read(0)
	x.draw(100, "energy")
	x.read(time.Second)
	path := filepath.Join(x.tree.Roots().Sys, "cray/pm_counters/energy")
	if err := os.Truncate(path, 0); err != nil { // what a file that is gone reads
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	x.fresh++
	x.write("freshness", fmt.Sprintln(x.fresh))
	x.read(time.Second)
	if r := x.reading("cray-node"); !errors.Is(r.Err, sensors.ErrLost) || r.Energy != 100e6 {
		t.Fatalf("%+v", r)
	}
	x.draw(50_000, "energy")
	x.read(10 * time.Second)
	x.draw(100, "energy")
	x.read(time.Second)
	if r := x.reading("cray-node"); r.Err != nil || r.Energy != 200e6 || r.Observed != 2*time.Second || r.Resets != 1 {
		t.Errorf("%+v", r)
	}
}

func TestFreshnessThatCannotBeRead(t *testing.T) {
	for name, prepare := range map[string]func(*node){
		"nonsense": func(x *node) { x.write("freshness", "?\n") },
		"missing": func(x *node) {
			if err := os.Remove(filepath.Join(x.tree.Roots().Sys, "cray/pm_counters/freshness")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		x := newNode(t, exCPU(), withTime)
		prepare(x)
		x.open()
		x.read(0)
		for range 10 {
			x.joules["energy"] += 900
			x.write("energy", fmt.Sprintf(withTime, x.joules["energy"]))
			x.read(time.Second)
		}
		if r := x.reading("cray-node"); r.Energy != 9000e6 || r.Observed != 10*time.Second || r.Err != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	// With its time behind it, as the other files have.
	x := newNode(t, exCPU(), withTime)
	x.write("freshness", "77 1690000000000000 us\n")
	x.open()
	x.read(0)
	x.read(time.Second)
	if r := x.reading("cray-node"); r.Observed != 0 {
		t.Errorf("%+v", r)
	}
}

func TestUnreadableCounters(t *testing.T) {
	x := newNode(t, exGPU(), withTime)
	x.write("accel1_energy", "12 kJ\n")
	x.write("cpu_energy", "unknown\n")
	x.open()
	if got, want := x.ids(), "cray-node cray-memory"; got != want {
		t.Errorf("devices %q, want %q", got, want)
	}
	if got, want := x.omissions(), "unreadable cpu cray-cpu, unreadable gpu cray-accel"; got != want {
		t.Errorf("omitted %q, want %q", got, want)
	}
	for _, o := range x.omitted {
		if o.Source != "cray" || o.Reason == "" || o.Err == nil {
			t.Errorf("%+v", o)
		}
	}
}

func TestNoCray(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.AMDServer())
	s, omitted := Open(context.Background(), tree.Roots())
	if s != nil || len(omitted) != 1 || omitted[0].Status != sensors.Absent || omitted[0].Component != sensors.Node || !errors.Is(omitted[0].Err, sensors.ErrAbsent) {
		t.Errorf("%+v", omitted)
	}
	tree.Write("sys/cray/pm_counters", "")
	if s, omitted := Open(context.Background(), tree.Roots()); s != nil || len(omitted) != 1 || omitted[0].Status != sensors.Unreadable {
		t.Errorf("not a directory: %+v", omitted)
	}
}

// Whatever reads the single GPUs and sockets, in whatever order: no joule is
// counted by both.
func TestNothingIsCountedTwice(t *testing.T) {
	others := map[string][]sensors.Device{
		"GPUs by counter":           {{ID: "GPU-a", Component: sensors.GPU}, {ID: "GPU-b", Component: sensors.GPU}},
		"GPUs by power":             {{ID: "GPU-a", Component: sensors.GPU, Method: sensors.MethodPowerAverage}},
		"sockets":                   {{ID: "package-0", Component: sensors.CPU}, {ID: "package-1", Component: sensors.CPU}, {ID: "dram-0", Component: sensors.Memory}},
		"a model of the processors": {{ID: "cpu", Component: sensors.CPU, Method: sensors.MethodModel, Whole: true}},
		"another meter":             {{ID: "acpi", Component: sensors.Node, Method: sensors.MethodPowerAverage}},
	}
	for name, devices := range others {
		for _, first := range []bool{true, false} {
			x := newNode(t, exGPU(), withTime)
			cray, _ := open(x.tree.Roots(), x.clock.Now)
			var scripts []sensortest.Script
			for _, d := range devices {
				scripts = append(scripts, sensortest.Script{Device: d})
			}
			all := []sensors.Sensor{cray, sensortest.NewSensor(x.clock.Now, sensors.Timing{}, scripts...)}
			if !first {
				slices.Reverse(all)
			}
			set := sensors.NewSet(all...)
			by := map[sensors.Component]map[string]bool{}
			for _, d := range set.Devices() {
				if by[d.Component] == nil {
					by[d.Component] = map[string]bool{}
				}
				by[d.Component][strings.Fields(d.Source)[0]] = true
			}
			for _, c := range []sensors.Component{sensors.Node, sensors.CPU, sensors.Memory, sensors.GPU} {
				if len(by[c]) != 1 {
					t.Errorf("%s, first %v: %s is read by %v", name, first, c, by[c])
				}
			}
			if err := set.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestConformance(t *testing.T) {
	var x *node
	clock := sensortest.NewClock()
	sensortest.Conform(t, sensortest.Conformance{
		Open: func(t testing.TB) sensors.Sensor {
			x = newNode(t, exGPU(), withTime)
			x.clock = clock
			s, _ := open(x.tree.Roots(), clock.Now)
			return s
		},
		Advance: func(d time.Duration) {
			clock.Advance(d)
			x.draw(uint64(500*d.Seconds()), slices.Collect(maps.Keys(x.joules))...)
		},
		Supports: backend.Supports,
	})
}

// Neither what is updated costs memory, nor what is not.
func TestReadDoesNotAllocate(t *testing.T) {
	x := start(t, exGPU(), withTime)
	s := x.sensor.(*sensor)
	x.read(time.Second)
	if n := testing.AllocsPerRun(100, func() { s.freshness--; x.read(time.Second) }); n != 0 {
		t.Errorf("updated: %v allocations", n)
	}
	if r := x.reading("cray-accel"); r.Err != nil || r.Observed == 0 {
		t.Errorf("%+v", r)
	}
	if n := testing.AllocsPerRun(100, func() { x.read(time.Second) }); n != 0 {
		t.Errorf("stale: %v allocations", n)
	}
	if x.reading("cray-node").Err == nil {
		t.Error("not stale")
	}
}

func TestDetectFindsIt(t *testing.T) {
	x := newNode(t, exCPU(), withTime)
	set, err := sensors.Detect(t.Context(), sensors.WithSysRoot(x.tree.Roots().Sys), sensors.WithProcRoot(x.tree.Roots().Proc))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if n := len(set.Devices()); n != 3 {
		t.Errorf("%+v", set.Devices())
	}
}

func TestParseEnergy(t *testing.T) {
	for text, want := range map[string]uint64{
		"0 J\n": 0, "12345 J": 12345, "12345 J\n": 12345, "204183423 J 1589558486218396 us\n": 204183423,
		"18446744073709551615 J 1 us": 1<<64 - 1, "7 J \n": 7,
	} {
		if got, ok := parseEnergy([]byte(text)); !ok || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "\n", "J", "12", "12\n", "12 W\n", "12 kJ", "12J", "-1 J", "1.5 J", "12 J 5", "12 J 5 ms",
		"12 J us", "12 J5 us", "12 Joules", "18446744073709551616 J", " 12 J", "12 J 5 us us"} {
		if got, ok := parseEnergy([]byte(text)); ok {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestNumbered(t *testing.T) {
	for name, want := range map[string]bool{
		"accel0_energy": true, "accel15_energy": true, "accel_energy": false, "accel0_energy_cap": false,
		"accel0_power": false, "accelx_energy": false, "cpu0_energy": false, "accel-1_energy": false,
	} {
		if got := isNumbered(name, "accel"); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzEnergy(f *testing.F) {
	for _, s := range []string{"12345 J\n", "204183423 J 1589558486218396 us\n", "1 J 2 us 3", "18446744073709551616 J", "0 J us"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := parseEnergy(text)
		if !ok {
			return
		}
		// What is understood says the number first, and J behind it.
		digits, rest, _ := strings.Cut(string(text), " ")
		if strings.TrimLeft(digits, "0") != strings.TrimLeft(fmt.Sprint(got), "0") || !strings.HasPrefix(rest, "J") {
			t.Errorf("%q: %d", text, got)
		}
	})
}
