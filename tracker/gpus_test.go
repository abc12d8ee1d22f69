package tracker

import (
	"fmt"
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
	processes [][]int
	err       error
	looks     int
}

func (s *shared) Processes(i int) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return s.processes[i], s.err
}

func (s *shared) set(processes ...[]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = processes
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
		driver.set([]int{7}, nil)
		tr, s := &Tracker{blank: Report{Scope: Job}}, newSampler(sensors.NewSet(driver), true, time.Second)
		tr.sampler = s
		s.scope, s.job = Job, owner(42)
		s.rules = rules(s.devices, s.clocks, func(string) (string, bool) { return "", false })
		s.model.PUE.Value = 1
		s.start()
		time.Sleep(5500 * time.Millisecond)
		driver.set([]int{7}, []int{8, 42})
		if r := tr.Snapshot(); *r.Job.Energy != 0 || r.Job.Method != "used_devices" {
			t.Errorf("before it uses any: %v by %s", *r.Job.Energy, r.Job.Method)
		}
		time.Sleep(14500 * time.Millisecond)
		driver.set([]int{7}, nil) // it has ended, and with it its run
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
