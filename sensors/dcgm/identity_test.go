package dcgm

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

// The numbers of another node are never counted.
func TestWhoseGPUs(t *testing.T) {
	const other = "GPU-99999999-0000-4000-8000-000000000000"
	for _, test := range []struct {
		name    string
		driver  []string // UUIDs in procfs
		env     map[string]string
		host    string // this machine's name
		label   string // the exporter's
		address string
		owned   bool
		caveat  string
		reason  string
	}{
		{name: "the driver shows the same GPU", driver: []string{second}, host: "pod-7", label: "dcgm-exporter-x2x", address: "dcgm-exporter", owned: true},
		{name: "the driver shows others", driver: []string{other}, host: "node-1", label: "node-1", address: "localhost", reason: "other GPUs"},
		{name: "a driver that does not tell is no proof against", driver: []string{"GPU-????????-????-????-????-????????????"}, host: "node-1", label: "node-1", address: "node-1", owned: true},
		{name: "a container is given one of them", env: map[string]string{"NVIDIA_VISIBLE_DEVICES": first}, host: "pod-7", label: "dcgm-exporter-x2x", address: "dcgm", owned: true},
		{name: "a container is given another's", env: map[string]string{"NVIDIA_VISIBLE_DEVICES": other}, host: "pod-7", label: "node-1", address: "localhost", reason: "other GPUs"},
		{name: "a container is given all", env: map[string]string{"NVIDIA_VISIBLE_DEVICES": "all"}, host: "pod-7", label: "node-1", address: "dcgm", reason: "nothing confirms"},
		{name: "a beginning of a UUID is no UUID", env: map[string]string{"CUDA_VISIBLE_DEVICES": "GPU-99"}, host: "node-1", label: "node-1", address: "dcgm", owned: true},
		{name: "the same name", host: "node-1", label: "node-1", address: "dcgm", owned: true},
		{name: "the same name with its domain", host: "node-1", label: "NODE-1.example.org", address: "dcgm", owned: true},
		{name: "a name that begins alike", host: "node-1", label: "node-10", address: "dcgm", reason: "nothing confirms"},
		{name: "two domains", host: "node-1.a.org", label: "node-1.b.org", address: "dcgm", reason: "nothing confirms"},
		{name: "another machine by name", host: "node-2", label: "node-1", address: "node-1", reason: "nothing confirms"},
		{name: "a pod that knows its node", env: map[string]string{"NODE_NAME": "node-1", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}, host: "finetune-0", label: "node-1", address: "dcgm", owned: true},
		{name: "a pod on another node", env: map[string]string{"NODE_NAME": "node-2", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}, host: "finetune-0", label: "node-1", address: "dcgm", reason: "nothing confirms"},
		{name: "a pod that does not know its node", env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, host: "finetune-0", label: "node-1", address: "dcgm", reason: "nothing confirms"},
		{name: "by the address of the node", env: map[string]string{"HOST_IP": "10.0.0.5", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}, host: "finetune-0", label: "dcgm-exporter-x2x", address: "10.0.0.5", owned: true, caveat: "by the address alone"},
		{name: "on this machine, in a container of its own", host: "node-1", label: "ed7e7a5e585f", address: "127.0.0.1", owned: true, caveat: "by the address alone"},
		{name: "without a name, here", host: "node-1", address: "::1", owned: true, caveat: "by the address alone"},
		{name: "without a name, elsewhere", host: "node-1", address: "10.0.0.6", reason: "nothing confirms"},
	} {
		t.Run(test.name, func(t *testing.T) {
			roots := sensors.Roots{Proc: t.TempDir()}
			for i, uuid := range test.driver {
				dir := filepath.Join(roots.Proc, "driver/nvidia/gpus", strconv.Itoa(i))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				text := "Model: \t\t NVIDIA L40S\nIRQ:   \t\t 24\nGPU UUID: \t " + uuid + "\nBus Type: \t PCIe\n"
				if err := os.WriteFile(filepath.Join(dir, "information"), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m := thisMachine(roots, variables(test.env), func() (string, error) { return test.host, nil })
			p := page{gpus: []gpu{{uuid: first}, {uuid: second}}}
			if test.label != "" {
				p.hosts = []string{test.label}
			}
			caveat, err := m.owns(p, test.address)
			if (err == nil) != test.owned || !strings.Contains(caveat, test.caveat) || test.caveat == "" && caveat != "" {
				t.Errorf("caveat %q, %v", caveat, err)
			}
			if err != nil && (!errors.Is(err, sensors.ErrUnsupported) || !strings.Contains(err.Error(), test.reason)) {
				t.Errorf("%v, want %q", err, test.reason)
			}
			if _, pod := test.env["KUBERNETES_SERVICE_HOST"]; pod != strings.Contains(m.remedy(), "spec.nodeName") {
				t.Errorf("remedy %q", m.remedy())
			}
		})
	}
}
