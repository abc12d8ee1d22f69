package command_test

import (
	"fmt"

	"github.com/wattspan/wattspan/sensors/command"
)

func ExampleParse() {
	for _, text := range []string{
		"    Instantaneous power reading:                   220 Watts",
		"1234.5 kWh",
		"1,234 W",
	} {
		switch q, err := command.Parse(text); {
		case err != nil:
			fmt.Println(err)
		case q.Counter:
			fmt.Println("counter", q.Energy.Joules(), "in steps of", q.Step.Joules())
		default:
			fmt.Println("power", q.Power)
		}
	}
	// Output:
	// power 220 W
	// counter 1.23 MWh in steps of 100 Wh
	// read failed: "1,234 W": write the number with a point, and without a comma
}
