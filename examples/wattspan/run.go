package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/contrib/propagators/envcar"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/tracker"
)

// stopBudget bounds the last sample, once the command has ended.
const stopBudget = 5 * time.Second

func newRunCommand(stdout, stderr io.Writer, code *int) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run [flags] -- COMMAND [ARG...]",
		Short:   "Run a command and report its energy and emissions",
		Long:    runLong,
		Example: runExample,
		Args:    cobra.ArbitraryArgs,
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
	addOptions(cmd)
	return cmd
}

// run measures one command.
func run(ctx context.Context, set settings, argv []string, stdout, stderr io.Writer) (int, error) {
	opts, err := set.options(argv[0])
	if err != nil {
		return exitFailure, err
	}
	path, err := lookPath(argv[0])
	if err != nil {
		return exitFailure, startError(argv[0], err)
	}
	runID := tracker.RunID()
	out := newExport(ctx, os.Getenv, runID)
	j := newJob()
	defer func() { _ = j.close() }()
	opts = append(opts, tracker.WithRunID(runID), tracker.WithJob(j), tracker.WithParentFromEnvironment(),
		tracker.WithTracerProvider(out.tracers()), tracker.WithMeterProvider(out.meters()))
	t, err := tracker.Start(ctx, opts...)
	if err != nil {
		return exitFailure, err
	}
	tty := openTerminal()
	defer tty.close()
	signals, born, release := catch()
	defer release()
	keepThreads()
	if err := j.start(path, argv, childEnvironment(os.Environ(), t, runID)); err != nil {
		// Nothing is exported of a run that never began.
		_, _ = t.Stop(ctx)
		return exitFailure, startError(argv[0], err)
	}
	born()
	stopProgress := startProgress(stderr, set.Progress, t, func() bool { return !isTerminal(stderr) || !tty.background() })
	ended := make(chan struct{})
	go tty.pass(signals, j, ended)
	end, waitErr := j.wait(tty)
	close(ended)
	stopProgress()

	exit := end.code()
	if waitErr != nil {
		exit = exitFailure // nobody knows how it ended
	}
	describeProcess(t, argv[0], end.pid, exit)
	stopping, cancel := context.WithTimeout(ctx, stopBudget)
	report, err := t.Stop(stopping)
	cancel()
	report.Run.ExitCode = &exit
	_ = j.close() // now: somebody may lose patience with what follows
	for _, err := range []error{err, waitErr} {
		if err != nil {
			fmt.Fprintf(stderr, "wattspan: %v\n", err)
		}
	}
	// The report is kept before anything is sent: a collector that hangs, or
	// somebody who loses patience with it, must not cost it.
	if err := writeJSON(set.JSON, report, stdout); err != nil {
		fmt.Fprintf(stderr, "wattspan: %v\n", err)
	}
	release() // what is left can be interrupted
	if !set.Quiet {
		p := newPage(stderr, set.Color, os.Getenv)
		printSummary(p, report, set.Verbose)
		_ = p.flush()
	}
	for _, problem := range out.shutdown(ctx) {
		fmt.Fprintf(stderr, "wattspan: %s\n", problem)
	}
	if end.interrupted() {
		return exitInterrupted, nil
	}
	return exit, nil
}

// lookPath finds the program of a command as execvp does: in the folders that
// PATH names, the working directory among them if it is named, and without a
// PATH where the system has its programs.
func lookPath(command string) (string, error) {
	path, err := exec.LookPath(command)
	if errors.Is(err, exec.ErrDot) {
		return path, nil
	}
	if _, set := os.LookupEnv("PATH"); err != nil && !set && filepath.Base(command) == command {
		for _, dir := range []string{"/bin", "/usr/bin"} {
			if path, err := exec.LookPath(filepath.Join(dir, command)); err == nil {
				return path, nil
			}
		}
	}
	return path, err
}

// childEnvironment returns the environment of the command: the runner's own, with
// the run's span as the parent of its spans, and word of the runner for the
// library, which then does not account for the machine a second time. Where the
// run has no span, what a caller put there for the command stays.
func childEnvironment(own []string, t *tracker.Tracker, runID string) []string {
	env := own
	set := func(name, value string) {
		env = slices.DeleteFunc(env, func(variable string) bool { return strings.HasPrefix(variable, name+"=") })
		env = append(env, name+"="+value)
	}
	set(tracker.EnvRunner, tracker.Runner(os.Getpid(), runID))
	span := trace.ContextWithSpan(context.Background(), t.Span())
	propagation.TraceContext{}.Inject(span, &envcar.Carrier{SetEnvFunc: set})
	return env
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
