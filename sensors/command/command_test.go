//go:build unix

package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// opened opens a meter that is polled by hand.
func opened(t testing.TB, c Config, now func() time.Time) *sensor {
	t.Helper()
	s, omitted := c.open(context.Background(), 0, now)
	if s == nil {
		t.Fatalf("no sensor: %+v", omitted)
	}
	return s.(*sensor)
}

func TestConform(t *testing.T) {
	path := filepath.Join(t.TempDir(), "power")
	// A file's age is of the wall clock, which the fake one must not leave behind.
	now := time.Now()
	energy := 1000.0
	write := func(t testing.TB, text string) {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, now, now)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		Config
		text func() string
	}{
		"power of a file":      {Config{File: path}, func() string { return "220 W\n" }},
		"energy of a file":     {Config{File: path}, func() string { return fmt.Sprintf("%.3f J\n", energy) }},
		"power of a program":   {Config{Argv: []string{"cat", path}}, func() string { return ipmitool }},
		"energy by the shell":  {Config{Shell: "cat < '" + path + "'"}, func() string { return fmt.Sprintf("%.3f J\n", energy) }},
		"power in an answer":   {Config{File: path, Key: "a.p"}, func() string { return `{"a":{"p":220}}` }},
		"a unit of one's own":  {Config{File: path, Unit: "kW"}, func() string { return "0.22" }},
		"counter of an answer": {Config{File: path, Key: "e", Unit: "J"}, func() string { return fmt.Sprintf(`{"e":%.3f}`, energy) }},
	} {
		t.Run(name, func(t *testing.T) {
			var polled *sensor
			sensortest.Conform(t, sensortest.Conformance{
				Supports: Supports,
				Open: func(t testing.TB) sensors.Sensor {
					write(t, c.text())
					polled = opened(t, c.Config, func() time.Time { return now })
					return polled
				},
				Advance: func(d time.Duration) {
					now = now.Add(d)
					energy += 220 * d.Seconds()
					write(t, c.text())
					polled.Poll(context.Background())
				},
			})
		})
	}
}

// A power is integrated, an energy is counted, and both are the node's.
func TestEnergy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meter")
	now := time.Now()
	clock := func() time.Time { return now }
	for _, c := range []struct {
		first, then string
		method      sensors.Method
	}{
		{"100 W", "300 W", sensors.MethodPower},
		{"1.0000 kWh", "1.0005555556 kWh", sensors.MethodCounter},
	} {
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write(c.first)
		s := opened(t, Config{File: path}, clock)
		now = now.Add(10 * time.Second)
		write(c.then)
		s.Poll(context.Background())
		var r [1]sensors.Reading
		s.Read(r[:])
		d := s.Devices()[0]
		if e := float64(r[0].Energy.Joules()); e < 1999.9 || e > 2000.1 || d.Method != c.method {
			t.Errorf("%s, %s: %v J by %s (%v)", c.first, c.then, e, d.Method, r[0].Err)
		}
		if d.ID != "node" || d.Component != sensors.Node || d.Scope != sensors.ScopeNode || !d.Declared {
			t.Errorf("%+v", d)
		}
		_ = s.Close()
	}
}

// A counter of coarse steps says how long a step takes: a run that is shorter has
// no figure.
func TestStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meter")
	if err := os.WriteFile(path, []byte("1234.5 kWh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := opened(t, Config{File: path}, time.Now)
	defer func() { _ = s.Close() }()
	if d := s.Devices()[0]; d.Refresh != time.Hour || d.Note != "counts in steps of 100 Wh" {
		t.Errorf("refresh %v, note %q", d.Refresh, d.Note)
	}
}

// What goes wrong later costs the reading, and keeps the tally.
func TestTrouble(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meter")
	now := time.Now()
	for _, trouble := range []string{"", "offline", "0 W", "-1 W", "5 kWh"} {
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("100 W")
		s := opened(t, Config{File: path}, func() time.Time { return now })
		read := func() sensors.Reading {
			now = now.Add(5 * time.Second)
			s.Poll(context.Background())
			var r [1]sensors.Reading
			s.Read(r[:])
			return r[0]
		}
		good := read()
		write(trouble)
		if r := read(); !errors.Is(r.Err, sensors.ErrTransient) || r.Tally != good.Tally || r.Power == 0 {
			t.Errorf("%q: %+v, before %+v", trouble, r, good)
		}
		write("100 W")
		if r := read(); r.Err != nil || r.Energy <= good.Energy {
			t.Errorf("after %q: %+v", trouble, r)
		}
		_ = s.Close()
		now = time.Now()
	}
}

func TestOmissions(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	big := filepath.Join(dir, "big")
	hour := time.Now().Add(-time.Hour)
	if err := errors.Join(
		os.WriteFile(old, []byte("123 W"), 0o644), os.Chtimes(old, hour, hour),
		os.WriteFile(big, make([]byte, mostFile+1), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		Config
		err  error
		text string
	}{
		"no such program":      {Config{Argv: []string{"wattspan-no-such-meter"}}, sensors.ErrTransient, "127"},
		"it fails":             {Config{Shell: "echo 99 W; echo no route to host >&2; exit 3"}, sensors.ErrTransient, "no route to host"},
		"it says nothing":      {Config{Argv: []string{"true"}}, sensors.ErrTransient, "says nothing"},
		"it says something":    {Config{Argv: []string{"echo", "hello"}}, sensors.ErrTransient, "hello"},
		"it says 0":            {Config{Argv: []string{"echo", "0 W"}}, sensors.ErrTransient, "0 W"},
		"it wants a password":  {Config{Shell: "read -r p && echo 5 W"}, sensors.ErrTransient, "code 1"},
		"it wants a terminal":  {Config{Shell: "cat /dev/tty && echo 5 W"}, sensors.ErrTransient, "code 1"},
		"it never ends":        {Config{Shell: "echo 5 W; sleep 1000", Every: 50 * time.Millisecond}, sensors.ErrTimeout, "did not end"},
		"nothing to run":       {Config{}, sensors.ErrUnsupported, "no program"},
		"an empty name":        {Config{Argv: []string{""}}, sensors.ErrUnsupported, "no program"},
		"no such file":         {Config{File: filepath.Join(dir, "none")}, sensors.ErrLost, "none"},
		"a folder":             {Config{File: dir}, sensors.ErrUnsupported, "neither"},
		"nobody writes it":     {Config{File: old}, sensors.ErrTimeout, "1h0m"},
		"too much for a value": {Config{File: big}, sensors.ErrUnsupported, "tail"},
	} {
		t.Run(name, func(t *testing.T) {
			s, omitted := c.open(context.Background(), 0, time.Now)
			if s != nil || len(omitted) != 1 {
				t.Fatalf("%v, %+v", s, omitted)
			}
			o := omitted[0]
			if !errors.Is(o.Err, c.err) || !strings.Contains(o.Reason, c.text) || o.Status != sensors.Unreadable ||
				o.Component != sensors.Node || o.Remedy == "" {
				t.Errorf("%+v, want %v and %q", o, c.err, c.text)
			}
		})
	}
}

// A file that grows is a log, of which the first line gets old.
func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("100 W\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := opened(t, Config{File: path}, time.Now)
	defer func() { _ = s.Close() }()
	if err := os.WriteFile(path, []byte("100 W\n500 W\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Poll(context.Background())
	var r [1]sensors.Reading
	s.Read(r[:])
	if !errors.Is(r[0].Err, sensors.ErrUnsupported) {
		t.Errorf("%+v", r[0])
	}
}

// The files of the kernel are made when they are read, and have no age.
func TestKernelFiles(t *testing.T) {
	for path, want := range map[string]bool{
		"/sys/class/hwmon/hwmon0/power1_input": true, "/proc/uptime": true, "/tmp/power": false, "/system/power": false,
	} {
		if got := kernels(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// Secrets are in arguments and assignments: reports name the program alone.
func TestOrigin(t *testing.T) {
	for want, c := range map[string]Config{
		"command curl":    {Shell: "TOKEN=abc /usr/bin/curl -u admin:secret http://plug"},
		"command snmpget": {Argv: []string{"/usr/bin/snmpget", "-c", "secret", "pdu"}},
		"file /run/power": {File: "/run/power"},
		"command":         {Shell: "A=b"},
	} {
		if got := c.origin(); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}

// One FIFO, many lines: the last whole one counts, whoever writes is not killed,
// and a value gets old.
func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	// Whoever writes comes and goes, and always finds a reader.
	write := func(text string) {
		writer, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := writer.WriteString(text); err != nil {
			t.Error(err)
		}
		_ = writer.Close()
	}
	now := time.Now()
	go func() { // the first line is waited for, and its writer too
		end := time.Now().Add(10 * time.Second)
		for time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
			writer, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				continue // nobody reads yet
			}
			_, _ = writer.WriteString("100 W\n")
			_ = writer.Close()
			return
		}
	}()
	s := opened(t, Config{File: path}, func() time.Time { return now })
	defer func() { _ = s.Close() }()
	read := func(after time.Duration) sensors.Reading {
		now = now.Add(after)
		s.Poll(context.Background())
		var r [1]sensors.Reading
		s.Read(r[:])
		return r[0]
	}
	write("1 W\n2 W\n200 W\n3")
	if r := read(5 * time.Second); r.Err != nil || r.Power != 200 {
		t.Errorf("last whole line: %+v", r)
	}
	write("00 W\n\n")
	if r := read(5 * time.Second); r.Err != nil || r.Power != 300 {
		t.Errorf("a line in two parts: %+v", r)
	}
	if r := read(20 * time.Second); r.Err != nil || r.Power != 300 {
		t.Errorf("nothing new: %+v", r)
	}
	if r := read(20 * time.Second); !errors.Is(r.Err, sensors.ErrTimeout) {
		t.Errorf("old: %+v", r)
	}
	write("400 W\n")
	if r := read(5 * time.Second); r.Err != nil || r.Power != 400 {
		t.Errorf("again: %+v", r)
	}
}

// Nobody writes: the wait ends.
func TestSilentFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	before := runtime.NumGoroutine()
	_, omitted := Config{File: path, Every: 30 * time.Millisecond}.open(context.Background(), 0, time.Now)
	if len(omitted) != 1 || !errors.Is(omitted[0].Err, sensors.ErrTimeout) {
		t.Errorf("%+v", omitted)
	}
	settle(t, before)
}

// alive waits until none of the processes lives, and returns those that do at the
// end.
func alive(pids ...int) (left []int) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left = left[:0]
		for _, pid := range pids {
			if syscall.Kill(pid, 0) == nil && !zombie(pid) {
				left = append(left, pid)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// zombie reports whether a process has ended and waits to be reaped, by an init
// that may take its time.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(state, "Z")
}

// settle waits until there are no more goroutines than before.
func settle(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// pidsIn returns the numbers that a program of a test wrote into a file.
func pidsIn(t *testing.T, path string) (pids []int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(pids) < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, _ := os.ReadFile(path)
		pids = pids[:0]
		for _, f := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	if len(pids) < 2 {
		t.Fatalf("%s holds %v", path, pids)
	}
	return pids
}

// Whether it ends at the deadline, at Close or by itself, nothing of a program is
// left: no process, no goroutine, no number kept.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	dir := t.TempDir()
	first := filepath.Join(dir, "first")
	if err := os.WriteFile(first, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// The first time it answers and leaves a child behind; then it hangs with one.
	script := fmt.Sprintf(`sleep 1000 & if rm %[1]s 2>/dev/null; then echo $$ $! >%[2]s/ended; echo 5 W; else echo $$ $! >%[2]s/hung; wait; fi`, first, dir)
	for _, end := range []string{"deadline", "close"} {
		if err := os.WriteFile(first, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(dir, "hung"))
		c := Config{Shell: script, Every: time.Minute}
		interval := time.Millisecond
		if end == "deadline" {
			interval = 0
		}
		s, omitted := c.open(context.Background(), interval, time.Now)
		if s == nil {
			t.Fatalf("%+v", omitted)
		}
		if left := alive(pidsIn(t, filepath.Join(dir, "ended"))...); len(left) > 0 {
			t.Errorf("%v outlive their program, which has ended", left)
		}
		if end == "deadline" {
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				for len(pidsIn(t, filepath.Join(dir, "hung"))) < 2 {
				}
				cancel()
			}()
			s.(*sensor).Poll(ctx)
			var r [1]sensors.Reading
			if s.Read(r[:]); !errors.Is(r[0].Err, sensors.ErrTimeout) {
				t.Errorf("%v", r[0].Err)
			}
		}
		hung := pidsIn(t, filepath.Join(dir, "hung"))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left := alive(hung...); len(left) > 0 {
			t.Errorf("%s: %v still live", end, left)
		}
		if left := Children(nil); len(left) > 0 {
			t.Errorf("%s: %v are thought to live", end, left)
		}
	}
	settle(t, before)
}

// What left the group and holds the pipe does not hold the reader.
func TestDaemon(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pids")
	c := Config{Shell: fmt.Sprintf(`setsid sh -c 'echo $$ $$ >%[1]s; exec sleep 1000' & while ! [ -s %[1]s ]; do sleep 0.01; done; echo 7 W`, pidFile), Every: time.Minute}
	s := opened(t, c, time.Now)
	pid := pidsIn(t, pidFile)[0]
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A program that prints without end is read to its deadline, and its beginning
// counts if it ends.
func TestMuchOutput(t *testing.T) {
	s := opened(t, Config{Shell: "echo 5 W; head -c 1000000 /dev/zero", Every: time.Minute}, time.Now)
	defer func() { _ = s.Close() }()
	if left := Children(nil); len(left) > 0 {
		t.Errorf("%v have ended, and are thought to live", left)
	}
}
