package sandbox

import (
	"errors"
	"os"
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

// set has do called after d, unless an earlier call is set.
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

// group returns the control group that the shim and its job are in, or "".
func (s *Slot) group() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.controlGroup
}

// killJob ends the job from outside if the shim does not do it in time: an exec that never returns (a dead FUSE mount)
// holds all of a Go process that waits for it. Where there is no control group, it ends the shim.
func (p *Process) killJob() {
	p.host.opts.Logger.Warn("job's supervisor does not end it in time, killing it from outside", "job", p.job.ID)
	group := p.slot.group()
	if group == "" {
		p.slot.kill()
		return
	}
	// The name of the group is the job's alone, so this hits nobody else if the job has ended meanwhile.
	if _, err := cgroup.KillAt(p.host.mount, group+"/job-"+p.job.ID, 0); err != nil {
		p.host.opts.Logger.Error("cannot kill a job", "job", p.job.ID, "error", err)
	}
}

// kill ends the shim, and where there is a control group, everything else in it.
func (s *Slot) kill() {
	var err error
	if group := s.group(); group != "" {
		_, err = cgroup.KillAt(s.host.mount, group, 0)
	}
	if pidfd := s.shim(); pidfd != nil {
		if e := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, e)
		}
	} else if s.command != nil {
		_ = s.command.Process.Kill() // an error means that it has ended
	}
	if err != nil {
		s.host.opts.Logger.Error("cannot kill a job's supervisor", "unit", s.Unit, "error", err)
	}
}

// clear ends everything that is left in the slot, and reports whether that is known to be nothing. Without a control group
// only the shim can be ended.
func (s *Slot) clear() (empty bool, err error) {
	s.kill()
	if group := s.group(); group != "" {
		return cgroup.KillAt(s.host.mount, group, goneTime)
	}
	return true, nil
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
