package sensors_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// backend is a back-end whose answer is known.
func backend(name string, omitted []sensors.Omission, devices ...sensors.Device) sensors.Backend {
	return sensors.Backend{Name: name, Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
		if len(devices) == 0 {
			return nil, omitted
		}
		scripts := make([]sensortest.Script, len(devices))
		for i, d := range devices {
			d.Source = name
			scripts[i] = sensortest.Script{Device: d, Curve: sensortest.Constant(sensors.Watts(10 * (i + 1)))}
		}
		return sensortest.NewSensor(nil, sensors.Timing{}, scripts...), omitted
	}}
}

func detect(t *testing.T, backends ...sensors.Backend) *sensors.Set {
	t.Helper()
	empty := t.TempDir()
	set, err := sensors.Detect(context.Background(), sensors.WithBackends(backends...),
		sensors.WithSysRoot(empty), sensors.WithProcRoot(empty))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func ids(devices []sensors.Device) []string {
	var ids []string
	for _, d := range devices {
		ids = append(ids, d.ID)
	}
	slices.Sort(ids)
	return ids
}

var (
	packages  = []sensors.Device{{ID: "package-0", Component: sensors.CPU}, {ID: "package-1", Component: sensors.CPU}}
	cpuModel  = sensors.Device{ID: "cpu", Component: sensors.CPU, Method: sensors.MethodModel, Whole: true}
	ramModel  = sensors.Device{ID: "memory", Component: sensors.Memory, Method: sensors.MethodModel, Whole: true}
	dram      = sensors.Device{ID: "dram-0", Component: sensors.Memory}
	gpu       = sensors.Device{ID: "GPU-1", Component: sensors.GPU}
	node      = sensors.Device{ID: "node", Component: sensors.Node, Scope: sensors.ScopeNode}
	battery   = sensors.Device{ID: "battery", Component: sensors.Node, Method: sensors.MethodPower, Scope: sensors.ScopeNode}
	plug      = sensors.Device{ID: "plug", Component: sensors.Node, Method: sensors.MethodPower, Scope: sensors.ScopeNode, Declared: true}
	apu       = sensors.Device{ID: "GPU-2", Component: sensors.GPU, Includes: []sensors.Component{sensors.CPU}}
	superchip = sensors.Device{ID: "GPU-1", Component: sensors.GPU, Scope: sensors.ScopeModule,
		Includes: []sensors.Component{sensors.CPU, sensors.Memory}}
)

func TestDetectKeepsADisjointSet(t *testing.T) {
	viaPower := gpu
	viaPower.Method = sensors.MethodPower
	tests := []struct {
		name     string
		backends []sensors.Backend
		want     []string
	}{
		{"a counter supersedes the model of the whole", []sensors.Backend{
			backend("host", nil, cpuModel, ramModel), backend("rapl", nil, packages...)},
			[]string{"memory", "package-0", "package-1"}},
		{"measured dram switches the memory model off", []sensors.Backend{
			backend("host", nil, cpuModel, ramModel), backend("rapl", nil, append(slices.Clone(packages), dram)...)},
			[]string{"dram-0", "package-0", "package-1"}},
		{"the model stands in where nothing else is", []sensors.Backend{
			backend("host", nil, cpuModel, ramModel), backend("rapl", nil)},
			[]string{"cpu", "memory"}},
		{"one GPU seen by two sources is one GPU", []sensors.Backend{
			backend("dcgm", nil, viaPower), backend("nvml", nil, gpu), backend("host", nil, cpuModel, ramModel)},
			[]string{"GPU-1", "cpu", "memory"}},
		{"a superchip's module holds the processor and the memory", []sensors.Backend{
			backend("host", nil, cpuModel, ramModel), backend("nvml", nil, superchip)},
			[]string{"GPU-1"}},
		{"of two counters the one that tells devices apart is read", []sensors.Backend{
			backend("cray", nil, sensors.Device{ID: "cray-gpu", Component: sensors.GPU, Whole: true}), backend("nvml", nil, gpu), backend("host", nil, cpuModel, ramModel)},
			[]string{"GPU-1", "cpu", "memory"}},
		{"of two counters the one that holds more is read", []sensors.Backend{
			backend("rapl", nil, packages...), backend("hwmon", nil, apu), backend("host", nil, cpuModel, ramModel)},
			[]string{"GPU-2", "memory"}},
		{"a meter of the node is beside its components", []sensors.Backend{
			backend("host", nil, cpuModel, ramModel), backend("cray", nil, node), backend("rapl", nil, packages...)},
			[]string{"memory", "node", "package-0", "package-1"}},
		{"of two meters of the node the better is read", []sensors.Backend{
			backend("host", nil, cpuModel, ramModel), backend("battery", nil, battery), backend("cray", nil, node)},
			[]string{"cpu", "memory", "node"}},
		{"a meter that was named is preferred to what was found", []sensors.Backend{
			backend("host", nil, cpuModel, ramModel), backend("cray", nil, node), backend("command", nil, plug)},
			[]string{"cpu", "memory", "plug"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set := detect(t, test.backends...)
			if got := ids(set.Devices()); !slices.Equal(got, test.want) {
				t.Errorf("devices %v, want %v", got, test.want)
			}
			for _, m := range set.Missing() {
				if m.Component != sensors.GPU {
					t.Errorf("missing: %+v", m)
				}
			}
			// Each sensor reads its own devices and no others.
			readings := make([]sensors.Reading, len(set.Devices()))
			set.Read(readings)
			for i, r := range readings {
				if r.At.IsZero() {
					t.Errorf("%s is not read", set.Devices()[i].ID)
				}
			}
		})
	}
}

// A driver that cannot be asked leaves nothing out where somebody else reads its
// GPUs; a GPU that the driver itself speaks of does.
func TestReadOtherwise(t *testing.T) {
	read := gpu
	read.Vendor = "nvidia"
	whole := sensors.Omission{Source: "nvml", Component: sensors.GPU, Status: sensors.Unreadable, Reason: "no cgo"}
	single := sensors.Omission{Source: "nvml", Component: sensors.GPU, Status: sensors.Unreadable, Device: "GPU-9", Reason: "lost"}
	set := detect(t, backend("host", nil, cpuModel, ramModel), backend("dcgm", nil, read), backend("nvml", []sensors.Omission{whole, single}))
	if missing := set.Missing(); len(missing) != 1 || missing[0].Device != "GPU-9" {
		t.Errorf("%+v", missing)
	}
	if o := set.Omissions()[0]; o.Status != sensors.Superseded || o.Reason != "no cgo; dcgm reads it" {
		t.Errorf("%+v", o)
	}
	set = detect(t, backend("host", nil, cpuModel, ramModel), backend("nvml", []sensors.Omission{whole}))
	if missing := set.Missing(); len(missing) != 1 || missing[0].Status != sensors.Unreadable {
		t.Errorf("%+v", missing)
	}
}

// A device that one source cannot read and another can is not missing.
func TestReadByAnother(t *testing.T) {
	closed := sensors.Omission{Source: "rapl", Component: sensors.CPU, Device: "package-0", Status: sensors.Unreadable, Reason: "for root only"}
	set := detect(t, backend("rapl", []sensors.Omission{closed}, dram), backend("hwmon", nil, packages[0]))
	for _, m := range set.Missing() {
		if m.Component == sensors.CPU {
			t.Errorf("%+v", m)
		}
	}
}

// The part of a sensor that is superseded is masked, the rest is read.
func TestMaskedSensor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := sensors.NewSet(
			sensortest.NewSensor(nil, sensors.Timing{},
				sensortest.Script{Device: cpuModel, Curve: sensortest.Constant(1000)},
				sensortest.Script{Device: ramModel, Curve: sensortest.Constant(7)}),
			sensortest.NewSensor(nil, sensors.Timing{}, sensortest.Script{Device: packages[0], Curve: sensortest.Constant(50)}),
		)
		readings := make([]sensors.Reading, len(set.Devices()))
		set.Read(readings)
		time.Sleep(time.Second)
		set.Read(readings)
		want := map[string]sensors.Microjoules{"memory": 7e6, "package-0": 50e6}
		for i, d := range set.Devices() {
			if readings[i].Energy != want[d.ID] {
				t.Errorf("%s: %d µJ", d.ID, readings[i].Energy)
			}
		}
	})
}

func TestMissing(t *testing.T) {
	denied := sensors.Omission{Source: "rapl", Component: sensors.CPU, Device: "package-1", Status: sensors.Unreadable,
		Reason: "permission denied", Remedy: "chmod", Err: sensors.ErrPermission}
	noGPU := sensors.Omission{Source: "nvml", Component: sensors.GPU, Status: sensors.Absent, Reason: "no NVIDIA GPU found"}

	t.Run("an unreadable zone beside a readable one", func(t *testing.T) {
		set := detect(t, backend("rapl", []sensors.Omission{denied}, packages[0], dram), backend("nvml", []sensors.Omission{noGPU}))
		missing := set.Missing()
		if len(missing) != 2 || missing[0].Status != sensors.Absent || missing[0].Reason != noGPU.Reason {
			t.Fatalf("%+v", missing)
		}
		if missing[1].Device != "package-1" || missing[1].Remedy != "chmod" || !errors.Is(missing[1].Err, sensors.ErrPermission) {
			t.Errorf("%+v", missing[1])
		}
	})
	t.Run("a model stands in for what cannot be read", func(t *testing.T) {
		set := detect(t, backend("rapl", []sensors.Omission{denied}), backend("host", nil, cpuModel, ramModel))
		for _, m := range set.Missing() {
			if m.Status == sensors.Unreadable {
				t.Errorf("%+v", m)
			}
		}
		if !slices.ContainsFunc(set.Omissions(), func(o sensors.Omission) bool { return o.Device == "package-1" }) {
			t.Error("the omission is not told")
		}
	})
	t.Run("every machine has a processor and memory", func(t *testing.T) {
		status := map[sensors.Component]sensors.Status{}
		for _, m := range detect(t).Missing() {
			status[m.Component] = m.Status
		}
		if status[sensors.CPU] != sensors.Unreadable || status[sensors.Memory] != sensors.Unreadable || status[sensors.GPU] != sensors.Absent {
			t.Errorf("%v", status)
		}
	})
}

// A program without the nvml back-end, on a machine with an NVIDIA GPU, is told
// so: the GPU is there.
func TestNVIDIADeviceWithoutBackend(t *testing.T) {
	driver := func(roots sensors.Roots) { mkdir(t, filepath.Join(roots.Proc, "driver/nvidia/gpus/0000:01:00.0")) }
	pci := func(roots sensors.Roots) {
		dir := filepath.Join(roots.Sys, "bus/pci/devices/0000:01:00.0")
		mkdir(t, dir)
		write(t, filepath.Join(dir, "vendor"), "0x10de\n")
		write(t, filepath.Join(dir, "class"), "0x030200\n")
	}
	audio := func(roots sensors.Roots) {
		dir := filepath.Join(roots.Sys, "bus/pci/devices/0000:01:00.1")
		mkdir(t, dir)
		write(t, filepath.Join(dir, "vendor"), "0x10de\n")
		write(t, filepath.Join(dir, "class"), "0x040300\n")
	}
	for name, c := range map[string]struct {
		build func(sensors.Roots)
		want  sensors.Status
	}{"driver": {driver, sensors.Unreadable}, "card without driver": {pci, sensors.Unreadable},
		"only its sound": {audio, sensors.Absent}, "nothing": {func(sensors.Roots) {}, sensors.Absent}} {
		t.Run(name, func(t *testing.T) {
			roots := sensors.Roots{Sys: t.TempDir(), Proc: t.TempDir()}
			c.build(roots)
			set, err := sensors.Detect(context.Background(), sensors.WithBackends(backend("host", nil, cpuModel, ramModel)),
				sensors.WithSysRoot(roots.Sys), sensors.WithProcRoot(roots.Proc))
			if err != nil {
				t.Fatal(err)
			}
			missing := set.Missing()
			if len(missing) != 1 || missing[0].Status != c.want {
				t.Fatalf("%+v", missing)
			}
			if c.want == sensors.Unreadable && missing[0].Remedy == "" {
				t.Error("no remedy")
			}
		})
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A back-end that hangs or panics while probing costs itself only, and a sensor
// that comes too late is closed.
func TestDetectSurvivesBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := sensortest.NewSensor(nil, sensors.Timing{}, sensortest.Script{Device: gpu, Curve: sensortest.Constant(1)})
		hanging := sensors.Backend{Name: "nvml", Component: sensors.GPU, Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			time.Sleep(time.Minute)
			return late, nil
		}}
		panicking := sensors.Backend{Name: "odd", Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			panic("odd")
		}}
		begin := time.Now()
		set, err := sensors.Detect(context.Background(), sensors.WithTimeout(5*time.Second),
			sensors.WithBackends(hanging, panicking, backend("host", nil, cpuModel, ramModel)))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if got := ids(set.Devices()); !slices.Equal(got, []string{"cpu", "memory"}) {
			t.Errorf("devices %v", got)
		}
		missing := set.Missing()
		if len(missing) != 1 || missing[0].Status != sensors.Unreadable || !errors.Is(missing[0].Err, sensors.ErrTimeout) {
			t.Errorf("%+v", missing)
		}
		time.Sleep(2 * time.Minute)
		if !late.Closed() {
			t.Error("the sensor that came too late was not closed")
		}
	})
}

func TestDetectEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := sensors.Detect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestRootsFollowTheEnvironment(t *testing.T) {
	t.Setenv("HOST_SYS", "/host/sys")
	t.Setenv("HOST_PROC", "")
	if got := sensors.RootsOf(); got != (sensors.Roots{Sys: "/host/sys", Proc: "/proc"}) {
		t.Errorf("%+v", got)
	}
	if got := sensors.RootsOf(sensors.WithSysRoot("/x")); got.Sys != "/x" {
		t.Errorf("an option wins: %+v", got)
	}
}

func TestQuantity(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{0, "0 Wh"}, {1234.5, "1.23 kWh"}, {999.9, "1.00 kWh"}, {12.345, "12.3 Wh"}, {123.45, "123 Wh"},
		{0.00123, "1.23 mWh"}, {1e-6, "1.00 µWh"}, {1e-9, "1.00 nWh"}, {-5, "-5.00 Wh"}, {4.33e11, "433 GWh"}, {1e15, "1000 TWh"},
	} {
		if got := sensors.Quantity(c.v, "Wh"); got != c.want {
			t.Errorf("%v: %q, want %q", c.v, got, c.want)
		}
	}
	if got := sensors.Joules(3.6e6).String(); got != "1.00 kWh" {
		t.Errorf("3.6 MJ are %s", got)
	}
}

// An accelerator that nothing reads makes a total partial; the graphics of a
// processor and of a management controller do not.
func TestOtherGPUs(t *testing.T) {
	type card struct{ address, vendor, class, memory string }
	for _, test := range []struct {
		name  string
		cards []card
		want  string // in the reason; empty: no GPU is missing
	}{
		{"Instinct", []card{{"0000:c1:00.0", "0x1002", "0x120000", ""}}, "a GPU of AMD"},
		{"Radeon", []card{{"0000:03:00.0", "0x1002", "0x030000", "17163091968"}}, "a GPU of AMD"},
		{"graphics of a Ryzen", []card{{"0000:c1:00.0", "0x1002", "0x030000", "536870912"}}, ""},
		{"Arc", []card{{"0000:03:00.0", "0x8086", "0x030000", ""}}, "a GPU of Intel"},
		{"graphics of a Core", []card{{"0000:00:02.0", "0x8086", "0x030000", ""}}, ""},
		{"Gaudi", []card{{"0000:19:00.0", "0x1da3", "0x120000", ""}}, "a GPU of Habana"},
		{"ASPEED", []card{{"0000:04:00.0", "0x1a03", "0x030000", ""}}, ""},
		{"a network card", []card{{"0000:05:00.0", "0x8086", "0x020000", ""}}, ""},
		{"several", []card{{"0000:c1:00.0", "0x1002", "0x120000", ""}, {"0000:c2:00.0", "0x1002", "0x120000", ""}}, "2 GPUs of AMD"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sys := t.TempDir()
			for _, c := range test.cards {
				dir := filepath.Join(sys, "bus/pci/devices", c.address)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				for name, text := range map[string]string{"vendor": c.vendor, "class": c.class, "mem_info_vram_total": c.memory} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			set, err := sensors.Detect(context.Background(), sensors.WithBackends(backend("nvml", nil)),
				sensors.WithSysRoot(sys), sensors.WithProcRoot(t.TempDir()))
			if err != nil {
				t.Fatal(err)
			}
			if test.want != "" {
				// A back-end that reads the first of them speaks for that one.
				read := gpu
				read.ID = sensors.PCIDevice(test.cards[0].address)
				set, err := sensors.Detect(context.Background(), sensors.WithBackends(backend("hwmon", nil, read)),
					sensors.WithSysRoot(sys), sensors.WithProcRoot(t.TempDir()))
				if err != nil {
					t.Fatal(err)
				}
				left := slices.DeleteFunc(set.Omissions(), func(o sensors.Omission) bool { return o.Source != "pci" })
				if len(left) != min(len(test.cards)-1, 1) || len(left) > 0 && !strings.Contains(left[0].Reason, "a GPU of AMD") {
					t.Errorf("with the first of %d read: %+v", len(test.cards), left)
				}
			}
			gpu := set.Missing()[0]
			if gpu.Component != sensors.GPU || (gpu.Status == sensors.Unreadable) != (test.want != "") || !strings.Contains(gpu.Reason, test.want) {
				t.Errorf("%+v, want %q", gpu, test.want)
			}
		})
	}
}
