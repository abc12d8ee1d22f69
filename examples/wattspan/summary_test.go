package main

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
	"github.com/wattspan/wattspan/sensors/node"
	"github.com/wattspan/wattspan/tracker"
)

var update = flag.Bool("update", false, "write what the summary tests expect anew; look at the difference before you commit it")

// of returns a pointer to a value, for the fields that may be unknown.
func of[T any](v T) *T { return &v }

// deviceWith returns a device of a scripted report, with a band of ±10 %.
func deviceWith(c sensors.Component, id, name string, m sensors.Method, energy sensors.Joules) tracker.Device {
	return tracker.Device{
		ID: id, Name: name, Component: c, Method: m, Scope: sensors.ScopeDevice, Source: "test",
		Energy: of(energy), Low: of(energy * 0.9), High: of(energy * 1.1), Attributed: of(energy),
		Coverage: 1, Status: tracker.StatusOK,
	}
}

// unseen makes a device one of which nothing was observed.
func unseen(d tracker.Device, reason string) tracker.Device {
	d.Energy, d.Low, d.High, d.Attributed = nil, nil, nil, nil
	d.Coverage, d.Status, d.Reason = 0, tracker.StatusUnseen, reason
	return d
}

// scripted returns the report that a tracker would make of these devices: sums,
// facility and emissions, with a PUE of 1.2 and 44.18 g/kWh.
func scripted(name string, length time.Duration, devices ...tracker.Device) tracker.Report {
	r := tracker.Report{
		Schema: tracker.Schema, Version: "1.2.3", Scope: tracker.Machine, Devices: devices,
		Run:      tracker.Run{ID: "k7", Name: name, Duration: length.Seconds(), ExitCode: of(0)},
		Machine:  host.Machine{Kind: host.Server, Model: "Intel Xeon Platinum 8480+", Threads: 224, Memory: 2 << 40},
		Location: emissions.Location{Country: "FR", Source: emissions.FromOption},
		Factors: emissions.Model{
			PUE: emissions.Factor{Value: 1.2, Unit: emissions.UnitPUE, Kind: emissions.Declared, Source: "user"},
			Intensity: emissions.Factor{
				Value: 44.18, Unit: emissions.UnitIntensity, Zone: "FR", Kind: emissions.LifecycleAverage,
				Source: "ember-yearly-2025", Year: 2024, Publisher: "Ember", Verified: "relay", Band: 0.25,
				Title: "Yearly Electricity Data (release of mid 2025, data years 2022-2024)",
				Note:  "direct average of the same zone: 33.7 g/kWh",
			},
		},
		Sampling: tracker.Sampling{Interval: 1, Samples: uint64(length/time.Second) + 1},
	}
	var total sensors.Joules
	for _, d := range devices {
		if d.Energy == nil {
			r.Missing = append(r.Missing, tracker.Missing{Component: d.Component, Device: d.ID, Status: sensors.Unreadable, Reason: d.Reason})
			r.Partial = true
			continue
		}
		r.Partial = r.Partial || d.Coverage < 0.99
		if d.Attributed == nil {
			continue
		}
		total += *d.Attributed
		sum := map[sensors.Component]**sensors.Joules{sensors.GPU: &r.Energy.GPU, sensors.CPU: &r.Energy.CPU, sensors.Memory: &r.Energy.Memory}[d.Component]
		if *sum == nil {
			*sum = of(sensors.Joules(0))
		}
		**sum += *d.Attributed
	}
	for _, c := range inOrder {
		if energyOf(r, c) == nil && r.Missing == nil {
			r.Missing = append(r.Missing, tracker.Missing{Component: c, Status: sensors.Absent, Reason: "no such hardware found"})
		}
	}
	if r.Energy == (tracker.Energy{}) {
		return r
	}
	r.Energy.Device, r.Energy.Facility = of(total), of(total*1.2)
	r.Bounds.Device = &tracker.Interval{Low: total * 0.9, High: total * 1.1}
	r.Bounds.Facility = &tracker.Interval{Low: total * 1.2 * 0.9, High: total * 1.2 * 1.1}
	g := emissions.GramsCO2e((total * 1.2).KWh() * 44.18)
	r.Emissions = &tracker.Emissions{Operational: g, Low: g / 1.7, High: g * 1.7}
	return r
}

// atThePlug adds the energy of the node to a report, and what follows from it.
func atThePlug(r tracker.Report, energy sensors.Joules, n tracker.Node) tracker.Report {
	band := func(v sensors.Joules) *tracker.Interval { return &tracker.Interval{Low: v * 0.94, High: v * 1.06} }
	unseen := energy - *r.Energy.Device
	n.Energy, n.Low, n.High, n.Residual = of(energy), of(energy*0.94), of(energy*1.06), &unseen
	r.Node = n
	r.Energy.Node, r.Energy.Unseen, r.Energy.Facility = of(energy), &unseen, of(energy*1.2)
	r.Bounds.Node, r.Bounds.Facility = band(energy), band(energy*1.2)
	g := emissions.GramsCO2e((energy * 1.2).KWh() * 44.18)
	r.Emissions = &tracker.Emissions{Operational: g, Low: g / 1.7, High: g * 1.7}
	return r
}

// eightGPUs is a node of eight equal GPUs and two sockets for an hour, all with
// counters.
func eightGPUs() tracker.Report {
	var devices []tracker.Device
	for i := range 8 {
		d := deviceWith(sensors.GPU, fmt.Sprintf("GPU-%d", i), "NVIDIA H100 80GB HBM3", sensors.MethodCounter, sensors.Joules(2e6+1000*i))
		d.Note = "the power sensor of this model sees a quarter of the time"
		devices = append(devices, d)
	}
	for i := range 2 {
		devices = append(devices,
			deviceWith(sensors.CPU, fmt.Sprintf("package-%d", i), "Intel Xeon Platinum 8480+", sensors.MethodCounter, 4e5),
			deviceWith(sensors.Memory, fmt.Sprintf("dram-%d", i), "DRAM", sensors.MethodCounter, 7e4))
	}
	r := scripted("train.py", 62*time.Minute+10*time.Second, devices...)
	r.Job = tracker.JobEnergy{
		Energy: of(sensors.Joules(1.65e7)), CPUSeconds: of(7384.2), Accounting: "cgroup", Components: inOrder,
		Method: "cpu_time_share,resident_memory_share,visible_devices",
		Shares: []tracker.JobShare{
			{Component: sensors.GPU, Energy: 1.6028e7, Method: "visible_devices"},
			{Component: sensors.CPU, Energy: 4e5, Method: "cpu_time_share"},
			{Component: sensors.Memory, Energy: 7.2e4, Method: "resident_memory_share"},
		},
	}
	r.LeftOut = []tracker.LeftOut{
		{Source: "host", Missing: tracker.Missing{Component: sensors.CPU, Device: "cpu", Status: sensors.Superseded, Reason: "a counter is there"}},
	}
	return r
}

// reports are what a summary is looked at with.
var reports = map[string]func() tracker.Report{
	"node": eightGPUs,
	// The same with the meter of its BMC, which sees more than its components, and
	// disagrees with one of them.
	"metered": func() tracker.Report {
		r := eightGPUs()
		meter := deviceWith(sensors.Node, "node", "BMC of a ProLiant", sensors.MethodPower, 2.2e7)
		meter.Attributed = nil
		r = atThePlug(r, 2.2e7, tracker.Node{Method: "power", Coverage: 1, Meter: &meter})
		r.Job.Unattributed, r.Job.Node, r.Job.Idle = of(sensors.Joules(4.68e5)), of(sensors.Joules(2.13e7)), tracker.IdleReserved
		r.Quality = []tracker.Flag{{Kind: tracker.FlagDisagreement, Device: "GPU-3", Reason: "its counter says 187 J and its power 327 J in 30 s"}}
		return r
	},
	// A desktop without a meter.
	"modelled": func() tracker.Report {
		r := scripted("train.py", time.Hour, deviceWith(sensors.GPU, "GPU-0", "NVIDIA GeForce RTX 4090", sensors.MethodCounter, 1.2e6),
			deviceWith(sensors.CPU, "package-0", "Intel Core i9-13900K", sensors.MethodCounter, 3e5))
		r.Machine.Kind = host.Desktop
		return atThePlug(r, 1.85e6, tracker.Node{Method: "model", Profile: &node.Profile{Name: "desktop", Base: 45, Efficiency: 0.9}})
	},
	// A virtual machine: models only, the place a guess, a cloud unknown.
	"virtual": func() tracker.Report {
		cpu := deviceWith(sensors.CPU, "cpu", "AMD EPYC 7003", sensors.MethodModel, 0.114)
		cpu.Note, cpu.Scope = "model: 4.69 W per core, the median of AMD EPYC 7003, × 2 of the host's threads at 2 per core × load", sensors.ScopeShare
		memory := deviceWith(sensors.Memory, "memory", "", sensors.MethodModel, 1.426)
		memory.Note, memory.Scope = "model: 0.3 W/GB × 23.5 GB, the guest's part of the host", sensors.ScopeShare
		r := scripted("sleep", 202*time.Millisecond, cpu, memory)
		r.Machine = host.Machine{Kind: host.VirtualMachine, Hypervisor: "kvm", Model: "AMD EPYC 7003", Threads: 2, Memory: 235e8}
		r.Run.ExitCode = of(3)
		r.Missing = []tracker.Missing{{Component: sensors.GPU, Status: sensors.Absent, Reason: "no NVIDIA GPU found"}}
		r.Location = emissions.Location{Country: "FR", Source: emissions.FromTimeZone, Detail: "time zone Europe/Paris of /etc/localtime", Guess: true}
		r.Factors.PUE = emissions.Factor{
			Value: 1.56, Unit: emissions.UnitPUE, Zone: "world", Kind: emissions.IndustryAveragePUE, Source: "uptime-survey", Year: 2024,
			Publisher: "Uptime Institute", Title: "Global data center survey, average PUE", Verified: "recall", Band: 0.15,
			Note: "virtual machine of an unknown provider",
		}
		r.Job = tracker.JobEnergy{
			Energy: of(sensors.Joules(0.00351)), CPUSeconds: of(0.00137), Accounting: "process_tree", Components: []sensors.Component{sensors.CPU},
			Shares: []tracker.JobShare{{Component: sensors.CPU, Energy: 0.00351, Method: "cpu_time_share"}},
		}
		r.LeftOut = []tracker.LeftOut{{Source: "rapl", Missing: tracker.Missing{Component: sensors.CPU, Status: sensors.Unreadable,
			Reason: "the hypervisor shows no counter", Remedy: "measure on the host"}}}
		return r
	},
	// Two of four GPUs fail, in two ways, a socket is forbidden, and the
	// memory has gaps.
	"partial": func() tracker.Report {
		lost := deviceWith(sensors.GPU, "GPU-1", "NVIDIA A100", sensors.MethodCounter, 4e4)
		lost.Coverage, lost.Status, lost.Reason = 0.41, tracker.StatusFailed, "the GPU is lost"
		dram := deviceWith(sensors.Memory, "dram-0", "DRAM", sensors.MethodCounter, 4e3)
		dram.Coverage, dram.Status, dram.Reason = 0.973, tracker.StatusGaps, "8.1s of the run could not be observed"
		r := scripted("finetune", 5*time.Minute,
			deviceWith(sensors.GPU, "GPU-0", "NVIDIA A100", sensors.MethodCounter, 1e5), lost,
			unseen(deviceWith(sensors.GPU, "GPU-2", "NVIDIA A100", sensors.MethodPower, 0), "not supported by the driver"),
			unseen(deviceWith(sensors.GPU, "GPU-3", "NVIDIA A100", sensors.MethodPower, 0), "not supported by the driver"),
			deviceWith(sensors.CPU, "package-0", "Xeon", sensors.MethodCounter, 3e4), dram)
		r.Missing = append(r.Missing, tracker.Missing{Component: sensors.CPU, Device: "package-1", Status: sensors.Unreadable,
			Reason: "permission denied", Remedy: "sudo chmod o+r /sys/class/powercap/intel-rapl:1/energy_uj"})
		r.Notes = []string{"the machine was suspended for 1m0s; that time and its energy are not in the figures"}
		r.Sampling.Suspended, r.Sampling.Missed, r.Sampling.Errors = 60, 2, 177
		r.Job = tracker.JobEnergy{CPUSeconds: of(12.5)}
		return r
	},
	"nothing": func() tracker.Report {
		r := scripted("train.py", 90*time.Second)
		r.Partial = true
		r.Missing = []tracker.Missing{
			{Component: sensors.GPU, Status: sensors.Unreadable, Reason: "driver and library do not match", Remedy: "restart the machine"},
			{Component: sensors.CPU, Status: sensors.Unreadable, Reason: "/proc/stat is not there", Remedy: "mount the host's procfs and name it in HOST_PROC"},
			{Component: sensors.Memory, Status: sensors.Unreadable, Reason: "/proc/stat is not there", Remedy: "mount the host's procfs and name it in HOST_PROC"},
		}
		return r
	},
}

func summaryOf(t *testing.T, r tracker.Report, columns int, verbose bool) string {
	t.Helper()
	return shown(t, columns, func(p *page) { printSummary(p, r, verbose) })
}

// The summaries in testdata/summary are to be read.
func TestSummaryText(t *testing.T) {
	for _, c := range []struct {
		report  string
		columns int
		verbose bool
	}{
		{"node", 40, false}, {"node", 80, false}, {"node", 120, false}, {"node", 0, false}, {"node", 80, true},
		{"metered", 80, false}, {"metered", 40, false}, {"modelled", 80, false},
		{"virtual", 40, false}, {"virtual", 80, false}, {"virtual", 80, true},
		{"partial", 40, false}, {"partial", 80, false}, {"partial", 80, true},
		{"nothing", 80, false}, {"nothing", 80, true},
	} {
		name := c.report
		if c.columns > 0 {
			name += "-" + strconv.Itoa(c.columns)
		}
		if c.verbose {
			name += "-verbose"
		}
		got := summaryOf(t, reports[c.report](), c.columns, c.verbose)
		for line := range strings.Lines(got) {
			line = strings.TrimSuffix(line, "\n")
			// One word can be wider than the screen.
			if c.columns > 0 && columns(line) > c.columns && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s: %d columns: %q", name, columns(line), line)
			}
			if line != strings.TrimRight(line, " ") {
				t.Errorf("%s: spaces at the end of %q", name, line)
			}
			if strings.ContainsAny(line, "\x1b\x00") {
				t.Errorf("%s: control characters in %q", name, line)
			}
		}
		file := filepath.Join("testdata", "summary", name+".txt")
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(string(want), "\r\n", "\n"); got != text {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, text)
		}
	}
}

// Whoever reads the first line only knows the result, and how much to believe it.
func TestSummaryHeadline(t *testing.T) {
	counter := deviceWith(sensors.GPU, "GPU-0", "A", sensors.MethodCounter, 3600)
	model := deviceWith(sensors.CPU, "cpu", "B", sensors.MethodModel, 360)
	failed := counter
	failed.Coverage, failed.Status, failed.Reason = 0.5, tracker.StatusFailed, "lost"
	with := func(change func(*tracker.Report), devices ...tracker.Device) tracker.Report {
		r := scripted("job", time.Hour, devices...)
		change(&r)
		return r
	}
	for _, c := range []struct {
		want string
		r    tracker.Report
	}{
		{"job ran for 1h00m: 1.00 Wh, 1.20 Wh with the facility, 53.0 mg CO2e", with(func(*tracker.Report) {}, counter)},
		{"job ran for 1h00m: 1.00 Wh, 53.0 mg CO2e", with(func(r *tracker.Report) { r.Factors.PUE.Value = 1 }, counter)},
		{"job ran for 1h00m: 1.10 Wh, 1.32 Wh with the facility, 58.3 mg CO2e", with(func(*tracker.Report) {}, counter, model)},
		{"job ran for 1h00m: an estimated 100 mWh, 120 mWh with the facility, 5.30 mg CO2e", with(func(*tracker.Report) {}, model)},
		{"job ran for 1h00m: an estimated 1.50 Wh, 1.80 Wh with the facility, 79.5 mg CO2e", with(func(*tracker.Report) {},
			deviceWith(sensors.GPU, "GPU-0", "A", sensors.MethodCounter, 1800), deviceWith(sensors.CPU, "cpu", "B", sensors.MethodModel, 3600))},
		{"job ran for 1h00m: at least 1.00 Wh, 1.20 Wh with the facility, 53.0 mg CO2e", with(func(*tracker.Report) {}, failed)},
		{"job ran for 1h00m and ended with exit code 143: 1.00 Wh", with(func(r *tracker.Report) {
			r.Run.ExitCode, r.Emissions, r.Energy.Facility = of(143), nil, nil
		}, counter)},
		{"job ran for 1h00m: its energy is not known", with(func(*tracker.Report) {})},
		{"job ran for 1h00m: 1.00 Wh, 1.20 Wh with the facility, unknown", with(func(r *tracker.Report) {
			r.Emissions.Operational = emissions.GramsCO2e(math.NaN())
		}, counter)},
		{"job ran for 1h00m: 0 Wh, 0 Wh with the facility, 0 g CO2e", with(func(*tracker.Report) {},
			deviceWith(sensors.GPU, "GPU-0", "A", sensors.MethodCounter, 0))},
	} {
		first, _, _ := strings.Cut(strings.TrimPrefix(summaryOf(t, c.r, 0, false), "\n"), "\n")
		if first != "wattspan: "+c.want {
			t.Errorf("%q, want %q", first, "wattspan: "+c.want)
		}
	}
}

// However many GPUs there are, the summary fits a screen.
func TestSummaryIsShort(t *testing.T) {
	for name, report := range reports {
		s := summaryOf(t, report(), 80, false)
		if n := strings.Count(s, "\n"); n > 24 {
			t.Errorf("%s: %d lines\n%s", name, n, s)
		}
	}
	if s := summaryOf(t, reports["node"](), 0, true); strings.Count(s, "GPU-") != 8 {
		t.Errorf("verbose names every device:\n%s", s)
	}
}

// quantity finds the numbers of a summary that a sensor or factor gave.
var quantity = regexp.MustCompile(`([0-9]+(?:\.[0-9]+)?) (?:to|%|[nµmkMGT]?(?:Wh|W|J|g))`)

// No sensor knows four digits.
func TestSummaryDigits(t *testing.T) {
	for name, report := range reports {
		s := summaryOf(t, report(), 0, true)
		for _, m := range quantity.FindAllStringSubmatch(s, -1) {
			if digits := strings.TrimLeft(strings.Replace(m[1], ".", "", 1), "0"); len(digits) > 3 {
				t.Errorf("%s: %q has %d digits", name, m[0], len(digits))
			}
		}
	}
}

// A partial total says what it is without, in every row that it enters.
func TestSummaryPartial(t *testing.T) {
	gap := deviceWith(sensors.CPU, "package-0", "Xeon", sensors.MethodCounter, 100)
	gap.Coverage, gap.Status, gap.Reason = 0.5, tracker.StatusGaps, "1s of the run could not be observed"
	failing := gap
	failing.Status, failing.Reason = tracker.StatusFailed, "lost"
	gpu := deviceWith(sensors.GPU, "GPU-0", "A", sensors.MethodCounter, 100)
	other := gpu
	other.ID = "GPU-1"
	none := unseen(deviceWith(sensors.Memory, "dram", "", sensors.MethodCounter, 0), "denied")
	for _, c := range []struct {
		want    string
		devices []tracker.Device
	}{
		{"PARTIAL: without some of the cpu's time;", []tracker.Device{gpu, gap}},
		{"PARTIAL: without some of the cpu's time;", []tracker.Device{gpu, failing}},
		{"PARTIAL: without the memory;", []tracker.Device{gpu, none}},
		{"PARTIAL: without part of the gpu;", []tracker.Device{gpu, unseen(other, "denied")}},
		{"PARTIAL: without part of the gpu, some of the cpu's time and the memory;", []tracker.Device{gpu, unseen(other, "denied"), gap, none}},
	} {
		s := summaryOf(t, scripted("job", time.Minute, c.devices...), 0, false)
		if !strings.Contains(s, c.want) || strings.Count(s, "PARTIAL") != 4 {
			t.Errorf("no %q with devices, facility, emissions and quality in\n%s", c.want, s)
		}
	}
	unexplained := scripted("job", time.Minute, gpu)
	unexplained.Partial = true
	if s := summaryOf(t, unexplained, 0, false); !strings.Contains(s, "   PARTIAL; ") || strings.Contains(s, "without") {
		t.Errorf("partial for no reason given:\n%s", s)
	}
	if s := summaryOf(t, scripted("job", time.Minute, gpu), 0, false); strings.Contains(s, "PARTIAL") {
		t.Errorf("a whole total:\n%s", s)
	}
}

func TestSummaryQuality(t *testing.T) {
	counter := deviceWith(sensors.GPU, "GPU-0", "", sensors.MethodCounter, 980)
	model := deviceWith(sensors.Memory, "memory", "", sensors.MethodModel, 20)
	small := deviceWith(sensors.Memory, "memory", "", sensors.MethodConstant, 0.001)
	zero := deviceWith(sensors.CPU, "cpu", "", sensors.MethodPower, 0)
	nothing := deviceWith(sensors.GPU, "gpu", "", sensors.MethodModel, 0)
	half := counter
	half.Coverage = 0.5
	notCharged := model
	notCharged.Attributed = nil
	for _, c := range []struct {
		want    string
		devices []tracker.Device
	}{
		{"all of it measured; covers 100 % of the run", []tracker.Device{counter}},
		{"98 % measured, the rest by models; covers 100 % of the run", []tracker.Device{counter, model}},
		{"over 99.9 % measured, the rest by models; covers 100 % of the run", []tracker.Device{counter, small}},
		{"nothing measured, all by models; covers 100 % of the run", []tracker.Device{model}},
		{"under 0.1 % measured, the rest by models; covers 100 % of the run", []tracker.Device{
			deviceWith(sensors.CPU, "cpu", "", sensors.MethodPower, 0.001), deviceWith(sensors.GPU, "gpu", "", sensors.MethodModel, 1e6)}},
		{"50 % measured, the rest by models; covers 100 % of the run", []tracker.Device{zero, nothing}},
		{"all of it measured; covers 100 % of the run", []tracker.Device{zero}},
		{"all of it measured; covers 50 % of the run; PARTIAL", []tracker.Device{half}},
		{"all of it measured; covers 100 % of the run", []tracker.Device{counter, notCharged}},
		{"no figure", nil},
	} {
		s := summaryOf(t, scripted("job", time.Minute, c.devices...), 0, false)
		if !strings.Contains(s, "\n  quality: "+c.want+"\n") {
			t.Errorf("no %q in\n%s", c.want, s)
		}
	}
}

// The job's line reads well for any inOrder, and does not claim a share that
// is not known.
func TestSummaryJob(t *testing.T) {
	share := func(c sensors.Component, method string) tracker.JobShare {
		return tracker.JobShare{Component: c, Energy: 1, Method: method}
	}
	gpu, cpu, memory := share(sensors.GPU, "visible_devices"), share(sensors.CPU, "cpu_time_share"), share(sensors.Memory, "resident_memory_share")
	for _, c := range []struct {
		want   string
		shares []tracker.JobShare
		used   *float64
	}{
		{"of the gpu, cpu and memory energy, by visible GPUs, CPU time (2 s) and resident memory", []tracker.JobShare{gpu, cpu, memory}, of(2.0)},
		{"of the cpu and memory energy, by CPU time (2 s) and resident memory", []tracker.JobShare{cpu, memory}, of(2.0)},
		{"of the cpu energy, by CPU time (1m01s)", []tracker.JobShare{cpu}, of(61.0)},
		{"of the gpu energy, by GPUs in use", []tracker.JobShare{share(sensors.GPU, "used_devices")}, nil},
		{"of the gpu energy, by visible GPUs", []tracker.JobShare{gpu}, nil},
		{"of the gpu and memory energy, by some new way", []tracker.JobShare{share(sensors.GPU, "some_new_way"), share(sensors.Memory, "some_new_way")}, nil},
		{"its share is not known; 2 s of CPU time", nil, of(2.0)},
	} {
		r := scripted("job", time.Minute, deviceWith(sensors.CPU, "cpu", "", sensors.MethodCounter, 5))
		r.Job.CPUSeconds = c.used
		value := "–"
		if len(c.shares) > 0 {
			r.Job.Energy, r.Job.Shares = of(sensors.Joules(3.6)), c.shares
			for _, s := range c.shares {
				r.Job.Components = append(r.Job.Components, s.Component)
			}
			value = "1.00 mWh"
		}
		if s := summaryOf(t, r, 0, false); !regexp.MustCompile(`(?m)^  job +` + value + `   ` + regexp.QuoteMeta(c.want) + `$`).MatchString(s) {
			t.Errorf("no %q in\n%s", c.want, s)
		}
	}
	if s := summaryOf(t, scripted("job", time.Minute), 0, false); strings.Contains(s, "  job ") {
		t.Errorf("a job of which nothing is known:\n%s", s)
	}
}

// Every kind of factor is named, and what is not verified says so.
func TestSummaryFactors(t *testing.T) {
	base := emissions.Factor{Value: 1.156, Unit: emissions.UnitPUE, Zone: "aws", Year: 2024, Publisher: "Amazon"}
	with := func(change func(*emissions.Factor)) emissions.Factor {
		f := base
		change(&f)
		return f
	}
	for _, c := range []struct {
		want string
		f    emissions.Factor
	}{
		{"PUE 1.16, fleet average of aws in 2024 (Amazon)", with(func(f *emissions.Factor) { f.Kind = emissions.FleetPUE })},
		{"PUE 1.16, fleet average of aws in 2024 (Amazon), not verified", with(func(f *emissions.Factor) { f.Kind, f.Verified = emissions.FleetPUE, "recall" })},
		{"PUE 1.16, published for aws in 2024 (Amazon)", with(func(f *emissions.Factor) { f.Kind = emissions.PublishedPUE })},
		{"PUE 1, laptop, with no facility around it", emissions.Factor{Value: 1, Unit: emissions.UnitPUE, Zone: "laptop", Kind: emissions.NoPUE}},
		{"PUE 1.2, as you stated", emissions.Factor{Value: 1.2, Unit: emissions.UnitPUE, Kind: emissions.Declared}},
		{"57.0 g/kWh, as you stated", emissions.Factor{Value: 57, Unit: emissions.UnitIntensity, Kind: emissions.Declared}},
		{"473 g/kWh, life-cycle average of the world in 2024 (Ember)", emissions.Factor{Value: 472.9, Unit: emissions.UnitIntensity,
			Kind: emissions.LifecycleAverage, Zone: "world", Year: 2024, Publisher: "Ember"}},
		{"350 g/kWh, direct average of US-CA, not life-cycle in 2023 (US EPA)", emissions.Factor{Value: 350, Unit: emissions.UnitIntensity,
			Kind: emissions.DirectAverage, Zone: "US-CA", Year: 2023, Publisher: "US EPA"}},
		{"0 g/kWh, other kind of X", emissions.Factor{Unit: emissions.UnitIntensity, Kind: "other_kind", Zone: "X"}},
	} {
		if got := brief(c.f); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// A report of the job's share says so, and describes only what it contains.
func TestSummaryJobScope(t *testing.T) {
	charged := deviceWith(sensors.GPU, "GPU-0", "A", sensors.MethodCounter, 3600)
	charged.Attributed = of(sensors.Joules(1800))
	other := deviceWith(sensors.GPU, "GPU-1", "B", sensors.MethodPower, 3600)
	other.Attributed = nil
	r := scripted("job", time.Minute, charged, other)
	r.Scope = tracker.Job
	s := summaryOf(t, r, 0, true)
	for _, want := range []string{
		"  gpu             500 mWh   energy counter, A\n", "   the job's share; 450 to 550 mWh; 30.0 W on average\n",
		"500 mWh the job's; covers", "the job's share is not known; covers",
	} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	if s := summaryOf(t, reports["node"](), 0, true); strings.Contains(s, "the job's") {
		t.Errorf("of the machine:\n%s", s)
	}
}

// What else there is to say is said, and only then.
func TestSummaryRemarks(t *testing.T) {
	gpu := deviceWith(sensors.GPU, "GPU-0", "A", sensors.MethodCounter, 3600)
	restarted := gpu
	restarted.Resets, restarted.Rejected, restarted.Estimated = 1, 2, 3.5
	restarted.Reason = "its counter restarted 1 times"
	module := gpu
	module.Scope, module.Includes = sensors.ScopeModule, []sensors.Component{sensors.CPU, sensors.Memory}
	denied := unseen(deviceWith(sensors.CPU, "cpu", "", sensors.MethodModel, 0), "denied")
	for _, c := range []struct {
		name   string
		report tracker.Report
		want   []string
	}{
		{"within", func() tracker.Report {
			r := scripted("job", time.Minute, gpu)
			r.Run.Within = "k0"
			return r
		}(), []string{"note: run k0 measures this machine already"}},
		{"events", scripted("job", time.Minute, restarted), []string{
			"counter restarts: 1", "impossible readings set aside: 2", "3.5 s bridged", "device GPU-0: its counter restarted"}},
		{"module", func() tracker.Report {
			r := scripted("job", time.Minute, module)
			r.Missing = nil
			return r
		}(), []string{"–   inside the gpu's figure", "scope module"}},
		{"denied", scripted("job", time.Minute, gpu, denied), []string{"–   unreadable: denied\n"}},
	} {
		s := summaryOf(t, c.report, 0, true)
		plain := summaryOf(t, scripted("job", time.Minute, gpu), 0, true)
		for _, want := range c.want {
			if !strings.Contains(s, want) || strings.Contains(plain, want) {
				t.Errorf("%s: %q is not in\n%s\nor is in\n%s", c.name, want, s, plain)
			}
		}
	}
}

func TestSummaryPlace(t *testing.T) {
	at := func(l emissions.Location) string {
		r := scripted("job", time.Minute, deviceWith(sensors.CPU, "cpu", "", sensors.MethodCounter, 5))
		r.Location = l
		return summaryOf(t, r, 0, false)
	}
	for _, c := range []struct {
		want string
		l    emissions.Location
	}{
		{"FR   as you stated\n", emissions.Location{Country: "FR", Source: emissions.FromOption}},
		{"US-CA   from WATTSPAN_SUBDIVISION\n", emissions.Location{Country: "US", Subdivision: "US-CA", Source: emissions.FromEnvironment, Detail: "WATTSPAN_SUBDIVISION"}},
		{"aws/eu-west-3   from OTEL_RESOURCE_ATTRIBUTES", emissions.Location{Provider: "aws", Region: "eu-west-3", Source: emissions.FromAttributes, Detail: "OTEL_RESOURCE_ATTRIBUTES: x"}},
		{"world   the place is not known; why\n", emissions.Location{Source: emissions.FromNothing, Detail: "why", Guess: true}},
		{"FR   a guess from the time zone\n", emissions.Location{Country: "FR", Source: emissions.FromTimeZone, Guess: true}},
	} {
		s := at(c.l)
		if !strings.Contains(s, c.want) {
			t.Errorf("no %q in\n%s", c.want, s)
		}
		if asked := strings.Contains(s, "--country"); asked != c.l.Guess {
			t.Errorf("asked for the place: %v in\n%s", asked, s)
		}
	}
	r := scripted("job", time.Minute, deviceWith(sensors.CPU, "cpu", "", sensors.MethodCounter, 5))
	r.Factors.Intensity = emissions.Factor{Value: 57, Unit: emissions.UnitIntensity, Kind: emissions.Declared}
	r.Location = emissions.Location{Source: emissions.FromNothing, Guess: true}
	if s := summaryOf(t, r, 0, false); strings.Contains(s, "place") || strings.Contains(s, "--country") {
		t.Errorf("a place that nothing depends on:\n%s", s)
	}
}

// The first remedies are those for what a partial total lacks.
func TestSummaryRemedies(t *testing.T) {
	r := scripted("job", time.Minute, deviceWith(sensors.CPU, "cpu", "", sensors.MethodModel, 5))
	r.Location.Guess = true
	r.Missing = []tracker.Missing{
		{Component: sensors.GPU, Status: sensors.Absent, Reason: "none", Remedy: "buy one"},
		{Component: sensors.Memory, Device: "a", Status: sensors.Unreadable, Reason: "denied", Remedy: "chmod"},
		{Component: sensors.Memory, Device: "b", Status: sensors.Unreadable, Reason: "denied", Remedy: "chmod"},
	}
	r.LeftOut = []tracker.LeftOut{
		{Source: "rapl", Missing: tracker.Missing{Component: sensors.CPU, Status: sensors.Unreadable, Remedy: "modprobe"}},
		{Source: "host", Missing: tracker.Missing{Component: sensors.CPU, Status: sensors.Superseded, Remedy: "never shown"}},
	}
	remedies := regexp.MustCompile(`to improve .*: (?:chmod|say|buy one|modprobe|never)|and \d more`)
	want := []string{"to improve memory: chmod", "to improve the emissions: say", "to improve gpu: buy one"}
	if got := remedies.FindAllString(summaryOf(t, r, 0, false), -1); strings.Join(got, "\n") != strings.Join(append(want, "and 1 more"), "\n") {
		t.Errorf("%q", got)
	}
	if got := remedies.FindAllString(summaryOf(t, r, 0, true), -1); strings.Join(got, "\n") != strings.Join(append(want, "to improve cpu: modprobe"), "\n") {
		t.Errorf("verbose: %q", got)
	}
}

// An error that nobody knows is not printed as a number, nor no error as one.
func TestSummaryBounds(t *testing.T) {
	for _, c := range []struct {
		low, high sensors.Joules
		want      string
	}{
		{3600, 7200, "1.00 to 2.00 Wh"},
		{3.6, 7200, "1.00 mWh to 2.00 Wh"},
		{0, sensors.Joules(math.Inf(1)), "error not known"},
		{sensors.Joules(math.NaN()), sensors.Joules(math.NaN()), "error not known"},
		{3600, 3601, ""},
		{0, 0, ""},
	} {
		if got := between(c.low, c.high); got != c.want {
			t.Errorf("%v to %v: %q, want %q", float64(c.low), float64(c.high), got, c.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0 ms"},
		{0, "0 ms"},
		{1234567, "1.23 ms"},
		{202 * time.Millisecond, "202 ms"},
		{999499 * time.Microsecond, "999 ms"},
		{999500 * time.Microsecond, "1 s"},
		{12345 * time.Millisecond, "12.3 s"},
		{59949 * time.Millisecond, "59.9 s"},
		{59950 * time.Millisecond, "1m00s"},
		{61 * time.Second, "1m01s"},
		{time.Hour - time.Second, "59m59s"},
		{time.Hour - time.Millisecond, "1h00m"},
		{62*time.Minute + 10*time.Second, "1h02m"},
		{24*time.Hour - time.Second, "1d00h"},
		{21*24*time.Hour + 4*time.Hour, "21d04h"},
	} {
		if got := span(c.d); got != c.want {
			t.Errorf("%v: %q, want %q", c.d, got, c.want)
		}
	}
}

// A device's name cannot drive the terminal.
func TestSummaryEscapes(t *testing.T) {
	r := scripted("\x1b]0;title\x07", time.Minute, deviceWith(sensors.GPU, "GPU\x1b[2J", "A\rB", sensors.MethodCounter, 5))
	r.Notes = []string{"a\u009bb"}
	for _, verbose := range []bool{false, true} {
		s := summaryOf(t, r, 0, verbose)
		if strings.ContainsAny(s, "\x1b\x07\r\u009b") || !strings.Contains(s, `\x1b]0;title\a`) || !strings.Contains(s, `A\rB`) {
			t.Errorf("%q", s)
		}
	}
}
