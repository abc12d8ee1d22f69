package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rootTree builds a root file system. What begins with "-> " is a link.
func rootTree(t testing.TB, files map[string]string) string {
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func variables(v map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { value, ok := v[name]; return value, ok }
}

const (
	containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sandbox     = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	initial     = "-> " + initialPIDNamespace
	contained   = "-> pid:[4026532573]"
	disk        = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
	unified     = "35 25 0:31 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n"
)

// separate are the mounts of version 1 with a root of their own, as runtimes make
// them.
func separate(root string, controllers ...string) string {
	var b strings.Builder
	for _, c := range controllers {
		b.WriteString("36 25 0:32 " + root + " /sys/fs/cgroup/" + c + " ro,nosuid - cgroup cgroup rw," + c + "\n")
	}
	return b.String()
}

func overlay(upper string) string {
	return "600 500 0:52 / / rw,relatime - overlay overlay rw,lowerdir=/x/l/AB,upperdir=" + upper + "/diff,workdir=" + upper + "/work\n"
}

// machines are the trees of container engines and of machines without one.
var machines = map[string]struct {
	files map[string]string
	env   map[string]string
	want  *Container // nil for none
	group string     // the version of control groups
}{
	"bare metal": {
		files: map[string]string{
			"proc/self/cgroup": "0::/user.slice/user-1000.slice/session-2.scope\n", "proc/1/cgroup": "0::/init.scope\n",
			"proc/self/mountinfo": disk + unified, "proc/self/ns/pid": initial,
		},
		group: "v2",
	},
	"a host that runs Docker": {
		files: map[string]string{
			"proc/self/cgroup": "0::/system.slice/docker.service\n",
			"proc/self/mountinfo": disk + unified +
				"90 27 0:52 / /var/lib/docker/overlay2/" + containerID + "/merged rw - overlay overlay rw,upperdir=/var/lib/docker/overlay2/" + containerID + "/diff\n" +
				"91 27 0:53 / /var/lib/docker/containers/" + containerID + "/mounts/shm rw - tmpfs shm rw\n" +
				"92 27 254:0 /var/lib/kubelet/pods/1/volume-subpaths/a /var/lib/kubelet/pods/1/volumes/a rw - ext4 /dev/vda rw\n",
			"proc/self/ns/pid": initial,
		},
		group: "v2",
	},
	"a virtual machine made of a container's image": {
		files: map[string]string{
			".dockerenv": "", "run/.containerenv": "", "run/systemd/container": "docker\n",
			"proc/self/cgroup": "4:memory:/jobs/7\n1:cpu:/\n0::/\n", "proc/self/ns/pid": initial,
			"proc/self/mountinfo": disk + separate("/", "cpu", "memory") + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
		},
		env:   map[string]string{"container": "docker", "KUBERNETES_SERVICE_HOST": "10.96.0.1"},
		group: "hybrid",
	},
	"docker, version 1": {
		files: map[string]string{
			".dockerenv":          "",
			"proc/self/cgroup":    "11:memory:/docker/" + containerID + "\n4:cpu,cpuacct:/docker/" + containerID + "\n1:name=systemd:/docker/" + containerID + "\n",
			"proc/self/mountinfo": overlay("/var/lib/docker/overlay2/"+sandbox) + separate("/docker/"+containerID, "cpu", "memory"),
			"proc/self/ns/pid":    contained,
		},
		want: &Container{Engine: "docker", ID: containerID, Evidence: "/proc/self/cgroup"}, group: "v1",
	},
	"docker, version 2, groups of its own": {
		files: map[string]string{
			".dockerenv": "", "proc/self/cgroup": "0::/\n", "proc/1/cgroup": "0::/\n",
			"proc/self/mountinfo": overlay("/var/lib/docker/overlay2/"+sandbox) + unified +
				"610 600 254:1 /var/lib/docker/containers/" + containerID + "/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n",
			"proc/self/ns/pid": contained,
		},
		want: &Container{Engine: "docker", ID: containerID, Evidence: "/proc/self/mountinfo"}, group: "v2",
	},
	"docker, version 2, groups of the host": {
		files: map[string]string{"proc/self/cgroup": "0::/system.slice/docker-" + containerID + ".scope\n", "proc/self/ns/pid": contained},
		want:  &Container{Engine: "docker", ID: containerID, Evidence: "/proc/self/cgroup"}, group: "v2",
	},
	"docker with the processes of the host": {
		files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/1/cgroup": "0::/../../init.scope\n",
			"proc/self/mountinfo": overlay("/var/lib/docker/overlay2/" + sandbox), "proc/self/ns/pid": initial, ".dockerenv": "",
		},
		want: &Container{Engine: "docker", Evidence: "/proc/self/mountinfo"}, group: "v2",
	},
	"docker with the processes of the host, on another storage": {
		files: map[string]string{".dockerenv": "", "proc/self/mountinfo": overlay("/data/layers"), "proc/self/ns/pid": initial},
		want:  &Container{Engine: "docker", Evidence: "/.dockerenv"},
	},
	"docker on a disk of its own": {
		files: map[string]string{".dockerenv": "", "proc/self/mountinfo": "400 300 253:5 / / rw - xfs /dev/mapper/docker-9 rw\n", "proc/self/ns/pid": contained},
		want:  &Container{Engine: "docker", Evidence: "/.dockerenv"},
	},
	"docker by its mark alone": {
		files: map[string]string{".dockerenv": ""},
		want:  &Container{Engine: "docker", Evidence: "/.dockerenv"},
	},
	"kubernetes with containerd": {
		files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/ns/pid": contained,
			"proc/self/mountinfo": overlay("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/52") + unified +
				"611 600 254:1 /var/lib/kubelet/pods/471203d1-984f-477e-9c35-db96487ffe5e/etc-hosts /etc/hosts rw - ext4 /dev/vda1 rw\n" +
				"612 600 254:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/" + sandbox + "/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n",
		},
		env:  map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"},
		want: &Container{Engine: "kubernetes", Runtime: "containerd", Evidence: "/proc/self/mountinfo"}, group: "v2",
	},
	"kubernetes with containerd, groups of the host": {
		files: map[string]string{
			"proc/self/cgroup": "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod471203d1_984f_477e_9c35_db96487ffe5e.slice/cri-containerd-" + containerID + ".scope\n",
			"proc/self/ns/pid": contained,
		},
		want: &Container{Engine: "kubernetes", Runtime: "containerd", ID: containerID, Evidence: "/proc/self/cgroup"}, group: "v2",
	},
	"kubernetes with CRI-O, below another group": {
		files: map[string]string{"proc/self/cgroup": "0::/../../kubepods-besteffort-pod88f6f4e3_59c0.slice/crio-" + containerID + ".scope/container\n"},
		want:  &Container{Engine: "kubernetes", Runtime: "cri-o", ID: containerID, Evidence: "/proc/self/cgroup"}, group: "v2",
	},
	"kubernetes, version 1": {
		files: map[string]string{"proc/self/cgroup": "11:memory:/kubepods/burstable/pod471203d1-984f-477e-9c35-db96487ffe5e/" + containerID + "\n0::/system.slice/containerd.service\n"},
		want:  &Container{Engine: "kubernetes", ID: containerID, Evidence: "/proc/self/cgroup"}, group: "v1",
	},
	"kubernetes by its secret": {
		files: map[string]string{"run/secrets/kubernetes.io/serviceaccount/namespace": "ml", "proc/self/ns/pid": contained},
		want:  &Container{Engine: "kubernetes", Evidence: "/run/secrets/kubernetes.io"},
	},
	"podman, rootless": {
		files: map[string]string{
			"run/.containerenv": "", "proc/self/cgroup": "0::/\n", "proc/self/ns/pid": contained,
			"proc/self/mountinfo": overlay("/home/user/.local/share/containers/storage/overlay/"+sandbox) + unified +
				"610 600 0:25 /containers/overlay-containers/" + containerID + "/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw\n",
		},
		env:  map[string]string{"container": "podman"},
		want: &Container{Engine: "podman", ID: containerID, Evidence: "/proc/self/mountinfo"}, group: "v2",
	},
	"podman, groups of the host": {
		files: map[string]string{"proc/self/cgroup": "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + containerID + ".scope/container\n"},
		want:  &Container{Engine: "podman", ID: containerID, Evidence: "/proc/self/cgroup"}, group: "v2",
	},
	"podman by its mark": {
		files: map[string]string{"run/.containerenv": "", "proc/self/ns/pid": contained},
		want:  &Container{Engine: "podman", Evidence: "/run/.containerenv"},
	},
	"a host that runs LXC": {
		files: map[string]string{"proc/self/cgroup": "0::/system.slice/lxc.service\n", "proc/1/cgroup": "0::/lxc.monitor.web\n"},
		group: "v2",
	},
	"LXC": {
		files: map[string]string{"proc/self/cgroup": "0::/lxc.payload.web/init.scope\n", "proc/self/ns/pid": contained},
		want:  &Container{Engine: "lxc", Evidence: "/proc/self/cgroup"}, group: "v2",
	},
	"LXC, version 1": {
		files: map[string]string{"proc/1/cgroup": "11:memory:/lxc/101/ns\n0::/lxc/101/ns/init.scope\n", "proc/self/ns/pid": contained},
		want:  &Container{Engine: "lxc", Evidence: "/proc/self/cgroup"},
	},
	"LXC on a disk of its own": {
		files: map[string]string{
			"proc/self/cgroup": "0::/init.scope\n", "proc/self/ns/pid": contained,
			"proc/self/mountinfo": "400 300 253:5 / / rw - ext4 /dev/mapper/vm--101--disk--0 rw\n" + unified +
				"401 400 0:60 /proc/cpuinfo /proc/cpuinfo rw - fuse.lxcfs lxcfs rw\n",
		},
		want: &Container{Engine: "lxc", Evidence: "/proc/self/mountinfo"}, group: "v2",
	},
	"apptainer": {
		files: map[string]string{
			".singularity.d/Singularity": "", "proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n",
			"proc/self/mountinfo": "700 600 7:0 / / ro - squashfs /dev/loop0 ro\n", "proc/self/ns/pid": initial,
		},
		env:  map[string]string{"APPTAINER_CONTAINER": "/home/user/pytorch.sif", "APPTAINER_NAME": "pytorch.sif"},
		want: &Container{Engine: "apptainer", Evidence: "APPTAINER_CONTAINER"}, group: "v2",
	},
	"a shell of apptainer that went on outside": {
		files: map[string]string{"proc/self/mountinfo": disk, "proc/self/ns/pid": initial},
		env:   map[string]string{"APPTAINER_NAME": "pytorch.sif"},
	},
	"systemd-nspawn": {
		files: map[string]string{"run/systemd/container": "systemd-nspawn\n", "proc/self/cgroup": "0::/\n", "proc/self/ns/pid": contained},
		want:  &Container{Engine: "systemd-nspawn", Evidence: "/run/systemd/container"}, group: "v2",
	},
	"an engine of which nothing is known": {
		files: map[string]string{"proc/self/ns/pid": contained},
		env:   map[string]string{"container": "the secret lab"},
		want:  &Container{Engine: "unknown", Evidence: "the variable container"},
	},
	"containerd alone": {
		files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/ns/pid": contained,
			"proc/self/mountinfo": overlay("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/52"),
		},
		want: &Container{Engine: "containerd", Evidence: "/proc/self/mountinfo"}, group: "v2",
	},
	"no Linux": {},
}

func TestDetectContainer(t *testing.T) {
	for name, test := range machines {
		t.Run(name, func(t *testing.T) {
			root := rootTree(t, test.files)
			got := DetectContainer(root, variables(test.env))
			switch {
			case (got == nil) != (test.want == nil):
				t.Errorf("%+v, want %+v", got, test.want)
			case got != nil && *got != *test.want:
				t.Errorf("%+v, want %+v", *got, *test.want)
			}
			if got := CgroupVersion(root); got != test.group {
				t.Errorf("control groups %q, want %q", got, test.group)
			}
		})
	}
}

// The real machine, whatever it is, is looked at without fault, and two looks
// agree.
func TestDescribesItsContainer(t *testing.T) {
	m := Describe(t.Context(), realRoots)
	c := DetectContainer("/", os.LookupEnv)
	if (m.Container == nil) != (c == nil) || c != nil && *c != *m.Container {
		t.Errorf("%+v, and %+v", m.Container, c)
	}
	if m.Cgroup != CgroupVersion("/") {
		t.Errorf("control groups %q, and %q", m.Cgroup, CgroupVersion("/"))
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil && m.Cgroup != "v2" {
		t.Errorf("control groups %q on a machine with version 2 alone", m.Cgroup)
	}
	t.Logf("%+v, control groups %s", m.Container, m.Cgroup)
}

func FuzzDetectContainer(f *testing.F) {
	for _, m := range machines {
		f.Add(m.files["proc/self/cgroup"], m.files["proc/self/mountinfo"])
	}
	f.Add("0::/a:b\\040c\n", "1 2 0:1 /a\\040b /c\\ rw - cgroup x y\n")
	f.Fuzz(func(t *testing.T, groups, mountinfo string) {
		c := cgroups{mounts: parseCgroupMounts(mountinfo), memberships: parseCgroupMemberships(groups), root: "/none"}
		for _, controller := range []string{"", "cpu", "memory"} {
			for _, g := range c.find(controller) {
				if !strings.HasPrefix(g.dir, "/none") || !strings.HasPrefix(g.dir, g.top) {
					t.Errorf("%q and %q lead to %+v, outside", groups, mountinfo, g)
				}
				steps := 0
				g.upwards(func(string) { steps++ })
				if steps == 0 || steps > len(g.dir) {
					t.Errorf("%+v: %d steps up", g, steps)
				}
			}
		}
		m := marks{root: "/none", lookup: variables(nil), groups: groups, mounts: parseMountinfo(mountinfo)}
		if id := m.id(); id != "" && len(id) != 64 {
			t.Errorf("%q", id)
		}
		m.kubernetes()
		m.byCgroup()
		m.byMount()
	})
}

func BenchmarkDetectContainer(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		DetectContainer("/", os.LookupEnv)
	}
}
