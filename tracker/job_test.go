package tracker

import (
	"maps"
	"slices"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

func TestVisibleGPUs(t *testing.T) {
	gpu := func(id, name string, index int) sensors.Device {
		return sensors.Device{ID: id, Name: name, Component: sensors.GPU, Index: index}
	}
	cpu := sensors.Device{ID: "package-0", Component: sensors.CPU}
	equal := []sensors.Device{cpu, gpu("GPU-aa11", "H100", 0), gpu("GPU-aa22", "H100", 1), gpu("GPU-bb33", "H100", 2)}
	mixed := []sensors.Device{gpu("GPU-aa11", "T4", 0), gpu("GPU-aa22", "H100", 1)}
	// The GPU with index 1 could not be opened.
	gapped := []sensors.Device{gpu("GPU-aa11", "H100", 0), gpu("GPU-bb33", "H100", 2)}
	const unset = "unset"
	for _, test := range []struct {
		name    string
		devices []sensors.Device
		list    string
		order   string
		want    []int // places in devices
		unknown bool
	}{
		{"nothing is said", equal, unset, "", []int{1, 2, 3}, false},
		{"none", equal, "", "", nil, false},
		{"none, as many write it", equal, "-1", "", nil, false},
		{"an index", equal, "1", "", []int{2}, false},
		{"some in any order", equal, "2,0", "", []int{1, 3}, false},
		{"spaces", equal, " 0, 2 ", "", []int{1, 3}, false},
		{"the list ends at what means nothing", equal, "0,7,2", "", []int{1}, false},
		{"the list ends at a word", equal, "0,NoDevFiles,2", "", []int{1}, false},
		{"a UUID", equal, "GPU-bb33", "", []int{3}, false},
		{"a UUID cut short", equal, "GPU-bb", "", []int{3}, false},
		{"an ambiguous UUID is the first", equal, "GPU-aa", "", []int{1}, false},
		{"a UUID of another machine", equal, "GPU-cc", "", nil, false},
		{"an instance of a GPU", equal, "MIG-aa11", "", nil, true},
		{"different GPUs in CUDA's order", mixed, "0", "", nil, true},
		{"different GPUs in the bus's order", mixed, "0", "PCI_BUS_ID", []int{0}, false},
		{"different GPUs by UUID", mixed, "GPU-aa22", "", []int{1}, false},
		{"the index is the driver's", gapped, "2", "", []int{1}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			visible, known := visibleGPUs(test.devices, func(name string) (string, bool) {
				switch name {
				case "CUDA_VISIBLE_DEVICES":
					return test.list, test.list != unset
				case "CUDA_DEVICE_ORDER":
					return test.order, test.order != ""
				}
				return "", false
			})
			var got []int
			for i, v := range visible {
				if v {
					got = append(got, i)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) || known == test.unknown {
				t.Errorf("%v, known %v; want %v", slices.Sorted(maps.Keys(visible)), known, test.want)
			}
		})
	}
}
