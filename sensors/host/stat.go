package host

import (
	"fmt"
	"math"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// CPUTimes is processor time, summed over all threads of the machine.
type CPUTimes struct {
	// Busy is the time spent in user and kernel mode, interrupts included.
	//
	// Waiting for a disk (iowait) is idle time with a name. Stolen time is not
	// busy either: a hypervisor gave it to another guest, whose energy it is.
	// The time of guests of this machine is inside user time already.
	Busy time.Duration
	// Total is all time, idle and stolen included.
	Total time.Duration
}

// CPUClock reads the processor time of the machine. Both times count from the
// opening of the clock, as 512 threads fill a Duration in seven months. They
// never decrease, and Busy never grows by more than Total.
//
// The resolution is 10 ms on Linux: over an interval of less than 50 ms the load
// is coarse. A clock is for one goroutine at a time.
type CPUClock struct {
	stat   stat
	last   ticks
	primed bool
	times  CPUTimes
}

// ticks is processor time since boot as the system counts it, in statUnit.
type ticks struct{ busy, total uint64 }

// OpenCPUClock opens the clock of the machine that roots show. The error wraps
// [sensors.ErrUnsupported] on a system that has no such clock.
func OpenCPUClock(roots sensors.Roots) (*CPUClock, error) {
	s, err := openStat(roots)
	if err != nil {
		return nil, fmt.Errorf("host: processor time: %w", err)
	}
	c := &CPUClock{stat: s}
	if _, err := c.Read(); err != nil {
		_ = s.close()
		return nil, err
	}
	return c, nil
}

// Read returns the times since the clock was opened. With an error, which wraps
// [sensors.ErrTransient], they are those of the last read.
func (c *CPUClock) Read() (CPUTimes, error) {
	now, err := c.stat.read()
	if err != nil {
		return c.times, err
	}
	if c.primed {
		c.times.advance(c.last, now)
	}
	c.last, c.primed = now, true
	return c.times, nil
}

// Close releases the clock.
func (c *CPUClock) Close() error { return c.stat.close() }

func (c *CPUClock) source() string { return "host " + c.stat.name() }

// advance adds what passed between two readings. The kernel lets idle and iowait
// go back a little, more so where processors are unplugged. An interval in which
// a sum went back is dropped, and one that is busier than it is long is full.
func (t *CPUTimes) advance(from, to ticks) {
	if to.busy < from.busy || to.total < from.total {
		return
	}
	const most = uint64(math.MaxInt64 / statUnit)
	total := to.total - from.total
	busy := min(to.busy-from.busy, total)
	if total > most-uint64(t.Total/statUnit) {
		return // a century at once: not a reading
	}
	t.Busy += time.Duration(busy) * statUnit
	t.Total += time.Duration(total) * statUnit
}
