package node

import (
	"fmt"
	"math"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// Profile is a model of a node, from what its sensors see to what it draws at
// the plug. The zero value models nothing: its figures are NaN.
type Profile struct {
	Name string `json:"name"`
	// Base is what draws power all the time and has no sensor.
	Base sensors.Watts `json:"base_w"`
	// Efficiency is the part of the power at the plug that is not lost on the
	// way, nor used by what grows with the load, such as fans: 0 to 1.
	Efficiency float64 `json:"efficiency"`
	// BaseBand and EfficiencyBand are relative, one standard deviation.
	BaseBand       float64 `json:"base_band"`
	EfficiencyBand float64 `json:"efficiency_band"`
	// Sensed says which components the sensors saw when the profile was made:
	// for others it is not valid.
	Sensed string `json:"sensed"`
	// Source says where the parameters are from, Note what there is to know
	// about them, one or more sentences each.
	Source string `json:"source"`
	Note   string `json:"note,omitempty"`
}

// The range of what can be an efficiency. Below a half no power supply in use
// works.
const (
	minEfficiency = 0.5
	maxEfficiency = 1
)

// Power returns the power of the node at the plug, where its sensors see so much.
// Of a power that is not known it is NaN.
func (p Profile) Power(sensed sensors.Watts) sensors.Watts {
	if !p.models() {
		return sensors.Watts(math.NaN())
	}
	return (sensed + p.Base) / sensors.Watts(p.Efficiency)
}

// Energy returns the energy of the node in a time in which its sensors saw so
// much: (sensed + Base × d) / Efficiency. It is additive: the energies of two
// windows are together that of both.
func (p Profile) Energy(sensed sensors.Joules, d time.Duration) sensors.Joules {
	if !p.models() {
		return sensors.Joules(math.NaN())
	}
	return (sensed + p.base(d)) / sensors.Joules(p.Efficiency)
}

// Rel returns the relative error of [Profile.Energy], one standard deviation,
// where that of the sensed energy is relSensed:
//
//	σ² = ((E_sensed·r_sensed)² + (Base·d·r_base)²) / η² + (E_node·r_η)²
//
// The three are taken as independent. A fitted profile contains what the sensors
// were off by in the mean when it was fitted, so that of such a one the result is
// rather too wide.
func (p Profile) Rel(sensed sensors.Joules, relSensed float64, d time.Duration) float64 {
	node := float64(p.Energy(sensed, d))
	if node == 0 {
		return 0
	}
	return math.Sqrt(square(float64(sensed)*relSensed/p.Efficiency)+
		square(float64(p.base(d))*p.BaseBand/p.Efficiency)+
		square(node*p.EfficiencyBand)) / math.Abs(node)
}

func (p Profile) base(d time.Duration) sensors.Joules {
	return sensors.Joules(float64(p.Base) * d.Seconds())
}

func (p Profile) models() bool { return p.Efficiency > 0 }

// Validate says what is wrong with the parameters of a profile.
func (p Profile) Validate() error {
	switch {
	case !(p.Efficiency >= minEfficiency && p.Efficiency <= maxEfficiency):
		return fmt.Errorf("efficiency %v is outside %v to %v", p.Efficiency, minEfficiency, maxEfficiency)
	case !(p.Base >= 0 && float64(p.Base) <= maxWatts):
		return fmt.Errorf("base %v W is outside 0 to %v W", float64(p.Base), float64(maxWatts))
	case !(p.BaseBand >= 0 && p.BaseBand <= maxBand) || !(p.EfficiencyBand >= 0 && p.EfficiencyBand <= maxBand):
		return fmt.Errorf("bands %v and %v are not both within 0 to %v", p.BaseBand, p.EfficiencyBand, float64(maxBand))
	}
	return nil
}

// maxBand is the most that is said of an error: beyond, nothing is known.
const maxBand = 10

func square(x float64) float64 { return x * x }
