package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"

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
	c := callOf(ctx)
	spec, err := s.startSpec(c, r)
	var j job.Job
	if err == nil {
		if j, err = s.Jobs.Start(ctx, spec); err != nil {
			err = s.startError(spec.Task, err)
		}
	}
	s.decide(localStart(c, r), j.ID, err)
	if err != nil {
		return nil, err
	}
	return &rtaskv1.StartResponse{Job: c.jobMessage(j)}, nil
}

// startSpec turns a request into what to run, or says what is wrong with it.
func (s *Server) startSpec(c *call, r *rtaskv1.StartRequest) (job.Spec, error) {
	if r.Name == "" {
		return job.Spec{}, connect.NewError(connect.CodeInvalidArgument, "no task and no command was named")
	}
	if r.Trigger != "" {
		return s.startedSpec(c, r)
	}
	if c.Kind == auth.Remote {
		return s.remoteSpec(c, r)
	}
	var task *config.Task
	if c.snapshot.Config != nil && !r.Command {
		task = c.snapshot.Config.Tasks[r.Name]
	}
	if !c.AllObjects() && (task == nil || !c.may(task)) {
		return job.Spec{}, connect.Errorf(connect.CodePermissionDenied, "permission denied: %s may not start %q", c.Name(), r.Name)
	}
	if task == nil {
		// The caller's own rights, as the kernel knows them, neither more nor less.
		as := job.UserOf(spec.Credentials{UID: c.Peer.UID, GID: c.Peer.GID, Groups: c.Peer.Groups})
		return s.commandSpec(c, as, r)
	}
	return s.taskRequest(c, task, r)
}

// startedSpec is what systemd starts, for a timer or a path. Its name never falls through to a command.
func (s *Server) startedSpec(c *call, r *rtaskv1.StartRequest) (job.Spec, error) {
	if c.Kind != auth.Admin {
		return job.Spec{}, connect.Errorf(connect.CodePermissionDenied, "permission denied: %s may not say what started a task", c.Name())
	}
	if r.Trigger != triggerSchedule && r.Trigger != triggerPath {
		return job.Spec{}, badRequest("%q is no trigger: %q or %q", r.Trigger, triggerSchedule, triggerPath)
	}
	t, err := c.taskNamed(r.Name)
	if err != nil {
		return job.Spec{}, err
	}
	return s.taskRequest(c, t, r)
}

// The triggers of what systemd starts, as job.Spec.Trigger has them.
const (
	triggerSchedule = "schedule"
	triggerPath     = "path"
)

// taskRequest is what a request starts for a task that the caller may start.
func (s *Server) taskRequest(c *call, task *config.Task, r *rtaskv1.StartRequest) (job.Spec, error) {
	switch {
	case len(r.Arguments) > 0:
		return job.Spec{}, connect.Errorf(connect.CodeInvalidArgument, "task %q takes no arguments", r.Name)
	case len(r.Environment) > 0:
		return job.Spec{}, connect.Errorf(connect.CodeInvalidArgument, "task %q has an environment of its own, none can be added", r.Name)
	case len(r.Properties) > 0:
		return job.Spec{}, connect.Errorf(connect.CodeInvalidArgument, "task %q has limits of its own, none can be set: -p is for commands", r.Name)
	}
	return s.requestSpec(c.snapshot, task, request{owner: c.owner(), trigger: cmp.Or(r.Trigger, c.trigger()), input: r.Input, params: messageParameters(r.Parameters)})
}

// trigger is job.Spec.Trigger of what a caller of JobService starts.
func (c *call) trigger() string {
	if c.Kind == auth.Remote {
		return triggerRemote
	}
	return "local"
}

// startError turns an error of job.Start into one of the API.
func (s *Server) startError(task string, err error) error {
	var e *connect.Error
	var duplicate *job.DuplicateError
	var repeat *job.RepeatError
	var rate *job.RateError
	switch {
	case errors.As(err, &repeat):
		e = fail(connect.CodeAlreadyExists, rtaskv1.KindReplay, err, func(d *rtaskv1.Error) { d.JobId = repeat.ID })
	case errors.As(err, &duplicate):
		e = fail(connect.CodeAlreadyExists, rtaskv1.KindConflict, err, func(d *rtaskv1.Error) { d.JobId = duplicate.ID })
	case errors.As(err, &rate):
		e = fail(connect.CodeResourceExhausted, rtaskv1.KindRateLimited, err, retryIn(rate.RetryAfter))
	case errors.Is(err, job.ErrPromises):
		e = fail(connect.CodeResourceExhausted, rtaskv1.KindRateLimited, err, retryIn(promisesRetryAfter))
	case errors.Is(err, job.ErrTaken), errors.Is(err, job.ErrDifferent):
		e = fail(connect.CodeAlreadyExists, rtaskv1.KindConflict, err)
	case errors.Is(err, job.ErrQueueFull):
		e = fail(connect.CodeResourceExhausted, rtaskv1.KindQueueFull, err, retryIn(retryAfter))
	case errors.Is(err, job.ErrClosed):
		e = fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err, func(d *rtaskv1.Error) { d.Restarting = true })
	case errors.Is(err, job.ErrDraining):
		e = drainError()
	case errors.Is(err, job.ErrTooMany), errors.Is(err, job.ErrConcurrency):
		e = fail(connect.CodeResourceExhausted, rtaskv1.KindConcurrency, err, retryIn(retryAfter))
	case errors.Is(err, job.ErrInvalid):
		kind := rtaskv1.KindConfiguration
		if task == "" {
			kind = rtaskv1.KindBadRequest
		}
		e = fail(connect.CodeFailedPrecondition, kind, err)
	default:
		e = fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err)
	}
	s.Rejected(task, string(kindOf(e)))
	return e
}

// find returns the job that ref names, if the caller may see it. One that it may not see is not there. Clients on the network name
// a job by its whole id, and see it until its task's retention is over.
func (s *Server) find(c *call, ref string) (job.Job, error) {
	network, unknown := c.Kind == auth.KeyHolder, fmt.Errorf("no such job: %q", ref)
	var seen func(job.Job) bool
	switch {
	case network:
		unknown = errors.New("there is no such job of this task and key, or its result is not kept any more")
		seen = func(j job.Job) bool { return j.ID == ref && c.sees(j) }
	case !c.AllObjects():
		seen = c.sees
	}
	if err := c.noTask(ref); err != nil {
		return job.Job{}, err
	}
	j, err := job.Job{}, job.ErrNotFound
	if !network || jobid.Valid(ref) {
		j, err = s.Jobs.Find(ref, seen)
	}
	switch {
	case errors.Is(err, job.ErrNotFound), network && errors.Is(err, job.ErrAmbiguous),
		network && err == nil && j.State == job.Ended && time.Since(j.EndedAt) > c.task.Retention:
		return job.Job{}, fail(connect.CodeNotFound, rtaskv1.KindNotFound, unknown)
	case errors.Is(err, job.ErrAmbiguous), errors.Is(err, job.ErrShort):
		return job.Job{}, coded(connect.CodeInvalidArgument, err)
	case errors.Is(err, job.ErrClosed), network && err != nil:
		return job.Job{}, fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err)
	case err != nil:
		return job.Job{}, coded(connect.CodeInternal, err)
	}
	return j, nil
}

// noTask returns an error if ref is the name of a task that a local caller may know. Whoever names a task where a job is meant does
// not mean a job whose id happens to begin so.
func (c *call) noTask(ref string) error {
	cfg := c.snapshot.Config
	if cfg == nil || c.Kind == auth.KeyHolder || len(ref) == jobid.Length {
		return nil
	}
	if t := cfg.Tasks[ref]; t == nil || !c.may(t) {
		return nil
	}
	return fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("%q is a task, not a job; rtaskctl ps -a --task %s lists its jobs", ref, ref))
}

// Stop implements JobService.
func (s *Server) Stop(ctx context.Context, r *rtaskv1.StopRequest) (*rtaskv1.StopResponse, error) {
	c := callOf(ctx)
	j, err := s.find(c, r.Job)
	j, hadEnded, err := s.stop(ctx, c, j, err, job.StopOptions{Kill: r.Kill}, "")
	if err != nil {
		return nil, err
	}
	return &rtaskv1.StopResponse{Job: c.jobMessage(j), HadEnded: hadEnded}, nil
}

// stop stops the job that find has returned, or notes why there is none. The reason is for the log alone.
func (s *Server) stop(ctx context.Context, c *call, j job.Job, err error, how job.StopOptions, reason string) (_ job.Job, hadEnded bool, _ error) {
	rests := j.Rests() // then its next attempt is what there is to stop
	hadEnded = j.State == job.Ended && !rests
	d := c.decision()
	d.reason, d.moot = reason, err == nil && hadEnded
	if err == nil {
		d.task = j.Task
		if j.Task == "" {
			d.command = j.Command()
		}
	}
	s.decide(d, j.ID, err)
	if err != nil {
		return j, false, err
	}
	how.By = cmp.Or(how.By, c.Name())
	if j, err = s.Jobs.Stop(ctx, j.ID, how); err != nil {
		return j, false, waitError(err)
	}
	if rests {
		return j, len(j.Triggered) > 0, nil
	}
	// It may have ended by itself since it was found.
	return j, hadEnded || j.Exit != nil && j.Exit.Reason != spec.Stopped, nil
}

// Status implements JobService.
func (s *Server) Status(ctx context.Context, r *rtaskv1.StatusRequest) (*rtaskv1.StatusResponse, error) {
	c := callOf(ctx)
	j, err := s.find(c, r.Job)
	if err != nil {
		return nil, err
	}
	reply := &rtaskv1.StatusResponse{Job: c.jobMessage(j), LimitsMissing: s.limitsMissing(j.Limits, j.LimitsOptional)}
	if j.State != job.Ended {
		reply.Usage = usageMessage(s.Jobs.Current(j))
	}
	return reply, nil
}

// Wait implements JobService.
func (s *Server) Wait(ctx context.Context, r *rtaskv1.WaitRequest) (*rtaskv1.WaitResponse, error) {
	j, err := s.find(callOf(ctx), r.Job)
	if err != nil {
		return nil, err
	}
	done, err := s.watch(callOf(ctx))
	if err != nil {
		return nil, err
	}
	defer done()
	result, err := s.Jobs.Wait(ctx, j.ID)
	if err != nil {
		return nil, waitError(err)
	}
	return &rtaskv1.WaitResponse{Job: callOf(ctx).jobMessage(result.Job)}, nil
}

// waitError is an error of waiting for a job, which is the caller's own end or the engine's.
func waitError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return coded(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return coded(connect.CodeDeadlineExceeded, err)
	case errors.Is(err, job.ErrNotFound):
		return fail(connect.CodeNotFound, rtaskv1.KindNotFound, err)
	default:
		return fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err)
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
