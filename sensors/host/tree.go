package host

import "time"

// Tree reads what the descendants of a process use while they live, whatever
// depth they are at. It is for one goroutine at a time.
type Tree struct{ tree tree }

// TreeUsage is what the living descendants of a process use.
type TreeUsage struct {
	// CPU is the time in user and kernel mode of the descendants, with that of
	// their own children which have ended and been waited for. It falls when a
	// descendant ends, as its time then belongs to whoever waits for it.
	CPU time.Duration
	// Memory is the resident memory that no other process shares, in bytes.
	Memory uint64
	// Processes is how many descendants there are.
	Processes int
}

// OpenTree opens the tree of the descendants of a process, which itself is not
// in it. On Linux it is read from the real /proc, whatever [sensors.Roots] say,
// and without what /proc hides from this user. The error wraps
// [sensors.ErrLost] where there is no such process, and
// [sensors.ErrUnsupported] where the system offers no reading.
func OpenTree(pid int) (*Tree, error) {
	t, err := openTree(pid)
	if err != nil {
		return nil, err
	}
	return &Tree{tree: t}, nil
}

// Read walks the tree. No time is counted twice in a walk, but time that moves
// while it lasts, from a process that ends to the one that waits for it, may be
// missed once: who wants a sum that never falls keeps the maximum.
//
// A child of the process itself that has ended and waits to be reaped is left
// out, since wait4 tells whoever reaps it the exact time. Who adds the two reads
// the sum of the reaped before the walk: a child that is reaped in between is
// then missed, and not counted twice.
//
// With an error the usage is that of the last walk; once the process has gone,
// the error wraps [sensors.ErrLost].
func (t *Tree) Read() (TreeUsage, error) { return t.tree.read() }

// Refresh is Read at a fraction of its cost, for those between two of them: it
// counts the processes of the last walk and what their first threads have begun
// since. What began otherwise is left to the next Read, as a process that is not
// counted yet; Memory is that of the last Read for those it had counted. It opens
// nothing and lists no directory as long as the processes are the same, up to a
// number of them that depends on the limit of descriptors and is at most 128.
//
// Where that would not do it walks as Read does: for the first time, when a
// process of the last walk had ended, after an error and after Except.
func (t *Tree) Refresh() (TreeUsage, error) { return t.tree.refresh() }

// Except leaves processes out from now on, with their descendants, and none but
// these: those that a process had before it began what is to be counted.
func (t *Tree) Except(pids ...int) { t.tree.exclude(pids) }

// PIDs returns the numbers of the processes that the last walk counted, parents
// before their children. The next Read uses the slice again.
func (t *Tree) PIDs() []int { return t.tree.pids }

// Close releases the tree.
func (t *Tree) Close() error { return t.tree.close() }
