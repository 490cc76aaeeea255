package job

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// again returns the job of s.ID, or of one of s.Otherwise; nil: none exists. A job that is known from the records only has ended: all
// its channels are closed.
func (d *ledger) again(ctx context.Context, s *Spec) (*live, Job, error) {
	l, j, err := d.known(ctx, s.ID)
	for _, id := range s.Otherwise {
		if l != nil || err != nil {
			break
		}
		if l, j, err = d.known(ctx, id); !j.Promised.After(time.Now()) {
			l = nil
		}
	}
	switch {
	case err != nil || l == nil:
		return nil, Job{}, err
	case j.Task != s.Task || !j.Owner.same(s.Owner):
		return nil, Job{}, ErrTaken
	case j.Digest != s.Digest:
		return nil, Job{}, ErrDifferent
	}
	return l, j, nil
}

// known returns the job with this id, as again does; nil: none exists. It waits for a job that is being placed, which may yet be
// forgotten.
func (d *ledger) known(ctx context.Context, id string) (*live, Job, error) {
	if !validID(id) {
		return nil, Job{}, fmt.Errorf("%w: %q is no id", ErrInvalid, id)
	}
	for {
		l, j, settled := d.jobs.remembered(id)
		if l == nil {
			break
		}
		if isClosed(settled) {
			return l, j, nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return nil, Job{}, context.Cause(ctx)
		case <-d.jobs.quit:
			return nil, Job{}, ErrClosed
		}
	}
	j, err := d.get(id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, Job{}, nil
	case err != nil:
		return nil, Job{}, err
	}
	of := j
	if j.Into != "" && j.State != promised {
		if of, err = d.target(j); err != nil {
			return nil, Job{}, err
		}
	}
	l := &live{job: of, ready: closed(), done: closed(), gone: closed()}
	if j.State == promised {
		l.result = kept(j)
		l.job, j.State = l.result.Job, Ended
	} else {
		l.result, err = resultOf(of, d.opts.logPath(of.ID))
	}
	return l, j, err
}

// notYet returns *RepeatError if a job with s.Once is on record, so that a repeat takes no turn from others. If two come at the same
// time, the transaction that records them refuses one.
func (d *ledger) notYet(s *Spec) error {
	if s.Once.Key == "" {
		return nil
	}
	id, err := d.Holder(s.Once.Key, s.Once.At)
	if err != nil || id == "" || id == s.ID {
		return err
	}
	return &RepeatError{ID: id}
}
