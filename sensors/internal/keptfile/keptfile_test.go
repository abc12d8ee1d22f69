//go:build linux

package keptfile

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// faults makes files fail as those of drivers do, and those outside sysfs never.
type faults struct {
	open, read error
	opened     int
	handles    int // not closed
}

func (f *faults) openFile(path string) (Handle, error) {
	f.opened++
	if f.open != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: f.open}
	}
	h, err := OpenHandle(path)
	if err == nil {
		f.handles++
	}
	return faulty{h, f}, err
}

type faulty struct {
	Handle
	*faults
}

func (f faulty) Pread(buf []byte) (int, error) {
	if f.read != nil {
		return 0, f.read
	}
	return f.Handle.Pread(buf)
}

func (f faulty) Close() error { f.handles--; return f.Handle.Close() }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func fixed(path string) func() (string, error) { return func() (string, error) { return path, nil } }

func TestNumbers(t *testing.T) {
	for text, c := range map[string]struct {
		uint   uint64
		int    int64
		isUint bool
		isInt  bool
	}{
		"0\n":                    {0, 0, true, true},
		"42":                     {42, 42, true, true},
		"42 \t\n":                {42, 42, true, true},
		"18446744073709551615\n": {uint: math.MaxUint64, isUint: true},
		"18446744073709551616\n": {},
		"9223372036854775807\n":  {math.MaxInt64, math.MaxInt64, true, true},
		"-9223372036854775808\n": {int: math.MinInt64, isInt: true},
		"-9223372036854775809\n": {},
		"-1\n":                   {int: -1, isInt: true},
		"+1\n":                   {},
		"-\n":                    {},
		" 1\n":                   {},
		"1x\n":                   {},
		"1 2\n":                  {},
		"0x10\n":                 {},
		"1.5\n":                  {},
		"unknown\n":              {},
	} {
		path := filepath.Join(t.TempDir(), "f")
		write(t, path, text)
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		u, uerr := f.Uint(start)
		i, ierr := f.Int(start)
		if u != c.uint || i != c.int || (uerr == nil) != c.isUint || (ierr == nil) != c.isInt {
			t.Errorf("%q: %d %v, %d %v", text, u, uerr, i, ierr)
		}
		if uerr != nil && (!errors.Is(uerr, sensors.ErrTransient) || !strings.Contains(uerr.Error(), path)) {
			t.Errorf("%q: %v", text, uerr)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestItStaysOpenAndReadsFromTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "1\n")
	x := &faults{}
	f := New(fixed(path), 16, x.openFile)
	if x.opened != 0 || f.Openings() != 0 {
		t.Error("New touches the file")
	}
	for _, want := range []uint64{1, 2, 3} {
		write(t, path, strconv.FormatUint(want, 10)+"\n")
		if n, err := f.Uint(start); n != want || err != nil {
			t.Errorf("%d %v, want %d", n, err, want)
		}
	}
	if x.opened != 1 || f.Openings() != 1 || f.Path() != path {
		t.Errorf("opened %d times, %d, at %s", x.opened, f.Openings(), f.Path())
	}
	_ = f.Close()
	if x.handles != 0 {
		t.Error("Close leaves it open")
	}
}

func TestReasons(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "1\n")
	for name, c := range map[string]struct {
		open, read error
		want       error
		kept       bool // open, for the next reading
	}{
		"permission":  {open: syscall.EACCES, want: sensors.ErrPermission},
		"not there":   {open: syscall.ENOENT, want: sensors.ErrLost},
		"too many":    {open: syscall.EMFILE, want: sensors.ErrTransient},
		"unplugged":   {read: syscall.ENODEV, want: sensors.ErrLost},
		"no address":  {read: syscall.ENXIO, want: sensors.ErrLost},
		"sleeps":      {read: syscall.ENODATA, want: sensors.ErrTransient, kept: true},
		"busy":        {read: syscall.EAGAIN, want: sensors.ErrTransient, kept: true},
		"invalid":     {read: syscall.EINVAL, want: sensors.ErrTransient, kept: true},
		"bus error":   {read: syscall.EIO, want: sensors.ErrTransient, kept: true},
		"not offered": {read: syscall.EOPNOTSUPP, want: sensors.ErrTransient, kept: true},
		// Who may read was decided when it was opened.
		"driver's permission": {read: syscall.EPERM, want: sensors.ErrTransient, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			x := &faults{open: c.open, read: c.read}
			f := New(fixed(path), 16, x.openFile)
			_, err := f.Text(start)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want %v and the path", err, c.want)
			}
			if open := x.handles > 0; open != c.kept {
				t.Errorf("open %v, want %v", open, c.kept)
			}
			x.open, x.read = nil, nil
			if _, err := f.Text(start.Add(time.Minute)); err != nil {
				t.Errorf("after it has passed: %v", err)
			}
		})
	}
}

func TestALostFileIsLookedForEverLessOften(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "1\n")
	x := &faults{}
	f := New(fixed(path), 16, x.openFile)
	if _, err := f.Uint(start); err != nil {
		t.Fatal(err)
	}
	x.read, x.open = syscall.ENODEV, syscall.ENOENT
	opened := x.opened
	var tries []int
	var last error
	for s := range 200 {
		before := x.opened
		_, err := f.Uint(start.Add(time.Duration(s) * time.Second))
		if !errors.Is(err, sensors.ErrLost) {
			t.Fatalf("second %d: %v", s, err)
		}
		if x.opened > before {
			tries = append(tries, s)
		}
		last = err
	}
	want := []int{1, 3, 7, 15, 31, 63, 123, 183}
	if len(tries) != len(want) {
		t.Fatalf("tries at %v, want %v", tries, want)
	}
	for i := range want {
		if tries[i] != want[i] {
			t.Fatalf("tries at %v, want %v", tries, want)
		}
	}
	if x.opened != opened+len(want) || last == nil {
		t.Errorf("opened %d times", x.opened-opened)
	}
	x.read, x.open = nil, nil
	if n, err := f.Uint(start.Add(243 * time.Second)); n != 1 || err != nil || f.Openings() != 2 {
		t.Errorf("back: %d %v, opened %d times", n, err, f.Openings())
	}
	// The next loss begins with a second again.
	x.read = syscall.ENODEV
	at := start.Add(300 * time.Second)
	_, _ = f.Uint(at)
	x.read = nil
	if _, err := f.Uint(at.Add(time.Second)); err != nil || f.Openings() != 3 {
		t.Errorf("lost again: %v", err)
	}
}

func TestItFollowsARenamedDevice(t *testing.T) {
	dir := t.TempDir()
	number := 3
	find := func() (string, error) { return filepath.Join(dir, strconv.Itoa(number)), nil }
	write(t, filepath.Join(dir, "3"), "1\n")
	write(t, filepath.Join(dir, "7"), "2\n")
	f, err := OpenFunc(find, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, filepath.Join(dir, "3"), "") // as if it were gone
	number = 7
	if _, err := f.Uint(start); !errors.Is(err, sensors.ErrLost) {
		t.Errorf("%v", err)
	}
	if n, err := f.Uint(start.Add(time.Second)); n != 2 || err != nil || f.Path() != filepath.Join(dir, "7") {
		t.Errorf("%d %v at %s", n, err, f.Path())
	}
}

func TestOpenSaysWhy(t *testing.T) {
	if f, err := Open(filepath.Join(t.TempDir(), "none")); f != nil || !errors.Is(err, sensors.ErrLost) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v %v", f, err)
	}
	if f, err := Open(t.TempDir()); f == nil || !errors.Is(err, sensors.ErrTransient) {
		t.Errorf("a file that cannot be read now: %v %v", f, err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "-123456\n")
	x := &faults{}
	for name, fault := range map[string]error{"number": nil, "asleep": syscall.ENODATA, "refused": syscall.EPERM, "lost": syscall.ENODEV} {
		f := New(fixed(path), 16, x.openFile)
		x.read = nil
		_, _ = f.Int(start)
		x.read = fault
		_, _ = f.Int(start)
		if n := testing.AllocsPerRun(100, func() { _, _ = f.Int(start) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "0", "12\n", "-5", "18446744073709551616", "9223372036854775808", "-9223372036854775808", "1 J", "--1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		digits := 0
		for digits < len(text) && text[digits] >= '0' && text[digits] <= '9' {
			digits++
		}
		want, err := strconv.ParseUint(string(text[:digits]), 10, 64)
		n, rest, ok := ParseUint(text)
		if ok != (err == nil) || ok && (n != want || string(rest) != string(text[digits:])) {
			t.Errorf("%q: %d %q %v, want %d %v", text, n, rest, ok, want, err)
		}
		i, rest, ok := ParseInt(text)
		if !ok {
			return
		}
		back := strconv.FormatInt(i, 10)
		got := strings.TrimLeft(strings.TrimPrefix(string(text[:len(text)-len(rest)]), "-"), "0")
		if got != strings.TrimPrefix(back, "-") && (i != 0 || got != "") {
			t.Errorf("%q: %d", text, i)
		}
		if (i < 0) != (text[0] == '-' && i != 0) {
			t.Errorf("%q: the sign of %d", text, i)
		}
	})
}
