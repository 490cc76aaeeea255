package job

import (
	"context"
	"fmt"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/sandbox/spec"
)

// admitter decides about requests.
type admitter struct {
	*drafter
	jobs     *roster
	records  *ledger
	inputs   inputs
	coalesce *coalescer
}

// admitted is the result for a request: a new job, the known job that its caller asks for again, or the job that took it over.
type admitted struct {
	l      *live
	known  bool
	job    Job // with known and joined
	joined *joined
	key    string // of a new job's slot
	drop   func() // removes the file of the request's input, if it has one already
}

// admit makes a new job, or finds the one that the caller asks for again. It returns an error if the request is refused.
func (a *admitter) admit(ctx context.Context, s *Spec) (_ admitted, err error) {
	if s.Overflow == spec.Coalesce && s.Same == "" {
		s.Overflow = spec.Queue
	}
	j, err := a.draft(s)
	if err != nil {
		return admitted{}, err
	}
	key := slotKey(&j)
	var drop func()
	for {
		l, known, err := a.find(ctx, s)
		if err == nil && l == nil && drop == nil {
			drop, err = a.inputs.keepLong(s)
		}
		if err != nil || l != nil {
			if drop != nil {
				drop()
			}
			return admitted{l: l, known: l != nil, job: known}, err
		}
		admitted, taken, err := a.admitNew(s, j)
		if taken && s.ID != "" {
			continue // a request with the same id came since find looked
		}
		if taken {
			err = ErrTaken
		}
		if err != nil {
			drop()
		}
		admitted.key, admitted.drop = key, drop
		return admitted, err
	}
}

// find returns the job that a caller asks for again; nil: none. It returns *RepeatError if Spec.Once was done before.
func (a *admitter) find(ctx context.Context, s *Spec) (*live, Job, error) {
	if s.ID != "" {
		if l, j, err := a.records.again(ctx, s); l != nil || err != nil {
			return l, j, err
		}
	}
	return nil, Job{}, a.records.notYet(s)
}

// admitNew is admit for an id that find did not know. taken says that the id is known now.
func (a *admitter) admitNew(s *Spec, j Job) (_ admitted, taken bool, _ error) {
	a.jobs.mu.Lock()
	defer a.jobs.mu.Unlock()
	if a.jobs.closed {
		return admitted{}, false, ErrClosed
	}
	if a.jobs.draining != nil && s.By == "" {
		return admitted{}, false, ErrDraining
	}
	if s.Unique {
		if id := a.jobs.duplicate(&j); id != "" {
			return admitted{}, false, &DuplicateError{ID: id}
		}
	}
	if a.jobs.live[j.ID] != nil || a.jobs.aliases[j.ID] != nil || a.jobs.another(s) {
		return admitted{}, true, nil
	}
	if !s.Promised.IsZero() && !a.records.retention.mayPromise(j.share()) {
		return admitted{}, false, fmt.Errorf("%w: at most %d of %s can be kept", ErrPromises, maxPromises, j.Owner)
	}
	t, err := a.jobs.admission.Admit(request(&j, s))
	if err != nil {
		return admitted{}, false, err
	}
	if t.ID != j.ID {
		l := a.jobs.live[t.ID]
		g, err := a.coalesce.join(l, s, j)
		if err != nil {
			return admitted{}, false, err
		}
		of := l.snapshot()
		return admitted{l: l, joined: g, job: g.alias.record(&of)}, false, nil
	}
	if t.Waits() {
		j.State = Queued
	}
	switch {
	case s.InputName != "":
		j.InputFile, j.InputName = true, s.InputName
	case s.Overflow == spec.Coalesce && !s.Volatile:
		j.Input = s.Input
	}
	l := newLive(j)
	l.ticket, l.input = t, s.Input
	a.jobs.add(l, j.ID)
	return admitted{l: l}, false, nil
}

// request is what admission needs to know about a job.
func request(j *Job, s *Spec) admission.Request {
	return admission.Request{
		ID: j.ID, Task: j.Task, Share: j.share(), Owner: j.Owner.String(), Policy: s.Policy, Same: j.Same, Input: int64(len(s.Input)), Owed: s.By != "", Triggers: len(s.OnFailure)+len(s.OnSuccess) > 0 || s.Retry.again(),
	}
}
