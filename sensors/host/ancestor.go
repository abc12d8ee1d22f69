package host

import "os"

// IsAncestor reports whether a process is an ancestor of this one. Where the
// system does not show the chain of parents, as Linux does, a process that is not
// the parent counts as none.
func IsAncestor(pid int) bool {
	const longest = 1000 // against a chain that changes while it is followed
	at := os.Getppid()
	for range longest {
		switch {
		case at == pid && pid > 0:
			return true
		case at <= 1:
			return false
		}
		at = parentOf(at)
	}
	return false
}
