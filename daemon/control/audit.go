package control

import (
	"context"
	"log/slog"
	"path"
	"strconv"
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
	// actionEnroll is to get a certificate.
	actionEnroll = "enroll"
)

// longestReason is how many bytes of a reason are logged: it may quote what a stranger made up.
const longestReason = 512

// decision is what became of a request, for the audit trail. It has no secret, and at most longestTask or longestReason bytes of what
// a stranger sent. Of a command it has only the program's name, since arguments may be secrets.
type decision struct {
	decision, action string
	// kind is that of a refusal, and reason what the requester was not told of it.
	kind          rtaskv1.Kind
	reason        string
	task, command string
	// key and keyID are of an API key, user is the local user.
	key, keyID, user string
	// subject, serial, provider and role are of a remote client: whose its jobs are, its certificate, who vouched for it, and the roles
	// that allow what it asks for, or all that it has.
	subject, serial, provider, role string
	webhook                         string
	remote                          string
	delivery                        string
	job                             string
	// stranger says that who asked is not known: no key, no signature and no right was good.
	stranger bool
	// moot says that an accepted request changed nothing: a repeat, or the stop of a job that had ended.
	moot bool
	// more says that this is not a decision, but stands for that many like it.
	more int
}

// audit writes one entry of the journal, or, where there are too many of a kind, counts it. What starts or stops a job is always
// an entry.
func (s *Server) audit(d decision) {
	if d.decision == accepted && !d.moot || s.tallies.add(d) {
		s.write(d)
	}
}

// SumUp writes what audit has counted since the last time. The engine calls it once a minute, and when it ends.
func (s *Server) SumUp() {
	for _, d := range s.tallies.take() {
		s.write(d)
	}
}

// write writes an entry, whatever level is logged. Its attributes become the entry's fields (see package logging).
func (s *Server) write(d decision) {
	message := "request " + d.decision
	if d.webhook != "" {
		message = "webhook request " + d.decision
	}
	count := ""
	if d.more > 0 {
		message, count = "more requests "+d.decision+" like this one", strconv.Itoa(d.more)
	}
	r := slog.NewRecord(time.Now(), slog.LevelInfo, message, 0)
	for _, f := range []struct{ name, value string }{
		{"RTASK_DECISION", d.decision}, {"RTASK_ACTION", d.action}, {"RTASK_KIND", string(d.kind)}, {"RTASK_TASK", d.task},
		{"RTASK_COMMAND", cut(d.command, longestTask)}, {"RTASK_KEY", d.key}, {"RTASK_KEY_ID", d.keyID}, {"RTASK_USER", d.user},
		{"RTASK_SUBJECT", cut(d.subject, longestReason)}, {"RTASK_SERIAL", d.serial}, {"RTASK_PROVIDER", d.provider}, {"RTASK_ROLE", cut(d.role, longestReason)},
		{"RTASK_WEBHOOK", d.webhook}, {"RTASK_REMOTE_ADDR", cut(d.remote, longestTask)}, {"RTASK_DELIVERY", d.delivery}, {"RTASK_JOB_ID", d.job},
		{"RTASK_COUNT", count}, {"RTASK_REASON", cut(d.reason, longestReason)},
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

// actionOf is what a call asks for; "": nothing that is audited unless it is refused.
func actionOf(procedure string) string {
	switch procedure {
	case rtaskv1connect.JobServiceStartProcedure, rtaskv1connect.GatewayServiceRunProcedure, rtaskv1connect.GatewayServiceRunFramingProcedure,
		rtaskv1connect.GatewayServiceRunStreamProcedure, rtaskv1connect.JobServiceReplayDeliveryProcedure:
		return actionStart
	case rtaskv1connect.JobServiceStopProcedure, rtaskv1connect.GatewayServiceEndProcedure, rtaskv1connect.GatewayServiceDisconnectedProcedure:
		return actionStop
	case rtaskv1connect.GatewayServiceResultProcedure, rtaskv1connect.GatewayServiceLogsProcedure, rtaskv1connect.GatewayServiceKeyTasksProcedure,
		rtaskv1connect.GatewayServiceKeyJobsProcedure:
		return actionRead
	default:
		return ""
	}
}

// localStart is the decision about a start over the control socket, as far as it is known before there is one.
func localStart(c *call, r *rtaskv1.StartRequest) decision {
	d := c.decision()
	if c.snapshot.Config != nil && !r.Command && c.snapshot.Config.Tasks[r.Name] != nil {
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

// auditStranger writes of a call that was refused before it was read.
func (s *Server) auditStranger(procedure string, c auth.Caller, known bool) {
	d := decision{decision: refused, action: actionOf(procedure), kind: rtaskv1.KindForbidden, user: c.Name(), reason: path.Base(procedure) + ": user " + c.Name() + " may not", stranger: true}
	switch {
	case !known:
		d.user, d.reason = "", path.Base(procedure)+": who calls is not known"
	case c.Peer.InSlice:
		d.reason = path.Base(procedure) + ": a job may not use rtask"
	}
	s.audit(d)
}
