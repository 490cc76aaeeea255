package admission

import "fmt"

// shareFactor says how unequal shares may be: a requester gets one more place while it has fewer than shareFactor times the free
// places. One requester can have 8 of 9 places, two can have 8 of 17 each, and so on, so that some are left for others. Up to 8 places
// can all be one requester's.
const shareFactor = 8

// mayHold reports whether a share that has some of a number of places gets one more of those that are free.
func mayHold(has, free int64) bool { return free > 0 && has < shareFactor*free }

// most is how many jobs may have a turn at a time: the limit, and a reserve for requesters with few jobs.
func (a *Admission) most() int { return a.maxJobs + a.maxJobs/reservePart }

// room returns an error if a job of a share cannot have a turn now: maxJobs are reached, and the share already has as many jobs as
// remain in the reserve. In this way no requester can take the last place.
func (a *Admission) room(share string) error {
	if a.active < a.maxJobs || a.holds[share] < a.most()-a.active {
		return nil
	}
	return fmt.Errorf("%w: max_jobs = %d", ErrTooMany, a.maxJobs)
}

// roomForInput returns an error if there is no room for the input of a job that is to wait, or takes over a longer one.
func (a *Admission) roomForInput(t *Ticket, r *Request) error {
	more := r.Input - t.input
	if has := a.inputs[t.share]; more > 0 && !mayHold(has+more, MaxInputs-a.waiting-more) {
		return fmt.Errorf("%w: the inputs of queued jobs take up %d MiB, %d of them for %s", ErrQueueFull, a.waiting>>20, has>>20, r.Owner)
	}
	return nil
}

// charge sets how many bytes of the room for inputs are a job's.
func (a *Admission) charge(t *Ticket, n int64) {
	a.waiting += n - t.input
	if a.inputs[t.share] += n - t.input; a.inputs[t.share] <= 0 {
		delete(a.inputs, t.share)
	}
	t.input = n
}

// Owe notes that a job of a share has ended and has yet to start others, and Paid that it has started them.
func (a *Admission) Owe(share string) {
	a.owing++
	a.owes[share]++
}

// Paid undoes Owe.
func (a *Admission) Paid(share string) {
	a.owing--
	if a.owes[share]--; a.owes[share] <= 0 {
		delete(a.owes, share)
	}
}

// roomToOwe returns an error if a job is not to start because too many of its requester's, or of all, have yet to start what they
// trigger.
func (a *Admission) roomToOwe(r *Request) error {
	if r.Owed || !r.Triggers {
		return nil
	}
	if n := a.owes[r.Share]; !mayHold(int64(n), int64(MaxOwing-a.owing)) {
		return fmt.Errorf("%w: %d jobs that have ended wait to start what they trigger (on_failure, on_success), %d of them of %s", ErrTooMany, a.owing, n, r.Owner)
	}
	return nil
}
