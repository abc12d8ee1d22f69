package host

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestAdvance(t *testing.T) {
	for _, test := range []struct {
		name        string
		from, to    ticks
		busy, total uint64
	}{
		{"half busy", ticks{10, 100}, ticks{60, 200}, 50, 100},
		{"same tick", ticks{10, 100}, ticks{10, 100}, 0, 0},
		{"idle goes back a little", ticks{10, 100}, ticks{20, 105}, 5, 5},
		{"idle goes back further than busy grows", ticks{10, 100}, ticks{20, 95}, 0, 0},
		{"a processor is unplugged", ticks{1000, 9000}, ticks{500, 4500}, 0, 0},
		{"busy goes back", ticks{10, 100}, ticks{9, 200}, 0, 0},
		{"nonsense", ticks{0, 0}, ticks{1 << 62, 1 << 62}, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got CPUTimes
			got.advance(test.from, test.to)
			want := CPUTimes{time.Duration(test.busy) * statUnit, time.Duration(test.total) * statUnit}
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// Whatever the counters do, the times never decrease and the load is a load.
func TestAdvanceIsMonotonic(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var times CPUTimes
	var at ticks
	for range 10_000 {
		to := ticks{r.Uint64() >> r.UintN(64), r.Uint64() >> r.UintN(64)}
		if r.UintN(2) == 0 {
			to = ticks{at.busy + uint64(r.UintN(200)), at.total + uint64(r.UintN(200))}
		}
		before := times
		times.advance(at, to)
		at = to
		busy, total := times.Busy-before.Busy, times.Total-before.Total
		if busy < 0 || total < busy {
			t.Fatalf("%+v, then %+v", before, times)
		}
	}
	full := CPUTimes{math.MaxInt64 - statUnit, math.MaxInt64 - statUnit}
	full.advance(ticks{}, ticks{100, 100})
	if full.Busy < 0 || full.Total < 0 {
		t.Errorf("overflow: %+v", full)
	}
}

func TestSelfCPU(t *testing.T) {
	before, err := SelfCPU()
	if err != nil {
		t.Fatal(err)
	}
	spin(50 * time.Millisecond)
	after, err := SelfCPU()
	if err != nil {
		t.Fatal(err)
	}
	if d := after - before; d < 20*time.Millisecond {
		t.Errorf("50 ms of work took %v of processor time", d)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = SelfCPU() }); n != 0 {
		t.Errorf("SelfCPU allocates %v times", n)
	}
}

// spin keeps a processor busy.
func spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

func BenchmarkSelfCPU(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = SelfCPU()
	}
}
