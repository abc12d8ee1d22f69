package sensors

import (
	"math"
	"strconv"
)

// Joules is an energy, in J.
type Joules float64

// Watts is a power, in W.
type Watts float64

// Microjoules is an energy in whole µJ. Energy accumulates in this type, so
// that sums over devices and windows are exact: 2^64 µJ are 5.1 GWh, whereas a
// float64 begins to lose single microjoules at 2.5 MWh.
type Microjoules uint64

// JoulesPerKWh is the number of joules in a kilowatt-hour, exactly.
const JoulesPerKWh = 3.6e6

// Joules returns the energy in J.
func (e Microjoules) Joules() Joules { return Joules(float64(e) / 1e6) }

// KWh returns the energy in kWh.
func (j Joules) KWh() float64 { return float64(j) / JoulesPerKWh }

// String returns the energy as people read it: in Wh with an SI prefix and
// three significant digits.
func (j Joules) String() string { return Quantity(float64(j)/3600, "Wh") }

// String returns the power with an SI prefix and three significant digits.
func (w Watts) String() string { return Quantity(float64(w), "W") }

// Quantity formats a value with three significant digits and an SI prefix from
// nano to tera. It is the one formatter of quantities: more digits than three
// would claim an accuracy that no sensor here has.
func Quantity(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "unknown"
	case v == 0:
		return "0 " + unit
	}
	prefixes := [...]string{"n", "µ", "m", "", "k", "M", "G", "T"}
	const none = 3 // the index of no prefix
	// Three digits first, so that 999.9 becomes 1.00 k rather than 1000.
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	exp := int(math.Floor(math.Log10(math.Abs(v)) + 1e-9))
	i := min(max(int(math.Floor(float64(exp)/3))+none, 0), len(prefixes)-1)
	scaled := v / math.Pow(1000, float64(i-none))
	decimals := min(max(2-(exp-3*(i-none)), 0), 2)
	return strconv.FormatFloat(scaled, 'f', decimals, 64) + " " + prefixes[i] + unit
}
