package node

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParsePoints(t *testing.T) {
	want := []Point{{Sensed: 40, Wall: 95}, {Sensed: 310.5, Wall: 390}}
	for name, text := range map[string]string{
		"plain":               "sensed_w,wall_w\n40,95\n310.5,390\n",
		"the other order":     "wall_w,sensed_w\n95,40\n390,310.5",
		"further columns":     "run,sensed_w,model,wall_w,note\n1,40,\"a,b\",95,\n2,310.5,x,390,\"two\nlines\"\n",
		"a BOM":               "\xef\xbb\xbfsensed_w,wall_w\n40,95\n310.5,390\n",
		"capitals":            "Sensed_W,WALL_W\n40,95\n310.5,390\n",
		"semicolons":          "sensed_w;wall_w\n40;95\n310.5;390\n",
		"decimal commas":      "sensed_w;wall_w\n40,0;95\n310,5;390,00\n",
		"tabs":                "sensed_w\twall_w\n40\t95\n310.5\t390\n",
		"empty fields":        "a\tsensed_w\twall_w\n\t40\t95\n\t310,5\t390\n",
		"lines of Windows":    "sensed_w,wall_w\r\n40,95\r\n\r\n310.5,390\r\n",
		"spaces":              " sensed_w , \"wall_w\"\n 40 , 95 \n310.5,\t390\n",
		"quotes":              "\"sensed_w\",\"wall_w\"\n\"40\",\"95\"\n310.5,\"390\"\n",
		"comments and blanks": "# a, meter; of ours\n\n   \nsensed_w,wall_w\n# idle\n40,95\n,,\n\n#0,0\n310.5,390\n",
		"exponents":           "sensed_w,wall_w\n4e1,9.5e1\n3.105e2,390\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePoints(strings.NewReader(text))
			if err != nil || len(got) != len(want) {
				t.Fatalf("%v, %v", got, err)
			}
			for i := range want {
				if got[i].Sensed != want[i].Sensed || got[i].Wall != want[i].Wall {
					t.Errorf("point %d: %v, want %v", i, got[i], want[i])
				}
			}
		})
	}
}

func TestParsePointsErrors(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{"no header"}},
		{"only comments", "# sensed_w,wall_w\n", []string{"no header"}},
		{"no header", "40,95\n310,390\n", []string{"line 1", "no column sensed_w"}},
		{"a column is missing", "\nsensed_w,wall\n40,95\n", []string{"line 2", "no column wall_w"}},
		{"a column twice", "sensed_w,wall_w,Wall_W\n40,95,96\n", []string{"line 1", "two columns wall_w"}},
		{"no points", "sensed_w,wall_w\n\n", []string{"no point below the header"}},
		{"words", "sensed_w,wall_w\n40,95\nforty,95\n", []string{"line 3: sensed_w", `"forty"`, "not a number"}},
		{"a short row", "sensed_w,wall_w\n40\n", []string{"line 2: wall_w is missing"}},
		{"an empty field", "sensed_w,wall_w\n,95\n", []string{"line 2: sensed_w is missing"}},
		{"a thousand with a comma", "sensed_w;wall_w\n1,000.5;2\n", []string{"line 2", "not a number"}},
		{"a thousand in a field of its own", "sensed_w,wall_w\n\"1,000\",1200\n", []string{"line 2: sensed_w", "not a number"}},
		{"negative", "sensed_w,wall_w\n-1,95\n", []string{"line 2: sensed_w is -1"}},
		{"a plug at zero", "sensed_w,wall_w\n0,0\n", []string{"line 2: wall_w is 0"}},
		{"not a number", "sensed_w,wall_w\nNaN,95\n40,Inf\n", []string{"line 2: sensed_w is NaN", "line 3: wall_w is +Inf"}},
		{"too much", "sensed_w,wall_w\n1,1e300\n", []string{"line 2: wall_w is 1e+300"}},
		{"every bad row", "sensed_w,wall_w\na,1\n1,2\nb,1\n\n# c\nc,1\n", []string{"line 2", "line 4", "line 7"}},
		{"UTF-16", "\xff\xfes\x00e\x00", []string{"UTF-16"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			points, err := ParsePoints(strings.NewReader(test.text))
			if !errors.Is(err, ErrPoints) || points != nil {
				t.Fatalf("%v, %v", points, err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
		})
	}
	// The wrong file, a large one, does not fill the terminal.
	if _, err := ParsePoints(strings.NewReader("sensed_w,wall_w\n" + strings.Repeat("x,y\n", 10000))); strings.Count(err.Error(), "line ") != mostErrors {
		t.Errorf("%v", err)
	}
}

// The line is where an editor shows it.
func TestParsePointsLines(t *testing.T) {
	points, err := ParsePoints(strings.NewReader("# by hand\n\nnote,sensed_w,wall_w\n\"two\nlines\",40,95\n\n# on\nx,50,99\n"))
	if err != nil || len(points) != 2 || points[0].Line != 4 || points[1].Line != 8 {
		t.Errorf("%v, %v", points, err)
	}
}

// FuzzParsePoints: whatever the file holds, points are powers, the error wraps its
// reason, and what was parsed is parsed again from what is written of it.
func FuzzParsePoints(f *testing.F) {
	f.Add([]byte("sensed_w,wall_w\n40,95\n310.5,390\n"))
	f.Add([]byte("\xef\xbb\xbfWall_W;x;sensed_w\n# c\n95,5;;40\n"))
	f.Add([]byte("sensed_w\twall_w\n\"40\t95\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		points, err := ParsePoints(bytes.NewReader(data))
		if err != nil {
			if points != nil || !errors.Is(err, ErrPoints) {
				t.Fatalf("%v, %v", points, err)
			}
			return
		}
		text := "sensed_w,wall_w\n"
		for _, p := range points {
			if p.validate() != nil || p.Line < 1 {
				t.Fatalf("%+v", p)
			}
			text += fmt.Sprintf("%v,%v\n", float64(p.Sensed), float64(p.Wall))
		}
		again, err := ParsePoints(strings.NewReader(text))
		if err != nil || len(again) != len(points) {
			t.Fatalf("%v became %v, %v", points, again, err)
		}
		for i := range again {
			if again[i].Sensed != points[i].Sensed || again[i].Wall != points[i].Wall {
				t.Fatalf("%v became %v", points[i], again[i])
			}
		}
		if p, q, err := Fit(points); err == nil && (p.Validate() != nil || q.N != len(points)) {
			t.Fatalf("fit of %v: %+v, %+v", points, p, q)
		}
	})
}
