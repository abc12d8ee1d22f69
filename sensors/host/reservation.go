package host

import (
	"runtime"
	"strconv"
	"strings"
)

// Reservation is the part of the machine that is kept for this job. A field is
// nil where nothing reserves a part: the job then has no share of its own, which
// is not the same as all of the machine.
type Reservation struct {
	CPU    *Reserved `json:"cpu,omitempty"`
	Memory *Reserved `json:"memory,omitempty"`
}

// Reserved is a part of the machine's threads or of its memory.
type Reserved struct {
	// Amount is in threads, of which a quota can give a part, or in bytes.
	Amount float64 `json:"amount"`
	// Share is the amount over what the machine has, above 0 and at most 1.
	Share float64 `json:"share"`
	// Source is what says so: "cpu.max of its control group".
	Source string `json:"source"`
}

// DetectReservation finds out which part of the machine m is reserved for this
// job: the least of what its control groups and all above them allow, of the
// processors that the scheduler lets it run on, and of what a batch system says
// it was given. root is "/" but in tests, and lookup is as os.LookupEnv.
//
// Weights, such as the requests of a pod in Kubernetes, are no limit and do not
// count.
func DetectReservation(root string, lookup func(string) (string, bool), m Machine) Reservation {
	return detectReservation(readCgroups(root), DetectBatch(lookup), runtime.NumCPU(), m)
}

func detectReservation(groups cgroups, batch *Batch, affinity int, m Machine) Reservation {
	cpu := least{whole: float64(m.Threads)}
	groups.limits("", func(dir string) { cpu.limit(cpuMax(readText(dir, "cpu.max")), "cpu.max of its control group") })
	groups.limits("cpu", func(dir string) {
		cpu.limit(cpuQuota(readText(dir, "cpu.cfs_quota_us"), readText(dir, "cpu.cfs_period_us")), "cpu.cfs_quota_us of its control group")
	})
	cpu.limit(groups.cpuset("", "cpuset.cpus.effective"), "cpuset.cpus.effective of its control group")
	cpu.limit(groups.cpuset("cpuset", "cpuset.effective_cpus", "cpuset.cpus"), "cpuset.cpus of its control group")
	if batch != nil {
		cpu.given(float64(batch.CPUs), batch.System+": the CPUs of the job on this node")
	}
	cpu.limit(float64(affinity), "processor affinity")

	memory := least{whole: float64(m.Memory)}
	groups.limits("", func(dir string) {
		memory.limit(bytesLimit(readText(dir, "memory.max")), "memory.max of its control group")
	})
	groups.limits("memory", func(dir string) {
		memory.limit(bytesLimit(readText(dir, "memory.limit_in_bytes")), "memory.limit_in_bytes of its control group")
	})
	// Version 1 tells what groups above allow that a container is not shown.
	for _, g := range groups.find("memory") {
		memory.limit(hierarchicalLimit(readText(g.dir, "memory.stat")), "memory.stat of its control group")
	}
	if batch != nil {
		if batch.AllMemory {
			memory.given(memory.whole, batch.System+": all memory of the node")
		}
		memory.given(float64(batch.Memory), batch.System+": the memory of the job on this node")
	}
	return Reservation{CPU: cpu.reserved(), Memory: memory.reserved()}
}

// least keeps the least of the amounts that something allows.
type least struct {
	whole  float64 // of the machine; 0 where it is not known
	amount float64
	source string
}

// limit takes a limit. One that lets the job have everything reserves nothing.
func (l *least) limit(amount float64, source string) {
	if amount < l.whole {
		l.given(amount, source)
	}
}

// given takes what somebody reserved for the job, which can be everything.
func (l *least) given(amount float64, source string) {
	if amount > 0 && (l.source == "" || amount < l.amount) {
		l.amount, l.source = min(amount, l.whole), source
	}
}

func (l *least) reserved() *Reserved {
	if l.source == "" || l.whole <= 0 {
		return nil
	}
	return &Reserved{Amount: l.amount, Share: l.amount / l.whole, Source: l.source}
}

// limits calls f for the group of this process and all above it.
func (c cgroups) limits(controller string, f func(dir string)) {
	for _, g := range c.find(controller) {
		g.upwards(f)
	}
}

// cpuMax reads "quota period" in µs, and returns the quota in threads; 0 for
// "max", which is none.
func cpuMax(text string) float64 {
	quota, period, _ := strings.Cut(strings.TrimSpace(text), " ")
	return cpuQuota(quota, period)
}

// cpuQuota returns a quota in threads, 0 for none, which version 1 has as -1.
func cpuQuota(quota, period string) float64 {
	q, err := strconv.ParseUint(strings.TrimSpace(quota), 10, 63)
	p, err2 := strconv.ParseUint(strings.TrimSpace(period), 10, 63)
	if err != nil || err2 != nil || p == 0 {
		return 0
	}
	return float64(q) / float64(p)
}

// bytesLimit reads a limit in bytes; 0 for "max". Version 1 has none as a number
// beyond all memory.
func bytesLimit(text string) float64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return float64(n)
}

// hierarchicalLimit finds "hierarchical_memory_limit N" in memory.stat; 0 for
// none.
func hierarchicalLimit(text string) float64 {
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(line, "hierarchical_memory_limit "); ok {
			return bytesLimit(n)
		}
	}
	return 0
}
