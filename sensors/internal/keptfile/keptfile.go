// Package keptfile reads small files of sysfs and procfs again and again, as
// back-ends do once a second for weeks: a file stays open, is read from its start
// by one system call, and nothing is allocated. Opening a file of sysfs takes three
// times as long as reading it.
//
//	f, err := keptfile.Open("/sys/class/hwmon/hwmon3/power1_input")
//	…
//	microwatts, err := f.Uint(now) // each tick
//
// A file whose device has gone is closed, and looked for again after 1, 2, 4 … 60
// seconds; see [File.Openings] for what a counter does then.
//
// Files are read on Linux only; elsewhere Open returns an error.
package keptfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"syscall"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// textSize is the room for a text. The longest number has 20 digits, and some
// files put a unit and a time behind it.
const textSize = 128

// A file that was lost is looked for again after a second, and then ever less
// often.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Handle is an open file.
type Handle interface {
	// Pread reads the file from its start.
	Pread(buf []byte) (int, error)
	Close() error
}

// File is a file that is kept open. It is used from one goroutine at a time.
type File struct {
	find func() (string, error)
	open func(path string) (Handle, error)

	path     string
	handle   Handle // nil while the file is lost
	buf      []byte
	openings int

	// The last failure, kept so that one which lasts costs nothing.
	err   error
	cause error

	retryAt time.Time
	retryIn time.Duration
}

// Open opens the file at path and reads it once, to know that it can be read.
// Errors wrap [sensors.ErrPermission], [sensors.ErrLost] or
// [sensors.ErrTransient], with the path and the cause. Of a file that is there and
// cannot be read now (ErrTransient) the File is returned with the error, and may
// be read later; with any other error it is nil.
func Open(path string) (*File, error) {
	return OpenFunc(func() (string, error) { return path, nil }, textSize)
}

// OpenFunc is Open for a file that find finds, now and each time it is lost: the
// number in /sys/class/hwmon/hwmon3 is another one after the driver was loaded
// again. At most size bytes are read of it.
func OpenFunc(find func() (string, error), size int) (*File, error) {
	f := New(find, size, nil)
	if _, err := f.Text(time.Time{}); err != nil {
		if errors.Is(err, sensors.ErrTransient) {
			return f, err
		}
		return nil, err
	}
	return f, nil
}

// New returns a File that is opened when it is first read, for one that must not
// be touched yet. open opens files, for tests; nil stands for the system.
func New(find func() (string, error), size int, open func(path string) (Handle, error)) *File {
	if open == nil {
		open = OpenHandle
	}
	return &File{find: find, open: open, buf: make([]byte, size)}
}

func (f *File) start() error {
	path, err := f.find()
	if err == nil {
		if path != f.path {
			f.path, f.cause = path, nil
		}
		f.handle, err = f.open(path)
	}
	if err != nil {
		f.handle = nil
		return f.fault(err)
	}
	f.openings++
	return nil
}

// Path returns where the file was last found.
func (f *File) Path() string { return f.path }

// Openings returns how often the file was opened: 1 until its device has gone and
// come back. What a counter did meanwhile is not known: where the number has
// changed since the last reading, [sensors.Counter.Rebase] comes first.
func (f *File) Openings() int { return f.openings }

// Text returns what the file holds, as it stands, until the next call. at is the
// time of the call; it says whether a lost file is due to be looked for again. A
// file that is lost gives the same error until then.
func (f *File) Text(at time.Time) ([]byte, error) {
	if f.handle == nil {
		if at.Before(f.retryAt) {
			return nil, f.err
		}
		if err := f.start(); err != nil {
			f.postpone(at)
			return nil, err
		}
	}
	n, err := f.handle.Pread(f.buf)
	if err == nil && n == 0 {
		// The kernel never shows an empty file: it is no longer the device's.
		err = errEmpty
	}
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			// Who may read a file is decided when it is opened. After that it is
			// a driver's way to say not now: amdgpu's of a GPU that sleeps or is
			// being reset.
			err = errRefused
		}
		err = f.fault(err)
		if errors.Is(err, sensors.ErrLost) {
			_ = f.Close()
			f.postpone(at)
		}
		return nil, err
	}
	f.retryIn = 0
	return f.buf[:n], nil
}

// Uint returns the number that is all the file holds, apart from white space
// behind it.
func (f *File) Uint(at time.Time) (uint64, error) {
	text, err := f.Text(at)
	if err != nil {
		return 0, err
	}
	n, rest, ok := ParseUint(text)
	if !ok || !blank(rest) {
		return 0, f.notANumber(text)
	}
	return n, nil
}

// Int is Uint for a number that can have a sign.
func (f *File) Int(at time.Time) (int64, error) {
	text, err := f.Text(at)
	if err != nil {
		return 0, err
	}
	n, rest, ok := ParseInt(text)
	if !ok || !blank(rest) {
		return 0, f.notANumber(text)
	}
	return n, nil
}

// Close closes the file. A File that is read after it opens itself again.
func (f *File) Close() error {
	if f.handle == nil {
		return nil
	}
	err := f.handle.Close()
	f.handle = nil
	return err
}

func (f *File) postpone(at time.Time) {
	f.retryIn = min(max(2*f.retryIn, firstRetry), lastRetry)
	f.retryAt = at.Add(f.retryIn)
}

var (
	errEmpty   = errors.New("the file is empty")
	errRefused = errors.New("the driver refuses it at the moment")
)

// fault gives a cause the file's path and the sentinel that says what can be done
// about it. A cause that has not changed gives the error it gave before.
func (f *File) fault(cause error) error {
	if f.same(cause) {
		return f.err
	}
	f.cause, f.err = cause, fmt.Errorf("%s: %w: %w", f.path, Sentinel(cause), cause)
	return f.err
}

// same reports whether a cause is the last one again: by its number, or one of
// this package's own. Others are made anew each time, and may not be comparable.
func (f *File) same(cause error) bool {
	switch cause := cause.(type) {
	case syscall.Errno:
		last, ok := f.cause.(syscall.Errno)
		return ok && last == cause
	default:
		return (cause == errEmpty || cause == errRefused) && f.cause == cause
	}
}

func (f *File) notANumber(text []byte) error {
	return fmt.Errorf("%s: %w: it holds %q, not a number", f.path, sensors.ErrTransient, text)
}

// Sentinel returns the error of package sensors that says what can be done about
// a failure of reading a file of the kernel: [sensors.ErrPermission],
// [sensors.ErrLost], or [sensors.ErrTransient] for all that may pass by itself,
// as a device that sleeps or is busy.
func Sentinel(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return sensors.ErrPermission
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV),
		errors.Is(err, syscall.ENXIO), errors.Is(err, errEmpty),
		errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EOPNOTSUPP):
		return sensors.ErrLost
	default:
		return sensors.ErrTransient
	}
}

// ParseUint reads the decimal number that text begins with, and returns what is
// behind it. It is strconv.ParseUint without the string, and so without the
// allocation.
func ParseUint(text []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(text) && '0' <= text[i] && text[i] <= '9'; i++ {
		d := uint64(text[i] - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, text, false
		}
		n = 10*n + d
	}
	if i == 0 {
		return 0, text, false
	}
	return n, text[i:], true
}

// ParseInt is ParseUint for a number that can have a minus sign.
func ParseInt(text []byte) (n int64, rest []byte, ok bool) {
	digits, limit := text, uint64(math.MaxInt64)
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		digits, limit = text[1:], limit+1
	}
	u, rest, ok := ParseUint(digits)
	if !ok || u > limit {
		return 0, text, false
	}
	if negative {
		return -int64(u), rest, true
	}
	return int64(u), rest, true
}

// blank reports whether text is white space.
func blank(text []byte) bool {
	for _, c := range text {
		if c != '\n' && c != ' ' && c != '\t' {
			return false
		}
	}
	return true
}
