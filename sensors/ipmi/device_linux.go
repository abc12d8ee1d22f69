package ipmi

import (
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's interface, include/uapi/linux/ipmi.h. The fields that the
// compiler aligns are aligned by Go in the same way.
type (
	systemAddress struct {
		kind    int32
		channel int16
		_       [2]uint8 // the LUN, which is 0, and padding
	}
	message struct {
		netfn, cmd uint8
		length     uint16
		data       *byte
	}
	request struct {
		address       *systemAddress
		addressLength uint32
		id            int // a long in C
		message       message
	}
	response struct {
		kind          int32
		address       *[32]byte // struct ipmi_addr, the largest of the addresses
		addressLength uint32
		id            int
		message       message
	}
)

const (
	systemInterface = 0x0c // the address type of the BMC itself
	channelBMC      = 0x0f
	kindResponse    = 1
	maxMessage      = 272 // IPMI_MAX_MSG_LENGTH
)

var (
	ioctlSend    = ioc(iocRead, 13, unsafe.Sizeof(request{}))
	ioctlReceive = ioc(iocRead|iocWrite, 11, unsafe.Sizeof(response{})) // IPMICTL_RECEIVE_MSG_TRUNC
)

// The directions of an ioctl number, and where they begin. Three architectures
// have their own.
const (
	iocRead  = 1
	iocWrite = 2
)

func ioc(direction, number, size uintptr) uintptr {
	read, write, shift := uintptr(2), uintptr(1), 30
	switch runtime.GOARCH {
	case "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le":
		read, write, shift = 2, 4, 29
	}
	var bits uintptr
	if direction&iocRead != 0 {
		bits |= read
	}
	if direction&iocWrite != 0 {
		bits |= write
	}
	return bits<<shift | size<<16 | 'i'<<8 | number
}

// device is an open IPMI device. It is waited for by the runtime's poller, so
// that a BMC that never answers blocks no thread and ends with its deadline.
type device struct {
	file  *os.File
	conn  syscall.RawConn
	ioctl func(fd, request uintptr, arg unsafe.Pointer) error

	id       int
	buf      [maxMessage]byte
	sender   [32]byte
	response response
}

var _ bmc = (*device)(nil)

func openDevice(path string) (bmc, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return newDevice(file, ioctl)
}

func newDevice(file *os.File, ioctl func(fd, request uintptr, arg unsafe.Pointer) error) (bmc, error) {
	conn, err := file.SyscallConn()
	if err == nil {
		// Without a deadline a dead BMC would hold the goroutine for ever.
		err = file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &device{file: file, conn: conn, ioctl: ioctl}, nil
}

func ioctl(fd, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// exchange implements bmc.
func (d *device) exchange(ctx context.Context, netfn, cmd byte, data []byte) ([]byte, error) {
	deadline, _ := ctx.Deadline() // the zero time is none
	if err := d.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = d.file.SetReadDeadline(time.Unix(1, 0))
		close(ended)
	})
	defer func() {
		if !stop() {
			<-ended // it must not end the next exchange
		}
	}()
	d.id++
	if err := d.send(netfn, cmd, data); err != nil {
		return nil, err
	}
	var answer []byte
	var failed error
	err := d.conn.Read(func(fd uintptr) bool {
		answer, failed = d.receive(fd)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return answer, errors.Join(err, failed)
}

func (d *device) send(netfn, cmd byte, data []byte) error {
	r := &request{
		address:       &systemAddress{kind: systemInterface, channel: channelBMC},
		addressLength: uint32(unsafe.Sizeof(systemAddress{})),
		id:            d.id,
		message:       message{netfn: netfn, cmd: cmd, length: uint16(len(data)), data: unsafe.SliceData(data)},
	}
	var failed error
	err := d.conn.Control(func(fd uintptr) { failed = d.ioctl(fd, ioctlSend, unsafe.Pointer(r)) })
	runtime.KeepAlive(r)
	return errors.Join(err, failed)
}

// receive takes the answer from the queue, or returns EAGAIN. Before it there can
// be answers that came too late for those who asked.
func (d *device) receive(fd uintptr) ([]byte, error) {
	for {
		d.response = response{
			address: &d.sender, addressLength: uint32(len(d.sender)),
			message: message{data: &d.buf[0], length: uint16(len(d.buf))},
		}
		err := d.ioctl(fd, ioctlReceive, unsafe.Pointer(&d.response))
		if err != nil && !errors.Is(err, unix.EMSGSIZE) { // cut, not lost
			return nil, err
		}
		if d.response.kind == kindResponse && d.response.id == d.id {
			n := min(int(d.response.message.length), len(d.buf))
			return d.buf[:n:n], nil
		}
	}
}

// Close implements bmc.
func (d *device) Close() error { return d.file.Close() }
