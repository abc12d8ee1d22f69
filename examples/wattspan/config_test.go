package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

var updateConfiguration = flag.Bool("update-configuration", false, "write the table of options to docs/CONFIGURATION.md")

// place is somewhere to look for settings in.
type place struct {
	t *testing.T
	surroundings
}

func newPlace(t *testing.T) *place {
	t.Helper()
	root := t.TempDir()
	p := &place{t, surroundings{flags: make(map[string]string), dir: filepath.Join(root, "work"), userDir: filepath.Join(root, "config")}}
	for _, dir := range []string{p.dir, filepath.Dir(filepath.Join(p.userDir, userFile))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// write writes a file below the working directory, or at an absolute path.
func (p *place) write(name, text string) {
	p.t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(p.dir, name)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) project(text string) { p.write(projectFile, text) }
func (p *place) user(text string)    { p.write(filepath.Join(p.userDir, userFile), text) }

// state states an option at a level.
func (p *place) state(level source, name, value string) {
	o, _ := findOption(name)
	switch level {
	case fromFlag:
		p.flags[name] = value
	case fromEnvironment:
		p.environ = append(p.environ, o.variable()+"="+value)
	case fromProjectFile:
		p.project(fmt.Sprintf("# a comment\n%s: %s\n", name, value))
	case fromUserFile:
		p.user(fmt.Sprintf("\n\n%s: %s\n", name, value))
	}
}

func (p *place) mustLoad() configuration {
	p.t.Helper()
	c, err := p.load()
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// field is the field of the settings that belongs to an option.
func field(t *testing.T, s settings, name string) any {
	t.Helper()
	v := reflect.ValueOf(s)
	for f := range reflect.TypeFor[settings]().Fields() {
		if f.Tag.Get("koanf") == name {
			return v.FieldByIndex(f.Index).Interface()
		}
	}
	t.Fatalf("no field of the settings is tagged %q", name)
	return nil
}

// Any subset of levels may state an option; the strongest of them decides.
func TestTheStrongestLevelThatStatesAnOptionDecides(t *testing.T) {
	// Values of every option, one for each level.
	values := map[string][4]string{
		"country":     {"FR", "DE", "NO", "world"},
		"subdivision": {"US-CA", "US-TX", "CA-QC", "US-NY"},
		"region":      {"aws/eu-west-3", "aws/us-east-1", "gcp/us-central1", "aws/eu-west-1"},
		"intensity":   {"56", "100", "0", "800.5"},
		"pue":         {"1", "1.1", "1.2", "1.3"},
		"scope":       {"job", "machine", "job", "machine"},
		"idle":        {"whole", "none", "reserved", "proportional"},
		"profile":     {"none", "desktop", "server", "auto"},
		"node-meter":  {"ipmi", "file:/run/w", "", "redfish:https://bmc"},
		"dcgm":        {"http://a/", "http://b/", "", "http://d/"},
		"sys-root":    {"/a", "/b", "", "/d"},
		"proc-root":   {"/a", "/b", "", "/d"},
		"share":       {"off", "/b", "", "/d"},
		"interval":    {"100ms", "2s", "3s", "30s"},
		"name":        {"a", "b c", "0123", "true"},
		"json":        {"a.json", "b.json", "c.json", "-x"},
		"quiet":       {"true", "no", "1", "false"},
		"verbose":     {"0", "yes", "false", "TRUE"},
		"progress":    {"0", "1s", "1m30s", "1h"},
		"color":       {"never", "always", "auto", "never"},
	}
	// As the settings have them.
	meanings := map[string]any{"yes": true, "1": true, "true": true, "TRUE": true, "no": false, "0": false, "false": false}
	levels := []source{fromFlag, fromEnvironment, fromProjectFile, fromUserFile}
	for _, o := range options {
		if o.noKey {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			for subset := range 1 << len(levels) {
				if o.private && subset&(1<<2) != 0 {
					continue // see TestPrivateOptions
				}
				p := newPlace(t)
				var want any = o.fallback
				level := fromDefault
				for i := len(levels) - 1; i >= 0; i-- {
					if subset&(1<<i) != 0 {
						level, want = levels[i], values[o.name][i]
						p.state(level, o.name, values[o.name][i])
					}
				}
				c := p.mustLoad()
				got := field(t, c.settings, o.name)
				switch g := got.(type) {
				case bool:
					want = meanings[want.(string)]
				case time.Duration:
					d, err := time.ParseDuration(want.(string))
					if err != nil {
						t.Fatal(err)
					}
					want, got = d, g
				}
				if got != want {
					t.Errorf("levels %04b: got %v, want %v", subset, got, want)
				}
				origin := c.stated[o.name].origin
				name := map[source]string{
					fromDefault: "default", fromFlag: "flag --" + o.name, fromEnvironment: "WATTSPAN_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_")),
					fromProjectFile: "wattspan.yaml:2", fromUserFile: filepath.Join(p.userDir, "wattspan", "config.yaml") + ":3",
				}[level]
				if origin.source != level || origin.reference() != name {
					t.Errorf("levels %04b: it came from %q, %s, want %s", subset, origin.source, origin.reference(), name)
				}
			}
		})
	}
}

// A command line and an address can hold secrets: they are not shown.
func TestConfigShowHoldsSecretsBack(t *testing.T) {
	stranger(t)
	t.Setenv("WATTSPAN_NODE_METER", "command:curl -u admin:hunter2 http://plug/")
	t.Setenv("WATTSPAN_DCGM", "http://me:hunter2@node:9400/metrics")
	for _, args := range [][]string{{"config", "show"}, {"config", "show", "--json"}} {
		code, out, problems := command(args...)
		if code != 0 || strings.Contains(out+problems, "hunter2") || !strings.Contains(out, "command:curl …") || !strings.Contains(out, "node:9400") {
			t.Errorf("%v: %d %s\n%s", args, code, problems, out)
		}
	}
}

// What would run a program, call a service or have the figures read elsewhere is
// not taken from a file that was merely found; the one that the user names may.
func TestPrivateOptions(t *testing.T) {
	private := 0
	for _, o := range options {
		if !o.private {
			continue
		}
		private++
		p := newPlace(t)
		p.project(o.name + ": ipmi\n")
		if _, err := p.load(); err == nil || !strings.Contains(err.Error(), "--"+o.name) || !strings.Contains(err.Error(), o.variable()) {
			t.Errorf("%s in a file found: %v", o.name, err)
		}
		p.write("named.yaml", o.name+": ipmi\n")
		p.flags["config"] = filepath.Join(p.dir, "named.yaml")
		if got := field(t, p.mustLoad().settings, o.name); got != "ipmi" {
			t.Errorf("%s in a file named: %v", o.name, got)
		}
	}
	if private < 5 {
		t.Errorf("%d private options", private)
	}
}

func TestEverySettingIsAnOption(t *testing.T) {
	var names []string
	for f := range reflect.TypeFor[settings]().Fields() {
		if f.IsExported() {
			names = append(names, f.Tag.Get("koanf"))
		}
	}
	for _, name := range names {
		if _, ok := findOption(name); !ok {
			t.Errorf("the setting %q is not in the table of options", name)
		}
	}
	if len(names) != len(options) {
		t.Errorf("%d settings for %d options", len(names), len(options))
	}
}

// A place is one statement, of the strongest level that makes one.
func TestOneLevelDecidesThePlace(t *testing.T) {
	p := newPlace(t)
	p.user("country: US\nsubdivision: CA\n")
	p.project("country: DE\nname: n\n")
	c := p.mustLoad()
	if s := c.settings; s.Country != "DE" || s.Subdivision != "" {
		t.Errorf("the project's country with the user's subdivision: %+v", s)
	}
	if got := c.stated["subdivision"].origin; got.reference() != "wattspan.yaml:1" || got.deciding != "country" {
		t.Errorf("the subdivision was overruled by %+v", got)
	}
	p.flags["region"] = "aws/eu-west-3"
	if s := p.mustLoad().settings; s.Country != "" || s.Subdivision != "" || s.Region != "aws/eu-west-3" || s.Name != "n" {
		t.Errorf("a region by flag does not decide alone: %+v", s)
	}
	p.flags["country"] = "DE"
	if _, err := p.load(); err == nil || !strings.Contains(err.Error(), "flag --country, flag --region: contradictory location") {
		t.Errorf("a region of another country: %v", err)
	}
}

func TestQuietAndVerbose(t *testing.T) {
	for _, test := range []struct {
		name           string
		state          func(*place)
		quiet, verbose bool
		err            string
	}{
		{name: "flags", state: func(p *place) { p.flags["quiet"], p.flags["verbose"] = "true", "true" },
			err: "flag --quiet and flag --verbose: quiet and verbose exclude each other"},
		{name: "file", state: func(p *place) { p.project("verbose: yes\nquiet: yes\n") },
			err: "wattspan.yaml line 2 and wattspan.yaml line 1: quiet and verbose exclude each other"},
		{name: "environment", state: func(p *place) { p.environ = []string{"WATTSPAN_QUIET=1", "WATTSPAN_VERBOSE=1"} },
			err: "WATTSPAN_QUIET and WATTSPAN_VERBOSE: quiet and verbose exclude each other"},
		{name: "a flag over the user's file", state: func(p *place) { p.user("verbose: true\n"); p.flags["quiet"] = "true" }, quiet: true},
		{name: "a variable over the project's file", state: func(p *place) { p.project("quiet: true\n"); p.environ = []string{"WATTSPAN_VERBOSE=yes"} }, verbose: true},
		{name: "one of them false", state: func(p *place) { p.flags["quiet"], p.flags["verbose"] = "false", "true" }, verbose: true},
		{name: "a flag that takes it back", state: func(p *place) { p.project("quiet: true\n"); p.flags["quiet"] = "false" }},
		{name: "neither", state: func(*place) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			test.state(p)
			c, err := p.load()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got %v, want %q", err, test.err)
				}
				return
			}
			if err != nil || c.settings.Quiet != test.quiet || c.settings.Verbose != test.verbose {
				t.Errorf("quiet %v, verbose %v, %v", c.settings.Quiet, c.settings.Verbose, err)
			}
			if c.stated["quiet"].value != c.settings.Quiet || c.stated["verbose"].value != c.settings.Verbose {
				t.Error("what is shown is not what is in force")
			}
		})
	}
}

func TestProjectFile(t *testing.T) {
	for _, test := range []struct {
		name, text string
		option     string // to look at
		want       any
		err        string // a part of the error
	}{
		{name: "empty", option: "country", want: ""},
		{name: "only comments", text: "# country: FR\n\n  # pue: 2\n", option: "country", want: ""},
		{name: "an empty document", text: "---\n...\n", option: "country", want: ""},
		{name: "a byte order mark", text: "\ufeffcountry: FR\n", option: "country", want: "FR"},
		{name: "UTF-16, as PowerShell writes it", text: "\xff\xfep\x00u\x00e\x00:\x00 \x002\x00\n\x00", option: "pue", want: "2"},
		{name: "line ends of Windows", text: "country: FR\r\npue: 1.2\r\n", option: "pue", want: "1.2"},
		{name: "no line end", text: "pue: 1.2", option: "pue", want: "1.2"},
		{name: "flow", text: `{"country": "FR", "pue": 1.2}`, option: "pue", want: "1.2"},

		{name: "Norway", text: "country: NO", option: "country", want: "NO"},
		{name: "Norway in small letters", text: "country: no", option: "country", want: "no"},
		{name: "Norway in quotes", text: `country: "NO"`, option: "country", want: "NO"},
		{name: "off is no country", text: "country: off", err: `wattspan.yaml line 1: unknown country "off"`},
		{name: "true is no country", text: "country: true", err: `unknown country "true"`},
		{name: "a name that looks like a boolean", text: "name: off", option: "name", want: "off"},
		{name: "a name that looks like an octal number", text: "name: 0123", option: "name", want: "0123"},
		{name: "a name that looks like a date", text: "name: 2026-01-02", option: "name", want: "2026-01-02"},
		{name: "a number", text: "intensity: 56", option: "intensity", want: "56"},
		{name: "a number in quotes", text: `intensity: "56"`, option: "intensity", want: "56"},
		{name: "not octal", text: "intensity: 010", option: "intensity", want: "10"},
		{name: "minus zero", text: "intensity: -0.0", option: "intensity", want: "0"},
		{name: "a block", text: "name: >-\n  a\n  b\n", option: "name", want: "a b"},
		{name: "an alias", text: "country: &x FR\nname: *x\n", option: "name", want: "FR"},
		{name: "a boolean", text: "quiet: yes", option: "quiet", want: true},
		{name: "a duration", text: "interval: 1500ms", option: "interval", want: 1500 * time.Millisecond},
		{name: "standard output", text: `json: "-"`, option: "json", want: "-"},

		{name: "an interval without a unit", text: "pue: 1.2\ninterval: 5", err: `wattspan.yaml line 2: interval: "5" needs a unit, such as 500ms, 1s`},
		{name: "a list for a number", text: "pue: [1.2, 1.3]", err: "wattspan.yaml line 1: pue is a list; give it a number"},
		{name: "a mapping for a number", text: "pue:\n  value: 1.2", err: "wattspan.yaml line 1: pue is a mapping; give it a number"},
		{name: "a type of its own", text: "name: !secret x", err: "wattspan.yaml line 1: name is of the type !secret; give it a name"},
		{name: "binary", text: "name: !!binary aGk=", err: "name is of the type !!binary"},
		{name: "no value", text: "\ncountry:\n", err: "wattspan.yaml line 2: country is empty; give it a country, or delete the line"},
		{name: "null", text: "country: ~\n", err: "country is empty"},
		{name: "an empty value", text: "country: ' '\n", err: "country is empty"},
		{name: "a key twice", text: "pue: 1.2\nname: x\npue: 1.3\n", err: "wattspan.yaml line 3: pue is on line 1 already; keep one of them"},
		{name: "an unknown key", text: "name: x\nintervall: 1s\n", err: "unknown key intervall in wattspan.yaml line 2; did you mean interval?"},
		{name: "a variable for a key", text: "WATTSPAN_PUE: 1.2", err: "unknown key WATTSPAN_PUE in wattspan.yaml line 1; did you mean pue?"},
		{name: "nothing near", text: "telemetry: x", err: "unknown key telemetry in wattspan.yaml line 1; the keys are country, subdivision"},
		{name: "a control character in a key", text: `"a\ab": x`, err: `unknown key "a\ab" in wattspan.yaml line 1`},
		{name: "a merge", text: "<<: {pue: 2}", err: "unknown key << in"},
		{name: "a list for a key", text: "? [a]\n: x\n", err: "wattspan.yaml line 1: the key is a list"},
		{name: "a file that names another", text: "config: other.yaml", err: "wattspan.yaml line 1: a file cannot name another; use --config or WATTSPAN_CONFIG"},
		{name: "a list", text: "- country: FR\n", err: "wattspan.yaml line 1: a list is not a configuration; write lines such as country: FR"},
		{name: "an assignment", text: "\ncountry=FR\n", err: "wattspan.yaml line 2: a lone value is not a configuration"},
		{name: "two documents", text: "pue: 1.2\n---\npue: 1.3\n", err: "a second document begins; keep one"},
		{name: "a tab", text: "name:\n\tx\n", err: "wattspan.yaml line 2: this is not YAML: found character that cannot start any token; indent with spaces, not tabs"},
		{name: "a lone dash", text: "json: -\n", err: `wattspan.yaml line 1: this is not YAML: block sequence entries are not allowed in this context; quote a lone "-"`},
		{name: "an open quote", text: "pue: 1\nname: \"x\n", err: "wattspan.yaml line "},
		{name: "a control character", text: "pue: 1\nname: a\x1b[31m\n", err: "wattspan.yaml line 2: it holds a control character or is not UTF-8"},
		{name: "Latin-1", text: "name: caf\xe9\n", err: "wattspan.yaml line 1: it holds a control character or is not UTF-8"},
		{name: "an escaped control character", text: `name: "a\e[31m"`, err: `wattspan.yaml line 1: name: "a\x1b[31m" holds a control character`},
		{name: "too large", text: "# " + strings.Repeat("x", maxFile), err: "wattspan.yaml cannot be read: it is larger than 1048576 bytes"},
		{name: "every problem", text: "pue: x\nintensity: y\n", err: "line 1: pue: \"x\" is not a number: write it like 56 or 1.2\nwattspan.yaml line 2"},
		{name: "many problems", text: "a1: x\nb1: x\nc1: x\nd1: x\ne1: x\nf1: x\ng1: x\n", err: "\nand 2 more"},

		// A stranger's file in /tmp must not have a run overwrite ~/.profile.
		{name: "an absolute report", text: "json: /etc/x.json", err: `wattspan.yaml line 1: json: "/etc/x.json" is not below the working directory; say it with --json`},
		{name: "a report elsewhere", text: "json: sub/../../x.json", err: "is not below the working directory"},
		{name: "a report here", text: "json: ./x.json", option: "json", want: "./x.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			p.project(test.text)
			c, err := p.load()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got  %v\nwant %s", err, test.err)
				}
				checkMessage(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := field(t, c.settings, test.option); got != test.want {
				t.Errorf("%s is %v, want %v", test.option, got, test.want)
			}
		})
	}
}

// checkMessage checks that an error fits on a screen and cannot write to it
// anything else than text.
func checkMessage(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 4000 || strings.Count(text, "\n") > 20 {
		t.Errorf("an error of %d bytes and %d lines:\n%.2000s", len(text), strings.Count(text, "\n")+1, text)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }); i >= 0 {
		t.Errorf("a control character in %q", text)
	}
}

func TestWhichFilesAreRead(t *testing.T) {
	link := func(p *place, to string) {
		if err := os.Symlink(to, filepath.Join(p.dir, projectFile)); err != nil {
			p.t.Skip(err)
		}
	}
	for _, test := range []struct {
		name string
		make func(*place)
		want string // the run's name
		err  string
	}{
		{name: "none", make: func(*place) {}},
		{name: "not in a directory above", make: func(p *place) { p.write(filepath.Join(filepath.Dir(p.dir), projectFile), "name: stranger\n") }},
		{name: "by flag, instead of the project's", want: "flag", make: func(p *place) {
			p.project("name: project\npue: nonsense\n")
			p.write("other.yaml", "name: flag\n")
			p.environ = []string{"WATTSPAN_CONFIG=missing.yaml"}
			p.flags["config"] = "other.yaml"
		}},
		{name: "by variable", want: "variable", make: func(p *place) {
			p.write("other.yaml", "name: variable\n")
			p.environ = []string{"WATTSPAN_CONFIG=" + filepath.Join(p.dir, "other.yaml")}
		}},
		{name: "with the user's beside it", want: "user", make: func(p *place) {
			p.user("name: user\n")
			p.write("other.yaml", "pue: 1.2\n")
			p.flags["config"] = "other.yaml"
		}},
		{name: "named and missing", err: "flag --config: missing.yaml: there is no such file", make: func(p *place) { p.flags["config"] = "missing.yaml" }},
		{name: "named by a variable and missing", err: "WATTSPAN_CONFIG: missing.yaml: there is no such file", make: func(p *place) { p.environ = []string{"WATTSPAN_CONFIG=missing.yaml"} }},
		{name: "named and a directory", err: "flag --config: . cannot be read: it is a directory", make: func(p *place) { p.flags["config"] = "." }},
		{name: "named and empty", err: "flag --config is empty; give it a file", make: func(p *place) { p.flags["config"] = "" }},
		{name: "named with a control character", err: `flag --config: "a\x1b" holds a control character`, make: func(p *place) { p.flags["config"] = "a\x1b" }},
		{name: "a variable without a value", want: "project", make: func(p *place) { p.project("name: project\n"); p.environ = []string{"WATTSPAN_CONFIG="} }},
		// What the file's author vouches for, a stranger's file does not.
		{name: "a named file may put the report anywhere", make: func(p *place) {
			p.write("other.yaml", fmt.Sprintf("json: '%s'\n", filepath.Join(filepath.Dir(p.dir), "x.json")))
			p.flags["config"] = "other.yaml"
		}},
		{name: "a directory", err: "wattspan.yaml cannot be read: it is a directory", make: func(p *place) {
			if err := os.Mkdir(filepath.Join(p.dir, projectFile), 0o755); err != nil {
				p.t.Fatal(err)
			}
		}},
		{name: "a link to nothing", err: "wattspan.yaml cannot be read: it is a link to nothing", make: func(p *place) { link(p, "nothing") }},
		// As a pipe would be, which is never at its end.
		{name: "a device", err: "wattspan.yaml cannot be read: it is not a regular file", make: func(p *place) { link(p, os.DevNull) }},
		{name: "no directory for the user's", make: func(p *place) { p.user("name: user\n"); p.userDir = "" }},
		{name: "a home that is a file", make: func(p *place) { p.userDir = filepath.Join(p.dir, "x"); p.write("x", "") }},
		{name: "an invalid user's file", err: filepath.Join("wattspan", "config.yaml") + ` line 1: pue: "x" is not a number`, make: func(p *place) {
			p.user("pue: x\n")
			p.flags["pue"] = "1.2" // it is refused where it is overruled
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(test.name, "a device") {
				t.Skip("no /dev/null")
			}
			p := newPlace(t)
			test.make(p)
			c, err := p.load()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got  %v\nwant %s", err, test.err)
				}
				checkMessage(t, err)
				return
			}
			if err != nil || c.settings.Name != test.want {
				t.Errorf("the name is %q, want %q; %v", c.settings.Name, test.want, err)
			}
		})
	}
}

func TestAFileThatMayNotBeRead(t *testing.T) {
	if os.Geteuid() <= 0 {
		t.Skip("root may read anything, and Windows has no such modes")
	}
	p := newPlace(t)
	p.project("pue: 1.2")
	if err := os.Chmod(filepath.Join(p.dir, projectFile), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.load(); err == nil || !strings.Contains(err.Error(), "wattspan.yaml cannot be read: permission denied") {
		t.Errorf("got %v", err)
	}
	// A home that is somebody else's, as under su, holds no file of this user.
	if err := os.Remove(filepath.Join(p.dir, projectFile)); err != nil {
		t.Fatal(err)
	}
	p.user("pue: 1.2")
	if err := os.Chmod(p.userDir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(p.userDir, 0o755) })
	if c := p.mustLoad(); c.settings.PUE != "" || !strings.HasPrefix(c.files[1].state, "passed over") {
		t.Errorf("%+v", c.files)
	}
	// The working directory may hold a file that was meant.
	if err := os.Chmod(p.dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(p.dir, 0o755) })
	if _, err := p.load(); err == nil || !strings.Contains(err.Error(), "wattspan.yaml cannot be read: the directory may not be searched") {
		t.Errorf("got %v", err)
	}
}

// Nonsense is refused alike by every source, with who said it and what to do.
func TestNonsenseIsRefused(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, test := range []struct{ option, value, want string }{
		{"country", "Atlantis", `unknown country "Atlantis"`},
		{"country", "Germny", "did you mean Germany (DE)?"},
		{"country", long, "is longer than 256 bytes"},
		{"subdivision", "US-XX", `unknown subdivision "US-XX"`},
		{"region", "aws/eu-west-33", "did you mean aws/eu-west-3?"},
		{"region", "amason/x", "unknown cloud provider"},
		{"intensity", "-1", "it must be a number of grams per kWh from 0 up"},
		{"intensity", "NaN", "it must be a number of grams per kWh from 0 up"},
		{"intensity", "56g", `"56g" is not a number: write it like 56 or 1.2`},
		{"intensity", "1e9", "it is in grams of CO2e per kWh"},
		{"pue", "0.9", "cannot be below 1"},
		{"pue", "1,2", `"1,2" is not a number: write 1.2`},
		{"pue", "Inf", "it must be a number from 1 up"},
		{"pue", "120", "it is a ratio, such as 1.2"},
		{"pue", long, "is not a number"},
		{"scope", "Job", `"Job" is not one of machine, job; did you mean job?`},
		{"scope", "node", `"node" is not one of machine, job`},
		{"interval", "1", `"1" needs a unit, such as 500ms, 1s or 5m`},
		{"interval", "0", `"0" is outside 100ms to 30s`},
		{"interval", "99ms", `"99ms" is outside 100ms to 30s`},
		{"interval", "31s", `"31s" is outside 100ms to 30s`},
		{"interval", "-1s", `"-1s" is outside 100ms to 30s`},
		{"interval", "1 second", `"1 second" is not a duration: write it like 500ms, 1s or 5m`},
		{"progress", "10", `"10" needs a unit`},
		{"progress", "999ms", `"999ms" is neither 0, for never, nor 1s or more`},
		{"progress", "-1s", `"-1s" is neither 0, for never, nor 1s or more`},
		{"name", long, "is longer than 256 bytes"},
		{"json", "nowhere/x.json", "there is no directory nowhere; create it"},
		{"json", "~/x.json", "~/x.json: ~ stands for nothing here; write the path in full"},
		{"json", ".", ". is a directory; name a file in it"},
		{"json", long, "is longer than a path can be"},
		{"quiet", "on", `"on" is neither true (yes, 1) nor false (no, 0)`},
		{"verbose", "2", `"2" is neither true (yes, 1) nor false (no, 0)`},
		{"color", "allways", `"allways" is not one of auto, always, never; did you mean always?`},
	} {
		for level, who := range map[source]string{
			fromFlag: "flag --" + test.option, fromEnvironment: "WATTSPAN_" + strings.ToUpper(test.option),
			fromProjectFile: "wattspan.yaml line 2", fromUserFile: "config.yaml line 3",
		} {
			p := newPlace(t)
			p.state(level, test.option, test.value)
			_, err := p.load()
			if err == nil {
				t.Errorf("%s: %s %.20s is taken", level, test.option, test.value)
				continue
			}
			if !strings.Contains(err.Error(), who) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got  %v\nwant %s: … %s", level, err, who, test.want)
			}
			checkMessage(t, err)
		}
	}
	for _, o := range options {
		p := newPlace(t)
		p.flags[o.name] = "a\x1b]0;title\a\n"
		if _, err := p.load(); err == nil {
			t.Errorf("flag --%s takes control characters", o.name)
		} else {
			checkMessage(t, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		name    string
		environ []string
		err     string // empty: taken
	}{
		{name: "unknown", environ: []string{"WATTSPAN_INTERVALL=1s"}, err: "unknown variable WATTSPAN_INTERVALL; did you mean WATTSPAN_INTERVAL?"},
		{name: "nothing near", environ: []string{"WATTSPAN_TELEMETRY=1s"}, err: "unknown variable WATTSPAN_TELEMETRY; unset it"},
		{name: "too short to guess", environ: []string{"WATTSPAN_X=1s"}, err: "unknown variable WATTSPAN_X; unset it"},
		{name: "the prefix alone", environ: []string{"WATTSPAN_=1"}, err: "unknown variable WATTSPAN_; unset it"},
		{name: "control characters", environ: []string{"WATTSPAN_\x1b[31m=1"}, err: `unknown variable "WATTSPAN_\x1b[31m"`},
		{name: "near one that is no option", environ: []string{"WATTSPAN_RUNID=1"}, err: "did you mean WATTSPAN_RUN_ID?"},
		{name: "an underscore", environ: []string{"WATTSPAN_SUB_DIVISION=US-CA"}, err: "did you mean WATTSPAN_SUBDIVISION?"},
		{name: "not options", environ: []string{"WATTSPAN_RUN_ID=x", "WATTSPAN_RUNNER=42"}},
		{name: "empty", environ: []string{"WATTSPAN_PUE=", "WATTSPAN_INTERVAL=  ", "WATTSPAN_INTERVALL="}},
		{name: "somebody else's", environ: []string{"WATTSPANX=1", "XWATTSPAN_PUE=9", "OTEL_SERVICE_NAME=x", "PUE=9", "=C:=C:\\", "PATH"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			p.environ = test.environ
			c, err := p.load()
			switch {
			case test.err == "" && err != nil:
				t.Error(err)
			case test.err == "" && c.settings.PUE+c.settings.Name != "":
				t.Errorf("%+v", c.settings)
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("got %v, want %s", err, test.err)
			case err != nil:
				checkMessage(t, err)
			}
		})
	}
}

func TestNearestName(t *testing.T) {
	var names []string
	for _, o := range options {
		names = append(names, o.name)
	}
	for given, want := range map[string]string{
		"intervall": "interval", "inteval": "interval", "itnerval": "interval", "INTERVAL": "interval",
		"contry": "country", "colour": "color", "peu": "pue", "nam": "name", "verb": "verbose", "reg": "region", "jsno": "json",
		"sub":                            "subdivision",
		"int":                            "", // intensity or interval
		"x":                              "",
		"ue":                             "", // two letters are near to anything
		"":                               "",
		"gpu":                            "",
		"log":                            "",
		"timeout":                        "",
		"version":                        "",
		"output":                         "",
		"budget":                         "",
		"foobar":                         "",
		strings.Repeat("interval", 1000): "",
	} {
		if got := nearestName(given, names); got != want {
			t.Errorf("nearest to %.20q: %q, want %q", given, got, want)
		}
	}
}

// stranger makes the process look like one without any configuration, and
// returns its working directory and the user's file.
func stranger(t *testing.T) (dir, user string) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, envPrefix) {
			t.Setenv(name, "")
		}
	}
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(name, home)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		t.Fatal(err)
	}
	user = filepath.Join(config, userFile)
	if err := os.MkdirAll(filepath.Dir(user), 0o755); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	t.Chdir(dir)
	return dir, user
}

func command(args ...string) (code int, stdout, stderr string) {
	var out, problems bytes.Buffer
	code = execute(context.Background(), args, &out, &problems)
	return code, out.String(), problems.String()
}

func TestConfigShow(t *testing.T) {
	_, user := stranger(t)
	for name, text := range map[string]string{
		projectFile: "# ours\ncountry: NO\nname: fine tune\n",
		user:        "verbose: true\nsubdivision: US-CA\n\ninterval: 500ms\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("WATTSPAN_PROGRESS", "1m")
	code, out, problems := command("config", "show", "--pue", "1.20", "--quiet")
	want := strings.ReplaceAll(`country      NO            wattspan.yaml:2
subdivision  –             wattspan.yaml:2, by its country
region       –             default: none
intensity    –             default: a table's
pue          1.2           flag --pue
scope        –             default: machine; job where another run reads this machine's hardware
idle         proportional  default
profile      auto          default
node-meter   –             default: one that is found
dcgm         –             default: none
sys-root     –             default: HOST_SYS, else /sys
proc-root    –             default: HOST_PROC, else /proc
share        –             default: a directory of the user's
interval     500ms         USER:4
name         fine tune     wattspan.yaml:3
json         –             default: no file
quiet        true          flag --quiet
verbose      false         flag --quiet, by its quiet
progress     1m0s          WATTSPAN_PROGRESS
color        auto          default
config       –             default: wattspan.yaml, if there is one
`, "USER", user)
	if code != 0 || problems != "" || out != want {
		t.Errorf("exit %d, %s\ngot:\n%s\nwant:\n%s", code, problems, out, want)
	}

	code, out, problems = command("config", "path")
	if want := "project  wattspan.yaml"; code != 0 || problems != "" || !strings.HasPrefix(out, want) || strings.Count(out, "  read\n") != 2 || !strings.Contains(out, user) {
		t.Errorf("exit %d, %s\n%s", code, problems, out)
	}
}

func TestConfigShowForPrograms(t *testing.T) {
	stranger(t)
	t.Setenv("WATTSPAN_JSON", "a&b.json")
	code, out, problems := command("config", "show", "--json", "--intensity", "1e2", "--quiet")
	var shown struct {
		Schema  string
		Options []struct {
			Name         string
			Value        any
			Source, From string
		}
		Files []struct{ Source, Path, State string }
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || code != 0 || problems != "" {
		t.Fatalf("exit %d, %v, %s\n%s", code, err, problems, out)
	}
	if !strings.Contains(out, `"a&b.json"`) {
		t.Errorf("a name is not as it was stated:\n%s", out)
	}
	if shown.Schema != "wattspan.config/v1" || len(shown.Options) != len(options) || len(shown.Files) != 2 || shown.Files[0].State != "not there" {
		t.Errorf("%+v", shown)
	}
	got := make(map[string]string)
	for _, o := range shown.Options {
		got[o.Name] = fmt.Sprintf("%v (%T) %s: %s", o.Value, o.Value, o.Source, o.From)
	}
	for name, want := range map[string]string{
		"country": "<nil> (<nil>) default: default", "intensity": "100 (float64) flag: flag --intensity",
		"quiet": "true (bool) flag: flag --quiet", "verbose": "false (bool) default: default",
		"interval": "1s (string) default: default", "json": "a&b.json (string) environment: WATTSPAN_JSON",
	} {
		if got[name] != want {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
}

// Without a home there is no file of the user's, which is no error.
func TestWithoutAHome(t *testing.T) {
	stranger(t)
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(name, "")
	}
	if code, out, problems := command("config", "path"); code != 0 || problems != "" || !strings.Contains(out, "user     –              no directory for the files of a user\n") {
		t.Errorf("exit %d, %s\n%s", code, problems, out)
	}
}

func TestCommandLineErrors(t *testing.T) {
	stranger(t)
	for _, test := range []struct {
		args, want string
	}{
		{"config show --intervall 1s", "unknown flag --intervall; did you mean --interval?"},
		{"config show --intervall=1s", "unknown flag --intervall; did you mean --interval?"},
		{"config show -interval 1s", "unknown flag -interval; did you mean --interval?"},
		{"config show --frobnicate", "unknown flag --frobnicate; wattspan config show --help lists the flags"},
		{"config show -x", "unknown flag -x; wattspan config show --help lists the flags"},
		{"config show --=x", "bad flag syntax: --=x; wattspan config show --help lists the flags"},
		{"config show --pue", "flag --pue needs a value, a number: power usage effectiveness"},
		{"config show --pue 0.5", "flag --pue: PUE 0.5"},
		{"config show --quiet=maybe", `flag --quiet: "maybe" is neither true (yes, 1) nor false (no, 0)`},
		{"config show --name --quiet", "flag --name needs a value, a name, before --quiet"},
		{"config show --config --quiet=yes", "flag --config needs a value, a file, before --quiet=yes"},
		{"config show report.json", "wattspan config show takes no arguments, and got report.json"},
		{"config path x", "wattspan config path takes no arguments, and got x"},
		{"config shwo", "unknown command config shwo; did you mean config show?"},
		{"config edit", "unknown command config edit; wattspan config --help lists the commands"},
	} {
		code, out, problems := command(strings.Fields(test.args)...)
		if code != exitFailure || out != "" && !strings.HasPrefix(test.args, "config path") || !strings.HasPrefix(problems, "wattspan: "+test.want) {
			t.Errorf("%s: exit %d, %s\ngot  %swant %s", test.args, code, out, problems, test.want)
		}
	}
	// The value of --json would be the separator, and the report in a file "--".
	p := newPlace(t)
	p.flags["json"] = "--"
	if _, err := p.load(); err == nil || err.Error() != "flag --json needs a value, a file, before --" {
		t.Errorf("--json -- train: %v", err)
	}
}

// Any command with the options has their messages and completions.
func TestACommandWithOptions(t *testing.T) {
	cmd := &cobra.Command{Use: "measure", Run: func(*cobra.Command, []string) {}}
	addOptions(cmd, "json")
	if err := cmd.ParseFlags([]string{"--peu", "2"}); err == nil || cmd.FlagErrorFunc()(cmd, err).Error() != "unknown flag --peu; did you mean --pue?" {
		t.Errorf("got %v", err)
	}
	if cmd.Flags().Lookup("json") != nil {
		t.Error("it has the flag that it was not to have")
	}
	if complete, ok := cmd.GetFlagCompletionFunc("scope"); !ok {
		t.Error("no completion of scopes")
	} else if got, _ := complete(cmd, nil, ""); !slices.Equal(got, []string{"machine", "job"}) {
		t.Errorf("scopes are %v", got)
	}
}

func TestNothingRunsWithAnInvalidFile(t *testing.T) {
	dir, _ := stranger(t)
	if err := os.WriteFile(projectFile, []byte("intervall: 1s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, problems := command("run", "--", "touch", "started")
	if code != exitFailure || problems != "wattspan: unknown key intervall in wattspan.yaml line 1; did you mean interval?\n" {
		t.Errorf("exit %d, %s", code, problems)
	}
	if _, err := os.Stat(filepath.Join(dir, "started")); err == nil {
		t.Error("the command was started")
	}
	if code, out, problems := command("config", "path"); code != exitFailure || !strings.Contains(out, "read") || problems == "" {
		t.Errorf("the files at fault are not shown: exit %d, %s%s", code, out, problems)
	}
}

func TestConfigHelp(t *testing.T) {
	stranger(t)
	code, out, problems := command("config")
	if code != 0 || problems != "" || !strings.Contains(out, "show") || !strings.Contains(out, "WATTSPAN_COUNTRY") {
		t.Errorf("exit %d, %s\n%s", code, problems, out)
	}
	_, out, _ = command("config", "show", "--help")
	out = strings.Join(strings.Fields(out), " ") // it is wrapped
	for _, o := range options {
		if o.name != "json" && !strings.Contains(out, o.help) {
			t.Errorf("the help does not have --%s: %s", o.name, o.help)
		}
	}
}

func TestCompletionOfValues(t *testing.T) {
	stranger(t)
	for flag, want := range map[string]string{
		"country":     "\nFR\tFrance\n",
		"subdivision": "\nUS-CA\tCalifornia\n",
		"region":      "\naws/eu-west-3\tParis",
		"scope":       "machine\njob\n:4\n",
		"color":       "auto\nalways\nnever\n:4\n",
		"config":      "yaml\nyml\n:8\n", // files with these endings
		"pue":         ":4\n",            // nothing, and no files
	} {
		_, out, _ := command("__complete", "config", "show", "--"+flag, "")
		if !strings.Contains("\n"+out, want) {
			t.Errorf("--%s: no %q in\n%.400s", flag, want, out)
		}
	}
	// What is suggested is accepted.
	for _, o := range options {
		if o.choices == nil || o.isFile {
			continue
		}
		all := o.choices()
		if len(all) < 2 || !slices.IsSorted(all) && len(all) > 5 {
			t.Errorf("%s: %d completions, or not sorted", o.name, len(all))
		}
		for _, completion := range all {
			value, _, _ := strings.Cut(completion, "\t")
			l := make(layer)
			err := l.state(o, value, origin{name: "test"})
			if err = cmp.Or(err, l.seal()); err != nil {
				t.Errorf("%s %s is suggested and refused: %v", o.name, value, err)
			}
		}
	}
}

// What the tracker is given, seen in a report.
func TestSettingsReachTheTracker(t *testing.T) {
	stranger(t)
	report := func(s settings) tracker.Report {
		t.Helper()
		opts, err := s.options("/usr/bin/python3")
		if err != nil {
			t.Fatal(err)
		}
		tr, err := tracker.Start(t.Context(), append(opts, tracker.WithSensors(sensors.NewSet()))...)
		if err != nil {
			t.Fatal(err)
		}
		r, err := tr.Stop(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	p := newPlace(t)
	r := report(p.mustLoad().settings)
	if r.Run.Name != "python3" || r.Scope != tracker.Machine || r.Location.Source == emissions.FromOption || r.Factors.PUE.Kind == emissions.Declared {
		t.Errorf("defaults: %+v %+v", r.Run, r.Location)
	}
	p.project("country: FR\nname: tune\nscope: job\npue: 1.25\nintensity: 56\ninterval: 2s\n")
	r = report(p.mustLoad().settings)
	if r.Run.Name != "tune" || r.Scope != tracker.Job || r.Location.Country != "FR" || r.Location.Source != emissions.FromOption ||
		r.Factors.PUE.Value != 1.25 || r.Factors.Intensity.Value != 56 || r.Sampling.Interval != 2 {
		t.Errorf("project file: %+v %+v %+v", r.Run, r.Location, r.Sampling)
	}
	// A place from the environment is reported as such.
	for _, variable := range []string{"WATTSPAN_COUNTRY=DE", "WATTSPAN_REGION=aws/eu-west-1"} {
		p.environ = []string{variable}
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
		s := p.mustLoad().settings
		if r = report(s); r.Location.Source != emissions.FromEnvironment || r.Location.Detail != name {
			t.Errorf("%s: %+v", variable, r.Location)
		}
		t.Setenv(name, "")
	}
}

// A report that cannot be written is found out before the job, not after it.
func TestTheReportIsTriedBeforehand(t *testing.T) {
	dir, _ := stranger(t)
	p := newPlace(t)
	p.flags["json"] = "report.json"
	p.dir = dir
	s := p.mustLoad().settings
	if _, err := s.options("true"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the trial left %v, %v", entries, err)
	}
	if runtime.GOOS == "linux" {
		// Where nobody can create a file, not even root.
		s.JSON = "/proc/self/report.json"
		if _, err := s.options("true"); err == nil || !strings.HasPrefix(err.Error(), "flag --json: nothing can be written to the directory /proc/self: ") {
			t.Errorf("got %v", err)
		}
		s.JSON = "/dev/null"
		if _, err := s.options("true"); err != nil {
			t.Error(err)
		}
	}
}

// The table in the document is the one in the code.
func TestConfigurationTable(t *testing.T) {
	var table strings.Builder
	table.WriteString("| flag | variable | value | default | meaning |\n|---|---|---|---|---|\n")
	cell := func(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
	for _, o := range options {
		value, without := o.placeholder, o.fallbackIs
		if value == boolean {
			value = "true|false"
		}
		if o.fallback != "" {
			without = "`" + o.fallback + "`"
		}
		help := o.help
		if o.noKey {
			help += "; not in a file"
		}
		fmt.Fprintf(&table, "| `--%s` | `%s` | %s | %s | %s |\n", o.name, o.variable(), cell(value), cell(without), cell(help))
	}
	path := filepath.Join("..", "..", "docs", "CONFIGURATION.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	const begin, end = "<!-- options -->\n", "<!-- end of options -->"
	before, rest, ok := strings.Cut(text, begin)
	old, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no %s… %s", path, begin, end)
	}
	if *updateConfiguration {
		if err := os.WriteFile(path, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table.String() {
		t.Errorf("%s is not as the table in config.go has it: go test -run TestConfigurationTable ./examples/wattspan -update-configuration\n%s", path, table.String())
	}
}

// The example in the document works.
func TestConfigurationExample(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "CONFIGURATION.md"))
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)<!-- example -->\r?\n```yaml\r?\n(.*?)```").FindSubmatch(data)
	if example == nil {
		t.Fatal("no example")
	}
	p := newPlace(t)
	p.project(string(example[1]))
	want := settings{Country: "NO", PUE: "1.15", Interval: 500 * time.Millisecond, Name: "finetune", JSON: "energy.json",
		Idle: "proportional", Profile: "auto", Color: "auto", jsonFrom: "wattspan.yaml line 6"}
	if got := p.mustLoad().settings; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// checkValid checks that settings mean something.
func checkValid(t *testing.T, s settings) {
	t.Helper()
	if s.Interval < tracker.MinInterval || s.Interval > tracker.MaxInterval || s.Progress < 0 || s.Progress > 0 && s.Progress < time.Second ||
		s.Quiet && s.Verbose || !slices.Contains([]string{"", "machine", "job"}, s.Scope) || !slices.Contains([]string{"auto", "always", "never"}, s.Color) {
		t.Errorf("%+v", s)
	}
	if _, err := emissions.Locate(emissions.Location{Country: s.Country, Subdivision: s.Subdivision, Region: s.Region},
		emissions.Environment{LookupEnv: func(string) (string, bool) { return "", false }}); err != nil {
		t.Error(err)
	}
	for text, check := range map[string]func(float64) (emissions.Factor, error){s.Intensity: emissions.DeclaredIntensity, s.PUE: emissions.DeclaredPUE} {
		var v float64
		if _, err := fmt.Sscan(cmp.Or(text, "1"), &v); err != nil {
			t.Error(err)
		} else if _, err := check(v); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{s.Name, s.JSON, s.Config, s.Country} {
		if strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("a control character in %q", text)
		}
	}
}

// An arbitrary file, variable and flag give valid settings or an error that can
// be shown.
func FuzzConfiguration(f *testing.F) {
	f.Add([]byte("country: NO\npue: 1.2\ninterval: 1s\n"), "WATTSPAN_PUE", "1.2", "name", "x")
	f.Add([]byte("\ufeffquiet: yes\nverbose: yes\n"), "WATTSPAN_QUIET", "no", "json", "-")
	f.Add([]byte("a: &a [*a]\n<<: *a\n? {}\n: !!x y\n"), "WATTSPAN_CONFIG", "x", "config", "y")
	f.Add([]byte("--- >\n x\n---\n"), "WATTSPAN_", "\x00", "region", "aws/x")
	f.Add([]byte("subdivision: \"\\a\"\nregion: aws/\njson: -\n\tx"), "WATTSPAN_REGION", "/", "subdivision", "-")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, file []byte, variable, value, flag, text string) {
		s := surroundings{dir: dir, environ: []string{variable + "=" + value}, flags: make(map[string]string)}
		if o, ok := findOption(flag); ok && o.name != "config" {
			s.flags[o.name] = text
		}
		if err := os.WriteFile(filepath.Join(dir, projectFile), file, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := s.load()
		if err != nil {
			checkMessage(t, err)
			return
		}
		checkValid(t, c.settings)
		var out bytes.Buffer
		if err := c.writeJSON(&out); err != nil || !json.Valid(out.Bytes()) {
			t.Errorf("%v: %s", err, out.String())
		}
		out.Reset()
		if err := c.write(&out); err != nil || strings.Count(out.String(), "\n") != len(options) {
			t.Errorf("%v:\n%s", err, out.String())
		}
	})
}

// What Kubernetes puts into every container for a Service of that name is nobody's
// option.
func TestServiceVariables(t *testing.T) {
	for name, known := range map[string]bool{
		"WATTSPAN_SERVICE_HOST": true, "WATTSPAN_SERVICE_PORT": true, "WATTSPAN_PORT": true,
		"WATTSPAN_COLLECTOR_SERVICE_PORT_OTLP_GRPC": true, "WATTSPAN_COLLECTOR_PORT_4317_TCP": true,
		"WATTSPAN_COLLECTOR_PORT_4317_TCP_ADDR": true, "WATTSPAN_COLLECTOR_PORT_4317_TCP_PROTO": true,
		"WATTSPAN_PORTS": false, "WATTSPAN_HOST": false, "WATTSPAN_PORT_4317": false,
	} {
		p := newPlace(t)
		p.environ = append(p.environ, name+"=10.0.0.1")
		if _, err := p.load(); (err == nil) != known {
			t.Errorf("%s: %v", name, err)
		}
	}
}
