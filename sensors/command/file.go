package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// mostFile is more than any meter has to say, in bytes: what is larger is a log.
const mostFile = 64 << 10

// file reads a file that another program writes. It is for one goroutine at a
// time.
type file struct {
	path string
	now  func() time.Time

	fifo    *fifo
	last    string        // what the file held
	lasting chan struct{} // closed when a read has ended that was given up
}

// read reads in a goroutine that can be left behind: a file of a network that has
// gone holds its reader for ever.
func (f *file) read(ctx context.Context) (string, error) {
	if f.lasting != nil {
		select {
		case <-f.lasting:
			f.lasting = nil
		default:
			return "", fmt.Errorf("%w: %s does not answer", sensors.ErrTimeout, f.path)
		}
	}
	var text string
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, err = f.content(ctx)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		// A FIFO gives up by itself, at the same moment.
		select {
		case <-done:
		case <-time.After(pause):
			f.lasting = done
			return "", fmt.Errorf("%w: %s does not answer", sensors.ErrTimeout, f.path)
		}
	}
	return text, err
}

func (f *file) content(ctx context.Context) (string, error) {
	if f.fifo != nil {
		return f.fifo.line(ctx)
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return "", fault(err)
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeNamedPipe != 0:
		if f.fifo, err = openFIFO(f.path, f.now); err != nil {
			return "", fault(err)
		}
		return f.fifo.line(ctx)
	case !mode.IsRegular():
		return "", fmt.Errorf("%w: %s is neither a file nor a FIFO", sensors.ErrUnsupported, f.path)
	case info.Size() > mostFile:
		return "", fmt.Errorf("%w: %s has %d bytes, and a meter's value has not; of a log: command:tail -n 1 %s", sensors.ErrUnsupported, f.path, info.Size(), f.path)
	}
	text, err := beginning(f.path)
	if err != nil {
		return "", fault(err)
	}
	if age := f.now().Sub(info.ModTime()); age > stale && !kernels(f.path) {
		return "", fmt.Errorf("%w: nobody has written %s for %v", sensors.ErrTimeout, f.path, age.Round(time.Second))
	}
	if strings.HasSuffix(f.last, "\n") && len(text) > len(f.last) && strings.HasPrefix(text, f.last) {
		return "", fmt.Errorf("%w: %s is a log, whose first line gets old; use command:tail -n 1 %s", sensors.ErrUnsupported, f.path, f.path)
	}
	f.last = text
	return text, nil
}

func beginning(path string) (string, error) {
	in, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, mostFile))
	return string(text), err
}

// kernels reports whether a file is one of the kernel's, which is made when it is
// read and has no time.
func kernels(path string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	path, _ = filepath.Abs(path)
	return strings.HasPrefix(path, "/sys/") || strings.HasPrefix(path, "/proc/")
}

func fault(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", sensors.ErrPermission, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", sensors.ErrLost, err)
	}
	return fmt.Errorf("%w: %w", sensors.ErrTransient, err)
}

func (f *file) close() error {
	if f.fifo == nil || f.lasting != nil {
		return nil
	}
	return f.fifo.Close()
}
