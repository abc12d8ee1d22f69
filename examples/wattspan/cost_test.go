//go:build unix

package main

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// cost runs a command under the runner, and returns the CPU time and the most
// memory, in bytes, of the runner and the command together.
func cost(b *testing.B, command ...string) (cpu time.Duration, memory float64) {
	b.Helper()
	path, err := runner()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"run", "--quiet", "--"}, command...)...)
	cmd.Env = cleanEnvironment()
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	memory = float64(used.Maxrss)
	if runtime.GOOS == "linux" {
		memory *= 1024
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), memory
}

// The whole process, for the shortest of commands.
func BenchmarkRunTrue(b *testing.B) {
	var cpu time.Duration
	var most float64
	runs := 0
	for b.Loop() {
		used, memory := cost(b, "true")
		cpu, most, runs = cpu+used, max(most, memory), runs+1
	}
	b.ReportMetric(cpu.Seconds()/float64(runs)*1e3, "cpu-ms/op")
	b.ReportMetric(most/1e6, "MB")
}

// A minute of a command that does nothing, less what the shortest takes.
func BenchmarkIdleMinute(b *testing.B) {
	const length = 20 * time.Second
	var cpu time.Duration
	runs := 0
	for b.Loop() {
		least, _ := cost(b, "true")
		used, _ := cost(b, "sleep", "20")
		cpu, runs = cpu+used-least, runs+1
	}
	b.ReportMetric(cpu.Seconds()/float64(runs)*float64(time.Minute)/float64(length), "cpu-s/min")
}
