package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const machineID = "0123456789abcdef0123456789abcdef"

// home is a shelf in folders of a test.
func home(t *testing.T) shelf {
	t.Helper()
	dir := t.TempDir()
	id := filepath.Join(dir, "machine-id")
	if err := os.WriteFile(id, []byte(machineID+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	return shelf{
		config:   func() (string, error) { return filepath.Join(dir, "config"), nil },
		ids:      []string{id},
		hostname: func() (string, error) { return "node1", nil },
		system:   filepath.Join(dir, "etc", "node.json"),
	}
}

var fitted = Profile{Name: Calibrated, Base: 52.25, Efficiency: 0.88, BaseBand: 0.1, EfficiencyBand: 0.04, Sensed: "gpu", Source: "a fit"}

func TestStoreAndLoad(t *testing.T) {
	s := home(t)
	if p, path, ok, err := s.load(); ok || err != nil || p != (Profile{}) || path != "" {
		t.Fatalf("before: %v, %q, %v, %v", p, path, ok, err)
	}
	path, err := s.store(fitted)
	if err != nil {
		t.Fatal(err)
	}
	if name := filepath.Base(path); !strings.HasPrefix(name, "node-") || !strings.HasSuffix(name, ".json") || filepath.Base(filepath.Dir(path)) != "wattspan" {
		t.Errorf("it is in %s", path)
	}
	if p, from, ok, err := s.load(); p != fitted || from != path || !ok || err != nil {
		t.Errorf("%v, %s, %v, %v", p, from, ok, err)
	}
	// Another takes its place, and nothing else is left in the folder.
	other := fitted
	other.Base = 60
	if again, err := s.store(other); again != path || err != nil {
		t.Errorf("%s, %v", again, err)
	}
	if p, _, _, err := s.load(); p != other || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("%v", files)
	}
	if gone, removed, err := s.forget(); gone != path || !removed || err != nil {
		t.Errorf("forget: %s, %v, %v", gone, removed, err)
	}
	if _, removed, err := s.forget(); removed || err != nil {
		t.Errorf("forget again: %v, %v", removed, err)
	}
	if _, _, ok, err := s.load(); ok || err != nil {
		t.Errorf("after: %v, %v", ok, err)
	}
}

// What means nothing is not stored, and what is stored stays.
func TestStoreRefusesNonsense(t *testing.T) {
	s := home(t)
	if _, err := s.store(fitted); err != nil {
		t.Fatal(err)
	}
	if path, err := s.store(Profile{Efficiency: 7}); err == nil || path != "" {
		t.Errorf("%s, %v", path, err)
	}
	if p, _, ok, err := s.load(); p != fitted || !ok || err != nil {
		t.Errorf("%v, %v, %v", p, ok, err)
	}
}

// One home on several machines has a profile for each.
func TestProfilesOfASharedHome(t *testing.T) {
	one := home(t)
	two := one
	id := filepath.Join(t.TempDir(), "machine-id")
	if err := os.WriteFile(id, []byte(strings.Repeat("ab", 16)), 0o444); err != nil {
		t.Fatal(err)
	}
	two.ids = []string{id}
	a, err := one.store(fitted)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := two.load(); ok || err != nil {
		t.Errorf("the other machine has the profile of the first: %v, %v", ok, err)
	}
	b, err := two.store(Profile{Base: 1, Efficiency: 1})
	if err != nil || a == b {
		t.Errorf("%s and %s, %v", a, b, err)
	}
	if p, _, _, err := one.load(); p != fitted || err != nil {
		t.Errorf("%v, %v", p, err)
	}
}

func TestKey(t *testing.T) {
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "id")
		if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
		return file
	}
	s := home(t)
	byID, _ := s.key()
	s.ids = nil
	byName, _ := s.key()
	if byID == byName || len(byID) != 16 || strings.Contains(machineID, byID) || strings.Contains(byID, machineID[:8]) {
		t.Errorf("%s, %s", byID, byName)
	}
	for name, test := range map[string]struct {
		ids  []string
		want string
	}{
		"the first is missing":      {[]string{"/does/not/exist", write(machineID)}, byID},
		"capitals":                  {[]string{write(strings.ToUpper(machineID) + "\n")}, byID},
		"not initialised yet":       {[]string{write("uninitialized\n")}, byName},
		"empty, as in an image":     {[]string{write("")}, byName},
		"too short to be of a kind": {[]string{write("abcd\n")}, byName},
	} {
		s.ids = test.ids
		if got, err := s.key(); got != test.want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	s.hostname = func() (string, error) { return "node2", nil }
	s.ids = nil
	if other, _ := s.key(); other == byName {
		t.Error("two names have one key")
	}
	s.ids, s.hostname = []string{"/does/not/exist"}, func() (string, error) { return "", nil }
	if key, err := s.key(); err == nil {
		t.Errorf("nameless: %s", key)
	}
}

func TestSystemProfile(t *testing.T) {
	s := home(t)
	if err := os.MkdirAll(filepath.Dir(s.system), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(s.system, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"schema":"wattspan.node/v1","profile":{"name":"ours","base_w":70,"efficiency":0.9,"later":1},"more":{}}`)
	if p, path, ok, err := s.load(); p.Base != 70 || path != s.system || !ok || err != nil {
		t.Errorf("%v, %s, %v, %v", p, path, ok, err)
	}
	// A user without a home, as many services are.
	homeless := s
	homeless.config = func() (string, error) { return "", errors.New("$HOME is not defined") }
	if p, _, ok, err := homeless.load(); p.Base != 70 || !ok || err != nil {
		t.Errorf("without a home: %v, %v, %v", p, ok, err)
	}
	if _, err := homeless.store(fitted); err == nil {
		t.Error("stored without a home")
	}
	// The user's own is nearer.
	if _, err := s.store(fitted); err != nil {
		t.Fatal(err)
	}
	if p, _, _, err := s.load(); p != fitted || err != nil {
		t.Errorf("%v, %v", p, err)
	}
	if _, _, err := s.forget(); err != nil {
		t.Fatal(err)
	}
	write("{")
	if _, path, ok, err := s.load(); ok || !errors.Is(err, ErrDamaged) || path != s.system || !strings.Contains(err.Error(), "mend or remove") {
		t.Errorf("damaged: %s, %v, %v", path, ok, err)
	}
}

// A file that is damaged is an error that says which, and what to do; it is not
// taken for none, and not for a profile.
func TestDamagedProfile(t *testing.T) {
	s := home(t)
	path, err := s.store(fitted)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(good, &whole); err != nil || whole["schema"] != schema {
		t.Fatalf("%s, %v", good, err)
	}
	for name, text := range map[string]string{
		"empty":               "",
		"cut off":             string(good[:len(good)/2]),
		"zeros":               string(make([]byte, 500)),
		"something else":      "[1, 2, 3]",
		"another schema":      strings.Replace(string(good), schema, "wattspan.node/v9", 1),
		"no schema":           `{"profile":{"base_w":1,"efficiency":1}}`,
		"nonsense":            `{"schema":"wattspan.node/v1","profile":{"base_w":1,"efficiency":0.01}}`,
		"a negative base":     `{"schema":"wattspan.node/v1","profile":{"base_w":-1,"efficiency":0.9}}`,
		"a word for a number": `{"schema":"wattspan.node/v1","profile":{"base_w":"1","efficiency":1}}`,
		"more behind it":      string(good) + "}",
		"endless":             string(good) + strings.Repeat(" ", 1<<17),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		p, from, ok, err := s.load()
		if ok || p != (Profile{}) || from != path || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--forget") {
			t.Errorf("%s: %v, %s, %v, %v", name, p, from, ok, err)
		}
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := s.load(); ok || !errors.Is(err, ErrDamaged) {
		t.Errorf("a folder: %v, %v", ok, err)
	}
}

// A write that fails leaves what was there, and no debris.
func TestStoreIsAtomic(t *testing.T) {
	s := home(t)
	path, err := s.path()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store(fitted); err == nil {
		t.Fatal("stored over a folder")
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// The exported functions use the user's folder.
func TestStoreForTheUser(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"XDG_CONFIG_HOME", "HOME", "AppData"} {
		t.Setenv(name, dir)
	}
	if _, err := os.Stat(own.system); !errors.Is(err, fs.ErrNotExist) {
		t.Skip("this machine has a profile")
	}
	path, err := Store(fitted)
	if err != nil || !strings.HasPrefix(path, dir) {
		t.Fatalf("%s, %v", path, err)
	}
	if p, from, ok, err := Load(); p != fitted || from != path || !ok || err != nil {
		t.Errorf("%v, %s, %v, %v", p, from, ok, err)
	}
	if _, removed, err := Forget(); !removed || err != nil {
		t.Errorf("%v, %v", removed, err)
	}
	if _, _, ok, err := Load(); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// FuzzParseProfile: a file of whatever contents gives a valid profile or an error.
func FuzzParseProfile(f *testing.F) {
	f.Add([]byte(`{"schema":"wattspan.node/v1","profile":{"name":"x","base_w":45,"efficiency":0.9}}`))
	f.Add([]byte(`{"schema":"wattspan.node/v1","profile":{"base_w":1e400}}`))
	f.Add(bytes.Repeat([]byte("["), 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parse(data); err == nil && p.Validate() != nil {
			t.Errorf("%q: %+v", data, p)
		}
	})
}
