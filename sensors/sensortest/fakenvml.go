package sensortest

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// GPU is a simulated NVIDIA GPU, for the driver that [BuildFakeNVML] compiles.
// Of the embedded Script, the Device's ID is the UUID and Name the name; Start
// is in millijoules, the unit of NVML; MaxPower is the power limit, 0 for a GPU
// that reports none; Averaging is the window of its average power, 1 s where it
// is 0. A handle taken before a Lost span is no good after it; whether the
// counter restarts then is for Resets to say.
type GPU struct {
	Script
	// Major and Minor are the CUDA compute capability; 9.0 (Hopper) where both
	// are 0.
	Major, Minor int
	// Module is set for a superchip that refuses the GPU's own power and
	// energy, and has those of the module.
	Module bool
	// MIG is set where the GPU is partitioned, in Instances. It has Slices
	// compute slices; 0 means 7.
	MIG       bool
	Slices    int
	Instances []GPUInstance
	// Lazy is set where the driver is not in persistence mode.
	Lazy bool
	// Faults are the errors the driver returns.
	Faults []Fault
	// Processes are those with a context on the GPU.
	Processes []GPUProcess
	// CounterGain multiplies what the counter counts, and not the power; 0
	// means 1. In the spans of Frozen it counts nothing.
	CounterGain float64
	Frozen      []Span
	// Latency is the time every call keeps the processor busy.
	Latency time.Duration
}

// Fault makes part of a GPU's driver return an error.
type Fault struct {
	// On is what fails: a function by its name without version
	// ("nvmlDeviceGetPowerUsage"), a field of nvmlDeviceGetFieldValues by its
	// number ("185"), a group of them ("energy", "power", "limit"), or every
	// call on the GPU ("*"). Of "more_samples", the code does not matter: between
	// being asked how many samples of processes there are and being asked for
	// them, the driver takes another.
	On string
	// Code is the nvmlReturn_t; 0 means 3, NOT_SUPPORTED.
	Code int
	// During is when; a To of 0 means for ever.
	During Span
}

// Strikes returns the code of the fault if it concerns any of the names at t,
// else 0.
func (f Fault) Strikes(t time.Duration, names ...string) int {
	if t < f.During.From || f.During.To > 0 && t >= f.During.To {
		return 0
	}
	for _, name := range names {
		if f.On == name || f.On == "*" {
			return f.code()
		}
	}
	return 0
}

func (f Fault) code() int {
	if f.Code == 0 {
		return 3
	}
	return f.Code
}

// Kinds of context that a process can have on a GPU.
const (
	ComputeContext  = "compute" // the kind of a process that says none
	MPSContext      = "mps"     // a client of a Multi-Process Service
	GraphicsContext = "graphics"
)

// GPUProcess is a process on a simulated GPU. One that changes is there several
// times, During different spans.
type GPUProcess struct {
	PID    int
	Memory uint64 // bytes
	// SM is the share of time it keeps the multiprocessors busy, 0 to 1. The
	// driver takes a sample of it every second.
	SM   float64
	Kind string // of context
	Name string // without spaces; "process" where it is empty
	// Instance is the ID of the instance it is on, of a GPU with MIG.
	Instance string
	// During is when; a To of 0 means for ever.
	During Span
}

// On reports whether the process is on the GPU at t with a context of a kind.
func (p GPUProcess) On(t time.Duration, kind string) bool {
	return or(p.Kind, ComputeContext) == kind && t >= p.During.From && (p.During.To == 0 || t < p.During.To)
}

// GPUInstance is what NVML calls a MIG device: a compute instance of Slices slices
// in the GPU instance number In, which has InSlices.
type GPUInstance struct {
	ID               string // UUID
	In               int
	InSlices, Slices int
}

// Counter returns what the GPU's energy counter shows at t, in mJ.
func (g *GPU) Counter(t time.Duration) uint64 {
	since := time.Duration(0)
	for _, r := range g.Resets {
		if r <= t {
			since = r
		}
	}
	missed := g.seen(t) - g.seen(since) - (g.counted(t) - g.counted(since))
	return g.Raw(t) - uint64(int64(missed/1000))
}

// counted returns what of the energy that the sensor has seen, in µJ, the counter
// has counted.
func (g *GPU) counted(t time.Duration) float64 {
	sum := g.seen(t)
	for _, f := range g.Frozen {
		if f.From < t {
			sum -= g.seen(min(f.To, t)) - g.seen(f.From)
		}
	}
	if g.CounterGain != 0 {
		sum *= g.CounterGain
	}
	return sum
}

// NVMLScript is all that the fake driver is told.
type NVMLScript struct {
	GPUs []GPU
	// FailInit is the nvmlReturn_t of nvmlInit; 0 lets it succeed.
	FailInit int
	// MismatchAt is when the driver is upgraded under the running program:
	// every call returns 18 from then on. 0 means never.
	MismatchAt time.Duration
	// ShutdownAt is when somebody else in the process shuts NVML down once too
	// often. 0 means never.
	ShutdownAt time.Duration
}

// WriteNVMLScript writes a script of GPUs without further events.
func WriteNVMLScript(path string, gpus []GPU) error {
	return NVMLScript{GPUs: gpus}.WriteFile(path)
}

// WriteFile writes the script as the text that the fake driver reads from the
// file FAKE_NVML_SCRIPT names.
func (s NVMLScript) WriteFile(path string) error {
	if err := os.WriteFile(path, []byte(s.text()), 0o600); err != nil {
		return fmt.Errorf("sensortest: write NVML script: %w", err)
	}
	return nil
}

// text has one "key values" per line, times in ns, in the script's order. The
// lines after "gpu" concern that GPU.
func (s NVMLScript) text() string {
	var b strings.Builder
	line := func(key string, values ...any) {
		fmt.Fprintln(&b, append([]any{key}, values...)...)
	}
	line("fail_init", s.FailInit)
	line("epoch", NewClock().Now().UnixMicro())
	if s.MismatchAt > 0 {
		line("mismatch_at", int64(s.MismatchAt))
	}
	if s.ShutdownAt > 0 {
		line("shutdown_at", int64(s.ShutdownAt))
	}
	for i, g := range s.GPUs {
		g = g.WithDefaults(i)
		line("gpu")
		line("uuid", g.ID)
		line("name", g.Name)
		line("capability", g.Major, g.Minor)
		line("mig", number(g.MIG))
		line("slices", g.Slices)
		for _, m := range g.Instances {
			line("instance", m.ID, m.In, m.InSlices, m.Slices)
		}
		line("module", number(g.Module))
		line("persistence", number(!g.Lazy))
		line("limit", float64(g.MaxPower))
		line("gain", g.Gain)
		line("counter_gain", g.CounterGain)
		line("duty", g.Duty)
		line("utilization", g.Utilization)
		line("start", g.Start)
		line("noise", g.Noise)
		line("update", int64(g.Update))
		line("averaging", int64(g.Averaging))
		line("latency", int64(g.Latency))
		for _, p := range g.Curve {
			line("power", int64(p.At), float64(p.Power))
		}
		for _, t := range g.Resets {
			line("reset", int64(t))
		}
		for key, spans := range map[string][]Span{"lost": g.Lost, "hang": g.Hang, "garbage": g.Garbage, "frozen": g.Frozen} {
			for _, span := range spans {
				line(key, int64(span.From), int64(span.To))
			}
		}
		for _, f := range g.Faults {
			line("fault", f.On, f.code(), int64(f.During.From), end(f.During))
		}
		for _, p := range g.Processes {
			instance := slices.IndexFunc(g.Instances, func(m GPUInstance) bool { return m.ID == p.Instance })
			line("process", p.PID, p.Memory, p.SM, or(p.Kind, ComputeContext), instance,
				int64(p.During.From), end(p.During), or(p.Name, "process"))
		}
	}
	return b.String()
}

// end is the end of a span that may go on for ever.
func end(s Span) int64 {
	if s.To == 0 {
		return -1
	}
	return int64(s.To)
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// WithDefaults returns the GPU with its empty fields filled, as GPU number i.
func (g GPU) WithDefaults(i int) GPU {
	g.ID = or(g.ID, fmt.Sprintf("GPU-%08x-0000-4000-8000-%012x", 0xfa4e+i, i))
	g.Name = or(g.Name, "NVIDIA simulated GPU")
	g.Unit = 1000
	if g.Major == 0 && g.Minor == 0 {
		g.Major = 9
	}
	if g.Gain == 0 {
		g.Gain = 1
	}
	if g.CounterGain == 0 {
		g.CounterGain = 1
	}
	if g.Slices == 0 {
		g.Slices = 7
	}
	if g.Averaging == 0 {
		g.Averaging = time.Second
	}
	if len(g.Curve) == 0 {
		g.Curve = Constant(sensors.Watts(100))
	}
	return g
}

// NVMLClock moves the time of the fake driver by hand, from any process: a
// driver that was loaded with FAKE_NVML_CLOCK set to Path reads it there.
type NVMLClock struct{ Path string }

// Set moves the driver's clock to d after the script's start.
func (c NVMLClock) Set(d time.Duration) error {
	f, err := os.OpenFile(c.Path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("sensortest: set NVML clock: %w", err)
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(d))
	_, err = f.WriteAt(b[:], 0)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("sensortest: set NVML clock: %w", err)
	}
	return nil
}

// FakeNVML prepares a fake driver for a program that is started next. It
// returns what to append to the program's environment, and the driver's clock,
// which stands at 0 until the test moves it. With "FAKE_NVML_CLOCK=" appended,
// the driver tells real time since it was loaded instead.
//
// A sensor believes an energy only if the GPU can have used it in the time that
// passed on the sensor's own clock. A test that moves the driver's clock ahead
// of real time gives its GPUs a MaxPower that allows for the jump: 4e6 W, the
// most that NVML can express, allow for 6 MJ.
func FakeNVML(t testing.TB, script NVMLScript) (env []string, clock NVMLClock) {
	t.Helper()
	return fakeNVML(t, BuildFakeNVML(t), script)
}

// FakeOldNVML is FakeNVML with the driver of [BuildOldFakeNVML].
func FakeOldNVML(t testing.TB, script NVMLScript) (env []string, clock NVMLClock) {
	t.Helper()
	return fakeNVML(t, BuildOldFakeNVML(t), script)
}

func fakeNVML(t testing.TB, lib string, script NVMLScript) (env []string, clock NVMLClock) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "script")
	if err := script.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	clock = NVMLClock{Path: filepath.Join(dir, "clock")}
	if err := clock.Set(0); err != nil {
		t.Fatal(err)
	}
	return []string{
		"LD_LIBRARY_PATH=" + lib,
		"FAKE_NVML_SCRIPT=" + path,
		"FAKE_NVML_CLOCK=" + clock.Path,
	}, clock
}

//go:embed testdata/fakenvml.c
var fakeNVMLSource []byte

// BuildFakeNVML compiles a libnvidia-ml.so.1 without a GPU, and returns the
// folder it lies in, for LD_LIBRARY_PATH. It lasts as long as the test, which
// is skipped where there is no gcc or no Linux. FAKE_NVML_SCRIPT names the
// script that the library follows; it tells real time since it was loaded, or
// that of an [NVMLClock] whose path FAKE_NVML_CLOCK names.
//
// A process should load one such library at most: go-nvml keeps what it finds
// in a library in variables of its package.
func BuildFakeNVML(t testing.TB) (dir string) {
	t.Helper()
	return installFakeNVML(t, compileFakeNVML)
}

// BuildOldFakeNVML is BuildFakeNVML for a driver of before 2017, which lacks
// nvmlDeviceGetFieldValues, nvmlDeviceGetTotalEnergyConsumption and what came
// later.
func BuildOldFakeNVML(t testing.TB) (dir string) {
	t.Helper()
	return installFakeNVML(t, compileOldFakeNVML)
}

func installFakeNVML(t testing.TB, compile func() ([]byte, error)) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the fake NVIDIA driver is a Linux library")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("the fake NVIDIA driver needs a C compiler: %v", err)
	}
	library, err := compile()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "libnvidia-ml.so.1"), library, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The compiler runs once per process; what it made is kept in memory, as no
// test's folder outlives the test.
var (
	compileFakeNVML    = sync.OnceValues(func() ([]byte, error) { return compileC(fakeNVMLSource) })
	compileOldFakeNVML = sync.OnceValues(func() ([]byte, error) { return compileC(fakeNVMLSource, "-DFAKE_NVML_OLD") })
)

func compileC(source []byte, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "fakenvml")
	if err != nil {
		return nil, fmt.Errorf("sensortest: compile fake NVML: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "libnvidia-ml.so.1")
	cmd := exec.Command("gcc", append(flags, "-O2", "-shared", "-fPIC", "-o", out, "-x", "c", "-", "-lpthread")...)
	cmd.Stdin = strings.NewReader(string(source))
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sensortest: compile fake NVML: %w\n%s", err, text)
	}
	library, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("sensortest: compile fake NVML: %w", err)
	}
	return library, nil
}
