package job

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

// ender announces the ends of jobs, and records them.
type ender struct {
	opts     *Options
	jobs     *roster
	records  *ledger
	pool     *pool
	inputs   inputs
	triggers *triggers
	recorder *recorder

	// background are the goroutines that start triggered jobs. Recording an end begins one, also while Close waits for the workers.
	background sync.WaitGroup
}

func newEnder(o *Options, jobs *roster, records *ledger, p *pool, i inputs, t *triggers) *ender {
	e := &ender{opts: o, jobs: jobs, records: records, pool: p, inputs: i, triggers: t}
	e.recorder = newRecorder(e.recordBatch)
	return e
}

// close records the ends that are not on record yet. Call it when no job can end any more.
func (e *ender) close() {
	e.recorder.close()
	e.background.Wait()
}

// end announces the end of a job: first its turn and its slot become free, then callers that wait for the end are woken.
func (e *ender) end(l *live, exit spec.Exit) {
	l.result = Result{Stdout: exit.Stdout, Stderr: exit.Stderr, Truncated: exit.Truncated}
	exit.Stdout, exit.Stderr = nil, nil
	e.jobs.mu.Lock()
	j := l.change(func(j *Job) {
		j.State, j.Exit, j.EndedAt = Ended, &exit, exit.Ended
		if !e.triggers.owe(j) {
			j.Input = nil
		}
	})
	l.result.Job = j
	e.jobs.admission.Leave(l.ticket)
	if s := l.slot; s != nil {
		if exit.Reason == spec.Lost && j.ControlGroup == "" || l.proc != nil && l.proc.Left() {
			e.pool.keepNumber(s)
		}
		if e.pool.giveBack(s) {
			l.slot = nil
		}
	}
	e.jobs.giveTurns()
	e.jobs.mu.Unlock()
	e.recorder.add(l)
	if e.opts.Ended != nil {
		e.opts.Ended(j)
	}
	close(l.done)
}

// recordBatch records the ends of jobs, and forgets the jobs. If it cannot record them, it returns false, and the jobs stay in memory.
// With last, it is not called again.
func (e *ender) recordBatch(batch []*live, last bool) bool {
	for _, l := range batch {
		l.writing.Lock()
		defer l.writing.Unlock()
	}
	var jobs []Job
	e.jobs.mu.Lock()
	for _, l := range batch {
		j := l.snapshot()
		jobs = append(jobs, j)
		for _, a := range l.aliases {
			jobs = append(jobs, a.record(&j))
		}
	}
	e.jobs.mu.Unlock()
	// A record that is refused, since another one has its Once by now, always will be. The others are stored.
	if err := e.records.PutAll(context.Background(), jobs); err != nil && !errors.As(err, new(*store.HeldError)) {
		e.opts.Logger.Error("cannot record the end of jobs", "jobs", len(jobs), "error", err)
		if last {
			for _, l := range batch {
				if l.slot != nil {
					e.pool.leave(l.slot)
				}
			}
		}
		return false
	}
	for _, l := range batch {
		e.recorded(l)
	}
	return true
}

// recorded forgets a job whose end is on disk. It removes its other files, and releases its shim and its slot.
func (e *ender) recorded(l *live) {
	j := l.result.Job
	if err := os.Remove(j.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.opts.Logger.Warn("cannot remove an exit record", "job", j.ID, "error", err)
	}
	if err := e.opts.Host.Forget(j.ID); err != nil {
		e.opts.Logger.Warn("cannot remove the claim of a job", "job", j.ID, "error", err)
	}
	e.inputs.drop(&j)
	e.records.retention.add(j.ID, j.share())
	if l.proc != nil {
		l.proc.Release()
	}
	if j.Owing {
		e.background.Go(func() { e.triggers.run(j) })
	}
	e.jobs.mu.Lock()
	e.jobs.remove(l, j.ID)
	for id := range l.aliases {
		e.records.retention.add(id, j.share())
	}
	s := l.slot
	l.slot = nil
	e.jobs.mu.Unlock()
	if s == nil {
		close(l.gone)
		return
	}
	e.pool.end(s, func() { close(l.gone) })
}
