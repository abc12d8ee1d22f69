package tracker

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// Usage is what a job uses of its machine.
type Usage struct {
	// CPU is the CPU time it has used so far, which never decreases.
	CPU time.Duration
	// Memory is what it holds for itself alone at this moment, in bytes: resident
	// memory that no other process shares. HasMemory is set where it is known,
	// which it is not of a job that has not begun or has ended.
	Memory    uint64
	HasMemory bool
}

// JobMeter says what the job uses, so that it can be charged with its share. One
// that has a method Owns(pid int) bool, which says whether a process is the job's
// and can be called from any goroutine, is charged for the GPUs that its processes
// are on; any other for those that it can see.
type JobMeter interface {
	// Read is called from the sampling goroutine, once a sample; it must not
	// block, and allocates nothing in steady state. After an error the last
	// values stand.
	Read() (Usage, error)
	// Accounting says in a word how the job's processes are counted.
	Accounting() string
}

// The values of JobEnergy.Accounting.
const (
	// AccountingProcess counts one process and the children it has waited for.
	AccountingProcess = "process"
	// AccountingTree counts the processes that have ended when they are
	// reaped, and those that live by walking their tree.
	AccountingTree = "process_tree"
	// AccountingCgroup counts everything that ever ran in the job's own
	// control group.
	AccountingCgroup = "cgroup"
)

// selfJob is the JobMeter of a program that tracks itself: this process.
type selfJob struct{ memory *host.ProcessMemory }

func newSelfJob() *selfJob {
	memory, _ := host.OpenSelfMemory()
	return &selfJob{memory: memory}
}

func (j *selfJob) Read() (Usage, error) {
	var u Usage
	var err error
	u.CPU, err = host.SelfCPU()
	if j.memory != nil {
		held, err := j.memory.Read()
		u.Memory, u.HasMemory = held, err == nil
	}
	return u, err
}

// Owns reports whether a process is the job's.
func (j *selfJob) Owns(pid int) bool { return pid == os.Getpid() }

func (j *selfJob) Accounting() string { return AccountingProcess }

// share is how the job's share of a device is found. It is the method in the
// report; empty where the share is not known.
type share string

const (
	// shareCPUTime: the job's part of the CPU time that the machine was busy.
	// A job alone on a machine is charged with all of the processors' energy,
	// what they draw while they wait for it included.
	shareCPUTime share = "cpu_time_share"
	// shareMemory: the job's part of the memory in use, likewise.
	shareMemory share = "resident_memory_share"
	// shareUsed: a GPU is the job's from when one of its processes is on it.
	shareUsed share = "used_devices"
	// shareVisible: GPUs that the job can see are its own, others are not. It
	// stands in where nobody says whose processes are on a GPU.
	shareVisible share = "visible_devices"
)

// rule says how the job is charged for one device.
type rule struct {
	share share
	part  float64 // of a GPU: the part of it that the job can use
}

// rules returns the rule of each device. What the environment says of visible GPUs
// here is what it says to the job, which inherits it.
func rules(devices []sensors.Device, clocks clocks, lookup func(string) (string, bool)) []rule {
	visible, known := visibleGPUs(devices, lookup)
	all := make([]rule, len(devices))
	for i, d := range devices {
		switch {
		case d.Component == sensors.CPU && clocks.cpu != nil:
			all[i].share = shareCPUTime
		case d.Component == sensors.Memory && clocks.memory != nil:
			all[i].share = shareMemory
		case d.Component == sensors.GPU && known:
			all[i] = rule{share: shareVisible, part: visible[i]}
		}
	}
	return all
}

// shareOf returns how the job's share of device i is found in a sample.
func (s *sampler) shareOf(i int, now *sample) share {
	if use := &now.devices[i].use; s.rules[i].share != "" && use.known {
		return cmp.Or(use.method, shareUsed)
	}
	return s.rules[i].share
}

// attributable reports whether the job's share of device i is known.
func (s *sampler) attributable(i int, now *sample) bool {
	switch s.shareOf(i, now) {
	case "":
		return false
	case shareCPUTime:
		return now.usageKnown
	case shareMemory:
		return now.memorySeen
	default:
		return true
	}
}

// clocks are what the machine as a whole uses; nil where it cannot be read.
type clocks struct {
	cpu    *host.CPUClock
	memory *host.MemoryUse
}

// openClocks opens those that some device's share is found by.
func openClocks(roots sensors.Roots, devices []sensors.Device) clocks {
	var c clocks
	has := func(component sensors.Component) bool {
		return slices.ContainsFunc(devices, func(d sensors.Device) bool { return d.Component == component })
	}
	if has(sensors.CPU) {
		c.cpu, _ = host.OpenCPUClock(roots)
	}
	if has(sensors.Memory) {
		c.memory, _ = host.OpenMemoryUse(roots)
	}
	return c
}

// machineUse is what the machine uses at a moment. What could not be read then is
// not known, and nothing is charged by it.
type machineUse struct {
	busy      time.Duration // CPU time so far
	busyKnown bool
	inUse     uint64 // memory, in bytes; 0 where it is not known
}

func (c clocks) read() (use machineUse) {
	if c.cpu != nil {
		times, err := c.cpu.Read()
		use.busy, use.busyKnown = times.Busy, err == nil
	}
	if c.memory != nil {
		inUse, err := c.memory.Read()
		if err == nil {
			use.inUse = inUse
		}
	}
	return use
}

func (c clocks) close() {
	if c.cpu != nil {
		_ = c.cpu.Close()
	}
	if c.memory != nil {
		_ = c.memory.Close()
	}
}
