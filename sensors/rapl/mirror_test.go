//go:build linux

package rapl

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// script is a counter file that shows what its function says at each read.
type script func() uint64

func (s script) Pread(buf []byte) (int, error) {
	return copy(buf, strconv.AppendUint(nil, s(), 10)), nil
}

func (script) Close() error { return nil }

func TestDivide(t *testing.T) {
	const period = 65532611002
	// Every read of a file takes some time, in which 200 W move the counter.
	var now uint64
	socket := func(start, lag uint64) script {
		return func() uint64 {
			now += 4000 // 20 µs
			return (start + now - lag) % period
		}
	}
	stuck := func(v uint64) script { return func() uint64 { return v } }
	glitch := func(s script, at ...int) script {
		n := 0
		return func() uint64 {
			v := s()
			n++
			for _, i := range at {
				if i == n {
					return 0
				}
			}
			return v
		}
	}
	for name, c := range map[string]struct {
		files []script
		want  string // the sets, by index
	}{
		"one":                            {[]script{socket(5e9, 0)}, "[[0]]"},
		"mirrors that move":              {[]script{socket(5e9, 0), socket(5e9, 0), socket(5e9, 0)}, "[[0 1 2]]"},
		"mirrors that stand still":       {[]script{stuck(5e9), stuck(5e9)}, "[[0 1]]"},
		"mirrors across a wrap":          {[]script{socket(period-10000, 0), socket(period-10000, 0)}, "[[0 1]]"},
		"one a little behind":            {[]script{socket(5e9, 0), socket(5e9, 30000)}, "[[0 1]]"},
		"one a little ahead":             {[]script{socket(5e9, 30000), socket(5e9, 0)}, "[[0 1]]"},
		"a glitch in a mirror":           {[]script{socket(5e9, 0), glitch(socket(5e9, 0), 3)}, "[[0 1]]"},
		"a glitch in the first":          {[]script{glitch(socket(5e9, 0), 3), socket(5e9, 0)}, "[[0 1]]"},
		"parts":                          {[]script{socket(5e9, 0), socket(6e9, 0)}, "[[0] [1]]"},
		"parts a joule apart":            {[]script{socket(5e9, 0), socket(5e9+1e6, 0)}, "[[0] [1]]"},
		"parts that stand still":         {[]script{stuck(5e9), stuck(5e9 + 15)}, "[[0] [1]]"},
		"parts, the first with a glitch": {[]script{glitch(socket(5e9, 0), 2), socket(6e9, 0)}, "[[0] [1]]"},
		"parts, the first read nonsense": {[]script{glitch(socket(5e9, 0), 1), socket(6e9, 0)}, "[[0] [1]]"},
		"two pairs":                      {[]script{socket(5e9, 0), socket(6e9, 0), socket(5e9, 0), socket(6e9, 0)}, "[[0 2] [1 3]]"},
		"a die that is off":              {[]script{socket(5e9, 0), stuck(0)}, "[[0] [1]]"},
		"all at zero":                    {[]script{stuck(0), stuck(0)}, "[[0 1]]"},
	} {
		t.Run(name, func(t *testing.T) {
			now = 1e6
			var meters []*meter
			for i, f := range c.files {
				meters = append(meters, &meter{
					domain: domain{die: i}, file: &energyFile{file: f},
					counter: sensors.Counter{Period: period, MaxPower: packageBound},
				})
			}
			var got [][]int
			for _, set := range divide(meters) {
				var dies []int
				for _, m := range set {
					dies = append(dies, m.die)
				}
				got = append(got, dies)
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestBracket(t *testing.T) {
	for name, c := range map[string]struct {
		before, value, after, slack, period uint64
		want                                verdict
	}{
		"between":                  {10, 12, 14, 0, 1000, agree},
		"at either end":            {10, 14, 14, 0, 1000, agree},
		"before":                   {10, 9, 14, 0, 1000, differ},
		"after":                    {10, 15, 14, 0, 1000, differ},
		"before, within the slack": {10, 9, 14, 1, 1000, agree},
		"after, within the slack":  {10, 15, 14, 1, 1000, agree},
		"across the wrap":          {998, 3, 5, 0, 1000, agree},
		"not across the wrap":      {998, 6, 5, 0, 1000, differ},
		"reset between":            {500, 7, 5, 0, 1000, unknown},
		"no period, between":       {10, 12, 14, 0, 0, agree},
		"no period, before":        {10, 9, 14, 0, 0, differ},
		"no period, wrapped":       {998, 3, 5, 0, 0, unknown},
		"beyond its period":        {5000, 5000, 10, 0, 1000, unknown},
	} {
		if got := bracket(c.before, c.value, c.after, c.slack, c.period); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What looks like mirrors when opened and is not, is summed from the first read
// on; what is not yet known is never counted twice.
func TestMirrorsAreWatched(t *testing.T) {
	zeroes := sensortest.IntelMultiDie()
	zeroes.Zones[0].Energy, zeroes.Zones[2].Energy = 0, 0
	twins := sensortest.AMDMultiDie()
	twins.Zones[0].Energy = 0

	t.Run("parts from zero", func(t *testing.T) {
		x := start(t, zeroes, nil)
		if got, want := x.ids(), "package-0 dram-0-die-0 dram-0-die-1"; got != want {
			t.Fatalf("devices %q, want %q", got, want)
		}
		x.read(0)
		for range 2 * watched { // nothing moves, nothing is known
			x.read(0)
		}
		var sum, last sensors.Microjoules
		for i := range sensors.Microjoules(20) {
			x.tree.Draw("intel-rapl:0", 100e6+i)
			x.tree.Draw("intel-rapl:1", 130e6-i)
			sum += 230e6
			x.read(time.Second)
			if r := x.reading("package-0"); r.Energy < last || r.Observed != time.Duration(i+1)*time.Second || r.Err != nil {
				t.Errorf("after %d s: %+v", i+1, r)
			}
			last = x.reading("package-0").Energy
			if i >= refuted {
				x.wantEnergy("package-0", sum)
			}
		}
	})
	t.Run("mirrors from zero", func(t *testing.T) {
		x := start(t, twins, nil)
		x.read(0)
		for i := range 2 * watched {
			x.tree.Draw("intel-rapl:0", 100e6)
			x.read(time.Second)
			x.wantEnergy("package-0", sensors.Microjoules(i+1)*100e6)
		}
		if n := len(x.sensor.(*sensor).states[0].twins); n != 0 {
			t.Errorf("still reads %d twins", n)
		}
	})
	t.Run("a glitch is not a difference", func(t *testing.T) {
		x := start(t, twins, nil)
		x.read(0)
		for i := range 2 * watched {
			x.tree.Draw("intel-rapl:0", 100e6)
			raw := x.tree.Energy("intel-rapl:1")
			if i%4 < refuted-1 {
				x.tree.SetEnergy("intel-rapl:1", 7e9)
			}
			x.read(time.Second)
			x.tree.SetEnergy("intel-rapl:1", raw)
			x.wantEnergy("package-0", sensors.Microjoules(i+1)*100e6)
		}
	})
	t.Run("a lost twin is no reason to err", func(t *testing.T) {
		x := start(t, twins, nil)
		x.read(0)
		x.tree.Remove("intel-rapl:1")
		for i := range 2 * watched {
			x.tree.Draw("intel-rapl:0", 100e6)
			x.read(time.Second)
			x.wantEnergy("package-0", sensors.Microjoules(i+1)*100e6)
			if err := x.reading("package-0").Err; err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("a lost part is", func(t *testing.T) {
		x := start(t, zeroes, nil)
		x.read(0)
		for range 5 {
			x.tree.Draw("intel-rapl:0", 100e6)
			x.tree.Draw("intel-rapl:1", 50e6)
			x.read(time.Second)
		}
		x.wantEnergy("package-0", 750e6)
		x.tree.Remove("intel-rapl:1")
		x.read(time.Second)
		x.wantEnergy("package-0", 750e6)
		if x.reading("package-0").Err == nil {
			t.Error("no error, and half of the package is not read")
		}
	})
}
