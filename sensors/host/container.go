package host

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Container is what a process can tell of the container that it runs in.
type Container struct {
	// Engine is what made the container: "docker", "podman", "kubernetes",
	// "containerd", "cri-o", "lxc", "apptainer", "systemd-nspawn", …, or "unknown".
	Engine string `json:"engine"`
	// Runtime is what runs the containers of Kubernetes: "containerd", "cri-o" or
	// "docker".
	Runtime string `json:"runtime,omitempty"`
	// ID is the engine's number of the container, 64 hexadecimal digits.
	ID string `json:"id,omitempty"`
	// Evidence is what tells: "/run/.containerenv".
	Evidence string `json:"evidence"`
}

// DetectContainer finds out whether this process is in a container, by what
// engines leave below root, which is "/" but in tests, and in the environment.
// It returns nil where nothing says so. lookup is as os.LookupEnv.
//
// A file or a variable alone is not believed where the process numbers and the
// disk are the machine's own: the image of a virtual machine may have been made
// of a container's.
func DetectContainer(root string, lookup func(string) (string, bool)) *Container {
	m := readMarks(root, lookup)
	for _, detect := range []func() *Container{m.kubernetes, m.apptainer, m.byCgroup, m.byMount, m.byFile, m.byName} {
		if c := detect(); c != nil {
			if c.ID == "" {
				c.ID = m.id()
			}
			return c
		}
	}
	return nil
}

// CgroupVersion returns the versions of control groups that this process sees:
// "v1", "v2", "hybrid" for both, or "" where there are none. root is "/" but in
// tests.
func CgroupVersion(root string) string { return readCgroups(root).version() }

// marks is what there is to go by.
type marks struct {
	root    string
	lookup  func(string) (string, bool)
	groups  string // those of this process and of the first, a path a line
	mounts  []mountLine
	machine bool // process numbers and disk are the machine's
}

func readMarks(root string, lookup func(string) (string, bool)) marks {
	m := marks{root: root, lookup: lookup, mounts: parseMountinfo(readText(root, "proc/self/mountinfo"))}
	for _, process := range []string{"self", "1"} {
		for _, in := range parseCgroupMemberships(readText(root, "proc", process, "cgroup")) {
			m.groups += in.path + "\n"
		}
	}
	namespace, _ := os.Readlink(filepath.Join(root, "proc/self/ns/pid"))
	disk := m.rootMount()
	m.machine = namespace == initialPIDNamespace && strings.HasPrefix(disk.source, "/dev/") && disk.kind != "overlay"
	return m
}

// initialPIDNamespace is the inode of the first namespace, a constant of the
// kernel (PROC_PID_INIT_INO).
const initialPIDNamespace = "pid:[4026531836]"

// rootMount is what is mounted at /, the last of them.
func (m marks) rootMount() (at mountLine) {
	for _, line := range m.mounts {
		if line.point == "/" {
			at = line
		}
	}
	return at
}

func (m marks) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(m.root, path))
	return err == nil
}

// mounted returns the path on the host of one of the files that engines bind
// into a container, if it contains part.
func (m marks) mounted(part string) string {
	for _, line := range m.mounts {
		if slices.Contains([]string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"}, line.point) && strings.Contains(line.root, part) {
			return line.root
		}
	}
	return ""
}

func (m marks) kubernetes() *Container {
	c := &Container{Engine: "kubernetes", Runtime: m.runtime()}
	switch _, set := m.lookup("KUBERNETES_SERVICE_HOST"); {
	case strings.Contains(m.groups, "kubepods"):
		c.Evidence = "/proc/self/cgroup"
	case m.mounted("/kubelet/pods/") != "":
		c.Evidence = "/proc/self/mountinfo"
	case m.machine:
		return nil
	case m.exists("run/secrets/kubernetes.io"), m.exists("var/run/secrets/kubernetes.io"):
		c.Evidence = "/run/secrets/kubernetes.io"
	case set:
		c.Evidence = "KUBERNETES_SERVICE_HOST"
	default:
		return nil
	}
	return c
}

// runtime is what runs a container of Kubernetes.
func (m marks) runtime() string {
	layers := m.rootMount().options
	switch {
	case strings.Contains(m.groups, "cri-containerd-"), strings.Contains(layers, "io.containerd.snapshotter"):
		return "containerd"
	case strings.Contains(m.groups, "crio-"), strings.Contains(layers, "/containers/storage/"):
		return "cri-o"
	case strings.Contains(m.groups, "docker-"), strings.Contains(layers, "/docker/overlay2/"):
		return "docker"
	}
	return ""
}

// apptainer leaves the process numbers and control groups as they are.
func (m marks) apptainer() *Container {
	for _, name := range []string{"APPTAINER_CONTAINER", "APPTAINER_NAME", "SINGULARITY_CONTAINER", "SINGULARITY_NAME"} {
		if v, _ := m.lookup(name); v != "" && m.exists(".singularity.d") {
			return &Container{Engine: "apptainer", Evidence: name}
		}
	}
	if m.exists(".singularity.d") && !m.machine {
		return &Container{Engine: "apptainer", Evidence: "/.singularity.d"}
	}
	return nil
}

// engineGroups are the names of control groups by which engines are known.
var engineGroups = []struct {
	engine string
	name   *regexp.Regexp
}{
	{"docker", regexp.MustCompile(`/docker[/-][0-9a-f]{64}\b`)},
	{"podman", regexp.MustCompile(`/libpod-[0-9a-f]{64}\b|/libpod_parent/`)},
	{"cri-o", regexp.MustCompile(`/crio-[0-9a-f]{64}\b`)},
	{"containerd", regexp.MustCompile(`/(nerdctl|cri-containerd)-[0-9a-f]{64}\b`)},
	{"lxc", regexp.MustCompile(`/lxc/|/lxc\.payload[./]|/\.lxc\b`)},
	{"systemd-nspawn", regexp.MustCompile(`/systemd-nspawn@`)},
}

func (m marks) byCgroup() *Container {
	for _, e := range engineGroups {
		if e.name.MatchString(m.groups) {
			return &Container{Engine: e.engine, Evidence: "/proc/self/cgroup"}
		}
	}
	return nil
}

// byMount is for a cgroup namespace of its own, in which the group is "/".
func (m marks) byMount() *Container {
	c := &Container{Evidence: "/proc/self/mountinfo"}
	layers := m.rootMount().options
	switch {
	case m.mounted("/overlay-containers/") != "", strings.Contains(layers, "/containers/storage/overlay"):
		c.Engine = "podman"
	case m.mounted("/docker/containers/") != "", strings.Contains(layers, "/docker/overlay2/"):
		c.Engine = "docker"
	case strings.Contains(layers, "io.containerd.snapshotter"):
		c.Engine = "containerd"
	case slices.ContainsFunc(m.mounts, func(l mountLine) bool { return l.kind == "fuse.lxcfs" && strings.HasPrefix(l.point, "/proc/") }):
		c.Engine = "lxc"
	default:
		return nil
	}
	return c
}

func (m marks) byFile() *Container {
	switch {
	case m.machine:
		return nil
	case m.exists("run/.containerenv"):
		return &Container{Engine: "podman", Evidence: "/run/.containerenv"}
	case m.exists(".dockerenv"):
		return &Container{Engine: "docker", Evidence: "/.dockerenv"}
	}
	return nil
}

// byName goes by the word that an engine gives to what it starts, as
// https://systemd.io/CONTAINER_INTERFACE has it.
func (m marks) byName() *Container {
	if m.machine {
		return nil
	}
	word, evidence := strings.TrimSpace(readText(m.root, "run/systemd/container")), "/run/systemd/container"
	if word == "" {
		word, _ = m.lookup("container")
		evidence = "the variable container"
	}
	switch {
	case word == "":
		return nil
	case word == "lxc-libvirt":
		word = "lxc"
	case !slices.Contains([]string{"docker", "podman", "lxc", "systemd-nspawn", "rkt", "oci", "wsl", "flatpak", "bubblewrap"}, word):
		word = "unknown" // what anybody may have put there is not published
	}
	return &Container{Engine: word, Evidence: evidence}
}

var (
	lastNumber  = regexp.MustCompile(`(?m)^.*[^0-9a-f]([0-9a-f]{64})\b`)
	mountNumber = regexp.MustCompile(`/(?:docker/containers|overlay-containers)/([0-9a-f]{64})/`)
)

// id is the number of the container, by the last part of a control group that
// has one, or by what is bound into the container.
func (m marks) id() string {
	if found := lastNumber.FindStringSubmatch(m.groups); found != nil {
		return found[1]
	}
	for _, line := range m.mounts {
		if found := mountNumber.FindStringSubmatch(line.root); found != nil {
			return found[1]
		}
	}
	return ""
}
