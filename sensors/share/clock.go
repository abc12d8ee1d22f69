package share

import "time"

// clock converts between this process's times and those of the page, which are of
// the monotonic clock that all processes of a machine share. The monotonic part
// of a time.Time counts the same seconds from another origin: one comparison of
// the two holds as long as the process lives.
type clock struct {
	now  func() time.Time
	base time.Time
	mono int64 // the machine's clock at base, in ns
}

// newClock compares the clocks. The closest of some tries counts, as the process
// can be interrupted between the two readings.
func newClock() (clock, error) {
	c := clock{now: time.Now}
	best := int64(-1)
	for range 16 {
		before, err := monotonic()
		if err != nil {
			return c, err
		}
		now := time.Now()
		after, err := monotonic()
		if err != nil {
			return c, err
		}
		if took := after - before; best < 0 || took < best {
			best, c.base, c.mono = took, now, before+took/2
		}
	}
	return c, nil
}

// page returns t in the page's clock; 0 for the zero time.
func (c *clock) page(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return c.mono + int64(t.Sub(c.base))
}

// local returns a time of the page, no later than now. Its wall clock is set as
// it is at now.
func (c *clock) local(at int64, now time.Time) time.Time {
	return now.Add(time.Duration(min(at-c.page(now), 0)))
}
