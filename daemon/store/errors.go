package store

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound is returned when there is no record with an id.
	ErrNotFound = errors.New("no such record")

	// ErrClosed is returned when a Store is used after its Close.
	ErrClosed = errors.New("record store is closed")

	// ErrInUse is returned when another process has the file open.
	ErrInUse = errors.New("in use by another rtaskd")

	// ErrVersion is returned when a file or a record was written by a version of rtask that this one does not know.
	ErrVersion = errors.New("unknown format version")

	// ErrID is returned when a value's id is empty or longer than 1024 bytes.
	ErrID = errors.New("id is empty or too long")

	// ErrBehind is reported when PutSoon drops a value because the disk does not keep up.
	ErrBehind = errors.New("too many records wait for the disk")
)

// DecodeError is returned when a record is there and cannot be read: it is damaged, or of an unknown version (ErrVersion).
// Put replaces it and Delete removes it like any other.
type DecodeError struct {
	// ID is the record's id.
	ID string
	// Err is what is wrong with it.
	Err error
}

// Error implements error.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("cannot decode record %q: %v", e.ID, e.Err)
}

// Unwrap returns Err.
func (e *DecodeError) Unwrap() error { return e.Err }
