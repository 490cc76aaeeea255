package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// probe is one system call.
type probe struct {
	abi  abi
	name string
	args [6]uint64
}

func (p probe) String() string {
	s := p.name + "("
	last := len(p.args)
	for last > 0 && p.args[last-1] == 0 {
		last--
	}
	for i, a := range p.args[:last] {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%#x", a)
	}
	s += ")"
	if p.abi != x86_64 {
		s += " of " + p.abi.String()
	}
	return s
}

// program writes a program that loads filter, where there is one, and then does nothing but this call: it exits with the error, or 0.
// It is written by hand, since any library would make other calls.
func (p probe) program(t testing.TB, filter []unix.SockFilter) string {
	t.Helper()
	const base, headers = 0x400000, 64 + 56
	var code []byte
	call := func(number uint64, args ...uint64) {
		for i, v := range append([]uint64{number}, args...) { // rax rdi rsi rdx r10 r8 r9
			code = append(code, [][]byte{{0x48, 0xb8}, {0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}, {0x49, 0xb9}}[i]...)
			code = binary.LittleEndian.AppendUint64(code, v)
		}
		code = append(code, 0x0f, 0x05) // syscall
	}
	var data []byte
	if filter != nil {
		// struct sock_fprog and the filter, right behind the headers.
		data = binary.LittleEndian.AppendUint64(data, uint64(len(filter)))
		data = binary.LittleEndian.AppendUint64(data, base+headers+16)
		for _, in := range filter {
			data = binary.LittleEndian.AppendUint16(data, in.Code)
			data = append(data, in.Jt, in.Jf)
			data = binary.LittleEndian.AppendUint32(data, in.K)
		}
		call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, base+headers)
		code = append(code, 0x48, 0x85, 0xc0, 0x74, 0x0c, // test %rax, %rax; je +12
			0xbf, notLoaded, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05) // exit_group
	}
	number := uint64(noCall)
	if p.name != "-1" {
		number = uint64(readTables().numbers[p.name][p.abi])
	}
	if p.abi == x86 {
		for i, v := range append([]uint64{number}, p.args[:]...) { // eax ebx ecx edx esi edi ebp
			code = append(code, 0xb8+[]byte{0, 3, 1, 2, 6, 7, 5}[i])
			code = binary.LittleEndian.AppendUint32(code, uint32(v))
		}
		code = append(code, 0xcd, 0x80, 0x48, 0x63, 0xc0) // int $0x80; movsxd %eax, %rax
	} else {
		call(number, p.args[:]...)
	}
	code = append(code,
		0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, // cmp $-4095, %rax
		0x72, 0x07, // jb +7
		0x48, 0xf7, 0xd8, // neg %rax
		0x89, 0xc7, // mov %eax, %edi
		0xeb, 0x02, // jmp +2
		0x31, 0xff, // xor %edi, %edi
		0xb8, 231, 0, 0, 0, 0x0f, 0x05, // exit_group
	)
	size := uint64(headers + len(data) + len(code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, v := range []any{ // elf(5)
		uint16(2), uint16(62), uint32(1), uint64(base + headers + len(data)), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1),
		uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(4096),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(data)
	b.Write(code)
	path := filepath.Join(t.TempDir(), "probe")
	if err := os.WriteFile(path, b.Bytes(), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// notLoaded is the exit status of a probe whose filter the kernel does not take.
const notLoaded = 200

// outcome is how a probe ended.
func outcome(t testing.TB, err error) string {
	t.Helper()
	var exit *exec.ExitError
	if err == nil {
		return "done"
	}
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	status := exit.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		if status.Signal() == unix.SIGSYS {
			return "killed"
		}
		return unix.SignalName(status.Signal())
	}
	if status.ExitStatus() == notLoaded {
		return "no filter loaded"
	}
	return errnoName(status.ExitStatus())
}

func errnoName(n int) string {
	for _, e := range errnoTable {
		if e.number == uint32(n) {
			return e.name
		}
	}
	return fmt.Sprintf("exit %d", n)
}

func unconfined(t testing.TB, p probe) string {
	t.Helper()
	return outcome(t, exec.Command(p.program(t, nil)).Run())
}

func confined(t testing.TB, policy spec.Sandbox, p probe) string {
	t.Helper()
	return outcome(t, exec.Command(p.program(t, compiled(t, policy, x86_64))).Run())
}

// row is a call that is tried under a policy.
type row struct {
	policy spec.Sandbox
	probe  probe
	// want is how it ends.
	want string
	// systemd is how it ends under systemd where that differs, and why it does; see the package comment.
	systemd, why string
	// asRoot says that only root is refused by the filter and not by the kernel anyway.
	asRoot bool
}

// asFree is how a call ends that no filter refuses.
const asFree = "as without a filter"

// newer is why a call is refused that systemd's groups do not have yet.
const newer = "newer than the groups: as on an older kernel"

func rows() []row {
	do := func(name string, args ...uint64) probe {
		p := probe{x86_64, name, [6]uint64{}}
		copy(p.args[:], args)
		return p
	}
	of := func(a abi, p probe) probe { p.abi = a; return p }
	native := []string{"native"}
	deny := func(words ...string) spec.Sandbox {
		words[0] = "~" + words[0]
		return spec.Sandbox{SystemCallFilter: words}
	}
	namespaces := spec.Sandbox{RestrictNamespaces: []string{"yes"}}
	families := spec.Sandbox{RestrictAddressFamilies: []string{"AF_UNIX AF_INET"}}
	set := spec.Sandbox{RestrictSUIDSGID: true}
	mdwe := spec.Sandbox{MemoryDenyWriteExecute: true}
	const atCWD = 0xffffffffffffff9c
	stream := uint64(unix.SOCK_STREAM)

	return []row{
		// SystemCallFilter=, as an allow list.
		{policy: spec.Sandbox{SystemCallFilter: []string{"getpid"}}, probe: do("getpid"), want: "done"},
		{policy: spec.Sandbox{SystemCallFilter: []string{"read"}}, probe: do("getcwd"), want: "killed"},
		{policy: spec.Sandbox{SystemCallFilter: []string{"read"}, SystemCallErrorNumber: "EUCLEAN"}, probe: do("getcwd"), want: "EFSCORRUPTED"},
		{policy: spec.Sandbox{SystemCallFilter: []string{"read"}, SystemCallErrorNumber: "EUCLEAN"}, probe: of(x86, do("getcwd")), want: "EFSCORRUPTED"},
		{policy: spec.Sandbox{SystemCallFilter: []string{"@system-service"}, SystemCallErrorNumber: "EACCES"}, probe: do("chroot"), want: "EACCES"},
		{policy: spec.Sandbox{SystemCallFilter: []string{"@system-service"}, SystemCallErrorNumber: "EACCES"}, probe: do("chmod", 0), want: "EFAULT"},
		{policy: spec.Sandbox{SystemCallFilter: []string{"@system-service", "~@resources"}}, probe: do("sched_setaffinity", 0, 8), want: "killed"},
		{policy: spec.Sandbox{SystemCallFilter: []string{"@system-service", "~@resources:EADDRINUSE"}}, probe: do("sched_setaffinity", 0, 8), want: "EADDRINUSE"},
		{
			policy: spec.Sandbox{SystemCallFilter: []string{"@system-service"}}, probe: do("mseal"), want: "ENOSYS",
			systemd: "killed", why: newer,
		},
		{
			policy: spec.Sandbox{SystemCallFilter: []string{"@system-service"}, SystemCallErrorNumber: "EPERM"}, probe: do("listmount"), want: "ENOSYS",
			systemd: "EPERM", why: newer,
		},
		{policy: spec.Sandbox{SystemCallFilter: []string{"read"}}, probe: do("execve"), want: "EFAULT"},
		// … as a deny list.
		{policy: deny("getcwd"), probe: do("getcwd"), want: "killed"},
		{policy: deny("getcwd"), probe: of(x86, do("getcwd")), want: "killed"},
		{policy: deny("getcwd"), probe: do("getpid"), want: "done"},
		{policy: deny("@file-system:EADDRINUSE getcwd:EUCLEAN"), probe: do("getcwd"), want: "EFSCORRUPTED"},
		{policy: deny("@file-system:EADDRINUSE getcwd:EUCLEAN"), probe: do("chdir"), want: "EADDRINUSE"},
		{policy: deny("@file-system:EADDRINUSE"), probe: do("-1"), want: "ENOSYS"},

		// SystemCallArchitectures=
		{policy: spec.Sandbox{SystemCallArchitectures: native}, probe: do("getpid"), want: "done"},
		{policy: spec.Sandbox{SystemCallArchitectures: native}, probe: of(x86, do("getpid")), want: "killed"},
		{policy: spec.Sandbox{SystemCallArchitectures: native}, probe: of(x32, do("getpid")), want: "killed"},
		{policy: spec.Sandbox{SystemCallArchitectures: native}, probe: do("-1"), want: "ENOSYS"},
		{policy: spec.Sandbox{SystemCallArchitectures: []string{"x86"}}, probe: of(x86, do("getpid")), want: "done"},
		{policy: spec.Sandbox{SystemCallArchitectures: []string{"x86"}}, probe: do("getpid"), want: "done"},

		// RestrictAddressFamilies=
		{policy: families, probe: do("socket", unix.AF_UNIX, stream), want: "done"},
		{policy: families, probe: do("socket", unix.AF_INET, stream), want: "done"},
		{policy: families, probe: do("socket", unix.AF_INET6, stream), want: "EAFNOSUPPORT"},
		{policy: families, probe: do("socket", unix.AF_NETLINK, unix.SOCK_RAW), want: "EAFNOSUPPORT"},
		{policy: families, probe: do("socket", 1<<32|unix.AF_NETLINK, unix.SOCK_RAW), want: "EAFNOSUPPORT"},
		{policy: spec.Sandbox{RestrictAddressFamilies: []string{"none"}}, probe: do("socket", unix.AF_UNIX, stream), want: "EAFNOSUPPORT"},
		{policy: spec.Sandbox{RestrictAddressFamilies: []string{"~AF_NETLINK"}}, probe: do("socket", unix.AF_NETLINK, unix.SOCK_RAW), want: "EAFNOSUPPORT"},
		{policy: spec.Sandbox{RestrictAddressFamilies: []string{"~AF_NETLINK"}}, probe: do("socket", unix.AF_UNIX, stream), want: "done"},
		{
			policy: spec.Sandbox{RestrictAddressFamilies: []string{"~AF_NETLINK"}}, probe: do("socket", 1<<32|unix.AF_NETLINK, unix.SOCK_RAW),
			want: "EAFNOSUPPORT", systemd: asFree, why: "systemd compares 64 bits, the kernel takes 32",
		},
		{
			policy: families, probe: of(x86, do("socketcall", 1)), want: "EAFNOSUPPORT",
			systemd: asFree, why: "systemd leaves 32-bit programs out",
		},
		{
			policy: families, probe: of(x86, do("socket", unix.AF_NETLINK, unix.SOCK_RAW)), want: "EAFNOSUPPORT",
			systemd: asFree, why: "systemd leaves 32-bit programs out",
		},
		{policy: families, probe: do("io_uring_setup", 1), want: "ENOSYS", systemd: asFree, why: "a ring passes by every filter"},

		// RestrictNamespaces=
		{policy: namespaces, probe: do("unshare", unix.CLONE_NEWUTS), want: "EPERM", asRoot: true},
		{policy: namespaces, probe: of(x86, do("unshare", unix.CLONE_NEWUTS)), want: "EPERM", asRoot: true},
		{policy: namespaces, probe: do("clone", unix.CLONE_NEWIPC|uint64(unix.SIGCHLD)), want: "EPERM", asRoot: true},
		{policy: namespaces, probe: do("clone", uint64(unix.SIGCHLD)), want: "done"},
		{policy: namespaces, probe: do("clone3", 0, 64), want: "ENOSYS"},
		{policy: namespaces, probe: do("setns", ^uint64(0)), want: "EPERM"},
		{policy: namespaces, probe: do("unshare", unix.CLONE_NEWTIME), want: "EPERM", asRoot: true},
		{policy: spec.Sandbox{RestrictNamespaces: []string{"uts ipc"}}, probe: do("unshare", unix.CLONE_NEWUTS), want: "done", asRoot: true},
		{policy: spec.Sandbox{RestrictNamespaces: []string{"uts ipc"}}, probe: do("unshare", unix.CLONE_NEWUTS|unix.CLONE_NEWNS), want: "EPERM", asRoot: true},
		{policy: spec.Sandbox{RestrictNamespaces: []string{"uts ipc"}}, probe: do("setns", ^uint64(0), unix.CLONE_NEWIPC), want: "EBADF"},
		{policy: spec.Sandbox{RestrictNamespaces: []string{"uts ipc"}}, probe: do("setns", ^uint64(0), unix.CLONE_NEWNS), want: "EPERM"},
		{policy: spec.Sandbox{RestrictNamespaces: []string{"uts ipc"}}, probe: do("setns", ^uint64(0)), want: "EPERM"},
		{policy: spec.Sandbox{RestrictNamespaces: []string{"~uts"}}, probe: do("unshare", unix.CLONE_NEWUTS), want: "EPERM", asRoot: true},
		{policy: spec.Sandbox{RestrictNamespaces: []string{"~uts"}}, probe: do("unshare", unix.CLONE_NEWIPC), want: "done", asRoot: true},

		// MemoryDenyWriteExecute=
		{policy: mdwe, probe: do("mmap", 0, 4096, 7, 0x22, ^uint64(0)), want: "EPERM"},
		{policy: mdwe, probe: do("mmap", 0, 4096, 3, 0x22, ^uint64(0)), want: "done"},
		{policy: mdwe, probe: do("mmap", 0, 4096, 5, 0x22, ^uint64(0)), want: "done"},
		{policy: mdwe, probe: do("mprotect", 0x400000, 4096, 5), want: "EPERM"},
		{policy: mdwe, probe: do("mprotect", 0x400000, 0, 1), want: "done"},
		{policy: mdwe, probe: do("pkey_mprotect", 0x400000, 4096, 5, ^uint64(0)), want: "EPERM"},
		{policy: mdwe, probe: do("shmat", ^uint64(0), 0, 0o100000), want: "EPERM"},
		{policy: mdwe, probe: do("shmat", ^uint64(0)), want: "EINVAL"},
		{policy: mdwe, probe: of(x86, do("mmap2", 0, 4096, 7, 0x22, 0xffffffff)), want: "EPERM"},
		{policy: mdwe, probe: of(x86, do("mmap")), want: "EPERM"},
		{
			policy: mdwe, probe: of(x86, do("ipc", 21, 0xffffffff, 0o100000)), want: "EPERM",
			systemd: asFree, why: "systemd leaves 32-bit programs out",
		},
		{policy: mdwe, probe: do("personality", 0x0400000), want: "EPERM", systemd: asFree, why: "it makes all that is readable executable"},
		{policy: mdwe, probe: do("personality", 0xffffffff), want: "done"},

		// The others.
		{policy: spec.Sandbox{LockPersonality: true}, probe: do("personality", 0), want: "done"},
		{policy: spec.Sandbox{LockPersonality: true}, probe: do("personality", 8), want: "EPERM"},
		{policy: spec.Sandbox{LockPersonality: true}, probe: do("personality", 0xffffffff), want: "EPERM"},
		{policy: spec.Sandbox{RestrictRealtime: true}, probe: do("sched_setscheduler", 0, unix.SCHED_FIFO), want: "EPERM"},
		{policy: spec.Sandbox{RestrictRealtime: true}, probe: do("sched_setscheduler", 0, unix.SCHED_BATCH), want: "EINVAL"},
		{
			policy: spec.Sandbox{RestrictRealtime: true}, probe: do("sched_setattr"), want: "ENOSYS",
			systemd: asFree, why: "SCHED_DEADLINE is asked for by this call",
		},
		{policy: set, probe: do("chmod", 0, 0o4755), want: "EPERM"},
		{policy: set, probe: do("chmod", 0, 0o755), want: "EFAULT"},
		{policy: set, probe: of(x86, do("chmod", 0, 0o4755)), want: "EPERM"},
		{policy: set, probe: do("fchmod", ^uint64(0), 0o2755), want: "EPERM"},
		{policy: set, probe: do("fchmodat", atCWD, 0, 0o4755), want: "EPERM"},
		{policy: set, probe: do("fchmodat2", atCWD, 0, 0o4755), want: "EPERM"},
		{policy: set, probe: do("mkdir", 0, 0o2755), want: "EPERM"},
		{policy: set, probe: do("mkdirat", atCWD, 0, 0o2755), want: "EPERM"},
		{policy: set, probe: do("mknod", 0, 0o104755), want: "EPERM"},
		{policy: set, probe: do("mknodat", atCWD, 0, 0o104755), want: "EPERM"},
		{policy: set, probe: do("creat", 0, 0o4755), want: "EPERM"},
		{policy: set, probe: do("open", 0, unix.O_CREAT, 0o4755), want: "EPERM"},
		{policy: set, probe: do("open", 0, 0, 0o4755), want: "EFAULT"},
		{policy: set, probe: do("openat", atCWD, 0, unix.O_CREAT, 0o4755), want: "EPERM"},
		{
			policy: set, probe: do("openat", atCWD, 0, unix.O_TMPFILE|unix.O_RDWR, 0o4755), want: "EPERM",
			systemd: asFree, why: "the file can be given a name afterwards",
		},
		{policy: set, probe: do("openat2", atCWD), want: "ENOSYS"},
		{policy: set, probe: do("io_uring_setup", 1), want: "ENOSYS", systemd: asFree, why: "a ring passes by every filter"},
		{policy: spec.Sandbox{PrivateDevices: true}, probe: do("iopl", 0), want: "EPERM"},
		{policy: spec.Sandbox{ProtectClock: true}, probe: do("adjtimex"), want: "EPERM"},
		{policy: spec.Sandbox{ProtectKernelModules: true}, probe: do("delete_module"), want: "EPERM", asRoot: true},
		{policy: spec.Sandbox{ProtectKernelLogs: true}, probe: do("syslog", 10), want: "EPERM", asRoot: true},
		{policy: spec.Sandbox{ProtectKernelTunables: true}, probe: do("_sysctl"), want: "EPERM"},
		{policy: spec.Sandbox{ProtectHostname: true}, probe: do("sethostname", 0, 1), want: "EPERM", asRoot: true},
		{policy: spec.Sandbox{ProtectHostname: true}, probe: do("setdomainname", 0, 1), want: "EPERM", asRoot: true},

		// Several at once: the answer of the list goes first.
		{
			policy: spec.Sandbox{SystemCallFilter: []string{"~socket:EADDRINUSE"}, RestrictAddressFamilies: []string{"AF_UNIX"}},
			probe:  do("socket", unix.AF_INET, stream), want: "EADDRINUSE",
		},
		{
			policy: spec.Sandbox{SystemCallFilter: []string{"~socket"}, RestrictAddressFamilies: []string{"AF_UNIX"}},
			probe:  do("socket", unix.AF_INET, stream), want: "killed",
		},
		{policy: everything(), probe: do("socket", unix.AF_PACKET, unix.SOCK_RAW), want: "EAFNOSUPPORT"},
		{policy: everything(), probe: do("socket", unix.AF_UNIX, stream), want: "done"},
	}
}

// properties are p as systemd-run(1) takes it.
func properties(p spec.Sandbox) []string {
	var all []string
	set := func(name, value string) { all = append(all, name+"="+value) }
	filter := p.SystemCallFilter
	if len(filter) > 0 && strings.HasPrefix(filter[0], "~") {
		filter = []string{strings.Join(filter, " ")}
	}
	for _, f := range filter {
		set("SystemCallFilter", f)
	}
	for _, l := range []struct {
		name string
		list []string
	}{
		{"SystemCallArchitectures", p.SystemCallArchitectures}, {"RestrictAddressFamilies", p.RestrictAddressFamilies},
		{"RestrictNamespaces", p.RestrictNamespaces},
	} {
		if len(l.list) > 0 {
			set(l.name, strings.Join(l.list, " "))
		}
	}
	if p.SystemCallErrorNumber != "" {
		set("SystemCallErrorNumber", p.SystemCallErrorNumber)
	}
	for _, b := range []struct {
		name string
		on   bool
	}{
		{"LockPersonality", p.LockPersonality}, {"MemoryDenyWriteExecute", p.MemoryDenyWriteExecute}, {"RestrictRealtime", p.RestrictRealtime},
		{"RestrictSUIDSGID", p.RestrictSUIDSGID}, {"PrivateDevices", p.PrivateDevices}, {"ProtectClock", p.ProtectClock},
		{"ProtectKernelModules", p.ProtectKernelModules}, {"ProtectKernelLogs", p.ProtectKernelLogs},
		{"ProtectKernelTunables", p.ProtectKernelTunables}, {"ProtectHostname", p.ProtectHostname},
	} {
		if b.on {
			set(b.name, "yes")
		}
	}
	return all
}

// missing says what of the machine a probe needs that is not there, or "".
func missing(r row, free string) string {
	if r.asRoot && os.Getuid() != 0 {
		return "only root may do it without a filter"
	}
	if r.probe.abi == x86 && free == "SIGSEGV" {
		return "this kernel has no 32-bit calls (CONFIG_IA32_EMULATION)"
	}
	return ""
}

// TestKernel loads filters into the kernel, tries calls, and tries them without a filter, so that a call that is refused anyway
// is not taken for one that the filter refused.
func TestKernel(t *testing.T) {
	for _, r := range rows() {
		name := fmt.Sprintf("%s: %v", strings.Join(properties(r.policy), " "), r.probe)
		free := unconfined(t, r.probe)
		if why := missing(r, free); why != "" {
			t.Logf("not tried: %s: %s", name, why)
			continue
		}
		got := confined(t, r.policy, r.probe)
		if got != r.want {
			t.Errorf("%s: %s, not %s (%s without a filter)", name, got, r.want, free)
		}
		passes := r.want == "done" || r.want == "EFAULT" || r.want == "EINVAL" || r.want == "EBADF" || r.probe.name == "-1"
		if passes != (got == free) && free != "ENOSYS" {
			t.Errorf("%s: %s, and %s without a filter", name, got, free)
		}
	}
}
