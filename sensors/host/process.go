package host

import "time"

// ProcessCPU reads the processor time of another process. It holds on to the
// process, not to its number: when the process has gone, and whatever has its
// number since, Read says so. A ProcessCPU is for one goroutine at a time.
type ProcessCPU struct {
	process process
	last    time.Duration
}

// OpenProcessCPU opens the clock of a process, by its number in the PID
// namespace of this one: on Linux it is read from the real /proc, whatever
// [sensors.Roots] say. The error wraps [sensors.ErrLost] where there is no such
// process, and [sensors.ErrUnsupported] where the system offers no reading.
func OpenProcessCPU(pid int) (*ProcessCPU, error) {
	p, err := openProcess(pid)
	if err != nil {
		return nil, err
	}
	return &ProcessCPU{process: p}, nil
}

// Read returns the time the process has used in user and kernel mode since it
// started, on Linux with that of its children which have ended and been waited
// for. It never decreases. With an error it is that of the last read; once the
// process has gone, the error wraps [sensors.ErrLost].
func (p *ProcessCPU) Read() (time.Duration, error) {
	used, err := p.process.read()
	p.last = max(p.last, used)
	return p.last, err
}

// Close releases the process.
func (p *ProcessCPU) Close() error { return p.process.close() }
