package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// page is what the collector shows to Prometheus.
type page struct {
	types   map[string]string // of a family: counter, gauge, histogram
	samples []promSample
}

type promSample struct {
	name   string
	labels map[string]string
	value  float64
}

// readPage reads Prometheus' text format, without timestamps.
func readPage(r io.Reader) (page, error) {
	p := page{types: map[string]string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if words := strings.Fields(line); len(words) == 4 && words[0] == "#" && words[1] == "TYPE" {
			p.types[words[2]] = words[3]
		}
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseSample(line)
		if err != nil {
			return page{}, fmt.Errorf("line %d: %w", n, err)
		}
		p.samples = append(p.samples, s)
	}
	return p, lines.Err()
}

// parseSample reads name{label="value",…} number.
func parseSample(line string) (promSample, error) {
	end := strings.IndexAny(line, "{ ")
	if end <= 0 {
		return promSample{}, fmt.Errorf("%q is no sample", line)
	}
	s := promSample{name: line[:end], labels: map[string]string{}}
	rest := line[end:]
	if rest[0] == '{' {
		rest = rest[1:]
		for !strings.HasPrefix(rest, "}") {
			name, after, ok := strings.Cut(rest, "=")
			if !ok {
				return promSample{}, fmt.Errorf("%q is no label", rest)
			}
			value, err := strconv.QuotedPrefix(after)
			if err != nil || value[0] != '"' {
				return promSample{}, fmt.Errorf("label %s has no quoted value", name)
			}
			// Prometheus escapes as Go does: \\, \" and \n.
			s.labels[name], err = strconv.Unquote(value)
			if err != nil {
				return promSample{}, fmt.Errorf("label %s: %w", name, err)
			}
			rest = strings.TrimPrefix(after[len(value):], ",")
		}
		rest = rest[1:]
	}
	var err error
	s.value, err = strconv.ParseFloat(strings.TrimSpace(rest), 64)
	return s, err
}
