package tracker

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/wattspan/wattspan/sensors"
	sharing "github.com/wattspan/wattspan/sensors/share"
)

// SharingOff as the directory of [WithSharing] makes a tracker read the hardware
// by itself, whoever else does.
const SharingOff = "off"

// meet joins the trackers of this machine that this one meets in a directory, of
// which one reads the hardware for all. It returns what this one is to read, and
// nil for the member where it is alone.
func meet(ctx context.Context, c *config, set *sensors.Set) (*sensors.Set, *sharing.Member) {
	lookup := func(name string) (string, bool) {
		if name == sharing.EnvShare && c.share != "" {
			return c.share, true
		}
		return os.LookupEnv(name)
	}
	dir, err := sharing.Dir(lookup)
	if err == nil {
		var m *sharing.Member
		m, err = sharing.Join(ctx, dir, set,
			func(ctx context.Context) (*sensors.Set, error) { return sensors.Detect(ctx, c.detect...) },
			sharing.Who{RunID: c.runID, Interval: c.interval})
		if err == nil {
			return m.Set(), m
		}
	}
	if c.log != nil && !errors.Is(err, sharing.ErrOff) {
		c.log.Info("this tracker reads the hardware by itself", "reason", err)
	}
	return set, nil
}

// following is what a tracker reads of another one; nil where it began as the one
// that reads the hardware.
type following struct {
	runID string // of the run that read the hardware at the start
	// devices are those that are not read by this tracker, at the start.
	devices []bool
}

// follow returns what a member follows, nil where it is the owner.
func follow(m *sharing.Member, devices []sensors.Device) *following {
	if m == nil {
		return nil
	}
	owner, runID := m.Owner()
	if owner {
		return nil
	}
	f := &following{runID: runID, devices: make([]bool, len(devices))}
	for i, d := range devices {
		f.devices[i] = m.Follows(d.ID)
	}
	return f
}

// published returns the part of a device's energy that this tracker publishes; ok
// is false where another one does.
func (f *following) published(i int, s *sample) (e sensors.Microjoules, ok bool) {
	e = s.devices[i].Energy
	switch {
	case f == nil || !f.devices[i]:
		return e, true
	case s.takenOver == nil:
		return 0, false
	default:
		return e - min(s.takenOver[i], e), true
	}
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
	if owner, _ := s.member.Owner(); owner && s.following != nil && next.takenOver == nil {
		next.takenOver = make([]sensors.Microjoules, len(next.devices))
		for i := range next.devices {
			next.takenOver[i] = next.devices[i].Energy
		}
	}
}

// handovers returns how often another tracker has begun to read the hardware for
// this one, and the time that nobody has seen in doing so.
func (s *sampler) handovers() (n int, gap time.Duration) {
	if s.member == nil {
		return 0, 0
	}
	return s.member.Handovers()
}
