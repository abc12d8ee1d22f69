//go:build !linux

package keptfile

import "errors"

// OpenHandle says that these files are read on Linux only.
func OpenHandle(string) (Handle, error) { return nil, errors.ErrUnsupported }
