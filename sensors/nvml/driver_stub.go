//go:build !linux || !cgo

package nvml

import "runtime"

// newDriver returns no driver, and why.
func newDriver() (driver, string) {
	if runtime.GOOS != "linux" {
		return nil, "NVML is read on Linux only"
	}
	return nil, "built without cgo"
}
