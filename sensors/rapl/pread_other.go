//go:build !linux

package rapl

import "errors"

// openFile is never called: Open says that RAPL is read on Linux only.
func openFile(string) (file, error) { return nil, errors.ErrUnsupported }
