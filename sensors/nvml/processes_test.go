package nvml

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// asker asks a sensor of one GPU for its processes, over the scripted driver or
// over the real go-nvml.
type asker struct {
	sensor *sensor
	move   func(time.Duration)
}

// wants compares the answer, as "PID busy" or "PID busy part" of each process; a
// busy of ? is not known.
func (a *asker) wants(t *testing.T, want string) {
	t.Helper()
	uses, err := a.sensor.Processes(0)
	var got []string
	for _, u := range uses {
		busy := "?"
		if !math.IsNaN(u.Busy) {
			busy = fmt.Sprintf("%.3g", u.Busy)
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%d %s %s", u.PID, busy, u.Part)))
	}
	if got := strings.Join(got, " "); err != nil || got != want {
		t.Errorf("processes %q, %v; want %q", got, err, want)
	}
}

func span(from, to int) sensortest.Span {
	return sensortest.Span{From: time.Duration(from) * time.Second, To: time.Duration(to) * time.Second}
}

func with(processes ...sensortest.GPUProcess) func() sensortest.GPU {
	return func() sensortest.GPU {
		g := card(sensortest.Constant(100))
		g.Processes = processes
		return g
	}
}

// processTests are run over both drivers.
var processTests = map[string]struct {
	gpu   func() sensortest.GPU
	check func(t *testing.T, a *asker)
}{
	"nobody": {with(), func(t *testing.T, a *asker) { a.wants(t, "") }},

	"one process is not asked how busy it is": {
		with(sensortest.GPUProcess{PID: 1, SM: 0.5}),
		func(t *testing.T, a *asker) { a.move(5 * time.Second); a.wants(t, "1 ?") },
	},

	"processes come and go": {
		with(sensortest.GPUProcess{PID: 1, During: span(0, 10)}, sensortest.GPUProcess{PID: 2, During: span(5, 0)}),
		func(t *testing.T, a *asker) {
			a.wants(t, "1 ?")
			a.move(5 * time.Second)
			a.wants(t, "1 0 2 0")
			a.move(5 * time.Second)
			a.wants(t, "2 ?")
		},
	},

	"all kinds of contexts, each process once": {
		with(sensortest.GPUProcess{PID: 1, SM: 0.25}, sensortest.GPUProcess{PID: 3, Kind: sensortest.GraphicsContext, SM: 0.5},
			sensortest.GPUProcess{PID: 2, Kind: sensortest.MPSContext}, sensortest.GPUProcess{PID: 1, Kind: sensortest.GraphicsContext}),
		func(t *testing.T, a *asker) { a.move(time.Second); a.wants(t, "1 0.25 2 0 3 0.5") },
	},

	// The server of MPS is nobody's, or one client's; what it does is its clients'.
	"the server of MPS": {
		with(sensortest.GPUProcess{PID: 1, Name: "/usr/bin/nvidia-cuda-mps-server"},
			sensortest.GPUProcess{PID: 2, Kind: sensortest.MPSContext, SM: 0.5, Name: "python"},
			sensortest.GPUProcess{PID: 3, Kind: sensortest.MPSContext, SM: 0.25, Name: "python", During: span(0, 10)},
			sensortest.GPUProcess{PID: 4, Name: "not-nvidia-cuda-mps-server"}),
		func(t *testing.T, a *asker) {
			a.move(time.Second)
			a.wants(t, "2 0.5 3 0.25 4 0")
		},
	},
	"a server of MPS without clients": {
		with(sensortest.GPUProcess{PID: 1, Name: "nvidia-cuda-mps-server"}),
		func(t *testing.T, a *asker) { a.wants(t, "1 ?") },
	},

	// Alumet passes seconds to a function that takes microseconds: what was long
	// ago is counted again with every question.
	"busy since the last question": {
		with(sensortest.GPUProcess{PID: 1, SM: 0.8, During: span(0, 20)}, sensortest.GPUProcess{PID: 1, During: span(20, 0)},
			sensortest.GPUProcess{PID: 2, During: span(0, 20)}, sensortest.GPUProcess{PID: 2, SM: 0.4, During: span(20, 0)}),
		func(t *testing.T, a *asker) {
			a.move(19 * time.Second)
			a.wants(t, "1 0.8 2 0")
			a.move(20 * time.Second)
			a.wants(t, "1 0 2 0.4")
			a.move(500 * time.Millisecond)
			a.wants(t, "1 0 2 0") // nothing new
		},
	},
	"the first question is of the last second": {
		with(sensortest.GPUProcess{PID: 1, SM: 0.8, During: span(0, 50)}, sensortest.GPUProcess{PID: 1, During: span(50, 0)},
			sensortest.GPUProcess{PID: 2, SM: 0.4}),
		func(t *testing.T, a *asker) { a.move(60 * time.Second); a.wants(t, "1 0 2 0.4") },
	},

	// A process has no sample of a second in which it was idle. Its mean over the
	// others would make it as busy as one that never is.
	"busy for a part of the time": {
		with(sensortest.GPUProcess{PID: 1, SM: 0.5},
			sensortest.GPUProcess{PID: 2, SM: 0.5, During: span(10, 20)}, sensortest.GPUProcess{PID: 2, During: span(20, 0)},
			sensortest.GPUProcess{PID: 2, During: span(0, 10)}),
		func(t *testing.T, a *asker) {
			a.wants(t, "1 0.5 2 0")
			a.move(40 * time.Second)
			a.wants(t, "1 0.5 2 0.125")
		},
	},

	"no utilization": {
		func() sensortest.GPU {
			g := with(sensortest.GPUProcess{PID: 1, SM: 0.5}, sensortest.GPUProcess{PID: 2, SM: 0.5})()
			g.Faults = []sensortest.Fault{{On: "nvmlDeviceGetProcessUtilization"}}
			return g
		},
		func(t *testing.T, a *asker) { a.move(5 * time.Second); a.wants(t, "1 ? 2 ?") },
	},

	"no list of others": {
		func() sensortest.GPU {
			g := with(sensortest.GPUProcess{PID: 1})()
			g.Faults = []sensortest.Fault{{On: "nvmlDeviceGetMPSComputeRunningProcesses"}, {On: "nvmlDeviceGetMPSComputeRunningProcesses_v3"},
				{On: "nvmlDeviceGetGraphicsRunningProcesses"}, {On: "nvmlDeviceGetGraphicsRunningProcesses_v3"}}
			return g
		},
		func(t *testing.T, a *asker) { a.wants(t, "1 ?") },
	},

	// To leave out whom it could not see would charge the job with all of it.
	"a list that fails": {
		func() sensortest.GPU {
			g := with(sensortest.GPUProcess{PID: 1})()
			for i, list := range []string{"Compute", "MPSCompute", "Graphics"} {
				for _, version := range []string{"", "_v3"} {
					g.Faults = append(g.Faults, sensortest.Fault{On: "nvmlDeviceGet" + list + "RunningProcesses" + version,
						Code: int(timeout), During: span(i, i+1)})
				}
			}
			return g
		},
		func(t *testing.T, a *asker) {
			for range 3 {
				if uses, err := a.sensor.Processes(0); !errors.Is(err, sensors.ErrTransient) || len(uses) > 0 {
					t.Errorf("%v, %v", uses, err)
				}
				a.move(time.Second)
			}
			a.wants(t, "1 ?")
		},
	},

	"instances": {
		func() sensortest.GPU {
			g := divided()
			g.Processes = []sensortest.GPUProcess{
				{PID: 1, SM: 0.5, Instance: "MIG-2c"}, {PID: 1, Instance: "MIG-4g"},
				{PID: 2, Instance: "MIG-2c"}, {PID: 3, Kind: sensortest.MPSContext, Instance: "MIG-4g"},
				{PID: 4, Name: "nvidia-cuda-mps-server", Instance: "MIG-4g"},
			}
			return g
		},
		func(t *testing.T, a *asker) {
			a.move(time.Second)
			a.wants(t, "1 ? MIG-4g 3 ? MIG-4g 1 ? MIG-2c 2 ? MIG-2c")
		},
	},
}

// divided is a GPU of seven slices: a GPU instance of four, and one of three that
// is divided further.
func divided() sensortest.GPU {
	g := card(sensortest.Constant(100))
	g.MIG = true
	g.Instances = []sensortest.GPUInstance{
		{ID: "MIG-4g", In: 1, InSlices: 4, Slices: 4},
		{ID: "MIG-1c", In: 2, InSlices: 3, Slices: 1},
		{ID: "MIG-2c", In: 2, InSlices: 3, Slices: 2},
	}
	return g
}

func TestProcesses(t *testing.T) {
	for name, test := range processTests {
		t.Run(name, func(t *testing.T) {
			r := start(t, test.gpu())
			test.check(t, &asker{r.sensor.(*sensor), r.clock.Advance})
		})
	}
}

// The driver's cost is a lock that the job waits for: what is not needed is not
// asked.
func TestProcessesAskLittle(t *testing.T) {
	r := start(t, with(sensortest.GPUProcess{PID: 1, SM: 0.5})())
	before := r.calls
	if _, err := r.sensor.(*sensor).Processes(0); err != nil || r.calls-before != 3 || len(r.asked) != 0 {
		t.Errorf("%d calls, %d of them of utilization: %v", r.calls-before, len(r.asked), err)
	}
}

// Microseconds since 1970, of the sensor's clock at first and then of the driver's.
func TestUtilizationIsAskedInMicroseconds(t *testing.T) {
	d := newScripted(with(sensortest.GPUProcess{PID: 1, SM: 0.5}, sensortest.GPUProcess{PID: 2})())
	r := startOn(t, d)
	r.clock.Advance(2 * time.Hour)
	for range 2 {
		r.clock.Advance(10 * time.Second)
		if _, err := r.sensor.(*sensor).Processes(0); err != nil {
			t.Fatal(err)
		}
	}
	at := d.start.Add(2*time.Hour + 10*time.Second)
	want := []int64{at.Add(-time.Second).UnixMicro(), at.UnixMicro()}
	if len(d.asked) != 2 || d.asked[0] != want[0] || d.asked[1] != want[1] {
		t.Errorf("asked since %v, want %v", d.asked, want)
	}
	// A clock that is set back by an hour must not leave an hour without answers.
	r.clock.Advance(-time.Hour)
	if _, err := r.sensor.(*sensor).Processes(0); err != nil || d.asked[2] != r.clock.Now().Add(-time.Second).UnixMicro() {
		t.Errorf("asked since %v, %v", d.asked[2], err)
	}
}

func TestUtilizationNonsense(t *testing.T) {
	d := newScripted(with(sensortest.GPUProcess{PID: 1, SM: 0.5}, sensortest.GPUProcess{PID: 2, SM: 0.25})())
	r := startOn(t, d)
	r.clock.Advance(10 * time.Second)
	now := r.clock.Now().UnixMicro()
	d.nonsense = []utilization{
		{},                               // never filled in
		{pid: 1, micros: now, busy: 1e9}, // more than all
		{pid: 2, micros: now - 5e6},      // of before
		{pid: 2, micros: now - 5e6, busy: 90},
		{pid: 77, micros: now, busy: 100}, // has ended
	}
	a := &asker{r.sensor.(*sensor), r.clock.Advance}
	a.wants(t, "1 0.5 2 0.25")
}

// A GPU that is left alone is not asked, and says so.
func TestProcessesOfLostGPU(t *testing.T) {
	g := with(sensortest.GPUProcess{PID: 1})()
	g.Lost = []sensortest.Span{span(1, 100)}
	r := start(t, g)
	r.after(time.Second)
	before := r.calls
	if _, err := r.sensor.(*sensor).Processes(0); !errors.Is(err, sensors.ErrTransient) || r.calls != before {
		t.Errorf("%v after %d calls", err, r.calls-before)
	}
}

func TestProcessesOfInstancesThatAreOthers(t *testing.T) {
	process := sensortest.GPUProcess{PID: 1, Instance: "MIG-4g"}
	for name, test := range map[string]struct {
		faults []sensortest.Fault
		want   string
		err    error
	}{
		"another's":         {[]sensortest.Fault{{On: "instance 1", Code: int(noPermission)}, {On: "instance 2", Code: int(noPermission)}}, "1 ? MIG-4g", nil},
		"gone":              {[]sensortest.Fault{{On: "instance 1", Code: int(notFound)}, {On: "instance 2", Code: int(invalidArgument)}}, "1 ? MIG-4g", nil},
		"all are another's": {[]sensortest.Fault{{On: "nvmlDeviceGetMigDeviceHandleByIndex", Code: int(noPermission)}}, "", sensors.ErrPermission},
		"one fails":         {[]sensortest.Fault{{On: "instance 1", Code: int(timeout)}}, "", sensors.ErrTransient},
		"not told":          {[]sensortest.Fault{{On: "nvmlDeviceGetComputeRunningProcesses"}}, "", sensors.ErrUnsupported},
		"no instances":      {[]sensortest.Fault{{On: "nvmlDeviceGetMaxMigDeviceCount"}}, "", sensors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			g := divided()
			g.Processes = []sensortest.GPUProcess{process}
			g.Faults = test.faults
			a := &asker{sensor: start(t, g).sensor.(*sensor)}
			if test.err == nil {
				a.wants(t, test.want)
			} else if uses, err := a.sensor.Processes(0); !errors.Is(err, test.err) {
				t.Errorf("%v, %v, want %v", uses, err, test.err)
			}
		})
	}
}
