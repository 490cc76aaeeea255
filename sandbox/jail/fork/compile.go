package fork

import (
	"fmt"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Program is what a child does, laid out before the clone: its Calls one after the other, and then exec, or, without a path, its end.
type Program struct {
	Calls []Call

	names            []string // of paths
	paths, argv, env []*byte

	// What the child reports, in memory that both see: which of Calls failed, or after those which of paths, and how.
	failed int
	errno  syscall.Errno
	pidfd  int32 // of the kernel
}

// Call is one system call of a child. If it fails, so does the child.
type Call struct {
	// Step and On are what an error says.
	Step Step
	On   string
	// Number is that of the system call.
	Number uintptr
	Args   [5]Arg
	// Spared are errors after which the child goes on, but leaves out as many calls as Skip says.
	Spared [2]syscall.Errno
	Skip   int
	// Result takes what the call returns, for arguments of later ones.
	Result *uintptr
	// Rooted must be a slash after the call, or it failed with ENOENT.
	Rooted *byte
}

// Arg is an argument of a system call: of the three, one at most is set.
type Arg struct {
	Value  uintptr
	At     unsafe.Pointer // of memory that stays where it is
	Result *uintptr       // of an earlier call
}

func num[T ~int | ~int32 | ~uint32 | ~uintptr](n T) Arg { return Arg{Value: uintptr(n)} }

func at[T any](p *T) Arg { return Arg{At: unsafe.Pointer(p)} }

// add adds a call, which can be changed until the next one.
func (c *Program) add(step Step, on string, number uintptr, args ...Arg) *Call {
	c.Calls = append(c.Calls, Call{Step: step, On: on, Number: number})
	call := &c.Calls[len(c.Calls)-1]
	copy(call.Args[:], args)
	return call
}

// since has a failure of the call at i, with one of the errors, skip those that were added after it.
func (c *Program) since(i int, spared ...syscall.Errno) {
	copy(c.Calls[i].Spared[:], spared)
	c.Calls[i].Skip = len(c.Calls) - 1 - i
}

const (
	// signalSetSize is the bytes of the kernel's sigset_t (rt_sigaction(2)).
	signalSetSize = 8
	// cwd is AT_FDCWD, -100.
	cwd = ^uintptr(99)
	// lastFD is the highest descriptor that close_range(2) knows.
	lastFD = ^uintptr(0) >> 32
	// userFD is where the user namespace is kept until it is entered.
	userFD = 3
)

// Compile lays out what the child of p does. The files, directories and namespaces of p must stay open until it has started.
func Compile(p Process) (*Program, error) {
	c := &Program{names: p.Paths, Calls: make([]Call, 0, 32)}
	var err error
	text := func(what, s string) *byte {
		b, e := syscall.BytePtrFromString(s)
		if e != nil && err == nil {
			err = fmt.Errorf("cannot pass the %s: %w", what, e)
		}
		return b
	}
	texts := func(what string, list []string) []*byte {
		b, e := syscall.SlicePtrFromStrings(list)
		if e != nil && err == nil {
			err = fmt.Errorf("cannot pass the %s: %w", what, e)
		}
		return b
	}

	c.signals(p)
	c.add(NewSession, "", unix.SYS_SETSID)
	if p.OOMScoreAdj != nil {
		// While /proc is still the machine's. On the way of a vfork this does not touch the parent's score (fs/proc/base.c, __set_oom_adj).
		fd, score := new(uintptr), []byte(*p.OOMScoreAdj)
		c.add(OOMScore, "", unix.SYS_OPENAT, num(cwd), at(text("path", "/proc/self/oom_score_adj")), num(unix.O_WRONLY|unix.O_CLOEXEC)).Result = fd
		c.add(OOMScore, "", unix.SYS_WRITE, Arg{Result: fd}, at(unsafe.SliceData(score)), num(len(score)))
		c.add(OOMScore, "", unix.SYS_CLOSE, Arg{Result: fd})
	}
	for _, fd := range p.Namespaces {
		c.add(Namespaces, "", unix.SYS_SETNS, num(fd), num(0))
	}
	if p.Ruleset > 0 {
		// While the process has the privilege to do it without no_new_privs, and its descriptor. It acts on files that are
		// opened or executed from here on.
		c.add(Landlock, "", unix.SYS_LANDLOCK_RESTRICT_SELF, num(p.Ruleset), num(0))
	}
	c.files(p)
	c.limits(p)
	if p.Credentials != nil {
		// By raw calls, so for this thread alone, which is all there is of the child. The groups go before the user namespace, which has
		// no numbers for them.
		groups := append([]uint32(nil), p.Credentials.Groups...)
		c.add(Groups, "", unix.SYS_SETGROUPS, num(len(groups)), at(unsafe.SliceData(groups)))
		gid := num(p.Credentials.GID)
		c.add(GID, "", unix.SYS_SETRESGID, gid, gid, gid)
	}
	if p.UserNamespace > 0 {
		// In it the process has all capabilities, and over nothing outside of it.
		c.add(UserNamespace, "", unix.SYS_SETNS, num(userFD), num(0))
		c.add(UserNamespace, "", unix.SYS_CLOSE, num(userFD))
	}
	c.capabilitiesAndUser(p)
	if p.UMask != nil {
		c.add(UMask, "", unix.SYS_UMASK, num(*p.UMask))
	}
	c.keyrings(p)
	c.add(Chdir, p.Dir, unix.SYS_CHDIR, at(text("working directory", p.Dir)))
	// What is entered must be below the root: a descriptor of another mount namespace, by way of /proc, is not
	// (CVE-2024-21626). The kernel names such a directory "(unreachable)…" (getcwd(2)).
	name := make([]byte, unix.PathMax)
	c.add(Getcwd, p.Dir, unix.SYS_GETCWD, at(unsafe.SliceData(name)), num(len(name))).Rooted = &name[0]
	if p.NoNewPrivileges {
		c.add(NoNewPrivileges, "", unix.SYS_PRCTL, num(unix.PR_SET_NO_NEW_PRIVS), num(1))
	}
	for _, f := range p.Filters {
		program := &unix.SockFprog{Len: uint16(len(f.Program)), Filter: unsafe.SliceData(f.Program)}
		c.add(Filters, f.Name, unix.SYS_SECCOMP, num(unix.SECCOMP_SET_MODE_FILTER), num(0), at(program))
	}
	c.argv, c.env = texts("arguments", p.Args), texts("environment", p.Env)
	if c.paths = texts("path", p.Paths); err != nil {
		return nil, err
	}
	c.paths = c.paths[:len(p.Paths)] // without the nil that ends an argv
	return c, nil
}

// signals: beforeFork has blocked all; a program starts with none blocked, and none ignored.
func (c *Program) signals(p Process) {
	none, byDefault := new(uint64), new([4]uintptr) // sigset_t, and struct sigaction of SIG_DFL
	c.add(Signals, "", unix.SYS_RT_SIGPROCMASK, num(unix.SIG_SETMASK), at(none), num(0), num(signalSetSize))
	for _, sig := range p.Ignored {
		c.add(Signals, "", unix.SYS_RT_SIGACTION, num(sig), at(byDefault), num(0), num(signalSetSize))
	}
}

// files puts the three descriptors in their place and closes all others, but for that of the user namespace, which is entered later.
func (c *Program) files(p Process) {
	for i, fd := range p.Files {
		c.add(Files, "", unix.SYS_DUP3, num(fd), num(i), num(0))
	}
	first := len(p.Files)
	if p.UserNamespace > 0 {
		if p.UserNamespace != userFD {
			c.add(Files, "", unix.SYS_DUP3, num(p.UserNamespace), num(userFD), num(0))
		}
		first = userFD + 1
	}
	c.add(Files, "", unix.SYS_CLOSE_RANGE, num(first), num(lastFD), num(0))
}

func (c *Program) limits(p Process) {
	if p.Nice != nil {
		c.add(Nice, "", unix.SYS_SETPRIORITY, num(unix.PRIO_PROCESS), num(0), num(*p.Nice))
	}
	limits := p.RLimits
	if p.NoFile.Max != 0 {
		limits = append([]RLimit{{Name: "limit_nofile", Resource: unix.RLIMIT_NOFILE, Limit: p.NoFile}}, limits...)
	}
	for _, l := range limits {
		limit := l.Limit
		c.add(RLimits, l.Name, unix.SYS_PRLIMIT64, num(0), num(l.Resource), at(&limit), num(0))
	}
}

// capabilitiesAndUser: the bounding set goes down while there is CAP_SETPCAP, and what is to be ambient must outlive the change of the
// user.
func (c *Program) capabilitiesAndUser(p Process) {
	for _, n := range p.DropCapabilities {
		c.add(BoundingSet, strconv.Itoa(n), unix.SYS_PRCTL, num(unix.PR_CAPBSET_DROP), num(n))
		c.since(len(c.Calls)-1, unix.EINVAL) // one that this kernel does not have
	}
	if p.AmbientCapabilities != 0 {
		c.add(KeepCapabilities, "", unix.SYS_PRCTL, num(unix.PR_SET_KEEPCAPS), num(1))
	}
	if p.Credentials != nil {
		uid := num(p.Credentials.UID)
		c.add(UID, "", unix.SYS_SETRESUID, uid, uid, uid)
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if p.Powerless {
		c.add(NoCapabilities, "", unix.SYS_CAPSET, at(header), at(&[2]unix.CapUserData{})) // and the ambient ones with them (capabilities(7))
	}
	if set := p.AmbientCapabilities; set != 0 {
		low, high := uint32(set), uint32(set>>32)
		c.add(AmbientSet, "", unix.SYS_CAPSET, at(header), at(&[2]unix.CapUserData{
			{Effective: low, Permitted: low, Inheritable: low}, {Effective: high, Permitted: high, Inheritable: high},
		}))
		for n := range 64 {
			if set&(1<<n) != 0 {
				c.add(AmbientSet, "", unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_RAISE), num(n))
			}
		}
	}
}

// keyrings gives the process a session keyring of its own (session-keyring(7)), made as its user: the one that it would inherit is the
// engine's, and through that all jobs could hand keys to each other. A kernel or a container without keyrings has nothing to share.
func (c *Program) keyrings(p Process) {
	// The special ids KEY_SPEC_SESSION_KEYRING (-3), KEY_SPEC_USER_KEYRING (-4) and KEY_SPEC_USER_SESSION_KEYRING (-5).
	const session, user, userSession = ^uintptr(2), ^uintptr(3), ^uintptr(4)
	ctl := func(command int, args ...Arg) *Call {
		return c.add(Keyring, "", unix.SYS_KEYCTL, append([]Arg{num(command)}, args...)...)
	}
	join := len(c.Calls)
	ctl(unix.KEYCTL_JOIN_SESSION_KEYRING, num(0))
	if p.ClearKeyrings {
		// By their special ids, those of the user are made if there are none. A process of the user could revoke them or take
		// everybody's permission to clear them, for good; so the first one empties and closes them: without a permission they cannot be
		// found any more (ENOKEY), nor changed again.
		one, other, persistent := new(uintptr), new(uintptr), new(uintptr)
		first := len(c.Calls)
		ctl(unix.KEYCTL_GET_KEYRING_ID, num(user), num(1)).Result = one
		ctl(unix.KEYCTL_CLEAR, Arg{Result: one})
		second := len(c.Calls)
		ctl(unix.KEYCTL_GET_KEYRING_ID, num(userSession), num(1)).Result = other
		ctl(unix.KEYCTL_CLEAR, Arg{Result: other})
		ctl(unix.KEYCTL_SETPERM, Arg{Result: other}, num(0))
		c.since(second, unix.ENOKEY)
		ctl(unix.KEYCTL_SETPERM, Arg{Result: one}, num(0))
		c.since(first, unix.ENOKEY)
		// The persistent one is emptied by its number, for which the new session has to hold it for a moment. Not every kernel has it.
		third := len(c.Calls)
		ctl(unix.KEYCTL_GET_PERSISTENT, num(^uintptr(0)), num(session)).Result = persistent
		ctl(unix.KEYCTL_CLEAR, Arg{Result: persistent})
		ctl(unix.KEYCTL_UNLINK, Arg{Result: persistent}, num(session))
		c.since(third, unix.EOPNOTSUPP)
	}
	c.since(join, unix.ENOSYS, unix.EPERM)
}
