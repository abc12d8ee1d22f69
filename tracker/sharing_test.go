package tracker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// envRank makes this test program one of the trackers of TestTrackersOfOneMachine.
const envRank = "WATTSPAN_TEST_RANK"

func TestMain(m *testing.M) {
	if rank := os.Getenv(envRank); rank != "" {
		beRank(rank)
		return
	}
	// What the tests track is their own: they do not meet other trackers.
	_ = os.Setenv("WATTSPAN_SHARE", tracker.SharingOff)
	os.Exit(m.Run())
}

const (
	ranks     = 8
	rankPower = 400 // watts of the machine that they run on
	rankTick  = 200 * time.Millisecond
)

// rankJob uses a tenth of a processor, of a machine on which one is busy: by the
// clock, so that it is known what every rank has used at any time.
type rankJob struct{ since time.Time }

func (j rankJob) Read() (tracker.Usage, error) {
	return tracker.Usage{CPU: time.Since(j.since) / 10}, nil
}
func (rankJob) Accounting() string { return tracker.AccountingProcess }

// rankResult is what a rank says at its end.
type rankResult struct {
	Rank     string
	Report   tracker.Report
	HWEnergy float64 // of hw.energy, as published; NaN is not JSON: -1 where it is not
	Machine  float64 // the sum of wattspan.energy; -1 where it is not published
}

// beRank tracks the scripted machine until its input ends. Its counter is a
// function of the time, so that all ranks read the same one.
func beRank(rank string) {
	began, _ := strconv.ParseInt(os.Getenv(envRank+"_BEGAN"), 10, 64)
	since := time.Unix(0, began)
	machine := sensors.Backend{Name: "scripted", Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
		// The script's time begins now, the counter's value with the machine.
		s := counter("package-0", sensors.CPU, sensortest.Constant(rankPower))
		s.Start = uint64(time.Since(since).Seconds() * rankPower * 1e6)
		return sensortest.NewSensor(nil, fast, s), nil
	}}
	reader := sdkmetric.NewManualReader()
	tr, err := tracker.Start(context.Background(), tracker.WithName("rank "+rank), tracker.WithRunID("rank-"+rank),
		tracker.WithDetection(sensors.WithBackends(machine), sensors.WithProcRoot(os.Getenv(envRank+"_PROC")), sensors.WithSysRoot("/nonexistent")),
		tracker.WithInterval(rankTick), tracker.WithJob(rankJob{since}), tracker.WithIntensity(400), tracker.WithPUE(1.25),
		tracker.WithNodeProfile(tracker.NodeNone), tracker.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	result := rankResult{Rank: rank, HWEnergy: -1, Machine: -1}
	t := new(testing.T)
	got, _ := collect(t, reader)
	for name, to := range map[string]*float64{"hw.energy": &result.HWEnergy, "wattspan.energy": &result.Machine} {
		for _, p := range got[name].points {
			*to = max(*to, 0) + p.value
		}
	}
	result.Report, _ = tr.Stop(context.Background())
	_ = json.NewEncoder(os.Stdout).Encode(result)
}

// rankProcess is a rank, seen from outside.
type rankProcess struct {
	*exec.Cmd
	in  interface{ Close() error }
	out *bufio.Reader
}

func startRank(t *testing.T, rank int, env []string) *rankProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), env...), envRank+"="+strconv.Itoa(rank))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &rankProcess{Cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, _ := p.out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("rank %d: %q", rank, line)
	}
	return p
}

func (p *rankProcess) result(t *testing.T) (r rankResult) {
	t.Helper()
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	return r
}

// Eight trackers on one machine: one reads the hardware and publishes it, the
// others report their own share; the shares and what is nobody's are together what
// the machine drew. The first is killed in the middle, another takes over, and no
// joule is counted twice.
func TestTrackersOfOneMachine(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("trackers do not meet on Windows")
	}
	dir, proc, began := t.TempDir(), t.TempDir(), time.Now()
	stat := filepath.Join(proc, "stat")
	busy := func() {
		text := fmt.Sprintf("cpu  %018d 0 0 100000000 0 0 0 0 0 0\n", time.Since(began)/(10*time.Millisecond))
		f, err := os.OpenFile(stat, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = f.WriteAt([]byte(text), 0)
		_ = f.Close()
	}
	busy()
	stopBusy, busyDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(busyDone)
		for {
			select {
			case <-time.After(10 * time.Millisecond):
				busy()
			case <-stopBusy:
				return
			}
		}
	}()
	defer func() { close(stopBusy); <-busyDone }()

	env := []string{"WATTSPAN_SHARE=" + dir, envRank + "_PROC=" + proc, fmt.Sprintf("%s_BEGAN=%d", envRank, began.UnixNano())}
	var all []*rankProcess
	for rank := range ranks {
		all = append(all, startRank(t, rank, env))
	}
	time.Sleep(2 * time.Second)
	killed := time.Now()
	_ = all[0].Process.Kill() // rank 0 was the first, so that it reads
	_ = all[0].Wait()
	time.Sleep(3 * time.Second)

	for _, p := range all[1:] {
		_ = p.in.Close()
	}
	published, hw := 0, 0.0
	for _, p := range all[1:] {
		r := p.result(t)
		rep := r.Report
		length := rep.Run.Duration
		if rep.Scope != tracker.Job || rep.Run.ReadBy != "rank-0" {
			t.Errorf("rank %s: scope %s, read by %q", r.Rank, rep.Scope, rep.Run.ReadBy)
		}
		_, gap := 0, 0.0
		handedOver := false
		for _, f := range rep.Quality {
			handedOver = handedOver || f.Kind == tracker.FlagHandover
		}
		if !handedOver {
			t.Errorf("rank %s: the change is not told: %+v", r.Rank, rep.Quality)
		}
		d := device(t, rep, "package-0")
		// What was not observed is told by the coverage, and is not made up for.
		gap = (1 - d.Coverage) * length
		window := 3 * rankTick.Seconds()
		if total := joules(t, d.Energy); math.Abs(total-rankPower*(length-gap)) > rankPower*window {
			t.Errorf("rank %s: %v J in %.2f s of which %.2f s are not covered, want %v", r.Rank, total, length, gap, rankPower*(length-gap))
		}
		if gap > 5*rankTick.Seconds()+1 {
			t.Errorf("rank %s: %.2f s of %.2f s are not covered", r.Rank, gap, length)
		}
		if total, job, rest := joules(t, d.Energy), joules(t, rep.Job.Energy), joules(t, rep.Job.Unattributed); math.Abs(job+rest-total) > 1e-3 || math.Abs(job-total/10) > rankPower*window/10 {
			t.Errorf("rank %s: %v J of its own and %v J of others are not the machine's %v J, or not a tenth of them", r.Rank, job, rest, total)
		}
		if r.HWEnergy >= 0 {
			published++
			hw += r.HWEnergy
		}
		if want := joules(t, rep.Energy.Facility); math.Abs(r.Machine-want) > rankPower*window {
			t.Errorf("rank %s publishes %v J of its own, want %v J", r.Rank, r.Machine, want)
		}
	}
	if since := time.Since(killed).Seconds(); published != 1 || hw > rankPower*since {
		t.Errorf("hw.energy is published by %d ranks, with %v J in the %.2f s since the first was killed", published, hw, since)
	}
}

// Without others a tracker is as it was: it reads the machine and charges all of it.
func TestTrackerAlone(t *testing.T) {
	t.Setenv("WATTSPAN_SHARE", t.TempDir())
	tr, err := tracker.Start(context.Background(), tracker.WithDetection(
		sensors.WithBackends(sensors.Backend{Name: "scripted", Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			return sensortest.NewSensor(nil, fast, counter("package-0", sensors.CPU, sensortest.Constant(10))), nil
		}})))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	r := stop(t, tr)
	if r.Scope != tracker.Machine || r.Run.ReadBy != "" || r.Energy.Device == nil || strings.Contains(fmt.Sprint(r.Notes), "another") {
		t.Errorf("scope %s, read by %q, %+v", r.Scope, r.Run.ReadBy, r.Energy)
	}
}
