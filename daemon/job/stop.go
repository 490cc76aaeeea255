package job

import (
	"context"
	"time"
)

// goneTime bounds how long Stop waits for the shim of a job that has ended.
const goneTime = 5 * time.Second

// stop is Manager.Stop.
func (r *runner) stop(ctx context.Context, id string, o StopOptions) (Job, error) {
	id = r.records.resolve(id)
	r.jobs.mu.Lock()
	if r.jobs.closed {
		r.jobs.mu.Unlock()
		return Job{}, ErrClosed
	}
	noted := r.jobs.enough(id)
	l, ok := r.jobs.live[id]
	unqueued := false
	if ok {
		unqueued = r.jobs.admission.Unqueue(l.ticket)
		r.jobs.admission.TakeNoMore(l.ticket)
		l.change(func(j *Job) {
			if l.stop = &o; j.State != Running {
				return
			}
			j.State = Stopping
			if !j.Volatile {
				r.records.PutSoon(*j)
			}
		})
	}
	r.jobs.mu.Unlock()
	if noted != nil {
		// When Stop returns, there is no further attempt, whatever happens to the engine.
		r.ender.recorder.now()
		select {
		case <-noted:
		case <-ctx.Done():
			return Job{}, context.Cause(ctx)
		case <-r.jobs.quit:
			return Job{}, ErrClosed
		}
		result, err := r.records.wait(ctx, id)
		return result.Job, err
	}
	if !ok {
		result, err := r.records.wait(ctx, id)
		return result.Job, err
	}
	if unqueued {
		r.endQueued(l, o)
	}
	select {
	case l.halt <- o.By:
	default: // another caller did before
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
		return Job{}, context.Cause(ctx)
	case <-r.jobs.quit:
		return Job{}, ErrClosed
	}
	r.launcher.stop(l, o)
	result, err := r.jobs.wait(ctx, l)
	if err != nil {
		return result.Job, err
	}
	// When Stop returns, no process of the job is left, not even the shim.
	r.ender.recorder.now()
	t := time.NewTimer(goneTime)
	defer t.Stop()
	select {
	case <-l.gone:
	case <-t.C:
	case <-ctx.Done():
	case <-r.jobs.quit:
	}
	return result.Job, nil
}

// stopQueued is Manager.StopQueued.
func (r *runner) stopQueued(ctx context.Context, means func(Owner) bool, o StopOptions) int {
	all := r.jobs.those(func(j Job) bool { return j.State == Queued && means(j.Owner) })
	for _, j := range all {
		if _, err := r.stop(ctx, j.ID, o); err != nil {
			r.opts.Logger.Warn("cannot stop a job that waits", "job", j.ID, "error", err)
		}
	}
	return len(all)
}
