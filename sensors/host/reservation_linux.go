package host

import "strings"

// cpuset returns the number of processors that the nearest group which says so
// has: in it, what those above it lack is missing already.
func (c cgroups) cpuset(controller string, names ...string) float64 {
	n := 0
	for _, g := range c.find(controller) {
		g.upwards(func(dir string) {
			for _, name := range names {
				if n == 0 {
					n = listed(strings.TrimSpace(readText(dir, name)))
				}
			}
		})
	}
	return float64(n)
}
