package job

import (
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
)

// live is a job that has not ended, or whose end is not recorded yet.
type live struct {
	// What follows is guarded by roster.mu: the job's ticket; the requests that it took over, by their ids, at most
	// admission.MaxJoined; and whether one of them put it on record.
	ticket  *admission.Ticket
	aliases map[string]*alias
	kept    bool

	// writing is held while the job is put on record, so that its records are written in order. It is taken before all other locks.
	// It guards written, which says that a record may exist.
	writing sync.Mutex
	written bool

	mu   sync.Mutex   // guards what follows; taken after roster.mu and before the pool's
	job  Job          // as it is now
	stop *StopOptions // somebody wants it stopped

	// slot and input belong to the goroutine that launches the job, then to the one that follows it. slot is nil while the job is
	// queued, and after it was given back. While the job can take over requests, roster.mu guards input.
	slot  *slot
	input []byte

	settled chan struct{} // closed when the job is on record, or was forgotten

	ready chan struct{}    // closed when the job was launched, or could not be
	halt  chan string      // receives the name of the client that stops it before that
	proc  *sandbox.Process // readable once ready is closed; nil if it could not be

	result Result        // readable once done is closed
	err    error         // likewise, or with roster.mu; set when there never was a job
	done   chan struct{} // closed when the job has ended
	gone   chan struct{} // closed when its shim has ended, too, or takes another job
}

func newLive(j Job) *live {
	return &live{
		job: j, settled: make(chan struct{}), ready: make(chan struct{}), halt: make(chan string, 1), done: make(chan struct{}),
		gone: make(chan struct{}),
	}
}

// snapshot returns the job as it is now.
func (l *live) snapshot() Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.job
}

// change changes the job, and returns it as it is then.
func (l *live) change(do func(j *Job)) Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	do(&l.job)
	return l.job
}

// alias is a request that a live job has taken over (see coalesce.go). Its owner and trigger are those of the job.
type alias struct {
	of         *live
	id, digest string
	queuedAt   time.Time
	once       Once
	promised   time.Time
	settled    chan struct{} // closed when it is on record, or was forgotten
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

// aliasRecord returns the record of an alias, with the end of its job if that has ended.
func aliasRecord(alias Job, of *Job) Job {
	if of.State == Ended {
		alias.State, alias.EndedAt, alias.Exit = Ended, of.EndedAt, of.Exit
	}
	return alias
}

// nameOf is the part of j's Run that aliases and promises keep, under an id of their own.
func nameOf(id string, j *Job) spec.Run {
	return spec.Run{ID: id, Task: j.Task, Args: j.Args[:min(1, len(j.Args))]}
}
