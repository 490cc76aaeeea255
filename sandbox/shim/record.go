package shim

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/durable"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// ackTimeout is how long a shim that has told its engine the end of a job waits to hear that this was understood. After
	// it (an engine that was stopped with SIGSTOP, say) the shim writes the record itself.
	ackTimeout = 5 * time.Second
	// recordAgain is the time between two attempts to write an exit record.
	recordAgain = 2 * time.Second
	// recordTime is when a shim gives up a record that cannot be written: long enough to make room on a full disk.
	recordTime = time.Hour
)

// report sends the end of the job to the engine. If no engine takes it over, the shim writes it to disk.
func (s *shim) report(j *spec.Run, exit *spec.Exit) {
	now := time.Now()
	p := pending{exit: exit, path: j.Record, due: now.Add(ackTimeout), giveUp: now.Add(recordTime)}
	recorded := false
	if j.RecordAlways {
		err := writeRecord(j.Record, exit)
		if err != nil {
			exit.Detail = strings.TrimPrefix(exit.Detail+"; "+err.Error(), "; ")
		}
		recorded = err == nil
	}
	s.tell(wire.Message{Ended: exit})
	if recorded {
		return
	}
	s.pending = append(s.pending, p)
	if s.conn == nil {
		s.pendingNow()
	}
}

// acknowledged lets go of an end that an engine took over.
func (s *shim) acknowledged(id string) {
	s.pending = slices.DeleteFunc(s.pending, func(p pending) bool { return p.exit.Job == id })
}

// pendingExit returns the end of a job that no engine has taken over yet, or nil.
func (s *shim) pendingExit(id string) *spec.Exit {
	for _, p := range s.pending {
		if p.exit.Job == id {
			return p.exit
		}
	}
	return nil
}

// due returns a channel that receives when the next pending end must be written to disk, and a function that releases the channel.
func (s *shim) due() (<-chan time.Time, func()) {
	if len(s.pending) == 0 {
		return nil, func() {}
	}
	next := s.pending[0].due
	for _, p := range s.pending {
		if p.due.Before(next) {
			next = p.due
		}
	}
	t := time.NewTimer(time.Until(next))
	return t.C, func() { t.Stop() }
}

// pendingNow writes down all that is pending.
func (s *shim) pendingNow() {
	for i := range s.pending {
		s.pending[i].due = time.Time{}
	}
	s.writePending()
}

// writePending writes the pending ends that are due. An exit record may be the only trace of a job's end. So if it cannot be written (a
// full disk), the shim tries again for a long time, and tells an engine that comes back before.
func (s *shim) writePending() {
	now := time.Now()
	s.pending = slices.DeleteFunc(s.pending, func(p pending) bool {
		if p.due.After(now) {
			return false
		}
		err := writeRecord(p.path, p.exit)
		if err != nil && mayPass(err) && now.Before(p.giveUp) {
			return false
		}
		s.failed = errors.Join(s.failed, err)
		return true
	})
	for i := range s.pending {
		if !s.pending[i].due.After(now) {
			s.pending[i].due = now.Add(recordAgain)
		}
	}
}

// mayPass reports whether err may go away, for example when an operator makes room on the disk.
func mayPass(err error) bool {
	for _, e := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// writeRecord writes how a job ended where an engine that comes back finds it: whole or not at all, and on disk when it
// returns (temporary file, fsync, rename, fsync of the folder).
func writeRecord(path string, exit *spec.Exit) (err error) {
	b, err := exit.Encode()
	if err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(path), ".exit-"+filepath.Base(path))
	if err := durable.Replace(path, next, b, 0o600); err != nil {
		return fmt.Errorf("cannot write the exit record: %w", err)
	}
	return nil
}

// handle does what can be asked for at any time, whatever runs, and reports whether it was that.
func (s *shim) handle(ev event) bool {
	closeFiles(ev.files)
	switch m := ev.message; {
	case ev.err != nil:
		if !errors.Is(ev.err, io.EOF) && ev.conn == s.conn {
			s.failed = errors.Join(s.failed, ev.err)
		}
		if ev.conn == s.conn {
			s.conn = nil
			// The next engine finds the ends that this one did not hear of.
			s.pendingNow()
		}
	case m.Ack != nil:
		s.acknowledged(m.Ack.Job)
	case m.Hello != nil:
		// What is asked for by another connection than the engine's own is answered there: there may be one for each job.
		if exit := s.pendingExit(m.Hello.Job); exit != nil {
			_ = ev.conn.Send(wire.Message{Ended: exit}) // an engine that is gone again finds the record
		} else {
			s.refuse(ev.conn, m.Hello.Job)
		}
	default:
		return false
	}
	return true
}
