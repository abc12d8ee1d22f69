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
	byUUID, uuid, name, capability, mig, persistence            bool
	enforcedLimit, limitRange, energy, power, fields, processes bool
}

// Init implements driver.
func (l *library) Init() code {
	ret := l.api.Init()
	if ret != nvml.SUCCESS {
		return code(ret)
	}
	has := func(symbol string) bool { return l.api.Extensions().LookupSymbol(symbol) == nil }
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
		// go-nvml calls the newest there is.
		processes: has("nvmlDeviceGetComputeRunningProcesses_v3") ||
			has("nvmlDeviceGetComputeRunningProcesses_v2") || has("nvmlDeviceGetComputeRunningProcesses"),
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

// Processes implements device. It allocates.
func (h *handle) Processes() ([]int, code) {
	if !h.has.processes {
		return nil, functionNotFound
	}
	running, ret := h.device.GetComputeRunningProcesses()
	pids := make([]int, len(running))
	for i, p := range running {
		pids[i] = int(p.Pid)
	}
	return pids, code(ret)
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
