package tracker_test

import (
	"context"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/node"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// meterOf is a meter of the whole machine.
func meterOf(curve sensortest.Curve) sensortest.Script {
	m := counter("node", sensors.Node, curve)
	m.Scope, m.ErrorBand = sensors.ScopeNode, 0.03
	return m
}

func flagsOf(r tracker.Report) []tracker.FlagKind {
	var kinds []tracker.FlagKind
	for _, f := range r.Quality {
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

// The three boundaries: what the devices draw, what the machine draws at its plug,
// what the facility draws. PUE is applied once, to the plug.
func TestNodeModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(sensortest.NewSensor(nil, fast,
			counter("GPU-0", sensors.GPU, load), counter("package-0", sensors.CPU, sensortest.Constant(80))))
		tr := start(t, set, tracker.WithNodeProfile("desktop"))
		time.Sleep(30 * time.Second)
		r := stop(t, tr)
		p, err := node.Named("desktop")
		if err != nil {
			t.Fatal(err)
		}
		device := float64(load.Joules(30*time.Second)) + 80*30
		plug := (device + float64(p.Base)*30) / p.Efficiency
		near(t, "device", joules(t, r.Energy.Device), device, 1e-9)
		near(t, "node", joules(t, r.Energy.Node), plug, 1e-9)
		near(t, "unseen", joules(t, r.Energy.Unseen), plug-device, 1e-9)
		near(t, "facility", joules(t, r.Energy.Facility), plug*1.25, 1e-9)
		near(t, "emissions", float64(r.Emissions.Operational), plug*1.25/3.6e6*400, 1e-9)
		near(t, "node of the machine", joules(t, r.Node.Energy), plug, 1e-9)
		if r.Node.Method != "model" || r.Node.Profile == nil || r.Node.Profile.Name != "desktop" || r.Node.Meter != nil || r.Node.Coverage != 0 {
			t.Errorf("%+v", r.Node)
		}
		// Its error holds that of the devices and of the profile.
		width := func(i *tracker.Interval) float64 { return float64(i.High / i.Low) }
		if !(width(r.Bounds.Node) > 1.1 && width(r.Bounds.Facility) >= width(r.Bounds.Node)) {
			t.Errorf("bounds %+v, %+v", r.Bounds.Node, r.Bounds.Facility)
		}
		if len(r.Quality) != 0 {
			t.Errorf("doubts: %+v", r.Quality)
		}
	})
}

// A meter replaces the model; what the components do not explain is shown, and the
// meter is no component.
func TestNodeMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		set := sensors.NewSet(sensortest.NewSensor(nil, fast,
			counter("package-0", sensors.CPU, sensortest.Constant(80)), meterOf(sensortest.Constant(120))))
		tr := start(t, set, tracker.WithNodeProfile("desktop"),
			tracker.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
		time.Sleep(30*time.Second + time.Millisecond)
		got, _ := collect(t, reader)
		r := stop(t, tr)
		near(t, "device", joules(t, r.Energy.Device), 80*30, 1e-3)
		near(t, "node", joules(t, r.Energy.Node), 120*30, 1e-3)
		near(t, "residual", joules(t, r.Node.Residual), 40*30, 1e-3)
		near(t, "facility", joules(t, r.Energy.Facility), 120*30*1.25, 1e-3)
		if r.Node.Method != "counter" || r.Node.Meter == nil || r.Node.Meter.ID != "node" || r.Node.Coverage < 0.999 {
			t.Errorf("%+v", r.Node)
		}
		if len(r.Devices) != 1 || r.Devices[0].ID != "package-0" {
			t.Errorf("devices: %+v", r.Devices)
		}
		near(t, "bounds", float64(r.Bounds.Node.High/r.Bounds.Node.Low), math.Exp(4*math.Sqrt(math.Log1p(0.03*0.03))), 1e-6)

		// hw.host.energy is the meter's, and not in hw.energy too.
		near(t, "hw.host.energy", got.value(t, "hw.host.energy"), 120*30, 1e-3)
		near(t, "hw.host.power", got.value(t, "hw.host.power"), 120, 1e-9)
		if n := len(got["hw.energy"].points); n != 1 {
			t.Errorf("%d series of hw.energy, want the processor's", n)
		}
		var facility float64
		for _, p := range got["wattspan.energy"].points {
			facility += p.value
		}
		near(t, "unseen", got.value(t, "wattspan.energy", attribute.String("wattspan.component", "unseen"), attribute.String("wattspan.method", "counter")), 40*30, 1e-3)
		near(t, "the sum of wattspan.energy", facility, 120*30*1.25, 1e-3)
	})
}

// What the meter did not see, such as a battery while the charger was plugged in,
// is modelled in its stead; without a model it is a gap.
func TestNodeMeterWithGaps(t *testing.T) {
	for _, profile := range []string{"laptop", tracker.NodeNone} {
		synctest.Test(t, func(t *testing.T) {
			m := meterOf(sensortest.Constant(60))
			m.Lost = []sensortest.Span{{From: 10*time.Second + 500*time.Millisecond, To: 30 * time.Second}}
			set := sensors.NewSet(sensortest.NewSensor(nil, fast,
				counter("package-0", sensors.CPU, sensortest.Constant(15)), counter("dram-0", sensors.Memory, sensortest.Constant(5)), m))
			tr := start(t, set, tracker.WithNodeProfile(profile))
			time.Sleep(40 * time.Second)
			r := stop(t, tr)
			// Seen until 10 s and from 30 s on: half of the time.
			metered, want, method := 60*20., 60*20., "counter"
			if p, err := node.Named(profile); err == nil {
				want += 20 * (20 + float64(p.Base)) / p.Efficiency
				method = "counter,model"
			}
			near(t, profile+": node", joules(t, r.Energy.Node), want, 1e-6)
			near(t, profile+": coverage", r.Node.Coverage, 0.5, 1e-6)
			if r.Node.Method != method || float64(*r.Node.Meter.Energy) != metered {
				t.Errorf("%s: method %q, meter %+v", profile, r.Node.Method, r.Node.Meter)
			}
			if r.Partial != (profile == tracker.NodeNone) {
				t.Errorf("%s: partial %v", profile, r.Partial)
			}
			for _, want := range []tracker.FlagKind{tracker.FlagCoverage, tracker.FlagLost} {
				if !slices.Contains(flagsOf(r), want) {
					t.Errorf("%s: no flag %s in %+v", profile, want, r.Quality)
				}
			}
		})
	}
}

// A machine of which only the meter can be read has a node and no devices.
func TestNodeMeterAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, fast, meterOf(sensortest.Constant(300)))))
		time.Sleep(10 * time.Second)
		r := stop(t, tr)
		near(t, "node", joules(t, r.Energy.Node), 3000, 1e-9)
		near(t, "facility", joules(t, r.Energy.Facility), 3000*1.25, 1e-9)
		if r.Energy.Device != nil || r.Energy.Unseen != nil || r.Node.Residual != nil || !r.Partial {
			t.Errorf("%+v, residual %v, partial %v", r.Energy, r.Node.Residual, r.Partial)
		}
	})
}

// The job has the part of the node that it has of the devices, so that the parts
// of several jobs and what none of them has are together the node.
func TestNodeOfAJob(t *testing.T) {
	m := newMachine(t)
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(sensortest.NewSensor(nil, fast,
			counter("package-0", sensors.CPU, sensortest.Constant(80)), meterOf(sensortest.Constant(200))))
		job := new(usage)
		tr := start(t, set, tracker.WithScope(tracker.Job), tracker.WithJob(job), tracker.WithInterval(10*time.Second),
			tracker.WithDetection(sensors.WithProcRoot(m.root)))
		time.Sleep(9 * time.Second)
		m.busy(1008 * time.Second)
		job.cpu.Add(int64(2 * time.Second)) // a quarter
		time.Sleep(11 * time.Second)
		r := stop(t, tr)
		near(t, "job", joules(t, r.Job.Energy), 200, 1e-6)
		near(t, "unattributed", joules(t, r.Job.Unattributed), 1600-200, 1e-6)
		near(t, "job at the plug", joules(t, r.Job.Node), 200*200/80., 1e-6)
		near(t, "scope at the plug", joules(t, r.Energy.Node), 200*200/80., 1e-6)
		near(t, "facility of the scope", joules(t, r.Energy.Facility), 500*1.25, 1e-6)
		near(t, "node of the machine", joules(t, r.Node.Energy), 4000, 1e-6)
	})
}

// Who is charged with idle power: 100 W at idle, 300 W for 10 s of 40, in which the
// job has half of the load.
func TestIdlePolicies(t *testing.T) {
	for _, test := range []struct {
		policy tracker.Idle
		want   float64
	}{
		{tracker.IdleProportional, 300 * 10 / 2},
		{tracker.IdleWhole, 200*10/2 + 100*40},
		{tracker.IdleNone, 200 * 10 / 2},
		// Nothing is reserved here, so that it is divided by use.
		{tracker.IdleReserved, 300 * 10 / 2},
	} {
		m := newMachine(t)
		synctest.Test(t, func(t *testing.T) {
			curve := sensortest.Curve{{At: 0, Power: 100}, {At: 20 * time.Second, Power: 100}, {At: 20 * time.Second, Power: 300},
				{At: 30 * time.Second, Power: 300}, {At: 30 * time.Second, Power: 100}}
			set := sensors.NewSet(sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, curve)))
			job := new(usage)
			tr := start(t, set, tracker.WithJob(job), tracker.WithIdle(test.policy), tracker.WithInterval(10*time.Second),
				tracker.WithDetection(sensors.WithProcRoot(m.root)))
			time.Sleep(25 * time.Second)
			m.busy(1010 * time.Second)
			job.cpu.Add(int64(5 * time.Second))
			time.Sleep(15 * time.Second)
			r := stop(t, tr)
			near(t, string(test.policy), joules(t, r.Job.Energy), test.want, 1e-6)
			near(t, string(test.policy)+": with the rest", joules(t, r.Job.Energy)+joules(t, r.Job.Unattributed), 100*40+200*10, 1e-6)
			if r.Job.Idle != test.policy || r.Job.Shares[0].IdlePower == nil || *r.Job.Shares[0].IdlePower != 100 {
				t.Errorf("%s: %q, %+v", test.policy, r.Job.Idle, r.Job.Shares)
			}
		})
	}
}

// The meter below the sum of its components, or far above it, is a doubt.
func TestNodeDoubts(t *testing.T) {
	for _, test := range []struct {
		meter sensors.Watts
		want  []tracker.FlagKind
	}{
		{120, nil},
		{98, nil}, // within its error
		{70, []tracker.FlagKind{tracker.FlagNodeBelowSum}},
		{240, nil},
		{300, []tracker.FlagKind{tracker.FlagUnexplained}},
	} {
		synctest.Test(t, func(t *testing.T) {
			set := sensors.NewSet(sensortest.NewSensor(nil, fast,
				counter("package-0", sensors.CPU, sensortest.Constant(100)), meterOf(sensortest.Constant(test.meter))))
			tr := start(t, set)
			time.Sleep(10 * time.Second)
			r := stop(t, tr)
			if got := flagsOf(r); !slices.Equal(got, test.want) {
				t.Errorf("a meter at %v: %v, want %v", test.meter, got, test.want)
			}
			// The meter is believed all the same.
			near(t, "facility", joules(t, r.Energy.Facility), float64(test.meter)*10*1.25, 1e-6)
		})
	}
}

// A meter that is polled at a slow pace is polled once more at the end, so that a
// short run is covered; one that hangs does not hold the end up.
func TestPolledMeterAtTheEnd(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			polls := 0
			meter, _ := sensors.NewPolled(t.Context(), sensors.Polling{
				Devices: []sensors.Device{{ID: "plug", Component: sensors.Node, Method: sensors.MethodPower, Scope: sensors.ScopeNode, Source: "test", ErrorBand: 0.05}},
				Every:   5 * time.Second, Timeout: 10 * time.Second,
				Poll: func(ctx context.Context, values []sensors.Value) {
					if polls++; hangs && polls > 2 {
						<-ctx.Done()
						return
					}
					values[0] = sensors.Value{Power: 300}
				},
			})
			set := sensors.NewSet(meter)
			tr := start(t, set)
			time.Sleep(7 * time.Second)
			begin := time.Now()
			r := stop(t, tr)
			want, took := 2100., time.Duration(0)
			if hangs {
				want, took = 1500, 2*time.Second
			}
			near(t, "node", joules(t, r.Energy.Node), want, 1e-9)
			if waited := time.Since(begin); waited != took {
				t.Errorf("hangs %v: the end took %v, want %v", hangs, waited, took)
			}
			_ = set.Close()
		})
	}
}
