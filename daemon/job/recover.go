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

// unitsLooked is how many of the newest records are looked at for the number of the last scope. A number that is taken all
// the same costs a second attempt.
const unitsLooked = 1000

// findAtOnce is how many jobs of an earlier run are looked for at a time.
const findAtOnce = 64

// recover takes up the jobs that have not ended as far as the records know.
func (m *Manager) recover() error {
	looked := 0
	for j, err := range m.records.Newest() {
		if err != nil {
			m.opts.Logger.Error("cannot read a job's record", "error", err)
			continue
		}
		m.pool.remember(&j, looked == 0)
		if looked++; looked == unitsLooked {
			break
		}
	}
	left, err := m.records.Unfinished()
	var damaged *store.DecodeError
	if errors.As(err, &damaged) {
		// One record that is damaged does not keep all other jobs from being served.
		m.opts.Logger.Error("cannot read all records of unfinished jobs", "error", err)
	} else if err != nil {
		return fmt.Errorf("cannot read the records: %w", err)
	}
	left, aliases := withoutAliases(left)
	if left, err = m.withClaims(m.stillOwing(left)); err != nil {
		return err
	}
	if damaged == nil {
		m.sweep(left)
	}
	found, again := m.findAll(left)
	// Nobody looks at m before all of them are in it.
	for _, l := range found {
		if isClosed(l.proc.Done()) { // whoever asks first is to see that
			m.end(l, l.proc.Exit())
			continue
		}
		if l.job.State == Stopping { // whoever wanted that may not have been heard
			m.runner.stop(l, StopOptions{By: "somebody before the engine was started anew"})
		}
		m.workers.Go(func() { m.follow(l) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(again, func(a, b *live) int { return a.job.QueuedAt.Compare(b.job.QueuedAt) })
	for _, l := range again {
		m.live[l.job.ID] = l
		if l.job.State == Stopping {
			l.ticket = m.admission.Restore(admission.Request{ID: l.job.ID, Task: l.job.Task, Share: l.job.share(), Policy: l.job.Policy}, true)
			m.workers.Go(func() {
				close(l.ready)
				m.end(l, spec.Exit{Job: l.job.ID, Reason: spec.Stopped, Code: -1, Detail: "stopped before it ran", Ended: time.Now()})
			})
			continue
		}
		m.workers.Add(1)
		l.ticket = m.admission.Restore(m.requestOf(&l.job), true)
		m.admission.Enqueue(l.ticket)
	}
	m.takeUpAliases(aliases)
	m.startQueued()
	if n := len(found) + len(again); n > 0 {
		m.opts.Logger.Info("jobs of an earlier run taken up", "running", len(found), "queued", len(again))
	}
	return nil
}

// withClaims adds the jobs that are not on record, because their callers were it, and sweeps up what is left of those that
// have ended.
func (m *Manager) withClaims(left []Job) ([]Job, error) {
	claims, err := m.opts.Host.Claims()
	if err != nil {
		return nil, err
	}
	for id, memo := range claims {
		if slices.ContainsFunc(left, func(j Job) bool { return j.ID == id }) {
			continue
		}
		if _, err := m.records.Get(id); errors.Is(err, store.ErrNotFound) && len(memo) > 0 {
			j, err := m.records.Decode(memo)
			if err == nil && j.ID == id {
				left = append(left, j)
				continue
			}
			m.opts.Logger.Error("cannot read the claim of a job", "job", id, "error", err)
		}
		if err := m.opts.Host.Forget(id); err != nil {
			m.opts.Logger.Warn("cannot remove the claim of a job", "job", id, "error", err)
		}
	}
	return left, nil
}

// findAll looks for jobs, many at a time: a shim that does not answer takes its time. It returns those that were begun, and
// those that are still to be started. What cannot be found out of one job does not keep the engine from serving the others;
// its record stays as it is, for the next engine.
func (m *Manager) findAll(left []Job) (found, again []*live) {
	all := make([]*live, len(left))
	var wg sync.WaitGroup
	places := make(chan struct{}, findAtOnce)
	for i, j := range left {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			all[i] = m.find(j)
		})
	}
	wg.Wait()
	for _, l := range all {
		switch {
		case l == nil:
		case l.proc == nil:
			again = append(again, l)
		default:
			m.takeUp(l)
			found = append(found, l)
		}
	}
	return found, again
}

// find looks for one job. It returns nil where there is nothing to be done about it.
func (m *Manager) find(j Job) *live {
	l := newLive(j)
	close(l.settled)
	never := j.State == Queued
	if !never {
		p, err := m.opts.Host.Find(j.Run, j.Place)
		never = errors.Is(err, sandbox.ErrNeverBegun)
		if err != nil && !never {
			m.opts.Logger.Error("cannot find out about a job of an earlier run", "job", j.ID, "error", err)
			return nil
		}
		l.proc = p
	}
	if !never {
		close(l.ready)
		return l
	}
	if j.Volatile {
		// Its caller asks again, or is gone, too.
		if err := m.records.Delete(j.ID); err != nil {
			m.opts.Logger.Error("cannot delete a job's record", "job", j.ID, "error", err)
		}
		return nil
	}
	if j.State != Stopping {
		l.job.State = Queued
	}
	l.job.Place = spec.Place{}
	return l
}

// takeUp makes a job of an earlier run one of this. Nobody else looks at m yet.
func (m *Manager) takeUp(l *live) {
	j := &l.job
	l.slot = m.pool.adopt(j, l.proc.Slot())
	if p := l.proc; p.PID != 0 {
		j.Place = p.Place
	}
	m.live[j.ID] = l
	l.ticket = m.admission.Restore(m.requestOf(j), false)
}

// requestOf is what admission is to know of a job of an earlier run.
func (m *Manager) requestOf(j *Job) admission.Request {
	return admission.Request{
		ID: j.ID, Task: j.Task, Share: j.share(), Policy: j.Policy, Same: j.Same, Input: m.inputs.size(j),
	}
}
