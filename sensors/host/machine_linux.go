package host

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

func describe(_ context.Context, roots sensors.Roots) Machine {
	var m Machine
	guest := m.readCPUInfo(text(roots.Proc, "cpuinfo"))
	if m.Cores == 0 {
		m.readTopology(roots.Sys)
	}
	m.Memory = memTotal(text(roots.Proc, "meminfo"))
	m.Modules = modules(roots.Sys, m.Memory)

	dmi := filepath.Join(roots.Sys, "class/dmi/id")
	fw := firmware{vendor: firstLine(dmi, "sys_vendor"), product: firstLine(dmi, "product_name")}
	m.Hypervisor = fw.hypervisor()
	if kind := firstLine(roots.Sys, "hypervisor/type"); m.Hypervisor == "" && kind != "" {
		m.Hypervisor = kind
	}
	if guest && m.Hypervisor == "" {
		m.Hypervisor = paravirtual(firstLine(roots.Sys, "devices/system/clocksource/clocksource0/available_clocksource"))
	}
	// Xen's first domain runs on a hypervisor and sees the hardware.
	if strings.Contains(text(roots.Proc, "xen/capabilities"), "control_d") {
		m.Hypervisor = ""
	}

	code, _ := strconv.Atoi(firstLine(dmi, "chassis_type"))
	m.Kind = chassis(code)
	if m.Kind == "" {
		if batteries, _ := filepath.Glob(filepath.Join(roots.Sys, "class/power_supply/BAT*")); len(batteries) > 0 {
			m.Kind = Laptop
		}
	}
	return m
}

// readCPUInfo takes the processor from /proc/cpuinfo, and reports whether it
// has the flag of a guest.
func (m *Machine) readCPUInfo(info string) (guest bool) {
	type core struct{ socket, core string }
	sockets, cores := map[string]struct{}{}, map[core]struct{}{}
	var at core
	var part string
	for l := range strings.SplitSeq(info, "\n") {
		key, value, ok := strings.Cut(l, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch key = strings.TrimRight(key, " \t"); key {
		case "processor":
			// Old Arm kernels have a line "Processor : name" as well.
			m.Threads++
		case "vendor_id":
			if m.Vendor = vendors[value]; m.Vendor == "" {
				m.Vendor = value
			}
		case "model name":
			m.Model = value
		case "cpu family":
			m.Family, _ = strconv.Atoi(value)
		case "model":
			m.ModelNumber, _ = strconv.Atoi(value)
		case "physical id":
			at.socket = value
			sockets[value] = struct{}{}
		case "core id":
			at.core = value
			cores[at] = struct{}{}
		case "flags":
			if !guest { // the same on each, and a kilobyte of it
				guest = strings.Contains(" "+value+" ", " hypervisor ")
			}
		case "CPU implementer":
			m.arm, m.Vendor = true, implementers[value]
		case "CPU part":
			part = value
		}
	}
	m.Sockets, m.Cores = len(sockets), len(cores)
	if m.arm && m.Model == "" {
		if m.Model = parts[part]; m.Model == "" {
			m.Model = strings.TrimSpace(m.Vendor + " part " + part)
		}
	}
	return guest
}

// paravirtual names the hypervisor of a guest without firmware by the clock that
// it offers.
func paravirtual(clocksources string) string {
	switch {
	case strings.Contains(clocksources, "kvm-clock"):
		return "kvm"
	case strings.Contains(clocksources, "hyperv"):
		return "hyperv"
	case strings.Contains(clocksources, "xen"):
		return "xen"
	}
	return "unknown"
}

// readTopology counts sockets and cores from those of the first processor, for
// Arm, where /proc/cpuinfo is silent.
func (m *Machine) readTopology(sys string) {
	topology := filepath.Join(sys, "devices/system/cpu/cpu0/topology")
	if n := listed(firstLine(topology, "thread_siblings_list")); n > 0 {
		m.Cores = max(m.Threads/n, 1)
	}
	if n := listed(firstLine(topology, "core_siblings_list")); n > 0 {
		m.Sockets = max(m.Threads/n, 1)
	}
}

// listed counts the processors in a list of the kernel, "0-3,8".
func listed(list string) int {
	n := 0
	for r := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(r, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return 0
		}
		to := from
		if ranged {
			if to, err = strconv.ParseUint(last, 10, 16); err != nil || to < from {
				return 0
			}
		}
		n += int(to-from) + 1
	}
	return n
}

// memTotal returns the size of the memory in bytes from /proc/meminfo, which
// gives it in kibibytes and calls them kB.
func memTotal(info string) uint64 {
	for l := range strings.SplitSeq(info, "\n") {
		if value, ok := strings.CutPrefix(l, "MemTotal:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 53)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// modules counts the memory modules from what the error detection driver of a
// server shows to every user; SMBIOS shows them to root only. A driver that
// cannot tell modules lists ranks, of which a server's module has two. It
// returns 0 unless the modules hold the memory that there is: each controller
// has a driver of its own, and one may be missing.
func modules(sys string, memory uint64) int {
	mc := filepath.Join(sys, "devices/system/edac/mc/mc*")
	dimms, _ := filepath.Glob(filepath.Join(mc, "dimm*", "size"))
	perModule := 1
	if len(dimms) == 0 {
		dimms, _ = filepath.Glob(filepath.Join(mc, "rank*", "size"))
		perModule = 2
	}
	n, mib := 0, uint64(0)
	for _, size := range dimms {
		if v, err := strconv.ParseUint(firstLine(filepath.Dir(size), "size"), 10, 32); err == nil && v > 0 {
			n, mib = n+1, mib+v
		}
	}
	if n == 0 || mib < memory>>20 {
		return 0
	}
	return max(n/perModule, 1)
}

func text(elem ...string) string {
	b, _ := os.ReadFile(filepath.Join(elem...))
	return string(b)
}

func firstLine(elem ...string) string {
	l, _, _ := strings.Cut(text(elem...), "\n")
	return strings.TrimSpace(l)
}

// implementers and parts name Arm cores, from the MIDR codes of the kernel's
// cputype.h.
var implementers = map[string]string{
	"0x41": "Arm", "0x42": "Broadcom", "0x43": "Cavium", "0x46": "Fujitsu", "0x48": "HiSilicon",
	"0x4e": "NVIDIA", "0x50": "AppliedMicro", "0x51": "Qualcomm", "0x61": "Apple", "0x6d": "Microsoft", "0xc0": "Ampere",
}

var parts = map[string]string{
	"0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd49": "Neoverse-N2", "0xd4f": "Neoverse-V2",
	"0xd83": "Neoverse-V3AE", "0xd84": "Neoverse-V3", "0xd8e": "Neoverse-N3",
	"0xd03": "Cortex-A53", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76",
}
