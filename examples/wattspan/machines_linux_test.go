package main

import (
	bytesof "encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// simulated is a whole machine of files, drivers and meters, whose time the test
// moves: at t every sensor shows what its curve says.
type simulated struct {
	t     *testing.T
	tree  *sensortest.Sysfs
	env   []string
	flags []string
	as    *syscall.SysProcAttr
	look  time.Duration // of doctor's; 0 for the shortest

	mu    sync.Mutex // of writing, which two readers look at meanwhile
	moves []func(at time.Duration)
	ticks int
}

// The kinds of chassis in SMBIOS.
const (
	desktopChassis = 3
	laptopChassis  = 10
	serverChassis  = 23
)

// simulate builds a machine, with the chips that every machine has and that say
// nothing of its power. A chassis of 0 is a machine without SMBIOS.
func simulate(t *testing.T, m sensortest.Machine, chassis int) *simulated {
	t.Helper()
	s := &simulated{t: t, tree: sensortest.NewSysfs(t, m)}
	if chassis != 0 {
		s.tree.Write("sys/class/dmi/id/chassis_type", fmt.Sprintln(chassis))
	}
	s.tree.AddChip(90, sensortest.Chip{Name: "coretemp", Device: "platform/coretemp.0", Files: map[string]string{"temp1_input": "52000\n", "temp1_label": "Package id 0\n"}})
	s.tree.AddChip(91, sensortest.Chip{Name: "nvme", Device: "pci0000:00/0000:00:1d.0/0000:0e:00.0/nvme/nvme0", Files: map[string]string{"temp1_input": "38850\n"}})
	s.env = append(roots(s.tree), "WATTSPAN_SHARE=off", "COLUMNS=80")
	s.flags = []string{"--interval", "500ms", "--intensity", "100", "--pue", "1.2"}
	// The processors are half busy, in a line that is always as long.
	stat := func(ticks int) string { return fmt.Sprintf("cpu  %012d 0 0 %012d 0 0 0 0 0 0\n", ticks, ticks) }
	s.tree.Write("proc/stat", stat(0))
	s.move(func(time.Duration) {
		s.ticks += 4
		s.write("proc/stat", stat(s.ticks))
	})
	return s
}

func (s *simulated) move(f func(at time.Duration)) { s.moves = append(s.moves, f) }

// write puts a text that is always as long into a file, in one write.
func (s *simulated) write(name, text string) {
	f, err := os.OpenFile(filepath.Join(s.tree.Root, name), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
		_ = f.Close()
	}
	if err != nil {
		s.t.Error(err)
	}
}

// set makes the machine's time t.
func (s *simulated) set(at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.moves {
		f(at)
	}
}

// zone lets a RAPL zone draw, and count from what it shows, past its end.
func (s *simulated) zone(m sensortest.Machine, id string, c sensortest.Curve) {
	i := slices.IndexFunc(m.Zones, func(z sensortest.Zone) bool { return z.ID == id })
	z := m.Zones[i]
	s.move(func(at time.Duration) { s.counter(s.tree.EnergyFile(id), (z.Energy+uint64(c.Energy(at)))%z.Period()) })
}

func (s *simulated) counter(path string, raw uint64) {
	if err := sensortest.WriteEnergy(path, raw); err != nil {
		s.t.Error(err)
	}
}

// energy lets a counter of a chip, in µJ, follow a curve, and power a power in µW.
func (s *simulated) energy(chip int, file string, c sensortest.Curve) {
	s.move(func(at time.Duration) { s.counter(s.chip(chip, file), 5e9+uint64(c.Energy(at))) })
}

func (s *simulated) power(chip int, file string, c sensortest.Curve) {
	s.move(func(at time.Duration) { s.counter(s.chip(chip, file), uint64(math.Round(float64(c.Power(at))*1e6))) })
}

func (s *simulated) chip(number int, file string) string {
	return filepath.Join(s.tree.Root, fmt.Sprintf("sys/class/hwmon/hwmon%d", number), file)
}

// accumulate lets the gpu_metrics of a chip's device, of revision 1.5, count.
func (s *simulated) accumulate(chip int, c sensortest.Curve) {
	s.move(func(at time.Duration) {
		s.write(fmt.Sprintf("sys/class/hwmon/hwmon%d/device/gpu_metrics", chip), string(metrics(1e9+uint64(float64(c.Energy(at))*65536/1e6))))
	})
}

// metrics is a gpu_metrics_v1_5.
func metrics(accumulator uint64) []byte {
	table := make([]byte, 304)
	bytesof.LittleEndian.PutUint16(table, uint16(len(table)))
	table[2], table[3] = 1, 5
	bytesof.LittleEndian.PutUint64(table[88:], accumulator)
	return table
}

// nvidia gives the machine GPUs, in a driver that the test's time drives.
func (s *simulated) nvidia(script sensortest.NVMLScript) {
	s.t.Helper()
	needsNVML(s.t)
	env, clock := sensortest.FakeNVML(s.t, script)
	s.drive(env, clock)
}

func (s *simulated) drive(env []string, clock sensortest.NVMLClock) {
	s.env = append(s.env, env...)
	s.move(func(at time.Duration) {
		if err := clock.Set(at); err != nil {
			s.t.Error(err)
		}
	})
}

// gpus are scripted GPUs of one model and curve.
func gpus(n int, name string, limit sensors.Watts, c sensortest.Curve) []sensortest.GPU {
	all := make([]sensortest.GPU, n)
	for i := range all {
		all[i].Name, all[i].Curve, all[i].MaxPower, all[i].Start = name, c, limit, uint64(i)*1e9
	}
	return all
}

func uuid(i int) string { return sensortest.GPU{}.WithDefaults(i).ID }

// amdCard is a chip of the amdgpu driver.
func amdCard(address, product string, files, device map[string]string) sensortest.Chip {
	c := sensortest.Chip{Name: "amdgpu", Device: "pci0000:00/0000:00:01.1/" + address, Files: files, DeviceFiles: map[string]string{
		"vendor": "0x1002\n", "device": product + "\n", "class": "0x030000\n", "gpu_busy_percent": "40\n", "power/runtime_status": "active\n",
	}}
	for name, text := range device {
		c.DeviceFiles[name] = text
	}
	return c
}

// acpi is a chip of the ACPI power meter; what it measures is "" where its firmware
// does not say.
func acpi(number int, info, measures string) sensortest.Chip {
	c := sensortest.Chip{Name: "power_meter", Old: true, Device: fmt.Sprintf("LNXSYSTM:00/LNXSYBUS:00/ACPI000D:%02d", number), Files: map[string]string{
		"power1_average": "0\n", "power1_average_interval": "1000\n", "power1_is_battery": "0\n", "power1_oem_info": info + "\n",
	}}
	if measures != "" {
		c.DeviceFiles = map[string]string{"measures/" + measures + "/path": "\\_SB_\n"}
	}
	return c
}

// witness is what is said of a machine.
type witness struct {
	result
	doctor visit
	// took is the machine's time during the run.
	took time.Duration
}

// observe lets a run and doctor look at the machine while its time goes on. The
// command waits for the end of its input.
func (s *simulated) observe() witness {
	s.t.Helper()
	s.set(0)
	started := filepath.Join(s.t.TempDir(), "started")
	if s.as != nil {
		open(s.t, filepath.Dir(started))
		if err := os.Chmod(filepath.Dir(started), 0o777); err != nil {
			s.t.Fatal(err)
		}
		s.flags = append(s.flags, "--json", "-")
	}
	r := startAs(s.t, s.as, s.env, s.flags, "sh", "-c", `: > "$1"; cat >&2`, "sh", started)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(started); err == nil {
			break
		}
		select {
		case <-r.ended:
			s.t.Fatalf("the runner has ended before its command: %s", &r.stderr)
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the command does not start")
		}
	}
	begin := time.Now()
	quit, ticking := make(chan struct{}), make(chan time.Duration)
	go func() {
		for {
			at := time.Since(begin)
			s.set(at)
			select {
			case <-quit:
				ticking <- at
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	// What a doctor is told does not concern a run: not an interval, say.
	v := consultAs(s.t, s.as, s.env, append([]string{"--json"}, s.doctorFlags()...)...)
	if least := 1300 * time.Millisecond; time.Since(begin) < least {
		time.Sleep(least - time.Since(begin))
	}
	close(quit)
	w := witness{doctor: v, took: <-ticking}
	if err := r.stdin.Close(); err != nil {
		s.t.Fatal(err)
	}
	<-r.ended
	w.running = r
	if s.as != nil {
		if err := json.Unmarshal(r.stdout.Bytes(), &w.report); err != nil {
			s.t.Fatalf("%v\n%s%s", err, &r.stdout, &r.stderr)
		}
	} else {
		w.report = r.readReport(s.t)
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("exit code %d\n%s", code, &r.stderr)
	}
	return w
}

func (s *simulated) doctorFlags() []string {
	var flags []string
	for i := 0; i < len(s.flags); i += 2 {
		if s.flags[i] != "--interval" && s.flags[i] != "--json" {
			flags = append(flags, s.flags[i], s.flags[i+1])
		}
	}
	if s.look > 0 {
		flags = append(flags, "--for", s.look.String())
	}
	return flags
}

// want is what must be known of one device. Its energy is that of the curve: exactly
// where it is counted, and within what a reading may be late where it is integrated,
// of a power that does not change. Without a curve it is a model's.
type want struct {
	component sensors.Component
	method    sensors.Method
	scope     sensors.Scope
	curve     sensortest.Curve
}

func counted(c sensors.Component, curve sensortest.Curve) want {
	return want{c, sensors.MethodCounter, sensors.ScopeDevice, curve}
}

func averaged(c sensors.Component, w sensors.Watts) want {
	return want{c, sensors.MethodPowerAverage, sensors.ScopeDevice, sensortest.Constant(w)}
}

func instant(c sensors.Component, w sensors.Watts) want {
	return want{c, sensors.MethodPower, sensors.ScopeDevice, sensortest.Constant(w)}
}

func modelled(c sensors.Component) want {
	return want{c, sensors.MethodModel, sensors.ScopeDevice, nil}
}

func (w want) of(s sensors.Scope) want { w.scope = s; return w }

// known is all that must be said of a machine, and nothing else may be.
type known struct {
	devices map[string]want // by ID: a set that reads anything twice has more
	// node is how the machine's own energy is known: the methods, and the profile of
	// docs/NODE.md as the model's base and efficiency.
	node             string
	base, efficiency float64
	meter            string // ID
	metered          want
	// missing and left are "status source component device"; the meters that a
	// machine does not have are not among them.
	missing, left []string
	verdict       state
	// findings of doctor and remedies in the summary, each by a part of it.
	findings, remedies []string
}

func (k known) check(t *testing.T, w witness) {
	t.Helper()
	r := w.report
	var ids, all []string
	sum := map[sensors.Component]float64{}
	for _, d := range r.Devices {
		all = append(all, d.ID)
		expected, ok := k.devices[d.ID]
		if !ok {
			continue
		}
		if d.Component != expected.component || d.Method != expected.method || d.Scope != expected.scope || d.Status != tracker.StatusOK || d.Coverage < 0.9 {
			t.Errorf("%s: %s, %s, scope %s, %s %s, coverage %v", d.ID, d.Component, d.Method, d.Scope, d.Status, d.Reason, d.Coverage)
		}
		expected.checkEnergy(t, d, w)
		if d.Energy != nil {
			sum[d.Component] += float64(*d.Energy)
		}
	}
	for id := range k.devices {
		ids = append(ids, id)
	}
	same(t, "devices", all, ids)
	k.checkSums(t, r, sum)
	k.checkNode(t, w)

	var missing, left []string
	for _, m := range r.Missing {
		missing = append(missing, strings.Join(strings.Fields(fmt.Sprint(m.Status, " ", m.Component, " ", m.Device)), " "))
	}
	same(t, "missing", missing, k.missing)
	for _, o := range r.LeftOut {
		if o.Status == sensors.Absent && o.Component == sensors.Node {
			continue
		}
		source, _, _ := strings.Cut(o.Source, " ")
		left = append(left, strings.Join(strings.Fields(fmt.Sprint(o.Status, " ", source, " ", o.Component, " ", o.Device)), " "))
	}
	same(t, "left out", left, k.left)
	unreadable := slices.ContainsFunc(k.missing, func(m string) bool { return strings.HasPrefix(m, "unreadable") })
	if r.Partial != unreadable {
		t.Errorf("partial is %v", r.Partial)
	}
	k.checkWords(t, w)
}

func (e want) checkEnergy(t *testing.T, d tracker.Device, w witness) {
	t.Helper()
	switch {
	case d.Energy == nil:
		t.Errorf("%s: no energy: %s", d.ID, d.Reason)
	case e.curve == nil:
		if *d.Energy <= 0 || d.Method.Measured() {
			t.Errorf("%s: %v J by %s", d.ID, float64(*d.Energy), d.Method)
		}
	case e.method == sensors.MethodCounter:
		truth, unit := e.curve.Joules(w.took), sensors.Joules(0.002)
		if strings.HasPrefix(d.ID, "cray-") {
			unit = 2 // at either end
		}
		if math.Abs(float64(*d.Energy-truth)) > float64(unit)+1e-5*float64(truth) {
			t.Errorf("%s: %v J, want %v J", d.ID, float64(*d.Energy), float64(truth))
		}
	default:
		const late = 0.3 // s: the bounds of a busy machine, still far from twice as much
		power := float64(e.curve.Power(0))
		if truth := power * w.report.Run.Duration; math.Abs(float64(*d.Energy)-truth) > power*late {
			t.Errorf("%s: %v J, want about %v J", d.ID, float64(*d.Energy), truth)
		}
	}
}

// checkSums holds the totals against the devices: each is in one, once.
func (k known) checkSums(t *testing.T, r tracker.Report, sum map[sensors.Component]float64) {
	t.Helper()
	total := 0.0
	for component, energy := range map[sensors.Component]*sensors.Joules{sensors.GPU: r.Energy.GPU, sensors.CPU: r.Energy.CPU, sensors.Memory: r.Energy.Memory} {
		got := 0.0
		if energy != nil {
			got = float64(*energy)
		}
		if math.Abs(got-sum[component]) > 1e-4 || (energy == nil) != (sum[component] == 0) {
			t.Errorf("%s: %v J, and its devices %v J", component, got, sum[component])
		}
		total += sum[component]
	}
	if r.Energy.Device == nil || math.Abs(float64(*r.Energy.Device)-total) > 1e-3 {
		t.Errorf("device: %v, want %v J", r.Energy.Device, total)
	}
}

func (k known) checkNode(t *testing.T, w witness) {
	t.Helper()
	r := w.report
	n := r.Node
	if n.Method != k.node || (n.Energy == nil) != (k.node == "") {
		t.Errorf("node: %q, %v: %s", n.Method, n.Energy, n.Reason)
		return
	}
	if n.Energy == nil {
		if n.Reason == "" || r.Energy.Node != nil {
			t.Error("nothing says why there is no energy of the node")
		}
		return
	}
	if (n.Meter == nil) != (k.meter == "") || n.Meter != nil && n.Meter.ID != k.meter {
		t.Errorf("the meter is %+v", n.Meter)
		return
	}
	switch {
	case k.metered.curve != nil:
		k.metered.checkEnergy(t, *n.Meter, w)
		// What the meter did not see at either end is the model's.
		if off := float64(*n.Energy - *n.Meter.Energy); off < -1e-3 || off > 0.1*float64(*n.Energy) || n.Coverage < 0.9 || n.Meter.Method != k.metered.method || n.Meter.Scope != sensors.ScopeNode {
			t.Errorf("node: %v of %+v, coverage %v", *n.Energy, n.Meter, n.Coverage)
		}
	default:
		// docs/NODE.md: P_node = (P_sensed + Base) / Efficiency
		model := (float64(*r.Energy.Device) + k.base*r.Run.Duration) / k.efficiency
		if math.Abs(float64(*n.Energy)-model) > 1e-3*model {
			t.Errorf("node: %v J, and the profile says %v J", float64(*n.Energy), model)
		}
	}
	if got := float64(*n.Residual); math.Abs(got-float64(*n.Energy-*r.Energy.Device)) > 1e-3 {
		t.Errorf("residual: %v J", got)
	}
	if got := float64(*r.Energy.Facility); math.Abs(got-1.2*float64(*n.Energy)) > 1e-3 {
		t.Errorf("facility: %v J of %v J at the plug", got, float64(*n.Energy))
	}
}

// checkWords checks that people are told what helps them, and no more.
func (k known) checkWords(t *testing.T, w witness) {
	t.Helper()
	said := strings.Join(strings.Fields(w.stderr.String()), " ")
	if n := strings.Count(said, "to improve "); n != len(k.remedies) {
		t.Errorf("%d remedies, want %d:\n%s", n, len(k.remedies), &w.stderr)
	}
	for _, part := range k.remedies {
		if !strings.Contains(said, part) {
			t.Errorf("the summary does not say %q:\n%s", part, &w.stderr)
		}
	}
	for _, noise := range []string{"doubt: ", "note: ", "device ", "nothing could be measured"} {
		if strings.Contains(w.stderr.String(), "  "+noise) {
			t.Errorf("the summary says %q:\n%s", noise, &w.stderr)
		}
	}
	if strings.Contains(said, "PARTIAL") != w.report.Partial {
		t.Errorf("partial is %v:\n%s", w.report.Partial, &w.stderr)
	}
	for line := range strings.Lines(w.stderr.String()) {
		// A path is one word, and may be longer than the terminal is wide.
		if len([]rune(line)) > 81 && len(strings.Fields(line)) > 1 {
			t.Errorf("a line of more than 80 columns: %s", line)
		}
	}
	if w.doctor.Verdict != k.verdict {
		t.Errorf("doctor says %s: %s", w.doctor.Verdict, w.doctor.Summary)
	}
	var found []string
	for _, f := range w.doctor.Findings {
		if f.About != "accounting" { // which is of the machine that tests
			found = append(found, fmt.Sprint(f.Text, f.Remedies))
		}
	}
	ok := len(found) == len(k.findings)
	for i := 0; ok && i < len(found); i++ {
		ok = strings.Contains(found[i], k.findings[i])
	}
	if !ok {
		t.Errorf("doctor finds %q, want %q", found, k.findings)
	}
}

// same compares what is there with what should be, in any order.
func same(t *testing.T, what string, got, expected []string) {
	t.Helper()
	got, expected = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(expected))
	if !slices.Equal(got, expected) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, expected)
	}
}

// The lists that several machines share.
var (
	modelsNotNeeded = []string{"superseded host cpu cpu", "superseded host memory memory"}
	intelViews      = append([]string{"superseded rapl cpu intel-rapl-mmio:0", "superseded rapl cpu intel-rapl-mmio:1"}, modelsNotNeeded...)
	noNVIDIA        = "absent nvml gpu"
	noDRAM          = []string{"absent rapl memory", "superseded host cpu cpu"}
)

const (
	byModel       = string(sensors.MethodModel)
	gpuAbsent     = "absent gpu"
	chmodCounters = "chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
)

// Every kind of machine: what is read of it is disjoint and right, the node is what
// docs/NODE.md says, what is missing is missing, and nobody is told what does not help.
func TestMachines(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(*testing.T, *known) *simulated
	}{
		{"server with 8 H100 and a BMC", serverWithGPUs},
		{"the same without privileges", serverWithoutPrivileges},
		{"EPYC with 4 MI300X", instinctNode},
		{"Ryzen with a Radeon and graphics of its own", ryzen},
		{"laptop on battery", func(t *testing.T, k *known) *simulated { return laptop(t, k, "Discharging", false) }},
		{"laptop on mains", func(t *testing.T, k *known) *simulated { return laptop(t, k, "Charging", true) }},
		{"GH200 by its rails", func(t *testing.T, k *known) *simulated { return graceHopper(t, k, false) }},
		{"GH200 by its module", func(t *testing.T, k *known) *simulated { return graceHopper(t, k, true) }},
		{"Jetson Orin NX", orinNX},
		{"Jetson AGX Orin", agxOrin},
		{"Cray", crayNode},
		{"Arc with i915", func(t *testing.T, k *known) *simulated { return arc(t, k, "i915") }},
		{"Arc with xe", func(t *testing.T, k *known) *simulated { return arc(t, k, "xe") }},
		{"virtual machine", virtualMachine},
		{"server with an ACPI meter", func(t *testing.T, k *known) *simulated { return acpiServer(t, k, 1) }},
		{"server with two ACPI meters", func(t *testing.T, k *known) *simulated { return acpiServer(t, k, 2) }},
		{"old GPUs", oldGPUs},
		{"virtual GPU", virtualGPU},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var k known
			s := c.build(t, &k)
			k.check(t, s.observe())
		})
	}
}

func join(lists ...[]string) []string { return slices.Concat(lists...) }

// xeon gives the machine of server its curves: what contains others, or is another
// view of them, draws as well.
func xeon(s *simulated, m sensortest.Machine, k *known) {
	curves := map[string]sensortest.Curve{
		"intel-rapl:0": sensortest.Constant(180), "intel-rapl:0:0": sensortest.Constant(21),
		"intel-rapl:1": sensortest.Steps(300*time.Millisecond, 90, 205), "intel-rapl:1:0": sensortest.Constant(25),
		"intel-rapl:2": sensortest.Constant(500), "intel-rapl-mmio:0": sensortest.Constant(150), "intel-rapl-mmio:1": sensortest.Constant(180),
	}
	for id, c := range curves {
		s.zone(m, id, c)
	}
	k.devices = map[string]want{
		"package-0": counted(sensors.CPU, curves["intel-rapl:1"]), "package-1": counted(sensors.CPU, curves["intel-rapl:0"]),
		"dram-0": counted(sensors.Memory, curves["intel-rapl:1:0"]), "dram-1": counted(sensors.Memory, curves["intel-rapl:0:0"]),
	}
	k.left, k.verdict = intelViews, stateMeasured
	k.node, k.base, k.efficiency = byModel, 60, 0.85
}

// eightH100 gives the machine eight GPUs of which each draws something else.
func eightH100(s *simulated, k *known) {
	cards := gpus(8, "NVIDIA H100 80GB HBM3", 700, nil)
	for i := range cards {
		cards[i].Curve = sensortest.Steps(400*time.Millisecond, sensors.Watts(90+i), 650, sensors.Watts(300+10*i), 700)
		k.devices[uuid(i)] = counted(sensors.GPU, cards[i].Curve)
	}
	s.nvidia(sensortest.NVMLScript{GPUs: cards})
	k.base, k.efficiency = 800, 0.84
}

func serverWithGPUs(t *testing.T, k *known) *simulated {
	m := server()
	s := simulate(t, m, serverChassis)
	xeon(s, m, k)
	eightH100(s, k)
	// The BMC's program prints a number.
	path := filepath.Join(t.TempDir(), "bmc")
	if err := os.WriteFile(path, []byte(strings.Repeat("\n", 30)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.move(func(time.Duration) { s.counter(path, 6900) })
	s.flags = append(s.flags, "--node-meter", "command:cat "+path)
	k.node, k.meter, k.metered = string(sensors.MethodPower), "node", instant(sensors.Node, 6900)
	return s
}

func serverWithoutPrivileges(t *testing.T, k *known) *simulated {
	m := server()
	s := simulate(t, m, serverChassis)
	xeon(s, m, k)
	k.devices = map[string]want{"cpu": modelled(sensors.CPU), "memory": modelled(sensors.Memory)}
	eightH100(s, k)
	for _, z := range m.Zones {
		s.tree.Deny(z.ID)
	}
	s.as = unprivileged(t, s.tree.Root)
	for _, v := range s.env {
		name, path, _ := strings.Cut(v, "=")
		switch name {
		case "LD_LIBRARY_PATH":
			open(t, path)
			path = filepath.Join(path, "libnvidia-ml.so.1")
		case "FAKE_NVML_SCRIPT", "FAKE_NVML_CLOCK":
			open(t, filepath.Dir(path))
		default:
			continue
		}
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k.left = []string{
		"superseded rapl cpu intel-rapl-mmio:0", "superseded rapl cpu intel-rapl-mmio:1",
		"unreadable rapl cpu package-0", "unreadable rapl cpu package-1", "unreadable rapl memory dram-0", "unreadable rapl memory dram-1",
	}
	k.verdict, k.findings, k.remedies = stateEstimated, []string{chmodCounters}, []string{chmodCounters}
	return s
}

func instinctNode(t *testing.T, k *known) *simulated {
	m := sensortest.AMDServer()
	s := simulate(t, m, serverChassis)
	s.zone(m, "intel-rapl:0", sensortest.Constant(210))
	s.zone(m, "intel-rapl:0:0", sensortest.Constant(150))
	s.zone(m, "intel-rapl:1", sensortest.Constant(190))
	k.devices = map[string]want{
		"package-0": counted(sensors.CPU, sensortest.Constant(210)), "package-1": counted(sensors.CPU, sensortest.Constant(190)),
		"memory": modelled(sensors.Memory),
	}
	for i := range 4 {
		address := fmt.Sprintf("0000:%02x:00.0", 5+i*16)
		curve := sensortest.Steps(400*time.Millisecond, 180, 700, sensors.Watts(300+10*i))
		s.tree.AddChip(i+2, amdCard(address, "0x74a1",
			map[string]string{"power1_input": "0\n", "power1_cap": "750000000\n", "power1_cap_max": "750000000\n"},
			map[string]string{"class": "0x120000\n", "gpu_metrics": string(metrics(1e9)), "mem_info_vram_total": "206141652992\n"}))
		s.power(i+2, "power1_input", curve)
		s.accumulate(i+2, curve)
		k.devices["pci-"+address] = counted(sensors.GPU, curve)
	}
	k.left, k.verdict = join(noDRAM, []string{noNVIDIA}), stateEstimated
	k.node, k.base, k.efficiency = byModel, 800.0*4/8, 0.84
	return s
}

func ryzen(t *testing.T, k *known) *simulated {
	const wraps = 65532610987
	m := sensortest.Machine{
		Vendor: "AuthenticAMD", Model: "AMD Ryzen 9 7950X 16-Core Processor", Sockets: 1, Threads: 32, Memory: 64 << 30, Product: "X670E",
		Zones: []sensortest.Zone{
			{ID: "intel-rapl:0", Name: "package-0", Energy: wraps - 20e6, Range: wraps}, {ID: "intel-rapl:0:0", Name: "core", Energy: 1e9, Range: wraps},
		},
	}
	s := simulate(t, m, desktopChassis)
	s.zone(m, "intel-rapl:0", sensortest.Constant(110))
	s.zone(m, "intel-rapl:0:0", sensortest.Constant(70))
	s.tree.AddChip(2, amdCard("0000:03:00.0", "0x744c",
		map[string]string{"power1_average": "0\n", "power1_cap_max": "391000000\n", "in0_input": "800\n", "in0_label": "vddgfx\n"},
		map[string]string{"product_name": "Radeon RX 7900 XTX\n", "mem_info_vram_total": "25753026560\n"}))
	s.tree.AddChip(3, amdCard("0000:0e:00.0", "0x164e",
		map[string]string{"power1_input": "0\n", "in0_input": "800\n", "in0_label": "vddgfx\n", "in1_input": "900\n", "in1_label": "vddnb\n"},
		map[string]string{"mem_info_vram_total": "536870912\n"}))
	s.power(2, "power1_average", sensortest.Constant(320))
	s.power(3, "power1_input", sensortest.Constant(38))
	k.devices = map[string]want{
		"package-0": counted(sensors.CPU, sensortest.Constant(110)), "memory": modelled(sensors.Memory),
		"pci-0000:03:00.0": averaged(sensors.GPU, 320),
	}
	k.left, k.verdict = join(noDRAM, []string{noNVIDIA, "superseded hwmon gpu pci-0000:0e:00.0"}), stateEstimated
	k.node, k.base, k.efficiency = byModel, 45, 0.90
	return s
}

// client gives the machine of sensortest.IntelClient its curves.
func client(s *simulated, m sensortest.Machine, k *known, power sensors.Watts) {
	for id, share := range map[string]sensors.Watts{"intel-rapl:0": 1, "intel-rapl:0:0": 0.6, "intel-rapl:0:1": 0.1, "intel-rapl:1": 1.6, "intel-rapl-mmio:0": 1} {
		s.zone(m, id, sensortest.Constant(power*share))
	}
	pciCard(s.tree, "0000:00:02.0", "0x8086", "0x030000")
	k.devices = map[string]want{"package-0": counted(sensors.CPU, sensortest.Constant(power)), "memory": modelled(sensors.Memory)}
	k.left, k.verdict = join(noDRAM, []string{noNVIDIA, "superseded rapl cpu intel-rapl-mmio:0"}), stateEstimated
}

// laptop has a battery, whose gauge is too slow for a run of seconds: the model stands
// in, on mains as well.
func laptop(t *testing.T, k *known, status string, mains bool) *simulated {
	m := sensortest.IntelClient()
	m.Model, m.Product = "13th Gen Intel(R) Core(TM) i7-1360P", "ThinkPad X1"
	s := simulate(t, m, laptopChassis)
	client(s, m, k, 17)
	s.tree.AddChip(4, sensortest.Chip{Name: "i915", Device: "pci0000:00/0000:00:02.0", Files: map[string]string{"energy1_input": "0\n"}})
	s.energy(4, "energy1_input", sensortest.Constant(4))
	s.tree.AddChip(5, sensortest.Chip{Name: "BAT0", Device: "LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0", Files: map[string]string{"in0_input": "12100\n", "power1_input": "24000000\n"}})
	const battery, charger = "sys/class/power_supply/BAT0/", "sys/class/power_supply/AC/"
	for name, text := range map[string]string{
		battery + "type": "Battery\n", battery + "present": "1\n", battery + "status": status + "\n", battery + "power_now": "24000000\n",
		charger + "type": "Mains\n", charger + "online": map[bool]string{true: "1\n", false: "0\n"}[mains],
	} {
		s.tree.Write(name, text)
	}
	k.missing, k.left = []string{gpuAbsent}, append(k.left, "superseded hwmon gpu pci-0000:00:02.0")
	k.node, k.base, k.efficiency, k.meter = byModel, 6, 0.87, "battery"
	return s
}

// armed replaces the processor by cores of Arm.
func armed(s *simulated, threads int, part string) {
	var b strings.Builder
	for i := range threads {
		fmt.Fprintf(&b, "processor\t: %d\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: %s\n\n", i, part)
	}
	s.tree.Write("proc/cpuinfo", b.String())
}

func graceHopper(t *testing.T, k *known, module bool) *simulated {
	s := simulate(t, sensortest.Machine{Memory: 480 << 30, Product: "QuantaGrid S74G-2U", Sockets: 1, Threads: 72}, serverChassis)
	armed(s, 72, "0xd4f")
	s.look = 1200 * time.Millisecond // the rails are averages of 1 s
	for i, r := range []struct {
		name  string
		power sensors.Watts
	}{{"Module Power Socket 0", 700}, {"Grace Power Socket 0", 210}, {"CPU Power Socket 0", 130}, {"SysIO Power Socket 0", 25}} {
		s.tree.AddChip(i, acpi(i, r.name, ""))
		s.power(i, "device/power1_average", sensortest.Constant(r.power))
	}
	card := gpus(1, "NVIDIA GH200 480GB", 1000, sensortest.Steps(500*time.Millisecond, 300, 450))
	k.left = join(modelsNotNeeded, []string{"absent rapl cpu", "superseded hwmon cpu module-0", "superseded hwmon cpu cpu-0", "superseded hwmon cpu sysio-0"})
	if module {
		card[0].Module, card[0].Curve = true, sensortest.Constant(700)
		k.devices = map[string]want{uuid(0): counted(sensors.GPU, card[0].Curve).of(sensors.ScopeModule)}
		k.left = append(k.left, "superseded hwmon cpu package-0")
	} else {
		k.devices = map[string]want{uuid(0): counted(sensors.GPU, card[0].Curve), "package-0": averaged(sensors.CPU, 210)}
	}
	s.nvidia(sensortest.NVMLScript{GPUs: card})
	k.verdict, k.node, k.base, k.efficiency = stateMeasured, byModel, 60, 0.85
	return s
}

// jetson is a board with one INA3221 of the rails given, all at 5 V.
func jetson(t *testing.T, k *known, milliamps map[string]int) *simulated {
	s := simulate(t, sensortest.Machine{Memory: 16 << 30, Threads: 8, Sockets: 1}, 0)
	if err := os.RemoveAll(filepath.Join(s.tree.Root, "sys/class/dmi")); err != nil {
		t.Fatal(err)
	}
	armed(s, 8, "0xd42")
	files := map[string]string{"in7_input": "40\n", "in7_label": "sum of shunt voltages\n"}
	channel := 0
	for label, current := range milliamps {
		channel++
		files[fmt.Sprintf("in%d_label", channel)], files[fmt.Sprintf("in%d_input", channel)] = label+"\n", "5000\n"
		files[fmt.Sprintf("curr%d_input", channel)] = fmt.Sprintln(current)
	}
	s.tree.AddChip(1, sensortest.Chip{Name: "ina3221", Device: "platform/c240000.i2c/i2c-1/1-0040", Files: files})
	k.left = []string{noNVIDIA, "absent rapl cpu", "superseded host cpu cpu"}
	return s
}

func orinNX(t *testing.T, k *known) *simulated {
	s := jetson(t, k, map[string]int{"VDD_IN": 4000, "VDD_CPU_GPU_CV": 1400, "VDD_SOC": 500})
	k.devices = map[string]want{"jetson-gpu": instant(sensors.GPU, 9.5).of(sensors.ScopeModule), "memory": modelled(sensors.Memory)}
	k.verdict, k.node, k.meter, k.metered = stateEstimated, string(sensors.MethodPower), "jetson-module", instant(sensors.Node, 20)
	return s
}

// agxOrin has no rail of the whole module, and does not tell its kind.
func agxOrin(t *testing.T, k *known) *simulated {
	s := jetson(t, k, map[string]int{"VDD_GPU_SOC": 3000, "VDD_CPU_CV": 1400, "VIN_SYS_5V0": 1000})
	s.tree.AddChip(2, sensortest.Chip{Name: "ina3221", Device: "platform/c240000.i2c/i2c-1/1-0041", Files: map[string]string{
		"in2_label": "VDDQ_VDD2_1V8AO\n", "in2_input": "5000\n", "curr2_input": "400\n", "in1_label": "NC\n"}})
	k.devices = map[string]want{"jetson-gpu": instant(sensors.GPU, 15), "package-0": instant(sensors.CPU, 7), "dram-0": instant(sensors.Memory, 2)}
	k.left, k.verdict = append(k.left, "superseded host memory memory"), stateMeasured
	return s
}

func crayNode(t *testing.T, k *known) *simulated {
	m := sensortest.AMDServer()
	m.Product = "HPE Cray EX235n"
	s := simulate(t, m, serverChassis)
	s.zone(m, "intel-rapl:0", sensortest.Constant(150))
	s.zone(m, "intel-rapl:1", sensortest.Constant(140))
	k.devices = map[string]want{
		"package-0": counted(sensors.CPU, sensortest.Constant(150)), "package-1": counted(sensors.CPU, sensortest.Constant(140)),
		"cray-memory": counted(sensors.Memory, sensortest.Constant(120)),
	}
	curve := sensortest.Steps(300*time.Millisecond, 100, 380)
	for i := range 4 {
		k.devices[uuid(i)] = counted(sensors.GPU, curve)
	}
	s.nvidia(sensortest.NVMLScript{GPUs: gpus(4, "NVIDIA A100-SXM4-80GB", 500, curve)})
	const dir = "sys/cray/pm_counters/"
	for file, power := range map[string]sensors.Watts{
		"energy": 2400, "cpu_energy": 290, "memory_energy": 120,
		"accel0_energy": 380, "accel1_energy": 380, "accel2_energy": 380, "accel3_energy": 380,
	} {
		text := func(at time.Duration) string {
			return fmt.Sprintf("%020d J %020d us\n", 1000000+uint64(sensortest.Constant(power).Joules(at)), at.Microseconds())
		}
		s.tree.Write(dir+file, text(0))
		s.move(func(at time.Duration) { s.write(dir+file, text(at)) })
	}
	s.tree.Write(dir+"freshness", fmt.Sprintf("%020d\n", 0))
	// After the others, and every time: so that the last value counts.
	fresh := 0
	s.move(func(time.Duration) { fresh++; s.write(dir+"freshness", fmt.Sprintf("%020d\n", fresh)) })
	k.left = join(modelsNotNeeded, []string{"absent rapl memory", "superseded cray cpu cray-cpu", "superseded cray gpu cray-accel"})
	k.verdict, k.node, k.meter, k.metered = stateMeasured, string(sensors.MethodCounter), "cray-node", counted(sensors.Node, sensortest.Constant(2400))
	return s
}

// arc has the graphics of its processor beside the card, and figures of parts of it.
func arc(t *testing.T, k *known, driver string) *simulated {
	m := sensortest.IntelClient()
	s := simulate(t, m, desktopChassis)
	client(s, m, k, 65)
	card := sensortest.Chip{
		Name: driver, Device: "pci0000:00/0000:00:01.0/0000:03:00.0", Files: map[string]string{"energy1_input": "0\n", "power1_max": "190000000\n"},
		DeviceFiles: map[string]string{"vendor": "0x8086\n", "device": "0x56a0\n", "class": "0x030000\n", "power/runtime_status": "active\n"},
	}
	part, file := 2, "energy2_input"
	if driver == "xe" {
		card.Files["energy1_label"], card.Files["energy2_label"], card.Files[file] = "card\n", "pkg\n", "0\n"
	} else {
		part, file = 3, "energy1_input"
		s.tree.AddChip(part, sensortest.Chip{Name: "i915_gt0", Device: card.Device, Files: map[string]string{file: "0\n"}})
	}
	s.tree.AddChip(2, card)
	curve := sensortest.Steps(500*time.Millisecond, 40, 150)
	s.energy(2, "energy1_input", curve)
	s.energy(part, file, sensortest.Constant(110))
	k.devices["pci-0000:03:00.0"] = counted(sensors.GPU, curve)
	k.node, k.base, k.efficiency = byModel, 45, 0.90
	return s
}

func virtualMachine(t *testing.T, k *known) *simulated {
	s := simulate(t, sensortest.VirtualMachine(), 1)
	k.devices = map[string]want{"cpu": modelled(sensors.CPU).of(sensors.ScopeShare), "memory": modelled(sensors.Memory).of(sensors.ScopeShare)}
	k.missing, k.left = []string{gpuAbsent}, []string{noNVIDIA, "absent rapl cpu"}
	k.verdict, k.findings = stateEstimated, []string{"Hypervisors give their guests no energy counter"}
	return s
}

func virtualGPU(t *testing.T, k *known) *simulated {
	s := virtualMachine(t, k)
	card := gpus(1, "GRID A100D-20C", 0, sensortest.Constant(120))
	card[0].Faults = []sensortest.Fault{{On: "energy"}, {On: "power"}, {On: "limit"}}
	s.nvidia(sensortest.NVMLScript{GPUs: card})
	nvidiaCard(s.tree)
	k.missing, k.left = []string{"unreadable gpu " + uuid(0)}, []string{"unreadable nvml gpu " + uuid(0), "absent rapl cpu"}
	k.verdict, k.findings = statePartial, append([]string{"a virtual GPU (vGPU) is measured on its host"}, k.findings...)
	k.remedies = []string{"a virtual GPU can only be measured on its host"}
	return s
}

func oldGPUs(t *testing.T, k *known) *simulated {
	m := server()
	s := simulate(t, m, serverChassis)
	xeon(s, m, k)
	needsNVML(t)
	cards := gpus(2, "Tesla K80", 149, sensortest.Constant(120))
	for i := range cards {
		cards[i].Major, cards[i].Minor = 3, 7
		k.devices[uuid(i)] = instant(sensors.GPU, 120)
	}
	env, clock := sensortest.FakeOldNVML(t, sensortest.NVMLScript{GPUs: cards})
	s.drive(env, clock)
	return s
}

// acpiServer has one meter, which says that it measures the machine, or two that may
// be its power supplies.
func acpiServer(t *testing.T, k *known, meters int) *simulated {
	m := server()
	s := simulate(t, m, serverChassis)
	xeon(s, m, k)
	k.missing, k.left = []string{gpuAbsent}, append(slices.Clone(k.left), noNVIDIA)
	if meters == 1 {
		s.tree.AddChip(0, acpi(0, "System Power", "LNXSYBUS:00"))
		s.power(0, "device/power1_average", sensortest.Constant(620))
		k.node, k.meter, k.metered = string(sensors.MethodPowerAverage), "acpi-ACPI000D:00", averaged(sensors.Node, 620)
		return s
	}
	for i, name := range []string{"PSU1", "PSU2"} {
		s.tree.AddChip(i, acpi(i, name, ""))
		s.power(i, "device/power1_average", sensortest.Constant(310))
	}
	k.left = append(k.left, "unreadable hwmon node")
	k.findings, k.remedies = []string{"none says that it measures the machine"}, []string{"ACPI000D:*/power1_*_info"}
	return s
}

// containerWithoutDriver sees neither RAPL nor a driver that loads, and has its GPUs
// from an exporter.
func containerWithoutDriver(t *testing.T) *simulated {
	m := server()
	m.Masked = true
	s := simulate(t, m, serverChassis)
	nvidiaCard(s.tree)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "libnvidia-ml.so.1"), []byte("\x7fELF, and no driver"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "LD_LIBRARY_PATH="+dir)
	var mu sync.Mutex
	var now time.Duration
	s.move(func(at time.Duration) { mu.Lock(); now = at; mu.Unlock() })
	exporter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for i := range 2 {
			fmt.Fprintf(w, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu=\"%d\",UUID=%q,modelName=\"NVIDIA L40S\",Hostname=\"n\"} %d\n",
				i, uuid(i), 1000000+uint64(300*now.Seconds()*1000))
		}
	}))
	t.Cleanup(exporter.Close)
	s.flags = append(s.flags, "--dcgm", exporter.URL+"/metrics")
	return s
}

// GPUs that an exporter shows now and then are not seen in a moment: doctor says so
// once, with a look that is long enough, and offers no driver.
func TestMachineWithASlowExporter(t *testing.T) {
	t.Parallel()
	w := containerWithoutDriver(t).observe()
	var unreadable []string
	for _, m := range w.report.Missing {
		unreadable = append(unreadable, fmt.Sprint(m.Status, " ", m.Component, " ", m.Device))
	}
	same(t, "missing", unreadable, []string{"unreadable gpu " + uuid(0), "unreadable gpu " + uuid(1)})
	if !w.report.Partial || w.report.Energy.GPU != nil || w.doctor.Verdict != statePartial {
		t.Errorf("partial %v, gpu %v, doctor says %s", w.report.Partial, w.report.Energy.GPU, w.doctor.Verdict)
	}
	found := w.doctor.of("gpu")
	if len(found) != 1 || len(commands(found)) != 1 || len(found[0].Devices) != 2 {
		t.Fatalf("doctor finds %+v", found)
	}
	// The exporter's 30 s, and the 5 s between two polls of it.
	text, ok := strings.CutPrefix(commands(found)[0], "wattspan doctor --for ")
	if longer, err := time.ParseDuration(text); !ok || err != nil || longer <= 35*time.Second || longer > longestLook {
		t.Errorf("%q: %v", commands(found), err)
	}
	if hidden := w.doctor.of("cpu"); len(hidden) != 1 || !strings.Contains(fmt.Sprint(hidden), "/host/sys") {
		t.Errorf("of what the container hides: %+v", hidden)
	}
}

// What doctor says of a device is said of that one, wherever the meter of the node
// stands among them.
func TestMachineDoctorTellsDevicesApart(t *testing.T) {
	t.Parallel()
	var k known
	s := crayNode(t, &k)
	bands := map[string]float64{"package-0": 0.05, "package-1": 0.05, "cray-memory": 0.05}
	for i := range 4 {
		bands[uuid(i)] = 0.12
	}
	w := s.observe()
	for _, c := range w.doctor.Components {
		for i, d := range c.Devices {
			if d.ErrorBand != bands[d.ID] || c.Component == sensors.GPU && d.Index != i {
				t.Errorf("%s: index %d, band %v, want %d and %v", d.ID, d.Index, d.ErrorBand, i, bands[d.ID])
			}
		}
	}
}

// A meter is opened before the slowest driver has answered, and counts from the
// beginning of the run all the same.
func TestMachineMeterBeginsWithTheRun(t *testing.T) {
	t.Parallel()
	var k known
	s := simulate(t, server(), serverChassis)
	xeon(s, server(), &k)
	cards := gpus(8, "NVIDIA L4", 72, sensortest.Constant(60))
	for i := range cards {
		cards[i].Latency = 12 * time.Millisecond
	}
	s.nvidia(sensortest.NVMLScript{GPUs: cards})
	for _, kind := range []struct {
		name, unit string
		value      func(at time.Duration) uint64
	}{
		{"power", "W", func(time.Duration) uint64 { return 5000 }},
		{"energy", "J", func(time.Duration) uint64 { return uint64(5000 * time.Since(epoch).Seconds()) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "meter")
			if err := os.WriteFile(path, []byte("5000\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			metered := &simulated{t: t, tree: s.tree, env: s.env, moves: s.moves,
				flags: append(slices.Clone(s.flags), "--node-meter", "command["+kind.unit+"]:cat "+path)}
			metered.move(func(at time.Duration) { s.counter(path, kind.value(at)) })
			r := metered.observe().report
			truth := 5000 * r.Run.Duration
			if r.Node.Energy == nil || r.Node.Meter == nil || r.Node.Meter.Energy == nil {
				t.Fatalf("%+v", r.Node)
			}
			if got := float64(*r.Node.Meter.Energy); math.Abs(got-truth) > 5000*0.3 {
				t.Errorf("%v J in %v s, want %v J", got, r.Run.Duration, truth)
			}
		})
	}
}

var epoch = time.Now()

// Memory that is in the figure of a Grace socket is said to be there.
func TestMachineSaysWhereMemoryIs(t *testing.T) {
	t.Parallel()
	var k known
	w := graceHopper(t, &k, false).observe()
	said := strings.Join(strings.Fields(w.stderr.String()), " ")
	if !strings.Contains(said, "memory – inside the cpu's figure ") {
		t.Errorf("%s", &w.stderr)
	}
	if c := w.doctor.component(sensors.Memory); c.State != stateIncluded {
		t.Errorf("doctor says %+v", c)
	}
}

// A Jetson board whose driver has no power of the GPU, and whose memory is a model's
// that is more than an idle module draws: nothing is wrong with it.
func TestMachineIdleJetson(t *testing.T) {
	t.Parallel()
	var k known
	s := jetson(t, &k, map[string]int{"VDD_IN": 1000, "VDD_CPU_GPU_CV": 120, "VDD_SOC": 300})
	s.tree.Write("proc/meminfo", "MemTotal:       33554432 kB\nMemAvailable:   16777216 kB\n")
	card := gpus(1, "Orin (nvgpu)", 0, sensortest.Constant(5))
	card[0].Major, card[0].Minor = 8, 7
	card[0].Faults = []sensortest.Fault{{On: "energy"}, {On: "power"}, {On: "limit"}}
	s.nvidia(sensortest.NVMLScript{GPUs: card})
	w := s.observe()
	if w.report.Partial || len(w.report.Quality) > 0 || w.report.Node.Reason != "" {
		t.Errorf("partial %v, doubts %+v, node: %s", w.report.Partial, w.report.Quality, w.report.Node.Reason)
	}
	if said := w.stderr.String(); strings.Contains(said, "to improve") || strings.Contains(said, "in no sensor") {
		t.Errorf("the summary:\n%s", said)
	}
	if found := w.doctor.of("gpu"); len(found) > 0 {
		t.Errorf("doctor finds %+v", found)
	}
}
