package tracker_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/sensortest"
	"github.com/wattspan/wattspan/tracker"
)

// Peers export the counter as the hardware shows it. A metrics store takes its wrap
// for a restart, and loses what lay between the last reading and the wrap.
func TestExportedCountersNeverWrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const period = 65532610987 // of AMD's registers
		cpu := counter("package-0", sensors.CPU, sensortest.Constant(280))
		cpu.Start, cpu.Period, cpu.MaxPower = period-280e6*5, period, 1000 // wraps after 5 s
		reader := sdkmetric.NewManualReader()
		tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, fast, cpu)),
			tracker.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
		energy := func() float64 {
			got, _ := collect(t, reader)
			return got.value(t, "hw.energy", attribute.String("hw.id", "package-0"))
		}
		time.Sleep(500 * time.Millisecond)
		last := 0.0
		for second := range 10 {
			time.Sleep(time.Second)
			now := energy()
			if want := 280 * float64(second+1); math.Abs(now-want) > 1e-6 || now < last {
				t.Errorf("after %d s: %v J, want %v J, from 0 and for ever", second+1, now, want)
			}
			last = now
		}
		stop(t, tr)
	})
}

// The interval of a device holds what its readings of power did not see.
func TestReportedBandOfAPower(t *testing.T) {
	interval := func(curve sensortest.Curve) (energy, low, high float64) {
		synctest.Test(t, func(t *testing.T) {
			tr := start(t, sensors.NewSet(sensortest.NewSensor(nil, sensors.Timing{MaxInterval: time.Second}, sensortest.Script{
				Device: sensors.Device{ID: "GPU-0", Component: sensors.GPU, Method: sensors.MethodPower, ErrorBand: 0.05},
				Curve:  curve, MaxPower: 1000,
			})))
			time.Sleep(10*time.Second + 500*time.Millisecond)
			d := device(t, stop(t, tr), "GPU-0")
			energy, low, high = joules(t, d.Energy), joules(t, d.Low), joules(t, d.High)
		})
		return energy, low, high
	}
	energy, low, high := interval(sensortest.Constant(300))
	if l, h := emissions.Bounds(energy, 0.05); math.Abs(low-l) > 1e-6 || math.Abs(high-h) > 1e-6 {
		t.Errorf("a constant load: [%v, %v], want [%v, %v]", low, high, l, h)
	}
	// One step of 600 W between two readings a second apart.
	energy, low, high = interval(sensortest.Steps(4500*time.Millisecond, 100, 700))
	unseen := math.Sqrt(600*600/2) / energy
	if l, h := emissions.Bounds(energy, math.Hypot(0.05, unseen)); math.Abs(low-l) > 1e-6 || math.Abs(high-h) > 1e-6 {
		t.Errorf("a step: [%v, %v], want [%v, %v]", low, high, l, h)
	}
}

var (
	trapRow = regexp.MustCompile(`(?m)^\|[^|]*\|[^|]*\|([^|]*)\|$`)
	quoted  = regexp.MustCompile("`([^`]+)`")
	folder  = regexp.MustCompile("^[a-z][a-z/]*$") // of a package; the tests named after it are in it
)

// Every trap that docs/ACCURACY.md lists has tests, and they are there.
func TestEveryTrapHasItsTest(t *testing.T) {
	raw, err := os.ReadFile("../docs/ACCURACY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n## Traps of the field")
	if !found {
		t.Fatal("docs/ACCURACY.md has no section on traps")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := trapRow.FindAllStringSubmatch(section, -1)
	if len(rows) < 18+2 { // head and line
		t.Fatalf("%d rows, want 18 traps at least", len(rows)-2)
	}
	packages := map[string]map[string]bool{}
	for _, row := range rows[2:] {
		dir, tests := "", 0
		for _, name := range quoted.FindAllStringSubmatch(row[1], -1) {
			switch {
			case folder.MatchString(name[1]):
				dir = name[1]
				if packages[dir] == nil {
					packages[dir] = testsIn(t, filepath.Join("..", filepath.FromSlash(dir)))
				}
			case !packages[dir][name[1]]:
				t.Errorf("%s has no test %s", dir, name[1])
			default:
				tests++
			}
		}
		if tests == 0 {
			t.Errorf("a trap without a test: %s", strings.TrimSpace(row[0]))
		}
	}
}

// testsIn returns the names of the tests in a folder, on whatever system they run.
func testsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("no tests in %s: %v", dir, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, decl := range parsed.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}
