//go:build !linux && !darwin

package share

import (
	"fmt"

	"github.com/wattspan/wattspan/sensors"
)

const supported = false

// errUnsupported: the locks of these systems are others, and neither is there a
// multi-rank launcher that would need them.
var errUnsupported = fmt.Errorf("share: trackers share devices on Linux and macOS only; each measures by itself here: %w", sensors.ErrUnsupported)

func monotonic() (int64, error)                { return 0, errUnsupported }
func machine() (identity, error)               { return identity{}, errUnsupported }
func verifyDir(string) error                   { return errUnsupported }
func openFile(string, identity) (*file, error) { return nil, errUnsupported }

// file is not there.
type file struct{}

func (*file) lock() (bool, error)         { return false, errUnsupported }
func (*file) unlock()                     {}
func (*file) close()                      {}
func (*file) grow() error                 { return errUnsupported }
func (*file) readAt([]byte, int64) int    { return 0 }
func (*file) writeAt([]byte, int64) error { return errUnsupported }
