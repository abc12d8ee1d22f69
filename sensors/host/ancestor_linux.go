package host

import (
	"bytes"
	"os"
	"strconv"
)

// parentOf returns the parent of a process, 0 where there is none to be seen: of
// a process in an outer PID namespace, or one that has ended.
func parentOf(pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	return parseParent(text)
}

// parseParent reads "pid (comm) state ppid …". comm is whatever the process calls
// itself, parentheses included.
func parseParent(text []byte) int {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 || end+len(") S 0") > len(text) {
		return 0
	}
	ppid, rest, ok := number(text[end+len(") S"):])
	if !ok || len(rest) == 0 || ppid > 1<<31 {
		return 0
	}
	return int(ppid)
}
