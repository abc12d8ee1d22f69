//go:build linux && cgo

package nvml

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// newDriver returns NVML by way of go-nvml.
func newDriver() (driver, string) { return &library{api: nvml.New()}, "" }

// library is the installed NVML.
type library struct {
	api nvml.Interface
	has symbols
}

var _ driver = (*library)(nil)

// symbols are the functions that are called beyond those every NVML has. They
// are looked up before: go-nvml leaves them to the dynamic linker, which ends
// the process at a call to one that is not there. The functions that go-nvml
// itself calls by a versioned name, such as nvmlDeviceGetCount_v2, fall back on
// the name without version.
type symbols struct {
	byUUID, uuid, name, capability, mig, persistence  bool
	enforcedLimit, limitRange, energy, power, fields  bool
	computing, mps, drawing, utilization, processName bool
	instances, instance, gpuInstance, slices, profile bool
}

// Init implements driver.
func (l *library) Init() code {
	ret := l.api.Init()
	if ret != nvml.SUCCESS {
		return code(ret)
	}
	has := func(symbol string) bool { return l.api.Extensions().LookupSymbol(symbol) == nil }
	// go-nvml calls the newest there is.
	versioned := func(symbol string) bool { return has(symbol+"_v3") || has(symbol+"_v2") || has(symbol) }
	l.has = symbols{
		byUUID:        has("nvmlDeviceGetHandleByUUID"),
		uuid:          has("nvmlDeviceGetUUID"),
		name:          has("nvmlDeviceGetName"),
		capability:    has("nvmlDeviceGetCudaComputeCapability"),
		mig:           has("nvmlDeviceGetMigMode"),
		persistence:   has("nvmlDeviceGetPersistenceMode"),
		enforcedLimit: has("nvmlDeviceGetEnforcedPowerLimit"),
		limitRange:    has("nvmlDeviceGetPowerManagementLimitConstraints"),
		energy:        has("nvmlDeviceGetTotalEnergyConsumption"),
		power:         has("nvmlDeviceGetPowerUsage"),
		fields:        has("nvmlDeviceGetFieldValues"),
		computing:     versioned("nvmlDeviceGetComputeRunningProcesses"),
		mps:           versioned("nvmlDeviceGetMPSComputeRunningProcesses"),
		drawing:       versioned("nvmlDeviceGetGraphicsRunningProcesses"),
		utilization:   has("nvmlDeviceGetProcessUtilization"),
		processName:   has("nvmlSystemGetProcessName"),
		instances:     has("nvmlDeviceGetMaxMigDeviceCount"),
		instance:      has("nvmlDeviceGetMigDeviceHandleByIndex"),
		gpuInstance:   has("nvmlDeviceGetGpuInstanceId"),
		slices:        versioned("nvmlDeviceGetAttributes"),
		profile:       has("nvmlDeviceGetGpuInstanceProfileInfo"),
	}
	return success
}

// Shutdown implements driver.
func (l *library) Shutdown() code { return code(l.api.Shutdown()) }

// Count implements driver.
func (l *library) Count() (int, code) {
	n, ret := l.api.DeviceGetCount()
	return n, code(ret)
}

// ByIndex implements driver.
func (l *library) ByIndex(index int) (device, code) {
	d, ret := l.api.DeviceGetHandleByIndex(index)
	return l.handle(d, ret)
}

// ByUUID implements driver.
func (l *library) ByUUID(uuid string) (device, code) {
	if !l.has.byUUID {
		return nil, functionNotFound
	}
	d, ret := l.api.DeviceGetHandleByUUID(uuid)
	return l.handle(d, ret)
}

// ProcessName implements driver. It allocates.
func (l *library) ProcessName(pid int) (string, code) {
	if !l.has.processName {
		return "", functionNotFound
	}
	command, ret := l.api.SystemGetProcessName(pid)
	return command, code(ret)
}

func (l *library) handle(d nvml.Device, ret nvml.Return) (device, code) {
	if ret != nvml.SUCCESS {
		return nil, code(ret)
	}
	return &handle{device: d, has: &l.has}, success
}

// handle is one GPU of the installed NVML.
type handle struct {
	device nvml.Device
	has    *symbols
	values []nvml.FieldValue
}

// UUID implements device.
func (h *handle) UUID() (string, code) {
	if !h.has.uuid {
		return "", functionNotFound
	}
	uuid, ret := h.device.GetUUID()
	return uuid, code(ret)
}

// Name implements device.
func (h *handle) Name() (string, code) {
	if !h.has.name {
		return "", functionNotFound
	}
	name, ret := h.device.GetName()
	return name, code(ret)
}

// Capability implements device.
func (h *handle) Capability() (major, minor int, c code) {
	if !h.has.capability {
		return 0, 0, functionNotFound
	}
	major, minor, ret := h.device.GetCudaComputeCapability()
	return major, minor, code(ret)
}

// MIG implements device.
func (h *handle) MIG() (bool, code) {
	if !h.has.mig {
		return false, functionNotFound
	}
	current, _, ret := h.device.GetMigMode()
	return current == nvml.DEVICE_MIG_ENABLE, code(ret)
}

// Persistence implements device.
func (h *handle) Persistence() (bool, code) {
	if !h.has.persistence {
		return false, functionNotFound
	}
	mode, ret := h.device.GetPersistenceMode()
	return mode == nvml.FEATURE_ENABLED, code(ret)
}

// Limit implements device. The limit in force can be raised while the sensor
// is open, up to the other.
func (h *handle) Limit() (uint32, code) {
	limit, c := uint32(0), functionNotFound
	if h.has.enforcedLimit {
		enforced, ret := h.device.GetEnforcedPowerLimit()
		if c = code(ret); c == success {
			limit = enforced
		}
	}
	if h.has.limitRange {
		if _, most, ret := h.device.GetPowerManagementLimitConstraints(); ret == nvml.SUCCESS {
			limit, c = max(limit, most), success
		}
	}
	return limit, c
}

// Energy implements device. It allocates, in go-nvml, as Power does; both are
// only called where Fields does not do.
func (h *handle) Energy() (uint64, code) {
	if !h.has.energy {
		return 0, functionNotFound
	}
	energy, ret := h.device.GetTotalEnergyConsumption()
	return energy, code(ret)
}

// Power implements device.
func (h *handle) Power() (uint32, code) {
	if !h.has.power {
		return 0, functionNotFound
	}
	power, ret := h.device.GetPowerUsage()
	return power, code(ret)
}

// Contexts implements device. It allocates.
func (h *handle) Contexts(kind contexts) ([]int, code) {
	list, ok := h.device.GetComputeRunningProcesses, h.has.computing
	switch kind {
	case mps:
		list, ok = h.device.GetMPSComputeRunningProcesses, h.has.mps
	case drawing:
		list, ok = h.device.GetGraphicsRunningProcesses, h.has.drawing
	}
	if !ok {
		return nil, functionNotFound
	}
	running, ret := list()
	pids := make([]int, len(running))
	for i, p := range running {
		pids[i] = int(p.Pid)
	}
	return pids, code(ret)
}

// Utilization implements device. It allocates.
func (h *handle) Utilization(since int64) (samples []utilization, ret code) {
	if !h.has.utilization {
		return nil, functionNotFound
	}
	// go-nvml asks how many there are, and then for them. If there are more by
	// then, it goes beyond what it has room for.
	defer func() {
		if recover() != nil {
			samples, ret = nil, notReady
		}
	}()
	found, r := h.device.GetProcessUtilization(uint64(since))
	if r != nvml.SUCCESS {
		return nil, code(r)
	}
	for _, s := range found {
		samples = append(samples, utilization{pid: int(s.Pid), micros: int64(s.TimeStamp), busy: s.SmUtil})
	}
	return samples, success
}

// Instances implements device.
func (h *handle) Instances() (int, code) {
	if !h.has.instances {
		return 0, functionNotFound
	}
	n, ret := h.device.GetMaxMigDeviceCount()
	return n, code(ret)
}

// Instance implements device.
func (h *handle) Instance(i int) (device, code) {
	if !h.has.instance {
		return nil, functionNotFound
	}
	d, ret := h.device.GetMigDeviceHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return nil, code(ret)
	}
	return &handle{device: d, has: h.has}, success
}

// GPUInstance implements device.
func (h *handle) GPUInstance() (int, code) {
	if !h.has.gpuInstance {
		return 0, functionNotFound
	}
	id, ret := h.device.GetGpuInstanceId()
	return id, code(ret)
}

// Slices implements device.
func (h *handle) Slices() (instance, gpuInstance int, c code) {
	if !h.has.slices {
		return 0, 0, functionNotFound
	}
	a, ret := h.device.GetAttributes()
	return int(a.ComputeInstanceSliceCount), int(a.GpuInstanceSliceCount), code(ret)
}

// ProfileSlices implements device.
func (h *handle) ProfileSlices(profile int) (int, code) {
	if !h.has.profile {
		return 0, functionNotFound
	}
	info, ret := h.device.GetGpuInstanceProfileInfo(profile)
	return int(info.SliceCount), code(ret)
}

// Fields implements device.
func (h *handle) Fields(values []field) code {
	if !h.has.fields {
		return functionNotFound
	}
	h.values = h.values[:0]
	for i := range values {
		h.values = append(h.values, nvml.FieldValue{FieldId: values[i].id, ScopeId: values[i].scope})
	}
	ret := h.device.GetFieldValues(h.values)
	for i, v := range h.values {
		f := &values[i]
		f.micros, f.kind, f.ret, f.value = v.Timestamp, v.ValueType, code(v.NvmlReturn), v.Value
	}
	return code(ret)
}
