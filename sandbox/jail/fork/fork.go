//go:build linux && (amd64 || arm64)

// Package fork starts one process: clone3(2) straight into a control group, with everything between clone and exec done
// by raw system calls in the child: Compile makes a list of them, and the child makes one after the other. It exists because os/exec and package syscall cannot do what a sandbox needs there
// (restore the OOM score, load filters last), and holds nothing else, so that it can be read in one sitting.
//
// The child shares the parent's memory until it execs (CLONE_VM|CLONE_VFORK, as in package syscall). That rules what may
// be done in it: no allocation, no growing of the stack, no write to anything of the parent's but the result. The
// runtime's hooks around a fork are those that the Go project keeps stable for such packages (go.dev/issue/67401).
//
// Only package jail may import it.
package fork

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of linux/sched.h, as far as CLONE_INTO_CGROUP needs it.
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// Start starts p and returns its PID and a pidfd, which is the caller's to close. A failed step is an *Error, and then
// nothing is left of the process.
func Start(p Process) (pid, pidfd int, err error) {
	if len(p.Paths) == 0 || len(p.Args) == 0 {
		return 0, -1, errors.New("cannot start a process without a path and arguments")
	}
	for _, fd := range p.Files {
		if fd < 3 {
			return 0, -1, fmt.Errorf("cannot pass descriptor %d to a process: it must be above 2", fd)
		}
	}
	c, err := Compile(p)
	if err != nil {
		return 0, -1, err
	}
	args := &cloneArgs{flags: unix.CLONE_PIDFD, exitSignal: uint64(unix.SIGCHLD)}
	if p.CgroupFD >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(p.CgroupFD)
	}
	e := inNamespace(p.PIDNamespace, func() { pid, err = c.start(args) })
	runtime.KeepAlive(p)
	if e != nil && err == nil {
		if err = e; pid > 0 { // it runs, but this thread could not leave the namespace
			_ = unix.PidfdSendSignal(int(c.pidfd), unix.SIGKILL, nil, 0) // fails only for one that has ended
		}
	}
	if err != nil {
		if pid > 0 {
			reap(pid)                    // it has ended, and must not stay as a zombie
			_ = unix.Close(int(c.pidfd)) // a pidfd has nothing to lose
		}
		return 0, -1, err
	}
	return pid, int(c.pidfd), nil
}

// start has a child make the calls, and returns its PID and, once it is another program or has ended, how it failed.
func (c *Program) start(args *cloneArgs) (pid int, err error) {
	// Signals that the parent handles are at their default in the child from the first; those that it ignores are not.
	args.flags |= unix.CLONE_VFORK | unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND
	// ForkLock is for descriptors that are opened without close-on-exec for a moment; the child closes all anyway.
	syscall.ForkLock.Lock()
	r, errno := clone(args, c)
	syscall.ForkLock.Unlock()
	switch {
	case errno != 0:
		return 0, &Error{Step: Clone, Errno: errno}
	case c.errno == 0:
		return int(r), nil
	case c.failed < len(c.Calls):
		call := &c.Calls[c.failed]
		return int(r), &Error{Step: call.Step, On: call.On, Errno: c.errno}
	default:
		return int(r), &Error{Step: Exec, On: c.names[c.failed-len(c.Calls)], Errno: c.errno}
	}
}

// reap waits for a child to end.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// rawVfork makes one system call, from which both the child and the parent return, on one stack.
func rawVfork(trap, a1, a2 uintptr) (r1 uintptr, errno syscall.Errno)

// clone forks. In the parent it must not look at what is in its frame once the child has used that.
//
// The parent's thread stands still until the child has become another program, and so does its processor of the Go runtime, as in
// package syscall.
//
//go:noinline
//go:norace
//go:nocheckptr
func clone(args *cloneArgs, c *Program) (pid uintptr, errno syscall.Errno) {
	args.pidFD = uint64(uintptr(unsafe.Pointer(&c.pidfd)))
	beforeFork()
	pid, errno = rawVfork(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}

	// In the child.
	var (
		i, k   int
		call   *Call
		v      [5]uintptr
		r      uintptr
		e      syscall.Errno
		status uintptr
	)
	for i = 0; i < len(c.Calls); i++ {
		call = &c.Calls[i]
		for k = 0; k < len(v); k++ {
			v[k] = call.Args[k].Value + uintptr(call.Args[k].At)
			if call.Args[k].Result != nil {
				v[k] = *call.Args[k].Result
			}
		}
		r, _, e = syscall.RawSyscall6(call.Number, v[0], v[1], v[2], v[3], v[4], 0)
		if e != 0 && (e == call.Spared[0] || e == call.Spared[1]) {
			i += call.Skip
			continue
		}
		if e == 0 && call.Rooted != nil && *call.Rooted != '/' {
			e = syscall.ENOENT
		}
		if e != 0 {
			c.failed, c.errno, status = i, e, 253
			goto end
		}
		if call.Result != nil {
			*call.Result = r
		}
	}

	// What is not there, or not for this user, may be further on in PATH. The most telling error is reported, but only when every path
	// has failed: what is in c is seen by the parent even if a later exec succeeds.
	e = 0
	for i = 0; i < len(c.paths); i++ {
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.paths[i])),
			uintptr(unsafe.Pointer(unsafe.SliceData(c.argv))), uintptr(unsafe.Pointer(unsafe.SliceData(c.env))))
		if e == 0 || e == syscall.ENOENT || e == syscall.ENOTDIR {
			e, c.failed = errno, len(c.Calls)+i
		}
		if errno != syscall.ENOENT && errno != syscall.ENOTDIR && errno != syscall.EACCES {
			break
		}
	}
	if c.errno = e; e != 0 {
		status = 253
	}
end:
	for {
		syscall.RawSyscall(unix.SYS_EXIT, status, 0, 0)
	}
}
