#include "textflag.h"

// func rawVfork(trap, a1, a2 uintptr) (r1 uintptr, errno syscall.Errno)
//
// The child runs on this very stack before the parent returns, so the return address must not lie there: it is kept in
// a register that the kernel preserves.
TEXT ·rawVfork(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ	trap+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	$0, DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	$0, R9
	POPQ	R12
	SYSCALL
	PUSHQ	R12
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	MOVQ	$-1, r1+24(FP)
	NEGQ	AX
	MOVQ	AX, errno+32(FP)
	RET
ok:
	MOVQ	AX, r1+24(FP)
	MOVQ	$0, errno+32(FP)
	RET

// func rawPark(args, size, state uintptr) (r1 uintptr, errno syscall.Errno)
//
// The child has the parent's memory and stack pointer while the parent runs on, so it touches neither: all it does is
// system calls with what lies in state, which is a *parked: a sigaction at 0, the name at 32, a byte to read into at 48
// and the descriptor of the pipe at 56.
TEXT ·rawPark(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	state+16(FP), R12
	MOVQ	$0, DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	$0, R9
	MOVQ	$435, AX	// clone3
	SYSCALL
	CMPQ	AX, $0
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JLS	ok
	MOVQ	$-1, r1+24(FP)
	NEGQ	AX
	MOVQ	AX, errno+32(FP)
	RET
ok:
	MOVQ	AX, r1+24(FP)
	MOVQ	$0, errno+32(FP)
	RET
child:
	MOVQ	$13, AX		// rt_sigaction
	MOVQ	$17, DI		// SIGCHLD
	MOVQ	R12, SI
	MOVQ	$0, DX
	MOVQ	$8, R10
	SYSCALL
	MOVQ	$157, AX	// prctl
	MOVQ	$15, DI		// PR_SET_NAME
	LEAQ	32(R12), SI
	SYSCALL
	MOVQ	$292, AX	// dup3
	MOVQ	56(R12), DI
	MOVQ	$0, SI
	MOVQ	$0, DX
	SYSCALL
	MOVQ	$436, AX	// close_range
	MOVQ	$1, DI
	MOVQ	$0xffffffff, SI
	MOVQ	$0, DX
	SYSCALL
wait:
	MOVQ	$0, AX		// read
	MOVQ	$0, DI
	LEAQ	48(R12), SI
	MOVQ	$1, DX
	SYSCALL
	CMPQ	AX, $-4		// EINTR
	JEQ	wait
	MOVQ	$231, AX	// exit_group
	MOVQ	$0, DI
	SYSCALL
	JMP	wait
