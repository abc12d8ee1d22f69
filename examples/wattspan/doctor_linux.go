package main

import (
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// accountingHere returns how the runner would count the processes of a job, and
// why not by a control group of the job's own where it is not that.
func accountingHere() (kind string, why error) {
	j := newJob()
	defer func() { _ = j.close() }()
	return j.Accounting(), j.why
}

// deviceFile describes a device file; ok is false where there is none.
func deviceFile(path string) (d deviceNode, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		return deviceNode{}, false
	}
	d = deviceNode{path: path, open: unix.Access(path, unix.R_OK|unix.W_OK) == nil}
	if stat, is := info.Sys().(*syscall.Stat_t); is {
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(stat.Gid), 10)); err == nil && info.Mode().Perm()&0o060 == 0o060 {
			d.group = g.Name
		}
	}
	return d, true
}
