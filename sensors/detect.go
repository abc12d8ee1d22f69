package sensors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Backend is a way to read hardware, registered by the package that has it.
type Backend struct {
	// Name is the package's name: "rapl".
	Name string
	// Component is what is unread when the back-end does not answer at all.
	Component Component
	// Supports lists what the back-end can read, for docs/HARDWARE.md.
	Supports []Support
	// Open probes the machine. It returns a sensor for what it can read, or
	// nil, and an omission for everything it looked for and leaves out. It is
	// called from a goroutine of its own, and may be abandoned there when it
	// takes longer than Detect waits. ctx ends with Detect's wait.
	Open func(ctx context.Context, roots Roots) (Sensor, []Omission)
}

// Support is one kind of source that a back-end can read.
type Support struct {
	// Hardware names what has it: "Intel Core and Xeon since Sandy Bridge".
	Hardware string
	// Source is the path or call: "/sys/class/powercap/intel-rapl:*/energy_uj".
	Source    string
	Component Component
	// Unit is that of the raw value: "µJ", "mW".
	Unit   string
	Method Method
	// ErrorBand is the relative systematic error of the figure, one standard
	// deviation. A device of the source may have a wider one, where its Note
	// says why.
	ErrorBand float64
	// Privileges says who can read it: "every user", "root (0400 since Linux
	// 5.10)", "CAP_PERFMON".
	Privileges string
	// Tested says on what it was tested: "simulated", "real".
	Tested string
}

var (
	registryMu sync.Mutex
	registry   []Backend
)

// Register makes a back-end known to [Detect]. It is called from the init
// function of the package that has it; the first registration of a name counts.
func Register(b Backend) {
	registryMu.Lock()
	defer registryMu.Unlock()
	if !slices.ContainsFunc(registry, func(r Backend) bool { return r.Name == b.Name }) {
		registry = append(registry, b)
	}
}

// Registered returns the names of the back-ends this program contains, sorted.
func Registered() []string {
	registryMu.Lock()
	defer registryMu.Unlock()
	names := make([]string, 0, len(registry))
	for _, b := range registry {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return names
}

// Supported returns what the registered back-ends can read, by the back-end's
// name.
func Supported() map[string][]Support {
	registryMu.Lock()
	defer registryMu.Unlock()
	all := make(map[string][]Support, len(registry))
	for _, b := range registry {
		all[b.Name] = slices.Clone(b.Supports)
	}
	return all
}

// Roots are the folders where the kernel's file systems are found. In a
// container they are often the host's, mounted elsewhere.
type Roots struct {
	Sys  string // normally /sys
	Proc string // normally /proc
}

// Status says what became of a source that is not among those in use.
type Status string

const (
	// Absent: the machine has no such hardware.
	Absent Status = "absent"
	// Unreadable: the machine has the hardware, and it cannot be read.
	Unreadable Status = "unreadable"
	// Superseded: the hardware is read by a better source.
	Superseded Status = "superseded"
)

// Omission says why something is not measured, and what would change that.
type Omission struct {
	// Source is the back-end that looked.
	Source    string
	Component Component
	// Device is the ID of the device left out; empty for the back-end as a
	// whole.
	Device string
	Status Status
	// Reason is one sentence for people; Remedy is what they can do, where
	// they can.
	Reason string
	Remedy string
	// Err is the cause, for errors.Is.
	Err error
}

// Option configures [Detect].
type Option interface{ apply(*detection) }

type optionFunc func(*detection)

func (f optionFunc) apply(d *detection) { f(d) }

type detection struct {
	roots    Roots
	backends []Backend
	timeout  time.Duration
}

// WithSysRoot reads sysfs below root instead of HOST_SYS or /sys.
func WithSysRoot(root string) Option {
	return optionFunc(func(d *detection) { d.roots.Sys = root })
}

// WithProcRoot reads procfs below root instead of HOST_PROC or /proc. The
// job's own processes are read from the real /proc all the same.
func WithProcRoot(root string) Option {
	return optionFunc(func(d *detection) { d.roots.Proc = root })
}

// WithBackends replaces the registered back-ends by those given.
func WithBackends(backends ...Backend) Option {
	return optionFunc(func(d *detection) { d.backends = backends })
}

// WithBackend adds a back-end to those that are registered: one that must be
// told where to read, such as a meter in the network.
func WithBackend(b Backend) Option {
	return optionFunc(func(d *detection) { d.backends = append(d.backends, b) })
}

// WithTimeout bounds the time Detect waits for a back-end that does not
// answer; the default is 15 s, as an NVIDIA driver without persistence mode
// can take seconds per GPU to wake.
func WithTimeout(timeout time.Duration) Option {
	return optionFunc(func(d *detection) { d.timeout = timeout })
}

// DefaultRoots returns /sys and /proc, or what HOST_SYS and HOST_PROC name, as
// gopsutil has it.
func DefaultRoots() Roots {
	r := Roots{Sys: "/sys", Proc: "/proc"}
	if v := os.Getenv("HOST_SYS"); v != "" {
		r.Sys = v
	}
	if v := os.Getenv("HOST_PROC"); v != "" {
		r.Proc = v
	}
	return r
}

// RootsOf returns the roots that [Detect] would use with these options.
func RootsOf(opts ...Option) Roots {
	d := detection{roots: DefaultRoots()}
	for _, o := range opts {
		if o != nil {
			o.apply(&d)
		}
	}
	return d.roots
}

// Detect opens the best disjoint set of sensors on this machine: no piece of
// hardware is read twice, and of two sources for one piece the better method is
// kept. A machine without any sensor gives an empty set, not an error; the
// set's omissions say why. The error is that of the context.
func Detect(ctx context.Context, opts ...Option) (*Set, error) {
	d := detection{roots: DefaultRoots(), timeout: 15 * time.Second}
	registryMu.Lock()
	d.backends = slices.Clone(registry)
	registryMu.Unlock()
	for _, o := range opts {
		if o != nil {
			o.apply(&d)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("sensors: detect: %w", err)
	}

	found := make([]opened, len(d.backends))
	var wait sync.WaitGroup
	for i, b := range d.backends {
		wait.Go(func() { found[i] = open(ctx, b, d.roots, d.timeout) })
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		for _, f := range found {
			if f.sensor != nil {
				_ = f.sensor.Close()
			}
		}
		return nil, fmt.Errorf("sensors: detect: %w", err)
	}

	var sensors []Sensor
	var omitted []Omission
	for _, f := range found {
		if f.sensor != nil {
			sensors = append(sensors, f.sensor)
		}
		omitted = append(omitted, f.omitted...)
	}
	omitted = append(omitted, unclaimed(d, spokenFor(sensors, omitted))...)
	s := newSet(sensors, omitted)
	s.readOtherwise()
	return s, nil
}

// readOtherwise finds that what the back-end of the driver cannot read as a whole,
// such as one that was built without cgo, is read by another, such as an exporter. On
// a Jetson board the driver has no power of the GPU, and a rail has.
func (s *Set) readOtherwise() {
	at := slices.IndexFunc(s.devices, func(d Device) bool { return d.Component == GPU && strings.EqualFold(d.Vendor, "nvidia") })
	if at < 0 {
		return
	}
	for i := range s.omitted {
		if o := &s.omitted[i]; o.Source == "nvml" && (o.Device == "" || s.devices[at].Whole) && o.Status == Unreadable {
			o.Status = Superseded
			o.Reason += "; " + s.devices[at].Source + " reads it"
		}
	}
}

type opened struct {
	sensor  Sensor
	omitted []Omission
}

// open calls one back-end with a deadline. A back-end that answers after it is
// closed again by the goroutine that waited for it.
func open(ctx context.Context, b Backend, roots Roots, timeout time.Duration) opened {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer := make(chan opened)
	go func() {
		var o opened
		defer func() {
			if p := recover(); p != nil {
				o = opened{omitted: []Omission{{
					Source: b.Name, Component: b.Component, Status: Unreadable,
					Reason: fmt.Sprintf("the back-end failed while probing: %v", p),
					Err:    ErrTransient,
				}}}
			}
			select {
			case answer <- o:
			case <-ctx.Done():
				if o.sensor != nil {
					_ = o.sensor.Close()
				}
			}
		}()
		o.sensor, o.omitted = b.Open(ctx, roots)
	}()
	select {
	case o := <-answer:
		return o
	case <-ctx.Done():
		return opened{omitted: []Omission{{
			Source: b.Name, Component: cmp.Or(b.Component, CPU), Status: Unreadable,
			Reason: fmt.Sprintf("%s did not answer within %v", b.Name, timeout),
			Remedy: "see whether the driver hangs (dmesg, nvidia-smi), then start again",
			Err:    ErrTimeout,
		}}}
	}
}

// Set is a disjoint set of open sensors, with what was left out of it.
type Set struct {
	sensors []Sensor
	devices []Device
	omitted []Omission
}

// NewSet makes a set of sensors that are already open, such as scripted ones.
// Where two of them see the same hardware the better one is kept, as in
// [Detect].
func NewSet(sensors ...Sensor) *Set { return newSet(sensors, nil) }

// NewSetWithout makes a set of sensors that are already open, and of what is known
// to be left out of it.
func NewSetWithout(omitted []Omission, sensors ...Sensor) *Set { return newSet(sensors, omitted) }

func newSet(sensors []Sensor, omitted []Omission) *Set {
	s := &Set{omitted: omitted}
	chosen, superseded := disjoint(sensors)
	s.omitted = append(s.omitted, superseded...)
	for i, sensor := range sensors {
		switch all := sensor.Devices(); len(chosen[i]) {
		case 0:
			_ = sensor.Close()
			continue
		case len(all):
		default:
			sensor = &subset{
				Sensor: sensor, index: chosen[i],
				devices: pick(all, chosen[i]), scratch: make([]Reading, len(all)),
			}
		}
		s.sensors = append(s.sensors, sensor)
		s.devices = append(s.devices, sensor.Devices()...)
	}
	return s
}

// disjoint chooses, for each sensor, the indices of the devices that nothing
// better covers.
func disjoint(sensors []Sensor) (chosen [][]int, superseded []Omission) {
	type candidate struct {
		sensor, index int
		Device
	}
	var all []candidate
	for i, s := range sensors {
		for j, d := range s.Devices() {
			all = append(all, candidate{i, j, d})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		first := func(a, b bool) int { // those for whom it is true come first
			switch {
			case a == b:
				return 0
			case a:
				return -1
			default:
				return 1
			}
		}
		// Of two of one method the one that tells devices apart is kept, and the
		// one that holds what another would leave out.
		return cmp.Or(first(a.Declared, b.Declared), a.Method.rank()-b.Method.rank(),
			first(!a.Whole, !b.Whole), len(b.Includes)-len(a.Includes))
	})
	chosen = make([][]int, len(sensors))
	var taken []Device
next:
	for _, c := range all {
		for _, t := range taken {
			if overlap(t, c.Device) {
				superseded = append(superseded, Omission{
					Source: c.Source, Component: c.Component, Device: c.ID, Status: Superseded,
					Reason: fmt.Sprintf("%s is read as %s by %s", c.Component, t.ID, t.Source),
				})
				continue next
			}
		}
		taken = append(taken, c.Device)
		chosen[c.sensor] = append(chosen[c.sensor], c.index)
	}
	for _, index := range chosen {
		slices.Sort(index)
	}
	return chosen, superseded
}

// overlap reports whether two devices account for some of the same hardware.
func overlap(a, b Device) bool {
	switch {
	case a.ID == b.ID:
		return true
	case a.Component == Node || b.Component == Node:
		// Two meters of one machine; what it contains is not read in its stead.
		return a.Component == b.Component
	case a.Component == b.Component:
		return a.Whole || b.Whole
	default:
		return slices.Contains(a.Includes, b.Component) || slices.Contains(b.Includes, a.Component)
	}
}

// Sensors returns the sensors of the set. Each reads exactly the devices of it
// that the set uses; together, in order, they are Devices.
func (s *Set) Sensors() []Sensor { return slices.Clone(s.sensors) }

// Devices returns the devices of the set, disjoint, in the order of Sensors.
func (s *Set) Devices() []Device { return slices.Clone(s.devices) }

// Read reads all sensors, one after the other, into dst, which is at least as
// long as Devices. It is for programs that sample by themselves; the tracker
// gives each sensor that can block a goroutine of its own.
func (s *Set) Read(dst []Reading) {
	for _, sensor := range s.sensors {
		n := len(sensor.Devices())
		sensor.Read(dst[:n:n])
		dst = dst[n:]
	}
}

// Omissions returns every source that was looked for and is not in use, with
// the reason.
func (s *Set) Omissions() []Omission { return slices.Clone(s.omitted) }

// Missing returns the hardware for which the set has no figure: the components
// without any device, and the single devices that cannot be read beside others
// that can. Only entries with status [Unreadable] make a total partial.
func (s *Set) Missing() []Omission {
	var missing []Omission
	for _, c := range []Component{GPU, CPU, Memory} {
		if s.covered(c) {
			continue
		}
		before := len(missing)
		absent := Omission{Component: c, Status: Absent, Reason: "no " + string(c) + " found", Err: ErrAbsent}
		for _, o := range s.omitted {
			switch {
			case o.Component != c, s.reads(o.Device):
			case o.Status == Unreadable:
				missing = append(missing, o)
			case o.Status == Absent && o.Reason != "":
				absent.Source, absent.Reason, absent.Err = o.Source, o.Reason, errors.Join(ErrAbsent, o.Err)
			}
		}
		if len(missing) > before || s.has(c) {
			continue
		}
		if c != GPU {
			// Every machine has a processor and memory.
			absent.Status, absent.Err = Unreadable, ErrUnsupported
			absent.Reason = "no back-end of this program reads the " + string(c)
			absent.Remedy = "import github.com/wattspan/wattspan/sensors/host"
		}
		missing = append(missing, absent)
	}
	return missing
}

// reads reports whether the set has a device of this ID, from whatever source.
func (s *Set) reads(id string) bool {
	return id != "" && slices.ContainsFunc(s.devices, func(d Device) bool { return d.ID == id })
}

// has reports whether the set has a figure for at least a part of c.
func (s *Set) has(c Component) bool {
	return slices.ContainsFunc(s.devices, func(d Device) bool {
		return d.Component == c || slices.Contains(d.Includes, c)
	})
}

// covered reports whether one device of the set stands for the whole of c, so
// that a source which could not be read leaves nothing out.
func (s *Set) covered(c Component) bool {
	return slices.ContainsFunc(s.devices, func(d Device) bool {
		return d.Component == c && d.Whole || slices.Contains(d.Includes, c)
	})
}

// Close closes all sensors.
func (s *Set) Close() error {
	var errs []error
	for _, sensor := range s.sensors {
		errs = append(errs, sensor.Close())
	}
	return errors.Join(errs...)
}

// subset shows some of a sensor's devices.
type subset struct {
	Sensor
	index   []int
	devices []Device
	scratch []Reading
}

func (s *subset) Devices() []Device { return s.devices }

func (s *subset) Read(dst []Reading) {
	s.Sensor.Read(s.scratch)
	for i, j := range s.index {
		dst[i] = s.scratch[j]
	}
}

// Begin lets the tallies of the sensor begin now, as far as they can.
func (s *subset) Begin() {
	if b, ok := s.Sensor.(interface{ Begin() }); ok {
		b.Begin()
	}
}

// Poll polls the sensor, as far as it can be.
func (s *subset) Poll(ctx context.Context) {
	if p, ok := s.Sensor.(interface{ Poll(context.Context) }); ok {
		p.Poll(ctx)
	}
}

// Processes implements ProcessLister, as far as the sensor does.
func (s *subset) Processes(i int) ([]ProcessUse, error) {
	if lister, ok := s.Sensor.(ProcessLister); ok {
		return lister.Processes(s.index[i])
	}
	return nil, fmt.Errorf("%s: processes: %w", s.devices[i].Source, ErrUnsupported)
}

func pick(devices []Device, index []int) []Device {
	picked := make([]Device, len(index))
	for i, j := range index {
		picked[i] = devices[j]
	}
	return picked
}

// PCIDevice returns the ID of a device that is known by its address on the PCI
// bus, such as "0000:03:00.0".
func PCIDevice(address string) string { return "pci-" + address }

// spokenFor returns the IDs of the devices that back-ends read, or say that they
// cannot read.
func spokenFor(sensors []Sensor, omitted []Omission) map[string]bool {
	ids := map[string]bool{}
	for _, s := range sensors {
		for _, d := range s.Devices() {
			ids[d.ID] = true
		}
	}
	for _, o := range omitted {
		ids[o.Device] = true
	}
	return ids
}

// unclaimed looks for hardware that no back-end of this program speaks for.
func unclaimed(d detection, spokenFor map[string]bool) []Omission {
	var omitted []Omission
	for _, gpus := range otherGPUs(d.roots, spokenFor) {
		omitted = append(omitted, Omission{
			Source: "pci", Component: GPU, Status: Unreadable,
			Reason: "this machine has " + gpus + ", of which nothing here tells the power",
			Err:    ErrUnsupported,
		})
	}
	if !slices.ContainsFunc(d.backends, func(b Backend) bool { return b.Name == "nvml" }) && NVIDIAPresent(d.roots) {
		omitted = append(omitted, Omission{
			Source: "nvml", Component: GPU, Status: Unreadable,
			Reason: "this machine has an NVIDIA GPU and this program does not contain the nvml back-end",
			Remedy: `import _ "github.com/wattspan/wattspan/sensors/nvml" and build with CGO_ENABLED=1 on Linux`,
			Err:    ErrUnsupported,
		})
	}
	return omitted
}

// pciDevice is a device on the PCI bus, as sysfs has it.
type pciDevice struct {
	address, vendor, class string
	memory                 uint64 // of a display controller, where its driver tells
}

func pciDevices(roots Roots) []pciDevice {
	bus := filepath.Join(roots.Sys, "bus/pci/devices")
	entries, _ := os.ReadDir(bus)
	devices := make([]pciDevice, len(entries))
	for i, e := range entries {
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join(bus, e.Name(), name))
			return strings.TrimSpace(string(text))
		}
		d := pciDevice{address: e.Name(), vendor: read("vendor"), class: read("class")}
		d.memory, _ = strconv.ParseUint(read("mem_info_vram_total"), 10, 64)
		devices[i] = d
	}
	return devices
}

// display and processing report the class of a device: a display controller,
// with or without VGA, and an accelerator of computing.
func (d pciDevice) display() bool    { return strings.HasPrefix(d.class, "0x03") }
func (d pciDevice) processing() bool { return strings.HasPrefix(d.class, "0x12") }

// otherGPUs lists the accelerators that no back-end speaks for. The
// graphics of a processor are in its own figure: those of Intel are on the first
// bus, and those of AMD have little memory of their own.
func otherGPUs(roots Roots, spokenFor map[string]bool) []string {
	const little = 6 << 30
	counts := map[string]int{}
	for _, d := range pciDevices(roots) {
		switch {
		case spokenFor[PCIDevice(d.address)]:
		case d.vendor == "0x1002" && (d.processing() || d.display() && d.memory > little):
			counts["AMD"]++
		case d.vendor == "0x8086" && d.display() && !strings.Contains(d.address, ":00:"):
			counts["Intel"]++
		case d.vendor == "0x1da3" && d.processing():
			counts["Habana"]++
		}
	}
	var found []string
	for _, vendor := range []string{"AMD", "Intel", "Habana"} {
		switch n := counts[vendor]; {
		case n == 1:
			found = append(found, "a GPU of "+vendor)
		case n > 1:
			found = append(found, fmt.Sprintf("%d GPUs of %s", n, vendor))
		}
	}
	return found
}

// NVIDIAPresent reports whether the machine has an NVIDIA GPU, with or without
// a driver: the driver's own list, or a PCI display controller or accelerator
// of the vendor.
func NVIDIAPresent(roots Roots) bool {
	if gpus, _ := os.ReadDir(filepath.Join(roots.Proc, "driver/nvidia/gpus")); len(gpus) > 0 {
		return true
	}
	return slices.ContainsFunc(pciDevices(roots), func(d pciDevice) bool { return d.vendor == "0x10de" && d.display() })
}
