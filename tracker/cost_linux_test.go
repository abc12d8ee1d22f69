package tracker

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// startIdle starts a shell with as many children, all of which wait for an input
// that ends with the test.
func startIdle(tb testing.TB, children int) (shell int) {
	tb.Helper()
	cmd := exec.Command("sh", "-c", `exec 3<&0; i=0; while [ $i -lt $0 ]; do (read x <&3) & i=$((i+1)); done; echo; wait`, strconv.Itoa(children))
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Skip(err)
	}
	tb.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		tb.Skipf("%d processes cannot be started here: %v", children, err)
	}
	return cmd.Process.Pid
}

// treeJob is the descendants of a process, read as the runner reads them between
// two walks, or as it walks.
type treeJob struct {
	tree  *host.Tree
	whole bool
}

func (j *treeJob) Read() (Usage, error) {
	read := j.tree.Refresh
	if j.whole {
		read = j.tree.Read
	}
	u, err := read()
	return Usage{CPU: u.CPU, Memory: u.Memory, HasMemory: u.Processes > 0}, err
}

func (*treeJob) Accounting() string { return AccountingTree }

// bigServer samples 64 devices, 48 of which may block, and a job of 50 processes.
func bigServer(tb testing.TB) (*sampler, *treeJob) {
	tb.Helper()
	var gpus, others []sensortest.Script
	for i := range 64 {
		script := sensortest.Script{Device: sensors.Device{ID: fmt.Sprint("device-", i), Component: sensors.GPU}, Curve: sensortest.Constant(500), MaxPower: 1050}
		switch {
		case i < 48:
			gpus = append(gpus, script)
			continue
		case i%2 == 0:
			script.Device.Component = sensors.CPU
		default:
			script.Device.Component = sensors.Memory
		}
		others = append(others, script)
	}
	tree, err := host.OpenTree(startIdle(tb, 50))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { tree.Close() })
	job := &treeJob{tree: tree}
	s := newSampler(sensors.NewSet(
		sensortest.NewSensor(nil, sensors.Timing{MayBlock: true}, gpus...),
		sensortest.NewSensor(nil, sensors.Timing{}, others...),
	), true, time.Hour)
	s.scope, s.job = Job, job
	s.model = emissions.Model{
		Intensity: emissions.Factor{Value: 50, Unit: emissions.UnitIntensity},
		PUE:       emissions.Factor{Value: 1.2, Unit: emissions.UnitPUE},
	}
	s.clocks = openClocks(sensors.DefaultRoots(), s.devices)
	s.rules = rules(s.devices, s.clocks, os.LookupEnv)
	s.start()
	tb.Cleanup(func() {
		close(s.quit)
		<-s.done
	})
	if n := len(tree.PIDs()); n != 50 {
		tb.Fatalf("%d processes, want 50", n)
	}
	return s, job
}

// What a tick costs does not depend on what else runs on the machine: it opens no
// file and lists no directory. There is no descriptor left here to do so with.
func TestTickOpensNothing(t *testing.T) {
	s, job := bigServer(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }
	defer restore()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := os.Open(os.DevNull)
	begin := s.current.Load()
	allocated := testing.AllocsPerRun(100, func() { s.tick(time.Second) })
	use, useErr := job.Read()
	restore()
	if err == nil {
		t.Fatal("a file could be opened")
	}
	last := s.current.Load()
	if allocated > 2 {
		t.Errorf("a tick allocates %v objects, want 2 at most", allocated)
	}
	if useErr != nil || !use.HasMemory || !last.usageKnown || len(job.tree.PIDs()) != 50 {
		t.Errorf("%+v of %d processes, %v", use, len(job.tree.PIDs()), useErr)
	}
	if n := last.counts.samples - begin.counts.samples; n < 100 || last.counts.errors != 0 {
		t.Errorf("%d samples, %d errors", n, last.counts.errors)
	}
	if !slices.ContainsFunc(last.devices, func(d deviceState) bool { return d.Energy > 0 }) || !last.machine.busyKnown || last.machine.inUse == 0 {
		t.Errorf("nothing has been read: %+v", last.machine)
	}
}

// A tick with 64 devices and a job of 50 processes, by how many others there are.
func BenchmarkTickOfAJob(b *testing.B) {
	for _, others := range []int{0, 200, 2000} {
		for _, whole := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d others, whole=%v", others, whole), func(b *testing.B) {
				if others > 0 {
					startIdle(b, others)
				}
				s, job := bigServer(b)
				job.whole = whole
				b.ReportAllocs()
				before, _ := host.SelfCPU()
				for b.Loop() {
					s.tick(time.Second)
				}
				after, _ := host.SelfCPU()
				b.ReportMetric(float64(after-before)/float64(b.N), "CPU-ns/op")
			})
		}
	}
}
