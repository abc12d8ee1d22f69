package emissions

import "math"

// Bounds returns the interval that contains a value with k = 2, about 95 %,
// given its relative error rel of one standard deviation. It is log-normal:
// [v/f, v·f] with f = exp(2·√ln(1+rel²)), so that a wide band reaches far up
// but never below zero, which v ± 2·rel·v would from rel = 0.5 on.
//
// A NaN or negative rel means that nothing is known of the error; the bounds
// are then 0 and +Inf, not the value itself.
func Bounds[T ~float64](value T, rel float64) (low, high T) {
	switch {
	case math.IsNaN(float64(value)):
		return value, value
	case value == 0:
		return 0, 0
	case !(rel >= 0):
		return 0, T(math.Inf(1))
	}
	f := T(math.Exp(2 * math.Sqrt(math.Log1p(rel*rel))))
	low, high = value/f, value*f
	if value < 0 { // an avoided emission
		low, high = high, low
	}
	return low, high
}

// Quadrature returns the relative error of a product whose factors have the
// given independent relative errors: √Σr².
func Quadrature(rel ...float64) float64 {
	var r float64
	for _, x := range rel {
		r = math.Hypot(r, x)
	}
	return r
}

// A Part is one term of a sum: the energy of one device, say.
type Part struct {
	Value float64
	// Rel is the relative error of Value, one standard deviation.
	Rel float64
	// Group names what shares a systematic error: eight GPUs of one model
	// are wrong in the same direction, a GPU and a CPU are not.
	Group string
}

// Sum adds parts and returns the total with its relative error. Errors add
// linearly within a group, whose parts are wrong together, and in quadrature
// across groups, which are wrong independently. The result does not depend on
// the order of the parts.
func Sum(parts ...Part) (total, rel float64) {
	var variance float64
	for i, p := range parts {
		total += p.Value
		// A group is added up where it first appears. Parts are the devices of
		// one machine: a search beats the allocation of a map.
		seen := false
		for _, q := range parts[:i] {
			seen = seen || q.Group == p.Group
		}
		if seen {
			continue
		}
		var sigma float64
		for _, q := range parts[i:] {
			if q.Group == p.Group {
				sigma += math.Abs(q.Value) * q.Rel
			}
		}
		variance += sigma * sigma
	}
	if variance == 0 {
		return total, 0
	}
	return total, math.Sqrt(variance) / math.Abs(total)
}
