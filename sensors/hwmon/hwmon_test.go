//go:build linux

package hwmon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// faults makes files fail as those of drivers do, and those outside sysfs never.
type faults struct {
	open, read map[string]error // by the end of the path
	reads      map[string]int   // by the file's name
}

func newFaults() *faults {
	return &faults{open: map[string]error{}, read: map[string]error{}, reads: map[string]int{}}
}

func find(m map[string]error, path string) error {
	for end, err := range m {
		if strings.HasSuffix(path, end) {
			return err
		}
	}
	return nil
}

func (f *faults) openFile(path string) (keptfile.Handle, error) {
	if err := find(f.open, path); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &faulty{file, f, path, filepath.Base(path)}, nil
}

type faulty struct {
	*os.File
	*faults
	path, name string
}

func (f *faulty) Pread(buf []byte) (int, error) {
	f.reads[f.name]++
	if len(f.read) > 0 {
		if err := find(f.read, f.path); err != nil {
			return 0, err
		}
	}
	return syscall.Pread(int(f.Fd()), buf, 0)
}

func (f *faulty) Close() error { return f.File.Close() }

// machine is a sensor over a fake tree, a clock and faults.
type machine struct {
	*testing.T
	tree    *sensortest.Sysfs
	clock   *sensortest.Clock
	faults  *faults
	sensor  sensors.Sensor
	omitted []sensors.Omission
	dst     []sensors.Reading
}

// build makes a tree of chips, numbered from 0.
func build(t *testing.T, chips ...sensortest.Chip) *machine {
	t.Helper()
	x := &machine{T: t, tree: sensortest.NewSysfs(t, sensortest.VirtualMachine()), clock: sensortest.NewClock(), faults: newFaults()}
	for i, c := range chips {
		x.tree.AddChip(i, c)
	}
	return x
}

// open opens the sensor and takes the first reading, the origin.
func (x *machine) open() *machine {
	x.Helper()
	x.sensor, x.omitted = open(x.tree.Roots(), x.faults.openFile, x.clock.Now)
	if x.sensor != nil {
		x.dst = make([]sensors.Reading, len(x.sensor.Devices()))
		x.sensor.Read(x.dst)
		x.Cleanup(func() {
			if err := x.sensor.Close(); err != nil {
				x.Error(err)
			}
		})
	}
	return x
}

func start(t *testing.T, chips ...sensortest.Chip) *machine {
	t.Helper()
	return build(t, chips...).open()
}

// read lets d pass and reads the sensor.
func (x *machine) read(d time.Duration) {
	x.clock.Advance(d)
	x.sensor.Read(x.dst)
}

// seconds reads the sensor once a second, n times.
func (x *machine) seconds(n int) {
	for range n {
		x.read(time.Second)
	}
}

func (x *machine) index(id string) int {
	x.Helper()
	if x.sensor != nil {
		for i, d := range x.sensor.Devices() {
			if d.ID == id {
				return i
			}
		}
	}
	x.Fatalf("no device %s in %q, omitted %q", id, x.ids(), x.omissions())
	return 0
}

func (x *machine) device(id string) sensors.Device {
	x.Helper()
	return x.sensor.Devices()[x.index(id)]
}
func (x *machine) reading(id string) sensors.Reading {
	x.Helper()
	return x.dst[x.index(id)]
}

func (x *machine) ids() string {
	if x.sensor == nil {
		return ""
	}
	var ids []string
	for _, d := range x.sensor.Devices() {
		ids = append(ids, fmt.Sprintf("%s=%s/%s", d.ID, d.Component, d.Method))
	}
	return strings.Join(ids, " ")
}

func (x *machine) omissions() string {
	var all []string
	for _, o := range x.omitted {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", o.Status, o.Component, o.Device)))
	}
	return strings.Join(all, ", ")
}

func (x *machine) wantJoules(id string, want float64) {
	x.Helper()
	if got := float64(x.reading(id).Energy.Joules()); math.Abs(got-want) > 1e-5+1e-9*want {
		x.Errorf("%s: %v J, want %v", id, got, want)
	}
}

func (x *machine) want(devices, omitted string) {
	x.Helper()
	if got := x.ids(); got != devices {
		x.Errorf("devices\n %q, want\n %q", got, devices)
	}
	if got := x.omissions(); got != omitted {
		x.Errorf("omitted\n %q, want\n %q", got, omitted)
	}
}

// The chips of the tests, as their drivers show them.

const pci0 = "pci0000:00/0000:00:01.0/"

func amdCard(address string, files map[string]string) sensortest.Chip {
	return sensortest.Chip{
		Name: amdGPU, Device: pci0 + address, Files: files,
		DeviceFiles: map[string]string{
			"vendor": "0x1002\n", "device": "0x744c\n", "class": "0x030000\n", "mem_info_vram_total": "25753026560\n",
			"gpu_busy_percent": "37\n", "power/runtime_status": "active\n",
		},
	}
}

func radeon() sensortest.Chip {
	return amdCard("0000:03:00.0", map[string]string{"power1_average": "120000000\n", "power1_cap": "303000000\n", "in0_input": "900\n"})
}

// instinct is an MI300X, with its accumulator at 1000 J.
func instinct(revision byte) sensortest.Chip {
	c := amdCard("0000:c1:00.0", map[string]string{"power1_input": "400000000\n", "power1_cap_max": "750000000\n"})
	c.DeviceFiles["device"], c.DeviceFiles["class"] = "0x74a1\n", "0x120000\n"
	c.DeviceFiles["gpu_metrics"] = metrics(revision, 1000)
	return c
}

// metrics is a gpu_metrics of format 1 with an energy.
func metrics(revision byte, joules float64) string {
	table := make([]byte, 1664)
	for i := range table {
		table[i] = 0xa5
	}
	binary.LittleEndian.PutUint16(table, uint16(len(table)))
	table[2], table[3] = 1, revision
	binary.LittleEndian.PutUint64(table[accumulators[revision]:], uint64(joules*65536))
	return string(table)
}

func arcI915() sensortest.Chip {
	return sensortest.Chip{
		Name: intelI915, Device: pci0 + "0000:04:00.0",
		Files:       map[string]string{"energy1_input": "5000000\n", "power1_max": "190000000\n"},
		DeviceFiles: map[string]string{"vendor": "0x8086\n", "device": "0x56a0\n", "class": "0x030000\n", "power/runtime_status": "active\n"},
	}
}

func arcXe() sensortest.Chip {
	c := arcI915()
	c.Name, c.Device = intelXe, pci0+"0000:05:00.0"
	c.Files = map[string]string{
		"energy1_input": "7000000\n", "energy1_label": "card\n", "energy2_input": "3000000\n", "energy2_label": "pkg\n",
		"power1_max": "190000000\n",
	}
	return c
}

// acpi is an ACPI power meter, with its files where old drivers have them.
func acpi(n int, files map[string]string) sensortest.Chip {
	all := map[string]string{"power1_average": "310000000\n", "power1_average_interval": "1000\n", "power1_is_battery": "0\n"}
	for name, text := range files {
		all[name] = text
	}
	return sensortest.Chip{Name: acpiMeter, Old: true, Device: fmt.Sprintf("LNXSYSTM:00/LNXSYBUS:00/ACPI000D:%02d", n), Files: all}
}

func grace(n int, label string, microwatts int) sensortest.Chip {
	return acpi(n, map[string]string{
		"power1_oem_info": label + "\n", "power1_average": fmt.Sprintln(microwatts), "power1_average_interval": "50\n",
	})
}

func graceHopper() []sensortest.Chip {
	return []sensortest.Chip{
		grace(0, "Module Power Socket 0", 700e6), grace(1, "Grace Power Socket 0", 150e6),
		grace(2, "CPU Power Socket 0", 90e6), grace(3, "SysIO Power Socket 0", 25e6),
	}
}

func ina(n int, labels [3]string, millivolts, milliamps [3]int) sensortest.Chip {
	c := sensortest.Chip{Name: ina3221, Device: fmt.Sprintf("platform/c240000.i2c/i2c-1/1-%04d", n), Files: map[string]string{
		// The voltages across the shunts, and their sum.
		"in4_input": "40\n", "in5_input": "8\n", "in6_input": "8\n", "in7_input": "56\n", "in7_label": "sum of shunt voltages\n",
	}}
	for i := range labels {
		if labels[i] == "" {
			continue
		}
		c.Files[fmt.Sprintf("in%d_label", i+1)] = labels[i] + "\n"
		c.Files[fmt.Sprintf("in%d_input", i+1)] = fmt.Sprintln(millivolts[i])
		c.Files[fmt.Sprintf("curr%d_input", i+1)] = fmt.Sprintln(milliamps[i])
	}
	return c
}

func orinNX() sensortest.Chip {
	return ina(40, [3]string{"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}, [3]int{5000, 4990, 4980}, [3]int{3000, 1000, 500})
}

func agxOrin() []sensortest.Chip {
	return []sensortest.Chip{
		ina(40, [3]string{"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}, [3]int{20000, 20000, 5000}, [3]int{600, 200, 900}),
		ina(41, [3]string{"NC", "VDDQ_VDD2_1V8AO", "NC"}, [3]int{0, 5000, 0}, [3]int{0, 300, 0}),
	}
}

// rome is a machine with amd_energy, whose sensors have nodes NUMA nodes in each of
// two sockets.
func (x *machine) rome(nodes int) {
	files := map[string]string{}
	const cores = 4
	for i := range cores {
		files[fmt.Sprintf("energy%d_label", i+1)] = fmt.Sprintf("Ecore%03d\n", i)
		files[fmt.Sprintf("energy%d_input", i+1)] = "1000000\n"
	}
	for n := range 2 * nodes {
		socket := n / nodes
		files[fmt.Sprintf("energy%d_label", cores+n+1)] = fmt.Sprintf("Esocket%d\n", n)
		files[fmt.Sprintf("energy%d_input", cores+n+1)] = fmt.Sprintln(9000000 + 1000000*socket)
		x.tree.Write(fmt.Sprintf("sys/devices/system/node/node%d/cpulist", n), fmt.Sprintf("%d-%d,%d\n", 8*n, 8*n+7, 200+n))
		x.tree.Write(fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/physical_package_id", 8*n), fmt.Sprintln(socket))
	}
	x.tree.AddChip(9, sensortest.Chip{Name: amdEnergy, Device: "platform/amd_energy.0", Files: files})
}

func TestOneDisjointCut(t *testing.T) {
	apu := amdCard("0000:0b:00.0", map[string]string{"power1_average": "15000000\n", "in0_input": "900\n", "in1_input": "800\n", "in1_label": "vddnb\n"})
	small := amdCard("0000:07:00.0", map[string]string{"power1_average": "15000000\n"})
	small.DeviceFiles["mem_info_vram_total"] = "4278190080\n"
	mi300a := instinct(6)
	mi300a.DeviceFiles["device"] = mi300A + "\n"
	gt := arcI915()
	gt.Name = "i915_gt0"
	gt.Files = map[string]string{"energy1_input": "4000000\n"}
	integrated := arcXe()
	integrated.Device = "pci0000:00/0000:00:02.0"
	packageOnly := arcXe()
	packageOnly.Files = map[string]string{"energy2_input": "3000000\n", "energy2_label": "pkg\n"}
	second := amdCard("0000:c2:00.0", map[string]string{"power1_average": "0\n"})
	first := amdCard("0000:c1:00.0", map[string]string{"power1_average": "90000000\n"})
	none := amdCard("0000:03:00.0", map[string]string{"temp1_input": "40000\n"})
	whole := acpi(0, nil)
	whole.DeviceFiles = map[string]string{"measures/LNXSYBUS:00/path": "\\_SB_\n"}
	part := acpi(1, nil)
	part.DeviceFiles = map[string]string{"measures/PNP0C0F:03/path": "\\_SB_.X\n"}
	battery := acpi(1, map[string]string{"power1_is_battery": "1\n"})
	xavier := []sensortest.Chip{
		ina(40, [3]string{"GPU", "CPU", "SOC"}, [3]int{5000, 5000, 5000}, [3]int{1000, 1000, 1000}),
		ina(41, [3]string{"CV", "VDDRQ", "SYS5V"}, [3]int{5000, 5000, 5000}, [3]int{1000, 1000, 1000}),
	}

	for name, c := range map[string]struct {
		chips            []sensortest.Chip
		devices, omitted string
	}{
		"AMD card":             {[]sensortest.Chip{radeon()}, "pci-0000:03:00.0=gpu/power_average", ""},
		"AMD accelerator":      {[]sensortest.Chip{instinct(6)}, "pci-0000:c1:00.0=gpu/counter", ""},
		"AMD with processor":   {[]sensortest.Chip{mi300a}, "pci-0000:c1:00.0=gpu/counter", ""},
		"AMD graphics of CPU":  {[]sensortest.Chip{apu}, "", "superseded gpu pci-0000:0b:00.0"},
		"AMD card of 4 GB":     {[]sensortest.Chip{small}, "pci-0000:07:00.0=gpu/power_average", ""},
		"AMD card of two dies": {[]sensortest.Chip{second, first}, "pci-0000:c1:00.0=gpu/power_average", "superseded gpu pci-0000:c2:00.0"},
		"AMD card at 0 W":      {[]sensortest.Chip{second}, "", "unreadable gpu pci-0000:c2:00.0"},
		"AMD without a power":  {[]sensortest.Chip{none}, "", "unreadable gpu pci-0000:03:00.0"},
		// The tile is in the card, and the package is in the card.
		"Intel i915":     {[]sensortest.Chip{arcI915(), gt}, "pci-0000:04:00.0=gpu/counter", ""},
		"Intel xe":       {[]sensortest.Chip{arcXe()}, "pci-0000:05:00.0=gpu/counter", ""},
		"Intel package":  {[]sensortest.Chip{packageOnly}, "pci-0000:05:00.0=gpu/counter", ""},
		"Intel graphics": {[]sensortest.Chip{integrated}, "", "superseded gpu pci-0000:00:02.0"},
		"Grace Hopper": {graceHopper(), "package-0=cpu/power_average",
			"superseded cpu module-0, superseded cpu cpu-0, superseded cpu sysio-0"},
		"Grace superchip": {[]sensortest.Chip{grace(0, "Grace Power Socket 0", 150e6), grace(1, "Grace Power Socket 1", 140e6)},
			"package-0=cpu/power_average package-1=cpu/power_average", ""},
		"Grace rails": {[]sensortest.Chip{grace(0, "CPU Power Socket 0", 90e6), grace(1, "SysIO Power Socket 0", 25e6)},
			"package-0=cpu/power_average", ""},
		"Grace module": {[]sensortest.Chip{grace(0, "Module Power Socket 0", 700e6)}, "module-0=cpu/power_average", ""},
		"server":       {[]sensortest.Chip{acpi(0, nil)}, "acpi-ACPI000D:00=node/power_average", ""},
		// Their sum is the machine's where they are its power supplies, and twice
		// too much where one is in the other.
		"server, new driver": {[]sensortest.Chip{{Name: acpiMeter, Device: "LNXSYSTM:00/ACPI000D:00", Files: acpi(0, nil).Files}},
			"acpi-ACPI000D:00=node/power_average", ""},
		"two meters":        {[]sensortest.Chip{acpi(0, nil), acpi(1, nil)}, "", "unreadable node"},
		"one that is whole": {[]sensortest.Chip{part, whole}, "acpi-ACPI000D:00=node/power_average", "superseded node acpi-ACPI000D:01"},
		"one of a battery":  {[]sensortest.Chip{acpi(0, nil), battery}, "acpi-ACPI000D:00=node/power_average", ""},
		"only of a battery": {[]sensortest.Chip{battery}, "", ""},
		"Orin NX":           {[]sensortest.Chip{orinNX()}, "jetson-module=node/power jetson-gpu=gpu/power", ""},
		"AGX Orin":          {agxOrin(), "jetson-gpu=gpu/power package-0=cpu/power dram-0=memory/power", ""},
		"AGX Xavier":        {xavier, "jetson-gpu=gpu/power package-0=cpu/power dram-0=memory/power", ""},
		"foreign INA3221":   {[]sensortest.Chip{ina(40, [3]string{"+12V", "", ""}, [3]int{12000}, [3]int{100})}, "", ""},
		"nothing of ours": {[]sensortest.Chip{
			{Name: "coretemp", Device: "platform/coretemp.0", Files: map[string]string{"temp1_input": "40000\n"}},
			{Name: "nvme", Device: pci0 + "0000:06:00.0", Files: map[string]string{"power1_input": "5000000\n"}},
		}, "", ""},
		"nothing": {nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, c.chips...)
			x.want(c.devices, c.omitted)
			for _, o := range x.omitted {
				if o.Reason == "" || o.Status == sensors.Unreadable && !errors.Is(o.Err, sensors.ErrUnsupported) {
					t.Errorf("omission %+v", o)
				}
			}
		})
	}
}

// Trap: units. hwmon has µW, µJ, mV and mA, and NVIDIA's driver mW.
func TestUnits(t *testing.T) {
	nano := build(t)
	nano.legacyJetson("iio:device0")
	nano.open()
	for name, c := range map[string]struct {
		x     *machine
		id    string
		watts float64
	}{
		"amdgpu":           {start(t, radeon()), "pci-0000:03:00.0", 120},
		"ACPI":             {start(t, acpi(0, nil)), "acpi-ACPI000D:00", 310},
		"Grace":            {start(t, graceHopper()...), "package-0", 150},
		"Grace rails":      {start(t, graceHopper()[2:]...), "package-0", 115},
		"Jetson module":    {start(t, orinNX()), "jetson-module", 15},
		"Jetson chip":      {start(t, orinNX()), "jetson-gpu", 4.99 + 2.49},
		"AGX Orin GPU":     {start(t, agxOrin()...), "jetson-gpu", 12},
		"AGX Orin CPU":     {start(t, agxOrin()...), "package-0", 4},
		"AGX Orin memory":  {start(t, agxOrin()...), "dram-0", 1.5},
		"Jetson Nano":      {nano, "jetson-module", 2.875},
		"Jetson Nano chip": {nano, "jetson-gpu", 0.321},
	} {
		t.Run(name, func(t *testing.T) {
			x := c.x
			x.T = t
			was := float64(x.reading(c.id).Energy.Joules())
			x.seconds(10)
			x.wantJoules(c.id, was+10*c.watts)
			r := x.reading(c.id)
			if math.Abs(float64(r.Power)-c.watts) > 1e-9 || r.Observed < 10*time.Second || r.Err != nil {
				t.Errorf("%v, observed %v, %v", float64(r.Power), r.Observed, r.Err)
			}
		})
	}
	for name, c := range map[string]struct {
		chip sensortest.Chip
		file string
		to   string
		id   string
		want float64
	}{
		"i915":        {arcI915(), "energy1_input", "155000000\n", "pci-0000:04:00.0", 150},
		"xe":          {arcXe(), "energy1_input", "107000000\n", "pci-0000:05:00.0", 100},
		"gpu_metrics": {instinct(6), "device/gpu_metrics", metrics(6, 1400), "pci-0000:c1:00.0", 400},
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, c.chip)
			x.tree.SetChip(0, c.file, c.to)
			x.read(time.Second)
			x.wantJoules(c.id, c.want)
			if r := x.reading(c.id); math.Abs(float64(r.Power)-map[bool]float64{true: 400, false: c.want}[name == "gpu_metrics"]) > 1e-9 {
				t.Errorf("power %v", float64(r.Power))
			}
		})
	}
}

// legacyJetson adds the INA3221 of a Jetson Nano as Linux 4.9 has it.
func (x *machine) legacyJetson(device string) {
	dir := "sys/bus/i2c/drivers/ina3221x/6-0040/" + device + "/"
	for name, text := range map[string]string{
		"rail_name_0": "POM_5V_IN\n", "in_power0_input": "2875\n", "in_voltage0_input": "5000\n", "in_current0_input": "575\n",
		"rail_name_1": "POM_5V_GPU\n", "in_power1_input": "321\n",
		"rail_name_2": "POM_5V_CPU\n", "in_power2_input": "654\n",
	} {
		x.tree.Write(dir+name, text)
	}
}

func TestDevices(t *testing.T) {
	x := start(t, radeon(), arcXe())
	d := x.device("pci-0000:03:00.0")
	want := sensors.Device{
		ID: "pci-0000:03:00.0", Name: "AMD GPU 0x744c", Vendor: "AMD", Component: sensors.GPU, Method: sensors.MethodPowerAverage,
		Scope: sensors.ScopeDevice, Source: "hwmon amdgpu " + x.tree.Roots().Sys + "/class/hwmon/hwmon0",
		Note: sleepNote, ErrorBand: 0.07, Refresh: slack,
	}
	if fmt.Sprint(d) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}
	if u := x.reading(d.ID).Utilization; u != 0.37 {
		t.Errorf("utilization %v", u)
	}
	if u := x.reading("pci-0000:05:00.0").Utilization; !math.IsNaN(u) {
		t.Errorf("utilization that is not known: %v", u)
	}
	a := instinct(6)
	a.DeviceFiles["device"] = mi300A + "\n"
	d = start(t, a).device("pci-0000:c1:00.0")
	if d.Scope != sensors.ScopeModule || !slices.Equal(d.Includes, []sensors.Component{sensors.CPU, sensors.Memory}) {
		t.Errorf("a GPU with processor cores: %+v", d)
	}
	a.DeviceFiles["product_name"] = "Instinct MI300A\n"
	if d = start(t, a).device("pci-0000:c1:00.0"); d.Name != "Instinct MI300A" {
		t.Errorf("name %q", d.Name)
	}
	d = start(t, graceHopper()...).device("package-0")
	if d.Scope != sensors.ScopeDevice || !slices.Equal(d.Includes, []sensors.Component{sensors.Memory}) || d.Refresh != 50*time.Millisecond {
		t.Errorf("a socket of a Grace: %+v", d)
	}
	d = start(t, graceHopper()[:1]...).device("module-0")
	if d.Scope != sensors.ScopeModule || !slices.Contains(d.Includes, sensors.GPU) {
		t.Errorf("a module: %+v", d)
	}
	d = start(t, orinNX()).device("jetson-gpu")
	if d.Name != "Jetson VDD_CPU_GPU_CV + VDD_SOC" || !slices.Contains(d.Includes, sensors.CPU) || !d.Whole {
		t.Errorf("the chip of a Jetson: %+v", d)
	}
	d = start(t, acpi(0, map[string]string{"power1_model_number": "HP 1\n"})).device("acpi-ACPI000D:00")
	if d.Scope != sensors.ScopeNode || d.ErrorBand != nodeBand || d.Name != "ACPI power meter HP 1" {
		t.Errorf("the machine: %+v", d)
	}
}

func TestIndexIsTheOrderOnTheBus(t *testing.T) {
	apu := amdCard("0000:01:00.0", map[string]string{"power1_average": "1\n", "in1_input": "1\n"})
	x := start(t,
		amdCard("0000:c3:00.0", map[string]string{"power1_average": "30000000\n"}), apu, arcXe(),
		amdCard("0000:23:00.0", map[string]string{"power1_average": "40000000\n"}))
	if a, b, c := x.device("pci-0000:23:00.0").Index, x.device("pci-0000:c3:00.0").Index, x.device("pci-0000:05:00.0").Index; a != 0 || b != 1 || c != 0 {
		t.Errorf("%d, %d, and %d of another vendor; want 0, 1, 0", a, b, c)
	}
}

func TestCadence(t *testing.T) {
	for name, c := range map[string]struct {
		chips []sensortest.Chip
		want  time.Duration
	}{
		"a counter":            {[]sensortest.Chip{arcXe()}, 30 * time.Second},
		"an unknown average":   {[]sensortest.Chip{radeon()}, 100 * time.Millisecond},
		"an average of 1 s":    {[]sensortest.Chip{acpi(0, nil)}, time.Second},
		"an average of 10 s":   {[]sensortest.Chip{acpi(0, map[string]string{"power1_average_interval": "10000\n"})}, time.Second},
		"an average of 50 ms":  {graceHopper(), 100 * time.Millisecond},
		"an instant":           {[]sensortest.Chip{orinNX()}, 100 * time.Millisecond},
		"a counter and others": {[]sensortest.Chip{arcXe(), acpi(0, nil)}, time.Second},
	} {
		if got := start(t, c.chips...).sensor.Timing(); got.MaxInterval != c.want || !got.MayBlock {
			t.Errorf("%s: %+v, want %v", name, got, c.want)
		}
	}
}

// Trap: an average is what was drawn before the reading, not what will be.
func TestAnAverageStandsForTheTimeBeforeIt(t *testing.T) {
	x := start(t, acpi(0, nil))
	x.tree.SetChip(0, "device/power1_average", "500000000\n")
	x.read(time.Second)
	x.wantJoules("acpi-ACPI000D:00", 500)
}

// Trap: amd_energy's Esocket is a NUMA node, and NPS4 has four that show one
// counter: four times the energy.
func TestASocketIsCountedOnce(t *testing.T) {
	for nodes := 1; nodes <= 4; nodes *= 2 {
		x := build(t)
		x.rome(nodes)
		x.open()
		omitted := slices.Repeat([]string{"superseded cpu esocket"}, 2*(nodes-1))
		if got := x.ids(); got != "package-0=cpu/counter package-1=cpu/counter" {
			t.Errorf("%d nodes in a socket: %s", nodes, got)
		}
		if len(x.omitted) != len(omitted) {
			t.Errorf("%d nodes in a socket: omitted %s", nodes, x.omissions())
		}
		x.tree.SetChip(9, "energy5_input", "59000000\n")
		x.read(time.Second)
		x.wantJoules("package-0", 50)
		x.wantJoules("package-1", 0)
	}
}

// Trap: the same counter through two drivers.
func TestRAPLAndAMDEnergyAreOneSocket(t *testing.T) {
	x := build(t)
	x.rome(1)
	x.open()
	rapl := sensortest.NewSensor(sensortest.NewClock().Now, sensors.Timing{}, sensortest.Script{Device: sensors.Device{
		ID: "package-0", Component: sensors.CPU, Method: sensors.MethodCounter, Scope: sensors.ScopeDevice, Source: "rapl", ErrorBand: 0.05,
	}})
	set := sensors.NewSet(rapl, &leaveOpen{x.sensor})
	var ids []string
	for _, d := range set.Devices() {
		ids = append(ids, d.ID+" "+strings.Fields(d.Source)[0])
	}
	if got := strings.Join(ids, ", "); got != "package-0 rapl, package-1 hwmon" {
		t.Error(got)
	}
}

// leaveOpen is a sensor that the test closes.
type leaveOpen struct{ sensors.Sensor }

func (leaveOpen) Close() error { return nil }

// Trap: the module of a superchip contains the GPU that NVML reads.
func TestAModuleIsNotCountedBesideItsGPU(t *testing.T) {
	gpu := func(includes ...sensors.Component) sensors.Sensor {
		return sensortest.NewSensor(sensortest.NewClock().Now, sensors.Timing{}, sensortest.Script{Device: sensors.Device{
			ID: "GPU-1", Component: sensors.GPU, Method: sensors.MethodCounter, Scope: sensors.ScopeDevice, Source: "nvml",
			ErrorBand: 0.05, Includes: includes,
		}})
	}
	for name, c := range map[string]struct {
		chips []sensortest.Chip
		gpu   sensors.Sensor
		want  string
	}{
		"socket and GPU":              {graceHopper(), gpu(), "GPU-1 package-0"},
		"module and GPU":              {graceHopper()[:1], gpu(), "GPU-1"},
		"socket and module from NVML": {graceHopper(), gpu(sensors.CPU, sensors.Memory), "GPU-1"},
	} {
		set := sensors.NewSet(c.gpu, &leaveOpen{start(t, c.chips...).sensor})
		var ids []string
		for _, d := range set.Devices() {
			ids = append(ids, d.ID)
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestConformance(t *testing.T) {
	nodes := []sensortest.Chip{acpi(0, nil)}
	for name, chips := range map[string][]sensortest.Chip{
		"amdgpu": {radeon()}, "gpu_metrics": {instinct(4)}, "i915": {arcI915()}, "xe": {arcXe()},
		"power_meter": nodes, "grace": graceHopper(), "orin": {orinNX()}, "agx": agxOrin(), "amd_energy": nil, "nano": nil,
		"all": append(slices.Concat(nodes, graceHopper()[:0]), radeon(), instinct(6), arcI915(), arcXe(), orinNX()),
	} {
		t.Run(name, func(t *testing.T) {
			var x *machine
			var joules float64
			sensortest.Conform(t, sensortest.Conformance{
				Supports: supports(),
				Open: func(testing.TB) sensors.Sensor {
					x, joules = build(t, chips...), 1000
					switch name {
					case "amd_energy":
						x.rome(2)
					case "nano":
						x.legacyJetson("iio_device")
					}
					s, _ := open(x.tree.Roots(), nil, x.clock.Now) // the system's files
					if s == nil {
						t.Fatal("no sensor")
					}
					return s
				},
				Advance: func(d time.Duration) {
					x.clock.Advance(d)
					joules += 100 * d.Seconds()
					for i, c := range chips {
						for file := range c.Files {
							if strings.HasPrefix(file, "energy") && strings.HasSuffix(file, "_input") {
								x.tree.SetChip(i, file, fmt.Sprintf("%.0f\n", joules*1e6))
							}
						}
						if table := c.DeviceFiles["gpu_metrics"]; table != "" {
							x.tree.SetChip(i, "device/gpu_metrics", metrics(table[3], joules))
						}
					}
					if name == "amd_energy" {
						for n := 5; n <= 8; n++ {
							x.tree.SetChip(9, fmt.Sprintf("energy%d_input", n), fmt.Sprintf("%.0f\n", joules*1e6))
						}
					}
				},
			})
		})
	}
}

// Trap: a driver that is loaded again gives its chip another number, and counts
// from 0.
func TestADriverThatIsLoadedAgain(t *testing.T) {
	card := arcI915()
	x := start(t, card, acpi(0, nil))
	id := "pci-0000:04:00.0"
	x.tree.SetChip(0, "energy1_input", "105000000\n")
	x.read(time.Second)
	x.wantJoules(id, 100)

	x.tree.RemoveChip(0, card)
	x.read(time.Second)
	if r := x.reading(id); !errors.Is(r.Err, sensors.ErrLost) || !math.IsNaN(float64(r.Power)) {
		t.Errorf("gone: %v, power %v", r.Err, float64(r.Power))
	}
	x.wantJoules(id, 100)
	if r := x.reading("acpi-ACPI000D:00"); r.Err != nil || r.Energy == 0 {
		t.Errorf("the other chip: %+v", r)
	}

	other := arcI915() // what is now hwmon0 is another card
	other.Device = pci0 + "0000:09:00.0"
	x.tree.AddChip(0, other)
	tile := card // and its tile has a chip of its own
	tile.Name, tile.Files = "i915_gt0", map[string]string{"energy1_input": "70000000\n"}
	x.tree.AddChip(11, tile)
	x.tree.AddChip(12, card)
	x.seconds(4)
	x.wantJoules(id, 100) // what it did meanwhile is not known
	if r := x.reading(id); r.Err != nil {
		t.Fatal(r.Err)
	}
	x.tree.SetChip(0, "energy1_input", "999000000\n")
	x.tree.SetChip(12, "energy1_input", "12000000\n")
	x.read(time.Second)
	x.wantJoules(id, 107)
	if r := x.reading(id); r.Resets != 1 || math.Abs(float64(r.Power)-7) > 1e-9 {
		t.Errorf("%+v", r)
	}
}

func TestAPowerThatComesBack(t *testing.T) {
	meter := acpi(0, nil)
	x := start(t, meter)
	x.seconds(2)
	x.tree.RemoveChip(0, meter)
	x.seconds(1)
	x.tree.AddChip(7, meter)
	x.seconds(1) // a second later it is back: an origin
	x.seconds(1)
	x.wantJoules("acpi-ACPI000D:00", 3*310)
}

// Trap: a GPU that sleeps is woken by reading its sensors.
func TestASleepingGPUIsNotWoken(t *testing.T) {
	for name, chip := range map[string]sensortest.Chip{"amdgpu": radeon(), "gpu_metrics": instinct(6), "i915": arcI915(), "xe": arcXe()} {
		t.Run(name, func(t *testing.T) {
			chip.DeviceFiles["power/runtime_status"] = "suspended\n"
			x := start(t, chip)
			x.seconds(10)
			for file, n := range x.faults.reads {
				if file != "runtime_status" && n > 0 {
					t.Errorf("%s was read %d times", file, n)
				}
			}
			r := x.dst[0]
			if r.Err != nil || r.Energy != 0 || r.Power != 0 || r.Utilization != 0 {
				t.Errorf("%+v", r)
			}
			// 0 W, give or take a watt.
			if r.Observed != 10*time.Second || r.Variance != 100 {
				t.Errorf("observed %v, variance %v", r.Observed, r.Variance)
			}
		})
	}
}

func TestAGPUThatFallsAsleepAndWakes(t *testing.T) {
	x := start(t, radeon())
	id := "pci-0000:03:00.0"
	x.seconds(5)
	x.tree.SetChip(0, "device/power/runtime_status", "suspending\n")
	reads := x.faults.reads["power1_average"]
	x.seconds(1)
	x.tree.SetChip(0, "device/power/runtime_status", "suspended\n")
	x.seconds(20)
	x.wantJoules(id, 600)
	if n := x.faults.reads["power1_average"]; n != reads {
		t.Errorf("read %d times in its sleep", n-reads)
	}
	x.tree.SetChip(0, "device/power/runtime_status", "active\n")
	x.seconds(4) // the first of them ends a time that nobody saw
	x.wantJoules(id, 600+3*120)
	if r := x.reading(id); r.Observed != (5+20+3)*time.Second || r.Resets != 0 {
		t.Errorf("%+v", r.Tally)
	}
}

// Trap: a card that loses its supply in its sleep starts to count at 0, and i915
// takes that for a wrap: 2³² units of energy that nobody drew.
func TestACounterAfterASleep(t *testing.T) {
	x := start(t, arcI915())
	id := "pci-0000:04:00.0"
	x.tree.SetChip(0, "energy1_input", "55000000\n")
	x.read(time.Second)
	x.tree.SetChip(0, "device/power/runtime_status", "suspended\n")
	for range 60 { // long enough for the jump to be possible
		x.read(10 * time.Second)
	}
	x.tree.SetChip(0, "device/power/runtime_status", "active\n")
	x.tree.SetChip(0, "energy1_input", "262200000000\n")
	x.read(time.Second)
	x.wantJoules(id, 50)
	x.tree.SetChip(0, "energy1_input", "262260000000\n")
	x.read(time.Second)
	x.wantJoules(id, 110)
	if r := x.reading(id); r.Rejected != 0 || r.Resets != 0 {
		t.Errorf("%+v", r.Tally)
	}
}

func TestASleepThatWasNotSeenIsNotCounted(t *testing.T) {
	c := radeon()
	c.DeviceFiles["power/runtime_status"] = "suspended\n"
	x := start(t, c)
	x.read(10 * time.Second)
	x.read(2 * time.Minute) // it may have been awake in between
	if r := x.dst[0]; r.Observed != 10*time.Second {
		t.Errorf("observed %v", r.Observed)
	}
}

// Trap: between the look at its state and the reading a GPU falls asleep, or is
// reset: amdgpu refuses with EPERM, others with what they have.
func TestAReadingThatIsRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENODATA, syscall.EAGAIN, syscall.EINVAL, syscall.EIO, syscall.EBUSY} {
		x := start(t, radeon(), arcXe())
		x.seconds(2)
		x.faults.read["power1_average"] = errno
		x.seconds(3)
		r := x.reading("pci-0000:03:00.0")
		if !errors.Is(r.Err, sensors.ErrTransient) || !strings.Contains(r.Err.Error(), "hwmon: pci-0000:03:00.0") || !math.IsNaN(float64(r.Power)) {
			t.Errorf("%v: %v, power %v", errno, r.Err, float64(r.Power))
		}
		x.wantJoules("pci-0000:03:00.0", 240)
		if err := x.reading("pci-0000:05:00.0").Err; err != nil {
			t.Errorf("%v costs another device: %v", errno, err)
		}
		if n := testing.AllocsPerRun(20, func() { x.sensor.Read(x.dst) }); n != 0 {
			t.Errorf("%v: an error that lasts allocates %v times", errno, n)
		}
		delete(x.faults.read, "power1_average")
		x.seconds(1)
		if r := x.reading("pci-0000:03:00.0"); r.Err != nil || r.Power != 120 {
			t.Errorf("%v has passed: %+v", errno, r)
		}
	}
}

// Trap: xe shows 0 when it cannot read a card's telemetry, which is no restart.
func TestAZeroIsNoReadingOfACard(t *testing.T) {
	x := start(t, arcXe())
	id := "pci-0000:05:00.0"
	x.tree.SetChip(0, "energy1_input", "57000000\n")
	x.read(time.Second)
	x.tree.SetChip(0, "energy1_input", "0\n")
	x.read(time.Second)
	if r := x.reading(id); !errors.Is(r.Err, sensors.ErrTransient) {
		t.Errorf("%v", r.Err)
	}
	x.tree.SetChip(0, "energy1_input", "207000000\n")
	x.read(time.Second)
	x.wantJoules(id, 200)
	if r := x.reading(id); r.Resets != 0 || r.Observed != 3*time.Second {
		t.Errorf("%+v", r.Tally)
	}
}

// Trap: spikes. A reading of 2 kW of a card of 303 W is nonsense.
func TestSpikesAreRejected(t *testing.T) {
	x := start(t, radeon())
	x.seconds(1)
	x.tree.SetChip(0, "power1_average", "2000000000\n")
	x.seconds(1)
	x.tree.SetChip(0, "power1_average", "120000000\n")
	x.seconds(1)
	x.wantJoules("pci-0000:03:00.0", 360)
	if r := x.dst[0]; r.Rejected != 1 {
		t.Errorf("%+v", r.Tally)
	}

	x = start(t, arcXe())
	for _, uj := range []string{"107000000", "9999999999999", "307000000"} {
		x.tree.SetChip(0, "energy1_input", uj+"\n")
		x.read(time.Second)
	}
	x.wantJoules("pci-0000:05:00.0", 300)
	if r := x.dst[0]; r.Rejected != 1 || r.Resets != 0 {
		t.Errorf("%+v", r.Tally)
	}
}

func TestABoundIsOfTheCard(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  sensors.Watts
	}{
		"cap":               {map[string]string{"power1_cap": "300000000\n"}, 900},
		"lowered":           {map[string]string{"power1_cap": "100000000\n", "power1_cap_max": "300000000\n"}, 900},
		"rated":             {map[string]string{"power1_max": "0\n", "power1_rated_max": "190000000\n"}, 570},
		"small":             {map[string]string{"power1_cap": "40000000\n"}, leastBound},
		"a way to say none": {map[string]string{"power1_cap": "18446744073709551615\n"}, defaultBound},
		"none":              {nil, defaultBound},
	} {
		files := map[string]string{"power1_average": "30000000\n"}
		for k, v := range c.files {
			files[k] = v
		}
		if got := start(t, amdCard("0000:03:00.0", files)).sensor.(*sensor).meters[0].bound; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := start(t, arcXe()).sensor.(*sensor).meters[0].bound; got != 570 {
		t.Errorf("Intel: %v", got)
	}
}

// Trap: a firmware that does not know shows 4.3 MW.
func TestAnUnknownPower(t *testing.T) {
	x := start(t, graceHopper()...)
	x.seconds(1)
	x.tree.SetChip(1, "device/power1_average", "4294967295000\n")
	x.seconds(1)
	if r := x.reading("package-0"); !errors.Is(r.Err, sensors.ErrTransient) || r.Rejected != 0 {
		t.Errorf("%+v", r)
	}
	x.wantJoules("package-0", 150)
}

// Trap: a shunt that shows less than nothing, and a rail that is switched off.
func TestANegativeCurrentIsNothing(t *testing.T) {
	x := start(t, agxOrin()...)
	x.tree.SetChip(0, "curr1_input", "-8\n")
	x.seconds(2)
	if r := x.reading("jetson-gpu"); r.Err != nil || r.Power != 0 {
		t.Errorf("%+v", r)
	}
}

func TestOneRailFailsWithItsDevice(t *testing.T) {
	x := start(t, orinNX())
	x.seconds(1)
	x.faults.read["curr3_input"] = syscall.ENODATA
	x.seconds(1)
	if r := x.reading("jetson-gpu"); !errors.Is(r.Err, sensors.ErrTransient) {
		t.Errorf("a sum without one of its rails: %+v", r)
	}
	if r := x.reading("jetson-module"); r.Err != nil {
		t.Error(r.Err)
	}
}

// Trap: energy for root only, as after CVE-2020-8694.
func TestWhatIsForRootOnly(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		chip func(x *machine)
		want string
		chmd string
	}{
		"sockets":        {"energy5_input", func(x *machine) { x.rome(1) }, "unreadable cpu package-0", "/sys/class/hwmon/hwmon9/energy*_input"},
		"their labels":   {"_label", func(x *machine) { x.rome(1) }, "unreadable cpu package-0", "/sys/class/hwmon/hwmon9/energy*_input"},
		"energy of xe":   {"energy1_input", func(x *machine) { x.tree.AddChip(4, arcXe()) }, "unreadable gpu pci-0000:05:00.0", "/sys/class/hwmon/hwmon4/energy*_input"},
		"energy of i915": {"energy1_input", func(x *machine) { x.tree.AddChip(4, arcI915()) }, "unreadable gpu pci-0000:04:00.0", "/sys/class/hwmon/hwmon4/energy*_input"},
	} {
		t.Run(name, func(t *testing.T) {
			x := build(t)
			c.chip(x)
			x.faults.open[c.file] = syscall.EACCES
			x.open()
			if got := x.omissions(); got != c.want {
				t.Errorf("omitted %q, want %q", got, c.want)
			}
			if o := x.omitted[0]; !errors.Is(o.Err, sensors.ErrPermission) || !strings.Contains(o.Reason, "root") || !strings.Contains(o.Remedy, "sudo chmod a+r "+c.chmd) {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestWhatCannotBeReadAtTheStartIsLeftOut(t *testing.T) {
	for name, c := range map[string]struct {
		chip sensortest.Chip
		file string
		want string
	}{
		"meter":   {acpi(0, nil), "power1_average", "unreadable node acpi-ACPI000D:00"},
		"counter": {arcI915(), "energy1_input", "unreadable gpu pci-0000:04:00.0"},
		"card":    {radeon(), "power1_average", "unreadable gpu pci-0000:03:00.0"},
		"rail":    {orinNX(), "curr1_input", "unreadable node jetson-module"},
	} {
		x := build(t, c.chip)
		x.faults.read[c.file] = syscall.ENODATA
		x.open()
		if got := x.omissions(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A counter that cannot be read is done without where there is a power.
func TestAnAccumulatorThatIsNotThere(t *testing.T) {
	for name, table := range map[string]string{
		"old revision": metrics(3, 0)[:2] + "\x01\x03" + metrics(6, 5)[4:],
		"format 2":     metrics(6, 5)[:2] + "\x02\x04" + metrics(6, 5)[4:],
		"list":         metrics(6, 5)[:2] + "\x01\x09" + metrics(6, 5)[4:],
		"short":        metrics(6, 5)[:20],
		"not filled":   metrics(6, 0),
		"all ones":     metrics(6, 5)[:16] + strings.Repeat("\xff", 8) + metrics(6, 5)[24:],
		"32 ones":      metrics(6, 5)[:16] + "\xff\xff\xff\xff\x00\x00\x00\x00" + metrics(6, 5)[24:],
	} {
		c := instinct(6)
		c.DeviceFiles["gpu_metrics"] = table
		x := start(t, c)
		if got := x.ids(); got != "pci-0000:c1:00.0=gpu/power" {
			t.Errorf("%s: %s", name, got)
		}
		x.seconds(1)
		x.wantJoules("pci-0000:c1:00.0", 400)
	}
	x := build(t, instinct(6))
	x.faults.read["gpu_metrics"] = syscall.EOPNOTSUPP
	x.open().want("pci-0000:c1:00.0=gpu/power", "")
}

func TestAnAveragedPowerThatIsNotThere(t *testing.T) {
	c := radeon()
	c.Files["power1_input"] = "90000000\n"
	x := build(t, c)
	x.faults.read["power1_average"] = syscall.EOPNOTSUPP
	x.open().want("pci-0000:03:00.0=gpu/power", "")
	start(t, c).want("pci-0000:03:00.0=gpu/power_average", "")
}

// Trap (ROCm amdsmi #38): an accumulator that is not what the power says.
func TestAnAccumulatorThatDisagreesIsDoubted(t *testing.T) {
	for name, c := range map[string]struct {
		perSecond float64 // beside 400 W
		doubted   bool
	}{"agrees": {392, false}, "half": {200, true}, "twice": {800, true}} {
		t.Run(name, func(t *testing.T) {
			x := start(t, instinct(6))
			joules := 1000.0
			run := func(seconds int, perSecond float64) {
				for range seconds {
					joules += perSecond
					x.tree.SetChip(0, "device/gpu_metrics", metrics(6, joules))
					x.seconds(1)
				}
			}
			run(70, c.perSecond)
			r := x.dst[0]
			if doubted := errors.Is(r.Doubt, sensors.ErrDisagreement); doubted != c.doubted || doubted != (r.ErrorBand > 0.05) {
				t.Errorf("doubt %v, band %v", r.Doubt, r.ErrorBand)
			}
			if c.doubted && !strings.Contains(r.Doubt.Error(), "pci-0000:c1:00.0") {
				t.Error(r.Doubt)
			}
			x.wantJoules("pci-0000:c1:00.0", 70*c.perSecond)
			run(70, 400)
			if r := x.dst[0]; r.Doubt != nil || r.ErrorBand != 0 {
				t.Errorf("they agree again: %v", r.Doubt)
			}
		})
	}
}

// An accumulator that stands still, or cannot be read, while power is drawn.
func TestAnAccumulatorThatStandsStillIsGivenUp(t *testing.T) {
	for name, fail := range map[string]func(x *machine){
		"stands still": func(*machine) {},
		"refused":      func(x *machine) { x.faults.read["gpu_metrics"] = syscall.EOPNOTSUPP },
		"other table":  func(x *machine) { x.tree.SetChip(0, "device/gpu_metrics", metrics(6, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, instinct(6))
			joules := 1000.0
			for range 5 {
				joules += 400
				x.tree.SetChip(0, "device/gpu_metrics", metrics(6, joules))
				x.seconds(1)
			}
			fail(x)
			for range 60 {
				was := x.dst[0]
				x.seconds(1)
				if r := x.dst[0]; r.Energy < was.Energy || r.Observed < was.Observed {
					t.Fatalf("%+v, then %+v", was.Tally, r.Tally)
				}
			}
			r := x.dst[0]
			x.wantJoules("pci-0000:c1:00.0", 65*400)
			if r.Method != sensors.MethodPower || r.ErrorBand != powerBand(sensors.MethodPower) || !errors.Is(r.Doubt, sensors.ErrDisagreement) || r.Err != nil {
				t.Errorf("method %q, band %v, doubt %v, error %v", r.Method, r.ErrorBand, r.Doubt, r.Err)
			}
			if r.Observed != 65*time.Second {
				t.Errorf("observed %v", r.Observed)
			}
			if m := x.sensor.Timing().MaxInterval; m != instantly {
				t.Errorf("the power wants to be read every %v", m)
			}
			if n := testing.AllocsPerRun(20, func() { x.sensor.Read(x.dst) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// The offsets follow from the kernel's structures; these are their beginnings.
func TestAccumulatorsAreWhereTheKernelHasThem(t *testing.T) {
	type head struct {
		_ uint16    // structure_size
		_ [2]uint8  // format_revision, content_revision
		_ [3]uint16 // temperatures: hotspot, mem, vrsoc
		_ uint16    // curr_socket_power
		_ [2]uint16 // average_gfx_activity, average_umc_activity
	}
	var v4 struct {
		head
		_      [4]uint16
		energy uint64
	}
	var v5 struct {
		head
		_      [4]uint16
		_      [32]uint16
		energy uint64
	}
	var v6 struct {
		head
		energy uint64
	}
	var v7 struct {
		head
		_      uint64
		energy uint64
	}
	want := map[byte]int{
		4: int(unsafe.Offsetof(v4.energy)), 5: int(unsafe.Offsetof(v5.energy)), 6: int(unsafe.Offsetof(v6.energy)),
		7: int(unsafe.Offsetof(v7.energy)), 8: int(unsafe.Offsetof(v7.energy)),
	}
	if fmt.Sprint(accumulators) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", accumulators, want)
	}
	for _, at := range accumulators {
		if at+8 > metricsSize {
			t.Errorf("%d is beyond what is read", at)
		}
	}
}

func TestUnitOfTheAccumulator(t *testing.T) {
	for raw, want := range map[uint64]uint64{1: 15, 65536: 1e6, 1 << 40: 1 << 24 * 1000000, 65536 * 1e12: 1e18} {
		table := []byte(metrics(6, 0))
		binary.LittleEndian.PutUint64(table[16:], raw)
		if got, err := parseMetrics(table[:metricsSize]); got != want || err != nil {
			t.Errorf("%d: %d %v, want %d", raw, got, err, want)
		}
	}
}

func FuzzMetrics(f *testing.F) {
	for revision := range accumulators {
		f.Add([]byte(metrics(revision, 12))[:metricsSize])
	}
	f.Add([]byte{})
	f.Add([]byte{4, 0, 1, 6})
	f.Fuzz(func(t *testing.T, table []byte) {
		uj, err := parseMetrics(table)
		if err != nil {
			if uj != 0 || !errors.Is(err, sensors.ErrUnsupported) && !errors.Is(err, sensors.ErrTransient) {
				t.Errorf("%d %v", uj, err)
			}
			return
		}
		at, ok := accumulators[table[3]]
		if !ok || table[2] != 1 || len(table) < at+8 {
			t.Fatalf("%v is read", table)
		}
		raw := binary.LittleEndian.Uint64(table[at:])
		if want := float64(raw) * 1e6 / 65536; math.Abs(float64(uj)-want) > 1+want*1e-12 && want < 1e19 {
			t.Errorf("%d: %d, want %v", raw, uj, want)
		}
	})
}

func FuzzLabels(f *testing.F) {
	for _, s := range []string{"Esocket0", "Esocket12", "Ecore001", "Esocket", "Esocket-1", "Esocket99999999999999999999", "0-7,16", "", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := parseSocket(s); ok && (n < 0 || !strings.HasPrefix(s, "Esocket")) {
			t.Errorf("%q: %d", s, n)
		}
		if n, ok := firstCPU(s); ok && (n < 0 || !strings.HasPrefix(strings.TrimLeft(s, "0")+"0", strings.TrimLeft(fmt.Sprint(n), "0"))) {
			t.Errorf("%q: %d", s, n)
		}
		if m := graceRail.FindStringSubmatch(s); m != nil && m[1]+" Power Socket "+m[2] != s {
			t.Errorf("%q: %q", s, m)
		}
	})
}

func TestAPowerMeterWithoutADriver(t *testing.T) {
	x := build(t)
	x.tree.Write("sys/bus/acpi/devices/ACPI000D:00/hid", "ACPI000D\n")
	x.open().want("", "unreadable node")
	if o := x.omitted[0]; o.Remedy != "sudo modprobe acpi_power_meter" {
		t.Errorf("%+v", o)
	}
	x.tree.Write("sys/module/acpi_power_meter/refcnt", "0\n") // it is loaded, and found nothing
	x.open().want("", "")
}

// The graphics of a processor are not missed, and a card that is read is not
// missed either.
func TestDetectMissesNothing(t *testing.T) {
	apu := amdCard("0000:0b:00.0", map[string]string{"power1_average": "15000000\n", "in1_input": "800\n"})
	x := build(t, radeon(), arcXe(), apu)
	set, err := sensors.Detect(context.Background(), sensors.WithSysRoot(x.tree.Roots().Sys), sensors.WithProcRoot(x.tree.Roots().Proc))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if n := len(set.Devices()); n != 2 {
		t.Errorf("%d devices", n)
	}
	for _, o := range set.Omissions() {
		if o.Source == "pci" {
			t.Errorf("%+v", o)
		}
	}
	for _, o := range set.Missing() {
		if o.Component == sensors.GPU {
			t.Errorf("missing: %+v", o)
		}
	}
}

// On a machine without any of these chips there is nothing to say.
func TestThisMachine(t *testing.T) {
	s, omitted := Open(context.Background(), sensors.DefaultRoots())
	if s == nil {
		if len(readChips("/sys")) == 0 && len(omitted) > 0 {
			t.Errorf("no chip, and yet %+v", omitted)
		}
		return
	}
	defer s.Close()
	dst := make([]sensors.Reading, len(s.Devices()))
	s.Read(dst)
	for i, d := range s.Devices() {
		t.Logf("%s %s: %v, %v", d.ID, d.Name, dst[i].Power, dst[i].Err)
	}
}

func TestCloseLeavesNothingOpen(t *testing.T) {
	before := openFiles(t)
	for range 3 {
		bad := arcI915()
		bad.Files["energy1_input"] = "unknown\n"
		without := amdCard("0000:33:00.0", map[string]string{"power1_average": "0\n"})
		x := build(t, append(graceHopper(), radeon(), instinct(6), arcXe(), orinNX(), bad, without)...)
		s, _ := open(x.tree.Roots(), nil, x.clock.Now)
		s.Read(make([]sensors.Reading, len(s.Devices())))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := openFiles(t); n > before {
		t.Errorf("%d files are open, before %d", n, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
