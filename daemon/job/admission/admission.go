// Package admission decides about a job before anything of it exists: it is refused, has its turn, waits for one, or becomes
// part of a job that waits.
//
// It is pure: it keeps all its state in memory, takes the time from package time, starts nothing and locks nothing. Its callers hold a
// lock during each call. It knows jobs by their ids only. Only package job imports it.
//
// Each requester has a share of everything that is limited, so that none of them can take what others need.
package admission

import (
	"fmt"

	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// MaxJoined is how many requests one job takes over while it waits: more than any sender has a reason to send.
	MaxJoined = 1000
	// MaxInputs is how many bytes the inputs of all jobs that wait for their turn may have, on disk or in memory.
	MaxInputs = 1 << 30
	// MaxOwing is how many jobs that have ended may wait for room for the jobs that they trigger. Beyond it, jobs that may trigger
	// others are refused.
	MaxOwing = 1000
	// reservePart: for each reservePart jobs of the limit, one more may run, for requesters with few jobs.
	reservePart = 8
)

// Request is what is asked for.
type Request struct {
	// ID is the id that the job is to have.
	ID string
	// Task is the task's name. Commands have the empty one, and no MaxConcurrent.
	Task string
	// Share names the requester whose share the job counts towards; Owner names it for people.
	Share, Owner string
	// Policy is the task's: of it, what admits and what waits.
	spec.Policy
	// Same is equal in requests for the same thing. A waiting job takes over requests with the same value. Empty: it takes over none.
	Same string
	// Input is the size of the input, in bytes.
	Input int64
	// Owed: the end of another job starts it, so it is held neither to Rate nor to MaxOwing.
	Owed bool
	// Triggers: its end may start others.
	Triggers bool
}

// Admission is all that is admitted.
type Admission struct {
	maxJobs int
	active  int              // jobs that have their turn
	holds   map[string]int   // how many of these each share has
	tasks   map[string]*task // those with a job that has its turn or waits
	rates   map[string]*bucket
	waiting int64            // bytes of the inputs of jobs that wait
	inputs  map[string]int64 // the same of each share
	owing   int              // jobs that have ended and have yet to start others
	owes    map[string]int   // the same of each share
	last    uint64           // number of the last that came into a queue
}

// Ticket is a job that was admitted.
type Ticket struct {
	// ID is the job's.
	ID string

	task, share, same string
	waits             bool
	queued            bool   // it is in its task's queue, as number
	number            uint64 // which came first
	input             int64  // bytes that are counted in Admission.inputs
	joined            int    // requests that it took over
}

// Waits reports whether the job still waits for its turn.
func (t *Ticket) Waits() bool { return t.waits }

// New returns an Admission in which maxJobs jobs may have a turn at a time.
func New(maxJobs int) *Admission {
	return &Admission{
		maxJobs: maxJobs, holds: map[string]int{}, tasks: map[string]*task{}, rates: map[string]*bucket{}, inputs: map[string]int64{},
		owes: map[string]int{},
	}
}

// SetMaxJobs changes how many jobs may have a turn at a time. Jobs that have a turn keep it.
func (a *Admission) SetMaxJobs(n int) { a.maxJobs = n }

// Admit lets a request in, or returns why not: a *RateError, ErrTooMany, ErrConcurrency or ErrQueueFull. A ticket with another
// ID than the request's is that of the job that waits and takes the request over. Of a new job that waits, Enqueue is called
// once it is on record. The order is: the rate, a job that takes the request over, the room in all, then a turn or a place in the
// queue.
func (a *Admission) Admit(r Request) (*Ticket, error) {
	if err := a.limitRate(&r); err != nil {
		return nil, err
	}
	full := a.full(&r)
	if other := a.same(&r); full && other != nil {
		return other, a.join(other, &r)
	}
	if err := a.room(r.Share); err != nil {
		return nil, err
	}
	if err := a.roomToOwe(&r); err != nil {
		return nil, err
	}
	t := &Ticket{ID: r.ID, task: r.Task, share: r.Share, same: r.Same}
	if !full {
		a.give(t)
		a.tasks[r.Task].max = r.MaxConcurrent
		return t, nil
	}
	switch {
	case r.Overflow != spec.Queue && r.Overflow != spec.Coalesce:
		return nil, fmt.Errorf("%w: max_concurrent = %d", ErrConcurrency, r.MaxConcurrent)
	case a.tasks[r.Task].waiting >= r.MaxQueue:
		return nil, fmt.Errorf("%w: queue = %d", ErrQueueFull, r.MaxQueue)
	}
	if err := a.roomForInput(t, &r); err != nil {
		return nil, err
	}
	a.wait(t, r.Input)
	return t, nil
}

// Restore lets in what an earlier Admission had let in: a job that has its turn, or with waits one that waits.
func (a *Admission) Restore(r Request, waits bool) *Ticket {
	t := &Ticket{ID: r.ID, task: r.Task, share: r.Share, same: r.Same}
	if waits {
		a.wait(t, r.Input)
	} else {
		a.give(t)
	}
	a.tasks[r.Task].max = r.MaxConcurrent
	return t
}

// Leave takes back a job's turn, or its place in the queue.
func (a *Admission) Leave(t *Ticket) {
	of := a.tasks[t.task]
	if t.waits {
		a.Unqueue(t)
		a.stopWaiting(t)
	} else {
		of.running--
		a.active--
		if a.holds[t.share]--; a.holds[t.share] <= 0 {
			delete(a.holds, t.share)
		}
	}
	if of.running == 0 && of.waiting == 0 {
		delete(a.tasks, t.task)
	}
}

// give gives a job its turn.
func (a *Admission) give(t *Ticket) {
	a.task(t.task).running++
	a.active++
	a.holds[t.share]++
}

// join gives a request to a job that waits.
func (a *Admission) join(t *Ticket, r *Request) error {
	if t.joined >= MaxJoined {
		return fmt.Errorf("%w: job %s waits for %d requests already", ErrQueueFull, t.ID, 1+t.joined)
	}
	if err := a.roomForInput(t, r); err != nil {
		return err
	}
	a.charge(t, r.Input)
	t.joined++
	return nil
}

// Joined notes that a job that waits has taken over so many requests under an earlier Admission.
func (t *Ticket) Joined(n int) { t.joined += n }

// Unjoin takes a request back that a job had taken over.
func (t *Ticket) Unjoin() { t.joined-- }
