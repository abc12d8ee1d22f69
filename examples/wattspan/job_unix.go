//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/tracker"
)

// job is the command that is run, with everything it starts. The runner is the
// one that waits for its processes, so that each is counted when it is reaped,
// exactly and once: os/exec must not wait for any beside it.
type job struct {
	accounts // what the job has used, as far as the system tells

	mu    sync.Mutex // between the signals and the end
	pid   int        // of the command; 0 before its start and after its end
	pidfd int        // a handle that cannot mean another process; -1 without
	reaps time.Duration
}

func newJob() *job {
	j := &job{pidfd: -1}
	j.open()
	return j
}

// start starts the command.
func (j *job) start(path string, argv, env []string) error {
	pid, pidfd := 0, -1
	fork := func(sys *syscall.SysProcAttr) (err error) {
		withPidfd(sys, &pidfd)
		attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: sys}
		pid, err = syscall.ForkExec(path, argv, attr)
		if errors.Is(err, syscall.ENOEXEC) {
			// A script that does not say by what: execvp gives it to the shell.
			pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", path}, argv[1:]...), attr)
		}
		return err
	}
	if err := j.birth(fork); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pid, j.pidfd = pid, pidfd
	return nil
}

// signal sends a signal to the command, if it runs.
func (j *job) signal(s syscall.Signal) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.pid == 0:
	case j.pidfd >= 0:
		_ = sendByPidfd(j.pidfd, s)
	default:
		_ = syscall.Kill(j.pid, s)
	}
}

// wait reaps every process of the job that is the runner's to reap, until the
// command itself has ended and nothing else is to be reaped at once: orphans that
// live on are counted, but not waited for.
func (j *job) wait(on *terminal) (ending, error) {
	main := j.pid
	for {
		var ws syscall.WaitStatus
		var used syscall.Rusage
		pid, err := syscall.Wait4(-1, &ws, syscall.WUNTRACED, &used)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return ending{}, fmt.Errorf("waiting for the command: %w", err)
		case ws.Stopped():
			if pid == main {
				on.stopped(ws.StopSignal())
			}
			continue
		}
		if pid != main {
			j.reaped(pid, &used)
			continue
		}
		j.mu.Lock()
		j.pid = 0
		if j.pidfd >= 0 {
			_ = unix.Close(j.pidfd)
			j.pidfd = -1
		}
		j.mu.Unlock()
		j.reaped(pid, &used)
		j.reapRest()
		j.finish()
		return ending{pid: pid, WaitStatus: ws}, nil
	}
}

// reapRest reaps what has ended by now.
func (j *job) reapRest() {
	for {
		var used syscall.Rusage
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, &used)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		j.reaped(pid, &used)
	}
}

// reaped counts a process that has been reaped, with the descendants that it has
// waited for itself.
func (j *job) reaped(pid int, used *syscall.Rusage) {
	if j.foreign(pid) {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reaps += time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// ended returns the CPU time of the processes that have been reaped.
func (j *job) ended() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reaps
}

// Read implements tracker.JobMeter.
func (j *job) Read() (tracker.Usage, error) { return j.usage(j.ended) }

// interrupted reports whether an interrupt ended the command. A shell that runs
// the runner in a loop ends the loop only if it sees that of the runner too.
func (e ending) interrupted() bool { return e.Signaled() && e.Signal() == syscall.SIGINT }

// dieOfInterrupt ends this process as an interrupt ended the command.
func dieOfInterrupt() {
	signal.Reset(syscall.SIGINT)
	_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
	time.Sleep(time.Second) // until it arrives
}

// ending is how the command ended.
type ending struct {
	pid int
	syscall.WaitStatus
}

// code returns the exit code as a shell has it.
func (e ending) code() int {
	if e.Signaled() {
		return 128 + int(e.Signal())
	}
	return e.ExitStatus()
}
