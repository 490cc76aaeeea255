package job

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// sweepPause is the least time between two looks at what is kept, however many jobs end.
	sweepPause = 2 * time.Second
	// sweepLatest is the longest.
	sweepLatest = time.Hour
	// sweepBatch is how many jobs are removed in one transaction.
	sweepBatch = 256
	// youngest is how long a job is kept after its end, whatever keep_jobs and keep_bytes are: its caller may still ask for it.
	youngest = 10 * time.Second
	// measureAgain is the least time between two looks at all logs.
	measureAgain = time.Minute
	// orphanAge is how long a file without a record must not have been written to before it is removed.
	orphanAge = time.Hour
)

// retention removes the records and logs of old jobs. It never touches a job that has not ended, and a log stays for a reader that has
// it open. Owners share KeepJobs and KeepBytes fairly: an owner with less than its share loses nothing, and the others lose the jobs
// that ended first.
//
// It removes the record first, in a transaction, then the log. If the engine is killed in between, the next one removes the log, which
// has no record.
type retention struct {
	store  *store.Store[Job]
	logs   string // folder of the logs
	exits  string // folder of the shims' records
	live   func(id string) bool
	logger *slog.Logger
	wake   chan struct{} // has a value when there is something to look at

	mu     sync.Mutex // guards what follows
	bounds spec.Retention
	ended  []endedJob // whose logs are not counted yet
	// promised is how many promises each share has, as of the last sweep.
	promised map[string]int
	// maxPromises is how many each may have.
	maxPromises int

	// What follows is run's own.
	bytes    map[string]int64 // space of the logs of jobs that have ended, by share
	measured time.Time        // when that was last counted anew
}

// endedJob is a job that has ended, and the share that it counts towards.
type endedJob struct{ id, share string }

func newRetention(s *store.Store[Job], o *Options, live func(string) bool) *retention {
	return &retention{
		store: s, logs: o.LogDir, exits: o.exitsDir(), live: live, logger: o.Logger, bounds: o.Retention,
		wake: make(chan struct{}, 1), bytes: map[string]int64{}, promised: map[string]int{}, maxPromises: maxPromises,
	}
}

func (r *retention) set(bounds spec.Retention) {
	r.mu.Lock()
	r.bounds = bounds
	r.mu.Unlock()
	wake(r.wake)
}

// add takes note of a job that has ended.
func (r *retention) add(id, share string) {
	r.mu.Lock()
	r.ended = append(r.ended, endedJob{id, share})
	r.mu.Unlock()
	wake(r.wake)
}

// take returns the bounds and the jobs that have ended since it was last called.
func (r *retention) take() (spec.Retention, []endedJob) {
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

// sweep removes what exceeds the bounds. It returns after how long to call it again if no job ends before.
func (r *retention) sweep(quit <-chan struct{}) (time.Duration, error) {
	bounds, ended := r.take()
	if r.measured.IsZero() {
		if err := r.measure(); err != nil {
			return sweepLatest, err
		}
	} else {
		for _, e := range ended {
			r.bytes[e.share] += allocated(r.logPath(e.id))
		}
	}
	removed := 0
	for {
		select {
		case <-quit:
			return 0, nil
		default:
		}
		if bounds.KeepBytes > 0 && r.allBytes() > bounds.KeepBytes && time.Since(r.measured) >= measureAgain {
			// An operator may have removed logs. No job should be pruned for space that is free.
			if err := r.measure(); err != nil {
				return sweepLatest, err
			}
		}
		due, next, err := r.due(bounds)
		if err != nil || len(due) == 0 {
			if removed > 0 {
				r.logger.Debug("old jobs removed", "jobs", removed)
			}
			return next, err
		}
		if err := r.remove(due); err != nil {
			return sweepLatest, err
		}
		removed += len(due)
	}
}

// mayPromise reports whether a share may have one more promise.
func (r *retention) mayPromise(share string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.promised[share] < r.maxPromises
}

// allBytes is the space of the logs of all jobs that have ended.
func (r *retention) allBytes() int64 {
	sum := int64(0)
	for _, n := range r.bytes {
		sum += n
	}
	return sum
}

// due returns the jobs and promises to remove next, at most sweepBatch of each owner. If there are none, it returns when to ask again.
func (r *retention) due(bounds spec.Retention) ([]endedJob, time.Duration, error) {
	groups, err := r.store.Groups()
	if err != nil {
		return nil, sweepLatest, err
	}
	jobs, promised := map[string]int64{}, map[string]int{}
	for name, n := range groups {
		if share, ok := strings.CutPrefix(name, promisesOf); ok {
			promised[share] = n
		} else {
			jobs[name] = int64(n)
		}
	}
	r.mu.Lock()
	r.promised = promised
	r.mu.Unlock()
	most, mostBytes := fair(jobs, bounds.KeepJobs), fair(r.bytes, bounds.KeepBytes)
	now, next := time.Now(), sweepLatest
	var due []endedJob
	for name := range groups {
		oldest, err := r.store.Oldest(name, sweepBatch)
		if err != nil {
			return nil, sweepLatest, err
		}
		if isPromises(name) {
			for _, m := range oldest {
				if !m.Time.After(now) {
					due = append(due, endedJob{m.ID, name})
				}
			}
			continue
		}
		n, bytes := jobs[name], r.bytes[name]
		for _, m := range oldest {
			age := now.Sub(m.Time)
			expired := bounds.KeepFor > 0 && age >= bounds.KeepFor
			tooMany := n > most || bytes > mostBytes
			if !expired && !(tooMany && age >= youngest) {
				// Those behind it are younger.
				if bounds.KeepFor > 0 {
					next = min(next, bounds.KeepFor-age)
				}
				if tooMany {
					next = min(next, youngest-age)
				}
				break
			}
			if r.live(m.ID) {
				continue // its end could not be recorded yet
			}
			due = append(due, endedJob{m.ID, name})
			n--
			bytes -= allocated(r.logPath(m.ID))
		}
	}
	return due, max(next, 0), nil
}

// fair returns how much each owner may keep so that all of them stay within bound. An owner that has less loses nothing, and every
// owner may keep something. A bound of 0 means no bound.
func fair[N int | int64](has map[string]int64, bound N) int64 {
	if bound <= 0 {
		return math.MaxInt64
	}
	left := int64(bound)
	for i, n := range slices.Sorted(maps.Values(has)) {
		share := left / int64(len(has)-i)
		if n > share {
			return max(share, 1)
		}
		left -= n
	}
	return math.MaxInt64
}

// remove removes jobs. Records that are still promised become promises.
func (r *retention) remove(due []endedJob) error {
	var ids []string
	var promises []Job
	now := time.Now()
	for _, e := range due {
		p, err := promiseOf(r.store, r.logPath, e.id, now)
		switch {
		case err != nil:
			return err
		case p != nil && !isPromises(e.share):
			promises = append(promises, *p)
		default:
			ids = append(ids, e.id)
		}
	}
	if err := r.store.PutAll(context.Background(), promises); err != nil {
		return err
	}
	if err := r.store.Delete(ids...); err != nil {
		return err
	}
	var errs []error
	for _, e := range due {
		if isPromises(e.share) {
			continue
		}
		size := allocated(r.logPath(e.id))
		if err := os.Remove(r.logPath(e.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("cannot remove an old log: %w", err))
			continue
		}
		if r.bytes[e.share] -= size; r.bytes[e.share] <= 0 {
			delete(r.bytes, e.share)
		}
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
	bytes, begin, recent := map[string]int64{}, time.Now(), map[string]bool{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".log")
		if !ok || !validID(id) || r.live(id) {
			continue
		}
		known, share, ended, err := r.store.GroupOf(id)
		if err != nil {
			return err
		}
		switch {
		case !known, isPromises(share):
			if err := removeOld(r.logPath(id), old); err != nil {
				r.logger.Error("cannot remove what an earlier job left", "error", err)
			}
		case share != "":
			bytes[share] += allocated(r.logPath(id))
			if begin.Sub(ended) < measureAgain {
				recent[id] = true
			}
		}
	}
	_, late := r.take()
	for _, e := range late {
		if !recent[e.id] {
			bytes[e.share] += allocated(r.logPath(e.id))
		}
	}
	r.bytes, r.measured = bytes, begin
	return nil
}

// before returns the time before which a file without a record can be removed.
func (r *retention) before() (time.Time, error) {
	t := time.Now().Add(-orphanAge)
	groups, err := r.store.Groups()
	if err != nil {
		return t, err
	}
	for name := range groups {
		if isPromises(name) {
			continue
		}
		oldest, err := r.store.Oldest(name, 1)
		if err != nil {
			return t, err
		}
		if len(oldest) > 0 && oldest[0].Time.Before(t) {
			t = oldest[0].Time
		}
	}
	return t, nil
}

// sweepExits removes the exit records of unknown jobs, and those that were never finished.
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
			if known, _, _, err := r.store.GroupOf(name); known || err != nil {
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
