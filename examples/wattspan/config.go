package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/wattspan/wattspan/emissions"
	"github.com/wattspan/wattspan/tracker"
)

// settings are the options of the runner, whatever they came from.
type settings struct {
	Name        string
	Country     string
	Subdivision string
	Region      string
	Intensity   string // grams per kWh; empty: a table's
	PUE         string // empty: a table's
	Interval    time.Duration
	Scope       string
	JSON        string        // file to write the report to
	Quiet       bool          // no summary
	Verbose     bool          // a summary with every device, factor and source
	Progress    time.Duration // how often to show the figures so far; 0: never
	Color       string        // auto, always or never
}

func addFlags(flags *pflag.FlagSet) {
	flags.String("country", "", "where the machine is: ISO code or name (FR, Germany)")
	flags.String("subdivision", "", "state or province, where figures differ (US-CA, CA-QC)")
	flags.String("region", "", "cloud region as provider/region (aws/eu-west-3)")
	flags.String("intensity", "", "grid intensity in g CO2e per kWh, instead of a table's")
	flags.String("pue", "", "power usage effectiveness of the facility, instead of a table's")
	flags.Duration("interval", tracker.DefaultInterval, "sampling interval")
	flags.String("json", "", "write the report to this `file` as JSON (- for standard output)")
	flags.String("name", "", "name of the run (default: the command's)")
}

func loadSettings(flags *pflag.FlagSet) (settings, error) {
	text := func(name string) string { v, _ := flags.GetString(name); return v }
	interval, err := flags.GetDuration("interval")
	return settings{
		Name: text("name"), Country: text("country"), Subdivision: text("subdivision"), Region: text("region"),
		Intensity: text("intensity"), PUE: text("pue"), Interval: interval, JSON: text("json"),
	}, err
}

// options turns the settings into options of the tracker. What means nothing is
// refused here, before the command starts.
func (s settings) options(command string) ([]tracker.Option, error) {
	name := s.Name
	if name == "" {
		name = filepath.Base(command)
	}
	opts := []tracker.Option{
		tracker.WithName(name),
		tracker.WithInterval(s.Interval),
		tracker.WithLocation(emissions.Location{Country: s.Country, Subdivision: s.Subdivision, Region: s.Region}),
	}
	for _, n := range []struct {
		flag, value string
		option      func(float64) tracker.Option
	}{{"intensity", s.Intensity, tracker.WithIntensity}, {"pue", s.PUE, tracker.WithPUE}} {
		if n.value == "" {
			continue
		}
		v, err := strconv.ParseFloat(n.value, 64)
		if err != nil {
			return nil, fmt.Errorf("--%s %q is not a number", n.flag, n.value)
		}
		opts = append(opts, n.option(v))
	}
	if s.JSON != "" && s.JSON != "-" {
		dir := filepath.Dir(s.JSON)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("--json %s: there is no directory %s", s.JSON, dir)
		}
		if info, err := os.Stat(s.JSON); err == nil && info.IsDir() {
			return nil, fmt.Errorf("--json %s is a directory; name a file in it", s.JSON)
		}
	}
	return opts, nil
}
