package host

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cgroups are the control groups of a process: where each controller's hierarchy
// is mounted, and which group of it the process is in.
type cgroups struct {
	mounts      []cgroupMount
	memberships []cgroupMembership
	root        string // of the file system that mounts are below; "/" but in tests
	pid         int
}

// cgroupMount is a line of /proc/self/mountinfo that shows control groups.
type cgroupMount struct {
	root, point string
	unified     bool     // version 2
	controllers []string // of version 1
}

// cgroupMembership is a line of /proc/self/cgroup: a hierarchy, and the group in it.
type cgroupMembership struct {
	unified     bool
	controllers []string
	path        string
}

func readCgroups(root string) cgroups {
	self := filepath.Join(root, "proc/self")
	return cgroups{
		mounts:      parseCgroupMounts(readText(self, "mountinfo")),
		memberships: parseCgroupMemberships(readText(self, "cgroup")),
		root:        root, pid: os.Getpid(),
	}
}

// version says which versions there are: "v1", "v2", "hybrid", or "" for none.
func (c cgroups) version() string {
	var v1, v2 bool
	for _, m := range c.mounts {
		v1, v2 = v1 || !m.unified, v2 || m.unified
	}
	if !v1 && !v2 { // a container that mounts none is in groups all the same
		for _, m := range c.memberships {
			v1, v2 = v1 || !m.unified, v2 || m.unified
		}
		v2 = v2 && !v1 // its line is there where nothing uses it, too
	}
	switch {
	case v1 && v2:
		return "hybrid"
	case v1:
		return "v1"
	case v2:
		return "v2"
	}
	return ""
}

// group is a directory of a control group, and the mount it is below.
type group struct{ dir, top string }

// find returns where the group of the process may be in the hierarchy of a
// controller, that of version 2 if it is empty. Texts mislead where one file
// system is mounted over another: our own number tells our group from others.
func (c cgroups) find(controller string) []group {
	var groups []group
	for _, in := range c.memberships {
		if in.unified != (controller == "") || controller != "" && !slices.Contains(in.controllers, controller) {
			continue
		}
		for _, m := range c.mounts {
			if m.unified != in.unified || controller != "" && !slices.Contains(m.controllers, controller) {
				continue
			}
			if below, ok := belowGroup(m.root, in.path); ok {
				top := filepath.Join(c.root, m.point)
				groups = append(groups, group{filepath.Join(top, below), top})
			}
		}
	}
	if ours := slices.DeleteFunc(slices.Clone(groups), func(g group) bool { return !c.inside(g) }); len(ours) > 0 {
		return ours
	}
	return groups
}

func (c cgroups) inside(g group) bool {
	pids := strings.Fields(readText(g.dir, "cgroup.procs"))
	return slices.Contains(pids, strconv.Itoa(c.pid))
}

// upwards calls f for the group and each above it, up to the mount.
func (g group) upwards(f func(dir string)) {
	for dir := g.dir; ; dir = filepath.Dir(dir) {
		f(dir)
		if len(dir) <= len(g.top) {
			return
		}
	}
}

// belowGroup returns the path of a group below the one that is mounted. Either
// begins with /.. where it is outside this cgroup namespace.
func belowGroup(root, group string) (string, bool) {
	if !path.IsAbs(root) || !path.IsAbs(group) || path.Clean(group) != group || path.Clean(root) != root {
		return "", false
	}
	if root == "/" {
		return group, true
	}
	below, ok := strings.CutPrefix(group, root)
	return below, ok && (below == "" || below[0] == '/')
}

// parseCgroupMemberships reads lines of "hierarchy:controllers:path"; the path
// may hold colons.
func parseCgroupMemberships(text string) []cgroupMembership {
	var all []cgroupMembership
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !path.IsAbs(fields[2]) {
			continue
		}
		m := cgroupMembership{unified: fields[0] == "0" && fields[1] == "", path: fields[2]}
		if fields[1] != "" {
			m.controllers = strings.Split(fields[1], ",")
		}
		all = append(all, m)
	}
	return all
}

// mountLine is a line of /proc/self/mountinfo.
type mountLine struct{ root, point, kind, source, options string }

// parseMountinfo reads lines of "id parent device root point options [optional
// …] - type source options".
func parseMountinfo(text string) []mountLine {
	var all []mountLine
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		general, special := strings.Fields(before), strings.SplitN(after, " ", 3)
		if !ok || len(general) < 6 || len(special) < 3 {
			continue
		}
		all = append(all, mountLine{
			root: unescapeMount(general[3]), point: unescapeMount(general[4]),
			kind: special[0], source: unescapeMount(special[1]), options: special[2],
		})
	}
	return all
}

func parseCgroupMounts(text string) []cgroupMount {
	var all []cgroupMount
	for _, line := range parseMountinfo(text) {
		m := cgroupMount{root: line.root, point: line.point, unified: line.kind == "cgroup2"}
		if !m.unified && line.kind != "cgroup" || !path.IsAbs(m.root) || !path.IsAbs(m.point) {
			continue
		}
		if !m.unified {
			m.controllers = strings.Split(line.options, ",")
		}
		all = append(all, m)
	}
	return all
}

// unescapeMount replaces the octal escapes (\040) by which mountinfo keeps a path
// in one field.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readText returns what a file holds, nothing where it cannot be read.
func readText(elem ...string) string {
	b, _ := os.ReadFile(filepath.Join(elem...))
	return string(b)
}
