package main

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/sensors/host"
)

// A job that is sampled every second for a minute, by what a reading takes.
func TestPace(t *testing.T) {
	seconds := func(from, to, step int) (all []int) {
		for s := from; s <= to; s += step {
			all = append(all, s)
		}
		return all
	}
	for _, test := range []struct {
		name    string
		all     time.Duration // a reading of all takes
		known   time.Duration // one of those that are known takes
		reaped  []int         // seconds before which a process has been reaped
		want    []int         // readings of all
		between int           // readings of those that are known
	}{
		{"a small job", 100 * time.Microsecond, 50 * time.Microsecond, nil,
			append([]int{0, 1, 2, 4, 8}, seconds(13, 60, 5)...), 46},
		{"processes are reaped", 100 * time.Microsecond, 50 * time.Microsecond, []int{5, 6, 40},
			append([]int{0, 1, 2, 4, 5, 6, 11, 16, 21, 26, 31, 36, 40}, seconds(45, 60, 5)...), 44},
		// 0.5 % of the time, at most.
		{"thousands of processes", 50 * time.Millisecond, 20 * time.Millisecond, []int{35},
			seconds(0, 60, 10), 0},
		{"only a reading of all takes long", 20 * time.Millisecond, 5 * time.Millisecond, nil,
			[]int{0, 4, 8, 13, 18, 23, 28, 33, 38, 43, 48, 53, 58}, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p pace
			var ended time.Duration
			var all []int
			known := 0
			for s := range 61 {
				if slices.Contains(test.reaped, s) {
					ended += time.Second
				}
				now := time.Unix(1e9+int64(s), 0)
				switch how := p.due(now, ended); how {
				case ofAll:
					all = append(all, s)
					p.took(how, now, test.all, ended)
				case ofTheKnown:
					known++
					p.took(how, now, test.known, ended)
				}
			}
			if !slices.Equal(all, test.want) || known != test.between {
				t.Errorf("all of it at %v, those that are known %d times; want %v and %d", all, known, test.want, test.between)
			}
		})
	}
}

// Between two walks the accounts open nothing. The last one is a walk in any case.
func TestAccountsOpenNothing(t *testing.T) {
	tree, err := host.OpenTree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	a := accounts{tree: tree}
	defer a.close()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait()
	}()
	pid := cmd.Process.Pid
	ended := func() time.Duration { return 0 }
	usage := func() {
		t.Helper()
		a.pace.next = time.Time{} // long ago
		if u, err := a.usage(ended); err != nil || !u.HasMemory {
			t.Errorf("%+v, %v", u, err)
		}
	}
	usage()
	if !a.Owns(pid) {
		t.Fatal("the child is not in the tree")
	}
	if a.pace.next.IsZero() {
		t.Error("what a reading took is not kept")
	}
	a.pace.whole = time.Now().Add(time.Hour)

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 3, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, opened := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	usage()
	owned := a.Owns(pid)
	// That the tree cannot be walked shows that it is tried.
	a.finish()
	usage()
	lost := !a.Owns(pid)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	switch {
	case !errors.Is(opened, syscall.EMFILE):
		t.Errorf("a file could be opened: %v", opened)
	case !owned:
		t.Error("the child was not counted")
	case !lost:
		t.Error("the last reading was not a walk")
	}
	usage()
	if !a.Owns(pid) {
		t.Error("the child is not counted after an error")
	}
}

// What the job has used never falls, though its processes end, whoever begins
// meanwhile; nothing is counted twice.
func TestAccountsNeverFall(t *testing.T) {
	tree, err := host.OpenTree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	a := accounts{tree: tree}
	defer a.close()
	cmd := exec.Command("sh", "-c", `n=0; while [ $n -lt 8 ]; do
		sh -c 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done' & sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'
		wait; n=$((n+1)); done`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	stop := make(chan error, 1)
	go func() { stop <- waitUnreaped(cmd.Process.Pid) }()
	none := func() time.Duration { return 0 }
	var most time.Duration
	for running := true; running; time.Sleep(2 * time.Millisecond) {
		a.pace.next = time.Time{}
		u, err := a.usage(none)
		if err != nil || u.CPU < most {
			t.Fatalf("%v after %v, %v", u.CPU, most, err)
		}
		most = u.CPU
		select {
		case err := <-stop:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	// Each of four times is rounded down to 10 ms.
	if most > used+40*time.Millisecond || most < used/2 {
		t.Errorf("%v counted of %v", most, used)
	}
}

// waitUnreaped waits until a child has ended, and leaves it to be reaped.
func waitUnreaped(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
