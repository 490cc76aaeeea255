#include "textflag.h"

// func rawVfork(trap, a1, a2 uintptr) (r1 uintptr, errno syscall.Errno)
//
// The return address is in the link register, which the kernel preserves, so the stack that the child shares has no
// part in the return.
TEXT ·rawVfork(SB),NOSPLIT|NOFRAME,$0-40
	MOVD	trap+0(FP), R8
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$0, R5
	SVC
	CMN	$4095, R0
	BCC	ok
	MOVD	$-1, R4
	MOVD	R4, r1+24(FP)
	NEG	R0, R0
	MOVD	R0, errno+32(FP)
	RET
ok:
	MOVD	R0, r1+24(FP)
	MOVD	ZR, errno+32(FP)
	RET

// func rawPark(args, size, state uintptr) (r1 uintptr, errno syscall.Errno)
//
// The child has the parent's memory and stack pointer while the parent runs on, so it touches neither: all it does is
// system calls with what lies in state, which is a *parked: a sigaction at 0, the name at 32, a byte to read into at 48
// and the descriptor of the pipe at 56.
TEXT ·rawPark(SB),NOSPLIT|NOFRAME,$0-40
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	state+16(FP), R19
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$0, R5
	MOVD	$435, R8	// clone3
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCC	ok
	MOVD	$-1, R4
	MOVD	R4, r1+24(FP)
	NEG	R0, R0
	MOVD	R0, errno+32(FP)
	RET
ok:
	MOVD	R0, r1+24(FP)
	MOVD	ZR, errno+32(FP)
	RET
child:
	MOVD	$134, R8	// rt_sigaction
	MOVD	$17, R0		// SIGCHLD
	MOVD	R19, R1
	MOVD	$0, R2
	MOVD	$8, R3
	SVC
	MOVD	$167, R8	// prctl
	MOVD	$15, R0		// PR_SET_NAME
	ADD	$32, R19, R1
	SVC
	MOVD	$24, R8		// dup3
	MOVD	56(R19), R0
	MOVD	$0, R1
	MOVD	$0, R2
	SVC
	MOVD	$436, R8	// close_range
	MOVD	$1, R0
	MOVD	$0xffffffff, R1
	MOVD	$0, R2
	SVC
wait:
	MOVD	$63, R8		// read
	MOVD	$0, R0
	ADD	$48, R19, R1
	MOVD	$1, R2
	SVC
	CMN	$4, R0		// EINTR
	BEQ	wait
	MOVD	$94, R8		// exit_group
	MOVD	$0, R0
	SVC
	B	wait
