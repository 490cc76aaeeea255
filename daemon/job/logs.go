package job

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rtask/rtask/sandbox/log"
)

// LogOptions say which part of a job's output to stream.
type LogOptions struct {
	// Follow goes on until the job has ended.
	Follow bool
	// View is which part of it to stream: all of it, unless it says otherwise.
	log.View
}

// StreamLogs calls yield with the output of the job of this id, piece by piece in order. Without Follow it ends at what
// there is now; with it, when the job has ended, or Until has come, and all of the output was passed on. The entry's data is good until yield
// returns. It returns what yield returns, ctx's error, ErrNotFound where there is no such output, and ErrClosed.
func (m *Manager) StreamLogs(ctx context.Context, id string, o LogOptions, yield func(log.Entry) error) error {
	if !validID(id) {
		return fmt.Errorf("%q: %w", id, ErrNotFound) // it becomes part of a path
	}
	id = m.resolve(id)
	m.mu.Lock()
	l, ok := m.live[id]
	m.mu.Unlock()
	done := closed()
	if ok && !o.Follow {
		select {
		case <-l.ready:
		default:
			return nil // it has written nothing so far
		}
	} else if ok {
		select { // until it has a log
		case <-l.ready:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.quit:
			return ErrClosed
		}
		done = l.done
	}
	f, err := os.Open(m.opts.logPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		if m.neverRan(id) {
			return nil
		}
		return fmt.Errorf("there is no output of job %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("cannot read the output of job %s: %w", id, err)
	}
	defer f.Close()
	err = m.watcher.Follow(ctx, f, o.View, done, yield)
	if errors.Is(err, log.ErrClosed) {
		return ErrClosed
	}
	return err
}

// neverRan reports whether a job has ended without having run. It is a function of its own so that a Job, which is large, takes up
// no room on the stack of each follower.
func (m *Manager) neverRan(id string) bool {
	j, err := m.Status(id)
	return err == nil && j.State == Ended && j.StartedAt.IsZero()
}

// Output returns a job with the beginning of what it wrote, as its Result would have had it, read from its log.
func (m *Manager) Output(ctx context.Context, j Job) (Result, error) {
	return outputOf(j, func(yield func(log.Entry) error) error { return m.StreamLogs(ctx, j.ID, LogOptions{}, yield) })
}

// outputOf is Output, from a log that read passes on.
func outputOf(j Job, read func(yield func(log.Entry) error) error) (Result, error) {
	r := Result{Job: j}
	var all uint64
	if j.Exit != nil {
		all = j.Exit.LogBytes
	}
	err := read(func(e log.Entry) error {
		to := &r.Stdout
		if e.Stream == log.Stderr {
			to = &r.Stderr
		}
		data := e.Data
		if room := j.MaxReply - int64(len(*to)); int64(len(data)) > room {
			data, r.Truncated = data[:room], true
		}
		*to = append(*to, data...)
		if r.Truncated && int64(len(r.Stdout)) >= j.MaxReply && (j.RedirectStderr || int64(len(r.Stderr)) >= j.MaxReply) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	r.Truncated = r.Truncated || all > uint64(len(r.Stdout)+len(r.Stderr))
	return r, err
}

// errEnough ends the reading of a log of which no more is wanted.
var errEnough = errors.New("enough")
