package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

// TaskSwitch is what SwitchTask was last called with for a task.
type TaskSwitch struct {
	Enabled bool      `json:"enabled"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// Enabled reports whether a task may be started: as its switch says, without one as its configuration does.
func (s Snapshot) Enabled(t *config.Task) bool {
	if is, ok := s.Switches[t.Name]; ok {
		return is.Enabled
	}
	return t.Enabled
}

// Tasks implements JobService.
func (s *Server) Tasks(ctx context.Context, r *rtaskv1.TasksRequest) (*rtaskv1.TasksResponse, error) {
	c := callOf(ctx)
	if c.snapshot.Config == nil {
		return nil, configurationError(c.snapshot)
	}
	reply := &rtaskv1.TasksResponse{}
	var tasks []*config.Task
	for _, name := range slices.Sorted(maps.Keys(c.snapshot.Config.Tasks)) {
		if t := c.snapshot.Config.Tasks[name]; c.may(t) && (r.Name == "" || r.Name == name) {
			tasks = append(tasks, t)
		}
	}
	next := s.NextRuns(ctx, tasks)
	for _, t := range tasks {
		reply.Tasks = append(reply.Tasks, s.taskMessage(c.snapshot, t, next))
	}
	return reply, s.addLastRuns(c, reply.Tasks)
}

// addLastRuns sets the last runs of tasks, as far as the caller may list and see them.
func (s *Server) addLastRuns(c *call, tasks []*rtaskv1.Task) error {
	lists := c.as("/rtask.v1.JobService/List")
	if lists == nil {
		return nil
	}
	names := make([]string, len(tasks))
	for i, t := range tasks {
		names[i] = t.Name
	}
	last, err := s.Jobs.LastRuns(names, lists.visible())
	switch {
	case errors.Is(err, job.ErrClosed):
		return fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err)
	case err != nil:
		return coded(connect.CodeInternal, err)
	}
	for _, t := range tasks {
		if j, ok := last[t.Name]; ok {
			t.Last = lists.jobMessage(j)
		}
	}
	return nil
}

// ShowTask implements JobService.
func (s *Server) ShowTask(ctx context.Context, r *rtaskv1.ShowTaskRequest) (*rtaskv1.ShowTaskResponse, error) {
	c := callOf(ctx)
	t, err := c.taskNamed(r.Task)
	if err != nil {
		return nil, err
	}
	text, object, err := c.snapshot.Config.Show(t.Name, c.Kind == auth.Admin)
	if err != nil {
		return nil, coded(connect.CodeInternal, err)
	}
	m := &rtaskv1.ShowTaskResponse{
		Task: s.taskMessage(c.snapshot, t, s.NextRuns(ctx, []*config.Task{t})), File: t.Pos.File, Line: int32(t.Pos.Line), Hcl: text, Json: string(object),
	}
	_, m.Missing = s.Give(t.Sandbox)
	m.LimitsMissing = s.limitsMissing(t.Limits, optional(c.snapshot.Config))
	e := s.exposure(t)
	m.Exposure, m.ExposureWord = e.Score, e.Word()
	for _, r := range e.Rows {
		m.Exposures = append(m.Exposures, &rtaskv1.Exposure{Name: r.Name, About: r.About, Exposure: r.Exposure})
	}
	return m, nil
}

// optional reports whether jobs may run without limits that this machine cannot enforce.
func optional(c *config.Config) bool { return c.LimitsUnavailable == config.LimitsUnavailableWarn }

// limitsMissing is why some of the limits of what may run without them are not in force; "": all are, or it may not.
func (s *Server) limitsMissing(l spec.Limits, optional bool) string {
	if !optional {
		return ""
	}
	if err := s.CheckLimits(l); err != nil {
		return err.Error()
	}
	return ""
}

// asRoot reports whether the jobs of a task run as root.
func (s *Server) asRoot(t *config.Task) bool {
	if t.User == "" {
		return false
	}
	u, err := job.LookupUser(t.User)
	return err == nil && u.UID == 0
}

// SwitchTask implements JobService.
func (s *Server) SwitchTask(ctx context.Context, r *rtaskv1.SwitchTaskRequest) (*rtaskv1.SwitchTaskResponse, error) {
	c := callOf(ctx)
	t, err := c.taskNamed(r.Task)
	if err != nil {
		return nil, err
	}
	to := &TaskSwitch{Enabled: r.Enabled, By: c.Name(), At: time.Now().UTC()}
	if r.Enabled && t.Enabled {
		to = nil // the file says so, and goes on deciding
	}
	if err := s.Options.SwitchTask(t.Name, to); err != nil {
		return nil, coded(connect.CodeInternal, err)
	}
	s.Jobs.SetTasks(s.TaskSpecs()) // a disabled one keeps no slots
	s.Logger.Info("task switched", "task", t.Name, "enabled", r.Enabled, "by", c.Name())
	return &rtaskv1.SwitchTaskResponse{Task: s.taskMessage(s.Snapshot(), t, s.NextRuns(ctx, []*config.Task{t}))}, nil
}

// taskNamed returns a task that the caller may start. Another one is not there.
func (c *call) taskNamed(name string) (*config.Task, error) {
	if c.snapshot.Config == nil {
		return nil, configurationError(c.snapshot)
	}
	t := c.snapshot.Config.Tasks[name]
	if t == nil || !c.may(t) {
		return nil, fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("there is no task %q", name))
	}
	return t, nil
}

// Triggered returns what a task is that the end of a job starts, for job.Manager.StartTriggered.
func (s *Server) Triggered(task string) (job.Spec, error) {
	now := s.Snapshot()
	if now.Config == nil {
		return job.Spec{}, job.ErrNotNow
	}
	t := now.Config.Tasks[task]
	if t == nil {
		return job.Spec{}, errors.New("it is not configured any more")
	}
	return s.taskSpec(now, t, job.Owner{}, "", nil)
}

// taskMessage is a task, given when tasks run next.
func (s *Server) taskMessage(snapshot Snapshot, t *config.Task, next map[string]time.Time) *rtaskv1.Task {
	m := &rtaskv1.Task{
		Name: t.Name, Command: t.Command, WorkingDirectory: t.Workdir, User: t.User, Blocking: t.Blocking,
		ApiKeys: t.APIKeys, Timeout: durationpb.New(t.Timeout), Enabled: snapshot.Enabled(t),
	}
	if at, ok := next[t.Name]; ok {
		m.NextRun = timestamp(at.Truncate(time.Second))
	}
	if is, ok := snapshot.Switches[t.Name]; ok {
		m.Switch = switchMessage(t.Name, is)
	}
	if _, err := s.taskSpec(snapshot, t, job.Owner{}, "", nil); err != nil {
		m.Problem = errorText(err)
	}
	return m
}

func switchMessage(task string, s TaskSwitch) *rtaskv1.TaskSwitch {
	return &rtaskv1.TaskSwitch{Task: task, Enabled: s.Enabled, By: s.By, At: timestamp(s.At)}
}

func switchMessages(snapshot Snapshot) []*rtaskv1.TaskSwitch {
	var all []*rtaskv1.TaskSwitch
	for _, name := range slices.Sorted(maps.Keys(snapshot.Switches)) {
		all = append(all, switchMessage(name, snapshot.Switches[name]))
	}
	return all
}

func usageMessage(c spec.Current) *rtaskv1.Usage {
	m := &rtaskv1.Usage{CpuUsec: c.CPUUsec, MemoryBytes: c.Memory, Tasks: c.Tasks}
	for _, p := range c.Processes {
		m.Processes = append(m.Processes, &rtaskv1.Process{Pid: int32(p.PID), Name: p.Name})
	}
	return m
}
