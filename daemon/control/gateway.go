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

// longestTask is how many bytes of a task's name that strangers made up are logged.
const longestTask = 64

// Run implements GatewayService: the whole decision about a request from the network.
func (s *Server) Run(ctx context.Context, r *connect.Request[rtaskv1.RunRequest]) (*connect.Response[rtaskv1.RunResponse], error) {
	var key auth.KeyInfo
	refuse := func(task, kind string, err error) error {
		s.Rejected(task, kind)
		s.Logger.Info("request refused", "reason", kind, "task", r.Msg.Task[:min(len(r.Msg.Task), longestTask)], "key", key.Name,
			"remote", r.Msg.RemoteAddr)
		return err
	}
	unauthorized := func() error {
		return refuse("", "unauthorized", fail(connect.CodeUnauthenticated, "unauthorized", auth.ErrUnauthorized))
	}
	key, err := s.Keys.Verify(ctx, r.Msg.ApiKey)
	if err == nil {
		var done func()
		ctx, done = s.waits.add(ctx, key.ID)
		defer done()
		// Again, now that a revocation finds this call.
		_, err = s.Keys.Verify(ctx, r.Msg.ApiKey)
	}
	if errors.Is(err, auth.ErrUnauthorized) {
		return nil, unauthorized()
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
	result, err := s.run(ctx, task.Blocking, js, r.Msg.RemoteAddr)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), auth.ErrUnauthorized):
		return nil, unauthorized()
	case err != nil:
		return nil, err
	case !task.Blocking:
		return connect.NewResponse(&rtaskv1.RunResponse{Job: jobMessage(result.Job), Accepted: true}), nil
	}
	return connect.NewResponse(&rtaskv1.RunResponse{
		Job: jobMessage(result.Job), Stdout: result.Stdout, Stderr: result.Stderr, Truncated: result.Truncated,
	}), nil
}

// run starts a job, and waits for its end if that is wanted.
func (s *Server) run(ctx context.Context, wait bool, js job.Spec, remote string) (job.Result, error) {
	started := false
	accepted := func(j job.Job) {
		started = true
		s.Logger.Info("job accepted", "job", j.ID, "task", j.Task, "owner", j.Owner.String(), "trigger", j.Trigger, "remote", remote)
	}
	var result job.Result
	var err error
	if wait {
		result, err = s.Jobs.Run(ctx, js, accepted)
	} else if result.Job, err = s.Jobs.Start(ctx, js); err == nil {
		accepted(result.Job)
	}
	switch {
	case err == nil:
		return result, nil
	case started:
		return job.Result{}, waitError(err)
	default:
		return job.Result{}, s.startError(js.Task, err)
	}
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
func (s *Server) Framing(context.Context, *connect.Request[rtaskv1.FramingRequest]) (*connect.Response[rtaskv1.FramingResponse], error) {
	reply := &rtaskv1.FramingResponse{}
	if c := s.Snapshot().Config; c != nil {
		for _, t := range c.Tasks {
			reply.MaxInputBytes = max(reply.MaxInputBytes, inputLimit(t))
		}
	}
	return connect.NewResponse(reply), nil
}

// Metrics implements GatewayService.
func (s *Server) Metrics(context.Context, *connect.Request[rtaskv1.MetricsRequest]) (*connect.Response[rtaskv1.MetricsResponse], error) {
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
