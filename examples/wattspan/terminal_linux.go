package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// ignoredAtStart reports whether a signal is ignored by this process. Go's own
// Ignored knows of SIGHUP and SIGINT only; of those that Go has handlers for from
// the beginning, such as SIGQUIT and SIGPIPE, nobody can tell any more.
func ignoredAtStart(s syscall.Signal) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	_, rest, found := bytes.Cut(status, []byte("\nSigIgn:\t"))
	mask, _, _ := bytes.Cut(rest, []byte("\n"))
	bits, err := strconv.ParseUint(string(mask), 16, 64)
	return found && err == nil && bits&(1<<(s-1)) != 0
}
