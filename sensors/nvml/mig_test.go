package nvml

import (
	"maps"
	"math"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

func TestInstances(t *testing.T) {
	instance := func(id string, in, its, slices int) sensortest.GPUInstance {
		return sensortest.GPUInstance{ID: id, In: in, InSlices: its, Slices: slices}
	}
	noProfiles := []sensortest.Fault{{On: "nvmlDeviceGetGpuInstanceProfileInfo", Code: int(noPermission)}}
	for name, test := range map[string]struct {
		slices    int
		instances []sensortest.GPUInstance
		faults    []sensortest.Fault
		want      map[string]float64
	}{
		"none":        {7, nil, nil, map[string]float64{}},
		"the largest": {7, []sensortest.GPUInstance{instance("7g", 0, 7, 7)}, nil, map[string]float64{"7g": 1}},
		// CEEMS's documentation weighs an instance of 4 slices as one of 7.
		"4g and 3g": {7, []sensortest.GPUInstance{instance("4g", 1, 4, 4), instance("3g", 2, 3, 3)}, nil,
			map[string]float64{"4g": 4. / 7, "3g": 3. / 7}},
		"a slice is nobody's": {7, []sensortest.GPUInstance{instance("3g", 1, 3, 3), instance("2g", 2, 2, 2), instance("1g", 3, 1, 1)}, nil,
			map[string]float64{"3g": 3. / 7, "2g": 2. / 7, "1g": 1. / 7}},
		"an A30": {4, []sensortest.GPUInstance{instance("2g", 1, 2, 2), instance("1g", 2, 1, 1)}, nil,
			map[string]float64{"2g": 0.5, "1g": 0.25}},
		"an A30 whose profiles are not told": {4, []sensortest.GPUInstance{instance("1g", 2, 1, 1)}, noProfiles,
			map[string]float64{"1g": 0.25}},
		"an instance that is divided": {7, []sensortest.GPUInstance{instance("1c.3g", 1, 3, 1), instance("2c.3g", 1, 3, 2), instance("4g", 2, 4, 4)}, nil,
			map[string]float64{"1c.3g": 1. / 7, "2c.3g": 2. / 7, "4g": 4. / 7}},
		"an instance that is divided, and not all used": {7, []sensortest.GPUInstance{instance("1c.3g", 1, 3, 1), instance("1c.3g'", 1, 3, 1)}, nil,
			map[string]float64{"1c.3g": 1.5 / 7, "1c.3g'": 1.5 / 7}},
		"a part of an instance": {7, []sensortest.GPUInstance{instance("1c.4g", 1, 4, 1)}, nil,
			map[string]float64{"1c.4g": 4. / 7}},
		"one whose slices are not told": {7, []sensortest.GPUInstance{instance("4g", 1, 4, 4), instance("3g", 2, 3, 3)},
			[]sensortest.Fault{{On: "slices of 4g"}}, map[string]float64{"3g": 3. / 7}},
		"not told": {7, []sensortest.GPUInstance{instance("4g", 1, 4, 4)},
			[]sensortest.Fault{{On: "nvmlDeviceGetMaxMigDeviceCount"}}, map[string]float64{}},
	} {
		t.Run(name, func(t *testing.T) {
			g := card(sensortest.Constant(300))
			g.MIG, g.Slices, g.Instances, g.Faults = true, test.slices, test.instances, test.faults
			r := start(t, g)
			checkParts(t, r.sensor.Devices(), test.want)
			// The energy is the GPU's, once, however many instances there are.
			if got := r.after(10 * time.Second); len(got) != 1 || got[0].Energy != 3000e6 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func checkParts(t *testing.T, devices []sensors.Device, want map[string]float64) {
	t.Helper()
	if len(devices) != 1 {
		t.Fatalf("%d devices, want the GPU alone", len(devices))
	}
	got, sum := map[string]float64{}, 0.
	for _, p := range devices[0].Parts {
		got[p.ID] = p.Share
		sum += p.Share
	}
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-12 }
	if !maps.EqualFunc(got, want, near) || sum > 1+1e-12 {
		t.Errorf("shares %v, want %v", got, want)
	}
}

// Instances are asked for on a GPU in MIG mode alone.
func TestNoInstances(t *testing.T) {
	g := divided()
	g.MIG = false
	if d := start(t, g).sensor.Devices()[0]; d.Parts != nil {
		t.Errorf("%+v", d.Parts)
	}
}
