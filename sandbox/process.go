package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// defaultNoFile is the soft limit of open files where no manager says one: systemd's default, which keeps programs
	// that use select(2) right (https://0pointer.net/blog/file-descriptor-limits.html).
	defaultNoFile = 1024
	// startTimeout is how long a shim may take from its job to the job's first instruction. It is long because an
	// executable may lie on a slow network file system; and it is what ends the wait for one that never answers.
	startTimeout = 60 * time.Second
	// graceTime is how much later than the shim the engine ends a job whose time is up.
	graceTime = 5 * time.Second
	// goneTime is how long what was killed from outside may take to be gone.
	goneTime = 5 * time.Second
)

// Request is a job to start.
type Request struct {
	// Unit is the name of its scope, with ".scope". It must never have been used before. Ignored without systemd.
	Unit        string
	Description string
	Job         spec.Job
	// Input is the job's standard input, and Log the file for its output, open for appending. Both stay the caller's.
	Input, Log *os.File
}

// Process is a job that runs, or has run.
type Process struct {
	// PID of the main process, its control group below the cgroup v2 mount, and when it was started. The unit is empty
	// without systemd.
	PID          int
	Unit         string
	ControlGroup string
	Started      time.Time

	host    *Host
	job     spec.Job
	conn    *wire.Conn
	scope   scope.Scope
	pidfd   *os.File // of the shim
	command *exec.Cmd

	sendMu sync.Mutex // one sender at a time on conn

	done    chan struct{}
	exit    spec.Exit // readable once done is closed
	leaving atomic.Bool
	worker  sync.WaitGroup

	deadline deadline
}

// Start starts a job and returns when its main process runs. A job that cannot be started is no error of Start: it has
// ended with the reason Setup. An error is a failure of the machinery, and nothing is left of the job then.
func (h *Host) Start(ctx context.Context, r Request) (*Process, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	p := &Process{host: h, job: r.Job, conn: conn, done: make(chan struct{})}
	err = p.fork(theirs)
	// The shim has its own by now. While this one is open, the end of the shim would not end the connection.
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := p.enter(ctx, r); err != nil {
		return nil, errors.Join(err, p.abort())
	}
	if err := p.begin(r); err != nil {
		return nil, errors.Join(err, p.abort())
	}
	return p, nil
}

// fork starts the shim, which waits on its socket and does nothing before it is told.
func (p *Process) fork(theirs *os.File) error {
	pidfd := -1
	cmd := exec.Command(p.host.opts.Shim)
	cmd.Args = []string{"rtask-shim"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	// A session of its own, so that a signal from a terminal to the engine is none to the job.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the shim: %w", err)
	}
	p.command = cmd
	if pidfd >= 0 {
		p.pidfd = os.NewFile(uintptr(pidfd), "shim")
	}
	return nil
}

// enter puts the shim into its scope.
func (p *Process) enter(ctx context.Context, r Request) error {
	if p.host.manager == nil {
		return nil
	}
	if p.pidfd == nil {
		return errors.New("cannot start the shim: this kernel gives no pidfd (Linux 5.3 is needed)")
	}
	s, err := p.host.manager.Start(ctx, unit(r.Unit, r.Description, &p.job), p.command.Process.Pid, int(p.pidfd.Fd()))
	if err != nil {
		return err
	}
	p.scope, p.Unit = s, s.Name
	return nil
}

// begin gives the shim its job and waits for the job to run.
func (p *Process) begin(r Request) error {
	var hard unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &hard); err != nil {
		return fmt.Errorf("cannot read RLIMIT_NOFILE: %w", err)
	}
	start := &wire.Start{
		Job: p.job, Socket: p.host.socketPath(p.job.ID),
		NoFileSoft: min(p.host.noFile, hard.Max), NoFileHard: hard.Max,
	}
	if p.scope.ControlGroup != "" {
		start.Mount, start.ControlGroup = p.host.mount, p.scope.ControlGroup
	}
	if err := p.conn.Send(wire.Message{Start: start}, r.Input, r.Log); err != nil {
		return err
	}
	m, err := p.answer()
	if err != nil {
		return fmt.Errorf("cannot start the job: %w", err)
	}
	switch {
	case m.Started != nil:
		p.started(m.Started)
		p.worker.Go(p.follow)
	case m.Ended != nil:
		p.end(*m.Ended)
	default:
		return fmt.Errorf("cannot start the job: %w", wire.ErrMessage)
	}
	return nil
}

// answer waits for what the shim makes of its job. A shim that does not say so in time hangs in an exec that does not
// return; the job is killed then, and if that does not help, the shim.
func (p *Process) answer() (wire.Message, error) {
	limit := p.host.startTime
	for _, hasten := range []func(){p.killJob, p.killAll, nil} {
		if err := p.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return wire.Message{}, err
		}
		m, err := p.receive()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return m, errors.Join(err, p.conn.SetReadDeadline(time.Time{}))
		}
		if hasten != nil {
			hasten()
		}
		limit = goneTime
	}
	return wire.Message{}, errors.New("the job's supervisor does not answer and cannot be killed")
}

func (p *Process) started(m *wire.Started) {
	p.PID, p.ControlGroup, p.Started = m.PID, m.ControlGroup, m.At
	p.arm()
}

// arm sets the deadline of a job that has one.
func (p *Process) arm() {
	if p.job.Timeout > 0 && !p.Started.IsZero() {
		p.deadline.set(time.Until(p.Started.Add(p.job.Timeout+p.job.TimeoutStop+graceTime)), p.killJob)
	}
}

// receive returns the next message; a shim that ended without one is ErrShimGone.
func (p *Process) receive() (wire.Message, error) {
	m, files, err := p.conn.Receive()
	for _, f := range files {
		_ = f.Close() // a shim sends none but those of the framing
	}
	if errors.Is(err, io.EOF) {
		err = ErrShimGone
	}
	return m, err
}

// follow waits for the end of the job. What it cannot read is passed over: a shim that is not acknowledged writes a
// record.
func (p *Process) follow() {
	for {
		m, err := p.receive()
		switch {
		case p.leaving.Load():
			return
		case errors.Is(err, wire.ErrMessage):
			p.host.opts.Logger.Warn("cannot read what a job's supervisor says", "job", p.job.ID, "error", err)
		case err != nil:
			p.end(p.remains(err))
			return
		case m.Ended != nil && m.Ended.Job == p.job.ID:
			p.end(*m.Ended)
			return
		}
	}
}

// remains finds out how a job ended whose shim is gone: from the record it wrote, or not at all.
func (p *Process) remains(cause error) spec.Exit {
	exit, err := ReadRecord(p.job.Record)
	if err == nil && exit.Job == p.job.ID {
		return exit
	}
	// Whatever the shim left must not go on unseen.
	detail := cause.Error()
	if empty, err := p.clear(); err != nil {
		detail += "; " + err.Error()
	} else if !empty {
		detail += "; a process of it could not be killed"
	}
	return spec.Exit{Job: p.job.ID, Reason: spec.Lost, Code: -1, Detail: detail, Ended: time.Now()}
}

// ReadRecord reads the exit record that a shim wrote.
func ReadRecord(path string) (spec.Exit, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return spec.Exit{}, fmt.Errorf("cannot read the exit record: %w", err)
	}
	return spec.DecodeExit(b)
}

// end publishes how the job ended.
func (p *Process) end(exit spec.Exit) {
	p.deadline.clear()
	p.exit = exit
	close(p.done)
}

// Done is closed when nothing of the job is left.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the job ended. It may be called once Done is closed.
func (p *Process) Exit() spec.Exit { return p.exit }

// Stop asks the shim to end the job. It returns at once; Done says when it is done.
func (p *Process) Stop(by string, kill bool) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	limit := graceTime
	if !kill {
		limit += p.job.TimeoutStop
	}
	p.deadline.set(limit, p.killJob)
	return p.send(wire.Message{Stop: &wire.Stop{By: by, Kill: kill}})
}

// Release tells the shim that the end of the job is recorded, and waits for the shim to be gone. It may be called once
// Done is closed, and must be, exactly once.
func (p *Process) Release() {
	// A shim that cannot be told has ended by itself.
	_ = p.send(wire.Message{Ack: &wire.Ack{Job: p.job.ID}})
	p.worker.Wait()
	p.reap()
	_ = p.conn.Close() // nothing more is said
	p.removeSocket()
}

// Leave lets go of a job that runs on, or that has ended and could not be recorded: the engine ends. The shim goes on and
// writes a record. It takes the place of Release.
func (p *Process) Leave() {
	p.deadline.clear()
	p.leaving.Store(true)
	_ = p.conn.Close() // what the shim still says goes into its record
	p.worker.Wait()
	if p.command != nil {
		_ = p.command.Process.Release() // it is waited for by whoever inherits it
	}
	p.closePIDFD()
}

func (p *Process) send(m wire.Message) error {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	return p.conn.Send(m)
}
