//go:build !linux

package ipmi

import "errors"

// openDevice is never called: only Linux has /sys/class/ipmi.
func openDevice(string) (bmc, error) { return nil, errors.ErrUnsupported }
