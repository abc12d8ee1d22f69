//go:build !linux

package host

import (
	"fmt"

	"github.com/wattspan/wattspan/sensors"
)

// What these systems offer allocates or runs a program for each reading.
type (
	memoryUse     struct{}
	processMemory struct{}
)

func openMemoryUse(sensors.Roots) (memoryUse, error) {
	return memoryUse{}, fmt.Errorf("host: memory in use: %w", sensors.ErrUnsupported)
}

func (memoryUse) read() (uint64, error) { return 0, sensors.ErrUnsupported }
func (memoryUse) close() error          { return nil }

func openSelfMemory() (processMemory, error) {
	return processMemory{}, fmt.Errorf("host: memory of this process: %w", sensors.ErrUnsupported)
}

func (processMemory) read() (uint64, error) { return 0, sensors.ErrUnsupported }
func (processMemory) close() error          { return nil }
