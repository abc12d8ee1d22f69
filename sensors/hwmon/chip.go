package hwmon

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// chip is what one driver shows of one device.
type chip struct {
	sys  string // the root of sysfs
	name string // as its driver has it: "amdgpu"
	// dir is the directory of its files, and number the last part of its link:
	// "hwmon3". Both change when the driver is loaded again.
	dir, number string
	// device is the directory of the device, which stays. It is empty for one
	// that has none.
	device string
}

// readChips lists the chips of a machine, in the order of their numbers.
func readChips(sys string) []chip {
	class := filepath.Join(sys, "class", "hwmon")
	entries, _ := os.ReadDir(class)
	var chips []chip
	for _, e := range entries {
		c := chip{sys: sys, number: e.Name()}
		at := filepath.Join(class, e.Name())
		c.device, _ = filepath.EvalSymlinks(filepath.Join(at, "device"))
		// Old drivers, among them that of the ACPI power meter, have their files
		// beside the device's own.
		for _, dir := range []string{at, filepath.Join(at, "device")} {
			if name, err := readText(filepath.Join(dir, "name")); err == nil {
				c.name, c.dir = name, dir
				chips = append(chips, c)
				break
			}
		}
	}
	chips = append(chips, readIIO(sys)...)
	slices.SortStableFunc(chips, func(a, b chip) int { return byNumber(a.number, b.number) })
	return chips
}

// readIIO lists what NVIDIA's driver of the INA3221 shows on boards with Linux
// 4.9, below the industrial I/O class.
func readIIO(sys string) []chip {
	var chips []chip
	for _, device := range []string{"iio:device*", "iio_device"} {
		dirs, _ := filepath.Glob(filepath.Join(sys, "bus/i2c/drivers/ina3221x/*-*", device))
		for _, dir := range dirs {
			c := chip{sys: sys, name: inaIIO, dir: dir, number: filepath.Base(dir)}
			c.device, _ = filepath.EvalSymlinks(filepath.Dir(dir))
			if !slices.ContainsFunc(chips, func(b chip) bool { return b.device == c.device }) {
				chips = append(chips, c)
			}
		}
	}
	return chips
}

// byNumber orders hwmon9 before hwmon10.
func byNumber(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func readText(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// has reports whether the chip has a file.
func (c chip) has(name string) bool {
	_, err := os.Stat(filepath.Join(c.dir, name))
	return err == nil
}

// text returns what a file of the chip holds, empty where it cannot be read.
func (c chip) text(name string) string {
	s, _ := readText(filepath.Join(c.dir, name))
	return s
}

// uint returns the number in a file of the chip, 0 where there is none.
func (c chip) uint(name string) uint64 {
	n, _ := strconv.ParseUint(c.text(name), 10, 64)
	return n
}

// finder returns a function that looks for a file of the chip, wherever the chip
// then is.
func (c chip) finder(name string) func() (string, error) {
	return func() (string, error) {
		for _, now := range readChips(c.sys) {
			if now.name == c.name && now.device == c.device && (c.device != "" || now.number == c.number) {
				return filepath.Join(now.dir, name), nil
			}
		}
		return "", &fs.PathError{Op: "find", Path: filepath.Join(c.dir, name), Err: fs.ErrNotExist}
	}
}

// source is where a device of the chip is read, for people.
func (c chip) source() string { return source + " " + c.name + " " + c.dir }

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// pci returns the address of the chip's device on the PCI bus, empty for one that
// is on another.
func (c chip) pci() string {
	if base := filepath.Base(c.device); pciAddress.MatchString(base) {
		return base
	}
	return ""
}

// chmod is the remedy where a chip's sensors are for root only. It names the
// host's /sys, where it has to be done, whatever the root.
func (c chip) chmod() string {
	return fmt.Sprintf("sudo chmod a+r /sys/class/hwmon/%[2]s/energy*_input; to keep that across restarts: "+
		`echo 'ACTION=="add", SUBSYSTEM=="hwmon", ATTR{name}=="%[1]s", RUN+="/bin/sh -c '"'"'chmod a+r /sys%%p/energy*_input'"'"'"' | `+
		"sudo tee /etc/udev/rules.d/70-%[1]s.rules && sudo udevadm control --reload", c.name, c.number)
}
