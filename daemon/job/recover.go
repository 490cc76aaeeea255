package job

import (
	"errors"
	"fmt"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox"
)

// unitsLooked is how many of the newest records are looked at for the number of the last scope. A number that is taken all
// the same costs a second attempt.
const unitsLooked = 1000

// recover takes up the jobs that have not ended as far as the records know.
func (m *Manager) recover() error {
	looked := 0
	for j, err := range m.store.Newest() {
		if err != nil {
			m.opts.Logger.Error("cannot read a job's record", "error", err)
			continue
		}
		m.unit = max(m.unit, sandbox.UnitNumber(j.Unit)+1)
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
	var found []*live
	for _, j := range left {
		p, err := m.opts.Host.Find(sandbox.Left{Job: j.Run, Unit: j.Unit, Started: j.StartedAt})
		if err != nil {
			for _, l := range found {
				l.proc.Leave()
			}
			return fmt.Errorf("cannot look for job %s: %w", j.ID, err)
		}
		l := &live{job: j, proc: p, ready: closed(), done: make(chan struct{}), gone: make(chan struct{})}
		if c := j.Run.Credentials; c != nil && m.uids.has(c.UID) {
			l.uid = c.UID
			m.uids.mark(c.UID)
		}
		if p.PID != 0 {
			l.job.ProcessID, l.job.ControlGroup, l.job.StartedAt = p.PID, p.ControlGroup, p.Started
		}
		found = append(found, l)
		m.live[j.ID] = l
	}
	// Nobody looks at m before all of them are in it.
	for _, l := range found {
		m.workers.Go(func() { m.follow(l) })
	}
	if len(found) > 0 {
		m.opts.Logger.Info("jobs of an earlier run taken up", "jobs", len(found))
	}
	return nil
}
