package job

import (
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

// A job with Spec.Promised is known to whoever starts it again until that time. Retention prunes it like any other, since
// nobody is to keep more than a share of what is kept. But it leaves a small record behind, in the state promised, of which
// only Start and Run know: who asked for what, how it ended, and the beginning of what it wrote.

const (
	// maxPromises is how many such records each share may have. Beyond that, Start takes no job with Promised from it.
	maxPromises = 100_000
	// promisedReply is how many bytes of each stream they hold.
	promisedReply = 1 << 10
	// promisesOf begins the names of their groups in the store.
	promisesOf = "promised/"
)

// Reply is the beginning of what a job wrote.
type Reply struct {
	Stdout    []byte `cbor:"stdout,omitempty"`
	Stderr    []byte `cbor:"stderr,omitempty"`
	Truncated bool   `cbor:"truncated,omitempty"`
}

// promise returns the record that is to take the place of a job's when it is pruned; nil: none.
func (r *retention) promise(id string, now time.Time) (*Job, error) {
	j, err := r.store.Get(id)
	var damaged *store.DecodeError
	switch {
	case errors.As(err, &damaged), errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case !j.Promised.After(now):
		return nil, nil
	}
	of := j
	of.MaxReply = min(of.MaxReply, promisedReply)
	if j.Into != "" { // an alias does not know how much it is
		of.ID, of.MaxReply = j.Into, promisedReply
	}
	// A log that is not there, or cannot be read, leaves a reply without what is in it.
	result, _ := outputOf(of, func(yield func(log.Entry) error) error { return readLog(r.logPath(of.ID), yield) })
	return &Job{
		Spec: Spec{
			Run: nameOf(j.ID, &j), Owner: j.Owner, Trigger: j.Trigger, Digest: j.Digest, Promised: j.Promised,
		},
		Into: j.Into, User: j.User, State: promised, Place: spec.Place{StartedAt: j.StartedAt}, QueuedAt: j.QueuedAt, EndedAt: j.EndedAt, Exit: j.Exit,
		Reply: &Reply{Stdout: result.Stdout, Stderr: result.Stderr, Truncated: result.Truncated},
	}, nil
}

// readLog passes on what is in a log.
func readLog(path string, yield func(log.Entry) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for reader := log.NewReader(f, 0); ; {
		e, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = yield(e)
		}
		if err != nil {
			return err
		}
	}
}

// kept returns the result in the record of a promise.
func kept(j Job) Result {
	r := Result{Job: j}
	if j.Reply != nil {
		r.Stdout, r.Stderr, r.Truncated = j.Reply.Stdout, j.Reply.Stderr, j.Reply.Truncated
	}
	r.State, r.Reply = Ended, nil
	if r.Exit == nil {
		r.Exit = &spec.Exit{Job: j.ID, Reason: spec.Lost, Code: -1}
	}
	if j.Into != "" {
		r.ID, r.Into = j.Into, ""
	}
	return r
}

// isPromises reports whether a group in the store is one of promises.
func isPromises(group string) bool { return strings.HasPrefix(group, promisesOf) }

// another reports whether a job in memory is one that s had under another id. Manager.mu is held.
func (m *Manager) another(s *Spec) bool {
	now := time.Now()
	for _, id := range s.Otherwise {
		if a := m.aliases[id]; a != nil && a.promised.After(now) {
			return true
		}
		if l := m.live[id]; l != nil && l.snapshot().Promised.After(now) {
			return true
		}
	}
	return false
}
