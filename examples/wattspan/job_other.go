//go:build !unix

package main

import (
	"os"
	"sync"
	"time"

	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/tracker"
)

// job is the command that is run. The descendants it has are not counted.
type job struct {
	mu      sync.Mutex
	process *os.Process
	clock   *host.ProcessCPU
	used    time.Duration
}

func newJob() *job { return &job{} }

func (j *job) start(path string, argv, env []string) error {
	process, err := os.StartProcess(path, argv, &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	clock, _ := host.OpenProcessCPU(process.Pid)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.process, j.clock = process, clock
	return nil
}

// ending is how the command ended.
type ending struct {
	pid  int
	exit int
}

func (e ending) code() int { return e.exit }

func (ending) interrupted() bool { return false }

func dieOfInterrupt() {}

func (j *job) wait(*terminal) (ending, error) {
	state, err := j.process.Wait()
	if err != nil {
		return ending{}, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.used = max(j.used, state.UserTime()+state.SystemTime())
	if j.clock != nil {
		_ = j.clock.Close()
		j.clock = nil
	}
	return ending{pid: state.Pid(), exit: state.ExitCode()}, nil
}

// Read implements tracker.JobMeter.
func (j *job) Read() (tracker.Usage, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.clock != nil {
		used, err := j.clock.Read()
		if err != nil {
			return tracker.Usage{}, err
		}
		j.used = max(j.used, used)
	}
	return tracker.Usage{CPU: j.used}, nil
}

// Accounting implements tracker.JobMeter.
func (j *job) Accounting() string { return tracker.AccountingProcess }

func (j *job) close() error { return nil }
