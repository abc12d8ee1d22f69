//go:build unix

package main

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// caught are the signals that somebody may send to the runner and mean the
// command. Those that nobody can catch do not reach it, and those that the
// runner stops for when it writes to the terminal are its own.
var caught = []os.Signal{
	syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT,
}

// terminal is the controlling terminal of this process, if it has one.
type terminal struct {
	file    *os.File     // nil where there is none
	suspend atomic.Int64 // when its keyboard last asked to stop, as UnixNano
}

func openTerminal() *terminal {
	f, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &terminal{}
	}
	return &terminal{file: f}
}

func (t *terminal) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}

// foreground reports whether this process is in the terminal's foreground group:
// the command, which was started into the same group, then gets what the
// keyboard sends by itself.
func (t *terminal) foreground() bool {
	if t.file == nil {
		return false
	}
	group, err := unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// background reports whether the terminal belongs to another group now: to a
// shell under the runner, for example.
func (t *terminal) background() bool { return t.file != nil && !t.foreground() }

// catch makes the signals that mean the command arrive at the runner. One that
// was ignored when the runner was started is ignored by the command too, which is
// what nohup is about: it stays so until born is called, after the command's
// start. From then on it is forwarded, as the command may have other ideas.
//
// A pipe that nobody reads any more must not end the runner, nor anything else
// that goes wrong with its own few lines: SIGPIPE is taken and not released.
func catch() (signals chan os.Signal, born, release func()) {
	signals = make(chan os.Signal, 32)
	pipes := make(chan os.Signal, 1)
	for _, s := range append(caught, syscall.SIGPIPE) {
		switch {
		case ignoredAtStart(s.(syscall.Signal)):
			signal.Ignore(s)
		case s == syscall.SIGPIPE:
			signal.Notify(pipes, s)
		default:
			signal.Notify(signals, s)
		}
	}
	born = func() {
		signal.Notify(signals, caught...)
		signal.Notify(pipes, syscall.SIGPIPE)
	}
	return signals, born, func() { signal.Stop(signals) }
}

// pass hands the signals on to the command until done is closed, but not those
// that the terminal has sent to it already. Of an interrupt in the foreground
// nobody can say whether the keyboard sent it or kill(1), which is why the
// keyboard has it.
func (t *terminal) pass(signals <-chan os.Signal, j *job, done <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH:
				if t.foreground() {
					if s == syscall.SIGTSTP {
						t.suspend.Store(time.Now().UnixNano())
					}
					continue
				}
			}
			j.signal(s.(syscall.Signal))
		case <-done:
			return
		}
	}
}

// stopped follows the command when the keyboard stops it, so that the shell gets
// the prompt back; the shell continues both. Some programs tidy up first and then
// stop themselves with SIGSTOP. A command that somebody else stops so is measured
// on: who continues it does not know of the runner. For reading or writing in the
// background the kernel stops the whole group, the runner with it.
func (t *terminal) stopped(s syscall.Signal) {
	const tidying = 5 * time.Second
	asked := time.Since(time.Unix(0, t.suspend.Load())) < tidying
	// A shell with job control makes its job a group of its own. In a script
	// nobody would continue the runner.
	job := s == syscall.SIGTSTP && unix.Getpgrp() == os.Getpid()
	if t.file != nil && (asked && (s == syscall.SIGTSTP || s == syscall.SIGSTOP) || job) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
}
