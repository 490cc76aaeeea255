package control

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// retryAfter is what a client is told that came at a bad moment.
	retryAfter = time.Second
	// commandLogMax is log_max_bytes of a command, and commandTimeoutStop its timeout_stop_sec; a command has no timeout.
	commandLogMax      = 64 << 20
	commandTimeoutStop = 10 * time.Second
)

// taskSpec is what a run of a task is. Every reason why the task cannot run now is found here, before there is a job.
func (s *Server) taskSpec(in Snapshot, t *config.Task, owner job.Owner, trigger string, input []byte) (job.Spec, error) {
	unusable := func(err error) error {
		return fail(connect.CodeUnavailable, rtaskv1.KindConfiguration, fmt.Errorf("task %q cannot run: %w", t.Name, err))
	}
	if !in.Enabled(t) {
		return job.Spec{}, fail(connect.CodeUnavailable, rtaskv1.KindDisabled, fmt.Errorf("task %q is disabled", t.Name))
	}
	if int64(len(input)) > t.MaxInputBytes {
		return job.Spec{}, inputTooLarge(t)
	}
	if t.Schedule != nil || t.Watch != nil {
		if why := s.Unscheduled(); why != "" {
			return job.Spec{}, unusable(errors.New(why))
		}
	}
	js := job.Spec{
		Run: spec.Run{
			Task: t.Name, Args: t.Command, Env: t.Environment, Dir: t.Workdir, Sandbox: t.Sandbox,
			Limits: t.Limits, LimitsOptional: in.Config.LimitsUnavailable == config.LimitsUnavailableWarn,
			Timeout: t.Timeout, TimeoutStop: t.TimeoutStop, KillSignal: t.KillSignal,
			RedirectStderr: t.RedirectStderr, MaxReply: t.MaxOutputBytes, LogMax: t.LogMaxBytes, Journal: t.Journal,
		},
		Terms: job.Terms{
			Policy: spec.Policy{
				Rate: t.RateLimit, MaxConcurrent: t.MaxConcurrent, Overflow: t.Overflow, MaxQueue: t.Queue,
				Keep: t.Pool.Keep, Warm: t.Pool.Warm, Config: t.Hash,
			},
			Input: input, Volatile: t.Blocking && trigger == "http" && t.Retry.Attempts < 2, // what is tried again must be on record
		},
		Owner: owner, Trigger: trigger, OnFailure: t.OnFailure, OnSuccess: t.OnSuccess,
		Retry: job.Retry{Attempts: t.Retry.Attempts, Delay: t.Retry.Delay},
	}
	if t.EnvironmentFile != "" {
		env, err := config.ReadEnvironmentFile(t.EnvironmentFile, os.Geteuid())
		if err != nil {
			return job.Spec{}, unusable(err)
		}
		js.Env = slices.Concat(js.Env, env)
	}
	for _, p := range t.Params {
		if p.Default != nil {
			js.Env = append(js.Env[:len(js.Env):len(js.Env)], p.Variable()+"="+*p.Default)
		}
	}
	if strings.Contains(t.Command[0], "/") && !filepath.IsAbs(t.Command[0]) {
		js.Path = filepath.Join(t.Workdir, t.Command[0])
	}
	// What this process may not look at (an NFS export that does not trust root) the task's user may enter all the same.
	if fi, err := os.Stat(t.Workdir); errors.Is(err, fs.ErrNotExist) || err == nil && !fi.IsDir() {
		return job.Spec{}, unusable(fmt.Errorf("its workdir %s is not a folder on this machine", t.Workdir))
	}
	if t.User != "" {
		u, err := job.LookupUser(t.User)
		if err != nil {
			return job.Spec{}, unusable(err)
		}
		// By its number, which has other names, too: it could hand in requests as if they came from the network.
		if s.GatewayUID != nil && u.UID == *s.GatewayUID {
			return job.Spec{}, unusable(fmt.Errorf("its user %s is the gateway's", t.User))
		}
		js.As = u
	}
	if t.Group != "" {
		gid, err := job.LookupGroup(t.Group)
		if err != nil {
			return job.Spec{}, unusable(err)
		}
		js.Group = &gid
	}
	for _, g := range t.SupplementaryGroups {
		gid, err := job.LookupGroup(g)
		if err != nil {
			return job.Spec{}, unusable(err)
		}
		js.Groups = append(js.Groups, gid)
	}
	if !js.LimitsOptional {
		if err := s.CheckLimits(t.Limits); err != nil {
			return job.Spec{}, unusable(err)
		}
	}
	return js, nil
}

// TaskSpecs returns what a job is of each task that can run now.
func (s *Server) TaskSpecs() []job.Spec {
	in := s.Snapshot()
	if in.Config == nil {
		return nil
	}
	var specs []job.Spec
	for _, t := range in.Config.Tasks {
		if js, err := s.taskSpec(in, t, job.Owner{}, "", nil); err == nil {
			specs = append(specs, js)
		}
	}
	return specs
}

func inputTooLarge(t *config.Task) error {
	return fail(connect.CodeInvalidArgument, rtaskv1.KindInputTooLarge,
		fmt.Errorf("task %q takes an input of at most %d bytes (max_input_bytes)", t.Name, t.MaxInputBytes))
}

// commandSpec is a command that runs as a user: a local one's own, or that of a remote client's role.
func (s *Server) commandSpec(c *call, as *job.User, r *rtaskv1.StartRequest) (job.Spec, error) {
	snapshot := c.snapshot
	invalid := func(format string, args ...any) error {
		return connect.Errorf(connect.CodeInvalidArgument, format, args...)
	}
	switch {
	case snapshot.Config == nil && !r.Command && (r.Path == "" || snapshot.MayBeTask(r.Name)):
		// A name never falls through to a command.
		return job.Spec{}, configurationError(snapshot)
	case r.Path == "" && r.Command:
		return job.Spec{}, fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("no command %q was found in PATH", r.Name))
	case r.Path == "":
		return job.Spec{}, fail(connect.CodeNotFound, rtaskv1.KindNotFound,
			fmt.Errorf("there is no task %q, and no command of that name was found in PATH", r.Name))
	case len(r.Parameters) > 0:
		return job.Spec{}, invalid("a command takes no parameters: --param is for tasks")
	case !filepath.IsAbs(r.Path):
		return job.Spec{}, invalid("the path %q of the command is not absolute", r.Path)
	case !filepath.IsAbs(r.WorkingDirectory):
		return job.Spec{}, fail(connect.CodeInvalidArgument, rtaskv1.KindWorkingDirectory,
			fmt.Errorf("the working directory %q is not absolute", r.WorkingDirectory))
	}
	var env []string
	if r.SearchPath != "" {
		env = append(env, "PATH="+r.SearchPath)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Environment)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return job.Spec{}, invalid("%q cannot be the name of an environment variable", name)
		}
		if strings.HasPrefix(name, "RTASK_") || strings.HasPrefix(name, "REQUEST_HEADER_") {
			return job.Spec{}, invalid("%s cannot be set: names that begin with RTASK_ and REQUEST_HEADER_ are rtask's own", name)
		}
		env = append(env, name+"="+r.Environment[name])
	}
	p, err := s.properties(c.Caller, r.Properties)
	if err != nil {
		return job.Spec{}, err
	}
	return job.Spec{
		Run: spec.Run{
			Path: r.Path, Args: append([]string{r.Name}, r.Arguments...), Env: env, Dir: r.WorkingDirectory, Sandbox: p.Sandbox,
			Limits: p.Limits, LimitsOptional: snapshot.Config != nil && snapshot.Config.LimitsUnavailable == config.LimitsUnavailableWarn,
			Timeout: p.Timeout, TimeoutStop: p.TimeoutStop, KillSignal: p.KillSignal, LogMax: commandLogMax, Journal: true,
		},
		Terms: job.Terms{Input: r.Input, Unique: !r.AllowDuplicate},
		As:    as, Owner: c.owner(), Trigger: c.trigger(),
	}, nil
}

// configurationError says that there is no configuration, and why.
func configurationError(snapshot Snapshot) error {
	text := "the configuration has errors, so there are no tasks"
	for _, d := range snapshot.Diagnostics {
		if d.Severity == config.SeverityError {
			text += ": " + d.String()
			break
		}
	}
	return fail(connect.CodeUnavailable, rtaskv1.KindConfiguration, errors.New(text), func(e *rtaskv1.Error) {
		e.Diagnostics = diagnosticMessages(snapshot.Diagnostics)
	})
}
