//go:build unix

package main

import (
	"os"
	"syscall"
)

// forwarded are the signals that are passed on to the command.
var forwarded = []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

// fromTerminal are the signals that a terminal sends to every process in it, the
// command included, which decides what they mean.
var fromTerminal = []os.Signal{syscall.SIGINT, syscall.SIGQUIT}
