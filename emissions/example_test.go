package emissions_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
)

func Example() {
	loc, err := emissions.Locate(emissions.Location{Region: "aws/eu-west-3"}, emissions.Environment{})
	if err != nil {
		fmt.Println(err)
		return
	}
	model, err := emissions.NewModel(loc, emissions.VirtualMachine)
	if err != nil {
		fmt.Println(err)
		return
	}
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	footprint := model.Apply(start, start.Add(time.Hour), 2.5*sensors.JoulesPerKWh, 0.05)
	low, high := footprint.Bounds()
	fmt.Println(footprint.Operational, "from", low, "to", high)
	fmt.Println(model.Intensity)
	fmt.Println(model.PUE)
	// Output:
	// 126 g CO2e from 73.5 g CO2e to 216 g CO2e
	// 44.18 g/kWh FR 2024, lifecycle_average, Ember: Yearly Electricity Data (release of mid 2025, data years 2022-2024)
	// 1.14 aws 2025, fleet, Amazon Web Services: Global PUE 2025
}

// What the user knows better replaces a table's figure. A model of declared
// factors alone never reads the tables.
func ExampleNewModel() {
	pue, _ := emissions.DeclaredPUE(1.2)
	intensity, _ := emissions.DeclaredIntensity(57)
	model, _ := emissions.NewModel(emissions.Location{}, emissions.Server, pue, intensity)

	// BLOOM's training: 433 MWh in a French computing centre.
	start := time.Date(2022, 3, 11, 0, 0, 0, 0, time.UTC)
	bloom := model.Apply(start, start.AddDate(0, 0, 118), 433_000*sensors.JoulesPerKWh, 0)
	fmt.Println(bloom.Facility, bloom.Operational)
	// Output: 520 MWh 29.6 t CO2e
}

func ExampleLocate() {
	loc, _ := emissions.Locate(emissions.Location{Country: "Great Britain"}, emissions.Environment{})
	fmt.Println(loc)

	// Without a statement the machine is asked, here one that says nothing.
	nothing := emissions.Environment{
		LookupEnv: func(string) (string, bool) { return "", false },
		Root:      "testdata/empty",
	}
	loc, _ = emissions.Locate(emissions.Location{}, nothing)
	fmt.Println(loc)

	// A cloud detector of OpenTelemetry knows.
	nothing.Attributes = map[string]string{"cloud.provider": "gcp", "cloud.region": "us-central1"}
	loc, _ = emissions.Locate(emissions.Location{}, nothing)
	fmt.Println(loc.Zone(), loc.Country, loc.Subdivision, loc.Source)
	// Output:
	// GB (option)
	// world (the time zone is not known)
	// gcp/us-central1 US US-IA resource_attributes
}

func ExampleUnknownError() {
	_, err := emissions.Locate(emissions.Location{Region: "aws/us-esat-1"}, emissions.Environment{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, emissions.ErrUnknownRegion))
	// Output:
	// unknown cloud region "aws/us-esat-1"
	//   did you mean aws/us-east-1?
	//   if the region is new, give its country
	// true
}

func ExampleSameKind() {
	paris, _ := emissions.GridIntensity(emissions.Location{Provider: "gcp", Region: "europe-west9"})
	france, _ := emissions.GridIntensity(emissions.Location{Country: "FR"})
	_, err := emissions.SameKind(paris, france)
	fmt.Println(err)
	// Output: figures of different kinds cannot be combined: gcp/europe-west9 (hourly_average, g/kWh) and FR (lifecycle_average, g/kWh)
}

func ExampleBounds() {
	// Energy ±5 %, PUE ±15 %, intensity ±25 %.
	rel := emissions.Quadrature(0.05, 0.15, 0.25)
	low, high := emissions.Bounds(emissions.GramsCO2e(1000), rel)
	fmt.Printf("±%.0f %%: %v to %v\n", 100*rel, low, high)
	// Output: ±30 %: 560 g CO2e to 1.78 kg CO2e
}

func ExampleSum() {
	// Two GPUs of one model are wrong together, the CPU on its own.
	total, rel := emissions.Sum(
		emissions.Part{Value: 400, Rel: 0.10, Group: "gpu"},
		emissions.Part{Value: 400, Rel: 0.10, Group: "gpu"},
		emissions.Part{Value: 200, Rel: 0.05, Group: "cpu"},
	)
	fmt.Printf("%.0f ±%.1f %%\n", total, 100*rel)
	// Output: 1000 ±8.1 %
}
