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
	walks   uint64 // so far
	due     bool   // the next walk must be a whole one
	members map[int]member
	kept    int // members with descriptors
	keeps   int // the most of them
	visited map[int]struct{}
	except  map[int]struct{} // are left out
	pending []int            // found and not yet visited, the next one last
	parents []family         // of all processes, where the kernel has no children files
	path    [64]byte
	text    []byte // of a file
	names   []byte // of a directory
}

// member is a process that has been counted. Opening a file of /proc takes most
// of the time of reading it, so that the files of a member stay open. Such a
// descriptor stands for the process and not for its number.
type member struct {
	files  [memberFiles]int // descriptors, -1 until the file is read
	kept   bool             // whether they may stay open
	walk   uint64           // the last one that counted it
	memory uint64           // as of the last whole walk
}

// The files of a member.
const (
	statFile = iota
	statmFile
	childrenFile // of the first thread
	memberFiles
)

// file is where the descriptor of a file belongs; nil where it may not stay open.
func (m *member) file(i int) *int {
	if !m.kept {
		return nil
	}
	return &m.files[i]
}

func (m *member) close() {
	for i, fd := range m.files {
		if fd >= 0 {
			_ = unix.Close(fd)
			m.files[i] = -1
		}
	}
}

// mostKept is how many members keep their files open, where the limit of
// descriptors allows four times as many.
const mostKept = 128

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
	t := tree{root: pid, self: self, proc: proc.fd, due: true, members: make(map[int]member), visited: make(map[int]struct{}),
		text: make([]byte, 4096), names: make([]byte, 8192)}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		t.keeps = int(min(limit.Cur/(4*memberFiles), mostKept))
	}
	// CONFIG_PROC_CHILDREN is in the kernels of the distributions, not in all.
	_, err = t.file(t.entry(pid).name("task").number(pid).name("children"), nil)
	t.scans = err == unix.ENOENT
	return t, nil
}

func (t *tree) close() error {
	for _, m := range t.members {
		m.close()
	}
	clear(t.members)
	return errors.Join(t.self.close(), unix.Close(t.proc))
}

func (t *tree) read() (TreeUsage, error) { return t.walk(true) }

func (t *tree) refresh() (TreeUsage, error) { return t.walk(t.due || len(t.pids) == 0) }

// walk goes from the root down. A parent is read before its children: what a
// child has used moves into its parent's times when it ends, and the other
// order would count it in both.
//
// A walk that is not whole begins with the processes that the last one counted,
// and asks of each only the first thread for new children.
func (t *tree) walk(whole bool) (TreeUsage, error) {
	if _, err := t.self.read(); err != nil {
		return t.last, err
	}
	t.walks++
	t.due = true // unless this walk succeeds
	t.pending = t.pending[:0]
	if !whole {
		t.pending = append(t.pending, t.pids...)
		slices.Reverse(t.pending)
	}
	t.pids = t.pids[:0]
	clear(t.visited)
	for pid := range t.except {
		t.visited[pid] = struct{}{}
	}
	t.visited[t.root] = struct{}{}
	if whole {
		if t.scans {
			if err := t.scan(); err != nil {
				return t.last, t.failed(err)
			}
		}
		// The root's children are those of any of its threads.
		if err := t.children(t.root, &member{}, 0, whole); err != nil {
			return t.last, t.failed(err)
		}
	}
	var sum TreeUsage
	for len(t.pending) > 0 {
		pid := t.pending[len(t.pending)-1]
		t.pending = t.pending[:len(t.pending)-1]
		if _, seen := t.visited[pid]; seen {
			continue
		}
		if err := t.visit(pid, &sum, whole); err != nil {
			return t.last, t.failed(err)
		}
	}
	// Whoever has ended may have left orphans, which only a whole walk looks for.
	t.due = t.forget() && !whole
	sum.Processes = len(t.pids)
	t.last = sum
	return sum, nil
}

// forget closes the files of the members that the walk has not counted, and
// reports whether there were any.
func (t *tree) forget() (any bool) {
	for pid, m := range t.members {
		if m.walk != t.walks {
			t.drop(pid, &m)
			any = true
		}
	}
	return any
}

func (t *tree) exclude(pids []int) {
	t.due = true
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
func (t *tree) visit(pid int, sum *TreeUsage, whole bool) error {
	m, known := t.members[pid]
	if !known {
		m = t.meet()
	}
	err := t.count(pid, &m, sum, whole)
	if m.walk == t.walks || known {
		t.members[pid] = m // forget drops it, if it was not counted
	} else {
		t.drop(pid, &m)
	}
	return err
}

// meet returns a member about which nothing is known.
func (t *tree) meet() member {
	m := member{files: [memberFiles]int{-1, -1, -1}, kept: t.kept < t.keeps}
	if m.kept {
		t.kept++
	}
	return m
}

func (t *tree) drop(pid int, m *member) {
	if m.kept {
		t.kept--
	}
	m.close()
	delete(t.members, pid)
}

func (t *tree) count(pid int, m *member, sum *TreeUsage, whole bool) error {
	text, err := t.file(t.entry(pid).name("stat"), m.file(statFile))
	if err == unix.ESRCH {
		// The process has ended; another one may have its number.
		m.close()
		m.walk = 0
		text, err = t.file(t.entry(pid).name("stat"), m.file(statFile))
	}
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
	met := m.walk > 0
	m.walk = t.walks
	t.visited[pid] = struct{}{}
	t.pids = append(t.pids, pid)
	sum.CPU += s.used
	if whole || !met {
		if text, err = t.file(t.entry(pid).name("statm"), m.file(statmFile)); err != nil {
			return unlessGone(err)
		}
		if m.memory, ok = parseStatm(text); !ok {
			return errMalformed
		}
	}
	sum.Memory += m.memory
	return t.children(pid, m, s.threads, whole || !met)
}

// children queues the children of a process, which the kernel lists under the
// thread that made them: those of all threads, or of the first one alone. The
// number of threads is 0 where it is not known.
func (t *tree) children(pid int, m *member, threads int, whole bool) error {
	switch {
	case t.scans:
		if !whole {
			return nil
		}
		at, _ := slices.BinarySearchFunc(t.parents, pid, func(f family, pid int) int { return f.parent - pid })
		for ; at < len(t.parents) && t.parents[at].parent == pid; at++ {
			t.pending = append(t.pending, t.parents[at].pid)
		}
		return nil
	case threads == 1 || !whole:
		return t.childrenOf(pid, pid, m.file(childrenFile))
	}
	return t.list(t.entry(pid).name("task"), func(thread int) error {
		if thread == pid {
			return t.childrenOf(pid, pid, m.file(childrenFile))
		}
		return t.childrenOf(pid, thread, nil)
	})
}

func (t *tree) childrenOf(pid, thread int, kept *int) error {
	text, err := t.file(t.entry(pid).name("task").number(thread).name("children"), kept)
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
		text, err := t.file(t.entry(pid).name("stat"), nil)
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

// file reads a file to its end. Where there is a place for its descriptor, it is
// opened the first time and stays open. The text is valid until the next call.
func (t *tree) file(p entryPath, kept *int) ([]byte, error) {
	if kept != nil && *kept >= 0 {
		return t.whole(*kept, unix.Pread)
	}
	fd, err := t.open(p, 0)
	if err != nil {
		return nil, err
	}
	text, err := t.whole(fd, readOn)
	if err != nil || kept == nil {
		_ = unix.Close(fd)
	} else {
		*kept = fd
	}
	return text, err
}

// readOn reads where the last read of a descriptor ended.
func readOn(fd int, buf []byte, _ int64) (int, error) { return unix.Read(fd, buf) }

// whole reads a file from its beginning to its end.
func (t *tree) whole(fd int, read func(fd int, buf []byte, at int64) (int, error)) ([]byte, error) {
	for used := 0; ; {
		n, err := read(fd, t.text[used:], int64(used))
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
