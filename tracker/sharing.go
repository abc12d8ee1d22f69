package tracker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/wattspan/wattspan/sensors"
	sharing "github.com/wattspan/wattspan/sensors/share"
)

// SharingOff as the directory of [WithSharing] makes a tracker read the hardware
// by itself, whoever else does.
const SharingOff = "off"

// meeting is what a tracker has found of others on its machine.
type meeting struct {
	set    *sensors.Set    // what it is to read
	member *sharing.Member // nil where it reads alone
	// readBy is the run that reads the hardware for all; empty where it is this one.
	readBy string
	// alone says why the tracker could not meet others, where it was told where.
	alone string
}

// meet joins the trackers of this machine that this one meets in a directory, of
// which one reads the hardware for all.
func meet(ctx context.Context, c *config, set *sensors.Set) meeting {
	dir, err := sharing.Dir(func(name string) (string, bool) {
		if name == sharing.EnvShare && c.share != "" {
			return c.share, true
		}
		return os.LookupEnv(name)
	})
	if err == nil {
		var m *sharing.Member
		m, err = sharing.Join(ctx, dir, set,
			func(ctx context.Context) (*sensors.Set, error) { return sensors.Detect(ctx, c.detect...) },
			sharing.Who{RunID: c.runID, Interval: c.interval})
		if err == nil {
			found := meeting{set: m.Set(), member: m}
			if owner, runID := m.Owner(); !owner {
				found.readBy = runID
			}
			return found
		}
	}
	if c.log != nil && !errors.Is(err, sharing.ErrOff) {
		c.log.Info("this tracker reads the hardware by itself", "reason", err)
	}
	found := meeting{set: set}
	_, named := os.LookupEnv(sharing.EnvShare)
	if (named || c.share != "") && !errors.Is(err, sharing.ErrOff) {
		found.alone = fmt.Sprintf("this run reads the hardware by itself, whoever else does: %v", err)
	}
	if slow := (*sharing.SlowError)(nil); errors.As(err, &slow) {
		found.readBy = slow.RunID
	}
	return found
}

// following is what a tracker knows of the devices that another one reads and
// publishes; nil where it began as the one that reads the hardware.
type following struct {
	devices []followed
}

// followed is a device that may be another tracker's.
type followed struct {
	published bool // by the other, at the start
	read      bool // by the other, at the start
	// ahead is by how much the first sample was ahead of the other's.
	ahead sensors.Tally
	// Where the other had read it only once by then, no power said how much that
	// is: the first interval does, which began at from, lag before this tracker.
	from sensors.Reading
	lag  time.Duration
}

func (m meeting) follow(devices []sensors.Device) *following {
	if m.readBy == "" {
		return nil
	}
	f := &following{devices: make([]followed, len(devices))}
	for i, d := range devices {
		read := m.member != nil && m.member.Follows(d.ID)
		f.devices[i] = followed{published: read || m.member == nil, read: read}
	}
	return f
}

// published returns the part of a device's energy that this tracker publishes; ok
// is false where another one does.
func (f *following) published(i int, s *sample) (e sensors.Microjoules, ok bool) {
	e = s.devices[i].Energy
	switch {
	case f == nil || !f.devices[i].published:
		return e, true
	case s.takenOver == nil:
		return 0, false
	default:
		return e - min(s.takenOver[i], e), true
	}
}

// extend continues the reading of a device that another tracker reads, from that
// tracker's sample to this one's: what is drawn meanwhile is taken to go on as it
// was. Without it a run would lack up to an interval at its end, and have as much
// too much at its beginning. The next reading puts it right.
func (f *following) extend(i int, d sensors.Device, r *sensors.Reading, at time.Time, first, owner bool) {
	if f == nil || !f.devices[i].read {
		return
	}
	var ahead sensors.Tally
	// The refresh of a followed device is the interval of who reads it.
	lag := min(max(at.Sub(r.At), 0), d.Refresh*3/2)
	if !owner && r.Err == nil && r.Power >= 0 && !math.IsInf(float64(r.Power), 0) {
		ahead = sensors.Tally{Energy: sensors.Microjoules(float64(r.Power) * lag.Seconds() * 1e6), Observed: lag}
	}
	begun := &f.devices[i]
	switch took := r.At.Sub(begun.from.At); {
	case first:
		begun.ahead = ahead
		if ahead.Observed == 0 && r.Err == nil {
			begun.from, begun.lag = *r, lag
		}
	case begun.lag > 0 && r.Err == nil && took > 0:
		before := min(begun.lag.Seconds()/took.Seconds(), 1)
		begun.ahead = sensors.Tally{
			Energy:   sensors.Microjoules(before * float64(r.Energy-min(begun.from.Energy, r.Energy))),
			Observed: time.Duration(before * float64(max(r.Observed-begun.from.Observed, 0))),
		}
		begun.lag = 0
	}
	base := begun.ahead
	r.Tally = r.Plus(ahead)
	r.Energy -= min(base.Energy, r.Energy)
	r.Observed = max(r.Observed-base.Observed, 0)
}

// share hands a sample to those who follow this tracker, and notes the moment from
// which there can be some.
func (s *sampler) share(last, next *sample) {
	if s.member == nil {
		return
	}
	if err := s.member.Publish(next.at, s.scratch); err != nil && s.log != nil && !s.publishFailed {
		s.publishFailed = true
		s.log.Warn("other trackers of this machine cannot follow this one", "error", err)
	}
	if last != nil {
		next.takenOver = last.takenOver
	}
	if s.reads() && s.following != nil && next.takenOver == nil {
		next.takenOver = make([]sensors.Microjoules, len(next.devices))
		for i := range next.devices {
			next.takenOver[i] = next.devices[i].Energy
		}
	}
}

// reads reports whether this tracker reads the hardware.
func (s *sampler) reads() bool {
	if s.member == nil {
		return true
	}
	owner, _ := s.member.Owner()
	return owner
}

// handovers returns how often another tracker has begun to read the hardware for
// this one, and the time that nobody has seen in doing so.
func (s *sampler) handovers() (n int, gap time.Duration) {
	if s.member == nil {
		return 0, 0
	}
	return s.member.Handovers()
}
