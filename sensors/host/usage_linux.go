package host

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/wattspan/wattspan/sensors"
)

type memoryUse struct {
	file kept
	// The two lines that matter are among the first three of 28 bytes each.
	buf [256]byte
}

func openMemoryUse(roots sensors.Roots) (memoryUse, error) {
	f, err := open(filepath.Join(roots.Proc, "meminfo"))
	return memoryUse{file: f}, err
}

func (m *memoryUse) read() (uint64, error) {
	return parsed(&m.file, m.buf[:], parseMeminfo)
}

func (m *memoryUse) close() error { return m.file.close() }

// parseMeminfo returns MemTotal less MemAvailable, in bytes. The latter is in
// every kernel since 3.14.
func parseMeminfo(text []byte) (uint64, bool) {
	total, ok := meminfoField(text, "MemTotal:")
	available, ok2 := meminfoField(text, "\nMemAvailable:")
	if !ok || !ok2 || available > total {
		return 0, false
	}
	return total - available, true
}

func meminfoField(text []byte, name string) (uint64, bool) {
	at := bytes.Index(text, []byte(name))
	if at < 0 {
		return 0, false
	}
	kib, rest, ok := number(text[at+len(name):])
	return kib << 10, ok && bytes.HasPrefix(rest, []byte(" kB")) && kib < 1<<50
}

type processMemory struct {
	file kept
	buf  [128]byte
}

func openSelfMemory() (processMemory, error) {
	f, err := open("/proc/self/statm")
	return processMemory{file: f}, err
}

func (p *processMemory) read() (uint64, error) {
	return parsed(&p.file, p.buf[:], parseStatm)
}

func (p *processMemory) close() error { return p.file.close() }

var pageSize = uint64(os.Getpagesize())

// parseStatm returns resident less shared of "size resident shared text lib data
// dt", in bytes. Shared is what lies in files and in shared memory: it is in the
// page cache, and another process may count it too.
func parseStatm(text []byte) (uint64, bool) {
	_, rest, ok := number(text)
	resident, rest, ok2 := number(rest)
	shared, rest, ok3 := number(rest)
	// A number that ends with the text may have been cut off.
	if !ok || !ok2 || !ok3 || len(rest) == 0 || resident > 1<<50 {
		return 0, false
	}
	return (resident - min(shared, resident)) * pageSize, true
}
