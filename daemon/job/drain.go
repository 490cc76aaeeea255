package job

import (
	"context"
	"errors"
)

// ErrDraining is returned by Start between Drain and Accept.
var ErrDraining = errors.New("the engine is draining and accepts no new jobs")

// Drain makes Start refuse new jobs with ErrDraining. Jobs that were accepted run to their end, and so do those that the
// end of one of them triggers. It lasts until Accept or Close; another Manager begins without it.
func (m *Manager) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining == nil {
		m.draining = make(chan struct{})
	}
}

// Accept ends what Drain began.
func (m *Manager) Accept() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining != nil {
		close(m.draining)
		m.draining = nil
	}
}

// Draining reports whether new jobs are refused.
func (m *Manager) Draining() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.draining != nil
}

// Drained returns when new jobs are refused and none is left, or at once with false where they are not refused, or are
// not any more. It returns ErrClosed, and the cause of ctx's end.
func (m *Manager) Drained(ctx context.Context) (bool, error) {
	for {
		draining, next := m.leftToDrain()
		switch {
		case draining == nil:
			return false, nil
		case next == nil:
			return true, nil
		}
		select {
		case <-next:
		case <-draining:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-m.quit:
			return false, ErrClosed
		}
	}
}

// leftToDrain returns the channel that Accept closes, and one that is closed when some job that is left has ended or has
// started those that it triggers; nil: there is none.
func (m *Manager) leftToDrain() (draining, next <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.live {
		if l.snapshot().State != Ended {
			return m.draining, l.done
		}
	}
	for _, started := range m.owing {
		return m.draining, started
	}
	return m.draining, nil
}
