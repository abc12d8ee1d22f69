package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/node"
)

// calibrationHome gives the test a home of its own, and a machine that is a
// desktop, or a guest.
func calibrationHome(t *testing.T, virtual bool) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME", "AppData"} {
		t.Setenv(name, dir)
	}
	t.Setenv("HOST_PROC", filepath.Join(dir, "proc"))
	t.Setenv("HOST_SYS", filepath.Join(dir, "sys"))
	flags := "fpu"
	if virtual {
		flags += " hypervisor"
	}
	for name, text := range map[string]string{
		"proc/cpuinfo":                  "processor : 0\nvendor_id : GenuineIntel\nflags : " + flags + "\n",
		"sys/class/dmi/id/chassis_type": "3\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

// meterPoints are points of a machine with 40 W of base and an efficiency of 0.88,
// one of which was misread.
const meterPoints = `run,wall_w,sensed_w,note
1,90.9,40,idle
2,159,100,
3,272.8,200,
4,386.4,300,
5,600,410,"misread, by a lot"
6,556.8,450,full
`

// recomputed are the errors of P = (sensed + base) / efficiency on meterPoints, by
// the test's own arithmetic.
func recomputed(base, efficiency float64) (errs []float64) {
	for _, p := range [][2]float64{{40, 90.9}, {100, 159}, {200, 272.8}, {300, 386.4}, {410, 600}, {450, 556.8}} {
		errs = append(errs, 100*math.Abs((p[0]+base)/efficiency-p[1])/p[1])
	}
	slices.Sort(errs)
	return errs
}

// calibration is the JSON that calibrate prints, as a script reads it.
type calibration struct {
	Schema     string  `json:"schema"`
	Profile    string  `json:"profile"`
	Base       float64 `json:"base_w"`
	Efficiency float64 `json:"efficiency"`
	Points     int     `json:"points"`
	Median     float64 `json:"median_error_percent"`
	Max        float64 `json:"max_error_percent"`
	Sum        float64 `json:"sum_median_error_percent"`
	Stored     bool    `json:"stored"`
	Path       string  `json:"path"`
}

// calibrate runs the command, with the points in points.csv.
func calibrate(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	if err := os.WriteFile("points.csv", []byte(meterPoints), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code = execute(t.Context(), append([]string{"calibrate"}, args...), &out, &errs)
	return out.String(), errs.String(), code
}

func calibrateJSON(t *testing.T, args ...string) calibration {
	t.Helper()
	stdout, stderr, code := calibrate(t, append(args, "--json", "-")...)
	var a calibration
	if err := json.Unmarshal([]byte(stdout), &a); err != nil || code != 0 || stderr != "" {
		t.Fatalf("%v: exit code %d, %v, %q\n%s", args, code, err, stderr, stdout)
	}
	return a
}

func TestCalibrateFitsAndStores(t *testing.T) {
	calibrationHome(t, false)
	a := calibrateJSON(t, "points.csv")
	if math.Abs(a.Base-40) > 0.5 || math.Abs(a.Efficiency-0.88) > 0.003 || a.Points != 6 || a.Profile != "calibrated" || !a.Stored || a.Schema != calibrationSchema {
		t.Errorf("%+v", a)
	}
	errs := recomputed(a.Base, a.Efficiency)
	if math.Abs(a.Median-(errs[2]+errs[3])/2) > 1e-9 || math.Abs(a.Max-errs[5]) > 1e-9 || a.Max < 10 || a.Median > 0.2 {
		t.Errorf("%+v, by hand %v", a, errs)
	}
	p, path, ok, err := node.Load()
	if !ok || err != nil || path != a.Path || float64(p.Base) != a.Base || p.Efficiency != a.Efficiency || !strings.Contains(p.Source, "points.csv") {
		t.Errorf("stored: %+v, %s, %v, %v", p, path, ok, err)
	}
	// What is stored can be checked, and is the same.
	if b := calibrateJSON(t, "--check", "--profile", "stored", "points.csv"); b.Base != a.Base || b.Max != a.Max || b.Stored || b.Path != a.Path {
		t.Errorf("%+v, want %+v", b, a)
	}
	stdout, _, code := calibrate(t, "--forget")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || code != 0 || !strings.Contains(stdout, "removed "+path) {
		t.Errorf("forget: %d, %v, %s", code, err, stdout)
	}
	if stdout, _, code = calibrate(t, "--forget"); code != 0 || !strings.Contains(stdout, "no profile is stored") {
		t.Errorf("forget again: %d, %s", code, stdout)
	}
}

func TestCalibrateDryRun(t *testing.T) {
	calibrationHome(t, false)
	if a := calibrateJSON(t, "--dry-run", "points.csv"); a.Stored || a.Path != "" || math.Abs(a.Base-40) > 0.5 {
		t.Errorf("%+v", a)
	}
	if _, _, ok, err := node.Load(); ok || err != nil {
		t.Errorf("stored: %v, %v", ok, err)
	}
}

// The model ends at the plug: what is behind it, the facility's PUE, is no part of
// it, wherever the points and the profile are used.
func TestCalibrateIsOfThePlug(t *testing.T) {
	calibrationHome(t, false)
	want := calibrateJSON(t, "points.csv")
	t.Setenv("WATTSPAN_PUE", "1.7")
	if got := calibrateJSON(t, "points.csv"); got != want {
		t.Errorf("%+v, and with a PUE %+v", want, got)
	}
}

// A check stores nothing, whatever it is of, and its figures are those of the
// profile.
func TestCalibrateCheck(t *testing.T) {
	calibrationHome(t, false)
	for _, p := range node.Profiles() {
		a := calibrateJSON(t, "--check", "--profile", p.Name, "points.csv")
		errs := recomputed(float64(p.Base), p.Efficiency)
		if a.Profile != p.Name || a.Base != float64(p.Base) || a.Efficiency != p.Efficiency || a.Points != 6 || a.Stored ||
			math.Abs(a.Median-(errs[2]+errs[3])/2) > 1e-9 || math.Abs(a.Max-errs[5]) > 1e-9 {
			t.Errorf("%s: %+v, by hand %v", p.Name, a, errs)
		}
	}
	if _, _, ok, _ := node.Load(); ok {
		t.Error("a check has stored something")
	}
}

func TestCalibratePage(t *testing.T) {
	calibrationHome(t, false)
	t.Setenv("COLUMNS", "80")
	stdout, stderr, code := calibrate(t, "--dry-run", "points.csv")
	if code != 0 || stderr != "" {
		t.Fatalf("%d, %q", code, stderr)
	}
	for _, want := range []string{"fit on 6 points: P = (sensed + 40.", "/ 0.88", "base", "efficiency", "median", "of the worst 15 %", "plain sum", "from 90.9 W to 600 W", "not stored"} {
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	for line := range strings.Lines(stdout) {
		if columns(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("too wide: %q", line)
		}
	}
	if stdout, _, _ = calibrate(t, "--check", "--profile", "desktop", "points.csv"); !strings.Contains(stdout, "profile desktop on 6 points") || strings.Contains(stdout, "stored") {
		t.Errorf("check:\n%s", stdout)
	}
	if stdout, _, _ = calibrate(t, "points.csv"); !strings.Contains(strings.Join(strings.Fields(stdout), " "), "stored in ") {
		t.Errorf("stored:\n%s", stdout)
	}
	if stdout, _, code = calibrate(t, "--json", "out.json", "--dry-run", "points.csv"); code != 0 || !strings.Contains(stdout, "fit on") {
		t.Errorf("with a file, the page is printed: %d\n%s", code, stdout)
	}
	if data, err := os.ReadFile("out.json"); err != nil || !json.Valid(data) {
		t.Errorf("%s, %v", data, err)
	}
}

func TestErrorPercent(t *testing.T) {
	for v, want := range map[float64]string{0: "0 %", 0.03: "under 0.1 %", 0.123: "0.12 %", 1.26: "1.3 %", 9.97: "10.0 %", 12.6: "13 %", 123.4: "123 %"} {
		if got := errorPercent(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

func TestCalibrateHelpFitsTerminal(t *testing.T) {
	said, code := asked(t, "calibrate", "--help")
	if code != 0 || !strings.Contains(said, "\nUsage:\n  wattspan calibrate") {
		t.Errorf("%d\n%s", code, said)
	}
	for line := range strings.Lines(said) {
		if columns(strings.TrimSuffix(line, "\n")) > helpColumns {
			t.Errorf("too wide: %q", line)
		}
	}
}

func TestCalibrateErrors(t *testing.T) {
	calibrationHome(t, false)
	for name, text := range map[string]string{
		"words.csv": "sensed_w,wall_w\n40,95\nx,y\n", "below.csv": "sensed_w,wall_w\n40,95\n400,300\n", "one.csv": "sensed_w,wall_w\n40,95\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"missing.csv"}, "missing.csv"},
		{[]string{"words.csv"}, "words.csv: points are wrong: line 3: sensed_w"},
		{[]string{"below.csv"}, "line 3 (400 W sensed, 300 W at the plug)"},
		{[]string{"one.csv"}, "add points at idle and under full load; nothing was stored"},
		{[]string{"a.csv", "b.csv"}, "got b.csv too"},
		{[]string{"points.csv", "--", "true"}, "not both"},
		{[]string{"--check", "points.csv"}, "NAME is one of laptop, desktop, server, gpu-server, stored"},
		{[]string{"--check", "--profile", "desktop"}, "--check needs points"},
		{[]string{"--profile", "desktop", "points.csv"}, "names what --check is about"},
		{[]string{"--check", "--profile", "desctop", "points.csv"}, "did you mean desktop?"},
		{[]string{"--check", "--profile", "stored", "points.csv"}, "no profile is stored"},
		{[]string{"--forget", "points.csv"}, "neither points nor a command"},
		{[]string{"--forget", "--dry-run"}, "flag --dry-run says nothing with --forget"},
		{[]string{"--seconds", "0"}, "outside 1 to 3600"},
		{[]string{"--points", "p.csv", "points.csv"}, "flag --points is for reading"},
		{[]string{"--chek"}, "did you mean --check?"},
		{[]string{"--points", "no/such/dir/p.csv"}, "flag --points: there is no directory"},
		{[]string{"--", "no-such-command"}, "no-such-command"},
	} {
		stdout, stderr, code := calibrate(t, test.args...)
		wantCode := exitFailure
		if slices.Contains(test.args, "no-such-command") {
			wantCode = 127
		}
		if code != wantCode || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit code %d, %q, %q; want %q", test.args, code, stdout, stderr, test.want)
		}
	}
	if _, _, ok, err := node.Load(); ok || err != nil {
		t.Errorf("something was stored: %v, %v", ok, err)
	}
}

// A damaged profile stops no fit: the new one takes its place.
func TestCalibrateOverADamagedProfile(t *testing.T) {
	calibrationHome(t, false)
	path := calibrateJSON(t, "points.csv").Path
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := calibrate(t, "--check", "--profile", "stored", "points.csv"); code != exitFailure || !strings.Contains(stderr, "--forget") {
		t.Errorf("%d, %q", code, stderr)
	}
	if a := calibrateJSON(t, "points.csv"); a.Path != path || !a.Stored {
		t.Errorf("%+v", a)
	}
	if _, _, ok, err := node.Load(); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// In a virtual machine the sensors are not read, unless somebody insists; points
// of a file are fitted, with a word on it.
func TestCalibrateInAVirtualMachine(t *testing.T) {
	calibrationHome(t, true)
	_, stderr, code := calibrate(t)
	if code != exitFailure || !strings.Contains(stderr, "virtual machine") || !strings.Contains(stderr, "--force") {
		t.Errorf("%d, %q", code, stderr)
	}
	stdout, _, code := calibrate(t, "points.csv")
	if code != 0 || !strings.Contains(stdout, "note: this is a virtual machine") || !strings.Contains(stdout, "stored in") {
		t.Errorf("%d\n%s", code, stdout)
	}
	if a := calibrateJSON(t, "--check", "--profile", "desktop", "points.csv"); a.Points != 6 {
		t.Errorf("%+v", a)
	}
}

// What cannot be stored is shown all the same, and is an error.
func TestCalibrateCannotStore(t *testing.T) {
	calibrationHome(t, false)
	dir, err := os.UserConfigDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "wattspan"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := calibrate(t, "points.csv")
	if code != exitFailure || !strings.Contains(stderr, "the profile was not stored") || !strings.Contains(stdout, "fit on 6 points") || !strings.Contains(stdout, "not stored") {
		t.Errorf("%d, %q\n%s", code, stderr, stdout)
	}
}

// bench is a session at a machine of the test's: the sensors see the load that is
// on, and the meter is what the input says.
type bench struct {
	session
	talk    strings.Builder
	on      sensors.Watts
	begun   int
	read    time.Duration // by the sensors
	running atomic.Int32
}

func newBench(typed string, terminal bool) *bench {
	b := &bench{on: 40}
	b.session = session{talk: &b.talk, answers: readLines(strings.NewReader(typed)), seconds: 30, terminal: terminal}
	b.sense = func(ctx context.Context, d time.Duration) (sensors.Watts, error) {
		b.read += d
		return b.on, pause(ctx, d)
	}
	return b
}

// loads are idle and others at a power; an optional one has "?" behind it.
func (b *bench) loads(others ...string) []load {
	all := []load{{name: "idle", begin: nothing}}
	for _, text := range others {
		text, optional := strings.CutSuffix(text, "?")
		watts, _ := strconv.ParseFloat(text, 64)
		all = append(all, load{name: text + " W", optional: optional, begin: func(context.Context) (<-chan error, func(), error) {
			b.on = sensors.Watts(watts)
			b.begun++
			b.running.Add(1)
			return nil, func() { b.on = 40; b.running.Add(-1) }, nil
		}})
	}
	return all
}

func TestSession(t *testing.T) {
	for _, test := range []struct {
		name     string
		typed    string
		terminal bool
		loads    []string
		want     []node.Point
		begun    int // beside idle; 0: all
		err      string
		said     string
	}{
		{name: "three loads", typed: "91\n400\n230\n", loads: []string{"300", "150?"}, want: []node.Point{{Sensed: 40, Wall: 91}, {Sensed: 300, Wall: 400}, {Sensed: 150, Wall: 230}}, said: "300 W sensed, 400 W at the plug"},
		{name: "units and commas", typed: "91,5 W\n0.4 kW\n", loads: []string{"300"}, want: []node.Point{{Sensed: 40, Wall: 91.5}, {Sensed: 300, Wall: 400}}},
		{name: "two answers, and no more", typed: "91\n400", loads: []string{"300", "150?"}, begun: 1, want: []node.Point{{Sensed: 40, Wall: 91}, {Sensed: 300, Wall: 400}}},
		{name: "the third is skipped", typed: "91\n400\n\n", terminal: true, loads: []string{"300", "150?"}, want: []node.Point{{Sensed: 40, Wall: 91}, {Sensed: 300, Wall: 400}}, said: "Enter alone skips"},
		{name: "the input ends", typed: "91\n", loads: []string{"300"}, err: "the input ended before the meter's figure at 300 W; nothing was stored"},
		{name: "no input", typed: "", loads: []string{"300"}, err: "at idle"},
		{name: "a script's mistake", typed: "ninety\n400\n", loads: []string{"300"}, err: `"ninety" is not a power`},
		{name: "a person's mistake", typed: "ninety\n\n91\n200\n400\n", terminal: true, loads: []string{"300"}, want: []node.Point{{Sensed: 40, Wall: 91}, {Sensed: 300, Wall: 400}}, said: "cannot show less than the sensors see, 300 W"},
		{name: "a script's meter below the sensors", typed: "91\n200\n", loads: []string{"300"}, err: "cannot show less than the sensors see, 300 W"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(test.typed, test.terminal)
				points, names, err := b.run(t.Context(), b.loads(test.loads...))
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), test.err) || points != nil {
						t.Errorf("%v, %v", points, err)
					}
				} else if err != nil || !slices.Equal(points, test.want) || len(names) != len(points) {
					t.Errorf("%v, %v, %v", points, names, err)
				}
				if test.begun > 0 && b.begun != test.begun {
					t.Errorf("%d loads, though nobody can answer", b.begun)
				}
				if !strings.Contains(b.talk.String(), test.said) {
					t.Errorf("no %q in\n%s", test.said, &b.talk)
				}
				if n := b.running.Load(); n != 0 {
					t.Errorf("%d loads are left running", n)
				}
				for err == nil || test.err != "" { // what a script has said too much
					if _, end := b.answers.next(t.Context()); end != nil {
						break
					}
				}
			})
		})
	}
}

// The load is on while the sensors are read, for the whole time, and until the
// meter has been read.
func TestSessionTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, typing := io.Pipe()
		b := newBench("", false)
		b.answers = readLines(in)
		go func() {
			time.Sleep(55 * time.Second) // 10 to settle, 30 to read, and then thinking
			if b.running.Load() != 1 {
				t.Error("the load has ended before the meter was read")
			}
			_, _ = typing.Write([]byte("400\n"))
			_ = typing.Close()
		}()
		begin := time.Now()
		p, err := b.point(t.Context(), b.loads("300")[1])
		if took := time.Since(begin); err != nil || p.Sensed != 300 || p.Wall != 400 || took != 55*time.Second || b.read != 30*time.Second {
			t.Errorf("%v, %v, after %v", p, err, took)
		}
		if b.running.Load() != 0 {
			t.Error("the load goes on")
		}
	})
}

// Whoever interrupts is obeyed at once, in each phase.
func TestSessionInterrupted(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 20 * time.Second, 100 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			in, typing := io.Pipe()
			b := newBench("", true)
			b.answers = readLines(in)
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			begin := time.Now()
			points, _, err := b.run(ctx, b.loads("300")[1:])
			if !errors.Is(err, context.DeadlineExceeded) || points != nil || time.Since(begin) != after || b.running.Load() != 0 {
				t.Errorf("%v: %v, %v after %v, %d running", after, points, err, time.Since(begin), b.running.Load())
			}
			_ = typing.Close()
		})
	}
}

// A load that ends by itself gives no point: the meter would show something else.
func TestSessionLosesItsLoad(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 20 * time.Second, 100 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			in, typing := io.Pipe()
			b := newBench("", true)
			b.answers = readLines(in)
			lost, begin := make(chan error, 1), time.Now()
			time.AfterFunc(after, func() { lost <- nil })
			_, _, err := b.run(t.Context(), []load{{name: "train", begin: func(context.Context) (<-chan error, func(), error) { return lost, func() {}, nil }}})
			if err == nil || !strings.Contains(err.Error(), "train ended (exit code 0) before it was read") || time.Since(begin) != after {
				t.Errorf("%v: %v", after, err)
			}
			_ = typing.Close()
		})
	}
}

// A command is a load until it is ended, and its end is noticed.
func TestProgramAsLoad(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are those of a shell")
	}
	sleep, err := lookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	lost, end, err := program(sleep, []string{"sleep", "600"}, io.Discard)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-lost:
		t.Fatalf("it has ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	end()
	if err := <-lost; err == nil {
		t.Error("nobody ended it")
	}
	lost, end, err = program(sleep, []string{"sleep", "nonsense"}, io.Discard)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-lost; err == nil {
		t.Error("that it failed is not known")
	}
	end()
}

// The runner's own load uses the processors, and stops.
func TestBurning(t *testing.T) {
	process, err := host.OpenProcessCPU(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	defer process.Close()
	read := func() time.Duration {
		used, err := process.Read()
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
	before := read()
	_, end, err := burning(2)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); read()-before < 200*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%v of CPU time in %v", read()-before, time.Since(begin))
		}
	}
	end()
}

// What was read is kept as a file that calibrate reads.
func TestPointsFile(t *testing.T) {
	points := []node.Point{{Sensed: 40.25, Wall: 91}, {Sensed: 300, Wall: 400.5}}
	data := pointsFile(points, []string{"idle", `a "name", with a comma`})
	got, err := node.ParsePoints(bytes.NewReader(data))
	if err != nil || len(got) != 2 || got[0].Sensed != 40.25 || got[1].Wall != 400.5 {
		t.Errorf("%s\n%v, %v", data, got, err)
	}
}

func TestParseWatts(t *testing.T) {
	for text, want := range map[string]sensors.Watts{
		"87": 87, " 87.5 ": 87.5, "87,5": 87.5, "87 W": 87, "87w": 87, "0.087 kW": 87, "1,5kw": 1500,
	} {
		if got, err := parseWatts(text); err != nil || math.Abs(float64(got-want)) > 1e-9 {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "W", "-5", "0", "x", "NaN", "Inf", "87 V", "1,000.5"} {
		if got, err := parseWatts(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Interactively, in a machine of the test's that is no virtual one, whose sensors
// do not move: it reads, asks, keeps the points, and refuses to fit them.
func TestCalibrateInteractively(t *testing.T) {
	calibrationHome(t, false)
	var out, talk bytes.Buffer
	cmd := newCalibrateCommand(&out, &talk)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetIn(strings.NewReader("90\n91\n92\n"))
	cmd.SetArgs([]string{"--seconds", "1", "--points", "kept.csv"})
	err := cmd.ExecuteContext(t.Context())
	said := fmt.Sprint(err) + talk.String()
	if !strings.Contains(said, "idle, for 1.33 s: leave the machine alone") {
		t.Fatalf("%v\n%s", err, said)
	}
	if strings.Contains(said, "no sensor of this machine has a figure") {
		return // as on systems where no model knows the load
	}
	data, readErr := os.ReadFile("kept.csv")
	points, parseErr := node.ParsePoints(bytes.NewReader(data))
	if readErr != nil || parseErr != nil || len(points) < 2 || points[0].Wall != 90 {
		t.Errorf("kept: %s, %v, %v\n%s", data, readErr, parseErr, said)
	}
	if _, _, ok, _ := node.Load(); ok != (err == nil) {
		t.Errorf("stored %v after %v", ok, err)
	}
}
