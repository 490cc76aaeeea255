package job

import (
	"context"
	"time"
)

// StopOptions say how to stop a job.
type StopOptions struct {
	// By is who wanted it, for the job's record.
	By string
	// Kill is SIGKILL at once.
	Kill bool
}

// goneTime bounds how long Stop waits for the supervisor of a job that has ended.
const goneTime = 5 * time.Second

// Stop ends the job of this id and returns when nothing of it is left. A job that has ended stays as it is; one that is
// just being started is stopped once it runs, one that waits for its turn never runs. Errors are those of Wait.
func (m *Manager) Stop(ctx context.Context, id string, o StopOptions) (Job, error) {
	id = m.resolve(id)
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return Job{}, ErrClosed
	}
	l, ok := m.live[id]
	unqueued := false
	if ok {
		unqueued = m.admission.Unqueue(l.ticket)
		m.admission.TakeNoMore(l.ticket)
		l.change(func(j *Job) {
			if l.stop = &o; j.State != Running {
				return
			}
			j.State = Stopping
			if !j.Volatile {
				m.records.PutSoon(*j)
			}
		})
	}
	m.mu.Unlock()
	if !ok {
		r, err := m.Wait(ctx, id)
		return r.Job, err
	}
	if unqueued {
		m.endQueued(l, o)
	}
	select {
	case l.halt <- o.By:
	default: // somebody did before
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
		return Job{}, context.Cause(ctx)
	case <-m.quit:
		return Job{}, ErrClosed
	}
	m.runner.stop(l, o)
	r, err := m.wait(ctx, l)
	if err != nil {
		return r.Job, err
	}
	// Whoever looks then finds no process at all, not even the shim.
	m.recorder.now()
	t := time.NewTimer(goneTime)
	defer t.Stop()
	select {
	case <-l.gone:
	case <-t.C:
	case <-ctx.Done():
	case <-m.quit:
	}
	return r.Job, nil
}
