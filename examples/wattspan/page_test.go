package main

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// env is an environment of a test.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// shown returns what a page writes at a width; 0 is no terminal.
func shown(t *testing.T, columns int, write func(*page)) string {
	t.Helper()
	var out bytes.Buffer
	p := newPage(&out, "never", env("COLUMNS", strconv.Itoa(columns)))
	write(p)
	if out.Len() > 0 {
		t.Errorf("written before the flush: %q", &out)
	}
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPageLayout(t *testing.T) {
	write := func(p *page) {
		p.row("gpu", "1.23 kWh", "power, integrated: 312 W on average over the whole run of the command")
		p.row("", "", "and a line that goes on")
		p.row("cpu", "–", "")
		p.text(2, "to improve cpu: sudo chmod o+r /sys/class/powercap/intel-rapl:0/energy_uj")
	}
	for _, c := range []struct {
		columns int
		want    string
	}{
		{0, `
  gpu            1.23 kWh   power, integrated: 312 W on average over the whole run of the command
                            and a line that goes on
  cpu                   –
  to improve cpu: sudo chmod o+r /sys/class/powercap/intel-rapl:0/energy_uj
`},
		{78, `
  gpu            1.23 kWh   power, integrated: 312 W on average over the whole
                            run of the command
                            and a line that goes on
  cpu                   –
  to improve cpu: sudo chmod o+r /sys/class/powercap/intel-rapl:0/energy_uj
`},
		{40, `
  gpu            1.23 kWh
    power, integrated: 312 W on average
    over the whole run of the command
    and a line that goes on
  cpu                   –
  to improve cpu: sudo chmod o+r
    /sys/class/powercap/intel-rapl:0/energy_uj
`},
	} {
		if got := "\n" + shown(t, c.columns, write); got != c.want {
			t.Errorf("at %d columns:%s\nwant%s", c.columns, got, c.want)
		}
	}
}

func TestPageWidth(t *testing.T) {
	for _, c := range []struct {
		terminal bool
		size     int // of the terminal; negative: it does not tell
		stated   string
		want     int
	}{
		{false, 100, "", 0},
		{false, 100, "72", 72},
		{true, 100, "", 100},
		{true, 100, "72", 72},
		{true, 100, "300", 300},
		{true, 300, "", longest},
		{true, 3, "", least},
		{true, 100, "3", least},
		{true, 0, "", usual},
		{true, -1, "", usual},
		{true, 100, "wide", 100},
		{false, 100, "0", 0},
		{false, 100, "-5", 0},
	} {
		size := func() (int, error) {
			if c.size < 0 {
				return 100, errors.New("not a terminal")
			}
			return c.size, nil
		}
		if got := widthOf(c.terminal, size, c.stated); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	// The remark is beside its row from the first width on that is not narrow.
	beside := func(columns int) bool {
		return !strings.Contains(shown(t, columns, func(p *page) { p.row("gpu", "1 W", "remark") }), "\n    remark")
	}
	if beside(narrow-1) || !beside(narrow) {
		t.Errorf("a remark beside its row: %v at %d columns, %v at %d", beside(narrow-1), narrow-1, beside(narrow), narrow)
	}
}

func TestColumns(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "µWh": 3, "学習": 4, "ＡＢ": 4, "e\u0301": 1, "–": 1, string(markStrong) + "a" + string(markEnd): 1,
	} {
		if got := columns(s); got != want {
			t.Errorf("%q: %d columns, want %d", s, got, want)
		}
	}
}

// Columns are what the terminal shows, not bytes or characters.
func TestPageMeasuresColumns(t *testing.T) {
	got := shown(t, 0, func(p *page) {
		p.row("学習", "29.5 µg CO2e", "a")
		p.row("e\u0301t\u00e9", "1 W", "b")
		p.row("plain", "1 W", "c")
	})
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for i, mark := range []string{"a", "b", "c"} {
		before, _, _ := strings.Cut(lines[i], "   "+mark)
		if i == 0 {
			before = "  " + before // trimmed
		}
		if n := columns(before); n != remarkIndent-3 {
			t.Errorf("row %q ends at column %d, not %d", lines[i], n, remarkIndent-3)
		}
	}
	wide := shown(t, 60, func(p *page) { p.text(0, strings.Repeat("学習 ", 30)) })
	for line := range strings.Lines(wide) {
		if n := columns(strings.TrimSuffix(line, "\n")); n > 60 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if n := strings.Count(wide, "学"); n != 30 {
		t.Errorf("%d of 30 words left", n)
	}
}

// A line never ends between a number and its unit, wherever it ends.
func TestPageKeepsQuantities(t *testing.T) {
	s := "from 145 µWh to 1.27 mWh; 44.2 g/kWh, 97.2 µg CO2e (24 GB), 100 % of 3 s. It took\u00a0long, by 12 A and 5 places"
	split := map[string]bool{}
	for columns := 20; columns < 120; columns++ {
		got := shown(t, columns, func(p *page) { p.text(0, s) })
		if back := strings.Join(strings.Fields(got), " "); back != strings.ReplaceAll(s, "\u00a0", " ") {
			t.Fatalf("the text became %q", back)
		}
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		for i, line := range lines {
			if n := utf8.RuneCountInString(line); n > columns {
				t.Errorf("%d columns at %d: %q", n, columns, line)
			}
			if i > 0 {
				split[strings.Fields(line)[0]] = true
			}
		}
	}
	for _, word := range []string{"µWh", "mWh;", "g/kWh,", "µg", "CO2e", "GB),", "%", "s.", "long,"} {
		if split[word] {
			t.Errorf("a line begins with %q", word)
		}
	}
	// Nor is everything glued that follows a number.
	for _, word := range []string{"A", "places", "and"} {
		if !split[word] {
			t.Errorf("no line ever begins with %q", word)
		}
	}
}

func TestPageColors(t *testing.T) {
	for _, c := range []struct {
		color    string
		terminal bool
		env      []string
		want     bool
	}{
		{"auto", true, []string{"TERM", "xterm"}, true},
		{"", true, []string{"TERM", "xterm"}, true},
		{"auto", false, []string{"TERM", "xterm"}, false},
		{"auto", true, []string{"TERM", "dumb"}, false},
		{"auto", true, []string{"TERM", "xterm", "NO_COLOR", "1"}, false},
		{"auto", true, []string{"TERM", "xterm", "NO_COLOR", ""}, true},
		{"auto", false, []string{"CLICOLOR_FORCE", "1"}, true},
		{"auto", false, []string{"CLICOLOR_FORCE", "0"}, false},
		{"auto", false, []string{"CLICOLOR_FORCE", "1", "NO_COLOR", "1"}, false},
		{"auto", true, []string{"CLICOLOR_FORCE", "1", "TERM", "dumb"}, true},
		{"auto", true, []string{"TERM", "xterm", "CLICOLOR", "0"}, false},
		{"always", false, []string{"NO_COLOR", "1", "TERM", "dumb"}, true},
		{"never", true, []string{"CLICOLOR_FORCE", "1", "TERM", "xterm"}, false},
	} {
		if got := wantsColors(c.color, c.terminal, env(c.env...)); got != c.want {
			t.Errorf("%s, terminal %v, %v: %v", c.color, c.terminal, c.env, got)
		}
	}
}

// Styling takes no room, does not survive its line, and where it is not wanted
// leaves no trace.
func TestPageStyles(t *testing.T) {
	write := func(p *page) {
		p.heading("Energy")
		p.row(p.strong("devices"), p.strong("428 µWh"), p.warn("PARTIAL: the figure lacks the energy of the memory")+" and more")
	}
	var out bytes.Buffer
	p := newPage(&out, "always", env("COLUMNS", "64"))
	write(p)
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	want := "\x1b[1mEnergy\x1b[0m\n" +
		"  \x1b[1mdevices\x1b[0m         \x1b[1m428 µWh\x1b[0m   \x1b[33mPARTIAL: the figure lacks the energy\x1b[0m\n" +
		"\x1b[33m                            of the memory\x1b[0m and more\n"
	if out.String() != want {
		t.Errorf("styled:\n%q\nwant\n%q", out.String(), want)
	}
	plain := want
	for _, sequence := range sequences {
		plain = strings.ReplaceAll(plain, sequence, "")
	}
	if got := shown(t, 64, write); got != plain {
		t.Errorf("plain:\n%s\nwant\n%s", got, plain)
	}
}

// What comes from outside cannot drive the terminal, nor forge a line at its
// beginning.
func TestPageEscapes(t *testing.T) {
	got := shown(t, 0, func(p *page) {
		p.row("a\x1b[2J", "b\rc", "d\x07 \xff \u202e \u009b31m e\nf\tg 😀 \ufffd")
	})
	want := `  a\x1b[2J           b\rc   d\a \xff \u202e \u009b31m e f g 😀 ` + "\ufffd\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzPage(f *testing.F) {
	f.Add("gpu", "1 W", "a \x1b[31m remark \ufdd0 of 3 GB", uint8(40), true)
	f.Add("", "", "\xc3\x28\u2028 \ufdd2 \ufdd1", uint8(0), false)
	f.Add("学習", "\u00a0", "12 g CO2e CO2e", uint8(100), true)
	f.Fuzz(func(t *testing.T, label, value, remark string, columns uint8, styled bool) {
		color := "never"
		if styled {
			color = "always"
		}
		var out bytes.Buffer
		p := newPage(&out, color, env("COLUMNS", strconv.Itoa(int(columns))))
		p.heading(label)
		p.row(label, p.strong(value), p.warn(remark))
		p.text(3, remark)
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		s := out.String()
		for line := range strings.Lines(s) {
			open := false
			for _, part := range strings.SplitAfter(line, "m") {
				switch {
				case strings.HasSuffix(part, sequences[markEnd]):
					open = false
				case strings.HasSuffix(part, sequences[markStrong]), strings.HasSuffix(part, sequences[markWarn]):
					open = true
				}
			}
			if open {
				t.Errorf("a style survives its line: %q", line)
			}
		}
		if styled {
			for _, sequence := range sequences {
				s = strings.ReplaceAll(s, sequence, "")
			}
		}
		for _, r := range strings.ReplaceAll(s, "\n", "") {
			if r == utf8.RuneError && !strings.ContainsRune(label+value+remark, r) || unicode.IsControl(r) || sequences[r] != "" {
				t.Errorf("%q reached the terminal in %q", r, s)
			}
		}
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestPageFlush(t *testing.T) {
	p := newPage(broken{}, "auto", env())
	if err := p.flush(); err != nil {
		t.Errorf("nothing to write: %v", err)
	}
	p.text(0, "x")
	if err := p.flush(); err == nil {
		t.Error("the stream's error is lost")
	}
	if err := p.flush(); err != nil {
		t.Errorf("written twice: %v", err)
	}
	var writes counting
	p = newPage(&writes, "auto", env())
	write := func() {
		p.text(0, "one")
		p.row("two", "2", "")
		p.blank()
	}
	write()
	if err := p.flush(); err != nil || writes != 1 {
		t.Errorf("%d writes, %v", writes, err)
	}
}

type counting int

func (c *counting) Write(b []byte) (int, error) { *c++; return len(b), nil }
