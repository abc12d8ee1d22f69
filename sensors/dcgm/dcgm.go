// Package dcgm reads the energy of NVIDIA GPUs from a DCGM exporter, over HTTP.
// It is for programs without cgo, and for containers that are shown no driver:
// in a Kubernetes cluster the exporter usually runs on each node already.
//
// # Basics
//
// It is not registered: the network is asked only where the user says so.
//
//	sensors.Detect(ctx, sensors.WithBackend(dcgm.Backend("http://localhost:9400/metrics")))
//
// or, by the environment variable WATTSPAN_DCGM, [FromEnvironment]. Per GPU it
// reads the better of what the exporter shows:
//
//	DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION   counter, mJ   ±5 %, A100 and H100 ±12 %
//	DCGM_FI_DEV_POWER_USAGE                W             ±25 %
//
// A device's ID is the GPU's UUID, so that [sensors.Detect] leaves it out where
// NVML reads the same GPU. Power and utilization that are shown beside the
// counter are passed on.
//
// # Caveats
//
// The exporter asks its GPUs every 30 s by default: what it shows is that old,
// and a run shorter than Device.Refresh has no figure. Start it with -c 1000, or
// DCGM_EXPORTER_INTERVAL=1000, and say so here with [WithRefresh].
//
// The exporter must be this machine's. Its GPUs are compared with those that the
// driver shows in procfs or that NVIDIA_VISIBLE_DEVICES names, its Hostname with
// the machine's name and NODE_NAME, its address with HOST_IP and the loopback.
// What none of these confirms is not read: a Service of Kubernetes answers for
// any node.
//
// MIG instances are shown with the energy of their whole GPU. It is counted
// once; the instances are its Parts, by the name MIG-UUID/instance.
//
// Certificates are checked against the system's; SSL_CERT_FILE names others. A
// name and password in the URL are sent, and never shown. No proxy is used.
package dcgm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// EnvURL is the environment variable that holds the exporter's URL.
const EnvURL = "WATTSPAN_DCGM"

// name is all the Source that devices have: reports are published, and an
// address inside a cluster is nobody's business.
const name = "dcgm"

const (
	// DefaultRefresh is the time between two looks of an exporter at its GPUs,
	// unless it is told otherwise.
	DefaultRefresh = 30 * time.Second
	// mostOften and leastOften bound the time between two polls. A poll costs
	// the exporter a look into its own cache, not one at the driver, and Prometheus
	// asks every 15 s as a rule. Values of 30 s are late by another 5 s at most.
	mostOften  = time.Second
	leastOften = 5 * time.Second
	// patience bounds a poll: the exporter itself gives up writing after 10 s.
	patience = 10 * time.Second
	// maxPower bounds a GPU or module. No module draws as much.
	maxPower = sensors.Watts(4500)
	// frozen is the number of refreshes for which a counter can stand still
	// before the exporter is taken for dead: every GPU draws a few mJ.
	frozen = 4

	counterBand     = 0.05
	slowCounterBand = 0.12
	// powerBand is a judgement: a reading of the power every 30 s misses what a
	// load does between.
	powerBand = 0.25
)

// Option configures a [Backend].
type Option interface{ apply(*source) }

type optionFunc func(*source)

func (f optionFunc) apply(s *source) { f(s) }

// WithRefresh says how often the exporter looks at its GPUs, its option
// --collect-interval, where that is not [DefaultRefresh].
func WithRefresh(d time.Duration) Option {
	return optionFunc(func(s *source) {
		if d > 0 {
			s.refresh = d
		}
	})
}

// Backend reads the exporter at url, for [sensors.WithBackend]. The scheme
// http and the path /metrics need not be written.
func Backend(url string, opts ...Option) sensors.Backend {
	return sensors.Backend{
		Name: name, Component: sensors.GPU, Supports: supports(),
		Open: func(ctx context.Context, roots sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			s := source{url: url, refresh: DefaultRefresh, lookup: os.LookupEnv, hostname: os.Hostname, now: time.Now}
			for _, o := range opts {
				if o != nil {
					o.apply(&s)
				}
			}
			s.every = min(max(s.refresh, mostOften), leastOften)
			opened, omitted := s.open(ctx, roots)
			if opened == nil { // which is no nil Sensor
				return nil, omitted
			}
			return opened, omitted
		},
	}
}

// FromEnvironment returns the back-end that WATTSPAN_DCGM asks for; ok is false
// where it is empty. lookup is as os.LookupEnv.
func FromEnvironment(lookup func(string) (string, bool)) (backend sensors.Backend, ok bool) {
	url, _ := lookup(EnvURL)
	if url = strings.TrimSpace(url); url == "" {
		return sensors.Backend{}, false
	}
	return Backend(url), true
}

func supports() []sensors.Support {
	return []sensors.Support{
		{
			Hardware: "NVIDIA GPUs since Volta, through a DCGM exporter", Source: "HTTP, " + energyMetric,
			Component: sensors.GPU, Unit: "mJ", Method: sensors.MethodCounter, ErrorBand: counterBand,
			Privileges: "every user who can reach the exporter", Tested: "simulated",
		},
		{
			Hardware: "NVIDIA GPUs without an energy counter, through a DCGM exporter", Source: "HTTP, " + powerMetric,
			Component: sensors.GPU, Unit: "W", Method: sensors.MethodPower, ErrorBand: powerBand,
			Privileges: "every user who can reach the exporter", Tested: "simulated",
		},
	}
}

// source is an exporter that has not been opened yet.
type source struct {
	url      string
	refresh  time.Duration
	every    time.Duration // 0 polls when told to
	lookup   func(string) (string, bool)
	hostname func() (string, error)
	now      func() time.Time
}

// open asks the exporter for its GPUs, and polls it from then on.
func (s source) open(ctx context.Context, roots sensors.Roots) (*sensor, []sensors.Omission) {
	e, err := newExporter(s.url)
	if err != nil {
		return nil, []sensors.Omission{unreadable("", err, "give the exporter's address as http://localhost:9400/metrics")}
	}
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, err := e.scrape(first)
	if err != nil {
		return nil, []sensors.Omission{unreadable("", err, "see what answers: curl -sf "+e.shown())}
	}
	if len(p.gpus) == 0 {
		err := fmt.Errorf("what answers at the address of the DCGM exporter shows no GPU with %s or %s: %w", energyMetric, powerMetric, sensors.ErrUnsupported)
		return nil, []sensors.Omission{unreadable("", err, "see what answers: curl -sf "+e.shown()+" | grep "+energyMetric+
			"; the exporter's file of counters (-f) needs the line: "+energyMetric+", counter, Total energy consumption since boot (in mJ).")}
	}
	here := thisMachine(roots, s.lookup, s.hostname)
	caveat, err := here.owns(p, e.url.Hostname())
	if err != nil {
		return nil, []sensors.Omission{unreadable("", err, here.remedy())}
	}

	o := &sensor{exporter: e, now: s.now, late: s.refresh + s.every, hosts: p.hosts}
	var devices []sensors.Device
	for i, g := range p.gpus {
		devices = append(devices, s.describe(i, g, caveat))
		o.seen = append(o.seen, newSeen(g))
	}
	polled, errs := sensors.NewPolled(ctx, sensors.Polling{
		Devices: devices, Every: s.every, Timeout: patience, Poll: o.poll,
		Unit: 1000, MaxPower: maxPower, Now: s.now,
	})
	o.Polled = polled
	if !slices.Contains(errs, nil) {
		_ = o.Close()
		return nil, []sensors.Omission{unreadable("", errors.Join(errs...), "see what answers: curl -sf "+e.shown())}
	}
	// One that fails now is the next poll's: it has been shown a moment ago.
	return o, nil
}

func (s source) describe(index int, g gpu, caveat string) sensors.Device {
	d := sensors.Device{
		ID: g.uuid, Index: index, Name: g.model, Vendor: "nvidia",
		Component: sensors.GPU, Method: sensors.MethodCounter, Scope: sensors.ScopeDevice,
		Source: name, ErrorBand: counterBand, Refresh: s.refresh + s.every, Parts: g.parts(),
	}
	if g.index >= 0 {
		d.Index = g.index
	}
	if d.Name == "" {
		d.Name = "NVIDIA GPU"
	}
	notes := []string{fmt.Sprintf("shown by a DCGM exporter, up to %v late", d.Refresh)}
	switch {
	case !g.hasEnergy:
		d.Method, d.ErrorBand = sensors.MethodPower, powerBand
		notes = append(notes, "no energy counter: its power is integrated")
	case partTime(g.model):
		d.ErrorBand = slowCounterBand
		notes = append(notes, "the power sensor of this model sees a quarter of the time")
	}
	if len(d.Parts) > 0 {
		notes = append(notes, "partitioned (MIG): this is the whole GPU's energy, instances have none of their own")
	}
	if caveat != "" {
		notes = append(notes, caveat)
	}
	d.Note = strings.Join(notes, "; ")
	return d
}

// partTime reports whether the power sensor of a model looks at a quarter of the
// time (arXiv:2312.02741): GA100 and Hopper. Of what has no name it is assumed.
func partTime(model string) bool {
	words := strings.FieldsFunc(strings.ToUpper(model), func(r rune) bool { return r == ' ' || r == '-' || r == '_' })
	return model == "" || slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{"A100", "A100X", "A800", "A30", "A30X", "H100", "H800", "H200", "H20", "GH200"}, w)
	})
}

// unreadable is the omission of the exporter, or of one GPU.
func unreadable(device string, err error, remedy string) sensors.Omission {
	return sensors.Omission{
		Source: name, Component: sensors.GPU, Device: device, Status: sensors.Unreadable,
		Reason: reason(err), Remedy: remedy, Err: fmt.Errorf("%s: %w", name, err),
	}
}

// sensor is the GPUs of one exporter.
type sensor struct {
	*sensors.Polled
	exporter *exporter
	now      func() time.Time
	late     time.Duration // Device.Refresh
	hosts    []string      // that the exporter named at first

	mu   sync.Mutex // of seen; never held across a request
	seen []seen
}

var _ sensors.Sensor = (*sensor)(nil)

// poll implements Poll of a [sensors.Polling].
func (s *sensor) poll(ctx context.Context, values []sensors.Value) {
	p, err := s.exporter.scrape(ctx)
	if err == nil && !slices.Equal(p.hosts, s.hosts) && !slices.ContainsFunc(s.seen, func(g seen) bool { return p.find(g.uuid) != nil }) {
		err = fmt.Errorf("another machine's DCGM exporter has answered: %w", sensors.ErrTransient)
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range values {
		if err != nil {
			values[i] = sensors.Value{Err: fmt.Errorf("%s: %w", name, err)}
			continue
		}
		values[i] = s.seen[i].add(p.find(s.seen[i].uuid), now, s.late)
	}
}

// Read implements sensors.Sensor.
func (s *sensor) Read(dst []sensors.Reading) {
	s.Polled.Read(dst)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.seen {
		if dst[i].Err == nil {
			dst[i].Power, dst[i].Utilization, dst[i].Doubt = s.seen[i].shown(), s.seen[i].utilization, s.seen[i].doubt
		}
	}
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error {
	err := s.Polled.Close()
	s.exporter.client.CloseIdleConnections()
	return err
}

// seen is what polls have shown of a GPU.
type seen struct {
	uuid    string
	counted bool // by its energy counter
	// power and utilization are NaN where the exporter does not show them.
	power       sensors.Watts
	utilization float64
	doubt       error

	// The counter at its last change, and the power between that and the change
	// before: polls come more often than changes, and see nothing or a jump.
	raw     uint64
	at      time.Time
	derived sensors.Watts
	changes int
}

var nan = sensors.Watts(math.NaN())

func newSeen(g gpu) seen {
	return seen{uuid: g.uuid, counted: g.hasEnergy, power: nan, utilization: math.NaN(), derived: nan}
}

// shown is the latest power that is known: that beside the counter, where there
// is one.
func (s *seen) shown() sensors.Watts {
	if math.IsNaN(float64(s.power)) {
		return s.derived
	}
	return s.power
}

// add takes what a poll has shown of the GPU, nil for nothing, and returns its
// value. late is how late a value may be.
func (s *seen) add(g *gpu, now time.Time, late time.Duration) sensors.Value {
	s.power, s.utilization, s.doubt = nan, math.NaN(), nil
	switch {
	case g == nil:
		return sensors.Value{Err: fmt.Errorf("%s: the exporter no longer shows %s: %w", name, s.uuid, sensors.ErrLost)}
	case s.counted && !g.hasEnergy, !s.counted && !g.hasPower:
		return sensors.Value{Err: fmt.Errorf("%s: the exporter shows no value of %s: %w", name, s.uuid, sensors.ErrTransient)}
	}
	if g.hasPower {
		s.power = g.power
	}
	s.utilization = g.utilization
	if !s.counted {
		return sensors.Value{Power: g.power}
	}
	still := now.Sub(s.at)
	switch {
	case s.at.IsZero():
		s.raw, s.at = g.energy, now
	case g.energy != s.raw:
		// The first change ends a time of which the beginning was not seen.
		if s.changes++; s.changes > 1 && g.energy > s.raw && still > 0 {
			s.derived = sensors.Watts(float64(g.energy-s.raw) / 1e3 / still.Seconds())
		}
		s.raw, s.at = g.energy, now
	case still > frozen*late:
		s.power, s.utilization = nan, math.NaN()
		return sensors.Value{Err: fmt.Errorf("%s: the energy that the exporter shows for %s has not changed for %v: %w",
			name, s.uuid, still.Round(time.Second), sensors.ErrTransient)}
	case still > late+late/2:
		s.doubt = fmt.Errorf("%s: values of the exporter are %v old, and %v was said to be the most: %w",
			name, still.Round(time.Second), late, sensors.ErrDisagreement)
	}
	return sensors.Value{Raw: g.energy}
}
