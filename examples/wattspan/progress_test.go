package main

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattspan/wattspan/sensors"
	"github.com/wattspan/wattspan/tracker"
)

// course is a run that draws a power, by the clock of the test.
type course struct {
	begin    time.Time
	interval time.Duration
	power    func(t time.Duration) sensors.Joules // energy at t
	change   func(*tracker.Report)
}

func (c course) Snapshot() tracker.Report {
	at := time.Since(c.begin).Truncate(c.interval)
	r := scripted("job", at, deviceWith(sensors.GPU, "GPU-0", "", sensors.MethodCounter, c.power(at)))
	if c.change != nil {
		c.change(&r)
	}
	return r
}

// rising draws 100 W for a minute and 1 kW from then on.
func rising(t time.Duration) sensors.Joules {
	return sensors.Joules(100*min(t, time.Minute).Seconds() + 1000*max(t-time.Minute, 0).Seconds())
}

// transcript is what was written, and how often.
type transcript struct {
	mu    sync.Mutex
	lines []string
	err   error
	stuck chan struct{} // a write waits for it, if it is not nil
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	s.lines = append(s.lines, string(b))
	s.mu.Unlock()
	if s.stuck != nil {
		<-s.stuck
	}
	return len(b), s.err
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "")
}

func (s *transcript) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

// Power is the mean since the last line, energy and emissions are the run's, and
// a line is one write.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out transcript
		stop := startProgress(&out, 30*time.Second, course{begin: time.Now(), interval: time.Second, power: rising}, nil)
		time.Sleep(2 * time.Minute)
		time.Sleep(10 * time.Second)
		stop()
		time.Sleep(time.Hour) // silence
		want := "wattspan: 30 s  100 W  833 mWh  44.2 mg CO2e\n" +
			"wattspan: 1m00s  100 W  1.67 Wh  88.4 mg CO2e\n" +
			"wattspan: 1m30s  1.00 kW  10.0 Wh  530 mg CO2e\n" +
			"wattspan: 2m00s  1.00 kW  18.3 Wh  972 mg CO2e\n"
		if out.String() != want || out.writes() != 4 {
			t.Errorf("%d writes:\n%s\nwant\n%s", out.writes(), &out, want)
		}
		stop()
	})
}

func TestProgressOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, every := range []time.Duration{0, -time.Second} {
			var out transcript
			stop := startProgress(&out, every, course{begin: time.Now(), interval: time.Second, power: rising}, nil)
			time.Sleep(time.Hour)
			stop()
			if out.writes() != 0 {
				t.Errorf("every %v: %s", every, &out)
			}
		}
	})
}

// A run that is sampled less often than asked for has no news in between, and a
// run that is in the background of its terminal keeps silent; the power of the
// next line is the mean of the whole time.
func TestProgressSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out transcript
		stop := startProgress(&out, 10*time.Second, course{begin: time.Now(), interval: time.Minute, power: rising}, nil)
		time.Sleep(2*time.Minute + time.Second)
		stop()
		if want := "wattspan: 1m00s  100 W  1.67 Wh  88.4 mg CO2e\nwattspan: 2m00s  1.00 kW  18.3 Wh  972 mg CO2e\n"; out.String() != want {
			t.Errorf("%s\nwant\n%s", &out, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var out transcript
		begin := time.Now()
		foreground := func() bool { return time.Since(begin) < 31*time.Second || time.Since(begin) > 100*time.Second }
		stop := startProgress(&out, 30*time.Second, course{begin: begin, interval: time.Second, power: rising}, foreground)
		time.Sleep(2*time.Minute + time.Second)
		stop()
		// (100 W × 30 s + 1 kW × 60 s) / 90 s
		if want := "wattspan: 30 s  100 W  833 mWh  44.2 mg CO2e\nwattspan: 2m00s  700 W  18.3 Wh  972 mg CO2e\n"; out.String() != want {
			t.Errorf("%s\nwant\n%s", &out, want)
		}
	})
}

// Neither a stream that takes nothing nor one that fails holds up the end.
func TestProgressStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := transcript{stuck: make(chan struct{})}
		begin := time.Now()
		stop := startProgress(&out, time.Second, course{begin: begin, interval: time.Second, power: rising}, nil)
		time.Sleep(time.Minute)
		stop()
		if waited := time.Since(begin) - time.Minute; waited != progressGrace {
			t.Errorf("stop took %v", waited)
		}
		close(out.stuck)
		time.Sleep(time.Minute)
		if out.writes() != 1 {
			t.Errorf("%d writes: the lines that were due meanwhile are old, and after stop there is none", out.writes())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// A line that is being written is waited for.
		out := transcript{stuck: make(chan struct{})}
		begin := time.Now()
		stop := startProgress(&out, time.Second, course{begin: begin, interval: time.Second, power: rising}, nil)
		time.AfterFunc(time.Second+progressGrace/2, func() { close(out.stuck) })
		time.Sleep(time.Second + time.Millisecond)
		stop()
		if waited := time.Since(begin) - time.Second; waited != progressGrace/2 {
			t.Errorf("stop took %v", waited)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		out := transcript{err: errors.New("broken pipe")}
		begin := time.Now()
		stop := startProgress(&out, time.Second, course{begin: begin, interval: time.Second, power: rising}, nil)
		time.Sleep(time.Minute)
		stop()
		if out.writes() != 1 || time.Since(begin) != time.Minute {
			t.Errorf("%d writes, %v", out.writes(), time.Since(begin))
		}
	})
}

// A line never claims more than the report does.
func TestProgressLine(t *testing.T) {
	gpu := deviceWith(sensors.GPU, "GPU-0", "", sensors.MethodCounter, 3600)
	model := deviceWith(sensors.CPU, "cpu", "", sensors.MethodModel, 3600)
	less := deviceWith(sensors.CPU, "cpu", "", sensors.MethodModel, 360)
	for _, c := range []struct {
		want    string
		devices []tracker.Device
	}{
		{"wattspan: 1m00s  60.0 W  1.00 Wh  53.0 mg CO2e\n", []tracker.Device{gpu}},
		{"wattspan: 1m00s  66.0 W  1.10 Wh  58.3 mg CO2e\n", []tracker.Device{gpu, less}},
		{"wattspan: 1m00s  60.0 W  1.00 Wh  53.0 mg CO2e  (estimated)\n", []tracker.Device{model}},
		{"wattspan: 1m00s  60.0 W  1.00 Wh  53.0 mg CO2e  (partial)\n", []tracker.Device{gpu, unseen(model, "denied")}},
		{"wattspan: 1m00s  60.0 W  1.00 Wh  53.0 mg CO2e  (partial, estimated)\n", []tracker.Device{model, unseen(gpu, "lost")}},
		{"wattspan: 1m00s  energy not known\n", nil},
	} {
		if got := progressLine(tracker.Report{}, scripted("job", time.Minute, c.devices...)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	r := scripted("job", time.Minute, gpu)
	r.Emissions = nil
	if got := progressLine(tracker.Report{}, r); got != "wattspan: 1m00s  60.0 W  1.00 Wh\n" {
		t.Errorf("without emissions: %q", got)
	}
}
