package job

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/store"
)

const (
	// sweepPause is the least time between two looks at what is kept, however many jobs end.
	sweepPause = 2 * time.Second
	// sweepLatest is the longest.
	sweepLatest = time.Hour
	// sweepBatch is how many jobs are removed in one transaction.
	sweepBatch = 256
	// youngest is how long a job is known after its end whatever their number and size: whoever started it may still ask.
	youngest = 10 * time.Second
	// measureAgain is the least time between two looks at all logs.
	measureAgain = time.Minute
	// orphanAge is how long what belongs to no record must not have been written to before it is removed.
	orphanAge = time.Hour
)

// Retention bounds what is kept of jobs that have ended: their records and their logs go together, those that ended first
// before others, when one of the bounds is exceeded. 0 is no bound.
type Retention struct {
	// KeepFor is how long a job is known after its end.
	KeepFor time.Duration
	// KeepBytes is how much space on disk their logs take up, in bytes.
	KeepBytes int64
	// KeepJobs is how many there are.
	KeepJobs int
}

// retention keeps what jobs leave within bounds. A job that has not ended is never touched, and a log that somebody reads
// is there for that reader until it is closed.
//
// The record goes first, in a transaction, then the log. What an engine that is killed in between leaves is a log without a
// record, which the next one removes.
type retention struct {
	store  *store.Store[Job]
	logs   string // folder of the logs
	exits  string // folder of the shims' records
	live   func(id string) bool
	logger *slog.Logger
	wake   chan struct{} // has a value when there is something to look at

	mu     sync.Mutex // guards what follows
	bounds Retention
	ended  []string // jobs whose logs are not counted yet

	// What follows is run's own.
	bytes    int64     // space of the logs of all jobs that have ended
	measured time.Time // when that was last counted anew
}

// SetRetention sets Options.Retention anew.
func (m *Manager) SetRetention(r Retention) { m.retention.set(r) }

// isLive reports whether a job runs, or is not on record yet.
func (m *Manager) isLive(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.live[id]
	return ok
}

func newRetention(s *store.Store[Job], o Options, live func(string) bool) *retention {
	return &retention{
		store: s, logs: o.LogDir, exits: filepath.Join(o.StateDir, "exits"), live: live, logger: o.Logger, bounds: o.Retention,
		wake: make(chan struct{}, 1),
	}
}

func (r *retention) set(bounds Retention) {
	r.mu.Lock()
	r.bounds = bounds
	r.mu.Unlock()
	r.notify()
}

// add takes note of a job that has ended.
func (r *retention) add(id string) {
	r.mu.Lock()
	r.ended = append(r.ended, id)
	r.mu.Unlock()
	r.notify()
}

func (r *retention) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take returns the bounds and the jobs that have ended since it was last called.
func (r *retention) take() (Retention, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := r.ended
	r.ended = nil
	return r.bounds, ended
}

// run sweeps whenever jobs have ended, and when the time of the oldest one has come, until quit is closed.
func (r *retention) run(quit <-chan struct{}) {
	if err := r.sweepExits(); err != nil {
		r.logger.Error("cannot remove what earlier jobs left", "error", err)
	}
	for {
		next, err := r.sweep(quit)
		switch {
		case errors.Is(err, store.ErrClosed):
			return
		case err != nil:
			r.logger.Error("cannot remove old jobs", "error", err)
		}
		for _, c := range []struct {
			wait time.Duration
			wake <-chan struct{}
		}{{sweepPause, nil}, {next - sweepPause, r.wake}} {
			t := time.NewTimer(c.wait)
			select {
			case <-quit:
				t.Stop()
				return
			case <-c.wake:
				t.Stop()
			case <-t.C:
			}
		}
	}
}

// sweep removes what exceeds the bounds, and returns how long it can wait to be called again if no job ends meanwhile.
func (r *retention) sweep(quit <-chan struct{}) (time.Duration, error) {
	bounds, ended := r.take()
	if r.measured.IsZero() {
		if err := r.measure(); err != nil {
			return sweepLatest, err
		}
	} else {
		for _, id := range ended {
			r.bytes += allocated(r.logPath(id))
		}
	}
	removed := 0
	for {
		select {
		case <-quit:
			return 0, nil
		default:
		}
		if bounds.KeepBytes > 0 && r.bytes > bounds.KeepBytes && time.Since(r.measured) >= measureAgain {
			// Somebody else may have removed logs. Nothing is to go for space that is there.
			if err := r.measure(); err != nil {
				return sweepLatest, err
			}
		}
		batch, next, err := r.batch(bounds)
		if err != nil || len(batch) == 0 {
			if removed > 0 {
				r.logger.Debug("old jobs removed", "jobs", removed)
			}
			return next, err
		}
		if err := r.remove(batch); err != nil {
			return sweepLatest, err
		}
		removed += len(batch)
	}
}

// batch returns the jobs to remove next. Without any, it returns how long that may stay so.
func (r *retention) batch(bounds Retention) ([]string, time.Duration, error) {
	count, err := r.store.CountFinished()
	if err != nil {
		return nil, sweepLatest, err
	}
	oldest, err := r.store.Oldest(sweepBatch)
	if err != nil {
		return nil, sweepLatest, err
	}
	now, bytes := time.Now(), r.bytes
	var batch []string
	for _, f := range oldest {
		age := now.Sub(f.Time)
		expired := bounds.KeepFor > 0 && age >= bounds.KeepFor
		tooMany := bounds.KeepJobs > 0 && count > bounds.KeepJobs || bounds.KeepBytes > 0 && bytes > bounds.KeepBytes
		if !expired && !(tooMany && age >= youngest) {
			// Those behind it are younger.
			next := sweepLatest
			if bounds.KeepFor > 0 {
				next = min(next, bounds.KeepFor-age)
			}
			if tooMany {
				next = min(next, youngest-age)
			}
			return batch, max(next, 0), nil
		}
		if r.live(f.ID) {
			continue // its end could not be recorded yet
		}
		batch = append(batch, f.ID)
		count--
		bytes -= allocated(r.logPath(f.ID))
	}
	return batch, sweepLatest, nil
}

// remove removes jobs: their records first.
func (r *retention) remove(ids []string) error {
	if err := r.store.Delete(ids...); err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		size := allocated(r.logPath(id))
		if err := os.Remove(r.logPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("cannot remove an old log: %w", err))
			continue
		}
		r.bytes -= size
	}
	return errors.Join(errs...)
}

// measure counts the space of the logs of all jobs that have ended, and removes logs without a record that are older than
// all records: those of jobs whose removal was interrupted.
func (r *retention) measure() error {
	r.take() // what has ended by now is found below
	entries, err := os.ReadDir(r.logs)
	if err != nil {
		return fmt.Errorf("cannot look at the logs: %w", err)
	}
	old, err := r.before()
	if err != nil {
		return err
	}
	var bytes int64
	begin, recent := time.Now(), map[string]bool{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".log")
		if !ok || !validID(id) || r.live(id) {
			continue
		}
		known, ended, err := r.store.FinishedAt(id)
		if err != nil {
			return err
		}
		switch {
		case !known:
			if err := removeOld(r.logPath(id), old); err != nil {
				r.logger.Error("cannot remove what an earlier job left", "error", err)
			}
		case !ended.IsZero():
			bytes += allocated(r.logPath(id))
			if begin.Sub(ended) < measureAgain {
				recent[id] = true
			}
		}
	}
	_, late := r.take()
	for _, id := range late {
		if !recent[id] {
			bytes += allocated(r.logPath(id))
		}
	}
	r.bytes, r.measured = bytes, begin
	return nil
}

// before returns the time from which on everything may still belong to somebody.
func (r *retention) before() (time.Time, error) {
	oldest, err := r.store.Oldest(1)
	t := time.Now().Add(-orphanAge)
	if len(oldest) > 0 && oldest[0].Time.Before(t) {
		t = oldest[0].Time
	}
	return t, err
}

// sweepExits removes the records of shims that no job is known of any more, and those that were never finished.
func (r *retention) sweepExits() error {
	entries, err := os.ReadDir(r.exits)
	if err != nil {
		return fmt.Errorf("cannot look at the exit records: %w", err)
	}
	old, err := r.before()
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		switch name := e.Name(); {
		case validID(name):
			if r.live(name) {
				continue
			}
			if known, _, err := r.store.FinishedAt(name); known || err != nil {
				errs = append(errs, err)
				continue
			}
		case !strings.HasPrefix(name, ".exit-"):
			continue
		}
		errs = append(errs, removeOld(filepath.Join(r.exits, e.Name()), old))
	}
	return errors.Join(errs...)
}

func (r *retention) logPath(id string) string { return filepath.Join(r.logs, id+".log") }

// removeOld removes a file that was last written to before t.
func removeOld(path string, t time.Time) error {
	info, err := os.Lstat(path)
	if err == nil && info.ModTime().Before(t) {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// allocated returns the space that a file takes up, in bytes; 0 if it is not there.
func allocated(path string) int64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512 // stat(2)
}

// finishedAt is what retention counts the age of a job from, the zero time while it has not ended, or has still to start what
// its end triggers.
func finishedAt(j *Job) time.Time {
	switch {
	case j.State != Ended || j.Owing:
		return time.Time{}
	case j.EndedAt.IsZero(): // the end was not seen
		return j.QueuedAt
	}
	return j.EndedAt
}
