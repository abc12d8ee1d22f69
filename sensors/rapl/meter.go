package rapl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/internal/keptfile"
)

// refresh is how often the hardware updates its counters.
const refresh = time.Millisecond

// slack is what the time of a reading may be off by: a goroutine can lose its
// processor between the reading and the clock.
const slack = 100 * time.Millisecond

// A counter that was lost is looked for again after a second, and then ever less
// often.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// file is an energy_uj that is kept open.
type file = keptfile.Handle

// register is an open counter: a zone's or a perf event's.
type register interface {
	// sample returns the energy in µJ, from wherever the counter starts.
	sample() (uint64, error)
	Close() error
}

// meter follows the counter of one domain.
type meter struct {
	domain
	open    func() (register, error)
	file    register // nil while the counter is lost
	counter sensors.Counter

	at  time.Time // of the last reading that counted
	raw uint64
	err error // why the last reading failed

	retryAt time.Time
	retryIn time.Duration
}

// newMeter opens the counter of a zone and reads it once, to know that it can be
// read.
func newMeter(d domain, openFile func(string) (file, error)) (*meter, error) {
	m := &meter{domain: d, open: func() (register, error) {
		f, err := openFile(filepath.Join(d.path, "energy_uj"))
		if err != nil {
			return nil, err
		}
		if err := d.renamed(); err != nil {
			_ = f.Close()
			return nil, err
		}
		return &energyFile{file: f}, nil
	}}
	if err := m.start(); err != nil {
		return nil, err
	}
	// Without a period the counter takes a decrease for a restart from 0.
	period, _ := d.period()
	m.counter = sensors.Counter{Unit: 1, Period: period, MaxPower: d.maxPower(), Refresh: slack}
	return m, nil
}

// start opens the counter and reads it once.
func (m *meter) start() error {
	f, err := m.open()
	if err != nil {
		return m.fault(err)
	}
	m.file = f
	if _, err := f.sample(); err != nil {
		_ = m.close()
		return m.fault(err)
	}
	return nil
}

// interval returns the longest time between two reads in which the counter
// cannot go round, even at three times the power that the processor is allowed.
func (m *meter) interval() time.Duration {
	if m.counter.Period == 0 {
		return maxInterval
	}
	wrap := float64(m.counter.Period) / 1e6 / float64(m.counter.MaxPower)
	return time.Duration(min(max(wrap, 1), maxInterval.Seconds()) * float64(time.Second))
}

// read takes a reading, or sets err.
func (m *meter) read(now func() time.Time) {
	if m.file == nil && !m.reopen(now()) {
		return
	}
	raw, err := m.file.sample()
	at := now()
	if err == nil {
		m.raw, m.at, m.err, m.retryIn = raw, at, nil, 0
		m.counter.Add(at, raw)
		return
	}
	if err == errEmpty {
		// The kernel never shows an empty file: it is no longer the zone's.
		if f, again := m.open(); again != nil {
			err = again
		} else {
			_ = m.close()
			m.file = f
		}
	}
	m.err = m.fault(err)
	if m.lost() {
		_ = m.close()
		m.postpone(at)
	}
}

// energyFile is the counter of a zone.
type energyFile struct {
	file
	buf [32]byte // a field, as it would escape to the heap
}

func (f *energyFile) sample() (uint64, error) {
	n, err := f.Pread(f.buf[:])
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errEmpty
	}
	raw, ok := parseEnergy(f.buf[:n])
	if !ok {
		return 0, fmt.Errorf("energy_uj holds %q, not a number", f.buf[:n])
	}
	return raw, nil
}

var errEmpty = errors.New("energy_uj is empty")

// lost reports whether the kept file is of no more use.
func (m *meter) lost() bool {
	return errors.Is(m.err, sensors.ErrLost) || errors.Is(m.err, sensors.ErrPermission)
}

// reopen looks for a lost counter, when it is time to.
func (m *meter) reopen(at time.Time) bool {
	if at.Before(m.retryAt) {
		return false
	}
	f, err := m.open()
	if err != nil {
		m.err = m.fault(err)
		m.postpone(at)
		return false
	}
	m.file = f
	// What the counter did meanwhile is not known.
	m.counter.Rebase()
	return true
}

// renamed returns an error if the directory has become another zone: a driver
// that is loaded again numbers its zones anew.
func (z *zone) renamed() error {
	for ; z != nil; z = z.parent {
		switch name, err := readName(z.path); {
		case z.err != nil: // it had no name to begin with
		case err != nil:
			return err
		case name != z.name:
			return fmt.Errorf("%s is now %q: %w", z.path, name, fs.ErrNotExist)
		}
	}
	return nil
}

func (m *meter) postpone(at time.Time) {
	m.retryIn = min(max(2*m.retryIn, firstRetry), lastRetry)
	m.retryAt = at.Add(m.retryIn)
}

// fault gives an error the zone's name and the sentinel that says what can be
// done about it.
func (m *meter) fault(err error) error {
	return fmt.Errorf("rapl: %s: %w: %w", m.path, sentinel(err), err)
}

func sentinel(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return sensors.ErrPermission
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, io.EOF), errors.Is(err, syscall.ENODEV),
		errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.EIO):
		return sensors.ErrLost
	case errors.Is(err, errors.ErrUnsupported):
		return sensors.ErrUnsupported
	default:
		return sensors.ErrTransient
	}
}

func (m *meter) close() error {
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file = nil
	return err
}

// parseEnergy reads a decimal number that only white space follows. It is
// strconv.ParseUint without the string, and so without the allocation.
func parseEnergy(text []byte) (uint64, bool) {
	var n uint64
	digits := 0
	for ; digits < len(text) && '0' <= text[digits] && text[digits] <= '9'; digits++ {
		d := uint64(text[digits] - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = 10*n + d
	}
	for _, c := range text[digits:] {
		if c != '\n' && c != ' ' {
			return 0, false
		}
	}
	return n, digits > 0
}
