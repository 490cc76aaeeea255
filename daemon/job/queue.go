package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rtask/rtask/sandbox/durable"
	"github.com/rtask/rtask/sandbox/spec"
)

// maxInline is the longest input that is kept in a job's record, in bytes.
const maxInline = 64 << 10

// enqueue has a job wait that is on record now.
func (m *Manager) enqueue(l *live) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.workers.Done() // it waits for the next engine
		return
	}
	if l.stop != nil {
		o := *l.stop
		m.workers.Go(func() { m.endQueued(l, o) })
		return
	}
	m.admission.Enqueue(l.ticket)
	m.startQueued()
}

// endQueued ends a job that was stopped before its turn came, and is in no queue.
func (m *Manager) endQueued(l *live, o StopOptions) {
	m.end(l, spec.Exit{Job: l.job.ID, Reason: spec.Stopped, Code: -1, Detail: "stopped by " + o.By + " before its turn came", Ended: time.Now()})
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
		l.job.State = Running
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
		if err = m.record(context.Background(), l); err == nil {
			break
		}
		m.opts.Logger.Error("cannot start a job that waits", "job", l.job.ID, "error", err)
		err = pause(recordAgain, m.quit)
	}
	if err == nil && l.input == nil {
		if l.input, err = m.readInput(&l.job); err != nil {
			m.opts.Logger.Error("cannot read the input of a job that waited", "job", l.job.ID, "error", err)
			err = m.fail(l, err)
		}
	}
	if err != nil {
		m.workers.Done() // it waits on, for the next engine
		return
	}
	m.launch(context.Background(), l)
}

// leaseQueued gets a slot for a job that waited. It returns ErrClosed.
func (m *Manager) leaseQueued(l *live) error {
	for {
		j := m.snapshot(l)
		key := slotKey(&j)
		if m.leaseFor(l, key) == nil {
			return nil
		}
		if err := pause(waitAgain, m.quit); err != nil {
			return err
		}
	}
}

// leaseFor gets a slot for a job.
func (m *Manager) leaseFor(l *live, key string) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.slot, err = m.pool.lease(&l.job, key)
	return err
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

// fail ends a job that could not be launched. It returns cause.
func (m *Manager) fail(l *live, cause error) error {
	m.end(l, spec.Exit{Job: l.job.ID, Reason: spec.Setup, Code: -1, Detail: cause.Error(), Ended: time.Now()})
	close(l.ready)
	return cause
}

// inputPath is where a long input is kept.
func (m *Manager) inputPath(j *Job) string {
	return filepath.Join(m.opts.StateDir, "inputs", cmp.Or(j.InputName, j.ID))
}

// keepInput keeps a job's input with its record, so that any engine can start it.
func (m *Manager) keepInput(l *live) error {
	m.mu.Lock()
	j, input := &l.job, l.input
	if j.InputFile = len(input) > maxInline; !j.InputFile {
		j.Input = input
	}
	long := j.InputFile
	m.mu.Unlock()
	if !long {
		return nil
	}
	return writeInput(m.inputPath(j), input)
}

// writeInput writes a file that is there for good when it returns.
func writeInput(path string, input []byte) error {
	if err := durable.Create(path, input, 0o600); err != nil {
		return fmt.Errorf("cannot keep the job's input: %w", err)
	}
	return nil
}

// readInput is what keepInput kept.
func (m *Manager) readInput(j *Job) ([]byte, error) {
	if !j.InputFile {
		return j.Input, nil
	}
	return os.ReadFile(m.inputPath(j))
}

// inputSize is how long the input of a job is that an earlier engine left.
func (m *Manager) inputSize(j *Job) int64 {
	if !j.InputFile {
		return int64(len(j.Input))
	}
	fi, err := os.Stat(m.inputPath(j))
	if err != nil {
		return 0 // its start says what is wrong
	}
	return fi.Size()
}

// dropInput removes an input that is not needed any more.
func (m *Manager) dropInput(j *Job) {
	if !j.InputFile {
		return
	}
	if err := os.Remove(m.inputPath(j)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.opts.Logger.Warn("cannot remove the input of a job", "job", j.ID, "error", err)
	}
}
