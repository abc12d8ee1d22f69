//go:build !linux

package host

import (
	"errors"
	"fmt"
	"time"

	gopsutil "github.com/shirou/gopsutil/v3/cpu"

	"github.com/wattspan/wattspan/sensors"
)

// statUnit is finer than any of these systems counts.
const statUnit = time.Microsecond

// stat reads the processor times through gopsutil, which allocates a little.
type stat struct{}

func openStat(sensors.Roots) (stat, error) {
	s := stat{}
	_, err := s.read()
	return s, err
}

func (stat) read() (ticks, error) {
	all, err := gopsutil.Times(false)
	switch {
	case err != nil && err.Error() == "not implemented yet":
		// gopsutil has its own internal error for that; on macOS it is
		// returned to programs built without cgo.
		return ticks{}, fmt.Errorf("host: processor time: %w", errors.Join(err, sensors.ErrUnsupported))
	case err != nil:
		return ticks{}, fmt.Errorf("host: processor time: %w", errors.Join(err, sensors.ErrTransient))
	case len(all) != 1:
		return ticks{}, fmt.Errorf("host: processor time: %d totals: %w", len(all), sensors.ErrTransient)
	}
	t := all[0]
	busy := t.User + t.Nice + t.System + t.Irq + t.Softirq
	return ticks{
		busy:  uint64(max(busy, 0) * 1e6),
		total: uint64(max(busy+t.Idle+t.Iowait+t.Steal, 0) * 1e6),
	}, nil
}

func (stat) close() error { return nil }

func (stat) name() string { return "gopsutil" }
