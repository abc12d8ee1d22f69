package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func newConfigCommand(stdout io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration in force and where it comes from",
		Long: `Options are taken from flags, from the environment (WATTSPAN_COUNTRY and the
like), from wattspan.yaml in the working directory, and from the user's file, in
this order: the first that states an option decides.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			var names []string
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			if near := nearestName(args[0], names); near != "" {
				return fmt.Errorf("unknown command config %s; did you mean config %s?", printable(args[0]), near)
			}
			return fmt.Errorf("unknown command config %s; %s --help lists the commands", printable(args[0]), cmd.CommandPath())
		},
	}
	cmd.SetFlagErrorFunc(flagError)

	asJSON := false
	show := &cobra.Command{
		Use:   "show [flags]",
		Short: "Show every option, its value and where that was stated",
		Long: `Shows every option, its value and where that was stated. It takes the flags of
wattspan run, to see what they would change.`,
		Example: `  wattspan config show
  WATTSPAN_PUE=1.2 wattspan config show --country FR
  wattspan config show --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfiguration(cmd.Flags())
			if err != nil {
				return err
			}
			if asJSON {
				return c.writeJSON(stdout)
			}
			return c.write(stdout)
		},
	}
	show.Flags().SortFlags = false
	show.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	addOptions(show, "json")

	path := &cobra.Command{
		Use:   "path",
		Short: "Show the files looked for, and which were read",
		Long:  `Shows the files looked for, the stronger first, and which of them were read.`,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfiguration(cmd.Flags())
			// The files are shown in any case: one of them may be at fault.
			if writeErr := c.writeFiles(stdout); writeErr != nil {
				return writeErr
			}
			return err
		},
	}
	addOptions(path)
	cmd.AddCommand(show, path)
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, and got %s", cmd.CommandPath(), printable(args[0]))
	}
	return nil
}

// writeFiles lists the files, the stronger first.
func (c configuration) writeFiles(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range c.files {
		path := f.path
		if path == "" {
			path = "–"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", map[source]string{fromProjectFile: "project", fromUserFile: "user"}[f.source], path, f.state)
	}
	return table.Flush()
}

// write prints the options, aligned.
func (c configuration) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, o := range options {
		s := c.stated[o.name]
		value, from := display(o.shown(s.value)), s.origin.reference()
		if s.origin.deciding != "" {
			from += ", by its " + s.origin.deciding
		}
		switch {
		case value == "":
			value = "–"
			if s.origin.source == fromDefault {
				from += ": " + o.fallbackIs
			}
		case o.isFile || s.origin.source != fromDefault:
			value = printable(value)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", o.name, value, from)
	}
	return table.Flush()
}

// shown is a value without the secrets that a command line or an address can hold.
func (o option) shown(value any) any {
	text, _ := value.(string)
	if o.name == "node-meter" {
		if kind, line, ok := strings.Cut(text, ":"); ok && strings.HasPrefix(kind, "command") {
			program, arguments, more := strings.Cut(strings.TrimSpace(line), " ")
			if more && arguments != "" {
				return kind + ":" + program + " …"
			}
		}
	}
	if o.name == "dcgm" {
		if u, err := url.Parse(text); err == nil && u.User != nil {
			return u.Redacted()
		}
	}
	return value
}

// display is a value as a person writes it.
func display(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case time.Duration:
		return v.String()
	}
	return ""
}

// configSchema names the contract of config show --json.
const configSchema = "wattspan.config/v1"

// writeJSON prints the options for programs. A value that nobody has stated and
// that has no default is null.
func (c configuration) writeJSON(w io.Writer) error {
	type statedOption struct {
		Name   string `json:"name"`
		Value  any    `json:"value"`
		Source source `json:"source"`
		From   string `json:"from"`
	}
	type file struct {
		Source source `json:"source"`
		Path   string `json:"path,omitempty"`
		State  string `json:"state"`
	}
	out := struct {
		Schema  string         `json:"schema"`
		Options []statedOption `json:"options"`
		Files   []file         `json:"files"`
	}{Schema: configSchema}
	for _, o := range options {
		s := c.stated[o.name]
		row := statedOption{Name: o.name, Value: o.shown(s.value), Source: s.origin.source, From: s.origin.reference()}
		switch v := row.Value.(type) {
		case time.Duration:
			row.Value = v.String()
		case string:
			if v == "" {
				row.Value = nil
			} else if o.placeholder == "number" {
				row.Value = json.Number(v)
			}
		}
		out.Options = append(out.Options, row)
	}
	for _, f := range c.files {
		out.Files = append(out.Files, file{f.source, f.path, f.state})
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}
