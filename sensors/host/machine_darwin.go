package host

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// describe asks sysctl itself: gopsutil runs vm_stat for the memory where it is
// built without cgo.
func describe(context.Context, sensors.Roots) Machine {
	count := func(name string) int {
		n, _ := unix.SysctlUint32(name)
		return int(n)
	}
	m := Machine{
		Sockets: count("hw.packages"), Cores: count("hw.physicalcpu"), Threads: count("hw.logicalcpu"),
		// Its own families are no CPUID; the Intel ones are.
		Family: count("machdep.cpu.family"), ModelNumber: count("machdep.cpu.model"),
	}
	m.Model, _ = unix.Sysctl("machdep.cpu.brand_string")
	m.Memory, _ = unix.SysctlUint64("hw.memsize")
	if strings.HasPrefix(m.Model, "Apple") {
		m.Vendor, m.arm = "Apple", true
	} else {
		id, _ := unix.Sysctl("machdep.cpu.vendor")
		m.Vendor = vendors[id]
	}
	if count("kern.hv_vmm_present") == 1 {
		m.Hypervisor = "unknown"
	}
	// Newer machines are all called MacN,M: only a name that tells is used.
	switch hw, _ := unix.Sysctl("hw.model"); {
	case strings.HasPrefix(hw, "MacBook"):
		m.Kind = Laptop
	case strings.HasPrefix(hw, "iMac"), strings.HasPrefix(hw, "Macmini"), strings.HasPrefix(hw, "MacPro"):
		m.Kind = Desktop
	}
	return m
}
