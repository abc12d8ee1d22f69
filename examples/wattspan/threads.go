package main

import (
	"runtime"
	"sync"
)

// spareThreads are more than the runner ever needs at once.
const spareThreads = 8

// keepThreads makes the threads that the runner may need before the command runs:
// where that uses up its limit of processes (ulimit -u, pids.max), Go would end
// the runner for want of one. The runner leaves the processors to the command in
// any case.
func keepThreads() {
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), 2))
	var wait, ready sync.WaitGroup
	ready.Add(spareThreads)
	for range spareThreads {
		wait.Go(func() {
			runtime.LockOSThread() // each of them on its own
			defer runtime.UnlockOSThread()
			ready.Done()
			ready.Wait()
		})
	}
	wait.Wait()
}
