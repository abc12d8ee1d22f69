package sensors

import "errors"

// Reasons for which a device or a source cannot be read. Back-ends wrap them
// with their own name and the detail; test with errors.Is.
var (
	// ErrAbsent is returned when the machine has no such hardware.
	ErrAbsent = errors.New("no such hardware")
	// ErrPermission is returned when the hardware is there and the operating
	// system does not let this user read it.
	ErrPermission = errors.New("permission denied")
	// ErrUnsupported is returned when the hardware is there and neither it nor
	// its driver, nor the way this program was built, offers the reading.
	ErrUnsupported = errors.New("not supported")
	// ErrLost is returned when a device that could be read has gone, for
	// example a GPU that fell off the bus.
	ErrLost = errors.New("device lost")
	// ErrTimeout is returned when a driver has not answered in time. The last
	// value stands; the next answer brings what was missed where the device
	// has a counter.
	ErrTimeout = errors.New("no answer in time")
	// ErrTransient is returned when one read failed and the next may not.
	ErrTransient = errors.New("read failed")
	// ErrDisagreement is a doubt, not a failure: two ways to read one device
	// differ by more than both of their errors.
	ErrDisagreement = errors.New("readings disagree")
)
