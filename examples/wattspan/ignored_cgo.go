//go:build unix && cgo

package main

/*
#include <signal.h>

static unsigned long long ignored;

// Before Go's own start, which replaces what it finds by its handlers.
__attribute__((constructor)) static void look(void) {
	for (int s = 1; s < 64; s++) {
		struct sigaction a;
		if (sigaction(s, 0, &a) == 0 && a.sa_handler == SIG_IGN)
			ignored |= 1ULL << (s - 1);
	}
}

static unsigned long long ignored_at_start(void) { return ignored; }
*/
import "C"

import "syscall"

// ignoredAtStart reports whether a signal was ignored when this process was
// started.
func ignoredAtStart(s syscall.Signal) bool { return C.ignored_at_start()&(1<<(s-1)) != 0 }
