package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// clock is a time that tests move.
type clock struct{ at time.Time }

func newClock() *clock           { return &clock{time.Unix(1_700_000_000, 0)} }
func (c *clock) now() time.Time  { return c.at }
func (c *clock) pass(d duration) { c.at = c.at.Add(d) }

type duration = time.Duration

// opened opens a meter that is polled by hand.
func opened(t testing.TB, c Config, now func() time.Time) *sensor {
	t.Helper()
	s, omitted := c.open(context.Background(), 0, now)
	if s == nil {
		t.Fatalf("no sensor: %+v", omitted)
	}
	return s.(*sensor)
}

func read(s *sensor) sensors.Reading {
	s.Poll(context.Background())
	var r [1]sensors.Reading
	s.Read(r[:])
	return r[0]
}

func TestConform(t *testing.T) {
	const path = "/redfish/v1/Chassis/System.Embedded.1/EnvironmentMetrics"
	at := newClock()
	kWh := 1234.5678
	for name, text := range map[string]func() string{
		"power":            func() string { return `{"PowerWatts":{"Reading":1320}}` },
		"power and energy": func() string { return fmt.Sprintf(`{"PowerWatts":{"Reading":1320},"EnergykWh":{"Reading":%.6f}}`, kWh) },
		"energy alone":     func() string { return fmt.Sprintf(`{"EnergykWh":{"Reading":%.6f}}`, kWh) },
		"joules alone":     func() string { return fmt.Sprintf(`{"EnergyJoules":{"Reading":%.1f}}`, kWh*sensors.JoulesPerKWh) },
	} {
		t.Run(name, func(t *testing.T) {
			bmc := newController(t, iDRAC())
			if !strings.Contains(name, "power") {
				bmc.set("/redfish/v1/Chassis/System.Embedded.1/Power", `{"PowerControl":[]}`)
			}
			bmc.set(path, text())
			var s *sensor
			sensortest.Conform(t, sensortest.Conformance{
				Supports: Supports,
				Open: func(t testing.TB) sensors.Sensor {
					s = opened(t, bmc.config(), at.now)
					return s
				},
				Advance: func(d time.Duration) {
					at.pass(d)
					kWh += 1320 * d.Hours() / 1000
					bmc.set(path, text())
					s.Poll(context.Background())
				},
			})
			if logins, logouts, sessions := bmc.counts(); logins != 4 || logouts != 4 || sessions != 0 {
				t.Errorf("%d logins, %d logouts, %d sessions left", logins, logouts, sessions)
			}
		})
	}
}

// Of each controller the whole machine is taken, once.
func TestMachines(t *testing.T) {
	with := func(r map[string]string, changes ...string) map[string]string {
		for i := 0; i < len(changes); i += 2 {
			r[changes[i]] = changes[i+1]
		}
		return r
	}
	// As one made by Gigabyte has it: nobody says who contains whom, and the
	// baseboard comes first.
	flat := dgx()
	for path, text := range flat {
		flat[path] = strings.ReplaceAll(text, "ContainedBy", "Ignored")
	}
	// For a moment, a part may draw more than what it is in seems to.
	trays := map[string]string{"/redfish/v1/Systems": members("/redfish/v1/Systems/1"),
		"/redfish/v1/Systems/1":    `{"Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/Tray"},{"@odata.id":"/redfish/v1/Chassis/Self"}]}}`,
		"/redfish/v1/Chassis/Self": `{"Power":{"@odata.id":"/redfish/v1/Chassis/Self/Power"}}`, "/redfish/v1/Chassis/Self/Power": `{"PowerControl":[{"PowerConsumedWatts":300}]}`,
		"/redfish/v1/Chassis/Tray": `{"Power":{"@odata.id":"/redfish/v1/Chassis/Tray/Power"},"Links":{"ContainedBy":{"@odata.id":"/redfish/v1/Chassis/Self/"}}}`, "/redfish/v1/Chassis/Tray/Power": `{"PowerControl":[{"PowerConsumedWatts":310}]}`}
	blades := map[string]string{"/redfish/v1/Systems": members("/redfish/v1/Systems/Node1", "/redfish/v1/Systems/Node2")}
	for i, watts := range []string{"400", "300"} {
		n := fmt.Sprint("Node", i+1)
		blades["/redfish/v1/Systems/"+n] = fmt.Sprintf(`{"Id":%q,"HostName":"%s.cluster","Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/%s"}]}}`, n, strings.ToLower(n), n)
		blades["/redfish/v1/Chassis/"+n] = fmt.Sprintf(`{"Id":%q,"Power":{"@odata.id":"/redfish/v1/Chassis/%[1]s/Power"},"Links":{"ContainedBy":{"@odata.id":"/redfish/v1/Chassis/Enclosure"}}}`, n)
		blades["/redfish/v1/Chassis/"+n+"/Power"] = `{"PowerControl":[{"PowerConsumedWatts":` + watts + `}]}`
	}
	const idrac = "/redfish/v1/Chassis/System.Embedded.1"
	for name, c := range map[string]struct {
		resources map[string]string
		path      string
		watts     sensors.Watts
		device    string
		note      string
		err       string
	}{
		"iDRAC":                {resources: iDRAC(), watts: 1320, device: "Dell Inc. PowerEdge XE9680", note: "PowerWatts of chassis System.Embedded.1"},
		"iLO":                  {resources: iLO(), watts: 165, device: "HPE ProLiant DL380 Gen10", note: "PowerConsumedWatts of chassis 1"},
		"Supermicro":           {resources: supermicro(), watts: 2750, note: "PowerConsumedWatts of chassis 1"},
		"Lenovo":               {resources: lenovo(), watts: 431, note: "PowerConsumedWatts of chassis 1"},
		"DGX":                  {resources: dgx(), watts: 6120.5, note: "PowerWatts of chassis DGX, not of HGX_Chassis_0, CPU_Board, which is taken for a part of it"},
		"nobody says contains": {resources: flat, watts: 6120.5, note: "PowerWatts of chassis DGX, not of HGX_Chassis_0, CPU_Board, which is taken for a part of it"},
		"a part draws more":    {resources: trays, watts: 300, note: "PowerConsumedWatts of chassis Self, not of Tray, which is taken for a part of it"},
		"PowerWatts null": {resources: with(iDRAC(), idrac+"/EnvironmentMetrics", `{"PowerWatts":{"Reading":null}}`),
			watts: 1309, note: "PowerConsumedWatts of chassis System.Embedded.1"},
		"PowerWatts 0": {resources: with(iDRAC(), idrac+"/EnvironmentMetrics", `{"PowerWatts":{"Reading":0}}`),
			watts: 1309, note: "PowerConsumedWatts of chassis System.Embedded.1"},
		"PowerWatts alone": {resources: with(iDRAC(), idrac+"/EnvironmentMetrics", `{"PowerWatts":1320.25}`), watts: 1320.25},
		"all null": {resources: with(iDRAC(), idrac+"/EnvironmentMetrics", `{"PowerWatts":null}`, idrac+"/Power", `{"PowerControl":[{"PowerConsumedWatts":null}]}`),
			err: "neither a power nor an energy"},
		"parts alone": {resources: with(lenovo(), "/redfish/v1/Chassis/1/Power", `{"PowerControl":[{"PhysicalContext":"CPU","PowerConsumedWatts":210}]}`),
			err: "neither a power nor an energy"},
		"absurd": {resources: with(iLO(), "/redfish/v1/Chassis/1/Power", `{"PowerControl":[{"PowerConsumedWatts":1e9}]}`),
			err: "neither a power nor an energy"},
		"negative": {resources: with(iLO(), "/redfish/v1/Chassis/1/Power", `{"PowerControl":[{"PowerConsumedWatts":-3}]}`),
			err: "neither a power nor an energy"},
		"malformed": {resources: with(iLO(), "/redfish/v1/Chassis/1/Power", `{"PowerControl":[`),
			err: "not what Redfish has there"},
		"a page of the web": {resources: map[string]string{root: `<html>Login</html>`}, err: "invalid character"},
		"several machines":  {resources: blades, err: "/redfish/v1/Systems/Node1 or /redfish/v1/Systems/Node2"},
		"one of them":       {resources: blades, path: "/redfish/v1/Systems/Node2", watts: 300},
		"one chassis":       {resources: blades, path: "/redfish/v1/Chassis/Node1/", watts: 400},
		"one that is not":   {resources: blades, path: "/redfish/v1/Systems/Node9", err: "404"},
		"the part, asked for": {resources: dgx(), path: "/redfish/v1/Chassis/HGX_Chassis_0", watts: 4410.25,
			note: "PowerWatts of chassis HGX_Chassis_0"},
		"no system": {resources: with(iLO(), "/redfish/v1/Systems", members(), "/redfish/v1/Chassis", members("/redfish/v1/Chassis/1")), watts: 165},
		"no system, many chassis": {resources: with(iLO(), "/redfish/v1/Systems", members(), "/redfish/v1/Chassis", members("/redfish/v1/Chassis/1", "/redfish/v1/Chassis/2")),
			err: "/redfish/v1/Chassis/1 or"},
		"pages": {resources: with(iLO(), "/redfish/v1/Systems", `{"Members":[{"@odata.id":"/redfish/v1/Systems/HGX_Baseboard_0"}],"Members@odata.nextLink":"/redfish/v1/Systems?$skip=1"}`,
			"/redfish/v1/Systems/HGX_Baseboard_0", `{"Id":"HGX_Baseboard_0"}`, "/redfish/v1/Systems?$skip=1", members("/redfish/v1/Systems/1/")), watts: 165},
	} {
		t.Run(name, func(t *testing.T) {
			bmc := newController(t, c.resources)
			config := bmc.config()
			config.URL += c.path
			s, omitted := config.open(context.Background(), 0, newClock().now)
			if c.err != "" {
				if s != nil || len(omitted) != 1 || !strings.Contains(omitted[0].Reason, c.err) || omitted[0].Status != sensors.Unreadable {
					t.Fatalf("%v, %+v; want %q", s, omitted, c.err)
				}
				if _, _, sessions := bmc.counts(); sessions != 0 {
					t.Errorf("%d sessions are left", sessions)
				}
				return
			}
			if s == nil {
				t.Fatalf("no sensor: %+v", omitted)
			}
			defer func() { _ = s.Close() }()
			r := read(s.(*sensor))
			if len(s.Devices()) != 1 {
				t.Fatalf("%d devices", len(s.Devices()))
			}
			d := s.Devices()[0]
			if r.Err != nil || r.Power != c.watts || d.ID != "node" || d.Component != sensors.Node || d.Scope != sensors.ScopeNode || !d.Declared {
				t.Errorf("%+v, %+v; want %v W", d, r, float64(c.watts))
			}
			if c.device != "" && d.Name != c.device || c.note != "" && d.Note != c.note {
				t.Errorf("name %q, note %q; want %q, %q", d.Name, d.Note, c.device, c.note)
			}
		})
	}
}

// The host name of this machine tells which of several systems it is.
func TestSystemByHostName(t *testing.T) {
	bmc := newController(t, map[string]string{
		"/redfish/v1/Systems/a": `{"HostName":"node1.cluster"}`, "/redfish/v1/Systems/b": `{"HostName":"NODE2"}`,
	})
	target, _ := bmc.config().target()
	s, err := newService(bmc.config(), target, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	links := []link{{"/redfish/v1/Systems/a"}, {"/redfish/v1/Systems/b"}}
	for host, want := range map[string]string{"node1": "a", "node2.cluster": "b", "node3": "", "": ""} {
		y, err := s.system(context.Background(), links, host)
		if (err == nil) != (want != "") || err == nil && name(y.link) != want {
			t.Errorf("%q: %q, %v", host, y.Path, err)
		}
	}
}

// In steady state one question is one request, on one connection.
func TestOneRequestAPoll(t *testing.T) {
	bmc := newController(t, iDRAC())
	s := opened(t, bmc.config(), newClock().now)
	defer func() { _ = s.Close() }()
	bmc.mu.Lock()
	bmc.requests = nil
	bmc.mu.Unlock()
	for range 3 {
		read(s)
	}
	if got := fmt.Sprint(bmc.requests); got != strings.Replace("[X X X]", "X", "GET /redfish/v1/Chassis/System.Embedded.1/EnvironmentMetrics", -1) {
		t.Errorf("asked %s", got)
	}
}

// What goes wrong costs the reading and keeps the tally, and the next may be good.
func TestTrouble(t *testing.T) {
	const path = "/redfish/v1/Chassis/System.Embedded.1/EnvironmentMetrics"
	good := iDRAC()[path]
	for name, c := range map[string]struct {
		break_ func(bmc *controller)
		err    error
	}{
		"500": {func(bmc *controller) {
			bmc.before = func(w http.ResponseWriter, r *http.Request) bool { answer(w, 500, failure("oh")); return true }
		}, sensors.ErrTransient},
		"503 in HTML": {func(bmc *controller) {
			bmc.before = func(w http.ResponseWriter, r *http.Request) bool { answer(w, 503, "<html>"); return true }
		}, sensors.ErrTransient},
		"404":       {func(bmc *controller) { delete(bmc.resources, path) }, sensors.ErrUnsupported},
		"malformed": {func(bmc *controller) { bmc.resources[path] = `{"PowerWatts":{` }, sensors.ErrTransient},
		"null":      {func(bmc *controller) { bmc.resources[path] = `{"PowerWatts":{"Reading":null}}` }, sensors.ErrTransient},
		"no power":  {func(bmc *controller) { bmc.resources[path] = `{}` }, sensors.ErrTransient},
		"NaN":       {func(bmc *controller) { bmc.resources[path] = `{"PowerWatts":{"Reading":"NaN"}}` }, sensors.ErrTransient},
		"forbidden": {func(bmc *controller) {
			bmc.before = func(w http.ResponseWriter, r *http.Request) bool { answer(w, 403, failure("licence")); return true }
		}, sensors.ErrPermission},
		"an endless": {func(bmc *controller) {
			bmc.resources[path] = `{"a":"` + strings.Repeat("x", 2*mostBody) + `","PowerWatts":{"Reading":1320}}`
		}, sensors.ErrTransient},
	} {
		t.Run(name, func(t *testing.T) {
			at := newClock()
			bmc := newController(t, iDRAC())
			s := opened(t, bmc.config(), at.now)
			defer func() { _ = s.Close() }()
			at.pass(5 * time.Second)
			before := read(s)
			bmc.mu.Lock()
			c.break_(bmc)
			bmc.mu.Unlock()
			at.pass(5 * time.Second)
			if r := read(s); !errors.Is(r.Err, c.err) || r.Tally != before.Tally || r.Power == 0 {
				t.Errorf("%+v, want %v and %+v", r, c.err, before.Tally)
			}
			bmc.mu.Lock()
			bmc.before, bmc.resources[path] = nil, good
			bmc.mu.Unlock()
			at.pass(5 * time.Second)
			if r := read(s); r.Err != nil || r.Energy != before.Energy+1320*10e6 {
				t.Errorf("afterwards: %+v, before %+v", r, before)
			}
		})
	}
}

// A session that has expired is opened anew, once and at once; a login that is
// refused is not repeated at every poll, which would lock the account.
func TestLogin(t *testing.T) {
	at := newClock()
	bmc := newController(t, iDRAC())
	bmc.noBasic = true
	s := opened(t, bmc.config(), at.now)
	bmc.expire()
	at.pass(5 * time.Second)
	if r := read(s); r.Err != nil || r.Power != 1320 {
		t.Errorf("expired: %+v", r)
	}
	if logins, _, _ := bmc.counts(); logins != 2 {
		t.Errorf("%d logins", logins)
	}
	// The password is changed.
	s.meter.service.config.Password = "wrong"
	bmc.expire()
	polls := 0
	for range 60 {
		at.pass(5 * time.Second)
		polls++
		if r := read(s); !errors.Is(r.Err, sensors.ErrPermission) {
			t.Fatalf("wrong password: %+v", r)
		}
	}
	logins, _, _ := bmc.counts()
	if tried := logins - 2; tried < 2 || tried > 6 {
		t.Errorf("%d logins in %d polls, want a few", tried, polls)
	}
	// And changed back.
	s.meter.service.config.Password = secret
	at.pass(lastPause)
	if r := read(s); r.Err != nil {
		t.Errorf("back: %+v", r)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, _, sessions := bmc.counts(); sessions != 0 {
		t.Errorf("%d sessions left", sessions)
	}
}

// A service that takes the login and then refuses is left alone too.
func TestRefusedAfterLogin(t *testing.T) {
	at := newClock()
	bmc := newController(t, iDRAC())
	s := opened(t, bmc.config(), at.now)
	defer func() { _ = s.Close() }()
	bmc.mu.Lock()
	bmc.before = func(w http.ResponseWriter, r *http.Request) bool { answer(w, 401, failure("no")); return true }
	bmc.mu.Unlock()
	for range 60 {
		at.pass(5 * time.Second)
		if r := read(s); !errors.Is(r.Err, sensors.ErrPermission) {
			t.Fatalf("%+v", r)
		}
	}
	if logins, _, sessions := bmc.counts(); logins > 6 || sessions > 0 {
		t.Errorf("%d logins, %d sessions", logins, sessions)
	}
}

// The ways to log in: a session, basic authentication where there are none, and
// nothing where nothing is asked.
func TestWaysIn(t *testing.T) {
	for name, change := range map[string]func(bmc *controller, c *Config){
		"session":           func(bmc *controller, c *Config) { bmc.noBasic = true },
		"basic":             func(bmc *controller, c *Config) { bmc.noSessions = true },
		"no link":           func(bmc *controller, c *Config) { bmc.set(root, `{"Systems":{"@odata.id":"/redfish/v1/Systems"}}`) },
		"open":              func(bmc *controller, c *Config) { bmc.open, c.User, c.Password = true, "", "" },
		"behind a prefix":   func(bmc *controller, c *Config) { c.URL += "/" },
		"with its own path": func(bmc *controller, c *Config) { c.URL += "/redfish/v1/" },
	} {
		bmc := newController(t, iDRAC())
		c := bmc.config()
		change(bmc, &c)
		s := opened(t, c, newClock().now)
		if r := read(s); r.Err != nil || r.Power != 1320 {
			t.Errorf("%s: %+v", name, r)
		}
		_ = s.Close()
	}
}

// Whatever goes wrong, no secret is in what people and logs see.
func TestSecretsStaySecret(t *testing.T) {
	bmc := newController(t, iDRAC())
	c := bmc.config()
	c.Password = "hunter2-" + secret // wrong; the controller repeats it
	var shown []string
	show := func(omitted []sensors.Omission) {
		for _, o := range omitted {
			shown = append(shown, fmt.Sprintf("%+v %v", o, o.Err))
		}
	}
	_, omitted := c.open(context.Background(), 0, time.Now)
	show(omitted)
	if len(omitted) != 1 || !errors.Is(omitted[0].Err, sensors.ErrPermission) || !strings.Contains(omitted[0].Remedy, EnvCredentials) {
		t.Errorf("%+v", omitted)
	}
	for _, code := range []int{400, 403, 500} {
		bmc.before = func(w http.ResponseWriter, r *http.Request) bool {
			answer(w, code, failure(fmt.Sprintf("%s %s %s", secret, r.Header.Get("X-Auth-Token"), r.Header.Get("Authorization"))))
			return true
		}
		_, omitted := bmc.config().open(context.Background(), 0, time.Now)
		show(omitted)
		bmc.noSessions = true
		_, omitted = bmc.config().open(context.Background(), 0, time.Now)
		show(omitted)
		bmc.noSessions = false
	}
	for _, url := range []string{"https://root:hunter2@bmc", "https://hunter2@bmc", "https://root:hunt%er2@bmc", "https://bmc/?password=hunter2",
		"root:hunter2@bmc", "https://root:hunter2/@bmc", "ftp://root:hunter2@bmc", "https://bmc/redfish/v1/hunter2", "https://bmc:hunter2/"} {
		s, omitted := Config{URL: url}.open(context.Background(), 0, time.Now)
		if s != nil || len(omitted) != 1 || (Config{URL: url}).Check() == nil {
			t.Errorf("%s is taken", url)
		}
		show(omitted)
	}
	if len(shown) != 16 {
		t.Errorf("%d errors", len(shown))
	}
	for _, text := range shown {
		for _, s := range []string{secret, `s3cr:et\"ü`, "hunter2", "token-", "Basic bW9u"} {
			if strings.Contains(text, s) {
				t.Errorf("%q is in: %s", s, text)
			}
		}
	}
}

func TestURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://bmc":                           "",
		"https://bmc/":                          "",
		"https://bmc:8443/redfish/v1/":          "",
		"https://[fe80::1]/redfish/v1/Systems/": "system nor a chassis",
		"https://proxy/bmc7/redfish/v1":         "",
		"https://bmc/redfish/v1/Chassis/1":      "",
		"https://bmc/redfish/v1/Systems/A":      "",
		"http://bmc":                            "https",
		"bmc":                                   "https://",
		"":                                      "https://",
		"https://":                              "https://",
		"https://bmc/login":                     "a path that is not /redfish/v1",
		"https://u:p@bmc":                       EnvUser,
		"https://bmc/redfish/v1/Managers/1":     "system nor a chassis",
		"https://bmc#x":                         "host and a path",
		"unix:///run/bmc":                       "https://",
	} {
		err := Config{URL: url}.Check()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
	if err := (Config{URL: "http://bmc", Insecure: true}).Check(); err != nil {
		t.Error(err)
	}
	got, err := Config{URL: "https://proxy:1/bmc7/redfish/v1/Chassis/1"}.target()
	if want := (target{"proxy:1", "https://proxy:1/bmc7", "/redfish/v1/Chassis/1"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// The certificate is verified, other than on request, and the error says how to
// make it trusted.
func TestCertificate(t *testing.T) {
	bmc := newController(t, iDRAC())
	c := bmc.config()
	c.CAFile = ""
	s, omitted := c.open(context.Background(), 0, time.Now)
	if s != nil || len(omitted) != 1 || !errors.Is(omitted[0].Err, errCertificate) || !strings.Contains(omitted[0].Remedy, EnvCA) {
		t.Errorf("%v, %+v", s, omitted)
	}
	if logins, _, _ := bmc.counts(); logins > 0 {
		t.Error("the password was sent")
	}
	c.Insecure = true
	s2 := opened(t, c, time.Now)
	_ = s2.Close()
	for _, file := range []string{"/nonexistent/ca.pem", writeFile(t, "no certificate", 0o600)} {
		c.CAFile = file
		if s, omitted := c.open(context.Background(), 0, time.Now); s != nil || len(omitted) != 1 {
			t.Errorf("%s: %v", file, s)
		}
	}
}

// The token of a session does not follow a redirect to another host.
func TestRedirect(t *testing.T) {
	elsewhere := newController(t, iDRAC())
	elsewhere.open = true
	bmc := newController(t, iDRAC())
	bmc.before = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	c := bmc.config()
	c.CAFile, c.Insecure = "", true
	if s, _ := c.open(context.Background(), 0, time.Now); s != nil {
		t.Error("followed")
	}
	if len(elsewhere.requests) > 0 {
		t.Errorf("asked %v", elsewhere.requests)
	}
}

// A controller that does not answer costs its time, and Close does not wait for
// it. Nothing is left running.
func TestSlow(t *testing.T) {
	before := runtime.NumGoroutine()
	bmc := newController(t, iDRAC())
	s := opened(t, bmc.config(), time.Now)
	bmc.mu.Lock()
	bmc.before = slowOutside(bmc)
	bmc.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	s.Poll(ctx)
	var r [1]sensors.Reading
	if s.Read(r[:]); !errors.Is(r[0].Err, sensors.ErrTimeout) {
		t.Errorf("%+v", r[0])
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	bmc.CloseClientConnections()
	bmc.Server.Close()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// slowOutside is slow without holding the controller.
func slowOutside(bmc *controller) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		bmc.mu.Unlock()
		defer bmc.mu.Lock()
		return slow(w, r)
	}
}

// The polling ends with Close, whatever it is doing.
func TestClose(t *testing.T) {
	bmc := newController(t, iDRAC())
	s, omitted := bmc.config().open(context.Background(), time.Millisecond, time.Now)
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		bmc.mu.Lock()
		n := len(bmc.requests)
		bmc.mu.Unlock()
		if n > 20 || time.Now().After(end) {
			break
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	bmc.mu.Lock()
	after := len(bmc.requests)
	bmc.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	bmc.mu.Lock()
	defer bmc.mu.Unlock()
	if len(bmc.requests) != after || len(bmc.tokens) != 0 || bmc.requests[after-1] != "DELETE "+sessionsPath+"/token-1" {
		t.Errorf("%d requests after Close, %d sessions", len(bmc.requests)-after, len(bmc.tokens))
	}
}

// No server at all.
func TestNobodyThere(t *testing.T) {
	bmc := newController(t, iDRAC())
	c := bmc.config()
	bmc.Server.Close()
	s, omitted := c.open(context.Background(), 0, time.Now)
	if s != nil || len(omitted) != 1 || !errors.Is(omitted[0].Err, sensors.ErrLost) || !strings.Contains(omitted[0].Remedy, "curl") {
		t.Errorf("%v, %+v", s, omitted)
	}
}

// A power and a counter of one machine that tell of different powers cast doubt,
// and coarse steps or a short time do not.
func TestDoubt(t *testing.T) {
	const path = "/redfish/v1/Chassis/System.Embedded.1/EnvironmentMetrics"
	for name, c := range map[string]struct {
		watts, counted float64
		format         string
		minutes        int
		doubt          bool
	}{
		"agree":           {1000, 1000, "%.3f", 20, false},
		"differ":          {1000, 700, "%.3f", 20, true},
		"differ a little": {1000, 900, "%.3f", 20, false},
		"short":           {1000, 700, "%.3f", 5, false},
		"coarse":          {1000, 700, "%.0f", 20, false},
		"stands still":    {1000, 0, "%.3f", 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			at := newClock()
			kWh := 500.25
			bmc := newController(t, iDRAC())
			set := func() {
				bmc.set(path, fmt.Sprintf(`{"PowerWatts":{"Reading":%v},"EnergykWh":{"Reading":`+c.format+`}}`, c.watts, kWh))
			}
			set()
			s := opened(t, bmc.config(), at.now)
			defer func() { _ = s.Close() }()
			var r sensors.Reading
			for range c.minutes * 6 {
				at.pass(10 * time.Second)
				kWh += c.counted * 10 / sensors.JoulesPerKWh
				set()
				r = read(s)
			}
			if got := errors.Is(r.Doubt, sensors.ErrDisagreement); got != c.doubt || r.Err != nil {
				t.Errorf("%+v, want doubt %v", r, c.doubt)
			}
			if want := c.watts * float64(c.minutes) * 60; float64(r.Energy.Joules()) != want {
				t.Errorf("%v J, want %v", r.Energy.Joules(), want)
			}
			var dst [1]sensors.Reading
			if n := testing.AllocsPerRun(100, func() { s.Read(dst[:]) }); n != 0 {
				t.Errorf("Read allocates %v times", n)
			}
		})
	}
}

func writeFile(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFromEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		file string
		mode fs.FileMode
		want Config
		err  string
	}{
		"nothing":             {},
		"both":                {env: map[string]string{EnvUser: "u", EnvPassword: "p"}, want: Config{User: "u", Password: "p"}},
		"a line":              {file: "u:p:q\n", mode: 0o600, want: Config{User: "u", Password: "p:q"}},
		"two lines":           {file: "u\np:q\n", mode: 0o400, want: Config{User: "u", Password: "p:q"}},
		"of Windows":          {file: "u\r\np\r\n", mode: 0o600, want: Config{User: "u", Password: "p"}},
		"blanks are a part":   {file: "u: p ", mode: 0o600, want: Config{User: "u", Password: " p "}},
		"for a group":         {file: "u:p", mode: 0o640, want: Config{User: "u", Password: "p"}},
		"for all":             {file: "u:sesame", mode: 0o644, err: "chmod 600"},
		"writable for all":    {file: "u:sesame", mode: 0o602, err: "chmod 600"},
		"no colon":            {file: "sesame", mode: 0o600, err: "no credentials"},
		"three lines":         {file: "u\nsesame\nx", mode: 0o600, err: "no credentials"},
		"empty":               {file: "", mode: 0o600, err: "no credentials"},
		"no password":         {env: map[string]string{EnvUser: "u"}, err: EnvPassword},
		"no user":             {env: map[string]string{EnvPassword: "sesame"}, err: EnvUser},
		"two ways":            {env: map[string]string{EnvUser: "u", EnvPassword: "sesame"}, file: "u:p", mode: 0o600, err: "one of them"},
		"no file":             {env: map[string]string{EnvCredentials: "/nonexistent"}, err: "/nonexistent"},
		"authority":           {env: map[string]string{EnvCA: "ca.pem", EnvInsecure: "1"}, want: Config{CAFile: "ca.pem", Insecure: true}},
		"not insecure":        {env: map[string]string{EnvInsecure: "false"}},
		"neither yes nor no ": {env: map[string]string{EnvInsecure: "maybe"}, err: "maybe"},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{}
			for k, v := range c.env {
				env[k] = v
			}
			if c.mode != 0 {
				env[EnvCredentials] = writeFile(t, c.file, c.mode)
			}
			got, err := FromEnvironment(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, ReadFile)
			if runtime.GOOS == "windows" && strings.Contains(c.err, "chmod") {
				return
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || got != c.want {
				t.Errorf("%+v, %v; want %+v, %q", got, err, c.want, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "sesame") {
				t.Errorf("the password is in: %v", err)
			}
		})
	}
}

// Whatever a controller answers, there is a power that a machine can draw or none.
func FuzzState(f *testing.F) {
	for _, text := range []string{
		iDRAC()["/redfish/v1/Chassis/System.Embedded.1/Power"], lenovo()["/redfish/v1/Chassis/1/Power"],
		`{"PowerWatts":{"Reading":6120.5},"EnergykWh":{"Reading":12.5}}`, `{"PowerWatts":"1e999","EnergyJoules":1e300}`, `{"PowerWatts":[],"PowerControl":[null]}`,
		`{"EnergykWh":{"Reading":"0.` + strings.Repeat("0", 400) + `1"}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var m metrics
		if json.Unmarshal(text, &m) != nil {
			return
		}
		s := m.state()
		if !(s.power >= 0 && s.power <= maxPower && s.energy >= 0 && s.energy*1e6 <= 1<<63 && s.step >= 0) {
			t.Errorf("%s: %+v", text, s)
		}
	})
}

func FuzzCredentials(f *testing.F) {
	f.Add("u:p\n")
	f.Add("u\r\np")
	f.Fuzz(func(t *testing.T, text string) {
		u, p, ok := parseCredentials(text)
		if ok != (u != "" && p != "") || slices.ContainsFunc([]string{u, p}, func(s string) bool { return strings.Contains(s, "\n") }) {
			t.Errorf("%q: %q, %q, %v", text, u, p, ok)
		}
	})
}

// A URL that is taken contacts the host that it names, without credentials.
func FuzzURL(f *testing.F) {
	for _, u := range []string{"https://bmc", "https://u:p@bmc/", "https://bmc/redfish/v1/Chassis/1", "https://bmc\\@x", "http://bmc", "https:bmc"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, u string) {
		got, err := Config{URL: u}.target()
		if err != nil {
			return
		}
		if !strings.HasPrefix(got.endpoint, "https://"+got.host) || strings.ContainsAny(got.endpoint, "@?#") || got.host == "" ||
			got.path != "" && !strings.HasPrefix(got.path, "/redfish/v1/") {
			t.Errorf("%q: %+v", u, got)
		}
	})
}
