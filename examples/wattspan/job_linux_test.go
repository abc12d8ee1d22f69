package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/tracker"
)

// burner builds the program in testdata/burn, once: a small one, that starts as
// fast as the commands of a shell.
var burner = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(runnerFolder, "burn")
	if said, err := exec.Command("go", "build", "-o", binary, "./testdata/burn").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, said)
	}
	return binary, nil
})

// nobody is the user that tests run as where they must not be root.
const nobody = 65534

// burned returns the CPU time that the processes say they have used.
func burned(t *testing.T, log string) (total time.Duration, processes int) {
	t.Helper()
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var used int64
		if _, err := fmt.Sscan(line, &used); err != nil {
			t.Fatal(err)
		}
		total += time.Duration(used)
		processes++
	}
	return total, processes
}

// accountings are the ways in which this machine lets a runner count.
func accountings() map[string]*syscall.SysProcAttr {
	ways := map[string]*syscall.SysProcAttr{tracker.AccountingTree: nil}
	group, err := newCgroup()
	if err == nil {
		_ = group.close()
		ways[tracker.AccountingCgroup] = nil
	}
	if os.Getuid() == 0 {
		// Who may not make a group walks the tree.
		ways[tracker.AccountingTree] = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	} else if err == nil {
		delete(ways, tracker.AccountingTree)
	}
	return ways
}

// count runs a script of the shell under the runner, in which "$BURN" 1s "$LOG"
// burns for a second. It returns the report, and the log of what has been burned.
func count(t *testing.T, as *syscall.SysProcAttr, script string, flags ...string) (report tracker.Report, log string) {
	t.Helper()
	binary, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	burn, err := burner()
	if err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(log, 0o666); err != nil {
		t.Fatal(err)
	}
	open(t, filepath.Dir(log))
	open(t, filepath.Dir(binary))
	r := startAs(t, as, []string{"LOG=" + log, "BURN=" + burn}, append([]string{"--json", "-"}, flags...), "sh", "-c", script)
	<-r.ended
	if err := json.Unmarshal(r.stdout.Bytes(), &report); err != nil || report.Job.CPUSeconds == nil {
		t.Fatalf("%v\n%s", err, &r.stderr)
	}
	return report, log
}

// Three hundred children that live for an instant and an orphan that burns for a
// second are all counted.
func TestEveryProcessCounts(t *testing.T) {
	const script = `
		i=0; while [ $i -lt 300 ]; do "$BURN" 2ms "$LOG"; i=$((i+1)); done
		("$BURN" 1s "$LOG" &)
		until [ "$(wc -l < "$LOG")" = 301 ]; do sleep 0.05; done`
	for way, as := range accountings() {
		t.Run(way, func(t *testing.T) {
			r, log := count(t, as, script)
			want, n := burned(t, log)
			if n != 301 {
				t.Fatalf("%d processes", n)
			}
			// The shell, and what a process uses when it ends, come on top.
			counted := *r.Job.CPUSeconds
			t.Logf("counted %.3f s, the processes themselves say %.3f s: %.4g %%", counted, want.Seconds(), 100*counted/want.Seconds())
			if counted < 0.99*want.Seconds() || counted > 1.5*want.Seconds() {
				t.Errorf("counted %.3f s, the processes themselves say %.3f s", counted, want.Seconds())
			}
			if r.Job.Accounting != way {
				t.Errorf("counted by %s, want %s", r.Job.Accounting, way)
			}
		})
	}
}

// A program that reads the node's meter is not the job's, however much it uses. It
// is started every 5 s.
func TestMetersAreNotTheJobs(t *testing.T) {
	r, log := count(t, accountings()[tracker.AccountingTree], `"$BURN" 50ms "$LOG"; sleep 6; "$BURN" 50ms "$LOG"`,
		"--node-meter", "command:i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo 100 W")
	want, _ := burned(t, log)
	if counted := *r.Job.CPUSeconds; counted < 0.99*want.Seconds() || counted > 1.5*want.Seconds()+0.02 {
		t.Errorf("counted %.3f s, the processes themselves say %.3f s", counted, want.Seconds())
	}
	if r.Node.Meter == nil || r.Energy.Node == nil {
		t.Errorf("no meter: %+v", r.Node)
	}
}

// An orphan that lives on is counted so far, and not waited for.
func TestOrphanThatLivesOn(t *testing.T) {
	for way, as := range accountings() {
		t.Run(way, func(t *testing.T) {
			r, log := count(t, as, `("$BURN" 30s "$LOG" >/dev/null 2>&1 </dev/null & echo $! > "$LOG"); sleep 2`)
			var orphan int
			text, err := os.ReadFile(log)
			if err == nil {
				_, err = fmt.Sscan(string(text), &orphan)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(orphan, syscall.SIGKILL) }()
			if err := syscall.Kill(orphan, 0); err != nil {
				t.Fatalf("the orphan has ended: %v", err)
			}
			// On a loaded machine it gets less than all of the time.
			if cpu := *r.Job.CPUSeconds; cpu < 0.3 || cpu > 2*r.Run.Duration {
				t.Errorf("%v s of CPU time counted in %v s", cpu, r.Run.Duration)
			}
		})
	}
}

// What leaves the job's group by itself still counts.
func TestLeavingTheGroup(t *testing.T) {
	group, err := newCgroup()
	if err != nil {
		t.Skip(err)
	}
	origin := group.origin
	_ = group.close()
	elsewhere := filepath.Join(origin, fmt.Sprintf("elsewhere-%d", os.Getpid()))
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Skip(err)
	}
	defer os.Remove(elsewhere)
	r, log := count(t, nil, `echo $$ > `+elsewhere+`/cgroup.procs && "$BURN" 500ms "$LOG"`)
	if used, n := burned(t, log); n != 1 || *r.Job.CPUSeconds < 0.99*used.Seconds() {
		t.Errorf("%v s counted of %v in %d processes", *r.Job.CPUSeconds, used, n)
	}
}

// Children that a process had before it became the runner are none of the job's,
// dead or alive.
func TestEarlierChildren(t *testing.T) {
	for way, as := range accountings() {
		t.Run(way, func(t *testing.T) {
			burn, err := burner()
			if err != nil {
				t.Fatal(err)
			}
			open(t, filepath.Dir(burn))
			log := filepath.Join(t.TempDir(), "log")
			if err := errors.Join(os.WriteFile(log, nil, 0o600), os.Chmod(log, 0o666)); err != nil {
				t.Fatal(err)
			}
			open(t, filepath.Dir(log))
			cmd := exec.Command("sh", "-c", `"$BURN" 300ms "$LOG" & "$BURN" 30s "$LOG" >/dev/null 2>&1 & exec "$W" run --quiet --json - -- sleep 1.5`)
			cmd.Env = append(cleanEnvironment(), "BURN="+burn, "LOG="+log, "W="+binary(t))
			cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Setpgid: true}
			if as != nil {
				cmd.SysProcAttr.Credential = as.Credential
			}
			out, err := cmd.Output()
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			var r tracker.Report
			if err := errors.Join(err, json.Unmarshal(out, &r)); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := *r.Job.CPUSeconds; got > 0.2 {
				t.Errorf("%v s of CPU time counted for a sleep", got)
			}
		})
	}
}
