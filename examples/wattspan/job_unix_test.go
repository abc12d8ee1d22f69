//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/wattspan/wattspan/tracker"
)

// listenVariable makes this test binary a command that says what signals it gets,
// and ends with the exit code that it reads.
const listenVariable = "LISTEN_TO_SIGNALS"

func init() {
	if os.Getenv(listenVariable) == "" {
		return
	}
	got := make(chan os.Signal, 100)
	signal.Notify(got)
	fmt.Printf("listening %d %d\n", os.Getpid(), os.Getppid())
	go func() {
		for s := range got {
			if s != syscall.SIGURG && s != syscall.SIGCHLD { // Go's own
				fmt.Println("got", strings.ReplaceAll(s.String(), " ", "-"))
			}
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if code, err := strconv.Atoi(lines.Text()); err == nil {
			os.Exit(code)
		}
		fmt.Println("read", lines.Text())
	}
	os.Exit(99)
}

// conversation is a program that a test talks with.
type conversation struct {
	cmd    *exec.Cmd
	in     io.Writer
	lines  chan string
	report string
	seen   []string
}

// converse starts a program, on a terminal of its own or on pipes.
func converse(t *testing.T, tty bool, env []string, argv ...string) *conversation {
	t.Helper()
	c := &conversation{cmd: exec.Command(argv[0], argv[1:]...), lines: make(chan string, 1000)}
	c.cmd.Env = append(append(cleanEnvironment(), "TERM=dumb"), env...)
	var out io.Reader
	if tty {
		f, err := pty.Start(c.cmd)
		if err != nil {
			t.Skipf("no terminal here: %v", err)
		}
		t.Cleanup(func() { f.Close() })
		c.in, out = f, f
	} else {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not on the terminal of whoever tests
		var err error
		if c.in, err = c.cmd.StdinPipe(); err == nil {
			out, err = c.cmd.StdoutPipe()
		}
		if err == nil {
			err = c.cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(c.lines)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			c.lines <- strings.TrimRight(scanner.Text(), "\r")
		}
	}()
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// readReport reads the report of a run that is over.
func (c *conversation) readReport(t *testing.T) tracker.Report {
	t.Helper()
	var r tracker.Report
	data, err := os.ReadFile(c.report)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// listenTo starts the runner with a listener, and returns the listener's number.
func listenTo(t *testing.T, tty bool, env ...string) (*conversation, int) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	c := converse(t, tty, append(env, listenVariable+"=1"), binary(t), "run", "--json", report, "--", os.Args[0])
	c.report = report
	var pid, ppid int
	if _, err := fmt.Sscanf(c.expect(t, "listening"), "listening %d %d", &pid, &ppid); err != nil {
		t.Fatal(err)
	}
	if ppid != c.cmd.Process.Pid {
		t.Errorf("the command's parent is %d, want the runner, %d", ppid, c.cmd.Process.Pid)
	}
	return c, pid
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// expect waits for a line that contains a text.
func (c *conversation) expect(t *testing.T, text string) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				t.Fatalf("it ended without %q; it said %q", text, c.seen)
			}
			c.seen = append(c.seen, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-timeout:
			t.Fatalf("no %q; it said %q", text, c.seen)
		}
	}
}

// say writes what a person would type.
func (c *conversation) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c.in, text); err != nil {
		t.Fatal(err)
	}
}

// settled waits until the command has answered a line, and with it whatever came
// before, and some time more for what might come late.
func (c *conversation) settled(t *testing.T) {
	t.Helper()
	time.Sleep(200 * time.Millisecond)
	c.say(t, "so far\n")
	c.expect(t, "read so far")
}

// count returns how often a line was said.
func (c *conversation) count(line string) int {
	n := 0
	for _, l := range c.seen {
		// A terminal shows what is typed, such as ^C.
		if strings.TrimLeft(l, "^CZ\\") == line {
			n++
		}
	}
	return n
}

// exit waits for the end, and returns the exit code.
func (c *conversation) exit(t *testing.T) int {
	t.Helper()
	timeout := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timeout.Stop()
	for line := range c.lines {
		c.seen = append(c.seen, line)
	}
	_ = c.cmd.Wait()
	return c.cmd.ProcessState.ExitCode()
}

// What is sent to the runner, the command gets, once; and its exit code is kept.
func TestSignalsAreForwarded(t *testing.T) {
	c, _ := listenTo(t, false)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT} {
		if err := c.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		name := "got " + strings.ReplaceAll(s.String(), " ", "-")
		c.expect(t, name)
		c.settled(t)
		if n := c.count(name); n != 1 {
			t.Errorf("%v arrived %d times", s, n)
		}
	}
	c.say(t, "7\n")
	if code := c.exit(t); code != 7 {
		t.Errorf("exit code %d, want the command's 7", code)
	}
	if r := c.readReport(t); r.Run.ExitCode == nil || *r.Run.ExitCode != 7 || r.Sampling.Samples < 2 {
		t.Errorf("the report is not complete: %+v", r)
	}
}

// The keyboard speaks to the whole foreground group: the command, which is in it,
// must not hear everything twice.
func TestTheTerminalIsNotRepeated(t *testing.T) {
	c, _ := listenTo(t, true)
	for _, key := range []struct{ typed, name string }{
		{"\x03", "interrupt"}, {"\x1c", "quit"}, {"\x03", "interrupt"},
	} {
		before := c.count("got " + key.name)
		c.say(t, key.typed)
		c.expect(t, "got "+key.name)
		c.settled(t)
		if n := c.count("got "+key.name) - before; n != 1 {
			t.Errorf("%s arrived %d times: %q", key.name, n, c.seen)
		}
	}
	// What the keyboard does not send is forwarded all the same.
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	c.expect(t, "got terminated")
	c.say(t, "7\n")
	if code := c.exit(t); code != 7 {
		t.Errorf("exit code %d, want the command's 7", code)
	}
}

// The size of the terminal reaches the command when it changes, once.
func TestTheTerminalChangesItsSize(t *testing.T) {
	c, _ := listenTo(t, true)
	if err := pty.Setsize(c.in.(*os.File), &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	c.expect(t, "got window-changed")
	c.settled(t)
	if n := c.count("got window-changed"); n != 1 {
		t.Errorf("it arrived %d times", n)
	}
	c.say(t, "0\n")
	c.exit(t)
}

// A command that a signal ends has the exit code of a shell, and a report.
func TestExitCodeOfASignal(t *testing.T) {
	c, pid := listenTo(t, false)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := c.exit(t); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if r := c.readReport(t); r.Run.ExitCode == nil || *r.Run.ExitCode != 137 {
		t.Errorf("the report is not complete: %+v", r)
	}
}

// A signal that was ignored when the runner was started is ignored by the command
// too: this is what nohup relies on.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	for _, s := range []struct {
		name   string
		signal syscall.Signal
	}{{"HUP", syscall.SIGHUP}, {"INT", syscall.SIGINT}} {
		t.Run(s.name, func(t *testing.T) {
			// The listener catches everything, so that it is not the command here.
			c := converse(t, false, nil, "sh", "-c", `trap "" `+s.name+`; exec "$0" run -- sh -c 'echo ready; read line; exit $line'`, binary(t))
			c.expect(t, "ready")
			_ = syscall.Kill(-c.cmd.Process.Pid, s.signal)
			_ = c.cmd.Process.Signal(s.signal)
			time.Sleep(200 * time.Millisecond)
			c.say(t, "4\n")
			if code := c.exit(t); code != 4 {
				t.Errorf("exit code %d, want 4", code)
			}
		})
	}
}

// A command that is stopped and continued by somebody is measured on.
func TestStopAndContinue(t *testing.T) {
	c, pid := listenTo(t, false)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	c.say(t, "hello\n") // nobody answers
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.expect(t, "read hello")
	c.say(t, "3\n")
	if code := c.exit(t); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	if r := c.readReport(t); r.Run.Duration < 0.3 || r.Coverage() < 0.9 {
		t.Errorf("%v s, coverage %v", r.Run.Duration, r.Coverage())
	}
}

// shell starts a shell with job control on a terminal.
func shell(t *testing.T) *conversation {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here")
	}
	c := converse(t, true, []string{"PS1=", "PS2=", "WATTSPAN=" + binary(t), "LISTENER=" + os.Args[0]}, "bash", "--norc", "--noprofile", "-i")
	c.say(t, "stty -echo; unset HISTFILE; echo shell is ready\n")
	c.expect(t, "shell is ready")
	return c
}

// Ctrl-Z gives the prompt back, fg continues the command, and Ctrl-C ends it as
// it would without the runner.
func TestJobControl(t *testing.T) {
	c := shell(t)
	c.say(t, listenVariable+`=1 "$WATTSPAN" run --quiet -- "$LISTENER"`+"\n")
	c.expect(t, "listening")
	// The listener catches SIGTSTP: it goes on, and the runner with it.
	c.say(t, "\x1a")
	c.expect(t, "got stopped")
	c.settled(t)
	c.say(t, "0\n")
	c.say(t, `"$WATTSPAN" run --quiet -- sh -c 'echo begun; read line; echo then $line; exec sleep 60'`+"\n")
	c.expect(t, "begun")
	c.say(t, "\x1a")
	c.expect(t, "Stopped")
	c.say(t, "jobs\n")
	c.expect(t, "Stopped")
	c.say(t, "fg\n")
	c.expect(t, "WATTSPAN")
	c.say(t, "again\n")
	c.expect(t, "then again")
	c.say(t, "\x03")
	c.say(t, "echo status $?\n")
	if got := c.expect(t, "status"); got != "status 130" {
		t.Errorf("after Ctrl-C: %q", got)
	}
	c.say(t, "exit 6\n")
	if code := c.exit(t); code != 6 {
		t.Errorf("the shell ended with %d", code)
	}
}

// In a script nobody would continue a runner that stops itself with its command.
func TestStoppedInAScript(t *testing.T) {
	c := shell(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(`cd "$(dirname "$0")"
		"$WATTSPAN" run --quiet -- sh -c 'echo $$ > pid; kill -TSTP $$; exit 5' &
		until [ -s pid ]; do sleep 0.05; done; sleep 0.3; kill -CONT "$(cat pid)"
		wait $!; echo status $?`), 0o600); err != nil {
		t.Fatal(err)
	}
	c.say(t, "sh "+script+"\n")
	if got := c.expect(t, "status"); got != "status 5" {
		t.Errorf("%q", got)
	}
	c.say(t, "exit\n")
	c.exit(t)
}

// In the background a command that reads the terminal is stopped, and the shell
// sees it.
func TestBackground(t *testing.T) {
	c := shell(t)
	c.say(t, `"$WATTSPAN" run --quiet -- sh -c 'read line; exit 8' &`+"\n")
	for {
		c.say(t, "jobs; echo asked\n")
		if c.expect(t, "asked"); strings.Contains(strings.Join(c.seen, "\n"), "Stopped") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.say(t, "fg\n")
	c.expect(t, "WATTSPAN")
	c.say(t, "line\n")
	c.say(t, "echo status $?\n")
	if got := c.expect(t, "status"); got != "status 8" {
		t.Errorf("%q", got)
	}
	c.say(t, "exit\n")
	c.exit(t)
}

// A shell under the runner has its own job control.
func TestInteractiveShell(t *testing.T) {
	c := shell(t)
	c.say(t, `"$WATTSPAN" run --quiet -- bash --norc --noprofile -i`+"\n")
	c.say(t, "echo inner $((6*7))\n")
	c.expect(t, "inner 42")
	c.say(t, "sleep 60\n")
	time.Sleep(300 * time.Millisecond)
	c.say(t, "\x1a")
	c.expect(t, "Stopped")
	c.say(t, "fg\n")
	time.Sleep(300 * time.Millisecond)
	c.say(t, "\x03")
	c.say(t, "echo inner code $?\n")
	if got := c.expect(t, "inner code"); !strings.HasSuffix(got, "130") {
		t.Errorf("%q", got)
	}
	c.say(t, "exit 5\n")
	c.say(t, "echo outer code $?\n")
	if got := c.expect(t, "outer code"); !strings.HasSuffix(got, "outer code 5") {
		t.Errorf("%q", got)
	}
	c.say(t, "exit\n")
	c.exit(t)
}
