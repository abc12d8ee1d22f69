package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// cgroup is a control group that one job has for itself, so that its clock counts
// all the job ever runs: also children that nobody waits for.
type cgroup struct {
	dir    string
	origin string   // the group of the runner itself
	handle *os.File // of dir, where a process can be born in it (version 2)
	once   sync.Once
	failed error // of the first close
}

// errOutside is returned by start when the group cannot take a process. What was
// to be forked has then not been.
var errOutside = errors.New("the control group takes no process")

// newCgroup makes a control group for a job below the runner's own, if that is
// permitted and changes nothing for the job. The error says why not; it wraps
// [sensors.ErrPermission] where a privilege is all that is missing.
func newCgroup() (*cgroup, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	mounts, memberships := parseMounts(string(mountinfo)), parseMemberships(string(own))
	c, err2 := newUnifiedGroup(mounts, memberships)
	if err2 == nil {
		return c, nil
	}
	c, err1 := newAccountingGroup(mounts, memberships)
	if err1 == nil {
		return c, nil
	}
	err = fmt.Errorf("no control group of the job's own: version 2: %w; version 1: %w", err2, err1)
	if errors.Is(err, sensors.ErrPermission) {
		err = fmt.Errorf("%w; where systemd runs, it is permitted to what systemd-run --user --scope -p Delegate=yes starts", err)
	}
	return nil, err
}

// newUnifiedGroup makes a group of version 2.
func newUnifiedGroup(mounts []mount, memberships []membership) (*cgroup, error) {
	origin, err := ownGroup(mounts, memberships, "")
	if err != nil {
		return nil, err
	}
	if err := neutral(origin); err != nil {
		return nil, err
	}
	c, err := makeGroup(origin)
	if err != nil {
		return nil, err
	}
	if err := c.enterable(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// neutral refuses to make a group of version 2 below one where the job would not
// run as it does outside.
func neutral(origin string) error {
	// What is on for the groups below takes each of them for one consumer: the
	// scheduler would give a job of many threads what it gives one thread outside.
	on, err := os.ReadFile(filepath.Join(origin, "cgroup.subtree_control"))
	if err != nil {
		return because(err)
	}
	if names := strings.TrimSpace(string(on)); names != "" {
		return fmt.Errorf("a group in %s would have a share of its own (%s): %w", origin, names, sensors.ErrUnsupported)
	}
	// Limits hold in groups below as well, but runtimes that size their heaps and
	// thread pools by them (Go's, Java's) look in the group they are in.
	for _, name := range []string{"cpu.max", "memory.max", "memory.high"} {
		text, err := os.ReadFile(filepath.Join(origin, name))
		if err != nil { // of a controller that is not on here
			continue
		}
		if limit := strings.TrimSpace(string(text)); limit != "max" && !strings.HasPrefix(limit, "max ") {
			return fmt.Errorf("a group in %s would hide %s (%s) from the job: %w", origin, name, limit, sensors.ErrUnsupported)
		}
	}
	return nil
}

// enterable opens the group for processes to be born in it, and tries.
func (c *cgroup) enterable() error {
	// Below a threaded group there is no place for a process.
	if kind, err := os.ReadFile(filepath.Join(c.dir, "cgroup.type")); err == nil && strings.TrimSpace(string(kind)) != "domain" {
		return fmt.Errorf("a group in %s is of type %q: %w", c.origin, strings.TrimSpace(string(kind)), sensors.ErrUnsupported)
	}
	if err := c.clocked(); err != nil {
		return err
	}
	handle, err := os.Open(c.dir)
	if err != nil {
		return because(err)
	}
	c.handle = handle
	// Only trying shows whether the kernel can (since 5.7), and whether a sandbox
	// or a group above forbids it. No program has so long a path, and what is not
	// a matter of the group fails by it.
	path := strings.Repeat("/", unix.PathMax)
	_, err = syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{Sys: c.attr()})
	if !errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("start a process in %s: %w", c.dir, because(err))
	}
	return nil
}

// newAccountingGroup makes a group of version 1.
func newAccountingGroup(mounts []mount, memberships []membership) (*cgroup, error) {
	const controller = "cpuacct"
	// Together with the cpu controller, as most distributions mounted it, a group
	// is one consumer to the scheduler, whatever the number of its threads.
	for _, m := range memberships {
		if m.of(controller) && len(m.controllers) > 1 {
			return nil, fmt.Errorf("a group would have a share of its own (%s): %w", strings.Join(m.controllers, " "), sensors.ErrUnsupported)
		}
	}
	origin, err := ownGroup(mounts, memberships, controller)
	if err != nil {
		return nil, err
	}
	c, err := makeGroup(origin)
	if err != nil {
		return nil, err
	}
	if err = c.clocked(); err == nil {
		err = c.start(func(*syscall.SysProcAttr) error { return nil })
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// clocked checks that the group has a clock: of version 2, since Linux 4.15.
func (c *cgroup) clocked() error {
	clock, err := c.clock()
	if err != nil {
		return err
	}
	return clock.Close()
}

// groupPrefix begins the name of every job's group; the runner's number follows.
const groupPrefix = "wattspan-"

func makeGroup(origin string) (*cgroup, error) {
	removeStale(origin)
	for {
		dir := filepath.Join(origin, fmt.Sprintf("%s%d-%08x", groupPrefix, os.Getpid(), rand.Uint32()))
		switch err := os.Mkdir(dir, 0o755); {
		case err == nil:
			return &cgroup{dir: dir, origin: origin}, nil
		case !errors.Is(err, fs.ErrExist):
			return nil, because(err)
		}
	}
}

// removeStale removes the groups of runners that were killed, once nothing runs
// in them any more.
func removeStale(origin string) {
	entries, err := os.ReadDir(origin)
	if err != nil {
		return
	}
	for _, entry := range entries {
		rest, ok := strings.CutPrefix(entry.Name(), groupPrefix)
		number, _, dashed := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if !ok || !dashed || err != nil || pid <= 0 || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		groups := groupsBelow(filepath.Join(origin, entry.Name()))
		if !slices.ContainsFunc(groups, occupied) {
			removeGroups(groups)
		}
	}
}

func occupied(dir string) bool {
	pids, err := processesIn(dir)
	return len(pids) > 0 || err != nil && !errors.Is(err, syscall.EOPNOTSUPP)
}

// start runs fork so that the process which it makes is born in the group. It
// returns what fork returns, or an error that wraps errOutside.
func (c *cgroup) start(fork func(attr *syscall.SysProcAttr) error) error {
	if c.handle != nil {
		return fork(c.attr())
	}
	// Version 1 cannot clone into a group, but a child is born where the thread
	// is that forks it, and there a single thread can be moved.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err, back := c.visit(func() error { return fork(&syscall.SysProcAttr{}) })
		if back {
			runtime.UnlockOSThread()
		} // else the thread, which is in the wrong group, ends with this goroutine
		done <- err
	}()
	return <-done
}

func (c *cgroup) attr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.handle.Fd())}
}

// visit moves this thread into the group while do runs, and tells whether it is
// back where it was.
func (c *cgroup) visit(do func() error) (err error, back bool) {
	// The way back is opened first, as one without it must not be begun.
	out, err := os.OpenFile(filepath.Join(c.origin, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errOutside, because(err)), true
	}
	defer out.Close()
	thread := []byte(strconv.Itoa(unix.Gettid()))
	if err := put(filepath.Join(c.dir, "tasks"), thread); err != nil {
		return fmt.Errorf("%w: %w", errOutside, because(err)), true
	}
	err = do()
	_, failed := out.Write(thread)
	return err, failed == nil
}

// clock opens the clock of the group.
func (c *cgroup) clock() (*host.CgroupCPU, error) { return host.OpenCgroupCPU(c.dir) }

// close moves what still runs in the group to where the runner is, and removes
// it. A second call returns what the first did.
func (c *cgroup) close() error {
	c.once.Do(func() {
		if c.handle != nil {
			_ = c.handle.Close()
		}
		c.failed = c.dissolve()
	})
	return c.failed
}

// dissolve tries a few times, since processes fork while they are moved, and one
// that has ended keeps its group for a moment.
func (c *cgroup) dissolve() error {
	var moves, removal error
	for pause := time.Millisecond; pause < 200*time.Millisecond; pause *= 2 {
		groups := groupsBelow(c.dir)
		moves = nil
		for _, dir := range groups {
			moves = errors.Join(moves, c.evacuate(dir))
		}
		if removal = removeGroups(groups); removal == nil {
			return nil
		}
		time.Sleep(pause)
	}
	return fmt.Errorf("the control group of the job is left behind: %w", errors.Join(moves, removal))
}

// evacuate moves the processes of a group to where the runner is.
func (c *cgroup) evacuate(dir string) error {
	pids, err := processesIn(dir)
	if errors.Is(err, syscall.EOPNOTSUPP) { // see processesIn
		err = nil
	}
	for _, pid := range pids {
		if pid == 0 { // of another PID namespace; written, it means the writer
			continue
		}
		moved := put(filepath.Join(c.origin, "cgroup.procs"), []byte(strconv.Itoa(pid)))
		if moved != nil && !errors.Is(moved, syscall.ESRCH) {
			err = errors.Join(err, fmt.Errorf("move process %d: %w", pid, moved))
		}
	}
	return err
}

// put writes to a file of the kernel, which is there or must not be made.
func put(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// groupsBelow lists a group and those below it, from the deepest up.
func groupsBelow(dir string) []string {
	var groups []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return nil // what has gone meanwhile is not there to be listed
	})
	slices.Reverse(groups)
	return groups
}

func removeGroups(groups []string) error {
	var failed error
	for _, dir := range groups {
		// A directory of files that cannot be removed goes by rmdir alone.
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			failed = errors.Join(failed, &fs.PathError{Op: "rmdir", Path: dir, Err: err})
		}
	}
	return failed
}

// processesIn lists the processes in a group. It fails with EOPNOTSUPP for a
// threaded group, whose processes are listed in the one above it that is not.
func processesIn(dir string) ([]int, error) {
	f, err := os.Open(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var pids []int
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			return pids, fmt.Errorf("%s: %w", f.Name(), err)
		}
		pids = append(pids, pid)
	}
	if err := lines.Err(); !errors.Is(err, syscall.ENODEV) { // it was removed meanwhile
		return pids, err
	}
	return pids, nil
}

// ownGroup finds the directory of the runner's own group in the hierarchy with a
// controller, that of version 2 if it is empty.
func ownGroup(mounts []mount, memberships []membership, controller string) (string, error) {
	what := "cgroup2"
	if controller != "" {
		what = controller
	}
	dirs := directories(mounts, memberships, controller)
	if len(dirs) == 0 {
		return "", fmt.Errorf("%s is not mounted with the runner's group in it: %w", what, sensors.ErrAbsent)
	}
	// Where one file system is mounted over another, or a namespace was entered,
	// the texts mislead. Our own number in it tells our group from others.
	var failed error
	for _, dir := range dirs {
		pids, err := processesIn(dir)
		if err != nil {
			failed = errors.Join(failed, because(err))
		} else if slices.Contains(pids, os.Getpid()) {
			return dir, nil
		}
	}
	if failed != nil {
		return "", fmt.Errorf("the runner's group: %w", failed)
	}
	return "", fmt.Errorf("the runner is not in %s: %w", strings.Join(dirs, " or "), sensors.ErrUnsupported)
}

// directories returns where the group of a process may be found.
func directories(mounts []mount, memberships []membership, controller string) []string {
	var dirs []string
	for _, in := range memberships {
		if !in.of(controller) {
			continue
		}
		for _, m := range mounts {
			if !m.of(controller) {
				continue
			}
			if below, ok := relativeTo(m.root, in.path); ok {
				dirs = append(dirs, path.Join(m.point, below))
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// relativeTo returns the path of a group below the one that is mounted. Either
// begins with /.. where it is outside this cgroup namespace.
func relativeTo(root, group string) (string, bool) {
	if !path.IsAbs(root) || !path.IsAbs(group) || path.Clean(group) != group || path.Clean(root) != root {
		return "", false
	}
	if root == "/" {
		return group, true
	}
	below, ok := strings.CutPrefix(group, root)
	return below, ok && (below == "" || below[0] == '/')
}

// membership is a line of /proc/self/cgroup: a hierarchy and the group in it.
type membership struct {
	unified     bool // version 2
	controllers []string
	path        string
}

func (m membership) of(controller string) bool {
	if controller == "" {
		return m.unified
	}
	return slices.Contains(m.controllers, controller)
}

// parseMemberships reads lines of "hierarchy:controllers:path"; the path may
// hold colons.
func parseMemberships(text string) []membership {
	var all []membership
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !path.IsAbs(fields[2]) {
			continue
		}
		m := membership{unified: fields[0] == "0" && fields[1] == "", path: fields[2]}
		if fields[1] != "" {
			m.controllers = strings.Split(fields[1], ",")
		}
		all = append(all, m)
	}
	return all
}

// mount is a line of /proc/self/mountinfo that shows control groups.
type mount struct {
	root, point string
	unified     bool
	options     []string
}

func (m mount) of(controller string) bool {
	if controller == "" {
		return m.unified
	}
	return !m.unified && slices.Contains(m.options, controller)
}

// parseMounts reads lines of "id parent device root point options [optional …] -
// type source options", of which it keeps those of control groups.
func parseMounts(text string) []mount {
	var all []mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		general, special := strings.Fields(before), strings.Split(after, " ")
		if !ok || len(general) < 6 || len(special) < 3 {
			continue
		}
		m := mount{root: unescape(general[3]), point: unescape(general[4]), unified: special[0] == "cgroup2"}
		if !m.unified && special[0] != "cgroup" || !path.IsAbs(m.root) || !path.IsAbs(m.point) {
			continue
		}
		m.options = strings.Split(special[len(special)-1], ",")
		all = append(all, m)
	}
	return all
}

// unescape replaces the octal escapes (\040) by which mountinfo keeps a path in
// one field.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// systemError is an error of the system with what a user can act on.
type systemError struct{ err, reason error }

func (e systemError) Error() string   { return e.err.Error() }
func (e systemError) Unwrap() []error { return []error{e.err, e.reason} }

// because adds the reason. A file system that is mounted read-only, as in
// containers, is a matter of permission.
func because(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return systemError{err, sensors.ErrPermission}
	case errors.Is(err, fs.ErrNotExist):
		return systemError{err, sensors.ErrAbsent}
	}
	return systemError{err, sensors.ErrUnsupported}
}
