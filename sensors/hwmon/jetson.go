package hwmon

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// supply is what a rail of a Jetson board feeds.
type supply int

const (
	feedsModule supply = iota + 1 // all of it
	feedsGPU
	feedsCPU
	feedsChip // the rest of the chip, and its accelerators of vision
	feedsMemory
	feedsBoth // GPU and processor
)

// jetsonRails are the rails by the names that device trees give them. Rails that
// are not here feed the board, or contain others: VIN_SYS_5V0 of an AGX Orin has
// the memory's in it.
var jetsonRails = map[string]supply{
	"VDD_IN": feedsModule, "POM_5V_IN": feedsModule,

	"VDD_CPU_GPU_CV": feedsBoth, "VDD_CPU_GPU": feedsBoth, // Xavier NX, Orin NX and Nano

	"GPU": feedsGPU, "VDD_GPU": feedsGPU, "VDD_SYS_GPU": feedsGPU, "POM_5V_GPU": feedsGPU,
	"VDD_GPU_SOC": feedsGPU, // AGX Orin
	"CPU":         feedsCPU, "VDD_CPU": feedsCPU, "VDD_SYS_CPU": feedsCPU, "POM_5V_CPU": feedsCPU,
	"VDD_CPU_CV": feedsCPU, "VDD_CPU_SOC_MSS": feedsCPU,
	"SOC": feedsChip, "VDD_SOC": feedsChip, "VDD_SYS_SOC": feedsChip, "CV": feedsChip, "VDD_CV": feedsChip,
	"VDDRQ": feedsMemory, "VDD_SYS_DDR": feedsMemory, "VDDQ_VDD2_1V8AO": feedsMemory,
}

// jetsonRail is a channel of an INA3221, whose label says what it feeds.
type jetsonRail struct {
	chip    chip
	channel string // as the files have it
	label   string
}

// jetson reads the rails of a Jetson board. Channels of an INA3221 are 1 to 3 of
// in*_label: in4_input to in6_input are the voltages across the shunts, and
// in7_input their sum. The files of NVIDIA's own driver number them from 0, and
// have the power in mW.
func (o *opening) jetson(chips []chip) {
	feeds := map[supply][]jetsonRail{}
	for _, c := range chips {
		for i := range 3 {
			r := jetsonRail{chip: c, channel: fmt.Sprint(i)}
			if c.name == ina3221 {
				r.channel = fmt.Sprint(i + 1)
				r.label = c.text("in" + r.channel + "_label")
			} else {
				r.label = c.text("rail_name_" + r.channel)
			}
			if s, ok := jetsonRails[strings.ToUpper(r.label)]; ok {
				feeds[s] = append(feeds[s], r)
			}
		}
	}
	if len(feeds) == 0 {
		return
	}
	const notTheBoard = "the module, without the board that carries it"
	o.jetsonMeter(sensors.Device{ID: "jetson-module", Component: sensors.Node, Scope: sensors.ScopeNode, Note: notTheBoard}, feeds[feedsModule])
	if both := feeds[feedsBoth]; len(both) > 0 {
		o.jetsonMeter(sensors.Device{
			ID: "jetson-gpu", Component: sensors.GPU, Scope: sensors.ScopeModule, Includes: []sensors.Component{sensors.CPU},
		}, slices.Concat(both, feeds[feedsChip]))
	} else {
		o.jetsonMeter(sensors.Device{ID: "jetson-gpu", Component: sensors.GPU, Scope: sensors.ScopeDevice}, feeds[feedsGPU])
		if cpu := feeds[feedsCPU]; len(cpu) > 0 {
			o.jetsonMeter(sensors.Device{ID: "package-0", Component: sensors.CPU, Scope: sensors.ScopeDevice}, slices.Concat(cpu, feeds[feedsChip]))
		}
	}
	o.jetsonMeter(sensors.Device{ID: "dram-0", Component: sensors.Memory, Scope: sensors.ScopeDevice}, feeds[feedsMemory])
}

// jetsonMeter adds up rails that feed one device.
func (o *opening) jetsonMeter(d sensors.Device, rails []jetsonRail) {
	if len(rails) == 0 {
		return
	}
	m := &meter{Device: d, chip: rails[0].chip, byPower: sensors.MethodPower}
	var labels []string
	for _, r := range rails {
		labels = append(labels, r.label)
		if r.chip.name == ina3221 {
			m.rails = append(m.rails, rail{
				file:  o.number(r.chip, "in"+r.channel+"_input"),
				amps:  o.number(r.chip, "curr"+r.channel+"_input"),
				scale: millivoltMilliamps,
			})
		} else {
			m.rails = append(m.rails, rail{file: o.number(r.chip, "in_power"+r.channel+"_input"), scale: milliwatts})
		}
	}
	m.Name, m.Vendor = "Jetson "+strings.Join(labels, " + "), "NVIDIA"
	m.Method, m.ErrorBand, m.Refresh = m.byPower, powerBand(m.byPower), slack
	m.Source = m.chip.source()
	if d.Component != sensors.Node {
		m.Whole = true // there is one of each on a board
	}
	o.add(m)
}

// sortedByNumber orders paths of files with a number in their name.
func sortedByNumber(paths []string) []string {
	slices.SortFunc(paths, func(a, b string) int { return byNumber(filepath.Base(a), filepath.Base(b)) })
	return paths
}
