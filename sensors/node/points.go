package node

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/wattspan/wattspan/sensors"
)

// Point is what a machine drew at one load: as its sensors saw it, and as a meter
// at the plug did.
type Point struct {
	Sensed sensors.Watts `json:"sensed_w"`
	Wall   sensors.Watts `json:"wall_w"`
	// Line is where the point stands in its file, from 1; 0 where it is from
	// none.
	Line int `json:"-"`
}

// ErrPoints is returned for points that cannot be: a row that holds no numbers, a
// meter that shows less than the sensors.
var ErrPoints = errors.New("points are wrong")

// maxWatts is more than any machine draws.
const maxWatts = 1e7

// mostErrors is the number of bad rows that an error names.
const mostErrors = 10

// ParsePoints reads points from a CSV file with a header. Of its columns sensed_w
// and wall_w count, in W, in any order; others are ignored. Columns are separated
// by commas, semicolons or tabs; with the latter two, numbers may have a decimal
// comma. Lines that begin with # and blank ones are skipped. Every row that is
// wrong is in the error, with its line, up to ten of them. It wraps [ErrPoints].
func ParsePoints(r io.Reader) ([]Point, error) {
	in := bufio.NewReader(r)
	switch bom, _ := in.Peek(3); {
	case bytes.Equal(bom, []byte("\xef\xbb\xbf")):
		_, _ = in.Discard(3)
	case bytes.HasPrefix(bom, []byte("\xff\xfe")), bytes.HasPrefix(bom, []byte("\xfe\xff")):
		return nil, fmt.Errorf("%w: the file is UTF-16; save it as UTF-8", ErrPoints)
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	rows := csv.NewReader(bytes.NewReader(data))
	rows.Comment, rows.LazyQuotes, rows.FieldsPerRecord, rows.ReuseRecord = '#', true, -1, true
	rows.Comma = separator(data)

	sensed, wall := -1, -1
	var points []Point
	var wrong []error
	for {
		row, err := rows.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPoints, err)
		}
		line, _ := rows.FieldPos(0)
		switch {
		case blank(row):
			continue
		case sensed < 0:
			if sensed, wall, err = header(row); err != nil {
				return nil, fmt.Errorf("%w: line %d: %w", ErrPoints, line, err)
			}
			continue
		}
		p := Point{Line: line}
		if p.Sensed, err = watts(row, sensed, "sensed_w", rows.Comma); err == nil {
			p.Wall, err = watts(row, wall, "wall_w", rows.Comma)
		}
		if err == nil {
			err = p.validate()
		}
		if err != nil {
			if wrong = append(wrong, fmt.Errorf("line %d: %w", line, err)); len(wrong) == mostErrors {
				break
			}
			continue
		}
		points = append(points, p)
	}
	switch {
	case wrong != nil:
		return nil, fmt.Errorf("%w: %w", ErrPoints, errors.Join(wrong...))
	case sensed < 0:
		return nil, fmt.Errorf("%w: there is no header; the first line is sensed_w,wall_w", ErrPoints)
	case points == nil:
		return nil, fmt.Errorf("%w: there is no point below the header", ErrPoints)
	}
	return points, nil
}

// separator is the one that the header has most of.
func separator(data []byte) rune {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		best, most := ',', 0
		for _, s := range []rune{',', ';', '\t'} {
			if n := bytes.Count(line, []byte(string(s))); n > most {
				best, most = s, n
			}
		}
		return best
	}
	return ','
}

func blank(row []string) bool {
	for _, field := range row {
		if strings.TrimSpace(field) != "" {
			return false
		}
	}
	return true
}

// header finds the two columns.
func header(row []string) (sensed, wall int, err error) {
	at := map[string]int{"sensed_w": -1, "wall_w": -1}
	for i, name := range row {
		name = strings.ToLower(trim(name))
		before, ours := at[name]
		if !ours {
			continue
		}
		if before >= 0 {
			return -1, -1, fmt.Errorf("there are two columns %s", name)
		}
		at[name] = i
	}
	for _, name := range []string{"sensed_w", "wall_w"} {
		if at[name] < 0 {
			return -1, -1, fmt.Errorf("the header has no column %s; it needs sensed_w and wall_w", name)
		}
	}
	return at["sensed_w"], at["wall_w"], nil
}

// trim takes off spaces, and quotes that a space before them has left.
func trim(field string) string {
	return strings.TrimSpace(strings.Trim(strings.TrimSpace(field), `"`))
}

// watts reads a field.
func watts(row []string, i int, name string, separator rune) (sensors.Watts, error) {
	if i >= len(row) || trim(row[i]) == "" {
		return 0, fmt.Errorf("%s is missing", name)
	}
	text := trim(row[i])
	if separator != ',' && !strings.Contains(text, ".") {
		text = strings.Replace(text, ",", ".", 1)
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is %.40q, which is not a number", name, trim(row[i]))
	}
	return sensors.Watts(v), nil
}

// validate says what is wrong with the values of a point, each for itself.
func (p Point) validate() error {
	switch s, w := float64(p.Sensed), float64(p.Wall); {
	case math.IsNaN(s) || s < 0 || s > maxWatts:
		return fmt.Errorf("sensed_w is %v, which is not a power in W", s)
	case math.IsNaN(w) || w <= 0 || w > maxWatts:
		return fmt.Errorf("wall_w is %v, which is not a power in W", w)
	}
	return nil
}

// name is how an error refers to a point.
func (p Point) name(i int) string {
	if p.Line > 0 {
		return fmt.Sprintf("line %d", p.Line)
	}
	return fmt.Sprintf("point %d", i+1)
}
