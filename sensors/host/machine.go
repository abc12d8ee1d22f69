package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// Kind is the kind of place a machine stands in, as far as it tells: what
// decides whether a data centre's overhead applies to it.
type Kind string

// The kinds of machine. A machine that does not tell has none of them.
const (
	Laptop         Kind = "laptop"
	Desktop        Kind = "desktop"
	Server         Kind = "server"
	VirtualMachine Kind = "virtual_machine"
)

// Machine is what a report says of the machine. A field that is not known is
// zero.
type Machine struct {
	Kind Kind `json:"kind"`
	// Hypervisor names what runs the machine, where it is virtual: "kvm",
	// "vmware", "hyperv", … or "unknown". It is empty on real hardware.
	Hypervisor string `json:"hypervisor,omitempty"`

	// Model is the processor's name as it gives it; on Arm, which gives none,
	// that of its core.
	Model  string `json:"cpu_model"`
	Vendor string `json:"cpu_vendor"` // of the processor: "AMD", "Intel", "Arm"
	// Family and ModelNumber are the processor's, by CPUID.
	Family      int `json:"-"`
	ModelNumber int `json:"-"`

	// Sockets and Cores are the packages and physical cores, Threads what the
	// system schedules on. In a virtual machine they are what it is shown.
	Sockets int `json:"cpu_sockets"`
	Cores   int `json:"cpu_cores"`
	Threads int `json:"cpu_threads"`

	// Memory is the size of the memory in bytes, Modules the number of its
	// modules.
	Memory  uint64 `json:"memory_bytes"`
	Modules int    `json:"memory_modules,omitempty"`

	// Container is the container that this process is in, nil where it is in
	// none. Cgroup is the version of control groups that it sees.
	Container *Container `json:"container,omitempty"`
	Cgroup    string     `json:"cgroup,omitempty"`

	arm bool
}

// Virtual reports whether the machine is a guest of another.
func (m Machine) Virtual() bool { return m.Hypervisor != "" }

// Describe says what the machine is that roots show. It runs no program, and
// what cannot be read stays empty.
func Describe(ctx context.Context, roots sensors.Roots) Machine {
	m := describe(ctx, roots)
	if m.Virtual() {
		m.Kind = VirtualMachine
	}
	// A tree without processes is not of the machine that we run on.
	if _, err := os.Lstat(filepath.Join(roots.Proc, "self")); err == nil {
		m.Container, m.Cgroup = DetectContainer("/", os.LookupEnv), CgroupVersion("/")
	}
	return m
}

// vendors maps the CPUID vendors to names.
var vendors = map[string]string{
	"GenuineIntel": "Intel",
	"AuthenticAMD": "AMD",
	"HygonGenuine": "Hygon",
	"CentaurHauls": "Centaur",
	"  Shanghai  ": "Zhaoxin",
}

// firmware is what SMBIOS says of a machine.
type firmware struct{ vendor, product string }

// hypervisor names the hypervisor whose firmware this is, if it is one's. It is
// what tells on Arm, which has no flag for it.
func (f firmware) hypervisor() string {
	text := f.vendor + " " + f.product
	if strings.Contains(f.product, ".metal") {
		return "" // a whole server of Amazon EC2
	}
	for _, h := range [...]struct{ contains, name string }{
		{"VMware", "vmware"},
		{"VirtualBox", "virtualbox"},
		{"Microsoft Corporation Virtual Machine", "hyperv"},
		{"Parallels", "parallels"},
		{"Xen", "xen"},
		{"KVM", "kvm"},
		{"QEMU", "kvm"},
		{"Amazon EC2", "kvm"},
		{"Google Compute Engine", "kvm"},
		{"OpenStack", "kvm"},
		{"Alibaba Cloud ECS", "kvm"},
		{"DigitalOcean", "kvm"},
		{"Hetzner vServer", "kvm"},
		{"Apple Virtualization", "apple"},
	} {
		if strings.Contains(text, h.contains) {
			return h.name
		}
	}
	return ""
}

// chassis maps the chassis type of SMBIOS (DSP0134, 7.4.1) to a kind.
func chassis(code int) Kind {
	switch code {
	case 8, 9, 10, 14, 30, 31, 32:
		return Laptop
	case 3, 4, 5, 6, 7, 13, 15, 16, 24, 35:
		return Desktop
	case 17, 23, 25, 28, 29:
		return Server
	}
	return ""
}
