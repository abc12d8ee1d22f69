package host

import (
	"os"
	"testing"
)

func TestIsAncestor(t *testing.T) {
	parent := os.Getppid()
	for _, test := range []struct {
		name string
		pid  int
		want bool
	}{
		{"the parent", parent, true},
		{"its parent", parentOf(parent), parentOf(parent) > 0},
		{"this process", os.Getpid(), false},
		{"nobody", 0, false},
		{"a negative number", -1, false},
		{"a number that no process has", 1 << 30, false},
	} {
		if got := IsAncestor(test.pid); got != test.want {
			t.Errorf("%s (%d): %v, want %v", test.name, test.pid, got, test.want)
		}
	}
}

func TestParseParent(t *testing.T) {
	for text, want := range map[string]int{
		"42 (sh) S 41 42 42 0":           41,
		"42 (a) S 1 (b) R 7 42 42 0":     7,
		"42 (a\nb) Z 12 42":              12,
		"42 (sh) S 4":                    0, // cut off
		"42 (sh)":                        0,
		"42 (sh) S -1 0":                 0,
		"":                               0,
		"42 (sh) S 99999999999999999 1 ": 0,
	} {
		if got := parseParent([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func FuzzParseParent(f *testing.F) {
	f.Add([]byte("42 (a) S 1 (b) R 7 42 42 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := parseParent(text); got < 0 {
			t.Errorf("%q: %d", text, got)
		}
	})
}
