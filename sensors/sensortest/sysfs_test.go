//go:build !windows

package sensortest_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

func content(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func machines() map[string]sensortest.Machine {
	return map[string]sensortest.Machine{
		"Intel client": sensortest.IntelClient(), "Intel server": sensortest.IntelServer(),
		"Intel multi-die": sensortest.IntelMultiDie(), "AMD multi-die": sensortest.AMDMultiDie(),
		"AMD server": sensortest.AMDServer(), "virtual machine": sensortest.VirtualMachine(),
	}
}

func TestSysfsShowsTheMachine(t *testing.T) {
	for name, m := range machines() {
		for _, flat := range []bool{false, true} {
			m.Flat = flat
			tree := sensortest.NewSysfs(t, m)
			roots := tree.Roots()
			for _, z := range m.Zones {
				class := filepath.Join(roots.Sys, "class/powercap", z.ID)
				if got := content(t, class, "name"); got != z.Name {
					t.Errorf("%s: %s is %q, want %q", name, z.ID, got, z.Name)
				}
				if got := content(t, class, "energy_uj"); got != strconv.FormatUint(tree.Energy(z.ID), 10) {
					t.Errorf("%s: %s shows %s, want %d", name, z.ID, got, tree.Energy(z.ID))
				}
				if got := content(t, class, "max_energy_range_uj"); got != strconv.FormatUint(z.Range, 10) {
					t.Errorf("%s: %s ranges to %s", name, z.ID, got)
				}
				if z.LongTerm > 0 {
					if got := content(t, class, "constraint_0_power_limit_uw"); got != strconv.Itoa(int(z.LongTerm)*1e6) {
						t.Errorf("%s: %s is limited to %s", name, z.ID, got)
					}
				}
				real, err := filepath.EvalSymlinks(class)
				if err != nil {
					t.Fatal(err)
				}
				if above := filepath.Base(filepath.Dir(real)); !flat && strings.Count(z.ID, ":") == 2 && !strings.HasPrefix(z.ID, above+":") {
					t.Errorf("%s: %s is in %s", name, z.ID, above)
				}
			}
			cpuinfo := content(t, roots.Proc, "cpuinfo")
			if n := strings.Count(cpuinfo, "model name\t: "+m.Model); n != m.Threads {
				t.Errorf("%s: %d threads, want %d", name, n, m.Threads)
			}
			if n := strings.Count(cpuinfo, "physical id\t: "+strconv.Itoa(m.Sockets-1)); n != m.Threads/m.Sockets {
				t.Errorf("%s: %d threads in the last socket", name, n)
			}
			if got := strings.Contains(cpuinfo, " hypervisor\n"); got != m.Virtual {
				t.Errorf("%s: virtual %v", name, got)
			}
			if got := content(t, roots.Proc, "meminfo"); !strings.HasPrefix(got, "MemTotal:       "+strconv.FormatUint(m.Memory/1024, 10)+" kB") {
				t.Errorf("%s: %s", name, got)
			}
			if n := strings.Count(content(t, roots.Proc, "stat"), "\ncpu"); n != m.Threads {
				t.Errorf("%s: stat has %d threads", name, n)
			}
			if got := content(t, roots.Sys, "class/dmi/id/product_name"); got != m.Product {
				t.Errorf("%s: product %q", name, got)
			}
		}
	}
}

// Readers keep the file open, so that it must never be another file, nor
// shorter or longer than before.
func TestSysfsEnergyIsWrittenInPlace(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.IntelClient())
	f, err := os.Open(filepath.Join(tree.Roots().Sys, "class/powercap/intel-rapl:0/energy_uj"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var length int64
	for _, raw := range []uint64{0, 9, 1000, 1<<64 - 1, 5, 262143328850} {
		tree.SetEnergy("intel-rapl:0", raw)
		buf := make([]byte, 64)
		n, _ := f.ReadAt(buf, 0)
		if got := strings.TrimSpace(string(buf[:n])); got != strconv.FormatUint(raw, 10) {
			t.Errorf("an open file shows %q, want %d", got, raw)
		}
		if length == 0 {
			length = int64(n)
		}
		if int64(n) != length || buf[n-1] != '\n' {
			t.Errorf("%d bytes, %d before", n, length)
		}
	}
	// Another process has but the path.
	if err := sensortest.WriteEnergy(tree.EnergyFile("intel-rapl:0"), 42); err != nil {
		t.Fatal(err)
	}
	if got := content(t, f.Name()); got != "42" {
		t.Errorf("shows %q", got)
	}
	if err := sensortest.WriteEnergy(tree.EnergyFile("intel-rapl:7"), 42); err == nil {
		t.Error("a zone that is not there can be written")
	}
}

func TestSysfsCountersMove(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.AMDMultiDie())
	show := func(zone string) string { return content(t, tree.EnergyFile(zone)) }
	tree.SetEnergy("intel-rapl:0", 65532610987) // the largest value
	tree.Draw("intel-rapl:0", 15)               // one unit more
	if got := show("intel-rapl:0"); got != "0" {
		t.Errorf("one unit after the largest value it shows %s, want 0", got)
	}
	tree.Draw("intel-rapl:0", 3*65532611002+4)
	for _, zone := range []string{"intel-rapl:0", "intel-rapl:1"} { // the second mirrors the first
		if got := show(zone); got != "4" {
			t.Errorf("%s shows %s, want 4", zone, got)
		}
	}
	if got := show("intel-rapl:2"); got != "9876543210" {
		t.Errorf("the other socket shows %s", got)
	}
	tree.SetEnergy("intel-rapl:1", 7)
	if got := show("intel-rapl:0"); got != "4" {
		t.Errorf("a mirror moves what it mirrors to %s", got)
	}
	unknown := sensortest.NewSysfs(t, sensortest.Machine{Zones: []sensortest.Zone{{ID: "intel-rapl:0", Name: "package-0", Energy: 1 << 40}}})
	unknown.Draw("intel-rapl:0", 1)
	if got := unknown.Energy("intel-rapl:0"); got != 1<<40+1 {
		t.Errorf("without a range it shows %d", got)
	}
}

func TestSysfsFails(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.IntelServer())
	dram := tree.EnergyFile("intel-rapl:0:0")
	class := filepath.Join(tree.Roots().Sys, "class/powercap")

	open, err := os.Open(dram)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	tree.Remove("intel-rapl:0")
	tree.Draw("intel-rapl:0:0", 5) // it counts on
	for _, zone := range []string{"intel-rapl:0", "intel-rapl:0:0"} {
		if _, err := os.Lstat(filepath.Join(class, zone)); !os.IsNotExist(err) {
			t.Errorf("%s is still listed: %v", zone, err)
		}
	}
	if n, _ := open.ReadAt(make([]byte, 8), 0); n != 0 {
		t.Errorf("who has it open still reads %d bytes", n)
	}
	tree.Restore("intel-rapl:0")
	if got := content(t, class, "intel-rapl:0:0/energy_uj"); got != "31000000020" {
		t.Errorf("restored, it shows %s", got)
	}

	tree.Corrupt("intel-rapl:1", "nonsense")
	if got := content(t, tree.EnergyFile("intel-rapl:1")); got != "nonsense" {
		t.Errorf("shows %q", got)
	}
	tree.SetEnergy("intel-rapl:1", 8)
	if got := content(t, tree.EnergyFile("intel-rapl:1")); got != "8" {
		t.Errorf("shows %q", got)
	}

	tree.Deny("intel-rapl:1")
	if info, err := os.Stat(tree.EnergyFile("intel-rapl:1")); err != nil || info.Mode().Perm() != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	m := sensortest.IntelServer()
	m.Masked = true
	masked := sensortest.NewSysfs(t, m).Roots().Sys
	link := filepath.Join(masked, "class/powercap/intel-rapl:0")
	if _, err := os.Lstat(link); err != nil {
		t.Errorf("a container still sees the link: %v", err)
	}
	if _, err := os.Stat(link); !os.IsNotExist(err) {
		t.Errorf("and nothing behind it: %v", err)
	}
}

func TestSysfsWrite(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.VirtualMachine())
	f, err := os.Open(filepath.Join(tree.Roots().Proc, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree.Write("proc/stat", "cpu  1 2 3\n")
	buf := make([]byte, 4096)
	if n, _ := f.ReadAt(buf, 0); string(buf[:n]) != "cpu  1 2 3\n" {
		t.Errorf("an open file shows %q", buf[:n])
	}
	tree.Write("sys/devices/system/node/online", "0\n")
	if got := content(t, tree.Root, "sys/devices/system/node/online"); got != "0" {
		t.Errorf("a new file shows %q", got)
	}
	if tree.Roots() != (sensors.Roots{Sys: tree.Root + "/sys", Proc: tree.Root + "/proc"}) {
		t.Errorf("roots %+v", tree.Roots())
	}
}
