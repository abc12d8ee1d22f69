package tracker

import (
	"slices"
	"testing"

	"github.com/wattspan/wattspan/sensors"
	_ "github.com/wattspan/wattspan/sensors/nvml"
	_ "github.com/wattspan/wattspan/sensors/rapl"
)

// What the study says of a kind of sensor is true of the back-ends only while
// they print the same band.
func TestStudyHasTheBandsOfTheBackends(t *testing.T) {
	backends := map[sensors.Component]string{sensors.GPU: "nvml", sensors.CPU: "rapl"}
	supported := sensors.Supported()
	for _, kind := range studySensors() {
		d := kind.script.Device
		supports := supported[backends[d.Component]]
		partTime := kind.script.Duty > 0 // has a wider band than its kind, by the model of the GPU
		if !slices.ContainsFunc(supports, func(u sensors.Support) bool {
			return u.Component == d.Component && u.Method == d.Method && (u.ErrorBand == d.ErrorBand || partTime && u.ErrorBand < d.ErrorBand)
		}) {
			t.Errorf("%s: the study has a band of %v, %s supports %+v", kind.name, d.ErrorBand, backends[d.Component], supports)
		}
	}
}
