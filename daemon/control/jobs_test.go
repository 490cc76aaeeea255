package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

const tasks = `
task "hello" {
  command     = ["/bin/sh", "-c", "read -r name; echo hello $name"]
  blocking    = true
  api_keys    = ["demo"]
  allow_users = ["ada"]
  max_input_bytes = 16
}
task "sleeps" {
  command     = ["/bin/sh", "-c", "echo on; exec sleep 1000"]
  timeout     = 0
  blocking    = true
  api_keys    = ["demo", "other"]
  allow_users = ["ada", "61002"]
}
task "async" {
  command  = ["/bin/sh", "-c", "echo done"]
  api_keys = ["demo"]
}
task "fails" {
  command  = ["/bin/sh", "-c", "echo out; echo err >&2; exit 9"]
  blocking = true
  redirect_stderr = false
  api_keys = ["demo"]
}
task "off" {
  command  = ["/bin/true"]
  enabled  = false
  blocking = true
  api_keys = ["demo"]
}
task "nowhere" {
  command  = ["/bin/true"]
  workdir  = "/no/such/folder"
  api_keys = ["demo"]
}
task "limited" {
  command  = ["/bin/true"]
  api_keys = ["demo"]
  limits { memory_max = "100M" }
}
task "true" {
  command  = ["/bin/sh", "-c", "echo the task"]
}
`

var (
	ada = auth.Peer{UID: adaUID, GID: adaUID, CgroupKnown: true}
	ben = auth.Peer{UID: benUID, GID: benUID, CgroupKnown: true}
)

func codes(t *testing.T, err error, want connect.Code) {
	t.Helper()
	if connect.CodeOf(err) != want || err == nil {
		t.Errorf("%v, want %v", err, want)
	}
}

func (f *fixture) noJobs() {
	f.t.Helper()
	if jobs, err := f.Jobs.List(job.Filter{Ended: true}); err != nil || len(jobs) != 0 {
		f.t.Errorf("left behind: %v, %v", jobs, err)
	}
}

// Whatever is wrong with a request is found before there is a job.
func TestStartRefused(t *testing.T) {
	f := newFixture(t, tasks)
	command := func(change func(*rtaskv1.StartRequest)) *rtaskv1.StartRequest {
		r := &rtaskv1.StartRequest{Name: "ls", Path: "/bin/ls", WorkingDirectory: "/"}
		change(r)
		return r
	}
	op := self()
	for name, c := range map[string]struct {
		peer auth.Peer
		r    *rtaskv1.StartRequest
		code connect.Code
		text string
	}{
		"nothing":               {op, &rtaskv1.StartRequest{}, connect.CodeInvalidArgument, "no task and no command"},
		"arguments":             {op, &rtaskv1.StartRequest{Name: "hello", Arguments: []string{"x"}}, connect.CodeInvalidArgument, "takes no arguments"},
		"environment":           {op, &rtaskv1.StartRequest{Name: "hello", Environment: map[string]string{"A": "b"}}, connect.CodeInvalidArgument, "environment"},
		"input":                 {op, &rtaskv1.StartRequest{Name: "hello", Input: []byte(strings.Repeat("x", 17))}, connect.CodeInvalidArgument, "at most 16 bytes"},
		"disabled":              {op, &rtaskv1.StartRequest{Name: "off"}, connect.CodeUnavailable, `"off" is disabled`},
		"workdir":               {op, &rtaskv1.StartRequest{Name: "nowhere"}, connect.CodeUnavailable, "/no/such/folder"},
		"limits":                {op, &rtaskv1.StartRequest{Name: "limited"}, connect.CodeUnavailable, "cannot enforce"},
		"no task, no command":   {op, &rtaskv1.StartRequest{Name: "nothing"}, connect.CodeNotFound, `no task "nothing", and no command of that name`},
		"no command":            {op, &rtaskv1.StartRequest{Name: "hello", Command: true}, connect.CodeNotFound, `no command "hello" was found in PATH`},
		"relative path":         {op, command(func(r *rtaskv1.StartRequest) { r.Path = "ls" }), connect.CodeInvalidArgument, "not absolute"},
		"relative folder":       {op, command(func(r *rtaskv1.StartRequest) { r.WorkingDirectory = "tmp" }), connect.CodeInvalidArgument, "not absolute"},
		"no folder":             {op, command(func(r *rtaskv1.StartRequest) { r.WorkingDirectory = "" }), connect.CodeInvalidArgument, "not absolute"},
		"rtask's own":           {op, command(func(r *rtaskv1.StartRequest) { r.Environment = map[string]string{"RTASK_JOB_ID": "x"} }), connect.CodeInvalidArgument, "RTASK_"},
		"headers":               {op, command(func(r *rtaskv1.StartRequest) { r.Environment = map[string]string{"REQUEST_HEADER_X": "x"} }), connect.CodeInvalidArgument, "REQUEST_HEADER_"},
		"two variables in one":  {op, command(func(r *rtaskv1.StartRequest) { r.Environment = map[string]string{"A=B": "x"} }), connect.CodeInvalidArgument, "name of an environment"},
		"no name":               {op, command(func(r *rtaskv1.StartRequest) { r.Environment = map[string]string{"": "x"} }), connect.CodeInvalidArgument, "name of an environment"},
		"NUL":                   {op, command(func(r *rtaskv1.StartRequest) { r.Environment = map[string]string{"A": "hunter2\x00"} }), connect.CodeFailedPrecondition, "NUL"},
		"NUL in an argument":    {op, command(func(r *rtaskv1.StartRequest) { r.Arguments = []string{"\x00"} }), connect.CodeFailedPrecondition, "NUL"},
		"a user, not theirs":    {ada, &rtaskv1.StartRequest{Name: "async"}, connect.CodePermissionDenied, `ada may not start "async"`},
		"a user, no such task":  {ada, &rtaskv1.StartRequest{Name: "asymc"}, connect.CodePermissionDenied, `ada may not start "asymc"`},
		"a user's command":      {ada, command(func(*rtaskv1.StartRequest) {}), connect.CodePermissionDenied, `ada may not start "ls"`},
		"a user's, named so":    {ada, command(func(r *rtaskv1.StartRequest) { r.Name, r.Command = "hello", true }), connect.CodePermissionDenied, `may not start "hello"`},
		"a task, not a command": {ada, command(func(r *rtaskv1.StartRequest) { r.Name, r.Path = "true", "/bin/true" }), connect.CodePermissionDenied, `may not start "true"`},
	} {
		_, err := f.as(c.peer).Start(t.Context(), c.r)
		codes(t, err, c.code)
		if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.noJobs()
	if s := f.logs.String(); strings.Contains(s, "hunter2") {
		t.Errorf("a secret is in the log: %s", s)
	}
}

func TestStart(t *testing.T) {
	f := newFixture(t, tasks)
	jobs := f.as(self())
	// A task, with input.
	r := must[rtaskv1.StartResponse](t)(f.as(ada).Start(t.Context(), &rtaskv1.StartRequest{Name: "hello", Input: []byte("you\n")}))
	if r.Job.Task != "hello" || r.Job.Owner != "ada" || r.Job.Trigger != "local" || len(r.Job.Id) != 16 {
		t.Errorf("%v", r.Job)
	}
	ended := must[rtaskv1.WaitResponse](t)(f.as(ada).Wait(t.Context(), &rtaskv1.WaitRequest{Job: r.Job.Id})).Job
	if ended.State != rtaskv1.State_STATE_ENDED || ended.GetExitCode() != 0 || ended.ExitCode == nil || ended.Reason != 0 {
		t.Errorf("%v", ended)
	}
	if got := f.output(r.Job.Id); got != "hello you\n" {
		t.Errorf("%q", got)
	}
	// A name that is a task is the task, also where there is a command; and the command where that is asked for.
	for asked, want := range map[bool]string{false: "the task\n", true: ""} {
		r := must[rtaskv1.StartResponse](t)(jobs.Start(t.Context(), &rtaskv1.StartRequest{
			Name: "true", Command: asked, Path: "/bin/true", WorkingDirectory: "/",
		}))
		must[rtaskv1.WaitResponse](t)(jobs.Wait(t.Context(), &rtaskv1.WaitRequest{Job: r.Job.Id}))
		if got := f.output(r.Job.Id); got != want || (r.Job.Task == "") != asked {
			t.Errorf("command=%v: %q, %v", asked, got, r.Job)
		}
	}
	// A command: the caller's folder, PATH and variables; a duplicate of it.
	command := &rtaskv1.StartRequest{
		Name: "sh", Path: "/bin/sh", Arguments: []string{"-c", `pwd; echo "$PATH $A"; trap "" TERM; exec sleep 1000`}, WorkingDirectory: "/usr",
		SearchPath: "/bin:/mine", Environment: map[string]string{"A": "b c"},
	}
	c := must[rtaskv1.StartResponse](t)(jobs.Start(t.Context(), command)).Job
	if fmt.Sprint(c.Command) != fmt.Sprint(append([]string{"sh"}, command.Arguments...)) || c.Pid == 0 {
		t.Errorf("%v", c)
	}
	_, err := jobs.Start(t.Context(), command)
	codes(t, err, connect.CodeAlreadyExists)
	if d := detail(err); d.GetKind() != "conflict" || d.GetJobId() != c.Id {
		t.Errorf("%v", d)
	}
	command.AllowDuplicate = true
	must[rtaskv1.StartResponse](t)(jobs.Start(t.Context(), command))
	s := must[rtaskv1.StopResponse](t)(jobs.Stop(t.Context(), &rtaskv1.StopRequest{Job: fmt.Sprint(c.Pid), Kill: true})).Job
	if s.Id != c.Id || s.Reason != rtaskv1.Reason_REASON_STOPPED || s.Signal != "SIGKILL" || s.ExitCode != nil {
		t.Errorf("%v", s)
	}
	if got := f.output(c.Id); got != "/usr\n/bin:/mine b c\n" {
		t.Errorf("%q", got)
	}
}

func (f *fixture) output(id string) string {
	f.t.Helper()
	stream, err := f.as(auth.Peer{CgroupKnown: true}).StreamLogs(f.t.Context(), &rtaskv1.StreamLogsRequest{Job: id})
	if err != nil {
		f.t.Fatal(err)
	}
	var b strings.Builder
	for m, err := range client.Messages(stream) {
		if err != nil {
			f.t.Fatal(err)
		}
		b.Write(m.Data)
	}
	return b.String()
}

func detail(err error) *rtaskv1.Error { return codec.DetailOf(err) }

// A command runs with the rights that the kernel says its caller has.
func TestCommandsRunAsTheirCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start jobs as other users")
	}
	f := newFixture(t, tasks)
	peer := auth.Peer{UID: opUID, GID: 61103, Groups: []uint32{operatorGID, 61104}, CgroupKnown: true}
	j := must[rtaskv1.StartResponse](t)(f.as(peer).Start(t.Context(), &rtaskv1.StartRequest{
		Name: "sh", Path: "/bin/sh", WorkingDirectory: "/", Arguments: []string{"-c", "id -u; id -g; id -G; grep -E '^(Uid|Gid|CapEff|NoNewPrivs)' /proc/self/status"},
	})).Job
	must[rtaskv1.WaitResponse](t)(f.as(peer).Wait(t.Context(), &rtaskv1.WaitRequest{Job: j.Id}))
	want := "61003\n61103\n61103 61104 62001\n" + "Uid:\t61003\t61003\t61003\t61003\nGid:\t61103\t61103\t61103\t61103\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
	want = strings.Replace(want, "61104 62001", "61104 62002", 1)
	got := f.output(j.Id)
	if got != want && got != strings.Replace(want, "61104 62002", "62002 61104", 1) {
		t.Errorf("got %q, want %q", got, want)
	}
	if j.User != "61003" || j.Owner != "olga" {
		t.Errorf("%v", j)
	}
}

// To a user, another one's job is not there: each reply is the same as for an id that never was.
func TestObjects(t *testing.T) {
	f := newFixture(t, tasks)
	mine := must[rtaskv1.StartResponse](t)(f.as(ben).Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"})).Job
	theirs := must[rtaskv1.StartResponse](t)(f.as(ada).Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"})).Job
	// A key's job is no user's, whatever uid it has.
	byKey, err := f.Jobs.Start(t.Context(), job.Spec{Run: spec.Run{Args: []string{"sleep", "1000"}}, Owner: job.Owner{UID: benUID, Name: "demo", Key: "k"}})
	if err != nil {
		t.Fatal(err)
	}
	jobs := f.as(ben)
	calls := map[string]func(ref string) error{
		"Status": func(ref string) error {
			_, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: ref})
			return err
		},
		"Stop": func(ref string) error {
			_, err := jobs.Stop(t.Context(), &rtaskv1.StopRequest{Job: ref, Kill: true})
			return err
		},
		"Wait": func(ref string) error {
			_, err := jobs.Wait(t.Context(), &rtaskv1.WaitRequest{Job: ref})
			return err
		},
		"StreamLogs": func(ref string) error {
			stream, err := jobs.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: ref})
			if err != nil {
				return err
			}
			_, err = stream.Receive()
			return err
		},
	}
	for name, call := range calls {
		for _, id := range []string{theirs.Id, byKey.ID, theirs.Id[:8], fmt.Sprint(theirs.Pid)} {
			err := call(id)
			codes(t, err, connect.CodeNotFound)
			none := call("aaaaaaaaaaaaaaaa")
			if strings.ReplaceAll(err.Error(), id, "ID") != strings.ReplaceAll(none.Error(), "aaaaaaaaaaaaaaaa", "ID") ||
				fmt.Sprint(detail(err)) != fmt.Sprint(detail(none)) {
				t.Errorf("%s %s: %v, and of none: %v", name, id, err, none)
			}
		}
		if name != "Stop" && name != "Wait" && name != "StreamLogs" {
			if err := call(mine.Id); err != nil {
				t.Errorf("%s of one's own: %v", name, err)
			}
		}
	}
	list := func(p auth.Peer) int {
		return len(must[rtaskv1.ListResponse](t)(f.as(p).List(t.Context(), &rtaskv1.ListRequest{All: true})).Jobs)
	}
	if n := list(ben); n != 1 {
		t.Errorf("ben sees %d jobs", n)
	}
	if n := list(peers()[auth.Operator]); n != 3 {
		t.Errorf("an operator sees %d jobs", n)
	}
	// A prefix is ambiguous among what one sees, and not by what one does not.
	if _, err := jobs.Status(t.Context(), &rtaskv1.StatusRequest{Job: mine.Id[:4]}); err != nil {
		t.Errorf("by a prefix that is one's own alone: %v", err)
	}
	names := func(p auth.Peer) (names []string) {
		for _, k := range must[rtaskv1.TasksResponse](t)(f.as(p).Tasks(t.Context(), &rtaskv1.TasksRequest{})).Tasks {
			names = append(names, k.Name)
		}
		return names
	}
	if got := fmt.Sprint(names(ada), names(ben)); got != "[hello sleeps] [sleeps]" {
		t.Error(got)
	}
	if got := fmt.Sprint(names(peers()[auth.Operator])); got != "[async fails hello limited nowhere off sleeps true]" {
		t.Error(got)
	}
	if s := must[rtaskv1.StopResponse](t)(jobs.Stop(t.Context(), &rtaskv1.StopRequest{Job: mine.Id})).Job; s.Detail != "stopped by ben" {
		t.Errorf("%v", s)
	}
	if j, err := f.Jobs.Status(theirs.Id); err != nil || j.State != job.Running {
		t.Errorf("%s, %v", j.State, err)
	}
}

// allow_groups counts the primary group and the others.
func TestAllowGroups(t *testing.T) {
	f := newFixture(t, `task "a" {
  command      = ["/bin/true"]
  allow_groups = ["daemon"]
}`)
	gid, err := job.LookupGroup("daemon")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		peer auth.Peer
		may  bool
	}{
		{ada, false},
		{auth.Peer{UID: adaUID, GID: gid, CgroupKnown: true}, true},
		{auth.Peer{UID: adaUID, GID: 1, Groups: []uint32{2, gid}, CgroupKnown: true}, gid != 0},
	} {
		_, err := f.as(c.peer).Start(t.Context(), &rtaskv1.StartRequest{Name: "a"})
		if (err == nil) != c.may {
			t.Errorf("%+v: %v", c.peer, err)
		}
	}
}

func TestStreamLogs(t *testing.T) {
	f := newFixture(t, tasks)
	j := must[rtaskv1.StartResponse](t)(f.as(ada).Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"})).Job
	stream, err := f.as(ada).StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: j.Id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	m := must[rtaskv1.StreamLogsResponse](t)(stream.Receive())
	if string(m.Data) != "on\n" || m.Stream != rtaskv1.Stream_STREAM_STDOUT || m.Offset == 0 || m.Time == nil {
		t.Errorf("%v", m)
	}
	// A follower of a job that is silent hears at once that it follows.
	silent, err := f.as(ada).StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: j.Id, Follow: true, Offset: m.Offset})
	if err != nil {
		t.Fatal(err)
	}
	go f.Jobs.Stop(t.Context(), j.Id, job.StopOptions{Kill: true})
	for name, s := range map[string]rtaskv1connect.JobServiceStreamLogsClientStream{"silent": silent, "stream": stream} {
		if m, err := s.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("%s, at the end: %v, %v", name, m, err)
		}
	}
	bad, err := f.as(ada).StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: j.Id, Offset: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = bad.Receive()
	codes(t, err, connect.CodeInvalidArgument)
	// Who waits may go.
	other := must[rtaskv1.StartResponse](t)(f.as(ada).Start(t.Context(), &rtaskv1.StartRequest{Name: "sleeps"})).Job
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.as(ada).Wait(ctx, &rtaskv1.WaitRequest{Job: other.Id}); err == nil {
		t.Error("Wait ended with no end")
	}
}

// Without a configuration commands go on, and tasks say why not.
func TestInvalidConfiguration(t *testing.T) {
	f := newFixture(t, `task "x" { comand = ["/bin/true"] }`)
	jobs := f.as(self())
	r := must[rtaskv1.StartResponse](t)(jobs.Start(t.Context(), &rtaskv1.StartRequest{Name: "true", Path: "/bin/true", WorkingDirectory: "/"}))
	must[rtaskv1.WaitResponse](t)(jobs.Wait(t.Context(), &rtaskv1.WaitRequest{Job: r.Job.Id}))
	_, startErr := jobs.Start(t.Context(), &rtaskv1.StartRequest{Name: "x"})
	_, tasksErr := jobs.Tasks(t.Context(), &rtaskv1.TasksRequest{})
	for _, err := range []error{startErr, tasksErr} {
		codes(t, err, connect.CodeUnavailable)
		d := detail(err)
		if d.GetKind() != "configuration" || len(d.GetDiagnostics()) == 0 || !strings.Contains(d.Diagnostics[0].Text, "comand") || d.Diagnostics[0].Line != 1 {
			t.Errorf("%v %v", err, d)
		}
	}
	if i := must[rtaskv1.InfoResponse](t)(jobs.Info(t.Context(), &rtaskv1.InfoRequest{})); len(i.Diagnostics) == 0 {
		t.Error("Info does not say so")
	}
	_, err := f.net(f.key("demo"), "x").Run(t.Context(), &rtaskv1.RunRequest{})
	if d := detail(err); d.GetKind() != "configuration" || len(d.GetDiagnostics()) != 0 || strings.Contains(err.Error(), "comand") {
		t.Errorf("to the network: %v %v", err, d)
	}
}

// Nobody runs as the gateway, by any of its names.
func TestNoTaskRunsAsTheGateway(t *testing.T) {
	u, err := job.LookupUser("nobody")
	if err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"nobody", fmt.Sprint(u.UID)} {
		f := newFixture(t, fmt.Sprintf("task \"x\" {\n command = [\"/bin/true\"]\n user = %q\n}", name))
		f.GatewayUID = &u.UID
		_, err := f.as(self()).Start(t.Context(), &rtaskv1.StartRequest{Name: "x"})
		codes(t, err, connect.CodeUnavailable)
		if detail(err).GetKind() != "configuration" || !strings.Contains(err.Error(), "gateway") {
			t.Errorf("%s: %v", name, err)
		}
		f.noJobs()
	}
}

func TestKeys(t *testing.T) {
	f := newFixture(t, tasks)
	admin := f.as(peers()[auth.Admin])
	made := must[rtaskv1.AddKeyResponse](t)(admin.AddKey(t.Context(), &rtaskv1.AddKeyRequest{Name: "demo"}))
	if !strings.HasPrefix(made.Secret, "rtk_") || made.Key.Name != "demo" || made.Key.ExpiresAt != nil {
		t.Errorf("%v", made.Key)
	}
	_, err := admin.AddKey(t.Context(), &rtaskv1.AddKeyRequest{Name: "demo"})
	codes(t, err, connect.CodeAlreadyExists)
	_, err = admin.AddKey(t.Context(), &rtaskv1.AddKeyRequest{Name: "De mo"})
	codes(t, err, connect.CodeInvalidArgument)
	if list := must[rtaskv1.ListKeysResponse](t)(admin.ListKeys(t.Context(), &rtaskv1.ListKeysRequest{})); len(list.Keys) != 1 || list.Keys[0].Id != made.Key.Id {
		t.Errorf("%v", list)
	}
	must[rtaskv1.RevokeKeyResponse](t)(admin.RevokeKey(t.Context(), &rtaskv1.RevokeKeyRequest{Key: "demo"}))
	_, err = admin.RevokeKey(t.Context(), &rtaskv1.RevokeKeyRequest{Key: "demo"})
	codes(t, err, connect.CodeNotFound)
	if strings.Contains(f.logs.String(), made.Secret) {
		t.Error("the key is in the log")
	}
}

// Every state and reason has a word of its own in the API.
func TestMessages(t *testing.T) {
	for i, s := range []job.State{"?", job.Queued, job.Running, job.Stopping, job.Ended} {
		if m := jobMessage(job.Job{State: s}); m.State != rtaskv1.State(i) || i > 0 && m.State.Word() != string(s) {
			t.Errorf("%s: %v, %s", s, m.State, m.State.Word())
		}
	}
	for i, r := range []spec.Reason{spec.Succeeded, spec.ExitCode, spec.Signal, spec.Timeout, spec.OOM, spec.Stopped, spec.Lost, spec.Setup} {
		j := job.Job{State: job.Ended, Exit: &spec.Exit{Reason: r}}
		if m := jobMessage(j); m.Reason != rtaskv1.Reason(i) || m.Reason.Word() != string(r) || m.Succeeded() != j.Succeeded() {
			t.Errorf("%s: %v, %s", r, m.Reason, m.Reason.Word())
		}
	}
	if m := jobMessage(job.Job{Exit: &spec.Exit{Code: 0}}); m.ExitCode == nil || m.StartedAt != nil {
		t.Errorf("%v", m)
	}
}

// What names no job says what is wrong with it: a slip of one letter stops nothing, and a task is not a job.
func TestRefs(t *testing.T) {
	f := newFixture(t, tasks)
	op := self()
	j := must[rtaskv1.StartResponse](t)(f.as(op).Start(t.Context(), &rtaskv1.StartRequest{Name: "sleep", Path: "/bin/sleep", WorkingDirectory: "/", Arguments: []string{"1000"}})).Job
	for _, c := range []struct {
		who  auth.Peer
		ref  string
		code connect.Code
		text string
	}{
		{op, j.Id[:1], connect.CodeInvalidArgument, "give at least 4 characters of a job's id"},
		{op, j.Id[:3], connect.CodeInvalidArgument, "give at least 4 characters of a job's id"},
		{op, "sleeps", connect.CodeNotFound, `"sleeps" is a task, not a job; rtaskctl ps -a --task sleeps lists its jobs`},
		{op, "off", connect.CodeNotFound, `"off" is a task, not a job`},
		{op, "no-such-task", connect.CodeNotFound, `no such job: "no-such-task"`},
		{ada, "sleeps", connect.CodeNotFound, `"sleeps" is a task, not a job`},
		{ada, "async", connect.CodeNotFound, `no such job: "async"`}, // which she may not know of
		{ada, j.Id[:4], connect.CodeNotFound, "no such job"},
	} {
		_, stopErr := f.as(c.who).Stop(t.Context(), &rtaskv1.StopRequest{Job: c.ref})
		_, statusErr := f.as(c.who).Status(t.Context(), &rtaskv1.StatusRequest{Job: c.ref})
		for _, err := range []error{stopErr, statusErr} {
			if connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%q: %v, want %s", c.ref, err, c.text)
			}
		}
	}
	if r := must[rtaskv1.StopResponse](t)(f.as(op).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id[:4]})); r.HadEnded || r.Job.Reason != rtaskv1.Reason_REASON_STOPPED {
		t.Errorf("%v", r)
	}
	if r := must[rtaskv1.StopResponse](t)(f.as(op).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id})); !r.HadEnded || r.Job.Reason != rtaskv1.Reason_REASON_STOPPED {
		t.Errorf("%v", r)
	}
}

// What is counted is what there is: jobs that run, and jobs that wait.
func TestInfoCounts(t *testing.T) {
	f := newFixture(t, `
task "one" {
  command        = ["/bin/sleep", "1000"]
  max_concurrent = 1
  overflow       = "queue"
  queue          = 5
}`)
	op := self()
	var jobs []string
	for range 3 {
		jobs = append(jobs, must[rtaskv1.StartResponse](t)(f.as(op).Start(t.Context(), &rtaskv1.StartRequest{Name: "one"})).Job.Id)
	}
	counts := func(running, queued int32) {
		t.Helper()
		i := must[rtaskv1.InfoResponse](t)(f.as(op).Info(t.Context(), &rtaskv1.InfoRequest{}))
		if i.Running != running || i.Queued != queued {
			t.Errorf("%d running, %d queued; want %d and %d", i.Running, i.Queued, running, queued)
		}
		d := must[rtaskv1.DrainResponse](t)(f.as(peers()[auth.Admin]).Drain(t.Context(), &rtaskv1.DrainRequest{}))
		if d.Jobs != running+queued || !d.Draining {
			t.Errorf("draining: %v", d)
		}
		must[rtaskv1.DrainResponse](t)(f.as(peers()[auth.Admin]).Drain(t.Context(), &rtaskv1.DrainRequest{Cancel: true}))
	}
	counts(1, 2)
	must[rtaskv1.StopResponse](t)(f.as(op).Stop(t.Context(), &rtaskv1.StopRequest{Job: jobs[2]}))
	counts(1, 1)
}
