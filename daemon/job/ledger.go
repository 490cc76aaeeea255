package job

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rtask/rtask/daemon/store"
)

// ledger knows every job: those in memory by the roster, and the records of all, of those that have ended within the bounds of its
// retention. It has no lock: each change is a transaction of the store's. It knows nothing of how jobs run.
type ledger struct {
	*store.Store[Job]
	jobs      *roster
	retention *retention
	opts      *Options
}

// openLedger opens the records in StateDir. What belongs to a job in memory is not pruned.
func openLedger(o *Options, jobs *roster) (*ledger, error) {
	s, err := store.Open(recordsPath(o.StateDir), store.Options[Job]{
		ID:         func(j *Job) string { return j.ID },
		Time:       func(j *Job) time.Time { return j.QueuedAt },
		Unfinished: unfinished,
		Group:      group,
		Summary:    summary,
		Hold:       hold,
		Free:       jobs.failed,
		MaxHolds:   maxHolds,
		Upgrade:    upgrade,
		Downgrade:  downgrade,
		OnError:    func(err error) { o.Logger.Error("cannot write a job's record", "error", err) },
	})
	if err != nil {
		return nil, err
	}
	return &ledger{Store: s, jobs: jobs, retention: newRetention(s, o, jobs.has), opts: o}, nil
}

// recordsPath is where the records are.
func recordsPath(stateDir string) string { return filepath.Join(stateDir, "jobs.db") }

// Unfinished reports whether the records in a Manager's StateDir have jobs that a Manager would take up. It returns an error if
// there is one that uses them.
func Unfinished(stateDir string) (bool, error) { return store.HasUnfinished(recordsPath(stateDir)) }

// unfinished is Options.Unfinished of the store.
func unfinished(j *Job) bool { return j.State != promised && (j.State != Ended || j.Owing) }

// group is Options.Group of the store. Jobs that have ended are in that of their share, by the time of their end, but for
// those that have still to start what their end triggers. Promises are by the time when they end. An alias ended with its job and
// comes just before it, so that it is pruned while the job's log is there.
func group(j *Job) (string, time.Time) {
	switch {
	case j.State == promised:
		return promisesOf + j.share(), j.Promised
	case unfinished(j):
		return "", time.Time{}
	case j.EndedAt.IsZero(): // the end was not seen
		return j.share(), j.QueuedAt
	case j.Into != "":
		return j.share(), j.EndedAt.Add(-time.Nanosecond)
	}
	return j.share(), j.EndedAt
}

// maxHolds is how many Onces of one source are known, which is all of their names up to the last slash. Of more, the ones that
// would be forgotten first go.
const maxHolds = 1_000_000

// hold is what a job's record holds, in the transaction that records the job: while it has not failed, there is no other of
// its Once.
func hold(j *Job) store.Hold {
	return store.Hold{Key: j.Once.Key, Until: j.Once.Until, At: j.Once.At, Released: j.State == Ended && !j.Succeeded()}
}

// get returns the record with an id: of a job, of an alias of one, or of a promise. It returns ErrNotFound and ErrClosed.
func (d *ledger) get(id string) (Job, error) {
	j, err := d.Get(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Job{}, fmt.Errorf("%q: %w", id, ErrNotFound)
	case errors.Is(err, store.ErrClosed):
		return Job{}, ErrClosed
	}
	return j, err
}

// record commits that the job is there, and if it has its turn, that it is about to start: whatever happens from now on, it
// is not started twice. A volatile job has its caller for a record.
func (d *ledger) record(ctx context.Context, l *live) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	committed, err := d.begin(l)
	if err == nil {
		err = committed(ctx)
	}
	if err != nil {
		return recordError(err)
	}
	return nil
}

// begin gives the record of a job as it is now its place among all others, with those of others that of makes of it. The job's lock
// is held meanwhile: what changes the job and puts it on record later, as Stop does, comes later there, too. live.writing is held.
func (d *ledger) begin(l *live, of ...func(*Job) Job) (committed func(context.Context) error, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.job.Volatile {
		return func(context.Context) error { return nil }, nil
	}
	l.written = true
	jobs := []Job{l.job}
	for _, f := range of {
		jobs = append(jobs, f(&l.job))
	}
	return d.Begin(jobs)
}

// recordError returns an error of the records as the caller of a start gets it.
func recordError(err error) error {
	var held *store.HeldError
	switch {
	case errors.As(err, &held):
		return &RepeatError{ID: held.ID}
	case errors.Is(err, store.ErrClosed):
		return ErrClosed
	default:
		return fmt.Errorf("cannot record the job: %w", err)
	}
}
