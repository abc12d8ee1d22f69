package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/wattspan/wattspan/emissions"
)

// A source is a level of precedence.
type source string

// The sources, the weakest first.
const (
	fromDefault     source = "default"
	fromUserFile    source = "user_file"
	fromProjectFile source = "project_file"
	fromEnvironment source = "environment"
	fromFlag        source = "flag"
)

// An origin is where a value was stated.
type origin struct {
	source source
	name   string // "flag --pue", "WATTSPAN_PUE", or a file
	line   int    // in the file
	// deciding is the option that was stated there, where this one only
	// follows from it.
	deciding string
}

// String names the origin for a message: "wattspan.yaml line 3".
func (o origin) String() string {
	if o.line > 0 {
		return fmt.Sprintf("%s line %d", o.name, o.line)
	}
	return o.name
}

// reference names the origin as editors take it: "wattspan.yaml:3".
func (o origin) reference() string {
	if o.line > 0 {
		return fmt.Sprintf("%s:%d", o.name, o.line)
	}
	return o.name
}

// decides is the origin of what follows from an option.
func (o origin) decides(option string) origin {
	o.deciding = option
	return o
}

// A stated value and where it was.
type stated struct {
	value  any
	origin origin
}

// A layer is what one source states, by the names of options. It is a provider
// of koanf, which merges the layers.
type layer map[string]stated

// Read returns the values.
func (l layer) Read() (map[string]any, error) {
	m := make(map[string]any, len(l))
	for name, s := range l {
		m[name] = s.value
	}
	return m, nil
}

// ReadBytes is not in use: a layer is parsed already.
func (l layer) ReadBytes() ([]byte, error) { return nil, errors.ErrUnsupported }

// state adds a value, checked.
func (l layer) state(o option, text string, from origin) error {
	text = strings.TrimSpace(text)
	if text == "" {
		if from.source == fromFlag {
			return fmt.Errorf("%v is empty; give it %s, or leave the flag out", from, o.wants())
		}
		return fmt.Errorf("%v: %s is empty; give it %s, or delete the line", from, o.name, o.wants())
	}
	v, err := o.parse(text)
	if err != nil {
		return fmt.Errorf("%v: %w", from, prefixed(from, o.name, err))
	}
	l[o.name] = stated{v, from}
	return nil
}

// prefixed puts the name of the option before an error, where its origin does
// not hold it.
func prefixed(from origin, name string, err error) error {
	if from.line > 0 {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// seal checks what the values of a layer mean together, and states what follows
// from them for the weaker layers.
func (l layer) seal() error {
	for _, pair := range contradicting {
		a, b := l[pair[0]], l[pair[1]]
		if a.value == true && b.value == true {
			return fmt.Errorf("%v and %v: %s and %s exclude each other; leave one of them out", a.origin, b.origin, pair[0], pair[1])
		}
		for i, s := range []stated{a, b} {
			if other := pair[1-i]; s.value == true && l[other].value == nil {
				l[other] = stated{false, s.origin.decides(pair[i])}
			}
		}
	}
	text := func(name string) string { s, _ := l[name].value.(string); return s }
	place := emissions.Location{Country: text("country"), Subdivision: text("subdivision"), Region: text("region")}
	if place == (emissions.Location{}) {
		return nil
	}
	_, err := emissions.Locate(place, emissions.Environment{})
	blamed := placeOptions
	switch {
	case errors.Is(err, emissions.ErrUnknownCountry):
		blamed = []string{"country"}
	case errors.Is(err, emissions.ErrUnknownSubdivision):
		blamed = []string{"subdivision"}
	case errors.Is(err, emissions.ErrUnknownProvider), errors.Is(err, emissions.ErrUnknownRegion):
		blamed = []string{"region"}
	}
	var who []string
	var last origin
	for _, name := range blamed {
		if s, ok := l[name]; ok {
			who, last = append(who, s.origin.String()), s.origin.decides(name)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(who, ", "), err)
	}
	for _, name := range placeOptions {
		if _, ok := l[name]; !ok {
			l[name] = stated{"", last}
		}
	}
	return nil
}

// surroundings are what the settings are looked for in.
type surroundings struct {
	flags   map[string]string // those given
	environ []string
	dir     string // working directory; empty: the process's
	userDir string // for the files of users; empty: there is none
}

// A configFile is a file that was looked for.
type configFile struct {
	source source
	path   string // as it is named in messages
	state  string // "read", "not there" or why it was passed over
}

// A configuration is the settings with where each came from.
type configuration struct {
	settings settings
	stated   layer // every option
	files    []configFile
}

// loadSettings returns what is in force, by flags, environment, project file,
// user file and defaults. What means nothing is an error, of several lines where
// there are several.
func loadSettings(flags *pflag.FlagSet) (settings, error) {
	c, err := loadConfiguration(flags)
	return c.settings, err
}

func loadConfiguration(flags *pflag.FlagSet) (configuration, error) {
	s := surroundings{flags: make(map[string]string), environ: os.Environ()}
	flags.Visit(func(f *pflag.Flag) {
		if text, ok := f.Value.(*flagText); ok {
			s.flags[f.Name] = text.text
		}
	})
	// Without a home there is no file, which is no error.
	s.userDir, _ = os.UserConfigDir()
	return s.load()
}

// The names of the files.
const projectFile = "wattspan.yaml"

var userFile = filepath.Join("wattspan", "config.yaml")

// load reads all sources.
func (s surroundings) load() (configuration, error) {
	var problems []error
	flags, errs := s.fromFlags()
	problems = append(problems, errs...)
	env, errs := s.fromEnvironment()
	problems = append(problems, errs...)

	// Only in the working directory: a stranger's file in one above it, such as
	// /tmp, must not decide.
	project := configFile{source: fromProjectFile, path: projectFile}
	named, ok := flags["config"]
	if !ok {
		named, ok = env["config"]
	}
	if ok {
		project.path = named.value.(string)
	}
	projectLayer, errs := project.load(s.dir, named.origin.String())
	problems = append(problems, errs...)
	user := configFile{source: fromUserFile, state: "no directory for the files of a user"}
	var userLayer layer
	if s.userDir != "" {
		user.path = filepath.Join(s.userDir, userFile)
		userLayer, errs = user.load("", "")
		problems = append(problems, errs...)
	}

	c := configuration{stated: make(layer, len(options)), files: []configFile{project, user}}
	merged := koanf.New(".")
	for _, l := range []layer{defaults(), userLayer, projectLayer, env, flags} {
		if err := l.seal(); err != nil {
			problems = append(problems, err)
		}
		if err := merged.Load(l, nil); err != nil {
			problems = append(problems, err)
		}
		for name, v := range l {
			// What follows from another option is news only where it overrules.
			if v.origin.deciding == "" || c.stated[name].origin.source != fromDefault {
				c.stated[name] = v
			}
		}
	}
	if len(problems) > 0 {
		return c, severalErrors(problems)
	}
	if err := merged.UnmarshalWithConf("", &c.settings, koanf.UnmarshalConf{
		// A value of the wrong type would be a mistake in the table.
		DecoderConfig: &mapstructure.DecoderConfig{ErrorUnused: true},
	}); err != nil {
		return c, err
	}
	c.settings.jsonFrom = c.stated["json"].origin.String()
	for _, name := range placeOptions {
		c.settings.placeFromEnv = c.settings.placeFromEnv || c.stated[name].origin.source == fromEnvironment
	}
	if err := reportPlaceable(s.dir, c.settings.JSON); err != nil {
		return c, fmt.Errorf("%s: %w", c.settings.jsonFrom, err)
	}
	return c, nil
}

// severalErrors are the first few errors, so that they fit on a screen.
func severalErrors(errs []error) error {
	const most = 5
	if len(errs) > most {
		errs = append(errs[:most:most], fmt.Errorf("and %d more", len(errs)-most))
	}
	return errors.Join(errs...)
}

func defaults() layer {
	l := make(layer, len(options))
	for _, o := range options {
		s := stated{"", origin{source: fromDefault, name: "default"}}
		if o.fallback != "" {
			s.value, _ = o.parse(o.fallback)
		}
		l[o.name] = s
	}
	return l
}

func (s surroundings) fromFlags() (layer, []error) {
	l := make(layer)
	var problems []error
	for _, o := range options {
		text, ok := s.flags[o.name]
		if !ok {
			continue
		}
		from := origin{source: fromFlag, name: "flag --" + o.name}
		// In `--json -- train` and `--json --quiet` the value was forgotten, and
		// what follows was taken for it.
		if next, isFlag := strings.CutPrefix(text, "--"); isFlag {
			next, _, _ = strings.Cut(next, "=")
			if _, known := findOption(next); known || next == "" {
				problems = append(problems, fmt.Errorf("%v needs a value, %s, before %s", from, o.wants(), printable(text)))
				continue
			}
		}
		if err := l.state(o, text, from); err != nil {
			problems = append(problems, err)
		}
	}
	return l, problems
}

// ofService matches what Kubernetes puts into every container for a Service whose
// name begins with wattspan: WATTSPAN_COLLECTOR_PORT_4317_TCP_ADDR.
var ofService = regexp.MustCompile(`^WATTSPAN(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func (s surroundings) fromEnvironment() (layer, []error) {
	l := make(layer)
	var problems []error
	var known []string
	for _, o := range options {
		known = append(known, o.variable())
	}
	known = append(known, notOptions...)
	environ := slices.Clone(s.environ)
	slices.Sort(environ)
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		// An empty variable is how many launchers say that it is not set.
		if !strings.HasPrefix(name, envPrefix) || strings.TrimSpace(text) == "" || slices.Contains(notOptions, name) || ofService.MatchString(name) {
			continue
		}
		i := slices.IndexFunc(options, func(o option) bool { return o.variable() == name })
		if i < 0 {
			remedy := "unset it; the variables are " + envPrefix + " and the name of a flag of wattspan run"
			if near := nearestName(name, known); near != "" {
				remedy = "did you mean " + near + "?"
			}
			problems = append(problems, fmt.Errorf("unknown variable %s; %s", printable(name), remedy))
			continue
		}
		if err := l.state(options[i], text, origin{source: fromEnvironment, name: name}); err != nil {
			problems = append(problems, err)
		}
	}
	return l, problems
}

// Files.

// maxFile is far above any configuration: what is larger is another file.
const maxFile = 1 << 20

// load reads the file, which must exist if somebody named it.
func (f *configFile) load(dir, namedBy string) (layer, []error) {
	path := f.path
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	f.path = printable(f.path)
	who := f.path
	if namedBy != "" {
		who = namedBy + ": " + who
	}
	data, err := readFile(path, namedBy != "")
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err // without the path a second time
	}
	absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	switch {
	case err == nil:
		f.state = "read"
	case errors.Is(err, errUnsearchable) && f.source == fromUserFile:
		// Somebody else's home, as under su or in a service: nothing that this
		// user could have put there.
		f.state = "passed over: " + err.Error()
		return nil, nil
	case absent && namedBy == "":
		f.state = "not there"
		return nil, nil
	case absent:
		return nil, []error{fmt.Errorf("%s: there is no such file", who)}
	default:
		f.state = err.Error()
		return nil, []error{fmt.Errorf("%s cannot be read: %w", who, err)}
	}
	l, problems := f.parse(data)
	if f.source == fromProjectFile && namedBy == "" {
		if err := confined(l); err != nil {
			problems = append(problems, err)
		}
	}
	return l, problems
}

// errUnsearchable is returned for a file in a directory that may not be looked into.
var errUnsearchable = errors.New("the directory may not be searched")

func readFile(path string, named bool) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, errUnsearchable
	case err != nil:
		if _, linkErr := os.Lstat(path); linkErr == nil {
			return nil, errors.New("it is a link to nothing")
		}
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a directory")
	case !info.Mode().IsRegular() && !named:
		// A pipe would hold the job up. Who names one, as in --config <(…),
		// means it.
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return data, err
}

// confined refuses what a file found in the working directory must not say: in a
// directory that others can write to, it would make a run overwrite any file of
// its user, run a program or call a service.
func confined(l layer) error {
	for _, o := range options {
		if s, ok := l[o.name]; ok && o.private {
			return fmt.Errorf("%v: %s cannot be set by a file that was found in the working directory; say it with --%s, %s or the user's file", s.origin, o.name, o.name, o.variable())
		}
	}
	s, ok := l["json"]
	if path, _ := s.value.(string); ok && !filepath.IsLocal(path) {
		return fmt.Errorf("%v: json: %s is not below the working directory; say it with --json, WATTSPAN_JSON or the user's file", s.origin, quote(path))
	}
	return nil
}

// yamlError takes the line out of an error of the YAML parser.
var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parse reads YAML. Of each value it takes the text, as the environment has it,
// and not what YAML makes of it: 010 is not 8, and NO is Norway.
func (f configFile) parse(data []byte) (layer, []error) {
	at := func(line int) origin { return origin{source: f.source, name: f.path, line: line} }
	if line := strayByte(data); line > 0 {
		return nil, []error{fmt.Errorf("%v: it holds a control character or is not UTF-8", at(line))}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil // empty, or only comments
	}
	if err == nil {
		if err = decoder.Decode(&next); err == nil {
			return nil, []error{fmt.Errorf("%v: a second document begins; keep one", at(next.Line))}
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, []error{f.syntaxError(data, err)}
	}
	root := doc.Content[0]
	switch {
	case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
		return nil, nil
	case root.Kind != yaml.MappingNode:
		return nil, []error{fmt.Errorf("%v: %s is not a configuration; write lines such as country: FR", at(root.Line), kindOf(root))}
	}
	l := make(layer)
	seen := make(map[string]int)
	var problems []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := aliased(root.Content[i]), aliased(root.Content[i+1])
		from := at(root.Content[i].Line)
		if first, twice := seen[key.Value]; twice && key.Kind == yaml.ScalarNode {
			problems = append(problems, fmt.Errorf("%v: %s is on line %d already; keep one of them", from, printable(key.Value), first))
			continue
		}
		seen[key.Value] = from.line
		o, known := findOption(key.Value)
		switch {
		case key.Kind != yaml.ScalarNode:
			err = fmt.Errorf("%v: the key is %s; write lines such as country: FR", from, kindOf(key))
		case known && o.noKey:
			err = fmt.Errorf("%v: a file cannot name another; use --%s or %s", from, o.name, o.variable())
		case !known:
			err = fmt.Errorf("unknown key %s in %v; %s", printable(key.Value), from, nearestKey(key.Value))
		case value.Kind != yaml.ScalarNode || !textual(value):
			err = fmt.Errorf("%v: %s is %s; give it %s", from, o.name, kindOf(value), o.wants())
		case value.ShortTag() == "!!null":
			err = l.state(o, "", from)
		default:
			err = l.state(o, value.Value, from)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return l, problems
}

func (f configFile) syntaxError(data []byte, err error) error {
	text := err.Error()
	line := 1 // which the parser leaves out
	if m := yamlError.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	switch {
	case strings.Contains(text, "block sequence entries"):
		text += `; quote a lone "-"`
	case regexp.MustCompile(`(?m)^[ ]*\t`).Match(data):
		text += "; indent with spaces, not tabs"
	}
	return fmt.Errorf("%v: this is not YAML: %s", origin{source: f.source, name: f.path, line: line}, printable(text))
}

// strayByte returns the line of the first byte that no text has, 0 if there is none.
func strayByte(data []byte) int {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return 0 // UTF-16, which the parser reads
	}
	line := 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1, unicode.IsControl(r) && r != '\t' && r != '\r' && r != '\u0085':
			return line
		}
		data = data[size:]
	}
	return 0
}

func aliased(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// textual says whether the text of a scalar is its value.
func textual(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!merge":
		return true
	}
	return false
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if !textual(n) {
			return "of the type " + printable(n.Tag)
		}
		return "a lone value"
	}
	return "an alias"
}

// nearestKey is the remedy for an unknown key.
func nearestKey(given string) string {
	var keys []string
	for _, o := range options {
		if !o.noKey {
			keys = append(keys, o.name)
		}
	}
	name := strings.ToLower(given)
	name = strings.TrimPrefix(name, strings.ToLower(envPrefix))
	if near := nearestName(strings.ReplaceAll(name, "_", "-"), keys); near != "" {
		return "did you mean " + near + "?"
	}
	return "the keys are " + strings.Join(keys, ", ")
}
