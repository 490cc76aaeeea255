package webhook

import "errors"

var (
	// ErrSignature is returned by Verify when a request is not proven to come from who knows a secret. Its text goes on with
	// the cause, which is for the log: a sender is not told.
	ErrSignature = errors.New("the signature is not good")

	// ErrBody is returned by Read for a body that could be read in two ways. Its text goes on with the cause.
	ErrBody = errors.New("the body can be read in two ways")

	// ErrSecret is returned by CheckSecret for a secret that could never verify anything, or that everybody knows.
	ErrSecret = errors.New("not a secret")
)
