package host_test

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// The models read no energy, but compute it: their devices say so, and from which
// terms.
func Example() {
	sensor, omitted := host.Open(context.Background(), sensors.DefaultRoots())
	for _, o := range omitted {
		fmt.Println(o.Component, o.Reason)
	}
	if sensor == nil {
		return
	}
	defer func() { _ = sensor.Close() }()
	for _, d := range sensor.Devices() {
		fmt.Printf("%s: measured %v, whole %v, explained %v\n", d.ID, d.Method.Measured(), d.Whole, d.Note != "")
	}
	// Output:
	// cpu: measured false, whole true, explained true
	// memory: measured false, whole true, explained true
}

func ExampleDescribe() {
	m := host.Describe(context.Background(), sensors.DefaultRoots())
	// Print m as it is to see the machine: here it must be the same everywhere.
	fmt.Println("threads are known:", m.Threads > 0)
	fmt.Println("memory is known:", m.Memory > 0)
	fmt.Println("virtual machines are a kind:", m.Virtual() == (m.Kind == host.VirtualMachine))
	// Output:
	// threads are known: true
	// memory is known: true
	// virtual machines are a kind: true
}

// The load of the machine between two reads, and the part of it that is this
// process's.
func ExampleCPUClock() {
	clock, err := host.OpenCPUClock(sensors.DefaultRoots())
	if err != nil {
		fmt.Println(err) // a system that shows no such thing
		return
	}
	defer func() { _ = clock.Close() }()
	selfBefore, _ := host.SelfCPU()
	before, _ := clock.Read()

	work()

	after, err := clock.Read()
	if err != nil {
		fmt.Println(err) // and after is what was read last
	}
	self, _ := host.SelfCPU()
	busy, total := after.Busy-before.Busy, after.Total-before.Total
	if total > 0 { // it is counted in steps of 10 ms
		fmt.Println("the load is a share:", busy <= total)
	}
	fmt.Println("this process worked:", self > selfBefore)
	// Output:
	// the load is a share: true
	// this process worked: true
}

// work keeps a processor busy for a while.
func work() {
	used, _ := host.SelfCPU()
	for until := used + 50e6; used < until; used, _ = host.SelfCPU() {
		for x := 1.0; x < 1e5; x++ {
			sink += math.Sqrt(x)
		}
	}
}

var sink float64

// Another process is held on to, not its number: once it has gone, the error says
// so, whatever has its number since.
func ExampleProcessCPU() {
	if _, err := host.OpenProcessCPU(1 << 30); errors.Is(err, sensors.ErrLost) || errors.Is(err, sensors.ErrUnsupported) {
		fmt.Println("there is no such process")
	}
	// Output: there is no such process
}
