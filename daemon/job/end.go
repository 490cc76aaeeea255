package job

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/rtask/rtask/sandbox/spec"
)

// launch starts a job that is placed, and sees to its end.
func (m *Manager) launch(ctx context.Context, l *live) {
	exit, err := m.runner.launch(ctx, l)
	switch {
	case err != nil:
		m.workers.Done()
	case exit != nil:
		m.end(l, *exit)
		m.workers.Done()
	default:
		go func() {
			defer m.workers.Done()
			m.follow(l)
		}()
	}
}

// follow sees to the end of a job that runs.
func (m *Manager) follow(l *live) {
	if exit, ok := m.runner.follow(l); ok {
		m.end(l, exit)
	}
}

// end makes the end of a job known: to those who wait for its turn or its slot first, then to those who wait for its end.
func (m *Manager) end(l *live, exit spec.Exit) {
	l.result = Result{Stdout: exit.Stdout, Stderr: exit.Stderr, Truncated: exit.Truncated}
	exit.Stdout, exit.Stderr = nil, nil
	m.mu.Lock()
	j := l.change(func(j *Job) {
		j.State, j.Exit, j.EndedAt, j.Input = Ended, &exit, exit.Ended, nil
		m.owe(j)
	})
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
	m.startQueued()
	m.mu.Unlock()
	m.recorder.add(l)
	if m.opts.Ended != nil {
		m.opts.Ended(j)
	}
	close(l.done)
}

// recordBatch records what has ended, and lets go of it. It returns false if it could not; then the jobs stay in memory,
// where they can be asked for. With last, nobody tries again.
func (m *Manager) recordBatch(batch []*live, last bool) bool {
	for _, l := range batch {
		l.writing.Lock()
		defer l.writing.Unlock()
	}
	var jobs []Job
	m.mu.Lock()
	for _, l := range batch {
		j := l.snapshot()
		jobs = append(jobs, j)
		for _, a := range l.aliases {
			jobs = append(jobs, a.record(&j))
		}
	}
	m.mu.Unlock()
	if err := m.records.PutAll(context.Background(), jobs); err != nil {
		m.opts.Logger.Error("cannot record the end of jobs", "jobs", len(jobs), "error", err)
		if last {
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
	m.records.retention.add(j.ID, j.share())
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
		m.records.retention.add(id, j.share())
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
