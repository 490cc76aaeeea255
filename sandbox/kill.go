package sandbox

import (
	"errors"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
)

// deadline is when the engine stops waiting for a shim to end its job. Its zero value is ready.
type deadline struct {
	mu    sync.Mutex // guards what follows, and is held while what was to be called runs
	timer *time.Timer
	at    time.Time
	over  bool // it is not set again
}

// set has do called after d, unless it is to be called before that already.
func (l *deadline) set(d time.Duration, do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now().Add(d)
	if l.over || l.timer != nil && l.at.Before(at) {
		return
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.at = at
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer = nil
		if !l.over {
			do()
		}
	})
}

// clear ends it for good. What was to be called is not running any more when it returns.
func (l *deadline) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.timer != nil {
		l.timer.Stop()
	}
}

// scopeGroup returns the control group that the shim and the job are in, or "".
func (p *Process) scopeGroup() string {
	if p.scope.ControlGroup == "" && p.ControlGroup != "" {
		return path.Dir(p.ControlGroup)
	}
	return p.scope.ControlGroup
}

// killJob ends the job from outside if the shim does not do it in time: an exec that never returns (a dead FUSE mount)
// holds all of a Go process that waits for it. Where there is no control group, it ends the shim.
func (p *Process) killJob() {
	p.host.opts.Logger.Warn("job's supervisor does not end it in time, killing it from outside", "job", p.job.ID)
	group := p.scopeGroup()
	if group == "" {
		p.killAll()
		return
	}
	// The name of the group is the job's alone, so this hits nobody else if the job has ended meanwhile.
	if _, err := cgroup.KillAt(p.host.mount, group+"/job-"+p.job.ID, 0); err != nil {
		p.host.opts.Logger.Error("cannot kill a job", "job", p.job.ID, "error", err)
	}
}

// killAll ends the shim, and where there is a control group, everything else in it.
func (p *Process) killAll() {
	var err error
	if group := p.scopeGroup(); group != "" {
		_, err = cgroup.KillAt(p.host.mount, group, 0)
	}
	if p.pidfd != nil {
		if e := unix.PidfdSendSignal(int(p.pidfd.Fd()), unix.SIGKILL, nil, 0); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, e)
		}
	} else if p.command != nil {
		_ = p.command.Process.Kill() // an error means that it has ended
	}
	if err != nil {
		p.host.opts.Logger.Error("cannot kill a job's supervisor", "job", p.job.ID, "error", err)
	}
}

// clear ends everything that is left of the job, and reports whether that is known to be nothing. Without a control group
// only the shim can be ended.
func (p *Process) clear() (empty bool, err error) {
	p.killAll()
	if group := p.scopeGroup(); group != "" {
		return cgroup.KillAt(p.host.mount, group, goneTime)
	}
	return true, nil
}

// abort ends a shim that was given no job, or that did not take it.
func (p *Process) abort() error {
	err := p.conn.Close()
	_, e := p.clear()
	p.reap()
	p.removeSocket()
	return errors.Join(err, e)
}

// reap waits for the shim to be gone. One that does not go is killed; one that hangs in the kernel is left.
func (p *Process) reap() {
	defer p.closePIDFD()
	if p.pidfd != nil && !ended(p.pidfd, goneTime) {
		p.host.opts.Logger.Warn("job's supervisor does not end, killing it", "job", p.job.ID)
		p.killAll()
		if !ended(p.pidfd, goneTime) {
			return
		}
	}
	if p.command != nil {
		_ = p.command.Wait() // how a shim ends says nothing of its job
	}
}

// ended reports whether a process has ended, which makes its pidfd readable (pidfd_open(2)). It waits for that for limit.
func ended(pidfd *os.File, limit time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for until := time.Now().Add(limit); ; {
		n, err := unix.Poll(fds, int(max(time.Until(until), 0)/time.Millisecond)+1)
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) || time.Now().After(until) {
			return false
		}
	}
}

func (p *Process) closePIDFD() {
	if p.pidfd != nil {
		_ = p.pidfd.Close() // a pidfd has nothing to lose
	}
}

// removeSocket removes what the shim removes itself unless it was killed.
func (p *Process) removeSocket() {
	_ = os.Remove(p.host.socketPath(p.job.ID)) // it is gone, or of no consequence
}
