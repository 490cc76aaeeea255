package sandbox

import "errors"

var (
	// ErrUnenforceable is returned when a job asks for a limit that this machine cannot enforce.
	ErrUnenforceable = errors.New("this machine cannot enforce it")

	// ErrShimGone is returned when a shim ended without a word: it was killed, or the machine went down.
	ErrShimGone = errors.New("the job's supervisor is gone")
)
