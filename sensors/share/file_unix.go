//go:build linux || darwin

package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

const supported = true

var errUnsupported error // there is no such thing here

// file is the page's file. Its lock says who the owner is. It goes past os.File, as
// the system calls are the whole cost of a sample.
type file struct{ fd int }

// openFile opens the page of this boot of the machine in dir, and makes it where
// there is none. One file for each boot: what was there before a reboot is not even
// looked at, and machines that have the directory in common do not meet.
func openFile(dir string, id identity) (*file, error) {
	parent, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(parent) }()
	name := fmt.Sprintf("%s%d-%x", pagePrefix, version, id[:8])
	fd, err := retry(func() (int, error) {
		// Not blocking: a pipe of this name would wait for its other end.
		return unix.Openat(parent, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	})
	path := filepath.Join(dir, name)
	if err != nil {
		return nil, fmt.Errorf("share: %w: set %s to a directory that this user can write to, or to off",
			&os.PathError{Op: "open", Path: path, Err: err}, EnvShare)
	}
	f := &file{fd}
	if err := verify(fd, path, unix.S_IFREG); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// openDir opens a directory that is this user's own.
func openDir(dir string) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, fmt.Errorf("share: %w: set %s to a directory of this user's own, or to off",
			&os.PathError{Op: "open", Path: dir, Err: err}, EnvShare)
	}
	if err := verify(fd, dir, unix.S_IFDIR); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func verifyDir(dir string) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// verify checks that what is open is of this kind, belongs to this user, and can be
// written by nobody else.
func verify(fd int, path string, kind uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("share: %w", &os.PathError{Op: "stat", Path: path, Err: err})
	}
	mode := uint32(st.Mode)
	switch {
	case mode&unix.S_IFMT != kind:
		return fmt.Errorf("share: %s is no plain file or directory: %w", path, sensors.ErrPermission)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("share: %s belongs to user %d: set %s to a directory of this user's own, or to off: %w",
			path, st.Uid, EnvShare, sensors.ErrPermission)
	case mode&0o022 != 0:
		return fmt.Errorf("share: others can write to %s: chmod go-w %[1]s: %w", path, sensors.ErrPermission)
	}
	return nil
}

// retry repeats a system call that a signal has interrupted.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// lock tries to become the owner; it does not wait.
func (f *file) lock() (bool, error) {
	for {
		switch err := unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, fmt.Errorf("share: the file system of the directory has no locks: set %s to a local directory, or to off: %w",
				EnvShare, errors.Join(err, sensors.ErrUnsupported))
		}
	}
}

// unlock gives the lock back, also where a child that has not yet started its
// program holds the same open file.
func (f *file) unlock() { _ = unix.Flock(f.fd, unix.LOCK_UN) }

func (f *file) close() { _ = unix.Close(f.fd) }

// grow gives the file its size. It is never made smaller.
func (f *file) grow() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("share: %w", err)
	}
	if st.Size >= pageSize {
		return nil
	}
	if err := unix.Ftruncate(f.fd, pageSize); err != nil {
		return fmt.Errorf("share: the page cannot be made: %w: make room there, or set %s to another directory", err, EnvShare)
	}
	return nil
}

// readAt reads what there is, and returns how much. What cannot be read is not
// there: a page that is truncated costs a reading and not the process.
func (f *file) readAt(buf []byte, offset int64) int {
	n := 0
	for n < len(buf) {
		m, err := unix.Pread(f.fd, buf[n:], offset+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil || m <= 0:
			return n
		default:
			n += m
		}
	}
	return n
}

func (f *file) writeAt(buf []byte, offset int64) error {
	for len(buf) > 0 {
		n, err := unix.Pwrite(f.fd, buf, offset)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("share: the page cannot be written: %w: make room there, or set %s to another directory", err, EnvShare)
		default:
			buf, offset = buf[n:], offset+int64(n)
		}
	}
	return nil
}
