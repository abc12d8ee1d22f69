package hwmon

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// sleepNote says what is made of a GPU that sleeps.
const sleepNote = "while it sleeps it is not woken, and counts as 0 W"

// cardBand is the error of the counters of Intel's cards.
const cardBand = 0.05

// byPCI orders chips as their devices are on the bus.
func byPCI(a, b chip) int { return cmp.Compare(a.pci(), b.pci()) }

// gpuID is the identity of a GPU.
func (c chip) gpuID() string {
	if address := c.pci(); address != "" {
		return sensors.PCIDevice(address)
	}
	return c.name + "-" + filepath.Base(c.device)
}

// gpu describes the GPU of a chip.
func (c chip) gpu(vendor string, index int) sensors.Device {
	name, _ := readText(filepath.Join(c.device, "product_name"))
	if name == "" {
		name = strings.TrimSpace(vendor + " GPU " + c.model())
	}
	return sensors.Device{
		ID: c.gpuID(), Index: index, Name: name, Vendor: vendor,
		Component: sensors.GPU, Scope: sensors.ScopeDevice,
		Source: c.source(), Note: sleepNote, Refresh: slack,
	}
}

// mi300A is the PCI device of the accelerator that has processor cores, and memory
// that they share, in its package.
const mi300A = "0x74a0"

// amdGPUs reads the GPUs of AMD.
func (o *opening) amdGPUs(chips []chip) {
	slices.SortStableFunc(chips, byPCI)
	index := 0
	for _, c := range chips {
		// Only processors with graphics have a voltage of the north bridge, and
		// the power of such a one is that of the whole processor.
		if c.has("in1_input") || c.has("in1_label") {
			o.supersede(sensors.GPU, c.gpuID(), "the graphics of the processor are in its own figure")
			continue
		}
		m := &meter{Device: c.gpu("AMD", index), chip: c}
		index++
		if c.model() == mi300A {
			m.Scope, m.Includes = sensors.ScopeModule, []sensors.Component{sensors.CPU, sensors.Memory}
			m.Note += "; the figure is that of the processor cores and the memory too"
		}
		o.mayBeBusy(m)
		if o.maySleep(m) {
			o.amdPower(m, c.has)
		} else {
			m.bound = c.limit()
			o.amdPower(m, func(name string) bool {
				_, err := o.once(c, name)
				return err == nil
			})
			o.amdEnergy(m)
		}
		switch {
		case m.energy == nil && len(m.rails) == 0:
			_ = m.close()
			o.unreadable(m, fmt.Errorf("its driver shows neither its power nor its energy: %w", sensors.ErrUnsupported))
		case m.energy == nil && o.powerless(m):
			_ = m.close()
			if slices.ContainsFunc(chips, func(twin chip) bool { return twin.model() == c.model() && o.draws(twin) }) {
				o.supersede(sensors.GPU, m.ID, "it shows no power: the other die of its card shows that of both")
				continue
			}
			o.unreadable(m, fmt.Errorf("its driver shows 0 W although it is awake: %w", sensors.ErrUnsupported))
		default:
			o.add(m)
		}
	}
}

// amdPower takes the averaged power of a GPU where there is one.
func (o *opening) amdPower(m *meter, readable func(name string) bool) {
	for _, p := range []struct {
		name   string
		method sensors.Method
	}{{"power1_average", sensors.MethodPowerAverage}, {"power1_input", sensors.MethodPower}} {
		if readable(p.name) {
			m.rails = []rail{{file: o.number(m.chip, p.name), scale: microwatts}}
			m.byPower, m.Method, m.ErrorBand = p.method, p.method, powerBand(p.method)
			return
		}
	}
}

// amdEnergy takes the energy accumulator of a GPU where there is one.
func (o *opening) amdEnergy(m *meter) {
	f := o.fixed(m.chip.device, "gpu_metrics", metricsSize)
	table, err := f.Text(o.now())
	if err == nil {
		_, err = parseMetrics(table)
	}
	if err != nil {
		_ = f.Close()
		return
	}
	m.energy, m.decode = f, parseMetrics
	m.Method, m.ErrorBand = sensors.MethodCounter, cardBand
}

// powerless reports whether a GPU that is awake shows 0 W, which none draws.
func (o *opening) powerless(m *meter) bool {
	at := o.now()
	if m.sleeps(at) {
		return false
	}
	w, err := m.watts(at)
	return err == nil && w == 0
}

// draws reports whether a chip shows a power.
func (o *opening) draws(c chip) bool {
	for _, name := range []string{"power1_average", "power1_input"} {
		if w, err := o.once(c, name); err == nil && w > 0 {
			return true
		}
	}
	return false
}

// once reads a number of a chip.
func (o *opening) once(c chip, name string) (uint64, error) {
	f := o.number(c, name)
	defer func() { _ = f.Close() }()
	return f.Uint(o.now())
}

// maySleep gives a meter the file that says whether its device sleeps, and
// reports whether it does so now.
func (o *opening) maySleep(m *meter) bool {
	if m.chip.device == "" {
		return false
	}
	m.status = o.fixed(m.chip.device, filepath.Join("power", "runtime_status"), text)
	return m.sleeps(o.now())
}

// mayBeBusy gives a meter the file that says how busy its GPU is. The driver has
// it from the same table as the power.
func (o *opening) mayBeBusy(m *meter) {
	const name = "gpu_busy_percent"
	if _, err := os.Stat(filepath.Join(m.chip.device, name)); err == nil {
		m.busy = o.fixed(m.chip.device, name, text)
	}
}

// model is the PCI device of a chip.
func (c chip) model() string {
	s, _ := readText(filepath.Join(c.device, "device"))
	return s
}

// intelGPUs reads the discrete GPUs of Intel. Only they have sensors; those of one
// tile, i915_gt0, are in them and have another name.
func (o *opening) intelGPUs(chips []chip) {
	slices.SortStableFunc(chips, byPCI)
	index := 0
	for _, c := range chips {
		if strings.HasPrefix(c.pci(), "0000:00:") {
			o.supersede(sensors.GPU, c.gpuID(), "the graphics of the processor are in its own figure")
			continue
		}
		m := &meter{Device: c.gpu("Intel", index), chip: c}
		index++
		m.Method, m.ErrorBand = sensors.MethodCounter, cardBand
		// The driver xe shows 0 when it cannot read the telemetry of a card.
		m.zeroFails = c.name == intelXe
		if !o.maySleep(m) {
			m.bound = c.limit()
		}
		file, whole := c.cardEnergy()
		if file == "" {
			_ = m.close()
			o.unreadable(m, fmt.Errorf("its driver shows no energy: %w", sensors.ErrUnsupported))
			continue
		}
		switch {
		case c.name == intelI915:
			m.Note += "; the driver calls the figure the card's, and xe calls the same register the package's"
			m.ErrorBand = i915Band
		case !whole:
			m.Note += "; the figure is that of the package, without the card's memory and converters"
			m.ErrorBand = packageBand
		}
		m.energy = o.number(c, file)
		o.add(m)
	}
}

// packageBand is the error of taking the package of a card for the card, and
// i915Band that of not being sure which of them it is.
const (
	packageBand = 0.20
	i915Band    = 0.10
)

// cardEnergy returns the file with the energy of a card, and whether that is the
// whole card's. The package is in the card: the two are never added.
func (c chip) cardEnergy() (file string, whole bool) {
	file, whole = "", false
	for i := 1; i <= 2; i++ {
		name := fmt.Sprintf("energy%d_input", i)
		if !c.has(name) {
			continue
		}
		switch label := c.text(fmt.Sprintf("energy%d_label", i)); {
		case label == "card":
			return name, true
		case label == "" && c.name == intelI915:
			return name, true
		case file == "":
			file = name
		}
	}
	return file, false
}
