package gateway

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// keyTask is a task as GET /tasks shows it.
type keyTask struct {
	Name          string     `json:"name"`
	Blocking      bool       `json:"blocking"`
	Enabled       bool       `json:"enabled"`
	MaxInputBytes int64      `json:"max_input_bytes"`
	Params        []keyParam `json:"params"`
}

type keyParam struct {
	Name      string   `json:"name"`
	Required  bool     `json:"required"`
	Default   *string  `json:"default,omitempty"`
	Values    []string `json:"values,omitempty"`
	Pattern   string   `json:"pattern,omitempty"`
	MaxLength int32    `json:"max_length,omitempty"`
}

// tasks serves GET /tasks.
func (a *api) tasks(w http.ResponseWriter, r *http.Request) {
	request := &rtaskv1.KeyRequest{ApiKey: presentedKey(r), RemoteAddr: a.remoteAddr(r)}
	defer working(r)()
	reply, err := persist(r.Context(), func(ctx context.Context) (*connect.Response[rtaskv1.KeyTasksResponse], error) {
		return a.engine.KeyTasks(ctx, connect.NewRequest(request))
	})
	if err != nil {
		writeProblem(w, a.problemOf(err))
		return
	}
	list := struct {
		Tasks []keyTask `json:"tasks"`
	}{[]keyTask{}}
	for _, m := range reply.Msg.Tasks {
		t := keyTask{Name: m.Name, Blocking: m.Blocking, Enabled: m.Enabled, MaxInputBytes: m.MaxInputBytes, Params: []keyParam{}}
		for _, p := range m.Params {
			t.Params = append(t.Params, keyParam{
				Name: p.Name, Required: p.Default == nil, Default: p.Default, Values: p.Values, Pattern: p.Pattern, MaxLength: p.MaxLength,
			})
		}
		list.Tasks = append(list.Tasks, t)
	}
	writeJSON(w, http.StatusOK, "application/json", list)
}

// jobs serves GET /tasks/{task}.
func (a *api) jobs(w http.ResponseWriter, r *http.Request, task string) {
	request := &rtaskv1.KeyRequest{Task: task, ApiKey: presentedKey(r), RemoteAddr: a.remoteAddr(r)}
	defer working(r)()
	reply, err := persist(r.Context(), func(ctx context.Context) (*connect.Response[rtaskv1.KeyJobsResponse], error) {
		return a.engine.KeyJobs(ctx, connect.NewRequest(request))
	})
	if err != nil {
		writeProblem(w, a.problemOf(err))
		return
	}
	list := struct {
		Jobs []any `json:"jobs"`
	}{[]any{}}
	for _, j := range reply.Msg.Jobs {
		if j.State == rtaskv1.State_STATE_ENDED {
			list.Jobs = append(list.Jobs, endOf(j))
		} else {
			list.Jobs = append(list.Jobs, unendedOf(j))
		}
	}
	writeJSON(w, http.StatusOK, "application/json", list)
}
