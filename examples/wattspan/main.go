// Command wattspan measures the energy and the emissions of any command:
//
//	wattspan run -- python train.py
//
// It leaves the command alone: its standard streams are its own, and its exit
// code is kept. The result goes to standard error, to a JSON file if asked, and
// to an OpenTelemetry collector where the OTEL_* environment variables name one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	_ "github.com/wattspan/wattspan/sensors/nvml" // NVIDIA GPUs
	"github.com/wattspan/wattspan/tracker"
)

// exitFailure is the exit code for failures of wattspan itself, as env(1) and
// timeout(1) have it: the command's own codes are below, 126 and 127 say that
// it could not be started, and 128 and above that a signal ended it.
const exitFailure = 125

// exitInterrupted stands for an exit code of 130 that an interrupt is the reason
// of: the program then ends by the same signal, as the command did.
const exitInterrupted = -2

func main() {
	code := execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	if code == exitInterrupted {
		dieOfInterrupt()
		code = 130
	}
	os.Exit(code)
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	code := 0
	root := &cobra.Command{
		Use:           "wattspan",
		Short:         "Measure the energy and emissions of a job",
		Long:          rootLong,
		Example:       rootExample,
		Version:       tracker.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("wattspan {{.Version}}\n")
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.AddCommand(newRunCommand(stdout, stderr, &code))
	root.AddCommand(newDoctorCommand(stdout, &code))
	root.AddCommand(newCalibrateCommand(stdout, stderr))
	root.AddCommand(newConfigCommand(stdout))
	root.AddCommand(helpTopics()...)
	root.SetHelpCommand(newHelpCommand())
	root.SetUsageFunc(usage)
	root.SetFlagErrorFunc(flagError)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "wattspan: %v\n", err)
		var exit exitError
		if errors.As(err, &exit) {
			return exit.code
		}
		return exitFailure
	}
	return code
}

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }
