package seccomp

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/wording"
)

// abi is a way to call the kernel; its value is a column of callRow.numbers.
type abi int

const (
	x86_64 abi = iota
	x32
	x86
	arm64
	arm
	abis
)

// String returns what SystemCallArchitectures= calls it.
func (a abi) String() string { return [...]string{"x86-64", "x32", "x86", "arm64", "arm"}[a] }

// x32Bit is set in the number of each x32 call (__X32_SYSCALL_BIT).
const x32Bit = 1 << 30

// callRow is a system call.
type callRow struct {
	name string
	// known says that systemd knows it (@known).
	known bool
	// numbers are its numbers, without x32Bit.
	numbers [abis]int32
}

// none is the number of a call that an ABI does not have.
const none = -1

// number returns the number that a call of an ABI has in the kernel.
func (c *callRow) number(a abi) (n uint32, ok bool) {
	n = uint32(c.numbers[a])
	if a == x32 {
		n |= x32Bit
	}
	return n, c.numbers[a] != none
}

// groupRow is a group of system calls, with its members separated by blanks.
type groupRow struct{ name, members string }

type numberRow struct {
	name   string
	number uint32
}

// callNamed returns the index of a call in callTable.
func callNamed(name string) (index int, ok bool) {
	return slices.BinarySearchFunc(callTable[:], name, func(c callRow, name string) int { return cmp.Compare(c.name, name) })
}

// expand returns the calls that a word of SystemCallFilter= names, by their index.
func expand(word string) ([]int, error) {
	if !strings.HasPrefix(word, "@") {
		i, ok := callNamed(word)
		if !ok {
			return nil, unknown("system call", word, func(yield func(string) bool) {
				for _, c := range callTable {
					if !yield(c.name) {
						return
					}
				}
			})
		}
		return []int{i}, nil
	}
	var calls []int
	if word == "@known" {
		for i, c := range callTable {
			if c.known {
				calls = append(calls, i)
			}
		}
		return calls, nil
	}
	for _, g := range groupTable {
		if g.name != word {
			continue
		}
		for member := range strings.FieldsSeq(g.members) {
			of, err := expand(member)
			if err != nil {
				return nil, err
			}
			calls = append(calls, of...)
		}
		return calls, nil
	}
	return nil, unknown("group of system calls", word, func(yield func(string) bool) {
		for _, g := range groupTable {
			if !yield(g.name) {
				return
			}
		}
	})
}

// mustExpand is expand for names that are in the program, which a test holds to the table.
func mustExpand(word string) []int {
	calls, err := expand(word)
	if err != nil {
		panic(fmt.Sprintf("seccomp: %v in the generated table", err))
	}
	return calls
}

// find returns the number of a name.
func find(table []numberRow, name string) (number uint32, ok bool) {
	for _, r := range table {
		if r.name == name {
			return r.number, true
		}
	}
	return 0, false
}

// namespaceKinds are the words of RestrictNamespaces=, as clone(2) has them.
func namespaceKinds() map[string]uint32 {
	return map[string]uint32{
		"cgroup": unix.CLONE_NEWCGROUP, "ipc": unix.CLONE_NEWIPC, "net": unix.CLONE_NEWNET, "mnt": unix.CLONE_NEWNS,
		"pid": unix.CLONE_NEWPID, "user": unix.CLONE_NEWUSER, "uts": unix.CLONE_NEWUTS, "time": unix.CLONE_NEWTIME,
	}
}

// verdict returns what a call gets that is refused with an error of errno(3), by name or number; "kill" is SIGSYS for the whole
// process.
func verdict(errno string) (uint32, error) {
	if errno == "kill" {
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	}
	if n, err := strconv.ParseUint(errno, 10, 32); err == nil {
		if n > maxErrno {
			return 0, fmt.Errorf("%s is no error number; they end at %d", errno, maxErrno)
		}
		return refuse(unix.Errno(n)), nil
	}
	if n, ok := find(errnoTable[:], errno); ok {
		return refuse(unix.Errno(n)), nil
	}
	return 0, fmt.Errorf("there is no error %q; there are those of errno(3), as \"EPERM\", numbers, and \"kill\"", errno)
}

// maxErrno is the greatest error number that the kernel returns (MAX_ERRNO).
const maxErrno = 4095

func refuse(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// unknown says that a word is not one of names, and what may have been meant.
func unknown(what, word string, names func(yield func(string) bool)) error {
	message := fmt.Sprintf("there is no %s %q", what, word)
	near := wording.Nearest(word, names)
	slices.Sort(near)
	switch len(near) {
	case 0:
	case 1:
		message += fmt.Sprintf("; did you mean %q?", near[0])
	default:
		message += fmt.Sprintf("; did you mean one of %s?", strings.Join(near, ", "))
	}
	return errors.New(message)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
