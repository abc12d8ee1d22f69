package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/tracker"
)

// visit is what the doctor said.
type visit struct {
	diagnosis
	stdout, stderr string
	exit, pid      int
}

// consult runs doctor as a program would, with JSON.
func consult(t *testing.T, env []string, flags ...string) visit {
	t.Helper()
	return consultAs(t, nil, env, append([]string{"--json"}, flags...)...)
}

// consultAs runs doctor with attributes of the system's. What it prints is
// parsed where it is JSON.
func consultAs(t *testing.T, as *syscall.SysProcAttr, env []string, flags ...string) visit {
	t.Helper()
	binary, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append([]string{"doctor", "--for", "500ms"}, flags...)...)
	cmd.Env = append(append(cleanEnvironment(), "TOKEN="+secret), env...)
	cmd.Dir = t.TempDir() // without a configuration
	cmd.SysProcAttr = as
	if as != nil {
		cmd.Dir = "/"
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	v := visit{stdout: stdout.String(), stderr: stderr.String(), exit: cmd.ProcessState.ExitCode(), pid: cmd.ProcessState.Pid()}
	if slices.Contains(flags, "--json") && v.exit != exitFailure {
		if err := json.Unmarshal(stdout.Bytes(), &v.diagnosis); err != nil {
			t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
		}
		if v.ExitCode != v.exit {
			t.Errorf("exit_code is %d, and the exit code %d", v.ExitCode, v.exit)
		}
	}
	return v
}

// of returns the findings about something.
func (d diagnosis) of(about string) []finding {
	var found []finding
	for _, f := range d.Findings {
		if strings.Contains(f.About, about) {
			found = append(found, f)
		}
	}
	return found
}

// commands returns all commands of some findings.
func commands(findings []finding) []string {
	var all []string
	for _, f := range findings {
		for _, r := range f.Remedies {
			all = append(all, r.Commands...)
		}
	}
	return all
}

func (d diagnosis) component(c sensors.Component) component {
	for _, found := range d.Components {
		if found.Component == c {
			return found
		}
	}
	return component{}
}

// The verdict and the exit code, of several lacks the worst.
func TestDoctorJudges(t *testing.T) {
	no, yes := false, true
	silent := exportState{Signals: []signalExport{{Signal: "traces", Wanted: true, Answers: &no}}}
	for _, c := range []struct {
		name    string
		gpu     state
		cpu     state
		export  exportState
		verdict state
		exit    int
		says    string
	}{
		{"all measured", stateMeasured, stateMeasured, exportState{}, stateMeasured, 0, "gpu and cpu are measured"},
		{"what is not there is no lack", stateAbsent, stateMeasured, exportState{}, stateMeasured, 0, "cpu is measured"},
		{"what another figure includes is no lack", stateMeasured, stateIncluded, exportState{}, stateMeasured, 0, "gpu is measured"},
		{"a model", stateMeasured, stateEstimated, exportState{}, stateEstimated, 1, "nothing is left out, but cpu is modelled"},
		{"unreadable", stateUnreadable, stateMeasured, exportState{}, statePartial, 2, "not all of the gpu can be read"},
		{"partial and a model", statePartial, stateEstimated, exportState{}, statePartial, 2, "cpu is modelled"},
		{"a collector that answers", stateMeasured, stateMeasured,
			exportState{Signals: []signalExport{{Wanted: true, Answers: &yes}}}, stateMeasured, 0, ""},
		{"a collector that was not tried", stateMeasured, stateMeasured,
			exportState{Signals: []signalExport{{Wanted: true}}}, stateMeasured, 0, ""},
		{"measured, and nobody to send it to", stateMeasured, stateMeasured, silent, stateMeasured, 3, "the export does not work"},
		{"a model, and nobody to send it to", stateMeasured, stateEstimated, silent, stateEstimated, 3, "the export does not work"},
		{"unreadable, and nobody to send it to", stateUnreadable, stateEstimated, silent, statePartial, 2, "the export does not work"},
		{"an export that is not understood", stateMeasured, stateMeasured, exportState{Problems: []string{"what?"}}, stateMeasured, 3, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := diagnosis{Export: c.export, Components: []component{{Component: sensors.GPU, State: c.gpu}, {Component: sensors.CPU, State: c.cpu}}}
			d.judge()
			if d.Verdict != c.verdict || d.ExitCode != c.exit || !strings.Contains(d.Summary, c.says) {
				t.Errorf("%s, %d, %q; want %s, %d, %q", d.Verdict, d.ExitCode, d.Summary, c.verdict, c.exit, c.says)
			}
		})
	}
}

func TestDoctorRefuses(t *testing.T) {
	for _, c := range []struct {
		flags []string
		says  string
	}{
		{[]string{"--for", "1ms"}, "outside 500ms to 1m"},
		{[]string{"--for", "1h"}, "outside 500ms to 1m"},
		{[]string{"--for", "soon"}, "--for"},
		{[]string{"--offlin"}, "did you mean --offline"},
		{[]string{"--country", "Atlantis"}, "Atlantis"},
		{[]string{"now"}, "takes no arguments"},
		{[]string{"--scope", "job"}, "unknown flag --scope"},
	} {
		var stdout, stderr bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // of an hour that is not refused
		code := execute(ctx, append([]string{"doctor"}, c.flags...), &stdout, &stderr)
		cancel()
		if code != exitFailure || !strings.Contains(stderr.String(), c.says) || stdout.Len() > 0 {
			t.Errorf("%q: code %d, %q, %q; want %d and %q", c.flags, code, &stdout, &stderr, exitFailure, c.says)
		}
	}
}

// Any machine gets a diagnosis, and it is of one piece.
func TestDoctorHere(t *testing.T) {
	v := consult(t, []string{"WATTSPAN_COUNTRY=FR"}, "--pue", "1.3")
	if v.Schema != "wattspan.doctor/v1" || v.Version != tracker.Version || v.Report.Schema != tracker.Schema || v.stderr != "" {
		t.Errorf("schema %q, version %q, report %q, stderr %q", v.Schema, v.Version, v.Report.Schema, v.stderr)
	}
	if v.Build.CGO != cgo {
		t.Errorf("built with cgo: %v", v.Build.CGO)
	}
	want := map[state]int{stateMeasured: 0, stateEstimated: 1, statePartial: 2}
	if code, ok := want[v.Verdict]; !ok || v.exit != code {
		t.Errorf("%s has the exit code %d", v.Verdict, v.exit)
	}
	if len(v.Components) != 3 {
		t.Fatalf("components %+v", v.Components)
	}
	devices := 0
	for _, c := range v.Components {
		devices += len(c.Devices)
		if c.Power == nil && len(c.Reasons) == 0 && c.State != stateIncluded {
			t.Errorf("%s has neither a figure nor a reason", c.Component)
		}
	}
	if devices != len(v.Report.Devices) {
		t.Errorf("%d devices, and %d in the report", devices, len(v.Report.Devices))
	}
	if l := v.Report.Location; l.Country != "FR" || l.Source != emissions.FromEnvironment || len(v.of("place")) != 0 {
		t.Errorf("place %+v, findings %+v", l, v.of("place"))
	}
	if v.Report.Factors.PUE.Value != 1.3 {
		t.Errorf("PUE %v", v.Report.Factors.PUE)
	}
	if len(v.Configuration) != 2 {
		t.Errorf("configuration %+v", v.Configuration)
	}
	if strings.Contains(v.stdout, secret) {
		t.Error("it shows the environment")
	}
}

// A place that is a guess is said to be one, with the command that states it.
func TestDoctorPlace(t *testing.T) {
	guess := tracker.Report{
		Location: emissions.Location{Country: "DE", Source: emissions.FromTimeZone, Guess: true},
		Factors:  emissions.Model{Intensity: emissions.Factor{Kind: emissions.LifecycleAverage}, PUE: emissions.Factor{Kind: emissions.FleetPUE}},
	}
	for _, c := range []struct {
		name   string
		change func(*tracker.Report)
		want   []string
	}{
		{"time zone", func(*tracker.Report) {}, []string{"WATTSPAN_COUNTRY=DE"}},
		{"nothing", func(r *tracker.Report) { r.Location = emissions.Location{Source: emissions.FromNothing, Guess: true} },
			[]string{"WATTSPAN_COUNTRY=COUNTRY"}},
		{"a cloud's region that is not known", func(r *tracker.Report) {
			r.Location = emissions.Location{Source: emissions.FromNothing, Provider: "aws", Guess: true}
		}, []string{"WATTSPAN_REGION=aws/REGION"}},
		{"stated", func(r *tracker.Report) { r.Location = emissions.Location{Country: "DE", Source: emissions.FromOption} }, nil},
		{"a stated intensity needs no place", func(r *tracker.Report) { r.Factors.Intensity.Kind = emissions.Declared }, nil},
		{"a PUE of the industry", func(r *tracker.Report) {
			r.Location.Guess = false
			r.Factors.PUE.Kind = emissions.IndustryAveragePUE
		}, []string{"WATTSPAN_PUE=NUMBER"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := guess
			c.change(&r)
			got := commands(placeFindings(r))
			if !slices.EqualFunc(got, c.want, strings.HasSuffix) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// nvmlOmission is what package nvml leaves out for a code.
func nvmlOmission(reason error, code string) sensors.Omission {
	return sensors.Omission{
		Source: "nvml", Component: sensors.GPU, Status: sensors.Unreadable, Reason: "reason " + code, Remedy: "remedy of the back-end",
		Err: fmt.Errorf("nvml: %w: %s", reason, code),
	}
}

// raplOmission is a zone that only root can read.
func raplOmission(component sensors.Component, device, control string) sensors.Omission {
	return sensors.Omission{
		Source: "rapl", Component: component, Device: device, Status: sensors.Unreadable,
		Reason: "/sys/class/powercap/" + control + ":0/energy_uj, the energy of " + device + ", is for root only",
		Err:    fmt.Errorf("rapl: %w", sensors.ErrPermission),
	}
}

// Every lack has the remedy of the place it is found in. What is asked for must
// be there, and what is no use there must not.
func TestDoctorPrescribes(t *testing.T) {
	bare := system{OS: "linux", machine: host.Machine{Kind: host.Server, Vendor: "Intel"}, executable: "/opt/my tools/wattspan"}
	in := func(engine string) system { s := bare; s.Container = engine; return s }
	guest := bare
	guest.machine = host.Machine{Kind: host.VirtualMachine, Hypervisor: "kvm"}
	with := func(change func(*system)) system { s := bare; change(&s); return s }
	hidden := sensors.Omission{Source: "rapl", Component: sensors.CPU, Status: sensors.Unreadable,
		Reason: "RAPL is hidden from this container", Remedy: "…", Err: fmt.Errorf("rapl: %w", sensors.ErrPermission)}
	noZone := sensors.Omission{Source: "rapl", Component: sensors.CPU, Status: sensors.Absent,
		Reason: "no RAPL", Err: fmt.Errorf("rapl: %w", sensors.ErrAbsent)}
	unloaded := noZone
	unloaded.Remedy = "sudo modprobe intel_rapl_msr"
	closed := raplOmission(sensors.CPU, "package-0", "intel-rapl")
	lost, unsupported := sensors.ErrLost, sensors.ErrUnsupported
	hint := func(code string) sensors.Omission { return nvmlOmission(unsupported, "NVML_ERROR_"+code) }

	for _, c := range []struct {
		name     string
		system   system
		omitted  sensors.Omission
		severity severity
		want     []string // in the text, what it does, the notes or the commands
		never    []string
	}{
		{"counters for root", bare, closed, improvement, []string{
			"sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj", "/etc/udev/rules.d/70-rapl.rules", `KERNEL=="intel-rapl:*"`,
			"/sys%p/energy_uj", "udevadm trigger --action=add --subsystem-match=powercap",
			`sudo setcap cap_dac_read_search+ep '/opt/my tools/wattspan'`, "may then read every file", "CVE-2020-8694"}, []string{"docker", "on the host"}},
		{"mmio counters for root", bare, raplOmission(sensors.CPU, "package-0", "intel-rapl-mmio"), improvement,
			[]string{"/sys/class/powercap/intel-rapl-mmio:*/energy_uj", `KERNEL=="intel-rapl-mmio:*"`}, nil},
		{"counters for root, in a container", in("docker"), closed, improvement,
			[]string{"on the host, ", "sudo chmod a+r", "docker run --user 0"}, []string{"setcap"}},
		{"the same, as the container's root", with(func(s *system) { s.Container, s.Superuser = "docker", true }), closed, improvement,
			[]string{"on the host, ", "sudo chmod a+r"}, []string{"--user 0"}},
		{"hidden by docker", in("docker"), hidden, improvement, []string{"docker run -v /sys:/host/sys:ro -e HOST_SYS=/host/sys"}, []string{"virtual", "sudo"}},
		{"hidden by podman", in("podman"), hidden, improvement, []string{"podman run -v /sys:/host/sys:ro -e HOST_SYS=/host/sys"}, nil},
		{"hidden in a pod", in("kubernetes"), hidden, improvement,
			[]string{"hostPath: {path: /sys}", "mountPath: /host/sys, readOnly: true", "HOST_SYS, value: /host/sys"}, []string{"run -v"}},
		{"hidden by who knows what", in("lxc"), hidden, improvement, []string{"/host/sys, and HOST_SYS=/host/sys"}, []string{"run -v"}},
		{"hidden in a virtual machine", with(func(s *system) { s.Container, s.machine = "docker", guest.machine }), hidden, improvement,
			[]string{"is a virtual one, and most likely has none"}, nil},
		{"no driver on hardware", bare, unloaded, improvement,
			[]string{"sudo modprobe intel_rapl_msr", "/etc/modules-load.d/"}, []string{"on the host"}},
		{"no driver, as root", with(func(s *system) { s.Superuser = true }), unloaded, improvement, []string{"modprobe intel_rapl_msr"}, []string{"sudo"}},
		{"a guest", guest, noZone, limit, []string{"Hypervisors", "whoever runs it"}, []string{"sudo", "modprobe", "chmod", "$"}},
		{"a machine without RAPL", bare, noZone, "", nil, nil},
		{"without cgo", bare, nvmlOmission(unsupported, "built without cgo"), improvement,
			[]string{"CGO_ENABLED=1 go install github.com/wattspan/wattspan/examples/wattspan@latest", "C compiler"}, []string{"driver"}},
		{"no driver on ubuntu", with(func(s *system) { s.distribution = "ubuntu" }), hint("LIBRARY_NOT_FOUND"), improvement,
			[]string{"sudo ubuntu-drivers install", "nvidia-smi"}, []string{"docker", "modprobe"}},
		{"no driver on debian", with(func(s *system) { s.distribution = "debian" }), hint("LIBRARY_NOT_FOUND"), improvement, []string{"sudo apt install nvidia-driver"}, nil},
		{"no driver elsewhere", bare, hint("LIBRARY_NOT_FOUND"), improvement, []string{"https://docs.nvidia.com/"}, nil},
		{"a driver without its library", with(func(s *system) { s.driver = true }), hint("LIBRARY_NOT_FOUND"), improvement,
			[]string{"ldconfig -p", "same version"}, []string{"ubuntu-drivers"}},
		{"a driver that is not loaded", bare, hint("DRIVER_NOT_LOADED"), improvement, []string{"sudo modprobe nvidia", "dmesg"}, nil},
		{"a container without GPUs", in("docker"), hint("LIBRARY_NOT_FOUND"), improvement,
			[]string{"was not given it", "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility", "Container Toolkit"}, []string{"apt install"}},
		{"a container without the utilities", with(func(s *system) {
			s.Container, s.nodes = "docker", []deviceNode{{path: "/dev/nvidia0", open: true}}
		}), hint("LIBRARY_NOT_FOUND"), improvement, []string{"(utility)", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"}, nil},
		{"a pod", in("kubernetes"), hint("DRIVER_NOT_LOADED"), improvement, []string{"nvidia.com/gpu: 1"}, nil},
		{"apptainer", in("apptainer"), hint("LIBRARY_NOT_FOUND"), improvement, []string{"apptainer exec --nv"}, nil},
		{"podman", in("podman"), hint("GPU_NOT_FOUND"), improvement, []string{"podman run --device nvidia.com/gpu=all"}, nil},
		{"mismatch", bare, nvmlOmission(lost, "NVML_ERROR_LIB_RM_VERSION_MISMATCH"), improvement,
			[]string{"sudo reboot", "modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia"}, []string{"on the host", "container"}},
		{"mismatch in a container", in("docker"), nvmlOmission(lost, "NVML_ERROR_LIB_RM_VERSION_MISMATCH"), improvement,
			[]string{"on the host, restart the machine", "start the container again"}, nil},
		{"device files of a group", with(func(s *system) {
			s.nodes = []deviceNode{{path: "/dev/nvidia0", open: true}, {path: "/dev/nvidiactl", group: "video"}}
		}), nvmlOmission(sensors.ErrPermission, "NVML_ERROR_NO_PERMISSION"), improvement,
			[]string{"/dev/nvidiactl", `sudo usermod -aG video "$USER"`}, []string{"chmod"}},
		{"device files of root", with(func(s *system) {
			s.nodes = []deviceNode{{path: "/dev/nvidia0", group: "root"}}
		}), nvmlOmission(sensors.ErrPermission, "NVML_ERROR_NO_PERMISSION"), improvement, []string{"sudo chmod a+rw /dev/nvidia*"}, []string{"usermod"}},
		{"a scheduler's GPUs", bare, nvmlOmission(sensors.ErrPermission, "NVML_ERROR_OPERATING_SYSTEM"), improvement, []string{"srun --gres=gpu:1"}, nil},
		{"GPUs that a container may not use", in("docker"), nvmlOmission(sensors.ErrPermission, "NVML_ERROR_NO_PERMISSION"), improvement,
			[]string{"--gpus all"}, []string{"usermod", "chmod"}},
		{"a virtual GPU", guest, hint("NOT_SUPPORTED"), limit, []string{"on its host"}, []string{"sudo"}},
		{"an old GPU", bare, hint("NOT_SUPPORTED"), improvement, []string{"remedy of the back-end"}, nil},
		{"a lost GPU", bare, nvmlOmission(lost, "NVML_ERROR_GPU_IS_LOST"), improvement, []string{"grep -i xid", "nvidia-smi --gpu-reset"}, nil},
		{"a driver that takes its time", bare, nvmlOmission(sensors.ErrTimeout, "context deadline exceeded"), improvement, []string{"sudo nvidia-smi -pm 1"}, nil},
		{"what nobody has thought of", bare, sensors.Omission{Source: "new", Component: sensors.GPU, Status: sensors.Unreadable,
			Reason: "it is broken", Remedy: "mend it", Err: errors.New("x")}, improvement, []string{"It is broken.", "mend it"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := c.system.prescribe([]sensors.Omission{c.omitted}, nil)
			if c.severity == "" {
				if len(found) > 0 {
					t.Errorf("%+v, want nothing", found)
				}
				return
			}
			if len(found) != 1 {
				t.Fatalf("%d findings, want one: %+v", len(found), found)
			}
			if found[0].Severity != c.severity {
				t.Errorf("severity %s, want %s", found[0].Severity, c.severity)
			}
			var b strings.Builder
			fmt.Fprintln(&b, found[0].Text)
			for _, r := range found[0].Remedies {
				fmt.Fprintln(&b, r.What, r.Commands, r.Note)
			}
			for _, want := range c.want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("no %q in\n%s", want, &b)
				}
			}
			for _, never := range c.never {
				if strings.Contains(b.String(), never) {
					t.Errorf("%q in\n%s", never, &b)
				}
			}
			// It is a problem only where nothing else stands for it.
			found = c.system.prescribe([]sensors.Omission{c.omitted}, []sensors.Omission{c.omitted})
			if unread := c.omitted.Status == sensors.Unreadable; unread != (found[0].Severity == problem) {
				t.Errorf("severity %s where nothing stands for it", found[0].Severity)
			}
		})
	}
}

// Zones with one remedy are one finding, which names them.
func TestDoctorPrescribesOnce(t *testing.T) {
	s := system{OS: "linux"}
	omitted := []sensors.Omission{
		raplOmission(sensors.CPU, "package-0", "intel-rapl"), raplOmission(sensors.CPU, "package-1", "intel-rapl"),
		raplOmission(sensors.Memory, "dram-0", "intel-rapl"),
		{Source: "host /proc/stat", Component: sensors.CPU, Device: "cpu", Status: sensors.Superseded, Reason: "better"},
	}
	found := s.prescribe(omitted, omitted[1:2])
	if len(found) != 1 || found[0].About != "cpu, memory" || !slices.Equal(found[0].Devices, []string{"package-0", "package-1", "dram-0"}) || found[0].Severity != problem {
		t.Errorf("%+v", found)
	}
}

func TestDistribution(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "",
		"NAME=Ubuntu\nID=ubuntu\n":               "ubuntu",
		"ID=\"rocky\"\nID_LIKE=\"rhel\"\n":       "rocky",
		"VERSION_ID=12\nID='debian'":             "debian",
		"VARIANT_ID=server\nPRETTY_NAME=\"ID=\"": "",
	} {
		root := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, "etc/os-release"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		if got := distribution(root); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestQuoteShell(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/local/bin/wattspan": "/usr/local/bin/wattspan",
		"/my tools/wattspan":      "'/my tools/wattspan'",
		"/it's/$(reboot)":         `'/it'\''s/$(reboot)'`,
	} {
		if got := quoteShell(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// A command is whole in a terminal of any width, as it is to be copied.
func TestDoctorPageKeepsCommands(t *testing.T) {
	s := system{OS: "linux", executable: "/opt/a folder/wattspan"}
	d := diagnosis{
		Verdict: stateEstimated, Summary: "so it is",
		Components: []component{{Component: sensors.GPU, State: stateAbsent, Reasons: []string{"no GPU"}}},
		Findings:   s.prescribe([]sensors.Omission{raplOmission(sensors.CPU, "package-0", "intel-rapl")}, nil),
		Report:     tracker.Report{Run: tracker.Run{Duration: 1}},
	}
	for _, columns := range []string{"", "120", "80", "50", "20"} {
		var b bytes.Buffer
		p := newPage(&b, "never", func(name string) string {
			if name == "COLUMNS" {
				return columns
			}
			return ""
		})
		d.print(p)
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(b.String(), "\n")
		if !strings.HasPrefix(lines[0], "wattspan doctor:") || !strings.Contains(b.String(), "ESTIMATED") {
			t.Errorf("the first line is %q", lines[0])
		}
		// Where there is no room for a column of labels, they go before the text.
		if inline := columns == "50" || columns == "20"; inline != strings.Contains(b.String(), "\n  system: ") {
			t.Errorf("at %s columns:\n%s", columns, &b)
		}
		for _, command := range commands(d.Findings) {
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.TrimSpace(l) == command }) {
				t.Errorf("at %s columns %q is not whole in\n%s", columns, command, &b)
			}
		}
	}
}

// What the OTEL_* variables ask for: where to, how, and what is wrong with it.
func TestExamineExport(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT="
	for _, c := range []struct {
		name     string
		env      []string
		wanted   []string // signals
		address  string   // of the first that is wanted
		shown    string
		problems []string // patterns, one for each
	}{
		{"nothing", nil, nil, "", "", nil},
		{"an endpoint", []string{endpoint + "http://collector:4318"}, []string{"traces", "metrics"}, "collector:4318", "http://collector:4318", nil},
		{"gRPC", []string{endpoint + "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, []string{"traces", "metrics"}, "collector:4317", "http://collector:4317", nil},
		{"http has port 80", []string{endpoint + "http://collector/x"}, []string{"traces", "metrics"}, "collector:80", "http://collector/x", nil},
		{"https has port 443", []string{endpoint + "https://[::1]"}, []string{"traces", "metrics"}, "[::1]:443", "https://[::1]", nil},
		{"gRPC has port 443", []string{endpoint + "http://collector", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, []string{"traces", "metrics"}, "collector:443", "http://collector", nil},
		{"a target of gRPC", []string{endpoint + "collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, []string{"traces", "metrics"}, "collector:4317", "collector:4317", nil},
		{"an exporter without endpoint", []string{"OTEL_TRACES_EXPORTER=otlp"}, []string{"traces"}, "localhost:4318", "http://localhost:4318", nil},
		{"the same by gRPC", []string{"OTEL_METRICS_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, []string{"metrics"}, "localhost:4317", "http://localhost:4317", nil},
		{"one signal's own", []string{endpoint + "http://a:1", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://b:2", "OTEL_TRACES_EXPORTER=none"},
			[]string{"metrics"}, "b:2", "http://b:2", nil},
		{"disabled", []string{endpoint + "http://collector:4318", "OTEL_SDK_DISABLED=TRUE"}, nil, "", "", nil},
		{"disabled, whatever it is", []string{endpoint + "://", "OTEL_SDK_DISABLED=true", "OTEL_EXPORTER_OTLP_ENPOINT=x"}, nil, "", "", nil},
		{"secrets", []string{endpoint + "http://s3cr3t:s3cr3t@collector:4318/v1?key=s3cr3t#s3cr3t", "OTEL_EXPORTER_OTLP_HEADERS=authorization=s3cr3t, x-key=s3cr3t"},
			[]string{"traces", "metrics"}, "collector:4318", "http://collector:4318/v1", nil},
		{"no URL", []string{endpoint + "http://a:s3cr3t@b:c d/"}, []string{"traces", "metrics"}, "", "", []string{"metrics not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not a URL", "traces not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not a URL"}},
		{"no scheme", []string{endpoint + "collector:4318"}, []string{"traces", "metrics"}, "", "", []string{"is not a URL; write it like http://", "is not a URL; write it like http://"}},
		{"no scheme, by address", []string{endpoint + "127.0.0.1:4318"}, []string{"traces", "metrics"}, "", "", []string{"is not a URL", "is not a URL"}},
		{"a name of gRPC", []string{endpoint + "dns:///collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, []string{"traces", "metrics"}, "", "dns:///collector:4317", nil},
		{"a socket", []string{endpoint + "unix:///run/otel.sock", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, []string{"traces", "metrics"}, "", "unix:///run/otel.sock", nil},
		{"no target", []string{endpoint + "s3cr3t:s3cr3t", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, []string{"traces", "metrics"}, "", "", []string{"names no host"}},
		{"no scheme, no port", []string{endpoint + "collector"}, []string{"traces", "metrics"}, "", "", []string{"is not a URL", "is not a URL"}},
		{"headers that are none", []string{endpoint + "http://collector:4318", "OTEL_EXPORTER_OTLP_HEADERS=Bearer s3cr3t"},
			[]string{"traces", "metrics"}, "collector:4318", "http://collector:4318", []string{"OTEL_EXPORTER_OTLP_HEADERS"}},
		{"another protocol", []string{endpoint + "http://collector:4318", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"},
			[]string{"traces", "metrics"}, "", "", []string{`metrics not exported: OTLP protocol "http/json"`, `traces not exported: OTLP protocol "http/json"`}},
		{"another exporter", []string{"OTEL_TRACES_EXPORTER=console"}, []string{"traces"}, "", "", []string{"OTEL_TRACES_EXPORTER=console"}},
		{"a typing error", []string{"OTEL_EXPORTER_OTLP_ENPOINT=http://collector:4318"}, nil, "", "", []string{"OTEL_EXPORTER_OTLP_ENPOINT; did you mean OTEL_EXPORTER_OTLP_ENDPOINT"}},
		{"a typing error in a long name", []string{"OTEL_EXPORTER_OTLP_METRICS_ENDPIONT=http://collector:4318"}, nil, "", "", []string{"did you mean OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"}},
		{"another program's", []string{"OTEL_PYTHON_LOG_CORRELATION=true", "OTEL_EXPORTER_JAEGER_ENDPOINT=http://j", "OTEL_BSP_SCHEDULE_DELAY=1"}, nil, "", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := examineExport(t.Context(), c.env, false)
			var wanted []string
			var first signalExport
			for _, x := range s.Signals {
				if !x.Wanted {
					continue
				}
				if wanted = append(wanted, x.Signal); len(wanted) == 1 {
					first = x
				}
				if x.Answers != nil {
					t.Errorf("%s was tried", x.Signal)
				}
			}
			if !slices.Equal(wanted, c.wanted) || first.Address != c.address || first.Endpoint != c.shown {
				t.Errorf("%q to %q, shown as %q; want %q to %q, shown as %q", wanted, first.Address, first.Endpoint, c.wanted, c.address, c.shown)
			}
			problems := slices.Sorted(slices.Values(s.Problems))
			if !slices.EqualFunc(problems, c.problems, strings.Contains) {
				t.Errorf("problems %q, want %q", problems, c.problems)
			}
			if s.broken() != (len(c.problems) > 0) {
				t.Errorf("broken: %v", s.broken())
			}
			if text := fmt.Sprintf("%+v", s); strings.Contains(text, secret) {
				t.Errorf("a secret is shown: %s", text)
			}
		})
	}
}

// Whether the collector answers is tried once, only where it may be, and sends
// nothing.
func TestDoctorTriesTheCollector(t *testing.T) {
	for _, protocol := range protocols {
		to := newCollector(t, protocol, anyPort, accept)
		env := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
			"OTEL_EXPORTER_OTLP_HEADERS=x-token=" + secret}
		v := consult(t, env, "--offline")
		if n := to.listener.count.Load(); n != 0 || v.exit == exitExporter {
			t.Errorf("offline: %d connections, exit code %d", n, v.exit)
		}
		v = consult(t, env)
		if v.exit == exitExporter || len(v.of("export")) != 0 {
			t.Errorf("exit code %d, %+v", v.exit, v.of("export"))
		}
		for _, x := range v.Export.Signals {
			if x.Answers == nil || !*x.Answers || x.Protocol != protocol || !slices.Equal(x.Headers, []string{"x-token"}) || x.From != "OTEL_EXPORTER_OTLP_ENDPOINT" {
				t.Errorf("%+v", x)
			}
		}
		<-to.listener.accepted
		if n := to.listener.count.Load(); n != 1 {
			t.Errorf("%d connections, want one for both signals", n)
		}
		to.mu.Lock()
		if len(to.deliveries) != 0 {
			t.Errorf("%d deliveries", len(to.deliveries))
		}
		to.mu.Unlock()
		said := consultAs(t, nil, env)
		for _, text := range []string{v.stdout, said.stdout} {
			if strings.Contains(text, secret) {
				t.Errorf("it shows a secret:\n%s", text)
			}
		}
		if !strings.Contains(said.stdout, "it answers") || !strings.Contains(said.stdout, "with headers x-token") {
			t.Errorf("the page:\n%s", said.stdout)
		}
	}
}

// A collector that does not answer is a problem of its own, with its exit code.
func TestDoctorCollectorThatDoesNotAnswer(t *testing.T) {
	v := consult(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + refusing})
	f := v.of("export")
	if v.Verdict == statePartial {
		t.Skip("something of this machine cannot be read, which is worse")
	}
	if v.exit != exitExporter || len(f) != 1 || f[0].Severity != problem || !strings.Contains(f[0].Text, refusing) {
		t.Errorf("exit code %d, %+v", v.exit, f)
	}
	if v.Report.Energy.Device == nil {
		t.Error("nothing was measured")
	}
}

// Whatever the headers hold, only names before an equals sign are shown.
func FuzzHeaderNames(f *testing.F) {
	for _, s := range []string{"", "a=b", "a=b,c=d", "a", "=b", "a=b=c", " a = b ,, ", "a=b\nc=d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, headers string) {
		names, malformed := headerNames(headers)
		if len(names)+malformed > strings.Count(headers, ",")+1 {
			t.Errorf("%q: %d names and %d more", headers, len(names), malformed)
		}
		for _, name := range names {
			if name == "" || strings.Contains(name, "=") || !strings.Contains(headers, name) {
				t.Errorf("%q: the name %q", headers, name)
			}
		}
	})
}

// Whatever an endpoint is, its user and query are not shown, and nothing breaks.
func FuzzExamineExport(f *testing.F) {
	for _, s := range []string{"", "http://a", "https://u:p@h:1/x?y#z", "a:1", "unix:///x", "dns:///a:1", "::", "http://[::1]:x", "%"} {
		f.Add(s, "grpc")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, endpoint, protocol string) {
		s := examineExport(t.Context(), []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol}, false)
		for _, x := range s.Signals {
			if strings.ContainsAny(x.Endpoint, "?#") && !strings.Contains(x.Endpoint, "%") || strings.Contains(x.Address, "@") {
				t.Errorf("%q is shown as %q, %q", endpoint, x.Endpoint, x.Address)
			}
		}
	})
}
