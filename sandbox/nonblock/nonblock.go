// Package nonblock makes system calls that make nobody wait, and so need not be told to Go's runtime: on sockets and pipes
// without a peer's answer (O_NONBLOCK, open(2)), and on small files that the kernel makes up.
//
// A call by way of packages os, net and syscall is announced to the runtime, since it may take long. If the process was asleep
// until then, the announcement wakes a thread of the runtime (sysmon), which looks after the call every 20 µs until the process
// sleeps again. In a process that sleeps, works for some 100 µs and sleeps again, as all of rtask's do for a job, that thread
// was a fifth of the processor time. A call that was not announced (syscall.RawSyscall) holds up the goroutines of its thread's
// processor for as long as it takes, so none is here that waits for a disk, a network or another process.
//
// That thread is also the one that interrupts a goroutine after 10 ms, so that others can run. Who is about to compute for longer
// than that wakes it (Announce), as does who reads without an end (Meter).
package nonblock

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Announce wakes the runtime's monitor thread if it sleeps. It stays awake while any goroutine runs.
func Announce() { _, _, _ = syscall.Syscall(unix.SYS_GETPID, 0, 0, 0) }

// Meter announces what is read, once for each 64 KiB: much to read is much to do. Its zero value is ready to use.
type Meter struct{ unannounced int }

// Add counts n bytes.
func (m *Meter) Add(n int) {
	const each = 64 << 10
	if m.unannounced += n; m.unannounced >= each {
		m.unannounced = 0
		Announce()
	}
}

// ReadFrom reads once there is something, or until the deadline of c. Its error is io.EOF at the end, a syscall.Errno, or that of c.
func ReadFrom(c syscall.RawConn, p []byte) (n int, err error) {
	var failure error
	err = c.Read(func(fd uintptr) bool {
		n, failure = Read(int(fd), p)
		return failure != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case failure != nil:
		return 0, failure
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Send sends one message, with control data (unix(7)), once there is room for it, or until the connection's deadline.
func Send(c syscall.RawConn, p, oob []byte) error {
	var errno syscall.Errno
	err := c.Write(func(fd uintptr) bool {
		h, iov := header(p, oob)
		h.Iov = &iov
		for {
			if _, _, errno = syscall.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&h)), unix.MSG_NOSIGNAL); errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("sendmsg", errno)
	}
	return err
}

// Receive waits for a message, or until the connection's deadline, and returns how much of p and oob it fills, and its flags
// (recvmsg(2)). Descriptors in it are closed on exec. No bytes and no error are the end of a connection.
func Receive(c syscall.RawConn, p, oob []byte) (n, oobn, flags int, err error) {
	var errno syscall.Errno
	err = c.Read(func(fd uintptr) bool {
		h, iov := header(p, oob)
		h.Iov = &iov
		for {
			var r uintptr
			r, _, errno = syscall.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&h)), unix.MSG_CMSG_CLOEXEC)
			if errno == unix.EINTR {
				continue
			}
			n, oobn, flags = int(r), int(h.Controllen), int(h.Flags)
			return errno != unix.EAGAIN
		}
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("recvmsg", errno)
	}
	if err != nil {
		return 0, 0, 0, err
	}
	return n, oobn, flags, nil
}

// header is the two of them as the kernel takes them; what points to them is the caller's to set.
func header(p, oob []byte) (unix.Msghdr, unix.Iovec) {
	h := unix.Msghdr{Iovlen: 1}
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	if len(oob) > 0 {
		h.Control = unsafe.SliceData(oob)
		h.SetControllen(len(oob))
	}
	return h, iov
}
