package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// statUnit is USER_HZ, which is 100 for every user program whatever HZ the
// kernel was built with.
const statUnit = 10 * time.Millisecond

var errMalformed = fmt.Errorf("unexpected format: %w", sensors.ErrTransient)

// stat reads the first line of /proc/stat through a descriptor that stays open:
// the kernel renders the file anew for a read at its beginning.
type stat struct {
	file kept
	// The line has ten numbers of up to twenty digits.
	buf [256]byte
}

func openStat(roots sensors.Roots) (stat, error) {
	f, err := open(filepath.Join(roots.Proc, "stat"))
	return stat{file: f}, err
}

func (s *stat) read() (ticks, error) {
	return parsed(&s.file, s.buf[:], parseStat)
}

func (s *stat) close() error { return s.file.close() }

func (s *stat) name() string { return s.file.path }

// parseStat reads "cpu  user nice system idle iowait irq softirq steal guest
// guest_nice"; old kernels end earlier. It wants the whole line, since a number
// that is cut off looks like a smaller one.
func parseStat(text []byte) (ticks, bool) {
	end := bytes.IndexByte(text, '\n')
	if end < 0 || !bytes.HasPrefix(text, []byte("cpu ")) {
		return ticks{}, false
	}
	const idle, iowait, steal = 3, 4, 7
	var t ticks
	field, rest := 0, text[len("cpu "):end]
	for ; field <= steal; field++ {
		v, after, ok := number(rest)
		if !ok {
			break
		}
		rest = after
		t.total += v
		if field != idle && field != iowait && field != steal {
			t.busy += v
		}
	}
	return t, field > idle
}

// number reads a decimal after spaces. It refuses what leaves no room to add
// eight of them.
func number(text []byte) (v uint64, rest []byte, ok bool) {
	i := 0
	for i < len(text) && text[i] == ' ' {
		i++
	}
	start := i
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		if v = v*10 + uint64(text[i]-'0'); v >= 1<<60 {
			return 0, nil, false
		}
	}
	return v, text[i:], i > start
}

// kept is a file of procfs that stays open. It is a bare descriptor, as an
// os.File costs twice the time to read.
type kept struct {
	path string
	fd   int
}

func open(path string) (kept, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return kept{}, sentinel(&fs.PathError{Op: "open", Path: path, Err: err})
		}
		return kept{path: path, fd: fd}, nil
	}
}

func (k *kept) pread(buf []byte) (int, error) {
	for {
		n, err := unix.Pread(k.fd, buf, 0)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// parsed reads the file into buf and parses it.
func parsed[T any](k *kept, buf []byte, parse func(text []byte) (T, bool)) (T, error) {
	var none T
	n, err := k.pread(buf)
	if err != nil {
		return none, k.failed(err)
	}
	v, ok := parse(buf[:n])
	if !ok {
		return none, k.failed(errMalformed)
	}
	return v, nil
}

func (k *kept) failed(err error) error {
	return fmt.Errorf("host: read %s: %w", k.path, errors.Join(err, sensors.ErrTransient))
}

func (k *kept) close() error { return unix.Close(k.fd) }

// sentinel adds the reason that a user can act on to an error of open.
func sentinel(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.Join(err, sensors.ErrAbsent)
	case errors.Is(err, fs.ErrPermission):
		return errors.Join(err, sensors.ErrPermission)
	}
	return errors.Join(err, sensors.ErrTransient)
}
