package gateway

import (
	"net/http"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// tasks serves GET /tasks.
func (a *api) tasks(w http.ResponseWriter, r *http.Request) {
	defer working(r)()
	reply, err := call(r.Context(), a.presented(r, ""), a.engine.KeyTasks, &rtaskv1.KeyTasksRequest{})
	if err != nil {
		writeProblem(w, a.problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, "application/json", map[string]any{"tasks": view.Each(reply.Tasks, view.KeyTaskOf)})
}

// jobs serves GET /tasks/{task}.
func (a *api) jobs(w http.ResponseWriter, r *http.Request, task string) {
	defer working(r)()
	reply, err := call(r.Context(), a.presented(r, task), a.engine.KeyJobs, &rtaskv1.KeyJobsRequest{})
	if err != nil {
		writeProblem(w, a.problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, "application/json", map[string]any{"jobs": view.Each(reply.Jobs, view.RunOf)})
}
