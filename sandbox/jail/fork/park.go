package fork

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Parked is a process that does nothing but hold a namespace: it is there until End, or until its maker is gone. As the
// first process of a PID namespace it is what orphans there are given, which vanish as they end, since it ignores SIGCHLD
// (wait(2), NOTES). It shares its maker's memory and has no descriptor but the end of a pipe.
type Parked struct {
	// PID is its number.
	PID   int
	pipe  *os.File
	state *parked
}

// parked is what the process reads and writes, in memory that stays where it is.
type parked struct {
	calls  [5][6]uintptr // numbers and arguments
	ignore [4]uintptr    // struct sigaction
	name   [16]byte
	buf    [1]byte
}

// sigIgn is SIG_IGN.
const sigIgn = 1

// newParked lists what the process does before it ends, which it does once the pipe is at its end. No error of a call matters.
func newParked(pipe int) *parked {
	s := &parked{ignore: [4]uintptr{sigIgn}}
	copy(s.name[:], "rtask-init")
	s.calls = [...][6]uintptr{
		{unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&s.ignore)), 0, signalSetSize},
		{unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&s.name))},
		{unix.SYS_DUP3, uintptr(pipe), 0},
		{unix.SYS_CLOSE_RANGE, 1, lastFD},
		{unix.SYS_READ, 0, uintptr(unsafe.Pointer(&s.buf)), 1},
	}
	return s
}

// Park makes a process in a new namespace: flag is CLONE_NEWPID or CLONE_NEWUSER.
//
// It shares this process's memory and so can have no stack of its own, which takes assembler. As a copy, as fork(2) makes one, it would
// be written in Go, and cost a slot 480 KiB more than the 1,250 that it has.
func Park(flag uint64) (*Parked, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	p := &Parked{pipe: os.NewFile(uintptr(fds[1]), "pipe"), state: newParked(fds[0])}
	args := &cloneArgs{flags: unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND | flag}
	syscall.ForkLock.Lock()
	pid, errno := park(args, p.state)
	afterFork()
	syscall.ForkLock.Unlock()
	_ = unix.Close(fds[0]) // the process has it
	if errno != 0 {
		_ = p.pipe.Close() // nobody reads it
		return nil, &Error{Step: Clone, Errno: errno}
	}
	p.PID = int(pid)
	return p, nil
}

// rawPark makes a process that makes n calls and ends, and never returns from it.
func rawPark(args, size, calls, n uintptr) (r1 uintptr, errno syscall.Errno)

//go:noinline
//go:norace
//go:nocheckptr
func park(args *cloneArgs, state *parked) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	return rawPark(uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), uintptr(unsafe.Pointer(&state.calls)), uintptr(len(state.calls)))
}

// End ends the process, and with it all that is left in its PID namespace. It waits for that, so who is the parent of a process
// there must have reaped it, or do so meanwhile.
func (p *Parked) End() {
	if p == nil {
		return
	}
	_ = p.pipe.Close() // which is what it waits for
	reap(p.PID)
	runtime.KeepAlive(p.state)
}

// MountProc mounts proc(5) with the options of data at target, in the calling thread's mount namespace, for the PID
// namespace pids, nil being its own: the kernel takes that of the process that mounts. The thread's children are born into pids
// from then on, so it must be one that ends with its goroutine.
func MountProc(pids *os.File, target, data string) error {
	if pids != nil {
		if err := bearInto(int(pids.Fd())); err != nil {
			return err
		}
	}
	source, err := syscall.BytePtrFromString("proc")
	place, err2 := syscall.BytePtrFromString(target)
	options, err3 := syscall.BytePtrFromString(data)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	c := &Program{}
	c.add(Mount, target, unix.SYS_MOUNT, at(source), at(place), at(source), num(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), at(options))
	pid, err := c.start(&cloneArgs{})
	if pid > 0 {
		reap(pid)
	}
	// The caller names what it could not mount.
	if e := (*Error)(nil); errors.As(err, &e) && e.Step == Mount {
		return e.Errno
	}
	return err
}
