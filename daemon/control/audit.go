package control

import (
	"context"
	"log/slog"
	"maps"
	"path"
	"sync"
	"time"
	"unicode/utf8"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
)

// The values of decision.decision.
const (
	accepted = "accepted"
	refused  = "refused"
	// ignored is a webhook for an event or a ref that its task is not about.
	ignored = "ignored"
)

// The values of decision.action: what was asked for.
const (
	actionStart = "start"
	actionStop  = "stop"
	// actionRead is to see a job's result or output. What was accepted of that is no entry.
	actionRead = "read"
)

// longestReason is how many bytes of a reason are logged: it may quote what a stranger made up.
const longestReason = 512

// Who may not use rtask at all can call as often as it likes: of such calls one in refusalEvery is an entry, after a burst. Each
// user has that for itself, up to refusalUsers of them at a time; the rest have it together.
const (
	refusalEvery = time.Second
	refusalBurst = 30
	refusalUsers = 256
)

// decision is what became of a request, for who asks later. Never a secret, and of what strangers make up no more than
// longestTask bytes, or longestReason. Of a command it has the name of the program alone: arguments are where secrets are.
type decision struct {
	decision, action string
	// kind is that of a refusal, and reason what the requester was not told of it.
	kind, reason  string
	task, command string
	// key and keyID are of an API key, user is the local user.
	key, keyID, user string
	webhook          string
	remote           string
	delivery         string
	job              string
}

// audit writes one entry of the journal, whatever level is logged. Its attributes become the entry's fields (see package
// logging).
func (s *Server) audit(d decision) {
	message := "request " + d.decision
	if d.webhook != "" {
		message = "webhook request " + d.decision
	}
	r := slog.NewRecord(time.Now(), slog.LevelInfo, message, 0)
	for _, f := range []struct{ name, value string }{
		{"RTASK_DECISION", d.decision}, {"RTASK_ACTION", d.action}, {"RTASK_KIND", d.kind}, {"RTASK_TASK", d.task},
		{"RTASK_COMMAND", cut(d.command, longestTask)}, {"RTASK_KEY", d.key}, {"RTASK_KEY_ID", d.keyID}, {"RTASK_USER", d.user},
		{"RTASK_WEBHOOK", d.webhook}, {"RTASK_REMOTE_ADDR", d.remote}, {"RTASK_DELIVERY", d.delivery}, {"RTASK_JOB_ID", d.job},
		{"RTASK_REASON", cut(d.reason, longestReason)},
	} {
		if f.value != "" {
			r.AddAttrs(slog.String(f.name, f.value))
		}
	}
	// Nobody can be told that it cannot be written.
	_ = s.Logger.Handler().Handle(context.Background(), r)
}

// cut returns the first bytes of s, and no part of a character.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for n := most; n > most-utf8.UTFMax; n-- {
		if utf8.RuneStart(s[n]) {
			return s[:n]
		}
	}
	return s[:most]
}

// actionOf is what a client on the network asks for.
func actionOf(r presented) string {
	switch r.(type) {
	case *rtaskv1.RunRequest:
		return actionStart
	case *rtaskv1.EndRequest:
		return actionStop
	default:
		return actionRead
	}
}

// localStart is the decision about a start over the control socket, as far as it is known before there is one.
func localStart(c auth.Caller, snapshot Snapshot, r *rtaskv1.StartRequest) decision {
	d := decision{action: actionStart, user: c.Name()}
	if snapshot.Config != nil && !r.Command && snapshot.Config.Tasks[r.Name] != nil {
		d.task = r.Name
	} else {
		d.command = r.Name
	}
	return d
}

// decide adds to a decision what became of it, and writes it.
func (s *Server) decide(d decision, job string, err error) {
	d.decision, d.job = accepted, job
	if err != nil {
		d.decision, d.kind, d.reason = refused, kindOf(err), errorText(err)
	}
	s.audit(d)
}

// auditStranger writes of a call that was refused before it was read, but not of each one.
func (s *Server) auditStranger(procedure string, c auth.Caller, known bool) {
	who := stranger{known: known, uid: c.Peer.UID}
	d := decision{decision: refused, kind: "forbidden", user: c.Name(), reason: path.Base(procedure) + ": user " + c.Name() + " may not"}
	switch {
	case !known:
		d.user, d.reason = "", path.Base(procedure)+": who calls is not known"
	case c.Peer.InSlice:
		who = stranger{job: true} // which has as many users as it likes
		d.reason = path.Base(procedure) + ": a job may not use rtask"
	}
	if !s.refusals.allow(time.Now(), who) {
		return
	}
	switch procedure {
	case rtaskv1connect.JobServiceStartProcedure:
		d.action = actionStart
	case rtaskv1connect.JobServiceStopProcedure:
		d.action = actionStop
	}
	s.audit(d)
}

// stranger is who shares one allowance of entries: a user, all jobs, or all that are not known.
type stranger struct {
	job, known bool
	uid        uint32
}

// refusals says which calls of strangers are entries. It is safe for concurrent use.
type refusals struct {
	mu sync.Mutex // guards full
	// full is when the next refusalBurst of them are free, for who has used some.
	full map[stranger]time.Time
}

func (r *refusals) allow(now time.Time, who stranger) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full == nil {
		r.full = map[stranger]time.Time{}
	}
	if _, ok := r.full[who]; !ok && who.known && len(r.full) >= refusalUsers {
		maps.DeleteFunc(r.full, func(_ stranger, full time.Time) bool { return !full.After(now) })
		if len(r.full) >= refusalUsers {
			who = stranger{known: true, job: true} // the rest
		}
	}
	full := r.full[who]
	if full.Before(now) {
		full = now
	}
	if full.Sub(now) > (refusalBurst-1)*refusalEvery {
		return false
	}
	r.full[who] = full.Add(refusalEvery)
	return true
}
