//go:build !unix

package main

import "os"

// forwarded are the signals that are passed on to the command.
var forwarded []os.Signal

// fromTerminal are the signals that a console sends to every process in it, the
// command included, which decides what they mean.
var fromTerminal = []os.Signal{os.Interrupt}
