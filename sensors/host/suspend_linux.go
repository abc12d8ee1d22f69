package host

import (
	"time"

	"golang.org/x/sys/unix"
)

// Suspended returns how long the machine has been suspended since it booted, and
// whether the system tells. Clocks that measure durations stand still meanwhile.
func Suspended() (time.Duration, bool) {
	var boot, awake unix.Timespec
	// Read in this order, a pause between the two makes the result smaller,
	// and never shows a suspend that was none.
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil {
		return 0, false
	}
	return max(time.Duration(boot.Nano()-awake.Nano()), 0), true
}
