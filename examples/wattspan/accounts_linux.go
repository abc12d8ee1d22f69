package main

import (
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	commandmeter "github.com/wattspan/wattspan/sensors/command"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/tracker"
)

// pace says when the tree of processes is read, and how. The zero value reads all
// of it the first time.
type pace struct {
	first time.Time     // of the readings of all
	next  time.Time     // of any
	whole time.Time     // the next of all
	ended time.Duration // as of the last reading
}

const (
	// walkShare is the part of the time that reading the tree may take.
	walkShare = 0.005
	// wholeEvery is the time between two readings of the whole tree, once the job
	// has run for as long. In between the processes that are known are read:
	// their memory and the children of their other threads can wait.
	wholeEvery = 5 * time.Second
)

// reading is a way to read the tree.
type reading int

const (
	noReading reading = iota
	ofTheKnown
	ofAll
)

// due returns how to read the tree at a time at which what has been reaped has
// used that much. Whoever is reaped may have left orphans.
func (p *pace) due(now time.Time, ended time.Duration) reading {
	switch {
	case now.Before(p.next):
		return noReading
	case !now.Before(p.whole) || ended != p.ended:
		return ofAll
	}
	return ofTheKnown
}

// took says how long a reading took that began at a time.
func (p *pace) took(how reading, begin time.Time, d, ended time.Duration) {
	p.next = begin.Add(time.Duration(float64(d) / walkShare))
	p.ended = ended
	if how == ofAll {
		if p.first.IsZero() {
			p.first = begin
		}
		// A young job loads what it needs: the times are 0, 1, 2, 4, 8, 13 s …
		p.whole = begin.Add(min(begin.Sub(p.first), wholeEvery))
	}
}

// accounts says what the job has used. A control group of the job's own counts
// everything that ever ran in it. Where none is permitted, the CPU time is that
// of the processes which have been reaped, exactly, and that of those which live,
// found by walking their tree. The memory is always that of the tree.
type accounts struct {
	mu       sync.Mutex // between the sampling goroutine and the start and end
	group    *cgroup    // nil where none is permitted
	clock    *host.CgroupCPU
	why      error      // there is no group
	tree     *host.Tree // nil where /proc does not show one
	earlier  []int      // what this process had for children before the job
	meters   []int      // the programs that read the node's meter, which are not the job's either
	asked    []int      // scratch of metersChanged
	last     tracker.Usage
	pace     pace
	finished bool
}

// open prepares the accounts before the command starts. None of it is worth not
// running the command for.
func (a *accounts) open() {
	// Orphans become children of this process, which can then count them.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if a.tree, _ = host.OpenTree(os.Getpid()); a.tree != nil {
		// "other & exec wattspan run …"
		_, _ = a.tree.Read()
		a.earlier = slices.Clone(a.tree.PIDs())
		a.tree.Except(a.earlier...)
	}
	if a.group, a.why = newCgroup(); a.why != nil {
		return
	}
	if a.clock, a.why = a.group.clock(); a.why != nil {
		_ = a.group.close()
		a.group = nil
	}
}

// birth lets a process be born into the job.
func (a *accounts) birth(fork func(*syscall.SysProcAttr) error) error {
	if a.group == nil {
		return fork(&syscall.SysProcAttr{})
	}
	born := false
	err := a.group.start(func(sys *syscall.SysProcAttr) error {
		err := fork(sys)
		born = err == nil
		return err
	})
	if err == nil || born {
		return nil
	}
	// Whatever failed, the command is tried once more without the group: the
	// job is worth more than its accounts.
	a.mu.Lock()
	_ = a.clock.Close()
	_ = a.group.close()
	a.group, a.clock, a.why = nil, nil, err
	a.mu.Unlock()
	return fork(&syscall.SysProcAttr{})
}

// usage returns what the job has used and holds. ended is the CPU time of what
// has been reaped. It is read before the tree is walked: a process that is reaped
// in between is then missed once, and never counted twice.
func (a *accounts) usage(ended func() time.Duration) (tracker.Usage, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.last
	before := ended()
	begin, walked := time.Now(), false
	how := a.pace.due(begin, before)
	if a.finished {
		how = ofAll // what lives then has no later chance
	}
	// A meter's program that began while the tree was read may have been taken for
	// the job's: it is read once more.
	for tries := 0; a.tree != nil && how != noReading && tries < 2 && !walked; tries++ {
		if a.metersChanged() {
			a.meters = append(a.meters[:0], a.asked...)
			a.leaveOut()
		}
		read := a.tree.Refresh
		if how == ofAll {
			read = a.tree.Read
		}
		live, err := read()
		a.pace.took(how, begin, time.Since(begin), before)
		if err != nil {
			break
		}
		if walked = !a.metersChanged(); walked {
			now.Memory, now.HasMemory = live.Memory, live.Processes > 0
			now.CPU = before + live.CPU
		}
	}
	switch {
	case a.clock != nil:
		used, err := a.clock.Read()
		if err != nil {
			return a.last, err
		}
		// What left the group by itself is in the tree.
		now.CPU = max(now.CPU, used)
	case !walked:
		// What has been reaped since may be in the last walk already.
		now.CPU = max(a.last.CPU, before)
	}
	now.CPU = max(now.CPU, a.last.CPU)
	a.last = now
	return now, nil
}

// metersChanged reports whether other programs read the node's meter than those
// that are left out, and notes which in asked.
func (a *accounts) metersChanged() bool {
	a.asked = commandmeter.Children(a.asked[:0])
	slices.Sort(a.asked)
	return !slices.Equal(a.asked, a.meters)
}

// leaveOut leaves what is not the job's out of the tree.
func (a *accounts) leaveOut() { a.tree.Except(slices.Concat(a.earlier, a.meters)...) }

// Owns reports whether a process is the job's, as of the last walk.
func (a *accounts) Owns(pid int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tree != nil && slices.Contains(a.tree.PIDs(), pid)
}

// foreign reports whether a process that has been reaped is none of the job's.
func (a *accounts) foreign(pid int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.earlier, pid)
	if i < 0 {
		return commandmeter.Reaped(pid)
	}
	// Its number is free, and may be the job's next.
	a.earlier = slices.Delete(a.earlier, i, i+1)
	if a.tree != nil {
		a.leaveOut()
	}
	return true
}

// finish says that the command has ended.
func (a *accounts) finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
}

// Accounting implements tracker.JobMeter.
func (a *accounts) Accounting() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.clock != nil:
		return tracker.AccountingCgroup
	case a.tree != nil:
		return tracker.AccountingTree
	}
	return tracker.AccountingProcess
}

// close leaves the system as it was found, and can be called again. What the job
// has left running goes back to where it came from.
func (a *accounts) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	if a.clock != nil {
		errs = append(errs, a.clock.Close())
	}
	if a.group != nil {
		errs = append(errs, a.group.close())
	}
	if a.tree != nil {
		errs = append(errs, a.tree.Close())
	}
	a.clock, a.group, a.tree = nil, nil, nil
	return errors.Join(errs...)
}

func withPidfd(sys *syscall.SysProcAttr, fd *int) { sys.PidFD = fd }

func sendByPidfd(fd int, s syscall.Signal) error { return unix.PidfdSendSignal(fd, s, nil, 0) }
