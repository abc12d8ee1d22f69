package host

import (
	"context"
	"strconv"
	"strings"

	gopsutil "github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/mem"
	"golang.org/x/sys/windows/registry"

	"github.com/wattspan/wattspan/sensors"
)

// describe takes the names from the registry: gopsutil asks WMI for them, which
// takes up to a second. The system does not tell a laptop from a desktop at a
// price worth paying.
func describe(ctx context.Context, _ sensors.Roots) Machine {
	const hardware = `HARDWARE\DESCRIPTION\System\`
	var m Machine
	m.Model = value(hardware+`CentralProcessor\0`, "ProcessorNameString")
	m.Vendor = vendors[value(hardware+`CentralProcessor\0`, "VendorIdentifier")]
	m.Family, m.ModelNumber = identifier(value(hardware+`CentralProcessor\0`, "Identifier"))
	fw := firmware{
		vendor:  value(hardware+"BIOS", "SystemManufacturer"),
		product: value(hardware+"BIOS", "SystemProductName"),
	}
	m.Hypervisor = fw.hypervisor()
	m.Threads, _ = gopsutil.CountsWithContext(ctx, true)
	m.Cores, _ = gopsutil.CountsWithContext(ctx, false)
	if v, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		m.Memory = v.Total
	}
	return m
}

func value(path, name string) string {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE)
	if err != nil {
		return ""
	}
	defer k.Close()
	s, _, _ := k.GetStringValue(name)
	return strings.TrimSpace(s)
}

// identifier reads "Intel64 Family 6 Model 151 Stepping 2".
func identifier(s string) (family, model int) {
	words := strings.Fields(s)
	for i := 1; i < len(words); i++ {
		switch n, _ := strconv.Atoi(words[i]); words[i-1] {
		case "Family":
			family = n
		case "Model":
			model = n
		}
	}
	return family, model
}
