package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/deliveries"
)

// maxDeliveries is how many deliveries a reply has: as many as one webhook may keep.
const maxDeliveries = 1000

// Kept returns how many deliveries of which webhooks a configuration keeps.
func Kept(c *config.Config) map[deliveries.Hook]int {
	keep := map[deliveries.Hook]int{}
	for _, t := range c.Tasks {
		for _, w := range t.Webhooks {
			if w.KeepDeliveries > 0 {
				keep[deliveries.Hook{Task: w.Task, Webhook: w.Name}] = w.KeepDeliveries
			}
		}
	}
	return keep
}

// keepDelivery keeps a request that has proven itself, if its webhook keeps some, with what was decided about it. err is why it was
// refused. One that is accepted has to be settled after that. A request that cannot be kept is not refused for it.
func (s *Server) keepDelivery(h *hook, what string, err error) {
	if h.webhook.KeepDeliveries == 0 || !h.proven || h.delivery.Ping {
		return
	}
	secrets, _ := h.webhook.Secrets(s.ReadSecret) // it is proven, so there is one that can be read
	proofs := h.webhook.Scheme.Proofs()
	isSecret := func(name, value string) bool {
		return slices.ContainsFunc(proofs, func(p string) bool { return strings.EqualFold(p, name) }) ||
			slices.ContainsFunc(secrets, func(secret string) bool { return tells(value, secret) })
	}
	d := &deliveries.Delivery{
		Meta: deliveries.Meta{
			ID: h.id, Task: h.task.Name, Webhook: h.webhook.Name, At: time.Now().UTC(), Delivery: h.delivery.ID, Event: h.delivery.Event, Ref: h.delivery.Ref,
			Decision: what, Reason: cut(h.skip, longestReason),
		},
		Request: deliveries.WithoutSecrets(h.request, h.task.PassRequestHeaders, isSecret),
	}
	if err != nil {
		d.Kind, d.Reason = string(kindOf(err)), cut(errorText(err), longestReason)
	}
	if h.webhook.Scheme.Kind.Signed() { // who knows a token's URL may send the same again and mean another thing
		d.Key = h.repeatsOf(h.proof).Key
	}
	if err := s.Deliveries.Put(d); err != nil {
		s.Logger.Error("cannot keep a delivery", "task", h.task.Name, "webhook", h.webhook.Name, "error", err)
	}
	if what != accepted {
		s.Deliveries.Settle(h.id)
	}
}

// settleDelivery says of a request that was kept as accepted what became of it; err is that of its run. A repeat of what was accepted
// before is no delivery of its own.
func (s *Server) settleDelivery(h *hook, err error) {
	if h.webhook.KeepDeliveries == 0 {
		return
	}
	switch _, unknown := s.Jobs.Find(h.id, nil); {
	case unknown == nil:
		s.Deliveries.Settle(h.id)
	case err == nil:
		s.Deliveries.Drop(h.id)
	default:
		s.keepDelivery(h, refused, err)
	}
}

// ListDeliveries implements JobService.
func (s *Server) ListDeliveries(ctx context.Context, r *rtaskv1.ListDeliveriesRequest) (*rtaskv1.ListDeliveriesResponse, error) {
	c := callOf(ctx)
	if c.snapshot.Config == nil {
		return nil, configurationError(c.snapshot)
	}
	if r.Task != "" {
		t, err := c.taskNamed(r.Task)
		if err != nil {
			return nil, err
		}
		if r.Webhook != "" && webhookOf(t, r.Webhook) == nil {
			return nil, noWebhook(t.Name, r.Webhook)
		}
	}
	reply := &rtaskv1.ListDeliveriesResponse{}
	for _, m := range s.Deliveries.List(func(h deliveries.Hook) bool {
		return (r.Task == "" || h.Task == r.Task) && (r.Webhook == "" || h.Webhook == r.Webhook) && c.mayReplay(h)
	}) {
		if len(reply.Deliveries) == maxDeliveries {
			break
		}
		reply.Deliveries = append(reply.Deliveries, deliveryMessage(m))
	}
	return reply, nil
}

// mayReplay reports whether the caller may know of a webhook's deliveries and run them again: it may start the task.
func (c *call) mayReplay(h deliveries.Hook) bool {
	t := c.snapshot.Config.Tasks[h.Task]
	return t != nil && webhookOf(t, h.Webhook) != nil && c.may(t)
}

// webhookOf returns a task's webhook of a name, or nil.
func webhookOf(t *config.Task, name string) *config.Webhook {
	i := slices.IndexFunc(t.Webhooks, func(w *config.Webhook) bool { return w.Name == name })
	if i < 0 {
		return nil
	}
	return t.Webhooks[i]
}

func noWebhook(task, name string) error {
	return fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("task %q has no webhook %q", task, name))
}

func deliveryMessage(m deliveries.Meta) *rtaskv1.Delivery {
	return &rtaskv1.Delivery{
		Id: m.ID, Task: m.Task, Webhook: m.Webhook, ReceivedAt: timestamp(m.At), Delivery: m.Delivery, Event: m.Event, Ref: m.Ref,
		Decision: m.Decision, Kind: m.Kind, Reason: m.Reason, BodyBytes: m.Bytes,
	}
}

// ReplayDelivery implements JobService. One delivery at a time is in memory for it.
func (s *Server) ReplayDelivery(ctx context.Context, r *rtaskv1.ReplayDeliveryRequest) (*rtaskv1.ReplayDeliveryResponse, error) {
	select {
	case s.replays <- struct{}{}:
		defer func() { <-s.replays }()
	case <-ctx.Done():
		return nil, waitError(ctx.Err())
	}
	c := callOf(ctx)
	h, m, err := s.kept(c, r.Delivery)
	if err == nil {
		err = s.consider(h)
	}
	d := c.decision()
	if d.delivery = cut(r.Delivery, longestTask); h != nil {
		d = h.decided(accepted)
	}
	switch {
	case err != nil:
		s.decide(d, "", err)
		return nil, err
	case h.skip != "":
		d.decision, d.reason = ignored, h.skip
		s.audit(d)
		reply := &rtaskv1.ReplayDeliveryResponse{Delivery: deliveryMessage(m), Decision: ignored, Reason: h.skip}
		if c.Kind == auth.Admin { // who may know the configuration
			reply.When = h.explained()
		}
		return reply, nil
	}
	// It has a run of its own: what waits is newer, and another replay is another request.
	h.spec.Same = ""
	d.reason = "the delivery " + m.ID + " runs again"
	result, err := s.run(ctx, false, h.spec, d)
	if err != nil {
		return nil, err
	}
	return &rtaskv1.ReplayDeliveryResponse{Delivery: deliveryMessage(m), Decision: accepted, Job: c.jobMessage(result.Job)}, nil
}

// kept returns a delivery that the caller may run again, as a request of the caller's.
func (s *Server) kept(c *call, ref string) (*hook, deliveries.Meta, error) {
	var none deliveries.Meta
	if c.snapshot.Config == nil {
		return nil, none, configurationError(c.snapshot)
	}
	m, err := s.Deliveries.Find(ref, c.mayReplay)
	var d *deliveries.Delivery
	if err == nil {
		d, err = s.Deliveries.Read(m.ID)
	}
	switch {
	case errors.Is(err, deliveries.ErrAmbiguous):
		return nil, none, badRequest("%w: %q", err, ref)
	case errors.Is(err, deliveries.ErrNotFound):
		return nil, none, fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("%w: %q", err, ref))
	case err != nil:
		return nil, none, fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err)
	}
	as, t := *c, c.snapshot.Config.Tasks[m.Task]
	as.Webhook = m.Webhook
	h := &hook{call: &as, task: t, webhook: webhookOf(t, m.Webhook), request: &d.Request, proven: true, user: c.decision().user}
	if int64(len(d.Request.Body)) > hookLimit(h.webhook) {
		return h, m, tooLargeFor(h.webhook)
	}
	return h, m, nil
}
