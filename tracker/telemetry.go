package tracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/sensors"
)

// telemetry publishes a run through the OpenTelemetry API: one span, and the
// observable instruments that read the sampler's latest sample.
type telemetry struct {
	tracker *Tracker
	tracers trace.TracerProvider // as configured; nil for the global one
	meters  metric.MeterProvider
	span    trace.Span

	instruments  instruments
	series       []deviceSeries
	energy       []energySeries
	unseen       metric.ObserveOption
	overhead     metric.ObserveOption
	operational  metric.ObserveOption
	grid         metric.ObserveOption
	pue          metric.ObserveOption
	registration metric.Registration

	// frozen is the last sample of the run, which the instruments go on to
	// show after Stop.
	frozen atomic.Pointer[sample]
	errs   []error
}

type instruments struct {
	hwEnergy    metric.Float64ObservableCounter
	hwPower     metric.Float64ObservableGauge
	hostEnergy  metric.Float64ObservableCounter
	hostPower   metric.Float64ObservableGauge
	utilization metric.Float64ObservableGauge
	energy      metric.Float64ObservableCounter
	emissions   metric.Float64ObservableCounter
	intensity   metric.Float64ObservableGauge
	pue         metric.Float64ObservableGauge
	ticks       metric.Int64ObservableCounter
	missed      metric.Int64ObservableCounter
	errors      metric.Int64ObservableCounter
	tickTime    metric.Float64Histogram
}

// deviceSeries is the attribute set of one device's hw.* metrics, built once:
// building it at every collection would allocate.
type deviceSeries struct {
	device    int
	component sensors.Component
	option    metric.ObserveOption
}

// energySeries is one series of wattspan.energy: the devices of one component
// that are measured in one way.
type energySeries struct {
	devices []int
	option  metric.ObserveOption
}

// newTelemetry creates the instruments. They show nothing before the first
// sample.
func newTelemetry(c *config, t *Tracker) *telemetry {
	o := &telemetry{tracker: t, tracers: c.tracers, meters: c.meters}
	_, meters := o.providers()
	o.createInstruments(meters.Meter(ScopeName,
		metric.WithInstrumentationVersion(Version), metric.WithSchemaURL(SchemaURL)))
	return o
}

// begin starts the run's span at the first sample.
func (o *telemetry) begin(ctx context.Context, name string, at time.Time, attrs []attribute.KeyValue) {
	tracers, _ := o.providers()
	_, o.span = tracers.Tracer(ScopeName,
		trace.WithInstrumentationVersion(Version), trace.WithSchemaURL(SchemaURL),
	).Start(ctx, name, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
}

// providers returns the configured providers, else the global ones as they are
// now: a program may set them after Start.
func (o *telemetry) providers() (trace.TracerProvider, metric.MeterProvider) {
	tracers, meters := o.tracers, o.meters
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	return tracers, meters
}

// createInstruments creates all instruments, and one callback for them. An
// instrument that cannot be created costs itself; Stop reports it.
func (o *telemetry) createInstruments(m metric.Meter) {
	in := &o.instruments
	var all []metric.Observable
	float := func(c metric.Float64Observable, err error) {
		o.errs = append(o.errs, err)
		if err == nil {
			all = append(all, c)
		}
	}
	whole := func(c metric.Int64Observable, err error) {
		o.errs = append(o.errs, err)
		if err == nil {
			all = append(all, c)
		}
	}
	var err error
	in.hwEnergy, err = m.Float64ObservableCounter(metricHWEnergy, metric.WithUnit(unitJoule),
		metric.WithDescription("Energy consumed by the component"))
	float(in.hwEnergy, err)
	in.hwPower, err = m.Float64ObservableGauge(metricHWPower, metric.WithUnit(unitWatt),
		metric.WithDescription("Instantaneous power consumed by the component"))
	float(in.hwPower, err)
	in.hostEnergy, err = m.Float64ObservableCounter(metricHostEnergy, metric.WithUnit(unitJoule),
		metric.WithDescription("Total energy consumed by the entire physical host, in joules"))
	float(in.hostEnergy, err)
	in.hostPower, err = m.Float64ObservableGauge(metricHostPower, metric.WithUnit(unitWatt),
		metric.WithDescription("Instantaneous power consumed by the entire physical host in Watts"))
	float(in.hostPower, err)
	in.utilization, err = m.Float64ObservableGauge(metricGPUUtilization, metric.WithUnit(unitRatio),
		metric.WithDescription("Fraction of time spent in a specific task"))
	float(in.utilization, err)
	in.energy, err = m.Float64ObservableCounter(metricEnergy, metric.WithUnit(unitJoule),
		metric.WithDescription("Facility energy of the tracked scope, by component; the sum is the facility's"))
	float(in.energy, err)
	in.emissions, err = m.Float64ObservableCounter(metricEmissions, metric.WithUnit(unitGram),
		metric.WithDescription("Greenhouse gas emissions of the tracked scope, in CO2 equivalent"))
	float(in.emissions, err)
	in.intensity, err = m.Float64ObservableGauge(metricGridIntensity, metric.WithUnit(unitGramPerKWh),
		metric.WithDescription("Carbon intensity of the electricity"))
	float(in.intensity, err)
	in.pue, err = m.Float64ObservableGauge(metricPUE, metric.WithUnit(unitRatio),
		metric.WithDescription("Power usage effectiveness of the facility"))
	float(in.pue, err)
	in.ticks, err = m.Int64ObservableCounter(metricSamplerTicks, metric.WithUnit(unitTick),
		metric.WithDescription("Samples taken"))
	whole(in.ticks, err)
	in.missed, err = m.Int64ObservableCounter(metricSamplerMissed, metric.WithUnit(unitTick),
		metric.WithDescription("Samples not taken because one came too late"))
	whole(in.missed, err)
	in.errors, err = m.Int64ObservableCounter(metricSamplerErrors, metric.WithUnit(unitError),
		metric.WithDescription("Readings of a device that failed"))
	whole(in.errors, err)
	in.tickTime, err = m.Float64Histogram(metricSamplerTickTimes, metric.WithUnit(unitSecond),
		metric.WithDescription("Time that a sample took"),
		metric.WithExplicitBucketBoundaries(1e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 0.1, 1))
	o.errs = append(o.errs, err)

	o.buildSeries()
	o.registration, err = m.RegisterCallback(o.observe, all...)
	o.errs = append(o.errs, err)
}

// buildSeries builds every attribute set once.
func (o *telemetry) buildSeries() {
	s := o.tracker.sampler
	series := map[[2]string]int{}
	for i, d := range s.devices {
		attrs := []attribute.KeyValue{keyHWID.String(d.ID), keyHWType.String(string(d.Component))}
		for key, value := range map[attribute.Key]string{keyHWName: d.Name, keyHWVendor: d.Vendor, keyHWParent: d.Parent} {
			if value != "" {
				attrs = append(attrs, key.String(value))
			}
		}
		o.series = append(o.series, deviceSeries{
			device: i, component: d.Component,
			option: metric.WithAttributeSet(attribute.NewSet(attrs...)),
		})
		if d.Component == sensors.Node || s.scope == Job && s.rules[i].share == "" {
			continue // contains the others; the job's share is not known
		}
		key := [2]string{string(d.Component), string(d.Method)}
		at, ok := series[key]
		if !ok {
			at = len(o.energy)
			series[key] = at
			o.energy = append(o.energy, energySeries{option: metric.WithAttributeSet(attribute.NewSet(
				keyComponent.String(key[0]), keyMethod.String(key[1])))})
		}
		o.energy[at].devices = append(o.energy[at].devices, i)
	}
	f := o.tracker.blank.Factors
	method := sensors.MethodModel
	if s.node.meter >= 0 {
		method = s.devices[s.node.meter].Method
	}
	o.unseen = metric.WithAttributeSet(attribute.NewSet(
		keyComponent.String(componentUnseen), keyMethod.String(string(method))))
	o.overhead = metric.WithAttributeSet(attribute.NewSet(
		keyComponent.String(componentOverhead), keyMethod.String(string(f.PUE.Kind))))
	o.operational = metric.WithAttributeSet(attribute.NewSet(keyEmissionsScope.String("operational")))
	o.grid = metric.WithAttributeSet(attribute.NewSet(keyGridZone.String(f.Intensity.Zone),
		keyGridSource.String(f.Intensity.Source), keyGridKind.String(string(f.Intensity.Kind))))
	o.pue = metric.WithAttributeSet(attribute.NewSet(keyPUESource.String(f.PUE.Source)))
}

// observe is the one callback of all observable instruments.
func (o *telemetry) observe(_ context.Context, obs metric.Observer) error {
	s := o.tracker.sampler
	now := o.frozen.Load()
	if now == nil {
		now = s.current.Load()
	}
	if now == nil {
		return nil // before the first sample
	}
	in := &o.instruments
	obs.ObserveInt64(in.ticks, int64(now.counts.samples))
	obs.ObserveInt64(in.missed, int64(now.counts.missed))
	obs.ObserveInt64(in.errors, int64(now.counts.errors))
	if o.tracker.blank.Run.Within != "" {
		// The runner that measures this machine publishes what it draws: a
		// second time would be once too often.
		return nil
	}
	for _, d := range o.series {
		r := &now.devices[d.device]
		if !r.seen(s.devices[d.device]) {
			continue // unavailable is not zero
		}
		energy, power := in.hwEnergy, in.hwPower
		if d.component == sensors.Node {
			energy, power = in.hostEnergy, in.hostPower
		}
		published, ok := s.following.published(d.device, now)
		if !ok {
			continue // by who reads it
		}
		obs.ObserveFloat64(energy, float64(published.Joules()), d.option)
		if r.Err == nil && r.Power >= 0 {
			obs.ObserveFloat64(power, float64(r.Power), d.option)
		}
		if d.component == sensors.GPU && r.Err == nil && r.Utilization >= 0 {
			obs.ObserveFloat64(in.utilization, r.Utilization, d.option)
		}
	}
	if s.following != nil && s.scope == Machine {
		return nil // contained in what the run publishes that reads the machine
	}
	known := now.energies.nodeKnown && s.scope == Machine
	for _, e := range o.energy {
		var sum sensors.Microjoules
		observed := false
		for _, i := range e.devices {
			if s.scope == Job && !s.attributable(i, now) {
				continue
			}
			d := &now.devices[i]
			observed = observed || d.seen(s.devices[i])
			sum += d.charged(s.devices[i], s.scope)
		}
		if observed {
			known = true
			obs.ObserveFloat64(in.energy, float64(sum.Joules()), e.option)
		}
	}
	if known {
		if now.energies.nodeKnown {
			obs.ObserveFloat64(in.energy, float64(now.energies.unseen.Joules()), o.unseen)
		}
		obs.ObserveFloat64(in.energy, max(float64(now.footprint.Facility-now.energies.plug.Joules()), 0), o.overhead)
		obs.ObserveFloat64(in.emissions, float64(now.footprint.Operational), o.operational)
	}
	f := o.tracker.blank.Factors
	obs.ObserveFloat64(in.intensity, f.Intensity.Value, o.grid)
	obs.ObserveFloat64(in.pue, f.PUE.Value, o.pue)
	return nil
}

// tickRecorder returns what records the time of a sample, nil when nobody
// listens.
func (o *telemetry) tickRecorder() func(time.Duration) {
	h := o.instruments.tickTime
	if h == nil {
		return nil
	}
	ctx := context.Background()
	return func(took time.Duration) {
		if h.Enabled(ctx) {
			h.Record(ctx, took.Seconds())
		}
	}
}

// end puts the result on the span, ends it, and hands everything over: the
// values are frozen, the providers flushed where they can be, and the callback
// unregistered. A provider that cannot be flushed keeps the callback, and with
// it the final values: an unregistered instrument exports nothing, and a job
// shorter than the reader's interval would leave no metrics.
func (o *telemetry) end(ctx context.Context, last *sample, r Report) error {
	errs := o.errs
	if o.span.IsRecording() {
		o.span.SetAttributes(spanAttributes(r)...)
	}
	o.span.End(trace.WithTimestamp(last.at))
	o.frozen.Store(last)

	ctx, cancel := context.WithTimeout(ctx, flushBudget)
	defer cancel()
	tracers, meters := o.providers()
	type flusher interface{ ForceFlush(context.Context) error }
	// Both at once: a collector that hangs costs the budget once.
	var traceErr error
	flushed := make(chan struct{})
	go func() {
		defer close(flushed)
		if f, ok := tracers.(flusher); ok {
			traceErr = f.ForceFlush(ctx)
		}
	}()
	if f, ok := meters.(flusher); ok {
		if err := f.ForceFlush(ctx); err != nil {
			errs = append(errs, fmt.Errorf("metrics were not delivered: %w", err))
		}
		if o.registration != nil {
			errs = append(errs, o.registration.Unregister())
		}
	}
	select {
	case <-flushed:
		if traceErr != nil {
			errs = append(errs, fmt.Errorf("spans were not delivered: %w", traceErr))
		}
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("spans were not delivered: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}

// spanAttributes returns the result of a run as attributes.
func spanAttributes(r Report) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		keyRunID.String(r.Run.ID),
		keyScope.String(string(r.Scope)),
		keyEnergyPartial.Bool(r.Partial),
		keyGridIntensity.Float64(r.Factors.Intensity.Value),
		keyGridZone.String(r.Factors.Intensity.Zone),
		keyGridSource.String(r.Factors.Intensity.Source),
		keyGridKind.String(string(r.Factors.Intensity.Kind)),
		keyPUE.Float64(r.Factors.PUE.Value),
	}
	if r.Scope == Job {
		attrs = append(attrs, keyAttribution.String(r.Job.Method))
	} else {
		attrs = append(attrs, keyAttribution.String(attributionMachine))
	}
	for _, e := range []struct {
		key   attribute.Key
		value *sensors.Joules
	}{
		{keyEnergyDevice, r.Energy.Device}, {keyEnergyNode, r.Energy.Node}, {keyEnergyFacility, r.Energy.Facility},
		{keyEnergyGPU, r.Energy.GPU}, {keyEnergyCPU, r.Energy.CPU}, {keyEnergyMemory, r.Energy.Memory},
		{keyEnergyUnseen, r.Energy.Unseen},
	} {
		if e.value != nil {
			attrs = append(attrs, e.key.Float64(float64(*e.value)))
		}
	}
	if r.Emissions == nil {
		return attrs
	}
	plug := cmp.Or(r.Energy.Node, r.Energy.Device)
	attrs = append(attrs,
		keyEnergyOverhead.Float64(float64(*r.Energy.Facility-*plug)),
		keyEnergyLow.Float64(float64(r.Bounds.Facility.Low)),
		keyEnergyHigh.Float64(float64(r.Bounds.Facility.High)),
		keyEnergyCoverage.Float64(r.Coverage()),
		keyEmissionsOp.Float64(float64(r.Emissions.Operational)),
	)
	if r.Node.Method != "" {
		attrs = append(attrs, keyEnergyMethodNode.String(r.Node.Method))
	}
	if len(r.Quality) > 0 {
		flags := make([]string, len(r.Quality))
		for i, f := range r.Quality {
			flags[i] = string(f.Kind)
		}
		attrs = append(attrs, keyEnergyQuality.String(join(flags)))
	}
	return append(attrs, methodAttributes(r.Devices)...)
}

// methodAttributes names the method of each component, and of the whole, joined
// where they differ.
func methodAttributes(devices []Device) []attribute.KeyValue {
	var attrs []attribute.KeyValue
	keys := map[sensors.Component]attribute.Key{
		sensors.GPU: keyEnergyMethodGPU, sensors.CPU: keyEnergyMethodCPU, sensors.Memory: keyEnergyMethodMem,
	}
	var all []string
	for _, c := range []sensors.Component{sensors.GPU, sensors.CPU, sensors.Memory} {
		if methods := methodsOf(devices, c); len(methods) > 0 {
			attrs = append(attrs, keys[c].String(join(methods)))
			all = append(all, methods...)
		}
	}
	return append(attrs, keyEnergyMethod.String(join(all)))
}
