package ipmi

import (
	"encoding/binary"
	"fmt"

	"github.com/wattspan/wattspan/sensors"
)

// The command Get Power Reading of the DCMI specification 1.5, section 6.6.1: a
// group extension, identified by 0xDC, whose mode 1 asks for the system's power
// statistics.
const (
	netfnGroup      = 0x2c
	cmdPowerReading = 0x02
	groupDCMI       = 0xdc
)

var powerRequest = []byte{groupDCMI, 0x01, 0x00, 0x00}

// powerReading is what the command answers, in W.
type powerReading struct {
	current, minimum, maximum, average uint16
}

// The bits of the power reading state. Versions of OpenBMC pack the byte from
// the wrong end, and have "active" in bit 1, which is reserved to everybody else.
const (
	stateActive        = 1 << 6
	stateActiveOpenBMC = 1 << 1
)

// parsePower understands the data of a response: the completion code, 0xDC, four
// powers, a time stamp, the period of the statistics, and the state. Numbers have
// their low byte first.
func parsePower(data []byte) (powerReading, error) {
	if len(data) == 0 {
		return powerReading{}, fmt.Errorf("%w: the BMC's answer is empty", sensors.ErrTransient)
	}
	if err := completion(data[0]); err != nil {
		return powerReading{}, err
	}
	const length = 1 + 1 + 4*2 + 4 + 4 + 1
	switch {
	case len(data) < length:
		return powerReading{}, fmt.Errorf("%w: the BMC's answer has %d bytes of %d", sensors.ErrTransient, len(data), length)
	case data[1] != groupDCMI:
		return powerReading{}, fmt.Errorf("%w: the BMC's answer is for group %#02x, not DCMI", sensors.ErrUnsupported, data[1])
	}
	word := binary.LittleEndian.Uint16
	r := powerReading{word(data[2:]), word(data[4:]), word(data[6:]), word(data[8:])}
	switch state := data[18]; {
	case state&(stateActive|stateActiveOpenBMC) == 0:
		return powerReading{}, errOff
	case r.current == 0:
		// No machine that runs this draws nothing.
		return powerReading{}, fmt.Errorf("%w: the BMC says 0 W", errNoPower)
	case r.current == 0xffff:
		return powerReading{}, fmt.Errorf("%w: the BMC has no value (65535 W)", sensors.ErrTransient)
	}
	return r, nil
}

var (
	// errOff and errNoPower have remedies of their own.
	errOff     = fmt.Errorf("%w: the BMC's power measurement is off", sensors.ErrUnsupported)
	errNoPower = fmt.Errorf("%w: the BMC does not know the power", sensors.ErrUnsupported)
)

// completion turns a completion code of the IPMI specification 2.0, table 5-2,
// into a reason.
func completion(code byte) error {
	var reason error
	var text string
	switch code {
	case 0x00:
		return nil
	case 0xc1, 0xc2:
		reason, text = sensors.ErrUnsupported, "the BMC has no DCMI power reading"
	case 0xc8, 0xc9, 0xcc:
		reason, text = sensors.ErrUnsupported, "the BMC does not know DCMI's system power statistics"
	case 0xd4:
		reason, text = sensors.ErrPermission, "the BMC takes no such command from its own machine"
	case 0xd6:
		reason, text = sensors.ErrUnsupported, "the BMC's power reading is disabled"
	case 0xc3:
		reason, text = sensors.ErrTimeout, "the BMC did not answer"
	case 0xc0:
		reason, text = sensors.ErrTransient, "the BMC is busy"
	case 0xd0, 0xd1, 0xd2, 0xd5:
		reason, text = sensors.ErrTransient, "the BMC is not ready"
	default:
		reason, text = sensors.ErrTransient, "the BMC failed"
	}
	return fmt.Errorf("%w: %s (completion code %#02x)", reason, text, code)
}
