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

// use is whether the job uses a device.
type use struct {
	// known is set where the driver says whose processes are on it.
	known bool
	// used is set once a process of the job has been seen on it.
	used bool
	// before is the energy of the device at the last look that did not see one:
	// the job is charged from there.
	before sensors.Microjoules
}

// looker looks from time to time which devices of a sensor the job uses. It lives
// in the goroutine that reads the sensor.
type looker struct {
	lister sensors.ProcessLister
	owns   func(pid int) bool
	uses   []use
	next   time.Time
	pause  time.Duration
}

// newLooker returns nil where nobody can tell whose a process is: a job that does
// not know its processes, a driver that speaks of other numbers than we see.
func newLooker(sensor sensors.Sensor, job JobMeter) *looker {
	owner, ok := job.(interface{ Owns(pid int) bool })
	lister, ok2 := sensor.(sensors.ProcessLister)
	if !ok || !ok2 || !host.InitialPIDNamespace() {
		return nil
	}
	return &looker{lister: lister, owns: owner.Owns, uses: make([]use, len(sensor.Devices())), pause: time.Second}
}

// look looks, if it is time to, given the readings of now.
func (l *looker) look(now time.Time, readings []sensors.Reading) {
	if now.Before(l.next) {
		return
	}
	l.next = now.Add(l.pause)
	l.pause = min(2*l.pause, longestLook)
	for i := range l.uses {
		u := &l.uses[i]
		if u.used {
			continue
		}
		processes, err := l.lister.Processes(i)
		switch {
		case errors.Is(err, sensors.ErrUnsupported):
			u.known = false
		case err != nil: // the next look may know
		case slices.ContainsFunc(processes, l.owns):
			u.known, u.used = true, true
		default:
			u.known, u.before = true, readings[i].Energy
		}
	}
}
