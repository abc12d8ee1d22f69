package nvml

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// contexts is a kind of context that a process can have on a GPU. Each is a list
// of its own.
type contexts int

const (
	computing contexts = iota
	// mps are the clients of a Multi-Process Service, which are not computing
	// by themselves.
	mps
	drawing
)

// mpsServer is the process through which the clients of MPS compute. What it does
// is theirs.
const mpsServer = "nvidia-cuda-mps"

// utilization is what a process made of a GPU in a time of the driver's choice.
type utilization struct {
	pid    int
	micros int64  // since 1970, by the driver
	busy   uint32 // percent of the time in which a multiprocessor was busy
}

// firstLook is the time of which the utilization is asked the first time.
const firstLook = time.Second

// Processes implements sensors.ProcessLister.
func (s *sensor) Processes(i int) ([]sensors.ProcessUse, error) {
	g := s.gpus[i]
	if g.dead || !g.wait.IsZero() {
		return nil, fmt.Errorf("%s: processes: %w", name, sensors.ErrTransient)
	}
	var uses []sensors.ProcessUse
	var ret code
	if g.divided {
		uses, ret = g.instanceUses()
	} else {
		uses, ret = g.uses()
	}
	if ret != success {
		return nil, fmt.Errorf("%s: processes: %w: %s", name, ret.reason(), ret)
	}
	return uses, nil
}

// uses returns the processes on a GPU that is not divided.
func (g *gpu) uses() ([]sensors.ProcessUse, code) {
	pids, ret := g.processes(g.device)
	if ret != success {
		return nil, ret
	}
	uses := make([]sensors.ProcessUse, len(pids))
	for i, pid := range pids {
		uses[i] = sensors.ProcessUse{PID: pid, Busy: math.NaN()}
	}
	if len(uses) > 1 {
		g.addBusy(uses)
	}
	return uses, success
}

// instanceUses returns the processes on each instance of a GPU in MIG mode. The
// instances are asked and not the GPU: it tells who may administer it of all of
// them, and an instance tells whoever may use it. Handles do not outlive the
// instances, which come and go, so they are got anew.
func (g *gpu) instanceUses() ([]sensors.ProcessUse, code) {
	n, ret := g.device.Instances()
	if ret != success {
		return nil, ret
	}
	var uses []sensors.ProcessUse
	asked, refused := 0, success
	for i := range n {
		handle, ret := g.device.Instance(i)
		if ret == notFound || ret == invalidArgument {
			continue
		}
		var uuid string
		var pids []int
		if ret == success {
			uuid, ret = handle.UUID()
		}
		if ret == success {
			pids, ret = g.processes(handle)
		}
		if ret.reason() == sensors.ErrPermission {
			// Somebody else's.
			refused = ret
			continue
		}
		if ret != success {
			return nil, ret
		}
		asked++
		for _, pid := range pids {
			uses = append(uses, sensors.ProcessUse{PID: pid, Busy: math.NaN(), Part: uuid})
		}
	}
	if asked == 0 {
		return nil, refused
	}
	return uses, success
}

// processes returns the processes with a context of any kind on a GPU or an
// instance, each once.
func (g *gpu) processes(on device) ([]int, code) {
	computing, ret := on.Contexts(computing)
	if ret != success {
		return nil, ret
	}
	clients, ret := on.Contexts(mps)
	if ret != success && ret.reason() != sensors.ErrUnsupported {
		return nil, ret
	}
	others, ret := on.Contexts(drawing)
	if ret != success && ret.reason() != sensors.ErrUnsupported {
		return nil, ret
	}
	if len(clients) > 0 {
		computing = slices.DeleteFunc(computing, g.serves)
	}
	pids := slices.Concat(computing, clients, others)
	slices.Sort(pids)
	return slices.Compact(pids), success
}

// serves reports whether a process is the server of MPS.
func (g *gpu) serves(pid int) bool {
	command, ret := g.driver.ProcessName(pid)
	return ret == success && strings.HasPrefix(path.Base(command), mpsServer)
}

// addBusy adds for which part of the time since the last question each of the
// processes kept the GPU busy; nothing where the driver does not tell.
//
// The driver has a sample of a process for each time in which it was busy at all.
// A process that has fewer of them than another was idle in the others' times:
// all are divided by the most that any has.
func (g *gpu) addBusy(uses []sensors.ProcessUse) {
	now := g.now().UnixMicro()
	if g.lastSeen == 0 || g.lastSeen > now {
		// The first time, or a clock that was set back: it would tell nothing
		// until it has caught up.
		g.lastSeen = now - firstLook.Microseconds()
	}
	since := g.lastSeen
	samples, ret := g.device.Utilization(since)
	if ret != success && ret != notFound {
		return
	}
	sums, counts, most := map[int]float64{}, map[int]int{}, 1
	for _, s := range samples {
		// Buffers have been seen to come back with entries that were never
		// filled in, or filled with nonsense.
		if s.pid == 0 || s.micros <= since || s.busy > 100 {
			continue
		}
		g.lastSeen = max(g.lastSeen, s.micros)
		sums[s.pid] += float64(s.busy) / 100
		counts[s.pid]++
		most = max(most, counts[s.pid])
	}
	for i := range uses {
		uses[i].Busy = sums[uses[i].PID] / float64(most)
	}
}
