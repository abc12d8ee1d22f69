package host

import (
	"fmt"
	"math"

	"github.com/wattspan/wattspan/sensors"
)

const (
	// wattsPerModule is the middle of the 3 to 5 W that a server's module
	// draws, whatever its size.
	wattsPerModule sensors.Watts = 4
	modulesBand    float64       = 0.50
	// wattsPerGB is for memory whose modules cannot be counted. Published
	// models range from 0.284 (Boavizta) to 0.392 W/GB (Cloud Carbon
	// Footprint), and all of them rise with the size although the modules only
	// grow denser, which is why modules are the better measure: at 1 TB the two
	// differ by more than three times.
	wattsPerGB sensors.Watts = 0.3
	sizeBand   float64       = 0.60
)

// memory models the memory as a constant power, its refresh and its mean
// activity together: nothing that is cheap to read tells how busy it is.
type memory struct {
	meter
	power sensors.Watts
}

func newMemory(m Machine) (sensors.Device, *memory) {
	gb := math.Round(float64(m.Memory)/(1<<30)*10) / 10
	d := sensors.Device{
		ID: "memory", Component: sensors.Memory, Method: sensors.MethodModel,
		Scope: sensors.ScopeDevice, Source: "host", Whole: true,
	}
	model := &memory{meter: newMeter()}
	if m.Modules > 0 && !m.Virtual() {
		model.power, d.ErrorBand = wattsPerModule*sensors.Watts(m.Modules), modulesBand
		d.Note = fmt.Sprintf("model: %v × %d modules (%v GB)", wattsPerModule, m.Modules, gb)
	} else {
		model.power, d.ErrorBand = wattsPerGB*sensors.Watts(gb), sizeBand
		d.Note = fmt.Sprintf("model: 0.3 W/GB × %v GB", gb)
	}
	if m.Virtual() {
		d.Scope = sensors.ScopeShare
		d.Note += ", the guest's part of the host"
		d.ErrorBand = math.Round(math.Hypot(d.ErrorBand, shareBand)*100) / 100
	}
	return d, model
}

func (m *memory) read() (sensors.Watts, float64, error) { return m.power, math.NaN(), nil }
