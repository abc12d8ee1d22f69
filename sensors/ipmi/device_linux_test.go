package ipmi

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fakeBMC answers at the other end of a socket, of which the device has one. The
// socket wakes the poller, as the kernel's driver does, and its datagrams are what
// the driver's two calls carry.
type fakeBMC struct {
	t    *testing.T
	here int
	sent []request
	data [][]byte
	// respond is called with each request: it calls answer now, later or never.
	respond func(id int)
}

func newFakeBMC(t *testing.T) (*fakeBMC, bmc) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeBMC{t: t, here: fds[0]}
	t.Cleanup(func() { _ = unix.Close(f.here) })
	d, err := newDevice(os.NewFile(uintptr(fds[1]), "ipmi0"), f.ioctl)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return f, d
}

// answer puts a message into the device's queue.
func (f *fakeBMC) answer(kind byte, id int, data ...byte) {
	if err := unix.Sendmsg(f.here, append([]byte{kind, byte(id)}, data...), nil, nil, 0); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeBMC) ioctl(fd, number uintptr, arg unsafe.Pointer) error {
	switch number {
	case ioctlSend:
		r := *(*request)(arg)
		f.sent = append(f.sent, r)
		f.data = append(f.data, append([]byte(nil), unsafe.Slice(r.message.data, r.message.length)...))
		f.respond(r.id)
		return nil
	case ioctlReceive:
		var buf [1 + 1 + maxMessage + 100]byte
		n, err := unix.Read(int(fd), buf[:])
		if err != nil {
			return err
		}
		r := (*response)(arg)
		r.kind, r.id = int32(buf[0]), int(buf[1])
		fits := copy(unsafe.Slice(r.message.data, r.message.length), buf[2:n])
		r.message.length = uint16(fits)
		if fits < n-2 {
			return unix.EMSGSIZE
		}
		return nil
	default:
		return unix.ENOTTY
	}
}

// The numbers of the kernel's header, as strace shows them of ipmitool.
func TestIoctlNumbers(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 || ioc(iocRead, 0, 0)>>30 != 2 {
		t.Skip("known for the generic 64-bit layout only")
	}
	if ioctlSend != 0x8028690d || ioctlReceive != 0xc030690b {
		t.Errorf("send %#x, receive %#x", ioctlSend, ioctlReceive)
	}
	if unsafe.Sizeof(systemAddress{}) != 8 {
		t.Errorf("an address has %d bytes", unsafe.Sizeof(systemAddress{}))
	}
}

func TestExchange(t *testing.T) {
	f, d := newFakeBMC(t)
	f.respond = func(id int) { f.answer(kindResponse, id, answer220...) }
	got, err := d.exchange(context.Background(), netfnGroup, cmdPowerReading, powerRequest)
	if err != nil || string(got) != string(answer220) {
		t.Fatalf("%x, %v", got, err)
	}
	r := f.sent[0]
	if *r.address != (systemAddress{kind: 0x0c, channel: 0x0f}) || r.addressLength != 8 ||
		r.message.netfn != 0x2c || r.message.cmd != 0x02 || string(f.data[0]) != "\xdc\x01\x00\x00" {
		t.Errorf("sent %+v to %+v: %x", r, *r.address, f.data[0])
	}
}

// The answer comes while the poller waits.
func TestSlowAnswer(t *testing.T) {
	f, d := newFakeBMC(t)
	f.respond = func(id int) {
		time.AfterFunc(20*time.Millisecond, func() { f.answer(kindResponse, id, 0x00, 0xdc) })
	}
	got, err := d.exchange(context.Background(), netfnGroup, cmdPowerReading, powerRequest)
	if err != nil || string(got) != "\x00\xdc" {
		t.Fatalf("%x, %v", got, err)
	}
}

// A dead BMC blocks nobody, and its late answer is not taken for the next one.
func TestDeadThenLate(t *testing.T) {
	f, d := newFakeBMC(t)
	f.respond = func(int) {}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := d.exchange(ctx, netfnGroup, cmdPowerReading, powerRequest); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("dead: %v", err)
	}
	f.respond = func(id int) {
		f.answer(2, id, 0xee)              // an event that nobody asked for
		f.answer(kindResponse, id-1, 0xc3) // the late one
		f.answer(kindResponse, id, 0x00, 0xdc)
	}
	got, err := d.exchange(context.Background(), netfnGroup, cmdPowerReading, powerRequest)
	if err != nil || string(got) != "\x00\xdc" {
		t.Errorf("after it: %x, %v", got, err)
	}
}

// The end of the context is the end of the wait, without a deadline too.
func TestCancelled(t *testing.T) {
	f, d := newFakeBMC(t)
	ctx, cancel := context.WithCancel(context.Background())
	f.respond = func(int) { time.AfterFunc(10*time.Millisecond, cancel) }
	if _, err := d.exchange(ctx, netfnGroup, cmdPowerReading, powerRequest); err == nil {
		t.Error("no error")
	}
}

// What does not fit is cut, not lost: it must not stay in the queue.
func TestLongAnswer(t *testing.T) {
	f, d := newFakeBMC(t)
	f.respond = func(id int) { f.answer(kindResponse, id, []byte(strings.Repeat("x", maxMessage+50))...) }
	got, err := d.exchange(context.Background(), netfnGroup, cmdPowerReading, powerRequest)
	if err != nil || len(got) != maxMessage {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Errors of the driver are told.
func TestDriverErrors(t *testing.T) {
	f, d := newFakeBMC(t)
	for _, errno := range []error{unix.ENODEV, unix.EINVAL} {
		d.(*device).ioctl = func(fd, number uintptr, arg unsafe.Pointer) error { return errno }
		if _, err := d.exchange(context.Background(), netfnGroup, cmdPowerReading, powerRequest); !errors.Is(err, errno) {
			t.Errorf("%v for %v", err, errno)
		}
	}
	f.respond = func(id int) {}
	d.(*device).ioctl = func(fd, number uintptr, arg unsafe.Pointer) error {
		if number == ioctlReceive {
			return unix.ENXIO
		}
		return f.ioctl(fd, number, arg)
	}
	if _, err := d.exchange(context.Background(), netfnGroup, cmdPowerReading, powerRequest); !errors.Is(err, unix.ENXIO) {
		t.Errorf("receive: %v", err)
	}
}

// A file that cannot be waited for would hang: it is refused, as /dev/ipmi0 made
// of an ordinary file is.
func TestNotADevice(t *testing.T) {
	path := t.TempDir() + "/ipmi0"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := openDevice(path); err == nil {
		_ = d.Close()
		t.Error("opened")
	}
}
