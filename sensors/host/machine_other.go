//go:build !linux && !darwin && !windows

package host

import (
	"context"
	"runtime"

	gopsutil "github.com/shirou/gopsutil/v3/cpu"

	"github.com/wattspan/wattspan/sensors"
)

// describe knows little: these systems compile, and are modelled by class.
func describe(ctx context.Context, _ sensors.Roots) Machine {
	m := Machine{Threads: runtime.NumCPU()}
	if info, err := gopsutil.InfoWithContext(ctx); err == nil && len(info) > 0 {
		m.Model, m.Vendor = info[0].ModelName, vendors[info[0].VendorID]
	}
	return m
}
