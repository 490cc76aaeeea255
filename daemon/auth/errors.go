package auth

import (
	"errors"
	"fmt"

	"github.com/rtask/rtask/daemon/auth/cost"
)

var (
	// ErrForbidden is returned when a peer has nothing to do on the socket it called on.
	ErrForbidden = errors.New("not allowed")

	// ErrUnauthorized is returned when a presented API key is not good, whatever the cause: malformed, unknown, wrong,
	// expired or revoked. The causes are not told apart, so that nobody learns one by trying.
	ErrUnauthorized = errors.New("no valid API key: send Authorization: Bearer KEY")

	// ErrMalformedKey is returned when a text is not an API key.
	ErrMalformedKey = errors.New("not an API key")

	// ErrKeyExists is returned when a new key is to have a name that another one has.
	ErrKeyExists = errors.New("a key of this name exists")

	// ErrBusy is returned when too many texts wait to be verified that might be one key, from addresses with failures or without.
	// None that has passed before, and none while there are few failures at the key, waits there.
	ErrBusy = errors.New("too many guesses at this API key wait to be checked")

	// ErrKeysUnread is returned while the keys file has an error since the engine started, so that no key is known.
	ErrKeysUnread = errors.New("the keys file cannot be read, so no API key is known")

	// ErrNoKey is returned when no key has the name or id asked for.
	ErrNoKey = errors.New("no such key")

	// ErrBadName is returned when a new key is to have a name that is not [a-z0-9][a-z0-9_-]{0,62}.
	ErrBadName = errors.New("a key's name is 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or a digit")

	// ErrBadExpiry is returned when a new key is to expire in the past, or after the year 9999.
	ErrBadExpiry = errors.New("a key cannot expire in the past or after the year 9999")

	// ErrBadParams is returned when parameters of Argon2id are out of bounds.
	ErrBadParams = cost.ErrBadParams

	// ErrUnsafeFile is returned when the keys file is not a regular file of root's or the engine's user that nobody else
	// may read or write.
	ErrUnsafeFile = errors.New("not safe to use")
)

// FileError is something in a keys file that is wrong, and where.
type FileError struct {
	// File is the path as it was given.
	File string
	// Line and Column count from 1. 0: not known.
	Line, Column int
	// Err is what is wrong. It holds nothing of what the file says of a key's hash.
	Err error
}

// Error reads "FILE:LINE:COLUMN: what is wrong".
func (e *FileError) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", at, e.Line)
		if e.Column > 0 {
			at = fmt.Sprintf("%s:%d", at, e.Column)
		}
	}
	return fmt.Sprintf("%s: %v", at, e.Err)
}

// Unwrap returns Err.
func (e *FileError) Unwrap() error { return e.Err }
