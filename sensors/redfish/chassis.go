package redfish

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// most is how many members of a collection are looked at.
const most = 64

// link leads to a resource.
type link struct {
	Path string `json:"@odata.id"`
}

// same reports whether two links lead to one resource: some services end paths
// with a slash.
func (l link) same(m link) bool {
	return l.Path != "" && strings.TrimRight(l.Path, "/") == strings.TrimRight(m.Path, "/")
}

// serviceRoot, collection, system and chassis are what is read of the resources
// of these names in the DMTF's schemas.
type serviceRoot struct{ Systems, Chassis link }

type collection struct {
	Members []link
	Next    string `json:"Members@odata.nextLink"`
}

type system struct {
	link
	ID       string `json:"Id"`
	HostName string
	Links    struct{ Chassis []link }
}

type chassis struct {
	link
	ID                        string `json:"Id"`
	Manufacturer, Model       string
	EnvironmentMetrics, Power link
	Links                     struct {
		ContainedBy     link
		ComputerSystems []link
	}
}

// number is one that a service may give as a string, or as null.
type number struct {
	known bool
	value float64
	// step is what its last digit stands for.
	step float64
}

// UnmarshalJSON implements json.Unmarshaler. What is no number is not known: a
// resource has many properties, of which one can be wrong.
func (n *number) UnmarshalJSON(text []byte) error {
	digits := strings.Trim(string(text), `" `)
	value, err := strconv.ParseFloat(digits, 64)
	*n = number{known: err == nil && !math.IsNaN(value) && !math.IsInf(value, 0), value: value, step: 1}
	if _, decimals, found := strings.Cut(digits, "."); found && !strings.ContainsAny(decimals, "eE") {
		n.step = math.Pow10(-len(decimals))
	}
	return nil
}

// metrics is what is read of EnvironmentMetrics and of Power.
type metrics struct {
	PowerWatts, EnergykWh, EnergyJoules excerpt
	PowerControl                        []control
}

// excerpt is a part of a sensor; some services have the number alone.
type excerpt struct{ Reading number }

// UnmarshalJSON implements json.Unmarshaler.
func (e *excerpt) UnmarshalJSON(text []byte) error {
	var object struct{ Reading number }
	if json.Unmarshal(text, &object) == nil {
		e.Reading = object.Reading
		return nil
	}
	return e.Reading.UnmarshalJSON(text)
}

type control struct {
	Name, PhysicalContext string
	PowerConsumedWatts    number
}

// state is the power and the energy of a chassis.
type state struct {
	power  float64 // W; 0 where it is not known, as no machine draws nothing
	energy float64 // J; 0 where it is not known
	step   float64 // J
}

// state returns what a resource says. The parts of a machine that have a
// PowerControl of their own, such as the processors, are not added to it, and are
// not taken for it.
func (m metrics) state() state {
	var s state
	plausible := func(n number) bool { return n.known && n.value > 0 && n.value <= maxPower }
	switch i := slices.IndexFunc(m.PowerControl, func(c control) bool { return plausible(c.PowerConsumedWatts) && c.whole() }); {
	case plausible(m.PowerWatts.Reading):
		s.power = m.PowerWatts.Reading.value
	case i >= 0:
		s.power = m.PowerControl[i].PowerConsumedWatts.value
	}
	for _, e := range []struct {
		number
		joules float64
	}{{m.EnergyJoules.Reading, 1}, {m.EnergykWh.Reading, sensors.JoulesPerKWh}} {
		// 2^63 µJ is what a counter can hold.
		if e.known && e.value > 0 && e.value*e.joules < (1<<63)/1e6 {
			s.energy, s.step = e.value*e.joules, e.step*e.joules
			break
		}
	}
	return s
}

// whole reports whether a PowerControl is that of the whole chassis, as far as it
// says of what.
func (c control) whole() bool {
	switch c.PhysicalContext {
	case "", "Chassis", "SystemBoard", "Intake", "PowerSupply", "ACInput", "ACMaintenanceBypassInput":
		return true
	}
	return false
}

// meter asks one resource of a chassis.
type meter struct {
	service *service
	path    string
	chassis chassis
	name    string // what is read, for people
	note    string
	counter bool
	step    sensors.Microjoules // of the energy; 0 where there is none
}

// checked reports whether an energy is read beside the power.
func (m *meter) checked() bool { return !m.counter && m.step > 0 }

// devices describes the node, and the energy that it is checked against.
func (m *meter) devices(every time.Duration) []sensors.Device {
	d := sensors.Device{
		ID: "node", Component: sensors.Node, Method: sensors.MethodPower, Scope: sensors.ScopeNode,
		Name: strings.TrimSpace(m.chassis.Manufacturer + " " + m.chassis.Model), Vendor: m.chassis.Manufacturer,
		Source: source + " " + m.service.target.host + m.path, Note: m.note,
		ErrorBand: band, Refresh: every, Declared: true,
	}
	if d.Name == "" {
		d.Name = "the machine, by its BMC"
	}
	energy := d
	energy.ID, energy.Method = "node-energy", sensors.MethodCounter
	switch {
	case m.counter:
		d.Method = sensors.MethodCounter
		// How long a step takes where a machine draws 100 W.
		d.Refresh = max(every, time.Duration(float64(m.step.Joules())/100*float64(time.Second)))
	case m.checked():
		return []sensors.Device{d, energy}
	}
	return []sensors.Device{d}
}

func (m *meter) poll(ctx context.Context, values []sensors.Value) {
	var r metrics
	err := m.service.get(ctx, m.path, &r)
	s := r.state()
	raw := uint64(math.Round(s.energy * 1e6))
	noEnergy, noPower := err, err
	if err == nil && s.energy == 0 {
		noEnergy = fmt.Errorf("redfish: %w: the BMC tells no energy for now", sensors.ErrTransient)
	}
	if err == nil && s.power == 0 {
		noPower = fmt.Errorf("redfish: %w: the BMC tells no power for now", sensors.ErrTransient)
	}
	if m.counter {
		values[0] = sensors.Value{Raw: raw, Err: noEnergy}
		return
	}
	values[0] = sensors.Value{Power: sensors.Watts(s.power), Err: noPower}
	if len(values) > 1 {
		values[1] = sensors.Value{Raw: raw, Err: noEnergy}
	}
}

// choose finds the chassis of the machine, and what it tells. path is that of the
// system or chassis that the user named, if any; host is this machine's name.
func (s *service) choose(ctx context.Context, path, host string) (*meter, error) {
	if strings.HasPrefix(path, root+"/Chassis/") {
		return s.among(ctx, []link{{path}})
	}
	systems := []link{{path}}
	if path == "" {
		var r serviceRoot
		if err := s.get(ctx, root, &r); err != nil {
			return nil, err
		}
		var err error
		if systems, err = s.members(ctx, r.Systems); err != nil {
			return nil, err
		}
		if len(systems) == 0 {
			all, err := s.members(ctx, r.Chassis)
			if err != nil {
				return nil, err
			}
			if len(all) > 1 {
				return nil, ambiguous("chassis and no system", all)
			}
			return s.among(ctx, all)
		}
	}
	machine, err := s.system(ctx, systems, host)
	if err != nil {
		return nil, err
	}
	return s.among(ctx, machine.Links.Chassis)
}

// members returns the links of a collection, over its pages.
func (s *service) members(ctx context.Context, l link) ([]link, error) {
	var all []link
	for next := l.Path; next != "" && len(all) < most; {
		var c collection
		if err := s.get(ctx, next, &c); err != nil {
			return nil, err
		}
		all = append(all, c.Members...)
		if next = c.Next; len(c.Members) == 0 {
			break
		}
	}
	return all[:min(len(all), most)], nil
}

// system returns the system that this machine is.
func (s *service) system(ctx context.Context, links []link, host string) (system, error) {
	var found []system
	var failed error
	for _, l := range links {
		var y system
		if err := s.get(ctx, l.Path, &y); err != nil {
			failed = err
			continue
		}
		y.link = l
		found = append(found, y)
	}
	// NVIDIA's name for the GPU baseboard, which is a system beside the one that
	// holds it.
	hosts := slices.DeleteFunc(slices.Clone(found), func(y system) bool { return strings.HasPrefix(name(y.link), "HGX_") })
	if len(hosts) == 0 {
		hosts = found
	}
	if len(hosts) > 1 {
		named := slices.DeleteFunc(slices.Clone(hosts), func(y system) bool { return !sameHost(y.HostName, host) })
		if len(named) == 1 {
			hosts = named
		}
	}
	switch {
	case len(hosts) == 1:
		return hosts[0], nil
	case len(hosts) == 0:
		return system{}, failed
	}
	var all []link
	for _, y := range hosts {
		all = append(all, y.link)
	}
	return system{}, ambiguous("systems", all)
}

// sameHost compares host names without their domains.
func sameHost(a, b string) bool {
	a, _, _ = strings.Cut(a, ".")
	b, _, _ = strings.Cut(b, ".")
	return a != "" && strings.EqualFold(a, b)
}

func name(l link) string {
	path := strings.TrimRight(l.Path, "/")
	return path[strings.LastIndexByte(path, '/')+1:]
}

func ambiguous(what string, links []link) error {
	var paths []string
	for _, l := range links {
		paths = append(paths, l.Path)
	}
	return fmt.Errorf("redfish: it has several %s: let the URL go on to the one of this machine, %s: %w",
		what, strings.Join(paths, " or "), sensors.ErrUnsupported)
}

// among returns a meter of the one of these chassis that is the whole machine.
func (s *service) among(ctx context.Context, links []link) (*meter, error) {
	type candidate struct {
		*meter
		state
	}
	var telling []candidate
	var silent []string
	var failed error
	for _, l := range links[:min(len(links), most)] {
		var c chassis
		if err := s.get(ctx, l.Path, &c); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		c.link = l
		m, st, err := s.probe(ctx, c)
		switch {
		case err != nil:
			failed = errors.Join(failed, err)
		case m == nil:
			silent = append(silent, name(l))
		default:
			telling = append(telling, candidate{m, st})
		}
	}
	if len(telling) == 0 {
		if failed != nil {
			return nil, failed
		}
		return nil, fmt.Errorf("redfish: its chassis %s tells neither a power nor an energy above 0: %w", strings.Join(silent, ", "), sensors.ErrUnsupported)
	}
	inside := func(c candidate) bool {
		return slices.ContainsFunc(telling, func(o candidate) bool { return c.chassis.Links.ContainedBy.same(o.chassis.link) })
	}
	board := func(c candidate) bool { return strings.HasPrefix(name(c.chassis.link), "HGX_") }
	best := slices.MaxFunc(telling, func(a, b candidate) int {
		for _, part := range []func(candidate) bool{inside, board} {
			if part(a) != part(b) {
				if part(a) {
					return -1
				}
				return 1
			}
		}
		if a.counter != b.counter {
			if a.counter {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.power, b.power)
	})
	m := best.meter
	m.note = m.name + " of chassis " + name(m.chassis.link)
	if m.counter {
		m.note += fmt.Sprintf(", in steps of %v", m.step.Joules())
	}
	var others []string
	for _, c := range telling {
		if c.meter != m {
			others = append(others, name(c.chassis.link))
		}
	}
	if len(others) > 0 {
		m.note += ", not of " + strings.Join(others, ", ") + ", which is taken for a part of it"
	}
	return m, nil
}

// probe asks a chassis for what it tells: nil where that is nothing.
func (s *service) probe(ctx context.Context, c chassis) (*meter, state, error) {
	var failed error
	var counting *meter
	var counted state
	for _, r := range []struct {
		link
		name string
	}{{c.EnvironmentMetrics, "PowerWatts"}, {c.Power, "PowerConsumedWatts"}} {
		if r.Path == "" {
			continue
		}
		var values metrics
		if err := s.get(ctx, r.Path, &values); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		st := values.state()
		m := &meter{service: s, path: r.Path, chassis: c, name: r.name, step: sensors.Microjoules(math.Round(st.step * 1e6))}
		if st.power > 0 {
			return m, st, nil
		}
		if st.energy > 0 && counting == nil {
			m.name, m.counter = "the energy counter", true
			counting, counted = m, st
		}
	}
	if counting != nil {
		return counting, counted, nil
	}
	return nil, state{}, failed
}
