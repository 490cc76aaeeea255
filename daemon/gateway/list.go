package gateway

import (
	"context"
	"net/http"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// tasks serves GET /tasks.
func (a *api) tasks(w http.ResponseWriter, r *http.Request) {
	request := &rtaskv1.KeyRequest{ApiKey: presentedKey(r), RemoteAddr: a.remoteAddr(r)}
	defer working(r)()
	reply, err := persist(r.Context(), func(ctx context.Context) (*rtaskv1.KeyTasksResponse, error) {
		return a.engine.KeyTasks(ctx, request)
	})
	if err != nil {
		writeProblem(w, a.problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, "application/json", map[string]any{"tasks": view.Each(reply.Tasks, view.KeyTaskOf)})
}

// jobs serves GET /tasks/{task}.
func (a *api) jobs(w http.ResponseWriter, r *http.Request, task string) {
	request := &rtaskv1.KeyRequest{Task: task, ApiKey: presentedKey(r), RemoteAddr: a.remoteAddr(r)}
	defer working(r)()
	reply, err := persist(r.Context(), func(ctx context.Context) (*rtaskv1.KeyJobsResponse, error) {
		return a.engine.KeyJobs(ctx, request)
	})
	if err != nil {
		writeProblem(w, a.problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, "application/json", map[string]any{"jobs": view.Each(reply.Jobs, view.RunOf)})
}
