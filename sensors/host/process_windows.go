package host

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/windows"

	"github.com/wattspan/wattspan/sensors"
)

// SelfCPU returns the processor time that this process has used, all threads
// together.
func SelfCPU() (time.Duration, error) {
	used, err := processTimes(windows.CurrentProcess())
	if err != nil {
		return 0, fmt.Errorf("host: own processor time: %w", errors.Join(err, sensors.ErrTransient))
	}
	return used, nil
}

// process is a handle, which keeps the number from being used again.
type process struct {
	handle windows.Handle
	pid    int
	lost   error
}

func openProcess(pid int) (process, error) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(pid))
	switch {
	case errors.Is(err, windows.ERROR_INVALID_PARAMETER):
		return process{}, fmt.Errorf("host: process %d: %w", pid, errors.Join(err, sensors.ErrLost))
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return process{}, fmt.Errorf("host: process %d: %w", pid, errors.Join(err, sensors.ErrPermission))
	case err != nil:
		return process{}, fmt.Errorf("host: process %d: %w", pid, errors.Join(err, sensors.ErrTransient))
	}
	lost := fmt.Errorf("host: process %d has ended: %w", pid, sensors.ErrLost)
	return process{handle: h, pid: pid, lost: lost}, nil
}

func (p *process) read() (time.Duration, error) {
	used, err := processTimes(p.handle)
	if err != nil {
		return 0, fmt.Errorf("host: process %d: %w", p.pid, errors.Join(err, sensors.ErrTransient))
	}
	// A handle outlives its process, with the final times; it is signalled
	// once that has ended.
	if event, _ := windows.WaitForSingleObject(p.handle, 0); event == windows.WAIT_OBJECT_0 {
		return used, p.lost
	}
	return used, nil
}

func (p *process) close() error { return windows.CloseHandle(p.handle) }

func processTimes(h windows.Handle) (time.Duration, error) {
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &created, &exited, &kernel, &user); err != nil {
		return 0, err
	}
	return filetime(kernel) + filetime(user), nil
}

// filetime converts a duration in units of 100 ns; Filetime.Nanoseconds is for
// dates.
func filetime(t windows.Filetime) time.Duration {
	return time.Duration(uint64(t.HighDateTime)<<32|uint64(t.LowDateTime)) * 100
}
