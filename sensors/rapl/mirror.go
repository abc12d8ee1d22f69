package rapl

import (
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// Where the kernel sees several dies in a package it makes a zone of each. On
// Intel each die counts itself, and they must be summed. On some AMD processors
// (Zen 1 and 2) every die shows the counter of the whole socket, and a sum
// multiplies it. Nothing in sysfs says which it is; the values do.
//
// A counter only goes up. So if two zones show one counter, what one shows lies
// between what the other showed just before and just after, whereas two
// counters that have run since boot are kilojoules apart. The zones of a
// package are read in order and in reverse order, three times, and they are
// parts if two of the three say so. The dies of a socket may see an update of
// the one counter a little later than each other, which the movement of the
// counter in all of that time allows for; a counter that stands still allows
// for nothing.
//
// Zones that agree are one device, and are still compared for the first reads:
// counters that are all at zero, as after a boot or on a die that is off, agree
// by chance. All of them are counted from the first read on, so that no energy
// is lost when they come apart, and none was counted twice.
const (
	probes     = 3
	probePause = 5 * time.Millisecond

	watched = 10 // agreeing reads after which mirrors are believed
	refuted = 3  // disagreeing reads in a row after which they are not
	lag     = 2 * probePause
)

type verdict int

const (
	unknown verdict = iota
	agree
	differ
)

// bracket compares a value with those of another counter before and after it.
func bracket(before, value, after, slack, period uint64) verdict {
	span := distance(before, after, period)
	if period == 0 {
		period = 1 << 63
	}
	switch {
	case span > period/2:
		return unknown // the counter was reset, or one of the two is nonsense
	case distance(before, value, period) <= span+slack, distance(value, before, period) <= slack:
		return agree
	default:
		return differ
	}
}

// distance returns how far a counter goes up from one value to another.
func distance(from, to, period uint64) uint64 {
	if to < from && period > from {
		return to + (period - from)
	}
	return to - from // without a known period, a decrease is absurdly far
}

// pass is what the zones of a package show, read in order and back.
type pass []struct {
	before, after uint64
	failed        bool
}

func probe(meters []*meter) pass {
	r := make(pass, len(meters))
	for i, m := range meters {
		var err error
		r[i].before, err = m.file.sample()
		r[i].failed = err != nil
	}
	for i := len(meters) - 1; i >= 0; i-- {
		var err error
		r[i].after, err = meters[i].file.sample()
		r[i].failed = r[i].failed || err != nil
	}
	return r
}

// divide tells mirrors from parts: it returns the meters in sets, each of which
// shows one counter.
func divide(meters []*meter) [][]*meter {
	switch len(meters) {
	case 0:
		return nil
	case 1:
		return [][]*meter{meters}
	}
	passes := make([]pass, probes)
	for i := range passes {
		if i > 0 {
			time.Sleep(probePause)
		}
		passes[i] = probe(meters)
	}
	apart := func(i, j int) bool {
		period := meters[i].counter.Period
		slack := distance(passes[0][i].before, passes[probes-1][i].after, period)
		if float64(slack) > float64(meters[i].counter.MaxPower)*1e6 { // more than a second's
			slack = 0
		}
		differs := 0
		for _, p := range passes {
			if p[i].failed || p[j].failed {
				continue
			}
			if bracket(p[i].before, p[j].before, p[i].after, slack, period) == differ ||
				bracket(p[i].before, p[j].after, p[i].after, slack, period) == differ {
				differs++
			}
		}
		return differs >= 2
	}
	var leaders []int
	var sets [][]*meter
next:
	for j, m := range meters {
		for k, i := range leaders {
			if !apart(i, j) {
				sets[k] = append(sets[k], m)
				continue next
			}
		}
		leaders = append(leaders, j)
		sets = append(sets, []*meter{m})
	}
	return sets
}

// mirrors are zones held to show the counter of the leader.
type mirrors struct {
	leader *meter
	twins  []*meter
	parts  bool // they were found not to

	lastRaw       uint64
	lastAt        time.Time
	agreed, apart int
}

// read reads the leader, and the others for as long as they matter.
func (g *mirrors) read(now func() time.Time) {
	g.leader.read(now)
	for _, m := range g.twins {
		m.read(now)
	}
	if len(g.twins) > 0 && !g.parts {
		g.compare()
	}
}

func (g *mirrors) compare() {
	l := g.leader
	if l.err != nil {
		return
	}
	after, err := l.file.sample()
	if err != nil {
		return
	}
	moved, dt := distance(g.lastRaw, l.raw, l.counter.Period), l.at.Sub(g.lastAt)
	first := g.lastAt.IsZero()
	g.lastRaw, g.lastAt = l.raw, l.at
	if first {
		return
	}
	slack := moved
	if dt > lag {
		slack = uint64(float64(moved) * lag.Seconds() / dt.Seconds())
	}
	for _, m := range g.twins {
		if m.err != nil {
			return
		}
		switch bracket(l.raw, m.raw, after, slack, l.counter.Period) {
		case differ:
			g.agreed = 0
			g.apart++
			g.parts = g.apart >= refuted
			return
		case unknown:
			return
		}
	}
	g.apart = 0
	if moved == 0 || l.raw == 0 {
		return
	}
	if g.agreed++; g.agreed >= watched {
		_ = g.dismiss()
	}
}

// dismiss stops reading the twins.
func (g *mirrors) dismiss() error {
	var err error
	for _, m := range g.twins {
		if e := m.close(); e != nil {
			err = e
		}
	}
	g.twins = nil
	return err
}

// tally returns the leader's, or the sum where the zones are parts after all.
func (g *mirrors) tally() (sensors.Tally, error) {
	t, err := g.leader.counter.Tally(), g.leader.err
	if !g.parts {
		return t, err
	}
	for _, m := range g.twins {
		u := m.counter.Tally()
		t.Energy += u.Energy
		t.Resets += u.Resets
		t.Rejected += u.Rejected
		if err == nil {
			err = m.err
		}
	}
	return t, err
}
