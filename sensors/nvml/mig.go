package nvml

import "github.com/wattspan/wattspan/sensors"

// instances returns the instances of a GPU in MIG mode with their shares of it.
//
// What CUDA and NVML call a MIG device is a compute instance in a GPU instance.
// It has its own slices, of those of its GPU instance, of those of the GPU: 3 of
// 3 of 7 in a 3g instance of an A100 that is not divided further. The compute
// instances of a GPU instance share it among them, what none of them has
// included, because nobody else can. An instance whose slices the driver does not
// tell is left out.
func instances(gpu device) []sensors.Part {
	n, ret := gpu.Instances()
	whole := wholeSlices(gpu, n)
	if ret != success || whole == 0 {
		return nil
	}
	type instance struct {
		sensors.Part
		in          int // its GPU instance
		slices, its int // its own slices, and those of its GPU instance
	}
	var found []instance
	taken := map[int]int{} // slices in each GPU instance that its instances have
	for i := range n {
		handle, ret := gpu.Instance(i)
		if ret != success {
			continue
		}
		uuid, r1 := handle.UUID()
		slices, its, r2 := handle.Slices()
		in, r3 := handle.GPUInstance()
		if r1 != success || r2 != success || r3 != success || uuid == "" || slices <= 0 || its <= 0 {
			continue
		}
		taken[in] += slices
		found = append(found, instance{sensors.Part{ID: uuid}, in, slices, its})
	}
	var parts []sensors.Part
	for _, i := range found {
		i.Share = min(float64(i.its)/float64(whole)*float64(i.slices)/float64(taken[i.in]), 1)
		parts = append(parts, i.Part)
	}
	return parts
}

// wholeSlices returns how many compute slices a GPU has: those of its largest
// profile, 7 of an A100 or H100 and 4 of an A30. Where the profiles are not told it
// is the number of instances that the GPU can have, as the least has one slice.
func wholeSlices(gpu device, most int) (slices int) {
	const end = 64 // nvml.h has 18
	for profile := range end {
		n, ret := gpu.ProfileSlices(profile)
		if ret == invalidArgument || ret == functionNotFound {
			break
		}
		if ret == success {
			slices = max(slices, n)
		}
	}
	if slices == 0 {
		return most
	}
	return slices
}
