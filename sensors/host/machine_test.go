package host

import "testing"

func TestHypervisor(t *testing.T) {
	for _, test := range []struct{ vendor, product, want string }{
		{"QEMU", "Standard PC (Q35 + ICH9, 2009)", "kvm"},
		{"Amazon EC2", "c7g.xlarge", "kvm"},
		{"Amazon EC2", "c7g.metal", ""},
		{"Google", "Google Compute Engine", "kvm"},
		{"Microsoft Corporation", "Virtual Machine", "hyperv"},
		{"Microsoft Corporation", "Surface Laptop 4", ""},
		{"VMware, Inc.", "VMware20,1", "vmware"},
		{"innotek GmbH", "VirtualBox", "virtualbox"},
		{"Xen", "HVM domU", "xen"},
		{"Dell Inc.", "PowerEdge XE9680", ""},
		{"Supermicro", "SYS-821GE-TNHR", ""},
		{"", "", ""},
	} {
		if got := (firmware{test.vendor, test.product}).hypervisor(); got != test.want {
			t.Errorf("%s %s: %q, want %q", test.vendor, test.product, got, test.want)
		}
	}
}

func TestChassis(t *testing.T) {
	for code, want := range map[int]Kind{
		0: "", 1: "", 2: "", 3: Desktop, 9: Laptop, 10: Laptop, 13: Desktop, 17: Server, 23: Server, 28: Server, 31: Laptop, 35: Desktop, 99: "",
	} {
		if got := chassis(code); got != want {
			t.Errorf("chassis %d: %q, want %q", code, got, want)
		}
	}
}
