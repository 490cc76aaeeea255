// Package seccomp makes the system call filter of a job (seccomp(2)): from the switches of systemd.exec(5) that are system call
// filters, wholly or in part, to one program of classic BPF. It loads nothing and knows nothing of jobs; the fork routine loads the
// program, as the last step before execve(2), which every policy permits.
//
// systemd loads a program for each switch and each architecture; the kernel then runs all of them for each call and takes the
// strictest answer, among equals that of the program loaded last. Here all of it is one program, and the number of a call is found
// by a binary search over ranges, so that a call that is allowed whatever its arguments is one that the kernel does not run the
// program for.
//
// What a switch does is what systemd does, with these differences, each of which refuses more, or something that systemd means to
// refuse and does not:
//
//   - SystemCallFilter: an unknown name is an error, not a warning, and so is a list that refuses execve(2). A call cannot be taken off
//     a deny list again. In an allow list, calls newer than the systemd whose groups these are (SystemdVersion)
//     fail with ENOSYS, as on a kernel that does not have them, so that a C library falls back instead of giving up or being killed.
//   - SystemCallArchitectures: a call of another architecture ends the process, not only its thread.
//   - RestrictAddressFamilies: holds for 32-bit programs of x86 too, whose socketcall(2) to make a socket is refused in all.
//   - RestrictRealtime: sched_setattr(2), whose policy is behind a pointer, fails with ENOSYS.
//   - RestrictSUIDSGID: looks at O_TMPFILE as well as at O_CREAT, since such a file can be given a name afterwards.
//   - MemoryDenyWriteExecute: is the kernel's own switch instead of a filter where systemd does so (package sandbox/jail). The filter
//     holds for System V shared memory of 32-bit programs of x86 too; personality(2) cannot be used to make
//     whatever is readable executable (READ_IMPLIES_EXEC).
//   - LockPersonality: the personality is that of the machine, PER_LINUX. There is no Personality=.
//   - io_uring_setup(2) fails with ENOSYS under RestrictAddressFamilies and RestrictSUIDSGID, since what goes through a ring passes
//     by every filter.
//   - Of an argument that the kernel takes as an int, the lower 32 bits are compared and not all 64.
//   - Under the profiles default and strict, the ioctl(2)s are refused that put characters into a terminal's input, TIOCSTI and
//     TIOCLINUX, by which a process could type into another user's shell on the same terminal. systemd has nothing like it.
//
// TestSystemd of this package shows each of them beside systemd.
//
// Only sandbox/jail and daemon/config may import it.
package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// Check returns what is wrong with the filters of a sandbox: each an *Error, joined (errors.Join).
func Check(s spec.Sandbox) error {
	_, filter := filterOf(s)
	_, architectures := architectures(s, x86_64)
	_, _, families := families(s)
	_, namespaces := refusedNamespaces(s)
	return errors.Join(filter, architectures, families, namespaces)
}

// Compile returns the program for SECCOMP_SET_MODE_FILTER (seccomp(2)) that refuses what a sandbox refuses, on the architecture that this program was built for; nil:
// nothing is refused. The error is that of Check, or the program is longer than the kernel takes (BPF_MAXINSNS), which lists of
// systemd's groups do not come near.
func Compile(s spec.Sandbox) ([]unix.SockFilter, error) {
	machine := x86_64
	switch runtime.GOARCH {
	case "amd64":
	case "arm64":
		machine = arm64
	default:
		return nil, fmt.Errorf("cannot filter system calls on %s: their numbers are known for amd64 and arm64", runtime.GOARCH)
	}
	return compile(s, machine)
}

// maxInstructions is BPF_MAXINSNS of linux/bpf_common.h.
const maxInstructions = 4096

func compile(s spec.Sandbox, machine abi) ([]unix.SockFilter, error) {
	f, wrongFilter := filterOf(s)
	allowed, wrongArchitectures := architectures(s, machine)
	rules, wrongRules := rules(s)
	if err := errors.Join(wrongFilter, wrongArchitectures, wrongRules); err != nil {
		return nil, err
	}
	if f == nil && len(rules) == 0 && !slices.Contains(allowed[:], false) {
		return nil, nil
	}

	verdicts := returns{}
	// table decides the calls of an ABI.
	table := func(a abi) block {
		if !allowed[a] {
			return ret(unix.SECCOMP_RET_KILL_PROCESS)
		}
		var calls []span
		for i := range callTable {
			n, ok := callTable[i].number(a)
			if !ok {
				continue
			}
			v := f.verdict(i)
			b := verdicts.ret(v)
			if v == unix.SECCOMP_RET_ALLOW {
				for _, r := range slices.Backward(rules[i]) {
					b = r(a, b)
				}
			}
			calls = append(calls, span{n, b})
		}
		return search(spans(calls, verdicts.ret(f.unlisted())))
	}
	var program block
	if machine == x86_64 {
		native := table(x86_64)
		program = load(offsetArchitecture, branch(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64,
			load(offsetNumber, branch(unix.BPF_JGE, x32Bit,
				// A tracer that takes a call back leaves -1, which is no call of x32.
				branch(unix.BPF_JEQ, noCall, ret(f.unlisted()), table(x32)), native)),
			branch(unix.BPF_JEQ, unix.AUDIT_ARCH_I386, load(offsetNumber, table(x86)), ret(unix.SECCOMP_RET_KILL_PROCESS))))
	} else {
		program = load(offsetArchitecture, branch(unix.BPF_JEQ, unix.AUDIT_ARCH_AARCH64, load(offsetNumber, table(arm64)),
			branch(unix.BPF_JEQ, unix.AUDIT_ARCH_ARM, load(offsetNumber, table(arm)), ret(unix.SECCOMP_RET_KILL_PROCESS))))
	}
	if len(program) > maxInstructions {
		return nil, fmt.Errorf("cannot filter system calls so: it takes %d instructions and the kernel takes %d", len(program), maxInstructions)
	}
	return program, nil
}

// noCall is the number -1.
const noCall = 0xffffffff

// filter is SystemCallFilter= read. A nil filter allows all.
type filter struct {
	// allow says that calls that are not named are refused.
	allow bool
	// refused is what such a call gets, and each one that is refused without an error of its own.
	refused uint32
	// named has what each call of callTable gets that is named.
	named map[int]uint32
}

// verdict returns what a call gets.
func (f *filter) verdict(call int) uint32 {
	if f == nil {
		return unix.SECCOMP_RET_ALLOW
	}
	if v, ok := f.named[call]; ok {
		return v
	}
	if !f.allow || !callTable[call].known {
		return f.unlisted()
	}
	return f.refused
}

// unlisted is what a call gets that systemd does not know and nobody named.
func (f *filter) unlisted() uint32 {
	if f == nil || !f.allow {
		return unix.SECCOMP_RET_ALLOW
	}
	return refuse(unix.ENOSYS)
}

func filterOf(s spec.Sandbox) (*filter, error) {
	const this = "system_call_filter"
	f := &filter{allow: true, refused: unix.SECCOMP_RET_KILL_PROCESS, named: map[int]uint32{}}
	var errs []error
	if s.SystemCallErrorNumber != "" {
		v, err := verdict(s.SystemCallErrorNumber)
		if err == nil && v == refuse(0) {
			err = errors.New(`0 is no error; use "EPERM", say`)
		}
		if err != nil {
			errs = append(errs, &Error{"system_call_error_number", -1, err.Error()})
		}
		f.refused = v
	}
	lists := split(s.SystemCallFilter)
	if len(lists) == 0 {
		return nil, errors.Join(errs...)
	}
	if f.allow = !lists[0].inverted; f.allow {
		for _, c := range mustExpand("@default") {
			f.named[c] = unix.SECCOMP_RET_ALLOW
		}
	}
	for _, l := range lists {
		wrong := func(format string, args ...any) {
			errs = append(errs, &Error{this, l.entry, fmt.Sprintf(format, args...)})
		}
		if len(l.words) == 0 {
			wrong(`"~" is before nothing; write "~@mount", say`)
		}
		for _, word := range l.words {
			name, errno, has := strings.Cut(word, ":")
			calls, err := expand(name)
			if err != nil {
				wrong("%v", err)
				continue
			}
			v := f.refused
			if has {
				if f.allow && !l.inverted {
					wrong("%s is allowed, so it cannot have an error; write %q to refuse it", name, "~"+word)
					continue
				}
				if v, err = verdict(errno); err != nil {
					wrong("%s: %v", name, err)
					continue
				}
			}
			for _, c := range calls {
				switch {
				case f.allow && !l.inverted:
					f.named[c] = unix.SECCOMP_RET_ALLOW
				case f.allow && !has:
					delete(f.named, c)
				default:
					f.named[c] = v
				}
			}
		}
	}
	if len(errs) == 0 && f.verdict(mustExpand("execve")[0]) != unix.SECCOMP_RET_ALLOW {
		errs = append(errs, &Error{this, -1, "execve is refused, so no job could be started"})
	}
	return f, errors.Join(errs...)
}

// architectures returns the ABIs that may be used on a machine.
func architectures(s spec.Sandbox, machine abi) ([abis]bool, error) {
	var allowed [abis]bool
	lists := split(s.SystemCallArchitectures)
	var errs []error
	for _, l := range lists {
		for _, word := range l.words {
			a, ok := machine, word == "native"
			for i := range abis {
				if word == i.String() {
					a, ok = i, true
				}
			}
			if l.inverted || !ok {
				errs = append(errs, &Error{"system_call_architectures", l.entry,
					fmt.Sprintf(`there is no architecture %q; there are "native", "x86-64", "x32", "x86", "arm64" and "arm"`, s.SystemCallArchitectures[l.entry])})
				continue
			}
			allowed[a] = true
		}
	}
	for a := range abis {
		// An ABI that the machine does not have cannot be used and is not refused.
		if len(lists) == 0 || a == machine || (a == arm64 || a == arm) != (machine == arm64) {
			allowed[a] = true
		}
	}
	return allowed, errors.Join(errs...)
}
