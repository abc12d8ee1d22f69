//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// trainingNode is a simulated training node: a fake NVIDIA driver and a fake /sys, whose
// time is moved by the very command that the runner runs.
type trainingNode struct {
	Clock  sensortest.NVMLClock
	Length time.Duration
	Zones  map[string]zone // by the path of the counter
}

// zone is the counter of one RAPL zone.
type zone struct {
	Start, Period uint64
	Curve         sensortest.Curve
}

// nodeVariable names the file that makes this test binary the command.
const nodeVariable = "NODE_TO_DRIVE"

func init() {
	if path := os.Getenv(nodeVariable); path != "" {
		if err := drive(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// drive lets the node's time pass, in step with the real one.
func drive(path string) error {
	var n trainingNode
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	begin := time.Now()
	const step = 50 * time.Millisecond
	for t := step; err == nil && t <= n.Length; t += step {
		time.Sleep(time.Until(begin.Add(t)))
		err = n.Clock.Set(t)
		for file, z := range n.Zones {
			raw := z.Start + uint64(z.Curve.Energy(t))
			if e := sensortest.WriteEnergy(file, raw%z.Period); err == nil {
				err = e
			}
		}
	}
	return err
}

// server is a two-socket machine, one of whose counters wraps during the run.
func server() sensortest.Machine {
	m := sensortest.IntelServer()
	m.Zones[0].Energy = m.Zones[0].Period() - 100e6
	return m
}

// curves of the zones of server, by the ID of the device.
var zoneCurves = map[string]struct {
	zone  string
	curve sensortest.Curve
}{
	"package-0": {"intel-rapl:1", sensortest.Steps(700*time.Millisecond, 90, 205, 120, 180)},
	"package-1": {"intel-rapl:0", sensortest.Curve{{At: 0, Power: 60}, {At: 2 * time.Second, Power: 200}}},
	"dram-0":    {"intel-rapl:1:0", sensortest.Constant(21)},
	"dram-1":    {"intel-rapl:0:0", sensortest.Steps(time.Second, 18, 33)},
}

const nodeLength = 2500 * time.Millisecond

// runNode runs the node's whole time under the runner. The environment is what
// the runner and the command see.
func runNode(t *testing.T, tree *sensortest.Sysfs, m sensortest.Machine, env []string, flags ...string) result {
	t.Helper()
	n := trainingNode{Length: nodeLength, Zones: map[string]zone{}}
	for _, v := range env {
		if path, ok := strings.CutPrefix(v, "FAKE_NVML_CLOCK="); ok {
			n.Clock.Path = path
		}
	}
	if n.Clock.Path == "" {
		n.Clock.Path = filepath.Join(t.TempDir(), "clock")
	}
	for _, c := range zoneCurves {
		for _, z := range m.Zones {
			if z.ID == c.zone {
				n.Zones[tree.EnergyFile(z.ID)] = zone{Start: z.Energy, Period: z.Period(), Curve: c.curve}
			}
		}
	}
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	plan := filepath.Join(t.TempDir(), "node.json")
	if err := os.WriteFile(plan, data, 0o644); err != nil {
		t.Fatal(err)
	}
	roots := tree.Roots()
	env = append(env, "HOST_SYS="+roots.Sys, "HOST_PROC="+roots.Proc, nodeVariable+"="+plan)
	flags = append([]string{"--interval", "500ms", "--intensity", "100", "--pue", "1.2"}, flags...)
	r := start(t, env, flags, os.Args[0]).wait(t)
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &r.stderr)
	}
	return r
}

func deviceOf(t *testing.T, r tracker.Report, id string) tracker.Device {
	t.Helper()
	for _, d := range r.Devices {
		if d.ID == id {
			return d
		}
	}
	t.Fatalf("no device %s among %+v", id, r.Devices)
	return tracker.Device{}
}

// within fails unless a device's energy is near the truth, relatively.
func within(t *testing.T, d tracker.Device, want sensors.Joules, tolerance float64) {
	t.Helper()
	if d.Energy == nil {
		t.Errorf("%s: no energy: %s, %s", d.ID, d.Status, d.Reason)
		return
	}
	if math.Abs(float64(*d.Energy-want)) > tolerance*float64(want) {
		t.Errorf("%s: %.4f J, want %.4f J", d.ID, float64(*d.Energy), float64(want))
	}
}

func checkZones(t *testing.T, r tracker.Report) {
	t.Helper()
	for id, c := range zoneCurves {
		d := deviceOf(t, r, id)
		within(t, d, c.curve.Joules(nodeLength), 1e-5)
		if d.Method != sensors.MethodCounter || d.Status != tracker.StatusOK {
			t.Errorf("%s: %s, %s %s", id, d.Method, d.Status, d.Reason)
		}
	}
}

func needsNVML(t *testing.T) {
	t.Helper()
	if !cgo {
		t.Skip("built without cgo: there is no NVML back-end")
	}
}

// Eight GPUs and two sockets: every counter's energy is that of its curve.
func TestNode(t *testing.T) {
	needsNVML(t)
	gpus := make([]sensortest.GPU, 8)
	for i := range gpus {
		gpus[i].Curve = sensortest.Steps(600*time.Millisecond, sensors.Watts(70+i), 650, sensors.Watts(300+40*i), 90, 700)
		gpus[i].MaxPower, gpus[i].Start = 700, uint64(i)*1e9
	}
	m := server()
	tree := sensortest.NewSysfs(t, m)
	env, _ := sensortest.FakeNVML(t, sensortest.NVMLScript{GPUs: gpus})
	r := runNode(t, tree, m, env)
	checkZones(t, r.report)
	var total float64
	for i, g := range gpus {
		d := deviceOf(t, r.report, g.WithDefaults(i).ID)
		within(t, d, g.Curve.Joules(nodeLength), 1e-4)
		if d.Method != sensors.MethodCounter || d.Coverage < 0.99 {
			t.Errorf("%s: %s, coverage %v", d.ID, d.Method, d.Coverage)
		}
		total += float64(g.Curve.Joules(nodeLength))
	}
	if got := float64(*r.report.Energy.GPU); math.Abs(got-total) > 1e-4*total {
		t.Errorf("gpu: %v J, want %v J", got, total)
	}
	if r.report.Partial || len(r.report.Missing) != 0 {
		t.Errorf("partial: %v, %+v", r.report.Partial, r.report.Missing)
	}
	if s := r.stderr.String(); !strings.Contains(s, "8 × ") || strings.Contains(s, "not measured") {
		t.Errorf("the summary:\n%s", s)
	}
}

// A GPU without a counter is integrated from its power, at the pace it needs,
// whatever the interval.
func TestNodePowerOnly(t *testing.T) {
	needsNVML(t)
	const stepHeight = 400
	gpus := make([]sensortest.GPU, 2)
	for i := range gpus {
		gpus[i].Curve = sensortest.Curve{{At: 0, Power: 100}, {At: time.Second, Power: 100}, {At: time.Second, Power: 100 + stepHeight}}
		gpus[i].MaxPower = 700
		gpus[i].Faults = []sensortest.Fault{{On: "energy"}}
	}
	gpus[1].Faults = append(gpus[1].Faults, sensortest.Fault{On: "185"})
	gpus[1].Major, gpus[1].Minor = 6, 1 // Pascal: power is instantaneous
	m := server()
	tree := sensortest.NewSysfs(t, m)
	env, _ := sensortest.FakeNVML(t, sensortest.NVMLScript{GPUs: gpus})
	r := runNode(t, tree, m, env, "--interval", "2s")
	for i, want := range []struct {
		method sensors.Method
		pace   float64
	}{{sensors.MethodPowerAverage, 1}, {sensors.MethodPower, 0.1}} {
		d := deviceOf(t, r.report, gpus[i].WithDefaults(i).ID)
		if d.Method != want.method || d.Energy == nil {
			t.Errorf("%s: %s, want %s", d.ID, d.Method, want.method)
			continue
		}
		// Half a pace of the step, and what is drawn before the driver's time
		// begins to move and after it stops. On a loaded machine the two are
		// not in step to the millisecond.
		slack := math.Abs(r.report.Run.Duration-nodeLength.Seconds()) + 0.05
		bound := stepHeight*want.pace/2 + (100+stepHeight)*slack
		if got, truth := float64(*d.Energy), float64(gpus[i].Curve.Joules(nodeLength)); math.Abs(got-truth) > bound {
			t.Errorf("%s: %v J, want %v J ± %v J", d.ID, got, truth, bound)
		}
	}
	checkZones(t, r.report)
}

// What goes wrong with one GPU costs that GPU only, and is in the report.
func TestNodeTroubledGPUs(t *testing.T) {
	needsNVML(t)
	gpus := make([]sensortest.GPU, 4)
	for i := range gpus {
		gpus[i].Curve, gpus[i].MaxPower = sensortest.Constant(400), 700
	}
	gpus[1].Lost = []sensortest.Span{{From: 1200 * time.Millisecond, To: time.Hour}}
	gpus[2].Start, gpus[2].Resets = 5e6, []time.Duration{1225 * time.Millisecond}
	gpus[3].Faults = []sensortest.Fault{{On: "energy"}, {On: "power"}} // as in a vGPU guest
	m := server()
	tree := sensortest.NewSysfs(t, m)
	env, _ := sensortest.FakeNVML(t, sensortest.NVMLScript{GPUs: gpus})
	r := runNode(t, tree, m, env)
	checkZones(t, r.report)
	id := func(i int) string { return gpus[i].WithDefaults(i).ID }
	within(t, deviceOf(t, r.report, id(0)), 400*2.5, 1e-4)
	lost := deviceOf(t, r.report, id(1))
	if lost.Status != tracker.StatusFailed || lost.Energy == nil || *lost.Energy < 200 || *lost.Energy > 480 || lost.Coverage > 0.7 {
		t.Errorf("the lost GPU: %+v", lost)
	}
	reset := deviceOf(t, r.report, id(2))
	// What was drawn between the last sample and the restart is not known.
	if reset.Energy == nil || *reset.Energy < 700 || *reset.Energy > 1000 || reset.Resets != 1 {
		t.Errorf("the GPU whose counter restarted: %+v", reset)
	}
	var told bool
	for _, missing := range r.report.Missing {
		told = told || missing.Device == id(3) && missing.Status == sensors.Unreadable
	}
	if !told || !r.report.Partial {
		t.Errorf("the GPU without power: %+v, partial %v", r.report.Missing, r.report.Partial)
	}
}

// A driver that does not start, or is too old to know an energy, leaves the rest
// of the machine as it was, and the job too.
func TestNodeTroubledDriver(t *testing.T) {
	needsNVML(t)
	gpu := sensortest.GPU{Script: sensortest.Script{Curve: sensortest.Constant(300), MaxPower: 700}}
	m := server()
	t.Run("mismatch", func(t *testing.T) {
		tree := sensortest.NewSysfs(t, m)
		env, _ := sensortest.FakeNVML(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{gpu}, FailInit: 18})
		r := runNode(t, tree, m, env)
		checkZones(t, r.report)
		missing := r.report.Missing
		if len(missing) != 1 || missing[0].Component != sensors.GPU || missing[0].Status != sensors.Unreadable ||
			missing[0].Remedy == "" || r.report.Energy.GPU != nil || !r.report.Partial {
			t.Errorf("%+v", missing)
		}
	})
	t.Run("old", func(t *testing.T) {
		tree := sensortest.NewSysfs(t, m)
		env, _ := sensortest.FakeOldNVML(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{gpu}})
		r := runNode(t, tree, m, env)
		checkZones(t, r.report)
		d := deviceOf(t, r.report, gpu.WithDefaults(0).ID)
		within(t, d, sensors.Joules(300*r.report.Run.Duration), 0.05)
		if d.Method == sensors.MethodCounter {
			t.Error("an old driver has no counter")
		}
	})
}

// A zone that may not be read costs itself, and the report says what to do. The
// superuser may read everything, so that the runner runs as nobody.
func TestNodeUnreadableZone(t *testing.T) {
	m := server()
	tree := sensortest.NewSysfs(t, m)
	tree.Deny("intel-rapl:0")
	env := []string{"HOST_SYS=" + tree.Roots().Sys, "HOST_PROC=" + tree.Roots().Proc}
	binary, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	var as *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		const nobody = 65534
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		open(t, tree.Root)
		open(t, filepath.Dir(binary))
	}
	r := startAs(t, as, env, []string{"--json", "-"}, "sh", "-c", "sleep 0.3")
	<-r.ended
	var report tracker.Report
	if err := json.Unmarshal(r.stdout.Bytes(), &report); err != nil {
		t.Fatalf("%v\n%s", err, &r.stderr)
	}
	var denied []tracker.Missing
	for _, missing := range report.Missing {
		if missing.Component == sensors.CPU {
			denied = append(denied, missing)
		}
	}
	if len(denied) != 1 || denied[0].Device != "package-1" || denied[0].Status != sensors.Unreadable || !strings.Contains(denied[0].Remedy, "chmod") {
		t.Errorf("%+v", denied)
	}
	if !report.Partial || report.Energy.CPU == nil || deviceOf(t, report, "dram-1").Status != tracker.StatusOK {
		t.Errorf("partial %v, %+v", report.Partial, report.Devices)
	}
	if !strings.Contains(r.stderr.String(), "chmod") {
		t.Errorf("the summary does not say what to do:\n%s", &r.stderr)
	}
}

// open lets everybody into a folder and those above it that the test made.
func open(t *testing.T, dir string) {
	t.Helper()
	for ; strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
