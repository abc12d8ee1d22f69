package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors"
)

// memberVariable makes this test binary a process in a control group.
const memberVariable = "MEMBER_OF_A_CONTROL_GROUP"

func init() {
	role := os.Getenv(memberVariable)
	if role == "" {
		return
	}
	if err := member(role, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func member(role string, args []string) error {
	switch role {
	case "job":
		for range 300 {
			if err := exec.Command("sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done").Run(); err != nil {
				return err
			}
		}
		return asMember(exec.Command(os.Args[0], args...), "careless").Run()
	case "careless":
		// The kernel reaps the children of a process that ignores this at once,
		// and adds their time to nobody's.
		signal.Ignore(syscall.SIGCHLD)
		burner := asMember(exec.Command(os.Args[0], args...), "burner")
		pid, err := syscall.ForkExec(burner.Path, burner.Args, &syscall.ProcAttr{Env: burner.Environ(), Files: []uintptr{0, 1, 2}})
		if err != nil {
			return err
		}
		for err == nil || errors.Is(err, syscall.EINTR) {
			_, err = syscall.Wait4(pid, nil, 0, nil)
		}
		if !errors.Is(err, syscall.ECHILD) {
			return err
		}
		return nil
	case "burner": // FILE: writes what it has used
		used, err := burn(500 * time.Millisecond)
		if err != nil {
			return err
		}
		return os.WriteFile(args[0], []byte(strconv.FormatInt(int64(used), 10)), 0o600)
	case "organiser": // GROUP: makes groups below its own, and lives in the deepest
		inner := filepath.Join(args[0], "inner", "innermost")
		for _, dir := range []string{inner, filepath.Join(args[0], "empty")} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if err := put(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid()))); err != nil {
			return err
		}
		if _, err := burn(100 * time.Millisecond); err != nil {
			return err
		}
		fmt.Println("ready")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "newcomer":
		c, err := newCgroup()
		if err == nil {
			return c.close()
		}
		fmt.Printf("%v %v\n", errors.Is(err, sensors.ErrPermission), err)
		return nil
	}
	return errors.New("there is no such role")
}

// burn works until this process has used as much time, and returns what it has.
func burn(atLeast time.Duration) (used time.Duration, err error) {
	for used < atLeast && err == nil {
		var u syscall.Rusage
		err = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		used = cpuTime(&u)
	}
	return used, err
}

func asMember(cmd *exec.Cmd, role string) *exec.Cmd {
	cmd.Env = append(os.Environ(), memberVariable+"="+role)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

func cpuTime(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// eachCgroup runs a test in a group of either version, as far as they are here.
func eachCgroup(t *testing.T, test func(t *testing.T, c *cgroup)) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Skip(err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skip(err)
	}
	for name, open := range map[string]func([]mount, []membership) (*cgroup, error){
		"version 2": newUnifiedGroup, "version 1": newAccountingGroup,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := open(parseMounts(string(mountinfo)), parseMemberships(string(own)))
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() {
				if err := c.close(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("it is still there: %v", err)
				}
			})
			test(t, c)
		})
	}
}

// born starts a command in a group.
func born(t *testing.T, c *cgroup, cmd *exec.Cmd) {
	t.Helper()
	if err := c.start(func(attr *syscall.SysProcAttr) error {
		cmd.SysProcAttr = attr
		return cmd.Start()
	}); err != nil {
		t.Fatal(err)
	}
}

// conversing starts a command in a group, and waits for its first line. It ends
// with its input, which is closed with the test or before.
func conversing(t *testing.T, c *cgroup, cmd *exec.Cmd) io.Closer {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	born(t, c, cmd)
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if !bufio.NewScanner(out).Scan() {
		t.Fatalf("%v said nothing", cmd)
	}
	return in
}

// The clock has what the job and all its descendants have used, even those that
// nobody has waited for, and nothing else.
func TestCgroupCountsEverything(t *testing.T) {
	eachCgroup(t, func(t *testing.T, c *cgroup) {
		clock, err := c.clock()
		if err != nil {
			t.Fatal(err)
		}
		defer clock.Close()
		before, err := clock.Read()
		if err != nil || before > 50*time.Millisecond {
			t.Errorf("before it starts: %v, %v", before, err)
		}
		said := filepath.Join(t.TempDir(), "used")
		job := asMember(exec.Command(os.Args[0], said), "job")
		born(t, c, job)
		if err := job.Wait(); err != nil {
			t.Fatal(err)
		}
		waited := cpuTime(job.ProcessState.SysUsage().(*syscall.Rusage))
		text, err := os.ReadFile(said)
		if err != nil {
			t.Fatal(err)
		}
		burned, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || burned == 0 {
			t.Fatal(burned, err)
		}
		got, err := clock.Read()
		if err != nil {
			t.Fatal(err)
		}
		got -= before
		want := waited + time.Duration(burned)
		t.Logf("%v of %v (%.2f %%), of which wait4 has %v", got, want, 100*got.Seconds()/want.Seconds(), waited)
		// What the burner uses to end itself, it cannot tell.
		if got.Seconds() < 0.99*want.Seconds() || got.Seconds() > 1.01*want.Seconds()+0.01 {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// Nothing of the runner itself is in the group, and no thread stays behind.
func TestCgroupHoldsTheJobAlone(t *testing.T) {
	eachCgroup(t, func(t *testing.T, c *cgroup) {
		cmd := exec.Command("sh", "-c", "echo ready; read line")
		conversing(t, c, cmd)
		pids, err := processesIn(c.dir)
		if err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
			t.Errorf("%v, %v; want %d alone", pids, err, cmd.Process.Pid)
		}
		if err := c.start(func(*syscall.SysProcAttr) error { return io.EOF }); err != io.EOF {
			t.Errorf("fork's error becomes %v", err)
		}
		pids, _ = processesIn(c.dir)
		if slices.Contains(pids, os.Getpid()) {
			t.Errorf("a thread is left in it")
		}
	})
}

// Close takes no process with it, whatever groups the job has made.
func TestCgroupClose(t *testing.T) {
	eachCgroup(t, func(t *testing.T, c *cgroup) {
		organiser := asMember(exec.Command(os.Args[0], c.dir), "organiser")
		conversing(t, c, organiser)
		// This one forks all the time.
		forking := exec.Command("sh", "-c", "echo ready; while :; do sh -c : ; done")
		conversing(t, c, forking)
		clock, err := c.clock()
		if err != nil {
			t.Fatal(err)
		}
		defer clock.Close()
		if used, err := clock.Read(); err != nil || used < 50*time.Millisecond {
			t.Errorf("%v, %v; the group below has used 100 ms", used, err)
		}
		for range 2 {
			if err := c.close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
		if _, err := clock.Read(); !errors.Is(err, sensors.ErrLost) {
			t.Errorf("its clock: %v", err)
		}
		pids, err := processesIn(c.origin)
		for _, cmd := range []*exec.Cmd{organiser, forking} {
			if err != nil || !slices.Contains(pids, cmd.Process.Pid) {
				t.Errorf("%d is not where the runner is: %v, %v", cmd.Process.Pid, pids, err)
			}
			if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("%v: %v", cmd, err)
			}
		}
	})
}

// A group that is busy at first is removed a little later. This one is a folder
// in which the list of processes is a pipe, which keeps it busy and tells when
// it is looked at.
func TestCgroupCloseTriesAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "group")
	procs := filepath.Join(dir, "cgroup.procs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(procs, 0o600); err != nil {
		t.Skip(err)
	}
	go func() {
		for range 2 {
			looked, err := os.OpenFile(procs, os.O_WRONLY, 0)
			if err != nil {
				return
			}
			if err := looked.Close(); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // for the reader to see the end
		}
		_ = os.Remove(procs)
	}()
	if err := (&cgroup{dir: dir, origin: dir}).close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// What cannot be moved is left, and said.
func TestCgroupThatCannotBeRemoved(t *testing.T) {
	eachCgroup(t, func(t *testing.T, c *cgroup) {
		conversing(t, c, exec.Command("sh", "-c", "echo ready; read line"))
		stuck := &cgroup{dir: c.dir, origin: t.TempDir()} // where no process can be put
		start := time.Now()
		err := stuck.close()
		if !errors.Is(err, syscall.EBUSY) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), c.dir) {
			t.Errorf("%v", err)
		}
		if again := stuck.close(); again != err {
			t.Errorf("then %v", again)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A runner that is killed leaves its group; the next one removes it, once it is
// empty.
func TestCgroupsOfKilledRunners(t *testing.T) {
	eachCgroup(t, func(t *testing.T, c *cgroup) {
		const nobody = 1 << 30 // beyond the largest number of a process
		make := func(name string) string {
			dir := filepath.Join(c.origin, name)
			t.Cleanup(func() {
				for _, dir := range groupsBelow(dir) {
					_ = os.Remove(dir)
				}
			})
			if err := os.MkdirAll(filepath.Join(dir, "inner"), 0o755); err != nil {
				t.Fatal(err)
			}
			return dir
		}
		stale := make(fmt.Sprintf("%s%d-test", groupPrefix, nobody))
		inUse := make(fmt.Sprintf("%s%d-test2", groupPrefix, nobody))
		alive := make(fmt.Sprintf("%s%d-test", groupPrefix, os.Getppid()))
		others := make(fmt.Sprintf("test-%s%d-test", groupPrefix, nobody))
		cmd := exec.Command("sh", "-c", "echo ready; read line")
		in := conversing(t, c, cmd)
		if err := put(filepath.Join(inUse, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid))); err != nil {
			t.Fatal(err)
		}
		next, err := makeGroup(c.origin)
		if err != nil {
			t.Fatal(err)
		}
		if err := next.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("an empty one of nobody: %v", err)
		}
		for _, dir := range []string{inUse, filepath.Join(inUse, "inner"), alive, others, c.dir} {
			if _, err := os.Stat(dir); err != nil {
				t.Error(err)
			}
		}
		in.Close()
		_ = cmd.Wait()
	})
}

// A thread that finds no way back is not used again.
func TestCgroupThreadIsThrownAway(t *testing.T) {
	eachCgroup(t, func(t *testing.T, c *cgroup) {
		if c.handle != nil {
			t.Skip("no thread is moved")
		}
		origin := t.TempDir()
		if err := os.Symlink("/dev/full", filepath.Join(origin, "tasks")); err != nil {
			t.Skip(err)
		}
		lost := &cgroup{dir: c.dir, origin: origin}
		var thread int
		if err := lost.start(func(*syscall.SysProcAttr) error { thread = unix.Gettid(); return nil }); err != nil {
			t.Fatal(err)
		}
		if thread == os.Getpid() {
			t.Skip("the first thread cannot end; close moves it back")
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", thread)); err != nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("thread %d goes on in the group", thread)
			}
		}
	})
}

func TestCgroupTakesNoProcess(t *testing.T) {
	for name, c := range map[string]*cgroup{
		"no way in":   {dir: t.TempDir(), origin: withFile(t, "tasks", "")},
		"no way back": {dir: withFile(t, "tasks", ""), origin: t.TempDir()},
	} {
		forked := false
		err := c.start(func(*syscall.SysProcAttr) error { forked = true; return nil })
		if !errors.Is(err, errOutside) || !errors.Is(err, sensors.ErrAbsent) || forked {
			t.Errorf("%s: %v, forked %v", name, err, forked)
		}
	}
}

func withFile(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newcomer is this test binary as an unprivileged user, who makes a group and says
// why not.
func newcomer(t *testing.T) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	// The folder of the test binary may be closed to others.
	self, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	cmd := exec.Command("/proc/self/fd/3")
	cmd.Env = append(os.Environ(), memberVariable+"=newcomer")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{self}
	return cmd
}

var anybody = &syscall.Credential{Uid: 65534, Gid: 65534}

func TestCgroupOfAnUnprivilegedUser(t *testing.T) {
	if c, err := newCgroup(); err != nil {
		t.Skip(err)
	} else if err := c.close(); err != nil {
		t.Fatal(err)
	}
	cmd := newcomer(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: anybody}
	said, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(said))
	if err != nil || !strings.HasPrefix(text, "true ") || !strings.Contains(text, "permission denied") ||
		!strings.Contains(text, "systemd-run") || strings.Contains(text, "\n") {
		t.Errorf("%v: %q", err, text)
	}
}

// Whoever is given a group may make others in it.
func TestCgroupOfADelegatedUser(t *testing.T) {
	eachCgroup(t, func(t *testing.T, c *cgroup) {
		cmd := newcomer(t)
		for _, name := range []string{"", "cgroup.procs", "tasks", "cgroup.subtree_control"} {
			if err := os.Chown(filepath.Join(c.dir, name), int(anybody.Uid), int(anybody.Gid)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		var said []byte
		err := c.start(func(attr *syscall.SysProcAttr) (err error) {
			attr.Credential = anybody
			cmd.SysProcAttr = attr
			said, err = cmd.CombinedOutput()
			return err
		})
		if err != nil || len(said) > 0 {
			t.Errorf("%v: %s", err, said)
		}
	})
}

func TestCgroupDirectories(t *testing.T) {
	for _, test := range []struct {
		name, mountinfo, own string
		v2, v1               []string
	}{
		{"systemd, version 2, a user's terminal",
			"24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw\n" +
				"35 25 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			"0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n",
			[]string{"/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope"}, nil},
		{"systemd, version 1",
			"25 18 0:20 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755\n" +
				"26 25 0:21 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,xattr,release_agent=/usr/lib/systemd/systemd-cgroups-agent,name=systemd\n" +
				"29 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,cpuacct,cpu\n" +
				"30 25 0:25 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,cpuset\n",
			"11:cpuset:/\n4:cpuacct,cpu:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-3.scope\n",
			nil, []string{"/sys/fs/cgroup/cpu,cpuacct/user.slice"}},
		{"both, each controller for itself",
			"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n" +
				"32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n" +
				"33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			"4:memory:/process_api/2f6b\n2:cpuacct:/\n1:cpu:/\n0::/\n",
			[]string{"/sys/fs/cgroup/unified"}, []string{"/sys/fs/cgroup/cpuacct"}},
		{"docker, version 1: the mount begins at the container's group",
			"1000 999 0:29 /docker/4be5 /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:13 - cgroup cgroup rw,cpu,cpuacct\n",
			"5:cpu,cpuacct:/docker/4be5\n",
			nil, []string{"/sys/fs/cgroup/cpu,cpuacct"}},
		{"docker, version 2, in a namespace",
			"1130 1129 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n",
			"0::/\n",
			[]string{"/sys/fs/cgroup"}, nil},
		{"a namespace with the mount of the outside",
			"1130 1129 0:26 /../.. /sys/fs/cgroup ro,relatime - cgroup2 cgroup rw\n", "0::/\n", nil, nil},
		{"a process from outside the namespace",
			"1130 1129 0:26 / /sys/fs/cgroup ro,relatime - cgroup2 cgroup rw\n", "0::/../other\n", nil, nil},
		{"a part of the hierarchy",
			"50 1 0:26 /docker /mnt/a rw - cgroup2 none rw\n51 1 0:26 /dock /mnt/b rw - cgroup2 none rw\n52 1 0:26 /docker/4be5/x /mnt/c rw - cgroup2 none rw\n",
			"0::/docker/4be5\n",
			[]string{"/mnt/a/4be5"}, nil},
		{"names that need care",
			`50 1 0:26 /a\040b\134c /mnt/with\040space\011tab rw shared:1 master:2 - cgroup2 none rw` + "\n",
			"0::/a b\\c/d:e\n",
			[]string{"/mnt/with space\ttab/d:e"}, nil},
		{"a mount without a source",
			"50 1 0:26 / /mnt rw - cgroup2  rw\n51 1 0:27 / /acct rw - cgroup  rw,cpuacct\n", "0::/a\n3:cpuacct:/b\n",
			[]string{"/mnt/a"}, []string{"/acct/b"}},
		{"a named hierarchy called cpuacct", "50 1 0:26 / /mnt rw - cgroup none rw,name=cpuacct\n", "1:name=cpuacct:/\n", nil, nil},
		{"none", "24 30 0:22 / /proc rw - proc proc rw\n", "", nil, nil},
		{"cut off", "50 1 0:26 / /mnt rw - cgroup2\n50 1 0:26 /\n", "0::\n0:\n", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			mounts, memberships := parseMounts(test.mountinfo), parseMemberships(test.own)
			if got := directories(mounts, memberships, ""); !slices.Equal(got, test.v2) {
				t.Errorf("version 2: %q, want %q", got, test.v2)
			}
			if got := directories(mounts, memberships, "cpuacct"); !slices.Equal(got, test.v1) {
				t.Errorf("version 1: %q, want %q", got, test.v1)
			}
		})
	}
}

func FuzzCgroupDirectories(f *testing.F) {
	f.Add("35 25 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", "0::/user.slice\n")
	f.Add(`29 25 0:24 /a\040b /mnt/\134 rw - cgroup cgroup rw,cpuacct,cpu`, "4:cpuacct,cpu:/a b/c:d\n")
	f.Fuzz(func(t *testing.T, mountinfo, own string) {
		mounts, memberships := parseMounts(mountinfo), parseMemberships(own)
		for _, controller := range []string{"", "cpuacct"} {
			for _, dir := range directories(mounts, memberships, controller) {
				if !path.IsAbs(dir) || path.Clean(dir) != dir {
					t.Errorf("%q, %q: %q", mountinfo, own, dir)
				}
				if !slices.ContainsFunc(mounts, func(m mount) bool {
					point := strings.TrimSuffix(path.Clean(m.point), "/")
					return dir == point || strings.HasPrefix(dir, point+"/")
				}) {
					t.Errorf("%q, %q: %q is below no mount", mountinfo, own, dir)
				}
			}
		}
	})
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`a\040b`: "a b", `\134040`: `\040`, `\011\012`: "\t\n", `a\04`: `a\04`, `\`: `\`, `\999`: `\999`, `\777`: `\777`, `\+12`: `\+12`, "": "",
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// Of several directories that the runner's group may be, it is the one with the
// runner in it.
func TestOwnGroup(t *testing.T) {
	strangers := withFile(t, "cgroup.procs", "1\n0\n")
	ours := withFile(t, "cgroup.procs", "1\n"+strconv.Itoa(os.Getpid())+"\n")
	in := []membership{{unified: true, path: "/"}}
	at := func(dirs ...string) (mounts []mount) {
		for _, dir := range dirs {
			mounts = append(mounts, mount{root: "/", point: dir, unified: true})
		}
		return mounts
	}
	if got, err := ownGroup(at(strangers, ours), in, ""); got != ours || err != nil {
		t.Errorf("%q, %v; want %q", got, err, ours)
	}
	for _, test := range []struct {
		name   string
		mounts []mount
		want   error
	}{
		{"not mounted", nil, sensors.ErrAbsent},
		{"without the runner", at(strangers), sensors.ErrUnsupported},
		{"not there", at(filepath.Join(ours, "gone")), sensors.ErrUnsupported},
		{"no numbers", at(withFile(t, "cgroup.procs", "x\n")), sensors.ErrUnsupported},
	} {
		if got, err := ownGroup(test.mounts, in, ""); got != "" || !errors.Is(err, test.want) {
			t.Errorf("%s: %q, %v; want %v", test.name, got, err, test.want)
		}
	}
}

// A group is only made where the job runs in it as it would outside.
func TestCgroupChangesNothing(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		says  string // of the reason, "" where a group can be made
	}{
		{"a root without controllers", map[string]string{"cgroup.subtree_control": "\n"}, ""},
		{"a scope", map[string]string{"cgroup.subtree_control": "\n", "cpu.max": "max 100000\n", "memory.max": "max\n", "memory.high": "max\n"}, ""},
		{"a root with controllers", map[string]string{"cgroup.subtree_control": "cpu memory\n"}, "cpu memory"},
		{"a container with half a processor", map[string]string{"cgroup.subtree_control": "\n", "cpu.max": "50000 100000\n"}, "cpu.max (50000 100000)"},
		{"a container with little memory", map[string]string{"cgroup.subtree_control": "\n", "cpu.max": "max 100000\n", "memory.max": "1048576\n"}, "memory.max (1048576)"},
		{"a scope with a soft limit", map[string]string{"cgroup.subtree_control": "\n", "memory.high": "0\n"}, "memory.high (0)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := neutral(dir)
			if test.says == "" && err != nil || test.says != "" && (!errors.Is(err, sensors.ErrUnsupported) || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v, want %q", err, test.says)
			}
		})
	}
	t.Run("none is made", func(t *testing.T) {
		dir := withFile(t, "cgroup.procs", strconv.Itoa(os.Getpid())+"\n")
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("cpu\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := newUnifiedGroup([]mount{{root: "/", point: dir, unified: true}}, []membership{{unified: true, path: "/"}})
		if !errors.Is(err, sensors.ErrUnsupported) || !strings.Contains(err.Error(), "(cpu)") {
			t.Errorf("%v", err)
		}
	})
	t.Run("accounting together with the scheduler", func(t *testing.T) {
		dir := withFile(t, "cgroup.procs", strconv.Itoa(os.Getpid())+"\n")
		mounts := []mount{{root: "/", point: dir, options: []string{"rw", "cpu", "cpuacct"}}}
		_, err := newAccountingGroup(mounts, []membership{{controllers: []string{"cpu", "cpuacct"}, path: "/"}})
		if !errors.Is(err, sensors.ErrUnsupported) || !strings.Contains(err.Error(), "cpu cpuacct") {
			t.Errorf("%v", err)
		}
	})
}

func BenchmarkNewCgroup(b *testing.B) {
	for b.Loop() {
		c, err := newCgroup()
		if err != nil {
			b.Skip(err)
		}
		if err := c.close(); err != nil {
			b.Fatal(err)
		}
	}
}
