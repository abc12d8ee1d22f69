package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// The layout of a page, in columns.
const (
	labelColumns = 10
	valueColumns = 12
	remarkIndent = 2 + labelColumns + 1 + valueColumns + 3

	narrow  = 60  // below this, a remark goes under its row
	longest = 120 // longer lines are hard to read, however wide the terminal
	usual   = 80  // of a terminal that does not tell its width
	least   = 20
)

// page writes text for people to a stream that may be a terminal: it wraps to
// its width, and styles where the reader wants colours. Nothing is written
// before flush.
//
// Whatever the text contains, no control character but the ends of lines and the
// page's own styling is written: names of commands and devices, and texts of
// errors, come from outside and must not drive the reader's terminal.
type page struct {
	w      io.Writer
	width  int // in columns; 0: lines are not wrapped
	styled bool
	b      strings.Builder
}

// newPage returns a page on a stream. Color is auto, always or never; auto
// follows NO_COLOR, CLICOLOR_FORCE, CLICOLOR and TERM, in this order, and
// colours terminals only. Lines are wrapped on a terminal, and where COLUMNS
// says at which width: a log or a pipe gets whole lines.
func newPage(w io.Writer, color string, getenv func(string) string) *page {
	terminal := isTerminal(w)
	p := &page{w: w, width: widthOf(terminal, func() (int, error) {
		columns, _, err := term.GetSize(int(w.(*os.File).Fd()))
		return columns, err
	}, getenv("COLUMNS"))}
	p.styled = wantsColors(color, terminal, getenv)
	return p
}

// widthOf returns the columns at which lines are wrapped, 0 for never.
func widthOf(terminal bool, size func() (int, error), stated string) int {
	if columns, err := strconv.Atoi(stated); err == nil && columns > 0 {
		return max(columns, least)
	}
	if !terminal {
		return 0
	}
	columns, err := size()
	if err != nil || columns <= 0 {
		return usual
	}
	return min(max(columns, least), longest)
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// wantsColors decides as https://no-color.org and https://bixense.com/clicolors
// ask for. A flag of the user's is nearer than any variable.
func wantsColors(color string, terminal bool, getenv func(string) string) bool {
	switch color {
	case "always":
		return true
	case "never":
		return false
	}
	switch forced, kind := getenv("CLICOLOR_FORCE"), getenv("TERM"); {
	case getenv("NO_COLOR") != "":
		return false
	case forced != "" && forced != "0":
		return true
	case !terminal || getenv("CLICOLOR") == "0" || kind == "dumb":
		return false
	default:
		// The old console of Windows prints escape sequences as they are.
		return kind != "" || runtime.GOOS == "windows" && getenv("WT_SESSION") != ""
	}
}

// Styles are marked in the text by characters that Unicode promises never to
// assign, and become escape sequences on writing only: so the text can be
// measured, wrapped and cleaned with them in it, and what comes from outside
// can at worst be bold.
const (
	markStrong = '\uFDD0'
	markWarn   = '\uFDD1'
	markEnd    = '\uFDD2'
)

var sequences = map[rune]string{markStrong: "\x1b[1m", markWarn: "\x1b[33m", markEnd: "\x1b[0m"}

// strong marks what the reader should see first.
func (p *page) strong(s string) string { return p.mark(markStrong, s) }

// warn marks what makes a figure less than it seems.
func (p *page) warn(s string) string { return p.mark(markWarn, s) }

func (p *page) mark(style rune, s string) string {
	if !p.styled || s == "" {
		return s
	}
	return string(style) + s + string(markEnd)
}

// heading writes a line that begins a section.
func (p *page) heading(s string) { p.fill(p.strong(s), 0, 0) }

// blank writes an empty line.
func (p *page) blank() { p.b.WriteByte('\n') }

// text writes a paragraph. Its first line is indented by so many columns, the
// others by two more.
func (p *page) text(indent int, s string) {
	p.b.WriteString(strings.Repeat(" ", indent))
	p.fill(s, indent, indent+2)
}

// row writes a label, a value, and what there is to say about it. On a narrow
// terminal the remark goes under the row.
func (p *page) row(label, value, remark string) {
	label, value = p.clean(label), p.clean(value)
	head := "  " + label + pad(label, labelColumns) + " " + pad(value, valueColumns) + value
	if remark != "" && (p.width == 0 || p.width >= narrow) {
		head += "   "
		p.render(head)
		p.fill(remark, columns(head), remarkIndent)
		return
	}
	if label != "" || value != "" {
		p.render(strings.TrimRight(head, " ") + "\n")
	}
	if remark != "" {
		p.b.WriteString("    ")
		p.fill(remark, 4, 4)
	}
}

// flush writes the page in one write, so that the output of the command cannot
// come in between, and empties it.
func (p *page) flush() error {
	if p.b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(p.w, p.b.String())
	p.b.Reset()
	return err
}

// fill adds a text and the end of its line. It is wrapped: the first line begins
// at a column that has been reached, the others are indented.
func (p *page) fill(s string, at, indent int) {
	var b strings.Builder
	used, begun := at, false
	for _, word := range words(p.clean(s)) {
		n := columns(word)
		switch {
		case !begun:
		case p.width > 0 && used+1+n > p.width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			used = indent
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
		begun = true
	}
	b.WriteByte('\n')
	p.render(b.String())
}

// render adds clean text, with its marks as escape sequences. A style does not
// outlive its line, whose end may be where the command writes on.
func (p *page) render(s string) {
	end := sequences[markEnd]
	open := ""
	for _, r := range s {
		switch {
		case sequences[r] == "" && r != '\n':
			p.b.WriteRune(r)
		case r == '\n' && open != "":
			p.b.WriteString(end + "\n" + open)
		case r == '\n':
			p.b.WriteByte('\n')
		case r == markEnd && open != "":
			p.b.WriteString(end)
			open = ""
		case r != markEnd:
			open = sequences[r]
			p.b.WriteString(open)
		}
	}
	if open != "" {
		p.b.WriteString(end)
	}
}

// clean makes a text harmless, and one line: what does not print is escaped as
// %q does.
func (p *page) clean(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == '\u00A0' || strconv.IsPrint(r) || p.styled && sequences[r] != "":
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
	return b.String()
}

// unit is what belongs to the number before it.
var unit = regexp.MustCompile(`^(?:%|°C|[nµmkMGT]?(?:Wh|W|J|g|t|s|h|B)(?:/\S+)?)[.,;:)]*$`)

// words splits a text where it may be wrapped. A number stays with its unit,
// and what non-breaking spaces join stays together.
func words(s string) []string {
	var words []string
	for _, word := range strings.Split(s, " ") {
		if word == "" {
			continue
		}
		if n := len(words); n > 0 && joins(words[n-1], word) {
			words[n-1] += " " + word
			continue
		}
		words = append(words, word)
	}
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "\u00A0", " ")
	}
	return words
}

// joins reports whether a word belongs to the one before.
func joins(before, word string) bool {
	before = strings.TrimRight(before, string(markEnd))
	if before == "" {
		return false
	}
	last := before[len(before)-1]
	word, _, _ = strings.Cut(word, "\u00A0")
	if last >= '0' && last <= '9' {
		return unit.MatchString(strings.TrimRight(word, string(markEnd)))
	}
	// Grams and tonnes of what.
	return strings.HasPrefix(word, "CO2e") && strings.Contains(before, " ")
}

// columns returns how many columns of a terminal a text takes.
func columns(s string) int {
	n := 0
	for _, r := range s {
		switch kind := width.LookupRune(r).Kind(); {
		case sequences[r] != "" || unicode.In(r, unicode.Mn, unicode.Me):
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}

// pad returns the spaces that fill a text up to so many columns.
func pad(s string, to int) string { return strings.Repeat(" ", max(to-columns(s), 0)) }
