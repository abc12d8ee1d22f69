package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answerBudget bounds a try whether a collector answers.
const answerBudget = 2 * time.Second

// exportState is what the OTEL_* variables ask for, and whether it would work.
// It holds names of headers and no values, and no endpoint's user or query:
// these are secrets.
type exportState struct {
	// Disabled is set where OTEL_SDK_DISABLED says that nothing is exported.
	Disabled bool           `json:"disabled"`
	Signals  []signalExport `json:"signals"`
	// Problems are what is not understood, one sentence each.
	Problems []string `json:"problems"`
}

// signalExport is the export of the spans or of the metrics.
type signalExport struct {
	Signal string `json:"signal"` // traces or metrics
	Wanted bool   `json:"wanted"`
	// Endpoint and Protocol are where to and how; From is the variable that
	// says where.
	Endpoint string   `json:"endpoint,omitempty"`
	From     string   `json:"from,omitempty"`
	Protocol string   `json:"protocol,omitempty"`
	Headers  []string `json:"header_names,omitempty"`
	// Address is what was tried, of a proxy where one is in the way; empty
	// where it is not known.
	Address string `json:"address,omitempty"`
	Proxy   bool   `json:"proxy,omitempty"`
	// Answers is whether a connection was accepted; nil where it was not tried,
	// and Remark says why.
	Answers *bool  `json:"answers"`
	Remark  string `json:"remark,omitempty"`
}

// examineExport reads the environment as a run does, and tries the endpoints
// where it may.
func examineExport(ctx context.Context, environ []string, online bool) exportState {
	env := map[string]string{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = strings.TrimSpace(value)
	}
	getenv := func(name string) string { return env[name] }
	s := exportState{
		Disabled: strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true"),
		Signals:  []signalExport{}, Problems: []string{},
	}
	for _, signal := range []string{"TRACES", "METRICS"} {
		s.Signals = append(s.Signals, s.signal(signal, getenv))
	}
	if !s.Disabled {
		s.Problems = append(s.Problems, misspelt(env)...)
	}
	if online {
		s.try(ctx)
		return s
	}
	for i := range s.Signals {
		if x := &s.Signals[i]; x.Address != "" {
			x.Remark = remarks("not tried, as you asked", x.Remark)
		}
	}
	return s
}

// signal says where a signal goes.
func (s *exportState) signal(signal string, getenv func(string) string) signalExport {
	x := signalExport{Signal: strings.ToLower(signal)}
	setting := func(what string) (name, value string) {
		for _, name := range []string{"OTEL_EXPORTER_OTLP_" + signal + "_" + what, "OTEL_EXPORTER_OTLP_" + what} {
			if value := getenv(name); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	from, endpoint := setting("ENDPOINT")
	e := &export{failures: map[string]error{}}
	to := e.destination(getenv, signal)
	for _, p := range e.problems {
		s.problem("%s", p)
		x.Wanted = true
	}
	if to == nil {
		return x
	}
	x.Wanted, x.Protocol, x.From = true, to.protocol, from
	headersFrom, headers := setting("HEADERS")
	names, malformed := headerNames(headers)
	x.Headers = names
	if malformed > 0 {
		s.problem("%s has %d entries that are not name=value", headersFrom, malformed)
	}
	at, _ := url.Parse(endpoint) // destination has refused what is none
	x.locate(at, to)
	if x.Endpoint == "" {
		s.problem("%s names no host; write it like http://collector:4318", from)
	}
	return x
}

// resolved are the schemes of targets that gRPC resolves by itself.
var resolved = map[string]bool{"dns": true, "passthrough": true, "xds": true, "unix": true}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

// locate finds the address that the exporters dial.
func (x *signalExport) locate(at *url.URL, to *destination) {
	if to.local {
		x.Endpoint, x.Address, x.From = "http://localhost:4318", "localhost:4318", ""
		if to.protocol == protocolGRPC {
			x.Endpoint, x.Address = "http://localhost:4317", "localhost:4317"
		}
		return
	}
	shown := url.URL{Scheme: at.Scheme, Host: at.Host, Path: at.Path}
	x.Endpoint = shown.String()
	host, port, secure := at.Hostname(), at.Port(), at.Scheme != "http"
	switch {
	case host == "" && to.protocol == protocolGRPC && isPort(at.Opaque):
		// "collector:4317" is a URL of scheme collector to Go, and a target to
		// gRPC, which then takes TLS for granted.
		host, port, secure = at.Scheme, at.Opaque, true
		x.Endpoint = host + ":" + port
		x.Remark = "without http:// before it, it is taken to speak TLS"
	case host == "" && (to.protocol != protocolGRPC || !resolved[at.Scheme]):
		x.Endpoint = "" // it is not one, and may be anything
		return
	case host == "":
		x.Remark = "not tried: only gRPC itself knows where " + at.Scheme + ": leads"
		return
	case port == "" && to.protocol == protocolHTTP && at.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	x.Address = net.JoinHostPort(host, port)
	// The exporters go through a proxy where the environment names one.
	target := &url.URL{Scheme: "https", Host: x.Address}
	if !secure && to.protocol == protocolHTTP {
		target.Scheme = "http"
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: target}); err == nil && proxy != nil {
		x.Proxy = true
		x.Address = proxy.Host
		if proxy.Port() == "" {
			x.Address = net.JoinHostPort(proxy.Hostname(), map[string]string{"https": "443", "socks5": "1080"}[proxy.Scheme])
			if proxy.Scheme == "http" {
				x.Address = net.JoinHostPort(proxy.Hostname(), "80")
			}
		}
	}
}

// try connects to each address once, all at the same time.
func (s *exportState) try(ctx context.Context) {
	answers := map[string]*error{}
	var wait sync.WaitGroup
	for _, x := range s.Signals {
		if x.Address == "" || answers[x.Address] != nil {
			continue
		}
		answer := new(error)
		answers[x.Address] = answer
		wait.Go(func() {
			dialer := net.Dialer{Timeout: answerBudget}
			conn, err := dialer.DialContext(ctx, "tcp", x.Address)
			if err == nil {
				_ = conn.Close()
			}
			*answer = err
		})
	}
	wait.Wait()
	for i := range s.Signals {
		x := &s.Signals[i]
		if x.Address == "" {
			continue
		}
		err := *answers[x.Address]
		answers := err == nil
		x.Answers = &answers
		if err != nil {
			x.Remark = remarks(refusal(err), x.Remark)
		}
	}
}

// refusal says why a connection failed, without the address a second time.
func refusal(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Sprintf("no answer within %v", answerBudget)
	}
	var name *net.DNSError
	if errors.As(err, &name) {
		return "the host's name is not known: " + name.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	return line(strings.TrimPrefix(err.Error(), "connect: "))
}

func (s *exportState) problem(format string, args ...any) {
	p := line(fmt.Sprintf(format, args...))
	if !slices.Contains(s.Problems, p) {
		s.Problems = append(s.Problems, p)
	}
}

// headerNames returns the names of headers, never their values, and how many
// entries are not name=value.
func headerNames(headers string) (names []string, malformed int) {
	for entry := range strings.SplitSeq(headers, ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, _, ok := strings.Cut(entry, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			malformed++ // what it is may be a secret
			continue
		}
		names = append(names, name)
	}
	return names, malformed
}

// otlpSettings are what OTEL_EXPORTER_OTLP_ may be followed by, after the name
// of a signal or directly.
var otlpSettings = []string{
	"ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "INSECURE",
	"CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY",
}

// misspelt finds variables that nobody reads and that are nearly one which we
// do. Others may be another program's.
func misspelt(env map[string]string) []string {
	const prefix = "OTEL_EXPORTER_OTLP_"
	known := []string{"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER",
		"OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
		prefix + "METRICS_TEMPORALITY_PREFERENCE", prefix + "METRICS_DEFAULT_HISTOGRAM_AGGREGATION"}
	for _, signal := range []string{"", "TRACES_", "METRICS_", "LOGS_", "PROFILES_"} {
		for _, what := range otlpSettings {
			known = append(known, prefix+signal+what)
		}
	}
	// Names are long: more mistakes than these make another name.
	const most = 2
	var found []string
	for name, value := range env {
		if value == "" || !strings.HasPrefix(name, "OTEL_") || slices.Contains(known, name) {
			continue
		}
		near := slices.IndexFunc(known, func(k string) bool { return mistakes(name, k) <= most })
		if near >= 0 {
			found = append(found, fmt.Sprintf("nothing reads the variable %s; did you mean %s?", printable(name), known[near]))
		}
	}
	slices.Sort(found)
	return found
}

// broken reports whether something that is to be exported would not be, as far
// as can be seen from here.
func (s exportState) broken() bool {
	return len(s.Problems) > 0 || slices.ContainsFunc(s.Signals, func(x signalExport) bool {
		return x.Answers != nil && !*x.Answers
	})
}

// findings say what is wrong with the export.
func (s exportState) findings() []finding {
	var found []finding
	for _, p := range s.Problems {
		found = append(found, finding{About: "export", Severity: problem, Text: sentence(p), Remedies: []remedy{}})
	}
	var silent []string
	for _, x := range s.Signals {
		if x.Answers == nil || *x.Answers || slices.Contains(silent, x.Address) {
			continue
		}
		silent = append(silent, x.Address)
		what := "The collector at " + x.Address
		if x.Proxy {
			what = "The proxy at " + x.Address + ", through which the collector is reached,"
		}
		found = append(found, finding{
			About: "export", Severity: problem, Text: fmt.Sprintf("%s does not answer: %s.", what, x.Remark),
			Remedies: []remedy{{
				What:     "start it, or correct " + cmp.Or(x.From, "the endpoint: OTEL_EXPORTER_OTLP_ENDPOINT"),
				Commands: []string{}, Note: "a run is measured all the same; only the export fails",
			}},
		})
	}
	return found
}
