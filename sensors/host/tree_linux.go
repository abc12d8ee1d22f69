package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// tree walks /proc. What it reads into stays, so that a walk allocates only
// when the tree is larger than it ever was.
type tree struct {
	root    int
	self    process // says when the root has gone
	proc    int     // descriptor of /proc
	scans   bool    // the kernel has no children files
	last    TreeUsage
	pids    []int
	visited map[int]struct{}
	except  map[int]struct{} // are left out
	pending []int            // found and not yet visited, the next one last
	parents []family         // of all processes, where the kernel has no children files
	path    [64]byte
	text    []byte // of a file
	names   []byte // of a directory
}

// family is a process and its parent.
type family struct{ parent, pid int }

func openTree(pid int) (tree, error) {
	self, err := openProcess(pid)
	if err != nil {
		return tree{}, err
	}
	proc, err := open("/proc")
	if err != nil {
		_ = self.close()
		return tree{}, err
	}
	t := tree{root: pid, self: self, proc: proc.fd, visited: make(map[int]struct{}),
		text: make([]byte, 4096), names: make([]byte, 8192)}
	// CONFIG_PROC_CHILDREN is in the kernels of the distributions, not in all.
	_, err = t.file(t.entry(pid).name("task").number(pid).name("children"))
	t.scans = err == unix.ENOENT
	return t, nil
}

func (t *tree) close() error {
	return errors.Join(t.self.close(), unix.Close(t.proc))
}

// read walks from the root down. A parent is read before its children: what a
// child has used moves into its parent's times when it ends, and the other
// order would count it in both.
func (t *tree) read() (TreeUsage, error) {
	if _, err := t.self.read(); err != nil {
		return t.last, err
	}
	var sum TreeUsage
	t.pids, t.pending = t.pids[:0], t.pending[:0]
	clear(t.visited)
	for pid := range t.except {
		t.visited[pid] = struct{}{}
	}
	t.visited[t.root] = struct{}{}
	if t.scans {
		if err := t.scan(); err != nil {
			return t.last, t.failed(err)
		}
	}
	// The root's children are those of any of its threads.
	if err := t.children(t.root, 0); err != nil {
		return t.last, t.failed(err)
	}
	for len(t.pending) > 0 {
		pid := t.pending[len(t.pending)-1]
		t.pending = t.pending[:len(t.pending)-1]
		if _, seen := t.visited[pid]; seen {
			continue
		}
		if err := t.visit(pid, &sum); err != nil {
			return t.last, t.failed(err)
		}
	}
	sum.Processes = len(t.pids)
	t.last = sum
	return sum, nil
}

func (t *tree) exclude(pids []int) {
	t.except = make(map[int]struct{}, len(pids))
	for _, pid := range pids {
		t.except[pid] = struct{}{}
	}
}

func (t *tree) failed(err error) error {
	return fmt.Errorf("host: descendants of process %d: %w", t.root, errors.Join(err, sensors.ErrTransient))
}

// visit counts a process and queues its children. One that has ended since it
// was found is passed over, and so is a stranger that has its number by now.
func (t *tree) visit(pid int, sum *TreeUsage) error {
	text, err := t.file(t.entry(pid).name("stat"))
	if err != nil {
		return unlessGone(err)
	}
	s, ok := parseRelative(text)
	if !ok {
		return errMalformed
	}
	if _, ours := t.visited[s.parent]; !ours {
		return nil
	}
	// A leader that has ended while other threads of its process run is called a
	// zombie as well, but nobody can reap it yet.
	if s.ended && s.threads <= 1 && s.parent == t.root {
		return nil
	}
	t.visited[pid] = struct{}{}
	t.pids = append(t.pids, pid)
	sum.CPU += s.used
	if text, err = t.file(t.entry(pid).name("statm")); err != nil {
		return unlessGone(err)
	}
	held, ok := parseStatm(text)
	if !ok {
		return errMalformed
	}
	sum.Memory += held
	return t.children(pid, s.threads)
}

// children queues the children of a process, which the kernel lists under the
// thread that made them. The number of threads is 0 where it is not known.
func (t *tree) children(pid, threads int) error {
	if t.scans {
		at, _ := slices.BinarySearchFunc(t.parents, pid, func(f family, pid int) int { return f.parent - pid })
		for ; at < len(t.parents) && t.parents[at].parent == pid; at++ {
			t.pending = append(t.pending, t.parents[at].pid)
		}
		return nil
	}
	if threads == 1 {
		return t.childrenOf(pid, pid)
	}
	return t.list(t.entry(pid).name("task"), func(thread int) error { return t.childrenOf(pid, thread) })
}

func (t *tree) childrenOf(pid, thread int) error {
	text, err := t.file(t.entry(pid).name("task").number(thread).name("children"))
	if err != nil {
		return unlessGone(err)
	}
	for {
		child, rest, ok := number(text)
		if !ok || child > maxPID {
			return nil
		}
		t.pending = append(t.pending, int(child))
		text = rest
	}
}

// scan finds the parent of every process.
func (t *tree) scan() error {
	t.parents = t.parents[:0]
	err := t.list(t.entry(0), func(pid int) error {
		text, err := t.file(t.entry(pid).name("stat"))
		if err != nil {
			return unlessGone(err)
		}
		if s, ok := parseRelative(text); ok {
			t.parents = append(t.parents, family{s.parent, pid})
		}
		return nil
	})
	slices.SortFunc(t.parents, func(a, b family) int {
		if a.parent != b.parent {
			return a.parent - b.parent
		}
		return a.pid - b.pid
	})
	return err
}

// unlessGone returns nil for what happens when a process ends at any moment, and
// when /proc is mounted to hide the processes of others.
func unlessGone(err error) error {
	switch err {
	case unix.ENOENT, unix.ESRCH, unix.EACCES, unix.EPERM:
		return nil
	}
	return err
}

// entryPath is a path below /proc that is being written, in a buffer of the tree.
type entryPath struct {
	buf *[64]byte
	len int
}

// entry begins the path of a process; 0 is /proc itself.
func (t *tree) entry(pid int) entryPath {
	p := entryPath{buf: &t.path}
	if pid == 0 {
		return p.name(".")
	}
	return p.number(pid)
}

func (p entryPath) separated() entryPath {
	if p.len > 0 {
		p.buf[p.len] = '/'
		p.len++
	}
	return p
}

func (p entryPath) name(s string) entryPath {
	p = p.separated()
	p.len += copy(p.buf[p.len:], s)
	return p
}

func (p entryPath) number(n int) entryPath {
	p = p.separated()
	p.len = len(strconv.AppendInt(p.buf[:p.len], int64(n), 10))
	return p
}

// open is openat(2) without the copy of the path that unix.Openat allocates.
func (t *tree) open(p entryPath, flags int) (int, error) {
	p.buf[p.len] = 0
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(t.proc), uintptr(unsafe.Pointer(&p.buf[0])),
			uintptr(flags|unix.O_RDONLY|unix.O_CLOEXEC), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
			continue
		}
		return -1, errno
	}
}

// file reads a file to its end. The text is valid until the next call.
func (t *tree) file(p entryPath) ([]byte, error) {
	fd, err := t.open(p, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for used := 0; ; {
		n, err := unix.Read(fd, t.text[used:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n <= 0:
			return t.text[:used], nil
		}
		// The kernel gives a page at a time. A short file has come whole.
		if used += n; used < 1024 {
			return t.text[:used], nil
		}
		if len(t.text)-used < 4096 {
			t.text = append(t.text, make([]byte, len(t.text))...)
		}
	}
}

// list calls do for every entry of a directory whose name is a number, which it
// may not do within do.
func (t *tree) list(p entryPath, do func(n int) error) error {
	fd, err := t.open(p, unix.O_DIRECTORY)
	if err != nil {
		return unlessGone(err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, t.names)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return unlessGone(err)
		case n <= 0:
			return nil
		}
		for rest := t.names[:n]; len(rest) > 0; {
			number, after, ok := dirent(rest)
			if !ok {
				return errMalformed
			}
			if rest = after; number > 0 {
				if err := do(number); err != nil {
					return err
				}
			}
		}
	}
}

// maxPID is what the kernel never goes beyond; it uses at most 1<<22.
const maxPID = 1<<31 - 1

// dirent reads a linux_dirent64 off what getdents64 wrote: the inode and an
// offset of eight bytes each, the length of the record in two, a type, a name
// that ends with NUL. The number is 0 for a name that is none.
func dirent(records []byte) (n int, rest []byte, ok bool) {
	const lengthAt, nameAt = 16, 19
	if len(records) <= nameAt {
		return 0, nil, false
	}
	length := int(binary.NativeEndian.Uint16(records[lengthAt:]))
	if length <= nameAt || length > len(records) {
		return 0, nil, false
	}
	name, rest := records[nameAt:length], records[length:]
	end := bytes.IndexByte(name, 0)
	if end < 0 {
		return 0, nil, false
	}
	v, after, isNumber := number(name[:end])
	if !isNumber || len(after) > 0 || name[0] == ' ' || v > maxPID {
		return 0, rest, true
	}
	return int(v), rest, true
}

// relative is what /proc/PID/stat says of a process.
type relative struct {
	parent  int
	ended   bool
	threads int
	used    time.Duration
}

// parseRelative reads "pid (comm) state ppid …", of which num_threads is the
// 20th field.
func parseRelative(text []byte) (relative, bool) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 || end+len(") S ") > len(text) {
		return relative{}, false
	}
	state := text[end+len(") ")]
	used, ok := parseProcessStat(text)
	if !ok {
		return relative{}, false
	}
	rest := text[end+len(") S"):]
	parent, _, ok := number(rest)
	if !ok || parent > maxPID {
		return relative{}, false
	}
	for range 16 { // ppid to nice
		rest = bytes.TrimLeft(rest, " ")
		space := bytes.IndexByte(rest, ' ')
		if space <= 0 {
			return relative{}, false
		}
		rest = rest[space:]
	}
	threads, rest, ok := number(rest)
	// A number that ends with the text may have been cut off.
	if !ok || len(rest) == 0 || threads > maxPID {
		return relative{}, false
	}
	return relative{parent: int(parent), ended: state == 'Z' || state == 'X', threads: int(threads), used: used}, true
}
