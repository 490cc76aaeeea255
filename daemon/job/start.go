package job

import (
	"context"
	"errors"
)

// starter has the way of a start: a job is admitted, or found (admit.go), placed on record and in a slot, or in the queue (place.go),
// and launched (run.go, launch.go).
type starter struct {
	admitter *admitter
	placer   *placer
	runner   *runner
}

// begin starts a job, and returns it as it is kept while it runs, too. What was done once is answered as Spec.Once says.
func (t *starter) begin(ctx context.Context, s Spec) (*live, Job, error) {
	if err := t.admitter.check(&s); err != nil {
		return nil, Job{}, err
	}
	l, j, err := t.start(ctx, &s)
	var repeat *RepeatError
	if s.Once.Answer && errors.As(err, &repeat) {
		if l, j, err := t.admitter.records.known(ctx, repeat.ID); l != nil && err == nil {
			j.Repeated = true
			return l, j, nil
		}
	}
	return l, j, err
}

// start admits, places and launches a job that was checked.
func (t *starter) start(ctx context.Context, s *Spec) (*live, Job, error) {
	a, err := t.admitter.admit(ctx, s)
	if err != nil {
		return nil, Job{}, err
	}
	if a.known {
		a.job.Repeated = true
		return a.l, a.job, nil
	}
	// From here on the job is the engine's, not the caller's: a caller that goes away does not leave half a job.
	ctx = context.WithoutCancel(ctx)
	if a.joined != nil {
		err := t.placer.placeJoined(ctx, s, a)
		if errors.Is(err, errGone) {
			s.ID = a.job.ID
			return t.start(ctx, s)
		}
		return a.l, a.job, err
	}
	waits, err := t.placer.place(ctx, s, a)
	switch {
	case err != nil:
		return nil, Job{}, err
	case waits:
		t.runner.enqueue(a.l)
	default:
		t.runner.launch(ctx, a.l)
	}
	return a.l, a.l.snapshot(), nil
}
