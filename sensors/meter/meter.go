// Package meter turns the one line by which a user names the power meter of the
// machine into a back-end for [sensors.WithBackend].
//
// # Basics
//
//	ipmi                                       the BMC, by /dev/ipmi0
//	redfish:https://bmc.lan                    the BMC, over the network
//	command:snmpget -v2c -Oqv -c public pdu OID   a program that prints a power or an energy
//	command[apower]:curl -s http://plug.lan/rpc/Switch.GetStatus?id=0
//	file:/run/power                            a file or FIFO that another program writes
//	file[µW]:/sys/class/hwmon/hwmon3/power1_input
//
// In brackets is what the output does not say by itself: the key of the number in
// JSON, the unit of a number without one, or both with a blank between, as in
// command[aenergy.total Wh]. What follows command: is a line for the shell.
//
// Package command says which texts are understood. The user and password of a
// Redfish service come from the environment, see [redfish.FromEnvironment].
//
// # Caveats
//
// The meter is believed to measure this machine, and all of it. One that feeds
// two machines, or a machine with two power supplies of which the other is not
// metered, gives a wrong figure, and nobody can tell.
package meter

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/command"
	"github.com/wattspan/wattspan/sensors/ipmi"
	"github.com/wattspan/wattspan/sensors/redfish"
)

// Kinds are the ways to name a meter, for the text of an option.
const Kinds = "ipmi, redfish:https://BMC, command:LINE, command[KEY UNIT]:LINE or file:PATH"

// ErrSpec is returned for a description that names no meter.
var ErrSpec = errors.New("not a meter: write " + Kinds)

// Meter returns the back-end that a description names; its device is Declared.
// Nothing is asked before the back-end is opened. The error says what to write
// instead, and wraps [ErrSpec] where no kind of meter is named.
func Meter(spec string) (sensors.Backend, error) {
	return parse(spec, os.LookupEnv)
}

func parse(spec string, lookup func(string) (string, bool)) (sensors.Backend, error) {
	head, rest, found := strings.Cut(spec, ":")
	// The key may hold a colon; a line for the shell certainly does.
	if open := strings.IndexByte(head, '['); open >= 0 {
		if end := strings.Index(spec, "]:"); end > open {
			head, rest, found = spec[:end+1], spec[end+2:], true
		}
	}
	kind, brackets, err := split(strings.TrimSpace(head))
	if err != nil {
		return sensors.Backend{}, err
	}
	rest = strings.TrimSpace(rest)
	switch {
	case kind == "ipmi" && rest == "" && brackets == "":
		return ipmi.Backend(), nil
	case kind == "redfish" && brackets == "":
		c, err := redfish.FromEnvironment(lookup, redfish.ReadFile)
		if err != nil {
			return sensors.Backend{}, err
		}
		c.URL = rest
		if err := c.Check(); err != nil {
			return sensors.Backend{}, err
		}
		return redfish.Backend(c), nil
	case (kind == "command" || kind == "file") && found:
		c := command.Config{Shell: rest}
		if kind == "file" {
			c = command.Config{File: rest}
		}
		if rest == "" {
			return sensors.Backend{}, fmt.Errorf("%s: names nothing: %w", kind, ErrSpec)
		}
		if c.Key, c.Unit, err = keyAndUnit(brackets); err != nil {
			return sensors.Backend{}, err
		}
		return command.Backend(c), nil
	}
	// It is not quoted: it may hold a password.
	return sensors.Backend{}, ErrSpec
}

// split parts "command[apower]" into "command" and "apower".
func split(head string) (kind, brackets string, err error) {
	kind, rest, found := strings.Cut(head, "[")
	if !found {
		return kind, "", nil
	}
	brackets, ok := strings.CutSuffix(rest, "]")
	if brackets = strings.TrimSpace(brackets); !ok || brackets == "" {
		return "", "", fmt.Errorf("%s[…]: the brackets hold a key, a unit or both: %w", kind, ErrSpec)
	}
	return kind, brackets, nil
}

// keyAndUnit parts "aenergy.total Wh". One word is a unit if it can be one.
func keyAndUnit(brackets string) (key, unit string, err error) {
	switch words := strings.Fields(brackets); {
	case len(words) == 0:
		return "", "", nil
	case len(words) == 1 && command.KnownUnit(words[0]):
		return "", words[0], nil
	case len(words) == 1:
		return words[0], "", nil
	case len(words) == 2 && command.KnownUnit(words[1]):
		return words[0], words[1], nil
	case len(words) == 2:
		return "", "", fmt.Errorf("%q is no unit of power or energy: %w", words[1], ErrSpec)
	}
	return "", "", fmt.Errorf("the brackets hold more than a key and a unit: %w", ErrSpec)
}
