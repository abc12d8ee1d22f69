package nvml

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// scripted is a driver in pure Go over the same scripts as the fake library.
type scripted struct {
	clock *sensortest.Clock
	start time.Time
	gpus  []sensortest.GPU

	failInit   code
	mismatchAt time.Duration
	shutdownAt time.Duration
	old        bool          // lacks what came after 2017
	lag        time.Duration // of the driver's timestamps; negative: none

	references, inits, shutdowns, lookUps, calls int
	asked                                        []int64       // times of Utilization
	nonsense                                     []utilization // in its answer
}

func newScripted(gpus ...sensortest.GPU) *scripted {
	d := &scripted{clock: sensortest.NewClock(), lag: -1}
	d.start = d.clock.Now()
	for i, g := range gpus {
		d.gpus = append(d.gpus, g.WithDefaults(i))
	}
	return d
}

func (d *scripted) elapsed() time.Duration { return d.clock.Now().Sub(d.start) }

func (d *scripted) state() code {
	t := d.elapsed()
	if d.shutdownAt > 0 && t >= d.shutdownAt {
		d.shutdownAt, d.references = 0, 0
	}
	switch {
	case d.references == 0:
		return uninitialized
	case d.mismatchAt > 0 && t >= d.mismatchAt:
		return versionMismatch
	default:
		return success
	}
}

func (d *scripted) Init() code {
	d.inits++
	if d.failInit != success {
		return d.failInit
	}
	if ret := d.state(); ret == versionMismatch {
		return ret
	}
	d.references++
	return success
}

func (d *scripted) Shutdown() code {
	d.shutdowns++
	if d.references == 0 {
		return uninitialized
	}
	d.references--
	return success
}

func (d *scripted) Count() (int, code) { return len(d.gpus), d.state() }

func (d *scripted) ByIndex(i int) (device, code) {
	h := &scriptedGPU{driver: d, gpu: &d.gpus[i]}
	h.generation = h.age()
	return h, h.enter("nvmlDeviceGetHandleByIndex")
}

func (d *scripted) ByUUID(uuid string) (device, code) {
	d.lookUps++
	if ret := d.state(); ret != success {
		return nil, ret
	}
	for i := range d.gpus {
		if d.gpus[i].ID == uuid {
			h := &scriptedGPU{driver: d, gpu: &d.gpus[i]}
			h.generation = h.age()
			return h, h.enter("nvmlDeviceGetHandleByUUID")
		}
	}
	return nil, notFound
}

func (d *scripted) ProcessName(pid int) (string, code) {
	for _, g := range d.gpus {
		for _, p := range g.Processes {
			if p.PID == pid && p.Name != "" {
				return p.Name, d.state()
			}
		}
	}
	return "", notFound
}

// scriptedGPU is a handle of a GPU, or of an instance.
type scriptedGPU struct {
	driver     *scripted
	gpu        *sensortest.GPU
	generation int
	instance   *sensortest.GPUInstance
}

// age counts the times the GPU was lost and came back.
func (h *scriptedGPU) age() (n int) {
	for _, l := range h.gpu.Lost {
		if l.To <= h.driver.elapsed() {
			n++
		}
	}
	return n
}

func (h *scriptedGPU) enter(names ...string) code {
	h.driver.calls++
	if ret := h.driver.state(); ret != success {
		return ret
	}
	t := h.driver.elapsed()
	for _, l := range h.gpu.Lost {
		if l.Contains(t) {
			return gpuIsLost
		}
	}
	if h.generation != h.age() {
		return gpuIsLost
	}
	return h.fault(names...)
}

func (h *scriptedGPU) fault(names ...string) code {
	for _, f := range h.gpu.Faults {
		if c := f.Strikes(h.driver.elapsed(), names...); c != 0 {
			return code(c)
		}
	}
	return success
}

func (h *scriptedGPU) UUID() (string, code) {
	if h.instance != nil {
		return h.instance.ID, h.enter("nvmlDeviceGetUUID")
	}
	return h.gpu.ID, h.enter("nvmlDeviceGetUUID")
}
func (h *scriptedGPU) Name() (string, code) { return h.gpu.Name, h.enter("nvmlDeviceGetName") }
func (h *scriptedGPU) Capability() (int, int, code) {
	return h.gpu.Major, h.gpu.Minor, h.enter("nvmlDeviceGetCudaComputeCapability")
}
func (h *scriptedGPU) MIG() (bool, code) { return h.gpu.MIG, h.enter("nvmlDeviceGetMigMode") }
func (h *scriptedGPU) Persistence() (bool, code) {
	return !h.gpu.Lazy, h.enter("nvmlDeviceGetPersistenceMode")
}

func (h *scriptedGPU) Limit() (uint32, code) {
	if h.gpu.MaxPower <= 0 {
		return 0, notSupported
	}
	return uint32(h.gpu.MaxPower * 1000), h.enter("limit")
}

func (h *scriptedGPU) Energy() (uint64, code) {
	if h.driver.old {
		return 0, functionNotFound
	}
	if h.gpu.Module {
		return 0, notSupported
	}
	return h.gpu.Counter(h.driver.elapsed()), h.enter("nvmlDeviceGetTotalEnergyConsumption", "energy")
}

func (h *scriptedGPU) Power() (uint32, code) {
	if h.gpu.Module {
		return 0, notSupported
	}
	return h.milliwatts(h.gpu.Major > 8 || h.gpu.Major == 8 && h.gpu.Minor > 0), h.enter("nvmlDeviceGetPowerUsage", "power")
}

func (h *scriptedGPU) Contexts(kind contexts) (pids []int, ret code) {
	names := map[contexts][2]string{
		computing: {sensortest.ComputeContext, "nvmlDeviceGetComputeRunningProcesses"},
		mps:       {sensortest.MPSContext, "nvmlDeviceGetMPSComputeRunningProcesses"},
		drawing:   {sensortest.GraphicsContext, "nvmlDeviceGetGraphicsRunningProcesses"},
	}[kind]
	for _, p := range h.gpu.Processes {
		if p.On(h.driver.elapsed(), names[0]) && (h.instance == nil || h.instance.ID == p.Instance) {
			pids = append(pids, p.PID)
		}
	}
	if ret = h.enter(names[1]); ret == success && kind == drawing && h.gpu.MIG {
		ret = notSupported
	}
	return pids, ret
}

// Utilization has a sample of each second in which a process was busy, of the last
// hundred.
func (h *scriptedGPU) Utilization(since int64) (samples []utilization, ret code) {
	h.driver.asked = append(h.driver.asked, since)
	if ret := h.enter("nvmlDeviceGetProcessUtilization"); ret != success {
		return nil, ret
	}
	if h.gpu.MIG {
		return nil, notSupported
	}
	at := h.driver.elapsed().Truncate(time.Second)
	for n := 0; n < 100 && at >= 0; n++ {
		micros := h.driver.start.Add(at).UnixMicro()
		if micros <= since {
			break
		}
		for _, p := range h.gpu.Processes {
			if p.SM > 0 && p.On(at, cmp.Or(p.Kind, sensortest.ComputeContext)) {
				samples = append(samples, utilization{pid: p.PID, micros: micros, busy: uint32(100*p.SM + 0.5)})
			}
		}
		at -= time.Second
	}
	samples = append(samples, h.driver.nonsense...)
	if len(samples) == 0 {
		return nil, notFound
	}
	return samples, success
}

func (h *scriptedGPU) Instances() (int, code) {
	if !h.gpu.MIG {
		return 0, h.enter("nvmlDeviceGetMaxMigDeviceCount")
	}
	return h.gpu.Slices, h.enter("nvmlDeviceGetMaxMigDeviceCount")
}

func (h *scriptedGPU) Instance(i int) (device, code) {
	if ret := h.enter("nvmlDeviceGetMigDeviceHandleByIndex", "instance "+strconv.Itoa(i)); ret != success {
		return nil, ret
	}
	if i >= len(h.gpu.Instances) {
		return nil, notFound
	}
	instance := *h
	instance.instance = &h.gpu.Instances[i]
	return &instance, success
}

func (h *scriptedGPU) GPUInstance() (int, code) {
	return h.instance.In, h.enter("nvmlDeviceGetGpuInstanceId")
}

func (h *scriptedGPU) Slices() (instance, gpuInstance int, ret code) {
	return h.instance.Slices, h.instance.InSlices, h.enter("nvmlDeviceGetAttributes", "slices of "+h.instance.ID)
}

func (h *scriptedGPU) ProfileSlices(profile int) (int, code) {
	sizes := []int{1, 2, 3, 4, 7, 8, 6}
	switch {
	case profile >= len(sizes):
		return 0, invalidArgument
	case sizes[profile] > h.gpu.Slices:
		return 0, notSupported
	}
	return sizes[profile], h.enter("nvmlDeviceGetGpuInstanceProfileInfo")
}

func (h *scriptedGPU) milliwatts(averaged bool) uint32 {
	s := h.gpu.Script
	if !averaged {
		s.Averaging = 0
	}
	return uint32(math.Round(float64(s.Watts(h.driver.elapsed()) * 1000)))
}

func (h *scriptedGPU) Fields(values []field) code {
	if h.driver.old {
		return functionNotFound
	}
	if ret := h.enter("nvmlDeviceGetFieldValues"); ret != success {
		return ret
	}
	for i := range values {
		f := &values[i]
		f.ret, f.value, f.kind, f.micros = notSupported, [8]byte{}, 0, 0
		if h.driver.lag >= 0 {
			f.micros = h.driver.clock.Now().Add(-h.driver.lag).UnixMicro()
		}
		if (f.scope == scopeModule) != h.gpu.Module {
			continue
		}
		group := "power"
		if f.id == fieldTotalEnergy || f.id == fieldEnergy {
			group = "energy"
		}
		if f.ret = h.fault(fieldNames[f.id], group); f.ret != success {
			continue
		}
		if group == "energy" {
			f.kind = kindUint64
			binary.NativeEndian.PutUint64(f.value[:], h.gpu.Counter(h.driver.elapsed()))
		} else {
			f.kind = kindUint32
			binary.NativeEndian.PutUint32(f.value[:], h.milliwatts(f.id == fieldPowerAverage))
		}
	}
	return success
}

// fieldNames has the names of fields in a script; made once, as a read must
// not allocate.
var fieldNames = func() map[uint32]string {
	names := map[uint32]string{}
	for _, id := range probed {
		names[id] = strconv.Itoa(int(id))
	}
	return names
}()

// rig is a sensor over scripted GPUs, on a clock that only the test moves.
type rig struct {
	*scripted
	sensor  sensors.Sensor
	omitted []sensors.Omission
	dst     []sensors.Reading
}

// start opens the sensor and takes the first reading.
func start(t testing.TB, gpus ...sensortest.GPU) *rig {
	t.Helper()
	return startOn(t, newScripted(gpus...))
}

func startOn(t testing.TB, d *scripted) *rig {
	t.Helper()
	r := &rig{scripted: d}
	r.sensor, r.omitted = open(context.Background(), d, sensors.Roots{}, d.clock.Now)
	if r.sensor == nil {
		t.Fatalf("no sensor: %+v", r.omitted)
	}
	r.dst = make([]sensors.Reading, len(r.sensor.Devices()))
	r.sensor.Read(r.dst)
	for i, got := range r.dst {
		if got.Tally != (sensors.Tally{}) {
			t.Fatalf("GPU %d: the first read is the origin, got %+v", i, got.Tally)
		}
	}
	return r
}

// after moves the clock and reads.
func (r *rig) after(d time.Duration) []sensors.Reading {
	r.clock.Advance(d)
	r.sensor.Read(r.dst)
	return r.dst
}

// every reads n times, d apart.
func (r *rig) every(d time.Duration, n int) []sensors.Reading {
	for range n {
		r.after(d)
	}
	return r.dst
}
