package command

import "sync"

// children are the processes that this package has started and that nobody is
// known to have reaped.
var children struct {
	mu   sync.Mutex
	pids map[int]bool
}

// Children appends the numbers of the processes that this package has started
// and that may still run. A program that counts what its children use leaves
// these out.
func Children(pids []int) []int {
	children.mu.Lock()
	defer children.mu.Unlock()
	for pid := range children.pids {
		pids = append(pids, pid)
	}
	return pids
}

// Reaped is called by a program that reaps all its children, with the number of
// one. It reports whether this package had started it.
func Reaped(pid int) bool {
	children.mu.Lock()
	defer children.mu.Unlock()
	ours := children.pids[pid]
	delete(children.pids, pid)
	return ours
}

func born(pid int) {
	children.mu.Lock()
	defer children.mu.Unlock()
	if children.pids == nil {
		children.pids = map[int]bool{}
	}
	children.pids[pid] = true
}
