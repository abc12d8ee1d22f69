// Package ipmi asks the machine's BMC, its management controller, for the power
// of the whole machine: the Power Reading of DCMI, by the local IPMI device.
//
// # Basics
//
// Importing the package is enough: it registers itself with package sensors. It
// looks for the IPMI devices that the kernel has, in /sys/class/ipmi, and asks
// the first that answers, every 5 seconds. Where the kernel has none, no message
// is sent and nothing is said. The figure is one device of component node, whose
// ID is "node": the machine at its input, with fans, disks, network and the loss
// of its power supplies.
//
// The BMC gives whole watts, at one moment, which are integrated. What the
// machine drew between two readings is not seen: over minutes that evens out.
//
// # Caveats
//
// The device is for root only. Who may open it may also reset the machine and
// change the users of the BMC, so give it to a group with care; the omission says
// how. A capability does not help, short of one that opens every file. Where that
// is too much, a command of package command reads the same value:
//
//	command:sudo -n ipmitool dcmi power reading
//
// A container needs the device, with --device /dev/ipmi0.
//
// A BMC can have its power measurement switched off, or answer 0 W: neither is
// taken for a figure. In a chassis of several nodes the figure is that of the
// node, as far as its BMC tells the truth. Each message costs the kernel about a
// millisecond of polling the BMC's registers.
package ipmi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

const source = "ipmi"

const (
	// every is the time between two messages: BMCs average over a second or
	// more, and answer slowly.
	every = 5 * time.Second
	// timeout is how long an answer may take. The kernel gives up by itself
	// after some seconds, and a late answer is discarded.
	timeout = 4 * time.Second
	// patience is how long the first answer may take: the job waits for it, and a
	// BMC that is well answers in a tenth of a second.
	patience = 2 * time.Second
	// band is for the sensors of power supplies and hot-swap controllers, which
	// are specified at 2 to 5 %.
	band = 0.05
	// maxPower is the most that the 16 bits of a reading can say.
	maxPower = 65_534
)

// Supports is what the package reads.
var Supports = []sensors.Support{{
	Hardware:  "servers whose BMC speaks DCMI (most since 2010)",
	Source:    "/dev/ipmi0: DCMI Get Power Reading",
	Component: sensors.Node, Unit: "W", Method: sensors.MethodPower, ErrorBand: band,
	Privileges: "root, or who may open /dev/ipmi0",
	Tested:     "simulated",
}}

func init() {
	sensors.Register(sensors.Backend{Name: source, Component: sensors.Node, Supports: Supports, Open: Open})
}

// Open opens the IPMI device of this machine. It returns nil where there is
// none, or where its BMC gives no power, and an omission that says why.
func Open(ctx context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
	return newFinder(roots).open(ctx)
}

// Backend returns the back-end for a user who names IPMI as the meter of the
// machine: it is preferred to what is found, and is missed where it is absent.
func Backend() sensors.Backend {
	return sensors.Backend{Name: source, Component: sensors.Node, Supports: Supports,
		Open: func(ctx context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			f := newFinder(roots)
			f.declared = true
			return f.open(ctx)
		}}
}

// bmc carries messages to a management controller.
type bmc interface {
	// exchange sends a request and returns the data of its response, of which
	// the first byte is the completion code. It gives up when ctx ends.
	exchange(ctx context.Context, netfn, cmd byte, data []byte) ([]byte, error)
	Close() error
}

// finder looks for a BMC that tells the power.
type finder struct {
	roots    sensors.Roots
	dev      string
	connect  func(path string) (bmc, error)
	declared bool
	every    time.Duration
	now      func() time.Time
}

func newFinder(roots sensors.Roots) finder {
	return finder{roots: roots, dev: "/dev", connect: openDevice, every: every, now: time.Now}
}

// open asks the devices in their order, and keeps the first that tells a power.
func (f finder) open(ctx context.Context) (sensors.Sensor, []sensors.Omission) {
	numbers := f.interfaces()
	if len(numbers) == 0 {
		return nil, f.none()
	}
	var omitted []sensors.Omission
	for _, n := range numbers {
		s, err := f.try(ctx, f.paths(n))
		if err == nil {
			return s, nil
		}
		omitted = append(omitted, f.omission(n, err))
	}
	return nil, omitted
}

// interfaces returns the numbers of the kernel's IPMI devices.
func (f finder) interfaces() []int {
	entries, _ := os.ReadDir(filepath.Join(f.roots.Sys, "class", "ipmi"))
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "ipmi")); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// paths returns the names under which a device may be found.
func (f finder) paths(n int) []string {
	return []string{
		fmt.Sprintf("%s/ipmi%d", f.dev, n), fmt.Sprintf("%s/ipmi/%d", f.dev, n), fmt.Sprintf("%s/ipmidev/%d", f.dev, n),
	}
}

// try opens the first of the paths that exists and asks it once.
func (f finder) try(ctx context.Context, paths []string) (sensors.Sensor, error) {
	var err error
	for _, path := range paths {
		var b bmc
		if b, err = f.connect(path); err == nil {
			return f.start(ctx, path, b)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fault(path, err)
		}
	}
	return nil, fmt.Errorf("ipmi: %s: %w: %w", paths[0], errNoNode, err)
}

// start polls an open device, if its first answers are of use. A BMC is busy now
// and then, above all after its machine has started.
func (f finder) start(ctx context.Context, path string, b bmc) (sensors.Sensor, error) {
	m := &meter{path: path, bmc: b, connect: f.connect}
	var err error
	for range 3 {
		asking, cancel := context.WithTimeout(ctx, patience)
		_, err = m.power(asking)
		cancel()
		if !errors.Is(err, sensors.ErrTransient) {
			break
		}
	}
	if err != nil {
		_ = m.close()
		return nil, err
	}
	polled, errs := sensors.NewPolled(ctx, sensors.Polling{
		Devices: []sensors.Device{{
			ID: "node", Name: "the machine, by its BMC", Component: sensors.Node,
			Method: sensors.MethodPower, Scope: sensors.ScopeNode,
			Source: source + " " + path, ErrorBand: band, Refresh: every, Declared: f.declared,
			Note: "DCMI power reading: whole watts at one moment, every " + every.String(),
		}},
		Every: f.every, Timeout: timeout, MaxPower: maxPower, Now: f.now,
		Poll: m.poll,
	})
	s := &sensor{polled, m}
	if errs[0] != nil && !errors.Is(errs[0], sensors.ErrTransient) && !errors.Is(errs[0], sensors.ErrTimeout) {
		_ = s.Close()
		return nil, errs[0]
	}
	return s, nil
}

// sensor is the polled device, which is closed with it.
type sensor struct {
	*sensors.Polled
	meter *meter
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error { return errors.Join(s.Polled.Close(), s.meter.close()) }

// meter asks one BMC. It is for one goroutine at a time.
type meter struct {
	path    string
	bmc     bmc // nil once it is lost
	connect func(path string) (bmc, error)
}

func (m *meter) poll(ctx context.Context, values []sensors.Value) {
	w, err := m.power(ctx)
	values[0] = sensors.Value{Power: w, Err: err}
}

// power asks for the power. A device that was lost, because its driver was
// unloaded or the BMC restarted, is opened again.
func (m *meter) power(ctx context.Context) (sensors.Watts, error) {
	if m.bmc == nil {
		b, err := m.connect(m.path)
		if err != nil {
			return 0, fault(m.path, err)
		}
		m.bmc = b
	}
	answer, err := m.bmc.exchange(ctx, netfnGroup, cmdPowerReading, powerRequest)
	if err == nil {
		var r powerReading
		if r, err = parsePower(answer); err == nil {
			return sensors.Watts(r.current), nil
		}
	}
	err = fault(m.path, err)
	if errors.Is(err, sensors.ErrLost) {
		_ = m.close()
	}
	return 0, err
}

func (m *meter) close() error {
	if m.bmc == nil {
		return nil
	}
	err := m.bmc.Close()
	m.bmc = nil
	return err
}
