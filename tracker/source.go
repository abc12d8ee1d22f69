package tracker

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// errPanicked is what the devices of a sensor report once it has panicked. It
// is not read again.
var errPanicked = errors.New("the sensor failed unexpectedly and is no longer read")

// source is one sensor and the place of its devices among all devices.
type source struct {
	sensor   sensors.Sensor
	from, to int
	failed   error // set once the sensor has panicked
}

// read reads the sensor into dst, and survives its panic: somebody else's
// sensor must not end the user's program.
func (s *source) read(dst []sensors.Reading) {
	if s.failed == nil {
		func() {
			defer func() {
				if p := recover(); p != nil {
					s.failed = fmt.Errorf("%w: %v", errPanicked, p)
				}
			}()
			s.sensor.Read(dst)
		}()
	}
	if s.failed != nil {
		for i := range dst {
			dst[i].Err = s.failed
		}
	}
}

// reader reads a sensor that can block, in a goroutine of its own: a driver
// that hangs costs its own devices a timeout, and nobody else anything. It also
// reads a sensor that wants a faster pace than the tick.
type reader struct {
	source
	interval time.Duration // of the sampler
	pace     time.Duration // reads by itself at this interval; 0: only when asked
	owned    bool          // closes the sensor at the end

	ask  chan struct{} // one pending request
	news chan struct{} // one pending answer
	quit chan struct{}
	done chan struct{}

	asked    uint64        // requests made; the sampler's own
	answered atomic.Uint64 // the latest request whose read is complete
	pending  atomic.Uint64 // the latest request made

	looker *looker // nil where nobody can tell who uses the devices

	mu     sync.Mutex // between this reader and the sampler, never across a read
	latest []sensors.Reading
	uses   []use
}

func newReader(s source, interval time.Duration, owned bool) *reader {
	return &reader{
		source: s, interval: interval, pace: paceOf(s.sensor, interval), owned: owned,
		ask: make(chan struct{}, 1), news: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
		latest: make([]sensors.Reading, s.to-s.from), uses: make([]use, s.to-s.from),
	}
}

func (r *reader) run() {
	defer close(r.done)
	if r.owned {
		// Here and not in the sampler: a sensor is never closed while a read
		// of it is under way.
		defer func() { _ = r.sensor.Close() }()
	}
	paced := time.NewTicker(r.interval)
	defer paced.Stop()
	setPace(paced, r.pace)
	scratch := make([]sensors.Reading, len(r.latest))
	for {
		select {
		case <-r.quit:
			return
		case <-r.ask:
		case <-paced.C:
		}
		request := r.pending.Load()
		r.read(scratch)
		r.keepPace(paced)
		r.publish(scratch)
		r.answered.Store(request)
		select {
		case r.news <- struct{}{}:
		default:
		}
		// After the answer: nobody waits for this.
		r.look(scratch)
	}
}

// publish shows the readings and what is known of the uses to the sampler.
func (r *reader) publish(readings []sensors.Reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(r.latest, readings)
	if r.looker != nil {
		copy(r.uses, r.looker.uses)
	}
}

// look looks who uses the devices. It survives a panic of the sensor, as read
// does.
func (r *reader) look(readings []sensors.Reading) {
	if r.looker == nil || r.failed != nil {
		return
	}
	defer func() {
		if recover() != nil {
			r.looker = nil
		}
	}()
	r.looker.look(time.Now(), readings)
}

// keepPace asks how the sensor wants to be read from now on: a GPU whose counter
// is gone is read by its power, which takes a faster pace.
func (r *reader) keepPace(paced *time.Ticker) {
	if r.failed != nil {
		return
	}
	pace := paceOf(r.sensor, r.interval)
	if pace == r.pace {
		return
	}
	r.pace = pace
	setPace(paced, pace)
}

// setPace lets a ticker tick at a pace; 0: never.
func setPace(paced *time.Ticker, pace time.Duration) {
	if pace == 0 {
		paced.Stop()
	} else {
		paced.Reset(pace)
	}
}

// paceOf returns the pace at which a sensor is to be read between the ticks, 0
// where the tick is fast enough.
func paceOf(sensor sensors.Sensor, interval time.Duration) time.Duration {
	pace := sensor.Timing().MaxInterval
	if pace >= interval {
		return 0
	}
	return pace
}

// request asks for a fresh reading and returns at once.
func (r *reader) request() {
	r.asked++
	r.pending.Store(r.asked)
	select {
	case r.ask <- struct{}{}:
	default: // the reader is busy and finds the request when it is done
	}
}

// collect waits for the answer to the last request until patience ends, and
// copies the latest readings and uses either way. After the deadline the devices say
// that they are late; their counters bring what was missed in a later window.
func (r *reader) collect(dst []sensors.Reading, uses []use, patience <-chan time.Time) (inTime bool) {
	for r.answered.Load() < r.asked {
		select {
		case <-r.news:
			continue
		case <-patience:
		}
		break
	}
	inTime = r.answered.Load() >= r.asked
	r.mu.Lock()
	copy(dst, r.latest)
	copy(uses, r.uses)
	r.mu.Unlock()
	if !inTime {
		for i := range dst {
			if dst[i].Err == nil {
				dst[i].Err = sensors.ErrTimeout
			}
		}
	}
	return inTime
}
