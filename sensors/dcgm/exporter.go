package dcgm

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/wattspan/wattspan/sensors"
)

// The metrics that are read, by the names of etc/default-counters.csv of the
// exporter.
const (
	energyMetric      = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
	powerMetric       = "DCGM_FI_DEV_POWER_USAGE"
	utilizationMetric = "DCGM_FI_DEV_GPU_UTIL"
)

const (
	// maxBody bounds what is read of an answer: 16 GPUs of 7 instances with all
	// metrics and long labels fill less than 4 MiB.
	maxBody = 16 << 20
	// maxRedirects is enough for a path that has moved.
	maxRedirects = 3
	// DCGM shows a value that it does not have as one of these or little more:
	// DCGM_FP64_BLANK and DCGM_INT64_BLANK of dcgm_structs.h.
	blankPower  = 1 << 47
	blankEnergy = 0x7ffffffffffffff0
)

// exporter is a DCGM exporter in the network.
type exporter struct {
	url    *url.URL
	client *http.Client
	body   bytes.Buffer
	parser expfmt.TextParser
}

// newExporter makes a client. It connects to nothing.
func newExporter(address string) (*exporter, error) {
	if address = strings.TrimSpace(address); !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		// The error repeats the address, and with it a password.
		return nil, fmt.Errorf("the address of the DCGM exporter is no URL: %w", sensors.ErrUnsupported)
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, fmt.Errorf("the address of the DCGM exporter is no URL of http or https: %w", sensors.ErrUnsupported)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/metrics"
	}
	transport := &http.Transport{
		// The exporter is on this machine: what a proxy would reach is not.
		Proxy:               nil,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 1,
	}
	return &exporter{url: u, parser: expfmt.NewTextParser(model.UTF8Validation), client: &http.Client{
		Transport: transport,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			switch {
			case next.URL.Host != via[0].URL.Host || next.URL.Scheme != via[0].URL.Scheme:
				return errElsewhere
			case len(via) > maxRedirects:
				return errRedirects
			}
			return nil
		},
	}}, nil
}

var (
	errElsewhere = fmt.Errorf("the address of the DCGM exporter redirects to another host: %w", sensors.ErrUnsupported)
	errRedirects = fmt.Errorf("the address of the DCGM exporter redirects in a circle: %w", sensors.ErrUnsupported)
	errTooLong   = fmt.Errorf("the answer of the DCGM exporter is longer than %d MiB: %w", maxBody>>20, sensors.ErrUnsupported)
)

// shown is the address without what is secret in it.
func (e *exporter) shown() string {
	u := *e.url
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// scrape asks once. It is for one goroutine at a time.
func (e *exporter) scrape(ctx context.Context) (page, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url.String(), nil)
	if err != nil {
		return page{}, fmt.Errorf("the address of the DCGM exporter is no URL: %w", sensors.ErrUnsupported)
	}
	request.Header.Set("Accept", "text/plain;version=0.0.4")
	request.Header.Set("User-Agent", "wattspan")
	response, err := e.client.Do(request)
	if err != nil {
		return page{}, unreachable(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return page{}, refused(response)
	}
	e.body.Reset()
	// Of the text, whatever its compressed size.
	n, err := e.body.ReadFrom(io.LimitReader(response.Body, maxBody+1))
	switch {
	case err != nil:
		return page{}, unreachable(err)
	case n > maxBody:
		e.body = bytes.Buffer{}
		return page{}, errTooLong
	}
	return parse(&e.parser, e.body.Bytes()), nil
}

// unreachable puts an error of the network into words that hold no address.
func unreachable(err error) error {
	var timeout net.Error
	var lookup *net.DNSError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var names x509.HostnameError
	var plain tls.RecordHeaderError
	switch {
	case errors.Is(err, errElsewhere):
		return errElsewhere
	case errors.Is(err, errRedirects):
		return errRedirects
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the DCGM exporter has not answered within %v: %w", patience, sensors.ErrTimeout)
	case errors.As(err, &lookup):
		return fmt.Errorf("the host of the DCGM exporter has no address: %w", sensors.ErrTransient)
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &names):
		return fmt.Errorf("the certificate of the DCGM exporter is not trusted (SSL_CERT_FILE names others that are): %w", sensors.ErrPermission)
	case errors.As(err, &plain), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("the DCGM exporter does not speak TLS: write http:// for https://: %w", sensors.ErrUnsupported)
	}
	var cause syscall.Errno
	if errors.As(err, &cause) {
		return fmt.Errorf("the DCGM exporter cannot be reached (%w): %w", cause, sensors.ErrTransient)
	}
	return fmt.Errorf("the DCGM exporter has broken off its answer: %w", sensors.ErrTransient)
}

// refused is the error of a status that is not OK.
func refused(response *http.Response) error {
	sentinel := sensors.ErrTransient
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		sentinel = sensors.ErrPermission
	case http.StatusNotFound:
		sentinel = sensors.ErrUnsupported
	}
	return fmt.Errorf("the DCGM exporter answers %d %s: %w", response.StatusCode, http.StatusText(response.StatusCode), sentinel)
}

// reason is a sentence of an error, without the sentinel that it ends with.
func reason(err error) string {
	text := err.Error()
	for _, s := range []error{sensors.ErrAbsent, sensors.ErrPermission, sensors.ErrUnsupported, sensors.ErrLost, sensors.ErrTimeout, sensors.ErrTransient} {
		text = strings.TrimSuffix(text, ": "+s.Error())
	}
	return text
}

// page is what an exporter shows.
type page struct {
	// hosts are the machines that it speaks of, sorted: one, or none where it is
	// told not to say.
	hosts []string
	gpus  []gpu // in the order of their first mention
}

// gpu is what an exporter shows of one GPU.
type gpu struct {
	uuid, model string
	index       int // -1 where it is not told
	hasEnergy   bool
	energy      uint64 // mJ
	hasPower    bool
	power       sensors.Watts
	wholePower  bool    // of the GPU's own line, not of an instance's
	utilization float64 // NaN where it is not told
	instances   []instance
}

// instance is a part of a GPU in MIG mode.
type instance struct{ id, profile string }

// parts are the instances as CUDA named them before they had UUIDs of their own,
// which the exporter does not show.
func (g gpu) parts() []sensors.Part {
	var parts []sensors.Part
	for _, in := range g.instances {
		parts = append(parts, sensors.Part{ID: "MIG-" + g.uuid + "/" + in.id, Share: in.share(g.model)})
	}
	return parts
}

// share is the compute slices of a profile such as "2g.20gb" or "1c.2g.20gb+me"
// over those of a GPU: 4 of A30 and the professional Blackwells, else 7. It is 0
// for a profile that says nothing.
func (in instance) share(model string) float64 {
	slices := 7.0
	if words := strings.FieldsFunc(model, func(r rune) bool { return r == ' ' || r == '-' }); contains(words, "A30") || contains(words, "RTX") {
		slices = 4
	}
	for part := range strings.SplitSeq(in.profile, ".") {
		if n, err := strconv.Atoi(strings.TrimSuffix(part, "g")); err == nil && strings.HasSuffix(part, "g") && n > 0 {
			return min(float64(n)/slices, 1)
		}
	}
	return 0
}

func contains(words []string, word string) bool { return slices.Contains(words, word) }

func (p page) find(uuid string) *gpu {
	for i := range p.gpus {
		if p.gpus[i].uuid == uuid {
			return &p.gpus[i]
		}
	}
	return nil
}

// parse reads Prometheus text. Each line of interest is parsed by itself, so that
// one that is malformed costs nothing but its value.
func parse(parser *expfmt.TextParser, text []byte) page {
	var p page
	for line := range bytes.Lines(text) {
		metric, _, ok := bytes.Cut(line, []byte("{"))
		if name := string(bytes.TrimSpace(metric)); !ok || name != energyMetric && name != powerMetric && name != utilizationMetric {
			continue
		}
		line = append(bytes.TrimRight(bytes.Clone(line), "\r\n"), '\n')
		families, err := parser.TextToMetricFamilies(bytes.NewReader(line))
		if err != nil {
			continue
		}
		for name, family := range families {
			for _, m := range family.GetMetric() {
				p.add(name, m)
			}
		}
	}
	slices.Sort(p.hosts)
	p.hosts = slices.Compact(p.hosts)
	p.gpus = slices.DeleteFunc(p.gpus, func(g gpu) bool { return !g.hasEnergy && !g.hasPower })
	return p
}

func (p *page) add(metric string, m *dto.Metric) {
	labels := map[string]string{}
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	uuid := labels["UUID"]
	if uuid == "" {
		uuid = labels["uuid"] // with the exporter's option --use-old-namespace
	}
	if !strings.HasPrefix(uuid, "GPU-") {
		return
	}
	if h := labels["Hostname"]; h != "" {
		p.hosts = append(p.hosts, h)
	}
	g := p.find(uuid)
	if g == nil {
		p.gpus = append(p.gpus, gpu{uuid: uuid, index: -1, utilization: math.NaN()})
		g = &p.gpus[len(p.gpus)-1]
	}
	if g.model == "" {
		g.model = labels["modelName"]
	}
	if i, err := strconv.ParseUint(labels["gpu"], 10, 16); err == nil && g.index < 0 {
		g.index = int(i)
	}
	in := instance{id: labels["GPU_I_ID"], profile: labels["GPU_I_PROFILE"]}
	if in.id != "" && !slices.Contains(g.instances, in) {
		g.instances = append(g.instances, in)
	}
	g.take(metric, number(m), in.id == "")
}

// take takes a value. Those of the instances are all the GPU's own, looked at at
// different moments: of a counter the latest is the largest.
func (g *gpu) take(metric string, v float64, whole bool) {
	if !(v >= 0) || math.IsInf(v, 1) {
		return
	}
	switch metric {
	case energyMetric:
		if v < blankEnergy {
			g.energy, g.hasEnergy = max(g.energy, uint64(math.Round(v))), true
		}
	case powerMetric:
		if v < blankPower && (!g.hasPower || whole && !g.wholePower) {
			g.power, g.hasPower, g.wholePower = sensors.Watts(v), true, whole
		}
	case utilizationMetric:
		if v <= 100 && whole {
			g.utilization = v / 100
		}
	}
}

// number is the value of a metric, of whichever type it was declared.
func number(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	case m.GetUntyped() != nil:
		return m.GetUntyped().GetValue()
	}
	return math.NaN()
}
