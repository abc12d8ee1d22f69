package main

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// texts are all that help.go says.
func texts() map[string]string {
	all := map[string]string{"root": rootLong, "root example": rootExample, "run": runLong, "run example": runExample}
	for _, topic := range helpTopics() {
		all[topic.Name()] = topic.Long
	}
	return all
}

// asked runs wattspan with arguments and returns what it says.
func asked(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out, errs bytes.Buffer
	code := execute(context.Background(), args, &out, &errs)
	return out.String() + errs.String(), code
}

func TestHelpFitsTerminal(t *testing.T) {
	for name, text := range texts() {
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if n := columns(line); n > helpColumns || line != strings.TrimRight(line, " \t") || strings.Contains(line, "\t") {
				t.Errorf("%s: %d columns: %q", name, n, line)
			}
		}
		if strings.HasSuffix(text, "\n") {
			t.Errorf("%s ends with an empty line", name)
		}
	}
	// The root's help is one screen, with what cobra adds.
	if n := strings.Count(rootLong, "\n"); n > 12 {
		t.Errorf("%d lines", n)
	}
}

// Nor is the help of a command wider, with all its flags.
func TestUsageFitsTerminal(t *testing.T) {
	for _, args := range [][]string{{}, {"run"}, {"doctor"}, {"calibrate"}, {"config"}, {"config", "show"}, {"completion", "bash"}} {
		said, code := asked(t, append(args, "--help")...)
		if code != 0 || !strings.Contains(said, "Usage:\n  wattspan") || !strings.Contains(said, "\nFlags:\n") {
			t.Errorf("%v: %d\n%s", args, code, said)
		}
		for line := range strings.Lines(said) {
			if n := columns(strings.TrimSuffix(line, "\n")); n > helpColumns && !slices.Contains(args, "completion") {
				t.Errorf("%v: %d columns: %q", args, n, line)
			}
		}
		if strings.Contains(said, "[=true|false]") {
			t.Errorf("%v: flags without a value seem to need one:\n%s", args, said)
		}
	}
}

// Every command that a text names is one.
func TestHelpNamesCommands(t *testing.T) {
	command := regexp.MustCompile(`wattspan ((?:[a-z][a-z-]* ?)+)`)
	named := map[string]bool{}
	for _, text := range texts() {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			named[strings.TrimSpace(m[1])] = true
		}
	}
	for _, want := range []string{"run", "doctor", "config show", "completion bash", "help method"} {
		if !named[want] {
			t.Errorf("wattspan %s is not named", want)
		}
		if said, _ := asked(t, append(strings.Fields(want), "--help")...); !strings.HasPrefix(want, "help ") &&
			!strings.Contains(said, "\nUsage:\n  wattspan "+want) {
			t.Errorf("wattspan %s is no command", want)
		}
	}
	for words := range named {
		// In a sentence, words may follow that belong to it; after run, they
		// would be started.
		found := false
		fields := strings.Fields(words)
		if fields[0] == "run" {
			fields = fields[:1]
		}
		for ; len(fields) > 0 && !found; fields = fields[:len(fields)-1] {
			if fields[0] == "help" {
				found = len(fields) > 1 && isTopic(fields[1])
				continue
			}
			said, code := asked(t, append(slices.Clone(fields), "--help")...)
			found = code == 0 && strings.Contains(said, "\n  wattspan "+strings.Join(fields, " "))
		}
		if !found && !slices.Contains([]string{"itself failed"}, words) {
			t.Errorf("there is no command in: wattspan %s", words)
		}
	}
}

func isTopic(name string) bool {
	return slices.ContainsFunc(helpTopics(), func(c *cobra.Command) bool { return c.Name() == name })
}

// Flags named in the texts exist.
func TestHelpNamesFlags(t *testing.T) {
	said, _ := asked(t, "run", "--help")
	for name, text := range texts() {
		for _, flag := range regexp.MustCompile(`--[a-z]+`).FindAllString(text, -1) {
			if flag != "--epochs" && !strings.Contains(said, "      "+flag+" ") {
				t.Errorf("%s names %s, which wattspan run does not have", name, flag)
			}
		}
	}
}

// A topic is shown by help, whole, and is offered by the help of the program.
func TestHelpTopics(t *testing.T) {
	overview, code := asked(t, "help")
	if code != 0 || !strings.Contains(overview, "Measure") && !strings.Contains(overview, rootLong) {
		t.Errorf("help: %d\n%s", code, overview)
	}
	if strings.Count(overview, "\n  help ") > 0 || strings.Count(overview, "\n") > 40 {
		t.Errorf("the overview names help as a command, or is long:\n%s", overview)
	}
	for _, topic := range helpTopics() {
		if topic.Short == "" || !topic.IsAdditionalHelpTopicCommand() {
			t.Errorf("%s is no topic", topic.Name())
		}
		said, code := asked(t, "help", topic.Name())
		if code != 0 || strings.TrimSpace(said) != topic.Long {
			t.Errorf("help %s: %d\n%s", topic.Name(), code, said)
		}
		if !strings.Contains(overview, topic.Name()) || !strings.Contains(overview, topic.Short) {
			t.Errorf("%s is not in\n%s", topic.Name(), overview)
		}
	}
}

// The words that a summary uses are explained.
func TestHelpExplainsWords(t *testing.T) {
	words := []string{"PARTIAL", "absent", "unreadable", "covers", "estimated", "PUE", "intensity", "place", "devices", "facility", "emissions"}
	for _, m := range methods {
		words = append(words, strings.TrimSuffix(strings.Split(m, ",")[0], ", not measured"))
	}
	for _, word := range words {
		if !strings.Contains(methodHelp, word) {
			t.Errorf("help method does not explain %q", word)
		}
	}
}

// What there is no help on is an error that scripts see.
func TestHelpOnNothing(t *testing.T) {
	for _, args := range [][]string{{"help", "nonsense"}, {"help", "config", "nonsense"}} {
		var stdout, stderr strings.Builder
		code := execute(t.Context(), args, &stdout, &stderr)
		if want := "wattspan: no help on "; code != exitFailure || !strings.HasPrefix(stderr.String(), want) || stdout.Len() > 0 {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
	var root, stderr strings.Builder
	if execute(t.Context(), []string{"help"}, &root, &stderr); !strings.Contains(root.String(), "--version") {
		t.Errorf("the help does not name --version:\n%s", root.String())
	}
	for _, args := range [][]string{{"help"}, {"help", "run"}, {"help", "method"}, {"help", "config", "show"}} {
		var stdout, stderr strings.Builder
		if code := execute(t.Context(), args, &stdout, &stderr); code != 0 || stdout.Len() == 0 || stderr.Len() > 0 {
			t.Errorf("%q: exit code %d, %q", args, code, stderr.String())
		}
	}
}
