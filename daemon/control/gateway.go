package control

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect"
	"github.com/prometheus/common/expfmt"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/job"
)

// Run implements GatewayService: the whole decision about a request from the network.
func (s *server) Run(ctx context.Context, r *connect.Request[rtaskv1.RunRequest]) (*connect.Response[rtaskv1.RunResponse], error) {
	refuse := func(task, kind string, err error) error {
		s.Rejected(task, kind)
		s.Logger.Info("request refused", "reason", kind, "task", r.Msg.Task, "remote", r.Msg.RemoteAddr)
		return err
	}
	key, err := s.Keys.Verify(ctx, r.Msg.ApiKey)
	if errors.Is(err, auth.ErrUnauthorized) {
		return nil, refuse("", "unauthorized", fail(connect.CodeUnauthenticated, "unauthorized", err))
	}
	if err != nil {
		return nil, waitError(err)
	}
	snapshot := s.Snapshot()
	if snapshot.Config == nil {
		// What is wrong is the administrator's to know: `rtaskctl config check`, the journal.
		return nil, refuse("", "configuration",
			fail(connect.CodeUnavailable, "configuration", errors.New("the configuration has errors, so there are no tasks")))
	}
	task, ok := snapshot.Config.Tasks[r.Msg.Task]
	if !ok || !slices.Contains(task.APIKeys, key.Name) {
		name := ""
		if ok {
			name = task.Name
		}
		return nil, refuse(name, "forbidden",
			fail(connect.CodePermissionDenied, "forbidden", errors.New("this key may not start a task of this name")))
	}
	if r.Msg.InputTooLarge {
		return nil, refuse(task.Name, "input-too-large", inputTooLarge(task))
	}
	js, err := s.taskSpec(snapshot.Config, task, job.Owner{Key: key.ID, Name: key.Name}, "http", r.Msg.Input)
	if err != nil {
		return nil, refuse(task.Name, kindOf(err), err)
	}
	j, err := s.Jobs.Start(ctx, js)
	if err != nil {
		return nil, s.startError(task.Name, err)
	}
	s.Logger.Info("job accepted", "job", j.ID, "task", j.Task, "owner", j.Owner.String(), "trigger", j.Trigger, "remote", r.Msg.RemoteAddr)
	if !task.Blocking {
		return connect.NewResponse(&rtaskv1.RunResponse{Job: jobMessage(j), Accepted: true}), nil
	}
	result, err := s.Jobs.Wait(ctx, j.ID)
	if err != nil {
		return nil, waitError(err)
	}
	return connect.NewResponse(&rtaskv1.RunResponse{
		Job: jobMessage(result.Job), Stdout: result.Stdout, Stderr: result.Stderr, Truncated: result.Truncated,
	}), nil
}

// kindOf returns the kind of an error that fail made.
func kindOf(err error) string {
	var e *connect.Error
	if errors.As(err, &e) {
		for _, d := range e.Details() {
			if v, err := d.Value(); err == nil {
				if m, ok := v.(*rtaskv1.Error); ok {
					return m.Kind
				}
			}
		}
	}
	return "unavailable"
}

// Framing implements GatewayService.
func (s *server) Framing(context.Context, *connect.Request[rtaskv1.FramingRequest]) (*connect.Response[rtaskv1.FramingResponse], error) {
	reply := &rtaskv1.FramingResponse{}
	if c := s.Snapshot().Config; c != nil {
		for _, t := range c.Tasks {
			reply.MaxInputBytes = max(reply.MaxInputBytes, min(t.MaxInputBytes, maxRequest/2))
		}
	}
	return connect.NewResponse(reply), nil
}

// Metrics implements GatewayService.
func (s *server) Metrics(context.Context, *connect.Request[rtaskv1.MetricsRequest]) (*connect.Response[rtaskv1.MetricsResponse], error) {
	families, err := s.Options.Metrics.Gather()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
	}
	return connect.NewResponse(&rtaskv1.MetricsResponse{Families: b.Bytes()}), nil
}
