package nvml_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/wattspan/wattspan/sensors"
	_ "github.com/wattspan/wattspan/sensors/nvml" // this line is all that a program needs
)

// The import registers the back-end, in every build: where it cannot read a GPU,
// for want of cgo or of a driver, it says so.
func Example() {
	fmt.Println(slices.Contains(sensors.Registered(), "nvml"))

	set, err := sensors.Detect(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = set.Close() }()
	var read, explained int
	for _, d := range set.Devices() {
		if d.Component == sensors.GPU {
			read++ // d.Name, d.Method and d.ErrorBand say what, how, and how well
		}
	}
	for _, m := range set.Missing() {
		if m.Component == sensors.GPU && m.Reason != "" {
			explained++ // m.Reason says why, m.Remedy what to do
		}
	}
	fmt.Println("GPUs are read, or it is said why not:", read+explained > 0)
	// Output:
	// true
	// GPUs are read, or it is said why not: true
}
