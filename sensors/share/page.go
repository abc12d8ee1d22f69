package share

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// The page is a file of fixed layout, little-endian:
//
//	0     description of the even generations
//	128K  description of the odd generations
//	256K  snapshot of the even sequence numbers
//	288K  snapshot of the odd sequence numbers
//
// A generation is the time of one owner. Its description is written once, then
// only snapshots are, in turn. Whatever write is cut short, the newest snapshot
// that is whole has its description: the next generation's is in the other place.
const (
	// version is that of the layout; it is in the name of the file too, so that
	// two versions never meet in one page.
	version = 1

	maxDevices = 256

	describeSize = 128 << 10
	slotSize     = 32 << 10
	slotsAt      = 2 * describeSize
	pageSize     = slotsAt + 2*slotSize

	describeHead = 48
	snapshotHead = 96
	recordSize   = 80
)

// identity names one boot of one machine, as far as it has one clock.
type identity [16]byte

var magic = [8]byte{'W', 'A', 'T', 'T', 'S', 'P', 'N', version}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// description is what an owner says once.
type description struct {
	PID      int
	RunID    string
	Interval time.Duration
	Devices  []described
	Omitted  []omission
}

// described is a device of the page.
type described struct {
	sensors.Device
	// Unread is set where this owner cannot read the device: it is in the page
	// because its energy goes on when an owner comes that can.
	Unread bool `json:",omitempty"`
}

// omission is a sensors.Omission with its cause as a code.
type omission struct {
	Source, Device, Reason, Remedy string
	Component                      sensors.Component
	Status                         sensors.Status
	Cause                          uint8
}

// errTooLarge is returned when a machine has more devices than a page can hold.
var errTooLarge = fmt.Errorf("too many devices for one page: %w", sensors.ErrUnsupported)

// encodeDescription returns the description of a generation as it is in the page.
func encodeDescription(id identity, generation uint64, d description) ([]byte, error) {
	d.Devices = slices.Clone(d.Devices)
	for i := range d.Devices {
		if !finite(d.Devices[i].ErrorBand) {
			d.Devices[i].ErrorBand = 1
		}
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if len(d.Devices) > maxDevices || describeHead+len(text) > describeSize {
		return nil, errTooLarge
	}
	buf := make([]byte, describeHead, describeHead+len(text))
	copy(buf, magic[:])
	copy(buf[8:], id[:])
	binary.LittleEndian.PutUint64(buf[24:], generation)
	binary.LittleEndian.PutUint32(buf[32:], uint32(len(text)))
	buf = append(buf, text...)
	binary.LittleEndian.PutUint32(buf[36:], checksum(buf[:36], buf[describeHead:]))
	return buf, nil
}

// decodeDescription returns the description in buf, if it is whole, of this
// generation, and makes sense.
func decodeDescription(buf []byte, id identity, generation uint64) (description, bool) {
	var d description
	if len(buf) < describeHead || [8]byte(buf) != magic || identity(buf[8:]) != id ||
		binary.LittleEndian.Uint64(buf[24:]) != generation {
		return d, false
	}
	n := binary.LittleEndian.Uint32(buf[32:])
	if uint64(n) > uint64(len(buf)-describeHead) {
		return d, false
	}
	text := buf[describeHead : describeHead+int(n)]
	if binary.LittleEndian.Uint32(buf[36:]) != checksum(buf[:36], text) || json.Unmarshal(text, &d) != nil {
		return d, false
	}
	seen := map[string]bool{}
	for i := range d.Devices {
		device := &d.Devices[i]
		if device.ID == "" || seen[device.ID] || device.Refresh < 0 {
			return d, false
		}
		seen[device.ID] = true
		if !(device.ErrorBand > 0 && device.ErrorBand <= 1) {
			device.ErrorBand = 1
		}
	}
	return d, len(d.Devices) <= maxDevices && d.Interval > 0 && d.Interval < math.MaxInt64/8
}

// header is what a snapshot says of itself. Its times are those of the machine's
// monotonic clock, in ns.
type header struct {
	sequence, generation, lineage uint64
	at                            int64 // of the last sample of the lineage, 0 where there was none
	written                       int64
	gap                           int64 // the sum of all gaps of the lineage
	handovers                     uint32
	pid, count                    uint32
	sampled                       bool // whether this owner has taken a sample yet
}

// record is one device in a snapshot. Its energy is that of the lineage.
type record struct {
	sensors.Tally
	at                int64 // 0 where the device has never been read
	power             float64
	utilization, band float64
	method            uint8
	cause             uint8 // of its error
	doubted           bool
}

// snapshot is a snapshot that is whole. Its records are decoded one by one.
type snapshot struct {
	header
	records []byte
}

func checksum(head, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body)
}

// seal completes a snapshot whose records are in buf already, and returns it.
func seal(buf []byte, id identity, h header) []byte {
	le := binary.LittleEndian
	buf = buf[:snapshotHead+int(h.count)*recordSize]
	clear(buf[:snapshotHead])
	copy(buf, magic[:])
	copy(buf[8:], id[:])
	le.PutUint64(buf[24:], h.sequence)
	le.PutUint64(buf[32:], h.generation)
	le.PutUint64(buf[40:], h.lineage)
	le.PutUint64(buf[48:], uint64(h.at))
	le.PutUint64(buf[56:], uint64(h.written))
	le.PutUint64(buf[64:], uint64(h.gap))
	le.PutUint32(buf[72:], h.handovers)
	le.PutUint32(buf[76:], h.pid)
	le.PutUint32(buf[80:], h.count)
	if h.sampled {
		buf[84] = 1
	}
	le.PutUint32(buf[88:], checksum(buf[:88], buf[snapshotHead:]))
	return buf
}

// unseal returns the snapshot in buf, if it is whole and of this machine. more is
// set where the snapshot is longer than buf.
func unseal(buf []byte, id identity) (s snapshot, ok, more bool) {
	le := binary.LittleEndian
	if len(buf) < snapshotHead || [8]byte(buf) != magic || identity(buf[8:]) != id {
		return s, false, false
	}
	s.header = header{
		sequence: le.Uint64(buf[24:]), generation: le.Uint64(buf[32:]), lineage: le.Uint64(buf[40:]),
		at: int64(le.Uint64(buf[48:])), written: int64(le.Uint64(buf[56:])), gap: int64(le.Uint64(buf[64:])),
		handovers: le.Uint32(buf[72:]), pid: le.Uint32(buf[76:]), count: le.Uint32(buf[80:]),
		sampled: buf[84] == 1,
	}
	if s.count > maxDevices {
		return s, false, false
	}
	end := snapshotHead + int(s.count)*recordSize
	if end > len(buf) {
		return s, false, true
	}
	s.records = buf[snapshotHead:end]
	return s, le.Uint32(buf[88:]) == checksum(buf[:88], s.records), false
}

// put stores r as record i of the snapshot in buf.
func (r *record) put(buf []byte, i int) {
	le := binary.LittleEndian
	b := buf[snapshotHead+i*recordSize:][:recordSize]
	le.PutUint64(b[0:], uint64(r.at))
	le.PutUint64(b[8:], uint64(r.Energy))
	le.PutUint64(b[16:], uint64(r.Observed))
	le.PutUint64(b[24:], uint64(r.Estimated))
	le.PutUint64(b[32:], math.Float64bits(r.Variance))
	le.PutUint64(b[40:], math.Float64bits(r.power))
	le.PutUint64(b[48:], math.Float64bits(r.utilization))
	le.PutUint64(b[56:], math.Float64bits(r.band))
	le.PutUint32(b[64:], r.Resets)
	le.PutUint32(b[68:], r.Rejected)
	b[72], b[73], b[74] = r.method, r.cause, 0
	if r.doubted {
		b[74] = 1
	}
}

// record returns record i. What makes no sense in it is taken for unknown.
func (s *snapshot) record(i int) record {
	le := binary.LittleEndian
	b := s.records[i*recordSize:][:recordSize]
	r := record{
		at: int64(le.Uint64(b[0:])),
		Tally: sensors.Tally{
			Energy:    sensors.Microjoules(le.Uint64(b[8:])),
			Observed:  max(time.Duration(le.Uint64(b[16:])), 0),
			Estimated: max(time.Duration(le.Uint64(b[24:])), 0),
			Variance:  math.Float64frombits(le.Uint64(b[32:])),
			Resets:    le.Uint32(b[64:]),
			Rejected:  le.Uint32(b[68:]),
		},
		power:       math.Float64frombits(le.Uint64(b[40:])),
		utilization: math.Float64frombits(le.Uint64(b[48:])),
		band:        math.Float64frombits(le.Uint64(b[56:])),
		method:      b[72], cause: b[73], doubted: b[74] == 1,
	}
	if !finite(r.Variance) || r.Variance < 0 {
		r.Variance = 0
	}
	if !finite(r.power) || r.power < 0 {
		r.power = math.NaN()
	}
	if !(r.utilization >= 0 && r.utilization <= 1) {
		r.utilization = math.NaN()
	}
	if !(r.band > 0 && r.band <= 1) {
		r.band = 0
	}
	return r
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// methods are in the page as their place here.
var methods = [...]sensors.Method{"", sensors.MethodCounter, sensors.MethodPowerAverage,
	sensors.MethodPower, sensors.MethodModel, sensors.MethodConstant}

func codeOfMethod(m sensors.Method) uint8 {
	return uint8(max(slices.Index(methods[:], m), 0))
}

func methodOf(code uint8) sensors.Method {
	if int(code) < len(methods) {
		return methods[code]
	}
	return ""
}

// causes are in the page as their place here; otherCause is any other error.
var causes = [...]error{nil, sensors.ErrAbsent, sensors.ErrPermission, sensors.ErrUnsupported,
	sensors.ErrLost, sensors.ErrTimeout, sensors.ErrTransient}

const otherCause = uint8(len(causes))

// told are the errors that a follower reports for what the owner says of a device.
// They are made here once, as Read allocates nothing.
var told = func() (all [otherCause + 1]error) {
	for i, cause := range causes {
		if cause != nil {
			all[i] = fmt.Errorf("share: read by another process: %w", cause)
		}
	}
	all[otherCause] = errors.New("share: read by another process: the sensor failed")
	return all
}()

// errDoubted is the doubt of a follower whose owner has one.
var errDoubted = fmt.Errorf("share: read by another process: %w", sensors.ErrDisagreement)

func codeOfCause(err error) uint8 {
	if err == nil {
		return 0
	}
	for i, cause := range causes {
		if cause != nil && errors.Is(err, cause) {
			return uint8(i)
		}
	}
	return otherCause
}

func causeOf(code uint8) error { return told[min(code, otherCause)] }

// omissionsOf and withCause convert the omissions of a set and of a page.
func omissionsOf(set *sensors.Set) []omission {
	var all []omission
	for _, o := range set.Omissions() {
		all = append(all, omission{
			Source: o.Source, Device: o.Device, Reason: o.Reason, Remedy: o.Remedy,
			Component: o.Component, Status: o.Status, Cause: codeOfCause(o.Err),
		})
	}
	return all
}

func (o omission) withCause() sensors.Omission {
	return sensors.Omission{
		Source: o.Source, Device: o.Device, Reason: o.Reason, Remedy: o.Remedy,
		Component: o.Component, Status: o.Status, Err: causeOf(o.Cause),
	}
}
