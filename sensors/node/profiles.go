package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/sensors/host"
)

// ErrUnknownProfile is returned for a name that no profile has.
var ErrUnknownProfile = errors.New("unknown node profile")

// The names of the profiles.
const (
	Laptop    = "laptop"
	Desktop   = "desktop"
	Server    = "server"
	GPUServer = "gpu-server"
	// Calibrated is the name of a profile that was fitted to a meter.
	Calibrated = "calibrated"
)

// The GPU server is derived for 8 GPUs. With fewer than fewestGPUs the GPUs are
// guests in an ordinary server.
const (
	derivedGPUs = 8
	fewestGPUs  = 4
)

// profiles are the defaults. docs/NODE.md repeats their derivations.
var profiles = [...]Profile{
	{
		Name: Laptop, Base: 6, Efficiency: 0.87, BaseBand: 0.5, EfficiencyBand: 0.05,
		Sensed: "cpu and memory, and the gpu where there is one of its own",
		Source: "sum of parts, judgement: screen 4 W, disk, radio and board 2 W; an external power supply of 0.87",
		Note:   "The parameters and both bands are judgement: there is no published fit. On battery there is no loss of the power supply, and a charging battery is not in the model.",
	},
	{
		Name: Desktop, Base: 45, Efficiency: 0.90, BaseBand: 0.4, EfficiencyBand: 0.04,
		Sensed: "gpu by its driver, cpu by its energy counter, memory by a model of its size",
		Source: "fit on 285 wall-metered runs of one machine (RTX 4090, i9-13900K; 63 to 539 W at the plug; data of arXiv 2509.22092): median error 4 %, 95th percentile 12 %, where the plain sum is 27 % below the plug in the median",
		Note:   "The bands are judgement, for the spread between desktops: one machine tells nothing of it.",
	},
	{
		Name: Server, Base: 60, Efficiency: 0.85, BaseBand: 0.5, EfficiencyBand: 0.06,
		Sensed: "cpu and memory of one or two sockets, and fewer than 4 gpus",
		Source: "sum of parts, judgement: board 20 W, network card 15 W, 4 drives of 6 W; power supplies of 0.93, less 0.08 of the power at the plug for fans, which grow with the load",
		Note:   "The parameters and both bands are judgement: there is no published fit. Many disks or network cards are not in it.",
	},
	{
		Name: GPUServer, Base: 800, Efficiency: 0.84, BaseBand: 0.35, EfficiencyBand: 0.06,
		Sensed: "8 gpus by their drivers, 2 cpus and memory",
		Source: "8×H100 node at its measured peak of 8.4 kW (Latif et al., IEEE Access 2025): gpus 8 × 700 W = 5.6 kW, with cpus and memory 72 to 77 % of 8.4 kW, 6.26 kW in the middle; power supplies of 0.94 less 0.10 for fans leave η = 0.84, and Base = 8.4 kW × 0.84 − 6.26 kW = 0.8 kW (switches, network cards, drives, board)",
		Note:   "One equation for two parameters: η is judgement, and so are both bands; at the peak the two agree by construction. GPUs of much less than 700 W have a smaller base.",
	},
}

// Profiles returns the profiles there are, without a calibrated one.
func Profiles() []Profile { return append([]Profile(nil), profiles[:]...) }

// Named returns a profile of [Profiles]. The error wraps [ErrUnknownProfile] and
// lists the names.
func Named(name string) (Profile, error) {
	var names []string
	for _, p := range profiles {
		if strings.EqualFold(p.Name, name) {
			return p, nil
		}
		names = append(names, p.Name)
	}
	hint := ""
	if near := nearest(strings.ToLower(name), names); near != "" {
		hint = "; did you mean " + near + "?"
	}
	return Profile{}, fmt.Errorf("%w %.40q: there are %s%s", ErrUnknownProfile, name, strings.Join(names, ", "), hint)
}

// For returns the profile for a machine with so many GPUs that are sensed, and
// the reason for the choice. There is none in a virtual machine, and none where
// the machine does not tell what it is: the reason then says so, and what to do.
//
// A container is no obstacle: it is on the node itself.
func For(m host.Machine, gpus int) (p Profile, reason string, ok bool) {
	switch {
	case m.Virtual() || m.Kind == host.VirtualMachine:
		return Profile{}, "a virtual machine has a share of a node that it does not see", false
	case m.Kind == host.Laptop:
		return profiles[0], "the machine is a laptop", true
	case m.Kind == host.Desktop:
		reason = "the machine is a desktop"
		if gpus > 1 {
			reason += fmt.Sprintf(" with %d GPUs, where the profile was fitted with one", gpus)
		}
		return profiles[1], reason, true
	case m.Kind == host.Server && gpus < fewestGPUs:
		return profiles[2], "the machine is a server with fewer than 4 GPUs", true
	case m.Kind == host.Server:
		reason = fmt.Sprintf("the machine is a server with %d GPUs", gpus)
		p = profiles[3]
		if gpus != derivedGPUs {
			// Switches, network cards and drives come with the GPUs. This is
			// a guess, and is said to be one.
			p.Base *= sensors.Watts(gpus) / derivedGPUs
			p.BaseBand = scaledBand
			p.Note = fmt.Sprintf("The base is that of %d GPUs × %d/%d, which is a guess. ", derivedGPUs, gpus, derivedGPUs) + p.Note
			reason += fmt.Sprintf("; the base of the profile, for %d, is scaled to them", derivedGPUs)
		}
		return p, reason, true
	}
	return Profile{}, "the machine does not tell whether it is a laptop, a desktop or a server: name its profile, or calibrate with a meter", false
}

// scaledBand is the band of a base that was scaled by the number of GPUs.
const scaledBand = 0.5

// nearest returns the name that a mistyped one was meant to be, empty if none is
// near. It allows two mistakes, or an unfinished name.
func nearest(given string, names []string) string {
	best, least := "", 3
	for _, name := range names {
		d := distance(given, name)
		if len(given) >= 3 && strings.HasPrefix(name, given) {
			d = 1
		}
		if d < least && d < len(given) {
			best, least = name, d
		}
	}
	return best
}

// distance is the number of letters added, left out or replaced.
func distance(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
