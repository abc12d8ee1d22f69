package host

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

const gib = 1 << 30

func TestDetectReservation(t *testing.T) {
	const slurm2 = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_42/"
	const slurm1 = "/slurm/uid_1000/job_42"
	for _, test := range []struct {
		name     string
		files    map[string]string
		env      map[string]string
		affinity int      // 0 for all
		machine  *Machine // nil for 64 threads and 256 GiB
		cpu      float64  // threads; 0 for none
		source   string   // of cpu
		memory   float64  // bytes; 0 for none
		from     string   // of memory
	}{
		{name: "bare metal", files: map[string]string{
			"proc/self/cgroup": "0::/user.slice/user-1000.slice\n", "proc/self/mountinfo": disk + unified,
			"sys/fs/cgroup/user.slice/user-1000.slice/cpu.max":               "max 100000\n",
			"sys/fs/cgroup/user.slice/user-1000.slice/memory.max":            "max\n",
			"sys/fs/cgroup/user.slice/user-1000.slice/cpuset.cpus.effective": "0-63\n",
		}},
		{name: "docker, version 1", files: map[string]string{
			"proc/self/cgroup":                            "11:memory:/docker/" + containerID + "\n7:cpuset:/docker/" + containerID + "\n4:cpu,cpuacct:/docker/" + containerID + "\n",
			"proc/self/mountinfo":                         separate("/docker/"+containerID, "memory", "cpuset") + "36 25 0:32 /docker/" + containerID + " /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":  "250000\n",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
			"sys/fs/cgroup/cpuset/cpuset.cpus":            "0-63\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":  "8589934592\n",
			"sys/fs/cgroup/memory/memory.stat":            "cache 5\nhierarchical_memory_limit 8589934592\n",
		}, cpu: 2.5, source: "cpu.cfs_quota_us", memory: 8 * gib, from: "memory.limit_in_bytes"},
		{name: "docker, version 1, without limits", files: map[string]string{
			"proc/self/cgroup":                           "11:memory:/docker/" + containerID + "\n4:cpu,cpuacct:/docker/" + containerID + "\n",
			"proc/self/mountinfo":                        separate("/docker/"+containerID, "memory", "cpu"),
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":         "-1\n",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us":        "100000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}},
		{name: "docker, version 2, groups of its own", files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": unified,
			"sys/fs/cgroup/cpu.max": "400000 100000\n", "sys/fs/cgroup/memory.max": "17179869184\n", "sys/fs/cgroup/cpuset.cpus.effective": "0-63\n",
		}, cpu: 4, source: "cpu.max", memory: 16 * gib, from: "memory.max"},
		{name: "docker with --cpuset-cpus", files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": unified,
			"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/cpuset.cpus.effective": "0-1,32-33\n",
		}, affinity: 4, cpu: 4, source: "cpuset.cpus.effective"},
		// Trap 13: the limit is of a group further up, which differs by manager.
		{name: "kubernetes, the pod's limit is less than the container's", files: map[string]string{
			"proc/self/cgroup":                                            "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + containerID + ".scope\n",
			"proc/self/mountinfo":                                         unified,
			"sys/fs/cgroup/kubepods.slice/cpu.max":                        "6200000 100000\n",
			"sys/fs/cgroup/kubepods.slice/memory.max":                     "240000000000\n",
			"sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cpu.max":    "800000 100000\n",
			"sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/memory.max": "34359738368\n",
			"sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + containerID + ".scope/cpu.max":    "max 100000\n",
			"sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + containerID + ".scope/memory.max": "max\n",
		}, cpu: 8, source: "cpu.max", memory: 32 * gib, from: "memory.max"},
		{name: "podman, rootless", files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": unified,
			"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "1073741824\n",
		}, cpu: 0.5, source: "cpu.max", memory: gib, from: "memory.max"},
		{name: "Slurm, version 2", files: map[string]string{
			"proc/self/cgroup":                       "0::/system.slice/slurmstepd.scope/job_42/step_0/user/task_0\n",
			"proc/self/mountinfo":                    disk + unified,
			slurm2 + "cpuset.cpus.effective":         "0-15\n",
			slurm2 + "memory.max":                    "68719476736\n",
			slurm2 + "step_0/cpuset.cpus.effective":  "0-15\n",
			slurm2 + "step_0/user/memory.max":        "max\n",
			slurm2 + "step_0/user/task_0/memory.max": "max\n",
		}, env: map[string]string{"SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "16", "SLURM_MEM_PER_NODE": "65536"},
			cpu: 16, source: "cpuset.cpus.effective", memory: 64 * gib, from: "memory.max"},
		{name: "Slurm, version 1", files: map[string]string{
			"proc/self/cgroup":    "11:memory:" + slurm1 + "/step_0/task_0\n7:cpuset:" + slurm1 + "/step_0\n4:cpu,cpuacct:/slurm\n",
			"proc/self/mountinfo": disk + separate("/", "memory", "cpuset", "cpu"),
			"sys/fs/cgroup/cpuset" + slurm1 + "/step_0/cpuset.cpus":                  "8-11\n",
			"sys/fs/cgroup/cpuset/cpuset.cpus":                                       "0-63\n",
			"sys/fs/cgroup/memory" + slurm1 + "/memory.limit_in_bytes":               "17179869184\n",
			"sys/fs/cgroup/memory" + slurm1 + "/step_0/memory.limit_in_bytes":        "17179869184\n",
			"sys/fs/cgroup/memory" + slurm1 + "/step_0/task_0/memory.limit_in_bytes": "9223372036854771712\n",
		}, affinity: 4, cpu: 4, source: "cpuset.cpus", memory: 16 * gib, from: "memory.limit_in_bytes"},
		{name: "Slurm without control groups",
			env: map[string]string{"SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "16", "SLURM_MEM_PER_CPU": "4096"},
			cpu: 16, source: "slurm", memory: 64 * gib, from: "slurm"},
		{name: "Slurm, a whole node",
			env: map[string]string{"SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "64", "SLURM_MEM_PER_NODE": "0"},
			cpu: 64, source: "slurm", memory: 256 * gib, from: "slurm"},
		{name: "Slurm, more than the machine tells", env: map[string]string{"SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "128"}, cpu: 64, source: "slurm"},
		{name: "apptainer in a job of Slurm, without /sys",
			files: map[string]string{"proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_42\n", ".singularity.d/env": ""},
			env:   map[string]string{"SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "8"}, affinity: 8, cpu: 8, source: "slurm"},
		{name: "LXC", files: map[string]string{
			"proc/self/cgroup": "0::/init.scope\n", "proc/self/mountinfo": unified,
			"sys/fs/cgroup/cpuset.cpus.effective": "3,17\n", "sys/fs/cgroup/memory.max": "4294967296\n",
		}, affinity: 2, cpu: 2, source: "cpuset.cpus.effective", memory: 4 * gib, from: "memory.max"},
		{name: "taskset", affinity: 3, cpu: 3, source: "affinity"},
		{name: "version 1 beside version 2", files: map[string]string{
			"proc/self/cgroup":                     "4:memory:/a\n1:cpu:/a\n0::/b\n",
			"proc/self/mountinfo":                  separate("/", "memory", "cpu") + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "50000\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1073741824\n",
		}, cpu: 2, source: "cpu.cfs_quota_us", memory: gib, from: "memory.limit_in_bytes"},
		{name: "a limit above what a container of version 1 is shown", files: map[string]string{
			"proc/self/cgroup": "11:memory:/docker/x\n", "proc/self/mountinfo": separate("/docker/x", "memory"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.stat":           "cache 5\nhierarchical_memory_limit 2147483648\n",
		}, memory: 2 * gib, from: "memory.stat"},
		// Outside its namespace, a group has a path that leads nowhere here.
		{name: "a group outside the namespace", files: map[string]string{
			"proc/self/cgroup": "0::/../x\n", "proc/self/mountinfo": unified, "sys/fs/cgroup/cpu.max": "100000 100000\n", "sys/fs/x/cpu.max": "100000 100000\n",
		}},
		{name: "another's group under the same mount", files: map[string]string{
			"proc/self/cgroup":      "0::/a\n",
			"proc/self/mountinfo":   "35 25 0:31 /other /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/cpu.max": "100000 100000\n",
		}},
		{name: "nonsense", files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": unified,
			"sys/fs/cgroup/cpu.max": "100000 0\n", "sys/fs/cgroup/memory.max": "-5\n", "sys/fs/cgroup/cpuset.cpus.effective": "x\n",
		}},
		{name: "a machine of which nothing is known", machine: &Machine{}, affinity: 2, env: map[string]string{"SLURM_JOB_ID": "42", "SLURM_CPUS_ON_NODE": "16"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := Machine{Threads: 64, Memory: 256 * gib}
			if test.machine != nil {
				m = *test.machine
			}
			affinity := test.affinity
			if affinity == 0 {
				affinity = m.Threads
			}
			got := detectReservation(readCgroups(rootTree(t, test.files)), DetectBatch(variables(test.env)), affinity, m)
			check := func(what string, r *Reserved, amount, whole float64, source string) {
				if r == nil || amount == 0 {
					if r != nil || amount != 0 {
						t.Errorf("%s: %+v, want %v", what, r, amount)
					}
					return
				}
				if r.Amount != amount || math.Abs(r.Share-amount/whole) > 1e-12 || !strings.Contains(r.Source, source) {
					t.Errorf("%s: %+v, want %v of %v by %s", what, *r, amount, whole, source)
				}
			}
			check("cpu", got.CPU, test.cpu, float64(m.Threads), test.source)
			check("memory", got.Memory, test.memory, float64(m.Memory), test.from)
		})
	}
}

// Of two groups that the texts allow, ours is the one that has our number in it.
func TestReservationOfOurGroup(t *testing.T) {
	files := map[string]string{
		"proc/self/cgroup":        "0::/a\n",
		"proc/self/mountinfo":     unified + "36 25 0:31 / /host/cgroup rw - cgroup2 cgroup rw\n",
		"sys/fs/cgroup/a/cpu.max": "100000 100000\n", "sys/fs/cgroup/a/cgroup.procs": "1\n",
		"host/cgroup/a/cpu.max": "800000 100000\n", "host/cgroup/a/cgroup.procs": "1\n" + strconv.Itoa(os.Getpid()) + "\n",
	}
	got := detectReservation(readCgroups(rootTree(t, files)), nil, 64, Machine{Threads: 64})
	if got.CPU == nil || got.CPU.Amount != 8 {
		t.Errorf("%+v, want 8 threads", got.CPU)
	}
}

func TestReservationAsJSON(t *testing.T) {
	text, err := json.Marshal(Reservation{CPU: &Reserved{Amount: 2, Share: 0.5, Source: "x"}})
	if want := `{"cpu":{"amount":2,"share":0.5,"source":"x"}}`; err != nil || string(text) != want {
		t.Errorf("%s, %v; want %s", text, err, want)
	}
}

// A group of the real kernel limits this test's own program.
func TestReservationIsReal(t *testing.T) {
	const child = "WATTSPAN_TEST_RESERVATION"
	if os.Getenv(child) != "" {
		m := Describe(t.Context(), realRoots)
		_ = json.NewEncoder(os.Stdout).Encode(DetectReservation("/", os.LookupEnv, m))
		return
	}
	m := Describe(t.Context(), realRoots)
	const limit = 1 << 30
	var joined []string
	for file, text := range map[string]string{
		"cpu/cpu.cfs_quota_us": "50000", "memory/memory.limit_in_bytes": strconv.Itoa(limit),
		"cpu.max": "50000 100000", "memory.max": strconv.Itoa(limit),
	} {
		hierarchy := filepath.Join("/sys/fs/cgroup", filepath.Dir(file))
		dir, err := os.MkdirTemp(hierarchy, "wattspan-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		// Not os.WriteFile, which would make the file where there is no controller.
		f, err := os.OpenFile(filepath.Join(dir, filepath.Base(file)), os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		if _, err = f.WriteString(text); err == nil && f.Close() == nil {
			joined = append(joined, filepath.Join(dir, "cgroup.procs"))
		}
	}
	if len(joined) != 2 || m.Memory <= limit {
		t.Skip("no control groups to be made here")
	}
	script := ""
	for _, procs := range joined {
		script += "echo $$ > " + procs + " && "
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", script+"exec "+self+" -test.run '^TestReservationIsReal$'")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got Reservation
	if err := json.Unmarshal([]byte(strings.SplitN(string(out), "\n", 2)[0]), &got); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if got.CPU == nil || got.CPU.Amount != 0.5 || got.Memory == nil || got.Memory.Amount != limit {
		t.Errorf("%s", out)
	}
	t.Logf("%s", out)
}

func FuzzLimits(f *testing.F) {
	f.Add("max 100000\n", "-1", "100000")
	f.Add("5 0", "5", "0")
	f.Add("50000 100000", "9223372036854771712", "hierarchical_memory_limit 5\n")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for _, v := range []float64{cpuMax(a), cpuQuota(b, c), bytesLimit(b), hierarchicalLimit(c)} {
			if !(v >= 0) || math.IsInf(v, 0) {
				t.Errorf("%q, %q, %q: %v", a, b, c, v)
			}
			l := least{whole: 8}
			l.limit(v, "fuzz")
			if r := l.reserved(); r != nil && !(r.Share > 0 && r.Share < 1) {
				t.Errorf("%+v", *r)
			}
		}
	})
}

func BenchmarkDetectReservation(b *testing.B) {
	m := Machine{Threads: runtime.NumCPU(), Memory: gib}
	b.ReportAllocs()
	for b.Loop() {
		DetectReservation("/", os.LookupEnv, m)
	}
}
