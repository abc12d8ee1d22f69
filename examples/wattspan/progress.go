package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// progressGrace is how long the end of a run waits for a line that is being
// written. A pipe that nobody reads, or a terminal that was told to hold, does
// not hold up the job's end.
const progressGrace = 200 * time.Millisecond

// startProgress writes a line on the run so far, every period, until stop is
// called. After stop no line is begun; stop waits for one that is being written,
// but not long. It can be called more than once.
//
// The stream is the command's as well: lines are plain and whole, and none is
// written while foreground, if it is not nil, says that the terminal belongs to
// somebody else. Nor is there one without a new sample: it would say nothing new.
func startProgress(w io.Writer, every time.Duration, t interface{ Snapshot() tracker.Report }, foreground func() bool) (stop func()) {
	if every <= 0 {
		return func() {}
	}
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		var last tracker.Report
		for {
			select {
			case <-ticker.C:
			case <-stopped:
				return
			}
			now := t.Snapshot()
			if now.Run.Duration <= last.Run.Duration || foreground != nil && !foreground() {
				continue
			}
			select {
			case <-stopped: // at the same moment as the tick
				return
			default:
			}
			if _, err := io.WriteString(w, progressLine(last, now)); err != nil {
				return // nobody reads it
			}
			last = now
		}
	}()
	return sync.OnceFunc(func() {
		close(stopped)
		grace := time.NewTimer(progressGrace)
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
		}
	})
}

// progressLine says how long the run has lasted, what it has drawn on average
// since the last line, and its energy and emissions so far. The time is that of
// the latest sample. A figure that lacks something, or most of which is no
// measurement, says so.
func progressLine(last, now tracker.Report) string {
	said := []string{"wattspan: " + span(seconds(now.Run.Duration))}
	if now.Energy.Device == nil {
		return said[0] + "  energy not known\n"
	}
	energy := *now.Energy.Device
	var before sensors.Joules
	if last.Energy.Device != nil {
		before = *last.Energy.Device
	}
	power := sensors.Watts(float64(energy-before) / (now.Run.Duration - last.Run.Duration))
	said = append(said, power.String(), energy.String())
	if now.Emissions != nil {
		said = append(said, now.Emissions.Operational.String())
	}
	var but []string
	if now.Partial {
		but = append(but, "partial")
	}
	if share, _ := measuredShare(now); share < 0.5 {
		but = append(but, "estimated")
	}
	if len(but) > 0 {
		said = append(said, fmt.Sprintf("(%s)", strings.Join(but, ", ")))
	}
	return strings.Join(said, "  ") + "\n"
}
