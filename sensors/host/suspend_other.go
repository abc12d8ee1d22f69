//go:build !linux

package host

import "time"

// Suspended returns how long the machine has been suspended since it booted, and
// whether the system tells. Clocks that measure durations stand still meanwhile.
func Suspended() (time.Duration, bool) { return 0, false }
