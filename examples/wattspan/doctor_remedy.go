package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/tracker"
)

// A finding is something that could be better, with what can be done about it.
type finding struct {
	// About is a component, or accounting, place or export.
	About    string   `json:"about"`
	Severity severity `json:"severity"`
	Text     string   `json:"text"` // one or two sentences
	// Devices are those it is about, where it is not all of the component.
	Devices []string `json:"devices,omitempty"`
	// Remedies are ways to mend it, any one of which is enough. It is empty
	// where nothing on this machine helps.
	Remedies []remedy `json:"remedies"`
}

// severity is what a finding does to the results.
type severity string

const (
	// problem: energy is missing from the total, or the result does not arrive.
	problem severity = "problem"
	// improvement: the figures are complete, and could be better.
	improvement severity = "improvement"
	// limit: so it is, and nothing on this machine changes it.
	limit severity = "limit"
)

// A remedy is one way to mend something.
type remedy struct {
	What string `json:"what"` // it does, in a few words
	// Commands are lines for a shell, or for a file that What names.
	Commands []string `json:"commands"`
	Note     string   `json:"note,omitempty"` // what else follows from it
}

// prescribe turns what is left out into findings, those with the same remedy
// into one. missing is the part of it that no other source stands for.
func (s system) prescribe(omitted, missing []sensors.Omission) []finding {
	var found []finding
	for _, o := range omitted {
		if o.Status == sensors.Superseded {
			continue
		}
		f, ok := s.finding(o)
		if !ok {
			continue
		}
		lacking := slices.ContainsFunc(missing, func(m sensors.Omission) bool {
			return m.Status == sensors.Unreadable && m.Source == o.Source && m.Component == o.Component && m.Device == o.Device
		})
		if lacking {
			f.Severity = problem
		}
		if o.Device != "" {
			f.Devices = []string{o.Device}
		}
		i := slices.IndexFunc(found, func(other finding) bool { return other.same(f) })
		if i < 0 {
			found = append(found, f)
			continue
		}
		if !strings.Contains(found[i].About, f.About) {
			found[i].About += ", " + f.About
		}
		found[i].Devices = append(found[i].Devices, f.Devices...)
		if lacking {
			found[i].Severity = problem
		}
	}
	return found
}

// same reports whether two findings say the same, be it of different devices.
func (f finding) same(g finding) bool {
	return f.Text == g.Text && slices.EqualFunc(f.Remedies, g.Remedies, func(a, b remedy) bool {
		return a.What == b.What && slices.Equal(a.Commands, b.Commands)
	})
}

// finding says what an omission is about. Hardware that is not there is none,
// unless it ought to be.
func (s system) finding(o sensors.Omission) (finding, bool) {
	f := finding{About: string(o.Component), Severity: improvement, Text: sentence(o.Reason), Remedies: []remedy{}}
	switch {
	case o.Source == "rapl":
		return s.rapl(f, o)
	case o.Source == "nvml" && o.Status == sensors.Unreadable:
		s.nvml(&f, o)
	case o.Status != sensors.Unreadable:
		return f, false
	default:
		f.as(o)
	}
	return f, true
}

// as takes over what the back-end itself says.
func (f *finding) as(o sensors.Omission) {
	if o.Remedy != "" {
		f.Remedies = append(f.Remedies, remedy{What: o.Remedy, Commands: []string{}})
	}
}

func (s system) rapl(f finding, o sensors.Omission) (finding, bool) {
	permission := errors.Is(o.Err, sensors.ErrPermission)
	switch {
	case o.Status == sensors.Unreadable && permission && o.Device != "":
		f.Text = "The energy counters (RAPL) can be read by root only, as they tell a little of what other users compute (CVE-2020-8694)."
		s.openCounters(&f, control(o), strings.Contains(o.Remedy, "cap_perfmon"))
	case o.Status == sensors.Unreadable && permission && s.Container != "":
		s.mountSys(&f)
	case o.Status == sensors.Unreadable:
		f.as(o)
	case o.Component != sensors.CPU || !errors.Is(o.Err, sensors.ErrAbsent) || s.OS != "linux":
		// A processor without a counter for memory, or a system without RAPL.
		return f, false
	case s.machine.Virtual():
		f.Severity = limit
		f.Text = "Hypervisors give their guests no energy counter. Only the host, or whoever runs it, can measure the processor and the memory; " +
			"nothing that is done in this machine changes that."
	case o.Remedy != "":
		f.Text = "The processor probably has energy counters (RAPL), but their driver is not loaded."
		r := remedy{What: "load it, now and at every start", Commands: []string{
			s.sudo("modprobe intel_rapl_msr"), "echo intel_rapl_msr | " + s.sudo("tee /etc/modules-load.d/rapl.conf"),
		}, Note: "the driver serves AMD processors since Zen as well, from Linux 5.8 on"}
		s.onHost(&r)
		f.Remedies = append(f.Remedies, r)
	default:
		return f, false
	}
	return f, true
}

// control is the interface whose zone was left out, as the sysfs names it.
func control(o sensors.Omission) string {
	if strings.Contains(o.Reason, "intel-rapl-mmio:") {
		return "intel-rapl-mmio"
	}
	return "intel-rapl"
}

// openCounters are the ways to let a user read counters that are for root only;
// events says whether the kernel counts the same by perf events.
func (s system) openCounters(f *finding, control string, events bool) {
	now := remedy{What: "for all users, until the next start", Commands: []string{
		s.sudo("chmod a+r /sys/class/powercap/" + control + ":*/energy_uj"),
	}}
	always := remedy{What: "for all users, from the next start on and now", Commands: []string{
		fmt.Sprintf(`echo 'ACTION=="add", SUBSYSTEM=="powercap", KERNEL=="%s:*", RUN+="/bin/chmod a+r /sys%%p/energy_uj"' | %s`,
			control, s.sudo("tee /etc/udev/rules.d/70-rapl.rules")),
		s.sudo("udevadm control --reload") + " && " + s.sudo("udevadm trigger --action=add --subsystem-match=powercap"),
	}}
	s.onHost(&now)
	s.onHost(&always)
	f.Remedies = append(f.Remedies, now, always)
	switch {
	case s.Container != "":
		if run := s.containerRun("--user 0"); run != "" && !s.Superuser {
			f.Remedies = append(f.Remedies, remedy{What: "or let the container run as root", Commands: []string{run},
				Note: "not in a rootless engine, whose root is a user of the host"})
		}
	case events && s.executable != "":
		f.Remedies = append(f.Remedies, remedy{What: "for this program alone", Commands: []string{
			s.sudo("setcap cap_perfmon=ep " + quoteShell(s.executable)),
		}, Note: "wattspan may then read the performance events of the machine, whoever starts it; LD_LIBRARY_PATH means nothing to it; " +
			"to be repeated after each update"})
	case s.OS == "linux" && s.executable != "":
		f.Remedies = append(f.Remedies, remedy{What: "for this program alone", Commands: []string{
			s.sudo("setcap cap_dac_read_search+ep " + quoteShell(s.executable)),
		}, Note: "wattspan, but not what it runs, may then read every file, whoever starts it; " +
			"LD_LIBRARY_PATH means nothing to it; to be repeated after each update"})
	}
}

// mountSys are the ways to show a container what its engine hides.
func (s system) mountSys(f *finding) {
	f.Text = "The engine of this container hides the energy counters (RAPL) of the machine."
	if s.machine.Virtual() {
		f.Text += " The machine is a virtual one, and most likely has none."
	}
	r := remedy{What: "start the container with the host's /sys", Commands: []string{},
		Note: "as root, unless the host lets every user read the counters (wattspan doctor on the host says how)"}
	if s.Container == "kubernetes" {
		r.What = "give the pod and its container the host's /sys"
		r.Commands = []string{
			"volumes: [{name: sys, hostPath: {path: /sys}}]",
			"volumeMounts: [{name: sys, mountPath: /host/sys, readOnly: true}]",
			"env: [{name: HOST_SYS, value: /host/sys}]",
		}
	} else if run := s.containerRun("-v /sys:/host/sys:ro -e HOST_SYS=/host/sys"); run != "" {
		r.Commands = []string{run}
	} else {
		r.What += " mounted read-only at /host/sys, and HOST_SYS=/host/sys"
	}
	f.Remedies = append(f.Remedies, r)
}

// nvml says what can be done about a driver, or a GPU of it. The codes are
// NVML's own, which its back-end puts into the error.
func (s system) nvml(f *finding, o sensors.Omission) {
	text := ""
	if o.Err != nil {
		text = o.Err.Error()
	}
	says := func(codes ...string) bool {
		return slices.ContainsFunc(codes, func(code string) bool { return strings.HasSuffix(text, "NVML_ERROR_"+code) })
	}
	one := func(what string, commands ...string) {
		f.Remedies = append(f.Remedies, remedy{What: what, Commands: append([]string{}, commands...)})
	}
	switch {
	case strings.Contains(text, "built without cgo"):
		f.Text = "This machine has an NVIDIA GPU, and this wattspan was built without cgo, which reading it takes."
		one("build it with cgo, for which a C compiler must be installed",
			"CGO_ENABLED=1 go install github.com/wattspan/wattspan/examples/wattspan@latest")
	case says("LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED", "GPU_NOT_FOUND") && s.Container != "":
		s.giveGPU(f)
	case says("LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED", "GPU_NOT_FOUND"):
		s.installDriver(f, says)
	case says("LIB_RM_VERSION_MISMATCH"):
		f.Text = "The NVIDIA driver was upgraded while the system ran: its library and its kernel module are of different versions."
		if s.Container != "" {
			one("start the container again, once nvidia-smi works on the host")
		}
		r := remedy{What: "restart the machine", Commands: []string{s.sudo("reboot")}}
		s.onHost(&r)
		f.Remedies = append(f.Remedies, r)
		r = remedy{What: "or, while nothing uses the GPUs, load the new module", Commands: []string{
			s.sudo("modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia") + " && " + s.sudo("modprobe nvidia")}}
		s.onHost(&r)
		f.Remedies = append(f.Remedies, r)
	case says("NO_PERMISSION", "OPERATING_SYSTEM"):
		s.openNodes(f)
	case says("NOT_SUPPORTED", "FUNCTION_NOT_FOUND") && s.machine.Virtual():
		f.Severity = limit
		f.Text = "The GPU tells this virtual machine neither its energy nor its power; a virtual GPU (vGPU) is measured on its host."
	case says("GPU_IS_LOST", "RESET_REQUIRED"):
		one("see why it fell off the bus", s.sudo("dmesg")+" | grep -i xid")
		one("reset it, while nothing uses it; if that fails, restart the machine", s.sudo("nvidia-smi --gpu-reset -i "+cmp.Or(o.Device, "0")))
	case errors.Is(o.Err, sensors.ErrTimeout):
		r := remedy{What: "keep the driver awake, so that it answers at once", Commands: []string{s.sudo("nvidia-smi -pm 1")}}
		s.onHost(&r)
		f.Remedies = append(f.Remedies, r)
		one("if it hangs, see why", s.sudo("dmesg")+" | grep -iE 'nvrm|xid'")
	default:
		f.as(o)
	}
}

// giveGPU are the ways to give the machine's GPUs to this container.
func (s system) giveGPU(f *finding) {
	f.Text = "This machine has an NVIDIA GPU, and this container was not given it."
	if len(s.nodes) > 0 {
		f.Text = "This container was given an NVIDIA GPU, but not the driver's library that measures it (utility)."
	}
	r := remedy{What: "start the container with the GPUs and the driver's utilities",
		Note: "the host needs its NVIDIA driver and the NVIDIA Container Toolkit"}
	switch s.Container {
	case "docker":
		r.Commands = []string{s.containerRun("--gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility")}
	case "podman":
		r.Commands = []string{s.containerRun("--device nvidia.com/gpu=all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility")}
	case "apptainer":
		r.Commands = []string{"apptainer exec --nv IMAGE COMMAND"}
		r.Note = "the host needs its NVIDIA driver"
	case "kubernetes":
		r.Commands = []string{"resources: {limits: {nvidia.com/gpu: 1}}",
			`env: [{name: NVIDIA_DRIVER_CAPABILITIES, value: "compute,utility"}]`}
		r.Note = "the node needs its NVIDIA driver and the NVIDIA device plugin"
	default:
		r.Commands = []string{}
	}
	f.Remedies = append(f.Remedies, r)
}

// installDriver are the ways to make a machine's driver work.
func (s system) installDriver(f *finding, says func(...string) bool) {
	if s.driver && says("LIBRARY_NOT_FOUND") {
		f.Text = "The NVIDIA kernel driver is loaded, and its library libnvidia-ml.so.1 is not where libraries are looked for."
		f.Remedies = append(f.Remedies, remedy{What: "see whether it is installed; where it is not, install the driver's compute package of the same version",
			Commands: []string{"ldconfig -p | grep libnvidia-ml", "cat /proc/driver/nvidia/version"}})
		return
	}
	f.Text = "This machine has an NVIDIA GPU, and no NVIDIA driver that shows it."
	r := remedy{What: "install the driver, start the machine again, and see whether nvidia-smi lists the GPU", Commands: []string{}}
	switch s.distribution {
	case "ubuntu":
		r.Commands = append(r.Commands, s.sudo("ubuntu-drivers install"))
	case "debian":
		r.Commands = append(r.Commands, s.sudo("apt install nvidia-driver"))
		r.Note = "from the component non-free of the archive"
	default:
		r.Note = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"
	}
	f.Remedies = append(f.Remedies, r)
	if says("DRIVER_NOT_LOADED") {
		f.Remedies = append(f.Remedies, remedy{What: "if it is installed, load it and see what it says",
			Commands: []string{s.sudo("modprobe nvidia") + "; " + s.sudo("dmesg") + " | grep -i nvrm"}})
	}
}

// openNodes are the ways to let this process use the driver's device files.
func (s system) openNodes(f *finding) {
	f.Text = "The operating system does not let this process use the GPU."
	var closed []deviceNode
	for _, n := range s.nodes {
		if !n.open {
			closed = append(closed, n)
		}
	}
	switch {
	case s.Container != "":
		s.giveGPU(f)
		f.Text = "This container may not use the GPU."
	case len(closed) > 0 && closed[0].group != "" && closed[0].group != "root":
		f.Text = fmt.Sprintf("This user may not use %s, which is for the group %s.", closed[0].path, closed[0].group)
		f.Remedies = append(f.Remedies, remedy{What: "join the group, and log in again",
			Commands: []string{s.sudo(`usermod -aG ` + closed[0].group + ` "$USER"`)}})
	case len(closed) > 0:
		f.Text = fmt.Sprintf("This user may not use %s.", closed[0].path)
		f.Remedies = append(f.Remedies, remedy{What: "let all users use the GPUs, until the next start",
			Commands: []string{s.sudo("chmod a+rw /dev/nvidia*")},
			Note:     "to keep it, see NVreg_DeviceFileMode in the driver's README"})
	default:
		f.Remedies = append(f.Remedies, remedy{What: "where a job scheduler gives out GPUs, ask it for one", Commands: []string{"srun --gres=gpu:1 COMMAND"}})
		f.Remedies = append(f.Remedies, remedy{What: "see who may use the driver's device files", Commands: []string{"ls -l /dev/nvidia*"}})
	}
}

// unread are the findings about hardware that was seen and gives no figure,
// beyond what the back-ends left out.
func (s system) unread(components []component) []finding {
	var found []finding
	for _, c := range components {
		for _, a := range c.Devices {
			if a.Trouble == "" {
				continue
			}
			f := finding{About: string(c.Component), Severity: problem, Text: sentence(a.Trouble), Devices: []string{a.ID}, Remedies: []remedy{{
				What: "look again, and longer", Commands: []string{"wattspan doctor --for " + a.longer().String()}}}}
			i := slices.IndexFunc(found, func(other finding) bool { return other.About == f.About && other.same(f) })
			if i < 0 {
				found = append(found, f)
				continue
			}
			found[i].Devices = append(found[i].Devices, a.ID)
		}
	}
	for i, f := range found {
		if len(f.Devices) == 1 {
			found[i].Text, found[i].Devices = f.Devices[0]+": "+f.Text, nil
		}
	}
	return found
}

// longer is a look that is long enough for the device to be seen.
func (a examined) longer() time.Duration {
	return min(max(10*time.Second, (a.refresh+5*time.Second).Truncate(time.Second)), longestLook)
}

// placeFindings say what would make the emissions better.
func placeFindings(r tracker.Report) []finding {
	var found []finding
	if r.Location.Guess && r.Factors.Intensity.Kind != emissions.Declared {
		f := finding{About: "place", Severity: improvement}
		example := "COUNTRY" // a real one would be taken as it is
		switch r.Location.Source {
		case emissions.FromTimeZone:
			f.Text = fmt.Sprintf("That this machine is in %s is a guess from its time zone.", r.Location.Country)
			example = r.Location.Country
		default:
			f.Text = "Where this machine is, is not known: its emissions are those of an average of the world."
		}
		f.Remedies = []remedy{{What: "say where it is: the country (FR, Germany), or in a cloud WATTSPAN_REGION (aws/eu-west-3)",
			Commands: []string{variable("WATTSPAN_COUNTRY", example)}}}
		if r.Location.Provider != "" {
			f.Remedies[0] = remedy{What: "say in which region it is",
				Commands: []string{variable("WATTSPAN_REGION", r.Location.Provider+"/REGION")}}
		}
		found = append(found, f)
	}
	if r.Factors.PUE.Kind == emissions.IndustryAveragePUE {
		found = append(found, finding{About: "place", Severity: improvement,
			Text: "The PUE is an average of the industry, as nobody has said what this facility's is.",
			Remedies: []remedy{{What: "ask who runs it, and state it; it is 1 where there is none, as at home",
				Commands: []string{variable("WATTSPAN_PUE", "NUMBER")}}}})
	}
	return found
}

// variable is how a shell sets a variable.
func variable(name, value string) string {
	if runtime.GOOS == "windows" {
		return "set " + name + "=" + value
	}
	return "export " + name + "=" + value
}

// accounting is how the runner would count the processes of a job here.
type accounting struct {
	Method string `json:"method"` // as in a report
	// Reason says why it is not a control group of the job's own.
	Reason   string   `json:"reason,omitempty"`
	Remedies []remedy `json:"remedies"`
}

func examineAccounting() accounting {
	kind, why := accountingHere()
	a := accounting{Method: kind, Remedies: []remedy{}}
	if why != nil {
		a.Reason = line(why.Error())
	}
	if why == nil || !errors.Is(why, sensors.ErrPermission) {
		return a
	}
	// What helps is a scope of systemd's, which is the user's own to divide.
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	_, err := exec.LookPath("systemd-run")
	if err != nil || !exists("/run/systemd/system") || !exists("/sys/fs/cgroup/cgroup.controllers") {
		return a
	}
	command := "systemd-run --scope -p Delegate=yes -- wattspan run -- COMMAND"
	if os.Geteuid() != 0 {
		if !exists(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "systemd", "private")) {
			return a
		}
		command = "systemd-run --user --scope -p Delegate=yes -- wattspan run -- COMMAND"
	}
	a.Remedies = append(a.Remedies, remedy{What: "start the runner in a scope of its own", Commands: []string{command}})
	return a
}

func (a accounting) findings() []finding {
	if len(a.Remedies) == 0 {
		return nil
	}
	return []finding{{About: "accounting", Severity: improvement, Remedies: a.Remedies,
		Text: "A job cannot have a control group of its own here. Without one, only children whose parent ignores their end (SIGCHLD) go uncounted."}}
}

// lookAround finds out what remedies depend on.
func lookAround(m host.Machine, roots sensors.Roots) system {
	s := system{
		OS: runtime.GOOS, Arch: runtime.GOARCH,
		Superuser: os.Geteuid() == 0,
		Sys:       roots.Sys, Proc: roots.Proc, machine: m,
		distribution: distribution("/"),
	}
	if m.Container != nil {
		s.Container = m.Container.Engine
	}
	if path, err := os.Executable(); err == nil {
		// setcap wants the file itself.
		if s.executable, err = filepath.EvalSymlinks(path); err != nil {
			s.executable = path
		}
	}
	_, err := os.Stat(filepath.Join(roots.Proc, "driver/nvidia/version"))
	s.driver = err == nil
	paths, _ := filepath.Glob("/dev/nvidia[0-9]*")
	for _, path := range append(paths, "/dev/nvidiactl") {
		if n, ok := deviceFile(path); ok {
			s.nodes = append(s.nodes, n)
		}
	}
	return s
}

// distribution returns the ID of os-release, below root.
func distribution(root string) string {
	text, _ := os.ReadFile(filepath.Join(root, "etc/os-release"))
	for l := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(l), "ID="); ok {
			return strings.Trim(id, `"'`)
		}
	}
	return ""
}

// sudo puts sudo before a command that only root can do.
func (s system) sudo(command string) string {
	if s.Superuser && s.Container == "" {
		return command
	}
	return "sudo " + command
}

// onHost says where a command is for, which in a container is not here.
func (s system) onHost(r *remedy) {
	if s.Container != "" {
		r.What = "on the host, " + r.What
	}
}

// containerRun is how to start a container with flags; empty where that is not
// known.
func (s system) containerRun(flags string) string {
	if s.Container == "docker" || s.Container == "podman" {
		return s.Container + " run " + flags + " IMAGE COMMAND"
	}
	return ""
}

// cgoEnabled reports whether this program contains C, and so what reads NVIDIA
// GPUs.
func cgoEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(b debug.BuildSetting) bool {
		return b.Key == "CGO_ENABLED" && b.Value == "1"
	})
}

// sentence makes one of a reason.
func sentence(reason string) string {
	if reason == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(reason)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(reason[size:], ".") + "."
}

// quoteShell makes one word of a path, for a shell.
func quoteShell(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
