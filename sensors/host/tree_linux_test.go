package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// treeVariable makes this test binary a process of a tree.
const treeVariable = "PROCESS_OF_A_TREE"

func init() {
	switch os.Getenv(treeVariable) {
	case "forks from a thread":
		// The main thread runs this, and locking it leaves the goroutine another.
		runtime.LockOSThread()
		go func() {
			runtime.LockOSThread()
			child := exec.Command("cat")
			child.Stdin = os.Stdin
			if child.Start() == nil {
				fmt.Println(os.Getpid())
				fmt.Println(child.Process.Pid)
			}
			_ = child.Wait()
			os.Exit(0)
		}()
		select {}
	case "has no leader":
		go func() {
			fmt.Println(os.Getpid())
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // the thread, not the process
	case "has threads":
		for range 100 {
			go func() {
				runtime.LockOSThread()
				_ = unix.Pause()
			}()
		}
		fmt.Println(os.Getpid())
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
}

// startFamily starts a command that prints the number of each of its processes on a
// line, and lives until its input ends.
func startFamily(t testing.TB, members int, cmd *exec.Cmd) []int {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	var pids []int
	for lines := bufio.NewScanner(out); len(pids) < members && lines.Scan(); {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != members {
		t.Fatalf("%d processes, want %d", len(pids), members)
	}
	return pids
}

// binaryTree is a shell with two children, and so on; the last ones work a little.
func binaryTree(depth int) *exec.Cmd {
	cmd := exec.Command("sh", "-c", `exec 3<&0; eval "$SCRIPT"`, strconv.Itoa(depth))
	cmd.Env = append(os.Environ(), `SCRIPT=if [ $0 -gt 0 ]; then
		sh -c "$SCRIPT" $(($0-1)) & sh -c "$SCRIPT" $(($0-1)) & echo $$; wait
	else
		i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $$; read x <&3
	fi`)
	return cmd
}

// siblings is a shell with children, which are as many processes together.
func siblings(n int) *exec.Cmd {
	return exec.Command("sh", "-c", `exec 3<&0; i=1; while [ $i -lt $0 ]; do sh -c 'echo $$; read x <&3' & i=$((i+1)); done; echo $$; wait`, strconv.Itoa(n))
}

func role(name string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), treeVariable+"="+name)
	return cmd
}

// openTrees opens the tree of a process in each of the ways a kernel may need.
func openTrees(t testing.TB, pid int) map[string]*Tree {
	t.Helper()
	trees := make(map[string]*Tree)
	for _, name := range []string{"children files", "scan"} {
		tr, err := OpenTree(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tr.Close() })
		if tr.tree.scans && name != "scan" {
			t.Log("this kernel has no children files")
		}
		tr.tree.scans = tr.tree.scans || name == "scan"
		trees[name] = tr
	}
	return trees
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func statOf(t testing.TB, pid int) relative {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	s, ok := parseRelative(text)
	if !ok {
		t.Fatalf("%q", text)
	}
	return s
}

// total adds up what /proc says of some processes.
func total(t testing.TB, pids []int) (u TreeUsage) {
	t.Helper()
	for _, pid := range pids {
		u.CPU += statOf(t, pid).used
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			t.Fatal(err)
		}
		held, _ := parseStatm(text)
		u.Memory += held
	}
	u.Processes = len(pids)
	return u
}

func sorted(pids []int) []int {
	s := slices.Clone(pids)
	slices.Sort(s)
	return s
}

func TestTreeOfAllDescendants(t *testing.T) {
	family := startFamily(t, 15, binaryTree(3))
	for name, tr := range openTrees(t, os.Getpid()) {
		t.Run(name, func(t *testing.T) {
			// They have just printed, and are on their way to rest.
			eventually(t, "the processes at rest", func() bool {
				before := total(t, family)
				got, err := tr.Read()
				if err != nil {
					t.Fatal(err)
				}
				after := total(t, family)
				if !slices.Equal(sorted(tr.PIDs()), sorted(family)) {
					t.Fatalf("%v, want %v", tr.PIDs(), family)
				}
				if got.CPU < before.CPU || got.CPU > after.CPU || got.Processes != 15 {
					t.Fatalf("%+v; want from %+v to %+v", got, before, after)
				}
				return before == after && got == before
			})
			if u, _ := tr.Read(); u.CPU == 0 || u.Memory == 0 {
				t.Errorf("%+v", u)
			}
			for i, pid := range tr.PIDs() {
				if parent := parentOf(pid); parent != os.Getpid() && !slices.Contains(tr.PIDs()[:i], parent) {
					t.Errorf("%d is before its parent %d in %v", pid, parent, tr.PIDs())
				}
			}
			if n := testing.AllocsPerRun(20, func() { _, _ = tr.Read() }); n != 0 {
				t.Errorf("Read allocates %v times", n)
			}
		})
	}
	// The tree is that of the process asked for.
	top := slices.IndexFunc(family, func(pid int) bool { return parentOf(pid) == os.Getpid() })
	for name, tr := range openTrees(t, family[top]) {
		u, err := tr.Read()
		if want := slices.Delete(sorted(family), slices.Index(sorted(family), family[top]), slices.Index(sorted(family), family[top])+1); err != nil || u.Processes != 14 || !slices.Equal(sorted(tr.PIDs()), want) {
			t.Errorf("%s: below %d: %+v, %v, %v", name, family[top], u, tr.PIDs(), err)
		}
	}
}

// The kernel lists a child under the thread that made it.
func TestTreeOfThreads(t *testing.T) {
	family := startFamily(t, 2, role("forks from a thread"))
	for name, tr := range openTrees(t, os.Getpid()) {
		if _, err := tr.Read(); err != nil || !slices.Equal(tr.PIDs(), family) {
			t.Errorf("%s: %v, %v; want %v", name, tr.PIDs(), err, family)
		}
	}
}

// A process whose first thread has ended looks like a zombie, and works on.
func TestTreeOfALeaderlessProcess(t *testing.T) {
	family := startFamily(t, 1, role("has no leader"))
	eventually(t, "the leader's end", func() bool { return statOf(t, family[0]).ended })
	for name, tr := range openTrees(t, os.Getpid()) {
		if _, err := tr.Read(); err != nil || !slices.Equal(tr.PIDs(), family) {
			t.Errorf("%s: %v, %v; want %v", name, tr.PIDs(), err, family)
		}
	}
}

// The time of a child that waits to be reaped is the root's to learn from wait4;
// that of others who wait is in nobody's account yet.
func TestTreeOfZombies(t *testing.T) {
	const work = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
	own := exec.Command("sh", "-c", work)
	if err := own.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = own.Wait() }()
	family := startFamily(t, 2, exec.Command("sh", "-c", "sh -c '"+work+"' & echo $$; echo $!; exec cat"))
	for _, pid := range []int{own.Process.Pid, family[1]} {
		eventually(t, "the end of a process", func() bool { return statOf(t, pid).ended })
	}
	zombie := statOf(t, family[1]).used
	if zombie == 0 || statOf(t, own.Process.Pid).used == 0 {
		t.Fatal("the processes have not used any time")
	}
	for name, tr := range openTrees(t, os.Getpid()) {
		u, err := tr.Read()
		if want := statOf(t, family[0]).used + zombie; err != nil || !slices.Equal(tr.PIDs(), family) || u.CPU != want {
			t.Errorf("%s: %+v, %v, %v; want %v of %v", name, u, tr.PIDs(), err, want, family)
		}
	}
}

func TestTreeWithoutRoot(t *testing.T) {
	if _, err := OpenTree(-1); !errors.Is(err, sensors.ErrLost) {
		t.Errorf("of -1: %v", err)
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	tr, err := OpenTree(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if u, err := tr.Read(); err != nil || u != (TreeUsage{}) || len(tr.PIDs()) != 0 {
		t.Errorf("without descendants: %+v, %v, %v", u, tr.PIDs(), err)
	}
	in.Close()
	_ = cmd.Wait()
	if _, err := tr.Read(); !errors.Is(err, sensors.ErrLost) {
		t.Errorf("of a process that has ended: %v", err)
	}
}

// fakeTree is a tree in a folder that looks like /proc.
type fakeTree struct {
	*Tree
	t   *testing.T
	dir string
}

// fakeRoot is this process, as its own clock says whether it is there.
var fakeRoot = os.Getpid()

func newFakeTree(t *testing.T) fakeTree {
	tr, err := OpenTree(fakeRoot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	f := fakeTree{Tree: tr, t: t, dir: t.TempDir()}
	if err := unix.Close(tr.tree.proc); err != nil {
		t.Fatal(err)
	}
	if tr.tree.proc, err = unix.Open(f.dir, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	tr.tree.scans = false
	f.children(fakeRoot, fakeRoot, "")
	return f
}

func (f fakeTree) process(pid, parent int, state string, threads, ticks int) {
	f.t.Helper()
	f.write(pid, "stat", fakeStat(pid, parent, state, threads, ticks))
	f.write(pid, "statm", "9 3 1 0 0 0 0\n")
	f.children(pid, pid, "")
}

func fakeStat(pid, parent int, state string, threads, ticks int) string {
	return fmt.Sprintf("%d (a) b) %s %d 1 1 0 -1 4194560 1 2 0 0 %d 0 0 0 20 0 %d 0 12 0\n", pid, state, parent, ticks, threads)
}

func (f fakeTree) children(pid, thread int, list string) {
	f.t.Helper()
	f.write(pid, fmt.Sprintf("task/%d/children", thread), list)
}

func (f fakeTree) write(pid int, name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, strconv.Itoa(pid), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func TestTreeThatChanges(t *testing.T) {
	root := strconv.Itoa(fakeRoot)
	for _, test := range []struct {
		name  string
		build func(f fakeTree)
		want  []int
		ticks int
	}{
		{"a chain", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, "11 ")
			f.process(11, fakeRoot, "S", 1, 1)
			f.children(11, 11, "12 ")
			f.process(12, 11, "R", 1, 2)
		}, []int{11, 12}, 3},
		{"one vanished after it was listed", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, "11 12 ")
			f.process(12, fakeRoot, "S", 1, 2)
		}, []int{12}, 2},
		{"a number that a stranger has by now", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, "11 12 ")
			f.process(11, 1, "R", 1, 100)
			f.children(11, 11, "13 ")
			f.process(13, 11, "R", 1, 100)
			f.process(12, fakeRoot, "S", 1, 2)
		}, []int{12}, 2},
		{"an orphan that the root has taken in", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, "11 ")
			f.process(11, fakeRoot, "S", 1, 1)
			f.children(11, 11, "12 ")
			f.process(12, fakeRoot, "R", 1, 2)
		}, []int{11, 12}, 3},
		{"a cycle", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, "11 11 ")
			f.process(11, fakeRoot, "S", 1, 1)
			f.children(11, 11, "12 "+root+" ")
			f.process(12, 11, "R", 1, 2)
			f.children(12, 12, "11 12 ")
		}, []int{11, 12}, 3},
		{"children of several threads", func(f fakeTree) {
			f.children(fakeRoot, 9, "11 ")
			f.process(11, fakeRoot, "S", 2, 1)
			f.children(11, 10, "12 ")
			f.process(12, 11, "R", 1, 2)
		}, []int{11, 12}, 3},
		{"zombies", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, "11 12 14 ")
			f.process(11, fakeRoot, "Z", 1, 100)
			f.process(12, fakeRoot, "S", 1, 1)
			f.children(12, 12, "13 15 ")
			f.process(13, 12, "Z", 1, 2)
			f.process(14, fakeRoot, "Z", 3, 4)
			f.process(15, fakeRoot, "Z", 1, 100) // its parent has ended
		}, []int{12, 13, 14}, 7},
		{"more children than a page holds", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, strings.Repeat("99 ", 5000)+"4194304 ")
			f.process(4194304, fakeRoot, "S", 1, 5)
		}, []int{4194304}, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeTree(t)
			test.build(f)
			for _, read := range []func() (TreeUsage, error){f.Read, f.Read, f.Refresh, f.Refresh, f.Read} {
				u, err := read()
				want := TreeUsage{CPU: time.Duration(test.ticks) * statUnit, Memory: uint64(len(test.want)) * 2 * pageSize, Processes: len(test.want)}
				if err != nil || u != want || !slices.Equal(sorted(f.PIDs()), test.want) {
					t.Fatalf("%+v of %v, %v; want %+v of %v", u, f.PIDs(), err, want, test.want)
				}
			}
			if n := testing.AllocsPerRun(10, func() { _, _ = f.Read() }); n != 0 {
				t.Errorf("Read allocates %v times", n)
			}
			before := descriptors(t)
			for range 100 {
				_, _ = f.Read()
				_, _ = f.Refresh()
			}
			if after := descriptors(t); after >= before+100 {
				t.Errorf("%d descriptors after 100 walks, %d before", after, before)
			}
		})
	}
}

// descriptors counts those that this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

// A child ends during the walk, and its time moves to its parent: it may be
// counted here or there, and not in both. The child's stat is a pipe here, at
// which the walk stops for the test to change the parent's.
func TestTreeCountsNothingTwice(t *testing.T) {
	for _, name := range []string{"Read", "Refresh"} {
		t.Run(name, func(t *testing.T) {
			f := newFakeTree(t)
			f.tree.keeps = 0 // a pipe is to be opened
			f.children(fakeRoot, fakeRoot, "11 ")
			f.process(11, fakeRoot, "S", 1, 5)
			f.children(11, 11, "12 ")
			f.process(12, 11, "R", 1, 0)
			read := f.Read
			if name == "Refresh" {
				read = f.Refresh
				if u, err := f.Read(); err != nil || u.CPU != 5*statUnit {
					t.Fatalf("%v, %v", u.CPU, err)
				}
			}
			pipe := filepath.Join(f.dir, "12", "stat")
			if err := os.Remove(pipe); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(pipe, 0o600); err != nil {
				t.Skip(err)
			}
			failed := make(chan error, 1)
			go func() {
				w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
				if err == nil {
					err = os.WriteFile(filepath.Join(f.dir, "11", "stat"), []byte(fakeStat(11, fakeRoot, "S", 1, 105)), 0o600)
					_, _ = w.WriteString(fakeStat(12, 11, "R", 1, 100))
					w.Close()
				}
				failed <- err
			}()
			u, err := read()
			if err != nil || u.CPU != 105*statUnit {
				t.Errorf("%v, %v; want %v", u.CPU, err, 105*statUnit)
			}
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A walk that fails leaves the usage of the last one.
func TestTreeThatCannotBeRead(t *testing.T) {
	f := newFakeTree(t)
	f.children(fakeRoot, fakeRoot, "11 ")
	f.process(11, fakeRoot, "S", 1, 1)
	want, err := f.Read()
	if err != nil || want.Processes != 1 {
		t.Fatalf("%+v, %v", want, err)
	}
	for name, text := range map[string]string{"stat": "11 (a) S " + strconv.Itoa(fakeRoot), "statm": "9 3"} {
		f.process(11, fakeRoot, "S", 1, 7)
		f.write(11, name, text)
		if u, err := f.Read(); u != want || !errors.Is(err, sensors.ErrTransient) {
			t.Errorf("%s is cut off: %+v, %v", name, u, err)
		}
	}
	// Without descriptors nothing is to be seen, which is not that nothing is there.
	f.process(11, fakeRoot, "S", 1, 7)
	withoutDescriptors(t, func() {
		if u, err := f.Read(); u != want || !errors.Is(err, sensors.ErrTransient) {
			t.Errorf("without descriptors: %+v, %v", u, err)
		}
	})
}

// withoutDescriptors does something while this process can open nothing.
func withoutDescriptors(t *testing.T, do func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		t.Fatal("a file could be opened")
	}
	do()
}

// reads counts the reads of files that this process makes meanwhile, its other
// threads' included.
func reads(t *testing.T, do func()) int {
	t.Helper()
	count := func() (n int) {
		text, err := os.ReadFile("/proc/self/io")
		if err != nil {
			t.Skip(err)
		}
		_, after, _ := strings.Cut(string(text), "syscr: ")
		if _, err := fmt.Sscan(after, &n); err != nil {
			t.Fatalf("%q", text)
		}
		return n
	}
	none := -count() + count() // to count is to read
	before := count()
	do()
	return count() - before - none
}

// Between two walks nothing is opened and no directory is listed, whatever else
// is on the machine, and as much is read as there are processes.
func TestRefreshOpensNothing(t *testing.T) {
	family := startFamily(t, 50, siblings(50))
	for name, tr := range openTrees(t, os.Getpid()) {
		t.Run(name, func(t *testing.T) {
			if _, err := tr.Read(); err != nil {
				t.Fatal(err)
			}
			withoutDescriptors(t, func() {
				u, err := tr.Refresh()
				if err != nil || u.Processes != 50 || u.Memory == 0 || !slices.Equal(sorted(tr.PIDs()), sorted(family)) {
					t.Errorf("%+v, %v of %v, want %v", u, err, tr.PIDs(), family)
				}
				if n := testing.AllocsPerRun(20, func() { _, _ = tr.Refresh() }); n != 0 {
					t.Errorf("Refresh allocates %v times", n)
				}
			})
			const times = 20
			n := reads(t, func() {
				for range times {
					_, _ = tr.Refresh()
				}
			})
			// Stat and children of each, and the root's stat.
			if most := times*(2*50+1) + 50; n > most || n < times*50 {
				t.Errorf("%d reads for %d times 50 processes, want %d at most", n, times, most)
			}
		})
	}
}

// What a first thread begins is found at once, all else by the next walk, which
// is where memory is looked at as well.
func TestRefreshFindsChildren(t *testing.T) {
	f := newFakeTree(t)
	f.children(fakeRoot, fakeRoot, "11 ")
	f.process(11, fakeRoot, "S", 2, 1)
	if _, err := f.Read(); err != nil {
		t.Fatal(err)
	}
	f.children(11, 11, "12 ")
	f.process(12, 11, "S", 2, 10)
	f.children(12, 20, "13 ") // whoever is new is asked for all of its threads
	f.process(13, 12, "S", 1, 100)
	f.children(11, 10, "14 ") // another thread
	f.process(14, 11, "S", 1, 1000)
	f.write(11, "stat", fakeStat(11, fakeRoot, "S", 2, 2))
	f.write(11, "statm", "90 80 1 0 0 0 0\n")
	u, err := f.Refresh()
	want := TreeUsage{CPU: 112 * statUnit, Memory: 3 * 2 * pageSize, Processes: 3}
	if err != nil || u != want || !slices.Equal(f.PIDs(), []int{11, 12, 13}) {
		t.Errorf("%+v of %v, %v; want %+v", u, f.PIDs(), err, want)
	}
	u, err = f.Read()
	want = TreeUsage{CPU: 1112 * statUnit, Memory: (79 + 3*2) * pageSize, Processes: 4}
	if err != nil || u != want {
		t.Errorf("%+v of %v, %v; want %+v", u, f.PIDs(), err, want)
	}
	if u, err = f.Refresh(); err != nil || u != want {
		t.Errorf("afterwards %+v of %v, %v; want %+v", u, f.PIDs(), err, want)
	}
}

// Refresh walks where what is known would not do.
func TestRefreshWalks(t *testing.T) {
	for _, test := range []struct {
		name   string
		before func(f fakeTree) // a tree of 11 and 12 has been read
		want   []int            // found by Refresh, with 14 where it walks
	}{
		{"all is as it was", func(f fakeTree) {}, []int{11, 12}},
		{"after an error", func(f fakeTree) {
			f.write(12, "stat", "cut off")
			if _, err := f.Refresh(); !errors.Is(err, sensors.ErrTransient) {
				f.t.Errorf("no error: %v", err)
			}
			f.process(12, 11, "S", 1, 1)
		}, []int{11, 12, 14}},
		{"after Except", func(f fakeTree) { f.Except(12) }, []int{11, 14}},
		{"after Except of a parent", func(f fakeTree) { f.Except(11) }, []int{14}},
		{"a process has ended", func(f fakeTree) {
			if err := os.RemoveAll(filepath.Join(f.dir, "12")); err != nil {
				f.t.Fatal(err)
			}
			if u, err := f.Refresh(); err != nil || u.Processes != 1 {
				f.t.Errorf("%+v, %v", u, err)
			}
		}, []int{11, 14}},
		{"a process had ended before the last walk", func(f fakeTree) {
			if err := os.RemoveAll(filepath.Join(f.dir, "12")); err != nil {
				f.t.Fatal(err)
			}
			if u, err := f.Read(); err != nil || u.Processes != 1 {
				f.t.Errorf("%+v, %v", u, err)
			}
		}, []int{11}},
		{"a child that is not to be seen", func(f fakeTree) {
			f.children(11, 11, "12 13 ")
			if u, err := f.Refresh(); err != nil || u.Processes != 2 {
				f.t.Errorf("%+v, %v", u, err)
			}
		}, []int{11, 12}},
		{"all have ended", func(f fakeTree) {
			f.children(fakeRoot, fakeRoot, "")
			if u, err := f.Read(); err != nil || u.Processes != 0 {
				f.t.Errorf("%+v, %v", u, err)
			}
			f.children(fakeRoot, fakeRoot, "11 12 ")
		}, []int{11, 12, 14}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeTree(t)
			f.tree.keeps = 0 // so that a folder that is removed is a process that has ended
			f.children(fakeRoot, fakeRoot, "11 ")
			f.process(11, fakeRoot, "S", 1, 1)
			f.children(11, 11, "12 ")
			f.process(12, 11, "S", 1, 1)
			if _, err := f.Read(); err != nil {
				t.Fatal(err)
			}
			test.before(f)
			f.process(14, fakeRoot, "S", 1, 1)
			f.children(fakeRoot, 9, "14 ") // the root's threads are asked in a walk only
			_, err := f.Refresh()
			if err != nil || !slices.Equal(sorted(f.PIDs()), test.want) {
				t.Errorf("%v, %v; want %v", f.PIDs(), err, test.want)
			}
		})
	}
}

// An orphan stays in the tree, behind whoever has taken it in: its time may move
// there next.
func TestRefreshOfOrphans(t *testing.T) {
	f := newFakeTree(t)
	f.tree.keeps = 0
	f.children(fakeRoot, fakeRoot, "14 11 ")
	f.process(11, fakeRoot, "S", 1, 1)
	f.children(11, 11, "12 13 ")
	f.process(12, 11, "S", 1, 10)
	f.process(13, 11, "S", 1, 100)
	f.process(14, fakeRoot, "S", 1, 1000)
	if _, err := f.Read(); err != nil || !slices.Equal(f.PIDs(), []int{11, 13, 12, 14}) {
		t.Fatalf("%v, %v", f.PIDs(), err)
	}
	if err := os.RemoveAll(filepath.Join(f.dir, "11")); err != nil {
		t.Fatal(err)
	}
	f.process(12, 14, "S", 1, 10)
	f.process(13, fakeRoot, "S", 1, 100)
	f.children(14, 14, "12 ")
	u, err := f.Refresh()
	if err != nil || !slices.Equal(f.PIDs(), []int{13, 14, 12}) || u.CPU != 1110*statUnit {
		t.Errorf("%v of %v, %v", u.CPU, f.PIDs(), err)
	}
}

// A process that ends is in nobody's account but its parent's from then on.
func TestRefreshWhenProcessesEnd(t *testing.T) {
	shell := exec.Command("sh", "-c", `exec 3<&0; sh -c 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo $$; read x <&3' & echo $$; wait; exec cat`)
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		in.Close()
		_ = shell.Wait()
	}()
	for lines, i := bufio.NewScanner(out), 0; i < 2 && lines.Scan(); i++ {
	}
	trees := openTrees(t, os.Getpid())
	before := make(map[string]TreeUsage)
	for name, tr := range trees {
		if before[name], err = tr.Read(); err != nil || before[name].Processes != 2 || before[name].CPU == 0 {
			t.Fatalf("%s: %+v, %v", name, before[name], err)
		}
	}
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	for name, tr := range trees {
		eventually(t, "the end of a process", func() bool {
			u, err := tr.Refresh()
			if err != nil || u.CPU > before[name].CPU+10*time.Second {
				t.Fatalf("%s: %+v, %v", name, u, err)
			}
			return u.Processes == 1
		})
		// A few steps are lost to rounding, when two times are added before it.
		if u, err := tr.Refresh(); err != nil || u.CPU < before[name].CPU-3*statUnit || u.CPU > 2*before[name].CPU {
			t.Errorf("%s: %v, %v; %v before", name, u.CPU, err, before[name].CPU)
		}
	}
}

// A number that is used again is another process's, though the descriptor was of
// the one that had it before.
func TestRefreshOfAReusedNumber(t *testing.T) {
	family := startFamily(t, 2, siblings(2))
	gone := exec.Command("true")
	if err := gone.Start(); err != nil {
		t.Skip(err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/stat", gone.Process.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Wait()
	tr, err := OpenTree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	want, err := tr.Read()
	if err != nil {
		t.Fatal(err)
	}
	pid := tr.PIDs()[1]
	m := tr.tree.members[pid]
	_ = unix.Close(m.files[statFile])
	m.files[statFile], m.memory = fd, 1
	tr.tree.members[pid] = m
	u, err := tr.Refresh()
	if err != nil || u.Processes != 2 || u.Memory != want.Memory || !slices.Equal(sorted(tr.PIDs()), sorted(family)) {
		t.Errorf("%+v of %v, %v; want %+v of %v", u, tr.PIDs(), err, want, family)
	}
}

// Whoever has no room for descriptors opens the files each time.
func TestTreeKeepsFewDescriptors(t *testing.T) {
	startFamily(t, 15, binaryTree(3))
	tr, err := OpenTree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	tr.tree.keeps = 4
	for _, read := range []func() (TreeUsage, error){tr.Read, tr.Refresh, tr.Read, tr.Refresh} {
		if u, err := read(); err != nil || u.Processes != 15 {
			t.Errorf("%+v, %v", u, err)
		}
		if n := descriptors(t) - before; n != 4*memberFiles {
			t.Errorf("%d more descriptors, want %d", n, 4*memberFiles)
		}
	}
	if n := testing.AllocsPerRun(20, func() { _, _ = tr.Refresh() }); n != 0 {
		t.Errorf("Refresh allocates %v times", n)
	}
	// Those who are left out are let go, and make room.
	tr.Except(tr.PIDs()...)
	if u, err := tr.Refresh(); err != nil || u.Processes != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if n := descriptors(t) - before; n != 0 || tr.tree.kept != 0 {
		t.Errorf("%d descriptors, %d members are kept", n, tr.tree.kept)
	}
	tr.Except()
	if u, err := tr.Refresh(); err != nil || u.Processes != 15 {
		t.Errorf("%+v, %v", u, err)
	}
	tr.Close()
	if n := descriptors(t) - before; n >= 0 {
		t.Errorf("%d descriptors are left", n+2)
	}
}

func TestParseRelative(t *testing.T) {
	for _, test := range []struct {
		text string
		want relative
		ok   bool
	}{
		{"42 (sh) S 41 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 7 0 12 0", relative{41, false, 7, 2500 * time.Millisecond}, true},
		{"42 (a) R 7 (b c) Z 41 1 1 0 -1 4194560 10 20 0 0 0 0 0 0 20 -5 1 0 12 0", relative{41, true, 1, 0}, true},
		{"42 (a\nb) X 0 1 1 0 -1 4194560 10 20 0 0 0 0 0 0 20 0 0 0 12 0", relative{0, true, 0, 0}, true},
		{"42 (sh) S 41 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 7", relative{}, false}, // cut off
		{"42 (sh) S 41 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0", relative{}, false},
		{"42 (sh) S -1 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 7 0 12 0", relative{}, false},
		{"42 (sh)", relative{}, false},
		{"", relative{}, false},
	} {
		if got, ok := parseRelative([]byte(test.text)); got != test.want || ok != test.ok {
			t.Errorf("%q: %+v, %v; want %+v, %v", test.text, got, ok, test.want, test.ok)
		}
	}
}

func FuzzParseRelative(f *testing.F) {
	f.Add([]byte("42 (a) R 7 (b c) S 41 1 1 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 7 0 12 0"))
	f.Add([]byte("42 (sh) S"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, ok := parseRelative(text)
		if !ok && s != (relative{}) || s.parent < 0 || s.threads < 0 || s.used < 0 {
			t.Errorf("%q: %+v, %v", text, s, ok)
		}
		if used, _ := parseProcessStat(text); ok && used != s.used {
			t.Errorf("%q: %v, and %v as a process", text, s.used, used)
		}
	})
}

// The entries of a directory are those that the standard library finds.
func TestDirent(t *testing.T) {
	dir := t.TempDir()
	var want []int
	for i := range 300 { // more than the buffer holds
		pid := i*7919 + 1
		want = append(want, pid)
		name := strconv.Itoa(pid)
		for _, name := range []string{name, name + "x", "x" + name} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	tr := tree{proc: fd, names: make([]byte, 512)}
	defer unix.Close(fd)
	var got []int
	if err := tr.list(tr.entry(0), func(n int) error { got = append(got, n); return nil }); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func FuzzDirent(f *testing.F) {
	record := func(name string) []byte {
		r := make([]byte, 24+len(name)/8*8)
		r[16] = byte(len(r))
		copy(r[19:], name)
		return r
	}
	f.Add(append(record("42"), record("self")...))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, records []byte) {
		n, rest, ok := dirent(records)
		if n < 0 || !ok && (n != 0 || rest != nil) || ok && len(rest) >= len(records) {
			t.Errorf("%q: %d, %q, %v", records, n, rest, ok)
		}
	})
}

func BenchmarkTree(b *testing.B) {
	b.Run("50 processes", func(b *testing.B) { benchmarkTree(b, startFamily(b, 50, siblings(50))) })
	b.Run("a process of 100 threads", func(b *testing.B) { benchmarkTree(b, startFamily(b, 1, role("has threads"))) })
}

func benchmarkTree(b *testing.B, family []int) {
	for name, tr := range openTrees(b, os.Getpid()) {
		for how, read := range map[string]func() (TreeUsage, error){"Read": tr.Read, "Refresh": tr.Refresh} {
			b.Run(name+", "+how, func(b *testing.B) {
				_, _ = tr.Read()
				b.ReportAllocs()
				before, _ := SelfCPU()
				for b.Loop() {
					_, _ = read()
				}
				after, _ := SelfCPU()
				if n := len(tr.PIDs()); n != len(family) {
					b.Errorf("%d processes", n)
				}
				// What a walk costs others is processor time, whoever else is running.
				b.ReportMetric(float64(after-before)/float64(b.N*len(family)), "CPU-ns/process")
			})
		}
	}
}
