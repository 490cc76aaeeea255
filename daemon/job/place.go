package job

import (
	"context"
	"errors"
	"fmt"

	"github.com/rtask/rtask/sandbox/spec"
)

// place puts a new job on record, with its slot if it has its turn; it returns whether it waits for one. With an error nothing is left
// of the job.
func (m *Manager) place(ctx context.Context, s *Spec, a admitted) (waits bool, err error) {
	l := a.l
	waits = l.ticket.Waits()
	if !waits { // first, since there may be no number for it, and then it costs no write
		err = m.runner.lease(l, a.key)
	}
	if err == nil && !s.Volatile && s.Overflow != spec.Coalesce { // that of such a one is kept already
		err = m.keepInput(l)
	}
	if err == nil {
		err = m.records.record(ctx, l)
	}
	if err != nil && m.forget(l) {
		a.drop() // forget has removed what the job had last, which may be another request's
		return false, err
	}
	close(l.settled)
	if waits && (!s.Volatile || s.Overflow == spec.Coalesce) {
		m.mu.Lock() // another request may join
		if l.snapshot().InputFile {
			l.input = nil // it is in the file
		}
		m.mu.Unlock()
	}
	return waits, nil
}

// placeJoined puts a request on record that became part of a job that waits. It returns errGone if it has to be admitted anew.
func (m *Manager) placeJoined(ctx context.Context, s *Spec, a admitted) error {
	defer close(a.joined.alias.settled)
	err := m.commitJoin(ctx, a.l, a.joined)
	if errors.Is(err, errGone) && !m.uses(a.l, s.InputName) { // otherwise it goes with that job, see forget
		a.drop()
	}
	return err
}

// forget undoes admit. It returns false, and does nothing, for a job that another request has put on record meanwhile, which
// it took over. The id stays taken until nothing of the job is left: whoever asks for it meanwhile waits, see known.
func (m *Manager) forget(l *live) bool {
	l.writing.Lock()
	defer l.writing.Unlock()
	m.mu.Lock()
	if l.kept {
		m.mu.Unlock()
		return false
	}
	defer m.workers.Done() // the records are open until then
	m.admission.TakeNoMore(l.ticket)
	j := l.snapshot()
	// Whatever has joined and is not kept yet must not take this for a job that lives, see commitJoin.
	l.err = fmt.Errorf("%q: %w", j.ID, ErrNotFound)
	m.mu.Unlock()
	m.inputs.drop(&j)
	if l.written {
		if err := m.records.Delete(j.ID); err != nil {
			m.opts.Logger.Error("cannot delete a job's record", "job", j.ID, "error", err)
		}
	}
	if l.slot != nil && !m.pool.giveBack(l.slot) {
		m.pool.end(l.slot, nil)
	}
	m.mu.Lock()
	m.admission.Leave(l.ticket)
	delete(m.live, j.ID)
	for id := range l.aliases {
		delete(m.aliases, id)
	}
	m.startQueued()
	m.mu.Unlock()
	for _, c := range []chan struct{}{l.settled, l.ready, l.done, l.gone} {
		close(c)
	}
	return true
}
