package command

import (
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wattspan/wattspan/sensors"
)

const ipmitool = `
    Instantaneous power reading:                   220 Watts
    Minimum during sampling period:                 18 Watts
    Maximum during sampling period:                409 Watts
    Average power reading over sample period:      215 Watts
    IPMI timestamp:                           06/03/24 12:00:01 UTC    Sampling period:                          00000005 Seconds.
    Power reading state is:                   activated

`

const freeIPMI = `Current Power                        : 164 Watts
Minimum Power over sampling duration : 5 watts
Maximum Power over sampling duration : 209 watts
Average Power over sampling duration : 164 watts
Time Stamp                           : 09/20/2013 - 20:19:32
Statistics reporting time period     : 1000 milliseconds
Power Measurement                    : Active
`

func TestParsePower(t *testing.T) {
	for text, want := range map[string]sensors.Watts{
		"123.4":             123.4,
		"123.4\n":           123.4,
		"123.4 W":           123.4,
		"123.4W":            123.4,
		"123.4 kW":          123400,
		"1e2 W":             100,
		"123456 mW":         123.456,
		"150000000 uW":      150,
		"150000000 µW":      150,
		"0.5 MW":            500000,
		"power: 123 W":      123,
		"power:123W":        123,
		"power=123":         123,
		`watts="123"`:       123,
		"Power: 123 watts.": 123,
		"\n\n  0.5 kW  \n":  500,
		"0 W":               0,
		ipmitool:            220,
		freeIPMI:            164,
		"voltage: 231.4 V\ncurrent: 0.53 A\npower: 120 W\n":   120,
		"12 A, 230 V, 2760 W":                                 2760,
		"max 400\nnow 250 W":                                  250, // a unit is better than none
		"Outlet 1: 123 W":                                     123, // not the 1
		"Outlet 1: 123":                                       123,
		"2024-06-03 12:30:05 123 W":                           123, // not the date
		"SNMPv2-SMI::enterprises.318.1.1.26.4 = INTEGER: 123": 123,
		"iso.3.6.1.4.1.318 = Gauge32: 1234":                   1234,
		"firmware 1.2\n87":                                    87,
		"power_meter-acpi-0\nAdapter: ACPI interface\npower1:      182.00 W  (interval =   1.00 s)\n": 182,
	} {
		got, err := Parse(text)
		if err != nil || got.Counter || math.Abs(float64(got.Power-want)) > 1e-9*float64(want) {
			t.Errorf("%q: %+v, %v; want %v W", text, got, err, float64(want))
		}
	}
}

func TestParseEnergy(t *testing.T) {
	for text, want := range map[string]Quantity{
		"1234.5 kWh":        {Counter: true, Energy: 4_444_200_000_000_000, Step: 360_000_000_000},
		"1234.567 kWh":      {Counter: true, Energy: 4_444_441_200_000_000, Step: 3_600_000_000},
		"total: 12 Wh":      {Counter: true, Energy: 43_200_000_000, Step: 3_600_000_000},
		"9 J":               {Counter: true, Energy: 9_000_000, Step: 1_000_000},
		"7 µJ":              {Counter: true, Energy: 7, Step: 1},
		"1.5e3 J":           {Counter: true, Energy: 1_500_000_000, Step: 100_000_000},
		"0 kWh":             {Counter: true, Energy: 0, Step: 3_600_000_000_000},
		"2 MWh":             {Counter: true, Energy: 7_200_000_000_000_000, Step: 3_600_000_000_000_000},
		"energy 1.25 kwh\n": {Counter: true, Energy: 4_500_000_000_000, Step: 36_000_000_000},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

// What is not clearly a power is refused, and the error quotes it.
func TestParseRefuses(t *testing.T) {
	off := strings.Replace(strings.Replace(ipmitool, " 220 ", " 0 ", 1), "activated", "deactivated", 1)
	for text, why := range map[string]string{
		"":                   "says nothing",
		" \n\t":              "says nothing",
		"connection refused": "connection refused",
		"NaN W":              "no line",
		"nan":                "no line",
		"-5 W":               "less than 0",
		"-5":                 "less than 0",
		"1e9 W":              "another unit",
		"150000000":          "another unit", // µW of hwmon
		"1e400 W":            "no number",
		"1e300 kWh":          "another unit",
		"1,234 W":            "point",
		"123,4 W":            "point",
		"1 234 W":            "blanks",
		"1'234 W":            "no line",
		"12 A":               "no line",
		"123 VA":             "no line", // apparent power is more than power
		"40 C":               "no line",
		"12:30:05":           "no line",
		"10.0.0.1":           "no line",
		"100 200":            "no line", // which of them?
		`{"apower": 12.3}`:   "name the key",
		`[{"apower": 12.3}]`: "name the key",
		off:                  "activate",
		"0x7b":               "no line",
		"Phase 1: W 120":     "no line", // not the 1
		"error 5":            "no line",
		"Current Power : 0 Watts\nPower Measurement : Not Available\n": "activate",
	} {
		q, err := Parse(text)
		if err == nil || !errors.Is(err, sensors.ErrTransient) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, %v; want %q", text, q, err, why)
		}
	}
	_, err := Parse(strings.Repeat("connection refused ", 1000))
	if n := utf8.RuneCountInString(err.Error()); n > 200 {
		t.Errorf("the error has %d characters", n)
	}
}

func TestParseJSON(t *testing.T) {
	const (
		shelly   = `{"id":0,"source":"init","output":true,"apower":12.3,"voltage":232.1,"aenergy":{"total":11.679,"by_minute":[0.000,0.000,0.000],"minute_ts":1654511972},"temperature":{"tC":53.3}}`
		shelly1  = `{"meters":[{"power":31.25,"is_valid":true,"total":25451}]}`
		tasmota  = `{"StatusSNS":{"Time":"2024-06-03T12:00:00","ENERGY":{"TotalStartTime":"2023-01-01T00:00:00","Total":12.345,"Power":12,"ApparentPower":20}}}`
		homeAsst = `{"entity_id":"sensor.plug_power","state":"123.4","attributes":{"unit_of_measurement":"W"}}`
	)
	for _, c := range []struct {
		text, key, unit string
		want            Quantity
		err             string
	}{
		{text: shelly, key: "apower", want: Quantity{Power: 12.3}},
		{text: shelly, key: "aenergy.total", unit: "Wh", want: Quantity{Counter: true, Energy: 42_044_400_000, Step: 3_600_000}},
		{text: shelly1, key: "meters.0.power", want: Quantity{Power: 31.25}},
		{text: tasmota, key: "StatusSNS.ENERGY.Power", want: Quantity{Power: 12}},
		{text: homeAsst, key: "state", want: Quantity{Power: 123.4}},
		{text: `{"state":"0.125"}`, key: "state", unit: "kW", want: Quantity{Power: 125}},
		{text: `{"p":"99 W"}`, key: "p", unit: "kW", want: Quantity{Power: 99}}, // its own unit counts
		{text: shelly, key: "power", err: `no number at "power"`},
		{text: shelly, key: "output", err: "no number"},
		{text: shelly, key: "aenergy", err: "no number"},
		{text: shelly, key: "apower.x", err: "no number"},
		{text: shelly1, key: "meters.1.power", err: "no number"},
		{text: shelly1, key: "meters.-1.power", err: "no number"},
		{text: `{"apower":null}`, key: "apower", err: "no number"},
		{text: `{"state":"unavailable"}`, key: "state", err: "unavailable"},
		{text: `{"apower":-3}`, key: "apower", err: "less than 0"},
		{text: `{"apower":1e12}`, key: "apower", err: "another unit"},
		{text: `<html>502 Bad Gateway</html>`, key: "apower", err: "not JSON"},
		{text: ``, key: "apower", err: "not JSON"},
		{text: shelly, key: "apower", unit: "furlong", err: "unit"},
	} {
		got, err := ParseJSON(c.text, c.key, c.unit)
		if (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || !errors.Is(err, sensors.ErrTransient)) || got != c.want {
			t.Errorf("%s at %q: %+v, %v; want %+v, %q", c.text, c.key, got, err, c.want, c.err)
		}
	}
}

// sound reports whether a parser kept its promises: a quantity that a machine can
// have, or a reason.
func sound(q Quantity, err error) bool {
	if err != nil {
		return errors.Is(err, sensors.ErrTransient) && q == (Quantity{}) && utf8.RuneCountInString(err.Error()) < 400
	}
	if q.Counter {
		return q.Power == 0 && q.Energy < 1<<63
	}
	return q.Energy == 0 && q.Power >= 0 && q.Power <= maxPower
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"123.4 W", ipmitool, freeIPMI, "1234.5 kWh", "1,234 W", "1 234 W", "-1", "1e999", "0e99999999999 kWh", ".5 kW", "µ", "\xff 1 W", "a:b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := Parse(text); !sound(q, err) {
			t.Errorf("%q: %+v, %v", text, q, err)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	f.Add(`{"a":{"b":[1,"2 W"]}}`, "a.b.1", "")
	f.Add(`{"a":1e999}`, "a", "kWh")
	f.Add(`[[[`, "0.0", "W")
	f.Fuzz(func(t *testing.T, text, key, unit string) {
		if q, err := ParseJSON(text, key, unit); !sound(q, err) && len(key)+len(unit) < 100 {
			t.Errorf("%q at %q: %+v, %v", text, key, q, err)
		}
	})
}
