//go:build unix

package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func shell(line string) []string { return []string{"/bin/sh", "-c", line} }

// wrapper runs the program, and tells how it ended through a pipe: whoever reaps
// all children of this process may take its status. Then it ends what the program
// has left running, itself included, while their group is certainly theirs.
// The same happens where this process is killed: then fd 4 ends.
const wrapper = `(read _ <&4; kill -KILL 0) >/dev/null 2>&1 3>&- & "$@" 3>&- 4<&-; echo $? >&3; kill -KILL 0`

const (
	mostOutput = 64 << 10
	// grace is how long the rest of the output may take once the program has
	// ended: only what left its session can still hold the pipe.
	grace = 500 * time.Millisecond
)

// program runs a program once for each reading. It is for one goroutine at a time.
type program struct {
	argv    []string
	last    int           // the number of the last process
	lasting chan struct{} // closed when a process has gone that outlived its end
}

func (p *program) read(ctx context.Context) (string, error) {
	if p.lasting != nil {
		select {
		case <-p.lasting:
			p.lasting = nil
		default:
			return "", fmt.Errorf("%w: the program was killed and has not ended (process %d)", sensors.ErrTimeout, p.last)
		}
	}
	// Who reaped it has asked by now.
	Reaped(p.last)

	out, outW, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("%w: %w", sensors.ErrTransient, err)
	}
	defer out.Close()
	defer outW.Close()
	complaint, complaintW, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("%w: %w", sensors.ErrTransient, err)
	}
	defer complaint.Close()
	defer complaintW.Close()
	status, statusW, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("%w: %w", sensors.ErrTransient, err)
	}
	defer status.Close()
	defer statusW.Close()
	alive, aliveW, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("%w: %w", sensors.ErrTransient, err)
	}
	defer alive.Close()
	defer aliveW.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return "", fmt.Errorf("%w: %w", sensors.ErrTransient, err)
	}
	defer null.Close()

	process, err := os.StartProcess("/bin/sh", append([]string{"sh", "-c", wrapper, "sh"}, p.argv...), &os.ProcAttr{
		Env:   append(os.Environ(), "LC_ALL=C"),
		Files: []*os.File{null, outW, complaintW, statusW, alive},
		// A session of its own: no terminal to ask a password of, no signal from
		// the keyboard, and a group that can be killed as one.
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", sensors.ErrUnsupported, err)
	}
	p.last = process.Pid
	born(p.last)
	for _, w := range []*os.File{outW, complaintW, statusW} {
		_ = w.Close()
	}

	var text, words string
	var reading sync.WaitGroup
	reading.Go(func() { text = first(out) })
	reading.Go(func() { words = first(complaint) })
	stop := context.AfterFunc(ctx, func() { _ = status.SetReadDeadline(time.Unix(1, 0)) })
	code, _ := io.ReadAll(io.LimitReader(status, 16))
	stop()
	if !strings.HasSuffix(string(code), "\n") {
		// The shell has not said that the program ended: it runs, or was killed
		// this very moment, so that the number is still its group's.
		_ = syscall.Kill(-p.last, syscall.SIGKILL)
	}
	end := time.Now().Add(grace)
	_ = out.SetReadDeadline(end)
	_ = complaint.SetReadDeadline(end)
	reading.Wait()
	p.reap(process)

	switch code := strings.TrimSpace(string(code)); {
	case ctx.Err() != nil && code == "":
		return "", fmt.Errorf("%w: the program did not end, and was killed", sensors.ErrTimeout)
	case code == "":
		return "", fmt.Errorf("%w: the program was killed", sensors.ErrTransient)
	case code != "0":
		return "", refuse(words+" "+text, "the program failed with code "+code)
	}
	return text, nil
}

// reap waits for the process, which has been killed, unless somebody else has
// done so. One that the kernel holds is left behind.
func (p *program) reap(process *os.Process) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if _, err := process.Wait(); err == nil {
			Reaped(process.Pid)
			return
		}
		_ = process.Release() // it was somebody else's to reap
	}()
	select {
	case <-gone:
	case <-time.After(time.Second):
		p.lasting = gone
	}
}

func (p *program) close() error {
	if p.lasting == nil {
		Reaped(p.last)
	}
	return nil
}

// first reads all that comes, and keeps the beginning: a program must not stand
// still because nobody reads on.
func first(r io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(r, mostOutput))
	_, _ = io.Copy(io.Discard, r)
	return string(text)
}
