package sandbox

import "errors"

var (
	// ErrUnenforceable is returned when a job asks for a limit that this machine cannot enforce.
	ErrUnenforceable = errors.New("this machine cannot enforce it")

	// ErrShimGone is returned when a shim ended without a word: it was killed, or the machine went down.
	ErrShimGone = errors.New("the job's supervisor is gone")

	// ErrUnfit is returned when a slot takes no job any more: what an earlier one left could not be cleared away, or its shim
	// has ended.
	ErrUnfit = errors.New("the slot takes no job any more")

	// ErrNeverBegun is returned for a job that an earlier engine meant to start and that no shim has taken. None will.
	ErrNeverBegun = errors.New("the job was never begun")
)
