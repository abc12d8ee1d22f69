package dcgm

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// machine is what is known of this machine, by which to tell its exporter from
// that of another.
type machine struct {
	uuids      map[string]bool // of its GPUs, or of some
	names      []string
	addresses  []string
	kubernetes bool
}

// thisMachine looks at what the driver shows, and at what Kubernetes and the
// container runtime of NVIDIA say in the environment.
func thisMachine(roots sensors.Roots, lookup func(string) (string, bool), hostname func() (string, error)) machine {
	m := machine{uuids: map[string]bool{}}
	infos, _ := filepath.Glob(filepath.Join(roots.Proc, "driver/nvidia/gpus/*/information"))
	for _, info := range infos {
		text, _ := os.ReadFile(info)
		for line := range strings.Lines(string(text)) {
			if uuid, ok := strings.CutPrefix(line, "GPU UUID:"); ok {
				m.addUUID(uuid)
			}
		}
	}
	for _, name := range []string{"NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"} {
		list, _ := lookup(name)
		for uuid := range strings.SplitSeq(list, ",") {
			m.addUUID(uuid)
		}
	}
	for _, name := range []string{"NODE_NAME", "K8S_NODE_NAME"} {
		if v, _ := lookup(name); v != "" {
			m.names = append(m.names, v)
		}
	}
	// In a pod it is the pod's name: that of an exporter beside us, too.
	if h, err := hostname(); err == nil && h != "" {
		m.names = append(m.names, h)
	}
	_, m.kubernetes = lookup("KUBERNETES_SERVICE_HOST")
	for _, name := range []string{"HOST_IP", "NODE_IP"} {
		if v, _ := lookup(name); v != "" {
			m.addresses = append(m.addresses, v)
		}
	}
	return m
}

// addUUID adds a whole UUID: CUDA takes a part of one too, and the driver shows
// question marks for a GPU that nobody has opened yet.
func (m *machine) addUUID(s string) {
	s = strings.ToLower(strings.TrimSpace(s))
	if digits, ok := strings.CutPrefix(s, "gpu-"); ok && len(digits) == 36 && !strings.Contains(digits, "?") {
		m.uuids[s] = true
	}
}

// owns checks that the GPUs of an exporter at an address are this machine's. The
// caveat is what to say where they may not be.
func (m machine) owns(p page, address string) (caveat string, err error) {
	if len(p.hosts) > 1 {
		return "", fmt.Errorf("what answers speaks for %d machines, and only this one's GPUs may be counted: %w", len(p.hosts), sensors.ErrUnsupported)
	}
	if len(m.uuids) > 0 {
		if slices.ContainsFunc(p.gpus, func(g gpu) bool { return m.uuids[strings.ToLower(g.uuid)] }) {
			return "", nil
		}
		return "", fmt.Errorf("the DCGM exporter shows other GPUs than this machine has: %w", sensors.ErrUnsupported)
	}
	if len(p.hosts) == 1 && slices.ContainsFunc(m.names, func(n string) bool { return sameHost(n, p.hosts[0]) }) {
		return "", nil
	}
	if ip := net.ParseIP(address); address == "localhost" || ip != nil && ip.IsLoopback() || slices.Contains(m.addresses, address) {
		return "taken for this machine's GPUs by the address alone", nil
	}
	return "", errUnconfirmed
}

var errUnconfirmed = fmt.Errorf("nothing confirms that the DCGM exporter is this machine's: it has another name, or none: %w", sensors.ErrUnsupported)

// remedy is how to make sure which machine's the exporter is.
func (m machine) remedy() string {
	if !m.kubernetes {
		return "use the exporter of this machine: --dcgm http://localhost:9400/metrics"
	}
	return `give the container the name and address of its node, and use that instead of a Service: ` +
		`env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, ` +
		`{name: ` + EnvURL + `, value: "http://$(HOST_IP):9400/metrics"}]; the exporter needs NODE_NAME, as its Helm chart has it, and hostNetwork or a hostPort`
}

// sameHost compares names of hosts, of which one may lack the domain.
func sameHost(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	short, long := a, b
	if len(short) > len(long) {
		short, long = long, short
	}
	return a == b || !strings.Contains(short, ".") && strings.HasPrefix(long, short+".")
}
