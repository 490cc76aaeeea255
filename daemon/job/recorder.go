package job

import (
	"sync"
	"time"
)

const (
	// recordAfter is how long the end of a job waits for others to be recorded with it. Until then its shim knows it, or the
	// shim's record.
	recordAfter = 50 * time.Millisecond
	// recordAgain is the time between two attempts to write: a full disk may have room later.
	recordAgain = 5 * time.Second
)

// recorder has the ends of jobs recorded, several at a time. Its goroutine is run; its lock is its own.
type recorder struct {
	// write records a batch, and returns whether it could. With last, it is not called again for it.
	write func(batch []*live, last bool) bool
	ended chan struct{} // has a value when there is an end to record
	hurry chan struct{} // has a value when they should be recorded immediately
	last  chan struct{} // closed when nothing ends any more
	done  chan struct{} // closed when run has returned

	mu    sync.Mutex
	batch []*live // ends that are not on record yet
}

func newRecorder(write func(batch []*live, last bool) bool) *recorder {
	return &recorder{
		write: write, ended: make(chan struct{}, 1), hurry: make(chan struct{}, 1), last: make(chan struct{}), done: make(chan struct{}),
	}
}

// add takes note of a job that has ended.
func (r *recorder) add(l *live) {
	r.mu.Lock()
	r.batch = append(r.batch, l)
	r.mu.Unlock()
	wake(r.ended)
}

// now has the ends recorded that wait for company.
func (r *recorder) now() { wake(r.hurry) }

// close records what there is, and returns when that is done or cannot be. Nothing ends any more.
func (r *recorder) close() {
	close(r.last)
	<-r.done
}

// run records how jobs ended, several in one commit, until close.
func (r *recorder) run() {
	defer close(r.done)
	for {
		select {
		case <-r.ended:
		case <-r.last:
			r.record(true)
			return
		}
		for pause := recordAfter; pause > 0; {
			t := time.NewTimer(pause)
			select {
			case <-r.hurry:
			case <-t.C:
			case <-r.last:
			}
			t.Stop()
			pause = 0
			if !r.record(false) && !isClosed(r.last) { // at the end, record is called once more, above
				pause = recordAgain
			}
		}
	}
}

// record writes what there is. What cannot be written stays.
func (r *recorder) record(last bool) bool {
	r.mu.Lock()
	batch := r.batch
	r.batch = nil
	r.mu.Unlock()
	if len(batch) == 0 || r.write(batch, last) {
		return true
	}
	r.mu.Lock()
	r.batch = append(batch, r.batch...)
	r.mu.Unlock()
	return false
}
