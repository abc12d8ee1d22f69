//go:build unix && !linux

package main

import (
	"syscall"
	"time"

	"github.com/wattspan/wattspan/sensors"
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

func (*accounts) foreign(int) bool { return false }

func (*accounts) close() error { return nil }

// Accounting implements tracker.JobMeter.
func (*accounts) Accounting() string { return tracker.AccountingProcess }

func withPidfd(*syscall.SysProcAttr, *int) {}

func sendByPidfd(int, syscall.Signal) error { return sensors.ErrUnsupported }
