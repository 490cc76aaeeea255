package control

import (
	"errors"
	"fmt"
	"net/http"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// waits reports whether the answer waits for the job. A person does not wait for a result.
func (h *hook) waits() bool {
	return h.webhook.Respond == config.RespondOutput || h.webhook.Respond == config.RespondResult && h.delivery.Person == webhook.Nobody
}

// accepted is the answer to a request that was accepted, and whose job is m.
func (h *hook) accepted(m *rtaskv1.RunResponse) *rtaskv1.WebhookResponse {
	w := h.webhook
	answer := &rtaskv1.WebhookResponse{Run: m, Status: int32(w.Status)}
	if own := h.delivery.Reply; own != nil && m.Accepted && w.Status == 0 && w.Message == nil {
		answer.Status, answer.Reply = int32(own.Status), ownReply(own)
	}
	good := m.Accepted || m.GetJob().Succeeded()
	if w.Message != nil && good && h.delivery.Person != webhook.Acts {
		answer.Reply = &rtaskv1.WebhookReply{Status: h.status(m), ContentType: w.ContentType, Body: []byte(*w.Message)}
		return answer
	}
	return h.toPerson(answer, fmt.Sprintf("Accepted: job %s of task %s.", m.GetJob().GetId(), h.task.Name))
}

// status is the status of the answer to a request whose job is m. What is shown to a person has 200, unless the configuration says
// otherwise.
func (h *hook) status(m *rtaskv1.RunResponse) int32 {
	switch {
	case h.webhook.Status != 0:
		return int32(h.webhook.Status)
	case m.Accepted && h.delivery.Reply != nil && !config.Bodyless(h.delivery.Reply.Status):
		return int32(h.delivery.Reply.Status) // Linear takes no other
	case m.Accepted && h.delivery.Person == webhook.Nobody:
		return http.StatusAccepted
	default:
		return http.StatusOK
	}
}

// ownReply is an answer in a sender's own form, nil for one of which only the status is said.
func ownReply(r *webhook.Reply) *rtaskv1.WebhookReply {
	if r == nil || r.ContentType == "" && !config.Bodyless(r.Status) {
		return nil
	}
	return &rtaskv1.WebhookReply{Status: int32(r.Status), ContentType: r.ContentType, Body: []byte(r.Body)}
}

// greeting answers a request that only asks whether somebody is there, which is not signed. It returns neither an answer nor an error
// for one that is to be judged.
func (s *Server) greeting(h *hook) (*rtaskv1.WebhookResponse, error) {
	hello, ok, err := webhook.Greeting(h.webhook.Scheme.Kind, h.webhook.VerifyToken, h.request)
	if err != nil {
		d := h.decided(refused)
		d.reason = err.Error()
		return nil, s.refuseHook(d, fail(connect.CodePermissionDenied, rtaskv1.KindForbidden, errors.New("the challenge is missing or wrong")), h.task.Name)
	}
	if !ok {
		return nil, nil
	}
	return &rtaskv1.WebhookResponse{Reason: hello.Reason, Reply: ownReply(hello.Reply)}, nil
}

// toPerson adds to an answer what a person sees of it, if one does.
func (h *hook) toPerson(m *rtaskv1.WebhookResponse, text string) *rtaskv1.WebhookResponse {
	switch h.delivery.Person {
	case webhook.Reads:
		m.Person, m.Text = true, text
		if own := webhook.ToPerson(h.webhook.Scheme.Kind, text); own != nil {
			m.Reply = ownReply(own)
		}
	case webhook.Acts:
		m.Person = true
	}
	return m
}

// failed is the answer to a request that is refused. A person who gave a command reads why; what the sender shows of an error
// says nothing.
func (h *hook) failed(err error) (*rtaskv1.WebhookResponse, error) {
	if h.delivery.Person != webhook.Reads {
		return nil, err
	}
	return h.toPerson(&rtaskv1.WebhookResponse{}, "Not accepted: "+errorText(err)+"."), nil
}

// reply is what the sender of an accepted request gets. Of a job that was accepted before, and is not kept any more, there is
// no result.
func reply(wait bool, r job.Result) *rtaskv1.RunResponse {
	if !wait || r.State != job.Ended {
		return &rtaskv1.RunResponse{Job: jobMessage(r.Job), Accepted: true}
	}
	return resultMessage(r)
}
