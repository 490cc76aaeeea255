package job

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

// A request that comes while another one of its task waits, and has Overflow = Coalesce, is that one's: the job that waits
// takes its input, environment and configuration, and its id is an alias of the job. Of each alias there is a record, which
// is a Job with Into set, so that its id is known for as long as the job is.

// joined is a request that another job has taken over.
type joined struct {
	alias Job
	// old is the file that the job's input was in before, "": there was none.
	old string
}

// join gives a request to the job of its task that waits, if there is one. Manager.mu is held.
func (m *Manager) join(s *Spec, j Job) (*live, *joined, error) {
	if s.Overflow != Coalesce {
		return nil, nil, nil
	}
	t := m.tasks[s.Task]
	if t == nil || !t.full(s.MaxConcurrent) {
		return nil, nil, nil
	}
	l := t.last
	if l == nil || !l.queued || l.stop != nil || l.job.State != Queued {
		return nil, nil, nil
	}
	own := *s
	own.ID, own.Volatile = l.job.ID, s.Volatile && l.job.Plan.Volatile
	next, err := m.draft(&own)
	if err != nil {
		return nil, nil, err
	}
	next.State, next.QueuedAt, next.Owner, next.Digest, next.By = Queued, l.job.QueuedAt, l.job.Owner, l.job.Digest, l.job.By
	next.Promised = l.job.Promised
	next.Once = l.job.Once // what this request may do once, its alias holds
	g := &joined{alias: Job{
		ID: j.ID, Into: next.ID, Task: j.Task, Command: j.Command, User: j.User, Owner: j.Owner, Trigger: j.Trigger, Digest: j.Digest,
		State: Queued, QueuedAt: j.QueuedAt, Once: j.Once, Promised: j.Promised,
	}}
	if l.job.Plan.InputFile {
		g.old = m.inputPath(&l.job)
	}
	if next.Plan.InputFile = len(s.Input) > maxInline; next.Plan.InputFile {
		next.Plan.InputName = j.ID // see keepLong
	} else {
		next.Plan.Input = s.Input
	}
	l.job, l.input = next, s.Input
	m.charge(l, int64(len(s.Input)))
	if next.Plan.InputFile {
		l.input = nil
	}
	l.aliases = append(l.aliases, g.alias)
	m.aliases[j.ID] = l
	return l, g, nil
}

// commitJoin puts on record what join did. With an error the job may run with this request's input all the same.
func (m *Manager) commitJoin(ctx context.Context, l *live, g *joined) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	m.mu.Lock()
	j, forgotten := l.job, l.err != nil
	m.mu.Unlock()
	if forgotten {
		return errors.New("cannot record the job: the one that waited could not be recorded")
	}
	if j.Plan.Volatile {
		return nil
	}
	if err := m.store.PutAll(ctx, []Job{j, aliasRecord(g.alias, &j)}); err != nil {
		if errors.As(err, new(*store.ClaimedError)) {
			m.unalias(l, g.alias.ID) // it is not stored, and could not be with the job's end either
		}
		return recordError(err)
	}
	m.mu.Lock()
	l.kept = true
	m.mu.Unlock()
	if g.old != "" {
		if err := os.Remove(g.old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.opts.Logger.Warn("cannot remove the input of a job", "job", j.ID, "error", err)
		}
	}
	return nil
}

// unalias forgets an alias of a job.
func (m *Manager) unalias(l *live, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.aliases, id)
	l.aliases = slices.DeleteFunc(slices.Clone(l.aliases), func(a Job) bool { return a.ID == id })
}

// aliasRecord is an alias as it is recorded with the job that it is of.
func aliasRecord(alias Job, of *Job) Job {
	if of.State == Ended {
		alias.State, alias.EndedAt, alias.Exit = Ended, of.EndedAt, of.Exit
	}
	return alias
}

// keepLong writes an input that is too long for a record to a file named after its request, before anything is known of that:
// whether it becomes an input of its own or that of a job that waits, no record ever names a file that is not there. It
// returns what removes the file again.
func (m *Manager) keepLong(s *Spec) (drop func(), err error) {
	drop = func() {}
	if s.Overflow != Coalesce || len(s.Input) <= maxInline {
		return drop, nil
	}
	if s.ID == "" {
		s.ID = newID()
	}
	if !validID(s.ID) {
		return drop, fmt.Errorf("%w: %q is no id", ErrInvalid, s.ID)
	}
	if _, known := m.AcceptedAt(s.ID); known {
		return drop, nil // with its input
	}
	drop = func() { m.dropInput(&Job{ID: s.ID, Plan: Plan{InputFile: true}}) }
	return drop, writeInput(m.inputPath(&Job{ID: s.ID}), s.Input)
}

// aliased returns the live job that id is an alias of, and the alias. Manager.mu is held.
func (m *Manager) aliased(id string) (*live, Job) {
	l := m.aliases[id]
	if l == nil {
		return nil, Job{}
	}
	for _, a := range l.aliases {
		if a.ID == id {
			return l, a
		}
	}
	return nil, Job{}
}

// aliasesLike returns the aliases in memory whose ids begin with ref.
func (m *Manager) aliasesLike(ref string) []Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Job
	for id := range m.aliases {
		if _, a := m.aliased(id); a.ID != "" && strings.HasPrefix(id, ref) {
			found = append(found, a)
		}
	}
	return found
}

// resolve returns the id of the job that id is an alias of, or id.
func (m *Manager) resolve(id string) string {
	m.mu.Lock()
	l, _ := m.aliased(id)
	_, known := m.live[id]
	to := id
	if l != nil {
		to = l.job.ID
	}
	m.mu.Unlock()
	if known || l != nil {
		return to
	}
	if j, err := m.store.Get(id); err == nil && j.Into != "" {
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
		j = l.job
	}
	m.mu.Unlock()
	if l != nil {
		return j, nil
	}
	j, err := m.store.Get(alias.Into)
	if errors.Is(err, store.ErrNotFound) || err == nil && j.State == promised {
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
			l.aliases = append(l.aliases, a)
			m.aliases[a.ID] = l
			continue
		}
		of, err := m.store.Get(a.Into)
		if err != nil {
			now := time.Now()
			of = Job{State: Ended, EndedAt: now, Exit: &spec.Exit{Job: a.Into, Reason: spec.Lost, Code: -1, Detail: "the job that took this request over is not known any more", Ended: now}}
		}
		if of.State == Ended {
			m.store.PutSoon(aliasRecord(a, &of))
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

// StopQueued stops the jobs that wait for their turn and that nobody asked for but the API key with this id. It returns when
// they have ended, or with ctx.
func (m *Manager) StopQueued(ctx context.Context, key string, o StopOptions) {
	var ids []string
	m.mu.Lock()
	for id, l := range m.live {
		only := l.queued && l.job.State == Queued && l.job.Owner.Key == key
		for _, a := range l.aliases {
			only = only && a.Owner.Key == key
		}
		if only {
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
	m.mu.Lock()
	l, a := m.aliased(id)
	if l == nil {
		if l = m.live[id]; l != nil {
			a = l.job
		}
	}
	m.mu.Unlock()
	if l != nil {
		return a.QueuedAt, true
	}
	j, err := m.store.Get(id)
	return j.QueuedAt, err == nil
}
