// Command burn uses some CPU time, and adds what it has used to the end of a file:
//
//	burn 20ms log
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

func main() {
	length, err := time.ParseDuration(os.Args[1])
	for err == nil && used() < length {
	}
	log, err2 := os.OpenFile(os.Args[2], os.O_APPEND|os.O_WRONLY, 0)
	if err == nil && err2 == nil {
		_, err = fmt.Fprintln(log, int64(used()))
	}
	if err != nil || err2 != nil {
		fmt.Fprintln(os.Stderr, err, err2)
		os.Exit(1)
	}
}

func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
