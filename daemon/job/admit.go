package job

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/sandbox/spec"
)

// admitted is what became of a request: a new job, one that its caller asked for before, or one that took it over.
type admitted struct {
	l      *live
	known  bool
	job    Job // with known and joined
	joined *joined
	key    string // of the slot that a new job is to have
	drop   func() // removes the file of the request's input, if it has one already
}

// admit makes the job, if there is room for it, or finds the one that its caller asks for again.
func (m *Manager) admit(ctx context.Context, s *Spec) (admitted, error) {
	if s.Overflow == spec.Coalesce && s.Same == "" {
		s.Overflow = spec.Queue
	}
	for {
		drop, err := m.keepLong(s)
		if err != nil {
			return admitted{}, err
		}
		a, err := m.admitKept(ctx, s)
		if errors.Is(err, errUnkept) {
			continue
		}
		if a.drop = drop; err != nil || a.known {
			drop()
		}
		return a, err
	}
}

// admitKept is admit for a request whose input is kept, or errUnkept.
func (m *Manager) admitKept(ctx context.Context, s *Spec) (admitted, error) {
	j, err := m.draft(s)
	if err != nil {
		return admitted{}, err
	}
	key := slotKey(&j)
	for {
		if s.ID != "" {
			if l, j, err := m.again(ctx, s); l != nil || err != nil {
				return admitted{l: l, known: true, job: j}, err
			}
		}
		if err := m.notYet(s); err != nil {
			return admitted{}, err
		}
		a, taken, err := m.admitNew(s, j)
		switch {
		case !taken:
			a.key = key
			return a, err
		case s.ID == "":
			return a, ErrTaken
		}
		// Since the look at it somebody else came with the same id.
	}
}

// admitNew is admit for an id that was not known a moment ago; taken: now it is.
func (m *Manager) admitNew(s *Spec, j Job) (_ admitted, taken bool, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return admitted{}, false, ErrClosed
	}
	if m.draining != nil && s.By == "" {
		return admitted{}, false, ErrDraining
	}
	if s.Unique {
		for _, other := range m.live {
			if other := other.snapshot(); sameCommand(other, j) && other.State != Ended {
				return admitted{}, false, &DuplicateError{ID: other.ID}
			}
		}
	}
	if m.live[j.ID] != nil || m.aliases[j.ID] != nil || m.another(s) {
		return admitted{}, true, nil
	}
	if !s.Promised.IsZero() && !m.records.retention.mayPromise(j.share()) {
		return admitted{}, false, fmt.Errorf("%w: at most %d of %s can be kept", ErrPromises, maxPromises, j.Owner)
	}
	long := s.Overflow == spec.Coalesce && len(s.Input) > maxInline
	if long && s.InputName == "" {
		return admitted{}, false, errUnkept
	}
	t, err := m.admission.Admit(request(&j, s))
	if err != nil {
		return admitted{}, false, err
	}
	if t.ID != j.ID {
		l := m.live[t.ID]
		g, err := m.join(l, s, j)
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
	case long:
		j.InputFile, j.InputName = true, s.InputName
	case s.Overflow == spec.Coalesce && !s.Volatile:
		j.Input = s.Input
	}
	l := newLive(j)
	l.ticket, l.input = t, s.Input
	m.live[j.ID] = l
	m.workers.Add(1) // for follow, or for launch's own end
	return admitted{l: l}, false, nil
}

// request is what admission is to know of a job.
func request(j *Job, s *Spec) admission.Request {
	return admission.Request{
		ID: j.ID, Task: j.Task, Share: j.share(), Owner: j.Owner.String(), Policy: s.Policy, Same: j.Same, Input: int64(len(s.Input)), Owed: s.By != "", Triggers: len(s.OnFailure)+len(s.OnSuccess) > 0,
	}
}

// share names the requester whose share of everything a job counts towards. An API key has one, a local user, each webhook of each
// task, and what the ends of other jobs start, by task.
func (j *Job) share() string {
	switch {
	case j.Owner.Key != "":
		return "key/" + j.Owner.Key
	case j.Trigger == "local" || j.Trigger == "":
		return "user/" + strconv.FormatUint(uint64(j.Owner.UID), 10)
	default:
		return strings.Join([]string{j.Trigger, j.Task, j.Owner.Name}, "/")
	}
}

// again returns the job of s.ID, or of one of s.Otherwise, if there is one. Where it is known from the records only, it has
// ended, and nothing is to be waited for.
func (m *Manager) again(ctx context.Context, s *Spec) (*live, Job, error) {
	l, j, err := m.known(ctx, s.ID)
	for _, id := range s.Otherwise {
		if l != nil || err != nil {
			break
		}
		if l, j, err = m.known(ctx, id); !j.Promised.After(time.Now()) {
			l = nil
		}
	}
	switch {
	case err != nil || l == nil:
		return nil, Job{}, err
	case j.Task != s.Task || j.Owner != s.Owner:
		return nil, Job{}, ErrTaken
	case j.Digest != s.Digest:
		return nil, Job{}, ErrDifferent
	}
	return l, j, nil
}

// known returns the job with this id, as again does; nil: there is none. A job that is being placed is known once it is on record:
// until then it may turn out to be none.
func (m *Manager) known(ctx context.Context, id string) (*live, Job, error) {
	if !validID(id) {
		return nil, Job{}, fmt.Errorf("%w: %q is no id", ErrInvalid, id)
	}
	for {
		l, j, settled := m.remembered(id)
		if l == nil {
			break
		}
		select {
		case <-settled:
			return l, j, nil
		default:
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return nil, Job{}, context.Cause(ctx)
		case <-m.quit:
			return nil, Job{}, ErrClosed
		}
	}
	j, err := m.records.get(id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, Job{}, nil
	case err != nil:
		return nil, Job{}, err
	}
	of := j
	if j.Into != "" && j.State != promised {
		if of, err = m.target(j); err != nil {
			return nil, Job{}, err
		}
	}
	l := &live{job: of, ready: closed(), done: closed(), gone: closed()}
	if j.State == promised {
		l.result = kept(j)
		l.job, j.State = l.result.Job, Ended
	} else if l.result, err = m.Output(context.Background(), of); errors.Is(err, ErrNotFound) {
		err = nil // it never wrote anything, or it is gone
	}
	return l, j, err
}

// remembered returns the job in memory that has this id, or of which it is an alias, as it is seen under that id; settled is
// closed once that is on record, or none.
func (m *Manager) remembered(id string) (l *live, j Job, settled <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.aliases[id]; a != nil {
		of := a.of.snapshot()
		return a.of, a.record(&of), a.settled
	}
	if l = m.live[id]; l != nil {
		return l, l.snapshot(), l.settled
	}
	return nil, Job{}, nil
}
