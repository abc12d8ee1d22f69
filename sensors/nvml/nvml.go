// Package nvml reads the energy of NVIDIA GPUs through NVML, the library that
// comes with their driver. Import it for its effect, as a database driver:
//
//	import _ "github.com/wattspan/wattspan/sensors/nvml"
//
// It needs Linux and cgo. Elsewhere it compiles, and reports the GPUs it cannot
// read. It is not imported by default because go-nvml leaves some 400 symbols of
// the driver to be bound when they are first used: a program that holds them
// does not start when it is linked with -z now or run with LD_BIND_NOW=1.
//
// # What is read
//
// Per GPU, the best of what its driver turns out to answer:
//
//	energy counter                 Volta and newer                 ±5 %, A100 and H100 ±12 %
//	power averaged over 1 s        Ampere GA10x, Ada and newer     ±7 %, read every second
//	instantaneous power            the rest                        ±20 %, read every 100 ms
//
// On A100 and H100 the power sensor behind NVML looks at a quarter of the time
// (arXiv:2312.02741), hence their wider band. On a superchip that refuses the
// power of the GPU alone, the figure is the module's.
//
// All of it is one call per GPU and reading, because the cost of NVML to a job
// is the driver's lock that both take. For the same reason the utilization is
// not read: it would be a second call, and NVML has no field for it.
//
// The power that this call brings beside a counter is integrated too. Where both
// saw 30 s, or 60 s of an instantaneous power, and differ by more than 15 %, or
// 30 %, the readings have a Doubt and a band that is wide enough for both.
//
// # Whose it is
//
// MIG instances have no energy of their own: the figure is the whole GPU's, and
// is given once. Device.Parts has the instances and their shares, the compute
// slices of each over those of the GPU.
//
// Processes has those that compute on the GPU, as clients of MPS or by
// themselves, and those that draw. Where there is more than one, it has the part
// of the time for which each kept the multiprocessors busy, which NVML does not
// tell on a GPU in MIG mode. A multiprocessor is busy when any of it is: it is a
// weight, no measure of work.
package nvml

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

const name = "nvml"

func init() {
	sensors.Register(sensors.Backend{Name: name, Component: sensors.GPU, Supports: supports, Open: func(ctx context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
		d, why := newDriver()
		if d == nil {
			return nil, []sensors.Omission{unavailable(why, sensors.NVIDIAPresent(roots))}
		}
		return open(ctx, d, roots, time.Now)
	}})
}

// supports is what can be read, a line for each of the three ways and for where
// the figure is a module's.
var supports = []sensors.Support{
	support("NVIDIA GPUs since Volta; ±12 % on A100, A30, H100, H200 and GH200", "nvmlDeviceGetFieldValues 83 or 191, nvmlDeviceGetTotalEnergyConsumption", "mJ", sensors.MethodCounter),
	support("NVIDIA GPUs since GA10x and Ada, where there is no counter", "nvmlDeviceGetFieldValues 185, nvmlDeviceGetPowerUsage", "mW, 1 s average", sensors.MethodPowerAverage),
	support("NVIDIA GPUs since Fermi, where there is neither", "nvmlDeviceGetFieldValues 186, nvmlDeviceGetPowerUsage", "mW", sensors.MethodPower),
	support("NVIDIA superchips whose driver has no figure of the GPU alone: GPU, CPU and memory", "nvmlDeviceGetFieldValues 191, scope module", "mJ", sensors.MethodCounter),
	support("the same, without a counter", "nvmlDeviceGetFieldValues 185, scope module", "mW, 1 s average", sensors.MethodPowerAverage),
	support("the same, without an average", "nvmlDeviceGetFieldValues 186, scope module", "mW", sensors.MethodPower),
}

func support(hardware, source, unit string, m sensors.Method) sensors.Support {
	return sensors.Support{
		Hardware: hardware, Source: source, Component: sensors.GPU, Unit: unit, Method: m, ErrorBand: band(m),
		Privileges: "every user who may open /dev/nvidia*; Linux, built with cgo", Tested: "simulated",
	}
}

// driver is what this package asks of NVML. A function that the installed
// driver lacks answers functionNotFound.
type driver interface {
	Init() code
	Shutdown() code
	Count() (int, code)
	ByIndex(index int) (device, code)
	ByUUID(uuid string) (device, code)
	// ProcessName is the name or path of a process with a context on a GPU.
	ProcessName(pid int) (string, code)
}

// device is a handle of a GPU, or of an instance of one in MIG mode, which has a
// UUID, slices and processes only. Energies are in mJ and powers in mW.
type device interface {
	UUID() (string, code)
	Name() (string, code)
	// Capability is the CUDA compute capability.
	Capability() (major, minor int, ret code)
	MIG() (enabled bool, ret code)
	Persistence() (enabled bool, ret code)
	// Limit is the most the power limit can be set to.
	Limit() (uint32, code)
	Energy() (uint64, code)
	Power() (uint32, code)
	// Contexts returns the processes that have a context of a kind on it.
	Contexts(kind contexts) ([]int, code)
	// Utilization returns what processes made of the GPU after a time, in µs
	// since 1970; notFound where there is nothing new.
	Utilization(since int64) ([]utilization, code)
	// Instances is how many instances a GPU in MIG mode can have at most.
	Instances() (int, code)
	// Instance returns instance i of them; notFound where there is none.
	Instance(i int) (device, code)
	// GPUInstance is the number of the GPU instance that an instance, which is
	// a compute instance in it, is part of.
	GPUInstance() (int, code)
	// Slices returns the compute slices of an instance and those of the GPU
	// instance that it is part of.
	Slices() (instance, gpuInstance int, ret code)
	// ProfileSlices is how many compute slices a GPU instance of a profile has;
	// invalidArgument beyond the last profile.
	ProfileSlices(profile int) (int, code)
	// Fields fills in the values of the fields whose ID and scope are set, in
	// one call. It keeps no reference to them.
	Fields(values []field) code
}

// field is an nvmlFieldValue_t.
type field struct {
	id, scope uint32
	micros    int64 // since 1970, by the driver
	kind      uint32
	ret       code
	value     [8]byte
}

// Fields of nvmlDeviceGetFieldValues, and the scopes they can be asked for.
const (
	fieldTotalEnergy  = 83
	fieldPowerAverage = 185
	fieldPowerInstant = 186
	fieldEnergy       = 191

	scopeGPU    = 0
	scopeModule = 1
)

// number returns the field's value, in mJ or mW.
func (f *field) number() (uint64, code) {
	switch f.ret {
	case success:
	case invalidArgument:
		// A driver that does not know the field.
		return 0, notSupported
	default:
		return 0, f.ret
	}
	// A C union, so it begins at the first byte whatever its size.
	switch f.kind {
	case kindUint32:
		return uint64(binary.NativeEndian.Uint32(f.value[:])), success
	case kindUlong, kindUint64:
		return binary.NativeEndian.Uint64(f.value[:]), success
	default:
		return 0, notSupported
	}
}

// Kinds of a field's value, nvmlValueType_t.
const (
	kindUint32 = 1
	kindUlong  = 2
	kindUint64 = 3
)

const (
	// refresh is the period of the registers behind counter and power.
	refresh = 100 * time.Millisecond
	// window is what NVML averages power over.
	window = time.Second
	// slack is the time by which a counter can lag behind what was used.
	slack = time.Second
	// anyLimit bounds a GPU or module that does not tell its power limit. No
	// module draws as much.
	anyLimit = sensors.Watts(3000)
	// headroom is how far above its power limit a GPU can be believed to be.
	headroom = 1.5
	// patience is the number of failures in a row for which a read is simply
	// tried again with the next.
	patience = 5
	// longestWait bounds the pause between two attempts to get a GPU back, or
	// a better method of reading it.
	longestWait = time.Minute
	// derivation is the shortest time over which a power is derived from a
	// counter that moves every 100 ms.
	derivation = 500 * time.Millisecond
)

// sensor is the GPUs of one machine.
type sensor struct {
	driver  driver
	gpus    []*gpu
	devices []sensors.Device
	closed  bool
}

var _ sensors.ProcessLister = (*sensor)(nil)

// open initialises NVML and probes every GPU.
func open(ctx context.Context, d driver, roots sensors.Roots, now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	if ret := d.Init(); ret != success {
		return nil, []sensors.Omission{ret.omission(sensors.NVIDIAPresent(roots))}
	}
	s := &sensor{driver: d}
	n, ret := d.Count()
	if ret == success && n == 0 {
		ret = gpuNotFound
	}
	if ret != success {
		d.Shutdown()
		return nil, []sensors.Omission{ret.omission(sensors.NVIDIAPresent(roots))}
	}
	var omitted []sensors.Omission
	for i := range n {
		if err := ctx.Err(); err != nil {
			d.Shutdown()
			o := timeout.omission(true)
			o.Reason = "the NVIDIA driver takes too long to answer"
			o.Remedy = "turn on persistence mode (nvidia-smi -pm 1), or see whether the driver hangs (dmesg)"
			o.Err = fmt.Errorf("%s: %w: %w", name, sensors.ErrTimeout, err)
			return nil, []sensors.Omission{o}
		}
		g, described, ret := openGPU(ctx, d, i, now)
		if ret != success {
			o := ret.omission(true)
			o.Device = described.ID
			omitted = append(omitted, o)
			continue
		}
		s.gpus = append(s.gpus, g)
		s.devices = append(s.devices, described)
	}
	if len(s.gpus) == 0 {
		d.Shutdown()
		return nil, omitted
	}
	return s, omitted
}

// Devices implements sensors.Sensor.
func (s *sensor) Devices() []sensors.Device { return s.devices }

// Read implements sensors.Sensor.
func (s *sensor) Read(dst []sensors.Reading) {
	for i, g := range s.gpus {
		dst[i] = g.read()
	}
}

// Timing implements sensors.Sensor. It changes when a GPU's method does.
func (s *sensor) Timing() sensors.Timing {
	t := sensors.Timing{MayBlock: true}
	for _, g := range s.gpus {
		if p := period(g.source.method); p > 0 && (t.MaxInterval == 0 || p < t.MaxInterval) {
			t.MaxInterval = p
		}
	}
	return t
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if ret := s.driver.Shutdown(); ret != success && ret != uninitialized {
		return fmt.Errorf("%s: shut down: %w: %s", name, ret.reason(), ret)
	}
	return nil
}

// period is the time at which a method wants to be read; 0 is any.
func period(m sensors.Method) time.Duration {
	switch m {
	case sensors.MethodPowerAverage:
		return window
	case sensors.MethodPower:
		return refresh
	default:
		return 0
	}
}

// source is one way to read a GPU: by a field, or where that is 0 by the
// function that does the same.
type source struct {
	method sensors.Method
	field  uint32
}

// The sources in order of preference. What nvmlDeviceGetPowerUsage means
// depends on the architecture.
var (
	averagingSources = []source{
		{sensors.MethodCounter, fieldTotalEnergy},
		{sensors.MethodCounter, fieldEnergy},
		{sensors.MethodCounter, 0},
		{sensors.MethodPowerAverage, fieldPowerAverage},
		{sensors.MethodPowerAverage, 0},
		{sensors.MethodPower, fieldPowerInstant},
	}
	instantSources = []source{
		{sensors.MethodCounter, fieldTotalEnergy},
		{sensors.MethodCounter, fieldEnergy},
		{sensors.MethodCounter, 0},
		{sensors.MethodPowerAverage, fieldPowerAverage},
		{sensors.MethodPower, fieldPowerInstant},
		{sensors.MethodPower, 0},
	}
	// Only these three fields have a scope.
	moduleSources = []source{
		{sensors.MethodCounter, fieldEnergy},
		{sensors.MethodPowerAverage, fieldPowerAverage},
		{sensors.MethodPower, fieldPowerInstant},
	}
	probed = [...]uint32{fieldTotalEnergy, fieldEnergy, fieldPowerAverage, fieldPowerInstant}
)

// gpu is the state of one GPU. It is read by its source; while the driver does
// not answer, wait says when to try again.
type gpu struct {
	driver driver
	now    func() time.Time
	id     string
	uuid   string // empty where the driver tells none
	index  int
	device device

	sources  []source
	scope    uint32
	maxPower sensors.Watts
	first    sensors.Method // at opening
	band     float64        // at opening
	divided  bool           // in MIG mode

	source  source
	shown   source  // of a power beside the counter
	fields  []field // of the source, and of a power to show beside it
	scratch []field // of a probe

	counter    sensors.Counter
	integrator sensors.Integrator
	check      sensors.CrossCheck // of the counter by the power shown beside it
	settled    sensors.Tally      // by methods used before
	at         time.Time
	power      sensors.Watts

	// The counter reading from which a power is derived.
	anchorAt     time.Time
	anchorEnergy sensors.Microjoules
	derived      sensors.Watts

	failures int // in a row
	dead     bool
	rebase   bool // the counter may have restarted
	backoff  time.Duration
	wait     time.Time // until then the GPU is left alone; zero while it answers
	promote  time.Time // then a better method is looked for
	err      error
	last     code // of err and lastErr
	lastErr  error

	lastSeen int64 // newest utilization of a process so far, in µs since 1970
}

// openGPU probes one GPU. On failure the device it returns has but an ID.
func openGPU(ctx context.Context, d driver, index int, now func() time.Time) (*gpu, sensors.Device, code) {
	g := &gpu{
		driver: d, now: now, index: index, id: fmt.Sprintf("nvidia-%d", index),
		power:   sensors.Watts(math.NaN()),
		scratch: make([]field, len(probed)),
		sources: instantSources,
		scope:   scopeGPU,
	}
	described := sensors.Device{ID: g.id}
	handle, ret := d.ByIndex(index)
	if ret != success {
		return nil, described, ret
	}
	g.device = handle
	if uuid, ret := handle.UUID(); ret == success && uuid != "" {
		g.uuid, g.id, described.ID = uuid, uuid, uuid
	}
	major, minor, ret := handle.Capability()
	if ret != success {
		major, minor = 0, 0
	}
	// GA100 is 8.0, GA10x is 8.6: the architecture alone does not tell.
	if major > 8 || major == 8 && minor > 0 {
		g.sources = averagingSources
	}
	g.maxPower = headroom * anyLimit
	if limit, ret := handle.Limit(); ret == success && limit >= 1000 {
		g.maxPower = headroom * sensors.Watts(limit) / 1000
	}
	if ret = g.chooseFirst(ctx); ret.reason() == sensors.ErrUnsupported {
		whole := *g
		whole.scope, whole.sources, whole.maxPower = scopeModule, moduleSources, headroom*anyLimit
		if whole.chooseFirst(ctx) == success {
			*g, ret = whole, success
		}
	}
	if ret != success {
		return nil, described, ret
	}
	g.first = g.source.method
	described = g.describe(major, minor)
	g.band = described.ErrorBand
	return g, described, success
}

// chooseFirst chooses the source at opening, where a driver that is not ready
// yet must not cost the GPU its best method for good.
func (g *gpu) chooseFirst(ctx context.Context) code {
	for attempt := 0; ; attempt++ {
		best, shown, hiccup, ret := g.probe()
		if hiccup && attempt < 3 && ctx.Err() == nil {
			time.Sleep(refresh)
			continue
		}
		if ret == success {
			g.use(best, shown)
		}
		return ret
	}
}

func (g *gpu) describe(major, minor int) sensors.Device {
	d := sensors.Device{
		ID: g.id, Index: g.index, Name: "NVIDIA GPU", Vendor: "nvidia",
		Component: sensors.GPU, Method: g.source.method, Scope: sensors.ScopeDevice,
		Source: name, Refresh: refresh, ErrorBand: band(g.source.method),
	}
	if model, ret := g.device.Name(); ret == success && model != "" {
		d.Name = model
	}
	var notes []string
	switch g.source.method {
	case sensors.MethodCounter:
		if major == 8 && minor == 0 || major == 9 {
			d.ErrorBand = 0.12
			notes = append(notes, "the power sensor of this model sees a quarter of the time")
		}
	case sensors.MethodPowerAverage:
		d.Refresh = window
		notes = append(notes, "no energy counter: 1 s average power is integrated")
	default:
		notes = append(notes, "no energy counter: instantaneous power is integrated")
	}
	if g.scope == scopeModule {
		d.Scope = sensors.ScopeModule
		d.Includes = []sensors.Component{sensors.CPU, sensors.Memory}
		notes = append(notes, "the driver has no figure for the GPU alone: this is its module's, with CPU and memory")
	}
	if on, ret := g.device.MIG(); ret == success && on {
		notes = append(notes, "partitioned (MIG): this is the whole GPU's energy, NVML has none per instance")
		g.divided = true
		d.Parts = instances(g.device)
	}
	if on, ret := g.device.Persistence(); ret == success && !on {
		notes = append(notes, "persistence mode is off")
	}
	d.Note = strings.Join(notes, "; ")
	return d
}

// band is the error band of a method, one standard deviation.
func band(m sensors.Method) float64 {
	switch m {
	case sensors.MethodCounter:
		return 0.05
	case sensors.MethodPowerAverage:
		return 0.07
	default:
		return 0.20
	}
}

// probe asks for everything once. It returns the best source that answers, the
// source of a power to show beside a counter, if there is one, and whether a
// better source than that failed in a way that may pass.
func (g *gpu) probe() (best, shown source, hiccup bool, ret code) {
	for i, id := range probed {
		g.scratch[i] = field{id: id, scope: g.scope}
	}
	fields := g.device.Fields(g.scratch)
	ret = notSupported
	for _, s := range g.sources {
		switch {
		case best.method == "":
			r := g.try(s, fields)
			if r == success {
				best = s
				continue
			}
			hiccup = hiccup || r.reason() == sensors.ErrTransient
			if ret == notSupported && r.reason() != sensors.ErrUnsupported {
				ret = r
			}
		case best.method == sensors.MethodCounter && best.field != 0 && shown.method == "" &&
			s.method != sensors.MethodCounter && s.field != 0 && g.try(s, fields) == success:
			shown = s
		}
	}
	if best.method != "" {
		ret = success
	}
	return best, shown, hiccup, ret
}

// try returns what a source answers. fields is what the call for g.scratch
// returned.
func (g *gpu) try(s source, fields code) code {
	if s.field == 0 {
		_, ret := g.call(s)
		return ret
	}
	if fields != success {
		return fields
	}
	for i := range g.scratch {
		if g.scratch[i].id == s.field {
			_, ret := g.scratch[i].number()
			return ret
		}
	}
	return notSupported
}

// call reads a source that is a function.
func (g *gpu) call(s source) (uint64, code) {
	if s.method == sensors.MethodCounter {
		return g.device.Energy()
	}
	power, ret := g.device.Power()
	return uint64(power), ret
}

// choose probes again and goes on with what it finds. The tally continues.
func (g *gpu) choose() code {
	best, shown, _, ret := g.probe()
	if ret == success {
		g.use(best, shown)
	}
	return ret
}

func (g *gpu) use(s, shown source) {
	if s.method != g.source.method {
		g.settled = g.tally()
		g.counter = sensors.Counter{Unit: 1000, MaxPower: g.maxPower, Refresh: slack}
		g.integrator = sensors.Integrator{Period: period(s.method), MaxPower: g.maxPower}
		if s.method == sensors.MethodPowerAverage {
			g.integrator.Averaging = window
		}
		g.unanchor()
		g.promote = g.now().Add(longestWait)
	}
	if s.method != g.source.method || shown != g.shown {
		g.check = sensors.CrossCheck{Name: name + ": " + g.id}
		if shown.method == sensors.MethodPowerAverage {
			g.check.Averaging = window
		}
	}
	g.source, g.shown = s, shown
	g.fields = g.fields[:0]
	if s.field != 0 {
		g.fields = append(g.fields, field{id: s.field, scope: g.scope})
	}
	if shown.field != 0 {
		g.fields = append(g.fields, field{id: shown.field, scope: g.scope})
	}
}

func (g *gpu) unanchor() {
	g.anchorAt, g.derived = time.Time{}, sensors.Watts(math.NaN())
}

// tally is everything since the first read, by whatever method.
func (g *gpu) tally() sensors.Tally {
	if g.source.method == sensors.MethodCounter {
		return g.settled.Plus(g.counter.Tally())
	}
	return g.settled.Plus(g.integrator.Tally())
}

// read reads the GPU, or finds out why it cannot be read.
func (g *gpu) read() sensors.Reading {
	switch {
	case g.dead:
		return g.reading()
	case !g.wait.IsZero():
		if g.now().Before(g.wait) {
			return g.reading()
		}
		if ret := g.reopen(); ret != success {
			g.leave(ret)
			return g.reading()
		}
	case g.source.method != g.first && !g.now().Before(g.promote):
		// What the driver stopped to support may be back.
		g.promote = g.now().Add(longestWait)
		g.choose()
	}
	s, ret := g.sample()
	if ret == uninitialized {
		if ret = g.fetch(); ret == success {
			s, ret = g.sample()
		}
	}
	if ret.reason() == sensors.ErrUnsupported {
		if ret = g.choose(); ret == success {
			s, ret = g.sample()
		}
	}
	if ret != success {
		g.fail(ret)
		return g.reading()
	}
	g.wait, g.backoff, g.failures, g.err = time.Time{}, 0, 0, nil
	g.add(s)
	return g.reading()
}

// fail deals with a GPU that has answered with an error.
func (g *gpu) fail(ret code) {
	if ret.reason() != sensors.ErrTransient {
		g.leave(ret)
		return
	}
	g.report(ret)
	if g.failures++; g.failures < patience {
		return
	}
	if g.choose() == success {
		g.failures = 0
		return
	}
	g.leave(ret)
}

// leave leaves the GPU alone for a while: 1 s the first time, then twice as
// long each time.
func (g *gpu) leave(ret code) {
	g.report(ret)
	g.power = sensors.Watts(math.NaN())
	g.dead = ret == versionMismatch
	g.rebase = g.rebase || ret.reason() == sensors.ErrLost
	g.backoff = min(max(2*g.backoff, time.Second), longestWait)
	g.wait = g.now().Add(g.backoff)
}

// reopen gets back a GPU that was left alone.
func (g *gpu) reopen() code {
	if ret := g.fetch(); ret != success {
		return ret
	}
	if ret := g.choose(); ret != success {
		return ret
	}
	if g.rebase {
		g.counter.Rebase()
		g.integrator.Rebase()
		g.unanchor()
		g.rebase = false
	}
	return success
}

// fetch gets a new handle, after initialising NVML again if somebody else in
// the process has shut it down once too often.
func (g *gpu) fetch() code {
	handle, ret := g.lookUp()
	if ret == uninitialized {
		if ret = g.driver.Init(); ret == success {
			handle, ret = g.lookUp()
		}
	}
	if ret == success {
		g.device = handle
	}
	return ret
}

func (g *gpu) lookUp() (device, code) {
	if g.uuid == "" {
		return g.driver.ByIndex(g.index)
	}
	return g.driver.ByUUID(g.uuid)
}

// sample is what one read brought: mJ of a counter, or mW.
type sample struct {
	at    time.Time
	value uint64
	power sensors.Watts // NaN where there is only a counter
}

func (g *gpu) sample() (sample, code) {
	s := sample{power: sensors.Watts(math.NaN())}
	before := g.now()
	if g.source.field == 0 {
		value, ret := g.call(g.source)
		s.at, s.value = valid(before, g.now(), 0), value
		if ret == success && g.source.method != sensors.MethodCounter {
			s.power = sensors.Watts(value) / 1000
		}
		return s, ret
	}
	ret := g.device.Fields(g.fields)
	s.at = valid(before, g.now(), g.fields[0].micros)
	if ret != success {
		return s, ret
	}
	if s.value, ret = g.fields[0].number(); ret != success {
		return s, ret
	}
	if g.source.method != sensors.MethodCounter {
		s.power = sensors.Watts(s.value) / 1000
	} else if len(g.fields) > 1 {
		switch power, ret := g.fields[1].number(); ret.reason() {
		case nil:
			s.power = sensors.Watts(power) / 1000
		case sensors.ErrUnsupported:
			g.fields = g.fields[:1]
		}
	}
	return s, success
}

// valid is the time at which a value was valid. The driver's own timestamp is
// the best of it, but of another clock, which can be set at any time: only its
// distance from now is used, and only where it can be true.
func valid(before, after time.Time, micros int64) time.Time {
	if lag := after.UnixMicro() - micros; lag >= 0 && lag <= time.Second.Microseconds() {
		return after.Add(-time.Duration(lag) * time.Microsecond)
	}
	return before.Add(after.Sub(before) / 2)
}

// add accounts for a sample.
func (g *gpu) add(s sample) {
	if s.at.After(g.at) {
		g.at = s.at
	}
	g.power = s.power
	if g.source.method != sensors.MethodCounter {
		g.integrator.Add(g.at, s.power)
		return
	}
	tally := g.counter.Add(g.at, s.value)
	if s.power <= g.maxPower {
		g.check.Add(g.at, tally, s.power)
	}
	energy := tally.Energy
	if g.anchorAt.IsZero() || !math.IsNaN(float64(s.power)) {
		g.anchorAt, g.anchorEnergy = g.at, energy
		return
	}
	if dt := g.at.Sub(g.anchorAt); dt >= derivation {
		g.derived = sensors.Watts((energy - g.anchorEnergy).Joules()) / sensors.Watts(dt.Seconds())
		g.anchorAt, g.anchorEnergy = g.at, energy
	}
	g.power = g.derived
}

// reading is the state as the last successful read left it.
func (g *gpu) reading() sensors.Reading {
	r := sensors.Reading{
		At: g.at, Tally: g.tally(), Power: g.power, Utilization: math.NaN(), Doubt: g.check.Doubt(), Err: g.err,
	}
	if r.At.IsZero() {
		r.At = g.now()
	}
	if g.source.method != g.first {
		r.Method, r.ErrorBand = g.source.method, band(g.source.method)
	}
	if wide := g.check.ErrorBand(); wide > max(g.band, r.ErrorBand) {
		r.ErrorBand = wide
	}
	return r
}

// report makes ret the reason for which the GPU is not read. An error that
// lasts is made once.
func (g *gpu) report(ret code) {
	if g.lastErr == nil || g.last != ret {
		g.last = ret
		g.lastErr = fmt.Errorf("%s: %s: %w: %s", name, g.id, ret.reason(), ret)
	}
	g.err = g.lastErr
}

// unavailable says that this program was built without the means to read NVML.
func unavailable(why string, visible bool) sensors.Omission {
	o := sensors.Omission{
		Source: name, Component: sensors.GPU, Status: sensors.Absent,
		Reason: "no NVIDIA GPU found (" + why + ")",
		Err:    fmt.Errorf("%s: %w: %s", name, sensors.ErrAbsent, why),
	}
	if visible {
		o.Status = sensors.Unreadable
		o.Reason = "this machine has an NVIDIA GPU and this program cannot read it: " + why
		o.Remedy = "build it on Linux with CGO_ENABLED=1 and a C compiler"
		o.Err = fmt.Errorf("%s: %w: %s", name, sensors.ErrUnsupported, why)
	}
	return o
}
