package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func TestParseCPUStat(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       time.Duration
		ok         bool
	}{
		{"without controllers", "usage_usec 3149530\nuser_usec 2370760\nsystem_usec 778770\n", 3149530 * time.Microsecond, true},
		{"another order", "user_usec 1\nusage_usec 20\nsystem_usec 2\n", 20 * time.Microsecond, true},
		{"new", "usage_usec 0\nuser_usec 0\n", 0, true},
		{"the cpu controller of version 1", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n", 0, false},
		{"the end of another name", "core_usage_usec 5\n", 0, false},
		{"cut off in the number", "usage_usec 314", 0, false},
		{"no number", "usage_usec \n", 0, false},
		{"negative", "usage_usec -5\n", 0, false},
		{"the most", "usage_usec 9223372036854775\n", 9223372036854775 * time.Microsecond, true},
		{"one more", "usage_usec 9223372036854776\n", 0, false},
		{"empty", "", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, ok := parseCPUStat([]byte(test.text)); got != test.want || ok != test.ok {
				t.Errorf("%v, %v; want %v, %v", got, ok, test.want, test.ok)
			}
		})
	}
}

func TestParseCPUAcct(t *testing.T) {
	for _, test := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"3149530921077\n", 3149530921077, true},
		{"0\n", 0, true},
		{"9223372036854775807\n", 1<<63 - 1, true},
		{"9223372036854775808\n", 0, false},
		{"99999999999999999999999999\n", 0, false},
		{"314", 0, false}, // cut off
		{"\n", 0, false},
		{"12 34\n", 0, false},
		{"", 0, false},
	} {
		if got, ok := parseCPUAcct([]byte(test.text)); got != test.want || ok != test.ok {
			t.Errorf("%q: %v, %v; want %v, %v", test.text, got, ok, test.want, test.ok)
		}
	}
}

func FuzzParseCgroupClock(f *testing.F) {
	f.Add([]byte("usage_usec 3149530\nuser_usec 2370760\n"))
	f.Add([]byte("9223372036854775807\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if used, ok := parseCPUStat(text); used < 0 || !ok && used != 0 || used%time.Microsecond != 0 {
			t.Errorf("%q as cpu.stat: %v, %v", text, used, ok)
		}
		used, ok := parseCPUAcct(text)
		if used < 0 || !ok && used != 0 {
			t.Errorf("%q as cpuacct.usage: %v, %v", text, used, ok)
		}
		if again, _ := parseCPUAcct(fmt.Appendf(nil, "%d\n", used)); again != used {
			t.Errorf("%v becomes %v", used, again)
		}
	})
}

func TestCgroupCPU(t *testing.T) {
	const v1Stat = "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"
	for _, test := range []struct {
		name   string
		files  map[string]string
		file   string // that changes
		later  string
		before time.Duration
		after  time.Duration
	}{
		{"version 2", map[string]string{"cpu.stat": "usage_usec 5\n"}, "cpu.stat", "usage_usec 9\n", 5e3, 9e3},
		{"version 1", map[string]string{"cpuacct.usage": "70\n"}, "cpuacct.usage", "90\n", 70, 90},
		{"version 1 with the cpu controller", map[string]string{"cpuacct.usage": "70\n", "cpu.stat": v1Stat}, "cpuacct.usage", "90\n", 70, 90},
		{"never back", map[string]string{"cpuacct.usage": "70\n"}, "cpuacct.usage", "60\n", 70, 70},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range test.files {
				write(t, dir, name, text)
			}
			c, err := OpenCgroupCPU(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := c.Read(); got != test.before || err != nil {
				t.Errorf("%v, %v; want %v", got, err, test.before)
			}
			write(t, dir, test.file, test.later)
			if got, err := c.Read(); got != test.after || err != nil {
				t.Errorf("later: %v, %v; want %v", got, err, test.after)
			}
			if n := testing.AllocsPerRun(100, func() { _, _ = c.Read() }); n != 0 {
				t.Errorf("Read allocates %v times", n)
			}
			write(t, dir, test.file, "nonsense\n")
			if got, err := c.Read(); got != test.after || !errors.Is(err, sensors.ErrTransient) {
				t.Errorf("nonsense: %v, %v", got, err)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "cpu.stat", v1Stat)
		if _, err := OpenCgroupCPU(dir); !errors.Is(err, sensors.ErrUnsupported) || errors.Is(err, sensors.ErrTransient) {
			t.Errorf("no clock: %v", err)
		}
		if _, err := OpenCgroupCPU(filepath.Join(dir, "gone")); !errors.Is(err, sensors.ErrAbsent) {
			t.Errorf("no directory: %v", err)
		}
	})
}

// A group that is removed says so, and its last time stands.
func TestCgroupCPUOfAGroupThatGoes(t *testing.T) {
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct"} {
		t.Run(filepath.Base(mount), func(t *testing.T) {
			if c, err := OpenCgroupCPU(mount); err != nil {
				t.Skip(err)
			} else {
				_ = c.Close()
			}
			dir, err := os.MkdirTemp(mount, "wattspan-test-")
			if err != nil {
				t.Skip(err)
			}
			defer os.Remove(dir)
			c, err := OpenCgroupCPU(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if used, err := c.Read(); used != 0 || err != nil {
				t.Errorf("a new group: %v, %v", used, err)
			}
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(); !errors.Is(err, sensors.ErrLost) {
				t.Errorf("a removed group: %v", err)
			}
			if n := testing.AllocsPerRun(100, func() { _, _ = c.Read() }); n != 0 {
				t.Errorf("Read of a removed group allocates %v times", n)
			}
		})
	}
}

func BenchmarkCgroupCPU(b *testing.B) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpuacct"} {
		b.Run(filepath.Base(dir), func(b *testing.B) {
			c, err := OpenCgroupCPU(dir)
			if err != nil {
				b.Skip(err)
			}
			defer c.Close()
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Read()
			}
		})
	}
}
