package host

import (
	"math"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

func TestMemory(t *testing.T) {
	const gb = 1 << 30
	for _, test := range []struct {
		name  string
		m     Machine
		watts float64
		band  float64
		scope sensors.Scope
		note  string
	}{
		{"by size", Machine{Memory: 64 * gb}, 19.2, 0.60, sensors.ScopeDevice, "model: 0.3 W/GB × 64 GB"},
		{"by modules", Machine{Memory: 64 * gb, Modules: 8}, 32, 0.50, sensors.ScopeDevice, "model: 4.00 W × 8 modules (64 GB)"},
		// CodeCarbon #629: 378 W for 1 TB. Modules say 64 W; without them the
		// figure is high, and its band and note show it.
		{"1 TB by modules", Machine{Memory: 1024 * gb, Modules: 16}, 64, 0.50, sensors.ScopeDevice, "model: 4.00 W × 16 modules (1024 GB)"},
		{"1 TB by size", Machine{Memory: 1024 * gb}, 307.2, 0.60, sensors.ScopeDevice, "model: 0.3 W/GB × 1024 GB"},
		{"guest", Machine{Hypervisor: "kvm", Memory: 8 * gb, Modules: 1}, 2.4, 0.63, sensors.ScopeShare, "model: 0.3 W/GB × 8 GB, the guest's part of the host"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, m := newMemory(test.m)
			if math.Abs(float64(m.power)-test.watts) > 1e-9 || d.ErrorBand != test.band || d.Scope != test.scope || d.Note != test.note {
				t.Errorf("%v W, %v, %v, %q", float64(m.power), d.ErrorBand, d.Scope, d.Note)
			}
			if !d.Whole || d.Method != sensors.MethodModel {
				t.Errorf("%+v", d)
			}
		})
	}
}
