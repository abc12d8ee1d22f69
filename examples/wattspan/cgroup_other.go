//go:build !linux

package main

import (
	"fmt"
	"syscall"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// cgroup is not there, as only Linux has control groups.
type cgroup struct{}

func newCgroup() (*cgroup, error) {
	return nil, fmt.Errorf("no control group for the job: %w", sensors.ErrUnsupported)
}

func (*cgroup) start(fork func(*syscall.SysProcAttr) error) error {
	return fork(&syscall.SysProcAttr{})
}

func (*cgroup) clock() (*host.CgroupCPU, error) { return nil, sensors.ErrUnsupported }

func (*cgroup) close() error { return nil }
