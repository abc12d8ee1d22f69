package ipmi

import (
	"errors"
	"testing"

	"github.com/wattspan/wattspan/sensors"
)

// answer220 is what a BMC of a server says that draws 220 W, has drawn 18 to
// 409 W, and measures over 5 s.
var answer220 = []byte{
	0x00, 0xdc,
	220, 0, 18, 0, 0x99, 0x01, 215, 0,
	0x31, 0x8a, 0x5e, 0x66,
	0x88, 0x13, 0, 0,
	0x40,
}

func TestParsePower(t *testing.T) {
	with := func(change func(a []byte)) []byte {
		a := append([]byte(nil), answer220...)
		change(a)
		return a
	}
	for name, c := range map[string]struct {
		answer []byte
		want   powerReading
		err    error
	}{
		"specification": {answer: answer220, want: powerReading{220, 18, 409, 215}},
		"low byte first": {answer: with(func(a []byte) { a[2], a[3] = 0xd0, 0x20 }),
			want: powerReading{8400, 18, 409, 215}},
		"OpenBMC has active in bit 1": {answer: with(func(a []byte) { a[18] = 0x02 }),
			want: powerReading{220, 18, 409, 215}},
		"more than was asked for": {answer: append(with(func([]byte) {}), 0, 0), want: powerReading{220, 18, 409, 215}},
		"measurement off":         {answer: with(func(a []byte) { a[18] = 0 }), err: errOff},
		"reserved bits alone":     {answer: with(func(a []byte) { a[18] = 0x80 | 0x3d }), err: errOff},
		"unavailable is not zero": {answer: with(func(a []byte) { a[2] = 0 }), err: errNoPower},
		"no value yet":            {answer: with(func(a []byte) { a[2], a[3] = 0xff, 0xff }), err: sensors.ErrTransient},
		"another group":           {answer: with(func(a []byte) { a[1] = 0x00 }), err: sensors.ErrUnsupported},
		"cut":                     {answer: answer220[:18], err: sensors.ErrTransient},
		"empty":                   {answer: nil, err: sensors.ErrTransient},
		"no such command":         {answer: []byte{0xc1}, err: sensors.ErrUnsupported},
		"no such command, padded": {answer: with(func(a []byte) { a[0] = 0xc1 }), err: sensors.ErrUnsupported},
		"no such mode":            {answer: []byte{0xcc, 0xdc}, err: sensors.ErrUnsupported},
		"not from the host":       {answer: []byte{0xd4}, err: sensors.ErrPermission},
		"disabled":                {answer: []byte{0xd6}, err: sensors.ErrUnsupported},
		"busy":                    {answer: []byte{0xc0}, err: sensors.ErrTransient},
		"the kernel gave up":      {answer: []byte{0xc3}, err: sensors.ErrTimeout},
		"being updated":           {answer: []byte{0xd1}, err: sensors.ErrTransient},
		"unspecified":             {answer: []byte{0xff}, err: sensors.ErrTransient},
		"of the command":          {answer: []byte{0x80}, err: sensors.ErrTransient},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePower(c.answer)
			if !errors.Is(err, c.err) || got != c.want {
				t.Errorf("%x: %+v, %v; want %+v, %v", c.answer, got, err, c.want, c.err)
			}
		})
	}
}

// Whatever a BMC sends, there is a power between 1 and 65534 W or a reason.
func FuzzPower(f *testing.F) {
	f.Add(answer220)
	f.Add([]byte{0xc1})
	f.Fuzz(func(t *testing.T, answer []byte) {
		r, err := parsePower(answer)
		if (err == nil) != (r.current > 0 && r.current < 0xffff) {
			t.Errorf("%x: %+v, %v", answer, r, err)
		}
		for _, known := range []error{sensors.ErrUnsupported, sensors.ErrPermission, sensors.ErrTimeout, sensors.ErrTransient} {
			if err == nil || errors.Is(err, known) {
				return
			}
		}
		t.Errorf("%x: %v is no reason of package sensors", answer, err)
	})
}
