//go:build linux

package battery

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// supply is one folder of /sys/class/power_supply, by its files.
type supply map[string]string

// laptop is a sensor over a fake tree and a clock.
type laptop struct {
	*testing.T
	tree    *sensortest.Sysfs
	clock   *sensortest.Clock
	sensor  sensors.Sensor
	omitted []sensors.Omission
	dst     [1]sensors.Reading
}

func start(t *testing.T, supplies map[string]supply) *laptop {
	t.Helper()
	x := &laptop{T: t, tree: sensortest.NewSysfs(t, sensortest.IntelClient()), clock: sensortest.NewClock()}
	for name, s := range supplies {
		for file, text := range s {
			x.set(name, file, text)
		}
	}
	x.sensor, x.omitted = open(x.tree.Roots(), x.clock.Now)
	if x.sensor != nil {
		t.Cleanup(func() {
			if err := x.sensor.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return x
}

func (x *laptop) set(name, file, text string) {
	x.Helper()
	x.tree.Write("sys/class/power_supply/"+name+"/"+file, text+"\n")
}

// read lets d pass and reads the sensor.
func (x *laptop) read(d time.Duration) sensors.Reading {
	x.clock.Advance(d)
	x.sensor.Read(x.dst[:])
	return x.dst[0]
}

func ac(online string) supply { return supply{"type": "Mains", "online": online} }

func discharging(microwatts string) supply {
	return supply{"type": "Battery", "present": "1", "status": "Discharging", "power_now": microwatts}
}

func TestBatteryThatDischarges(t *testing.T) {
	for name, c := range map[string]struct {
		supplies map[string]supply
		watts    sensors.Watts
	}{
		"power":              {map[string]supply{"AC": ac("0"), "BAT0": discharging("12500000")}, 12.5},
		"a negative power":   {map[string]supply{"AC": ac("0"), "BAT0": discharging("-12500000")}, 12.5},
		"voltage by current": {map[string]supply{"BAT0": {"type": "Battery", "status": "Discharging", "voltage_now": "11400000", "current_now": "1500000"}}, 17.1},
		"a negative current": {map[string]supply{"BAT0": {"type": "Battery", "status": "Discharging", "voltage_now": "11400000", "current_now": "-1500000"}}, 17.1},
		"two batteries":      {map[string]supply{"BAT0": discharging("5000000"), "BAT1": discharging("6000000")}, 11},
		// A ThinkPad empties one after the other.
		"one of two rests":                {map[string]supply{"BAT0": discharging("9000000"), "BAT1": {"type": "Battery", "status": "Unknown", "power_now": "0"}}, 9},
		"one of two is full":              {map[string]supply{"BAT0": discharging("9000000"), "BAT1": {"type": "Battery", "status": "Full", "power_now": "3000000"}}, 9},
		"a mouse":                         {map[string]supply{"BAT0": discharging("9000000"), "hidpp_battery_0": {"type": "Battery", "scope": "Device", "status": "Charging", "power_now": "1000000"}}, 9},
		"a phone that is charged by us":   {map[string]supply{"BAT0": discharging("9000000"), "phone": {"type": "USB", "scope": "Device", "online": "1"}}, 9},
		"a battery of the system":         {map[string]supply{"BAT0": {"type": "Battery", "scope": "System", "status": "Discharging", "power_now": "9000000"}}, 9},
		"a slot without a battery":        {map[string]supply{"BAT0": discharging("9000000"), "BAT1": {"type": "Battery", "present": "0", "status": "Unknown"}}, 9},
		"a UPS":                           {map[string]supply{"BAT0": discharging("9000000"), "ups": {"type": "UPS", "status": "Charging", "power_now": "1"}}, 9},
		"a charger that cannot be read":   {map[string]supply{"BAT0": discharging("9000000"), "ADP1": {"type": "Mains"}}, 9},
		"ports without a charger":         {map[string]supply{"BAT0": discharging("9000000"), "ucsi-source-psy-USBC000:001": {"type": "USB", "online": "0"}}, 9},
		"another name, by type not name":  {map[string]supply{"CMB1": discharging("9000000")}, 9},
		"power before voltage by current": {map[string]supply{"BAT0": {"type": "Battery", "status": "Discharging", "power_now": "8000000", "voltage_now": "1", "current_now": "1"}}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, c.supplies)
			if x.sensor == nil {
				t.Fatalf("no sensor: %+v", x.omitted)
			}
			if r := x.read(0); r.Err != nil || r.Tally != (sensors.Tally{}) || math.Abs(float64(r.Power-c.watts)) > 1e-9 {
				t.Fatalf("%+v, want %v", r, c.watts)
			}
			for range 12 {
				x.read(every)
			}
			r := x.read(0)
			if want := float64(c.watts) * 60e6; math.Abs(float64(r.Energy)-want) > 12 || r.Observed != time.Minute || r.Estimated != 0 {
				t.Errorf("%+v, want %v µJ in a minute", r.Tally, want)
			}
		})
	}
}

func TestOnMainsPower(t *testing.T) {
	battery := discharging("10000000")
	for name, c := range map[string]struct {
		supplies map[string]supply
		is       error
		says     string
	}{
		"a charger":                     {map[string]supply{"AC": ac("1"), "BAT0": battery}, sensors.ErrUnsupported, "on mains power: the battery does not see what the machine draws"},
		"a charger of USB-C":            {map[string]supply{"AC": ac("0"), "ucsi0": {"type": "USB", "online": "1"}, "BAT0": battery}, sensors.ErrUnsupported, "on mains power"},
		"a programmable charger":        {map[string]supply{"ucsi0": {"type": "USB", "online": "2"}, "BAT0": battery}, sensors.ErrUnsupported, "on mains power"},
		"a charging pad":                {map[string]supply{"pad": {"type": "Wireless", "online": "1"}, "BAT0": battery}, sensors.ErrUnsupported, "on mains power"},
		"a battery that is charged":     {map[string]supply{"BAT0": {"type": "Battery", "status": "Charging", "power_now": "30000000"}}, sensors.ErrUnsupported, "on mains power"},
		"one of two is charged":         {map[string]supply{"BAT0": battery, "BAT1": {"type": "Battery", "status": "Charging", "power_now": "30000000"}}, sensors.ErrUnsupported, "on mains power"},
		"a full battery":                {map[string]supply{"BAT0": {"type": "Battery", "status": "Full", "power_now": "0"}}, sensors.ErrUnsupported, "no battery is discharging"},
		"a battery that is held at 80%": {map[string]supply{"BAT0": {"type": "Battery", "status": "Not charging", "power_now": "0"}}, sensors.ErrUnsupported, "no battery is discharging"},
		// Unavailable is not zero.
		"a gauge that knows nothing": {map[string]supply{"BAT0": discharging("0")}, sensors.ErrTransient, "does not know"},
		"a gauge that says nonsense": {map[string]supply{"BAT0": discharging("unknown")}, sensors.ErrTransient, "power_now"},
		"no status":                  {map[string]supply{"BAT0": {"type": "Battery", "power_now": "1"}}, sensors.ErrLost, "status"},
		"voltage without a number":   {map[string]supply{"BAT0": {"type": "Battery", "status": "Discharging", "voltage_now": "", "current_now": "1"}}, sensors.ErrTransient, "voltage_now"},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, c.supplies)
			if x.sensor == nil {
				t.Fatalf("no sensor: %+v", x.omitted)
			}
			for range 5 {
				r := x.read(every)
				if !errors.Is(r.Err, c.is) || !strings.Contains(r.Err.Error(), c.says) {
					t.Errorf("%v, want %q", r.Err, c.says)
				}
				if r.Tally != (sensors.Tally{}) || !math.IsNaN(float64(r.Power)) || r.At.IsZero() {
					t.Errorf("%+v, want nothing", r)
				}
			}
		})
	}
}

// The charger comes and goes: the time on mains is not counted, nor a line drawn
// across it, nor what the gauge still shows of the charging.
func TestChargerComesAndGoes(t *testing.T) {
	x := start(t, map[string]supply{"AC": ac("0"), "BAT0": discharging("10000000")})
	x.read(0)
	x.read(every)
	if r := x.read(every); r.Energy != 100e6 || r.Observed != 2*every {
		t.Fatalf("%+v", r.Tally)
	}
	x.set("AC", "online", "1")
	x.set("BAT0", "status", "Charging")
	x.set("BAT0", "power_now", "45000000")
	for range 3 {
		if r := x.read(every); r.Err == nil || r.Energy != 100e6 || r.Observed != 2*every {
			t.Fatalf("%+v", r)
		}
	}
	x.set("AC", "online", "0")
	x.set("BAT0", "status", "Discharging")
	if r := x.read(every); !errors.Is(r.Err, sensors.ErrTransient) || r.Energy != 100e6 {
		t.Fatalf("the first value after it: %+v", r)
	}
	x.set("BAT0", "power_now", "20000000")
	if r := x.read(every); r.Err != nil || r.Energy != 100e6 || r.Observed != 2*every || r.Power != 20 {
		t.Fatalf("a new origin: %+v", r)
	}
	if r := x.read(every); r.Energy != 200e6 || r.Observed != 3*every {
		t.Fatalf("%+v", r.Tally)
	}
}

// A read that fails is a gap, not a line to where it works again.
func TestFailedReadIsAGap(t *testing.T) {
	x := start(t, map[string]supply{"BAT0": discharging("10000000")})
	x.read(0)
	x.read(every)
	x.set("BAT0", "power_now", "?")
	if r := x.read(every); !errors.Is(r.Err, sensors.ErrTransient) || r.Energy != 50e6 {
		t.Errorf("%+v", r)
	}
	x.set("BAT0", "power_now", "10000000")
	x.read(every)
	if r := x.read(every); r.Err != nil || r.Energy != 100e6 || r.Observed != 2*every {
		t.Errorf("%+v", r)
	}
	if err := os.RemoveAll(filepath.Join(x.tree.Root, "sys/class/power_supply/BAT0")); err != nil {
		t.Fatal(err)
	}
	if r := x.read(0); r.Err != nil {
		t.Errorf("asked again at once: %v", r.Err)
	}
}

// The firmware is slow, and is left alone between.
func TestFirmwareIsAskedEveryFiveSeconds(t *testing.T) {
	x := start(t, map[string]supply{"BAT0": discharging("10000000")})
	first := x.read(0)
	x.set("BAT0", "power_now", "30000000")
	for range 4 {
		if r := x.read(time.Second); r.Power != 10 || !r.At.Equal(first.At) || r.Observed != 0 {
			t.Fatalf("%+v before its time", r)
		}
	}
	if r := x.read(time.Second); r.Power != 30 || r.Energy != 100e6 || r.Observed != every {
		t.Errorf("%+v", r)
	}
	if got := x.sensor.Timing(); got != (sensors.Timing{MayBlock: true}) {
		t.Errorf("%+v", got)
	}
}

func TestImpossiblePowerIsRejected(t *testing.T) {
	x := start(t, map[string]supply{"BAT0": discharging("10000000")})
	x.read(0)
	x.set("BAT0", "power_now", "65535000000")
	if r := x.read(every); r.Energy != 0 || r.Rejected != 1 || !math.IsNaN(float64(r.Power)) {
		t.Errorf("%+v", r)
	}
}

func TestDevice(t *testing.T) {
	x := start(t, map[string]supply{"BAT0": discharging("1"), "BAT1": discharging("1")})
	d := x.sensor.Devices()[0]
	if d.Component != sensors.Node || d.Scope != sensors.ScopeNode || d.Method != sensors.MethodPower || d.Whole ||
		d.Name != "BAT0 and BAT1" || !strings.HasSuffix(d.Source, "/class/power_supply/BAT0,BAT1") || d.Refresh < every || d.Note == "" {
		t.Errorf("%+v", d)
	}
}

func TestNothingToRead(t *testing.T) {
	for name, c := range map[string]struct {
		supplies map[string]supply
		status   sensors.Status
		err      error
	}{
		"no supplies":               {nil, sensors.Absent, sensors.ErrAbsent},
		"a desktop":                 {map[string]supply{"AC": ac("1")}, sensors.Absent, sensors.ErrAbsent},
		"a mouse":                   {map[string]supply{"hid": {"type": "Battery", "scope": "Device", "status": "Discharging", "power_now": "1"}}, sensors.Absent, sensors.ErrAbsent},
		"an empty slot":             {map[string]supply{"BAT0": {"type": "Battery", "present": "0"}}, sensors.Absent, sensors.ErrAbsent},
		"a battery that only fills": {map[string]supply{"BAT0": {"type": "Battery", "status": "Discharging", "capacity": "50"}}, sensors.Unreadable, sensors.ErrUnsupported},
		"half of the batteries":     {map[string]supply{"BAT0": discharging("1"), "BAT1": {"type": "Battery", "status": "Discharging", "voltage_now": "1"}}, sensors.Unreadable, sensors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, c.supplies)
			if x.sensor != nil || len(x.omitted) != 1 {
				t.Fatalf("%v, %+v", x.sensor, x.omitted)
			}
			o := x.omitted[0]
			if o.Status != c.status || !errors.Is(o.Err, c.err) || o.Component != sensors.Node || o.Source != "battery" || o.Reason == "" {
				t.Errorf("%+v", o)
			}
		})
	}
	tree := sensortest.NewSysfs(t, sensortest.VirtualMachine())
	tree.Write("sys/class/power_supply", "")
	if s, omitted := Open(context.Background(), tree.Roots()); s != nil || len(omitted) != 1 || omitted[0].Status != sensors.Unreadable {
		t.Errorf("not a directory: %+v", omitted)
	}
}

func TestConformance(t *testing.T) {
	clock := sensortest.NewClock()
	sensortest.Conform(t, sensortest.Conformance{
		Open: func(t testing.TB) sensors.Sensor {
			tree := sensortest.NewSysfs(t, sensortest.IntelClient())
			for file, text := range discharging("21000000") {
				tree.Write("sys/class/power_supply/BAT0/"+file, text+"\n")
			}
			tree.Write("sys/class/power_supply/AC/type", "Mains\n")
			tree.Write("sys/class/power_supply/AC/online", "0\n")
			s, _ := open(tree.Roots(), clock.Now)
			return s
		},
		Advance:  clock.Advance,
		Supports: backend.Supports,
	})
}

func TestAskingDoesNotAllocate(t *testing.T) {
	for name, supplies := range map[string]map[string]supply{
		"discharging": {"AC": ac("0"), "BAT0": discharging("1000000"), "BAT1": {"type": "Battery", "status": "Discharging", "voltage_now": "1000000", "current_now": "-1000000"}},
		"on mains":    {"AC": ac("1"), "BAT0": discharging("1000000")},
		"resting":     {"AC": ac("0"), "BAT0": {"type": "Battery", "status": "Full", "power_now": "0"}},
	} {
		x := start(t, supplies)
		x.read(every)
		if n := testing.AllocsPerRun(100, func() { x.read(every) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestDetectFindsIt(t *testing.T) {
	tree := sensortest.NewSysfs(t, sensortest.IntelClient())
	for file, text := range discharging("21000000") {
		tree.Write("sys/class/power_supply/BAT0/"+file, text+"\n")
	}
	set, err := sensors.Detect(t.Context(), sensors.WithSysRoot(tree.Roots().Sys), sensors.WithProcRoot(tree.Roots().Proc))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if d := set.Devices(); len(d) != 1 || d[0].ID != "battery" {
		t.Errorf("%+v", d)
	}
}

// Whatever the files hold, the reading is a power or an error, and never both.
func FuzzSupply(f *testing.F) {
	f.Add("Discharging", "12000000", "0")
	f.Add("Charging", "-1", "1")
	f.Add("Discharging\n\n", "9223372036854775807", "")
	clock := sensortest.NewClock()
	tree := sensortest.NewSysfs(f, sensortest.Machine{})
	class := "sys/class/power_supply/"
	tree.Write(class+"AC/type", "Mains\n")
	tree.Write(class+"BAT0/type", "Battery\n")
	f.Fuzz(func(t *testing.T, status, power, online string) {
		for file, text := range map[string]string{"AC/online": online, "BAT0/status": status, "BAT0/power_now": power} {
			if err := os.WriteFile(filepath.Join(tree.Root, class, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s, _ := open(tree.Roots(), clock.Now)
		var dst [1]sensors.Reading
		for range 2 {
			clock.Advance(every)
			s.Read(dst[:])
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		r := dst[0]
		if (r.Err == nil && r.Rejected == 0) != (r.Power > 0) || r.Err != nil && (!math.IsNaN(float64(r.Power)) || r.Tally != (sensors.Tally{})) {
			t.Errorf("%q, %q, %q: %+v", status, power, online, r)
		}
	})
}
