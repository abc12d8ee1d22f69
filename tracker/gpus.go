package tracker

import (
	"errors"
	"slices"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// longestLook is the longest time between two looks at who uses a device. The
// first are closer together: a job begins to use its GPUs soon after it starts.
const longestLook = 30 * time.Second

// gone is the number of looks in a row without a process of the job after which
// it has left a device. One can fall between two of its processes.
const gone = 2

// How the job's share of a GPU is found where it is not alone on it; alone, its
// share is all of it, by shareUsed.
const (
	// shareSM: its processes' part of the time in which any process kept the
	// multiprocessors busy.
	shareSM share = "sm_utilization_share"
	// shareProcesses: its part of the processes on the GPU, where the driver
	// does not tell the busy time of each, or none was busy.
	shareProcesses share = "gpu_process_share"
	// shareMIG: the compute slices of the instances that its processes are on,
	// of those of the GPU; in an instance its part of the processes there. What
	// no instance has, nobody is charged with.
	shareMIG share = "mig_slice_share"
)

// use is what the job makes of a device.
type use struct {
	// known is set where the driver says whose processes are on it.
	known bool
	// used is set while processes of the job are on it.
	used bool
	// before is the energy of the device at the last look at which the job was
	// not on it: the job is charged from there.
	before sensors.Microjoules
	// since is the time that was observed of it until then.
	since time.Duration
	// share is the part of the device's energy that is the job's from now on, 0
	// to 1, and method how it was found.
	share  float64
	method share
	// reserved is the job's part of the device itself: 1 of a whole GPU, the
	// slices of its MIG instances, 1/n where it is one of n owners. A process
	// that is not the job's counts as an owner: nobody says which are together.
	reserved float64
}

// looker looks from time to time which devices of a sensor the job uses. It lives
// in the goroutine that reads the sensor.
type looker struct {
	lister  sensors.ProcessLister
	devices []sensors.Device
	owns    func(pid int) bool
	uses    []use
	missed  []int // looks in a row at which the job was no longer on the device
	next    time.Time
	pause   time.Duration
}

// newLooker returns nil where nobody can tell whose a process is: a job that does
// not know its processes, a driver that speaks of other numbers than we see.
func newLooker(sensor sensors.Sensor, job JobMeter) *looker {
	owner, ok := job.(interface{ Owns(pid int) bool })
	lister, ok2 := sensor.(sensors.ProcessLister)
	if !ok || !ok2 || !host.InitialPIDNamespace() {
		return nil
	}
	return watch(lister, owner.Owns)
}

// watch returns a looker for a driver that speaks of the processes that we see.
func watch(lister sensors.ProcessLister, owns func(pid int) bool) *looker {
	devices := lister.Devices()
	return &looker{
		lister: lister, devices: devices, owns: owns, pause: time.Second,
		uses: make([]use, len(devices)), missed: make([]int, len(devices)),
	}
}

// look looks, if it is time to, given the readings of now. It goes on as long as
// the job lives: its processes come and go, and so do those of others.
func (l *looker) look(now time.Time, readings []sensors.Reading) {
	if now.Before(l.next) {
		return
	}
	l.next = now.Add(l.pause)
	l.pause = min(2*l.pause, longestLook)
	for i := range l.uses {
		u := &l.uses[i]
		processes, err := l.lister.Processes(i)
		found := use{}
		if err == nil {
			found, err = l.judge(processes, l.devices[i].Parts)
		}
		if err != nil {
			// The next look may know. A driver that will not is told by what the
			// job can see.
			if errors.Is(err, sensors.ErrUnsupported) {
				*u, l.missed[i] = use{}, 0
			}
			continue
		}
		if !u.known {
			// What was drawn so far has been charged by another rule.
			u.before, u.since = readings[i].Energy, readings[i].Observed
		}
		found.before, found.since = u.before, u.since
		switch {
		case found.used:
			l.missed[i] = 0
		case u.used:
			if l.missed[i]++; l.missed[i] < gone {
				continue
			}
			fallthrough
		default:
			found.before, found.since = readings[i].Energy, readings[i].Observed
		}
		*u = found
	}
}

// judge finds the job's share of a device from the processes on it. It is not
// supported where an instance is not among the parts that the device had at
// opening.
func (l *looker) judge(processes []sensors.ProcessUse, parts []sensors.Part) (use, error) {
	u := use{known: true, method: shareUsed}
	if len(parts) > 0 {
		for _, part := range parts {
			here := slices.DeleteFunc(slices.Clone(processes), func(p sensors.ProcessUse) bool { return p.Part != part.ID })
			if mine, _ := l.count(here); mine > 0 {
				u.used, u.method = true, shareMIG
				u.share += part.Share * float64(mine) / float64(len(here))
				u.reserved += part.Share / float64(1+len(here)-mine)
			}
		}
		for _, p := range processes {
			if l.owns(p.PID) && !slices.ContainsFunc(parts, func(part sensors.Part) bool { return part.ID == p.Part }) {
				return use{}, sensors.ErrUnsupported
			}
		}
		return u, nil
	}
	mine, busy := l.count(processes)
	all := len(processes)
	switch {
	case mine == 0:
	case mine == all:
		u.used, u.share, u.reserved = true, 1, 1
	default:
		u.used, u.reserved = true, 1/float64(1+all-mine)
		u.share, u.method = float64(mine)/float64(all), shareProcesses
		if busy >= 0 {
			u.share, u.method = busy, shareSM
		}
	}
	return u, nil
}

// count returns how many of the processes are the job's, and which part of the
// time that all of them kept the device busy was theirs; NaN where it is not known
// of one, or none was busy.
func (l *looker) count(processes []sensors.ProcessUse) (mine int, busy float64) {
	var total float64
	for _, p := range processes {
		total += p.Busy
		if l.owns(p.PID) {
			mine++
			busy += p.Busy
		}
	}
	return mine, busy / total
}
