package tracker

import (
	"slices"
	"strings"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/node"
)

// The values of WithNodeProfile beside the names of profiles.
const (
	// NodeAuto takes the profile that was fitted to this machine with a meter,
	// else the one of its kind; none in a virtual machine.
	NodeAuto = "auto"
	// NodeNone has no model: without a meter, the figures end at the devices.
	NodeNone = "none"
)

// nodeModel is how the energy of the node is known.
type nodeModel struct {
	meter   int           // its place among the devices; -1 without one
	profile *node.Profile // nil without a model
	// reason says why there is no model.
	reason string
}

// meterAmong returns the place of the node's meter among the devices, -1 without
// one. A set has one at the most.
func meterAmong(devices []sensors.Device) int {
	return slices.IndexFunc(devices, func(d sensors.Device) bool { return d.Component == sensors.Node })
}

// newNodeModel finds the meter among the devices, and the profile.
func newNodeModel(name string, machine host.Machine, devices []sensors.Device) nodeModel {
	m := nodeModel{meter: meterAmong(devices)}
	switch name {
	case NodeNone:
		m.reason = "the node model is switched off"
		return m
	case NodeAuto, "":
	default:
		if p, err := node.Named(name); err == nil { // as WithNodeProfile has found
			m.profile = &p
		}
		return m
	}
	switch p, _, ok, err := node.Load(); {
	case err != nil:
		m.reason = err.Error() // and the profile of its kind stands in
	case ok:
		m.profile = &p
		return m
	}
	gpus := 0
	for _, d := range devices {
		if d.Component == sensors.GPU {
			gpus++
		}
	}
	p, reason, ok := node.For(machine, gpus)
	if !ok {
		m.reason = strings.TrimPrefix(m.reason+"; "+reason, "; ")
		return m
	}
	m.profile = &p
	return m
}

// energies are those of a sample, since the first.
type energies struct {
	// sensed is what the component sensors saw of the whole machine, and scope
	// the part of it that the tracked scope is charged with. known is set once
	// one of them has a figure.
	sensed, scope sensors.Microjoules
	known         bool
	// node is what the machine drew at its plug, and nodeKnown whether anything
	// says so. It never decreases.
	node      sensors.Microjoules
	nodeKnown bool
	// job is the job's part of node: of each piece that the node adds, the part that
	// it has of what the sensors saw since the piece before, which told is
	// about.
	job     float64 // µJ
	charged sensors.Microjoules
	told    struct {
		charged, sensed sensors.Microjoules
		waiting         sensors.Microjoules // of the node, while no sensor saw anything
	}
	// plug is what the scope is charged with at the plug: of the node where that
	// is known, else of the devices. It never decreases.
	plug sensors.Microjoules
	// unseen is what plug has beyond scope, as a counter: it never decreases,
	// though a meter may lag behind the sensors.
	unseen sensors.Microjoules
}

// measure computes the energies of a sample from its devices.
func (s *sampler) measure(last, next *sample) {
	e := &next.energies
	for i := range next.devices {
		d := &next.devices[i]
		if s.devices[i].Component == sensors.Node || !d.seen(s.devices[i]) {
			continue
		}
		e.known = true
		e.sensed += d.Energy
		if s.attributable(i, next) {
			e.charged += d.charge.energy
		}
		if s.scope == Machine || s.attributable(i, next) {
			e.scope += d.charged(s.devices[i], s.scope)
		}
	}
	if metered, covered, ok := s.metered(next); ok {
		e.node, e.nodeKnown = metered, true
		if s.node.profile != nil && covered < 1 && e.known {
			// What the meter did not see is modelled in its stead.
			e.node += sensors.Microjoules((1 - covered) * s.modelled(e.sensed, next.elapsed))
		}
	} else if s.node.profile != nil && e.known && !s.awaited(next) {
		e.node, e.nodeKnown = sensors.Microjoules(s.modelled(e.sensed, next.elapsed)), true
	}
	e.node = max(e.node, last.energies.node)
	e.nodeKnown = e.nodeKnown || last.energies.nodeKnown
	e.divide(&last.energies)
	switch {
	case !e.nodeKnown:
		e.plug = e.scope
	case s.scope == Machine:
		e.plug = e.node
	default:
		e.plug = sensors.Microjoules(e.job)
	}
	e.plug = max(e.plug, last.energies.plug)
	e.unseen = last.energies.unseen
	if e.plug > e.scope {
		e.unseen = max(e.unseen, e.plug-e.scope)
	}
}

// divide gives the job its part of what the node has added. What no sensor sees is
// divided as what they see.
func (e *energies) divide(last *energies) {
	e.job, e.told = last.job, last.told
	added := e.node - last.node + e.told.waiting
	sensed := e.sensed - min(e.told.sensed, e.sensed)
	if added == 0 || sensed == 0 {
		e.told.waiting = added
		return
	}
	charged := e.charged - min(e.told.charged, e.charged)
	e.job += float64(added) * min(float64(charged)/float64(sensed), 1)
	e.told.charged, e.told.sensed, e.told.waiting = e.charged, e.sensed, 0
}

// metered returns what the meter of the node has seen, and the part of the time
// that it covers; ok where there is a meter with a figure.
func (s *sampler) metered(now *sample) (energy sensors.Microjoules, covered float64, ok bool) {
	if s.node.meter < 0 || now.elapsed <= 0 {
		return 0, 0, false
	}
	d := &now.devices[s.node.meter]
	if !d.seen(s.devices[s.node.meter]) {
		return 0, 0, false
	}
	seen := d.Observed
	if d.Err == nil && !now.ending {
		// What it has not told yet is late, not lost: were it modelled meanwhile, the
		// total, which never decreases, would keep what the model had too much.
		seen += max(now.at.Sub(d.At), 0)
	}
	return d.Energy, min(seen.Seconds()/now.elapsed.Seconds(), 1), true
}

// awaited reports whether the meter works and has not told its first figure yet. At
// the end of the run nothing is awaited any more.
func (s *sampler) awaited(now *sample) bool {
	return s.node.meter >= 0 && !now.ending && now.devices[s.node.meter].Err == nil
}

// modelled returns the energy of the node by its model, in microjoules.
func (s *sampler) modelled(sensed sensors.Microjoules, elapsed time.Duration) float64 {
	return float64(s.node.profile.Energy(sensed.Joules(), elapsed)) * 1e6
}

// Node is the energy of the whole machine at its plug, whatever the scope of the
// report.
type Node struct {
	// Energy is nil where nothing tells it; Reason then says why. Low and High
	// are its interval, k = 2.
	Energy *sensors.Joules `json:"energy_j"`
	Low    *sensors.Joules `json:"low_j"`
	High   *sensors.Joules `json:"high_j"`
	// Method is that of the meter, model, or both joined where the meter did not
	// cover all of the run.
	Method string `json:"method"`
	// Residual is what no component sensor explains: fans, disks, network, the
	// loss of the power supplies. Negative, one of the two is wrong; nil where no
	// component was measured.
	Residual *sensors.Joules `json:"residual_j"`
	// Coverage is the part of the run that the meter saw, 0 to 1.
	Coverage float64 `json:"coverage"`
	// Meter is the meter, as a device; nil without one.
	Meter *Device `json:"meter,omitempty"`
	// Profile is the model; nil without one.
	Profile *node.Profile `json:"profile,omitempty"`
	Reason  string        `json:"reason,omitempty"`
}

// nodeReport describes the node at a sample; rel is the relative error of what the
// component sensors saw, and the result that of the node.
func (t *Tracker) nodeReport(begin, now *sample, rel float64) (Node, float64) {
	s, e := t.sampler, now.energies
	n := Node{Reason: s.node.reason, Profile: s.node.profile}
	if s.node.meter >= 0 {
		d := t.device(s.node.meter, begin, now)
		n.Meter = &d
		if d.Reason != "" {
			n.Reason = "the meter " + d.ID + ": " + strings.TrimPrefix(d.Reason, d.ID+": ")
		}
	}
	if !e.nodeKnown {
		return n, 0
	}
	metered, covered, seen := s.metered(now)
	n.Coverage = covered
	if covered >= fullCoverage && n.Meter.Reason == "" {
		n.Reason = "" // that there is no model does not matter
	}
	var parts []emissions.Part
	if seen {
		n.Method = string(n.Meter.Method)
		parts = append(parts, emissions.Part{
			Value: float64(metered.Joules()), Group: "meter",
			Rel: relativeError(s.devices[s.node.meter], &now.devices[s.node.meter]),
		})
	}
	if s.node.profile != nil && e.known && covered < fullCoverage {
		if seen {
			n.Method = join([]string{n.Method, string(sensors.MethodModel)})
		} else {
			n.Method = string(sensors.MethodModel)
		}
		parts = append(parts, emissions.Part{
			Value: float64((e.node - min(metered, e.node)).Joules()), Group: "model",
			Rel: s.node.profile.Rel(e.sensed.Joules(), rel, now.elapsed),
		})
	}
	_, nodeRel := emissions.Sum(parts...)
	total := e.node.Joules()
	low, high := emissions.Bounds(total, nodeRel)
	n.Energy, n.Low, n.High = &total, &low, &high
	if e.known {
		residual := total - e.sensed.Joules()
		n.Residual = &residual
	}
	return n, nodeRel
}
