package rapl

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// processor is what /proc/cpuinfo says of the first one; the others of a
// machine are like it.
type processor struct {
	model, vendor string
	virtual       bool // a hypervisor shows it
}

func readProcessor(proc string) processor {
	f, err := os.Open(filepath.Join(proc, "cpuinfo"))
	if err != nil {
		return processor{}
	}
	defer f.Close()
	return parseProcessor(f)
}

func parseProcessor(r io.Reader) processor {
	var p processor
	lines := bufio.NewScanner(r)
	for lines.Scan() && lines.Text() != "" {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			p.model = value
		case "vendor_id":
			p.vendor = vendorName(value)
		case "flags":
			p.virtual = slices.Contains(strings.Fields(value), "hypervisor")
		}
	}
	return p
}

// vendorName turns what CPUID says into what people say.
func vendorName(id string) string {
	switch id {
	case "GenuineIntel":
		return "Intel"
	case "AuthenticAMD":
		return "AMD"
	case "HygonGenuine":
		return "Hygon"
	default:
		return id
	}
}
