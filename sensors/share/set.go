package share

import (
	"context"
	"os"

	"github.com/wattspan/wattspan/sensors"
)

// setOf makes a set of sensors that are open, as sensors.NewSet does, with what is
// known to be missing.
func setOf(open []sensors.Sensor, omitted []sensors.Omission) *sensors.Set {
	backends := []sensors.Backend{{Name: "share", Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
		return nil, omitted
	}}}
	for _, s := range open {
		backends = append(backends, sensors.Backend{Name: "share", Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			return s, nil
		}})
	}
	// Nothing is looked for: there is no hardware below these roots. The only
	// error is that of the context.
	set, _ := sensors.Detect(context.Background(), sensors.WithBackends(backends...),
		sensors.WithSysRoot(os.DevNull), sensors.WithProcRoot(os.DevNull))
	return set
}
