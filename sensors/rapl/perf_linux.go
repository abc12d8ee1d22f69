package rapl

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// perfEvent is the file descriptor of an event.
type perfEvent int

// openEvent opens an event that counts all that happens on a processor, from now
// on. Nothing may be excluded from it: the PMU cannot tell users and kernel apart.
func openEvent(kind uint32, config uint64, cpu int) (eventFile, error) {
	attr := unix.PerfEventAttr{
		Type: kind, Config: config,
		Size:        uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Read_format: unix.PERF_FORMAT_TOTAL_TIME_RUNNING,
	}
	for {
		n, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		switch err {
		case nil:
			return perfEvent(n), nil
		case unix.EINTR:
		default:
			return nil, err
		}
	}
}

func (f perfEvent) read(buf []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (f perfEvent) Close() error { return unix.Close(int(f)) }
