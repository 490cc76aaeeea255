package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

// Manager runs jobs. It is safe for concurrent use. It connects those that do: see the package's comment.
type Manager struct {
	opts     Options
	jobs     *roster
	records  *ledger
	pool     *pool
	starter  *starter
	runner   *runner
	triggers *triggers
	logs     *streamer

	null       *os.File // the standard input of jobs without one
	quit       chan struct{}
	background sync.WaitGroup // the goroutines that tidy up
	stopSweep  func()
}

// Open opens the records and finds the jobs again that an earlier Manager started.
func Open(ctx context.Context, o Options) (*Manager, error) {
	if err := o.makeFolders(); err != nil {
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
	m := &Manager{opts: o, null: null, quit: make(chan struct{})}
	m.jobs = newRoster(o.MaxJobs, m.quit)
	if m.records, err = openLedger(&m.opts, m.jobs); err != nil {
		return nil, errors.Join(err, w.Close(), null.Close())
	}
	m.logs = &streamer{opts: &m.opts, records: m.records, watcher: w}
	m.pool = newPool(&o, m.quit)
	m.connect()
	if err := m.runner.recover(); err != nil {
		return nil, errors.Join(err, m.records.Close(), w.Close(), null.Close())
	}
	sweep, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stopSweep = stop
	m.background.Go(func() { o.Host.Sweep(sweep) })
	m.background.Go(func() { m.records.retention.run(m.quit) })
	go m.runner.ender.recorder.run()
	return m, nil
}

// connect makes the parts that open no files.
func (m *Manager) connect() {
	inputs, euid := inputs{m.opts.inputsDir(), m.opts.Logger}, os.Geteuid()
	m.triggers = &triggers{
		jobs: m.jobs, records: m.records, logger: m.opts.Logger, owner: Owner{UID: uint32(euid), Name: "rtask"}, start: m.Start, ready: make(chan struct{}),
	}
	ender := newEnder(&m.opts, m.jobs, m.records, m.pool, inputs, m.triggers)
	m.runner = &runner{
		opts: &m.opts, jobs: m.jobs, records: m.records, pool: m.pool, inputs: inputs, ender: ender,
		launcher: &launcher{opts: &m.opts, records: m.records, pool: m.pool, inputs: inputs, null: m.null, euid: euid, quit: m.quit},
	}
	m.jobs.start = func(l *live) { go m.runner.dispatch(l) }
	drafter := &drafter{&m.opts, euid}
	coalescer := &coalescer{drafter, m.jobs, m.records, inputs}
	m.starter = &starter{
		admitter: &admitter{drafter, m.jobs, m.records, inputs, coalescer},
		placer:   &placer{m.opts.Logger, m.jobs, m.records, m.pool, inputs, coalescer},
		runner:   m.runner,
	}
}

// Close lets go of the jobs, which run on, and closes the records.
func (m *Manager) Close() error {
	if !m.jobs.close() {
		return nil
	}
	close(m.quit)
	m.stopSweep()
	m.pool.close()
	m.jobs.workers.Wait()
	m.background.Wait()
	m.runner.ender.close()
	m.pool.ends.Wait()
	return errors.Join(m.logs.watcher.Close(), m.records.Close(), m.null.Close())
}

// SetLimits changes Options.MaxJobs and Options.UIDs, for jobs that start later.
func (m *Manager) SetLimits(maxJobs int, r spec.UIDRange) {
	m.pool.setUIDs(r)
	m.jobs.setMaxJobs(maxJobs)
}

// SetRetention changes Options.Retention.
func (m *Manager) SetRetention(r spec.Retention) { m.records.retention.set(r) }

// SetTasks says which tasks the current configuration has, each as the Spec of a job. The Manager ends slots of other configurations,
// those of running jobs when the job ends, and keeps Spec.Warm slots of each task ready. It leaves out Specs that Start would refuse.
func (m *Manager) SetTasks(specs []Spec) {
	current, want := map[configuration]bool{}, map[configuration]*warm{}
	for _, s := range specs {
		if err := m.starter.admitter.check(&s); err != nil {
			continue
		}
		j, err := m.starter.admitter.draft(&s)
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

// StartTriggered says how to start tasks that the ends of jobs trigger. spec returns the Spec of a task, or ErrNotNow, or why the task
// cannot run, which the Manager logs. Until the call, triggered jobs wait. Call it once.
func (m *Manager) StartTriggered(spec func(task string) (Spec, error)) { m.triggers.use(spec) }

// Start starts a job and returns once its process runs, or once it waits for its turn. A job that could not be set up has
// ended with the reason Setup, which is no error of Start. Errors are: ErrInvalid, ErrTooMany, ErrConcurrency, ErrQueueFull,
// ErrTaken, ErrDraining, *DuplicateError, *RepeatError, ErrClosed, and failures to record the job; then there is no job.
func (m *Manager) Start(ctx context.Context, s Spec) (Job, error) {
	_, j, err := m.starter.begin(ctx, s)
	return j, err
}

// Run is Start and Wait in one: its Result holds what the job wrote, however soon that ended. started, if set, is called
// with what Start would return. The job runs on when ctx ends. Errors are those of Start, for which there is no job, and
// those of Wait.
func (m *Manager) Run(ctx context.Context, s Spec, started func(Job)) (Result, error) {
	l, j, err := m.starter.begin(ctx, s)
	if err != nil {
		return Result{}, err
	}
	if started != nil {
		started(j)
	}
	return m.jobs.wait(ctx, l)
}

// Stop ends the job of this id and returns when nothing of it is left. A job that has ended stays as it is; one that is
// just being started is stopped once it runs, one that waits for its turn never runs. Errors are those of Wait.
func (m *Manager) Stop(ctx context.Context, id string, o StopOptions) (Job, error) {
	return m.runner.stop(ctx, id, o)
}

// StopQueued stops the jobs that wait for their turn and whose owner is meant. It returns when they have ended, or with ctx, and says
// how many there were.
func (m *Manager) StopQueued(ctx context.Context, means func(Owner) bool, o StopOptions) int {
	return m.runner.stopQueued(ctx, means, o)
}

// Wait returns when the job of this id has ended, with its result. It returns ErrNotFound, ErrClosed when Close comes
// first, and the cause of ctx's end.
func (m *Manager) Wait(ctx context.Context, id string) (Result, error) {
	return m.records.wait(ctx, id)
}

// Status returns a job as it is now: the one that ref names, by its id, by an unambiguous prefix of that of minPrefix characters or
// more, or, digits only, by the PID of its main process while it runs. It returns ErrNotFound, ErrAmbiguous or ErrShort.
func (m *Manager) Status(ref string) (Job, error) { return m.records.find(ref, nil) }

// Find is Status among the jobs for which visible returns true; nil: all. It behaves as if other jobs did not exist.
func (m *Manager) Find(ref string, visible func(Job) bool) (Job, error) {
	return m.records.find(ref, visible)
}

// List returns jobs, newest first. Records that cannot be read are left out, with a line in the log.
func (m *Manager) List(f Filter) ([]Job, error) { return m.records.list(f) }

// LastRuns returns the newest job of each of tasks that has begun, or else the newest that waits, of those for which visible, if set,
// returns true. It may look only at ID, Task, User and Owner. Tasks without a job are left out.
func (m *Manager) LastRuns(tasks []string, visible func(Job) bool) (map[string]Job, error) {
	return m.records.lastRuns(tasks, visible)
}

// Shared reports whether several requests share the job with this id or alias.
func (m *Manager) Shared(id string) bool { return m.jobs.shared(id) }

// Count returns how many jobs that have not ended are in each state, and how many jobs of each task wait for their turn. It leaves out
// commands, and tasks without waiting jobs.
func (m *Manager) Count() (states map[State]int, waiting map[string]int) { return m.jobs.count() }

// Running returns how many jobs have not ended.
func (m *Manager) Running() int {
	n := 0
	states, _ := m.jobs.count()
	for _, of := range states {
		n += of
	}
	return n
}

// Current returns what a job uses now, as far as its control group tells. It is empty for a job that does not run.
func (m *Manager) Current(j Job) spec.Current {
	if j.State != Running && j.State != Stopping {
		return spec.Current{}
	}
	return m.opts.Host.Current(j.ControlGroup)
}

// StreamLogs calls yield with the output of the job of this id, piece by piece in order. Without Follow it ends at what
// there is now; with it, when the job has ended, or Until has come, and all of the output was passed on. The entry's data is good until
// yield returns. It returns what yield returns, ctx's error, ErrNotFound where there is no such output, and ErrClosed.
func (m *Manager) StreamLogs(ctx context.Context, id string, o LogOptions, yield func(log.Entry) error) error {
	return m.logs.stream(ctx, id, o, yield)
}

// Output returns a job that has ended with the beginning of what it wrote, as its Result would have had it, read from its log. A job
// that never ran, and one whose log is not kept any more, has none.
func (m *Manager) Output(j Job) (Result, error) {
	return resultOf(j, m.opts.logPath(cmp.Or(j.Into, j.ID)))
}

// Drain makes Start refuse new jobs with ErrDraining. Jobs that were accepted run to their end, and so do those that the
// end of one of them triggers. It lasts until Accept or Close; another Manager begins without it.
func (m *Manager) Drain() { m.jobs.drain() }

// Accept ends what Drain began.
func (m *Manager) Accept() { m.jobs.accept() }

// Draining reports whether new jobs are refused.
func (m *Manager) Draining() bool { return m.jobs.isDraining() }

// Drained returns true when new jobs are refused and none is left. It returns false if new jobs are accepted, immediately or as soon as
// that is so. It returns ErrClosed, and the cause of ctx's end.
func (m *Manager) Drained(ctx context.Context) (bool, error) { return m.jobs.drained(ctx) }
