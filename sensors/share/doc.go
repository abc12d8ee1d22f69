// Package share lets the trackers of one machine read its devices once. The ranks
// of torchrun or MPI, the tasks of Slurm, containers with a common directory: the
// first to come is the owner. It reads the hardware and publishes what it read in
// a page, a small file; the others follow it there.
//
// # Basics
//
// [Dir] finds the directory, [Join] joins those that are there:
//
//	dir, err := share.Dir(os.LookupEnv)
//	member, err := share.Join(ctx, dir, set, detect, share.Who{RunID: id, Interval: time.Second})
//	set = member.Set()          // to be read in the place of the own set
//	…
//	member.Publish(at, readings) // after every sample; does nothing in a follower
//	…
//	member.Leave()
//
// After an error of either, which says why, the caller reads its own set alone,
// as it would without this package. Nothing is then shared, and nothing lost.
//
// The owner is who holds the lock (flock) of the page. The kernel releases it
// when the owner ends, however it ends, and each follower tries it at every read,
// at the cost of one system call: the death of the owner is seen within one
// interval. The follower that gets the lock opens the hardware and goes on.
//
// The energies in the page are a lineage: a new owner continues from the values
// last published and adds what it has seen since it opened. No follower starts
// again, and no joule counts twice. What was used between the last sample of the
// old owner and the first reading of the new one was seen by nobody: Observed
// does not grow for it, and [Member.Handovers] tells how long it was.
//
// # Why it is so
//
// A page and not a socket: the owner waits for no follower and knows none, a
// follower pays a copy, and the page outlives its owner. Read and written by
// system calls and not mapped: a mapped file that is truncated, or whose file
// system is full, kills the process that touches it with SIGBUS, and the job comes
// first. A read of 64 devices costs a few microseconds all the same. There are two
// places for the latest sample, written in turn and each with a checksum, as the
// kernel ends a write half-way when the process is killed in it: the sample
// before is then still there.
//
// flock and not fcntl: a lock of fcntl belongs to the process, falls when any
// descriptor of the file is closed, and does not tell two trackers of one process
// apart. A lock of flock belongs to the open file, whatever thread uses it. A
// child that is about to start a program holds the same open file until it does
// (O_CLOEXEC), so that Leave unlocks, and does not only close. Process numbers are
// shown to people and never acted on, so that one which is used again harms
// nobody.
//
// # Caveats
//
// An owner that is stopped (SIGSTOP, a frozen container) keeps the lock. Its
// followers keep their last values and say [sensors.ErrTimeout] after two and a
// half of its intervals. They do not read beside it: when it continues, its
// counters bring what was used meanwhile, which would then count twice.
//
// The default directories are local and belong to one user; trackers of two users
// do not share. On NFS and Lustre the machines do not meet, as the page is named
// after the machine's boot, but a server that hangs holds up a sample; where the
// file system has no flock, Join returns an error. Slurm and others can give each
// job or container a /tmp of its own: those share only where WATTSPAN_SHARE names
// a directory that they have in common.
//
// A new owner reads all that it has taken over in one goroutine: if a driver hangs
// there, the other devices wait. A device that the new owner cannot see is
// [sensors.ErrLost] until an owner comes that can.
//
// Linux and macOS only.
package share
