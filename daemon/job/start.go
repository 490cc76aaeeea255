package job

import (
	"context"
	"errors"
)

// Start starts a job and returns once its process runs, or once it waits for its turn. A job that could not be set up has
// ended with the reason Setup, which is no error of Start. Errors are: ErrInvalid, ErrTooMany, ErrConcurrency, ErrQueueFull,
// ErrTaken, ErrDraining, *DuplicateError, *RepeatError, ErrClosed, and failures to record the job; then there is no job.
func (m *Manager) Start(ctx context.Context, s Spec) (Job, error) {
	_, j, err := m.begin(ctx, s)
	return j, err
}

// Run is Start and Wait in one: its Result holds what the job wrote, however soon that ended. started, if set, is called
// with what Start would return. The job runs on when ctx ends. Errors are those of Start, for which there is no job, and
// those of Wait.
func (m *Manager) Run(ctx context.Context, s Spec, started func(Job)) (Result, error) {
	l, j, err := m.begin(ctx, s)
	if err != nil {
		return Result{}, err
	}
	if started != nil {
		started(j)
	}
	return m.wait(ctx, l)
}

// begin is Start, and returns the job as it is kept while it runs, too.
func (m *Manager) begin(ctx context.Context, s Spec) (*live, Job, error) {
	if err := m.check(&s); err != nil {
		return nil, Job{}, err
	}
	l, j, err := m.start(ctx, &s)
	var repeat *RepeatError
	if s.Once.Answer && errors.As(err, &repeat) {
		if l, j, err := m.known(ctx, repeat.ID); l != nil && err == nil {
			j.Repeated = true
			return l, j, nil
		}
	}
	return l, j, err
}

// start is the way of a start: the job is admitted, or found (admit.go), placed on record and in a slot, or in the queue (place.go),
// and launched (launch.go).
func (m *Manager) start(ctx context.Context, s *Spec) (*live, Job, error) {
	a, err := m.admit(ctx, s)
	if err != nil {
		return nil, Job{}, err
	}
	if a.known {
		a.job.Repeated = true
		return a.l, a.job, nil
	}
	// From here on the job is the Manager's, not the caller's: a caller that goes away does not leave half a job.
	ctx = context.WithoutCancel(ctx)
	if a.joined != nil {
		err := m.placeJoined(ctx, s, a)
		if errors.Is(err, errGone) {
			s.ID = a.job.ID
			return m.start(ctx, s)
		}
		return a.l, a.job, err
	}
	waits, err := m.place(ctx, s, a)
	switch {
	case err != nil:
		return nil, Job{}, err
	case waits:
		m.enqueue(a.l)
	default:
		m.launch(ctx, a.l)
	}
	return a.l, a.l.snapshot(), nil
}
