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

// place puts a new job on record, with its slot if it has its turn; it returns whether it waits for one. With an error nothing is left
// of the job.
func (p *placer) place(ctx context.Context, s *Spec, a admitted) (waits bool, err error) {
	l := a.l
	waits = l.ticket.Waits()
	if !waits { // first, since there may be no number for it, and then it costs no write
		err = p.pool.leaseTo(l, a.key)
	}
	if err == nil && !s.Volatile && s.Overflow != spec.Coalesce { // that of such a one is kept already
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

// placeJoined puts a request on record that became part of a job that waits. It returns errGone if it has to be admitted anew.
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

// forget undoes admit. It returns false, and does nothing, for a job that another request has put on record meanwhile, which
// it took over. The id stays taken until nothing of the job is left: whoever asks for it meanwhile waits, see known.
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
	// Whatever has joined and is not kept yet must not take this for a job that lives, see coalescer.commit.
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
