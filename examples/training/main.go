// Command training trains a small network to continue Newton's Opticks, and
// says after every epoch what it has learnt and what that took in energy. It is
// the template of a program that measures itself: what Wattspan adds to it are
// the lines with "t." in run and train. See README.md.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattspan/wattspan/emissions"
	_ "github.com/wattspan/wattspan/sensors/nvml" // NVIDIA GPUs, where built with cgo on Linux
	"github.com/wattspan/wattspan/tracker"
)

// Exit codes. A shell says 130 of a program that Ctrl-C ended.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first Ctrl-C on, a second one ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "training: %v\n", err)
		return exitUsage
	}
	text, err := newCorpus(first(opticks, s.characters), s.context)
	if err != nil {
		fmt.Fprintf(stderr, "training: %v\n", err)
		return exitUsage
	}
	var jsonFile *os.File
	if s.json != "" {
		// Now: a path that cannot be written should not cost a training.
		if jsonFile, err = os.Create(s.json); err != nil {
			fmt.Fprintf(stderr, "training: the report: %v\n", err)
			return exitUsage
		}
	}

	// OpenTelemetry first: the tracker takes the providers that are there.
	shutdown, err := startTelemetry(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "training: nothing is exported: %v\n", err)
	}
	t, err := tracker.Start(ctx,
		tracker.WithName("training"),
		tracker.WithLocation(emissions.Location{Country: s.country}),
		tracker.WithParentFromEnvironment(), // the runner's span, under "wattspan run"
		tracker.WithAttributes(attribute.Int("training.hidden", s.hidden), attribute.Int("training.epochs", s.epochs)),
	)
	if err != nil {
		// The job comes first: t is harmless, and the report will be empty.
		fmt.Fprintf(stderr, "training: not measured: %v\n", err)
	}

	n := train(ctx, t, s, text, stdout)

	// Ctrl-C must not cost the report, hence a context of its own.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	report, err := t.Stop(last)
	if err != nil {
		fmt.Fprintf(stderr, "training: the measurement: %v\n", err)
	}
	fmt.Fprintln(stdout)
	writeReport(stdout, report)
	writeSample(stdout, n, text, s)
	code := exitOK
	if ctx.Err() != nil {
		code = exitInterrupted
	}
	if jsonFile != nil {
		if err := writeJSON(jsonFile, report); err != nil {
			fmt.Fprintf(stderr, "training: the report: %v\n", err)
			code = exitFailed
		}
	}
	if err := shutdown(last); err != nil {
		fmt.Fprintf(stderr, "training: not all was exported: %v\n", err)
	}
	return code
}

// train trains a network until its epochs or ctx are over, and writes a line an
// epoch.
func train(ctx context.Context, t *tracker.Tracker, s settings, c *corpus, out io.Writer) *network {
	random := rand.New(rand.NewPCG(s.seed, 0))
	n := newNetwork(shape{
		alphabet: len(c.alphabet), context: s.context, embedding: embedding, hidden: s.hidden,
	}, s.batch, random)
	training, validation := c.training(), c.validation()
	fmt.Fprintf(out, "%d characters to train on, %d to validate; %d parameters; seed %d\n\n",
		len(training), len(validation), len(n.all), s.seed)
	writeHeader(out)

	// Spans of the program's own become children of the run's span like this.
	ctx = trace.ContextWithSpan(ctx, t.Span())
	tracer := otel.Tracer("github.com/wattspan/wattspan/examples/training")
	schedule := schedule{rate: s.rate, batches: s.epochs * batches(len(training), s.batch)}
	optimiser := newAdam(len(n.all))
	before := t.Snapshot()
	for e := 1; e <= s.epochs && ctx.Err() == nil; e++ {
		_, span := tracer.Start(ctx, "epoch", trace.WithAttributes(attribute.Int("training.epoch", e)))
		began := time.Now()
		random.Shuffle(len(training), func(i, j int) { training[i], training[j] = training[j], training[i] })
		l := line{epoch: e, bits: math.NaN()}
		l.loss, l.characters = trainEpoch(ctx, n, optimiser, &schedule, c, training, s.batch)
		if ctx.Err() == nil {
			l.bits = n.bitsPerCharacter(c, validation)
		}
		l.took = time.Since(began)

		// A sample at the boundary makes the energy that of the epoch. Without
		// it the report would end at the last tick, up to a second ago. An error
		// is that of its context, and the report then ends a little earlier.
		now, _ := t.Sample(context.WithoutCancel(ctx))
		l.used, l.report = between(before, now), now
		before = now
		l.describe(span)
		span.End()
		writeLine(out, l)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(out, "\ninterrupted: the figures are of what was done until then")
	}
	return n
}

// trainEpoch trains on the examples at some positions, batch by batch, and
// returns the mean loss in nats, and of how many of them: ctx can end before all
// of them, and NaN is the mean of none.
func trainEpoch(ctx context.Context, n *network, optimiser *adam, schedule *schedule, c *corpus, positions []int, size int) (loss float64, done int) {
	for done < len(positions) && ctx.Err() == nil {
		batch := positions[done:min(done+size, len(positions))]
		loss += n.backward(c, batch)
		optimiser.step(schedule.next(), n.all, n.gradient.all)
		done += len(batch)
	}
	return loss / float64(done), done
}

// schedule lowers the learning rate in a straight line, to nothing after the last
// batch.
type schedule struct {
	rate          float64
	done, batches int
}

func (s *schedule) next() float64 {
	rate := s.rate * (1 - float64(s.done)/float64(s.batches))
	s.done++
	return rate
}

// batches returns how many batches there are in an epoch.
func batches(examples, size int) int { return (examples + size - 1) / size }

// settings are what the flags say.
type settings struct {
	epochs, hidden, context, batch, characters, sample int
	rate                                               float64
	seed                                               uint64
	country, json                                      string
}

// embedding is how many numbers stand for a character.
const embedding = 12

// parse reads the flags, and refuses what means nothing.
func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("training", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is written once, by the caller
	f.IntVar(&s.epochs, "epochs", 7, "how often to go through the text")
	f.IntVar(&s.hidden, "hidden", 128, "units of the hidden layer")
	f.IntVar(&s.context, "context", 8, "characters that the network sees before the one it predicts")
	f.IntVar(&s.batch, "batch", 128, "examples to a step")
	f.Float64Var(&s.rate, "rate", 0.004, "learning rate at the beginning")
	f.IntVar(&s.characters, "characters", 0, "use only the first characters of the text; 0: all of them")
	f.IntVar(&s.sample, "sample", 400, "characters to write in the end")
	f.Uint64Var(&s.seed, "seed", 1, "of all that is random: the same seed gives the same network")
	f.StringVar(&s.country, "country", "", "country of the machine, for its emissions, as FR; default: found out or guessed")
	f.StringVar(&s.json, "json", "", "write the report to this `file`")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(stderr, "usage: training [flags]")
			f.SetOutput(stderr)
			f.PrintDefaults()
		}
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; see --help", f.Arg(0))
	}
	for _, limit := range []struct {
		flag             string
		value, low, high int
	}{
		{"epochs", s.epochs, 1, 10000},
		{"hidden", s.hidden, 1, 2048},
		{"context", s.context, 1, 64},
		{"batch", s.batch, 1, 1024},
		{"characters", s.characters, 0, math.MaxInt},
		{"sample", s.sample, 0, 1000000},
	} {
		if limit.value < limit.low || limit.value > limit.high {
			return s, fmt.Errorf("--%s %d is outside %d to %d", limit.flag, limit.value, limit.low, limit.high)
		}
	}
	if !(s.rate > 0 && s.rate <= 1) {
		return s, fmt.Errorf("--rate %v is outside 0 to 1", s.rate)
	}
	if s.country != "" {
		if _, err := emissions.Locate(emissions.Location{Country: s.country}, emissions.Environment{}); err != nil {
			return s, fmt.Errorf("--country: %w", err)
		}
	}
	return s, nil
}

// first returns the first characters of a text; 0: all of them.
func first(text string, characters int) string {
	runes := []rune(text)
	return string(runes[:min(cmp.Or(characters, len(runes)), len(runes))])
}

// writeJSON writes the report as docs/REPORT.md documents it.
func writeJSON(f *os.File, report tracker.Report) error {
	encoder := json.NewEncoder(f)
	encoder.SetIndent("", "  ")
	return errors.Join(encoder.Encode(report), f.Close())
}

// writeSample shows what the network has learnt: it continues the text where the
// part begins that it was not trained on.
func writeSample(w io.Writer, n *network, c *corpus, s settings) {
	if s.sample == 0 {
		return
	}
	at := c.split + c.context
	before, _ := c.example(at)
	const temperature = 0.7
	own := n.sample(c, at, s.sample, temperature, rand.New(rand.NewPCG(s.seed, 1)))
	fmt.Fprintf(w, "\nAfter %q the network writes:\n\n    %s\n", c.decode(before),
		strings.ReplaceAll(c.decode(before)+c.decode(own), "\n", "\n    "))
}
