//go:build unix && !cgo

package main

import (
	"bytes"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// ignoredAtStart reports whether a signal was ignored when this process was
// started, as far as it can be told without C: Go says it of SIGHUP and SIGINT,
// Linux of those that Go has no handler for, such as SIGTSTP. Of others, such as
// SIGTERM and SIGPIPE, nobody can tell once Go's handlers are there.
func ignoredAtStart(s syscall.Signal) bool {
	if signal.Ignored(s) {
		return true
	}
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, found := bytes.Cut(status, []byte("\nSigIgn:\t"))
	mask, _, _ := bytes.Cut(rest, []byte("\n"))
	bits, err := strconv.ParseUint(string(mask), 16, 64)
	return found && err == nil && bits&(1<<(s-1)) != 0
}
