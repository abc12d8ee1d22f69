package host

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// cgroupClock reads cpu.stat of version 2 or cpuacct.usage of version 1.
type cgroupClock struct {
	file kept
	// parse is parseCPUStat or parseCPUAcct.
	parse func(text []byte) (time.Duration, bool)
	lost  error
	// The line that matters in cpu.stat is the first one.
	buf [512]byte
}

// openCgroupClock goes by what the files hold and not by their names: the cpu
// controller of version 1 has a cpu.stat as well, without the time.
func openCgroupClock(dir string) (cgroupClock, error) {
	reason := sensors.ErrUnsupported
	if err := unix.Access(dir, unix.F_OK); err == unix.ENOENT {
		reason = sensors.ErrAbsent
	}
	for _, form := range []struct {
		name  string
		parse func([]byte) (time.Duration, bool)
	}{{"cpu.stat", parseCPUStat}, {"cpuacct.usage", parseCPUAcct}} {
		f, err := open(filepath.Join(dir, form.name))
		switch {
		case errors.Is(err, sensors.ErrAbsent):
			continue
		case err != nil:
			return cgroupClock{}, fmt.Errorf("host: control group: %w", err)
		}
		c := cgroupClock{file: f, parse: form.parse,
			lost: fmt.Errorf("host: control group %s has been removed: %w", dir, sensors.ErrLost)}
		if _, err = c.read(); err == nil {
			return c, nil
		}
		_ = c.close()
		if !errors.Is(err, errMalformed) {
			return cgroupClock{}, err
		}
	}
	return cgroupClock{}, fmt.Errorf("host: control group %s has no processor time: %w", dir, reason)
}

func (c *cgroupClock) read() (time.Duration, error) {
	n, err := c.file.pread(c.buf[:])
	switch {
	case err == unix.ENODEV:
		return 0, c.lost
	case err != nil:
		return 0, c.file.failed(err)
	}
	used, ok := c.parse(c.buf[:n])
	if !ok {
		return 0, c.file.failed(errMalformed)
	}
	return used, nil
}

func (c *cgroupClock) close() error { return c.file.close() }

// parseCPUStat returns the line "usage_usec N". It is there without any
// controller since Linux 4.15.
func parseCPUStat(text []byte) (time.Duration, bool) {
	const name = "usage_usec "
	for len(text) > 0 && !bytes.HasPrefix(text, []byte(name)) {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return 0, false
		}
		text = text[end+1:]
	}
	if len(text) == 0 {
		return 0, false
	}
	return wholeLine(text[len(name):], time.Microsecond)
}

// parseCPUAcct reads a number of nanoseconds, alone on its line.
func parseCPUAcct(text []byte) (time.Duration, bool) { return wholeLine(text, time.Nanosecond) }

// wholeLine reads a line that is a number, and one that ends: cut off, a number
// looks like a smaller one. 512 processors fill 60 bits of nanoseconds in a
// month, so that it uses all 63.
func wholeLine(text []byte, unit time.Duration) (time.Duration, bool) {
	most := uint64(math.MaxInt64 / unit)
	var v uint64
	for i, c := range text {
		switch {
		case c == '\n':
			return time.Duration(v) * unit, i > 0
		case c < '0' || c > '9' || v > (most-uint64(c-'0'))/10:
			return 0, false
		}
		v = v*10 + uint64(c-'0')
	}
	return 0, false
}
