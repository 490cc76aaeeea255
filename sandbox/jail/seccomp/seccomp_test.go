package seccomp

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// call is struct seccomp_data of seccomp(2), without the instruction pointer.
type call struct {
	abi    abi
	number uint32
	args   [6]uint64
}

func (c call) String() string { return fmt.Sprintf("%v call %#x %#x", c.abi, c.number, c.args) }

// run interprets a program as the kernel does (seccomp_check_filter in kernel/seccomp.c, bpf_check_classic in net/core/filter.c): it
// fails the test on what the kernel would not load. steps counts the instructions that were run.
func run(t testing.TB, program []unix.SockFilter, c call) (verdict uint32, steps int) {
	t.Helper()
	audit := [...]uint32{x86_64: 0xc000003e, x32: 0xc000003e, x86: 0x40000003, arm64: 0xc00000b7, arm: 0x40000028}
	words := [16]uint32{0: c.number, 1: audit[c.abi], 2: 0x5555, 3: 0x7fff}
	for i, a := range c.args {
		words[4+2*i], words[5+2*i] = uint32(a), uint32(a>>32)
	}
	var a uint32
	for pc := 0; ; pc++ {
		if pc < 0 || pc >= len(program) {
			t.Fatalf("%v leaves the program at %d", c, pc)
		}
		in := program[pc]
		steps++
		jump := func(taken bool) {
			if taken {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case 0x20: // ld [k]
			if in.K%4 != 0 || in.K >= 64 {
				t.Fatalf("load of %d", in.K)
			}
			a = words[in.K/4]
		case 0x54: // and #k
			a &= in.K
		case 0x05: // ja
			pc += int(in.K)
		case 0x15: // jeq
			jump(a == in.K)
		case 0x35: // jge
			jump(a >= in.K)
		case 0x45: // jset
			jump(a&in.K != 0)
		case 0x06: // ret #k
			return in.K, steps
		default:
			t.Fatalf("the kernel takes no instruction %#x here", in.Code)
		}
	}
}

// tables are the generated tables in another form.
type tables struct {
	numbers  map[string][abis]int64 // x32Bit included; -1: none
	known    map[string]bool
	groups   map[string][]string
	families map[string]uint32
}

func readTables() *tables {
	t := &tables{map[string][abis]int64{}, map[string]bool{}, map[string][]string{}, map[string]uint32{}}
	for _, c := range callTable {
		var numbers [abis]int64
		for a, n := range c.numbers {
			numbers[a] = int64(n)
			if abi(a) == x32 && n >= 0 {
				numbers[a] |= x32Bit
			}
		}
		t.numbers[c.name], t.known[c.name] = numbers, c.known
	}
	for _, g := range groupTable {
		t.groups[g.name] = strings.Fields(g.members)
	}
	for name, known := range t.known {
		if known {
			t.groups["@known"] = append(t.groups["@known"], name)
		}
	}
	for _, f := range familyTable {
		t.families[f.name] = f.number
	}
	return t
}

func compiled(t testing.TB, p spec.Sandbox, machine abi) []unix.SockFilter {
	t.Helper()
	program, err := compile(p, machine)
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	return program
}

const (
	allowed = 0x7fff0000
	killed  = 0x80000000
)

// show is a verdict as the tables below have it.
func show(v uint32) string {
	switch {
	case v == allowed:
		return "allowed"
	case v == killed:
		return "killed"
	case v>>16 == 5:
		return unix.ErrnoName(unix.Errno(v & 0xffff))
	}
	return fmt.Sprintf("%#x", v)
}

func number(t testing.TB, a abi, name string) uint32 {
	t.Helper()
	n, ok := readTables().numbers[name]
	if !ok || n[a] < 0 {
		t.Fatalf("%v has no call %s", a, name)
	}
	return uint32(n[a])
}

func TestSwitches(t *testing.T) {
	const high = 1 << 32
	for _, c := range []struct {
		policy spec.Sandbox
		abis   string
		call   string
		args   [6]uint64
		want   string
	}{
		{spec.Sandbox{SystemCallFilter: []string{"~@mount"}}, "all", "mount", [6]uint64{}, "killed"},
		{spec.Sandbox{SystemCallFilter: []string{"~@mount"}}, "all", "read", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallFilter: []string{"~@mount", "@swap"}, SystemCallErrorNumber: "EACCES"}, "all", "swapon", [6]uint64{}, "EACCES"},
		{spec.Sandbox{SystemCallFilter: []string{"~@mount @swap:ENOSYS"}, SystemCallErrorNumber: "13"}, "all", "swapon", [6]uint64{}, "ENOSYS"},
		{spec.Sandbox{SystemCallFilter: []string{"~@mount:kill"}, SystemCallErrorNumber: "EPERM"}, "all", "mount", [6]uint64{}, "killed"},
		{spec.Sandbox{SystemCallFilter: []string{"read"}}, "all", "read", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallFilter: []string{"read"}}, "all", "write", [6]uint64{}, "killed"},
		{spec.Sandbox{SystemCallFilter: []string{"read"}}, "all", "execve", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallFilter: []string{"read"}}, "all", "exit_group", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallFilter: []string{"read"}}, "all", "clock_nanosleep", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallFilter: []string{"read"}}, "all", "mseal", [6]uint64{}, "ENOSYS"},
		{spec.Sandbox{SystemCallFilter: []string{"read", "mseal"}}, "all", "mseal", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallFilter: []string{"@system-service", "~@privileged @resources"}}, "all", "setpriority", [6]uint64{}, "killed"},
		{spec.Sandbox{SystemCallFilter: []string{"@system-service", "~@privileged:EPERM"}}, "all", "chroot", [6]uint64{}, "EPERM"},
		{spec.Sandbox{SystemCallFilter: []string{"@system-service", "~@privileged", "chown"}}, "x86-64", "chown", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallFilter: []string{"@system-service"}, SystemCallErrorNumber: "EPERM"}, "all", "bpf", [6]uint64{}, "EPERM"},
		{spec.Sandbox{SystemCallFilter: []string{"@known"}}, "all", "bpf", [6]uint64{}, "allowed"},

		{spec.Sandbox{SystemCallArchitectures: []string{"native"}}, "x86-64 arm64", "getpid", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallArchitectures: []string{"native"}}, "x86 x32 arm", "getpid", [6]uint64{}, "killed"},
		{spec.Sandbox{SystemCallArchitectures: []string{"x32"}}, "x86-64 x32 arm64", "getpid", [6]uint64{}, "allowed"},
		{spec.Sandbox{SystemCallArchitectures: []string{"x32"}}, "x86 arm", "getpid", [6]uint64{}, "killed"},

		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX AF_INET"}}, "all", "socket", [6]uint64{1}, "allowed"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX", "AF_INET"}}, "all", "socket", [6]uint64{2}, "allowed"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX"}}, "all", "socket", [6]uint64{10}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX"}}, "all", "socket", [6]uint64{10 | high}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX"}}, "all", "socket", [6]uint64{0}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX"}}, "all", "socketpair", [6]uint64{10}, "allowed"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX"}}, "all", "io_uring_setup", [6]uint64{}, "ENOSYS"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"~AF_VSOCK AF_ALG"}}, "all", "socket", [6]uint64{40}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"~AF_VSOCK AF_ALG"}}, "all", "socket", [6]uint64{40 | high}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"~AF_VSOCK", "~AF_ALG"}}, "all", "socket", [6]uint64{38}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"~AF_VSOCK AF_ALG"}}, "all", "socket", [6]uint64{2}, "allowed"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"none"}}, "all", "socket", [6]uint64{1}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX"}}, "x86", "socketcall", [6]uint64{1}, "EAFNOSUPPORT"},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX"}}, "x86", "socketcall", [6]uint64{2}, "allowed"},

		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "unshare", [6]uint64{unix.CLONE_NEWUSER}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "unshare", [6]uint64{unix.CLONE_NEWTIME}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "unshare", [6]uint64{unix.CLONE_FILES}, "allowed"},
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "clone", [6]uint64{unix.CLONE_NEWNET | 17}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "clone", [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | 17}, "allowed"},
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "clone", [6]uint64{unix.CLONE_NEWTIME}, "allowed"}, // part of a signal there
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "clone3", [6]uint64{}, "ENOSYS"},
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "setns", [6]uint64{3, unix.CLONE_NEWNET}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"yes"}}, "all", "setns", [6]uint64{3, 4}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"no"}, LockPersonality: true}, "all", "clone3", [6]uint64{}, "allowed"},
		{spec.Sandbox{RestrictNamespaces: []string{"net mnt"}}, "all", "unshare", [6]uint64{unix.CLONE_NEWNET | unix.CLONE_NEWNS}, "allowed"},
		{spec.Sandbox{RestrictNamespaces: []string{"net mnt"}}, "all", "unshare", [6]uint64{unix.CLONE_NEWNET | unix.CLONE_NEWPID}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"net", "mnt"}}, "all", "setns", [6]uint64{3, unix.CLONE_NEWNS}, "allowed"},
		{spec.Sandbox{RestrictNamespaces: []string{"net mnt"}}, "all", "setns", [6]uint64{3, 0}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"net mnt"}}, "all", "setns", [6]uint64{3, high}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"~user"}}, "all", "unshare", [6]uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNET}, "EPERM"},
		{spec.Sandbox{RestrictNamespaces: []string{"~user"}}, "all", "unshare", [6]uint64{unix.CLONE_NEWNET}, "allowed"},
		{spec.Sandbox{RestrictNamespaces: []string{"~user"}}, "all", "clone3", [6]uint64{}, "ENOSYS"},

		{spec.Sandbox{LockPersonality: true}, "all", "personality", [6]uint64{0}, "allowed"},
		{spec.Sandbox{LockPersonality: true}, "all", "personality", [6]uint64{0xffffffff}, "EPERM"},
		{spec.Sandbox{LockPersonality: true}, "all", "personality", [6]uint64{8}, "EPERM"},

		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86-64 x32 arm64", "mmap", [6]uint64{0, 4096, 3}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86-64 x32 arm64", "mmap", [6]uint64{0, 4096, 5}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86-64 x32 arm64", "mmap", [6]uint64{0, 4096, 7}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86-64 x32 arm64", "mmap", [6]uint64{0, 4096, 6 | high}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86", "mmap", [6]uint64{0, 4096, 0}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86 arm", "mmap2", [6]uint64{0, 4096, 6}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86 arm", "mmap2", [6]uint64{0, 4096, 5}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "mprotect", [6]uint64{0, 4096, 4}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "mprotect", [6]uint64{0, 4096, 3}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "pkey_mprotect", [6]uint64{0, 4096, 5}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "shmat", [6]uint64{0, 0, 0o100000}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "shmat", [6]uint64{0, 0, 0o10000}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86", "ipc", [6]uint64{21, 0, 0o100000}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86", "ipc", [6]uint64{1<<16 | 21, 0, 0o100000}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86", "ipc", [6]uint64{21, 0, 0}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "x86", "ipc", [6]uint64{1, 0, 0o100000}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "personality", [6]uint64{0x0400000}, "EPERM"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "personality", [6]uint64{0xffffffff}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true}, "all", "personality", [6]uint64{8}, "allowed"},
		{spec.Sandbox{MemoryDenyWriteExecute: true, LockPersonality: true}, "all", "personality", [6]uint64{0xffffffff}, "EPERM"},

		{spec.Sandbox{RestrictRealtime: true}, "all", "sched_setscheduler", [6]uint64{0, unix.SCHED_FIFO}, "EPERM"},
		{spec.Sandbox{RestrictRealtime: true}, "all", "sched_setscheduler", [6]uint64{0, unix.SCHED_DEADLINE}, "EPERM"},
		{spec.Sandbox{RestrictRealtime: true}, "all", "sched_setscheduler", [6]uint64{0, unix.SCHED_RESET_ON_FORK}, "EPERM"},
		{spec.Sandbox{RestrictRealtime: true}, "all", "sched_setscheduler", [6]uint64{0, unix.SCHED_BATCH}, "allowed"},
		{spec.Sandbox{RestrictRealtime: true}, "all", "sched_setscheduler", [6]uint64{0, unix.SCHED_IDLE}, "allowed"},
		{spec.Sandbox{RestrictRealtime: true}, "all", "sched_setattr", [6]uint64{}, "ENOSYS"},

		{spec.Sandbox{RestrictSUIDSGID: true}, "x86-64 x86 x32 arm", "chmod", [6]uint64{0, 0o4755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "x86-64 x86 x32 arm", "chmod", [6]uint64{0, 0o1777}, "allowed"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "fchmod", [6]uint64{0, 0o2755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "fchmodat", [6]uint64{0, 0, 0o4755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "fchmodat2", [6]uint64{0, 0, 0o6755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "mkdirat", [6]uint64{0, 0, 0o2755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "mknodat", [6]uint64{0, 0, 0o104755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "mknodat", [6]uint64{0, 0, 0o100755}, "allowed"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "x86-64 x86 x32 arm", "creat", [6]uint64{0, 0o4755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "x86-64 x86 x32 arm", "open", [6]uint64{0, unix.O_CREAT, 0o4755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "x86-64 x86 x32 arm", "open", [6]uint64{0, unix.O_RDWR, 0o4755}, "allowed"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "openat", [6]uint64{0, 0, unix.O_CREAT, 0o4755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "openat", [6]uint64{0, 0, unix.O_TMPFILE | unix.O_RDWR, 0o4755}, "EPERM"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "openat", [6]uint64{0, 0, unix.O_DIRECTORY, 0o4755}, "allowed"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "openat", [6]uint64{0, 0, unix.O_CREAT, 0o755}, "allowed"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "openat2", [6]uint64{}, "ENOSYS"},
		{spec.Sandbox{RestrictSUIDSGID: true}, "all", "io_uring_setup", [6]uint64{}, "ENOSYS"},

		{spec.Sandbox{PrivateDevices: true}, "x86-64 x86", "iopl", [6]uint64{}, "EPERM"},
		{spec.Sandbox{ProtectClock: true}, "all", "clock_settime", [6]uint64{}, "EPERM"},
		{spec.Sandbox{ProtectClock: true}, "all", "clock_gettime", [6]uint64{}, "allowed"},
		{spec.Sandbox{ProtectKernelModules: true}, "all", "finit_module", [6]uint64{}, "EPERM"},
		{spec.Sandbox{ProtectKernelLogs: true}, "all", "syslog", [6]uint64{}, "EPERM"},
		{spec.Sandbox{ProtectKernelTunables: true}, "x86-64 x86 arm", "_sysctl", [6]uint64{}, "EPERM"},
		{spec.Sandbox{ProtectHostname: true}, "all", "sethostname", [6]uint64{}, "EPERM"},
		{spec.Sandbox{ProtectHostname: true}, "all", "setdomainname", [6]uint64{}, "EPERM"},
		{spec.Sandbox{Profile: "strict"}, "all", "ioctl", [6]uint64{0, unix.TIOCSTI}, "EPERM"},
		{spec.Sandbox{Profile: "strict"}, "all", "ioctl", [6]uint64{0, unix.TIOCSTI | high}, "EPERM"},
		{spec.Sandbox{Profile: "strict"}, "all", "ioctl", [6]uint64{0, unix.TIOCLINUX}, "EPERM"},
		{spec.Sandbox{Profile: "strict"}, "all", "ioctl", [6]uint64{0, unix.TIOCGWINSZ}, "allowed"},

		// The list of calls goes before the switches that look at arguments, as the filter that systemd loads last.
		{spec.Sandbox{SystemCallFilter: []string{"~socket:EACCES"}, RestrictAddressFamilies: []string{"AF_UNIX"}}, "all", "socket", [6]uint64{10}, "EACCES"},
		{spec.Sandbox{SystemCallFilter: []string{"~mount"}, RestrictAddressFamilies: []string{"AF_UNIX"}}, "all", "socket", [6]uint64{10}, "EAFNOSUPPORT"},
		{spec.Sandbox{SystemCallFilter: []string{"~clone3:EPERM"}, RestrictNamespaces: []string{"yes"}}, "all", "clone3", [6]uint64{}, "EPERM"},
	} {
		names := strings.Fields(c.abis)
		if c.abis == "all" {
			names = []string{"x86-64", "x32", "x86", "arm64", "arm"}
		}
		for a := range abis {
			if !slices.Contains(names, a.String()) {
				continue
			}
			if readTables().numbers[c.call][a] < 0 && c.abis == "all" {
				continue // as kexec_load, of which there is a second on some
			}
			machine := x86_64
			if a == arm64 || a == arm {
				machine = arm64
			}
			got, _ := run(t, compiled(t, c.policy, machine), call{a, number(t, a, c.call), c.args})
			if show(got) != c.want {
				t.Errorf("%+v, %v: %s%#x is %s, not %s", c.policy, a, c.call, c.args, show(got), c.want)
			}
		}
	}
}

// TestNumbers holds some numbers of the generated table, on each ABI, to those of the kernel's headers.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		name string
		want [abis]int64
	}{
		{"read", [abis]int64{0, x32Bit, 3, 63, 3}},
		{"execve", [abis]int64{59, x32Bit | 520, 11, 221, 11}},
		{"openat2", [abis]int64{437, x32Bit | 437, 437, 437, 437}},
		{"mmap", [abis]int64{9, x32Bit | 9, 90, 222, -1}},
		{"mmap2", [abis]int64{-1, -1, 192, -1, 192}},
		{"ioctl", [abis]int64{16, x32Bit | 514, 54, 29, 54}},
		{"set_tls", [abis]int64{-1, -1, -1, -1, 0x0f0005}},
		{"socketcall", [abis]int64{-1, -1, 102, -1, -1}},
	} {
		if got := readTables().numbers[c.name]; got != c.want {
			t.Errorf("%s: %#x, not %#x", c.name, got, c.want)
		}
	}
	if runtimeNumber := uint32(unix.SYS_FCHMODAT2); number(t, machine(), "fchmodat2") != runtimeNumber {
		t.Errorf("fchmodat2 is %d here", runtimeNumber)
	}
}

// TestNoCall: a tracer that takes a call back leaves -1 for a number, which is no x32 call to be killed for.
func TestNoCall(t *testing.T) {
	for _, machine := range []abi{x86_64, arm64} {
		for _, c := range []struct {
			policy spec.Sandbox
			want   string
		}{
			{spec.Sandbox{SystemCallArchitectures: []string{"native"}}, "allowed"},
			{spec.Sandbox{SystemCallFilter: []string{"@known"}}, "ENOSYS"},
		} {
			if got, _ := run(t, compiled(t, c.policy, machine), call{machine, 0xffffffff, [6]uint64{}}); show(got) != c.want {
				t.Errorf("%+v on %v: %s, not %s", c.policy, machine, show(got), c.want)
			}
		}
	}
}

func TestZero(t *testing.T) {
	for _, p := range []spec.Sandbox{
		{}, {SystemCallFilter: []string{}}, {SystemCallFilter: []string{" "}}, {SystemCallErrorNumber: "EPERM"}, {RestrictNamespaces: []string{"no"}},
		{RestrictNamespaces: []string{""}}, {RestrictAddressFamilies: []string{}}, {SystemCallArchitectures: []string{"native x86 x32 arm"}},
	} {
		for _, machine := range []abi{x86_64, arm64} {
			if program := compiled(t, p, machine); program != nil {
				t.Errorf("%+v: %d instructions", p, len(program))
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		policy spec.Sandbox
		want   string
		entry  int
	}{
		{spec.Sandbox{SystemCallFilter: []string{"opennat"}}, `system_call_filter: there is no system call "opennat"; did you mean "openat"?`, 0},
		{spec.Sandbox{SystemCallFilter: []string{"read", "~@priviledged"}}, `system_call_filter: there is no group of system calls "@priviledged"; did you mean "@privileged"?`, 1},
		{spec.Sandbox{SystemCallFilter: []string{"xyzzy"}}, `system_call_filter: there is no system call "xyzzy"`, 0},
		{spec.Sandbox{SystemCallFilter: []string{"read:EPERM"}}, `system_call_filter: read is allowed, so it cannot have an error; write "~read:EPERM" to refuse it`, 0},
		{spec.Sandbox{SystemCallFilter: []string{"~read:EPERMM"}}, `system_call_filter: read: there is no error "EPERMM"; there are those of errno(3), as "EPERM", numbers, and "kill"`, 0},
		{spec.Sandbox{SystemCallFilter: []string{"~read:4096"}}, `system_call_filter: read: 4096 is no error number; they end at 4095`, 0},
		{spec.Sandbox{SystemCallFilter: []string{"~"}}, `system_call_filter: "~" is before nothing; write "~@mount", say`, 0},
		{spec.Sandbox{SystemCallFilter: []string{"~@process execve"}}, `system_call_filter: execve is refused, so no job could be started`, -1},
		{spec.Sandbox{SystemCallFilter: []string{"read", "~@default"}}, `system_call_filter: execve is refused, so no job could be started`, -1},
		{spec.Sandbox{SystemCallErrorNumber: "0"}, `system_call_error_number: 0 is no error; use "EPERM", say`, -1},
		{spec.Sandbox{SystemCallErrorNumber: "EFOO"}, `system_call_error_number: there is no error "EFOO"; there are those of errno(3), as "EPERM", numbers, and "kill"`, -1},
		{spec.Sandbox{SystemCallArchitectures: []string{"native", "amd64"}}, `system_call_architectures: there is no architecture "amd64"; there are "native", "x86-64", "x32", "x86", "arm64" and "arm"`, 1},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIXX"}}, `restrict_address_families: there is no address family "AF_UNIXX"; did you mean "AF_UNIX"?`, 0},
		{spec.Sandbox{RestrictAddressFamilies: []string{"none", "AF_UNIX"}}, `restrict_address_families: "none" stands alone`, -1},
		{spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX", "~AF_INET"}}, `restrict_address_families: "~" goes before the first family and then holds for all`, 1},
		{spec.Sandbox{RestrictNamespaces: []string{"network"}}, `restrict_namespaces: there is no kind of namespaces "network"; there are cgroup, ipc, mnt, net, pid, time, user, uts; alone, "yes" and "no"`, 0},
		{spec.Sandbox{RestrictNamespaces: []string{"net", "~mnt"}}, `restrict_namespaces: "~" goes before the first kind and then holds for all`, 1},
	} {
		err := Check(c.policy)
		var e *Error
		if err == nil || err.Error() != c.want || !errors.As(err, &e) || e.Entry != c.entry {
			t.Errorf("%+v: %v, not %q at %d", c.policy, err, c.want, c.entry)
		}
		if _, err := Compile(c.policy); err == nil {
			t.Errorf("%+v compiles", c.policy)
		}
	}
	both := spec.Sandbox{SystemCallFilter: []string{"opennat"}, RestrictNamespaces: []string{"network"}}
	if err := Check(both); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not both errors: %v", err)
	}
	for _, errno := range []string{"EPERM", "EAGAIN", "EWOULDBLOCK", "EOPNOTSUPP", "ENOTSUP", "EDEADLK", "EDEADLOCK", "EUCLEAN", "1", "4095", "kill"} {
		if err := Check(spec.Sandbox{SystemCallFilter: []string{"~mount"}, SystemCallErrorNumber: errno}); err != nil {
			t.Errorf("%s: %v", errno, err)
		}
	}
}

// everything is a policy with all switches on, with a list as long as people write them.
func everything() spec.Sandbox {
	return spec.Sandbox{
		SystemCallFilter: []string{"@system-service", "~@privileged @resources"}, SystemCallErrorNumber: "EPERM", RestrictAddressFamilies: []string{"AF_UNIX AF_INET AF_INET6"},
		RestrictNamespaces: []string{"yes"}, LockPersonality: true, MemoryDenyWriteExecute: true, RestrictRealtime: true, RestrictSUIDSGID: true,
		PrivateDevices: true, ProtectClock: true, ProtectKernelModules: true, ProtectKernelLogs: true, ProtectKernelTunables: true,
		ProtectHostname: true, Profile: "strict",
	}
}

// TestLength holds programs to lengths: what a call costs that the program has to be run for, and that even every switch at once, for
// all architectures, is far from what the kernel takes.
func TestLength(t *testing.T) {
	native := everything()
	native.SystemCallArchitectures = []string{"native"}
	for _, c := range []struct {
		name      string
		policy    spec.Sandbox
		all, call int
	}{
		{"all switches, native", native, 350, 18},
		{"all switches, all architectures", everything(), 1250, 20},
		{"@system-service, native", spec.Sandbox{SystemCallFilter: []string{"@system-service"}, SystemCallArchitectures: []string{"native"}}, 150, 12},
		{"RestrictNamespaces=, native", spec.Sandbox{RestrictNamespaces: []string{"yes"}, SystemCallArchitectures: []string{"native"}}, 40, 11},
	} {
		for _, m := range []abi{x86_64, arm64} {
			program := compiled(t, c.policy, m)
			sum, most, count := 0, 0, 0
			for _, numbers := range readTables().numbers {
				if numbers[m] < 0 {
					continue
				}
				v, steps := run(t, program, call{m, uint32(numbers[m]), [6]uint64{}})
				if v == allowed {
					sum, count, most = sum+steps, count+1, max(most, steps)
				}
			}
			t.Logf("%s on %v: %d instructions; an allowed call takes %.1f, at most %d", c.name, m, len(program), float64(sum)/float64(count), most)
			if len(program) > c.all || most > c.call {
				t.Errorf("%s on %v: %d instructions and %d for a call; it was %d and %d at most", c.name, m, len(program), most, c.all, c.call)
			}
		}
	}
}

// random makes a policy and calls up that are worth trying.
type random struct {
	*rand.Rand
	names []string
	t     *tables
	sets  map[string]map[string]bool
}

func (r random) some(list []string, n int) []string {
	var s []string
	for range r.IntN(n) + 1 {
		s = append(s, list[r.IntN(len(list))])
	}
	return s
}

func (r random) policy() spec.Sandbox {
	coin := func() bool { return r.IntN(3) == 0 }
	p := spec.Sandbox{
		LockPersonality: coin(), MemoryDenyWriteExecute: coin(), RestrictRealtime: coin(), RestrictSUIDSGID: coin(), PrivateDevices: coin(),
		ProtectClock: coin(), ProtectKernelModules: coin(), ProtectKernelLogs: coin(), ProtectKernelTunables: coin(), ProtectHostname: coin(),
	}
	if coin() {
		p.Profile = r.some([]string{"off", "default", "strict"}, 1)[0]
	}
	if coin() {
		p.SystemCallArchitectures = r.some([]string{"native", "x86-64", "x32", "x86", "arm64", "arm"}, 2)
	}
	if coin() {
		p.SystemCallErrorNumber = r.some([]string{"EPERM", "kill", "77"}, 1)[0]
	}
	if coin() {
		p.RestrictAddressFamilies = r.some(sortedKeys(r.t.families), 6)
		if coin() {
			p.RestrictAddressFamilies[0] = "~" + p.RestrictAddressFamilies[0]
		} else if coin() {
			p.RestrictAddressFamilies = []string{"none"}
		}
	}
	if coin() {
		p.RestrictNamespaces = r.some(sortedKeys(namespaceKinds()), 4)
		if coin() {
			p.RestrictNamespaces[0] = "~" + p.RestrictNamespaces[0]
		} else if coin() {
			p.RestrictNamespaces = []string{"yes"}
		}
	}
	if !coin() {
		words := slices.Concat(r.names, slices.Repeat(sortedKeys(r.t.groups), 10))
		deny := r.IntN(2) == 0
		for i, w := range r.some(words, 12) {
			if i == 0 && deny || i > 0 && coin() {
				w = "~" + w
			}
			if (deny || strings.HasPrefix(w, "~")) && coin() {
				w += ":" + r.some([]string{"EACCES", "kill", "99"}, 1)[0]
			}
			p.SystemCallFilter = append(p.SystemCallFilter, w)
		}
	}
	return p
}

func (r random) args() (args [6]uint64) {
	interesting := []uint64{
		0, 1, 2, 3, 4, 5, 6, 7, 10, 21, 38, 40, 0o755, 0o2755, 0o4755, 0o100000, unix.O_CREAT, unix.O_TMPFILE, unix.TIOCSTI, unix.TIOCLINUX,
		unix.CLONE_NEWUSER, unix.CLONE_NEWNET | unix.CLONE_NEWNS, unix.CLONE_NEWTIME, 0xffffffff, 0x0400000, 1 << 32, 1<<32 | 1, r.Uint64(),
	}
	for i := range args {
		args[i] = interesting[r.IntN(len(interesting))]
	}
	return args
}

// members returns the calls of a group, or the call itself.
func (r random) members(word string) map[string]bool {
	set, ok := r.sets[word]
	if !ok {
		set = map[string]bool{}
		if !strings.HasPrefix(word, "@") {
			set[word] = true
		}
		for _, member := range r.t.groups[word] {
			maps.Copy(set, r.members(member))
		}
		r.sets[word] = set
	}
	return set
}

// words returns p with a string for each word.
func words(p spec.Sandbox) spec.Sandbox {
	for _, l := range []*[]string{&p.SystemCallFilter, &p.RestrictAddressFamilies, &p.RestrictNamespaces} {
		var all []string
		for _, entry := range *l {
			rest, inverted := strings.CutPrefix(entry, "~")
			for _, w := range strings.Fields(rest) {
				if inverted {
					w = "~" + w
				}
				all = append(all, w)
			}
		}
		*l = all
	}
	return p
}

// naive says what a call gets, from the meaning of the switches and with none of the code that makes programs.
func naive(p spec.Sandbox, r random, m abi, c call, name string) string {
	t := r.t
	if len(p.SystemCallArchitectures) > 0 && c.abi != m && !slices.Contains(p.SystemCallArchitectures, c.abi.String()) {
		return "killed"
	}
	if len(p.SystemCallFilter) > 0 {
		deny := strings.HasPrefix(p.SystemCallFilter[0], "~")
		named := func(errno string) string {
			switch errno {
			case "", "kill":
				return "killed"
			case "77":
				return "EBADFD"
			case "99":
				return "EADDRNOTAVAIL"
			}
			return errno
		}
		answer := "allowed"
		if !deny && !r.members("@default")[name] {
			if answer = "ENOSYS"; t.known[name] {
				answer = named(p.SystemCallErrorNumber)
			}
		}
		for _, entry := range p.SystemCallFilter {
			word, inverted := strings.CutPrefix(entry, "~")
			word, errno, has := strings.Cut(word, ":")
			if !r.members(word)[name] {
				continue
			}
			switch {
			case !deny && !inverted:
				answer = "allowed"
			case has:
				answer = named(errno)
			case !deny && !t.known[name]:
				answer = "ENOSYS"
			default:
				answer = named(p.SystemCallErrorNumber)
			}
		}
		if answer != "allowed" {
			return answer
		}
	}
	in := func(n uint64, list ...uint64) bool { return slices.Contains(list, n) }
	arg := [6]uint64{}
	for i := range arg {
		arg[i] = c.args[i] & 0xffffffff
	}
	ring := false
	if p.RestrictAddressFamilies != nil {
		ring = true
		deny := strings.HasPrefix(p.RestrictAddressFamilies[0], "~")
		listed := false
		for _, f := range p.RestrictAddressFamilies {
			n, ok := t.families[strings.TrimPrefix(f, "~")]
			listed = listed || ok && uint64(n) == arg[0]
		}
		if name == "socket" && listed == deny || name == "socketcall" && arg[0] == 1 {
			return "EAFNOSUPPORT"
		}
	}
	if p.RestrictSUIDSGID {
		ring = true
		mode := map[string]int{
			"chmod": 1, "fchmod": 1, "mkdir": 1, "mknod": 1, "creat": 1, "fchmodat": 2, "fchmodat2": 2, "mkdirat": 2, "mknodat": 2, "open": 2, "openat": 3,
		}
		if i, ok := mode[name]; ok && arg[i]&0o6000 != 0 {
			if !strings.HasPrefix(name, "open") || arg[i-1]&(0o100|0o20000000) != 0 {
				return "EPERM"
			}
		}
		if name == "openat2" {
			return "ENOSYS"
		}
	}
	if ring && name == "io_uring_setup" {
		return "ENOSYS"
	}
	if p.RestrictRealtime {
		if name == "sched_setscheduler" && !in(arg[1], 0, 3, 5) {
			return "EPERM"
		}
		if name == "sched_setattr" {
			return "ENOSYS"
		}
	}
	if p.MemoryDenyWriteExecute {
		switch {
		case name == "mmap" && (c.abi == x86 || arg[2]&6 == 6), name == "mmap2" && arg[2]&6 == 6,
			in(uint64(len(name)), 8, 13) && strings.HasSuffix(name, "mprotect") && arg[2]&4 != 0,
			name == "shmat" && arg[2]&0o100000 != 0, name == "ipc" && arg[0]&0xffff == 21 && arg[2]&0o100000 != 0,
			name == "personality" && arg[0] != 0xffffffff && arg[0]&0x400000 != 0:
			return "EPERM"
		}
	}
	if refused, kinds := uint64(0), namespaceKinds(); p.RestrictNamespaces != nil {
		deny := strings.HasPrefix(p.RestrictNamespaces[0], "~")
		all := true
		for kind, bit := range kinds {
			listed := slices.ContainsFunc(p.RestrictNamespaces, func(s string) bool { return strings.TrimPrefix(s, "~") == kind })
			if listed == deny {
				refused |= uint64(bit)
			} else {
				all = false
			}
		}
		switch {
		case name == "unshare" && arg[0]&refused != 0, name == "clone" && arg[0]&(refused&^0x80) != 0,
			name == "setns" && (all || arg[1] == 0 || arg[1]&refused != 0):
			return "EPERM"
		case name == "clone3":
			return "ENOSYS"
		}
	}
	switch {
	case p.LockPersonality && name == "personality" && arg[0] != 0,
		p.PrivateDevices && r.members("@raw-io")[name], p.ProtectClock && r.members("@clock")[name], p.ProtectKernelModules && r.members("@module")[name],
		p.ProtectKernelLogs && name == "syslog", p.ProtectKernelTunables && name == "_sysctl",
		p.ProtectHostname && (name == "sethostname" || name == "setdomainname"),
		p.Confined() && name == "ioctl" && in(arg[1], 0x5412, 0x541c):
		return "EPERM"
	}
	return "allowed"
}

// agree compares a program with naive for every number of every ABI of a machine.
func agree(t *testing.T, r random, p spec.Sandbox, m abi) {
	t.Helper()
	program, err := compile(p, m)
	if err != nil {
		if strings.Contains(err.Error(), "no job could be started") {
			return
		}
		t.Fatalf("%+v: %v", p, err)
	}
	byNumber := [abis]map[uint32]string{}
	for a := range abis {
		byNumber[a] = map[uint32]string{}
		for name, numbers := range r.t.numbers {
			if numbers[a] >= 0 {
				byNumber[a][uint32(numbers[a])] = name
			}
		}
	}
	machines := map[abi][]abi{x86_64: {x86_64, x32, x86}, arm64: {arm64, arm}}
	for _, a := range machines[m] {
		for i := range uint32(1024) {
			n := i
			if a == x32 {
				n |= x32Bit
			}
			if a == arm && i >= 1000 {
				n = 0x0f0000 + i - 1000
			}
			name, ok := byNumber[a][n]
			if !ok {
				name = "unlisted"
			}
			c := call{a, n, r.args()}
			got := "allowed"
			if program != nil {
				v, _ := run(t, program, c)
				got = show(v)
			}
			if want := naive(words(p), r, m, c, name); got != want {
				t.Fatalf("%+v on %v: %s, %v is %s, not %s", p, m, name, c, got, want)
			}
		}
	}
}

func newRandom(seed uint64) random {
	t := readTables()
	return random{rand.New(rand.NewPCG(seed, 1)), sortedKeys(t.numbers), t, map[string]map[string]bool{}}
}

func TestAgainstNaive(t *testing.T) {
	for seed := range uint64(60) {
		r := newRandom(seed)
		agree(t, r, r.policy(), []abi{x86_64, arm64}[seed%2])
	}
	for _, m := range []abi{x86_64, arm64} {
		agree(t, newRandom(1), everything(), m)
	}
}

func FuzzAgainstNaive(f *testing.F) {
	f.Add(uint64(1), false)
	f.Add(uint64(2), true)
	f.Fuzz(func(t *testing.T, seed uint64, onARM bool) {
		r, m := newRandom(seed), x86_64
		if onARM {
			m = arm64
		}
		agree(t, r, r.policy(), m)
	})
}

// FuzzCheck: a policy of any strings is compiled, or is refused with an error that says which switch is wrong.
func FuzzCheck(f *testing.F) {
	f.Add("@system-service", "~@privileged:EPERM", "EPERM", "native", "~AF_UNIX", "yes")
	f.Add("~@mount x", "read:", "0", "", "none", "~ user")
	f.Fuzz(func(t *testing.T, first, second, errno, architecture, family, kind string) {
		p := spec.Sandbox{
			SystemCallFilter: []string{first, second}, SystemCallErrorNumber: errno, SystemCallArchitectures: []string{architecture},
			RestrictAddressFamilies: []string{family}, RestrictNamespaces: []string{kind},
		}
		program, err := compile(p, x86_64)
		checked := Check(p)
		if (err == nil) != (checked == nil) {
			t.Fatalf("compiled: %v, checked: %v", err, checked)
		}
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%v is no *Error", err)
		}
		if err == nil && program != nil {
			if v, _ := run(t, program, call{x86_64, unix.SYS_EXECVE, [6]uint64{}}); runtimeIsAMD64 && v != allowed {
				t.Fatalf("execve is %s", show(v))
			}
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	p := everything()
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
