//go:build !linux

package host

// InitialPIDNamespace reports whether process numbers here are those of the whole
// machine, as drivers tell them, and not of a container.
func InitialPIDNamespace() bool { return true }
