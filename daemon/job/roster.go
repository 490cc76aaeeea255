package job

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/job/admission"
)

// roster is the jobs in memory: those that have not ended, or whose end is not recorded yet. It has who of them has a turn, and
// which requests they took over.
type roster struct {
	quit <-chan struct{} // closed once the Manager is

	// start is called for each job whose turn has come, with the lock held. It must not block.
	start func(*live)

	// workers has one count for each live job that has not ended, except jobs in the queue of a closed roster.
	workers sync.WaitGroup

	mu        sync.Mutex // guards what follows
	live      map[string]*live
	aliases   map[string]*alias // those of live jobs, by their ids
	admission *admission.Admission
	closed    bool
	// draining is nil while jobs are accepted; accept closes it.
	draining chan struct{}
	// owing are jobs that have ended and have yet to start what they trigger; closed when they have.
	owing map[string]chan struct{}
	// rests are those of them that wait until they are tried again; closed when that is not wanted any more.
	rests map[string]chan struct{}
}

func newRoster(maxJobs int, quit <-chan struct{}) *roster {
	return &roster{
		quit: quit, live: map[string]*live{}, aliases: map[string]*alias{}, admission: admission.New(maxJobs), owing: map[string]chan struct{}{}, rests: map[string]chan struct{}{},
	}
}

// close makes the roster start no more jobs. Jobs in the queue wait for the next engine. It returns false if it was called before.
func (r *roster) close() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.closed = true
	r.workers.Add(-r.admission.Queued())
	return true
}

// setMaxJobs changes how many jobs may have a turn at a time.
func (r *roster) setMaxJobs(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.admission.SetMaxJobs(n)
	r.giveTurns()
}

// giveTurns starts the jobs that have their turn now. mu is held.
func (r *roster) giveTurns() {
	if r.closed {
		return
	}
	for _, t := range r.admission.Next() {
		l := r.live[t.ID]
		l.change(func(j *Job) { j.State = Running })
		r.start(l)
	}
}

// get returns the job in memory with this id, or nil.
func (r *roster) get(id string) *live {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[id]
}

// has reports whether a job runs, or is not on record yet.
func (r *roster) has(id string) bool { return r.get(id) != nil }

// remembered returns the job that has this id or alias, and how it is seen under that id. settled is closed when the id is on record,
// or was forgotten.
func (r *roster) remembered(id string) (l *live, j Job, settled <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.aliases[id]; a != nil {
		of := a.of.snapshot()
		return a.of, a.record(&of), a.settled
	}
	if l = r.live[id]; l != nil {
		return l, l.snapshot(), l.settled
	}
	return nil, Job{}, nil
}

// failed reports whether a job in memory has ended without success, whether that is on record yet or not.
func (r *roster) failed(id string) bool {
	l, j, _ := r.remembered(id)
	return l != nil && j.State == Ended && !j.Succeeded()
}

// another reports whether a job in memory has one of s.Otherwise, the other ids of the same request. mu is held.
func (r *roster) another(s *Spec) bool {
	now := time.Now()
	for _, id := range s.Otherwise {
		if a := r.aliases[id]; a != nil && a.promised.After(now) {
			return true
		}
		if l := r.live[id]; l != nil && l.snapshot().Promised.After(now) {
			return true
		}
	}
	return false
}

// duplicate returns the id of a job that has not ended and runs the same command as j, or "". mu is held.
func (r *roster) duplicate(j *Job) string {
	for _, l := range r.live {
		if other := l.snapshot(); sameCommand(other, *j) && other.State != Ended {
			return other.ID
		}
	}
	return ""
}

// add makes a new job known. mu is held.
func (r *roster) add(l *live, id string) {
	r.live[id] = l
	r.workers.Add(1)
}

// remove forgets a job and its aliases. mu is held.
func (r *roster) remove(l *live, id string) {
	delete(r.live, id)
	for alias := range l.aliases {
		delete(r.aliases, alias)
	}
}

// alias adds an alias to its job. mu is held.
func (r *roster) alias(a *alias) {
	if a.of.aliases == nil {
		a.of.aliases = map[string]*alias{}
	}
	a.of.aliases[a.id], r.aliases[a.id] = a, a
}

// unalias forgets an alias.
func (r *roster) unalias(a *alias) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aliases[a.id] == a { // otherwise it is another request's by now
		delete(r.aliases, a.id)
	}
	delete(a.of.aliases, a.id)
	a.of.ticket.Unjoin()
}

// shared is Manager.Shared.
func (r *roster) shared(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.live[id]
	return r.aliases[id] != nil || l != nil && len(l.aliases) > 0
}

// those returns the jobs in memory that fit, newest first.
func (r *roster) those(fit func(Job) bool) []Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	var jobs []Job
	for _, l := range r.live {
		if j := l.snapshot(); fit(j) {
			jobs = append(jobs, j)
		}
	}
	newestFirst(jobs)
	return jobs
}

// count is Manager.Count.
func (r *roster) count() (states map[State]int, waiting map[string]int) {
	states = map[State]int{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.live {
		if j := l.snapshot(); j.State != Ended {
			states[j.State]++
		}
	}
	return states, r.admission.Waiting()
}

// wait returns when a job has ended, with its result.
func (r *roster) wait(ctx context.Context, l *live) (Result, error) {
	select {
	case <-l.done:
		return l.result, l.err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	case <-r.quit:
		return Result{}, ErrClosed
	}
}

// owe notes that a job has ended and is to start others, and paid that it has done so. mu is held.
func (r *roster) owe(j *Job) {
	r.owing[j.ID] = make(chan struct{})
	if slices.ContainsFunc(j.Triggered, func(t Triggered) bool { return t.Retry }) {
		r.rests[j.ID] = make(chan struct{})
	}
	r.admission.Owe(j.share())
}

func (r *roster) paid(j *Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.owing[j.ID])
	delete(r.owing, j.ID)
	delete(r.rests, j.ID)
	r.admission.Paid(j.share())
}

// newestFirst sorts jobs by time, and jobs of the same time by id.
func newestFirst(jobs []Job) {
	slices.SortFunc(jobs, func(a, b Job) int {
		return cmp.Or(b.QueuedAt.Compare(a.QueuedAt), strings.Compare(b.ID, a.ID))
	})
}
