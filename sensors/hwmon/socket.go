package hwmon

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// socketBand is that of the same registers read by package rapl.
const socketBand = 0.05

// amdSockets reads the sockets of amd_energy. They contain the cores, Ecore000 and
// on. What the driver calls Esocket0 is the socket of NUMA node 0: with several
// nodes in a socket (NPS2, NPS4), all show the one counter of their socket.
func (o *opening) amdSockets(chips []chip) {
	c := chips[0] // the driver makes one
	seen := map[string]int{}
	var denied error
	labels, _ := filepath.Glob(filepath.Join(c.dir, "energy*_label"))
	for _, path := range sortedByNumber(labels) {
		label, err := o.label(path)
		if errors.Is(err, sensors.ErrPermission) {
			denied = err
		}
		node, ok := parseSocket(label)
		if err != nil || !ok {
			continue
		}
		socket := o.socketOf(node)
		id := fmt.Sprintf("package-%d", socket)
		file := strings.TrimSuffix(filepath.Base(path), "_label") + "_input"
		if first, again := seen[id]; again {
			o.supersede(sensors.CPU, fmt.Sprintf("esocket-%d", node),
				fmt.Sprintf("%s is NUMA node %d of %s, whose counter Esocket%d shows", label, node, id, first))
			continue
		}
		seen[id] = node
		o.add(&meter{Device: sensors.Device{
			ID: id, Index: socket, Name: "AMD EPYC socket", Vendor: "AMD",
			Component: sensors.CPU, Method: sensors.MethodCounter, Scope: sensors.ScopeDevice,
			Source: c.source(), ErrorBand: socketBand, Refresh: slack,
		}, chip: c, energy: o.number(c, file)})
	}
	if denied != nil { // the driver shows the labels to nobody else, either
		o.unreadable(&meter{Device: sensors.Device{ID: "package-0", Name: "AMD EPYC", Component: sensors.CPU}, chip: c}, denied)
	}
}

// label reads a label, by a file that tells why it cannot be read.
func (o *opening) label(path string) (string, error) {
	f := o.file(func() (string, error) { return path, nil }, text)
	defer func() { _ = f.Close() }()
	b, err := f.Text(o.now())
	return strings.TrimSpace(string(b)), err
}

// parseSocket returns the number in a label such as "Esocket1".
func parseSocket(label string) (int, bool) {
	digits, ok := strings.CutPrefix(label, "Esocket")
	if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n < 1<<16
}

// socketOf returns the socket that a NUMA node is in. Where the kernel does not
// tell, they are taken for one.
func (o *opening) socketOf(node int) int {
	cpus, _ := readText(filepath.Join(o.sys, fmt.Sprintf("devices/system/node/node%d/cpulist", node)))
	first, ok := firstCPU(cpus)
	if !ok {
		return node
	}
	s, _ := readText(filepath.Join(o.sys, fmt.Sprintf("devices/system/cpu/cpu%d/topology/physical_package_id", first)))
	if n, err := strconv.Atoi(s); err == nil && n >= 0 {
		return n
	}
	return node
}

// firstCPU returns the first number of a list such as "8-15,24-31".
func firstCPU(list string) (int, bool) {
	end := strings.IndexFunc(list, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(list)
	}
	n, err := strconv.Atoi(list[:end])
	return n, err == nil
}
