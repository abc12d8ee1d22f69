package tracker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/node"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// The laws of docs/REPORT.md and docs/METHODOLOGY.md, on machines made by chance.
// Every machine is a function of its seed, all of its time is virtual, and what its
// devices draw is known exactly. A machine is tracked by several trackers at once:
// one of each of its jobs, and of the first job one for every idle policy.

const (
	lawMachines  = 80
	lawPUE       = 1.25
	lawIntensity = 400
	lawStep      = 10 * time.Millisecond // of the clocks of /proc
	lawMaxPower  = 2000                  // watts, of every device
	microjoule   = 1e-6
)

// allOf is the load of a machine at its plug.
type allOf struct {
	parts      []sensortest.Load
	base       sensors.Watts
	efficiency float64
	gain       float64
}

func (a allOf) Power(t time.Duration) sensors.Watts {
	sum := a.base
	for _, p := range a.parts {
		sum += p.Power(t)
	}
	return sum * sensors.Watts(a.gain/a.efficiency)
}

func (a allOf) Joules(t time.Duration) sensors.Joules {
	sum := sensors.Joules(float64(a.base) * t.Seconds())
	for _, p := range a.parts {
		sum += p.Joules(t)
	}
	return sum * sensors.Joules(a.gain/a.efficiency)
}

// told is what must be known of a counter, given when it was read: an account of
// its own, beside that of the sensor.
type told struct {
	read, primed, ok  bool
	at                time.Duration // of the last good reading
	energy            float64       // joules
	observed          time.Duration
	resets, rejected  uint32
	lost              bool // seen to be gone, and not from the beginning
	doubted, degraded bool
	garbage           int // readings in a row
	unsure            bool
	points            int
	gap               time.Duration // the longest between two good readings
	history           []lawPoint    // of the good readings
}

// lawPoint is what is known of a device at a reading.
type lawPoint struct {
	at       time.Duration
	energy   float64
	observed time.Duration
}

// lawUse is what is used of a machine from a time on.
type lawUse struct {
	at     time.Duration
	busy   time.Duration
	gib    int
	broken bool
	jobs   []tracker.Usage
}

// witness reads scripted devices, and keeps an account of what each must say.
type witness struct {
	sensors.Sensor
	scripts []sensortest.Script
	begin   time.Time
	// doubt and degrade are from when on a device is doubted, and read by a lesser
	// method; 0: never.
	doubt, degrade []time.Duration
	own            []bool

	mu   sync.Mutex
	told []told
}

func newWitness(timing sensors.Timing, scripts ...sensortest.Script) *witness {
	return &witness{
		Sensor: sensortest.NewSensor(nil, timing, scripts...), scripts: scripts, begin: time.Now(),
		told: make([]told, len(scripts)), doubt: make([]time.Duration, len(scripts)), degrade: make([]time.Duration, len(scripts)), own: make([]bool, len(scripts)),
	}
}

func (w *witness) Read(dst []sensors.Reading) {
	w.Sensor.Read(dst)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.scripts {
		s, k, r := &w.scripts[i], &w.told[i], &dst[i]
		now := time.Since(w.begin)
		if from := w.doubt[i]; from > 0 && now >= from {
			r.Doubt, k.doubted = fmt.Errorf("scripted: %w", sensors.ErrDisagreement), true
			r.ErrorBand = 0.3
		}
		if from := w.degrade[i]; from > 0 && now >= from {
			r.Method, r.ErrorBand, k.degraded = sensors.MethodPower, 0.2, true
			if w.own[i] { // it names the method that it has always had
				r.Method, k.degraded = w.scripts[i].Method, false
			}
		}
		if slices.ContainsFunc(s.Lost, func(l sensortest.Span) bool { return l.Contains(now) }) {
			k.lost = k.lost || k.read
			k.read, k.ok, k.garbage = true, false, 0
			continue
		}
		k.account(s, r.At.Sub(w.begin))
	}
}

func (k *told) account(s *sensortest.Script, at time.Duration) {
	seen := func(t time.Duration) float64 {
		if s.Update > 0 {
			t = t.Truncate(s.Update)
		}
		return float64(s.Curve.Joules(t))
	}
	k.points++
	defer func() { k.read = true }()
	if slices.ContainsFunc(s.Garbage, func(l sensortest.Span) bool { return l.Contains(at) }) {
		k.rejected++
		k.garbage++
		k.unsure = k.unsure || k.garbage > 1 || !k.ok
		return
	}
	k.garbage = 0
	reset := time.Duration(-1)
	for _, r := range s.Resets {
		if k.at < r && r <= at {
			reset = r
		}
	}
	switch {
	case !k.ok:
		if k.primed {
			k.resets++
		}
	case reset >= 0:
		k.energy += seen(at) - seen(reset)
		k.resets++
	default:
		k.energy += seen(at) - seen(k.at)
		k.observed += at - k.at
	}
	if k.ok {
		k.gap = max(k.gap, at-k.at)
	}
	k.primed, k.ok, k.at = true, true, at
	k.history = append(k.history, lawPoint{at, k.energy, k.observed})
}

// job is a job of a machine; world changes what it uses.
type lawJob struct {
	mu     sync.Mutex
	usage  tracker.Usage
	broken bool // cannot be read
}

func (j *lawJob) Read() (tracker.Usage, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return tracker.Usage{}, errors.New("scripted")
	}
	return j.usage, nil
}

func (*lawJob) Accounting() string { return tracker.AccountingTree }

func (j *lawJob) add(cpu time.Duration, memory uint64, known bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.usage.CPU += cpu
	j.usage.Memory, j.usage.HasMemory = memory, known
}

// plan is a machine and its run, as its seed has it.
type plan struct {
	rng      *rand.Rand
	length   time.Duration
	interval time.Duration
	profile  string
	base     sensors.Watts // of the profile
	eff      float64
	visible  string

	packages, drams, gpus []sensortest.Script
	gpuTiming             []sensors.Timing
	doubt, degrade        map[string]time.Duration

	meter     string // "", counter, power, polled counter, polled power
	meterOf   sensortest.Script
	every     time.Duration // of a meter that is polled
	pollFails sensortest.Span
	gain      float64
	readable  bool // whether /proc says how busy the machine is
	jobs      int
	broken    sensortest.Span
	plug      allOf
	uses      []lawUse
}

func (p *plan) chance(percent int) bool { return p.rng.IntN(100) < percent }

// between is a time at odds with all ticks, which are at multiples of 100 ms.
func (p *plan) between(from, to time.Duration) time.Duration {
	return from + time.Duration(p.rng.Int64N(int64(to-from)/int64(lawStep)))*lawStep + 3*time.Millisecond
}

func (p *plan) curve(most int) sensortest.Curve {
	c := sensortest.Curve{{At: 0, Power: sensors.Watts(10 + p.rng.IntN(most))}}
	for at := time.Duration(0); at < p.length; {
		at += time.Duration(1+p.rng.IntN(150)) * 100 * time.Millisecond
		w := sensors.Watts(10 + p.rng.IntN(most))
		if p.chance(60) { // a step, else a ramp
			c = append(c, sensortest.Point{At: at, Power: c[len(c)-1].Power})
		}
		c = append(c, sensortest.Point{At: at, Power: w})
	}
	return c
}

// hang makes a power unreadable for a while, now and then.
func (p *plan) hang(s *sensortest.Script) {
	if at := p.between(2*time.Second, p.length-10*time.Second); p.chance(30) {
		s.Hang = []sensortest.Span{{From: at, To: at + time.Duration(50+p.rng.IntN(500))*lawStep}}
	}
}

// flaw gives a counter one of the flaws of real ones, or none.
func (p *plan) flaw(s *sensortest.Script, hangs bool) {
	at := p.between(2*time.Second, p.length-10*time.Second)
	switch p.rng.IntN(10) {
	case 6:
		s.Lost = []sensortest.Span{{From: 0, To: time.Hour}}
	case 0:
		s.Lost = []sensortest.Span{{From: at, To: at + time.Duration(1+p.rng.IntN(5))*p.interval}}
	case 1:
		s.Lost = []sensortest.Span{{From: 0, To: time.Duration(1+p.rng.IntN(3)) * time.Second}}
	case 2:
		s.Lost = []sensortest.Span{{From: at, To: time.Hour}}
	case 3:
		s.Resets = []time.Duration{at}
	case 4:
		s.Garbage, s.Noise = []sensortest.Span{{From: at, To: at + p.interval - time.Millisecond}}, 1<<62
	case 5:
		if hangs {
			s.Hang = []sensortest.Span{{From: at, To: at + time.Duration(1+p.rng.IntN(600))*lawStep}}
		}
	}
}

func newPlan(seed uint64) *plan {
	p := &plan{rng: rand.New(rand.NewPCG(seed, 4)), doubt: map[string]time.Duration{}, degrade: map[string]time.Duration{}}
	p.length = time.Duration(20+p.rng.IntN(60))*time.Second + time.Duration(p.rng.IntN(100))*lawStep
	p.interval = []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second, time.Second, 3 * time.Second, 10 * time.Second}[p.rng.IntN(6)]
	p.profile = []string{tracker.NodeNone, "laptop", "desktop", "server"}[p.rng.IntN(4)]
	p.base, p.eff = 30, 0.9
	if profile, err := node.Named(p.profile); err == nil {
		p.base, p.eff = profile.Base, profile.Efficiency
	}
	script := func(id string, c sensors.Component, most int) sensortest.Script {
		s := sensortest.Script{
			Device: sensors.Device{ID: id, Component: c, ErrorBand: 0.05, Name: id},
			Curve:  p.curve(most), MaxPower: lawMaxPower, Start: 1 << 40, Utilization: math.NaN(),
		}
		if p.chance(12) {
			p.doubt[id] = p.between(time.Second, p.length)
		} else if p.chance(8) && c == sensors.CPU {
			p.degrade[id] = p.between(time.Second, p.length)
		}
		return s
	}
	for i := range p.rng.IntN(3) {
		s := script(fmt.Sprint("package-", i), sensors.CPU, 300)
		p.flaw(&s, false)
		p.packages = append(p.packages, s)
	}
	for i := range p.rng.IntN(2) {
		s := script(fmt.Sprint("dram-", i), sensors.Memory, 40)
		p.flaw(&s, false)
		p.drams = append(p.drams, s)
	}
	for i := range p.rng.IntN(4) {
		s := script(fmt.Sprint("GPU-", i), sensors.GPU, 700)
		s.Index, s.Vendor = i, "nvidia"
		timing := sensors.Timing{MayBlock: p.chance(70)}
		switch p.rng.IntN(4) {
		case 0:
			s.Method = sensors.MethodPower
			p.hang(&s)
			timing = sensors.Timing{MayBlock: true, MaxInterval: 100 * time.Millisecond}
		case 1:
			s.Method, s.Averaging, s.Refresh = sensors.MethodPowerAverage, time.Second, time.Second
			timing = sensors.Timing{MayBlock: true, MaxInterval: time.Second}
		default:
			s.Method, s.Update, s.Refresh, s.Unit = sensors.MethodCounter, 100*time.Millisecond, 100*time.Millisecond, 1000
			p.flaw(&s, timing.MayBlock)
		}
		if p.chance(20) {
			s.Parts = []sensors.Part{{ID: fmt.Sprintf("MIG-%d-a", i), Share: 4. / 7}, {ID: fmt.Sprintf("MIG-%d-b", i), Share: 2. / 7}}
		}
		p.gpus, p.gpuTiming = append(p.gpus, s), append(p.gpuTiming, timing)
	}
	p.visible = []string{"0", "0,1", "", "2", "MIG-0-a", "GPU-1"}[p.rng.IntN(6)]
	p.planMeter()
	p.readable = p.chance(85)
	p.jobs = 1 + p.rng.IntN(3)
	if p.chance(15) {
		from := p.between(0, p.length)
		p.broken = sensortest.Span{From: from, To: from + 5*time.Second}
	}
	return p
}

func (p *plan) planMeter() {
	p.plug = allOf{base: p.base, efficiency: p.eff, gain: 1}
	for _, all := range [][]sensortest.Script{p.packages, p.drams, p.gpus} {
		for i := range all {
			p.plug.parts = append(p.plug.parts, all[i].Curve)
		}
	}
	p.meter = []string{"", "", "counter", "counter", "power", "polled counter", "polled power"}[p.rng.IntN(7)]
	p.gain = []float64{1, 1, 1, 0.4, 6}[p.rng.IntN(5)]
	load := p.plug
	load.gain = p.gain
	p.meterOf = sensortest.Script{
		Device: sensors.Device{ID: "plug", Component: sensors.Node, Scope: sensors.ScopeNode, ErrorBand: 0.03, Source: "scripted", Name: "meter"},
		Load:   load, Start: 1 << 40, MaxPower: 1e5, Utilization: math.NaN(),
	}
	p.meterOf.Method = sensors.MethodCounter
	if strings.HasSuffix(p.meter, "power") {
		p.meterOf.Method = sensors.MethodPower
	}
	p.every = time.Duration(2+p.rng.IntN(9))*time.Second + 1700*time.Microsecond // at odds with the ticks
	if p.chance(30) {
		from := p.between(time.Second, p.length)
		p.pollFails = sensortest.Span{From: from, To: from + time.Duration(p.rng.IntN(15))*time.Second}
		if !strings.HasPrefix(p.meter, "polled") && p.meterOf.Method == sensors.MethodCounter {
			p.meterOf.Lost = []sensortest.Span{p.pollFails}
			if p.chance(40) {
				p.meterOf.Lost[0] = sensortest.Span{From: 0, To: time.Hour}
			}
		}
	}
}

// sensorsOf makes the sensors of a machine, those of one tracker.
func (p *plan) sensorsOf(t *testing.T) (set *sensors.Set, all []*witness) {
	add := func(timing sensors.Timing, scripts ...sensortest.Script) {
		if len(scripts) == 0 {
			return
		}
		w := newWitness(timing, slices.Clone(scripts)...)
		for i, s := range scripts {
			w.doubt[i], w.degrade[i], w.own[i] = p.doubt[s.ID], p.degrade[s.ID], s.ID == "package-1"
		}
		all = append(all, w)
	}
	add(sensors.Timing{}, p.packages...)
	add(sensors.Timing{MaxInterval: 30 * time.Second}, p.drams...)
	for i := range p.gpus {
		add(p.gpuTiming[i], p.gpus[i])
	}
	var of []sensors.Sensor
	for _, w := range all {
		of = append(of, w)
	}
	switch {
	case strings.HasPrefix(p.meter, "polled"):
		of = append(of, p.polled(t))
	case p.meter != "":
		of = append(of, sensortest.NewSensor(nil, sensors.Timing{}, p.meterOf))
	}
	return sensors.NewSet(of...), all
}

func (p *plan) polled(t *testing.T) *sensors.Polled {
	begin, script := time.Now(), p.meterOf
	m, _ := sensors.NewPolled(t.Context(), sensors.Polling{
		Devices: []sensors.Device{script.Device}, Every: p.every, Timeout: time.Second, MaxPower: script.MaxPower,
		Poll: func(_ context.Context, values []sensors.Value) {
			at := time.Since(begin)
			if p.pollFails.Contains(at) {
				return
			}
			values[0] = sensors.Value{Power: script.Watts(at), Raw: script.Raw(at)}
		},
	})
	return m
}

// run is one tracker of a machine.
type lawRun struct {
	*tracker.Tracker
	what   string
	job    int
	policy tracker.Idle
	scope  tracker.Scope
	reader *sdkmetric.ManualReader
	all    []*witness
	set    *sensors.Set
	// late is set where the node's meter is polled. What the scope is charged with
	// before it has spoken, and between two polls, is an estimate that is not taken back.
	late bool

	last      tracker.Report
	published map[attribute.Distinct]float64
}

// lasting is a provider that cannot be flushed, so that the metrics are still there
// after Stop.
type lasting struct{ metric.MeterProvider }

func TestLaws(t *testing.T) {
	var flags []string
	for seed := range uint64(lawMachines) {
		t.Run(fmt.Sprintf("machine %d", seed), func(t *testing.T) {
			p := newPlan(seed)
			m := newMachine(t)
			t.Setenv("CUDA_VISIBLE_DEVICES", p.visible)
			t.Setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
			if seed%2 == 1 { // of a machine with 100 GiB
				t.Setenv("SLURM_JOB_ID", "1")
				t.Setenv("SLURM_CPUS_ON_NODE", "1")
				t.Setenv("SLURM_MEM_PER_NODE", "1024")
			}
			t.Setenv("NVIDIA_VISIBLE_DEVICES", "all")
			synctest.Test(t, func(t *testing.T) { flags = append(flags, p.track(t, m)...) })
		})
	}
	// The machines are such that every law has something to hold.
	for _, flag := range []tracker.FlagKind{tracker.FlagEstimated, tracker.FlagBound, tracker.FlagReset, tracker.FlagLost, tracker.FlagCoverage, tracker.FlagDisagreement,
		tracker.FlagMethod, tracker.FlagNodeBelowSum, tracker.FlagUnexplained} {
		if !slices.Contains(flags, string(flag)) {
			t.Errorf("no machine raises %s", flag)
		}
	}
}

func (p *plan) track(t *testing.T, m machine) (flags []string) {
	jobs := make([]*lawJob, p.jobs)
	for i := range jobs {
		jobs[i] = new(lawJob)
	}
	var runs []*lawRun
	begin := func(job int, policy tracker.Idle) {
		r := &lawRun{job: job, policy: policy, scope: tracker.Machine, reader: sdkmetric.NewManualReader(), published: map[attribute.Distinct]float64{}, late: strings.HasPrefix(p.meter, "polled")}
		if p.chance(50) {
			r.scope = tracker.Job
		}
		r.what = fmt.Sprintf("job %d, %s, scope %s", job, policy, r.scope)
		r.set, r.all = p.sensorsOf(t)
		root := m.root
		if !p.readable {
			root = "/nonexistent"
		}
		r.Tracker = start(t, r.set, tracker.WithScope(r.scope), tracker.WithIdle(policy), tracker.WithJob(jobs[job]), tracker.WithInterval(p.interval),
			tracker.WithNodeProfile(p.profile), tracker.WithDetection(sensors.WithProcRoot(root)),
			tracker.WithMeterProvider(lasting{sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader))}))
		runs = append(runs, r)
	}
	busy, gib := 1000*time.Second, 40
	m.busy(busy)
	m.inUse(gib)
	for _, policy := range []tracker.Idle{tracker.IdleNone, tracker.IdleProportional, tracker.IdleWhole, tracker.IdleReserved} {
		begin(0, policy)
	}
	for j := 1; j < p.jobs; j++ {
		begin(j, tracker.IdleProportional)
	}

	origin := time.Now()
	note := func() {
		use := lawUse{at: time.Since(origin), busy: busy, gib: gib, broken: p.broken.Contains(time.Since(origin))}
		for _, j := range jobs {
			use.jobs = append(use.jobs, j.usage)
		}
		p.uses = append(p.uses, use)
	}
	note()
	time.Sleep(5 * time.Millisecond)
	for time.Since(origin) < p.length {
		time.Sleep(time.Duration(5+p.rng.IntN(150)) * lawStep)
		others := time.Duration(p.rng.IntN(30)) * lawStep
		gib = 30 + p.rng.IntN(20)
		for _, j := range jobs {
			cpu := time.Duration(p.rng.IntN(40)) * lawStep
			j.add(cpu, uint64(p.rng.IntN(10))<<30, p.chance(90))
			busy += cpu
			j.mu.Lock()
			j.broken = p.broken.Contains(time.Since(origin))
			j.mu.Unlock()
		}
		busy += others
		m.busy(busy)
		m.inUse(gib)
		note()
		if p.chance(15) { // all at the same moment, so that they divide the same windows
			var wait sync.WaitGroup
			for _, r := range runs {
				wait.Go(func() { _, _ = r.Sample(t.Context()) })
			}
			wait.Wait()
			time.Sleep((5*time.Millisecond - time.Since(origin)%lawStep + lawStep) % lawStep)
		}
		if p.chance(20) {
			synctest.Wait()
			for _, r := range runs {
				r.check(t, r.Snapshot())
			}
		}
	}
	var wait sync.WaitGroup
	length := time.Since(origin)
	for _, r := range runs {
		wait.Go(func() {
			report, err := r.Stop(context.Background())
			if err != nil {
				t.Errorf("%s: %v", r.what, err)
			}
			r.check(t, report)
		})
	}
	wait.Wait()
	for _, r := range runs {
		p.checkEnd(t, r, length)
		for _, f := range r.last.Quality {
			flags = append(flags, string(f.Kind))
		}
		_ = r.set.Close()
	}
	p.checkTogether(t, runs)
	return flags
}

func value(j *sensors.Joules) float64 {
	if j == nil {
		return 0
	}
	return float64(*j)
}

// check holds a report against the laws that are true at any time, and against the
// one before.
func (r *lawRun) check(t *testing.T, now tracker.Report) {
	t.Helper()
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s at %.3f s: %s", r.what, now.Run.Duration, fmt.Sprintf(format, args...))
	}
	same := func(law string, got, want float64) {
		t.Helper()
		if !(math.Abs(got-want) <= 1e-9*math.Max(math.Abs(want), 1)) {
			bad("%s: %v, want %v", law, got, want)
		}
	}
	data, err := json.Marshal(now)
	if err != nil {
		bad("JSON: %v", err)
	} else if bytes.Contains(data, []byte("NaN")) {
		bad("NaN in %s", data)
	}

	// device = Σ components = Σ attributed; job + unattributed = drawn
	e := now.Energy
	var attributed, drawn, divided float64
	known := false
	component := map[sensors.Component]float64{}
	for _, d := range now.Devices {
		drawn += value(d.Energy)
		if (d.Energy == nil) != (d.Status == tracker.StatusUnseen) || (d.Energy == nil) != (d.Low == nil) {
			bad("%s: %+v", d.ID, d)
		}
		if d.Energy != nil && !(*d.Low <= *d.Energy && *d.Energy <= *d.High) || !(d.Coverage >= 0 && d.Coverage <= 1) {
			bad("%s: %v J of %v to %v, coverage %v", d.ID, value(d.Energy), *d.Low, *d.High, d.Coverage)
		}
		if value(d.Attributed) > value(d.Energy) || value(d.Attributed) < 0 {
			bad("%s: %v of %v J attributed", d.ID, *d.Attributed, value(d.Energy))
		}
		if d.Attributed != nil {
			known = true
			attributed += value(d.Attributed)
		}
		if slices.Contains(now.Job.Components, d.Component) {
			divided += value(d.Energy)
		}
		component[d.Component] += value(d.Energy)
	}
	if (e.Device != nil) != known {
		bad("device is %v, though a device has a figure: %v", e.Device, known)
	}
	same("device is its components", value(e.GPU)+value(e.CPU)+value(e.Memory), value(e.Device))
	same("device is what is attributed", attributed, value(e.Device))
	var shares float64
	for _, s := range now.Job.Shares {
		shares += float64(s.Energy)
		if s.Energy < 0 || float64(s.Energy) > component[s.Component]+microjoule || s.Method == "" {
			bad("share of %s: %v of %v J by %q", s.Component, s.Energy, component[s.Component], s.Method)
		}
	}
	same("the job is its shares", shares, value(now.Job.Energy))
	same("job and unattributed are what was drawn", value(now.Job.Energy)+value(now.Job.Unattributed), divided)
	if r.scope == tracker.Job {
		// The scope's totals are the most that was charged at any time.
		if r.policy == tracker.IdleProportional {
			same("device is the job's", value(e.Device), value(now.Job.Energy))
		} else if value(e.Device) < 0 {
			bad("device %v", value(e.Device))
		}
	} else {
		same("device is what was drawn", value(e.Device), drawn)
	}

	// node, unseen, facility, emissions
	n := now.Node
	if n.Energy != nil && n.Profile == nil && (n.Meter == nil || n.Meter.Energy == nil) {
		bad("node %v, which nothing tells", *n.Energy)
	}
	if n.Energy != nil {
		if !(*n.Low <= *n.Energy && *n.Energy <= *n.High) || !(n.Coverage >= 0 && n.Coverage <= 1) || n.Method == "" {
			bad("node %v of %v to %v, coverage %v, %q", *n.Energy, *n.Low, *n.High, n.Coverage, n.Method)
		}
		if drawn > 0 {
			same("residual", value(n.Residual), value(n.Energy)-drawn)
		}
		if now.Job.Energy != nil && drawn > 0 {
			if part := value(now.Job.Node); part < 0 || part > value(n.Energy)*(1+1e-9) {
				bad("the job has %v J of the node's %v J", part, value(n.Energy))
			}
		}
		if r.scope == tracker.Machine && !r.late {
			same("node of the machine", value(e.Node), value(n.Energy))
		}
		if value(e.Node) > value(n.Energy)*(1+1e-9) && !r.late {
			bad("the scope has %v J of the node's %v J", *e.Node, *n.Energy)
		}
	}
	plug := e.Node
	if plug == nil {
		plug = e.Device
	} else if e.Device != nil {
		same("unseen", value(e.Unseen), value(e.Node)-value(e.Device))
	}
	if (plug == nil) != (e.Facility == nil) || (plug == nil) != (now.Emissions == nil) {
		bad("plug %v, facility %v, emissions %v", plug, e.Facility, now.Emissions)
	}
	if plug != nil {
		same("facility", value(e.Facility), value(plug)*lawPUE)
		same("emissions", float64(now.Emissions.Operational), value(e.Facility)/3.6e6*lawIntensity)
		if g := now.Emissions; !(g.Low <= g.Operational && g.Operational <= g.High) {
			bad("%+v", g)
		}
	}
	for what, pair := range map[string]struct {
		in *tracker.Interval
		of *sensors.Joules
	}{"device": {now.Bounds.Device, e.Device}, "node": {now.Bounds.Node, e.Node}, "facility": {now.Bounds.Facility, e.Facility}} {
		if (pair.in == nil) != (pair.of == nil) || pair.in != nil && !(pair.in.Low <= *pair.of && *pair.of <= pair.in.High) {
			bad("%s: %v in %+v", what, value(pair.of), pair.in)
		}
	}
	r.checkGrowth(t, now, bad)
}

// checkGrowth holds a report and what is published against those before.
func (r *lawRun) checkGrowth(t *testing.T, now tracker.Report, bad func(string, ...any)) {
	policy := r.policy
	t.Helper()
	totals := func(r tracker.Report) map[string]*sensors.Joules {
		all := map[string]*sensors.Joules{
			"facility": r.Energy.Facility, "gpu": r.Energy.GPU, "cpu": r.Energy.CPU, "memory": r.Energy.Memory, "device": r.Energy.Device,
			"scope's node": r.Energy.Node, "node": r.Node.Energy,
		}
		if policy == tracker.IdleProportional { // the others' idle power becomes known in the run
			all["job"] = r.Job.Energy
		}
		for _, d := range r.Devices {
			all[d.ID], all["attributed "+d.ID] = d.Energy, d.Attributed
		}
		return all
	}
	before := totals(r.last)
	for name, v := range totals(now) {
		if value(v) < value(before[name]) || v == nil && before[name] != nil {
			bad("%s goes back from %v to %v J", name, value(before[name]), value(v))
		}
	}
	r.last = now
	got, _ := collect(t, r.reader)
	var facility float64
	for _, name := range []string{"hw.energy", "hw.host.energy", "wattspan.energy", "wattspan.emissions"} {
		for _, p := range got[name].points {
			key := p.attrs.Equivalent()
			if was := r.published[key]; p.value < was-1e-9 || math.IsNaN(p.value) || p.value < -1e-9 {
				bad("%s %v goes from %v to %v", name, p.attrs.ToSlice(), was, p.value)
			}
			r.published[key] = p.value
			if name == "wattspan.energy" {
				facility += p.value
			}
		}
	}
	if now.Energy.Facility != nil && facility < float64(*now.Energy.Facility)*(1-1e-9) {
		bad("wattspan.energy is %v, less than the facility's %v J", facility, *now.Energy.Facility)
	}
}

// checkEnd holds the final report against what the devices have really drawn, and
// what has happened to them.
func (p *plan) checkEnd(t *testing.T, r *lawRun, length time.Duration) {
	t.Helper()
	want, unsure := map[string]bool{}, map[string]bool{}
	near := func(id string, got, want, tolerance float64) {
		t.Helper()
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s: %s: %v J, want %v ± %v J", r.what, id, got, want, tolerance)
		}
	}
	covered := true
	for _, w := range r.all {
		for i, s := range w.scripts {
			k, d := w.told[i], device(t, r.last, s.ID)
			flag := func(kind tracker.FlagKind, is bool) {
				if is {
					want[string(kind)+" "+s.ID] = true
				}
			}
			flag(tracker.FlagDisagreement, k.doubted)
			flag(tracker.FlagMethod, k.degraded)
			if k.doubted && d.Energy != nil && float64(*d.High / *d.Energy) < 1.5 {
				t.Errorf("%s: %s is doubted, and in a narrow band: %v to %v J", r.what, s.ID, *d.Low, *d.High)
			}
			if s.Method != "" && s.Method != sensors.MethodCounter {
				// Half of what it changes by in a reading, or in the window of an average.
				var changes float64
				for j := range s.Curve[1:] {
					changes += math.Abs(float64(s.Curve[j+1].Power - s.Curve[j].Power))
				}
				near(s.ID, value(d.Energy), float64(s.Curve.Joules(length)), changes*(max(0.1, k.gap.Seconds())+s.Averaging.Seconds())/2+1)
				flag(tracker.FlagEstimated, k.gap > 3*w.Timing().MaxInterval)
				continue
			}
			covered = covered && k.observed > length*99/100
			if k.unsure {
				unsure[s.ID] = true
				continue
			}
			flag(tracker.FlagReset, k.resets > 0)
			flag(tracker.FlagBound, k.rejected > 0)
			flag(tracker.FlagLost, k.lost)
			seen := k.observed > 0 && k.observed >= s.Refresh
			flag(tracker.FlagCoverage, seen && k.observed.Seconds() < 0.99*length.Seconds())
			if seen != (d.Energy != nil) {
				t.Errorf("%s: %s has been seen for %v: %v", r.what, s.ID, k.observed, d.Energy)
				continue
			}
			if !seen {
				continue
			}
			near(s.ID, value(d.Energy), k.energy, float64(1+k.points)*microjoule*float64(max(s.Unit, 1)))
			if math.Abs(d.Coverage-k.observed.Seconds()/length.Seconds()) > 1e-6 {
				t.Errorf("%s: %s: coverage %v, want %v of %v", r.what, s.ID, d.Coverage, k.observed, length)
			}
			if d.Resets != k.resets || d.Rejected != k.rejected {
				t.Errorf("%s: %s: %d resets and %d rejected, want %d and %d", r.what, s.ID, d.Resets, d.Rejected, k.resets, k.rejected)
			}
		}
	}
	p.checkFlags(t, r, want, unsure)
	p.checkShares(t, r)
	p.checkNode(t, r, length, covered)
}

// checkShares holds what the job is charged with of the processors and the memory
// against the formula of docs/METHODOLOGY.md.
func (p *plan) checkShares(t *testing.T, r *lawRun) {
	t.Helper()
	for _, c := range []sensors.Component{sensors.CPU, sensors.Memory, sensors.GPU} {
		if !p.readable && c != sensors.GPU {
			continue
		}
		var least, most float64
		exact := true
		reserved := func(share float64, of sensors.Component) float64 {
			switch known := r.last.Job.Reserved; {
			case known != nil && known.CPU != nil && of == sensors.CPU:
				return *known.CPU
			case known != nil && known.Memory != nil && of == sensors.Memory:
				return *known.Memory
			}
			return share
		}
		for _, w := range r.all {
			for i, s := range w.scripts {
				if s.Component == c {
					exact = exact && s.Lost == nil && s.Garbage == nil && s.Resets == nil && s.Hang == nil && (s.Method == "" || s.Method == sensors.MethodCounter)
					low, high := p.charged(w.told[i].history, r.job, r.policy, &w.scripts[i].Device, reserved)
					least, most = least+low, most+high
				}
			}
		}
		for _, share := range r.last.Job.Shares {
			// A microjoule is lost in each window at most.
			if c == sensors.GPU && share.Component == c && share.Method != "visible_devices" {
				t.Errorf("%s: GPUs by %s", r.what, share.Method)
			}
			if got := float64(share.Energy); share.Component == c && exact && !(got >= least-0.01 && got <= most+0.01) {
				t.Errorf("%s: the job has %v J of the %s, want %v, and %v at most", r.what, got, c, least, most)
			}
		}
	}
}

// charged returns what a job is charged with of a device that was read so: by the
// formula, and the most that the formula has given in the course of the run, as a
// charge is not taken back when the idle power turns out to be another.
func (p *plan) charged(history []lawPoint, job int, policy tracker.Idle, d *sensors.Device, reserved func(float64, sensors.Component) float64) (least, most float64) {
	if len(history) == 0 {
		return 0, 0
	}
	c := d.Component
	idle, shared, excess := math.NaN(), 0., 0.
	begin := history[0]
	use, was := p.uses[0], p.uses[0].jobs[job]
	for i, now := range history[1:] {
		before := history[i]
		next, used := use, was
		for _, u := range p.uses {
			if u.at <= now.at {
				next = u
			}
		}
		if !next.broken {
			used = next.jobs[job]
		}
		s := p.part(d)
		switch d := used.CPU - was.CPU; {
		case c == sensors.CPU && d > 0:
			s = float64(d) / float64(max(next.busy-use.busy, d))
		case c == sensors.Memory:
			var held, inUse float64
			for _, end := range []struct {
				tracker.Usage
				gib int
			}{{was, use.gib}, {used, next.gib}} {
				if end.HasMemory {
					held, inUse = held+float64(end.Memory), inUse+float64(end.gib<<30)
				}
			}
			if held > 0 {
				s = held / inUse
			}
		}
		part := s
		switch policy {
		case tracker.IdleNone:
			part = 0
		case tracker.IdleWhole:
			part = 1
			if c == sensors.GPU && (s == 0 || len(d.Parts) > 0) {
				part = s // of one that it does not have, or not as a whole
			}
		case tracker.IdleReserved:
			part = reserved(s, c)
		}
		shared += (now.energy - before.energy) * s
		excess += (s - part) * (now.observed - before.observed).Seconds()
		if d := now.observed - begin.observed; d >= 10*time.Second {
			if power := (now.energy - begin.energy) / d.Seconds(); !(power >= idle) {
				idle = power
			}
			begin = now
		}
		least = shared
		if !math.IsNaN(idle) {
			least -= idle * excess
		}
		most = max(most, min(least, now.energy))
		use, was = next, used
	}
	return max(0, min(least, history[len(history)-1].energy)), most
}

// part is what the environment lets the job use of a GPU.
func (p *plan) part(d *sensors.Device) float64 {
	whole := 1.
	if len(d.Parts) > 0 {
		whole = d.Parts[0].Share // CUDA takes the first instance
	}
	switch {
	case d.Component != sensors.GPU:
	case slices.Contains(strings.Split(p.visible, ","), fmt.Sprint(d.Index)), p.visible == d.ID:
		return whole
	case strings.HasPrefix(p.visible, "MIG-") && len(d.Parts) > 0 && d.Parts[0].ID == p.visible:
		return whole
	}
	return 0
}

// checkFlags checks that a doubt is raised where there is cause for it, and nowhere
// else.
func (p *plan) checkFlags(t *testing.T, r *lawRun, want, unsure map[string]bool) {
	t.Helper()
	got := map[string]bool{}
	for _, f := range r.last.Quality {
		if key := string(f.Kind) + " " + f.Device; f.Device != "plug" {
			got[key] = true
			if !want[key] && !unsure[f.Device] {
				t.Errorf("%s: %s is doubted without cause: %s", r.what, key, f.Reason)
			}
		}
	}
	for key := range want {
		if !got[key] {
			t.Errorf("%s: no doubt %s in %+v", r.what, key, r.last.Quality)
		}
	}
}

// checkNode holds the node against what was drawn at the plug.
func (p *plan) checkNode(t *testing.T, r *lawRun, length time.Duration, covered bool) {
	t.Helper()
	n := r.last.Node
	modelled := p.profile != tracker.NodeNone && !drawsNothing(r.last)
	metered := n.Meter != nil && n.Meter.Energy != nil
	if (n.Energy != nil) != (modelled || metered) {
		t.Errorf("%s: node %v, of a meter: %v, by a model: %v", r.what, n.Energy, metered, modelled)
	}
	if n.Energy == nil {
		return
	}
	whole := n.Coverage >= 0.99
	wantMethod := ""
	switch {
	case !modelled && drawsNothing(r.last):
		wantMethod = n.Method
	case metered && (whole || !modelled):
		wantMethod = string(p.meterOf.Method)
	case metered:
		methods := []string{string(p.meterOf.Method), "model"}
		slices.Sort(methods)
		wantMethod = strings.Join(methods, ",")
	default:
		wantMethod = "model"
	}
	if n.Method != wantMethod {
		t.Errorf("%s: method of the node %q, want %q", r.what, n.Method, wantMethod)
	}
	// The profile is right about this machine, so that the model is, and a good meter.
	truth := float64(p.plug.Joules(length))
	good := !metered || p.gain == 1 && (p.meterOf.Method == sensors.MethodCounter)
	if good && !r.late && (covered && modelled || metered && whole) {
		if !(truth >= float64(*n.Low) && truth <= float64(*n.High)) {
			t.Errorf("%s: %v J at the plug are not in %v to %v", r.what, truth, *n.Low, *n.High)
		}
	}
	if metered && whole && p.meterOf.Method == sensors.MethodCounter {
		shown := truth * p.gain
		off := 0.01*shown + 1
		if r.late {
			// At most what was estimated while it was silent.
			off += p.most() * (p.every + p.pollFails.To - p.pollFails.From + 2*p.interval).Seconds()
		}
		if got := float64(*n.Energy); got < 0.99*shown-1 || got > shown+off {
			t.Errorf("%s: the node is %v J, and its meter shows %v J", r.what, got, shown)
		}
	}
	var below, unexplained bool
	for _, f := range r.last.Quality {
		below = below || f.Kind == tracker.FlagNodeBelowSum
		unexplained = unexplained || f.Kind == tracker.FlagUnexplained
	}
	rest := value(n.Residual) / float64(*n.Energy)
	sensed := float64(*n.Energy) - value(n.Residual)
	wantBelow := metered && n.Residual != nil && float64(*n.High) < sensed
	if metered && !whole {
		below = wantBelow // of a meter with gaps there is no saying
	}
	if wantUnexplained := metered && n.Residual != nil && rest > 0.6; below != wantBelow || unexplained != wantUnexplained {
		t.Errorf("%s: node_below_sum %v, unexplained %v, of which %v is in no component", r.what, below, unexplained, rest)
	}
}

// drawsNothing reports whether no component has a figure.
func drawsNothing(r tracker.Report) bool {
	return !slices.ContainsFunc(r.Devices, func(d tracker.Device) bool { return d.Energy != nil })
}

// most is the most that the machine can draw at its plug, in watts.
func (p *plan) most() float64 {
	sum := float64(p.base)
	for _, load := range p.plug.parts {
		highest := 0.
		for _, at := range load.(sensortest.Curve) {
			highest = max(highest, float64(at.Power))
		}
		sum += highest
	}
	return sum / p.eff * max(p.gain, 1)
}

// checkTogether holds the trackers of one machine against each other.
func (p *plan) checkTogether(t *testing.T, runs []*lawRun) {
	t.Helper()
	of := func(r *lawRun, c sensors.Component) float64 {
		for _, s := range r.last.Job.Shares {
			if s.Component == c {
				return float64(s.Energy)
			}
		}
		return 0
	}
	for _, c := range []sensors.Component{sensors.CPU, sensors.Memory, sensors.GPU} {
		none, proportional, whole, reserved := of(runs[0], c), of(runs[1], c), of(runs[2], c), of(runs[3], c)
		if !(none <= proportional && proportional <= whole) {
			t.Errorf("%s: %s: none %v, proportional %v, whole %v J", runs[0].what, c, none, proportional, whole)
		}
		if reserved > whole {
			t.Errorf("%s: %s: reserved %v, whole %v J", runs[0].what, c, reserved, whole)
		}
		if c == sensors.GPU {
			continue // all of them see the same
		}
		sum, machine := 0., 0.
		for _, r := range runs {
			if r.policy == tracker.IdleProportional {
				sum += of(r, c)
			}
		}
		for _, d := range runs[1].last.Devices {
			if d.Component == c {
				machine += value(d.Energy)
			}
		}
		if sum > machine+microjoule {
			t.Errorf("%s: %s: the jobs have %v of %v J", runs[0].what, c, sum, machine)
		}
	}
}

// crowded is a driver whose GPUs are used by the processes 1 to 4.
type crowded struct{ sensors.Sensor }

func (crowded) Processes(int) (all []sensors.ProcessUse, err error) {
	for pid := 1; pid <= 4; pid++ {
		all = append(all, sensors.ProcessUse{PID: pid, Busy: math.NaN()})
	}
	return all, nil
}

// among is a job of the processes 1 to 3.
type among struct{ lawJob }

func (*among) Owns(pid int) bool { return pid <= 3 }

// Of a GPU that others are on too, the job has its part of the load; of what it draws
// idle its part of the load, all of it, its part of the owners, or nothing. A process
// that is not the job's is an owner, so that there are two.
func TestIdleOfASharedGPU(t *testing.T) {
	if !host.InitialPIDNamespace() {
		t.Skip("process numbers here are not the driver's")
	}
	for policy, idle := range map[tracker.Idle]float64{
		tracker.IdleProportional: 0.75, tracker.IdleNone: 0, tracker.IdleWhole: 1, tracker.IdleReserved: 0.5,
	} {
		synctest.Test(t, func(t *testing.T) {
			// 100 W idle for 20 s, and 300 W for 10 s.
			want, curve := 0.75*200*10+idle*100*30, sensortest.Curve{{At: 0, Power: 100}, {At: 20 * time.Second, Power: 100}, {At: 20 * time.Second, Power: 300}}
			set := sensors.NewSet(crowded{sensortest.NewSensor(nil, slow, counter("GPU-0", sensors.GPU, curve))})
			tr := start(t, set, tracker.WithJob(new(among)), tracker.WithIdle(policy), tracker.WithInterval(10*time.Second))
			time.Sleep(30 * time.Second)
			r := stop(t, tr)
			near(t, string(policy), joules(t, r.Job.Energy), want, 1e-6)
			if r.Job.Method != "gpu_process_share" {
				t.Errorf("by %s", r.Job.Method)
			}
		})
	}
}

// Where another tracker reads the machine too seldom to be followed, this one reads it
// by itself, and leaves it to the other to publish the machine.
func TestBesideASlowTracker(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("trackers do not meet on Windows")
	}
	dir := t.TempDir()
	begin := func(id string, interval time.Duration) (*tracker.Tracker, *sdkmetric.ManualReader) {
		reader := sdkmetric.NewManualReader()
		tr, err := tracker.Start(t.Context(), tracker.WithRunID(id), tracker.WithInterval(interval), tracker.WithSharing(dir),
			tracker.WithDetection(sensors.WithBackends(sensors.Backend{Name: "scripted", Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
				return sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(10))), nil
			}})), tracker.WithMeterProvider(lasting{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}))
		if err != nil {
			t.Fatal(err)
		}
		return tr, reader
	}
	first, published := begin("slow", 20*time.Second)
	second, own := begin("fast", 100*time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	r := stop(t, second)
	if r.Run.ReadBy != "slow" || r.Scope != tracker.Job || value(device(t, r, "package-0").Energy) <= 0 {
		t.Errorf("read by %q, scope %s, %+v", r.Run.ReadBy, r.Scope, r.Devices)
	}
	if got, _ := collect(t, own); len(got["hw.energy"].points) != 0 {
		t.Errorf("hw.energy is published by both: %+v", got["hw.energy"].points)
	}
	if r := stop(t, first); r.Run.ReadBy != "" || r.Scope != tracker.Machine {
		t.Errorf("the first is read by %q, scope %s", r.Run.ReadBy, r.Scope)
	}
	if got, _ := collect(t, published); len(got["hw.energy"].points) != 1 {
		t.Errorf("hw.energy is published by none: %+v", got)
	}
}

// What the model says of a node speaks neither for nor against its meter: one that has
// never answered has disagreed with nobody.
func TestNoDoubtWithoutAMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := meterOf(sensortest.Constant(60))
		m.Lost = []sensortest.Span{{From: 0, To: time.Hour}}
		set := sensors.NewSet(sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(20)), m))
		tr := start(t, set, tracker.WithNodeProfile("server"))
		time.Sleep(10 * time.Second)
		r := stop(t, tr)
		if rest := value(r.Node.Residual) / value(r.Node.Energy); rest < 0.6 || slices.Contains(flagsOf(r), tracker.FlagUnexplained) {
			t.Errorf("%v of the model is in no component: %+v", rest, r.Quality)
		}
	})
}
