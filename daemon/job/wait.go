package job

import (
	"context"
	"fmt"
)

// Result is a job that has ended, and the beginning of what it wrote.
type Result struct {
	Job
	// Stdout and Stderr are at most Spec.MaxReply bytes each, and empty for a job of which the reply is gone: one that
	// ended before this call, or under another engine.
	Stdout, Stderr []byte
	// Truncated: there was more.
	Truncated bool
}

// Wait returns when the job of this id has ended, with its result. It returns ErrNotFound, ErrClosed when Close comes
// first, and the cause of ctx's end.
func (m *Manager) Wait(ctx context.Context, id string) (Result, error) {
	id = m.resolve(id)
	m.mu.Lock()
	l, ok := m.live[id]
	m.mu.Unlock()
	if ok {
		return m.wait(ctx, l)
	}
	j, err := m.records.get(id)
	if err == nil && j.State == promised {
		err = fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	if err != nil {
		return Result{}, err
	}
	return Result{Job: j}, nil
}

func (m *Manager) wait(ctx context.Context, l *live) (Result, error) {
	select {
	case <-l.done:
		return l.result, l.err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	case <-m.quit:
		return Result{}, ErrClosed
	}
}
