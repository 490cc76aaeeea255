package seccomp

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// block is a piece of a classic BPF program that returns on every path, so that blocks are put together by putting one behind the
// other: no instruction leads out of a block.
//
// Only what the kernel can follow without the arguments of a call is used to find a call's number: loads of the number and of the
// architecture, comparisons, jumps, returns (seccomp_is_const_allow in kernel/seccomp.c). It then knows which calls are allowed
// whatever their arguments, and does not run the program for them at all (since Linux 5.11).
type block []unix.SockFilter

// Offsets in struct seccomp_data (seccomp(2)).
const (
	offsetNumber       = 0
	offsetArchitecture = 4
	offsetArguments    = 16
)

// instruction returns an instruction without jumps.
func instruction(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// ret ends the program with a verdict.
func ret(verdict uint32) block { return block{instruction(unix.BPF_RET|unix.BPF_K, verdict)} }

// load reads a word of struct seccomp_data, for the comparisons in next.
func load(offset uint32, next block) block {
	return slices.Concat(block{instruction(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)}, next)
}

// argument reads the lower 32 bits of an argument. The others are ignored: the kernel takes each argument that is looked at here as
// an int or as flags that are all below bit 32, so a caller could hide a value behind them.
func argument(i int, next block) block { return load(uint32(offsetArguments+8*i), next) }

// branch goes on with yes if the loaded value compares so with k, otherwise with no. The operator is one of BPF_JEQ, BPF_JGE, BPF_JSET.
func branch(operator uint16, k uint32, yes, no block) block {
	jump := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | operator, K: k}
	// A conditional jump reaches 255 instructions, an unconditional one all.
	if len(no) <= 255 {
		jump.Jt = uint8(len(no))
		return slices.Concat(block{jump}, no, yes)
	}
	if len(yes) <= 255 {
		jump.Jf = uint8(len(yes))
		return slices.Concat(block{jump}, yes, no)
	}
	jump.Jf = 1
	return slices.Concat(block{jump, instruction(unix.BPF_JMP|unix.BPF_JA, uint32(len(no)))}, no, yes)
}

// oneOf goes on with yes if the loaded value is one of values, otherwise with no.
func oneOf(values []uint32, yes, no block) block {
	for _, v := range slices.Backward(values) {
		no = branch(unix.BPF_JEQ, v, yes, no)
	}
	return no
}

// span is a range of system call numbers: those from its first up to the next span's.
type span struct {
	first uint32
	block block
}

// search finds the span of the number that was read, in as many comparisons as the logarithm of their count.
func search(spans []span) block {
	if len(spans) == 1 {
		return spans[0].block
	}
	middle := len(spans) / 2
	return branch(unix.BPF_JGE, spans[middle].first, search(spans[middle:]), search(spans[:middle]))
}

// spans makes ranges of calls that are decided alike. The numbers that are none of calls are decided by other. It sorts calls.
func spans(calls []span, other block) []span {
	slices.SortFunc(calls, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	all := make([]span, 1, len(calls)+1)
	all[0].block = other
	add := func(first uint32, b block) {
		last := len(all) - 1
		if all[last].first == first { // nothing is left of that span
			all, last = all[:last], last-1
		}
		if last < 0 || !slices.Equal(all[last].block, b) {
			all = append(all, span{first, b})
		}
	}
	for _, c := range calls {
		add(c.first, c.block)
		add(c.first+1, other)
	}
	return all
}

// returns are blocks that are used many times.
type returns map[uint32]block

func (r returns) ret(verdict uint32) block {
	b, ok := r[verdict]
	if !ok {
		b = ret(verdict)
		r[verdict] = b
	}
	return b
}
