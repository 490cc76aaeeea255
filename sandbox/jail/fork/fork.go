//go:build linux && (amd64 || arm64)

// Package fork starts one process: clone3(2) straight into a control group, with everything between clone and exec done
// by raw system calls in the child. It exists because os/exec and package syscall cannot do what a sandbox needs there
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

// Step is a thing the child does on its way to exec.
type Step int32

// The steps, in their order.
const (
	Clone Step = iota
	NewSession
	OOMScore
	Namespaces
	Landlock
	Files
	Nice
	RLimits
	Groups
	GID
	UserNamespace
	BoundingSet
	KeepCapabilities
	UID
	NoCapabilities
	AmbientSet
	UMask
	Keyring
	Chdir
	Getcwd
	NoNewPrivileges
	Filters
	Exec
)

// String names a step as an error message does: "cannot " + step.
func (s Step) String() string {
	switch s {
	case Clone:
		return "make a process"
	case NewSession:
		return "make a session"
	case Namespaces:
		return "enter the namespaces"
	case Landlock:
		return "restrict itself with Landlock"
	case Files:
		return "pass standard input and output"
	case OOMScore:
		return "set the OOM score"
	case Nice:
		return "set the nice value"
	case RLimits:
		return "set the resource limit"
	case Groups:
		return "set the supplementary groups"
	case GID:
		return "set the group"
	case UserNamespace:
		return "enter the user namespace"
	case BoundingSet:
		return "take away the capability"
	case KeepCapabilities, AmbientSet:
		return "set the ambient capabilities"
	case NoCapabilities:
		return "give up its capabilities"
	case UID:
		return "set the user"
	case UMask:
		return "set the umask"
	case Keyring:
		return "make a session keyring"
	case Chdir:
		return "enter the working directory"
	case Getcwd:
		return "stay in the working directory"
	case NoNewPrivileges:
		return "set no_new_privs"
	case Filters:
		return "load the filter of"
	case Exec:
		return "execute"
	default:
		return fmt.Sprintf("do step %d", int32(s))
	}
}

// Error says which step failed, on what, and how.
type Error struct {
	Step  Step
	Path  string // the directory, the executable or the resource, where the step has one
	Errno syscall.Errno
}

// Error implements error.
func (e *Error) Error() string {
	if e.Path != "" {
		return fmt.Sprintf("cannot %s %s: %v", e.Step, e.Path, e.Errno)
	}
	return fmt.Sprintf("cannot %s: %v", e.Step, e.Errno)
}

// Unwrap returns the system call's error.
func (e *Error) Unwrap() error { return e.Errno }

// Process is what to start.
type Process struct {
	// Paths are tried in turn until one can be executed, as execvp(3) does with PATH.
	Paths []string
	Args  []string
	Env   []string
	// Dir is entered after the user was changed.
	Dir string
	// Files become descriptors 0, 1 and 2; each must be 3 or above. Every other descriptor is closed.
	Files [3]int
	// CgroupFD is a descriptor of the control group to be born in; below 0: the parent's.
	CgroupFD int
	// Namespaces are descriptors of namespaces to enter (setns(2)). PIDNamespace is that of the one to be born into, and
	// UserNamespace that of the one to enter once the groups are set; below 1: the parent's.
	Namespaces                  []int
	PIDNamespace, UserNamespace int
	// Ruleset is the descriptor of a ruleset of landlock(7) to be under; below 1: none.
	Ruleset int
	// DropCapabilities are taken out of the bounding set, by their numbers, and AmbientCapabilities are kept by a process
	// that is not root (capabilities(7)), as bits.
	DropCapabilities    []int
	AmbientCapabilities uint64
	// Powerless says that it gives up every capability that it has of its parent.
	Powerless bool
	// UMask is umask(2); nil leaves the parent's.
	UMask *uint32
	// Filters are programs of seccomp(2), loaded in turn just before exec.
	Filters []Filter
	// Credentials: nil keeps the parent's.
	Credentials *Credentials
	// Ignored are the signals that the parent ignores; the process does not, as systemd has it. What the parent handles is
	// reset by exec anyway.
	Ignored []int
	// ClearKeyrings empties the keyrings that the kernel keeps for the user: those of user-keyring(7) and
	// user-session-keyring(7) for good, so that nobody can use them any more, and that of persistent-keyring(7) for now.
	ClearKeyrings bool
	// NoNewPrivileges is PR_SET_NO_NEW_PRIVS (prctl(2)).
	NoNewPrivileges bool
	// NoFile is RLIMIT_NOFILE; the Go runtime raises its own at start, and a job must not inherit that.
	NoFile unix.Rlimit
	// RLimits are further limits of setrlimit(2).
	RLimits []RLimit
	// Nice is the nice value (setpriority(2)); nil leaves the parent's.
	Nice *int
	// OOMScoreAdj is what /proc/self/oom_score_adj gets; nil leaves the parent's.
	OOMScoreAdj *string
}

// Filter is a program of seccomp(2).
type Filter struct {
	// Name is what an error calls it.
	Name    string
	Program []unix.SockFilter
}

// RLimit is a limit of setrlimit(2).
type RLimit struct {
	// Name is what an error calls it, and Resource the kernel's number of it.
	Name     string
	Resource int
	Limit    unix.Rlimit
}

// Credentials are the numbers to change to.
type Credentials struct {
	UID, GID uint32
	Groups   []uint32
}

// child is Process in the form that system calls take, laid out before the clone.
type child struct {
	paths    []*byte
	argv     []*byte
	envv     []*byte
	dir      *byte
	files    [3]uintptr
	spaces   []uintptr
	ruleset  uintptr
	ignored  []uintptr
	clear    bool
	rings    [2]uintptr // of the user, where they had to be emptied
	user     uintptr
	drop     []uintptr
	ambient  []uintptr
	weak     bool
	capHead  unix.CapUserHeader
	capData  [2]unix.CapUserData
	umask    uintptr
	setMask  bool
	filters  []unix.SockFprog
	cwd      [4096]byte
	cred     bool
	uid      uintptr
	gid      uintptr
	groups   []uint32
	noNew    bool
	noFile   unix.Rlimit
	rlimits  []RLimit
	nice     uintptr
	setNice  bool
	oomPath  *byte
	oomScore []byte

	pidfd int32

	// action is the kernel's struct sigaction for SIG_DFL, and signals a sigset_t of none: all zero.
	action  [4]uintptr
	signals uint64

	// what the child reports, in memory that both see
	step  Step
	path  int
	errno syscall.Errno
}

// signalSetSize is the bytes of the kernel's sigset_t (rt_sigaction(2)).
const signalSetSize = 8

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
	c, err := prepare(p)
	if err != nil {
		return 0, -1, err
	}
	args := &cloneArgs{
		// Signals that the parent handles are at their default in the child from the first; those that it ignores are not.
		flags:      unix.CLONE_VFORK | unix.CLONE_VM | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		exitSignal: uint64(unix.SIGCHLD),
	}
	if p.CgroupFD >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(p.CgroupFD)
	}
	var r uintptr
	var errno syscall.Errno
	err = inNamespace(p.PIDNamespace, func() {
		// ForkLock is for descriptors that are opened without close-on-exec for a moment; the child closes all anyway.
		syscall.ForkLock.Lock()
		r, errno = clone(args, c)
		syscall.ForkLock.Unlock()
	})
	runtime.KeepAlive(p)
	if err != nil {
		return 0, -1, err
	}
	if errno != 0 {
		return 0, -1, &Error{Step: Clone, Errno: errno}
	}
	pid = int(r)
	if c.errno != 0 {
		// It ended before it was anything: reap it, so that its PID names nobody.
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		_ = unix.Close(int(c.pidfd)) // a pidfd has nothing to lose
		e := &Error{Step: c.step, Errno: c.errno}
		switch c.step {
		case Exec:
			e.Path = p.Paths[c.path]
		case Chdir, Getcwd:
			e.Path = p.Dir
		case BoundingSet:
			e.Path = fmt.Sprint(p.DropCapabilities[c.path])
		case Filters:
			e.Path = p.Filters[c.path].Name
		case RLimits:
			if e.Path = "limit_nofile"; c.path >= 0 {
				e.Path = p.RLimits[c.path].Name
			}
		}
		return 0, -1, e
	}
	return pid, int(c.pidfd), nil
}

func prepare(p Process) (*child, error) {
	c := &child{noNew: p.NoNewPrivileges, noFile: p.NoFile, rlimits: p.RLimits, clear: p.ClearKeyrings}
	for _, sig := range p.Ignored {
		c.ignored = append(c.ignored, uintptr(sig))
	}
	for _, fd := range p.Namespaces {
		c.spaces = append(c.spaces, uintptr(fd))
	}
	if p.Ruleset > 0 {
		c.ruleset = uintptr(p.Ruleset)
	}
	if p.UserNamespace > 0 {
		c.user = uintptr(p.UserNamespace)
	}
	for _, n := range p.DropCapabilities {
		c.drop = append(c.drop, uintptr(n))
	}
	if p.AmbientCapabilities != 0 {
		low, high := uint32(p.AmbientCapabilities), uint32(p.AmbientCapabilities>>32)
		c.capHead.Version = unix.LINUX_CAPABILITY_VERSION_3
		c.capData[0] = unix.CapUserData{Effective: low, Permitted: low, Inheritable: low}
		c.capData[1] = unix.CapUserData{Effective: high, Permitted: high, Inheritable: high}
		for n := range 64 {
			if p.AmbientCapabilities&(1<<n) != 0 {
				c.ambient = append(c.ambient, uintptr(n))
			}
		}
	}
	if p.Powerless {
		c.weak, c.capHead.Version = true, unix.LINUX_CAPABILITY_VERSION_3
	}
	if p.UMask != nil {
		c.umask, c.setMask = uintptr(*p.UMask), true
	}
	for _, f := range p.Filters {
		c.filters = append(c.filters, unix.SockFprog{Len: uint16(len(f.Program)), Filter: unsafe.SliceData(f.Program)})
	}
	if p.Nice != nil {
		c.nice, c.setNice = uintptr(*p.Nice), true
	}
	var err error
	if c.argv, err = syscall.SlicePtrFromStrings(p.Args); err != nil {
		return nil, fmt.Errorf("cannot pass the arguments: %w", err)
	}
	if c.envv, err = syscall.SlicePtrFromStrings(p.Env); err != nil {
		return nil, fmt.Errorf("cannot pass the environment: %w", err)
	}
	paths, err := syscall.SlicePtrFromStrings(p.Paths)
	if err != nil {
		return nil, fmt.Errorf("cannot pass the path: %w", err)
	}
	c.paths = paths[:len(p.Paths)] // without the nil that ends an argv
	if c.dir, err = syscall.BytePtrFromString(p.Dir); err != nil {
		return nil, fmt.Errorf("cannot pass the working directory: %w", err)
	}
	for i, fd := range p.Files {
		c.files[i] = uintptr(fd)
	}
	if p.Credentials != nil {
		c.cred, c.uid, c.gid = true, uintptr(p.Credentials.UID), uintptr(p.Credentials.GID)
		c.groups = append([]uint32(nil), p.Credentials.Groups...)
	}
	if p.OOMScoreAdj != nil {
		c.oomScore = []byte(*p.OOMScoreAdj)
		if c.oomPath, err = syscall.BytePtrFromString("/proc/self/oom_score_adj"); err != nil {
			return nil, err
		}
	}
	return c, nil
}

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// rawVfork makes one system call of which the child and the parent both return, on one stack.
func rawVfork(trap, a1, a2 uintptr) (r1 uintptr, errno syscall.Errno)

// clone forks. In the parent it must not look at what is in its frame once the child has used that.
//
// For the runtime the parent is in a system call that blocks, since it stands until the child has become another program: other
// goroutines run meanwhile, and no thread looks after this one. Between that and its end nothing may grow the stack.
//
//go:noinline
//go:norace
//go:nocheckptr
func clone(args *cloneArgs, c *child) (pid uintptr, errno syscall.Errno) {
	// Only here, where the stack does not grow any more, is an address good as a number.
	args.pidFD = uint64(uintptr(unsafe.Pointer(&c.pidfd)))
	entersyscallblock()
	beforeFork()
	pid, errno = rawVfork(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	if errno != 0 || pid != 0 {
		afterFork()
		exitsyscall()
		return pid, errno
	}

	// In the child.
	var (
		i int
		e syscall.Errno
		r uintptr
		// The most telling error of exec. It is reported only when every path has failed: what is in c is seen by the
		// parent even if a later exec succeeds.
		worst syscall.Errno
	)

	// beforeFork has blocked all signals; a program starts with none blocked.
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&c.signals)), 0, signalSetSize, 0, 0)

	for i = 0; i < len(c.ignored); i++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, c.ignored[i], uintptr(unsafe.Pointer(&c.action)), 0, signalSetSize, 0, 0)
	}

	c.step = NewSession
	if _, _, e = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); e != 0 {
		goto failed
	}

	if c.oomPath != nil {
		// While /proc is still the machine's. On the way of a vfork this does not touch the parent's score (fs/proc/base.c, __set_oom_adj).
		c.step = OOMScore
		r, _, e = syscall.RawSyscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(c.oomPath)),
			unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0) // ^99 is AT_FDCWD
		if e != 0 {
			goto failed
		}
		if _, _, e = syscall.RawSyscall(unix.SYS_WRITE, r, uintptr(unsafe.Pointer(unsafe.SliceData(c.oomScore))),
			uintptr(len(c.oomScore))); e != 0 {
			goto failed
		}
		if _, _, e = syscall.RawSyscall(unix.SYS_CLOSE, r, 0, 0); e != 0 {
			goto failed
		}
	}

	c.step = Namespaces
	for i = 0; i < len(c.spaces); i++ {
		if _, _, e = syscall.RawSyscall(unix.SYS_SETNS, c.spaces[i], 0, 0); e != 0 {
			goto failed
		}
	}

	if c.ruleset != 0 {
		// While the process has the privilege to do it without no_new_privs, and its descriptor. It acts on files that are
		// opened or executed from here on.
		c.step = Landlock
		if _, _, e = syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, c.ruleset, 0, 0); e != 0 {
			goto failed
		}
	}

	c.step = Files
	for i = 0; i < len(c.files); i++ {
		if _, _, e = syscall.RawSyscall(unix.SYS_DUP3, c.files[i], uintptr(i), 0); e != 0 {
			goto failed
		}
	}
	r = 3
	if c.user != 0 {
		// It is entered later, and so has to stay for a while.
		if c.user != 3 {
			if _, _, e = syscall.RawSyscall(unix.SYS_DUP3, c.user, 3, 0); e != 0 {
				goto failed
			}
		}
		r = 4
	}
	if _, _, e = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, r, ^uintptr(0)>>32, 0); e != 0 {
		goto failed
	}

	if c.setNice {
		c.step = Nice
		if _, _, e = syscall.RawSyscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, c.nice); e != 0 {
			goto failed
		}
	}

	c.step = RLimits
	c.path = -1
	if c.noFile.Max != 0 {
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE,
			uintptr(unsafe.Pointer(&c.noFile)), 0, 0, 0); e != 0 {
			goto failed
		}
	}
	for i = 0; i < len(c.rlimits); i++ {
		c.path = i
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(c.rlimits[i].Resource),
			uintptr(unsafe.Pointer(&c.rlimits[i].Limit)), 0, 0, 0); e != 0 {
			goto failed
		}
	}

	if c.cred {
		// Raw, so for this thread alone, which is all there is of the child. The groups go before the user namespace, which has
		// no numbers for them.
		c.step = Groups
		if _, _, e = syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(c.groups)),
			uintptr(unsafe.Pointer(unsafe.SliceData(c.groups))), 0); e != 0 {
			goto failed
		}
		c.step = GID
		if _, _, e = syscall.RawSyscall(unix.SYS_SETRESGID, c.gid, c.gid, c.gid); e != 0 {
			goto failed
		}
	}

	if c.user != 0 {
		// In it the process has all capabilities, and over nothing outside of it.
		c.step = UserNamespace
		if _, _, e = syscall.RawSyscall(unix.SYS_SETNS, 3, 0, 0); e != 0 {
			goto failed
		}
		if _, _, e = syscall.RawSyscall(unix.SYS_CLOSE, 3, 0, 0); e != 0 {
			goto failed
		}
	}

	c.step = BoundingSet
	for i = 0; i < len(c.drop); i++ {
		c.path = i
		// EINVAL is one that this kernel does not have.
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c.drop[i], 0, 0, 0, 0); e != 0 && e != syscall.EINVAL {
			goto failed
		}
	}

	if len(c.ambient) > 0 {
		c.step = KeepCapabilities
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0, 0); e != 0 {
			goto failed
		}
	}

	if c.cred {
		c.step = UID
		if _, _, e = syscall.RawSyscall(unix.SYS_SETRESUID, c.uid, c.uid, c.uid); e != 0 {
			goto failed
		}
	}

	if c.weak {
		c.step = NoCapabilities // and the ambient ones with them (capabilities(7))
		if _, _, e = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&c.capHead)), uintptr(unsafe.Pointer(&c.capData[0])), 0); e != 0 {
			goto failed
		}
	}

	if len(c.ambient) > 0 {
		c.step = AmbientSet
		if _, _, e = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&c.capHead)), uintptr(unsafe.Pointer(&c.capData[0])), 0); e != 0 {
			goto failed
		}
		for i = 0; i < len(c.ambient); i++ {
			if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c.ambient[i], 0, 0, 0); e != 0 {
				goto failed
			}
		}
	}

	if c.setMask {
		c.step = UMask
		syscall.RawSyscall(unix.SYS_UMASK, c.umask, 0, 0) // it cannot fail
	}

	// A session keyring of its own (session-keyring(7)), made as its user: the one that it would inherit is the engine's, and
	// through that all jobs could hand keys to each other. A kernel or a container without keyrings has nothing to share.
	c.step = Keyring
	if _, _, e = syscall.RawSyscall6(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0); e != 0 &&
		e != syscall.ENOSYS && e != syscall.EPERM {
		goto failed
	}
	if c.clear && e == 0 {
		// By their special ids, KEY_SPEC_USER_KEYRING (-4) and KEY_SPEC_USER_SESSION_KEYRING (-5), they are made if there are
		// none. A process of the user could revoke them or take everybody's permission to clear them, for good; so the first
		// one empties and closes them: without a permission they cannot be found any more (ENOKEY), nor changed again.
		for i = 0; i < len(c.rings); i++ {
			r, _, e = syscall.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(3+i), 1)
			if e == syscall.ENOKEY {
				break // of one that is closed neither is found
			}
			if e != 0 {
				goto failed
			}
			c.rings[i] = r
			if _, _, e = syscall.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_CLEAR, r, 0); e != 0 {
				goto failed
			}
		}
		for i = 0; i < len(c.rings) && c.rings[i] != 0; i++ {
			if _, _, e = syscall.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_SETPERM, c.rings[i], 0); e != 0 {
				goto failed
			}
		}
		// The persistent one is emptied by its number, for which the new session (KEY_SPEC_SESSION_KEYRING, -3) has to hold it
		// for a moment. Not every kernel has it.
		r, _, e = syscall.RawSyscall6(unix.SYS_KEYCTL, unix.KEYCTL_GET_PERSISTENT, ^uintptr(0), ^uintptr(2), 0, 0, 0)
		if e != 0 && e != syscall.EOPNOTSUPP {
			goto failed
		}
		if e == 0 {
			if _, _, e = syscall.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_CLEAR, r, 0); e != 0 {
				goto failed
			}
			if _, _, e = syscall.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_UNLINK, r, ^uintptr(2)); e != 0 {
				goto failed
			}
		}
	}

	c.step = Chdir
	if _, _, e = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); e != 0 {
		goto failed
	}

	// What is entered must be below the root: a descriptor of another mount namespace, by way of /proc, is not
	// (CVE-2024-21626). The kernel names such a directory "(unreachable)…" (getcwd(2)).
	c.step = Getcwd
	if _, _, e = syscall.RawSyscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&c.cwd)), uintptr(len(c.cwd)), 0); e != 0 {
		goto failed
	}
	if c.cwd[0] != '/' {
		e = syscall.ENOENT
		goto failed
	}

	if c.noNew {
		c.step = NoNewPrivileges
		if _, _, e = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
			goto failed
		}
	}

	c.step = Filters
	for i = 0; i < len(c.filters); i++ {
		c.path = i
		if _, _, e = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&c.filters[i]))); e != 0 {
			goto failed
		}
	}

	c.step = Exec
	for i = 0; i < len(c.paths); i++ {
		_, _, e = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.paths[i])),
			uintptr(unsafe.Pointer(unsafe.SliceData(c.argv))), uintptr(unsafe.Pointer(unsafe.SliceData(c.envv))))
		// What is not there, or not for this user, may be further on in PATH.
		if worst == 0 || worst == syscall.ENOENT || worst == syscall.ENOTDIR {
			worst = e
			c.path = i
		}
		if e != syscall.ENOENT && e != syscall.ENOTDIR && e != syscall.EACCES {
			break
		}
	}
	e = worst

failed:
	c.errno = e
	for {
		syscall.RawSyscall(unix.SYS_EXIT, 253, 0, 0)
	}
}
