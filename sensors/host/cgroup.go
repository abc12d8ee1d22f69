package host

import "time"

// CgroupCPU reads the processor time of a control group, of whichever version.
// It is for one goroutine at a time.
type CgroupCPU struct {
	clock cgroupClock
	last  time.Duration
}

// OpenCgroupCPU opens the clock of the control group that a directory is: of
// version 2, or of the cpuacct controller of version 1. The error wraps
// [sensors.ErrAbsent] where there is no such directory, and
// [sensors.ErrUnsupported] where it has no clock.
func OpenCgroupCPU(dir string) (*CgroupCPU, error) {
	c, err := openCgroupClock(dir)
	if err != nil {
		return nil, err
	}
	return &CgroupCPU{clock: c}, nil
}

// Read returns the time that all processes which ever were in the group or in
// one below it have used there in user and kernel mode, whether or not anybody
// waited for them. It never decreases. With an error it is that of the last
// read; once the group has been removed, the error wraps [sensors.ErrLost].
func (c *CgroupCPU) Read() (time.Duration, error) {
	used, err := c.clock.read()
	c.last = max(c.last, used)
	return c.last, err
}

// Close releases the clock.
func (c *CgroupCPU) Close() error { return c.clock.close() }
