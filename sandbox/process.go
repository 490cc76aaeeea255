package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
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

	deadlineMu sync.Mutex // guards deadline
	deadline   *time.Timer
}

// Start starts a job and returns when its main process runs. A job that cannot be started is no error of Start: it has
// ended with the reason Setup. An error is a failure of the machinery, and nothing is left of the job then.
func (h *Host) Start(ctx context.Context, r Request) (*Process, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &Process{host: h, job: r.Job, conn: conn, done: make(chan struct{})}
	if err := p.fork(theirs); err != nil {
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
	p.arm(startTimeout)
	m, err := p.receive()
	p.disarm()
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

func (p *Process) started(m *wire.Started) {
	p.PID, p.ControlGroup, p.Started = m.PID, m.ControlGroup, m.At
	if p.job.Timeout > 0 {
		p.arm(time.Until(p.Started.Add(p.job.Timeout + p.job.TimeoutStop + graceTime)))
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

// follow waits for the end of the job.
func (p *Process) follow() {
	for {
		m, err := p.receive()
		if p.leaving.Load() {
			return
		}
		if err != nil {
			p.end(p.remains(err))
			return
		}
		if m.Ended != nil {
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
	if p.ControlGroup != "" {
		if err := cgroup.KillAt(p.host.mount, p.ControlGroup); err != nil && !errors.Is(err, os.ErrNotExist) {
			detail += "; " + err.Error()
		}
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
	p.disarm()
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
	p.arm(p.job.TimeoutStop + graceTime)
	return p.send(wire.Message{Stop: &wire.Stop{By: by, Kill: kill}})
}

// Release tells the shim that the end of the job is recorded, and waits for the shim to be gone. It may be called once
// Done is closed, and must be, exactly once.
func (p *Process) Release() {
	// A shim that cannot be told has ended by itself.
	_ = p.send(wire.Message{Ack: &wire.Ack{Job: p.job.ID}})
	p.worker.Wait()
	p.reap()
	_ = p.conn.Close()                         // nothing more is said
	_ = os.Remove(p.host.socketPath(p.job.ID)) // the shim does it, unless it was killed
}

// Leave lets go of a job that runs on: the engine ends. The shim goes on and writes a record.
func (p *Process) Leave() {
	p.disarm()
	p.leaving.Store(true)
	_ = p.conn.Close() // what the shim still says goes into its record
	p.worker.Wait()
}

func (p *Process) send(m wire.Message) error {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	return p.conn.Send(m)
}

// abort ends a shim that was given no job, or that did not take it.
func (p *Process) abort() error {
	err := p.conn.Close()
	if p.scope.ControlGroup != "" {
		err = errors.Join(err, cgroup.KillAt(p.host.mount, p.scope.ControlGroup))
	} else if e := p.command.Process.Kill(); e != nil && !errors.Is(e, os.ErrProcessDone) {
		err = errors.Join(err, e)
	}
	p.reap()
	return err
}

// reap waits for the shim, where it is a child of this engine.
func (p *Process) reap() {
	if p.command != nil {
		_ = p.command.Wait() // how a shim ends says nothing of its job
	}
	if p.pidfd != nil {
		_ = p.pidfd.Close() // a pidfd has nothing to lose
	}
}

// arm ends the job from outside if the shim does not do it in time: an exec that never returns (a dead FUSE mount) holds
// all of a Go process that waits for it.
func (p *Process) arm(d time.Duration) {
	p.deadlineMu.Lock()
	defer p.deadlineMu.Unlock()
	if p.deadline != nil {
		p.deadline.Stop()
	}
	p.deadline = time.AfterFunc(d, p.killFromOutside)
}

func (p *Process) disarm() {
	p.deadlineMu.Lock()
	defer p.deadlineMu.Unlock()
	if p.deadline != nil {
		p.deadline.Stop()
	}
}

func (p *Process) killFromOutside() {
	p.host.opts.Logger.Warn("job's supervisor does not answer, killing the job from outside", "job", p.job.ID)
	group := p.ControlGroup
	if group == "" && p.scope.ControlGroup != "" {
		group = p.scope.ControlGroup + "/job-" + p.job.ID
	}
	if group == "" {
		if p.command != nil {
			_ = p.command.Process.Kill() // an error means that it has ended
		}
		return
	}
	if err := cgroup.KillAt(p.host.mount, group); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.host.opts.Logger.Error("cannot kill a job", "job", p.job.ID, "error", err)
	}
}

// Left is what the engine remembers of a job that it did not see end.
type Left struct {
	Job     spec.Job
	Unit    string
	Started time.Time
}

// Find finds a job that an earlier engine started: it reads its exit record, or connects to its shim. A job that is found
// to have ended, and one that is Lost, comes back as a Process that is done.
func (h *Host) Find(l Left) (*Process, error) {
	p := &Process{host: h, job: l.Job, Unit: l.Unit, Started: l.Started, done: make(chan struct{})}
	if exit, err := ReadRecord(l.Job.Record); err == nil && exit.Job == l.Job.ID {
		return p.foundEnded(exit)
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: h.socketPath(l.Job.ID), Net: "unixpacket"})
	if err == nil {
		err = p.greet(c)
	}
	if err != nil {
		// The shim may have written its record between the look and the call.
		return p.foundEnded(p.remains(ErrShimGone))
	}
	return p, nil
}

func (p *Process) foundEnded(exit spec.Exit) (*Process, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	_ = theirs.Close() // nobody is there; sending to it fails, as to a shim that has ended
	p.conn = conn
	p.end(exit)
	return p, nil
}

// greet asks the shim behind c for its job.
func (p *Process) greet(c *net.UnixConn) error {
	conn, err := wire.NewConn(c)
	if err != nil {
		return err
	}
	if err := conn.Send(wire.Message{Hello: &wire.Hello{Job: p.job.ID}}); err != nil {
		return errors.Join(err, conn.Close())
	}
	p.conn = conn
	m, err := p.receive()
	switch {
	case err != nil:
		return errors.Join(err, conn.Close())
	case m.Started != nil && m.Started.Job == p.job.ID:
		p.started(m.Started)
		p.worker.Go(p.follow)
	case m.Ended != nil && m.Ended.Job == p.job.ID:
		p.end(*m.Ended)
	default:
		return errors.Join(wire.ErrMessage, conn.Close())
	}
	return nil
}

// UnitNumber returns N of "rtask-TASK-N.scope", or 0.
func UnitNumber(unit string) uint64 {
	name := strings.TrimSuffix(unit, ".scope")
	n, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
