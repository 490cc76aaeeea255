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

	"github.com/rtask/rtask/daemon/job/admission"
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

// logPath is where a job's output is.
func (o *Options) logPath(id string) string { return filepath.Join(o.LogDir, id+".log") }

// recordPath is where a job's shim writes how it ended.
func (o *Options) recordPath(id string) string { return filepath.Join(o.StateDir, "exits", id) }

// Manager runs jobs. It is safe for concurrent use.
type Manager struct {
	opts      Options
	records   *ledger
	watcher   *log.Watcher
	pool      *pool
	inputs    inputs
	runner    *runner
	euid      int // the engine's own user
	workers   sync.WaitGroup
	quit      chan struct{}
	stopSweep func()

	// background are those that the recording of an end may still begin: it goes on while Close waits for the workers.
	background sync.WaitGroup
	recorder   *recorder

	mu        sync.Mutex // guards what follows
	live      map[string]*live
	admission *admission.Admission
	aliases   map[string]*alias // those of live jobs, by their ids
	closed    bool
	// draining is nil while jobs are accepted; Accept closes it.
	draining chan struct{}
	// owing are jobs that have ended and have yet to start what they trigger; closed when they have.
	owing map[string]chan struct{}

	triggers chan struct{}                   // closed by StartTriggered
	taskSpec func(task string) (Spec, error) // readable once triggers is closed
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
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("cannot open an empty input: %w", err)
	}
	w, err := log.NewWatcher()
	if err != nil {
		return nil, errors.Join(err, null.Close())
	}
	m := &Manager{
		opts: o, watcher: w, euid: os.Geteuid(), quit: make(chan struct{}), live: map[string]*live{},
		admission: admission.New(o.MaxJobs), aliases: map[string]*alias{}, owing: map[string]chan struct{}{}, triggers: make(chan struct{}),
	}
	if m.records, err = openLedger(&m.opts, m.isLive); err != nil {
		return nil, errors.Join(err, w.Close(), null.Close())
	}
	m.inputs = inputs{filepath.Join(o.StateDir, "inputs"), o.Logger}
	m.pool = newPool(&o, m.quit)
	m.runner = &runner{opts: &m.opts, records: m.records, pool: m.pool, inputs: m.inputs, null: null, euid: m.euid, quit: m.quit}
	m.recorder = newRecorder(m.recordBatch)
	if err := m.recover(); err != nil {
		return nil, errors.Join(err, m.records.Close(), w.Close(), null.Close())
	}
	sweep, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stopSweep = stop
	m.workers.Go(func() { o.Host.Sweep(sweep) })
	m.workers.Go(func() { m.records.retention.run(m.quit) })
	go m.recorder.run()
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
	m.recorder.close() // nothing ends any more
	m.background.Wait()
	m.pool.ends.Wait()
	return errors.Join(m.watcher.Close(), m.records.Close(), m.runner.null.Close())
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
