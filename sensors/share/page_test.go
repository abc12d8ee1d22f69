//go:build linux || darwin

package share

import (
	"encoding/binary"
	"math"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func TestADescriptionComesBackWhole(t *testing.T) {
	id := identity{1, 2, 3}
	d := description{
		PID: 7, RunID: "run", Interval: time.Second,
		Devices: []described{{Device: sensors.Device{
			ID: "GPU-0", Index: 3, Name: "n", Vendor: "v", Component: sensors.GPU, Method: sensors.MethodPower,
			Scope: sensors.ScopeModule, Source: "s", Note: "ü", ErrorBand: 0.05, Refresh: time.Millisecond, Parent: "p",
			Whole: true, Includes: []sensors.Component{sensors.CPU}, Declared: true, Parts: []sensors.Part{{ID: "MIG-1", Share: 0.5}},
		}, Unread: true}},
		Omitted: []omission{{Source: "rapl", Device: "d", Reason: "r", Remedy: "m", Component: sensors.CPU, Status: sensors.Unreadable, Cause: 2}},
	}
	buf, err := encodeDescription(id, 5, d)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := decodeDescription(buf, id, 5); !ok || !reflect.DeepEqual(got, d) {
		t.Errorf("%+v, %v, want %+v", got, ok, d)
	}
	if _, ok := decodeDescription(buf, id, 6); ok {
		t.Error("it is taken for that of another generation")
	}
	if _, ok := decodeDescription(buf, identity{1}, 5); ok {
		t.Error("it is taken for that of another machine")
	}
	for i := range buf {
		if i >= 40 && i < describeHead {
			continue // not used
		}
		bad := append([]byte(nil), buf...)
		bad[i] ^= 0x10
		if _, ok := decodeDescription(bad, id, 5); ok {
			t.Errorf("byte %d can be anything", i)
		}
		if _, ok := decodeDescription(buf[:i], id, 5); ok {
			t.Errorf("%d bytes of %d are enough", i, len(buf))
		}
	}
}

// A band that is no number would keep the device out of the page.
func TestABandThatIsNoNumberIsTheWidest(t *testing.T) {
	for _, band := range []float64{math.NaN(), math.Inf(1), 0, -1, 7} {
		d := description{Interval: 1, Devices: []described{{Device: sensors.Device{ID: "x", ErrorBand: band}}}}
		buf, err := encodeDescription(identity{}, 1, d)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := decodeDescription(buf, identity{}, 1); !ok || got.Devices[0].ErrorBand != 1 {
			t.Errorf("band %v: %+v, %v", band, got.Devices, ok)
		}
		if d.Devices[0].ErrorBand == 1 {
			t.Error("the caller's device is changed")
		}
	}
}

func TestASnapshotComesBackWholeOrNotAtAll(t *testing.T) {
	id := identity{1, 2, 3}
	h := header{sequence: 9, generation: 8, lineage: 7, at: 6, written: 5, gap: 4, handovers: 3, pid: 2, count: 2, sampled: true}
	records := []record{
		{at: 1, Tally: sensors.Tally{Energy: 2, Observed: 3, Estimated: 4, Resets: 5, Rejected: 6, Variance: 7},
			power: 8, utilization: 0.5, band: 0.25, method: 3, cause: 2, doubted: true},
		{at: math.MaxInt64, Tally: sensors.Tally{Energy: math.MaxUint64}},
	}
	buf := make([]byte, snapshotHead+len(records)*recordSize)
	for i := range records {
		records[i].put(buf, i)
	}
	buf = seal(buf, id, h)
	s, ok, more := unseal(buf, id)
	if !ok || more || s.header != h {
		t.Fatalf("%+v, %v, %v, want %+v", s.header, ok, more, h)
	}
	for i, want := range records {
		if got := s.record(i); got != want {
			t.Errorf("record %d: %+v, want %+v", i, got, want)
		}
	}
	if _, ok, _ := unseal(buf, identity{1}); ok {
		t.Error("it is taken for that of another machine")
	}
	for i := range buf {
		if i >= 92 && i < snapshotHead {
			continue // not used
		}
		bad := append([]byte(nil), buf...)
		bad[i] ^= 0x10
		if _, ok, _ := unseal(bad, id); ok {
			t.Errorf("byte %d can be anything", i)
		}
		if _, ok, more := unseal(buf[:i], id); ok || more != (i >= snapshotHead) {
			t.Errorf("%d bytes of %d: %v, more %v", i, len(buf), ok, more)
		}
	}
}

// FuzzPage reads pages that are anything. mended makes the checksums right, so that
// what is behind them is read too. Whatever is there, a follower does not panic,
// never counts backwards, and says nothing that a reading cannot say.
func FuzzPage(f *testing.F) {
	l := newLab(f)
	owner := l.join("a", l.open(cpu, gpu))
	owner.sample()
	l.run(2, owner)
	whole, err := os.ReadFile(l.pagePath())
	if err != nil {
		f.Fatal(err)
	}
	slot := whole[slotOf(owner.page.sequence):][:snapshotHead+2*recordSize]
	place := int64(owner.page.generation%2) * describeSize
	text := whole[place:][:describeHead+binary.LittleEndian.Uint32(whole[place+32:])]
	f.Add(slot, text, true)
	f.Add(slot[:100], text[:50], false)
	f.Add([]byte{}, []byte{}, false)
	odd := append([]byte(nil), slot...)
	for i := snapshotHead; i < len(odd); i++ {
		odd[i] = 0xff
	}
	f.Add(odd, text, true)
	f.Fuzz(func(t *testing.T, slot, text []byte, mended bool) {
		l := newLab(t)
		owner := l.join("a", l.open(cpu, gpu))
		owner.sample()
		follower := l.join("b", l.open(cpu, gpu))
		follower.sample()
		l.run(1, owner, follower)
		was := append([]sensors.Reading(nil), follower.readings...)
		if mended {
			slot, text = mend(owner, slot, text)
		}
		l.damage(0, append(append([]byte(nil), text[:min(len(text), describeSize)]...), 0))
		l.damage(describeSize, text[:min(len(text), describeSize)])
		l.damage(slotOf(1), slot[:min(len(slot), slotSize)])
		check := func() {
			t.Helper()
			for i, r := range follower.readings {
				if !grows(was[i].Tally, r.Tally) || r.At.Before(was[i].At) || r.At.After(l.clock.Now()) {
					t.Fatalf("from %+v to %+v", was[i], r)
				}
				if r.Power < 0 || math.IsInf(float64(r.Power), 0) || r.Utilization < 0 || r.Utilization > 1 || r.ErrorBand < 0 || r.ErrorBand > 1 {
					t.Fatalf("%+v", r)
				}
			}
			copy(was, follower.readings)
		}
		follower.sample()
		check()
		// The owner goes on, whatever happened to its page, and another after it.
		l.run(2, owner, follower)
		check()
		owner.Leave()
		l.run(2, follower)
		check()
		if !follower.isOwner() {
			t.Fatal("nobody took over")
		}
		for _, r := range follower.readings {
			if r.Err != nil {
				t.Fatalf("after the hand-over: %v", r.Err)
			}
		}
		// Somebody who comes later follows.
		late := l.join("c", l.open(cpu, gpu))
		late.sample()
		l.run(1, follower, late)
		for _, r := range late.readings {
			if r.Err != nil || r.Energy == 0 {
				t.Fatalf("a late follower: %+v", r)
			}
		}
	})
}

// mend puts the owner's names and right checksums into a page.
func mend(owner *tracker, slot, text []byte) (s, d []byte) {
	s, d = append([]byte(nil), slot...), append([]byte(nil), text...)
	if len(s) >= snapshotHead {
		copy(s, magic[:])
		copy(s[8:], owner.id[:])
		if n := snapshotHead + int(binary.LittleEndian.Uint32(s[80:]))%(maxDevices+1)*recordSize; n <= len(s) {
			binary.LittleEndian.PutUint32(s[88:], checksum(s[:88], s[snapshotHead:n]))
		}
	}
	if len(d) >= describeHead {
		copy(d, magic[:])
		copy(d[8:], owner.id[:])
		if n := binary.LittleEndian.Uint32(d[32:]); uint64(n) <= uint64(len(d)-describeHead) {
			binary.LittleEndian.PutUint32(d[36:], checksum(d[:36], d[describeHead:describeHead+n]))
		}
	}
	return s, d
}
