package ipmi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wattspan/wattspan/sensors"
)

// errNoNode is returned when the kernel has the device and /dev does not.
var errNoNode = errors.New("no device file")

// fault gives an error the name of the device and the sentinel that says what can
// be done about it.
func fault(path string, err error) error {
	for _, s := range []error{sensors.ErrPermission, sensors.ErrUnsupported, sensors.ErrLost, sensors.ErrTimeout, sensors.ErrTransient} {
		if errors.Is(err, s) {
			return fmt.Errorf("ipmi: %s: %w", path, err)
		}
	}
	sentinel := sensors.ErrTransient
	switch {
	case errors.Is(err, fs.ErrPermission):
		sentinel = sensors.ErrPermission
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO), errors.Is(err, fs.ErrClosed):
		sentinel = sensors.ErrLost
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		sentinel = sensors.ErrTimeout
	case errors.Is(err, syscall.ENOTTY):
		sentinel = sensors.ErrUnsupported
	}
	return fmt.Errorf("ipmi: %s: %w: %w", path, sentinel, err)
}

// omission says why device n is not read.
func (f finder) omission(n int, err error) sensors.Omission {
	path := fmt.Sprintf("/dev/ipmi%d", n)
	o := sensors.Omission{
		Source: source, Component: sensors.Node, Status: sensors.Unreadable,
		Reason: "the BMC does not tell the power of the machine: " + err.Error(), Err: err,
	}
	switch {
	case errors.Is(err, errNoNode):
		o.Reason = fmt.Sprintf("the machine has a BMC, and %s is missing here", path)
		o.Remedy = "in a container: start it with --device " + path + "; else: sudo modprobe ipmi_devintf"
		o.Err = fmt.Errorf("%w: %w", sensors.ErrPermission, err)
	case errors.Is(err, fs.ErrPermission):
		o.Reason = path + ", which tells the power of the whole machine, is for root only"
		o.Remedy = grant
	case errors.Is(err, errOff):
		o.Reason = "the BMC's power measurement is off"
		o.Remedy = "sudo ipmitool dcmi power activate"
	case errors.Is(err, errNoPower):
		o.Reason = "the BMC says that the machine draws 0 W"
		o.Remedy = "compare: sudo ipmitool dcmi power reading; sudo ipmitool sdr type Current"
	case errors.Is(err, sensors.ErrUnsupported):
		o.Remedy = "compare: sudo ipmitool dcmi power reading; another meter of the machine can be named instead"
	case errors.Is(err, sensors.ErrTimeout):
		o.Remedy = "see whether the BMC answers: sudo ipmitool mc info; restart it: sudo ipmitool mc reset cold"
	}
	return o
}

// grant gives the device to the user's group. A udev rule is what lasts: the node
// is made anew whenever the driver is loaded. setcap has nothing to offer, as the
// driver asks for no capability, only for the mode of the file.
const grant = `echo 'KERNEL=="ipmi*", SUBSYSTEM=="ipmi", MODE="0660", GROUP="'"$(id -gn)"'"' | sudo tee /etc/udev/rules.d/70-ipmi.rules && ` +
	`sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=ipmi (who is in that group can then control the BMC)`

// none explains why there is no IPMI device, where that is worth a word: the
// firmware tells of a BMC that no driver drives, or the user counted on it.
func (f finder) none() []sensors.Omission {
	o := sensors.Omission{
		Source: source, Component: sensors.Node, Status: sensors.Absent,
		Reason: "no BMC: " + filepath.Join(f.roots.Sys, "class", "ipmi") + " has no device",
		Err:    fmt.Errorf("ipmi: %w", sensors.ErrAbsent),
	}
	switch firmware := f.firmware(); {
	case firmware:
		o.Status = sensors.Unreadable
		o.Reason = "the machine has a BMC, and the driver of its device is not loaded"
		o.Remedy = "sudo modprobe -a ipmi_si ipmi_devintf"
		o.Err = fmt.Errorf("ipmi: %w", sensors.ErrUnsupported)
	case f.declared:
		o.Status = sensors.Unreadable
		o.Remedy = "sudo modprobe -a ipmi_si ipmi_devintf"
	default:
		return nil
	}
	return []sensors.Omission{o}
}

// firmware reports whether ACPI or SMBIOS tell of a BMC.
func (f finder) firmware() bool {
	for _, pattern := range []string{"bus/acpi/devices/IPI0001:*", "bus/platform/devices/dmi-ipmi-*", "firmware/dmi/entries/38-*"} {
		if found, _ := filepath.Glob(filepath.Join(f.roots.Sys, pattern)); len(found) > 0 {
			return true
		}
	}
	return false
}
