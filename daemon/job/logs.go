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

// streamer passes on what jobs write.
type streamer struct {
	opts    *Options
	records *ledger
	watcher *log.Watcher
}

// stream is Manager.StreamLogs.
func (s *streamer) stream(ctx context.Context, id string, o LogOptions, yield func(log.Entry) error) error {
	if !validID(id) {
		return fmt.Errorf("%q: %w", id, ErrNotFound) // it becomes part of a path
	}
	id = s.records.resolve(id)
	l := s.records.jobs.get(id)
	done := closed()
	if l != nil && !o.Follow {
		select {
		case <-l.ready:
		default:
			return nil // it has written nothing so far
		}
	} else if l != nil {
		select { // until it has a log
		case <-l.ready:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.records.jobs.quit:
			return ErrClosed
		}
		done = l.done
	}
	f, err := os.Open(s.opts.logPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		if s.neverRan(id) {
			return nil
		}
		return fmt.Errorf("there is no output of job %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("cannot read the output of job %s: %w", id, err)
	}
	defer f.Close()
	err = s.watcher.Follow(ctx, f, o.View, done, yield)
	if errors.Is(err, log.ErrClosed) {
		return ErrClosed
	}
	return err
}

// neverRan reports whether a job has ended without having run. It is a function of its own because a Job is large: it should not be on
// the stack of each follower.
func (s *streamer) neverRan(id string) bool {
	j, err := s.records.find(id, nil)
	return err == nil && j.State == Ended && j.StartedAt.IsZero()
}
