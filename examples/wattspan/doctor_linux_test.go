package main

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/rapl"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// draw lets zones draw power until the test is over.
func draw(t *testing.T, tree *sensortest.Sysfs, powers map[string]sensors.Watts) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		last := time.Now()
		for {
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
			now := time.Now()
			for zone, power := range powers {
				tree.Draw(zone, sensors.Microjoules(float64(power)*float64(now.Sub(last).Microseconds())))
			}
			last = now
		}
	}()
	t.Cleanup(func() { close(quit); <-done })
}

// keepBusy lets the machine's processors be half busy until the test is over.
func keepBusy(t *testing.T, tree *sensortest.Sysfs) {
	t.Helper()
	// Always as long, and in one write, so that no reader sees a part of it.
	text := func(ticks int) string { return fmt.Sprintf("cpu  %012d 0 0 %012d 0 0 0 0 0 0\n", ticks, ticks) }
	tree.Write("proc/stat", text(1000))
	f, err := os.OpenFile(filepath.Join(tree.Roots().Proc, "stat"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = f.Close() }()
		for ticks := 1001; ; ticks += 4 {
			if _, err := f.WriteAt([]byte(text(ticks)), 0); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { close(quit); <-done })
}

// guest is a virtual machine whose processors are busy.
func guest(t *testing.T) *sensortest.Sysfs {
	t.Helper()
	tree := sensortest.NewSysfs(t, sensortest.VirtualMachine())
	keepBusy(t, tree)
	return tree
}

var serverPowers = map[string]sensors.Watts{
	"intel-rapl:0": 200, "intel-rapl:0:0": 25, "intel-rapl:1": 100, "intel-rapl:1:0": 12,
}

// roots is the environment that shows a tree to the runner.
func roots(tree *sensortest.Sysfs) []string {
	return []string{"HOST_SYS=" + tree.Roots().Sys, "HOST_PROC=" + tree.Roots().Proc}
}

// unprivileged is how to run something without the rights of root, who may read
// everything.
func unprivileged(t *testing.T, folders ...string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	binary, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(folders, filepath.Dir(binary)) {
		open(t, dir)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// nvidiaCard puts a card on the tree's bus that has no driver.
func nvidiaCard(tree *sensortest.Sysfs) { pciCard(tree, "0000:17:00.0", "0x10de", "0x030200") }

func pciCard(tree *sensortest.Sysfs, address, vendor, class string) {
	tree.Write("sys/bus/pci/devices/"+address+"/vendor", vendor+"\n")
	tree.Write("sys/bus/pci/devices/"+address+"/class", class+"\n")
}

// A server whose counters can be read is measured, and its devices draw what
// they draw.
func TestDoctorMeasures(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.IntelServer())
	draw(t, tree, serverPowers)
	env, gpus := roots(tree), 0
	if cgo {
		if _, err := exec.LookPath("gcc"); err == nil {
			gpu := sensortest.GPU{Script: sensortest.Script{Curve: sensortest.Constant(300), MaxPower: 700}}
			driver, _ := sensortest.FakeNVML(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{gpu, gpu}})
			env = append(append(env, driver...), "FAKE_NVML_CLOCK=") // which runs by itself
			gpus = 2
		}
	}
	v := consult(t, env, "--for", "1s")
	if v.Verdict != stateMeasured || v.exit != 0 || !slices.Equal(commands(v.of("cpu")), nil) {
		t.Errorf("%s, exit code %d, findings %+v", v.Verdict, v.exit, v.Findings)
	}
	cpu, memory, gpu := v.component(sensors.CPU), v.component(sensors.Memory), v.component(sensors.GPU)
	if cpu.State != stateMeasured || memory.State != stateMeasured || len(cpu.Devices) != 2 || len(memory.Devices) != 2 {
		t.Fatalf("cpu %+v\nmemory %+v", cpu, memory)
	}
	if wanted := map[bool]state{true: stateMeasured, false: stateAbsent}[gpus > 0]; gpu.State != wanted || len(gpu.Devices) != gpus {
		t.Errorf("gpu %+v", gpu)
	}
	near := func(what string, got *sensors.Watts, want sensors.Watts) {
		t.Helper()
		if got == nil || *got < want/2 || *got > want*2 {
			t.Errorf("%s draws %v, want about %v", what, got, want)
		}
	}
	near("package-0", cpu.Devices[0].Power, 100)
	near("package-1", cpu.Devices[1].Power, 200)
	near("the cpu", cpu.Power, 300)
	near("dram-1", memory.Devices[1].Power, 25)
	for _, d := range gpu.Devices {
		near(d.ID, d.Power, 300)
	}
	if d := cpu.Devices[0]; d.Method != sensors.MethodCounter || d.ErrorBand != 0.05 || !strings.HasPrefix(d.Source, "rapl ") {
		t.Errorf("%+v", d)
	}
}

// A counter that stands still is no measurement of 0 W.
func TestDoctorDoesNotBelieveACounterThatStandsStill(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.IntelServer())
	moving := map[string]sensors.Watts{"intel-rapl:0": 200, "intel-rapl:0:0": 25, "intel-rapl:1:0": 12}
	draw(t, tree, moving)
	v := consult(t, roots(tree))
	cpu := v.component(sensors.CPU)
	if v.Verdict != statePartial || v.exit != 2 || cpu.State != statePartial {
		t.Fatalf("%s, exit code %d, cpu %+v", v.Verdict, v.exit, cpu)
	}
	for _, d := range cpu.Devices {
		if still := d.ID == "package-0"; still != (d.Trouble != "") || still != (d.Power == nil) {
			t.Errorf("%+v", d)
		}
	}
	if f := v.of("cpu"); len(f) != 1 || f[0].Severity != problem || !strings.Contains(f[0].Text, "package-0") {
		t.Errorf("findings %+v", f)
	}
}

// Counters that are for root only: the first remedy is carried out as it is
// printed, and mends it.
func TestDoctorMendsUnreadableCounters(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.IntelServer())
	draw(t, tree, serverPowers)
	keepBusy(t, tree)
	as := unprivileged(t, tree.Root)

	tree.Deny("intel-rapl:0")
	v := consultAs(t, as, roots(tree), "--json")
	if v.Verdict != statePartial || v.exit != 2 || v.component(sensors.CPU).State != statePartial || v.component(sensors.Memory).State != stateMeasured {
		t.Errorf("one package: %s, exit code %d, %+v", v.Verdict, v.exit, v.Components)
	}
	if f := v.of("cpu"); len(f) != 1 || f[0].Severity != problem || !slices.Equal(f[0].Devices, []string{"package-1"}) {
		t.Errorf("one package: %+v", f)
	}

	for _, zone := range []string{"intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0"} {
		tree.Deny(zone)
	}
	v = consultAs(t, as, roots(tree), "--json")
	if v.Verdict != stateEstimated || v.exit != 1 {
		t.Errorf("all of them, where models stand in: %s, exit code %d", v.Verdict, v.exit)
	}
	found := v.of("cpu")
	if len(found) != 1 || found[0].Severity != improvement || found[0].About != "cpu, memory" || len(found[0].Devices) != 4 {
		t.Fatalf("all of them: %+v", found)
	}
	said := consultAs(t, as, append(roots(tree), "COLUMNS=40"))
	remedies := commands(found)
	for _, command := range remedies {
		if !strings.Contains(said.stdout, command) {
			t.Errorf("the page does not have %q", command)
		}
	}

	mend := strings.ReplaceAll(strings.TrimPrefix(remedies[0], "sudo "), "/sys/", tree.Roots().Sys+"/")
	if out, err := exec.Command("sh", "-c", mend).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mend, err, out)
	}
	if v = consultAs(t, as, roots(tree), "--json"); v.Verdict != stateMeasured || v.exit != 0 {
		t.Errorf("after %s: %s, exit code %d, %+v", mend, v.Verdict, v.exit, v.Components)
	}
}

// The rule for udev means the zones, and the file that it opens is theirs.
func TestDoctorUdevRule(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.IntelServer())
	s := system{OS: "linux"}
	rule := ""
	for _, command := range commands(s.prescribe([]sensors.Omission{raplOmission(sensors.CPU, "package-0", "intel-rapl")}, nil)) {
		if strings.Contains(command, "tee /etc/udev/rules.d/") {
			// As the shell passes it on.
			out, err := exec.Command("sh", "-c", command[:strings.Index(command, " | ")]).Output()
			if err != nil {
				t.Fatal(err)
			}
			rule = string(out)
		}
	}
	m := regexp.MustCompile(`^ACTION=="add", SUBSYSTEM=="powercap", KERNEL=="([^"]+)", RUN\+="/bin/chmod a\+r /sys%p/(\w+)"\n$`).FindStringSubmatch(rule)
	if m == nil {
		t.Fatalf("the rule is %q", rule)
	}
	for _, zone := range []string{"intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"} {
		if ok, err := path.Match(m[1], zone); !ok || err != nil {
			t.Errorf("%s does not match %s: %v", m[1], zone, err)
		}
		if _, err := os.Stat(filepath.Join(tree.ZoneDir(zone), m[2])); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []string{"intel-rapl", "dtpm"} {
		if ok, _ := path.Match(m[1], other); ok {
			t.Errorf("%s matches %s", m[1], other)
		}
	}
}

// What an engine hides can be read where the printed flags put it.
func TestDoctorMendsHiddenCounters(t *testing.T) {
	machine := sensortest.IntelServer()
	onHost := sensortest.NewSysfs(t, machine)
	draw(t, onHost, serverPowers)
	machine.Masked = true
	inside := sensortest.NewSysfs(t, machine)
	keepBusy(t, inside)

	// As found inside.
	set, err := sensors.Detect(t.Context(), sensors.WithBackends(sensors.Backend{Name: "rapl", Open: rapl.Open}),
		sensors.WithSysRoot(inside.Roots().Sys), sensors.WithProcRoot(inside.Roots().Proc))
	if err != nil {
		t.Fatal(err)
	}
	s := system{OS: "linux", Container: "docker"}
	said := commands(s.prescribe(set.Omissions(), set.Missing()))
	m := regexp.MustCompile(`^docker run -v (/\S+):(/\S+):ro -e HOST_SYS=(/\S+) `).FindStringSubmatch(strings.Join(said, "\n"))
	if len(said) != 1 || m == nil {
		t.Fatalf("%q", said)
	}
	// What docker does by them: the host's folder is inside, at another place.
	mounted := filepath.Join(inside.Root, m[2])
	if err := os.MkdirAll(filepath.Dir(mounted), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(onHost.Root, m[1]), mounted); err != nil {
		t.Fatal(err)
	}

	before := consult(t, roots(inside))
	if before.Verdict != stateEstimated || before.exit != 1 {
		t.Errorf("before: %s, exit code %d", before.Verdict, before.exit)
	}
	after := consult(t, []string{"HOST_SYS=" + filepath.Join(inside.Root, m[3]), "HOST_PROC=" + inside.Roots().Proc})
	if after.Verdict != stateMeasured || after.exit != 0 {
		t.Errorf("after: %s, exit code %d, %+v", after.Verdict, after.exit, after.Components)
	}
}

// A guest has no counters, and gets no advice that does not help.
func TestDoctorVirtualMachine(t *testing.T) {
	tree := guest(t)
	v := consult(t, roots(tree))
	if v.Verdict != stateEstimated || v.exit != 1 || v.Report.Machine.Kind != host.VirtualMachine {
		t.Errorf("%s, exit code %d, %+v", v.Verdict, v.exit, v.Report.Machine)
	}
	if f := v.of("cpu"); len(f) != 1 || f[0].Severity != limit || len(f[0].Remedies) != 0 {
		t.Errorf("findings %+v", f)
	}
	if gpu := v.component(sensors.GPU); gpu.State != stateAbsent || len(v.of("gpu")) != 0 {
		t.Errorf("gpu %+v, %+v", gpu, v.of("gpu"))
	}
	said := consultAs(t, nil, roots(tree))
	for _, never := range []string{"chmod", "modprobe", "setcap", "HOST_SYS"} {
		if strings.Contains(said.stdout, never) {
			t.Errorf("it says %s:\n%s", never, said.stdout)
		}
	}
	for _, want := range []string{"ESTIMATED", "virtual machine", "none: no NVIDIA GPU found", "Hypervisors give their guests"} {
		if !strings.Contains(said.stdout, want) {
			t.Errorf("it does not say %q:\n%s", want, said.stdout)
		}
	}
}

// Hardware without its driver has one.
func TestDoctorUnloadedDriver(t *testing.T) {
	machine := sensortest.AMDServer()
	machine.Zones = nil
	tree := sensortest.NewSysfs(t, machine)
	keepBusy(t, tree)
	v := consult(t, roots(tree))
	if got := strings.Join(commands(v.of("cpu")), "\n"); v.exit != 1 || !strings.Contains(got, "modprobe intel_rapl_msr") {
		t.Errorf("exit code %d, %q", v.exit, got)
	}
}

// What a driver says when it does not start, by the real way to it.
func TestDoctorTroubledDriver(t *testing.T) {
	needsNVML(t)
	for _, c := range []struct {
		name    string
		code    int
		visible bool
		state   state
		says    string
	}{
		{"mismatch", 18, true, stateUnreadable, "upgraded while the system ran"},
		{"no permission", 4, true, stateUnreadable, "use the GPU"},
		{"not loaded", 9, true, stateUnreadable, "NVIDIA"},
		{"not loaded, and no GPU", 9, false, stateAbsent, ""},
		{"lost", 15, true, stateUnreadable, "does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := guest(t)
			if c.visible {
				nvidiaCard(tree)
			}
			driver, _ := sensortest.FakeNVML(t, sensortest.NVMLScript{GPUs: []sensortest.GPU{{}}, FailInit: c.code})
			v := consult(t, append(roots(tree), driver...))
			if v.component(sensors.GPU).State != c.state || (v.exit == 2) != (c.state == stateUnreadable) {
				t.Errorf("exit code %d, %+v", v.exit, v.component(sensors.GPU))
			}
			found := v.of("gpu")
			if c.says == "" {
				if len(found) > 0 {
					t.Errorf("%+v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Severity != problem || !strings.Contains(found[0].Text, c.says) || len(found[0].Remedies) == 0 {
				t.Errorf("%+v", found)
			}
		})
	}
}

// A GPU in a program without cgo is unread, not absent.
func TestDoctorWithoutCGO(t *testing.T) {
	if cgo {
		t.Skip("built with cgo")
	}
	tree := guest(t)
	nvidiaCard(tree)
	v := consult(t, roots(tree))
	if got := commands(v.of("gpu")); v.exit != 2 || len(got) != 1 || !strings.HasPrefix(got[0], "CGO_ENABLED=1 go install ") {
		t.Errorf("exit code %d, %q", v.exit, got)
	}
	if v.Build.CGO {
		t.Error("it says it was built with cgo")
	}
}

// An accelerator that nothing reads makes the figures partial.
func TestDoctorOtherGPUs(t *testing.T) {
	tree := guest(t)
	pciCard(tree, "0000:c1:00.0", "0x1002", "0x120000")
	pciCard(tree, "0000:c2:00.0", "0x1002", "0x120000")
	v := consult(t, roots(tree))
	if v.exit != 2 || v.component(sensors.GPU).State != stateUnreadable || len(v.of("gpu")) != 1 || !strings.Contains(v.of("gpu")[0].Text, "2 GPUs of AMD") {
		t.Errorf("exit code %d, %+v, %+v", v.exit, v.component(sensors.GPU), v.of("gpu"))
	}
}

// Doctor says of the accounting what a run then does, and leaves no group behind.
func TestDoctorAccounting(t *testing.T) {
	v := consult(t, nil)
	// Before the next runner, which would clean up.
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, _ os.DirEntry, _ error) error {
		if strings.HasPrefix(filepath.Base(path), fmt.Sprintf("%s%d-", groupPrefix, v.pid)) {
			t.Errorf("%s is left behind", path)
		}
		return nil
	})
	ran := start(t, nil, nil, "true").wait(t)
	if v.Accounting.Method == "" || v.Accounting.Method != ran.report.Job.Accounting {
		t.Errorf("doctor says %+v, a run %q", v.Accounting, ran.report.Job.Accounting)
	}
}
