package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// greetTime is how long an engine that starts waits for the answer of one shim. A shim that clears up after its job
	// answers later, which is as good.
	greetTime = 2 * time.Second
	// lookTime bounds the question to systemd where the scope of a lost job is.
	lookTime = 10 * time.Second
)

// Left is what the engine remembers of a job that it did not see end.
type Left struct {
	Job     spec.Job
	Unit    string
	Started time.Time
}

// Find finds a job that an earlier engine started: it reads its exit record, or connects to its shim. A job that is found
// to have ended, and one that is Lost, comes back as a Process that is done. PID and ControlGroup are not known of a job
// whose shim did not answer in time. An error means that nothing could be found out.
func (h *Host) Find(l Left) (*Process, error) {
	p := &Process{host: h, job: l.Job, Unit: l.Unit, Started: l.Started, done: make(chan struct{})}
	if exit, err := ReadRecord(l.Job.Record); err == nil && exit.Job == l.Job.ID {
		return p.foundEnded(exit)
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: h.socketPath(l.Job.ID), Net: "unixpacket"})
	switch {
	case err == nil:
		err = p.greet(c)
	case errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, os.ErrNotExist):
		err = ErrShimGone
	}
	if errors.Is(err, ErrShimGone) {
		p.locate()
		// The shim may have written its record between the look and the call.
		return p.foundEnded(p.remains(ErrShimGone))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find job %s: %w", l.Job.ID, err)
	}
	return p, nil
}

// foundEnded makes p a Process that is done.
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

// locate finds out where the scope is of a job whose shim is gone, and cannot say it.
func (p *Process) locate() {
	if p.host.manager == nil || p.Unit == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	group, err := p.host.manager.ControlGroup(ctx, p.Unit)
	if err != nil {
		p.host.opts.Logger.Warn("cannot look for the scope of a lost job", "job", p.job.ID, "unit", p.Unit, "error", err)
		return
	}
	p.scope = scope.Scope{Name: p.Unit, ControlGroup: group}
}

// greet asks the shim behind c for its job, and follows it. It returns ErrShimGone if the shim went before it answered.
func (p *Process) greet(c *net.UnixConn) error {
	conn, err := wire.NewConn(c)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	p.conn = conn
	shim := listener(conn)
	m, err := p.hello()
	if m.Started != nil || m.Ended != nil {
		p.pidfd = shim
	} else if shim != nil {
		_ = shim.Close() // without an answer it may be of another process that has its PID by now
	}
	switch {
	case m.Started != nil:
		p.started(m.Started)
		p.worker.Go(p.follow)
	case m.Ended != nil:
		p.end(*m.Ended)
	case err != nil:
		return errors.Join(err, conn.Close())
	default:
		p.arm()
		p.worker.Go(p.follow)
	}
	return nil
}

// hello returns Started or Ended of the job, or an empty message if the shim lives and says nothing of the kind: it will
// say more, or write a record.
func (p *Process) hello() (wire.Message, error) {
	if err := p.conn.Send(wire.Message{Hello: &wire.Hello{Job: p.job.ID}}); err != nil {
		return wire.Message{}, errors.Join(ErrShimGone, err)
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(greetTime)); err != nil {
		return wire.Message{}, err
	}
	m, err := p.receive()
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, wire.ErrMessage) {
		return wire.Message{}, err
	}
	if err := p.conn.SetReadDeadline(time.Time{}); err != nil {
		return wire.Message{}, err
	}
	if m.Started != nil && m.Started.Job == p.job.ID || m.Ended != nil && m.Ended.Job == p.job.ID {
		return m, nil
	}
	return wire.Message{}, nil
}

// listener returns a pidfd of the process that listens at the other end, or nil where there is none to be had. It is
// proven to be that process's by an answer that comes later: a process that answers had its PID all the time.
func listener(c *wire.Conn) *os.File {
	peer, err := c.Peer()
	if err != nil || peer.Pid <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(int(peer.Pid), 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "shim")
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
