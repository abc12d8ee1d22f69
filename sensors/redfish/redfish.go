// Package redfish asks the management controller of a machine over the network,
// by Redfish, for the power of the whole machine.
//
// # Basics
//
// The user names the controller by its URL; nothing is contacted otherwise. Of
// its chassis the one is taken that holds the computer system, and is asked every
// 5 seconds for
//
//   - PowerWatts of its EnvironmentMetrics, or where there is none
//   - PowerConsumedWatts of its Power, or where there is none either
//   - EnergyJoules or EnergykWh of its EnvironmentMetrics, as a counter.
//
// A power is integrated. Where there is an energy beside it, it serves as a check:
// its refresh is anything between a second and an hour, and nobody says which. The
// reading is in doubt where the two differ by more than 15 % over ten minutes.
//
// The figure is one device of component node, whose ID is "node".
//
// # Which chassis
//
// A controller can tell of several chassis that contain each other: of a DGX, the
// machine and its GPU baseboard. They are never added. Taken is the outermost of
// those that hold the system, and of several that do not say who contains whom the
// one that draws most, as no part draws more than its whole. The device's Note
// says which, and which others there were. Where a controller has the systems of
// several machines, the one whose host name is this machine's is taken, or the
// user says which: the URL may go on to it, as in
//
//	https://bmc.lan/redfish/v1/Systems/Node1
//	https://bmc.lan/redfish/v1/Chassis/Blade3
//
// # Credentials
//
// They come from the environment or a file, see [FromEnvironment], and never from
// the URL. They are sent over TLS to the host of the URL only, and appear in no
// error. A user with the role ReadOnly is enough. The session is closed at the end;
// a service without sessions is asked with basic authentication. After a 401 there
// is one new login, and then ever longer pauses, so that no account gets locked.
package redfish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

const source = "redfish"

const (
	every   = 5 * time.Second
	timeout = 10 * time.Second
	// band is for the sensors of power supplies, which are specified at 2 to 5 %.
	band = 0.05
	// maxPower is more than any machine draws.
	maxPower = 1e6
)

// Config says which controller to ask, and how.
type Config struct {
	// URL is that of the controller, "https://bmc.lan", or of a system or chassis
	// of it. It holds no user and no password.
	URL string
	// User and Password are those of a user with the role ReadOnly; empty where
	// the service asks for none.
	User, Password string
	// CAFile has the certificate of the authority that signed the controller's,
	// or that itself, in PEM; empty for the system's authorities.
	CAFile string
	// Insecure leaves the controller's certificate unverified, and permits http.
	// Whoever can reroute packets can then read the password.
	Insecure bool
	// Every is the time between two questions; 0 means 5 s.
	Every time.Duration
}

// Supports is what the package reads.
var Supports = []sensors.Support{
	{
		Hardware: "servers with Redfish since 2021 (iDRAC, iLO, XCC, OpenBMC, DGX)", Source: "Redfish: Chassis EnvironmentMetrics PowerWatts",
		Component: sensors.Node, Unit: "W", Method: sensors.MethodPower, ErrorBand: band,
		Privileges: "a user of the BMC with the role ReadOnly", Tested: "simulated",
	},
	{
		Hardware: "servers with Redfish", Source: "Redfish: Chassis Power PowerControl PowerConsumedWatts",
		Component: sensors.Node, Unit: "W", Method: sensors.MethodPower, ErrorBand: band,
		Privileges: "a user of the BMC with the role ReadOnly", Tested: "simulated",
	},
	{
		Hardware: "servers with Redfish that count energy and tell no power", Source: "Redfish: Chassis EnvironmentMetrics EnergyJoules, EnergykWh",
		Component: sensors.Node, Unit: "J, kWh", Method: sensors.MethodCounter, ErrorBand: band,
		Privileges: "a user of the BMC with the role ReadOnly", Tested: "simulated",
	},
}

// The variables of the environment.
const (
	EnvUser        = "WATTSPAN_REDFISH_USER"
	EnvPassword    = "WATTSPAN_REDFISH_PASSWORD"
	EnvCredentials = "WATTSPAN_REDFISH_CREDENTIALS"
	EnvCA          = "WATTSPAN_REDFISH_CA"
	EnvInsecure    = "WATTSPAN_REDFISH_INSECURE"
)

// FromEnvironment returns a Config without a URL, from
//
//	WATTSPAN_REDFISH_USER, WATTSPAN_REDFISH_PASSWORD   the user of the BMC
//	WATTSPAN_REDFISH_CREDENTIALS                       a file with both, "user:password"
//	                                                   or on two lines, in their stead
//	WATTSPAN_REDFISH_CA                                Config.CAFile
//	WATTSPAN_REDFISH_INSECURE                          Config.Insecure: true or 1
//
// lookup is [os.LookupEnv], and readFile is [ReadFile] other than in tests. A file
// that every user of the machine can read is refused.
func FromEnvironment(lookup func(string) (string, bool), readFile func(string) ([]byte, fs.FileMode, error)) (Config, error) {
	get := func(name string) string {
		value, set := lookup(name)
		if !set {
			return ""
		}
		return value
	}
	c := Config{User: get(EnvUser), Password: get(EnvPassword), CAFile: get(EnvCA)}
	if text := get(EnvInsecure); text != "" {
		insecure, err := strconv.ParseBool(text)
		if err != nil {
			return Config{}, fmt.Errorf("redfish: %s is %q, and should be true or false", EnvInsecure, text)
		}
		c.Insecure = insecure
	}
	path := get(EnvCredentials)
	switch {
	case path != "" && (c.User != "" || c.Password != ""):
		return Config{}, fmt.Errorf("redfish: both %s and %s or %s are set: set one of them", EnvCredentials, EnvUser, EnvPassword)
	case path != "":
		user, password, err := readCredentials(path, readFile)
		if err != nil {
			return Config{}, err
		}
		c.User, c.Password = user, password
	case c.User == "" && c.Password != "":
		return Config{}, fmt.Errorf("redfish: %s is set, and %s is not", EnvPassword, EnvUser)
	case c.User != "" && c.Password == "":
		return Config{}, fmt.Errorf("redfish: %s is set, and %s is not", EnvUser, EnvPassword)
	}
	return c, nil
}

func readCredentials(path string, readFile func(string) ([]byte, fs.FileMode, error)) (user, password string, err error) {
	text, mode, err := readFile(path)
	if err != nil {
		return "", "", fmt.Errorf("redfish: %s: %w", EnvCredentials, err)
	}
	if mode.Perm()&0o007 != 0 {
		return "", "", fmt.Errorf("redfish: %s (mode %04o) is open to every user of this machine: chmod 600 %[1]s", path, mode.Perm())
	}
	user, password, ok := parseCredentials(string(text))
	if !ok {
		return "", "", fmt.Errorf("redfish: %s holds no credentials: write user:password on one line, or the two on two lines", path)
	}
	return user, password, nil
}

// parseCredentials understands "user:password", or a line each.
func parseCredentials(text string) (user, password string, ok bool) {
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n"), "\n")
	switch len(lines) {
	case 1:
		user, password, _ = strings.Cut(lines[0], ":")
	case 2:
		user, password = lines[0], lines[1]
	}
	return user, password, user != "" && password != ""
}

// ReadFile reads a file and tells its mode: on Windows, where a mode says nothing,
// that of the user alone.
func ReadFile(path string) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	mode := info.Mode()
	if runtime.GOOS == "windows" {
		mode &^= 0o077
	}
	text, err := os.ReadFile(path)
	return text, mode, err
}

// Backend returns the back-end that asks as c says, for [sensors.WithBackend].
func Backend(c Config) sensors.Backend {
	return sensors.Backend{
		Name: source, Component: sensors.Node, Supports: Supports,
		Open: func(ctx context.Context, _ sensors.Roots) (sensors.Sensor, []sensors.Omission) {
			return c.open(ctx, c.every(), time.Now)
		},
	}
}

// Check returns an error that says what is wrong with c, as far as that can be
// said without asking.
func (c Config) Check() error {
	_, err := c.target()
	return err
}

func (c Config) every() time.Duration { return cmp.Or(c.Every, every) }

// target is what a URL names.
type target struct {
	host     string // for people
	endpoint string // what a path is appended to
	path     string // of a system or chassis; empty for the service
}

const root = "/redfish/v1"

// target takes the URL apart. What it cannot understand it does not quote: it may
// be a password.
func (c Config) target() (target, error) {
	refuse := func(why string) (target, error) {
		return target{}, fmt.Errorf("redfish: the URL of the BMC %s: %w", why, sensors.ErrUnsupported)
	}
	authority := strings.SplitN(c.URL, "/", 4)
	if len(authority) > 2 && strings.Contains(authority[2], "@") {
		return refuse("holds a user or password, which processes and logs can see: leave it out, and set " +
			EnvUser + " and " + EnvPassword + ", or " + EnvCredentials)
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return refuse("is not one: write https://bmc.example")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return refuse("has more than a host and a path")
	case u.Scheme == "http" && !c.Insecure:
		return refuse("begins with http, which shows the password to the network: write https, or set " + EnvInsecure + "=1")
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse("does not begin with https://")
	}
	t := target{host: u.Host}
	prefix, path, found := strings.Cut(strings.TrimRight(u.EscapedPath(), "/"), root)
	t.endpoint = u.Scheme + "://" + u.Host + prefix
	switch {
	case !found && prefix != "":
		return refuse("has a path that is not " + root)
	case path == "":
	case strings.HasPrefix(path, "/Systems/"), strings.HasPrefix(path, "/Chassis/"):
		t.path = root + path
	default:
		return refuse("goes on to neither a system nor a chassis: write " + root + "/Systems/NAME or " + root + "/Chassis/NAME")
	}
	return t, nil
}

// open logs in, chooses the chassis, and asks it every interval; 0 leaves that to
// Poll.
func (c Config) open(ctx context.Context, interval time.Duration, now func() time.Time) (sensors.Sensor, []sensors.Omission) {
	t, err := c.target()
	if err != nil {
		return nil, []sensors.Omission{c.omission("", err)}
	}
	s, err := newService(c, t, now)
	if err != nil {
		return nil, []sensors.Omission{c.omission(t.host, err)}
	}
	m, err := s.choose(ctx, t.path, hostName())
	if err != nil {
		s.close()
		return nil, []sensors.Omission{c.omission(t.host, err)}
	}
	polled, _ := sensors.NewPolled(ctx, sensors.Polling{
		Devices: m.devices(c.every()), Every: interval, Timeout: timeout,
		Unit: 1, MaxPower: maxPower, Now: now, Poll: m.poll,
	})
	return &sensor{Polled: polled, meter: m, doubt: fmt.Errorf("redfish: %s: the power over time and the energy counter differ by more than 15 %%: %w", t.host, sensors.ErrDisagreement)}, nil
}

func hostName() string {
	name, _ := os.Hostname()
	return name
}

// omission says why there is no meter. It is one that the user asked for.
func (c Config) omission(host string, err error) sensors.Omission {
	reason := strings.TrimPrefix(err.Error(), "redfish: ")
	if host != "" {
		reason = "the BMC at " + host + " does not tell the power of the machine: " + reason
	}
	o := sensors.Omission{
		Source: source, Component: sensors.Node, Status: sensors.Unreadable, Reason: reason, Err: err,
	}
	switch {
	case errors.Is(err, errCertificate):
		o.Remedy = fmt.Sprintf("fetch its certificate, compare it with the one the BMC shows, and name it: openssl s_client -connect %s </dev/null | openssl x509 >bmc.pem; export %s=bmc.pem", withPort(host), EnvCA)
	case errors.Is(err, sensors.ErrPermission):
		o.Remedy = fmt.Sprintf("set %s and %s, or %s to a file of mode 600 with user:password, of a user with the role ReadOnly", EnvUser, EnvPassword, EnvCredentials)
	case errors.Is(err, sensors.ErrTimeout), errors.Is(err, sensors.ErrLost):
		o.Remedy = "see whether it answers: curl -k https://" + host + root
	}
	return o
}

func withPort(host string) string {
	if u := (url.URL{Host: host}); u.Port() == "" {
		return host + ":443"
	}
	return host
}

// sensor is the polled chassis. Its first device is what it shows; the second, if
// there is one, is the check.
type sensor struct {
	*sensors.Polled
	meter   *meter
	doubt   error
	scratch [2]sensors.Reading
}

var _ sensors.Sensor = (*sensor)(nil)

// Devices implements sensors.Sensor.
func (s *sensor) Devices() []sensors.Device { return s.Polled.Devices()[:1:1] }

// Read implements sensors.Sensor.
func (s *sensor) Read(dst []sensors.Reading) {
	s.Polled.Read(s.scratch[:])
	dst[0] = s.scratch[0]
	if s.meter.checked() && disagree(s.scratch[0].Tally, s.scratch[1].Tally, s.meter.step) {
		dst[0].Doubt = s.doubt
	}
}

// disagree reports whether a power over time and a counter tell of different mean
// powers, as far as the counter's steps allow to say.
func disagree(power, counter sensors.Tally, step sensors.Microjoules) bool {
	const (
		least = 10 * time.Minute
		steps = 20
		most  = 0.15
	)
	if power.Observed < least || counter.Observed < least {
		return false
	}
	if counter.Energy < steps*step && power.Energy < steps*step {
		return false
	}
	p := float64(power.Energy) / power.Observed.Seconds()
	c := float64(counter.Energy) / counter.Observed.Seconds()
	return max(p, c) > (1+most)*min(p, c)
}

// Close implements sensors.Sensor. It ends the session.
func (s *sensor) Close() error {
	err := s.Polled.Close()
	s.meter.service.close()
	return err
}
