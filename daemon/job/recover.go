package job

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
)

// unitsLooked is how many of the newest records recover reads to find the number of the last scope. If a number turns out to be
// taken, the next one is tried.
const unitsLooked = 1000

// findAtOnce is how many jobs of an earlier run are looked up concurrently.
const findAtOnce = 64

// recover takes up the jobs that have not ended according to the records.
func (r *runner) recover() error {
	looked := 0
	for j, err := range r.records.Newest() {
		if err != nil {
			r.opts.Logger.Error("cannot read a job's record", "error", err)
			continue
		}
		r.pool.remember(&j, looked == 0)
		if looked++; looked == unitsLooked {
			break
		}
	}
	left, err := r.records.Unfinished()
	var damaged *store.DecodeError
	if errors.As(err, &damaged) {
		// One damaged record must not stop the engine.
		r.opts.Logger.Error("cannot read all records of unfinished jobs", "error", err)
	} else if err != nil {
		return fmt.Errorf("cannot read the records: %w", err)
	}
	left, aliases := withoutAliases(left)
	if left, err = r.withClaims(r.stillOwing(left)); err != nil {
		return err
	}
	if damaged == nil {
		sweep(r.opts, left)
	}
	found, again := r.findAll(left)
	// No caller is served before all jobs are in the roster.
	for _, l := range found {
		if isClosed(l.proc.Done()) { // the first caller should see that
			r.ender.end(l, l.proc.Exit())
			continue
		}
		if l.job.State == Stopping { // the earlier engine may not have told its shim
			r.launcher.stop(l, StopOptions{By: "somebody before the engine was started anew"})
		}
		r.jobs.workers.Go(func() { r.follow(l) })
	}
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	slices.SortFunc(again, func(a, b *live) int { return a.job.QueuedAt.Compare(b.job.QueuedAt) })
	for _, l := range again {
		r.jobs.live[l.job.ID] = l
		if l.job.State == Stopping {
			l.ticket = r.jobs.admission.Restore(admission.Request{ID: l.job.ID, Task: l.job.Task, Share: l.job.share(), Policy: l.job.Policy}, true)
			r.jobs.workers.Go(func() {
				close(l.ready)
				r.ender.end(l, spec.Exit{Job: l.job.ID, Reason: spec.Stopped, Code: -1, Detail: "stopped before it ran", Ended: time.Now()})
			})
			continue
		}
		r.jobs.workers.Add(1)
		l.ticket = r.jobs.admission.Restore(r.requestOf(&l.job), true)
		r.jobs.admission.Enqueue(l.ticket)
	}
	r.takeUpAliases(aliases)
	r.jobs.giveTurns()
	if n := len(found) + len(again); n > 0 {
		r.opts.Logger.Info("jobs of an earlier run taken up", "running", len(found), "queued", len(again))
	}
	return nil
}

// stillOwing removes the jobs that have ended from the unfinished jobs of an earlier engine. They only have to start what they
// trigger.
func (r *runner) stillOwing(left []Job) []Job {
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	return slices.DeleteFunc(left, func(j Job) bool {
		if j.State != Ended {
			return false
		}
		r.jobs.owe(&j)
		r.jobs.workers.Go(func() { r.ender.triggers.run(j) })
		return true
	})
}

// withClaims adds the volatile jobs, which are not on record, and removes the claims of jobs that have ended.
func (r *runner) withClaims(left []Job) ([]Job, error) {
	claims, err := r.opts.Host.Claims()
	if err != nil {
		return nil, err
	}
	for id, memo := range claims {
		if slices.ContainsFunc(left, func(j Job) bool { return j.ID == id }) {
			continue
		}
		if _, err := r.records.Get(id); errors.Is(err, store.ErrNotFound) && len(memo) > 0 {
			j, err := r.records.Decode(memo)
			if err == nil && j.ID == id {
				left = append(left, j)
				continue
			}
			r.opts.Logger.Error("cannot read the claim of a job", "job", id, "error", err)
		}
		if err := r.opts.Host.Forget(id); err != nil {
			r.opts.Logger.Warn("cannot remove the claim of a job", "job", id, "error", err)
		}
	}
	return left, nil
}

// findAll looks for jobs, many at a time, since a shim may not answer for seconds. It returns the jobs that had begun, and those that
// the engine still has to start. If it cannot find out about a job, it leaves that job's record for the next engine.
func (r *runner) findAll(left []Job) (found, again []*live) {
	all := make([]*live, len(left))
	var wg sync.WaitGroup
	places := make(chan struct{}, findAtOnce)
	for i, j := range left {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			all[i] = r.find(j)
		})
	}
	wg.Wait()
	for _, l := range all {
		switch {
		case l == nil:
		case l.proc == nil:
			again = append(again, l)
		default:
			r.takeUp(l)
			found = append(found, l)
		}
	}
	return found, again
}

// find looks for one job. It returns nil if the engine has nothing more to do for it.
func (r *runner) find(j Job) *live {
	l := newLive(j)
	close(l.settled)
	never := j.State == Queued
	if !never {
		p, err := r.opts.Host.Find(j.Run, j.Place)
		never = errors.Is(err, sandbox.ErrNeverBegun)
		if err != nil && !never {
			r.opts.Logger.Error("cannot find out about a job of an earlier run", "job", j.ID, "error", err)
			return nil
		}
		l.proc = p
	}
	if !never {
		close(l.ready)
		return l
	}
	if j.Volatile {
		// Its caller asks again, or is gone.
		if err := r.records.Delete(j.ID); err != nil {
			r.opts.Logger.Error("cannot delete a job's record", "job", j.ID, "error", err)
		}
		return nil
	}
	if j.State != Stopping {
		l.job.State = Queued
	}
	l.job.Place = spec.Place{}
	return l
}

// takeUp adds a job of an earlier run to the roster. No caller is served yet.
func (r *runner) takeUp(l *live) {
	j := &l.job
	l.slot = r.pool.adopt(j, l.proc.Slot())
	if p := l.proc; p.PID != 0 {
		j.Place = p.Place
	}
	r.jobs.live[j.ID] = l
	l.ticket = r.jobs.admission.Restore(r.requestOf(j), false)
}

// requestOf is what admission is to know of a job of an earlier run.
func (r *runner) requestOf(j *Job) admission.Request {
	return admission.Request{
		ID: j.ID, Task: j.Task, Share: j.share(), Policy: j.Policy, Same: j.Same, Input: r.inputs.size(j),
	}
}

// withoutAliases takes the aliases out of the records of jobs that have not ended.
func withoutAliases(all []Job) (jobs, aliases []Job) {
	for _, j := range all {
		if j.Into == "" {
			jobs = append(jobs, j)
		} else {
			aliases = append(aliases, j)
		}
	}
	return jobs, aliases
}

// takeUpAliases gives the aliases of an earlier run to their jobs. roster.mu is held.
func (r *runner) takeUpAliases(aliases []Job) {
	for _, a := range aliases {
		if l := r.jobs.live[a.Into]; l != nil {
			r.jobs.alias(&alias{of: l, id: a.ID, digest: a.Digest, queuedAt: a.QueuedAt, once: a.Once, promised: a.Promised, settled: closed()})
			l.ticket.Joined(1)
			continue
		}
		of, err := r.records.Get(a.Into)
		if err != nil {
			now := time.Now()
			of = Job{State: Ended, EndedAt: now, Exit: &spec.Exit{Job: a.Into, Reason: spec.Lost, Code: -1, Detail: "the job that took this request over is not known any more", Ended: now}}
		}
		if of.State == Ended {
			r.records.PutSoon(aliasRecord(a, &of))
		}
	}
}
