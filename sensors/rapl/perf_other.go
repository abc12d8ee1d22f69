//go:build !linux

package rapl

import "errors"

// openEvent is never called: Open says that RAPL is read on Linux only.
func openEvent(uint32, uint64, int) (eventFile, error) { return nil, errors.ErrUnsupported }
