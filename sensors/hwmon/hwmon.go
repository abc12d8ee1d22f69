// Package hwmon reads the power and energy sensors that Linux drivers show as
// plain files below /sys/class/hwmon: GPUs of AMD and Intel, the sockets of NVIDIA
// Grace, the rails of NVIDIA Jetson boards, the ACPI power meter of a server, and
// amd_energy. It needs no library of a vendor.
//
// # Basics
//
// Importing the package is enough: it registers itself with package sensors. A
// chip is known by the name that its driver gives it, and the table in rules.go
// says what is read of it; chips that are not in the table are left alone. Of
// readings that contain each other one disjoint cut is read:
//
//   - amdgpu: one GPU by its energy accumulator, where the driver's table has one
//     whose unit the kernel states, else by power1_average or power1_input. The
//     graphics of a processor are in the processor's own figure and are not read.
//   - i915, xe: one discrete GPU by its energy counter: the card's, which contains
//     the package's, where there is one.
//   - power_meter: the machine, as [sensors.Node]; on Grace the sockets, each with
//     its memory. The module's meter contains the GPU and is not read beside it.
//   - ina3221: VDD_IN as the machine, and the rails of GPU, processor and memory.
//   - amd_energy: the sockets, under the IDs of package rapl, and never the cores,
//     which are in them.
//
// GPUs are identified by their address on the PCI bus ([sensors.PCIDevice]).
//
// # Caveats
//
// A GPU that its driver has put to sleep is not woken: reading its sensors would
// do that, and so its power/runtime_status is looked at first. While it sleeps it
// counts as observed, at 0 W: the kernel has then put it into the PCI state
// D3 and cut its supply, as far as the board can, and what a card may draw from the
// auxiliary supply is about 1 W. The variance of its energy says so. A GPU that is
// awake may be kept awake by being read: i915, xe, and amdgpu before Linux 6.13,
// take each reading for use.
//
// All chips are read one after the other, by one goroutine. One whose driver hangs
// delays the others: counters lose nothing by that.
//
// A sensor that goes away, because its driver is unloaded or its card pulled,
// costs that device alone. It is looked for again after 1, 2, 4 and up to 60
// seconds, by its place in the machine, as its number among the hwmon chips is
// another one then.
package hwmon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
)

const source = "hwmon"

func init() {
	sensors.Register(sensors.Backend{Name: source, Component: sensors.GPU, Supports: supports(), Open: Open})
}

// Open opens the chips of this machine that the package knows. It returns nil
// where there are none, and an omission for each that it leaves out; of chips that
// it does not know, and where there are none, it says nothing.
func Open(_ context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	return open(roots, nil, time.Now)
}

// open is Open with a clock and a way to open files, nil for the system's.
func open(roots sensors.Roots, openFile func(string) (keptfile.Handle, error), now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	o := &opening{sys: roots.Sys, openFile: openFile, now: now, sensor: &sensor{now: now}}
	chips := readChips(roots.Sys)
	for _, r := range rules {
		known := slices.DeleteFunc(slices.Clone(chips), func(c chip) bool { return !slices.Contains(r.chips, c.name) })
		if len(known) > 0 {
			r.open(o, known)
		}
	}
	if !slices.ContainsFunc(chips, func(c chip) bool { return c.name == acpiMeter }) {
		o.unloadedMeter()
	}
	if len(o.sensor.meters) == 0 {
		return nil, o.omitted
	}
	return o.sensor, o.omitted
}

// opening is a sensor in the making.
type opening struct {
	sys      string
	openFile func(string) (keptfile.Handle, error)
	now      func() time.Time
	sensor   *sensor
	omitted  []sensors.Omission
}

// file returns a file that is opened when it is read.
func (o *opening) file(find func() (string, error), size int) *keptfile.File {
	return keptfile.New(find, size, o.openFile)
}

// text is room for a number and its newline.
const text = 64

// number returns a file of a chip that holds a number.
func (o *opening) number(c chip, name string) *keptfile.File {
	return o.file(c.finder(name), text)
}

// fixed returns a file of a device, whose path does not change.
func (o *opening) fixed(device, name string, size int) *keptfile.File {
	path := filepath.Join(device, name)
	return o.file(func() (string, error) { return path, nil }, size)
}

// add takes a meter that can be read, or says why it cannot. A device that sleeps
// is not asked.
func (o *opening) add(m *meter) {
	m.init()
	if at := o.now(); !m.sleeps(at) {
		if err := m.probe(at); err != nil {
			_ = m.close()
			o.unreadable(m, err)
			return
		}
	}
	o.sensor.meters = append(o.sensor.meters, m)
	o.sensor.devices = append(o.sensor.devices, m.Device)
}

func (o *opening) unreadable(m *meter, err error) {
	om := sensors.Omission{
		Source: source, Component: m.Component, Device: m.ID, Status: sensors.Unreadable,
		Reason: fmt.Sprintf("%s cannot be read: %v", m.Name, err),
		Err:    fmt.Errorf("hwmon: %s: %w", m.ID, err),
	}
	if errors.Is(err, sensors.ErrPermission) {
		om.Reason = fmt.Sprintf("the sensors of %s, in %s, are for root only", m.Name, m.chip.dir)
		om.Remedy = m.chip.chmod()
	}
	o.omitted = append(o.omitted, om)
}

// supersede says that a reading is in another one, or is another one.
func (o *opening) supersede(c sensors.Component, id, reason string) {
	o.omitted = append(o.omitted, sensors.Omission{
		Source: source, Component: c, Device: id, Status: sensors.Superseded, Reason: reason,
	})
}

// sensor reads the meters.
type sensor struct {
	now     func() time.Time
	devices []sensors.Device
	meters  []*meter
}

var _ sensors.Sensor = (*sensor)(nil)

// Devices implements sensors.Sensor.
func (s *sensor) Devices() []sensors.Device { return s.devices }

// Timing implements sensors.Sensor. A driver asks a firmware or a bus for what it
// shows, and waits while its device is being reset.
func (s *sensor) Timing() sensors.Timing {
	t := sensors.Timing{MaxInterval: maxInterval, MayBlock: true}
	for _, m := range s.meters {
		t.MaxInterval = min(t.MaxInterval, m.interval())
	}
	return t
}

// Read implements sensors.Sensor.
func (s *sensor) Read(dst []sensors.Reading) {
	for i, m := range s.meters {
		dst[i] = m.reading(s.now)
	}
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error {
	var errs []error
	for _, m := range s.meters {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

var nan = sensors.Watts(math.NaN())
