package host

import "github.com/wattspan/wattspan/sensors"

// MemoryUse reads how much memory of the machine is in use: what is installed
// less what the kernel could hand out at once, so that file caches do not count.
// It is for one goroutine at a time.
type MemoryUse struct{ file memoryUse }

// OpenMemoryUse opens the reading of the machine that roots show. The error
// wraps [sensors.ErrUnsupported] on a system that has none.
func OpenMemoryUse(roots sensors.Roots) (*MemoryUse, error) {
	f, err := openMemoryUse(roots)
	if err != nil {
		return nil, err
	}
	m := &MemoryUse{file: f}
	if _, err := m.Read(); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// Read returns the memory in use, in bytes.
func (m *MemoryUse) Read() (uint64, error) { return m.file.read() }

// Close releases the reading.
func (m *MemoryUse) Close() error { return m.file.close() }

// ProcessMemory reads the memory that a process holds for itself alone. It is
// for one goroutine at a time.
type ProcessMemory struct{ file processMemory }

// OpenSelfMemory opens the reading of this process. The error wraps
// [sensors.ErrUnsupported] on a system that has none.
func OpenSelfMemory() (*ProcessMemory, error) {
	f, err := openSelfMemory()
	if err != nil {
		return nil, err
	}
	return &ProcessMemory{file: f}, nil
}

// Read returns the resident memory that no other process shares, in bytes.
func (p *ProcessMemory) Read() (uint64, error) { return p.file.read() }

// Close releases the reading.
func (p *ProcessMemory) Close() error { return p.file.close() }
