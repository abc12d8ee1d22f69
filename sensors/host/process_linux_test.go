package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func TestParseProcessStat(t *testing.T) {
	for _, test := range []struct {
		name, comm, tail string
		want             time.Duration
		ok               bool
	}{
		{"plain", "python3", "S 1 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 1 0 12", 2500 * time.Millisecond, true},
		{"spaces and parentheses", "a) R 1 (b c)", "S 1 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0", 2500 * time.Millisecond, true},
		{"newline", "a\nb", "S 1 1 1 0 -1 4194560 10 20 0 0 1 0 0 0 20", 10 * time.Millisecond, true},
		{"cut off in a number", "a", "S 1 1 1 0 -1 4194560 10 20 0 0 150 50 30 2", 0, false},
		{"cut off before", "a", "S 1 1 1", 0, false},
		{"negative", "a", "S 1 1 1 0 -1 4194560 10 20 0 0 -1 50 30 20 20", 0, false},
		{"too large", "a", "S 1 1 1 0 -1 4194560 10 20 0 0 1000000000000000000 50 30 20 20", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseProcessStat([]byte(fmt.Sprintf("4242 (%s) %s", test.comm, test.tail)))
			if got != test.want || ok != test.ok {
				t.Errorf("%v, %v; want %v, %v", got, ok, test.want, test.ok)
			}
		})
	}
}

func FuzzParseProcessStat(f *testing.F) {
	f.Add([]byte("4242 (a) R (b c) S 1 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 1 0 12\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if used, ok := parseProcessStat(text); used < 0 || !ok && used != 0 {
			t.Errorf("%q: %v, %v", text, used, ok)
		}
	})
}

func TestProcessCPUOfSelf(t *testing.T) {
	p, err := OpenProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	spin(100 * time.Millisecond)
	// The clock includes children that have ended, of which there may be some
	// from other tests.
	before, err := SelfCPU()
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Read()
	if err != nil || got < before-20*time.Millisecond {
		t.Errorf("%v, %v; getrusage says %v", got, err, before)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Read() }); n != 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

func TestProcessCPUAfterExit(t *testing.T) {
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo done; read line")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	p, err := OpenProcessCPU(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	used, err := p.Read()
	if err != nil || used == 0 {
		t.Errorf("%v, %v while it runs", used, err)
	}
	in.Close()
	_ = cmd.Wait()
	last, err := p.Read()
	if !errors.Is(err, sensors.ErrLost) || last != used {
		t.Errorf("%v, %v once it has gone; want %v and ErrLost", last, err, used)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Read() }); n != 0 {
		t.Errorf("Read of a lost process allocates %v times", n)
	}
	if _, err := OpenProcessCPU(cmd.Process.Pid); !errors.Is(err, sensors.ErrLost) {
		t.Errorf("opening it again: %v", err)
	}
	if _, err := OpenProcessCPU(-1); !errors.Is(err, sensors.ErrLost) || !strings.Contains(err.Error(), "-1") {
		t.Errorf("opening -1: %v", err)
	}
}

func BenchmarkProcessCPU(b *testing.B) {
	p, err := OpenProcessCPU(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = p.Read()
	}
}
