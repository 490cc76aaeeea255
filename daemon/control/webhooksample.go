package control

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/expression"
	"github.com/rtask/rtask/daemon/job"
)

// wish is what a local user wants of a sample of a request. The zero wish is the sample as the webhook takes it.
type wish struct {
	// event and ref are what it is about, "": the first that the webhook takes.
	event, ref string
	// body is that of the request, nil: the sample's own.
	body []byte
	// headers take the place of those of the same name.
	headers webhook.Headers
}

// TestWebhook implements JobService.
func (s *Server) TestWebhook(ctx context.Context, r *rtaskv1.TestWebhookRequest) (*rtaskv1.TestWebhookResponse, error) {
	c := callOf(ctx)
	if c.snapshot.Config == nil {
		return nil, configurationError(c.snapshot)
	}
	t := c.snapshot.Config.Tasks[r.Task]
	if t == nil {
		return nil, fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("there is no task %q", r.Task))
	}
	w := webhookOf(t, r.Name)
	if w == nil {
		return nil, noWebhook(t.Name, r.Name)
	}
	want, err := wishOf(r)
	if err != nil {
		return nil, err
	}
	h := sample(c, c.snapshot, t, w)
	base, _ := s.baseURL(ctx, c.snapshot.Config)
	reply := &rtaskv1.TestWebhookResponse{Webhook: s.webhookMessage(base, h.webhook)}
	err = s.judgeSample(h, reply.Webhook, want)
	if missed := want.missed(h); missed != nil {
		return nil, missed
	}
	if r.Show && h.secrets != nil { // it is signed with a key of its own
		return nil, connect.Errorf(connect.CodeFailedPrecondition, "the webhook has only the public key of its sender, so no request can be signed for it here")
	}
	if r.Show && h.request != nil {
		if reply.Request = s.showSample(c, h); reply.Request == nil {
			return nil, connect.NewError(connect.CodePermissionDenied, "the request has the secret of the webhook in it, which only root may see")
		}
	}
	var result job.Result
	if err == nil && h.skip == "" && r.Run {
		result, err = s.run(ctx, h.webhook.Respond.Waits(), h.spec, h.decided(accepted))
	}
	if h.request != nil {
		reply.Method = h.request.Method
	}
	reply.Event, reply.Ref, reply.When = h.delivery.Event, h.delivery.Ref, h.explained()
	switch {
	case err != nil:
		reply.Decision, reply.Kind, reply.Reason = refused, string(kindOf(err)), errorText(err)
	case h.skip != "":
		reply.Decision, reply.Reason = ignored, h.skip
	default:
		reply.Decision, reply.Environment = accepted, toldOf(h.spec)
		if r.Run {
			reply.Job = jobMessage(result.Job)
		}
	}
	return reply, nil
}

// wishOf reads what a call wants of a sample.
func wishOf(r *rtaskv1.TestWebhookRequest) (wish, error) {
	want := wish{event: r.Event, ref: r.Ref, body: r.Body, headers: headersOf(r.Headers)}
	for _, h := range want.headers {
		if !config.ValidHeader(h.Name) || strings.ContainsAny(h.Value, "\r\n\x00") {
			return want, badRequest("%q is not the name and the value of a header", h.Name+": "+h.Value)
		}
	}
	return want, nil
}

// missed returns an error if a request that its sender has made does not say what was wished: a sender says an event or a ref only in
// some requests, and of a body that was given, its content counts.
func (w wish) missed(h *hook) error {
	d := h.delivery
	differs := func(name, want, got string) error {
		says := "names no " + name
		if got != "" {
			says = "names the " + name + " " + got
		}
		return badRequest("the request %s, and not %s: a sender with verify = %q says it elsewhere or not at all in such a request; "+
			"give the header or the body that says it", says, want, h.webhook.Scheme.Kind)
	}
	switch {
	case !h.read:
		return nil
	case w.event != "" && w.event != d.Event && w.event != d.Other:
		return differs("event", w.event, d.Event)
	case w.ref != "" && w.ref != d.Ref:
		return differs("ref", w.ref, d.Ref)
	}
	return nil
}

// explained are the parts of a webhook's condition, and what each comes to for a request; none: there is no condition, or it was not
// looked at.
func (h *hook) explained() (parts []*rtaskv1.ConditionPart) {
	if !h.read || h.webhook.When == nil || h.delivery.Ping {
		return nil
	}
	for _, p := range h.webhook.When.Explain(expression.NewInput(h.request, h.delivery, h.webhook.Expressions()...)) {
		m := &rtaskv1.ConditionPart{Text: p.Text, File: h.webhook.Pos.File, Line: int32(p.Line), Result: "true", Value: p.Value}
		switch {
		case p.Err != nil:
			m.Result, m.Problem = "missing", p.Err.Error()
		case p.False:
			m.Result = "false"
		}
		parts = append(parts, m)
	}
	return parts
}

// showSample is the request of a sample as its caller may see it, nil: it may not. Of most senders a signature proves one request and
// tells nothing of the secret; some send the secret itself.
func (s *Server) showSample(c *call, h *hook) *rtaskv1.SampleRequest {
	secrets, err := h.webhook.Secrets(s.ReadSecret)
	if !s.Identify.Owns(c.Peer) && (err != nil || reveals(h.request, secrets)) {
		return nil
	}
	m := &rtaskv1.SampleRequest{Method: h.request.Method, Url: h.request.URL, Body: h.request.Body}
	for _, one := range h.request.Headers {
		m.Headers = append(m.Headers, &rtaskv1.Header{Name: one.Name, Value: []byte(one.Value)})
	}
	return m
}

// reveals reports whether a request has one of secrets in it, as it is, or in base64 as HTTP's Basic authentication has it (RFC 7617).
func reveals(r *webhook.Request, secrets []string) bool {
	return slices.ContainsFunc(secrets, func(secret string) bool {
		return bytes.Contains(r.Body, []byte(secret)) || slices.ContainsFunc(r.Headers, func(h webhook.Header) bool { return tells(h.Value, secret) })
	})
}

// tells reports whether the value of a header has a secret in it.
func tells(value, secret string) bool {
	_, credentials, _ := strings.Cut(value, " ")
	decoded, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials)) // what is none is no secret
	return strings.Contains(value, secret) || strings.Contains(string(decoded), secret)
}

// sending is the call as one of a webhook's sender.
func (c *call) sending(w *config.Webhook) *call {
	as := *c
	as.Kind, as.Webhook = auth.Sender, w.Name
	return &as
}

// sample is a request to a webhook that a local user tries on a configuration.
func sample(by *call, in Snapshot, t *config.Task, w *config.Webhook) *hook {
	c := by.sending(w)
	c.snapshot = in
	return &hook{call: c, task: t, webhook: w, user: by.Name()}
}

// judgeSample decides on a request as the webhook's sender would make it, to the URL in m.
func (s *Server) judgeSample(h *hook, m *rtaskv1.Webhook, want wish) error {
	if m.Url == "" {
		return fail(connect.CodeUnavailable, rtaskv1.KindConfiguration, errors.New(m.Problem))
	}
	s.sign(h, m.Url, want)
	_, err := s.judge(h)
	return err
}

// sign fills in a request as the webhook's sender would make it.
func (s *Server) sign(h *hook, url string, want wish) {
	event, ref := want.event, want.ref
	if event == "" && len(h.webhook.Wanted.Events) > 0 {
		event = h.webhook.Wanted.Events[0]
	}
	if ref == "" && len(h.webhook.Wanted.Refs) > 0 {
		ref = h.webhook.Wanted.Refs[0]
	}
	h.request = webhook.Sample(h.webhook.Scheme, event, ref, time.Now())
	h.request.URL, h.request.Remote = url, "127.0.0.1"
	if methods := methodsOf(h.webhook); !slices.Contains(methods, h.request.Method) {
		h.request.Method = methods[0]
	}
	if want.body != nil {
		h.request.Body = want.body
	}
	given := func(one webhook.Header) bool {
		return slices.ContainsFunc(want.headers, func(g webhook.Header) bool { return strings.EqualFold(g.Name, one.Name) })
	}
	h.request.Headers = append(slices.DeleteFunc(h.request.Headers, given), want.headers...)
	// Without a secret there is nothing to sign with, which judge says.
	if secrets, err := h.webhook.Secrets(s.ReadSecret); err == nil && len(secrets) > 0 {
		secret := secrets[0]
		if signing, verifying, ok := webhook.SampleKeys(h.webhook.Scheme.Kind); ok {
			secret, h.secrets = signing, []string{verifying}
		}
		signed := *h.request
		webhook.Sign(h.webhook.Scheme, secret, &signed, webhook.SampleID(time.Now()), time.Now())
		proof := slices.DeleteFunc(slices.Clone(signed.Headers[len(h.request.Headers):]), given)
		signed.Headers = slices.Concat(h.request.Headers, proof)
		*h.request = signed
	}
}
