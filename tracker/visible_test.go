package tracker

import (
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

// environment has "NAME=value" of which the value can be empty.
func environment(variables ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, variable := range variables {
			if value, ok := strings.CutPrefix(variable, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

// Machines to look at. Each begins with a device that is no GPU.
var (
	equalGPUs = machine(nvidiaGPU("GPU-aa11", "H100", 0), nvidiaGPU("GPU-aa22", "H100", 1), nvidiaGPU("GPU-bb33", "H100", 2))
	mixedGPUs = machine(nvidiaGPU("GPU-aa11", "T4", 0), nvidiaGPU("GPU-aa22", "H100", 1))
	// The GPU with index 1 could not be opened.
	gappedGPUs = machine(nvidiaGPU("GPU-aa11", "H100", 0), nvidiaGPU("GPU-bb33", "H100", 2))
	// The second GPU is divided in three instances, and an eighth of it is not.
	dividedGPUs = machine(nvidiaGPU("GPU-aa11", "A100", 0), nvidiaGPU("GPU-bb22", "A100", 1,
		sensors.Part{ID: "MIG-1111", Share: 0.5}, sensors.Part{ID: "MIG-2222", Share: 0.25}, sensors.Part{ID: "MIG-3333", Share: 0.125}))
	// Drivers before R470 named instances otherwise.
	oldDivided = machine(nvidiaGPU("GPU-aa11", "A100", 0,
		sensors.Part{ID: "MIG-GPU-aa11/1/0", Share: 0.5}, sensors.Part{ID: "MIG-GPU-aa11/2/0", Share: 0.25}))
	oneInstance = machine(nvidiaGPU("GPU-aa11", "A100", 0, sensors.Part{ID: "MIG-1111", Share: 0.5}))
	// The kernel's order is not that of the devices.
	amdGPUs = machine(vendorGPU("amd", "GPU-cc11", 1), vendorGPU("amd", "GPU-dd22", 0), vendorGPU("AMD", "GPU-ee33", 2))
	pciGPUs = machine(vendorGPU("amd", "0000:03:00.0", 0), vendorGPU("amd", "0000:83:00.0", 1))
	arcGPUs = machine(vendorGPU("intel", "0000:03:00.0", 0), vendorGPU("intel", "0000:83:00.0", 1))
	anyGPUs = machine(nvidiaGPU("GPU-aa11", "H100", 0), nvidiaGPU("GPU-aa22", "H100", 1),
		vendorGPU("amd", "GPU-cc11", 0), vendorGPU("intel", "0000:83:00.0", 0), vendorGPU("other", "x", 0))
)

func machine(gpus ...sensors.Device) []sensors.Device {
	return append([]sensors.Device{{ID: "package-0", Component: sensors.CPU}}, gpus...)
}

func nvidiaGPU(id, name string, index int, parts ...sensors.Part) sensors.Device {
	return sensors.Device{ID: id, Name: name, Vendor: "nvidia", Component: sensors.GPU, Index: index, Parts: parts}
}

func vendorGPU(vendor, id string, index int) sensors.Device {
	return sensors.Device{ID: id, Vendor: vendor, Component: sensors.GPU, Index: index}
}

// shares is what is visible, by the places in the machine.
type shares map[int]float64

func TestVisibleGPUs(t *testing.T) {
	unknown := shares(nil)
	for _, test := range []struct {
		name    string
		devices []sensors.Device
		env     string // separated by spaces, "_" for a space
		want    shares
	}{
		{"nothing is said", equalGPUs, "", shares{1: 1, 2: 1, 3: 1}},
		{"no GPU", machine(), "CUDA_VISIBLE_DEVICES=0", shares{}},

		{"none", equalGPUs, "CUDA_VISIBLE_DEVICES=", shares{}},
		{"none, as many write it", equalGPUs, "CUDA_VISIBLE_DEVICES=-1", shares{}},
		{"an index", equalGPUs, "CUDA_VISIBLE_DEVICES=1", shares{2: 1}},
		{"some in any order", equalGPUs, "CUDA_VISIBLE_DEVICES=2,0", shares{1: 1, 3: 1}},
		{"spaces", equalGPUs, "CUDA_VISIBLE_DEVICES=_0,_2_", shares{1: 1, 3: 1}},
		{"the list ends at what means nothing", equalGPUs, "CUDA_VISIBLE_DEVICES=0,7,2", shares{1: 1}},
		{"the list ends at -1", equalGPUs, "CUDA_VISIBLE_DEVICES=0,2,-1,1", shares{1: 1, 3: 1}},
		{"the list ends at a word", equalGPUs, "CUDA_VISIBLE_DEVICES=0,NoDevFiles,2", shares{1: 1}},
		{"a UUID", equalGPUs, "CUDA_VISIBLE_DEVICES=GPU-bb33", shares{3: 1}},
		{"a UUID cut short", equalGPUs, "CUDA_VISIBLE_DEVICES=GPU-bb", shares{3: 1}},
		{"an ambiguous UUID is the first", equalGPUs, "CUDA_VISIBLE_DEVICES=GPU-aa", shares{1: 1}},
		{"a UUID of another machine", equalGPUs, "CUDA_VISIBLE_DEVICES=GPU-cc", shares{}},
		{"different GPUs in CUDA's order", mixedGPUs, "CUDA_VISIBLE_DEVICES=0", unknown},
		{"different GPUs in CUDA's order, by name", mixedGPUs, "CUDA_VISIBLE_DEVICES=0 CUDA_DEVICE_ORDER=FASTEST_FIRST", unknown},
		{"different GPUs in the bus's order", mixedGPUs, "CUDA_VISIBLE_DEVICES=0 CUDA_DEVICE_ORDER=PCI_BUS_ID", shares{1: 1}},
		{"different GPUs by UUID", mixedGPUs, "CUDA_VISIBLE_DEVICES=GPU-aa22", shares{2: 1}},
		{"different GPUs, none of them", mixedGPUs, "CUDA_VISIBLE_DEVICES=", shares{}},
		{"the index is the driver's", gappedGPUs, "CUDA_VISIBLE_DEVICES=2", shares{2: 1}},

		// CEEMS's documentation weighs an instance of 4 slices as one of 7.
		{"an instance is charged with its share", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-1111", shares{2: 0.5}},
		{"an instance cut short", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-22", shares{2: 0.25}},
		{"two instances of one GPU", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-2222,MIG-3333", shares{2: 0.375}},
		{"an instance twice", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-2222,MIG-2222", shares{2: 0.25}},
		{"an instance and a GPU", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-2222,0", shares{1: 1, 2: 0.25}},
		{"an instance of another machine", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-2222,MIG-9999,0", shares{2: 0.25}},
		{"an instance of GPUs that show none", equalGPUs, "CUDA_VISIBLE_DEVICES=MIG-aa11", unknown},
		{"a divided GPU as a whole is its first instance", dividedGPUs, "CUDA_VISIBLE_DEVICES=1", shares{2: 0.5}},
		{"all instances, where nothing is said", dividedGPUs, "", shares{1: 1, 2: 0.875}},
		{"the old name of an instance", oldDivided, "CUDA_VISIBLE_DEVICES=MIG-GPU-aa11/2/0", shares{1: 0.25}},
		{"the old name on a new driver", oneInstance, "CUDA_VISIBLE_DEVICES=MIG-GPU-aa11/2/0", shares{1: 0.5}},
		{"the old name on a new driver, one of three", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-GPU-bb22/2/0", unknown},
		{"the old name, another machine's", dividedGPUs, "CUDA_VISIBLE_DEVICES=MIG-GPU-zz/2/0,0", shares{}},

		{"a job of Slurm", equalGPUs, "SLURM_JOB_GPUS=0,2", shares{1: 1, 3: 1}},
		{"a range of Slurm", equalGPUs, "SLURM_JOB_GPUS=1-2", shares{2: 1, 3: 1}},
		{"a step of Slurm", equalGPUs, "SLURM_JOB_GPUS=0,2 SLURM_STEP_GPUS=2", shares{3: 1}},
		{"CUDA knows better than Slurm", equalGPUs, "SLURM_JOB_GPUS=0 CUDA_VISIBLE_DEVICES=1", shares{2: 1}},
		{"Slurm's numbers of what the driver numbers anew", equalGPUs, "SLURM_JOB_GPUS=2,4,5", shares{1: 1, 2: 1, 3: 1}},
		{"Slurm's numbers of instances", dividedGPUs, "SLURM_JOB_GPUS=0", shares{1: 1, 2: 0.875}},
		{"no range", equalGPUs, "SLURM_JOB_GPUS=0-9999999999999", shares{1: 1, 2: 1, 3: 1}},

		{"ROCm, nothing is said", amdGPUs, "", shares{1: 1, 2: 1, 3: 1}},
		{"ROCm, an index", amdGPUs, "ROCR_VISIBLE_DEVICES=0", shares{2: 1}},
		{"ROCm, a UUID", amdGPUs, "ROCR_VISIBLE_DEVICES=GPU-ee33,1", shares{1: 1, 3: 1}},
		{"ROCm, none", amdGPUs, "ROCR_VISIBLE_DEVICES=", shares{}},
		{"ROCm, the list ends", amdGPUs, "ROCR_VISIBLE_DEVICES=2,9,0", shares{3: 1}},
		{"ROCm, UUIDs of devices that have none", pciGPUs, "ROCR_VISIBLE_DEVICES=GPU-ee33", unknown},
		{"HIP, an index in the kernel's order", amdGPUs, "HIP_VISIBLE_DEVICES=1", shares{1: 1}},
		{"HIP counts what ROCm leaves", amdGPUs, "ROCR_VISIBLE_DEVICES=2,1 HIP_VISIBLE_DEVICES=1", shares{1: 1}},
		{"HIP, beyond what ROCm leaves", amdGPUs, "ROCR_VISIBLE_DEVICES=2,1 HIP_VISIBLE_DEVICES=0,2,1", shares{3: 1}},
		{"HIP, none", amdGPUs, "HIP_VISIBLE_DEVICES=-1", shares{}},
		{"HIP, not set", amdGPUs, "HIP_VISIBLE_DEVICES=", shares{1: 1, 2: 1, 3: 1}},
		{"HIP takes CUDA's", amdGPUs, "CUDA_VISIBLE_DEVICES=0", shares{2: 1}},
		{"HIP prefers its own to CUDA's", amdGPUs, "CUDA_VISIBLE_DEVICES=0 HIP_VISIBLE_DEVICES=2", shares{3: 1}},

		{"Level Zero", arcGPUs, "ZE_AFFINITY_MASK=1", shares{2: 1}},
		{"Level Zero, all", arcGPUs, "ZE_AFFINITY_MASK=", shares{1: 1, 2: 1}},
		{"Level Zero, tiles", arcGPUs, "ZE_AFFINITY_MASK=0.0,0.1", unknown},
		{"Level Zero, more than devices", arcGPUs, "ZE_AFFINITY_MASK=0,3", unknown},

		{"to each its own", anyGPUs, "CUDA_VISIBLE_DEVICES=1", shares{2: 1, 3: 1, 4: 1, 5: 1}},
		{"to each its own, none", anyGPUs, "CUDA_VISIBLE_DEVICES= ROCR_VISIBLE_DEVICES=", shares{4: 1, 5: 1}},

		{"outside a container", equalGPUs, "NVIDIA_VISIBLE_DEVICES=0", shares{1: 1, 2: 1, 3: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkVisible(t, visibility{devices: test.devices, lookup: variables(test.env)}, test.want)
		})
	}
}

func variables(env string) func(string) (string, bool) {
	list := strings.Fields(env)
	for i := range list {
		name, value, _ := strings.Cut(list[i], "=")
		if !strings.HasPrefix(value, "/") && strings.HasPrefix(name, "CUDA_VISIBLE") {
			value = strings.ReplaceAll(value, "_", " ")
		}
		list[i] = name + "=" + value
	}
	return environment(list...)
}

func checkVisible(t *testing.T, v visibility, want shares) {
	t.Helper()
	visible, known := v.gpus()
	if known != (want != nil) {
		t.Fatalf("known: %v, want %v", known, want)
	}
	maps.DeleteFunc(visible, func(_ int, part float64) bool { return part == 0 })
	if !maps.Equal(visible, want) {
		t.Errorf("%v, want %v", visible, want)
	}
}

// In a container the driver shows what the container was started with, by numbers
// of its own; a privileged one is shown everything.
func TestVisibleGPUsInContainer(t *testing.T) {
	for _, test := range []struct {
		name    string
		devices []sensors.Device
		env     string
		want    shares
	}{
		{"nothing is said", equalGPUs, "", shares{1: 1, 2: 1, 3: 1}},
		{"all", equalGPUs, "NVIDIA_VISIBLE_DEVICES=all", shares{1: 1, 2: 1, 3: 1}},
		{"none", equalGPUs, "NVIDIA_VISIBLE_DEVICES=none", shares{}},
		// CDI says void of every container, and Kubernetes may name a folder.
		{"void", equalGPUs, "NVIDIA_VISIBLE_DEVICES=void", shares{1: 1, 2: 1, 3: 1}},
		{"empty", equalGPUs, "NVIDIA_VISIBLE_DEVICES=", shares{1: 1, 2: 1, 3: 1}},
		{"a folder", equalGPUs, "NVIDIA_VISIBLE_DEVICES=/var/run/nvidia-container-devices", shares{1: 1, 2: 1, 3: 1}},
		{"an index", equalGPUs, "NVIDIA_VISIBLE_DEVICES=1", shares{2: 1}},
		{"UUIDs", equalGPUs, "NVIDIA_VISIBLE_DEVICES=GPU-aa11,GPU-bb33", shares{1: 1, 3: 1}},
		{"CDI's names", equalGPUs, "NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=0,runtime.nvidia.com/gpu=GPU-bb33", shares{1: 1, 3: 1}},
		{"numbers of the host", gappedGPUs, "NVIDIA_VISIBLE_DEVICES=4,5", shares{1: 1, 2: 1}},
		{"not all of the host's numbers fit", equalGPUs, "NVIDIA_VISIBLE_DEVICES=0,3,5", shares{1: 1, 2: 1, 3: 1}},
		{"an instance by place", dividedGPUs, "NVIDIA_VISIBLE_DEVICES=1:1", shares{2: 0.25}},
		{"instances by place", dividedGPUs, "NVIDIA_VISIBLE_DEVICES=1:0,1:2", shares{2: 0.625}},
		{"an instance by UUID", dividedGPUs, "NVIDIA_VISIBLE_DEVICES=MIG-3333,MIG-3333", shares{2: 0.125}},
		{"an instance numbered anew", oneInstance, "NVIDIA_VISIBLE_DEVICES=3:5", shares{1: 0.5}},
		{"a place that is none", dividedGPUs, "NVIDIA_VISIBLE_DEVICES=1:x", shares{1: 1, 2: 0.875}},
		{"CUDA chooses among them", equalGPUs, "NVIDIA_VISIBLE_DEVICES=0,1 CUDA_VISIBLE_DEVICES=1,2", shares{2: 1}},
		{"CUDA chooses an instance of them", dividedGPUs, "NVIDIA_VISIBLE_DEVICES=1 CUDA_VISIBLE_DEVICES=MIG-2222", shares{2: 0.25}},
		{"other GPUs are none of its business", anyGPUs, "NVIDIA_VISIBLE_DEVICES=none", shares{3: 1, 4: 1, 5: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkVisible(t, visibility{devices: test.devices, lookup: variables(test.env), container: true}, test.want)
		})
	}
}

func TestInContainer(t *testing.T) {
	for _, variable := range []string{"container=podman", "KUBERNETES_SERVICE_HOST=10.0.0.1"} {
		if !inContainer(environment(variable)) {
			t.Errorf("not in a container with %s", variable)
		}
		// The variables lead to the list of the container.
		visible, known := visibleGPUs(equalGPUs, environment(variable, "NVIDIA_VISIBLE_DEVICES=1"))
		if !known || !maps.Equal(visible, map[int]float64{2: 1}) {
			t.Errorf("%s: %v, %v", variable, visible, known)
		}
	}
}

func FuzzVisibleGPUs(f *testing.F) {
	for _, list := range []string{"", "0,1", "-1", "GPU-aa,MIG-1111", "MIG-GPU-aa11/1/0", "1:1,MIG-", "0-3,7-5", "a=b=c", ":", "MIG-GPU-/", "0.1"} {
		f.Add(list, list, list)
	}
	machines := [][]sensors.Device{equalGPUs, mixedGPUs, dividedGPUs, oldDivided, amdGPUs, arcGPUs, anyGPUs, machine()}
	f.Fuzz(func(t *testing.T, first, second, third string) {
		env := environment("CUDA_VISIBLE_DEVICES="+first, "NVIDIA_VISIBLE_DEVICES="+second,
			"ROCR_VISIBLE_DEVICES="+first, "HIP_VISIBLE_DEVICES="+second, "ZE_AFFINITY_MASK="+third)
		slurm := environment("SLURM_JOB_GPUS=" + third)
		for _, devices := range machines {
			for _, lookup := range []func(string) (string, bool){env, slurm} {
				visible, _ := visibility{devices: devices, lookup: lookup, container: true}.gpus()
				for i, part := range visible {
					if i < 0 || i >= len(devices) || devices[i].Component != sensors.GPU || !(part >= 0 && part <= 1) || math.IsNaN(part) {
						t.Errorf("%v of device %d", part, i)
					}
				}
			}
		}
	})
}
