// Command check compares what a collector received with the reports of the runs
// that sent it: each number, each name, nothing missing and nothing else.
//
//	check -dir out -page metrics.prom -secret s3cr3t grpc.json http.json
//
// It reads traces.jsonl and metrics.jsonl of the folder, which the collector's
// file exporter wrote, and the reports that wattspan run --json wrote. Each
// difference is one line, with what was expected and what is there; the exit
// code is then 1, and 2 where something could not be read.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/wattspan/wattspan/tracker"
)

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

func execute(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", ".", "`folder` with traces.jsonl and metrics.jsonl")
	page := flags.String("page", "", "`file` with what the prometheus exporter showed; none: not checked")
	secret := flags.String("secret", "", "`text` that must be nowhere")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: check [flags] REPORT.json...")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return 2
	}
	in, err := load(*dir, *page, flags.Args())
	if err != nil {
		fmt.Fprintf(stderr, "check: %v\n", err)
		return 2
	}
	c := check(in, *secret)
	for _, d := range c.differences {
		fmt.Fprintln(stdout, "FAIL", d)
	}
	for _, f := range c.facts {
		fmt.Fprintln(stdout, "ok  ", f)
	}
	if len(c.differences) > 0 {
		fmt.Fprintf(stdout, "%d differences\n", len(c.differences))
		return 1
	}
	return 0
}

// input is all that is compared.
type input struct {
	reports []report
	traces  []traces
	metrics []metrics
	page    *page             // nil: not checked
	files   map[string][]byte // as they are, by name
}

// report is the report of one run.
type report struct {
	file string
	tracker.Report
}

func load(dir, pageFile string, reports []string) (input, error) {
	in := input{files: map[string][]byte{}}
	read := func(path string, parse func([]byte) error) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		in.files[path] = data
		if err := parse(data); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	for _, file := range reports {
		err := read(file, func(data []byte) error {
			r := report{file: strings.TrimSuffix(filepath.Base(file), ".json")}
			err := json.Unmarshal(data, &r.Report)
			if err == nil && r.Emissions != nil && (r.Energy.Device == nil || r.Energy.Facility == nil || r.Bounds.Facility == nil) {
				err = errors.New("the report has emissions without the energy that they come from")
			}
			in.reports = append(in.reports, r)
			return err
		})
		if err != nil {
			return in, err
		}
	}
	err := read(filepath.Join(dir, "traces.jsonl"), func(data []byte) (err error) {
		in.traces, err = readLines[traces](bytes.NewReader(data))
		return err
	})
	if err != nil {
		return in, err
	}
	err = read(filepath.Join(dir, "metrics.jsonl"), func(data []byte) (err error) {
		in.metrics, err = readLines[metrics](bytes.NewReader(data))
		return err
	})
	if err != nil || pageFile == "" {
		return in, err
	}
	err = read(pageFile, func(data []byte) error {
		p, err := readPage(bytes.NewReader(data))
		in.page = &p
		return err
	})
	return in, err
}
