//go:build unix && !linux

package main

import "syscall"

// ignoredAtStart is not told by these systems.
func ignoredAtStart(syscall.Signal) bool { return false }
