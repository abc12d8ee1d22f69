package sensors

import (
	"context"
	"math"
	"sync"
	"time"
)

// Value is what a source that is polled said of one device.
type Value struct {
	// Power is the device's power, for one that has no counter.
	Power Watts
	// Raw is the reading of the device's counter, in units of its Counter, for
	// one whose method is MethodCounter.
	Raw uint64
	// Err says why there is no value.
	Err error
}

// Polling says how a source is polled.
type Polling struct {
	// Devices are what the source tells of. Their Refresh is how old a value is
	// when it is told; how seldom the source is polled is not a part of it.
	Devices []Device
	// Every is the time between two polls. 0 leaves them to [Polled.Poll].
	Every time.Duration
	// Timeout bounds a poll.
	Timeout time.Duration
	// Poll asks the source, and stores into values[i] what it says of device i.
	// It is called from one goroutine at a time, and gives up when ctx ends.
	Poll func(ctx context.Context, values []Value)
	// Unit and MaxPower are those of the devices' counters and powers, as in
	// [Counter]; MaxPower bounds the others too.
	Unit     uint64
	MaxPower Watts
	// Now is time.Now where it is nil.
	Now func() time.Time
}

// Polled is a Sensor of a source that takes long to answer, or memory: a program
// to run, a service to ask. It is polled by a goroutine of its own, at its own
// pace; Read shows what the last poll brought, and costs a copy.
type Polled struct {
	Polling
	stop    context.CancelFunc
	done    chan struct{}
	polling sync.Mutex // one poll at a time
	values  []Value

	mu     sync.Mutex // of what Read shows; never held across a poll
	meters []polledMeter
	shown  []Reading
}

// polledMeter makes a tally of what is polled of one device.
type polledMeter struct {
	counter    Counter
	integrator Integrator
	last       Tally // of counter
	// origin is what was counted before Begin. Of a counter it is known with the
	// poll after begun only.
	begun  time.Time
	origin Tally
}

var _ Sensor = (*Polled)(nil)

// NewPolled polls a source once, and goes on until Close. It returns what the
// first poll said of each device, so that a source that does not answer can be
// left out at once.
func NewPolled(ctx context.Context, p Polling) (*Polled, []error) {
	if p.Now == nil {
		p.Now = time.Now
	}
	s := &Polled{
		Polling: p, values: make([]Value, len(p.Devices)), done: make(chan struct{}),
		meters: make([]polledMeter, len(p.Devices)), shown: make([]Reading, len(p.Devices)),
	}
	for i, d := range p.Devices {
		s.meters[i] = polledMeter{
			counter:    Counter{Unit: p.Unit, MaxPower: p.MaxPower, Refresh: d.Refresh},
			integrator: Integrator{Period: p.Every, MaxPower: p.MaxPower},
		}
		if d.Method == MethodPowerAverage {
			s.meters[i].integrator.Averaging = d.Refresh
		}
		s.shown[i] = Reading{At: p.Now(), Power: Watts(math.NaN()), Utilization: math.NaN()}
	}
	s.Poll(ctx)
	errs := make([]error, len(p.Devices))
	for i := range errs {
		errs[i] = s.shown[i].Err
	}
	running, stop := context.WithCancel(context.Background())
	s.stop = stop
	if p.Every > 0 {
		go s.run(running)
	} else {
		close(s.done)
	}
	return s, errs
}

func (s *Polled) run(ctx context.Context) {
	defer close(s.done)
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.Poll(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// Poll polls the source now. A panic of the source costs this poll.
func (s *Polled) Poll(ctx context.Context) {
	s.polling.Lock()
	defer s.polling.Unlock()
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Timeout)
		defer cancel()
	}
	for i := range s.values {
		s.values[i] = Value{Err: ErrTransient}
	}
	before := s.Now()
	func() {
		defer func() { _ = recover() }()
		s.Polling.Poll(ctx, s.values)
	}()
	// The value is from some moment of the poll.
	at := before.Add(s.Now().Sub(before) / 2)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, v := range s.values {
		s.meters[i].add(&s.shown[i], s.Devices()[i].Method, at, v)
	}
}

// add makes a reading of a value.
func (m *polledMeter) add(r *Reading, method Method, at time.Time, v Value) {
	r.Err = v.Err
	if v.Err != nil {
		r.Power = Watts(math.NaN())
		return
	}
	since := at.Sub(r.At)
	if method == MethodCounter {
		tally := m.counter.Add(at, v.Raw)
		if !m.begun.IsZero() && since > 0 {
			// It counts as if its power had been the same all the while.
			before := min(max(m.begun.Sub(r.At).Seconds()/since.Seconds(), 0), 1)
			m.origin.Energy += Microjoules(before * float64(tally.Energy-m.origin.Energy))
			m.origin.Observed += time.Duration(before * float64(tally.Observed-m.origin.Observed))
			m.begun = time.Time{}
		}
		r.At = at
		r.Tally = tally.minus(m.origin)
		r.Power = Watts(math.NaN())
		if seconds := (tally.Observed - m.last.Observed).Seconds(); seconds > 0 {
			r.Power = Watts(float64((tally.Energy - m.last.Energy).Joules()) / seconds)
		}
		m.last = tally
	} else {
		r.At = at
		r.Tally, r.Power = m.integrator.Add(at, v.Power).minus(m.origin), v.Power
	}
}

// Begin lets the tallies begin now, from zero, without a poll. A source is polled
// from its opening on, and may have waited for slower ones since.
func (s *Polled) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.meters {
		s.meters[i].begin(&s.shown[i], s.Devices()[i].Method, s.Now())
	}
}

func (m *polledMeter) begin(r *Reading, method Method, now time.Time) {
	if method == MethodCounter {
		m.begun, m.origin = now, m.counter.Tally()
	} else {
		if r.Err == nil && !math.IsNaN(float64(r.Power)) {
			m.integrator.Rebase()
			m.integrator.Add(now, r.Power) // as it was a moment ago
			r.At = now
		}
		m.origin = m.integrator.Tally()
	}
	r.Tally = Tally{}
}

// minus returns what was accumulated since an earlier tally of the same device.
func (t Tally) minus(u Tally) Tally {
	return Tally{
		Energy:    t.Energy - u.Energy,
		Observed:  t.Observed - u.Observed,
		Estimated: t.Estimated - u.Estimated,
		Resets:    t.Resets - u.Resets,
		Rejected:  t.Rejected - u.Rejected,
		Variance:  t.Variance - u.Variance,
	}
}

// Devices implements Sensor.
func (s *Polled) Devices() []Device { return s.Polling.Devices }

// Read implements Sensor. Its readings are as old as the last poll.
func (s *Polled) Read(dst []Reading) {
	s.mu.Lock()
	copy(dst, s.shown)
	s.mu.Unlock()
}

// Timing implements Sensor: the source is polled whether it is read or not.
func (s *Polled) Timing() Timing { return Timing{} }

// Close ends the polling, and waits for a poll that is under way to give up.
func (s *Polled) Close() error {
	s.stop()
	<-s.done
	return nil
}
