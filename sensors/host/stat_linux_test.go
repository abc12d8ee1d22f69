package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gopsutil "github.com/shirou/gopsutil/v3/cpu"

	"github.com/wattspan/wattspan/sensors"
)

var realRoots = sensors.Roots{Sys: "/sys", Proc: "/proc"}

func TestParseStat(t *testing.T) {
	for _, test := range []struct {
		text string
		want ticks
		ok   bool
	}{
		// Guest time (500, 50) is inside user and nice.
		{"cpu  1000 100 200 3000 40 10 20 30 500 50\ncpu0 1 1 1 1\n", ticks{1330, 4400}, true},
		{"cpu  1 2 3 4\n", ticks{6, 10}, true}, // Linux 2.4
		{"cpu  1 2 3\n", ticks{}, false},
		{"cpu  1000 100 200 3000 40 10 20 30 500 5", ticks{}, false}, // cut off
		{"cpu0 1 2 3 4\n", ticks{}, false},
		{"cpu  1 2 -3 4\n", ticks{}, false},
		{"cpu  99999999999999999999 2 3 4\n", ticks{}, false},
		{"", ticks{}, false},
	} {
		got, ok := parseStat([]byte(test.text))
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%q: %+v, %v; want %+v, %v", test.text, got, ok, test.want, test.ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("cpu  1000 100 200 3000 40 10 20 30 500 50\ncpu0 1 1 1 1\n"))
	f.Add([]byte("cpu  1152921504606846975 1152921504606846975 1 1 1 1 1 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, ok := parseStat(text); ok && got.busy > got.total {
			t.Errorf("%q: %+v", text, got)
		}
	})
}

func TestCPUClock(t *testing.T) {
	proc := t.TempDir()
	write(t, proc, "stat", "cpu  1000 0 0 9000 0 0 0 0 0 0\n")
	c, err := OpenCPUClock(sensors.Roots{Proc: proc})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect := func(step string, busy, total time.Duration) {
		t.Helper()
		got, err := c.Read()
		if err != nil || got.Busy != busy || got.Total != total {
			t.Errorf("%s: %+v, %v; want %v of %v", step, got, err, busy, total)
		}
	}
	expect("counts from the opening", 0, 0)
	write(t, proc, "stat", "cpu  1050 0 0 9150 0 0 0 0 0 0\n")
	expect("a quarter busy", 500*time.Millisecond, 2*time.Second)
	write(t, proc, "stat", "cpu  1050 0 0 9150 100 0 0 100 0 0\n")
	expect("waiting and stolen time is not busy", 500*time.Millisecond, 4*time.Second)
	write(t, proc, "stat", "cpu  1050 0 0 9000 100 0 0 100 0 0\n")
	expect("idle went back", 500*time.Millisecond, 4*time.Second)
	write(t, proc, "stat", "garbage\n")
	if got, err := c.Read(); !errors.Is(err, sensors.ErrTransient) || got.Total != 4*time.Second {
		t.Errorf("garbage: %+v, %v", got, err)
	}
	write(t, proc, "stat", "cpu  1150 0 0 9100 100 0 0 100 0 0\n")
	expect("goes on", 1500*time.Millisecond, 6*time.Second)
}

func TestOpenCPUClockAbsent(t *testing.T) {
	_, err := OpenCPUClock(sensors.Roots{Proc: t.TempDir()})
	if !errors.Is(err, sensors.ErrAbsent) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// The kept descriptor sees what an open file sees: gopsutil is read before and
// after, and the clock is between.
func TestStatAgreesWithGopsutil(t *testing.T) {
	s, err := openStat(realRoots)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	reference := func() (busy, total float64) {
		all, err := gopsutil.Times(false)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		x := all[0]
		busy = x.User + x.Nice + x.System + x.Irq + x.Softirq
		return busy, busy + x.Idle + x.Iowait + x.Steal
	}
	for range 5 {
		busy0, total0 := reference()
		got, err := s.read()
		if err != nil {
			t.Fatal(err)
		}
		busy1, total1 := reference()
		const tick = 0.011 // s, with the rounding of floats
		busy, total := float64(got.busy)/100, float64(got.total)/100
		// Idle time may go back by a tick per processor between two reads.
		slack := tick * float64(max(1, cpus(t)))
		if busy < busy0-tick || busy > busy1+tick || total < total0-slack || total > total1+slack {
			t.Errorf("%v of %v s, gopsutil %v of %v, then %v of %v", busy, total, busy0, total0, busy1, total1)
		}
		spin(20 * time.Millisecond)
	}
}

func cpus(t *testing.T) int {
	n, err := gopsutil.Counts(true)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCPUClockSeesLoad(t *testing.T) {
	c, err := OpenCPUClock(realRoots)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spin(200 * time.Millisecond)
	got, err := c.Read()
	if err != nil || got.Busy < 100*time.Millisecond || got.Total < got.Busy {
		t.Errorf("%+v, %v", got, err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Read() }); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

func BenchmarkCPUClock(b *testing.B) {
	c, err := OpenCPUClock(realRoots)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Read()
	}
}

// write puts a file into a fake tree, in place, so that an open descriptor sees
// it.
func write(t testing.TB, elem ...string) {
	t.Helper()
	path := filepath.Join(elem[:len(elem)-1]...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.TrimPrefix(elem[len(elem)-1], "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}
