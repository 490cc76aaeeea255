package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// fakeEngine answers with what a test put into it. It stands in for an engine where it is shown how an answer looks;
// what engines do is tested with engines.
type fakeEngine struct {
	rtaskv1connect.UnimplementedJobServiceHandler
	// dir gets request.json, the last StartRequest.
	dir string

	mu   sync.Mutex // guards what follows
	jobs []*rtaskv1.Job
	logs map[string][]*rtaskv1.StreamLogsResponse
	keys []*rtaskv1.Key
	// breaks is how many more calls of a job's StreamLogs and Wait break off.
	breaks map[string]int
	// stopped wakes who waits for a job.
	stopped chan struct{}
	config  *rtaskv1.ReloadResponse
	// off are the tasks that were disabled.
	off      map[string]bool
	draining bool
}

// serve serves e at path until the test ends.
func (e *fakeEngine) serve(path string, cleanup func(func())) error {
	mux := http.NewServeMux()
	mux.Handle(rtaskv1connect.NewJobServiceHandler(e))
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	cleanup(func() { _ = s.Close(); <-done })
	return nil
}

func at(seconds int64) *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: 1767225600 + seconds}
}

func cannedJob(id string, state rtaskv1.State, fill func(*rtaskv1.Job)) *rtaskv1.Job {
	j := &rtaskv1.Job{
		Id: id, Command: []string{"sleep", "60"}, User: "alice", State: state, Trigger: "local", Owner: "alice", QueuedAt: at(0),
		StartedAt: at(1), Unit: "rtask-cmd-" + id + ".scope", Pid: 4242, ControlGroup: "/rtask.slice/rtask-cmd-" + id + ".scope/job",
	}
	if state == rtaskv1.State_STATE_ENDED {
		j.EndedAt, j.Pid, j.ControlGroup = at(64), 0, ""
		j.CpuUsec, j.MemoryPeakBytes = proto.Uint64(1_250_000), proto.Uint64(3<<20)
	}
	fill(j)
	return j
}

func newFakeEngine(dir string) *fakeEngine {
	const end, running = rtaskv1.State_STATE_ENDED, rtaskv1.State_STATE_RUNNING
	ends := func(reason rtaskv1.Reason, code int32, signal, detail string) func(*rtaskv1.Job) {
		return func(j *rtaskv1.Job) {
			j.Reason, j.Signal, j.Detail = reason, signal, detail
			if code >= 0 {
				j.ExitCode = &code
			}
		}
	}
	text := func(stream rtaskv1.Stream, offset int64, s string) *rtaskv1.StreamLogsResponse {
		return &rtaskv1.StreamLogsResponse{Stream: stream, Data: []byte(s), Offset: offset}
	}
	const out, stderr = rtaskv1.Stream_STREAM_STDOUT, rtaskv1.Stream_STREAM_STDERR
	return &fakeEngine{
		dir: dir, stopped: make(chan struct{}),
		jobs: []*rtaskv1.Job{
			cannedJob("running222222222", running, func(*rtaskv1.Job) {}),
			cannedJob("queued2222222222", rtaskv1.State_STATE_QUEUED, func(j *rtaskv1.Job) {
				j.Task, j.Command, j.Pid, j.StartedAt, j.Unit, j.ControlGroup = "deploy", []string{"make", "deploy"}, 0, nil, "", ""
			}),
			cannedJob("success222222222", end, func(j *rtaskv1.Job) {
				ends(0, 0, "", "")(j)
				j.Task, j.Command, j.LogBytes = "deploy", []string{"make", "deploy"}, 11
				j.QueuedAt, j.TasksPeak = at(-61), proto.Uint64(3)
				j.IoReadBytes, j.IoWriteBytes, j.IoReadOps, j.IoWriteOps = proto.Uint64(4096), proto.Uint64(3<<20), proto.Uint64(1), proto.Uint64(9)
				j.Triggered = []*rtaskv1.Triggered{{Task: "notify", Job: "notify2222222222"}, {Task: "page", Job: "page222222222222"}}
			}),
			cannedJob("exitthree2222222", end, func(j *rtaskv1.Job) {
				ends(rtaskv1.Reason_REASON_EXIT_CODE, 3, "", "")(j)
				j.LogBytes, j.LogDroppedBytes = 2048, 1024
			}),
			cannedJob("notify2222222222", end, func(j *rtaskv1.Job) {
				ends(rtaskv1.Reason_REASON_SIGNAL, -1, "SIGRTMIN+3", "")(j)
				j.Owner, j.Trigger, j.TriggerJob = "rtask", "on_success", "success222222222"
			}),
			cannedJob("killed2222222222", end, ends(rtaskv1.Reason_REASON_SIGNAL, -1, "SIGUSR1", "")),
			cannedJob("slow222222222222", end, ends(rtaskv1.Reason_REASON_TIMEOUT, -1, "SIGTERM", "it ran for longer than 30s")),
			cannedJob("oom2222222222222", end, ends(rtaskv1.Reason_REASON_OOM, -1, "SIGKILL", "")),
			cannedJob("stopped222222222", end, ends(rtaskv1.Reason_REASON_STOPPED, 0, "", "stopped by alice")),
			cannedJob("lost222222222222", end, ends(rtaskv1.Reason_REASON_LOST, -1, "", "the machine went down")),
			cannedJob("setup22222222222", end, ends(rtaskv1.Reason_REASON_SETUP, -1, "", "cannot enter /srv: permission denied")),
			cannedJob("noexec2222222222", end, ends(rtaskv1.Reason_REASON_SETUP, 126, "", "cannot execute")),
			cannedJob("evil222222222222", running, func(j *rtaskv1.Job) {
				j.Command = []string{"x\x1b]0;owned\x07", "a b", "\u202etxt", "it's"}
				j.User = "mal\nlory"
			}),
			cannedJob("breaks2222222222", running, func(*rtaskv1.Job) {}),
		},
		logs: map[string][]*rtaskv1.StreamLogsResponse{
			"success222222222": {text(out, 100, "made\n"), text(stderr, 200, "warn\n"), text(out, 300, "\xff")},
			"exitthree2222222": {text(out, 100, "before\n"), text(stderr, 200, "failed\n")},
			"running222222222": {text(out, 100, "so far\n")},
			"evil222222222222": {
				{Stream: out, Data: []byte("a\nb"), Time: at(1), Offset: 10}, {Stream: stderr, Data: []byte("e\n"), Time: at(2), Offset: 20},
				{Stream: out, Data: []byte("c\n\n"), Time: at(3), Offset: 30}, {Stream: out, Data: []byte("d\n"), Time: at(4), Offset: 40},
			},
			"breaks2222222222": {text(out, 10, "one\n"), text(out, 20, "two\n"), text(out, 30, "three\n"), text(out, 40, "four\n")},
		},
		keys: []*rtaskv1.Key{
			{Name: "ci", Id: "k2345678", CreatedAt: at(0), ExpiresAt: at(86400)}, {Name: "ops", Id: "k9999999", CreatedAt: at(0), LastUsedAt: at(60)},
		},
		breaks: map[string]int{"breaks2222222222": 3},
		config: &rtaskv1.ReloadResponse{Tasks: 3},
		off:    map[string]bool{},
	}
}

func (e *fakeEngine) find(ref string) (*rtaskv1.Job, error) {
	for _, j := range e.jobs {
		if len(ref) > 2 && len(ref) <= len(j.Id) && j.Id[:len(ref)] == ref || ref == "4242" && j.Pid == 4242 {
			return proto.Clone(j).(*rtaskv1.Job), nil
		}
	}
	return nil, refusal(connect.CodeNotFound, "no such job: \""+ref+"\"", &rtaskv1.Error{Kind: "not-found"})
}

func refusal(code connect.Code, text string, detail *rtaskv1.Error) error {
	err := connect.NewError(code, errors.New(text))
	if d, e := connect.NewErrorDetail(detail); e == nil {
		err.AddDetail(d)
	}
	return err
}

func (e *fakeEngine) Start(_ context.Context, r *connect.Request[rtaskv1.StartRequest]) (*connect.Response[rtaskv1.StartResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.keep(r.Msg); err != nil {
		return nil, err
	}
	switch r.Msg.Name {
	case "twice":
		return nil, refusal(connect.CodeAlreadyExists, "the same command is running already as job running222222222", &rtaskv1.Error{Kind: "conflict"})
	case "forbidden":
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New(`permission denied: alice may not start "forbidden"`))
	case "misconfigured":
		d := &rtaskv1.Diagnostic{Error: true, Text: "/etc/rtask/tasks.d/a.hcl:3:5: error: unknown name \"comand\"\n    | \tcomand = 1\n    | \t^\n  did you mean \"command\"?"}
		return nil, refusal(connect.CodeUnavailable, "the configuration has errors, so there are no tasks: "+d.Text,
			&rtaskv1.Error{Kind: "configuration", Diagnostics: []*rtaskv1.Diagnostic{d}})
	}
	j, err := e.find(r.Msg.Name)
	if err != nil && r.Msg.Path == "" {
		return nil, refusal(connect.CodeNotFound, "there is no task \""+r.Msg.Name+"\", and no command of that name was found in PATH", &rtaskv1.Error{Kind: "not-found"})
	}
	if err != nil {
		j, err = e.find("running222222222")
	}
	return connect.NewResponse(&rtaskv1.StartResponse{Job: j}), err
}

// keep writes down what was asked for.
func (e *fakeEngine) keep(m proto.Message) error {
	data, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	var v any // protojson's spaces are not stable
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if data, err = json.MarshalIndent(v, "", " "); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.dir, "request.json"), append(data, '\n'), 0o600)
}

func (e *fakeEngine) Stop(_ context.Context, r *connect.Request[rtaskv1.StopRequest]) (*connect.Response[rtaskv1.StopResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j, err := e.find(r.Msg.Job)
	if err != nil {
		return nil, err
	}
	for _, mine := range e.jobs {
		if mine.Id == j.Id && mine.State != rtaskv1.State_STATE_ENDED {
			mine.State, mine.Reason, mine.Signal, mine.EndedAt = rtaskv1.State_STATE_ENDED, rtaskv1.Reason_REASON_STOPPED, "SIGTERM", at(99)
			if r.Msg.Kill {
				mine.Signal = "SIGKILL"
			}
			close(e.stopped)
			e.stopped = make(chan struct{})
			j = proto.Clone(mine).(*rtaskv1.Job)
		}
	}
	return connect.NewResponse(&rtaskv1.StopResponse{Job: j}), nil
}

func (e *fakeEngine) Status(_ context.Context, r *connect.Request[rtaskv1.StatusRequest]) (*connect.Response[rtaskv1.StatusResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j, err := e.find(r.Msg.Job)
	reply := &rtaskv1.StatusResponse{Job: j}
	if j.GetId() == "running222222222" {
		reply.Usage = &rtaskv1.Usage{CpuUsec: proto.Uint64(12_000), MemoryBytes: proto.Uint64(1 << 20), Tasks: proto.Uint64(2), Processes: []*rtaskv1.Process{
			{Pid: 4242, Name: "sleep"}, {Pid: 4243, Name: "e\x1bvil"},
		}}
	}
	return connect.NewResponse(reply), err
}

// ended waits for a job's end and returns it.
func (e *fakeEngine) ended(ctx context.Context, ref string) (*rtaskv1.Job, error) {
	for {
		e.mu.Lock()
		j, err := e.find(ref)
		stopped := e.stopped
		if err == nil && e.breaks[j.Id] > 0 {
			e.breaks[j.Id]--
			e.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		if err == nil && j.Id == "breaks2222222222" {
			j.State, j.EndedAt = rtaskv1.State_STATE_ENDED, at(9)
		}
		e.mu.Unlock()
		if err != nil || j.State == rtaskv1.State_STATE_ENDED {
			return j, err
		}
		select {
		case <-stopped:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Wait makes the file "waiting", too.
func (e *fakeEngine) Wait(ctx context.Context, r *connect.Request[rtaskv1.WaitRequest]) (*connect.Response[rtaskv1.WaitResponse], error) {
	if err := os.WriteFile(filepath.Join(e.dir, "waiting"), nil, 0o600); err != nil {
		return nil, err
	}
	j, err := e.ended(ctx, r.Msg.Job)
	return connect.NewResponse(&rtaskv1.WaitResponse{Job: j}), err
}

func (e *fakeEngine) StreamLogs(ctx context.Context, r *connect.Request[rtaskv1.StreamLogsRequest], s *connect.ServerStream[rtaskv1.StreamLogsResponse]) error {
	e.mu.Lock()
	j, err := e.find(r.Msg.Job)
	if err != nil {
		e.mu.Unlock()
		return err
	}
	logs := slices.Clone(e.logs[j.Id])
	err = e.keep(r.Msg)
	e.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.Send(nil); err != nil {
		return err
	}
	for _, m := range logs {
		if m.Offset <= r.Msg.Offset {
			continue
		}
		if err := s.Send(m); err != nil {
			return err
		}
		e.mu.Lock()
		breaks := e.breaks[j.Id] > 0
		if breaks {
			e.breaks[j.Id]--
		}
		left := e.breaks[j.Id]
		e.mu.Unlock()
		switch {
		case breaks && left%2 == 0:
			time.Sleep(10 * time.Millisecond) // let the piece get there first
			panic(http.ErrAbortHandler)
		case breaks:
			return connect.NewError(connect.CodeCanceled, errors.New("context canceled")) // an engine that stops
		}
	}
	if r.Msg.Follow {
		_, err = e.ended(ctx, j.Id)
	}
	return err
}

func (e *fakeEngine) List(_ context.Context, r *connect.Request[rtaskv1.ListRequest]) (*connect.Response[rtaskv1.ListResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	reply := &rtaskv1.ListResponse{}
	if err := e.keep(r.Msg); err != nil {
		return nil, err
	}
	if r.Msg.Task == "none" {
		return connect.NewResponse(reply), nil
	}
	for _, j := range e.jobs {
		if r.Msg.All || j.State != rtaskv1.State_STATE_ENDED {
			reply.Jobs = append(reply.Jobs, proto.Clone(j).(*rtaskv1.Job))
		}
	}
	return connect.NewResponse(reply), nil
}

func (e *fakeEngine) Tasks(context.Context, *connect.Request[rtaskv1.TasksRequest]) (*connect.Response[rtaskv1.TasksResponse], error) {
	return connect.NewResponse(&rtaskv1.TasksResponse{Tasks: []*rtaskv1.Task{
		{Name: "deploy", Command: []string{"make", "deploy"}, WorkingDirectory: "/srv", User: "builder", ApiKeys: []string{"ci", "ops"}, Timeout: durationpb.New(90 * time.Second), Enabled: true},
		{Name: "hello", Command: []string{"echo", "hello world"}, WorkingDirectory: "/", Blocking: true, Problem: "task \"hello\" is disabled"},
		{Name: "script", Command: []string{"/bin/sh", "-c", "set -e\n\techo 'it is'\n# \u202e \\\n"}, WorkingDirectory: "/", Enabled: true},
	}}), nil
}

func (e *fakeEngine) task(name string) (*rtaskv1.Task, error) {
	if name != "deploy" {
		return nil, refusal(connect.CodeNotFound, "there is no task \""+name+"\"", &rtaskv1.Error{Kind: "not-found"})
	}
	t := &rtaskv1.Task{Name: name, Command: []string{"make", "deploy"}, WorkingDirectory: "/srv", Timeout: durationpb.New(90 * time.Second), Enabled: !e.off[name]}
	if e.off[name] {
		t.Problem, t.Switch = "task \"deploy\" is disabled", &rtaskv1.TaskSwitch{Task: name, By: "alice", At: at(0)}
	}
	return t, nil
}

func (e *fakeEngine) ShowTask(_ context.Context, r *connect.Request[rtaskv1.ShowTaskRequest]) (*connect.Response[rtaskv1.ShowTaskResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, err := e.task(r.Msg.Task)
	return connect.NewResponse(&rtaskv1.ShowTaskResponse{
		Task: t, File: "/etc/rtask/tasks.d/a\x1b.hcl", Line: 3, Hcl: "task \"deploy\" {\n  command = [\"make\", \"\u202e\"]\n}\n", Json: `{"command":["make"]}`,
		Exposure: 4.25, ExposureWord: "OK", Missing: []string{"private_tmp"},
		Exposures: []*rtaskv1.Exposure{{Name: "user", About: "It runs as root", Exposure: 0.42}, {Name: "private_tmp", About: "closed"}},
	}), err
}

func (e *fakeEngine) SwitchTask(_ context.Context, r *connect.Request[rtaskv1.SwitchTaskRequest]) (*connect.Response[rtaskv1.SwitchTaskResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.off[r.Msg.Task] = !r.Msg.Enabled
	t, err := e.task(r.Msg.Task)
	return connect.NewResponse(&rtaskv1.SwitchTaskResponse{Task: t}), err
}

// Drain waits until the first job is stopped, or jobs are accepted.
func (e *fakeEngine) Drain(ctx context.Context, r *connect.Request[rtaskv1.DrainRequest]) (*connect.Response[rtaskv1.DrainResponse], error) {
	for {
		e.mu.Lock()
		if !r.Msg.Wait {
			e.draining = !r.Msg.Cancel
			close(e.stopped)
			e.stopped = make(chan struct{})
		}
		reply := &rtaskv1.DrainResponse{Draining: e.draining, Jobs: 1}
		if e.jobs[0].State == rtaskv1.State_STATE_ENDED {
			reply.Jobs = 0
		}
		stopped := e.stopped
		e.mu.Unlock()
		if !r.Msg.Wait || !reply.Draining || reply.Jobs == 0 {
			return connect.NewResponse(reply), nil
		}
		select {
		case <-stopped:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (e *fakeEngine) AddKey(_ context.Context, r *connect.Request[rtaskv1.AddKeyRequest]) (*connect.Response[rtaskv1.AddKeyResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := &rtaskv1.Key{Name: r.Msg.Name, Id: "k3333333", CreatedAt: at(0)}
	if d := r.Msg.ExpiresIn; d != nil {
		k.ExpiresAt = timestamppb.New(at(0).AsTime().Add(d.AsDuration()))
	}
	e.keys = append(e.keys, k)
	return connect.NewResponse(&rtaskv1.AddKeyResponse{Key: k, Secret: "rtask_k3333333_secret"}), nil
}

func (e *fakeEngine) ListKeys(context.Context, *connect.Request[rtaskv1.ListKeysRequest]) (*connect.Response[rtaskv1.ListKeysResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return connect.NewResponse(&rtaskv1.ListKeysResponse{Keys: slices.Clone(e.keys)}), nil
}

func (e *fakeEngine) RevokeKey(_ context.Context, r *connect.Request[rtaskv1.RevokeKeyRequest]) (*connect.Response[rtaskv1.RevokeKeyResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.keys, func(k *rtaskv1.Key) bool { return k.Name == r.Msg.Key || k.Id == r.Msg.Key })
	if i < 0 {
		return nil, refusal(connect.CodeNotFound, "no such key", &rtaskv1.Error{Kind: "not-found"})
	}
	k := e.keys[i]
	e.keys = slices.Delete(e.keys, i, i+1)
	return connect.NewResponse(&rtaskv1.RevokeKeyResponse{Key: k}), nil
}

func (e *fakeEngine) ListWebhooks(context.Context, *connect.Request[rtaskv1.ListWebhooksRequest]) (*connect.Response[rtaskv1.ListWebhooksResponse], error) {
	return connect.NewResponse(&rtaskv1.ListWebhooksResponse{Webhooks: []*rtaskv1.Webhook{
		{Task: "deploy", Name: "github", Verify: "github", Url: "https://ci.example.com/wh/abc"},
		{Task: "hello", Name: "chat", Verify: "token", Problem: "secret file /etc/x\x1b: it is not there"},
	}}), nil
}

func (e *fakeEngine) TestWebhook(_ context.Context, r *connect.Request[rtaskv1.TestWebhookRequest]) (*connect.Response[rtaskv1.TestWebhookResponse], error) {
	if r.Msg.Task != "deploy" {
		return nil, refusal(connect.CodeNotFound, "there is no task \"x\"", &rtaskv1.Error{Kind: "not-found"})
	}
	m := &rtaskv1.TestWebhookResponse{
		Webhook:  &rtaskv1.Webhook{Task: "deploy", Name: r.Msg.Name, Verify: "github", Url: "https://ci.example.com/wh/abc"},
		Decision: "accepted", Event: "push", Ref: "refs/heads/main", Environment: []string{"RTASK_EVENT=push"},
	}
	switch {
	case r.Msg.Name == "bad":
		m.Decision, m.Kind, m.Reason, m.Environment = "refused", "disabled", "task \"deploy\" is disabled", nil
	case r.Msg.Name == "other":
		m.Decision, m.Reason, m.Environment = "ignored", "it is a ping", nil
	case r.Msg.Run:
		m.Job = e.jobs[2]
	}
	return connect.NewResponse(m), nil
}

func (e *fakeEngine) Reload(context.Context, *connect.Request[rtaskv1.ReloadRequest]) (*connect.Response[rtaskv1.ReloadResponse], error) {
	reply := proto.Clone(e.config).(*rtaskv1.ReloadResponse)
	reply.Diagnostics = e.diagnostics()
	return connect.NewResponse(reply), nil
}

// diagnostics are what a script put into the file diagnostics.txt, an error if a line says so.
func (e *fakeEngine) diagnostics() (all []*rtaskv1.Diagnostic) {
	for _, name := range []string{"error", "warning"} {
		if text, err := os.ReadFile(filepath.Join(e.dir, name+".txt")); err == nil {
			all = append(all, &rtaskv1.Diagnostic{
				Error: name == "error", Summary: "unknown name", File: "a.hcl", Line: 3, Column: 5, Text: string(text),
			})
		}
	}
	return all
}

func (e *fakeEngine) Info(context.Context, *connect.Request[rtaskv1.InfoRequest]) (*connect.Response[rtaskv1.InfoResponse], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var switches []*rtaskv1.TaskSwitch
	for name, off := range e.off {
		switches = append(switches, &rtaskv1.TaskSwitch{Task: name, Enabled: !off, By: "alice", At: at(0)})
	}
	return connect.NewResponse(&rtaskv1.InfoResponse{
		Draining: e.draining, Switches: switches,
		Version: "1.2.3", Manager: "systemd (system)", StartedAt: at(0), Running: 2, Queued: 1, Diagnostics: e.diagnostics(),
		Weaker: []string{"Memory cannot be limited: the controller memory is not there."},
	}), nil
}

// startFake starts an engine for a test and returns its socket.
func startFake(t *testing.T) (*fakeEngine, string) {
	t.Helper()
	dir := t.TempDir()
	e := newFakeEngine(dir)
	path := filepath.Join(dir, "rtask.sock")
	if err := e.serve(path, t.Cleanup); err != nil {
		t.Fatal(err)
	}
	return e, path
}
