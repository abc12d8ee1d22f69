// Package command makes a meter of the whole machine out of any program that
// prints a power or an energy, or of a file that holds one: for a PDU, a smart
// plug, a UPS, or a management controller that no other package knows.
//
// # Basics
//
// The user names the program or the file; nothing is looked for. It is asked
// every 5 seconds. [Parse] says what is understood: the first line that has a
// number with a unit of power or energy, or else a number alone. An energy is
// taken for a counter that only grows, a power is integrated. The answer of a
// device that speaks JSON is understood with the key of the number in it:
//
//	sensors.Detect(ctx, sensors.WithBackend(command.Backend(command.Config{
//		Shell: "curl -s http://plug.lan/rpc/Switch.GetStatus?id=0", Key: "apower",
//	})))
//
// The figure is one device of component node, whose ID is "node". The program is
// asked as long as the sensor is open, and sees an empty standard input, the
// environment of this process with LC_ALL=C, and no terminal.
//
// A file is read anew each time, and must have been written in the last 30
// seconds: write it in one go, and by a rename if you can. Files of /sys and /proc
// have no such time. A FIFO is held open, and the last whole line in it counts.
//
// # Caveats
//
// Needs /bin/sh, other than on Windows. A program that has not ended when it is
// to be asked again is killed with everything it started, unless that left its
// session or belongs to another user, as with sudo. A program that itself draws
// power costs what it costs: 5 ms of CPU every 5 seconds for a small one.
//
// A process that waits for all its children, as one does that takes care of
// orphans, takes the program's end away from this package. It is prepared for
// that, and [Reaped] and [Children] tell such a process what is not its own.
//
// Errors quote the beginning of what a program printed, and reports name the
// program, without its arguments: those may hold a password.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

const (
	every = 5 * time.Second
	band  = 0.05
	// stale is how old a value may be. Across a longer time without one, no
	// power is integrated.
	stale = sensors.MaxGap
	// probes is how often a source is asked at first, and pause the time between:
	// a file may be about to be written.
	probes = 3
	pause  = 100 * time.Millisecond
	// leastPower is what a machine draws at least. It says how long a counter
	// needs for one of its steps.
	leastPower = 100
)

// Config says what to ask.
type Config struct {
	// Argv is the program and its arguments.
	Argv []string
	// Shell is a line for /bin/sh (cmd on Windows), where Argv is empty.
	Shell string
	// File is a file or FIFO to read, where there is no program.
	File string
	// Key is the path of the number in an answer that is JSON, with dots and
	// indices: "StatusSNS.ENERGY.Power", "meters.0.power".
	Key string
	// Unit is that of a number which has none: "kWh"; empty is "W".
	Unit string
	// Every is the time between two questions, after which the program is
	// killed; 0 means 5 s.
	Every time.Duration
}

// staleness is how old what a meter says is taken to be: plugs and PDUs update
// their figures about once a second.
const staleness = time.Second

// Supports is what the package reads.
var Supports = []sensors.Support{
	{
		Hardware: "PDU, smart plug or other meter that a program of yours reads", Source: "the output of the program",
		Component: sensors.Node, Unit: "W", Method: sensors.MethodPower, ErrorBand: band,
		Privileges: "those of the program", Tested: "simulated",
	},
	{
		Hardware: "meter with an energy counter that a program of yours reads", Source: "the output of the program",
		Component: sensors.Node, Unit: "kWh, Wh, J", Method: sensors.MethodCounter, ErrorBand: band,
		Privileges: "those of the program", Tested: "simulated",
	},
	{
		Hardware: "meter whose power another program writes into a file", Source: "the file or FIFO",
		Component: sensors.Node, Unit: "W", Method: sensors.MethodPower, ErrorBand: band,
		Privileges: "who may read the file", Tested: "simulated",
	},
	{
		Hardware: "meter whose energy another program writes into a file", Source: "the file or FIFO",
		Component: sensors.Node, Unit: "kWh, Wh, J", Method: sensors.MethodCounter, ErrorBand: band,
		Privileges: "who may read the file", Tested: "simulated",
	},
}

// Backend returns the back-end that asks as c says, for [sensors.WithBackend].
func Backend(c Config) sensors.Backend {
	return sensors.Backend{
		Name: c.kind(), Component: sensors.Node, Supports: Supports,
		Open: func(ctx context.Context, _ sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			return c.open(ctx, c.every(), time.Now)
		},
	}
}

// FileBackend returns the back-end that reads a power or energy from a file or a
// FIFO.
func FileBackend(path string) sensors.Backend { return Backend(Config{File: path}) }

func (c Config) kind() string {
	if c.File != "" {
		return "file"
	}
	return "command"
}

func (c Config) every() time.Duration { return cmp.Or(c.Every, every) }

// origin names the source, without what may be secret.
func (c Config) origin() string {
	switch {
	case c.File != "":
		return "file " + c.File
	case len(c.Argv) > 0:
		return "command " + filepath.Base(c.Argv[0])
	}
	for _, word := range strings.Fields(c.Shell) {
		if !strings.Contains(word, "=") { // an assignment before the program
			return "command " + filepath.Base(strings.Trim(word, `"'()`))
		}
	}
	return "command"
}

// reader is where text comes from.
type reader interface {
	read(ctx context.Context) (string, error)
	close() error
}

func (c Config) reader(now func() time.Time) (reader, error) {
	switch {
	case c.File != "":
		return &file{path: c.File, now: now}, nil
	case len(c.Argv) > 0 && c.Argv[0] != "":
		return &program{argv: c.Argv}, nil
	case len(c.Argv) == 0 && strings.TrimSpace(c.Shell) != "":
		return &program{argv: shell(c.Shell)}, nil
	}
	return nil, fmt.Errorf("%w: no program is named", sensors.ErrUnsupported)
}

// open asks once, to know what is told, and goes on every interval; 0 leaves
// that to Poll.
func (c Config) open(ctx context.Context, interval time.Duration, now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	m := &meter{config: c}
	q, err := m.start(ctx, now)
	if err != nil {
		_ = m.close()
		return nil, []sensors.Omission{c.omission(err)}
	}
	d := sensors.Device{
		ID: "node", Name: "the machine, by " + c.origin(), Component: sensors.Node,
		Method: sensors.MethodPower, Scope: sensors.ScopeNode,
		Source: c.origin(), ErrorBand: band, Refresh: staleness, Declared: true,
	}
	if q.Counter {
		d.Method = sensors.MethodCounter
		d.Refresh = max(d.Refresh, time.Duration(float64(q.Step.Joules())/leastPower*float64(time.Second)))
		if q.Step.Joules() >= 1 {
			d.Note = fmt.Sprintf("counts in steps of %v", q.Step.Joules())
		}
	}
	m.counter, m.first = q.Counter, &q
	polled, _ := sensors.NewPolled(ctx, sensors.Polling{
		Devices: []sensors.Device{d}, Every: interval, Timeout: c.every(),
		Unit: 1, MaxPower: maxPower, Now: now, Poll: m.poll,
	})
	return &sensor{polled, m}, nil
}

// omission says why there is no meter. It is one that the user asked for.
func (c Config) omission(err error) sensors.Omission {
	o := sensors.Omission{
		Source: c.kind(), Component: sensors.Node, Status: sensors.Unreadable,
		Reason: fmt.Sprintf("the meter of the machine (%s) cannot be read: %v", c.origin(), err),
		Err:    fmt.Errorf("%s: %w", c.kind(), err),
	}
	switch {
	case c.File != "":
		o.Remedy = "compare: cat " + c.File
	default:
		o.Remedy = `run the command by hand: it must end within ` + c.every().String() + ` and print a line like "123.4 W"`
	}
	return o
}

// sensor is the polled device, which is closed with it.
type sensor struct {
	*sensors.Polled
	meter *meter
}

// Close implements sensors.Sensor.
func (s *sensor) Close() error { return errors.Join(s.Polled.Close(), s.meter.close()) }

// meter makes values of text.
type meter struct {
	config  Config
	reader  reader
	counter bool
	first   *Quantity // what the probe brought, for the first poll
}

// start asks the source until it says something, a few times.
func (m *meter) start(ctx context.Context, now func() time.Time) (q Quantity, err error) {
	if m.reader, err = m.config.reader(now); err != nil {
		return q, err
	}
	for i := range probes {
		if i > 0 {
			select {
			case <-ctx.Done():
				return q, fmt.Errorf("%w: %w", err, ctx.Err())
			case <-time.After(pause):
			}
		}
		asking, cancel := context.WithTimeout(ctx, m.config.every())
		q, err = m.ask(asking)
		cancel()
		if err == nil || !errors.Is(err, errEmpty) {
			return q, err
		}
	}
	return q, err
}

func (m *meter) ask(ctx context.Context) (Quantity, error) {
	text, err := m.reader.read(ctx)
	if err != nil {
		return Quantity{}, err
	}
	q, err := m.config.parse(text)
	if err == nil && !q.Counter && q.Power == 0 {
		// Unavailable is not zero: what runs this draws something.
		err = fmt.Errorf("%w: it says 0 W, and no running machine draws that", sensors.ErrTransient)
	}
	return q, err
}

func (c Config) parse(text string) (Quantity, error) {
	if c.Key != "" {
		return ParseJSON(text, c.Key, c.Unit)
	}
	return parse(text, c.Unit)
}

func (m *meter) poll(ctx context.Context, values []sensors.Value) {
	var q Quantity
	var err error
	if m.first != nil {
		q, m.first = *m.first, nil
	} else {
		q, err = m.ask(ctx)
	}
	if err == nil && q.Counter != m.counter {
		err = fmt.Errorf("%w: it told a power at one time and an energy at another", sensors.ErrTransient)
	}
	if err != nil {
		values[0] = sensors.Value{Err: fmt.Errorf("%s: %w", m.config.origin(), err)}
		return
	}
	values[0] = sensors.Value{Power: q.Power, Raw: uint64(q.Energy)}
}

func (m *meter) close() error {
	if m.reader == nil {
		return nil
	}
	return m.reader.close()
}
