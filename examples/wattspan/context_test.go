package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/wattspan/wattspan/tracker"
)

// trackVariable makes this test binary a command that uses the library itself.
const trackVariable = "TRACK_ITSELF"

func init() {
	if os.Getenv(trackVariable) == "" {
		return
	}
	t, err := tracker.Start(context.Background(), tracker.WithTracerProvider(noop.NewTracerProvider()))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r, err := t.Stop(context.Background())
	fmt.Println(r.Run.ID, r.Run.Within, err)
	os.Exit(0)
}

// What a caller names.
const (
	callerTrace = "0af7651916cd43dd8448eb211c80319c"
	callerSpan  = "b7ad6b7169203331"
	callerState = "vendor=opaque"
)

var environ = []string{"env"}

// contextOf returns the variables of context propagation in an environment.
func contextOf(environment string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(environment) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "TRACEPARENT", "TRACESTATE", "BAGGAGE":
			found[name] = found[name] + value // twice would show
		}
	}
	return found
}

// The span of the run is a child of the caller's, and the parent of the command's.
func TestContextPropagates(t *testing.T) {
	for _, protocol := range protocols {
		to := newCollector(t, protocol, anyPort, accept)
		exporting := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol}
		caller := []string{"TRACEPARENT=00-" + callerTrace + "-" + callerSpan + "-01", "TRACESTATE=" + callerState, "BAGGAGE=user=me"}

		for _, c := range []struct {
			name   string
			env    []string
			parent string
			state  string
		}{
			{"no caller", nil, "", ""},
			{"a caller", caller, callerSpan, callerState},
		} {
			t.Run(protocol+"/"+c.name, func(t *testing.T) {
				before := len(to.of("spans"))
				got := start(t, append(exporting, c.env...), nil, environ...)
				<-got.ended
				spans := to.of("spans")
				if len(spans) != before+1 {
					t.Fatalf("%d deliveries", len(spans)-before)
				}
				span := spans[before].spans.ResourceSpans[0].ScopeSpans[0].Spans[0]
				if parent := hex.EncodeToString(span.ParentSpanId); parent != c.parent || span.TraceState != c.state {
					t.Errorf("parent %q with state %q, want %q with %q", parent, span.TraceState, c.parent, c.state)
				}
				if c.parent != "" && hex.EncodeToString(span.TraceId) != callerTrace {
					t.Errorf("trace %x, want the caller's", span.TraceId)
				}
				seen := contextOf(got.stdout.String())
				if want := fmt.Sprintf("00-%x-%x-01", span.TraceId, span.SpanId); seen["TRACEPARENT"] != want {
					t.Errorf("the command's parent is %q, want the run's span %q", seen["TRACEPARENT"], want)
				}
				if seen["TRACESTATE"] != c.state {
					t.Errorf("the command's state is %q, want %q", seen["TRACESTATE"], c.state)
				}
				if c.parent != "" && seen["BAGGAGE"] != "user=me" {
					t.Errorf("the command's baggage is %q, want the caller's", seen["BAGGAGE"])
				}
			})
		}
	}
}

// Where the run has no span, what the caller says is meant for the command.
func TestContextPassesThrough(t *testing.T) {
	to := newCollector(t, protocolHTTP, anyPort, accept)
	const parent = "00-" + callerTrace + "-" + callerSpan + "-01"
	for _, c := range []struct {
		name string
		env  []string
	}{
		{"nothing is exported", nil},
		{"the SDK is disabled", []string{"OTEL_SDK_DISABLED=true", "OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := start(t, append(c.env, "TRACEPARENT="+parent, "TRACESTATE="+callerState, "BAGGAGE=user=me"), nil, environ...)
			<-got.ended
			seen := contextOf(got.stdout.String())
			if seen["TRACEPARENT"] != parent || seen["TRACESTATE"] != callerState || seen["BAGGAGE"] != "user=me" {
				t.Errorf("the command sees %v", seen)
			}
		})
	}
	if n := to.listener.count.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// A command that uses the library sees that the runner measures the machine.
func TestALibraryUnderTheRunner(t *testing.T) {
	got := start(t, []string{trackVariable + "=1"}, nil, os.Args[0]).wait(t)
	var id, within, stopped string
	if n, _ := fmt.Sscan(got.stdout.String(), &id, &within, &stopped); n != 3 || within != got.report.Run.ID || id == within || stopped != "<nil>" {
		t.Errorf("the command's run is %q, within %q, want one of its own within %q", id, within, got.report.Run.ID)
	}
	if got.report.Run.Within != "" {
		t.Errorf("the runner is within %q", got.report.Run.Within)
	}
	// So does a runner under a runner.
	nested := start(t, nil, nil, binary(t), "run", "--json", "-", "--", "true").wait(t)
	if !regexp.MustCompile(`"within": "` + nested.report.Run.ID + `"`).MatchString(nested.stdout.String()) {
		t.Errorf("the inner runner says %s", nested.stdout.String())
	}
}

// A command that cannot be executed leaves nobody waiting for a collector.
func TestACommandThatCannotRun(t *testing.T) {
	to := newCollector(t, protocolGRPC, anyPort, accept)
	dir := t.TempDir()
	for _, c := range []struct {
		name, command string
		code          int
	}{
		{"a folder", dir, 126},
		{"not to be found", "no-such-command-anywhere", 127},
		{"no such file", dir + "/none", 127},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.endpoint)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocolGRPC)
			if code := execute(t.Context(), []string{"run", "--", c.command}, &stdout, &stderr); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if said := stderr.String(); !strings.HasPrefix(said, "wattspan: "+c.command+": ") || strings.Count(said, "\n") != 1 {
				t.Errorf("it says %q", said)
			}
		})
	}
	if n := len(to.of("spans")) + len(to.of("metrics")); n != 0 {
		t.Errorf("%d deliveries of runs that never began", n)
	}
}

// binary returns the path of the program.
func binary(t *testing.T) string {
	t.Helper()
	path, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
