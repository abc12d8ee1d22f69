// Package battery reads what a laptop draws from its batteries, from
// /sys/class/power_supply: the whole machine, display and all, as long as it runs
// on them.
//
// # Basics
//
// Importing the package is enough: it registers itself with package sensors. All
// batteries of the machine are one device of component node. Its power is the sum
// of what the discharging ones give: power_now, or voltage_now times current_now.
//
// On mains power a battery does not see what the machine draws. While a charger is
// connected, or no battery discharges, the reading has an error that wraps
// [sensors.ErrUnsupported], its tally stands still and no time is counted as
// observed; it goes on when the charger is taken away. A run in which that happens
// is covered in part.
//
// # Caveats
//
// The values come from the battery's own gauge through the firmware, which takes
// tens of milliseconds, and are updated every few seconds at best. They are read
// every five seconds, however often the sensor is, and its devices say that a value
// can be half a minute old: nothing shorter has a figure. The gauge is made to tell
// how long the battery lasts, not to measure: its error is a guess.
//
// The batteries of a mouse or a headset (scope Device) and a UPS are ignored.
package battery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
)

const source = "battery"

func init() { sensors.Register(backend) }

var backend = sensors.Backend{Name: source, Component: sensors.Node, Open: Open, Supports: []sensors.Support{{
	Hardware: "laptops, while they run on their batteries",
	Source:   "/sys/class/power_supply/BAT*/power_now, or voltage_now × current_now", Component: sensors.Node,
	Unit: "µW; µV and µA", Method: sensors.MethodPower, ErrorBand: errorBand,
	Privileges: "every user", Tested: "simulated",
}}}

const (
	// errorBand is a judgement: gauges are not calibrated for this.
	errorBand = 0.10
	// every is the time between two reads: the kernel asks the firmware again
	// after a second, and the firmware the gauge after several.
	every = 5 * time.Second
	// refresh is how old a value can be.
	refresh = 30 * time.Second
	// bound is more than any battery of a laptop gives.
	bound sensors.Watts = 500
)

// The reasons why there is no reading now. They are made once, as they last.
var (
	errMains   = fmt.Errorf("battery: on mains power: the battery does not see what the machine draws: %w", sensors.ErrUnsupported)
	errResting = fmt.Errorf("battery: no battery is discharging: %w", sensors.ErrUnsupported)
	errSettle  = fmt.Errorf("battery: the charger was just taken away: %w", sensors.ErrTransient)
	errNothing = fmt.Errorf("battery: the battery does not know what it gives: %w", sensors.ErrTransient)
)

// Open opens the batteries of this machine. It returns nil where there is none.
func Open(_ context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
	if runtime.GOOS != "linux" {
		return nil, []sensors.Omission{absent("batteries are read on Linux only")}
	}
	return open(roots, time.Now)
}

func absent(reason string) sensors.Omission {
	return sensors.Omission{
		Source: source, Component: sensors.Node, Status: sensors.Absent, Reason: reason,
		Err: fmt.Errorf("battery: %w", sensors.ErrAbsent),
	}
}

func open(roots sensors.Roots, now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	class := filepath.Join(roots.Sys, "class", "power_supply")
	entries, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, []sensors.Omission{{
			Source: source, Component: sensors.Node, Status: sensors.Unreadable,
			Reason: class + " cannot be listed", Err: fmt.Errorf("battery: %w: %w", keptfile.Sentinel(err), err),
		}}
	}
	s := &sensor{now: now, integrator: sensors.Integrator{Period: every, MaxPower: bound}}
	s.reading.Power, s.reading.Utilization = sensors.Watts(math.NaN()), math.NaN()
	var names []string
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		if text(dir, "scope") == "Device" {
			continue
		}
		switch kind := text(dir, "type"); kind {
		case "Battery":
			if text(dir, "present") == "0" {
				continue
			}
			if b, ok := newBattery(dir); ok {
				s.batteries = append(s.batteries, b)
				names = append(names, e.Name())
				continue
			}
			_ = s.Close()
			return nil, []sensors.Omission{{
				Source: source, Component: sensors.Node, Status: sensors.Unreadable,
				Reason: dir + " does not tell the battery's power",
				Err:    fmt.Errorf("battery: %s: %w", dir, sensors.ErrUnsupported),
			}}
		case "Mains", "USB", "Wireless":
			s.chargers = append(s.chargers, later(dir, "online"))
		}
	}
	if len(s.batteries) == 0 {
		return nil, []sensors.Omission{absent("no battery found")}
	}
	s.devices = []sensors.Device{{
		ID: "battery", Name: strings.Join(names, " and "), Component: sensors.Node,
		Method: sensors.MethodPower, Scope: sensors.ScopeNode,
		Source: source + " " + filepath.Join(class, strings.Join(names, ",")),
		Note:   "the whole machine, only while it runs on its battery", ErrorBand: errorBand, Refresh: refresh,
	}}
	return s, nil
}

// text returns what a file holds, without the newline; nothing where it cannot be
// read.
func text(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b))
}

// later returns a file that is opened when it is first read: on mains power many
// say ENODEV.
func later(dir, name string) *keptfile.File {
	const room = 64
	return keptfile.New(func() (string, error) { return filepath.Join(dir, name), nil }, room, nil)
}

// battery is one battery of the machine.
type battery struct {
	status  *keptfile.File
	power   *keptfile.File // nil where voltage and current are read in its stead
	voltage *keptfile.File
	current *keptfile.File
}

func newBattery(dir string) (b battery, ok bool) {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	b.status = later(dir, "status")
	switch {
	case has("power_now"):
		b.power = later(dir, "power_now")
	case has("voltage_now") && has("current_now"):
		b.voltage, b.current = later(dir, "voltage_now"), later(dir, "current_now")
	default:
		return battery{}, false
	}
	return b, true
}

// watts reads what the battery gives. Drivers differ in the sign of what goes out.
func (b battery) watts(at time.Time) (sensors.Watts, error) {
	if b.power != nil {
		microwatts, err := b.power.Int(at)
		return sensors.Watts(math.Abs(float64(microwatts)) / 1e6), err
	}
	microvolts, err := b.voltage.Int(at)
	if err != nil {
		return 0, err
	}
	microamperes, err := b.current.Int(at)
	return sensors.Watts(math.Abs(float64(microvolts)*float64(microamperes)) / 1e12), err
}

func (b battery) close() error {
	var errs []error
	for _, f := range []*keptfile.File{b.status, b.power, b.voltage, b.current} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// sensor reads all batteries of a machine as one device.
type sensor struct {
	now       func() time.Time
	devices   []sensors.Device
	batteries []battery
	chargers  []*keptfile.File

	integrator sensors.Integrator
	reading    sensors.Reading
	asked      time.Time // when the firmware was last asked
	charged    bool      // it was on mains power then
}

var _ sensors.Sensor = (*sensor)(nil)

// Devices implements sensors.Sensor.
func (s *sensor) Devices() []sensors.Device { return s.devices }

// Timing implements sensors.Sensor: the firmware takes its time.
func (s *sensor) Timing() sensors.Timing { return sensors.Timing{MayBlock: true} }

// Read implements sensors.Sensor. Its reading is up to five seconds old.
func (s *sensor) Read(dst []sensors.Reading) {
	if at := s.now(); s.asked.IsZero() || at.Sub(s.asked) >= every {
		s.asked = at
		s.ask(at)
	}
	dst[0] = s.reading
}

// ask asks the firmware.
func (s *sensor) ask(at time.Time) {
	power, err := s.power(at)
	// The value is from some moment of the reads.
	at = at.Add(s.now().Sub(at) / 2)
	r := &s.reading
	if r.At.IsZero() {
		r.At = at
	}
	r.Err = err
	if err != nil {
		r.Power = sensors.Watts(math.NaN())
		s.integrator.Rebase() // what is drawn meanwhile is not known
		return
	}
	rejected := r.Rejected
	r.At, r.Power, r.Tally = at, power, s.integrator.Add(at, power)
	if r.Rejected > rejected {
		r.Power = sensors.Watts(math.NaN())
	}
}

// power sums what the discharging batteries give, or says why that is not what the
// machine draws.
func (s *sensor) power(at time.Time) (sensors.Watts, error) {
	for _, f := range s.chargers {
		// A charger whose state cannot be read leaves it to the batteries.
		if online, err := f.Int(at); err == nil && online > 0 {
			s.charged = true
			return 0, errMains
		}
	}
	var sum sensors.Watts
	discharging := 0
	for _, b := range s.batteries {
		status, err := b.status.Text(at)
		if err != nil {
			return 0, fmt.Errorf("battery: %w", err)
		}
		switch string(bytes.TrimSpace(status)) {
		case "Discharging":
		case "Charging":
			s.charged = true
			return 0, errMains
		default:
			// Full, Not charging, Unknown: of two batteries one rests while the
			// other is used.
			continue
		}
		discharging++
		w, err := b.watts(at)
		if err != nil {
			return 0, fmt.Errorf("battery: %w", err)
		}
		sum += w
	}
	switch {
	case discharging == 0:
		s.charged = true
		return 0, errResting
	case s.charged:
		// The gauge can still show what it was charged with.
		s.charged = false
		return 0, errSettle
	case sum == 0:
		return 0, errNothing // a machine that runs draws something
	}
	return sum, nil
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error {
	var errs []error
	for _, b := range s.batteries {
		errs = append(errs, b.close())
	}
	for _, f := range s.chargers {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
