package tracker

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// shared is a driver that says whose processes are on its GPUs.
type shared struct {
	sensors.Sensor
	mu        sync.Mutex
	processes [][]sensors.ProcessUse
	err       error
	looks     int
}

func (s *shared) Processes(i int) ([]sensors.ProcessUse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return s.processes[i], s.err
}

func (s *shared) set(processes ...[]sensors.ProcessUse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = processes
}

// on are processes of which the driver does not say how busy they are.
func on(pids ...int) (processes []sensors.ProcessUse) {
	for _, pid := range pids {
		processes = append(processes, sensors.ProcessUse{PID: pid, Busy: math.NaN()})
	}
	return processes
}

// owner is a job of one process.
type owner int

func (owner) Read() (Usage, error) { return Usage{}, nil }
func (owner) Accounting() string   { return AccountingTree }
func (o owner) Owns(pid int) bool  { return pid == int(o) }

func gpu(i int) sensortest.Script {
	return sensortest.Script{
		Device: sensors.Device{ID: fmt.Sprintf("GPU-%d", i), Index: i, Component: sensors.GPU},
		Curve:  sensortest.Constant(100), MaxPower: 1050,
	}
}

// A job is charged for a GPU from when one of its processes is on it, and for the
// time since the last look before that; of the others for nothing.
func TestUsedGPUs(t *testing.T) {
	if !host.InitialPIDNamespace() {
		t.Skip("process numbers here are not the driver's")
	}
	synctest.Test(t, func(t *testing.T) {
		driver := &shared{Sensor: sensortest.NewSensor(nil, sensors.Timing{MayBlock: true}, gpu(0), gpu(1))}
		driver.set(on(7), nil)
		tr, s := &Tracker{blank: Report{Scope: Job}}, newSampler(sensors.NewSet(driver), true, time.Second)
		tr.sampler = s
		s.scope, s.job = Job, owner(42)
		s.rules = rules(s.devices, s.clocks, func(string) (string, bool) { return "", false })
		s.model.PUE.Value = 1
		s.start()
		time.Sleep(5500 * time.Millisecond)
		driver.set(on(7), on(42))
		if r := tr.Snapshot(); *r.Job.Energy != 0 || r.Job.Method != "used_devices" {
			t.Errorf("before it uses any: %v by %s", *r.Job.Energy, r.Job.Method)
		}
		time.Sleep(14500 * time.Millisecond)
		driver.set(on(7), nil) // it has ended, and with it its run
		s.stop(t.Context())
		r := tr.Snapshot()
		// Looks are at 0, 1, 3, 7 and 15 s: it was seen at 7 s, and not at 3.
		if got := *r.Devices[1].Attributed; got != 1700 {
			t.Errorf("charged with %v of 2 kJ, want what was drawn since 3 s", got)
		}
		if got := *r.Devices[0].Attributed; got != 0 || *r.Energy.GPU != 1700 {
			t.Errorf("charged with %v of a GPU of somebody else, and %v in all", got, *r.Energy.GPU)
		}
		if driver.looks > 10 {
			t.Errorf("%d questions to the driver in 20 s", driver.looks)
		}
	})
}

// Where the driver does not say, the job is charged for what it can see.
func TestUsedGPUsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		driver := &shared{Sensor: sensortest.NewSensor(nil, sensors.Timing{MayBlock: true}, gpu(0), gpu(1)), err: sensors.ErrUnsupported}
		driver.set(nil, nil)
		tr, s := &Tracker{blank: Report{Scope: Job}}, newSampler(sensors.NewSet(driver), true, time.Second)
		tr.sampler = s
		s.scope, s.job = Job, owner(42)
		s.rules = rules(s.devices, s.clocks, func(name string) (string, bool) { return "1", name == "CUDA_VISIBLE_DEVICES" })
		s.model.PUE.Value = 1
		s.start()
		time.Sleep(10 * time.Second)
		s.stop(t.Context())
		r := tr.Snapshot()
		if *r.Devices[0].Attributed != 0 || *r.Devices[1].Attributed != 1000 || r.Job.Method != "visible_devices" {
			t.Errorf("%v and %v by %s, want 0 and 1 kJ by visible_devices", *r.Devices[0].Attributed, *r.Devices[1].Attributed, r.Job.Method)
		}
	})
}

// crew is a job of several processes.
type crew []int

func (c crew) owns(pid int) bool { return slices.Contains(c, pid) }

// rota is a looker over one GPU, with the readings of a GPU of 100 W, on a clock
// that the test moves.
type rota struct {
	*shared
	*looker
	at time.Duration
}

func newRota(job crew, parts ...sensors.Part) *rota {
	script := gpu(0)
	script.Parts = parts
	driver := &shared{Sensor: sensortest.NewSensor(nil, sensors.Timing{MayBlock: true}, script), processes: make([][]sensors.ProcessUse, 1)}
	return &rota{shared: driver, looker: watch(driver, job.owns)}
}

// after lets time pass with a reading every second, and returns what is known.
func (r *rota) after(d time.Duration) use {
	for end := r.at + d; ; r.at += time.Second {
		energy := sensors.Microjoules(r.at.Seconds() * 100e6)
		r.look(time.Unix(0, 0).Add(r.at), []sensors.Reading{{Tally: sensors.Tally{Energy: energy}}})
		if r.at >= end {
			return r.uses[0]
		}
	}
}

func TestShares(t *testing.T) {
	busy := func(pid int, busy float64, part ...string) sensors.ProcessUse {
		p := sensors.ProcessUse{PID: pid, Busy: busy}
		if len(part) > 0 {
			p.Part = part[0]
		}
		return p
	}
	in := func(part string, pids ...int) (processes []sensors.ProcessUse) {
		for _, pid := range pids {
			processes = append(processes, busy(pid, math.NaN(), part))
		}
		return processes
	}
	// 1g, 2g and 3g of an A100: a slice belongs to nobody.
	a100 := []sensors.Part{{ID: "MIG-1g", Share: 1. / 7}, {ID: "MIG-2g", Share: 2. / 7}, {ID: "MIG-3g", Share: 3. / 7}}
	none := use{known: true, method: shareUsed}
	for _, test := range []struct {
		name      string
		parts     []sensors.Part
		processes []sensors.ProcessUse
		want      use
	}{
		{"nobody", nil, nil, none},
		{"others", nil, on(7, 8), none},
		{"the job alone", nil, on(42), use{used: true, share: 1, reserved: 1, method: shareUsed}},
		{"the job alone, with all its processes", nil, on(42, 43, 44), use{used: true, share: 1, reserved: 1, method: shareUsed}},
		{"alone and idle", nil, []sensors.ProcessUse{busy(42, 0)}, use{used: true, share: 1, reserved: 1, method: shareUsed}},
		{"two owners, of whom nothing is known", nil, on(42, 7), use{used: true, share: 0.5, reserved: 0.5, method: shareProcesses}},
		{"by the number of processes", nil, on(42, 43, 44, 7), use{used: true, share: 0.75, reserved: 0.5, method: shareProcesses}},
		{"busy processes", nil, []sensors.ProcessUse{busy(42, 0.3), busy(43, 0.3), busy(7, 0.2)},
			use{used: true, share: 0.75, reserved: 0.5, method: shareSM}},
		{"the others are busy", nil, []sensors.ProcessUse{busy(42, 0), busy(7, 0.2), busy(8, 0.7)},
			use{used: true, share: 0, reserved: 1. / 3, method: shareSM}},
		{"nobody is busy", nil, []sensors.ProcessUse{busy(42, 0), busy(7, 0)}, use{used: true, share: 0.5, reserved: 0.5, method: shareProcesses}},
		{"one is not known", nil, []sensors.ProcessUse{busy(42, 0.5), busy(7, math.NaN())},
			use{used: true, share: 0.5, reserved: 0.5, method: shareProcesses}},

		// CEEMS's documentation weighs an instance of 4 slices as one of 7.
		{"an instance of 4 slices", []sensors.Part{{ID: "MIG-4g", Share: 4. / 7}, {ID: "MIG-3g", Share: 3. / 7}}, in("MIG-4g", 42),
			use{used: true, share: 4. / 7, reserved: 4. / 7, method: shareMIG}},
		{"an instance, and others beside it", a100, slices.Concat(in("MIG-2g", 42), in("MIG-3g", 7), in("MIG-1g", 8, 9)),
			use{used: true, share: 2. / 7, reserved: 2. / 7, method: shareMIG}},
		{"two instances", a100, slices.Concat(in("MIG-2g", 42), in("MIG-3g", 43)),
			use{used: true, share: 5. / 7, reserved: 5. / 7, method: shareMIG}},
		{"one process in all instances leaves what none has", a100, slices.Concat(in("MIG-1g", 42), in("MIG-2g", 42), in("MIG-3g", 42)),
			use{used: true, share: 6. / 7, reserved: 6. / 7, method: shareMIG}},
		{"a part of an instance", a100, in("MIG-3g", 42, 43, 7, 8), use{used: true, share: 1.5 / 7, reserved: 1. / 7, method: shareMIG}},
		{"others in instances", a100, in("MIG-3g", 7, 8), none},
		{"an instance that is new, of another", a100, slices.Concat(in("MIG-3g", 42), in("MIG-new", 7)),
			use{used: true, share: 3. / 7, reserved: 3. / 7, method: shareMIG}},
		{"an instance that is new", a100, in("MIG-new", 42), use{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRota(crew{42, 43, 44}, test.parts...)
			r.set(test.processes)
			got, want := r.after(0), test.want
			want.known = test.want != use{}
			if math.Abs(got.share-want.share) > 1e-12 || math.Abs(got.reserved-want.reserved) > 1e-12 {
				t.Errorf("share %v and reserved %v, want %v and %v", got.share, got.reserved, want.share, want.reserved)
			}
			got.share, got.reserved, want.share, want.reserved = 0, 0, 0, 0
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// What all jobs on a GPU are charged with is no more than the GPU's.
func TestSharesAddUp(t *testing.T) {
	jobs := []crew{{1, 2, 3}, {4}, {5, 6}}
	for name, processes := range map[string][]sensors.ProcessUse{
		"by number": on(1, 2, 3, 4, 5, 6, 7),
		"by busy time": {{PID: 1, Busy: 0.1}, {PID: 2, Busy: 0}, {PID: 3, Busy: 0.2}, {PID: 4, Busy: 0.4}, {PID: 5, Busy: 0.1},
			{PID: 6, Busy: 0.1}, {PID: 7, Busy: 0.1}},
	} {
		var share, reserved, want float64 = 0, 0, 6. / 7
		if name == "by busy time" {
			want = 0.9
		}
		for _, job := range jobs {
			r := newRota(job)
			r.set(processes)
			u := r.after(0)
			share += u.share
			reserved += u.reserved
		}
		if math.Abs(share-want) > 1e-12 || reserved > 1 {
			t.Errorf("%s: shares add up to %v and reservations to %v", name, share, reserved)
		}
	}
}

// It goes on looking: others come and go beside the job.
func TestSharesChange(t *testing.T) {
	r := newRota(crew{42})
	r.set(on(42))
	if u := r.after(10 * time.Second); u.share != 1 {
		t.Fatalf("alone: %+v", u)
	}
	r.set(on(42, 7))
	if u := r.after(30 * time.Second); u.share != 0.5 || u.method != shareProcesses {
		t.Errorf("with another: %+v", u)
	}
	r.set(on(42))
	if u := r.after(30 * time.Second); u.share != 1 || u.method != shareUsed {
		t.Errorf("alone again: %+v", u)
	}
	// At 0, 1, 3, 7, 15 and 31 s, then every 30 s.
	if r.after(3600 * time.Second); r.looks < 120 || r.looks > 130 {
		t.Errorf("%d looks in an hour", r.looks)
	}
}

// A job whose processes are gone for two looks is charged no more; one that comes
// back is charged from the last look without it, and not again for what it was.
func TestJobLeavesGPU(t *testing.T) {
	r := newRota(crew{42})
	r.set(on(42))
	r.after(10 * time.Second) // looks at 0, 1, 3 and 7 s
	r.set(on(7))
	if u := r.after(10 * time.Second); !u.used || u.share != 1 {
		t.Errorf("missed once, at 15 s: %+v", u)
	}
	if u := r.after(15 * time.Second); u.used || u.share != 0 || !u.known || u.before != 3100e6 {
		t.Errorf("missed twice, at 31 s: %+v", u)
	}
	if u := r.after(30 * time.Second); u.before != 6100e6 {
		t.Errorf("the last look without it was at 61 s: %+v", u)
	}
	r.set(on(7, 42))
	if u := r.after(30 * time.Second); !u.used || u.before != 6100e6 {
		t.Errorf("back: %+v", u)
	}
	// Once is not enough again.
	r.set(on(7))
	if u := r.after(30 * time.Second); !u.used {
		t.Errorf("missed once more: %+v", u)
	}
	r.set(on(42))
	if u := r.after(30 * time.Second); !u.used || u.before != 6100e6 {
		t.Errorf("seen again: %+v", u)
	}
}

// A job that begins to use a GPU late is seen within 30 s.
func TestJobComesLate(t *testing.T) {
	r := newRota(crew{42})
	r.after(1000 * time.Second)
	last := r.uses[0].before
	r.set(on(42))
	if u := r.after(30 * time.Second); !u.used || u.before != last || u.before < 970*100e6 {
		t.Errorf("%+v", u)
	}
}

func TestLooksThatFail(t *testing.T) {
	r := newRota(crew{42})
	r.err = sensors.ErrTransient
	if u := r.after(5 * time.Second); u.known {
		t.Errorf("nothing is known: %+v", u)
	}
	// Another rule has charged the job until now.
	r.err = nil
	r.set(on(42))
	if u := r.after(5 * time.Second); !u.known || !u.used || u.before != 700e6 {
		t.Errorf("known at 7 s: %+v", u)
	}
	r.err = errors.New("any")
	if u := r.after(60 * time.Second); !u.known || u.share != 1 {
		t.Errorf("what was known stands: %+v", u)
	}
	r.err = sensors.ErrUnsupported
	if u := r.after(60 * time.Second); u != (use{}) {
		t.Errorf("nothing is known any more: %+v", u)
	}
}

// The driver speaks of processes by numbers that are not ours in a container: the
// visible devices stand in.
func TestNoLooker(t *testing.T) {
	driver := &shared{Sensor: sensortest.NewSensor(nil, sensors.Timing{MayBlock: true}, gpu(0))}
	if newLooker(driver, anonymous{}) != nil {
		t.Error("a job that does not know its processes")
	}
	if newLooker(driver.Sensor, owner(42)) != nil {
		t.Error("a sensor that knows of no processes")
	}
	if got := newLooker(driver, owner(42)); (got != nil) != host.InitialPIDNamespace() {
		t.Errorf("%v in the initial namespace: %v", got, host.InitialPIDNamespace())
	}
}

type anonymous struct{}

func (anonymous) Read() (Usage, error) { return Usage{}, nil }
func (anonymous) Accounting() string   { return AccountingProcess }
