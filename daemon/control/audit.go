package control

import (
	"context"
	"log/slog"
)

// The values of decision.decision.
const (
	accepted = "accepted"
	refused  = "refused"
	// ignored is a webhook for an event or a ref that its task is not about.
	ignored = "ignored"
)

// decision is what became of a request from the network, for who asks later. Never a secret, and of what strangers make up no
// more than longestTask bytes.
type decision struct {
	decision string
	// kind is that of a refusal, and reason what the requester was not told of it.
	kind, reason string
	task, key    string
	webhook      string
	remote       string
	delivery     string
	job          string
}

// audit writes one entry of the journal. Its attributes become the entry's fields (see package logging).
func (s *Server) audit(d decision) {
	message := "request " + d.decision
	if d.webhook != "" {
		message = "webhook request " + d.decision
	}
	var attrs []slog.Attr
	for _, f := range []struct{ name, value string }{
		{"RTASK_DECISION", d.decision}, {"RTASK_KIND", d.kind}, {"RTASK_TASK", d.task}, {"RTASK_KEY", d.key}, {"RTASK_WEBHOOK", d.webhook},
		{"RTASK_REMOTE_ADDR", d.remote}, {"RTASK_DELIVERY", d.delivery}, {"RTASK_JOB_ID", d.job}, {"RTASK_REASON", d.reason},
	} {
		if f.value != "" {
			attrs = append(attrs, slog.String(f.name, f.value))
		}
	}
	s.Logger.LogAttrs(context.Background(), slog.LevelInfo, message, attrs...)
}
