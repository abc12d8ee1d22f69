package host

import "os"

// InitialPIDNamespace reports whether process numbers here are those of the whole
// machine, as drivers tell them, and not of a container.
func InitialPIDNamespace() bool {
	// The inode of the initial namespace is a constant of the kernel,
	// PROC_PID_INIT_INO.
	name, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && name == "pid:[4026531836]"
}
