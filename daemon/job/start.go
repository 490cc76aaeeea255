package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// startAttempts is how often a scope whose name is taken gets another number.
const startAttempts = 5

// Start starts a job and returns once its process runs. A job that could not be set up has ended with the reason Setup,
// which is no error of Start. Errors are: ErrInvalid, ErrTooMany, *DuplicateError, ErrClosed, and failures to record the
// job; then there is no job.
func (m *Manager) Start(ctx context.Context, s Spec) (Job, error) {
	if err := m.check(&s); err != nil {
		return Job{}, err
	}
	l, err := m.admit(&s)
	if err != nil {
		return Job{}, err
	}
	// From here on the job is the Manager's, not the caller's: a caller that goes away does not leave half a job.
	if err := m.record(ctx, l, s.Volatile); err != nil {
		m.forget(l)
		return Job{}, err
	}
	m.launch(context.WithoutCancel(ctx), l, s.Input)
	m.mu.Lock()
	defer m.mu.Unlock()
	return l.job, nil
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
			return invalid("%q has a NUL byte", v)
		}
	}
	for _, kv := range s.Environment {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || strings.ContainsRune(kv, 0) {
			return invalid("%q is not NAME=VALUE", kv)
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

// admit makes the job, if there is room for it.
func (m *Manager) admit(s *Spec) (*live, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	j := Job{
		ID: newID(), Task: s.Task, Command: s.Command, Args: s.Args, Owner: s.Owner, Trigger: s.Trigger,
		State: Running, QueuedAt: time.Now(),
	}
	if s.Unique {
		for _, other := range m.live {
			if sameCommand(other.job, j) {
				return nil, &DuplicateError{ID: other.job.ID}
			}
		}
	}
	if len(m.live) >= m.opts.MaxJobs {
		return nil, fmt.Errorf("%w: max_jobs = %d", ErrTooMany, m.opts.MaxJobs)
	}
	l := &live{ready: make(chan struct{}), done: make(chan struct{})}
	u := s.User
	switch {
	case u != nil:
	case os.Geteuid() != 0:
		u = UserOf(spec.Credentials{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	default:
		uid, ok := m.uids.take()
		if !ok {
			return nil, fmt.Errorf("%w: every number of dynamic_uids is taken", ErrTooMany)
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
	return l, nil
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
func (m *Manager) record(ctx context.Context, l *live, volatile bool) error {
	if volatile {
		m.store.PutSoon(l.job)
		return nil
	}
	if err := m.store.Put(ctx, l.job); err != nil {
		return fmt.Errorf("cannot record the job: %w", err)
	}
	return nil
}

// forget undoes admit.
func (m *Manager) forget(l *live) {
	m.mu.Lock()
	delete(m.live, l.job.ID)
	if l.uid != 0 {
		m.uids.giveBack(l.uid)
	}
	m.mu.Unlock()
	close(l.ready)
	close(l.done)
	m.workers.Done()
	if err := m.store.Delete(l.job.ID); err != nil {
		m.opts.Logger.Error("cannot delete a job's record", "job", l.job.ID, "error", err)
	}
}

// launch starts the process of an admitted job, or ends the job with Setup.
func (m *Manager) launch(ctx context.Context, l *live, input []byte) {
	p, err := m.process(ctx, l, input)
	if err != nil {
		close(l.ready)
		m.end(l, spec.Exit{Job: l.job.ID, Reason: spec.Setup, Code: -1, Detail: err.Error(), Ended: time.Now()})
		m.workers.Done()
		return
	}
	m.mu.Lock()
	l.proc = p
	l.job.ProcessID, l.job.ControlGroup, l.job.StartedAt, l.job.Unit = p.PID, p.ControlGroup, p.Started, p.Unit
	m.store.PutSoon(l.job)
	m.mu.Unlock()
	close(l.ready)
	go func() {
		defer m.workers.Done()
		m.follow(l)
	}()
}

// process opens what a process needs and starts it.
func (m *Manager) process(ctx context.Context, l *live, input []byte) (*sandbox.Process, error) {
	stdin, err := openInput(input)
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	logFile, err := os.OpenFile(m.logPath(l.job.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot make the job's log: %w", err)
	}
	defer logFile.Close()
	r := sandbox.Request{Unit: l.job.Unit, Description: description(l.job), Job: l.job.Run, Input: stdin, Log: logFile}
	for range startAttempts {
		p, err := m.opts.Host.Start(ctx, r)
		if !errors.Is(err, scope.ErrExists) || l.job.Task == "" {
			return p, err
		}
		// Another engine's, or one of before a crash that the records do not know of.
		m.mu.Lock()
		r.Unit = m.unitName(l.job)
		m.mu.Unlock()
	}
	return nil, fmt.Errorf("cannot start %s: %w", r.Unit, scope.ErrExists)
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

// description is what systemctl shows.
func description(j Job) string {
	if j.Task == "" {
		return fmt.Sprintf("rtask job %s: %s", j.ID, strings.Join(j.Run.Args, " "))
	}
	return fmt.Sprintf("rtask job %s of task %s", j.ID, j.Task)
}
