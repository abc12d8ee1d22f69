package share

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// joinPatience is how long [Join] waits for an owner that has the lock and no page
// yet: one that has started at the same moment.
const joinPatience = 2 * time.Second

// Open detects the sensors of this process: what a follower opens when it becomes
// the owner.
type Open = func(context.Context) (*sensors.Set, error)

// Who says who joins.
type Who struct {
	// RunID names the run, for the others.
	RunID string
	// Interval is the time between two samples.
	Interval time.Duration
}

// Member is one tracker among those of a machine. Its methods can be called from
// any goroutine.
type Member struct {
	who   Who
	open  Open
	clock clock
	id    identity
	set   *sensors.Set
	ctx   context.Context // ends with Leave
	leave context.CancelFunc

	status atomic.Pointer[status]
	// followed are the IDs of the devices that are read in the page, while this is
	// no owner. It does not change.
	followed map[string]bool

	mu   sync.Mutex // of what follows; held across the page's system calls, never a driver's
	file *file      // nil once it has left
	page page
	// lines are the devices of the page, of an owner.
	lines []line
	owner bool
	// before is the last sample of the owner before, until the gap is known.
	before int64
}

// status is what can be asked of a member at any time. It is never changed.
type status struct {
	owner     bool
	runID     string
	handovers int
	gap       time.Duration
}

// page is the view that one process has of the page.
type page struct {
	header  // of the latest snapshot, read or written
	buffers [2][]byte
}

// line is a device in the page, as its owner has it.
type line struct {
	described
	index int // among the member's readings; -1 where it cannot be read
	// last is what the page says; origin is what it said when this owner read the
	// device first, and first that reading. Only the difference is added.
	last    record
	started bool
	origin  sensors.Tally
	first   sensors.Tally
}

// Join joins the trackers that meet in dir. set is what this process has detected,
// and open detects it again.
//
// The first to come is the owner: its set is set, as it is. For the others,
// [Member.Set] has the devices of the owner's page, and what nothing of the owner
// covers from their own set, as in [sensors.NewSet]: a container can see other
// GPUs. What the owner reads they close. Only a sensor that can tell whose processes
// use its devices stays open, to be asked that: the owner cannot know what belongs
// to another job.
//
// After an error set is untouched and still open, and the caller reads it alone: the
// directory cannot be used, it is on a file system without locks, the owner does not
// answer ([sensors.ErrTimeout]) or reads too seldom ([SlowError]), the system has no such locks
// ([sensors.ErrUnsupported]), or ctx has ended. ctx is not kept.
func Join(ctx context.Context, dir string, set *sensors.Set, open Open, who Who) (*Member, error) {
	if !supported {
		return nil, errUnsupported
	}
	c, err := newClock()
	if err != nil {
		return nil, fmt.Errorf("share: %w", err)
	}
	return join(ctx, dir, set, open, who, c)
}

func join(ctx context.Context, dir string, set *sensors.Set, open Open, who Who, c clock) (*Member, error) {
	if who.Interval <= 0 {
		return nil, fmt.Errorf("share: the interval is %v and must be more", who.Interval)
	}
	id, err := machine()
	if err != nil {
		return nil, err
	}
	f, err := openFile(dir, id)
	if err != nil {
		return nil, err
	}
	m := &Member{who: who, open: open, clock: c, id: id, file: f}
	m.status.Store(&status{})
	m.ctx, m.leave = context.WithCancel(context.Background())
	err = m.join(ctx, dir, set)
	if err != nil {
		m.Leave()
		return nil, err
	}
	return m, nil
}

// join becomes the owner, or follows the one there is.
func (m *Member) join(ctx context.Context, dir string, set *sensors.Set) error {
	patience := time.NewTimer(joinPatience)
	defer patience.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		won, err := m.file.lock()
		if err != nil {
			return err
		}
		if won {
			tidy(dir, time.Now())
			return m.begin(set)
		}
		if s, d, ok := m.alive(); ok {
			if d.Interval > m.who.Interval {
				return &SlowError{RunID: d.RunID, Interval: d.Interval}
			}
			return m.follow(set, s, d)
		}
		select {
		case <-again.C:
		case <-patience.C:
			return fmt.Errorf("share: another process has the lock in %s and publishes nothing; "+
				"if it is stopped, continue or end it: %w", dir, sensors.ErrTimeout)
		case <-ctx.Done():
			return fmt.Errorf("share: %w", ctx.Err())
		}
	}
}

// alive returns what the page says, if its owner has written it of late. A page of
// an owner that has ended is not followed: the next one is about to describe its
// own devices.
func (m *Member) alive() (snapshot, description, bool) {
	s, ok := m.page.latest(m.file, m.id)
	if !ok {
		return s, description{}, false
	}
	d, ok := m.page.describe(m.file, m.id, s.generation)
	if !ok || len(d.Devices) != int(s.count) {
		return s, d, false
	}
	age := time.Duration(m.clock.page(m.clock.now()) - s.written)
	return s, d, age <= max(patienceOf(d.Interval), joinPatience)
}

// SlowError is returned by [Join] where the owner reads the machine less often than
// the caller asks for, who then reads it too: its samples would be those of the
// owner. What the owner publishes of the machine contains the caller's all the same.
type SlowError struct {
	RunID    string
	Interval time.Duration
}

// Error implements error: it says who reads the machine, and how often.
func (e *SlowError) Error() string {
	return fmt.Sprintf("share: run %s reads this machine for all, but only every %v", e.RunID, e.Interval)
}

// patienceOf returns the age from which a sample is late.
func patienceOf(interval time.Duration) time.Duration { return interval * 5 / 2 }

// begin makes this the owner, with a set that has not been read.
func (m *Member) begin(set *sensors.Set) error {
	if err := m.file.grow(); err != nil {
		return err
	}
	m.set = set
	m.inherit(set)
	m.before = 0
	if m.page.lineage != 0 {
		m.before = m.page.at
	} else {
		m.page.lineage = randomID()
	}
	if err := m.describe(omissionsOf(set)); err != nil {
		return err
	}
	m.page.sampled = false
	// Both places, so that the file system has room for both from now on.
	for range 2 {
		if err := m.write(m.page.at); err != nil {
			return err
		}
	}
	m.owner = true
	m.status.Store(&status{owner: true, runID: m.who.RunID})
	return nil
}

// randomID names a lineage; 0 is none.
func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return max(binary.LittleEndian.Uint64(b[:]), 1)
}

// inherit makes the lines of an owner: the devices of its set, and those that the
// page has beside them. Their energies go on.
func (m *Member) inherit(set *sensors.Set) {
	old := map[string]record{}
	var others []line
	if s, ok := m.page.latest(m.file, m.id); ok {
		m.page.header = s.header
		d, ok := m.page.describe(m.file, m.id, s.generation)
		if ok && len(d.Devices) == int(s.count) {
			for i, device := range d.Devices {
				old[device.ID] = s.record(i)
				device.Unread = true
				other := line{described: device, index: -1, last: s.record(i)}
				other.last.cause = codeOfCause(sensors.ErrLost)
				others = append(others, other)
			}
		} else {
			m.page.lineage = 0 // nobody can say which device an energy is of
		}
	}
	m.lines = nil
	own := map[string]bool{}
	for i, device := range set.Devices() {
		own[device.ID] = true
		m.lines = append(m.lines, line{described: described{Device: device}, index: i, last: old[device.ID]})
	}
	for _, o := range others {
		if !own[o.ID] && len(m.lines) < maxDevices {
			m.lines = append(m.lines, o)
		}
	}
	for i := range m.lines {
		m.lines[i].origin = m.lines[i].last.Tally
	}
}

// describe starts a generation: it writes its description.
func (m *Member) describe(omitted []omission) error {
	d := description{PID: os.Getpid(), RunID: m.who.RunID, Interval: m.who.Interval, Omitted: omitted}
	for _, l := range m.lines {
		d.Devices = append(d.Devices, l.described)
	}
	generation := m.page.generation + 1
	buf, err := encodeDescription(m.id, generation, d)
	if err != nil {
		return fmt.Errorf("share: %w", err)
	}
	if err := m.file.writeAt(buf, int64(generation%2)*describeSize); err != nil {
		return err
	}
	m.page.generation = generation
	m.page.pid, m.page.count = uint32(d.PID), uint32(len(m.lines))
	m.page.buffers[0] = grown(m.page.buffers[0], snapshotHead+len(m.lines)*recordSize)
	return nil
}

// write writes a snapshot of the lines.
func (m *Member) write(at int64) error {
	m.page.sequence++
	m.page.at = max(m.page.at, at)
	m.page.written = m.clock.page(m.clock.now())
	buf := m.page.buffers[0]
	for i := range m.lines {
		m.lines[i].last.put(buf, i)
	}
	return m.file.writeAt(seal(buf, m.id, m.page.header), slotOf(m.page.sequence))
}

func slotOf(sequence uint64) int64 { return slotsAt + int64(sequence%2)*slotSize }

// Set returns what this member reads. It does not change.
func (m *Member) Set() *sensors.Set { return m.set }

// Owner reports whether this member reads the hardware for all, and the run of the
// one that does.
func (m *Member) Owner() (isOwner bool, runID string) {
	s := m.status.Load()
	return s.owner, s.runID
}

// Follows reports whether another process reads the device of this ID: its figures
// are published by that process's tracker.
func (m *Member) Follows(id string) bool { return !m.status.Load().owner && m.followed[id] }

// Handovers returns how often the owner has changed since this member joined, and
// the time that nobody has observed in doing so. What was used in it is in no
// device's energy.
func (m *Member) Handovers() (n int, gap time.Duration) {
	s := m.status.Load()
	return s.handovers, s.gap
}

// Publish shows the readings of [Member.Set], in its order, to the followers; at is
// when they were asked for. It is called after each sample, and does nothing in a
// member that is not the owner. It costs a system call of a few µs, and allocates
// nothing; an error says that the page could not be written, and the next call can
// succeed.
func (m *Member) Publish(at time.Time, readings []sensors.Reading) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.owner || m.file == nil {
		return nil
	}
	var gap int64
	for i := range m.lines {
		l := &m.lines[i]
		if l.index < 0 || l.index >= len(readings) {
			continue
		}
		r := &readings[l.index]
		if !l.started {
			l.started, l.first = true, r.Tally
			if l.last.at > 0 && r.Err == nil {
				gap = max(gap, m.clock.page(r.At)-l.last.at)
			}
		}
		l.take(m.clock.page(r.At), r)
	}
	m.handOver(gap, m.clock.page(at))
	m.page.sampled = true
	return m.write(m.clock.page(at))
}

// handOver counts a change of the owner, if there was one before. gap is the longest
// time that a device was not observed; without one it is that between the samples.
func (m *Member) handOver(gap, at int64) int64 {
	if m.before == 0 {
		return 0
	}
	if gap <= 0 {
		gap = max(at-m.before, 0)
	}
	m.before = 0
	m.page.handovers++
	m.page.gap += gap
	return gap
}

// take brings a reading into the page's lineage.
func (l *line) take(at int64, r *sensors.Reading) {
	// A reading that was late can be older than the last.
	l.last.Tally = latest(l.last.Tally, l.origin.Plus(beyond(r.Tally, l.first)))
	l.last.at = max(l.last.at, at)
	l.last.power, l.last.utilization = float64(r.Power), r.Utilization
	l.last.band, l.last.method = r.ErrorBand, codeOfMethod(r.Method)
	l.last.cause, l.last.doubted = codeOfCause(r.Err), r.Doubt != nil
}

// beyond returns what t has more than u.
func beyond(t, u sensors.Tally) sensors.Tally {
	return sensors.Tally{
		Energy:    t.Energy - min(u.Energy, t.Energy),
		Observed:  max(t.Observed-u.Observed, 0),
		Estimated: max(t.Estimated-u.Estimated, 0),
		Resets:    t.Resets - min(u.Resets, t.Resets),
		Rejected:  t.Rejected - min(u.Rejected, t.Rejected),
		Variance:  max(t.Variance-u.Variance, 0),
	}
}

// latest returns the larger of each field: a tally only grows.
func latest(t, u sensors.Tally) sensors.Tally {
	return sensors.Tally{
		Energy:    max(t.Energy, u.Energy),
		Observed:  max(t.Observed, u.Observed),
		Estimated: max(t.Estimated, u.Estimated),
		Resets:    max(t.Resets, u.Resets),
		Rejected:  max(t.Rejected, u.Rejected),
		Variance:  max(t.Variance, u.Variance),
	}
}

// Leave gives up the lock, so that a follower takes over, and lets go of the page.
// It closes no sensor: that is up to whoever reads them. Publish does nothing after
// it, and the devices that are followed keep their last values. What Owner and
// Handovers said last stands.
func (m *Member) Leave() {
	m.leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return
	}
	m.file.unlock()
	m.file.close()
	m.file = nil
}

// latest reads the newest whole snapshot. Its records are valid until the next
// call.
func (p *page) latest(f *file, id identity) (newest snapshot, ok bool) {
	for i := range p.buffers {
		for {
			buf := p.buffers[i]
			if cap(buf) == 0 {
				buf = grown(buf, snapshotHead)
			}
			n := f.readAt(buf, slotsAt+int64(i)*slotSize)
			s, whole, more := unseal(buf[:n], id)
			p.buffers[i] = buf
			if more && n == len(buf) {
				p.buffers[i] = grown(buf, snapshotHead+int(s.count)*recordSize)
				continue
			}
			if whole && (!ok || s.sequence > newest.sequence) {
				newest, ok = s, true
			}
			break
		}
	}
	return newest, ok
}

// grown returns a buffer of this length.
func grown(buf []byte, n int) []byte { return slices.Grow(buf[:0], n)[:n] }

// describe reads the description of a generation.
func (p *page) describe(f *file, id identity, generation uint64) (description, bool) {
	buf := make([]byte, describeSize)
	n := f.readAt(buf, int64(generation%2)*describeSize)
	return decodeDescription(buf[:n], id, generation)
}
