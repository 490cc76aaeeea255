package job

import (
	"context"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// runner sees to jobs from their place on record to their end: it has them wait for their turn, launches and follows them.
type runner struct {
	opts     *Options
	jobs     *roster
	records  *ledger
	pool     *pool
	inputs   inputs
	launcher *launcher
	ender    *ender
}

// launch starts a job that is placed, and sees to its end.
func (r *runner) launch(ctx context.Context, l *live) {
	exit, err := r.launcher.launch(ctx, l)
	switch {
	case err != nil:
		r.jobs.workers.Done()
	case exit != nil:
		r.ender.end(l, *exit)
		r.jobs.workers.Done()
	default:
		go func() {
			defer r.jobs.workers.Done()
			r.follow(l)
		}()
	}
}

// follow sees to the end of a job that runs.
func (r *runner) follow(l *live) {
	if exit, ok := r.launcher.follow(l); ok {
		r.ender.end(l, exit)
	}
}

// enqueue has a job wait that is on record now.
func (r *runner) enqueue(l *live) {
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	if r.jobs.closed {
		r.jobs.workers.Done() // it waits for the next engine
		return
	}
	l.mu.Lock()
	stop := l.stop
	l.mu.Unlock()
	if stop != nil {
		r.jobs.workers.Go(func() { r.endQueued(l, *stop) })
		return
	}
	r.jobs.admission.Enqueue(l.ticket)
	r.jobs.giveTurns()
}

// endQueued ends a job that was stopped before its turn came, and is in no queue.
func (r *runner) endQueued(l *live, o StopOptions) {
	r.ender.end(l, spec.Exit{Job: l.snapshot().ID, Reason: spec.Stopped, Code: -1, Detail: "stopped by " + o.By + " before its turn came", Ended: time.Now()})
	close(l.ready)
	r.jobs.workers.Done()
}

// waitAgain is the time between two attempts to get a uid for a job whose turn has come.
const waitAgain = 200 * time.Millisecond

// dispatch starts a job whose turn has come. Until that is on record it is not started; a disk that is full has room some
// day.
func (r *runner) dispatch(l *live) {
	err := r.leaseQueued(l)
	for err == nil {
		if err = r.records.record(context.Background(), l); err == nil {
			break
		}
		r.opts.Logger.Error("cannot start a job that waits", "job", l.snapshot().ID, "error", err)
		err = pause(recordAgain, r.jobs.quit)
	}
	if err != nil { // it waits on, for the next engine
		if l.slot != nil {
			r.pool.end(l.slot, nil)
		}
		r.jobs.workers.Done()
		return
	}
	if j := l.snapshot(); l.input == nil {
		if l.input, err = r.inputs.read(&j); err != nil {
			r.opts.Logger.Error("cannot read the input of a job that waited", "job", j.ID, "error", err)
			r.ender.end(l, *setupFailed(l, err))
			close(l.ready)
			r.jobs.workers.Done()
			return
		}
	}
	r.launch(context.Background(), l)
}

// leaseQueued gets a slot for a job that waited. It returns ErrClosed.
func (r *runner) leaseQueued(l *live) error {
	for {
		j := l.snapshot()
		key := slotKey(&j)
		if r.pool.leaseTo(l, key) == nil {
			return nil
		}
		if err := pause(waitAgain, r.jobs.quit); err != nil {
			return err
		}
	}
}
