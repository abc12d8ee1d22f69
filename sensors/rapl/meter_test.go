package rapl

import (
	"bytes"
	"strconv"
	"testing"
)

func TestParseEnergy(t *testing.T) {
	for text, want := range map[string]uint64{
		"0\n": 0, "7": 7, "262143328850\n": 262143328850, "12\n\n\n": 12, "007\n": 7,
		"18446744073709551615\n": 1<<64 - 1,
	} {
		if got, ok := parseEnergy([]byte(text)); !ok || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "\n", " 1", "-1\n", "+1\n", "1.5\n", "0x10\n", "1e9\n", "12a", "a12", "1 2",
		"18446744073709551616\n", "99999999999999999999999999999999", "<not supported>\n"} {
		if got, ok := parseEnergy([]byte(text)); ok {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

// parseEnergy understands what strconv does, but for the white space behind.
func FuzzEnergy(f *testing.F) {
	for _, s := range []string{"0\n", "262143328850\n", "18446744073709551616", "-1", "1 2", "12\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := parseEnergy(text)
		want, err := strconv.ParseUint(string(bytes.TrimRight(text, "\n ")), 10, 64)
		if ok != (err == nil) || ok && got != want {
			t.Errorf("%q: %d, %v; strconv has %d, %v", text, got, ok, want, err)
		}
	})
}
