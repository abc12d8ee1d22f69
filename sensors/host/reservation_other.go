//go:build !linux

package host

// cpuset returns 0, as only Linux has control groups.
func (cgroups) cpuset(string, ...string) float64 { return 0 }
