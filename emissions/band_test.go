package emissions

import (
	"math"
	"math/rand/v2"
	"testing"
)

func near(a, b float64) bool {
	return a == b || math.Abs(a-b) <= 1e-12*math.Max(math.Abs(a), math.Abs(b))
}

func TestBounds(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name                  string
		value, rel, low, high float64
	}{
		// σ_ln = √ln(1.0625) = 0.24622, f = exp(0.49244) = 1.63630.
		{"a quarter", 100, 0.25, 61.1134, 163.630},
		{"exact", 100, 0, 100, 100},
		{"zero stays zero", 0, 0.5, 0, 0},
		{"nothing known", 100, math.NaN(), 0, inf},
		{"negative error", 100, -1, 0, inf},
		{"avoided", -100, 0.25, -163.630, -61.1134},
		{"hopeless", 100, math.MaxFloat64, 0, inf},
	} {
		low, high := Bounds(c.value, c.rel)
		if math.Abs(low-c.low) > 1e-3 || (high != c.high && math.Abs(high-c.high) > 1e-3) {
			t.Errorf("%s: Bounds(%v, %v) = %v, %v; want %v, %v", c.name, c.value, c.rel, low, high, c.low, c.high)
		}
	}
	if low, high := Bounds(math.NaN(), 0.1); !math.IsNaN(low) || !math.IsNaN(high) {
		t.Errorf("the bounds of an unknown value are %v, %v", low, high)
	}
}

func TestBoundsEncloseAndWiden(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		v, rel := GramsCO2e(r.ExpFloat64()*1e6), r.Float64()*5
		low, high := Bounds(v, rel)
		if !(0 <= low && low <= v && v <= high) {
			t.Fatalf("Bounds(%v, %v) = %v, %v", v, rel, low, high)
		}
		if l, h := Bounds(v, rel+0.01); !(l < low && h > high) {
			t.Fatalf("Bounds(%v, %v): a larger error gives no wider band", float64(v), rel)
		}
		if !near(float64(low)*float64(high), float64(v)*float64(v)) {
			t.Fatalf("Bounds(%v, %v): not symmetric in the logarithm", float64(v), rel)
		}
	}
}

func TestQuadrature(t *testing.T) {
	for _, c := range []struct {
		rel  []float64
		want float64
	}{
		{nil, 0},
		{[]float64{0.1}, 0.1},
		{[]float64{0.3, 0.4}, 0.5},
		{[]float64{0.05, 0.15, 0.25}, math.Sqrt(0.0875)},
	} {
		if got := Quadrature(c.rel...); !near(got, c.want) {
			t.Errorf("Quadrature(%v) = %v, want %v", c.rel, got, c.want)
		}
	}
}

func TestSum(t *testing.T) {
	gpu := Part{Value: 100, Rel: 0.1, Group: "gpu"}
	cpu := Part{Value: 100, Rel: 0.1, Group: "cpu"}
	for _, c := range []struct {
		name       string
		parts      []Part
		total, rel float64
	}{
		{"nothing", nil, 0, 0},
		{"alone", []Part{gpu}, 100, 0.1},
		{"one group: linear", []Part{gpu, gpu, gpu, gpu}, 400, 0.1},
		{"two groups: quadrature", []Part{gpu, cpu}, 200, 0.1 / math.Sqrt2},
		{"both", []Part{gpu, cpu, gpu}, 300, math.Hypot(20, 10) / 300},
		{"a part that is zero", []Part{gpu, {Group: "memory", Rel: 0.6}}, 100, 0.1},
	} {
		total, rel := Sum(c.parts...)
		if !near(total, c.total) || !near(rel, c.rel) {
			t.Errorf("%s: %v ± %v, want %v ± %v", c.name, total, rel, c.total, c.rel)
		}
		r := rand.New(rand.NewPCG(3, 4))
		r.Shuffle(len(c.parts), func(i, j int) { c.parts[i], c.parts[j] = c.parts[j], c.parts[i] })
		if again, _ := Sum(c.parts...); !near(again, total) {
			t.Errorf("%s: the order changes the total", c.name)
		}
		if _, again := Sum(c.parts...); !near(again, rel) {
			t.Errorf("%s: the order changes the error", c.name)
		}
	}
	// Splitting a part within its group changes nothing.
	_, whole := Sum(gpu, cpu)
	_, split := Sum(Part{30, 0.1, "gpu"}, cpu, Part{70, 0.1, "gpu"})
	if !near(whole, split) {
		t.Errorf("split %v, whole %v", split, whole)
	}
}
