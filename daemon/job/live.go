package job

import (
	"sync"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/sandbox"
)

// live is a job that has not ended, or whose end is not recorded yet.
type live struct {
	// What follows is guarded by Manager.mu: the job's ticket; the requests that it took over, by their ids, at most
	// admission.MaxJoined; and whether one of them put it on record.
	ticket  *admission.Ticket
	aliases map[string]*alias
	kept    bool

	// writing is held from the look at the job to its being on record, so that records come in the order of what happens. It is
	// taken before all other locks. written, which it guards, says that there may be a record.
	writing sync.Mutex
	written bool

	mu   sync.Mutex   // guards what follows; taken after Manager.mu and before the pool's
	job  Job          // as it is now
	stop *StopOptions // somebody wants it stopped

	// Its launcher's, then its follower's. slot is nil while it is queued, and once it was given back. While it takes over requests,
	// input is guarded by Manager.mu.
	slot  *slot
	input []byte

	settled chan struct{} // closed when the job is on record, or turned out to be none

	ready chan struct{}    // closed when the job was launched, or could not be
	halt  chan string      // takes who stops it before that
	proc  *sandbox.Process // readable once ready is closed; nil if it could not be

	result Result        // readable once done is closed
	err    error         // likewise, or with Manager.mu; set when there never was a job
	done   chan struct{} // closed when the job has ended
	gone   chan struct{} // closed when its shim has ended too, or was let go
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

// isClosed reports whether a channel that only is closed is.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
