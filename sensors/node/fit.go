package node

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// ErrOneLoad is returned for points that are all at about one load: they cannot
// tell the base from the efficiency.
var ErrOneLoad = errors.New("all points are at about one load")

// Quality says how far a profile is from points. The error of a point is
// |model − wall| / wall.
type Quality struct {
	N                  int     `json:"points"`
	MedianErrorPercent float64 `json:"median_error_percent"`
	P95ErrorPercent    float64 `json:"p95_error_percent"`
	MaxErrorPercent    float64 `json:"max_error_percent"`
	// SumMedianErrorPercent is the median error without a model, of what the
	// sensors see.
	SumMedianErrorPercent float64 `json:"sum_median_error_percent"`
}

// Check compares a profile with points. Without points, all errors are NaN.
func Check(p Profile, points []Point) Quality {
	model, sum := make([]float64, len(points)), make([]float64, len(points))
	for i, at := range points {
		model[i] = 100 * at.off(p.Power(at.Sensed))
		sum[i] = 100 * at.off(at.Sensed)
	}
	return Quality{
		N:                     len(points),
		MedianErrorPercent:    quantile(model, 0.5),
		P95ErrorPercent:       quantile(model, 0.95),
		MaxErrorPercent:       quantile(model, 1),
		SumMedianErrorPercent: quantile(sum, 0.5),
	}
}

// off is the relative error of a power, of that at the plug.
func (p Point) off(w sensors.Watts) float64 { return math.Abs(float64(w-p.Wall)) / float64(p.Wall) }

// quantile sorts values and interpolates between the two nearest, as most
// statistics programs do by default.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	at := q * float64(len(values)-1)
	i := int(at)
	if i+1 >= len(values) {
		return values[len(values)-1]
	}
	return values[i] + (at-float64(i))*(values[i+1]-values[i])
}

// leastSpan is the part of the highest load by which the loads must differ.
const leastSpan = 0.05

// Fit finds the base and the efficiency that fit points best: those with the
// least sum of relative errors, |model − wall| / wall. It minimises these and not
// their squares, as a meter that was misread once would else decide, and relative
// ones as those are reported. The base is 0 or more, the efficiency 0.5 to 1.
//
// The band of the efficiency is the spread of the errors, but not below what a
// plug meter is off by and what so few points can tell: that, so that [Profile.Rel]
// is no less than what was seen. The band of the base is its standard error.
//
// The error wraps [ErrPoints] for a point at which the meter shows less than the
// sensors, and [ErrOneLoad] where the loads hardly differ.
func Fit(points []Point) (Profile, Quality, error) {
	if err := plausible(points); err != nil {
		return Profile{}, Quality{}, err
	}
	slope, offset := leastRelative(points)
	p := Profile{
		Name: Calibrated, Base: sensors.Watts(offset / slope), Efficiency: 1 / slope,
		Sensed: "what was sensed in the points",
		Source: fmt.Sprintf("fit on %d points of a meter", len(points)),
	}
	errs := make([]float64, len(points))
	for i, at := range points {
		errs[i] = at.off(p.Power(at.Sensed))
	}
	p.EfficiencyBand = min(max(spread(errs), leastBand+fewPoints/float64(len(points))), maxBand)
	p.BaseBand = min(baseBand(points, slope, offset, p.EfficiencyBand), maxBand)
	switch {
	case p.Efficiency == maxEfficiency:
		p.Note = "The efficiency is at its bound of 1, which no power supply reaches: the sensors may see more than there is, or the meter less."
	case p.Efficiency == minEfficiency:
		p.Note = "The efficiency is at its bound of 0.5: a component that grows with the load may have no sensor."
	case p.Base == 0:
		p.Note = "The base is at its bound of 0: the sensors may see more than there is at low load."
	}
	return p, Check(p, points), nil
}

// plausible says why points cannot be fitted.
func plausible(points []Point) error {
	var wrong []error
	var below []string
	low, high := math.Inf(1), 0.0
	for i, p := range points {
		switch err := p.validate(); {
		case err != nil:
			wrong = append(wrong, fmt.Errorf("%s: %w", p.name(i), err))
		case p.Wall < p.Sensed:
			below = append(below, fmt.Sprintf("%s (%v sensed, %v at the plug)", p.name(i), p.Sensed, p.Wall))
		}
		low, high = min(low, float64(p.Sensed)), max(high, float64(p.Sensed))
	}
	if below != nil {
		more := ""
		if n := len(below) - mostErrors; n > 0 {
			below, more = below[:mostErrors], fmt.Sprintf(" and %d more", n)
		}
		wrong = append(wrong, fmt.Errorf("the meter shows less than the sensors at %s%s: read the meter again, or put # before the lines",
			strings.Join(below, ", "), more))
	}
	switch {
	case wrong != nil:
		return fmt.Errorf("%w: %w", ErrPoints, errors.Join(wrong...))
	case len(points) < 2 || high-low < leastSpan*high || high == 0:
		return fmt.Errorf("%w: add points at idle and under full load", ErrOneLoad)
	}
	return nil
}

// leastRelative returns slope ≥ 1 and offset ≥ 0 with the least
// Σ |slope·sensed + offset − wall| / wall. The sum is convex in both, so that the
// search for the slope cannot end in a wrong valley, and for one slope the best
// offset is a weighted median.
func leastRelative(points []Point) (slope, offset float64) {
	rest := make([]remainder, len(points))
	cost := func(slope float64) (sum, offset float64) {
		for i, p := range points {
			rest[i] = remainder{float64(p.Wall) - slope*float64(p.Sensed), 1 / float64(p.Wall)}
		}
		offset = max(weightedMedian(rest), 0)
		for _, r := range rest {
			sum += math.Abs(r.value-offset) * r.weight
		}
		return sum, offset
	}
	const golden = 0.6180339887498949
	low, high := 1/float64(maxEfficiency), 1/float64(minEfficiency)
	bounds := [...]float64{low, high}
	a, b := high-golden*(high-low), low+golden*(high-low)
	costA, _ := cost(a)
	costB, _ := cost(b)
	for range 80 { // 0.618⁸⁰ is below the resolution of a float64
		if costA <= costB {
			high, b, costB = b, a, costA
			a = high - golden*(high-low)
			costA, _ = cost(a)
		} else {
			low, a, costA = a, b, costB
			b = low + golden*(high-low)
			costB, _ = cost(b)
		}
	}
	slope = (low + high) / 2
	least, offset := cost(slope)
	for _, bound := range bounds { // which the search only approaches
		if sum, at := cost(bound); sum <= least {
			least, slope, offset = sum, bound, at
		}
	}
	return slope, offset
}

// remainder is what a slope leaves of a point.
type remainder struct{ value, weight float64 }

// weightedMedian sorts values, and returns the one below and above which lies at
// most half of the weight.
func weightedMedian(values []remainder) float64 {
	slices.SortFunc(values, func(a, b remainder) int { return cmp.Compare(a.value, b.value) })
	var total, below float64
	for _, v := range values {
		total += v.weight
	}
	for _, v := range values {
		if below += v.weight; below >= total/2 {
			return v.value
		}
	}
	return values[len(values)-1].value
}

// What the error of a calibration is at least, judgement: a plug meter is good
// for 1 to 2 %, and few points prove little: of two, no error can be seen.
const (
	leastBand = 0.02
	fewPoints = 0.06 // over the number of points
)

// spread is one standard deviation of the errors: what 68 % of them are below,
// so that a few that are far off do not count. Two parameters were fitted to the
// points, which makes the errors smaller than they are.
func spread(errs []float64) float64 {
	n := float64(len(errs))
	if n <= 2 {
		return 0
	}
	return quantile(errs, 0.683) * n / (n - 2)
}

// baseBand is the relative standard error of the base, where the points are off
// by sigma: that of the weighted least squares, times √(π/2) for the method's
// lesser use of the points.
func baseBand(points []Point, slope, offset, sigma float64) float64 {
	if offset <= 0 {
		return 0
	}
	var xx, xy, yy float64
	for _, p := range points {
		x, y := float64(p.Sensed/p.Wall), 1/float64(p.Wall)
		xx, xy, yy = xx+x*x, xy+x*y, yy+y*y
	}
	det := xx*yy - xy*xy
	if !(det > 0) {
		return maxBand
	}
	base := offset / slope
	variance := math.Pi / 2 * sigma * sigma * (xx + 2*base*xy + base*base*yy) / det / (slope * slope)
	return math.Sqrt(variance) / base
}
