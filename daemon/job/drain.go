package job

import (
	"context"
	"errors"
)

// ErrDraining is returned by Start between Drain and Accept.
var ErrDraining = errors.New("the engine is draining and accepts no new jobs")

// drain is Manager.Drain, and so on.
func (r *roster) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining == nil {
		r.draining = make(chan struct{})
	}
}

func (r *roster) accept() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining != nil {
		close(r.draining)
		r.draining = nil
	}
}

func (r *roster) isDraining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining != nil
}

func (r *roster) drained(ctx context.Context) (bool, error) {
	for {
		draining, next := r.leftToDrain()
		switch {
		case draining == nil:
			return false, nil
		case next == nil:
			return true, nil
		}
		select {
		case <-next:
		case <-draining:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-r.quit:
			return false, ErrClosed
		}
	}
}

// leftToDrain returns the channel that accept closes, and a channel that is closed when one of the remaining jobs has ended or has
// started the jobs that it triggers. The second is nil if no job remains.
func (r *roster) leftToDrain() (draining, next <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.live {
		if l.snapshot().State != Ended {
			return r.draining, l.done
		}
	}
	for id, started := range r.owing {
		if rest := r.rests[id]; rest == nil || isClosed(rest) { // the next attempt waits until new jobs are accepted
			return r.draining, started
		}
	}
	return r.draining, nil
}
