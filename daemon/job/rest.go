package job

import (
	"slices"
	"time"
)

// rest waits until a job may be tried again: until its delay is over, and while no new jobs are accepted. It returns false if somebody
// wants no further attempt, and ErrClosed.
func (r *roster) rest(j *Job) (again bool, err error) {
	// The clock may have been set meanwhile.
	delay := time.NewTimer(min(time.Until(j.EndedAt.Add(j.Retry.Delay)), j.Retry.Delay))
	defer delay.Stop()
	enough := r.resting(j.ID)
	select {
	case <-delay.C:
	case <-enough:
		return false, nil
	case <-r.quit:
		return false, ErrClosed
	}
	for {
		accepted := r.rested(j.ID)
		if accepted == nil {
			return true, nil
		}
		select {
		case <-accepted:
		case <-enough:
			return false, nil
		case <-r.quit:
			return false, ErrClosed
		}
	}
}

// resting returns what is closed when there is to be no further attempt after a job.
func (r *roster) resting(id string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rests[id]
}

// rested ends the rest of a job, or returns what is closed when new jobs are accepted again.
func (r *roster) rested(id string) (accepted <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining != nil {
		return r.draining
	}
	delete(r.rests, id)
	return nil
}

// enough has no further attempt made after a job that rests, and returns what is closed once that is noted; nil: it does not rest. mu is
// held.
func (r *roster) enough(id string) <-chan struct{} {
	rest := r.rests[id]
	if rest == nil {
		return nil
	}
	if !isClosed(rest) {
		close(rest)
	}
	return r.owing[id]
}

// Rests reports whether a job has failed and is to be tried again.
func (j *Job) Rests() bool {
	return j.Owing && slices.ContainsFunc(j.Triggered, func(t Triggered) bool { return t.Retry && !t.Started })
}
