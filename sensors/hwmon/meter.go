package hwmon

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
)

const (
	// maxInterval is the longest time between two reads. The drivers of Intel
	// extend counters of 32 bits, as long as they are read before these go
	// round twice: after 4 minutes at 1 kW.
	maxInterval = 30 * time.Second
	// instantly is how often a power that is not averaged is read, or of which
	// the average is not known to be a long one.
	instantly = 100 * time.Millisecond
	// slack is what the time of a reading may be off by, and how old the value of
	// a counter can be.
	slack = 100 * time.Millisecond
)

// An energy counter has failed when it stood still for stuckTime, in which its
// device drew stuckEnergy or more: half a million of its units.
const (
	stuckTime   = 10 * time.Second
	stuckEnergy = sensors.Microjoules(10e6)
)

// asleepPower is the uncertainty of the 0 W that a sleeping device is taken for.
// PCI allows it 375 mA of the auxiliary 3.3 V.
const asleepPower sensors.Watts = 1

// Bounds of what a device draws. They are there to tell nonsense from energy: three
// times its limit, as limits are exceeded for moments and can be raised, but no
// less than leastBound. A limit above saneLimit is a firmware's way to say that
// there is none.
const (
	defaultBound sensors.Watts = 2500
	leastBound   sensors.Watts = 250
	saneLimit    sensors.Watts = 4000
	nodeBound    sensors.Watts = 100e3
)

// rail is a power: one file, or the product of two.
type rail struct {
	file *keptfile.File
	amps *keptfile.File // nil where file is the power already
	// scale is what one unit of the file, or of the product, is in watts.
	scale float64
}

const (
	microwatts = 1e-6
	milliwatts = 1e-3
	// A voltage in mV times a current in mA.
	millivoltMilliamps = 1e-6
)

// unknownPower is what drivers of ACPI make of the 2³²-1 mW by which a firmware
// says that it does not know.
const unknownPower = (1<<32 - 1) * 1000

var errUnknownPower = fmt.Errorf("the firmware does not know the power: %w", sensors.ErrTransient)

func (r rail) watts(at time.Time) (sensors.Watts, error) {
	// A current of a rail that is switched off is now and then less than 0, by
	// the error of the zero.
	n, err := r.file.Int(at)
	if err != nil {
		return 0, err
	}
	if n == unknownPower {
		return 0, errUnknownPower
	}
	product := float64(n)
	if r.amps != nil {
		amps, err := r.amps.Int(at)
		if err != nil {
			return 0, err
		}
		product *= float64(amps)
	}
	return sensors.Watts(max(product*r.scale, 0)), nil
}

// meter reads one device.
type meter struct {
	sensors.Device
	chip  chip
	bound sensors.Watts // what it can draw

	// energy is its counter, in µJ, nil where there is none; decode reads it where
	// it is not a plain number. zeroFails is set where the driver shows 0 when it
	// cannot read the counter.
	energy    *keptfile.File
	decode    func([]byte) (uint64, error)
	zeroFails bool
	// rails add up to its power. Beside a counter they check it.
	rails     []rail
	byPower   sensors.Method // how the rails would be integrated
	averaging time.Duration  // over which the hardware averages them; 0 for not, or not known

	status *keptfile.File // power/runtime_status, nil for a device that never sleeps
	busy   *keptfile.File // gpu_busy_percent, nil where there is none

	counter    sensors.Counter
	integrator sensors.Integrator
	check      sensors.CrossCheck
	counting   bool
	openings   int
	earlier    sensors.Tally // of what was used before, in another way or before it slept

	// What was drawn since the counter last moved, and the time it accounted for
	// until then.
	missed   sensors.Integrator
	raw      uint64
	moved    bool
	observed time.Duration

	asleep bool
	slept  time.Duration

	at    time.Time // of the last reading that counted
	last  sensors.Tally
	power sensors.Watts
	err   error
	doubt error // beside that of check

	// The last failure, kept so that one that lasts allocates nothing.
	cause, lasting error
}

// init makes the meter ready, once its files are named.
func (m *meter) init() {
	m.counting, m.power = m.energy != nil, nan
	m.check = sensors.CrossCheck{Name: "hwmon: " + m.ID, Averaging: m.averaging}
	if m.byPower == sensors.MethodPowerAverage && m.averaging == 0 {
		m.check.Averaging = time.Second // to be read once in that time is enough of an average
	}
	if m.bound <= 0 {
		m.bound = defaultBound
	}
	m.restart()
}

// restart begins to count anew, without what happened before.
func (m *meter) restart() {
	m.counter = sensors.Counter{Unit: 1, MaxPower: m.bound, Refresh: slack}
	m.integrator = m.newIntegrator()
	m.missed = m.newIntegrator()
	m.moved, m.observed = false, 0
}

func (m *meter) newIntegrator() sensors.Integrator {
	return sensors.Integrator{Period: m.every(), Averaging: m.averaging, MaxPower: m.bound}
}

// every is how often the rails want to be read.
func (m *meter) every() time.Duration {
	if m.averaging == 0 {
		return instantly
	}
	return min(max(m.averaging, instantly), time.Second)
}

// interval is how often the meter wants to be read.
func (m *meter) interval() time.Duration {
	if m.counting {
		return maxInterval
	}
	return m.every()
}

// probe reads the meter once, to know that it can be read.
func (m *meter) probe(at time.Time) error {
	if m.counting {
		_, err := m.count(at)
		return err
	}
	_, err := m.watts(at)
	return err
}

// powerBand is the error of a power, by how it is integrated.
func powerBand(method sensors.Method) float64 {
	if method == sensors.MethodPowerAverage {
		return 0.07
	}
	return 0.15
}

var errZero = fmt.Errorf("the driver could not read the counter: %w", sensors.ErrTransient)

// count reads the counter.
func (m *meter) count(at time.Time) (uint64, error) {
	if m.decode == nil {
		raw, err := m.energy.Uint(at)
		if err == nil && raw == 0 && m.zeroFails && m.raw > 0 {
			err = errZero
		}
		return raw, err
	}
	table, err := m.energy.Text(at)
	if err != nil {
		return 0, err
	}
	return m.decode(table)
}

// watts reads the rails, which are valid together or not at all.
func (m *meter) watts(at time.Time) (sensors.Watts, error) {
	var sum sensors.Watts
	for _, r := range m.rails {
		w, err := r.watts(at)
		if err != nil {
			return nan, err
		}
		sum += w
	}
	return sum, nil
}

// sleeps reports whether the device is in runtime suspend, or about to be. Reading
// this wakes nothing.
func (m *meter) sleeps(at time.Time) bool {
	if m.status == nil {
		return false
	}
	state, err := m.status.Text(at)
	if err != nil {
		return false
	}
	for len(state) > 0 && state[len(state)-1] == '\n' {
		state = state[:len(state)-1]
	}
	return string(state) == "suspended" || string(state) == "suspending"
}

// reading takes a reading.
func (m *meter) reading(now func() time.Time) sensors.Reading {
	r := sensors.Reading{Utilization: math.NaN()}
	if at := now(); m.sleeps(at) {
		m.rest(at)
		r.Utilization = 0
	} else {
		if m.asleep {
			m.wake()
		}
		m.measure(now)
		if m.err == nil && m.busy != nil {
			if percent, err := m.busy.Uint(at); err == nil && percent <= 100 {
				r.Utilization = float64(percent) / 100
			}
		}
	}
	if m.at.IsZero() {
		m.at = now()
	}
	m.last = m.tally()
	r.At, r.Tally, r.Power, r.Err, r.Doubt = m.at, m.last, m.power, m.err, m.doubt
	if r.Doubt == nil {
		r.Doubt = m.check.Doubt()
		if band := m.check.ErrorBand(); band > m.ErrorBand {
			r.ErrorBand = band
		}
	}
	if m.energy != nil && !m.counting {
		r.Method, r.ErrorBand = m.byPower, powerBand(m.byPower)
	}
	return r
}

// tally is all that was accumulated.
func (m *meter) tally() sensors.Tally {
	t := m.earlier
	if m.counting {
		t = t.Plus(m.counter.Tally())
	} else {
		t = t.Plus(m.integrator.Tally())
	}
	uncertain := float64(asleepPower) * m.slept.Seconds()
	t.Observed += m.slept
	t.Variance += uncertain * uncertain
	return t
}

// rest accounts for a device that sleeps.
func (m *meter) rest(at time.Time) {
	// What it did between two readings so far apart is not known.
	if dt := at.Sub(m.at); m.asleep && dt > 0 && dt <= sensors.MaxGap {
		m.slept += dt
	}
	m.asleep, m.at, m.err, m.power = true, at, nil, 0
}

// wake begins to count anew. A counter may have lost its supply with the rest of
// the device, and a driver that extends it then takes the restart for a wrap: up to
// 262 kJ that nobody drew.
func (m *meter) wake() {
	m.asleep = false
	if m.counting {
		m.earlier = m.earlier.Plus(m.counter.Tally())
	} else {
		m.earlier = m.earlier.Plus(m.integrator.Tally())
	}
	m.restart()
}

// measure reads the files.
func (m *meter) measure(now func() time.Time) {
	var raw uint64
	var err, powerErr error
	if m.counting {
		raw, err = m.count(now())
	}
	at := now()
	power := nan
	if len(m.rails) > 0 {
		power, powerErr = m.watts(at)
	}
	if n := m.opened(); n != m.openings {
		if m.openings > 0 { // it has just come back, and what it did meanwhile is not known
			m.counter.Rebase()
			m.integrator.Rebase()
			m.missed.Rebase()
		}
		m.openings = n
	}
	switch {
	case !m.counting && powerErr != nil:
		m.fail(powerErr)
	case !m.counting:
		m.integrator.Add(at, power)
		m.succeed(at, power)
	default:
		m.follow(at, raw, err, power)
	}
}

// follow takes a reading of the counter, or the reason why there is none, and of the
// power beside it, which may be unknown.
func (m *meter) follow(at time.Time, raw uint64, err error, power sensors.Watts) {
	before := m.counter.Tally()
	if err == nil {
		m.counter.Add(at, raw)
		if !m.moved || raw != m.raw {
			m.moved, m.raw, m.observed = true, raw, m.counter.Tally().Observed
			m.missed = m.newIntegrator()
		}
	}
	if !math.IsNaN(float64(power)) {
		m.missed.Add(at, power)
		if missed := m.missed.Tally(); m.moved && missed.Observed >= stuckTime && missed.Energy >= stuckEnergy {
			m.giveUp(missed)
			m.integrator.Add(at, power)
			m.succeed(at, power)
			return
		}
	}
	if err != nil {
		m.fail(err)
		return
	}
	now := m.counter.Tally()
	if len(m.rails) > 0 {
		m.check.Add(at, now, power)
	} else if dt := now.Observed - before.Observed; dt > 0 {
		power = sensors.Watts(float64((now.Energy - before.Energy).Joules()) / dt.Seconds())
	} else {
		power = m.power
	}
	m.succeed(at, power)
}

// giveUp goes on with the power in place of a counter that has failed.
func (m *meter) giveUp(missed sensors.Tally) {
	t := m.counter.Tally()
	t.Energy += missed.Energy
	t.Estimated += missed.Estimated
	t.Variance += missed.Variance
	t.Observed = max(t.Observed, m.observed+missed.Observed)
	m.earlier = m.earlier.Plus(t)
	m.counting = false
	m.integrator = m.newIntegrator()
	m.doubt = fmt.Errorf("hwmon: %s: %w: the energy counter stands still for %v while %s were drawn; its power is integrated instead",
		m.ID, sensors.ErrDisagreement, missed.Observed.Round(time.Second), missed.Energy.Joules())
}

func (m *meter) succeed(at time.Time, power sensors.Watts) {
	m.at, m.power, m.err = at, power, nil
}

// fail keeps a reason. One that lasts is made into an error once.
func (m *meter) fail(cause error) {
	if cause != m.cause {
		m.cause, m.lasting = cause, fmt.Errorf("hwmon: %s: %w", m.ID, cause)
	}
	m.err, m.power = m.lasting, nan
}

// opened is the number of times that the files were opened.
func (m *meter) opened() int {
	n := 0
	if m.energy != nil {
		n = m.energy.Openings()
	}
	for _, r := range m.rails {
		n += r.file.Openings()
	}
	return n
}

func (m *meter) files() []*keptfile.File {
	files := []*keptfile.File{m.energy, m.status, m.busy}
	for _, r := range m.rails {
		files = append(files, r.file, r.amps)
	}
	return files
}

func (m *meter) close() error {
	var errs []error
	for _, f := range m.files() {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// limit returns a bound of what a chip's device draws, by its limits.
func (c chip) limit() sensors.Watts {
	var limit sensors.Watts
	for _, name := range []string{
		"power1_cap_max", "power1_cap", "power1_rated_max", "power1_max", "power1_crit", "power2_rated_max", "power2_max",
	} {
		if w := sensors.Watts(float64(c.uint(name)) * microwatts); w <= saneLimit {
			limit = max(limit, w)
		}
	}
	if limit < 1 {
		return defaultBound
	}
	return max(3*limit, leastBound)
}
