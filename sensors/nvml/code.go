package nvml

import (
	"fmt"

	"github.com/wattspan/wattspan/sensors"
)

// code is an nvmlReturn_t.
type code int

// The codes this package tells apart.
const (
	success                 code = 0
	uninitialized           code = 1
	invalidArgument         code = 2
	notSupported            code = 3
	noPermission            code = 4
	notFound                code = 6
	driverNotLoaded         code = 9
	timeout                 code = 10
	libraryNotFound         code = 12
	functionNotFound        code = 13
	gpuIsLost               code = 15
	resetRequired           code = 16
	operatingSystem         code = 17
	versionMismatch         code = 18
	argumentVersionMismatch code = 25
	deprecated              code = 26
	notReady                code = 27
	gpuNotFound             code = 28
	unknown                 code = 999
)

var codeNames = map[code]string{
	success:                 "SUCCESS",
	uninitialized:           "ERROR_UNINITIALIZED",
	invalidArgument:         "ERROR_INVALID_ARGUMENT",
	notSupported:            "ERROR_NOT_SUPPORTED",
	noPermission:            "ERROR_NO_PERMISSION",
	notFound:                "ERROR_NOT_FOUND",
	driverNotLoaded:         "ERROR_DRIVER_NOT_LOADED",
	timeout:                 "ERROR_TIMEOUT",
	libraryNotFound:         "ERROR_LIBRARY_NOT_FOUND",
	functionNotFound:        "ERROR_FUNCTION_NOT_FOUND",
	gpuIsLost:               "ERROR_GPU_IS_LOST",
	resetRequired:           "ERROR_RESET_REQUIRED",
	operatingSystem:         "ERROR_OPERATING_SYSTEM",
	versionMismatch:         "ERROR_LIB_RM_VERSION_MISMATCH",
	argumentVersionMismatch: "ERROR_ARGUMENT_VERSION_MISMATCH",
	deprecated:              "ERROR_DEPRECATED",
	notReady:                "ERROR_NOT_READY",
	gpuNotFound:             "ERROR_GPU_NOT_FOUND",
	unknown:                 "ERROR_UNKNOWN",
}

// String names the code as nvml.h does. It does not ask the driver, which may
// not be there.
func (c code) String() string {
	if s, ok := codeNames[c]; ok {
		return "NVML_" + s
	}
	return fmt.Sprintf("NVML error %d", int(c))
}

// reason returns the sentinel for the code, which also decides what is done
// about it: another source is tried where the reading is not supported, the
// handle is given up where the GPU is lost, and what is not known to last is
// taken to pass.
func (c code) reason() error {
	switch c {
	case success:
		return nil
	case notSupported, functionNotFound, argumentVersionMismatch, deprecated:
		return sensors.ErrUnsupported
	case noPermission, operatingSystem:
		return sensors.ErrPermission
	case gpuIsLost, resetRequired, versionMismatch, driverNotLoaded, libraryNotFound,
		gpuNotFound, notFound, invalidArgument:
		// The last two are what a handle or UUID of a GPU that is gone brings.
		return sensors.ErrLost
	default:
		return sensors.ErrTransient
	}
}

// omission says why NVML, or one GPU of it, is not read. visible is whether
// the machine is known to have an NVIDIA GPU.
func (c code) omission(visible bool) sensors.Omission {
	const container = "in a container, start it with the NVIDIA runtime and its GPUs (--gpus all, NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
	o := sensors.Omission{
		Source: name, Component: sensors.GPU, Status: sensors.Unreadable,
		Err: fmt.Errorf("%s: %w: %s", name, c.reason(), c),
	}
	switch c {
	case driverNotLoaded, libraryNotFound, gpuNotFound:
		if !visible {
			o.Status = sensors.Absent
			o.Reason = "no NVIDIA GPU found"
			o.Err = fmt.Errorf("%s: %w: %s", name, sensors.ErrAbsent, c)
			break
		}
		o.Reason = fmt.Sprintf("this machine has an NVIDIA GPU that its driver does not show (%s)", c)
		o.Remedy = "install the NVIDIA driver, until nvidia-smi lists the GPU; " + container
		o.Err = fmt.Errorf("%s: %w: %s", name, sensors.ErrUnsupported, c)
	case versionMismatch:
		o.Reason = fmt.Sprintf("the NVIDIA driver was upgraded under a running system (%s)", c)
		o.Remedy = "reboot, or reload the driver's kernel modules"
	case noPermission, operatingSystem:
		o.Reason = fmt.Sprintf("the operating system does not let this process use the GPU (%s)", c)
		o.Remedy = "allow it the device files /dev/nvidia* (group, cgroup, job scheduler); " + container
	case notSupported, functionNotFound:
		o.Reason = fmt.Sprintf("the driver gives neither energy nor power of this GPU (%s)", c)
		o.Remedy = "a virtual GPU can only be measured on its host; on other GPUs, update the driver"
	case gpuIsLost, resetRequired:
		o.Reason = fmt.Sprintf("the GPU does not answer (%s)", c)
		o.Remedy = "see dmesg for Xid messages; reset the GPU (nvidia-smi --gpu-reset) or reboot"
	default:
		o.Reason = fmt.Sprintf("the NVIDIA driver failed (%s)", c)
		o.Remedy = "see whether nvidia-smi works, and dmesg; then start again"
	}
	return o
}
