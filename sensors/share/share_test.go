//go:build linux || darwin

package share

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// lab is a machine on virtual time, whose trackers are all in this process. Every
// tracker opens sensors of its own over the same hardware.
type lab struct {
	t     testing.TB
	dir   string
	clock *sensortest.Clock
	base  time.Time
}

func newLab(t testing.TB) *lab {
	c := sensortest.NewClock()
	return &lab{t: t, dir: t.TempDir(), clock: c, base: c.Now()}
}

// interval is that of the trackers in the lab.
const interval = time.Second

var cpu = sensors.Device{ID: "package-0", Component: sensors.CPU}
var gpu = sensors.Device{ID: "GPU-0", Component: sensors.GPU}

// sensor opens the hardware: every device draws what its curve says since the lab
// began.
func (l *lab) sensor(devices ...sensors.Device) *sensortest.Sensor {
	var scripts []sensortest.Script
	for _, d := range devices {
		scripts = append(scripts, sensortest.Script{Device: d, Curve: draw, Utilization: 0.5})
	}
	first := true
	return sensortest.NewSensor(func() time.Time {
		if first {
			first = false
			return l.base
		}
		return l.clock.Now()
	}, sensors.Timing{}, scripts...)
}

// draw is between 100 W and 300 W.
var draw = func() sensortest.Curve {
	var powers []sensors.Watts
	for i := range 400 {
		powers = append(powers, []sensors.Watts{100, 300, 200}[i%3])
	}
	return sensortest.Steps(700*time.Millisecond, powers...)
}()

// tracker does with a member what a tracker does.
type tracker struct {
	*Member
	lab      *lab
	readings []sensors.Reading
	first    time.Time // of the first device's first reading
}

// open makes an Open of sensors over these devices.
func (l *lab) open(devices ...sensors.Device) Open {
	return func(context.Context) (*sensors.Set, error) { return sensors.NewSet(l.sensor(devices...)), nil }
}

func (l *lab) join(runID string, open Open) *tracker {
	l.t.Helper()
	tr, err := l.tryJoin(runID, open)
	if err != nil {
		l.t.Fatalf("Join of %s: %v", runID, err)
	}
	return tr
}

func (l *lab) tryJoin(runID string, open Open) (*tracker, error) {
	set, err := open(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	m, err := join(context.Background(), l.dir, set, open, Who{RunID: runID, Interval: interval},
		clock{now: l.clock.Now, base: l.base, mono: 1_000_000_000})
	if err != nil {
		return nil, err
	}
	l.t.Cleanup(m.Leave)
	return &tracker{Member: m, lab: l, readings: make([]sensors.Reading, len(m.Set().Devices()))}, nil
}

// sample reads and publishes once.
func (tr *tracker) sample() []sensors.Reading {
	tr.lab.t.Helper()
	at := tr.lab.clock.Now()
	tr.Set().Read(tr.readings)
	if err := tr.Publish(at, tr.readings); err != nil {
		tr.lab.t.Errorf("Publish: %v", err)
	}
	if tr.first.IsZero() && len(tr.readings) > 0 {
		tr.first = tr.readings[0].At
	}
	return tr.readings
}

// run lets time pass, at the pace of the samples.
func (l *lab) run(samples int, trackers ...*tracker) {
	l.t.Helper()
	for range samples {
		l.clock.Advance(interval)
		for _, tr := range trackers {
			tr.sample()
		}
	}
}

// reading returns the tracker's latest reading of a device.
func (tr *tracker) reading(id string) sensors.Reading {
	tr.lab.t.Helper()
	for i, d := range tr.Set().Devices() {
		if d.ID == id {
			return tr.readings[i]
		}
	}
	tr.lab.t.Fatalf("no device %s", id)
	panic("unreachable")
}

// used is what a device has used between two times, to the microjoule.
func (l *lab) used(from, to time.Time) sensors.Microjoules {
	return draw.Energy(to.Sub(l.base)) - draw.Energy(from.Sub(l.base))
}

func (tr *tracker) isOwner() bool { is, _ := tr.Owner(); return is }

func TestALoneProcessReadsItsOwnSet(t *testing.T) {
	l := newLab(t)
	set := sensors.NewSet(l.sensor(cpu, gpu))
	m, err := Join(context.Background(), l.dir, set, l.open(cpu, gpu), Who{RunID: "alone", Interval: interval})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Leave()
	if m.Set() != set {
		t.Error("the owner's set is not the one it came with")
	}
	if is, run := m.Owner(); !is || run != "alone" {
		t.Errorf("Owner() = %v, %q", is, run)
	}
	if m.Follows(cpu.ID) {
		t.Error("the owner follows somebody")
	}
}

func TestFollowersShowTheOwnersJoulesSinceTheyCame(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu, gpu))
	owner.sample()
	l.run(3, owner)
	var own *sensortest.Sensor
	follower := l.join("b", func(context.Context) (*sensors.Set, error) {
		own = l.sensor(cpu, gpu)
		return sensors.NewSet(own), nil
	})
	if !own.Closed() {
		t.Error("what the owner reads is still open")
	}
	if is, run := follower.Owner(); is || run != "a" {
		t.Errorf("Owner() of the follower = %v, %q", is, run)
	}
	if !follower.Follows(cpu.ID) || !follower.Follows(gpu.ID) || follower.Follows("other") {
		t.Error("Follows does not name the followed devices")
	}
	for i, r := range follower.sample() {
		if r.Err != nil || r.Tally != (sensors.Tally{}) || !r.At.Equal(l.clock.Now()) {
			t.Errorf("first reading of device %d: %+v", i, r)
		}
	}
	l.run(5, owner, follower)
	for i, r := range follower.readings {
		o := owner.readings[i]
		if r.Energy != l.used(follower.first, r.At) || r.Observed != 5*interval {
			t.Errorf("energy %d in %v, want %d in %v", r.Energy, r.Observed, l.used(follower.first, r.At), 5*interval)
		}
		if r.Err != nil || r.Power != o.Power || r.Utilization != 0.5 || !r.At.Equal(o.At) {
			t.Errorf("reading %+v, the owner's is %+v", r, o)
		}
	}
	if d := follower.Set().Devices()[0]; d.ID != cpu.ID || d.Component != sensors.CPU || d.Refresh < interval || d.Note == "" {
		t.Errorf("device %+v", d)
	}
	if n, gap := follower.Handovers(); n != 0 || gap != 0 {
		t.Errorf("Handovers() = %d, %v with one owner", n, gap)
	}
}

// The owner has the lock and no sample yet.
func TestAFollowerThatComesBeforeTheFirstSampleWaitsForIt(t *testing.T) {
	l := newLab(t)
	owner, follower := l.join("a", l.open(cpu)), l.join("b", l.open(cpu))
	r := follower.sample()[0]
	if !errors.Is(r.Err, sensors.ErrTransient) || r.Tally != (sensors.Tally{}) {
		t.Fatalf("before the first sample: %+v", r)
	}
	l.run(3, owner, follower)
	if r = follower.readings[0]; r.Err != nil || r.Energy == 0 || r.Energy != owner.readings[0].Energy {
		t.Errorf("%+v, want the owner's %+v", r, owner.readings[0])
	}
}

func TestConformance(t *testing.T) {
	var l *lab
	var owner *tracker
	sensortest.Conform(t, sensortest.Conformance{
		Open: func(t testing.TB) sensors.Sensor {
			l = newLab(t)
			owner = l.join("a", l.open(cpu, gpu))
			owner.sample()
			return l.join("b", l.open(cpu, gpu)).Set().Sensors()[0]
		},
		Advance: func(d time.Duration) {
			l.clock.Advance(d)
			owner.sample()
		},
	})
}

// The conformance of a follower that has become the owner.
func TestConformanceAfterAHandover(t *testing.T) {
	var l *lab
	sensortest.Conform(t, sensortest.Conformance{
		Open: func(t testing.TB) sensors.Sensor {
			l = newLab(t)
			owner := l.join("a", l.open(cpu, gpu))
			owner.sample()
			follower := l.join("b", l.open(cpu, gpu))
			owner.Leave()
			return follower.Set().Sensors()[0]
		},
		Advance: func(d time.Duration) { l.clock.Advance(d) },
	})
}

func TestTheNextOwnerGoesOnWhereTheLastStopped(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu, gpu))
	owner.sample()
	next, other := l.join("b", l.open(cpu, gpu)), l.join("c", l.open(cpu, gpu))
	next.sample()
	other.sample()
	l.run(4, owner, next, other)
	from := l.clock.Now()
	owner.Leave()
	l.clock.Advance(600 * time.Millisecond) // nobody looks
	next.sample()
	to := l.clock.Now()
	if !next.isOwner() || other.isOwner() {
		t.Fatal("the first to look is not the owner")
	}
	if _, run := next.Owner(); run != "b" || next.Follows(cpu.ID) {
		t.Errorf("the new owner's run is %q, and it follows: %v", run, next.Follows(cpu.ID))
	}
	other.sample()
	if _, run := other.Owner(); run != "b" || other.isOwner() {
		t.Errorf("the other follows %q", run)
	}
	l.run(5, next, other)
	for _, tr := range []*tracker{next, other} {
		n, gap := tr.Handovers()
		if n != 1 || gap != to.Sub(from) {
			t.Errorf("Handovers() = %d, %v, want 1, %v", n, gap, to.Sub(from))
		}
		for i, r := range tr.readings {
			// Not a microjoule more or less than what somebody has seen.
			if want := l.used(tr.first, r.At) - l.used(from, to); r.Energy != want || r.Err != nil {
				t.Errorf("device %d: %d µJ, want %d; %v", i, r.Energy, want, r.Err)
			}
			if want := r.At.Sub(tr.first) - gap; r.Observed != want {
				t.Errorf("device %d: observed %v, want %v", i, r.Observed, want)
			}
			if r.Resets != 0 {
				t.Errorf("device %d: %d resets", i, r.Resets)
			}
		}
	}
	// And a third one, after the second hand-over.
	next.Leave()
	l.clock.Advance(interval)
	other.sample()
	l.run(2, other)
	if n, gap := other.Handovers(); n != 2 || gap != to.Sub(from)+interval || !other.isOwner() {
		t.Errorf("after two: Handovers() = %d, %v, owner %v", n, gap, other.isOwner())
	}
}

// A new process can get the lock before the followers look.
func TestANewcomerThatTakesOverGoesOnToo(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	follower := l.join("b", l.open(cpu))
	follower.sample()
	l.run(3, owner, follower)
	from := l.clock.Now()
	owner.Leave()
	l.clock.Advance(300 * time.Millisecond)
	newcomer := l.join("c", l.open(cpu))
	if !newcomer.isOwner() {
		t.Fatal("the lock was free")
	}
	follower.sample() // before the newcomer's first sample
	if r := follower.readings[0]; r.Energy != l.used(follower.first, from) {
		t.Errorf("%d µJ, want %d", r.Energy, l.used(follower.first, from))
	}
	newcomer.sample()
	to := l.clock.Now()
	l.run(4, newcomer, follower)
	if n, gap := follower.Handovers(); n != 1 || gap != to.Sub(from) {
		t.Errorf("Handovers() = %d, %v, want 1, %v", n, gap, to.Sub(from))
	}
	if r := follower.readings[0]; r.Energy != l.used(follower.first, r.At)-l.used(from, to) || r.Resets != 0 {
		t.Errorf("follower: %+v, want %d µJ", r.Tally, l.used(follower.first, r.At)-l.used(from, to))
	}
	if n, _ := newcomer.Handovers(); n != 0 {
		t.Errorf("the newcomer counts %d handovers from before it came", n)
	}
	// Somebody who comes now has nothing to do with what was before.
	late := l.join("d", l.open(cpu))
	late.sample()
	l.run(2, newcomer, late)
	if n, gap := late.Handovers(); n != 0 || gap != 0 {
		t.Errorf("the late one: Handovers() = %d, %v", n, gap)
	}
	if r := late.readings[0]; r.Energy != l.used(late.first, r.At) {
		t.Errorf("the late one: %d µJ, want %d", r.Energy, l.used(late.first, r.At))
	}
}

func TestAnOldPageIsNoSample(t *testing.T) {
	l := newLab(t)
	old := l.join("old", l.open(cpu, gpu))
	old.sample()
	l.run(3, old)
	old.Leave()
	l.clock.Advance(time.Hour)

	owner := l.join("new", l.open(cpu))
	follower := l.join("b", l.open(cpu))
	if n := len(follower.Set().Devices()); n != 1 {
		t.Errorf("%d devices: the new owner cannot read the GPU", n)
	}
	if r := follower.sample()[0]; !errors.Is(r.Err, sensors.ErrTransient) || !r.At.Equal(l.clock.Now()) {
		t.Errorf("before the first sample: %+v", r)
	}
	owner.sample()
	follower.sample()
	l.run(3, owner, follower)
	if r := follower.readings[0]; r.Energy != l.used(r.At.Add(-3*interval), r.At) || r.Observed != 3*interval {
		t.Errorf("%+v", r)
	}
	for _, tr := range []*tracker{owner, follower} {
		if n, gap := tr.Handovers(); n != 0 || gap != 0 {
			t.Errorf("Handovers() = %d, %v: nobody was there", n, gap)
		}
	}
}

// A follower that takes over before it has seen a sample has lost nothing.
func TestAHandoverBeforeTheFirstSampleHasNoGap(t *testing.T) {
	l := newLab(t)
	old := l.join("old", l.open(cpu))
	old.sample()
	old.Leave()
	l.clock.Advance(time.Hour)
	owner, follower := l.join("a", l.open(cpu)), l.join("b", l.open(cpu))
	owner.Leave()
	l.run(3, follower)
	if n, gap := follower.Handovers(); n != 1 || gap != 0 {
		t.Errorf("Handovers() = %d, %v, want 1, 0", n, gap)
	}
	if r := follower.readings[0]; r.Energy != l.used(follower.first, r.At) || r.Err != nil {
		t.Errorf("%+v", r)
	}
}

func TestAStaleSampleStandsAndThenSaysSo(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu, gpu))
	owner.sample()
	follower := l.join("b", l.open(cpu, gpu))
	follower.sample()
	l.run(2, owner, follower)
	fresh := follower.readings[0]
	for _, c := range []struct {
		after time.Duration
		late  bool
	}{{0, false}, {time.Second, false}, {1500 * time.Millisecond, false}, {time.Millisecond, true}, {time.Hour, true}} {
		l.clock.Advance(c.after)
		for _, r := range follower.sample() {
			if late := errors.Is(r.Err, sensors.ErrTimeout); late != c.late || !late && r.Err != nil {
				t.Errorf("%v after: %v", c.after, r.Err)
			}
			if r.Tally != fresh.Tally || !r.At.Equal(fresh.At) {
				t.Errorf("%v after: %+v, want what was read last", c.after, r)
			}
			if c.late && !strings.Contains(r.Err.Error(), "kill -CONT") {
				t.Errorf("%q does not say what to do", r.Err)
			}
		}
	}
	// It was only stopped: its counter brings what was missed.
	l.run(1, owner, follower)
	if r := follower.readings[0]; r.Err != nil || r.Energy != l.used(follower.first, r.At) {
		t.Errorf("%+v, want %d µJ", r, l.used(follower.first, r.At))
	}
	if follower.isOwner() {
		t.Error("it read beside an owner that has the lock")
	}
}

func TestWhatTheOwnerSaysOfADeviceArrives(t *testing.T) {
	l := newLab(t)
	devices := []sensors.Device{cpu, gpu}
	s := &spoken{devices: l.sensor(devices...).Devices()}
	s.readings = []sensors.Reading{{At: l.clock.Now()}, {At: l.clock.Now()}}
	owner := l.join("a", func(context.Context) (*sensors.Set, error) { return sensors.NewSet(s), nil })
	owner.sample()
	follower := l.join("b", l.open(devices...))
	follower.sample()

	nan := math.NaN()
	for _, c := range []struct {
		name string
		said sensors.Reading
		err  error
	}{
		{"all fields", sensors.Reading{
			Tally: sensors.Tally{Energy: 5, Observed: 4, Estimated: 3, Resets: 2, Rejected: 1, Variance: 0.5},
			Power: 17, Utilization: 0.25, Method: sensors.MethodPowerAverage, ErrorBand: 0.125,
		}, nil},
		{"unknown", sensors.Reading{Power: sensors.Watts(nan), Utilization: nan}, nil},
		{"absent", sensors.Reading{Err: fmt.Errorf("x: %w", sensors.ErrAbsent)}, sensors.ErrAbsent},
		{"permission", sensors.Reading{Err: sensors.ErrPermission}, sensors.ErrPermission},
		{"unsupported", sensors.Reading{Err: sensors.ErrUnsupported}, sensors.ErrUnsupported},
		{"lost", sensors.Reading{Err: sensors.ErrLost}, sensors.ErrLost},
		{"late", sensors.Reading{Err: sensors.ErrTimeout}, sensors.ErrTimeout},
		{"transient", sensors.Reading{Err: sensors.ErrTransient}, sensors.ErrTransient},
		{"any other error", sensors.Reading{Err: errors.New("boom")}, told[otherCause]},
		{"doubt", sensors.Reading{Doubt: fmt.Errorf("x: %w", sensors.ErrDisagreement)}, nil},
	} {
		l.clock.Advance(interval)
		c.said.At = l.clock.Now()
		c.said.Tally = s.readings[0].Plus(c.said.Tally)
		s.readings[0], s.readings[1].At = c.said, c.said.At
		owner.sample()
		got := follower.sample()[0]
		if !errors.Is(got.Err, c.err) || (got.Doubt != nil) != (c.said.Doubt != nil) ||
			got.Doubt != nil && !errors.Is(got.Doubt, sensors.ErrDisagreement) {
			t.Errorf("%s: error %v, doubt %v", c.name, got.Err, got.Doubt)
		}
		got.Err, got.Doubt, c.said.Err, c.said.Doubt = nil, nil, nil, nil
		if fmt.Sprint(got) != fmt.Sprint(c.said) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.said)
		}
		if follower.readings[1].Err != nil {
			t.Errorf("%s: the other device has %v", c.name, follower.readings[1].Err)
		}
	}
}

// spoken is a sensor that says what it is told to.
type spoken struct {
	outline
	devices  []sensors.Device
	readings []sensors.Reading
}

func (s *spoken) Devices() []sensors.Device  { return s.devices }
func (s *spoken) Read(dst []sensors.Reading) { copy(dst, s.readings) }

// A container sees one GPU of its own and one that the owner reads.
func TestOtherDevicesAreReadByTheirOwnProcess(t *testing.T) {
	l := newLab(t)
	other := sensors.Device{ID: "GPU-1", Component: sensors.GPU}
	owner := l.join("a", l.open(cpu, gpu))
	owner.sample()
	var both, common *sensortest.Sensor
	opened := 0
	follower := l.join("b", func(context.Context) (*sensors.Set, error) {
		opened++
		b, c := l.sensor(gpu, other), l.sensor(cpu)
		if opened == 1 {
			both, common = b, c
		}
		return sensors.NewSet(b, c), nil
	})
	var ids []string
	for _, d := range follower.Set().Devices() {
		ids = append(ids, d.ID)
	}
	if !slices.Equal(ids, []string{cpu.ID, gpu.ID, other.ID}) {
		t.Fatalf("devices %v", ids)
	}
	if both.Closed() || !common.Closed() {
		t.Errorf("closed: the partly common %v, the wholly common %v", both.Closed(), common.Closed())
	}
	if !follower.Follows(gpu.ID) || follower.Follows(other.ID) {
		t.Error("Follows is wrong on what is read here")
	}
	follower.sample()
	l.run(2, owner, follower)
	owner.Leave()
	l.run(3, follower)
	for i, r := range follower.readings {
		lost := sensors.Microjoules(0)
		if ids[i] != other.ID {
			// From the last sample of the old owner to the first of the new.
			lost = l.used(r.At.Add(-3*interval), r.At.Add(-2*interval))
		}
		if want := l.used(follower.first, r.At) - lost; r.Energy != want || r.Err != nil {
			t.Errorf("%s: %d µJ, want %d; %v", ids[i], r.Energy, want, r.Err)
		}
	}
	// The next one follows all three.
	third := l.join("c", l.open(cpu, gpu, other))
	third.sample()
	l.run(2, follower, third)
	for _, id := range ids {
		if r := third.reading(id); !third.Follows(id) || r.Energy != l.used(third.first, r.At) {
			t.Errorf("%s: %+v", id, r)
		}
	}
}

func TestADeviceThatTheNewOwnerCannotSeeComesBackWithOneWhoCan(t *testing.T) {
	l := newLab(t)
	first := l.join("a", l.open(cpu, gpu))
	first.sample()
	watcher, second := l.join("w", l.open(cpu, gpu)), l.join("v", l.open(cpu, gpu))
	watcher.sample()
	second.sample()
	l.run(2, first, watcher, second)
	before := watcher.reading(gpu.ID)
	first.Leave()
	blind := l.join("b", l.open(cpu)) // no GPU in its container
	blind.sample()
	l.run(3, blind, watcher, second)
	r := watcher.reading(gpu.ID)
	if !errors.Is(r.Err, sensors.ErrLost) || r.Tally != before.Tally {
		t.Errorf("unseen: %+v, want %+v and ErrLost", r, before)
	}
	if r := watcher.reading(cpu.ID); r.Err != nil || r.Energy == 0 {
		t.Errorf("what it sees: %+v", r)
	}
	blind.Leave()
	l.run(1, watcher) // takes over
	if r := watcher.reading(gpu.ID); !watcher.isOwner() || r.Err != nil || r.Tally != before.Tally {
		t.Fatalf("%+v, want %+v", r, before)
	}
	origin := l.clock.Now()
	late := l.join("l", l.open(cpu, gpu))
	late.sample()
	l.run(4, watcher, late, second)
	for _, tr := range []*tracker{watcher, second} {
		if r := tr.reading(gpu.ID); r.Energy != before.Energy+l.used(origin, r.At) || r.Observed != before.Observed+4*interval || r.Resets != 0 {
			t.Errorf("seen again: %+v", r)
		}
	}
	if r := late.reading(gpu.ID); r.Energy != l.used(origin, r.At) {
		t.Errorf("the late one: %+v", r)
	}
}

// The one who gets the lock cannot open anything: somebody else must get it.
func TestALockWithoutSensorsIsGivenBack(t *testing.T) {
	for name, broken := range map[string]Open{
		"error":   func(context.Context) (*sensors.Set, error) { return nil, errors.New("no") },
		"nothing": func(context.Context) (*sensors.Set, error) { return sensors.NewSet(), nil },
		"nil":     func(context.Context) (*sensors.Set, error) { return nil, nil },
		"panic":   func(context.Context) (*sensors.Set, error) { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			owner := l.join("a", l.open(cpu))
			owner.sample()
			calls := 0
			unable := l.join("b", func(ctx context.Context) (*sensors.Set, error) {
				if calls++; calls == 1 {
					return l.open(cpu)(ctx)
				}
				return broken(ctx)
			})
			able := l.join("c", l.open(cpu))
			unable.sample()
			able.sample()
			owner.Leave()
			l.run(5, unable)
			if unable.isOwner() {
				t.Error("an owner that reads nothing")
			}
			if calls != 2 {
				t.Errorf("opened %d times: others get no chance", calls-1)
			}
			able.sample()
			if !able.isOwner() {
				t.Fatal("the lock was not given back")
			}
			l.run(20, able, unable)
			if r := unable.readings[0]; r.Err != nil || r.Energy == 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestWithoutOpenAFollowerNeverTakesOver(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	m, err := join(context.Background(), l.dir, sensors.NewSet(l.sensor(cpu)), nil, Who{Interval: interval}, owner.clock)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Leave()
	owner.Leave()
	l.clock.Advance(10 * interval)
	dst := make([]sensors.Reading, 1)
	m.Set().Read(dst)
	if is, _ := m.Owner(); is || !errors.Is(dst[0].Err, sensors.ErrTimeout) {
		t.Errorf("owner %v, %v", is, dst[0].Err)
	}
}

func TestLeavingWhileTheHardwareIsOpenedLeavesTheLockToOthers(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	opening := make(chan struct{})
	calls := 0
	slow := l.join("b", func(ctx context.Context) (*sensors.Set, error) {
		if calls++; calls == 1 {
			return l.open(cpu)(ctx)
		}
		close(opening)
		<-ctx.Done()
		return l.open(cpu)(ctx)
	})
	slow.sample()
	owner.Leave()
	done := make(chan struct{})
	go func() {
		defer close(done)
		dst := make([]sensors.Reading, 1)
		slow.Set().Read(dst)
	}()
	<-opening
	slow.Leave()
	<-done
	if slow.isOwner() {
		t.Error("the owner has left")
	}
	if next := l.join("c", l.open(cpu)); !next.isOwner() {
		t.Error("the lock was kept")
	}
}

// lister is a sensor that can tell whose processes use its devices.
type lister struct {
	*sensortest.Sensor
	pid int
	err error
}

func (s *lister) Processes(i int) ([]sensors.ProcessUse, error) {
	if s.Closed() {
		return nil, sensors.ErrLost
	}
	return []sensors.ProcessUse{{PID: s.pid + i}}, s.err
}

func TestWhoUsesADeviceIsAskedOfTheOwnSensor(t *testing.T) {
	l := newLab(t)
	other := sensors.Device{ID: "GPU-1", Component: sensors.GPU}
	owner := l.join("a", l.open(cpu, other, gpu))
	owner.sample()
	var opened []*lister
	var mute []*lister
	follower := l.join("b", func(context.Context) (*sensors.Set, error) {
		s := &lister{Sensor: l.sensor(gpu, other), pid: 100 * (len(opened) + 1)}
		opened = append(opened, s)
		mute = append(mute, &lister{Sensor: l.sensor(cpu), err: sensors.ErrUnsupported})
		return sensors.NewSet(s, mute[len(mute)-1]), nil
	})
	if !mute[0].Closed() {
		t.Error("a sensor that cannot tell is still open")
	}
	f := follower.Set().Sensors()[0].(sensors.ProcessLister)
	ask := func(want int) {
		t.Helper()
		// cpu, GPU-1, GPU-0 in the owner's order; GPU-0, GPU-1 in the own one.
		if _, err := f.Processes(0); !errors.Is(err, sensors.ErrUnsupported) {
			t.Errorf("of the processor: %v", err)
		}
		for i, pid := range []int{want + 1, want} {
			if p, err := f.Processes(i + 1); err != nil || len(p) != 1 || p[0].PID != pid {
				t.Errorf("device %d: %v, %v, want process %d", i+1, p, err, pid)
			}
		}
	}
	ask(100)
	owner.Leave()
	l.run(1, follower)
	ask(200)
	if !opened[0].Closed() {
		t.Error("the sensor from before is still open")
	}
	if err := f.(sensors.Sensor).Close(); err != nil || !opened[1].Closed() {
		t.Error("Close leaves the hardware open")
	}
}

func TestASensorThatPanicsCostsItsOwnDevices(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu, gpu))
	owner.sample()
	follower := l.join("b", func(context.Context) (*sensors.Set, error) {
		return sensors.NewSet(l.sensor(cpu), &panicky{l.sensor(gpu)}), nil
	})
	follower.sample()
	owner.Leave()
	l.run(3, follower)
	if r := follower.reading(cpu.ID); r.Err != nil || r.Energy == 0 {
		t.Errorf("the other device: %+v", r)
	}
	if r := follower.reading(gpu.ID); r.Err == nil {
		t.Error("no error")
	}
}

type panicky struct{ *sensortest.Sensor }

func (*panicky) Read([]sensors.Reading) { panic("no") }

// What one cannot read, the other may; what neither can stays named.
func TestWhatIsMissingIsNamed(t *testing.T) {
	l := newLab(t)
	with := func(s sensors.Sensor, omitted ...sensors.Omission) Open {
		return func(context.Context) (*sensors.Set, error) {
			return sensors.NewSetWithout(omitted, s), nil
		}
	}
	unreadable := func(source string, c sensors.Component) sensors.Omission {
		return sensors.Omission{Source: source, Component: c, Status: sensors.Unreadable,
			Reason: "a reason", Remedy: "a remedy", Err: fmt.Errorf("x: %w", sensors.ErrPermission)}
	}
	owner := l.join("a", with(l.sensor(cpu), unreadable("rapl", sensors.Memory), unreadable("nvml", sensors.GPU)))
	owner.sample()
	follower := l.join("b", with(l.sensor(gpu), unreadable("rapl", sensors.CPU), unreadable("rapl", sensors.Memory)))
	omitted := follower.Set().Omissions()
	if len(omitted) != 1 || omitted[0].Source != "rapl" || omitted[0].Component != sensors.Memory ||
		omitted[0].Reason != "a reason" || omitted[0].Remedy != "a remedy" || !errors.Is(omitted[0].Err, sensors.ErrPermission) {
		t.Errorf("omitted: %+v, want the memory, once", omitted)
	}
	missing := follower.Set().Missing()
	if len(missing) != 1 || missing[0].Component != sensors.Memory || missing[0].Status != sensors.Unreadable {
		t.Errorf("missing: %+v, want the memory", missing)
	}
}

func TestTimingFollowsWhoReads(t *testing.T) {
	l := newLab(t)
	fast := func(context.Context) (*sensors.Set, error) {
		return sensors.NewSet(
			sensortest.NewSensor(l.clock.Now, sensors.Timing{MaxInterval: 50 * time.Millisecond}, sensortest.Script{Device: gpu, Curve: draw}),
			sensortest.NewSensor(l.clock.Now, sensors.Timing{}, sensortest.Script{Device: cpu, Curve: draw})), nil
	}
	owner := l.join("a", fast)
	owner.sample()
	follower := l.join("b", fast)
	s := follower.Set().Sensors()[0]
	if got, want := s.Timing(), (sensors.Timing{MaxInterval: interval, MayBlock: true}); got != want {
		t.Errorf("following: %+v, want %+v", got, want)
	}
	owner.Leave()
	follower.sample()
	if got, want := s.Timing(), (sensors.Timing{MaxInterval: 50 * time.Millisecond, MayBlock: true}); got != want {
		t.Errorf("owning: %+v, want %+v", got, want)
	}
}

// A sample that was late brings a reading from before the hand-over.
func TestALateReadingTakesNothingBack(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	next, other := l.join("b", l.open(cpu)), l.join("c", l.open(cpu))
	next.sample()
	other.sample()
	old := slices.Clone(next.readings)
	l.run(3, owner, next, other)
	owner.Leave()
	l.clock.Advance(interval)
	next.sample()
	l.run(2, next)
	want := other.sample()[0]
	if err := next.Publish(l.clock.Now(), old); err != nil {
		t.Fatal(err)
	}
	if r := other.sample()[0]; r.Tally != want.Tally || !r.At.Equal(want.At) {
		t.Errorf("%+v, want %+v", r, want)
	}
}

// A tracker reads in one goroutine, publishes in another, and is asked in others,
// while the owner changes. For the race detector.
func TestManyGoroutinesAtOnce(t *testing.T) {
	dir := t.TempDir()
	open := func(context.Context) (*sensors.Set, error) {
		return sensors.NewSet(sensortest.NewSensor(nil, sensors.Timing{}, sensortest.Script{Device: cpu, Curve: draw})), nil
	}
	var members []*Member
	for range 4 {
		set, err := open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		m, err := Join(context.Background(), dir, set, open, Who{RunID: "x", Interval: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		at, first := time.Now(), make([]sensors.Reading, 1)
		m.Set().Read(first)
		if err := m.Publish(at, first); err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for _, m := range members {
		var mu sync.Mutex
		latest := make([]sensors.Reading, 1)
		loop := func(f func()) {
			wait.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						f()
					}
				}
			})
		}
		mine := make([]sensors.Reading, 1)
		loop(func() {
			m.Set().Read(mine)
			mu.Lock()
			copy(latest, mine)
			mu.Unlock()
		})
		shown := make([]sensors.Reading, 1)
		loop(func() {
			mu.Lock()
			copy(shown, latest)
			mu.Unlock()
			if err := m.Publish(time.Now(), shown); err != nil {
				t.Error(err)
			}
			if n, gap := m.Handovers(); n < 0 || gap < 0 {
				t.Errorf("Handovers() = %d, %v", n, gap)
			}
		})
	}
	left := map[*Member]bool{}
	for len(left) < len(members) {
		for _, m := range members {
			// What it said last stands once it has left.
			if is, _ := m.Owner(); is && !left[m] {
				left[m] = true
				m.Leave()
			}
		}
		runtime.Gosched()
	}
	close(stop)
	wait.Wait()
	counts := map[int]bool{}
	for _, m := range members {
		n, _ := m.Handovers()
		counts[n] = true
	}
	// The first saw none, and the last saw all.
	if !counts[0] || !counts[len(members)-1] {
		t.Errorf("hand-overs seen: %v", counts)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	l := newLab(t)
	owner, follower := l.many(64)
	if n := testing.AllocsPerRun(100, func() {
		l.clock.Advance(interval)
		if err := owner.Publish(l.clock.Now(), owner.readings); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Publish allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		l.clock.Advance(interval)
		_ = owner.Publish(l.clock.Now(), owner.readings)
		follower.Set().Read(follower.readings)
	}); n != 0 {
		t.Errorf("Read of what is new allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		l.clock.Advance(interval)
		follower.Set().Read(follower.readings)
	}); n != 0 {
		t.Errorf("Read of what is stale allocates %v times", n)
	}
}

// many returns an owner and a follower of n devices.
func (l *lab) many(n int) (owner, follower *tracker) {
	var devices []sensors.Device
	for i := range n {
		devices = append(devices, sensors.Device{ID: fmt.Sprintf("GPU-%04d-8c2c-11ee-b962-0242ac120002", i), Index: i,
			Component: sensors.GPU, Name: "NVIDIA H100 80GB HBM3", Vendor: "NVIDIA",
			Note: strings.Repeat("a note of a usual length ", 4)})
	}
	owner = l.join("a", l.open(devices...))
	owner.sample()
	follower = l.join("b", l.open(devices...))
	follower.sample()
	l.run(2, owner, follower)
	return owner, follower
}

func TestAsManyDevicesAsThereMayBe(t *testing.T) {
	l := newLab(t)
	owner, follower := l.many(maxDevices)
	l.run(1, owner, follower)
	for i, r := range follower.readings {
		if r.Err != nil || r.Energy != l.used(follower.first, r.At) {
			t.Fatalf("device %d: %+v", i, r)
		}
	}
	tooMany := make([]sensors.Device, maxDevices+1)
	for i := range tooMany {
		tooMany[i] = sensors.Device{ID: fmt.Sprint(i), Component: sensors.GPU}
	}
	l.dir = t.TempDir()
	if _, err := l.tryJoin("c", l.open(tooMany...)); !errors.Is(err, sensors.ErrUnsupported) {
		t.Errorf("Join with %d devices: %v", len(tooMany), err)
	}
	if tr := l.join("d", l.open(cpu)); !tr.isOwner() {
		t.Error("who could not join kept the lock")
	}
}

// pagePath is where the lab's page is.
func (l *lab) pagePath() string {
	l.t.Helper()
	pages, err := filepath.Glob(filepath.Join(l.dir, pagePrefix+"*"))
	if err != nil || len(pages) != 1 {
		l.t.Fatalf("pages: %v, %v", pages, err)
	}
	return pages[0]
}

// damage changes the page behind everybody's back.
func (l *lab) damage(offset int64, b []byte) {
	l.t.Helper()
	f, err := os.OpenFile(l.pagePath(), os.O_WRONLY, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(b, offset); err != nil {
		l.t.Fatal(err)
	}
}

// The kernel can end a write half-way when it kills the writer.
func TestASnapshotThatIsCutShortCostsOneSample(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu, gpu))
	owner.sample()
	next := l.join("b", l.open(cpu, gpu))
	next.sample()
	l.run(3, owner)
	last := l.clock.Now()
	l.run(1, owner)
	l.damage(slotOf(owner.page.sequence)+snapshotHead+3, []byte{1, 2, 3, 4, 5})
	owner.Leave()
	l.clock.Advance(interval)
	next.sample()
	to := l.clock.Now()
	l.run(2, next)
	if n, gap := next.Handovers(); n != 1 || gap != to.Sub(last) {
		t.Errorf("Handovers() = %d, %v, want 1, %v", n, gap, to.Sub(last))
	}
	for _, r := range next.readings {
		if want := l.used(next.first, r.At) - l.used(last, to); r.Energy != want || r.Resets != 0 || r.Err != nil {
			t.Errorf("%+v, want %d µJ", r, want)
		}
	}
}

// Between the description of a generation and its first snapshot, the page has the
// last snapshot of the generation before.
func TestAnOwnerThatDiesWhileItTakesOverLosesNothing(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	next, other := l.join("b", l.open(cpu)), l.join("c", l.open(cpu))
	next.sample()
	other.sample()
	l.run(3, owner, next, other)
	from := l.clock.Now()
	owner.Leave()
	for range 2 { // two of them
		dying := l.join("d", l.open(gpu, cpu))
		page := dying.page
		page.sequence -= 2 // as if its snapshots had not been written
		l.damage(slotOf(page.sequence+1), make([]byte, slotSize))
		l.damage(slotOf(page.sequence+2), make([]byte, slotSize))
		dying.owner = false
		dying.page, dying.lines = page, nil
		owner.page.buffers[0] = grown(nil, snapshotHead+recordSize)
		owner.file = dying.file
		if err := owner.write(0); err != nil {
			t.Fatal(err)
		}
		owner.page.sequence--
		owner.file = nil
		dying.Leave()
	}
	l.clock.Advance(interval)
	next.sample()
	to := l.clock.Now()
	other.sample()
	l.run(2, next, other)
	for _, tr := range []*tracker{next, other} {
		r := tr.readings[0]
		if want := l.used(tr.first, r.At) - l.used(from, to); r.Energy != want || r.Resets != 0 || r.Err != nil {
			t.Errorf("%+v, want %d µJ", r, want)
		}
	}
}

// A child that has not started its program yet holds the same open file.
func TestLeavingUnlocksWhoeverHoldsTheFile(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	child, err := syscall.Dup(owner.file.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(child) }()
	owner.Leave()
	if next := l.join("b", l.open(cpu)); !next.isOwner() {
		t.Error("the lock is still held")
	}
}

// Everything is lost but the processes: nobody counts twice, and nobody goes back.
func TestALostPageIsAnotherOrigin(t *testing.T) {
	for name, lose := range map[string]func(l *lab){
		"truncated": func(l *lab) {
			if err := os.Truncate(l.pagePath(), 0); err != nil {
				l.t.Fatal(err)
			}
		},
		"zeroed":       func(l *lab) { l.damage(0, make([]byte, pageSize)) },
		"descriptions": func(l *lab) { l.damage(0, make([]byte, slotsAt)) },
		"nonsense":     func(l *lab) { l.damage(0, []byte(strings.Repeat("nonsense", pageSize/8))) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			owner := l.join("a", l.open(cpu))
			owner.sample()
			next, other := l.join("b", l.open(cpu)), l.join("c", l.open(cpu))
			next.sample()
			other.sample()
			l.run(3, owner, next, other)
			before, last := other.readings[0], l.clock.Now()
			owner.Leave()
			lose(l)
			l.clock.Advance(interval)
			next.sample()
			to := l.clock.Now()
			if !next.isOwner() {
				t.Fatal("nobody took over")
			}
			// The other looks when the new energies are more than the old.
			l.run(10, next)
			other.sample()
			looked := l.clock.Now()
			l.run(3, next, other)
			for tr, from := range map[*tracker]time.Time{next: to, other: looked} {
				r := tr.readings[0]
				if want := before.Energy + l.used(from, r.At); r.Energy != want || r.Err != nil {
					t.Errorf("%+v, want %d µJ", r, want)
				}
				if n, gap := tr.Handovers(); n != 1 || gap != from.Sub(last) {
					t.Errorf("Handovers() = %d, %v, want 1, %v", n, gap, from.Sub(last))
				}
			}
			if other.readings[0].Resets != 1 {
				t.Errorf("%d resets, want 1", other.readings[0].Resets)
			}
		})
	}
}

// Generations are numbered from 1 again then.
func TestALostPageIsDescribedAgain(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(gpu, cpu))
	owner.sample()
	follower := l.join("b", l.open(gpu, cpu))
	follower.sample()
	l.run(2, owner, follower)
	owner.Leave()
	l.damage(0, make([]byte, pageSize))
	next := l.join("c", l.open(cpu))
	next.sample()
	follower.sample()
	before := follower.reading(cpu.ID)
	l.run(3, next, follower)
	if r := follower.reading(cpu.ID); r.Err != nil || r.Energy != before.Energy+l.used(before.At, r.At) {
		t.Errorf("%+v", r)
	}
	if r := follower.reading(gpu.ID); !errors.Is(r.Err, sensors.ErrLost) {
		t.Errorf("what the next owner cannot see: %+v", r)
	}
}

// The energy of a follower begins at the owner's latest sample, and so does its time.
func TestTheFirstReadingIsOfTheOwnersTime(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	sampled := l.clock.Now()
	l.clock.Advance(700 * time.Millisecond)
	follower := l.join("b", l.open(cpu))
	if r := follower.sample()[0]; !r.At.Equal(sampled) || r.Err != nil {
		t.Errorf("%+v, want it of %v", r, sampled)
	}
}

func TestATruncatedPageUnderALivingOwnerIsWrittenAgain(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	follower := l.join("b", l.open(cpu))
	follower.sample()
	l.run(2, owner, follower)
	was := follower.readings[0]
	if err := os.Truncate(l.pagePath(), 0); err != nil {
		t.Fatal(err)
	}
	if r := follower.sample()[0]; r.Tally != was.Tally || r.Err != nil {
		t.Errorf("%+v, want %+v", r, was)
	}
	l.run(2, owner, follower)
	if r := follower.readings[0]; r.Err != nil || r.Energy != l.used(follower.first, r.At) {
		t.Errorf("%+v", r)
	}
}

func TestAPageOfAnotherMachineIsNotFollowed(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.id[0]++ // as on another boot; the file is the same
	owner.page.lineage++
	if err := owner.describe(nil); err != nil {
		t.Fatal(err)
	}
	owner.sample()
	owner.sample()
	if _, err := l.tryJoin("b", l.open(cpu)); !errors.Is(err, sensors.ErrTimeout) {
		t.Errorf("Join: %v", err)
	}
	owner.Leave()
	next := l.join("c", l.open(cpu))
	if next.page.lineage == owner.page.lineage {
		t.Error("the lineage of another machine goes on")
	}
}

// An owner that was stopped before it could write: whoever comes measures alone.
func TestALockWithoutAPageIsNotWaitedForLong(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	l.clock.Advance(time.Minute)
	s := l.sensor(cpu)
	_, err := join(context.Background(), l.dir, sensors.NewSet(s), l.open(cpu), Who{Interval: interval}, owner.clock)
	if !errors.Is(err, sensors.ErrTimeout) {
		t.Errorf("Join: %v", err)
	}
	if s.Closed() {
		t.Error("the set of who must measure alone is closed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := join(ctx, l.dir, sensors.NewSet(s), l.open(cpu), Who{Interval: interval}, owner.clock); !errors.Is(err, context.Canceled) {
		t.Errorf("Join with a context that has ended: %v", err)
	}
}

func TestAPageThatCannotBeWrittenIsSaid(t *testing.T) {
	l := newLab(t)
	owner := l.join("a", l.open(cpu))
	owner.sample()
	readOnly, err := os.Open(l.pagePath())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = readOnly.Close() }()
	fd := owner.file.fd
	owner.file.fd = int(readOnly.Fd())
	if err := owner.Publish(l.clock.Now(), owner.readings); err == nil {
		t.Error("no error")
	}
	owner.file.fd = fd
	if err := owner.Publish(l.clock.Now(), owner.readings); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// A run that wants to know more often than the owner reads does not follow it, and
// learns whose figures contain its own.
func TestASlowOwnerIsNotFollowed(t *testing.T) {
	l := newLab(t)
	l.join("slow", l.open(cpu)).sample()
	for _, test := range []struct {
		interval time.Duration
		follows  bool
	}{{interval, true}, {2 * interval, true}, {interval / 2, false}} {
		set := sensors.NewSet(l.sensor(cpu))
		m, err := join(context.Background(), l.dir, set, l.open(cpu), Who{RunID: "fast", Interval: test.interval},
			clock{now: l.clock.Now, base: l.base, mono: 1_000_000_000})
		var slow *SlowError
		switch {
		case test.follows && err != nil:
			t.Errorf("every %v: %v", test.interval, err)
		case test.follows:
			m.Leave()
		case !errors.As(err, &slow) || slow.RunID != "slow" || slow.Interval != interval:
			t.Errorf("every %v: %v", test.interval, err)
		}
	}
}

func TestNoInterval(t *testing.T) {
	l := newLab(t)
	if _, err := Join(context.Background(), l.dir, sensors.NewSet(), nil, Who{}); err == nil {
		t.Error("an interval of 0 is accepted")
	}
}

func BenchmarkPublish64(b *testing.B) {
	l := newLab(b)
	owner, _ := l.many(64)
	b.ReportAllocs()
	for b.Loop() {
		_ = owner.Publish(l.clock.Now(), owner.readings)
	}
}

func BenchmarkRead64(b *testing.B) {
	l := newLab(b)
	owner, follower := l.many(64)
	_ = owner
	b.ReportAllocs()
	for b.Loop() {
		follower.Set().Read(follower.readings)
	}
}
