package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// process reads /proc/PID/stat through a kept descriptor, which stands for the
// process that was opened: once that is gone, reading gives ESRCH even if its
// number is used again.
type process struct {
	file kept
	lost error
	// The times lie in the first 17 fields.
	buf [512]byte
}

func openProcess(pid int) (process, error) {
	if pid <= 0 {
		return process{}, fmt.Errorf("host: process %d: %w", pid, sensors.ErrLost)
	}
	lost := fmt.Errorf("host: process %d has ended: %w", pid, sensors.ErrLost)
	f, err := open("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) {
		return process{}, lost
	}
	if err != nil {
		return process{}, fmt.Errorf("host: process %d: %w", pid, err)
	}
	return process{file: f, lost: lost}, nil
}

func (p *process) read() (time.Duration, error) {
	n, err := p.file.pread(p.buf[:])
	switch {
	case err == unix.ESRCH:
		return 0, p.lost
	case err != nil:
		return 0, p.file.failed(err)
	}
	used, ok := parseProcessStat(p.buf[:n])
	if !ok {
		return 0, p.file.failed(errMalformed)
	}
	return used, nil
}

func (p *process) close() error { return p.file.close() }

// parseProcessStat adds utime, stime, cutime and cstime, the fields 14 to 17 of
// "pid (comm) state ppid …". comm is whatever the process calls itself, spaces
// and parentheses included, so that counting starts behind the last one.
func parseProcessStat(text []byte) (time.Duration, bool) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return 0, false
	}
	rest := text[end+1:]
	for range 11 { // state to cmajflt, of which some are negative
		rest = bytes.TrimLeft(rest, " ")
		space := bytes.IndexByte(rest, ' ')
		if space <= 0 {
			return 0, false
		}
		rest = rest[space:]
	}
	var sum uint64
	for range 4 {
		v, after, ok := number(rest)
		// A number that ends with the text may have been cut off.
		if !ok || len(after) == 0 {
			return 0, false
		}
		sum, rest = sum+v, after
	}
	if sum > uint64(1<<63-1)/uint64(statUnit) {
		return 0, false
	}
	return time.Duration(sum) * statUnit, true
}
