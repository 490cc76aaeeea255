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

	"github.com/rtask/rtask/daemon/job/admission"
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
	UIDs spec.UIDRange
	// MaxJobs is how many jobs may run at once. Jobs of an earlier run are taken up whatever their number.
	MaxJobs int
	// Retention bounds what is kept of jobs that have ended.
	Retention spec.Retention
	Logger    *slog.Logger
	// Ended is told of each job that has ended, before anybody who waits for it is. It must not block.
	Ended func(Job)
}

// Manager runs jobs. It is safe for concurrent use.
type Manager struct {
	opts      Options
	store     *store.Store[Job]
	watcher   *log.Watcher
	pool      *pool
	inputs    inputs
	null      *os.File // the standard input of jobs without one
	euid      int      // the engine's own user
	retention *retention
	workers   sync.WaitGroup
	quit      chan struct{}
	stopSweep func()

	// background are those that the recording of an end may still begin: it goes on while Close waits for the workers.
	background sync.WaitGroup
	ended      chan struct{} // has a value when there is an end to record
	hurry      chan struct{} // has a value when that is to be done at once
	last       chan struct{} // closed when nothing ends any more
	// recorder is closed when recordEnds has returned.
	recorder chan struct{}

	mu        sync.Mutex // guards what follows
	live      map[string]*live
	admission *admission.Admission
	aliases   map[string]*alias // those of live jobs, by their ids
	unstored  []*live           // ends that are not on record yet
	closed    bool
	// draining is nil while jobs are accepted; Accept closes it.
	draining chan struct{}
	// owing are jobs that have ended and have yet to start what they trigger; closed when they have.
	owing map[string]chan struct{}

	triggers chan struct{}                   // closed by StartTriggered
	taskSpec func(task string) (Spec, error) // readable once triggers is closed
}

// live is a job that has not ended, or whose end is not recorded yet.
type live struct {
	job    Job               // guarded by Manager.mu
	ticket *admission.Ticket // likewise
	// aliases are the requests that it took over, by their ids, at most admission.MaxJoined; kept says that one of them put it on record.
	// Guarded by Manager.mu.
	aliases map[string]*alias
	kept    bool
	// writing is held from the look at the job to its being on record, so that records come in the order of what happens. It is
	// taken before Manager.mu.
	writing sync.Mutex
	slot    *slot        // likewise, and its launcher's; nil while it is queued, and once it was given back
	input   []byte       // its launcher's
	stop    *StopOptions // guarded by Manager.mu: somebody wants it stopped

	settled chan struct{} // closed when the job is on record, or turned out to be none

	ready chan struct{}    // closed when the job was launched, or could not be
	halt  chan string      // takes who stops it before that
	proc  *sandbox.Process // readable once ready is closed; nil if it could not be

	result Result        // readable once done is closed
	err    error         // likewise; set when there never was a job
	done   chan struct{} // closed when the job has ended
	gone   chan struct{} // closed when its shim has ended too, or was let go
}

func newLive(j Job) *live {
	return &live{
		job: j, settled: make(chan struct{}), ready: make(chan struct{}), halt: make(chan string, 1), done: make(chan struct{}),
		gone: make(chan struct{}),
	}
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
	}{{o.StateDir, 0o700}, {filepath.Join(o.StateDir, "exits"), 0o700}, {filepath.Join(o.StateDir, "inputs"), 0o700}, {o.LogDir, 0o750}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return nil, fmt.Errorf("cannot make a folder: %w", err)
		}
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("cannot open an empty input: %w", err)
	}
	w, err := log.NewWatcher()
	if err != nil {
		return nil, errors.Join(err, null.Close())
	}
	s, err := store.Open(recordsPath(o.StateDir), store.Options[Job]{
		ID:         func(j *Job) string { return j.ID },
		Time:       func(j *Job) time.Time { return j.QueuedAt },
		Unfinished: unfinished,
		Group:      group,
		Summary:    summary,
		Claim:      claim,
		MaxClaims:  maxClaims,
		Upgrade:    upgrade,
		OnError:    func(err error) { o.Logger.Error("cannot write a job's record", "error", err) },
	})
	if err != nil {
		return nil, errors.Join(err, w.Close(), null.Close())
	}
	m := &Manager{
		opts: o, store: s, watcher: w, null: null, euid: os.Geteuid(), quit: make(chan struct{}),
		ended: make(chan struct{}, 1), hurry: make(chan struct{}, 1), last: make(chan struct{}), live: map[string]*live{}, admission: admission.New(o.MaxJobs), aliases: map[string]*alias{},
		recorder: make(chan struct{}),
		owing:    map[string]chan struct{}{}, triggers: make(chan struct{}),
	}
	m.inputs = inputs{filepath.Join(o.StateDir, "inputs"), o.Logger}
	m.pool = newPool(&o, boot, m.quit)
	m.retention = newRetention(s, o, m.isLive)
	if err := m.recover(); err != nil {
		return nil, errors.Join(err, s.Close(), w.Close(), null.Close())
	}
	sweep, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stopSweep = stop
	m.workers.Go(func() { o.Host.Sweep(sweep) })
	m.workers.Go(func() { m.retention.run(m.quit) })
	go m.recordEnds(m.last)
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
	m.workers.Add(-m.admission.Queued()) // they wait for the next engine
	m.mu.Unlock()
	close(m.quit)
	m.stopSweep()
	m.pool.close()
	m.workers.Wait()
	// Now nothing ends any more.
	close(m.last)
	<-m.recorder
	m.background.Wait()
	m.pool.ends.Wait()
	return errors.Join(m.watcher.Close(), m.store.Close(), m.null.Close())
}

// SetLimits sets Options.MaxJobs and Options.UIDs anew. They hold for jobs to come.
func (m *Manager) SetLimits(maxJobs int, r spec.UIDRange) {
	m.pool.setUIDs(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.admission.SetMaxJobs(maxJobs)
	m.startQueued()
}

// SetTasks says which tasks the configuration in force has, each by what a job of it is. Slots of another configuration are
// ended, those that run a job after that; for each task, Spec.Warm slots are kept ready from now on. Specs that Start would
// refuse are left out.
func (m *Manager) SetTasks(specs []Spec) {
	current, want := map[configuration]bool{}, map[configuration]*warm{}
	for _, s := range specs {
		if err := m.check(&s); err != nil {
			continue
		}
		j, err := m.draft(&s)
		if err != nil {
			continue
		}
		key := slotKey(&j)
		current[j.configuration()] = true
		if s.Warm > 0 && key != "" {
			want[j.configuration()] = &warm{key: key, template: j, want: s.Warm}
		}
	}
	m.pool.setTasks(current, want)
}

// logPath is where a job's output is.
func (m *Manager) logPath(id string) string { return filepath.Join(m.opts.LogDir, id+".log") }

// recordPath is where a job's shim writes how it ended.
func (m *Manager) recordPath(id string) string { return filepath.Join(m.opts.StateDir, "exits", id) }

// Running returns how many jobs have not ended.
func (m *Manager) Running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, l := range m.live {
		if l.job.State != Ended { // else its end is not recorded yet
			n++
		}
	}
	return n
}

// Wait returns when the job of this id has ended, with its result. It returns ErrNotFound, ErrClosed when Close comes
// first, and the cause of ctx's end.
func (m *Manager) Wait(ctx context.Context, id string) (Result, error) {
	id = m.resolve(id)
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
	case err == nil && j.State == promised:
		return Result{}, fmt.Errorf("%q: %w", id, ErrNotFound)
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
// just being started is stopped once it runs, one that waits for its turn never runs. Errors are those of Wait.
func (m *Manager) Stop(ctx context.Context, id string, o StopOptions) (Job, error) {
	id = m.resolve(id)
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return Job{}, ErrClosed
	}
	l, ok := m.live[id]
	unqueued := false
	if ok {
		unqueued = m.admission.Unqueue(l.ticket)
		m.admission.TakeNoMore(l.ticket)
		l.stop = &o
	}
	if ok && l.job.State == Running {
		l.job.State = Stopping
		if !l.job.Volatile {
			m.store.PutSoon(l.job)
		}
	}
	m.mu.Unlock()
	if !ok {
		r, err := m.Wait(ctx, id)
		return r.Job, err
	}
	if unqueued {
		m.endQueued(l, o)
	}
	select {
	case l.halt <- o.By:
	default: // somebody did before
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
		return Job{}, context.Cause(ctx)
	case <-m.quit:
		return Job{}, ErrClosed
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
	m.recordNow()
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
	// View is which part of it to stream: all of it, unless it says otherwise.
	log.View
}

// StreamLogs calls yield with the output of the job of this id, piece by piece in order. Without Follow it ends at what
// there is now; with it, when the job has ended, or Until has come, and all of the output was passed on. The entry's data is good until yield
// returns. It returns what yield returns, ctx's error, ErrNotFound where there is no such output, and ErrClosed.
func (m *Manager) StreamLogs(ctx context.Context, id string, o LogOptions, yield func(log.Entry) error) error {
	if !validID(id) {
		return fmt.Errorf("%q: %w", id, ErrNotFound) // it becomes part of a path
	}
	id = m.resolve(id)
	m.mu.Lock()
	l, ok := m.live[id]
	m.mu.Unlock()
	done := closed()
	if ok && !o.Follow {
		select {
		case <-l.ready:
		default:
			return nil // it has written nothing so far
		}
	} else if ok {
		select { // until it has a log
		case <-l.ready:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.quit:
			return ErrClosed
		}
		done = l.done
	}
	f, err := os.Open(m.logPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		if j, err := m.Status(id); err == nil && j.State == Ended && j.StartedAt.IsZero() {
			return nil // it never ran
		}
		return fmt.Errorf("there is no output of job %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("cannot read the output of job %s: %w", id, err)
	}
	defer f.Close()
	err = m.watcher.Follow(ctx, f, o.View, done, yield)
	if errors.Is(err, log.ErrClosed) {
		return ErrClosed
	}
	return err
}

// Output returns a job with the beginning of what it wrote, as its Result would have had it, read from its log.
func (m *Manager) Output(ctx context.Context, j Job) (Result, error) {
	return outputOf(j, func(yield func(log.Entry) error) error { return m.StreamLogs(ctx, j.ID, LogOptions{}, yield) })
}

// outputOf is Output, from a log that read passes on.
func outputOf(j Job, read func(yield func(log.Entry) error) error) (Result, error) {
	r := Result{Job: j}
	var all uint64
	if j.Exit != nil {
		all = j.Exit.LogBytes
	}
	err := read(func(e log.Entry) error {
		to := &r.Stdout
		if e.Stream == log.Stderr {
			to = &r.Stderr
		}
		data := e.Data
		if room := j.MaxReply - int64(len(*to)); int64(len(data)) > room {
			data, r.Truncated = data[:room], true
		}
		*to = append(*to, data...)
		if r.Truncated && int64(len(r.Stdout)) >= j.MaxReply && (j.RedirectStderr || int64(len(r.Stderr)) >= j.MaxReply) {
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

// bootID tells one run of the machine from the next (random(4)).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot id: %w", err)
	}
	return string(b[:max(0, len(b)-1)]), nil
}
