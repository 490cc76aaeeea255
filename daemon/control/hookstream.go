package control

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// WebhookStream implements GatewayService.
func (s *Server) WebhookStream(ctx context.Context, r *rtaskv1.WebhookRequest, stream rtaskv1connect.GatewayServiceWebhookStreamServerStream) error {
	c := callOf(ctx)
	if r.Job != "" {
		return s.goOn(ctx, c, r, stream)
	}
	h, answer, err := s.received(c, r)
	if h != nil && h.webhook.Respond != config.RespondOutput { // since the gateway asked
		answer, err = s.runHook(ctx, h)
	}
	if answer != nil || err != nil {
		return sendAnswer(stream, answer, err)
	}
	done, err := s.watchHook(h)
	if err != nil {
		s.settleDelivery(h, err)
		answer, err = h.failed(s.refuseHook(h.decided(refused), err, h.task.Name))
		return sendAnswer(stream, answer, err)
	}
	defer done()
	started, err := s.run(ctx, false, h.spec, h.decided(accepted))
	s.settleDelivery(h, err)
	s.count(h.task, h.webhook.Name, err)
	if err != nil {
		answer, err = h.failed(err)
		return sendAnswer(stream, answer, err)
	}
	if started.State == "" { // it was accepted before, and is not kept any more
		return sendAnswer(stream, h.accepted(reply(false, started)), nil)
	}
	first := &rtaskv1.RunStreamResponse{
		Job: jobMessage(started.Job), Head: &rtaskv1.WebhookReply{Status: h.status(&rtaskv1.RunResponse{}), ContentType: h.webhook.ContentType},
		Webhook: h.toPerson(&rtaskv1.WebhookResponse{}, fmt.Sprintf("Job %s of task %s failed, and wrote nothing.", started.ID, h.task.Name)),
	}
	// The job may run for days, and has what it needs of the request.
	id := started.ID
	r.Body, h, started = nil, nil, job.Result{}
	if err := stream.Send(first); err != nil {
		return err
	}
	return s.sendHookOutput(ctx, id, r.Ended, 0, stream)
}

func sendAnswer(stream runStream, m *rtaskv1.WebhookResponse, err error) error {
	if err != nil {
		return err
	}
	return stream.Send(&rtaskv1.RunStreamResponse{Webhook: m})
}

// brought returns the job with this id that a request to a webhook has started, and true if there is one. That the gateway names it is
// enough: it brought the request, whose signature may be too old meanwhile.
func (s *Server) brought(h *hook, id string) (job.Job, bool) {
	owner := h.call.owner()
	j, err := s.Jobs.Find(id, func(j job.Job) bool {
		return j.ID == id && j.Task == h.task.Name && j.Trigger == "webhook" && j.Owner == owner
	})
	return j, err == nil
}

// resultAgain answers a request that another engine has accepted, and whose job runs on or has ended since, with its result. It returns
// neither an answer nor an error for one that is to be decided on like any other: no job is known, or its answer waits for none.
func (s *Server) resultAgain(ctx context.Context, c *call, r *rtaskv1.WebhookRequest) (*rtaskv1.WebhookResponse, error) {
	h, err := s.findWebhook(c, r.Hash)
	if err != nil {
		return nil, err
	}
	j, ok := s.brought(h, r.Id)
	if !ok || h.webhook.Respond != config.RespondResult {
		return nil, nil
	}
	if h.delivery, err = webhook.Read(h.webhook.Scheme, hookRequest(h.call, r)); err != nil || !h.waits() {
		return nil, nil
	}
	done, err := s.watchHook(h)
	if err != nil {
		return nil, err
	}
	defer done()
	ended, err := s.Jobs.Wait(ctx, j.ID)
	if err != nil {
		return nil, runsOn(j.ID, err)
	}
	result, err := s.Jobs.Output(ended.Job)
	if err != nil {
		return nil, waitError(err)
	}
	return h.accepted(resultMessage(result)), nil
}

// goOn sends the rest of a job's output to a gateway that had the beginning from the engine before this one.
func (s *Server) goOn(ctx context.Context, c *call, r *rtaskv1.WebhookRequest, stream runStream) error {
	h, err := s.findWebhook(c, r.Hash)
	if err != nil {
		return err
	}
	j, ok := s.brought(h, r.Job)
	if !ok || h.webhook.Respond != config.RespondOutput {
		return fail(connect.CodeNotFound, rtaskv1.KindNotFound, errors.New("there is no such job of this webhook"))
	}
	done, err := s.watchHook(h)
	if err != nil {
		return err
	}
	defer done()
	if err := stream.Send(&rtaskv1.RunStreamResponse{Job: jobMessage(j)}); err != nil {
		return err
	}
	return s.sendHookOutput(ctx, r.Job, r.Ended, r.Offset, stream)
}

// sendHookOutput sends what a job wrote from offset on, and how it ended; with ended that is sent before, too.
func (s *Server) sendHookOutput(ctx context.Context, id string, ended bool, offset int64, stream runStream) error {
	if ended {
		r, err := s.Jobs.Wait(ctx, id)
		if err != nil {
			return runsOn(id, err)
		}
		m := &rtaskv1.RunStreamResponse{Job: jobMessage(r.Job)}
		if e := r.Exit; e != nil && r.RedirectStderr {
			length := int64(e.LogBytes - e.LogDropped)
			m.Length = &length
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return s.sendOutput(ctx, id, true, offset, stream)
}
