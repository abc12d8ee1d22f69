package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// print writes the diagnosis for people, on one screen where little is wrong.
func (d *diagnosis) print(p *page) {
	verdict := p.strong(strings.ToUpper(string(d.Verdict)))
	if d.Verdict == statePartial {
		verdict = p.warn(strings.ToUpper(string(d.Verdict)))
	}
	p.text(0, "wattspan doctor: "+verdict+": "+d.Summary)
	d.printMachine(p)
	d.printReadings(p)
	d.printUnused(p)
	d.printRest(p)
	d.printFindings(p)
}

// entry writes a label and a text, which may take several lines.
func (p *page) entry(label, text string) {
	const column = 2 + labelColumns + 1
	if p.width > 0 && p.width < narrow {
		if label != "" {
			text = label + ": " + text
		}
		p.text(2, text)
		return
	}
	p.render("  " + label + pad(label, labelColumns+1))
	p.fill(text, column, column)
}

// verbatim writes a command. It is not wrapped: it must be whole when it is
// copied.
func (p *page) verbatim(indent int, s string) {
	p.render(strings.Repeat(" ", indent) + p.clean(s) + "\n")
}

func (d *diagnosis) printMachine(p *page) {
	m, s := d.Report.Machine, d.System
	section(p, "this machine")
	kind := strings.ReplaceAll(string(m.Kind), "_", " ")
	if m.Hypervisor != "" {
		kind += " (" + m.Hypervisor + ")"
	}
	if kind == "" {
		kind = "a machine that does not tell its kind"
	}
	contained := ""
	if s.Container != "" {
		contained = "seen from a container (" + s.Container + ")"
	}
	roots := ""
	if s.Sys != "/sys" || s.Proc != "/proc" {
		roots = "read at " + s.Sys + " and " + s.Proc
	}
	p.entry("system", remarks(s.OS+"/"+s.Arch+", "+kind, contained, roots))
	memory := ""
	if m.Memory > 0 {
		// As memory is sold, and as the model of it counts: a GB is 2³⁰ bytes.
		memory = fmt.Sprintf("%v GB of memory", math.Round(float64(m.Memory)/(1<<30)*10)/10)
	}
	threads := ""
	if m.Threads > 0 {
		threads = plural(m.Threads, "thread")
		if m.Cores > 0 {
			threads = plural(m.Cores, "core") + ", " + threads
		}
		if m.Sockets > 0 {
			threads = plural(m.Sockets, "socket") + ", " + threads
		}
	}
	p.entry("hardware", remarks(m.Model, threads, memory))
	cgo := "with cgo"
	if !d.Build.CGO {
		cgo = "without cgo, and so without NVIDIA GPUs"
	}
	p.entry("wattspan", remarks(d.Version, "built "+cgo))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printReadings writes each device with what it drew.
func (d *diagnosis) printReadings(p *page) {
	section(p, "what it draws, seen for "+look(d.Report.Run)+" (± is one standard deviation)")
	for _, c := range d.Components {
		name := string(c.Component)
		switch c.State {
		case stateAbsent:
			p.row(name, "–", "none: "+strings.Join(c.Reasons, "; "))
			continue
		case stateIncluded:
			p.row(name, "–", inside(d.Report, c.Component))
			continue
		}
		before := ""
		for i, a := range c.Devices {
			label, what := name, a.what()
			if len(c.Devices) > 1 {
				label = fmt.Sprintf("%s %d", name, max(a.Index, 0))
				if c.Component != sensors.GPU {
					label = a.ID
				}
			}
			power := "–"
			if a.Power != nil {
				power = a.Power.String()
			}
			trouble := ""
			if a.Trouble != "" {
				trouble = p.warn(a.Trouble)
			}
			if what == before && i > 0 && trouble == "" {
				what = "likewise"
			} else {
				before = what
			}
			p.row(label, power, remarks(trouble, what))
		}
		for _, reason := range c.Reasons {
			p.row(name, "–", p.warn("cannot be read: "+reason))
		}
	}
	d.printNode(p)
}

// printNode writes what the machine draws at its plug, and how that is known.
func (d *diagnosis) printNode(p *page) {
	n := d.Report.Node
	if n.Energy == nil {
		if n.Reason != "" {
			p.row("node", "–", n.Reason)
		}
		return
	}
	p.row("node", d.Report.Run.Power(*n.Energy).String(), remarks(plugged(n), n.Reason))
}

// what says how a device is read.
func (a examined) what() string {
	band := ""
	if a.ErrorBand > 0 {
		band = ", ±" + percent(a.ErrorBand)
	}
	name := ""
	if a.Method.Measured() {
		name = a.Name
	}
	scope := ""
	if a.Scope == sensors.ScopeModule {
		scope = "the whole module"
	}
	// Where it is read is the device's own, and the same for all but its number.
	source, _, _ := strings.Cut(a.Source, " ")
	how := methods[a.Method]
	if how == "" {
		how = string(a.Method)
	}
	return remarks(name, how+" ("+source+")"+band, scope, strings.TrimPrefix(a.Note, "model: "))
}

// printUnused writes what was looked for and is not in use, where the findings
// do not speak of it.
func (d *diagnosis) printUnused(p *page) {
	var labels, reasons, superseded []string
	for _, o := range d.Report.LeftOut {
		backend, _, _ := strings.Cut(o.Source, " ")
		said := slices.Contains(reasons, o.Reason) ||
			slices.ContainsFunc(d.Components, func(c component) bool { return slices.Contains(c.Reasons, o.Reason) })
		switch what := strings.TrimSpace(backend + " " + o.Device); {
		case o.Status == sensors.Superseded:
			if !slices.Contains(superseded, what) {
				superseded = append(superseded, what)
			}
		case o.Status == sensors.Absent && o.Component == sensors.Node:
			// Few machines have a meter, and none has all kinds.
		case o.Status == sensors.Absent && !said:
			labels, reasons = append(labels, backend), append(reasons, o.Reason)
		}
	}
	if superseded != nil {
		labels, reasons = append(labels, "others"), append(reasons, "not needed, as something better reads the same: "+strings.Join(superseded, ", "))
	}
	if reasons == nil {
		return
	}
	section(p, "looked for and not in use")
	for i, reason := range reasons {
		p.entry(labels[i], reason)
	}
}

// countings say in words how a job's processes are counted.
var countings = map[string]string{
	tracker.AccountingCgroup:  "by a control group of its own: everything that ever runs in it",
	tracker.AccountingTree:    "as they end, and the living by walking their tree",
	tracker.AccountingProcess: "the command, and the children it has waited for",
}

func (d *diagnosis) printRest(p *page) {
	section(p, "a run here")
	how := countings[d.Accounting.Method]
	if how == "" {
		how = d.Accounting.Method
	}
	p.entry("processes", remarks("counted "+how, d.Accounting.brief()))
	l := d.Report.Location
	p.entry("place", remarks(l.Zone(), placed(p, l)))
	p.entry("intensity", provenance(d.Report.Factors.Intensity))
	p.entry("PUE", provenance(d.Report.Factors.PUE))
	d.printExport(p)
	var files []string
	for _, f := range d.Configuration {
		if f.State != "not there" && f.Path != "" {
			files = append(files, f.Path+" ("+f.State+")")
		}
	}
	if files == nil {
		files = []string{"no file"}
	}
	p.entry("options", remarks("from "+strings.Join(files, ", "), "wattspan config show has all of them"))
}

// brief says in a few words why the job has no control group.
func (a accounting) brief() string {
	switch {
	case a.Reason == "":
		return ""
	case len(a.Remedies) > 0:
		return "a control group is not permitted here"
	default:
		return "there is no control group for it"
	}
}

// provenance says where a factor is from; the JSON has its title and notes.
func provenance(f emissions.Factor) string {
	band, source := "", ""
	if f.Band > 0 {
		band = "±" + percent(f.Band)
	}
	if f.Publisher != "" {
		source = "source " + f.Source
	}
	return remarks(value(f)+", "+meaning(f), band, source)
}

func (d *diagnosis) printExport(p *page) {
	x := d.Export
	var said []string
	for _, s := range x.Signals {
		if !s.Wanted || s.Endpoint == "" {
			continue
		}
		answer := ""
		switch {
		case s.Answers == nil: // the remark says why
		case *s.Answers && s.Proxy:
			answer = "the proxy answers at " + s.Address
		case *s.Answers:
			answer = "it answers"
		default:
			answer = p.warn("it does not answer")
		}
		headers := ""
		if len(s.Headers) > 0 {
			headers = "with headers " + strings.Join(s.Headers, ", ")
		}
		text := "to " + remarks(s.Endpoint+" by "+s.Protocol, headers, answer, s.Remark)
		if i := slices.IndexFunc(said, func(other string) bool { return strings.HasSuffix(other, " "+text) }); i >= 0 {
			said[i] = "traces and metrics " + text
			continue
		}
		said = append(said, s.Signal+" "+text)
	}
	switch {
	case x.Disabled:
		said = []string{"nothing is sent: OTEL_SDK_DISABLED is true"}
	case said == nil && len(x.Problems) == 0:
		said = []string{"nothing is sent anywhere: no OTEL_* variable names a collector"}
	case said == nil:
		said = []string{p.warn("nothing is sent: the OTEL_* variables are not understood")}
	}
	for i, text := range said {
		label := "export"
		if i > 0 {
			label = ""
		}
		p.entry(label, text)
	}
}

// printFindings writes what could be better, the worst first.
func (d *diagnosis) printFindings(p *page) {
	n := 0
	for _, s := range []severity{problem, improvement, limit} {
		for _, f := range d.Findings {
			if f.Severity != s {
				continue
			}
			if n++; n == 1 {
				section(p, "what would be better")
			}
			text := f.Text
			if len(f.Devices) > 0 {
				text += " It is about " + list(f.Devices) + "."
			}
			if s == problem {
				text = p.warn(text)
			}
			p.text(2, fmt.Sprintf("%d.\u00A0%s", n, text))
			for _, r := range f.Remedies {
				what := r.What
				if r.Note != "" {
					what += " (" + r.Note + ")"
				}
				if len(r.Commands) > 0 {
					what += ":"
				}
				p.text(4, "– "+what)
				for _, c := range r.Commands {
					p.verbatim(6, c)
				}
			}
		}
	}
}
