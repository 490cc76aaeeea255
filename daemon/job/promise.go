package job

import (
	"errors"
	"strings"
	"time"

	"github.com/rtask/rtask/daemon/store"
	"github.com/rtask/rtask/sandbox/spec"
)

// Start and Run know a job with Spec.Promised until that time. Retention prunes such a job like any other, since no owner may keep more
// than its share. A small record in the state promised takes its place, which only Start and Run use: who asked for what, how the job
// ended, and the beginning of what it wrote.

const (
	// maxPromises is how many such records each share may have. Beyond that, Start takes no job with Promised from it.
	maxPromises = 100_000
	// promisedReply is how many bytes of each stream they hold.
	promisedReply = 1 << 10
	// promisesOf begins the names of their groups in the store.
	promisesOf = "promised/"
)

// promiseOf returns the record that takes the place of a job's when it is pruned; nil: none.
func promiseOf(records *store.Store[Job], logPath func(id string) string, id string, now time.Time) (*Job, error) {
	j, err := records.Get(id)
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
	if j.Into != "" { // an alias has no MaxReply
		of.ID, of.MaxReply = j.Into, promisedReply
	}
	// If the log cannot be read, the promise has no output.
	result, _ := resultOf(of, logPath(of.ID))
	return &Job{
		Spec: Spec{
			Run: nameOf(j.ID, &j), Owner: j.Owner, Trigger: j.Trigger, Digest: j.Digest, Promised: j.Promised,
		},
		Into: j.Into, User: j.User, State: promised, Place: spec.Place{StartedAt: j.StartedAt}, QueuedAt: j.QueuedAt, EndedAt: j.EndedAt, Exit: j.Exit,
		Reply: &Reply{Stdout: result.Stdout, Stderr: result.Stderr, Truncated: result.Truncated},
	}, nil
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
