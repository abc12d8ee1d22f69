package sensortest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Chip is what a driver shows of a device below class/hwmon.
type Chip struct {
	// Name is the driver's: "amdgpu".
	Name string
	// Device is the directory of the device, below devices:
	// "pci0000:00/0000:00:01.0/0000:03:00.0". One with an address of the PCI bus is
	// linked to from there.
	Device string
	// Files are the chip's, and DeviceFiles the device's: "power1_average" and
	// "gpu_busy_percent", with what they hold.
	Files, DeviceFiles map[string]string
	// Old is set where the chip's files are among the device's, as those of the
	// ACPI power meter are.
	Old bool
}

var addressOfPCI = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// AddChip puts a chip into the tree, as hwmon with that number.
func (s *Sysfs) AddChip(number int, c Chip) {
	s.t.Helper()
	device := filepath.Join("sys/devices", c.Device)
	s.must(os.MkdirAll(s.path(s.chipDir(number, c)), 0o755))
	if !c.Old {
		s.link(filepath.Join(s.chipDir(number, c), "device"), device)
	} else {
		s.link(filepath.Join(device, "hwmon", fmt.Sprintf("hwmon%d", number), "device"), device)
	}
	s.Write(filepath.Join(s.chipDir(number, c), "name"), c.Name+"\n")
	for name, text := range c.Files {
		s.Write(filepath.Join(s.chipDir(number, c), name), text)
	}
	for name, text := range c.DeviceFiles {
		s.Write(filepath.Join(device, name), text)
	}
	s.link(fmt.Sprintf("sys/class/hwmon/hwmon%d", number), filepath.Join(device, "hwmon", fmt.Sprintf("hwmon%d", number)))
	if address := filepath.Base(c.Device); addressOfPCI.MatchString(address) {
		s.link(filepath.Join("sys/bus/pci/devices", address), device)
	}
}

// chipDir is where a chip's files are.
func (s *Sysfs) chipDir(number int, c Chip) string {
	device := filepath.Join("sys/devices", c.Device)
	if c.Old {
		return device
	}
	return filepath.Join(device, "hwmon", fmt.Sprintf("hwmon%d", number))
}

// SetChip changes a file of a chip, in place. A name that begins with "device/" is
// one of the device's.
func (s *Sysfs) SetChip(number int, name, text string) {
	s.t.Helper()
	s.Write(filepath.Join(fmt.Sprintf("sys/class/hwmon/hwmon%d", number), name), text)
}

// RemoveChip takes a chip away, as the unloading of its driver does, and its
// device with it. A reader that has a file open then reads an empty one, where the
// kernel would say ENODEV.
func (s *Sysfs) RemoveChip(number int, c Chip) {
	s.t.Helper()
	for name := range c.Files {
		s.must(os.Truncate(s.path(s.chipDir(number, c), name), 0))
	}
	for name := range c.DeviceFiles {
		s.must(os.Truncate(s.path("sys/devices", c.Device, name), 0))
	}
	s.must(os.RemoveAll(s.path("sys/devices", c.Device)))
	s.must(os.Remove(s.path("sys/class/hwmon", fmt.Sprintf("hwmon%d", number))))
	if address := filepath.Base(c.Device); addressOfPCI.MatchString(address) {
		s.must(os.Remove(s.path("sys/bus/pci/devices", address)))
	}
}

// link makes a link between two places of the tree, relative as the kernel's are.
func (s *Sysfs) link(from, to string) {
	s.t.Helper()
	if exists(s.path(from)) { // by another chip of the same device
		return
	}
	s.must(os.MkdirAll(filepath.Dir(s.path(from)), 0o755))
	relative, err := filepath.Rel(filepath.Dir(s.path(from)), s.path(to))
	s.must(err)
	s.must(os.Symlink(relative, s.path(from)))
}
