package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/rtask/rtask/sandbox/spec"
)

// placer puts jobs that were admitted on record, and reserves slots for them.
type placer struct {
	logger   *slog.Logger
	jobs     *roster
	records  *ledger
	pool     *pool
	inputs   inputs
	coalesce *coalescer
}

// place puts a new job on record, with a slot if it has its turn. waits says that it waits for a turn. After an error, nothing is left
// of the job.
func (p *placer) place(ctx context.Context, s *Spec, a admitted) (waits bool, err error) {
	l := a.l
	waits = l.ticket.Waits()
	if !waits { // first: if no uid is free, nothing has been written
		err = p.pool.leaseTo(l, a.key)
	}
	if err == nil && !s.Volatile && s.Overflow != spec.Coalesce { // a coalesced job's input is kept already
		err = p.keepInput(l)
	}
	if err == nil {
		err = p.records.record(ctx, l)
	}
	if err != nil && p.forget(l) {
		a.drop() // forget has removed what the job had last, which may be another request's
		return false, err
	}
	close(l.settled)
	if waits && (!s.Volatile || s.Overflow == spec.Coalesce) {
		p.jobs.mu.Lock() // another request may join
		if l.snapshot().InputFile {
			l.input = nil // it is in the file
		}
		p.jobs.mu.Unlock()
	}
	return waits, nil
}

// keepInput keeps a job's input with its record, so that any engine can start it.
func (p *placer) keepInput(l *live) error {
	j := l.change(func(j *Job) {
		if j.InputFile = len(l.input) > maxInline; !j.InputFile {
			j.Input = l.input
		}
	})
	if !j.InputFile {
		return nil
	}
	return p.inputs.write(&j, l.input)
}

// placeJoined puts a request on record that a waiting job took over. It returns errGone if the request has to be admitted again.
func (p *placer) placeJoined(ctx context.Context, s *Spec, a admitted) error {
	defer close(a.joined.alias.settled)
	err := p.coalesce.commit(ctx, a.l, a.joined)
	if errors.Is(err, errGone) {
		if j := a.l.snapshot(); !j.InputFile || j.InputName != s.InputName { // otherwise it goes with that job, see forget
			a.drop()
		}
	}
	return err
}

// forget undoes admit. It does nothing and returns false for a job that took over a request, if that request has put the job on record.
// The id stays taken until nothing of the job is left: callers that ask for it wait, see known.
func (p *placer) forget(l *live) bool {
	l.writing.Lock()
	defer l.writing.Unlock()
	p.jobs.mu.Lock()
	if l.kept {
		p.jobs.mu.Unlock()
		return false
	}
	defer p.jobs.workers.Done() // the records are open until then
	p.jobs.admission.TakeNoMore(l.ticket)
	j := l.snapshot()
	// Requests that have joined and are not on record yet find out by this that the job is gone, see coalescer.commit.
	l.err = fmt.Errorf("%q: %w", j.ID, ErrNotFound)
	p.jobs.mu.Unlock()
	p.inputs.drop(&j)
	if l.written {
		if err := p.records.Undo(j); err != nil {
			p.logger.Error("cannot delete a job's record", "job", j.ID, "error", err)
		}
	}
	if l.slot != nil && !p.pool.giveBack(l.slot) {
		p.pool.end(l.slot, nil)
	}
	p.jobs.mu.Lock()
	p.jobs.admission.Leave(l.ticket)
	p.jobs.remove(l, j.ID)
	p.jobs.giveTurns()
	p.jobs.mu.Unlock()
	for _, c := range []chan struct{}{l.settled, l.ready, l.done, l.gone} {
		close(c)
	}
	return true
}
