package scope

import "errors"

var (
	// ErrExists is returned when a unit of that name is there already. Names are never used twice, so it means that two
	// engines share a manager, or that a name was reused.
	ErrExists = errors.New("a unit of that name exists already")

	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("the connection to systemd is closed")

	// ErrNotVerified is returned when systemd said that a scope was started and the process was not found in it.
	ErrNotVerified = errors.New("the process is not in its scope")
)
