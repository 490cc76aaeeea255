package job

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

// A request that comes while a job waits that is for the same thing, and has Overflow = spec.Coalesce, becomes part of that job: the
// job takes its input, environment and configuration, and its id is an alias of the job. Of each alias there is a record, which
// is a Job with Into set, so that its id is known for as long as the job is.

// alias is a request that a live job has taken over. It has the job's owner and trigger.
type alias struct {
	of         *live
	id, digest string
	queuedAt   time.Time
	once       Once
	promised   time.Time
	settled    chan struct{} // closed once it is on record, or none
}

// record is the record of an alias, given the job that it is of.
func (a *alias) record(of *Job) Job {
	return aliasRecord(Job{
		Spec: Spec{
			Run: nameOf(a.id, of), Owner: of.Owner, Trigger: of.Trigger, Digest: a.digest, Promised: a.promised, Once: a.once,
		},
		Into: of.ID, User: of.User, State: Queued, QueuedAt: a.queuedAt,
	}, of)
}

// nameOf is what a record under another id, or a small one, has of what j ran.
func nameOf(id string, j *Job) spec.Run {
	return spec.Run{ID: id, Task: j.Task, Args: j.Args[:min(1, len(j.Args))]}
}

// alias makes an id one of a live job. Manager.mu is held.
func (m *Manager) alias(a *alias) {
	if a.of.aliases == nil {
		a.of.aliases = map[string]*alias{}
	}
	a.of.aliases[a.id], m.aliases[a.id] = a, a
}

// same is Terms.Same of a Job.
func same(s *Spec) string {
	if s.Overflow != spec.Coalesce || s.Same == "" {
		return ""
	}
	h := sha256.New()
	for _, part := range []string{s.Trigger, strconv.FormatUint(uint64(s.Owner.UID), 10), s.Owner.Key, s.Owner.Name, s.Same} {
		fmt.Fprintf(h, "%d %s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// joined is a request that another job has taken over.
type joined struct {
	alias *alias
	// old is the file that the job's input was in before, "": there was none.
	old string
}

// join makes a request part of a job that waits. Manager.mu is held.
func (m *Manager) join(l *live, s *Spec, j Job) (*joined, error) {
	before := l.snapshot()
	own := *s
	own.ID, own.Volatile = before.ID, s.Volatile && before.Volatile
	next, err := m.draft(&own)
	if err != nil {
		return nil, err
	}
	next.State, next.QueuedAt, next.Digest = Queued, before.QueuedAt, before.Digest
	next.Promised = before.Promised
	next.Once = before.Once // what this request may do once, its alias holds
	g := &joined{alias: &alias{of: l, id: j.ID, digest: j.Digest, queuedAt: j.QueuedAt, once: j.Once, promised: j.Promised, settled: make(chan struct{})}}
	if before.InputFile {
		g.old = m.inputs.path(&before)
	}
	l.input = s.Input
	if next.InputFile = len(s.Input) > maxInline; next.InputFile {
		next.InputName = s.InputName // see keepLong
		l.input = nil
	} else {
		next.Input = s.Input
	}
	l.change(func(j *Job) { *j = next })
	m.alias(g.alias)
	return g, nil
}

// errGone is returned by commitJoin when the job that took the request over could not be recorded itself. The request may find
// another one.
var errGone = errors.New("the job that waited could not be recorded")

// commitJoin puts on record what join did, or returns errGone. With another error the job may run with this request's input all
// the same.
func (m *Manager) commitJoin(ctx context.Context, l *live, g *joined) error {
	committed, err := m.beginJoin(l, g)
	if err == nil {
		err = committed(ctx)
	}
	var held *store.HeldError
	repeat := errors.As(err, &held)
	m.mu.Lock()
	id := l.snapshot().ID
	gone := l.err != nil || repeat && held.Of == id
	switch {
	case gone:
		m.admission.TakeNoMore(l.ticket)
	case err == nil:
		l.kept = true
	}
	m.mu.Unlock()
	switch {
	case gone:
		m.unalias(g.alias)
		if err := m.records.Delete(g.alias.id); err != nil {
			return recordError(err)
		}
		return errGone
	case repeat:
		m.unalias(g.alias) // it is not stored, and could not be with the job's end either
		return recordError(err)
	case err != nil:
		return recordError(err)
	}
	if g.old != "" {
		if err := os.Remove(g.old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.opts.Logger.Warn("cannot remove the input of a job", "job", id, "error", err)
		}
	}
	return nil
}

// beginJoin gives the records of a join their place among all others. Many requests join in one commit: none waits for that of
// another one.
func (m *Manager) beginJoin(l *live, g *joined) (committed func(context.Context) error, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	m.mu.Lock()
	gone := l.err != nil
	m.mu.Unlock()
	if gone {
		return func(context.Context) error { return nil }, nil
	}
	return m.records.begin(l, g.alias.record)
}

// unalias forgets an alias.
func (m *Manager) unalias(a *alias) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.aliases, a.id)
	delete(a.of.aliases, a.id)
	a.of.ticket.Unjoin()
}

// aliasRecord is an alias as it is recorded with the job that it is of.
func aliasRecord(alias Job, of *Job) Job {
	if of.State == Ended {
		alias.State, alias.EndedAt, alias.Exit = Ended, of.EndedAt, of.Exit
	}
	return alias
}

// resolve returns the id of the job that id is an alias of, or id.
func (m *Manager) resolve(id string) string {
	if l, j, _ := m.remembered(id); l != nil {
		return cmp.Or(j.Into, j.ID)
	}
	if j, err := m.records.Get(id); err == nil && j.Into != "" {
		return j.Into
	}
	return id
}

// target returns the job that alias is of, as it is now. One that is not known any more has left its end in the alias.
func (m *Manager) target(alias Job) (Job, error) {
	m.mu.Lock()
	l := m.live[alias.Into]
	var j Job
	if l != nil {
		j = l.snapshot()
	}
	m.mu.Unlock()
	if l != nil {
		return j, nil
	}
	j, err := m.records.get(alias.Into)
	if errors.Is(err, ErrNotFound) || err == nil && j.State == promised {
		return alias, nil
	}
	return j, err
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

// takeUpAliases gives the aliases of an earlier run to their jobs. Manager.mu is held.
func (m *Manager) takeUpAliases(aliases []Job) {
	for _, a := range aliases {
		if l := m.live[a.Into]; l != nil {
			m.alias(&alias{of: l, id: a.ID, digest: a.Digest, queuedAt: a.QueuedAt, once: a.Once, promised: a.Promised, settled: closed()})
			l.ticket.Joined(1)
			continue
		}
		of, err := m.records.Get(a.Into)
		if err != nil {
			now := time.Now()
			of = Job{State: Ended, EndedAt: now, Exit: &spec.Exit{Job: a.Into, Reason: spec.Lost, Code: -1, Detail: "the job that took this request over is not known any more", Ended: now}}
		}
		if of.State == Ended {
			m.records.PutSoon(aliasRecord(a, &of))
		}
	}
}

// Shared reports whether the job with this id, or that it is an alias of, was asked for by several requests.
func (m *Manager) Shared(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.live[id]
	return m.aliases[id] != nil || l != nil && len(l.aliases) > 0
}

// StopQueued stops the jobs that wait for their turn and that the API key with this id asked for. It returns when they have
// ended, or with ctx.
func (m *Manager) StopQueued(ctx context.Context, key string, o StopOptions) {
	var ids []string
	m.mu.Lock()
	for id, l := range m.live {
		if j := l.snapshot(); j.State == Queued && j.Owner.Key == key {
			ids = append(ids, id)
		}
	}
	m.mu.Unlock()
	for _, id := range ids {
		if _, err := m.Stop(ctx, id, o); err != nil {
			m.opts.Logger.Warn("cannot stop a job that waits", "job", id, "error", err)
		}
	}
}

// AcceptedAt returns when the job, or the alias of one, with this id was accepted; false: there is none.
func (m *Manager) AcceptedAt(id string) (time.Time, bool) {
	if l, j, _ := m.remembered(id); l != nil {
		return j.QueuedAt, true
	}
	j, err := m.records.Get(id)
	return j.QueuedAt, err == nil
}
