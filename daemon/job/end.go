package job

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// describeAfter is how long a job runs before its scope is renamed for it: a call to systemd that most jobs are not worth.
	describeAfter = time.Second
	// recordAfter is how long the end of a job waits for others to be recorded with it. Until then its shim knows it, or the
	// shim's record.
	recordAfter = 50 * time.Millisecond
	// recordAgain is the time between two attempts to write what could not be written: a disk that is full has room some day.
	recordAgain = 5 * time.Second
)

// follow waits for a job to end.
func (m *Manager) follow(l *live) {
	describe := time.NewTimer(describeAfter)
	defer describe.Stop()
	for {
		select {
		case <-l.proc.Done():
			m.end(l, l.proc.Exit())
			return
		case <-describe.C:
			if s := l.slot; s != nil {
				j := m.snapshot(l)
				m.pool.describe(s, &j)
			}
		case <-m.quit:
			if s := l.proc.Slot(); s != nil {
				s.Leave()
			}
			return
		}
	}
}

// end makes the end of a job known: to those who wait for its turn or its slot first, then to those who wait for its end.
func (m *Manager) end(l *live, exit spec.Exit) {
	l.result = Result{Stdout: exit.Stdout, Stderr: exit.Stderr, Truncated: exit.Truncated}
	exit.Stdout, exit.Stderr = nil, nil
	m.mu.Lock()
	l.job.State, l.job.Exit, l.job.EndedAt = Ended, &exit, exit.Ended
	l.job.Input = nil
	m.owe(&l.job)
	j := l.job
	l.result.Job = j
	m.admission.Leave(l.ticket)
	if s := l.slot; s != nil {
		if exit.Reason == spec.Lost && j.ControlGroup == "" || l.proc != nil && l.proc.Left() {
			m.pool.keepNumber(s)
		}
		if m.pool.giveBack(s) {
			l.slot = nil
		}
	}
	m.unstored = append(m.unstored, l)
	m.startQueued()
	m.mu.Unlock()
	wake(m.ended)
	if m.opts.Ended != nil {
		m.opts.Ended(j)
	}
	close(l.done)
}

// wake wakes whoever receives from c; several signals may be one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// recordNow has the ends recorded that wait for company.
func (m *Manager) recordNow() { wake(m.hurry) }

// recordEnds records how jobs ended, several in one commit, until last is closed.
func (m *Manager) recordEnds(last <-chan struct{}) {
	defer close(m.recorder)
	for {
		select {
		case <-m.ended:
		case <-last:
			m.recordBatch(false)
			return
		}
		for pause := recordAfter; pause > 0; {
			t := time.NewTimer(pause)
			select {
			case <-m.hurry:
			case <-t.C:
			case <-last:
			}
			t.Stop()
			pause = 0
			if !m.recordBatch(true) {
				pause = recordAgain
				select {
				case <-last:
					pause = 0 // once more, above
				default:
				}
			}
		}
	}
}

// recordBatch records what has ended, and lets go of it. It returns false if it could not; then the jobs stay in memory,
// where they can be asked for.
func (m *Manager) recordBatch(again bool) bool {
	m.mu.Lock()
	batch := m.unstored
	m.unstored = nil
	m.mu.Unlock()
	if len(batch) == 0 {
		return true
	}
	for _, l := range batch {
		l.writing.Lock()
		defer l.writing.Unlock()
	}
	var jobs []Job
	m.mu.Lock()
	for _, l := range batch {
		jobs = append(jobs, l.job)
		for _, a := range l.aliases {
			jobs = append(jobs, a.record(&l.job))
		}
	}
	m.mu.Unlock()
	if err := m.store.PutAll(context.Background(), jobs); err != nil {
		m.opts.Logger.Error("cannot record the end of jobs", "jobs", len(jobs), "error", err)
		m.mu.Lock()
		m.unstored = append(batch, m.unstored...)
		m.mu.Unlock()
		if !again {
			for _, l := range batch {
				if l.slot != nil {
					m.pool.leave(l.slot)
				}
			}
		}
		return false
	}
	for _, l := range batch {
		m.recorded(l)
	}
	return true
}

// recorded lets go of a job whose end is on disk: of what was kept of it elsewhere, of its shim, of its slot.
func (m *Manager) recorded(l *live) {
	j := l.result.Job
	if err := os.Remove(j.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.opts.Logger.Warn("cannot remove an exit record", "job", j.ID, "error", err)
	}
	if err := m.opts.Host.Forget(j.ID); err != nil {
		m.opts.Logger.Warn("cannot remove the claim of a job", "job", j.ID, "error", err)
	}
	m.inputs.drop(&j)
	m.retention.add(j.ID, j.share())
	if l.proc != nil {
		l.proc.Release()
	}
	if j.Owing {
		m.background.Go(func() { m.trigger(j) })
	}
	m.mu.Lock()
	delete(m.live, j.ID)
	for id := range l.aliases {
		delete(m.aliases, id)
		m.retention.add(id, j.share())
	}
	s := l.slot
	l.slot = nil
	m.mu.Unlock()
	if s == nil {
		close(l.gone)
		return
	}
	m.pool.end(s, func() { close(l.gone) })
}
