package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wattspan/wattspan/tracker"
)

// reportPatience is how long a pipe may take to be read.
const reportPatience = 5 * time.Second

// writeJSON writes the report where the user wants it. What cannot be written
// there, which may be the account of weeks, is kept elsewhere; the error says so.
func writeJSON(path string, report tracker.Report, stdout io.Writer) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("the report was not written: %w", err)
	}
	data = append(data, '\n')
	if path == "-" {
		_, err = stdout.Write(data)
	} else {
		err = writeReport(path, data)
	}
	if err == nil {
		return nil
	}
	kept, err2 := os.CreateTemp("", "wattspan-*.json")
	if err2 == nil {
		_, err2 = kept.Write(data)
		err2 = errors.Join(err2, kept.Close())
	}
	if err2 != nil {
		return fmt.Errorf("the report was not written: %w; nor elsewhere: %w", err, err2)
	}
	return fmt.Errorf("the report was not written: %w; it is in %s", err, kept.Name())
}

// writeReport writes to a file: a regular one is replaced as a whole, so that it
// is never half a report, anything else is written to.
func writeReport(path string, data []byte) error {
	target, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		target = path
	case err != nil:
		return err
	}
	mode := fs.FileMode(0)
	switch info, err := os.Stat(target); {
	case err == nil && (!info.Mode().IsRegular() || isSystem(path)):
		return writeInPlace(path, data)
	case err == nil:
		mode = info.Mode().Perm()
	case isSystem(path):
		return writeInPlace(path, data)
	}
	return replace(target, data, mode)
}

// isSystem reports whether a path is one by which the system lends what is no
// file of the user's: /dev/stdout, /dev/fd/7, /proc/self/fd/1.
func isSystem(path string) bool {
	full, err := filepath.Abs(path)
	return err == nil && (strings.HasPrefix(full, "/dev/") || strings.HasPrefix(full, "/proc/"))
}

// writeInPlace writes to a pipe or a device. A pipe that nobody reads is an error
// at once, and one that somebody forgot to read is one soon.
func writeInPlace(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|nonBlocking, 0)
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("nobody reads %s", path)
	}
	if err != nil {
		return err
	}
	_ = f.SetWriteDeadline(time.Now().Add(reportPatience)) // where it can be
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// replace writes a file completely or not at all. A new one has the permissions
// that the umask leaves.
func replace(path string, data []byte, mode fs.FileMode) error {
	dir, base := filepath.Split(path)
	tmp, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf(".%s.%d", base, os.Getpid())), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if mode != 0 {
		err = errors.Join(err, tmp.Chmod(mode))
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
