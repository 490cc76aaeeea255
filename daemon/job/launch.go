package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
	"golang.org/x/sys/unix"
)

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
	m.inputs.drop(&before)
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
	if err := m.lease(l, key); err != nil {
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
