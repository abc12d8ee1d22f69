//go:build unix

package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// fifo is a FIFO that is held open, for writing too: whoever writes into it is not
// killed between two readings, and one that ends is not the end of the file.
type fifo struct {
	*os.File
	now  func() time.Time
	last string    // the last whole line
	at   time.Time // when it was read
	rest string    // of a line that has not ended
}

func openFIFO(path string, now func() time.Time) (*fifo, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return &fifo{File: f, now: now}, nil
}

// line takes all that has been written and returns the last whole line. Where
// there has been none yet it waits for one.
func (f *fifo) line(ctx context.Context) (string, error) {
	f.drain(time.Now().Add(time.Millisecond))
	if f.at.IsZero() {
		deadline, _ := ctx.Deadline()
		stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
		f.drain(deadline)
		stop()
	}
	switch age := f.now().Sub(f.at); {
	case f.at.IsZero():
		return "", fmt.Errorf("%w: nobody has written a line into %s", sensors.ErrTimeout, f.Name())
	case age > stale:
		return "", fmt.Errorf("%w: nobody has written into %s for %v", sensors.ErrTimeout, f.Name(), age.Round(time.Second))
	}
	return f.last, nil
}

// drain reads until there is nothing more, or for a first line until the deadline.
func (f *fifo) drain(deadline time.Time) {
	var buf [4096]byte
	waiting := f.at.IsZero()
	_ = f.SetReadDeadline(deadline)
	for {
		n, err := f.Read(buf[:])
		if err != nil || n == 0 {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.EAGAIN) {
				time.Sleep(time.Millisecond) // whatever it is, not in a tight loop
			}
			return
		}
		f.rest += string(buf[:n])
		if i := strings.LastIndexByte(f.rest, '\n'); i >= 0 {
			whole := strings.TrimRight(f.rest[:i], "\n")
			f.rest = f.rest[i+1:]
			if line := whole[strings.LastIndexByte(whole, '\n')+1:]; strings.TrimSpace(line) != "" {
				f.last, f.at = line, f.now()
			}
		}
		if len(f.rest) > mostFile {
			f.rest = ""
		}
		if waiting && !f.at.IsZero() {
			return
		}
	}
}
