package control

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/config"
)

// WebhookFraming implements GatewayService.
func (s *Server) WebhookFraming(ctx context.Context, r *rtaskv1.WebhookFramingRequest) (*rtaskv1.WebhookFramingResponse, error) {
	h, err := s.findWebhook(callOf(ctx), r.Hash)
	if err != nil {
		return nil, err
	}
	methods := methodsOf(h.webhook)
	if r.Method != "" && r.Method != http.MethodHead && !slices.Contains(methods, r.Method) {
		_ = s.refuseHook(h.decided(refused), wrongMethod(methods), h.task.Name) // the gateway answers it
	}
	return &rtaskv1.WebhookFramingResponse{
		MaxInputBytes: hookLimit(h.webhook), Methods: methods, Streams: h.webhook.Respond == config.RespondOutput,
	}, nil
}

// methodsOf are the methods that a webhook's URL takes, besides HEAD.
func methodsOf(w *config.Webhook) []string {
	if w.Scheme.Kind.AsksByGet() {
		return append(slices.Clone(w.Methods), http.MethodGet)
	}
	return w.Methods
}

// wrongMethod is the refusal of a request with a method that its URL does not take.
func wrongMethod(methods []string) error {
	return fail(connect.CodeInvalidArgument, rtaskv1.KindMethodNotAllowed, fmt.Errorf("this webhook takes %s", strings.Join(methods, ", ")))
}

// hookRequest is a request as the gateway hands it in. Of its URL the gateway knows what the proxy before it called; where
// public_url says how the world calls it, that is what the sender called.
func hookRequest(c *call, r *rtaskv1.WebhookRequest) *webhook.Request {
	url := r.Url
	if cfg := c.snapshot.Config; cfg != nil && cfg.PublicURL != "" {
		url = cfg.PublicURL + "/wh/" + r.Hash
		if strings.Contains(r.Url, "?") {
			url += "?" + string(r.Query)
		}
	}
	return &webhook.Request{
		Method: cmp.Or(r.Method, http.MethodPost), URL: url, Query: string(r.Query), Remote: c.Remote, Headers: headersOf(r.Headers), Body: r.Body,
	}
}

func headersOf(all []*rtaskv1.Header) webhook.Headers {
	headers := make(webhook.Headers, len(all))
	for i, h := range all {
		headers[i] = webhook.Header{Name: h.Name, Value: string(h.Value)}
	}
	return headers
}
