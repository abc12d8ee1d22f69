package tracker

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// visibleGPUs returns which part of each GPU among the devices the job can use, by
// what its environment says to the runtimes of the vendors: 1 of a whole GPU, the
// share of its instances of one in MIG mode, nothing of one that is hidden. It is
// not known where the environment speaks of what is not among the devices, or
// orders them as only the runtime knows.
func visibleGPUs(devices []sensors.Device, lookup func(string) (string, bool)) (visible map[int]float64, known bool) {
	return visibility{devices, lookup, inContainer(lookup)}.gpus()
}

// inContainer reports whether this process is in a container, where
// NVIDIA_VISIBLE_DEVICES means something.
func inContainer(lookup func(string) (string, bool)) bool {
	for _, name := range []string{"container", "KUBERNETES_SERVICE_HOST"} {
		if _, set := lookup(name); set {
			return true
		}
	}
	for _, file := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return !host.InitialPIDNamespace()
}

// visibility is what the visible GPUs are found from.
type visibility struct {
	devices   []sensors.Device
	lookup    func(string) (string, bool)
	container bool
}

func (v visibility) gpus() (visible map[int]float64, known bool) {
	vendors := map[string][]int{}
	for i, d := range v.devices {
		if d.Component == sensors.GPU {
			vendor := strings.ToLower(d.Vendor)
			if vendor == "" {
				vendor = "nvidia"
			}
			vendors[vendor] = append(vendors[vendor], i)
		}
	}
	visible = map[int]float64{}
	for vendor, gpus := range vendors {
		all := v.all(gpus)
		known := true
		switch vendor {
		case "nvidia":
			all, known = v.nvidia(gpus, all)
		case "amd":
			all, known = v.amd(gpus, all, len(vendors["nvidia"]) == 0)
		case "intel":
			all, known = v.intel(gpus, all)
		}
		if !known {
			return nil, false
		}
		for i, part := range all {
			visible[i] = part
		}
	}
	return visible, true
}

// all is everything that the driver shows.
func (v visibility) all(gpus []int) map[int]float64 {
	all := map[int]float64{}
	for _, i := range gpus {
		all[i] = v.whole(i)
	}
	return all
}

// whole is all that can be used of a device. Of one in MIG mode that is its
// instances: in a container, the driver shows those of the container.
func (v visibility) whole(i int) float64 {
	if len(v.devices[i].Parts) == 0 {
		return 1
	}
	var sum float64
	for _, part := range v.devices[i].Parts {
		sum += part.Share
	}
	return min(sum, 1)
}

// nvidia applies what CUDA, the container's runtime and Slurm were told.
func (v visibility) nvidia(gpus []int, all map[int]float64) (visible map[int]float64, known bool) {
	if list, set := v.lookup("NVIDIA_VISIBLE_DEVICES"); set && v.container {
		all = v.granted(gpus, all, list)
	}
	list, set := v.lookup("CUDA_VISIBLE_DEVICES")
	if !set {
		return v.slurm(gpus, all), true
	}
	visible, known = v.cuda(gpus, list)
	for i := range visible {
		visible[i] = min(visible[i], all[i])
	}
	return visible, known
}

// slurm returns the GPUs of the step, or of the job. Slurm numbers instances
// as it does GPUs, in an order of its own.
func (v visibility) slurm(gpus []int, all map[int]float64) map[int]float64 {
	divided := func(i int) bool { return len(v.devices[i].Parts) > 0 }
	for _, name := range []string{"SLURM_STEP_GPUS", "SLURM_JOB_GPUS"} {
		if list, set := v.lookup(name); set && !slices.ContainsFunc(gpus, divided) {
			return v.only(gpus, all, ranges(list))
		}
	}
	return all
}

// cuda returns what CUDA_VISIBLE_DEVICES shows, by the rules of the CUDA
// programming guide: indices, or UUIDs that can be cut short; the list ends at the
// first entry that means nothing. Of a GPU in MIG mode that is named as a whole,
// CUDA uses the first instance. Indices are not known where CUDA orders different
// GPUs by its own idea of their speed.
func (v visibility) cuda(gpus []int, list string) (visible map[int]float64, known bool) {
	visible = map[int]float64{}
	names, parts := map[string]bool{}, 0
	for _, i := range gpus {
		names[v.devices[i].Name] = true
		parts += len(v.devices[i].Parts)
	}
	used := map[string]bool{}
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		if strings.HasPrefix(entry, "MIG-") {
			i, part := v.instance(gpus, entry)
			switch {
			case i < 0 && parts == 0:
				return nil, false
			case i < 0:
				return visible, true
			case part < 0:
				return nil, false
			}
			if p := v.devices[i].Parts[part]; !used[p.ID] {
				used[p.ID] = true
				visible[i] += p.Share
			}
			continue
		}
		if _, err := strconv.Atoi(entry); err == nil {
			if order, _ := v.lookup("CUDA_DEVICE_ORDER"); len(names) > 1 && order != "PCI_BUS_ID" {
				return nil, false
			}
		}
		i := v.find(gpus, entry)
		if i < 0 {
			return visible, true
		}
		visible[i] = 1
		if first := v.devices[i].Parts; len(first) > 0 {
			visible[i] = first[0].Share
		}
	}
	return visible, true
}

// granted returns what a container was started with. Inside it NVML shows nothing
// else, and numbers anew what it shows; only a privileged container has them all,
// under the host's numbers. With the Container Device Interface the variable says
// void whatever the container was given.
func (v visibility) granted(gpus []int, all map[int]float64, list string) map[int]float64 {
	switch list = strings.TrimSpace(list); list {
	case "", "void", "all":
		return all
	case "none":
		return nil
	}
	return v.only(gpus, all, strings.Split(list, ","))
}

// only returns the entries of a list of what a batch system or a container's
// runtime has granted, and everything where one of them is not among the devices:
// the driver shows no more than was granted then, and numbers it anew.
func (v visibility) only(gpus []int, all map[int]float64, list []string) map[int]float64 {
	visible, used := map[int]float64{}, map[string]bool{}
	for _, entry := range list {
		// The name of a CDI device: nvidia.com/gpu=0.
		entry = strings.TrimSpace(entry[strings.LastIndexByte(entry, '=')+1:])
		i, part := v.instance(gpus, entry)
		if i < 0 {
			i = v.find(gpus, entry)
		}
		switch {
		case i < 0:
			return all
		case part < 0:
			visible[i] = v.whole(i)
		case !used[v.devices[i].Parts[part].ID]:
			used[v.devices[i].Parts[part].ID] = true
			visible[i] = min(visible[i]+v.devices[i].Parts[part].Share, 1)
		}
	}
	return visible
}

// find returns which device an index or the beginning of a UUID means; -1: none.
func (v visibility) find(gpus []int, entry string) int {
	index, err := strconv.Atoi(entry)
	uuid := strings.HasPrefix(entry, "GPU-")
	at := slices.IndexFunc(gpus, func(i int) bool {
		d := &v.devices[i]
		return err == nil && d.Index == index || uuid && strings.HasPrefix(d.ID, entry)
	})
	if at < 0 {
		return -1
	}
	return gpus[at]
}

// instance returns which part of which device a MIG instance is: by its UUID, of
// which older drivers made the GPU's with the numbers of the instances
// (MIG-GPU-…/1/0), or by the places of both (0:1). A part of -1 is one that cannot
// be told of a known device, a device of -1 no instance.
func (v visibility) instance(gpus []int, entry string) (i, part int) {
	if gpu, place, found := strings.Cut(entry, ":"); found {
		at, err := strconv.Atoi(place)
		if i = v.find(gpus, gpu); i < 0 || err != nil || at < 0 || at >= len(v.devices[i].Parts) {
			return -1, -1
		}
		return i, at
	}
	uuid, mig := strings.CutPrefix(entry, "MIG-")
	if !mig {
		return -1, -1
	}
	for _, i := range gpus {
		for part, p := range v.devices[i].Parts {
			if strings.HasPrefix(p.ID, entry) {
				return i, part
			}
		}
	}
	gpu, _, numbered := strings.Cut(uuid, "/")
	if !numbered || !strings.HasPrefix(gpu, "GPU-") {
		return -1, -1
	}
	if i = v.find(gpus, gpu); i >= 0 && len(v.devices[i].Parts) == 1 {
		return i, 0
	}
	return i, -1
}

// ranges returns the entries of a list with its ranges (0-2,5) written out.
func ranges(list string) []string {
	var entries []string
	for entry := range strings.SplitSeq(list, ",") {
		low, high, found := strings.Cut(entry, "-")
		from, err := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		// No machine has more GPUs than that.
		if !found || err != nil || err2 != nil || to-from > 1024 {
			entries = append(entries, entry)
			continue
		}
		for ; from <= to; from++ {
			entries = append(entries, strconv.Itoa(from))
		}
	}
	return entries
}

// amd applies what ROCm was told: ROCR_VISIBLE_DEVICES has indices or UUIDs,
// HIP_VISIBLE_DEVICES the places in what that leaves; both end at the first entry
// that means nothing. HIP takes CUDA_VISIBLE_DEVICES for its own where it is not
// told otherwise.
func (v visibility) amd(gpus []int, all map[int]float64, alone bool) (visible map[int]float64, known bool) {
	order := slices.Clone(gpus)
	slices.SortStableFunc(order, func(a, b int) int { return v.devices[a].Index - v.devices[b].Index })
	if list, set := v.lookup("ROCR_VISIBLE_DEVICES"); set {
		if order, known = v.listed(gpus, list, func(index int) int { return v.find(gpus, strconv.Itoa(index)) }); !known {
			return nil, false
		}
	}
	list, _ := v.lookup("HIP_VISIBLE_DEVICES")
	if list == "" && alone {
		list, _ = v.lookup("CUDA_VISIBLE_DEVICES")
	}
	if list != "" {
		among := order
		if order, known = v.listed(among, list, func(index int) int {
			if index < 0 || index >= len(among) {
				return -1
			}
			return among[index]
		}); !known {
			return nil, false
		}
	}
	visible = map[int]float64{}
	for _, i := range order {
		visible[i] = all[i]
	}
	return visible, true
}

// listed returns the devices of a list of indices and UUIDs, in its order. It is
// not known where it has UUIDs and the devices have none.
func (v visibility) listed(gpus []int, list string, at func(index int) int) (order []int, known bool) {
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		i := -1
		if index, err := strconv.Atoi(entry); err == nil {
			i = at(index)
		} else if strings.HasPrefix(entry, "GPU-") {
			if !slices.ContainsFunc(gpus, func(i int) bool { return strings.HasPrefix(v.devices[i].ID, "GPU-") }) {
				return nil, false
			}
			i = v.find(gpus, entry)
		}
		if i < 0 {
			break
		}
		order = append(order, i)
	}
	return order, true
}

// intel applies what Level Zero was told, as far as it speaks of whole devices.
func (v visibility) intel(gpus []int, all map[int]float64) (visible map[int]float64, known bool) {
	list, _ := v.lookup("ZE_AFFINITY_MASK")
	if list == "" {
		return all, true
	}
	visible = map[int]float64{}
	for entry := range strings.SplitSeq(list, ",") {
		// A tile is 0.1, or a number above those of the devices.
		i := v.find(gpus, strings.TrimSpace(entry))
		if i < 0 {
			return nil, false
		}
		visible[i] = all[i]
	}
	return visible, true
}
