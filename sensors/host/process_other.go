//go:build !linux && !windows

package host

import (
	"fmt"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// process is not there: what these systems offer is a program to run (ps), and
// that takes longer than what it measures.
type process struct{}

func openProcess(pid int) (process, error) {
	return process{}, fmt.Errorf("host: processor time of process %d: %w", pid, sensors.ErrUnsupported)
}

func (process) read() (time.Duration, error) { return 0, sensors.ErrUnsupported }

func (process) close() error { return nil }
