package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/dcgm"
	"github.com/wattspan/wattspan/sensors/meter"
	"github.com/wattspan/wattspan/sensors/node"
	"github.com/wattspan/wattspan/tracker"
)

// settings are the options of the runner, whatever they came from. The tags are
// the names in the table of options.
type settings struct {
	Name        string        `koanf:"name"`
	Country     string        `koanf:"country"`
	Subdivision string        `koanf:"subdivision"`
	Region      string        `koanf:"region"`
	Intensity   string        `koanf:"intensity"` // grams per kWh; empty: a table's
	PUE         string        `koanf:"pue"`       // empty: a table's
	Interval    time.Duration `koanf:"interval"`
	Scope       string        `koanf:"scope"`   // machine or job; empty: as the tracker decides
	Idle        string        `koanf:"idle"`    // who is charged with idle power
	Profile     string        `koanf:"profile"` // of the node model
	NodeMeter   string        `koanf:"node-meter"`
	DCGM        string        `koanf:"dcgm"`
	SysRoot     string        `koanf:"sys-root"`  // empty: HOST_SYS or /sys
	ProcRoot    string        `koanf:"proc-root"` // likewise
	Share       string        `koanf:"share"`     // directory in which trackers of a machine meet, or off
	JSON        string        `koanf:"json"`      // file to write the report to
	Quiet       bool          `koanf:"quiet"`     // no summary
	Verbose     bool          `koanf:"verbose"`   // a summary with every device, factor and source
	Progress    time.Duration `koanf:"progress"`  // how often to show the figures so far; 0: never
	Color       string        `koanf:"color"`     // auto, always or never
	Config      string        `koanf:"config"`    // the file that stands in for the project's

	jsonFrom     string // who named the report's file, for messages
	placeFromEnv bool   // the place is stated by the environment alone
}

// options turns the settings into options of the tracker. It looks whether the
// report can be written, which must not turn out at the end of a long job.
func (s settings) options(command string) ([]tracker.Option, error) {
	opts := []tracker.Option{
		tracker.WithName(cmp.Or(s.Name, filepath.Base(command))),
		tracker.WithInterval(s.Interval),
		tracker.WithIdle(tracker.Idle(s.Idle)),
		tracker.WithNodeProfile(s.Profile),
	}
	if s.Scope != "" {
		opts = append(opts, tracker.WithScope(tracker.Scope(s.Scope)))
	}
	if s.Share != "" {
		opts = append(opts, tracker.WithSharing(s.Share))
	}
	detect, err := s.detection()
	if err != nil {
		return nil, err
	}
	opts = append(opts, tracker.WithDetection(detect...))
	// The library reads the same variables, and reports that it was they.
	if !s.placeFromEnv {
		opts = append(opts, tracker.WithLocation(emissions.Location{Country: s.Country, Subdivision: s.Subdivision, Region: s.Region}))
	}
	for _, n := range []struct {
		text   string
		option func(float64) tracker.Option
	}{{s.Intensity, tracker.WithIntensity}, {s.PUE, tracker.WithPUE}} {
		if n.text == "" {
			continue
		}
		v, err := strconv.ParseFloat(n.text, 64)
		if err != nil {
			return nil, err
		}
		opts = append(opts, n.option(v))
	}
	if err := reportWritable(s.JSON); err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.Or(s.jsonFrom, "json"), err)
	}
	return opts, nil
}

// detection returns where the sensors are looked for.
func (s settings) detection() ([]sensors.Option, error) {
	var opts []sensors.Option
	if s.SysRoot != "" {
		opts = append(opts, sensors.WithSysRoot(s.SysRoot))
	}
	if s.ProcRoot != "" {
		opts = append(opts, sensors.WithProcRoot(s.ProcRoot))
	}
	if s.NodeMeter != "" {
		backend, err := meter.Meter(s.NodeMeter)
		if err != nil {
			return nil, fmt.Errorf("node-meter: %w", err)
		}
		opts = append(opts, sensors.WithBackend(backend))
	}
	if s.DCGM != "" {
		opts = append(opts, sensors.WithBackend(dcgm.Backend(s.DCGM)))
	}
	return opts, nil
}

// An option of the runner. The table below is the only place that defines one:
// flags, variables, keys of the files, completions, `config show` and the table
// in docs/CONFIGURATION.md come from it.
type option struct {
	name        string
	placeholder string // of the value, in the help; bool for one without
	help        string
	fallback    string // the value where nobody states one
	fallbackIs  string // what happens without a value
	// parse checks a value and returns it as settings have it: a string, a
	// bool or a time.Duration. Its error is a sentence about the value.
	parse func(text string) (any, error)
	// choices are all values there are, where they can be listed, each perhaps
	// with a tab and a description, as shells take them.
	choices func() []cobra.Completion
	isFile  bool // the value names a file
	noKey   bool // not in a file
	// private: not in a file that was merely found in the working directory, as
	// it would run a program, call a service or have the figures read elsewhere.
	private  bool
	suffixes []string
}

// boolean is the placeholder of options without a value; pflag knows it.
const boolean = "bool"

var options = []option{
	{name: "country", placeholder: "country", fallbackIs: "resource attributes, else a guess from the time zone", parse: parseText,
		choices: places(countryOf),
		help:    "where the machine is: ISO 3166 code or English name (FR, Germany)"},
	{name: "subdivision", placeholder: "code", fallbackIs: "none", parse: parseText,
		choices: places(subdivisionOf),
		help:    "state or province, where figures differ (US-CA, CA-QC)"},
	{name: "region", placeholder: "provider/region", fallbackIs: "none", parse: parseText,
		choices: places(regionOf),
		help:    "cloud region (aws/eu-west-3)"},
	{name: "intensity", placeholder: "number", fallbackIs: "a table's", parse: parseNumber(emissions.DeclaredIntensity),
		help: "grid intensity in g CO2e per kWh, instead of a table's"},
	{name: "pue", placeholder: "number", fallbackIs: "a table's", parse: parseNumber(emissions.DeclaredPUE),
		help: "power usage effectiveness of the facility, 1 or more, instead of a table's"},
	{name: "scope", placeholder: "machine|job", fallbackIs: "machine; job where another run reads this machine's hardware",
		parse: parseChoice(string(tracker.Machine), string(tracker.Job)), choices: fixed(string(tracker.Machine), string(tracker.Job)),
		help: "whose energy counts: the whole machine's, or the job's share"},
	{name: "idle", placeholder: "policy", fallback: string(tracker.IdleProportional),
		parse: parseChoice(idlePolicies...), choices: fixed(idlePolicies...),
		help: "who is charged with idle power in the job's share: proportional (by use), whole, reserved (its reserved part) or none"},
	{name: "profile", placeholder: "name", fallback: tracker.NodeAuto,
		parse: parseChoice(nodeProfiles()...), choices: fixed(nodeProfiles()...),
		help: "model of what no sensor sees of the machine: auto, none, or a profile's name"},
	{name: "node-meter", placeholder: "meter", fallbackIs: "one that is found", parse: parseLine, private: true,
		help: "meter of the whole machine: command:PROGRAM, file:/PATH, redfish:https://BMC or ipmi"},
	{name: "dcgm", placeholder: "url", fallbackIs: "none", parse: parseLine, private: true,
		help: "read the GPUs from a DCGM exporter, as http://localhost:9400/metrics"},
	{name: "sys-root", placeholder: "directory", fallbackIs: "HOST_SYS, else /sys", parse: parseFileName, private: true,
		help: "where the host's /sys is mounted"},
	{name: "proc-root", placeholder: "directory", fallbackIs: "HOST_PROC, else /proc", parse: parseFileName, private: true,
		help: "where the host's /proc is mounted"},
	{name: "share", placeholder: "directory|off", fallbackIs: "a directory of the user's", parse: parseFileName, private: true,
		help: "where the runs on this machine meet, so that one reads the hardware for all; off: each reads it"},
	{name: "interval", placeholder: "duration", fallback: tracker.DefaultInterval.String(), parse: parseInterval,
		help: "sampling interval, from " + tracker.MinInterval.String() + " to " + tracker.MaxInterval.String()},
	{name: "name", placeholder: "name", fallbackIs: "the command's", parse: parseText,
		help: "name of the run"},
	{name: "json", placeholder: "file", fallbackIs: "no file", parse: parseFileName, isFile: true,
		help: "write the report to this file as JSON (- for standard output)"},
	{name: "quiet", placeholder: boolean, fallback: "false", parse: parseBool, choices: fixed("true", "false"),
		help: "print no summary"},
	{name: "verbose", placeholder: boolean, fallback: "false", parse: parseBool, choices: fixed("true", "false"),
		help: "print a summary with every device, factor and source"},
	{name: "progress", placeholder: "duration", fallback: "0s", parse: parseProgress,
		help: "show the figures so far this often, 1s or more; 0 for never"},
	{name: "color", placeholder: "auto|always|never", fallback: "auto",
		parse: parseChoice("auto", "always", "never"), choices: fixed("auto", "always", "never"),
		help: "colour in the summary; auto: on a terminal, unless NO_COLOR is set"},
	{name: "config", placeholder: "file", fallbackIs: "wattspan.yaml, if there is one", parse: parseFileName, isFile: true, noKey: true,
		suffixes: []string{"yaml", "yml"},
		help:     "read this file instead of wattspan.yaml in the working directory"},
}

var idlePolicies = []string{
	string(tracker.IdleProportional), string(tracker.IdleWhole), string(tracker.IdleReserved), string(tracker.IdleNone),
}

// nodeProfiles are the values of the option profile.
func nodeProfiles() []string {
	names := []string{tracker.NodeAuto, tracker.NodeNone}
	for _, p := range node.Profiles() {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// placeOptions state the place together: a level that states one of them decides
// alone, as in emissions.Locate. A region would contradict the country that
// another level is about.
var placeOptions = []string{"country", "subdivision", "region"}

// contradicting options cannot both be true.
var contradicting = [][2]string{{"quiet", "verbose"}}

// envPrefix begins the names of all our variables.
const envPrefix = "WATTSPAN_"

// notOptions are the variables that begin like an option's and are none.
var notOptions = []string{tracker.EnvRunID, tracker.EnvRunner}

func (o option) variable() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// wants says what a value is, for "give it …".
func (o option) wants() string {
	switch o.placeholder {
	case boolean:
		return "true or false"
	case "duration", "number", "country", "name", "file", "code", "policy", "meter", "url", "directory":
		return "a " + o.placeholder
	}
	return o.placeholder
}

func findOption(name string) (option, bool) {
	i := slices.IndexFunc(options, func(o option) bool { return o.name == name })
	if i < 0 {
		return option{}, false
	}
	return options[i], true
}

// The values of options.

// The longest value taken: what is longer is a mistake, and would fill the screen.
const (
	maxText = 256
	maxPath = 4096
)

func parseText(text string) (any, error) {
	switch {
	case len(text) > maxText:
		return nil, fmt.Errorf("%s is longer than %d bytes", quote(text), maxText)
	case !utf8.ValidString(text):
		return nil, fmt.Errorf("%s is not UTF-8", quote(text))
	case strings.ContainsFunc(text, unicode.IsControl):
		// It would reach terminals and dashboards.
		return nil, fmt.Errorf("%s holds a control character", quote(text))
	}
	return text, nil
}

// parseLine takes a command line or an address, which can be longer than a name.
func parseLine(text string) (any, error) {
	if len(text) > maxPath {
		return nil, fmt.Errorf("%s is longer than %d bytes", quote(text), maxPath)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return nil, fmt.Errorf("%s is not a line of text", quote(text))
	}
	return text, nil
}

func parseFileName(text string) (any, error) {
	switch {
	case len(text) > maxPath:
		return nil, fmt.Errorf("%s is longer than a path can be", quote(text))
	case strings.ContainsFunc(text, unicode.IsControl):
		return nil, fmt.Errorf("%s holds a control character", quote(text))
	}
	return text, nil
}

func parseNumber(check func(float64) (emissions.Factor, error)) func(string) (any, error) {
	return func(text string) (any, error) {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			hint := "write it like 56 or 1.2"
			if p := strings.Replace(text, ",", ".", 1); p != text {
				if _, err := strconv.ParseFloat(p, 64); err == nil {
					hint = "write " + p
				}
			}
			return nil, fmt.Errorf("%s is not a number: %s", quote(text), hint)
		}
		if _, err := check(v); err != nil {
			return nil, err
		}
		return strconv.FormatFloat(v+0, 'g', -1, 64), nil // + 0 makes -0 a 0
	}
}

func parseBool(text string) (any, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "1":
		return true, nil
	case "false", "no", "0":
		return false, nil
	}
	return nil, fmt.Errorf("%s is neither true (yes, 1) nor false (no, 0)", quote(text))
}

func parseChoice(choices ...string) func(string) (any, error) {
	return func(text string) (any, error) {
		if !slices.Contains(choices, text) {
			err := quote(text) + " is not one of " + strings.Join(choices, ", ")
			if near := nearestName(text, choices); near != "" {
				err += "; did you mean " + near + "?"
			}
			return nil, errors.New(err)
		}
		return text, nil
	}
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("%s needs a unit, such as 500ms, 1s or 5m", quote(text))
	}
	return 0, fmt.Errorf("%s is not a duration: write it like 500ms, 1s or 5m", quote(text))
}

func parseInterval(text string) (any, error) {
	d, err := parseDuration(text)
	if err != nil {
		return nil, err
	}
	if d < tracker.MinInterval || d > tracker.MaxInterval {
		return nil, fmt.Errorf("%s is outside %v to %v", quote(text), tracker.MinInterval, tracker.MaxInterval)
	}
	return d, nil
}

func parseProgress(text string) (any, error) {
	d, err := parseDuration(text)
	if err != nil {
		return nil, err
	}
	if d != 0 && d < time.Second {
		return nil, fmt.Errorf("%s is neither 0, for never, nor 1s or more", quote(text))
	}
	return d, nil
}

// Completions of values.

func fixed(values ...string) func() []cobra.Completion {
	return func() []cobra.Completion { return values }
}

// places lists one kind of place, sorted.
func places(of func(emissions.Location) string) func() []cobra.Completion {
	return func() []cobra.Completion {
		all, err := emissions.Places()
		if err != nil {
			return nil
		}
		var found []cobra.Completion
		for _, p := range all {
			if name := of(p); name != "" {
				found = append(found, cobra.CompletionWithDesc(name, p.Detail))
			}
		}
		slices.Sort(found)
		return found
	}
}

func countryOf(p emissions.Location) string {
	if p.Region != "" || p.Subdivision != "" {
		return ""
	}
	return p.Country
}

func subdivisionOf(p emissions.Location) string {
	if p.Region != "" {
		return ""
	}
	return p.Subdivision
}

func regionOf(p emissions.Location) string {
	if p.Region == "" {
		return ""
	}
	return p.Provider + "/" + p.Region
}

// complete returns the completion of an option's values.
func (o option) complete(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch {
	case len(o.suffixes) > 0:
		return o.suffixes, cobra.ShellCompDirectiveFilterFileExt
	case o.isFile:
		return nil, cobra.ShellCompDirectiveDefault
	case o.choices == nil:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.choices(), cobra.ShellCompDirectiveNoFileComp
}

// Flags.

// addOptions gives a command the options as flags, with the completion of their
// values and messages that name the remedy. Those named in except are left out.
func addOptions(cmd *cobra.Command, except ...string) {
	addFlags(cmd.Flags(), except...)
	for _, o := range options {
		if !slices.Contains(except, o.name) {
			// It fails for a flag that does not exist.
			_ = cmd.RegisterFlagCompletionFunc(o.name, o.complete)
		}
	}
	cmd.SetFlagErrorFunc(flagError)
}

func addFlags(flags *pflag.FlagSet, except ...string) {
	for _, o := range options {
		if slices.Contains(except, o.name) {
			continue
		}
		f := flags.VarPF(&flagText{text: o.fallback, kind: o.placeholder}, o.name, "", o.help)
		if o.placeholder == boolean {
			f.NoOptDefVal = "true"
		}
		if f.DefValue == "0s" {
			f.DefValue = "" // which the help would print
		}
	}
}

// flagText keeps what a flag was given. It is parsed with the other sources.
type flagText struct{ text, kind string }

func (f *flagText) Set(text string) error { f.text = text; return nil }
func (f *flagText) String() string        { return f.text }
func (f *flagText) Type() string          { return f.kind }

// flagError says what is wrong with the flags of a command, and the remedy.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var valueless *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		given := "--" + unknown.GetSpecifiedName()
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			given = "-" + short
		}
		given, _, _ = strings.Cut(given, "=")
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if near := nearestName(strings.TrimLeft(given, "-"), known); near != "" {
			return fmt.Errorf("unknown flag %s; did you mean --%s?", printable(given), near)
		}
		return fmt.Errorf("unknown flag %s; %s --help lists the flags", printable(given), cmd.CommandPath())
	case errors.As(err, &valueless):
		if o, ok := findOption(valueless.GetSpecifiedName()); ok {
			return fmt.Errorf("flag --%s needs a value, %s: %s", o.name, o.wants(), o.help)
		}
	}
	return fmt.Errorf("%s; %s --help lists the flags", printable(err.Error()), cmd.CommandPath())
}

// The report's file.

// reportPlaceable says whether the path of a report names what can be a file.
func reportPlaceable(dir, path string) error {
	if path == "" || path == "-" {
		return nil
	}
	full := path
	if !filepath.IsAbs(full) {
		full = filepath.Join(dir, path)
	}
	if info, err := os.Stat(filepath.Dir(full)); err != nil || !info.IsDir() {
		if strings.HasPrefix(path, "~") {
			return fmt.Errorf("%s: ~ stands for nothing here; write the path in full", printable(path))
		}
		return fmt.Errorf("there is no directory %s; create it", printable(filepath.Dir(path)))
	}
	if info, err := os.Stat(full); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory; name a file in it", printable(path))
	}
	return nil
}

// reportWritable tries whether the report can be put there: a new file that takes
// the place of the old one.
func reportWritable(path string) error {
	if err := reportPlaceable("", path); err != nil || path == "" || path == "-" {
		return err
	}
	if info, err := os.Stat(path); err == nil && (!info.Mode().IsRegular() || isSystem(path)) {
		return nil // a pipe or a device, which is written to
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return fmt.Errorf("nothing can be written to the directory %s: %w; name a file elsewhere", printable(filepath.Dir(path)), err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Words.

// quote is a value for a message: short, on one line, without control characters.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// printable is a name for a message: as it is if that can be printed.
func printable(s string) string {
	const most = 200
	if s == "" || len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return quote(s)
	}
	return s
}

// nearestName returns the name that a mistyped one was meant to be, empty if none
// is near enough to be likely. It allows one mistake in three letters.
func nearestName(given string, names []string) string {
	given = strings.ToLower(given)
	own := strings.TrimPrefix(given, strings.ToLower(envPrefix))
	if len(own) < 3 || len(own) > 32 {
		return ""
	}
	best, least := "", max(1, len(own)/3)+1
	for _, name := range names {
		d := mistakes(given, strings.ToLower(name))
		if d < least {
			best, least = name, d
		}
	}
	if best != "" {
		return best
	}
	// An unfinished name, if it can only be one.
	for _, name := range names {
		if strings.HasPrefix(strings.ToLower(name), given) {
			if best != "" {
				return ""
			}
			best = name
		}
	}
	return best
}

// mistakes is the number of letters left out, added, replaced or swapped with
// their neighbour between two names.
func mistakes(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
