package job

import (
	"context"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// enqueue has a job wait that is on record now.
func (m *Manager) enqueue(l *live) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.workers.Done() // it waits for the next engine
		return
	}
	l.mu.Lock()
	stop := l.stop
	l.mu.Unlock()
	if stop != nil {
		m.workers.Go(func() { m.endQueued(l, *stop) })
		return
	}
	m.admission.Enqueue(l.ticket)
	m.startQueued()
}

// endQueued ends a job that was stopped before its turn came, and is in no queue.
func (m *Manager) endQueued(l *live, o StopOptions) {
	m.end(l, spec.Exit{Job: l.snapshot().ID, Reason: spec.Stopped, Code: -1, Detail: "stopped by " + o.By + " before its turn came", Ended: time.Now()})
	close(l.ready)
	m.workers.Done()
}

// startQueued starts those that have their turn now. Manager.mu is held.
func (m *Manager) startQueued() {
	if m.closed {
		return
	}
	for _, t := range m.admission.Next() {
		l := m.live[t.ID]
		l.change(func(j *Job) { j.State = Running })
		go m.dispatch(l)
	}
}

// waitAgain is the time between two attempts to get a uid for a job whose turn has come.
const waitAgain = 200 * time.Millisecond

// dispatch starts a job whose turn has come. Until that is on record it is not started; a disk that is full has room some
// day.
func (m *Manager) dispatch(l *live) {
	err := m.leaseQueued(l)
	for err == nil {
		if err = m.records.record(context.Background(), l); err == nil {
			break
		}
		m.opts.Logger.Error("cannot start a job that waits", "job", l.snapshot().ID, "error", err)
		err = pause(recordAgain, m.quit)
	}
	if err != nil { // it waits on, for the next engine
		if l.slot != nil {
			m.pool.end(l.slot, nil)
		}
		m.workers.Done()
		return
	}
	if j := l.snapshot(); l.input == nil {
		if l.input, err = m.inputs.read(&j); err != nil {
			m.opts.Logger.Error("cannot read the input of a job that waited", "job", j.ID, "error", err)
			m.end(l, *setupFailed(l, err))
			close(l.ready)
			m.workers.Done()
			return
		}
	}
	m.launch(context.Background(), l)
}

// leaseQueued gets a slot for a job that waited. It returns ErrClosed.
func (m *Manager) leaseQueued(l *live) error {
	for {
		j := l.snapshot()
		key := slotKey(&j)
		if m.runner.lease(l, key) == nil {
			return nil
		}
		if err := pause(waitAgain, m.quit); err != nil {
			return err
		}
	}
}

// pause waits, and returns ErrClosed when quit is closed before.
func pause(d time.Duration, quit <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-quit:
		return ErrClosed
	}
}
