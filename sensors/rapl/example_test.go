//go:build linux

package rapl_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/rapl"
	"github.com/wattspan/wattspan/sensors/sensortest"
)

// The energy of a processor, read by itself. [sensors.Detect] does the same with
// all that a machine has. The counter is a file of a fake tree here, which another
// Roots replaces by the real one: sensors.DefaultRoots().
func Example() {
	roots, counter, err := fakeTree("package-0", 262_142_428_850)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(roots.Sys)) }()

	sensor, omitted := rapl.Open(context.Background(), roots)
	if sensor == nil {
		fmt.Println(omitted[0].Reason, omitted[0].Remedy)
		return
	}
	defer func() { _ = sensor.Close() }()
	readings := make([]sensors.Reading, len(sensor.Devices()))
	sensor.Read(readings) // the origin

	// The processor works, and its counter wraps.
	if err := sensortest.WriteEnergy(counter, 41_000_000); err != nil {
		fmt.Println(err)
		return
	}
	sensor.Read(readings)
	for i, d := range sensor.Devices() {
		fmt.Printf("%s: %.1f J by %s\n", d.ID, float64(readings[i].Energy.Joules()), d.Method)
	}
	// Output: package-0: 41.9 J by counter
}

// Where there is nothing to read, the omission says why. In a virtual machine
// that is normal.
func ExampleOpen() {
	sensor, omitted := rapl.Open(context.Background(), sensors.Roots{Sys: "testdata/none", Proc: "testdata/none"})
	fmt.Println(sensor == nil)
	for _, o := range omitted {
		fmt.Println(o.Component, o.Status, errors.Is(o.Err, sensors.ErrAbsent))
	}
	// Output:
	// true
	// cpu absent true
}

// fakeTree makes a powercap tree of one zone whose counter stands at an energy in
// µJ, less than a joule below what it can show at most.
func fakeTree(zone string, energy uint64) (roots sensors.Roots, counter string, err error) {
	root, err := os.MkdirTemp("", "rapl-example-")
	if err != nil {
		return roots, "", err
	}
	roots = sensors.Roots{Sys: filepath.Join(root, "sys"), Proc: filepath.Join(root, "proc")}
	dir := filepath.Join(roots.Sys, "class", "powercap", "intel-rapl:0")
	counter = filepath.Join(dir, "energy_uj")
	err = os.MkdirAll(dir, 0o755)
	for name, text := range map[string]string{"name": zone + "\n", "max_energy_range_uj": "262143328850\n", "energy_uj": "\n"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return roots, counter, errors.Join(err, sensortest.WriteEnergy(counter, energy))
}
