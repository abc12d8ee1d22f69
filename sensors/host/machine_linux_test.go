package host

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

// cpuinfo renders /proc/cpuinfo for sockets × cores × threads.
func cpuinfo(vendor, model string, family, number, sockets, cores, threads int, flags string) string {
	var b strings.Builder
	n := 0
	for range threads {
		for s := range sockets {
			for c := range cores {
				fmt.Fprintf(&b, "processor\t: %d\nvendor_id\t: %s\ncpu family\t: %d\nmodel\t\t: %d\nmodel name\t: %s\nphysical id\t: %d\ncore id\t\t: %d\nflags\t\t: fpu vme %s sse2\n\n",
					n, vendor, family, number, model, s, c, flags)
				n++
			}
		}
	}
	return b.String()
}

const graviton = `
processor	: 0
BogoMIPS	: 243.75
Features	: fp asimd evtstrm aes
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1

processor	: 1
CPU implementer	: 0x41
CPU part	: 0xd0c
`

func TestDescribe(t *testing.T) {
	type files map[string]string
	for _, test := range []struct {
		name string
		proc files
		sys  files
		want Machine
	}{
		{
			"server",
			files{
				"cpuinfo": cpuinfo("AuthenticAMD", "AMD EPYC 7763 64-Core Processor", 25, 1, 2, 64, 2, ""),
				"meminfo": "MemTotal:       1056464896 kB\nMemFree: 1 kB\n",
			},
			files{
				"class/dmi/id/sys_vendor": "Supermicro\n", "class/dmi/id/product_name": "AS -4124GO-NART\n", "class/dmi/id/chassis_type": "17\n",
				"devices/system/edac/mc/mc0/rank0/size": "524288\n", "devices/system/edac/mc/mc0/rank1/size": "0\n",
				"devices/system/edac/mc/mc1/rank0/size": "524288\n",
			},
			Machine{
				Kind: Server, Model: "AMD EPYC 7763 64-Core Processor", Vendor: "AMD", Family: 25, ModelNumber: 1,
				Sockets: 2, Cores: 128, Threads: 256, Memory: 1056464896 << 10, Modules: 1,
			},
		},
		{
			"virtual machine by flag",
			files{"cpuinfo": cpuinfo("AuthenticAMD", "AMD EPYC", 25, 1, 1, 2, 1, "hypervisor"), "meminfo": "MemTotal: 8388608 kB\n"},
			files{"devices/system/clocksource/clocksource0/available_clocksource": "kvm-clock tsc acpi_pm \n"},
			Machine{
				Kind: VirtualMachine, Hypervisor: "kvm", Model: "AMD EPYC", Vendor: "AMD", Family: 25, ModelNumber: 1,
				Sockets: 1, Cores: 2, Threads: 2, Memory: 8 << 30,
			},
		},
		{
			"Graviton", files{"cpuinfo": graviton},
			files{
				"class/dmi/id/sys_vendor": "Amazon EC2\n", "class/dmi/id/product_name": "m6g.large\n", "class/dmi/id/chassis_type": "1\n",
				"devices/system/cpu/cpu0/topology/thread_siblings_list": "0\n", "devices/system/cpu/cpu0/topology/core_siblings_list": "0-1\n",
			},
			Machine{
				Kind: VirtualMachine, Hypervisor: "kvm", Model: "Neoverse-N1", Vendor: "Arm",
				Sockets: 1, Cores: 2, Threads: 2, arm: true,
			},
		},
		{
			"laptop without DMI", files{"cpuinfo": cpuinfo("GenuineIntel", "Intel(R) Core(TM) i5-8259U CPU @ 2.30GHz", 6, 142, 1, 4, 2, "")},
			files{"class/power_supply/BAT0/status": "Full\n"},
			Machine{
				Kind: Laptop, Model: "Intel(R) Core(TM) i5-8259U CPU @ 2.30GHz", Vendor: "Intel", Family: 6, ModelNumber: 142,
				Sockets: 1, Cores: 4, Threads: 8,
			},
		},
		{
			"first domain of Xen", files{"cpuinfo": cpuinfo("GenuineIntel", "Intel(R) N100", 6, 190, 1, 4, 1, "hypervisor"), "xen/capabilities": "control_d\n"},
			files{"hypervisor/type": "xen\n", "class/dmi/id/chassis_type": "3\n"},
			Machine{
				Kind: Desktop, Model: "Intel(R) N100", Vendor: "Intel", Family: 6, ModelNumber: 190,
				Sockets: 1, Cores: 4, Threads: 4,
			},
		},
		{
			"hypervisor without a name", files{"cpuinfo": cpuinfo("GenuineIntel", "Intel(R) Xeon(R) Processor @ 2.20GHz", 6, 143, 1, 1, 2, "hypervisor")}, nil,
			Machine{
				Kind: VirtualMachine, Hypervisor: "unknown", Model: "Intel(R) Xeon(R) Processor @ 2.20GHz", Vendor: "Intel", Family: 6, ModelNumber: 143,
				Sockets: 1, Cores: 1, Threads: 2,
			},
		},
		{"nothing", nil, nil, Machine{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			roots := sensors.Roots{Proc: t.TempDir(), Sys: t.TempDir()}
			for name, content := range test.proc {
				write(t, roots.Proc, name, content)
			}
			for name, content := range test.sys {
				write(t, roots.Sys, name, content)
			}
			if got := Describe(t.Context(), roots); got != test.want {
				t.Errorf("\n got %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// A hybrid processor has threads on some of its cores only.
func TestHybridCores(t *testing.T) {
	info := cpuinfo("GenuineIntel", "12th Gen Intel(R) Core(TM) i9-12900K", 6, 151, 1, 8, 2, "")
	for i := range 8 {
		info += fmt.Sprintf("processor\t: %d\nphysical id\t: 0\ncore id\t\t: %d\n\n", 16+i, 40+i)
	}
	var m Machine
	m.readCPUInfo(info)
	if m.Sockets != 1 || m.Cores != 16 || m.Threads != 24 {
		t.Errorf("%d sockets, %d cores, %d threads", m.Sockets, m.Cores, m.Threads)
	}
}

// A controller without a driver hides its modules: better none than half.
func TestModules(t *testing.T) {
	sys := t.TempDir()
	for i := range 8 {
		write(t, sys, "devices/system/edac/mc/mc0/dimm"+strconv.Itoa(i)+"/size", "32768\n")
	}
	const gb = 1 << 30
	for memory, want := range map[uint64]int{256 * gb: 8, 250 * gb: 8, 512 * gb: 0} {
		if got := modules(sys, memory); got != want {
			t.Errorf("%d GB: %d modules, want %d", memory/gb, got, want)
		}
	}
}

func TestListed(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8,10-11": 7, "": 0, "3-1": 0, "x": 0, "0-99999": 0} {
		if got := listed(list); got != want {
			t.Errorf("%q: %d, want %d", list, got, want)
		}
	}
}

func FuzzCPUInfo(f *testing.F) {
	f.Add(graviton)
	f.Add(cpuinfo("AuthenticAMD", "AMD EPYC", 25, 1, 1, 2, 1, "hypervisor"))
	f.Fuzz(func(t *testing.T, info string) {
		var m Machine
		m.readCPUInfo(info)
		if r := rate(m); !(r.watts > 0) || !(r.band > 0 && r.band <= 1) || r.note == "" {
			t.Errorf("%+v: %+v", m, r)
		}
	})
}

func FuzzMemInfo(f *testing.F) {
	f.Add("MemTotal:       16384 kB\n")
	f.Add("MemTotal: 99999999999999999999 kB\n")
	f.Fuzz(func(t *testing.T, info string) {
		if n := memTotal(info); n%1024 != 0 {
			t.Errorf("%q: %d bytes", info, n)
		}
	})
}

func BenchmarkDescribe(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Describe(b.Context(), realRoots)
	}
}

// The largest machines have a cpuinfo of half a megabyte.
func BenchmarkCPUInfo(b *testing.B) {
	info := cpuinfo("AuthenticAMD", "AMD EPYC 9654 96-Core Processor", 25, 17, 2, 96, 2, strings.Repeat("flag ", 150))
	b.SetBytes(int64(len(info)))
	b.ReportAllocs()
	for b.Loop() {
		var m Machine
		m.readCPUInfo(info)
	}
}
