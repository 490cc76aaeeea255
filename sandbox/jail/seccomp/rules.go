package seccomp

import (
	"errors"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// rule says of a call, on an ABI, what is refused of it; the rest goes on with next.
type rule func(a abi, next block) block

// Arguments that golang.org/x/sys does not name: SHM_EXEC of shmat(2), __O_TMPFILE without O_DIRECTORY of open(2),
// READ_IMPLIES_EXEC of personality(2), SYS_SOCKET of socketcall(2), SHMAT of ipc(2).
const (
	shmExec         = 0o100000
	openTmpfile     = 0o20000000
	readImpliesExec = 0x0400000
	queryOnly       = 0xffffffff
	callSocket      = 1
	callShmat       = 21
)

const (
	setID      = unix.S_ISUID | unix.S_ISGID
	writeExec  = unix.PROT_WRITE | unix.PROT_EXEC
	openCreate = unix.O_CREAT | openTmpfile
)

func always(e unix.Errno) rule {
	return func(abi, block) block { return ret(refuse(e)) }
}

// bits refuses a call if an argument has one of these bits.
func bits(arg int, mask uint32, e unix.Errno) rule {
	return func(_ abi, next block) block {
		return argument(arg, branch(unix.BPF_JSET, mask, ret(refuse(e)), next))
	}
}

// values refuses a call if an argument is one of these.
func values(arg int, e unix.Errno, list ...uint32) rule {
	return func(_ abi, next block) block { return argument(arg, oneOf(list, ret(refuse(e)), next)) }
}

// otherValues refuses a call unless an argument is one of these.
func otherValues(arg int, e unix.Errno, list ...uint32) rule {
	return func(_ abi, next block) block {
		if len(list) == 0 {
			return ret(refuse(e))
		}
		return argument(arg, oneOf(list, next, ret(refuse(e))))
	}
}

// openMode refuses an open(2) that makes a file with one of setID.
func openMode(flags, mode int) rule {
	return func(_ abi, next block) block {
		return argument(flags, branch(unix.BPF_JSET, openCreate,
			argument(mode, branch(unix.BPF_JSET, setID, ret(refuse(unix.EPERM)), next)), next))
	}
}

// on32 applies a rule to the 32-bit calls of x86, which has calls of its own for much.
func on32(r rule) rule {
	return func(a abi, next block) block {
		if a != x86 {
			return next
		}
		return r(a, next)
	}
}

// rules are those of all switches but SystemCallFilter= and SystemCallArchitectures=, by the index of the call.
func rules(s spec.Sandbox) (map[int][]rule, error) {
	all := map[int][]rule{}
	add := func(r rule, words ...string) {
		for _, w := range words {
			for _, c := range mustExpand(w) {
				all[c] = append(all[c], r)
			}
		}
	}

	if s.LockPersonality {
		add(otherValues(0, unix.EPERM, 0), "personality") // PER_LINUX
	}
	if s.PrivateDevices {
		add(always(unix.EPERM), "@raw-io")
	}
	if s.ProtectClock {
		add(always(unix.EPERM), "@clock")
	}
	if s.ProtectKernelLogs {
		add(always(unix.EPERM), "syslog")
	}
	if s.ProtectKernelModules {
		add(always(unix.EPERM), "@module")
	}
	if s.ProtectKernelTunables {
		add(always(unix.EPERM), "_sysctl")
	}
	if s.ProtectHostname {
		add(always(unix.EPERM), "sethostname", "setdomainname")
	}
	if s.RestrictSUIDSGID {
		add(bits(1, setID, unix.EPERM), "chmod", "fchmod", "mkdir", "mknod", "creat")
		add(bits(2, setID, unix.EPERM), "fchmodat", "fchmodat2", "mkdirat", "mknodat")
		add(openMode(1, 2), "open")
		add(openMode(2, 3), "openat")
		add(always(unix.ENOSYS), "openat2", "io_uring_setup")
	}
	if s.RestrictRealtime {
		add(otherValues(1, unix.EPERM, unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE), "sched_setscheduler")
		add(always(unix.ENOSYS), "sched_setattr")
	}
	if s.MemoryDenyWriteExecute {
		add(func(a abi, next block) block {
			if a == x86 {
				return ret(refuse(unix.EPERM)) // its arguments are behind a pointer; there is mmap2
			}
			return both(2, writeExec, next)
		}, "mmap")
		add(func(_ abi, next block) block { return both(2, writeExec, next) }, "mmap2")
		add(bits(2, unix.PROT_EXEC, unix.EPERM), "mprotect", "pkey_mprotect")
		add(bits(2, shmExec, unix.EPERM), "shmat")
		add(on32(func(_ abi, next block) block {
			// The upper half of the first argument is a version.
			low := block{instruction(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xffff)}
			return argument(0, append(low, branch(unix.BPF_JEQ, callShmat,
				argument(2, branch(unix.BPF_JSET, shmExec, ret(refuse(unix.EPERM)), next)), next)...))
		}), "ipc")
		add(func(_ abi, next block) block {
			return argument(0, branch(unix.BPF_JEQ, queryOnly, next,
				branch(unix.BPF_JSET, readImpliesExec, ret(refuse(unix.EPERM)), next)))
		}, "personality")
	}
	if s.Confined() {
		add(values(1, unix.EPERM, unix.TIOCSTI, unix.TIOCLINUX), "ioctl")
	}
	return all, errors.Join(namespaceRules(s, add), familyRules(s, add))
}

// both refuses a call if an argument has both bits of mask.
func both(arg int, mask uint32, next block) block {
	one := mask & -mask
	return argument(arg, branch(unix.BPF_JSET, one, branch(unix.BPF_JSET, mask&^one, ret(refuse(unix.EPERM)), next), next))
}

func namespaceRules(s spec.Sandbox, add func(rule, ...string)) error {
	refused, err := refusedNamespaces(s)
	if err != nil || refused == 0 {
		return err
	}
	all := uint32(0)
	for bit := range maps.Values(namespaceKinds()) {
		all |= bit
	}
	add(bits(0, refused, unix.EPERM), "unshare")
	if ofClone := refused &^ unix.CLONE_NEWTIME; ofClone != 0 { // clone(2) takes that bit for part of a signal
		add(bits(0, ofClone, unix.EPERM), "clone")
	}
	if refused == all {
		add(always(unix.EPERM), "setns")
	} else {
		// 0 stands for whatever the descriptor refers to.
		add(values(1, unix.EPERM, 0), "setns")
		add(bits(1, refused, unix.EPERM), "setns")
	}
	add(always(unix.ENOSYS), "clone3")
	return nil
}

func familyRules(s spec.Sandbox, add func(rule, ...string)) error {
	list, deny, err := families(s)
	if err != nil || list == nil {
		return err
	}
	r := otherValues(0, unix.EAFNOSUPPORT, list...)
	if deny {
		r = values(0, unix.EAFNOSUPPORT, list...)
	}
	add(r, "socket")
	add(on32(values(0, unix.EAFNOSUPPORT, callSocket)), "socketcall")
	add(always(unix.ENOSYS), "io_uring_setup")
	return nil
}
