package share

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// follower is the Sensor of what another process reads. When that process ends it
// opens the hardware and reads it itself. All but what it shares with its member
// belongs to the goroutine that reads it.
type follower struct {
	m        *Member
	devices  []sensors.Device
	readings []sensors.Reading

	// of the page
	generation, lineage uint64 // of the description, and of the energies in last
	described           uint64 // the lineage of the description
	count               uint32
	sequence            uint64
	index               []int // of the device in the page; -1 where it is not there
	interval            time.Duration
	last                []record
	dated               []bool // whether the reading has the time of a sample
	sampled             bool   // whether a sample of the lineage has been seen
	at                  int64
	handovers           uint32
	gap                 int64
	stale               error
	retryAt             time.Time // before it, the lock is left to others

	// listers tell whose processes use the devices. They are read only once this
	// is the owner.
	listers []reads
	// inner is what is read, of an owner.
	inner []reads
	taken []sensors.Tally // at the handover
}

var _ sensors.ProcessLister = (*follower)(nil)

// reads is a sensor whose devices are some of a follower's.
type reads struct {
	sensors.Sensor
	to      []int // of each of its devices, the place among the follower's; -1: not asked for
	scratch []sensors.Reading
	failed  error
}

// errEarly is reported before the owner's first sample.
var errEarly = fmt.Errorf("share: the process that reads this machine has not taken its first sample yet: %w", sensors.ErrTransient)

// errPage is reported while the page cannot be read.
var errPage = fmt.Errorf("share: the page of this machine's readings cannot be read: %w", sensors.ErrTransient)

// follow makes this a follower of what the page says, and closes what it need not
// read itself.
func (m *Member) follow(set *sensors.Set, s snapshot, d description) error {
	f := &follower{m: m}
	var theirs []sensors.Device
	for _, device := range d.Devices {
		if device.Unread {
			continue
		}
		device.Refresh = max(device.Refresh, d.Interval)
		device.Note = joined(device.Note, "as published by the tracker that reads this machine")
		theirs = append(theirs, device.Device)
	}
	chosen, kept := choose(theirs, set.Sensors())
	f.devices = chosen
	n := len(chosen)
	f.readings, f.taken = make([]sensors.Reading, n), make([]sensors.Tally, n)
	f.last, f.dated = make([]record, n), make([]bool, n)
	for i := range f.readings {
		f.readings[i] = sensors.Reading{At: m.clock.now(), Power: sensors.Watts(math.NaN()), Utilization: math.NaN(), Err: errEarly}
	}
	m.followed = map[string]bool{}
	for _, device := range chosen {
		m.followed[device.ID] = true
	}
	f.adopt(s.header, d)

	var all []sensors.Sensor
	if n > 0 {
		all = append(all, f)
	}
	for i, own := range set.Sensors() {
		switch {
		case kept[i]:
			all = append(all, own)
		case isLister(own):
			f.listers = append(f.listers, f.reads(own))
		default:
			_ = own.Close()
		}
	}
	if n == 0 {
		closeAll(f.listers)
	}
	m.set = sensors.NewSetWithout(omitted(theirs, d.Omitted, set), all...)
	return nil
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// choose returns those of their devices that are followed, and which of the own
// sensors have a device that is read here all the same.
func choose(theirs []sensors.Device, own []sensors.Sensor) (followed []sensors.Device, kept []bool) {
	// A set decides. It sees each device with a number of its own.
	all := []sensors.Sensor{&outline{devices: theirs}}
	for _, s := range own {
		all = append(all, &outline{devices: s.Devices()})
	}
	n := 0
	var from []int // of each device, the place of its sensor in all
	for i, s := range all {
		o := s.(*outline)
		o.devices = slices.Clone(o.devices)
		for j := range o.devices {
			o.devices[j].Index = n
			n++
			from = append(from, i)
		}
	}
	kept = make([]bool, len(own))
	for _, d := range sensors.NewSet(all...).Devices() {
		if i := from[d.Index]; i == 0 {
			followed = append(followed, theirs[d.Index])
		} else {
			kept[i-1] = true
		}
	}
	return followed, kept
}

// outline is a sensor that has devices and is not read.
type outline struct{ devices []sensors.Device }

func (o *outline) Devices() []sensors.Device { return o.devices }
func (o *outline) Read([]sensors.Reading)    {}
func (o *outline) Timing() sensors.Timing    { return sensors.Timing{} }
func (o *outline) Close() error              { return nil }

// isLister reports whether a sensor can tell whose processes use its devices. A
// set's part of a sensor is a lister by its type; only asking tells.
func isLister(s sensors.Sensor) (can bool) {
	defer func() {
		if recover() != nil {
			can = false
		}
	}()
	lister, ok := s.(sensors.ProcessLister)
	if !ok {
		return false
	}
	_, err := lister.Processes(0)
	return codeOfCause(err) != codeOfCause(sensors.ErrUnsupported)
}

// omitted returns what the set of a follower lacks: what the owner says of what it
// reads, and what this process says of the components that the owner has not.
func omitted(theirs []sensors.Device, owners []omission, own *sensors.Set) []sensors.Omission {
	var all []sensors.Omission
	has := func(devices []sensors.Device, c sensors.Component) bool {
		return slices.ContainsFunc(devices, func(d sensors.Device) bool {
			return d.Component == c || slices.Contains(d.Includes, c)
		})
	}
	mine := own.Devices()
	for _, o := range owners {
		// What one process cannot read, the other may.
		readHere := slices.ContainsFunc(mine, func(d sensors.Device) bool { return d.ID == o.Device }) ||
			o.Device == "" && !has(theirs, o.Component) && has(mine, o.Component)
		if !readHere {
			all = append(all, o.withCause())
		}
	}
	for _, o := range own.Omissions() {
		if !has(theirs, o.Component) && !slices.ContainsFunc(all, func(a sensors.Omission) bool {
			return a.Source == o.Source && a.Component == o.Component && a.Device == o.Device
		}) {
			all = append(all, o)
		}
	}
	return all
}

// adopt takes over what a generation's description says.
func (f *follower) adopt(h header, d description) {
	f.generation, f.described, f.count = h.generation, h.lineage, h.count
	f.interval = d.Interval
	f.index = make([]int, len(f.devices))
	for i, device := range f.devices {
		f.index[i] = slices.IndexFunc(d.Devices, func(o described) bool { return o.ID == device.ID })
	}
	f.stale = fmt.Errorf("share: process %d, which reads this machine for all, publishes nothing: "+
		"if it is stopped, continue it (kill -CONT %[1]d) or end it: %w", d.PID, sensors.ErrTimeout)
	was := f.m.status.Load()
	f.m.status.Store(&status{runID: d.RunID, handovers: was.handovers, gap: was.gap})
}

// Devices implements sensors.Sensor.
func (f *follower) Devices() []sensors.Device { return f.devices }

// Timing implements sensors.Sensor. A follower looks at the page as often as the
// owner writes it, as it may have to take over; an owner reads as its sensors ask.
func (f *follower) Timing() sensors.Timing {
	t := sensors.Timing{MayBlock: true, MaxInterval: f.interval}
	if f.inner == nil {
		return t
	}
	t.MaxInterval = 0
	for i := range f.inner {
		if v := f.inner[i].Timing().MaxInterval; v > 0 && (t.MaxInterval == 0 || v < t.MaxInterval) {
			t.MaxInterval = v
		}
	}
	return t
}

// Read implements sensors.Sensor.
func (f *follower) Read(dst []sensors.Reading) {
	if f.inner == nil && f.look() {
		f.takeOver()
	} else if f.inner != nil {
		f.readInner()
	}
	copy(dst, f.readings)
}

// look reads the page, and reports whether this is the owner now.
func (f *follower) look() (won bool) {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return false
	}
	now := m.clock.now()
	if m.open != nil && !now.Before(f.retryAt) {
		// A file system that has lost its locks has no owner to be.
		won, _ = m.file.lock()
	}
	// After the lock: nobody writes any more, and this is the last word.
	s, ok := m.page.latest(m.file, m.id)
	if ok && (s.generation != f.generation || s.lineage != f.described) {
		var d description
		d, ok = m.page.describe(m.file, m.id, s.generation)
		if ok = ok && len(d.Devices) == int(s.count); ok {
			f.adopt(s.header, d)
		}
	}
	if ok = ok && s.count == f.count; ok && (s.sequence != f.sequence || s.lineage != f.lineage) {
		f.absorb(&s, now)
	}
	if now := m.clock.page(now); !ok && f.at == 0 {
		f.fail(errPage)
	} else if f.at != 0 && time.Duration(now-f.at) > patienceOf(f.interval) {
		f.fail(f.stale)
	}
	return won
}

// fail marks the devices that have no error of their own.
func (f *follower) fail(err error) {
	for i := range f.readings {
		if f.readings[i].Err == nil || f.readings[i].Err == errEarly {
			f.readings[i].Err = err
		}
	}
}

// absorb adds what is new in a snapshot.
func (f *follower) absorb(s *snapshot, now time.Time) {
	same := s.lineage == f.lineage
	if s.sampled {
		f.countHandovers(s, same)
		f.sampled, f.at = true, max(s.at, f.at)
	}
	for i, j := range f.index {
		if j < 0 {
			f.readings[i].Err = told[codeOfCause(sensors.ErrLost)]
			continue
		}
		f.take(i, s.record(j), same, s.sampled || f.sampled, now)
	}
	f.lineage, f.sequence = s.lineage, s.sequence
}

// countHandovers counts what has changed since the first sample that was seen.
func (f *follower) countHandovers(s *snapshot, same bool) {
	n, gap := int(s.handovers-f.handovers), time.Duration(s.gap-f.gap)
	switch {
	case !f.sampled:
		n, gap = 0, 0
	case !same || gap < 0 || s.handovers < f.handovers:
		// The page was lost, and another began.
		n, gap = 1, max(time.Duration(s.at-f.at), 0)
	}
	f.handovers, f.gap = s.handovers, s.gap
	if n == 0 && gap == 0 {
		return
	}
	was := f.m.status.Load()
	f.m.status.Store(&status{owner: was.owner, runID: was.runID, handovers: was.handovers + n, gap: was.gap + gap})
}

// take adds what record now says of device i to its reading.
func (f *follower) take(i int, now record, same, sampled bool, at time.Time) {
	r, was := &f.readings[i], &f.last[i]
	sum := r.Plus(beyond(now.Tally, was.Tally))
	switch {
	case !same && f.lineage == 0: // the origin
	case !same || !grows(was.Tally, now.Tally) || !grows(r.Tally, sum):
		// Other energies than those before: nobody knows what lies between.
		r.Resets++
	default:
		r.Tally = sum
	}
	if sampled && now.at != 0 && (!f.dated[i] || now.at > was.at) {
		if t := f.m.clock.local(now.at, at); !f.dated[i] || t.After(r.At) {
			r.At, f.dated[i] = t, true
		}
	}
	*was = now
	r.Power, r.Utilization = sensors.Watts(now.power), now.utilization
	r.Method, r.ErrorBand = methodOf(now.method), now.band
	r.Err, r.Doubt = causeOf(now.cause), nil
	if now.doubted {
		r.Doubt = errDoubted
	}
	if !sampled {
		r.Err = errEarly
	}
}

// grows reports whether no field of a tally decreases.
func grows(from, to sensors.Tally) bool {
	return to.Energy >= from.Energy && to.Observed >= from.Observed && to.Estimated >= from.Estimated &&
		to.Resets >= from.Resets && to.Rejected >= from.Rejected && to.Variance >= from.Variance
}

// takeOver opens the hardware and becomes the owner. The lock is held. It is given
// back if there is nothing here that could be read, so that others can try.
func (f *follower) takeOver() {
	m := f.m
	set, err := m.reopen()
	if err != nil {
		f.giveBack()
		return
	}
	var inner []reads
	for _, s := range set.Sensors() {
		r := f.reads(s)
		if slices.ContainsFunc(r.to, func(i int) bool { return i >= 0 }) {
			inner = append(inner, r)
		} else {
			_ = s.Close()
		}
	}
	if len(inner) == 0 {
		f.giveBack()
		return
	}
	closeAll(f.listers)
	f.inner, f.listers = inner, nil
	for i := range f.readings {
		f.taken[i] = f.readings[i].Tally
	}
	f.readInner()

	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return // it has left meanwhile, and the lock is with somebody else
	}
	m.inherit(m.set)
	m.before = cmp.Or(m.page.at, f.at) // also where the page is lost
	if m.page.lineage == 0 {
		m.page.lineage = randomID()
	}
	if err := m.describe(omissionsOf(m.set)); err != nil {
		// Nobody can follow. Each goes on for itself.
		m.abandon()
		return
	}
	var gap, at int64
	covered := map[string]int{}
	for i, d := range f.devices {
		covered[d.ID] = i
	}
	for i := range m.lines {
		l := &m.lines[i]
		j, ok := covered[l.ID]
		if !ok || l.index < 0 {
			continue
		}
		r := &f.readings[j]
		l.started, l.first = true, f.taken[j]
		if r.Err == nil {
			at = max(at, m.clock.page(r.At))
			if l.last.at > 0 {
				gap = max(gap, m.clock.page(r.At)-l.last.at)
			}
		}
		l.take(m.clock.page(r.At), r)
	}
	at = cmp.Or(at, m.clock.page(m.clock.now()))
	gap = m.handOver(gap, at)
	if !f.sampled {
		gap = 0 // what was before the first sample is nothing of this member's
	}
	m.page.sampled = true
	m.owner = true
	_ = m.write(at) // the next sample is written in any case
	was := m.status.Load()
	m.status.Store(&status{owner: true, runID: m.who.RunID, handovers: was.handovers + 1, gap: was.gap + time.Duration(gap)})
}

// giveBack leaves the lock to others for a while.
func (f *follower) giveBack() {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file != nil {
		m.file.unlock()
	}
	f.retryAt = m.clock.now().Add(10 * f.interval)
}

// abandon lets go of the page and of the lock of an owner that cannot write it.
func (m *Member) abandon() {
	m.file.unlock()
	m.file.close()
	m.file = nil
	was := m.status.Load()
	m.status.Store(&status{owner: true, runID: m.who.RunID, handovers: was.handovers, gap: was.gap})
}

// reopen opens the set of this process again. A detection that panics has not
// found anything.
func (m *Member) reopen() (set *sensors.Set, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("share: %v: %w", p, sensors.ErrTransient)
		}
	}()
	set, err = m.open(m.ctx)
	if err == nil && set == nil {
		err = os.ErrInvalid
	}
	return set, err
}

// reads prepares a sensor for the devices that it has in common with the follower.
func (f *follower) reads(s sensors.Sensor) reads {
	r := reads{Sensor: s, scratch: make([]sensors.Reading, len(s.Devices()))}
	for _, d := range s.Devices() {
		r.to = append(r.to, slices.IndexFunc(f.devices, func(o sensors.Device) bool { return o.ID == d.ID }))
	}
	return r
}

// read reads the sensor and survives its panic, so that it costs its own devices
// and no others.
func (r *reads) read() {
	defer func() {
		if p := recover(); p != nil {
			r.failed = fmt.Errorf("share: the sensor failed unexpectedly and is no longer read: %v", p)
		}
	}()
	if r.failed == nil {
		r.Read(r.scratch)
	}
}

// readInner reads the hardware.
func (f *follower) readInner() {
	for i := range f.readings {
		f.readings[i].Err = told[codeOfCause(sensors.ErrLost)]
	}
	for k := range f.inner {
		in := &f.inner[k]
		in.read()
		for j, i := range in.to {
			if i < 0 {
				continue
			}
			r := &f.readings[i]
			if in.failed != nil {
				r.Err = in.failed
				continue
			}
			at := r.At
			*r = in.scratch[j]
			r.Tally = f.taken[i].Plus(r.Tally)
			if r.At.Before(at) {
				r.At = at
			}
			if d := &in.Devices()[j]; r.Method == "" && d.Method != f.devices[i].Method {
				r.Method, r.ErrorBand = d.Method, d.ErrorBand
			}
		}
	}
}

// Processes implements sensors.ProcessLister, as far as a sensor of this process
// does.
func (f *follower) Processes(i int) ([]sensors.ProcessUse, error) {
	for _, in := range [][]reads{f.inner, f.listers} {
		for k := range in {
			lister, ok := in[k].Sensor.(sensors.ProcessLister)
			if j := slices.Index(in[k].to, i); ok && j >= 0 {
				return lister.Processes(j)
			}
		}
	}
	return nil, fmt.Errorf("share: processes: %w", sensors.ErrUnsupported)
}

// Close implements sensors.Sensor. It does not leave.
func (f *follower) Close() error {
	closeAll(f.listers)
	closeAll(f.inner)
	return nil
}

func closeAll(all []reads) {
	for i := range all {
		_ = all[i].Close()
	}
}
