package admission

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrTooMany is returned when as many jobs run as may, or the requester has its share of them.
	ErrTooMany = errors.New("too many jobs are running")

	// ErrConcurrency is returned when MaxConcurrent jobs of the task run and Overflow is Reject.
	ErrConcurrency = errors.New("already running")

	// ErrQueueFull is returned when Queue jobs of the task wait, or the inputs of all that wait take up too much.
	ErrQueueFull = errors.New("the queue is full")
)

// RateError is returned when Request.Rate does not let another job of the task in yet.
type RateError struct {
	// RetryAfter is after how long the next job is admitted, if none comes before.
	RetryAfter time.Duration
	rate       float64
}

// Error implements error.
func (e *RateError) Error() string {
	return fmt.Sprintf("rate limit reached: %g requests a second (rate_limit)", e.rate)
}
