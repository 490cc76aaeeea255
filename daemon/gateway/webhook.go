package gateway

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// bodyTimeout is how long the sender of a webhook may take to send its body, and roomTimeout how long it waits until it
	// may. Together they are about what senders wait for an answer.
	bodyTimeout = 10 * time.Second
	roomTimeout = 5 * time.Second
)

// webhook serves POST /wh/{hash}. It hands on the request as it is; whether it is good, and what comes of it, the engine says.
func (a *api) webhook(w http.ResponseWriter, r *http.Request, hash string) {
	framing, err := persist(r.Context(), func(ctx context.Context) (*connect.Response[rtaskv1.WebhookFramingResponse], error) {
		return a.engine.WebhookFraming(ctx, connect.NewRequest(&rtaskv1.WebhookFramingRequest{Hash: hash, RemoteAddr: a.remoteAddr(r)}))
	})
	if err != nil {
		// Of what comes to no webhook's URL not a byte is read.
		closeAfter(w, r)
		writeProblem(w, a.problemOf(err))
		return
	}
	request := &rtaskv1.WebhookRequest{Hash: hash, Headers: headers(r, ""), RemoteAddr: a.remoteAddr(r), Id: newID()}
	release, p := a.readWebhook(w, r, request, framing.Msg.MaxInputBytes)
	if p != nil {
		writeProblem(w, *p)
		a.refused(r, &rtaskv1.RefusedRequest{Hash: hash}, *p)
		return
	}
	defer release()
	reply, err := persist(r.Context(), func(ctx context.Context) (*connect.Response[rtaskv1.WebhookResponse], error) {
		return a.engine.Webhook(ctx, connect.NewRequest(request))
	})
	switch {
	case err != nil:
		writeProblem(w, a.problemOf(err))
	case reply.Msg.Run == nil:
		writeJSON(w, http.StatusOK, "application/json", struct {
			Status    string `json:"status"`
			Challenge string `json:"challenge,omitempty"`
		}{"ignored", reply.Msg.Challenge})
	default:
		// Who sends a webhook has no key to ask for the job with, so there is no Location.
		writeRun(w, "", reply.Msg.Run)
	}
}

// readWebhook reads the body, and returns what gives back the room that it takes up.
func (a *api) readWebhook(w http.ResponseWriter, r *http.Request, to *rtaskv1.WebhookRequest, limit int64) (release func(), _ *problem) {
	tooLarge := func() {
		// The rest is not read.
		closeAfter(w, r)
		to.Body, to.BodyTooLarge = nil, true
	}
	if r.ContentLength > limit {
		tooLarge()
		return func() {}, nil
	}
	size := limit + 1
	if r.ContentLength >= 0 {
		size = r.ContentLength
	}
	wait, cancel := context.WithTimeout(r.Context(), roomTimeout)
	defer cancel()
	room, err := a.bodies.take(wait, netip.Prefix{}, size)
	if err != nil {
		closeAfter(w, r)
		return nil, &problem{
			Status: http.StatusServiceUnavailable, Kind: "unavailable", Detail: "too many webhooks are being received", retryAfter: time.Second,
		}
	}
	// Errors are those of a connection that takes no deadlines, which net/http's do.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, fits, err := readBody(r.Body, r.ContentLength, limit)
	_ = conn.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		room.leave()
		closeAfter(w, r)
		return nil, &problem{Status: http.StatusBadRequest, Kind: "bad-request", Detail: "the body could not be read"}
	case !fits:
		tooLarge()
	default:
		to.Body = body
	}
	room.keep(int64(len(to.Body)))
	return room.leave, nil
}
