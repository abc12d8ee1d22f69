//go:build unix

package host

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// SelfCPU returns the processor time that this process has used, all threads
// together.
func SelfCPU() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("host: own processor time: %w", errors.Join(err, sensors.ErrTransient))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
