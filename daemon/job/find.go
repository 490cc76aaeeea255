package job

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rtask/rtask/daemon/store"
)

// Status returns a job as it is now: the one that ref names, by its id, an unambiguous prefix of that of minPrefix characters or more, or, digits only, the
// PID of its main process while it runs. It returns ErrNotFound, ErrAmbiguous or ErrShort.
func (m *Manager) Status(ref string) (Job, error) { return m.Find(ref, nil) }

// minPrefix is how many characters of an id name a job at least.
const minPrefix = 4

// Find is Status among the jobs that visible says yes to; nil: all. The others are not there, for an ambiguity either.
func (m *Manager) Find(ref string, visible func(Job) bool) (Job, error) {
	seen := func(j Job) bool { return j.State != promised && (visible == nil || visible(j)) }
	var found []Job
	var err error
	if pid, atoiErr := strconv.Atoi(ref); atoiErr == nil {
		// 0 is no process, but what a job has that is just being started.
		found = m.running(func(j Job) bool { return pid > 0 && j.PID == pid && j.State != Ended && seen(j) })
	} else if ref != "" && len(ref) < minPrefix {
		return Job{}, fmt.Errorf("%q: %w", ref, ErrShort)
	} else if ref != "" {
		found, err = m.byPrefix(ref, seen)
	}
	switch {
	case errors.Is(err, store.ErrClosed):
		return Job{}, ErrClosed
	case err != nil:
		return Job{}, err
	case len(found) == 0:
		return Job{}, fmt.Errorf("%q: %w", ref, ErrNotFound)
	case len(found) > 1:
		return Job{}, fmt.Errorf("%q: %w", ref, ErrAmbiguous)
	}
	if found[0].Into != "" {
		return m.target(found[0])
	}
	return found[0], nil
}

// byPrefix returns the jobs whose ids begin with ref.
func (m *Manager) byPrefix(ref string, seen func(Job) bool) ([]Job, error) {
	if len(ref) >= idLength {
		return m.byID(ref, seen)
	}
	// Those that run come first: one that ends meanwhile is in the records then, and found twice, but not missed. An alias is in
	// the records before its id is known to anybody.
	found := m.running(func(j Job) bool { return strings.HasPrefix(j.ID, ref) && seen(j) })
	recorded, err := m.records.Match(ref, 0)
	for _, j := range recorded {
		if seen(j) && !slices.ContainsFunc(found, func(k Job) bool { return k.ID == j.ID }) {
			found = append(found, j)
		}
	}
	var damaged *store.DecodeError
	if errors.As(err, &damaged) && len(found) > 0 {
		err = nil // what was asked for is another one
	}
	return found, err
}

// byID returns the job, or the alias of one, that has exactly this id. Clients on the network ask so: it looks at no other job.
func (m *Manager) byID(id string, seen func(Job) bool) ([]Job, error) {
	l, j, _ := m.remembered(id)
	if l == nil {
		var err error
		if j, err = m.records.get(id); errors.Is(err, ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	if !seen(j) {
		return nil, nil
	}
	return []Job{j}, nil
}

// running returns the jobs in memory that fit, newest first.
func (m *Manager) running(fits func(Job) bool) []Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []Job
	for _, l := range m.live {
		if j := l.snapshot(); fits(j) {
			jobs = append(jobs, j)
		}
	}
	newestFirst(jobs)
	return jobs
}

// newestFirst sorts; of two jobs of one moment the order is always the same.
func newestFirst(jobs []Job) {
	slices.SortFunc(jobs, func(a, b Job) int {
		return cmp.Or(b.QueuedAt.Compare(a.QueuedAt), strings.Compare(b.ID, a.ID))
	})
}
