package command

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The runner takes care of orphans and waits for all its children: it reaps the
// programs of this package too, whatever os/exec would say to that.
func TestUnderAReaper(t *testing.T) {
	if os.Getenv("WATTSPAN_TEST_REAPER") != "" {
		reaper()
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUnderAReaper$")
	cmd.Env = append(os.Environ(), "WATTSPAN_TEST_REAPER=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all is well\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// reaper does as the runner does while a meter is asked, and says what was wrong.
func reaper() {
	complain := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	job := exec.Command("sleep", "1000")
	if err := job.Start(); err != nil {
		complain("%v", err)
		return
	}
	var reaped, foreign atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WUNTRACED, nil)
			switch {
			case err == syscall.EINTR:
			case err != nil || pid == job.Process.Pid:
				return
			case Reaped(pid):
				reaped.Add(1)
			default:
				foreign.Add(1)
			}
		}
	}()

	const rounds = 40
	s, omitted := Config{Shell: "echo 120 W; exit 0"}.open(context.Background(), 0, time.Now)
	if s == nil {
		complain("%+v", omitted)
		return
	}
	p := s.(*sensor)
	for range rounds {
		q, err := p.meter.ask(context.Background())
		if err != nil || q.Power != 120 {
			complain("%+v, %v", q, err)
		}
	}
	// Its end is known all the same.
	if _, omitted := (Config{Shell: "echo 99 W; exit 3"}).open(context.Background(), 0, time.Now); len(omitted) != 1 ||
		!strings.Contains(omitted[0].Reason, "code 3") {
		complain("a failure: %+v", omitted)
	}
	// And at the deadline all of it is killed.
	if _, omitted := (Config{Shell: "sleep 1000 & sleep 1000", Every: 50 * time.Millisecond}).open(context.Background(), 0, time.Now); len(omitted) != 1 {
		complain("a hang: %+v", omitted)
	}
	if err := s.Close(); err != nil {
		complain("%v", err)
	}
	// Whoever reaped them, none is left, and none was the job's: the shells by
	// either, their orphans by the loop.
	for end := time.Now().Add(10 * time.Second); len(descendants()) > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			complain("children: %v, the job is %d", descendants(), job.Process.Pid)
			break
		}
	}
	if !slices.Equal(descendants(), []int{job.Process.Pid}) {
		complain("the job was touched: %v", descendants())
	}
	_ = job.Process.Kill()
	<-ended
	if left := Children(nil); len(left) > 0 {
		complain("kept: %v", left)
	}
	// The loop waits all the time, so it gets most of them.
	if reaped.Load() == 0 {
		complain("no program was reaped as one of this package (%d foreign)", foreign.Load())
		return
	}
	runtime.KeepAlive(job)
	fmt.Println("all is well")
}

// The program has a session of its own: the keyboard's interrupt is not for it, and
// it can ask nobody for a password.
func TestSession(t *testing.T) {
	p := &program{argv: shell(`read -r pid name state parent group session rest </proc/$$/stat; echo $session $$`)}
	text, err := p.read(context.Background())
	var session, pid int
	_, _ = fmt.Sscan(text, &session, &pid)
	own, _ := unix.Getsid(0)
	if err != nil || session == 0 || session == own || session != p.last {
		t.Errorf("session %d of %d, %v; this one has %d", session, p.last, err, own)
	}
}

// descendants returns the children of this process.
func descendants() (pids []int) {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		f, err := os.Open("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue
		}
		words := bufio.NewScanner(f)
		words.Split(bufio.ScanWords)
		for words.Scan() {
			var pid int
			_, _ = fmt.Sscan(words.Text(), &pid)
			pids = append(pids, pid)
		}
		_ = f.Close()
	}
	return pids
}
