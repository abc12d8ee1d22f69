package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/node"
	"github.com/wattspan/wattspan/tracker"
)

// storedProfile is the name by which --profile means the profile that is stored.
const storedProfile = "stored"

// The range of --seconds.
const (
	defaultSeconds = 30
	leastSeconds   = 1
	mostSeconds    = 3600
)

// calibrateOptions are the flags of calibrate.
type calibrateOptions struct {
	check, dryRun, forget, force bool
	profile, json, points        string
	seconds                      int
	// detect says where the sensors are, share where trackers meet, as for a run.
	detect []sensors.Option
	share  string
}

func newCalibrateCommand(stdout, stderr io.Writer) *cobra.Command {
	o := calibrateOptions{seconds: defaultSeconds}
	cmd := &cobra.Command{
		Use:   "calibrate [flags] [POINTS.csv] [-- COMMAND [ARG...]]",
		Short: "Fit the model of this machine to a meter at its plug",
		Long: `Fits what no sensor sees of this machine (fans, disks, board, power supply) to a
meter at its plug, P = (sensed + base) / efficiency, and keeps that for runs on
this machine.

POINTS.csv has the columns sensed_w and wall_w, in W; others are ignored. Else
the sensors are read at idle, under full and under half load of all processors,
while you type what the meter shows; with a COMMAND, at idle and while it runs.
Read the meter when you are asked: the load goes on until then.`,
		Example: `  wattspan calibrate points.csv
  wattspan calibrate --points points.csv
  wattspan calibrate -- python train.py
  wattspan calibrate --check --profile desktop --json - points.csv
  wattspan calibrate --forget`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadConfiguration(cmd.Flags())
			if err != nil {
				return err
			}
			if o.detect, err = c.settings.detection(); err != nil {
				return err
			}
			o.share = c.settings.Share
			files, command := args, []string(nil)
			if at := cmd.ArgsLenAtDash(); at >= 0 {
				files, command = args[:at], args[at:]
			}
			if err := o.validate(cmd, files, command); err != nil {
				return err
			}
			result, err := o.calibrate(cmd.Context(), cmd.InOrStdin(), stderr, files, command)
			if result == nil {
				return err
			}
			// What was found is shown in any case: storing may be what failed.
			if o.json != "-" {
				p := newPage(stdout, c.settings.Color, os.Getenv)
				result.print(p)
				err = errors.Join(err, p.flush())
			}
			return errors.Join(err, result.writeJSON(o.json, stdout))
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&o.check, "check", false, "only say how far --profile is from the points; store nothing")
	cmd.Flags().StringVar(&o.profile, "profile", "", "the profile to check: "+strings.Join(checkable(), ", "))
	cmd.Flags().StringVar(&o.json, "json", "", "write the result to this file as JSON (- for standard output)")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show the fit and do not store it")
	cmd.Flags().BoolVar(&o.forget, "forget", false, "remove the profile that is stored for this machine")
	cmd.Flags().StringVar(&o.points, "points", "", "keep what was read and typed in this file")
	cmd.Flags().IntVar(&o.seconds, "seconds", o.seconds, "how long to read the sensors at each load")
	cmd.Flags().BoolVar(&o.force, "force", false, "read the sensors in a virtual machine, too")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions(checkable(), cobra.ShellCompDirectiveNoFileComp))
	var others []string
	for _, option := range options {
		if option.name != "color" && option.name != "config" {
			others = append(others, option.name)
		}
	}
	addOptions(cmd, others...)
	return cmd
}

// checkable are the values of --profile.
func checkable() []string {
	var names []string
	for _, p := range node.Profiles() {
		names = append(names, p.Name)
	}
	return append(names, storedProfile)
}

// validate says which flags contradict what is to be done.
func (o calibrateOptions) validate(cmd *cobra.Command, files, command []string) error {
	refuse := func(why string, names ...string) error {
		for _, name := range names {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("flag --%s %s", name, why)
			}
		}
		return nil
	}
	switch {
	case len(files) > 1:
		return fmt.Errorf("calibrate takes one file of points, and got %s too; a command stands behind --", printable(files[1]))
	case len(files) == 1 && len(command) > 0:
		return errors.New("calibrate takes a file of points or a command, not both")
	case o.forget && len(files)+len(command) > 0:
		return errors.New("flag --forget takes neither points nor a command")
	case o.check && (o.profile == "" || len(files) == 0):
		return fmt.Errorf("flag --check needs points and a profile: wattspan calibrate --check --profile NAME POINTS.csv, where NAME is one of %s",
			strings.Join(checkable(), ", "))
	case !o.check && o.profile != "":
		return errors.New("flag --profile names what --check is about; without --check the profile is fitted")
	case o.seconds < leastSeconds || o.seconds > mostSeconds:
		return fmt.Errorf("flag --seconds: %d is outside %d to %d", o.seconds, leastSeconds, mostSeconds)
	}
	if o.forget {
		return refuse("says nothing with --forget", "check", "dry-run", "points", "seconds", "force")
	}
	if len(files) == 1 {
		return refuse("is for reading this machine's sensors, and there is a file of points", "points", "seconds", "force")
	}
	return nil
}

// calibrationSchema names the version of the machine-readable result.
const calibrationSchema = "wattspan.calibration/v1"

// calibrated is what calibrate has found. Marshalled as JSON it is the contract
// that docs/NODE.md documents.
type calibrated struct {
	Schema         string        `json:"schema"`
	Profile        string        `json:"profile"`
	Base           sensors.Watts `json:"base_w"`
	Efficiency     float64       `json:"efficiency"`
	BaseBand       float64       `json:"base_band"`
	EfficiencyBand float64       `json:"efficiency_band"`
	node.Quality
	// Stored is whether the profile was stored now, Path where it is; of a
	// profile that is only checked, Path is where it was found.
	Stored bool     `json:"stored"`
	Path   string   `json:"path,omitempty"`
	Notes  []string `json:"notes,omitempty"`

	checked   bool
	forgotten string // what --forget did, in words
	low, high sensors.Watts
}

func newCalibrated(p node.Profile, q node.Quality, points []node.Point) *calibrated {
	c := &calibrated{
		Schema: calibrationSchema, Profile: p.Name, Base: p.Base, Efficiency: p.Efficiency,
		BaseBand: p.BaseBand, EfficiencyBand: p.EfficiencyBand, Quality: q,
		low: points[0].Wall, high: points[0].Wall,
	}
	for _, at := range points {
		c.low, c.high = min(c.low, at.Wall), max(c.high, at.Wall)
	}
	if p.Note != "" {
		c.Notes = append(c.Notes, p.Note)
	}
	return c
}

// calibrate does what the flags say.
func (o calibrateOptions) calibrate(ctx context.Context, in io.Reader, talk io.Writer, files, command []string) (*calibrated, error) {
	if o.forget {
		path, removed, err := node.Forget()
		if err != nil {
			return nil, fmt.Errorf("the stored profile was not removed: %w", err)
		}
		c := &calibrated{Schema: calibrationSchema, Path: path, forgotten: "no profile is stored for this machine"}
		if removed {
			c.forgotten = "removed " + path
		}
		if _, system, ok, _ := node.Load(); ok {
			c.Notes = append(c.Notes, "runs here take the profile of "+system+", which is for all users")
		}
		return c, nil
	}
	machine := host.Describe(ctx, sensors.RootsOf(o.detect...))
	if len(files) == 1 {
		points, err := readPoints(files[0], in)
		if err != nil {
			return nil, err
		}
		if o.check {
			return checkProfile(o.profile, points)
		}
		return o.fit(points, machine, printable(files[0]), time.Now())
	}
	if machine.Virtual() && !o.force {
		_, reason, _ := node.For(machine, 0)
		return nil, fmt.Errorf("%s: a meter at the plug shows the whole node; --force calibrates all the same", reason)
	}
	if err := reportWritable(o.points); err != nil {
		return nil, fmt.Errorf("flag --points: %w", err)
	}
	terminated, release := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer release()
	ctx, release = signal.NotifyContext(terminated, os.Interrupt)
	defer release()
	points, source, err := o.measure(ctx, in, talk, command)
	switch {
	case terminated.Err() != nil:
		return nil, exitError{errors.New("terminated; nothing was stored"), 128 + int(syscall.SIGTERM)}
	case ctx.Err() != nil:
		return nil, exitError{errors.New("interrupted; nothing was stored"), exitInterrupted}
	case err != nil:
		return nil, err
	}
	return o.fit(points, machine, source, time.Now())
}

// readPoints reads a file of points, - being standard input.
func readPoints(path string, stdin io.Reader) ([]node.Point, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	points, err := node.ParsePoints(stdin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(path), err)
	}
	return points, nil
}

// fit fits the points and stores the profile, unless that is not wanted. With an
// error it returns what was found so far.
func (o calibrateOptions) fit(points []node.Point, machine host.Machine, source string, now time.Time) (*calibrated, error) {
	p, q, err := node.Fit(points)
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was stored", err)
	}
	p.Source = fmt.Sprintf("%s (%s), %s: median error %s", p.Source, source, now.Format(time.DateOnly), errorPercent(q.MedianErrorPercent))
	c := newCalibrated(p, q, points)
	if o.dryRun {
		return c, nil
	}
	if machine.Virtual() {
		c.Notes = append(c.Notes, "this is a virtual machine ("+machine.Hypervisor+"): a meter at the plug shows the whole node, of which it has a share; runs here take the profile all the same")
	}
	if c.Path, err = node.Store(p); err != nil {
		return c, fmt.Errorf("the profile was not stored: %w", err)
	}
	c.Stored = true
	return c, nil
}

// checkProfile compares a profile with the points.
func checkProfile(name string, points []node.Point) (*calibrated, error) {
	var p node.Profile
	var path string
	if strings.EqualFold(name, storedProfile) {
		found, from, ok, err := node.Load()
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, errors.New("no profile is stored for this machine; wattspan calibrate POINTS.csv fits and stores one")
		}
		p, path = found, from
	} else {
		found, err := node.Named(name)
		if err != nil {
			return nil, fmt.Errorf("flag --profile: %w", err)
		}
		p = found
	}
	c := newCalibrated(p, node.Check(p, points), points)
	c.checked, c.Path = true, path
	below := 0
	for _, at := range points {
		if at.Wall < at.Sensed {
			below++
		}
	}
	if below > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("at %s the meter shows less than the sensors, which cannot be", plural(below, "point")))
	}
	return c, nil
}

// print writes the result for people.
func (c *calibrated) print(p *page) {
	if c.forgotten != "" {
		p.text(0, "wattspan calibrate: "+c.forgotten)
		c.printNotes(p)
		return
	}
	formula := p.strong(fmt.Sprintf("P = (sensed + %v) / %s", c.Base, digits(c.Efficiency)))
	if c.checked {
		p.text(0, fmt.Sprintf("wattspan calibrate: profile %s on %s: %s", c.Profile, plural(c.N, "point"), formula))
	} else {
		p.text(0, fmt.Sprintf("wattspan calibrate: fit on %s: %s", plural(c.N, "point"), formula))
	}
	p.blank()
	p.row("base", c.Base.String(), "what draws power all the time and has no sensor, ±"+errorPercent(100*c.BaseBand))
	p.row("efficiency", digits(c.Efficiency), "of the power at the plug; the rest is lost or grows with the load, ±"+errorPercent(100*c.EfficiencyBand))
	section(p, fmt.Sprintf("errors at the plug, from %v to %v (± is one standard deviation)", c.low, c.high))
	p.row("model", errorPercent(c.MedianErrorPercent), fmt.Sprintf("median; of 95 %% of the points no more than %s, of the worst %s",
		errorPercent(c.P95ErrorPercent), errorPercent(c.MaxErrorPercent)))
	p.row("plain sum", errorPercent(c.SumMedianErrorPercent), "median, of what the sensors see without the model")
	p.blank()
	switch {
	case c.Stored:
		p.text(2, "stored in "+c.Path+": runs on this machine take it from now on")
	case c.checked && c.Path != "":
		p.text(2, "it is in "+c.Path)
	case !c.checked:
		p.text(2, "not stored")
	}
	c.printNotes(p)
}

func (c *calibrated) printNotes(p *page) {
	for _, n := range c.Notes {
		p.text(2, "note: "+n)
	}
}

// digits is an efficiency.
func digits(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }

// errorPercent is an error with two digits: a meter knows no more.
func errorPercent(v float64) string {
	switch {
	case v == 0:
		return "0 %"
	case v < 0.1:
		return "under 0.1 %"
	}
	return strconv.FormatFloat(v, 'f', max(0, 1-int(math.Floor(math.Log10(v)))), 64) + " %"
}

// writeJSON writes the result for programs.
func (c *calibrated) writeJSON(path string, stdout io.Writer) error {
	if path == "" {
		return nil
	}
	var what any = c
	if c.forgotten != "" {
		what = struct {
			Schema string   `json:"schema"`
			Stored bool     `json:"stored"`
			Path   string   `json:"path"`
			Notes  []string `json:"notes,omitempty"`
		}{c.Schema, false, c.Path, c.Notes}
	}
	data, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if path == "-" {
		_, err = stdout.Write(data)
	} else {
		err = writeReport(path, data)
	}
	if err != nil {
		return fmt.Errorf("json: %w", err)
	}
	return nil
}

// A session reads the sensors at several loads while somebody reads the meter.
type session struct {
	talk     io.Writer
	answers  *answers
	seconds  int
	terminal bool // somebody can be asked again
	// sense returns the mean power that the sensors see in the time.
	sense func(ctx context.Context, d time.Duration) (sensors.Watts, error)
}

// load is a load that a session makes.
type load struct {
	name     string
	optional bool
	// begin starts it. What it returns ends it, and lost is sent to if it ends
	// by itself.
	begin func(ctx context.Context) (lost <-chan error, end func(), err error)
}

// measure reads this machine's sensors, and returns the points and what they are
// from.
func (o calibrateOptions) measure(ctx context.Context, in io.Reader, talk io.Writer, command []string) ([]node.Point, string, error) {
	loads := []load{{name: "idle", begin: nothing}}
	if len(command) > 0 {
		path, err := lookPath(command[0])
		if err != nil {
			return nil, "", startError(command[0], err)
		}
		loads = append(loads, load{name: printable(command[0]), begin: program(path, command, talk)})
	} else {
		n := runtime.GOMAXPROCS(0)
		loads = append(loads, load{name: "full load on " + plural(n, "processor"), begin: burning(n)})
		if n > 1 {
			loads = append(loads, load{name: "load on " + plural(n/2, "processor"), begin: burning(n / 2), optional: true})
		}
	}
	// Of the machine, also where another run reads the hardware for this one.
	t, err := tracker.Start(ctx, tracker.WithName("calibrate"), tracker.WithScope(tracker.Machine), tracker.WithNodeProfile(tracker.NodeNone),
		tracker.WithDetection(o.detect...), tracker.WithSharing(o.share),
		tracker.WithInterval(min(time.Duration(o.seconds)*time.Second/10, tracker.DefaultInterval)),
		tracker.WithTracerProvider(tracenoop.NewTracerProvider()), tracker.WithMeterProvider(metricnoop.NewMeterProvider()))
	if err != nil {
		return nil, "", err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBudget)
		defer cancel()
		_, _ = t.Stop(stopping)
	}()
	f, _ := in.(*os.File)
	s := session{talk: talk, answers: readLines(in), seconds: o.seconds, terminal: f != nil && isTerminal(f),
		sense: func(ctx context.Context, d time.Duration) (sensors.Watts, error) { return sensedBy(ctx, t, d) }}
	fmt.Fprint(talk, "wattspan calibrate: reads the sensors of this machine while you read the meter at its plug.\n")
	points, names, err := s.run(ctx, loads)
	if err == nil && o.points != "" {
		err = writeReport(o.points, pointsFile(points, names))
	}
	if err != nil {
		return nil, "", err
	}
	if r := t.Snapshot(); r.Partial {
		fmt.Fprint(talk, "wattspan calibrate: not all that draws power can be read here: the fit stands for what is left out, too; see wattspan doctor\n")
	} else if share, _ := measuredShare(r); share < 0.5 {
		fmt.Fprint(talk, "wattspan calibrate: most of what the sensors say here is a model's: the fit is of that model, too; see wattspan doctor\n")
	}
	return points, "read at " + list(names), nil
}

// pointsFile is what was read, as a file that calibrate reads.
func pointsFile(points []node.Point, names []string) []byte {
	var b strings.Builder
	b.WriteString("sensed_w,wall_w,load\n")
	for i, p := range points {
		fmt.Fprintf(&b, "%.3f,%v,%s\n", float64(p.Sensed), float64(p.Wall), strconv.Quote(strings.ReplaceAll(names[i], `"`, "'")))
	}
	return []byte(b.String())
}

// run goes through the loads. An optional one is left out where nobody answers.
func (s *session) run(ctx context.Context, loads []load) (points []node.Point, names []string, err error) {
	for _, l := range loads {
		if l.optional && s.answers.ended() {
			break
		}
		p, err := s.point(ctx, l)
		switch {
		case errors.Is(err, errSkipped) || l.optional && errors.Is(err, io.EOF):
			continue
		case errors.Is(err, io.EOF):
			return nil, nil, fmt.Errorf("the input ended before the meter's figure at %s; nothing was stored", l.name)
		case err != nil:
			return nil, nil, err
		}
		fmt.Fprintf(s.talk, "  %v sensed, %v at the plug\n", p.Sensed, p.Wall)
		points, names = append(points, p), append(names, l.name)
	}
	return points, names, nil
}

// errSkipped is returned where an optional load is not answered for.
var errSkipped = errors.New("skipped")

// point reads one load: the sensors, and then the meter while it goes on.
func (s *session) point(ctx context.Context, l load) (node.Point, error) {
	window := time.Duration(s.seconds) * time.Second
	settle := min(window/3, 10*time.Second)
	fmt.Fprintf(s.talk, "\n%s, for %s%s\n", l.name, span(settle+window), map[bool]string{true: ": leave the machine alone"}[l.name == "idle"])
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost, end, err := l.begin(working)
	if err != nil {
		return node.Point{}, err
	}
	defer end()
	go func() {
		select {
		case err := <-lost:
			cancel(fmt.Errorf("%s ended (%v) before it was read; use one that runs for %s and longer", l.name, cmp.Or(err, errors.New("exit code 0")), span(settle+window)))
		case <-working.Done():
		}
	}()
	if err := pause(working, settle); err != nil {
		return node.Point{}, err
	}
	sensed, err := s.sense(working, window)
	if err != nil {
		return node.Point{}, err
	}
	wall, err := s.ask(working, sensed, l.optional)
	return node.Point{Sensed: sensed, Wall: wall}, err
}

// ask asks for the meter's figure. At a terminal it asks until it gets one; what a
// script says is right or wrong at once.
func (s *session) ask(ctx context.Context, sensed sensors.Watts, optional bool) (sensors.Watts, error) {
	question := "What does the meter show now, in W? "
	if optional {
		question = "What does the meter show now, in W? (Enter alone skips this load) "
	}
	for {
		fmt.Fprint(s.talk, question)
		text, err := s.answers.next(ctx)
		if !s.terminal {
			fmt.Fprintln(s.talk)
		}
		if err != nil {
			return 0, err
		}
		if optional && strings.TrimSpace(text) == "" {
			return 0, errSkipped
		}
		wall, err := parseWatts(text)
		if err == nil && wall < sensed {
			err = fmt.Errorf("the meter cannot show less than the sensors see, %v", sensed)
		}
		if err == nil {
			return wall, nil
		}
		if !s.terminal {
			return 0, err
		}
		fmt.Fprintf(s.talk, "%v. ", err)
	}
}

// parseWatts reads what a person types: 87.5, 87,5, 87 W, 0.087 kW.
func parseWatts(text string) (sensors.Watts, error) {
	number := strings.ToLower(strings.Join(strings.Fields(text), ""))
	scale := 1.0
	if rest, ok := strings.CutSuffix(number, "w"); ok {
		number = rest
		if rest, ok := strings.CutSuffix(number, "k"); ok {
			number, scale = rest, 1000
		}
	}
	if !strings.Contains(number, ".") {
		number = strings.Replace(number, ",", ".", 1)
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v > 0) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%s is not a power; type it like 87.5", quote(text))
	}
	return sensors.Watts(v * scale), nil
}

// sensedBy returns the mean power that a tracker sees of the devices from now on.
func sensedBy(ctx context.Context, t interface{ Snapshot() tracker.Report }, d time.Duration) (sensors.Watts, error) {
	before := t.Snapshot()
	if err := pause(ctx, d); err != nil {
		return 0, err
	}
	after := t.Snapshot()
	elapsed := after.Run.Duration - before.Run.Duration
	if after.Energy.Device == nil || before.Energy.Device == nil || elapsed <= 0 {
		return 0, errors.New("no sensor of this machine has a figure; see wattspan doctor")
	}
	return sensors.Watts(float64(*after.Energy.Device-*before.Energy.Device) / elapsed), nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// nothing is the load of an idle machine.
func nothing(context.Context) (<-chan error, func(), error) { return nil, func() {}, nil }

// burning keeps n processors busy.
func burning(n int) func(context.Context) (<-chan error, func(), error) {
	return func(context.Context) (<-chan error, func(), error) {
		done := make(chan struct{})
		var busy sync.WaitGroup
		for range n {
			busy.Go(func() {
				x := 1.0
				for {
					select {
					case <-done:
						runtime.KeepAlive(x)
						return
					default:
					}
					for range 1 << 14 {
						x = math.Sqrt(x*1.5 + 1)
					}
				}
			})
		}
		return nil, func() { close(done); busy.Wait() }, nil
	}
}

// program runs a command as the load. What it says on standard output is dropped,
// as it would come in between the questions.
func program(path string, argv []string, stderr io.Writer) func(context.Context) (<-chan error, func(), error) {
	return func(ctx context.Context) (<-chan error, func(), error) {
		ctx, cancel := context.WithCancel(ctx)
		c := exec.CommandContext(ctx, path)
		c.Args, c.Stderr, c.WaitDelay = slices.Clone(argv), stderr, 5*time.Second
		c.Cancel = func() error {
			if err := c.Process.Signal(os.Interrupt); err == nil || errors.Is(err, os.ErrProcessDone) {
				return err
			}
			return c.Process.Kill() // where processes cannot be interrupted
		}
		if err := c.Start(); err != nil {
			cancel()
			return nil, nil, startError(argv[0], err)
		}
		lost, ended := make(chan error, 1), make(chan struct{})
		go func() {
			lost <- c.Wait()
			close(ended)
		}()
		return lost, func() { cancel(); <-ended }, nil
	}
}

// answers are the lines that somebody types. They are read in a goroutine of its
// own, which a terminal may keep for ever: the program ends without it.
type answers struct {
	lines chan string
	done  chan struct{}
}

func readLines(in io.Reader) *answers {
	a := &answers{lines: make(chan string), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			a.lines <- scanner.Text()
		}
	}()
	return a
}

// next waits for a line; the error is io.EOF where there is none any more.
func (a *answers) next(ctx context.Context) (string, error) {
	select {
	case line := <-a.lines:
		return line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-a.done:
		return "", io.EOF
	}
}

// ended reports whether no line comes any more, as far as that is known soon.
func (a *answers) ended() bool {
	select {
	case <-a.done:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}
