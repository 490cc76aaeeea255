package gateway

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/jobid"
)

// webhook serves /wh/{hash}. It hands on the request as it is; which methods there are, whether the request is good, and what comes
// of it, the engine says.
func (a *api) webhook(w http.ResponseWriter, r *http.Request, hash string) {
	client := codec.Presented{RemoteAddr: a.remoteAddr(r)}
	asking := working(r) // which may outlast a restart of the engine
	defer asking()
	framing, err := call(r.Context(), client, a.engine.WebhookFraming, &rtaskv1.WebhookFramingRequest{Hash: hash, Method: r.Method})
	if err != nil {
		// Of what comes to no webhook's URL not a byte is read.
		closeAfter(w, r)
		writeProblem(w, a.problemOf(err))
		return
	}
	if r.Method == http.MethodHead { // a sender that looks whether the URL is there before it uses it
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		return
	}
	if methods := methodsOf(framing); !slices.Contains(methods, r.Method) {
		closeAfter(w, r)
		notAllowed(w, append([]string{http.MethodHead}, methods...))
		return
	}
	asking()
	sender := senderOf(r, client.RemoteAddr)
	got, p := a.readBody(w, r, a.strangers, sender, framing.MaxInputBytes)
	if p != nil {
		writeProblem(w, *p)
		a.refused(r, client, &rtaskv1.RefusedRequest{Hash: hash}, *p)
		return
	}
	defer got.release()
	done := working(r)
	defer done()
	request := &rtaskv1.WebhookRequest{
		Hash: hash, Headers: headers(r, ""), Id: jobid.New(), Body: got.bytes, BodyTooLarge: got.tooLong,
		Method: r.Method, Query: []byte(r.URL.RawQuery), Url: urlOf(r),
	}
	if framing.Streams {
		a.webhookStream(w, r, client, request, got.release)
		return
	}
	reply, err := persist(r.Context(), func(ctx context.Context) (*rtaskv1.WebhookResponse, error) {
		m, err := a.engine.Webhook(client.Context(ctx), request)
		request.Again = true
		return m, err
	})
	if err != nil {
		done()
		writeProblem(w, a.problemOf(err))
		return
	}
	if reply.Run != nil { // what is ignored may not even be signed
		a.strangers.praise(sender)
	}
	writeAnswer(w, reply)
}

// writeAnswer sends the engine's answer to a webhook's request.
func writeAnswer(w http.ResponseWriter, m *rtaskv1.WebhookResponse) {
	switch {
	case m.Reply != nil:
		writeReply(w, m)
	case m.Person:
		writePerson(w, m)
	case m.Run == nil:
		writeJSON(w, http.StatusOK, "application/json", struct {
			Status    string `json:"status"`
			Reason    string `json:"reason,omitempty"`
			Challenge string `json:"challenge,omitempty"`
		}{"ignored", m.Reason, m.Challenge})
	default:
		// Who sends a webhook has no key to ask for the job with, so there is no Location.
		writeRun(w, "", m.Run, int(m.Status))
	}
}

// methodsOf are the methods that a webhook's URL takes beside HEAD. An engine of an earlier version says nothing of them.
func methodsOf(m *rtaskv1.WebhookFramingResponse) []string {
	if len(m.Methods) == 0 {
		return []string{http.MethodPost}
	}
	return m.Methods
}

// urlOf is the URL that a request was sent to, without what only its sender knows: the part behind a "#". What is no UTF-8 in it, no
// sender has signed.
func urlOf(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	url := scheme + "://" + r.Host + r.URL.EscapedPath()
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		url += "?" + r.URL.RawQuery
	}
	return strings.ToValidUTF8(url, "?")
}

// writeReply sends a reply as the engine has made it.
func writeReply(w http.ResponseWriter, m *rtaskv1.WebhookResponse) {
	if id := m.GetRun().GetJob().GetId(); id != "" {
		w.Header().Set("Rtask-Job-Id", id)
	}
	sandboxed(w.Header())
	// Without a type net/http would guess one of the body.
	w.Header()["Content-Type"] = nil
	if m.Reply.ContentType != "" {
		w.Header().Set("Content-Type", m.Reply.ContentType)
	}
	readInTime(w)
	status := int(m.Reply.Status)
	if status < 200 || status > 599 {
		status = http.StatusInternalServerError // which net/http would panic for
	}
	w.WriteHeader(status)
	_, _ = w.Write(m.Reply.Body) // a client that is gone is no error
}

// sandboxed has a browser show a reply whose type and text are not the gateway's own as a page of no origin: it may hold anything, and
// its scripts must not use what the browser knows of this server, such as a password. A link on it does not tell where it was, since the
// URL of a webhook may be all that one needs to know.
func sandboxed(h http.Header) {
	h.Set("Content-Security-Policy", "sandbox allow-scripts")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

// writePerson answers a command or an interaction of Slack (docs.slack.dev/interactivity): the text is shown to the person who gave
// the command, and to nobody else. Without one the body is empty, and nothing is shown.
func writePerson(w http.ResponseWriter, m *rtaskv1.WebhookResponse) {
	if id := m.GetRun().GetJob().GetId(); id != "" {
		w.Header().Set("Rtask-Job-Id", id)
	}
	if m.Text == "" {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		return
	}
	writeJSON(w, http.StatusOK, "application/json", struct {
		Type string `json:"response_type"`
		Text string `json:"text"`
	}{"ephemeral", m.Text})
}
