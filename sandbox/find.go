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

// Find finds a job that an earlier engine placed: it reads its exit record, or connects to its shim. A job that is found to have
// ended, and one that is Lost, comes back as a Process that is done. PID and ControlGroup are not known of a job whose shim did not
// answer in time. ErrNeverBegun is returned for a job that no shim has taken, or ever will. Another error means that nothing could
// be found out.
func (h *Host) Find(r spec.Run, at spec.Place) (*Process, error) {
	p := h.found(r, at)
	if exit, err := ReadRecord(r.Record); err == nil && exit.Job == r.ID {
		p.end(exit)
		return p, nil
	}
	if at.Boot != "" && at.Boot != h.boot {
		p.end(spec.Exit{Job: r.ID, Reason: spec.Lost, Code: -1, Detail: "the machine went down while it ran", Ended: time.Now()})
		return p, nil
	}
	if at.StartedAt.IsZero() {
		untaken, err := h.takeBack(r.ID)
		if err != nil {
			return nil, fmt.Errorf("cannot find job %s: %w", r.ID, err)
		}
		if untaken {
			return nil, ErrNeverBegun
		}
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: h.socketPath(at.Slot), Net: "unixpacket"})
	if err == nil {
		return h.adopt(r, at, c)
	}
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot find job %s: %w", r.ID, err)
	}
	return h.lost(p, at), nil
}

// found returns a Process of which nothing more is known yet.
func (h *Host) found(r spec.Run, at spec.Place) *Process {
	return &Process{Place: at, host: h, job: r, done: make(chan struct{})}
}

// lost ends a job whose shim is gone. The shim may have written its record between the look and the call.
func (h *Host) lost(p *Process, at spec.Place) *Process {
	p.slot = &Slot{ID: at.Slot, Unit: at.Unit, host: h, gone: closed(), controlGroup: h.locate(p.job.ID, at)}
	exit := p.remains()
	_ = os.Remove(h.socketPath(at.Slot)) // nobody listens on it
	p.slot = nil                         // there is nothing to be told or ended
	p.end(exit)
	return p
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// locate asks systemd for the control group of a job's scope, since the job's shim is gone; "": it has none.
func (h *Host) locate(job string, at spec.Place) string {
	if h.manager == nil || at.Unit == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	group, err := h.manager.ControlGroup(ctx, at.Unit)
	if err != nil {
		h.opts.Logger.Warn("cannot look for the scope of a lost job", "job", job, "unit", at.Unit, "error", err)
	}
	return group
}

// adopt asks the shim behind c for its job, and follows it.
func (h *Host) adopt(r spec.Run, at spec.Place, c *net.UnixConn) (*Process, error) {
	conn, err := wire.NewConn(c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s := &Slot{ID: at.Slot, Unit: at.Unit, host: h, conn: conn, gone: make(chan struct{})}
	p := s.process(r)
	p.Place = at
	shim := listener(conn)
	s.worker.Go(s.read)
	m, known := wire.Message{}, false
	if err := s.send(wire.Message{Hello: &wire.Hello{Job: r.ID}}); err == nil {
		t := time.NewTimer(greetTime)
		defer t.Stop()
		select {
		case m, known = <-p.first:
		case <-t.C:
			if p.isFirst() { // from now on this call waits for no answer
				if shim != nil {
					_ = shim.Close() // without an answer it may be of another process that has its PID by now
				}
				// It clears up after its job, and says more, or writes a record.
				p.arm()
				return p, nil
			}
			m, known = <-p.first
		}
	}
	// What was not taken back is here, or over.
	if m.Started == nil && m.Ended == nil {
		if shim != nil {
			_ = shim.Close() // it may be of another process that has its PID by now
		}
		s.End()
		p = h.found(r, at)
		if known {
			// The slot has another job now, and the end of this one is in its exit record, or unknown.
			p.end(p.remains())
			return p, nil
		}
		return h.lost(p, at), nil
	}
	if m.Started != nil {
		s.mu.Lock()
		s.pidfd = shim
		s.mu.Unlock()
	} else if shim != nil {
		_ = shim.Close() // the slot may be another job's now, and is not ended with this one
	}
	p.began(m.Started)
	return p, nil
}

// listener returns a pidfd of the process that listens at the other end, or nil if it cannot get one. A later answer from that process
// proves that the pidfd is its own: a process that answers had its PID all the time.
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
