package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/tracker"
)

// stopBudget bounds the last sample, once the command has ended.
const stopBudget = 5 * time.Second

func newRunCommand(stdout, stderr io.Writer, code *int) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run a command and report its energy and emissions",
		Long: `Runs a command and reports, on standard error, the energy that the machine drew
meanwhile and the emissions of that energy. The command's standard streams and
its exit code are its own.

The result is exported by OTLP where OTEL_EXPORTER_OTLP_ENDPOINT (or one of the
other OTEL_* variables that name an endpoint or exporter) is set. Otherwise
nothing is sent anywhere.

Exit codes: the command's own; 125 if wattspan failed, 126 if the command could
not be executed, 127 if it was not found, 128+n if signal n ended it.`,
		Example: `  wattspan run -- python train.py
  wattspan run --country FR --pue 1.2 --json report.json -- ./train --epochs 3
  wattspan run --region aws/eu-west-3 -- make -j8`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := loadSettings(cmd.Flags())
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return errors.New("nothing to run\nusage: wattspan run [flags] -- COMMAND [ARG...]")
			}
			exit, err := run(cmd.Context(), set, args, stdout, stderr)
			*code = exit
			return err
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command is the command's
	cmd.Flags().SortFlags = false
	addFlags(cmd.Flags())
	return cmd
}

// run measures one command.
func run(ctx context.Context, set settings, argv []string, stdout, stderr io.Writer) (int, error) {
	opts, err := set.options(argv[0])
	if err != nil {
		return exitFailure, err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return exitFailure, startError(argv[0], err)
	}
	runID := tracker.RunID()
	out := newExport(ctx, os.Getenv, runID)
	child := &childClock{}
	opts = append(opts, tracker.WithRunID(runID), tracker.WithJobClock(child),
		tracker.WithTracerProvider(out.tracers()), tracker.WithMeterProvider(out.meters()))
	t, err := tracker.Start(ctx, opts...)
	if err != nil {
		out.shutdown(ctx)
		return exitFailure, err
	}

	cmd := exec.Command(path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, append(forwarded, fromTerminal...)...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		_, _ = t.Stop(ctx)
		out.shutdown(ctx)
		return exitFailure, startError(argv[0], err)
	}
	child.follow(cmd.Process.Pid)
	ended := make(chan struct{})
	go pass(signals, cmd.Process, ended)
	waitErr := cmd.Wait()
	close(ended)
	child.end(cmd.ProcessState)

	exit := exitCode(cmd.ProcessState)
	describeProcess(t, argv[0], cmd.Process.Pid, exit)
	stopping, cancel := context.WithTimeout(ctx, stopBudget)
	report, err := t.Stop(stopping)
	cancel()
	report.Run.ExitCode = &exit
	if err != nil {
		fmt.Fprintf(stderr, "wattspan: %v\n", err)
	}
	var failed *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &failed) {
		fmt.Fprintf(stderr, "wattspan: waiting for %s: %v\n", argv[0], waitErr)
	}
	// The report is kept before anything is sent: a collector that hangs, or
	// somebody who loses patience with it, must not cost it.
	if err := writeJSON(set.JSON, report, stdout); err != nil {
		fmt.Fprintf(stderr, "wattspan: the report was not written: %v\n", err)
	}
	writeSummary(stderr, report)
	signal.Stop(signals) // what is left can be interrupted
	for _, problem := range out.shutdown(ctx) {
		fmt.Fprintf(stderr, "wattspan: %s\n", problem)
	}
	return exit, nil
}

// startError gives a command that could not be started the exit code of a shell.
func startError(command string, err error) error {
	code := 126
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = 127
	}
	var at *exec.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	return exitError{fmt.Errorf("%s: %w", command, err), code}
}

// pass hands signals on to the command.
func pass(signals <-chan os.Signal, process *os.Process, ended <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if slices.Contains(forwarded, s) {
				_ = process.Signal(s)
			}
		case <-ended:
			return
		}
	}
}

// exitCode returns the exit code as a shell has it.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// describeProcess puts the process on the run's span, by the conventions for
// command line programs. Arguments are left out: they hold secrets.
func describeProcess(t *tracker.Tracker, command string, pid, exit int) {
	span := t.Span()
	span.SetAttributes(
		semconv.ProcessExecutableName(filepath.Base(command)),
		semconv.ProcessPID(pid),
		semconv.ProcessExitCode(exit),
	)
	if exit != 0 {
		span.SetAttributes(semconv.ErrorTypeKey.String("exit code " + strconv.Itoa(exit)))
		span.SetStatus(codes.Error, "exit code "+strconv.Itoa(exit))
	}
}

// childClock is the CPU time of the command, which does not exist yet when the
// tracker starts: nothing until then, what the system shows while it runs, and
// what it was billed once it has ended.
type childClock struct {
	live  atomic.Pointer[host.ProcessCPU]
	final atomic.Int64 // nanoseconds, plus one: 0 is none
}

func (c *childClock) follow(pid int) {
	if clock, err := host.OpenProcessCPU(pid); err == nil {
		c.live.Store(clock)
	}
}

// end takes the time of the command and of the descendants it has waited for.
func (c *childClock) end(state *os.ProcessState) {
	c.final.Store(int64(state.UserTime()+state.SystemTime()) + 1)
}

// Read implements tracker.JobClock.
func (c *childClock) Read() (time.Duration, error) {
	if final := c.final.Load(); final > 0 {
		return time.Duration(final - 1), nil
	}
	if live := c.live.Load(); live != nil {
		return live.Read()
	}
	return 0, nil
}

// writeJSON writes the report to a file, completely or not at all.
func writeJSON(path string, report tracker.Report, stdout io.Writer) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if path == "-" {
		_, err := stdout.Write(data)
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		// A pipe or a device is written to, not replaced.
		return os.WriteFile(path, data, 0)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
