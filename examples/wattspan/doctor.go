package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/tracker"
)

// The exit codes of doctor, for scripts. Of several that apply the first of
// these is taken: 125, 2, 3, 1. That a figure is a model is how most virtual
// machines are, whereas an exporter that does not answer is broken.
const (
	exitMeasured  = 0 // all that the machine has is measured
	exitEstimated = 1 // nothing is left out, and something is a model's
	exitPartial   = 2 // something that draws power cannot be read
	exitExporter  = 3 // what is to be exported does not arrive
)

// The range of --for. The least is a few updates of the slowest sensor.
const (
	defaultLook = time.Second
	leastLook   = 500 * time.Millisecond
	longestLook = time.Minute
)

func newDoctorCommand(stdout io.Writer, code *int) *cobra.Command {
	look := defaultLook
	offline, asJSON := false, false
	cmd := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Say whether this machine can be measured, and what would help",
		Long: `Looks at this machine, measures it for a moment, and says what can be measured
here, what is a model's figure, what cannot be read, and the commands that mend
it. Nothing is changed and nothing is sent. Where the OTEL_* variables name a
collector, a connection to it is opened and closed again.

Exit codes: 0 all that the machine has is measured; 1 nothing is left out, but
something is estimated by a model; 2 something cannot be read; 3 the collector
does not answer, or what the OTEL_* variables say is not understood (of the
codes 1 and 3 it is 3, of 2 and 3 it is 2); 125 doctor itself failed.`,
		Example: `  wattspan doctor
  wattspan doctor --for 10s --country FR
  wattspan doctor --json --offline | jq .verdict`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if look < leastLook || look > longestLook {
				return fmt.Errorf("flag --for: %v is outside %v to %v", look, leastLook, longestLook)
			}
			c, err := loadConfiguration(cmd.Flags())
			if err != nil {
				return err
			}
			d, err := examine(cmd.Context(), c, look, !offline)
			if err != nil {
				return err
			}
			*code = d.ExitCode
			if asJSON {
				return d.writeJSON(stdout)
			}
			p := newPage(stdout, c.settings.Color, os.Getenv)
			d.print(p)
			return p.flush()
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().DurationVar(&look, "for", look, "how long to measure, from "+leastLook.String()+" to "+longestLook.String())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	cmd.Flags().BoolVar(&offline, "offline", false, "do not try whether the collector answers")
	// What is left out says something of a run, which doctor has none of.
	addOptions(cmd, "json", "name", "scope", "interval", "quiet", "verbose", "progress")
	return cmd
}

// doctorSchema names the version of the machine-readable diagnosis. Fields may
// be added under the same name; none is removed or changes its meaning.
const doctorSchema = "wattspan.doctor/v1"

// A diagnosis is what doctor has found. Marshalled as JSON it is the contract
// that docs/DOCTOR.md documents.
type diagnosis struct {
	Schema        string      `json:"schema"`
	Version       string      `json:"version"` // of Wattspan
	Verdict       state       `json:"verdict"`
	Summary       string      `json:"summary"` // the verdict in a sentence
	ExitCode      int         `json:"exit_code"`
	Build         build       `json:"build"`
	System        system      `json:"system"`
	Components    []component `json:"components"`
	Findings      []finding   `json:"findings"`
	Accounting    accounting  `json:"accounting"`
	Export        exportState `json:"export"`
	Configuration []fileState `json:"configuration"`
	// Report is that of the short run; its machine, location, factors and
	// left_out are what the diagnosis is about.
	Report tracker.Report `json:"report"`
}

// build is how this program was built.
type build struct {
	Go string `json:"go"`
	// CGO is whether it contains what reads NVIDIA GPUs.
	CGO bool `json:"cgo"`
}

// fileState is a file of the configuration, and what became of it.
type fileState struct {
	Source source `json:"source"`
	Path   string `json:"path,omitempty"`
	State  string `json:"state"`
}

// state is how well something is known.
type state string

const (
	stateMeasured   state = "measured"
	stateEstimated  state = "estimated"  // complete, and not all of it measured
	statePartial    state = "partial"    // something of it cannot be read
	stateUnreadable state = "unreadable" // there, and nothing of it can be read
	stateIncluded   state = "included"   // inside another component's figure
	stateAbsent     state = "absent"     // not there, which is no lack
)

// component is one of the components, and its devices.
type component struct {
	Component sensors.Component `json:"component"`
	State     state             `json:"state"`
	// Power is the sum over the devices; nil where none has a figure.
	Power *sensors.Watts `json:"power_w"`
	// Reasons say why something is absent or unreadable.
	Reasons []string   `json:"reasons,omitempty"`
	Devices []examined `json:"devices"`
}

// examined is one device, and what was seen of it.
type examined struct {
	ID     string         `json:"id"`
	Index  int            `json:"index"`
	Name   string         `json:"name"`
	Method sensors.Method `json:"method"`
	Scope  sensors.Scope  `json:"scope"`
	Source string         `json:"source"`
	Note   string         `json:"note,omitempty"`
	// ErrorBand is one standard deviation, relative.
	ErrorBand float64 `json:"error_band"`
	// Power is the mean while doctor looked; nil where nothing was seen.
	Power *sensors.Watts `json:"power_w"`
	// Trouble is what is wrong with the device, empty where nothing is.
	Trouble string `json:"trouble,omitempty"`

	refresh time.Duration // how old a value can be
}

// examine looks at the machine for a while.
func examine(ctx context.Context, c configuration, look time.Duration, online bool) (*diagnosis, error) {
	detect, err := c.settings.detection()
	if err != nil {
		return nil, err
	}
	set, err := sensors.Detect(ctx, detect...)
	if err != nil {
		return nil, err
	}
	c.settings.JSON = "" // the file of a run
	opts, err := c.settings.options("doctor")
	if err != nil {
		return nil, err
	}
	opts = append(opts, tracker.WithSensors(set),
		tracker.WithScope(tracker.Machine), tracker.WithInterval(tracker.DefaultInterval),
		tracker.WithTracerProvider(tracenoop.NewTracerProvider()), tracker.WithMeterProvider(metricnoop.NewMeterProvider()))
	t, err := tracker.Start(ctx, opts...)
	if err != nil {
		return nil, err
	}
	// Whether the collector answers is found out meanwhile.
	exports := make(chan exportState, 1)
	go func() { exports <- examineExport(ctx, os.Environ(), online) }()
	select {
	case <-time.After(look):
	case <-ctx.Done():
	}
	report, err := t.Stop(ctx)
	if err == nil {
		// Otherwise a reader may hang in its driver, where it must not be
		// closed; the process ends soon.
		_ = set.Close()
	}

	d := &diagnosis{
		Schema: doctorSchema, Version: tracker.Version,
		Build:      build{Go: runtime.Version(), CGO: cgoEnabled()},
		System:     lookAround(report.Machine, sensors.RootsOf(detect...)),
		Components: componentsOf(set, report),
		Accounting: examineAccounting(),
		Export:     <-exports,
		Report:     report,
	}
	for _, f := range c.files {
		d.Configuration = append(d.Configuration, fileState{f.source, f.path, f.state})
	}
	d.Findings = slices.Concat(
		d.System.unread(d.Components),
		d.System.prescribe(set.Omissions(), set.Missing()),
		placeFindings(report), d.Accounting.findings(), d.Export.findings())
	d.judge()
	return d, nil
}

// judge draws the verdict.
func (d *diagnosis) judge() {
	var lacking, modelled, measured []string
	for _, c := range d.Components {
		name := string(c.Component)
		switch c.State {
		case statePartial, stateUnreadable:
			lacking = append(lacking, name)
		case stateEstimated:
			modelled = append(modelled, name)
		case stateMeasured:
			measured = append(measured, name)
		}
	}
	are := func(names []string) string {
		if len(names) == 1 {
			return names[0] + " is"
		}
		return list(names) + " are"
	}
	switch {
	case len(lacking) > 0:
		d.Verdict, d.ExitCode = statePartial, exitPartial
		d.Summary = "not all of the " + list(lacking) + " can be read"
		if len(modelled) > 0 {
			d.Summary += ", and " + are(modelled) + " modelled"
		}
	case len(modelled) > 0:
		d.Verdict, d.ExitCode = stateEstimated, exitEstimated
		d.Summary = "nothing is left out, but " + are(modelled) + " modelled, not measured"
	default:
		d.Verdict, d.ExitCode = stateMeasured, exitMeasured
		d.Summary = are(measured) + " measured"
	}
	if d.Export.broken() {
		d.Summary += "; the export does not work"
		if d.ExitCode != exitPartial {
			d.ExitCode = exitExporter
		}
	}
}

// componentsOf sorts what was seen by component.
func componentsOf(set *sensors.Set, r tracker.Report) []component {
	described := map[string]sensors.Device{} // by ID: the report has the node's meter elsewhere
	for _, d := range set.Devices() {
		described[d.ID] = d
	}
	var all []component
	for _, kind := range []sensors.Component{sensors.GPU, sensors.CPU, sensors.Memory} {
		c := component{Component: kind, Devices: []examined{}}
		troubled, modelled := false, false
		for _, seen := range r.Devices {
			if seen.Component != kind {
				continue
			}
			a := assess(seen, described[seen.ID], r.Run)
			if a.Power != nil {
				sum := *a.Power
				if c.Power != nil {
					sum += *c.Power
				}
				c.Power = &sum
			}
			troubled = troubled || a.Trouble != ""
			modelled = modelled || !seen.Method.Measured()
			c.Devices = append(c.Devices, a)
		}
		absent := true
		for _, m := range r.Missing {
			if m.Component != kind || slices.ContainsFunc(c.Devices, func(a examined) bool { return a.ID == m.Device }) {
				continue // a device that was seen says so itself
			}
			absent = absent && m.Status == sensors.Absent
			reason := m.Reason
			if m.Device != "" && !strings.Contains(reason, m.Device) {
				reason = m.Device + ": " + reason
			}
			if !slices.Contains(c.Reasons, reason) {
				c.Reasons = append(c.Reasons, reason)
			}
		}
		switch {
		case c.Power == nil && len(c.Devices) == 0 && len(c.Reasons) == 0:
			c.State = stateIncluded
		case c.Power == nil && len(c.Devices) == 0 && absent:
			c.State = stateAbsent
		case c.Power == nil:
			c.State = stateUnreadable
		case troubled || !absent:
			c.State = statePartial
		case modelled:
			c.State = stateEstimated
		default:
			c.State = stateMeasured
		}
		all = append(all, c)
	}
	return all
}

// assess says what was seen of a device, and whether it can be believed.
func assess(seen tracker.Device, described sensors.Device, run tracker.Run) examined {
	a := examined{
		ID: seen.ID, Index: described.Index, Name: seen.Name, Method: seen.Method, Scope: seen.Scope,
		Source: seen.Source, Note: seen.Note, ErrorBand: described.ErrorBand, refresh: described.Refresh,
	}
	if seen.Energy == nil {
		a.Trouble = seen.Reason
		return a
	}
	power := run.Power(*seen.Energy)
	a.Power = &power
	switch {
	case seen.Status == tracker.StatusFailed:
		a.Trouble = seen.Reason
	case *seen.Energy == 0 && seen.Method.Measured():
		// Some hypervisors and firmware show a counter that never moves.
		a.Trouble = fmt.Sprintf("it stood still for %v, which no running hardware does", look(run))
		a.Power = nil
	}
	return a
}

// look is how long the machine was looked at.
func look(run tracker.Run) string { return span(seconds(run.Duration)) }

// writeJSON prints the diagnosis for programs.
func (d *diagnosis) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(d)
}

// system is the machine and this process's place in it, as far as remedies
// depend on it.
type system struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
	// Container names what contains this process: docker, podman, kubernetes,
	// apptainer, or what systemd calls it; empty where nothing is known to.
	Container string `json:"container,omitempty"`
	// Superuser is whether this process runs as root.
	Superuser bool   `json:"superuser"`
	Sys       string `json:"sys_root"`
	Proc      string `json:"proc_root"`

	machine      host.Machine
	executable   string       // this program's file
	distribution string       // ID of os-release
	driver       bool         // NVIDIA's kernel driver is loaded
	nodes        []deviceNode // of the NVIDIA driver
}

// deviceNode is a device file.
type deviceNode struct {
	path, group string
	open        bool // this process may use it
}
