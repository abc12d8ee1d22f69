package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/wattspan/wattspan/sensors"
)

// maxPower is more than any machine draws, in W. A figure above it has another
// unit than was thought.
const maxPower = 1e6

// Quantity is what a meter says: a power, or the state of an energy counter.
type Quantity struct {
	// Counter is set for an energy.
	Counter bool
	Power   sensors.Watts
	Energy  sensors.Microjoules
	// Step is what the last digit of Energy stands for.
	Step sensors.Microjoules
}

// Parse understands what a meter prints: the first line that has a number with a
// unit of power (W, watts, kW, mW, MW, µW) or energy (J, kJ, MJ, mJ, µJ, Wh, kWh,
// MWh, mWh), such as
//
//	123.4 W
//	power: 0.123 kW
//	    Instantaneous power reading:                   220 Watts
//	1234.5 kWh
//
// or else the first line that is a number, in W, with or without a name and ":"
// or "=" before it. The number is a decimal with a point; one with a comma or with
// blanks between its digits is refused, as is one that is negative or more than a
// machine can draw, and the power that a BMC shows while its measurement is off.
//
// The error wraps [sensors.ErrTransient], and quotes what was not understood.
func Parse(text string) (Quantity, error) { return parse(text, "") }

// ParseJSON understands the answer of a device that speaks JSON. The key leads to
// the number, or to a string that [Parse] understands: "StatusSNS.ENERGY.Power",
// "meters.0.power". The unit is that of a number without one; empty is "W".
func ParseJSON(text, key, unit string) (Quantity, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return Quantity{}, refuse(text, "this is not JSON")
	}
	for _, name := range strings.Split(key, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			i, err := strconv.Atoi(name)
			if value = nil; err == nil && i >= 0 && i < len(v) {
				value = v[i]
			}
		default:
			value = nil
		}
	}
	switch v := value.(type) {
	case json.Number:
		return quantity(v.String(), unit)
	case string:
		return parse(v, unit)
	}
	return Quantity{}, refuse(text, fmt.Sprintf("there is no number at %q", key))
}

// parse is Parse, with the unit of a number that has none.
func parse(text, unit string) (Quantity, error) {
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "":
		return Quantity{}, fmt.Errorf("%w: %w", sensors.ErrTransient, errEmpty)
	case strings.HasPrefix(trimmed, "{"), strings.HasPrefix(trimmed, "[{"):
		return Quantity{}, refuse(text, "this is JSON: name the key of the number")
	case measurementOff.MatchString(text):
		return Quantity{}, refuse(text, "the power measurement is off (sudo ipmitool dcmi power activate)")
	}
	var lines [][]token
	for line := range strings.Lines(trimmed) {
		lines = append(lines, tokens(line))
	}
	for _, line := range lines {
		for i, t := range line {
			digits, rest := t.number()
			switch {
			case digits == "":
				continue
			case rest == "" && i+1 < len(line) && !line[i+1].labelled:
				rest = line[i+1].text
			}
			if _, known := units[rest]; !known {
				continue
			}
			if grouped(line, i) {
				return Quantity{}, refuse(text, "write the number without blanks between its digits")
			}
			return quantity(digits, rest)
		}
	}
	for _, line := range lines {
		i := len(line) - 1
		if i < 0 || i > 0 && !line[i].labelled {
			continue
		}
		if digits, rest := line[i].number(); digits != "" && rest == "" {
			return quantity(digits, unit)
		}
	}
	if strings.ContainsRune(text, ',') && comma.MatchString(text) {
		return Quantity{}, refuse(text, "write the number with a point, and without a comma")
	}
	return Quantity{}, refuse(text, `there is no line like "123.4 W" or "1234.5 kWh"`)
}

var (
	errEmpty = errors.New("it says nothing")

	decimal = regexp.MustCompile(`^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?`)
	integer = regexp.MustCompile(`^\d{1,3}$`)
	triple  = regexp.MustCompile(`^\d{3}(?:\.\d*)?`)
	comma   = regexp.MustCompile(`\d,\d`)
	// measurementOff is how ipmitool and ipmi-dcmi say that the power above it
	// is none.
	measurementOff = regexp.MustCompile(`(?im)^\s*(?:power reading state is\s*:\s*deactivated|power measurement\s*:\s*(?:not available|inactive))`)
)

// units are the units with their value in W or J.
var units = map[string]struct {
	scale  float64
	energy bool
}{
	"W": {1, false}, "w": {1, false}, "watt": {1, false}, "Watt": {1, false}, "watts": {1, false}, "Watts": {1, false},
	"WATT": {1, false}, "WATTS": {1, false},
	"kW": {1e3, false}, "KW": {1e3, false}, "kw": {1e3, false}, "MW": {1e6, false},
	"mW": {1e-3, false}, "µW": {1e-6, false}, "μW": {1e-6, false}, "uW": {1e-6, false},
	"J": {1, true}, "joule": {1, true}, "joules": {1, true}, "Joules": {1, true},
	"kJ": {1e3, true}, "MJ": {1e6, true}, "mJ": {1e-3, true}, "µJ": {1e-6, true}, "μJ": {1e-6, true}, "uJ": {1e-6, true},
	"Wh": {3600, true}, "WH": {3600, true}, "wh": {3600, true}, "kWh": {3.6e6, true}, "KWh": {3.6e6, true}, "KWH": {3.6e6, true}, "kwh": {3.6e6, true},
	"MWh": {3.6e9, true}, "mWh": {3.6, true},
}

// KnownUnit reports whether [Parse] knows a unit.
func KnownUnit(unit string) bool {
	_, known := units[unit]
	return known
}

// quantity makes a quantity of a decimal number and its unit.
func quantity(digits, unit string) (Quantity, error) {
	if unit == "" {
		unit = "W"
	}
	u, known := units[unit]
	v, err := strconv.ParseFloat(digits, 64)
	shown := digits + " " + unit
	switch {
	case !known:
		return Quantity{}, refuse(shown, "the unit is not one of power or energy")
	case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
		return Quantity{}, refuse(shown, "this is no number")
	case v < 0:
		return Quantity{}, refuse(shown, "a machine draws nothing less than 0")
	}
	v *= u.scale
	if !u.energy {
		if v > maxPower {
			return Quantity{}, refuse(shown, "no machine draws that: it has another unit")
		}
		return Quantity{Power: sensors.Watts(v)}, nil
	}
	if v *= 1e6; v >= 1<<63 {
		return Quantity{}, refuse(shown, "no machine has used that: it has another unit")
	}
	step := u.scale * 1e6 * math.Pow10(exponent(digits))
	return Quantity{Counter: true, Energy: sensors.Microjoules(math.Round(v)), Step: sensors.Microjoules(min(step, v+u.scale*1e6))}, nil
}

// exponent returns that of the last digit of a decimal number: -2 for "1.25".
func exponent(digits string) int {
	mantissa, power := digits, 0
	if i := strings.IndexAny(digits, "eE"); i >= 0 {
		mantissa = digits[:i]
		power, _ = strconv.Atoi(digits[i+1:])
	}
	if i := strings.IndexByte(mantissa, '.'); i >= 0 {
		power -= len(mantissa) - i - 1
	}
	return power
}

// token is a word of a line.
type token struct {
	text string
	// labelled is set where ":" or "=" is before it.
	labelled bool
}

// number cuts a token into a number at its start and what follows.
func (t token) number() (digits, rest string) {
	digits = decimal.FindString(t.text)
	return digits, t.text[len(digits):]
}

// tokens cuts a line into words. A colon parts words where it ends one, or
// follows a word without digits: it is a part of "12:30:05".
func tokens(line string) []token {
	var words []token
	var word strings.Builder
	labelled := false
	flush := func() {
		if text := strings.TrimRight(word.String(), ",.;"); text != "" {
			words = append(words, token{text, labelled})
			labelled = false
		}
		word.Reset()
	}
	runes := []rune(line)
	for i, r := range runes {
		ends := i+1 == len(runes) || unicode.IsSpace(runes[i+1])
		switch {
		case unicode.IsSpace(r), strings.ContainsRune(`|()[]"~`, r):
			flush()
		case r == '=', r == ':' && (ends || !strings.ContainsFunc(word.String(), unicode.IsDigit) && unicode.IsDigit(runes[i+1])):
			flush()
			labelled = true
		default:
			word.WriteRune(r)
		}
	}
	flush()
	return words
}

// grouped reports whether the number at i goes on one before it, as in "1 234".
func grouped(line []token, i int) bool {
	return i > 0 && !line[i].labelled && integer.MatchString(line[i-1].text) && triple.MatchString(line[i].text)
}

// refuse says why text is not a quantity, and quotes its beginning.
func refuse(text, why string) error {
	const most = 60
	short := []rune(strings.TrimSpace(text))
	dots := ""
	if len(short) > most {
		short, dots = short[:most], "…"
	}
	return fmt.Errorf("%w: %q%s: %s", sensors.ErrTransient, string(short), dots, why)
}
