package ipmi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// script is a BMC that says what a test has it say.
type script struct {
	mu       sync.Mutex
	respond  func(ctx context.Context, asked int) ([]byte, error)
	asked    int
	opened   int
	closed   int
	requests [][]byte
	paths    []string
	missing  func(path string) error
}

func (s *script) connect(path string) (bmc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = append(s.paths, path)
	if s.missing != nil {
		if err := s.missing(path); err != nil {
			return nil, err
		}
	}
	s.opened++
	return s, nil
}

func (s *script) exchange(ctx context.Context, netfn, cmd byte, data []byte) ([]byte, error) {
	s.mu.Lock()
	s.asked++
	asked := s.asked
	s.requests = append(s.requests, append([]byte{netfn, cmd}, data...))
	s.mu.Unlock()
	return s.respond(ctx, asked)
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func says(answer []byte) func(context.Context, int) ([]byte, error) {
	return func(context.Context, int) ([]byte, error) { return answer, nil }
}

// machine is a fake /sys with these files.
func machine(t testing.TB, files ...string) sensors.Roots {
	t.Helper()
	roots := sensors.Roots{Sys: t.TempDir()}
	for _, name := range files {
		path := filepath.Join(roots.Sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return roots
}

const ipmi0 = "class/ipmi/ipmi0/dev"

func find(roots sensors.Roots, s *script) finder {
	return finder{roots: roots, dev: "/dev", connect: s.connect, now: time.Now}
}

func TestConform(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var polled *sensors.Polled
	sensortest.Conform(t, sensortest.Conformance{
		Supports: Supports,
		Open: func(t testing.TB) sensors.Sensor {
			f := find(machine(t, ipmi0), &script{respond: says(answer220)})
			f.now = func() time.Time { return now }
			s, omitted := f.open(context.Background())
			if s == nil {
				t.Fatalf("no sensor: %+v", omitted)
			}
			polled = s.(*sensor).Polled
			return s
		},
		Advance: func(d time.Duration) {
			now = now.Add(d)
			polled.Poll(context.Background())
		},
	})
}

// What is asked is DCMI's power reading, and the machine's energy is its power
// times the time.
func TestReading(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	bmc := &script{respond: says(answer220)}
	f := find(machine(t, ipmi0), bmc)
	f.now = func() time.Time { return now }
	s, omitted := f.open(context.Background())
	if s == nil {
		t.Fatalf("no sensor: %+v", omitted)
	}
	now = now.Add(10 * time.Second)
	s.(*sensor).Poll(context.Background())
	var r [1]sensors.Reading
	s.Read(r[:])
	if r[0].Energy != 2_200_000_000 || r[0].Power != 220 || r[0].Err != nil {
		t.Errorf("after 10 s at 220 W: %+v", r[0])
	}
	for _, q := range bmc.requests {
		if got := fmt.Sprintf("%x", q); got != "2c02dc010000" {
			t.Errorf("asked %s", got)
		}
	}
	d := s.Devices()[0]
	if d.ID != "node" || d.Component != sensors.Node || d.Scope != sensors.ScopeNode || d.Declared || d.Source != "ipmi /dev/ipmi0" {
		t.Errorf("device %+v", d)
	}
	if err := s.Close(); err != nil || bmc.closed != bmc.opened {
		t.Errorf("closed %d of %d, %v", bmc.closed, bmc.opened, err)
	}
}

// No device of the kernel, no message, and not a word.
func TestNothingThere(t *testing.T) {
	bmc := &script{respond: says(answer220)}
	for _, files := range [][]string{nil, {"class/hwmon/hwmon0/name"}, {"class/ipmi/other/dev"}} {
		s, omitted := find(machine(t, files...), bmc).open(context.Background())
		if s != nil || omitted != nil {
			t.Errorf("%v: %v, %+v", files, s, omitted)
		}
	}
	if len(bmc.paths) > 0 {
		t.Errorf("opened %v", bmc.paths)
	}
}

// The firmware tells of a BMC that no driver drives: one command helps.
func TestDriverMissing(t *testing.T) {
	for _, file := range []string{"bus/acpi/devices/IPI0001:00/hid", "bus/platform/devices/dmi-ipmi-si.0/x", "firmware/dmi/entries/38-0/raw"} {
		_, omitted := find(machine(t, file), &script{}).open(context.Background())
		if len(omitted) != 1 || omitted[0].Status != sensors.Unreadable || omitted[0].Remedy != "sudo modprobe -a ipmi_si ipmi_devintf" {
			t.Errorf("%s: %+v", file, omitted)
		}
	}
}

// A meter that the user named is missed where it is absent, and preferred where
// it is not.
func TestDeclared(t *testing.T) {
	f := find(machine(t), &script{})
	f.declared = true
	if _, omitted := f.open(context.Background()); len(omitted) != 1 || omitted[0].Status != sensors.Unreadable || omitted[0].Remedy == "" {
		t.Errorf("absent: %+v", omitted)
	}
	f = find(machine(t, ipmi0), &script{respond: says(answer220)})
	f.declared = true
	s, _ := f.open(context.Background())
	if s == nil || !s.Devices()[0].Declared {
		t.Fatal("not declared")
	}
	_ = s.Close()
}

func TestOmissions(t *testing.T) {
	refuse := func(err error) func(string) error {
		return func(path string) error { return &fs.PathError{Op: "open", Path: path, Err: err} }
	}
	for name, c := range map[string]struct {
		script *script
		err    error
		reason string
		remedy string
	}{
		"root only": {&script{missing: refuse(syscall.EACCES)}, sensors.ErrPermission, "for root only", `KERNEL=="ipmi*"`},
		"not in the container": {&script{missing: refuse(syscall.ENOENT)}, sensors.ErrPermission,
			"/dev/ipmi0 is missing", "--device /dev/ipmi0"},
		"no DCMI":         {&script{respond: says([]byte{0xc1})}, sensors.ErrUnsupported, "no DCMI", "ipmitool dcmi"},
		"switched off":    {&script{respond: says(append(answer220[:18:18], 0))}, sensors.ErrUnsupported, "off", "sudo ipmitool dcmi power activate"},
		"says 0 W":        {&script{respond: says(append([]byte{0, 0xdc, 0, 0}, answer220[4:]...))}, sensors.ErrUnsupported, "0 W", "ipmitool"},
		"never answers":   {&script{respond: hang}, sensors.ErrTimeout, "", "mc reset"},
		"no IPMI at all":  {&script{respond: func(context.Context, int) ([]byte, error) { return nil, syscall.ENOTTY }}, sensors.ErrUnsupported, "", ""},
		"fails always":    {&script{respond: says([]byte{0xff})}, sensors.ErrTransient, "0xff", ""},
		"gone at once":    {&script{respond: func(context.Context, int) ([]byte, error) { return nil, syscall.ENODEV }}, sensors.ErrLost, "", ""},
		"refuses the way": {&script{respond: says([]byte{0xd4})}, sensors.ErrPermission, "own machine", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if name != "never answers" {
				ctx = context.Background()
			}
			s, omitted := find(machine(t, ipmi0), c.script).open(ctx)
			if s != nil || len(omitted) != 1 {
				t.Fatalf("%v, %+v", s, omitted)
			}
			o := omitted[0]
			if o.Status != sensors.Unreadable || o.Component != sensors.Node || !errors.Is(o.Err, c.err) ||
				!strings.Contains(o.Reason, c.reason) || !strings.Contains(o.Remedy, c.remedy) {
				t.Errorf("%+v, want %v, %q, %q", o, c.err, c.reason, c.remedy)
			}
			if c.script.closed != c.script.opened {
				t.Errorf("%d of %d devices closed", c.script.closed, c.script.opened)
			}
		})
	}
}

func hang(ctx context.Context, _ int) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// The names that distributions have given the device, in this order, and of two
// devices the first that tells a power.
func TestPaths(t *testing.T) {
	bmc := &script{respond: says(answer220), missing: func(path string) error {
		if path != "/dev/ipmidev/3" {
			return fs.ErrNotExist
		}
		return nil
	}}
	s, omitted := find(machine(t, ipmi0, "class/ipmi/ipmi3/dev"), bmc).open(context.Background())
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	defer func() { _ = s.Close() }()
	want := "[/dev/ipmi0 /dev/ipmi/0 /dev/ipmidev/0 /dev/ipmi3 /dev/ipmi/3 /dev/ipmidev/3]"
	if got := fmt.Sprint(bmc.paths); got != want {
		t.Errorf("looked at %s, want %s", got, want)
	}
}

// A BMC that is busy after the start of its machine is asked again.
func TestBusyAtFirst(t *testing.T) {
	bmc := &script{respond: func(_ context.Context, asked int) ([]byte, error) {
		if asked < 3 {
			return []byte{0xc0}, nil
		}
		return answer220, nil
	}}
	s, omitted := find(machine(t, ipmi0), bmc).open(context.Background())
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	_ = s.Close()
}

// A BMC that restarts costs the time it is away, keeps the tally, and is opened
// again.
func TestLostAndBack(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	lost := false
	bmc := &script{respond: func(context.Context, int) ([]byte, error) {
		if lost {
			return nil, syscall.ENODEV
		}
		return answer220, nil
	}}
	f := find(machine(t, ipmi0), bmc)
	f.now = func() time.Time { return now }
	s, omitted := f.open(context.Background())
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	defer func() { _ = s.Close() }()
	read := func() sensors.Reading {
		now = now.Add(5 * time.Second)
		s.(*sensor).Poll(context.Background())
		var r [1]sensors.Reading
		s.Read(r[:])
		return r[0]
	}
	before := read()
	lost = true
	if r := read(); !errors.Is(r.Err, sensors.ErrLost) || r.Tally != before.Tally {
		t.Errorf("lost: %+v, before %+v", r, before)
	}
	if bmc.closed != 1 {
		t.Errorf("the lost device was closed %d times", bmc.closed)
	}
	lost = false
	if r := read(); r.Err != nil || r.Energy <= before.Energy {
		t.Errorf("back: %+v", r)
	}
	if bmc.opened != 2 {
		t.Errorf("opened %d times", bmc.opened)
	}
}

// Close ends the goroutine, and a question that a dead BMC leaves open.
func TestCloseWhileAsking(t *testing.T) {
	before := runtime.NumGoroutine()
	asking := make(chan struct{})
	var once sync.Once
	bmc := &script{respond: func(ctx context.Context, asked int) ([]byte, error) {
		if asked <= 2 { // the probe and the first poll
			return answer220, nil
		}
		once.Do(func() { close(asking) })
		return hang(ctx, asked)
	}}
	f := find(machine(t, ipmi0), bmc)
	f.every = time.Millisecond
	s, omitted := f.open(context.Background())
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	<-asking
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
