//go:build linux || darwin

package share

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// The trackers of these tests are processes of their own: this binary, started
// again with envHelper. They see one machine, whose energy is a function of the
// machine's clock.
const (
	envHelper = "SHARE_TEST_HELPER" // the directory
	envEpoch  = "SHARE_TEST_EPOCH"  // the time of the clock from which the machine draws

	tick = 20 * time.Millisecond
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envHelper); dir != "" {
		if err := helper(dir); err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tock is what a tracker says after each of its samples. Its times are of the
// machine's clock.
type tock struct {
	Begin, End time.Duration
	Owner      bool
	At         time.Duration // of the reading
	Energy     sensors.Microjoules
	Observed   time.Duration
	Handovers  int
	Gap        time.Duration
	Late       bool   // ErrTimeout
	Err        string // any other error
	Last       bool
}

// helper samples until it is told to stop, and says what it reads.
func helper(dir string) error {
	epoch, err := strconv.ParseInt(os.Getenv(envEpoch), 10, 64)
	if err != nil {
		return err
	}
	c, err := newClock()
	if err != nil {
		return err
	}
	open := func(context.Context) (*sensors.Set, error) {
		started := false
		return sensors.NewSet(sensortest.NewSensor(func() time.Time {
			now := time.Now()
			if !started {
				started = true
				return c.local(epoch, now)
			}
			return now
		}, sensors.Timing{}, sensortest.Script{Device: gpu, Curve: draw})), nil
	}
	set, err := open(context.Background())
	if err != nil {
		return err
	}
	m, err := Join(context.Background(), dir, set, open, Who{RunID: strconv.Itoa(os.Getpid()), Interval: tick})
	if err != nil {
		return err
	}
	// A program that outlives its parent must not keep the parent's lock.
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	ticker := time.NewTicker(tick)
	readings := make([]sensors.Reading, 1)
	out := json.NewEncoder(os.Stdout)
	for last := false; !last; {
		select {
		case <-ticker.C:
		case <-stop:
			last = true
		}
		begin := time.Now()
		m.Set().Read(readings)
		if err := m.Publish(begin, readings); err != nil {
			return err
		}
		r := readings[0]
		t := tock{
			Begin: time.Duration(c.page(begin)), At: time.Duration(c.page(r.At)),
			Energy: r.Energy, Observed: r.Observed, Last: last,
		}
		t.Owner, _ = m.Owner()
		t.Handovers, t.Gap = m.Handovers()
		switch codeOfCause(r.Err) {
		case 0:
		case codeOfCause(sensors.ErrTimeout):
			t.Late = true
		default:
			t.Err = r.Err.Error()
		}
		if last {
			m.Leave()
		}
		t.End = time.Duration(c.page(time.Now()))
		if err := out.Encode(t); err != nil {
			return err
		}
	}
	return nil
}

// machineRoom is where the processes of a test run.
type machineRoom struct {
	t     *testing.T
	dir   string
	clock clock
	epoch time.Duration
}

func newMachineRoom(t *testing.T) *machineRoom {
	if testing.Short() {
		t.Skip("starts processes")
	}
	c, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	return &machineRoom{t: t, dir: t.TempDir(), clock: c, epoch: time.Duration(c.page(time.Now()))}
}

func (r *machineRoom) now() time.Duration { return time.Duration(r.clock.page(time.Now())) }

// process is a tracker that is a process.
type process struct {
	room *machineRoom
	cmd  *exec.Cmd
	done chan struct{} // closed once its output has ended

	child int // its own, which outlives it

	mu    sync.Mutex
	tocks []tock
}

func (r *machineRoom) start() *process {
	r.t.Helper()
	p := &process{room: r, cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), envHelper+"="+r.dir, fmt.Sprintf("%s=%d", envEpoch, r.epoch))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go p.listen(bufio.NewScanner(out))
	r.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		_ = p.cmd.Wait()
		if p.child > 0 {
			_ = syscall.Kill(p.child, syscall.SIGKILL)
		}
	})
	return p
}

func (p *process) listen(lines *bufio.Scanner) {
	defer close(p.done)
	if lines.Scan() {
		p.child, _ = strconv.Atoi(lines.Text())
	}
	for lines.Scan() {
		var t tock
		if json.Unmarshal(lines.Bytes(), &t) != nil {
			continue // cut short by SIGKILL
		}
		p.mu.Lock()
		p.tocks = append(p.tocks, t)
		p.mu.Unlock()
	}
}

func (p *process) said() []tock {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tocks)
}

func (p *process) latest() (t tock) {
	if all := p.said(); len(all) > 0 {
		t = all[len(all)-1]
	}
	return t
}

// wait waits until something is so.
func (r *machineRoom) wait(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ticks waits until each process has sampled n more times without an error.
func (r *machineRoom) ticks(n int, all ...*process) {
	r.t.Helper()
	var from []int
	for _, p := range all {
		from = append(from, len(p.said()))
	}
	for i, p := range all {
		r.wait("samples", func() bool {
			good := 0
			for _, t := range p.said()[from[i]:] {
				if !t.Late && t.Err == "" {
					good++
				}
			}
			return good >= n
		})
	}
}

// death is between two times.
type death struct{ from, to time.Duration }

// kill ends a process by SIGKILL.
func (p *process) kill() death {
	from := p.room.now()
	_ = p.cmd.Process.Kill()
	_, _ = p.cmd.Process.Wait()
	return death{from, p.room.now()}
}

// end ends a process in order.
func (p *process) end() {
	p.room.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.room.wait("the last sample", func() bool { return p.latest().Last })
}

func ownerOf(all []*process) *process {
	for _, p := range all {
		if p.latest().Owner {
			return p
		}
	}
	return nil
}

// burn keeps a processor busy until the test ends.
func burn(t *testing.T) {
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for range max(runtime.NumCPU()/2, 1) {
		go func() {
			for x := 0; ; x++ {
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
}

func TestEightProcessesHaveOneOwnerWhateverIsKilled(t *testing.T) {
	room := newMachineRoom(t)
	burn(t)
	var all, living []*process
	for range 8 {
		all = append(all, room.start())
	}
	living = slices.Clone(all)
	room.ticks(20, living...)
	var killed []death
	kill := func() {
		victim := ownerOf(living)
		if victim == nil {
			t.Fatal("no owner")
		}
		living = slices.DeleteFunc(living, func(p *process) bool { return p == victim })
		killed = append(killed, victim.kill())
		room.wait("the next owner", func() bool { return ownerOf(living) != nil })
		room.ticks(20, living...)
	}
	kill()
	for range 2 { // some come late
		p := room.start()
		all, living = append(all, p), append(living, p)
	}
	room.ticks(10, living...)
	kill()
	// The third owner leaves in order.
	third := ownerOf(living)
	third.end()
	rest := slices.DeleteFunc(slices.Clone(living), func(p *process) bool { return p == third })
	room.wait("the owner after that", func() bool { return ownerOf(rest) != nil })
	room.ticks(20, rest...)
	last := ownerOf(rest)
	for _, p := range append(slices.DeleteFunc(rest, func(p *process) bool { return p == last }), last) {
		p.end() // the owner last: nobody else takes over
	}

	checkOwners(t, all, 4)
	for _, at := range killed {
		checkHandedOver(t, all, at)
	}
	for i, p := range living {
		handovers := 3
		if i >= 6 { // came after the first was killed
			handovers = 2
		}
		if p == third {
			handovers--
		}
		checkConserved(room, p, handovers)
	}
}

// checkOwners checks that there were n owners, one after the other.
func checkOwners(t *testing.T, all []*process, n int) {
	t.Helper()
	type reign struct{ from, to time.Duration }
	var reigns []reign
	for _, p := range all {
		var r reign
		for _, tk := range p.said() {
			switch {
			case tk.Owner && r.to == 0:
				r = reign{tk.Begin, tk.End}
			case tk.Owner:
				r.to = tk.End
			case r.to != 0:
				t.Error("an owner that became a follower")
			}
		}
		if r.to != 0 {
			reigns = append(reigns, r)
		}
	}
	slices.SortFunc(reigns, func(a, b reign) int { return cmp.Compare(a.from, b.from) })
	if len(reigns) != n {
		t.Errorf("%d owners, want %d", len(reigns), n)
	}
	for i := 1; i < len(reigns); i++ {
		// The sample in which one takes over begins before it has the lock, and
		// the one in which the other left ends after it gave it up.
		if overlap := reigns[i-1].to - reigns[i].from; overlap > 0 && !leaves(all, reigns[i-1].to) {
			t.Errorf("two owners for %v", overlap)
		}
	}
}

// leaves reports whether a process left in order at this time.
func leaves(all []*process, at time.Duration) bool {
	return slices.ContainsFunc(all, func(p *process) bool { l := p.latest(); return l.Last && l.End == at })
}

// checkHandedOver checks that whoever read next after a death found an owner, or
// was it: within one interval, however long the machine took for one.
func checkHandedOver(t *testing.T, all []*process, d death) {
	t.Helper()
	var looked, owned time.Duration
	for _, p := range all {
		var reigned bool
		for _, tk := range p.said() {
			if tk.Begin > d.to && (looked == 0 || tk.End < looked) {
				looked = tk.End
			}
			if tk.Owner && !reigned {
				reigned = true
				if tk.End > d.from && (owned == 0 || tk.Begin < owned) {
					owned = tk.Begin
				}
			}
		}
	}
	t.Logf("handed over within %v", owned-d.from)
	if owned == 0 || owned > looked {
		t.Errorf("who looked first was done %v after the death, and the next owner began %v after it", looked-d.to, owned-d.to)
	}
}

// checkConserved checks that a process has counted what the machine used, but for
// the gaps it tells of.
func checkConserved(room *machineRoom, p *process, handovers int) {
	t := room.t
	t.Helper()
	// Who comes before the owner's first sample may see the second one first.
	var first, last tock
	for i, tk := range p.said() {
		if i == 0 && tk.Energy != 0 {
			t.Errorf("the first reading has %d µJ", tk.Energy)
		}
		if tk.Err != "" && first.At != 0 {
			t.Errorf("error %s", tk.Err)
		}
		if tk.Energy < last.Energy || tk.Observed < last.Observed || tk.At < last.At && last.Err == "" {
			t.Errorf("went back from %+v to %+v", last, tk)
		}
		if first.At == 0 && tk.Err == "" {
			first = tk
		}
		last = tk
	}
	if last.Handovers != handovers {
		t.Errorf("%d handovers, want %d", last.Handovers, handovers)
	}
	// The clocks of two processes are compared to some µs, in an undisturbed moment.
	const fuzz = 2 * time.Millisecond
	lost := float64(draw.Joules(last.At-room.epoch)-draw.Joules(first.At-room.epoch)) - float64((last.Energy - first.Energy).Joules())
	least, most := 100*(last.Gap-fuzz).Seconds(), 300*(last.Gap+fuzz).Seconds()
	if lost < least || lost > most {
		t.Errorf("%.3f J are missing after %v in which nobody looked, at 100 W to 300 W", lost, last.Gap)
	}
	if unseen := last.At - first.At - (last.Observed - first.Observed) - last.Gap; unseen.Abs() > fuzz {
		t.Errorf("observed %v of %v with a gap of %v", last.Observed, last.At-first.At, last.Gap)
	}
	if last.Energy == 0 || last.Late {
		t.Errorf("at the end: %+v", last)
	}
}

// A process that is stopped keeps the lock. When it continues, its counter brings
// what was missed: had somebody read beside it, that would count twice.
func TestAnOwnerThatIsStoppedStaysTheOwner(t *testing.T) {
	room := newMachineRoom(t)
	all := []*process{room.start(), room.start(), room.start()}
	room.ticks(10, all...)
	owner := ownerOf(all)
	followers := slices.DeleteFunc(slices.Clone(all), func(p *process) bool { return p == owner })
	if err := owner.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, p := range followers {
		room.wait("a follower that says that it is late", func() bool { return p.latest().Late })
		from := len(p.said())
		room.wait("more of it", func() bool { return len(p.said()) >= from+10 })
	}
	if ownerOf(followers) != nil {
		t.Error("somebody took over from a living owner")
	}
	if err := owner.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	room.ticks(10, all...)
	for _, p := range append(followers, owner) {
		p.end() // the followers first: nobody takes over
	}
	checkOwners(t, all, 1)
	for _, p := range all {
		checkConserved(room, p, 0)
	}
}

func TestAProcessThatComesAloneAfterAKillGoesOn(t *testing.T) {
	room := newMachineRoom(t)
	first := room.start()
	room.ticks(5, first)
	first.kill()
	second := room.start()
	room.ticks(5, second)
	second.end()
	checkOwners(t, []*process{first, second}, 2)
	checkConserved(room, second, 0)
	if out, err := os.ReadDir(room.dir); err != nil || len(out) != 1 || !strings.HasPrefix(out[0].Name(), pagePrefix) {
		t.Errorf("%v, %v: want one page", out, err)
	}
}
