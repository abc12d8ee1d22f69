//go:build !linux

package host

import (
	"fmt"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// cgroupClock is not there, as only Linux has control groups.
type cgroupClock struct{}

func openCgroupClock(dir string) (cgroupClock, error) {
	return cgroupClock{}, fmt.Errorf("host: control group %s: %w", dir, sensors.ErrUnsupported)
}

func (cgroupClock) read() (time.Duration, error) { return 0, sensors.ErrUnsupported }

func (cgroupClock) close() error { return nil }
