package job

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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
	// MaxJobs is how many jobs may run at once. Jobs of an earlier run are taken up whatever their number.
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

	mu      sync.Mutex // guards what follows
	live    map[string]*live
	maxJobs int
	uids    *uids
	unit    uint64 // number of the next task's scope
	closed  bool
	// draining is nil while jobs are accepted; Accept closes it.
	draining chan struct{}
	// owing are jobs that have ended and have yet to start what they trigger; closed when they have.
	owing map[string]chan struct{}

	triggers chan struct{}                   // closed by StartTriggered
	taskSpec func(task string) (Spec, error) // readable once triggers is closed
}

// live is a job that has not ended, or whose end is not recorded yet.
type live struct {
	job Job    // guarded by Manager.mu
	uid uint32 // lent, 0: none

	ready chan struct{}    // closed when the job was launched, or could not be
	proc  *sandbox.Process // readable once ready is closed; nil if it could not be

	result Result        // readable once done is closed
	err    error         // likewise; set when there never was a job
	done   chan struct{} // closed when the job has ended
	gone   chan struct{} // closed when its shim has ended too, or was let go
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
	// The state's folders come first: that of the logs may lie in them, and would make them with its own mode.
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{{o.StateDir, 0o700}, {filepath.Join(o.StateDir, "exits"), 0o700}, {o.LogDir, 0o750}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
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
		Unfinished: func(j *Job) bool { return j.State != Ended || j.Owing },
		OnError:    func(err error) { o.Logger.Error("cannot write a job's record", "error", err) },
	})
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	m := &Manager{
		opts: o, store: s, watcher: w, quit: make(chan struct{}),
		live: map[string]*live{}, maxJobs: o.MaxJobs, uids: newUIDs(o.UIDs), unit: 1,
		owing: map[string]chan struct{}{}, triggers: make(chan struct{}),
	}
	if err := m.recover(); err != nil {
		return nil, errors.Join(err, s.Close(), w.Close())
	}
	return m, nil
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

// SetLimits sets Options.MaxJobs and Options.UIDs anew. They hold for jobs to come.
func (m *Manager) SetLimits(maxJobs int, r UIDRange) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.maxJobs = maxJobs
	m.uids.setRange(r)
}

// logPath is where a job's output is.
func (m *Manager) logPath(id string) string { return filepath.Join(m.opts.LogDir, id+".log") }

// recordPath is where a job's shim writes how it ended.
func (m *Manager) recordPath(id string) string { return filepath.Join(m.opts.StateDir, "exits", id) }

// Running returns how many jobs have not ended.
func (m *Manager) Running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.active()
}

// active is Running for those who hold Manager.mu. A job that has ended and cannot be recorded is in live, too.
func (m *Manager) active() int {
	n := 0
	for _, l := range m.live {
		if l.job.State != Ended {
			n++
		}
	}
	return n
}

// Wait returns when the job of this id has ended, with its result. It returns ErrNotFound, ErrClosed when Close comes
// first, and the cause of ctx's end.
func (m *Manager) Wait(ctx context.Context, id string) (Result, error) {
	m.mu.Lock()
	l, ok := m.live[id]
	m.mu.Unlock()
	if ok {
		return m.wait(ctx, l)
	}
	j, err := m.store.Get(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Result{}, fmt.Errorf("%q: %w", id, ErrNotFound)
	case errors.Is(err, store.ErrClosed):
		return Result{}, ErrClosed
	}
	return Result{Job: j}, err
}

func (m *Manager) wait(ctx context.Context, l *live) (Result, error) {
	select {
	case <-l.done:
		return l.result, l.err
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

// goneTime bounds how long Stop waits for the supervisor of a job that has ended.
const goneTime = 5 * time.Second

// Stop ends the job of this id and returns when nothing of it is left. A job that has ended stays as it is; one that is
// just being started is stopped once it runs. Errors are those of Wait.
func (m *Manager) Stop(ctx context.Context, id string, o StopOptions) (Job, error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return Job{}, ErrClosed
	}
	l, ok := m.live[id]
	if ok && l.job.State == Running {
		l.job.State = Stopping
		m.store.PutSoon(l.job)
	}
	m.mu.Unlock()
	if !ok {
		r, err := m.Wait(ctx, id)
		return r.Job, err
	}
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
	r, err := m.wait(ctx, l)
	if err != nil {
		return r.Job, err
	}
	// Whoever looks then finds no process at all, not even the shim.
	t := time.NewTimer(goneTime)
	defer t.Stop()
	select {
	case <-l.gone:
	case <-t.C:
	case <-ctx.Done():
	case <-m.quit:
	}
	return r.Job, nil
}

// LogOptions say which part of a job's output to stream.
type LogOptions struct {
	// Follow goes on until the job has ended.
	Follow bool
	// Offset is where in the log to begin: 0, or the Offset of an earlier entry.
	Offset int64
}

// StreamLogs calls yield with the output of the job of this id, piece by piece in order. Without Follow it ends at what
// there is now; with it, when the job has ended and all of its output was passed on. The entry's data is good until yield
// returns. It returns what yield returns, ctx's error, ErrNotFound where there is no such output, and ErrClosed.
func (m *Manager) StreamLogs(ctx context.Context, id string, o LogOptions, yield func(log.Entry) error) error {
	if !validID(id) {
		return fmt.Errorf("%q: %w", id, ErrNotFound) // it becomes part of a path
	}
	m.mu.Lock()
	l, ok := m.live[id]
	m.mu.Unlock()
	done := closed()
	if ok {
		select { // until it has a log
		case <-l.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if o.Follow {
			done = l.done
		}
	}
	f, err := os.Open(m.logPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no output of job %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("cannot read the output of job %s: %w", id, err)
	}
	defer f.Close()
	err = m.watcher.Follow(ctx, f, o.Offset, done, yield)
	if errors.Is(err, log.ErrClosed) {
		return ErrClosed
	}
	return err
}

// Output returns a job with the beginning of what it wrote, as its Result would have had it, read from its log.
func (m *Manager) Output(ctx context.Context, j Job) (Result, error) {
	r := Result{Job: j}
	var all uint64
	if j.Exit != nil {
		all = j.Exit.LogBytes
	}
	err := m.StreamLogs(ctx, j.ID, LogOptions{}, func(e log.Entry) error {
		to := &r.Stdout
		if e.Stream == log.Stderr {
			to = &r.Stderr
		}
		data := e.Data
		if room := j.Run.MaxReply - int64(len(*to)); int64(len(data)) > room {
			data, r.Truncated = data[:room], true
		}
		*to = append(*to, data...)
		if r.Truncated && int64(len(r.Stdout)) >= j.Run.MaxReply && (j.Run.RedirectStderr || int64(len(r.Stderr)) >= j.Run.MaxReply) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	r.Truncated = r.Truncated || all > uint64(len(r.Stdout)+len(r.Stderr))
	return r, err
}

// errEnough ends the reading of a log of which no more is wanted.
var errEnough = errors.New("enough")

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
	m.letGo(l, m.end(l, l.proc.Exit()))
}

// recordAgain is the time between two attempts to record the end of a job.
const recordAgain = 5 * time.Second

// letGo lets the shim of an ended job go, once the end is recorded. Until then it is tried again and again: a disk that is
// full has room some day. The shim does not wait for that; it writes its own record.
func (m *Manager) letGo(l *live, recorded bool) {
	defer close(l.gone)
	for !recorded {
		select {
		case <-time.After(recordAgain):
			recorded = m.persist(l)
		case <-m.quit:
			if l.proc != nil {
				l.proc.Leave()
			}
			return
		}
	}
	if l.proc != nil {
		l.proc.Release()
	}
}

// end makes the end of a job known: to its owner's limits first, then to the records, then to those who wait. It returns
// true when the end is on disk. If that fails, the job stays in memory, where it can be asked for.
func (m *Manager) end(l *live, exit spec.Exit) bool {
	l.result = Result{Stdout: exit.Stdout, Stderr: exit.Stderr, Truncated: exit.Truncated}
	exit.Stdout, exit.Stderr = nil, nil
	m.mu.Lock()
	l.job.State, l.job.Exit, l.job.EndedAt = Ended, &exit, exit.Ended
	m.owe(&l.job)
	j := l.job
	l.result.Job = j
	delete(m.live, j.ID)
	// What is left of a lost job that has no control group runs on under its number: nobody else gets that.
	if l.uid != 0 && (exit.Reason != spec.Lost || j.ControlGroup != "") {
		m.uids.giveBack(l.uid)
	}
	// Queued for the store while the lock is held, so that a job is always in one of the two places.
	m.store.PutSoon(j)
	m.mu.Unlock()
	if m.opts.Ended != nil {
		m.opts.Ended(j)
	}
	close(l.done)
	return m.persist(l)
}

// persist records the end of a job, and removes the shim's record only after that. It returns false if it could not, and
// then the job is kept in memory.
func (m *Manager) persist(l *live) bool {
	j := l.result.Job
	err := m.store.Put(context.Background(), j)
	m.mu.Lock()
	if err != nil {
		m.live[j.ID] = l
	} else {
		delete(m.live, j.ID)
	}
	m.mu.Unlock()
	if err != nil {
		m.opts.Logger.Error("cannot record the end of a job", "job", j.ID, "error", err)
		return false
	}
	if err := os.Remove(j.Run.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.opts.Logger.Warn("cannot remove an exit record", "job", j.ID, "error", err)
	}
	if j.Owing {
		m.workers.Go(func() { m.trigger(j) })
	}
	return true
}
