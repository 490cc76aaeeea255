package control

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/common/expfmt"

	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// longestTask is how many bytes of a task's name that strangers made up are logged.
const longestTask = 64

// presented is what a client on the network presented.
type presented interface {
	GetTask() string
	GetApiKey() []byte
	GetRemoteAddr() string
}

// refuse counts and logs a refusal, and returns it. The task is one of the configuration, or "".
func (s *Server) refuse(r presented, key auth.KeyInfo, task, kind string, err error) error {
	return s.refuseFor(r, key, task, kind, errorText(err), err)
}

// refuseFor is refuse with a reason for the log alone.
func (s *Server) refuseFor(r presented, key auth.KeyInfo, task, kind, reason string, err error) error {
	s.Rejected(task, kind)
	name := r.GetTask()
	s.audit(decision{
		decision: refused, action: actionOf(r), kind: kind, task: cut(name, longestTask), key: key.Name, keyID: key.ID, remote: r.GetRemoteAddr(),
		reason: reason, stranger: key.ID == "",
	})
	return err
}

func (s *Server) unauthorized(r presented, key auth.KeyInfo) error {
	return s.refuse(r, key, "", "unauthorized", fail(connect.CodeUnauthenticated, "unauthorized", auth.ErrUnauthorized))
}

// verify returns the presented key, if it is good.
func (s *Server) verify(ctx context.Context, r presented) (auth.KeyInfo, error) {
	key, err := s.Keys.Verify(ctx, r.GetRemoteAddr(), r.GetApiKey())
	if errors.Is(err, auth.ErrUnauthorized) {
		return key, s.unauthorized(r, key)
	}
	if err != nil {
		return key, waitError(err)
	}
	return key, nil
}

// taskFor returns the configuration and the task that a key may use.
func (s *Server) taskFor(r presented, key auth.KeyInfo) (*config.Config, *config.Task, error) {
	c := s.Snapshot().Config
	if c == nil {
		return nil, nil, s.refuse(r, key, "", "configuration", noTasks())
	}
	task, ok := c.Tasks[r.GetTask()]
	if !ok || !slices.Contains(task.APIKeys, key.Name) {
		name := ""
		if ok {
			name = task.Name
		}
		return nil, nil, s.refuse(r, key, name, "forbidden",
			fail(connect.CodePermissionDenied, "forbidden", errors.New("this key may not use a task of this name")))
	}
	return c, task, nil
}

// noTasks is the error of a configuration with errors. What is wrong with it is the administrator's to know: `rtaskctl config
// check` and the journal say so.
func noTasks() error {
	return fail(connect.CodeUnavailable, "configuration", errors.New("the configuration has errors, so there are no tasks"))
}

// Run implements GatewayService: the whole decision about a request from the network.
func (s *Server) Run(ctx context.Context, r *rtaskv1.RunRequest) (*rtaskv1.RunResponse, error) {
	ctx, key, done, err := s.keyed(ctx, r)
	if err != nil {
		return nil, err
	}
	defer done()
	task, js, err := s.runSpec(r, key)
	if err != nil {
		return nil, err
	}
	result, err := s.run(ctx, task.Blocking, js, keyDecision(task, key, r))
	s.count(task, key.Name, err)
	switch {
	case err != nil:
		return nil, s.ended(ctx, r, key, err)
	case !task.Blocking:
		return &rtaskv1.RunResponse{Job: jobMessage(result.Job), Accepted: true}, nil
	}
	return resultMessage(result), nil
}

// RunFraming implements GatewayService.
func (s *Server) RunFraming(ctx context.Context, r *rtaskv1.RunFramingRequest) (*rtaskv1.RunFramingResponse, error) {
	key, err := s.verify(ctx, r)
	if err != nil {
		return nil, err
	}
	_, task, err := s.taskFor(r, key)
	if err != nil {
		s.Requested("", key.Name, kindOf(err))
		return nil, err
	}
	return &rtaskv1.RunFramingResponse{MaxInputBytes: task.MaxInputBytes, KeyId: key.ID}, nil
}

// keyDecision is the decision about a request with a key, as far as it is known before there is one.
func keyDecision(t *config.Task, key auth.KeyInfo, r presented) decision {
	return decision{action: actionOf(r), task: t.Name, key: key.Name, keyID: key.ID, remote: r.GetRemoteAddr()}
}

// keySpec is what a run of a task is for a request that came with a key.
func (s *Server) keySpec(c *config.Config, t *config.Task, key auth.KeyInfo, r *rtaskv1.RunRequest) (job.Spec, error) {
	params, err := queryParameters(string(r.Query))
	if err != nil {
		return job.Spec{}, err
	}
	return s.requestSpec(c, t, request{
		owner: job.Owner{Key: key.ID, Name: key.Name}, trigger: "http", input: r.Input, params: params, headers: r.Headers,
	})
}

func resultMessage(r job.Result) *rtaskv1.RunResponse {
	return &rtaskv1.RunResponse{Job: jobMessage(r.Job), Stdout: r.Stdout, Stderr: r.Stderr, Truncated: r.Truncated}
}

// Result implements GatewayService.
func (s *Server) Result(ctx context.Context, r *rtaskv1.ResultRequest) (*rtaskv1.RunResponse, error) {
	ctx, key, done, err := s.keyed(ctx, r)
	if err != nil {
		return nil, err
	}
	defer done()
	_, task, err := s.taskFor(r, key)
	if err != nil {
		return nil, err
	}
	j, err := s.jobOf(task, key, r.Id)
	if err == nil {
		j, err = s.waitFor(ctx, key, j, r.Wait)
	}
	switch {
	case err != nil:
		return nil, s.ended(ctx, r, key, err)
	case j.State != job.Ended:
		return &rtaskv1.RunResponse{Job: jobMessage(j), Accepted: true}, nil
	}
	result, err := s.Jobs.Output(ctx, j)
	if err != nil && !errors.Is(err, job.ErrNotFound) { // a job that never ran has no output
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
	return fail(connect.CodeUnavailable, "unavailable", errors.New("the engine is restarting; the job runs on"),
		func(e *rtaskv1.Error) { e.JobId, e.Restarting = id, true })
}

// kindOf returns the kind of an error that fail made, or what comes nearest to another one's code.
func kindOf(err error) string {
	if d := codec.DetailOf(err); d != nil {
		return d.Kind
	}
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied:
		return "forbidden"
	case connect.CodeInvalidArgument:
		return "bad-request"
	default:
		return "unavailable"
	}
}

// Refused implements GatewayService.
func (s *Server) Refused(ctx context.Context, r *rtaskv1.RefusedRequest) (*rtaskv1.RefusedResponse, error) {
	m := r
	if m.Kind != "bad-request" && m.Kind != "unavailable" {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "the gateway refuses nothing as %q", m.Kind)
	}
	d := decision{decision: refused, action: actionStart, kind: m.Kind, reason: m.Reason, remote: m.RemoteAddr, stranger: true}
	known := "" // a task, to who may use it
	if c := s.Snapshot().Config; c != nil && m.Hash != "" {
		if t, w := c.Webhook(m.Hash, s.ReadSecret); w != nil {
			d.task, d.webhook, known = t.Name, w.Name, t.Name
		}
	} else if c != nil && c.Tasks[m.Task] != nil {
		// That a key is bad is not what this was refused for.
		if key, err := s.Keys.Verify(ctx, m.RemoteAddr, m.ApiKey); err == nil && slices.Contains(c.Tasks[m.Task].APIKeys, key.Name) {
			d.task, d.key, d.keyID, d.stranger, known = m.Task, key.Name, key.ID, false, m.Task
		}
	}
	s.Rejected(known, m.Kind)
	if d.webhook != "" {
		s.Requested(known, d.webhook, m.Kind)
	}
	s.audit(d)
	return &rtaskv1.RefusedResponse{}, nil
}

// Framing implements GatewayService.
func (s *Server) Framing(context.Context, *rtaskv1.FramingRequest) (*rtaskv1.FramingResponse, error) {
	snapshot := s.Snapshot()
	reply := &rtaskv1.FramingResponse{
		Draining: s.Jobs.Draining(), ConfigurationErrors: snapshot.Diagnostics.HasErrors(), NoConfiguration: snapshot.Config == nil,
	}
	if c := snapshot.Config; c != nil {
		reply.AllowPlaintext = c.AllowPlaintext
		for _, p := range c.TrustedProxies {
			reply.TrustedProxies = append(reply.TrustedProxies, p.String())
		}
		if c.TrustUnix {
			reply.TrustedProxies = append(reply.TrustedProxies, "unix")
		}
	}
	return reply, nil
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
