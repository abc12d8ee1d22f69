package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/tracker"
)

// burnVariable makes this test binary a command that uses some CPU time, and adds
// what it has used to the file that burnLog names.
const (
	burnVariable = "BURN_FOR"
	burnLog      = "BURN_LOG"
)

func init() {
	text := os.Getenv(burnVariable)
	if text == "" {
		return
	}
	length, err := time.ParseDuration(text)
	for err == nil && ownCPU() < length {
	}
	log, err := os.OpenFile(os.Getenv(burnLog), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintln(log, int64(ownCPU()))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func ownCPU() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

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

// count runs a script of the shell under the runner, in which "$BURN" burns. It
// returns the report, and the log of what has been burned.
func count(t *testing.T, as *syscall.SysProcAttr, script string) (report tracker.Report, log string) {
	t.Helper()
	binary, err := runner()
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
	r := startAs(t, as, []string{burnLog + "=" + log, "BURN=" + reachable(t, os.Args[0])}, []string{"--json", "-"}, "sh", "-c", script)
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
		i=0; while [ $i -lt 300 ]; do BURN_FOR=2ms "$BURN"; i=$((i+1)); done
		(BURN_FOR=1s "$BURN" &)
		until [ "$(wc -l < "$BURN_LOG")" = 301 ]; do sleep 0.05; done`
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

// An orphan that lives on is counted so far, and not waited for.
func TestOrphanThatLivesOn(t *testing.T) {
	for way, as := range accountings() {
		t.Run(way, func(t *testing.T) {
			r, log := count(t, as, `(BURN_FOR=30s "$BURN" >/dev/null 2>&1 </dev/null & echo $! > "$BURN_LOG"); sleep 2`)
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

// reachable returns a copy of a program that everybody can execute.
func reachable(t *testing.T, program string) string {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open(t, dir)
	path := filepath.Join(dir, "burn")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
