package hwmon

import "github.com/wattspan/wattspan/sensors"

// The names by which drivers call their chips.
const (
	amdGPU    = "amdgpu"
	intelI915 = "i915"
	intelXe   = "xe"
	acpiMeter = "power_meter"
	amdEnergy = "amd_energy"
	ina3221   = "ina3221"
	inaIIO    = "ina3221x" // of NVIDIA's own driver, below the class of industrial I/O
)

// rule says what is read of the chips of one kind.
type rule struct {
	chips []string // their names
	// open is given all of them at once, as one can contain another: it adds a
	// meter for each device of a disjoint cut, and an omission for what it
	// leaves out.
	open func(o *opening, chips []chip)
	// supports is what docs/HARDWARE.md says of it.
	supports []sensors.Support
}

// rules are all the chips that this package knows. To add one, name it here and
// write a function that describes its devices as meters; a chip with one power in
// microwatts or one energy in microjoules takes ten lines. What a driver shows is
// in its source, and in the kernel's Documentation/hwmon.
var rules = []rule{
	{[]string{amdGPU}, (*opening).amdGPUs, []sensors.Support{
		{
			Hardware: "AMD Instinct MI300 series and later (gpu_metrics 1.4 to 1.8)", Component: sensors.GPU,
			Source: "/sys/class/hwmon/hwmon*/device/gpu_metrics, energy_accumulator", Unit: "2⁻¹⁶ J",
			Method: sensors.MethodCounter, ErrorBand: 0.05, Privileges: "every user", Tested: "simulated",
		},
		{
			Hardware: "AMD GPUs with the amdgpu driver", Component: sensors.GPU,
			Source: "/sys/class/hwmon/hwmon*/power1_average", Unit: "µW",
			Method: sensors.MethodPowerAverage, ErrorBand: powerBand(sensors.MethodPowerAverage), Privileges: "every user", Tested: "simulated",
		},
		{
			Hardware: "AMD GPUs with the amdgpu driver, without an averaged power", Component: sensors.GPU,
			Source: "/sys/class/hwmon/hwmon*/power1_input", Unit: "µW",
			Method: sensors.MethodPower, ErrorBand: powerBand(sensors.MethodPower), Privileges: "every user", Tested: "simulated",
		},
	}},
	{[]string{intelI915, intelXe}, (*opening).intelGPUs, []sensors.Support{
		{
			Hardware: "Intel discrete GPUs (i915 since Linux 6.2)", Component: sensors.GPU,
			Source: "/sys/class/hwmon/hwmon*/energy1_input", Unit: "µJ",
			Method: sensors.MethodCounter, ErrorBand: i915Band, Privileges: "every user", Tested: "simulated",
		},
		{
			Hardware: "Intel discrete GPUs with the xe driver", Component: sensors.GPU,
			Source: "/sys/class/hwmon/hwmon*/energy1_input (card), else energy2_input (package)", Unit: "µJ",
			Method: sensors.MethodCounter, ErrorBand: cardBand, Privileges: "every user", Tested: "simulated",
		},
	}},
	{[]string{acpiMeter}, (*opening).acpiMeters, []sensors.Support{
		{
			Hardware: "servers with an ACPI power meter (acpi_power_meter)", Component: sensors.Node,
			Source: "/sys/class/hwmon/hwmon*/device/power1_average", Unit: "µW",
			Method: sensors.MethodPowerAverage, ErrorBand: nodeBand, Privileges: "every user", Tested: "simulated",
		},
		{
			Hardware: "servers with an ACPI power meter that shows an instantaneous power", Component: sensors.Node,
			Source: "/sys/class/hwmon/hwmon*/device/power1_input", Unit: "µW",
			Method: sensors.MethodPower, ErrorBand: powerBand(sensors.MethodPower), Privileges: "every user", Tested: "simulated",
		},
		{
			Hardware: "NVIDIA Grace and Grace Hopper", Component: sensors.CPU,
			Source: `/sys/class/hwmon/hwmon*/device/power1_average, "Grace Power Socket" in power1_oem_info`, Unit: "µW",
			Method: sensors.MethodPowerAverage, ErrorBand: powerBand(sensors.MethodPowerAverage), Privileges: "every user", Tested: "simulated",
		},
	}},
	{[]string{amdEnergy}, (*opening).amdSockets, []sensors.Support{{
		Hardware: "AMD EPYC with the amd_energy driver (Linux 5.8 to 5.12, and out of tree)", Component: sensors.CPU,
		Source: "/sys/class/hwmon/hwmon*/energy*_input, Esocket", Unit: "µJ",
		Method: sensors.MethodCounter, ErrorBand: socketBand, Privileges: "root (0440)", Tested: "simulated",
	}}},
	{[]string{ina3221, inaIIO}, (*opening).jetson, []sensors.Support{
		jetsonSupport(sensors.Node, "the module's input (VDD_IN)"),
		jetsonSupport(sensors.GPU, "the rail of the GPU"),
		jetsonSupport(sensors.CPU, "the rails of the processor"),
		jetsonSupport(sensors.Memory, "the rail of the memory"),
	}},
}

func jetsonSupport(c sensors.Component, what string) sensors.Support {
	return sensors.Support{
		Hardware: "NVIDIA Jetson (INA3221): " + what, Component: c,
		Source: "/sys/class/hwmon/hwmon*/in*_input × curr*_input, or iio:device*/in_power*_input", Unit: "mV × mA, or mW",
		Method: sensors.MethodPower, ErrorBand: powerBand(sensors.MethodPower), Privileges: "every user", Tested: "simulated",
	}
}

func supports() []sensors.Support {
	var all []sensors.Support
	for _, r := range rules {
		all = append(all, r.supports...)
	}
	return all
}
