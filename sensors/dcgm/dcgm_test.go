package dcgm

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

const (
	first  = "GPU-11111111-0000-4000-8000-000000000000"
	second = "GPU-11111111-0000-4000-8000-000000000001"
)

// world is a node with GPUs of constant power and an exporter that looks at them
// every so often, on a clock of its own.
type world struct {
	mu      sync.Mutex
	now     time.Time
	every   time.Duration // 0 looks at each request
	looked  time.Time
	gpus    []*simulated
	host    string
	handler http.HandlerFunc // instead of the page
	asked   int

	server *httptest.Server
}

type simulated struct {
	uuid, model string
	watts       float64
	mJ          float64 // since the driver was loaded
	shown       float64 // when the exporter last looked
	noEnergy    bool
	noPower     bool
	gone        bool
}

func newWorld(t *testing.T, gpus ...*simulated) *world {
	w := &world{now: time.Unix(1_700_000_000, 0), gpus: gpus, host: "node-1"}
	w.looked = w.now
	for _, g := range gpus {
		g.shown = g.mJ
	}
	w.server = httptest.NewServer(w)
	t.Cleanup(w.server.Close)
	return w
}

func (w *world) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.handler != nil {
		w.handler(out, in)
		return
	}
	fmt.Fprint(out, w.page())
}

func (w *world) page() string {
	var b strings.Builder
	line := func(metric string, i int, g *simulated, value string) {
		host := ""
		if w.host != "" {
			host = fmt.Sprintf(",Hostname=%q", w.host)
		}
		fmt.Fprintf(&b, "%s{gpu=\"%d\",UUID=%q,pci_bus_id=\"00000000:07:00.0\",device=\"nvidia%d\",modelName=%q%s} %s\n", metric, i, g.uuid, i, g.model, host, value)
	}
	fmt.Fprintf(&b, "# HELP %s Total energy consumption since boot (in mJ).\n# TYPE %[1]s counter\n", energyMetric)
	for i, g := range w.gpus {
		if !g.gone && !g.noEnergy {
			line(energyMetric, i, g, fmt.Sprintf("%.0f", g.shown))
		}
	}
	fmt.Fprintf(&b, "# HELP %s Power draw (in W).\n# TYPE %[1]s gauge\n", powerMetric)
	for i, g := range w.gpus {
		if !g.gone && !g.noPower {
			line(powerMetric, i, g, fmt.Sprintf("%f", g.watts))
		}
	}
	return b.String()
}

// advance lets time pass, and the exporter look when it is due.
func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for d > 0 {
		step := d
		if w.every > 0 {
			step = min(d, w.looked.Add(w.every).Sub(w.now))
		}
		w.now = w.now.Add(step)
		d -= step
		for _, g := range w.gpus {
			g.mJ += g.watts * 1e3 * step.Seconds()
		}
		if w.now.Sub(w.looked) >= w.every {
			w.looked = w.now
			for _, g := range w.gpus {
				g.shown = g.mJ
			}
		}
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// change changes the world between two requests.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func nothing(string) (string, bool) { return "", false }

func variables(v map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { value, ok := v[name]; return value, ok }
}

// source is an exporter of this world that is polled when told to.
func (w *world) source() source {
	return source{
		url: w.server.URL, refresh: DefaultRefresh, now: w.clock,
		lookup: nothing, hostname: func() (string, error) { return "node-1", nil },
	}
}

func (w *world) open(t *testing.T) *sensor {
	t.Helper()
	s, omitted := w.source().open(t.Context(), emptyRoots(t))
	if s == nil {
		t.Fatalf("not opened: %+v", omitted)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func emptyRoots(t testing.TB) sensors.Roots {
	return sensors.Roots{Proc: t.TempDir(), Sys: t.TempDir()}
}

// after lets time pass in steps, with a poll after each, and reads.
func (w *world) after(t *testing.T, s *sensor, total, step time.Duration) []sensors.Reading {
	t.Helper()
	for ; total > 0; total -= step {
		w.advance(min(step, total))
		s.Poll(t.Context())
	}
	return read(s)
}

func read(s *sensor) []sensors.Reading {
	dst := make([]sensors.Reading, len(s.Devices()))
	s.Read(dst)
	return dst
}

func TestConformance(t *testing.T) {
	for name, gpu := range map[string]simulated{
		"counter": {uuid: first, model: "NVIDIA L40S", watts: 300, mJ: 5e9},
		"power":   {uuid: first, model: "Tesla P4", watts: 60, noEnergy: true},
	} {
		t.Run(name, func(t *testing.T) {
			gpu := gpu
			w := newWorld(t, &gpu, &simulated{uuid: second, model: "NVIDIA H100 80GB HBM3", watts: 700, mJ: 9e12})
			var s *sensor
			sensortest.Conform(t, sensortest.Conformance{
				Open: func(t testing.TB) sensors.Sensor {
					opened, omitted := w.source().open(context.Background(), emptyRoots(t))
					if opened == nil {
						t.Fatalf("%+v", omitted)
					}
					s = opened
					return opened
				},
				Advance:  func(d time.Duration) { w.advance(d); s.Poll(context.Background()) },
				Supports: Backend("").Supports,
			})
		})
	}
}

// What the page of a real exporter holds, with the layout of its versions 3 and 4.
func TestParse(t *testing.T) {
	e, err := newExporter("localhost")
	if err != nil {
		t.Fatal(err)
	}
	load := func(name string) page {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return parse(&e.parser, text)
	}
	p := load("server.txt")
	if len(p.gpus) != 2 || len(p.hosts) != 1 || p.hosts[0] != "node-1" {
		t.Fatalf("%+v", p)
	}
	g := p.find(second)
	if g.energy != 7213004311 || g.power != 301.25 || g.utilization != 0.97 || g.model != "NVIDIA L40S" || g.index != 1 || len(g.parts()) != 0 {
		t.Errorf("%+v", g)
	}

	p = load("mig.txt")
	if len(p.gpus) != 2 {
		t.Fatalf("%d GPUs, want 2: each once, with MIG or without", len(p.gpus))
	}
	g = p.find("GPU-22222222-0000-4000-8000-000000000000")
	if g.energy != 257858320 || g.power != 78.174 || !math.IsNaN(g.utilization) {
		t.Errorf("%+v", g)
	}
	want := []sensors.Part{
		{ID: "MIG-" + g.uuid + "/3", Share: 2. / 7}, {ID: "MIG-" + g.uuid + "/5", Share: 2. / 7}, {ID: "MIG-" + g.uuid + "/6", Share: 3. / 7},
	}
	if got := g.parts(); len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("parts %+v, want %+v", got, want)
	}
}

func TestParseLines(t *testing.T) {
	e, _ := newExporter("localhost")
	const labels = `gpu="0",UUID="` + first + `"`
	for _, test := range []struct {
		name, text string
		energy     uint64
		power      sensors.Watts // -1 for none
	}{
		{"in floating point", energyMetric + `{` + labels + "} 5.55189958e+09\n", 5551899580, -1},
		{"cut to a few digits", energyMetric + `{` + labels + "} 1e+06\n", 1e6, -1},
		{"the largest that a float64 holds exactly", energyMetric + `{` + labels + "} 9007199254740992\n", 1 << 53, -1},
		{"with a time, as of a federation", energyMetric + `{` + labels + "} 12 1700000000000\n", 12, -1},
		{"the older label", energyMetric + `{gpu="0",uuid="` + first + "\"} 12\n", 12, -1},
		{"Windows line ends", energyMetric + `{` + labels + "} 12\r\n", 12, -1},
		{"no line end", energyMetric + `{` + labels + "} 12", 12, -1},
		{"labels with what ends them", energyMetric + `{` + labels + `,pod="a}\"b\\c"} 12` + "\n", 12, -1},
		{"a malformed neighbour", energyMetric + `{` + labels + "} ERROR - FAILED TO CONVERT TO STRING\n" + powerMetric + `{` + labels + "} 30\n", 0, 30},
		{"the GPU's own power before an instance's", powerMetric + `{` + labels + `,GPU_I_ID="1"} 10` + "\n" + powerMetric + `{` + labels + "} 30\n" + powerMetric + `{` + labels + `,GPU_I_ID="2"} 20` + "\n", 0, 30},
		{"no value, by DCGM", energyMetric + `{` + labels + "} 9223372036854775794\n" + powerMetric + `{` + labels + "} 140737488355328\n", 0, -1},
		{"no number", energyMetric + `{` + labels + "} NaN\n" + powerMetric + `{` + labels + "} +Inf\n", 0, -1},
		{"negative", energyMetric + `{` + labels + "} -1\n" + powerMetric + `{` + labels + "} -1\n", 0, -1},
		{"another metric that begins alike", energyMetric + `_RATE{` + labels + "} 12\n", 0, -1},
		{"an instance without its GPU", energyMetric + `{gpu="0",UUID="MIG-11111111-0000-4000-8000-000000000000"} 12` + "\n", 0, -1},
		{"no UUID", energyMetric + `{gpu="0"} 12` + "\n", 0, -1},
		{"nothing", "", 0, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := parse(&e.parser, []byte(test.text))
			g := p.find(first)
			if test.energy == 0 && test.power < 0 {
				if len(p.gpus) != 0 {
					t.Errorf("%+v, want no GPU", p.gpus)
				}
				return
			}
			if g == nil || g.energy != test.energy || g.hasEnergy != (test.energy > 0) || g.hasPower != (test.power >= 0) || g.hasPower && g.power != test.power {
				t.Errorf("%+v, want %d mJ and %v W", g, test.energy, test.power)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"server.txt", "mig.txt"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(energyMetric + `{UUID="GPU-a",GPU_I_ID="1",GPU_I_PROFILE="9g.1gb"} 1e300`))
	e, _ := newExporter("localhost")
	f.Fuzz(func(t *testing.T, text []byte) {
		p := parse(&e.parser, text)
		seen := map[string]bool{}
		for _, g := range p.gpus {
			if seen[g.uuid] || !g.hasEnergy && !g.hasPower || !(g.power >= 0 && g.power < blankPower) || g.utilization < 0 || g.utilization > 1 {
				t.Errorf("%+v", g)
			}
			seen[g.uuid] = true
			for _, part := range g.parts() {
				if !(part.Share >= 0 && part.Share <= 1) {
					t.Errorf("%+v", part)
				}
			}
		}
	})
}

func TestDevices(t *testing.T) {
	w := newWorld(t,
		&simulated{uuid: first, model: "NVIDIA H100 80GB HBM3"}, &simulated{uuid: second, model: "NVIDIA L40S"},
		&simulated{uuid: "GPU-3", model: "Tesla P4", noEnergy: true})
	s := w.open(t)
	for i, want := range []struct {
		id     string
		method sensors.Method
		band   float64
		note   string
	}{
		{first, sensors.MethodCounter, 0.12, "a quarter of the time"},
		{second, sensors.MethodCounter, 0.05, "up to 30s late"},
		{"GPU-3", sensors.MethodPower, 0.25, "its power is integrated"},
	} {
		d := s.Devices()[i]
		if d.ID != want.id || d.Index != i || d.Method != want.method || d.ErrorBand != want.band || !strings.Contains(d.Note, want.note) {
			t.Errorf("%+v, want %+v", d, want)
		}
		if d.Declared || d.Refresh != DefaultRefresh {
			t.Errorf("%s: declared %v, refresh %v", d.ID, d.Declared, d.Refresh)
		}
	}
}

// A poll every 5 s sees nothing five times and a jump the sixth: the energy is
// right, and the power shown is that of the exporter and neither 0 nor sixfold.
func TestPollsBetweenTwoLooks(t *testing.T) {
	for name, noPower := range map[string]bool{"with its power": false, "by its counter alone": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, &simulated{uuid: first, watts: 300, mJ: 1e9, noPower: noPower})
			// The last look was 20 s ago.
			w.every, w.looked = 30*time.Second, w.now.Add(-20*time.Second)
			w.gpus[0].shown -= 20 * 300e3
			s := w.open(t)
			for range 24 {
				r := w.after(t, s, 5*time.Second, 5*time.Second)[0]
				if r.Err != nil || r.Doubt != nil || r.Rejected != 0 {
					t.Fatalf("%+v", r)
				}
				if p := float64(r.Power); !(noPower && math.IsNaN(p)) && math.Abs(p-300) > 1 {
					t.Errorf("%v W after %v, want 300", p, r.Observed)
				}
			}
			r := read(s)[0]
			if got := r.Energy.Joules(); math.Abs(float64(got)-36000) > 1 || r.Observed != 2*time.Minute {
				t.Errorf("%v J in %v, want 36000 in 2m", got, r.Observed)
			}
			if noPower && math.IsNaN(float64(r.Power)) {
				t.Error("no power after two minutes")
			}
		})
	}
}

func TestPowerAlone(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 60, noEnergy: true})
	s := w.open(t)
	if r := w.after(t, s, time.Minute, 5*time.Second)[0]; math.Abs(float64(r.Energy.Joules())-3600) > 1 || r.Power != 60 {
		t.Errorf("%+v", r)
	}
}

func TestUtilization(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 60}, &simulated{uuid: second, watts: 60})
	page, _ := os.ReadFile("testdata/server.txt")
	w.handler = func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(page) }
	r := read(w.open(t))
	if r[0].Utilization != 0 || r[1].Utilization != 0.97 || r[1].Power != 301.25 {
		t.Errorf("%+v", r)
	}
}

// The exporter is away for ten minutes: the tally stands, and what was used
// meanwhile is in the next value of the counter.
func TestExporterAway(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"503":          func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(http.StatusServiceUnavailable) },
		"500":          func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(http.StatusInternalServerError) },
		"broken off":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"empty":        func(http.ResponseWriter, *http.Request) {},
		"something":    func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "<html>starting</html>") },
		"another node": func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, otherNode) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, &simulated{uuid: first, watts: 300, mJ: 1e9})
			s := w.open(t)
			w.after(t, s, time.Minute, 5*time.Second)
			w.change(func() { w.handler = handler })
			r := w.after(t, s, 10*time.Minute, 5*time.Second)[0]
			if r.Err == nil || r.Energy != 18_000e6 || r.Observed != time.Minute || !math.IsNaN(float64(r.Power)) {
				t.Errorf("while it is away: %+v", r)
			}
			if name != "empty" && name != "something" && !errors.Is(r.Err, sensors.ErrTransient) {
				t.Errorf("error %v", r.Err)
			}
			w.change(func() { w.handler = nil })
			r = w.after(t, s, time.Minute, 5*time.Second)[0]
			if r.Err != nil || r.Energy != 216_000e6 || r.Observed != 12*time.Minute || r.Rejected != 0 || r.Resets != 0 || r.Power != 300 {
				t.Errorf("back: %+v", r)
			}
		})
	}
}

const otherNode = energyMetric + `{gpu="0",UUID="GPU-99999999-0000-4000-8000-000000000000",Hostname="node-9"} 77` + "\n"

// Trap 5: the counter restarts with the driver. What is used since is counted,
// and no difference is taken across it.
func TestCounterRestarts(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300, mJ: 1e9})
	s := w.open(t)
	w.after(t, s, time.Minute, 5*time.Second)
	w.change(func() { w.gpus[0].mJ, w.gpus[0].shown = 0, 0 })
	r := w.after(t, s, time.Minute, 5*time.Second)[0]
	if r.Energy != 36_000e6 || r.Resets != 1 || r.Err != nil {
		t.Errorf("%+v", r)
	}
}

// Trap 6: a GPU that falls off the bus costs itself alone.
func TestGPULost(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300, mJ: 1e9}, &simulated{uuid: second, watts: 100, mJ: 1e9})
	s := w.open(t)
	w.change(func() { w.gpus[0].gone = true })
	r := w.after(t, s, time.Minute, 5*time.Second)
	if !errors.Is(r[0].Err, sensors.ErrLost) || r[0].Energy != 0 {
		t.Errorf("lost: %+v", r[0])
	}
	if r[1].Err != nil || r[1].Energy != 6_000e6 {
		t.Errorf("the other: %+v", r[1])
	}
	w.change(func() { w.gpus[0].gone = false })
	if r := w.after(t, s, time.Minute, 5*time.Second); r[0].Err != nil || r[0].Energy != 36_000e6 {
		t.Errorf("back: %+v", r[0])
	}
}

// A counter that is not shown any more is not one that shows nothing.
func TestCounterVanishes(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300, mJ: 1e9})
	s := w.open(t)
	w.after(t, s, time.Minute, 5*time.Second)
	w.change(func() { w.gpus[0].noEnergy = true })
	r := w.after(t, s, time.Minute, 5*time.Second)[0]
	if !errors.Is(r.Err, sensors.ErrTransient) || r.Energy != 18_000e6 || r.Rejected != 0 {
		t.Errorf("%+v", r)
	}
	w.change(func() { w.gpus[0].noEnergy = false })
	if r = w.after(t, s, time.Minute, 5*time.Second)[0]; r.Err != nil || r.Energy != 54_000e6 || r.Resets != 0 || r.Rejected != 0 {
		t.Errorf("back: %+v", r)
	}
}

// An exporter whose DCGM hangs goes on to show what it last saw: that is no GPU
// which draws nothing.
func TestFrozenExporter(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300, mJ: 1e9})
	s := w.open(t)
	w.after(t, s, time.Minute, 5*time.Second)
	w.change(func() { w.every = time.Hour })
	r := w.after(t, s, time.Minute, 5*time.Second)[0]
	if !errors.Is(r.Doubt, sensors.ErrDisagreement) || r.Err != nil {
		t.Errorf("twice the refresh: %+v", r)
	}
	r = w.after(t, s, 2*time.Minute, 5*time.Second)[0]
	if !errors.Is(r.Err, sensors.ErrTransient) || r.Observed >= 4*time.Minute {
		t.Errorf("six times the refresh: %+v", r)
	}
	w.change(func() { w.every = 30 * time.Second })
	r = w.after(t, s, time.Minute, 5*time.Second)[0]
	if r.Err != nil || r.Doubt != nil || r.Energy < 70_000e6 || r.Rejected != 0 {
		t.Errorf("it goes on: %+v", r)
	}
}

func TestRefresh(t *testing.T) {
	for refresh, want := range map[time.Duration]struct{ every, late time.Duration }{
		0: {5 * time.Second, 35 * time.Second}, 30 * time.Second: {5 * time.Second, 35 * time.Second},
		2 * time.Second: {2 * time.Second, 4 * time.Second}, 100 * time.Millisecond: {time.Second, 1100 * time.Millisecond},
	} {
		w := newWorld(t, &simulated{uuid: first, watts: 300})
		w.server.URL = strings.Replace(w.server.URL, "http://", "", 1)
		s, omitted := Backend(w.server.URL, WithRefresh(refresh), nil).Open(t.Context(), emptyRoots(t))
		if s == nil {
			t.Fatalf("%+v", omitted)
		}
		if got := s.(*sensor).Every; got != want.every || s.Devices()[0].Refresh != want.late {
			t.Errorf("refresh %v: polled every %v, %v late; want %v", refresh, got, s.Devices()[0].Refresh, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The poller asks by itself, and no more once it is closed.
func TestPolls(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300})
	src := w.source()
	src.every = time.Millisecond
	s, omitted := src.open(t.Context(), emptyRoots(t))
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	asked := func() (n int) { w.change(func() { n = w.asked }); return n }
	for deadline := time.Now().Add(10 * time.Second); asked() < 10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("asked %d times in 10 s", asked())
		}
		read(s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	n := asked()
	time.Sleep(20 * time.Millisecond)
	// The request that Close broke off may arrive after it.
	if again := asked(); again > n+1 {
		t.Errorf("asked %d times after Close", again-n)
	}
}

// Close does not wait for an exporter that does not answer.
func TestCloseWhileAsking(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300})
	src := w.source()
	src.every = time.Millisecond
	s, omitted := src.open(t.Context(), emptyRoots(t))
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	hanging := make(chan struct{})
	var once sync.Once
	w.change(func() {
		w.handler = func(_ http.ResponseWriter, in *http.Request) {
			once.Do(func() { close(hanging) })
			<-in.Context().Done()
		}
	})
	<-hanging
	begun := time.Now()
	_ = s.Close()
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("Close took %v", took)
	}
}

func TestGzip(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300, mJ: 1e9})
	w.handler = func(out http.ResponseWriter, in *http.Request) {
		if !strings.Contains(in.Header.Get("Accept-Encoding"), "gzip") {
			t.Error("no gzip asked for")
		}
		out.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(out)
		fmt.Fprint(z, w.page())
		_ = z.Close()
	}
	if r := w.after(t, w.open(t), time.Minute, 5*time.Second)[0]; r.Energy != 18_000e6 {
		t.Errorf("%+v", r)
	}
}

// What is left out says why, and what to do.
func TestRefused(t *testing.T) {
	elsewhere := newWorld(t, &simulated{uuid: first, watts: 300})
	answer := func(status int, header ...string) http.HandlerFunc {
		return func(out http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				out.Header().Set(header[i], header[i+1])
			}
			out.WriteHeader(status)
		}
	}
	filler := []byte(strings.Repeat("#", 1<<20-1) + "\n")
	var zipped bytes.Buffer // of which any number is a stream again
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(filler)
	_ = z.Close()
	var sent int // MiB, of more than any buffer on the way holds
	huge := func(out http.ResponseWriter, part []byte, most int) {
		for sent = 0; sent < most; sent++ {
			if _, err := out.Write(part); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		reason  string
		is      error
	}{
		{"an error", answer(503), "503 Service Unavailable", sensors.ErrTransient},
		{"no access", answer(401), "401 Unauthorized", sensors.ErrPermission},
		{"no such path", answer(404), "404 Not Found", sensors.ErrUnsupported},
		{"a redirect to another host", answer(302, "Location", elsewhere.server.URL+"/metrics"), "redirects to another host", sensors.ErrUnsupported},
		{"a redirect to itself", answer(302, "Location", "/metrics"), "redirects in a circle", sensors.ErrUnsupported},
		{"another exporter", func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "node_load1 0.5\n") }, "shows no GPU", sensors.ErrUnsupported},
		{"a federation", func(out http.ResponseWriter, _ *http.Request) {
			page, _ := os.ReadFile("testdata/server.txt")
			fmt.Fprintf(out, "%s\n%s", page, otherNode)
		}, "speaks for 2 machines", sensors.ErrUnsupported},
		{"too much", func(out http.ResponseWriter, _ *http.Request) { huge(out, filler, 100) }, "longer than 16 MiB", sensors.ErrUnsupported},
		{"too much, compressed", func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Encoding", "gzip")
			huge(out, zipped.Bytes(), 17)
		}, "longer than 16 MiB", sensors.ErrUnsupported},
		{"broken off", func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Length", "1000")
			fmt.Fprintf(out, "%s{UUID=%q} 1\n", energyMetric, first)
		}, "broken off", sensors.ErrTransient},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, &simulated{uuid: first, watts: 300})
			w.handler = test.handler
			s, omitted := w.source().open(t.Context(), emptyRoots(t))
			if s != nil || len(omitted) != 1 {
				t.Fatalf("sensor %v, %+v", s, omitted)
			}
			o := omitted[0]
			if o.Status != sensors.Unreadable || o.Component != sensors.GPU || o.Remedy == "" ||
				!strings.Contains(o.Reason, test.reason) || strings.HasSuffix(o.Reason, test.is.Error()) || !errors.Is(o.Err, test.is) {
				t.Errorf("%+v, want %q", o, test.reason)
			}
			w.change(func() {
				if w.asked > maxRedirects+1 || test.name == "too much" && sent > 64 {
					t.Errorf("asked %d times, and read %d MiB", w.asked, sent)
				}
			})
			if strings.Contains(o.Reason, "127.0.0.1") || strings.Contains(o.Reason, "node-") {
				t.Errorf("the reason names a host: %s", o.Reason)
			}
		})
	}
	elsewhere.change(func() {
		if elsewhere.asked != 0 {
			t.Error("the redirect was followed")
		}
	})
}

func TestRedirectOnTheSameHost(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300})
	w.handler = func(out http.ResponseWriter, in *http.Request) {
		if in.URL.Path == "/metrics" {
			http.Redirect(out, in, "/v1/metrics", http.StatusMovedPermanently)
			return
		}
		fmt.Fprint(out, w.page())
	}
	w.open(t)
}

func TestNobodyAnswers(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first})
	w.server.Close()
	_, omitted := w.source().open(t.Context(), emptyRoots(t))
	if len(omitted) != 1 || !errors.Is(omitted[0].Err, sensors.ErrTransient) || !strings.Contains(omitted[0].Reason, "cannot be reached") {
		t.Errorf("%+v", omitted)
	}
}

func TestSlowExporter(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first})
	w.handler = func(_ http.ResponseWriter, in *http.Request) { <-in.Context().Done() }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, omitted := w.source().open(ctx, emptyRoots(t))
	if len(omitted) != 1 || !errors.Is(omitted[0].Err, sensors.ErrTimeout) {
		t.Errorf("%+v", omitted)
	}
}

func TestTLS(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300})
	secure := httptest.NewUnstartedServer(w)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	src := w.source()
	src.url = secure.URL
	_, omitted := src.open(t.Context(), emptyRoots(t))
	if len(omitted) != 1 || !errors.Is(omitted[0].Err, sensors.ErrPermission) || !strings.Contains(omitted[0].Reason, "SSL_CERT_FILE") {
		t.Errorf("an unknown certificate: %+v", omitted)
	}
	src.url = strings.Replace(w.server.URL, "http://", "https://", 1)
	_, omitted = src.open(t.Context(), emptyRoots(t))
	if len(omitted) != 1 || !strings.Contains(omitted[0].Reason, "http://") {
		t.Errorf("no TLS: %+v", omitted)
	}
	e, err := newExporter(secure.URL)
	if err != nil {
		t.Fatal(err)
	}
	e.client.Transport.(*http.Transport).TLSClientConfig.RootCAs = secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if p, err := e.scrape(t.Context()); err != nil || len(p.gpus) != 1 {
		t.Errorf("a certificate that is trusted: %+v, %v", p, err)
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"localhost:9400":                          "http://localhost:9400/metrics",
		"http://10.0.0.1:9400":                    "http://10.0.0.1:9400/metrics",
		" https://node:9400/gpu/metrics ":         "https://node:9400/gpu/metrics",
		"http://user:secret@node/metrics?token=x": "http://node/metrics",
		"[::1]:9400":                              "http://[::1]:9400/metrics",
	} {
		e, err := newExporter(address)
		if err != nil || e.shown() != want {
			t.Errorf("%q: %v, %v; want %s", address, e, err, want)
		}
	}
	for _, address := range []string{"", "ftp://node/metrics", "http://", "http://user:secret@no de", "file:///etc/passwd", "http://node:port"} {
		if _, err := newExporter(address); !errors.Is(err, sensors.ErrUnsupported) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", address, err)
		}
		if s, omitted := Backend(address).Open(t.Context(), emptyRoots(t)); s != nil || len(omitted) != 1 || omitted[0].Remedy == "" {
			t.Errorf("%q: %v, %+v", address, s, omitted)
		}
	}
}

// A name and password in the address are sent, and shown nowhere.
func TestCredentials(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300})
	var user, password string
	w.handler = func(out http.ResponseWriter, in *http.Request) {
		user, password, _ = in.BasicAuth()
		out.WriteHeader(http.StatusForbidden)
	}
	src := w.source()
	src.url = strings.Replace(w.server.URL, "http://", "http://reader:secret@", 1)
	_, omitted := src.open(t.Context(), emptyRoots(t))
	if user != "reader" || password != "secret" {
		t.Errorf("sent %q, %q", user, password)
	}
	if text := fmt.Sprintf("%+v", omitted); strings.Contains(text, "secret") {
		t.Error(text)
	}
}

func TestFromEnvironment(t *testing.T) {
	if _, ok := FromEnvironment(nothing); ok {
		t.Error("asks the network although nobody said so")
	}
	if _, ok := FromEnvironment(variables(map[string]string{EnvURL: " "})); ok {
		t.Error("asks the network for an empty address")
	}
	w := newWorld(t, &simulated{uuid: first, watts: 300})
	b, ok := FromEnvironment(variables(map[string]string{EnvURL: w.server.URL}))
	if !ok || b.Name != "dcgm" || b.Component != sensors.GPU {
		t.Fatalf("%+v, %v", b, ok)
	}
	s, omitted := b.Open(t.Context(), emptyRoots(t))
	if s == nil {
		t.Fatalf("%+v", omitted)
	}
	_ = s.Close()
}

// Nothing of this package runs unless it is asked for.
func TestNotRegistered(t *testing.T) {
	for _, name := range sensors.Registered() {
		if name == "dcgm" {
			t.Error("registered: the network would be asked without a word of the user")
		}
	}
}

// Beside NVML, which is fresher, a GPU is read once.
func TestBesideNVML(t *testing.T) {
	w := newWorld(t, &simulated{uuid: first, watts: 300}, &simulated{uuid: second, watts: 300})
	nvml := sensors.Backend{Name: "nvml", Component: sensors.GPU, Open: func(context.Context, sensors.Roots) (sensors.Sensor, []sensors.Omission) {
		return sensortest.NewSensor(nil, sensors.Timing{}, sensortest.Script{Device: sensors.Device{
			ID: first, Component: sensors.GPU, Method: sensors.MethodCounter, Source: "nvml",
		}}), nil
	}}
	set, err := sensors.Detect(t.Context(), sensors.WithBackends(nvml), sensors.WithBackend(Backend(w.server.URL)), sensors.WithSysRoot(t.TempDir()), sensors.WithProcRoot(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	sources := map[string]string{}
	for _, d := range set.Devices() {
		sources[d.ID] = d.Source
	}
	if len(set.Devices()) != 2 || sources[first] != "nvml" || sources[second] != "dcgm" {
		t.Errorf("%v", sources)
	}
}
