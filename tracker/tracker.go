package tracker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"

	// What is read without a word of the user and costs no dependency.
	_ "github.com/wattspan/wattspan/sensors/battery"
	_ "github.com/wattspan/wattspan/sensors/cray"
	_ "github.com/wattspan/wattspan/sensors/hwmon"
	_ "github.com/wattspan/wattspan/sensors/ipmi"
	_ "github.com/wattspan/wattspan/sensors/rapl"
)

// flushBudget bounds the time Stop spends on handing the results to the
// OpenTelemetry providers, where its context does not.
const flushBudget = 5 * time.Second

// ErrIncomplete is returned by Stop when the last sample did not arrive in
// time. The report then ends at the sample before.
var ErrIncomplete = errors.New("the last sample was not taken in time")

// ErrNotStarted is returned by Stop of a tracker that never started.
var ErrNotStarted = errors.New("the tracker was not started")

// Tracker measures one run. Its methods can be called from any goroutine, on a
// nil Tracker and on one that failed to start too: they then do nothing.
type Tracker struct {
	sampler   *sampler
	telemetry *telemetry
	blank     Report // what is known of the report before anything is measured

	stopOnce sync.Once
	final    Report
	stopErr  error
}

// Start begins to measure: it detects the sensors, takes the first sample and
// starts one sampling goroutine, and one for each sensor that can block. The
// run's span is a child of the span in ctx; ctx is not kept.
//
// A machine without any sensor is not an error: the report says what could not
// be seen. After an error, which is a configuration that means nothing or the
// end of ctx, the Tracker returned is harmless: it measures nothing, and all
// its methods work.
func Start(ctx context.Context, opts ...Option) (*Tracker, error) {
	c, err := newConfig(opts)
	if err != nil {
		return new(Tracker), fmt.Errorf("wattspan: %w", err)
	}
	roots := sensors.RootsOf(c.detect...)
	machine := host.Describe(ctx, roots)
	location, err := emissions.Locate(c.location, c.place)
	if err != nil {
		return new(Tracker), fmt.Errorf("wattspan: %w", err)
	}
	model, err := emissions.NewModel(location, emissions.SiteKind(machine.Kind), c.declared...)
	if err != nil {
		return new(Tracker), fmt.Errorf("wattspan: %w", err)
	}
	set, owned := c.set, false
	var others meeting
	if set == nil {
		if set, err = sensors.Detect(ctx, c.detect...); err != nil {
			return new(Tracker), fmt.Errorf("wattspan: %w", err)
		}
		owned = true
		others = meet(ctx, c, set)
		set = others.set
	}

	t := &Tracker{sampler: newSampler(set, owned, c.interval)}
	t.sampler.member, t.sampler.following = others.member, others.follow(t.sampler.devices)
	t.blank = Report{
		Schema: Schema, Version: Version,
		Run:   Run{ID: c.runID, Name: c.name, Within: runnerInCharge()},
		Scope: cmp.Or(c.scope, Machine), Machine: machine, Location: location, Factors: model,
	}
	if others.readBy != "" {
		// The figures of the run that reads this machine contain this one's.
		t.blank.Run.ReadBy, t.blank.Scope = others.readBy, cmp.Or(c.scope, Job)
	}
	if others.alone != "" {
		t.blank.Notes = append(t.blank.Notes, others.alone)
	}
	t.blank.Missing, t.blank.LeftOut = absences(set)
	t.sampler.node = newNodeModel(c.profile, machine, t.sampler.devices)
	t.sampler.scope, t.sampler.model, t.sampler.log = t.blank.Scope, model, c.log
	t.sampler.idle, t.sampler.reserved = c.idle, reservation(machine)
	t.sampler.job, t.sampler.clocks = c.job, openClocks(roots, t.sampler.devices)
	t.sampler.rules = rules(t.sampler.devices, t.sampler.clocks, os.LookupEnv)
	t.telemetry = newTelemetry(c, t)
	t.sampler.onTick = t.telemetry.tickRecorder()
	t.sampler.start()
	if c.parent {
		ctx = withParentFromEnvironment(ctx)
	}
	t.telemetry.begin(ctx, c.name, t.sampler.first.Load().at, c.attrs)
	return t, nil
}

// EnvRunID is the environment variable that names the run.
const EnvRunID = "WATTSPAN_RUN_ID"

// RunID returns the identity of a run: the environment variable WATTSPAN_RUN_ID,
// which the nodes of a distributed job share, else a random one.
func RunID() string {
	if id := os.Getenv(EnvRunID); id != "" {
		return id
	}
	return strings.ToLower(rand.Text())
}

// absences returns what the set has no figure of, and what it does not use.
func absences(set *sensors.Set) (missing []Missing, leftOut []LeftOut) {
	missing, leftOut = []Missing{}, []LeftOut{} // none, where null would be "not known"
	for _, o := range set.Missing() {
		missing = append(missing, missingOf(o))
	}
	for _, o := range set.Omissions() {
		leftOut = append(leftOut, LeftOut{Source: o.Source, Missing: missingOf(o)})
	}
	return missing, leftOut
}

func missingOf(o sensors.Omission) Missing {
	return Missing{Component: o.Component, Device: o.Device, Status: o.Status, Reason: o.Reason, Remedy: o.Remedy}
}

// Span returns the run's span, to which a program can add attributes of its own
// before Stop.
func (t *Tracker) Span() trace.Span {
	if t == nil || t.sampler == nil {
		return trace.SpanFromContext(context.Background())
	}
	return t.telemetry.span
}

// Snapshot returns the report up to the latest sample. It takes no sample
// itself and waits for nothing.
func (t *Tracker) Snapshot() Report {
	if t == nil || t.sampler == nil {
		return Report{Schema: Schema, Version: Version}
	}
	return t.report(t.sampler.current.Load())
}

// Sample takes a sample now and returns the report up to it. It is for the coarse
// boundaries of a job, such as epochs: a sample asks the drivers, and one that is
// hardly older than the last would load them for nothing, so that samples are at
// least 100 ms apart, or half the interval where that is shorter. It waits for
// sources that block as a tick does, and no longer than ctx; with an error, which
// is that of ctx, the report ends at the latest sample there is. After Stop it is
// the final report.
func (t *Tracker) Sample(ctx context.Context) (Report, error) {
	if t == nil || t.sampler == nil {
		return t.Snapshot(), ErrNotStarted
	}
	err := t.sampler.sampleNow(ctx)
	return t.Snapshot(), err
}

// Stop takes the last sample, ends the run's span, flushes the providers that
// can be flushed, and returns the report. It waits for each no longer than ctx
// lasts, nor longer than a few seconds. The report is valid with an error too:
// the error says what it lacks, or what was not delivered.
//
// Stop is idempotent: later calls return what the first returned. Call it before
// the providers are shut down.
func (t *Tracker) Stop(ctx context.Context) (Report, error) {
	if t == nil || t.sampler == nil {
		return t.Snapshot(), ErrNotStarted
	}
	t.stopOnce.Do(func() {
		var errs []error
		bounded, cancel := context.WithTimeout(ctx, 3*edgeDeadline)
		complete := t.sampler.stop(bounded)
		cancel()
		last := t.sampler.current.Load()
		t.final = t.report(last)
		if !complete {
			errs = append(errs, ErrIncomplete)
			t.final.Notes = append(t.final.Notes, ErrIncomplete.Error())
		}
		errs = append(errs, t.telemetry.end(ctx, last, t.final))
		t.stopErr = errors.Join(errs...)
	})
	return t.final, t.stopErr
}
