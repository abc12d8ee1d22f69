package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

func TestParseMeminfo(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       uint64
		ok         bool
	}{
		{"usual", "MemTotal:       1000 kB\nMemFree:        10 kB\nMemAvailable:   400 kB\n", 600 << 10, true},
		{"cut off after a digit", "MemTotal:       1000 kB\nMemFree:        10 kB\nMemAvailable:   40", 0, false},
		{"before 3.14", "MemTotal:       1000 kB\nMemFree:        10 kB\nBuffers:   40 kB\n", 0, false},
		{"more available than there is", "MemTotal: 10 kB\nMemAvailable: 40 kB\n", 0, false},
		{"another unit", "MemTotal: 10 MB\nMemAvailable: 4 MB\n", 0, false},
		{"empty", "", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, ok := parseMeminfo([]byte(test.text)); got != test.want || ok != test.ok {
				t.Errorf("%d, %v; want %d, %v", got, ok, test.want, test.ok)
			}
		})
	}
}

func FuzzParseMeminfo(f *testing.F) {
	f.Add([]byte("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, ok := parseMeminfo(text); !ok && v != 0 {
			t.Errorf("%q: %d", text, v)
		}
	})
}

func TestParseStatm(t *testing.T) {
	page := uint64(os.Getpagesize())
	for _, test := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"4000 1000 300 50 0 700 0\n", 700 * page, true},
		{"4000 1000 1300 50 0 700 0\n", 0, true}, // the three are not read at one moment
		{"0 0 0 0 0 0 0\n", 0, true},             // a kernel thread, a zombie
		{"4000 1000 30", 0, false},
		{"", 0, false},
	} {
		if got, ok := parseStatm([]byte(test.text)); got != test.want || ok != test.ok {
			t.Errorf("%q: %d, %v; want %d, %v", test.text, got, ok, test.want, test.ok)
		}
	}
}

func FuzzParseStatm(f *testing.F) {
	f.Add([]byte("4000 1000 300 50 0 700 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, ok := parseStatm(text); !ok && v != 0 {
			t.Errorf("%q: %d", text, v)
		}
	})
}

// What this process allocates and touches, it holds.
func TestSelfMemory(t *testing.T) {
	p, err := OpenSelfMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	before, err := p.Read()
	if err != nil || before == 0 {
		t.Fatalf("%d, %v", before, err)
	}
	const size = 64 << 20
	held := make([]byte, size)
	for i := range held {
		held[i] = 1
	}
	after, err := p.Read()
	if err != nil || after < before+size/2 {
		t.Errorf("%d, %v after %d more than %d", after, err, size, before)
	}
	if held[size-1] != 1 { // it lives until here
		t.Fail()
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Read() }); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

func TestMemoryUse(t *testing.T) {
	root := t.TempDir()
	if _, err := OpenMemoryUse(sensors.Roots{Proc: root}); !errors.Is(err, sensors.ErrAbsent) {
		t.Errorf("without the file: %v", err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(root, "meminfo"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("MemTotal: nothing\n")
	if _, err := OpenMemoryUse(sensors.Roots{Proc: root}); !errors.Is(err, sensors.ErrTransient) {
		t.Errorf("without a number: %v", err)
	}
	write("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\n")
	m, err := OpenMemoryUse(sensors.Roots{Proc: root})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	write("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 300 kB\n")
	if got, err := m.Read(); err != nil || got != 700<<10 {
		t.Errorf("%d, %v; want %d", got, err, 700<<10)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Read() }); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

// The time a machine sleeps only grows, and is less than the time since boot.
func TestSuspended(t *testing.T) {
	first, ok := Suspended()
	second, ok2 := Suspended()
	if !ok || !ok2 || first < 0 || second-first > 1e9 || first-second > 1e9 {
		t.Errorf("%v, %v; then %v, %v", first, ok, second, ok2)
	}
}
