package job

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox"
)

// unitsLooked is how many of the newest records are looked at for the number of the last scope. A number that is taken all
// the same costs a second attempt.
const unitsLooked = 1000

// findAtOnce is how many jobs of an earlier run are looked for at a time.
const findAtOnce = 64

// recover takes up the jobs that have not ended as far as the records know.
func (m *Manager) recover() error {
	looked := 0
	for j, err := range m.store.Newest() {
		if err != nil {
			m.opts.Logger.Error("cannot read a job's record", "error", err)
			continue
		}
		m.unit = max(m.unit, sandbox.UnitNumber(j.Unit)+1)
		if c := j.Run.Credentials; looked == 0 && c != nil && m.uids.has(c.UID) {
			m.uids.next = c.UID + 1 // not at once another's; take wraps around
		}
		if looked++; looked == unitsLooked {
			break
		}
	}
	left, err := m.store.Unfinished()
	var damaged *store.DecodeError
	if errors.As(err, &damaged) {
		// One record that is damaged does not keep all other jobs from being served.
		m.opts.Logger.Error("cannot read all records of unfinished jobs", "error", err)
	} else if err != nil {
		return fmt.Errorf("cannot read the records: %w", err)
	}
	found := m.findAll(m.stillOwing(left))
	// Nobody looks at m before all of them are in it.
	for _, l := range found {
		m.workers.Go(func() { m.follow(l) })
	}
	if len(found) > 0 {
		m.opts.Logger.Info("jobs of an earlier run taken up", "jobs", len(found))
	}
	return nil
}

// findAll looks for jobs, many at a time: a shim that does not answer takes its time. What cannot be found out of one job
// does not keep the engine from serving the others; its record stays as it is, for the next engine.
func (m *Manager) findAll(left []Job) []*live {
	found := make([]*live, len(left))
	var wg sync.WaitGroup
	slots := make(chan struct{}, findAtOnce)
	for i, j := range left {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			p, err := m.opts.Host.Find(sandbox.Left{Job: j.Run, Unit: j.Unit, Started: j.StartedAt})
			if err != nil {
				m.opts.Logger.Error("cannot find out about a job of an earlier run", "job", j.ID, "error", err)
				return
			}
			found[i] = &live{job: j, proc: p, ready: closed(), done: make(chan struct{}), gone: make(chan struct{})}
		})
	}
	wg.Wait()
	found = slices.DeleteFunc(found, func(l *live) bool { return l == nil })
	for _, l := range found {
		if c := l.job.Run.Credentials; c != nil && m.uids.has(c.UID) {
			l.uid = c.UID
			m.uids.mark(c.UID)
		}
		if p := l.proc; p.PID != 0 {
			l.job.ProcessID, l.job.ControlGroup, l.job.StartedAt = p.PID, p.ControlGroup, p.Started
		}
		m.live[l.job.ID] = l
	}
	return found
}
