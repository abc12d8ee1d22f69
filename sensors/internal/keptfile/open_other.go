//go:build !linux

package keptfile

import "errors"

// openFile says that these files are read on Linux only.
func openFile(string) (Handle, error) { return nil, errors.ErrUnsupported }
