package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// Slot is a scope with a shim in it that runs one job at a time. Without systemd it is only a shim.
type Slot struct {
	// ID names its socket, and Unit is empty without systemd.
	ID, Unit string

	single  bool // it gets one job only
	host    *Host
	conn    *wire.Conn
	command *exec.Cmd // nil in a slot of an earlier engine
	sendMu  sync.Mutex
	worker  sync.WaitGroup
	gone    chan struct{} // closed when the shim is not heard any more

	mu      sync.Mutex // guards what follows
	pidfd   *os.File   // of the shim; nil: not known
	current *Process
	leaving bool
	// controlGroup is where the scope is below the cgroup v2 mount; empty: there is none, or it is not known.
	controlGroup string
}

// OpenSlot starts a shim and has systemd put it into a new scope. at.Slot is the slot's id: that of its first job, or one that no
// job has. at.Unit is the name of its scope, with ".scope", which must never have been used before; it is ignored without
// systemd. r is what all its jobs have in common, the sandbox, the limits and the times. With single, the slot runs one
// job and ends, and systemd may end the scope when the job's time is up. An error is a failure of the machinery, and nothing is left then.
func (h *Host) OpenSlot(ctx context.Context, at spec.Place, r *spec.Run, single bool) (*Slot, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	s := &Slot{ID: at.Slot, single: single, host: h, conn: conn, gone: make(chan struct{})}
	err = s.fork(theirs, !s.host.privileged && r.Sandbox.Namespaces())
	// The shim has its own by now. While this one is open, the end of the shim would not end the connection.
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := s.enter(ctx, at.Unit, r); err != nil {
		close(s.gone)
		_, e := s.clear()
		return nil, errors.Join(err, e, s.end())
	}
	s.worker.Go(s.read)
	return s, nil
}

// Single reports whether the slot gets one job only.
func (s *Slot) Single() bool { return s.single }

// fork starts the shim, which waits on its socket and does nothing before it is told. Without root's rights, the shim
// is in a user namespace of its own if its jobs need namespaces.
func (s *Slot) fork(theirs *os.File, user bool) error {
	pidfd := -1
	cmd := exec.Command(s.host.opts.Shim)
	cmd.Args = []string{"rtask-shim"}
	cmd.ExtraFiles = []*os.File{theirs}
	// It does one thing after the other, so that more than one processor would only cost: threads, their stacks, wake-ups. What
	// it needs is small: a first job's 0.5 MiB are not collected, and with more jobs the heap stays below 2 MiB instead of 4.
	cmd.Env = []string{"PATH=/usr/bin:/bin", "GOMAXPROCS=1", "GOGC=50"}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	// A session of its own, so that a signal from the engine's terminal does not reach the job.
	cmd.SysProcAttr = &unix.SysProcAttr{}
	if user {
		cmd.SysProcAttr = userNamespace()
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.PidFD = true, &pidfd
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the shim: %w", err)
	}
	s.command = cmd
	if pidfd >= 0 {
		s.pidfd = os.NewFile(uintptr(pidfd), "shim")
	}
	return nil
}

// enter puts the shim into its scope.
func (s *Slot) enter(ctx context.Context, name string, r *spec.Run) error {
	if s.host.manager == nil {
		return nil
	}
	if s.pidfd == nil {
		return errors.New("cannot start the shim: this kernel gives no pidfd (Linux 5.3 is needed)")
	}
	started, err := s.host.manager.Start(ctx, unit(name, r, s.single), s.command.Process.Pid, int(s.pidfd.Fd()))
	if err != nil {
		return err
	}
	s.controlGroup, s.Unit = started.ControlGroup, started.Name
	return nil
}

// Start starts a job and returns when its main process runs. A job that cannot be started is no error of Start: it has
// ended with the reason Setup. ErrUnfit is returned when the slot takes no job any more; then nothing was begun, and another
// slot may. Another error is a failure of the machinery, and nothing is left of the job then. No other job of the slot may
// run.
//
// input is the job's standard input, and log the file for its output, open for appending; both stay the caller's. memo is what
// Claims returns to the next engine for the job. halt, if not nil, receives the name of a caller that stops the job before it runs.
func (s *Slot) Start(r *spec.Run, input, log *os.File, memo []byte, halt <-chan string) (*Process, error) {
	var hard unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &hard); err != nil {
		return nil, fmt.Errorf("cannot read RLIMIT_NOFILE: %w", err)
	}
	claim, err := s.host.stake(r.ID, memo)
	if err != nil {
		return nil, err
	}
	start := &wire.Start{
		Job: *r, Socket: s.host.socketPath(s.ID), Claim: claim, Last: s.single,
		NoFileSoft: min(s.host.noFile, hard.Max), NoFileHard: hard.Max, KernelMDWE: s.host.systemd >= kernelMDWE,
	}
	start.Job.Env = s.host.environment(r)
	if group := s.group(); group != "" {
		start.Mount, start.ControlGroup = s.host.mount, group
	}
	p := s.process(*r)
	m, err := wire.Message{}, s.send(wire.Message{Start: start}, input, log)
	if err == nil {
		m, err = p.answered(halt)
	}
	switch {
	case err != nil:
		// From now on no shim takes the job. If the shim took it before, nothing is known of how far it got.
		if untaken, e := s.host.takeBack(r.ID); untaken && e == nil {
			return nil, fmt.Errorf("%w: %w", ErrUnfit, err)
		}
		empty, e := s.clear()
		if why, ok := p.killed(); ok {
			if e == nil && !empty {
				e = errors.New(unkillable)
			}
			p.left = !empty
			p.end(spec.Exit{Job: r.ID, Reason: why.reason, Code: -1, Detail: joinDetail(why.detail, e), Ended: time.Now()})
			return p, nil
		}
		if errors.Is(err, ErrShimGone) {
			p.end(p.remains())
			return p, nil
		}
		return nil, errors.Join(fmt.Errorf("cannot start the job: %w", err), e)
	case m.Refused != nil:
		_, err := s.host.takeBack(r.ID) // it lies there still
		return nil, errors.Join(ErrUnfit, err)
	}
	p.began(m.Started)
	return p, nil
}

// environment returns the environment of a job, in which systemctl works as without a PID namespace: it cannot use systemd's private
// socket from there, and only a caller of systemd's own user tries to (systemd's doc/ENVIRONMENT).
func (h *Host) environment(j *spec.Run) []string {
	const force = "SYSTEMCTL_FORCE_BUS="
	own := j.Credentials == nil || int(j.Credentials.UID) == os.Geteuid()
	if h.systemd < systemctlNeedsBus || !own || !j.Sandbox.PrivatePIDs ||
		slices.ContainsFunc(j.Env, func(v string) bool { return strings.HasPrefix(v, force) }) {
		return j.Env
	}
	return append(slices.Clone(j.Env), force+"1")
}

func joinDetail(detail string, err error) string {
	if err != nil {
		detail += "; " + err.Error()
	}
	return detail
}

// process makes p the slot's current one.
func (s *Slot) process(j spec.Run) *Process {
	p := &Process{Place: s.host.place(s.ID, s.Unit), slot: s, host: s.host, job: j, first: make(chan wire.Message, 1), done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = p
	return p
}

// read passes on what the shim says, until it is gone. What cannot be read is passed over: a shim that is not acknowledged
// writes a record.
func (s *Slot) read() {
	defer close(s.gone)
	for {
		m, files, err := s.conn.Receive()
		for _, f := range files {
			_ = f.Close() // a shim sends none but those of the framing
		}
		s.mu.Lock()
		p, leaving := s.current, s.leaving
		if m.Started != nil && s.controlGroup == "" && m.Started.ControlGroup != "" {
			s.controlGroup = path.Dir(m.Started.ControlGroup)
		}
		s.mu.Unlock()
		switch {
		case errors.Is(err, wire.ErrMessage):
			s.host.opts.Logger.Warn("cannot read what a job's supervisor says", "unit", s.Unit, "error", err)
		case err != nil:
			if p != nil && !leaving {
				p.shimGone()
			}
			return
		case p != nil:
			p.receive(m)
		}
	}
}

func (s *Slot) send(m wire.Message, files ...*os.File) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return s.conn.Send(m, files...)
}

// Gone is closed when the slot's shim is gone, or is not this engine's any more.
func (s *Slot) Gone() <-chan struct{} { return s.gone }

// Describe has systemctl show the slot's scope as that of a job.
func (s *Slot) Describe(ctx context.Context, r *spec.Run) error {
	if s.host.manager == nil {
		return nil
	}
	return s.host.manager.Describe(ctx, s.Unit, description(r))
}

// End ends the slot and waits for its shim to be gone. No job may run in it.
func (s *Slot) End() {
	_ = s.end() // a connection has nothing to lose
}

func (s *Slot) end() error {
	s.mu.Lock()
	s.leaving = true // its end is no surprise
	s.mu.Unlock()
	err := s.conn.Close() // which tells the shim to end
	s.worker.Wait()
	if s.reap() {
		_ = os.Remove(s.host.socketPath(s.ID)) // the shim removes it itself unless it was killed
	}
	return err
}

// Leave lets go of the slot: the engine ends. A job that runs goes on, and its shim writes a record. It takes the place of
// End.
func (s *Slot) Leave() {
	s.mu.Lock()
	p := s.current
	s.leaving = true
	s.mu.Unlock()
	if p != nil {
		p.deadline.clear()
	}
	_ = s.conn.Close() // what the shim still says goes into its record
	s.worker.Wait()
	if s.command != nil {
		_ = s.command.Process.Release() // it is waited for by whoever inherits it
	}
	s.closePIDFD()
}

// reap waits until the shim is gone, and reports whether it is. It kills a shim that does not end. It leaves a shim that hangs in the
// kernel, or that may belong to another slot by now.
func (s *Slot) reap() bool {
	pidfd := s.shim()
	if pidfd == nil && s.command == nil {
		return false
	}
	defer s.closePIDFD()
	if pidfd != nil && !ended(pidfd, goneTime) {
		s.host.opts.Logger.Warn("job's supervisor does not end, killing it", "unit", s.Unit)
		s.kill()
		if !ended(pidfd, goneTime) {
			return false
		}
	}
	if s.command != nil {
		_ = s.command.Wait() // how a shim ends says nothing of its job
	}
	return true
}

// shim returns the pidfd of the shim, or nil.
func (s *Slot) shim() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pidfd
}

func (s *Slot) closePIDFD() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd != nil {
		_ = s.pidfd.Close() // a pidfd has nothing to lose
		s.pidfd = nil
	}
}

// startTime bounds the wait for the first word of a shim.
func (s *Slot) startTime() time.Duration { return s.host.startTime }
