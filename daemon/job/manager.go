package job

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

// Options are what a Manager needs.
type Options struct {
	Host *sandbox.Host
	// StateDir holds the records (0700), LogDir a file for each job's output (0750).
	StateDir, LogDir string
	// UIDs are lent to jobs that name no user. Without the privilege to use them, jobs run as the engine's user.
	UIDs UIDRange
	// MaxJobs is how many jobs may run at once.
	MaxJobs int
	Logger  *slog.Logger
	// Ended is told of each job that has ended, before anybody who waits for it is. It must not block.
	Ended func(Job)
}

// Manager runs jobs. It is safe for concurrent use.
type Manager struct {
	opts    Options
	store   *store.Store[Job]
	watcher *log.Watcher
	workers sync.WaitGroup
	quit    chan struct{}

	mu     sync.Mutex // guards what follows
	live   map[string]*live
	uids   *uids
	unit   uint64 // number of the next task's scope
	closed bool
}

// live is a job that has not ended, or whose end is not recorded yet.
type live struct {
	job Job    // guarded by Manager.mu
	uid uint32 // lent, 0: none

	ready chan struct{}    // closed when the job was launched, or could not be
	proc  *sandbox.Process // readable once ready is closed; nil if it could not be

	result Result        // readable once done is closed
	done   chan struct{} // closed when the job has ended
}

// Result is a job that has ended, and the beginning of what it wrote.
type Result struct {
	Job
	// Stdout and Stderr are at most Spec.MaxReply bytes each, and empty for a job of which the reply is gone: one that
	// ended before this call, or under another engine.
	Stdout, Stderr []byte
	// Truncated: there was more.
	Truncated bool
}

// Open opens the records and finds the jobs again that an earlier Manager started.
func Open(ctx context.Context, o Options) (*Manager, error) {
	for dir, mode := range map[string]fs.FileMode{o.StateDir: 0o700, filepath.Join(o.StateDir, "exits"): 0o700, o.LogDir: 0o750} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("cannot make a folder: %w", err)
		}
	}
	w, err := log.NewWatcher()
	if err != nil {
		return nil, err
	}
	s, err := store.Open(filepath.Join(o.StateDir, "jobs.db"), store.Options[Job]{
		ID:         func(j *Job) string { return j.ID },
		Time:       func(j *Job) time.Time { return j.QueuedAt },
		Unfinished: func(j *Job) bool { return j.State != Ended },
		OnError:    func(err error) { o.Logger.Error("cannot write a job's record", "error", err) },
	})
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	m := &Manager{
		opts: o, store: s, watcher: w, quit: make(chan struct{}),
		live: map[string]*live{}, uids: newUIDs(o.UIDs), unit: 1,
	}
	if err := m.recover(); err != nil {
		return nil, errors.Join(err, s.Close(), w.Close())
	}
	return m, nil
}

// recover takes up the jobs that have not ended as far as the records know.
func (m *Manager) recover() error {
	seen := 0
	for j, err := range m.store.Newest() {
		if err != nil {
			m.opts.Logger.Error("cannot read a job's record", "error", err)
			continue
		}
		m.unit = max(m.unit, sandbox.UnitNumber(j.Unit)+1)
		if seen++; seen == 1000 {
			break
		}
	}
	left, err := m.store.Unfinished()
	if err != nil {
		return fmt.Errorf("cannot read the records: %w", err)
	}
	for _, j := range left {
		p, err := m.opts.Host.Find(sandbox.Left{Job: j.Run, Unit: j.Unit, Started: j.StartedAt})
		if err != nil {
			return fmt.Errorf("cannot look for job %s: %w", j.ID, err)
		}
		l := &live{job: j, proc: p, ready: closed(), done: make(chan struct{})}
		if c := j.Run.Credentials; c != nil && c.UID >= m.opts.UIDs.First && c.UID <= m.opts.UIDs.Last {
			l.uid = c.UID
			m.uids.mark(c.UID)
		}
		if p.PID != 0 {
			l.job.ProcessID, l.job.ControlGroup, l.job.StartedAt = p.PID, p.ControlGroup, p.Started
		}
		m.live[j.ID] = l
		m.workers.Go(func() { m.follow(l) })
	}
	if len(left) > 0 {
		m.opts.Logger.Info("jobs of an earlier run taken up", "jobs", len(left))
	}
	return nil
}

// Close lets go of the jobs, which run on, and closes the records.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	close(m.quit)
	m.workers.Wait()
	return errors.Join(m.watcher.Close(), m.store.Close())
}

// logPath is where a job's output is.
func (m *Manager) logPath(id string) string { return filepath.Join(m.opts.LogDir, id+".log") }

func (m *Manager) recordPath(id string) string { return filepath.Join(m.opts.StateDir, "exits", id) }

// Find returns the job that ref names: an id, an unambiguous prefix of one, or, digits only, the PID of its main process.
// It returns ErrNotFound or ErrAmbiguous.
func (m *Manager) Find(ref string) (Job, error) {
	if ref == "" {
		return Job{}, fmt.Errorf("cannot find a job without a name: %w", ErrNotFound)
	}
	if pid, err := strconv.Atoi(ref); err == nil {
		return m.byPID(pid)
	}
	m.mu.Lock()
	l, ok := m.live[ref]
	if ok {
		defer m.mu.Unlock()
		return l.job, nil
	}
	m.mu.Unlock()
	found, err := m.store.Match(ref, 2)
	if err != nil {
		return Job{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, l := range m.live {
		if strings.HasPrefix(id, ref) && !slices.ContainsFunc(found, func(j Job) bool { return j.ID == id }) {
			found = append(found, l.job)
		}
	}
	switch len(found) {
	case 0:
		return Job{}, fmt.Errorf("%q: %w", ref, ErrNotFound)
	case 1:
		if l, ok := m.live[found[0].ID]; ok {
			return l.job, nil
		}
		return found[0], nil
	default:
		return Job{}, fmt.Errorf("%q: %w", ref, ErrAmbiguous)
	}
}

func (m *Manager) byPID(pid int) (Job, error) {
	m.mu.Lock()
	for _, l := range m.live {
		if l.job.ProcessID == pid {
			defer m.mu.Unlock()
			return l.job, nil
		}
	}
	m.mu.Unlock()
	return Job{}, fmt.Errorf("no job with the main process %d is running: %w", pid, ErrNotFound)
}

// Status returns a job as it is now; see Find for ref.
func (m *Manager) Status(ref string) (Job, error) { return m.Find(ref) }

// Filter says which jobs List returns.
type Filter struct {
	// Ended includes jobs that have ended.
	Ended bool
	// Task, if set, is the only task whose jobs are returned.
	Task string
	// Limit is how many are returned at most; 0: 1000.
	Limit int
	// Visible, if set, leaves out jobs that it says no to.
	Visible func(Job) bool
}

// List returns jobs, newest first.
func (m *Manager) List(f Filter) ([]Job, error) {
	if f.Limit <= 0 {
		f.Limit = 1000
	}
	fits := func(j Job) bool {
		return (f.Task == "" || j.Task == f.Task) && (f.Visible == nil || f.Visible(j)) && (f.Ended || j.State != Ended)
	}
	jobs := m.running(fits)
	if !f.Ended {
		return jobs[:min(len(jobs), f.Limit)], nil
	}
	for j, err := range m.store.Newest() {
		if err != nil {
			return nil, err
		}
		if fits(j) && !slices.ContainsFunc(jobs, func(k Job) bool { return k.ID == j.ID }) {
			jobs = append(jobs, j)
		}
		if len(jobs) >= f.Limit {
			break
		}
	}
	newestFirst(jobs)
	return jobs[:min(len(jobs), f.Limit)], nil
}

func (m *Manager) running(fits func(Job) bool) []Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []Job
	for _, l := range m.live {
		if fits(l.job) {
			jobs = append(jobs, l.job)
		}
	}
	newestFirst(jobs)
	return jobs
}

func newestFirst(jobs []Job) {
	slices.SortFunc(jobs, func(a, b Job) int { return b.QueuedAt.Compare(a.QueuedAt) })
}

// Running returns how many jobs have not ended.
func (m *Manager) Running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.live)
}

// Wait returns when the job of this id has ended, with its result.
func (m *Manager) Wait(ctx context.Context, id string) (Result, error) {
	m.mu.Lock()
	l, ok := m.live[id]
	m.mu.Unlock()
	if !ok {
		j, err := m.store.Get(id)
		if errors.Is(err, store.ErrNotFound) {
			return Result{}, fmt.Errorf("%q: %w", id, ErrNotFound)
		}
		return Result{Job: j}, err
	}
	select {
	case <-l.done:
		return l.result, nil
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	case <-m.quit:
		return Result{}, ErrClosed
	}
}

// StopOptions say how to stop a job.
type StopOptions struct {
	// By is who wanted it, for the job's record.
	By string
	// Kill is SIGKILL at once.
	Kill bool
}

// Stop ends a job and returns when nothing of it is left. A job that has ended stays as it is.
func (m *Manager) Stop(ctx context.Context, id string, o StopOptions) (Job, error) {
	m.mu.Lock()
	l, ok := m.live[id]
	if ok && l.job.State == Running {
		l.job.State = Stopping
	}
	m.mu.Unlock()
	if ok {
		select {
		case <-l.ready:
		case <-ctx.Done():
			return Job{}, context.Cause(ctx)
		}
		if l.proc != nil {
			if err := l.proc.Stop(o.By, o.Kill); err != nil {
				m.opts.Logger.Warn("job's supervisor could not be told to stop it", "job", id, "error", err)
			}
		}
	}
	r, err := m.Wait(ctx, id)
	return r.Job, err
}

// LogOptions say which part of a job's output to stream.
type LogOptions struct {
	// Follow goes on until the job has ended.
	Follow bool
	// Offset is where in the log to begin: 0, or the Offset of an earlier entry.
	Offset int64
}

// StreamLogs calls yield with the output of a job, piece by piece in order. Without Follow it ends at what there is now;
// with it, when the job has ended and all of its output was passed on. The entry's data is good until yield returns.
func (m *Manager) StreamLogs(ctx context.Context, id string, o LogOptions, yield func(log.Entry) error) error {
	f, err := os.Open(m.logPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the output of job %s is not kept any more: %w", id, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("cannot read the output of job %s: %w", id, err)
	}
	defer f.Close()
	done := closed()
	if o.Follow {
		m.mu.Lock()
		if l, ok := m.live[id]; ok {
			done = l.done
		}
		m.mu.Unlock()
	}
	return m.watcher.Follow(ctx, f, o.Offset, done, yield)
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// follow waits for a job to end, and records that.
func (m *Manager) follow(l *live) {
	select {
	case <-l.proc.Done():
	case <-m.quit:
		l.proc.Leave()
		return
	}
	exit := l.proc.Exit()
	m.end(l, exit)
	l.proc.Release()
}

// end makes the end of a job known: to its owner's limits first, then to the records, then to those who wait.
func (m *Manager) end(l *live, exit spec.Exit) {
	l.result = Result{Stdout: exit.Stdout, Stderr: exit.Stderr, Truncated: exit.Truncated}
	exit.Stdout, exit.Stderr = nil, nil
	m.mu.Lock()
	l.job.State, l.job.Exit, l.job.EndedAt = Ended, &exit, exit.Ended
	l.result.Job = l.job
	delete(m.live, l.job.ID)
	if l.uid != 0 {
		m.uids.giveBack(l.uid)
	}
	// Queued for the store while the lock is held, so that a job is always in one of the two places.
	m.store.PutSoon(l.job)
	m.mu.Unlock()
	if m.opts.Ended != nil {
		m.opts.Ended(l.result.Job)
	}
	close(l.done)
	// The shim is let go, and its record removed, only after the engine's record is on disk.
	if err := m.store.Put(context.Background(), l.result.Job); err != nil {
		m.opts.Logger.Error("cannot record the end of a job", "job", l.job.ID, "error", err)
		return
	}
	if err := os.Remove(l.job.Run.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.opts.Logger.Warn("cannot remove an exit record", "job", l.job.ID, "error", err)
	}
}
