//go:build unix && !linux

package main

import (
	"syscall"
	"time"

	"github.com/wattspan/wattspan/sensors"
	commandmeter "github.com/wattspan/wattspan/sensors/command"
	"github.com/wattspan/wattspan/tracker"
)

// accounts says what the job has used: here only what the system bills to a
// process once it has been waited for, with the descendants it has waited for.
type accounts struct{}

func (*accounts) open() {}

func (*accounts) birth(fork func(*syscall.SysProcAttr) error) error {
	return fork(&syscall.SysProcAttr{})
}

func (*accounts) usage(ended func() time.Duration) (tracker.Usage, error) {
	return tracker.Usage{CPU: ended()}, nil
}

func (*accounts) finish() {}

// foreign reports whether a process that has been reaped is none of the job's: a
// program that reads the node's meter.
func (*accounts) foreign(pid int) bool { return commandmeter.Reaped(pid) }

func (*accounts) close() error { return nil }

// Accounting implements tracker.JobMeter.
func (*accounts) Accounting() string { return tracker.AccountingProcess }

func withPidfd(*syscall.SysProcAttr, *int) {}

func sendByPidfd(int, syscall.Signal) error { return sensors.ErrUnsupported }
