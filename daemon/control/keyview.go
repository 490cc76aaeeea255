package control

import (
	"context"
	"errors"
	"maps"
	"slices"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// keyJobs is how many jobs KeyJobs returns at most.
const keyJobs = 100

// KeyTasks implements GatewayService.
func (s *Server) KeyTasks(ctx context.Context, _ *rtaskv1.KeyTasksRequest) (*rtaskv1.KeyTasksResponse, error) {
	c := callOf(ctx)
	reply := &rtaskv1.KeyTasksResponse{}
	for _, name := range slices.Sorted(maps.Keys(c.snapshot.Config.Tasks)) {
		if t := c.snapshot.Config.Tasks[name]; c.may(t) {
			reply.Tasks = append(reply.Tasks, keyTask(c.snapshot, t))
		}
	}
	return reply, nil
}

func keyTask(snapshot Snapshot, t *config.Task) *rtaskv1.KeyTask {
	m := &rtaskv1.KeyTask{Name: t.Name, Blocking: t.Blocking, Enabled: snapshot.Enabled(t), MaxInputBytes: t.MaxInputBytes}
	for _, p := range t.Params {
		param := &rtaskv1.KeyParam{Name: p.Name, Values: p.Values, Default: p.Default}
		if len(p.Values) == 0 {
			param.Pattern, param.MaxLength = p.Pattern, int32(p.MaxLength)
		}
		m.Params = append(m.Params, param)
	}
	return m
}

// KeyJobs implements GatewayService.
func (s *Server) KeyJobs(ctx context.Context, _ *rtaskv1.KeyJobsRequest) (*rtaskv1.KeyJobsResponse, error) {
	jobs, err := s.jobsOf(ctx, callOf(ctx))
	switch {
	case errors.Is(err, job.ErrClosed):
		return nil, fail(connect.CodeUnavailable, rtaskv1.KindUnavailable, err, func(e *rtaskv1.Error) { e.Restarting = true })
	case ctx.Err() != nil:
		return nil, waitError(ctx.Err())
	case err != nil:
		return nil, coded(connect.CodeInternal, err)
	}
	reply := &rtaskv1.KeyJobsResponse{}
	for _, j := range jobs {
		reply.Jobs = append(reply.Jobs, jobMessage(j))
	}
	return reply, nil
}

// jobsOf looks through all records in the worst case, so it does that for one client at a time.
func (s *Server) jobsOf(ctx context.Context, c *call) ([]job.Job, error) {
	select {
	case s.scan <- struct{}{}:
		defer func() { <-s.scan }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Jobs.List(job.Filter{
		Ended: true, Task: c.task.Name, Limit: keyJobs, Visible: c.sees,
	})
}
