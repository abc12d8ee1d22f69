package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// helpColumns is what any terminal can show.
const helpColumns = 80

// usage writes how a command is used, as cobra does, but never wider than a
// terminal, and with the help topics under a title that says how to read them.
func usage(c *cobra.Command) error {
	var b strings.Builder
	part := func(title, text string) {
		if text = strings.Trim(text, "\n"); text != "" {
			fmt.Fprintf(&b, "\n%s:\n%s\n", title, text)
		}
	}
	commands := slices.DeleteFunc(slices.Clone(c.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() })
	line := c.UseLine()
	if len(commands) > 0 {
		line = c.CommandPath() + " COMMAND"
	}
	part("Usage", "  "+line)
	part("Examples", c.Example)
	part("Commands", listed(commands))
	// What cobra adds for -h looks as if one had to choose.
	flags := c.LocalFlags().FlagUsagesWrapped(helpColumns)
	part("Flags", strings.ReplaceAll(flags, "[=true|false]", strings.Repeat(" ", len("[=true|false]"))))
	part("Global flags", c.InheritedFlags().FlagUsagesWrapped(helpColumns))
	topics := slices.DeleteFunc(slices.Clone(c.Commands()), func(c *cobra.Command) bool { return !c.IsAdditionalHelpTopicCommand() })
	part("Topics, for "+c.CommandPath()+" help TOPIC", listed(topics))
	if len(commands) > 0 {
		fmt.Fprintf(&b, "\n%s COMMAND --help says more of a command.\n", c.CommandPath())
	}
	_, err := fmt.Fprint(c.OutOrStderr(), strings.TrimPrefix(b.String(), "\n"))
	return err
}

// newHelpCommand is cobra's, but fails for what there is no help on.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command or topic]",
		Short: "Help about a command or a topic",
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if about, _, err := c.Root().Find(args); err == nil {
				for _, sub := range about.Commands() {
					if sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
						names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("no help on %s; wattspan help lists the commands and topics", quote(strings.Join(args, " ")))
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
	}
}

// listed returns commands, one a line, with what they are for.
func listed(commands []*cobra.Command) string {
	var b strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-11s %s\n", c.Name(), c.Short)
	}
	return b.String()
}

// What a terminal of 80 columns shows, in the words that the summary uses.

const rootLong = `Wattspan measures what a job draws and what that emits:

  wattspan run -- python train.py   run a command, then say what it used
  wattspan doctor                   what can be measured here, and what helps
  wattspan calibrate points.csv     fit what no sensor sees to a plug meter
  wattspan config show              the options in force, and who stated them
  wattspan help method              how the figures are made, and their words
  wattspan completion bash          completion for your shell

It needs no account, no configuration and no network. A figure that cannot be
measured is a model's, and says so; one that nobody knows is not there, never 0.`

const rootExample = `  wattspan run -- make -j8
  wattspan run --country FR --json report.json -- python train.py
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 wattspan run -- ./server`

const runLong = `Runs a command and says, on standard error, what energy the machine used
meanwhile and what generating it emitted. The command is left alone: its
standard streams, signals and exit code are its own. What stands after -- is
the command's, and so is what follows the first word without it.

The emissions need a place: say --country, or --region in a cloud. Without,
the country is guessed from the time zone, and called a guess.

Nothing is sent anywhere, unless OTEL_EXPORTER_OTLP_ENDPOINT (or another OTEL_*
variable that names an endpoint or an exporter) says where to.

More: wattspan help exit-codes, method, telemetry, accounting.`

const runExample = `  wattspan run -- python train.py
  wattspan run --country FR --pue 1.2 --json report.json -- ./train --epochs 3
  wattspan run --region aws/eu-west-3 --progress 30s -- make -j8
  wattspan run --verbose -- sleep 10`

// helpTopics returns what is to be read rather than run.
func helpTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesHelp},
		{Use: "method", Short: "How the figures are made, and their words", Long: methodHelp},
		{Use: "telemetry", Short: "Sending spans and metrics by OpenTelemetry", Long: telemetryHelp},
		{Use: "accounting", Short: "Which processes count as the job's", Long: accountingHelp},
	}
}

const exitCodesHelp = `The exit code of wattspan run is the command's own, whatever became of the
measurement. Else it is one that shells, env and timeout use:

  125     wattspan itself failed: an option that means nothing, for example;
          the command was not run
  126     the command was found, and could not be executed
  127     the command was not found
  128+n   signal n ended the command: 130 is an interrupt (2), 137 a kill (9),
          143 a request to terminate (15)

A report that could not be written, or a collector that does not answer, is said
on standard error and leaves the exit code alone: the job is worth more.

The exit code of wattspan doctor is for scripts:

  0       all that the machine has is measured
  1       nothing is left out, and something is a model's figure
  2       something that draws power cannot be read
  3       what is to be exported does not arrive
  125     doctor itself failed

All other commands end with 0, or with 125 after an error.`

const methodHelp = `From the sensors to the emissions:

  devices     the energy of the GPUs, processors and memory, in Wh
  node        what the machine draws at its plug: by a meter, else by a model of
              fans, disks, network and power supplies, else not known
  facility    node × PUE, or devices × PUE where there is no node: it adds
              cooling and power supply of the building
  emissions   facility × the grid's intensity, in g CO2e per kWh

How the energy of a device is obtained, from the best to the least:

  energy counter         the hardware counts joules: differences are exact
  averaged power,        the hardware averages its power, over 1 s for example,
    integrated           and we add that up over time
  power, integrated      power is read ten times a second or so, and added up
  model                  power is computed from the load and a table: no
                         measurement, wrong by half or more
  constant               a power that is assumed, times the time

What the words of the summary mean:

  band        "1.17 to 1.29 kWh": the truth lies between with about 95 %
              certainty (k = 2), as far as the errors are known
  coverage    "covers 98 % of the run": for the rest of the time the devices
              could not be read, and nothing is made up for it
  PARTIAL     something that draws power could not be read at all, or not all
              the time: the total is without it, and the truth is higher
  absent      the machine has no such hardware: nothing is missing
  unreadable  the machine has it, and it cannot be read: see the remedy
  PUE         facility energy / machine energy of a data centre; 1 for a laptop
  intensity   emissions of the grid per kWh. Life-cycle averages count building
              the plants and their fuel, direct ones only what they burn
  place       where the grid is; a guess unless you state it
  estimated   less than half of the energy was measured

  doubt       something was seen that speaks against a figure, such as a counter
              and a power that disagree

Not included are making the hardware, and water. In a virtual machine, which has
a share of a node that it does not see, the figures end at the devices; on a
machine with eight GPUs about a quarter of its energy is beyond those.

wattspan run --verbose shows method, band, coverage and source of every device,
and where the factors come from; --json has all of it, for programs.`

const telemetryHelp = `Without these variables nothing is sent, and no connection is tried. They are
OpenTelemetry's own; the command gets them too.

  OTEL_EXPORTER_OTLP_ENDPOINT     where to: http://localhost:4318
  OTEL_EXPORTER_OTLP_PROTOCOL     http/protobuf (default) or grpc
  OTEL_EXPORTER_OTLP_HEADERS      for the collector: authorization=Bearer%20…
  OTEL_EXPORTER_OTLP_CERTIFICATE  the collector's authority, a file
  OTEL_TRACES_EXPORTER            otlp or none, for the run's span
  OTEL_METRICS_EXPORTER           otlp or none, for the metrics
  OTEL_SERVICE_NAME               wattspan, unless you name it
  OTEL_RESOURCE_ATTRIBUTES        cloud.provider=aws,cloud.region=eu-west-3:
                                  these also say where the machine is
  OTEL_METRIC_EXPORT_INTERVAL     milliseconds between metrics, 60000
  OTEL_SDK_DISABLED               true: send nothing
  WATTSPAN_RUN_ID                 the name that the nodes of one job share

Each of the EXPORTER_OTLP variables also exists for one signal alone, as
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: that one then wins.

The run is one span. Its parent is taken from TRACEPARENT, TRACESTATE and
BAGGAGE, and the command gets the run's span as TRACEPARENT: a program that
uses OpenTelemetry so becomes part of the same trace.

The metrics are counters of joules (hw.energy for each device, wattspan.energy
for each component) and of grams (wattspan.emissions), and gauges of power. The
sum of wattspan.energy over its components is the facility's energy; hw.energy
is contained in it and not to be added.

Look whether the collector answers with wattspan doctor. At the end of a run it
has 5 seconds; the report is written before.`

const accountingHelp = `A run measures the whole machine, and says what part of that is the job's:

  cpu      the job's CPU time, as a share of the time the processors were busy
  memory   what its processes hold, as a share of the memory in use
  gpu      the GPUs that its processes use, as the driver lists them; where it
           does not, as in most containers, those that CUDA_VISIBLE_DEVICES
           shows it, or all

A job alone on its machine so gets nearly all, idle power included. With --scope
job, that share is what the report, the spans and the metrics are about.

The job is the command and all that it starts:

  cgroup         on Linux, where it is permitted (as root, or where systemd
                 delegates), the job runs in a control group of its own, which
                 counts all that ever ran in it
  process tree   else, on Linux: the processes that have ended, exactly, by
                 what the system bills when they are reaped, and those that
                 live, from /proc; orphans are adopted and counted
  process        on other systems: the command and the children it waited for,
                 once it has ended

Not seen, except by the control group: children of a process that ignores
SIGCHLD, once they have ended. The system bills them to nobody.

Orphans that live on when the command ends are counted up to then, and not
waited for. A GPU that two jobs share is charged to both. Files in the page
cache and shared memory are nobody's.

A program that uses the library, run under wattspan run, knows of the runner:
its own figures are contained in the run's, and not to be added to them.`
