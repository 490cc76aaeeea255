package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/daemon/jobid"
	"github.com/rtask/rtask/sandbox/spec"
)

// promisesRetryAfter is what a client is told that has used too many idempotency keys: they go one by one, a day after each
// was used.
const promisesRetryAfter = time.Minute

// Start implements JobService.
func (s *Server) Start(ctx context.Context, r *rtaskv1.StartRequest) (*rtaskv1.StartResponse, error) {
	snapshot := s.Snapshot()
	spec, err := s.startSpec(callerFrom(ctx), snapshot, r)
	var j job.Job
	if err == nil {
		if j, err = s.Jobs.Start(ctx, spec); err != nil {
			err = s.startError(spec.Task, err)
		}
	}
	s.decide(localStart(callerFrom(ctx), snapshot, r), j.ID, err)
	if err != nil {
		return nil, err
	}
	return &rtaskv1.StartResponse{Job: jobMessage(j)}, nil
}

// startSpec turns a request into what to run, or says what is wrong with it.
func (s *Server) startSpec(c auth.Caller, snapshot Snapshot, r *rtaskv1.StartRequest) (job.Spec, error) {
	if r.Name == "" {
		return job.Spec{}, connect.NewError(connect.CodeInvalidArgument, "no task and no command was named")
	}
	var task *config.Task
	if snapshot.Config != nil && !r.Command {
		task = snapshot.Config.Tasks[r.Name]
	}
	if !c.AllObjects() && (task == nil || !mayStart(c, task)) {
		return job.Spec{}, connect.Errorf(connect.CodePermissionDenied, "permission denied: %s may not start %q", c.Name(), r.Name)
	}
	owner := job.Owner{UID: c.Peer.UID, Name: c.Name()}
	if task == nil {
		return s.commandSpec(c, owner, r, snapshot)
	}
	switch {
	case len(r.Arguments) > 0:
		return job.Spec{}, connect.Errorf(connect.CodeInvalidArgument, "task %q takes no arguments", r.Name)
	case len(r.Environment) > 0:
		return job.Spec{}, connect.Errorf(connect.CodeInvalidArgument, "task %q has an environment of its own, none can be added", r.Name)
	case len(r.Properties) > 0:
		return job.Spec{}, connect.Errorf(connect.CodeInvalidArgument, "task %q has limits of its own, none can be set: -p is for commands", r.Name)
	}
	return s.requestSpec(snapshot.Config, task, request{owner: owner, trigger: "local", input: r.Input, params: messageParameters(r.Parameters)})
}

// mayStart reports whether a task names the caller.
func mayStart(c auth.Caller, t *config.Task) bool {
	if c.UserName != "" && slices.Contains(t.AllowUsers, c.UserName) {
		return true
	}
	return slices.ContainsFunc(t.AllowUsers, func(name string) bool { return isNumber(name, c.Peer.UID) }) ||
		slices.ContainsFunc(t.AllowGroups, func(name string) bool {
			gid, err := job.LookupGroup(name)
			return err == nil && c.Peer.In(gid)
		})
}

func isNumber(name string, id uint32) bool { return name == fmt.Sprint(id) }

// startError turns an error of job.Start into one of the API.
func (s *Server) startError(task string, err error) error {
	var e *connect.Error
	var duplicate *job.DuplicateError
	var repeat *job.RepeatError
	var rate *job.RateError
	kind := "unavailable"
	switch {
	case errors.As(err, &repeat):
		kind = "replay"
		e = fail(connect.CodeAlreadyExists, kind, err, func(d *rtaskv1.Error) { d.JobId = repeat.ID })
	case errors.As(err, &duplicate):
		kind = "conflict"
		e = fail(connect.CodeAlreadyExists, kind, err, func(d *rtaskv1.Error) { d.JobId = duplicate.ID })
	case errors.As(err, &rate):
		kind = "rate-limited"
		e = fail(connect.CodeResourceExhausted, kind, err, func(d *rtaskv1.Error) { d.RetryAfter = durationpb.New(rate.RetryAfter) })
	case errors.Is(err, job.ErrPromises):
		kind = "rate-limited"
		e = fail(connect.CodeResourceExhausted, kind, err, func(d *rtaskv1.Error) { d.RetryAfter = durationpb.New(promisesRetryAfter) })
	case errors.Is(err, job.ErrTaken), errors.Is(err, job.ErrDifferent):
		kind = "conflict"
		e = fail(connect.CodeAlreadyExists, kind, err)
	case errors.Is(err, job.ErrQueueFull):
		kind = "queue-full"
		e = fail(connect.CodeResourceExhausted, kind, err, func(d *rtaskv1.Error) {
			d.RetryAfter = durationpb.New(retryAfter)
		})
	case errors.Is(err, job.ErrClosed):
		e = fail(connect.CodeUnavailable, kind, err, func(d *rtaskv1.Error) { d.Restarting = true })
	case errors.Is(err, job.ErrDraining):
		e = drainError()
	case errors.Is(err, job.ErrTooMany), errors.Is(err, job.ErrConcurrency):
		kind = "concurrency"
		e = fail(connect.CodeResourceExhausted, kind, err, func(d *rtaskv1.Error) {
			d.RetryAfter = durationpb.New(retryAfter)
		})
	case errors.Is(err, job.ErrInvalid):
		kind = "configuration"
		if task == "" {
			kind = "bad-request"
		}
		e = fail(connect.CodeFailedPrecondition, kind, err)
	default:
		e = fail(connect.CodeUnavailable, kind, err)
	}
	s.Rejected(task, kind)
	return e
}

// find returns the job that ref names, if the caller may see it. One that it may not see is not there.
func (s *Server) find(ctx context.Context, ref string) (job.Job, error) {
	c := callerFrom(ctx)
	if err := s.noTask(c, ref); err != nil {
		return job.Job{}, err
	}
	var seen func(job.Job) bool
	if !c.AllObjects() {
		seen = func(j job.Job) bool { return visible(c, j) }
	}
	j, err := s.Jobs.Find(ref, seen)
	switch {
	case errors.Is(err, job.ErrAmbiguous), errors.Is(err, job.ErrShort):
		return job.Job{}, coded(connect.CodeInvalidArgument, err)
	case errors.Is(err, job.ErrNotFound):
		return job.Job{}, fail(connect.CodeNotFound, "not-found", fmt.Errorf("no such job: %q", ref))
	case errors.Is(err, job.ErrClosed):
		return job.Job{}, fail(connect.CodeUnavailable, "unavailable", err)
	case err != nil:
		return job.Job{}, coded(connect.CodeInternal, err)
	}
	return j, nil
}

// noTask returns an error if ref is the name of a task that the caller may know. Whoever names a task where a job is meant does not
// mean a job whose id happens to begin so.
func (s *Server) noTask(c auth.Caller, ref string) error {
	cfg := s.Snapshot().Config
	if cfg == nil || len(ref) == jobid.Length {
		return nil
	}
	t := cfg.Tasks[ref]
	if t == nil || !c.AllObjects() && !mayStart(c, t) {
		return nil
	}
	return fail(connect.CodeNotFound, "not-found", fmt.Errorf("%q is a task, not a job; rtaskctl ps -a --task %s lists its jobs", ref, ref))
}

// visible reports whether a caller may see and stop a job.
func visible(c auth.Caller, j job.Job) bool {
	return c.AllObjects() || c.Kind == auth.User && j.Owner.Key == "" && j.Owner.UID == c.Peer.UID
}

// Stop implements JobService.
func (s *Server) Stop(ctx context.Context, r *rtaskv1.StopRequest) (*rtaskv1.StopResponse, error) {
	c := callerFrom(ctx)
	j, err := s.find(ctx, r.Job)
	d := decision{action: actionStop, user: c.Name(), task: j.Task, moot: j.State == job.Ended}
	if j.Task == "" {
		d.command = j.Command()
	}
	s.decide(d, j.ID, err)
	if err != nil {
		return nil, err
	}
	hadEnded := j.State == job.Ended
	j, err = s.Jobs.Stop(ctx, j.ID, job.StopOptions{By: c.Name(), Kill: r.Kill})
	if err != nil {
		return nil, waitError(err)
	}
	// It may have ended by itself since it was found.
	hadEnded = hadEnded || j.Exit != nil && j.Exit.Reason != spec.Stopped
	return &rtaskv1.StopResponse{Job: jobMessage(j), HadEnded: hadEnded}, nil
}

// Status implements JobService.
func (s *Server) Status(ctx context.Context, r *rtaskv1.StatusRequest) (*rtaskv1.StatusResponse, error) {
	j, err := s.find(ctx, r.Job)
	if err != nil {
		return nil, err
	}
	reply := &rtaskv1.StatusResponse{Job: jobMessage(j), LimitsMissing: s.limitsMissing(j.Limits, j.LimitsOptional)}
	if j.State != job.Ended {
		reply.Usage = usageMessage(s.Jobs.Current(j))
	}
	return reply, nil
}

// Wait implements JobService.
func (s *Server) Wait(ctx context.Context, r *rtaskv1.WaitRequest) (*rtaskv1.WaitResponse, error) {
	j, err := s.find(ctx, r.Job)
	if err != nil {
		return nil, err
	}
	done, err := s.watchAs(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	result, err := s.Jobs.Wait(ctx, j.ID)
	if err != nil {
		return nil, waitError(err)
	}
	return &rtaskv1.WaitResponse{Job: jobMessage(result.Job)}, nil
}

// waitError is an error of waiting for a job, which is the caller's own end or the engine's.
func waitError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return coded(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return coded(connect.CodeDeadlineExceeded, err)
	case errors.Is(err, job.ErrNotFound):
		return fail(connect.CodeNotFound, "not-found", err)
	default:
		return fail(connect.CodeUnavailable, "unavailable", err)
	}
}

// errorText is an error's message without its code.
func errorText(err error) string {
	var e *connect.Error
	if errors.As(err, &e) {
		return e.Message()
	}
	return err.Error()
}
