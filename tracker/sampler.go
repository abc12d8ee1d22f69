package tracker

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	sharing "github.com/wattspan/wattspan/sensors/share"
)

// edgeDeadline is how long the first and the last sample wait for a source that
// can block. They are the ends of the measured interval, so they are worth more
// patience than a tick.
const edgeDeadline = 2 * time.Second

// sample is the state of everything that is measured, at one moment. It is
// immutable once published. Two in a row are the ends of a window: what
// happened in the window is their difference.
type sample struct {
	at      time.Time
	elapsed time.Duration // since the first sample
	ending  bool          // whether it is the last one
	counts  counts
	devices []deviceState

	usage      Usage // of the job; its CPU time is since the first sample
	usageKnown bool
	memorySeen bool // whether the job's memory has been known at any time
	machine    machineUse
	suspended  time.Duration // how long the machine slept since the first sample
	jumped     time.Duration // by how much the wall clock was moved since then
	energies   energies
	// takenOver are the energies of the devices at the sample from which this
	// tracker reads them for others; nil where it always or never did.
	takenOver []sensors.Microjoules

	// footprint is that of the tracked scope since the first sample, each
	// window with the factors that were valid in it. Its relative errors are
	// those of the factors; the energy's are added in the report.
	footprint emissions.Footprint
}

// counts is what the sampler knows of its own work, since the first sample.
type counts struct {
	samples uint64 // taken, the first included
	missed  uint64 // ticks that were not taken because one came too late
	errors  uint64 // readings of a device that failed
}

// minSpacing is the least time between a sample and one that a program asks for.
const minSpacing = 100 * time.Millisecond

// deviceState is one device in a sample.
type deviceState struct {
	sensors.Reading
	charge charge // what of it falls to the job
	use    use    // whether the job uses it, of a GPU
	lost   bool   // whether it has been lost at any time
}

// seen reports whether the device has been observed for long enough to have a
// figure: what a sensor shows before its next update says nothing.
func (s *deviceState) seen(d sensors.Device) bool {
	return s.Observed > 0 && s.Observed >= d.Refresh && !s.stuck(d)
}

// stuck reports whether the counter of a processor or of memory stands still, which
// that of no running hardware does: it is not read but shown by something else, a
// hypervisor for example. A GPU can sleep.
func (s *deviceState) stuck(d sensors.Device) bool {
	return d.Method == sensors.MethodCounter && (d.Component == sensors.CPU || d.Component == sensors.Memory) &&
		s.Energy == 0 && s.Observed >= max(time.Second, 2*d.Refresh)
}

// charged returns the energy that a scope is charged with, 0 while the device
// has no figure.
func (s *deviceState) charged(d sensors.Device, scope Scope) sensors.Microjoules {
	switch {
	case !s.seen(d):
		return 0
	case scope == Job:
		return s.charge.energy
	default:
		return s.Energy
	}
}

// sampler is the one goroutine that reads the hardware. Its fields are its own;
// others see only the samples it publishes.
type sampler struct {
	interval time.Duration
	scope    Scope
	idle     Idle
	reserved reserved
	node     nodeModel
	model    emissions.Model

	member        *sharing.Member // nil where no other tracker is met
	following     *following
	publishFailed bool
	ending        bool // whether the sample is the last
	log           *slog.Logger
	onTick        func(took time.Duration) // nil when nobody listens
	owned         bool                     // whether the sensors are closed at the end

	devices  []sensors.Device
	inline   []*source
	readers  []*reader
	scratch  []sensors.Reading
	uses     []use
	patience *time.Timer

	job     JobMeter
	clocks  clocks
	rules   []rule // how the job is charged for each device
	jobBase time.Duration

	// suspendedSinceBoot is host.Suspended, but for tests.
	suspendedSinceBoot func() (time.Duration, bool)
	suspendedBase      time.Duration

	first   atomic.Pointer[sample]
	current atomic.Pointer[sample]

	ask  chan chan struct{} // requests for a sample; closed when it is taken
	quit chan struct{}
	done chan struct{}
}

// newSampler prepares the sources of a set. It reads and starts nothing.
func newSampler(set *sensors.Set, owned bool, interval time.Duration) *sampler {
	s := &sampler{
		interval: interval,
		owned:    owned,
		devices:  set.Devices(),
		patience: time.NewTimer(time.Hour),
		rules:    make([]rule, len(set.Devices())),
		idle:     IdleProportional,
		reserved: unreserved,
		node:     nodeModel{meter: meterAmong(set.Devices())},
		ask:      make(chan chan struct{}),
		quit:     make(chan struct{}),
		done:     make(chan struct{}),

		suspendedSinceBoot: host.Suspended,
	}
	s.patience.Stop()
	s.scratch, s.uses = make([]sensors.Reading, len(s.devices)), make([]use, len(s.devices))
	from := 0
	for _, sensor := range set.Sensors() {
		src := source{sensor: sensor, from: from, to: from + len(sensor.Devices())}
		timing := sensor.Timing()
		if timing.MayBlock {
			s.readers = append(s.readers, newReader(src, interval, owned))
		} else {
			s.inline = append(s.inline, &src)
			if timing.MaxInterval > 0 {
				// A counter that wraps must be read in time.
				s.interval = min(s.interval, timing.MaxInterval)
			}
		}
		from = src.to
	}
	return s
}

// start takes the first sample and starts the sampling goroutine.
func (s *sampler) start() {
	for _, r := range s.readers {
		r.looker = newLooker(r.sensor, s.job)
		go r.run()
	}
	for _, in := range s.inline {
		if b, ok := in.sensor.(interface{ Begin() }); ok {
			b.Begin() // what is polled has counted since it was opened
		}
	}
	s.suspendedBase, _ = s.suspendedSinceBoot()
	first := s.take(nil, edgeDeadline)
	s.first.Store(first)
	s.current.Store(first)
	go s.run()
}

// stop asks for the last sample and waits for it, no longer than ctx. It
// reports whether the last sample was taken.
func (s *sampler) stop(ctx context.Context) bool {
	close(s.quit)
	select {
	case <-s.done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *sampler) run() {
	defer close(s.done)
	defer s.close()
	ticker := time.NewTicker(s.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.tick(s.tickDeadline())
		case taken := <-s.ask:
			if time.Since(s.current.Load().at) >= min(s.interval/2, minSpacing) {
				s.tick(s.tickDeadline())
			}
			close(taken)
		case <-s.quit:
			s.poll(edgeDeadline)
			s.ending = true
			s.tick(edgeDeadline)
			return
		}
	}
}

// poll polls the sensors that are polled at a slow pace of their own, a meter in
// the network for example, so that the last sample has what they say at the end.
func (s *sampler) poll(deadline time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var polls sync.WaitGroup
	for _, in := range s.inline {
		if p, ok := in.sensor.(interface{ Poll(context.Context) }); ok && in.failed == nil {
			polls.Go(func() {
				defer func() { _ = recover() }() // as in source.read
				p.Poll(ctx)
			})
		}
	}
	done := make(chan struct{})
	go func() {
		polls.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done(): // a poll that does not give up is left alone
	}
}

// tickDeadline is how long a sample between the first and the last waits for a
// source that can block.
func (s *sampler) tickDeadline() time.Duration { return min(s.interval/2, edgeDeadline/4) }

// sampleNow asks for a sample and waits for it. Once the sampler has stopped there
// is none to wait for.
func (s *sampler) sampleNow(ctx context.Context) error {
	taken := make(chan struct{})
	select {
	case s.ask <- taken:
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-taken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the readers and releases the sources. A reader that hangs in its
// driver is left there, and closes its sensor when the driver lets go.
func (s *sampler) close() {
	for _, r := range s.readers {
		close(r.quit)
	}
	s.patience.Reset(100 * time.Millisecond)
	for _, r := range s.readers {
		select {
		case <-r.done:
		case <-s.patience.C:
			s.patience.Reset(0) // the others get a glance each
		}
	}
	s.patience.Stop()
	if s.owned {
		for _, in := range s.inline {
			_ = in.sensor.Close()
		}
	}
	s.clocks.close()
	if s.member != nil {
		s.member.Leave()
	}
}

// tick takes a sample and publishes it.
func (s *sampler) tick(deadline time.Duration) {
	last := s.current.Load()
	next := s.take(last, deadline)
	s.current.Store(next)
	if s.onTick != nil {
		s.onTick(time.Since(next.at))
	}
	if s.log != nil {
		s.logChanges(last, next)
	}
}

// take reads everything once. The two objects it allocates are all that a tick
// allocates: others keep the sample, so it cannot be reused.
func (s *sampler) take(last *sample, deadline time.Duration) *sample {
	next := &sample{at: time.Now(), ending: s.ending, devices: make([]deviceState, len(s.devices))}
	next.counts.samples = 1
	for _, r := range s.readers {
		r.request()
	}
	s.readUsage(last, next)
	for _, in := range s.inline {
		in.read(s.scratch[in.from:in.to:in.to])
	}
	if len(s.readers) > 0 {
		s.patience.Reset(deadline)
		for _, r := range s.readers {
			if !r.collect(s.scratch[r.from:r.to:r.to], s.uses[r.from:r.to:r.to], s.patience.C) {
				s.patience.Reset(0) // patience is for all of them together
			}
		}
		s.patience.Stop()
	}
	owner := s.reads()
	for i, r := range s.scratch {
		s.following.extend(i, s.devices[i], &r, next.at, last == nil, owner)
		next.devices[i].Reading, next.devices[i].use = r, s.uses[i]
		next.devices[i].charge = newCharge()
		if r.Err != nil {
			next.counts.errors++
		}
	}
	if last != nil {
		s.settle(last, next)
	}
	s.share(last, next)
	return next
}

// readUsage reads what the job and the machine use.
func (s *sampler) readUsage(last, next *sample) {
	next.machine = s.clocks.read()
	if total, ok := s.suspendedSinceBoot(); ok {
		next.suspended = max(total-s.suspendedBase, 0)
	}
	if s.job == nil {
		return
	}
	used, err := s.job.Read()
	next.memorySeen = err == nil && used.HasMemory || last != nil && last.memorySeen
	if err != nil {
		// What it had used before stands: a process that has ended uses no more.
		if last != nil {
			next.usage, next.usageKnown = last.usage, last.usageKnown
		}
		return
	}
	if last == nil || !last.usageKnown {
		s.jobBase = used.CPU
	}
	used.CPU = max(used.CPU-s.jobBase, 0)
	next.usage, next.usageKnown = used, true
}

// settle computes what the window from last to next means: the job's share,
// the emissions, and the sampler's own counts.
func (s *sampler) settle(last, next *sample) {
	cpu, memory := jobShares(last, next)
	for i := range next.devices {
		was, now := &last.devices[i], &next.devices[i]
		if now.Energy < was.Energy {
			// A sensor's energy never decreases; one that has lost its tally
			// must not take back what has been reported.
			now.Tally = was.Tally
		}
		// A figure is as good as the worst of what it was made of.
		if !(now.ErrorBand > was.ErrorBand) {
			now.ErrorBand = was.ErrorBand
		}
		if now.Doubt == nil {
			now.Doubt = was.Doubt
		}
		now.lost = was.lost || errors.Is(now.Err, sensors.ErrLost)
		s.attribute(i, last, next, cpu, memory)
	}
	next.elapsed = last.elapsed + next.at.Sub(last.at)
	s.measure(last, next)
	next.jumped = last.jumped + clockJump(last.at, next.at, next.suspended-last.suspended)
	plug := next.energies.plug - last.energies.plug
	next.footprint = last.footprint.Plus(s.model.Apply(last.at, next.at, plug.Joules(), 0))

	next.counts.samples += last.counts.samples
	next.counts.missed += last.counts.missed
	next.counts.errors += last.counts.errors
	if late := next.at.Sub(last.at) - s.interval; late > s.interval/2 {
		next.counts.missed += uint64(math.Round(float64(late) / float64(s.interval)))
	}
}

// jobShares returns the job's share, 0 to 1, of the CPU time that the machine was
// busy in the window and of the memory that was in use.
func jobShares(last, next *sample) (cpu, memory float64) {
	if job := next.usage.CPU - last.usage.CPU; job > 0 && last.machine.busyKnown && next.machine.busyKnown {
		// The machine's clock counts in steps of 10 ms and the job's need not,
		// so that the job can seem to have used more than all of them.
		cpu = float64(job) / float64(max(next.machine.busy-last.machine.busy, job))
	}
	// The mean of both ends, as far as they are known.
	var held, inUse uint64
	for _, end := range []*sample{last, next} {
		if end.usage.HasMemory && end.machine.inUse > 0 {
			held += end.usage.Memory
			inUse += end.machine.inUse
		}
	}
	if held > 0 {
		memory = float64(held) / float64(max(inUse, held))
	}
	return cpu, memory
}

// logChanges reports devices that fail or come back: changes, not ticks.
func (s *sampler) logChanges(last, next *sample) {
	for i, d := range s.devices {
		was, now := last.devices[i].Err, next.devices[i].Err
		switch {
		case was == nil && now != nil:
			s.log.Warn("device cannot be read", "device", d.ID, "error", now)
		case was != nil && now == nil:
			s.log.Info("device reads again", "device", d.ID)
		}
	}
}
