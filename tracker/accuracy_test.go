package tracker

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// The study of docs/ACCURACY.md: what the sensors say of loads whose energy is
// known, through the counter, the integrator and the bands of the report. All its
// time is virtual, and all its chance has a seed.

var updateAccuracy = flag.Bool("update-accuracy", false, "write the tables of docs/ACCURACY.md anew; look at the difference before you commit it")

const (
	// casesPerCell is how many windows are measured of each kind of sensor, load
	// and length.
	casesPerCell = 100
	// tolerance bounds the error of a sensor's gain, which is uniform within it:
	// what nvml.h says of the power readings of Fermi and Kepler, and supposed of
	// the others.
	tolerance = 0.05
	// jitter is how early or late a reading can be, in parts of the interval.
	jitter = 0.05
	// register is how often a GPU updates what it shows.
	register = 100 * time.Millisecond
	// aimed is the share of cases that must lie within their band: that of k = 2.
	aimed = 0.95
)

// studyLoad is a load, long enough to begin a window anywhere in its first half.
type studyLoad struct {
	name  string
	trace *sensortest.Trace
	piece time.Duration // the mean time in which it changes and comes back
	// periodic is set where all pieces are alike, and can be in step with
	// readings for ever.
	periodic bool
}

// seldom reports whether the load changes less often than it is read.
func (l *studyLoad) seldom(every time.Duration) bool { return l.piece > 2*every }

const (
	traceLength   = 1500 * time.Second
	firstHalf     = 800 * time.Second
	low, high     = sensors.Watts(100), sensors.Watts(600)
	idle          = sensors.Watts(60)
	longestWindow = 600 * time.Second
)

// repeated is a load made of one piece after another: piece returns the curve of
// one, with its length as the time of its last point.
func repeated(name string, piece func() sensortest.Curve) studyLoad {
	var c sensortest.Curve
	pieces := 0
	for at := time.Duration(0); at < traceLength; pieces++ {
		p := piece()
		for _, point := range p {
			c = append(c, sensortest.Point{At: at + point.At, Power: point.Power})
		}
		at += p[len(p)-1].At
	}
	again := piece()
	return studyLoad{name, sensortest.NewTrace(c), traceLength / time.Duration(pieces), slices.Equal(again, c[:len(again)])}
}

// square is a period of work at the high power and rest at the low one.
func square(work, rest time.Duration) sensortest.Curve {
	return sensortest.Curve{{At: 0, Power: high}, {At: work, Power: high}, {At: work, Power: low}, {At: work + rest, Power: low}}
}

// parts returns a part of a time.
func parts(d time.Duration, part float64) time.Duration { return time.Duration(float64(d) * part) }

// squarePeriods are those of the square waves.
var squarePeriods = []time.Duration{
	100 * time.Millisecond, 330 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 20 * time.Second,
}

// studyLoads are the loads of the study.
func studyLoads() []studyLoad {
	rng := rand.New(rand.NewPCG(4, 1))
	var loads []studyLoad
	for _, duty := range []float64{0.5, 0.8} {
		for _, period := range squarePeriods {
			loads = append(loads, repeated(fmt.Sprintf("square %s, %.0f %%", inSeconds(period), duty*100), func() sensortest.Curve {
				return square(parts(period, duty), period-parts(period, duty))
			}))
		}
	}
	// Steps of training as they are: none is as long as the one before.
	for _, period := range squarePeriods {
		loads = append(loads, repeated(fmt.Sprintf("steps of %s ± 10 %%", inSeconds(period)), func() sensortest.Curve {
			p := parts(period, math.Max(1+0.1*rng.NormFloat64(), 0.5))
			return square(parts(p, 0.8), p-parts(p, 0.8))
		}))
	}
	burst := func(name string, pause, length time.Duration) studyLoad {
		return repeated(name, func() sensortest.Curve {
			p, l := parts(pause, rng.ExpFloat64()), parts(length, 0.5+rng.Float64())
			return sensortest.Curve{{At: 0, Power: idle}, {At: p, Power: idle}, {At: p, Power: high}, {At: p + l, Power: high}}
		})
	}
	return append(loads,
		repeated("ramp up and down in 10 s", func() sensortest.Curve {
			return sensortest.Curve{{At: 0, Power: low}, {At: 5 * time.Second, Power: high}, {At: 10 * time.Second, Power: low}}
		}),
		repeated("ramp up in 60 s, and off", func() sensortest.Curve {
			return sensortest.Curve{{At: 0, Power: low}, {At: time.Minute, Power: high}}
		}),
		repeated("training with a checkpoint of 3 s in 30 s", func() sensortest.Curve {
			return square(27*time.Second, 3*time.Second)
		}),
		burst("bursts of 0.1 s, 2 a second", 400*time.Millisecond, 100*time.Millisecond),
		burst("bursts of 0.3 s, 1 in 2 s", 1700*time.Millisecond, 300*time.Millisecond),
		burst("bursts of 2 s, 1 in 10 s", 8*time.Second, 2*time.Second),
		repeated("idle, 60 W ± 3 W", func() sensortest.Curve {
			w := idle + 3*sensors.Watts(2*rng.Float64()-1)
			return sensortest.Curve{{At: 0, Power: w}, {At: 50 * time.Millisecond, Power: w}}
		}),
		repeated("busy, 600 W ± 60 W", func() sensortest.Curve {
			w := high + 60*sensors.Watts(2*rng.Float64()-1)
			return sensortest.Curve{{At: 0, Power: w}, {At: 50 * time.Millisecond, Power: w}}
		}),
	)
}

// schedule returns the time of reading k of a window, since its begin.
type schedule func(rng *rand.Rand, k int, last time.Duration) time.Duration

// ticks are readings at an interval, each a little early or late.
func ticks(every time.Duration) schedule {
	return func(rng *rand.Rand, k int, _ time.Duration) time.Duration {
		return time.Duration(k)*every + parts(every, jitter*(2*rng.Float64()-1))
	}
}

// late are readings that a driver lets through now and then, 5 to 25 s apart.
func late(rng *rand.Rand, _ int, last time.Duration) time.Duration {
	return last + 5*time.Second + parts(20*time.Second, rng.Float64())
}

// readings calls read at the ends of a window, and between them by a schedule.
func (w *window) readings(next schedule, read func(at time.Duration)) {
	rng := rand.New(rand.NewPCG(w.seed, 0))
	read(w.from)
	for k, at := 1, time.Duration(0); ; k++ {
		if at = next(rng, k, at); at >= w.length {
			break
		}
		read(w.from + at)
	}
	read(w.from + w.length)
}

// studySensor is a kind of sensor, as its back-end describes and reads it.
type studySensor struct {
	name   string
	script sensortest.Script
	period time.Duration // at which the integrator expects readings; 0 for a counter
	next   schedule
}

func studySensors() []studySensor {
	gpu := func(m sensors.Method, band float64, refresh time.Duration) sensortest.Script {
		return sensortest.Script{
			Device: sensors.Device{Component: sensors.GPU, Method: m, ErrorBand: band, Refresh: refresh},
			Unit:   1000, MaxPower: 1050, Update: register,
		}
	}
	counter := gpu(sensors.MethodCounter, 0.05, register)
	partTime := gpu(sensors.MethodCounter, 0.12, register)
	partTime.Duty = 0.25
	average := gpu(sensors.MethodPowerAverage, 0.07, time.Second)
	average.Averaging = time.Second
	instant := gpu(sensors.MethodPower, 0.20, register)
	rapl := sensortest.Script{ // a range of which it reaches the end
		Device: sensors.Device{Component: sensors.CPU, Method: sensors.MethodCounter, ErrorBand: 0.05, Refresh: time.Millisecond},
		Start:  262143e6, Period: 262143328911, MaxPower: 1050, Update: time.Millisecond,
	}
	return []studySensor{
		{"counter, register of 100 ms", counter, 0, ticks(time.Second)},
		{"counter, fed by a sensor that looks 25 % of the time", partTime, 0, ticks(time.Second)},
		{"1 s average power, read every 1 s", average, time.Second, ticks(time.Second)},
		{"instantaneous power, read every 0.1 s", instant, register, ticks(register)},
		{"RAPL counter, register of 1 ms", rapl, 0, ticks(time.Second)},
	}
}

// lateSensor is an instantaneous power whose readings come too late.
func lateSensor() studySensor {
	s := studySensors()[3]
	return studySensor{"instantaneous power, readings 5 to 25 s apart", s.script, s.period, late}
}

var studyWindows = []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, longestWindow}

// window is a run: up to a second longer than its nominal length, as a run does
// not end at a tick, from a random moment of the load and of the sensor's own
// period.
type window struct {
	load         sensortest.Load // from 0, which is up to 2 s before the run
	from, length time.Duration
	gain         float64
	seed         uint64
}

// windows are the runs of one load and length, the same for all sensors.
func windows(load studyLoad, l, cases int, length time.Duration) []window {
	rng := rand.New(rand.NewPCG(uint64(l), uint64(length)))
	ws := make([]window, cases)
	for i := range ws {
		ws[i] = window{
			load:   later(load.trace, parts(firstHalf, rng.Float64())),
			from:   time.Second + parts(time.Second, rng.Float64()),
			length: length + parts(time.Second, rng.Float64()),
			gain:   1 + tolerance*(2*rng.Float64()-1),
			seed:   rng.Uint64(),
		}
	}
	return ws
}

func (w *window) truth() float64 {
	return float64(w.load.Joules(w.from+w.length) - w.load.Joules(w.from))
}

// shifted is a load that has begun before.
type shifted struct {
	sensortest.Load
	by     time.Duration
	before sensors.Joules
}

func later(l sensortest.Load, by time.Duration) shifted { return shifted{l, by, l.Joules(by)} }

func (s shifted) Power(t time.Duration) sensors.Watts   { return s.Load.Power(t + s.by) }
func (s shifted) Joules(t time.Duration) sensors.Joules { return s.Load.Joules(t+s.by) - s.before }

// errorsOf are the relative errors of a set of cases, and what was printed of
// them.
type errorsOf struct {
	relative []float64
	bands    []float64 // how far the high end is above the figure
	within   int
}

func (e *errorsOf) add(got, truth, rel float64) {
	e.relative = append(e.relative, math.Abs(got/truth-1))
	low, high := emissions.Bounds(got, rel)
	e.bands = append(e.bands, high/got-1)
	if low <= truth && truth <= high {
		e.within++
	}
}

func (e *errorsOf) plus(f *errorsOf) {
	e.relative = append(e.relative, f.relative...)
	e.bands = append(e.bands, f.bands...)
	e.within += f.within
}

func (e *errorsOf) rms() float64 {
	var sum float64
	for _, r := range e.relative {
		sum += r * r
	}
	return math.Sqrt(sum / float64(len(e.relative)))
}

func (e *errorsOf) share() float64 { return float64(e.within) / float64(len(e.relative)) }

// quantile returns the least of the values that a part of them does not exceed.
func quantile(values []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(int(math.Ceil(part*float64(len(sorted)))), 1)-1]
}

// measure is one window through a sensor: the energy and its error, as the report
// has them.
func (s *studySensor) measure(w *window) (energy, rel float64) {
	script := s.script
	script.Load, script.Gain = w.load, w.gain
	clock := sensortest.NewClock()
	sensor := sensortest.NewSensor(clock.Now, sensors.Timing{MaxInterval: s.period}, script)
	dst := make([]sensors.Reading, 1)
	w.readings(s.next, func(at time.Duration) {
		clock.Advance(at - sensor.Elapsed())
		sensor.Read(dst)
	})
	state := deviceState{Reading: dst[0]}
	return float64(state.Energy.Joules()), relativeError(sensor.Devices()[0], &state)
}

// poll is one window by a poll of an instantaneous power every 15 s: each reading
// times the time since the last, as CodeCarbon does where a device has no counter,
// and by trapezoids.
func (w *window) poll() (rectangles, trapezoids float64) {
	script := sensortest.Script{Load: w.load, Gain: w.gain, Update: register}
	var g sensors.Integrator
	last := w.from
	w.readings(ticks(15*time.Second), func(at time.Duration) {
		p := script.Watts(at)
		rectangles += float64(p) * (at - last).Seconds()
		g.Add(sensortest.NewClock().Now().Add(at), p)
		last = at
	})
	return rectangles, float64(g.Tally().Energy.Joules())
}

// cell is what was measured of one load in windows of one length.
type cell struct {
	load       studyLoad
	length     time.Duration
	sensors    []errorsOf
	late       errorsOf
	rectangles errorsOf
	trapezoids errorsOf
}

// study measures every cell by a number of cases.
func study(cases int) []cell {
	loads, kinds, behind := studyLoads(), studySensors(), lateSensor()
	cells := make([]cell, len(loads)*len(studyWindows))
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range cells {
		l := i / len(studyWindows)
		c := &cells[i]
		*c = cell{load: loads[l], length: studyWindows[i%len(studyWindows)], sensors: make([]errorsOf, len(kinds))}
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			for _, w := range windows(c.load, l, cases, c.length) {
				truth := w.truth()
				for k := range kinds {
					got, rel := kinds[k].measure(&w)
					c.sensors[k].add(got, truth, rel)
				}
				got, rel := behind.measure(&w)
				c.late.add(got, truth, rel)
				rectangles, trapezoids := w.poll()
				c.rectangles.add(rectangles, truth, 0)
				c.trapezoids.add(trapezoids, truth, 0)
			}
		})
	}
	wait.Wait()
	return cells
}

// pooled are the errors of all cells that are wanted.
func pooled(cells []cell, of func(*cell) *errorsOf, want func(*cell) bool) *errorsOf {
	var e errorsOf
	for i := range cells {
		if want == nil || want(&cells[i]) {
			e.plus(of(&cells[i]))
		}
	}
	return &e
}

func bySensor(k int) func(*cell) *errorsOf      { return func(c *cell) *errorsOf { return &c.sensors[k] } }
func ofLength(d time.Duration) func(*cell) bool { return func(c *cell) bool { return c.length == d } }
func ofLoad(name string) func(*cell) bool       { return func(c *cell) bool { return c.load.name == name } }
func byPoll(c *cell) *errorsOf                  { return &c.trapezoids }

// percent writes a part in percent, with two figures or one decimal.
func percent(part float64) string {
	if part*100 < 9.95 {
		return fmt.Sprintf("%.1f", part*100)
	}
	return fmt.Sprintf("%.0f", part*100)
}

// seconds writes a length of time.
func inSeconds(d time.Duration) string { return fmt.Sprintf("%g s", d.Seconds()) }

// excuses are the cells of which fewer cases than aimed lie within their band, and
// why. A cell that is not here must keep its band.
var excuses = []struct {
	sensor int
	load   string        // the beginning of its name
	most   time.Duration // the longest window
	why    string
}{
	{1, "square 0.1 s", longestWindow, "in step with the register"},
	{3, "square 0.1 s", longestWindow, "in step with the register"},
	{1, "steps of 0.1 s", 2 * time.Second, "nearly in step, for a short time"},
	{3, "steps of 0.1 s", 2 * time.Second, "nearly in step, for a short time"},
	{0, "", 2 * time.Second, "an end at several times the mean"},
	{1, "", 2 * time.Second, "an end at several times the mean"},
}

func excuse(sensor int, c *cell) string {
	for _, e := range excuses {
		if e.sensor == sensor && strings.HasPrefix(c.load.name, e.load) && c.length <= e.most {
			return e.why
		}
	}
	return ""
}

// tables are the blocks of docs/ACCURACY.md that the study writes, by name.
func tables(cells []cell) map[string]string {
	kinds := studySensors()
	blocks := map[string]string{}
	write := func(block, format string, args ...any) { blocks[block] += fmt.Sprintf(format+"\n", args...) }

	write("sensors", "| sensor | window | RMS error | 95 %% of cases below | printed, median | within the printed band |\n|---|---|---|---|---|---|")
	var all errorsOf
	row := func(name, window string, e *errorsOf) {
		write("sensors", "| %s | %s | %s %% | %s %% | +%s %% | %.1f %% |",
			name, window, percent(e.rms()), percent(quantile(e.relative, 0.95)), percent(quantile(e.bands, 0.5)), 100*e.share())
	}
	for k, kind := range kinds {
		for _, length := range studyWindows {
			row(kind.name, inSeconds(length), pooled(cells, bySensor(k), ofLength(length)))
		}
		row(kind.name, "all, but of loads in step", pooled(cells, bySensor(k), func(c *cell) bool { return !strings.HasPrefix(c.load.name, "square 0.1 s") }))
		e := pooled(cells, bySensor(k), nil)
		row("**"+kind.name+"**", "all", e)
		all.plus(e)
	}
	row("**all**", "all", &all)

	write("poll", "| poll every 15 s | window | RMS error | 95 %% of cases below |\n|---|---|---|---|")
	for _, rule := range []struct {
		name string
		of   func(*cell) *errorsOf
	}{
		{"reading × time since the last", func(c *cell) *errorsOf { return &c.rectangles }},
		{"trapezoids", byPoll},
	} {
		for _, length := range studyWindows {
			e := pooled(cells, rule.of, ofLength(length))
			write("poll", "| %s | %s | %s %% | %s %% |", rule.name, inSeconds(length), percent(e.rms()), percent(quantile(e.relative, 0.95)))
		}
	}

	write("loads", "| load | counter | part-time counter | 1 s average | instantaneous | RAPL | poll every 15 s |\n|---|---|---|---|---|---|---|")
	for i := 0; i < len(cells); i += len(studyWindows) {
		name := cells[i].load.name
		line := "| " + name
		for k := range kinds {
			line += " | " + percent(pooled(cells, bySensor(k), ofLoad(name)).rms()) + " %"
		}
		line += " | " + percent(pooled(cells, byPoll, ofLoad(name)).rms()) + " % |"
		write("loads", "%s", line)
	}

	write("outside", "| sensor | load | window | RMS error | within the printed band | why |\n|---|---|---|---|---|---|")
	for k, kind := range kinds {
		for i := range cells {
			c := &cells[i]
			if e := &c.sensors[k]; e.share() < aimed {
				write("outside", "| %s | %s | %s | %s %% | %.0f %% | %s |",
					kind.name, c.load.name, inSeconds(c.length), percent(e.rms()), 100*e.share(), excuse(k, c))
			}
		}
	}

	write("late", "| %s, window | RMS error | 95 %% of cases below | printed, median | within the printed band |\n|---|---|---|---|---|", lateSensor().name)
	for _, length := range studyWindows[2:] {
		e := pooled(cells, func(c *cell) *errorsOf { return &c.late }, ofLength(length))
		write("late", "| %s | %s %% | %s %% | +%s %% | %.1f %% |", inSeconds(length),
			percent(e.rms()), percent(quantile(e.relative, 0.95)), percent(quantile(e.bands, 0.5)), 100*e.share())
	}
	return blocks
}

// intervals are the times between two readings at which the same run is measured.
var intervals = []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, 30 * time.Second}

// atIntervals returns the energy of one run by every sensor, by the interval of its
// readings.
func atIntervals() [][]float64 {
	loads := studyLoads()
	l := slices.IndexFunc(loads, func(l studyLoad) bool { return strings.HasPrefix(l.name, "bursts of 0.3 s") })
	w := windows(loads[l], l, 1, longestWindow)[0]
	w.gain = 1
	energies := make([][]float64, len(intervals))
	for i, every := range intervals {
		for _, kind := range studySensors() {
			kind.next = ticks(every)
			e, _ := kind.measure(&w)
			energies[i] = append(energies[i], e)
		}
	}
	return append(energies, []float64{w.truth()})
}

// intervalTable compares the energies of one run.
func intervalTable(energies [][]float64) string {
	var b strings.Builder
	b.WriteString("| read every |")
	for _, kind := range studySensors() {
		name, _, _ := strings.Cut(kind.name, ", read")
		b.WriteString(" " + name + ", J |")
	}
	b.WriteString("\n|---|---|---|---|---|---|\n")
	for i, every := range intervals {
		fmt.Fprintf(&b, "| %s |", inSeconds(every))
		for _, e := range energies[i] {
			fmt.Fprintf(&b, " %.6f |", e)
		}
		b.WriteString("\n")
	}
	truth := energies[len(intervals)][0]
	fmt.Fprintf(&b, "| the truth |%s\n", strings.Repeat(fmt.Sprintf(" %.6f |", truth), len(energies[0])))
	return b.String()
}

// spreads measures, by the interval of the readings, the shares of runs whose
// energy lies within twice the standard deviation that the readings of a perfect
// sensor of instantaneous power give: by the variance of the integrator, and by that
// of a single step in each interval, which is a sixth of it.
func spreads(cases int) string {
	var b strings.Builder
	b.WriteString("| read every | loads that change | D²h²/12: within | D²h²/2: within | RMS error | D²h²/2 says |\n|---|---|---|---|---|---|\n")
	loads := studyLoads()
	for _, every := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second} {
		for _, seldom := range []bool{true, false} {
			var step, random, said errorsOf
			for l, load := range loads {
				if load.periodic || load.seldom(every) != seldom {
					continue
				}
				for _, length := range studyWindows {
					if length < 20*every {
						continue // too few readings to tell a spread
					}
					for _, w := range windows(load, l, cases, length) {
						var g sensors.Integrator
						w.readings(ticks(every), func(at time.Duration) {
							g.Add(sensortest.NewClock().Now().Add(at), w.load.Power(at))
						})
						got := float64(g.Tally().Energy.Joules())
						rel := math.Sqrt(g.Tally().Variance) / got
						const rounding = 1e-6 // of a run in which nothing changed
						random.add(got, w.truth(), rel+rounding)
						step.add(got, w.truth(), rel/math.Sqrt(6)+rounding)
						said.relative = append(said.relative, rel)
					}
				}
			}
			kind := "at least as often"
			if seldom {
				kind = "less often"
			}
			fmt.Fprintf(&b, "| %s | %s | %.0f %% | %.0f %% | %s %% | %s %% |\n", inSeconds(every), kind,
				100*step.share(), 100*random.share(), percent(random.rms()), percent(said.rms()))
		}
	}
	return b.String()
}

const accuracyPage = "../docs/ACCURACY.md"

// block returns the bounds of what stands on the page between the marks of a
// name.
func block(page, name string) (from, to int, found bool) {
	begin := "<!-- " + name + ": written by the command above -->\n"
	from = strings.Index(page, begin)
	if from < 0 {
		return 0, 0, false
	}
	from += len(begin)
	to = strings.Index(page[from:], "<!-- end -->")
	return from, from + to, to >= 0
}

// The tables of docs/ACCURACY.md are what the study gives, and the bands that
// reports print hold what they promise.
func TestAccuracy(t *testing.T) {
	cases := casesPerCell
	if raceEnabled {
		cases = 3 // the same code, for the detector
	}
	cells := study(cases)
	kinds := studySensors()
	var all errorsOf
	for k, kind := range kinds {
		e := pooled(cells, bySensor(k), nil)
		all.plus(e)
		if !raceEnabled && e.share() < aimed {
			t.Errorf("%s: %.1f %% of the cases lie within the printed band, want %.0f %%", kind.name, 100*e.share(), 100*aimed)
		}
		for i := range cells {
			c := &cells[i]
			if s := c.sensors[k].share(); !raceEnabled && s < aimed && excuse(k, c) == "" {
				t.Errorf("%s, %s, %v: %.0f %% lie within the printed band, and nothing says why", kind.name, c.load.name, c.length, 100*s)
			}
		}
		// A band that promises nothing is not true either.
		if wide := quantile(pooled(cells, bySensor(k), ofLength(time.Minute)).bands, 0.5); wide > 0.5 {
			t.Errorf("%s: the high end of a minute is %.0f %% above the figure", kind.name, 100*wide)
		}
		own, poll := pooled(cells, bySensor(k), nil).rms(), pooled(cells, byPoll, nil).rms()
		if own > poll/2 {
			t.Errorf("%s: RMS error %.3f, a poll every 15 s has %.3f", kind.name, own, poll)
		}
	}
	if all.share() < aimed {
		t.Errorf("%.1f %% of all cases lie within the printed band, want %.0f %%", 100*all.share(), 100*aimed)
	}
	if e := pooled(cells, func(c *cell) *errorsOf { return &c.late }, ofLength(longestWindow)); !raceEnabled && e.share() < aimed {
		t.Errorf("readings that come late: %.1f %% within the printed band", 100*e.share())
	}
	if raceEnabled || runtime.GOARCH != "amd64" {
		return // other processors round otherwise, in the last figure
	}

	blocks := tables(cells)
	blocks["intervals"] = intervalTable(atIntervals())
	blocks["spreads"] = spreads(casesPerCell)
	raw, err := os.ReadFile(accuracyPage)
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(raw), "\r\n", "\n")
	written := page
	for name, want := range blocks {
		from, to, found := block(written, name)
		if !found {
			t.Errorf("docs/ACCURACY.md has no place for the table %q", name)
			continue
		}
		if written[from:to] != want && !*updateAccuracy {
			t.Errorf("docs/ACCURACY.md, table %q: the study gives\n%s\nwrite it with: go test ./tracker -run TestAccuracy -update-accuracy", name, want)
		}
		written = written[:from] + want + written[to:]
	}
	if *updateAccuracy && written != page {
		if err := os.WriteFile(accuracyPage, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A counter gives the same energy, to the microjoule, however often it is read.
func TestCountersDoNotDependOnTheInterval(t *testing.T) {
	energies := atIntervals()
	for k, kind := range studySensors() {
		for i := range intervals {
			off := math.Abs(energies[i][k] - energies[0][k])
			switch counter := kind.script.Method == sensors.MethodCounter; {
			case counter && off > 1e-6:
				t.Errorf("%s: %v J read every %v, %v J every %v", kind.name, energies[i][k], intervals[i], energies[0][k], intervals[0])
			case !counter && i == len(intervals)-1 && off < 1:
				t.Errorf("%s: the interval makes no difference to a power: the load of this test shows nothing", kind.name)
			}
		}
	}
}
