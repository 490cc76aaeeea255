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
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/job/admission"
	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// maxArgument and maxArguments are the kernel's limits of one argument or variable, its NUL included, and of all of
	// them together, in bytes (execve(2)).
	maxArgument  = 128 << 10
	maxArguments = 6 << 20
)

// Start starts a job and returns once its process runs, or once it waits for its turn. A job that could not be set up has
// ended with the reason Setup, which is no error of Start. Errors are: ErrInvalid, ErrTooMany, ErrConcurrency, ErrQueueFull,
// ErrTaken, ErrDraining, *DuplicateError, *RepeatError, ErrClosed, and failures to record the job; then there is no job.
func (m *Manager) Start(ctx context.Context, s Spec) (Job, error) {
	_, j, err := m.begin(ctx, s)
	return j, err
}

// Run is Start and Wait in one: its Result holds what the job wrote, however soon that ended. started, if set, is called
// with what Start would return. The job runs on when ctx ends. Errors are those of Start, for which there is no job, and
// those of Wait.
func (m *Manager) Run(ctx context.Context, s Spec, started func(Job)) (Result, error) {
	l, j, err := m.begin(ctx, s)
	if err != nil {
		return Result{}, err
	}
	if started != nil {
		started(j)
	}
	return m.wait(ctx, l)
}

// begin is Start, and returns the job as it is kept while it runs, too.
func (m *Manager) begin(ctx context.Context, s Spec) (*live, Job, error) {
	l, j, err := m.beginOnce(ctx, s)
	var repeat *RepeatError
	if s.Once.Answer && errors.As(err, &repeat) {
		if l, j, err := m.known(repeat.ID); l != nil && err == nil {
			j.Repeated = true
			return l, j, nil
		}
	}
	return l, j, err
}

// beginOnce is begin where a repeat is an error.
func (m *Manager) beginOnce(ctx context.Context, s Spec) (*live, Job, error) {
	if err := m.check(&s); err != nil {
		return nil, Job{}, err
	}
	if s.Overflow == spec.Coalesce && s.Same == "" {
		s.Overflow = spec.Queue
	}
	for {
		drop, err := m.keepLong(&s)
		if err != nil {
			return nil, Job{}, err
		}
		a, err := m.admit(&s)
		switch {
		case errors.Is(err, errUnkept):
			continue
		case err != nil:
			drop()
			return nil, Job{}, err
		case a.known:
			drop()
			a.job.Repeated = true
			return a.l, a.job, nil
		case a.joined != nil:
			err := m.commitJoin(context.WithoutCancel(ctx), a.l, a.joined)
			if errors.Is(err, errGone) {
				if !m.uses(a.l, s.InputName) { // otherwise it goes with that job, see forget
					drop()
				}
				s.ID = a.job.ID
				continue
			}
			return a.l, a.job, err
		}
		l, err := m.beginNew(ctx, &s, a.l)
		if err != nil {
			drop() // forget has removed what the job had last, which may be another request's
			return nil, Job{}, err
		}
		return l, m.snapshot(l), nil
	}
}

// beginNew is begin for a job that was admitted.
func (m *Manager) beginNew(ctx context.Context, s *Spec, l *live) (*live, error) {
	var err error
	// From here on the job is the Manager's, not the caller's: a caller that goes away does not leave half a job.
	if !s.Volatile && s.Overflow != spec.Coalesce { // that of such a one is kept already
		err = m.keepInput(l)
	}
	if err == nil {
		err = m.record(context.WithoutCancel(ctx), l)
	}
	if err != nil && m.forget(l) {
		return nil, err
	}
	if m.snapshot(l).State == Queued {
		m.mu.Lock()
		if l.job.InputFile && (!s.Volatile || s.Overflow == spec.Coalesce) {
			l.input = nil // it is in the file
		}
		m.mu.Unlock()
		m.enqueue(l)
		return l, nil
	}
	m.launch(context.WithoutCancel(ctx), l)
	return l, nil
}

// check finds every mistake of the request before anything is done.
func (m *Manager) check(s *Spec) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if s.Command() == "" {
		return invalid("no command")
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	if !filepath.IsAbs(s.Dir) {
		return invalid("working directory %q is not absolute", s.Dir)
	}
	for _, v := range append([]string{s.Path, s.Dir}, s.Args...) {
		if strings.ContainsRune(v, 0) {
			return invalid("%.100q has a NUL byte", v)
		}
	}
	for _, kv := range s.Env {
		// The value may be a secret, and is not repeated.
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "" || strings.ContainsRune(name, 0):
			return invalid("an environment variable is not NAME=VALUE")
		case strings.ContainsRune(value, 0):
			return invalid("the environment variable %.100s has a NUL byte", name)
		}
	}
	total := 0
	for _, v := range slices.Concat(s.Args, s.Env) {
		if total += len(v) + 1; len(v) >= maxArgument || total > maxArguments {
			return invalid("its arguments and environment are longer than Linux takes: %d bytes each, %d together", maxArgument-1, maxArguments)
		}
	}
	if s.Once.Key != "" && s.Volatile {
		return invalid("what is to be done once must be on record")
	}
	if m.euid != 0 {
		if s.As != nil && int(s.As.UID) != m.euid {
			return invalid("only an rtaskd that runs as root can run jobs as user %s", s.As.Name)
		}
		if s.Group != nil && int(*s.Group) != os.Getegid() || len(s.Groups) > 0 {
			return invalid("only an rtaskd that runs as root can give jobs another group")
		}
		if s.Sandbox.AmbientCapabilities != 0 {
			return invalid("only an rtaskd that runs as root can give jobs ambient_capabilities")
		}
	}
	if err := m.opts.Host.Check(s.Limits); err != nil {
		if !s.LimitsOptional {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		m.opts.Logger.Warn("a job starts without a limit", "task", s.Task, "command", s.Command(), "error", err)
	}
	_, missing := m.opts.Host.Give(s.Sandbox)
	for _, name := range missing {
		if slices.Contains(s.Sandbox.Named, name) {
			return invalid("%s cannot be given here: %s", name, m.opts.Host.WhyNot(s.Sandbox, name))
		}
	}
	if s.KillSignal == 0 {
		s.KillSignal = unix.SIGTERM
	}
	return nil
}

// admitted is what became of a request: a new job, one that its caller asked for before, or one that took it over.
type admitted struct {
	l      *live
	known  bool
	job    Job // with known and joined
	joined *joined
}

// admit makes the job, if there is room for it, or finds the one that its caller asks for again.
func (m *Manager) admit(s *Spec) (admitted, error) {
	j, err := m.draft(s)
	if err != nil {
		return admitted{}, err
	}
	key := slotKey(&j)
	for {
		if s.ID != "" {
			if l, j, err := m.again(s); l != nil || err != nil {
				return admitted{l: l, known: true, job: j}, err
			}
		}
		if err := m.notYet(s); err != nil {
			return admitted{}, err
		}
		a, taken, err := m.admitNew(s, j, key)
		switch {
		case !taken:
			return a, err
		case s.ID == "":
			return a, ErrTaken
		}
		// Since the look at it somebody else came with the same id.
	}
}

// admitNew is admit for an id that was not known a moment ago; taken: now it is.
func (m *Manager) admitNew(s *Spec, j Job, key string) (_ admitted, taken bool, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return admitted{}, false, ErrClosed
	}
	if m.draining != nil && s.By == "" {
		return admitted{}, false, ErrDraining
	}
	if s.Unique {
		for _, other := range m.live {
			if sameCommand(other.job, j) && other.job.State != Ended {
				return admitted{}, false, &DuplicateError{ID: other.job.ID}
			}
		}
	}
	if m.live[j.ID] != nil || m.aliases[j.ID] != nil || m.another(s) {
		return admitted{}, true, nil
	}
	if !s.Promised.IsZero() && !m.retention.mayPromise(j.share()) {
		return admitted{}, false, fmt.Errorf("%w: at most %d of %s can be kept", ErrPromises, maxPromises, j.Owner)
	}
	long := s.Overflow == spec.Coalesce && len(s.Input) > maxInline
	if long && s.InputName == "" {
		return admitted{}, false, errUnkept
	}
	t, err := m.admission.Admit(request(&j, s))
	if err != nil {
		return admitted{}, false, err
	}
	if t.ID != j.ID {
		l := m.live[t.ID]
		g, err := m.join(l, s, j)
		if err != nil {
			return admitted{}, false, err
		}
		return admitted{l: l, joined: g, job: g.alias.record(&l.job)}, false, nil
	}
	if t.Waits() {
		j.State = Queued
	}
	switch {
	case long:
		j.InputFile, j.InputName = true, s.InputName
	case s.Overflow == spec.Coalesce && !s.Volatile:
		j.Input = s.Input
	}
	l := &live{
		job: j, ticket: t, input: s.Input,
		ready: make(chan struct{}), halt: make(chan string, 1), done: make(chan struct{}), gone: make(chan struct{}),
	}
	if !t.Waits() {
		if l.slot, err = m.pool.lease(&l.job, key); err != nil {
			m.admission.Leave(t)
			return admitted{}, false, err
		}
	}
	m.live[j.ID] = l
	m.workers.Add(1) // for follow, or for launch's own end
	return admitted{l: l}, false, nil
}

// request is what admission is to know of a job.
func request(j *Job, s *Spec) admission.Request {
	return admission.Request{
		ID: j.ID, Task: j.Task, Share: j.share(), Owner: j.Owner.String(), Rate: s.Rate, MaxConcurrent: s.MaxConcurrent, Overflow: s.Overflow,
		Queue: s.MaxQueue, Same: j.Same, Input: int64(len(s.Input)), Owed: s.By != "", Triggers: len(s.OnFailure)+len(s.OnSuccess) > 0,
	}
}

// share names the requester whose share of everything a job counts towards. An API key has one, a local user, each webhook of each
// task, and what the ends of other jobs start, by task.
func (j *Job) share() string {
	switch {
	case j.Owner.Key != "":
		return "key/" + j.Owner.Key
	case j.Trigger == "local" || j.Trigger == "":
		return "user/" + strconv.FormatUint(uint64(j.Owner.UID), 10)
	default:
		return strings.Join([]string{j.Trigger, j.Task, j.Owner.Name}, "/")
	}
}

// again returns the job of s.ID, or of one of s.Otherwise, if there is one. Where it is known from the records only, it has
// ended, and nothing is to be waited for.
func (m *Manager) again(s *Spec) (*live, Job, error) {
	l, j, err := m.known(s.ID)
	for _, id := range s.Otherwise {
		if l != nil || err != nil {
			break
		}
		if l, j, err = m.known(id); !j.Promised.After(time.Now()) {
			l = nil
		}
	}
	switch {
	case err != nil || l == nil:
		return nil, Job{}, err
	case j.Task != s.Task || j.Owner != s.Owner:
		return nil, Job{}, ErrTaken
	case j.Digest != s.Digest:
		return nil, Job{}, ErrDifferent
	}
	return l, j, nil
}

// known returns the job with this id, as again does; nil: there is none.
func (m *Manager) known(id string) (*live, Job, error) {
	if !validID(id) {
		return nil, Job{}, fmt.Errorf("%w: %q is no id", ErrInvalid, id)
	}
	m.mu.Lock()
	l, j := m.aliased(id)
	if l == nil {
		if l = m.live[id]; l != nil {
			j = l.job
		}
	}
	m.mu.Unlock()
	if l != nil {
		return l, j, nil
	}
	j, err := m.store.Get(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, Job{}, nil
	case errors.Is(err, store.ErrClosed):
		return nil, Job{}, ErrClosed
	case err != nil:
		return nil, Job{}, err
	}
	of := j
	if j.Into != "" && j.State != promised {
		if of, err = m.target(j); err != nil {
			return nil, Job{}, err
		}
	}
	l = &live{job: of, ready: closed(), done: closed(), gone: closed()}
	if j.State == promised {
		l.result = kept(j)
		l.job, j.State = l.result.Job, Ended
	} else if l.result, err = m.Output(context.Background(), of); errors.Is(err, ErrNotFound) {
		err = nil // it never wrote anything, or it is gone
	}
	return l, j, err
}

// draft makes a job of a Spec, without a place to run.
func (m *Manager) draft(s *Spec) (Job, error) {
	j := Job{Spec: *s, State: Running, QueuedAt: time.Now()}
	j.As, j.Groups, j.Otherwise, j.Same = nil, nil, nil, same(s)
	j.Input, j.InputFile, j.InputName = nil, false, "" // whoever keeps it says where
	if j.ID == "" {
		j.ID = newID()
	}
	u := s.As
	switch {
	case u != nil:
	case m.euid != 0:
		u = UserOf(spec.Credentials{UID: uint32(m.euid), GID: uint32(os.Getegid())})
	default:
		j.Dynamic = true
		u = dynamic(0) // until it has a slot
	}
	if s.Group != nil || len(s.Groups) > 0 {
		other := *u // the caller's stays as it is
		if s.Group != nil {
			other.GID = *s.Group
		}
		other.Groups = append(slices.Clone(u.Groups), s.Groups...)
		u = &other
	}
	j.User, j.Env = u.Name, environment(&j, u)
	j.Path = cmp.Or(s.Path, s.Command())
	j.Record, j.RecordAlways = m.recordPath(j.ID), !s.Volatile
	if m.euid == 0 {
		j.Credentials = &u.Credentials
	}
	j.Sandbox, _ = m.opts.Host.Give(s.Sandbox)
	j.Sandbox.RuntimeDirectory = m.opts.Host.RuntimeDirectory()
	j.Sandbox.AsCaller = s.Task == "" && m.euid == 0 && u.UID != 0
	if len(s.Sandbox.LoadCredential) > 0 {
		j.Env = append(j.Env, "CREDENTIALS_DIRECTORY="+j.Sandbox.CredentialsDirectory())
	}
	if j.Dynamic {
		j.Sandbox = j.Sandbox.ForLentUser(dynamicName, m.opts.Host.Confines())
	}
	if s.Sandbox.Confined() {
		m.hideEngine(&j.Run)
		if j.Limits.OOMScoreAdjust == nil && m.euid == 0 {
			score := spec.JobOOMScore
			j.Limits.OOMScoreAdjust = &score
		}
	}
	return j, nil
}

// hideEngine hides the engine's configuration, secrets, records and logs from a job, but for the program that it executes.
func (m *Manager) hideEngine(r *spec.Run) {
	if !m.opts.Host.Confines() {
		return
	}
	r.Sandbox.Hidden = m.opts.Host.Private()
	if slices.ContainsFunc(r.Sandbox.Hidden, func(dir string) bool { return spec.Below(r.Path, dir) }) {
		r.Sandbox.Binds = append(slices.Clone(r.Sandbox.Binds), spec.Bind{Source: r.Path, Destination: r.Path, ReadOnly: true, Optional: true})
	}
}

// record commits that the job is there, and if it has its turn, that it is about to start: whatever happens from now on, it
// is not started twice. A volatile job has its caller for a record.
func (m *Manager) record(ctx context.Context, l *live) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	j := m.snapshot(l)
	if j.Volatile {
		return nil
	}
	if err := m.store.Put(ctx, j); err != nil {
		return recordError(err)
	}
	return nil
}

// snapshot returns the job as it is now.
func (m *Manager) snapshot(l *live) Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	return l.job
}

// forget undoes admit. It returns false, and does nothing, for a job that another request has put on record meanwhile, which
// it took over.
func (m *Manager) forget(l *live) bool {
	l.writing.Lock()
	defer l.writing.Unlock()
	m.mu.Lock()
	if l.kept {
		m.mu.Unlock()
		return false
	}
	defer m.workers.Done() // the records are open until then
	j := l.job
	m.admission.Leave(l.ticket)
	if l.slot != nil && !m.pool.giveBack(l.slot) {
		m.pool.end(l.slot, nil)
	}
	delete(m.live, j.ID)
	for id := range l.aliases {
		delete(m.aliases, id)
	}
	l.err = fmt.Errorf("%q: %w", j.ID, ErrNotFound)
	m.startQueued()
	m.mu.Unlock()
	close(l.ready)
	close(l.done)
	close(l.gone)
	m.dropInput(&j)
	if err := m.store.Delete(j.ID); err != nil {
		m.opts.Logger.Error("cannot delete a job's record", "job", j.ID, "error", err)
	}
	return true
}

// launch starts the process of a job that has its slot, or ends the job with Setup.
func (m *Manager) launch(ctx context.Context, l *live) {
	p, err := m.process(ctx, l)
	if err != nil && m.putOff(ctx, l) {
		return
	}
	if err != nil {
		m.mu.Lock()
		if l.slot != nil {
			m.pool.spoil(l.slot)
		}
		m.mu.Unlock()
		close(l.ready)
		m.end(l, spec.Exit{Job: l.job.ID, Reason: spec.Setup, Code: -1, Detail: err.Error(), Ended: time.Now()})
		m.workers.Done()
		return
	}
	m.mu.Lock()
	l.proc, l.input = p, nil
	l.job.ProcessID, l.job.ControlGroup, l.job.StartedAt, l.job.Unit = p.PID, p.ControlGroup, p.Started, p.Unit
	before := l.job
	l.job.Input, l.job.InputFile = nil, false
	if !l.job.Volatile {
		m.store.PutSoon(l.job)
	}
	stop := l.stop
	m.mu.Unlock()
	m.dropInput(&before)
	close(l.ready)
	if stop != nil { // whoever wanted that may be gone
		if err := p.Stop(stop.By, stop.Kill); err != nil {
			m.opts.Logger.Warn("job's supervisor could not be told to stop it", "job", l.job.ID, "error", err)
		}
	}
	if p.PID == 0 { // it has ended without having run, and Start's caller is to see that
		m.end(l, p.Exit())
		m.workers.Done()
		return
	}
	go func() {
		defer m.workers.Done()
		m.follow(l)
	}()
}

// putOff leaves a job for the next engine whose slot could not be opened because the machine, or this engine, is going down.
// Nobody hears of it any more from this one.
func (m *Manager) putOff(ctx context.Context, l *live) bool {
	m.mu.Lock()
	unsent := l.slot != nil && !m.pool.isOpen(l.slot) && !l.job.Volatile
	closed := m.closed
	m.mu.Unlock()
	if !unsent || !closed && !m.opts.Host.GoingDown(ctx) {
		return false
	}
	m.mu.Lock()
	j := l.job
	j.State, j.Slot, j.Unit, j.Boot = Queued, "", "", ""
	m.mu.Unlock()
	m.pool.end(l.slot, nil)
	if err := m.store.Put(ctx, j); err != nil {
		m.opts.Logger.Error("cannot put off a job", "job", j.ID, "error", err)
	}
	m.workers.Done()
	return true
}

// process opens what a process needs and starts it, in another slot if its own has become unfit.
func (m *Manager) process(ctx context.Context, l *live) (*sandbox.Process, error) {
	stdin := m.null
	if len(l.input) > 0 {
		f, err := wire.SealedFile("rtask-input", l.input)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	j := m.snapshot(l)
	logFile, err := makeLog(m.logPath(j.ID))
	if err != nil {
		return nil, fmt.Errorf("cannot make the job's log: %w", err)
	}
	defer logFile.Close()
	if m.euid == 0 { // what others make is their own
		if err := groupOfFolder(logFile, m.opts.LogDir); err != nil {
			return nil, err
		}
	}
	for range startAttempts {
		s := l.slot
		if s.open == nil {
			if err := m.pool.openSlot(ctx, s, &j, s.keep <= 0); err != nil {
				return nil, err
			}
			if s.unit != j.Unit { // its name was taken
				m.mu.Lock()
				l.job.Unit = s.unit
				m.mu.Unlock()
				if err := m.record(ctx, l); err != nil {
					return nil, err
				}
				j = m.snapshot(l)
			}
		}
		r := sandbox.Request{Job: j.Run, Input: stdin, Log: logFile, Last: s.keep <= 0, Halt: l.halt}
		if j.Volatile {
			if r.Memo, err = m.store.Encode(j); err != nil {
				return nil, err
			}
		}
		p, err := s.open.Start(r)
		if !errors.Is(err, sandbox.ErrUnfit) {
			return p, err
		}
		if err := m.moveOn(ctx, l); err != nil {
			return nil, err
		}
		j = m.snapshot(l)
	}
	return nil, fmt.Errorf("cannot start the job: %w", sandbox.ErrUnfit)
}

// moveOn gives a job a new slot in place of one that takes no job any more, and writes that down.
func (m *Manager) moveOn(ctx context.Context, l *live) error {
	j := m.snapshot(l)
	key := slotKey(&j)
	m.pool.end(l.slot, nil)
	if err := m.leaseFor(l, key); err != nil {
		return err
	}
	return m.record(ctx, l)
}

// makeLog makes an empty log to append to.
func makeLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW, 0o640)
}

// groupOfFolder gives a new log to the group of its folder: whoever may list the logs may read them.
func groupOfFolder(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot look at the folder of the logs: %w", err)
	}
	if err := f.Chown(-1, int(info.Sys().(*syscall.Stat_t).Gid)); err != nil {
		return fmt.Errorf("cannot give the job's log to a group: %w", err)
	}
	return nil
}
