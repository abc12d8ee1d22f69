//go:build unix

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/tracker"
)

// shellRun runs a script in which "$W" is the runner, in a folder of its own.
func shellRun(t *testing.T, script string) (dir, output string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(cleanEnvironment(), "W="+binary(t), "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Whatever the script leaves running does not hold up the test.
	cmd.WaitDelay = patience
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir, string(out)
}

// isReport checks that a text is a report.
func isReport(t *testing.T, text string) {
	t.Helper()
	var r tracker.Report
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Schema != tracker.Schema {
		t.Errorf("%v: no report: %q", err, text)
	}
}

func content(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Nobody who stops reading ends the runner, the command or the report.
func TestBrokenPipe(t *testing.T) {
	dir, _ := shellRun(t, `
		("$W" run --progress 1s --json r.json -- sh -c 'sleep 2.5; echo x > done; exit 3'; echo $? > code) 2>&1 | true
		("$W" run --quiet --json - -- sh -c 'exit 4'; echo $? > code2) 2>/dev/null | true`)
	// A shell waits for the last of a pipeline only.
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(50 * time.Millisecond) {
		if text, err := os.ReadFile(filepath.Join(dir, "code2")); err == nil && len(text) > 0 {
			break
		}
	}
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(50 * time.Millisecond) {
		if text, err := os.ReadFile(filepath.Join(dir, "code")); err == nil && len(text) > 0 {
			break
		}
	}
	if got := content(t, dir, "code") + content(t, dir, "code2"); got != "3\n4\n" {
		t.Errorf("exit codes %q", got)
	}
	if got := content(t, dir, "done"); got != "x\n" {
		t.Errorf("the command was not let to its end: %q", got)
	}
	isReport(t, content(t, dir, "r.json"))
}

// The report goes where a link leads, and into what is no file of the user's.
func TestReportIsWrittenThrough(t *testing.T) {
	dir, _ := shellRun(t, `
		echo old > target; ln -s target link; "$W" run --quiet --json link -- true
		"$W" run --quiet --json /dev/stdout -- echo hello > both
		"$W" run --quiet --json /dev/fd/7 -- true 7> seven
		mkfifo pipe; cat pipe > piped & "$W" run --quiet --json pipe -- true; wait`)
	if info, err := os.Lstat(filepath.Join(dir, "link")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is one no more: %v, %v", info, err)
	}
	isReport(t, content(t, dir, "target"))
	before, report, _ := strings.Cut(content(t, dir, "both"), "\n")
	if before != "hello" {
		t.Errorf("what the command wrote is %q", before)
	}
	isReport(t, report)
	isReport(t, content(t, dir, "seven"))
	isReport(t, content(t, dir, "piped"))
}

// A report that cannot be written where it should is kept elsewhere, and the exit
// code is the command's.
func TestReportIsKept(t *testing.T) {
	for name, script := range map[string]string{
		"the job removes the folder": `mkdir gone; "$W" run --quiet --json gone/r.json -- sh -c 'rm -r gone; exit 3'; echo code $?`,
		"a pipe that nobody reads":   `mkfifo pipe; "$W" run --quiet --json pipe -- sh -c 'exit 3'; echo code $?`,
	} {
		t.Run(name, func(t *testing.T) {
			_, said := shellRun(t, script)
			_, path, found := strings.Cut(said, "; it is in ")
			path, rest, _ := strings.Cut(path, "\n")
			if !found || rest != "code 3\n" {
				t.Fatalf("it says %q", said)
			}
			isReport(t, content(t, path))
		})
	}
}

// A new report has the permissions that the umask leaves, a replaced one its own.
func TestReportPermissions(t *testing.T) {
	dir, _ := shellRun(t, `umask 027; "$W" run --quiet --json new -- true; : > old; chmod 604 old; "$W" run --quiet --json old -- true`)
	for name, want := range map[string]os.FileMode{"new": 0o640, "old": 0o604} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

// Signals that were ignored are ignored by the command; Go alone cannot tell all.
func TestIgnoredSignalsReachTheCommand(t *testing.T) {
	if !cgo {
		t.Skip("built without cgo")
	}
	_, said := shellRun(t, `
		trap '' TERM; "$W" run --quiet -- sh -c 'echo ready > ready; sleep 0.5; exit 6' & 
		until [ -e ready ]; do sleep 0.05; done; kill -TERM $!; wait $!; echo code $?
		trap '' PIPE; "$W" run --quiet -- sh -c 'yes 2>/dev/null; echo yes $? >&2' | head -n 1 > /dev/null; sleep 0.2`)
	if said != "code 6\nyes 1\n" {
		t.Errorf("%q", said)
	}
}

// A command that handles a signal it was to ignore gets it, as without the runner.
func TestIgnoredSignalsAreForwarded(t *testing.T) {
	c := converse(t, false, []string{listenVariable + "=1"}, "sh", "-c", `trap "" INT HUP; exec "$0" run -- "$1"`, binary(t), os.Args[0])
	c.expect(t, "listening")
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		_ = c.cmd.Process.Signal(s)
		c.expect(t, "got "+s.String())
	}
	c.say(t, "2\n")
	if code := c.exit(t); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

// Without a PATH the system's programs are found all the same, as by execvp.
func TestWithoutPath(t *testing.T) {
	if _, said := shellRun(t, `unset PATH; "$W" run --quiet -- ls -d /; echo code $?`); said != "/\ncode 0\n" {
		t.Errorf("%q", said)
	}
	if _, said := shellRun(t, `PATH=; "$W" run --quiet -- ls; echo code $?`); !strings.HasSuffix(said, "code 127\n") {
		t.Errorf("%q", said)
	}
}
