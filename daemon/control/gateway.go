package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/common/expfmt"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/job"
)

// longestTask is how many bytes of a task's name that strangers made up are logged.
const longestTask = 64

// Run implements GatewayService: the whole decision about a request from the network.
func (s *Server) Run(ctx context.Context, r *rtaskv1.RunRequest) (*rtaskv1.RunResponse, error) {
	c := callOf(ctx)
	js, err := s.runSpec(c, r)
	if err != nil {
		return nil, err
	}
	result, err := s.run(ctx, c.task.Blocking, js, c.decision())
	s.count(c.task, c.Key.Name, err)
	if err != nil {
		return nil, err
	}
	return reply(c.task.Blocking, result), nil
}

// RunFraming implements GatewayService: that the call came here says that the key is good.
func (s *Server) RunFraming(ctx context.Context, _ *rtaskv1.RunFramingRequest) (*rtaskv1.RunFramingResponse, error) {
	c := callOf(ctx)
	return &rtaskv1.RunFramingResponse{MaxInputBytes: c.task.MaxInputBytes, KeyId: c.Key.ID}, nil
}

// keySpec is what a run of a task is for a request that came with a key.
func (s *Server) keySpec(c *call, r *rtaskv1.RunRequest) (job.Spec, error) {
	params, err := queryParameters(string(r.Query))
	if err != nil {
		return job.Spec{}, err
	}
	return s.requestSpec(c.snapshot, c.task, request{owner: c.owner(), trigger: "http", input: r.Input, params: params, headers: r.Headers})
}

func resultMessage(r job.Result) *rtaskv1.RunResponse {
	return &rtaskv1.RunResponse{Job: jobMessage(r.Job), Stdout: r.Stdout, Stderr: r.Stderr, Truncated: r.Truncated}
}

// Result implements GatewayService.
func (s *Server) Result(ctx context.Context, r *rtaskv1.ResultRequest) (*rtaskv1.RunResponse, error) {
	c := callOf(ctx)
	j, err := s.find(c, r.Id)
	if err == nil {
		j, err = s.waitFor(ctx, c, j, r.Wait)
	}
	switch {
	case err != nil:
		return nil, err
	case j.State != job.Ended:
		return &rtaskv1.RunResponse{Job: jobMessage(j), Accepted: true}, nil
	}
	result, err := s.Jobs.Output(j)
	if err != nil {
		return nil, waitError(err)
	}
	return resultMessage(result), nil
}

// run starts a job, and waits for its end if that is wanted. d is all that is known of the decision before.
func (s *Server) run(ctx context.Context, wait bool, js job.Spec, d decision) (job.Result, error) {
	id := "" // of the job, once there is one
	admitted := func(j job.Job) {
		id, d.moot = j.ID, j.Repeated
		if js.Once.Answer && js.ID != "" && id != js.ID {
			d.moot, d.reason = true, acceptedBefore
		}
		s.decide(d, id, nil)
		decided(ctx)
	}
	var result job.Result
	var err error
	if wait {
		result, err = s.Jobs.Run(ctx, js, admitted)
	} else if result.Job, err = s.Jobs.Start(ctx, js); err == nil {
		admitted(result.Job)
	}
	var repeat *job.RepeatError
	switch {
	case err == nil:
		return result, nil
	case js.Once.Answer && errors.As(err, &repeat): // its job is not kept any more
		var known job.Job
		known.ID, known.Task = repeat.ID, js.Task
		admitted(known)
		return job.Result{Job: known}, nil
	case id != "":
		return job.Result{}, runsOn(id, err)
	default:
		err = s.startError(js.Task, err)
		s.decide(d, "", err)
		return job.Result{}, err
	}
}

// acceptedBefore is the reason of the entry for a repeat of what was accepted, which is answered with the first one's job.
const acceptedBefore = "it was accepted before, as this job"

// runsOn is the error of a wait that ended before its job did.
func runsOn(id string, err error) error {
	if !errors.Is(err, job.ErrClosed) {
		return waitError(err)
	}
	return fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, errors.New("the engine is restarting; the job runs on"),
		func(e *rtaskv1.Error) { e.JobId, e.Restarting = id, true })
}

// kindOf returns the kind of an error that fail made, or what comes nearest to another one's code.
func kindOf(err error) rtaskv1.Kind {
	if d := codec.DetailOf(err); d != nil {
		return rtaskv1.Kind(d.Kind)
	}
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied:
		return rtaskv1.KindForbidden
	case connect.CodeInvalidArgument:
		return rtaskv1.KindBadRequest
	default:
		return rtaskv1.KindUnavailable
	}
}

// Refused implements GatewayService.
func (s *Server) Refused(ctx context.Context, r *rtaskv1.RefusedRequest) (*rtaskv1.RefusedResponse, error) {
	kind := rtaskv1.Kind(r.Kind)
	if kind.OfHandshake() {
		s.refusedHandshake(callOf(ctx).Remote, r)
		return &rtaskv1.RefusedResponse{}, nil
	}
	if kind != rtaskv1.KindBadRequest && kind != rtaskv1.KindUnavailable {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "the gateway refuses nothing as %q", r.Kind)
	}
	c, presented := callOf(ctx), codec.PresentedIn(ctx)
	d := decision{decision: refused, action: actionStart, kind: kind, reason: r.Reason, remote: c.Remote, stranger: true}
	known := "" // the task, if the caller may use it
	if cfg := c.snapshot.Config; cfg != nil && r.Hash != "" {
		if t, w := cfg.Webhook(r.Hash, s.ReadSecret); w != nil {
			d.task, d.webhook, known = t.Name, w.Name, t.Name
		}
	} else if cfg != nil && cfg.Tasks[c.named] != nil {
		// That a key is bad is not what this was refused for.
		if key, err := s.Keys.Verify(ctx, c.Remote, presented.Key); err == nil && slices.Contains(cfg.Tasks[c.named].APIKeys, key.Name) {
			d.task, d.key, d.keyID, d.stranger, known = c.named, key.Name, key.ID, false, c.named
		}
	}
	s.Rejected(known, r.Kind)
	if d.webhook != "" {
		s.Requested(known, d.webhook, r.Kind)
	}
	s.audit(d)
	return &rtaskv1.RefusedResponse{}, nil
}

// refusedHandshake writes of handshakes that the gateway has refused.
func (s *Server) refusedHandshake(remote string, r *rtaskv1.RefusedRequest) {
	n := max(r.Count, 1)
	s.RefusedRemote(r.Kind, n)
	reason := "TLS handshake: " + r.Reason
	if n > 1 {
		reason += fmt.Sprintf(" (%d times)", n)
	}
	s.audit(decision{decision: refused, kind: rtaskv1.Kind(r.Kind), reason: reason, remote: remote, stranger: true})
}

// Metrics implements GatewayService.
func (s *Server) Metrics(context.Context, *rtaskv1.MetricsRequest) (*rtaskv1.MetricsResponse, error) {
	families, err := s.Options.Metrics.Gather()
	if err != nil {
		return nil, coded(connect.CodeInternal, err)
	}
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, coded(connect.CodeInternal, err)
		}
	}
	return &rtaskv1.MetricsResponse{Families: b.Bytes()}, nil
}
