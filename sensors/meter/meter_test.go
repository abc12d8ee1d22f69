package meter

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/redfish"
)

func TestMeter(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("uses the shell")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	watts := write("watts", "220 W\n")
	micro := write("micro", "220000000\n")
	answer := write("answer", `{"apower":220,"a:b":220,"aenergy":{"total":5.5}}`)
	for spec, want := range map[string]struct {
		backend, source string
		method          sensors.Method
	}{
		"file:" + watts:                             {"file", "file " + watts, sensors.MethodPower},
		"file[µW]:" + micro:                         {"file", "file " + micro, sensors.MethodPower},
		"file[uW]: " + micro:                        {"file", "file " + micro, sensors.MethodPower},
		"file[apower]:" + answer:                    {"file", "file " + answer, sensors.MethodPower},
		"file[a:b]:" + answer:                       {"file", "file " + answer, sensors.MethodPower},
		"command:echo '220 W'":                      {"command", "command echo", sensors.MethodPower},
		"command:echo power: 220 W":                 {"command", "command echo", sensors.MethodPower},
		"command: cat " + watts + " | head -n 1":    {"command", "command cat", sensors.MethodPower},
		"command[apower W]:cat " + answer:           {"command", "command cat", sensors.MethodPower},
		"command[ aenergy.total Wh ]:cat " + answer: {"command", "command cat", sensors.MethodCounter},
		"command:[ -e / ] && echo 220 ]:":           {"command", "command [", sensors.MethodPower}, // brackets of the shell's
	} {
		b, err := Meter(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		s, omitted := b.Open(context.Background(), sensors.Roots{})
		if s == nil {
			t.Errorf("%s: %+v", spec, omitted)
			continue
		}
		d := s.Devices()[0]
		if b.Name != want.backend || b.Component != sensors.Node || len(b.Supports) == 0 || d.Source != want.source || d.Method != want.method || !d.Declared {
			t.Errorf("%s: %s, %+v; want %+v", spec, b.Name, d, want)
		}
		var r [1]sensors.Reading
		if s.Read(r[:]); want.method == sensors.MethodPower && r[0].Power != 220 {
			t.Errorf("%s: %+v", spec, r[0])
		}
		_ = s.Close()
	}
}

// A BMC that the user named is missed where it is not there.
func TestIPMI(t *testing.T) {
	b, err := Meter("ipmi")
	if err != nil {
		t.Fatal(err)
	}
	s, omitted := b.Open(context.Background(), sensors.Roots{Sys: t.TempDir()})
	if s != nil || len(omitted) != 1 || omitted[0].Status != sensors.Unreadable {
		t.Errorf("%v, %+v", s, omitted)
	}
}

func TestRedfish(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	if b, err := parse("redfish:https://bmc.lan:8443", none); err != nil || b.Name != "redfish" {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := parse("redfish:https://root:hunter2@bmc.lan", none); err == nil || !strings.Contains(err.Error(), redfish.EnvCredentials) {
		t.Errorf("%v", err)
	}
	half := func(name string) (string, bool) { return "monitor", name == redfish.EnvUser }
	if _, err := parse("redfish:https://bmc.lan", half); err == nil || !strings.Contains(err.Error(), redfish.EnvPassword) {
		t.Errorf("%v", err)
	}
}

// What names no meter is refused, with what to write instead, and not repeated.
func TestRefused(t *testing.T) {
	for _, spec := range []string{"", ":", "ipmi:hunter2", "ipmi[x]", "https://root:hunter2@bmc", "redfish", "redfish:", "redfish[x]:https://bmc",
		"command", "command:", "command: ", "file:", "file", "commands:hunter2", "command[]:hunter2", "command[:hunter2", "command[a b]:hunter2",
		"command[a W c]:hunter2", "command]:hunter2", "hunter2"} {
		_, err := Meter(spec)
		if err == nil {
			t.Errorf("%q is taken", spec)
			continue
		}
		if !errors.Is(err, ErrSpec) && !strings.HasPrefix(spec, "redfish") {
			t.Errorf("%q: %v", spec, err)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q is repeated: %v", spec, err)
		}
	}
}

// A description is a back-end or an error, and never both.
func FuzzMeter(f *testing.F) {
	for _, spec := range []string{"ipmi", "redfish:https://bmc", "command[a W]:b", "file:/x", "command[a]:b]:c"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		b, err := parse(spec, func(string) (string, bool) { return "", false })
		if (err == nil) != (b.Open != nil && b.Name != "") {
			t.Errorf("%q: %+v, %v", spec, b, err)
		}
	})
}
