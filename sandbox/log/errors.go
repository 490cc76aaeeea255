package log

import (
	"errors"
	"fmt"
)

// ErrClosed is returned when a Watcher is used, or waited on, after its Close.
var ErrClosed = errors.New("log watcher is closed")

// FormatError is returned when a line of a log file is not a record. The next call goes on at the next line.
type FormatError struct {
	// Offset is where the line begins, in bytes.
	Offset int64
	// Reason is what is wrong with it.
	Reason string
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("cannot read the log record at offset %d: %s", e.Offset, e.Reason)
}
