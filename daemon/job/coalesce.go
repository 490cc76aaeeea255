package job

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/rtask/rtask/daemon/store"
)

// coalescer makes requests part of jobs that wait. If a request with Overflow = spec.Coalesce comes while a job for the same thing
// waits, it becomes part of that job: the job takes its input, environment and configuration, and its id becomes an alias of the job.
// Each alias has a record, a Job with Into set, so that its id is known for as long as the job is.
type coalescer struct {
	*drafter
	jobs    *roster
	records *ledger
	inputs  inputs
}

// joined is a request that another job has taken over.
type joined struct {
	alias *alias
	// old is the file that the job's input was in before, "": there was none.
	old string
	// begun says that its record may exist.
	begun bool
}

// join makes a request part of a job that waits. roster.mu is held.
func (c *coalescer) join(l *live, s *Spec, j Job) (*joined, error) {
	before := l.snapshot()
	own := *s
	own.ID, own.Volatile = before.ID, s.Volatile && before.Volatile
	next, err := c.draft(&own)
	if err != nil {
		return nil, err
	}
	next.State, next.QueuedAt, next.Digest = Queued, before.QueuedAt, before.Digest
	next.Promised = before.Promised
	next.Once = before.Once // what this request may do once, its alias holds
	g := &joined{alias: &alias{of: l, id: j.ID, digest: j.Digest, queuedAt: j.QueuedAt, once: j.Once, promised: j.Promised, settled: make(chan struct{})}}
	if before.InputFile {
		g.old = c.inputs.path(&before)
	}
	l.input = s.Input
	if next.InputFile = s.InputName != ""; next.InputFile {
		next.InputName = s.InputName // see keepLong
		l.input = nil
	} else {
		next.Input = s.Input
	}
	l.change(func(j *Job) { *j = next })
	c.jobs.alias(g.alias)
	return g, nil
}

// errGone is returned by commit if the job that took the request over could not be recorded itself. The request has to be admitted
// again.
var errGone = errors.New("the job that waited could not be recorded")

// commit puts on record what join did, or returns errGone. After another error, the job may still run with this request's input.
func (c *coalescer) commit(ctx context.Context, l *live, g *joined) error {
	committed, err := c.begin(l, g)
	if err == nil {
		err = committed(ctx)
	}
	var held *store.HeldError
	repeat := errors.As(err, &held)
	c.jobs.mu.Lock()
	id := l.snapshot().ID
	gone := l.err != nil || repeat && held.Of == id
	switch {
	case gone:
		c.jobs.admission.TakeNoMore(l.ticket)
	case err == nil:
		l.kept = true
	}
	c.jobs.mu.Unlock()
	switch {
	case gone:
		var err error
		if g.begun { // otherwise its id may be another request's by now, see placer.forget
			err = c.records.Undo(g.alias.record(&Job{}))
		}
		c.jobs.unalias(g.alias) // last: until then, callers that ask for its id wait, see known
		if err != nil {
			return recordError(err)
		}
		return errGone
	case repeat:
		c.jobs.unalias(g.alias) // it is not stored, and could not be with the job's end either
		return recordError(err)
	case err != nil:
		return recordError(err)
	}
	if g.old != "" {
		if err := os.Remove(g.old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.opts.Logger.Warn("cannot remove the input of a job", "job", id, "error", err)
		}
	}
	return nil
}

// begin queues the records of a join for the next commit. Many requests can join in one commit, since none waits for another's.
func (c *coalescer) begin(l *live, g *joined) (committed func(context.Context) error, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	c.jobs.mu.Lock()
	gone := l.err != nil
	c.jobs.mu.Unlock()
	if gone {
		return func(context.Context) error { return nil }, nil
	}
	g.begun = true
	return c.records.begin(l, g.alias.record)
}
