package keptfile

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// fd is a kept-open file. It goes past os.File because a pread of its own costs
// little more than the system call, and this is the whole cost of a sample.
type fd int

// OpenHandle opens a file to be read by one system call at a time, for a caller that
// keeps it itself. The error is an fs.PathError.
func OpenHandle(path string) (Handle, error) {
	for {
		n, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd(n), nil
		case unix.EINTR:
		default:
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func (f fd) Pread(buf []byte) (int, error) {
	for {
		n, err := unix.Pread(int(f), buf, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (f fd) Close() error { return unix.Close(int(f)) }
