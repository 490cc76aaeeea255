package job

import "errors"

var (
	// ErrNotFound is returned when no job has that id, prefix or PID.
	ErrNotFound = errors.New("no such job")

	// ErrAmbiguous is returned when a prefix fits several jobs.
	ErrAmbiguous = errors.New("several jobs begin so")

	// ErrTooMany is returned by Start when Options.MaxJobs run, or every number of Options.UIDs is lent.
	ErrTooMany = errors.New("too many jobs are running")

	// ErrInvalid is returned by Start for a Spec that could never run.
	ErrInvalid = errors.New("the job cannot be run")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the engine is shutting down")
)

// DuplicateError is returned by Start when Spec.Unique is set and the same owner runs the same command already.
type DuplicateError struct {
	// ID of the job that runs.
	ID string
}

// Error implements error.
func (e *DuplicateError) Error() string { return "the same command is running already as job " + e.ID }
