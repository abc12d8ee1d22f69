package tracker

import (
	"cmp"
	"context"
	"os"
	"strconv"
	"strings"

	"go.opentelemetry.io/contrib/propagators/envcar"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/sensors/host"
)

// EnvRunner is the environment variable by which the runner tells the programs it
// runs that it measures the machine; see [Runner] for its value.
const EnvRunner = "WATTSPAN_RUNNER"

// Runner returns the value of [EnvRunner]: the process ID of the runner and the
// ID of its run.
func Runner(pid int, runID string) string { return strconv.Itoa(pid) + ":" + runID }

// runnerInCharge returns the run ID of the runner that started this program and
// measures the machine already, empty where there is none. The variable alone is
// not enough: it can outlive the runner, in a terminal multiplexer that was
// started under it. A runner that lives is an ancestor of all its processes, as
// orphans become its children.
func runnerInCharge() string {
	number, id, _ := strings.Cut(os.Getenv(EnvRunner), ":")
	pid, err := strconv.Atoi(number)
	if err != nil || !host.IsAncestor(pid) {
		return ""
	}
	return cmp.Or(id, "unnamed")
}

// withParentFromEnvironment returns ctx with the span that TRACEPARENT and
// TRACESTATE name, where it holds none.
func withParentFromEnvironment(ctx context.Context) context.Context {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, &envcar.Carrier{})
}
