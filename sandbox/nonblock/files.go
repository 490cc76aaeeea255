package nonblock

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2). Like all here that can be interrupted it begins again after EINTR, and its error is a syscall.Errno.
func Read(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno == 0 {
			return int(n), nil
		} else if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Write is write(2).
func Write(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if errno == 0 {
			return int(n), nil
		} else if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Pread is pread(2).
func Pread(fd int, p []byte, offset int64) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(offset), 0, 0)
		if errno == 0 {
			return int(n), nil
		} else if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Open is openat(2) of a path without a folder's descriptor, with O_CLOEXEC.
func Open(path string, flags int, mode uint32) (int, error) {
	fd, err := at(unix.SYS_OPENAT, path, uintptr(flags|unix.O_CLOEXEC), uintptr(mode))
	return int(fd), err
}

// Close is close(2), which is not begun again.
func Close(fd int) error { return failed(syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)) }

// Mkdir is mkdir(2).
func Mkdir(path string, mode uint32) error {
	_, err := at(unix.SYS_MKDIRAT, path, uintptr(mode), 0)
	return err
}

// Rmdir is rmdir(2).
func Rmdir(path string) error {
	_, err := at(unix.SYS_UNLINKAT, path, unix.AT_REMOVEDIR, 0)
	return err
}

// Unlink is unlink(2).
func Unlink(path string) error {
	_, err := at(unix.SYS_UNLINKAT, path, 0, 0)
	return err
}

// Rename is rename(2).
func Rename(from, to string) error {
	old, err := syscall.BytePtrFromString(from)
	if err != nil {
		return err
	}
	name, err := syscall.BytePtrFromString(to)
	if err != nil {
		return err
	}
	for {
		_, _, errno := syscall.RawSyscall6(unix.SYS_RENAMEAT2, cwd, uintptr(unsafe.Pointer(old)), cwd, uintptr(unsafe.Pointer(name)), 0, 0)
		if errno != unix.EINTR {
			return errorOf(errno)
		}
	}
}

// Wait is wait4(2) with WNOHANG: it returns false while the child of that PID has not ended.
func Wait(pid int, status *unix.WaitStatus) (bool, error) {
	var ws int32
	for {
		got, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, uintptr(pid), uintptr(unsafe.Pointer(&ws)), unix.WNOHANG, 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		*status = unix.WaitStatus(ws)
		return errno == 0 && int(got) == pid, errorOf(errno)
	}
}

// Ready is poll(2) of one descriptor, without waiting, and returns what of events is there, and POLLERR and the like.
func Ready(fd int, events int16) (int16, error) {
	p := unix.PollFd{Fd: int32(fd), Events: events}
	var now unix.Timespec
	for {
		_, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if errno != unix.EINTR {
			return p.Revents, errorOf(errno)
		}
	}
}

// cwd is AT_FDCWD, -100.
const cwd = ^uintptr(99)

// at makes a call that takes a path.
func at(trap uintptr, path string, a, b uintptr) (uintptr, error) {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return ^uintptr(0), err
	}
	for {
		r, _, errno := syscall.RawSyscall6(trap, cwd, uintptr(unsafe.Pointer(name)), a, b, 0, 0)
		if errno != unix.EINTR {
			return r, errorOf(errno)
		}
	}
}

func failed(_, _ uintptr, errno syscall.Errno) error { return errorOf(errno) }

func errorOf(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// Fstat is fstat(2).
func Fstat(fd int, st *unix.Stat_t) error {
	return failed(syscall.RawSyscall(unix.SYS_FSTAT, uintptr(fd), uintptr(unsafe.Pointer(st)), 0))
}

// Fstatfs is fstatfs(2).
func Fstatfs(fd int, st *unix.Statfs_t) error {
	return failed(syscall.RawSyscall(unix.SYS_FSTATFS, uintptr(fd), uintptr(unsafe.Pointer(st)), 0))
}

// Fchown is fchown(2).
func Fchown(fd, uid, gid int) error {
	return failed(syscall.RawSyscall(unix.SYS_FCHOWN, uintptr(fd), uintptr(uid), uintptr(gid)))
}

// Setns is setns(2), which acts on the calling thread.
func Setns(fd, kind int) error {
	return failed(syscall.RawSyscall(unix.SYS_SETNS, uintptr(fd), uintptr(kind), 0))
}

// Fcntl is fcntl(2) with a number as its argument.
func Fcntl(fd, command, value int) error {
	return failed(syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), uintptr(command), uintptr(value)))
}

// Getdents is getdents64(2).
func Getdents(fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(unix.SYS_GETDENTS64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Rewind is lseek(2) to the beginning.
func Rewind(fd int) error {
	return failed(syscall.RawSyscall(unix.SYS_LSEEK, uintptr(fd), 0, unix.SEEK_SET))
}

// File is an open descriptor. Unlike an *os.File, it is closed without waking the runtime, and only by who says so.
type File int

// Fd returns the descriptor.
func (f File) Fd() uintptr { return uintptr(f) }

// Close closes it.
func (f File) Close() error { return Close(int(f)) }
