//go:build !unix

package main

import (
	"os"
	"os/signal"
)

// terminal is the console, whose keyboard speaks to every process in it: the
// command gets what it sends by itself.
type terminal struct{}

func openTerminal() *terminal { return &terminal{} }

func (*terminal) close() {}

func (*terminal) background() bool { return false }

// catch keeps an interrupt from ending the runner before the command.
func catch() (signals chan os.Signal, born, release func()) {
	signals = make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	return signals, func() {}, func() { signal.Stop(signals) }
}

func (*terminal) pass(signals <-chan os.Signal, _ *job, done <-chan struct{}) {
	for {
		select {
		case <-signals:
		case <-done:
			return
		}
	}
}
