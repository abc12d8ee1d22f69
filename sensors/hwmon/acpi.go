package hwmon

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// nodeBand is the error of a meter of the whole machine.
const nodeBand = 0.05

// graceRail is what the firmware of NVIDIA Grace calls a meter.
var graceRail = regexp.MustCompile(`^(Grace|CPU|SysIO|Module) Power Socket ([0-9]{1,3})$`)

// acpiMeters reads the power meters of ACPI: the sockets of a Grace, else the
// machine.
func (o *opening) acpiMeters(chips []chip) {
	sockets := map[string]map[string]chip{}
	var order []string
	var meters []chip
	for _, c := range chips {
		if rail := graceRail.FindStringSubmatch(c.text("power1_oem_info")); rail != nil {
			socket := rail[2]
			if sockets[socket] == nil {
				sockets[socket] = map[string]chip{}
				order = append(order, socket)
			}
			sockets[socket][rail[1]] = c
			continue
		}
		meters = append(meters, c)
	}
	slices.SortFunc(order, byNumber)
	for _, socket := range order {
		o.graceSocket(socket, sockets[socket])
	}
	o.machineMeter(meters)
}

// graceSocket reads one socket of a Grace. Its meters stand in each other: the
// module contains the GPU and the socket; the socket contains its memory, the rail
// of the cores (CPU) and that of the rest (SysIO).
func (o *opening) graceSocket(socket string, meters map[string]chip) {
	id, module := "package-"+socket, "module-"+socket
	m := &meter{Device: sensors.Device{
		ID: id, Name: "NVIDIA Grace", Vendor: "NVIDIA", Component: sensors.CPU, Scope: sensors.ScopeDevice,
	}}
	var cut []chip
	switch {
	case meters["Grace"].name != "":
		cut = []chip{meters["Grace"]}
		m.Includes = []sensors.Component{sensors.Memory}
		if c, ok := meters["Module"]; ok {
			o.supersede(sensors.CPU, module, fmt.Sprintf("%s contains the GPU, which is read by itself, and %s", c.text("power1_oem_info"), id))
		}
		for _, part := range []string{"CPU", "SysIO"} {
			if c, ok := meters[part]; ok {
				o.supersede(sensors.CPU, strings.ToLower(part)+"-"+socket, fmt.Sprintf("%s is a part of %s", c.text("power1_oem_info"), id))
			}
		}
	case meters["CPU"].name != "":
		cut = []chip{meters["CPU"]}
		m.Note = "the rails of the socket, without its memory"
		if c, ok := meters["SysIO"]; ok {
			cut = append(cut, c)
		}
		if c, ok := meters["Module"]; ok {
			o.supersede(sensors.CPU, module, fmt.Sprintf("%s contains the GPU, which is read by itself, and %s", c.text("power1_oem_info"), id))
		}
	case meters["Module"].name != "":
		// Where the GPU is read by a better source, this is not: it would be
		// counted twice.
		cut = []chip{meters["Module"]}
		m.ID, m.Scope = module, sensors.ScopeModule
		m.Includes = []sensors.Component{sensors.GPU, sensors.Memory}
		m.Note = "the module: the GPU and all memory are in the figure"
	default:
		o.supersede(sensors.CPU, "sysio-"+socket, "the rail of a socket's interfaces says nothing of the socket")
		return
	}
	_, _ = fmt.Sscan(socket, &m.Index)
	o.average(m, cut)
}

// machineMeter reads the meter of the machine, where it can be told which one that
// is.
func (o *opening) machineMeter(chips []chip) {
	meters := slices.DeleteFunc(chips, func(c chip) bool { return c.uint("power1_is_battery") == 1 })
	if len(meters) > 1 {
		if whole := slices.DeleteFunc(slices.Clone(meters), func(c chip) bool { return !c.measuresAll() }); len(whole) == 1 {
			for _, c := range meters {
				if c.dir != whole[0].dir {
					o.supersede(sensors.Node, c.acpiID(), "it measures a part of what "+whole[0].acpiID()+" measures")
				}
			}
			meters = whole
		}
	}
	switch len(meters) {
	case 0:
		return
	case 1:
	default:
		var names []string
		for _, c := range meters {
			names = append(names, strings.TrimSpace(c.acpiID()+" "+c.text("power1_oem_info")))
		}
		o.omitted = append(o.omitted, sensors.Omission{
			Source: source, Component: sensors.Node, Status: sensors.Unreadable,
			Reason: fmt.Sprintf("of %d ACPI power meters (%s) none says that it measures the machine: they may be its power supplies, to be added, or parts of each other",
				len(meters), strings.Join(names, ", ")),
			Remedy: "grep . /sys/bus/acpi/devices/ACPI000D:*/power1_*_info; ls /sys/bus/acpi/devices/ACPI000D:*/measures",
			Err:    fmt.Errorf("hwmon: %w", sensors.ErrUnsupported),
		})
		return
	}
	c := meters[0]
	m := &meter{Device: sensors.Device{
		ID: c.acpiID(), Name: "ACPI power meter",
		Component: sensors.Node, Scope: sensors.ScopeNode,
	}, bound: nodeBound}
	if model := c.text("power1_model_number"); model != "" {
		m.Name += " " + model
	}
	if measured := c.measures(); len(measured) > 0 && !c.measuresAll() {
		m.Note = "the firmware says that it measures " + strings.Join(measured, ", ")
	}
	o.average(m, []chip{c})
}

// average makes a meter of the power of ACPI meters.
func (o *opening) average(m *meter, cut []chip) {
	m.chip = cut[0]
	m.Source = m.chip.source()
	m.Refresh = time.Second
	m.byPower = sensors.MethodPowerAverage
	for _, c := range cut {
		file := "power1_average"
		if !c.has(file) && c.has("power1_input") {
			file, m.byPower = "power1_input", sensors.MethodPower
		}
		m.rails = append(m.rails, rail{file: o.number(c, file), scale: microwatts})
	}
	if ms := m.chip.uint("power1_average_interval"); m.byPower == sensors.MethodPowerAverage && ms > 0 && ms <= uint64(sensors.MaxGap/time.Millisecond) {
		m.averaging = time.Duration(ms) * time.Millisecond
		m.Refresh = m.averaging
	}
	m.Method, m.ErrorBand = m.byPower, powerBand(m.byPower)
	if m.Component == sensors.Node && m.byPower == sensors.MethodPowerAverage {
		m.ErrorBand = nodeBand
	}
	o.add(m)
}

// acpiID is the identity of an ACPI meter: "acpi-ACPI000D:00".
func (c chip) acpiID() string { return "acpi-" + filepath.Base(c.device) }

// measures lists the devices that the firmware says an ACPI meter measures.
func (c chip) measures() []string {
	entries, _ := os.ReadDir(filepath.Join(c.device, "measures"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// measuresAll reports whether the firmware says that an ACPI meter measures the
// machine: the root of its devices, or the bus that has all others.
func (c chip) measuresAll() bool {
	return slices.ContainsFunc(c.measures(), func(name string) bool {
		return strings.HasPrefix(name, "LNXSYSTM:") || strings.HasPrefix(name, "LNXSYBUS:")
	})
}

// unloadedMeter says that the firmware has a power meter of which no driver is
// loaded.
func (o *opening) unloadedMeter() {
	meters, _ := filepath.Glob(filepath.Join(o.sys, "bus/acpi/devices/ACPI000D:*"))
	if _, err := os.Stat(filepath.Join(o.sys, "module/acpi_power_meter")); len(meters) == 0 || err == nil {
		return
	}
	o.omitted = append(o.omitted, sensors.Omission{
		Source: source, Component: sensors.Node, Status: sensors.Unreadable,
		Reason: "the firmware has a power meter of which the driver is not loaded",
		Remedy: "sudo modprobe acpi_power_meter",
		Err:    fmt.Errorf("hwmon: %w", sensors.ErrUnsupported),
	})
}
