package control

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

// List implements JobService.
func (s *Server) List(ctx context.Context, r *rtaskv1.ListRequest) (*rtaskv1.ListResponse, error) {
	filter, err := jobFilter(r)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	filter.Visible = c.visible()
	jobs, err := s.Jobs.List(filter)
	switch {
	case errors.Is(err, job.ErrClosed):
		return nil, fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err)
	case err != nil:
		return nil, coded(connect.CodeInternal, err)
	}
	reply := &rtaskv1.ListResponse{}
	for _, j := range jobs {
		reply.Jobs = append(reply.Jobs, c.jobMessage(j))
	}
	return reply, nil
}

// jobFilter is what a request asks for.
func jobFilter(r *rtaskv1.ListRequest) (job.Filter, error) {
	invalid := func(format string, args ...any) (job.Filter, error) {
		return job.Filter{}, connect.Errorf(connect.CodeInvalidArgument, format, args...)
	}
	f := job.Filter{Ended: r.All, Task: r.Task, User: r.User, Owner: r.Owner, Limit: int(r.Limit)}
	if r.Limit < 0 {
		return invalid("limit %d is below 0", r.Limit)
	}
	for _, m := range r.States {
		state := job.State(m.Word())
		if m == 0 || rtaskv1.StateOf(string(state)) != m {
			return invalid("there is no state %d", m)
		}
		f.States = append(f.States, state)
	}
	for _, m := range r.Reasons {
		reason := spec.Reason(m.Word())
		if m == 0 || rtaskv1.ReasonOf(string(reason)) != m {
			return invalid("there is no reason %d", m)
		}
		f.Reasons = append(f.Reasons, reason)
	}
	switch r.Status {
	case rtaskv1.Status_STATUS_UNSPECIFIED:
	case rtaskv1.Status_STATUS_SUCCESS, rtaskv1.Status_STATUS_FAILURE:
		succeeded := r.Status == rtaskv1.Status_STATUS_SUCCESS
		f.Succeeded = &succeeded
	default:
		return invalid("there is no status %d", r.Status)
	}
	var err error
	if f.Since, f.Until, err = bounds(r.Since, r.Until); err != nil {
		return job.Filter{}, err
	}
	f.EndedSince, _, err = bounds(r.EndedSince, nil)
	return f, err
}
