package share

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/sys/unix"
)

// monotonic returns the clock by which all processes of the machine compare their
// samples, in ns. It is the one that Go's own times count by: it stands still while
// the machine sleeps.
func monotonic() (int64, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_UPTIME_RAW, &ts)
	return ts.Nano(), err
}

// machine names this boot of the machine.
func machine() (identity, error) {
	boot, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return identity{}, fmt.Errorf("share: which boot this is cannot be told: %w", err)
	}
	sum := sha256.Sum256([]byte(boot))
	return identity(sum[:16]), nil
}
