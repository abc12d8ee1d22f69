package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wattspan/wattspan/sensors"
	commandmeter "github.com/wattspan/wattspan/sensors/command"
	"github.com/wattspan/wattspan/sensors/dcgm"
	"github.com/wattspan/wattspan/sensors/redfish"
)

var updateHardware = flag.Bool("update-hardware", false, "write the table of sources to docs/HARDWARE.md")

// The table of sources in docs/HARDWARE.md is what the back-ends say of themselves,
// which sensortest.Conform holds against their devices.
func TestHardwareTable(t *testing.T) {
	all := sensors.Supported()
	all["dcgm"] = dcgm.Backend("http://localhost:9400/metrics").Supports
	all["redfish"] = redfish.Supports
	all["command"] = commandmeter.Supports
	var table strings.Builder
	table.WriteString("| back-end | hardware | path or call | of the | raw unit | method | band (1 σ) | who can read it | tested |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, backend := range slices.Sorted(maps.Keys(all)) {
		if len(all[backend]) == 0 {
			t.Errorf("the back-end %s does not say what it reads", backend)
		}
		for _, s := range all[backend] {
			if s.Hardware == "" || s.Source == "" || s.Component == "" || s.Unit == "" || s.Method == "" || !(s.ErrorBand > 0) || s.Privileges == "" || s.Tested == "" {
				t.Errorf("%s: a field is empty: %+v", backend, s)
			}
			cell := func(text string) string { return strings.ReplaceAll(text, "|", "\\|") }
			fmt.Fprintf(&table, "| %s | %s | %s | %s | %s | %s | %.3g %% | %s | %s |\n", backend, cell(s.Hardware), cell(s.Source),
				s.Component, cell(s.Unit), s.Method, 100*s.ErrorBand, cell(s.Privileges), cell(s.Tested))
		}
	}
	path := filepath.Join("..", "..", "docs", "HARDWARE.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	const begin, end = "<!-- sources -->\n", "<!-- end of sources -->"
	before, rest, ok := strings.Cut(text, begin)
	old, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no %s… %s", path, begin, end)
	}
	if *updateHardware {
		if err := os.WriteFile(path, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table.String() {
		t.Errorf("%s is not as the back-ends have it: go test -run TestHardwareTable ./examples/wattspan -update-hardware\n%s", path, table.String())
	}
}
