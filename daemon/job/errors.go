package job

import (
	"errors"

	"github.com/rtask/rtask/daemon/job/admission"
)

var (
	// ErrNotFound is returned when no job has that id, prefix or PID.
	ErrNotFound = errors.New("no such job")

	// ErrAmbiguous is returned when a prefix fits several jobs.
	ErrAmbiguous = errors.New("several jobs have an id that begins with this")

	// ErrShort is returned when a prefix has fewer than minPrefix characters: a slip would name some job.
	ErrShort = errors.New("give at least 4 characters of a job's id")

	// ErrTooMany is returned by Start when Options.MaxJobs run, or the owner has its share of them, or every number of Options.UIDs
	// is lent.
	ErrTooMany = admission.ErrTooMany

	// ErrConcurrency is returned by Start when Spec.MaxConcurrent jobs of the task run and Spec.Overflow is Reject.
	ErrConcurrency = admission.ErrConcurrency

	// ErrQueueFull is returned by Start when Spec.MaxQueue jobs of the task wait, or the inputs of all that wait take up too much.
	ErrQueueFull = admission.ErrQueueFull

	// ErrPromises is returned by Start when pruned jobs of the same owner take up all the room for what is promised.
	ErrPromises = errors.New("too many idempotency keys of the last day")

	// ErrTaken is returned by Start when Spec.ID is the id of another job.
	ErrTaken = errors.New("another job has this id")

	// ErrDifferent is returned by Start when Spec.ID is the id of a job that was asked for with another Spec.Digest.
	ErrDifferent = errors.New("this Idempotency-Key was used for a different request")

	// ErrInvalid is returned by Start for a Spec that could never run.
	ErrInvalid = errors.New("the job cannot be run")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the engine is shutting down")
)

// RateError is returned by Start when Spec.Rate does not let another job of the task in yet.
type RateError = admission.RateError

// RepeatError is returned by Start when another job has Spec.Once.
type RepeatError struct {
	// ID of that job.
	ID string
}

// Error implements error.
func (e *RepeatError) Error() string { return "the same was done before as job " + e.ID }

// DuplicateError is returned by Start when Spec.Unique is set and the same owner runs the same command already.
type DuplicateError struct {
	// ID of the job that runs.
	ID string
}

// Error implements error.
func (e *DuplicateError) Error() string { return "the same command is running already as job " + e.ID }
