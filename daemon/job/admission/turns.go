package admission

import "slices"

// task has the jobs of a task: how many have a turn, and which wait.
type task struct {
	running int
	waiting int // in the queue, and on the way to it
	max     int // MaxConcurrent of the last that came
	// queue are the waiting jobs of each share, in order. Next can skip a share without looking at each of its jobs.
	queue map[string][]*Ticket
	// same are those that wait and take over what comes, by Request.Same.
	same map[string]*Ticket
}

// task returns that of a name.
func (a *Admission) task(name string) *task {
	of := a.tasks[name]
	if of == nil {
		of = &task{queue: map[string][]*Ticket{}, same: map[string]*Ticket{}}
		a.tasks[name] = of
	}
	return of
}

// full reports whether a new job would have to wait. Jobs that wait already go first.
func (a *Admission) full(r *Request) bool {
	of := a.tasks[r.Task]
	if of == nil {
		return false
	}
	of.max = r.MaxConcurrent
	return r.MaxConcurrent > 0 && (of.running >= r.MaxConcurrent || of.waiting > 0)
}

// same returns the job that waits and takes a request over, or nil.
func (a *Admission) same(r *Request) *Ticket {
	of := a.tasks[r.Task]
	if of == nil || r.Same == "" {
		return nil
	}
	return of.same[r.Same]
}

// wait has a job wait, with an input of n bytes. It is not in the queue yet.
func (a *Admission) wait(t *Ticket, n int64) {
	of := a.task(t.task)
	of.waiting++
	if t.same != "" {
		of.same[t.same] = t
	}
	t.waits = true
	a.charge(t, n)
}

// stopWaiting undoes wait.
func (a *Admission) stopWaiting(t *Ticket) {
	a.TakeNoMore(t)
	a.tasks[t.task].waiting--
	t.waits = false
	a.charge(t, 0)
}

// TakeNoMore has a job that waits take over no further requests.
func (a *Admission) TakeNoMore(t *Ticket) {
	if of := a.tasks[t.task]; of != nil && of.same[t.same] == t {
		delete(of.same, t.same)
	}
}

// Enqueue puts a job that waits at the end of its task's queue.
func (a *Admission) Enqueue(t *Ticket) {
	a.last++
	t.queued, t.number = true, a.last
	of := a.tasks[t.task]
	of.queue[t.share] = append(of.queue[t.share], t)
}

// Unqueue takes a job out of the queue, so that its turn does not come; it waits until Leave all the same. It returns false if
// the job is not in the queue.
func (a *Admission) Unqueue(t *Ticket) bool {
	if !t.queued {
		return false
	}
	t.queued = false
	of := a.tasks[t.task]
	i, _ := slices.BinarySearchFunc(of.queue[t.share], t.number, func(o *Ticket, number uint64) int { return int(o.number) - int(number) })
	of.queue[t.share] = slices.Delete(of.queue[t.share], i, i+1)
	if len(of.queue[t.share]) == 0 {
		delete(of.queue, t.share)
	}
	return true
}

// Next gives turns to waiting jobs and returns them. Jobs go in the order in which they came, but a job whose requester has all that it
// may have is skipped.
func (a *Admission) Next() []*Ticket {
	var turns []*Ticket
	for a.active < a.most() {
		var first *Ticket
		for t := range a.heads {
			if (first == nil || t.number < first.number) && a.room(t.share) == nil {
				first = t
			}
		}
		if first == nil {
			break
		}
		a.Unqueue(first)
		a.stopWaiting(first)
		a.give(first)
		turns = append(turns, first)
	}
	return turns
}

// heads yields the first waiting job of each share, for each task that may have another turn.
func (a *Admission) heads(yield func(*Ticket) bool) {
	for _, of := range a.tasks {
		if of.max > 0 && of.running >= of.max {
			continue
		}
		for _, queue := range of.queue {
			if !yield(queue[0]) {
				return
			}
		}
	}
}

// Queued returns how many jobs are in a queue.
func (a *Admission) Queued() int {
	n := 0
	for _, of := range a.tasks {
		for _, queue := range of.queue {
			n += len(queue)
		}
	}
	return n
}

// Empty reports whether no job has its turn, waits, or owes what it triggers.
func (a *Admission) Empty() bool {
	return len(a.tasks) == 0 && len(a.holds) == 0 && len(a.inputs) == 0 && len(a.owes) == 0
}

// Waiting returns how many jobs of each task wait for their turn. It leaves out commands, and tasks without waiting jobs.
func (a *Admission) Waiting() map[string]int {
	waiting := map[string]int{}
	for name, of := range a.tasks {
		if name != "" && of.waiting > 0 {
			waiting[name] = of.waiting
		}
	}
	return waiting
}
