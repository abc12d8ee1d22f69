//go:build !cgo

package main

// cgo is whether this program contains the NVML back-end.
const cgo = false
