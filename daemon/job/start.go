package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// startAttempts is how often a scope whose name is taken gets another number.
const startAttempts = 5

const (
	// maxArgument and maxArguments are the kernel's limits of one argument or variable, its NUL included, and of all of
	// them together, in bytes (execve(2)).
	maxArgument  = 128 << 10
	maxArguments = 6 << 20
	// maxDescription is how many characters of a program's name systemctl shows.
	maxDescription = 200
)

// Start starts a job and returns once its process runs. A job that could not be set up has ended with the reason Setup,
// which is no error of Start. Errors are: ErrInvalid, ErrTooMany, *DuplicateError, ErrDraining, ErrClosed, and failures to record the
// job; then there is no job.
func (m *Manager) Start(ctx context.Context, s Spec) (Job, error) {
	l, err := m.begin(ctx, s)
	if err != nil {
		return Job{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return l.job, nil
}

// Run is Start and Wait in one: its Result holds what the job wrote, however soon that ended. started, if set, is called
// with what Start would return. The job runs on when ctx ends. Errors are those of Start, for which there is no job, and
// those of Wait.
func (m *Manager) Run(ctx context.Context, s Spec, started func(Job)) (Result, error) {
	l, err := m.begin(ctx, s)
	if err != nil {
		return Result{}, err
	}
	if started != nil {
		m.mu.Lock()
		j := l.job
		m.mu.Unlock()
		started(j)
	}
	return m.wait(ctx, l)
}

// begin is Start, and returns the job as it is kept while it runs.
func (m *Manager) begin(ctx context.Context, s Spec) (*live, error) {
	if err := m.check(&s); err != nil {
		return nil, err
	}
	l, j, err := m.admit(&s)
	if err != nil {
		return nil, err
	}
	// From here on the job is the Manager's, not the caller's: a caller that goes away does not leave half a job.
	if err := m.record(ctx, j, s.Volatile); err != nil {
		m.forget(l, j.ID)
		return nil, err
	}
	m.launch(context.WithoutCancel(ctx), l, j, s.Input)
	return l, nil
}

// check finds every mistake of the request before anything is done.
func (m *Manager) check(s *Spec) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if s.Command == "" {
		return invalid("no command")
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	if !filepath.IsAbs(s.Dir) {
		return invalid("working directory %q is not absolute", s.Dir)
	}
	for _, v := range append([]string{s.Command, s.Path, s.Dir}, s.Args...) {
		if strings.ContainsRune(v, 0) {
			return invalid("%.100q has a NUL byte", v)
		}
	}
	for _, kv := range s.Environment {
		// The value may be a secret, and is not repeated.
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "" || strings.ContainsRune(name, 0):
			return invalid("an environment variable is not NAME=VALUE")
		case strings.ContainsRune(value, 0):
			return invalid("the environment variable %.100s has a NUL byte", name)
		}
	}
	total := len(s.Command) + 1
	for _, v := range slices.Concat(s.Args, s.Environment) {
		if total += len(v) + 1; len(v) >= maxArgument || total > maxArguments {
			return invalid("its arguments and environment are longer than Linux takes: %d bytes each, %d together", maxArgument-1, maxArguments)
		}
	}
	if os.Geteuid() != 0 {
		if s.User != nil && int(s.User.UID) != os.Geteuid() {
			return invalid("only an rtaskd that runs as root can run jobs as user %s", s.User.Name)
		}
		if s.Group != nil && int(*s.Group) != os.Getegid() || len(s.Groups) > 0 {
			return invalid("only an rtaskd that runs as root can give jobs another group")
		}
	}
	if err := m.opts.Host.Check(s.Limits); err != nil && !s.LimitsOptional {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if s.KillSignal == 0 {
		s.KillSignal = unix.SIGTERM
	}
	return nil
}

// admit makes the job, if there is room for it. The Job that it returns is nobody else's.
func (m *Manager) admit(s *Spec) (*live, Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, Job{}, ErrClosed
	}
	if m.draining != nil && s.by == "" {
		return nil, Job{}, ErrDraining
	}
	j := Job{
		ID: cmp.Or(s.id, newID()), By: s.by, OnFailure: s.OnFailure, OnSuccess: s.OnSuccess, Task: s.Task, Command: s.Command, Args: s.Args, Owner: s.Owner, Trigger: s.Trigger,
		State: Running, QueuedAt: time.Now(),
	}
	if s.Unique {
		for _, other := range m.live {
			if sameCommand(other.job, j) && other.job.State != Ended {
				return nil, Job{}, &DuplicateError{ID: other.job.ID}
			}
		}
	}
	if m.active() >= m.maxJobs {
		return nil, Job{}, fmt.Errorf("%w: max_jobs = %d", ErrTooMany, m.maxJobs)
	}
	l := &live{ready: make(chan struct{}), done: make(chan struct{}), gone: make(chan struct{})}
	u := s.User
	switch {
	case u != nil:
	case os.Geteuid() != 0:
		u = UserOf(spec.Credentials{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	default:
		uid, ok := m.uids.take()
		if !ok {
			return nil, Job{}, fmt.Errorf("%w: every number of dynamic_uids is taken", ErrTooMany)
		}
		l.uid = uid
		u = dynamic(uid)
	}
	if s.Group != nil || len(s.Groups) > 0 {
		other := *u // the caller's stays as it is
		if s.Group != nil {
			other.GID = *s.Group
		}
		other.Groups = append(slices.Clone(u.Groups), s.Groups...)
		u = &other
	}
	j.User = u.Name
	if m.opts.Host.Kind() != "none" {
		j.Unit = m.unitName(j)
	}
	j.Run = spec.Job{
		ID: j.ID, Task: j.Task, Identifier: identifier(s), Path: s.Path, Args: append([]string{s.Command}, s.Args...),
		Env: environment(j.ID, s, u), Dir: s.Dir, NoNewPrivileges: s.NoNewPrivileges, Limits: s.Limits,
		LimitsOptional: s.LimitsOptional, Timeout: s.Timeout, TimeoutStop: s.TimeoutStop, KillSignal: int(s.KillSignal),
		RedirectStderr: s.RedirectStderr, MaxReply: s.MaxReply, LogMax: s.LogMax, Journal: s.Journal,
		Record: m.recordPath(j.ID), RecordAlways: !s.Volatile,
	}
	if j.Run.Path == "" {
		j.Run.Path = s.Command
	}
	if os.Geteuid() == 0 {
		j.Run.Credentials = &u.Credentials
	}
	l.job = j
	m.live[j.ID] = l
	m.workers.Add(1) // for follow, or for launch's own end
	return l, j, nil
}

// identifier is the job's SYSLOG_IDENTIFIER=.
func identifier(s *Spec) string {
	if s.Task != "" {
		return s.Task
	}
	return filepath.Base(s.Command)
}

// unitName returns the name of a new scope. Manager.mu is held.
func (m *Manager) unitName(j Job) string {
	if j.Task == "" {
		return "rtask-cmd-" + j.ID + ".scope"
	}
	n := m.unit
	m.unit++
	return "rtask-" + j.Task + "-" + strconv.FormatUint(n, 10) + ".scope"
}

// record commits that the job is about to start: whatever happens from now on, it is not started twice. A volatile job's
// record is written, but not waited for.
func (m *Manager) record(ctx context.Context, j Job, volatile bool) error {
	if volatile {
		m.store.PutSoon(j)
		return nil
	}
	if err := m.store.Put(ctx, j); err != nil {
		return fmt.Errorf("cannot record the job: %w", err)
	}
	return nil
}

// forget undoes admit.
func (m *Manager) forget(l *live, id string) {
	defer m.workers.Done() // the records are open until then
	m.mu.Lock()
	delete(m.live, id)
	if l.uid != 0 {
		m.uids.giveBack(l.uid)
	}
	m.mu.Unlock()
	l.err = fmt.Errorf("%q: %w", id, ErrNotFound)
	close(l.ready)
	close(l.done)
	close(l.gone)
	if err := m.store.Delete(id); err != nil {
		m.opts.Logger.Error("cannot delete a job's record", "job", id, "error", err)
	}
}

// launch starts the process of an admitted job, or ends the job with Setup.
func (m *Manager) launch(ctx context.Context, l *live, j Job, input []byte) {
	p, err := m.process(ctx, j, input)
	if err != nil {
		close(l.ready)
		recorded := m.end(l, spec.Exit{Job: j.ID, Reason: spec.Setup, Code: -1, Detail: err.Error(), Ended: time.Now()})
		go func() {
			defer m.workers.Done()
			m.letGo(l, recorded)
		}()
		return
	}
	m.mu.Lock()
	l.proc = p
	l.job.ProcessID, l.job.ControlGroup, l.job.StartedAt, l.job.Unit = p.PID, p.ControlGroup, p.Started, p.Unit
	m.store.PutSoon(l.job)
	m.mu.Unlock()
	close(l.ready)
	next := func() { m.follow(l) }
	if p.PID == 0 { // it has ended without having run, and Start's caller is to see that
		recorded := m.end(l, p.Exit())
		next = func() { m.letGo(l, recorded) }
	}
	go func() {
		defer m.workers.Done()
		next()
	}()
}

// process opens what a process needs and starts it.
func (m *Manager) process(ctx context.Context, j Job, input []byte) (*sandbox.Process, error) {
	stdin, err := openInput(input)
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	logFile, err := os.OpenFile(m.logPath(j.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot make the job's log: %w", err)
	}
	defer logFile.Close()
	if err := groupOfFolder(logFile, m.opts.LogDir); err != nil {
		return nil, err
	}
	r := sandbox.Request{Unit: j.Unit, Description: description(j), Job: j.Run, Input: stdin, Log: logFile}
	for range startAttempts {
		p, err := m.opts.Host.Start(ctx, r)
		if !errors.Is(err, scope.ErrExists) || j.Task == "" {
			return p, err
		}
		// Another engine's, or one of before a crash that the records do not know of.
		m.mu.Lock()
		r.Unit = m.unitName(j)
		m.mu.Unlock()
	}
	return nil, fmt.Errorf("cannot start %s: %w", r.Unit, scope.ErrExists)
}

// groupOfFolder gives a new log to the group of its folder: whoever may list the logs may read them.
func groupOfFolder(f *os.File, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("cannot look at the folder of the logs: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil // what it makes is its own
	}
	if err := f.Chown(-1, int(st.Gid)); err != nil {
		return fmt.Errorf("cannot give the job's log to a group: %w", err)
	}
	return nil
}

func openInput(input []byte) (*os.File, error) {
	if len(input) > 0 {
		return wire.SealedFile("rtask-input", input)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("cannot open an empty input: %w", err)
	}
	return f, nil
}

// description is what systemctl shows: text that D-Bus takes and that a terminal cannot act on. Everybody can read it and the
// journal keeps it, so of a command it is the program's name without arguments, which may be secret.
func description(j Job) string {
	if j.Task != "" {
		return fmt.Sprintf("rtask job %s of task %s", j.ID, j.Task)
	}
	name := []rune(filepath.Base(j.Command))
	if len(name) > maxDescription {
		name = append(name[:maxDescription], '…')
	}
	for i, r := range name {
		if !unicode.IsPrint(r) {
			name[i] = unicode.ReplacementChar
		}
	}
	return fmt.Sprintf("rtask job %s: %s", j.ID, string(name))
}
