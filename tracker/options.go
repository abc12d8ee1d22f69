package tracker

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/node"
)

// Scope says whose energy is tracked.
type Scope string

const (
	// Machine charges all the devices of the machine, as a training node is
	// the job's. It is the default.
	Machine Scope = "machine"
	// Job charges the job's share: of the processors by CPU time, of the memory
	// by what it holds, and the GPUs that it can see.
	Job Scope = "job"
)

// The range of sampling intervals. Below the least the queries themselves slow
// the GPU's driver down; above the most RAPL counters can wrap unseen.
const (
	DefaultInterval = time.Second
	MinInterval     = 100 * time.Millisecond
	MaxInterval     = 30 * time.Second
)

// Option configures [Start].
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	name     string
	runID    string
	interval time.Duration
	scope    Scope
	set      *sensors.Set
	detect   []sensors.Option
	location emissions.Location
	place    emissions.Environment
	declared []emissions.Factor
	job      JobMeter
	idle     Idle
	profile  string
	share    string // the directory in which trackers meet; empty: the default
	parent   bool   // whether the run's parent is taken from the environment
	tracers  trace.TracerProvider
	meters   metric.MeterProvider
	attrs    []attribute.KeyValue
	log      *slog.Logger
	errs     []error
}

// WithName names the run. It becomes the name of the run's span; the default is
// "run".
func WithName(name string) Option { return optionFunc(func(c *config) { c.name = name }) }

// WithRunID sets the identity of the run, which the nodes of a distributed job
// share. The default is what [RunID] returns.
func WithRunID(id string) Option { return optionFunc(func(c *config) { c.runID = id }) }

// WithInterval sets the sampling interval, from [MinInterval] to [MaxInterval].
// A device with an energy counter is as exact at 30 s as at 1 s.
func WithInterval(interval time.Duration) Option {
	return optionFunc(func(c *config) {
		c.interval = interval
		if interval < MinInterval || interval > MaxInterval {
			c.fail("interval %v is outside %v to %v", interval, MinInterval, MaxInterval)
		}
	})
}

// WithScope sets whose energy is tracked. The report shows both where both are
// known. The default is [Machine], and [Job] where another tracker reads the
// hardware of this machine, whose figures contain this one's.
func WithScope(scope Scope) Option {
	return optionFunc(func(c *config) {
		c.scope = scope
		if scope != Machine && scope != Job {
			c.fail("scope %q is neither %q nor %q", scope, Machine, Job)
		}
	})
}

// WithJob says whose usage counts as the job's. The default is this process.
func WithJob(job JobMeter) Option { return optionFunc(func(c *config) { c.job = job }) }

// WithParentFromEnvironment makes the run's span a child of the span that
// TRACEPARENT names, where the context given to [Start] holds none: of the
// runner that started this program, or of a CI job.
func WithParentFromEnvironment() Option { return optionFunc(func(c *config) { c.parent = true }) }

// WithIdle says who is charged with the power that devices draw whether they work
// or not. The default is [IdleProportional].
func WithIdle(policy Idle) Option {
	return optionFunc(func(c *config) {
		c.idle = policy
		switch policy {
		case IdleProportional, IdleWhole, IdleReserved, IdleNone:
		default:
			c.fail("idle policy %q is none of %s, %s, %s and %s", policy, IdleProportional, IdleWhole, IdleReserved, IdleNone)
		}
	})
}

// WithNodeProfile says how what no sensor sees of the machine is modelled where
// there is no meter of it: [NodeAuto], which is the default, [NodeNone], or the
// name of a profile of package node.
func WithNodeProfile(name string) Option {
	return optionFunc(func(c *config) {
		c.profile = name
		if name == NodeAuto || name == NodeNone {
			return
		}
		if _, err := node.Named(name); err != nil {
			c.errs = append(c.errs, err)
		}
	})
}

// WithSharing names the directory in which the trackers of this machine meet: one
// of them reads the hardware for all, and the others report their own share. The
// default is what WATTSPAN_SHARE names, else a directory of the user's; [SharingOff]
// is none. Containers meet in a directory that they share.
func WithSharing(dir string) Option { return optionFunc(func(c *config) { c.share = dir }) }

// WithSensors tracks the sensors of a set instead of those that
// [sensors.Detect] finds. The set stays the caller's to close, after Stop.
func WithSensors(set *sensors.Set) Option { return optionFunc(func(c *config) { c.set = set }) }

// WithDetection passes options to [sensors.Detect].
func WithDetection(opts ...sensors.Option) Option {
	return optionFunc(func(c *config) { c.detect = append(c.detect, opts...) })
}

// WithLocation says where the machine is. Without it the place is resolved from
// the environment and, as a labelled guess, from the time zone: see
// emissions.Locate.
func WithLocation(l emissions.Location) Option { return optionFunc(func(c *config) { c.location = l }) }

// WithResourceAttributes tells the tracker the resource attributes of the
// program's OpenTelemetry SDK, of which cloud.provider and cloud.region say
// where it runs.
func WithResourceAttributes(attrs ...attribute.KeyValue) Option {
	return optionFunc(func(c *config) {
		c.place.Attributes = make(map[string]string, len(attrs))
		for _, a := range attrs {
			c.place.Attributes[string(a.Key)] = a.Value.String()
		}
	})
}

// WithIntensity sets the grid intensity, in grams of CO2 equivalent per kWh.
func WithIntensity(gramsPerKWh float64) Option {
	return optionFunc(func(c *config) { c.declare(emissions.DeclaredIntensity(gramsPerKWh)) })
}

// WithPUE sets the power usage effectiveness of the facility, 1 or more.
func WithPUE(pue float64) Option {
	return optionFunc(func(c *config) { c.declare(emissions.DeclaredPUE(pue)) })
}

// WithTracerProvider sets the provider of the run's span; the default is the
// global one.
func WithTracerProvider(p trace.TracerProvider) Option {
	return optionFunc(func(c *config) { c.tracers = p })
}

// WithMeterProvider sets the provider of the metrics; the default is the global
// one.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) { c.meters = p })
}

// WithAttributes adds attributes to the run's span.
func WithAttributes(attrs ...attribute.KeyValue) Option {
	return optionFunc(func(c *config) { c.attrs = append(c.attrs, attrs...) })
}

// WithLogger makes the tracker log what changes, such as a device that can no
// longer be read. By default it logs nothing.
func WithLogger(log *slog.Logger) Option { return optionFunc(func(c *config) { c.log = log }) }

func newConfig(opts []Option) (*config, error) {
	c := &config{
		name:     "run",
		interval: DefaultInterval,
		idle:     IdleProportional,
	}
	for _, o := range opts {
		if o != nil {
			o.apply(c)
		}
	}
	if c.runID == "" {
		c.runID = RunID()
	}
	if c.job == nil {
		c.job = newSelfJob()
	}
	return c, errors.Join(c.errs...)
}

func (c *config) fail(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *config) declare(f emissions.Factor, err error) {
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	c.declared = append(c.declared, f)
}
